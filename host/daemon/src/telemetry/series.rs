//! Whose series there are: those of policies and plugins that have gone go, too, some time
//! after them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the series of what has gone stay: for incidents that end later, and until
/// everybody has read how they did.
const STAY: Duration = Duration::from_hours(1);

/// Names that series are of.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<BTreeMap<String, Option<Instant>>>);

impl Names {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Option<Instant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Series of this name begin. One that does not serve has gone already.
    pub(super) fn begin(&self, name: &str, now: Instant) {
        let mut all = self.all();
        if !all.contains_key(name) {
            all.insert(name.to_owned(), Some(now));
        }
    }

    /// These serve, and no others.
    pub(super) fn serve(&self, names: &BTreeSet<String>, now: Instant) {
        let mut all = self.all();
        for (name, gone) in &mut *all {
            if !names.contains(name) {
                gone.get_or_insert(now);
            }
        }
        all.extend(names.iter().map(|name| (name.clone(), None)));
    }

    /// Drops the series of those that have been gone for long; `drop` says of a name whether
    /// there were any. What was counted late is found by the next look after as long.
    pub(super) fn tidy(&self, now: Instant, drop: impl Fn(&str) -> bool) {
        self.all().retain(|name, gone| {
            let Some(since) = gone else { return true };
            if now.duration_since(*since) < STAY {
                return true;
            }
            *since = now;
            drop(name)
        });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn what_has_gone_stays_for_a_while_and_what_serves_for_good() {
        let (names, begun) = (Names::default(), Instant::now());
        let at = |minutes: u64| begun + Duration::from_mins(minutes);
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let dropped = RefCell::new(Vec::new());
        let look = |minutes: u64, had: bool| {
            names.tidy(at(minutes), |name| {
                dropped.borrow_mut().push(name.to_owned());
                had
            });
            dropped.take()
        };
        names.serve(&set(&["a", "b"]), at(0));
        names.begin("left", at(0));
        names.serve(&set(&["a"]), at(10));
        // One that is there again has not gone.
        names.serve(&set(&["a", "b"]), at(20));
        assert!(look(59, true).is_empty());
        assert_eq!(look(61, false), ["left"]);
        names.serve(&set(&["a"]), at(70));
        assert!(look(129, true).is_empty());
        assert_eq!(look(130, true), ["b"]);
        // Something may have been counted since.
        assert!(look(150, true).is_empty());
        assert_eq!(look(190, false), ["b"]);
        assert!(look(10_000, true).is_empty());
        assert_eq!(names.all().len(), 1);
    }
}
