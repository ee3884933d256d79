//! What ends a run between two effects, and never in the middle of one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sentinel_core::event::{RunResult, StopCause};
use sentinel_sandbox::gate::{Halt, Halted};
use tokio::sync::Notify;

use crate::support::{Stage, World};

fn stopped(cause: StopCause, message: &str) -> RunResult {
    RunResult::Stopped {
        cause,
        message: message.to_owned(),
    }
}

/// Runs `script` and halts it as soon as a line with `at` is in the story.
async fn halted(world: World, script: &[&str], at: &str) -> (Arc<World>, RunResult, Duration) {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(world);
    let halt = Halt::new();
    let run = stage.run(&world, script, |context| context.halt = halt.clone());
    let stop = async {
        if !at.is_empty() {
            world.story.wait_for(at).await;
        }
        halt.stop(StopCause::Cleared, "the alert resolved");
        halt.stop(StopCause::Cancelled, "too late to be the cause");
        let since = Instant::now();
        if let Some(hold) = &world.hold_restarts {
            // The run does not end before its effect does.
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(!world.story.has("ended"));
            hold.notify_one();
        }
        since
    };
    let (report, since) = tokio::join!(run, stop);
    (
        Arc::clone(&world),
        RunResult::from(&report),
        since.elapsed(),
    )
}

#[tokio::test]
async fn what_sleeps_computes_or_looks_is_cut_off_at_once() {
    let cleared = stopped(StopCause::Cleared, "the alert resolved");
    for (script, at) in [
        (
            ["inspect nginx", "sleep 10000", "restart nginx"],
            "log info",
        ),
        (
            ["inspect nginx", "wasi-sleep 10000", "restart nginx"],
            "log info",
        ),
        (["inspect nginx", "spin", "restart nginx"], "log info"),
        // Not even begun.
        (["inspect nginx", "inspect nginx", "restart nginx"], ""),
    ] {
        let (world, result, took) = halted(World::default(), &script, at).await;
        assert_eq!(result, cleared, "{script:?}");
        assert!(took < Duration::from_secs(2), "{script:?}: {took:?}");
        assert_eq!(world.done(), [""; 0]);
    }
    let slow = World {
        hold_looks: Some(Notify::new()),
        ..World::default()
    };
    let (_, result, took) = halted(slow, &["inspect nginx"], "driver inspect").await;
    assert_eq!(result, cleared);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn an_effect_under_way_is_finished_and_recorded_first() {
    let slow = World {
        hold_restarts: Some(Notify::new()),
        ..World::default()
    };
    let script = ["restart nginx", "restart db"];
    let (world, result, _) = halted(slow, &script, "driver restart local").await;
    assert_eq!(result, stopped(StopCause::Cleared, "the alert resolved"));
    assert_eq!(world.done(), ["restart nginx"]);
    let lines = world.story.lines();
    let place = |line: &str| lines.iter().position(|told| told == line).unwrap();
    assert!(place("ended 1 ok") < place("the run is over"), "{lines:#?}");
    assert!(!world.story.has("began 2"));
}

#[tokio::test]
async fn the_guard_is_asked_for_each_effect_right_before_it_begins() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    let paused = Halted {
        cause: StopCause::Paused,
        message: "paused by ops: upgrade of the switch".to_owned(),
    };
    *world.refuse_after.lock().unwrap() = Some((1, paused));
    let script = ["restart nginx", "inspect nginx", "restart db", "inspect db"];
    let report = stage.run(&world, &script, |_| {}).await;
    assert_eq!(
        RunResult::from(&report),
        stopped(StopCause::Paused, "paused by ops: upgrade of the switch")
    );
    assert_eq!(world.done(), ["restart nginx"]);
    let lines = world.story.lines();
    assert_eq!(
        lines[lines.len() - 2..],
        ["guard docker.restart local/db on db", "the run is over"]
    );
    assert_eq!(
        world.recording().calls.len(),
        2,
        "what did not begin is not on record"
    );
}

#[tokio::test]
async fn a_run_that_waits_for_its_turn_is_ended_there() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    let halt = Halt::new();
    halt.stop(StopCause::Cancelled, "by an operator");
    let report = stage
        .run(&world, &["restart nginx"], |context| context.halt = halt)
        .await;
    assert_eq!(
        RunResult::from(&report),
        stopped(StopCause::Cancelled, "by an operator")
    );
    let kinds: Vec<&str> = world
        .events()
        .iter()
        .map(|event| event.body.kind())
        .collect();
    assert_eq!(kinds, ["run-started", "run-ended"]);
}

#[tokio::test]
async fn a_halt_after_the_end_changes_nothing() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    let halt = Halt::new();
    let report = stage
        .run(&world, &["unchanged fine"], |context| {
            context.halt = halt.clone();
        })
        .await;
    halt.stop(StopCause::Cleared, "late");
    assert_eq!(
        RunResult::from(&report),
        RunResult::Unchanged {
            message: "fine".to_owned()
        }
    );
}
