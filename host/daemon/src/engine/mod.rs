//! Drives the engine ([`sentinel_core::engine`]) with a real clock and a real journal.
//!
//! One task owns it. A turn takes inputs that wait, the most urgent first; what comes of
//! them is committed as one, and only then acted on. What takes time (runs, probes,
//! looks at fleets) is done in tasks of its own that answer with an input.

mod executor;
mod fleet;
mod identity;
mod queue;
mod recorder;
mod switch;
mod verifier;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use sentinel_core::alert::Episode;
use sentinel_core::engine::{
    Action, Engine, Input, Note, Operator, OperatorError, PluginVersion, Settings, Turn, World,
};
use sentinel_core::id::{IncidentId, PluginRef, RunId};
use sentinel_core::policy::PolicySet;
use sentinel_core::record::{Accepted, Append, History, Recovered};
use sentinel_journal::{Journal, Reader, WriteError};
use sentinel_sandbox::gate::Halt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use self::executor::Executor;
pub(crate) use self::identity::Identities;
use self::queue::Queue;
pub(crate) use self::switch::Switch;
pub(crate) use self::verifier::Verifier;
use crate::clock::Clock;
use crate::serving::Serving;
use crate::telemetry::metrics::Metrics;

/// How many inputs beside alerts one turn takes.
const INPUTS: usize = 512;

/// What comes in.
#[derive(Debug)]
enum Incoming {
    /// Alerts were committed.
    Accepted(Vec<Accepted>),
    /// Something for the engine.
    Input(Input),
    /// An operator wants something.
    Operator(Operator, oneshot::Sender<Reply>),
    /// A run has come to its end, and its halt is of no use any more.
    RunGone(RunId),
    /// Somebody wants to know which alerts of open incidents fire.
    Firing(oneshot::Sender<Vec<(Episode, Timestamp)>>),
}

/// What an operator is told.
pub(crate) type Reply = Result<String, OperatorError>;

/// Hands inputs to the engine.
#[derive(Debug, Clone)]
pub(crate) struct EngineHandle {
    inputs: mpsc::UnboundedSender<Incoming>,
}

impl EngineHandle {
    /// Tells the engine of alerts that are committed. What it cannot take in any more
    /// waits in the journal's inbox for the next start.
    pub(crate) fn accepted(&self, alerts: Vec<Accepted>) {
        self.send(Incoming::Accepted(alerts));
    }

    /// Asks for something, and waits until it is committed.
    pub(crate) async fn operate(&self, operator: Operator) -> Reply {
        let (reply, replied) = oneshot::channel();
        self.send(Incoming::Operator(operator, reply));
        replied.await.unwrap_or(Err(OperatorError::Stopping))
    }

    /// The engine goes by these from now on.
    pub(crate) fn set(&self, settings: Settings) {
        self.input(Input::Settings(Box::new(settings)));
    }

    /// Other policies serve from now on.
    pub(crate) fn policies_changed(&self) {
        self.input(Input::PoliciesChanged);
    }

    /// Which alerts of open incidents fire, and when the incident last had word of one.
    pub(crate) async fn firing(&self) -> Vec<(Episode, Timestamp)> {
        let (reply, replied) = oneshot::channel();
        self.send(Incoming::Firing(reply));
        replied.await.unwrap_or_default()
    }

    fn input(&self, input: Input) {
        self.send(Incoming::Input(input));
    }

    fn send(&self, incoming: Incoming) {
        if self.inputs.send(incoming).is_err() {
            tracing::debug!("the engine has stopped; the journal keeps what it did not take in");
        }
    }
}

/// The receiving end of an [`EngineHandle`].
pub(crate) struct Inputs(mpsc::UnboundedReceiver<Incoming>);

/// A way into an engine that is yet to be made.
pub(crate) fn channel() -> (EngineHandle, Inputs) {
    // Unbounded: intake bounds what can wait here (`limits.intake.backlog`), and runs
    // and verifications are as many as incidents are open.
    let (inputs, receiver) = mpsc::unbounded_channel();
    (EngineHandle { inputs }, Inputs(receiver))
}

/// The engine and what it works with.
pub(crate) struct Driver {
    engine: Engine,
    clock: Arc<Clock>,
    journal: Arc<Journal>,
    // Looked at when an alert is repeated or a guard counts: single rows by index, in
    // memory or in the page cache.
    reader: Arc<Reader>,
    serving: Arc<ArcSwap<Serving>>,
    switch: Arc<Switch>,
    executor: Executor,
    verifier: Verifier,
    identities: Arc<Identities>,
    metrics: Arc<Metrics>,
    handle: EngineHandle,
    queue: Queue,
    // More incidents may be open than before, perhaps.
    roomier: bool,
    // How runs that are under way are ended.
    halts: HashMap<RunId, Halt>,
    // Verifications that are under way.
    verifying: HashMap<IncidentId, CancellationToken>,
    // Operators who wait for an answer.
    asking: HashMap<u64, oneshot::Sender<Reply>>,
    tokens: AtomicU64,
}

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<Clock>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) reader: Arc<Reader>,
    pub(crate) serving: Arc<ArcSwap<Serving>>,
    pub(crate) switch: Arc<Switch>,
    pub(crate) executor: Executor,
    pub(crate) verifier: Verifier,
    pub(crate) identities: Arc<Identities>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) handle: EngineHandle,
}

/// What the engine looks at in a turn.
struct Now<'a> {
    serving: &'a Serving,
    reader: &'a Reader,
    identities: &'a Identities,
}

impl World for Now<'_> {
    fn policies(&self) -> &PolicySet {
        &self.serving.policies
    }

    fn plugin(&self, plugin: &PluginRef) -> Option<PluginVersion> {
        let plugin = self.serving.plugins.find(plugin)?;
        Some(PluginVersion {
            version: plugin.version.to_string(),
            digest: plugin.digest,
        })
    }

    fn docker_host(&self, host: &str) -> Option<String> {
        self.identities.host(host)
    }

    fn history(&self) -> &dyn History {
        self.reader
    }
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            engine: Engine::new(parts.settings),
            clock: parts.clock,
            queue: Queue::new(parts.reader.clone()),
            roomier: false,
            journal: parts.journal,
            reader: parts.reader,
            serving: parts.serving,
            switch: parts.switch,
            executor: parts.executor,
            verifier: parts.verifier,
            identities: parts.identities,
            metrics: parts.metrics,
            handle: parts.handle,
            halts: HashMap::new(),
            verifying: HashMap::new(),
            asking: HashMap::new(),
            tokens: AtomicU64::new(0),
        }
    }

    /// Goes on with what an earlier daemon left, then serves inputs until `stopping`
    /// and until every run that had begun has ended, or `abandon` says not to wait.
    pub(crate) async fn serve(
        mut self,
        Inputs(mut inputs): Inputs,
        recovered: Recovered,
        stopping: CancellationToken,
        abandon: CancellationToken,
    ) {
        self.recover(recovered, &abandon).await;
        let mut incoming = Vec::with_capacity(INPUTS);
        loop {
            let idle = stopping.is_cancelled() && !self.engine.running();
            if idle || abandon.is_cancelled() {
                break;
            }
            // What waits already is taken with the next turn.
            let busy = self.queue.ready();
            self.clock.compare();
            let wake = self.engine.wake_at().map(|at| self.clock.until(at));
            tokio::select! {
                biased;
                () = abandon.cancelled() => continue,
                received = inputs.recv_many(&mut incoming, INPUTS) => {
                    if received == 0 {
                        break;
                    }
                }
                () = std::future::ready(()), if busy => {}
                () = sleep(wake) => {}
                () = stopping.cancelled(), if !stopping.is_cancelled() => continue,
            }
            let inputs: Vec<_> = incoming
                .drain(..)
                .filter_map(|incoming| self.sort(incoming))
                .collect();
            // Nothing new is opened by a daemon that stops: the next one finds it.
            let alerts = if stopping.is_cancelled() {
                Vec::new()
            } else {
                self.queue.take(&self.metrics)
            };
            let turn = self.turn(inputs, alerts, stopping.is_cancelled());
            self.carry_out(turn, &abandon).await;
        }
        for token in self.verifying.values() {
            token.cancel();
        }
    }

    async fn recover(&mut self, mut recovered: Recovered, abandon: &CancellationToken) {
        let inbox = std::mem::take(&mut recovered.inbox);
        self.metrics.backlog(inbox.len() as i64);
        if !inbox.is_empty() {
            tracing::info!(
                waiting = inbox.len(),
                "alerts were accepted before the restart and not dealt with"
            );
        }
        let serving = self.serving.load_full();
        let world = Now {
            serving: &serving,
            reader: &self.reader,
            identities: &self.identities,
        };
        let turn = {
            let mut effects = self.switch.effects();
            effects.share_among(&serving.policies);
            self.engine
                .recover(recovered, self.clock.now(), &world, &effects)
        };
        self.carry_out(turn, abandon).await;
        // Like any other: they come in while the daemon serves.
        self.queue.add(inbox);
    }

    /// Keeps what is not for the engine itself, or not yet.
    fn sort(&mut self, incoming: Incoming) -> Option<Input> {
        match incoming {
            Incoming::Accepted(alerts) => {
                self.queue.add(alerts);
                None
            }
            Incoming::Input(input) => {
                self.roomier |= matches!(input, Input::Settings(_) | Input::Identified { .. });
                Some(input)
            }
            Incoming::Operator(operator, reply) => {
                let token = self.tokens.fetch_add(1, Ordering::Relaxed);
                self.asking.insert(token, reply);
                Some(Input::Operator { token, operator })
            }
            Incoming::RunGone(run) => {
                self.halts.remove(&run);
                None
            }
            Incoming::Firing(reply) => {
                // Whoever asked may be gone.
                let _gone = reply.send(self.engine.firing());
                None
            }
        }
    }

    fn turn(&mut self, inputs: Vec<Input>, alerts: Vec<Accepted>, stopping: bool) -> Turn {
        let serving = self.serving.load_full();
        let world = Now {
            serving: &serving,
            reader: &self.reader,
            identities: &self.identities,
        };
        let mut effects = self.switch.effects();
        effects.share_among(&serving.policies);
        let inputs = inputs
            .into_iter()
            .chain(alerts.into_iter().map(Input::Accepted));
        self.engine
            .turn(inputs, self.clock.now(), &world, &effects, stopping)
    }

    /// Commits a turn, then does what was waiting for the commit. Runs do not wait, but
    /// for what they write themselves.
    async fn carry_out(&mut self, turn: Turn, abandon: &CancellationToken) {
        let dealt_with = turn.append.done.len();
        let controls = !turn.append.controls.is_empty();
        // A pause holds from here on, even before it is on the disk.
        if controls {
            self.switch.set(self.engine.controls());
        }
        // A run that begins may look around while its start is being written; nothing of
        // its own is written before that is.
        let (written, begun) = watch::channel(false);
        let (runs, actions): (Vec<_>, Vec<_>) = turn
            .actions
            .into_iter()
            .partition(|action| matches!(action, Action::Run(_)));
        for action in runs {
            self.act(action, &begun);
        }
        if !turn.append.is_empty() {
            let committed = abandon.run_until_cancelled(self.commit(turn.append)).await;
            if committed != Some(true) {
                // Nothing of this turn has happened: the next start finds its alerts in
                // the inbox, and its incidents where they were.
                abandon.cancel();
                return;
            }
        }
        written.send_replace(true);
        self.metrics.backlog(-(dealt_with as i64));
        let ended = turn.notes.iter().any(|note| matches!(note, Note::Ended(_)));
        let roomier = std::mem::take(&mut self.roomier);
        for note in &turn.notes {
            if let Note::BudgetUsedUp { policy, full } = note {
                self.metrics.budget_used_up(policy, full, self.clock.now());
            }
            self.metrics.note(note);
        }
        let (plans, since) = self.engine.waiting();
        self.metrics.waiting(plans, since);
        self.queue.put_back(turn.deferred, ended || roomier);
        let waiting: Vec<_> = self.queue.waiting().collect();
        self.metrics.wait_for_room(&waiting, self.clock.now());
        for action in actions {
            self.act(action, &begun);
        }
        for (token, reply) in turn.replies {
            if let Some(asking) = self.asking.remove(&token) {
                // Whoever asked may be gone.
                let _gone = asking.send(reply);
            }
        }
    }

    /// Writes until it is written: without its memory the engine must not go on, and
    /// what it has in hand is not lost by waiting. Intake says 503 meanwhile. False when
    /// there is no journal to write to any more.
    async fn commit(&self, append: Append) -> bool {
        let append = Arc::new(append);
        let mut wait = Duration::from_millis(50);
        loop {
            match self.journal.append(append.clone()).await {
                Ok(()) => return true,
                Err(WriteError::Closed) => return false,
                Err(error) => self.metrics.journal_failed("events", &error),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    fn act(&mut self, action: Action, written: &watch::Receiver<bool>) {
        match action {
            Action::Run(order) => {
                let halt = Halt::new();
                self.halts.insert(order.run, halt.clone());
                self.executor.start(*order, halt, written.clone());
            }
            Action::Stop {
                run,
                cause,
                message,
            } => {
                if let Some(halt) = self.halts.get(&run) {
                    tracing::info!(%run, cause = cause.as_str(), message, "run is to end");
                    halt.stop(cause, message);
                }
            }
            Action::Verify(order) => {
                tracing::info!(incident = %order.incident, deadline = %order.deadline, "verification started");
                let token = CancellationToken::new();
                if let Some(earlier) = self.verifying.insert(order.incident, token.clone()) {
                    earlier.cancel();
                }
                self.verifier.start(*order, token);
            }
            Action::LookAtFleet(fleet) => {
                let verifier = &self.verifier;
                let docker = verifier.docker.clone();
                fleet::look(fleet, docker, self.handle.clone(), &verifier.tasks);
            }
            Action::Identify(target) => {
                let tasks = &self.verifier.tasks;
                self.identities.look(target, self.handle.clone(), tasks);
            }
            Action::Forget(incident) => {
                if let Some(token) = self.verifying.remove(&incident) {
                    token.cancel();
                }
            }
        }
    }
}

/// Sleeps, or for ever when there is nothing to wait for.
async fn sleep(duration: Option<Duration>) {
    match duration {
        // Now and then the machine's clock is compared.
        Some(duration) => tokio::time::sleep(duration.min(Duration::from_secs(5))).await,
        None => std::future::pending().await,
    }
}
