//! What can hold an incident back. Guards are asked before every run, in a fixed order,
//! and each verdict says when it would let go.
//!
//! The order: pause, maintenance, breaker, cooldown, target lock, concurrency, rate,
//! blast radius, approval. (A repetition is told apart before an incident opens, see
//! [`crate::engine`]; approval follows the dry run that makes the plan, see
//! [`crate::incident`].)

pub mod limits;
pub mod settings;

use jiff::Timestamp;

use self::limits::{NoRoom, full_until};
use self::settings::{Breaker, Excess, Maintenance, Window};
use crate::control::Pause;
use crate::duration::HumanDuration;
use crate::event::Guard;
use crate::id::{IncidentId, PluginName};
use crate::incident::{Incident, later};
use crate::record::Standing;

/// What the guards look at beside the incident itself.
#[derive(Debug, Clone, Default)]
pub struct GuardView<'a> {
    /// The pause that covers the incident.
    pub pause: Option<&'a Pause>,
    /// The maintenance that holds for all policies.
    pub maintenance: &'a [Maintenance],
    /// How the policy has fared on the target in other incidents.
    pub standing: Standing,
    /// When incidents of the policy opened on the target inside the window of
    /// `flapping`, this one included, in order.
    pub opened: Vec<Timestamp>,
    /// The other incident that is acting on the target.
    pub locked_by: Option<IncidentId>,
    /// What there is too much of at once.
    pub crowd: Option<Crowd>,
    /// When runs of the policy began inside the window of its `rate`, in order.
    pub runs: Vec<Timestamp>,
    /// What the limits on effects say of the target.
    pub effects: Option<NoRoom>,
    /// What the fleet's state says.
    pub radius: Option<Radius>,
}

/// What there is too much of at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Crowd {
    /// Runs of the policy.
    Policy(u32),
    /// Runs of the plugin.
    Plugin(PluginName, u32),
    /// Runs.
    All(u32),
}

/// Why the blast radius holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Radius {
    /// When it would let go; none in a storm, which a look at the fleet ends.
    pub until: Option<Timestamp>,
    /// What is disturbed.
    pub reason: String,
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
        /// When it would let go; none when that depends on something else than time.
        until: Option<Timestamp>,
        /// Why.
        reason: String,
    },
    /// A guard drops it.
    Drop {
        /// Which.
        guard: Guard,
        /// Why.
        reason: String,
    },
}

/// Asks every guard about `incident`, in order. The first that holds decides.
#[must_use]
pub fn evaluate(incident: &Incident, view: &GuardView<'_>, now: Timestamp) -> Verdict {
    let guards = &incident.plan.guards;
    let hold = |guard, until, reason| Verdict::Hold {
        guard,
        until,
        reason,
    };
    if let Some(pause) = view.pause {
        return hold(Guard::Pause, pause.until, pause.to_string());
    }
    let windows = guards.maintenance.iter().chain(view.maintenance);
    if let Some(until) = windows.filter_map(|window| window.until(now)).max() {
        let reason = "a maintenance window holds".to_owned();
        return hold(Guard::Maintenance, Some(until), reason);
    }
    if let Some((until, reason)) = breaker(guards.breaker, guards.flapping, view, now) {
        return hold(Guard::Breaker, Some(until), reason);
    }
    let policy = &incident.plan.policy;
    if let Some(last) = view.standing.last_run_at {
        let until = later(last, guards.cooldown);
        if now < until {
            let reason = format!("policy {policy} acted on {} at {last}", incident.target);
            return hold(Guard::Cooldown, Some(until), reason);
        }
    }
    if let Some(holder) = view.locked_by {
        let reason = format!("incident {holder} is acting on {}", incident.target);
        return hold(Guard::TargetLock, None, reason);
    }
    if let Some(crowd) = &view.crowd {
        let reason = match crowd {
            Crowd::Policy(count) => format!("{count} runs of policy {policy} are under way"),
            Crowd::Plugin(plugin, count) => format!("{count} runs of {plugin} are under way"),
            Crowd::All(count) => format!("{count} runs are under way"),
        };
        return hold(Guard::Concurrency, None, reason);
    }
    // A run that goes on was counted when it began.
    if let (Some(rate), None) = (guards.rate, incident.suspended)
        && let Some(until) = full_until(rate.window, &view.runs, now)
    {
        let reason = format!(
            "policy {policy} began {} runs within {}",
            rate.window.max,
            HumanDuration(rate.window.per)
        );
        return match rate.then {
            Excess::Queue => hold(Guard::Rate, Some(until), reason),
            Excess::Drop => Verdict::Drop {
                guard: Guard::Rate,
                reason,
            },
        };
    }
    if let Some(full) = &view.effects {
        return hold(Guard::Rate, Some(full.until), full.reason.clone());
    }
    if let Some(radius) = &view.radius {
        let reason = radius.reason.clone();
        return hold(Guard::BlastRadius, radius.until, reason);
    }
    Verdict::Pass
}

/// When the circuit breaker lets one incident try again; none when it is closed.
fn breaker(
    breaker: Breaker,
    flapping: Option<Window>,
    view: &GuardView<'_>,
    now: Timestamp,
) -> Option<(Timestamp, String)> {
    let failures = view.standing.failures;
    if let Some(failed_at) = view.standing.failed_at
        && failures >= breaker.failures
    {
        let until = later(failed_at, breaker.open_for);
        if now < until {
            let reason =
                format!("the breaker is open: the last {failures} incidents were not healed");
            return Some((until, reason));
        }
    }
    let window = flapping?;
    // This incident is one of those that opened, and may be the last that has room.
    let most = Window {
        max: window.max.saturating_add(1),
        per: window.per,
    };
    let until = full_until(most, &view.opened, now)?;
    let reason = format!(
        "the target flaps: {} incidents opened within {}",
        view.opened.len(),
        HumanDuration(window.per)
    );
    Some((until, reason))
}
