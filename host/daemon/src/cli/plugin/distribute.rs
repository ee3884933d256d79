//! `sentinel plugin push` and `pull`: plugins by OCI registries.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use sentinel_core::id::{Digest, PluginName};
use sentinel_sandbox::{Plugin, SandboxConfig};
use serde::Serialize;

use super::{asks_for, read, runtime, sandbox, size};
use crate::cli::output::{Failure, harmless, print_as};
use crate::cli::{CONFIG, OutputArgs};
use crate::config::{Config, ConfigError, PluginsConfig};
use crate::registry::{
    Artifact, Credentials, Described, DockerConfig, Reference, Registry, RegistryError, SCHEME,
    Source,
};
use crate::serving::signature::{self, Judged};

/// The longest password that is read from stdin, in bytes.
const MAX_PASSWORD: u64 = 64 * 1024;

/// How a registry is spoken to.
#[derive(Debug, Args)]
pub(in crate::cli) struct RegistryArgs {
    /// Who asks the registry; without it, what `docker login` left in `config.json`.
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    username: Option<String>,
    /// Read the password from stdin.
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Speak plain HTTP to the registry. Without it only to one on this very machine;
    /// `--plain-http=false` speaks HTTPS to that as well.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    plain_http: Option<bool>,
}

/// `sentinel plugin push`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PushArgs {
    /// The plugin, a `.wasm` file.
    file: PathBuf,
    /// Where to: a host, a repository and a tag.
    reference: Reference,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// `sentinel plugin pull`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PullArgs {
    /// What: a host, a repository, and a tag or a digest.
    reference: Reference,
    /// Where to put it; by default a file here, named as the plugin. Its signature, if it has one,
    /// is put beside it.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Where a plugin is taken from.
#[derive(Debug, Clone)]
pub(in crate::cli) enum Origin {
    /// A file.
    File(PathBuf),
    /// A registry.
    Registry(Reference),
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if !s.starts_with(SCHEME) {
            return Ok(Self::File(s.into()));
        }
        s.parse()
            .map(Self::Registry)
            .map_err(|error: <Reference as FromStr>::Err| error.to_string())
    }
}

/// What was taken from a registry, and may be used.
pub(super) struct Taken {
    /// By digest.
    pub(super) reference: Reference,
    pub(super) name: PluginName,
    pub(super) wasm: Vec<u8>,
    pub(super) signature: Option<String>,
    plugin: Arc<Plugin>,
    judged: Judged,
}

/// What was pushed or pulled, for people and programs.
#[derive(Debug, Serialize)]
struct Done {
    /// By digest, for others to pull.
    reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    name: PluginName,
    version: String,
    /// The file's, which is what policies and `sentinel plugin list` call the digest.
    digest: Digest,
    size: usize,
    asks_for: Vec<String>,
    signature: &'static str,
    /// What there is to say about the signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    signed: Option<String>,
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let said = harmless(&error.to_string());
        let failure = if error.is_unavailable() {
            Self::unavailable(said)
        } else {
            Self::given(said)
        };
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl RegistryArgs {
    fn source(&self) -> Result<Source, Failure> {
        let Some(user) = self.username.clone() else {
            return Ok(Source::Docker(DockerConfig::locate(&crate::cli::variable)));
        };
        let mut password = String::new();
        std::io::stdin()
            .take(MAX_PASSWORD)
            .read_to_string(&mut password)
            .map_err(|error| Failure::given(format!("stdin: cannot be read: {error}")))?;
        let password = password.trim_end_matches(['\r', '\n']).to_owned();
        if password.is_empty() {
            return Err(Failure::given("there is no password on stdin")
                .hint("for example: `pass ghcr | sentinel plugin push … --username NAME --password-stdin`"));
        }
        Ok(Source::Given(Credentials::Password { user, password }))
    }

    fn registry(&self, reference: &Reference) -> Result<Registry, Failure> {
        Ok(Registry::new(reference, self.source()?, self.plain_http)?)
    }
}

/// What the configuration says of plugins. Who has none, such as an author, is asked for no
/// signature.
fn plugins_config(config: &Path) -> Result<Option<PluginsConfig>, Failure> {
    match Config::read(config, &crate::cli::variable) {
        Ok(config) => Ok(Some(config.plugins)),
        Err(ConfigError::Read { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound && config == Path::new(CONFIG) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn judge(
    config: &Path,
    what: &str,
    wasm: &[u8],
    signature: Option<&str>,
) -> Result<Judged, Failure> {
    let Some(config) = plugins_config(config)? else {
        return Ok(Judged::NotAsked);
    };
    signature::judge(&config, wasm, signature)
        .map_err(|problem| Failure::given(format!("{what}: {problem}")))
}

/// A plugin's bytes, and its signature from the file beside it.
pub(super) fn with_signature(file: &Path) -> Result<(Vec<u8>, Option<String>), Failure> {
    let wasm = read(file)?;
    let beside = signature::beside(file);
    match std::fs::read_to_string(&beside) {
        Ok(signature) => Ok((wasm, Some(signature))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((wasm, None)),
        Err(error) => Err(Failure::given(format!(
            "{}: cannot be read: {error}",
            beside.display()
        ))),
    }
}

pub(super) fn push(config: &Path, args: &PushArgs) -> Result<(), Failure> {
    let file = args.file.display().to_string();
    if args.reference.tag().is_none() {
        return Err(Failure::given(format!(
            "{} names no tag, and the digest is what comes of a push",
            args.reference
        ))
        .hint("name a tag, most often the version, such as ghcr.io/team/docker-restart:1.2.0"));
    }
    let (wasm, signature) = with_signature(&args.file)?;
    let judged = judge(config, &file, &wasm, signature.as_deref())?;
    let runtime = runtime()?;
    let loaded = runtime.block_on(sandbox()?.load(wasm.clone()));
    let plugin = loaded.map_err(|error| Failure::given(format!("{file}: {error}")))?;
    let bytes = wasm.len();
    let described = Described {
        name: plugin.name.as_str(),
        version: &plugin.version.to_string(),
        summary: &plugin.summary,
        asks_for: &asks_for(&plugin.imports),
        signature: signature.as_deref(),
    };
    let artifact = Artifact::new(wasm, described)
        .map_err(|problem| Failure::given(format!("{file}: {problem}")))?;
    let registry = args.registry.registry(&args.reference)?;
    let digest = runtime.block_on(registry.push(&artifact))?;
    let done = Done::of(
        &plugin,
        bytes,
        &args.reference.at(digest),
        signature.is_some(),
        judged,
    );
    print_as(args.output.output, &done, || done.text("pushed"))
}

/// Takes a plugin from a registry, and checks everything that can be checked without a
/// daemon.
pub(super) fn take(
    config: &Path,
    reference: &Reference,
    args: &RegistryArgs,
) -> Result<Taken, Failure> {
    let limit = SandboxConfig::default().max_plugin_size as u64;
    let runtime = runtime()?;
    let registry = args.registry(reference)?;
    let pulled = runtime.block_on(registry.pull(limit))?;
    let what = pulled.reference.to_string();
    let judged = judge(config, &what, &pulled.wasm, pulled.signature.as_deref())?;
    let plugin = runtime
        .block_on(sandbox()?.load(pulled.wasm.clone()))
        .map_err(|error| {
            Failure::given(format!("{what}: {error}"))
                .hint("what is there is WebAssembly, and nothing that the daemon would take")
        })?;
    Ok(Taken {
        reference: pulled.reference,
        name: plugin.name.clone(),
        wasm: pulled.wasm,
        signature: pulled.signature,
        plugin,
        judged,
    })
}

pub(super) fn pull(config: &Path, args: PullArgs) -> Result<(), Failure> {
    let taken = take(config, &args.reference, &args.registry)?;
    let file = args
        .out
        .unwrap_or_else(|| PathBuf::from(format!("{}.wasm", taken.name)));
    let beside = signature::beside(&file);
    // The signature first: a daemon that watches the folder finds both.
    match &taken.signature {
        Some(signature) => place(&beside, signature.as_bytes())?,
        // That of another version says nothing about this one.
        None => match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(unwritable(&beside, &error));
            }
            _ => {}
        },
    }
    place(&file, &taken.wasm)?;
    let mut done = Done::of(
        &taken.plugin,
        taken.wasm.len(),
        &taken.reference,
        taken.signature.is_some(),
        taken.judged,
    );
    done.file = Some(file.display().to_string());
    print_as(args.output.output, &done, || done.text("pulled"))
}

/// Whole and on the disk, or not at all.
fn place(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    // Hidden, so that nobody takes it for a plugin before it is one.
    let beside = folder.join(format!(".{name}.{}", std::process::id()));
    let written = std::fs::File::create(&beside)
        .and_then(|mut to| {
            to.write_all(bytes)?;
            to.sync_all()
        })
        .and_then(|()| std::fs::rename(&beside, file));
    written.map_err(|error| {
        // What cannot be made can most often not be removed either, and is not there.
        let _removed = std::fs::remove_file(&beside);
        unwritable(file, &error)
    })
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::cannot_create(format!("{}: cannot be written: {error}", path.display()))
}

impl Done {
    fn of(
        plugin: &Plugin,
        size: usize,
        reference: &Reference,
        has_signature: bool,
        judged: Judged,
    ) -> Self {
        let (signature, signed) = match judged {
            Judged::Good(signed) => ("good", Some(signed)),
            Judged::Tolerated(problem) => ("bad", Some(problem)),
            Judged::NotAsked if has_signature => ("unchecked", None),
            Judged::NotAsked => ("none", None),
        };
        Self {
            reference: reference.to_string(),
            file: None,
            name: plugin.name.clone(),
            version: plugin.version.to_string(),
            digest: plugin.digest,
            size,
            asks_for: plugin.imports.iter().map(ToString::to_string).collect(),
            signature,
            signed,
        }
    }

    fn text(&self, what: &str) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let mut say = |what: &str, text: &str| {
            let _ok = writeln!(out, "{what:<9} {}", harmless(text));
        };
        say(what, &self.reference);
        if let Some(file) = &self.file {
            say("file", file);
        }
        say("plugin", &format!("{} {}", self.name, self.version));
        say("digest", &self.digest.to_string());
        say("size", &size(self.size));
        let asks_for = if self.asks_for.is_empty() {
            "nothing".to_owned()
        } else {
            self.asks_for.join(", ")
        };
        say("asks for", &asks_for);
        let signature = match (self.signature, &self.signed) {
            ("good", Some(signed)) => format!("good: {signed}"),
            ("bad", Some(problem)) => format!("warning: {problem}"),
            ("unchecked", _) => {
                "there is one, and it is not checked: the configuration asks for none".to_owned()
            }
            _ => "none".to_owned(),
        };
        say("signature", &signature);
        out
    }
}
