//! What a guest can send by `http`, what of it is on record, and what becomes of it in a
//! dry run, under an approved plan, and after a crash.

use std::sync::{Arc, Mutex};

use sentinel_core::capability::Request;
use sentinel_core::event::{EventBody, RunResult, StopCause};
use sentinel_core::incident::OnInterrupt;
use sentinel_sandbox::gate::{GateContext, GateMode};
use sentinel_sandbox::{Outcome, RunReport};

use crate::support::{Stage, World, grants};

fn said(report: &RunReport) -> Vec<String> {
    match &report.result {
        Ok(Outcome::Changed(said) | Outcome::Unchanged(said)) => {
            said.split("; ").map(str::to_owned).collect()
        }
        Err(failure) => panic!("{failure}"),
    }
}

/// Everything on record, as the journal keeps it.
fn journal(world: &World) -> String {
    serde_json::to_string(&world.events()).unwrap()
}

#[tokio::test]
async fn a_look_is_an_observation_and_all_else_an_effect() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    let script = ["get https://api/a/b?q=1", "post https://api/a/c"];
    let report = stage.run(&world, &script, |_| {}).await;
    assert_eq!(
        said(&report),
        ["200 GET https://api/a/b?q=1", "200 POST https://api/a/c"]
    );
    assert_eq!(world.done(), ["POST https://api/a/c"]);
    assert!(
        world
            .story
            .has("observed 1 http.send GET https://api/a/b: ok")
    );
    assert!(world.story.has("guard http.send POST https://api/a/c on -"));
    assert!(
        world
            .story
            .has("began 2 http.send POST https://api/a/c on -")
    );
    assert!(world.story.has("ended 2 ok"));
    // What is journaled is the whole of it, and comes back as the same.
    let recording = world.recording();
    let Request::Http(request) = &recording.calls[1].request else {
        panic!("{recording:?}");
    };
    assert_eq!(request.body.0, b"what is posted");
    let json = serde_json::to_string(&recording.calls[1].request).unwrap();
    assert!(
        json.starts_with(r#"{"call":"http.send","method":"POST""#),
        "{json}"
    );
    let back: Request = serde_json::from_str(&json).unwrap();
    assert_eq!(back, recording.calls[1].request);
}

/// Where the grant says nothing of answers, what is answered to a secret is the host's alone:
/// the plugin and the record have the status.
#[tokio::test]
async fn an_answer_to_a_secret_is_told_where_the_grant_says_so() {
    let stage = Stage::new("scripted").await;
    let quiet = |context: &mut GateContext| {
        let mut grants = (*context.grants).clone();
        for grant in &mut grants.http {
            grant.answers = false;
        }
        context.grants = Arc::new(grants);
    };
    let script = [
        "get https://api/a/b",
        "post-secret https://api/a/b",
        "post secret://chat-url",
    ];
    let world = Arc::new(World::default());
    let report = stage.run(&world, &script, quiet).await;
    assert_eq!(said(&report), ["200 GET https://api/a/b", "200 ", "200 "]);
    assert!(!journal(&world).contains("POST https://"));
    let replay = stage.replay(world.recording(), &script).await;
    assert_eq!(replay.divergence, None);

    let world = Arc::new(World::default());
    let report = stage.run(&world, &script, |_| {}).await;
    assert!(said(&report)[1].starts_with("200 POST https://api/a/b"));
}

#[tokio::test]
async fn what_is_not_granted_is_not_sent() {
    let stage = Stage::new("scripted").await;
    for (ask, why) in [
        (
            "get https://api/b",
            "denied: http.send to `https://api/b` is not granted: the policy grants the URLs \
             https://api/a/**, https://chat/hooks/**",
        ),
        (
            "get https://chat/hooks/a",
            "denied: http.send by GET is not granted: the policy grants the methods POST",
        ),
        (
            "post-secret https://chat/hooks/a",
            "denied: http.send with the secret `key` is not granted: the policy grants the \
             secrets *-url",
        ),
        (
            "post secret://other-url",
            "denied: http.send to the URL that the secret `other-url` holds is not granted: the \
             policy grants the URLs https://api/a/**, https://chat/hooks/**",
        ),
        (
            "post secret://pager-key",
            "denied: http.send with the secret `pager-key` is not granted: the policy grants the \
             secrets key, *-url",
        ),
        (
            "post secret://no-url",
            "invalid: no secret no-url is configured",
        ),
    ] {
        let world = Arc::new(World::default());
        let report = stage.run(&world, &[ask], |_| {}).await;
        assert_eq!(said(&report), [format!("refused: {why}")], "{ask}");
        assert!(!world.story.has("driver http"), "{ask}");
        assert!(world.story.has("denied 1 http.send"), "{ask}");
        assert!(!journal(&world).contains("SECRET"), "{ask}");
    }
    let world = Arc::new(World::default());
    let report = stage
        .run(&world, &["get https://api/a/b"], |context| {
            context.grants = Arc::new(grants());
        })
        .await;
    assert_eq!(
        said(&report),
        ["refused: denied: http.send is not granted: the policy grants nothing of http"]
    );
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_before_the_record() {
    let stage = Stage::new("scripted").await;
    for (ask, why) in [
        ("brew https://api/a/b", "the method is none of GET,"),
        ("get https://api/a/../../b c", "the URL holds a space"),
        ("get ftp://api/a/", "neither http nor https"),
        ("get https://user@api/a/", "a user or a password"),
        (
            "post-large https://api/a/",
            "the body is larger than 512 KiB",
        ),
        ("post secret://chat-url/more", "no name of a secret"),
    ] {
        let world = Arc::new(World::default());
        let report = stage.run(&world, &[ask], |_| {}).await;
        let said = said(&report);
        assert!(
            said[0].starts_with("refused: invalid: ") && said[0].contains(why),
            "{ask}: {said:?}"
        );
        assert!(world.recording().calls.is_empty(), "{ask}");
        assert_eq!(world.done(), [""; 0], "{ask}");
    }
}

#[tokio::test]
async fn secrets_go_by_their_names_in_everything_that_is_kept() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    let script = ["post secret://chat-url", "post-secret https://api/a/b"];
    let report = stage.run(&world, &script, |_| {}).await;
    assert!(report.result.is_ok(), "{report:?}");
    let journal = journal(&world);
    assert!(!journal.contains("SECRET"), "{journal}");
    assert!(journal.contains("secret://chat-url") && journal.contains("secret://key"));
    assert!(!format!("{:?}", world.story.lines()).contains("SECRET"));
}

#[tokio::test]
async fn redirects_lead_only_to_what_is_granted() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    let script = ["get https://api/a/moved", "post secret://chat-url"];
    let report = stage.run(&world, &script, |_| {}).await;
    assert_eq!(said(&report)[0], "200 followed to https://api/a/granted");
}

#[tokio::test]
async fn what_a_run_exchanges_is_bounded() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    let script = ["get https://api/a/large"; 5];
    let report = stage
        .run(&world, &script, |context| {
            context.limits.http_bytes = 1 << 20;
        })
        .await;
    let said = said(&report);
    assert!(said[1].starts_with("200 y"), "{:.100}", said[1]);
    // The third was asked for when nothing was over the bound yet.
    assert!(said[2].starts_with("200 y"), "{:.100}", said[2]);
    assert_eq!(
        said[3],
        "refused: denied: a run may send and be sent 1024 KiB by http, and this one has come to \
         its end"
    );
}

fn dry(context: &mut GateContext) {
    context.mode = GateMode::Dry;
}

#[tokio::test]
async fn a_dry_run_looks_and_sends_nothing() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    let script = ["get https://api/a/b", "post secret://chat-url"];
    let report = stage.run(&world, &script, dry).await;
    assert_eq!(said(&report), ["200 GET https://api/a/b", "200 "]);
    assert_eq!(world.done(), [""; 0]);
    let plan = world.recording().plan();
    assert_eq!(plan.len(), 1);
    assert_eq!(
        plan[0].request.summary(),
        "http.send POST secret://chat-url"
    );
}

#[tokio::test]
async fn what_is_sent_is_what_was_approved() {
    let stage = Stage::new("scripted").await;
    let planned = Arc::new(World::default());
    stage.run(&planned, &["post https://api/a/b"], dry).await;
    let plan = planned.recording().plan();
    let apply = async |ask: &str| {
        let world = Arc::new(World::default());
        let plan = plan.clone();
        let report = stage
            .run(&world, &[ask], |context| {
                context.mode = GateMode::Apply(plan);
            })
            .await;
        (RunResult::from(&report), world.done().len())
    };
    let (result, sent) = apply("post https://api/a/b").await;
    assert!(
        matches!(result, RunResult::Changed { .. }) && sent == 1,
        "{result:?}"
    );
    let (result, sent) = apply("post-secret https://api/a/b").await;
    let RunResult::Stopped {
        cause: StopCause::Deviated,
        message,
    } = result
    else {
        panic!("{result:?}");
    };
    assert_eq!(sent, 0);
    assert_eq!(
        message,
        "deviated from the approved plan: it asked for http.send POST https://api/a/b \
         [authorization: secret://key, body what is posted], and the plan has \
         http.send POST https://api/a/b [body what is posted]"
    );
}

#[tokio::test]
async fn no_evidence_is_captured_for_what_leaves_the_target_alone() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    let evidence = |context: &mut GateContext| {
        context.evidence = Some(sentinel_sandbox::gate::EvidencePlan {
            lines: 5,
            target: "docker://local/nginx".parse().unwrap(),
        });
    };
    let script = ["post https://api/a/b", "restart nginx"];
    stage.run(&world, &script, evidence).await;
    let kinds: Vec<&str> = world.events().iter().map(|e| e.body.kind()).collect();
    let at = |kind: &str| kinds.iter().position(|found| *found == kind).unwrap();
    assert!(
        at("evidence-captured") > at("effect-ended"),
        "before the restart, which is the first to touch it: {kinds:?}"
    );
}

#[tokio::test]
async fn a_run_goes_on_from_its_record_and_one_in_doubt_is_the_policys_to_decide() {
    let stage = Stage::new("scripted").await;
    let script = [
        "get https://api/a/b",
        "post https://api/a/c",
        "get https://api/a/d",
    ];
    let whole = Arc::new(World::default());
    stage.run(&whole, &script, |_| {}).await;
    let events = whole.events();
    for cut in 1..events.len() {
        let kept = &events[..cut];
        let in_doubt = matches!(kept.last().unwrap().body, EventBody::EffectBegan { .. });
        let ended = kept
            .iter()
            .any(|event| matches!(event.body, EventBody::EffectEnded { .. }));
        for on_interrupt in [OnInterrupt::Escalate, OnInterrupt::Rerun] {
            let world = Arc::new(World {
                events: Mutex::new(kept.to_vec()),
                ..World::default()
            });
            let report = stage
                .resume(&world, &script, |context| {
                    context.on_interrupt = on_interrupt;
                })
                .await;
            if in_doubt && on_interrupt == OnInterrupt::Escalate {
                let RunResult::Stopped {
                    cause: StopCause::InDoubt,
                    message,
                } = RunResult::from(&report)
                else {
                    panic!("{report:?}");
                };
                assert!(
                    message.contains("http.send POST https://api/a/c [body what is posted]")
                        && message.ends_with(
                            "whether a server has had a request that was cut off cannot be told"
                        ),
                    "{message}"
                );
                assert_eq!(world.done(), [""; 0]);
                continue;
            }
            assert_eq!(
                said(&report),
                [
                    "200 GET https://api/a/b",
                    "200 POST https://api/a/c",
                    "200 GET https://api/a/d"
                ],
                "cut before {:?}",
                events[cut].body
            );
            assert_eq!(world.done().len(), usize::from(!ended));
            let replayed = stage.replay(world.recording(), &script).await;
            assert_eq!(replayed.divergence, None);
        }
    }
}

#[tokio::test]
async fn a_run_that_asks_for_something_else_than_it_did_is_stopped() {
    let stage = Stage::new("scripted").await;
    let whole = Arc::new(World::default());
    stage.run(&whole, &["post https://api/a/c"], |_| {}).await;
    let mut events = whole.events();
    events.pop();
    let world = Arc::new(World {
        events: Mutex::new(events),
        ..World::default()
    });
    let report = stage
        .resume(&world, &["post https://api/a/other"], |_| {})
        .await;
    let RunResult::Stopped {
        cause: StopCause::Nondeterministic,
        message,
    } = RunResult::from(&report)
    else {
        panic!("{report:?}");
    };
    assert!(
        message.contains("call 1 was http.send POST https://api/a/other"),
        "{message}"
    );
    assert_eq!(world.done(), [""; 0]);
}
