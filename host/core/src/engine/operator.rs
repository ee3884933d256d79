//! What operators can ask of the engine.

use jiff::Timestamp;

use super::{Action, Context, Engine, Identity, Work};
use crate::control::{ControlBody, Scope};
use crate::event::{EventBody, StopCause};
use crate::id::{Digest, IncidentId};
use crate::incident::{Command, Phase};
use crate::mutation::{Mutation, active};

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say what the case says")]
pub enum Operator {
    /// Throw the stop switch: no effect begins any more in its scope.
    Pause {
        scope: Scope,
        until: Option<Timestamp>,
        by: String,
        reason: String,
    },
    /// Release it.
    Resume { scope: Scope, by: String },
    /// Approve the plan that an incident waits with.
    Approve {
        incident: IncidentId,
        /// The plan that the person saw.
        plan: Digest,
        by: String,
    },
    /// Deny it.
    Deny {
        incident: IncidentId,
        plan: Digest,
        by: String,
        reason: String,
    },
    /// End an incident.
    Cancel {
        incident: IncidentId,
        by: String,
        reason: String,
    },
}

/// Why an operator does not get what they want.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum OperatorError {
    #[error("incident {0} is not open")]
    NotOpen(IncidentId),
    #[error("incident {incident} waits for no approval: it is {state}{}", carried_out(*approved))]
    NotAsked {
        incident: IncidentId,
        state: &'static str,
        approved: bool,
    },
    #[error(
        "that is not the plan's digest: incident {incident} waits with plan {}; look at it with `sentinel incidents show {incident}`",
        plan.short()
    )]
    Changed { incident: IncidentId, plan: Digest },
    #[error("the plan expired at {0}: a person has to look at the incident")]
    Expired(Timestamp),
    #[error("{0} asked for this, and cannot approve it: another person has to")]
    Requester(String),
    #[error("{0} has approved this already: another person has to")]
    Twice(String),
    #[error("{0} is not paused")]
    NotPaused(Scope),
    #[error("{until} has passed: a pause ends in the future")]
    Past { until: Timestamp },
    #[error("the daemon is stopping")]
    Stopping,
}

/// A scope by what guards count and lock, which is what is paused.
fn counted(scope: Scope, context: &Context<'_>) -> Scope {
    match scope {
        Scope::Target(target) => {
            let host = context.world.docker_host(target.host());
            let host = host.unwrap_or_else(|| target.host().to_owned());
            Scope::Target(Identity::by_name(target, &host).thing)
        }
        Scope::All | Scope::Policy(_) => scope,
    }
}

fn carried_out(approved: bool) -> &'static str {
    if approved {
        ", its plan has been approved already"
    } else {
        ""
    }
}

impl Engine {
    pub(super) fn operate(
        &mut self,
        work: &mut Work,
        context: &Context<'_>,
        operator: Operator,
    ) -> Result<String, OperatorError> {
        match operator {
            Operator::Pause {
                scope,
                until,
                by,
                reason,
            } => self.pause(work, context, counted(scope, context), until, by, reason),
            Operator::Resume { scope, by } => {
                self.unpause(work, context, counted(scope, context), by)
            }
            Operator::Approve { incident, plan, by } => {
                self.approve(work, context, incident, plan, by)
            }
            Operator::Deny {
                incident,
                plan,
                by,
                reason,
            } => {
                self.waiting_plan(incident, plan, context.now)?;
                let said = format!("the plan of incident {incident} is denied");
                let body = EventBody::ApprovalDenied { plan, by, reason };
                self.record(work, context, incident, body);
                Ok(said)
            }
            Operator::Cancel {
                incident,
                by,
                reason,
            } => {
                if !self.incidents.contains_key(&incident) {
                    return Err(OperatorError::NotOpen(incident));
                }
                self.record(work, context, incident, EventBody::Cancelled { by, reason });
                Ok(format!("incident {incident} is cancelled"))
            }
        }
    }

    fn pause(
        &mut self,
        work: &mut Work,
        context: &Context<'_>,
        scope: Scope,
        until: Option<Timestamp>,
        by: String,
        reason: String,
    ) -> Result<String, OperatorError> {
        if let Some(until) = until.filter(|until| *until <= context.now) {
            return Err(OperatorError::Past { until });
        }
        let runs: Vec<_> = self
            .incidents
            .values()
            .filter(|incident| scope.covers(&incident.plan.policy, incident.thing()))
            .filter_map(|incident| match &incident.phase {
                Phase::Running { run, .. } => Some(*run),
                _ => None,
            })
            .collect();
        let said = match until {
            Some(until) => format!("{scope} is paused until {until}"),
            None => format!("{scope} is paused until it is resumed"),
        };
        let message = format!("{by} paused {scope}: {reason}");
        work.turn
            .actions
            .extend(runs.into_iter().map(|run| Action::Stop {
                run,
                cause: StopCause::Paused,
                message: message.clone(),
            }));
        // It may take the place of one that would have held longer.
        self.ask_the_held(work, &scope);
        let body = ControlBody::Paused {
            scope,
            until,
            by,
            reason,
        };
        self.control(work, context, body);
        Ok(said)
    }

    /// Asks the guards again about whoever is held in a scope.
    pub(super) fn ask_the_held(&self, work: &mut Work, scope: &Scope) {
        let held = self.incidents.values().filter(|incident| {
            matches!(incident.phase, Phase::Held(_))
                && scope.covers(&incident.plan.policy, incident.thing())
        });
        work.commands
            .extend(held.map(|incident| (incident.id, Command::AskGuards)));
    }

    fn unpause(
        &mut self,
        work: &mut Work,
        context: &Context<'_>,
        scope: Scope,
        by: String,
    ) -> Result<String, OperatorError> {
        if self.controls.pause(&scope, context.now).is_none() {
            return Err(OperatorError::NotPaused(scope));
        }
        let said = format!("{scope} is resumed");
        self.ask_the_held(work, &scope);
        self.control(work, context, ControlBody::Resumed { scope, by });
        Ok(said)
    }

    fn approve(
        &mut self,
        work: &mut Work,
        context: &Context<'_>,
        id: IncidentId,
        plan: Digest,
        by: String,
    ) -> Result<String, OperatorError> {
        let approved_by = self.waiting_plan(id, plan, context.now)?;
        let Some(incident) = self.incidents.get(&id) else {
            return Err(OperatorError::NotOpen(id));
        };
        if incident.requested_by() == Some(by.as_str()) {
            return Err(OperatorError::Requester(by));
        }
        if approved_by.contains(&by) && !active(Mutation::SamePersonTwice) {
            return Err(OperatorError::Twice(by));
        }
        let missing =
            (incident.plan.approval.people as usize).saturating_sub(approved_by.len() + 1);
        let said = if missing == 0 {
            format!("the plan of incident {id} is approved and is carried out")
        } else {
            format!("noted; another person has to approve the plan of incident {id} as well")
        };
        self.record(work, context, id, EventBody::Approved { plan, by });
        Ok(said)
    }

    /// Who approved the plan that an incident waits with so far, if it is `plan`.
    fn waiting_plan(
        &self,
        id: IncidentId,
        plan: Digest,
        now: Timestamp,
    ) -> Result<Vec<String>, OperatorError> {
        let incident = self.incidents.get(&id).ok_or(OperatorError::NotOpen(id))?;
        match &incident.phase {
            Phase::AwaitingApproval { until, .. }
                if *until <= now && !active(Mutation::ExpiredPlanApproved) =>
            {
                Err(OperatorError::Expired(*until))
            }
            Phase::AwaitingApproval { plan: waiting, .. } if *waiting != plan => {
                Err(OperatorError::Changed {
                    incident: id,
                    plan: *waiting,
                })
            }
            Phase::AwaitingApproval { approved_by, .. } => Ok(approved_by.clone()),
            phase => Err(OperatorError::NotAsked {
                incident: id,
                state: phase.as_str(),
                approved: incident.approved.is_some(),
            }),
        }
    }
}
