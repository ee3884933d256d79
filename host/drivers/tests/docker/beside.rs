//! Containers beside others: duplicates, removals, and those that use another one's
//! network.

use std::collections::HashMap;

use bollard::models::{EndpointSettings, HostConfig, NetworkingConfig, PortBinding};
use jiff::{SignedDuration, Timestamp};
use sentinel_core::alert::Labels;
use sentinel_core::capability::{CapabilityError, ContainerState, DockerCall, Response};
use sentinel_sandbox::driver::{DockerDriver, Settled};

use crate::{
    Container, Fate, LOOP, TIMEOUT, call, connected_to, created, driver, engine, failed, inspect,
    invalid, list, proxy, recreate,
};

fn duplicate(container: &Container, name: &str) -> DockerCall {
    DockerCall::Duplicate {
        container: container.id.clone(),
        name: name.to_owned(),
        labels: Labels::from([("number".to_owned(), "2".to_owned())]),
    }
}

fn remove(container: &str) -> DockerCall {
    DockerCall::Remove {
        container: container.to_owned(),
        grace_ms: 5_000,
    }
}

/// A container, and the name of one beside it, which is removed when the test ends.
async fn one(
    change: impl FnOnce(&mut bollard::models::ContainerCreateBody),
) -> (Container, String) {
    let mut container = Container::run(LOOP, change).await;
    let name = format!("{}-2", container.name);
    container.cleanup.containers.push(name.clone());
    (container, name)
}

async fn settle(call: &DockerCall, began_at: Timestamp) -> Settled {
    driver()
        .settle("local", call, began_at, TIMEOUT)
        .await
        .unwrap()
}

fn long_ago() -> Timestamp {
    Timestamp::now() - SignedDuration::from_secs(600)
}

#[tokio::test]
async fn a_duplicate_is_like_the_first_and_runs() {
    let (first, name) = one(|body| {
        body.env = Some(vec!["A=1".to_owned()]);
        let labels = body.labels.get_or_insert_default();
        labels.insert("number".to_owned(), "1".to_owned());
        let port = PortBinding {
            host_ip: Some("127.0.0.1".to_owned()),
            host_port: None,
        };
        body.exposed_ports = Some(vec!["80/tcp".to_owned()]);
        body.host_config = Some(HostConfig {
            port_bindings: Some(HashMap::from([("80/tcp".to_owned(), Some(vec![port]))])),
            ..HostConfig::default()
        });
        body.networking_config = Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(
                "bridge".to_owned(),
                EndpointSettings::default(),
            )])),
        });
    })
    .await;
    let driver = driver();
    let id = created(call(&driver, duplicate(&first, &name)).await);
    let second = inspect(&driver, &name).await;
    assert_eq!(
        (second.id, second.state),
        (id.clone(), ContainerState::Running)
    );
    assert_ne!(id, first.id);
    assert_eq!(second.labels["number"], "2");
    assert_eq!(
        second.labels.len(),
        2,
        "the driver's own notes are not shown: {:?}",
        second.labels
    );
    let raw = engine().inspect_container(&name, None).await.unwrap();
    let config = raw.config.unwrap();
    assert!(config.env.unwrap().contains(&"A=1".to_owned()));
    assert_ne!(config.hostname.as_deref(), Some(&first.id[..12]));
    assert_eq!(list(&driver, false, &[("number", "2")]).await.len(), 1);

    // The name is taken now.
    let taken = failed(call(&driver, duplicate(&first, &name)).await);
    assert!(taken.contains("already"), "{taken}");
    assert_eq!(inspect(&driver, &name).await.id, id, "and stays");

    assert_eq!(call(&driver, remove(&id)).await, Ok(Response::Done));
    let gone = call(&driver, remove(&id)).await;
    assert!(
        matches!(gone, Err(CapabilityError::NotFound(_))),
        "{gone:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_twice_is_refused() {
    let (first, name) = one(|body| {
        let port = PortBinding {
            host_ip: Some("127.0.0.1".to_owned()),
            host_port: Some("18931".to_owned()),
        };
        body.exposed_ports = Some(vec!["80/tcp".to_owned()]);
        body.host_config = Some(HostConfig {
            port_bindings: Some(HashMap::from([("80/tcp".to_owned(), Some(vec![port]))])),
            ..HostConfig::default()
        });
    })
    .await;
    let driver = driver();
    let refused = invalid(call(&driver, duplicate(&first, &name)).await);
    assert!(refused.contains("port 18931"), "{refused}");
    for odd in ["x/kill?signal=KILL&y=", "..", ""] {
        invalid(call(&driver, duplicate(&first, odd)).await);
    }
    let mut forged = duplicate(&first, &name);
    if let DockerCall::Duplicate { labels, .. } = &mut forged {
        labels.insert("infra-sentinel.replaces".to_owned(), first.id.clone());
    }
    invalid(call(&driver, forged).await);
    assert_eq!(first.namesakes().await, [first.name.as_str()]);
}

#[tokio::test]
async fn a_duplicate_that_does_not_start_is_removed_again() {
    let (first, name) = one(|_| {}).await;
    let url = proxy(|line| {
        if line.contains("/start") {
            Fate::Refuse("no room")
        } else {
            Fate::Pass
        }
    })
    .await;
    let why = failed(call(&connected_to(&url), duplicate(&first, &name)).await);
    assert!(
        why.contains("no room") && why.contains("removed again"),
        "{why}"
    );
    assert_eq!(first.namesakes().await, [first.name.as_str()]);
}

#[tokio::test]
async fn a_duplicate_that_was_cut_off_is_settled_and_gone_on_from() {
    let (first, name) = one(|_| {}).await;
    let wanted = duplicate(&first, &name);
    assert_eq!(settle(&wanted, long_ago()).await, Settled::NotDone);

    // Made and never started: as if the daemon had been killed in between.
    let url = proxy(|line| {
        if line.contains("/start") || line.starts_with("DELETE") {
            Fate::Refuse("cut off")
        } else {
            Fate::Pass
        }
    })
    .await;
    let left = failed(call(&connected_to(&url), wanted.clone()).await);
    assert!(left.contains("failed, too"), "{left}");
    assert_eq!(
        inspect(&driver(), &name).await.state,
        ContainerState::Created
    );
    assert_eq!(settle(&wanted, long_ago()).await, Settled::NotDone);

    let began = Timestamp::now();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let id = created(call(&driver(), wanted.clone()).await);
    assert_eq!(
        settle(&wanted, began).await,
        Settled::Done(Response::Created(id.clone()))
    );

    let gone = remove(&id);
    assert_eq!(settle(&gone, long_ago()).await, Settled::NotDone);
    assert_eq!(call(&driver(), gone.clone()).await, Ok(Response::Done));
    assert_eq!(
        settle(&gone, long_ago()).await,
        Settled::Done(Response::Done)
    );
}

#[tokio::test]
async fn who_uses_the_network_of_a_replaced_container_gets_that_of_the_replacement() {
    let owner = Container::run(LOOP, |_| {}).await;
    let guest = Container::run(LOOP, |body| {
        body.host_config = Some(HostConfig {
            network_mode: Some(format!("container:{}", owner.name)),
            pid_mode: Some(format!("container:{}", owner.id)),
            ..HostConfig::default()
        });
    })
    .await;
    let driver = driver();
    assert_eq!(guest.details().await.network_of, Some(owner.id.clone()));
    let rows = list(&driver, true, &[]).await;
    let row = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
    assert_eq!(row(&guest.name).network_of, Some(owner.id.clone()));
    assert_eq!(row(&owner.name).network_of, None);

    let new_owner = created(call(&driver, recreate(&owner.id)).await);
    let orphan = guest.details().await.network_of;
    assert_eq!(orphan, Some(owner.id.clone()), "Docker itself forgets it");
    created(call(&driver, recreate(&guest.name)).await);
    let after = guest.details().await;
    assert_eq!(after.network_of, Some(new_owner.clone()));
    assert_eq!(after.state, ContainerState::Running);
    let raw = guest.raw().await;
    assert_eq!(
        raw.host_config.unwrap().pid_mode,
        Some(format!("container:{new_owner}"))
    );
}

#[tokio::test]
async fn who_uses_the_network_of_a_service_finds_it_after_compose_replaced_it() {
    let project = crate::unique("project");
    let labelled = |service: &str, depends_on: &str| {
        HashMap::from([
            (crate::LABEL.to_owned(), "1".to_owned()),
            ("com.docker.compose.project".to_owned(), project.clone()),
            ("com.docker.compose.service".to_owned(), service.to_owned()),
            (
                "com.docker.compose.depends_on".to_owned(),
                depends_on.to_owned(),
            ),
        ])
    };
    let owner = Container::run(LOOP, |body| body.labels = Some(labelled("vpn", ""))).await;
    let guest = Container::run(LOOP, |body| {
        body.labels = Some(labelled("web", "vpn:service_started:true"));
        body.host_config = Some(HostConfig {
            network_mode: Some(format!("container:{}", owner.id)),
            ..HostConfig::default()
        });
    })
    .await;
    drop(owner);
    let driver = driver();
    let lost = call(&driver, recreate(&guest.name)).await.unwrap_err();
    assert!(lost.to_string().contains("is gone"), "{lost}");
    assert_eq!(guest.details().await.state, ContainerState::Running);

    let owner = Container::run(LOOP, |body| body.labels = Some(labelled("vpn", ""))).await;
    created(call(&driver, recreate(&guest.name)).await);
    assert_eq!(guest.details().await.network_of, Some(owner.id.clone()));
}
