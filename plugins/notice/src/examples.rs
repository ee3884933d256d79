//! Incidents to tell of.

use sentinel_plugin::{Alert, AlertStatus, Incident, Label, Target, Timestamp};

fn label(name: &str, value: &str) -> Label {
    Label {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

/// An incident that a person has to look at.
#[must_use]
pub fn escalation() -> Incident {
    Incident {
        id: "42".to_owned(),
        run: "42.3".to_owned(),
        policy: "nginx-down".to_owned(),
        target: Target {
            uri: "docker://local/nginx".to_owned(),
            kind: "docker".to_owned(),
            host: "local".to_owned(),
            name: "nginx".to_owned(),
        },
        alert: Alert {
            fingerprint: "0123456789abcdef".to_owned(),
            status: AlertStatus::Firing,
            labels: vec![
                label("alertname", "NginxDown"),
                label("severity", "page"),
                label("team", "web"),
            ],
            annotations: vec![
                label("summary", "nginx is down <!channel> & out"),
                label("runbook_url", "https://wiki/nginx"),
                label(
                    "sentinel_reason",
                    "the ladder is used up; last: not verified",
                ),
                label(
                    "sentinel_timeline",
                    "10:00 opened\n10:01 effect began\n  log: ```oh no```",
                ),
            ],
            starts_at: Timestamp {
                seconds: 1_795_339_800,
                nanoseconds: 0,
            },
            ends_at: None,
            generator_url: Some("http://prometheus/graph?g0=up|x".to_owned()),
        },
        step: 0,
        attempt: 1,
        params: "{}".to_owned(),
    }
}

/// The same when it is told of something else than an escalation.
#[must_use]
pub fn told_of(occasion: &str, reason: &str) -> Incident {
    let mut incident = escalation();
    let annotations = &mut incident.alert.annotations;
    for annotation in annotations.iter_mut() {
        if annotation.name == "sentinel_reason" {
            reason.clone_into(&mut annotation.value);
        }
    }
    annotations.push(label("sentinel_notice", occasion));
    if occasion == "approval" {
        let command = "sentinel approve 42 --plan 0123456789ab";
        annotations.push(label("sentinel_command", command));
    }
    incident
}

/// The same while the ladder is still climbed.
#[must_use]
pub fn step() -> Incident {
    let mut incident = escalation();
    incident.step = 2;
    incident
        .alert
        .annotations
        .retain(|label| !label.name.starts_with("sentinel_"));
    incident
}
