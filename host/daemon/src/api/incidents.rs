//! `GET /api/v1/incidents` and `GET /api/v1/incidents/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use sentinel_core::event::{Event, EventBody};
use sentinel_core::id::{Digest, IncidentId};
use sentinel_core::incident::{Incident, Phase};
use sentinel_core::timeline::{Entry, timeline};
use sentinel_journal::{IncidentFilter, IncidentRow, ReadError, Reader};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Api;

/// How many incidents a list holds when nobody says, and at the most.
const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    policy: Option<String>,
    state: Option<String>,
    #[serde(default)]
    open: bool,
    before: Option<u64>,
    limit: Option<u32>,
}

/// A list of incidents, newest first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IncidentList {
    /// The incidents.
    pub(crate) incidents: Vec<ListedIncident>,
}

/// One row of a list.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ListedIncident {
    /// Its number.
    pub(crate) id: IncidentId,
    /// The policy's name.
    pub(crate) policy: String,
    /// What is acted on.
    pub(crate) target: String,
    /// The name of the alert that opened it.
    pub(crate) alert: String,
    /// Where it stands, as one word; its end when it is over.
    pub(crate) state: String,
    /// When it opened.
    pub(crate) opened_at: Timestamp,
    /// When it ended.
    pub(crate) ended_at: Option<Timestamp>,
    /// How it ended; none while it is open.
    pub(crate) end: Option<String>,
    /// Why it ended so.
    pub(crate) reason: Option<String>,
}

impl From<IncidentRow> for ListedIncident {
    fn from(row: IncidentRow) -> Self {
        Self {
            id: row.id,
            policy: row.policy,
            target: row.target,
            alert: row.alert,
            end: row.ended_at.map(|_| row.state.clone()),
            state: row.state,
            opened_at: row.opened_at,
            ended_at: row.ended_at,
            reason: row.reason,
        }
    }
}

/// One incident with everything that is known of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IncidentView {
    /// What lists show of it.
    #[serde(flatten)]
    pub(crate) row: ListedIncident,
    /// The plan that waits for approval, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plan: Option<PlanView>,
    /// What happened, in order: each with `at`, `kind`, `text`, `lines` that belong under it, and the event's own
    /// fields.
    pub(crate) events: Vec<Value>,
}

/// A plan that waits for approval.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PlanView {
    /// What is approved.
    pub(crate) digest: Digest,
    /// Since when it waits.
    #[serde(default)]
    pub(crate) since: Option<Timestamp>,
    /// When it is not waited for any longer: then a person has to look.
    pub(crate) expires_at: Timestamp,
    /// How many people have to approve it.
    #[serde(default)]
    pub(crate) people: u32,
    /// Who asked for it, and so may not approve it.
    #[serde(default)]
    pub(crate) requested_by: Option<String>,
    /// What the alert says of itself.
    #[serde(default)]
    pub(crate) about: Option<String>,
    /// Who approved it so far.
    pub(crate) approved_by: Vec<String>,
    /// Its effects, in order.
    pub(crate) effects: Vec<String>,
}

impl PlanView {
    fn of(incident: &Incident) -> Option<Self> {
        let Phase::AwaitingApproval {
            plan,
            since,
            until,
            approved_by,
            ..
        } = &incident.phase
        else {
            return None;
        };
        Some(Self {
            digest: *plan,
            since: Some(*since),
            expires_at: *until,
            people: incident.plan.approval.people,
            requested_by: incident.requested_by().map(str::to_owned),
            about: ["summary", "description", "message"]
                .into_iter()
                .find_map(|name| incident.alert.annotations.get(name))
                .cloned(),
            approved_by: approved_by.clone(),
            effects: incident
                .planned
                .iter()
                .map(|effect| {
                    let on = effect.on.as_ref();
                    let on = on.map(|on| format!(" ({})", on.id.get(..12).unwrap_or(&on.id)));
                    format!("{}{}", effect.request.summary(), on.unwrap_or_default())
                })
                .collect(),
        })
    }
}

/// Nothing that can be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ViewError {
    /// There is none of that number.
    #[error("there is no incident {0}")]
    Missing(IncidentId),
    /// The journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its events are not those of one incident.
    #[error("incident {0} cannot be read: {1}")]
    Fold(IncidentId, sentinel_core::incident::FoldError),
}

impl IncidentList {
    /// Reads a list.
    pub(crate) fn read(reader: &Reader, filter: &IncidentFilter) -> Result<Self, ReadError> {
        let rows = reader.incidents(filter)?;
        Ok(Self {
            incidents: rows.into_iter().map(ListedIncident::from).collect(),
        })
    }
}

impl IncidentView {
    /// Reads one incident; everything shown comes from its events.
    pub(crate) fn read(reader: &Reader, id: IncidentId) -> Result<Self, ViewError> {
        let events = reader.events(id)?;
        if events.is_empty() {
            return Err(ViewError::Missing(id));
        }
        let (incident, entries) = timeline(&events).map_err(|error| ViewError::Fold(id, error))?;
        Ok(Self {
            plan: PlanView::of(&incident),
            row: IncidentRow::from(&incident).into(),
            events: merge(&events, entries),
        })
    }
}

/// Puts each entry together with the event that it renders.
fn merge(events: &[Event], entries: Vec<Entry>) -> Vec<Value> {
    let mut events = events.iter();
    entries
        .into_iter()
        .map(|entry| {
            let of_phase = entry.of_phase;
            let fields = if of_phase {
                json!({})
            } else {
                events
                    .next()
                    .map_or(Value::Null, |event| fields(&event.body))
            };
            let mut value = json!({
                "at": entry.at,
                "kind": entry.kind,
                "text": entry.text,
                "lines": entry.lines,
            });
            if let (Value::Object(value), Value::Object(fields)) = (&mut value, fields) {
                for (name, field) in fields {
                    value.entry(name).or_insert(field);
                }
            }
            value
        })
        .collect()
}

fn fields(body: &EventBody) -> Value {
    // The body is of our own types, whose keys are strings: it can be written.
    serde_json::to_value(body).unwrap_or(Value::Null)
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Query(query) = match query {
        Ok(query) => query,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    if let Some(state) = &query.state
        && !Phase::WORDS.contains(&state.as_str())
    {
        let known = Phase::WORDS.join(", ");
        let error = format!("`{state}` is no state: expected one of {known}");
        return refuse(StatusCode::BAD_REQUEST, &error);
    }
    let filter = IncidentFilter {
        policy: query.policy,
        state: query.state,
        open: query.open,
        before: query.before.map(IncidentId),
        limit: query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX),
    };
    read(move || IncidentList::read(&api.reader, &filter).map_err(ViewError::from)).await
}

pub(super) async fn show(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Response {
    match id.parse::<IncidentId>() {
        Ok(id) => read(move || IncidentView::read(&api.reader, id)).await,
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

/// Reads from the journal on a thread that may wait for the disk.
async fn read<T: Serialize + Send + 'static>(
    work: impl FnOnce() -> Result<T, ViewError> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(view)) => Json(view).into_response(),
        Ok(Err(error @ ViewError::Missing(_))) => refuse(StatusCode::NOT_FOUND, &error.to_string()),
        Ok(Err(error)) => {
            tracing::error!(%error, "the journal cannot be read");
            refuse(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the journal cannot be read",
            )
        }
        Err(error) => {
            tracing::error!(%error, "reading the journal ended in a panic");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "sentinel itself failed")
        }
    }
}

fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}
