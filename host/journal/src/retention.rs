//! What the journal forgets: alerts that led to no incident, once nobody has told of them for
//! long, and leases that are over.

use jiff::Timestamp;
use rusqlite::{Transaction, params};

/// Forgets alerts among the `rows` ids from `from` that were last told of before `before`:
/// the id to go on from, and how many were forgotten. What led to an incident stays, and what
/// waits for the engine, and what holds by lease.
pub(crate) fn forget(
    transaction: &Transaction<'_>,
    before: Timestamp,
    from: i64,
    rows: i64,
) -> rusqlite::Result<(Option<i64>, usize)> {
    let last: Option<i64> = transaction
        .prepare_cached(
            "SELECT max(id) FROM (SELECT id FROM alerts WHERE id >= ?1 ORDER BY id LIMIT ?2)",
        )?
        .query_row(params![from, rows], |row| row.get(0))?;
    let Some(last) = last else {
        let leases = transaction
            .prepare_cached("DELETE FROM leases WHERE over != 0 AND until < ?1")?
            .execute(params![before.as_microsecond()])?;
        return Ok((None, leases));
    };
    let forgotten = transaction
        .prepare_cached(
            "DELETE FROM alerts WHERE id BETWEEN ?1 AND ?2 AND last_seen_at < ?3
                 AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.alert_id = alerts.id)
                 AND NOT EXISTS (SELECT 1 FROM episodes e
                     WHERE e.source = alerts.source AND e.fingerprint = alerts.fingerprint
                       AND e.starts_at = alerts.starts_at)
                 AND NOT EXISTS (SELECT 1 FROM leases l
                     WHERE l.source = alerts.source AND l.fingerprint = alerts.fingerprint
                       AND l.over = 0)",
        )?
        .execute(params![from, last, before.as_microsecond()])?;
    Ok((Some(last + 1), forgotten))
}
