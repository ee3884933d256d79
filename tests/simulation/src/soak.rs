//! Many seeds, on every processor.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::{Account, Scenario, Story, Violation, play};

/// What a soak found.
#[derive(Debug, Default)]
pub struct Found {
    /// The seeds that failed, the smallest first.
    pub failures: BTreeMap<u64, Violation>,
    /// What all seeds went through together.
    pub account: Account,
    /// How many seeds were played.
    pub seeds: u64,
}

/// Plays every seed of `seeds`, until `enough` have failed. Each thread is made ready by
/// `prepare`; `progress` is told how many seeds are done.
pub fn soak(
    seeds: Range<u64>,
    enough: usize,
    prepare: impl Fn() + Sync,
    progress: impl Fn(u64) + Sync,
) -> Found {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let found = Mutex::new(Found::default());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                prepare();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let played = play(&Scenario::of(seed), &mut Story::default());
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.seeds += 1;
                    match played {
                        Ok(account) => {
                            found.account.incidents += account.incidents;
                            found.account.effects += account.effects;
                            found.account.steps += account.steps;
                        }
                        Err(violation) => {
                            found.failures.insert(seed, violation);
                            if found.failures.len() >= enough {
                                stop.store(true, Ordering::Relaxed);
                            }
                        }
                    }
                    let done = found.seeds;
                    drop(found);
                    progress(done);
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}
