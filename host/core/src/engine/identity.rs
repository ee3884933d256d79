//! What the target of an alert is, whatever it was called.
//!
//! Guards count and lock things and not texts: one container can be called by its name, its
//! id and every prefix of that, and one Docker Engine by several names of the configuration.
//! Where a text can be nothing but a name it is known at once. Else Docker is asked before
//! anything opens, and the alert waits for that.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use jiff::Timestamp;

use super::{Action, Context, Engine, Note, Work};
use crate::id::{PolicyName, Target};
use crate::incident::AlertKey;
use crate::mutation::{Mutation, active};
use crate::record::{Accepted, earlier};

/// How long what Docker said a text is counts.
const FRESH: Duration = Duration::from_secs(30);
/// How many alerts wait for that; more of them wait like those that there is no room for.
const WAITING: usize = 1_000;

/// What a target turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// What to act on: the host as the policy names it, and the container by its name.
    pub target: Target,
    /// What guards count and lock.
    pub thing: Target,
}

impl Identity {
    /// A target that is what it is called, on a host that is counted as `host`.
    #[must_use]
    pub fn by_name(target: Target, host: &str) -> Self {
        let thing = if target.is_container() && target.host() != host {
            Target::container(host, target.name())
        } else {
            target.thing()
        };
        Self { target, thing }
    }

    /// What counts, where it is not what is acted on.
    pub(super) fn other_thing(&self) -> Option<Target> {
        (self.thing != self.target).then(|| self.thing.clone())
    }
}

/// What is known of targets that are to be looked up, and who waits for that.
#[derive(Debug, Default)]
pub(super) struct Identities {
    known: HashMap<Target, (Timestamp, Identity)>,
    waiting: HashMap<Target, Vec<Accepted>>,
    count: usize,
}

impl Identities {
    /// Forgets what does not count any more.
    pub(super) fn tidy(&mut self, now: Timestamp) {
        self.known.retain(|_, (at, _)| is_fresh(*at, now));
    }

    /// The alerts that wait, by their places in the inbox.
    pub(super) fn waiting(&self) -> impl Iterator<Item = u64> {
        self.waiting.values().flatten().map(|accepted| accepted.seq)
    }
}

fn is_fresh(at: Timestamp, now: Timestamp) -> bool {
    at > earlier(now, FRESH) && at <= now
}

impl Engine {
    /// What `target` is; none where Docker has to be asked first.
    pub(super) fn identity(&self, context: &Context<'_>, target: &Target) -> Option<Identity> {
        if !target.is_container() {
            return Some(Identity::by_name(target.clone(), target.host()));
        }
        let host = context.world.docker_host(target.host());
        if let Some(host) = &host
            && (!target.may_be_an_id() || active(Mutation::AliasesBelieved))
        {
            return Some(Identity::by_name(target.clone(), host));
        }
        let (at, identity) = self.identities.known.get(target)?;
        is_fresh(*at, context.now).then(|| identity.clone())
    }

    /// What `target` is as far as is known without asking anybody: what it is to an open
    /// incident of the policy that has the alert, or what it is called.
    pub(super) fn presumed(
        &self,
        context: &Context<'_>,
        policy: &PolicyName,
        alert: &AlertKey,
        target: &Target,
    ) -> Identity {
        self.identity(context, target)
            .or_else(|| self.to_an_incident(policy, alert))
            .unwrap_or_else(|| {
                let host = context.world.docker_host(target.host());
                let host = host.unwrap_or_else(|| target.host().to_owned());
                Identity::by_name(target.clone(), &host)
            })
    }

    /// What the target of an alert is to an open incident of the policy that has the alert:
    /// a repetition asks nobody.
    pub(super) fn to_an_incident(&self, policy: &PolicyName, alert: &AlertKey) -> Option<Identity> {
        let ids = self.by_alert.get(alert)?;
        let mut incidents = ids.iter().filter_map(|id| self.incidents.get(id));
        let incident =
            incidents.find(|incident| incident.plan.policy == *policy && !incident.ended())?;
        Some(Identity {
            target: incident.target.clone(),
            thing: incident.thing().clone(),
        })
    }

    /// Lets an alert wait until it is known what its `targets` are; false where too many
    /// wait.
    pub(super) fn await_identity(
        &mut self,
        work: &mut Work,
        targets: Vec<Target>,
        accepted: &Accepted,
    ) -> bool {
        let identities = &mut self.identities;
        if identities.count >= WAITING {
            return false;
        }
        identities.count += 1;
        // All are asked for at once, and the first leads to the next.
        for (index, target) in targets.into_iter().enumerate() {
            let waiting = match identities.waiting.entry(target) {
                Entry::Occupied(waiting) => waiting.into_mut(),
                Entry::Vacant(vacant) => {
                    let look = Action::Identify(vacant.key().clone());
                    work.turn.actions.push(look);
                    vacant.insert(Vec::new())
                }
            };
            if index == 0 {
                waiting.push(accepted.clone());
            }
        }
        true
    }

    /// It is known what `target` is, or why that cannot be told: then it is taken for what
    /// it is called, and the gate sees to it that nothing else is acted on by that name.
    pub(super) fn identified(
        &mut self,
        work: &mut Work,
        context: &Context<'_>,
        target: Target,
        found: Result<Identity, String>,
    ) {
        let identity = found.unwrap_or_else(|error| {
            work.turn.notes.push(Note::Unidentified {
                target: target.clone(),
                error,
            });
            let host = context.world.docker_host(target.host());
            let host = host.unwrap_or_else(|| target.host().to_owned());
            Identity::by_name(target.clone(), &host)
        });
        let waiting = self.identities.waiting.remove(&target).unwrap_or_default();
        self.identities.count -= waiting.len();
        let known = (context.now, identity);
        self.identities.known.insert(target, known);
        for accepted in waiting {
            self.alert(work, context, accepted);
            self.settle(work, context);
        }
    }

    /// The alerts that wait until it is known what their targets are, by their places in
    /// the inbox.
    pub fn unidentified(&self) -> impl Iterator<Item = u64> {
        self.identities.waiting()
    }
}
