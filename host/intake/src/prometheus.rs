//! What senders post to an Alertmanager: a bare array, `POST /api/v2/alerts`, from
//! Prometheus, scripts and whatever else speaks to one. There is no status: an alert has
//! resolved when its `endsAt` has passed. Which posts are the same alert is decided where
//! they are committed (`sentinel_core::lease`).

use std::time::Duration;

use jiff::Timestamp;
use sentinel_core::alert::{Alert, AlertStatus, Fingerprint};
use sentinel_core::lease::Span;

use super::alert::Fields;
use super::lax::{self, Kind, Time};
use super::malformed::{Malformed, Places, Wrong};
use super::{Delivery, One};

/// Looks what a body holds.
pub(crate) fn open(text: &str) -> Result<Delivery, Malformed> {
    let body = lax::whole(text)?;
    match Kind::of(body) {
        Kind::Array => {
            let at = Wrong::with(text, body, String::new()).at;
            Ok(Delivery::at(lax::inside(text, at)))
        }
        // Go's programs write it for an empty list.
        Kind::Null => Ok(Delivery::empty()),
        kind => {
            let message = format!("expected an array of alerts, and found {kind}");
            Err(Places::default().locate(text, Wrong::with(text, body, message)))
        }
    }
}

/// Reads one alert.
pub(crate) fn read(
    text: &str,
    alert: &str,
    now: Timestamp,
    resolve_timeout: Duration,
) -> Result<One, Wrong> {
    let fields = Fields::of(text, alert)?;
    let labels = fields.labels(text, alert)?;
    let ends_at = fields.ends_at.map_or(Time::Absent, lax::time);
    if ends_at == Time::Odd {
        let raw = fields.ends_at.unwrap_or(alert);
        let message = "`endsAt`: expected a time such as 2026-01-01T00:00:00Z, which says whether the alert has resolved";
        return Err(Wrong::with(text, raw, message.to_owned()));
    }
    // What stands there otherwise makes no difference: which alert it is the labels say.
    let starts_at = fields.starts_at.map_or(Time::Absent, lax::time);
    let span = Span::posted(starts_at.at(), ends_at.at(), now, resolve_timeout)
        .map_err(|error| Wrong::with(text, alert, error.to_string()))?;
    let resolved = span.resolved(now);
    let (annotations, cut) = fields.annotations();
    let alert = Alert {
        source: "prometheus".to_owned(),
        fingerprint: Fingerprint::of(&labels),
        status: if resolved {
            AlertStatus::Resolved
        } else {
            AlertStatus::Firing
        },
        labels,
        annotations,
        starts_at: span.starts_at,
        // While it fires, this is only when Alertmanager would give it up.
        ends_at: resolved.then_some(span.ends_at),
        generator_url: fields.link(),
    };
    Ok(One {
        alert,
        span: Some(span),
        cut,
    })
}
