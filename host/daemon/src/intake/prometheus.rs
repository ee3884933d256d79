//! What Prometheus posts to an Alertmanager: a bare array, `POST /api/v2/alerts`. There
//! is no status: an alert has resolved when its `endsAt` has passed.

use jiff::Timestamp;
use sentinel_core::alert::{Alert, AlertStatus, Fingerprint, Labels};
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use super::Delivery;
use super::alertmanager::{is_zero, without_empty};
use super::malformed::{Malformed, sift};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostableAlert {
    labels: Labels,
    #[serde(default)]
    annotations: Option<Labels>,
    #[serde(default)]
    starts_at: Option<Timestamp>,
    #[serde(default)]
    ends_at: Option<Timestamp>,
    #[serde(default, rename = "generatorURL")]
    generator_url: Option<String>,
}

pub(super) fn parse(body: &[u8], now: Timestamp) -> Result<Delivery<'_>, Malformed> {
    let posted: Vec<&RawValue> = serde_json::from_slice(body)?;
    let alerts = sift(body, posted, move |alert: PostableAlert| {
        alert.normalise(now)
    });
    Ok(Delivery {
        alerts,
        truncated: None,
    })
}

impl PostableAlert {
    fn normalise(self, now: Timestamp) -> Result<Alert, serde_json::Error> {
        let labels = without_empty(self.labels);
        if labels.is_empty() {
            return Err(serde_json::Error::custom("an alert has no labels"));
        }
        let given = |at: Option<Timestamp>| at.filter(|at| !is_zero(*at));
        let ends_at = given(self.ends_at);
        let resolved = ends_at.is_some_and(|at| at <= now);
        Ok(Alert {
            source: "prometheus".to_owned(),
            fingerprint: Fingerprint::of(&labels),
            status: if resolved {
                AlertStatus::Resolved
            } else {
                AlertStatus::Firing
            },
            labels,
            annotations: self.annotations.unwrap_or_default(),
            starts_at: given(self.starts_at)
                .or(ends_at.filter(|_| resolved))
                .unwrap_or(now),
            // While it fires, this is only when Alertmanager would give it up.
            ends_at: ends_at.filter(|_| resolved),
            generator_url: self.generator_url.filter(|url| !url.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_in_the_future_fires_and_one_in_the_past_has_resolved() {
        let body = br#"[
            {"labels":{"alertname":"A"},"startsAt":"2026-01-01T00:00:00Z","endsAt":"2026-01-01T00:04:00Z"},
            {"labels":{"alertname":"B"},"startsAt":"2026-01-01T00:00:00Z","endsAt":"2026-01-01T00:00:30Z"}]"#;
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let alerts: Vec<_> = parse(body, now)
            .unwrap()
            .alerts
            .map(Result::unwrap)
            .collect();
        assert_eq!(alerts[0].status, AlertStatus::Firing);
        assert_eq!(alerts[0].ends_at, None);
        assert_eq!(alerts[1].status, AlertStatus::Resolved);
        assert!(alerts[1].ends_at.is_some());
    }

    #[test]
    fn a_missing_start_is_now() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let alerts = parse(br#"[{"labels":{"alertname":"A"}}]"#, now)
            .unwrap()
            .alerts
            .map(Result::unwrap)
            .collect::<Vec<_>>();
        assert_eq!(alerts[0].starts_at, now);
        assert_eq!(alerts[0].status, AlertStatus::Firing);
    }
}
