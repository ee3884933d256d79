//! An alert of sentinel's own, for an Alertmanager that knows whom to tell.

use notice::{Notice, cut};
use sentinel_plugin::serde_json::{Map, Value, json};
use sentinel_plugin::{Timestamp, clock};

use crate::params::{Event, Params};

/// The door of Alertmanager's API.
const PATH: &str = "/api/v2/alerts";

/// How long an alert fires that a person has to look at, in seconds.
const KEEP: u64 = 4 * 60 * 60;

/// How much of the timeline is told.
const TIMELINE: usize = 8 << 10;

/// The address of the API, given that or Alertmanager's own. A secret is taken as it is.
pub(crate) fn url(given: &str) -> String {
    if given.starts_with("secret://") || given.ends_with(PATH) {
        given.to_owned()
    } else {
        format!("{}{PATH}", given.trim_end_matches('/'))
    }
}

/// From when to when the alert fires; none to leave that to Alertmanager, which takes one
/// that has an end alone as over before it began.
pub(crate) fn fires(notice: &Notice<'_>, params: &Params) -> Option<(Timestamp, Timestamp)> {
    let keep = match (params.event, params.keep) {
        (Event::Resolve, _) => 0,
        _ if notice.is_end() => 0,
        (_, Some(keep)) => keep.duration().as_secs(),
        (_, None) if notice.is_escalation() => KEEP,
        // What is approved has to be the same when it is carried out.
        (_, None) => return None,
    };
    let now = clock::now();
    let end = Timestamp {
        seconds: now.seconds.saturating_add_unsigned(keep),
        nanoseconds: now.nanoseconds,
    };
    Some((now, end))
}

pub(crate) fn payload(
    notice: &Notice<'_>,
    params: &Params,
    fires: Option<&(Timestamp, Timestamp)>,
) -> Value {
    let incident = notice.incident;
    let mut labels: Map<String, Value> = incident
        .alert
        .labels
        .iter()
        .map(|label| (label.name.clone(), label.value.clone().into()))
        .collect();
    let name = if notice.is_escalation() {
        "SentinelEscalation"
    } else {
        "SentinelNotice"
    };
    // What routes by team or place goes on to do so; the name is one of its own.
    labels.insert("alertname".to_owned(), name.into());
    labels.insert("sentinel_alert".to_owned(), notice.name().into());
    labels.insert("sentinel_policy".to_owned(), incident.policy.clone().into());
    labels.insert(
        "sentinel_target".to_owned(),
        incident.target.uri.clone().into(),
    );
    labels.insert("severity".to_owned(), notice.severity.as_str().into());
    for (name, value) in &params.labels {
        labels.insert(name.clone(), value.clone().into());
    }
    let (timeline, _) = notice.timeline_end(TIMELINE);
    let mut annotations: Map<String, Value> = notice
        .annotations()
        .map(|label| (label.name.clone(), label.value.clone().into()))
        .collect();
    let description = match notice.message {
        Some(message) => format!("{message}\n{}", notice.why()),
        None => notice.why(),
    };
    for (name, value) in [
        ("summary", notice.title()),
        ("description", cut(&description, 4096)),
        ("sentinel_incident", incident.id.clone()),
        ("sentinel_show", notice.show_command()),
        (
            "sentinel_decide",
            notice.decide_command().unwrap_or_default().to_owned(),
        ),
        ("sentinel_timeline", timeline),
    ] {
        if !value.is_empty() {
            annotations.insert(name.to_owned(), value.into());
        }
    }
    let mut alert = Map::new();
    let moment = |at: &Timestamp| Value::from(at.to_string());
    if let Some((from, to)) = fires {
        alert.insert("startsAt".to_owned(), moment(from));
        alert.insert("endsAt".to_owned(), moment(to));
    }
    if let Some(url) = &incident.alert.generator_url {
        alert.insert("generatorURL".to_owned(), url.clone().into());
    }
    alert.insert("labels".to_owned(), labels.into());
    alert.insert("annotations".to_owned(), annotations.into());
    json!([alert])
}
