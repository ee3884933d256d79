//! Who tells a person beside what it does: that a plan waits, that an incident is held for
//! long, that what they were told of is over. These runs have places of their own, so that
//! neither what heals nor what tells keeps the other waiting.

use std::collections::BTreeSet;

use super::{Context, Engine, Note, Settings, Work};
use crate::event::{EventBody, Notice, RunMode};
use crate::id::{IncidentId, RunId};
use crate::incident::{End, Incident, MAX_INTERRUPTIONS, Phase, Rung};

/// The places of runs that tell, and who waits for one.
#[derive(Debug)]
pub(super) struct Tells {
    most: usize,
    under_way: BTreeSet<IncidentId>,
    waiting: BTreeSet<IncidentId>,
}

impl Tells {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut tells = Self {
            most: 1,
            under_way: BTreeSet::new(),
            waiting: BTreeSet::new(),
        };
        tells.resize(settings);
        tells
    }

    /// There are so many from now on. Whoever has one keeps it.
    pub(super) fn resize(&mut self, settings: &Settings) {
        self.most = (settings.places as usize / 4).max(1);
    }

    /// Whether nobody is being told.
    pub(super) fn idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Brings the account in line with an incident that has changed: whether it tells
    /// somebody, and if so whether that is under way.
    pub(super) fn sync(&mut self, id: IncidentId, begun: Option<bool>) {
        self.under_way.remove(&id);
        self.waiting.remove(&id);
        match begun {
            Some(true) => {
                self.under_way.insert(id);
            }
            Some(false) => {
                self.waiting.insert(id);
            }
            None => {}
        }
    }

    /// Takes the one that waits longest, if there is a place.
    pub(super) fn next(&mut self) -> Option<IncidentId> {
        if self.under_way.len() >= self.most {
            return None;
        }
        self.waiting.pop_first()
    }
}

impl Engine {
    /// Starts the run that tells what an incident has to tell.
    pub(super) fn start_telling(&mut self, work: &mut Work, context: &Context<'_>, id: IncidentId) {
        let Some(incident) = self.incident(id) else {
            return;
        };
        let Some(telling) = incident.telling.clone() else {
            return;
        };
        if telling.run.is_some() || matches!(incident.phase, Phase::Escalating { run: None, .. }) {
            return;
        }
        let run = RunId {
            incident: id,
            number: incident.runs + 1,
        };
        let rung = Rung {
            step: 0,
            attempt: telling.attempt,
        };
        work.turn.notes.push(Note::Tells {
            incident: id,
            notice: telling.notice,
            reason: telling.reason,
        });
        self.begin(work, context, run, rung, RunMode::Live);
    }

    /// Brings the places of those who tell in line with an incident that has changed.
    pub(super) fn sync_telling(&mut self, id: IncidentId) {
        let telling = self
            .incident(id)
            .and_then(|incident| incident.telling.as_ref());
        let begun = telling.map(|telling| telling.run.is_some());
        self.tells.sync(id, begun);
    }

    /// What is outstanding of telling in a recovered incident.
    pub(super) fn go_on_telling(&mut self, work: &mut Work, context: &Context<'_>, id: IncidentId) {
        self.sync_telling(id);
        let Some(telling) = self
            .incident(id)
            .and_then(|incident| incident.telling.clone())
        else {
            return;
        };
        let Some(run) = telling.run else { return };
        if telling.interruptions + 1 >= MAX_INTERRUPTIONS {
            self.record(work, context, id, EventBody::RunInterrupted { run });
            return;
        }
        let rung = Rung {
            step: 0,
            attempt: telling.attempt,
        };
        self.resume(work, context, run, rung, RunMode::Live, None);
    }

    /// Takes in one that an earlier daemon left, or that has just ended, of whose end somebody
    /// is to be told.
    pub(super) fn owe(&mut self, incident: Incident) {
        for key in incident.alerts.keys() {
            self.by_alert
                .entry(key.clone())
                .or_default()
                .insert(incident.id);
        }
        self.owing.insert(incident.id, incident);
    }

    /// Nobody has to be told anything of it any more.
    pub(super) fn quit(&mut self, id: IncidentId) {
        if let Some(incident) = self.owing.remove(&id) {
            self.unlist(&incident);
        }
    }

    /// Tells those whose target was healed by a later incident, and gives the oldest up where
    /// too many wait for their end.
    pub(super) fn tell_of_mended(&mut self, work: &mut Work, context: &Context<'_>) {
        let mended: Vec<_> = work
            .touched
            .iter()
            .filter_map(|by| self.incidents.get(by))
            .filter(|by| {
                matches!(
                    by.phase,
                    Phase::Ended {
                        end: End::Healed,
                        ..
                    }
                )
            })
            .flat_map(|by| {
                let same = |other: &&Incident| {
                    other.thing() == by.thing() && other.plan.policy == by.plan.policy
                };
                let told = |other: &&Incident| {
                    let ending = other.telling.as_ref();
                    ending.is_none_or(|telling| telling.notice != Notice::End)
                };
                let owing = self.owing.values().filter(same).filter(told);
                owing.map(|other| (other.id, by.id)).collect::<Vec<_>>()
            })
            .collect();
        for (id, by) in mended {
            self.record(work, context, id, EventBody::Mended { by });
        }
        while self.owing.len() > self.settings.incidents {
            let Some(oldest) = self.owing.keys().next().copied() else {
                break;
            };
            let reason = format!(
                "the ends of more than {} others are waited for",
                self.settings.incidents
            );
            self.record(work, context, oldest, EventBody::EndForgone { reason });
            let Some(incident) = self.owing.get(&oldest) else {
                break;
            };
            work.turn.append.incidents.push(incident.into());
            self.quit(oldest);
            work.touched.remove(&oldest);
        }
        self.settle(work, context);
    }
}
