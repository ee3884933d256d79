//! Bodies that alerts come in, and what Alertmanager answers.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use sentinel_core::alert::{Alert, AlertStatus, Fingerprint, Labels, identifying_start};
use sentinel_core::bounds;
use sentinel_core::lease::{Lease, RESOLVE_TIMEOUT, Span};
use sentinel_intake::{ALERTS, Endpoint, Malformed, One, Reading, growth};
use serde_json::{Map, Value};

use crate::{bounded, said};

/// When a delivery comes in.
const NOW: &str = "2026-01-01T12:00:00Z";

/// The longest that all that is said of a delivery may be, and the most reasons in it.
const SAID: usize = 5_000;
const REASONS: usize = 20;

/// What a delivery came to.
struct Read {
    taken: Vec<One>,
    refused: usize,
}

/// A body of Alertmanager's webhook.
pub fn webhook(bytes: &[u8]) {
    delivery(Endpoint::Alertmanager, bytes);
}

/// A body that is posted as to an Alertmanager.
pub fn alerts(bytes: &[u8]) {
    let spans = delivery(Endpoint::Prometheus, bytes);
    leases(&spans);
}

fn now() -> Timestamp {
    NOW.parse().expect("a time")
}

fn delivery(endpoint: Endpoint, bytes: &[u8]) -> Vec<Span> {
    let text = sentinel_intake::text(bytes.to_vec().into());
    assert!(text.len() <= bytes.len() + growth(bytes));
    let plain = serde_json::from_str::<Value>(&text).ok();
    let plain = plain.filter(|body| !is_doubled(body) && !is_cased(body));
    let read = match bounded(bytes.len(), || read(endpoint, text.clone())) {
        Ok(read) => read,
        Err(error) => {
            malformed(&error, &text);
            // Whoever builds a tree finds no alerts in it either.
            assert!(plain.is_none_or(|body| list(endpoint, &body).is_none()));
            return Vec::new();
        }
    };
    for one in &read.taken {
        accepted(endpoint, one);
    }
    if let Some(body) = plain {
        as_a_tree_has_it(&read, &list(endpoint, &body).expect("a list of alerts"));
    }
    read.taken.iter().filter_map(|one| one.span).collect()
}

/// Reads a body as the daemon does: slice by slice, and each slice is one commit.
fn read(endpoint: Endpoint, text: String) -> Result<Read, Malformed> {
    let (bytes, body) = (text.len(), text.clone());
    let mut reading = Reading::open(endpoint, text, now(), RESOLVE_TIMEOUT)?;
    if let Some(truncated) = reading.truncated() {
        assert!(truncated.count > 0);
        let quoted = 4 * (bounds::QUOTED + 1);
        assert!(truncated.receiver.len() <= quoted && truncated.group.len() <= quoted);
    }
    let (mut taken, mut slices, mut cut) = (Vec::new(), 0, 0);
    while !reading.is_done() {
        let slice = reading.slice();
        assert!(slice.len() <= ALERTS);
        cut += slice.iter().filter(|one| one.cut).count();
        taken.extend(slice);
        slices += 1;
        // Each but the last has so many alerts, or so much of the text.
        assert!(slices <= 2 + taken.len() / ALERTS + bytes / (1 << 20));
    }
    assert_eq!(reading.cut(), cut);
    let refused = reading.refused();
    assert!(refused.summary().len() <= SAID, "{}", refused.summary());
    assert!(refused.reasons().len() <= REASONS.min(refused.count()));
    assert_eq!(refused.first().is_some(), refused.count() > 0);
    if let Some(first) = refused.first() {
        malformed(first, &body);
    }
    Ok(Read {
        taken,
        refused: refused.count(),
    })
}

/// What is wrong is short, and where it says.
fn malformed(error: &Malformed, text: &str) {
    assert!(error.to_string().len() <= SAID, "{error}");
    let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
    assert!((1..=lines).contains(&error.line), "{error}");
    assert!((1..=text.len() + 1).contains(&error.column), "{error}");
}

/// What was taken in is within the bounds, and comes back from the journal.
fn accepted(endpoint: Endpoint, one: &One) {
    let alert = &one.alert;
    within_bounds(alert);
    assert_eq!(alert.source, endpoint.source());
    let resolved = alert.status == AlertStatus::Resolved;
    match endpoint {
        Endpoint::Alertmanager => {
            assert_eq!(one.span, None);
            assert_eq!(alert.starts_at, identifying_start(alert.starts_at));
        }
        Endpoint::Prometheus => {
            let span = one.span.expect("it lives by lease");
            assert_eq!(alert.starts_at, span.starts_at);
            assert!(span.starts_at <= span.ends_at);
            assert_eq!(alert.fingerprint, Fingerprint::of(&alert.labels));
            assert_eq!(resolved, span.ends_at <= now());
            assert_eq!(alert.ends_at, resolved.then_some(span.ends_at));
        }
    }
    let kept = serde_json::to_string(alert).expect("an alert is kept");
    let found: Alert = serde_json::from_str(&kept).expect("what is kept is found");
    assert_eq!(found, *alert);
}

fn within_bounds(alert: &Alert) {
    assert_eq!(bounds::check_labels(&alert.labels), Ok(()));
    assert!(!alert.labels.is_empty());
    assert!(alert.labels.values().all(|value| !value.is_empty()));
    annotations_are_within_bounds(&alert.annotations);
    assert!((1..=bounds::FINGERPRINT).contains(&alert.fingerprint.0.len()));
    let link = alert.generator_url.as_ref();
    assert!(link.is_none_or(|link| (1..=bounds::LINK).contains(&link.len())));
}

fn annotations_are_within_bounds(annotations: &Labels) {
    assert!(annotations.len() <= bounds::COUNT);
    let mut together = 0;
    for (name, value) in annotations {
        assert!(name.len() <= bounds::NAME && value.len() <= bounds::ANNOTATION);
        together += name.len() + value.len();
    }
    assert!(together <= bounds::ANNOTATIONS);
}

/// The alerts of a body that was made a tree, if it is what the endpoint takes.
fn list(endpoint: Endpoint, body: &Value) -> Option<Vec<Value>> {
    let list = match endpoint {
        Endpoint::Alertmanager => field(body.as_object()?, "alerts")?,
        Endpoint::Prometheus => body,
    };
    match list {
        Value::Null => Some(Vec::new()),
        Value::Array(alerts) => Some(alerts.clone()),
        _ => None,
    }
}

/// A field by its name, in any case.
fn field<'a>(of: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let mut found = of.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value)
}

/// Whether a delivery writes its list in another case than everybody does.
fn is_cased(body: &Value) -> bool {
    let fields = body.as_object().into_iter().flatten();
    let mut names = fields.map(|(name, _)| name.as_str());
    names.any(|name| name.eq_ignore_ascii_case("alerts") && name != "alerts")
}

/// Whether a field stands there in several cases: which of them is the last a tree does not say.
fn is_doubled(of: &Value) -> bool {
    match of {
        Value::Object(fields) => {
            let names: BTreeSet<_> = fields.keys().map(|key| key.to_ascii_lowercase()).collect();
            names.len() < fields.len() || fields.values().any(is_doubled)
        }
        Value::Array(items) => items.iter().any(is_doubled),
        _ => false,
    }
}

/// The reader that builds no tree finds what one finds that does.
fn as_a_tree_has_it(read: &Read, alerts: &[Value]) {
    assert_eq!(read.taken.len() + read.refused, alerts.len());
    // Which were refused nobody says beyond the first.
    if read.refused > 0 {
        return;
    }
    for (one, written) in read.taken.iter().zip(alerts) {
        let written = written.as_object().expect("an alert is an object");
        let labels = field(written, "labels").and_then(Value::as_object);
        let labels = labels.expect("it has labels");
        for (name, value) in labels {
            let taken = one.alert.labels.get(name);
            match value {
                Value::Null => assert_eq!(taken, None),
                Value::String(text) if text.is_empty() => assert_eq!(taken, None),
                Value::String(text) => assert_eq!(taken, Some(text)),
                // Numbers are kept as they are written.
                _ => assert!(taken.is_some()),
            }
        }
        let known = |name: &String| labels.contains_key(name);
        assert!(one.alert.labels.keys().all(known));
        let annotations = field(written, "annotations").and_then(Value::as_object);
        let Some(annotations) = annotations else {
            assert!(one.alert.annotations.is_empty());
            continue;
        };
        for (name, value) in annotations {
            if let (Value::String(text), false) = (value, one.cut) {
                assert_eq!(one.alert.annotations.get(name), Some(text));
            }
        }
    }
}

/// Posts of one alert as they come: whatever times senders make up, there is a lease.
fn leases(spans: &[Span]) {
    let mut lease: Option<Lease> = None;
    let mut now = now();
    for span in spans {
        let before = lease.map(|lease| {
            if lease.ran_out(now) {
                lease.lapse()
            } else {
                lease
            }
        });
        let heard = Lease::heard(before.as_ref(), *span, now);
        assert!(heard.span.starts_at <= heard.span.ends_at);
        let kept = serde_json::to_string(&heard).expect("a lease is kept");
        let found: Lease = serde_json::from_str(&kept).expect("what is kept is found");
        assert_eq!(found, heard);
        assert!(found.found(now).until >= found.until);
        lease = Some(heard);
        now += Duration::from_mins(1);
    }
}

/// What Alertmanager's API says fires.
pub fn active(bytes: &[u8]) {
    match bounded(bytes.len(), || sentinel_drivers::alertmanager::parse(bytes)) {
        Ok(alerts) => {
            for grouped in alerts {
                let alert = &grouped.found.alert;
                assert_eq!(alert.status, AlertStatus::Firing);
                assert!(!alert.labels.is_empty());
                assert!(alert.labels.values().all(|value| !value.is_empty()));
                // What is news is taken in like any notification.
                if bounds::check_labels(&alert.labels).is_ok() {
                    within_bounds(alert);
                }
                annotations_are_within_bounds(&alert.annotations);
            }
        }
        Err(error) => said(&error, 0),
    }
}
