//! What whoever reaches the port can do, and what they cannot: bounds of requests and connections, names, pages of other
//! sites, and what is read strictly.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use sentinel_tests::daemon::{Daemon, client, said};
use sentinel_tests::payload::{Alert, webhook};
use sentinel_tests::{eventually, raw};
use serde_json::{Value, json};

const WEBHOOK: &str = "/api/v1/alerts/alertmanager";
const ALERTS: &str = "/api/v2/alerts";

/// A route, with something in the place of its names.
#[derive(Debug, Clone)]
struct Route {
    method: String,
    path: String,
}

impl Route {
    fn is_safe(&self) -> bool {
        self.method == "GET"
    }

    fn is_door(&self) -> bool {
        [WEBHOOK, ALERTS].contains(&&*self.path)
    }

    /// Whether it takes a JSON object of an operator's.
    fn takes_object(&self) -> bool {
        self.method == "POST" && !self.is_door()
    }
}

/// Every route that the daemon has, from the table that its router is made of.
async fn routes(daemon: &Daemon) -> Vec<Route> {
    let index = daemon.json("/api/v1").await;
    let routes: Vec<_> = index["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| Route {
            method: route["method"].as_str().unwrap().to_owned(),
            path: route["path"]
                .as_str()
                .unwrap()
                .replace("{id}", "1")
                .replace("{name}", "docker-restart")
                .replace("{digest}", &format!("sha256:{}", "0".repeat(64))),
        })
        .collect();
    assert!(routes.len() > 20, "{routes:?}");
    assert!(
        routes.iter().all(|route| !route.path.contains('{')),
        "{routes:?}"
    );
    routes
}

/// The memory that a process has, in bytes.
fn memory(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<usize>().unwrap() << 10
}

async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Delivers an alert as a sender does: one that is turned away, or loses its connection, comes again.
async fn through(daemon: &Daemon, what: &str) {
    let body = webhook(&[Alert::firing("Through", &[])]).to_string();
    eventually(what, Duration::from_secs(60), || async {
        let answer = client()
            .post(daemon.url(WEBHOOK))
            .header("content-type", "application/json")
            .body(body.clone())
            .send()
            .await;
        let accepted = |answer: reqwest::Response| answer.status() == StatusCode::ACCEPTED;
        answer.is_ok_and(accepted).then_some(())
    })
    .await;
}

async fn accepted(daemon: &Daemon) -> f64 {
    let mut sum = 0.0;
    for source in ["alertmanager", "prometheus"] {
        let name =
            format!(r#"sentinel_alerts_received_total{{source="{source}",status="firing"}}"#);
        sum += daemon.metric(&name).await;
    }
    sum
}

fn rejected(source: &str, reason: &str) -> String {
    format!(r#"sentinel_deliveries_rejected_total{{source="{source}",reason="{reason}"}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_takes_a_body_without_end_or_waits_for_one_for_ever() {
    let mut daemon = Daemon::prepare(&[], "");
    daemon.write_config("limits: { intake: { body: 1MiB, body_timeout: 3s } }");
    daemon.serve().await;
    let before = memory(daemon.pid());
    let address = daemon.address();
    let mut attacks = Vec::new();
    for route in routes(&daemon).await {
        let query = if route.path.contains("/plugins/") {
            "?by=ann"
        } else {
            ""
        };
        let head = format!(
            "{} {}{query} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n",
            route.method, route.path
        );
        let (endless, stalled) = (head.clone(), head);
        let of = route.clone();
        attacks.push(std::thread::spawn(move || {
            let head = format!("{endless}transfer-encoding: chunked\r\n\r\n");
            let (answer, sent, took) = raw::endless(address, &head, Duration::from_secs(60));
            assert!(
                took < Duration::from_secs(60),
                "{of:?}: {took:?}, {sent} bytes"
            );
            // A plugin may be large; everything else is over as soon as it is too much.
            assert!(sent < 128 << 20, "{of:?}: {sent} bytes");
            // Whoever still sends may see a reset in the place of the answer.
            let status = raw::status(&answer);
            let expected = if of.is_safe() || of.method == "DELETE" {
                vec![0, 200, 404, 422, 503]
            } else {
                vec![0, 400, 408, 413, 422, 503]
            };
            assert!(expected.contains(&status), "{of:?}: {answer}");
        }));
        attacks.push(std::thread::spawn(move || {
            let mut stream = raw::connect(address);
            write!(stream, "{stalled}content-length: 10\r\n\r\n{{").unwrap();
            let begun = Instant::now();
            let answer = raw::rest(&mut stream);
            assert!(begun.elapsed() < Duration::from_secs(50), "{route:?}");
            assert!(raw::status(&answer) >= 200, "{route:?}: {answer}");
        }));
    }
    // Meanwhile others are served.
    daemon.deliver(&[Alert::firing("Meanwhile", &[])]).await;
    let (status, _) = daemon.get("/healthz").await.unwrap();
    assert_eq!(status, StatusCode::OK);
    let mut most = 0;
    while attacks.iter().any(|attack| !attack.is_finished()) {
        most = most.max(memory(daemon.pid()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for attack in attacks {
        attack.join().unwrap();
    }
    // One plugin of 64 MiB, and what the allocator keeps of it.
    assert!(most < before + (256 << 20), "from {before} to {most}");
    daemon.deliver(&[Alert::firing("After", &[])]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_keep_alerts_out() {
    let mut daemon = Daemon::prepare(&[], "");
    daemon.write_config("limits: { connections: 32 }");
    daemon.serve().await;
    let address = daemon.address();
    let open = |head: &'static str| {
        beside(move || {
            let streams = (0..150).map(|_| {
                let mut stream = TcpStream::connect(address).unwrap();
                // The daemon may have given it up by now.
                let sent = stream.write_all(head.as_bytes());
                drop(sent);
                stream
            });
            streams.collect::<Vec<_>>()
        })
    };
    for head in [
        "",
        "POST /api/v1/alerts/alertmanager HTTP/1.1\r\nhost: localhost\r\nx-slow: ",
        "GET /api/v1/status HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "POST /api/v1/pauses HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
        "PUT /api/v1/plugins/x?by=ann HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n{",
        "GET /nowhere HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 100000\r\n\r\n{",
    ] {
        let held = open(head).await;
        through(&daemon, head).await;
        eventually(head, Duration::from_secs(60), || async {
            let answer = client().get(daemon.url("/healthz")).send().await;
            answer
                .is_ok_and(|answer| answer.status() == StatusCode::OK)
                .then_some(())
        })
        .await;
        let fds = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
        assert!(fds.count() < 32 + 64, "{head}");
        drop(held);
    }
    // Those that upload to intake and stand still lose their places, but not at once.
    let held = open("POST /api/v1/alerts/alertmanager HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{").await;
    through(&daemon, "uploads that stand still").await;
    drop(held);
    let lines = daemon.log();
    let lines = lines
        .lines()
        .filter(|line| line.contains("could not be taken"));
    assert!(lines.count() <= 20, "no flood in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_that_run_out_are_told_a_few_times_and_alerts_come_through() {
    let daemon = Daemon::start(&[], "").await;
    let pid = daemon.pid().to_string();
    let fds = || {
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count()
    };
    // So few are left that connections run out of them before they run out of places.
    let limit = fds() + 12;
    let set = Command::new("prlimit")
        .args(["--pid", &pid, &format!("--nofile={limit}")])
        .status();
    assert!(set.unwrap().success());
    let address = daemon.address();
    let held: Vec<_> = (0..60)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    daemon.wait_log("could not be taken").await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        through(&daemon, "without descriptors").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(held);
    let log = daemon.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("could not be taken"));
    assert!(lines.count() <= 10, "{log}");
    assert!(daemon.metric("sentinel_connections_refused_total").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_paths_and_queries_are_bounded() {
    let daemon = Daemon::start(&[], "").await;
    let address = daemon.address();
    let long = "x".repeat(70_000);
    let many: Vec<_> = (0..300).map(|n| format!("x-{n}: y\r\n")).collect();
    let many = many.concat();
    for (request, status) in [
        (
            format!(
                "GET /api/v1/incidents?policy={long} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            ),
            [414, 431],
        ),
        (
            format!(
                "GET /api/v1/incidents/{} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
                long.get(..9000).unwrap()
            ),
            [414, 414],
        ),
        (
            format!(
                "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\nconnection: close\r\n\r\n"
            ),
            [431, 431],
        ),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{many}connection: close\r\n\r\n"),
            [431, 431],
        ),
    ] {
        let answer = beside(move || raw::exchange(address, &request)).await;
        assert!(
            status.contains(&raw::status(&answer)),
            "{status:?}: {answer}"
        );
    }
    for query in [
        "?limit=1&limit=2",
        "?polcy=x",
        "?limit=many",
        "?=",
        "?before=-1",
    ] {
        let (status, body) = daemon
            .get(&format!("/api/v1/incidents{query}"))
            .await
            .unwrap();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {body}");
        let error: Value = serde_json::from_str(&body).unwrap();
        assert!(error["error"].is_string(), "{error}");
    }
    let (_, body) = daemon.get("/api/v1/incidents?polcy=x").await.unwrap();
    assert!(body.contains("did you mean `policy`"), "{body}");
    let (_, body) = daemon.get("/api/v1/incidents/%ff").await.unwrap();
    let error: Value = serde_json::from_str(&body).unwrap();
    assert!(error["error"].is_string(), "{error}");
}

/// A policy that does nothing with what does not exist, and so has an incident with many events.
const WATCH: &str = r#"
policies:
  - name: watch
    match: ['alertname="Watched"']
    target: 'docker://local/infra-sentinel-none-{{ labels.n | default("0") }}'
    mode: auto
    steps:
      - plugin: docker-restart
        timeout: 5s
        attempts: 3
        backoff: 1ms
    verify: { alert: resolved, within: 1s }
    guards: { cooldown: 1s }
    grants:
      docker: { containers: ['infra-sentinel-none-*'], actions: [inspect, restart, start] }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_long_incident_and_a_long_list_come_in_pages() {
    let daemon = Daemon::start(&["docker-restart"], WATCH).await;
    let alerts: Vec<_> = ["1", "2", "3", "4", "5"]
        .map(|n| Alert::firing("Watched", &[("n", n)]))
        .into();
    daemon.deliver(&alerts).await;
    for id in 1..=5 {
        daemon.wait_end(id).await;
    }
    let whole = daemon.json("/api/v1/incidents/1").await;
    assert!(whole["next"].is_null());
    let events = whole["events"].as_array().unwrap();
    assert!(events.len() > 4, "{whole}");
    for limit in 1..=events.len() {
        let (mut paged, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("/api/v1/incidents/1?after={after}&limit={limit}");
            let page = daemon.json(&path).await;
            assert_eq!(
                page["state"], whole["state"],
                "the incident is the same on every page"
            );
            let part = page["events"].as_array().unwrap();
            assert!(!part.is_empty() && part.len() <= limit);
            paged.extend(part.clone());
            match page["next"].as_u64() {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!(&paged, events, "limit {limit}");
    }
    let past = daemon.json("/api/v1/incidents/1?after=1000000").await;
    assert_eq!(past["events"], json!([]));
    let list = daemon.json("/api/v1/incidents?limit=2").await;
    assert_eq!(list["incidents"].as_array().unwrap().len(), 2);
    assert_eq!(list["next"], 4);
    let rest = daemon.json("/api/v1/incidents?limit=3&before=4").await;
    assert_eq!(rest["incidents"].as_array().unwrap().len(), 3);
    assert!(rest["next"].is_null(), "{rest}");
    // The command line pages by itself, from the daemon and from the journal.
    let url = daemon.url("");
    for from in [vec!["--url", &url], vec![]] {
        let mut args = vec!["incidents", "show", "1", "--output", "json"];
        args.extend(from);
        let shown = said(&mut daemon.command(&args)).json();
        assert_eq!(shown["events"], whole["events"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_to_its_own_names_alone() {
    let mut daemon = Daemon::prepare(&[], "");
    daemon.write_config("allowed_hosts: [sentinel, 'monitoring.example.com:8443']");
    daemon.serve().await;
    let address = daemon.address();
    let ask = |head: String| {
        beside(move || {
            raw::status(&raw::exchange(
                address,
                &format!("{head}connection: close\r\n\r\n"),
            ))
        })
    };
    let port = address.port();
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        "LocalHost".to_owned(),
        "[::1]:1".to_owned(),
        "sentinel:9095".to_owned(),
        "sentinel".to_owned(),
        "monitoring.example.com:8443".to_owned(),
    ] {
        let status = ask(format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\n")).await;
        assert_eq!(status, 200, "{host}");
    }
    for host in [
        format!("evil.example:{port}"),
        "127.0.0.1.evil.example".to_owned(),
        "localhost.evil.example".to_owned(),
        "sentinel.evil.example".to_owned(),
        "monitoring.example.com".to_owned(),
        "10.0.0.5".to_owned(),
        "sentinel@evil.example".to_owned(),
        "evil.example#localhost".to_owned(),
        "é".to_owned(),
        String::new(),
    ] {
        let status = ask(format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\n")).await;
        assert!([421, 400].contains(&status), "{host}: {status}");
    }
    // Both of two names, and the one of an absolute form, have to be its own.
    for head in [
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n",
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n",
        "GET http://evil.example/healthz HTTP/1.1\r\nhost: localhost\r\n",
        "GET http://localhost/healthz HTTP/1.1\r\nhost: evil.example\r\n",
        "GET /healthz HTTP/1.1\r\n",
    ] {
        let status = ask(head.to_owned()).await;
        assert!([421, 400].contains(&status), "{head}: {status}");
    }
    // As a container's health check asks; no browser does.
    assert_eq!(ask("GET /healthz HTTP/1.0\r\n".to_owned()).await, 200);
    let body = webhook(&[Alert::firing("Rebound", &[])]).to_string();
    for route in routes(&daemon).await {
        let head = format!(
            "{} {} HTTP/1.1\r\nhost: rebound.example:{port}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            route.method,
            route.path,
            body.len()
        );
        let answer = beside(move || raw::exchange(address, &head)).await;
        assert_eq!(raw::status(&answer), 421, "{route:?}: {answer}");
        assert!(answer.contains("allowed_hosts"), "{answer}");
    }
    assert!(accepted(&daemon).await < 0.1, "nothing was taken");
    assert!(daemon.metric(&rejected("none", "host")).await >= 3.0);
    daemon.wait_log("request refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_page_of_another_site_sends_changes_nothing() {
    let daemon = Daemon::start(&[], "").await;
    let client = client();
    let own = daemon.url("");
    let body = webhook(&[Alert::firing("FromAPage", &[])]).to_string();
    let send = |route: &Route, headers: &[(&'static str, &str)]| {
        let method: Method = route.method.parse().unwrap();
        let request = client.request(method, daemon.url(&route.path));
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let request = request.body(body.clone()).send();
        async move { request.await.unwrap().status() }
    };
    for route in routes(&daemon)
        .await
        .iter()
        .filter(|route| !route.is_safe())
    {
        for headers in [
            [
                ("sec-fetch-site", "cross-site"),
                ("content-type", "application/json"),
            ],
            [
                ("sec-fetch-site", "same-site"),
                ("content-type", "application/json"),
            ],
            [
                ("sec-fetch-site", "nonsense"),
                ("content-type", "text/plain"),
            ],
            [
                ("origin", "http://evil.example"),
                ("content-type", "application/json"),
            ],
            [("origin", "null"), ("content-type", "text/plain")],
            [
                ("origin", "http://localhost:1"),
                ("content-type", "application/json"),
            ],
            [("origin", ""), ("content-type", "application/json")],
            [
                ("origin", "file://"),
                ("content-type", "application/x-www-form-urlencoded"),
            ],
            [
                ("origin", "chrome-extension://abc"),
                ("content-type", "application/json"),
            ],
        ] {
            assert_eq!(
                send(route, &headers).await,
                StatusCode::FORBIDDEN,
                "{route:?} {headers:?}"
            );
        }
        // Its own pages, and what is no page, get as far as the route.
        for headers in [
            [("sec-fetch-site", "same-origin"), ("origin", &*own)],
            [("sec-fetch-site", "none"), ("accept", "*/*")],
        ] {
            let headers = [headers[0], headers[1], ("content-type", "text/plain")];
            assert_ne!(
                send(route, &headers).await,
                StatusCode::FORBIDDEN,
                "{route:?} {headers:?}"
            );
        }
    }
    assert!(accepted(&daemon).await < 0.1, "nothing was taken");
    assert!(daemon.metric(&rejected("none", "cross-site")).await >= 9.0);
    // A preflight is answered without leave.
    let asked = client
        .request(Method::OPTIONS, daemon.url(WEBHOOK))
        .header("origin", "http://evil.example")
        .header("access-control-request-method", "POST")
        .send()
        .await
        .unwrap();
    assert!(!asked.status().is_success());
    assert!(
        asked
            .headers()
            .keys()
            .all(|name| !name.as_str().starts_with("access-control"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_come_through_by_what_they_really_send() {
    let daemon = Daemon::start(&[], "").await;
    let client = client();
    let hook = webhook(&[Alert::firing("Sent", &[])]).to_string();
    let array = json!([{"labels": {"alertname": "Sent"}}]).to_string();
    let send = |path: &'static str, headers: &[(&'static str, &'static str)]| {
        let body = if path == ALERTS {
            array.clone()
        } else {
            hook.clone()
        };
        let request = headers
            .iter()
            .fold(client.post(daemon.url(path)), |request, (name, value)| {
                request.header(*name, *value)
            });
        let request = request.body(body).send();
        async move {
            let answer = request.await.unwrap();
            (answer.status(), answer.text().await.unwrap())
        }
    };
    for (path, headers) in [
        (
            WEBHOOK,
            &[
                ("user-agent", "Alertmanager/0.28.1"),
                ("content-type", "application/json"),
            ][..],
        ),
        (
            WEBHOOK,
            &[
                ("user-agent", "Grafana"),
                ("content-type", "application/json"),
            ],
        ),
        (
            WEBHOOK,
            &[("content-type", "application/json; charset=utf-8")],
        ),
        // Scripts of old, which say nothing.
        (WEBHOOK, &[]),
        (
            ALERTS,
            &[
                ("user-agent", "Prometheus/2.53.3"),
                ("content-type", "application/json"),
            ],
        ),
        (
            ALERTS,
            &[
                ("user-agent", "vmalert"),
                ("content-type", "application/json"),
            ],
        ),
        (
            ALERTS,
            &[
                ("user-agent", "amtool/0.28.1"),
                ("content-type", "application/json"),
                ("accept", "application/json"),
            ],
        ),
        (
            ALERTS,
            &[
                ("user-agent", "Grafana/11"),
                ("content-type", "application/json"),
            ],
        ),
    ] {
        let (status, body) = send(path, headers).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{path} {headers:?}: {body}");
    }
    for (path, headers) in [
        (ALERTS, &[][..]),
        (
            ALERTS,
            &[("content-type", "application/x-www-form-urlencoded")],
        ),
        (ALERTS, &[("content-type", "text/plain")]),
        (
            WEBHOOK,
            &[("content-type", "application/x-www-form-urlencoded")],
        ),
        (WEBHOOK, &[("content-type", "text/plain;charset=UTF-8")]),
        (
            WEBHOOK,
            &[("content-type", "multipart/form-data; boundary=x")],
        ),
        ("/api/v1/pauses", &[]),
        ("/api/v1/pauses", &[("content-type", "text/plain")]),
    ] {
        let (status, body) = send(path, headers).await;
        assert_eq!(
            status,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "{path} {headers:?}: {body}"
        );
        assert!(
            body.contains("-H 'Content-Type: application/json'"),
            "{body}"
        );
    }
    assert!((daemon.metric(&rejected("alertmanager", "no-json")).await - 3.0).abs() < 0.1);
    assert!((daemon.metric(&rejected("prometheus", "no-json")).await - 3.0).abs() < 0.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_operators_body_is_half_understood() {
    let daemon = Daemon::start(&[], "").await;
    for route in routes(&daemon)
        .await
        .into_iter()
        .filter(Route::takes_object)
    {
        for (body, says) in [
            (r#"{"zzz":1,"by":"ann"}"#, "`zzz`"),
            (r#"{"by":"ann","by":"bob"}"#, "twice"),
            ("[]", "JSON object"),
            ("\"by\"", "JSON object"),
            ("", "not understood"),
            ("{", "not understood"),
            (r#"{"by":"ann"}{"by":"ann"}"#, "trailing"),
            (r#"{"by":7}"#, "not understood"),
        ] {
            let (status, said) = daemon.post(&route.path, body).await;
            assert!(
                [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY].contains(&status),
                "{route:?} {body}: {status} {said}"
            );
            assert!(said.contains(says), "{route:?} {body}: {said}");
        }
    }
    // A mistyped time does not make a pause without end.
    let (_, said) = daemon
        .post(
            "/api/v1/pauses",
            r#"{"all":true,"fro":"2h","by":"ann","reason":"a deploy"}"#,
        )
        .await;
    assert!(said.contains("did you mean `for`"), "{said}");
    assert_eq!(daemon.json("/api/v1/pauses").await["pauses"], json!([]));
    let (status, said) = daemon
        .post(
            "/api/v1/pauses",
            r#"{"all":true,"for":"2h","by":"ann","reason":"a deploy"}"#,
        )
        .await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let pauses = daemon.json("/api/v1/pauses").await;
    assert!(pauses["pauses"][0]["until"].is_string(), "{pauses}");
    let install = client()
        .put(daemon.url("/api/v1/plugins/x?by=ann&acept=true"))
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(install.status(), StatusCode::BAD_REQUEST);
    assert!(
        install
            .text()
            .await
            .unwrap()
            .contains("did you mean `accept`")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn listening_for_others_takes_a_word() {
    for (listen, open) in [
        ("0.0.0.0:0", false),
        ("'[::]:0'", false),
        ("127.0.0.1:0", true),
        ("'[::1]:0'", true),
    ] {
        let daemon = Daemon::prepare(&[], "");
        let config = std::fs::read_to_string(daemon.path("sentinel.yaml")).unwrap();
        let config = config.replace(
            &format!("listen: {}", daemon.address()),
            &format!("listen: {listen}"),
        );
        std::fs::write(daemon.path("sentinel.yaml"), config).unwrap();
        let check = said(&mut daemon.command(&["check"]));
        if open {
            assert_eq!(check.code, 0, "{listen}: {}", check.err);
            continue;
        }
        for command in ["check", "serve"] {
            let refused = said(&mut daemon.command(&[command]));
            assert_eq!(refused.code, 78, "{command} {listen}: {}", refused.err);
            assert!(
                refused.err.contains("access: open") && refused.err.contains("hint:"),
                "{}",
                refused.err
            );
        }
        let mut command = daemon.command(&["check"]);
        let check = said(command.env("SENTINEL_ACCESS", "open"));
        assert_eq!(check.code, 0, "{}", check.err);
    }
    let mut daemon = Daemon::prepare(&[], "");
    let all = format!("0.0.0.0:{}", daemon.address().port());
    daemon.set("SENTINEL_LISTEN", &all);
    daemon.set("SENTINEL_ACCESS", "open");
    daemon.serve().await;
    daemon.wait_log("access is open").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_goes_wrong_is_seen_and_told_where_to_go() {
    let daemon = Daemon::start(&[], "").await;
    let hook = webhook(&[Alert::firing("Slash", &[])]).to_string();
    let array = json!([{"labels": {"alertname": "Slash"}}]).to_string();
    let address = daemon.address();
    for (path, body) in [
        ("//api/v2/alerts", &array),
        ("/api//v2/alerts/", &array),
        ("///api/v1/alerts//alertmanager", &hook),
        ("/api/v1/alerts/alertmanager//", &hook),
    ] {
        // A client would tidy the path up.
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = beside(move || raw::exchange(address, &request)).await;
        assert_eq!(raw::status(&answer), 202, "{path}: {answer}");
    }
    for route in routes(&daemon).await.iter().filter(|route| route.is_safe()) {
        let (status, body) = daemon.get(&route.path).await.unwrap();
        let (slash, _) = daemon.get(&format!("{}/", route.path)).await.unwrap();
        assert_eq!(status, slash, "{route:?}: {body}");
        assert!(!status.is_redirection());
    }
    let before = daemon.metric(&rejected("none", "no-such-path")).await;
    assert!(before < 0.1);
    let wrong = [
        ("/api/v1/alerts", "api_version: v2"),
        ("/alertmanager/api/v2/alerts", "prefix /alertmanager"),
        ("/sentinel/api/v1/alerts/alertmanager", "prefix /sentinel"),
        ("/", "/api/v1/alerts/alertmanager"),
        ("/api/v2/alerts/x", "/api/v2/alerts"),
        ("/api/v1/incidents", "is not for POST"),
    ];
    for (path, says) in wrong {
        let (status, body) = daemon.post(path, array.clone()).await;
        assert!(
            [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&status),
            "{path}: {status}"
        );
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(
            body["error"].as_str().unwrap().contains(says),
            "{path}: {body}"
        );
    }
    for _ in 0..100 {
        daemon.post("/flood", "[]").await;
    }
    let after = daemon.metric(&rejected("none", "no-such-path")).await;
    assert!((after - 106.0).abs() < 0.1, "{after}");
    let log = daemon.log();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("request refused"))
        .collect();
    assert!((1..=20).contains(&lines.len()), "{}", lines.len());
    assert!(
        lines[0].contains("WARN") && lines[0].contains("/api/v1/alerts"),
        "{}",
        lines[0]
    );
    // A look is no delivery.
    daemon.get("/favicon.ico").await.unwrap();
    let same = daemon.metric(&rejected("none", "no-such-path")).await;
    assert!((after - same).abs() < 0.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_taken_for_a_page() {
    let daemon = Daemon::start(&[], "").await;
    let client = client();
    let nasty = "%3Cscript%3Ealert(1)%3C%2Fscript%3E%22%0a";
    let mut asked: Vec<_> = routes(&daemon)
        .await
        .into_iter()
        .map(|route| (route.method, route.path))
        .collect();
    for path in [
        format!("/{nasty}"),
        format!("/api/v1/incidents/{nasty}"),
        format!("/api/v1/incidents?state={nasty}"),
        format!("/api/v1/incidents?{nasty}=1"),
    ] {
        asked.push(("GET".to_owned(), path));
    }
    asked.push(("PATCH".to_owned(), "/healthz".to_owned()));
    for (method, path) in asked {
        let method: Method = method.parse().unwrap();
        let answer = client
            .request(method.clone(), daemon.url(&path))
            .send()
            .await
            .unwrap();
        let header = |name: &str| {
            answer
                .headers()
                .get(name)
                .map_or("", |value| value.to_str().unwrap())
                .to_owned()
        };
        assert_eq!(
            header("x-content-type-options"),
            "nosniff",
            "{method} {path}"
        );
        assert!(
            header("content-security-policy").contains("default-src 'none'"),
            "{method} {path}"
        );
        assert_eq!(header("cross-origin-resource-policy"), "same-origin");
        let kind = header("content-type");
        assert!(
            kind == "application/json" || path == "/metrics",
            "{method} {path}: {kind}"
        );
        let (status, body) = (answer.status(), answer.text().await.unwrap());
        assert!(!status.is_redirection());
        if kind == "application/json" {
            serde_json::from_str::<Value>(&body)
                .unwrap_or_else(|error| panic!("{method} {path}: {error}: {body}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_in_the_documentation() {
    let daemon = Daemon::start(&[], "").await;
    let docs =
        std::fs::read_to_string(sentinel_tests::root().join("docs/configuration.md")).unwrap();
    let index = daemon.json("/api/v1").await;
    for route in index["routes"].as_array().unwrap() {
        let (method, path) = (
            route["method"].as_str().unwrap(),
            route["path"].as_str().unwrap(),
        );
        let told = docs.lines().any(|line| {
            let cell = line
                .strip_prefix("| ")
                .and_then(|line| line.split(" | ").next());
            let named = |cell: &str| {
                cell.contains(&format!("{path}`")) || cell.contains(&format!("{path}?"))
            };
            cell.is_some_and(|cell| cell.contains(method) && named(cell))
        });
        assert!(told, "{method} {path}");
    }
}
