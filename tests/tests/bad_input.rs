//! What a user can get wrong: each has a clear answer and an exit code, and loses nothing.

use std::process::Output;
use std::time::Duration;

use sentinel_tests::containers::docker_ok;
use sentinel_tests::daemon::{Daemon, count};
use sentinel_tests::payload::Alert;
use serde_json::Value;

const GOOD: &str = r#"
policies:
  - name: web-down
    match: ['alertname="WebDown"']
    target: 'docker://local/{{ labels.container | default("web") }}'
    mode: auto
    steps:
      - plugin: docker-restart
        timeout: 5s
    verify: { docker: running, within: 1s, steady: 0s }
    guards: { cooldown: 1s }
    grants:
      docker: { containers: ['web*'], actions: [inspect, restart, start] }
"#;

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn check(daemon: &Daemon) -> (i32, String) {
    let output = daemon.command(&["check"]).output().unwrap();
    (output.status.code().unwrap_or(-1), text(&output))
}

#[test]
fn a_good_folder_is_good() {
    let daemon = Daemon::prepare(&["docker-restart", "ansible-playbook"], GOOD);
    let (code, said) = check(&daemon);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("all good: 2 plugins and 1 policy"), "{said}");
}

#[test]
fn a_policy_that_only_watches_is_checked_like_one_that_acts() {
    let watching = GOOD.replace("    mode: auto\n", "");
    assert_ne!(watching, GOOD);
    let (code, said) = check(&Daemon::prepare(&["docker-restart"], &watching));
    assert_eq!(code, 0, "{said}");
    let granting_less = watching.replace("[inspect, restart, start]", "[inspect, start]");
    let (code, said) = check(&Daemon::prepare(&["docker-restart"], &granting_less));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("docker.restart"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotes_that_are_part_of_a_matcher_are_noted_and_serve() {
    let quoted = GOOD.replace(r#"'alertname="WebDown"'"#, r#""alertname='WebDown'""#);
    assert_ne!(quoted, GOOD);
    let mut daemon = Daemon::prepare(&["docker-restart"], &quoted);
    let (code, said) = check(&daemon);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("note: "), "{said}");
    assert!(said.contains(r#"write 'alertname="WebDown"'"#), "{said}");
    daemon.serve().await;
    daemon.wait_log("the quotes are part of what").await;
}

#[test]
fn each_mistake_in_a_policy_is_told_with_its_place() {
    let cases = [
        (
            "a key that is misspelt",
            "cooldown:",
            "cooldwn:",
            "cooldown",
        ),
        ("an unknown mode", "mode: auto", "mode: automatic", "auto"),
        (
            "nothing to approve",
            "mode: auto",
            "mode: auto\n    approval: { people: 2 }",
            "mode: approve",
        ),
        ("a bad window", "cooldown: 1s", "rate: 6 an hour", "6/1h"),
        (
            "a guard by another name",
            "cooldown: 1s",
            "circuit_breaker: {}",
            "`breaker`",
        ),
        (
            "a fleet on an unknown host",
            "cooldown: 1s",
            "blast_radius: { max: 25%, of: { host: prod, labels: { app: web } } }",
            "prod",
        ),
        (
            "an unknown zone",
            "cooldown: 1s",
            "maintenance: [{ from: '22:00', to: '06:00', zone: Europe/Berlni }]",
            "Europe/Berlin",
        ),
        (
            "a condition on no step",
            "timeout: 5s",
            "when: { on: [retryable] }",
            "first step",
        ),
        (
            "an unknown plugin to tell",
            "mode: auto",
            "mode: auto\n    escalate: { plugin: docker-restrat }",
            "docker-restart",
        ),
        (
            "a bad duration",
            "timeout: 5s",
            "timeout: five seconds",
            "five seconds",
        ),
        (
            "a zero cooldown",
            "cooldown: 1s",
            "cooldown: 0s",
            "cooldown",
        ),
        (
            "a bad matcher",
            "alertname=\"WebDown\"",
            "alertname~WebDown",
            "alertname~WebDown",
        ),
        (
            "a bad regular expression",
            "alertname=\"WebDown\"",
            "alertname=~\"[\"",
            "[",
        ),
        (
            "an open template",
            "default(\"web\") }}",
            "default(\"web\") }",
            "template",
        ),
        (
            "an unknown plugin",
            "plugin: docker-restart",
            "plugin: docker-restrat",
            "docker-restart",
        ),
        (
            "a missing grant",
            "[inspect, restart, start]",
            "[inspect, start]",
            "docker.restart",
        ),
        (
            "an unknown action",
            "[inspect, restart, start]",
            "[inspect, reboot]",
            "reboot",
        ),
        (
            "an unknown param",
            "timeout: 5s",
            "params: { contianer: web }",
            "contianer",
        ),
        ("a wrong type", "timeout: 5s", "attempts: many", "attempts"),
        (
            "no steps",
            "steps:\n      - plugin: docker-restart\n        timeout: 5s",
            "steps: []",
            "steps",
        ),
        (
            "an unknown host",
            "docker://local/",
            "docker://lokal/",
            "lokal",
        ),
        ("broken YAML", "policies:", "policies: [", "YAML"),
    ];
    for (what, from, to, says) in cases {
        let policies = GOOD.replace(from, to);
        assert_ne!(policies, GOOD, "{what}");
        let daemon = Daemon::prepare(&["docker-restart"], &policies);
        let (code, said) = check(&daemon);
        assert_eq!(code, 1, "{what}: {said}");
        assert!(said.contains("test.yaml:"), "{what} says where: {said}");
        assert!(said.contains(says), "{what} says `{says}`: {said}");
        let json = daemon
            .command(&["check", "--output", "json"])
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(report["ok"], false, "{what}");
        assert!(
            report["problems"][0]["line"].as_u64().is_some(),
            "{what}: {report:#}"
        );
    }
}

#[test]
fn a_bad_plugin_file_is_told() {
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("empty", Vec::new(), "empty"),
        ("not wasm", b"#!/bin/sh".to_vec(), "WebAssembly"),
        ("a core module", b"\0asm\x01\0\0\0".to_vec(), "core module"),
        (
            "an empty component",
            b"\0asm\x0d\0\x01\0".to_vec(),
            "describe",
        ),
    ];
    for (what, bytes, says) in cases {
        let daemon = Daemon::prepare(&[], "");
        daemon.install_bytes("bad.wasm", &bytes);
        let (code, said) = check(&daemon);
        assert_eq!(code, 1, "{what}: {said}");
        assert!(
            said.contains("bad.wasm") && said.contains(says),
            "{what}: {said}"
        );
        let file = daemon.path("plugins").join("bad.wasm");
        let output = daemon
            .command(&["plugin", "inspect", file.to_str().unwrap()])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{what}");
        assert!(text(&output).contains(says), "{what}: {}", text(&output));
    }
}

#[test]
fn a_daemon_with_bad_files_and_no_earlier_ones_does_not_start() {
    let daemon = Daemon::prepare(
        &["docker-restart"],
        &GOOD.replace("mode: auto", "mode: autom"),
    );
    let output = daemon.command(&["serve"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    assert!(
        text(&output).contains("sentinel check"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_bad_configuration_is_told_with_its_place() {
    for (more, says) in [
        ("lisen: 127.0.0.1:1\n", "lisen"),
        ("limits: { plugin: { memory: lots } }\n", "lots"),
        ("limits: { plugin: { cpu: 0s } }\n", "limits.plugin.cpu"),
        (
            "limits: { plugin: { memory: 1KiB } }\n",
            "limits.plugin.memory",
        ),
        ("docker: { hosts: { local: 'ftp://x' } }\n", "ftp"),
        ("limits: { guards: { total_rate: 0/1h } }\n", "0/1h"),
        ("limits: { incidents: 0 }\n", "limits.incidents"),
        (
            "maintenance: [{ from: '22:00', to: '06:00', zone: Mars }]\n",
            "Mars",
        ),
        ("alertmanager: { url: am }\n", "alertmanager.url"),
    ] {
        let daemon = Daemon::prepare(&[], "");
        daemon.write_config(more);
        for command in ["serve", "check"] {
            let output = daemon.command(&[command]).output().unwrap();
            let code = if command == "serve" { 78 } else { 1 };
            assert_eq!(output.status.code(), Some(code), "{more} {}", text(&output));
            assert!(text(&output).contains(says), "{more}: {}", text(&output));
        }
    }
    let mut daemon = Daemon::prepare(&[], "");
    daemon.set("SENTINEL_LISTEN", "nowhere");
    let output = daemon.command(&["check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("SENTINEL_LISTEN"),
        "{}",
        text(&output)
    );
    for (level, says) in [("loud", "loud"), ("sentinel=foo=bar", "foo")] {
        let mut daemon = Daemon::prepare(&[], "");
        daemon.set("SENTINEL_LOG_LEVEL", level);
        let output = daemon.command(&["check"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(says), "{}", text(&output));
    }
    std::fs::remove_file(daemon.path("sentinel.yaml")).unwrap();
    let output = daemon.command(&["check"]).output().unwrap();
    assert!(text(&output).contains("--config"), "{}", text(&output));
}

#[test]
fn a_folder_that_is_misspelt_is_told_and_not_made() {
    for key in ["SENTINEL_PLUGINS_DIR", "SENTINEL_POLICIES_DIR"] {
        let mut daemon = Daemon::prepare(&[], "");
        daemon.set(key, daemon.path("nowhere").to_str().unwrap());
        let output = daemon.command(&["serve"]).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{}", text(&output));
        assert!(text(&output).contains("nowhere"), "{}", text(&output));
        let (code, said) = check(&daemon);
        assert_eq!(code, 1, "{said}");
        assert!(!daemon.path("nowhere").exists());
    }
}

#[test]
fn a_playbook_that_is_not_there_or_not_granted_is_told_at_once() {
    let policies = r#"
policies:
  - name: play
    match: ['alertname="Play"']
    target: 'docker://local/web'
    mode: auto
    steps:
      - plugin: ansible-playbook
        params: { playbook: restart-container.yml }
    grants:
      docker: { containers: [web], actions: [restart] }
      ansible: { playbooks: ['restart-*.yml'] }
"#;
    for (from, to, says) in [
        ("", "", "all good"),
        (
            "restart-container.yml",
            "restart-containr.yml",
            "restart-containr.yml",
        ),
        ("['restart-*.yml']", "['other-*.yml']", "other-*.yml"),
        (
            "actions: [restart]",
            "actions: [inspect]",
            "of docker the policy grants no action that changes something",
        ),
        (
            "restart-container.yml }",
            "restart-container.yml, vars: { stop_timeout: 9, container: other }, tags: [x], limit: 'web*' }",
            "vars: { stop_timeout: '9' }",
        ),
    ] {
        let daemon = Daemon::prepare(&["ansible-playbook"], &policies.replace(from, to));
        let (code, said) = check(&daemon);
        assert_eq!(code, i32::from(!from.is_empty()), "{said}");
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn an_unwritable_data_folder_is_told() {
    let mut daemon = Daemon::prepare(&[], "");
    std::fs::write(daemon.path("file"), "").unwrap();
    daemon.set(
        "SENTINEL_DATA_DIR",
        daemon.path("file").join("data").to_str().unwrap(),
    );
    let output = daemon.command(&["serve"]).output().unwrap();
    assert_eq!(output.status.code(), Some(73), "{}", text(&output));
    assert!(text(&output).contains("data_dir"), "{}", text(&output));
}

#[test]
fn a_port_in_use_is_told() {
    let daemon = Daemon::prepare(&[], "");
    let _taken = std::net::TcpListener::bind(daemon.address()).unwrap();
    let output = daemon.command(&["serve"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
    assert!(
        text(&output).contains(&daemon.address().to_string()),
        "{}",
        text(&output)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_folder_is_refused() {
    let mut daemon = Daemon::start(&[], "").await;
    daemon.set("SENTINEL_LISTEN", "127.0.0.1:0");
    let output = daemon.command(&["serve"]).output().unwrap();
    assert_eq!(output.status.code(), Some(73), "{}", text(&output));
    assert!(
        text(&output).contains("process"),
        "says who: {}",
        text(&output)
    );
    daemon.deliver(&[Alert::firing("StillHere", &[])]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_docker_socket_alerts_are_taken_and_a_person_is_told_why() {
    let mut daemon = Daemon::prepare(&["docker-restart"], GOOD);
    daemon.set(
        "SENTINEL_DOCKER_HOSTS",
        "local=unix:///nonexistent/docker.sock",
    );
    daemon.serve().await;
    let ready = daemon.json("/readyz").await;
    assert!(
        ready["checks"]["docker local"]
            .as_str()
            .unwrap()
            .contains("/nonexistent/docker.sock"),
        "{ready:#}"
    );
    daemon.deliver(&[Alert::firing("WebDown", &[])]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let incident = daemon.incident(1).await;
    assert!(
        incident["reason"]
            .as_str()
            .unwrap()
            .contains("/nonexistent/docker.sock"),
        "{incident:#}"
    );
    assert_eq!(count(&incident, "effect-began"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ansible_playbook_a_person_is_told_what_to_install() {
    let policies = r#"
policies:
  - name: play
    match: ['alertname="Play"']
    target: 'docker://local/web'
    mode: auto
    steps:
      - plugin: ansible-playbook
        params: { playbook: restart-container.yml }
    verify: { alert: resolved, within: 1s, steady: 0s }
    grants:
      docker: { containers: [web], actions: [restart] }
      ansible: { playbooks: ['restart-container.yml'] }
"#;
    let mut daemon = Daemon::prepare(&["ansible-playbook"], policies);
    daemon.set("SENTINEL_ANSIBLE_PROGRAM", "/nonexistent/ansible-playbook");
    daemon.serve().await;
    daemon.deliver(&[Alert::firing("Play", &[])]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let incident = daemon.incident(1).await;
    let reason = incident["reason"].as_str().unwrap();
    assert!(
        reason.contains("ansible-playbook") && reason.contains("install"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_none_reach_no_other_call_of_docker() {
    let victim = sentinel_tests::containers::Container::nginx("victim");
    let policies = GOOD.replace("['web*']", "['**']");
    let daemon = Daemon::start(&["docker-restart"], &policies).await;
    let names = [
        format!("{}/kill?signal=KILL&y=", victim.name),
        "..".to_owned(),
        format!("../containers/{}", victim.name),
    ];
    let before = victim.started_at();
    for (n, name) in (1..).zip(&names) {
        daemon
            .deliver(&[Alert::firing("WebDown", &[("container", name)])])
            .await;
        assert_eq!(daemon.wait_end(n).await, "escalated");
        assert_eq!(
            count(&daemon.incident(n).await, "effect-began"),
            0,
            "{name}"
        );
    }
    assert_eq!(
        (victim.state().as_str(), victim.started_at()),
        ("running", before)
    );
    docker_ok(&["version", "--format", "{{.Server.Version}}"]);
}

#[test]
fn the_command_line_teaches() {
    let daemon = Daemon::prepare(&["docker-restart"], GOOD);
    let run = |args: &[&str]| daemon.command(args).output().unwrap();
    let help = run(&["--help"]);
    assert!(text(&help).contains("Exit codes"), "{}", text(&help));
    let wrong = run(&["chekc"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong).contains("check"), "{}", text(&wrong));
    let none = run(&["incidents", "list"]);
    assert_eq!(none.status.code(), Some(1), "{}", text(&none));
    assert!(text(&none).contains("hint:"), "{}", text(&none));
    let away = run(&["incidents", "list", "--url", "http://127.0.0.1:1"]);
    assert_eq!(away.status.code(), Some(69), "{}", text(&away));
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        assert!(script.status.success() && text(&script).contains("incidents"));
    }
    let page = run(&["man"]);
    assert!(text(&page).contains(".TH"), "{}", text(&page));
    let folder = daemon.path("man");
    assert!(
        run(&["man", "--out", folder.to_str().unwrap()])
            .status
            .success()
    );
    assert!(folder.join("sentinel-incidents-show.1").exists());
    let file = sentinel_tests::plugin("docker-restart");
    let inspected = run(&[
        "plugin",
        "inspect",
        file.to_str().unwrap(),
        "--output",
        "json",
    ]);
    let inspected: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(inspected["name"], "docker-restart");
    assert_eq!(
        inspected["asks_for"],
        serde_json::json!(["docker.inspect", "docker.start", "docker.restart"])
    );
    assert!(inspected["digest"].as_str().unwrap().starts_with("sha256:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn incidents_can_be_read_from_the_daemon_and_from_its_folder() {
    let mut daemon = Daemon::start(&["docker-restart"], GOOD).await;
    daemon
        .deliver(&[Alert::firing("WebDown", &[("container", "web-nobody")])])
        .await;
    daemon.wait_end(1).await;
    let url = daemon.url("/");
    for from in [vec![], vec!["--url", url.as_str()]] {
        let run = |args: &[&str]| {
            let mut all = args.to_vec();
            all.extend(&from);
            daemon.command(&all).output().unwrap()
        };
        let list = text(&run(&["incidents", "list"]));
        assert!(
            list.contains("escalated") && list.contains("web-down"),
            "{list}"
        );
        let show = text(&run(&["incidents", "show", "1"]));
        for word in [
            "opened",
            "run-started",
            "run-ended",
            "escalated",
            "web-nobody",
        ] {
            assert!(show.contains(word), "{word} in {show}");
        }
        let json = run(&["incidents", "show", "1", "--output", "json"]);
        let json: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(json["end"], "escalated");
        let missing = run(&["incidents", "show", "77"]);
        assert_eq!(missing.status.code(), Some(1), "{}", text(&missing));
        assert!(
            text(&missing).contains("no incident 77"),
            "{}",
            text(&missing)
        );
    }
    let (_, metrics) = daemon.get("/metrics").await.unwrap();
    for metric in [
        "sentinel_alerts_received_total",
        "sentinel_incidents_ended_total",
        "sentinel_runs_total",
        "sentinel_journal_commit_seconds_bucket",
        "sentinel_build_info",
    ] {
        assert!(metrics.contains(metric), "{metric} in {metrics}");
    }
    daemon.terminate();
    let ended = tokio::time::timeout(Duration::from_secs(20), async { daemon.wait() }).await;
    assert!(ended.unwrap().success());
}
