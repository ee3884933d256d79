//! What was decided, in order.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::look::Look;
use crate::alert::{AlertStatus, Fingerprint};
use crate::duration::HumanDuration;
use crate::event::{Event, Guard, Notice, RunMode, RunResult};
use crate::id::{IncidentId, PluginRef, PolicyName, RunId, Target};
use crate::incident::End;

/// What a rehearsal came to.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// Every decision, in order.
    pub decisions: Vec<Decision>,
    /// The events of every incident, in order.
    pub incidents: BTreeMap<IncidentId, Vec<Event>>,
}

/// Something that was decided, or that led to a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// In which incident.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
    /// By which policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyName>,
    /// On what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What was decided, or what led to a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields say what the case says")]
pub enum What {
    /// A notification came, and was held against the policies.
    Heard {
        alert: String,
        fingerprint: Fingerprint,
        status: AlertStatus,
        /// Whether the same one had come before.
        repeat: bool,
        /// Empty for one that resolved, and for a repetition.
        looks: Vec<Look>,
    },
    /// It says nothing new about what is over.
    Repeat { alert: String },
    /// No more incidents may be open: it waits.
    Waits { alert: String },
    /// It opened an incident.
    Opened { alert: String },
    /// It concerns an incident that is open.
    Joined {
        fingerprint: Fingerprint,
        status: AlertStatus,
        repeat: bool,
    },
    /// The policy does not fit the alert.
    Refused { reason: String },
    /// A guard holds the incident back.
    Held {
        guard: Guard,
        /// When it would let go, if that depends on time alone.
        until: Option<Timestamp>,
        reason: String,
    },
    /// A guard dropped it.
    Dropped { guard: Guard, reason: String },
    /// Every guard lets it through.
    Passed,
    /// A person is told, beside what the incident does.
    Tells { notice: Notice },
    /// Nobody was told of what a person has to hear of.
    Untold { reason: String },
    /// A run begins.
    Run {
        run: RunId,
        /// 0 tells a person.
        step: u32,
        attempt: u32,
        plugin: PluginRef,
        mode: RunMode,
    },
    /// A run changes something, or would.
    Effect { summary: String, carried_out: bool },
    /// A run goes on where it was stopped.
    Resumed { run: RunId },
    /// A run ended.
    RunEnded { run: RunId, result: RunResult },
    /// A plan waits for people.
    Asked { plan: String, until: Timestamp },
    /// A person said something of a plan or of an incident.
    Answered { said: String },
    /// A verification ended.
    Verified { passed: bool, detail: String },
    /// No word of its alerts came for too long.
    Expired,
    /// An operator did something, or could not.
    Operator { said: String, refused: bool },
    /// The incident is over.
    Ended { end: End, reason: String },
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Heard {
                alert,
                status,
                repeat,
                ..
            } => {
                let again = if *repeat { " again" } else { "" };
                write!(f, "{alert} is {status}{again}")
            }
            Self::Repeat { alert } => {
                write!(f, "{alert} is a repetition of what is over: nothing to do")
            }
            Self::Waits { alert } => write!(f, "{alert} waits: too many incidents are open"),
            Self::Opened { alert } => write!(f, "{alert} opens the incident"),
            Self::Joined {
                fingerprint,
                status,
                repeat,
            } => {
                let again = if *repeat { " again" } else { "" };
                write!(f, "alert {fingerprint} is {status}{again}")
            }
            Self::Refused { reason } => f.write_str(reason),
            Self::Held {
                guard,
                until,
                reason,
            } => {
                write!(f, "held by {}", guard.as_str())?;
                if let Some(until) = until {
                    write!(f, " until {}", second(*until))?;
                }
                write!(f, ": {reason}")
            }
            Self::Dropped { guard, reason } => write!(f, "dropped by {}: {reason}", guard.as_str()),
            Self::Tells { notice } => write!(f, "a person is told ({})", notice.as_str()),
            Self::Untold { reason } => write!(f, "nobody is told: {reason}"),
            Self::Passed => f.write_str("every guard lets it through"),
            Self::Run {
                run,
                step,
                attempt,
                plugin,
                mode,
            } => {
                let mode = match mode {
                    RunMode::Live => "",
                    RunMode::Dry => "dry ",
                    RunMode::Apply => "approved ",
                };
                if *step == 0 {
                    write!(
                        f,
                        "{mode}run {run} of {plugin} tells a person, attempt {attempt}"
                    )
                } else {
                    write!(
                        f,
                        "{mode}run {run} of {plugin}: step {step}, attempt {attempt}"
                    )
                }
            }
            Self::Effect {
                summary,
                carried_out: true,
            } => write!(f, "does {summary}"),
            Self::Effect { summary, .. } => write!(f, "would do {summary}"),
            Self::Resumed { run } => write!(f, "run {run} goes on"),
            Self::RunEnded { run, result } => match result {
                RunResult::Changed { message } => {
                    write!(f, "run {run} changed something: {message}")
                }
                RunResult::Unchanged { message } => {
                    write!(f, "run {run} changed nothing: {message}")
                }
                RunResult::Failed { class, message } => {
                    write!(f, "run {run} failed ({}): {message}", class.as_str())
                }
                RunResult::Stopped { cause, message } => {
                    write!(f, "run {run} was stopped ({}): {message}", cause.as_str())
                }
            },
            Self::Asked { plan, until } => {
                write!(f, "plan {plan} waits for approval until {}", second(*until))
            }
            Self::Answered { said }
            | Self::Operator {
                said,
                refused: false,
            } => f.write_str(said),
            Self::Operator { said, .. } => write!(f, "refused: {said}"),
            Self::Verified { passed, detail } => {
                let how = if *passed { "verified" } else { "not verified" };
                write!(f, "{how}: {detail}")
            }
            Self::Expired => f.write_str("no word of its alerts came for too long"),
            Self::Ended { end, reason } => write!(f, "{}: {reason}", end.as_str()),
        }
    }
}

fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// How long after `start` something happens, as durations are written.
#[must_use]
pub(crate) fn since(start: Timestamp, at: Timestamp) -> HumanDuration {
    let millis = at.duration_since(start).as_millis();
    let millis = u64::try_from(millis).unwrap_or(0);
    HumanDuration(std::time::Duration::from_millis(millis))
}
