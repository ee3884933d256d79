//! Those that speak to the daemon over HTTP, for real: Prometheus, Alertmanager, amtool and promtool as Debian has them,
//! and a browser that shows a hostile page.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::StatusCode;
use sentinel_tests::daemon::{Daemon, client};
use sentinel_tests::payload::Alert;
use sentinel_tests::{eventually, unpacked};
use serde_json::{Value, json};

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        assert!(ended.is_ok(), "it could not be ended");
    }
}

fn start(folder: &str, program: &str, args: &[&str], log: &Path) -> Running {
    let log = fs::File::create(log).unwrap();
    let child = Command::new(unpacked(folder, program))
        .args(args)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{program}: {error}; `stack/setup/packages.sh tests` gets it")
        });
    Running(child)
}

/// Ports that nobody listened on a moment ago.
fn ports<const N: usize>() -> [u16; N] {
    let held: Vec<_> = (0..N)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    std::array::from_fn(|at| held[at].local_addr().unwrap().port())
}

async fn arrived(daemon: &Daemon, source: &str, alert: &str) {
    let name = format!(r#"sentinel_alerts_received_total{{source="{source}",status="firing"}}"#);
    let what = format!("{alert} by {source}: {}", daemon.log());
    eventually(&what, Duration::from_secs(60), || async {
        (daemon.metric(&name).await >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_alertmanager_and_amtool_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let daemon = Daemon::start(&[], "").await;

    // What it says of the answer is its own matter: it expects 200 and nothing else.
    let amtool = Command::new(unpacked("prometheus-alertmanager", "amtool"))
        .args(["alert", "add", "ByAmtool", "severity=warning"])
        .arg(format!("--alertmanager.url={}", daemon.url("")))
        .output()
        .unwrap();
    let what = String::from_utf8_lossy(&amtool.stderr);
    assert!(
        !what.contains("403") && !what.contains("415") && !what.contains("421"),
        "{what}"
    );
    arrived(&daemon, "prometheus", "ByAmtool").await;

    let [alertmanager, prometheus] = ports();
    fs::write(
        path("alertmanager.yml"),
        format!(
            "route: {{ receiver: s, group_wait: 0s, group_interval: 1s }}\nreceivers: [{{ name: s, webhook_configs: [{{ url: '{}' }}] }}]\n",
            daemon.url("/api/v1/alerts/alertmanager")
        ),
    )
    .unwrap();
    let _alertmanager = start(
        "prometheus-alertmanager",
        "prometheus-alertmanager",
        &[
            &format!("--config.file={}", text("alertmanager.yml")),
            &format!("--storage.path={}", text("alertmanager")),
            &format!("--web.listen-address=127.0.0.1:{alertmanager}"),
            "--cluster.listen-address=",
        ],
        &path("alertmanager.log"),
    );
    let to = format!("http://127.0.0.1:{alertmanager}");
    eventually(
        "alertmanager takes an alert",
        Duration::from_secs(60),
        || async {
            let said = client()
                .post(format!("{to}/api/v2/alerts"))
                .header("content-type", "application/json")
                .body(json!([{"labels": {"alertname": "ByAlertmanager"}}]).to_string())
                .send()
                .await;
            said.is_ok_and(|said| said.status().is_success())
                .then_some(())
        },
    )
    .await;
    arrived(&daemon, "alertmanager", "ByAlertmanager").await;

    // Prometheus itself, in the place of an Alertmanager, by a second daemon; and it scrapes.
    let second = Daemon::start(&["docker-restart"], POLICY).await;
    fs::write(
        path("rules.yml"),
        "groups: [{ name: a, rules: [{ alert: ByPrometheus, expr: vector(1) }] }]\n",
    )
    .unwrap();
    fs::write(
        path("prometheus.yml"),
        format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [rules.yml]\nalerting: {{ alertmanagers: [{{ static_configs: [{{ targets: ['{0}'] }}] }}] }}\nscrape_configs: [{{ job_name: sentinel, static_configs: [{{ targets: ['{0}'] }}] }}]\n",
            second.address()
        ),
    )
    .unwrap();
    let _prometheus = start(
        "prometheus",
        "prometheus",
        &[
            &format!("--config.file={}", text("prometheus.yml")),
            &format!("--storage.tsdb.path={}", text("tsdb")),
            &format!("--web.listen-address=127.0.0.1:{prometheus}"),
            // What was dropped before it had found its Alertmanager is sent again soon.
            "--rules.alert.resend-delay=1s",
        ],
        &path("prometheus.log"),
    );
    arrived(&second, "prometheus", "ByPrometheus").await;
    let query = format!(
        "http://127.0.0.1:{prometheus}/api/v1/query?query=sentinel_incidents_ended_total%7Bend%3D%22escalated%22%7D"
    );
    let series = eventually(
        "prometheus has scraped",
        Duration::from_secs(60),
        || async {
            let answer: Value = client().get(&query).send().await.ok()?.json().await.ok()?;
            answer["data"]["result"].get(0).cloned()
        },
    )
    .await;
    assert_eq!(series["metric"]["policy"], "watch");
    assert_eq!(series["value"][1], "0", "there before the first one");
}

/// A policy whose target does not exist, so that its incidents are escalated.
const POLICY: &str = r#"
policies:
  - name: watch
    match: ['alertname="Watched"']
    target: docker://local/infra-sentinel-none
    mode: auto
    steps:
      - plugin: docker-restart
        timeout: 5s
    verify: { alert: resolved, within: 1s }
    guards: { cooldown: 1s }
    grants:
      docker: { containers: ['infra-sentinel-none'], actions: [inspect, restart, start] }
"#;

fn promtool(args: &[&str], stdin: &str) -> (bool, String) {
    let mut child = Command::new(unpacked("prometheus", "promtool"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: `stack/setup/packages.sh tests` gets it");
    let written = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    written.unwrap();
    (output.status.success(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_has_nothing_against_the_metrics() {
    let daemon = Daemon::start(&["docker-restart"], POLICY).await;
    daemon.deliver(&[Alert::firing("Watched", &[])]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let get = |accept: &'static str| {
        let request = client()
            .get(daemon.url("/metrics"))
            .header("accept", accept);
        async move {
            let answer = request.send().await.unwrap();
            let kind = answer.headers()["content-type"]
                .to_str()
                .unwrap()
                .to_owned();
            (kind, answer.text().await.unwrap())
        }
    };
    for accept in ["text/plain;version=0.0.4", "*/*", "text/html"] {
        let (kind, text) = get(accept).await;
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8", "{accept}");
        let (good, said) = promtool(&["check", "metrics"], &text);
        assert!(good && said.is_empty(), "{said}\n{text}");
        assert!(text.contains("# TYPE sentinel_incidents_ended_total counter\n"));
        assert!(text.contains("# TYPE sentinel_build_info gauge\n"));
        assert!(!text.contains("# EOF"));
    }
    let (kind, open) =
        get("application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5")
            .await;
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE sentinel_build info\n"));
    let series = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut names: Vec<_> = lines
            .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
            .collect();
        names.sort();
        names
    };
    let (_, text) = get("text/plain").await;
    assert_eq!(series(&text), series(&open));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_escalation_is_an_increase() {
    const NAME: &str = r#"sentinel_incidents_ended_total{policy="watch",end="escalated"}"#;
    let daemon = Daemon::start(&["docker-restart"], POLICY).await;
    let (_, metrics) = daemon.get("/metrics").await.unwrap();
    assert!(
        metrics.lines().any(|line| line == format!("{NAME} 0")),
        "{metrics}"
    );
    for name in [
        r#"sentinel_incidents_opened_total{policy="watch"} 0"#,
        r#"sentinel_storms_total{policy="watch"} 0"#,
        r#"sentinel_incidents_held_total{policy="watch",guard="rate"} 0"#,
        r#"sentinel_runs_total{plugin="docker-restart",result="retryable"} 0"#,
        r#"sentinel_deliveries_rejected_total{source="prometheus",reason="malformed"} 0"#,
        r#"sentinel_effects_total{call="docker.restart",result="error"} 0"#,
        r#"sentinel_reloads_total{what="configuration",result="refused"} 0"#,
    ] {
        assert!(
            metrics.lines().any(|line| line == name),
            "{name} in {metrics}"
        );
    }
    // The rule that ships, with what the daemon shows before and after.
    let rules = sentinel_tests::root().join("stack/prometheus/rules");
    let file = fs::read_dir(&rules)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            fs::read_to_string(path)
                .unwrap()
                .contains("SentinelEscalated")
        })
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let test = |values: &str| {
        let test = format!(
            "rule_files: ['{}']\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series: [{{ series: '{NAME}', values: '{values}' }}]\n    alert_rule_test: [{{ eval_time: 5m, alertname: SentinelEscalated, exp_alerts: [{{ exp_labels: {{ policy: watch, end: escalated, severity: page }}, exp_annotations: {{ summary: 'policy watch gave an incident up: sentinel incidents list --state escalated' }} }}] }}]\n",
            file.display()
        );
        let path = folder.path().join("test.yml");
        fs::write(&path, test).unwrap();
        promtool(&["test", "rules", path.to_str().unwrap()], "")
    };
    let (fires, said) = test("0 0 0 1 1 1");
    assert!(fires, "{said}");
    // So it was when the series began with its first escalation.
    let (fires, _) = test("_ _ _ 1 1 1");
    assert!(!fires);
    daemon.deliver(&[Alert::firing("Watched", &[])]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    assert!((daemon.metric(NAME).await - 1.0).abs() < 0.1);
    // A policy that comes later has its series from then on, and one that goes leaves them.
    daemon.write_policies(&POLICY.replace("name: watch", "name: later"));
    let later = NAME.replace("watch", "later");
    eventually("the series", Duration::from_secs(30), || async {
        let (_, metrics) = daemon.get("/metrics").await.ok()?;
        metrics.contains(&format!("{later} 0")).then_some(())
    })
    .await;
    assert!((daemon.metric(NAME).await - 1.0).abs() < 0.1);
}

/// A server of pages, and of whatever it is sent: what it was sent is kept.
struct Pages {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Pages {
    fn serve(page: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (page, kept) = (page.clone(), kept.clone());
                std::thread::spawn(move || one(stream, &page, &kept));
            }
        });
        Self { address, asked }
    }
}

fn one(mut stream: TcpStream, page: &str, kept: &Mutex<Vec<String>>) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
    }
    kept.lock()
        .unwrap()
        .push(String::from_utf8_lossy(&request).into_owned());
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
        page.len()
    );
    let sent = stream.write_all(answer.as_bytes());
    drop(sent);
}

/// What a browser makes of a page, when its scripts have had their time.
fn browse(url: &str, rules: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .args([
            "--disable-dev-shm-usage",
            "--dump-dom",
            "--virtual-time-budget=30000",
            "--timeout=60000",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--host-resolver-rules={rules}"))
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .expect("chromium: `stack/setup/packages.sh tests` gets it");
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_real_browser_changes_nothing_and_reads_nothing() {
    let daemon = Daemon::start(&[], "").await;
    let alert = json!({"version": "4", "status": "firing", "alerts": [{"status": "firing", "labels": {"alertname": "FromAPage"}, "startsAt": "2026-01-01T00:00:00Z"}]});
    let pause = json!({"all": true, "by": "a page", "reason": "because it can"});
    let page = format!(
        r#"<!doctype html><title>page</title>
<iframe name="sink"></iframe>
<form id="form" target="sink" method="post" enctype="text/plain" action="{daemon}/api/v1/alerts/alertmanager"><input name='{half}' value='"}}'></form>
<pre id="said">nothing yet</pre>
<script>
const daemon = "{daemon}", hook = daemon + "/api/v1/alerts/alertmanager", array = daemon + "/api/v2/alerts";
const alert = {alert:?}, alerts = '[{{"labels":{{"alertname":"FromAPage"}}}}]', pause = {pause:?};
const said = [];
async function attempt(name, url, options) {{
  try {{ const answer = await fetch(url, options); said.push(name + "=" + answer.type + answer.status); }}
  catch (error) {{ said.push(name + "=error"); }}
}}
(async () => {{
  const simple = (body) => ({{ method: "POST", mode: "no-cors", headers: {{ "content-type": "text/plain" }}, body }});
  await attempt("control", "http://localhost:" + location.port + "/control", simple(alert));
  await attempt("simple", hook, simple(alert));
  await attempt("simple-array", array, simple(alerts));
  await attempt("simple-pause", daemon + "/api/v1/pauses", simple(pause));
  await attempt("untyped", hook, {{ method: "POST", mode: "no-cors", body: new Blob([alert]) }});
  await attempt("json", hook, {{ method: "POST", headers: {{ "content-type": "application/json" }}, body: alert }});
  await attempt("json-pause", daemon + "/api/v1/pauses", {{ method: "POST", headers: {{ "content-type": "application/json" }}, body: pause }});
  await attempt("put", daemon + "/api/v1/plugins/evil?by=page", {{ method: "PUT", body: "x" }});
  await attempt("delete", daemon + "/api/v1/plugins/evil?by=page", {{ method: "DELETE" }});
  await attempt("read", daemon + "/api/v1/status", {{}});
  said.push("beacon=" + navigator.sendBeacon(hook, new Blob([alert], {{ type: "text/plain" }})));
  document.getElementById("form").submit();
  setTimeout(() => {{ document.getElementById("said").textContent = "done " + said.join(" "); }}, 2000);
}})();
</script>"#,
        daemon = daemon.url(""),
        half = r#"{"version":"4","alerts":[],"x":""#,
        alert = alert.to_string(),
        pause = pause.to_string(),
    );
    let pages = Pages::serve(page);
    let url = format!("http://127.0.0.1:{}/", pages.address.port());
    let dom = tokio::task::spawn_blocking(move || browse(&url, ""))
        .await
        .unwrap();
    assert!(dom.contains("done "), "{dom}");
    // It does send such things, and they reach whoever does not look.
    let asked = pages.asked.lock().unwrap().clone();
    let control = asked
        .iter()
        .find(|request| request.starts_with("POST /control"))
        .expect("the control");
    assert!(
        control.to_lowercase().contains("content-type: text/plain"),
        "{control}"
    );
    for refused in [
        "json=error",
        "json-pause=error",
        "put=error",
        "delete=error",
        "read=error",
    ] {
        assert!(dom.contains(refused), "{refused} in {dom}");
    }
    let rejected = daemon
        .metric(r#"sentinel_deliveries_rejected_total{source="none",reason="cross-site"}"#)
        .await;
    assert!(rejected >= 5.0, "they did arrive: {rejected}\n{dom}");
    for source in ["alertmanager", "prometheus"] {
        let name =
            format!(r#"sentinel_alerts_received_total{{source="{source}",status="firing"}}"#);
        assert!(daemon.metric(&name).await < 0.1, "{source}: {dom}");
    }
    assert_eq!(daemon.json("/api/v1/pauses").await["pauses"], json!([]));

    // A page whose name leads here now is of the same site for the browser, and reads nothing all the same.
    let port = daemon.address().port();
    let see = |host: &'static str| {
        tokio::task::spawn_blocking(move || {
            browse(
                &format!("http://{host}:{port}/api/v1/status"),
                "MAP rebound.example 127.0.0.1",
            )
        })
    };
    let rebound = see("rebound.example").await.unwrap();
    assert!(
        rebound.contains("allowed_hosts") && !rebound.contains("started_at"),
        "{rebound}"
    );
    let own = see("127.0.0.1").await.unwrap();
    assert!(own.contains("started_at"), "its own pages are there: {own}");
    let (status, _) = daemon.get("/healthz").await.unwrap();
    assert_eq!(status, StatusCode::OK);
}
