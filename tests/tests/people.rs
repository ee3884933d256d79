//! Whoever waits for a person tells one, and a policy that changes counts for what is open:
//! through the real daemon, with real containers and something that listens.

use std::time::Duration;

use sentinel_tests::containers::{Container, docker_ok};
use sentinel_tests::daemon::{Daemon, count, said};
use sentinel_tests::eventually;
use sentinel_tests::payload::Alert;
use sentinel_tests::receiver::{Receiver, Told};
use serde_json::Value;

const PLUGINS: [&str; 2] = ["docker-restart", "notify"];

/// Restarts the container that the alert names, and tells `hears`; `more` says the rest.
fn policy(hears: &Receiver, params: &str, more: &str) -> String {
    let url = hears.url("/hook");
    format!(
        r#"
policies:
  - name: web-down
    match: ['alertname="WebDown"']
    target: 'docker://local/{{{{ labels.container }}}}'
    steps: [{{ plugin: docker-restart, timeout: 30s }}]
    verify: {{ docker: running, within: 10s, steady: 0s, every: 100ms }}
    grants:
      docker: {{ containers: ['infra-sentinel-test-*'], actions: [inspect, restart, start] }}
      http: {{ urls: ['{url}'], methods: [POST] }}
    escalate: {{ plugin: notify, params: {{ kind: webhook, url: '{url}'{params} }}, timeout: 20s, held_after: 1s }}
{more}
"#
    )
}

fn down(container: &str) -> Alert {
    Alert::firing("WebDown", &[("container", container)])
}

fn stopped(base: &str) -> Container {
    let container = Container::nginx(base);
    docker_ok(&["stop", "-t", "0", &container.name]);
    container
}

async fn state(daemon: &Daemon, id: u64, state: &str) -> Value {
    daemon
        .wait_state(id, Duration::from_secs(60), |incident| {
            (incident["state"] == state).then(|| incident.clone())
        })
        .await
}

/// The first incident once so many of its runs have ended.
async fn runs(daemon: &Daemon, ended: usize) -> Value {
    daemon
        .wait_state(1, Duration::from_secs(60), |incident| {
            (count(incident, "run-ended") == ended).then(|| incident.clone())
        })
        .await
}

/// What came, once so much has.
async fn heard(hears: &Receiver, count: usize) -> Vec<Value> {
    let told = || async { (hears.told().len() >= count).then_some(()) };
    eventually("somebody is told", Duration::from_secs(60), told).await;
    hears.told().iter().map(Told::json).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_alert_that_does_not_fit_somebody_hears_with_what_fits() {
    let hears = Receiver::new(|_| 200).await;
    // The one param needs a label that is missing, the other takes none of its values.
    let params = ", message: 'of {{ labels.team }}', severity: '{{ labels.bad }}'";
    let daemon = Daemon::start(&PLUGINS, &policy(&hears, params, "    mode: auto")).await;
    let misfit = Alert::firing("WebDown", &[("container", "a/b"), ("bad", "P1")]);
    daemon.deliver(&[misfit]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let told = heard(&hears, 1).await;
    assert_eq!(told[0]["kind"], "escalation");
    let reason = told[0]["reason"].as_str().unwrap();
    assert!(reason.contains("does not fit the alert"), "{reason}");
    assert_eq!(told[0]["message"], Value::Null);
    let incident = daemon.incident(1).await;
    assert_eq!(count(&incident, "untold"), 0, "{incident:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_can_be_told_the_log_and_a_metric_say_so() {
    let hears = Receiver::new(|_| 404).await;
    let daemon = Daemon::start(&PLUGINS, &policy(&hears, "", "    mode: auto")).await;
    daemon.deliver(&[down("infra-sentinel-test-nothing")]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let incident = daemon.incident(1).await;
    assert_eq!(count(&incident, "untold"), 1, "{incident:#}");
    daemon.wait_log("nobody was told of an incident").await;
    let metric = "sentinel_incidents_untold_total{policy=\"web-down\",why=\"failed\"}";
    assert!((daemon.metric(metric).await - 1.0).abs() < 0.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_is_made_auto_heals_what_fires_now() {
    let container = stopped("promoted");
    let hears = Receiver::new(|_| 200).await;
    let mut daemon = Daemon::start(&PLUGINS, &policy(&hears, "", "")).await;
    daemon.deliver(&[down(&container.name)]).await;
    state(&daemon, 1, "watching").await;
    daemon.write_policies(&policy(&hears, "", "    mode: auto"));
    assert_eq!(daemon.wait_end(1).await, "healed");
    assert_eq!(container.state(), "running");
    let incident = daemon.incident(1).await;
    assert_eq!(count(&incident, "policy-changed"), 1, "{incident:#}");
    let explained = said(&mut daemon.command(&["explain", "1"]));
    assert!(
        explained
            .out
            .contains("when the policy was changed and nothing had been done"),
        "{}",
        explained.out
    );

    // The same while nobody looks: the policy is changed when the daemon is down.
    let other = stopped("promoted-later");
    daemon.write_policies(&policy(&hears, "", ""));
    daemon.deliver(&[down(&other.name)]).await;
    // It may have been taken in under the one or the other: only the shadow is of use here.
    let incident = daemon
        .wait_state(2, Duration::from_secs(60), |incident| {
            ["watching", "healed"]
                .contains(&incident["state"].as_str().unwrap())
                .then(|| incident.clone())
        })
        .await;
    if incident["state"] == "watching" {
        daemon.terminate();
        daemon.wait();
        daemon.write_policies(&policy(&hears, "", "    mode: auto"));
        daemon.serve().await;
        assert_eq!(daemon.wait_end(2).await, "healed");
    }
    assert_eq!(other.state(), "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_told_let_go_by_a_change_and_told_to_be_over() {
    let container = stopped("window");
    let hears = Receiver::new(|_| 200).await;
    let window = "    mode: auto\n    guards: { maintenance: [{ from: 2020-01-01T00:00:00Z, to: 2090-01-01T00:00:00Z }] }";
    let mut daemon = Daemon::start(&PLUGINS, &policy(&hears, "", window)).await;
    let alert = down(&container.name);
    daemon.deliver(std::slice::from_ref(&alert)).await;
    state(&daemon, 1, "held").await;
    let told = heard(&hears, 1).await;
    assert_eq!(told[0]["kind"], "held");
    let reason = told[0]["reason"].as_str().unwrap();
    assert!(reason.contains("maintenance"), "{reason}");
    // One that is cut off while it tells is told once more.
    runs(&daemon, 1).await;
    daemon.kill();
    daemon.serve().await;
    daemon.write_policies(&policy(&hears, "", "    mode: auto"));
    assert_eq!(daemon.wait_end(1).await, "healed");
    assert_eq!(container.state(), "running");
    let told = heard(&hears, 2).await;
    assert_eq!(told[1]["kind"], "end");
    // The end of the alert is no news after that.
    runs(&daemon, 3).await;
    daemon.deliver(&[alert.resolved()]).await;
    daemon.wait_log("there is nothing to do").await;
    assert_eq!(hears.told().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_waits_is_told_with_the_command_that_approves_it() {
    let container = stopped("waits");
    let hears = Receiver::new(|_| 200).await;
    let daemon = Daemon::start(&PLUGINS, &policy(&hears, "", "    mode: approve")).await;
    daemon.deliver(&[down(&container.name)]).await;
    let incident = state(&daemon, 1, "awaiting-approval").await;
    let told = heard(&hears, 1).await;
    assert_eq!(told[0]["kind"], "approval");
    let command = told[0]["commands"]["decide"].as_str().unwrap();
    let words: Vec<_> = command.split(' ').skip(1).collect();
    assert_eq!(words[..2], ["approve", "1"]);
    assert!((daemon.metric("sentinel_plans_waiting").await - 1.0).abs() < 0.1);
    daemon.wait_log("a plan waits for approval").await;
    // A dry run says what it would do, and not that it did.
    let shown = said(&mut daemon.command(&["incidents", "show", "1"]));
    assert!(shown.out.contains("it would say: "), "{}", shown.out);
    assert!(!shown.out.contains("run 1.1 changed"), "{}", shown.out);
    assert!(incident["plan"]["since"].is_string());

    let mut approve = daemon.command(&words);
    let said = said(approve.env("USER", "ann"));
    assert!(
        said.out.contains("is carried out"),
        "{} {}",
        said.out,
        said.err
    );
    assert_eq!(daemon.wait_end(1).await, "healed");
    let told = heard(&hears, 2).await;
    assert_eq!(told[1]["kind"], "end");
    assert!(daemon.metric("sentinel_plans_waiting").await.abs() < 0.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_told_of_an_escalation_is_told_of_its_end_once_whatever_happens_between() {
    let hears = Receiver::new(|_| 200).await;
    let mut daemon = Daemon::start(&PLUGINS, &policy(&hears, "", "    mode: auto")).await;
    let alert = down("infra-sentinel-test-nothing");
    daemon.deliver(std::slice::from_ref(&alert)).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    assert_eq!(heard(&hears, 1).await[0]["kind"], "escalation");
    daemon.kill();
    daemon.serve().await;
    daemon.deliver(&[alert.resolved()]).await;
    let told = heard(&hears, 2).await;
    assert_eq!(told[1]["kind"], "end");
    assert_eq!(told[1]["reason"], "the alert resolved");
    assert_eq!(runs(&daemon, 3).await["state"], "escalated");
    daemon.deliver(&[alert.resolved()]).await;
    daemon.kill();
    daemon.serve().await;
    daemon.deliver(&[alert.resolved()]).await;
    daemon.wait_log("there is nothing to do").await;
    assert_eq!(hears.told().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_switch_stops_what_acts_and_not_what_tells() {
    let container = stopped("paused");
    let hears = Receiver::new(|_| 200).await;
    let daemon = Daemon::start(&PLUGINS, &policy(&hears, "", "    mode: auto")).await;
    let mut pause = daemon.command(&["pause", "--all", "--reason", "a test"]);
    said(pause.env("USER", "ann"));
    daemon.deliver(&[down(&container.name)]).await;
    state(&daemon, 1, "held").await;
    let told = heard(&hears, 1).await;
    assert_eq!(told[0]["kind"], "held");
    assert_eq!(container.state(), "exited");
}
