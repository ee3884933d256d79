//! What happens to an incident. The events are the truth: an incident's state is
//! their fold ([`crate::incident`]), and whatever is shown of it is read from them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alert::{Alert, AlertStatus, Episode, Labels};
use crate::capability::{Blob, CapabilityError, ContainerDetails, Request, Response};
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
        plan: Arc<Plan>,
        /// What to act on.
        target: Target,
        /// What guards count and lock, where that is another text: a machine may be known
        /// by several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thing: Option<Target>,
        /// The alert.
        alert: Arc<Alert>,
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
        /// Whether the policy names these very bytes.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pinned: bool,
        /// What the gate does with its effects.
        #[serde(default)]
        mode: RunMode,
    },
    /// What the run's clock and randomness come from; written before its first effect.
    RunSeeded {
        /// The run.
        run: RunId,
        /// The seed, as 64 hexadecimal digits.
        seed: String,
        /// What the run's clock said when it began.
        clock: Timestamp,
    },
    /// A run looked at its clock.
    ClockRead {
        /// The run.
        run: RunId,
        /// How many nanoseconds after its begin, once for each look, in order.
        readings: Vec<u64>,
    },
    /// A run that the end of the daemon cut off goes on from its record.
    RunResumed {
        /// The run.
        run: RunId,
    },
    /// A run ended.
    RunEnded {
        /// The run.
        run: RunId,
        /// How.
        result: RunResult,
    },
    /// The daemon ended while the run was under way, and it cannot go on from its record.
    RunInterrupted {
        /// The run.
        run: RunId,
    },
    /// Before the first effect: what it is about to destroy the traces of.
    EvidenceCaptured {
        /// The run.
        run: RunId,
        /// The container, as the effect found it; none when it could not be looked at.
        container: Option<Box<ContainerDetails>>,
        /// The end of its output.
        log: String,
        /// What could not be had, and why.
        problem: Option<String>,
    },
    /// A dry run asked for an effect, which was not carried out.
    Planned {
        /// The run.
        run: RunId,
        /// The call's number inside the run.
        call: u32,
        /// What would have been done.
        effect: PlannedEffect,
        /// What the run was told.
        result: CallResult,
    },
    /// A person approved the plan.
    Approved {
        /// Which plan.
        plan: Digest,
        /// Who.
        by: String,
    },
    /// A person denied the plan.
    ApprovalDenied {
        /// Which plan.
        plan: Digest,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Nobody approved the plan in time.
    ApprovalExpired {
        /// Which plan.
        plan: Digest,
    },
    /// A guard dropped it.
    Suppressed {
        /// Which guard.
        guard: Guard,
        /// Why.
        reason: String,
    },
    /// An operator ended it.
    Cancelled {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// No word of its alerts came for as long as the policy's `ttl`.
    Expired,
    /// The policy is another one than when the incident opened, and nothing has been done
    /// yet: from now on it is under the new one.
    PolicyChanged {
        /// The policy as it is now.
        plan: Arc<Plan>,
    },
    /// Nothing has been done yet, and the policy does not want to do anything any more.
    PolicyGone {
        /// Why not.
        reason: String,
    },
    /// The alert led to an incident before, and is believed once more.
    Again {
        /// That incident.
        of: IncidentId,
        /// Why.
        reason: String,
    },
    /// It has been held back for so long that a person is told.
    HeldLong {
        /// By what, and since when.
        reason: String,
    },
    /// A later incident healed the target.
    Mended {
        /// Which.
        by: IncidentId,
    },
    /// Nobody waits any longer for the end of what a person was told of.
    EndForgone {
        /// Why not.
        reason: String,
    },
    /// A person had to hear of it, and nobody was told.
    Untold {
        /// Why nobody was.
        why: Silence,
        /// In words.
        reason: String,
    },
    /// What the policy's `verify` asks for holds.
    VerificationPassed {
        /// What was seen.
        detail: String,
    },
    /// What the policy's `verify` asks for did not hold in time.
    VerificationFailed {
        /// Whether the looks themselves could not be made, so that nothing is known.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unknown: bool,
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
        /// Whether the driver found this out after the daemon had been cut off.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        settled: bool,
    },
    /// The gate refused a call before anything was done.
    Denied {
        /// The run.
        run: RunId,
        /// The call's number inside the run.
        call: u32,
        /// What it asked, or the beginning of that.
        request: Request,
        /// Identifies the whole of what it asked, if only the beginning is here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<Digest>,
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
    /// A run that ended well leaves something for the next one of its plugin under the same
    /// policy. Written once more when the run was cut off right after, to the same values.
    Remembered {
        /// The run.
        run: RunId,
        /// Its plugin.
        plugin: PluginName,
        /// What was set, by key; nothing where it was forgotten.
        changes: BTreeMap<String, Option<Blob>>,
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
            Self::RunSeeded { .. } => "run-seeded",
            Self::ClockRead { .. } => "clock-read",
            Self::RunResumed { .. } => "run-resumed",
            Self::EvidenceCaptured { .. } => "evidence-captured",
            Self::Planned { .. } => "planned",
            Self::Approved { .. } => "approved",
            Self::ApprovalDenied { .. } => "approval-denied",
            Self::ApprovalExpired { .. } => "approval-expired",
            Self::Suppressed { .. } => "suppressed",
            Self::Cancelled { .. } => "cancelled",
            Self::Expired => "expired",
            Self::PolicyChanged { .. } => "policy-changed",
            Self::PolicyGone { .. } => "policy-gone",
            Self::Again { .. } => "again",
            Self::HeldLong { .. } => "held-long",
            Self::Mended { .. } => "mended",
            Self::EndForgone { .. } => "end-forgone",
            Self::Untold { .. } => "untold",
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
            Self::Remembered { .. } => "remembered",
        }
    }
}

/// What a person is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Notice {
    /// A person has to look.
    Escalation,
    /// A plan waits for approval.
    Approval,
    /// A guard holds the incident back for long.
    Held,
    /// What they were told of is over.
    End,
}

impl Notice {
    /// The notice as plugins are given it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Escalation => "escalation",
            Self::Approval => "approval",
            Self::Held => "held",
            Self::End => "end",
        }
    }
}

/// Why nobody was told of what a person has to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Silence {
    /// The policy names nobody: it has no `escalate`.
    Unnamed,
    /// A shadow tells nobody.
    Shadow,
    /// It was tried, and came to nothing.
    Failed,
}

impl Silence {
    /// The reason as one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unnamed => "unnamed",
            Self::Shadow => "shadow",
            Self::Failed => "failed",
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

/// An effect that a dry run asked for: one line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedEffect {
    /// What was asked.
    pub request: Request,
    /// What the name in the request turned out to be.
    pub on: Option<Resource>,
}

/// What the gate does with the effects of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunMode {
    /// They are carried out.
    #[default]
    Live,
    /// They are noted down and answered with what would have happened.
    Dry,
    /// They are carried out if they are those of the approved plan, in its order.
    Apply,
}

impl RunMode {
    /// The mode as text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Dry => "dry",
            Self::Apply => "apply",
        }
    }
}

/// Why the host ended a run between two effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopCause {
    /// The stop switch.
    Paused,
    /// A limit on effects in a window has no room.
    Rate,
    /// Every alert of the incident resolved.
    Cleared,
    /// An operator.
    Cancelled,
    /// It asked for an effect that is not the next one of the approved plan.
    Deviated,
    /// On going on from its record it did something else than the record has.
    Nondeterministic,
    /// Whether an effect was carried out before the daemon was cut off cannot be told.
    InDoubt,
    /// What it was about to change is not what its incident counted and locked.
    Mistaken,
}

impl StopCause {
    /// The cause as text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Rate => "rate",
            Self::Cleared => "cleared",
            Self::Cancelled => "cancelled",
            Self::Deviated => "deviated",
            Self::Nondeterministic => "nondeterministic",
            Self::InDoubt => "in doubt",
            Self::Mistaken => "mistaken",
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
    /// The host ended it between two effects; that is no attempt of the step.
    Stopped {
        /// Why.
        cause: StopCause,
        /// In words.
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

/// What can hold an incident back, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// The stop switch.
    Pause,
    /// A maintenance window.
    Maintenance,
    /// The same notification was dealt with before.
    Repeat,
    /// The circuit breaker: the policy failed on the target too often, or the target
    /// flaps.
    Breaker,
    /// The policy acted on the target a short while ago.
    Cooldown,
    /// Another incident is acting on the target.
    TargetLock,
    /// Too many runs at once.
    Concurrency,
    /// Too many in a window.
    Rate,
    /// Too large a share of the fleet is disturbed.
    BlastRadius,
    /// A person has to approve the plan.
    Approval,
}

impl Guard {
    /// The guard's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Maintenance => "maintenance",
            Self::Repeat => "repeat",
            Self::Breaker => "breaker",
            Self::Cooldown => "cooldown",
            Self::TargetLock => "target-lock",
            Self::Concurrency => "concurrency",
            Self::Rate => "rate",
            Self::BlastRadius => "blast-radius",
            Self::Approval => "approval",
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

    /// The same for what may be missing.
    pub(crate) mod optional {
        use super::{Deserialize, Deserializer, Duration, Serializer};

        #[expect(clippy::ref_option, reason = "serde hands fields over by reference")]
        pub(crate) fn serialize<S: Serializer>(
            duration: &Option<Duration>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match duration {
                Some(duration) => super::serialize(duration, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
        }
    }
}
