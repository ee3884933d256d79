//! Alerts that live by lease, where they are committed: which alert a post is, and which
//! have run out. The rules are [`sentinel_core::lease`]'s.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Transaction, params};
use sentinel_core::alert::{Alert, AlertStatus, Episode, Fingerprint};
use sentinel_core::lease::{Lease, Over, Span};
use sentinel_core::record::Accepted;

use crate::ReadError;
use crate::query::{self, Reader, moment};
use crate::writer::{enqueue, json};

/// Takes a post in: the alert as it is then known, if that is something else than it says,
/// and what ran out just before.
pub(crate) fn heard(
    transaction: &Transaction<'_>,
    alert: &Alert,
    span: Span,
    now: Timestamp,
) -> rusqlite::Result<(Option<Alert>, Option<Accepted>)> {
    let mut before = find(transaction, &alert.source, &alert.fingerprint)?;
    let mut lapsed = None;
    if let Some(lease) = before.filter(|lease| lease.ran_out(now)) {
        lapsed = lapse(transaction, &alert.source, &alert.fingerprint, lease, now)?;
        before = Some(lease.lapse());
    }
    let lease = Lease::heard(before.as_ref(), span, now);
    keep(transaction, &alert.source, &alert.fingerprint, &lease)?;
    let ends_at = alert.ends_at.map(|_| lease.span.ends_at);
    let same = lease.episode == alert.starts_at && ends_at == alert.ends_at;
    let known = (!same).then(|| Alert {
        starts_at: lease.episode,
        ends_at,
        ..alert.clone()
    });
    Ok((known, lapsed))
}

/// Ends alerts whose leases have run out, the first ones first and no more than `limit`: each is
/// taken in as the resolved notification that nobody sent.
pub(crate) fn expire(
    transaction: &Transaction<'_>,
    now: Timestamp,
    limit: u32,
) -> rusqlite::Result<Vec<Accepted>> {
    let due: Vec<(String, String, String)> = transaction
        .prepare_cached(
            "SELECT source, fingerprint, body FROM leases
             WHERE over = 0 AND until <= ?1 ORDER BY until LIMIT ?2",
        )?
        .query_map(params![now.as_microsecond(), limit], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<Result<_, _>>()?;
    let mut ended = Vec::new();
    for (source, fingerprint, body) in due {
        let lease = decode(&body)?;
        let fingerprint = Fingerprint(fingerprint);
        ended.extend(lapse(transaction, &source, &fingerprint, lease, now)?);
    }
    Ok(ended)
}

/// Leases as a daemon finds them that starts: senders have not been able to renew them.
pub(crate) fn found(transaction: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
    let held: Vec<(String, String, String)> = transaction
        .prepare("SELECT source, fingerprint, body FROM leases WHERE over = 0")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    for (source, fingerprint, body) in held {
        let before = decode(&body)?;
        let lease = before.found(now);
        if lease != before {
            keep(transaction, &source, &Fingerprint(fingerprint), &lease)?;
        }
    }
    Ok(())
}

/// Notes that a lease has run out; the resolved notification, unless nothing is known of the alert
/// any more.
fn lapse(
    transaction: &Transaction<'_>,
    source: &str,
    fingerprint: &Fingerprint,
    lease: Lease,
    now: Timestamp,
) -> rusqlite::Result<Option<Accepted>> {
    keep(transaction, source, fingerprint, &lease.lapse())?;
    let episode = Episode {
        source: source.to_owned(),
        fingerprint: fingerprint.clone(),
        starts_at: lease.episode,
    };
    let Some(firing) = query::firing(transaction, &episode)? else {
        return Ok(None);
    };
    let alert = Alert {
        status: AlertStatus::Resolved,
        ends_at: Some(lease.span.ends_at),
        ..firing
    };
    let (seq, repeat) = enqueue(transaction, &alert, &json(&alert)?, now)?;
    Ok(Some(Accepted {
        seq,
        alert: Arc::new(alert),
        received_at: now,
        repeat,
    }))
}

fn find(
    transaction: &Transaction<'_>,
    source: &str,
    fingerprint: &Fingerprint,
) -> rusqlite::Result<Option<Lease>> {
    let body: Option<String> = transaction
        .prepare_cached("SELECT body FROM leases WHERE source = ?1 AND fingerprint = ?2")?
        .query_row(params![source, fingerprint.0], |row| row.get(0))
        .optional()?;
    body.map(|body| decode(&body)).transpose()
}

fn keep(
    transaction: &Transaction<'_>,
    source: &str,
    fingerprint: &Fingerprint,
    lease: &Lease,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO leases (source, fingerprint, until, over, body)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (source, fingerprint) DO UPDATE
                 SET until = excluded.until, over = excluded.over, body = excluded.body",
        )?
        .execute(params![
            source,
            fingerprint.0,
            lease.until.as_microsecond(),
            match lease.over {
                None => 0,
                Some(Over::Told) => 1,
                Some(Over::Lapsed) => 2,
            },
            json(lease)?,
        ])?;
    Ok(())
}

fn decode(body: &str) -> rusqlite::Result<Lease> {
    serde_json::from_str(body).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })
}

impl Reader {
    /// When the next alert runs out that lives by lease.
    pub fn next_lapse(&self) -> Result<Option<Timestamp>, ReadError> {
        let until: Option<i64> = self
            .connection()
            .prepare_cached("SELECT min(until) FROM leases WHERE over = 0")?
            .query_row([], |row| row.get(0))?;
        Ok(until.map(moment))
    }
}
