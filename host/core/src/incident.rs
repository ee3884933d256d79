//! The incident's life: a pure state machine.
//!
//! [`Incident::apply`] takes an event and answers with commands; [`Incident::resume`]
//! says which commands are outstanding in a state, so that a daemon that comes back
//! after a crash goes on from the fold of the journal. Time comes in with the event.
//!
//! ```text
//! pending ─► held ─► starting ─► running ─► verifying ─► ended
//!    │         │         ▲          │           │
//!    │         │         └─ backing off ◄───────┘
//!    └─────────┴──────────────────────────────────────► ended
//! ```

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::alert::{Alert, AlertStatus, Episode, Fingerprint};
use crate::event::{Event, EventBody, FailureClass, Guard, RunResult, millis};
use crate::grant::Grants;
use crate::guard::settings::Guards;
use crate::id::{Digest, IncidentId, PluginName, PolicyName, RunId, Target};
use crate::policy::{DEFAULT_TTL, Mode};

/// How often a run of one incident may be cut off by the end of the daemon before a
/// person has to look: a plugin that takes the daemon down must not do so for ever.
pub const MAX_INTERRUPTIONS: u32 = 3;

/// A policy as an incident carries it out: everything rendered for its alert, and
/// untouched by later changes of the policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The policy's name.
    pub policy: PolicyName,
    /// Which version of the policy.
    pub digest: Digest,
    /// The ladder; never empty.
    pub steps: Vec<PlannedStep>,
    /// What decides that the target is healed.
    pub verify: PlannedVerify,
    /// What can hold it back.
    #[serde(flatten)]
    pub guards: Guards,
    /// What the plugins may touch.
    pub grants: Grants,
    /// Whether it acts.
    #[serde(default = "auto")]
    pub mode: Mode,
    /// How it is approved, in mode `approve`.
    #[serde(default)]
    pub approval: Approval,
    /// How long the incident waits for word of its alerts.
    #[serde(with = "millis", rename = "ttl_ms", default = "default_ttl")]
    pub ttl: Duration,
    /// How many of the container's last log lines are kept before the first effect.
    #[serde(default)]
    pub evidence: u32,
    /// Which plugin tells a person, when one must look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalate: Option<PlannedEscalation>,
}

// What plans of journals that know nothing of these had.
fn auto() -> Mode {
    Mode::Auto
}

fn default_ttl() -> Duration {
    DEFAULT_TTL
}

/// How a plan is approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// After how long it counts as denied.
    #[serde(with = "millis", rename = "expires_ms")]
    pub expires: Duration,
    /// How many people have to approve; 1 or 2.
    pub people: u32,
}

impl Default for Approval {
    fn default() -> Self {
        Self {
            expires: Duration::from_mins(30),
            people: 1,
        }
    }
}

/// Which plugin tells a person, rendered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedEscalation {
    /// The plugin.
    pub plugin: PluginName,
    /// Its params, rendered.
    pub params: serde_json::Map<String, serde_json::Value>,
    /// How long a run may take.
    #[serde(with = "millis", rename = "timeout_ms")]
    pub timeout: Duration,
    /// How many runs it has; at least 1.
    pub attempts: u32,
}

/// When a step is begun; always, unless it says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct When {
    /// Not before the incident is as old as this.
    #[serde(with = "millis", rename = "after_ms", default)]
    pub after: Duration,
    /// Only when the step before it failed in one of these ways; in any way when empty.
    #[serde(default)]
    pub on: Vec<StepFailure>,
}

/// How a step failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepFailure {
    /// Its last attempt failed in a way that another might not have.
    Retryable,
    /// It cannot succeed.
    Permanent,
    /// It did something, and the verification did not pass.
    Unverified,
}

impl StepFailure {
    /// The failure as policies write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retryable => "retryable",
            Self::Permanent => "permanent",
            Self::Unverified => "unverified",
        }
    }
}

/// One rung of the ladder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// The plugin.
    pub plugin: PluginName,
    /// Its params, rendered.
    pub params: serde_json::Map<String, serde_json::Value>,
    /// How long a run may take.
    #[serde(with = "millis", rename = "timeout_ms")]
    pub timeout: Duration,
    /// How many runs the step has; at least 1.
    pub attempts: u32,
    /// The time between two attempts.
    #[serde(with = "millis", rename = "backoff_ms")]
    pub backoff: Duration,
    /// What becomes of a run that the end of the daemon cut off, where its record does
    /// not say how far it came.
    pub on_interrupt: OnInterrupt,
    /// When it is begun.
    #[serde(default)]
    pub when: When,
}

/// What becomes of a run that the end of the daemon cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnInterrupt {
    /// The step is attempted again.
    Rerun,
    /// A person has to look.
    Escalate,
}

/// What decides that the target is healed, rendered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedVerify {
    /// What is looked at.
    pub check: VerifyCheck,
    /// The time within which it has to hold.
    #[serde(with = "millis", rename = "within_ms")]
    pub within: Duration,
    /// The time between two looks.
    #[serde(with = "millis", rename = "every_ms")]
    pub every: Duration,
}

/// What a verification looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "check", rename_all = "kebab-case")]
pub enum VerifyCheck {
    /// A GET of `url` is answered with 2xx.
    Http {
        /// The URL.
        url: String,
    },
    /// The target's container runs and its health check passes.
    DockerHealthy,
    /// The target's container runs.
    DockerRunning,
    /// Every alert of the incident has resolved.
    AlertResolved,
}

/// Where an incident stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// Opened; the guards have not been asked.
    Pending,
    /// A guard holds it back.
    Held {
        /// Which.
        guard: Guard,
        /// When it would let go, if it knows.
        until: Option<Timestamp>,
    },
    /// A run is to be started.
    Starting {
        /// The step, counted from 1.
        step: u32,
        /// The attempt, counted from 1.
        attempt: u32,
    },
    /// A plugin runs.
    Running {
        /// The run.
        run: RunId,
        /// The step, counted from 1.
        step: u32,
        /// The attempt, counted from 1.
        attempt: u32,
    },
    /// A run said that it is done; `verify` decides.
    Verifying {
        /// The step, counted from 1.
        step: u32,
        /// The attempt, counted from 1.
        attempt: u32,
        /// When it must hold.
        deadline: Timestamp,
    },
    /// Waiting for the next attempt.
    BackingOff {
        /// The step of the next attempt, counted from 1.
        step: u32,
        /// The next attempt, counted from 1.
        attempt: u32,
        /// When it begins.
        until: Timestamp,
    },
    /// Over.
    Ended {
        /// How.
        end: End,
        /// Why.
        reason: String,
        /// When.
        at: Timestamp,
    },
}

impl Phase {
    /// Every word that [`Phase::as_str`] can give.
    pub const WORDS: [&str; 11] = [
        "open",
        "held",
        "starting",
        "running",
        "verifying",
        "backing-off",
        "healed",
        "cleared",
        "escalated",
        "suppressed",
        "cancelled",
    ];

    /// The phase as one word, for lists and metrics; an ended incident's is its end.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "open",
            Self::Held { .. } => "held",
            Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::Verifying { .. } => "verifying",
            Self::BackingOff { .. } => "backing-off",
            Self::Ended { end, .. } => end.as_str(),
        }
    }
}

/// How an incident ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// Verified.
    Healed,
    /// The alert resolved before anything was done.
    Cleared,
    /// The ladder is used up, or something needs a person.
    Escalated,
    /// A guard dropped it.
    Suppressed,
    /// An operator ended it.
    Cancelled,
}

impl End {
    /// The end as one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healed => "healed",
            Self::Cleared => "cleared",
            Self::Escalated => "escalated",
            Self::Suppressed => "suppressed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What the shell around the core has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Ask the guards, and apply `GuardHeld` or `GuardsPassed`.
    AskGuards,
    /// Start a run, and apply `RunStarted`, then `RunEnded`.
    StartRun {
        /// The run's number.
        run: RunId,
        /// The step, counted from 1.
        step: u32,
        /// The attempt, counted from 1.
        attempt: u32,
    },
    /// Look, and apply `VerificationPassed` or `VerificationFailed`. At least one look
    /// is taken, even past the deadline: the target may have healed meanwhile.
    Verify {
        /// When it must hold.
        deadline: Timestamp,
    },
    /// Apply `TimerFired` at this time, unless the state has changed by then.
    WakeAt(Timestamp),
    /// The incident is over: give up its locks.
    Release,
}

/// How long after the end of an episode a firing notification of it counts as late: as
/// one that the resolved notification has overtaken, which replicas of Alertmanager and
/// its retries bring about. After that it is believed again: an Alertmanager that heard
/// nothing for a while takes an alert for resolved, and tells of it again with the same
/// start when it hears of it.
pub const LATE: Duration = Duration::from_secs(120);

/// Whether a firing notification at `at` is a late one of an episode that ended at `end`.
#[must_use]
pub fn is_late(end: Timestamp, at: Timestamp) -> bool {
    at < later(end, LATE)
}

/// Which alert, whatever its episode.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AlertKey {
    /// What delivered it.
    pub source: String,
    /// Its label set.
    pub fingerprint: Fingerprint,
}

impl From<&Episode> for AlertKey {
    fn from(episode: &Episode) -> Self {
        Self {
            source: episode.source.clone(),
            fingerprint: episode.fingerprint.clone(),
        }
    }
}

/// The newest episode of an alert that an incident has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// When it began.
    pub starts_at: Timestamp,
    /// When its end was told; none while it fires.
    pub resolved_at: Option<Timestamp>,
}

impl Seen {
    fn status(self) -> AlertStatus {
        if self.resolved_at.is_some() {
            AlertStatus::Resolved
        } else {
            AlertStatus::Firing
        }
    }
}

/// One episode of one policy on one target: the fold of its events.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Incident {
    /// Its number.
    pub id: IncidentId,
    /// The policy as it was when the incident opened.
    pub plan: Plan,
    /// What is acted on.
    pub target: Target,
    /// The alert that opened it.
    pub alert: Alert,
    /// Every alert that led to it, and its newest episode.
    #[serde(skip)]
    pub alerts: HashMap<AlertKey, Seen>,
    /// How many of the alerts fire.
    pub firing: usize,
    /// When the opening alert's delivery was committed.
    pub accepted_at: Timestamp,
    /// When it opened.
    pub opened_at: Timestamp,
    /// Where it stands.
    pub phase: Phase,
    /// How many runs were started.
    pub runs: u32,
    /// How many runs the end of the daemon cut off.
    pub interruptions: u32,
    /// How often a firing notification was repeated.
    pub repeats: u32,
    /// When the last effect began; none when nothing outside was touched.
    pub acted_at: Option<Timestamp>,
    /// When the last run ended; what the cooldown counts from.
    pub last_run_at: Option<Timestamp>,
}

/// The events given to [`Incident::fold`] are not those of one incident.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// No event at all.
    #[error("there are no events")]
    Empty,
    /// The first one does not open it.
    #[error("the first event is `{0}` and not `opened`")]
    NotOpened(&'static str),
}

impl Incident {
    /// The incident that an `Opened` event begins, and what to do first.
    pub fn open(event: &Event) -> Result<(Self, Vec<Command>), FoldError> {
        let EventBody::Opened {
            plan,
            target,
            alert,
            accepted_at,
        } = &event.body
        else {
            return Err(FoldError::NotOpened(event.body.kind()));
        };
        let incident = Self {
            id: event.incident,
            plan: (**plan).clone(),
            target: target.clone(),
            alert: (**alert).clone(),
            alerts: HashMap::from([(
                AlertKey::from(&alert.episode()),
                Seen {
                    starts_at: alert.starts_at,
                    resolved_at: (alert.status == AlertStatus::Resolved).then_some(event.at),
                },
            )]),
            firing: usize::from(alert.status == AlertStatus::Firing),
            accepted_at: *accepted_at,
            opened_at: event.at,
            phase: Phase::Pending,
            runs: 0,
            interruptions: 0,
            repeats: 0,
            acted_at: None,
            last_run_at: None,
        };
        let commands = incident.resume();
        Ok((incident, commands))
    }

    /// The state after `events`, the first of which opens the incident.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Self, FoldError> {
        let mut events = events.into_iter();
        let (mut incident, _) = Self::open(events.next().ok_or(FoldError::Empty)?)?;
        for event in events {
            incident.apply(event);
        }
        Ok(incident)
    }

    /// Takes in an event and says what to do now. An event that does not fit the
    /// state changes nothing: late answers of a run that was given up are such.
    pub fn apply(&mut self, event: &Event) -> Vec<Command> {
        let at = event.at;
        match (&event.body, self.phase.clone()) {
            // An end is an end: what the alert does afterwards is for the next incident.
            (_, Phase::Ended { .. }) => Vec::new(),
            (EventBody::EffectBegan { .. }, _) => {
                self.acted_at = Some(at);
                Vec::new()
            }
            (
                EventBody::AlertSeen {
                    episode,
                    status,
                    repeat,
                },
                phase,
            ) => self.alert_seen(episode, *status, *repeat, &phase, at),
            (EventBody::Refused { reason }, Phase::Pending) => {
                self.end(End::Escalated, reason.clone(), at)
            }
            (EventBody::GuardHeld { guard, until, .. }, Phase::Pending | Phase::Held { .. }) => {
                self.enter(Phase::Held {
                    guard: *guard,
                    until: *until,
                })
            }
            (EventBody::GuardsPassed, Phase::Pending | Phase::Held { .. }) => self.start(1, 1, at),
            (EventBody::RunStarted { run, .. }, Phase::Starting { step, attempt }) => {
                self.runs = self.runs.max(run.number);
                self.enter(Phase::Running {
                    run: *run,
                    step,
                    attempt,
                })
            }
            (
                EventBody::RunEnded { run, result },
                Phase::Running {
                    run: current,
                    step,
                    attempt,
                },
            ) if *run == current => {
                self.last_run_at = Some(at);
                self.run_ended(result, step, attempt, at)
            }
            (
                EventBody::RunInterrupted { run },
                Phase::Running {
                    run: current,
                    step,
                    attempt,
                },
            ) if *run == current => {
                self.last_run_at = Some(at);
                self.interruptions += 1;
                self.run_interrupted(step, attempt, at)
            }
            (EventBody::VerificationPassed { detail }, Phase::Verifying { .. }) => {
                self.end(End::Healed, detail.clone(), at)
            }
            (EventBody::VerificationFailed { detail }, Phase::Verifying { step, attempt, .. }) => {
                self.next_attempt(step, attempt, &format!("not verified: {detail}"), at)
            }
            (EventBody::TimerFired, Phase::Held { .. }) => vec![Command::AskGuards],
            (
                EventBody::TimerFired,
                Phase::BackingOff {
                    step,
                    attempt,
                    until,
                },
            ) if at >= until => self.start(step, attempt, at),
            _ => Vec::new(),
        }
    }

    /// What is outstanding in this state. A `Running` incident has nothing
    /// outstanding as long as its run lives; after a restart of the daemon apply
    /// `RunInterrupted` first.
    #[must_use]
    pub fn resume(&self) -> Vec<Command> {
        match &self.phase {
            Phase::Pending => vec![Command::AskGuards],
            Phase::Held { until, .. } => until.iter().copied().map(Command::WakeAt).collect(),
            Phase::Starting { step, attempt } => vec![Command::StartRun {
                run: RunId {
                    incident: self.id,
                    number: self.runs + 1,
                },
                step: *step,
                attempt: *attempt,
            }],
            Phase::Running { .. } => Vec::new(),
            Phase::Verifying { deadline, .. } => vec![Command::Verify {
                deadline: *deadline,
            }],
            Phase::BackingOff { until, .. } => vec![Command::WakeAt(*until)],
            Phase::Ended { .. } => vec![Command::Release],
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// Whether it has passed the guards and is not over: it alone may act on its
    /// target.
    #[must_use]
    pub fn holds_target(&self) -> bool {
        matches!(
            self.phase,
            Phase::Starting { .. }
                | Phase::Running { .. }
                | Phase::Verifying { .. }
                | Phase::BackingOff { .. }
        )
    }

    /// The step with this number, counted from 1.
    #[must_use]
    pub fn step(&self, number: u32) -> Option<&PlannedStep> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.plan.steps.get(index)
    }

    /// Whether every alert that led to it has resolved.
    #[must_use]
    pub fn resolved(&self) -> bool {
        self.firing == 0
    }

    /// Whether it knows this episode to be in this status.
    #[must_use]
    pub fn knows(&self, episode: &Episode, status: AlertStatus) -> bool {
        self.alerts
            .get(&AlertKey::from(episode))
            .is_some_and(|seen| seen.starts_at == episode.starts_at && seen.status() == status)
    }

    fn enter(&mut self, phase: Phase) -> Vec<Command> {
        self.phase = phase;
        self.resume()
    }

    fn end(&mut self, end: End, reason: String, at: Timestamp) -> Vec<Command> {
        self.enter(Phase::Ended { end, reason, at })
    }

    /// Ends an incident whose alerts have all resolved: `healed` if something had been
    /// done about it, `cleared` if not.
    fn end_resolved(&mut self, at: Timestamp) -> Vec<Command> {
        if self.acted_at.is_some() {
            self.end(End::Healed, "the alert resolved".to_owned(), at)
        } else {
            let reason = "the alert resolved before anything was done".to_owned();
            self.end(End::Cleared, reason, at)
        }
    }

    fn alert_seen(
        &mut self,
        episode: &Episode,
        status: AlertStatus,
        repeat: bool,
        phase: &Phase,
        at: Timestamp,
    ) -> Vec<Command> {
        let key = AlertKey::from(episode);
        if let Some(known) = self.alerts.get(&key) {
            // A notification of an older episode that was overtaken says nothing about
            // the newer one.
            let overtaken = known.starts_at > episode.starts_at;
            // Nor does a firing one that was overtaken by the end of its own episode.
            let late = status == AlertStatus::Firing
                && known.starts_at == episode.starts_at
                && known.resolved_at.is_some_and(|end| is_late(end, at));
            if overtaken || late {
                return Vec::new();
            }
            self.firing -= usize::from(known.resolved_at.is_none());
        }
        if repeat && status == AlertStatus::Firing {
            self.repeats += 1;
        }
        let resolved_at = (status == AlertStatus::Resolved).then_some(at);
        self.firing += usize::from(resolved_at.is_none());
        let seen = Seen {
            starts_at: episode.starts_at,
            resolved_at,
        };
        self.alerts.insert(key, seen);
        if !self.resolved() {
            return Vec::new();
        }
        match phase {
            Phase::Pending
            | Phase::Held { .. }
            | Phase::Starting { .. }
            | Phase::BackingOff { .. } => self.end_resolved(at),
            Phase::Verifying { .. } if self.plan.verify.check == VerifyCheck::AlertResolved => {
                self.end(End::Healed, "the alert resolved".to_owned(), at)
            }
            // A run is never cut off in the middle, and what `verify` asks for is
            // stronger than the alert.
            Phase::Running { .. } | Phase::Verifying { .. } | Phase::Ended { .. } => Vec::new(),
        }
    }

    fn run_ended(
        &mut self,
        result: &RunResult,
        step: u32,
        attempt: u32,
        at: Timestamp,
    ) -> Vec<Command> {
        match result {
            RunResult::Changed { .. } | RunResult::Unchanged { .. } => {
                let verify = &self.plan.verify;
                if verify.check == VerifyCheck::AlertResolved && self.resolved() {
                    return self.end_resolved(at);
                }
                let deadline = later(at, verify.within);
                self.enter(Phase::Verifying {
                    step,
                    attempt,
                    deadline,
                })
            }
            RunResult::Failed { class, message } => match class {
                FailureClass::Retryable => self.next_attempt(step, attempt, message, at),
                FailureClass::Permanent => self.next_step(step, message, at),
                FailureClass::Denied => self.end(End::Escalated, message.clone(), at),
            },
            RunResult::Stopped { message, .. } => self.end(End::Escalated, message.clone(), at),
        }
    }

    fn run_interrupted(&mut self, step: u32, attempt: u32, at: Timestamp) -> Vec<Command> {
        let rerun = self
            .step(step)
            .is_some_and(|step| step.on_interrupt == OnInterrupt::Rerun);
        if self.interruptions >= MAX_INTERRUPTIONS {
            let reason = format!("interrupted {} times", self.interruptions);
            self.end(End::Escalated, reason, at)
        } else if rerun {
            self.start(step, attempt, at)
        } else {
            let reason = "a run was interrupted, and the policy says `on_interrupt: escalate`";
            self.end(End::Escalated, reason.to_owned(), at)
        }
    }

    fn next_attempt(
        &mut self,
        step: u32,
        attempt: u32,
        reason: &str,
        at: Timestamp,
    ) -> Vec<Command> {
        if self.resolved() {
            return self.end_resolved(at);
        }
        match self.step(step) {
            Some(planned) if attempt < planned.attempts => {
                let until = later(at, planned.backoff);
                self.enter(Phase::BackingOff {
                    step,
                    attempt: attempt + 1,
                    until,
                })
            }
            _ => self.next_step(step, reason, at),
        }
    }

    fn next_step(&mut self, step: u32, reason: &str, at: Timestamp) -> Vec<Command> {
        if self.resolved() {
            self.end_resolved(at)
        } else if self.step(step + 1).is_some() {
            self.start(step + 1, 1, at)
        } else {
            let reason = format!("the ladder is used up; last: {reason}");
            self.end(End::Escalated, reason, at)
        }
    }

    /// Every run begins here: a resolved alert never starts one.
    fn start(&mut self, step: u32, attempt: u32, at: Timestamp) -> Vec<Command> {
        if self.resolved() {
            self.end_resolved(at)
        } else {
            self.enter(Phase::Starting { step, attempt })
        }
    }
}

/// `at` and `duration` after it, at most the last moment that can be written.
#[must_use]
pub fn later(at: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| at.checked_add(duration).ok())
        .unwrap_or(Timestamp::MAX)
}
