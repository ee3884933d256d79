//! JSON for programs, as `docs/notify.md` has it. What is there stays there, with its
//! meaning, as long as `version` is 1.

use notice::{Notice, object};
use sentinel_plugin::AlertStatus;
use sentinel_plugin::serde_json::{Map, Value, json};

pub(crate) fn payload(notice: &Notice<'_>) -> Value {
    let incident = notice.incident;
    let (target, alert) = (&incident.target, &incident.alert);
    let mut commands = Map::from_iter([("show".to_owned(), notice.show_command().into())]);
    if let Some(command) = notice.decide_command() {
        commands.insert("decide".to_owned(), command.into());
    }
    json!({
        "version": 1,
        "kind": notice.occasion().as_str(),
        "title": notice.title(),
        "message": notice.message,
        "reason": notice.why(),
        "severity": notice.severity.as_str(),
        "incident": incident.id,
        "policy": incident.policy,
        "step": incident.step,
        "attempt": incident.attempt,
        "target": {
            "uri": target.uri,
            "kind": target.kind,
            "host": target.host,
            "name": target.name,
        },
        "alert": {
            "name": notice.name(),
            "fingerprint": alert.fingerprint,
            "status": match alert.status {
                AlertStatus::Firing => "firing",
                AlertStatus::Resolved => "resolved",
            },
            "labels": object(&alert.labels),
            "annotations": object(notice.annotations()),
            "starts_at": alert.starts_at.to_string(),
            "generator_url": alert.generator_url,
        },
        "timeline": notice.timeline,
        "commands": commands,
    })
}
