//! What the engine does with people and with policies that change: who is told of what, and
//! under which version of its policy an incident is.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sentinel_core::alert::AlertStatus;
use sentinel_core::engine::{Action, Engine, Finding, Input, Operator, Order, Settings, Turn};
use sentinel_core::event::{
    Event, EventBody, FailureClass, Notice, PlannedEffect, RunMode, RunResult, Silence,
};
use sentinel_core::guard::limits::EffectWindows;
use sentinel_core::id::{IncidentId, RunId};
use sentinel_core::incident::{Incident, Phase, later};
use sentinel_core::policy::{Environment, PolicySet};
use sentinel_core::record::{Accepted, Recovered};
use sentinel_core::rehearsal::Past;
use sentinel_core::timeline::briefing;

use super::support::{Stage, alert, at, policies, web};

/// An engine with a memory and a clock, and everything that it asked for.
struct Play {
    engine: Engine,
    stage: Stage,
    effects: EffectWindows,
    now: Timestamp,
    accepted: u64,
    events: Vec<Event>,
    orders: Vec<Order>,
    replies: Vec<Result<String, String>>,
}

fn policy(more: &str) -> String {
    web("labels.container", more)
}

const TELLS: &str =
    "    escalate: { plugin: notify, params: { kind: slack, url: 'http://chat/' } }\n";

impl Play {
    fn new(text: &str) -> Self {
        let settings = Settings::default();
        Self {
            effects: EffectWindows::new(settings.effects.clone(), &[]),
            engine: Engine::new(settings),
            stage: Stage {
                policies: policies(text),
                past: Past::default(),
            },
            now: at(0),
            accepted: 0,
            events: Vec::new(),
            orders: Vec::new(),
            replies: Vec::new(),
        }
    }

    fn take(&mut self, turn: Turn) {
        self.stage.past.commit(&turn.append);
        self.events.extend(turn.append.events);
        let replies = turn.replies.into_iter();
        self.replies
            .extend(replies.map(|(_, reply)| reply.map_err(|error| error.to_string())));
        for action in turn.actions {
            if let Action::Run(order) = action {
                self.orders.push(*order);
            }
        }
    }

    fn input(&mut self, input: impl Into<Option<Input>>) {
        let turn = self
            .engine
            .turn(input.into(), self.now, &self.stage, &self.effects, false);
        self.take(turn);
    }

    fn wait(&mut self, seconds: u64) {
        self.now = later(self.now, Duration::from_secs(seconds));
        self.input(None);
    }

    fn alert(&mut self, labels: &[(&str, &str)], status: AlertStatus) {
        let alert = alert(labels, at(-1_000), status);
        let repeat = self.stage.past.accept(&alert, self.now);
        self.accepted += 1;
        self.input(Input::Accepted(Accepted {
            seq: self.accepted,
            alert: Arc::new(alert),
            received_at: self.now,
            repeat,
        }));
    }

    fn down(&mut self) {
        self.alert(
            &[("alertname", "Down"), ("container", "web")],
            AlertStatus::Firing,
        );
    }

    fn up(&mut self) {
        self.alert(
            &[("alertname", "Down"), ("container", "web")],
            AlertStatus::Resolved,
        );
    }

    fn change(&mut self, text: &str) {
        self.stage.policies = policies(text);
        self.input(Input::PoliciesChanged);
    }

    /// The run that was asked for last.
    fn last(&self) -> &Order {
        self.orders.last().unwrap()
    }

    fn end(&mut self, run: RunId, result: RunResult) {
        self.input(Input::RunEnded { run, result });
    }

    fn ended_well(&mut self) {
        let run = self.last().run;
        self.end(run, changed());
    }

    /// The run that was asked for last begins an effect, or plans one.
    fn acts(&mut self) {
        let (run, dry) = (self.last().run, self.last().mode == RunMode::Dry);
        let request = serde_json::from_value(serde_json::json!({
            "call": "docker.restart", "host": "local", "container": "web", "grace_ms": 1000
        }))
        .unwrap();
        let body = if dry {
            EventBody::Planned {
                run,
                call: 1,
                effect: PlannedEffect { request, on: None },
                result: Ok(sentinel_core::capability::Response::Done),
            }
        } else {
            EventBody::EffectBegan {
                run,
                call: 1,
                request,
                on: None,
            }
        };
        let event = Event {
            at: self.now,
            incident: run.incident,
            body,
        };
        self.stage.past.note(&event);
        self.events.push(event.clone());
        self.input(Input::Noted(event));
    }

    fn of(&self, id: u64) -> Vec<Event> {
        let of = |event: &&Event| event.incident == IncidentId(id);
        self.events.iter().filter(of).cloned().collect()
    }

    /// An incident as its events have it.
    fn incident(&self, id: u64) -> Incident {
        let incident = Incident::fold(&self.of(id)).unwrap();
        if let Some(known) = self.engine.incident(IncidentId(id)) {
            assert_eq!(*known, incident, "the state is the fold of the events");
        }
        incident
    }

    fn state(&self, id: u64) -> &'static str {
        self.incident(id).phase.as_str()
    }

    fn reason(&self, id: u64) -> String {
        match self.incident(id).phase {
            Phase::Ended { reason, .. } => reason,
            phase => panic!("{phase:?}"),
        }
    }

    fn kinds(&self, id: u64) -> Vec<&'static str> {
        self.of(id).iter().map(|event| event.body.kind()).collect()
    }

    /// What people were told, in order, and why.
    fn told(&self) -> Vec<(Notice, String)> {
        let tells = self.orders.iter().filter(|order| order.rung.step == 0);
        tells
            .map(|order| {
                let events = self.of(order.run.incident.0);
                let briefing = briefing(&events, order.run).unwrap().unwrap();
                (briefing.notice, briefing.reason)
            })
            .collect()
    }

    fn notices(&self) -> Vec<Notice> {
        self.told().into_iter().map(|(notice, _)| notice).collect()
    }

    /// Another daemon goes on from what is on record.
    fn restart(&mut self) {
        let all: std::collections::BTreeSet<_> =
            self.events.iter().map(|event| event.incident.0).collect();
        let (mut open, mut owing) = (Vec::new(), Vec::new());
        for id in &all {
            let incident = self.incident(*id);
            if !incident.ended() {
                open.push(self.of(*id));
            } else if incident.owes_end() {
                owing.push(self.of(*id));
            }
        }
        let recovered = Recovered {
            open,
            owing,
            last_incident: all.last().copied().unwrap_or(0),
            ..Recovered::default()
        };
        self.engine = Engine::new(Settings::default());
        let turn = self
            .engine
            .recover(recovered, self.now, &self.stage, &self.effects);
        self.take(turn);
    }
}

fn changed() -> RunResult {
    RunResult::Changed {
        message: "done".to_owned(),
    }
}

fn failed(class: FailureClass) -> RunResult {
    RunResult::Failed {
        class,
        message: "no".to_owned(),
    }
}

#[test]
fn of_an_alert_that_its_policy_does_not_fit_a_person_hears() {
    // Neither a label that is missing nor one that makes no target keeps them from hearing.
    for labels in [
        vec![("alertname", "Down")],
        vec![("alertname", "Down"), ("container", "a/b")],
    ] {
        let tells = "    mode: auto
    escalate: { plugin: notify, params: { kind: slack, url: 'http://chat/', message: 'of {{ labels.container }} and {{ labels.team }}', headers: { A: b, T: '{{ labels.team }}' } } }\n";
        let mut play = Play::new(&policy(tells));
        play.alert(&labels, AlertStatus::Firing);
        assert_eq!(play.state(1), "escalating");
        let order = play.last();
        assert_eq!((order.rung.step, order.plugin.as_str()), (0, "notify"));
        // What fits is what they are told with.
        let params = serde_json::Value::Object(order.params.clone());
        assert_eq!(
            params,
            serde_json::json!({ "kind": "slack", "url": "http://chat/", "headers": { "A": "b" } })
        );
        assert!(
            order.plan.grants.docker.is_some(),
            "it may do what the policy grants"
        );
        let (_, reason) = play.told().remove(0);
        assert!(reason.contains("does not fit the alert"), "{reason}");
        assert!(
            reason.contains("`message`") && reason.contains("`headers.T`"),
            "{reason}"
        );
        play.ended_well();
        assert_eq!(play.state(1), "escalated");
        assert!(!play.kinds(1).contains(&"untold"));
    }
}

#[test]
fn an_escalation_whose_params_do_not_fit_keeps_nothing_from_being_healed() {
    let tells = "    mode: auto
    escalate: { plugin: notify, params: { kind: slack, url: 'http://chat/', message: '{{ labels.team }}' } }\n";
    let mut play = Play::new(&policy(tells));
    play.down();
    assert_eq!(play.last().plugin.as_str(), "docker-restart");
    play.end(play.last().run, failed(FailureClass::Denied));
    let (notice, reason) = play.told().remove(0);
    assert_eq!(notice, Notice::Escalation);
    assert!(reason.contains("`message`"), "{reason}");
}

/// Why nobody was told, each time, of the first incident.
fn silence(play: &Play) -> Vec<Silence> {
    let untold = |event: &Event| match &event.body {
        EventBody::Untold { why, .. } => Some(*why),
        _ => None,
    };
    play.of(1).iter().filter_map(untold).collect()
}

#[test]
fn what_nobody_is_told_of_is_on_record_with_the_reason() {
    // No `escalate`.
    let mut play = Play::new(&policy("    mode: auto\n"));
    play.down();
    play.end(play.last().run, failed(FailureClass::Denied));
    assert_eq!(
        (play.state(1), silence(&play)),
        ("escalated", vec![Silence::Unnamed])
    );
    // A shadow.
    let mut play = Play::new(&policy(TELLS));
    play.down();
    play.end(play.last().run, failed(FailureClass::Denied));
    assert_eq!(
        (play.state(1), silence(&play)),
        ("escalated", vec![Silence::Shadow])
    );
    // Whoever was to be told did not hear.
    let mut play = Play::new(&policy(&format!("    mode: auto\n{TELLS}")));
    play.down();
    play.end(play.last().run, failed(FailureClass::Denied));
    for attempt in 1..=3 {
        assert_eq!(play.last().rung.attempt, attempt);
        assert!(silence(&play).is_empty());
        play.end(play.last().run, failed(FailureClass::Retryable));
    }
    assert_eq!(
        (play.state(1), silence(&play)),
        ("escalated", vec![Silence::Failed])
    );
    assert!(play.reason(1).contains("nobody could be told: no"));
}

#[test]
fn a_shadow_that_is_made_auto_acts_on_what_fires_now() {
    let mut play = Play::new(&policy(""));
    play.down();
    play.acts();
    play.ended_well();
    assert_eq!(play.state(1), "watching");
    play.change(&policy("    mode: auto\n"));
    let order = play.last();
    assert_eq!((order.run.number, order.mode), (2, RunMode::Live));
    assert!(play.kinds(1).contains(&"policy-changed"));
    // The same policy once more is no news.
    let before = play.events.len();
    play.input(Input::PoliciesChanged);
    assert_eq!(play.events.len(), before);
}

#[test]
fn a_policy_that_changes_while_its_dry_run_is_under_way_counts_afterwards() {
    let mut play = Play::new(&policy(""));
    play.down();
    play.change(&policy("    mode: auto\n"));
    assert_eq!((play.orders.len(), play.state(1)), (1, "running"));
    play.ended_well();
    assert_eq!(
        (play.last().mode, play.state(1)),
        (RunMode::Live, "running")
    );
}

#[test]
fn what_a_window_held_goes_on_when_the_window_is_taken_out() {
    let window = "    mode: auto\n    guards: { maintenance: [{ from: 2020-01-01T00:00:00Z, to: 2040-01-01T00:00:00Z }] }\n";
    let mut play = Play::new(&policy(window));
    play.down();
    assert_eq!(play.state(1), "held");
    play.change(&policy("    mode: auto\n"));
    assert_eq!((play.state(1), play.orders.len()), ("running", 1));
}

#[test]
fn what_acts_goes_on_as_it_was() {
    let mut play = Play::new(&policy("    mode: auto\n"));
    play.down();
    play.acts();
    let digest = play.incident(1).plan.digest;
    play.change("policies: []");
    play.end(play.last().run, failed(FailureClass::Retryable));
    assert_eq!(play.incident(1).plan.digest, digest);
    assert!(!play.kinds(1).contains(&"policy-gone"));
    assert_eq!(play.state(1), "escalated");
}

#[test]
fn a_plan_that_waits_is_made_anew_and_its_approval_counts_for_nothing() {
    let mut play = Play::new(&policy(&format!(
        "    mode: approve\n    approval: {{ people: 2 }}\n{TELLS}"
    )));
    play.down();
    play.acts();
    play.ended_well();
    let Phase::AwaitingApproval { plan, .. } = play.incident(1).phase else {
        panic!("{}", play.state(1));
    };
    let approve = |by: &str| Input::Operator {
        token: 1,
        operator: Operator::Approve {
            incident: IncidentId(1),
            plan,
            by: by.to_owned(),
        },
    };
    play.input(approve("ann"));
    let beside = play.last().run;
    play.change(&policy(
        "    mode: approve\n    approval: { people: 2, expires: 1h }\n",
    ));
    let dry = play.last().run;
    assert_eq!((play.last().mode, play.state(1)), (RunMode::Dry, "running"));
    assert_ne!(beside, dry);
    play.acts();
    play.end(dry, changed());
    play.input(approve("bob"));
    assert_eq!(
        play.state(1),
        "awaiting-approval",
        "ann approved another plan"
    );
    play.input(approve("ann"));
    assert_eq!(play.last().mode, RunMode::Apply);
}

#[test]
fn a_policy_that_is_gone_cancels_and_is_believed_again_when_it_is_back() {
    for gone in [
        "policies: []".to_owned(),
        policy("    mode: off\n"),
        policy("").replace("Down", "Other"),
        policy("").replace("local/", "local/other-"),
    ] {
        let mut play = Play::new(&policy(""));
        play.down();
        play.ended_well();
        assert_eq!(play.state(1), "watching");
        play.change(&gone);
        assert_eq!(play.state(1), "cancelled", "{gone}");
        assert!(
            play.reason(1).starts_with("policy web "),
            "{}",
            play.reason(1)
        );
        play.change(&policy(""));
        play.wait(300);
        play.down();
        assert_eq!(play.kinds(2)[..2], ["opened", "again"]);
        // Once: the second is open, and told of it.
        play.down();
        assert!(play.of(3).is_empty());
    }
}

#[test]
fn what_was_escalated_with_nothing_done_is_believed_once_for_each_version() {
    let denied = |play: &mut Play| play.end(play.last().run, failed(FailureClass::Denied));
    let mut play = Play::new(&policy("    mode: auto\n"));
    play.down();
    denied(&mut play);
    play.wait(300);
    play.down();
    assert!(play.of(2).is_empty(), "the same version would do the same");
    play.change(&policy("    mode: auto\n    ttl: 2h\n"));
    play.down();
    assert_eq!(play.kinds(2)[..2], ["opened", "again"]);
    denied(&mut play);
    play.wait(300);
    play.down();
    assert!(play.of(3).is_empty());
    // What acted is not done again.
    play.change(&policy("    mode: auto\n    ttl: 3h\n"));
    play.down();
    play.acts();
    denied(&mut play);
    assert_eq!(play.state(3), "escalated");
    play.change(&policy("    mode: auto\n    ttl: 4h\n"));
    play.wait(300);
    play.down();
    assert!(play.of(4).is_empty());
}

#[test]
fn a_policy_that_was_changed_while_nobody_looked_counts_at_the_start() {
    let mut play = Play::new(&policy(""));
    play.down();
    play.ended_well();
    play.stage.policies = policies(&policy("    mode: auto\n"));
    play.restart();
    assert_eq!(
        (play.last().mode, play.state(1)),
        (RunMode::Live, "running")
    );
    // And what is gone by then is told so, once.
    let mut play = Play::new(&policy(""));
    play.down();
    play.ended_well();
    play.stage.policies = policies("policies: []");
    play.restart();
    assert_eq!(play.state(1), "cancelled");
}

#[test]
fn whoever_may_approve_is_told_and_is_told_of_the_end() {
    let mut play = Play::new(&policy(&format!("    mode: approve\n{TELLS}")));
    play.down();
    play.acts();
    play.ended_well();
    assert_eq!(play.state(1), "awaiting-approval");
    let told = play.told();
    assert_eq!((told.len(), told[0].0), (1, Notice::Approval));
    assert!(
        told[0].1.contains("`sentinel approve 1 --plan "),
        "{}",
        told[0].1
    );
    assert_eq!(play.engine.waiting().0, 1);
    // While they are told, the plan can be approved; and it is told once.
    play.wait(60);
    assert_eq!(play.notices(), [Notice::Approval]);
    play.ended_well();
    play.restart();
    assert_eq!(play.notices(), [Notice::Approval]);
    play.up();
    assert_eq!(play.state(1), "cleared");
    assert_eq!(play.notices(), [Notice::Approval, Notice::End]);
    assert_eq!(play.engine.waiting().0, 0);
    play.ended_well();
    play.up();
    play.restart();
    play.wait(600);
    assert_eq!(play.notices(), [Notice::Approval, Notice::End]);
}

#[test]
fn a_policy_can_keep_quiet_of_its_plans() {
    let quiet = format!("    mode: approve\n    approval: {{ tell: false }}\n{TELLS}");
    let mut play = Play::new(&policy(&quiet));
    play.down();
    play.acts();
    play.ended_well();
    assert_eq!(play.state(1), "awaiting-approval");
    assert!(play.told().is_empty());
    // That nobody approved it is another matter.
    play.wait(1801);
    assert_eq!(play.notices(), [Notice::Escalation]);
}

#[test]
fn what_is_held_for_long_is_told_once_and_so_is_its_end() {
    let window = "    mode: auto\n    guards: { maintenance: [{ from: 2020-01-01T00:00:00Z, to: 2040-01-01T00:00:00Z }] }\n";
    let mut play = Play::new(&policy(&format!("{window}{TELLS}")));
    play.down();
    play.wait(599);
    assert!(play.told().is_empty());
    play.wait(1);
    let told = play.told();
    assert_eq!(told[0].0, Notice::Held);
    assert!(told[0].1.contains("by maintenance"), "{}", told[0].1);
    assert_eq!(play.state(1), "held");
    play.ended_well();
    play.wait(3600);
    play.restart();
    play.wait(3600);
    assert_eq!(play.notices(), [Notice::Held]);
    play.up();
    assert_eq!(
        (play.state(1), play.notices()),
        ("cleared", vec![Notice::Held, Notice::End])
    );

    // Whoever does not want to hear does not, and what resolves in time is not told of.
    let off = TELLS.replace("plugin: notify", "plugin: notify, held_after: off");
    let mut play = Play::new(&policy(&format!("{window}{off}")));
    play.down();
    play.wait(7200);
    assert!(play.told().is_empty());
    let mut play = Play::new(&policy(&format!("{window}{TELLS}")));
    play.down();
    play.wait(300);
    play.up();
    play.wait(7200);
    assert!(play.told().is_empty());
}

#[test]
fn what_waits_for_long_and_names_nobody_is_on_record_as_untold() {
    let window =
        "    guards: { maintenance: [{ from: 2020-01-01T00:00:00Z, to: 2040-01-01T00:00:00Z }] }\n";
    // Held, for as long as others who name somebody wait.
    let mut play = Play::new(&policy(&format!("    mode: auto\n{window}")));
    play.down();
    play.wait(599);
    assert!(silence(&play).is_empty());
    play.wait(1);
    assert_eq!(
        (play.state(1), silence(&play)),
        ("held", vec![Silence::Unnamed])
    );
    assert_eq!(play.kinds(1).last(), Some(&"untold"));
    play.wait(7200);
    play.restart();
    play.wait(7200);
    assert_eq!(silence(&play).len(), 1, "once");
    assert_eq!((play.state(1), play.told().len()), ("held", 0));

    // What resolves in time is nothing to hear of, and a shadow tells nobody.
    let mut play = Play::new(&policy(&format!("    mode: auto\n{window}")));
    play.down();
    play.wait(300);
    play.up();
    play.wait(7200);
    assert!(silence(&play).is_empty());
    let mut play = Play::new(&policy(window));
    play.down();
    play.wait(7200);
    assert!(silence(&play).is_empty());
}

#[test]
fn a_plan_that_waits_for_long_and_names_nobody_is_on_record_as_untold() {
    let mut play = Play::new(&policy("    mode: approve\n"));
    play.down();
    play.acts();
    play.ended_well();
    play.wait(599);
    assert_eq!(
        (play.state(1), silence(&play)),
        ("awaiting-approval", vec![])
    );
    play.restart();
    play.wait(1);
    assert_eq!(
        (play.state(1), silence(&play)),
        ("awaiting-approval", vec![Silence::Unnamed])
    );
    play.wait(1199);
    assert_eq!(silence(&play).len(), 1, "once");
    // That nobody approved it is another matter.
    play.wait(1);
    assert_eq!((play.state(1), silence(&play).len()), ("escalated", 2),);

    // Who keeps quiet of plans does not miss them.
    let mut play = Play::new(&policy(
        "    mode: approve\n    approval: { tell: false }\n",
    ));
    play.down();
    play.acts();
    play.ended_well();
    play.wait(1700);
    assert_eq!(
        (play.state(1), silence(&play)),
        ("awaiting-approval", vec![])
    );
}

#[test]
fn a_breaker_that_opens_for_a_policy_that_names_nobody_is_on_record_as_untold() {
    let breaker =
        "    mode: auto\n    guards: { breaker: { failures: 1, open_for: 1h }, cooldown: 1s }\n";
    let mut play = Play::new(&policy(breaker));
    play.down();
    play.end(play.last().run, failed(FailureClass::Denied));
    assert_eq!(play.state(1), "escalated");
    play.wait(60);
    let other = [("alertname", "Down"), ("container", "web"), ("by", "probe")];
    play.alert(&other, AlertStatus::Firing);
    assert_eq!(play.state(2), "held");
    let untold = play
        .kinds(2)
        .iter()
        .filter(|kind| **kind == "untold")
        .count();
    assert_eq!(untold, 1, "{:?}", play.kinds(2));
    play.wait(1200);
    let untold = play
        .kinds(2)
        .iter()
        .filter(|kind| **kind == "untold")
        .count();
    assert_eq!(untold, 1, "once");
}

/// A play in which a person was told that somebody has to look.
fn escalated() -> Play {
    let mut play = Play::new(&policy(&format!("    mode: auto\n{TELLS}")));
    play.down();
    play.end(play.last().run, failed(FailureClass::Denied));
    play.ended_well();
    assert_eq!(
        (play.state(1), play.notices()),
        ("escalated", vec![Notice::Escalation])
    );
    play
}

#[test]
fn who_was_told_of_an_escalation_is_told_when_the_alert_resolves() {
    for restarts in [false, true] {
        let mut play = escalated();
        if restarts {
            play.restart();
        }
        assert_eq!(play.notices().len(), 1);
        play.wait(60);
        play.up();
        let told = play.told();
        assert_eq!(told.len(), 2);
        assert_eq!(
            (told[1].0, told[1].1.as_str()),
            (Notice::End, "the alert resolved")
        );
        assert_eq!(
            play.last().params,
            play.orders[1].params,
            "in the same place"
        );
        // A daemon that is killed meanwhile goes on with it, and does not begin anew.
        if restarts {
            play.restart();
            assert!(play.last().resume);
        }
        play.ended_well();
        play.up();
        play.restart();
        play.up();
        assert_eq!(play.orders.iter().filter(|order| !order.resume).count(), 3);
        assert_eq!(play.state(1), "escalated");
    }
}

#[test]
fn a_later_incident_that_heals_the_target_is_an_end_too() {
    let mut play = escalated();
    // The same alert of another job: its own episode.
    let other = [("alertname", "Down"), ("container", "web"), ("job", "b")];
    play.wait(300);
    play.alert(&other, AlertStatus::Firing);
    play.acts();
    play.ended_well();
    let Phase::Verifying { deadline, .. } = play.incident(2).phase else {
        panic!("{}", play.state(2));
    };
    play.input(Input::Verified {
        incident: IncidentId(2),
        deadline,
        finding: Finding::Holds("it runs".to_owned()),
    });
    assert_eq!(play.state(2), "healed");
    let (notice, reason) = play.told().pop().unwrap();
    assert_eq!(
        (notice, reason.as_str()),
        (Notice::End, "incident 2 healed it")
    );
    play.ended_well();
    play.up();
    assert_eq!(play.notices().len(), 2);
}

#[test]
fn nobody_is_told_of_the_end_of_what_nobody_heard_of() {
    let mut play = Play::new(&policy(&format!("    mode: auto\n{TELLS}")));
    play.down();
    play.end(play.last().run, failed(FailureClass::Denied));
    play.end(play.last().run, failed(FailureClass::Permanent));
    assert_eq!(play.state(1), "escalated");
    play.wait(60);
    play.up();
    assert_eq!(play.notices(), [Notice::Escalation]);
}

#[test]
fn a_policy_that_says_nothing_takes_a_fourth_time_for_flapping() {
    let heal = |play: &mut Play, id: u64| {
        let job = id.to_string();
        let labels = [
            ("alertname", "Down"),
            ("container", "web"),
            ("job", job.as_str()),
        ];
        play.alert(&labels, AlertStatus::Firing);
        if play.state(id) != "running" {
            return false;
        }
        play.acts();
        play.ended_well();
        play.alert(&labels, AlertStatus::Resolved);
        let Phase::Verifying { deadline, .. } = play.incident(id).phase else {
            panic!("{}", play.state(id));
        };
        play.input(Input::Verified {
            incident: IncidentId(id),
            deadline,
            finding: Finding::Holds("it runs".to_owned()),
        });
        play.wait(120);
        true
    };
    let mut play = Play::new(&policy("    mode: auto\n"));
    assert!((1..=3).all(|id| heal(&mut play, id)));
    assert!(!heal(&mut play, 4));
    assert_eq!(play.state(4), "held");
    let mut play = Play::new(&policy("    mode: auto\n    guards: { flapping: off }\n"));
    assert!((1..=6).all(|id| heal(&mut play, id)));
}

#[test]
fn the_keys_that_say_who_is_told_are_checked_with_their_place() {
    let environment = Environment {
        docker_hosts: ["local".to_owned()].into(),
        ..Environment::default()
    };
    for (more, column, said) in [
        (
            "    escalate: { plugin: notify, held_after: 0s }\n",
            45,
            "1s to 30d",
        ),
        (
            "    escalate: { plugin: notify, held_after: soon }\n",
            45,
            "duration",
        ),
        (
            "    mode: approve\n    approval: { tell: maybe }\n",
            23,
            "true or false",
        ),
        ("    guards: { flapping: never }\n", 25, "`flapping: off`"),
    ] {
        let text = policy(more);
        let errors = PolicySet::parse(&[("p.yaml", &text)], &environment).unwrap_err();
        assert_eq!(errors.len(), 1, "{more}: {errors:?}");
        let whole = format!("{} {:?}", errors[0].message(), errors[0].help());
        assert!(whole.contains(said), "{more}: {whole}");
        assert_eq!(
            errors[0].column(),
            column,
            "{more}: {}",
            errors[0].one_line()
        );
    }
    for good in [
        "    escalate: { plugin: notify, held_after: off }\n",
        "    mode: approve\n    approval: { tell: false }\n",
        "    guards: { flapping: off }\n",
    ] {
        policies(&policy(good));
    }
    // What a policy says that it would have been anyhow makes no other version of it.
    let digest = |more: &str| policies(&policy(more)).policies()[0].digest;
    assert_eq!(digest(""), digest("    guards: { flapping: 3/30m }\n"));
    assert_eq!(
        digest(TELLS),
        digest(&TELLS.replace("notify,", "notify, held_after: 10m,"))
    );
    assert_ne!(
        digest(TELLS),
        digest(&TELLS.replace("notify,", "notify, held_after: off,"))
    );
}
