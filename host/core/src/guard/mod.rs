//! What can hold an incident back. Guards are asked before every run, in a fixed order,
//! and each verdict says when it would let go.
//!
//! The order: pause, maintenance, breaker, cooldown, target lock, concurrency, rate,
//! blast radius, approval. (A repetition is told apart before an incident opens, see
//! [`crate::engine`]; approval follows the dry run that makes the plan, see
//! [`crate::incident`].)

pub mod limits;
pub mod settings;
pub mod share;

use jiff::Timestamp;
use serde::Serialize;

use self::limits::{NoRoom, full_until};
use self::settings::{Breaker, Excess, Maintenance, Window};
use crate::control::Pause;
use crate::duration::HumanDuration;
use crate::event::Guard;
use crate::id::{IncidentId, PluginName};
use crate::incident::{Incident, later};
use crate::mutation::{Mutation, active};
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
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

/// The guards that are asked before a run, in this order.
pub const ORDER: [Guard; 8] = [
    Guard::Pause,
    Guard::Maintenance,
    Guard::Breaker,
    Guard::Cooldown,
    Guard::TargetLock,
    Guard::Concurrency,
    Guard::Rate,
    Guard::BlastRadius,
];

/// Asks every guard about `incident`, in order. The first that holds decides.
#[must_use]
pub fn evaluate(incident: &Incident, view: &GuardView<'_>, now: Timestamp) -> Verdict {
    ORDER
        .into_iter()
        .map(|guard| ask(guard, incident, view, now))
        .find(|verdict| *verdict != Verdict::Pass)
        .unwrap_or(Verdict::Pass)
}

/// What one guard says of `incident`, whatever the others say.
#[must_use]
pub fn ask(guard: Guard, incident: &Incident, view: &GuardView<'_>, now: Timestamp) -> Verdict {
    let guards = &incident.plan.guards;
    let policy = &incident.plan.policy;
    let held = |until: Option<Timestamp>, reason: String| Verdict::Hold {
        guard,
        until,
        reason,
    };
    let verdict = match guard {
        Guard::Pause => view
            .pause
            .filter(|_| incident.suspended.is_none() || !active(Mutation::PauseForgetsSuspended))
            .map(|pause| held(pause.until, pause.to_string())),
        Guard::Maintenance => {
            let windows = guards.maintenance.iter().chain(view.maintenance);
            let until = windows.filter_map(|window| window.until(now)).max();
            until.map(|until| held(Some(until), "a maintenance window holds".to_owned()))
        }
        Guard::Breaker => breaker(guards.breaker, guards.flapping, view, now)
            .map(|(until, reason)| held(Some(until), reason)),
        Guard::Cooldown => view.standing.last_run_at.and_then(|last| {
            let from = if active(Mutation::CooldownFromAlert) {
                incident.alert.starts_at
            } else {
                last
            };
            let until = later(from, guards.cooldown);
            let reason = format!(
                "policy {policy} acted on {} at {last} (guards.cooldown)",
                incident.target
            );
            (now < until).then(|| held(Some(until), reason))
        }),
        Guard::TargetLock => view.locked_by.map(|holder| {
            let reason = format!("incident {holder} is acting on {}", incident.target);
            held(None, reason)
        }),
        Guard::Concurrency => view.crowd.as_ref().map(|crowd| {
            let reason = match crowd {
                Crowd::Policy(count) => {
                    format!("{count} runs of policy {policy} are under way (guards.concurrency)")
                }
                Crowd::Plugin(plugin, count) => format!("{count} runs of {plugin} are under way"),
                Crowd::All(count) => format!("{count} runs are under way"),
            };
            held(None, reason)
        }),
        Guard::Rate => rate(incident, view, now),
        Guard::BlastRadius => view
            .radius
            .as_ref()
            .map(|radius| held(radius.until, radius.reason.clone())),
        // A repetition is told apart before an incident opens, and approval follows the
        // dry run that makes the plan.
        Guard::Repeat | Guard::Approval => None,
    };
    verdict.unwrap_or(Verdict::Pass)
}

/// What the windows say: that of the policy's runs, and those of effects.
fn rate(incident: &Incident, view: &GuardView<'_>, now: Timestamp) -> Option<Verdict> {
    let guard = Guard::Rate;
    // A run that goes on was counted when it began.
    if let (Some(rate), None) = (incident.plan.guards.rate, incident.suspended)
        && let Some(until) = full_until(rate.window, &view.runs, now)
    {
        let reason = format!(
            "policy {} began {} runs within {} (guards.rate)",
            incident.plan.policy,
            rate.window.max,
            HumanDuration(rate.window.per)
        );
        return Some(match rate.then {
            Excess::Queue => Verdict::Hold {
                guard,
                until: Some(until),
                reason,
            },
            Excess::Drop => Verdict::Drop { guard, reason },
        });
    }
    view.effects.as_ref().map(|full| Verdict::Hold {
        guard,
        until: Some(full.until),
        reason: full.reason.clone(),
    })
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
        && !(active(Mutation::BreakerOpensOnce) && failures > breaker.failures)
    {
        let until = later(failed_at, breaker.open_for);
        if now < until {
            let reason = format!(
                "the breaker is open (guards.breaker): the last {failures} incidents were not healed"
            );
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
        "the target flaps (guards.flapping): {} incidents opened within {}",
        view.opened.len(),
        HumanDuration(window.per)
    );
    Some((until, reason))
}
