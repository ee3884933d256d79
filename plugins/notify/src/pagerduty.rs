//! `PagerDuty`'s Events API v2. The routing key is left empty: the host fills it in.

use notice::{Notice, cut, object};
use sentinel_plugin::serde_json::{Value, json};

use crate::params::{Event, Params};

/// Where events go, unless the policy says otherwise (Europe has an address of its own).
pub(crate) const URL: &str = "https://events.pagerduty.com/v2/enqueue";

/// Where the host puts the routing key.
pub(crate) const KEY: &str = "/routing_key";

/// How much of the timeline is told; an event has at most 512 KiB.
const TIMELINE: usize = 24 << 10;

pub(crate) fn payload(notice: &Notice<'_>, params: &Params) -> Value {
    let incident = notice.incident;
    let key = params.dedup_key.clone().unwrap_or_else(|| {
        cut(
            &format!("sentinel/{}/{}", incident.policy, incident.target),
            255,
        )
    });
    let event = if notice.is_end() {
        Event::Resolve
    } else {
        params.event
    };
    let (action, routing_key) = (event.as_str(), "");
    if event != Event::Trigger {
        return json!({
            "routing_key": routing_key,
            "event_action": action,
            "dedup_key": key,
        });
    }
    let (timeline, _) = notice.timeline_end(TIMELINE);
    let links: Vec<Value> = notice
        .links()
        .iter()
        .map(|(name, url)| json!({ "href": url, "text": name }))
        .collect();
    json!({
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": key,
        "client": "Infra Sentinel",
        "links": links,
        "payload": {
            "summary": cut(&format!("{}: {}", notice.title(), notice.why()), 1024),
            "source": incident.target.uri,
            "severity": notice.severity.as_str(),
            "timestamp": incident.alert.starts_at.to_string(),
            "component": incident.target.name,
            "group": incident.policy,
            "class": notice.name(),
            "custom_details": {
                "message": notice.message,
                "summary": notice.summary(),
                "reason": notice.why(),
                "incident": incident.id,
                "show": notice.show_command(),
                "decide": notice.decide_command(),
                "labels": object(&incident.alert.labels),
                "timeline": timeline,
            },
        },
    })
}
