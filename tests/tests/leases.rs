//! Posts as to an Alertmanager, through the real daemon: which of them are one alert, and when it
//! has resolved.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use sentinel_tests::containers::Container;
use sentinel_tests::daemon::{Daemon, count};
use serde_json::{Value, json};

const POSTS: &str = "/api/v2/alerts";

/// A policy that does nothing and waits for the alert to resolve.
const WATCH: &str = r#"
policies:
  - name: watch
    match: ['alertname="Script"']
    target: 'docker://local/infra-sentinel-none-{{ labels.c }}'
    mode: shadow
    steps: [{ plugin: hostile, params: { behaviour: changed, text: seen } }]
    verify: { docker: running, within: 2s }
    guards: { cooldown: 1s }
    grants:
      docker: { containers: ['infra-sentinel-none-*'], actions: [inspect] }
"#;

async fn post(daemon: &Daemon, alerts: Value) {
    let (status, answer) = daemon.post(POSTS, alerts.to_string()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
}

fn in_seconds(seconds: i64) -> String {
    (Timestamp::now() + SignedDuration::from_secs(seconds)).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_posts_again_and_again_is_one_alert() {
    let container = Container::nginx("script");
    let policy = format!(
        r#"
policies:
  - name: script
    match: ['alertname="Script"']
    target: 'docker://local/{name}'
    mode: auto
    steps: [{{ plugin: docker-restart, timeout: 30s }}]
    verify: {{ docker: running, within: 2s }}
    guards: {{ cooldown: 6s }}
    grants:
      docker: {{ containers: ['{name}'], actions: [inspect, list, logs, restart, start] }}
"#,
        name = container.name
    );
    let daemon = Daemon::start(&["docker-restart"], &policy).await;
    let begun = Instant::now();
    let mut n = 0_u32;
    // As long as the cooldown could have let go several times, and until a person was told.
    while begun.elapsed() < Duration::from_secs(24) || daemon.incidents().await.len() < 2 {
        let mut alert = json!({"labels": {"alertname": "Script", "c": "x"}});
        // As scripts do: without any time, or with one of their own making.
        if n % 2 == 1 {
            alert["startsAt"] = json!(in_seconds(0));
        }
        post(&daemon, json!([alert])).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        n += 1;
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "{}",
            daemon.log()
        );
    }
    let incidents = daemon.incidents().await;
    let mut restarts = 0;
    for id in 1..=incidents.len() as u64 {
        restarts += count(&daemon.incident(id).await, "effect-began");
    }
    assert_eq!(restarts, 1, "{incidents:#?}");
    assert_eq!(daemon.wait_end(1).await, "healed");
    assert_eq!(daemon.wait_end(2).await, "escalated");
    assert_eq!(daemon.incidents().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_whose_lease_is_over_has_resolved_though_nobody_says_so() {
    let mut daemon = Daemon::prepare(&["hostile"], WATCH);
    daemon.write_config("resolve_timeout: 3s\n");
    daemon.serve().await;
    let labels = |c: &str| json!({"alertname": "Script", "c": c});
    post(
        &daemon,
        json!([
            {"labels": labels("timeout")},
            {"labels": labels("renewed")},
            {"labels": labels("own-end"), "endsAt": in_seconds(4)},
        ]),
    )
    .await;
    for id in 1..=3 {
        daemon
            .wait_state(id, Duration::from_secs(20), |it| Some(it.clone()))
            .await;
    }
    // Two run out; the one that is told of again holds.
    let begun = Instant::now();
    let ended = async {
        let ends = [daemon.wait_end(1).await, daemon.wait_end(3).await];
        assert_eq!(ends, ["cleared", "cleared"]);
    };
    let renewed = async {
        loop {
            post(&daemon, json!([{"labels": labels("renewed")}])).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        () = ended => {}
        () = renewed => {}
    }
    assert!(begun.elapsed() < Duration::from_secs(30));
    let list = daemon.incidents().await;
    let target = |incident: &Value| incident["target"].as_str().unwrap_or_default().to_owned();
    let open: Vec<_> = list
        .iter()
        .filter(|it| it["ended_at"].is_null())
        .map(target)
        .collect();
    assert_eq!(
        open,
        ["docker://local/infra-sentinel-none-renewed"],
        "{list:#?}"
    );
    let incident = daemon.incident(1).await;
    assert_eq!(count(&incident, "effect-began"), 0);
    // It resolved, and then fires again: another episode.
    post(&daemon, json!([{"labels": labels("timeout")}])).await;
    daemon
        .wait_state(4, Duration::from_secs(20), |it| Some(it.clone()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_survives_a_restart() {
    let mut daemon = Daemon::start(&["hostile"], WATCH).await;
    let ends_at = Timestamp::now() + SignedDuration::from_secs(12);
    post(
        &daemon,
        json!([{"labels": {"alertname": "Script", "c": "x"}, "endsAt": ends_at.to_string()}]),
    )
    .await;
    daemon
        .wait_state(1, Duration::from_secs(10), |it| Some(it.clone()))
        .await;
    daemon.kill();
    daemon.serve().await;
    assert_eq!(daemon.wait_end(1).await, "cleared");
    let incident = daemon.incident(1).await;
    let events = incident["events"].as_array().expect("events");
    let last: Timestamp = events
        .last()
        .and_then(|event| event["at"].as_str())
        .expect("a time")
        .parse()
        .expect("a time");
    assert!(last >= ends_at, "{last} is before {ends_at}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_that_evaluate_one_rule_are_one_alert_and_one_end_ends_it() {
    let daemon = Daemon::start(&["hostile"], WATCH).await;
    let labels = json!({"alertname": "Script", "c": "x"});
    let minutes = |minutes: i64| in_seconds(60 * minutes);
    for start in [-10, -20, -5] {
        post(
            &daemon,
            json!([{"labels": labels, "startsAt": in_seconds(start), "endsAt": minutes(4)}]),
        )
        .await;
    }
    daemon
        .wait_state(1, Duration::from_secs(10), |it| Some(it.clone()))
        .await;
    let end = in_seconds(-1);
    post(
        &daemon,
        json!([{"labels": labels, "startsAt": in_seconds(-10), "endsAt": end}]),
    )
    .await;
    assert_eq!(daemon.wait_end(1).await, "cleared");
    // Another one that has not seen it yet.
    post(
        &daemon,
        json!([{"labels": labels, "startsAt": in_seconds(-20), "endsAt": minutes(4)}]),
    )
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(daemon.incidents().await.len(), 1);
}
