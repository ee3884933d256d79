//! What became of effects that were cut off.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use sentinel_core::capability::{CapabilityError, ContainerState, DockerCall, Response};
use sentinel_drivers::docker::Docker;
use sentinel_sandbox::driver::{DockerDriver, Settled};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::{
    Container, Fate, LOOP, TIMEOUT, call, connected_to, created, driver, failed, gone_after,
    inspect, proxy, recreate, restart, start, stop,
};

/// Takes as long as its grace to stop.
const DEAF: &str = "trap '' TERM; while :; do sleep 0.05; done";

/// Now; what happened before is clearly before.
async fn moment() -> Timestamp {
    tokio::time::sleep(Duration::from_millis(300)).await;
    Timestamp::now()
}

/// A moment after which Docker would long be done.
fn long_ago() -> Timestamp {
    Timestamp::now() - SignedDuration::from_secs(600)
}

async fn settle(call: &DockerCall, began_at: Timestamp) -> Settled {
    driver()
        .settle("local", call, began_at, TIMEOUT)
        .await
        .unwrap()
}

fn unknown(settled: Settled) -> String {
    match settled {
        Settled::Unknown(reason) => reason,
        other => panic!("{other:?}"),
    }
}

fn kill(container: &str, signal: &str) -> DockerCall {
    DockerCall::Kill {
        container: container.to_owned(),
        signal: signal.to_owned(),
    }
}

#[tokio::test]
async fn a_restart_cut_off_within_its_grace_is_waited_for() {
    let container = Container::run(DEAF, |_| {}).await;
    let before = container.details().await.started_at;
    let request = DockerCall::Restart {
        container: container.id.clone(),
        grace_ms: 3_000,
    };
    let began_at = moment().await;
    gone_after(Duration::from_millis(500), call(&driver(), request.clone())).await;
    assert_eq!(container.details().await.started_at, before);

    let asked = Instant::now();
    assert_eq!(
        settle(&request, began_at).await,
        Settled::Done(Response::Done)
    );
    assert!(asked.elapsed() > Duration::from_secs(2), "it did not wait");
    assert!(container.details().await.started_at > before);
    // Later it is told at once.
    let asked = Instant::now();
    settle(&request, began_at).await;
    assert!(asked.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_restart_that_never_reached_docker_is_not_done_once_it_cannot_come() {
    let container = Container::run(LOOP, |_| {}).await;
    let request = restart(&container.id);
    let began_at = moment().await;
    let url = proxy(|_| Fate::Break).await;
    call(&connected_to(&url), request.clone())
        .await
        .unwrap_err();

    let bound = Duration::from_secs(2);
    let asked = Instant::now();
    let early = driver().settle("local", &request, began_at, bound).await;
    let reason = unknown(early.unwrap());
    assert!(
        reason.ends_with("docker.restart may still be under way"),
        "{reason}"
    );
    assert!(asked.elapsed() < bound + Duration::from_secs(2));

    assert_eq!(settle(&request, began_at).await, Settled::NotDone);
    // Its grace of a second, and ten for Docker.
    let waited = Timestamp::now().duration_since(began_at);
    assert!(waited >= SignedDuration::from_secs(11), "{waited}");
}

#[tokio::test]
async fn a_restart_in_a_broken_connection_is_told_by_the_state() {
    let container = Container::run(LOOP, |_| {}).await;
    let request = restart(&container.id);
    let began_at = moment().await;
    let url = proxy(|_| Fate::Swallow).await;
    let bound = Duration::from_millis(200);
    let cut_off = connected_to(&url).call("local", &request, bound).await;
    assert!(
        matches!(cut_off, Err(CapabilityError::TimedOut(_))),
        "{cut_off:?}"
    );
    assert_eq!(
        settle(&request, began_at).await,
        Settled::Done(Response::Done)
    );
}

#[tokio::test]
async fn starts() {
    let container = Container::create(LOOP, |_| {}).await;
    let request = start(&container.id);
    assert_eq!(settle(&request, long_ago()).await, Settled::NotDone);
    let began_at = moment().await;
    // The version is agreed on before, so that the start itself is what is cut off.
    let driver = driver();
    inspect(&driver, &container.id).await;
    gone_after(Duration::from_millis(20), call(&driver, request.clone())).await;
    assert_eq!(
        settle(&request, began_at).await,
        Settled::Done(Response::Done)
    );
    assert_eq!(container.details().await.state, ContainerState::Running);

    // Of one that ran before, nobody can tell, and nothing hangs on it.
    let began_at = moment().await;
    let asked = Instant::now();
    assert_eq!(settle(&request, began_at).await, Settled::NotDone);
    assert!(asked.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn stops() {
    let container = Container::run(DEAF, |_| {}).await;
    let request = DockerCall::Stop {
        container: container.id.clone(),
        grace_ms: 2_000,
    };
    let began_at = moment().await;
    gone_after(Duration::from_millis(500), call(&driver(), request.clone())).await;
    assert_eq!(container.details().await.state, ContainerState::Running);
    assert_eq!(
        settle(&request, began_at).await,
        Settled::Done(Response::Done)
    );
    assert_eq!(container.details().await.state, ContainerState::Exited);

    // Of one that was stopped before, nobody can tell, and nothing hangs on it.
    let asked = Instant::now();
    assert_eq!(settle(&request, moment().await).await, Settled::NotDone);
    assert!(asked.elapsed() < Duration::from_secs(2));

    // One that was stopped, and started by somebody else.
    call(&driver(), start(&container.id)).await.unwrap();
    let reason = unknown(settle(&request, Timestamp::now() - SignedDuration::from_secs(60)).await);
    assert!(
        reason.ends_with("ended and was started again since"),
        "{reason}"
    );
}

#[tokio::test]
async fn signals_are_told_by_dockers_events_and_by_the_end() {
    let container = Container::run(LOOP, |_| {}).await;
    for signal in ["SIGUSR1", "KILL"] {
        let request = kill(&container.id, signal);
        let began_at = moment().await;
        let url = proxy(|first| {
            if first.contains("/kill") {
                Fate::Swallow
            } else {
                Fate::Pass
            }
        })
        .await;
        let bound = Duration::from_millis(200);
        let cut_off = connected_to(&url).call("local", &request, bound).await;
        assert!(
            matches!(cut_off, Err(CapabilityError::TimedOut(_))),
            "{cut_off:?}"
        );
        assert_eq!(
            settle(&request, began_at).await,
            Settled::Done(Response::Done),
            "{signal}"
        );
        if signal == "SIGUSR1" {
            // It has no trap for it, and it is PID 1.
            assert_eq!(container.details().await.state, ContainerState::Running);
        }
    }
    assert_eq!(container.details().await.exit_code, 137);
}

#[tokio::test]
async fn a_container_that_is_gone_tells_nothing() {
    let id = "f".repeat(64);
    for request in [
        start(&id),
        stop(&id),
        restart(&id),
        recreate(&id),
        kill(&id, "HUP"),
    ] {
        let reason = unknown(settle(&request, long_ago()).await);
        assert!(
            reason.ends_with("the container ffffffffffff is gone"),
            "{reason}"
        );
    }
}

#[tokio::test]
async fn what_only_looked_is_not_done() {
    let id = "f".repeat(64);
    let request = DockerCall::Inspect { container: id };
    assert_eq!(settle(&request, long_ago()).await, Settled::NotDone);
}

#[tokio::test]
async fn a_clock_that_was_set_back_tells_nothing() {
    let container = Container::run(LOOP, |_| {}).await;
    let began_at = Timestamp::now() + SignedDuration::from_secs(60);
    let reason = unknown(settle(&restart(&container.id), began_at).await);
    assert!(reason.contains("was set back"), "{reason}");
}

#[tokio::test]
async fn an_engine_that_is_away_is_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("docker.sock");
    let answer = connected_to(&format!("unix://{}", missing.display()))
        .settle("local", &restart(&"f".repeat(64)), long_ago(), TIMEOUT)
        .await;
    assert!(
        matches!(answer, Err(CapabilityError::Unavailable(_))),
        "{answer:?}"
    );
}

/// A driver whose connections all break from its `step`th request on that changes
/// something. If that one `arrives`, it is carried out all the same.
async fn cut_off_at(step: u32, arrives: bool) -> Docker {
    let seen = AtomicU32::new(0);
    let url = proxy(move |first| {
        let step_now = if first.starts_with("GET") {
            seen.load(Ordering::Relaxed)
        } else {
            seen.fetch_add(1, Ordering::Relaxed)
        };
        if step_now < step || (first.starts_with("GET") && step_now == step) {
            Fate::Pass
        } else if step_now == step && arrives {
            Fate::Lose
        } else {
            Fate::Break
        }
    })
    .await;
    connected_to(&url)
}

#[tokio::test]
async fn a_recreate_cut_off_anywhere_is_recognised_and_gone_on_from() {
    let steps = [
        "remove what an earlier one left",
        "create",
        "stop",
        "rename the old one",
        "rename the new one",
        "start",
        "remove the old one",
    ];
    for (step, what) in (0..).zip(steps) {
        for arrives in [false, true] {
            let round = format!("{what}, arrived: {arrives}");
            let container = Container::run(LOOP, |_| {}).await;
            let request = recreate(&container.id);
            let began_at = Timestamp::now();
            let cut_off = call(&cut_off_at(step, arrives).await, request.clone()).await;
            let came_about = what == "remove the old one" || (what == "start" && arrives);
            assert_eq!(cut_off.is_ok(), what == "remove the old one", "{round}");

            // Whatever the old one is called, what counts is what it was.
            let found = driver().resolve("local", &container.id).await;
            if what != "remove the old one" || !arrives {
                assert_eq!(found.unwrap().name, container.name, "{round}");
            }
            // Begun so long before that nothing has to be waited for.
            let began_at = began_at - SignedDuration::from_secs(60);
            let told = match settle(&request, began_at).await {
                Settled::Done(Response::Created(id)) => Some(id),
                Settled::NotDone => None,
                other => panic!("{round}: {other:?}"),
            };
            assert_eq!(told.is_some(), came_about, "{round}");

            let new_id = match (&told, call(&driver(), request).await) {
                // Not even the last step was missing.
                (Some(id), Err(CapabilityError::NotFound(_))) if arrives => id.clone(),
                (_, again) => created(again),
            };
            assert!(told.is_none_or(|told| told == new_id), "{round}");
            assert_eq!(
                container.namesakes().await,
                [container.name.as_str()],
                "{round}"
            );
            let details = container.details().await;
            assert_eq!(details.id, new_id, "{round}");
            assert_ne!(details.id, container.id, "{round}");
            assert_eq!(details.state, ContainerState::Running, "{round}");
        }
    }
}

#[tokio::test]
async fn a_recreate_that_fails_the_second_time_starts_what_the_first_one_stopped() {
    for step in [3, 4] {
        let container = Container::run(LOOP, |_| {}).await;
        let request = recreate(&container.id);
        call(&cut_off_at(step, false).await, request.clone())
            .await
            .unwrap_err();
        let stopped = driver().resolve("local", &container.id).await.unwrap();
        assert_eq!(stopped.name, container.name);

        let url = proxy(|first| {
            if first.starts_with("POST") && first.contains("/create") {
                Fate::Refuse("no space left on device")
            } else {
                Fate::Pass
            }
        })
        .await;
        let text = failed(call(&connected_to(&url), request).await);
        assert!(text.contains("no space left on device"), "{text}");
        assert!(
            text.ends_with("an earlier attempt had stopped it; it was started"),
            "{text}"
        );
        assert_eq!(container.namesakes().await, [container.name.as_str()]);
        let details = container.details().await;
        assert_eq!(details.id, container.id);
        assert_eq!(details.state, ContainerState::Running);
    }
}

#[tokio::test]
async fn a_container_that_only_says_that_it_replaces_another_does_not() {
    let container = Container::run(LOOP, |_| {}).await;
    let claims = Container::run(LOOP, |body| {
        let labels = body.labels.get_or_insert_default();
        labels.insert("infra-sentinel.replaces".to_owned(), container.id.clone());
    })
    .await;
    let request = recreate(&container.id);
    assert_eq!(settle(&request, long_ago()).await, Settled::NotDone);
    let new_id = created(call(&driver(), request).await);
    assert_eq!(container.details().await.id, new_id);
    assert_eq!(claims.details().await.state, ContainerState::Running);
}

/// What an engine says, for what a real one does not do on demand: another time, and a
/// memory of events that is short.
#[derive(Clone)]
struct Told {
    ahead: SignedDuration,
    started_at: Timestamp,
    events: Vec<Value>,
}

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

impl Told {
    async fn engine(self) -> Docker {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        let (told, tasks) = (Arc::new(self), TaskTracker::new());
        tasks.clone().spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let told = Arc::clone(&told);
                tasks.spawn(async move {
                    let mut head = vec![0; 4096];
                    let Ok(count @ 1..) = client.read(&mut head).await else {
                        return;
                    };
                    let first = String::from_utf8_lossy(&head[..count]).into_owned();
                    let body = told.answer(first.lines().next().unwrap());
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                        body.len()
                    );
                    client.write_all(answer.as_bytes()).await.unwrap();
                });
            }
        });
        connected_to(&url)
    }

    fn answer(&self, first: &str) -> String {
        if first.contains("/info") {
            let now = Timestamp::now() + self.ahead;
            return json!({ "SystemTime": now.to_string() }).to_string();
        }
        if first.contains("/events") {
            let lines: Vec<String> = self.events.iter().map(Value::to_string).collect();
            return lines.join("\n");
        }
        if first.contains("/_ping") {
            return "OK".to_owned();
        }
        assert!(first.contains(&format!("/containers/{ID}/json")), "{first}");
        json!({
            "Id": ID,
            "Name": "/web",
            "State": {
                "Status": "running",
                "StartedAt": self.started_at.to_string(),
                "FinishedAt": "0001-01-01T00:00:00Z",
            },
        })
        .to_string()
    }
}

fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

#[tokio::test]
async fn only_dockers_clock_is_compared_with_dockers_clock() {
    let request = restart(ID);
    for hours in [-1, 1] {
        for (started_ago, settled) in [(30, Settled::Done(Response::Done)), (90, Settled::NotDone)]
        {
            let now = Timestamp::now();
            let ahead = SignedDuration::from_hours(hours);
            let told = Told {
                ahead,
                started_at: now + ahead - seconds(started_ago),
                events: Vec::new(),
            };
            let answer = told
                .engine()
                .await
                .settle("local", &request, now - seconds(60), TIMEOUT)
                .await;
            assert_eq!(answer, Ok(settled), "{hours} h, {started_ago} s ago");
        }
    }
}

#[tokio::test]
async fn what_happened_in_the_same_moment_is_unknown() {
    let began_at = Timestamp::now() - seconds(60);
    let told = Told {
        ahead: SignedDuration::ZERO,
        started_at: began_at,
        events: Vec::new(),
    };
    let answer = told
        .engine()
        .await
        .settle("local", &restart(ID), began_at, TIMEOUT)
        .await;
    let reason = unknown(answer.unwrap());
    assert!(reason.contains("too close to tell"), "{reason}");
}

#[tokio::test]
async fn events_tell_of_a_signal_only_as_far_back_as_they_reach() {
    let now = Timestamp::now();
    let event = |action: &str, id: &str, signal: &str, ago: i64| {
        json!({
            "Type": "container",
            "Action": action,
            "Actor": { "ID": id, "Attributes": { "signal": signal } },
            "timeNano": (now - seconds(ago)).as_nanosecond() as i64,
        })
    };
    let other = "f".repeat(64);
    let settled = async |events: Vec<Value>| {
        let told = Told {
            ahead: SignedDuration::ZERO,
            started_at: now - seconds(600),
            events,
        };
        let request = kill(ID, "SIGHUP");
        told.engine()
            .await
            .settle("local", &request, now - seconds(60), TIMEOUT)
            .await
            .unwrap()
    };
    let older = event("die", &other, "", 90);
    assert_eq!(
        settled(vec![older.clone(), event("kill", ID, "1", 30)]).await,
        Settled::Done(Response::Done)
    );
    for not_it in [
        event("kill", ID, "15", 30),
        event("kill", &other, "1", 30),
        event("die", ID, "1", 30),
        event("kill", ID, "1", 70),
    ] {
        assert_eq!(
            settled(vec![older.clone(), not_it.clone()]).await,
            Settled::NotDone,
            "{not_it}"
        );
    }
    for short in [vec![], vec![event("die", &other, "", 30)]] {
        let reason = unknown(settled(short).await);
        assert!(reason.contains("no events from so long ago"), "{reason}");
    }
}
