use notice::examples::{escalation, step, told_of};
use sentinel_plugin::Timestamp;
use sentinel_plugin::http::Header;
use sentinel_plugin::serde_json::{self, json};

use super::*;

fn params(json: Value) -> Params {
    serde_json::from_value(json).unwrap()
}

fn of_kind(kind: &str) -> Params {
    params(json!({ "kind": kind, "url": "http://there/", "key": "secret://pager-key" }))
}

#[test]
fn a_chat_is_told_everything_and_nobody_else_is_called() {
    let (incident, params) = (escalation(), of_kind("slack"));
    let payload = chat::payload(&params.notice(&incident), Markup::Slack);
    assert_eq!(
        payload["text"],
        "NginxDown on docker://local/nginx needs a person"
    );
    assert_eq!(payload["mrkdwn"], false);
    let attachment = &payload["attachments"][0];
    assert_eq!(attachment["color"], "danger");
    assert_eq!(
        attachment["text"],
        "nginx is down &lt;!channel&gt; &amp; out\n\
         runbook_url: https://wiki/nginx\nsource: http://prometheus/graph?g0=up%7Cx"
    );
    assert_eq!(attachment["mrkdwn_in"], json!([]));
    assert_eq!(
        payload["attachments"][1]["text"],
        "```\n10:00 opened\n10:01 effect began\n  log: '''oh no'''\n```"
    );
    let fields = attachment["fields"].to_string();
    for part in [
        "the ladder is used up; last: not verified",
        "nginx-down",
        "docker://local/nginx",
        "critical",
        "2026-11-22T09:30:00Z",
        "sentinel incidents show 42",
    ] {
        assert!(fields.contains(part), "{part} in {fields}");
    }
    assert_eq!(attachment["footer"], "Infra Sentinel, incident 42");
}

/// Each kind of chat, with everything that others write in a payload being something that
/// they might forge.
#[test]
fn what_an_alert_says_calls_nobody_and_forges_nothing_in_any_chat() {
    for foreign in [
        "@channel @everyone @here @all",
        "<!channel> <!everyone> <@U1> <@&1>",
        "[runbook](http://evil.example/x) <http://evil.example|good>",
        "# approved\n> by ann\n- all is well",
        "x\nWhy: approved by ann\r\nPolicy: none\u{2028}*bold*",
        "```\nend\n``` _out_ ~of~ ||it||",
        "\u{202e}\u{200b}@\u{200d}channel",
    ] {
        let mut incident = escalation();
        foreign.clone_into(&mut incident.policy);
        foreign.clone_into(&mut incident.target.uri);
        for label in &mut incident.alert.labels {
            foreign.clone_into(&mut label.value);
        }
        for annotation in &mut incident.alert.annotations {
            foreign.clone_into(&mut annotation.value);
        }
        let mut params = of_kind("slack");
        params.message = Some(foreign.to_owned());
        let notice = params.notice(&incident);
        let chats = [
            chat::payload(&notice, Markup::Slack),
            chat::payload(&notice, Markup::Mattermost),
            chat::payload(&notice, Markup::RocketChat),
            chat::discord(&notice),
        ];
        for payload in chats {
            let mut texts = Vec::new();
            all_texts(&payload, &mut texts);
            for text in texts {
                let mut calls = text.split('@').skip(1);
                assert!(calls.all(|call| call.starts_with('\u{200b}')), "{text:?}");
                // Between fences all is shown as it is.
                let markup = if text.contains("```") {
                    &[][..]
                } else {
                    &["<!", "]("][..]
                };
                for bad in markup.iter().chain(&["\r", "\u{2028}", "\u{202e}"]) {
                    assert!(!text.contains(bad), "{bad:?} in {text:?}");
                }
                let fences = text.matches("```").count();
                assert!(
                    fences == 0 || fences == 2 && text.ends_with("```"),
                    "{text:?}"
                );
                if fences == 0 {
                    let forged = text.lines().any(|line| {
                        ["Why:", "Policy:"]
                            .iter()
                            .any(|ours| line.starts_with(ours))
                    });
                    assert!(!forged, "{text:?}");
                }
            }
        }
        assert_eq!(
            chat::discord(&notice)["allowed_mentions"],
            json!({ "parse": [] })
        );
    }
}

fn all_texts(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| all_texts(item, texts)),
        Value::Object(members) => members.values().for_each(|value| all_texts(value, texts)),
        _ => {}
    }
}

/// An alert can bring annotations of the names that sentinel uses.
#[test]
fn what_an_alert_gives_out_as_sentinels_is_not_shown_as_such() {
    let mut incident = escalation();
    incident.step = 1;
    let params = of_kind("slack");
    let notice = params.notice(&incident);
    assert_eq!(notice.why(), "step 1, attempt 1 of policy nginx-down");
    assert!(notice.timeline.is_empty() && notice.reason.is_none());
}

#[test]
fn a_long_story_is_told_from_its_end() {
    let mut incident = escalation();
    let lines: Vec<String> = (0..500)
        .map(|n| format!("{n} {}", "é".repeat(300)))
        .collect();
    incident.alert.annotations[3].value = lines.join("\n");
    let params = of_kind("slack");
    let notice = params.notice(&incident);
    let (end, left_out) = notice.timeline_end(2500);
    assert!(end.len() <= 2500 && end.lines().count() == 500 - left_out);
    assert!(end.lines().next_back().unwrap().starts_with("499 é"));
    assert!(end.lines().all(|line| line.len() <= 400));
    let payload = chat::payload(&notice, Markup::Slack);
    let text = payload["attachments"][1]["text"].as_str().unwrap();
    assert!(text.contains(&format!("_{left_out} earlier lines are left out_")));
    // What goes to programs is whole.
    let whole = webhook::payload(&notice);
    assert_eq!(whole["timeline"].as_array().unwrap().len(), 500);
}

#[test]
fn a_pager_rings_once_for_a_target_and_its_key_is_left_to_the_host() {
    let (incident, params) = (escalation(), of_kind("pagerduty"));
    let payload = pagerduty::payload(&params.notice(&incident), &params);
    assert_eq!(payload["routing_key"], "");
    assert_eq!(payload["event_action"], "trigger");
    assert_eq!(
        payload["dedup_key"],
        "sentinel/nginx-down/docker://local/nginx"
    );
    assert_eq!(
        payload["payload"]["summary"],
        "NginxDown on docker://local/nginx needs a person: the ladder is used up; last: not verified"
    );
    assert_eq!(payload["payload"]["severity"], "critical");
    assert_eq!(payload["payload"]["source"], "docker://local/nginx");
    let details = &payload["payload"]["custom_details"];
    assert_eq!(details["show"], "sentinel incidents show 42");
    assert!(
        details["timeline"]
            .as_str()
            .unwrap()
            .contains("effect began")
    );
    assert_eq!(payload["links"][0]["href"], "https://wiki/nginx");
    let request = request(&params, &payload).unwrap();
    assert_eq!(request.secret_fields.len(), 1);
    assert_eq!(request.secret_fields[0].pointer, "/routing_key");
    assert_eq!(request.secret_fields[0].secret, "pager-key");

    let resolve = super::params::Params {
        event: super::params::Event::Resolve,
        dedup_key: Some("mine".to_owned()),
        url: None,
        ..of_kind("pagerduty")
    };
    let payload = pagerduty::payload(&resolve.notice(&incident), &resolve);
    assert_eq!(
        payload,
        json!({ "routing_key": "", "event_action": "resolve", "dedup_key": "mine" })
    );
    let request = super::request(&resolve, &payload).unwrap();
    assert_eq!(request.url, "https://events.pagerduty.com/v2/enqueue");
}

#[test]
fn an_alert_of_its_own_goes_where_the_first_one_went() {
    let incident = escalation();
    let params = params(json!({
        "kind": "alertmanager",
        "url": "http://alertmanager:9093/",
        "labels": { "team": "oncall" },
        "message": "Look at once.",
    }));
    let at = |seconds| Timestamp {
        seconds,
        nanoseconds: 0,
    };
    let fires = (at(0), at(60));
    let payload = alertmanager::payload(&params.notice(&incident), &params, Some(&fires));
    assert_eq!(
        payload[0]["labels"],
        json!({
            "alertname": "SentinelEscalation",
            "sentinel_alert": "NginxDown",
            "sentinel_policy": "nginx-down",
            "sentinel_target": "docker://local/nginx",
            "severity": "critical",
            "team": "oncall",
        })
    );
    let annotations = &payload[0]["annotations"];
    assert_eq!(
        annotations["description"],
        "Look at once.\nthe ladder is used up; last: not verified"
    );
    assert_eq!(annotations["runbook_url"], "https://wiki/nginx");
    assert_eq!(annotations["sentinel_incident"], "42");
    assert!(annotations.get("sentinel_reason").is_none());
    assert_eq!(payload[0]["startsAt"], "1970-01-01T00:00:00Z");
    assert_eq!(payload[0]["endsAt"], "1970-01-01T00:01:00Z");
    assert_eq!(
        payload[0]["generatorURL"],
        "http://prometheus/graph?g0=up|x"
    );
    let ends = |incident: &Incident| {
        let payload = alertmanager::payload(&params.notice(incident), &params, None);
        payload[0]["labels"]["alertname"].clone()
    };
    assert_eq!(ends(&step()), "SentinelNotice");

    for (given, url) in [
        ("http://am:9093", "http://am:9093/api/v2/alerts"),
        (
            "http://am:9093/prefix/",
            "http://am:9093/prefix/api/v2/alerts",
        ),
        (
            "http://am:9093/api/v2/alerts",
            "http://am:9093/api/v2/alerts",
        ),
        ("secret://am-url", "secret://am-url"),
    ] {
        assert_eq!(alertmanager::url(given), url);
    }
}

#[test]
fn programs_are_told_in_a_form_that_stays() {
    let (incident, params) = (step(), of_kind("webhook"));
    assert_eq!(
        webhook::payload(&params.notice(&incident)),
        json!({
            "version": 1,
            "kind": "notice",
            "title": "NginxDown on docker://local/nginx: sentinel is at work",
            "message": null,
            "reason": "step 2, attempt 1 of policy nginx-down",
            "severity": "critical",
            "incident": "42",
            "policy": "nginx-down",
            "step": 2,
            "attempt": 1,
            "target": {
                "uri": "docker://local/nginx",
                "kind": "docker",
                "host": "local",
                "name": "nginx",
            },
            "alert": {
                "name": "NginxDown",
                "fingerprint": "0123456789abcdef",
                "status": "firing",
                "labels": { "alertname": "NginxDown", "severity": "page", "team": "web" },
                "annotations": {
                    "summary": "nginx is down <!channel> & out",
                    "runbook_url": "https://wiki/nginx",
                },
                "starts_at": "2026-11-22T09:30:00Z",
                "generator_url": "http://prometheus/graph?g0=up|x",
            },
            "timeline": [],
            "commands": { "show": "sentinel incidents show 42" },
        })
    );
    let incident = escalation();
    let payload = webhook::payload(&params.notice(&incident));
    assert_eq!(payload["kind"], "escalation");
    assert_eq!(payload["timeline"][1], "10:01 effect began");
    assert!(
        !payload["alert"]["annotations"]
            .to_string()
            .contains("sentinel_")
    );
    // The run's id would make every plan another one than what is carried out.
    assert!(!payload.to_string().contains("42.3"));
}

#[test]
fn the_severity_is_the_alerts_unless_the_policy_says_otherwise() {
    for (word, severity) in [
        (Some("page"), "critical"),
        (Some("CRITICAL"), "critical"),
        (Some("warning"), "warning"),
        (Some("none"), "info"),
        (Some("sev2"), "error"),
        (None, "error"),
    ] {
        assert_eq!(notice::Severity::of(word).as_str(), severity);
    }
    let incident = escalation();
    let params = params(json!({ "kind": "slack", "url": "http://x/", "severity": "info" }));
    assert_eq!(params.notice(&incident).severity.as_str(), "info");
}

#[test]
fn what_the_other_side_says_decides_what_comes_next() {
    let answer = |status: u16, body: &str| Response {
        status,
        headers: vec![Header {
            name: "Retry-After".to_owned(),
            value: "7".to_owned(),
        }],
        body: body.as_bytes().to_vec(),
        truncated: false,
    };
    assert_eq!(accepted(&answer(202, "ok")), Ok(202));
    for (status, expected) in [
        (429, "unavailable: the answer's status is 429: no\tmore"),
        (503, "unavailable: the answer's status is 503: no\tmore"),
        (404, "not found: the answer's status is 404: no\tmore"),
        (403, "invalid: the answer's status is 403: no\tmore"),
        (302, "invalid: the answer's status is 302: no\tmore"),
    ] {
        let error = accepted(&answer(status, "no\tmore\n")).unwrap_err();
        assert_eq!(error.to_string(), expected.replace('\t', " "));
    }
    assert_eq!(retry_after(&answer(429, "")), Some(Duration::from_secs(7)));
}

#[test]
fn the_schema_and_the_params_agree() {
    let schema = serde_json::from_str(Notify::PARAMS_SCHEMA).unwrap();
    let schema = jsonschema::draft202012::new(&schema).unwrap();
    for (params, good) in [
        (json!({ "kind": "slack", "url": "secret://chat-url" }), true),
        (
            json!({ "kind": "slack", "url": "https://h/a", "message": "m", "severity": "info" }),
            true,
        ),
        (
            json!({ "kind": "webhook", "url": "http://h/", "headers": { "authorization": "secret://t" } }),
            true,
        ),
        (
            json!({ "kind": "webhook", "url": "http://h/", "timeout": "5s" }),
            true,
        ),
        (
            json!({ "kind": "pagerduty", "key": "secret://pager-key" }),
            true,
        ),
        (
            json!({ "kind": "pagerduty", "key": "secret://k", "event": "resolve", "dedup_key": "x" }),
            true,
        ),
        (
            json!({ "kind": "alertmanager", "url": "http://am", "keep": "1h", "labels": { "team": "x" } }),
            true,
        ),
        (
            json!({ "kind": "alertmanager", "url": "http://am", "event": "resolve" }),
            true,
        ),
        (json!({ "kind": "mattermost", "url": "http://h/" }), true),
        (json!({ "kind": "rocketchat", "url": "http://h/" }), true),
        (json!({ "kind": "discord", "url": "secret://d" }), true),
        (
            json!({ "kind": "discord", "url": "http://h/", "event": "resolve" }),
            false,
        ),
        (json!({}), false),
        (json!({ "kind": "email", "url": "http://h/" }), false),
        (json!({ "kind": "slack" }), false),
        (json!({ "kind": "slack", "url": "hooks.slack.com" }), false),
        (
            json!({ "kind": "slack", "url": "http://h/", "event": "resolve" }),
            false,
        ),
        (
            json!({ "kind": "slack", "url": "http://h/", "key": "secret://k" }),
            false,
        ),
        (json!({ "kind": "pagerduty" }), false),
        (json!({ "kind": "pagerduty", "key": "R0123456789" }), false),
        (
            json!({ "kind": "alertmanager", "url": "http://am", "event": "acknowledge" }),
            false,
        ),
        (
            json!({ "kind": "webhook", "url": "http://h/", "keep": "1h" }),
            false,
        ),
        (
            json!({ "kind": "alertmanager", "url": "http://am", "labels": { "a-b": "x" } }),
            false,
        ),
        (
            json!({ "kind": "slack", "url": "http://h/", "chanel": "x" }),
            false,
        ),
    ] {
        assert_eq!(schema.is_valid(&params), good, "{params}");
        if good {
            let parsed = serde_json::from_value::<Params>(params.clone());
            assert!(parsed.is_ok(), "{params}: {parsed:?}");
        }
    }
}

#[test]
fn who_was_told_is_told_of_the_end_in_the_same_place() {
    let end = told_of("end", "the alert resolved");
    let pager = params(json!({ "kind": "pagerduty", "key": "secret://pager-key" }));
    let began = escalation();
    let began = pagerduty::payload(&pager.notice(&began), &pager);
    let over = pagerduty::payload(&pager.notice(&end), &pager);
    assert_eq!(began["event_action"], "trigger");
    assert_eq!(
        over,
        json!({
            "routing_key": "",
            "event_action": "resolve",
            "dedup_key": began["dedup_key"],
        })
    );

    let chat = of_kind("slack");
    let said = chat::payload(&chat.notice(&end), Markup::Slack);
    assert_eq!(
        said["text"],
        "NginxDown on docker://local/nginx is over: the alert resolved"
    );
    assert!(said["attachments"][0].get("fields").is_none());

    let own = of_kind("alertmanager");
    let at = Timestamp {
        seconds: 5,
        nanoseconds: 0,
    };
    let of = |incident| {
        let payload = alertmanager::payload(&own.notice(incident), &own, Some(&(at, at)));
        payload[0]["labels"].clone()
    };
    // Or Alertmanager would take it for another alert.
    assert_eq!(of(&end), of(&escalation()));
    assert_eq!(webhook::payload(&chat.notice(&end))["kind"], "end");
}

#[test]
fn who_can_approve_is_told_how() {
    let waits = told_of("approval", "plan 0123456789ab waits for approval");
    let chat = of_kind("slack");
    let notice = chat.notice(&waits);
    assert_eq!(
        notice.title(),
        "NginxDown on docker://local/nginx: a plan waits for approval"
    );
    let command = "sentinel approve 42 --plan 0123456789ab";
    let fields = chat::payload(&notice, Markup::Slack)["attachments"][0]["fields"].to_string();
    assert!(fields.contains(command), "{fields}");
    let payload = webhook::payload(&notice);
    assert_eq!(payload["kind"], "approval");
    assert_eq!(payload["commands"]["decide"], command);
    assert!(
        payload["alert"]["annotations"]
            .get("sentinel_command")
            .is_none()
    );
    assert_eq!(
        webhook::payload(&chat.notice(&told_of("held", "by rate")))["kind"],
        "held"
    );
}

#[test]
fn what_an_alert_says_of_itself_makes_no_notice() {
    // A step is told what the alert says; only what `escalate` names is told by sentinel.
    let mut forged = told_of("end", "it is all well");
    forged.step = 1;
    let chat = of_kind("slack");
    let notice = chat.notice(&forged);
    assert_eq!(webhook::payload(&notice)["kind"], "notice");
    assert_eq!(notice.decide_command(), None);
}
