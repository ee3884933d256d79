//! Policies: what operators write, and everything that can be wrong with it.
//!
//! [`PolicySet::parse`] reads whole files and gathers every mistake that it can find,
//! each with its place and with what was expected; [`PolicySet::check_plugins`] then
//! holds the policies against the plugins that are loaded. Until both are content,
//! nothing changes.

pub(crate) mod error;
mod model;
mod plugins;
mod read;
pub(crate) mod section;
mod set;
mod written;
pub(crate) mod yaml;

pub use error::PolicyError;
pub use error::nearest;
pub use model::{
    Check, DEFAULT_EVIDENCE, DEFAULT_TTL, Escalation, Mode, Policy, SourceLocation, Step, Verify,
};
pub use plugins::{ParamError, PluginCatalog, PluginFacts};
pub use set::{Environment, PolicySet};
pub use yaml::check_yaml;
