//! What the world does in a rehearsal.

use std::time::Duration;

use jiff::Timestamp;

use crate::capability::{AnsibleRequest, DockerCall, DockerRequest, Request};
use crate::engine::{Member, Order, VerifyOrder};
use crate::event::{PlannedEffect, RunMode, RunResult};
use crate::guard::settings::Fleet;
use crate::incident::Incident;

/// What becomes of what the engine asks for. Asked once for each run, verification and
/// plan, in the order in which they begin.
pub trait Outcomes {
    /// How a run goes.
    fn run(&mut self, order: &Order) -> ScriptedRun;

    /// What a verification sees.
    fn verify(&mut self, order: &VerifyOrder) -> ScriptedLook;

    /// What people say of the plan that `incident` now waits with.
    fn answers(&mut self, incident: &Incident) -> Vec<Answer>;

    /// When an operator cancels an incident that has just opened; who, and why. Asked of
    /// every incident.
    fn cancelled(&mut self, incident: &Incident) -> Option<(Timestamp, String, String)>;

    /// What a fleet looks like at `now`.
    fn fleet(&mut self, fleet: &Fleet, now: Timestamp) -> Result<Vec<Member>, String>;
}

/// How a run goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptedRun {
    /// How long it takes.
    pub takes: Duration,
    /// What it changes outside, or would change in a dry run, and how long after its
    /// begin; in order.
    pub effects: Vec<(Duration, PlannedEffect)>,
    /// How it ends if nothing stops it.
    pub result: RunResult,
}

/// What a verification sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptedLook {
    /// After how long it begins to hold, or is seen not to; an answer after the deadline is
    /// one at the deadline.
    pub after: Duration,
    /// Whether it is what was asked for, and what was seen.
    pub result: Result<String, String>,
}

/// What a person says of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How long after the plan began to wait.
    pub after: Duration,
    /// Who.
    pub by: String,
    /// What.
    pub verdict: Verdict,
}

/// What a person says of an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its plan is to be carried out.
    Approve,
    /// Its plan is not to be carried out, and why.
    Deny(String),
    /// It is to end, and why.
    Cancel(String),
}

/// The same for every run: it changes one thing, and that helps or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assumed {
    /// How long a run takes.
    pub takes: Duration,
    /// After how long what is verified begins to hold.
    pub looks: Duration,
    /// Whether what a run changes heals the target.
    pub heals: bool,
    /// After how long a plan is approved; never when none.
    pub approves: Option<Duration>,
}

impl Default for Assumed {
    fn default() -> Self {
        Self {
            takes: Duration::from_secs(1),
            looks: Duration::from_secs(1),
            heals: true,
            approves: None,
        }
    }
}

impl Assumed {
    /// A run that does what it is for.
    #[must_use]
    pub fn success(&self, order: &Order) -> ScriptedRun {
        // Telling a person changes nothing on the target.
        let effect = (order.rung.step > 0).then(|| (Duration::ZERO, effect(order)));
        ScriptedRun {
            takes: self.takes,
            effects: effect.into_iter().collect(),
            result: RunResult::Changed {
                message: match order.mode {
                    RunMode::Dry => "assumed to plan one effect".to_owned(),
                    RunMode::Live | RunMode::Apply => {
                        "assumed to have changed something".to_owned()
                    }
                },
            },
        }
    }
}

impl Outcomes for Assumed {
    fn run(&mut self, order: &Order) -> ScriptedRun {
        self.success(order)
    }

    fn verify(&mut self, order: &VerifyOrder) -> ScriptedLook {
        if self.heals {
            ScriptedLook {
                after: self.looks,
                result: Ok("assumed to be healed".to_owned()),
            }
        } else {
            ScriptedLook {
                // Looked at until the deadline.
                after: order.every.max(Duration::from_hours(24 * 365)),
                result: Err("assumed not to be healed".to_owned()),
            }
        }
    }

    fn answers(&mut self, _incident: &Incident) -> Vec<Answer> {
        // As many as a policy can ask for.
        let people = ["a person", "another person"];
        let answers = self.approves.into_iter().flat_map(|after| {
            people.map(|by| Answer {
                after,
                by: by.to_owned(),
                verdict: Verdict::Approve,
            })
        });
        answers.collect()
    }

    fn cancelled(&mut self, _incident: &Incident) -> Option<(Timestamp, String, String)> {
        None
    }

    fn fleet(&mut self, _fleet: &Fleet, _now: Timestamp) -> Result<Vec<Member>, String> {
        Ok(Vec::new())
    }
}

/// What a step is assumed to change: its target, or what its playbook changes there.
fn effect(order: &Order) -> PlannedEffect {
    let playbook = order.params.get("playbook").and_then(|name| name.as_str());
    let request = match playbook {
        Some(playbook) => Request::Ansible(AnsibleRequest {
            playbook: playbook.to_owned(),
            extra_vars: serde_json::Map::new(),
            limit: None,
            tags: Vec::new(),
            timeout_ms: None,
        }),
        None => Request::Docker(DockerRequest {
            host: order.target.host().to_owned(),
            call: DockerCall::Restart {
                container: order.target.name().to_owned(),
                grace_ms: 0,
            },
        }),
    };
    PlannedEffect { request, on: None }
}
