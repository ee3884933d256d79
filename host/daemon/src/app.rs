//! Puts the daemon together, serves, and takes it apart in order.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use sentinel_core::control::{self, Controls};
use sentinel_core::engine::Settings;
use sentinel_core::guard::limits::{EffectLimits, EffectWindows};
use sentinel_core::policy::Environment;
use sentinel_core::record::{History as _, HistoryError, PastEffect, earlier};
use sentinel_core::version::Versions;
use sentinel_drivers::alertmanager::AlertmanagerClient;
use sentinel_drivers::ansible::{Ansible, AnsibleConfig};
use sentinel_drivers::docker::{Docker, DockerConfigError};
use sentinel_drivers::http::{Http, HttpConfigError};
use sentinel_drivers::mail::{Mail, MailConfigError};
use sentinel_drivers::probe::HttpProbe;
use sentinel_journal::{Journal, OpenError, Reader, Recovered, WriteError};
use sentinel_sandbox::code::CodeStore;
use sentinel_sandbox::driver::{MailDriver, NoMail};
use sentinel_sandbox::{Sandbox, SandboxConfig};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Api, Places};
use crate::cli::compile;
use crate::clock::Clock;
use crate::config::{
    Access, AlertmanagerConfig, Config, MailConfig, Pool, difference, is_loopback,
};
use crate::engine::{self, Driver, EngineHandle, Executor, Identities, Parts, Switch, Verifier};
use crate::intake::Intake;
use crate::reconcile::Reconciler;
use crate::reconfigure::{self, Reconfigurer, Running, Standings};
use crate::secrets::{self, SecretError};
use crate::serving::{
    Drains, Folders, Loader, NothingServes, PolicyReader, Probation, Problem, Problems, Reloader,
    Request, Serving,
};
use crate::telemetry::metrics::Metrics;
use crate::upkeep::{Housekeeping, Leases};

/// The daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The Alertmanager of the configuration.
    #[error("alertmanager: {0}")]
    Alertmanager(String),
    /// What the journal holds of the past.
    #[error("the journal cannot be read: {0}")]
    History(String),
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
    /// A secret of the configuration.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The HTTP client of plugins.
    #[error(transparent)]
    Http(#[from] HttpConfigError),
    /// The mail server of the configuration.
    #[error(transparent)]
    Mail(#[from] MailConfigError),
    /// A folder of the configuration.
    #[error("the folder {path} (`{key}`) cannot be listed: {source}")]
    Folder {
        /// The key of the configuration.
        key: &'static str,
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A part of the start broke down.
    #[error("the start broke down: {0}")]
    Internal(String),
    /// wasmtime.
    #[error("the sandbox cannot be set up: {0}")]
    Sandbox(String),
    /// The HTTP client of verifications.
    #[error("the HTTP client cannot be made: {0}")]
    Probe(String),
    /// The files, and there is no earlier set to fall back on.
    #[error("the plugins and policies cannot serve")]
    Files(Vec<Problem>),
    /// The files are good and cannot be kept, and there is no earlier set.
    #[error("the plugins and policies cannot be kept: {0}")]
    Unkept(WriteError),
    /// What the operating system does not give.
    #[error("{what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl From<NothingServes> for StartError {
    fn from(nothing: NothingServes) -> Self {
        match nothing {
            NothingServes::Bad(problems) => Self::Files(problems),
            NothingServes::Unkept(error) => Self::Unkept(error),
        }
    }
}

/// How long the drivers get to end what is left when the daemon stops.
const DRIVERS: Duration = Duration::from_secs(5);

/// What stands above all policies, as the engine takes it.
pub(crate) fn settings(config: &Config) -> Settings {
    let limits = &config.limits;
    Settings {
        places: limits.plugin.runs,
        plugin_places: limits.plugin.runs_per_plugin,
        incidents: limits.incidents as usize,
        effects: EffectLimits {
            per_target: Some(limits.guards.target_rate),
            total: Some(limits.guards.total_rate),
            per_action: limits.guards.actions.clone(),
            telling: Some(limits.guards.telling_rate),
        },
        maintenance: config.maintenance.clone(),
    }
}

/// The effects that the limits of these settings still count, in order.
pub(crate) fn earlier_effects(
    settings: &Settings,
    reader: &Reader,
    clock: &Clock,
) -> Result<Vec<PastEffect>, HistoryError> {
    settings.effects.horizon().map_or_else(
        || Ok(Vec::new()),
        |horizon| reader.effects_since(earlier(clock.now(), horizon)),
    )
}

/// The stop switch as it was left, and the limits on effects with what they have seen.
fn switch(settings: &Settings, base: &Base) -> Result<Switch, StartError> {
    let past = earlier_effects(settings, &base.reader, &base.clock)
        .map_err(|error| StartError::History(error.to_string()))?;
    let controls = Controls::fold(&base.recovered.controls);
    let effects = EffectWindows::new(settings.effects.clone(), &past);
    Ok(Switch::new(base.clock.clone(), controls, effects))
}

/// What asks Alertmanager, if the configuration names one.
fn reconciler(
    config: &Config,
    base: &Base,
    engine: &EngineHandle,
) -> Result<Option<Reconciler>, StartError> {
    let Some(alertmanager) = &config.alertmanager else {
        return Ok(None);
    };
    let login = alertmanager.login(base.alertmanager_secret.clone());
    let client =
        AlertmanagerClient::with(alertmanager.url.clone(), login, alertmanager.tls.as_ref())
            .map_err(|error| StartError::Alertmanager(error.to_string()))?;
    Ok(Some(Reconciler {
        client,
        every: alertmanager.every,
        receiver: alertmanager.receiver.clone(),
        missed_after: alertmanager.missed_after,
        unmuted: alertmanager.unmuted,
        journal: base.journal.clone(),
        // A connection of its own: the engine must not wait for it.
        reader: Arc::new(Reader::open(&config.data_dir)?),
        engine: engine.clone(),
        clock: base.clock.clone(),
        metrics: base.metrics.clone(),
    }))
}

/// The sandbox that a configuration asks for. Keeps no machine code without a `store`.
pub(crate) fn sandbox(
    config: &Config,
    store: Option<CodeStore>,
) -> Result<Arc<Sandbox>, StartError> {
    let sandbox = Sandbox::new(SandboxConfig {
        max_runs: config.limits.plugin.runs,
        room: config.limits.room(),
        stack: config.limits.plugin.stack.size(),
        compiler: compile::compiler(),
        store,
        ..SandboxConfig::default()
    })
    .map_err(|error| StartError::Sandbox(error.to_string()))?;
    Ok(Arc::new(sandbox))
}

/// Where machine code is kept, in the data folder. Without it each start compiles, which is
/// no reason not to start.
fn code_store(config: &Config) -> Option<CodeStore> {
    let folder = config.data_dir.join("code");
    CodeStore::open(&folder, &config.data_dir.join("code.key"))
        .inspect_err(|error| {
            tracing::warn!(%error, folder = %folder.display(), "machine code cannot be kept: each start compiles the plugins");
        })
        .ok()
}

/// The Ansible that a configuration asks for. Touches nothing.
pub(crate) fn ansible(config: &Config) -> Ansible {
    Ansible::new(AnsibleConfig {
        playbooks_dir: config.ansible.playbooks_dir.clone(),
        inventory: config.ansible.inventory.clone(),
        program: config.ansible.program.clone(),
        work_dir: config.data_dir.join("ansible"),
    })
}

/// What the plugins of a configuration reach others by.
struct Clients {
    http: Http,
    mail: Arc<dyn MailDriver>,
    // What Alertmanager is shown; for it alone.
    alertmanager_secret: Option<String>,
}

/// The clients that need secrets. Reads those, and connects to nobody.
fn clients(config: &Config) -> Result<Clients, StartError> {
    let (mut secrets, errors) = secrets::read(&config.secrets, &crate::cli::variable);
    for warning in secrets.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(error) = errors.into_iter().next() {
        return Err(error.into());
    }
    // Before the mail server's is taken out: it may be the same.
    let of_alertmanager = config
        .alertmanager
        .as_ref()
        .and_then(AlertmanagerConfig::secret);
    let alertmanager_secret = of_alertmanager.and_then(|name| secrets.values.get(name).cloned());
    let mail: Arc<dyn MailDriver> = match &config.mail {
        Some(mail) => Arc::new(mail_server(mail, &mut secrets.values)?),
        None => Arc::new(NoMail),
    };
    if let Some(name) = of_alertmanager {
        secrets.values.remove(name);
    }
    Ok(Clients {
        alertmanager_secret,
        http: Http::new(secrets.values)?,
        mail,
    })
}

/// The mail server of a configuration. Takes its password out of `secrets`: it is for
/// nobody else.
pub(crate) fn mail_server(
    config: &MailConfig,
    secrets: &mut BTreeMap<String, String>,
) -> Result<Mail, MailConfigError> {
    let password = config.secret().and_then(|name| secrets.remove(name));
    Mail::new(config.with_password(password))
}

/// What policies are read against.
pub(crate) fn environment(config: &Config) -> Environment {
    let password = config.mail.as_ref().and_then(MailConfig::secret);
    let of_alertmanager = config
        .alertmanager
        .as_ref()
        .and_then(AlertmanagerConfig::secret);
    Environment {
        docker_hosts: config.docker_hosts.keys().cloned().collect(),
        secrets: Some(
            config
                .secrets
                .keys()
                .filter(|name| Some(name.as_str()) != password)
                .filter(|name| Some(name.as_str()) != of_alertmanager)
                .cloned()
                .collect(),
        ),
        mail: Some(config.mail.is_some()),
    }
}

/// What in the folders of a configuration everybody on the machine can change: a plugin or a policy that somebody else
/// writes acts in sentinel's name.
pub(crate) fn open_to_others(config: &Config) -> Vec<String> {
    let folders = [
        ("plugins_dir", &config.plugins_dir),
        ("policies_dir", &config.policies_dir),
        ("ansible.playbooks_dir", &config.ansible.playbooks_dir),
    ];
    let is_open = |path: &Path| {
        let found = std::fs::symlink_metadata(path);
        found.is_ok_and(|found| !found.is_symlink() && found.permissions().mode() & 0o002 != 0)
    };
    let mut open = Vec::new();
    for (key, folder) in folders {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<_> = files
            .map(|file| file.path())
            .filter(|file| is_open(file))
            .collect();
        files.sort();
        // A folder may be a link: what it leads to counts.
        let itself = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.clone());
        let itself = is_open(&itself).then(|| folder.clone());
        for path in itself.into_iter().chain(files).take(OPEN_SHOWN) {
            open.push(format!(
                "everybody on this machine can write {} (`{key}`), and act as sentinel by it: chmod o-w",
                path.display()
            ));
        }
    }
    open
}

/// How many such files of a folder are told.
const OPEN_SHOWN: usize = 5;

/// What turns a configuration's folders into something that can serve.
pub(crate) fn loader(config: &Running, sandbox: Arc<Sandbox>) -> Loader {
    let running = config.clone();
    let config = config.load();
    Loader {
        sandbox,
        folders: Folders {
            plugins: config.plugins_dir.clone(),
            policies: config.policies_dir.clone(),
            playbooks: config.ansible.playbooks_dir.clone(),
        },
        policies: Arc::new(PolicyReader::new(
            config.policies_dir.clone(),
            environment(&config),
        )),
        config: running,
        past: None,
        refused: Arc::default(),
    }
}

/// What stands on its own, whatever serves: made first, so that whatever can be refused
/// is refused before anything is taken in.
struct Base {
    metrics: Arc<Metrics>,
    journal: Arc<Journal>,
    recovered: Recovered,
    reader: Arc<Reader>,
    clock: Arc<Clock>,
    listener: TcpListener,
    docker: Arc<Docker>,
    identities: Arc<Identities>,
    ansible: Arc<Ansible>,
    http: Arc<Http>,
    mail: Arc<dyn MailDriver>,
    alertmanager_secret: Option<String>,
    sandbox: Arc<Sandbox>,
}

impl Base {
    async fn new(config: &Config) -> Result<Self, StartError> {
        // Never made here: a folder that is misspelt would be an empty one.
        for (key, path) in [
            ("plugins_dir", &config.plugins_dir),
            ("policies_dir", &config.policies_dir),
        ] {
            std::fs::read_dir(path).map_err(|source| StartError::Folder {
                key,
                path: path.clone(),
                source,
            })?;
        }
        // Reading the machine's CA certificates takes as long as opening a journal.
        let beside = config.clone();
        let clients = tokio::task::spawn_blocking(move || clients(&beside));
        let metrics = Arc::new(Metrics::new());
        let observer = metrics.clone();
        let (journal, recovered) = Journal::open(&config.data_dir, move |took, operations| {
            observer.committed(took, operations);
        })?;
        // Not before the folder is this daemon's own.
        let beside = config.clone();
        let sandbox = tokio::task::spawn_blocking(move || sandbox(&beside, code_store(&beside)));
        let reader = Arc::new(Reader::open(&config.data_dir)?);
        let last = reader
            .last_event_at()
            .map_err(|error| StartError::History(error.to_string()))?;
        let clock = Arc::new(Clock::after(last));
        let listener =
            TcpListener::bind(config.listen)
                .await
                .map_err(|source| StartError::Listen {
                    address: config.listen,
                    source,
                })?;
        let ansible = ansible(config);
        // A daemon that was killed leaves playbooks and their variables behind; the
        // folder's lock says that they are nobody else's.
        if let Err(error) = ansible.clear_leftovers().await {
            tracing::warn!(%error, "what an earlier daemon left of its playbooks is still there");
        }
        let docker = Arc::new(Docker::new(config.docker_hosts.clone())?);
        let broke = |error: JoinError| StartError::Internal(error.to_string());
        let clients = clients.await.map_err(broke)??;
        Ok(Self {
            metrics,
            journal: Arc::new(journal),
            recovered,
            reader,
            clock,
            listener,
            identities: Arc::new(Identities::new(docker.clone())),
            docker,
            ansible: Arc::new(ansible),
            http: Arc::new(clients.http),
            mail: clients.mail,
            alertmanager_secret: clients.alertmanager_secret,
            sandbox: sandbox.await.map_err(broke)??,
        })
    }
}

/// The engine and what it works with.
fn driver(
    running: &Running,
    base: &Base,
    reloader: &Reloader,
    switch: &Arc<Switch>,
    handle: &EngineHandle,
    effects: &TaskTracker,
    requests: &mpsc::UnboundedSender<Request>,
) -> Result<Driver, StartError> {
    let probe = HttpProbe::new().map_err(|error| StartError::Probe(error.to_string()))?;
    Ok(Driver::new(Parts {
        settings: settings(&running.load()),
        clock: base.clock.clone(),
        switch: switch.clone(),
        handle: handle.clone(),
        journal: base.journal.clone(),
        reader: base.reader.clone(),
        serving: reloader.serving.clone(),
        executor: Executor {
            sandbox: base.sandbox.clone(),
            docker: base.docker.clone(),
            ansible: base.ansible.clone(),
            http: base.http.clone(),
            mail: base.mail.clone(),
            journal: base.journal.clone(),
            reader: base.reader.clone(),
            serving: reloader.serving.clone(),
            switch: switch.clone(),
            probation: reloader.probation.clone(),
            drains: reloader.drains.clone(),
            requests: requests.clone(),
            metrics: base.metrics.clone(),
            engine: handle.clone(),
            config: running.clone(),
            runs: TaskTracker::new(),
            effects: effects.clone(),
        },
        verifier: Verifier {
            docker: base.docker.clone(),
            probe,
            engine: handle.clone(),
            clock: base.clock.clone(),
            tasks: TaskTracker::new(),
        },
        identities: base.identities.clone(),
        metrics: base.metrics.clone(),
    }))
}

/// What changes what serves.
fn reloader(running: &Running, base: &Base, engine: EngineHandle) -> Result<Reloader, StartError> {
    let config = running.load();
    // A connection of its own: runs that are played again are long to read.
    let reader = Arc::new(Reader::open(&config.data_dir)?);
    let versions = Versions::fold(&base.recovered.controls);
    Ok(Reloader {
        loader: Loader {
            past: Some(reader.clone()),
            ..loader(running, base.sandbox.clone())
        },
        serving: Arc::new(ArcSwap::from_pointee(Serving::default())),
        problems: Arc::new(Problems::default()),
        versions: Arc::new(Mutex::new(versions)),
        probation: Arc::new(Probation::new(config.plugins.probation)),
        drains: Drains::default(),
        journal: base.journal.clone(),
        kept: reader,
        metrics: base.metrics.clone(),
        engine,
    })
}

/// Serves with this configuration, which is in `file`, until a signal says to stop.
pub(crate) async fn serve(file: &Path, config: Config) -> Result<(), StartError> {
    let stopping = CancellationToken::new();
    let abandon = CancellationToken::new();
    let signals = signals(stopping.clone(), abandon.clone())?;
    let base = Base::new(&config).await?;
    let running: Running = Arc::new(ArcSwap::from_pointee(config.clone()));
    let (handle, inputs) = engine::channel();
    let reloader = reloader(&running, &base, handle.clone())?;
    reloader.start(&base.reader).await?;

    let switch = Arc::new(switch(&settings(&config), &base)?);
    let effects = TaskTracker::new();
    let (requests, reload_requests) = mpsc::unbounded_channel();
    let engine = driver(
        &running, &base, &reloader, &switch, &handle, &effects, &requests,
    )?;
    let engine_gone = CancellationToken::new();
    // Before anything is accepted, and so before anything runs out.
    base.journal
        .found_leases(base.clock.now())
        .await
        .map_err(|error| StartError::History(error.to_string()))?;
    let posted = Arc::new(Notify::new());
    let intake = Arc::new(Intake::new(
        base.journal.clone(),
        base.clock.clone(),
        handle.clone(),
        base.metrics.clone(),
        running.clone(),
        (stopping.clone(), engine_gone.clone()),
        posted.clone(),
    ));
    // A connection of its own: a long list must not keep the engine waiting.
    let reader = Arc::new(Reader::open(&config.data_dir)?);
    let standings = Arc::new(Standings::of(file));
    let server = server(
        &base,
        reader,
        &reloader,
        &intake,
        (handle.clone(), switch.clone(), requests.clone()),
        (standings.clone(), &running),
        (stopping.clone(), engine_gone.clone()),
    );

    let reconciler = reconciler(&config, &base, &handle)?;
    let tasks = TaskTracker::new();
    if let Some(reconciler) = reconciler {
        tasks.spawn(reconciler.serve(stopping.clone()));
    }
    let (leases, housekeeping) = upkeep(&running, &base, &handle, posted)?;
    tasks.spawn(leases.serve(stopping.clone()));
    tasks.spawn(housekeeping.serve(stopping.clone()));
    let runs_playbooks = reloader.serving.load().runs_playbooks();
    let ansible = runs_playbooks.then(|| base.ansible.clone());
    tasks.spawn(look_around(
        base.docker.clone(),
        base.identities.clone(),
        ansible,
    ));
    let asked = Arc::new(Notify::new());
    tasks.spawn(signals.serve(requests, asked.clone()));
    configured(&config, &base).await;
    let reconfigurer = Reconfigurer {
        pool: Pool::of(&config),
        running: running.clone(),
        standings,
        asked,
        journal: base.journal.clone(),
        reader: base.reader.clone(),
        clock: base.clock.clone(),
        switch,
        engine: handle,
        probation: reloader.probation.clone(),
        metrics: base.metrics.clone(),
    };
    tasks.spawn(reconfigurer.serve(stopping.clone()));
    tasks.spawn(reloader.serve(reload_requests, stopping.clone()));
    let recovered = base.recovered;
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

    warn_of_others(&config);
    server.serve(base.listener, stopping).await;

    tracing::info!("stopping: nothing more is taken in");
    intake.drain().await;
    let grace = running.load().grace;
    stop_engine(engine_task, &abandon, grace).await;
    end_effects(&effects, &base.ansible, &base.docker, grace).await;
    close(base.journal).await;
    tracing::info!("stopped");
    Ok(())
}

/// What goes on beside the engine without anybody asking for it.
fn upkeep(
    running: &Running,
    base: &Base,
    engine: &EngineHandle,
    posted: Arc<Notify>,
) -> Result<(Leases, Housekeeping), StartError> {
    let folder = running.load().data_dir.clone();
    let leases = Leases {
        journal: base.journal.clone(),
        // A connection of its own: the engine must not wait for it.
        reader: Arc::new(Reader::open(&folder)?),
        engine: engine.clone(),
        clock: base.clock.clone(),
        metrics: base.metrics.clone(),
        posted,
    };
    let housekeeping = Housekeeping {
        folder,
        journal: base.journal.clone(),
        config: running.clone(),
        clock: base.clock.clone(),
        metrics: base.metrics.clone(),
    };
    Ok((leases, housekeeping))
}

/// Says at each start who but the operator can make sentinel act.
fn warn_of_others(config: &Config) {
    for open in open_to_others(config) {
        tracing::warn!("{open}");
    }
    if config.access == Some(Access::Open) && !is_loopback(config.listen.ip()) {
        tracing::warn!(
            listen = %config.listen,
            "access is open: whoever reaches this address may pause, approve and install plugins"
        );
    }
}

/// Puts on record how this start's configuration differs from what the daemon ran with
/// before.
async fn configured(config: &Config, base: &Base) {
    let before = control::configuration(&base.recovered.controls);
    let changed = difference(&before, &config.settings());
    if changed.is_empty() {
        return;
    }
    if let Err(error) = reconfigure::note(&base.journal, &base.clock, changed).await {
        base.metrics.journal_failed("the configuration", &error);
    }
}

/// Says at the start, and not at the first incident, what cannot be reached.
async fn look_around(
    docker: Arc<Docker>,
    identities: Arc<Identities>,
    ansible: Option<Arc<Ansible>>,
) {
    for host in docker.hosts() {
        if let Err(error) = docker.ping(host).await {
            tracing::warn!(host, %error, "this Docker host does not answer");
        } else if identities.host(host).is_none()
            && let Err(error) = identities.learn_host(host).await
        {
            tracing::warn!(host, %error, "this Docker host does not say which engine it is");
        }
    }
    if let Some(ansible) = ansible
        && let Err(error) = ansible.check().await
    {
        tracing::warn!(%error, "playbooks cannot be run");
    }
}

/// Gives effects that are under way their time, then ends what can be ended.
async fn end_effects(effects: &TaskTracker, ansible: &Ansible, docker: &Docker, grace: Duration) {
    effects.close();
    if tokio::time::timeout(grace, effects.wait()).await.is_err() {
        tracing::warn!("effects are still under way: playbooks are ended");
    }
    // Always, so that no playbook goes on without anybody who knows of it.
    let drivers = async {
        ansible.shutdown().await;
        docker.shutdown().await;
        effects.wait().await;
    };
    if tokio::time::timeout(DRIVERS, drivers).await.is_err() {
        tracing::warn!("effects are left under way; the next start finds their runs interrupted");
    }
}

/// Waits until everything is written.
async fn close(journal: Arc<Journal>) {
    if let Err(error) = tokio::task::spawn_blocking(move || journal.close()).await {
        tracing::error!(%error, "closing the journal ended in a panic");
    }
}

/// The HTTP server, and what its handlers look at.
fn server(
    base: &Base,
    reader: Arc<Reader>,
    reloader: &Reloader,
    intake: &Arc<Intake>,
    (engine, switch, requests): (EngineHandle, Arc<Switch>, mpsc::UnboundedSender<Request>),
    (configuration, config): (Arc<Standings>, &Running),
    (stopping, engine_gone): (CancellationToken, CancellationToken),
) -> api::Server {
    let api = Api {
        reader,
        journal: base.journal.clone(),
        serving: reloader.serving.clone(),
        problems: reloader.problems.clone(),
        configuration,
        versions: reloader.versions.clone(),
        probation: reloader.probation.clone(),
        requests,
        max_plugin_size: base.sandbox.config().max_plugin_size,
        metrics: base.metrics.clone(),
        docker: base.docker.clone(),
        identities: base.identities.clone(),
        clock: base.clock.clone(),
        engine,
        switch,
        started_at: Timestamp::now(),
        stopping,
        engine_gone,
        places: Places::default(),
    };
    api::server(Arc::new(api), intake, config)
}

/// Gives runs that have begun their time, then gives them up: the next start finds
/// them interrupted.
async fn stop_engine(
    mut engine: tokio::task::JoinHandle<()>,
    abandon: &CancellationToken,
    grace: Duration,
) {
    let ended = if let Ok(ended) = tokio::time::timeout(grace, &mut engine).await {
        ended
    } else {
        tracing::warn!(
            ?grace,
            "runs are given up; the next start finds them interrupted"
        );
        abandon.cancel();
        engine.await
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
    abandon: CancellationToken,
}

fn signals(stopping: CancellationToken, abandon: CancellationToken) -> Result<Signals, StartError> {
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
        abandon,
    })
}

impl Signals {
    /// SIGINT and SIGTERM stop the daemon, the second one without waiting for runs;
    /// SIGHUP makes it look at its files.
    async fn serve(mut self, requests: mpsc::UnboundedSender<Request>, asked: Arc<Notify>) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => self.stop(),
                _ = self.terminate.recv() => self.stop(),
                _ = self.hangup.recv() => {
                    asked.notify_one();
                    if requests.send(Request::Look).is_err() {
                        tracing::debug!("stopping: nothing is looked at any more");
                    }
                }
            }
        }
    }

    fn stop(&self) {
        if self.stopping.is_cancelled() {
            self.abandon.cancel();
        }
        self.stopping.cancel();
    }
}
