//! Real alerts, real plugins, real containers: what is broken is healed, once, and what
//! is healthy is left alone.

use std::time::Duration;

use sentinel_tests::containers::{Container, docker_ok};
use sentinel_tests::daemon::{Daemon, count, kinds};
use sentinel_tests::payload::Alert;

const BOTH: [&str; 2] = ["docker-restart", "ansible-playbook"];

/// Restarts the container that the alert names, and looks whether it runs.
const RESTART: &str = r#"
policies:
  - name: web-down
    match: ['alertname="WebDown"']
    target: 'docker://local/{{ labels.container }}'
    mode: auto
    steps:
      - plugin: docker-restart
        timeout: 30s
        attempts: 2
        backoff: 1s
    verify: { docker: running, within: 10s, steady: 0s }
    guards: { cooldown: 2s }
    grants:
      docker: { containers: ['infra-sentinel-test-*'], actions: [inspect, restart, start] }
"#;

fn down(container: &Container) -> Alert {
    Alert::firing("WebDown", &[("container", &container.name)])
}

async fn state(daemon: &Daemon, id: u64, state: &str) {
    daemon
        .wait_state(id, Duration::from_secs(20), |incident| {
            (incident["state"] == state).then_some(())
        })
        .await;
}

async fn healed(daemon: &Daemon, id: u64) {
    let end = daemon.wait_end(id).await;
    let incident = daemon.incident(id).await;
    assert_eq!(end, "healed", "{incident:#}\n{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_container_is_started() {
    let container = Container::nginx("stopped");
    docker_ok(&["stop", "-t", "0", &container.name]);
    let daemon = Daemon::start(&["docker-restart"], RESTART).await;
    daemon.deliver(&[down(&container)]).await;
    healed(&daemon, 1).await;
    assert_eq!(container.state(), "running");
    // The whole way can be read from the timeline, in order.
    let incident = daemon.incident(1).await;
    let kinds = kinds(&incident);
    let way = [
        "opened",
        "guards-passed",
        "run-started",
        "observed",
        "effect-began",
        "effect-ended",
        "run-ended",
        "verification-started",
        "verification-passed",
        "ended",
    ];
    let mut rest = kinds.iter();
    for step in way {
        assert!(
            rest.any(|kind| kind == step),
            "{step} in order in {kinds:?}"
        );
    }
    assert_eq!(count(&incident, "effect-began"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_container_is_started() {
    let container = Container::nginx("killed");
    docker_ok(&["kill", &container.name]);
    let daemon = Daemon::start(&["docker-restart"], RESTART).await;
    daemon.deliver(&[down(&container)]).await;
    healed(&daemon, 1).await;
    assert_eq!(container.state(), "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_container_is_restarted() {
    let container = Container::nginx("paused");
    docker_ok(&["pause", &container.name]);
    let daemon = Daemon::start(&["docker-restart"], RESTART).await;
    daemon.deliver(&[down(&container)]).await;
    healed(&daemon, 1).await;
    assert_eq!(container.state(), "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unhealthy_container_is_restarted_and_verified_by_its_health() {
    let container = Container::with_health("unhealthy");
    container.wait_health("healthy").await;
    let before = container.started_at();
    container.exec(&["rm", "/healthy"]);
    container.wait_health("unhealthy").await;
    let policies = RESTART.replace(
        "docker: running, within: 10s, steady: 0s",
        "docker: healthy, within: 20s, steady: 0s",
    );
    let daemon = Daemon::start(&["docker-restart"], &policies).await;
    daemon.deliver(&[down(&container)]).await;
    // What was wrong inside it is mended a moment after the restart.
    sentinel_tests::eventually("a restart", Duration::from_secs(20), || async {
        (container.started_at() != before).then_some(())
    })
    .await;
    container.exec(&["touch", "/healthy"]);
    healed(&daemon, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_container_is_left_alone() {
    let container = Container::with_health("healthy");
    container.wait_health("healthy").await;
    let before = container.started_at();
    let policies = RESTART.replace(
        "docker: running, within: 10s",
        "docker: healthy, within: 10s",
    );
    let daemon = Daemon::start(&["docker-restart"], &policies).await;
    let alert = down(&container);
    daemon.deliver(std::slice::from_ref(&alert)).await;
    state(&daemon, 1, "verifying").await;
    // It was so before, and nothing was done: that alone is no success.
    tokio::time::sleep(Duration::from_secs(1)).await;
    state(&daemon, 1, "verifying").await;
    daemon.deliver(&[alert.resolved()]).await;
    assert_eq!(daemon.wait_end(1).await, "cleared");
    let incident = daemon.incident(1).await;
    assert_eq!(count(&incident, "effect-began"), 0, "{incident:#}");
    assert_eq!(container.started_at(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_the_time_to_stop_that_it_asks_for() {
    // Longer than what a playbook or a plugin might think is enough.
    const FLUSHES: &str = "trap 'sleep 7; echo clean; exit 0' TERM; while :; do sleep 0.1; done";
    let playbook = RESTART
        .replace(
            "plugin: docker-restart",
            "plugin: ansible-playbook\n        params: { playbook: restart-container.yml }",
        )
        .replace(
            "    grants:",
            "    grants:\n      ansible: { playbooks: ['restart-container.yml'] }",
        );
    for policies in [RESTART, &playbook] {
        let container = Container::sh("flushes", FLUSHES, &["--stop-timeout", "30"]);
        let before = container.started_at();
        // Its trap may not be set yet.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let daemon = Daemon::start(&BOTH, policies).await;
        daemon.deliver(&[down(&container)]).await;
        healed(&daemon, 1).await;
        assert_ne!(container.started_at(), before);
        let said = docker_ok(&["logs", &container.name]);
        assert!(said.contains("clean"), "{policies}: {said}");
    }
}

/// A container that ends again and again, two seconds after each start.
const LOOPS: &str = "sleep 2; exit 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_is_not_healed_and_a_person_hears_of_it() {
    for (what, options, resolves) in [
        ("by its policy", &["--restart", "always"][..], false),
        ("by us alone", &[][..], false),
        (
            "while its alert resolves",
            &["--restart", "always"][..],
            true,
        ),
    ] {
        let container = Container::sh("loop", LOOPS, options);
        docker_ok(&["stop", "-t", "0", &container.name]);
        let policies = RESTART
            .replace("within: 10s, steady: 0s", "within: 6s, steady: 4s")
            .replace("attempts: 2", "attempts: 1");
        let daemon = Daemon::start(&["docker-restart"], &policies).await;
        let alert = down(&container);
        daemon.deliver(std::slice::from_ref(&alert)).await;
        state(&daemon, 1, "verifying").await;
        if resolves {
            daemon.deliver(&[alert.resolved()]).await;
        }
        assert_eq!(daemon.wait_end(1).await, "escalated", "{what}");
        let incident = daemon.incident(1).await;
        let reason = incident["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("not verified"), "{what}: {incident:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_resolve_restarts_nothing_and_is_told() {
    let container = Container::nginx("unknown");
    docker_ok(&["stop", "-t", "0", &container.name]);
    let policies = RESTART.replace(
        "docker: running, within: 10s, steady: 0s",
        "http: 'http://no-such-host.invalid/', within: 2s",
    );
    let daemon = Daemon::start(&["docker-restart"], &policies).await;
    daemon.deliver(&[down(&container)]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let incident = daemon.incident(1).await;
    assert_eq!(count(&incident, "effect-began"), 1, "{incident:#}");
    let reason = incident["reason"].as_str().unwrap_or_default();
    assert!(
        reason.starts_with("could not be verified: http://no-such-host.invalid/"),
        "{incident:#}"
    );
    assert_eq!(container.state(), "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolved_notification_for_a_running_container_does_nothing() {
    let container = Container::nginx("resolved");
    let before = container.started_at();
    let daemon = Daemon::start(&["docker-restart"], RESTART).await;
    daemon.deliver(&[down(&container).resolved()]).await;
    // Its firing notification comes late, as replicas of Alertmanager make it happen.
    let alert = down(&container);
    daemon.deliver(&[alert.resolved()]).await;
    daemon.deliver(&[alert]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(daemon.incidents().await.is_empty());
    assert_eq!(container.started_at(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_bring_one_restart() {
    let container = Container::nginx("repeats");
    docker_ok(&["stop", "-t", "0", &container.name]);
    let daemon = Daemon::start(&["docker-restart"], RESTART).await;
    let alert = down(&container);
    for _ in 0..20 {
        daemon.deliver(std::slice::from_ref(&alert)).await;
    }
    healed(&daemon, 1).await;
    let started = container.started_at();
    for _ in 0..20 {
        daemon.deliver(std::slice::from_ref(&alert)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(daemon.incidents().await.len(), 1);
    assert_eq!(container.started_at(), started);
    let effects = daemon
        .metric(r#"sentinel_effects_total{call="docker.start",result="ok"}"#)
        .await;
    assert!((effects - 1.0).abs() < 0.1, "{effects}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_episode_within_the_cooldown_is_held_and_then_healed() {
    let container = Container::nginx("cooldown");
    docker_ok(&["stop", "-t", "0", &container.name]);
    let daemon = Daemon::start(&["docker-restart"], RESTART).await;
    let alert = down(&container);
    daemon.deliver(std::slice::from_ref(&alert)).await;
    healed(&daemon, 1).await;
    docker_ok(&["stop", "-t", "0", &container.name]);
    daemon.deliver(&[alert.again()]).await;
    healed(&daemon, 2).await;
    let incident = daemon.incident(2).await;
    assert_eq!(count(&incident, "guard-held"), 1, "{incident:#}");
    assert_eq!(container.state(), "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_incident_at_a_time_acts_on_a_target() {
    let container = Container::nginx("locked");
    docker_ok(&["stop", "-t", "0", &container.name]);
    // Two policies for the same target; the first is slow to verify.
    let slow = RESTART
        .replace("web-down", "first")
        .replace(
            "docker: running, within: 10s, steady: 0s",
            "alert: resolved, within: 2s, steady: 0s",
        )
        .replace("attempts: 2", "attempts: 1");
    let second = RESTART
        .replace("policies:", "")
        .replace("web-down", "second");
    let daemon = Daemon::start(&["docker-restart"], &format!("{slow}{second}")).await;
    daemon.deliver(&[down(&container)]).await;
    daemon
        .wait_state(2, Duration::from_secs(5), |incident| {
            (incident["state"] == "held").then_some(())
        })
        .await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    healed(&daemon, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_first_step_fails_the_playbook_heals() {
    let container = Container::nginx("ladder");
    docker_ok(&["stop", "-t", "0", &container.name]);
    // The first step looks for a container that is not there.
    let policies = r#"
policies:
  - name: web-down
    match: ['alertname="WebDown"']
    target: 'docker://local/{{ labels.container }}'
    mode: auto
    steps:
      - plugin: docker-restart
        params: { container: infra-sentinel-test-nobody }
        timeout: 10s
      - plugin: ansible-playbook
        params: { playbook: restart-container.yml }
        timeout: 60s
    verify: { docker: running, within: 10s, steady: 0s }
    guards: { cooldown: 1s }
    grants:
      docker: { containers: ['infra-sentinel-test-*'], actions: [inspect, restart, start] }
      ansible: { playbooks: ['restart-container.yml'] }
"#;
    let daemon = Daemon::start(&BOTH, policies).await;
    daemon.deliver(&[down(&container)]).await;
    healed(&daemon, 1).await;
    assert_eq!(container.state(), "running");
    let incident = daemon.incident(1).await;
    assert_eq!(count(&incident, "run-started"), 2, "{incident:#}");
    // The playbook's own account is in the timeline.
    let playbook = incident["events"]
        .as_array()
        .unwrap()
        .iter()
        .find(|event| event["kind"] == "effect-ended" && event["name"] == "ansible.run")
        .unwrap();
    assert!(
        !playbook["lines"].as_array().unwrap().is_empty(),
        "{playbook:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ladder_that_is_used_up_ends_with_a_person() {
    let policies = RESTART.replace("attempts: 2", "attempts: 1");
    let daemon = Daemon::start(&["docker-restart"], &policies).await;
    let alert = Alert::firing("WebDown", &[("container", "infra-sentinel-test-nobody")]);
    daemon.deliver(&[alert]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let incident = daemon.incident(1).await;
    assert!(
        incident["reason"]
            .as_str()
            .unwrap()
            .contains("infra-sentinel-test-nobody"),
        "{incident:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_not_done() {
    let container = Container::nginx("denied");
    docker_ok(&["stop", "-t", "0", &container.name]);
    let policies = RESTART.replace("infra-sentinel-test-*", "somebody-elses-*");
    let daemon = Daemon::start(&["docker-restart"], &policies).await;
    // By name and by id: what it is counts, and not what it is called.
    let id = container.inspect("{{.Id}}");
    for (n, name) in [(1, container.name.clone()), (2, id)] {
        daemon
            .deliver(&[Alert::firing("WebDown", &[("container", &name)])])
            .await;
        assert_eq!(daemon.wait_end(n).await, "escalated");
        let incident = daemon.incident(n).await;
        assert_eq!(count(&incident, "effect-began"), 0, "{incident:#}");
        assert_eq!(count(&incident, "denied"), 1, "{incident:#}");
    }
    assert_eq!(container.state(), "exited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_does_not_fit_the_alert_goes_to_a_person() {
    let daemon = Daemon::start(&["docker-restart"], RESTART).await;
    daemon.deliver(&[Alert::firing("WebDown", &[])]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let incident = daemon.incident(1).await;
    assert!(
        incident["reason"].as_str().unwrap().contains("container"),
        "{incident:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_resolves_while_it_is_held_is_cleared() {
    let container = Container::nginx("cleared");
    docker_ok(&["stop", "-t", "0", &container.name]);
    let policies = RESTART.replace("cooldown: 2s", "cooldown: 1h");
    let daemon = Daemon::start(&["docker-restart"], &policies).await;
    let alert = down(&container);
    daemon.deliver(std::slice::from_ref(&alert)).await;
    healed(&daemon, 1).await;
    let before = container.started_at();
    let again = alert.again();
    daemon.deliver(std::slice::from_ref(&again)).await;
    daemon
        .wait_state(2, Duration::from_secs(5), |incident| {
            (incident["state"] == "held").then_some(())
        })
        .await;
    daemon.deliver(&[again.resolved()]).await;
    assert_eq!(daemon.wait_end(2).await, "cleared");
    assert_eq!(container.started_at(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_episode_in_the_delivery_that_ends_the_old_one_opens_its_own_incident() {
    let policies = r#"
policies:
  - name: says
    match: ['alertname="Says"']
    target: 'docker://local/infra-sentinel-test-says'
    mode: auto
    steps:
      - plugin: hostile
        params: { behaviour: changed, text: done }
    verify: { alert: resolved, within: 30s, steady: 0s }
    guards: { cooldown: 1s }
    grants:
      docker: { containers: ['infra-sentinel-test-*'], actions: [inspect] }
"#;
    let daemon = Daemon::start(&["hostile"], policies).await;
    let first = Alert::firing("Says", &[]);
    daemon.deliver(std::slice::from_ref(&first)).await;
    daemon
        .wait_state(1, Duration::from_secs(10), |incident| {
            (incident["state"] == "verifying").then_some(())
        })
        .await;
    let second = first.again();
    daemon.deliver(&[first.resolved(), second.clone()]).await;
    // The plugin said so, and nothing that it did is on record.
    assert_eq!(daemon.wait_end(1).await, "cleared");
    daemon
        .wait_state(2, Duration::from_secs(10), |incident| {
            (incident["state"] == "verifying").then_some(())
        })
        .await;
    daemon.deliver(&[second.resolved()]).await;
    assert_eq!(daemon.wait_end(2).await, "cleared");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cut_off_is_over_only_when_its_effect_is() {
    // It takes the whole grace to stop, which is longer than the run may take.
    let container = Container::stubborn("stubborn");
    let policies = RESTART
        .replace(
            "timeout: 30s",
            "timeout: 2s\n        params: { timeout: 5s }",
        )
        .replace("backoff: 1s", "backoff: 0s")
        .replace(
            "docker: running, within: 10s, steady: 0s",
            "alert: resolved, within: 1s, steady: 0s",
        );
    let daemon = Daemon::start(&["docker-restart"], &policies).await;
    let mut alert = down(&container);
    alert.starts_at = "2099-01-01T00:00:00Z".to_owned();
    daemon.deliver(&[alert]).await;
    daemon.wait_end(1).await;
    let incident = daemon.incident(1).await;
    let mut under_way = 0;
    for kind in kinds(&incident) {
        match kind.as_str() {
            "effect-began" => under_way += 1,
            "effect-ended" => under_way -= 1,
            "run-ended" | "ended" => assert_eq!(under_way, 0, "{incident:#}"),
            _ => {}
        }
        assert!(under_way <= 1, "{incident:#}");
    }
    assert!(count(&incident, "effect-began") >= 1, "{incident:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_its_place_is_not_made_when_its_alert_resolves() {
    let policies = r#"
policies:
  - name: slow
    match: ['alertname="Slow"']
    target: 'docker://local/infra-sentinel-test-{{ labels.n }}'
    mode: auto
    steps:
      - plugin: hostile
        params: { behaviour: slow-changed, ms: 1500 }
    verify: { alert: resolved, within: 1s, steady: 0s }
    grants:
      docker: { containers: ['infra-sentinel-test-*'], actions: [inspect] }
"#;
    let mut daemon = Daemon::prepare(&["hostile"], policies);
    daemon.set("SENTINEL_LIMITS_PLUGIN_RUNS", "1");
    daemon.serve().await;
    let alerts: Vec<Alert> = ["1", "2", "3"]
        .iter()
        .map(|n| Alert::firing("Slow", &[("n", n)]))
        .collect();
    daemon.deliver(&alerts).await;
    let [_, second, _] = &alerts[..] else {
        unreachable!()
    };
    daemon.deliver(&[second.resolved()]).await;
    assert_eq!(daemon.wait_end(2).await, "cleared");
    assert_eq!(count(&daemon.incident(2).await, "run-started"), 0);
    // The one behind it gets the place.
    assert_eq!(daemon.wait_end(1).await, "escalated");
    assert_eq!(daemon.wait_end(3).await, "escalated");
    assert_eq!(count(&daemon.incident(3).await, "run-started"), 1);
}
