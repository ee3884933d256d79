//! The incident's life, driven by random shells: whatever order events come in, the
//! promises of the state machine hold.
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sentinel_core::alert::{Alert, AlertStatus, Episode};
use sentinel_core::capability::{DockerCall, DockerRequest, Request};
use sentinel_core::event::{Event, EventBody, FailureClass, Guard, RunMode, RunResult, StopCause};
use sentinel_core::grant::Grants;
use sentinel_core::guard::settings::Guards;
use sentinel_core::id::{Digest, IncidentId, RunId};
use sentinel_core::incident::{
    Approval, Command, End, Incident, MAX_INTERRUPTIONS, OnInterrupt, Phase, Plan,
    PlannedEscalation, PlannedStep, PlannedVerify, Rung, VerifyCheck, When, later,
};
use sentinel_core::policy::Mode;
use sentinel_core::timeline::briefing;

use super::support::{alert, at};

fn down(name: &str) -> Alert {
    alert(&[("alertname", name)], at(-10), AlertStatus::Firing)
}

fn plan(attempts: &[u32], check: VerifyCheck, on_interrupt: OnInterrupt) -> Plan {
    Plan {
        policy: "web-down".parse().unwrap(),
        digest: Digest::of(b"policy"),
        steps: attempts
            .iter()
            .map(|attempts| PlannedStep {
                plugin: "docker-restart".parse().unwrap(),
                params: serde_json::Map::new(),
                timeout: Duration::from_secs(30),
                attempts: *attempts,
                backoff: Duration::from_secs(5),
                on_interrupt,
                when: When::default(),
            })
            .collect(),
        verify: PlannedVerify {
            check,
            within: Duration::from_secs(30),
            every: Duration::from_millis(500),
            steady: Some(Duration::from_secs(10)),
        },
        guards: Guards {
            cooldown: Duration::from_secs(60),
            ..Guards::default()
        },
        mode: Mode::Auto,
        approval: Approval::default(),
        ttl: Duration::from_hours(24),
        evidence: 0,
        escalate: None,
        grants: Grants::default(),
    }
}

fn opened(plan: Plan) -> Event {
    Event {
        at: at(0),
        incident: IncidentId(7),
        body: EventBody::Opened {
            plan: Arc::new(plan),
            target: "docker://local/web".parse().unwrap(),
            thing: None,
            alert: Arc::new(down("WebDown")),
            accepted_at: at(0),
        },
    }
}

/// Drives one incident and remembers what it said.
struct Shell {
    incident: Incident,
    events: Vec<Event>,
    commands: Vec<Command>,
    now: i64,
}

impl Shell {
    fn new(plan: Plan) -> Self {
        let event = opened(plan);
        let (incident, commands) = Incident::open(&event).unwrap();
        Self {
            incident,
            events: vec![event],
            commands,
            now: 0,
        }
    }

    fn apply(&mut self, body: EventBody) -> Vec<Command> {
        let event = Event {
            at: at(self.now),
            incident: self.incident.id,
            body,
        };
        let commands = self.incident.apply(&event);
        self.events.push(event);
        self.commands.extend(&commands);
        commands
    }

    fn seen(&mut self, status: AlertStatus, repeat: bool) -> Vec<Command> {
        let episode = down("WebDown").episode();
        self.apply(EventBody::AlertSeen {
            episode,
            status,
            repeat,
        })
    }

    /// Starts a run; the guards let it through if they have to be asked.
    fn start_run(&mut self) -> RunId {
        if matches!(self.incident.phase, Phase::Pending(_)) {
            self.apply(EventBody::GuardsPassed);
        }
        let Phase::Starting { rung, mode } = self.incident.phase else {
            panic!("not starting but {:?}", self.incident.phase);
        };
        let run = RunId {
            incident: self.incident.id,
            number: self.incident.runs + 1,
        };
        self.apply(EventBody::RunStarted {
            run,
            step: rung.step,
            attempt: rung.attempt,
            mode,
            plugin: "docker-restart".parse().unwrap(),
            version: "1.0.0".to_owned(),
            digest: Digest::of(b"plugin"),
            pinned: false,
        });
        run
    }

    fn act(&mut self, run: RunId) {
        self.apply(EventBody::EffectBegan {
            run,
            call: 1,
            request: Request::Docker(DockerRequest {
                host: "local".to_owned(),
                call: DockerCall::Start {
                    container: "web".to_owned(),
                },
            }),
            on: None,
        });
    }

    fn end_run(&mut self, run: RunId, result: RunResult) -> Vec<Command> {
        self.apply(EventBody::RunEnded { run, result })
    }

    fn end(&self) -> Option<End> {
        match self.incident.phase {
            Phase::Ended { end, .. } => Some(end),
            _ => None,
        }
    }
}

fn changed() -> RunResult {
    RunResult::Changed {
        message: "restarted".to_owned(),
    }
}

fn failed(class: FailureClass) -> RunResult {
    RunResult::Failed {
        class,
        message: "no".to_owned(),
    }
}

fn verified() -> EventBody {
    EventBody::VerificationPassed {
        detail: "200".to_owned(),
    }
}

fn not_verified() -> EventBody {
    EventBody::VerificationFailed {
        unknown: false,
        detail: "503".to_owned(),
    }
}

fn not_known() -> EventBody {
    EventBody::VerificationFailed {
        unknown: true,
        detail: "no address".to_owned(),
    }
}

fn http() -> VerifyCheck {
    VerifyCheck::Http {
        url: "http://web/".to_owned(),
        foreign: false,
    }
}

#[test]
fn a_run_that_changed_something_is_healed_only_when_it_is_verified() {
    let mut shell = Shell::new(plan(&[1], http(), OnInterrupt::Escalate));
    assert_eq!(shell.commands, [Command::AskGuards]);
    shell.apply(EventBody::GuardsPassed);
    let run = shell.start_run();
    shell.act(run);
    let commands = shell.end_run(run, changed());
    let deadline = later(at(0), Duration::from_secs(30));
    assert_eq!(commands, [Command::Verify { deadline }]);
    assert_eq!(shell.end(), None);
    shell.apply(EventBody::VerificationPassed {
        detail: "200".to_owned(),
    });
    assert_eq!(shell.end(), Some(End::Healed));
}

#[test]
fn attempts_then_the_next_step_then_escalated() {
    let mut shell = Shell::new(plan(&[2, 1], http(), OnInterrupt::Escalate));
    shell.apply(EventBody::GuardsPassed);
    let run = shell.start_run();
    shell.end_run(run, failed(FailureClass::Retryable));
    assert!(matches!(
        shell.incident.phase,
        Phase::BackingOff {
            rung: Rung {
                step: 1,
                attempt: 2
            },
            ..
        }
    ));
    // Too early: the backoff holds.
    shell.apply(EventBody::TimerFired);
    assert!(matches!(shell.incident.phase, Phase::BackingOff { .. }));
    shell.now += 5;
    shell.apply(EventBody::TimerFired);
    let run = shell.start_run();
    shell.end_run(run, changed());
    shell.apply(not_verified());
    assert_eq!(shell.incident.phase, Phase::Pending(Rung::first(2)));
    let run = shell.start_run();
    shell.end_run(run, failed(FailureClass::Permanent));
    assert_eq!(shell.end(), Some(End::Escalated));
}

#[test]
fn a_permanent_failure_skips_the_attempts_that_are_left() {
    let mut shell = Shell::new(plan(&[5, 1], http(), OnInterrupt::Escalate));
    shell.apply(EventBody::GuardsPassed);
    let run = shell.start_run();
    shell.end_run(run, failed(FailureClass::Permanent));
    assert_eq!(shell.incident.phase, Phase::Pending(Rung::first(2)));
}

#[test]
fn a_denied_run_goes_to_a_person_whatever_the_ladder_has_left() {
    let mut shell = Shell::new(plan(&[5, 5], http(), OnInterrupt::Escalate));
    shell.apply(EventBody::GuardsPassed);
    let run = shell.start_run();
    shell.end_run(run, failed(FailureClass::Denied));
    assert_eq!(shell.end(), Some(End::Escalated));
}

#[test]
fn an_alert_that_resolves_before_anything_was_done_clears_the_incident() {
    for hold in [false, true] {
        let mut shell = Shell::new(plan(&[1], http(), OnInterrupt::Escalate));
        if hold {
            shell.apply(EventBody::GuardHeld {
                guard: Guard::Cooldown,
                until: Some(at(60)),
                reason: "acted".to_owned(),
            });
        }
        let commands = shell.seen(AlertStatus::Resolved, false);
        assert_eq!(commands, [Command::Release]);
        assert_eq!(shell.end(), Some(End::Cleared));
    }
}

#[test]
fn a_failed_run_of_a_resolved_alert_is_not_tried_again() {
    let mut shell = Shell::new(plan(&[3, 3], http(), OnInterrupt::Escalate));
    shell.apply(EventBody::GuardsPassed);
    let run = shell.start_run();
    shell.act(run);
    // It is called off between two effects; this one had none left.
    let cause = StopCause::Cleared;
    assert_eq!(
        shell.seen(AlertStatus::Resolved, false),
        [Command::StopRun { run, cause }]
    );
    let commands = shell.end_run(run, failed(FailureClass::Retryable));
    let deadline = later(at(0), Duration::from_secs(30));
    assert_eq!(commands, [Command::Verify { deadline }]);
    shell.apply(verified());
    assert_eq!(shell.end(), Some(End::Healed));
}

#[test]
fn an_alert_that_resolves_makes_no_crash_loop_healed() {
    for between in [false, true] {
        let mut shell = Shell::new(plan(&[3, 3], http(), OnInterrupt::Escalate));
        shell.apply(EventBody::GuardsPassed);
        let run = shell.start_run();
        shell.act(run);
        shell.end_run(run, changed());
        if between {
            shell.apply(not_verified());
            assert!(matches!(shell.incident.phase, Phase::BackingOff { .. }));
        }
        // It is up for a moment.
        let commands = shell.seen(AlertStatus::Resolved, false);
        let deadline = later(at(0), Duration::from_secs(30));
        let looks = [Command::Verify { deadline }];
        assert_eq!(commands, if between { &looks[..] } else { &[] });
        assert!(matches!(shell.incident.phase, Phase::Verifying { .. }));
        shell.apply(not_verified());
        assert_eq!(shell.end(), Some(End::Escalated));
    }
    // It fires again before it is decided: the ladder goes on.
    let mut shell = Shell::new(plan(&[3], http(), OnInterrupt::Escalate));
    shell.apply(EventBody::GuardsPassed);
    let run = shell.start_run();
    shell.act(run);
    shell.end_run(run, changed());
    shell.apply(not_verified());
    shell.seen(AlertStatus::Resolved, false);
    shell.now += 121;
    shell.seen(AlertStatus::Firing, true);
    shell.apply(not_verified());
    assert!(matches!(
        shell.incident.phase,
        Phase::BackingOff {
            rung: Rung {
                step: 1,
                attempt: 3
            },
            ..
        }
    ));
}

#[test]
fn an_alert_that_is_to_resolve_has_to_stay_resolved() {
    let deadline = later(at(0), Duration::from_secs(30));
    let looks = [Command::Verify { deadline }];
    let mut shell = Shell::new(plan(
        &[1],
        VerifyCheck::AlertResolved,
        OnInterrupt::Escalate,
    ));
    shell.apply(EventBody::GuardsPassed);
    let run = shell.start_run();
    shell.act(run);
    assert_eq!(shell.end_run(run, changed()), looks);
    assert_eq!(shell.seen(AlertStatus::Resolved, false), looks);
    assert_eq!(shell.end(), None);
    shell.now += 121;
    // The time for it may be over by now.
    assert_eq!(
        shell.seen(AlertStatus::Firing, true),
        [Command::WakeAt(deadline)]
    );
    assert_eq!(shell.seen(AlertStatus::Resolved, false), looks);
    shell.apply(verified());
    assert_eq!(shell.end(), Some(End::Healed));
}

#[test]
fn a_look_that_could_not_be_made_leads_to_a_person_and_to_no_step() {
    let mut shell = Shell::new(plan(&[3, 3], http(), OnInterrupt::Escalate));
    shell.apply(EventBody::GuardsPassed);
    let run = shell.start_run();
    shell.act(run);
    shell.end_run(run, changed());
    shell.apply(not_known());
    assert_eq!(shell.end(), Some(End::Escalated));
    let Phase::Ended { reason, .. } = &shell.incident.phase else {
        unreachable!()
    };
    assert_eq!(reason, "could not be verified: no address");
}

#[test]
fn what_resolves_while_nothing_was_done_is_cleared() {
    for check in [http(), VerifyCheck::AlertResolved] {
        let mut shell = Shell::new(plan(&[1], check, OnInterrupt::Escalate));
        shell.apply(EventBody::GuardsPassed);
        let run = shell.start_run();
        let message = "it runs".to_owned();
        shell.end_run(run, RunResult::Unchanged { message });
        assert!(matches!(shell.incident.phase, Phase::Verifying { .. }));
        shell.seen(AlertStatus::Resolved, false);
        assert_eq!(shell.end(), Some(End::Cleared));
    }
}

#[test]
fn plans_of_older_journals_end_as_they_did() {
    let mut older = plan(&[3], http(), OnInterrupt::Escalate);
    older.verify.steady = None;
    let written = serde_json::to_value(&older).unwrap();
    assert_eq!(written["verify"].get("steady_ms"), None);
    assert_eq!(serde_json::from_value::<Plan>(written).unwrap(), older);
    let mut shell = Shell::new(older);
    shell.apply(EventBody::GuardsPassed);
    let run = shell.start_run();
    shell.act(run);
    shell.end_run(run, changed());
    shell.apply(not_verified());
    shell.seen(AlertStatus::Resolved, false);
    assert_eq!(shell.end(), Some(End::Healed));
}

#[test]
fn a_repeat_opens_nothing_and_is_counted() {
    let mut shell = Shell::new(plan(&[1], http(), OnInterrupt::Escalate));
    assert_eq!(shell.seen(AlertStatus::Firing, true), []);
    assert_eq!(shell.seen(AlertStatus::Firing, true), []);
    assert_eq!(shell.incident.repeats, 2);
    assert_eq!(shell.incident.phase, Phase::Pending(Rung::first(1)));
}

#[test]
fn a_late_firing_of_a_resolved_episode_does_not_bring_it_back() {
    let mut shell = Shell::new(plan(&[1], http(), OnInterrupt::Escalate));
    shell.apply(EventBody::GuardsPassed);
    shell.start_run();
    shell.seen(AlertStatus::Resolved, false);
    shell.seen(AlertStatus::Firing, true);
    assert!(shell.incident.resolved());
}

#[test]
fn a_firing_long_after_the_end_of_its_episode_is_believed() {
    let mut shell = Shell::new(plan(&[1], http(), OnInterrupt::Escalate));
    shell.apply(EventBody::GuardsPassed);
    shell.start_run();
    shell.seen(AlertStatus::Resolved, false);
    shell.now += 121;
    shell.seen(AlertStatus::Firing, true);
    assert!(!shell.incident.resolved());
}

#[test]
fn a_new_episode_takes_the_place_of_the_old_one() {
    let mut shell = Shell::new(plan(&[1], http(), OnInterrupt::Escalate));
    shell.apply(EventBody::GuardsPassed);
    shell.start_run();
    shell.seen(AlertStatus::Resolved, false);
    let newer = Episode {
        starts_at: at(1),
        ..down("WebDown").episode()
    };
    shell.apply(EventBody::AlertSeen {
        episode: newer.clone(),
        status: AlertStatus::Firing,
        repeat: false,
    });
    assert!(!shell.incident.resolved());
    // The end of the old one, told late, says nothing about the new one.
    shell.seen(AlertStatus::Resolved, false);
    assert!(shell.incident.knows(&newer, AlertStatus::Firing));
    assert_eq!(shell.incident.alerts.len(), 1);
}

#[test]
fn an_interrupted_run_is_attempted_again_only_if_the_policy_says_so() {
    let mut shell = Shell::new(plan(&[1], http(), OnInterrupt::Escalate));
    shell.apply(EventBody::GuardsPassed);
    let run = shell.start_run();
    shell.apply(EventBody::RunInterrupted { run });
    assert_eq!(shell.end(), Some(End::Escalated));

    let mut shell = Shell::new(plan(&[1], http(), OnInterrupt::Rerun));
    shell.apply(EventBody::GuardsPassed);
    for _ in 1..MAX_INTERRUPTIONS {
        let run = shell.start_run();
        shell.apply(EventBody::RunInterrupted { run });
        assert_eq!(shell.end(), None);
    }
    let run = shell.start_run();
    shell.apply(EventBody::RunInterrupted { run });
    assert_eq!(shell.end(), Some(End::Escalated));
}

#[test]
fn who_is_told_is_told_what_happened_before() {
    let mut plan = plan(&[1], http(), OnInterrupt::Escalate);
    plan.escalate = Some(PlannedEscalation {
        plugin: "notify".parse().unwrap(),
        params: serde_json::Map::new(),
        timeout: Duration::from_secs(10),
        attempts: 1,
        held_after: None,
        left_out: Vec::new(),
    });
    let mut shell = Shell::new(plan);
    shell.apply(EventBody::GuardsPassed);
    let run = shell.start_run();
    shell.end_run(run, failed(FailureClass::Denied));
    assert!(matches!(shell.incident.phase, Phase::Escalating { .. }));
    let telling = RunId {
        incident: shell.incident.id,
        number: 2,
    };
    shell.apply(EventBody::RunStarted {
        run: telling,
        step: 0,
        attempt: 1,
        mode: RunMode::Live,
        plugin: "notify".parse().unwrap(),
        version: "1.0.0".to_owned(),
        digest: Digest::of(b"notify"),
        pinned: false,
    });
    let told = briefing(&shell.events, telling).unwrap().unwrap();
    assert_eq!(told.reason, "no");
    assert!(told.timeline.contains("opened"), "{}", told.timeline);
    assert!(
        told.timeline.contains("run 7.1 failed (denied): no"),
        "{}",
        told.timeline
    );
    // The same afterwards, so that the run can be played again.
    shell.end_run(telling, changed());
    assert_eq!(shell.end(), Some(End::Escalated));
    assert_eq!(briefing(&shell.events, telling).unwrap().unwrap(), told);
    assert_eq!(briefing(&shell.events, run).unwrap(), None);
}

/// What a random shell does next.
#[derive(Debug, Clone)]
enum Move {
    PassGuards,
    Hold,
    Wait(i64),
    Timer,
    Firing,
    Resolve,
    StartRun,
    Act,
    EndRun(RunResult),
    EndOtherRun,
    Verified(bool),
    NotKnown,
    Restart,
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        3 => Just(Move::PassGuards),
        1 => Just(Move::Hold),
        2 => (0_i64..40).prop_map(Move::Wait),
        3 => Just(Move::Timer),
        2 => Just(Move::Firing),
        1 => Just(Move::Resolve),
        6 => Just(Move::StartRun),
        2 => Just(Move::Act),
        4 => prop_oneof![
            Just(changed()),
            Just(failed(FailureClass::Retryable)),
            Just(failed(FailureClass::Permanent)),
            Just(failed(FailureClass::Denied)),
        ].prop_map(Move::EndRun),
        1 => Just(Move::EndOtherRun),
        3 => any::<bool>().prop_map(Move::Verified),
        1 => Just(Move::NotKnown),
        1 => Just(Move::Restart),
    ]
}

fn plans() -> impl Strategy<Value = Plan> {
    (
        prop::collection::vec(1_u32..4, 1..4),
        prop_oneof![Just(http()), Just(VerifyCheck::AlertResolved)],
        prop_oneof![Just(OnInterrupt::Rerun), Just(OnInterrupt::Escalate)],
        prop_oneof![Just(None), Just(Some(0)), Just(Some(10))],
    )
        .prop_map(|(attempts, check, on_interrupt, steady)| {
            let mut plan = plan(&attempts, check, on_interrupt);
            plan.verify.steady = steady.map(Duration::from_secs);
            plan
        })
}

impl Shell {
    fn make(&mut self, step: &Move) {
        match step {
            Move::PassGuards => {
                self.apply(EventBody::GuardsPassed);
            }
            Move::Hold => {
                self.apply(EventBody::GuardHeld {
                    guard: Guard::Cooldown,
                    until: Some(at(self.now + 10)),
                    reason: "acted".to_owned(),
                });
            }
            Move::Wait(seconds) => self.now += seconds,
            Move::Timer => {
                self.apply(EventBody::TimerFired);
            }
            Move::Firing => {
                self.seen(AlertStatus::Firing, true);
            }
            Move::Resolve => {
                self.seen(AlertStatus::Resolved, false);
            }
            // A shell starts a run only when it was told to.
            Move::StartRun => {
                if matches!(self.incident.phase, Phase::Starting { .. }) {
                    self.start_run();
                }
            }
            Move::Act => {
                if let Phase::Running { run, .. } = self.incident.phase {
                    self.act(run);
                }
            }
            Move::EndRun(result) => {
                if let Phase::Running { run, .. } = self.incident.phase {
                    self.end_run(run, result.clone());
                }
            }
            Move::EndOtherRun => {
                let run = RunId {
                    incident: self.incident.id,
                    number: 999,
                };
                self.end_run(run, changed());
            }
            Move::Verified(true) => {
                self.apply(EventBody::VerificationPassed {
                    detail: "200".to_owned(),
                });
            }
            Move::Verified(false) => {
                self.apply(not_verified());
            }
            Move::NotKnown => {
                self.apply(not_known());
            }
            Move::Restart => {
                self.incident = Incident::fold(&self.events).unwrap();
                if let Phase::Running { run, .. } = self.incident.phase {
                    self.apply(EventBody::RunInterrupted { run });
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_promises_hold_whatever_happens(
        plan in plans(),
        script in prop::collection::vec(moves(), 0..60),
    ) {
        let most_runs = plan.steps.iter().map(|step| step.attempts).sum::<u32>() + MAX_INTERRUPTIONS;
        let mut shell = Shell::new(plan);
        for step in &script {
            let before = shell.incident.clone();
            let said = shell.commands.len();
            shell.make(step);
            let commands = &shell.commands[said..];

            // The state is the fold of the events, and survives a write and a read.
            prop_assert_eq!(&Incident::fold(&shell.events).unwrap(), &shell.incident);
            let written = serde_json::to_string(&shell.events).unwrap();
            let read: Vec<Event> = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(&read, &shell.events);

            // An end is an end.
            if before.ended() {
                prop_assert_eq!(&before.phase, &shell.incident.phase);
                prop_assert!(commands.is_empty());
            }
            // A resolved notification never starts a run, and nor does a repeat.
            let starts = commands.iter().any(|command| matches!(command, Command::StartRun { .. }));
            if matches!(step, Move::Resolve | Move::Firing) {
                prop_assert!(!starts);
            }
            // Nothing is started for an alert that has resolved.
            if before.resolved() && shell.incident.resolved() {
                prop_assert!(!starts);
            }
            prop_assert!(shell.incident.runs <= most_runs);
            // The promise behind the word: verified, or the alert itself is over.
            if shell.end() == Some(End::Healed) && before.end_of() != Some(End::Healed) {
                let verified = matches!(step, Move::Verified(true));
                prop_assert!(shell.incident.resolved() || verified);
                // And where it takes a while, the alert's word alone is none.
                if !shell.incident.plan.verify.steady().is_zero() {
                    prop_assert!(verified || matches!(step, Move::NotKnown));
                }
            }
            if shell.end() == Some(End::Cleared) {
                prop_assert!(shell.incident.acted_at.is_none());
                prop_assert!(shell.incident.resolved());
            }
        }
    }

    #[test]
    fn every_incident_comes_to_an_end(
        plan in plans(),
        script in prop::collection::vec(moves(), 0..30),
    ) {
        let mut shell = Shell::new(plan);
        for step in &script {
            shell.make(step);
        }
        // From wherever it is, a shell that does what it is told reaches an end.
        for _ in 0..200 {
            match shell.incident.phase {
                Phase::Pending(_) | Phase::Held(_) => shell.make(&Move::PassGuards),
                Phase::Starting { .. } => shell.make(&Move::StartRun),
                Phase::Running { .. } => shell.make(&Move::EndRun(failed(FailureClass::Retryable))),
                Phase::Verifying { .. } => shell.make(&Move::Verified(false)),
                Phase::BackingOff { .. } => {
                    shell.make(&Move::Wait(5));
                    shell.make(&Move::Timer);
                }
                Phase::Ended { .. } => break,
                Phase::AwaitingApproval { .. } | Phase::Watching | Phase::Escalating { .. } => {
                    unreachable!("the plans here act on their own and tell nobody")
                }
            }
        }
        prop_assert!(shell.incident.ended());
        prop_assert_eq!(shell.incident.resume(), vec![Command::Release]);
    }
}

trait EndOf {
    fn end_of(&self) -> Option<End>;
}

impl EndOf for Incident {
    fn end_of(&self) -> Option<End> {
        match self.phase {
            Phase::Ended { end, .. } => Some(end),
            _ => None,
        }
    }
}
