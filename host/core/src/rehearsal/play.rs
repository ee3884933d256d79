//! The parts around the engine.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::assumed::{Answer, Outcomes, ScriptedRun, Verdict};
use super::look::look;
use super::past::Past;
use super::trace::{Decision, Trace, What};
use crate::alert::{Alert, AlertStatus};
use crate::capability::Response;
use crate::control::ControlEvent;
use crate::duration::HumanDuration;
use crate::engine::{
    Action, Engine, Finding, Identity, Input, Note, Operator, Order, PluginVersion, Settings, Turn,
    VerifyOrder, World,
};
use crate::event::{
    Event, EventBody, FailureClass, Notice, PlannedEffect, RunMode, RunResult, StopCause,
};
use crate::guard::limits::{EffectWindows, on_account_of, tells, tells_a_person};
use crate::guard::settings::Fleet;
use crate::id::{Digest, IncidentId, PluginRef, PolicyName, RunId, Target};
use crate::incident::{Incident, Phase, Rung, VerifyCheck, later};
use crate::policy::PolicySet;
use crate::record::{Accepted, History, PastEffect, Priority, Recovered};

/// The engine on a stage; see the module.
pub struct Rehearsal<'o> {
    engine: Engine,
    stage: Stage,
    effects: EffectWindows,
    outcomes: &'o mut dyn Outcomes,
    // What is to happen: by time, then by rank, then in the order in which it was put in.
    script: BTreeMap<(Timestamp, u8, u64), Stimulus>,
    number: u64,
    accepted: u64,
    now: Timestamp,
    runs: HashMap<RunId, Play>,
    // Plans that people were asked about.
    asked: HashSet<(IncidentId, u32, u32, Digest)>,
    // Notifications that there was no room for.
    waiting: Vec<Accepted>,
    known: HashMap<IncidentId, (PolicyName, Target)>,
    // The incidents that are open, as their events say.
    open: HashMap<IncidentId, Incident>,
    trace: Trace,
}

/// Which incidents somebody means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Which {
    /// That one.
    pub incident: Option<IncidentId>,
    /// Those of this policy.
    pub policy: Option<PolicyName>,
    /// Those on this target.
    pub target: Option<Target>,
}

impl Which {
    fn means(&self, incident: &Incident) -> bool {
        self.incident.is_none_or(|id| id == incident.id)
            && self
                .policy
                .as_ref()
                .is_none_or(|policy| *policy == incident.plan.policy)
            && self
                .target
                .as_ref()
                .is_none_or(|target| *target == incident.target)
    }
}

/// Something that is to happen.
enum Stimulus {
    Operator(Operator),
    Person {
        which: Which,
        by: String,
        verdict: Verdict,
    },
    Alert(Arc<Alert>),
    /// One that waited.
    Again(Accepted),
    /// A run comes to its next effect, or to its end.
    Go {
        run: RunId,
        life: u32,
    },
    Stop {
        run: RunId,
        life: u32,
        result: RunResult,
    },
    Looked {
        incident: IncidentId,
        deadline: Timestamp,
        finding: Finding,
    },
    Fleet(Fleet),
    Identified(Target),
}

impl Stimulus {
    // Of what happens at one moment people come first, then the monitoring as the daemon
    // takes it: ends, then by severity.
    fn rank(&self) -> u8 {
        let told = |alert: &Alert| match (alert.status, Priority::of(alert)) {
            (AlertStatus::Resolved, _) => 1,
            (_, Priority::Urgent) => 2,
            (_, Priority::Normal) => 3,
            (_, Priority::Low) => 4,
        };
        match self {
            // To be identified is an answer to what is asked at that moment.
            Self::Operator(_) | Self::Person { .. } | Self::Identified(_) => 0,
            Self::Alert(alert) => told(alert),
            Self::Again(accepted) => told(&accepted.alert),
            Self::Go { .. } | Self::Stop { .. } | Self::Looked { .. } | Self::Fleet(_) => 5,
        }
    }
}

/// A run that is under way, or was.
struct Play {
    order: Box<Order>,
    script: ScriptedRun,
    began: Timestamp,
    // How far it was when it began, or when it went on after a stop.
    before: Duration,
    next: usize,
    // Counts how often it began, so that what was meant for an earlier life is not heard.
    life: u32,
    under_way: bool,
}

impl Play {
    fn due(&self) -> Timestamp {
        let effect = self.script.effects.get(self.next).map(|(after, _)| *after);
        let after = effect.map_or(self.script.takes, |after| after.min(self.script.takes));
        later(self.began, after.saturating_sub(self.before))
    }
}

struct Stage {
    policies: Arc<PolicySet>,
    past: Past,
}

impl World for Stage {
    fn policies(&self) -> &PolicySet {
        &self.policies
    }

    /// Every plugin serves: what it would do is in the script.
    fn plugin(&self, plugin: &PluginRef) -> Option<PluginVersion> {
        let any = || Digest::of(plugin.name.as_str().as_bytes());
        Some(PluginVersion {
            version: "rehearsed".to_owned(),
            digest: plugin.pin.unwrap_or_else(any),
        })
    }

    fn history(&self) -> &dyn History {
        &self.past
    }
}

impl<'o> Rehearsal<'o> {
    /// A rehearsal that begins at `start`, without a past.
    #[must_use]
    pub fn new(
        policies: Arc<PolicySet>,
        settings: Settings,
        outcomes: &'o mut dyn Outcomes,
        start: Timestamp,
    ) -> Self {
        let mut effects = EffectWindows::new(settings.effects.clone(), &[]);
        effects.share_among(&policies);
        Self {
            effects,
            engine: Engine::new(settings),
            stage: Stage {
                policies,
                past: Past::default(),
            },
            outcomes,
            script: BTreeMap::new(),
            number: 0,
            accepted: 0,
            now: start,
            runs: HashMap::new(),
            asked: HashSet::new(),
            waiting: Vec::new(),
            known: HashMap::new(),
            open: HashMap::new(),
            trace: Trace::default(),
        }
    }

    /// What has happened to the controls before the start.
    pub fn controls(&mut self, controls: Vec<ControlEvent>) {
        let recovered = Recovered {
            controls,
            ..Recovered::default()
        };
        let turn = self
            .engine
            .recover(recovered, self.now, &self.stage, &self.effects);
        self.finish(turn);
    }

    /// A notification comes.
    pub fn alert(&mut self, at: Timestamp, alert: Arc<Alert>) {
        self.put(at, Stimulus::Alert(alert));
    }

    /// An operator does something.
    pub fn operator(&mut self, at: Timestamp, operator: Operator) {
        self.put(at, Stimulus::Operator(operator));
    }

    /// A person says something of the incidents that are meant: those that wait for
    /// approval, or, to cancel them, all that are open.
    pub fn person(&mut self, at: Timestamp, which: Which, by: String, verdict: Verdict) {
        self.put(at, Stimulus::Person { which, by, verdict });
    }

    /// Lets everything happen up to and with `until`.
    #[must_use]
    pub fn run(mut self, until: Timestamp) -> Trace {
        let mut woken = None;
        loop {
            let scripted = self.script.keys().next().map(|(at, _, _)| *at);
            let timer = self.engine.wake_at().map(|at| at.max(self.now));
            // A timer that nothing came of is not taken twice at one moment.
            let timer = timer.map(|at| match woken {
                Some(last) if at <= last => later(last, Duration::from_millis(1)),
                _ => at,
            });
            let Some(at) = scripted.into_iter().chain(timer).min() else {
                break;
            };
            if at > until {
                break;
            }
            self.now = self.now.max(at);
            if scripted == Some(at) {
                if let Some((_, stimulus)) = self.script.pop_first() {
                    self.happen(stimulus);
                }
            } else {
                woken = Some(at);
                self.turn(None);
            }
        }
        self.trace
    }

    fn put(&mut self, at: Timestamp, stimulus: Stimulus) {
        self.number += 1;
        let at = at.max(self.now);
        self.script
            .insert((at, stimulus.rank(), self.number), stimulus);
    }

    fn happen(&mut self, stimulus: Stimulus) {
        match stimulus {
            Stimulus::Alert(alert) => self.hear(alert),
            Stimulus::Again(accepted) => self.turn(Some(Input::Accepted(accepted))),
            Stimulus::Operator(operator) => self.turn(Some(Input::Operator { token: 0, operator })),
            Stimulus::Person { which, by, verdict } => self.person_says(&which, &by, &verdict),
            Stimulus::Go { run, life } => self.go(run, life),
            Stimulus::Stop { run, life, result } => self.end_run(run, life, result),
            Stimulus::Looked {
                incident,
                deadline,
                finding,
            } => self.turn(Some(Input::Verified {
                incident,
                deadline,
                finding,
            })),
            Stimulus::Fleet(fleet) => {
                let members = self.outcomes.fleet(&fleet, self.now);
                self.turn(Some(Input::Fleet { fleet, members }));
            }
            // There is no Docker: whatever is called like that is what it is called.
            Stimulus::Identified(target) => {
                let host = target.host().to_owned();
                let found = Ok(Identity::by_name(target.clone(), &host));
                self.turn(Some(Input::Identified { target, found }));
            }
        }
    }

    fn hear(&mut self, alert: Arc<Alert>) {
        let repeat = self.stage.past.accept(&alert, self.now);
        self.accepted += 1;
        let looks = if alert.status == AlertStatus::Firing && !repeat {
            look(&self.stage.policies, &alert)
        } else {
            Vec::new()
        };
        self.say(
            None,
            What::Heard {
                alert: alert.name().to_owned(),
                fingerprint: alert.fingerprint.clone(),
                status: alert.status,
                repeat,
                looks,
            },
        );
        self.turn(Some(Input::Accepted(Accepted {
            seq: self.accepted,
            alert,
            received_at: self.now,
            repeat,
        })));
    }

    fn person_says(&mut self, which: &Which, by: &str, verdict: &Verdict) {
        let meant: Vec<_> = self
            .engine
            .incidents()
            .filter(|incident| which.means(incident))
            .filter_map(|incident| {
                let id = incident.id;
                let plan = match incident.phase {
                    Phase::AwaitingApproval { plan, .. } => Some(plan),
                    _ => None,
                };
                let by = by.to_owned();
                match verdict {
                    Verdict::Approve => Some(Operator::Approve {
                        incident: id,
                        plan: plan?,
                        by,
                    }),
                    Verdict::Deny(reason) => Some(Operator::Deny {
                        incident: id,
                        plan: plan?,
                        by,
                        reason: reason.clone(),
                    }),
                    Verdict::Cancel(reason) => Some(Operator::Cancel {
                        incident: id,
                        by,
                        reason: reason.clone(),
                    }),
                }
            })
            .collect();
        if meant.is_empty() {
            let said = match verdict {
                Verdict::Approve | Verdict::Deny(_) => {
                    format!("{by} has nothing to decide: no such incident waits for approval")
                }
                Verdict::Cancel(_) => {
                    format!("{by} has nothing to cancel: no such incident is open")
                }
            };
            self.say(
                None,
                What::Operator {
                    said,
                    refused: true,
                },
            );
        }
        for operator in meant {
            self.turn(Some(Input::Operator { token: 0, operator }));
        }
    }

    fn turn(&mut self, input: Option<Input>) {
        let turn = self
            .engine
            .turn(input, self.now, &self.stage, &self.effects, false);
        self.finish(turn);
    }

    /// What the daemon does after a turn.
    fn finish(&mut self, turn: Turn) {
        self.stage.past.commit(&turn.append);
        for note in &turn.notes {
            if let Note::Repeat { policy, alert } = note {
                self.trace.decisions.push(Decision {
                    at: self.now,
                    incident: None,
                    policy: Some(policy.clone()),
                    target: None,
                    what: What::Repeat {
                        alert: alert.name().to_owned(),
                    },
                });
            }
        }
        for deferred in &turn.deferred {
            let alert = deferred.accepted.alert.name().to_owned();
            self.say(None, What::Waits { alert });
        }
        for event in &turn.append.events {
            self.tell(event);
        }
        for (_, reply) in &turn.replies {
            let what = match reply {
                Ok(said) => What::Operator {
                    said: said.clone(),
                    refused: false,
                },
                Err(error) => What::Operator {
                    said: error.to_string(),
                    refused: true,
                },
            };
            self.say(None, what);
        }
        let deferred = turn.deferred.into_iter();
        self.waiting
            .extend(deferred.map(|deferred| deferred.accepted));
        for note in turn.notes {
            match note {
                Note::Opened(incident) => {
                    if let Some((at, by, reason)) = self.outcomes.cancelled(&incident) {
                        let which = Which {
                            incident: Some(incident.id),
                            ..Which::default()
                        };
                        self.person(at, which, by, Verdict::Cancel(reason));
                    }
                }
                Note::Ended(_) => {
                    for accepted in std::mem::take(&mut self.waiting) {
                        self.put(self.now, Stimulus::Again(accepted));
                    }
                }
                _ => {}
            }
        }
        for row in &turn.append.incidents {
            self.ask_people(row.id);
        }
        for action in turn.actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Run(order) => self.begin_run(order),
            Action::Stop {
                run,
                cause,
                message,
            } => {
                let life = self.runs.get(&run).filter(|play| play.under_way);
                if let Some(life) = life.map(|play| play.life) {
                    let result = RunResult::Stopped { cause, message };
                    self.put(self.now, Stimulus::Stop { run, life, result });
                }
            }
            Action::Verify(order) => self.begin_look(&order),
            Action::LookAtFleet(fleet) => self.put(self.now, Stimulus::Fleet(fleet)),
            Action::Identify(target) => self.put(self.now, Stimulus::Identified(target)),
            // What tells somebody goes on to its end.
            Action::Forget(incident) => self.runs.retain(|run, play| {
                let tells = play.under_way && play.order.rung.step == 0;
                run.incident != incident || tells
            }),
        }
    }

    /// Asks people about a plan that has begun to wait.
    fn ask_people(&mut self, id: IncidentId) {
        let Some(incident) = self.engine.incident(id) else {
            return;
        };
        let Phase::AwaitingApproval {
            rung: Rung { step, attempt },
            plan,
            until,
            ..
        } = incident.phase
        else {
            return;
        };
        if !self.asked.insert((id, step, attempt, plan)) {
            return;
        }
        let answers = self.outcomes.answers(incident);
        self.say(
            Some(id),
            What::Asked {
                plan: plan.short(),
                until,
            },
        );
        for Answer { after, by, verdict } in answers {
            let which = Which {
                incident: Some(id),
                ..Which::default()
            };
            self.person(later(self.now, after), which, by, verdict);
        }
    }

    fn begin_look(&mut self, order: &VerifyOrder) {
        let (at, finding) = if order.check == VerifyCheck::AlertResolved {
            // The script has said so, and says it when the alert fires again.
            let detail = "the alert resolved".to_owned();
            (later(self.now, order.steady), Finding::Holds(detail))
        } else {
            let look = self.outcomes.verify(order);
            let at = later(self.now, look.after);
            match look.result {
                Ok(detail) if at <= order.deadline => {
                    (later(at, order.steady), Finding::Holds(detail))
                }
                Ok(_) => {
                    let detail = "it did not hold in time".to_owned();
                    (order.deadline, Finding::Fails(detail))
                }
                Err(detail) => (at.min(order.deadline), Finding::Fails(detail)),
            }
        };
        self.put(
            at,
            Stimulus::Looked {
                incident: order.incident,
                deadline: order.deadline,
                finding,
            },
        );
    }

    fn begin_run(&mut self, order: Box<Order>) {
        let run = order.run;
        let now = self.now;
        let play = match self.runs.remove(&run) {
            Some(play) if order.resume => Play {
                order,
                began: now,
                life: play.life + 1,
                under_way: true,
                ..play
            },
            _ => {
                let mut script = self.outcomes.run(&order);
                if script.takes > order.timeout {
                    script.takes = order.timeout;
                    script.result = RunResult::Failed {
                        class: FailureClass::Retryable,
                        message: format!("it did not end within {}", HumanDuration(order.timeout)),
                    };
                }
                Play {
                    order,
                    script,
                    began: now,
                    before: Duration::ZERO,
                    next: 0,
                    life: 0,
                    under_way: true,
                }
            }
        };
        let (due, life) = (play.due(), play.life);
        self.runs.insert(run, play);
        self.put(due, Stimulus::Go { run, life });
    }

    /// A run comes to its next effect, or to its end.
    fn go(&mut self, run: RunId, life: u32) {
        let Some(play) = self.runs.get_mut(&run) else {
            return;
        };
        if !play.under_way || play.life != life {
            return;
        }
        let number = play.next;
        let Some((_, effect)) = play
            .script
            .effects
            .get(number)
            .filter(|(after, _)| *after <= play.script.takes)
            .cloned()
        else {
            let result = play.script.result.clone();
            self.end_run(run, life, result);
            return;
        };
        let (mode, policy, target) = {
            let order = &play.order;
            (order.mode, order.policy.clone(), order.thing.clone())
        };
        // As the gate does it.
        if mode != RunMode::Dry {
            let planned = play.order.effects.get(number);
            let stop = if mode == RunMode::Apply && planned != Some(&effect) {
                let message = "deviated from the approved plan".to_owned();
                Some((StopCause::Deviated, message))
            } else if let Some(pause) = self
                .engine
                .controls()
                .paused(&policy, &target, self.now)
                .filter(|_| !tells_a_person(play.order.rung.step, &effect.request))
            {
                Some((StopCause::Paused, pause.to_string()))
            } else {
                let request = &effect.request;
                let admitted = self.effects.admit(&PastEffect {
                    at: self.now,
                    policy,
                    target: on_account_of(&target, request, effect.on.as_ref()),
                    action: request.name().to_owned(),
                    tells: tells(play.order.rung.step, request),
                });
                admitted.err().map(|full| (StopCause::Rate, full.reason))
            };
            if let Some((cause, message)) = stop {
                self.end_run(run, life, RunResult::Stopped { cause, message });
                return;
            }
        }
        play.next += 1;
        let due = play.due();
        self.put(due, Stimulus::Go { run, life });
        self.effect(run, number, effect, mode);
    }

    fn effect(&mut self, run: RunId, number: usize, effect: PlannedEffect, mode: RunMode) {
        let call = u32::try_from(number + 1).unwrap_or(u32::MAX);
        let name = effect.request.name().to_owned();
        let bodies = if mode == RunMode::Dry {
            vec![EventBody::Planned {
                run,
                call,
                effect,
                result: Ok(Response::Done),
            }]
        } else {
            vec![
                EventBody::EffectBegan {
                    run,
                    call,
                    request: effect.request,
                    on: effect.on,
                },
                EventBody::EffectEnded {
                    run,
                    call,
                    name,
                    result: Ok(Response::Done),
                    settled: false,
                },
            ]
        };
        for body in bodies {
            let event = Event {
                at: self.now,
                incident: run.incident,
                body,
            };
            self.stage.past.note(&event);
            self.tell(&event);
            self.turn(Some(Input::Noted(event)));
        }
    }

    fn end_run(&mut self, run: RunId, life: u32, result: RunResult) {
        let Some(play) = self.runs.get_mut(&run) else {
            return;
        };
        if !play.under_way || play.life != life {
            return;
        }
        play.under_way = false;
        let elapsed = self.now.duration_since(play.began);
        play.before += Duration::try_from(elapsed).unwrap_or_default();
        self.turn(Some(Input::RunEnded { run, result }));
    }

    fn say(&mut self, incident: Option<IncidentId>, what: What) {
        let (policy, target) = incident.and_then(|id| self.known.get(&id)).cloned().unzip();
        self.trace.decisions.push(Decision {
            at: self.now,
            incident,
            policy,
            target,
            what,
        });
    }

    /// Puts an event on the trace, and the end that it brings about.
    fn tell(&mut self, event: &Event) {
        let id = event.incident;
        if let EventBody::Opened { plan, target, .. } = &event.body {
            let known = (plan.policy.clone(), target.clone());
            self.known.insert(id, known);
        }
        let events = self.trace.incidents.entry(id).or_default();
        events.push(event.clone());
        let told = match (&event.body, self.open.get(&id)) {
            (EventBody::RunStarted { step: 0, .. }, Some(incident)) => {
                let telling = incident.telling.as_ref().map(|telling| telling.notice);
                telling.filter(|_| !matches!(incident.phase, Phase::Escalating { run: None, .. }))
            }
            (EventBody::RunStarted { step: 0, .. }, None) => Some(Notice::End),
            _ => None,
        };
        let what = match told {
            Some(notice) => Some(What::Tells { notice }),
            None => what(&event.body),
        };
        if let Some(what) = what {
            self.say(Some(id), what);
        }
        if let Some(incident) = self.open.get_mut(&id) {
            incident.apply(event);
            if let Phase::Ended { end, reason, .. } = incident.phase.clone() {
                self.open.remove(&id);
                self.say(Some(id), What::Ended { end, reason });
            }
        } else if let Ok((incident, _)) = Incident::open(event) {
            self.open.insert(id, incident);
        }
    }
}

/// What an event says of a decision; none when it says nothing of one.
fn what(body: &EventBody) -> Option<What> {
    Some(match body {
        EventBody::Opened { alert, .. } => What::Opened {
            alert: alert.name().to_owned(),
        },
        EventBody::AlertSeen {
            episode,
            status,
            repeat,
        } => What::Joined {
            fingerprint: episode.fingerprint.clone(),
            status: *status,
            repeat: *repeat,
        },
        EventBody::Refused { reason } => What::Refused {
            reason: reason.clone(),
        },
        EventBody::GuardHeld {
            guard,
            until,
            reason,
        } => What::Held {
            guard: *guard,
            until: *until,
            reason: reason.clone(),
        },
        EventBody::Suppressed { guard, reason } => What::Dropped {
            guard: *guard,
            reason: reason.clone(),
        },
        EventBody::GuardsPassed => What::Passed,
        EventBody::RunStarted {
            run,
            step,
            attempt,
            plugin,
            digest,
            pinned,
            mode,
            ..
        } => What::Run {
            run: *run,
            step: *step,
            attempt: *attempt,
            plugin: PluginRef {
                name: plugin.clone(),
                pin: pinned.then_some(*digest),
            },
            mode: *mode,
        },
        EventBody::EffectBegan { request, .. } => What::Effect {
            summary: request.summary(),
            carried_out: true,
        },
        EventBody::Planned { effect, .. } => What::Effect {
            summary: effect.request.summary(),
            carried_out: false,
        },
        EventBody::RunResumed { run } => What::Resumed { run: *run },
        EventBody::RunEnded { run, result } => What::RunEnded {
            run: *run,
            result: result.clone(),
        },
        EventBody::Approved { by, .. } => What::Answered {
            said: format!("{by} approved the plan"),
        },
        EventBody::ApprovalDenied { by, reason, .. } => What::Answered {
            said: format!("{by} denied the plan: {reason}"),
        },
        EventBody::ApprovalExpired { .. } => What::Answered {
            said: "nobody approved the plan in time".to_owned(),
        },
        EventBody::Cancelled { by, reason } => What::Answered {
            said: format!("{by} cancelled the incident: {reason}"),
        },
        EventBody::VerificationPassed { detail } => What::Verified {
            passed: true,
            detail: detail.clone(),
        },
        EventBody::VerificationFailed { detail, .. } => What::Verified {
            passed: false,
            detail: detail.clone(),
        },
        EventBody::Expired => What::Expired,
        EventBody::Untold { reason, .. } => What::Untold {
            reason: reason.clone(),
        },
        _ => return None,
    })
}
