//! What a guest can send by `mail`, what of it is on record, and what becomes of it in a
//! dry run, under an approved plan, and after a crash. The guest is the plugin that ships.

use std::sync::{Arc, Mutex};

use sentinel_core::capability::{Request, Response};
use sentinel_core::event::{EventBody, RunResult, StopCause};
use sentinel_core::incident::OnInterrupt;
use sentinel_sandbox::RunReport;
use sentinel_sandbox::gate::{GateContext, GateMode};

use crate::support::{Stage, World};

const ONCALL: &str = "oncall@example.com";
const ANN: &str = "ann@ops.example.com";

fn said(report: &RunReport) -> String {
    match RunResult::from(report) {
        RunResult::Changed { message } => message,
        RunResult::Failed { class, message } => format!("{class:?}: {message}"),
        other => panic!("{other:?}"),
    }
}

fn dry(context: &mut GateContext) {
    context.mode = GateMode::Dry;
}

#[tokio::test]
async fn a_mail_is_an_effect_and_is_on_record_as_a_whole() {
    let stage = Stage::new("notify-email").await;
    let imports: Vec<String> = stage
        .plugin
        .imports
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(imports, ["mail.send"]);
    let world = Arc::new(World::default());
    let report = stage.run(&world, &[ONCALL, ANN], |_| {}).await;
    assert_eq!(
        said(&report),
        "told oncall@example.com, ann@ops.example.com: NginxDown on docker://local/nginx: \
         sentinel is at work"
    );
    let asked = "mail.send oncall@example.com, ann@ops.example.com on -";
    assert!(world.story.has(&format!("guard {asked}")));
    assert!(world.story.has(&format!("began 1 {asked}")));
    assert!(world.story.has("ended 1 ok"));
    let recording = world.recording();
    let Request::Mail(request) = &recording.calls[0].request else {
        panic!("{recording:?}");
    };
    assert!(
        request
            .text
            .contains("To see everything: sentinel incidents show")
    );
    let json = serde_json::to_string(&recording.calls[0].request).unwrap();
    assert!(json.starts_with(r#"{"call":"mail.send","to":["#), "{json}");
    let back: Request = serde_json::from_str(&json).unwrap();
    assert_eq!(back, recording.calls[0].request);
    let Some(Ok(Response::Mail(receipt))) = recording.calls[0].answer() else {
        panic!("{recording:?}");
    };
    assert_eq!(receipt.said, "250 OK");
    let replayed = stage.replay(world.recording(), &[ONCALL, ANN]).await;
    assert_eq!(replayed.divergence, None);
}

#[tokio::test]
async fn who_is_not_granted_gets_no_mail_and_nobody_else_does_either() {
    let stage = Stage::new("notify-email").await;
    let world = Arc::new(World::default());
    let report = stage
        .run(&world, &[ONCALL, "boss@example.com"], |_| {})
        .await;
    let said = said(&report);
    assert!(
        said.starts_with("Denied: mail.send to `boss@example.com` is not granted")
            && said.ends_with(
                "write `grants: { mail: ['oncall@example.com', '*@ops.example.com', \
                 'boss@example.com'] }`"
            ),
        "{said}"
    );
    assert_eq!(world.done(), [""; 0]);
    assert!(world.story.has("denied 1 mail.send"));
}

#[tokio::test]
async fn what_is_no_address_is_refused_before_the_record() {
    let stage = Stage::new("notify-email").await;
    let evil = "a@ops.example.com,b@evil.example";
    let world = Arc::new(World::default());
    let said = said(&stage.run(&world, &[evil], |_| {}).await);
    assert!(
        said.starts_with("Permanent: invalid: ") && said.contains("more than the address"),
        "{said}"
    );
    assert!(world.recording().calls.is_empty());
    assert_eq!(world.done(), [""; 0]);
}

#[tokio::test]
async fn whom_the_server_refuses_is_said() {
    let stage = Stage::new("notify-email").await;
    let world = Arc::new(World::default());
    let report = stage
        .run(&world, &[ANN, "nobody@ops.example.com"], |_| {})
        .await;
    let said = said(&report);
    assert!(
        said.starts_with("told ann@ops.example.com, but not nobody@ops.example.com: "),
        "{said}"
    );
    let logged = world
        .story
        .lines()
        .iter()
        .any(|line| line.contains("nobody@ops.example.com was not told: 550 unknown"));
    assert!(logged, "{:?}", world.story.lines());
}

#[tokio::test]
async fn a_dry_run_sends_nothing_and_what_is_sent_is_what_was_approved() {
    let stage = Stage::new("notify-email").await;
    let planned = Arc::new(World::default());
    let report = stage.run(&planned, &[ONCALL], dry).await;
    assert!(said(&report).starts_with("told oncall@example.com: "));
    assert_eq!(planned.done(), [""; 0]);
    let plan = planned.recording().plan();
    assert_eq!(plan.len(), 1);
    let apply = async |to: &str| {
        let world = Arc::new(World::default());
        let plan = plan.clone();
        let report = stage
            .run(&world, &[to], |context| {
                context.mode = GateMode::Apply(plan);
            })
            .await;
        (RunResult::from(&report), world.done().len())
    };
    let (result, sent) = apply(ONCALL).await;
    assert!(
        matches!(result, RunResult::Changed { .. }) && sent == 1,
        "{result:?}"
    );
    let (result, sent) = apply(ANN).await;
    let RunResult::Stopped {
        cause: StopCause::Deviated,
        message,
    } = result
    else {
        panic!("{result:?}");
    };
    assert_eq!(sent, 0);
    assert!(
        message.contains(
            "mail.send ann@ops.example.com [to ann@ops.example.com, subject [error] NginxDown"
        ) && message.contains("and the plan has mail.send oncall@example.com"),
        "{message}"
    );
}

#[tokio::test]
async fn a_mail_in_doubt_is_the_policys_to_decide_and_is_the_same_when_it_is_sent_again() {
    let stage = Stage::new("notify-email").await;
    let whole = Arc::new(World::default());
    stage.run(&whole, &[ONCALL], |_| {}).await;
    let first = whole.done();
    assert_eq!(first.len(), 1);
    let events = whole.events();
    let began =
        |event: &sentinel_core::event::Event| matches!(event.body, EventBody::EffectBegan { .. });
    let cut = events.iter().position(began).unwrap() + 1;
    for on_interrupt in [OnInterrupt::Escalate, OnInterrupt::Rerun] {
        let world = Arc::new(World {
            events: Mutex::new(events[..cut].to_vec()),
            ..World::default()
        });
        let report = stage
            .resume(&world, &[ONCALL], |context| {
                context.on_interrupt = on_interrupt;
            })
            .await;
        if on_interrupt == OnInterrupt::Escalate {
            let RunResult::Stopped {
                cause: StopCause::InDoubt,
                message,
            } = RunResult::from(&report)
            else {
                panic!("{report:?}");
            };
            assert!(
                message
                    .ends_with("whether a server has taken a mail that was cut off cannot be told"),
                "{message}"
            );
            assert_eq!(world.done(), [""; 0]);
        } else {
            assert!(said(&report).starts_with("told oncall@example.com"));
            assert_eq!(world.done(), first, "receivers know it by its id");
        }
    }
    // Another run of the same number, in another installation, sends another mail.
    let other = Arc::new(World::default());
    stage.run(&other, &[ONCALL], |_| {}).await;
    assert_ne!(other.done(), first);
}
