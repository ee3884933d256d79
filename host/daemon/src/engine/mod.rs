//! The engine: one task that owns every open incident.
//!
//! It takes inputs (accepted alerts, ends of runs, verifications, its own timers),
//! turns each into events, folds these into the incidents ([`sentinel_core::incident`])
//! and carries out the commands that come back. One turn takes all inputs that wait and
//! commits what came of them as one: nothing is carried out before the events that
//! lead to it are on the disk.
//!
//! Only this task changes an incident, so there is nothing to lock. What takes time
//! (runs, probes) is done in tasks of its own that answer with an input.

mod executor;
mod matching;
mod news;
mod recorder;
mod verifier;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use sentinel_core::alert::AlertStatus;
use sentinel_core::event::{Event, EventBody, FailureClass, Guard, RunMode, RunResult};
use sentinel_core::guard::{self, GuardView, Verdict};
use sentinel_core::id::{IncidentId, PolicyName, RunId, Target};
use sentinel_core::incident::{AlertKey, Command, Incident, Phase, Plan, VerifyCheck};
use sentinel_journal::{Accepted, Append, IncidentRow, Journal, Reader, Recovered, WriteError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) use self::executor::Executor;
use self::news::{News, news};
pub(crate) use self::verifier::Verifier;
use crate::serving::Serving;
use crate::telemetry::metrics::Metrics;

/// How many inputs one turn takes: enough for one commit to pay off in a storm, and
/// few enough that the first of them does not wait for the last.
const TURN: usize = 512;

/// What the engine takes in.
#[derive(Debug)]
enum Input {
    /// Alerts were committed.
    Accepted(Vec<Accepted>),
    /// A run's recorder committed an event by itself.
    Noted(Event),
    /// A run ended.
    RunEnded { run: RunId, result: RunResult },
    /// A verification came to an end.
    Verified {
        incident: IncidentId,
        deadline: Timestamp,
        result: Result<String, String>,
    },
}

/// Hands inputs to the engine.
#[derive(Debug, Clone)]
pub(crate) struct EngineHandle {
    inputs: mpsc::UnboundedSender<Input>,
}

impl EngineHandle {
    /// Tells the engine of alerts that are committed. What it cannot take in any more
    /// waits in the journal's inbox for the next start.
    pub(crate) fn accepted(&self, alerts: Vec<Accepted>) {
        self.send(Input::Accepted(alerts));
    }

    fn send(&self, input: Input) {
        if self.inputs.send(input).is_err() {
            tracing::debug!("the engine has stopped; the journal keeps what it did not take in");
        }
    }
}

/// The receiving end of an [`EngineHandle`].
pub(crate) struct Inputs(mpsc::UnboundedReceiver<Input>);

/// A way into an engine that is yet to be made.
pub(crate) fn channel() -> (EngineHandle, Inputs) {
    // Unbounded: intake bounds what can wait here (`limits.intake.backlog`), and runs
    // and verifications are as many as incidents are open.
    let (inputs, receiver) = mpsc::unbounded_channel();
    (EngineHandle { inputs }, Inputs(receiver))
}

/// What is left to do once a turn's events are on the disk.
#[derive(Debug)]
enum Action {
    Run {
        run: RunId,
        order: Box<executor::Order>,
    },
    Verify {
        incident: IncidentId,
        deadline: Timestamp,
    },
}

/// What one turn has come to so far.
#[derive(Debug, Default)]
struct Turn {
    append: Append,
    commands: VecDeque<(IncidentId, Command)>,
    actions: Vec<Action>,
    touched: BTreeSet<IncidentId>,
}

/// The engine's state; see the module.
pub(crate) struct Engine {
    journal: Arc<Journal>,
    // Looked at when an alert is repeated or a cooldown is not in memory: single rows
    // by index, in memory or in the page cache.
    reader: Arc<Reader>,
    serving: Arc<ArcSwap<Serving>>,
    executor: Executor,
    verifier: Verifier,
    metrics: Arc<Metrics>,
    // Every incident that has not ended.
    incidents: BTreeMap<IncidentId, Incident>,
    // The open incident of a policy on a target: there is at most one.
    by_target: HashMap<(PolicyName, Target), IncidentId>,
    // Which open incidents an alert belongs to.
    by_alert: HashMap<AlertKey, BTreeSet<IncidentId>>,
    // Which incident may act on a target.
    locks: HashMap<Target, IncidentId>,
    timers: BTreeSet<(Timestamp, IncidentId)>,
    // When a policy's last run on a target ended, as far as this turn has it and the
    // journal does not.
    last_runs: HashMap<(PolicyName, Target), Timestamp>,
    // Runs that are under way, and incidents that wait for one of them to end: a run is
    // on record as started only when there is a place for it.
    running: usize,
    places: usize,
    waiting: VecDeque<IncidentId>,
    // Verifications that are under way.
    verifying: HashMap<IncidentId, CancellationToken>,
    next: IncidentId,
}

/// What an engine is made of.
pub(crate) struct Parts {
    pub(crate) journal: Arc<Journal>,
    pub(crate) reader: Arc<Reader>,
    pub(crate) serving: Arc<ArcSwap<Serving>>,
    pub(crate) executor: Executor,
    pub(crate) verifier: Verifier,
    pub(crate) metrics: Arc<Metrics>,
    /// How many runs there may be at once.
    pub(crate) places: usize,
}

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            journal: parts.journal,
            reader: parts.reader,
            serving: parts.serving,
            executor: parts.executor,
            verifier: parts.verifier,
            metrics: parts.metrics,
            incidents: BTreeMap::new(),
            by_target: HashMap::new(),
            by_alert: HashMap::new(),
            locks: HashMap::new(),
            timers: BTreeSet::new(),
            last_runs: HashMap::new(),
            running: 0,
            places: parts.places,
            waiting: VecDeque::new(),
            verifying: HashMap::new(),
            next: IncidentId(1),
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
        self.recover(recovered, &stopping, &abandon).await;
        let mut batch = Vec::with_capacity(TURN);
        loop {
            let idle = stopping.is_cancelled() && !self.running();
            if idle || abandon.is_cancelled() {
                break;
            }
            let wake = self.timers.first().map(|(at, _)| until(*at));
            tokio::select! {
                received = inputs.recv_many(&mut batch, TURN) => {
                    if received == 0 {
                        break;
                    }
                }
                () = sleep(wake) => {}
                () = stopping.cancelled(), if !stopping.is_cancelled() => continue,
                () = abandon.cancelled() => continue,
            }
            let mut turn = Turn::default();
            for input in batch.drain(..) {
                self.take(&mut turn, input);
            }
            self.fire_timers(&mut turn);
            self.finish(turn, &stopping, &abandon).await;
        }
        for token in self.verifying.values() {
            token.cancel();
        }
    }

    fn running(&self) -> bool {
        self.incidents
            .values()
            .any(|incident| matches!(incident.phase, Phase::Running { .. }))
    }

    async fn recover(
        &mut self,
        recovered: Recovered,
        stopping: &CancellationToken,
        abandon: &CancellationToken,
    ) {
        self.next = recovered.next_incident;
        let mut turn = Turn::default();
        let mut interrupted = Vec::new();
        for events in &recovered.open {
            let incident = match Incident::fold(events) {
                Ok(incident) => incident,
                Err(error) => {
                    tracing::error!(%error, "an incident in the journal cannot be read; it is left as it is");
                    continue;
                }
            };
            self.metrics.incident_recovered(&incident);
            let id = incident.id;
            if let Phase::Running { run, .. } = incident.phase {
                interrupted.push((id, run));
            }
            for command in incident.resume() {
                turn.commands.push_back((id, command));
            }
            // What held it may be gone.
            if matches!(incident.phase, Phase::Held { .. }) {
                turn.commands.push_back((id, Command::AskGuards));
            }
            self.index(&incident);
            self.incidents.insert(id, incident);
        }
        for (id, run) in interrupted {
            self.record(&mut turn, id, EventBody::RunInterrupted { run });
        }
        let waiting = recovered.inbox.len();
        self.metrics.backlog(waiting as i64);
        if waiting > 0 {
            tracing::info!(
                waiting,
                "alerts were accepted before the restart and not dealt with"
            );
        }
        for accepted in recovered.inbox {
            self.alert(&mut turn, &accepted);
        }
        self.finish(turn, stopping, abandon).await;
    }

    fn take(&mut self, turn: &mut Turn, input: Input) {
        match input {
            Input::Accepted(alerts) => {
                for accepted in alerts {
                    self.alert(turn, &accepted);
                }
            }
            // Already committed: folded in, and not written again.
            Input::Noted(event) => {
                if let Some(incident) = self.incidents.get_mut(&event.incident) {
                    incident.apply(&event);
                }
            }
            Input::RunEnded { run, result } => {
                self.running = self.running.saturating_sub(1);
                self.record(turn, run.incident, EventBody::RunEnded { run, result });
            }
            Input::Verified {
                incident,
                deadline,
                result,
            } => self.verified(turn, incident, deadline, result),
        }
    }

    fn alert(&mut self, turn: &mut Turn, accepted: &Accepted) {
        turn.append.done.push(accepted.seq);
        match accepted.alert.status {
            AlertStatus::Firing => self.firing(turn, accepted),
            AlertStatus::Resolved => {
                let key = AlertKey::from(&accepted.alert.episode());
                let ids = self.by_alert.get(&key).cloned().unwrap_or_default();
                if ids.is_empty() {
                    self.resolved(accepted);
                }
                for id in ids {
                    self.see(turn, id, accepted);
                }
            }
        }
    }

    /// An alert ended that no open incident waits for: most often one that was healed.
    fn resolved(&self, accepted: &Accepted) {
        let alert = &accepted.alert;
        let serving = self.serving.load();
        let mut policies = serving.policies.matching(&alert.labels);
        if let Some(policy) = policies.next() {
            tracing::info!(policy = %policy.name, alert = alert.name(), starts_at = %alert.starts_at, "alert resolved, there is nothing to do");
        }
    }

    fn firing(&mut self, turn: &mut Turn, accepted: &Accepted) {
        let serving = self.serving.load_full();
        let matched = matching::matches(&serving.policies, &accepted.alert);
        for matched in matched {
            let key = (matched.plan.policy.clone(), matched.target.clone());
            // One that ended in this very turn is still here, and takes nothing more in.
            let open = self.by_target.get(&key).copied().filter(|id| {
                self.incidents
                    .get(id)
                    .is_some_and(|incident| !incident.ended())
            });
            if let Some(id) = open {
                self.see(turn, id, accepted);
                continue;
            }
            match self.judge(accepted, &key.0, &key.1, &matched.plan) {
                News::Episode => self.open(turn, matched, accepted),
                News::StillFiring(reason) => {
                    let refused = Some(reason);
                    self.open(turn, matching::Matched { refused, ..matched }, accepted);
                }
                News::Repeat => self.metrics.repeat_ignored(&key.0, &accepted.alert),
            }
        }
    }

    /// What a firing notification without an open incident comes to. On an error of the
    /// journal it is nothing: it is better to leave something to the next repetition than
    /// to do it twice.
    fn judge(
        &self,
        accepted: &Accepted,
        policy: &PolicyName,
        target: &Target,
        plan: &Plan,
    ) -> News {
        let episode = accepted.alert.episode();
        let known = if accepted.repeat {
            self.reader.incident_of(&episode, policy, target)
        } else {
            Ok(None)
        };
        match (self.reader.resolved_at(&episode), known) {
            (Ok(resolved_at), Ok(known)) => {
                news(plan, resolved_at, known.as_ref(), Timestamp::now())
            }
            (Err(error), _) | (_, Err(error)) => {
                self.metrics.journal_failed("looking an alert up", &error);
                News::Repeat
            }
        }
    }

    fn open(&mut self, turn: &mut Turn, matched: matching::Matched, accepted: &Accepted) {
        let id = self.next;
        self.next = IncidentId(id.0 + 1);
        let event = Event {
            at: Timestamp::now(),
            incident: id,
            body: EventBody::Opened {
                plan: Box::new(matched.plan),
                target: matched.target,
                alert: Box::new(accepted.alert.clone()),
                accepted_at: accepted.received_at,
            },
        };
        let Ok((incident, commands)) = Incident::open(&event) else {
            return;
        };
        self.metrics.incident_opened(&incident);
        self.index(&incident);
        self.incidents.insert(id, incident);
        turn.append.episodes.push((accepted.alert.episode(), id));
        turn.append.events.push(event);
        turn.touched.insert(id);
        if let Some(reason) = matched.refused {
            self.record(turn, id, EventBody::Refused { reason });
        } else {
            turn.commands
                .extend(commands.into_iter().map(|command| (id, command)));
        }
    }

    /// Tells an open incident of a notification that concerns it.
    fn see(&mut self, turn: &mut Turn, id: IncidentId, accepted: &Accepted) {
        let episode = accepted.alert.episode();
        let Some(incident) = self.incidents.get(&id) else {
            return;
        };
        let repeat = incident.knows(&episode, accepted.alert.status);
        if accepted.alert.status == AlertStatus::Firing && !repeat {
            turn.append.episodes.push((episode.clone(), id));
            self.attach(id, AlertKey::from(&episode));
        }
        let status = accepted.alert.status;
        if !repeat {
            tracing::info!(incident = %id, alert = accepted.alert.name(), %status, "alert seen");
        }
        self.record(
            turn,
            id,
            EventBody::AlertSeen {
                episode,
                status,
                repeat,
            },
        );
    }

    fn attach(&mut self, id: IncidentId, alert: AlertKey) {
        self.by_alert.entry(alert).or_default().insert(id);
    }

    fn index(&mut self, incident: &Incident) {
        let key = (incident.plan.policy.clone(), incident.target.clone());
        self.by_target.insert(key, incident.id);
        for key in incident.alerts.keys() {
            self.attach(incident.id, key.clone());
        }
        if incident.holds_target() {
            self.locks.insert(incident.target.clone(), incident.id);
        }
    }

    /// Applies an event that happens now, and queues what follows from it.
    fn record(&mut self, turn: &mut Turn, id: IncidentId, body: EventBody) {
        self.record_at(turn, id, body, Timestamp::now());
    }

    fn record_at(&mut self, turn: &mut Turn, id: IncidentId, body: EventBody, at: Timestamp) {
        let Some(incident) = self.incidents.get_mut(&id) else {
            tracing::debug!(incident = %id, kind = body.kind(), "too late, the incident has ended");
            return;
        };
        let event = Event {
            at,
            incident: id,
            body,
        };
        let commands = incident.apply(&event);
        turn.touched.insert(id);
        turn.append.events.push(event);
        turn.commands
            .extend(commands.into_iter().map(|command| (id, command)));
    }

    fn verified(
        &mut self,
        turn: &mut Turn,
        id: IncidentId,
        deadline: Timestamp,
        result: Result<String, String>,
    ) {
        // An answer to an earlier verification says nothing about this one.
        let current = self.incidents.get(&id).is_some_and(
            |incident| matches!(incident.phase, Phase::Verifying { deadline: d, .. } if d == deadline),
        );
        if !current {
            return;
        }
        self.verifying.remove(&id);
        let body = match result {
            Ok(detail) => {
                self.metrics.verified(id, true, &detail);
                EventBody::VerificationPassed { detail }
            }
            Err(detail) => {
                self.metrics.verified(id, false, &detail);
                EventBody::VerificationFailed { detail }
            }
        };
        self.record(turn, id, body);
    }

    fn fire_timers(&mut self, turn: &mut Turn) {
        let now = Timestamp::now();
        while let Some((at, id)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            let Some(incident) = self.incidents.get(&id) else {
                continue;
            };
            match &incident.phase {
                Phase::Held {
                    until: Some(until), ..
                } if *until <= now => turn.commands.push_back((id, Command::AskGuards)),
                Phase::BackingOff { until, .. } if *until <= now => {
                    // The time that the timer was judged by, whatever the clock does.
                    self.record_at(turn, id, EventBody::TimerFired, now);
                }
                Phase::Verifying { deadline, .. }
                    if *deadline <= now
                        && incident.plan.verify.check == VerifyCheck::AlertResolved =>
                {
                    let within = incident.plan.verify.within;
                    let detail = format!("the alert still fires after {within:?}");
                    self.metrics.verified(id, false, &detail);
                    self.record(turn, id, EventBody::VerificationFailed { detail });
                }
                // The state has moved on since the timer was set.
                _ => {}
            }
        }
    }

    /// Carries out the commands, commits, and then does what was waiting for the
    /// commit.
    async fn finish(
        &mut self,
        mut turn: Turn,
        stopping: &CancellationToken,
        abandon: &CancellationToken,
    ) {
        loop {
            while let Some((id, command)) = turn.commands.pop_front() {
                self.carry_out(&mut turn, id, &command, stopping.is_cancelled());
            }
            let next = (self.running < self.places)
                .then(|| self.waiting.pop_front())
                .flatten();
            let Some(id) = next else { break };
            // One that waited may have ended meanwhile.
            let commands = self
                .incidents
                .get(&id)
                .filter(|incident| matches!(incident.phase, Phase::Starting { .. }))
                .map(Incident::resume)
                .unwrap_or_default();
            turn.commands
                .extend(commands.into_iter().map(|command| (id, command)));
        }
        let dealt_with = turn.append.done.len();
        let mut ended = Vec::new();
        for id in &turn.touched {
            let Some(incident) = self.incidents.get(id) else {
                continue;
            };
            turn.append.incidents.push(IncidentRow::from(incident));
            if incident.ended() {
                ended.push(*id);
            }
        }
        if !turn.append.is_empty() {
            let written = abandon.run_until_cancelled(self.commit(turn.append)).await;
            if written != Some(true) {
                // Nothing of this turn has happened: the next start finds its alerts in
                // the inbox, and its incidents where they were.
                abandon.cancel();
                return;
            }
        }
        self.last_runs.clear();
        self.metrics.backlog(-(dealt_with as i64));
        for id in ended {
            self.forget(id);
        }
        for action in turn.actions {
            self.act(action);
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

    fn carry_out(&mut self, turn: &mut Turn, id: IncidentId, command: &Command, stopping: bool) {
        match *command {
            Command::AskGuards => self.ask_guards(turn, id),
            // A run that was not begun is begun by the next daemon.
            Command::StartRun { .. } if stopping => {}
            Command::StartRun { run, step, attempt } => self.start(turn, run, step, attempt),
            Command::Verify { deadline } => {
                tracing::info!(incident = %id, %deadline, "verification started");
                let check = self
                    .incidents
                    .get(&id)
                    .map(|incident| &incident.plan.verify.check);
                match check {
                    // Nothing to look at: the resolved notification is the answer.
                    Some(VerifyCheck::AlertResolved) => {
                        self.timers.insert((deadline, id));
                    }
                    Some(_) => turn.actions.push(Action::Verify {
                        incident: id,
                        deadline,
                    }),
                    None => {}
                }
            }
            Command::WakeAt(at) => {
                self.timers.insert((at, id));
            }
            Command::Release => self.release(turn, id),
        }
    }

    fn ask_guards(&mut self, turn: &mut Turn, id: IncidentId) {
        let Some(incident) = self.incidents.get(&id) else {
            return;
        };
        if !matches!(incident.phase, Phase::Pending | Phase::Held { .. }) {
            return;
        }
        let key = (incident.plan.policy.clone(), incident.target.clone());
        let last_run_at = match self.last_runs.get(&key) {
            Some(at) => Some(*at),
            None => match self.reader.last_run(&key.0, &key.1) {
                Ok(at) => at,
                Err(error) => {
                    // Not known is not over: as if it had been just now.
                    self.metrics.journal_failed("looking a cooldown up", &error);
                    Some(Timestamp::now())
                }
            },
        };
        let view = GuardView {
            last_run_at,
            locked_by: self
                .locks
                .get(&key.1)
                .copied()
                .filter(|holder| *holder != id),
        };
        match guard::evaluate(incident, view, Timestamp::now()) {
            Verdict::Pass => {
                self.locks.insert(key.1, id);
                self.record(turn, id, EventBody::GuardsPassed);
            }
            Verdict::Hold {
                guard,
                until,
                reason,
            } => {
                if incident.phase == (Phase::Held { guard, until }) {
                    // The same verdict as before is no news.
                    turn.commands
                        .extend(until.map(|until| (id, Command::WakeAt(until))));
                    return;
                }
                self.metrics.incident_held(incident, guard, &reason);
                self.record(
                    turn,
                    id,
                    EventBody::GuardHeld {
                        guard,
                        until,
                        reason,
                    },
                );
            }
        }
    }

    fn start(&mut self, turn: &mut Turn, run: RunId, step: u32, attempt: u32) {
        let id = run.incident;
        let Some(incident) = self.incidents.get(&id) else {
            return;
        };
        // An alert that resolved in this same turn has ended the incident.
        if !matches!(incident.phase, Phase::Starting { .. }) {
            return;
        }
        if self.running >= self.places {
            self.waiting.push_back(id);
            return;
        }
        let Some(planned) = incident.step(step).cloned() else {
            return;
        };
        let plugin = self.serving.load().plugins.get(&planned.plugin).cloned();
        let Some(plugin) = plugin else {
            // Policies are checked against the plugins that serve, so the plugin was
            // taken away while this incident was open.
            let digest = incident.plan.digest;
            let message = format!("no plugin named {} serves", planned.plugin);
            self.metrics
                .run_started(run, &planned.plugin, digest, step, attempt);
            let version = "none".to_owned();
            let name = planned.plugin.clone();
            self.record(
                turn,
                id,
                EventBody::RunStarted {
                    run,
                    step,
                    attempt,
                    plugin: planned.plugin,
                    version,
                    digest,
                    mode: RunMode::Live,
                },
            );
            let result = RunResult::Failed {
                class: FailureClass::Permanent,
                message,
            };
            self.metrics.run_ended(run, &name, &result);
            self.record(turn, id, EventBody::RunEnded { run, result });
            return;
        };
        let order = executor::Order::new(incident, run, step, attempt, &planned, plugin.clone());
        let digest = plugin.digest;
        self.metrics
            .run_started(run, &planned.plugin, digest, step, attempt);
        self.record(
            turn,
            id,
            EventBody::RunStarted {
                run,
                step,
                attempt,
                plugin: planned.plugin,
                version: plugin.version.to_string(),
                digest,
                mode: RunMode::Live,
            },
        );
        self.running += 1;
        turn.actions.push(Action::Run {
            run,
            order: Box::new(order),
        });
    }

    fn release(&mut self, turn: &mut Turn, id: IncidentId) {
        let Some(incident) = self.incidents.get(&id) else {
            return;
        };
        let target = incident.target.clone();
        if let Some(at) = incident.last_run_at {
            let key = (incident.plan.policy.clone(), target.clone());
            self.last_runs.insert(key, at);
        }
        if self.locks.get(&target) == Some(&id) {
            self.locks.remove(&target);
            // In the order in which they opened; the first takes the lock.
            let waiting = self.incidents.values().filter(|other| {
                other.target == target
                    && matches!(
                        other.phase,
                        Phase::Held {
                            guard: Guard::TargetLock,
                            ..
                        }
                    )
            });
            turn.commands
                .extend(waiting.map(|other| (other.id, Command::AskGuards)));
        }
    }

    /// Takes an incident that has ended out of memory.
    fn forget(&mut self, id: IncidentId) {
        if let Some(token) = self.verifying.remove(&id) {
            token.cancel();
        }
        let Some(incident) = self.incidents.remove(&id) else {
            return;
        };
        if let Phase::Ended { end, reason, .. } = &incident.phase {
            self.metrics.incident_ended(&incident, *end, reason);
        }
        let key = (incident.plan.policy, incident.target);
        if self.by_target.get(&key) == Some(&id) {
            self.by_target.remove(&key);
        }
        for key in incident.alerts.keys() {
            if let Some(ids) = self.by_alert.get_mut(key) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_alert.remove(key);
                }
            }
        }
    }

    /// Does what had to wait for the commit.
    fn act(&mut self, action: Action) {
        match action {
            Action::Run { run, order } => self.executor.start(run, *order),
            Action::Verify { incident, deadline } => {
                let Some(state) = self.incidents.get(&incident) else {
                    return;
                };
                let token = CancellationToken::new();
                if let Some(earlier) = self.verifying.insert(incident, token.clone()) {
                    earlier.cancel();
                }
                self.verifier.start(state, deadline, token);
            }
        }
    }
}

/// How long it is until `at`; nothing when it has passed.
fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}

/// Sleeps, or for ever when there is nothing to wait for.
async fn sleep(duration: Option<Duration>) {
    match duration {
        // A clock that is set forward must not be noticed late: look again now and
        // then.
        Some(duration) => tokio::time::sleep(duration.min(Duration::from_secs(5))).await,
        None => std::future::pending().await,
    }
}
