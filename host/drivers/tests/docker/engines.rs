//! Engines in the wild: what speaks Docker's API and is not Docker, what stands before an
//! engine, and what containers ask for themselves.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bollard::models::HealthConfig;
use sentinel_core::capability::{
    CapabilityError, ContainerHealth, ContainerState, DockerCall, OWN_GRACE,
};
use sentinel_drivers::docker::Docker;
use sentinel_sandbox::driver::DockerDriver;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::{
    Container, Fate, LOOP, TIMEOUT, call, connected_to, driver, failed, inspect, list, proxy,
    recreate, restart, start, stop,
};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// An engine that answers as it is told to.
struct Engine {
    driver: Docker,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Engine {
    /// `answer` is given the method and the path of a request, the version's prefix taken
    /// off, and gives the status and the body.
    async fn new(
        version: &'static str,
        answer: impl Fn(&str, &[String]) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        let (answer, asked) = (Arc::new(answer), Arc::new(Mutex::new(Vec::new())));
        let (tasks, log) = (TaskTracker::new(), Arc::clone(&asked));
        tasks.clone().spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&log));
                tasks.spawn(async move {
                    let mut head = vec![0; 8192];
                    let Ok(count @ 1..) = client.read(&mut head).await else {
                        return;
                    };
                    let head = String::from_utf8_lossy(&head[..count]).into_owned();
                    let mut words = head.split_ascii_whitespace();
                    let (method, path) = (words.next().unwrap(), words.next().unwrap());
                    let request = format!("{method} {path}");
                    let before = asked.lock().unwrap().clone();
                    asked.lock().unwrap().push(request.clone());
                    let (status, body) = if path == "/_ping" {
                        (200, "OK".to_owned())
                    } else {
                        answer(&request, &before)
                    };
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\nApi-Version: {version}\r\nContent-Length: {}\r\n\
                         Connection: close\r\n\r\n{body}",
                        body.len()
                    );
                    drop(client.write_all(answer.as_bytes()).await);
                });
            }
        });
        Self {
            driver: connected_to(&url),
            asked,
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn container(state: &Value) -> String {
    json!({
        "Id": ID,
        "Name": "/web",
        "State": state,
        "Config": { "Image": "x", "Labels": { "app": "web" } },
        "HostConfig": { "NetworkMode": "bridge", "RestartPolicy": { "Name": "odd" } },
    })
    .to_string()
}

#[tokio::test]
async fn a_state_that_docker_does_not_have_is_one_of_what_does_not_run() {
    let engine = Engine::new("1.41", |request, _| {
        if request.contains("/containers/json") {
            let rows = json!([
                { "Id": ID, "Names": ["/web"], "State": "stopped", "Status": "Exited (0)" },
                { "Id": "b".repeat(64), "Names": ["/ok"], "State": "running", "Status": "Up" },
            ]);
            (200, rows.to_string())
        } else {
            (
                200,
                container(&json!({ "Status": "stopped", "Running": false, "ExitCode": 3 })),
            )
        }
    })
    .await;
    let found = inspect(&engine.driver, "web").await;
    assert_eq!((found.state, found.exit_code), (ContainerState::Exited, 3));
    assert_eq!(found.labels["app"], "web");
    let rows = list(&engine.driver, true, &[]).await;
    let states: Vec<_> = rows
        .iter()
        .map(|row| (row.name.as_str(), row.state))
        .collect();
    assert_eq!(
        states,
        [
            ("ok", ContainerState::Running),
            ("web", ContainerState::Exited)
        ]
    );
}

#[tokio::test]
async fn requests_carry_the_older_of_both_versions() {
    for (version, prefix) in [
        ("1.24", "/v1.24/"),
        ("1.41", "/v1.41/"),
        ("1.99", "/v1.53/"),
    ] {
        let engine = Engine::new(version, |_, _| {
            (
                200,
                container(&json!({ "Status": "running", "Running": true })),
            )
        })
        .await;
        inspect(&engine.driver, "web").await;
        call(&engine.driver, restart(ID)).await.unwrap();
        let asked = engine.asked();
        assert_eq!(asked[0], "GET /_ping");
        assert_eq!(asked[1], format!("GET {prefix}containers/web/json"));
        assert!(
            asked[2].starts_with(&format!("POST {prefix}containers/{ID}/restart")),
            "{asked:?}"
        );
        assert_eq!(asked.len(), 3);
    }
    // One that does not say is asked without.
    let engine = Engine::new("", |_, _| {
        (
            200,
            container(&json!({ "Status": "running", "Running": true })),
        )
    })
    .await;
    inspect(&engine.driver, "web").await;
    assert_eq!(engine.asked()[1], "GET /containers/web/json");
}

#[tokio::test]
async fn an_engine_that_was_exchanged_is_asked_again_for_its_version() {
    let engine = Engine::new("1.41", |_, before| {
        if before
            .iter()
            .filter(|request| request.contains("_ping"))
            .count()
            > 1
        {
            return (200, container(&json!({ "Status": "running" })));
        }
        let message = "client version 1.41 is too old. Minimum supported API version is 1.44";
        (400, json!({ "message": message }).to_string())
    })
    .await;
    let refused = engine.driver.resolve("local", "web").await.unwrap_err();
    assert!(
        matches!(refused, CapabilityError::Unavailable(_)),
        "{refused}"
    );
    engine.driver.resolve("local", "web").await.unwrap();
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_and_its_page_is_not_shown() {
    let page = "<html><body><h1>403 Forbidden</h1>\nRequest forbidden.\n</body></html>";
    for body in [page, "", "Forbidden"] {
        let engine = Engine::new("1.41", move |request, _| {
            if request.starts_with("POST") {
                (403, body.to_owned())
            } else {
                (200, container(&json!({ "Status": "running" })))
            }
        })
        .await;
        let refused = call(&engine.driver, restart(ID)).await.unwrap_err();
        let CapabilityError::Denied(text) = &refused else {
            panic!("{refused:?}");
        };
        assert!(
            text.contains("POST /containers/ID/restart was refused with 403"),
            "{text}"
        );
        assert!(
            text.contains("is there a proxy before the engine"),
            "{text}"
        );
        assert!(!text.contains(['<', '\n']), "{text}");
    }
    // Docker's own refusal has another reason.
    let engine = Engine::new("1.41", |_, _| {
        let message = "endpoint with name web already exists in network front";
        (403, json!({ "message": message }).to_string())
    })
    .await;
    let refused = failed(call(&engine.driver, start(ID)).await);
    assert!(refused.contains("already exists"), "{refused}");
    // What is in between may not know the way at all.
    let engine = Engine::new("1.41", move |_, _| (404, page.to_owned())).await;
    let text = failed(call(&engine.driver, start(ID)).await);
    assert!(
        text.contains("was answered with 404 with a web page"),
        "{text}"
    );
}

#[tokio::test]
async fn a_frozen_container_is_thawed_where_the_engine_does_not_stop_one() {
    for (what, request) in [("restart", restart(ID)), ("stop", stop(ID))] {
        let engine = Engine::new("1.41", move |request, before| {
            let thawed = before.iter().any(|request| request.ends_with("/unpause"));
            match request {
                _ if request.starts_with("GET") => {
                    let state = if thawed { "running" } else { "paused" };
                    (200, container(&json!({ "Status": state })))
                }
                _ if request.contains(&format!("/{what}")) && !thawed => {
                    let message = "unable to restart a container in a paused or unknown state";
                    (500, json!({ "message": message }).to_string())
                }
                _ => (204, String::new()),
            }
        })
        .await;
        call(&engine.driver, request).await.unwrap();
        let changes: Vec<_> = engine
            .asked()
            .into_iter()
            .filter(|request| request.starts_with("POST"))
            .map(|request| request.split('?').next().unwrap().to_owned())
            .collect();
        let path = format!("POST /v1.41/containers/{ID}");
        assert_eq!(
            changes,
            [
                format!("{path}/{what}"),
                format!("{path}/unpause"),
                format!("{path}/{what}"),
            ]
        );
    }
}

/// Says when it is asked to stop, takes a while, and says when it is done.
const FLUSHES: &str = "trap 'sleep 3; echo clean; exit 0' TERM; while :; do sleep 0.05; done";

fn own_grace(most: Duration) -> u64 {
    OWN_GRACE + u64::try_from(most.as_millis()).unwrap()
}

#[tokio::test]
async fn a_container_gets_the_time_to_stop_that_it_asks_for() {
    for (asks, most, clean) in [
        (Some(30), Duration::from_mins(1), true),
        (None, Duration::from_mins(1), true),
        (Some(1), Duration::from_mins(1), false),
        // The step has no more.
        (Some(30), Duration::from_millis(1_900), false),
        (Some(-1), Duration::from_mins(1), true),
    ] {
        let container = Container::run(FLUSHES, |body| body.stop_timeout = asks).await;
        // Its trap may not be set yet.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let container_id = container.id.clone();
        let begun = Instant::now();
        let request = DockerCall::Stop {
            container: container_id,
            grace_ms: own_grace(most),
        };
        call(&driver(), request).await.unwrap();
        let code = container.details().await.exit_code;
        assert_eq!(code == 0, clean, "{asks:?} {most:?}: {code}");
        assert!(begun.elapsed() < TIMEOUT);
    }
}

#[tokio::test]
async fn a_recreate_leaves_the_old_container_its_time_to_stop() {
    let script = format!("echo began; {FLUSHES}");
    let container = Container::run(&script, |body| {
        body.stop_timeout = Some(20);
        body.host_config.get_or_insert_default().binds = None;
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    let request = DockerCall::Recreate {
        container: container.id.clone(),
        grace_ms: own_grace(Duration::from_mins(1)),
    };
    call(&driver(), request).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(3));
    assert_eq!(container.raw().await.config.unwrap().stop_timeout, Some(20));
}

#[tokio::test]
async fn a_health_check_says_itself_how_long_it_may_take() {
    let second = 1_000_000_000;
    let container = Container::run(LOOP, |body| {
        body.healthcheck = Some(HealthConfig {
            test: Some(vec!["CMD".to_owned(), "/bin/false".to_owned()]),
            interval: Some(7 * second),
            timeout: Some(2 * second),
            retries: Some(4),
            start_period: Some(60 * second),
            ..HealthConfig::default()
        });
    })
    .await;
    let vitals = driver()
        .vitals("local", &container.name, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(vitals.details.health, ContainerHealth::Starting);
    assert_eq!(vitals.decides_within, Some(Duration::from_secs(60 + 5 * 9)));
    let plain = Container::run(LOOP, |_| {}).await;
    let vitals = driver()
        .vitals("local", &plain.name, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(vitals.decides_within, None);
}

#[tokio::test]
async fn a_look_at_a_container_takes_no_longer_than_it_may() {
    let url = proxy(|_| Fate::Swallow).await;
    let bound = Duration::from_secs(5);
    let begun = Instant::now();
    let vitals = connected_to(&url).vitals("local", "web", bound).await;
    assert!(
        matches!(vitals, Err(CapabilityError::TimedOut(_))),
        "{vitals:?}"
    );
    // The version and the container, with as much for each, would take ten.
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_mac_address_that_was_asked_for_outlives_a_recreate_and_no_other_does() {
    async fn addresses(container: &Container) -> (Option<String>, String) {
        let id = &container.name;
        let found = driver_raw(id).await;
        let asked = found["Config"]["MacAddress"].as_str().unwrap_or_default();
        let networks = found["NetworkSettings"]["Networks"].as_object().unwrap();
        let used = networks.values().next().unwrap()["MacAddress"]
            .as_str()
            .unwrap();
        (
            Some(asked.to_owned()).filter(|asked| !asked.is_empty()),
            used.to_owned(),
        )
    }
    let mac = "02:42:de:ad:be:ef";
    let asked = Container::run_with_mac_address(LOOP, mac).await;
    assert_eq!(addresses(&asked).await.1, mac);
    call(&driver(), recreate(&asked.id)).await.unwrap();
    assert_eq!(addresses(&asked).await.1, mac);
    // Again: it is known that it was asked for.
    let again = driver().resolve("local", &asked.name).await.unwrap();
    call(&driver(), recreate(&again.id)).await.unwrap();
    assert_eq!(addresses(&asked).await.1, mac);

    // Two that asked for none have none in common, whatever became of them.
    let (first, second) = (
        Container::run(LOOP, |_| {}).await,
        Container::run(LOOP, |_| {}).await,
    );
    for container in [&first, &second] {
        let found = driver().resolve("local", &container.name).await.unwrap();
        call(&driver(), recreate(&found.id)).await.unwrap();
    }
    let (first, second) = (addresses(&first).await, addresses(&second).await);
    assert_ne!(first.1, second.1);
    assert_eq!((first.0, second.0), (None, None));
}

/// What the engine says of a container, in full.
async fn driver_raw(container: &str) -> Value {
    let path = super::socket().trim_start_matches("unix://").to_owned();
    let mut engine = tokio::net::UnixStream::connect(path).await.unwrap();
    let request = format!(
        "GET /containers/{container}/json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    );
    engine.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    engine.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    // In one chunk or in several: what is between the braces.
    let body = &answer[answer.find('{').unwrap()..=answer.rfind('}').unwrap()];
    let body: String = body
        .split("\r\n")
        .filter(|line| u32::from_str_radix(line, 16).is_err())
        .collect();
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn a_real_engine_is_asked_by_its_version() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let url = proxy({
        let asked = Arc::clone(&asked);
        move |first| {
            asked.lock().unwrap().push(first.to_owned());
            Fate::Pass
        }
    })
    .await;
    let container = Container::run(LOOP, |_| {}).await;
    call(&connected_to(&url), restart(&container.id))
        .await
        .unwrap();
    let asked = asked.lock().unwrap().clone();
    assert!(asked[0].starts_with("GET /_ping"), "{asked:?}");
    assert!(asked[1].starts_with("POST /v1."), "{asked:?}");
}
