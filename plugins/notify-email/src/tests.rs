use notice::examples::{escalation, step};
use sentinel_plugin::Label;
use sentinel_plugin::mail::Refusal;
use sentinel_plugin::serde_json::{self, Value, json};

use super::*;

fn params(json: Value) -> Params {
    serde_json::from_value(json).unwrap()
}

fn written(incident: &Incident, params: &Params) -> Message {
    let notice = Notice::of(incident, params.severity, params.message.as_deref());
    message(&notice, params)
}

#[test]
fn a_mail_says_all_that_a_responder_needs() {
    let params = params(json!({
        "to": "oncall@example.com",
        "cc": ["web@example.com", "db@example.com"],
        "message": "Ask the web team.\nThey know.",
    }));
    let mail = written(&escalation(), &params);
    assert_eq!(mail.to, ["oncall@example.com"]);
    assert_eq!(mail.cc, ["web@example.com", "db@example.com"]);
    assert_eq!(
        mail.subject,
        "[critical] NginxDown on docker://local/nginx needs a person"
    );
    assert_eq!(
        mail.text,
        "\
NginxDown on docker://local/nginx needs a person.

  Ask the web team.
  They know.

  nginx is down <!channel> & out

Why: the ladder is used up; last: not verified
Policy: nginx-down
Target: docker://local/nginx
Severity: critical
Firing since: 2026-11-22T09:30:00Z
Incident: 42
To see everything: sentinel incidents show 42

Where to read on
  runbook_url: https://wiki/nginx
  source: http://prometheus/graph?g0=up|x

The alert's labels
  alertname: NginxDown
  severity: page
  team: web

What happened so far
  10:00 opened
  10:01 effect began
    log: ```oh no```

-- 
Infra Sentinel
"
    );
}

#[test]
fn a_notice_of_a_step_says_that_sentinel_is_at_work() {
    let mail = written(
        &step(),
        &params(json!({ "to": ["a@x", "b@x"], "severity": "info" })),
    );
    assert_eq!(mail.to, ["a@x", "b@x"]);
    assert_eq!(
        mail.subject,
        "[info] NginxDown on docker://local/nginx: sentinel is at work"
    );
    assert!(
        mail.text
            .contains("Why: step 2, attempt 1 of policy nginx-down\n")
    );
    assert!(!mail.text.contains("What happened so far"));
}

#[test]
fn what_others_wrote_cannot_leave_its_line_nor_fill_the_mail() {
    let mut incident = escalation();
    let name = format!("Down\r\nBcc: evil@example.com\u{2028}{}", "ä".repeat(300));
    incident.alert.labels[0].value = name;
    incident.alert.labels.extend((0..500).map(|n| Label {
        name: format!("label{n}"),
        value: "x\ny".repeat(1000),
    }));
    incident.alert.annotations[0].value = "first\u{7}\nsecond\n".repeat(1000);
    let story: Vec<String> = (0..5000)
        .map(|n| format!("{n} {}", "é".repeat(300)))
        .collect();
    incident.alert.annotations[3].value = story.join("\n");
    let mail = written(&incident, &params(json!({ "to": "a@x" })));
    assert!(mail.subject.len() <= 200 && !mail.subject.contains(char::is_control));
    assert!(
        mail.subject
            .starts_with("[critical] Down  Bcc: evil@example.com ")
    );
    assert!(mail.text.len() < 64 << 10, "{}", mail.text.len());
    assert!(!mail.text.contains(|c: char| c.is_control() && c != '\n'));
    assert!(mail.text.contains("  first \n  second\n"));
    assert!(mail.text.contains("earlier lines are left out)"));
    assert!(mail.text.contains("\n  4999 é"));
}

#[test]
fn who_was_told_and_who_was_not_is_said() {
    let (incident, params) = (
        escalation(),
        params(json!({ "to": ["a@x", "b@X"], "cc": "c@x" })),
    );
    let notice = Notice::of(&incident, None, None);
    let mail = message(&notice, &params);
    let mut receipt = Receipt {
        message_id: "<m@x>".to_owned(),
        said: "250 OK".to_owned(),
        refused: Vec::new(),
    };
    let title = "NginxDown on docker://local/nginx needs a person";
    assert_eq!(
        told(&notice, &mail, &receipt),
        format!("told a@x, b@X, c@x: {title}")
    );
    receipt.refused.push(Refusal {
        address: "b@x".to_owned(),
        reason: "550 unknown".to_owned(),
    });
    assert_eq!(
        told(&notice, &mail, &receipt),
        format!("told a@x, c@x, but not b@X: {title}")
    );
}

#[test]
fn the_schema_and_the_params_agree() {
    let schema = serde_json::from_str(NotifyEmail::PARAMS_SCHEMA).unwrap();
    let schema = jsonschema::draft202012::new(&schema).unwrap();
    for (params, good) in [
        (json!({ "to": "oncall@example.com" }), true),
        (json!({ "to": ["a@x", "b@x"], "cc": "c@x" }), true),
        (
            json!({ "to": "a@x", "cc": ["b@x"], "message": "m", "severity": "info" }),
            true,
        ),
        (json!({}), false),
        (json!({ "cc": "a@x" }), false),
        (json!({ "to": [] }), false),
        (json!({ "to": "oncall" }), false),
        (json!({ "to": "Oncall <oncall@example.com>" }), false),
        (json!({ "to": ["a@x", "b"] }), false),
        (json!({ "to": "a@x", "kind": "email" }), false),
        (json!({ "to": "a@x", "severity": "sev1" }), false),
    ] {
        assert_eq!(schema.is_valid(&params), good, "{params}");
        if good {
            let parsed = serde_json::from_value::<Params>(params.clone());
            assert!(parsed.is_ok(), "{params}: {parsed:?}");
        }
    }
}
