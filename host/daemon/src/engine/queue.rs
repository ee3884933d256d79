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
/// How many lanes there are: one for ends that must not wait, then one for each priority.
const LANES: usize = 1 + Priority::ALL.len();
/// The lane of ends that overtake: those behind alerts that wait for an incident to end.
/// Everywhere else an alert's end stays behind its begin.
const ENDS: usize = 0;

/// Alerts that wait.
#[derive(Debug)]
pub(super) struct Queue {
    reader: Arc<Reader>,
    lanes: [Lane; LANES],
}

#[derive(Debug, Default)]
struct Lane {
    alerts: VecDeque<Accepted>,
    // Where there were too many.
    parked: VecDeque<Parked>,
    // No more incidents may be open.
    blocked: bool,
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.alerts.is_empty() && self.parked.is_empty()
    }
}

/// An alert that is in the journal's inbox alone.
#[derive(Debug, Clone, Copy)]
struct Parked {
    seq: u64,
    status: AlertStatus,
}

fn lane(accepted: &Accepted) -> usize {
    match Priority::of(&accepted.alert) {
        Priority::Urgent => 1,
        Priority::Normal => 2,
        Priority::Low => 3,
    }
}

/// Takes the ends out of a queue.
fn ends<T>(queue: &mut VecDeque<T>, is_end: impl Fn(&T) -> bool) -> VecDeque<T> {
    let (ends, others) = queue.drain(..).partition(is_end);
    *queue = others;
    ends
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
            let status = accepted.alert.status;
            let mut index = lane(&accepted);
            let blocked = self.lanes.get(index).is_some_and(|lane| lane.blocked);
            if blocked && status == AlertStatus::Resolved {
                index = ENDS;
            }
            let Some(lane) = self.lanes.get_mut(index) else {
                continue;
            };
            if lane.parked.is_empty() && lane.alerts.len() < IN_MEMORY {
                lane.alerts.push_back(accepted);
            } else {
                let seq = accepted.seq;
                lane.parked.push_back(Parked { seq, status });
            }
        }
    }

    /// Puts back what there was no room for. It can be taken again once an incident has
    /// ended.
    pub(super) fn put_back(&mut self, deferred: Vec<Accepted>, ended: bool) {
        let blocks = !deferred.is_empty();
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
        if ended || !blocks {
            return;
        }
        // What ends incidents must not wait behind what waits for that.
        let (mut alerts, mut parked) = (VecDeque::new(), VecDeque::new());
        for lane in self.lanes.iter_mut().filter(|lane| lane.blocked) {
            alerts.extend(ends(&mut lane.alerts, |accepted| {
                accepted.alert.status == AlertStatus::Resolved
            }));
            parked.extend(ends(&mut lane.parked, |parked| {
                parked.status == AlertStatus::Resolved
            }));
        }
        if let Some(lane) = self.lanes.get_mut(ENDS) {
            lane.alerts.extend(alerts);
            lane.parked.extend(parked);
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
                let seqs: Vec<_> = lane.parked.iter().take(count).map(|one| one.seq).collect();
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
