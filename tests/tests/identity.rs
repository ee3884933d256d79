//! What is locked, counted and left alone is the container, whatever alerts call it.

use std::time::Duration;

use sentinel_tests::containers::{Container, docker_ok};
use sentinel_tests::daemon::{Daemon, count};
use sentinel_tests::fake_docker::{self, FakeDocker};
use sentinel_tests::payload::Alert;
use sentinel_tests::{eventually, receiver::Receiver};
use serde_json::Value;

/// Restarts the container that the alert names, once in an hour, and tells of it where that
/// does not help.
fn policies(target: &str, hook: &Receiver) -> String {
    format!(
        r#"
policies:
  - name: sick
    match: ['alertname="Sick"']
    target: '{target}'
    mode: auto
    evidence: off
    steps: [{{ plugin: docker-restart, timeout: 30s }}]
    verify: {{ docker: running, within: 20s }}
    guards: {{ cooldown: 1h }}
    grants:
      docker: {{ hosts: ['*'], labels: ['infra-sentinel.test=1'], actions: [inspect, restart, start] }}
      http: {{ urls: ['{url}'], methods: [POST] }}
    escalate: {{ plugin: notify, params: {{ kind: webhook, url: '{url}' }} }}
"#,
        url = hook.url("/hook")
    )
}

const PLUGINS: [&str; 2] = ["docker-restart", "notify"];
const BY_LABEL: &str = "docker://local/{{ labels.container }}";

/// Every incident with its events, once as many alerts as these are dealt with.
async fn dealt_with(daemon: &Daemon, alerts: usize) -> Vec<Value> {
    eventually(
        "all alerts are dealt with",
        Duration::from_secs(30),
        || async {
            let mut incidents = Vec::new();
            for row in daemon.incidents().await {
                incidents.push(daemon.incident(row["id"].as_u64().unwrap()).await);
            }
            let seen = |incident: &Value| count(incident, "opened") + count(incident, "alert-seen");
            let known: usize = incidents.iter().map(seen).sum();
            let quiet =
                |incident: &Value| incident["end"].is_string() || incident["state"] == "held";
            (known >= alerts && incidents.iter().all(quiet)).then_some(incidents)
        },
    )
    .await
}

fn effects(incidents: &[Value]) -> usize {
    incidents
        .iter()
        .map(|incident| count(incident, "effect-began"))
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_spellings_of_one_container_are_one_restart() {
    let container = Container::nginx("spelled");
    let id = container.inspect("{{.Id}}");
    docker_ok(&["stop", "-t", "0", &container.name]);
    let hook = Receiver::new(|_| 200).await;
    let daemon = Daemon::start(&PLUGINS, &policies(BY_LABEL, &hook)).await;
    let mut spellings = vec![container.name.as_str(), id.as_str()];
    spellings.extend([12, 13, 14, 20, 33].map(|digits| &id[..digits]));
    let alerts: Vec<_> = spellings
        .iter()
        .map(|text| Alert::firing("Sick", &[("container", text)]))
        .collect();
    daemon.deliver(&alerts).await;
    let incidents = dealt_with(&daemon, alerts.len()).await;
    assert_eq!(effects(&incidents), 1, "{incidents:#?}");
    assert_eq!(container.state(), "running");
    // What comes after it ended is held by the cooldown.
    for incident in &incidents {
        assert_eq!(
            incident["target"],
            format!("docker://local/{}", container.name)
        );
        let end = incident["end"].as_str().unwrap_or("held");
        assert!(["healed", "held"].contains(&end), "{incident:#}");
    }
    // Nobody is told seven times that all is well.
    assert!(hook.told().is_empty());
    // Later too, and after a restart of the daemon.
    docker_ok(&["stop", "-t", "0", &container.name]);
    let again = Alert::firing("Sick", &[("container", &id[..40])]);
    daemon.deliver(&[again]).await;
    let incidents = dealt_with(&daemon, alerts.len() + 1).await;
    assert_eq!(effects(&incidents), 1, "{incidents:#?}");
    assert_eq!(incidents[0]["state"], "held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_looks_like_an_id_is_that_container() {
    let other = Container::with("other", &["--entrypoint", "sleep"]);
    let text = other.inspect("{{.Id}}")[..12].to_owned();
    let named = Container::named(&text, &["--entrypoint", "sleep"]);
    docker_ok(&["kill", &named.name]);
    let before = other.started_at();
    let hook = Receiver::new(|_| 200).await;
    let daemon = Daemon::start(&PLUGINS, &policies(BY_LABEL, &hook)).await;
    daemon
        .deliver(&[Alert::firing("Sick", &[("container", &text)])])
        .await;
    assert_eq!(daemon.wait_end(1).await, "healed");
    assert_eq!(
        daemon.incident(1).await["target"],
        format!("docker://local/{text}")
    );
    assert_eq!(named.state(), "running");
    assert_eq!(other.started_at(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_names_of_one_engine_are_one() {
    let container = Container::nginx("twice");
    docker_ok(&["stop", "-t", "0", &container.name]);
    let hook = Receiver::new(|_| 200).await;
    let target = "docker://{{ labels.host }}/{{ labels.container }}";
    let mut daemon = Daemon::prepare(&PLUGINS, &policies(target, &hook));
    let socket = "unix:///var/run/docker.sock";
    let hosts = format!("local={socket},another={socket}");
    daemon.set("SENTINEL_DOCKER_HOSTS", &hosts);
    daemon.serve().await;
    let alerts = ["local", "another"].map(|host| {
        let labels = [("host", host), ("container", container.name.as_str())];
        Alert::firing("Sick", &labels)
    });
    daemon.deliver(&alerts).await;
    let incidents = dealt_with(&daemon, 2).await;
    assert_eq!(effects(&incidents), 1, "{incidents:#?}");
    daemon.wait_log("are one Docker Engine").await;
    // The stop switch goes by the engine, too: a pause under one name holds both.
    let answer = daemon
        .post(
            "/api/v1/pauses",
            format!(
                r#"{{"target": "docker://local/{}", "by": "ann", "reason": "a look"}}"#,
                &container.inspect("{{.Id}}")[..12]
            ),
        )
        .await;
    assert_eq!(answer.0, 200, "{}", answer.1);
    let name = format!("/{}", container.name);
    let pauses = daemon.json("/api/v1/pauses").await;
    let scope = pauses["pauses"][0]["scope"]["target"].as_str().unwrap();
    assert!(scope.ends_with(&name), "{pauses}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_nobody_could_look_up_is_not_acted_on() {
    let hook = Receiver::new(|_| 200).await;
    let policies = policies(BY_LABEL, &hook)
        .replace("labels: ['infra-sentinel.test=1']", "containers: ['web-*']")
        .replace(
            "timeout: 30s",
            "timeout: 30s, attempts: 20, backoff: 1s, when: { after: 2s }",
        );
    let mut daemon = Daemon::prepare(&PLUGINS, &policies);
    // Docker is away when the alert comes, and back when the run acts.
    let socket = daemon.path("docker.sock");
    let hosts = format!("local=unix://{}", socket.display());
    daemon.set("SENTINEL_DOCKER_HOSTS", &hosts);
    daemon.serve().await;
    let id = FakeDocker::id("web-1");
    daemon
        .deliver(&[Alert::firing("Sick", &[("container", &id[..12])])])
        .await;
    daemon
        .wait_log("which container this is cannot be told")
        .await;
    let fake = FakeDocker::start_at(&socket);
    fake.add(fake_docker::Container::exited("web-1"));
    assert_eq!(daemon.wait_end(1).await, "escalated");
    assert!(fake.effects().is_empty());
    // A person hears of it, and why.
    let told = hook.told();
    assert_eq!(told.len(), 1);
    assert!(
        told[0].body.contains("as an id it is that of `web-1`"),
        "{}",
        told[0].body
    );
    // By now it can be told: the next one is about the container by its name.
    daemon
        .deliver(&[Alert::firing("Sick", &[("container", &id[..13])])])
        .await;
    assert_eq!(daemon.wait_end(2).await, "healed");
    assert_eq!(daemon.incident(2).await["target"], "docker://local/web-1");
    assert_eq!(fake.effects().len(), 1);
}
