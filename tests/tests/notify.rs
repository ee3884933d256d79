//! The built-in plugins `notify` and `notify-email` through the real daemon: what people are
//! told, by which way, with which secrets, and what happens when nobody listens.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use sentinel_tests::containers::docker_ok;
use sentinel_tests::daemon::{Daemon, count, said};
use sentinel_tests::mail::{MailServer, PASSWORD, USER};
use sentinel_tests::payload::Alert;
use sentinel_tests::receiver::{Receiver, Told};
use sentinel_tests::remote::free_address;
use sentinel_tests::{eventually, root};
use serde_json::Value;

const PLUGINS: [&str; 3] = ["docker-restart", "notify", "notify-email"];
const GONE: &str = "infra-sentinel-test-there-is-no-such-container";

/// A policy whose only step fails for good, and whose `escalate` is `notify` with these
/// params, granted this of http.
fn escalates(params: &str, http: &str) -> String {
    escalates_by(
        &format!("plugin: notify, params: {params}"),
        &format!("http: {http}"),
    )
}

/// The same by this plugin with these params, granted this.
fn escalates_by(plugin: &str, grant: &str) -> String {
    format!(
        r#"
policies:
  - name: web-down
    match: ['alertname="WebDown"']
    target: 'docker://local/{{{{ labels.container }}}}'
    mode: auto
    steps: [{{ plugin: docker-restart }}]
    grants:
      docker: {{ containers: ['infra-sentinel-test-*'], actions: [inspect, restart, start] }}
      {grant}
    escalate: {{ {plugin}, timeout: 20s }}
"#
    )
}

/// A policy with these steps and no other way to tell anybody.
fn climbs(mode: &str, steps: &str, http: &str) -> String {
    format!(
        r#"
policies:
  - name: web-down
    match: ['alertname="WebDown"']
    target: 'docker://local/{{{{ labels.container }}}}'
    mode: {mode}
    steps: {steps}
    verify: {{ alert: resolved, within: 1s, steady: 0s }}
    grants: {{ http: {http} }}
"#
    )
}

fn down() -> Alert {
    Alert::firing("WebDown", &[("container", GONE), ("severity", "critical")])
}

/// Writes a secret beside the configuration.
fn secret(daemon: &Daemon, name: &str, value: &str, mode: u32) {
    let path = daemon.path(name);
    fs::write(&path, format!("{value}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Everything that the daemon has written, wherever.
async fn all_that_is_kept(daemon: &Daemon) -> Vec<u8> {
    let mut all = daemon.log().into_bytes();
    let (_, incident) = daemon.get("/api/v1/incidents/1").await.unwrap();
    all.extend(incident.into_bytes());
    for entry in fs::read_dir(daemon.path("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            all.extend(fs::read(path).unwrap());
        }
    }
    all
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_hears_why_and_what_was_tried_by_a_url_that_nobody_sees() {
    let chat = Receiver::new(|_| 200).await;
    let policies = escalates(
        "{ kind: slack, url: 'secret://chat-url', message: 'Ask the web team.' }",
        "{ urls: ['http://127.0.0.1:*/services/**'], methods: [POST], secrets: [chat-url] }"
            .replace(":*", &format!(":{}", chat.address().port()))
            .as_str(),
    );
    let mut daemon = Daemon::prepare(&PLUGINS, &policies);
    let hidden = "T0123/B4567/s3cr3tpath";
    secret(
        &daemon,
        "chat-url",
        &chat.url(&format!("/services/{hidden}")),
        0o600,
    );
    daemon.write_config("http: { secrets: { chat-url: { file: chat-url } } }\n");
    daemon.serve().await;
    daemon.deliver(&[down()]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let told = chat.told();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].line, format!("POST /services/{hidden} HTTP/1.1"));
    let body = told[0].json();
    assert_eq!(
        body["text"],
        format!("WebDown on docker://local/{GONE} needs a person")
    );
    let attachment = body["attachments"].to_string();
    for part in [
        "Ask the web team.",
        "the ladder is used up",
        // What was tried.
        "run-started: run 1.1 started: step 1, attempt 1, docker-restart",
        "not done: docker.inspect",
        "sentinel incidents show 1",
        "web-down",
    ] {
        assert!(attachment.contains(part), "{part} in {attachment}");
    }
    let incident = daemon.incident(1).await;
    assert_eq!(count(&incident, "effect-began"), 1, "{incident:#}");
    assert_eq!(count(&incident, "effect-ended"), 1, "{incident:#}");
    let shown = said(&mut daemon.command(&["incidents", "show", "1"]));
    assert!(
        shown.out.contains("http.send POST secret://chat-url") && shown.out.contains("status 200"),
        "{}",
        shown.out
    );
    let kept = all_that_is_kept(&daemon).await;
    assert!(holds(&kept, "secret://chat-url"), "the search works");
    assert!(!holds(&kept, "s3cr3tpath"), "the secret is kept nowhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_busy_is_told_again() {
    let hook = Receiver::new(|number| if number < 2 { 503 } else { 204 }).await;
    let policies = escalates(
        &format!(
            "{{ kind: webhook, url: '{}', headers: {{ authorization: 'secret://token' }} }}",
            hook.url("/hook")
        ),
        &format!(
            "{{ urls: ['{}'], methods: [POST], secrets: [token], answers: true }}",
            hook.url("/hook")
        ),
    );
    let mut daemon = Daemon::prepare(&PLUGINS, &policies);
    daemon.write_config("http: { secrets: { token: { env: TEST_TOKEN } } }\n");
    daemon.set("TEST_TOKEN", "Bearer s3cr3t-token");
    daemon.serve().await;
    daemon.deliver(&[down()]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let told = hook.told();
    assert_eq!(told.len(), 3);
    for request in &told {
        assert!(
            request
                .headers
                .contains("authorization: Bearer s3cr3t-token"),
            "{}",
            request.headers
        );
    }
    let body = told[2].json();
    assert_eq!(body["version"], 1);
    assert_eq!(body["kind"], "escalation");
    assert_eq!(body["incident"], "1");
    assert_eq!(body["severity"], "critical");
    assert_eq!(body["alert"]["labels"]["container"], GONE);
    let timeline = body["timeline"].as_array().unwrap();
    assert!(timeline.len() > 5, "{timeline:#?}");
    let incident = daemon.incident(1).await;
    // In one run: nobody has to wait for the next.
    let runs = count(&incident, "run-started");
    assert_eq!(runs, 2, "{incident:#}");
    let shown = said(&mut daemon.command(&["incidents", "show", "1"]));
    assert!(shown.out.contains("status 503"), "{}", shown.out);
    assert!(shown.out.contains("answer: answer 0"), "{}", shown.out);
    assert!(!holds(&all_that_is_kept(&daemon).await, "s3cr3t-token"));
    // It can be played again from its record, without a word to anybody.
    let replayed = said(&mut daemon.command(&["replay", "1.2"]));
    assert_eq!(replayed.code, 0, "{}{}", replayed.out, replayed.err);
    assert_eq!(hook.told().len(), 3);
}

/// A server that repeats what it was sent, in spellings that its programs give to it. With
/// `answers` the plugin is told the rest of what it says, and without it the status alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_a_server_repeats_is_kept_nowhere() {
    const PLANTED: &str = "Bearer pl4nted/t0ken+\"value\"";
    for answers in [true, false] {
        let address = "127.0.0.1:0".parse().unwrap();
        let hook = Receiver::saying(address, |_, told: &Told| {
            let sent = told
                .headers
                .lines()
                .find_map(|line| line.strip_prefix("authorization: "));
            let sent = sent.unwrap_or_default();
            let json = serde_json::Value::from(sent).to_string();
            let twice = serde_json::Value::from(json.as_str()).to_string();
            let spelt = |spell: fn(u8) -> String| sent.bytes().map(spell).collect::<String>();
            let percent = spelt(|byte| format!("%{byte:02X}"));
            let html = spelt(|byte| format!("&#{byte};"));
            let hex = spelt(|byte| format!("{byte:02x}"));
            let body = [sent, &json, &twice, &percent, &html, &hex].join(" | ");
            (400, format!("no such key: {body}"))
        })
        .await;
        let policies = escalates(
            &format!(
                "{{ kind: webhook, url: '{}', headers: {{ authorization: 'secret://token' }} }}",
                hook.url("/hook")
            ),
            &format!(
                "{{ urls: ['{}'], methods: [POST], secrets: [token], answers: {answers} }}",
                hook.url("/hook")
            ),
        );
        let mut daemon = Daemon::prepare(&PLUGINS, &policies);
        daemon.write_config("http: { secrets: { token: { env: TEST_TOKEN } } }\n");
        daemon.set("TEST_TOKEN", PLANTED);
        daemon.serve().await;
        daemon.deliver(&[down()]).await;
        assert_eq!(daemon.wait_end(1).await, "escalated");
        assert!(hook.told()[0].headers.contains(PLANTED));
        let kept = all_that_is_kept(&daemon).await;
        for planted in [
            "pl4nted",
            "t0ken",
            "pl4nted%2Ft0ken",
            "%70%6C%34",
            "&#112;&#108;",
            "706c346e",
        ] {
            assert!(!holds(&kept, planted), "{planted} is kept nowhere");
        }
        let shown = said(&mut daemon.command(&["incidents", "show", "1"]));
        assert!(shown.out.contains("status is 400"), "{}", shown.out);
        assert_eq!(
            shown.out.contains("no such key: [secret]"),
            answers,
            "{}",
            shown.out
        );
        assert_eq!(
            shown.out.contains("is kept back"),
            !answers,
            "{}",
            shown.out
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pager_gets_its_key_from_the_host() {
    let pager = Receiver::new(|_| 202).await;
    let policies = escalates(
        &format!(
            "{{ kind: pagerduty, key: 'secret://pager-key', url: '{}' }}",
            pager.url("/v2/enqueue")
        ),
        &format!(
            "{{ urls: ['{}'], methods: [POST], secrets: ['pager-*'] }}",
            pager.url("/v2/*")
        ),
    );
    let mut daemon = Daemon::prepare(&PLUGINS, &policies);
    secret(&daemon, "key", "R0123456789s3cr3t", 0o644);
    daemon.write_config("");
    daemon.set("SENTINEL_HTTP_SECRETS", "pager-key=key");
    daemon.serve().await;
    // Docker and Kubernetes keep secrets like this.
    daemon.wait_log("everybody on this machine can read").await;
    daemon.deliver(&[down()]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let told = pager.told();
    assert_eq!(told.len(), 1);
    let event = told[0].json();
    assert_eq!(event["routing_key"], "R0123456789s3cr3t");
    assert_eq!(event["event_action"], "trigger");
    assert_eq!(
        event["dedup_key"],
        format!("sentinel/web-down/docker://local/{GONE}")
    );
    assert_eq!(event["payload"]["severity"], "critical");
    assert!(
        event["payload"]["custom_details"]["timeline"]
            .as_str()
            .unwrap()
            .contains("docker-restart")
    );
    assert!(!holds(
        &all_that_is_kept(&daemon).await,
        "R0123456789s3cr3t"
    ));
}

/// A real Alertmanager on loopback.
struct Alertmanager {
    name: String,
    base: String,
    _config: tempfile::TempDir,
}

impl Alertmanager {
    fn run() -> Self {
        let compose = fs::read_to_string(root().join("stack/compose.yaml")).unwrap();
        let image = compose
            .lines()
            .filter_map(|line| line.trim().strip_prefix("image:"))
            .find(|image| image.contains("alertmanager"))
            .expect("the stack has an alertmanager")
            .trim()
            .to_owned();
        let config = tempfile::tempdir().unwrap();
        fs::set_permissions(config.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(
            config.path().join("alertmanager.yml"),
            "route: { receiver: none }\nreceivers: [{ name: none }]\n",
        )
        .unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let name = format!("infra-sentinel-test-notify-{port}");
        docker_ok(&[
            "run",
            "--detach",
            "--label",
            "infra-sentinel",
            "--network",
            "host",
            "--name",
            &name,
            "--volume",
            &format!("{}:/etc/alertmanager:ro", config.path().display()),
            &image,
            "--config.file=/etc/alertmanager/alertmanager.yml",
            "--storage.path=/alertmanager",
            "--cluster.listen-address=",
            &format!("--web.listen-address=127.0.0.1:{port}"),
        ]);
        Self {
            name,
            base: format!("http://127.0.0.1:{port}"),
            _config: config,
        }
    }

    async fn alerts(&self) -> Option<Vec<Value>> {
        let answer = reqwest::get(format!("{}/api/v2/alerts", self.base)).await;
        answer.ok()?.json().await.ok()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let removed = Command::new("docker")
            .args(["rm", "--force", "--volumes", &self.name])
            .output();
        drop(removed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_alertmanager_takes_the_alert_and_keeps_it_firing() {
    let alertmanager = Alertmanager::run();
    let policies = escalates(
        &format!(
            "{{ kind: alertmanager, url: '{}', labels: {{ team: oncall }} }}",
            alertmanager.base
        ),
        &format!(
            "{{ urls: ['{}/api/v2/alerts'], methods: [POST] }}",
            alertmanager.base
        ),
    );
    let daemon = Daemon::start(&PLUGINS, &policies).await;
    eventually("alertmanager answers", Duration::from_secs(30), || async {
        alertmanager.alerts().await
    })
    .await;
    daemon.deliver(&[down()]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let alerts = eventually("the alert is there", Duration::from_secs(10), || async {
        alertmanager
            .alerts()
            .await
            .filter(|alerts| !alerts.is_empty())
    })
    .await;
    assert_eq!(alerts.len(), 1);
    let alert = &alerts[0];
    assert_eq!(alert["labels"]["alertname"], "SentinelEscalation");
    assert_eq!(alert["labels"]["sentinel_alert"], "WebDown");
    assert_eq!(alert["labels"]["team"], "oncall");
    assert_eq!(alert["labels"]["container"], GONE);
    assert_eq!(alert["status"]["state"], "active");
    assert_eq!(alert["annotations"]["sentinel_incident"], "1");
    assert!(
        alert["annotations"]["sentinel_timeline"]
            .as_str()
            .unwrap()
            .contains("docker-restart")
    );
    // For hours, and not until Alertmanager has not heard of it for five minutes.
    let moment = |key: &str| -> jiff::Timestamp { alert[key].as_str().unwrap().parse().unwrap() };
    let fires = moment("endsAt").duration_since(moment("startsAt"));
    assert!(fires.as_mins() > 230 && fires.as_mins() <= 240, "{fires:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_it_is_tried_again_and_then_the_next_step_is_taken() {
    let second = Receiver::new(|_| 200).await;
    // A port that nobody listens on.
    let closed = Receiver::new(|_| 200).await.url("/hook");
    let steps = format!(
        "[{{ plugin: notify, params: {{ kind: webhook, url: '{closed}' }}, attempts: 2, backoff: 100ms }},
            {{ plugin: notify, params: {{ kind: webhook, url: '{}' }}, when: {{ on: [retryable] }} }}]",
        second.url("/hook")
    );
    let http = "{ urls: ['http://127.0.0.1:9/**'], methods: [POST] }";
    let http = format!(
        "[{http}, {{ urls: ['{closed}', '{}'], methods: [POST] }}]",
        second.url("/hook")
    );
    let daemon = Daemon::start(&PLUGINS, &climbs("auto", &steps, &http)).await;
    daemon.deliver(&[down()]).await;
    eventually("the second is told", Duration::from_secs(20), || async {
        (!second.told().is_empty()).then_some(())
    })
    .await;
    let incident = daemon
        .wait_state(1, Duration::from_secs(10), |incident| {
            (count(incident, "run-started") == 3 && count(incident, "run-ended") == 3)
                .then(|| incident.clone())
        })
        .await;
    let events = incident["events"].as_array().unwrap();
    let failed: Vec<&str> = events
        .iter()
        .filter(|event| event["kind"] == "run-ended")
        .map(|event| event["result"]["class"].as_str().unwrap_or("good"))
        .collect();
    assert_eq!(failed, ["retryable", "retryable", "good"], "{incident:#}");
    let body = second.told()[0].json();
    assert_eq!(body["kind"], "notice");
    assert_eq!(body["step"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_escalation_waits_for_who_comes_back() {
    let gone = Receiver::new(|_| 200).await;
    let (address, url) = (gone.address(), gone.url("/hook"));
    drop(gone);
    let policies = escalates(
        &format!("{{ kind: webhook, url: '{url}' }}"),
        &format!("{{ urls: ['{url}'], methods: [POST] }}"),
    );
    let daemon = Daemon::start(&PLUGINS, &policies).await;
    daemon.deliver(&[down()]).await;
    daemon
        .wait_state(1, Duration::from_secs(20), |incident| {
            (count(incident, "effect-ended") > 0).then_some(())
        })
        .await;
    let back = Receiver::at(address, |_| 200).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    assert_eq!(back.told().len(), 1);
    let incident = daemon.incident(1).await;
    let reason = incident["reason"].as_str().unwrap();
    assert!(!reason.contains("nobody could be told"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_on_which_enough_was_done_is_told_of_all_the_same() {
    let hook = Receiver::new(|_| 200).await;
    let policies = escalates(
        &format!("{{ kind: webhook, url: '{}' }}", hook.url("/hook")),
        &format!("{{ urls: ['{}'], methods: [POST] }}", hook.url("/hook")),
    )
    .replace(
        "    steps: [{ plugin: docker-restart }]",
        &format!(
            "    steps: [{{ plugin: notify, params: {{ kind: webhook, url: '{}' }} }}]\n    verify: {{ alert: resolved, within: 1s, steady: 0s }}",
            hook.url("/hook")
        ),
    );
    let mut daemon = Daemon::prepare(&PLUGINS, &policies);
    daemon.write_config("limits: { guards: { target_rate: 1/1h } }\n");
    daemon.serve().await;
    daemon.deliver(&[down()]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let kinds: Vec<Value> = hook
        .told()
        .iter()
        .map(|told| told.json()["kind"].clone())
        .collect();
    assert_eq!(kinds, ["notice", "escalation"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_tells_nobody_and_an_approved_notice_is_told_once() {
    let hook = Receiver::new(|_| 200).await;
    let steps = format!(
        "[{{ plugin: notify, params: {{ kind: slack, url: '{}' }} }}]",
        hook.url("/hook")
    );
    let http = format!("{{ urls: ['{}'], methods: [POST] }}", hook.url("/hook"));
    let daemon = Daemon::start(&PLUGINS, &climbs("shadow", &steps, &http)).await;
    daemon.deliver(&[down()]).await;
    let planned = daemon
        .wait_state(1, Duration::from_secs(20), |incident| {
            (incident["state"] == "watching").then(|| count(incident, "planned"))
        })
        .await;
    assert_eq!(planned, 1);
    assert!(hook.told().is_empty());

    let daemon = Daemon::start(&PLUGINS, &climbs("approve", &steps, &http)).await;
    daemon.deliver(&[down()]).await;
    let plan = daemon
        .wait_state(1, Duration::from_secs(20), |incident| {
            let plan = incident["plan"]["digest"].as_str()?;
            (incident["state"] == "awaiting-approval").then(|| plan.to_owned())
        })
        .await;
    let approved = said(
        daemon
            .command(&["approve", "1", "--plan", &plan])
            .env("USER", "ann"),
    );
    assert_eq!(approved.code, 0, "{}", approved.err);
    eventually("it is told", Duration::from_secs(20), || async {
        (!hook.told().is_empty()).then_some(())
    })
    .await;
    daemon.wait_end(1).await;
    assert_eq!(hook.told().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_in_doubt_is_the_policys_to_decide_and_an_escalation_is_told_again() {
    // Takes what it is told and never says so.
    let hook = Receiver::new(|number| if number == 0 { 0 } else { 200 }).await;
    let policies = escalates(
        &format!(
            "{{ kind: webhook, url: '{}', timeout: 15s }}",
            hook.url("/hook")
        ),
        &format!("{{ urls: ['{}'], methods: [POST] }}", hook.url("/hook")),
    );
    let mut daemon = Daemon::start(&PLUGINS, &policies).await;
    daemon.deliver(&[down()]).await;
    eventually("it is told once", Duration::from_secs(20), || async {
        (hook.told().len() == 1).then_some(())
    })
    .await;
    daemon.kill();
    daemon.serve().await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    assert_eq!(hook.told().len(), 2, "{}", daemon.log());
    let incident = daemon.incident(1).await;
    let reason = incident["reason"].as_str().unwrap();
    assert!(!reason.contains("nobody could be told"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_or_not_there_is_said_before_it_is_needed() {
    let params = "{ kind: slack, url: 'secret://chat-url' }";
    let good =
        "{ urls: ['https://hooks.slack.com/services/**'], methods: [POST], secrets: [chat-url] }";
    let check = |http: &str, config: &str| {
        let policies = match http {
            "" => escalates(params, "{}").replace("      http: {}\n", ""),
            http => escalates(params, http),
        };
        let daemon = Daemon::prepare(&PLUGINS, &policies);
        secret(
            &daemon,
            "chat-url",
            "https://hooks.slack.com/services/s3cr3t",
            0o600,
        );
        secret(
            &daemon,
            "open",
            "https://hooks.slack.com/services/s3cr3t",
            0o666,
        );
        daemon.write_config(config);
        let said = said(&mut daemon.command(&["check"]));
        let text = format!("{}{}", said.out, said.err);
        assert!(!text.contains("s3cr3t"), "{text}");
        (said.code, text)
    };
    let config = "http: { secrets: { chat-url: { file: chat-url } } }\n";
    let (code, text) = check(good, config);
    assert_eq!(code, 0, "{text}");
    for (http, config, code, expected) in [
        (
            "",
            config,
            1,
            "plugin notify calls http.send, which policy web-down does not grant",
        ),
        (
            good,
            "",
            1,
            "no secret in the configuration fits `chat-url`",
        ),
        (
            good,
            "http: { secrets: { chat-url: { file: nowhere } } }\n",
            0,
            "nowhere is not there",
        ),
        (
            good,
            "http: { secrets: { chat-url: { file: open } } }\n",
            1,
            "can be written by others",
        ),
        (
            good,
            "http: { secrets: { chat-url: 'https://hooks.slack.com/services/s3cr3t' } }\n",
            1,
            "and not the secret itself",
        ),
    ] {
        let (found, text) = check(http, config);
        assert_eq!(found, code, "{text}");
        let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(one_line.contains(expected), "{expected} in {text}");
    }
    // The daemon itself does not start without.
    let daemon = Daemon::prepare(&PLUGINS, &escalates(params, good));
    daemon.write_config("http: { secrets: { chat-url: { file: nowhere } } }\n");
    let served = said(&mut daemon.command(&["serve"]));
    assert_eq!(served.code, 78, "{}", served.err);
    assert!(
        served.err.contains("http.secrets.chat-url") && served.err.contains("is not there"),
        "{}",
        served.err
    );
}

/// Has the daemon send mail by `server`, with the password in `smtp`.
fn mail_config(server: &MailServer) -> String {
    format!(
        "http: {{ secrets: {{ smtp: {{ file: smtp }} }} }}
mail: {{ server: 127.0.0.1, port: {}, username: {USER}, password: smtp, from: 'Sentinel <sentinel@example.com>', ca: '{}' }}
",
        server.address.port(),
        server.ca().display()
    )
}

fn mails(to: &str, granted: &str) -> String {
    escalates_by(
        &format!("plugin: notify-email, params: {{ {to} }}"),
        &format!("mail: {granted}"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_says_why_and_what_was_tried_and_its_password_is_kept_nowhere() {
    let server = MailServer::start("starttls", true);
    let policies = mails(
        "to: oncall@example.com, cc: [ann@ops.example.com], message: 'Frag das Web-Team: größter Ärger.'",
        "[oncall@example.com, '*@ops.example.com']",
    );
    let mut daemon = Daemon::prepare(&PLUGINS, &policies);
    secret(&daemon, "smtp", PASSWORD, 0o600);
    daemon.write_config(&mail_config(&server));
    daemon.serve().await;
    daemon.deliver(&[down()]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let told = server.mails();
    assert_eq!(told.len(), 1, "{}", daemon.log());
    let mail = &told[0];
    assert_eq!(mail["encrypted"], true);
    assert_eq!(mail["user"], USER);
    assert_eq!(mail["from"], "sentinel@example.com");
    assert_eq!(
        mail["to"],
        serde_json::json!(["oncall@example.com", "ann@ops.example.com"])
    );
    assert_eq!(mail["defects"], serde_json::json!([]));
    let headers = &mail["headers"];
    assert_eq!(headers["from"], "Sentinel <sentinel@example.com>");
    assert_eq!(headers["to"], "oncall@example.com");
    assert_eq!(headers["cc"], "ann@ops.example.com");
    assert_eq!(
        headers["subject"],
        format!("[critical] WebDown on docker://local/{GONE} needs a person")
    );
    assert_eq!(headers["auto-submitted"], "auto-generated");
    let id = headers["message-id"].as_str().unwrap();
    assert!(
        id.starts_with("<sentinel.1.2.") && id.ends_with("@example.com>"),
        "{id}"
    );
    let text = mail["text"].as_str().unwrap();
    for part in [
        "Frag das Web-Team: größter Ärger.",
        "Why: the ladder is used up",
        // What was tried.
        "run-started: run 1.1 started: step 1, attempt 1, docker-restart",
        "not done: docker.inspect",
        "To see everything: sentinel incidents show 1",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let shown = said(&mut daemon.command(&["incidents", "show", "1"]));
    for part in [
        "mail.send oncall@example.com, ann@ops.example.com",
        "taken: 250 2.0.0 Ok: queued as TEST1",
        id,
    ] {
        assert!(shown.out.contains(part), "{part} in {}", shown.out);
    }
    let kept = all_that_is_kept(&daemon).await;
    assert!(holds(&kept, "queued as TEST1"), "the search works");
    // As it is, and as it is sent in either way to log in.
    for secret in [
        PASSWORD,
        "czNjcjN0LVDDpHNzd29yZA",
        "AHNlbnRpbmVsAHMzY3IzdC1Qw6Rzc3dvcmQ",
    ] {
        assert!(!holds(&kept, secret), "{secret} is kept nowhere");
    }
    // It can be played again from its record, without a word to anybody.
    let replayed = said(&mut daemon.command(&["replay", "1.2"]));
    assert_eq!(replayed.code, 0, "{}{}", replayed.out, replayed.err);
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_waits_for_a_server_that_comes_back() {
    let address = free_address();
    let policies = mails("to: oncall@example.com", "[oncall@example.com]");
    let mut daemon = Daemon::prepare(&PLUGINS, &policies);
    daemon.write_config("mail: { security: none, from: sentinel@example.com }\n");
    daemon.set("SENTINEL_MAIL_SERVER", "127.0.0.1");
    daemon.set("SENTINEL_MAIL_PORT", &address.port().to_string());
    daemon.serve().await;
    daemon.deliver(&[down()]).await;
    daemon
        .wait_state(1, Duration::from_secs(20), |incident| {
            (count(incident, "effect-ended") > 0).then_some(())
        })
        .await;
    let server = MailServer::at(address, "none", false);
    assert_eq!(daemon.wait_end(1).await, "escalated");
    assert_eq!(server.mails().len(), 1);
    let shown = said(&mut daemon.command(&["incidents", "show", "1"]));
    assert!(
        shown.out.contains("is not reached: Connection refused"),
        "{}",
        shown.out
    );
    let incident = daemon.incident(1).await;
    let reason = incident["reason"].as_str().unwrap();
    assert!(!reason.contains("nobody could be told"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_was_cut_off_is_sent_again_and_known_for_the_same() {
    // Takes the first and never says so.
    let server = MailServer::start("starttls", true);
    let policies = mails("to: slow@example.com", "['*@example.com']");
    let mut daemon = Daemon::prepare(&PLUGINS, &policies);
    secret(&daemon, "smtp", PASSWORD, 0o600);
    daemon.write_config(&mail_config(&server));
    daemon.serve().await;
    daemon.deliver(&[down()]).await;
    eventually("it is told once", Duration::from_secs(20), || async {
        (server.mails().len() == 1).then_some(())
    })
    .await;
    daemon.kill();
    daemon.serve().await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let mails = server.mails();
    assert_eq!(mails.len(), 2, "{}", daemon.log());
    let ids: Vec<&Value> = mails
        .iter()
        .map(|mail| &mail["headers"]["message-id"])
        .collect();
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_mail_was_not_sent_is_said() {
    let server = MailServer::start("starttls", true);
    for (to, password, expected) in [
        (
            "oncall@example.com",
            "s3cr3t-wrong",
            "did not take the user name and the password (`mail.username`, `mail.password`): 535 5.7.8 not [secret] for sentinel",
        ),
        (
            "unknown@example.com",
            PASSWORD,
            "takes it for no recipient: unknown@example.com: 550 5.1.1 no such user here",
        ),
        (
            "boss@elsewhere.example",
            PASSWORD,
            "write `grants: { mail: ['*@example.com', 'boss@elsewhere.example'] }`",
        ),
    ] {
        let policies =
            mails(&format!("to: {to}"), "['*@example.com']").replace("timeout: 20s", "attempts: 1");
        let mut daemon = Daemon::prepare(&PLUGINS, &policies);
        secret(&daemon, "smtp", password, 0o600);
        daemon.write_config(&mail_config(&server));
        daemon.serve().await;
        daemon.deliver(&[down()]).await;
        assert_eq!(daemon.wait_end(1).await, "escalated");
        let incident = daemon.incident(1).await;
        let reason = incident["reason"].as_str().unwrap();
        assert!(reason.contains("nobody could be told"), "{reason}");
        let shown = said(&mut daemon.command(&["incidents", "show", "1"]));
        assert!(shown.out.contains(expected), "{expected} in {}", shown.out);
        assert!(!holds(&all_that_is_kept(&daemon).await, "s3cr3t-wrong"));
    }
    assert!(server.mails().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mail_needs_is_said_before_it_is_needed() {
    let server = "mail: { server: smtp.example.com, from: sentinel@example.com";
    for (grant, config, code, expected) in [
        (
            "mail: ['*@example.com']",
            format!("{server} }}"),
            0,
            "all good",
        ),
        (
            "memory: true",
            format!("{server} }}"),
            1,
            "plugin notify-email calls mail.send, which policy web-down does not grant",
        ),
        (
            "mail: ['*@example.com']",
            String::new(),
            1,
            "the configuration names no server to send it by",
        ),
        (
            "mail: ['*@example.com']",
            format!("{server}, username: s, password: s3cr3t }}"),
            1,
            "expected the name of one under `http.secrets`, and not the password itself",
        ),
        (
            "mail: ['*@example.com']",
            format!("{server}, username: s, password: smtp, security: none }}"),
            1,
            "would show the password to everybody",
        ),
        (
            "mail: ['*@example.com']",
            format!("{server}, ca: nowhere.pem }}"),
            1,
            "nowhere.pem holds no certificate",
        ),
        // The password is for the server, and for no request.
        (
            "mail: ['*@example.com'], http: { urls: ['https://h/**'], methods: [POST], secrets: [smtp] }",
            format!("{server}, username: s, password: smtp }}"),
            1,
            "no secret in the configuration fits `smtp`",
        ),
    ] {
        let plugin = "plugin: notify-email, params: { to: oncall@example.com }";
        let grants =
            "docker: { containers: ['infra-sentinel-test-*'], actions: [inspect, restart, start] }";
        let policies = escalates_by(plugin, "GRANT").replace(
            &format!("grants:\n      {grants}\n      GRANT"),
            &format!("grants: {{ {grants}, {grant} }}"),
        );
        let daemon = Daemon::prepare(&PLUGINS, &policies);
        secret(&daemon, "smtp", PASSWORD, 0o600);
        daemon.write_config(&format!(
            "http: {{ secrets: {{ smtp: {{ file: smtp }} }} }}\n{config}\n"
        ));
        let said = said(&mut daemon.command(&["check"]));
        let text = format!("{}{}", said.out, said.err);
        assert_eq!(said.code, code, "{text}");
        let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(one_line.contains(expected), "{expected} in {text}");
        assert!(!text.contains("s3cr3t"), "{text}");
    }
}
