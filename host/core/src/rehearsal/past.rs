//! What has been committed, in memory.

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::Timestamp;

use crate::alert::{Alert, AlertStatus, Episode};
use crate::event::{Event, EventBody};
use crate::guard::limits::on_account_of;
use crate::id::{IncidentId, PolicyName, Target};
use crate::incident::End;
use crate::record::{Append, History, HistoryError, IncidentRow, PastEffect, Standing};

/// What the engine has committed, kept as a journal keeps it and gone with the process.
#[derive(Debug, Default)]
pub struct Past {
    rows: HashMap<IncidentId, IncidentRow>,
    by_target: HashMap<(String, String), Vec<IncidentId>>,
    episodes: HashMap<Episode, BTreeSet<IncidentId>>,
    heard: HashSet<(Episode, AlertStatus)>,
    resolved: HashMap<Episode, Timestamp>,
    runs: HashMap<String, Vec<Timestamp>>,
    effects: Vec<PastEffect>,
}

impl Past {
    /// Takes a notification in; whether the same identity was taken in before.
    pub fn accept(&mut self, alert: &Alert, at: Timestamp) -> bool {
        let episode = alert.episode();
        if alert.status == AlertStatus::Resolved {
            self.resolved.insert(episode.clone(), at);
        }
        !self.heard.insert((episode, alert.status))
    }

    /// Takes in what a turn appends.
    pub fn commit(&mut self, append: &Append) {
        for row in &append.incidents {
            if self.rows.insert(row.id, row.clone()).is_none() {
                let key = (row.policy.clone(), row.target.clone());
                self.by_target.entry(key).or_default().push(row.id);
            }
        }
        for (episode, incident) in &append.episodes {
            let incidents = self.episodes.entry(episode.clone()).or_default();
            incidents.insert(*incident);
        }
        for event in &append.events {
            self.note(event);
        }
    }

    /// Takes in an event that a run's recorder commits by itself.
    pub fn note(&mut self, event: &Event) {
        let Some(row) = self.rows.get(&event.incident) else {
            return;
        };
        match &event.body {
            EventBody::RunStarted { step, .. } if *step > 0 => {
                let runs = self.runs.entry(row.policy.clone()).or_default();
                runs.push(event.at);
            }
            EventBody::EffectBegan { request, on, .. } => {
                if let (Ok(thing), Ok(policy)) = (row.target.parse(), row.policy.parse()) {
                    self.effects.push(PastEffect {
                        at: event.at,
                        policy,
                        target: on_account_of(&thing, request, on.as_ref()),
                        action: request.name().to_owned(),
                        // Nothing is begun in a rehearsal by what tells a person.
                        tells: false,
                    });
                }
            }
            _ => {}
        }
    }

    fn of(
        &self,
        policy: &PolicyName,
        target: &Target,
    ) -> impl DoubleEndedIterator<Item = &IncidentRow> {
        let key = (policy.to_string(), target.to_string());
        let ids = self.by_target.get(&key).map(Vec::as_slice);
        ids.unwrap_or_default()
            .iter()
            .filter_map(|id| self.rows.get(id))
    }
}

impl History for Past {
    fn incident_of(
        &self,
        episode: &Episode,
        policy: &PolicyName,
        target: &Target,
    ) -> Result<Option<IncidentRow>, HistoryError> {
        let target = target.to_string();
        let ids = self.episodes.get(episode).into_iter().flatten().rev();
        Ok(ids
            .filter_map(|id| self.rows.get(id))
            .find(|row| row.policy == policy.as_str() && row.target == target)
            .cloned())
    }

    fn resolved_at(&self, episode: &Episode) -> Result<Option<Timestamp>, HistoryError> {
        Ok(self.resolved.get(episode).copied())
    }

    fn overtaken_at(&self, episode: &Episode) -> Result<Option<Timestamp>, HistoryError> {
        let later = self.resolved.iter().filter(|(other, _)| {
            other.source == episode.source
                && other.fingerprint == episode.fingerprint
                && other.starts_at > episode.starts_at
        });
        Ok(later.map(|(_, at)| *at).max())
    }

    fn standing(&self, policy: &PolicyName, target: &Target) -> Result<Standing, HistoryError> {
        let ended = || self.of(policy, target).filter(|row| row.ended_at.is_some());
        let failed = ended()
            .rev()
            .filter(|row| {
                [End::Escalated, End::Healed, End::Cleared]
                    .iter()
                    .any(|end| row.state == end.as_str())
            })
            .take_while(|row| row.state == End::Escalated.as_str())
            .take(Standing::COUNTED as usize);
        let mut standing = Standing {
            last_run_at: ended().filter_map(|row| row.last_run_at).max(),
            ..Standing::default()
        };
        for row in failed {
            standing.failures += 1;
            standing.failed_at = standing.failed_at.or(row.ended_at);
        }
        Ok(standing)
    }

    fn opened_since(
        &self,
        policy: &PolicyName,
        target: &Target,
        since: Timestamp,
    ) -> Result<Vec<Timestamp>, HistoryError> {
        let opened = self.of(policy, target).map(|row| row.opened_at);
        Ok(opened.filter(|at| *at > since).collect())
    }

    fn runs_since(
        &self,
        policy: &PolicyName,
        since: Timestamp,
    ) -> Result<Vec<Timestamp>, HistoryError> {
        let runs = self.runs.get(policy.as_str()).map(Vec::as_slice);
        let runs = runs.unwrap_or_default();
        let first = runs.partition_point(|at| *at <= since);
        Ok(runs.get(first..).unwrap_or_default().to_vec())
    }

    fn effects_since(&self, since: Timestamp) -> Result<Vec<PastEffect>, HistoryError> {
        let first = self.effects.partition_point(|effect| effect.at <= since);
        Ok(self.effects.get(first..).unwrap_or_default().to_vec())
    }
}
