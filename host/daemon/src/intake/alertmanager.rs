//! Alertmanager's webhook (version "4") and what resembles it: Grafana's, vmalert's,
//! Mimir's. Unknown fields are ignored, because new ones came under the same version.

use jiff::Timestamp;
use sentinel_core::alert::{Alert, AlertStatus, Fingerprint, Labels, identifying_start};
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use super::malformed::{Malformed, sift};
use super::{Delivery, Truncated};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhook<'a> {
    #[serde(default)]
    receiver: Option<String>,
    #[serde(default)]
    group_key: Option<String>,
    #[serde(default)]
    truncated_alerts: Option<u64>,
    #[serde(borrow)]
    alerts: Vec<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireAlert {
    status: AlertStatus,
    labels: Labels,
    #[serde(default)]
    annotations: Option<Labels>,
    starts_at: Timestamp,
    #[serde(default)]
    ends_at: Option<Timestamp>,
    #[serde(default, rename = "generatorURL")]
    generator_url: Option<String>,
    #[serde(default)]
    fingerprint: Option<String>,
}

pub(super) fn parse(body: &[u8], _now: Timestamp) -> Result<Delivery<'_>, Malformed> {
    let webhook: Webhook<'_> = serde_json::from_slice(body)?;
    // The group's own status says nothing of each alert: resolved alerts ride inside
    // a firing group.
    let alerts = sift(body, webhook.alerts, WireAlert::normalise);
    let truncated = webhook
        .truncated_alerts
        .filter(|count| *count > 0)
        .map(|count| Truncated {
            receiver: unquote(webhook.receiver.as_deref().unwrap_or_default()),
            group: webhook.group_key.unwrap_or_default(),
            count,
        });
    Ok(Delivery { alerts, truncated })
}

impl WireAlert {
    fn normalise(self) -> Result<Alert, serde_json::Error> {
        let labels = without_empty(self.labels);
        if labels.is_empty() {
            return Err(serde_json::Error::custom("an alert has no labels"));
        }
        let fingerprint = self
            .fingerprint
            .filter(|fingerprint| !fingerprint.is_empty())
            .map_or_else(|| Fingerprint::of(&labels), Fingerprint);
        Ok(Alert {
            source: "alertmanager".to_owned(),
            fingerprint,
            status: self.status,
            labels,
            annotations: self.annotations.unwrap_or_default(),
            starts_at: identifying_start(self.starts_at),
            // Alertmanager writes the zero time while the alert fires.
            ends_at: self.ends_at.filter(|at| !is_zero(*at)),
            generator_url: self.generator_url.filter(|url| !url.is_empty()),
        })
    }
}

/// Go's zero `time.Time`, year 1.
pub(super) fn is_zero(at: Timestamp) -> bool {
    const YEAR_ONE: i64 = -62_135_596_800;
    at.as_second() <= YEAR_ONE
}

/// Labels with an empty value count as absent, as everywhere in Prometheus.
pub(super) fn without_empty(mut labels: Labels) -> Labels {
    labels.retain(|_, value| !value.is_empty());
    labels
}

/// Alertmanager sends the receiver's name through `regexp.QuoteMeta`
/// (`template/template.go`): takes the backslashes out again.
fn unquote(receiver: &str) -> String {
    let mut name = String::with_capacity(receiver.len());
    let mut chars = receiver.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            name.extend(chars.next());
        } else {
            name.push(c);
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_one(alert: &str) -> Alert {
        let body = format!(r#"{{"version":"4","alerts":[{alert}]}}"#);
        let mut delivery = parse(body.as_bytes(), Timestamp::UNIX_EPOCH).unwrap();
        delivery.alerts.next().unwrap().unwrap()
    }

    #[test]
    fn a_missing_fingerprint_is_computed_from_the_labels() {
        let alert = parse_one(
            r#"{"status":"firing","labels":{"b":"2","a":"1"},"startsAt":"2026-01-01T00:00:00Z"}"#,
        );
        assert_eq!(alert.fingerprint, Fingerprint::of(&alert.labels));
        let empty = parse_one(
            r#"{"status":"firing","labels":{"a":"1","b":"2"},"fingerprint":"","startsAt":"2026-01-01T00:00:00Z"}"#,
        );
        assert_eq!(alert.fingerprint, empty.fingerprint);
    }

    #[test]
    fn the_zero_end_is_none_and_a_real_one_is_kept() {
        let firing = parse_one(
            r#"{"status":"firing","labels":{"a":"1"},"startsAt":"2026-01-01T00:00:00Z","endsAt":"0001-01-01T00:00:00Z"}"#,
        );
        assert_eq!(firing.ends_at, None);
        let resolved = parse_one(
            r#"{"status":"resolved","labels":{"a":"1"},"startsAt":"2026-01-01T00:00:00-06:00","endsAt":"2026-01-01T07:00:00.5Z"}"#,
        );
        assert_eq!(resolved.starts_at.to_string(), "2026-01-01T06:00:00Z");
        assert_eq!(
            resolved.ends_at.unwrap().to_string(),
            "2026-01-01T07:00:00.5Z"
        );
    }

    #[test]
    fn a_start_is_as_precise_as_alertmanagers_api_tells_it() {
        let alert = parse_one(
            r#"{"status":"firing","labels":{"a":"1"},"startsAt":"2026-01-01T00:00:00.123987654Z"}"#,
        );
        assert_eq!(alert.starts_at.to_string(), "2026-01-01T00:00:00.123Z");
    }

    #[test]
    fn each_alert_has_its_own_status_whatever_the_group_says() {
        let body = br#"{"status":"firing","alerts":[
            {"status":"resolved","labels":{"a":"1"},"startsAt":"2026-01-01T00:00:00Z"},
            {"status":"firing","labels":{"a":"2"},"startsAt":"2026-01-01T00:00:00Z"}]}"#;
        let delivery = parse(body, Timestamp::UNIX_EPOCH).unwrap();
        let statuses: Vec<_> = delivery.alerts.map(|alert| alert.unwrap().status).collect();
        assert_eq!(statuses, [AlertStatus::Resolved, AlertStatus::Firing]);
    }

    #[test]
    fn the_receiver_is_unquoted_and_truncation_is_told() {
        let body = br#"{"receiver":"lab\\.recv \\(prod\\)\\+1","truncatedAlerts":3,"groupKey":"{}:{}","alerts":[]}"#;
        let truncated = parse(body, Timestamp::UNIX_EPOCH)
            .unwrap()
            .truncated
            .unwrap();
        assert_eq!(truncated.receiver, "lab.recv (prod)+1");
        assert_eq!(truncated.count, 3);
    }

    #[test]
    fn unknown_fields_of_later_versions_and_of_grafana_are_ignored() {
        let alert = parse_one(
            r#"{"status":"firing","labels":{"alertname":"X"},"annotations":{},"startsAt":"2026-01-01T00:00:00Z",
                "endsAt":"0001-01-01T00:00:00Z","generatorURL":"?orgId=1","fingerprint":"57c6d9296de2ad39",
                "silenceURL":"https://g/s","dashboardURL":"","values":{"A":1.5},"valueString":"[]","orgId":1}"#,
        );
        assert_eq!(alert.fingerprint.0, "57c6d9296de2ad39");
        assert_eq!(alert.generator_url.as_deref(), Some("?orgId=1"));
    }

    #[test]
    fn a_bad_alert_does_not_take_the_good_ones_with_it() {
        let body = br#"{"alerts":[
            {"status":"firing","labels":{},"startsAt":"2026-01-01T00:00:00Z"},
            {"status":"firing","labels":{"a":"1"},"startsAt":"2026-01-01T00:00:00Z"}]}"#;
        let delivery = parse(body, Timestamp::UNIX_EPOCH).unwrap();
        let alerts: Vec<_> = delivery.alerts.collect();
        assert_eq!(alerts[0].as_ref().unwrap_err().line, 2);
        assert!(alerts[1].is_ok());
    }

    #[test]
    fn an_alert_without_labels_is_refused() {
        let body = br#"{"alerts":[{"status":"firing","labels":{"a":""},"startsAt":"2026-01-01T00:00:00Z"}]}"#;
        let mut delivery = parse(body, Timestamp::UNIX_EPOCH).unwrap();
        assert!(delivery.alerts.next().unwrap().is_err());
    }
}
