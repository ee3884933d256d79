//! The journal in memory, with the interface of the real one: accept, append as one or
//! not at all, recover, and look up what is committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use sentinel_core::alert::{Alert, AlertStatus, Episode};
use sentinel_core::control::ControlEvent;
use sentinel_core::event::{Event, EventBody};
use sentinel_core::guard::limits::{on_account_of, tells};
use sentinel_core::id::{IncidentId, PolicyName, Target};
use sentinel_core::incident::End;
use sentinel_core::record::{
    Accepted, Append, History, HistoryError, IncidentRow, PastEffect, Recovered, Standing,
};

/// What is on the disk.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    alerts: BTreeMap<(Episode, AlertStatus), Delivered>,
    inbox: BTreeMap<u64, Accepted>,
    last_seq: u64,
    incidents: BTreeMap<IncidentId, Kept>,
    episodes: BTreeMap<Episode, Vec<IncidentId>>,
    controls: Vec<ControlEvent>,
    runs: Vec<(Timestamp, PolicyName)>,
    effects: Vec<PastEffect>,
}

#[derive(Debug, Clone)]
struct Delivered {
    last_seen_at: Timestamp,
}

/// One incident: its events, and the views of them.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The events, in the order in which they were committed.
    pub events: Vec<Event>,
    /// The row that was committed last; none until there is one.
    pub row: Option<IncidentRow>,
    policy: PolicyName,
    target: Target,
}

impl Journal {
    /// Commits alerts, and says where they stand in the inbox.
    pub fn accept(&mut self, alerts: &[Arc<Alert>], at: Timestamp) -> Vec<Accepted> {
        alerts
            .iter()
            .map(|alert| {
                let key = (alert.episode(), alert.status);
                let delivered = Delivered { last_seen_at: at };
                let repeat = self.alerts.insert(key, delivered).is_some();
                self.last_seq += 1;
                let accepted = Accepted {
                    seq: self.last_seq,
                    alert: alert.clone(),
                    received_at: at,
                    repeat,
                };
                self.inbox.insert(self.last_seq, accepted.clone());
                accepted
            })
            .collect()
    }

    /// Commits what the engine made of something. What makes no sense ends the
    /// simulation, so nobody sees what of it is kept.
    pub fn append(&mut self, append: &Append) -> Result<(), String> {
        for event in &append.events {
            self.keep(event)?;
            self.view(event);
        }
        for row in &append.incidents {
            let kept = self
                .incidents
                .get_mut(&row.id)
                .ok_or_else(|| format!("a row of incident {}, which has no event", row.id))?;
            kept.row = Some(row.clone());
        }
        for (episode, id) in &append.episodes {
            let ids = self.episodes.entry(episode.clone()).or_default();
            if !ids.contains(id) {
                ids.push(*id);
            }
        }
        self.controls.extend(append.controls.iter().cloned());
        for seq in &append.done {
            self.inbox
                .remove(seq)
                .ok_or_else(|| format!("inbox row {seq} is done, and there is none"))?;
        }
        Ok(())
    }

    /// Commits what a run's recorder writes by itself.
    pub fn note(&mut self, event: &Event) -> Result<(), String> {
        self.keep(event)?;
        self.view(event);
        Ok(())
    }

    fn keep(&mut self, event: &Event) -> Result<(), String> {
        let id = event.incident;
        match (&event.body, self.incidents.get_mut(&id)) {
            (EventBody::Opened { plan, target, .. }, None) => {
                let kept = Kept {
                    events: vec![event.clone()],
                    row: None,
                    policy: plan.policy.clone(),
                    target: target.clone(),
                };
                self.incidents.insert(id, kept);
                Ok(())
            }
            (EventBody::Opened { .. }, Some(_)) => Err(format!("incident {id} opens twice")),
            (body, None) => Err(format!(
                "`{}` of incident {id}, which is not open",
                body.kind()
            )),
            (_, Some(kept)) => {
                kept.events.push(event.clone());
                Ok(())
            }
        }
    }

    fn view(&mut self, event: &Event) {
        let Some(kept) = self.incidents.get(&event.incident) else {
            return;
        };
        match &event.body {
            EventBody::RunStarted { step, .. } if *step > 0 => {
                self.runs.push((event.at, kept.policy.clone()));
            }
            EventBody::EffectBegan {
                run, request, on, ..
            } => {
                let step = kept.events.iter().find_map(|event| match &event.body {
                    EventBody::RunStarted {
                        run: began, step, ..
                    } if began == run => Some(*step),
                    _ => None,
                });
                self.effects.push(PastEffect {
                    at: event.at,
                    policy: kept.policy.clone(),
                    target: on_account_of(&kept.target, request, on.as_ref()),
                    action: request.name().to_owned(),
                    tells: tells(step.unwrap_or(1), request),
                });
            }
            _ => {}
        }
    }

    /// What a daemon finds that starts now.
    pub fn recover(&self) -> Recovered {
        Recovered {
            open: self
                .incidents
                .values()
                .filter(|kept| kept.row.as_ref().is_none_or(|row| row.ended_at.is_none()))
                .map(|kept| kept.events.clone())
                .collect(),
            owing: self
                .incidents
                .values()
                .filter(|kept| kept.row.as_ref().is_some_and(|row| row.owes))
                .map(|kept| kept.events.clone())
                .collect(),
            inbox: self.inbox.values().cloned().collect(),
            controls: self.controls.clone(),
            last_incident: self.incidents.keys().next_back().map_or(0, |id| id.0),
        }
    }

    /// One incident.
    pub fn incident(&self, id: IncidentId) -> Option<&Kept> {
        self.incidents.get(&id)
    }

    /// The events of each incident.
    pub fn record(&self) -> impl Iterator<Item = &[Event]> {
        self.incidents.values().map(|kept| kept.events.as_slice())
    }

    /// The inbox row that was written last.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// What is accepted and not dealt with.
    pub fn inbox(&self) -> &BTreeMap<u64, Accepted> {
        &self.inbox
    }

    fn rows<'a>(
        &'a self,
        policy: &'a PolicyName,
        target: &'a Target,
    ) -> impl DoubleEndedIterator<Item = &'a Kept> {
        self.incidents
            .values()
            .filter(move |kept| kept.policy == *policy && kept.target == *target)
    }
}

impl History for Journal {
    fn incident_of(
        &self,
        episode: &Episode,
        policy: &PolicyName,
        target: &Target,
    ) -> Result<Option<IncidentRow>, HistoryError> {
        let ids = self.episodes.get(episode).map_or(&[][..], Vec::as_slice);
        Ok(self
            .rows(policy, target)
            .rev()
            .filter_map(|kept| kept.row.as_ref())
            .find(|row| ids.contains(&row.id))
            .cloned())
    }

    fn resolved_at(&self, episode: &Episode) -> Result<Option<Timestamp>, HistoryError> {
        let key = (episode.clone(), AlertStatus::Resolved);
        Ok(self.alerts.get(&key).map(|row| row.last_seen_at))
    }

    fn overtaken_at(&self, episode: &Episode) -> Result<Option<Timestamp>, HistoryError> {
        let later = self.alerts.iter().filter(|((other, status), _)| {
            *status == AlertStatus::Resolved
                && other.source == episode.source
                && other.fingerprint == episode.fingerprint
                && other.starts_at > episode.starts_at
        });
        Ok(later.map(|(_, row)| row.last_seen_at).max())
    }

    fn standing(&self, policy: &PolicyName, target: &Target) -> Result<Standing, HistoryError> {
        let ended = || {
            self.rows(policy, target)
                .rev()
                .filter_map(|kept| kept.row.as_ref())
                .filter(|row| row.ended_at.is_some())
        };
        let is = |row: &IncidentRow, end: End| row.state == end.as_str();
        let failed: Vec<_> = ended()
            .take_while(|row| !is(row, End::Healed) && !is(row, End::Cleared))
            .filter(|row| is(row, End::Escalated))
            .collect();
        Ok(Standing {
            last_run_at: ended().filter_map(|row| row.last_run_at).max(),
            failures: (failed.len() as u32).min(Standing::COUNTED),
            failed_at: failed.first().and_then(|row| row.ended_at),
        })
    }

    fn opened_since(
        &self,
        policy: &PolicyName,
        target: &Target,
        since: Timestamp,
    ) -> Result<Vec<Timestamp>, HistoryError> {
        let rows = self.rows(policy, target);
        let opened = rows.filter_map(|kept| Some(kept.row.as_ref()?.opened_at));
        Ok(sorted(opened.filter(|at| *at > since)))
    }

    fn runs_since(
        &self,
        policy: &PolicyName,
        since: Timestamp,
    ) -> Result<Vec<Timestamp>, HistoryError> {
        let runs = self.runs.iter().filter(|(_, of)| of == policy);
        Ok(sorted(runs.map(|(at, _)| *at).filter(|at| *at > since)))
    }

    fn effects_since(&self, since: Timestamp) -> Result<Vec<PastEffect>, HistoryError> {
        let mut effects: Vec<_> = self
            .effects
            .iter()
            .filter(|effect| effect.at > since)
            .cloned()
            .collect();
        effects.sort_by_key(|effect| effect.at);
        Ok(effects)
    }
}

fn sorted(moments: impl Iterator<Item = Timestamp>) -> Vec<Timestamp> {
    let mut moments: Vec<_> = moments.collect();
    moments.sort();
    moments
}
