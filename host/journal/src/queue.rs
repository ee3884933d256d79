//! What waits for the writer, in two lanes: what is urgent never waits behind a burst of
//! what is not.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How urgent an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The engine, a run or a person waits for it.
    Urgent,
    /// It is one of many.
    Bulk,
}

/// The queue does not take an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The lane is full.
    Full,
    /// The journal is closing.
    Closed,
}

#[derive(Debug)]
struct State<T> {
    urgent: VecDeque<T>,
    bulk: VecDeque<T>,
    closed: bool,
}

/// A queue of two lanes, each in the order in which things came.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    // Somebody waits in `wait`: there is one reader.
    arrived: Condvar,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                urgent: VecDeque::new(),
                bulk: VecDeque::new(),
                closed: false,
            }),
            arrived: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to a lane, unless `limit` wait in it.
    pub(crate) fn push(&self, lane: Lane, limit: usize, item: T) -> Result<(), Refused> {
        let mut state = self.state();
        if state.closed {
            return Err(Refused::Closed);
        }
        let waiting = match lane {
            Lane::Urgent => &mut state.urgent,
            Lane::Bulk => &mut state.bulk,
        };
        if waiting.len() >= limit {
            return Err(Refused::Full);
        }
        waiting.push_back(item);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for something, the urgent first. None once it is closed and empty.
    pub(crate) fn wait(&self) -> Option<(Lane, T)> {
        let mut state = self.state();
        loop {
            if let Some(found) = state.next() {
                return Some(found);
            }
            if state.closed {
                return None;
            }
            state = self
                .arrived
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whatever waits, the urgent first.
    pub(crate) fn take(&self) -> Option<(Lane, T)> {
        self.state().next()
    }

    /// What waits in the urgent lane.
    pub(crate) fn take_urgent(&self) -> Option<T> {
        self.state().urgent.pop_front()
    }

    /// Takes nothing more in; what is there can still be taken out.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.arrived.notify_one();
    }

    /// Closes it and forgets what waits: there is nobody any more to take it out.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        state.closed = true;
        state.urgent.clear();
        state.bulk.clear();
    }

    /// Whether it takes nothing in.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }
}

impl<T> State<T> {
    fn next(&mut self) -> Option<(Lane, T)> {
        let urgent = self.urgent.pop_front().map(|item| (Lane::Urgent, item));
        urgent.or_else(|| self.bulk.pop_front().map(|item| (Lane::Bulk, item)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urgent_overtakes_and_each_lane_keeps_its_order() {
        let queue = Queue::new();
        for (lane, item) in [
            (Lane::Bulk, 1),
            (Lane::Urgent, 2),
            (Lane::Bulk, 3),
            (Lane::Urgent, 4),
        ] {
            queue.push(lane, 2, item).unwrap();
        }
        assert_eq!(queue.take_urgent(), Some(2));
        assert_eq!(queue.take(), Some((Lane::Urgent, 4)));
        assert_eq!(queue.take_urgent(), None);
        assert_eq!(queue.wait(), Some((Lane::Bulk, 1)));
        assert_eq!(queue.take(), Some((Lane::Bulk, 3)));
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn a_full_lane_refuses_and_the_other_does_not() {
        let queue = Queue::new();
        queue.push(Lane::Bulk, 1, 1).unwrap();
        assert_eq!(queue.push(Lane::Bulk, 1, 2), Err(Refused::Full));
        assert_eq!(queue.push(Lane::Urgent, 1, 3), Ok(()));
    }

    #[test]
    fn what_was_there_before_it_closed_is_still_taken_out() {
        let queue = Queue::new();
        queue.push(Lane::Bulk, 9, 1).unwrap();
        queue.close();
        assert_eq!(queue.push(Lane::Urgent, 9, 2), Err(Refused::Closed));
        assert_eq!(queue.wait(), Some((Lane::Bulk, 1)));
        assert_eq!(queue.wait(), None);
    }

    #[test]
    fn waiting_ends_when_something_comes_or_it_closes() {
        let queue = Queue::new();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| (queue.wait(), queue.wait()));
            queue.push(Lane::Bulk, 9, 1).unwrap();
            queue.close();
            assert_eq!(waiting.join().unwrap(), (Some((Lane::Bulk, 1)), None));
        });
    }
}
