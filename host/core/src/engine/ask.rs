//! What the engine would make of something now, without making it.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::news::News;
use super::{Context, Engine, Identity, Settings, Work, World, matching, whole_micros};
use crate::control::{ControlEvent, Controls};
use crate::event::{Event, EventBody, Guard};
use crate::guard::limits::EffectWindows;
use crate::guard::{self, Radius, Verdict};
use crate::id::{IncidentId, PolicyName, Target};
use crate::incident::{AlertKey, Incident};
use crate::record::Accepted;

/// What would become of a firing notification under a policy that is for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// The policy.
    pub policy: PolicyName,
    /// What it would act on.
    pub target: Target,
    /// What would become of it.
    #[serde(flatten)]
    pub course: Course,
    /// What each guard would say, in their order; of an incident that is open, what each
    /// would say of its next run.
    pub guards: Vec<(Guard, Verdict)>,
}

/// What would become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "course", rename_all = "kebab-case")]
pub enum Course {
    /// It would open an incident.
    Opens,
    /// It would open an incident that goes straight to a person.
    Escalates {
        /// Why.
        reason: String,
    },
    /// It concerns an incident that is open.
    Joins {
        /// Which.
        incident: IncidentId,
    },
    /// It is a repetition of what is over.
    Repeats {
        /// The incident that the episode led to; none when the end of the episode has
        /// overtaken it.
        of: Option<IncidentId>,
    },
}

impl Engine {
    /// An engine that knows what is open, to be asked and not to be driven.
    #[must_use]
    pub fn knowing(
        settings: Settings,
        open: impl IntoIterator<Item = Incident>,
        controls: &[ControlEvent],
    ) -> Self {
        let mut engine = Self::new(settings);
        engine.controls = Controls::fold(controls);
        let mut work = Work::default();
        for incident in open {
            engine.adopt(&mut work, incident);
        }
        engine
    }

    /// What each guard says of an incident's next run now, in their order. The blast
    /// radius is not asked, because the fleet would have to be counted, but a storm that
    /// is on record holds.
    #[must_use]
    pub fn verdicts(
        &self,
        incident: &Incident,
        now: Timestamp,
        world: &dyn World,
        effects: &EffectWindows,
    ) -> Vec<(Guard, Verdict)> {
        let context = Context {
            now: whole_micros(now),
            world,
            effects,
            stopping: false,
        };
        let mut view = self.view(&mut Work::default(), &context, incident);
        let policy = &incident.plan.policy;
        let storm = self.controls.storms().find(|(name, _)| *name == policy);
        if let (Some(_), Some((_, since))) = (&incident.plan.guards.blast_radius, storm) {
            view.radius = Some(Radius {
                // A look ends it, and not time.
                until: None,
                reason: format!("a storm began at {since}"),
            });
        }
        guard::ORDER
            .into_iter()
            .map(|guard| (guard, guard::ask(guard, incident, &view, context.now)))
            .collect()
    }

    /// What would become of a firing notification now, under each policy that is for it.
    #[must_use]
    pub fn consider(
        &self,
        accepted: &Accepted,
        now: Timestamp,
        world: &dyn World,
        effects: &EffectWindows,
    ) -> Vec<Considered> {
        let context = Context {
            now: whole_micros(now),
            world,
            effects,
            stopping: false,
        };
        let matched = matching::matches(world.policies(), &accepted.alert);
        let alert = AlertKey::from(&accepted.alert.episode());
        matched
            .into_iter()
            .map(|mut matched| {
                let target = matched.identity.target.clone();
                let presumed = self.presumed(&context, &matched.plan.policy, &alert, &target);
                matched.identify(Some((target, presumed)));
                self.consider_one(accepted, matched, &context)
            })
            .collect()
    }

    fn consider_one(
        &self,
        accepted: &Accepted,
        matched: matching::Matched,
        context: &Context<'_>,
    ) -> Considered {
        let policy = matched.plan.policy.clone();
        let Identity { target, thing } = matched.identity.clone();
        let verdicts = |incident: &Incident| {
            self.verdicts(incident, context.now, context.world, context.effects)
        };
        let open = self.by_target.get(&(policy.clone(), thing.clone()));
        if let Some(incident) = open.and_then(|id| self.incidents.get(id)) {
            return Considered {
                policy,
                target,
                course: Course::Joins {
                    incident: incident.id,
                },
                guards: verdicts(incident),
            };
        }
        let course = match (
            self.judge(&mut Work::default(), context, accepted, &matched),
            matched.refused,
        ) {
            (News::Repeat, _) => {
                let history = context.world.history();
                let episode = accepted.alert.episode();
                let known = history.incident_of(&episode, &policy, &thing);
                let of = known.ok().flatten().map(|row| row.id);
                Course::Repeats { of }
            }
            (News::StillFiring(reason), _) | (News::Episode, Some(reason)) => {
                Course::Escalates { reason }
            }
            (News::Again(_, _), Some(reason)) => Course::Escalates { reason },
            (News::Episode | News::Again(_, _), None) => Course::Opens,
        };
        let opened = Event {
            at: context.now,
            // A number that no incident has.
            incident: IncidentId(u64::MAX),
            body: EventBody::Opened {
                plan: Arc::new(matched.plan),
                target: target.clone(),
                thing: matched.identity.other_thing(),
                alert: accepted.alert.clone(),
                accepted_at: accepted.received_at,
            },
        };
        let guards = match &course {
            // A person is told whatever the guards say.
            Course::Escalates { .. } => Vec::new(),
            _ => Incident::open(&opened)
                .map(|(incident, _)| verdicts(&incident))
                .unwrap_or_default(),
        };
        Considered {
            policy,
            target,
            course,
            guards,
        }
    }
}
