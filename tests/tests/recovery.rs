//! `kill -9` at any moment: what was accepted is there, what had begun goes on.

use std::time::Duration;

use sentinel_tests::containers::{Container, docker_ok};
use sentinel_tests::daemon::{Daemon, count};
use sentinel_tests::payload::Alert;

fn restart(cooldown: &str) -> String {
    format!(
        r#"
policies:
  - name: web-down
    match: ['alertname="WebDown"']
    target: 'docker://local/{{{{ labels.container }}}}'
    mode: auto
    steps:
      - plugin: docker-restart
    verify: {{ docker: running, within: 10s, steady: 0s }}
    guards: {{ cooldown: {cooldown} }}
    grants:
      docker: {{ containers: ['infra-sentinel-test-*'], actions: [inspect, restart, start] }}
"#
    )
}

/// A run that takes its time.
fn slow(on_interrupt: &str) -> String {
    format!(
        r#"
policies:
  - name: slow
    match: ['alertname="Slow"']
    target: 'docker://local/infra-sentinel-test-slow'
    mode: auto
    steps:
      - plugin: hostile
        params: {{ behaviour: slow-changed, ms: 3000 }}
        on_interrupt: {on_interrupt}
    verify: {{ alert: resolved, within: 30s, steady: 0s }}
    guards: {{ cooldown: 1s }}
    grants:
      docker: {{ containers: ['infra-sentinel-test-*'], actions: [inspect] }}
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_acceptance_and_before_the_run_it_heals_after_the_restart() {
    let container = Container::nginx("recovery");
    docker_ok(&["stop", "-t", "0", &container.name]);
    let mut daemon = Daemon::start(&["docker-restart"], &restart("4s")).await;
    let alert = Alert::firing("WebDown", &[("container", &container.name)]);
    daemon.deliver(std::slice::from_ref(&alert)).await;
    assert_eq!(daemon.wait_end(1).await, "healed");
    // The next episode is accepted and held, so its run cannot have begun.
    docker_ok(&["stop", "-t", "0", &container.name]);
    daemon.deliver(&[alert.again()]).await;
    daemon
        .wait_state(2, Duration::from_secs(5), |incident| {
            (incident["state"] == "held").then_some(())
        })
        .await;
    daemon.kill();
    assert_eq!(container.state(), "exited");
    daemon.serve().await;
    assert_eq!(daemon.wait_end(2).await, "healed");
    assert_eq!(container.state(), "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_right_after_the_answer_nothing_is_lost() {
    let mut daemon = Daemon::start(&["docker-restart"], &restart("1s")).await;
    let mut accepted = 0_u64;
    for round in 0..5 {
        let alerts: Vec<Alert> = (0..20)
            .map(|n| {
                let name = format!("infra-sentinel-test-none-{round}-{n}");
                Alert::firing("WebDown", &[("container", &name)])
            })
            .collect();
        daemon.deliver(&alerts).await;
        accepted += 20;
        daemon.kill();
        daemon.serve().await;
    }
    // Each has led to its incident, whichever daemon made it, and each comes to an end.
    for id in 1..=accepted {
        daemon.wait_end(id).await;
    }
    let list = daemon.json("/api/v1/incidents?limit=1000").await;
    let mut targets: Vec<&str> = list["incidents"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|incident| incident["target"].as_str())
        .collect();
    assert_eq!(targets.len() as u64, accepted);
    targets.sort_unstable();
    targets.dedup();
    assert_eq!(targets.len() as u64, accepted, "each target once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_cut_off_goes_on_from_its_record() {
    let mut daemon = Daemon::start(&["hostile"], &slow("escalate")).await;
    let alert = Alert::firing("Slow", &[]);
    daemon.deliver(std::slice::from_ref(&alert)).await;
    running(&daemon).await;
    daemon.kill();
    daemon.serve().await;
    daemon
        .wait_state(1, Duration::from_secs(20), |incident| {
            (incident["state"] == "verifying").then_some(())
        })
        .await;
    daemon.deliver(&[alert.resolved()]).await;
    daemon.wait_end(1).await;
    let incident = daemon.incident(1).await;
    assert_eq!(count(&incident, "run-resumed"), 1, "{incident:#}");
    assert_eq!(count(&incident, "run-interrupted"), 0, "{incident:#}");
    assert_eq!(count(&incident, "run-started"), 1, "{incident:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_takes_the_daemon_down_goes_to_a_person() {
    let mut daemon = Daemon::start(&["hostile"], &slow("escalate")).await;
    daemon.deliver(&[Alert::firing("Slow", &[])]).await;
    for _ in 0..3 {
        running(&daemon).await;
        daemon.kill();
        daemon.serve().await;
    }
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let incident = daemon.incident(1).await;
    assert_eq!(count(&incident, "run-resumed"), 2, "{incident:#}");
    assert_eq!(count(&incident, "run-interrupted"), 1, "{incident:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_the_run_and_the_next_start_goes_on() {
    let mut daemon = Daemon::start(&["hostile"], &slow("escalate")).await;
    let alert = Alert::firing("Slow", &[]);
    daemon.deliver(std::slice::from_ref(&alert)).await;
    running(&daemon).await;
    daemon.terminate();
    assert!(daemon.wait().success());
    daemon.serve().await;
    let incident = daemon.incident(1).await;
    assert_eq!(count(&incident, "run-interrupted"), 0, "{incident:#}");
    assert_eq!(incident["state"], "verifying");
    daemon.deliver(&[alert.resolved()]).await;
    daemon.wait_end(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_served_last_serves_on_when_the_folders_hold_something_bad_at_the_start() {
    let container = Container::nginx("last-good");
    docker_ok(&["stop", "-t", "0", &container.name]);
    let mut daemon = Daemon::start(&["docker-restart"], &restart("1s")).await;
    daemon.kill();
    daemon.write_policies("policies: [");
    daemon.install_bytes("docker-restart.wasm", b"not a plugin");
    daemon.serve().await;
    let status = daemon.json("/api/v1/status").await;
    assert_eq!(
        status["problems"].as_array().unwrap().len(),
        2,
        "{status:#}"
    );
    daemon
        .deliver(&[Alert::firing("WebDown", &[("container", &container.name)])])
        .await;
    assert_eq!(daemon.wait_end(1).await, "healed");
}

async fn running(daemon: &Daemon) {
    daemon
        .wait_state(1, Duration::from_secs(10), |incident| {
            (incident["state"] == "running").then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_of_a_playbook_leaves_nothing_running() {
    let policies = r#"
policies:
  - name: play
    match: ['alertname="Play"']
    target: 'docker://local/infra-sentinel-test-play'
    mode: auto
    steps:
      - plugin: ansible-playbook
        params: { playbook: sleep.yml }
    grants:
      docker: { containers: ['infra-sentinel-test-*'], actions: [restart] }
      ansible: { playbooks: ['sleep.yml'] }
"#;
    let mut daemon = Daemon::prepare(&["ansible-playbook"], policies);
    // A time that tells this test's process from all others.
    let sleep = format!("{}.5", 1000 + std::process::id());
    let playbook = format!(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - ansible.builtin.command: sleep {sleep}\n"
    );
    std::fs::write(daemon.path("playbooks").join("sleep.yml"), playbook).unwrap();
    daemon.set("SENTINEL_SHUTDOWN_GRACE", "1s");
    daemon.serve().await;
    daemon.deliver(&[Alert::firing("Play", &[])]).await;
    let words = format!("sleep\0{sleep}\0");
    let sleeping = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
            .any(|line| line == words.as_bytes())
    };
    sentinel_tests::eventually("the playbook sleeps", Duration::from_secs(30), || async {
        sleeping().then_some(())
    })
    .await;
    daemon.terminate();
    assert!(daemon.wait().success());
    assert!(!sleeping(), "nothing is left of the playbook");
}
