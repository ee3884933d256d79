//! `sentinel serve`.

use std::path::Path;

use sentinel_journal::OpenError;

use super::output::Failure;
use crate::app::{self, StartError};
use crate::config::Config;
use crate::secrets::SecretError;
use crate::telemetry;

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    let config =
        Config::read(file, &super::variable).map_err(|error| Failure::from(error).code(78))?;
    telemetry::init(&config.log).map_err(|error| Failure::config(error.to_string()))?;
    keep_memory_private();
    sentinel_sandbox::give_large_blocks_back();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("sentinel")
        .build()
        .map_err(|error| Failure::software(format!("the runtime cannot be made: {error}")))?;
    let served = runtime.block_on(app::serve(file, config));
    // What is still under way has been given its time.
    runtime.shutdown_background();
    served.map_err(Failure::from)
}

/// The memory of this process holds secrets: it is written to no core file, and other processes of the same user cannot
/// read it.
fn keep_memory_private() {
    use rustix::process::{
        DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
    };
    let maximum = getrlimit(Resource::Core).maximum;
    let none = Rlimit {
        current: Some(0),
        maximum,
    };
    let kept = setrlimit(Resource::Core, none)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = kept {
        tracing::warn!(%error, "a crash could write this process's memory, secrets included, to a file");
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let message = error.to_string();
        match error {
            StartError::Journal(OpenError::Folder { .. }) => Self::cannot_create(message)
                .hint("make the folder writable, or set `data_dir` to another one"),
            StartError::Journal(OpenError::InUse { .. }) => Self::cannot_create(message)
                .hint("stop the other daemon, or set `data_dir` to another folder"),
            StartError::Journal(OpenError::Newer { .. }) => {
                Self::config(message).hint("start the version that wrote it, or a later one")
            }
            StartError::Journal(OpenError::Damaged { .. }) => Self::damaged(message).hint(
                "keep a copy of the data folder, check the disk, then put a backup in its place or begin with an empty one",
            ),
            StartError::Journal(_) | StartError::History(_) | StartError::Unkept(_) => {
                Self::cannot_create(message)
            }
            StartError::Folder { key, .. } => Self::config(message)
                .hint(format!("make the folder, or set `{key}` to the right one")),
            StartError::Listen { .. } => Self::unavailable(message)
                .hint("stop what listens there, or set `listen` to another address"),
            StartError::Secret(SecretError::Missing { .. }) => Self::config(message)
                .hint("put it there, or take it out of `http.secrets`"),
            StartError::Docker(_)
            | StartError::Alertmanager(_)
            | StartError::Secret(_)
            | StartError::Http(_)
            | StartError::Mail(_) => Self::config(message),
            StartError::Sandbox(_)
            | StartError::Probe(_)
            | StartError::Internal(_)
            | StartError::System { .. } => {
                Self::software(message)
            }
            StartError::Files(problems) => {
                let rendered: Vec<String> = problems
                    .into_iter()
                    .map(|problem| problem.rendered)
                    .collect();
                Self::config(format!("{message}\n\n{}", rendered.join("\n")))
                    .hint("`sentinel check` says the same without starting")
            }
        }
    }
}
