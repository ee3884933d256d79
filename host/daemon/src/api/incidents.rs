//! `GET /api/v1/incidents` and `GET /api/v1/incidents/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use sentinel_core::event::{Event, EventBody};
use sentinel_core::id::{Digest, IncidentId};
use sentinel_core::incident::{Incident, Phase};
use sentinel_core::timeline::{Entry, Teller};
use sentinel_journal::{IncidentFilter, IncidentRow, ReadError, Reader};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Api;
use super::given::Params;
use super::held::held;
use super::operate::Refused;

/// How many incidents a list holds when nobody says, and at the most.
const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 1000;

/// How many lines of its timeline a page of an incident holds at the most.
const LINES_MAX: usize = 1000;

/// How much text a page holds, before the last entry that is put on it.
const PAGE_BYTES: usize = 1 << 20;

/// How many rows of a list are read at once.
const ROWS: u32 = 50;

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

/// Which part of an incident.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageQuery {
    /// The lines of its timeline up to this one are left out.
    #[serde(default)]
    pub(crate) after: u64,
    /// How many lines follow at the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u32>,
}

/// A list of incidents, newest first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct IncidentList {
    /// The incidents.
    pub(crate) incidents: Vec<ListedIncident>,
    /// Set when there are more: what `before` has to be to get them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<IncidentId>,
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
    /// fields. One page of it.
    pub(crate) events: Vec<Value>,
    /// Set when there are more: what `after` has to be to get them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<u64>,
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
    /// Reads a list: as much of it as goes on a page.
    pub(crate) fn read(reader: &Reader, filter: &IncidentFilter) -> Result<Self, ReadError> {
        let mut list = Self::default();
        let (mut bytes, mut before) = (0, filter.before);
        while list.left(filter) > 0 && bytes < PAGE_BYTES {
            let rows = reader.incidents(&IncidentFilter {
                before,
                limit: list.left(filter).min(ROWS),
                ..filter.clone()
            })?;
            if rows.is_empty() {
                return Ok(list);
            }
            for row in rows {
                if bytes >= PAGE_BYTES {
                    break;
                }
                before = Some(row.id);
                let row = ListedIncident::from(row);
                bytes += written(&row);
                list.incidents.push(row);
            }
        }
        let rest = reader.incidents(&IncidentFilter {
            before,
            limit: 1,
            ..filter.clone()
        })?;
        list.next = before.filter(|_| !rest.is_empty());
        Ok(list)
    }

    /// Reads all that `filter` asks for, by this way of getting a page.
    pub(crate) fn whole<E>(
        filter: &IncidentFilter,
        mut page: impl FnMut(&IncidentFilter) -> Result<Self, E>,
    ) -> Result<Self, E> {
        let mut list = page(filter)?;
        while let Some(before) = list.next.filter(|_| list.left(filter) > 0) {
            let more = page(&IncidentFilter {
                before: Some(before),
                limit: list.left(filter),
                ..filter.clone()
            })?;
            list.incidents.extend(more.incidents);
            // A daemon that does not come on would be asked for ever.
            list.next = more.next.filter(|next| *next < before);
        }
        Ok(list)
    }

    /// How many more of them are asked for.
    fn left(&self, filter: &IncidentFilter) -> u32 {
        filter
            .limit
            .saturating_sub(u32::try_from(self.incidents.len()).unwrap_or(u32::MAX))
    }
}

impl IncidentView {
    /// Reads a page of one incident; everything shown comes from its events. What is held at once is a page and the
    /// incident's state, however long its past is.
    pub(crate) fn read(
        reader: &Reader,
        id: IncidentId,
        page: PageQuery,
    ) -> Result<Self, ViewError> {
        let limit = page.limit.map_or(LINES_MAX, |limit| limit as usize);
        Self::part(
            reader,
            id,
            page.after,
            limit.clamp(1, LINES_MAX),
            PAGE_BYTES,
        )
    }

    /// Reads all of one incident at once: each page is read from the first event on.
    pub(crate) fn all(reader: &Reader, id: IncidentId) -> Result<Self, ViewError> {
        Self::part(reader, id, 0, usize::MAX, usize::MAX)
    }

    fn part(
        reader: &Reader,
        id: IncidentId,
        after: u64,
        limit: usize,
        most: usize,
    ) -> Result<Self, ViewError> {
        let mut teller = Teller::default();
        let (mut events, mut bytes, mut line, mut next) = (Vec::new(), 0, 0_u64, None);
        let count = reader.each_event(id, |event| {
            let told = teller.tell(&event);
            for entry in told.map_err(|error| ViewError::Fold(id, error))? {
                line += 1;
                if line <= after || next.is_some() {
                    continue;
                }
                if events.len() == limit || bytes >= most {
                    next = Some(line - 1);
                    continue;
                }
                let entry = merge(&event, &entry);
                bytes += written(&entry);
                events.push(entry);
            }
            Ok::<(), ViewError>(())
        })?;
        let incident = teller
            .incident()
            .filter(|_| count > 0)
            .ok_or(ViewError::Missing(id))?;
        Ok(Self {
            plan: PlanView::of(incident),
            row: IncidentRow::from(incident).into(),
            events,
            next,
        })
    }

    /// Gets all of one incident, by this way of getting a page.
    pub(crate) fn whole<E>(mut page: impl FnMut(PageQuery) -> Result<Self, E>) -> Result<Self, E> {
        let mut view = page(PageQuery::default())?;
        while let Some(after) = view.next {
            let more = page(PageQuery { after, limit: None })?;
            view.events.extend(more.events);
            // A daemon that does not come on would be asked for ever.
            view.next = more.next.filter(|next| *next > after);
        }
        Ok(view)
    }
}

/// How long it is as JSON.
fn written(value: &impl Serialize) -> usize {
    struct Count(usize);

    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        // Nothing of it can be shown then.
        Err(_) => PAGE_BYTES,
    }
}

/// Puts an entry together with the event that it renders.
fn merge(event: &Event, entry: &Entry) -> Value {
    let fields = if entry.of_phase {
        json!({})
    } else {
        fields(&event.body)
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
}

fn fields(body: &EventBody) -> Value {
    // The body is of our own types, whose keys are strings: it can be written.
    serde_json::to_value(body).unwrap_or(Value::Null)
}

pub(super) async fn list(State(api): State<Arc<Api>>, Params(query): Params<ListQuery>) -> Viewed {
    if let Some(state) = &query.state
        && !Phase::WORDS.contains(&state.as_str())
    {
        let known = Phase::WORDS.join(", ");
        return Err(Refused::bad(format!(
            "`{state}` is no state: expected one of {known}"
        )));
    }
    let filter = IncidentFilter {
        policy: query.policy,
        state: query.state,
        open: query.open,
        before: query.before.map(IncidentId),
        limit: query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX),
    };
    view(&api.clone(), move || {
        IncidentList::read(&api.reader, &filter).map_err(ViewError::from)
    })
    .await
}

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Params(page): Params<PageQuery>,
) -> Viewed {
    let id = id
        .parse::<IncidentId>()
        .map_err(|error| Refused::bad(error.to_string()))?;
    view(&api.clone(), move || {
        IncidentView::read(&api.reader, id, page)
    })
    .await
}

type Viewed = Result<Response, Refused>;

/// Reads from the journal on a thread that may wait for the disk. So many are read and sent at once; others wait for
/// their turn as long as a request may take.
async fn view<T: Serialize + Send + 'static>(
    api: &Api,
    work: impl FnOnce() -> Result<T, ViewError> + Send + 'static,
) -> Viewed {
    let ours = |what: &str| Refused(StatusCode::INTERNAL_SERVER_ERROR, what.to_owned());
    let turn = api.places.views.clone().acquire_owned().await;
    let turn = turn.map_err(|_| ours("sentinel itself failed"))?;
    let work = move || {
        let seen = work();
        // Whoever asked may have gone; the turn is over when the work is.
        (seen, turn)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok((Ok(seen), turn)) => Ok(held(Json(seen).into_response(), turn)),
        Ok((Err(error @ ViewError::Missing(_)), _)) => {
            Err(Refused(StatusCode::NOT_FOUND, error.to_string()))
        }
        Ok((Err(error), _)) => {
            tracing::error!(%error, "the journal cannot be read");
            Err(ours("the journal cannot be read"))
        }
        Err(error) => {
            tracing::error!(%error, "reading the journal ended in a panic");
            Err(ours("sentinel itself failed"))
        }
    }
}
