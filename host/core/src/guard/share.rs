//! How a budget that all policies draw from is shared: so that no policy, however much
//! happens to it, uses up what another needs.
//!
//! Half of it is shared out evenly among the policies, and of that each has its own part, at
//! least one where the budget has as many. The rest is for whoever comes first. A policy that
//! is alone has all of it.

use crate::mutation::{Mutation, active};

/// A budget, and among how many policies it is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    budget: usize,
    /// What every policy has for itself.
    pub each: usize,
    /// What is for whoever comes first.
    pub common: usize,
}

impl Share {
    /// A budget that is shared among so many policies.
    #[must_use]
    pub fn of(budget: usize, policies: usize) -> Self {
        let policies = policies.max(1);
        let each = (budget / 2 / policies).max(1);
        Self {
            budget,
            each,
            common: budget.saturating_sub(each.saturating_mul(policies)),
        }
    }

    /// Whether a policy that has used `own` may use one more. `others` is what each other one
    /// has used, and whether it is one of the policies that share; what policies have used
    /// that are no more is of the common part.
    #[must_use]
    pub fn has_room(&self, own: usize, others: impl IntoIterator<Item = (usize, bool)>) -> bool {
        let (mut total, mut beyond) = (own, own.saturating_sub(self.each));
        for (used, shares) in others {
            total += used;
            beyond += if shares {
                used.saturating_sub(self.each)
            } else {
                used
            };
        }
        let leaves_others_theirs = own < self.each || beyond < self.common;
        total < self.budget && (leaves_others_theirs || active(Mutation::NoShares))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_is_alone_has_all_of_it() {
        for budget in 1..50 {
            let share = Share::of(budget, 1);
            for own in 0..budget {
                assert!(share.has_room(own, []), "{own} of {budget}");
            }
            assert!(!share.has_room(budget, []));
        }
    }

    #[test]
    fn the_last_part_is_kept_for_the_others() {
        let share = Share::of(5, 2);
        let used = (0..5).take_while(|own| share.has_room(*own, [(0, true)]));
        assert_eq!(used.count(), 4);
        assert!(share.has_room(0, [(4, true)]));
        assert!(!share.has_room(1, [(4, true)]));
        // One that is no more has no part of its own.
        assert!(!share.has_room(1, [(3, false)]));
        assert!(share.has_room(0, [(3, false)]));
    }

    proptest! {
        /// In whatever order policies ask, nobody is refused who has used less than is its
        /// own, and the budget is never exceeded.
        #[test]
        fn nobody_is_refused_what_is_its_own(
            budget in 1_usize..40,
            policies in 1_usize..8,
            asked in prop::collection::vec(0_usize..8, 0..200),
        ) {
            let share = Share::of(budget, policies);
            let mut used = vec![0_usize; policies];
            for policy in asked.into_iter().map(|policy| policy % policies) {
                let others = used.iter().enumerate();
                let others = others.filter(|(other, _)| *other != policy);
                let others: Vec<_> = others.map(|(_, used)| (*used, true)).collect();
                if share.has_room(used[policy], others) {
                    used[policy] += 1;
                } else if policies <= budget {
                    prop_assert!(used[policy] >= share.each);
                }
                prop_assert!(used.iter().sum::<usize>() <= budget);
            }
        }
    }
}
