//! Puts the daemon together, serves, and takes it apart in order.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use sentinel_drivers::ansible::{Ansible, AnsibleConfig};
use sentinel_drivers::docker::{Docker, DockerConfigError};
use sentinel_drivers::probe::HttpProbe;
use sentinel_journal::{Journal, OpenError, Reader};
use sentinel_sandbox::{RunLimits, Sandbox, SandboxConfig};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Api};
use crate::config::{Config, Limits};
use crate::engine::{self, Engine, Executor, Parts, Verifier};
use crate::intake::Intake;
use crate::serving::{Folders, Loader, Problem, Problems, Reloader, Serving};
use crate::telemetry::metrics::Metrics;

/// The daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The address.
    #[error("{address} cannot be listened on: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The Docker hosts of the configuration.
    #[error(transparent)]
    Docker(#[from] DockerConfigError),
    /// A folder of the configuration.
    #[error("the folder {path} (`{key}`) cannot be made: {source}")]
    Folder {
        /// The key of the configuration.
        key: &'static str,
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// wasmtime.
    #[error("the sandbox cannot be set up: {0}")]
    Sandbox(String),
    /// The HTTP client of verifications.
    #[error("the HTTP client cannot be made: {0}")]
    Probe(String),
    /// The files, and there is no earlier set to fall back on.
    #[error("the plugins and policies cannot serve")]
    Files(Vec<Problem>),
    /// What the operating system does not give.
    #[error("{what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// The limits of one run, as the sandbox takes them.
fn run_limits(limits: &Limits) -> RunLimits {
    RunLimits {
        memory: memory(limits),
        cpu: limits.plugin.cpu,
        calls: limits.plugin.calls,
        ..RunLimits::default()
    }
}

/// What a guest may have of memory; the configuration keeps it within a `usize`.
fn memory(limits: &Limits) -> usize {
    usize::try_from(limits.plugin.memory.0).unwrap_or(usize::MAX)
}

/// The sandbox that a configuration asks for.
pub(crate) fn sandbox(config: &Config) -> Result<Arc<Sandbox>, StartError> {
    let sandbox = Sandbox::new(SandboxConfig {
        max_runs: config.limits.plugin.runs,
        max_memory: memory(&config.limits),
        ..SandboxConfig::default()
    })
    .map_err(|error| StartError::Sandbox(error.to_string()))?;
    Ok(Arc::new(sandbox))
}

/// What turns a configuration's folders into something that can serve.
pub(crate) fn loader(config: &Config, sandbox: Arc<Sandbox>) -> Loader {
    Loader {
        sandbox,
        folders: Folders {
            plugins: config.plugins_dir.clone(),
            policies: config.policies_dir.clone(),
        },
        environment: sentinel_core::policy::Environment {
            docker_hosts: config.docker_hosts.keys().cloned().collect(),
        },
    }
}

/// Serves until a signal says to stop.
pub(crate) async fn serve(config: Config) -> Result<(), StartError> {
    let stopping = CancellationToken::new();
    let stop_signals = signals(stopping.clone())?;
    let metrics = Arc::new(Metrics::new());

    // Whatever can be refused is refused before anything is taken in.
    for (key, path) in [
        ("plugins_dir", &config.plugins_dir),
        ("policies_dir", &config.policies_dir),
    ] {
        std::fs::create_dir_all(path).map_err(|source| StartError::Folder {
            key,
            path: path.clone(),
            source,
        })?;
    }
    let observer = metrics.clone();
    let (journal, recovered) = Journal::open(&config.data_dir, move |took, operations| {
        observer.committed(took, operations);
    })?;
    let journal = Arc::new(journal);
    let reader = Arc::new(Reader::open(&config.data_dir)?);
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| StartError::Listen {
            address: config.listen,
            source,
        })?;
    let docker = Arc::new(Docker::new(config.docker_hosts.clone())?);
    let ansible = Arc::new(Ansible::new(AnsibleConfig {
        playbooks_dir: config.ansible.playbooks_dir.clone(),
        inventory: config.ansible.inventory.clone(),
        program: config.ansible.program.clone(),
        work_dir: config.data_dir.join("ansible"),
    }));
    let sandbox = sandbox(&config)?;
    let loader = loader(&config, sandbox.clone());

    let serving = Arc::new(ArcSwap::from_pointee(Serving::default()));
    let problems = Arc::new(Problems::default());
    let reloader = Reloader {
        loader,
        serving: serving.clone(),
        problems: problems.clone(),
        journal: journal.clone(),
        metrics: metrics.clone(),
    };
    reloader.start(&reader).await.map_err(StartError::Files)?;

    let (engine_handle, inputs) = engine::channel();
    let runs = TaskTracker::new();
    let effects = TaskTracker::new();
    let executor = Executor {
        sandbox: sandbox.clone(),
        docker: docker.clone(),
        ansible,
        journal: journal.clone(),
        metrics: metrics.clone(),
        engine: engine_handle.clone(),
        limits: run_limits(&config.limits),
        runs: runs.clone(),
        effects: effects.clone(),
    };
    let verifier = Verifier {
        docker: docker.clone(),
        probe: HttpProbe::new().map_err(|error| StartError::Probe(error.to_string()))?,
        engine: engine_handle.clone(),
        tasks: TaskTracker::new(),
    };
    let engine = Engine::new(Parts {
        journal: journal.clone(),
        reader: reader.clone(),
        serving: serving.clone(),
        executor,
        verifier,
        metrics: metrics.clone(),
    });
    let intake = Arc::new(Intake::new(
        journal.clone(),
        engine_handle,
        metrics.clone(),
        config.limits.intake.clone(),
        stopping.clone(),
    ));
    let engine_gone = CancellationToken::new();
    let router = api::router(
        Arc::new(Api {
            reader,
            journal: journal.clone(),
            serving,
            problems,
            metrics,
            docker,
            started_at: Timestamp::now(),
            stopping: stopping.clone(),
            engine_gone: engine_gone.clone(),
        }),
        intake.clone(),
    );

    let abandon = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (again, reload_requests) = mpsc::channel(1);
    tasks.spawn(stop_signals.serve(again));
    tasks.spawn(reloader.serve(reload_requests, stopping.clone()));
    let engine_task = {
        let (stopping, abandon) = (stopping.clone(), abandon.clone());
        let gone = engine_gone.drop_guard();
        tasks.spawn(async move {
            let _gone = gone;
            engine.serve(inputs, recovered, stopping, abandon).await;
        })
    };
    tracing::info!(
        listen = %config.listen,
        version = env!("CARGO_PKG_VERSION"),
        "ready for alerts"
    );

    // Until here nothing was lost that had been taken in; from here on nothing is.
    api::serve(listener, router, stopping.clone()).await;
    tracing::info!("stopping: nothing more is taken in");
    intake.drain().await;
    stop_engine(engine_task, &abandon, config.grace).await;
    effects.close();
    if tokio::time::timeout(config.grace, effects.wait())
        .await
        .is_err()
    {
        tracing::warn!("effects are under way; the next start finds them in doubt");
    }
    tasks.close();
    let closing = journal.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || closing.close()).await {
        tracing::error!(%error, "closing the journal ended in a panic");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Gives runs that have begun their time, then gives them up: the next start finds
/// them interrupted.
async fn stop_engine(
    mut engine: tokio::task::JoinHandle<()>,
    abandon: &CancellationToken,
    grace: Duration,
) {
    let ended = match tokio::time::timeout(grace, &mut engine).await {
        Ok(ended) => ended,
        Err(_) => {
            tracing::warn!(
                ?grace,
                "runs are given up; the next start finds them interrupted"
            );
            abandon.cancel();
            engine.await
        }
    };
    if let Err(error) = ended {
        tracing::error!(%error, "the engine ended in a panic");
    }
}

/// The signals that the daemon listens to.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    stopping: CancellationToken,
}

fn signals(stopping: CancellationToken) -> Result<Signals, StartError> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| {
        signal(kind).map_err(|source| StartError::System {
            what: "signals cannot be listened to",
            source,
        })
    };
    Ok(Signals {
        interrupt: listen(SignalKind::interrupt())?,
        terminate: listen(SignalKind::terminate())?,
        hangup: listen(SignalKind::hangup())?,
        stopping,
    })
}

impl Signals {
    /// SIGINT and SIGTERM stop the daemon, SIGHUP makes it look at its folders.
    async fn serve(mut self, again: mpsc::Sender<()>) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => break,
                _ = self.terminate.recv() => break,
                _ = self.hangup.recv() => {
                    if again.try_send(()).is_err() {
                        tracing::debug!("a reload is already waiting");
                    }
                }
                () = self.stopping.cancelled() => return,
            }
        }
        self.stopping.cancel();
    }
}
