//! The blast radius: how much of a real fleet is disturbed, and storms.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::{Action, Context, Engine, Note, Work};
use crate::control::ControlBody;
use crate::duration::HumanDuration;
use crate::event::Guard;
use crate::guard::Radius;
use crate::guard::settings::{BlastRadius, Fleet};
use crate::id::{IncidentId, PolicyName, Target};
use crate::incident::{Command, Incident, Phase, later};
use crate::record::earlier;

/// How old a look at a fleet may be.
const FRESH: Duration = Duration::from_secs(2);
/// When a fleet that could not be looked at is looked at again.
const RETRY: Duration = Duration::from_secs(10);
/// The most and the least time between two looks in a storm.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A container of a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Whether it runs, and does not say that it is ill.
    pub well: bool,
}

/// What the blast radius says.
#[derive(Debug)]
pub(super) enum Told {
    /// Nothing yet: the fleet is being looked at.
    Later,
    /// There is room.
    Within,
    /// It holds.
    Beyond(Radius),
}

/// What is known of fleets.
#[derive(Debug, Default)]
pub(super) struct Fleets {
    seen: HashMap<Fleet, View>,
    // Incidents whose guards wait for a look.
    waiting: HashMap<Fleet, BTreeSet<IncidentId>>,
    // When a policy that is in a storm was last beyond its bound.
    exceeded: BTreeMap<PolicyName, Timestamp>,
    looks: BTreeMap<Fleet, Timestamp>,
}

#[derive(Debug)]
struct View {
    at: Timestamp,
    members: Result<Vec<Member>, String>,
}

impl Fleets {
    pub(super) fn next_look(&self) -> Option<Timestamp> {
        self.looks.values().min().copied()
    }

    /// Notes that a policy is beyond its bound.
    pub(super) fn exceeded(&mut self, policy: &PolicyName, now: Timestamp) {
        self.exceeded.insert(policy.clone(), now);
    }

    fn fresh(&self, fleet: &Fleet, now: Timestamp) -> Option<&View> {
        self.seen
            .get(fleet)
            .filter(|view| view.at > earlier(now, FRESH) && view.at <= now)
    }
}

impl Engine {
    /// What the blast radius says of an incident. When the fleet has to be looked at first,
    /// that is asked for.
    pub(super) fn radius(
        &mut self,
        work: &mut Work,
        context: &Context<'_>,
        incident: &Incident,
    ) -> Told {
        let Some(guard) = incident.plan.guards.blast_radius.as_ref() else {
            return Told::Within;
        };
        let policy = &incident.plan.policy;
        let now = context.now;
        let calm = HumanDuration(guard.calm);
        if self.fleets.exceeded.contains_key(policy) {
            // Not time ends it, but a look, which asks again whoever is held.
            return Told::Beyond(Radius {
                until: None,
                reason: format!(
                    "too much of the fleet was disturbed, and {calm} of calm must follow"
                ),
            });
        }
        let Some(view) = self.fleets.fresh(&guard.of, now) else {
            let waiting = self.fleets.waiting.entry(guard.of.clone()).or_default();
            let first = waiting.is_empty();
            waiting.insert(incident.id);
            if first {
                let look = Action::LookAtFleet(guard.of.clone());
                work.turn.actions.push(look);
            }
            return Told::Later;
        };
        let members = match &view.members {
            Ok(members) => members,
            Err(error) => {
                return Told::Beyond(Radius {
                    until: Some(later(now, RETRY)),
                    reason: format!("the fleet cannot be counted: {error}"),
                });
            }
        };
        let (disturbed, bound) = self.disturbed(context, guard, members, Some(incident.thing()));
        if disturbed <= bound {
            return Told::Within;
        }
        let reason = format!(
            "{disturbed} of {} members of the fleet would be disturbed at once, {bound} may be; {calm} of calm must follow",
            members.len()
        );
        self.storm(work, context, policy, reason.clone());
        let until = None;
        Told::Beyond(Radius { until, reason })
    }

    fn storm(
        &mut self,
        work: &mut Work,
        context: &Context<'_>,
        policy: &PolicyName,
        reason: String,
    ) {
        self.fleets.exceeded(policy, context.now);
        work.turn.notes.push(Note::StormBegan {
            policy: policy.clone(),
            reason: reason.clone(),
        });
        let body = ControlBody::StormBegan {
            policy: policy.clone(),
            reason,
        };
        self.control(work, context, body);
    }

    /// How many members are ill or acted on, with `other` as one more, and how many may
    /// be.
    fn disturbed(
        &self,
        context: &Context<'_>,
        guard: &BlastRadius,
        members: &[Member],
        other: Option<&Target>,
    ) -> (usize, usize) {
        let host = context.world.docker_host(&guard.of.host);
        let host = host.as_deref().unwrap_or(&guard.of.host);
        let of_fleet = |target: &Target| {
            target.is_container()
                && target.host() == host
                && members.iter().any(|member| member.name == target.name())
        };
        let ill = members
            .iter()
            .filter(|member| !member.well)
            .map(|member| member.name.as_str());
        let acted_on = self
            .locks
            .keys()
            .filter(|target| of_fleet(target))
            .map(Target::name);
        let disturbed: BTreeSet<_> = ill.chain(acted_on).chain(other.map(Target::name)).collect();
        (disturbed.len(), guard.max.of(members.len()))
    }

    /// Whether no more of a fleet is disturbed than may be, and would not be at once if
    /// the storm ended now: one of those that it holds must fit.
    fn calm(
        &self,
        context: &Context<'_>,
        policy: &PolicyName,
        guard: &BlastRadius,
        members: &[Member],
    ) -> bool {
        let fits = |other| {
            let (disturbed, bound) = self.disturbed(context, guard, members, other);
            disturbed <= bound
        };
        let mut held = self.held_by_storm(policy).peekable();
        fits(None) && (held.peek().is_none() || held.any(|incident| fits(Some(incident.thing()))))
    }

    fn held_by_storm(&self, policy: &PolicyName) -> impl Iterator<Item = &Incident> {
        self.incidents.values().filter(move |incident| {
            let hold = match &incident.phase {
                Phase::Held(hold) => Some(hold.guard),
                _ => None,
            };
            incident.plan.policy == *policy && hold == Some(Guard::BlastRadius)
        })
    }

    /// A fleet was looked at.
    pub(super) fn fleet_seen(
        &mut self,
        work: &mut Work,
        context: &Context<'_>,
        fleet: &Fleet,
        members: Result<Vec<Member>, String>,
    ) {
        let now = context.now;
        for (policy, guard) in self.stormy(context) {
            if guard.of != *fleet {
                continue;
            }
            let calm = members
                .as_ref()
                .is_ok_and(|members| self.calm(context, &policy, &guard, members));
            if !calm {
                self.fleets.exceeded(&policy, now);
                continue;
            }
            let over = self
                .fleets
                .exceeded
                .get(&policy)
                .is_none_or(|exceeded| later(*exceeded, guard.calm) <= now);
            if over {
                self.end_storm(work, context, policy);
            }
        }
        let view = View { at: now, members };
        self.fleets.seen.insert(fleet.clone(), view);
        let waiting = self.fleets.waiting.remove(fleet).unwrap_or_default();
        work.commands
            .extend(waiting.into_iter().map(|id| (id, Command::AskGuards)));
    }

    fn end_storm(&mut self, work: &mut Work, context: &Context<'_>, policy: PolicyName) {
        self.fleets.exceeded.remove(&policy);
        let held: Vec<_> = self
            .held_by_storm(&policy)
            .map(|incident| (incident.id, Command::AskGuards))
            .collect();
        work.commands.extend(held);
        work.turn.notes.push(Note::StormEnded {
            policy: policy.clone(),
        });
        self.control(work, context, ControlBody::StormEnded { policy });
    }

    /// The policies that are in a storm, with their bound: the one that serves, else that
    /// of an open incident, which keeps the policy as it was.
    fn stormy(&self, context: &Context<'_>) -> Vec<(PolicyName, BlastRadius)> {
        let of_incident = |name: &PolicyName| {
            self.incidents
                .values()
                .filter(|incident| incident.plan.policy == *name)
                .find_map(|incident| incident.plan.guards.blast_radius.clone())
        };
        self.fleets
            .exceeded
            .keys()
            .filter_map(|name| {
                let serving = context.world.policies().get(name);
                let guard = serving
                    .and_then(|policy| policy.guards.blast_radius.clone())
                    .or_else(|| of_incident(name))?;
                Some((name.clone(), guard))
            })
            .collect()
    }

    /// Asks for the looks that storms need, and ends those of policies that are gone.
    pub(super) fn schedule_looks(&mut self, work: &mut Work, context: &Context<'_>) {
        let now = context.now;
        let stormy = self.stormy(context);
        let gone: Vec<_> = self
            .fleets
            .exceeded
            .keys()
            .filter(|name| !stormy.iter().any(|(policy, _)| policy == *name))
            .cloned()
            .collect();
        for policy in gone {
            self.end_storm(work, context, policy);
        }
        let fleets: BTreeMap<_, _> = stormy
            .into_iter()
            .map(|(_, guard)| (guard.of, (guard.calm / 5).clamp(LOOKS.0, LOOKS.1)))
            .collect();
        self.fleets
            .looks
            .retain(|fleet, _| fleets.contains_key(fleet));
        for (fleet, every) in fleets {
            let next = self.fleets.looks.entry(fleet.clone());
            let next = next.or_insert_with(|| later(now, every));
            // A clock that was set back must not put the next look far away.
            if *next <= now || *next > later(now, every) {
                *next = later(now, every);
                work.turn.actions.push(Action::LookAtFleet(fleet));
            }
        }
    }
}
