//! The client of Alertmanager's API: against a real Alertmanager, and against what a
//! real one does not do on demand.
//!
//! Needs a Docker Engine at `/var/run/docker.sock` (or `DOCKER_HOST`, a `unix://` URL)
//! with the image of Alertmanager that the stack uses (`make images`).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what helps tests may assume what tests may"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use jiff::{SignedDuration, Timestamp};
use sentinel_core::alert::{AlertStatus, Labels, identifying_start};
use sentinel_drivers::alertmanager::{ActiveAlert, AlertmanagerClient, AlertmanagerError};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

const PATIENCE: Duration = Duration::from_secs(30);

fn engine() -> bollard::Docker {
    let path = std::env::var("DOCKER_HOST")
        .ok()
        .filter(|url| url.starts_with("unix://"))
        .unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
    let path = path.trim_start_matches("unix://");
    bollard::Docker::connect_with_unix(path, 120, bollard::API_DEFAULT_VERSION)
        .unwrap_or_else(|error| panic!("these tests need a Docker Engine at {path}: {error}"))
}

/// The image that the stack uses.
fn image() -> String {
    let compose = concat!(env!("CARGO_MANIFEST_DIR"), "/../../stack/compose.yaml");
    std::fs::read_to_string(compose)
        .unwrap()
        .lines()
        .filter_map(|line| line.trim().strip_prefix("image:"))
        .map(|image| image.trim().to_owned())
        .find(|image| image.contains("alertmanager"))
        .unwrap_or_else(|| panic!("no image of alertmanager in {compose}"))
}

/// A real Alertmanager on loopback, and all that it has sent to its receiver.
struct Alertmanager {
    base: String,
    name: String,
    sent: Arc<Mutex<Vec<Value>>>,
    _config: tempfile::TempDir,
}

impl Alertmanager {
    /// Served below `/am`. An alert `Cause` inhibits those with the label `effect`.
    async fn run() -> Self {
        let (hook, sent) = receiver().await;
        let config = tempfile::tempdir().unwrap();
        // It runs as nobody.
        std::fs::set_permissions(config.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let text = format!(
            "route:
  receiver: sentinel
  group_wait: 0s
  group_interval: 1s
  group_by: ['...']
  routes:
    - matchers: ['team = \"other\"']
      receiver: nobody (prod)
receivers:
  - name: sentinel
    webhook_configs: [{{url: '{hook}'}}]
  - name: nobody (prod)
inhibit_rules:
  - source_matchers: ['alertname = Cause']
    target_matchers: ['effect != \"\"']
"
        );
        std::fs::write(config.path().join("alertmanager.yml"), text).unwrap();
        let port = free_port().await;
        let name = format!(
            "infra-sentinel-test-alertmanager-{}-{port}",
            std::process::id()
        );
        let body = ContainerCreateBody {
            image: Some(image()),
            cmd: Some(vec![
                "--config.file=/etc/alertmanager/alertmanager.yml".to_owned(),
                "--storage.path=/alertmanager".to_owned(),
                "--cluster.listen-address=".to_owned(),
                format!("--web.listen-address=127.0.0.1:{port}"),
                "--web.external-url=http://alertmanager.example/am".to_owned(),
            ]),
            host_config: Some(HostConfig {
                // It reaches the receiver, and is reached, on loopback.
                network_mode: Some("host".to_owned()),
                binds: Some(vec![format!(
                    "{}:/etc/alertmanager:ro",
                    config.path().display()
                )]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        engine()
            .create_container(Some(options), body)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}; run `make images`", image()));
        let alertmanager = Self {
            base: format!("http://127.0.0.1:{port}/am"),
            name,
            sent,
            _config: config,
        };
        engine()
            .start_container(&alertmanager.name, None)
            .await
            .unwrap();
        eventually("alertmanager answers", async || {
            client(&alertmanager.base).alerts().await.ok()
        })
        .await;
        alertmanager
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let (host, prefix) = self.base["http://".len()..].split_once('/').unwrap();
        let body = body.to_string();
        let request = format!(
            "POST /{prefix}/api/v2/{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(host).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_default()
    }

    /// What fires, by `alertname`.
    async fn active(&self) -> BTreeMap<String, ActiveAlert> {
        let alerts = client(&self.base).alerts().await.unwrap();
        alerts
            .into_iter()
            .map(|active| (active.alert.name().to_owned(), active))
            .collect()
    }

    /// The alerts of all notifications so far, by `alertname`.
    fn notified(&self) -> BTreeMap<String, Value> {
        let sent = self.sent.lock().unwrap();
        sent.iter()
            .flat_map(|body| body["alerts"].as_array().unwrap())
            .map(|alert| {
                let name = alert["labels"]["alertname"].as_str().unwrap();
                (name.to_owned(), alert.clone())
            })
            .collect()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let name = self.name.clone();
        // The test's own runtime may be about to end.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let options = RemoveContainerOptionsBuilder::new().v(true).force(true);
            runtime
                .block_on(engine().remove_container(&name, Some(options.build())))
                .unwrap();
        });
        removing.join().unwrap();
    }
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

/// A webhook receiver: its URL, and the bodies that came.
async fn receiver() -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let (kept, tasks) = (Arc::clone(&bodies), TaskTracker::new());
    tasks.clone().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tasks.spawn(async move {
                let body = read_request(&mut stream).await;
                kept.lock()
                    .unwrap()
                    .push(serde_json::from_slice(&body).unwrap());
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    (url, bodies)
}

async fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.unwrap();
        assert!(count > 0, "the request broke off");
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some(end) = text.find("\r\n\r\n") else {
            continue;
        };
        let length = text[..end]
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .map_or(0, |length| length.parse::<usize>().unwrap());
        if bytes.len() >= end + 4 + length {
            return bytes.split_off(end + 4);
        }
    }
}

async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn client(base: &str) -> AlertmanagerClient {
    AlertmanagerClient::new(base.parse().unwrap()).unwrap()
}

fn labels(value: &Value) -> Labels {
    serde_json::from_value(value.clone()).unwrap()
}

#[tokio::test]
async fn an_alert_is_the_same_by_the_api_and_by_a_notification() {
    let alertmanager = Alertmanager::run().await;
    let posted = [
        // As Prometheus sends them.
        json!({
            "labels": {"alertname": "Plain", "instance": "[::1]:9100"},
            "annotations": {"summary": "a \"quoted\"\nline", "empty": ""},
            "startsAt": "2026-01-01T00:00:00.25Z",
            "generatorURL": "http://prometheus:9090/graph?g0.expr=up%3D%3D0&g0.tab=1",
        }),
        // As vmalert and others do.
        json!({
            "labels": {"alertname": "Nanoseconds"},
            "startsAt": "2026-01-01T00:00:00.123999999Z",
        }),
        json!({"labels": {"alertname": "Offset"}, "startsAt": "2026-01-01T05:30:00.9999+05:30"}),
        json!({"labels": {"alertname": "WithoutStart", "empty": ""}}),
        json!({"labels": {"alertname": "Utf8", "größe.m²": "10 µm"}}),
    ];
    alertmanager.post("alerts", &json!(posted)).await;
    let notified = eventually("all are notified", async || {
        let notified = alertmanager.notified();
        (notified.len() == posted.len()).then_some(notified)
    })
    .await;

    let active = alertmanager.active().await;
    assert_eq!(
        active.keys().collect::<Vec<_>>(),
        notified.keys().collect::<Vec<_>>()
    );
    let mut cut = 0;
    for (
        name,
        ActiveAlert {
            alert,
            suppressed,
            receivers,
        },
    ) in &active
    {
        let sent = &notified[name];
        let sent_start: Timestamp = sent["startsAt"].as_str().unwrap().parse().unwrap();
        assert_eq!(alert.source, "alertmanager");
        assert_eq!(alert.status, AlertStatus::Firing);
        assert_eq!(alert.fingerprint.0, sent["fingerprint"].as_str().unwrap());
        assert_eq!(alert.starts_at, identifying_start(sent_start), "{name}");
        assert_eq!(alert.ends_at, None);
        assert_eq!(alert.labels, labels(&sent["labels"]));
        assert_eq!(alert.annotations, labels(&sent["annotations"]));
        let url = sent["generatorURL"].as_str().unwrap();
        assert_eq!(alert.generator_url.as_deref().unwrap_or_default(), url);
        assert!(!suppressed);
        assert_eq!(receivers, &["sentinel"]);
        cut += u32::from(alert.starts_at != sent_start);
    }
    // Without the cut these would be other alerts.
    assert!(cut >= 2, "{cut}");
}

#[tokio::test]
async fn what_is_held_back_is_told_as_such() {
    let alertmanager = Alertmanager::run().await;
    let alerts = json!([
        {"labels": {"alertname": "Loud"}},
        {"labels": {"alertname": "Elsewhere", "team": "other"}},
        {"labels": {"alertname": "Silenced"}},
        {"labels": {"alertname": "Cause"}},
        {"labels": {"alertname": "Inhibited", "effect": "yes"}},
        {"labels": {"alertname": "Over"}, "endsAt": (Timestamp::now() - SignedDuration::from_secs(9)).to_string()},
    ]);
    let now = Timestamp::now();
    let silence = json!({
        "matchers": [{"name": "alertname", "value": "Silenced", "isRegex": false, "isEqual": true}],
        "startsAt": now.to_string(),
        "endsAt": (now + SignedDuration::from_secs(3_600)).to_string(),
        "createdBy": "test",
        "comment": "test",
    });
    alertmanager.post("silences", &silence).await;
    alertmanager.post("alerts", &alerts).await;
    // It takes it a moment to find out what inhibits what.
    let active = eventually("two are held back", async || {
        let active = alertmanager.active().await;
        let held = active.values().filter(|active| active.suppressed).count();
        (held >= 2).then_some(active)
    })
    .await;
    let held: Vec<(&str, bool)> = active
        .iter()
        .map(|(name, active)| (name.as_str(), active.suppressed))
        .collect();
    assert_eq!(
        held,
        [
            ("Cause", false),
            ("Elsewhere", false),
            ("Inhibited", true),
            ("Loud", false),
            ("Silenced", true),
        ]
    );
    assert_eq!(active["Elsewhere"].receivers, ["nobody (prod)"]);
}

/// Answers every connection with `answer`, in pieces with `pause` between them; the URL.
async fn fake(answer: Vec<Vec<u8>>, pause: Duration) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (answer, tasks) = (Arc::new(answer), TaskTracker::new());
    tasks.clone().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tasks.spawn(async move {
                read_request(&mut stream).await;
                for piece in answer.iter() {
                    // The client hangs up when it has had enough.
                    if stream.write_all(piece).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(pause).await;
                }
            });
        }
    });
    url
}

async fn answered(head: &str, body: &str) -> Result<Vec<ActiveAlert>, AlertmanagerError> {
    let answer = format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n{body}");
    let url = fake(vec![answer.into_bytes()], Duration::ZERO).await;
    client(&url).alerts().await
}

#[tokio::test]
async fn no_alerts_are_an_answer_too() {
    assert_eq!(answered("200 OK", "[]").await, Ok(Vec::new()));
}

#[tokio::test]
async fn what_is_not_understood_is_refused_whole() {
    let good = r#"{"labels":{"alertname":"A"},"annotations":{},"fingerprint":"1","startsAt":"2026-01-01T00:00:00Z","status":{"state":"active"},"receivers":[]}"#;
    assert_eq!(
        answered("200 OK", &format!("[{good}]"))
            .await
            .unwrap()
            .len(),
        1
    );
    for bad in [
        String::new(),
        "null".to_owned(),
        "{}".to_owned(),
        "<html>the login page</html>".to_owned(),
        format!("[{good}"),
        format!("[{good},{{}}]"),
        format!("[{good},{}]", good.replace("2026-01-01", "yesterday ")),
        format!("[{good},{}]", good.replace(r#""alertname":"A""#, "")),
        format!(
            "[{good},{}]",
            good.replace(r#""fingerprint":"1""#, r#""fingerprint":"""#)
        ),
        "[".repeat(100_000),
    ] {
        let answer = answered("200 OK", &bad).await;
        let Err(AlertmanagerError::Malformed(text)) = answer else {
            panic!("{bad:.80}: {answer:?}");
        };
        assert!(text.len() < 1_000, "{text}");
    }
}

#[tokio::test]
async fn other_statuses_are_told_with_their_reason() {
    assert_eq!(
        answered("500 Internal Server Error", "out of\nluck\n").await,
        Err(AlertmanagerError::Refused {
            status: 500,
            reason: "out of luck".to_owned()
        })
    );
    let error = answered("503 Service Unavailable", &"x".repeat(10_000)).await;
    assert!(error.unwrap_err().to_string().len() < 400);
    assert_eq!(
        answered("404 Not Found", "").await,
        Err(AlertmanagerError::Refused {
            status: 404,
            reason: "no reason given".to_owned()
        })
    );
    // Whatever it says, what is missing is a login.
    for body in ["", "Unauthorized\n"] {
        assert_eq!(
            answered("401 Unauthorized\r\nWWW-Authenticate: Basic", body).await,
            Err(AlertmanagerError::Refused {
                status: 401,
                reason:
                    "it asks who is there: set `alertmanager.basic_auth` or `alertmanager.bearer`"
                        .to_owned()
            })
        );
    }
}

#[tokio::test]
async fn a_redirect_to_another_place_is_not_followed() {
    let elsewhere = fake(
        vec![b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[]".to_vec()],
        Duration::ZERO,
    )
    .await;
    let head = format!("302 Found\r\nLocation: {elsewhere}/api/v2/alerts");
    assert_eq!(
        answered(&head, "").await,
        Err(AlertmanagerError::Refused {
            status: 302,
            reason: format!("it redirects to {elsewhere}/api/v2/alerts, which is elsewhere")
        })
    );
}

#[tokio::test]
async fn a_slow_answer_is_given_up_wherever_it_stops() {
    let bound = Duration::from_millis(500);
    let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[".to_vec();
    let trickle: Vec<Vec<u8>> = std::iter::once(head)
        .chain(std::iter::repeat_n(b" ".to_vec(), 600))
        .collect();
    for pieces in [vec![], vec![b"HTTP/1.1 200 OK\r\n".to_vec()], trickle] {
        let silent = pieces.len() < 2;
        let pause = if silent { PATIENCE } else { bound / 10 };
        let pieces = if pieces.is_empty() {
            vec![Vec::new()]
        } else {
            pieces
        };
        let url = fake(pieces, pause).await;
        let begun = Instant::now();
        assert_eq!(
            client(&url).with_timeout(bound).alerts().await,
            Err(AlertmanagerError::TimedOut(bound))
        );
        assert!(begun.elapsed() < bound * 3, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn an_endless_answer_is_given_up_when_it_is_too_large() {
    let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[".to_vec();
    let piece = vec![b' '; 1 << 20];
    let pieces = |mebibytes: usize| -> Vec<Vec<u8>> {
        std::iter::once(head.clone())
            .chain(std::iter::repeat_n(piece.clone(), mebibytes))
            .chain(std::iter::once(b"]".to_vec()))
            .collect()
    };
    let large = fake(pieces(63), Duration::ZERO).await;
    assert_eq!(client(&large).alerts().await, Ok(Vec::new()));
    let huge = fake(pieces(200), Duration::ZERO).await;
    assert_eq!(
        client(&huge).alerts().await,
        Err(AlertmanagerError::TooLarge)
    );
}

#[tokio::test]
async fn one_that_is_away_is_unreachable() {
    let port = free_port().await;
    let answer = client(&format!("http://127.0.0.1:{port}")).alerts().await;
    let Err(AlertmanagerError::Unreachable(text)) = answer else {
        panic!("{answer:?}");
    };
    assert!(text.contains("refused"), "{text}");
    // It takes the connection, and breaks it off in the answer.
    let broken = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[".to_vec();
    let url = fake(vec![broken], Duration::ZERO).await;
    let answer = client(&url).alerts().await;
    assert!(
        matches!(answer, Err(AlertmanagerError::Unreachable(_))),
        "{answer:?}"
    );
}
