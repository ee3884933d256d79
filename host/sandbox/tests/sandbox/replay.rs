//! Runs that are played again on their record alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sentinel_core::event::{Event, RunResult};
use sentinel_core::recording::Recording;
use sentinel_sandbox::gate::GateMode;
use sentinel_sandbox::{Outcome, ReplayOutcome, RunFailure, RunLimits};

use crate::support::{Stage, World, limits, run_id};

const SCRIPT: [&str; 12] = [
    "inspect nginx",
    "clock",
    "random",
    "restart nginx",
    "restart gone",
    "wasi-clock",
    "sleep 900",
    "wasi-sleep 900",
    "list",
    "playbook a.yml",
    "wait-until 2000",
    "clock",
];

async fn recorded(stage: &Stage, script: &[&str]) -> (Recording, RunResult) {
    let world = Arc::new(World::default());
    let report = stage.run(&world, script, |_| {}).await;
    (as_journaled(&world), RunResult::from(&report))
}

/// As the journal gives it back: through JSON.
fn as_journaled(world: &World) -> Recording {
    let text = serde_json::to_string(&world.events()).unwrap();
    Recording::of(&serde_json::from_str::<Vec<_>>(&text).unwrap(), run_id()).unwrap()
}

#[tokio::test]
async fn the_same_plugin_does_the_same_and_waits_for_nothing() {
    let stage = Stage::new("scripted").await;
    let (recording, result) = recorded(&stage, &SCRIPT).await;
    assert!(matches!(result, RunResult::Changed { .. }), "{result:?}");
    let began = Instant::now();
    let report = stage.replay(recording.clone(), &SCRIPT).await;
    assert!(began.elapsed() < Duration::from_millis(800));
    assert!(report.same_plugin);
    assert_eq!(report.divergence, None);
    assert_eq!(report.outcome, ReplayOutcome::Ended { result });
    // Call by call, with what it said in between.
    let calls: Vec<u32> = report.calls.iter().map(|call| call.number).collect();
    assert_eq!(calls, [1, 2, 3, 4, 5]);
    assert_eq!(report.calls[1].on.as_ref().unwrap().name, "nginx");
    let lines = report.calls.iter().flat_map(|call| &call.lines);
    let lines: Vec<_> = lines.chain(&report.lines).cloned().collect();
    assert_eq!(lines, recording.lines);
}

#[tokio::test]
async fn another_version_shows_its_first_divergence() {
    let first = Stage::new("scripted").await;
    let second = Stage::new("scripted-v2").await;
    // It looks at the clock more often, which is none.
    let script = [
        "inspect nginx",
        "clock",
        "kill nginx",
        "clock",
        "start nginx",
    ];
    let (recording, _) = recorded(&first, &script).await;
    let report = second.replay(recording, &script).await;
    assert!(!report.same_plugin);
    assert_eq!(report.divergence, None, "{:?}", report.divergence);
    assert_eq!(report.calls.len(), 3);
    assert!(matches!(report.outcome, ReplayOutcome::Ended { .. }));

    let (recording, _) = recorded(&first, &SCRIPT).await;
    let report = second.replay(recording, &SCRIPT).await;
    assert_eq!(
        report.divergence.as_ref().unwrap().to_string(),
        "call 2: recorded docker.restart local/nginx [grace 1000 ms], asked docker.stop \
         local/nginx [grace 1000 ms]"
    );
    assert_eq!(report.outcome, ReplayOutcome::Diverged);
    assert_eq!(report.calls.len(), 1);
}

#[tokio::test]
async fn fewer_calls_more_calls_and_another_end() {
    let stage = Stage::new("scripted").await;
    let (recording, _) = recorded(&stage, &["inspect nginx", "list", "unchanged fine"]).await;
    let replay = async |script: &[&str]| {
        let report = stage.replay(recording.clone(), script).await;
        report.divergence.map(|divergence| divergence.to_string())
    };
    assert_eq!(
        replay(&["inspect nginx", "list", "unchanged fine"]).await,
        None
    );
    assert_eq!(
        replay(&["inspect nginx", "unchanged fine"]).await.unwrap(),
        "call 2: recorded docker.list local/ [running], the replay ended `unchanged`: fine"
    );
    assert_eq!(
        replay(&["inspect nginx", "list", "restart nginx"])
            .await
            .unwrap(),
        "call 3: the recorded run ended `unchanged`: fine, asked docker.restart local/nginx \
         [grace 1000 ms]"
    );
    assert_eq!(
        replay(&["inspect nginx", "list", "retryable no"])
            .await
            .unwrap(),
        "the end: the recorded run ended `unchanged`: fine, the replay failed (retryable): no"
    );
    // The very same plugin is held to its words, its lines and its looks, too.
    assert_eq!(
        replay(&["inspect nginx", "list", "unchanged well"])
            .await
            .unwrap(),
        "the end: the recorded run ended `unchanged`: fine, the replay ended `unchanged`: well"
    );
    assert_eq!(
        replay(&["inspect nginx", "logs nginx", "unchanged fine"])
            .await
            .unwrap(),
        "call 2: recorded docker.list local/ [running], asked docker.logs local/nginx [10 lines]"
    );
    let divergence = replay(&["inspect nginx", "clock", "list", "unchanged fine"])
        .await
        .unwrap();
    assert!(
        divergence.starts_with(
            "line 2: recorded info: list: db running, nginx running, written info: clock: "
        ),
        "{divergence}"
    );
    let mut looked = recording.clone();
    looked.readings.push(5);
    let report = stage
        .replay(looked, &["inspect nginx", "list", "unchanged fine"])
        .await;
    assert_eq!(
        report.divergence.unwrap().to_string(),
        "the end: the recorded run had looked at its clock 1 times, the replay 0 times"
    );
}

#[tokio::test]
async fn a_change_of_words_is_no_divergence_of_another_version() {
    let first = Stage::new("scripted").await;
    let second = Stage::new("scripted-v2").await;
    let (recording, _) = recorded(&first, &["list", "unchanged fine"]).await;
    let report = second.replay(recording, &["list", "unchanged well"]).await;
    assert_eq!(report.divergence, None);
    assert_eq!(
        report.outcome,
        ReplayOutcome::Ended {
            result: RunResult::Unchanged {
                message: "well".to_owned()
            }
        }
    );
}

#[tokio::test]
async fn where_the_recorded_run_was_cut_off_the_replay_ends() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    stage.run(&world, &SCRIPT, |_| {}).await;
    let events = world.events();
    for cut in 1..events.len() {
        let recording = Recording::of(&events[..cut], run_id()).unwrap();
        let calls = recording.calls.len();
        let report = stage.replay(recording, &SCRIPT).await;
        assert_eq!(report.divergence, None, "cut before {:?}", events[cut].body);
        assert_eq!(report.calls.len(), calls);
        assert!(matches!(report.outcome, ReplayOutcome::RecordEnds { .. }));
    }
}

/// Which moment a run's time was over at has nothing to do with what it did.
#[tokio::test]
async fn a_run_whose_time_was_over_is_a_record_that_ends() {
    let stage = Stage::new("scripted").await;
    let script = ["inspect nginx", "sleep 10000", "restart nginx"];
    let (mut recording, _) = recorded(&stage, &["inspect nginx", "unchanged -"]).await;
    let failure = RunFailure::TimedOut { limit_ms: 300 };
    recording.end = Some(RunResult::Failed {
        class: failure.class().unwrap(),
        message: failure.to_string(),
    });
    let report = stage.replay(recording, &script).await;
    assert_eq!(report.divergence, None);
    assert!(
        matches!(&report.outcome, ReplayOutcome::RecordEnds { asked: Some(asked) }
            if asked.name() == "docker.restart"),
        "{:?}",
        report.outcome
    );
}

#[tokio::test]
async fn a_trap_is_played_again_as_a_trap() {
    let stage = Stage::new("scripted").await;
    let script = ["inspect nginx", "no-such-word", "list"];
    let (recording, result) = recorded(&stage, &script).await;
    assert!(matches!(result, RunResult::Failed { .. }));
    let report = stage.replay(recording, &script).await;
    assert_eq!(report.divergence, None);
    assert_eq!(report.outcome, ReplayOutcome::Ended { result });
}

/// The record of a guest that looks a million times is bounded like its calls are.
#[tokio::test]
async fn every_look_at_the_clock_is_a_call_to_the_host() {
    let stage = Stage::new("scripted").await;
    for script in [["looks 1000000"], ["wasi-looks 1000000"]] {
        let (recording, result) = recorded(&stage, &script).await;
        let RunResult::Failed { message, .. } = &result else {
            panic!("{result:?}");
        };
        assert_eq!(
            message,
            "it made more than 10000 host calls and was cut off"
        );
        assert_eq!(recording.readings.len(), 10_000);
        let report = stage.replay(recording, &script).await;
        assert_eq!(report.divergence, None);
        assert_eq!(report.outcome, ReplayOutcome::Ended { result });
    }
    let world = Arc::new(World::default());
    stage.run(&world, &["looks 1000"], |_| {}).await;
    let reads = |event: &&Event| event.body.kind() == "clock-read";
    assert_eq!(world.events().iter().filter(reads).count(), 4, "in batches");
}

/// If these numbers change, with another version of a library, no run that is on record can
/// be played again.
#[tokio::test]
async fn a_seed_gives_the_same_numbers_for_ever() {
    let stage = Stage::new("scripted").await;
    let (mut recording, _) = recorded(&stage, &["unchanged -"]).await;
    recording.origin.as_mut().unwrap().seed = [7; 32];
    recording.end = None;
    let report = stage.replay(recording, &["random", "random"]).await;
    assert_eq!(
        report.lines[0].message,
        "random: 20cbc085788992f6 4ca034ab4ebf9766"
    );
    assert_eq!(
        report.lines[1].message,
        "random: bc150b6a10cde4a3 ed75cab7d75b0bd8"
    );
}

#[tokio::test]
async fn a_replay_keeps_the_limits() {
    let stage = Stage::new("scripted").await;
    let (mut recording, _) = recorded(&stage, &["list"]).await;
    recording.end = None;
    let params = serde_json::json!({"script": ["list", "spin"]});
    let report = stage
        .sandbox
        .replay(
            Arc::clone(&stage.plugin),
            crate::support::incident(params),
            recording,
            RunLimits {
                cpu: Duration::from_millis(100),
                ..limits()
            },
        )
        .await;
    assert_eq!(report.divergence, None);
    assert_eq!(report.outcome, ReplayOutcome::RecordEnds { asked: None });
}

#[tokio::test]
async fn a_run_that_applied_a_plan_in_part_is_no_divergence() {
    let stage = Stage::new("scripted").await;
    let dry = Arc::new(World::default());
    stage
        .run(&dry, &["restart nginx"], |context| {
            context.mode = GateMode::Dry;
        })
        .await;
    let plan = dry.recording().plan();
    let world = Arc::new(World::default());
    let script = ["list", "unchanged fine"];
    let report = stage
        .run(&world, &script, |context| {
            context.mode = GateMode::Apply(plan);
        })
        .await;
    assert!(
        matches!(&report.result, Ok(Outcome::Unchanged(message)) if message.contains("left out")),
    );
    let report = stage.replay(as_journaled(&world), &script).await;
    assert_eq!(report.divergence, None);
    // A dry run is played like any other.
    let report = stage.replay(dry.recording(), &["restart nginx"]).await;
    assert_eq!(report.divergence, None);
}
