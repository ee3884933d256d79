//! What all policies draw from is shared: one that has much to do holds no other back, and
//! keeps nobody from being told.

use std::time::Duration;

use sentinel_tests::daemon::{Daemon, count};
use sentinel_tests::eventually;
use sentinel_tests::fake_docker::{Call, Container, FakeDocker};
use sentinel_tests::payload::Alert;
use sentinel_tests::receiver::Receiver;

const PLUGINS: [&str; 2] = ["docker-restart", "notify"];

/// A policy that says much, and one that heals.
fn two(hook: &Receiver) -> String {
    format!(
        r#"
policies:
  - name: chatty
    match: ['alertname="Chat"']
    target: 'host://{{{{ labels.instance }}}}'
    mode: auto
    steps: [{{ plugin: notify, params: {{ kind: webhook, url: '{url}' }} }}]
    verify: {{ alert: resolved, within: 1h, steady: 0s }}
    grants:
      http: {{ urls: ['{url}'], methods: [POST] }}
  - name: web-down
    match: ['alertname="WebDown"']
    target: 'docker://local/{{{{ labels.container }}}}'
    mode: auto
    steps: [{{ plugin: docker-restart, timeout: 30s }}]
    verify: {{ docker: running, within: 20s }}
    grants:
      docker: {{ containers: ['web-*'], actions: [inspect, restart, start] }}
"#,
        url = hook.url("/hook")
    )
}

fn chat(number: usize) -> Alert {
    let instance = format!("machine-{number}");
    // It says of itself that it is urgent, as whoever writes labels can.
    Alert::firing("Chat", &[("instance", &instance), ("severity", "critical")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chatty_policy_holds_no_other_back() {
    let fake = FakeDocker::start();
    fake.add(Container::exited("web-1"));
    let hook = Receiver::new(|_| 200).await;
    let mut daemon = Daemon::prepare(&PLUGINS, &two(&hook));
    daemon.set("SENTINEL_DOCKER_HOSTS", &fake.hosts());
    daemon.write_config("limits: { incidents: 20, guards: { total_rate: 5/1h } }\n");
    daemon.serve().await;
    let chats: Vec<_> = (0..30).map(chat).collect();
    daemon.deliver(&chats).await;
    // Half of the incidents is for whoever comes first, the other half is shared out.
    eventually(
        "the chatty policy has all it may",
        Duration::from_secs(30),
        || async {
            let waits = daemon.metric("sentinel_alerts_waiting").await;
            (waits > 14.0 && hook.told().len() == 4).then_some(())
        },
    )
    .await;
    assert_eq!(daemon.incidents().await.len(), 15);
    daemon
        .deliver(&[Alert::firing("WebDown", &[("container", "web-1")])])
        .await;
    assert_eq!(daemon.wait_end(16).await, "healed");
    assert_eq!(
        fake.done("web-1", Call::Start) + fake.done("web-1", Call::Restart),
        1
    );
    // The chatty one is still where it was, and nothing of it is lost.
    assert_eq!(hook.told().len(), 4);
    assert!((daemon.metric("sentinel_alerts_waiting").await - 15.0).abs() < 0.1);
    // It is said which keys of the configuration hold it back, once.
    let log = daemon.log();
    for key in ["limits.incidents", "limits.guards.total_rate"] {
        let line = format!("key=\"{key}\" policy=chatty");
        let said = log.lines().filter(|said| said.contains(&line));
        assert_eq!(said.count(), 1, "{key} in:\n{log}");
        let metric = format!("sentinel_budgets_used_up_total{{key=\"{key}\",policy=\"chatty\"}}");
        assert!((daemon.metric(&metric).await - 1.0).abs() < 0.1, "{metric}");
        let (status, ready) = daemon.get("/readyz").await.unwrap();
        assert_eq!(status, 200);
        assert!(
            ready.contains(key) && ready.contains("policy chatty waits"),
            "{ready}"
        );
        let status = daemon.json("/api/v1/status").await;
        let used_up = status["used_up"].as_array().unwrap();
        assert!(used_up.iter().any(|one| one["key"] == key), "{status:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_room_comes_when_there_is_some() {
    let fake = FakeDocker::start();
    let hook = Receiver::new(|_| 200).await;
    let mut daemon = Daemon::prepare(&PLUGINS, &two(&hook));
    daemon.set("SENTINEL_DOCKER_HOSTS", &fake.hosts());
    daemon.write_config("limits: { incidents: 4 }\n");
    daemon.serve().await;
    let chats: Vec<_> = (0..30).map(chat).collect();
    daemon.deliver(&chats).await;
    eventually(
        "no more are open than may be",
        Duration::from_secs(30),
        || async { (hook.told().len() == 3).then_some(()) },
    )
    .await;
    // A restart forgets none of them; each end makes room for the next. (A notice whose run has
    // not ended on record is sent again.)
    eventually("their runs have ended", Duration::from_secs(30), || async {
        let incidents = daemon.incidents().await;
        let verified = incidents.iter().filter(|one| one["state"] == "verifying");
        (verified.count() == 3).then_some(())
    })
    .await;
    daemon.kill();
    daemon.serve().await;
    for known in 3..=30 {
        eventually("the next one opens", Duration::from_secs(30), || async {
            (hook.told().len() == known).then_some(())
        })
        .await;
        let open: Vec<_> = daemon
            .incidents()
            .await
            .iter()
            .filter(|incident| incident["end"].is_null() && incident["ended_at"].is_null())
            .map(|incident| incident["target"].as_str().unwrap().to_owned())
            .collect();
        assert!(open.len() <= 3, "{open:?}");
        let first = chats.iter().find(|chat| {
            let of = |target: &String| target.ends_with(&format!("//{}", chat.labels[1].1));
            open.iter().any(of)
        });
        daemon.deliver(&[first.unwrap().resolved()]).await;
    }
    eventually("none waits", Duration::from_secs(30), || async {
        (daemon.metric("sentinel_alerts_waiting").await < 0.1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_be_healed_is_told_of_whatever_is_used_up() {
    let fake = FakeDocker::start();
    let hook = Receiver::new(|_| 200).await;
    let url = hook.url("/hook");
    let policies = format!(
        r#"
policies:
  - name: web-down
    match: ['alertname="WebDown"']
    target: 'docker://local/{{{{ labels.container }}}}'
    mode: auto
    steps: [{{ plugin: notify, params: {{ kind: webhook, url: '{url}' }} }}]
    verify: {{ docker: running, within: 1s }}
    grants:
      http: {{ urls: ['{url}'], methods: [POST] }}
    escalate: {{ plugin: notify, params: {{ kind: webhook, url: '{url}' }} }}
"#
    );
    let mut daemon = Daemon::prepare(&PLUGINS, &policies);
    daemon.set("SENTINEL_DOCKER_HOSTS", &fake.hosts());
    // Of all there is, healing uses up everything.
    daemon.write_config(
        "limits: { guards: { total_rate: 3/1h, target_rate: 1/1h, actions: { http.send: 3/1h } } }\n",
    );
    daemon.serve().await;
    for number in 1..=3_u64 {
        let container = format!("web-{number}");
        daemon
            .deliver(&[Alert::firing("WebDown", &[("container", &container)])])
            .await;
        assert_eq!(daemon.wait_end(number).await, "escalated");
    }
    let told = |kind: &str| {
        let told = hook.told();
        told.iter()
            .filter(|told| told.json()["kind"] == kind)
            .count()
    };
    assert_eq!((told("notice"), told("escalation")), (3, 3));
    // Three escalations have used up nothing of it: these are held, and not by them.
    daemon.write_config(
        "limits: { guards: { total_rate: 4/1h, target_rate: 1/1h, actions: { http.send: 4/1h } } }\n",
    );
    daemon.wait_log("limits.guards.total_rate: 4/1h").await;
    daemon
        .deliver(&[Alert::firing("WebDown", &[("container", "web-4")])])
        .await;
    assert_eq!(daemon.wait_end(4).await, "escalated");
    assert_eq!((told("notice"), told("escalation")), (4, 4));
    // One that has a budget of its own, which the configuration sets.
    daemon.write_config(
        "limits: { guards: { total_rate: 5/1h, actions: { http.send: 9/1h }, telling_rate: 4/1h } }\n",
    );
    daemon.wait_log("limits.guards.telling_rate: 4/1h").await;
    daemon
        .deliver(&[Alert::firing("WebDown", &[("container", "web-5")])])
        .await;
    daemon.wait_end(5).await;
    assert_eq!((told("notice"), told("escalation")), (5, 4));
    let incident = daemon.incident(5).await;
    assert!(count(&incident, "run-ended") > 0);
    daemon
        .wait_log("key=\"limits.guards.telling_rate\" policy=web-down")
        .await;
}
