//! Alertmanager's webhook (version "4") and what resembles it: Grafana's, vmalert's,
//! Mimir's. Unknown fields are ignored, because new ones came under the same version.

use sentinel_core::alert::{Alert, AlertStatus, identifying_start};
use sentinel_core::bounds::quoted;

use super::alert::Fields;
use super::lax::{self, Kind, Scalar, Time};
use super::malformed::{Malformed, Places, Wrong};
use super::{Delivery, One, Truncated};

/// Looks what a body holds.
pub(crate) fn open(text: &str) -> Result<Delivery, Malformed> {
    let body = lax::whole(text)?;
    let wrong = |part: &str, message: String| {
        Err(Places::default().locate(text, Wrong::with(text, part, message)))
    };
    if Kind::of(body) != Kind::Object {
        let kind = Kind::of(body);
        return wrong(
            body,
            format!("expected an object with the field `alerts`, and found {kind}"),
        );
    }
    let (mut alerts, mut truncated, mut receiver, mut group) = (None, None, None, None);
    lax::pairs(body, |key, value| {
        let field = match key {
            "\"alerts\"" => &mut alerts,
            "\"truncatedAlerts\"" => &mut truncated,
            "\"receiver\"" => &mut receiver,
            "\"groupKey\"" => &mut group,
            _ => return true,
        };
        *field = Some(value);
        true
    });
    let Some(alerts) = alerts else {
        return wrong(body, "the field `alerts` is missing".to_owned());
    };
    // The group's own status says nothing of each alert: resolved alerts ride inside
    // a firing group.
    let mut delivery = match Kind::of(alerts) {
        Kind::Array => Delivery::at(lax::inside(
            text,
            Wrong::with(text, alerts, String::new()).at,
        )),
        // Go's programs write it for an empty list.
        Kind::Null => Delivery::empty(),
        kind => {
            let message = format!("`alerts`: expected an array, and found {kind}");
            return wrong(alerts, message);
        }
    };
    let count = truncated
        .filter(|raw| Kind::of(raw) == Kind::Number)
        .map_or(0, count);
    if count > 0 {
        delivery.truncated = Some(Truncated {
            receiver: unquote(&shown(receiver)),
            group: shown(group),
            count,
        });
    }
    Ok(delivery)
}

/// A number as a count: whole, and as large as one delivery can have left out.
fn count(raw: &str) -> u32 {
    match raw.parse::<u64>() {
        Ok(count) => u32::try_from(count).unwrap_or(u32::MAX),
        // A fraction, or more than fits: what is of interest is that there are some.
        Err(_) if raw.starts_with('-') => 0,
        Err(_) => raw.parse::<f64>().map_or(0, |count| {
            if count >= f64::from(u32::MAX) {
                u32::MAX
            } else {
                u32::from(count >= 1.0)
            }
        }),
    }
}

/// The beginning of a text that is shown and decides nothing.
fn shown(raw: Option<&str>) -> String {
    match raw.map(|raw| lax::scalar(raw, 4 * sentinel_core::bounds::QUOTED)) {
        Some(Scalar::Text(text) | Scalar::Long(text)) => quoted(&text),
        Some(Scalar::Absent | Scalar::Compound) | None => String::new(),
    }
}

/// Reads one alert.
pub(crate) fn read(text: &str, alert: &str) -> Result<One, Wrong> {
    let fields = Fields::of(text, alert)?;
    let labels = fields.labels(text, alert)?;
    let status = status(text, alert, &fields)?;
    let starts_at = match fields.starts_at.map_or(Time::Absent, lax::time) {
        Time::At(at) => at,
        // What Go's programs read where there is none: it is one episode then, until it is
        // told to have resolved.
        Time::Absent => lax::zero(),
        Time::Odd => {
            let raw = fields.starts_at.unwrap_or(alert);
            let message = "`startsAt`: expected a time such as 2026-01-01T00:00:00Z, which tells one episode of the alert from the next";
            return Err(Wrong::with(text, raw, message.to_owned()));
        }
    };
    let (annotations, cut) = fields.annotations();
    let alert = Alert {
        source: "alertmanager".to_owned(),
        fingerprint: fields.fingerprint(&labels),
        status,
        labels,
        annotations,
        starts_at: identifying_start(starts_at),
        // Alertmanager writes the zero time while the alert fires.
        ends_at: fields.ends_at.and_then(|raw| lax::time(raw).at()),
        generator_url: fields.link(),
    };
    Ok(One {
        alert,
        span: None,
        cut,
    })
}

/// Whether it fires; nothing else decides that here.
fn status(text: &str, alert: &str, fields: &Fields<'_>) -> Result<AlertStatus, Wrong> {
    let Some(raw) = fields.status else {
        return Err(Wrong::with(
            text,
            alert,
            "the field `status` is missing: expected firing or resolved".to_owned(),
        ));
    };
    let found = match lax::scalar(raw, 40) {
        Scalar::Text(status) if status.eq_ignore_ascii_case("firing") => {
            return Ok(AlertStatus::Firing);
        }
        Scalar::Text(status) if status.eq_ignore_ascii_case("resolved") => {
            return Ok(AlertStatus::Resolved);
        }
        Scalar::Text(status) | Scalar::Long(status) => format!("`{}`", quoted(&status)),
        Scalar::Absent | Scalar::Compound => Kind::of(raw).to_string(),
    };
    let message = format!("`status`: expected firing or resolved, and found {found}");
    Err(Wrong::with(text, raw, message))
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
