//! Plugins and policies are changed while the daemon runs: what is good is taken over at
//! once, what is bad changes nothing, and what is under way goes on as it began.

use std::os::unix::fs::symlink;
use std::time::Duration;

use sentinel_tests::containers::{Container, docker_ok};
use sentinel_tests::daemon::Daemon;
use sentinel_tests::eventually;
use sentinel_tests::payload::Alert;
use serde_json::Value;

/// A policy that runs the hostile plugin, which says what it is told to say.
fn says(behaviour: &str, text: &str) -> String {
    format!(
        r#"
policies:
  - name: says
    match: ['alertname="Says"']
    target: 'docker://local/infra-sentinel-test-{{{{ labels.n }}}}'
    mode: auto
    steps:
      - plugin: hostile
        params: {{ behaviour: {behaviour}, text: "{text}", ms: 2000 }}
    verify: {{ alert: resolved, within: 1s, steady: 0s }}
    guards: {{ cooldown: 1s }}
    grants:
      docker: {{ containers: ['infra-sentinel-test-*'], actions: [inspect] }}
"#
    )
}

fn alert(n: usize) -> Alert {
    Alert::firing("Says", &[("n", &n.to_string())])
}

/// The version of the hostile plugin that serves.
async fn serving_version(daemon: &Daemon) -> String {
    let status = daemon.json("/api/v1/status").await;
    status["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .find(|plugin| plugin["name"] == "hostile")
        .map(|plugin| plugin["version"].as_str().unwrap().to_owned())
        .unwrap_or_default()
}

async fn wait_version(daemon: &Daemon, version: &str) {
    let what = format!("version {version} serves\n{}", daemon.log());
    eventually(&what, Duration::from_secs(10), || async {
        (serving_version(daemon).await == version).then_some(())
    })
    .await;
}

fn event<'a>(incident: &'a Value, kind: &str) -> &'a Value {
    incident["events"]
        .as_array()
        .unwrap()
        .iter()
        .find(|event| event["kind"] == kind)
        .unwrap_or_else(|| panic!("{kind} in {incident:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_serves_while_the_run_in_flight_ends_on_its_own() {
    let daemon = Daemon::start(&["hostile"], &says("slow-changed", "done")).await;
    daemon.deliver(&[alert(1)]).await;
    daemon
        .wait_state(1, Duration::from_secs(5), |incident| {
            (incident["state"] == "running").then_some(())
        })
        .await;
    daemon.install("hostile-v2", "hostile.wasm");
    wait_version(&daemon, "0.2.0").await;
    let incident = daemon.incident(1).await;
    assert_eq!(incident["state"], "running", "the swap came while it ran");
    daemon.deliver(&[alert(2)]).await;
    daemon.wait_end(1).await;
    daemon.wait_end(2).await;
    let versions = [daemon.incident(1).await, daemon.incident(2).await]
        .map(|incident| event(&incident, "run-started")["version"].clone());
    assert_eq!(versions, ["0.1.0", "0.2.0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_and_policies_change_while_alerts_flow_and_none_is_lost() {
    let daemon = Daemon::start(&["hostile"], &says("changed", "first")).await;
    let mut sent = 0;
    for round in 0..6 {
        let (file, version) = if round % 2 == 0 {
            ("hostile-v2", "0.2.0")
        } else {
            ("hostile", "0.1.0")
        };
        daemon.install(file, "hostile.wasm");
        daemon.write_policies(&says("changed", &format!("round {round}")));
        // Alerts come all the while, until the new version serves and a little longer.
        for _ in 0..400 {
            sent += 1;
            daemon.deliver(&[alert(sent)]).await;
            if serving_version(&daemon).await == version {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for _ in 0..10 {
            sent += 1;
            daemon.deliver(&[alert(sent)]).await;
        }
    }
    let mut said = std::collections::BTreeSet::new();
    for id in 1..=sent as u64 {
        // The alerts fire on, so each ends with a person; none is lost or doubled.
        assert_eq!(daemon.wait_end(id).await, "escalated");
        let incident = daemon.incident(id).await;
        let ended = event(&incident, "run-ended");
        assert_eq!(ended["result"]["result"], "changed", "{incident:#}");
        said.insert(ended["result"]["message"].as_str().unwrap().to_owned());
    }
    let list = daemon.json("/api/v1/incidents?limit=1000").await;
    assert_eq!(list["incidents"].as_array().unwrap().len(), sent);
    assert!(
        said.len() > 2,
        "the policies did change meanwhile: {said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_plugin_changes_nothing_and_says_why() {
    let daemon = Daemon::start(&["hostile"], &says("changed", "good")).await;
    let cases: [(&[u8], &str); 3] = [
        (b"", "empty"),
        (b"this is no wasm", "WebAssembly"),
        // The header of a core module.
        (b"\0asm\x01\0\0\0", "core module"),
    ];
    for (bytes, word) in cases {
        daemon.install_bytes("hostile.wasm", bytes);
        daemon.wait_log(word).await;
        assert_eq!(serving_version(&daemon).await, "0.1.0");
    }
    let refused = daemon
        .metric(r#"sentinel_reloads_total{what="plugin",result="refused"}"#)
        .await;
    assert!(refused >= 3.0, "{refused}");
    let status = daemon.json("/api/v1/status").await;
    assert_eq!(status["problems"][0]["what"], "plugin", "{status:#}");
    daemon.deliver(&[alert(1)]).await;
    daemon.wait_end(1).await;
    assert_eq!(
        event(&daemon.incident(1).await, "run-started")["version"],
        "0.1.0"
    );
    // A good file mends it.
    daemon.install("hostile-v2", "hostile.wasm");
    wait_version(&daemon, "0.2.0").await;
    assert_eq!(
        daemon.json("/api/v1/status").await["problems"],
        Value::Array(Vec::new())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_policy_changes_nothing_and_says_where() {
    let daemon = Daemon::start(&["hostile"], &says("changed", "good")).await;
    daemon.write_policies(&says("changed", "new").replace("cooldown: 1s", "cooldwn: 1s"));
    daemon.wait_log("cooldwn").await;
    assert!(daemon.log().contains("test.yaml"), "{}", daemon.log());
    let status = daemon.json("/api/v1/status").await;
    let problem = &status["problems"][0];
    assert_eq!(problem["what"], "policy", "{status:#}");
    assert!(problem["line"].as_u64().unwrap() > 1, "{status:#}");
    daemon.deliver(&[alert(1)]).await;
    daemon.wait_end(1).await;
    let incident = daemon.incident(1).await;
    assert_eq!(event(&incident, "run-ended")["result"]["message"], "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_asks_for_more_than_its_policy_grants_does_not_serve() {
    let container = Container::nginx("more");
    docker_ok(&["stop", "-t", "0", &container.name]);
    // Under the same name, a plugin that wants ansible: the policy grants docker alone.
    let policies = format!(
        r#"
policies:
  - name: web
    match: ['alertname="WebDown"']
    target: 'docker://local/{}'
    mode: auto
    steps: [{{ plugin: docker-restart }}]
    verify: {{ docker: running, within: 5s, steady: 0s }}
    grants:
      docker: {{ containers: ['infra-sentinel-test-*'], actions: [inspect, restart, start] }}
"#,
        container.name
    );
    let daemon = Daemon::start(&["docker-restart"], &policies).await;
    // A policy that grants less than the plugin asks for is refused as a whole.
    daemon.write_policies(&policies.replace("[inspect, restart, start]", "[inspect]"));
    daemon.wait_log("docker.restart").await;
    daemon.deliver(&[Alert::firing("WebDown", &[])]).await;
    assert_eq!(
        daemon.wait_end(1).await,
        "healed",
        "what was good serves on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_a_policy_needs_serves_on_when_its_file_is_gone() {
    let daemon = Daemon::start(&["hostile"], &says("changed", "still here")).await;
    std::fs::remove_file(daemon.path("plugins").join("hostile.wasm")).unwrap();
    daemon.wait_log("change refused").await;
    daemon.deliver(&[alert(1)]).await;
    daemon.wait_end(1).await;
    let incident = daemon.incident(1).await;
    assert_eq!(
        event(&incident, "run-ended")["result"]["message"],
        "still here"
    );
    // Without the policy the plugin may go.
    daemon.write_policies("policies: []");
    wait_version(&daemon, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_file_does_not_hold_the_good_ones_up() {
    let daemon = Daemon::start(&["hostile"], &says("changed", "old")).await;
    daemon.install_bytes("broken.wasm", b"no");
    daemon.write_policies(&says("changed", "new"));
    daemon.wait_log("broken.wasm").await;
    eventually("the new policy", Duration::from_secs(10), || async {
        daemon.log().contains(r#"what="policies""#).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    daemon.deliver(&[alert(1)]).await;
    daemon.wait_end(1).await;
    let incident = daemon.incident(1).await;
    assert_eq!(event(&incident, "run-ended")["result"]["message"], "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_breaks_out_of_its_limits_fails_and_the_daemon_goes_on() {
    for behaviour in [
        "panic",
        "memory-bomb",
        "deep-recursion",
        "huge-result",
        "call-flood",
    ] {
        let daemon = Daemon::start(&["hostile"], &says(behaviour, "")).await;
        daemon.deliver(&[alert(1)]).await;
        assert_eq!(daemon.wait_end(1).await, "escalated", "{behaviour}");
        let incident = daemon.incident(1).await;
        assert_eq!(
            event(&incident, "run-ended")["result"]["result"],
            "failed",
            "{behaviour}"
        );
        let (status, _) = daemon.get("/healthz").await.unwrap();
        assert_eq!(status, 200, "{behaviour}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spinning_plugin_does_not_delay_an_alert() {
    let policies = says("spin", "").replace("ms: 2000 }", "ms: 0 }\n        timeout: 20s");
    let mut daemon = Daemon::prepare(&["hostile"], &policies);
    daemon.set("SENTINEL_LIMITS_PLUGIN_CPU", "4s");
    daemon.serve().await;
    let spinning: Vec<Alert> = (0..8).map(alert).collect();
    daemon.deliver(&spinning).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut times = Vec::new();
    for n in 0..50 {
        let begun = std::time::Instant::now();
        daemon
            .deliver(&[Alert::firing("Other", &[("n", &n.to_string())])])
            .await;
        times.push(begun.elapsed());
    }
    times.sort();
    // The machine has few cores and all of them are busy: the bound is generous, and
    // far below what a guest on intake's own threads costs (hundreds of milliseconds).
    assert!(
        times[25] < Duration::from_millis(50),
        "median {:?}",
        times[25]
    );
    for id in 1..=8 {
        assert_eq!(daemon.wait_end(id).await, "escalated");
    }
}

/// A policy of this name, which runs the hostile plugin.
fn named(name: &str, mode: &str) -> String {
    says("changed", name)
        .replace("name: says", &format!("name: {name}"))
        .replace("Says", &format!("Says-{name}"))
        .replace("mode: auto", &format!("mode: {mode}"))
}

/// Waits until the last that the daemon said of its policies is this.
async fn wait_policies(daemon: &Daemon, policies: &str) {
    let said = || {
        let log = daemon.log();
        let line = log
            .lines()
            .rfind(|line| line.contains(r#"what="policies""#))
            .unwrap_or_default();
        line.contains(&format!("\"{policies}\""))
    };
    let what = format!("{policies} serve");
    eventually(&what, Duration::from_secs(20), || async {
        said().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_policy_file_keeps_no_other_from_changing() {
    let mut daemon = Daemon::start(&["hostile"], &named("first", "auto")).await;
    let write = |file: &str, text: &str| {
        std::fs::write(daemon.path("policies").join(file), text).unwrap();
    };
    // The bad one is seen first, alone, and lies there while others change.
    write("bad.yaml", "policies: [");
    daemon.wait_log("bad.yaml").await;
    write("second.yaml", &named("second", "auto"));
    wait_policies(&daemon, "second (auto), first (auto)").await;
    write("second.yaml", &named("second", "off"));
    wait_policies(&daemon, "second (off), first (auto)").await;
    // One that serves and turns bad serves on as it was; so does one whose name is taken.
    write("second.yaml", &named("first", "off"));
    daemon.wait_log("there are two policies").await;
    write("third.yaml", &named("third", "approve"));
    wait_policies(&daemon, "second (off), first (auto), third (approve)").await;
    std::fs::remove_file(daemon.path("policies").join("third.yaml")).unwrap();
    wait_policies(&daemon, "second (off), first (auto)").await;
    // So it is over a restart, also for what changed meanwhile.
    daemon.terminate();
    daemon.wait();
    std::fs::write(
        daemon.path("policies").join("test.yaml"),
        named("first", "shadow"),
    )
    .unwrap();
    daemon.serve().await;
    wait_policies(&daemon, "second (off), first (shadow)").await;
    // The commands read what serves, and say what does not.
    let report = daemon.command(&["policy", "report"]).output().unwrap();
    let said = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(said.contains("second  (mode off)"), "{said}");
    let remarks = String::from_utf8_lossy(&report.stderr).into_owned();
    assert!(remarks.contains("bad.yaml"), "{remarks}");
    // What is mended is said, and serves.
    std::fs::write(
        daemon.path("policies").join("bad.yaml"),
        named("mended", "off"),
    )
    .unwrap();
    daemon
        .wait_log("mended; nothing is wrong with it any more")
        .await;
    wait_policies(&daemon, "mended (off), second (off), first (shadow)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_good_serves_at_a_first_start_too() {
    let mut daemon = Daemon::prepare(&["hostile"], &named("good", "auto"));
    std::fs::write(
        daemon.path("policies").join("bad.yaml"),
        "policies: nothing",
    )
    .unwrap();
    daemon.install_bytes("broken.wasm", b"no");
    daemon.serve().await;
    wait_policies(&daemon, "good (auto)").await;
    let log = daemon.log();
    assert!(
        log.contains("bad.yaml") && log.contains("broken.wasm"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_playbook_that_is_gone_keeps_no_policy_from_changing() {
    let plays = r#"
policies:
  - name: plays
    match: ['alertname="Plays"']
    target: 'docker://local/infra-sentinel-test-plays'
    mode: shadow
    steps: [{ plugin: ansible-playbook, params: { playbook: gone.yml } }]
    verify: { alert: resolved, within: 1s }
    grants: { ansible: { playbooks: [gone.yml] }, docker: { containers: ['infra-sentinel-test-*'], actions: [restart] } }
"#;
    let mut daemon = Daemon::prepare(&["hostile", "ansible-playbook"], &named("first", "auto"));
    let playbook = daemon.path("playbooks").join("gone.yml");
    std::fs::create_dir_all(playbook.parent().unwrap()).unwrap();
    std::fs::write(&playbook, "- {hosts: localhost, tasks: []}\n").unwrap();
    std::fs::write(daemon.path("policies").join("plays.yaml"), plays).unwrap();
    daemon.serve().await;
    wait_policies(&daemon, "plays (shadow), first (auto)").await;
    std::fs::remove_file(&playbook).unwrap();
    daemon.write_policies(&named("first", "off"));
    wait_policies(&daemon, "plays (shadow), first (off)").await;
}

/// As Kubernetes mounts a `ConfigMap`: each file is a link into a folder, which is a link
/// itself, and a change exchanges that one alone.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_link_leads_to_is_noticed_when_it_is_exchanged() {
    let daemon = Daemon::start(&["hostile"], &named("first", "auto")).await;
    let folder = daemon.path("policies");
    let exchange = |version: &str, text: &str| {
        std::fs::create_dir(folder.join(version)).unwrap();
        std::fs::write(folder.join(version).join("linked.yaml"), text).unwrap();
        symlink(version, folder.join("..new")).unwrap();
        std::fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
    };
    exchange("..1", &named("linked", "off"));
    symlink("..data/linked.yaml", folder.join("linked.yaml")).unwrap();
    wait_policies(&daemon, "linked (off), first (auto)").await;
    exchange("..2", &named("linked", "auto"));
    wait_policies(&daemon, "linked (auto), first (auto)").await;
}
