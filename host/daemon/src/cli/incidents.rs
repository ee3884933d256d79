//! `sentinel incidents list|show`.

use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use sentinel_core::id::IncidentId;
use sentinel_journal::{IncidentFilter, OpenError, Reader};
use serde_json::Value;
use url::Url;

use super::Output;
use super::client;
use super::output::{Failure, harmless, harmless_lines, print_as, table};
use crate::api::{IncidentList, IncidentView};
use crate::config::Config;

pub(super) fn list(
    config: &Path,
    url: Option<&Url>,
    filter: &IncidentFilter,
    output: Output,
) -> Result<(), Failure> {
    let list = if let Some(url) = url {
        IncidentList::whole(filter, |filter| {
            let mut query = vec![("limit", filter.limit.to_string())];
            query.extend(filter.policy.clone().map(|policy| ("policy", policy)));
            query.extend(filter.state.clone().map(|state| ("state", state)));
            query.extend(filter.before.map(|before| ("before", before.to_string())));
            if filter.open {
                query.push(("open", "true".to_owned()));
            }
            client::get(url, "api/v1/incidents", &query)
        })?
    } else {
        let reader = reader(config).map_err(or_by_url)?;
        IncidentList::whole(filter, |filter| IncidentList::read(&reader, filter))
            .map_err(|error| Failure::software(error.to_string()))?
    };
    print_as(output, &list, || list_text(&list))
}

pub(super) fn show(
    config: &Path,
    url: Option<&Url>,
    id: IncidentId,
    output: Output,
) -> Result<(), Failure> {
    let view = if let Some(url) = url {
        fetch(url, id)?
    } else {
        let reader = reader(config).map_err(or_by_url)?;
        IncidentView::all(&reader, id).map_err(|error| Failure::given(error.to_string()))?
    };
    print_as(output, &view, || show_text(&view))
}

/// All of an incident, from a daemon.
pub(super) fn fetch(base: &Url, id: IncidentId) -> Result<IncidentView, Failure> {
    IncidentView::whole(|page| {
        let mut query = vec![("after", page.after.to_string())];
        query.extend(page.limit.map(|limit| ("limit", limit.to_string())));
        client::get(base, &format!("api/v1/incidents/{id}"), &query)
    })
}

/// The journal in the configuration's data folder.
pub(super) fn reader(config: &Path) -> Result<Reader, Failure> {
    let config = Config::read(config, &super::variable)?;
    Reader::open(&config.data_dir).map_err(|error| match error {
        OpenError::Missing { .. } => {
            Failure::given(error.to_string()).hint("start `sentinel serve` first")
        }
        OpenError::Hidden { .. } => Failure::given(error.to_string())
            .hint("the folder is its daemon's alone: ask as the daemon's user"),
        other => Failure::given(other.to_string()),
    })
}

/// These commands can ask a daemon as well.
fn or_by_url(failure: Failure) -> Failure {
    failure.or("name a daemon with --url")
}

fn list_text(list: &IncidentList) -> String {
    if list.incidents.is_empty() {
        return "no incidents\n".to_owned();
    }
    let rows: Vec<Vec<String>> = list
        .incidents
        .iter()
        .map(|row| {
            let took = row
                .ended_at
                .map_or_else(|| "-".to_owned(), |at| seconds(row.opened_at, at));
            vec![
                row.id.to_string(),
                row.state.clone(),
                row.policy.clone(),
                harmless(&row.target),
                harmless(&row.alert),
                second(row.opened_at),
                took,
            ]
        })
        .collect();
    table(
        &["ID", "STATE", "POLICY", "TARGET", "ALERT", "OPENED", "TOOK"],
        &rows,
    )
}

fn show_text(view: &IncidentView) -> String {
    let row = &view.row;
    let mut out = String::new();
    let state = match &row.reason {
        Some(reason) => format!("{}: {}", row.state, harmless_lines(reason, 9)),
        None => row.state.clone(),
    };
    // Writing to a String cannot fail.
    let _ok = writeln!(
        out,
        "incident {}\npolicy   {}\ntarget   {}\nalert    {}\nopened   {}\nstate    {state}\n",
        row.id,
        row.policy,
        harmless(&row.target),
        harmless(&row.alert),
        second(row.opened_at),
    );
    if let Some(plan) = &view.plan {
        let _ok = writeln!(
            out,
            "plan {} waits for approval until {}{}",
            plan.digest.short(),
            second(plan.expires_at),
            match plan.approved_by.as_slice() {
                [] => String::new(),
                people => format!("; approved by {}", harmless(&people.join(", "))),
            }
        );
        for (number, effect) in plan.effects.iter().enumerate() {
            let _ok = writeln!(out, "{:>4}. {}", number + 1, harmless(effect));
        }
        let _ok = writeln!(
            out,
            "approve it with `sentinel approve {} --plan {}`\n",
            row.id,
            plan.digest.short()
        );
    }
    for event in &view.events {
        let text = |key: &str| harmless(event.get(key).and_then(Value::as_str).unwrap_or_default());
        let at = text("at")
            .parse::<Timestamp>()
            .map_or_else(|_| String::new(), |at| seconds(row.opened_at, at));
        let said = event
            .get("text")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let said = harmless_lines(said, 36);
        let _ok = writeln!(out, "{at:>12}  {:<20}  {said}", text("kind"));
        let lines = event.get("lines").and_then(Value::as_array);
        for line in lines.into_iter().flatten().filter_map(Value::as_str) {
            let _ok = writeln!(out, "{:36}{}", "", harmless_lines(line, 36));
        }
    }
    out
}

/// A moment to the second.
pub(super) fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// The time from one moment to another, to the millisecond.
pub(super) fn seconds(from: Timestamp, to: Timestamp) -> String {
    format!("{:+.3} s", to.duration_since(from).as_secs_f64())
}
