//! What can hold an incident back. Guards are asked in a fixed order, and each verdict
//! says when it would let go.

pub mod settings;

use jiff::Timestamp;

use crate::event::Guard;
use crate::id::IncidentId;
use crate::incident::{Incident, later};

/// What the guards look at beside the incident itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuardView {
    /// When a run of the same policy on the same target ended last, in another
    /// incident.
    pub last_run_at: Option<Timestamp>,
    /// The other incident that is acting on the target.
    pub locked_by: Option<IncidentId>,
}

/// What the guards say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every guard lets the incident through.
    Pass,
    /// A guard holds it back.
    Hold {
        /// Which.
        guard: Guard,
        /// When it would let go; none when that depends on another incident.
        until: Option<Timestamp>,
        /// Why.
        reason: String,
    },
}

/// Asks every guard about `incident`, in order: cooldown, target lock. The first that
/// holds decides.
#[must_use]
pub fn evaluate(incident: &Incident, view: GuardView, now: Timestamp) -> Verdict {
    if let Some(last) = view.last_run_at {
        let until = later(last, incident.plan.guards.cooldown);
        if now < until {
            return Verdict::Hold {
                guard: Guard::Cooldown,
                until: Some(until),
                reason: format!(
                    "policy {} acted on {} at {last}",
                    incident.plan.policy, incident.target
                ),
            };
        }
    }
    if let Some(holder) = view.locked_by {
        return Verdict::Hold {
            guard: Guard::TargetLock,
            until: None,
            reason: format!("incident {holder} is acting on {}", incident.target),
        };
    }
    Verdict::Pass
}
