//! Who may run at once: bounded in all, per plugin and per policy, urgent alerts first,
//! so that no plugin, policy or target can keep the others waiting.

use std::collections::{BTreeSet, HashMap};

use super::Settings;
use crate::event::Guard;
use crate::guard::Crowd;
use crate::id::{IncidentId, PluginName, PolicyName};
use crate::incident::{Hold, Incident, Phase};
use crate::record::Priority;

type Key = (PolicyName, PluginName);

/// The places of runs, and who waits for one.
#[derive(Debug)]
pub(super) struct Places {
    all: u32,
    per_plugin: u32,
    // Only one policy serves: there is nobody to leave a place to.
    alone: bool,
    taken: HashMap<IncidentId, Key>,
    by_plugin: HashMap<PluginName, u32>,
    by_policy: HashMap<PolicyName, u32>,
    // By policy and plugin, because these decide whether there is room; so a queue that
    // cannot move is passed over as a whole.
    waiting: HashMap<Key, Queue>,
    waits: HashMap<IncidentId, (Key, Priority)>,
}

#[derive(Debug, Default)]
struct Queue {
    order: BTreeSet<(Priority, IncidentId)>,
    // How many runs the policy may have, as its newest plan says.
    concurrency: u32,
}

impl Places {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut places = Self {
            all: 0,
            per_plugin: 0,
            alone: false,
            taken: HashMap::new(),
            by_plugin: HashMap::new(),
            by_policy: HashMap::new(),
            waiting: HashMap::new(),
            waits: HashMap::new(),
        };
        places.resize(settings);
        places
    }

    /// There are so many from now on. Whoever has one keeps it.
    pub(super) fn resize(&mut self, settings: &Settings) {
        self.all = settings.places.max(1);
        self.per_plugin = settings.plugin_places.clamp(1, self.all);
    }

    /// So many policies serve from now on.
    pub(super) fn serve(&mut self, policies: usize) {
        self.alone = policies <= 1;
    }

    /// Brings the account in line with an incident that has changed.
    pub(super) fn sync(&mut self, incident: &Incident) {
        let wants = incident
            .occupies()
            .map(|plugin| (incident.plan.policy.clone(), plugin.clone()));
        if self.taken.get(&incident.id) != wants.as_ref() {
            self.give_back(incident.id);
            if let Some(key) = wants {
                *self.by_policy.entry(key.0.clone()).or_default() += 1;
                *self.by_plugin.entry(key.1.clone()).or_default() += 1;
                self.taken.insert(incident.id, key);
            }
        }
        let held = matches!(
            incident.phase,
            Phase::Held(Hold {
                guard: Guard::Concurrency,
                ..
            })
        );
        if held {
            self.wait(incident);
        } else if !matches!(incident.phase, Phase::Escalating { run: None, .. }) {
            self.leave(incident.id);
        }
    }

    /// Puts an incident that needs a place into its queue.
    pub(super) fn wait(&mut self, incident: &Incident) {
        let Some((policy, plugin)) = key(incident) else {
            return;
        };
        let priority = Priority::of(&incident.alert);
        let key = (policy.clone(), plugin.clone());
        // It may wait in another queue, for another plugin.
        self.leave(incident.id);
        let queue = self.waiting.entry(key.clone()).or_default();
        queue.order.insert((priority, incident.id));
        queue.concurrency = concurrency(incident);
        self.waits.insert(incident.id, (key, priority));
    }

    fn leave(&mut self, id: IncidentId) {
        let Some((key, priority)) = self.waits.remove(&id) else {
            return;
        };
        if let Some(queue) = self.waiting.get_mut(&key) {
            queue.order.remove(&(priority, id));
            if queue.order.is_empty() {
                self.waiting.remove(&key);
            }
        }
    }

    fn give_back(&mut self, id: IncidentId) {
        let Some((policy, plugin)) = self.taken.remove(&id) else {
            return;
        };
        if let Some(count) = self.by_policy.get_mut(&policy) {
            *count -= 1;
            if *count == 0 {
                self.by_policy.remove(&policy);
            }
        }
        if let Some(count) = self.by_plugin.get_mut(&plugin) {
            *count -= 1;
            if *count == 0 {
                self.by_plugin.remove(&plugin);
            }
        }
    }

    /// Takes an incident that has ended out.
    pub(super) fn forget(&mut self, id: IncidentId) {
        self.give_back(id);
        self.leave(id);
    }

    /// Takes the most urgent incident that there is a place for out of its queue.
    pub(super) fn next(&mut self) -> Option<IncidentId> {
        let (_, id) = self
            .waiting
            .iter()
            .filter_map(|(key, queue)| {
                let first = queue.order.first()?;
                let crowd = self.too_many(&key.0, &key.1, queue.concurrency, first.0);
                crowd.is_none().then_some(*first)
            })
            .min()?;
        self.leave(id);
        Some(id)
    }

    /// What there is too much of for `incident` to run now.
    pub(super) fn crowd(&self, incident: &Incident) -> Option<Crowd> {
        let (policy, plugin) = key(incident)?;
        let priority = Priority::of(&incident.alert);
        self.too_many(policy, plugin, concurrency(incident), priority)
    }

    /// Whether there is a place for `incident`.
    pub(super) fn room(&self, incident: &Incident) -> bool {
        self.crowd(incident).is_none()
    }

    fn too_many(
        &self,
        policy: &PolicyName,
        plugin: &PluginName,
        concurrency: u32,
        priority: Priority,
    ) -> Option<Crowd> {
        // The last quarter is kept for what is urgent; but who writes an alert's labels says
        // that of itself, so a policy that has all the rest takes it from no other.
        let share = |places: u32, own: u32| match priority {
            Priority::Urgent if self.alone || own < places - places / 4 => places,
            _ => places - places / 4,
        };
        let all = u32::try_from(self.taken.len()).unwrap_or(u32::MAX);
        let of_plugin = self.by_plugin.get(plugin).copied().unwrap_or(0);
        let of_policy = self.by_policy.get(policy).copied().unwrap_or(0);
        let of_both = || {
            let both = |(by, of): &&Key| by == policy && of == plugin;
            u32::try_from(self.taken.values().filter(both).count()).unwrap_or(u32::MAX)
        };
        if of_policy >= concurrency {
            Some(Crowd::Policy(of_policy))
        } else if of_plugin >= self.per_plugin || of_plugin >= share(self.per_plugin, of_both()) {
            Some(Crowd::Plugin(plugin.clone(), of_plugin))
        } else if all >= share(self.all, of_policy) {
            Some(Crowd::All(all))
        } else {
            None
        }
    }
}

fn key(incident: &Incident) -> Option<(&PolicyName, &PluginName)> {
    let plugin = incident.plugin(incident.rung()?.step)?;
    Some((&incident.plan.policy, &plugin.name))
}

/// Telling a person is not held back by what the policy may do at once.
fn concurrency(incident: &Incident) -> u32 {
    match incident.phase {
        Phase::Escalating { .. } => u32::MAX,
        _ => incident.plan.guards.concurrency,
    }
}
