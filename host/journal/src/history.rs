//! What the engine looks up: single rows and short ranges, each by an index.

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, params};
use sentinel_core::alert::Episode;
use sentinel_core::id::{PolicyName, Target};
use sentinel_core::incident::End;
use sentinel_core::record::{History, HistoryError, IncidentRow, PastEffect, Standing};

use crate::ReadError;
use crate::query::{Reader, again_of, incident_row, moment};

impl From<ReadError> for HistoryError {
    fn from(error: ReadError) -> Self {
        Self(error.to_string())
    }
}

fn failed(error: rusqlite::Error) -> HistoryError {
    ReadError::Sqlite(error).into()
}

impl History for Reader {
    fn incident_of(
        &self,
        episode: &Episode,
        policy: &PolicyName,
        target: &Target,
    ) -> Result<Option<IncidentRow>, HistoryError> {
        self.connection()
            .prepare_cached(
                "SELECT i.id, policy, target, alert, state, opened_at, ended_at, reason, last_run_at,
                        again
                 FROM episodes e JOIN incidents i ON i.id = e.incident
                 WHERE e.source = ?1 AND e.fingerprint = ?2 AND e.starts_at = ?3
                   AND i.policy = ?4 AND i.target = ?5
                 ORDER BY i.id DESC LIMIT 1",
            )
            .and_then(|mut statement| {
                statement
                    .query_row(
                        params![
                            episode.source,
                            episode.fingerprint.0,
                            episode.starts_at.to_string(),
                            policy.as_str(),
                            target.to_string(),
                        ],
                        |row| {
                            let again: Option<String> = row.get(9)?;
                            Ok(IncidentRow {
                                again: again.as_deref().and_then(again_of),
                                ..incident_row(row)?
                            })
                        },
                    )
                    .optional()
            })
            .map_err(failed)
    }

    fn resolved_at(&self, episode: &Episode) -> Result<Option<Timestamp>, HistoryError> {
        self.connection()
            .prepare_cached(
                "SELECT last_seen_at FROM alerts WHERE source = ?1 AND fingerprint = ?2
                     AND starts_at = ?3 AND status = 'resolved'",
            )
            .and_then(|mut statement| {
                statement
                    .query_row(
                        params![
                            episode.source,
                            episode.fingerprint.0,
                            episode.starts_at.to_string(),
                        ],
                        |row| row.get(0).map(moment),
                    )
                    .optional()
            })
            .map_err(failed)
    }

    fn overtaken_at(&self, episode: &Episode) -> Result<Option<Timestamp>, HistoryError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(
                "SELECT starts_at, last_seen_at FROM alerts
                 WHERE source = ?1 AND fingerprint = ?2 AND status = 'resolved'",
            )
            .map_err(failed)?;
        let mut rows = statement
            .query(params![episode.source, episode.fingerprint.0])
            .map_err(failed)?;
        let mut latest = None;
        while let Some(row) = rows.next().map_err(failed)? {
            let starts_at: String = row.get(0).map_err(failed)?;
            // As moments: texts of different precision do not sort.
            let later = starts_at
                .parse::<Timestamp>()
                .is_ok_and(|starts_at| starts_at > episode.starts_at);
            if later {
                let at = moment(row.get(1).map_err(failed)?);
                latest = latest.max(Some(at));
            }
        }
        Ok(latest)
    }

    fn standing(&self, policy: &PolicyName, target: &Target) -> Result<Standing, HistoryError> {
        let (policy, target) = (policy.as_str(), target.to_string());
        let connection = self.connection();
        let last_run_at = connection
            .prepare_cached(
                "SELECT max(last_run_at) FROM incidents
                 WHERE policy = ?1 AND target = ?2 AND last_run_at IS NOT NULL
                   AND ended_at IS NOT NULL",
            )
            .and_then(|mut statement| {
                statement.query_row(params![policy, target], |row| row.get::<_, Option<i64>>(0))
            })
            .map_err(failed)?
            .map(moment);
        let mut standing = Standing {
            last_run_at,
            ..Standing::default()
        };
        let mut statement = connection
            .prepare_cached(
                "SELECT state, ended_at FROM incidents INDEXED BY incidents_by_target
                 WHERE policy = ?1 AND target = ?2 AND ended_at IS NOT NULL
                   AND state IN ('escalated', 'healed', 'cleared')
                 ORDER BY id DESC LIMIT ?3",
            )
            .map_err(failed)?;
        let mut rows = statement
            .query(params![policy, target, Standing::COUNTED])
            .map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let state: String = row.get(0).map_err(failed)?;
            if state != End::Escalated.as_str() {
                break;
            }
            standing.failures += 1;
            if standing.failed_at.is_none() {
                standing.failed_at = Some(moment(row.get(1).map_err(failed)?));
            }
        }
        Ok(standing)
    }

    fn opened_since(
        &self,
        policy: &PolicyName,
        target: &Target,
        since: Timestamp,
    ) -> Result<Vec<Timestamp>, HistoryError> {
        self.moments(
            "SELECT opened_at FROM incidents INDEXED BY incidents_by_target
             WHERE policy = ?1 AND target = ?2 AND opened_at > ?3 ORDER BY id",
            params![policy.as_str(), target.to_string(), since.as_microsecond()],
        )
    }

    fn runs_since(
        &self,
        policy: &PolicyName,
        since: Timestamp,
    ) -> Result<Vec<Timestamp>, HistoryError> {
        self.moments(
            "SELECT at FROM runs WHERE policy = ?1 AND at > ?2 ORDER BY at",
            params![policy.as_str(), since.as_microsecond()],
        )
    }

    fn effects_since(&self, since: Timestamp) -> Result<Vec<PastEffect>, HistoryError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(
                // What tells a person is no run that guards count.
                "SELECT e.at, e.target, e.action, i.policy,
                        e.action NOT LIKE 'docker.%' AND NOT EXISTS (
                            SELECT 1 FROM runs r WHERE r.incident = e.incident AND r.number = e.run)
                 FROM effects e JOIN incidents i ON i.id = e.incident
                 WHERE e.at > ?1 ORDER BY e.at",
            )
            .map_err(failed)?;
        let rows = statement
            .query_map(params![since.as_microsecond()], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?,
                    row.get::<_, String>(3)?,
                    row.get::<_, bool>(4)?,
                ))
            })
            .map_err(failed)?;
        rows.map(|row| {
            let (at, target, action, policy, tells) = row.map_err(failed)?;
            let policy = policy
                .parse()
                .map_err(|error| HistoryError(format!("an effect's policy: {error}")))?;
            let target = target
                .parse()
                .map_err(|error| HistoryError(format!("an effect's target: {error}")))?;
            Ok(PastEffect {
                at: moment(at),
                policy,
                target,
                action,
                tells,
            })
        })
        .collect()
    }
}

impl Reader {
    fn moments(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<Timestamp>, HistoryError> {
        self.connection()
            .prepare_cached(sql)
            .and_then(|mut statement| {
                statement
                    .query_map(params, |row| row.get(0).map(moment))?
                    .collect()
            })
            .map_err(failed)
    }
}
