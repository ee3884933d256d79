//! The incident's life: a pure state machine.
//!
//! [`Incident::apply`] takes an event and answers with commands; [`Incident::resume`]
//! says which commands are outstanding in a state, so that a daemon that comes back
//! after a crash goes on from the fold of the journal. Time comes in with the event.
//!
//! ```text
//! pending ◄──► held
//!    │  ▲
//!    ▼  └──────────────── backing off ◄──┐
//! starting ─► running ─► verifying ──────┤
//!    ▲           │                       └─► (escalating ─►) ended
//!    └─ awaiting approval   watching (shadow)
//! ```
//!
//! The guards are asked before every run (`pending`). In the modes `approve` and
//! `shadow` the first run of a rung is dry; what it planned waits for approval, or is
//! all that a shadow does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::alert::{Alert, AlertStatus, Episode, Fingerprint};
use crate::duration::HumanDuration;
use crate::engine::Untouched;
use crate::event::{
    Event, EventBody, FailureClass, Guard, Notice, PlannedEffect, RunMode, RunResult, Silence,
    StopCause, millis,
};
use crate::grant::Grants;
use crate::guard::settings::Guards;
use crate::id::{Digest, IncidentId, PluginName, PluginRef, PolicyName, RunId, Target};
use crate::mutation::{Mutation, active};
use crate::policy::{DEFAULT_TTL, Mode};
use crate::recording::plan_digest;

/// How often a run of one incident may be cut off by the end of the daemon before a
/// person has to look: a plugin that takes the daemon down must not do so for ever.
pub const MAX_INTERRUPTIONS: u32 = 3;

/// How long an incident is held back before a person is told, when the policy does not say.
pub(crate) const DEFAULT_HELD_AFTER: Duration = Duration::from_mins(10);

/// A policy as an incident carries it out: everything rendered for its alert. A later change
/// of the policy takes the place of it only while nothing has been done.
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
    /// After how long nobody is waited for any more: a person has to look then.
    #[serde(with = "millis", rename = "expires_ms")]
    pub expires: Duration,
    /// How many people have to approve; 1 or 2.
    pub people: u32,
    /// Whether whom `escalate` names is told that a plan waits.
    #[serde(default = "yes")]
    pub tell: bool,
}

fn yes() -> bool {
    true
}

impl Default for Approval {
    fn default() -> Self {
        Self {
            expires: Duration::from_mins(30),
            people: 1,
            tell: true,
        }
    }
}

/// Which plugin tells a person, rendered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedEscalation {
    /// The plugin.
    pub plugin: PluginRef,
    /// Its params, rendered.
    pub params: serde_json::Map<String, serde_json::Value>,
    /// How long a run may take.
    #[serde(with = "millis", rename = "timeout_ms")]
    pub timeout: Duration,
    /// How many runs it has; at least 1.
    pub attempts: u32,
    /// How long its incident may be held back before a person is told; for ever when none.
    #[serde(
        default,
        with = "millis::optional",
        rename = "held_after_ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub held_after: Option<Duration>,
    /// What of the params is missing because its templates do not fit the alert. A person
    /// is told with what is left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
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
    pub plugin: PluginRef,
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
    /// The time within which it has to begin to hold.
    #[serde(with = "millis", rename = "within_ms")]
    pub within: Duration,
    /// The time between two looks.
    #[serde(with = "millis", rename = "every_ms")]
    pub every: Duration,
    /// For how long it has to hold then. Plans of journals that know nothing of it have none,
    /// and are folded as they were: one look decided, and the alert's own word as well.
    #[serde(
        with = "millis::optional",
        rename = "steady_ms",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub steady: Option<Duration>,
}

impl PlannedVerify {
    /// For how long it has to hold.
    #[must_use]
    pub fn steady(&self) -> Duration {
        self.steady.unwrap_or_default()
    }

    /// Whether the check alone says that the target is healed, and only of a target that
    /// something was done about.
    #[must_use]
    pub fn decides(&self) -> bool {
        self.steady.is_some()
    }
}

/// What a verification looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "check", rename_all = "kebab-case")]
pub enum VerifyCheck {
    /// A GET of `url` is answered with 2xx.
    Http {
        /// The URL.
        url: String,
        /// Whether the host is one that the alert names, and the policy does not: such a
        /// name must not lead to this machine.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        foreign: bool,
    },
    /// The target's container runs and its health check passes.
    DockerHealthy,
    /// The target's container runs.
    DockerRunning,
    /// Every alert of the incident has resolved.
    AlertResolved,
}

/// Where an incident is in its ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// The step, counted from 1; 0 is the policy's `escalate`.
    pub step: u32,
    /// The attempt at the step, counted from 1.
    pub attempt: u32,
}

impl Rung {
    /// The first attempt of `step`.
    #[must_use]
    pub fn first(step: u32) -> Self {
        Self { step, attempt: 1 }
    }
}

/// What a guard said, and what it holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Which guard.
    pub guard: Guard,
    /// When it would let go, if it knows.
    pub until: Option<Timestamp>,
    /// What is held back.
    #[serde(flatten)]
    pub rung: Rung,
}

/// Where an incident stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// The guards are to be asked.
    Pending(Rung),
    /// A guard holds it back.
    Held(Hold),
    /// A run is to be started.
    Starting {
        /// What for.
        #[serde(flatten)]
        rung: Rung,
        /// What the gate does with its effects.
        mode: RunMode,
    },
    /// A plugin runs.
    Running {
        /// The run.
        run: RunId,
        /// What for.
        #[serde(flatten)]
        rung: Rung,
        /// What the gate does with its effects.
        mode: RunMode,
    },
    /// A person has to approve what a dry run planned.
    AwaitingApproval {
        /// What the plan is for.
        #[serde(flatten)]
        rung: Rung,
        /// Identifies the plan.
        plan: Digest,
        /// Since when.
        since: Timestamp,
        /// When it is not waited for any longer.
        until: Timestamp,
        /// Who approved it so far.
        approved_by: Vec<String>,
    },
    /// A run said that it is done; `verify` decides.
    Verifying {
        /// After what.
        #[serde(flatten)]
        rung: Rung,
        /// When it must hold.
        deadline: Timestamp,
    },
    /// Waiting for the next attempt, or for a step's time to come.
    BackingOff {
        /// What follows.
        #[serde(flatten)]
        rung: Rung,
        /// When.
        until: Timestamp,
    },
    /// A shadow's plan is made; what becomes of the alert by itself is looked at.
    Watching,
    /// A person is being told.
    Escalating {
        /// What of.
        reason: String,
        /// The attempt, counted from 1.
        attempt: u32,
        /// The run, once it is under way.
        run: Option<RunId>,
        /// What the incident goes on with; none when it ends.
        back: Option<Hold>,
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
    pub const WORDS: [&str; 14] = [
        "open",
        "held",
        "starting",
        "running",
        "awaiting-approval",
        "verifying",
        "backing-off",
        "watching",
        "escalating",
        "healed",
        "cleared",
        "escalated",
        "suppressed",
        "cancelled",
    ];

    /// The phase as one word; an ended incident's is its end.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending(_) => "open",
            Self::Held(_) => "held",
            Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::AwaitingApproval { .. } => "awaiting-approval",
            Self::Verifying { .. } => "verifying",
            Self::BackingOff { .. } => "backing-off",
            Self::Watching => "watching",
            Self::Escalating { .. } => "escalating",
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

/// What the engine has to do about an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Ask the guards, and apply `GuardHeld`, `Suppressed` or `GuardsPassed`.
    AskGuards,
    /// Start a run, and apply `RunStarted`, then `RunEnded`.
    StartRun {
        /// The run's number.
        run: RunId,
        /// What for.
        rung: Rung,
        /// What the gate does with its effects.
        mode: RunMode,
    },
    /// Let a run go on from its record, and apply `RunResumed`, then `RunEnded`; or
    /// `RunInterrupted` when there is no going on.
    ResumeRun {
        /// The run.
        run: RunId,
    },
    /// End a run between two effects; its end comes as `RunEnded`.
    StopRun {
        /// The run.
        run: RunId,
        /// Why.
        cause: StopCause,
    },
    /// Look, and apply `VerificationPassed` or `VerificationFailed`. At least one look
    /// is taken, even past the deadline: the target may have healed meanwhile.
    Verify {
        /// When it must hold.
        deadline: Timestamp,
    },
    /// Look at the incident again at this time ([`Incident::due`]).
    WakeAt(Timestamp),
    /// Tell a person what [`Incident::telling`] says: start a run of step 0, and apply
    /// `RunStarted`, then `RunEnded`.
    Tell,
    /// Hold it against the policy as it is now, and apply `PolicyChanged` or `PolicyGone` when
    /// it is another one.
    AskPolicy,
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
    at < later(end, LATE) && !active(Mutation::LateBelieved)
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
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own that an event brought about"
)]
pub struct Incident {
    /// Its number.
    pub id: IncidentId,
    /// The policy as it was when the incident opened, or as it was changed to before anything
    /// was done.
    pub plan: Arc<Plan>,
    /// What is acted on.
    pub target: Target,
    /// What guards count and lock, where that is another text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thing: Option<Target>,
    /// The alert that opened it.
    pub alert: Arc<Alert>,
    /// Every alert that led to it, and its newest episode.
    #[serde(skip)]
    pub alerts: HashMap<AlertKey, Seen>,
    /// How many of the alerts fire.
    pub firing: usize,
    /// When the opening alert's delivery was committed.
    pub accepted_at: Timestamp,
    /// When it opened.
    pub opened_at: Timestamp,
    /// When one of its alerts was last said to fire; what `ttl` counts from.
    pub last_word_at: Timestamp,
    /// Where it stands.
    pub phase: Phase,
    /// How many runs were started.
    pub runs: u32,
    /// How many runs the end of the daemon cut off.
    pub interruptions: u32,
    /// How often a firing notification was repeated.
    pub repeats: u32,
    /// When the last effect of its steps began; none when nothing was done about the target.
    pub acted_at: Option<Timestamp>,
    /// When the last run ended; what the cooldown counts from.
    pub last_run_at: Option<Timestamp>,
    /// Whether a run ended under the policy as it is.
    pub begun: bool,
    /// What the last dry run planned.
    pub planned: Vec<PlannedEffect>,
    /// The plan that may be carried out, and what for.
    pub approved: Option<(Rung, Digest)>,
    /// The run that was stopped between two effects and is to go on from its record.
    pub suspended: Option<Suspended>,
    /// Whether the traces that its first effect destroys were taken.
    pub evidence: bool,
    /// Whether a run that had acted was stopped because the alert resolved.
    pub cut_short: bool,
    /// Whether a person was told that the breaker is open, or could not be.
    pub told: bool,
    /// Since when a guard holds it back, and what it said last.
    pub held: Option<(Timestamp, String)>,
    /// Whether a person was told that it is held, or could not be.
    pub told_held: bool,
    /// What a person is being told, beside what it does.
    pub telling: Option<Telling>,
    /// Whether somebody was told of it, and not yet of its end.
    pub heard: bool,
    /// What is to be told after that.
    pub next_notice: Option<(Notice, String)>,
    /// Whether its alert fired when it was escalated, so that the alert's end is one.
    pub looks_for_end: bool,
    /// Whether it ended because its policy did not want to do anything any more.
    pub gone: bool,
    /// Since when there is something that nobody could be told, why, and in words.
    pub untold: Option<(Timestamp, Silence, String)>,
    /// Who cancelled it while a run was under way, and why.
    pub cancelled: Option<String>,
}

/// What a person is being told beside what an incident does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Telling {
    /// What of.
    pub notice: Notice,
    /// In words.
    pub reason: String,
    /// The attempt, counted from 1.
    pub attempt: u32,
    /// The run, once it is under way.
    pub run: Option<RunId>,
    /// How often the end of the daemon cut it off.
    pub interruptions: u32,
}

/// A run that is to go on from its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Suspended {
    /// The run.
    pub run: RunId,
    /// What for.
    pub rung: Rung,
    /// What the gate does with its effects.
    pub mode: RunMode,
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

/// How long the news of a recovery may take from a target to its alert, and from there to
/// here.
const NEWS: Duration = Duration::from_mins(5);

/// How long a run that a limit on effects stopped waits before it goes on.
pub const RATE_RETRY: Duration = Duration::from_secs(10);

impl Incident {
    /// The incident that an `Opened` event begins, and what to do first.
    pub fn open(event: &Event) -> Result<(Self, Vec<Command>), FoldError> {
        let EventBody::Opened {
            plan,
            target,
            thing,
            alert,
            accepted_at,
        } = &event.body
        else {
            return Err(FoldError::NotOpened(event.body.kind()));
        };
        let mut incident = Self {
            id: event.incident,
            plan: plan.clone(),
            target: target.clone(),
            thing: thing.clone().or_else(|| {
                // An older journal does not say.
                let thing = target.thing();
                (thing != *target).then_some(thing)
            }),
            alert: alert.clone(),
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
            last_word_at: event.at,
            phase: Phase::Pending(Rung::first(1)),
            runs: 0,
            interruptions: 0,
            repeats: 0,
            acted_at: None,
            last_run_at: None,
            begun: false,
            planned: Vec::new(),
            approved: None,
            suspended: None,
            evidence: false,
            cut_short: false,
            told: false,
            held: None,
            told_held: false,
            telling: None,
            heard: false,
            next_notice: None,
            looks_for_end: true,
            gone: false,
            untold: None,
            cancelled: None,
        };
        let commands = match incident.step(1) {
            // The first step may have to wait for its time.
            Some(step) if !step.when.after.is_zero() => incident.start(Rung::first(1), event.at),
            _ => incident.resume(),
        };
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
        if let Some(commands) = self.told_beside(&event.body, at) {
            return commands;
        }
        // An end is an end: what the alert does afterwards is for the next incident, and for
        // who was told of this one.
        if self.ended() {
            return self.afterwards(&event.body, at);
        }
        match &event.body {
            EventBody::AlertSeen {
                episode,
                status,
                repeat,
            } => self.alert_seen(episode, *status, *repeat, at),
            EventBody::EffectBegan { run, .. } => {
                // Telling a person does nothing about the target.
                let telling = self.telling.as_ref().and_then(|telling| telling.run);
                if !matches!(self.phase, Phase::Escalating { .. }) && telling != Some(*run) {
                    self.acted_at = Some(at);
                }
                Vec::new()
            }
            EventBody::EvidenceCaptured { .. } => {
                self.evidence = true;
                Vec::new()
            }
            EventBody::Planned { effect, .. } => {
                self.planned.push(effect.clone());
                Vec::new()
            }
            EventBody::Refused { reason } => match self.phase {
                // Its first step may have to wait for its time.
                Phase::Pending(_) | Phase::BackingOff { .. } => self.escalate(reason.clone(), at),
                _ => Vec::new(),
            },
            EventBody::GuardHeld { .. }
            | EventBody::GuardsPassed
            | EventBody::Suppressed { .. } => self.guarded(&event.body, at),
            EventBody::RunStarted { .. }
            | EventBody::RunResumed { .. }
            | EventBody::RunEnded { .. }
            | EventBody::RunInterrupted { .. } => self.ran(&event.body, at),
            EventBody::Approved { .. }
            | EventBody::ApprovalDenied { .. }
            | EventBody::ApprovalExpired { .. } => self.asked(&event.body, at),
            EventBody::VerificationPassed { detail } => match self.phase {
                Phase::Verifying { .. } => self.end(End::Healed, detail.clone(), at),
                _ => Vec::new(),
            },
            EventBody::VerificationFailed { detail, unknown } => match self.phase {
                Phase::Verifying { .. } if *unknown => self.undecided(detail, at),
                Phase::Verifying { rung, .. } => self.unverified(rung, detail, at),
                _ => Vec::new(),
            },
            EventBody::TimerFired => match self.phase {
                Phase::Held { .. } => vec![Command::AskGuards],
                Phase::BackingOff { rung, until } if at >= until => self.start(rung, at),
                _ => Vec::new(),
            },
            EventBody::Cancelled { by, reason } => {
                let reason = format!("cancelled by {by}: {reason}");
                self.cancel(reason, at)
            }
            EventBody::Expired => self.expired(at),
            EventBody::PolicyChanged { plan } if self.waits_to_begin() => {
                self.under(plan.clone(), at)
            }
            EventBody::PolicyGone { reason } if self.waits_to_begin() => {
                self.gone = true;
                self.end(End::Cancelled, reason.clone(), at)
            }
            EventBody::HeldLong { reason } => self.waited_long(reason, at),
            EventBody::PolicyChanged { .. }
            | EventBody::PolicyGone { .. }
            | EventBody::Again { .. }
            | EventBody::Mended { .. }
            | EventBody::EndForgone { .. }
            | EventBody::Opened { .. }
            | EventBody::RunSeeded { .. }
            | EventBody::ClockRead { .. }
            | EventBody::Observed { .. }
            | EventBody::EffectEnded { .. }
            | EventBody::Denied { .. }
            | EventBody::Logged { .. }
            | EventBody::Untold { .. }
            | EventBody::Remembered { .. } => Vec::new(),
        }
    }

    /// What is outstanding in this state. A run that is under way has nothing
    /// outstanding as long as it lives; after a restart of the daemon see
    /// [`Self::cut_off`].
    #[must_use]
    pub fn resume(&self) -> Vec<Command> {
        match &self.phase {
            Phase::Pending(_) => vec![Command::AskGuards],
            Phase::Starting { rung, mode } => match self.suspended {
                Some(suspended) if suspended.rung == *rung => {
                    vec![Command::ResumeRun { run: suspended.run }]
                }
                _ => vec![Command::StartRun {
                    run: self.next_run(),
                    rung: *rung,
                    mode: *mode,
                }],
            },
            Phase::Escalating {
                attempt, run: None, ..
            } => vec![Command::StartRun {
                run: self.next_run(),
                rung: Rung {
                    step: 0,
                    attempt: *attempt,
                },
                mode: RunMode::Live,
            }],
            Phase::Running { .. } | Phase::Escalating { .. } => Vec::new(),
            Phase::Verifying { deadline, .. } => vec![Command::Verify {
                deadline: *deadline,
            }],
            Phase::Held { .. }
            | Phase::AwaitingApproval { .. }
            | Phase::BackingOff { .. }
            | Phase::Watching => self.due().into_iter().map(Command::WakeAt).collect(),
            Phase::Ended { .. } => vec![Command::Release],
        }
    }

    /// Whether nothing has been done yet, and it waits: so a change of its policy counts.
    #[must_use]
    pub fn waits_to_begin(&self) -> bool {
        self.acted_at.is_none()
            && matches!(
                self.phase,
                Phase::Pending(_)
                    | Phase::Held(_)
                    | Phase::BackingOff { .. }
                    | Phase::AwaitingApproval { .. }
                    | Phase::Watching
            )
    }

    /// Whether somebody who was told of it still has to be told of its end.
    #[must_use]
    pub fn owes_end(&self) -> bool {
        self.ended() && (self.heard || self.telling.is_some())
    }

    /// Whether anybody is told of it.
    fn tells(&self) -> bool {
        self.plan.escalate.is_some() && self.plan.mode != Mode::Shadow
    }

    /// What guards count and lock.
    #[must_use]
    pub fn thing(&self) -> &Target {
        self.thing.as_ref().unwrap_or(&self.target)
    }

    /// The run that the end of the daemon cut off, if one was under way.
    #[must_use]
    pub fn cut_off(&self) -> Option<RunId> {
        match self.phase {
            Phase::Running { run, .. } | Phase::Escalating { run: Some(run), .. } => Some(run),
            _ => None,
        }
    }

    /// When the incident has to be looked at again if nothing happens.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        let expires = later(self.last_word_at, self.plan.ttl);
        match &self.phase {
            Phase::Held(hold) => {
                let told = self.told_at();
                [hold.until, told, Some(expires)]
                    .into_iter()
                    .flatten()
                    .min()
            }
            Phase::BackingOff { until, .. } => Some((*until).min(expires)),
            Phase::AwaitingApproval { until, .. } => {
                self.told_at().into_iter().chain([*until]).min()
            }
            Phase::Watching => Some(expires),
            Phase::Verifying { deadline, .. } => Some(*deadline),
            Phase::Pending(_)
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Escalating { .. }
            | Phase::Ended { .. } => None,
        }
    }

    /// When a person has to hear that it waits: that it is held back for long, or that a plan
    /// waits of which nobody could be told at once.
    #[must_use]
    pub fn told_at(&self) -> Option<Timestamp> {
        let unnamed = self.plan.escalate.is_none();
        if self.plan.mode == Mode::Shadow
            || self.resolved()
            || (unnamed && active(Mutation::UnnamedWaitsUnseen))
        {
            return None;
        }
        match (&self.phase, &self.plan.escalate) {
            (Phase::Held(_), escalate) if !self.told_held => {
                let (since, _) = self.held.as_ref()?;
                let after = match escalate {
                    Some(escalate) => escalate.held_after?,
                    None => DEFAULT_HELD_AFTER,
                };
                Some(later(*since, after))
            }
            (Phase::AwaitingApproval { since, .. }, None) if self.plan.approval.tell => {
                let silent = self.untold.as_ref().map(|(at, ..)| *at);
                let after = later(*since, DEFAULT_HELD_AFTER);
                silent.is_none_or(|at| at < *since).then_some(after)
            }
            _ => None,
        }
    }

    /// Whether the `ttl` has passed while it waited.
    #[must_use]
    pub fn outlived(&self, now: Timestamp) -> bool {
        matches!(
            self.phase,
            Phase::Held { .. } | Phase::BackingOff { .. } | Phase::Watching
        ) && later(self.last_word_at, self.plan.ttl) <= now
            && !active(Mutation::LivesForEver)
    }

    /// Whether it is over.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// Whether it alone may act on its target: it passed the guards once and is not
    /// over. A shadow never locks, because it never acts.
    #[must_use]
    pub fn holds_target(&self) -> bool {
        if self.plan.mode == Mode::Shadow {
            return false;
        }
        match self.phase {
            Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::AwaitingApproval { .. }
            | Phase::Verifying { .. } => true,
            // Between two rungs. A run that only told a person has no part in this.
            Phase::Pending(_) | Phase::Held { .. } | Phase::BackingOff { .. } => {
                self.begun && !active(Mutation::LockGivenUpBetweenRungs)
            }
            Phase::Escalating { back, .. } => back.is_some() && self.begun,
            Phase::Watching | Phase::Ended { .. } => false,
        }
    }

    /// The plugin whose place among the runs it takes up, if it takes one up.
    #[must_use]
    pub fn occupies(&self) -> Option<&PluginName> {
        let plugin = match &self.phase {
            Phase::Starting { rung, .. } | Phase::Running { rung, .. } => self.plugin(rung.step),
            Phase::Escalating { run: Some(_), .. } => self.plugin(0),
            _ => None,
        };
        plugin.map(|plugin| &plugin.name)
    }

    /// What is asked for when the guards are asked, or were asked last.
    #[must_use]
    pub fn rung(&self) -> Option<Rung> {
        match &self.phase {
            Phase::Pending(rung)
            | Phase::Held(Hold { rung, .. })
            | Phase::Starting { rung, .. }
            | Phase::Running { rung, .. }
            | Phase::AwaitingApproval { rung, .. }
            | Phase::Verifying { rung, .. }
            | Phase::BackingOff { rung, .. } => Some(*rung),
            Phase::Escalating { attempt, .. } => Some(Rung {
                step: 0,
                attempt: *attempt,
            }),
            Phase::Watching | Phase::Ended { .. } => None,
        }
    }

    /// What its verification by this deadline has to know where nothing was done about the
    /// target.
    #[must_use]
    pub(crate) fn untouched(&self, deadline: Timestamp) -> Option<Untouched> {
        let verify = &self.plan.verify;
        if self.acted_at.is_some() || !verify.decides() {
            return None;
        }
        let heard = SignedDuration::try_from(NEWS).ok();
        let heard = heard.and_then(|news| self.opened_at.checked_sub(news).ok());
        let until = if verify.check == VerifyCheck::DockerRunning {
            // To run says little.
            deadline
        } else {
            // What could have said no has said yes: the alert may be late in hearing of it.
            let more = NEWS.saturating_sub(verify.within);
            later(deadline, more)
        };
        Some(Untouched {
            since: self
                .alert
                .starts_at
                .max(heard.unwrap_or(self.alert.starts_at)),
            until,
        })
    }

    /// The step with this number, counted from 1.
    #[must_use]
    pub fn step(&self, number: u32) -> Option<&PlannedStep> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.plan.steps.get(index)
    }

    /// The plugin of a step; of `escalate` for 0.
    #[must_use]
    pub fn plugin(&self, step: u32) -> Option<&PluginRef> {
        if step == 0 {
            self.plan.escalate.as_ref().map(|escalate| &escalate.plugin)
        } else {
            self.step(step).map(|step| &step.plugin)
        }
    }

    /// Whether every alert that led to it has resolved.
    #[must_use]
    pub fn resolved(&self) -> bool {
        self.firing == 0
    }

    /// Whether this is the newest episode that it has seen of its alert.
    #[must_use]
    pub fn saw(&self, episode: &Episode) -> bool {
        self.alerts
            .get(&AlertKey::from(episode))
            .is_some_and(|seen| seen.starts_at == episode.starts_at)
    }

    /// Whether it knows this episode to be in this status.
    #[must_use]
    pub fn knows(&self, episode: &Episode, status: AlertStatus) -> bool {
        self.alerts
            .get(&AlertKey::from(episode))
            .is_some_and(|seen| seen.starts_at == episode.starts_at && seen.status() == status)
    }

    /// Who asked for it, if a person did: the alert's annotation `requested_by`. They may
    /// not approve it.
    #[must_use]
    pub fn requested_by(&self) -> Option<&str> {
        self.alert
            .annotations
            .get("requested_by")
            .map(String::as_str)
    }

    /// The mode of the next run at `rung`.
    #[must_use]
    pub fn run_mode(&self, rung: Rung) -> RunMode {
        match self.plan.mode {
            Mode::Auto => RunMode::Live,
            Mode::Approve
                if self.approved.is_some_and(|(approved, _)| {
                    approved == rung || active(Mutation::ApprovalForEveryRung)
                }) =>
            {
                RunMode::Apply
            }
            Mode::Shadow if rung.attempt > 1 && active(Mutation::ShadowActs) => RunMode::Live,
            Mode::Approve | Mode::Shadow | Mode::Off => RunMode::Dry,
        }
    }

    fn next_run(&self) -> RunId {
        RunId {
            incident: self.id,
            number: self.runs + 1,
        }
    }

    fn enter(&mut self, phase: Phase) -> Vec<Command> {
        self.phase = phase;
        self.resume()
    }

    fn end(&mut self, end: End, reason: String, at: Timestamp) -> Vec<Command> {
        // What was to be told is told of its end, if somebody heard of it, or else of nothing.
        self.drop_unsaid();
        let over = match end {
            End::Healed | End::Cleared => true,
            End::Escalated => self.resolved() && self.looks_for_end,
            // As long as it fires it is not over for who was told of it.
            End::Suppressed | End::Cancelled => self.resolved(),
        };
        let said = format!("{}: {reason}", end.as_str());
        let mut commands = self.enter(Phase::Ended { end, reason, at });
        if over {
            commands.extend(self.tell_end(said));
        }
        commands
    }

    /// Has a person told something beside what it does.
    fn tell(&mut self, notice: Notice, reason: String) -> Vec<Command> {
        // One at a time: what is under way is not news any more when it ends.
        if self
            .telling
            .as_ref()
            .is_some_and(|telling| telling.run.is_some())
        {
            self.next_notice = Some((notice, reason));
            return Vec::new();
        }
        self.telling = Some(Telling {
            notice,
            reason,
            attempt: 1,
            run: None,
            interruptions: 0,
        });
        vec![Command::Tell]
    }

    /// Tells whoever heard of it that it is over.
    fn tell_end(&mut self, reason: String) -> Vec<Command> {
        let being_told = self.telling.is_some();
        if !self.heard && !being_told {
            return Vec::new();
        }
        if self.plan.escalate.is_none() {
            self.heard = false;
            return Vec::new();
        }
        self.tell(Notice::End, reason)
    }

    /// Leaves out what was to be told and is not being told yet.
    fn drop_unsaid(&mut self) {
        self.next_notice = None;
        if self
            .telling
            .as_ref()
            .is_some_and(|telling| telling.run.is_none())
        {
            self.telling = None;
        }
    }

    /// What became of a run that tells a person beside what the incident does; none when the
    /// event is about something else.
    fn told_beside(&mut self, body: &EventBody, at: Timestamp) -> Option<Vec<Command>> {
        let telling = self.telling.as_mut()?;
        let escalates = matches!(self.phase, Phase::Escalating { run: None, .. });
        let result = match body {
            EventBody::RunStarted { run, step: 0, .. } if telling.run.is_none() && !escalates => {
                telling.run = Some(*run);
                self.runs = self.runs.max(run.number);
                return Some(Vec::new());
            }
            EventBody::RunResumed { run } if telling.run == Some(*run) => {
                telling.interruptions += 1;
                return Some(Vec::new());
            }
            EventBody::RunEnded { run, result } if telling.run == Some(*run) => Some(result),
            EventBody::RunInterrupted { run } if telling.run == Some(*run) => None,
            _ => return None,
        };
        let attempts = self
            .plan
            .escalate
            .as_ref()
            .map_or(1, |escalate| escalate.attempts);
        let (again, failure) = match result {
            Some(RunResult::Changed { .. } | RunResult::Unchanged { .. }) => (false, None),
            Some(RunResult::Failed { class, message }) => {
                (*class == FailureClass::Retryable, Some(message.clone()))
            }
            Some(RunResult::Stopped { message, .. }) => (false, Some(message.clone())),
            // An end is told once at most, whatever is told of else rather twice than never.
            None => (
                telling.notice != Notice::End,
                Some("whether anybody was told is not known".to_owned()),
            ),
        };
        let next = self.next_notice.take();
        if again && telling.attempt < attempts && next.is_none() {
            telling.attempt += 1;
            telling.run = None;
            telling.interruptions = 0;
            // Who looks is told of that, and not of what led to it.
            if matches!(self.phase, Phase::Escalating { .. }) {
                self.telling = None;
                return Some(Vec::new());
            }
            return Some(vec![Command::Tell]);
        }
        let notice = telling.notice;
        self.telling = None;
        if let Some(failure) = failure {
            let what = notice.as_str();
            let said = format!("nobody could be told ({what}): {failure}");
            self.untold = Some((at, Silence::Failed, said));
        } else {
            self.heard = true;
        }
        if notice == Notice::End {
            self.heard = false;
        }
        match next {
            // Nobody has heard of what would end.
            Some((Notice::End, _)) if !self.heard => Some(Vec::new()),
            Some((notice, reason)) => Some(self.tell(notice, reason)),
            None => Some(Vec::new()),
        }
    }

    /// What concerns an incident that is over: whether who was told of it is to be told of
    /// its end.
    fn afterwards(&mut self, body: &EventBody, at: Timestamp) -> Vec<Command> {
        if !self.owes_end() {
            return Vec::new();
        }
        match body {
            EventBody::AlertSeen {
                episode,
                status,
                repeat,
            } => {
                let heeded = self.heed(episode, *status, *repeat, at);
                let ending = |telling: &Telling| telling.notice == Notice::End;
                let over = self.resolved() && self.looks_for_end;
                if heeded && over && !self.telling.as_ref().is_some_and(ending) {
                    self.tell_end("the alert resolved".to_owned())
                } else {
                    Vec::new()
                }
            }
            EventBody::Mended { by } => self.tell_end(format!("incident {by} healed it")),
            EventBody::EndForgone { .. } => {
                self.heard = false;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Goes on under another version of its policy, from the beginning.
    fn under(&mut self, plan: Arc<Plan>, at: Timestamp) -> Vec<Command> {
        self.plan = plan;
        self.begun = false;
        self.planned.clear();
        self.approved = None;
        self.suspended = None;
        // A plan that waits no more is nothing to be told of.
        if self
            .telling
            .as_ref()
            .is_some_and(|telling| telling.notice == Notice::Approval)
        {
            self.drop_unsaid();
        }
        self.start(Rung::first(1), at)
    }

    /// A person has to hear that it has waited for long.
    fn waited_long(&mut self, reason: &str, at: Timestamp) -> Vec<Command> {
        if self.told_at().is_none() {
            return Vec::new();
        }
        self.told_held |= matches!(self.phase, Phase::Held(_));
        if let Some(silence) = self.unnamed(at) {
            self.untold = Some(silence);
            return Vec::new();
        }
        self.tell(Notice::Held, reason.to_owned())
    }

    /// Why nobody can be told anything of it, where its policy names nobody.
    fn unnamed(&self, at: Timestamp) -> Option<(Timestamp, Silence, String)> {
        let policy = &self.plan.policy;
        let why = || format!("policy {policy} has no `escalate`, which says whom to tell");
        let unnamed = self.plan.escalate.is_none();
        unnamed.then(|| (at, Silence::Unnamed, why()))
    }

    /// A person has to look; tells one first when the policy says by which plugin. A
    /// shadow tells nobody.
    fn escalate(&mut self, reason: String, at: Timestamp) -> Vec<Command> {
        let policy = &self.plan.policy;
        let silence = if self.plan.mode == Mode::Shadow {
            let why = format!("policy {policy} is a shadow, which tells nobody");
            Some((at, Silence::Shadow, why))
        } else {
            self.unnamed(at)
        };
        if silence.is_some() {
            self.untold = silence;
            return self.end(End::Escalated, reason, at);
        }
        self.drop_unsaid();
        // Of what had resolved before, the end of the alert is no end.
        self.looks_for_end = !self.resolved();
        self.enter(Phase::Escalating {
            reason,
            attempt: 1,
            run: None,
            back: None,
        })
    }

    /// Goes on with an incident whose alerts have all resolved: `cleared` if nothing had been
    /// done about it; else what `verify` asks for decides, once more.
    fn end_resolved(&mut self, at: Timestamp) -> Vec<Command> {
        if self.plan.mode == Mode::Shadow {
            let reason = format!("the alert resolved by itself; {}", self.shadow());
            return self.end(End::Cleared, reason, at);
        }
        let rung = match (&self.phase, self.rung()) {
            (
                Phase::Escalating {
                    back: Some(hold), ..
                },
                _,
            ) => Some(hold.rung),
            // It has just been looked at, or is the alert's own word.
            (Phase::Verifying { .. }, _) => None,
            (_, rung) => rung,
        };
        let verify = &self.plan.verify;
        let looks = verify.check != VerifyCheck::AlertResolved || !verify.steady().is_zero();
        if let Some(rung) = rung
            && self.acted_at.is_some()
            && verify.decides()
            && looks
        {
            let deadline = later(at, verify.within);
            self.suspended = None;
            return self.enter(Phase::Verifying { rung, deadline });
        }
        if self.acted_at.is_some() {
            self.end(End::Healed, "the alert resolved".to_owned(), at)
        } else {
            let reason = "the alert resolved before anything was done".to_owned();
            self.end(End::Cleared, reason, at)
        }
    }

    fn cancel(&mut self, reason: String, at: Timestamp) -> Vec<Command> {
        let cause = StopCause::Cancelled;
        match self.phase {
            // Its end ends the incident.
            Phase::Running { run, .. } => {
                self.cancelled = Some(reason);
                vec![Command::StopRun { run, cause }]
            }
            Phase::Escalating { run: Some(run), .. } => {
                let mut commands = vec![Command::StopRun { run, cause }];
                commands.extend(self.end(End::Cancelled, reason, at));
                commands
            }
            _ => self.end(End::Cancelled, reason, at),
        }
    }

    /// What a shadow would have done.
    fn shadow(&self) -> String {
        if self.planned.is_empty() {
            return "this shadow would have done nothing".to_owned();
        }
        let planned: Vec<_> = self
            .planned
            .iter()
            .map(|effect| effect.request.summary())
            .collect();
        format!("this shadow would have done: {}", planned.join(", "))
    }

    fn alert_seen(
        &mut self,
        episode: &Episode,
        status: AlertStatus,
        repeat: bool,
        at: Timestamp,
    ) -> Vec<Command> {
        let had_resolved = self.resolved();
        if !self.heed(episode, status, repeat, at) {
            return Vec::new();
        }
        if !self.resolved() {
            return match self.phase {
                // It fires again while it was watched whether it stays resolved.
                Phase::Verifying { deadline, .. }
                    if had_resolved && self.plan.verify.check == VerifyCheck::AlertResolved =>
                {
                    vec![Command::WakeAt(deadline)]
                }
                _ => Vec::new(),
            };
        }
        match &self.phase {
            Phase::Held { .. } | Phase::BackingOff { .. }
                if active(Mutation::ResolvedWhileWaiting) =>
            {
                Vec::new()
            }
            Phase::Pending(_)
            | Phase::Held { .. }
            | Phase::Starting { .. }
            | Phase::AwaitingApproval { .. }
            | Phase::BackingOff { .. }
            | Phase::Watching => self.end_resolved(at),
            // Nothing was done, and nothing is needed any more.
            Phase::Verifying { .. } if self.acted_at.is_none() && self.plan.verify.decides() => {
                self.end_resolved(at)
            }
            Phase::Verifying { deadline, .. }
                if self.plan.verify.check == VerifyCheck::AlertResolved =>
            {
                if self.plan.verify.steady().is_zero() {
                    self.end(End::Healed, "the alert resolved".to_owned(), at)
                } else {
                    vec![Command::Verify {
                        deadline: *deadline,
                    }]
                }
            }
            Phase::Running { run, .. } => vec![Command::StopRun {
                run: *run,
                cause: StopCause::Cleared,
            }],
            // What `verify` asks for is stronger than the alert; and a person is told to
            // the end.
            Phase::Verifying { .. } | Phase::Escalating { .. } | Phase::Ended { .. } => Vec::new(),
        }
    }

    /// Takes in what a notification says of an alert; false when it was overtaken.
    fn heed(
        &mut self,
        episode: &Episode,
        status: AlertStatus,
        repeat: bool,
        at: Timestamp,
    ) -> bool {
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
                return false;
            }
            self.firing -= usize::from(known.resolved_at.is_none());
        }
        if status == AlertStatus::Firing {
            self.last_word_at = self.last_word_at.max(at);
            self.repeats += u32::from(repeat);
        }
        let resolved_at = (status == AlertStatus::Resolved).then_some(at);
        self.firing += usize::from(resolved_at.is_none());
        let seen = Seen {
            starts_at: episode.starts_at,
            resolved_at,
        };
        self.alerts.insert(key, seen);
        true
    }

    /// What the guards said.
    fn guarded(&mut self, body: &EventBody, at: Timestamp) -> Vec<Command> {
        let (Phase::Pending(rung) | Phase::Held(Hold { rung, .. })) = self.phase else {
            return Vec::new();
        };
        match body {
            EventBody::Suppressed { reason, .. } => self.end(End::Suppressed, reason.clone(), at),
            EventBody::GuardHeld {
                guard,
                until,
                reason,
            } => {
                let hold = Hold {
                    guard: *guard,
                    until: *until,
                    rung,
                };
                let since = self.held.as_ref().map_or(at, |(since, _)| *since);
                self.held = Some((since, reason.clone()));
                let tell = *guard == Guard::Breaker && !self.told && self.plan.mode != Mode::Shadow;
                if tell {
                    self.told = true;
                    self.told_held = true;
                    if let Some(silence) = self.unnamed(at) {
                        self.untold = Some(silence);
                        return self.enter(Phase::Held(hold));
                    }
                    self.drop_unsaid();
                    return self.enter(Phase::Escalating {
                        reason: reason.clone(),
                        attempt: 1,
                        run: None,
                        back: Some(hold),
                    });
                }
                self.enter(Phase::Held(hold))
            }
            EventBody::GuardsPassed
                if self.resolved() && !active(Mutation::ResolvedWhileWaiting) =>
            {
                self.end_resolved(at)
            }
            EventBody::GuardsPassed => {
                self.held = None;
                let mode = self
                    .suspended
                    .map_or_else(|| self.run_mode(rung), |suspended| suspended.mode);
                self.enter(Phase::Starting { rung, mode })
            }
            _ => Vec::new(),
        }
    }

    /// What became of a run.
    fn ran(&mut self, body: &EventBody, at: Timestamp) -> Vec<Command> {
        match (body, self.phase.clone()) {
            (
                EventBody::RunStarted { run, .. },
                Phase::Escalating {
                    reason,
                    attempt,
                    run: None,
                    back,
                },
            ) => {
                self.runs = self.runs.max(run.number);
                self.enter(Phase::Escalating {
                    reason,
                    attempt,
                    run: Some(*run),
                    back,
                })
            }
            (
                EventBody::RunStarted {
                    run,
                    step,
                    attempt,
                    mode,
                    ..
                },
                // A journal of an earlier version has no word of the guards between two
                // runs.
                Phase::Starting { .. } | Phase::Pending(_),
            ) => {
                self.runs = self.runs.max(run.number);
                self.suspended = None;
                if *mode == RunMode::Dry && !active(Mutation::PlanKeptAcrossRuns) {
                    self.planned.clear();
                }
                self.enter(Phase::Running {
                    run: *run,
                    rung: Rung {
                        step: *step,
                        attempt: *attempt,
                    },
                    mode: *mode,
                })
            }
            (EventBody::RunResumed { run }, Phase::Starting { rung, mode }) => {
                self.suspended = None;
                self.enter(Phase::Running {
                    run: *run,
                    rung,
                    mode,
                })
            }
            (
                EventBody::RunResumed { run },
                Phase::Running { run: current, .. }
                | Phase::Escalating {
                    run: Some(current), ..
                },
            ) if *run == current => {
                self.interruptions += u32::from(!active(Mutation::InterruptionsForgotten));
                Vec::new()
            }
            (
                EventBody::RunEnded { run, result },
                Phase::Running {
                    run: current,
                    rung,
                    mode,
                },
            ) if *run == current => {
                self.last_run_at = Some(at);
                self.begun = true;
                self.run_ended(*run, result, rung, mode, at)
            }
            (
                EventBody::RunInterrupted { run },
                Phase::Running {
                    run: current, rung, ..
                },
            ) if *run == current => {
                self.last_run_at = Some(at);
                self.begun = true;
                self.interruptions += 1;
                self.run_interrupted(rung, at)
            }
            (
                EventBody::RunEnded { run, .. } | EventBody::RunInterrupted { run },
                Phase::Escalating {
                    reason,
                    attempt,
                    run: Some(current),
                    back,
                },
            ) if *run == current => self.told(body, reason, attempt, back, at),
            _ => Vec::new(),
        }
    }

    /// A person was told, or could not be.
    fn told(
        &mut self,
        body: &EventBody,
        reason: String,
        attempt: u32,
        back: Option<Hold>,
        at: Timestamp,
    ) -> Vec<Command> {
        let attempts = self
            .plan
            .escalate
            .as_ref()
            .map_or(1, |escalate| escalate.attempts);
        let (again, failure) = match body {
            EventBody::RunEnded { result, .. } => match result {
                RunResult::Changed { .. } | RunResult::Unchanged { .. } => (false, None),
                RunResult::Failed { class, message } => (
                    *class == FailureClass::Retryable,
                    Some(format!("nobody could be told: {message}")),
                ),
                RunResult::Stopped { message, .. } => {
                    (false, Some(format!("nobody could be told: {message}")))
                }
            },
            _ => (
                true,
                Some("whether anybody was told is not known".to_owned()),
            ),
        };
        if again && attempt < attempts {
            return self.enter(Phase::Escalating {
                reason,
                attempt: attempt + 1,
                run: None,
                back,
            });
        }
        self.heard |= failure.is_none();
        if let Some(failure) = &failure {
            self.untold = Some((at, Silence::Failed, failure.clone()));
        }
        match back {
            Some(_) if self.resolved() => self.end_resolved(at),
            Some(hold) => {
                // Its time may have passed meanwhile.
                let over = hold.until.is_some_and(|until| until <= at);
                let commands = self.enter(Phase::Held(hold));
                if over {
                    vec![Command::AskGuards]
                } else {
                    commands
                }
            }
            None => {
                let reason =
                    failure.map_or(reason.clone(), |failure| format!("{reason}; {failure}"));
                self.end(End::Escalated, reason, at)
            }
        }
    }

    fn run_ended(
        &mut self,
        run: RunId,
        result: &RunResult,
        rung: Rung,
        mode: RunMode,
        at: Timestamp,
    ) -> Vec<Command> {
        if let Some(reason) = self.cancelled.clone() {
            return self.end(End::Cancelled, reason, at);
        }
        match result {
            RunResult::Changed { .. } | RunResult::Unchanged { .. } if mode == RunMode::Dry => {
                self.planned(rung, at)
            }
            RunResult::Changed { .. } | RunResult::Unchanged { .. } => self.verify(rung, at),
            RunResult::Failed { class, message } => match class {
                FailureClass::Retryable => {
                    self.next_attempt(rung, StepFailure::Retryable, message, at)
                }
                FailureClass::Permanent => {
                    self.next_step(rung.step, StepFailure::Permanent, message, at)
                }
                FailureClass::Denied => self.escalate(message.clone(), at),
            },
            RunResult::Stopped { cause, message } => {
                let suspended = Some(Suspended { run, rung, mode });
                match cause {
                    StopCause::Paused => {
                        self.suspended = suspended;
                        self.start(rung, at)
                    }
                    StopCause::Rate => {
                        self.suspended = suspended;
                        let until = later(at, RATE_RETRY);
                        self.enter(Phase::BackingOff { rung, until })
                    }
                    StopCause::Cleared if self.acted_at.is_some() && mode != RunMode::Dry => {
                        self.cut_short = true;
                        self.verify(rung, at)
                    }
                    // It fires again meanwhile.
                    StopCause::Cleared if !self.resolved() => {
                        self.suspended = suspended;
                        self.start(rung, at)
                    }
                    StopCause::Cleared => self.end_resolved(at),
                    StopCause::Cancelled => self.end(End::Cancelled, message.clone(), at),
                    StopCause::Deviated
                    | StopCause::Nondeterministic
                    | StopCause::InDoubt
                    | StopCause::Mistaken => self.escalate(message.clone(), at),
                }
            }
        }
    }

    /// A dry run came to its end: what it planned waits for a person, or is what the
    /// shadow would have done.
    fn planned(&mut self, rung: Rung, at: Timestamp) -> Vec<Command> {
        if self.resolved() {
            self.end_resolved(at)
        } else if self.plan.mode == Mode::Shadow {
            self.enter(Phase::Watching)
        } else if self.planned.is_empty() {
            self.verify(rung, at)
        } else {
            let plan = plan_digest(&self.planned);
            let until = later(at, self.plan.approval.expires);
            let mut commands = self.enter(Phase::AwaitingApproval {
                rung,
                plan,
                since: at,
                until,
                approved_by: Vec::new(),
            });
            if self.plan.approval.tell && self.tells() {
                let people = match self.plan.approval.people {
                    1 => "a person has",
                    _ => "two people have",
                };
                let reason = format!(
                    "plan {} waits for approval until {until}: {people} to look at it and say `{}`, or deny it",
                    plan.short(),
                    self.approve_command(plan),
                );
                commands.extend(self.tell(Notice::Approval, reason));
            }
            commands
        }
    }

    /// What a person types to approve a plan of it.
    #[must_use]
    pub fn approve_command(&self, plan: Digest) -> String {
        format!("sentinel approve {} --plan {}", self.id, plan.short())
    }

    /// What a person said of the plan.
    fn asked(&mut self, body: &EventBody, at: Timestamp) -> Vec<Command> {
        let Phase::AwaitingApproval {
            rung,
            plan: waiting,
            since,
            until,
            mut approved_by,
        } = self.phase.clone()
        else {
            return Vec::new();
        };
        match body {
            EventBody::Approved { plan, by } if *plan == waiting => {
                let again = approved_by.contains(by) && !active(Mutation::SamePersonTwice);
                if self.requested_by() != Some(by) && !again {
                    approved_by.push(by.clone());
                }
                if approved_by.len() >= self.plan.approval.people as usize {
                    self.approved = Some((rung, waiting));
                    self.start(rung, at)
                } else {
                    self.enter(Phase::AwaitingApproval {
                        rung,
                        plan: waiting,
                        since,
                        until,
                        approved_by,
                    })
                }
            }
            EventBody::ApprovalDenied { plan, by, reason } if *plan == waiting => {
                let reason = format!("{by} denied the plan: {reason}");
                self.end(End::Cancelled, reason, at)
            }
            EventBody::ApprovalExpired { plan } if *plan == waiting => {
                let reason = "nobody approved the plan in time";
                self.escalate(reason.to_owned(), at)
            }
            _ => Vec::new(),
        }
    }

    fn verify(&mut self, rung: Rung, at: Timestamp) -> Vec<Command> {
        let verify = &self.plan.verify;
        let untouched = self.acted_at.is_none() && verify.decides();
        if self.resolved() && (verify.check == VerifyCheck::AlertResolved || untouched) {
            return self.end_resolved(at);
        }
        let deadline = later(at, verify.within);
        self.enter(Phase::Verifying { rung, deadline })
    }

    fn unverified(&mut self, rung: Rung, detail: &str, at: Timestamp) -> Vec<Command> {
        let reason = format!("not verified: {detail}");
        if self.resolved() && self.cut_short {
            // It was stopped on the way, and may have left the target half done.
            let reason = format!("the alert resolved and stopped the run; {reason}");
            return self.escalate(reason, at);
        }
        if self.resolved() && self.plan.verify.decides() {
            // What crashes again and again is up now and then, and its alert resolves. No
            // run follows on a resolved alert.
            return self.escalate(format!("{reason}; the alert has resolved all the same"), at);
        }
        self.next_attempt(rung, StepFailure::Unverified, &reason, at)
    }

    /// The looks themselves could not be made, and nothing else says that the target is ill:
    /// that is no reason to act on it.
    fn undecided(&mut self, detail: &str, at: Timestamp) -> Vec<Command> {
        if self.resolved() && !self.cut_short {
            return self.end_resolved(at);
        }
        self.escalate(format!("could not be verified: {detail}"), at)
    }

    fn run_interrupted(&mut self, rung: Rung, at: Timestamp) -> Vec<Command> {
        let rerun = self
            .step(rung.step)
            .is_some_and(|step| step.on_interrupt == OnInterrupt::Rerun);
        if let Some(reason) = self.cancelled.clone() {
            self.end(End::Cancelled, reason, at)
        } else if self.interruptions >= MAX_INTERRUPTIONS {
            let reason = format!("interrupted {} times", self.interruptions);
            self.escalate(reason, at)
        } else if rerun {
            self.start(rung, at)
        } else {
            let reason = "a run was interrupted, and the policy says `on_interrupt: escalate`";
            self.escalate(reason.to_owned(), at)
        }
    }

    fn expired(&mut self, at: Timestamp) -> Vec<Command> {
        let silence = format!(
            "no word of its alerts came for {}",
            HumanDuration(self.plan.ttl)
        );
        match self.phase {
            Phase::Watching => {
                let reason = format!("{silence}; {}", self.shadow());
                self.end(End::Suppressed, reason, at)
            }
            Phase::Held { .. } | Phase::BackingOff { .. } if self.acted_at.is_none() => {
                self.end(End::Cleared, format!("{silence}: taken as resolved"), at)
            }
            Phase::Held { .. } | Phase::BackingOff { .. } => self.escalate(silence, at),
            _ => Vec::new(),
        }
    }

    fn next_attempt(
        &mut self,
        rung: Rung,
        failure: StepFailure,
        reason: &str,
        at: Timestamp,
    ) -> Vec<Command> {
        if self.resolved() {
            return self.end_resolved(at);
        }
        match self.step(rung.step) {
            Some(planned) if rung.attempt < planned.attempts => {
                let until = later(at, planned.backoff);
                self.enter(Phase::BackingOff {
                    rung: Rung {
                        step: rung.step,
                        attempt: rung.attempt + 1,
                    },
                    until,
                })
            }
            _ => self.next_step(rung.step, failure, reason, at),
        }
    }

    /// The next step that is for such a failure.
    fn next_step(
        &mut self,
        step: u32,
        failure: StepFailure,
        reason: &str,
        at: Timestamp,
    ) -> Vec<Command> {
        if self.resolved() {
            return self.end_resolved(at);
        }
        let following = (step + 1..).map_while(|number| Some((number, self.step(number)?)));
        let next = following
            .filter(|(_, step)| step.when.on.is_empty() || step.when.on.contains(&failure))
            .map(|(number, _)| number)
            .next();
        match next {
            Some(next) => self.start(Rung::first(next), at),
            None => self.escalate(format!("the ladder is used up; last: {reason}"), at),
        }
    }

    /// Every run begins here: a resolved alert never starts one, and a step waits for
    /// its time.
    fn start(&mut self, rung: Rung, at: Timestamp) -> Vec<Command> {
        if self.resolved() && !active(Mutation::ResolvedWhileWaiting) {
            return self.end_resolved(at);
        }
        let opens = self
            .step(rung.step)
            .map_or(at, |step| later(self.opened_at, step.when.after));
        if opens > at {
            return self.enter(Phase::BackingOff { rung, until: opens });
        }
        self.enter(Phase::Pending(rung))
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
