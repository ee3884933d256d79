//! What the mail says: plain text, the most important first, for whoever reads it on a
//! telephone at night.

use std::fmt::Write as _;

use notice::{Notice, cut, one_line};

/// How long a subject may be, in bytes: what lists of mails show, and some more.
const SUBJECT: usize = 200;

/// How much of each text is told that somebody else wrote.
const TEXT: usize = 2000;

/// How much of the timeline is told; a mail has at most 64 KiB.
const TIMELINE: usize = 24 << 10;

/// How many labels and links are told, and how much of each.
const ITEMS: usize = 40;
const ITEM: usize = 300;

pub(crate) fn subject(notice: &Notice<'_>) -> String {
    let subject = format!("[{}] {}", notice.severity.as_str(), notice.title());
    cut(&one_line(&subject), SUBJECT)
}

pub(crate) fn text(notice: &Notice<'_>) -> String {
    let incident = notice.incident;
    let mut out = format!("{}.\n", one_line(&notice.title()));
    for part in [notice.message, notice.summary()].into_iter().flatten() {
        paragraph(&mut out, &cut(part, TEXT));
    }
    let since = incident.alert.starts_at.to_string();
    let why = cut(&notice.why(), TEXT);
    out.push('\n');
    for (name, value) in [
        ("Why", why.as_str()),
        ("Policy", &incident.policy),
        ("Target", &incident.target.uri),
        ("Severity", notice.severity.as_str()),
        ("Firing since", &since),
        ("Incident", &incident.id),
        ("To see everything", &notice.show_command()),
    ] {
        line(&mut out, &format!("{name}: {}", one_line(value)));
    }
    if let Some(command) = notice.decide_command() {
        line(&mut out, &format!("To approve it: {}", one_line(command)));
    }
    let links = notice.links();
    section(
        &mut out,
        "Where to read on",
        links.iter().map(|(name, url)| (*name, *url)),
    );
    let labels = incident.alert.labels.iter();
    section(
        &mut out,
        "The alert's labels",
        labels.map(|label| (label.name.as_str(), label.value.as_str())),
    );
    if !notice.timeline.is_empty() {
        let (timeline, left_out) = notice.timeline_end(TIMELINE);
        out.push_str("\nWhat happened so far\n");
        if left_out > 0 {
            line(
                &mut out,
                &format!("  ({left_out} earlier lines are left out)"),
            );
        }
        for each in timeline.lines() {
            line(&mut out, &format!("  {}", one_line(each)));
        }
    }
    // What follows is no part of it, as readers of mail know.
    line(&mut out, "\n-- \nInfra Sentinel");
    out
}

/// A text of others, with its lines. They are set off, so that none passes for one of ours.
fn paragraph(out: &mut String, text: &str) {
    out.push('\n');
    for each in text.lines() {
        line(out, &format!("  {}", one_line(each)));
    }
}

/// A heading, and what belongs under it, if there is anything.
fn section<'a>(out: &mut String, title: &str, items: impl Iterator<Item = (&'a str, &'a str)>) {
    let mut items = items.take(ITEMS).peekable();
    if items.peek().is_none() {
        return;
    }
    line(out, &format!("\n{title}"));
    for (name, value) in items {
        line(
            out,
            &format!("  {}: {}", one_line(name), cut(&one_line(value), ITEM)),
        );
    }
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ok = writeln!(out, "{text}");
}
