//! `sentinel plugin …`: what a plugin's author does, from an empty folder to a file that is
//! live, and what an operator asks of one.

mod bench;
mod build;
mod cases;
mod check;
mod contract;
mod distribute;
mod helpers;
mod inspect;
mod new;
mod project;
mod run;
mod test;
mod versions;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use sentinel_core::grant::Import;
use sentinel_core::id::PluginName;
use sentinel_sandbox::code::CodeStore;
use sentinel_sandbox::{Plugin, Sandbox, SandboxConfig};
use tokio::runtime::Runtime;

use super::output::Failure;
use super::{EXIT_CODES, OutputArgs, compile};
use project::Language;

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Make a plugin's project: it builds and passes its own tests at once.
    ///
    /// The folder has the sources, the contract (`wit/`), what helps in its language, and cases for
    /// `sentinel plugin test`. Nothing is downloaded. What the plugin may use is in `plugin.yaml`.
    ///
    /// For example:
    ///   `sentinel plugin new unfreeze --lang python`
    ///   `cd unfreeze && sentinel plugin test`
    #[command(after_help = EXIT_CODES, verbatim_doc_comment)]
    New {
        /// The plugin's name: lower-case letters, digits and dashes. Also the folder's.
        name: PluginName,
        /// What it is written in.
        #[arg(long, value_enum)]
        lang: Language,
        /// Where to put it; by default a folder of its name here.
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Build a plugin's project with its language's own toolchain.
    ///
    /// Reads `plugin.yaml`, writes the contract narrowed to what `uses` names, and calls cargo,
    /// componentize-py, componentize-qjs or clang. What comes out is looked at as the daemon does, and put
    /// to NAME.wasm in the project.
    ///
    /// For example:
    ///   `sentinel plugin build unfreeze -o /etc/sentinel/plugins/unfreeze.wasm`
    #[command(after_help = EXIT_CODES, verbatim_doc_comment)]
    Build {
        /// The project: a folder with a `plugin.yaml`.
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Where to put the plugin.
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Say whether the daemon would take a file as a plugin, and what it is made of.
    ///
    /// The form, the world, every import and which of them a policy has to grant, the sizes, and
    /// what it says of itself. Exits with 1 when the daemon would refuse it.
    #[command(after_help = EXIT_CODES)]
    Check {
        /// The plugin, a `.wasm` file.
        file: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show what a plugin says of itself, and what it asks for.
    ///
    /// The file is loaded and probed as the daemon does it, under the default limits; it can touch
    /// nothing.
    Inspect {
        /// The plugin, a `.wasm` file.
        file: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Run a plugin once, for an alert, without a daemon.
    ///
    /// By default the run is dry: what it looks at is real, and what it would change is shown and
    /// not done. With --live it is done, within what --grants or --policy grants.
    ///
    /// For example:
    ///   `sentinel plugin run unfreeze.wasm --alert alert.json`
    ///   `sentinel plugin run unfreeze.wasm --alert alert.json --live --grants 'docker: { containers: [web], actions: [inspect, restart] }'`
    #[command(after_help = EXIT_CODES, verbatim_doc_comment)]
    Run(run::RunArgs),
    /// Run a plugin's cases: an alert, what it asks and is told, and how it ends.
    ///
    /// Each file in `cases/` is one case. The plugin runs on the sandbox that the daemon has, in a
    /// world that answers as the case says: nothing is touched, and no sleep takes any time. Exits
    /// with 1 when a case fails.
    ///
    /// A case, with everything that can be left out left out:
    ///   `alert: { labels: { container: web } }`
    ///   `calls:`
    ///   `  - docker.inspect: { container: web }`
    ///   `    answer: { state: exited, exit_code: 137 }`
    ///   `  - docker.start:`
    ///   `expect: { changed: 'started *' }`
    #[command(after_help = EXIT_CODES, verbatim_doc_comment)]
    Test(test::TestArgs),
    /// Measure what a run of a plugin costs: a fresh instance and one call.
    ///
    /// With --case its calls are answered as the case says; without it the run ends at its first
    /// call to the host.
    #[command(after_help = EXIT_CODES)]
    Bench(bench::BenchArgs),
    /// Put a plugin into an OCI registry, for others to pull.
    ///
    /// The file is looked at as the daemon does: what is no plugin is not pushed. It is laid out as
    /// `wkg` and `oras` read WebAssembly, with its name, version, summary and what it asks for as
    /// annotations. A signature in FILE.minisig travels along, and is checked first where the
    /// configuration has keys. The same file comes to the same digest, whenever it is pushed.
    ///
    /// Passwords are those of `docker login`, or given with --username and --password-stdin. Plain HTTP is
    /// spoken to this very machine alone, or with --plain-http.
    ///
    /// For example:
    ///   `minisign -Sm docker-restart.wasm`
    ///   `sentinel plugin push docker-restart.wasm ghcr.io/team/docker-restart:1.2.0`
    #[command(after_help = EXIT_CODES, verbatim_doc_comment)]
    Push(distribute::PushArgs),
    /// Take a plugin out of an OCI registry, into a file.
    ///
    /// Every byte is checked against the digests that name it, and the size before it is read; the
    /// signature as `plugins.signatures` of the configuration says; and the file as
    /// `sentinel plugin check` does. What does not pass leaves no file.
    ///
    /// A tag can be moved to something else, a digest cannot: push and pull print it.
    ///
    /// For example:
    ///   `sentinel plugin pull ghcr.io/team/docker-restart:1.2.0`
    ///   `sentinel plugin pull ghcr.io/team/docker-restart@sha256:9f86… -o plugins/docker-restart.wasm`
    #[command(after_help = EXIT_CODES, verbatim_doc_comment)]
    Pull(distribute::PullArgs),
    /// List a running daemon's plugins, the versions of each, and what does not serve.
    List(versions::ListArgs),
    /// Put a plugin into a running daemon, if it can serve.
    ///
    /// From a file, or from a registry as `sentinel plugin pull` does it. The answer says which version
    /// serves, and what it asks for that the one before did not.
    ///
    /// It is checked as one that is found in the folder: its signature where signatures are asked
    /// for, what it imports, whether it starts, its params against every policy that uses it, and the
    /// last recorded runs where `plugins.replay` says so. Only then it is written to `plugins_dir`, and
    /// serves; runs in flight finish on the version that they began with.
    ///
    /// For example:
    ///   `sentinel plugin install docker-restart.wasm`
    ///   `sentinel plugin install oci://ghcr.io/team/docker-restart:1.2.0`
    #[command(after_help = EXIT_CODES, verbatim_doc_comment)]
    Install(versions::InstallArgs),
    /// Take a plugin out of a running daemon, if no policy needs it. Its versions are kept.
    Remove(versions::RemoveArgs),
    /// Let an older version of a plugin serve again.
    ///
    /// What serves now does not serve again before `sentinel plugin accept` or `install --accept` says
    /// so, also when it is still in the folder.
    #[command(name = "rollback", after_help = EXIT_CODES)]
    RollBack(versions::RollBackArgs),
    /// Let a version serve although recorded runs differ, or although it was rolled back.
    Accept(versions::AcceptArgs),
}

pub(super) fn dispatch(config: &Path, command: PluginCommand) -> Result<(), Failure> {
    match command {
        PluginCommand::New { name, lang, to } => new::run(&name, lang, to.as_deref()),
        PluginCommand::Build {
            folder,
            out,
            output,
        } => build::run(&folder, out.as_deref(), output.output),
        PluginCommand::Check { file, output } => check::run(&file, output.output),
        PluginCommand::Inspect { file, output } => inspect::inspect(&file, output.output),
        PluginCommand::Run(args) => run::run(&args),
        PluginCommand::Test(args) => test::run(&args),
        PluginCommand::Bench(args) => bench::run(&args),
        PluginCommand::Push(args) => distribute::push(config, &args),
        PluginCommand::Pull(args) => distribute::pull(config, args),
        PluginCommand::List(args) => versions::list(config, args),
        PluginCommand::Install(args) => versions::install(config, args),
        PluginCommand::Remove(args) => versions::remove(config, args),
        PluginCommand::RollBack(args) => versions::roll_back(config, args),
        PluginCommand::Accept(args) => versions::accept(config, args),
    }
}

/// The sandbox that a daemon has which is configured to nothing else. What it compiles it
/// keeps in the user's cache, so that what has not changed need not be compiled again.
fn sandbox() -> Result<Arc<Sandbox>, Failure> {
    let cache = build::cache().map(|cache| cache.join("code"));
    let store = cache.and_then(|folder| {
        std::fs::create_dir_all(folder.parent()?).ok()?;
        CodeStore::open(&folder, &folder.with_extension("key")).ok()
    });
    Sandbox::new(SandboxConfig {
        compiler: compile::compiler(),
        store,
        ..SandboxConfig::default()
    })
    .map(Arc::new)
    .map_err(|error| Failure::software(error.to_string()))
}

fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::software(error.to_string()))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file)
        .map_err(|error| Failure::given(format!("{}: cannot be read: {error}", file.display())))
}

/// Loads a plugin as the daemon does.
async fn load(sandbox: &Sandbox, file: &Path) -> Result<Arc<Plugin>, Failure> {
    sandbox
        .load(read(file)?)
        .await
        .map_err(|error| Failure::given(format!("{}: {error}", file.display())))
}

/// What a policy has to grant.
fn asks_for(imports: &BTreeSet<Import>) -> String {
    if imports.is_empty() {
        return "nothing".to_owned();
    }
    let imports: Vec<String> = imports.iter().map(ToString::to_string).collect();
    imports.join(", ")
}

/// A number of bytes, for people.
fn size(bytes: usize) -> String {
    const KIB: usize = 1024;
    if bytes < 10 * KIB * KIB {
        format!("{} KiB", bytes.div_ceil(KIB))
    } else {
        format!("{} MiB", bytes.div_ceil(KIB * KIB))
    }
}
