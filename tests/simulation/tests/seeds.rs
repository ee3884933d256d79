//! What must hold, through two thousand simulations.

use sentinel_simulation::{Scenario, Story, play, shrink, soak};

#[test]
fn what_must_hold_holds_through_two_thousand_seeds() {
    let found = soak(0..2000, 1, || {}, |_| {});
    for (seed, violation) in &found.failures {
        println!("{}", shrink(&Scenario::of(*seed), violation));
    }
    assert!(
        found.failures.is_empty(),
        "a seed failed; its story is above"
    );
    // Seeds in which nothing happens would show nothing.
    assert!(found.account.incidents > 4000, "{found:?}");
    assert!(found.account.effects > 4000, "{found:?}");
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..20 {
        let tell = || {
            let mut story = Story::told();
            let account = play(&Scenario::of(seed), &mut story);
            (account, story.lines().to_vec())
        };
        assert_eq!(tell(), tell(), "seed {seed}");
    }
}
