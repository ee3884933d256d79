//! Many seeds, on every processor.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::{Account, Scenario, Story, Violation, play};

/// How long a seed may take before it is said that it does, in seconds: an engine that
/// never comes out of a turn shows in nothing else.
const LONG: u32 = 30;

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
    let working = AtomicUsize::new(threads);
    let found = Mutex::new(Found::default());
    // What each thread is at.
    let at: Vec<_> = (0..threads).map(|_| AtomicU64::new(u64::MAX)).collect();
    thread::scope(|scope| {
        for at in &at {
            scope.spawn(|| {
                prepare();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || stop.load(Ordering::Relaxed) {
                        break;
                    }
                    at.store(seed, Ordering::Relaxed);
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
                working.fetch_sub(1, Ordering::Relaxed);
            });
        }
        watch(&at, &working);
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Says of every seed that takes long that it does, until nobody works any more.
fn watch(at: &[AtomicU64], working: &AtomicUsize) {
    const LOOK: Duration = Duration::from_millis(50);
    let mut seen: Vec<_> = at.iter().map(|_| (u64::MAX, 0)).collect();
    while working.load(Ordering::Relaxed) > 0 {
        thread::sleep(LOOK);
        for (at, (seed, looks)) in at.iter().zip(&mut seen) {
            let now = at.load(Ordering::Relaxed);
            if now != *seed {
                (*seed, *looks) = (now, 0);
            }
            *looks += 1;
            if LOOK * *looks == Duration::from_secs(LONG.into()) && now != u64::MAX {
                eprintln!("seed {now} has taken {LONG} s and goes on");
            }
        }
    }
}
