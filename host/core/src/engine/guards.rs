//! Asks the guards about an incident, with all that they look at.

use super::fleet::Told;
use super::{Context, Engine, Note, Work};
use crate::event::{EventBody, Guard};
use crate::guard::{self, GuardView, Verdict};
use crate::id::IncidentId;
use crate::incident::{Command, Hold, Incident, Phase};
use crate::mutation::{Mutation, active};
use crate::policy::Mode;
use crate::record::earlier;

impl Engine {
    pub(super) fn ask_guards(&mut self, work: &mut Work, context: &Context<'_>, id: IncidentId) {
        let Some(incident) = self.incidents.get(&id) else {
            return;
        };
        if !matches!(incident.phase, Phase::Pending(_) | Phase::Held(_)) {
            return;
        }
        let incident = incident.clone();
        let view = self.view(work, context, &incident);
        let full = view.effects.clone();
        let mut verdict = guard::evaluate(&incident, &view, context.now);
        if verdict == Verdict::Pass {
            match self.radius(work, context, &incident) {
                // Asked again when the fleet has been looked at.
                Told::Later => return,
                Told::Within => {}
                Told::Beyond(radius) => {
                    let view = GuardView {
                        radius: Some(radius),
                        ..GuardView::default()
                    };
                    verdict = guard::evaluate(&incident, &view, context.now);
                }
            }
        }
        match verdict {
            Verdict::Pass => {
                // Counted here and not when it starts: others are asked before that. One
                // that goes on was counted when it began.
                if incident.suspended.is_none() && !active(Mutation::RateCountedLate) {
                    let policy = incident.plan.policy.clone();
                    self.fresh.runs.entry(policy).or_default().push(context.now);
                }
                self.record(work, context, id, EventBody::GuardsPassed);
            }
            Verdict::Drop { guard, reason } => {
                self.record(work, context, id, EventBody::Suppressed { guard, reason });
            }
            Verdict::Hold {
                guard,
                until,
                reason,
            } => {
                if let Some(full) = full.filter(|_| guard == Guard::Rate)
                    && full.reason == reason
                {
                    let policy = incident.plan.policy.clone();
                    work.turn.notes.push(Note::BudgetUsedUp { policy, full });
                }
                if guard == Guard::TargetLock {
                    let waiting = self.lock_waiters.entry(incident.thing().clone());
                    waiting.or_default().insert(id);
                }
                let same = matches!(
                    incident.phase,
                    Phase::Held(Hold { guard: g, until: u, .. }) if g == guard && u == until
                );
                if same {
                    // The same verdict as before is no news.
                    self.places.sync(&incident);
                    let due = incident.due().map(|due| (id, Command::WakeAt(due)));
                    work.commands.extend(due);
                    return;
                }
                work.turn.notes.push(Note::Held {
                    incident: Box::new(incident),
                    guard,
                    until,
                    reason: reason.clone(),
                });
                let body = EventBody::GuardHeld {
                    guard,
                    until,
                    reason,
                };
                self.record(work, context, id, body);
            }
        }
    }

    pub(super) fn view<'a>(
        &'a self,
        work: &mut Work,
        context: &Context<'_>,
        incident: &Incident,
    ) -> GuardView<'a> {
        let history = context.world.history();
        let now = context.now;
        let key = (incident.plan.policy.clone(), incident.thing().clone());
        let guards = &incident.plan.guards;
        let mut failed = |error| {
            work.turn.notes.push(Note::HistoryFailed("a guard", error));
            // As full as can be: not known is not over.
            vec![now; 10_001]
        };
        let opened = guards.flapping.map_or_else(Vec::new, |window| {
            let since = earlier(now, window.per);
            let mut opened = history
                .opened_since(&key.0, &key.1, since)
                .unwrap_or_else(&mut failed);
            opened.extend(self.opened_now(&key).map(|incident| incident.opened_at));
            opened
        });
        let runs = guards.rate.map_or_else(Vec::new, |rate| {
            let mut runs = history
                .runs_since(&key.0, earlier(now, rate.window.per))
                .unwrap_or_else(&mut failed);
            runs.extend(self.fresh.runs.get(&key.0).into_iter().flatten());
            runs
        });
        // A shadow acts on nothing, so nothing else is in its way.
        let locked_by = self
            .locks
            .get(&key.1)
            .copied()
            .filter(|holder| *holder != incident.id && incident.plan.mode != Mode::Shadow);
        GuardView {
            pause: self.controls.paused(&key.0, &key.1, now),
            maintenance: &self.settings.maintenance,
            standing: self.standing(work, context, &key),
            opened,
            locked_by,
            crowd: self.places.crowd(incident),
            runs,
            effects: match incident.plan.mode {
                Mode::Shadow => None,
                _ => context.effects.check(&key.0, &key.1, now).err(),
            },
            radius: None,
        }
    }
}
