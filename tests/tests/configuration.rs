//! The daemon's configuration changes while it runs: what can change does, what cannot says so,
//! and a bad file changes nothing.

use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use sentinel_tests::daemon::Daemon;
use sentinel_tests::eventually;
use sentinel_tests::fake_docker::{Container, FakeDocker};
use sentinel_tests::payload::Alert;
use serde_json::Value;

const POLICY: &str = r#"
policies:
  - name: web-down
    mode: auto
    match: ['alertname="WebDown"']
    target: 'docker://local/{{ labels.container }}'
    steps: [{ plugin: docker-restart, timeout: 30s }]
    verify: { docker: running, within: 10s, steady: 0s, every: 100ms }
    grants:
      docker: { containers: ['web-*'], actions: [inspect, restart, start] }
"#;

/// Maintenance at all times.
const ALWAYS: &str =
    "maintenance: [{ from: '00:00', to: '23:59' }, { from: '12:00', to: '11:00' }]";

/// A daemon with this at the end of its configuration, and a Docker Engine with three containers
/// that are down.
async fn daemon(more: &str) -> (FakeDocker, Daemon) {
    let fake = FakeDocker::start();
    for name in ["web-1", "web-2", "web-3"] {
        fake.add(Container::exited(name));
    }
    let mut daemon = Daemon::prepare(&["docker-restart"], POLICY);
    daemon.set("SENTINEL_DOCKER_HOSTS", &fake.hosts());
    daemon.write_config(more);
    daemon.serve().await;
    (fake, daemon)
}

fn down(container: &str) -> Alert {
    Alert::firing("WebDown", &[("container", container)])
}

async fn state(daemon: &Daemon, id: u64, state: &str) {
    daemon
        .wait_state(id, Duration::from_secs(10), |incident| {
            (incident["state"] == state).then_some(())
        })
        .await;
}

/// Waits until the daemon's word on its configuration is as `look` wants it.
async fn standing(daemon: &Daemon, what: &str, look: impl Fn(&Value) -> bool) -> Value {
    eventually(what, Duration::from_secs(10), || async {
        let status = daemon.json("/api/v1/status").await;
        let configuration = status["configuration"].clone();
        look(&configuration).then_some(configuration)
    })
    .await
}

/// The changes of the configuration that are on record, oldest first.
fn recorded(daemon: &Daemon) -> Vec<Value> {
    let path = daemon.path("data/journal.sqlite");
    let journal = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut rows = journal
        .prepare("SELECT body FROM controls WHERE body LIKE '%configured%' ORDER BY seq")
        .unwrap();
    rows.query_map([], |row| row.get::<_, String>(0))
        .unwrap()
        .map(|body| serde_json::from_str(&body.unwrap()).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wider_limit_lets_go_what_it_held() {
    let (_fake, daemon) = daemon("limits: { guards: { total_rate: 1/1h } }").await;
    daemon.deliver(&[down("web-1")]).await;
    assert_eq!(daemon.wait_end(1).await, "healed");
    daemon.deliver(&[down("web-2")]).await;
    state(&daemon, 2, "held").await;
    daemon.write_config("limits: { guards: { total_rate: 2/1h } }");
    assert_eq!(daemon.wait_end(2).await, "healed");
    // What was done under the old limit counts under the new one.
    daemon.deliver(&[down("web-3")]).await;
    state(&daemon, 3, "held").await;
    let changes = recorded(&daemon);
    assert_eq!(
        changes[0]["changed"]["limits.guards.total_rate"]["to"],
        "1/1h"
    );
    assert_eq!(
        changes[1]["changed"],
        serde_json::json!({"limits.guards.total_rate": {"from": "1/1h", "to": "2/1h"}})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_begins_and_ends_with_the_file() {
    let (fake, daemon) = daemon("").await;
    daemon.write_config(ALWAYS);
    daemon.wait_log("now serving what=\"configuration\"").await;
    daemon.deliver(&[down("web-1")]).await;
    state(&daemon, 1, "held").await;
    assert_eq!(fake.effects().len(), 0);
    daemon.write_config("");
    assert_eq!(daemon.wait_end(1).await, "healed");
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_that_waited_for_room_get_it() {
    let (_fake, daemon) = daemon(&format!("limits: {{ incidents: 1 }}\n{ALWAYS}")).await;
    daemon.deliver(&[down("web-1"), down("web-2")]).await;
    state(&daemon, 1, "held").await;
    assert_eq!(daemon.incidents().await.len(), 1);
    daemon.write_config("limits: { incidents: 2 }");
    assert_eq!(daemon.wait_end(1).await, "healed");
    assert_eq!(daemon.wait_end(2).await, "healed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_follows_its_level() {
    let (_fake, daemon) = daemon("").await;
    let config = std::fs::read_to_string(daemon.path("sentinel.yaml")).unwrap();
    let quiet = config.replace("info,sentinel=debug", "error");
    std::fs::write(daemon.path("sentinel.yaml"), quiet).unwrap();
    standing_level(&daemon, "error").await;
    let before = daemon.log().len();
    daemon.deliver(&[down("web-1")]).await;
    assert_eq!(daemon.wait_end(1).await, "healed");
    assert_eq!(daemon.log().len(), before, "{}", daemon.log());
    daemon.write_config("");
    standing_level(&daemon, "info,sentinel=debug").await;
    daemon.deliver(&[down("web-2")]).await;
    assert_eq!(daemon.wait_end(2).await, "healed");
    assert!(daemon.log().len() > before);
}

async fn standing_level(daemon: &Daemon, level: &str) {
    eventually(
        "the level is on record",
        Duration::from_secs(10),
        || async {
            let changes = recorded(daemon);
            let last = changes.last()?;
            (last["changed"]["log.level"]["to"] == level).then_some(())
        },
    )
    .await;
    // It holds a moment after that.
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_says_so_and_holds_after_it() {
    let (_fake, mut daemon) = daemon("").await;
    daemon.write_config("plugins_dir: elsewhere\nlimits: { plugin: { memory: 128MiB, cpu: 2s } }");
    // The key is there twice.
    let said = standing(&daemon, "the file is refused", |c| !c["problem"].is_null()).await;
    assert!(
        said["problem"].as_str().unwrap().contains("plugins_dir"),
        "{said}"
    );

    daemon.write_config("shutdown_grace: 3s\nlimits: { plugin: { memory: 128MiB, cpu: 2s } }");
    let said = standing(&daemon, "the rest waits", |c| {
        c["restart"] != serde_json::json!([])
    })
    .await;
    assert_eq!(said["restart"], serde_json::json!(["limits.plugin.memory"]));
    assert!(said["problem"].is_null());
    daemon.wait_log("holds from the next start on").await;
    let ready = daemon.json("/readyz").await;
    let told = ready["checks"]["configuration"].as_str().unwrap();
    assert!(told.contains("limits.plugin.memory"), "{told}");
    let last = recorded(&daemon).pop().unwrap();
    assert_eq!(last["changed"]["limits.plugin.cpu"]["to"], "2s");
    assert_eq!(last["changed"]["shutdown_grace"]["from"], "10s");
    assert!(last["changed"].get("limits.plugin.memory").is_none());

    daemon.terminate();
    assert!(daemon.wait().success());
    daemon.serve().await;
    let said = standing(&daemon, "nothing waits", |_| true).await;
    assert_eq!(said["restart"], serde_json::json!([]));
    let last = recorded(&daemon).pop().unwrap();
    assert_eq!(
        last["changed"],
        serde_json::json!({"limits.plugin.memory": {"from": "64MiB", "to": "128MiB"}})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing_and_says_why() {
    let (_fake, daemon) = daemon("limits: { guards: { total_rate: 1/1h } }").await;
    for (bad, why) in [
        ("limits: { guards: { total_rate: often } }", "often"),
        ("limits: { incidents: 0 }", "limits.incidents"),
        ("log: {", "sentinel.yaml:"),
        ("colour: red", "colour"),
    ] {
        daemon.write_config(bad);
        let said = standing(&daemon, why, |configuration| {
            let problem = configuration["problem"].as_str().unwrap_or_default();
            problem.contains(why)
        })
        .await;
        let ready = daemon.json("/readyz").await;
        let told = ready["checks"]["configuration"].as_str().unwrap();
        assert!(
            told.contains("refused") && told.contains(why),
            "{told} {said}"
        );
    }
    // A file that is gone is no configuration without keys.
    std::fs::remove_file(daemon.path("sentinel.yaml")).unwrap();
    standing(&daemon, "the file is missed", |configuration| {
        let problem = configuration["problem"].as_str().unwrap_or_default();
        problem.contains("cannot be read")
    })
    .await;
    let refused = r#"sentinel_reloads_total{what="configuration",result="refused"}"#;
    assert!(daemon.metric(refused).await >= 5.0);
    // The old limit still holds.
    daemon.deliver(&[down("web-1")]).await;
    assert_eq!(daemon.wait_end(1).await, "healed");
    daemon.deliver(&[down("web-2")]).await;
    state(&daemon, 2, "held").await;
    daemon.write_config("limits: { guards: { total_rate: 5/1h } }");
    assert_eq!(daemon.wait_end(2).await, "healed");
    standing(&daemon, "all is well", |configuration| {
        configuration["problem"].is_null()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_stands_above_the_file_still() {
    let (_fake, mut daemon) = daemon("").await;
    daemon.terminate();
    assert!(daemon.wait().success());
    daemon.set("SENTINEL_LIMITS_INCIDENTS", "7");
    daemon.serve().await;
    daemon.write_config("limits: { incidents: 9, guards: { total_rate: 3/1h } }");
    daemon.wait_log("limits.guards.total_rate: 3/1h").await;
    let last = recorded(&daemon).pop().unwrap();
    assert!(last["changed"].get("limits.incidents").is_none(), "{last}");
}
