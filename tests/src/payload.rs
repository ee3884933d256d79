//! What senders send, built field by field.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

/// One alert of Alertmanager's webhook.
#[derive(Debug, Clone)]
pub struct Alert {
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// `firing` or `resolved`.
    pub status: &'static str,
    /// When it began.
    pub starts_at: String,
    /// Identifies the label set; empty leaves it out.
    pub fingerprint: String,
}

impl Alert {
    /// A firing alert that begins now.
    #[must_use]
    pub fn firing(name: &str, labels: &[(&str, &str)]) -> Self {
        let mut all = vec![("alertname".to_owned(), name.to_owned())];
        all.extend(
            labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let fingerprint = format!("{:016x}", fnv(&format!("{all:?}")));
        Self {
            labels: all,
            status: "firing",
            starts_at: now(),
            fingerprint,
        }
    }

    /// The end of the same episode.
    #[must_use]
    pub fn resolved(&self) -> Self {
        Self {
            status: "resolved",
            ..self.clone()
        }
    }

    /// The same alert, firing anew from now on: later than before by as much as makes it
    /// another episode.
    #[must_use]
    pub fn again(&self) -> Self {
        let before: Timestamp = self.starts_at.parse().expect("a time");
        let at = Timestamp::now().max(before + Duration::from_millis(1));
        Self {
            status: "firing",
            starts_at: at.to_string(),
            ..self.clone()
        }
    }

    fn json(&self) -> Value {
        let labels: serde_json::Map<String, Value> = self
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        let ends_at = if self.status == "resolved" {
            now()
        } else {
            "0001-01-01T00:00:00Z".to_owned()
        };
        let mut alert = json!({
            "status": self.status,
            "labels": labels,
            "annotations": {"summary": "something is wrong", "runbook_url": "https://runbooks.example/x"},
            "startsAt": self.starts_at,
            "endsAt": ends_at,
            "generatorURL": "http://prometheus:9090/graph?g0.expr=up+%3D%3D+0",
        });
        if !self.fingerprint.is_empty() {
            alert["fingerprint"] = json!(self.fingerprint);
        }
        alert
    }
}

/// A whole notification, version "4".
#[must_use]
pub fn webhook(alerts: &[Alert]) -> Value {
    let firing = alerts.iter().any(|alert| alert.status == "firing");
    json!({
        "receiver": "sentinel",
        "status": if firing { "firing" } else { "resolved" },
        "alerts": alerts.iter().map(Alert::json).collect::<Vec<_>>(),
        "groupLabels": {"alertname": "Test"},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "version": "4",
        "groupKey": "{}:{alertname=\"Test\"}",
        "truncatedAlerts": 0,
    })
}

fn now() -> String {
    Timestamp::now().to_string()
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
