//! The checks are checked: every mistake that can be planted in the core is found, and by
//! what it breaks.

use sentinel_core::mutation::{Mutation, plant};
use sentinel_simulation::soak;

/// How many seeds a mistake may take to be found.
const SEEDS: u64 = 2000;

#[test]
fn every_planted_mistake_is_found() {
    // Panics of the engine are findings.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for mutation in Mutation::ALL {
        let found = soak(0..SEEDS, 1, || plant(Some(mutation)), |_| {});
        match found.failures.first_key_value() {
            Some((seed, violation)) => println!(
                "{:<26} found by seed {seed:>4}: {}",
                format!("{mutation:?}"),
                violation.invariant
            ),
            None => missed.push(mutation),
        }
    }
    let _hook = std::panic::take_hook();
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
}
