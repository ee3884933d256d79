//! What passes the gate, and in which order.

use std::sync::Arc;
use std::time::Duration;

use sentinel_core::capability::{
    AnsibleRequest, CapabilityError, DockerCall, DockerRequest, Request, Response,
};
use sentinel_sandbox::Gate;
use sentinel_sandbox::gate::{GateLimits, PassError};
use tokio::sync::Notify;

use crate::support::{DB, NGINX, World, context, gate};

fn docker(call: DockerCall) -> Request {
    Request::Docker(DockerRequest {
        host: "local".to_owned(),
        call,
    })
}

fn restart(container: &str) -> Request {
    docker(DockerCall::Restart {
        container: container.to_owned(),
        grace_ms: 1_000,
    })
}

fn inspect(container: &str) -> Request {
    docker(DockerCall::Inspect {
        container: container.to_owned(),
    })
}

fn playbook(name: &str, timeout_ms: Option<u64>) -> Request {
    Request::Ansible(AnsibleRequest {
        playbook: name.to_owned(),
        extra_vars: serde_json::Map::new(),
        limit: None,
        tags: Vec::new(),
        timeout_ms,
    })
}

#[tokio::test]
async fn an_effect_is_recorded_before_and_after_it_is_carried_out() {
    let world = Arc::new(World::default());
    assert_eq!(
        gate(&world).pass(restart("nginx")).await,
        Ok(Ok(Response::Done))
    );
    assert_eq!(
        world.story.lines(),
        [
            "driver resolve local/nginx",
            "guard docker.restart local/nginx on nginx",
            "began 1 docker.restart local/nginx on nginx",
            &format!("driver restart local/{NGINX}"),
            "driver restart done",
            "ended 1 ok",
        ]
    );
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_carried_out() {
    let world = Arc::new(World {
        journal_broken: true,
        ..World::default()
    });
    let gate = gate(&world);
    // A run without an account does not go on. What is not told is an observation, or a
    // refusal, that a replay would miss.
    for request in [restart("nginx"), inspect("nginx"), restart("db")] {
        let result = gate.pass(request).await;
        assert!(
            matches!(&result, Err(PassError::Unrecorded(why)) if why.0 == "the disk is full"),
            "{result:?}"
        );
    }
    assert_eq!(world.done(), [""; 0]);
    assert!(!world.story.has("driver restart"));
}

#[tokio::test]
async fn grants_are_decided_on_the_container_that_was_found() {
    let world = Arc::new(World::default());
    let gate = gate(&world);
    // A short id of the container that is granted, and one of another.
    assert_eq!(
        gate.pass(restart("aaaaaaaaaaaa")).await,
        Ok(Ok(Response::Done))
    );
    for name in ["db", "dddddddddddd", DB] {
        let result = gate.pass(restart(name)).await;
        assert!(
            matches!(&result, Ok(Err(CapabilityError::Denied(why))) if why.contains("`db`")),
            "{result:?}"
        );
        assert!(matches!(
            gate.pass(inspect(name)).await,
            Ok(Err(CapabilityError::Denied(_)))
        ));
    }
    let on_db = format!("local/{DB}");
    let carried_out = |line: &String| {
        line.starts_with("driver") && !line.contains("resolve") && line.contains(&on_db)
    };
    assert!(!world.story.lines().iter().any(carried_out));
    assert!(world.story.has("denied 2 docker.restart local/db: denied:"));
    assert!(world.story.has("denied 7"), "each refusal is recorded");
}

#[tokio::test]
async fn what_no_container_could_satisfy_is_refused_before_docker_is_asked() {
    let world = Arc::new(World::default());
    let gate = gate(&world);
    let recreate = docker(DockerCall::Recreate {
        container: "nginx".to_owned(),
        grace_ms: 0,
    });
    let elsewhere = Request::Docker(DockerRequest {
        host: "other".to_owned(),
        call: DockerCall::Inspect {
            container: "nginx".to_owned(),
        },
    });
    for request in [recreate, elsewhere] {
        assert!(matches!(
            gate.pass(request).await,
            Ok(Err(CapabilityError::Denied(_)))
        ));
    }
    let lines = world.story.lines();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines.iter().all(|line| line.starts_with("denied ")));
}

#[tokio::test]
async fn a_list_shows_granted_containers_only() {
    let world = Arc::new(World::default());
    let list = docker(DockerCall::List {
        all: true,
        labels: [].into(),
    });
    let Ok(Ok(Response::Containers(rows))) = gate(&world).pass(list).await else {
        panic!("a list");
    };
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].name, "nginx");
    assert!(
        world.story.has("observed 1 docker.list local/: ok nginx"),
        "what is recorded is what was told: {:#?}",
        world.story.lines()
    );
}

#[tokio::test]
async fn an_effect_goes_on_when_its_run_is_cut_off() {
    let world = Arc::new(World {
        hold_restarts: Some(Notify::new()),
        ..World::default()
    });
    let context = context(&world);
    let effects = context.effects.clone();
    let gate = Gate::new(context);
    let cut_off = tokio::time::timeout(Duration::from_millis(100), gate.pass(restart("nginx")));
    assert!(cut_off.await.is_err());
    drop(gate);
    assert!(world.story.has("began 1"));
    assert!(!world.story.has("ended"));
    assert!(!effects.is_empty(), "a shutdown can wait for it");

    world.hold_restarts.as_ref().unwrap().notify_one();
    effects.close();
    effects.wait().await;
    assert_eq!(
        world.story.lines().last().map(String::as_str),
        Some("ended 1 ok")
    );
}

#[tokio::test]
async fn an_effect_whose_driver_breaks_down_still_ends() {
    let world = Arc::new(World {
        break_down: true,
        ..World::default()
    });
    let result = gate(&world).pass(restart("nginx")).await;
    assert!(
        matches!(result, Ok(Err(CapabilityError::Failed(_)))),
        "{result:?}"
    );
    assert!(world.story.has("ended 1 failed: the driver broke down"));
}

#[tokio::test]
async fn no_effect_begins_once_a_shutdown_waits_for_them() {
    let world = Arc::new(World::default());
    let context = context(&world);
    context.effects.close();
    let result = Gate::new(context).pass(restart("nginx")).await;
    assert!(matches!(result, Ok(Err(CapabilityError::Unavailable(_)))));
    assert!(!world.story.has("began"));
}

#[tokio::test]
async fn a_run_may_ask_for_so_many_effects() {
    let world = Arc::new(World::default());
    let gate = Gate::new(sentinel_sandbox::gate::GateContext {
        limits: GateLimits {
            effects: 2,
            ..GateLimits::default()
        },
        ..context(&world)
    });
    assert!(gate.pass(restart("nginx")).await.unwrap().is_ok());
    assert!(
        gate.pass(playbook("restart.yml", None))
            .await
            .unwrap()
            .is_ok()
    );
    let result = gate.pass(restart("nginx")).await;
    assert!(
        matches!(&result, Ok(Err(CapabilityError::Denied(why))) if why.contains("2 effects")),
        "{result:?}"
    );
    assert!(gate.pass(inspect("nginx")).await.unwrap().is_ok());
    let began = |line: &&String| line.starts_with("began");
    assert_eq!(world.story.lines().iter().filter(began).count(), 2);
}

#[tokio::test]
async fn answers_are_bounded() {
    let world = Arc::new(World {
        logs: Some("x".repeat(2_000)),
        ..World::default()
    });
    let with = |answer_bytes| {
        Gate::new(sentinel_sandbox::gate::GateContext {
            limits: GateLimits {
                answer_bytes,
                ..GateLimits::default()
            },
            ..context(&world)
        })
    };
    let logs = || {
        Request::Docker(DockerRequest {
            host: "local".to_owned(),
            call: DockerCall::Logs {
                container: "nginx".to_owned(),
                lines: 10,
            },
        })
    };
    assert!(with(4_096).pass(logs()).await.unwrap().is_ok());
    let result = with(1_024).pass(logs()).await.unwrap();
    let expected = "the answer has 2 KiB, and this plugin may be told 1 KiB at once";
    assert_eq!(result, Err(CapabilityError::Failed(expected.to_owned())));
    assert!(
        world
            .story
            .has("observed 1 docker.logs local/nginx: failed")
    );
}

#[tokio::test]
async fn playbooks_are_granted_by_path_and_bounded_in_time() {
    let world = Arc::new(World::default());
    let gate = gate(&world);
    for name in ["other.yml", "../restart.yml", "/etc/restart.yml"] {
        assert!(matches!(
            gate.pass(playbook(name, None)).await,
            Ok(Err(CapabilityError::Denied(_)))
        ));
    }
    let result = gate.pass(playbook("restart.yml", Some(7_000))).await;
    assert!(matches!(result, Ok(Ok(Response::Playbook(_)))));
    assert!(world.story.has("began 4 ansible.run restart.yml on -"));
    assert!(world.story.has("driver ansible restart.yml within 7s"));
}
