//! From bytes to a plugin that is known to work.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sentinel_core::event::LogLevel;
use sentinel_core::grant::Import;
use sentinel_core::id::{Digest, NameError, PluginName};
use serde_json::{Map, Value};

pub use sentinel_core::policy::ParamError;

use crate::bindings::RemediationPre;
use crate::bindings::sentinel::plugin::types::Description;
use crate::breath::Breath;
use crate::code::{self, Kept, Told};
use crate::contract;
use crate::engine::Sandbox;
use crate::guest::{self, Guest, Role, Stop};
use crate::log::{RunLog, clean};
use crate::run::{self, RunFailure, RunLimits};
use crate::schema::{ParamsSchema, SchemaError};
use crate::wrap;

/// How many bytes of a plugin's summary are kept.
const SUMMARY_BYTES: usize = 1024;

/// Why a file is not served as a plugin. The messages are for the plugin's author: they
/// say what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is nothing in it.
    #[error("the file is empty: did its build or its copy end too early?")]
    Empty,
    /// It is larger than the sandbox is configured to take.
    #[error(
        "{size} bytes are more than the {limit} that a plugin may have: strip its debug information (`strip = true` in Cargo's profile)"
    )]
    TooLarge {
        /// How large it is, in bytes.
        size: usize,
        /// How large it may be, in bytes.
        limit: usize,
    },
    /// It is something else.
    #[error(
        "not WebAssembly (it begins with {begins:?}): a plugin is a component, as a build for wasm32-wasip2 gives it"
    )]
    NotWasm {
        /// The first characters, as far as they are text.
        begins: String,
    },
    /// It is a core module that does not say which world it was written for.
    #[error(
        "a core module without the contract's type (it has no `component-type` section): link in what `wit-bindgen` made of the `wit` folder (for C its `…_component_type.o`), or build a component, as for wasm32-wasip2"
    )]
    CoreModule,
    /// It is a core module with a `main`.
    #[error(
        "a program with a `main` (it exports `_start`): build a library, with `-mexec-model=reactor` in C and `-buildmode=c-shared` in Go"
    )]
    Program,
    /// It is a core module that no component can be made of.
    #[error(
        "a core module that cannot be made a component: {reason}; build it for wasm32-wasip1 with bindings of the `wit` folder"
    )]
    Unwrappable {
        /// Why.
        reason: String,
    },
    /// It cannot be read.
    #[error("damaged or cut short: {reason} (at byte {offset}); build or copy it again")]
    Damaged {
        /// What is wrong.
        reason: String,
        /// Where.
        offset: usize,
    },
    /// It is a component of another kind.
    #[error(
        "a component for another world: it does not export `{missing}`; {}",
        if *is_command {
            "it is a program with a `main`: build a library (crate-type `cdylib`) with the plugin SDK"
        } else {
            "a plugin targets the world `remediation` of sentinel:plugin, as the plugin SDK does"
        }
    )]
    OtherWorld {
        /// The functions that are missing.
        missing: String,
        /// Whether it is a command-line program.
        is_command: bool,
    },
    /// It wants what the contract does not have.
    #[error(
        "it imports `{name}`, which is neither in sentinel:plugin@{version} nor in WASI 0.2: a plugin reaches the world through docker and ansible of sentinel:plugin alone",
        version = contract::VERSION
    )]
    ForeignImport {
        /// What it imports.
        name: String,
    },
    /// It was built for another version of the contract.
    #[error(
        "it imports `{name}`, and this version of sentinel serves sentinel:plugin@{version}: build it with the `wit` folder or the SDK of this version",
        version = contract::VERSION
    )]
    OtherVersion {
        /// What it imports.
        name: String,
    },
    /// A function has other parameters or results than the contract says.
    #[error(
        "{function} has other types than in sentinel:plugin@{version} ({detail}): build it with the `wit` folder or the SDK of this version",
        version = contract::VERSION
    )]
    Mismatch {
        /// Which function.
        function: String,
        /// What differs, in wasmtime's words.
        detail: String,
    },
    /// It needs more than any run gets.
    #[error(
        "it needs {needed} {what} from the start, and a plugin may have {limit}: make it smaller"
    )]
    TooDemanding {
        /// What it needs much of.
        what: &'static str,
        /// How much.
        needed: u64,
        /// How much there is.
        limit: u64,
    },
    /// The compiler refused it.
    #[error("it cannot be compiled: {reason}")]
    Compile {
        /// Why.
        reason: String,
    },
    /// The compiler's process did not come to its own end.
    #[error(
        "it cannot be compiled: the compiler ended with {how}{}; it may have {} MiB of memory: make the plugin smaller",
        if said.is_empty() { String::new() } else { format!(" ({said})") },
        memory >> 20
    )]
    CompilerEnded {
        /// How, in the system's words.
        how: String,
        /// What it may take, in bytes.
        memory: u64,
        /// What it said last.
        said: String,
    },
    /// The compiler took too long.
    #[error(
        "it was not compiled within {}: make it smaller",
        run::shown(*limit)
    )]
    CompileTimedOut {
        /// How long it may take.
        limit: Duration,
    },
    /// `describe` did not come back.
    #[error(
        "it was started and asked to `describe` itself, and {0}; start functions, static initialisers and `describe` must end quickly and call nothing but `log`"
    )]
    Describe(RunFailure),
    /// What it calls itself is no name.
    #[error("what `describe` gave as its name is none: {0}")]
    Name(#[from] NameError),
    /// What it gives as its version is none.
    #[error(
        "`describe` gave the version `{version}`, which is no semantic version such as 1.2.3: {reason}"
    )]
    Version {
        /// What it gave.
        version: String,
        /// What is wrong with it.
        reason: semver::Error,
    },
    /// What it gives as the schema of its params is none.
    #[error(
        "`describe` gave a params-schema that is no JSON Schema (draft 2020-12): {reason}; a plugin without params gives {{\"type\": \"object\"}}"
    )]
    Schema {
        /// What is wrong with it.
        reason: String,
    },
    /// Holding params against the schema that it gives could cost too much.
    #[error(
        "`describe` gave a params-schema that is not taken, because it could take too long to hold params against it: {reason} (docs/plugins.md says what a schema may have)"
    )]
    SchemaTooCostly {
        /// What is too much.
        reason: String,
    },
    /// It is our fault.
    #[error("the sandbox broke down: {0}")]
    Internal(String),
}

impl LoadError {
    pub(crate) fn damaged(error: &wasmparser::BinaryReaderError) -> Self {
        Self::Damaged {
            reason: error.message().to_owned(),
            offset: error.offset(),
        }
    }
}

/// A plugin that was compiled, started and asked what it is.
pub struct Plugin {
    /// Which bytes it is.
    pub digest: Digest,
    /// The name that it gives itself.
    pub name: PluginName,
    /// The version that it gives itself.
    pub version: semver::Version,
    /// What it does, in one sentence; may be empty.
    pub summary: String,
    /// The JSON Schema of its params, as it gave it.
    pub params_schema: Value,
    /// What it asks for; a policy that uses it has to grant all of it.
    pub imports: BTreeSet<Import>,
    params: ParamsSchema,
    pre: RemediationPre<Guest>,
    /// Whether its last run computed for no longer than a tick.
    brisk: AtomicBool,
}

impl Plugin {
    /// What is wrong with `params`; nothing, if the plugin takes them. What that may cost is
    /// bounded: at worst some tenths of a second.
    #[must_use]
    pub fn validate_params(&self, params: &Value) -> Vec<ParamError> {
        self.params.mistakes(params)
    }

    /// What of `params` the plugin takes, and what is still wrong after the others are left
    /// out. For what tells a person, who is better told less than nothing: a value that an
    /// alert filled in must not keep people from hearing of it.
    #[must_use]
    pub fn fitting_params(
        &self,
        params: &Map<String, Value>,
    ) -> (Map<String, Value>, Vec<ParamError>) {
        let wrong = self.validate_params(&Value::Object(params.clone()));
        if wrong.is_empty() {
            return (params.clone(), wrong);
        }
        let of = |error: &ParamError| {
            error
                .path
                .trim_start_matches('/')
                .split('/')
                .next()
                .map(str::to_owned)
        };
        let bad: BTreeSet<String> = wrong.iter().filter_map(of).collect();
        let fitting: Map<String, Value> = params
            .iter()
            .filter(|(key, _)| !bad.contains(*key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let wrong = self.validate_params(&Value::Object(fitting.clone()));
        (fitting, wrong)
    }

    pub(crate) fn pre(&self) -> &RemediationPre<Guest> {
        &self.pre
    }

    /// Whether its last run computed for no longer than a tick.
    pub(crate) fn brisk(&self) -> &AtomicBool {
        &self.brisk
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("digest", &self.digest)
            .field("imports", &self.imports)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} ({})",
            self.name,
            self.version,
            self.digest.short()
        )
    }
}

/// What of a plugin is known before it has run.
struct Compiled {
    digest: Digest,
    imports: BTreeSet<Import>,
    pre: RemediationPre<Guest>,
}

/// What is known of a plugin's bytes.
enum Source {
    /// Made and described before, and kept.
    Kept(Kept),
    /// Not seen before: what it asks for, and the component that it is or is made into.
    New(BTreeSet<Import>, Vec<u8>),
}

/// Machine code.
enum Code {
    /// It was kept.
    Kept(Kept),
    /// It was just made.
    New(Vec<u8>),
}

impl Code {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Kept(kept) => kept.code(),
            Self::New(code) => code,
        }
    }
}

impl From<&Told> for Description {
    fn from(told: &Told) -> Self {
        Self {
            name: told.name.clone(),
            version: told.version.clone(),
            summary: told.summary.clone(),
            params_schema: told.params_schema.clone(),
        }
    }
}

fn told_of(compiled: &Compiled, description: &Description) -> Told {
    Told {
        imports: compiled.imports.iter().map(ToString::to_string).collect(),
        name: description.name.clone(),
        version: description.version.clone(),
        summary: description.summary.clone(),
        params_schema: description.params_schema.clone(),
    }
}

impl Sandbox {
    /// Checks, compiles and starts a plugin, and asks it what it is. Plugins are
    /// compiled one at a time, on threads of their own.
    pub async fn load(&self, bytes: Vec<u8>) -> Result<Arc<Plugin>, LoadError> {
        let hash = move || (Digest::of(&bytes), bytes);
        let (digest, bytes) = self.blocking(hash).await?;
        self.load_as(digest, bytes).await
    }

    /// The same for bytes whose digest is known.
    pub async fn load_as(&self, digest: Digest, bytes: Vec<u8>) -> Result<Arc<Plugin>, LoadError> {
        let limit = self.config().max_plugin_size;
        if bytes.len() > limit {
            return Err(LoadError::TooLarge {
                size: bytes.len(),
                limit,
            });
        }
        let source = self.look(digest, bytes).await?;
        let (imports, code, told) = match source {
            Source::Kept(kept) => {
                // Names of imports that this version does not know are no names of its.
                let imports = kept.told.imports.iter();
                let imports = imports.filter_map(|name| Import::named(name)).collect();
                (imports, Code::Kept(kept), true)
            }
            Source::New(imports, bytes) => (imports, Code::New(self.compile(bytes).await?), false),
        };
        let (compiled, code) = self.link(digest, imports, code).await?;
        let description = match &code {
            Code::Kept(kept) => Description::from(&kept.told),
            Code::New(_) => self.describe(&compiled.pre).await?,
        };
        if let Code::New(code) = code
            && let Some(store) = self.config().store.clone()
        {
            let told = told_of(&compiled, &description);
            let (engine, config) = (self.engine(), self.config().clone());
            let keep = move || store.put(&digest, &engine, &config, &told, &code);
            self.blocking(keep).await?;
        }
        // The schema is the plugin's own program.
        let limit = self.config().compile_timeout;
        let finished = self.blocking(move || finish(compiled, description));
        let finished = tokio::time::timeout(limit, finished).await;
        let plugin = Arc::new(finished.unwrap_or_else(|_| {
            let reason = format!("compiling it took longer than {}", run::shown(limit));
            Ok(Err(LoadError::SchemaTooCostly { reason }))
        })??);
        tracing::debug!(%plugin, imports = ?plugin.imports, kept = told, "a plugin was loaded");
        Ok(plugin)
    }

    /// What is kept of the plugin, or else what it asks for.
    async fn look(&self, digest: Digest, bytes: Vec<u8>) -> Result<Source, LoadError> {
        let (engine, config) = (self.engine(), self.config().clone());
        self.blocking(move || {
            let kept = config
                .store
                .as_ref()
                .and_then(|store| store.get(&digest, &engine, &config));
            if let Some(kept) = kept {
                return Ok(Source::Kept(kept));
            }
            let component = wrap::component(&bytes)?;
            let imports = contract::inspect(&component, &config.room)?;
            Ok(Source::New(imports, component.into_owned()))
        })
        .await?
    }

    /// What is wrong with the params that a run of `plugin` is to be given. What takes longer
    /// than a moment is done on the guests' threads, and a schema that goes past its time is
    /// the plugin's fault.
    pub async fn check_params(
        &self,
        plugin: &Arc<Plugin>,
        params: &Value,
    ) -> Result<Vec<ParamError>, RunFailure> {
        if plugin.params.is_cheap(params) {
            return Ok(plugin.validate_params(params));
        }
        let limit = self.config().describe.timeout;
        let (plugin, params) = (Arc::clone(plugin), params.clone());
        let checked = self.blocking(move || plugin.validate_params(&params));
        match tokio::time::timeout(limit, checked).await {
            Ok(Ok(mistakes)) => Ok(mistakes),
            Ok(Err(error)) => Err(RunFailure::Internal {
                message: error.to_string(),
            }),
            Err(_) => Err(RunFailure::SchemaTimedOut {
                limit_ms: run::whole_millis(limit),
            }),
        }
    }

    /// Makes machine code, one plugin at a time.
    async fn compile(&self, bytes: Vec<u8>) -> Result<Vec<u8>, LoadError> {
        let limit = self.config().compile_timeout;
        let turn = self.compile_turn().await?;
        let config = self.config();
        if let Some(compiled) = config.compiler.process(&bytes, config, limit).await {
            return compiled;
        }
        let (engine, pool) = (self.engine(), self.compilers());
        let task = self.blocking(move || {
            // Held to the end, also of a compilation that nobody waits for any more: it
            // cannot be interrupted.
            let _turn = turn;
            pool.install(|| code::here(&engine, &bytes))
        });
        tokio::time::timeout(limit, task)
            .await
            .unwrap_or(Ok(Err(LoadError::CompileTimedOut { limit })))?
    }

    /// Makes machine code into something that can be started.
    async fn link(
        &self,
        digest: Digest,
        imports: BTreeSet<Import>,
        code: Code,
    ) -> Result<(Compiled, Code), LoadError> {
        let (engine, linker) = (self.engine(), self.linker());
        let room = self.config().room;
        self.blocking(move || {
            let component =
                code::component(&engine, code.bytes()).map_err(|error| LoadError::Compile {
                    reason: run::one_line(&error),
                })?;
            contract::check_resources(&component, &room)?;
            let pre = linker
                .instantiate_pre(&component)
                .map_err(|error| mismatch(&error))?;
            let compiled = Compiled {
                digest,
                imports,
                pre: RemediationPre::new(pre).map_err(|error| mismatch(&error))?,
            };
            Ok((compiled, code))
        })
        .await?
    }

    /// Does what takes a while on the guests' threads for such work.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LoadError> {
        self.threads()?
            .spawn_blocking(work)
            .await
            .map_err(|panic| LoadError::Internal(panic.to_string()))
    }

    async fn describe(&self, pre: &RemediationPre<Guest>) -> Result<Description, LoadError> {
        let limits = RunLimits {
            room: self.config().room,
            ..self.config().describe
        };
        let log = RunLog::new(
            limits.log_bytes,
            limits.log_lines,
            Box::new(|level, line| match level {
                LogLevel::Error | LogLevel::Warn => {
                    tracing::warn!(line, "a plugin wrote while it described itself");
                }
                LogLevel::Info | LogLevel::Debug => {
                    tracing::debug!(line, "a plugin wrote while it described itself");
                }
            }),
        );
        let (pre, ticker) = (pre.clone(), self.ticker());
        let task = async move {
            let _ticking = ticker.tick();
            let source = guest::Source::unrecorded(&limits);
            let deadline = source.clock.deadline();
            let breath = Breath::new(ticker.ticks());
            let guest = Guest::new(Role::Describing, &limits, log.clone(), source);
            let mut store = run::store(pre.engine(), guest, &limits, &breath);
            let told = breath.watch(async {
                let instance = pre.instantiate_async(&mut store).await?;
                instance.call_describe(&mut store).await
            });
            let told = tokio::time::timeout_at(deadline, told)
                .await
                .unwrap_or_else(|_| Err(Stop::TimedOut.into()));
            run::finish(told, store, &limits, &log).result
        };
        self.spawn(task)
            .await
            .map_err(LoadError::Internal)?
            .map_err(LoadError::Describe)
    }
}

/// What it means that a component does not fit the linker or the world. Its names were
/// checked before, so what is left is a type, or a function that this WASI lacks.
fn mismatch(error: &wasmtime::Error) -> LoadError {
    // The root tells what differs, and what leads to it where.
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    let way = causes.split_last().map_or(&[][..], |(_, way)| way);
    let function = way
        .iter()
        .flat_map(|cause| quoted(cause))
        .collect::<Vec<_>>()
        .join("#");
    if function.starts_with("wasi:") {
        return LoadError::ForeignImport { name: function };
    }
    LoadError::Mismatch {
        function: if function.is_empty() {
            "one of its functions".to_owned()
        } else {
            format!("`{function}`")
        },
        detail: run::one_line(error),
    }
}

/// What stands in backticks in `text`.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn finish(compiled: Compiled, description: Description) -> Result<Plugin, LoadError> {
    let version =
        semver::Version::parse(&description.version).map_err(|reason| LoadError::Version {
            version: clean(&description.version, 64),
            reason,
        })?;
    let params = ParamsSchema::new(&description.params_schema).map_err(|error| match error {
        SchemaError::NotOne(reason) => LoadError::Schema { reason },
        SchemaError::Costly(reason) => LoadError::SchemaTooCostly { reason },
    })?;
    Ok(Plugin {
        digest: compiled.digest,
        name: PluginName::new(description.name)?,
        version,
        summary: clean(description.summary.trim(), SUMMARY_BYTES),
        params_schema: params.value().clone(),
        imports: compiled.imports,
        params,
        pre: compiled.pre,
        brisk: AtomicBool::new(false),
    })
}
