//! `sentinel plugin list|install|remove|rollback|accept`: what a running daemon's plugins
//! are, and which versions serve.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use sentinel_core::id::{Digest, PluginName};

use super::distribute::{self, Origin, RegistryArgs};
use crate::api::{AcceptBody, InstallQuery, PluginList, RollBackBody};
use crate::cli::incidents::second;
use crate::cli::operate::{ByArgs, DaemonArgs, said};
use crate::cli::output::{Failure, harmless, print, print_as};
use crate::cli::{OutputArgs, client};

/// `sentinel plugin list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// `sentinel plugin install`.
#[derive(Debug, Args)]
pub(in crate::cli) struct InstallArgs {
    /// The plugin: a `.wasm` file, or `oci://` and a reference in a registry. The signature of a
    /// file is taken from the file beside it whose name has `.minisig` at its end.
    #[arg(value_name = "FILE|oci://REFERENCE")]
    plugin: Origin,
    /// What the plugin calls itself; by default its file's name, or what it says in the registry.
    #[arg(long)]
    name: Option<PluginName>,
    /// Let it serve whatever its recorded runs say, and even if it was rolled back.
    #[arg(long)]
    accept: bool,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// `sentinel plugin remove`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RemoveArgs {
    /// The plugin.
    name: PluginName,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// `sentinel plugin rollback`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RollBackArgs {
    /// The plugin.
    name: PluginName,
    /// The version to go back to (`sentinel plugin list` has them); by default the one before what
    /// serves.
    #[arg(long, value_name = "DIGEST")]
    to: Option<Digest>,
    /// Why; it goes on record.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// `sentinel plugin accept`.
#[derive(Debug, Args)]
pub(in crate::cli) struct AcceptArgs {
    /// The version, `sha256:` and 64 hexadecimal digits.
    digest: Digest,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) fn list(config: &Path, args: ListArgs) -> Result<(), Failure> {
    let base = client::base(config, args.daemon.url)?;
    let list: PluginList = client::get(&base, "api/v1/plugins", &[])?;
    print_as(args.output.output, &list, || text(&list))
}

fn text(list: &PluginList) -> String {
    let mut out = String::new();
    for plugin in &list.plugins {
        let policies: Vec<_> = plugin.used_by.iter().map(ToString::to_string).collect();
        let used_by = if policies.is_empty() {
            "no policy".to_owned()
        } else {
            policies.join(", ")
        };
        // Writing to a String cannot fail.
        let _ok = writeln!(
            out,
            "{} {}  {}\n  {}\n  file      {}\n  asks for  {}\n  used by   {used_by}",
            plugin.name,
            harmless(&plugin.version),
            plugin.digest,
            harmless(&plugin.summary),
            harmless(&plugin.file),
            plugin.asks_for.join(", "),
        );
        for pin in &plugin.pins {
            let _ok = writeln!(out, "  pinned    {} to {}", pin.policy, pin.digest.short());
        }
        if let Some(probation) = &plugin.probation {
            let _ok = writeln!(
                out,
                "  new       {} runs so far, it broke down in {}",
                probation.runs, probation.faults
            );
        }
        for version in &plugin.versions {
            let gone = version.rolled_back.as_ref();
            let gone = gone.map_or_else(String::new, |why| {
                format!("; rolled back: {}", harmless(why))
            });
            let _ok = writeln!(
                out,
                "  {}  {}  by {}{gone}",
                second(version.since),
                version.digest,
                harmless(&version.by)
            );
        }
    }
    for problem in &list.problems {
        let _ok = writeln!(
            out,
            "does not serve: {}: {}",
            harmless(&problem.file),
            harmless(&problem.message)
        );
    }
    if out.is_empty() {
        out.push_str("there are no plugins\n");
    }
    out
}

pub(super) fn install(config: &Path, args: InstallArgs) -> Result<(), Failure> {
    let (name, wasm, signature) = match &args.plugin {
        Origin::File(file) => {
            let (wasm, signature) = distribute::with_signature(file)?;
            let stem = file.file_stem().and_then(|stem| stem.to_str());
            let name = match args.name {
                Some(name) => Ok(name),
                None => PluginName::new(stem.unwrap_or_default()),
            };
            let name = name.map_err(|error| {
                Failure::given(format!("{}: {error}", file.display()))
                    .hint("say with --name what the plugin calls itself")
            })?;
            (name, wasm, signature)
        }
        Origin::Registry(reference) => {
            let taken = distribute::take(config, reference, &args.registry)?;
            print(&format!("pulled {}\n", taken.reference))?;
            (args.name.unwrap_or(taken.name), taken.wasm, taken.signature)
        }
    };
    let query = InstallQuery {
        by: args.by.by,
        signature,
        accept: args.accept,
    };
    let base = client::base(config, args.daemon.url)?;
    said(&client::put(
        &base,
        &format!("api/v1/plugins/{name}"),
        &query,
        wasm,
    )?)
}

pub(super) fn remove(config: &Path, args: RemoveArgs) -> Result<(), Failure> {
    let base = client::base(config, args.daemon.url)?;
    let path = format!("api/v1/plugins/{}", args.name);
    said(&client::delete(&base, &path, &[("by", args.by.by)])?)
}

pub(super) fn roll_back(config: &Path, args: RollBackArgs) -> Result<(), Failure> {
    let body = RollBackBody {
        to: args.to,
        by: args.by.by,
        reason: args.reason,
    };
    let base = client::base(config, args.daemon.url)?;
    let path = format!("api/v1/plugins/{}/rollback", args.name);
    said(&client::post(&base, &path, &body)?)
}

pub(super) fn accept(config: &Path, args: AcceptArgs) -> Result<(), Failure> {
    let base = client::base(config, args.daemon.url)?;
    let path = format!("api/v1/versions/{}/accept", args.digest);
    said(&client::post(&base, &path, &AcceptBody { by: args.by.by })?)
}
