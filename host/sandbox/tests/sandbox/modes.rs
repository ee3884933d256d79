//! What a dry run sees and plans, what holds a run to an approved plan, and what is kept
//! before the first effect.

use std::sync::Arc;

use sentinel_core::event::{EventBody, PlannedEffect, RunResult, StopCause};
use sentinel_sandbox::gate::{EvidencePlan, GateContext, GateLimits, GateMode};
use sentinel_sandbox::{Outcome, RunReport};

use crate::support::{NGINX, Stage, World};

fn said(report: &RunReport) -> Vec<String> {
    match &report.result {
        Ok(Outcome::Changed(said) | Outcome::Unchanged(said)) => {
            said.split("; ").map(str::to_owned).collect()
        }
        Err(failure) => panic!("{failure}"),
    }
}

fn dry(context: &mut GateContext) {
    context.mode = GateMode::Dry;
}

fn summaries(plan: &[PlannedEffect]) -> Vec<String> {
    plan.iter().map(|effect| effect.request.summary()).collect()
}

#[tokio::test]
async fn a_dry_run_does_nothing_and_sees_what_it_would_have_done() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    let script = [
        "inspect nginx",
        "restart nginx",
        "inspect nginx",
        "stop db",
        "list",
        "list-all",
        "inspect db",
        "start db",
        "list",
        "playbook restart.yml",
        "await nginx",
    ];
    let report = stage.run(&world, &script, dry).await;
    assert_eq!(world.done(), [""; 0], "nothing was done");
    let said = said(&report);
    assert_eq!(
        said[0],
        "nginx running unhealthy since 2026-01-02T03:00:00Z restarts 2"
    );
    assert!(said[2].starts_with("nginx running healthy since 20"));
    assert!(!said[2].contains("2026-01-02T03:00:00Z") && said[2].ends_with("restarts 0"));
    assert_eq!(said[4], "nginx running");
    assert_eq!(said[5], "db exited, nginx running");
    assert!(said[6].starts_with("db exited unhealthy"), "{}", said[6]);
    assert_eq!(said[8], "db running, nginx running");
    assert_eq!(said[9], "exit code 0");
    assert_eq!(
        said[10], "1 looks",
        "what waits for health comes to its end"
    );

    let plan = world.recording().plan();
    assert_eq!(
        summaries(&plan),
        [
            "docker.restart local/nginx",
            "docker.stop local/db",
            "docker.start local/db",
            "ansible.run restart.yml"
        ]
    );
    assert_eq!(plan[0].on.as_ref().unwrap().id, NGINX);
    assert!(
        !world.story.has("guard"),
        "the stop switch and the rates are for what is done"
    );
}

#[tokio::test]
async fn a_dry_run_is_granted_and_limited_like_a_live_one() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    let script = ["restart db", "restart nginx", "stop nginx"];
    let report = stage
        .run(&world, &script, |context| {
            dry(context);
            context.grants = Arc::new(crate::support::grants());
            context.limits = GateLimits {
                effects: 1,
                ..GateLimits::default()
            };
        })
        .await;
    let said = said(&report);
    assert!(said[0].starts_with("refused: denied"), "{}", said[0]);
    assert_eq!(said[1], "done");
    assert!(said[2].contains("1 effects"), "{}", said[2]);
    assert_eq!(
        summaries(&world.recording().plan()),
        ["docker.restart local/nginx"]
    );
}

#[tokio::test]
async fn effects_that_change_nothing_show_as_such() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    // It runs already: `docker start` leaves it alone, its health as well.
    let script = [
        "start nginx",
        "inspect nginx",
        "kill nginx",
        "stop nginx",
        "inspect nginx",
    ];
    let said = said(&stage.run(&world, &script, dry).await);
    assert_eq!(
        said[1],
        "nginx running unhealthy since 2026-01-02T03:00:00Z restarts 2"
    );
    assert_eq!(
        said[4],
        "nginx exited unhealthy since 2026-01-02T03:00:00Z restarts 2"
    );
}

#[tokio::test]
async fn a_dry_run_sees_what_it_would_have_made_and_removed() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    let script = [
        "duplicate nginx",
        "inspect made",
        "inspect nginx-2",
        "logs made",
        "list",
        "stop made",
        "list",
        "inspect nginx",
        "remove nginx-2",
        "inspect made",
        "remove db",
        "list-all",
        "start db",
    ];
    let said = said(&stage.run(&world, &script, dry).await);
    assert_eq!(world.done(), [""; 0], "nothing was done");
    assert!(said[0].starts_with("made dry-run-1-"), "{}", said[0]);
    assert!(said[1].starts_with("nginx-2 running healthy since 20"));
    assert_eq!(said[1], said[2]);
    assert_eq!(said[3], "");
    assert_eq!(said[4], "db running, nginx running, nginx-2 running");
    assert_eq!(said[6], "db running, nginx running");
    assert!(
        said[7].starts_with("nginx running unhealthy"),
        "{}",
        said[7]
    );
    assert!(said[9].starts_with("refused: not found"), "{}", said[9]);
    assert_eq!(said[11], "nginx running");
    assert!(said[12].contains("would have been removed"), "{}", said[12]);
    assert_eq!(
        summaries(&world.recording().plan()),
        [
            "docker.duplicate local/nginx as nginx-2".to_owned(),
            format!("docker.stop local/{}", said[0].trim_start_matches("made ")),
            "docker.remove local/nginx-2".to_owned(),
            "docker.remove local/db".to_owned(),
        ]
    );
}

#[tokio::test]
async fn what_a_call_would_make_has_to_be_granted_as_well() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    let report = stage
        .run(&world, &["duplicate nginx"], |context| {
            context.grants = Arc::new(crate::support::only("nginx"));
        })
        .await;
    let said = said(&report);
    assert!(
        said[0].starts_with("refused: denied") && said[0].contains("nginx-2"),
        "{}",
        said[0]
    );
    assert_eq!(world.done(), [""; 0]);
}

/// Makes the plan of `script` in a world like the one that it will be applied to.
async fn plan(stage: &Stage, script: &[&str]) -> Vec<PlannedEffect> {
    let world = Arc::new(World::default());
    let report = stage.run(&world, script, dry).await;
    assert!(report.result.is_ok(), "{report:?}");
    world.recording().plan()
}

async fn apply(
    stage: &Stage,
    world: &Arc<World>,
    script: &[&str],
    plan: Vec<PlannedEffect>,
) -> RunResult {
    let report = stage
        .run(world, script, |context| {
            context.mode = GateMode::Apply(plan);
        })
        .await;
    RunResult::from(&report)
}

#[tokio::test]
async fn an_approved_plan_is_carried_out_as_it_is() {
    let stage = Stage::new("scripted").await;
    let script = [
        "restart db",
        "recreate nginx",
        "inspect made",
        "restart made",
        "kill nginx",
        "playbook restart.yml",
    ];
    let plan = plan(&stage, &script).await;
    assert_eq!(plan.len(), 5);
    let world = Arc::new(World::default());
    let result = apply(&stage, &world, &script, plan).await;
    assert!(
        matches!(&result, RunResult::Changed { message } if !message.contains("left out")),
        "{result:?}"
    );
    assert_eq!(
        world.done(),
        [
            "restart db",
            "recreate nginx",
            "restart nginx",
            "kill nginx",
            "playbook restart.yml"
        ]
    );
}

#[tokio::test]
async fn a_deviation_from_the_plan_ends_the_run_before_it_is_done() {
    let stage = Stage::new("scripted").await;
    let deviates = async |planned: &[&str], asked: &[&str], changed: &str, done: &[&str]| {
        let plan = plan(&stage, planned).await;
        let world = Arc::new(World::default());
        if !changed.is_empty() {
            world.done.lock().unwrap().push(changed.to_owned());
        }
        let result = apply(&stage, &world, asked, plan).await;
        let RunResult::Stopped {
            cause: StopCause::Deviated,
            message,
        } = result
        else {
            panic!("{result:?}");
        };
        let carried_out = world.done();
        assert_eq!(carried_out[usize::from(!changed.is_empty())..], *done);
        message
    };

    let other = deviates(
        &["restart nginx", "restart db"],
        &["restart nginx", "inspect db", "stop db"],
        "",
        &["restart nginx"],
    );
    assert_eq!(
        other.await,
        "deviated from the approved plan: it asked for docker.stop local/db [grace 1000 ms] on db \
         (dddddddddddd), and the plan has docker.restart local/db [grace 1000 ms] on db \
         (dddddddddddd)"
    );
    let more = deviates(
        &["restart nginx"],
        &["restart nginx", "restart nginx"],
        "",
        &["restart nginx"],
    );
    assert!(more.await.ends_with("and the plan has nothing more"));
    let anything = deviates(&["inspect nginx"], &["start nginx"], "", &[]);
    assert!(anything.await.ends_with("and the plan has nothing in it"));
    // Between plan and apply somebody has made the container anew: it is another one.
    let another = deviates(
        &["restart nginx"],
        &["restart nginx"],
        "recreate nginx",
        &[],
    );
    let another = another.await;
    assert!(
        another.contains("on nginx (eeeeeeeeeeee), and the plan has")
            && another.ends_with("on nginx (aaaaaaaaaaaa)"),
        "{another}"
    );
    let variables = deviates(&["playbook a.yml"], &["playbook b.yml"], "", &[]);
    assert!(variables.await.contains("ansible.run b.yml"));
}

#[tokio::test]
async fn what_is_left_of_the_plan_is_told() {
    let stage = Stage::new("scripted").await;
    let plan = plan(&stage, &["restart nginx", "restart db"]).await;
    for (script, left) in [
        (
            ["unchanged it works"].as_slice(),
            "it works (of the approved plan it left out: docker.restart local/nginx, \
             docker.restart local/db)",
        ),
        (
            ["restart nginx", "unchanged it works"].as_slice(),
            "it works (of the approved plan it left out: docker.restart local/db)",
        ),
        (
            ["retryable no"].as_slice(),
            "no (of the approved plan it left out: docker.restart local/nginx, \
             docker.restart local/db)",
        ),
    ] {
        let world = Arc::new(World::default());
        let result = apply(&stage, &world, script, plan.clone()).await;
        let (RunResult::Unchanged { message } | RunResult::Failed { message, .. }) = result else {
            panic!("{result:?}");
        };
        assert_eq!(message, left);
    }
}

fn evidence(context: &mut GateContext) {
    context.evidence = Some(EvidencePlan {
        lines: 20,
        target: "docker://local/nginx".parse().unwrap(),
    });
}

/// What was captured, and the kind of the event after it.
fn captured(world: &World) -> Vec<(Option<String>, String, Option<String>, &'static str)> {
    let events = world.events();
    let follows = events.iter().skip(1).map(|event| event.body.kind());
    let pairs = events.iter().zip(follows);
    pairs
        .filter_map(|(event, follows)| match &event.body {
            EventBody::EvidenceCaptured {
                container,
                log,
                problem,
                ..
            } => Some((
                container.as_ref().map(|details| details.name.clone()),
                log.clone(),
                problem.clone(),
                follows,
            )),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn evidence_is_captured_once_before_the_first_effect() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World {
        logs: Some("\u{1b}[31moh no\u{1b}[0m\r\n".to_owned()),
        ..World::default()
    });
    let script = ["inspect nginx", "restart db", "restart nginx"];
    let report = stage.run(&world, &script, evidence).await;
    assert_eq!(said(&report).len(), 3);
    assert_eq!(
        captured(&world),
        [(
            Some("db".to_owned()),
            "oh no\n".to_owned(),
            None,
            "effect-began"
        )],
        "of what the effect acts on, with the effect's begin"
    );
    let calls: Vec<u32> = world.recording().calls.iter().map(|c| c.number).collect();
    assert_eq!(
        calls,
        [1, 2, 3],
        "the engine's look is no call of the plugin"
    );
    assert_eq!(
        report.calls, 6,
        "nor is it counted: three calls and three lines"
    );
}

#[tokio::test]
async fn a_playbook_is_preceded_by_evidence_of_the_target() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    stage.run(&world, &["playbook a.yml"], evidence).await;
    let captured = captured(&world);
    assert_eq!(captured[0].0.as_deref(), Some("nginx"));
    assert_eq!(captured[0].1, format!("the last 20 lines of {NGINX}\n"));
}

/// What a container writes goes to whoever is told, so it takes a grant of that container.
#[tokio::test]
async fn the_log_of_a_container_that_is_not_granted_is_no_evidence() {
    let stage = Stage::new("scripted").await;
    let setup = |context: &mut GateContext| {
        evidence(context);
        context.evidence.as_mut().unwrap().target = "docker://local/db".parse().unwrap();
        let mut grants = (*context.grants).clone();
        if let Some(docker) = &mut grants.docker {
            docker.containers = vec!["nginx".parse().unwrap()];
            docker.labels = Vec::new();
        }
        context.grants = Arc::new(grants);
    };
    let world = Arc::new(World {
        logs: Some("DB_PASSWORD=hunter2\n".to_owned()),
        ..World::default()
    });
    stage.run(&world, &["playbook a.yml"], setup).await;
    let captured = captured(&world);
    assert_eq!(captured[0].0.as_deref(), Some("db"), "its state is kept");
    assert_eq!(captured[0].1, "");
    let problem = captured[0].2.as_deref().unwrap();
    assert!(problem.contains("its log is not kept"), "{problem}");
    assert!(!format!("{:?}", world.events()).contains("hunter2"));
}

#[tokio::test]
async fn evidence_that_cannot_be_had_is_not_in_the_way() {
    let stage = Stage::new("scripted").await;
    for target in ["http://shop/", "docker://local/gone"] {
        let world = Arc::new(World::default());
        let report = stage
            .run(&world, &["playbook a.yml"], |context| {
                evidence(context);
                context.evidence.as_mut().unwrap().target = target.parse().unwrap();
            })
            .await;
        assert!(report.result.is_ok());
        let captured = captured(&world);
        assert_eq!(captured[0].0, None);
        assert!(captured[0].2.is_some(), "{target}");
        assert_eq!(world.done(), ["playbook a.yml"]);
    }
    let world = Arc::new(World {
        break_looks: true,
        ..World::default()
    });
    let report = stage.run(&world, &["restart nginx"], evidence).await;
    assert!(report.result.is_ok());
    assert!(
        captured(&world)[0]
            .2
            .as_ref()
            .unwrap()
            .contains("broke down")
    );
    assert_eq!(world.done(), ["restart nginx"]);
}

#[tokio::test]
async fn a_dry_run_and_a_run_without_effects_capture_nothing() {
    let stage = Stage::new("scripted").await;
    let world = Arc::new(World::default());
    stage.run(&world, &["inspect nginx"], evidence).await;
    let both = |context: &mut GateContext| {
        evidence(context);
        dry(context);
    };
    let dry_world = Arc::new(World::default());
    stage.run(&dry_world, &["restart nginx"], both).await;
    assert_eq!((captured(&world), captured(&dry_world)), (vec![], vec![]));
}
