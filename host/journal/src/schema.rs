//! The tables, and how an older file becomes a newer one.

use rusqlite::Connection;

use crate::OpenError;

/// Each entry takes the schema one version further; `PRAGMA user_version` says how
/// many have been applied. Entries are only ever appended.
const MIGRATIONS: &[&str] = &[
    "
    -- Moments are microseconds since 1970, so that they sort; `starts_at` is text,
    -- because it is part of an identity and may lie outside their range.

    -- Every alert notification that was accepted, once for each identity.
    CREATE TABLE alerts (
        id            INTEGER PRIMARY KEY,
        source        TEXT NOT NULL,
        fingerprint   TEXT NOT NULL,
        starts_at     TEXT NOT NULL,
        status        TEXT NOT NULL,
        body          TEXT NOT NULL,
        received_at   INTEGER NOT NULL,
        last_seen_at  INTEGER NOT NULL,
        deliveries    INTEGER NOT NULL,
        UNIQUE (source, fingerprint, starts_at, status)
    ) STRICT;

    -- What was accepted and the engine has not yet dealt with. A row is taken out in
    -- the transaction that appends what the engine made of it.
    CREATE TABLE inbox (
        seq          INTEGER PRIMARY KEY AUTOINCREMENT,
        alert_id     INTEGER NOT NULL REFERENCES alerts (id),
        received_at  INTEGER NOT NULL,
        repeat       INTEGER NOT NULL
    ) STRICT;

    -- The truth about incidents.
    CREATE TABLE events (
        seq       INTEGER PRIMARY KEY AUTOINCREMENT,
        incident  INTEGER NOT NULL,
        at        INTEGER NOT NULL,
        kind      TEXT NOT NULL,
        body      TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_by_incident ON events (incident, seq);

    -- Where each incident stands: a view of `events`, kept so that lists are cheap.
    CREATE TABLE incidents (
        id           INTEGER PRIMARY KEY,
        policy       TEXT NOT NULL,
        target       TEXT NOT NULL,
        alert        TEXT NOT NULL,
        state        TEXT NOT NULL,
        opened_at    INTEGER NOT NULL,
        ended_at     INTEGER,
        reason       TEXT,
        last_run_at  INTEGER
    ) STRICT;
    CREATE INDEX incidents_open ON incidents (id) WHERE ended_at IS NULL;
    CREATE INDEX incidents_last_run ON incidents (policy, target, last_run_at)
        WHERE last_run_at IS NOT NULL;

    -- Which episodes of which alerts led to which incident: a view of `events`.
    CREATE TABLE episodes (
        source       TEXT NOT NULL,
        fingerprint  TEXT NOT NULL,
        starts_at    TEXT NOT NULL,
        incident     INTEGER NOT NULL,
        PRIMARY KEY (source, fingerprint, starts_at, incident)
    ) STRICT, WITHOUT ROWID;

    -- Every plugin version that was ever served, by digest.
    CREATE TABLE plugins (
        digest         TEXT PRIMARY KEY,
        name           TEXT NOT NULL,
        version        TEXT NOT NULL,
        first_seen_at  INTEGER NOT NULL,
        wasm           BLOB NOT NULL
    ) STRICT;

    -- The last set of plugins and policies that was good as a whole: what serves when
    -- the folders hold something bad at the next start. One row.
    CREATE TABLE serving (
        id    INTEGER PRIMARY KEY CHECK (id = 1),
        at    INTEGER NOT NULL,
        body  TEXT NOT NULL
    ) STRICT;

    -- Deliveries that could not be understood; the oldest are dropped.
    CREATE TABLE dead_letters (
        seq     INTEGER PRIMARY KEY AUTOINCREMENT,
        at      INTEGER NOT NULL,
        source  TEXT NOT NULL,
        error   TEXT NOT NULL,
        body    BLOB NOT NULL
    ) STRICT;
    ",
    "
    -- Runs that began, and effects that began: views of `events`, for the guards that
    -- count them. Runs that only tell a person are not among them.
    CREATE TABLE runs (
        incident  INTEGER NOT NULL,
        number    INTEGER NOT NULL,
        at        INTEGER NOT NULL,
        policy    TEXT NOT NULL,
        plugin    TEXT NOT NULL,
        mode      TEXT NOT NULL,
        PRIMARY KEY (incident, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX runs_by_policy ON runs (policy, at);
    CREATE TABLE effects (
        at        INTEGER NOT NULL,
        incident  INTEGER NOT NULL,
        run       INTEGER NOT NULL,
        call      INTEGER NOT NULL,
        target    TEXT NOT NULL,
        action    TEXT NOT NULL
    ) STRICT;
    CREATE INDEX effects_by_time ON effects (at);
    INSERT INTO runs (incident, number, at, policy, plugin, mode)
        SELECT e.incident,
               CAST(substr(e.body ->> '$.run', instr(e.body ->> '$.run', '.') + 1) AS INTEGER),
               e.at, i.policy, e.body ->> '$.plugin', 'live'
        FROM events e JOIN incidents i ON i.id = e.incident
        WHERE e.kind = 'run-started';
    INSERT INTO effects (at, incident, run, call, target, action)
        SELECT e.at, e.incident,
               CAST(substr(e.body ->> '$.run', instr(e.body ->> '$.run', '.') + 1) AS INTEGER),
               e.body ->> '$.call', i.target, coalesce(e.body ->> '$.request.call', 'ansible.run')
        FROM events e JOIN incidents i ON i.id = e.incident
        WHERE e.kind = 'effect-began';

    -- How a policy has fared on a target, and whether the target flaps.
    CREATE INDEX incidents_by_target ON incidents (policy, target, id);

    -- What happened to the stop switch and to storms.
    CREATE TABLE controls (
        seq   INTEGER PRIMARY KEY AUTOINCREMENT,
        at    INTEGER NOT NULL,
        body  TEXT NOT NULL
    ) STRICT;
    ",
    "
    -- What plugins remember: a view of `events`.
    CREATE TABLE memory (
        policy  TEXT NOT NULL,
        plugin  TEXT NOT NULL,
        key     TEXT NOT NULL,
        value   BLOB NOT NULL,
        PRIMARY KEY (policy, plugin, key)
    ) STRICT, WITHOUT ROWID;
    ",
    "
    -- When an alert that led to an incident is believed once more: `served`, or under
    -- any policy but the version with this digest. What an older version left says never.
    ALTER TABLE incidents ADD COLUMN again TEXT;
    -- Whether somebody who was told of it has to be told of its end.
    ALTER TABLE incidents ADD COLUMN owes INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX incidents_owing ON incidents (id) WHERE owes = 1;
    ",
    "
    -- Alerts that live by lease: until when each holds if nobody repeats it, by all that
    -- was said of it.
    CREATE TABLE leases (
        source       TEXT NOT NULL,
        fingerprint  TEXT NOT NULL,
        until        INTEGER NOT NULL,
        over         INTEGER NOT NULL,
        body         TEXT NOT NULL,
        PRIMARY KEY (source, fingerprint)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX leases_by_end ON leases (until) WHERE over = 0;
    ",
];

/// The newest schema that this program knows.
pub(crate) fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// The file's schema.
pub(crate) fn version(connection: &Connection) -> Result<i64, OpenError> {
    let found = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > newest() {
        return Err(OpenError::Newer {
            found,
            known: newest(),
        });
    }
    Ok(found)
}

/// Sees to it that a commit that was answered is on the disk, also after a loss of power.
pub(crate) fn durable(connection: &mut Connection) -> Result<(), OpenError> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(())
}

/// Sets a writing connection up and brings the file to the newest schema.
pub(crate) fn prepare(connection: &mut Connection) -> Result<(), OpenError> {
    // Before anything is written: a file of a later version stays as it is.
    let found = version(connection)?;
    durable(connection)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    // In KiB, taken as it is needed: what a burst touches is not read back in its midst.
    connection.pragma_update(None, "cache_size", -(16 << 10))?;
    let applied = usize::try_from(found).unwrap_or(0);
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(applied) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        let version = i64::try_from(index + 1).unwrap_or(i64::MAX);
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}
