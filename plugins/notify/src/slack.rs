//! Incoming webhooks as Slack has them. Attachments and not blocks: Mattermost, Rocket.Chat
//! and Discord understand those too.

use notice::{Notice, Severity, cut};
use sentinel_plugin::serde_json::{Value, json};

/// How much of the timeline is told. Slack folds long texts away, and the whole of it is
/// a command away.
const TIMELINE: usize = 2500;

pub(crate) fn payload(notice: &Notice<'_>) -> Value {
    let incident = notice.incident;
    if notice.is_end() {
        let (title, why) = (notice.title(), cut(&notice.why(), 500));
        return json!({
            "text": format!("*{}*: {}", escaped(&title), escaped(&why)),
            "attachments": [{
                "fallback": escaped(&format!("{title}: {why}")),
                "color": "good",
                "footer": format!("Infra Sentinel, incident {}", escaped(&incident.id)),
            }],
        });
    }
    let mut text = Vec::new();
    let parts = [notice.message, notice.summary()];
    for part in parts.into_iter().flatten() {
        text.push(escaped(&cut(part, 1000)));
    }
    if !notice.timeline.is_empty() {
        let (timeline, left_out) = notice.timeline_end(TIMELINE);
        if left_out > 0 {
            text.push(format!("_{left_out} earlier lines are left out_"));
        }
        // What would end the block is not to.
        let timeline = escaped(&timeline).replace("```", "'''");
        text.push(format!("```{timeline}```"));
    }
    let links: Vec<String> = notice
        .links()
        .iter()
        .map(|(name, url)| {
            let url = url.replace('|', "%7C").replace('>', "%3E");
            format!("<{}|{}>", escaped(&url), escaped(name))
        })
        .collect();
    if !links.is_empty() {
        text.push(links.join(" · "));
    }
    let field = |title: &str, value: &str, short: bool| json!({ "title": title, "value": escaped(&cut(value, 500)), "short": short });
    let title = notice.title();
    let commands = [
        Some(notice.show_command()),
        notice.decide_command().map(str::to_owned),
    ];
    let commands: Vec<String> = commands
        .into_iter()
        .flatten()
        .map(|command| format!("`{}`", escaped(&command)))
        .collect();
    json!({
        "text": format!("*{}*", escaped(&title)),
        "attachments": [{
            "fallback": escaped(&format!("{title}: {}", cut(&notice.why(), 300))),
            "color": match notice.severity {
                Severity::Critical | Severity::Error => "danger",
                Severity::Warning => "warning",
                Severity::Info => "#439FE0",
            },
            "fields": [
                field("Why", &notice.why(), false),
                field("Policy", &incident.policy, true),
                field("Target", &incident.target.uri, true),
                field("Severity", notice.severity.as_str(), true),
                field("Firing since", &incident.alert.starts_at.to_string(), true),
                json!({
                    "title": match notice.decide_command() {
                        Some(_) => "To see everything, and to approve it",
                        None => "To see everything",
                    },
                    "value": commands.join("\n"),
                    "short": false
                }),
            ],
            "text": text.join("\n"),
            "mrkdwn_in": ["text", "fields"],
            "footer": format!("Infra Sentinel, incident {}", escaped(&incident.id)),
            "ts": incident.alert.starts_at.seconds,
        }],
    })
}

/// `text` as Slack wants it, in which nothing calls a channel or makes a link.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
