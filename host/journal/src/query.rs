//! The reading side.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};
use sentinel_core::alert::{Alert, Episode};
use sentinel_core::control::ControlEvent;
use sentinel_core::event::Event;
use sentinel_core::id::{Digest, IncidentId, PluginName, PolicyName, RunId};
use sentinel_core::record::{Accepted, Again, IncidentRow, Recovered};
use serde::{Deserialize, Serialize};

use crate::writer::FILE;
use crate::{OpenError, ReadError, schema};

/// Which incidents a list holds; newest first.
#[derive(Debug, Clone, Default)]
pub struct IncidentFilter {
    /// Only those of this policy.
    pub policy: Option<String>,
    /// Only those in this state.
    pub state: Option<String>,
    /// Only those that have not ended.
    pub open: bool,
    /// Only those before this one.
    pub before: Option<IncidentId>,
    /// How many at the most.
    pub limit: u32,
}

/// The last set of plugins and policies that was good as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredServing {
    /// The plugins' digests by file name.
    pub plugins: BTreeMap<String, Digest>,
    /// The policy files' texts by file name.
    pub policies: BTreeMap<String, String>,
}

/// A connection that only reads.
#[derive(Debug)]
pub struct Reader {
    connection: Mutex<Connection>,
}

impl Reader {
    /// Opens the journal in `folder` for reading, beside whoever writes it.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let file = folder.join(FILE);
        let path = folder.to_owned();
        match file.try_exists() {
            Ok(true) => {}
            Ok(false) => return Err(OpenError::Missing { path }),
            Err(source) => return Err(OpenError::Hidden { path, source }),
        }
        let connection = Connection::open_with_flags(
            file,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        schema::version(&connection)?;
        Ok(Self {
            connection: Mutex::new(connection),
        })
    }

    pub(crate) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The incidents that `filter` asks for, newest first.
    pub fn incidents(&self, filter: &IncidentFilter) -> Result<Vec<IncidentRow>, ReadError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT id, policy, target, alert, state, opened_at, ended_at, reason, last_run_at
             FROM incidents
             WHERE (?1 IS NULL OR policy = ?1) AND (?2 IS NULL OR state = ?2)
               AND (NOT ?3 OR ended_at IS NULL) AND (?4 IS NULL OR id < ?4)
             ORDER BY id DESC LIMIT ?5",
        )?;
        let rows = statement.query_map(
            params![
                filter.policy,
                filter.state,
                filter.open,
                filter.before.map(number),
                filter.limit,
            ],
            incident_row,
        )?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// One incident, if there is one of that number.
    pub fn incident(&self, id: IncidentId) -> Result<Option<IncidentRow>, ReadError> {
        Ok(self
            .connection()
            .prepare_cached(
                "SELECT id, policy, target, alert, state, opened_at, ended_at, reason, last_run_at
                 FROM incidents WHERE id = ?1",
            )?
            .query_row(params![number(id)], incident_row)
            .optional()?)
    }

    /// The events of an incident, in order; none when there is no such incident.
    pub fn events(&self, id: IncidentId) -> Result<Vec<Event>, ReadError> {
        events(&self.connection(), id)
    }

    /// Shows the events of an incident to `visit`, in order, one at a time: all of them together may be more than fits
    /// into memory. Says how many there were.
    pub fn each_event<E: From<ReadError>>(
        &self,
        id: IncidentId,
        mut visit: impl FnMut(Event) -> Result<(), E>,
    ) -> Result<u64, E> {
        let connection = self.connection();
        let unreadable = |error: rusqlite::Error| E::from(ReadError::from(error));
        let mut statement = connection
            .prepare_cached("SELECT body FROM events WHERE incident = ?1 ORDER BY seq")
            .map_err(unreadable)?;
        let mut rows = statement.query(params![number(id)]).map_err(unreadable)?;
        let mut count = 0;
        while let Some(row) = rows.next().map_err(unreadable)? {
            let body = row
                .get_ref(0)
                .map_err(unreadable)?
                .as_str()
                .map_err(|error| unreadable(error.into()))?;
            visit(decode(body, &format!("an event of incident {id}")).map_err(E::from)?)?;
            count += 1;
        }
        Ok(count)
    }

    /// The last runs, newest first; of one plugin if it is named. Runs that only told a
    /// person are not among them.
    pub fn last_runs(
        &self,
        plugin: Option<&PluginName>,
        limit: u32,
    ) -> Result<Vec<RunId>, ReadError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT incident, number FROM runs WHERE ?1 IS NULL OR plugin = ?1
             ORDER BY incident DESC, number DESC LIMIT ?2",
        )?;
        let rows = statement.query_map(params![plugin.map(PluginName::as_str), limit], |row| {
            Ok(RunId {
                incident: id(row.get(0)?),
                number: row.get(1)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The firing notification of an episode as it was accepted last, if one was.
    pub fn alert(&self, episode: &Episode) -> Result<Option<Alert>, ReadError> {
        let body = firing_body(&self.connection(), episode)?;
        body.map(|body| decode(&body, "an accepted alert"))
            .transpose()
    }

    /// When the last event was written, by the clock of the daemon that wrote it.
    pub fn last_event_at(&self) -> Result<Option<Timestamp>, ReadError> {
        Ok(self
            .connection()
            .query_row(
                "SELECT at FROM events ORDER BY seq DESC LIMIT 1",
                [],
                |row| row.get(0).map(moment),
            )
            .optional()?)
    }

    /// What waits in the inbox at these places, in their order; what has been dealt with
    /// is left out.
    pub fn inbox(&self, places: &[u64]) -> Result<Vec<Accepted>, ReadError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT i.seq, a.body, i.received_at, i.repeat
             FROM inbox i JOIN alerts a ON a.id = i.alert_id WHERE i.seq = ?1",
        )?;
        let mut alerts = Vec::with_capacity(places.len());
        for place in places {
            let row = statement
                .query_row(
                    params![i64::try_from(*place).unwrap_or(i64::MAX)],
                    inbox_row,
                )
                .optional()?;
            if let Some(row) = row {
                alerts.push(accepted(row)?);
            }
        }
        Ok(alerts)
    }

    /// What a plugin remembers under a policy, by key.
    pub fn memory(
        &self,
        policy: &PolicyName,
        plugin: &PluginName,
    ) -> Result<BTreeMap<String, Vec<u8>>, ReadError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT key, value FROM memory WHERE policy = ?1 AND plugin = ?2")?;
        let rows = statement.query_map(params![policy.as_str(), plugin.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What happened to the controls, in order.
    pub fn controls(&self) -> Result<Vec<ControlEvent>, ReadError> {
        controls(&self.connection())
    }

    /// The last set of plugins and policies that was good as a whole.
    pub fn serving(&self) -> Result<Option<StoredServing>, ReadError> {
        let body: Option<String> = self
            .connection()
            .query_row("SELECT body FROM serving WHERE id = 1", [], |row| {
                row.get(0)
            })
            .optional()?;
        body.map(|body| decode(&body, "the serving set"))
            .transpose()
    }

    /// The bytes of a plugin that was served once.
    pub fn plugin(&self, digest: &Digest) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self
            .connection()
            .query_row(
                "SELECT wasm FROM plugins WHERE digest = ?1",
                params![digest.to_string()],
                |row| row.get(0),
            )
            .optional()?)
    }
}

fn firing_body(connection: &Connection, episode: &Episode) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached(
            "SELECT body FROM alerts WHERE source = ?1 AND fingerprint = ?2
                 AND starts_at = ?3 AND status = 'firing'",
        )?
        .query_row(
            params![
                episode.source,
                episode.fingerprint.0,
                episode.starts_at.to_string(),
            ],
            |row| row.get(0),
        )
        .optional()
}

/// The firing notification of an episode as it was accepted last; also one that was only now.
pub(crate) fn firing(
    connection: &Connection,
    episode: &Episode,
) -> rusqlite::Result<Option<Alert>> {
    firing_body(connection, episode)?
        .map(|body| {
            serde_json::from_str(&body).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(
                    0,
                    rusqlite::types::Type::Text,
                    error.into(),
                )
            })
        })
        .transpose()
}

fn controls(connection: &Connection) -> Result<Vec<ControlEvent>, ReadError> {
    let bodies: Vec<String> = connection
        .prepare_cached("SELECT body FROM controls ORDER BY seq")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    bodies
        .iter()
        .map(|body| decode(body, "an event of the controls"))
        .collect()
}

/// Everything that a daemon needs to go on where an earlier one ended.
pub(crate) fn recover(connection: &Connection) -> Result<Recovered, OpenError> {
    let unreadable = |error: ReadError| match error {
        ReadError::Sqlite(error) => OpenError::Sqlite(error),
        ReadError::Decode { .. } => OpenError::Sqlite(rusqlite::Error::FromSqlConversionFailure(
            0,
            rusqlite::types::Type::Text,
            error.into(),
        )),
    };
    let of = |sql: &str| -> Result<Vec<Vec<Event>>, OpenError> {
        let numbers: Vec<i64> = connection
            .prepare(sql)?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let events = numbers
            .into_iter()
            .map(|number| events(connection, id(number)).map_err(unreadable));
        events.collect()
    };
    let open = of("SELECT id FROM incidents WHERE ended_at IS NULL ORDER BY id")?;
    let owing = of("SELECT id FROM incidents WHERE owes = 1 ORDER BY id")?;
    let inbox: Vec<InboxRow> = connection
        .prepare(
            "SELECT i.seq, a.body, i.received_at, i.repeat
             FROM inbox i JOIN alerts a ON a.id = i.alert_id ORDER BY i.seq",
        )?
        .query_map([], inbox_row)?
        .collect::<Result<_, _>>()?;
    let inbox = inbox
        .into_iter()
        .map(|row| accepted(row).map_err(unreadable))
        .collect::<Result<_, OpenError>>()?;
    let last: i64 =
        connection.query_row("SELECT coalesce(max(id), 0) FROM incidents", [], |row| {
            row.get(0)
        })?;
    Ok(Recovered {
        open,
        owing,
        inbox,
        controls: controls(connection).map_err(unreadable)?,
        last_incident: u64::try_from(last).unwrap_or_default(),
    })
}

/// A row of the inbox: its place, the alert, when it was received, whether it repeats.
type InboxRow = (i64, String, i64, bool);

fn inbox_row(row: &Row<'_>) -> rusqlite::Result<InboxRow> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn accepted((seq, body, received_at, repeat): InboxRow) -> Result<Accepted, ReadError> {
    Ok(Accepted {
        seq: u64::try_from(seq).unwrap_or_default(),
        alert: decode(&body, "an accepted alert")?,
        received_at: moment(received_at),
        repeat,
    })
}

fn events(connection: &Connection, incident: IncidentId) -> Result<Vec<Event>, ReadError> {
    let mut statement =
        connection.prepare_cached("SELECT body FROM events WHERE incident = ?1 ORDER BY seq")?;
    let mut rows = statement.query(params![number(incident)])?;
    let what = format!("an event of incident {incident}");
    let mut events = Vec::new();
    // One text at a time: together they can be large.
    while let Some(row) = rows.next()? {
        let body = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        events.push(decode(body, &what)?);
    }
    Ok(events)
}

pub(crate) fn decode<T: serde::de::DeserializeOwned>(
    text: &str,
    what: &str,
) -> Result<T, ReadError> {
    serde_json::from_str(text).map_err(|source| ReadError::Decode {
        what: what.to_owned(),
        source,
    })
}

pub(crate) fn incident_row(row: &Row<'_>) -> rusqlite::Result<IncidentRow> {
    Ok(IncidentRow {
        id: id(row.get(0)?),
        policy: row.get(1)?,
        target: row.get(2)?,
        alert: row.get(3)?,
        state: row.get(4)?,
        opened_at: moment(row.get(5)?),
        ended_at: row.get::<_, Option<i64>>(6)?.map(moment),
        reason: row.get(7)?,
        last_run_at: row.get::<_, Option<i64>>(8)?.map(moment),
        // What lists show is in older files too, and these are not.
        again: None,
        owes: false,
    })
}

/// When an incident's alert is believed once more, as SQLite keeps it.
pub(crate) fn again(again: Again) -> String {
    match again {
        Again::Served => SERVED.to_owned(),
        Again::But(digest) => digest.to_string(),
    }
}

pub(crate) fn again_of(text: &str) -> Option<Again> {
    if text == SERVED {
        return Some(Again::Served);
    }
    text.parse().ok().map(Again::But)
}

const SERVED: &str = "served";

/// An incident's number as SQLite keeps it.
pub(crate) fn number(id: IncidentId) -> i64 {
    i64::try_from(id.0).unwrap_or(i64::MAX)
}

pub(crate) fn id(number: i64) -> IncidentId {
    IncidentId(u64::try_from(number).unwrap_or_default())
}

pub(crate) fn moment(microseconds: i64) -> Timestamp {
    Timestamp::from_microsecond(microseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}
