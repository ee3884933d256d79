//! How much a run may put on record, and what is kept of what it was refused.

use std::sync::Arc;

use sentinel_core::capability::{DockerCall, DockerRequest, Request, SUMMARY_LIMIT};
use sentinel_core::event::{Event, EventBody, RunResult};
use sentinel_core::recording::Recording;
use sentinel_sandbox::gate::GateContext;
use sentinel_sandbox::{ReplayOutcome, RunFailure};

use crate::support::{Stage, World, run_id};

/// Everything on record, as the journal keeps it.
fn journal(world: &World) -> String {
    serde_json::to_string(&world.events()).unwrap()
}

fn read_back(world: &World) -> Recording {
    let events: Vec<Event> = serde_json::from_str(&journal(world)).unwrap();
    Recording::of(&events, run_id()).unwrap()
}

#[tokio::test]
async fn a_run_ends_past_what_it_may_put_on_record_and_is_at_fault() {
    let stage = Stage::new("scripted").await;
    let script = ["logs nginx"; 50];
    let limit = 64 << 10;
    let bounded = |context: &mut GateContext| context.limits.record_bytes = limit;
    let world = || {
        Arc::new(World {
            logs: Some("x".repeat(10_000)),
            ..World::default()
        })
    };
    let full = world();
    let report = stage.run(&full, &script, bounded).await;
    let failure = report.result.as_ref().unwrap_err();
    assert_eq!(failure, &RunFailure::TooMuchRecorded { limit });
    assert!(failure.is_fault());
    assert!(
        journal(&full).len() < limit + 8192,
        "{}",
        journal(&full).len()
    );
    // What is there can be played again to where it ends.
    let recording = read_back(&full);
    let calls = recording.calls.len();
    assert!((2..8).contains(&calls), "{calls}");
    let replay = stage.replay(recording, &script).await;
    assert_eq!(replay.divergence, None);
    assert!(matches!(replay.outcome, ReplayOutcome::RecordEnds { .. }));

    // Within the bound nothing changes.
    let whole = world();
    let report = stage.run(&whole, &["logs nginx"; 2], bounded).await;
    assert!(report.result.is_ok());
    let replay = stage.replay(read_back(&whole), &["logs nginx"; 2]).await;
    assert_eq!(replay.divergence, None);
    assert_eq!(
        replay.outcome,
        ReplayOutcome::Ended {
            result: RunResult::from(&report)
        }
    );
}

/// An effect that was carried out is recorded as ended, also where its answer is too much; the
/// next call ends the run.
#[tokio::test]
async fn the_end_of_an_effect_is_always_recorded() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    let script = ["restart nginx", "restart nginx"];
    let once = Arc::new(World::default());
    stage.run(&once, &script[..1], |_| {}).await;
    let calls: usize = once
        .events()
        .iter()
        .filter(|event| matches!(event.body, EventBody::EffectBegan { .. }))
        .map(|event| serde_json::to_string(event).unwrap().len())
        .sum();
    let report = stage
        .run(&world, &script, |context| {
            // As much as the request takes, and a little more.
            context.limits.record_bytes = calls;
        })
        .await;
    assert!(matches!(
        report.result,
        Err(RunFailure::TooMuchRecorded { .. })
    ));
    assert_eq!(world.done().len(), 1);
    let calls = read_back(&world).calls;
    assert!(
        calls.iter().all(|call| call.answer().is_some()),
        "{calls:?}"
    );
}

#[tokio::test]
async fn what_is_refused_is_kept_short_and_known_again() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    let script = ["inspect-long 500000"; 20];
    let report = stage.run(&world, &script, |_| {}).await;
    assert!(report.result.is_ok());
    // Beside what the plugin wrote of it itself.
    let denied: Vec<String> = world
        .events()
        .iter()
        .filter(|event| matches!(event.body, EventBody::Denied { .. }))
        .map(|event| serde_json::to_string(event).unwrap())
        .collect();
    assert_eq!(denied.len(), 20);
    assert!(denied.iter().all(|event| event.len() < 8192));
    let recording = read_back(&world);
    assert!(recording.calls[0].digest.is_some());
    assert!(recording.calls[0].request.summary().chars().count() <= SUMMARY_LIMIT);
    let replay = stage.replay(recording.clone(), &script).await;
    assert_eq!(replay.divergence, None);
    assert!(matches!(replay.outcome, ReplayOutcome::Ended { .. }));
    // The same beginning is not the same request.
    let others = ["inspect-long 500001"; 20];
    let replay = stage.replay(recording.clone(), &others).await;
    assert_eq!(replay.outcome, ReplayOutcome::Diverged);

    // A run that goes on after a crash asks for the same.
    let cut = Arc::new(World::default());
    for event in world
        .events()
        .iter()
        .filter(|event| !matches!(event.body, EventBody::RunEnded { .. }))
    {
        cut.note(event.body.clone());
    }
    let report = stage.resume(&cut, &script, |_| {}).await;
    assert!(report.result.is_ok(), "{:?}", report.result);
}

/// Records of earlier versions have refused requests whole.
#[test]
fn an_older_record_of_a_refused_call_is_read() {
    let request = Request::Docker(DockerRequest {
        host: "local".to_owned(),
        call: DockerCall::Inspect {
            container: "x".repeat(5_000),
        },
    });
    let json = format!(
        r#"{{"kind":"denied","run":"42.1","call":1,"request":{},"error":{{"error":"denied","message":"no"}}}}"#,
        serde_json::to_string(&request).unwrap()
    );
    let body: EventBody = serde_json::from_str(&json).unwrap();
    let EventBody::Denied {
        request: read,
        digest: None,
        ..
    } = body
    else {
        panic!("{body:?}");
    };
    assert_eq!(read, request);
}
