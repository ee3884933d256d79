//! Runs that go on from their record after the daemon was cut off, at every moment at
//! which it can be.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sentinel_core::capability::Response;
use sentinel_core::event::{Event, EventBody, RunResult, StopCause};
use sentinel_core::incident::OnInterrupt;
use sentinel_core::recording::Recording;
use sentinel_sandbox::Outcome;
use sentinel_sandbox::driver::Settled;
use sentinel_sandbox::gate::{EvidencePlan, GateContext, GateMode, Halted};

use crate::support::{Stage, World, run_id};

/// Everything that a guest can see, in one run.
const SCRIPT: [&str; 16] = [
    "clock",
    "inspect nginx",
    "random",
    "restart nginx",
    "wasi-clock",
    "restart gone",
    "wasi-sleep 3",
    "list",
    "kill db",
    "sleep 3",
    "wait-until 25",
    "recreate nginx",
    "clock",
    "timed-restart made",
    "logs nginx",
    "await nginx",
];
const EFFECTS: [&str; 4] = [
    "restart nginx",
    "kill db",
    "recreate nginx",
    "restart nginx",
];

fn evidence(context: &mut GateContext) {
    context.evidence = Some(EvidencePlan {
        lines: 5,
        target: "docker://local/nginx".parse().unwrap(),
    });
}

/// The effects that these events have as ended.
fn ended(events: &[Event]) -> usize {
    events
        .iter()
        .filter(|event| matches!(&event.body, EventBody::EffectEnded { result: Ok(_), .. }))
        .count()
}

/// The world after a crash that left `events` on record and `done` effects carried out.
fn after_crash(events: &[Event], done: usize, settled: Option<Settled>) -> Arc<World> {
    Arc::new(World {
        events: Mutex::new(events.to_vec()),
        done: Mutex::new(EFFECTS[..done].iter().map(ToString::to_string).collect()),
        settled,
        ..World::default()
    })
}

/// Whatever was cut off where, the record as a whole is that of one run.
async fn is_one_run(stage: &Stage, world: &World, script: &[&str]) -> Recording {
    let recording = world.recording();
    let report = stage.replay(recording.clone(), script).await;
    assert_eq!(report.divergence, None);
    assert_eq!(report.calls.len(), recording.calls.len());
    recording
}

fn on_record_once(world: &World, kind: &str) {
    let events = world.events();
    let there = events.iter().filter(|event| event.body.kind() == kind);
    assert_eq!(there.count(), 1, "{kind}");
}

#[tokio::test]
async fn a_run_cut_off_anywhere_does_each_effect_once() {
    let stage = Stage::new("scripted").await;
    let whole = Arc::new(World::default());
    let report = stage.run(&whole, &SCRIPT, evidence).await;
    assert!(report.result.is_ok(), "{report:?}");
    assert_eq!(whole.done(), EFFECTS);
    let recorded = is_one_run(&stage, &whole, &SCRIPT).await;
    let events = whole.events();
    assert!(events.len() > 30, "{}", events.len());

    // All but the end of the run; the first event is its start.
    for cut in 1..events.len() {
        let kept = &events[..cut];
        let before = Recording::of(kept, run_id()).unwrap();
        let begun = ended(kept);
        let doubts = if before.in_doubt().is_some() {
            let response = match EFFECTS[begun] {
                "recreate nginx" => Response::Created(crate::support::MADE.to_owned()),
                _ => Response::Done,
            };
            vec![
                // Carried out before the crash, not carried out, and nobody knows.
                (
                    begun + 1,
                    Some(Settled::Done(response)),
                    OnInterrupt::Escalate,
                ),
                (begun, Some(Settled::NotDone), OnInterrupt::Escalate),
                (
                    begun,
                    Some(Settled::Unknown("hm".to_owned())),
                    OnInterrupt::Rerun,
                ),
                (begun, None, OnInterrupt::Rerun),
            ]
        } else {
            vec![(begun, None, OnInterrupt::Escalate)]
        };
        for (done, settled, on_interrupt) in doubts {
            let world = after_crash(kept, done, settled.clone());
            let report = stage
                .resume(&world, &SCRIPT, |context| {
                    evidence(context);
                    context.on_interrupt = on_interrupt;
                })
                .await;
            let context = format!("cut before {:?}, {settled:?}", events[cut].body);
            assert!(report.result.is_ok(), "{context}: {report:?}");
            assert_eq!(world.done(), EFFECTS, "{context}");
            let recording = is_one_run(&stage, &world, &SCRIPT).await;
            assert_eq!(recording.calls.len(), recorded.calls.len(), "{context}");
            assert_eq!(recording.lines.len(), recorded.lines.len(), "{context}");
            assert_eq!(recording.lines[..before.lines.len()], before.lines);
            assert_eq!(recording.readings[..before.readings.len()], before.readings);
            on_record_once(&world, "evidence-captured");
            on_record_once(&world, "run-seeded");
        }
    }
}

#[tokio::test]
async fn a_run_can_be_cut_off_again_and_again() {
    let stage = Stage::new("scripted").await;
    let script = [
        "clock",
        "inspect nginx",
        "restart nginx",
        "wait-until 15",
        "kill db",
        "clock",
    ];
    let whole = Arc::new(World::default());
    stage.run(&whole, &script, |_| {}).await;
    let mut events = whole.events();
    // Each life gets a little further than the one before.
    let mut kept = 1;
    while kept < events.len() {
        let done = ended(&events[..kept]);
        let world = after_crash(&events[..kept], done, Some(Settled::NotDone));
        let report = stage.resume(&world, &script, |_| {}).await;
        assert!(report.result.is_ok(), "{report:?}");
        assert_eq!(world.done(), EFFECTS[..2]);
        is_one_run(&stage, &world, &script).await;
        events = world.events();
        kept += 3;
    }
    let resumptions = Recording::of(&events, run_id()).unwrap().resumptions;
    assert!(resumptions.len() > 3, "{resumptions:?}");
}

#[tokio::test]
async fn an_effect_in_doubt_goes_to_a_person_when_the_policy_says_so() {
    let stage = Stage::new("scripted").await;
    let script = ["restart nginx", "playbook a.yml"];
    let whole = Arc::new(World::default());
    stage.run(&whole, &script, |_| {}).await;
    let events = whole.events();
    let begins = events
        .iter()
        .enumerate()
        .filter(|(_, event)| event.body.kind() == "effect-began")
        .map(|(place, _)| place);
    for (number, place) in begins.enumerate() {
        for settled in [None, Some(Settled::Unknown("it was replaced".to_owned()))] {
            let world = after_crash(&events[..=place], number, settled.clone());
            let report = stage.resume(&world, &script, |_| {}).await;
            let RunResult::Stopped {
                cause: StopCause::InDoubt,
                message,
            } = RunResult::from(&report)
            else {
                panic!("{report:?}");
            };
            assert_eq!(world.done().len(), number, "nothing more was done");
            let expected = match (number, settled) {
                (0, None) => {
                    "sentinel was cut off in call 1, docker.restart local/nginx [grace 1000 ms], \
                     and whether it was carried out cannot be told: unavailable: docker is away"
                }
                (0, Some(_)) => {
                    "sentinel was cut off in call 1, docker.restart local/nginx [grace 1000 ms], \
                     and whether it was carried out cannot be told: it was replaced"
                }
                _ => {
                    "and whether it was carried out cannot be told: what a playbook did before it \
                     was cut off cannot be told"
                }
            };
            assert!(message.ends_with(expected), "{message}");
        }
        // A playbook is run again when the policy says so, whatever Docker would say.
        let world = after_crash(&events[..=place], number, None);
        let report = stage
            .resume(&world, &script, |context| {
                context.on_interrupt = OnInterrupt::Rerun;
            })
            .await;
        assert!(report.result.is_ok(), "{report:?}");
        assert_eq!(world.done(), ["restart nginx", "playbook a.yml"]);
    }
}

#[tokio::test]
async fn what_the_driver_found_out_is_on_record_as_such() {
    let stage = Stage::new("scripted").await;
    let script = ["restart nginx"];
    let whole = Arc::new(World::default());
    stage.run(&whole, &script, |_| {}).await;
    let mut events = whole.events();
    let begin = |event: &Event| event.body.kind() == "effect-began";
    events.truncate(events.iter().position(begin).unwrap() + 1);
    let world = after_crash(&events, 1, Some(Settled::Done(Response::Done)));
    stage.resume(&world, &script, |_| {}).await;
    assert!(world.story.has("driver settle restart local/aaaa"));
    assert!(world.story.has("ended 1 ok settled"));
    assert!(!world.story.has("guard"), "nothing was begun");
    // To begin again needs the guard's word as any begin does.
    let world = after_crash(&events, 0, Some(Settled::NotDone));
    stage.resume(&world, &script, |_| {}).await;
    assert!(world.story.has("guard"));
    assert!(world.story.has("began 1 docker.restart"));
    // What is not granted any more, or gone, needs an end all the same.
    let world = after_crash(&events, 0, Some(Settled::NotDone));
    stage
        .resume(&world, &script, |context| {
            context.grants = Arc::default();
        })
        .await;
    assert!(
        world.story.has("ended 1 denied"),
        "{:?}",
        world.story.lines()
    );
    assert_eq!(world.done(), [""; 0]);
}

#[tokio::test]
async fn a_run_that_does_not_follow_its_record_is_stopped() {
    let stage = Stage::new("scripted").await;
    let whole = Arc::new(World::default());
    let script = ["inspect nginx", "restart nginx", "inspect nginx"];
    stage.run(&whole, &script, |_| {}).await;
    let mut events = whole.events();
    events.pop();
    let strays = async |script: &[&str]| {
        let world = after_crash(&events, 1, None);
        let report = stage.resume(&world, script, |_| {}).await;
        assert_eq!(world.done(), ["restart nginx"], "nothing was done");
        let RunResult::Stopped {
            cause: StopCause::Nondeterministic,
            message,
        } = RunResult::from(&report)
        else {
            panic!("{report:?}");
        };
        message
    };
    assert_eq!(
        strays(&["inspect nginx", "stop nginx"]).await,
        "did not follow its own record: call 2 was docker.stop local/nginx [grace 1000 ms], and \
         the record has docker.restart local/nginx [grace 1000 ms]"
    );
    assert_eq!(
        strays(&["inspect nginx", "restart nginx"]).await,
        "did not follow its own record: it ended where the record has call 3, \
         docker.inspect local/nginx"
    );
    assert_eq!(
        strays(&["inspect nginx", "clock", "restart nginx"]).await,
        "did not follow its own record: it came to call 2, docker.restart local/nginx, after 3 \
         looks at its clock, and the record has 0"
    );
}

#[tokio::test]
async fn another_seed_is_another_run() {
    let stage = Stage::new("scripted").await;
    let script = ["choose"; 8];
    let seeded = |events: &[Event], digits: &str| {
        let mut events = events.to_vec();
        for event in &mut events {
            if let EventBody::RunSeeded { seed, .. } = &mut event.body {
                *seed = digits.repeat(32);
            }
        }
        after_crash(&events, 0, None)
    };
    let any = Arc::new(World::default());
    stage.run(&any, &script, |_| {}).await;
    let whole = seeded(&any.events()[..2], "07");
    let chosen = stage.resume(&whole, &script, |_| {}).await.result;
    let mut events = whole.events();
    events.pop();

    let same = seeded(&events, "07");
    let again = stage.resume(&same, &script, |_| {}).await;
    assert_eq!(again.result, chosen);
    let other = seeded(&events, "08");
    let RunResult::Stopped {
        cause: StopCause::Nondeterministic,
        message,
    } = RunResult::from(&stage.resume(&other, &script, |_| {}).await)
    else {
        panic!("the same choices");
    };
    assert!(
        message.contains("and the record has docker.inspect"),
        "{message}"
    );
}

#[tokio::test]
async fn only_its_own_record_is_one_to_go_on_from() {
    let stage = Stage::new("scripted").await;
    let other = Stage::new("scripted-v2").await;
    let script = ["inspect nginx", "restart nginx"];
    let whole = Arc::new(World::default());
    stage.run(&whole, &script, |_| {}).await;
    let events = whole.events();
    let begun = &events[..3];
    let refused = async |stage: &Stage, events: &[Event], mode: GateMode| {
        let world = after_crash(events, 0, None);
        let report = stage
            .resume(&world, &script, |context| context.mode = mode)
            .await;
        assert_eq!(world.done(), [""; 0]);
        report.result.unwrap_err().to_string()
    };
    assert!(
        refused(&other, begun, GateMode::Live)
            .await
            .starts_with("cannot go on from its record: the record is that of plugin sha256:")
    );
    assert_eq!(
        refused(&stage, begun, GateMode::Dry).await,
        "cannot go on from its record: the record is that of a live run, and this is a dry one"
    );
}

#[tokio::test]
async fn limits_and_plans_count_what_was_done_before_the_crash() {
    let stage = Stage::new("scripted").await;
    let script = [
        "restart nginx",
        "recreate nginx",
        "restart made",
        "inspect made",
    ];
    let dry = Arc::new(World::default());
    stage
        .run(&dry, &script, |context| context.mode = GateMode::Dry)
        .await;
    let plan = dry.recording().plan();
    let apply = |context: &mut GateContext| {
        context.mode = GateMode::Apply(plan.clone());
        context.limits.effects = 3;
    };
    let whole = Arc::new(World::default());
    let report = stage.run(&whole, &script, apply).await;
    assert!(report.result.is_ok(), "{report:?}");
    let effects = ["restart nginx", "recreate nginx", "restart nginx"];
    assert_eq!(whole.done(), effects);
    let events = whole.events();
    for cut in 1..events.len() {
        let kept = &events[..cut];
        let world = Arc::new(World {
            events: Mutex::new(kept.to_vec()),
            done: Mutex::new(
                effects[..ended(kept)]
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
            ),
            settled: Some(Settled::NotDone),
            ..World::default()
        });
        let report = stage.resume(&world, &script, apply).await;
        assert!(report.result.is_ok(), "{cut}: {report:?}");
        assert_eq!(world.done(), effects);
        // A fourth is one too many, also when three were before the crash.
        let world = after_crash(&events[..events.len() - 1], 3, None);
        let more = [&script[..], &["stop db"]].concat();
        let report = stage.resume(&world, &more, apply).await;
        let Ok(Outcome::Changed(said)) = &report.result else {
            panic!("{report:?}");
        };
        assert!(said.contains("a run may ask for 3 effects"), "{said}");
    }
}

#[tokio::test]
async fn a_dry_run_goes_on_with_what_it_has_planned() {
    let stage = Stage::new("scripted").await;
    let script = [
        "restart nginx",
        "recreate nginx",
        "inspect made",
        "kill nginx",
        "list-all",
    ];
    let dry = |context: &mut GateContext| context.mode = GateMode::Dry;
    let whole = Arc::new(World::default());
    stage.run(&whole, &script, dry).await;
    let plan = whole.recording().plan();
    let events = whole.events();
    for cut in 1..events.len() {
        let world = after_crash(&events[..cut], 0, None);
        let report = stage.resume(&world, &script, dry).await;
        let Ok(Outcome::Changed(said)) = &report.result else {
            panic!("{report:?}");
        };
        assert!(said.ends_with("db running, nginx exited"), "{said}");
        assert_eq!(world.recording().plan(), plan);
        assert_eq!(world.done(), [""; 0]);
        is_one_run(&stage, &world, &script).await;
    }
}

/// A run that had waited does not wait again, and none of its time is lost.
#[tokio::test]
async fn what_was_slept_before_the_crash_is_not_slept_again() {
    let stage = Stage::new("scripted").await;
    let script = [
        "sleep 1500",
        "wasi-sleep 1500",
        "clock",
        "inspect nginx",
        "clock",
    ];
    let whole = Arc::new(World::default());
    stage.run(&whole, &script, |_| {}).await;
    let mut events = whole.events();
    let looked = |event: &Event| event.body.kind() == "observed";
    events.truncate(events.iter().position(looked).unwrap() + 1);
    let world = after_crash(&events, 0, None);
    let began = Instant::now();
    let report = stage.resume(&world, &script, |_| {}).await;
    assert!(report.result.is_ok(), "{report:?}");
    assert!(began.elapsed() < Duration::from_millis(1_400));
    let recording = is_one_run(&stage, &world, &script).await;
    let last = Duration::from_nanos(*recording.readings.last().unwrap());
    assert!(last >= Duration::from_millis(3_000), "{last:?}");
}

/// The stop switch ends a run between two effects; when it is released, the run goes on.
#[tokio::test]
async fn a_run_that_was_paused_goes_on_where_it_was() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    let paused = Halted {
        cause: StopCause::Paused,
        message: "paused by ops".to_owned(),
    };
    let script = [
        "clock",
        "restart nginx",
        "random",
        "kill db",
        "recreate nginx",
    ];
    for effects in 0..3 {
        *world.refuse_after.lock().unwrap() = Some((effects, paused.clone()));
        let report = if effects == 0 {
            stage.run(&world, &script, |_| {}).await
        } else {
            stage.resume(&world, &script, |_| {}).await
        };
        assert!(matches!(
            RunResult::from(&report),
            RunResult::Stopped {
                cause: StopCause::Paused,
                ..
            }
        ));
        assert_eq!(world.done(), EFFECTS[..effects]);
    }
    *world.refuse_after.lock().unwrap() = None;
    let report = stage.resume(&world, &script, |_| {}).await;
    assert!(report.result.is_ok(), "{report:?}");
    assert_eq!(world.done(), EFFECTS[..3]);
    is_one_run(&stage, &world, &script).await;
}

/// The time for which the daemon was down is not the run's, but the wall clock knows of it.
#[tokio::test]
async fn the_clock_goes_on_where_it_was() {
    let stage = Stage::new("scripted").await;
    let script = ["clock", "inspect nginx", "clock"];
    let whole = Arc::new(World::default());
    stage.run(&whole, &script, |_| {}).await;
    let mut events = whole.events();
    let first = |event: &Event| event.body.kind() == "observed";
    events.truncate(events.iter().position(first).unwrap() + 1);
    // As if all of that had been an hour ago; its lines tell the time.
    events.retain(|event| event.body.kind() != "logged");
    let hour = jiff::SignedDuration::from_hours(1);
    for event in &mut events {
        event.at -= hour;
        if let EventBody::RunSeeded { clock, .. } = &mut event.body {
            *clock -= hour;
        }
    }
    let world = after_crash(&events, 0, None);
    let report = stage.resume(&world, &script, |_| {}).await;
    let Ok(Outcome::Changed(said)) = &report.result else {
        panic!("{report:?}");
    };
    let said: Vec<&str> = said.split("; ").collect();
    let wall = |said: &str| -> jiff::Timestamp { said.split(' ').next().unwrap().parse().unwrap() };
    let skipped = wall(said[2]).duration_since(wall(said[0]));
    assert!(skipped >= hour && skipped < hour + jiff::SignedDuration::from_mins(1));
    let recording = is_one_run(&stage, &world, &script).await;
    let last = Duration::from_nanos(*recording.readings.last().unwrap());
    assert!(last < Duration::from_secs(10), "{last:?}");
    assert!(recording.readings.is_sorted());
}
