//! What a sender can count on: the receiver's rules, each held by a real daemon.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use sentinel_tests::daemon::{Daemon, count};
use sentinel_tests::machine::Disk;
use sentinel_tests::payload::{Alert, webhook};
use serde_json::{Value, json};

const DOOR: &str = "/api/v1/alerts/alertmanager";

/// A policy that opens an incident for every alert named `Watched` and does nothing: the
/// container does not exist, and the alert's label tells the incidents apart.
const WATCH: &str = r#"
policies:
  - name: watch
    match: ['alertname="Watched"']
    target: 'docker://local/infra-sentinel-none-{{ labels.n | default("0") }}'
    mode: auto
    steps:
      - plugin: docker-restart
        timeout: 5s
    verify: { alert: resolved, within: 1s, steady: 0s }
    guards: { cooldown: 1s, flapping: off }
    grants:
      docker: { containers: ['infra-sentinel-none-*'], actions: [inspect, restart, start] }
"#;

async fn watching() -> Daemon {
    Daemon::start(&["docker-restart"], WATCH).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_202_with_and_without_a_slash_by_post_and_by_put() {
    let daemon = Daemon::start(&[], "").await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in [DOOR.to_owned(), format!("{DOOR}/")] {
        for method in [reqwest::Method::POST, reqwest::Method::PUT] {
            let body = webhook(&[Alert::firing("Slash", &[])]).to_string();
            let answer = client
                .request(method.clone(), daemon.url(&path))
                .body(body)
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), StatusCode::ACCEPTED, "{method} {path}");
        }
    }
    // Accepted without any Content-Type, as `curl -d` and odd senders do it.
    assert!(
        daemon
            .metric(r#"sentinel_alerts_received_total{source="alertmanager",status="firing"}"#)
            .await
            >= 4.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_ever_redirected() {
    let daemon = Daemon::start(&[], "").await;
    for path in ["/api/v1/alerts", "/", "/api/v2/alerts/x"] {
        let (status, body) = daemon.post(path, "{}").await;
        assert!(!status.is_redirection(), "{path}: {status}");
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {body}");
        assert!(
            body.contains("/api/v1/alerts/alertmanager"),
            "says where: {body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_alerts_in_one_body_are_accepted() {
    let daemon = Daemon::start(&[], "").await;
    let padding = "x".repeat(430);
    let alerts: Vec<Alert> = (0..5000)
        .map(|n| Alert::firing("Storm", &[("n", &n.to_string()), ("padding", &padding)]))
        .collect();
    let body = webhook(&alerts).to_string();
    assert!(body.len() > 3_800_000, "{}", body.len());
    let begun = Instant::now();
    let (status, answer) = daemon.post(DOOR, body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    assert_eq!(
        serde_json::from_str::<Value>(&answer).unwrap()["accepted"],
        5000
    );
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "Alertmanager gives up after 10 s"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_json_is_a_400_that_says_where_and_is_kept() {
    let daemon = Daemon::start(&[], "").await;
    let whole = webhook(&[Alert::firing("Cut", &[])]).to_string();
    let cases = [
        ("truncated", whole[..whole.len() / 2].to_owned()),
        ("not JSON", "hello".to_owned()),
        ("an array", "[]".to_owned()),
        ("no alerts", r#"{"version":"4"}"#.to_owned()),
        ("a wrong status", whole.replace("\"firing\"", "\"burning\"")),
        (
            "a wrong time",
            whole.replace("\"startsAt\":\"2", "\"startsAt\":\"x2"),
        ),
        ("empty", String::new()),
    ];
    for (what, body) in cases {
        let (status, answer) = daemon.post(DOOR, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{what}: {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["line"].as_u64().is_some(), "{what}: {answer}");
        assert!(answer["column"].as_u64().is_some(), "{what}: {answer}");
    }
    let rejected = daemon
        .metric(r#"sentinel_deliveries_rejected_total{source="alertmanager",reason="malformed"}"#)
        .await;
    assert!((rejected - 7.0).abs() < 0.1, "{rejected}");
    // The daemon goes on as if nothing had been.
    daemon.deliver(&[Alert::firing("After", &[])]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused_and_one_of_32_mib_is_not() {
    let daemon = Daemon::start(&[], "").await;
    let alert = |size: usize| {
        let mut body = webhook(&[Alert::firing("Big", &[])]);
        body["alerts"][0]["annotations"]["padding"] = json!("x".repeat(size));
        body.to_string()
    };
    let (status, _) = daemon.post(DOOR, alert((32 << 20) - 4096)).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let (status, answer) = daemon.post(DOOR, alert(33 << 20)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
    assert!(answer.contains("limits.intake.body"), "{answer}");
    daemon.deliver(&[Alert::firing("After", &[])]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alert_is_the_unit_and_its_identity_leaves_the_notification_out() {
    let daemon = watching().await;
    let alert = Alert::firing("Watched", &[]);
    let mut notification = webhook(std::slice::from_ref(&alert));
    for (key, value) in [
        ("externalURL", "http://replica-2:9093"),
        ("groupKey", "{}/{continue=\"yes\"}:{}"),
        ("receiver", "another\\.one"),
    ] {
        notification[key] = json!(value);
        let (status, _) = daemon.post(DOOR, notification.to_string()).await;
        assert_eq!(status, StatusCode::ACCEPTED);
    }
    daemon.wait_end(1).await;
    assert_eq!(
        daemon.incidents().await.len(),
        1,
        "replicas send the same alert"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_fingerprint_is_computed_so_that_repeats_are_known() {
    let daemon = watching().await;
    let mut alert = Alert::firing("Watched", &[]);
    alert.fingerprint.clear();
    daemon.deliver(std::slice::from_ref(&alert)).await;
    daemon.deliver(std::slice::from_ref(&alert)).await;
    daemon.wait_end(1).await;
    daemon.deliver(&[alert]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(daemon.incidents().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn resolved_alerts_inside_a_firing_group_open_nothing() {
    let daemon = watching().await;
    let gone = Alert::firing("Watched", &[("n", "1")]).resolved();
    let here = Alert::firing("Watched", &[("n", "2")]);
    daemon.deliver(&[gone, here]).await;
    let incident = daemon
        .wait_state(1, Duration::from_secs(10), |incident| {
            Some(incident.clone())
        })
        .await;
    assert_eq!(incident["target"], "docker://local/infra-sentinel-none-2");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(daemon.incidents().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_start_is_accepted() {
    let daemon = watching().await;
    let mut alert = Alert::firing("Watched", &[]);
    alert.starts_at = "2019-01-01T00:00:00-06:00".to_owned();
    daemon.deliver(&[alert]).await;
    daemon.wait_end(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_alerts_are_told() {
    let daemon = Daemon::start(&[], "").await;
    let mut notification = webhook(&[Alert::firing("Kept", &[])]);
    notification["truncatedAlerts"] = json!(3);
    notification["receiver"] = json!("lab\\.recv \\(prod\\)");
    let (status, _) = daemon.post(DOOR, notification.to_string()).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert!((daemon.metric("sentinel_alerts_truncated_total").await - 3.0).abs() < 0.1);
    daemon.wait_log("lab.recv (prod)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_label_names_and_values_come_through() {
    let daemon = watching().await;
    let alert = Alert::firing(
        "Watched",
        &[
            ("service.name", "a"),
            ("🔥", "b\n\"c\" [::1]:9100"),
            ("empty", ""),
        ],
    );
    daemon.deliver(&[alert]).await;
    daemon.wait_end(1).await;
    let incident = daemon.incident(1).await;
    let labels = &incident["events"][0]["alert"]["labels"];
    assert_eq!(labels["🔥"], "b\n\"c\" [::1]:9100");
    assert_eq!(labels["service.name"], "a");
    assert!(labels.get("empty").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_can_post_without_an_alertmanager() {
    let daemon = watching().await;
    let in_a_while = "2099-01-01T00:00:00Z";
    let body = json!([{"labels": {"alertname": "Watched"}, "startsAt": "2026-01-01T00:00:00Z", "endsAt": in_a_while}]);
    for path in ["/api/v2/alerts", "/api/v2/alerts/"] {
        let (status, answer) = daemon.post(path, body.to_string()).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    }
    daemon.wait_end(1).await;
    assert_eq!(daemon.incidents().await.len(), 1);
    let status = daemon.json("/api/v2/status").await;
    for field in ["cluster", "config", "uptime", "versionInfo"] {
        assert!(!status[field].is_null(), "amtool needs {field}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_has_delivered_all_the_same() {
    let daemon = watching().await;
    let body = webhook(&[Alert::firing("Watched", &[])]).to_string();
    let mut stream = TcpStream::connect(daemon.address()).unwrap();
    write!(
        stream,
        "POST {DOOR} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    stream.flush().unwrap();
    drop(stream);
    daemon.wait_end(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_trickles_is_cut_off() {
    let mut daemon = Daemon::prepare(&[], "");
    daemon.set("SENTINEL_LIMITS_INTAKE_BODY_TIMEOUT", "1s");
    daemon.serve().await;
    // A header that never ends is cut off after 10 s, a body after its own time.
    let address = daemon.address();
    let header = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        write!(
            stream,
            "POST {DOOR} HTTP/1.1\r\nhost: localhost\r\nx-slow: "
        )
        .unwrap();
        let begun = Instant::now();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        (begun.elapsed(), read.is_ok())
    });
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    write!(
        stream,
        "POST {DOOR} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{{"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    let (took, closed) = tokio::task::spawn_blocking(|| header.join().unwrap())
        .await
        .unwrap();
    assert!(closed && took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_at_once_is_a_503_and_nothing_is_lost() {
    let mut daemon = Daemon::prepare(&["docker-restart"], WATCH);
    daemon.set("SENTINEL_LIMITS_INTAKE_MEMORY", "1MiB");
    daemon.set("SENTINEL_LIMITS_INTAKE_BODY", "1MiB");
    daemon.serve().await;
    // One sender holds nearly all memory that bodies may take, and is slow.
    let mut stream = TcpStream::connect(daemon.address()).unwrap();
    write!(
        stream,
        "POST {DOOR} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1048576\r\n\r\n{{"
    )
    .unwrap();
    stream.write_all(&vec![b' '; 1_048_000]).unwrap();
    stream.flush().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let body = webhook(&[Alert::firing("Watched", &[])]).to_string();
    let (status, _) = daemon.post(DOOR, body.clone()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    drop(stream);
    sentinel_tests::eventually("it is taken then", Duration::from_secs(10), || async {
        (daemon.post(DOOR, body.clone()).await.0 == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    daemon.wait_end(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_daemon_takes_nothing_more_and_ends_by_itself() {
    let mut daemon = watching().await;
    // A connection that is open before the signal and used after it.
    let mut stream = TcpStream::connect(daemon.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let body = webhook(&[Alert::firing("Watched", &[])]).to_string();
    write!(
        stream,
        "POST {DOOR} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    daemon.terminate();
    tokio::time::sleep(Duration::from_millis(200)).await;
    // The request had begun; whatever it is told, it is the truth.
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    let _closed = stream.read_to_string(&mut answer);
    let accepted = answer.starts_with("HTTP/1.1 202");
    assert!(accepted || answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(daemon.wait().success());
    daemon.serve().await;
    if accepted {
        daemon.wait_end(1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_a_503_and_what_was_accepted_is_there_afterwards() {
    let mut daemon = Daemon::prepare(&["docker-restart"], WATCH);
    let data = daemon.path("small");
    std::fs::create_dir(&data).unwrap();
    let disk = Disk::small(&data, "4m");
    daemon.set("SENTINEL_DATA_DIR", data.to_str().unwrap());
    daemon.serve().await;
    daemon
        .deliver(&[Alert::firing("Watched", &[("n", "1")])])
        .await;
    daemon.wait_end(1).await;
    // Somebody else fills the disk.
    disk.fill();
    let padding = "x".repeat(30_000);
    let more = |n: &str| {
        // More than is left of the disk.
        let alerts: Vec<_> = (0..10)
            .map(|of| Alert::firing("Watched", &[("n", n), ("of", &of.to_string())]))
            .collect();
        let mut body = webhook(&alerts);
        for alert in body["alerts"].as_array_mut().expect("alerts") {
            alert["annotations"]["padding"] = json!(padding);
        }
        body.to_string()
    };
    let (status, body) = daemon.post(DOOR, more("2")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    let (status, _) = daemon.get("/readyz").await.unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    disk.free();
    sentinel_tests::eventually("it is taken then", Duration::from_secs(20), || async {
        (daemon.post(DOOR, more("2")).await.0 == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    daemon.wait_end(2).await;
    let (status, _) = daemon.get("/readyz").await.unwrap();
    assert_eq!(status, StatusCode::OK);
    assert_eq!(count(&daemon.incident(1).await, "opened"), 1);
    daemon.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_alert_does_not_take_the_others_with_it() {
    let daemon = watching().await;
    let mut notification = webhook(&[
        Alert::firing("Watched", &[("n", "1")]),
        Alert::firing("Watched", &[("n", "2")]),
    ]);
    notification["alerts"][0]["labels"] = json!({});
    let (status, answer) = daemon.post(DOOR, notification.to_string()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    assert_eq!(
        serde_json::from_str::<Value>(&answer).unwrap()["accepted"],
        1
    );
    daemon.wait_end(1).await;
    daemon.wait_log("alerts[0]").await;
    // Its sender can see it, and that nobody was to be woken.
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["refused"], 1, "{answer}");
    assert!(
        answer["reasons"][0].as_str().unwrap().contains("alerts[0]"),
        "{answer}"
    );
    let log = daemon.log();
    let errors = log.lines().filter(|line| line.contains("ERROR"));
    assert_eq!(
        errors.filter(|line| line.contains("delivery")).count(),
        0,
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_urgent_alert_that_is_lost_is_an_error_of_the_operators() {
    let daemon = watching().await;
    let mut notification = webhook(&[
        Alert::firing("Watched", &[("severity", "critical")]),
        Alert::firing("Watched", &[("n", "2")]),
    ]);
    notification["alerts"][0]["labels"]["nested"] = json!({});
    let (status, answer) = daemon.post(DOOR, notification.to_string()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    daemon.wait_log("an urgent alert of it is lost").await;
    let line = daemon.log();
    let line = line.lines().find(|line| line.contains("is lost")).unwrap();
    assert!(
        line.contains("ERROR") && line.contains("alerts[0]: label `nested`"),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_values_lose_no_alert() {
    let daemon = watching().await;
    // As converters and odd clients write them; by hand, for no library writes half a pair.
    let alert = |n: u32| {
        format!(
            r#"{{"status":"firing","labels":{{"alertname":"Watched","n":{n},"prod":true,"port":8080,"gone":null}},
                 "annotations":{{"summary":"queue is stuck \ud83d","runbook_url":null,"value":93.5}},
                 "startsAt":"2026-01-01T00:00:00Z","endsAt":null,"generatorURL":7,"fingerprint":null,"values":null}}"#
        )
    };
    let (status, answer) = daemon
        .post(DOOR, format!(r#"{{"alerts":[{}]}}"#, alert(1)))
        .await;
    assert_eq!(
        (status, answer.as_str()),
        (StatusCode::ACCEPTED, r#"{"accepted":1}"#)
    );
    let (status, answer) = daemon
        .post("/api/v2/alerts", format!("[{}]", alert(2)))
        .await;
    assert_eq!(
        (status, answer.as_str()),
        (StatusCode::ACCEPTED, r#"{"accepted":1}"#)
    );
    for id in 1..=2 {
        let incident = daemon
            .wait_state(id, Duration::from_secs(10), |it| Some(it.clone()))
            .await;
        let alert = &incident["events"][0]["alert"];
        assert_eq!(alert["annotations"]["summary"], "queue is stuck \u{fffd}");
        assert_eq!(alert["annotations"]["value"], "93.5");
        assert_eq!(alert["labels"]["port"], "8080");
        assert!(alert["labels"].get("gone").is_none());
    }
}

/// What is said of a delivery, and how long others wait meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn no_body_keeps_others_waiting_or_fills_log_and_journal() {
    let mut daemon = Daemon::start(&["docker-restart"], WATCH).await;
    let elements = 4_000_000;
    let junk = format!(
        r#"[{{"labels":{{"alertname":"X"}}}}{}]"#,
        ",1".repeat(elements)
    );
    let posts = (0..4).map(|_| {
        let (client, url, junk) = (
            sentinel_tests::daemon::client(),
            daemon.url("/api/v2/alerts"),
            junk.clone(),
        );
        tokio::spawn(async move {
            let request = client.post(url).header(CONTENT_TYPE, "application/json");
            let answer = request.body(junk).send().await.unwrap();
            let status = answer.status();
            (status, answer.text().await.unwrap())
        })
    });
    let posts: Vec<_> = posts.collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Meanwhile somebody else's alert comes through.
    daemon.deliver(&[Alert::firing("Watched", &[])]).await;
    let (status, _) = daemon.get("/healthz").await.unwrap();
    assert_eq!(status, StatusCode::OK);
    for post in posts {
        let (status, answer) = post.await.unwrap();
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        assert!(answer.len() < 8192, "{} bytes", answer.len());
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["refused"], elements);
        assert_eq!(answer["reasons"].as_array().unwrap().len(), 20);
    }
    let longest = daemon.log().lines().map(str::len).max().unwrap();
    assert!(longest < 8192, "a line of {longest} bytes");
    // And it stops in the midst of it.
    let again = sentinel_tests::daemon::client()
        .post(daemon.url("/api/v2/alerts"))
        .header(CONTENT_TYPE, "application/json")
        .body(junk);
    let post = tokio::spawn(again.send());
    tokio::time::sleep(Duration::from_millis(50)).await;
    daemon.terminate();
    assert!(daemon.wait().success());
    // It was told the truth, or nothing.
    drop(post.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_is_refused_or_cut_and_says_so() {
    let daemon = watching().await;
    let long = "a".repeat(70_000);
    let (status, answer) = daemon
        .post(
            "/api/v2/alerts",
            json!([{"labels": {"alertname": "Watched", "n": long}}]).to_string(),
        )
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        answer.contains("label `n` has") && answer.len() < 1024,
        "{answer}"
    );
    let mut notification = webhook(&[Alert::firing("Watched", &[("n", "1")])]);
    notification["alerts"][0]["annotations"]["summary"] = json!("x".repeat(5_000_000));
    let (status, answer) = daemon.post(DOOR, notification.to_string()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    daemon.wait_end(1).await;
    let incident = daemon.incident(1).await;
    let summary = incident["events"][0]["alert"]["annotations"]["summary"]
        .as_str()
        .unwrap();
    assert!(
        summary.len() <= 32 << 10 && summary.ends_with("[…cut]"),
        "{}",
        summary.len()
    );
    assert!(daemon.metric("sentinel_alerts_cut_total").await >= 1.0);
    sentinel_tests::eventually(
        "the journal has a size",
        Duration::from_secs(20),
        || async { (daemon.metric("sentinel_journal_bytes").await > 1000.0).then_some(()) },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_of_truncated_alerts_does_not_fall() {
    let daemon = Daemon::start(&[], "").await;
    let mut last = 0.0;
    for _ in 0..2 {
        let body = r#"{"truncatedAlerts":18446744073709551615,"alerts":[]}"#;
        let (status, answer) = daemon.post(DOOR, body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        let now = daemon.metric("sentinel_alerts_truncated_total").await;
        assert!(now > last, "{now} after {last}");
        last = now;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_is_closed() {
    let daemon = Daemon::start(&[], "").await;
    for first in ["", "P", "PRI * HTTP/2.0\r\n"] {
        let mut stream = TcpStream::connect(daemon.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(first.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let read = tokio::task::spawn_blocking(move || stream.read_to_end(&mut answer))
            .await
            .unwrap();
        assert!(read.is_ok(), "{first:?} is still open: {read:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_uploads_hold_up_nobody() {
    let daemon = Daemon::start(&[], "").await;
    let idle: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(daemon.address()).unwrap();
            write!(
                stream,
                "POST {DOOR} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 33554432\r\n\r\n{{"
            )
            .unwrap();
            stream
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    daemon.deliver(&[Alert::firing("Through", &[])]).await;
    drop(idle);
}
