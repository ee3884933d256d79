//! What the engine and the journal say to each other: rows that are views of events,
//! what is committed as one, and what the engine looks up.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alert::{Alert, Episode};
use crate::control::ControlEvent;
use crate::event::Event;
use crate::id::{Digest, IncidentId, PolicyName, Target};
use crate::incident::{End, Incident, Phase};

/// An alert that is committed and that the engine has not dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its place in the inbox; given back in [`Append::done`].
    pub seq: u64,
    /// The alert.
    pub alert: Arc<Alert>,
    /// When its delivery was committed.
    pub received_at: Timestamp,
    /// Whether the same identity had been accepted before.
    pub repeat: bool,
}

/// How much sooner than others something is dealt with, by the alert's label
/// `severity`; the first is the most urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// [`Alert::is_urgent`].
    Urgent,
    /// Every other severity, and none.
    Normal,
    /// `info`, `debug`, `none`.
    Low,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Urgent, Self::Normal, Self::Low];

    /// The alert's priority.
    #[must_use]
    pub fn of(alert: &Alert) -> Self {
        match alert.labels.get("severity").map(String::as_str) {
            _ if alert.is_urgent() => Self::Urgent,
            Some("info" | "debug" | "none") => Self::Low,
            _ => Self::Normal,
        }
    }
}

/// What the engine made of something, committed as one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Append {
    /// What happened.
    pub events: Vec<Event>,
    /// Where the incidents stand after that.
    pub incidents: Vec<IncidentRow>,
    /// Which episodes led to which incidents.
    pub episodes: Vec<(Episode, IncidentId)>,
    /// What happened to the controls.
    pub controls: Vec<ControlEvent>,
    /// What has been dealt with.
    pub done: Vec<u64>,
}

impl Append {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.incidents.is_empty()
            && self.episodes.is_empty()
            && self.controls.is_empty()
            && self.done.is_empty()
    }
}

/// What an earlier daemon left.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// The incidents that have not ended, each with its events in order.
    pub open: Vec<Vec<Event>>,
    /// Those that have ended, and of whose end somebody is still to be told.
    pub owing: Vec<Vec<Event>>,
    /// What was accepted and not dealt with, in order.
    pub inbox: Vec<Accepted>,
    /// What happened to the controls, in order.
    pub controls: Vec<ControlEvent>,
    /// The number of the last incident; 0 when there is none.
    pub last_incident: u64,
}

/// Where an incident stands, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentRow {
    /// The incident.
    pub id: IncidentId,
    /// The policy's name.
    pub policy: String,
    /// What is acted on, as guards count it.
    pub target: String,
    /// The name of the alert that opened it.
    pub alert: String,
    /// Where it stands, as one word; its end when it is over.
    pub state: String,
    /// When it opened.
    pub opened_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it ended so.
    pub reason: Option<String>,
    /// When its last run ended.
    pub last_run_at: Option<Timestamp>,
    /// Under which other policy its alert is believed once more; never when none.
    #[serde(default, skip)]
    pub again: Option<Again>,
    /// Whether somebody who was told of it has to be told of its end.
    #[serde(default, skip)]
    pub owes: bool,
}

/// When an alert that led to an incident is believed once more, without firing anew.
/// Nothing was done in that incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Its policy was gone, or off: as soon as there is one.
    Served,
    /// It was escalated: under any policy but this version.
    But(Digest),
}

impl From<&Incident> for IncidentRow {
    fn from(incident: &Incident) -> Self {
        let (ended_at, reason) = match &incident.phase {
            Phase::Ended { at, reason, .. } => (Some(*at), Some(reason.clone())),
            _ => (None, None),
        };
        Self {
            id: incident.id,
            policy: incident.plan.policy.to_string(),
            target: incident.thing().to_string(),
            alert: incident.alert.name().to_owned(),
            state: incident.phase.as_str().to_owned(),
            opened_at: incident.opened_at,
            ended_at,
            reason,
            last_run_at: incident.last_run_at,
            again: again(incident),
            owes: incident.owes_end(),
        }
    }
}

fn again(incident: &Incident) -> Option<Again> {
    let Phase::Ended { end, .. } = &incident.phase else {
        return None;
    };
    match end {
        End::Cancelled if incident.gone => Some(Again::Served),
        End::Escalated if incident.acted_at.is_none() => Some(Again::But(incident.plan.digest)),
        _ => None,
    }
}

/// How a policy has fared on a target, over the incidents that have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// When its last run there ended.
    pub last_run_at: Option<Timestamp>,
    /// How many of its incidents there were escalated since one was healed or cleared;
    /// counted up to [`Standing::COUNTED`].
    pub failures: u32,
    /// When the last of these ended.
    pub failed_at: Option<Timestamp>,
}

impl Standing {
    /// How far back failures are counted; a breaker cannot ask for more.
    pub const COUNTED: u32 = 100;
}

/// An effect that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastEffect {
    /// When.
    pub at: Timestamp,
    /// The policy whose incident it was for.
    pub policy: PolicyName,
    /// What it is counted on.
    pub target: Target,
    /// The call's name.
    pub action: String,
    /// Whether it told a person, or tried to.
    pub tells: bool,
}

/// The past cannot be looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HistoryError(pub String);

/// What the engine looks up in the journal: what has been committed.
pub trait History {
    /// The last incident of `policy` on `target` that `episode` led to.
    fn incident_of(
        &self,
        episode: &Episode,
        policy: &PolicyName,
        target: &Target,
    ) -> Result<Option<IncidentRow>, HistoryError>;

    /// When a resolved notification of `episode` was accepted last.
    fn resolved_at(&self, episode: &Episode) -> Result<Option<Timestamp>, HistoryError>;

    /// When a resolved notification of a later episode of the same alert was accepted last.
    fn overtaken_at(&self, episode: &Episode) -> Result<Option<Timestamp>, HistoryError>;

    /// How `policy` has fared on `target`.
    fn standing(&self, policy: &PolicyName, target: &Target) -> Result<Standing, HistoryError>;

    /// When incidents of `policy` on `target` opened after `since`, in order.
    fn opened_since(
        &self,
        policy: &PolicyName,
        target: &Target,
        since: Timestamp,
    ) -> Result<Vec<Timestamp>, HistoryError>;

    /// When runs of `policy` began after `since`, in order.
    fn runs_since(
        &self,
        policy: &PolicyName,
        since: Timestamp,
    ) -> Result<Vec<Timestamp>, HistoryError>;

    /// The effects that began after `since`, in order.
    fn effects_since(&self, since: Timestamp) -> Result<Vec<PastEffect>, HistoryError>;
}

/// How far back a look at `duration` goes.
#[must_use]
pub fn earlier(at: Timestamp, duration: Duration) -> Timestamp {
    jiff::SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| at.checked_sub(duration).ok())
        .unwrap_or(Timestamp::MIN)
}
