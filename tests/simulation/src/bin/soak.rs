//! Plays many seeds: `SEEDS` says how many (default 100,000) and `FROM` from which on;
//! `SEED` plays one and tells its story if it fails, and `STORY=1` even if it does not.

use std::process::ExitCode;
use std::time::Instant;

use sentinel_simulation::{Scenario, Story, play, shrink, soak};

fn main() -> ExitCode {
    let number = |name: &str| match std::env::var(name) {
        Ok(text) if !text.is_empty() => match text.replace(['_', ','], "").parse::<u64>() {
            Ok(number) => Some(number),
            Err(error) => {
                eprintln!("soak: {name}={text}: {error}");
                std::process::exit(2);
            }
        },
        _ => None,
    };
    // Panics of the engine are told with the story.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = number("SEED") {
        return one(seed, number("STORY").is_some());
    }
    let from = number("FROM").unwrap_or(0);
    let seeds = number("SEEDS").unwrap_or(100_000);
    let begun = Instant::now();
    let found = soak(
        from..from.saturating_add(seeds),
        1,
        || {},
        |done| {
            if done % 10_000 == 0 {
                let rate = done * 1000 / begun.elapsed().as_millis().max(1) as u64;
                println!("{done} of {seeds} seeds, {rate} a second");
            }
        },
    );
    let account = found.account;
    println!(
        "{} seeds in {:.1} s: {} incidents, {} effects, {} steps",
        found.seeds,
        begun.elapsed().as_secs_f64(),
        account.incidents,
        account.effects,
        account.steps
    );
    for (seed, violation) in &found.failures {
        println!("{}", shrink(&Scenario::of(*seed), violation));
    }
    exit(found.failures.is_empty())
}

fn one(seed: u64, always: bool) -> ExitCode {
    let scenario = Scenario::of(seed);
    let mut story = if always {
        Story::told()
    } else {
        Story::default()
    };
    match play(&scenario, &mut story) {
        Ok(account) => {
            for line in story.lines() {
                println!("{line}");
            }
            println!(
                "seed {seed} holds: {} incidents, {} effects, {} steps",
                account.incidents, account.effects, account.steps
            );
            exit(true)
        }
        Err(violation) => {
            println!("{violation}");
            println!("{}", shrink(&scenario, &violation));
            exit(false)
        }
    }
}

fn exit(holds: bool) -> ExitCode {
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
