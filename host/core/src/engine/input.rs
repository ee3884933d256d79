//! What goes into a turn, and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{HistoryError, Identity, Member, Operator, OperatorError, Settings};
use crate::alert::Alert;
use crate::event::{Event, Guard, Notice, PlannedEffect, RunMode, RunResult, Silence, StopCause};
use crate::guard::limits::NoRoom;
use crate::guard::settings::Fleet;
use crate::id::{Digest, IncidentId, PluginName, PluginRef, PolicyName, RunId, Target};
use crate::incident::{FoldError, Incident, OnInterrupt, Plan, Rung, VerifyCheck};
use crate::policy::PolicySet;
use crate::record::{Accepted, Append, History};

/// What the engine takes in.
#[derive(Debug, Clone)]
pub enum Input {
    /// An alert was committed.
    Accepted(Accepted),
    /// A run's recorder committed an event by itself.
    Noted(Event),
    /// A run ended.
    RunEnded {
        /// Which.
        run: RunId,
        /// How.
        result: RunResult,
    },
    /// A run was cut off, and cannot go on from its record.
    RunLost {
        /// Which.
        run: RunId,
    },
    /// A verification came to an end.
    Verified {
        /// Whose.
        incident: IncidentId,
        /// Which one.
        deadline: Timestamp,
        /// What was seen.
        finding: Finding,
    },
    /// A fleet was looked at.
    Fleet {
        /// Which.
        fleet: Fleet,
        /// Its members, or why they are not known.
        members: Result<Vec<Member>, String>,
    },
    /// Other policies serve from now on.
    PoliciesChanged,
    /// It was looked up what a target is.
    Identified {
        /// Which, as it was rendered.
        target: Target,
        /// What it is, or why that cannot be told.
        found: Result<Identity, String>,
    },
    /// The settings are others from now on.
    Settings(Box<Settings>),
    /// An operator wants something.
    Operator {
        /// Given back with the reply.
        token: u64,
        /// What.
        operator: Operator,
    },
}

/// What a turn came to. First commit `append`; then act and reply.
#[derive(Debug, Default)]
pub struct Turn {
    /// What is to be committed, as one.
    pub append: Append,
    /// What is to be done once that is committed.
    pub actions: Vec<Action>,
    /// What operators are told once that is committed.
    pub replies: Vec<(u64, Result<String, OperatorError>)>,
    /// What is worth a line in the log or a count.
    pub notes: Vec<Note>,
    /// What there was no room for; give it in again after an incident has ended, be it in
    /// this same turn.
    pub deferred: Vec<Deferred>,
}

/// A notification that waits for room.
#[derive(Debug, Clone)]
pub struct Deferred {
    /// The notification.
    pub accepted: Accepted,
    /// The policy that may have no more incidents open; none where it waits for room among
    /// those whose targets are being looked up, which there is after an
    /// [`Input::Identified`].
    pub policy: Option<PolicyName>,
}

/// What is to be done once a turn is committed.
#[derive(Debug, Clone)]
pub enum Action {
    /// Start a run, or let it go on; its end is an [`Input::RunEnded`].
    Run(Box<Order>),
    /// End a run between two effects.
    Stop {
        /// Which.
        run: RunId,
        /// Why.
        cause: StopCause,
        /// In words.
        message: String,
    },
    /// Look until it holds or the deadline has passed; the answer is an
    /// [`Input::Verified`]. It takes the place of an earlier one of the incident.
    Verify(Box<VerifyOrder>),
    /// Look at a fleet; the answer is an [`Input::Fleet`].
    LookAtFleet(Fleet),
    /// Look up what a target is; the answer is an [`Input::Identified`], and has to come.
    Identify(Target),
    /// The incident is over: nothing of it is looked at any more.
    Forget(IncidentId),
}

/// A run, ready to start.
#[derive(Debug, Clone)]
pub struct Order {
    /// The run.
    pub run: RunId,
    /// What for; step 0 tells a person.
    pub rung: Rung,
    /// What the gate does with its effects.
    pub mode: RunMode,
    /// Whether it goes on from its record, with the version that the record names.
    pub resume: bool,
    /// The plugin.
    pub plugin: PluginName,
    /// Which version, where it does not go on.
    pub digest: Digest,
    /// The policy.
    pub policy: PolicyName,
    /// What to act on.
    pub target: Target,
    /// What guards count and lock.
    pub thing: Target,
    /// The alert that opened the incident, as it was then: a run that goes on from its
    /// record is told what it was told before.
    pub alert: Arc<Alert>,
    /// The plugin's params.
    pub params: serde_json::Map<String, serde_json::Value>,
    /// How long it may take.
    pub timeout: Duration,
    /// What becomes of an effect of which nobody knows whether it was carried out.
    pub on_interrupt: OnInterrupt,
    /// The incident's plan; its grants are what the run may touch.
    pub plan: Arc<Plan>,
    /// The approved effects, in mode `apply`.
    pub effects: Vec<PlannedEffect>,
    /// How many log lines to keep before the first effect; none when there is evidence
    /// already.
    pub evidence: Option<u32>,
}

/// A verification, ready to start.
#[derive(Debug, Clone)]
pub struct VerifyOrder {
    /// Whose.
    pub incident: IncidentId,
    /// What is looked at, where the check does not say.
    pub target: Target,
    /// What must hold.
    pub check: VerifyCheck,
    /// The time between two looks.
    pub every: Duration,
    /// When it must have begun to hold.
    pub deadline: Timestamp,
    /// For how long it must hold then, without a break.
    pub steady: Duration,
    /// Where nothing was done about the target: what counts as something all the same.
    pub untouched: Option<Untouched>,
}

/// Nothing was done about a target that is verified. So what is looked at may have been so
/// all along, while the alert says that something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untouched {
    /// Somebody else did something if the container was started after this.
    pub since: Timestamp,
    /// Until when the alert may resolve, which ends the incident, before it is taken to be
    /// right.
    pub until: Timestamp,
}

/// What a verification came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It held for as long as it had to; what was seen.
    Holds(String),
    /// It did not in time; what was seen last.
    Fails(String),
    /// The looks themselves could not be made; why.
    Unknown(String),
}

/// What is worth a line in the log or a count.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields say what the case says")]
pub enum Note {
    /// An incident opened.
    Opened(Box<Incident>),
    /// An open incident was found in the journal.
    Recovered(Box<Incident>),
    /// The events of an incident in the journal are not those of one.
    Unreadable(FoldError),
    /// A guard holds an incident back, and did not before.
    Held {
        incident: Box<Incident>,
        guard: Guard,
        until: Option<Timestamp>,
        reason: String,
    },
    /// A budget that all policies draw from has no room for an incident.
    BudgetUsedUp { policy: PolicyName, full: NoRoom },
    /// An incident ended.
    Ended(Box<Incident>),
    /// A person had to hear of an incident, and nobody was told.
    Untold {
        incident: Box<Incident>,
        why: Silence,
        reason: String,
    },
    /// A plan began to wait for approval.
    Waits {
        incident: Box<Incident>,
        plan: Digest,
        until: Timestamp,
    },
    /// An open incident is under another version of its policy, or under none.
    PolicyChanged {
        incident: Box<Incident>,
        what: String,
    },
    /// A person is being told of something beside an escalation.
    Tells {
        incident: IncidentId,
        notice: Notice,
        reason: String,
    },
    /// A notification was news for an open incident.
    Seen {
        incident: IncidentId,
        alert: Arc<Alert>,
    },
    /// A notification said nothing new about what is over.
    Repeat {
        policy: PolicyName,
        alert: Arc<Alert>,
    },
    /// An alert resolved, and no incident is open for it.
    NothingToDo {
        policy: PolicyName,
        alert: Arc<Alert>,
    },
    /// A run started.
    RunStarted {
        run: RunId,
        plugin: PluginName,
        digest: Digest,
        rung: Rung,
        mode: RunMode,
    },
    /// A run ended before it began, because its plugin does not serve.
    RunNotServed {
        run: RunId,
        plugin: PluginName,
        result: RunResult,
    },
    /// A run goes on from its record.
    RunResumed { run: RunId },
    /// A verification ended.
    Verified {
        incident: IncidentId,
        passed: bool,
        detail: String,
    },
    /// More of a fleet is disturbed than may be.
    StormBegan { policy: PolicyName, reason: String },
    /// It cannot be told what a target is; it is taken for what it is called.
    Unidentified { target: Target, error: String },
    /// It has been within the bound for long enough.
    StormEnded { policy: PolicyName },
    /// The journal could not be asked for something.
    HistoryFailed(&'static str, HistoryError),
}

/// Which version of a plugin serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginVersion {
    /// The version that it says it has.
    pub version: String,
    /// Its digest.
    pub digest: Digest,
}

/// What a turn looks at beside the engine's own state.
pub trait World {
    /// The policies that serve.
    fn policies(&self) -> &PolicySet;

    /// The version of a plugin that serves whoever names it so, if one does.
    fn plugin(&self, plugin: &PluginRef) -> Option<PluginVersion>;

    /// The name that a Docker host is counted by: one Docker Engine may have several in the
    /// configuration. None while that is not known.
    fn docker_host(&self, host: &str) -> Option<String> {
        Some(host.to_owned())
    }

    /// What has been committed.
    fn history(&self) -> &dyn History;
}
