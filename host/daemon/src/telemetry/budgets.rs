//! Which limits hold which policies back, so that it is said once and not for each alert.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use sentinel_core::id::PolicyName;
use sentinel_core::incident::later;
use serde::Serialize;

/// How long a limit has to hold nothing back until it is told of anew.
const QUIET: Duration = Duration::from_mins(10);

/// How a limit is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spent {
    /// Since when.
    pub(crate) since: Timestamp,
    /// Until when; none where that does not depend on time.
    pub(crate) until: Option<Timestamp>,
    /// What uses it up.
    pub(crate) reason: String,
}

/// A limit that is used up, for the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct UsedUp {
    /// The key of the configuration that sets it.
    pub(crate) key: String,
    /// The policy that it holds back.
    pub(crate) policy: PolicyName,
    /// Since when.
    pub(crate) since: Timestamp,
    /// Until when there is no room; none where that does not depend on time.
    pub(crate) until: Option<Timestamp>,
    /// What uses it up.
    pub(crate) reason: String,
}

/// The limits that are used up: no more than there are keys and policies.
#[derive(Debug, Default)]
pub(crate) struct Budgets(Mutex<BTreeMap<(String, PolicyName), Spent>>);

impl Budgets {
    fn all(&self) -> MutexGuard<'_, BTreeMap<(String, PolicyName), Spent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a limit is used up; whether that is news.
    pub(super) fn spent(
        &self,
        key: &str,
        policy: &PolicyName,
        spent: Spent,
        now: Timestamp,
    ) -> bool {
        let mut all = self.all();
        // What is over for long is forgotten.
        all.retain(|_, known| known.until.is_none_or(|until| now < later(until, QUIET)));
        if let Some(known) = all.get_mut(&(key.to_owned(), policy.clone())) {
            *known = Spent {
                since: known.since,
                ..spent
            };
            false
        } else {
            all.insert((key.to_owned(), policy.clone()), spent);
            true
        }
    }

    /// A limit that does not depend on time holds nothing back any more, for those policies.
    pub(super) fn end(&self, key: &str, over: impl Fn(&PolicyName) -> bool, now: Timestamp) {
        for ((known, policy), spent) in self.all().iter_mut() {
            if known == key && spent.until.is_none() && over(policy) {
                spent.until = Some(now);
            }
        }
    }

    /// The limits that are used up now.
    pub(crate) fn used_up(&self, now: Timestamp) -> Vec<UsedUp> {
        let all = self.all();
        let now = all
            .iter()
            .filter(|(_, spent)| spent.until.is_none_or(|until| now < until));
        now.map(|((key, policy), spent)| UsedUp {
            key: key.clone(),
            policy: policy.clone(),
            since: spent.since,
            until: spent.until,
            reason: spent.reason.clone(),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn spent(second: i64, until: Option<i64>) -> Spent {
        Spent {
            since: at(second),
            until: until.map(at),
            reason: "there were 5".to_owned(),
        }
    }

    #[test]
    fn a_limit_is_told_of_once_for_as_long_as_it_holds() {
        let (budgets, policy) = (Budgets::default(), "web".parse().unwrap());
        let told =
            |second, until| budgets.spent("rate", &policy, spent(second, Some(until)), at(second));
        assert!(told(0, 60));
        // One leaves the window, another takes its place.
        assert!(!told(1, 60) && !told(61, 120));
        assert_eq!(budgets.used_up(at(61))[0].since, at(0));
        assert!(budgets.used_up(at(120)).is_empty());
        let told =
            |second, until| budgets.spent("rate", &policy, spent(second, Some(until)), at(second));
        assert!(!told(700, 701));
        assert!(told(1400, 1500));
    }

    #[test]
    fn one_without_a_time_ends_when_it_is_said_to() {
        let (budgets, web) = (Budgets::default(), "web".parse().unwrap());
        let told = |second| budgets.spent("incidents", &web, spent(second, None), at(second));
        assert!(told(0) && !told(9_999));
        budgets.end("rate", |_| true, at(10_000));
        budgets.end("incidents", |policy| *policy != web, at(10_000));
        assert_eq!(budgets.used_up(at(10_000)).len(), 1);
        budgets.end("incidents", |policy| *policy == web, at(10_000));
        assert!(budgets.used_up(at(10_000)).is_empty());
        assert!(!told(10_300));
        budgets.end("incidents", |policy| *policy == web, at(10_300));
        assert!(told(11_000));
    }
}
