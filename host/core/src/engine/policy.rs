//! What a change of the policies means for what is open: whatever has not begun to act is
//! under the policy as it is now, and whatever acts goes on as it was.

use std::sync::Arc;

use super::{Context, Engine, Note, Work, matching};
use crate::event::EventBody;
use crate::id::IncidentId;
use crate::incident::{AlertKey, Incident};
use crate::mutation::{Mutation, active};
use crate::policy::Mode;

/// What the policy says now of an incident that has not begun to act.
enum Now {
    /// The same as before.
    Same,
    /// This, and why it cannot be acted on if it cannot.
    Other(Box<matching::Matched>),
    /// Nothing: it is not for it any more, and why.
    Gone(String),
}

impl Engine {
    /// Holds every open incident against the policies as they are now.
    pub(super) fn policies_changed(&mut self, work: &mut Work, context: &Context<'_>) {
        let ids: Vec<_> = self.incidents.keys().copied().collect();
        for id in ids {
            self.ask_policy(work, context, id);
        }
    }

    /// Holds an incident against its policy as it is now; whether it is another one, and the
    /// incident goes on under it. One that acts goes on as it was; one whose dry run is under
    /// way is looked at when that is over.
    pub(super) fn ask_policy(
        &mut self,
        work: &mut Work,
        context: &Context<'_>,
        id: IncidentId,
    ) -> bool {
        let Some(incident) = self.incidents.get(&id) else {
            return false;
        };
        if incident.ended() || active(Mutation::PolicyKeptWhileWaiting) {
            return false;
        }
        let now = self.now(context, incident);
        if matches!(now, Now::Same) {
            self.stale.remove(&id);
            return false;
        }
        if !incident.waits_to_begin() {
            if incident.acted_at.is_none() {
                self.stale.insert(id);
            }
            return false;
        }
        self.stale.remove(&id);
        let (bodies, what) = match now {
            Now::Same => return false,
            Now::Gone(reason) => {
                let what = reason.clone();
                (vec![EventBody::PolicyGone { reason }], what)
            }
            Now::Other(matched) => {
                let what = format!(
                    "now under policy {} {} ({})",
                    matched.plan.policy,
                    matched.plan.digest.short(),
                    matched.plan.mode.as_str()
                );
                let plan = Arc::new(matched.plan);
                let refused = matched.refused.map(|reason| EventBody::Refused { reason });
                let changed = EventBody::PolicyChanged { plan };
                (std::iter::once(changed).chain(refused).collect(), what)
            }
        };
        work.turn.notes.push(Note::PolicyChanged {
            incident: Box::new(incident.clone()),
            what,
        });
        for body in bodies {
            self.record(work, context, id, body);
        }
        true
    }
}

impl Engine {
    /// What the policy of an incident says of it now.
    fn now(&self, context: &Context<'_>, incident: &Incident) -> Now {
        let name = &incident.plan.policy;
        let Some(policy) = context.world.policies().get(name) else {
            return Now::Gone(format!("policy {name} is no more"));
        };
        if policy.digest == incident.plan.digest {
            return Now::Same;
        }
        if policy.mode == Mode::Off {
            return Now::Gone(format!("policy {name} is off now"));
        }
        if !policy.matches(&incident.alert.labels) {
            return Now::Gone(format!("policy {name} is not for this alert any more"));
        }
        let alert = AlertKey::from(&incident.alert.episode());
        match matching::matched(policy, &incident.alert) {
            Some(matched) if matched.refused.is_some() => Now::Other(Box::new(matched)),
            Some(matched)
                if self
                    .presumed(context, name, &alert, &matched.identity.target)
                    .thing
                    == *incident.thing() =>
            {
                Now::Other(Box::new(matched))
            }
            Some(matched) => Now::Gone(format!(
                "policy {name} acts on {} for this alert now",
                matched.identity.target
            )),
            None => Now::Gone(format!(
                "policy {name} has nothing to act on for this alert now"
            )),
        }
    }
}
