//! Remediation plugins for Infra Sentinel, in Rust.
//!
//! A plugin is one type that implements [`Remediation`], handed to [`plugin!`]. Sentinel
//! runs it in a sandbox, in a fresh instance for each run, when a policy's step names it.
//! This one restarts the container that the policy acts on, unless its health check
//! passes:
//!
//! ```no_run
//! use sentinel_plugin::docker::{self, Health};
//! use sentinel_plugin::params::Span;
//! use sentinel_plugin::{Failure, Incident, Outcome, Remediation, info};
//! use serde::Deserialize;
//!
//! struct Bounce;
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Params {
//!     /// Without it the container has as long to stop as it asks for.
//!     timeout: Option<Span>,
//! }
//!
//! impl Remediation for Bounce {
//!     type Params = Params;
//!
//!     const SUMMARY: &'static str = "Restarts a container that is not healthy.";
//!
//!     const PARAMS_SCHEMA: &'static str = r#"{
//!         "type": "object",
//!         "properties": { "timeout": { "type": ["string", "number"] } },
//!         "additionalProperties": false
//!     }"#;
//!
//!     fn remediate(incident: &Incident, params: Params) -> Result<Outcome, Failure> {
//!         let container = incident
//!             .target
//!             .container()
//!             .ok_or_else(|| Failure::permanent("the target is no container"))?;
//!         let details = container.inspect()?;
//!         if details.health == Health::Healthy {
//!             return Ok(Outcome::unchanged(format!("{container} is healthy")));
//!         }
//!         info!("{container} is {}, {}", details.state, details.health);
//!         container.restart(docker::grace(params.timeout))?;
//!         Ok(Outcome::changed(format!("restarted {container}")))
//!     }
//! }
//!
//! sentinel_plugin::plugin!(Bounce);
//! # fn main() {}
//! ```
//!
//! # From a folder to a file that runs
//!
//! `sentinel plugin new bounce --lang rust` makes such a project, with this crate in it and
//! cases for `sentinel plugin test`. By hand it is this. The crate is a `cdylib`; its name and version in `Cargo.toml` are the plugin's:
//!
//! ```toml
//! [package]
//! name = "bounce"
//! version = "0.1.0"
//! edition = "2024"
//!
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! sentinel-plugin = { path = "…/plugins/sdk" }
//! serde = { version = "1", features = ["derive"] }
//!
//! [profile.release]
//! opt-level = "s"
//! lto = true
//! panic = "abort"
//! strip = true
//! ```
//!
//! `cargo build --release --target wasm32-wasip2` makes the component, and
//! `sentinel plugin inspect target/wasm32-wasip2/release/bounce.wasm` shows what Sentinel
//! sees in it. Drop the file into Sentinel's plugins folder and it is live. A file that
//! cannot be loaded changes nothing; the log says why.
//!
//! # What it asks for is what it imports
//!
//! Each function of [`docker`], [`ansible`], [`http`], [`mail`] and [`memory`] that the
//! plugin calls becomes an import of the component, and each that it does not call stays out
//! of it. A policy has to grant what is imported, and one that does not is refused when it is
//! loaded. The plugin above asks for `docker.inspect` and `docker.restart`, and nothing
//! can make it do more. [`log`], [`clock`] and [`random`] need no grant.
//!
//! Whether a call is an *observation* or an *effect* is said with each; an effect is on the
//! host's record before it is carried out. A plugin needs no dry mode of its own, and should
//! not have one: whether effects are carried out is for the host to say.
//!
//! # How a run ends
//!
//! An [`Outcome`] says that the plugin is done; whether the target is healthy is for the
//! policy's `verify` to find out. A [`Failure`] says what the engine should do next. The
//! `?` operator turns the [`CapabilityError`] of a call into the failure that fits it.
//! Params that do not fit [`Remediation::Params`] are a permanent failure that says which
//! one is wrong. A panic ends the run as a failure, and its message is logged with the
//! incident.
//!
//! A run may be ended at any call (the policy's time is over, the daemon is stopped) and be
//! made again, so look before you act, and let the second time find the work of the first.
//! Let everything that a plugin does follow from its incident and from what its calls
//! returned, and take time and chance from [`clock`] and [`random`] alone: then its record
//! explains it.
//!
//! # Tests
//!
//! The crate compiles for any target, but its calls reach a host only inside one: elsewhere
//! they panic. Keep the decision in a function of plain data (an [`Incident`],
//! [`docker::Details`], the params), and test that with `cargo test`. The whole plugin is
//! tested by `sentinel plugin test`: each case is an alert, what the plugin asks and is
//! told, and how it ends, and it is run on the sandbox that the daemon has.

#![forbid(unsafe_code)]

pub mod ansible;
#[doc(hidden)]
#[expect(clippy::same_length_and_capacity, reason = "the code is generated")]
pub mod bindings;
pub mod clock;
pub mod docker;
mod error;
#[doc(hidden)]
pub mod export;
pub mod http;
mod incident;
pub mod log;
pub mod mail;
pub mod memory;
pub mod params;
pub mod random;

pub use serde_json;

pub use crate::bindings::sentinel::plugin::types::{
    Alert, AlertStatus, Incident, Label, Outcome, Target, Timestamp,
};
pub use crate::error::{CapabilityError, Failure};

use serde::de::DeserializeOwned;

/// A plugin. See the [crate's documentation](crate) for a whole one.
pub trait Remediation {
    /// What the plugin takes from the step's `params`; [`params::None`] when it takes
    /// nothing. Refuse unknown fields (`#[serde(deny_unknown_fields)]`), so that a
    /// misspelt param does not go unnoticed.
    type Params: DeserializeOwned;

    /// What the plugin does, in one sentence.
    const SUMMARY: &'static str;

    /// A JSON Schema (draft 2020-12) of [`Params`](Self::Params). Policies are checked
    /// against it when they are loaded, so the more exactly it is written, the fewer
    /// surprises are left for an incident. `include_str!("params.schema.json")` keeps it
    /// in a file of its own.
    const PARAMS_SCHEMA: &'static str;

    /// Acts on an incident.
    fn remediate(incident: &Incident, params: Self::Params) -> Result<Outcome, Failure>;
}

/// Makes the crate a plugin: exports a type that implements [`Remediation`].
///
/// The plugin's name and version are those of the package. Another name, or another
/// version, is given like this:
///
/// ```no_run
/// # use sentinel_plugin::{Failure, Incident, Outcome, Remediation, params};
/// # struct Bounce;
/// # impl Remediation for Bounce {
/// #     type Params = params::None;
/// #     const SUMMARY: &'static str = "Does nothing.";
/// #     const PARAMS_SCHEMA: &'static str = params::None::SCHEMA;
/// #     fn remediate(_: &Incident, _: params::None) -> Result<Outcome, Failure> {
/// #         Ok(Outcome::unchanged(""))
/// #     }
/// # }
/// sentinel_plugin::plugin!(Bounce, name = "bounce", version = "2.0.0");
/// # fn main() {}
/// ```
///
/// A name has 1 to 64 lower-case letters, digits and dashes, and begins with a letter; any
/// other does not compile:
///
/// ```compile_fail
/// # use sentinel_plugin::{Failure, Incident, Outcome, Remediation, params};
/// # struct Bounce;
/// # impl Remediation for Bounce {
/// #     type Params = params::None;
/// #     const SUMMARY: &'static str = "Does nothing.";
/// #     const PARAMS_SCHEMA: &'static str = params::None::SCHEMA;
/// #     fn remediate(_: &Incident, _: params::None) -> Result<Outcome, Failure> {
/// #         Ok(Outcome::unchanged(""))
/// #     }
/// # }
/// sentinel_plugin::plugin!(Bounce, name = "Bounce!", version = "2.0.0");
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! plugin {
    ($plugin:ty) => {
        $crate::plugin!(
            $plugin,
            name = ::core::env!("CARGO_PKG_NAME"),
            version = ::core::env!("CARGO_PKG_VERSION")
        );
    };
    ($plugin:ty, name = $name:expr, version = $version:expr $(,)?) => {
        const _: () = {
            ::core::assert!(
                $crate::export::is_name($name),
                "a plugin's name is 1 to 64 lower-case letters, digits and dashes, the first one a letter"
            );

            enum Component {}

            impl $crate::bindings::Guest for Component {
                fn describe() -> $crate::export::Description {
                    $crate::export::describe::<$plugin>($name, $version)
                }

                fn remediate(
                    incident: $crate::Incident,
                ) -> ::core::result::Result<$crate::Outcome, $crate::export::WireFailure> {
                    $crate::export::remediate::<$plugin>(&incident)
                }
            }

            $crate::bindings::export!(Component with_types_in $crate::bindings);
        };
    };
}
