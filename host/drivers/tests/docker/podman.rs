//! The driver against a real Podman: what speaks Docker's API, and is not Docker.

use std::time::Duration;

use jiff::Timestamp;
use sentinel_core::capability::{CapabilityError, ContainerState, DockerCall, Response};
use sentinel_drivers::docker::Docker;
use sentinel_sandbox::driver::{DockerDriver, Settled};
use sentinel_tests::podman::Podman;

use crate::{LOOP, TIMEOUT, call, connected_to, inspect, list, restart, start, stop};

async fn logs(driver: &Docker, container: &str, lines: u32) -> String {
    let container = container.to_owned();
    match call(driver, DockerCall::Logs { container, lines }).await {
        Ok(Response::Text(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// A moment that is clearly behind what was and clearly before what comes: it takes Podman a second to tell its time,
/// so what is closer is not told apart.
async fn moment() -> Timestamp {
    const CLEARLY: Duration = Duration::from_secs(4);
    tokio::time::sleep(CLEARLY).await;
    let now = Timestamp::now();
    tokio::time::sleep(CLEARLY).await;
    now
}

#[tokio::test]
async fn podman_is_looked_at_acted_on_and_asked_what_became_of_it() {
    let podman = tokio::task::spawn_blocking(Podman::start).await.unwrap();
    let driver = connected_to(&podman.url());
    let script = format!("echo one; echo two >&2; echo three; {LOOP}");
    let id = podman.run("web", &script, &["--label", "tier=web", "--restart=always"]);
    podman.run("other", LOOP, &[]);

    // By every name.
    for name in ["web", &id, &id[..12]] {
        let found = inspect(&driver, name).await;
        assert_eq!((found.id.as_str(), found.name.as_str()), (&*id, "web"));
        assert_eq!(found.state, ContainerState::Running);
        assert_eq!(found.labels["tier"], "web");
    }
    let rows = list(&driver, false, &[("tier", "web")]).await;
    let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["web"]);
    let missing = call(&driver, restart("nowhere")).await;
    assert!(
        matches!(missing, Err(CapabilityError::NotFound(_))),
        "{missing:?}"
    );

    let told = logs(&driver, "web", 10).await;
    for line in ["one", "two", "three"] {
        assert!(told.contains(line), "{told:?}");
    }
    assert_eq!(logs(&driver, "web", 1).await.lines().count(), 1);

    let before = inspect(&driver, "web").await;
    let began_at = moment().await;
    call(&driver, restart("web")).await.unwrap();
    let after = inspect(&driver, "web").await;
    assert!(after.started_at > before.started_at, "{before:?} {after:?}");
    assert_eq!(after.id, before.id);
    // What became of one of which nobody heard.
    let settle = async |call: &DockerCall, began_at: Timestamp| {
        driver
            .settle("local", call, began_at, TIMEOUT)
            .await
            .unwrap()
    };
    assert_eq!(
        settle(&restart(&id), began_at).await,
        Settled::Done(Response::Done)
    );

    call(&driver, stop("web")).await.unwrap();
    let stopped = inspect(&driver, "web").await;
    assert_eq!(stopped.state, ContainerState::Exited);
    assert!(list(&driver, false, &[("tier", "web")]).await.is_empty());
    assert_eq!(list(&driver, true, &[("tier", "web")]).await.len(), 1);
    let began_at = moment().await;
    assert_eq!(settle(&start(&id), began_at).await, Settled::NotDone);
    call(&driver, start("web")).await.unwrap();
    // One that runs is left as it is.
    let started = inspect(&driver, "web").await;
    call(&driver, start("web")).await.unwrap();
    let same = inspect(&driver, "web").await;
    assert_eq!(
        (same.state, same.started_at),
        (ContainerState::Running, started.started_at)
    );
    assert_eq!(
        settle(&start(&id), began_at).await,
        Settled::Done(Response::Done)
    );

    // A signal that ends nothing would be known by events alone, and Podman's do not say which one was sent. What
    // cannot be told is not sent again by itself.
    let deaf = format!("trap 'echo heard' USR1; {LOOP}");
    let id = podman.run("deaf", &deaf, &[]);
    let signal = |signal: &str| DockerCall::Kill {
        container: id.clone(),
        signal: signal.to_owned(),
    };
    let began_at = moment().await;
    call(&driver, signal("USR1")).await.unwrap();
    let told = settle(&signal("USR1"), began_at).await;
    let Settled::Unknown(reason) = told else {
        panic!("{told:?}");
    };
    assert!(
        reason.contains("Podman does not tell whether USR1 was sent"),
        "{reason}"
    );
    assert!(logs(&driver, "deaf", 5).await.contains("heard"));
    // One that ended it is known by its end.
    call(&driver, signal("KILL")).await.unwrap();
    assert_eq!(
        settle(&signal("KILL"), began_at).await,
        Settled::Done(Response::Done)
    );

    // A frozen one, which Podman does not stop by itself.
    podman.done(&["pause", "other"]);
    assert_eq!(
        inspect(&driver, "other").await.state,
        ContainerState::Paused
    );
    call(&driver, restart("other")).await.unwrap();
    assert_eq!(
        inspect(&driver, "other").await.state,
        ContainerState::Running
    );
    tokio::task::spawn_blocking(move || drop(podman))
        .await
        .unwrap();
}
