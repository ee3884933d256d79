//! A simulation of the whole engine: the real core, driven through crashes at every point
//! of its work, full disks, clocks that are set, drivers that fail or hang, senders that
//! repeat themselves and operators who change their minds.
//!
//! One number, the seed, decides everything: there are no threads inside a simulation, no
//! real time and no map whose order is chance. What must hold is checked after every
//! commit ([`check`]), from the committed events alone. A seed that fails is cut down to
//! the few happenings that it takes ([`shrink`]), and told as a story.

mod check;
mod docker;
mod journal;
mod rng;
mod run;
mod scenario;
mod script;
mod setup;
mod soak;
mod story;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use check::{Violation, invariant};
pub use scenario::{Ending, Happening, Scenario, What};
pub use soak::{Found, soak};
pub use story::Story;

use sentinel_core::event::Event;
use world::World;

/// What a simulation went through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// How many incidents opened.
    pub incidents: usize,
    /// How many effects began.
    pub effects: usize,
    /// How many steps it took.
    pub steps: u64,
}

/// Plays a scenario, and checks what must hold at every step.
pub fn play(scenario: &Scenario, story: &mut Story) -> Result<Account, Violation> {
    let mut world = World::new(scenario, story);
    // A panic is a finding like any other.
    let played = catch_unwind(AssertUnwindSafe(|| world.play()));
    let (incidents, effects, steps) = world.counts();
    match played {
        Ok(checked) => checked.map(|()| Account {
            incidents,
            effects,
            steps,
        }),
        Err(panic) => {
            let detail = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default();
            Err(check::violation(invariant::PANIC, detail))
        }
    }
}

/// The events of each incident of a scenario, played to its end: records as a daemon writes them.
pub fn record(scenario: &Scenario) -> Vec<Vec<Event>> {
    let mut story = Story::default();
    let mut world = World::new(scenario, &mut story);
    // What did not hold is for others to find.
    let _checked = world.play();
    world.record()
}

/// A scenario that failed, cut down to what it takes.
#[derive(Debug)]
pub struct Failure {
    /// What it takes.
    pub scenario: Scenario,
    /// What did not hold.
    pub violation: Violation,
    /// What happened until then.
    pub story: Story,
}

/// Leaves out of a scenario that fails whatever can be left out without the same thing
/// failing no more.
pub fn shrink(scenario: &Scenario, violation: &Violation) -> Failure {
    let fails = |scenario: &Scenario| {
        play(scenario, &mut Story::default())
            .is_err_and(|found| found.invariant == violation.invariant)
    };
    let mut least = scenario.clone();
    // Ever smaller parts, until no single happening can be left out (delta debugging).
    let mut part = least.happenings.len().div_ceil(2).max(1);
    loop {
        let mut smaller = false;
        let mut from = 0;
        while from < least.happenings.len() {
            let mut without = least.clone();
            let to = (from + part).min(without.happenings.len());
            without.happenings.drain(from..to);
            if fails(&without) {
                least = without;
                smaller = true;
            } else {
                from = to;
            }
        }
        if part > 1 {
            part = part.div_ceil(2);
        } else if !smaller {
            break;
        }
    }
    for replicas in 1..least.replicas {
        let fewer = Scenario {
            replicas,
            ..least.clone()
        };
        if fails(&fewer) {
            least = fewer;
            break;
        }
    }
    let mut story = Story::told();
    let violation = match play(&least, &mut story) {
        Err(violation) => violation,
        // It failed a moment ago, and nothing in it is chance.
        Ok(_) => violation.clone(),
    };
    Failure {
        scenario: least,
        violation,
        story,
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seed = self.scenario.seed;
        writeln!(f, "seed {seed}, cut down to what it takes:")?;
        writeln!(
            f,
            "  set {} of the policies, {} replicas, then {:?}",
            self.scenario.policies, self.scenario.replicas, self.scenario.ending
        )?;
        for happening in &self.scenario.happenings {
            writeln!(f, "  at {:>9.3?}: {}", happening.at, happening.what)?;
        }
        writeln!(f, "what happened:")?;
        for line in self.story.lines() {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "{}", self.violation)?;
        write!(f, "to see it again: make soak SEED={seed}")
    }
}
