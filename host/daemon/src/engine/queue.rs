//! Accepted alerts that wait for the engine: the most urgent first, and only so many of
//! them in memory. The others are in the journal's inbox anyway.

use std::collections::VecDeque;
use std::sync::Arc;

use sentinel_core::alert::AlertStatus;
use sentinel_core::record::{Accepted, Priority};
use sentinel_journal::Reader;

use crate::telemetry::metrics::Metrics;

/// How many alerts one turn takes: enough for one commit to pay off in a storm, and few
/// enough that what is urgent does not wait for them.
const TURN: usize = 128;
/// How many alerts of one lane are kept in memory.
const IN_MEMORY: usize = 4096;
/// How many lanes there are: one for ends, then one for each priority.
const LANES: usize = 1 + Priority::ALL.len();

/// Alerts that wait.
#[derive(Debug)]
pub(super) struct Queue {
    reader: Arc<Reader>,
    lanes: [Lane; LANES],
}

#[derive(Debug, Default)]
struct Lane {
    alerts: VecDeque<Accepted>,
    // Their places in the inbox, where there were too many.
    parked: VecDeque<u64>,
    // No more incidents may be open.
    blocked: bool,
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.alerts.is_empty() && self.parked.is_empty()
    }
}

fn lane(accepted: &Accepted) -> usize {
    match (accepted.alert.status, accepted.priority()) {
        (AlertStatus::Resolved, _) => 0,
        (_, Priority::Urgent) => 1,
        (_, Priority::Normal) => 2,
        (_, Priority::Low) => 3,
    }
}

impl Queue {
    pub(super) fn new(reader: Arc<Reader>) -> Self {
        Self {
            reader,
            lanes: Default::default(),
        }
    }

    /// Whether something can be taken now.
    pub(super) fn ready(&self) -> bool {
        self.lanes
            .iter()
            .any(|lane| !lane.blocked && !lane.is_empty())
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

    /// Puts back what there was no room for. It can be taken again once an incident has
    /// ended.
    pub(super) fn put_back(&mut self, deferred: Vec<Accepted>, ended: bool) {
        for accepted in deferred.into_iter().rev() {
            if let Some(lane) = self.lanes.get_mut(lane(&accepted)) {
                lane.blocked = true;
                lane.alerts.push_front(accepted);
            }
        }
        if ended {
            for lane in &mut self.lanes {
                lane.blocked = false;
            }
        }
    }

    /// Takes the most urgent alerts, as many as one turn takes.
    pub(super) fn take(&mut self, metrics: &Metrics) -> Vec<Accepted> {
        let mut taken = Vec::new();
        for lane in self.lanes.iter_mut().filter(|lane| !lane.blocked) {
            let room = TURN - taken.len();
            if room == 0 {
                break;
            }
            if lane.alerts.is_empty() && !lane.parked.is_empty() {
                let count = lane.parked.len().min(TURN);
                let seqs: Vec<_> = lane.parked.iter().take(count).copied().collect();
                match self.reader.inbox(&seqs) {
                    Ok(alerts) => {
                        lane.parked.drain(..count);
                        lane.alerts.extend(alerts);
                    }
                    // They stay where they are; the next turn asks again.
                    Err(error) => metrics.journal_failed("reading the inbox", &error),
                }
            }
            let count = room.min(lane.alerts.len());
            taken.extend(lane.alerts.drain(..count));
        }
        taken
    }
}
