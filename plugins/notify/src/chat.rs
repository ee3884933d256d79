//! Incoming webhooks of chats: those of Slack, those that take what Slack takes and read it as
//! their own Markdown, and Discord's.

use notice::{Markup, Notice, Severity, cut};
use sentinel_plugin::serde_json::{Value, json};

/// How much of the timeline is told. Slack folds long texts away, and the whole of it is
/// a command away.
const TIMELINE: usize = 2500;

/// How much of a text is told that somebody else wrote.
const TEXT: usize = 1000;

/// How much of a value. Discord takes 1,024 characters, and escapes may double it.
const VALUE: usize = 450;

/// How many links are told.
const LINKS: usize = 10;

/// For Slack, Mattermost and Rocket.Chat. Attachments and not blocks: the others know only
/// those.
pub(crate) fn payload(notice: &Notice<'_>, markup: Markup) -> Value {
    let bold = |title: String| match markup {
        Markup::Slack | Markup::Discord => title,
        Markup::Mattermost => format!("**{title}**"),
        Markup::RocketChat => format!("*{title}*"),
    };
    if notice.is_end() {
        let title = markup.words(&notice.title());
        let why = markup.words(&cut(&notice.why(), VALUE));
        return json!({
            "text": format!("{}: {why}", bold(title.clone())),
            "mrkdwn": markup != Markup::Slack,
            "attachments": [{
                "fallback": format!("{title}: {why}"),
                "color": "good",
                "mrkdwn_in": [],
                "footer": format!("Infra Sentinel, incident {}", notice.incident.id),
            }],
        });
    }
    let fields: Vec<Value> = fields(notice, markup)
        .into_iter()
        .map(|(title, value, short)| json!({ "title": title, "value": value, "short": short }))
        .collect();
    let title = markup.words(&notice.title());
    let fallback = markup.words(&format!("{}: {}", notice.title(), cut(&notice.why(), 300)));
    let mut attachments = vec![json!({
        "fallback": fallback,
        "color": match notice.severity {
            Severity::Critical | Severity::Error => "danger",
            Severity::Warning => "warning",
            Severity::Info => "#439FE0",
        },
        "fields": fields,
        "text": texts(notice, markup).join("\n"),
        // Nothing of it is markup to Slack.
        "mrkdwn_in": [],
        "footer": format!("Infra Sentinel, incident {}", notice.incident.id),
        "ts": notice.incident.alert.starts_at.seconds,
    })];
    if let Some(timeline) = timeline(notice, markup) {
        attachments.push(json!({
            "fallback": "what happened so far",
            "text": timeline,
            "mrkdwn_in": ["text"],
        }));
    }
    json!({
        "text": bold(title),
        "mrkdwn": markup != Markup::Slack,
        "attachments": attachments,
    })
}

/// For Discord.
pub(crate) fn discord(notice: &Notice<'_>) -> Value {
    let markup = Markup::Discord;
    let title = markup.words(&cut(&notice.title(), VALUE));
    if notice.is_end() {
        let why = markup.words(&cut(&notice.why(), VALUE));
        return json!({
            "content": format!("**{title}**: {why}"),
            "allowed_mentions": { "parse": [] },
        });
    }
    let fields: Vec<Value> = fields(notice, markup)
        .into_iter()
        .map(|(title, value, short)| json!({ "name": title, "value": value, "inline": short }))
        .collect();
    let mut text = texts(notice, markup);
    text.extend(timeline(notice, markup));
    json!({
        "content": format!("**{title}**"),
        "embeds": [{
            "description": text.join("\n"),
            "color": match notice.severity {
                Severity::Critical | Severity::Error => 0x00A3_0200,
                Severity::Warning => 0x00DA_A038,
                Severity::Info => 0x0043_9FE0,
            },
            "fields": fields,
            "footer": { "text": format!("Infra Sentinel, incident {}", notice.incident.id) },
            "timestamp": notice.incident.alert.starts_at.to_string(),
        }],
        // Whatever a text says, nobody is called by it.
        "allowed_mentions": { "parse": [] },
    })
}

/// What there is to know at a glance: titles of ours, values of others, and whether a value is
/// short.
fn fields(notice: &Notice<'_>, markup: Markup) -> Vec<(&'static str, String, bool)> {
    let incident = notice.incident;
    let words = |text: &str| markup.words(&cut(text, VALUE));
    let (see, commands) = match notice.decide_command() {
        Some(decide) => (
            "To see everything, and to approve it",
            format!("{}\n{}", words(&notice.show_command()), words(decide)),
        ),
        None => ("To see everything", words(&notice.show_command())),
    };
    vec![
        ("Why", words(&notice.why()), false),
        ("Policy", words(&incident.policy), true),
        ("Target", words(&incident.target.uri), true),
        ("Severity", notice.severity.as_str().to_owned(), true),
        ("Firing since", incident.alert.starts_at.to_string(), true),
        (see, commands, false),
    ]
}

/// The policy's own text, what the alert says of itself, and where to read on.
fn texts(notice: &Notice<'_>, markup: Markup) -> Vec<String> {
    let parts = [notice.message, notice.summary()].into_iter().flatten();
    let parts = parts.map(|part| markup.words(&cut(part, TEXT)));
    let links = notice.links();
    let links = links
        .iter()
        .filter(|(_, url)| url.len() <= TEXT)
        .take(LINKS)
        .map(|(name, url)| markup.link(&cut(name, 100), url));
    parts.chain(links).collect()
}

fn timeline(notice: &Notice<'_>, markup: Markup) -> Option<String> {
    if notice.timeline.is_empty() {
        return None;
    }
    // Discord takes 4,096 characters of text in all, and 6,000 of everything.
    let room = if markup == Markup::Discord {
        1200
    } else {
        TIMELINE
    };
    let (timeline, left_out) = notice.timeline_end(room);
    let block = markup.block(&timeline);
    Some(if left_out > 0 {
        format!("_{left_out} earlier lines are left out_\n{block}")
    } else {
        block
    })
}
