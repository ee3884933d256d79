//! A journal with a long past. A million incidents cannot be lived through in a minute,
//! so one is: its rows are then copied by SQL, each copy with a number and a fingerprint
//! of its own.

use std::path::Path;

use anyhow::{Context as _, Result};
use rusqlite::{Connection, params_from_iter};

/// How many of the newest incidents keep all of their events and alerts; the older ones keep
/// their row, their episode and the event that ended them. What has ended is not read at the
/// start, and a million full stories would take a minute and eight gigabytes.
const FULL: u64 = 20_000;

/// Copies the one ended incident of a stopped daemon's journal until there are
/// `incidents`.
pub(crate) fn multiply(journal: &Path, incidents: u64) -> Result<()> {
    let mut connection = Connection::open(journal)?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "cache_size", -256 * 1024)?;
    let model: i64 = connection
        .query_row(
            "SELECT max(id) FROM incidents WHERE ended_at IS NOT NULL",
            [],
            |row| row.get::<_, Option<i64>>(0),
        )?
        .context("the journal has no incident that ended")?;
    let transaction = connection.transaction()?;
    let range = format!(
        "WITH RECURSIVE copies (n) AS
             (SELECT {model} + 1 UNION ALL SELECT n + 1 FROM copies WHERE n < {model} + {incidents} - 1)"
    );
    let numbered = "printf('%016x', n * 2654435761)";
    let recent = format!("n > {model} + {}", incidents.saturating_sub(FULL));
    let alerts = format!(
        "{recent} AND m.fingerprint IN (SELECT fingerprint FROM episodes WHERE incident = ?1)"
    );
    for (table, own, which) in [
        ("incidents", vec![("id", "n".to_owned())], "m.id = ?1"),
        (
            "episodes",
            vec![
                ("fingerprint", numbered.to_owned()),
                ("incident", "n".to_owned()),
            ],
            "m.incident = ?1",
        ),
        (
            "alerts",
            vec![
                ("id", "NULL".to_owned()),
                ("fingerprint", numbered.to_owned()),
            ],
            alerts.as_str(),
        ),
    ] {
        copy(&transaction, &range, table, &own, which, model)?;
    }
    let own = [("seq", "NULL".to_owned()), ("incident", "n".to_owned())];
    let events = format!(
        "m.incident = ?1 AND ({recent} OR m.seq = (SELECT max(seq) FROM events WHERE incident = ?1))"
    );
    copy(&transaction, &range, "events", &own, &events, model)?;
    transaction.commit()?;
    connection.pragma_update(None, "wal_checkpoint", "TRUNCATE")?;
    Ok(())
}

/// Copies the rows of `table` that `which` says belong to the incident `model`, once for
/// each number of `range`, with some columns of their own.
fn copy(
    connection: &Connection,
    range: &str,
    table: &str,
    own: &[(&str, String)],
    which: &str,
    model: i64,
) -> Result<()> {
    let columns: Vec<String> = connection
        .prepare(&format!("SELECT name FROM pragma_table_info('{table}')"))?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let values: Vec<String> = columns
        .iter()
        .map(|column| {
            own.iter()
                .find(|(name, _)| name == column)
                .map_or_else(|| format!("m.{column}"), |(_, value)| value.clone())
        })
        .collect();
    connection.execute(
        &format!(
            "INSERT INTO {table} ({}) {range} SELECT {} FROM copies CROSS JOIN {table} m WHERE {which} ORDER BY n",
            columns.join(", "),
            values.join(", "),
        ),
        params_from_iter([model]),
    )?;
    Ok(())
}
