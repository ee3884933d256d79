//! `sentinel explain`: why something was done, or was not.

use std::fs;
use std::time::Duration;

use sentinel_tests::containers::{Container, docker_ok};
use sentinel_tests::daemon::{Daemon, Said, said};
use sentinel_tests::payload::Alert;
use serde_json::{Value, json};

const POLICIES: &str = r#"
policies:
  - name: web-down
    match: ['alertname="WebDown"', 'severity=~"critical|page"']
    target: 'docker://local/{{ labels.container }}'
    mode: auto
    steps: [{ plugin: docker-restart }]
    verify: { docker: running, within: 10s, steady: 0s }
    guards: { cooldown: 1h }
    grants:
      docker: { containers: ['infra-sentinel-test-*'], actions: [inspect, restart, start] }
  - name: web-off
    match: ['alertname="WebDown"']
    target: 'docker://local/{{ labels.container }}'
    mode: off
    steps: [{ plugin: docker-restart }]
    grants:
      docker: { containers: ['infra-sentinel-test-*'], actions: [inspect, restart, start] }
"#;

fn explain(daemon: &Daemon, args: &[&str]) -> Said {
    said(&mut daemon.command(&[&["explain"], args].concat()))
}

fn contains(said: &Said, texts: &[&str]) {
    assert_eq!(said.code, 0, "{}", said.err);
    for text in texts {
        assert!(said.out.contains(text), "`{text}` in\n{}", said.out);
    }
}

/// What a guard says now in an explanation's JSON.
fn verdict(explanation: &Value, guard: &str) -> Value {
    let guards = explanation["now"][0]["guards"].as_array().expect("guards");
    let found = guards.iter().find(|one| one[0] == guard);
    found.expect("the guard")[1].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_names_its_reason() {
    let container = Container::nginx("explain");
    docker_ok(&["kill", &container.name]);
    let daemon = Daemon::start(&["docker-restart"], POLICIES).await;
    let labels = [
        ("severity", "critical"),
        ("container", container.name.as_str()),
    ];
    let first = Alert::firing("WebDown", &labels);
    daemon.deliver(std::slice::from_ref(&first)).await;
    assert_eq!(daemon.wait_end(1).await, "healed");

    // What was done, and that it would not be done again.
    let target = format!("web-down on docker://local/{}", container.name);
    let healed = explain(&daemon, &["1"]);
    contains(
        &healed,
        &[
            &format!("incident 1: {target}"),
            "healed, ",
            "every guard lets it through",
            "docker.start",
            "web-off   no: every matcher holds, but the policy is off",
            "it would be taken for a repetition of what led to incident 1",
        ],
    );

    // A new episode is held by the cooldown, and says until when.
    daemon.deliver(&[first.resolved()]).await;
    docker_ok(&["kill", &container.name]);
    daemon.deliver(&[first.again()]).await;
    let held = |incident: &Value| (incident["state"] == "held").then_some(());
    daemon.wait_state(2, Duration::from_secs(30), held).await;
    for name in ["2", "WebDown", &first.fingerprint, r#"severity="critical""#] {
        contains(
            &explain(&daemon, &[name]),
            &[
                &target,
                "it would count for incident 2, which is open",
                "cooldown      holds until",
                "=> it may be acted on from",
                "in 59m",
                "let it pass   pause, maintenance, breaker, target-lock",
            ],
        );
    }
    contains(&explain(&daemon, &["2"]), &["held by cooldown until"]);
    let json = explain(&daemon, &["2", "--output", "json"]).json();
    assert_eq!(json["incident"]["row"]["id"], 2);
    assert_eq!(json["now"][0]["course"], "joins");
    assert_eq!(verdict(&json, "cooldown")["verdict"], "hold");
    assert_eq!(verdict(&json, "target-lock")["verdict"], "pass");

    // The stop switch comes first, and nobody knows when it is released.
    let paused =
        said(&mut daemon.command(&["pause", "--all", "--reason", "upgrade", "--by", "ann"]));
    assert_eq!(paused.code, 0, "{}", paused.err);
    contains(
        &explain(&daemon, &["WebDown"]),
        &[
            "pause         holds: ann paused everything: upgrade",
            "=> it may be acted on when it is resumed",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_nothing_is_done_about_is_explained() {
    let daemon = Daemon::start(&["docker-restart"], POLICIES).await;
    let warning = Alert::firing("WebDown", &[("severity", "warning"), ("container", "web")]);
    let page = Alert::firing("WebDown", &[("severity", "page")]);
    daemon.deliver(std::slice::from_ref(&warning)).await;
    contains(
        &explain(&daemon, &[&warning.fingerprint]),
        &[
            r#"web-down  no: severity=~"critical|page" does not hold, severity is "warning""#,
            "no policy is for this alert",
            "led to    no incident",
        ],
    );
    // A template that does not fit.
    daemon.deliver(&[page]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    contains(
        &explain(&daemon, &["1"]),
        &["yes, but it does not fit", "container"],
    );
    // The newest is meant, and the others are named.
    contains(
        &explain(&daemon, &["WebDown"]),
        &[
            r#"severity="page""#,
            "1 older alert that fit as well",
            &warning.fingerprint,
        ],
    );
}

#[test]
fn an_alert_that_never_came_is_explained_without_a_journal() {
    let daemon = Daemon::prepare(&[], POLICIES);
    let file = daemon.path("alert.json");
    let alert = json!({"labels": {"alertname": "WebDown", "severity": "page", "container": "web"}});
    fs::write(&file, alert.to_string()).expect("a file");
    let file = file.display().to_string();
    contains(
        &explain(&daemon, &[&file]),
        &[
            "told      never",
            "web-down  yes: docker://local/web, mode auto",
            "test.yaml:3:5",
            "it would open an incident",
            "=> no guard is in the way of acting on it",
        ],
    );
    fs::write(&file, "{\"label\": {}}").expect("a file");
    let wrong = explain(&daemon, &[&file]);
    assert_eq!(wrong.code, 1);
    assert!(
        wrong.err.contains("missing field `labels`"),
        "{}",
        wrong.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_are_refused() {
    let nothing = Daemon::prepare(&[], POLICIES);
    let no_journal = explain(&nothing, &["1"]);
    assert_eq!(no_journal.code, 1);
    assert!(
        no_journal.err.contains("there is no journal"),
        "{}",
        no_journal.err
    );

    let daemon = Daemon::start(&["docker-restart"], POLICIES).await;
    for (what, code, says) in [
        ("7", 1, "there is no incident 7"),
        ("NoSuchAlert", 1, "knows no alert `NoSuchAlert`"),
        (r#"severity=~"[""#, 1, "are not valid"),
        ("missing.json", 1, "missing.json"),
    ] {
        let said = explain(&daemon, &[what]);
        assert_eq!(said.code, code, "{what}: {}", said.err);
        assert!(said.err.contains(says), "{what}: {}", said.err);
        assert!(
            said.err.contains("hint:") || what == "missing.json",
            "{what}: {}",
            said.err
        );
    }
    assert_eq!(explain(&daemon, &[]).code, 2);
    // Policies that cannot be read explain nothing.
    daemon.write_policies("policies: [{ name: web }]");
    let mistake = explain(&daemon, &["WebDown"]);
    assert_eq!(mistake.code, 1);
    assert!(mistake.err.contains("test.yaml:1:"), "{}", mistake.err);
}
