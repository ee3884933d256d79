//! `sentinel incidents list|show`.

use std::error::Error as _;
use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use sentinel_core::id::IncidentId;
use sentinel_journal::{IncidentFilter, OpenError, Reader};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::Output;
use super::output::{Failure, harmless, print_as, table};
use crate::api::{IncidentList, IncidentView};
use crate::config::Config;

pub(super) fn list(
    config: &Path,
    url: Option<&Url>,
    filter: &IncidentFilter,
    output: Output,
) -> Result<(), Failure> {
    let list = match url {
        Some(url) => {
            let mut query = vec![("limit", filter.limit.to_string())];
            query.extend(filter.policy.clone().map(|policy| ("policy", policy)));
            query.extend(filter.state.clone().map(|state| ("state", state)));
            if filter.open {
                query.push(("open", "true".to_owned()));
            }
            fetch(url, "api/v1/incidents", &query)?
        }
        None => IncidentList::read(&reader(config)?, filter)
            .map_err(|error| Failure::software(error.to_string()))?,
    };
    print_as(output, &list, || list_text(&list))
}

pub(super) fn show(
    config: &Path,
    url: Option<&Url>,
    id: IncidentId,
    output: Output,
) -> Result<(), Failure> {
    let view = match url {
        Some(url) => fetch(url, &format!("api/v1/incidents/{id}"), &[])?,
        None => IncidentView::read(&reader(config)?, id)
            .map_err(|error| Failure::given(error.to_string()))?,
    };
    print_as(output, &view, || show_text(&view))
}

fn reader(config: &Path) -> Result<Reader, Failure> {
    let config = Config::read(config, &super::variable)?;
    Reader::open(&config.data_dir).map_err(|error| match error {
        OpenError::Missing { .. } => Failure::given(error.to_string())
            .hint("start `sentinel serve` first, or name a daemon with --url"),
        other => Failure::given(other.to_string()),
    })
}

/// Asks a running daemon.
fn fetch<T: DeserializeOwned>(
    base: &Url,
    path: &str,
    query: &[(&str, String)],
) -> Result<T, Failure> {
    let mut url = base
        .join(path)
        .map_err(|error| Failure::given(format!("{base} is no base address: {error}")))?;
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::software(error.to_string()))?;
    let unreachable = |error: reqwest::Error| {
        let error = error.without_url();
        let mut why = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            why = format!("{why}: {cause}");
            source = cause.source();
        }
        Failure::unavailable(format!("{base} does not answer: {why}"))
            .hint("is the daemon running there? without --url the journal is read from `data_dir`")
    };
    runtime.block_on(async {
        if rustls::crypto::ring::default_provider()
            .install_default()
            .is_err()
        {
            tracing::trace!("a TLS provider is installed already");
        }
        let response = reqwest::Client::builder()
            .no_proxy()
            .timeout(std::time::Duration::from_secs(30))
            .build()
            .map_err(|error| Failure::software(error.to_string()))?
            .get(url.clone())
            .send()
            .await
            .map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        if !status.is_success() {
            let said = serde_json::from_slice::<Value>(&body)
                .ok()
                .and_then(|body| body.get("error")?.as_str().map(ToOwned::to_owned))
                .unwrap_or_else(|| format!("{url} answered {status}"));
            return Err(Failure::given(harmless(&said)));
        }
        serde_json::from_slice(&body)
            .map_err(|error| Failure::unavailable(format!("{url} is no sentinel: {error}")))
    })
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
        Some(reason) => format!("{}: {}", row.state, harmless(reason)),
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
    for event in &view.events {
        let text = |key: &str| harmless(event.get(key).and_then(Value::as_str).unwrap_or_default());
        let at = text("at")
            .parse::<Timestamp>()
            .map_or_else(|_| String::new(), |at| seconds(row.opened_at, at));
        let _ok = writeln!(out, "{at:>12}  {:<20}  {}", text("kind"), text("text"));
        let lines = event.get("lines").and_then(Value::as_array);
        for line in lines.into_iter().flatten().filter_map(Value::as_str) {
            let _ok = writeln!(out, "{:36}{}", "", harmless(line));
        }
    }
    out
}

/// A moment to the second.
fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// The time from one moment to another, to the millisecond.
fn seconds(from: Timestamp, to: Timestamp) -> String {
    format!("{:+.3} s", to.duration_since(from).as_secs_f64())
}
