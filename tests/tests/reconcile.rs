//! Reconciliation with Alertmanager's API through the real daemon. The Alertmanager here is a
//! stand-in that says what the test wants it to know; the client is tested against the real
//! one in `host/drivers/tests`.

use std::sync::{Arc, Mutex};

use sentinel_tests::daemon::Daemon;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const POLICY: &str = r#"
policies:
  - name: watch
    match: ['alertname="Missed"']
    target: 'docker://local/{{ labels.instance }}'
    mode: auto
    steps: [{ plugin: hostile, params: { behaviour: changed } }]
    verify: { alert: resolved, within: 1s, steady: 0s }
    guards: { cooldown: 1s, flapping: off }
    grants:
      docker: { containers: ['*'], actions: [list, inspect, logs, start, stop, restart, kill, recreate, duplicate, remove] }
      ansible: { playbooks: ['*'] }
"#;

fn active(instance: &str, state: &str, receiver: &str) -> Value {
    json!({
        "labels": { "alertname": "Missed", "instance": instance },
        "annotations": {},
        "startsAt": "2026-01-01T00:00:00.000Z",
        "updatedAt": "2026-01-01T00:00:00.000Z",
        "endsAt": "2036-01-01T00:00:00.000Z",
        "generatorURL": "",
        "fingerprint": format!("{:016x}", instance.len()),
        "receivers": [{ "name": receiver }],
        "status": { "state": state, "silencedBy": [], "inhibitedBy": [], "mutedBy": [] },
    })
}

/// A group of alerts that are all told to the same receiver.
fn group(receiver: &str, alerts: &[Value]) -> Value {
    json!({ "labels": {}, "receiver": { "name": receiver }, "alerts": alerts })
}

/// Answers with the groups that are in `groups` then, and with their alerts; and notes what it was
/// asked.
async fn alertmanager(groups: Arc<Mutex<Value>>, heard: Arc<Mutex<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 4096];
            let read = stream.read(&mut asked).await.unwrap_or_default();
            let asked = String::from_utf8_lossy(asked.get(..read).unwrap_or_default()).into_owned();
            heard.lock().expect("what was heard").push_str(&asked);
            let groups = groups.lock().expect("the groups").clone();
            let body = if asked.starts_with("GET /api/v2/alerts/groups ") {
                groups.to_string()
            } else if asked.starts_with("GET /api/v2/status ") {
                json!({ "uptime": "2026-01-01T00:00:00.000Z" }).to_string()
            } else {
                let groups = groups.as_array().expect("a list").iter();
                let alerts = groups.flat_map(|group| group["alerts"].as_array().expect("a list"));
                Value::from(alerts.cloned().collect::<Vec<_>>()).to_string()
            };
            let start = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _written = stream.write_all(format!("{start}{body}").as_bytes()).await;
        }
    });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_no_notification_told_of_is_found_at_the_start() {
    let mut muted = active("muted", "suppressed", "sentinel");
    muted["status"]["mutedBy"] = json!(["night"]);
    let mut young = active("young", "active", "sentinel");
    young["startsAt"] = json!(jiff::Timestamp::now().to_string());
    let mut untold = active("version-before-0.28", "active", "sentinel");
    untold["status"]
        .as_object_mut()
        .expect("a status")
        .remove("mutedBy");
    let groups = Arc::new(Mutex::new(json!([
        group(
            "sentinel",
            &[
                active("one", "active", "sentinel"),
                active("silent", "suppressed", "sentinel"),
                muted,
                young,
                untold,
            ]
        ),
        group("pager", &[active("another", "active", "pager")]),
    ])));
    let heard = Arc::new(Mutex::new(String::new()));
    let url = alertmanager(groups.clone(), heard.clone()).await;
    let mut daemon = Daemon::prepare(&["hostile"], POLICY);
    daemon.write_config(&format!(
        "alertmanager: {{ url: '{url}', every: 1s, receiver: sentinel, basic_auth: {{ username: us, password: am }} }}\nhttp: {{ secrets: {{ am: {{ env: AM }} }} }}\n"
    ));
    daemon.set("AM", "s3cret");
    daemon.serve().await;
    daemon.wait_end(1).await;
    let incident = daemon.incident(1).await;
    assert_eq!(incident["target"], "docker://local/one", "{incident:#}");
    // Not the silenced and the muted one, nor the one that may be muted, nor the one that
    // is not told of yet, nor what another receiver is for, and not twice.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(daemon.incidents().await.len(), 1);
    assert!(daemon.metric("sentinel_alerts_missed_total").await >= 1.0);
    daemon.wait_log("cannot say whether it mutes them").await;
    // It was asked by who we are, and nothing else knows.
    let heard = heard.lock().expect("what was heard").clone();
    assert!(
        heard.contains("authorization: Basic dXM6czNjcmV0"),
        "{heard}"
    );
    assert!(!daemon.log().contains("s3cret") && !daemon.log().contains("dXM6czNjcmV0"));
    // One that begins while the daemon runs, and whose notification is lost.
    groups
        .lock()
        .expect("the groups")
        .as_array_mut()
        .expect("a list")
        .push(group("sentinel", &[active("second", "active", "sentinel")]));
    daemon.wait_end(2).await;
    let incident = daemon.incident(2).await;
    assert_eq!(incident["target"], "docker://local/second", "{incident:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_known_to_be_muted_counts_where_the_operator_says_so() {
    let mut untold = active("one", "active", "sentinel");
    untold["status"]
        .as_object_mut()
        .expect("a status")
        .remove("mutedBy");
    let groups = Arc::new(Mutex::new(json!([group("sentinel", &[untold])])));
    let url = alertmanager(groups, Arc::default()).await;
    let mut daemon = Daemon::prepare(&["hostile"], POLICY);
    daemon.write_config(&format!(
        "alertmanager: {{ url: '{url}', every: 1s, unmuted: true }}\n"
    ));
    daemon.serve().await;
    daemon.wait_end(1).await;
}
