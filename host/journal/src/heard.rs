//! What was heard of alerts and done about them: for looks back, which may take their
//! time. They run on a reader of their own, beside a daemon that writes.

use std::ops::ControlFlow;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Row, params};
use sentinel_core::alert::Episode;
use sentinel_core::id::IncidentId;
use sentinel_core::record::IncidentRow;
use sentinel_core::rehearsal::Heard;

use crate::ReadError;
use crate::query::{Reader, decode, id, incident_row, moment};

/// An effect that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acted {
    /// When.
    pub at: Timestamp,
    /// For which incident.
    pub incident: IncidentId,
    /// On what, as text.
    pub target: String,
    /// The call's name.
    pub action: String,
}

impl Reader {
    /// Hands out every notification that was accepted at least once from `from` on and
    /// before `to`, in the order in which they were accepted first.
    pub fn heard(
        &self,
        from: Timestamp,
        to: Timestamp,
        mut each: impl FnMut(Heard),
    ) -> Result<(), ReadError> {
        let connection = self.connection();
        let mut statement = connection.prepare(
            "SELECT body, received_at, last_seen_at, deliveries FROM alerts
             WHERE last_seen_at >= ?1 AND received_at < ?2 ORDER BY id",
        )?;
        let mut rows = statement.query(params![from.as_microsecond(), to.as_microsecond()])?;
        while let Some(row) = rows.next()? {
            each(heard(row)?);
        }
        Ok(())
    }

    /// Hands out every notification, the one that was accepted first last, until `each`
    /// has seen enough.
    pub fn heard_backwards(
        &self,
        mut each: impl FnMut(Heard) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let connection = self.connection();
        let mut statement = connection.prepare(
            "SELECT body, received_at, last_seen_at, deliveries FROM alerts ORDER BY id DESC",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if each(heard(row)?).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The first and the last moment at which a notification was accepted; none when
    /// none ever was.
    pub fn heard_between(&self) -> Result<Option<(Timestamp, Timestamp)>, ReadError> {
        let (first, last) = self.connection().query_row(
            "SELECT min(received_at), max(last_seen_at) FROM alerts",
            [],
            |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)),
        )?;
        Ok(first.map(moment).zip(last.map(moment)))
    }

    /// The incidents, of one policy or of all, that opened from `from` on and before
    /// `to`, in order.
    pub fn opened_between(
        &self,
        policy: Option<&str>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<IncidentRow>, ReadError> {
        let connection = self.connection();
        let mut statement = connection.prepare(
            "SELECT id, policy, target, alert, state, opened_at, ended_at, reason, last_run_at
             FROM incidents
             WHERE opened_at >= ?1 AND opened_at < ?2 AND (?3 IS NULL OR policy = ?3)
             ORDER BY id",
        )?;
        let rows = statement.query_map(
            params![from.as_microsecond(), to.as_microsecond(), policy],
            incident_row,
        )?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The incidents that an episode led to, in order.
    pub fn incidents_of(&self, episode: &Episode) -> Result<Vec<IncidentRow>, ReadError> {
        let connection = self.connection();
        let mut statement = connection.prepare(
            "SELECT i.id, policy, target, alert, state, opened_at, ended_at, reason, last_run_at
             FROM episodes e JOIN incidents i ON i.id = e.incident
             WHERE e.source = ?1 AND e.fingerprint = ?2 AND e.starts_at = ?3 ORDER BY i.id",
        )?;
        let rows = statement.query_map(
            params![
                episode.source,
                episode.fingerprint.0,
                episode.starts_at.to_string(),
            ],
            incident_row,
        )?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The effects that began from `from` on, in order.
    pub fn acted_since(&self, from: Timestamp) -> Result<Vec<Acted>, ReadError> {
        let connection = self.connection();
        let mut statement = connection.prepare(
            "SELECT at, incident, target, action FROM effects WHERE at >= ?1 ORDER BY at",
        )?;
        let rows = statement.query_map(params![from.as_microsecond()], |row| {
            Ok(Acted {
                at: moment(row.get(0)?),
                incident: id(row.get(1)?),
                target: row.get(2)?,
                action: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn heard(row: &Row<'_>) -> Result<Heard, ReadError> {
    let body: String = row.get(0)?;
    Ok(Heard {
        alert: Arc::new(decode(&body, "an accepted alert")?),
        first: moment(row.get(1)?),
        last: moment(row.get(2)?),
        deliveries: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(1),
    })
}
