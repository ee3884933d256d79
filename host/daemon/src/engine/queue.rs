//! Accepted alerts that wait for the engine: the most urgent first, and only so many of
//! them in memory. The others are in the journal's inbox anyway.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sentinel_core::engine::Deferred;
use sentinel_core::id::PolicyName;
use sentinel_core::record::{Accepted, Priority};
use sentinel_journal::Reader;

use crate::telemetry::metrics::Metrics;

/// How many alerts one turn takes: enough for one commit to pay off in a storm, and few
/// enough that what is urgent does not wait for them.
const TURN: usize = 128;
/// How many alerts of one lane are kept in memory.
const IN_MEMORY: usize = 4096;
/// How many alerts of one policy that waited for room are tried in one turn.
const ONCE_MORE: usize = 16;

/// Alerts that wait.
#[derive(Debug)]
pub(super) struct Queue {
    reader: Arc<Reader>,
    // One for each priority.
    lanes: [Lane; Priority::ALL.len()],
    // Those that there was no room for, by the policy that may have no more incidents open:
    // they keep nobody else waiting.
    waiting: BTreeMap<Option<PolicyName>, Waiting>,
}

#[derive(Debug, Default)]
struct Lane {
    alerts: VecDeque<Accepted>,
    // Where there were too many: those that are in the journal's inbox alone.
    parked: VecDeque<u64>,
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.alerts.is_empty() && self.parked.is_empty()
    }
}

/// Alerts that wait for room, the most urgent first and then in the order in which they
/// came; none in place of those that are in the journal's inbox alone.
#[derive(Debug, Default)]
struct Waiting {
    alerts: BTreeMap<(Priority, u64), Option<Accepted>>,
    // How many of them are in memory.
    held: usize,
    // There was no room when it was tried last.
    blocked: bool,
}

fn lane(accepted: &Accepted) -> usize {
    match Priority::of(&accepted.alert) {
        Priority::Urgent => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

/// Reads what is in the journal's inbox alone; none where that cannot be.
fn read(reader: &Reader, places: &[u64], metrics: &Metrics) -> Option<Vec<Accepted>> {
    let read = reader.inbox(places);
    read.inspect_err(|error| metrics.journal_failed("reading the inbox", error))
        .ok()
}

impl Queue {
    pub(super) fn new(reader: Arc<Reader>) -> Self {
        Self {
            reader,
            lanes: Default::default(),
            waiting: BTreeMap::new(),
        }
    }

    /// Whether something can be taken now.
    pub(super) fn ready(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.is_empty())
            || self.waiting.values().any(|waiting| !waiting.blocked)
    }

    /// How many alerts wait for room, by the policy that may have no more incidents open.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&PolicyName, usize)> {
        self.waiting
            .iter()
            .filter_map(|(policy, waiting)| Some((policy.as_ref()?, waiting.alerts.len())))
    }

    /// Adds alerts at the end of their lanes.
    pub(super) fn add(&mut self, alerts: Vec<Accepted>) {
        for accepted in alerts {
            let Some(lane) = self.lanes.get_mut(lane(&accepted)) else {
                continue;
            };
            if lane.parked.is_empty() && lane.alerts.len() < IN_MEMORY {
                lane.alerts.push_back(accepted);
            } else {
                lane.parked.push_back(accepted.seq);
            }
        }
    }

    /// Puts back what there was no room for. It can be taken again once there is `room`, be
    /// it that an incident has ended. An end of an alert does not wait with its begin: that
    /// is found to be overtaken when its time has come.
    pub(super) fn put_back(&mut self, deferred: Vec<Deferred>, room: bool) {
        for Deferred { accepted, policy } in deferred {
            let waiting = self.waiting.entry(policy).or_default();
            waiting.blocked = true;
            let key = (Priority::of(&accepted.alert), accepted.seq);
            let kept = (waiting.held < IN_MEMORY).then_some(accepted);
            waiting.held += usize::from(kept.is_some());
            waiting.alerts.insert(key, kept);
        }
        if room {
            for waiting in self.waiting.values_mut() {
                waiting.blocked = false;
            }
        }
    }

    /// Takes the most urgent alerts, as many as one turn takes.
    pub(super) fn take(&mut self, metrics: &Metrics) -> Vec<Accepted> {
        let mut taken = self.take_waiting(metrics);
        for lane in &mut self.lanes {
            let room = TURN.saturating_sub(taken.len());
            if room == 0 {
                break;
            }
            if lane.alerts.is_empty() && !lane.parked.is_empty() {
                let count = lane.parked.len().min(TURN);
                let places: Vec<_> = lane.parked.iter().take(count).copied().collect();
                // On an error they stay where they are; the next turn asks again.
                if let Some(alerts) = read(&self.reader, &places, metrics) {
                    lane.parked.drain(..count);
                    lane.alerts.extend(alerts);
                }
            }
            let count = room.min(lane.alerts.len());
            taken.extend(lane.alerts.drain(..count));
        }
        taken
    }

    /// Takes some of those that waited for room: of each policy a few, because most often
    /// there is room for one more.
    fn take_waiting(&mut self, metrics: &Metrics) -> Vec<Accepted> {
        let mut taken = Vec::new();
        for waiting in self.waiting.values_mut().filter(|waiting| !waiting.blocked) {
            let mut parked = Vec::new();
            for _ in 0..ONCE_MORE.min(TURN / 2 - taken.len().min(TURN / 2)) {
                let Some((key, kept)) = waiting.alerts.pop_first() else {
                    break;
                };
                match kept {
                    Some(accepted) => {
                        waiting.held -= 1;
                        taken.push(accepted);
                    }
                    None => parked.push(key),
                }
            }
            if parked.is_empty() {
                continue;
            }
            let places: Vec<_> = parked.iter().map(|(_, seq)| *seq).collect();
            match read(&self.reader, &places, metrics) {
                Some(alerts) => {
                    // Some of its policies may have dealt with it.
                    let again = alerts.into_iter().map(|accepted| Accepted {
                        repeat: true,
                        ..accepted
                    });
                    taken.extend(again);
                }
                None => waiting
                    .alerts
                    .extend(parked.into_iter().map(|key| (key, None))),
            }
        }
        self.waiting.retain(|_, waiting| !waiting.alerts.is_empty());
        taken
    }
}
