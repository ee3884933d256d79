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

/// Answers every request with what is in `alerts` then.
async fn alertmanager(alerts: Arc<Mutex<Value>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let body = alerts.lock().expect("the alerts").to_string();
            let mut asked = [0; 4096];
            let _read = stream.read(&mut asked).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _written = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_no_notification_told_of_is_found_at_the_start() {
    let alerts = Arc::new(Mutex::new(json!([
        active("one", "active", "sentinel"),
        active("silent", "suppressed", "sentinel"),
        active("another", "active", "pager"),
    ])));
    let url = alertmanager(alerts.clone()).await;
    let mut daemon = Daemon::prepare(&["hostile"], POLICY);
    daemon.write_config(&format!(
        "alertmanager: {{ url: '{url}', every: 1s, receiver: sentinel }}\n"
    ));
    daemon.serve().await;
    daemon.wait_end(1).await;
    let incident = daemon.incident(1).await;
    assert_eq!(incident["target"], "docker://local/one", "{incident:#}");
    // Not the silenced one, not what another receiver is for, and not twice.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(daemon.incidents().await.len(), 1);
    assert!(daemon.metric("sentinel_alerts_missed_total").await >= 1.0);
    // One that begins while the daemon runs, and whose notification is lost.
    alerts
        .lock()
        .expect("the alerts")
        .as_array_mut()
        .expect("a list")
        .push(active("second", "active", "sentinel"));
    daemon.wait_end(2).await;
    let incident = daemon.incident(2).await;
    assert_eq!(incident["target"], "docker://local/second", "{incident:#}");
}
