//! What happens to an incident. The events are the truth: an incident's state is
//! their fold ([`crate::incident`]), and whatever is shown of it is read from them.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alert::{Alert, AlertStatus, Episode, Labels};
use crate::capability::{CapabilityError, Request, Response};
use crate::id::{Digest, IncidentId, PluginName, RunId, Target};
use crate::incident::Plan;

/// Something that happened to an incident, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When it happened, by the daemon's clock.
    pub at: Timestamp,
    /// The incident that it happened to.
    pub incident: IncidentId,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum EventBody {
    /// A firing alert matched a policy that had no open incident on the target.
    Opened {
        /// The policy as it was then: a later change of it does not touch this
        /// incident.
        plan: Box<Plan>,
        /// What to act on.
        target: Target,
        /// The alert.
        alert: Box<Alert>,
        /// When the alert's delivery was committed.
        accepted_at: Timestamp,
    },
    /// A notification of an alert of this incident, or of another alert that leads to
    /// the same policy and target.
    AlertSeen {
        /// Which alert.
        episode: Episode,
        /// Whether it fires.
        status: AlertStatus,
        /// Whether the same notification had been seen before.
        repeat: bool,
    },
    /// The incident cannot be acted on, whatever the guards say: the policy's
    /// templates do not fit the alert.
    Refused {
        /// Why.
        reason: String,
    },
    /// A guard holds the incident back.
    GuardHeld {
        /// Which guard.
        guard: Guard,
        /// When it would let go; none when that depends on another incident.
        until: Option<Timestamp>,
        /// Why.
        reason: String,
    },
    /// Every guard lets the incident through.
    GuardsPassed,
    /// A plugin was started.
    RunStarted {
        /// The run.
        run: RunId,
        /// The step, counted from 1.
        step: u32,
        /// The attempt at the step, counted from 1.
        attempt: u32,
        /// The plugin.
        plugin: PluginName,
        /// The version that it says it has.
        version: String,
        /// Which bytes acted.
        digest: Digest,
    },
    /// A run ended.
    RunEnded {
        /// The run.
        run: RunId,
        /// How.
        result: RunResult,
    },
    /// The daemon ended while the run was under way; nobody knows how far it came.
    RunInterrupted {
        /// The run.
        run: RunId,
    },
    /// What the policy's `verify` asks for holds.
    VerificationPassed {
        /// What was seen.
        detail: String,
    },
    /// What the policy's `verify` asks for did not hold in time.
    VerificationFailed {
        /// What was seen last.
        detail: String,
    },
    /// A time that the state waited for has come.
    TimerFired,
    /// A run looked at something.
    Observed {
        /// The run.
        run: RunId,
        /// The call's number inside the run.
        call: u32,
        /// What it asked.
        request: Request,
        /// What it was told.
        result: CallResult,
    },
    /// A run is about to change something.
    EffectBegan {
        /// The run.
        run: RunId,
        /// The call's number inside the run.
        call: u32,
        /// What it asked.
        request: Request,
        /// What the name in the request turned out to be.
        on: Option<Resource>,
    },
    /// The change was carried out, or was not.
    EffectEnded {
        /// The run.
        run: RunId,
        /// The call's number inside the run.
        call: u32,
        /// The call's name, as [`Request::name`] has it.
        name: String,
        /// How it went.
        result: CallResult,
    },
    /// The gate refused a call before anything was done.
    Denied {
        /// The run.
        run: RunId,
        /// The call's number inside the run.
        call: u32,
        /// What it asked.
        request: Request,
        /// Why not.
        error: CapabilityError,
    },
    /// A run wrote a line.
    Logged {
        /// The run.
        run: RunId,
        /// How much it matters.
        level: LogLevel,
        /// The line.
        message: String,
    },
}

impl EventBody {
    /// The kind as the journal and the API write it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::AlertSeen { .. } => "alert-seen",
            Self::Refused { .. } => "refused",
            Self::GuardHeld { .. } => "guard-held",
            Self::GuardsPassed => "guards-passed",
            Self::RunStarted { .. } => "run-started",
            Self::RunEnded { .. } => "run-ended",
            Self::RunInterrupted { .. } => "run-interrupted",
            Self::VerificationPassed { .. } => "verification-passed",
            Self::VerificationFailed { .. } => "verification-failed",
            Self::TimerFired => "timer-fired",
            Self::Observed { .. } => "observed",
            Self::EffectBegan { .. } => "effect-began",
            Self::EffectEnded { .. } => "effect-ended",
            Self::Denied { .. } => "denied",
            Self::Logged { .. } => "logged",
        }
    }
}

/// What a call came to.
pub type CallResult = Result<Response, CapabilityError>;

/// What a name in a request turned out to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// The full id.
    pub id: String,
    /// The name.
    pub name: String,
    /// The labels.
    pub labels: Labels,
}

/// How much a line of a plugin's log matters; `sentinel:plugin/log` `level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the WIT file explains each case")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    /// The level as text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum RunResult {
    /// The plugin says that it changed something.
    Changed {
        /// What.
        message: String,
    },
    /// The plugin says that nothing had to be changed.
    Unchanged {
        /// Why.
        message: String,
    },
    /// It did not come to its end, or says that it failed.
    Failed {
        /// What the engine makes of it.
        class: FailureClass,
        /// What went wrong.
        message: String,
    },
}

/// What the engine does about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureClass {
    /// The next attempt.
    Retryable,
    /// The next step.
    Permanent,
    /// A person: the policy or the plugin is wrong.
    Denied,
}

impl FailureClass {
    /// The class as text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retryable => "retryable",
            Self::Permanent => "permanent",
            Self::Denied => "denied",
        }
    }
}

/// What can hold an incident back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// The policy acted on the target a short while ago.
    Cooldown,
    /// Another incident is acting on the target.
    TargetLock,
}

impl Guard {
    /// The guard's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cooldown => "cooldown",
            Self::TargetLock => "target-lock",
        }
    }
}

/// Serialises spans of time as whole milliseconds.
pub(crate) mod millis {
    use super::Duration;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
