//! Rehearsals: the engine with a script for everything around it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sentinel_core::alert::{Alert, AlertStatus};
use sentinel_core::control::{ControlBody, ControlEvent, Scope};
use sentinel_core::engine::{Considered, Course, Engine, Settings};
use sentinel_core::event::{Event, Guard, RunMode};
use sentinel_core::guard::Verdict;
use sentinel_core::guard::limits::EffectWindows;
use sentinel_core::id::Digest;
use sentinel_core::incident::{End, Incident};
use sentinel_core::record::{Accepted, Append, IncidentRow};
use sentinel_core::rehearsal::suite::{Outcome, Side, Suite};
use sentinel_core::rehearsal::{
    Assumed, Found, Kind, Past, Recorded, Rehearsal, Summary, Trace, What, compare, look, summary,
};
use sentinel_core::report::{OtherEffect, report};

use super::support::{self, Stage, alert, at, policies, reports};

const NGINX: &str = include_str!("../../../../stack/sentinel/policies/nginx.yaml");
const NGINX_TESTS: &str = include_str!("../../../../stack/sentinel/policies-tests/nginx.yaml");
const MANUAL: &str = include_str!("../../../../docs/policy-tests.md");

fn suite(text: &str) -> Suite {
    Suite::parse("tests.yaml", text).unwrap_or_else(|errors| panic!("{}", reports(&errors)))
}

fn diff(outcome: &Outcome) -> String {
    let mut out = String::new();
    for line in &outcome.lines {
        let side = match line.side {
            Side::Both => ' ',
            Side::Expected => '-',
            Side::Got => '+',
        };
        writeln!(out, "{side} {}", line.text).unwrap();
    }
    out
}

/// Every test of the text passes against the policies.
fn check(policies_text: &str, tests: &str) {
    let set = Arc::new(policies(policies_text));
    let suite = suite(tests);
    assert!(!suite.tests().is_empty());
    for test in suite.tests() {
        let outcome = suite.run(test, &set);
        assert!(outcome.ok(), "{}:\n{}", test.name, diff(&outcome));
    }
}

/// One test against policies: `rest` is everything under it but its name.
fn one(policies_text: &str, rest: &str) -> Outcome {
    let set = Arc::new(policies(policies_text));
    let rest = rest.replace('\n', "\n    ");
    let suite = suite(&format!(
        "policies: [policies.yaml]\ntests:\n  - name: it\n    {rest}\n"
    ));
    suite.run(suite.tests().first().unwrap(), &set)
}

fn passes(policies_text: &str, rest: &str) {
    let outcome = one(policies_text, rest);
    assert!(outcome.ok(), "\n{}", diff(&outcome));
}

/// A policy for the alert `Down` on the container that it names.
fn web(more: &str) -> String {
    let more = more.replace('\n', "\n    ");
    support::web(
        "labels.container | default(\"web\")",
        &format!("    {more}\n"),
    )
}

const DOWN: &str = "alerts: [{ labels: { alertname: Down }, firing: 0s }]";

#[test]
fn the_policies_of_the_stack_do_what_their_tests_say() {
    check(NGINX, NGINX_TESTS);
}

#[test]
fn the_example_of_the_manual_is_true() {
    let blocks: Vec<_> = MANUAL
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    let [policy, tests, ..] = blocks.as_slice() else {
        panic!("the manual has fewer than two examples");
    };
    check(policy, tests);
}

#[test]
fn a_shadow_plans_and_watches() {
    passes(
        &web("mode: shadow"),
        "alerts: [{ labels: { alertname: Down }, firing: 0s, resolved: 5m }]
expect:
  - { at: 0s, run: docker-restart, mode: dry }
  - { at: 5m, end: cleared, reason: 'this shadow would have done: docker.restart local/web' }",
    );
}

#[test]
fn a_plan_is_carried_out_when_enough_people_have_approved_it() {
    passes(
        &web("mode: approve\napproval: { people: 2, expires: 1h }"),
        "alerts:
  - labels: { alertname: Down }
    annotations: { requested_by: ann }
    firing: 0s
controls:
  - { at: 1m, approve: { policy: web }, by: ann }
  - { at: 2m, approve: { policy: web }, by: bob }
  - { at: 3m, approve: { policy: web }, by: bob }
  - { at: 4m, approve: all, by: eve }
  - { at: 5m, approve: all, by: eve }
expect:
  - { at: 0s, run: docker-restart, mode: dry }
  - { at: 1s, approval: requested, until: 1h1s }
  - { at: 1m, refused: ann asked for this }
  - { at: 3m, refused: bob has approved this already }
  - { at: 4m, run: docker-restart, mode: apply }
  - { at: 4m2s, end: healed }
  - { at: 5m, refused: no such incident waits for approval }",
    );
}

#[test]
fn a_plan_that_nobody_approves_counts_as_denied() {
    passes(
        &web("mode: approve"),
        &format!(
            "{DOWN}
expect:
  - {{ at: 0s, run: docker-restart, mode: dry }}
  - {{ at: 1s, approval: requested, until: 30m1s }}
  - {{ at: 30m1s, end: escalated, reason: nobody approved }}"
        ),
    );
}

#[test]
fn a_rate_counts_over_all_targets() {
    let alerts = "alerts:
  - { labels: { alertname: Down, container: a }, firing: 0s }
  - { labels: { alertname: Down, container: b }, firing: 10s }
  - { labels: { alertname: Down, container: c }, firing: 20s }";
    passes(
        &web("mode: auto\nguards: { rate: 2/10m }"),
        &format!(
            "{alerts}
expect:
  - {{ at: 0s, run: docker-restart, target: docker://local/a }}
  - {{ at: 2s, end: healed }}
  - {{ at: 10s, run: docker-restart, target: docker://local/b }}
  - {{ at: 12s, end: healed }}
  - {{ at: 20s, held: rate, until: 10m, target: docker://local/c }}
  - {{ at: 10m, run: docker-restart, target: docker://local/c }}
  - {{ at: 10m2s, end: healed }}"
        ),
    );
    passes(
        &web("mode: auto\nguards: { rate: { max: 2/10m, then: drop } }"),
        &format!(
            "{alerts}
expect:
  - {{ run: docker-restart }}
  - {{ end: healed }}
  - {{ run: docker-restart }}
  - {{ end: healed }}
  - {{ at: 20s, end: suppressed, target: docker://local/c }}"
        ),
    );
}

#[test]
fn a_breaker_opens_after_failures_and_lets_one_try() {
    passes(
        &web("mode: auto\nguards: { cooldown: 1s, breaker: { failures: 2, open_for: 10m } }"),
        "alerts: [{ labels: { alertname: Down }, firing: [0s, 1m, 2m], resolved: [30s, 90s] }]
outcomes: [{ result: permanent }]
expect:
  - { at: 0s, run: docker-restart }
  - { at: 1s, end: escalated }
  - { at: 1m, run: docker-restart }
  - { at: 1m1s, end: escalated }
  # ten minutes from the end of the second
  - { at: 2m, held: breaker, until: 11m1s }
  - { at: 11m1s, run: docker-restart }
  - { at: 11m2s, end: escalated }",
    );
}

#[test]
fn a_storm_lasts_until_the_calm_is_over() {
    passes(
        &web(
            "mode: auto\nguards: { blast_radius: { max: 1, of: { labels: { app: web } }, calm: 5m } }",
        ),
        "alerts: [{ labels: { alertname: Down, container: a }, firing: 0s }]
fleets:
  - { labels: { app: web }, members: [a, b, c], ill: [a, b] }
  - { at: 2m, labels: { app: web }, members: [a, b, c], ill: [a] }
until: 30m
expect:
  - { at: 0s, held: blast-radius }
  # looked at every half a minute: too many were ill for the last time at 1m30s
  - { at: 6m30s, run: docker-restart }
  - { at: 6m32s, end: healed }",
    );
}

#[test]
fn maintenance_follows_the_calendar() {
    // The start is a Thursday at midnight.
    passes(
        &web("mode: auto\nguards: { maintenance: [{ days: [thu], from: '01:00', to: '02:00' }] }"),
        "alerts: [{ labels: { alertname: Down }, firing: 90m }]
expect:
  - { at: 90m, held: maintenance, until: 2h }
  - { at: 2h, run: docker-restart }
  - { at: 2h2s, end: healed }",
    );
}

#[test]
fn a_run_that_the_alert_overtakes_is_stopped() {
    passes(
        &web("mode: auto"),
        "alerts: [{ labels: { alertname: Down }, firing: 0s, resolved: 5s }]
outcomes: [{ takes: 20s }]
expect:
  - { at: 0s, run: docker-restart }
  # what it had done is verified all the same
  - { at: 6s, end: healed }",
    );
}

#[test]
fn a_run_that_takes_too_long_has_failed() {
    let policy = web("mode: auto").replace(
        "{ plugin: docker-restart }",
        "{ plugin: docker-restart, timeout: 5s, attempts: 2, backoff: 1s }",
    );
    passes(
        &policy,
        &format!(
            "{DOWN}
outcomes: [{{ takes: 1h }}]
expect:
  - {{ at: 0s, run: docker-restart }}
  - {{ at: 6s, run: docker-restart, attempt: 2 }}
  - {{ at: 11s, end: escalated, reason: did not end within 5s }}"
        ),
    );
}

#[test]
fn what_differs_is_shown_beside_each_other() {
    let outcome = one(
        &web("mode: auto"),
        &format!(
            "{DOWN}
expect:
  - {{ at: 0s, run: docker-restart, attempt: 1 }}
  - {{ at: 1s, held: cooldown, until: 1m }}
  - {{ at: 5s, end: healed }}"
        ),
    );
    assert!(!outcome.ok());
    assert_eq!(
        diff(&outcome),
        "  0s       run: docker-restart, step: 1, attempt: 1, policy: web, target: docker://local/web
- 1s       held: cooldown, until: 1m
- 5s       end: healed
+ 2s       end: healed (assumed to be healed), policy: web, target: docker://local/web
"
    );
    let lines: Vec<_> = outcome.lines.iter().map(|line| line.line).collect();
    assert_eq!(lines, [Some(6), Some(7), Some(8), None]);
}

#[test]
fn a_decision_that_nobody_expected_fails_the_test() {
    let outcome = one(&web("mode: auto"), &format!("{DOWN}\nexpect: []"));
    assert!(!outcome.ok());
    assert!(outcome.lines.iter().all(|line| line.side == Side::Got));
    // And so does one that is expected of nothing.
    let outcome = one(
        &web("mode: off"),
        &format!("{DOWN}\nexpect: [{{ run: docker-restart }}]"),
    );
    assert_eq!(
        diff(&outcome),
        "- any time run: docker-restart\n+ 0s       no_match: Down\n"
    );
}

#[test]
fn mistakes_in_a_file_of_tests_have_places() {
    let with = |rest: &str| format!("policies: [p.yaml]\ntests:\n  - name: it\n    {rest}\n");
    for (text, line, says) in [
        (String::new(), 1, "empty"),
        ("tests: []\n".to_owned(), 1, "`policies`"),
        (
            "policies: [p.yaml]\ntests: []\n".to_owned(),
            2,
            "empty list",
        ),
        (
            "policies: p.yaml\ntests: [{}]\n".to_owned(),
            1,
            "a list of policy files",
        ),
        (with(DOWN), 3, "missing key `expect`"),
        (with("expect: [{ runs: x }]"), 4, "did you mean `run`"),
        (with("expect: [{ at: 5, end: healed }]"), 4, "no unit"),
        (with("expect: [{ at: 5s }]"), 4, "says nothing"),
        (
            with("expect: [{ run: x, end: healed }]"),
            4,
            "more than one of run, end",
        ),
        (with("expect: [{ end: heald }]"), 4, "did you mean `healed`"),
        (
            with("expect: [{ held: cooldwon }]"),
            4,
            "did you mean `cooldown`",
        ),
        (
            with("expect: [{ held: rate, step: 1 }]"),
            4,
            "`step` does not fit `held`",
        ),
        (with("expect: [{ end: healed, target: nginx }]"), 4, "nginx"),
        (
            with("expect: []\n    alerts: [{ labels: { a: 1 }, firing: 0s }]"),
            5,
            "quote it",
        ),
        (
            with("expect: []\n    alerts: [{ labels: { a: b } }]"),
            5,
            "neither fires nor resolves",
        ),
        (
            with("expect: []\n    controls: [{ pause: all }]"),
            5,
            "missing key `at`",
        ),
        (
            with("expect: []\n    controls: [{ at: 0s, resume: all, for: 2h }]"),
            5,
            "does not fit `resume`",
        ),
        (
            with("expect: []\n    controls: [{ at: 0s, pause: everything }]"),
            5,
            "`all` or a map",
        ),
        (
            with("expect: []\n    fleets: [{ labels: { a: b }, members: [x], ill: [y] }]"),
            5,
            "no member",
        ),
        (
            with("expect: []\n    outcomes: [{ result: fine }]"),
            5,
            "unknown result",
        ),
        (
            "policies: [p.yaml]\nstart: noon\ntests: []".to_owned(),
            2,
            "noon",
        ),
    ] {
        let Err(errors) = Suite::parse("t.yaml", &text) else {
            panic!("{text}");
        };
        let found = errors
            .iter()
            .any(|error| error.line() == line && error.report(false).contains(says));
        assert!(found, "line {line} {says}: {text}\n{}", reports(&errors));
    }
}

fn down(container: &str, began: i64, status: AlertStatus) -> Arc<Alert> {
    let labels = [("alertname", "Down"), ("container", container)];
    Arc::new(alert(&labels, at(began), status))
}

/// Three containers, one after the other, each for a minute.
fn rehearse(policies_text: &str, outcomes: &mut dyn sentinel_core::rehearsal::Outcomes) -> Trace {
    let mut rehearsal = Rehearsal::new(
        Arc::new(policies(policies_text)),
        Settings::default(),
        outcomes,
        at(0),
    );
    for (number, container) in ["a", "b", "c"].into_iter().enumerate() {
        let begin = 300 * i64::try_from(number).unwrap();
        rehearsal.alert(at(begin), down(container, begin, AlertStatus::Firing));
        rehearsal.alert(
            at(begin + 60),
            down(container, begin, AlertStatus::Resolved),
        );
    }
    rehearsal.run(at(7200))
}

fn summaries(trace: &Trace) -> Vec<Summary> {
    let summaries = trace.incidents.values().map(|events| summary(events));
    summaries.map(Option::unwrap).collect()
}

fn recorded(trace: &Trace) -> Recorded {
    let events = trace.incidents.values().map(Vec::as_slice);
    Recorded::new(events, Assumed::default())
}

/// A world in which restarts of `b` fail at first.
struct Stubborn(Assumed, u32);

impl sentinel_core::rehearsal::Outcomes for Stubborn {
    fn run(
        &mut self,
        order: &sentinel_core::engine::Order,
    ) -> sentinel_core::rehearsal::ScriptedRun {
        let mut run = self.0.success(order);
        if order.target.name() == "b" && self.1 > 0 {
            self.1 -= 1;
            run.takes = Duration::from_secs(7);
            run.result = sentinel_core::event::RunResult::Failed {
                class: sentinel_core::event::FailureClass::Retryable,
                message: "stubborn".to_owned(),
            };
        }
        run
    }

    fn verify(
        &mut self,
        order: &sentinel_core::engine::VerifyOrder,
    ) -> sentinel_core::rehearsal::ScriptedLook {
        self.0.verify(order)
    }

    fn answers(
        &mut self,
        incident: &sentinel_core::incident::Incident,
    ) -> Vec<sentinel_core::rehearsal::Answer> {
        self.0.answers(incident)
    }

    fn cancelled(
        &mut self,
        _incident: &sentinel_core::incident::Incident,
    ) -> Option<(Timestamp, String, String)> {
        None
    }

    fn fleet(
        &mut self,
        fleet: &sentinel_core::guard::settings::Fleet,
        now: Timestamp,
    ) -> Result<Vec<sentinel_core::engine::Member>, String> {
        self.0.fleet(fleet, now)
    }
}

fn twice() -> String {
    web("mode: auto").replace(
        "{ plugin: docker-restart }",
        "{ plugin: docker-restart, attempts: 2 }",
    )
}

#[test]
fn a_rehearsal_is_the_same_each_time() {
    let once = rehearse(&twice(), &mut Assumed::default());
    let again = rehearse(&twice(), &mut Assumed::default());
    assert_eq!(once.decisions, again.decisions);
    assert_eq!(once.incidents, again.incidents);
}

#[test]
fn the_same_policies_over_what_they_did_change_nothing() {
    for mode in ["auto", "approve", "shadow"] {
        let text = twice().replace("mode: auto", &format!("mode: {mode}"));
        let assumed = Assumed {
            approves: Some(Duration::from_secs(20)),
            ..Assumed::default()
        };
        let was = rehearse(&text, &mut Stubborn(assumed, 1));
        assert_eq!(was.incidents.len(), 3);
        let would_be = rehearse(&text, &mut recorded(&was));
        assert_eq!(compare(&summaries(&was), &summaries(&would_be)), []);
        // Not only the same decisions: the same events at the same moments.
        let moments = |trace: &Trace| -> Vec<(Timestamp, &'static str)> {
            let events = trace.incidents.values().flatten();
            events
                .map(|event: &Event| (event.at, event.body.kind()))
                .collect()
        };
        assert_eq!(moments(&was), moments(&would_be), "{mode}");
    }
}

#[test]
fn what_would_be_different_is_told() {
    let was = rehearse(&twice(), &mut Stubborn(Assumed::default(), 1));
    // A ladder with one attempt less, and a policy that no longer wants `c`.
    let candidate = web("mode: auto").replace(
        "match: ['alertname=\"Down\"']",
        "match: ['alertname=\"Down\"', 'container!=\"c\"']",
    );
    let would_be = rehearse(&candidate, &mut recorded(&was));
    let differences = compare(&summaries(&was), &summaries(&would_be));
    let told: Vec<_> = differences
        .iter()
        .map(|difference| {
            let one = difference.was.as_ref().or(difference.would_be.as_ref());
            (
                difference.kind,
                one.unwrap().target.name(),
                difference.in_what.as_slice(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (Kind::Changed, "b", ["steps", "end"].as_slice()),
            (Kind::Gone, "c", [].as_slice()),
        ]
    );
    // And the other way round it is new.
    let back = compare(&summaries(&would_be), &summaries(&was));
    assert_eq!(
        back.last().map(|difference| difference.kind),
        Some(Kind::New)
    );
}

#[test]
fn a_pin_is_shown_and_decides_nothing() {
    let digest = Digest::of(b"x");
    let pinned = format!("plugin: docker-restart@{digest}");
    let text = web("mode: auto").replace("plugin: docker-restart", &pinned);
    let expect = |run: &str| {
        format!("{DOWN}\nexpect: [{{ run: {run}, step: 1 }}, {{ at: 2s, end: healed }}]")
    };
    passes(&text, &expect("docker-restart"));
    passes(&text, &expect(&format!("docker-restart@{digest}")));
    let other = format!("docker-restart@{}", Digest::of(b"y"));
    let outcome = one(&text, &expect(&other));
    let got = format!("run: docker-restart@{digest}");
    assert!(diff(&outcome).contains(&got), "{}", diff(&outcome));
    assert!(!one(&web("mode: auto"), &expect(&other)).ok());

    let was = rehearse(&web("mode: auto"), &mut Assumed::default());
    let would_be = rehearse(&text, &mut recorded(&was));
    assert_eq!(compare(&summaries(&was), &summaries(&would_be)), []);
    let ran = summaries(&would_be)[0].runs[0].to_string();
    assert!(ran.ends_with(&digest.to_string()), "{ran}");
}

#[test]
fn another_name_or_target_is_a_change_and_no_end_and_beginning() {
    let was = rehearse(&web("mode: auto"), &mut Assumed::default());
    for (from, to, what) in [
        ("name: web", "name: other", "policy"),
        ("docker://local/{{", "docker://local/x-{{", "target"),
        ("mode: auto", "mode: shadow", "mode"),
    ] {
        let candidate = web("mode: auto").replace(from, to);
        let would_be = rehearse(&candidate, &mut recorded(&was));
        let differences = compare(&summaries(&was), &summaries(&would_be));
        assert_eq!(differences.len(), 3, "{what}");
        for difference in differences {
            assert_eq!(difference.kind, Kind::Changed);
            assert!(
                difference.in_what.contains(&what),
                "{:?}",
                difference.in_what
            );
        }
    }
}

#[test]
fn what_a_shadow_planned_is_what_it_is_taken_to_do() {
    let mut stubborn = Stubborn(Assumed::default(), 0);
    let was = rehearse(&web("mode: shadow"), &mut stubborn);
    let would_be = rehearse(&web("mode: auto"), &mut recorded(&was));
    let effects = |carried_out: bool, trace: &Trace| -> Vec<String> {
        let effects = trace
            .decisions
            .iter()
            .filter_map(|decision| match &decision.what {
                What::Effect {
                    summary,
                    carried_out: c,
                } if *c == carried_out => Some(summary.clone()),
                _ => None,
            });
        effects.collect()
    };
    assert_eq!(effects(false, &was).len(), 3);
    assert_eq!(effects(false, &was), effects(true, &would_be));
    let modes: Vec<_> = summaries(&would_be)
        .iter()
        .map(|one| one.runs[0].mode)
        .collect();
    assert_eq!(modes, [RunMode::Live; 3]);
}

#[test]
fn the_first_matcher_that_failed_is_named() {
    let set = policies(NGINX);
    let mut alert = (*down("web", 0, AlertStatus::Firing)).clone();
    alert
        .labels
        .insert("alertname".to_owned(), "NginxDown".to_owned());
    let found: Vec<_> = look(&set, &alert)
        .into_iter()
        .map(|look| look.found)
        .collect();
    assert_eq!(
        found,
        [
            Found::Unmatched {
                matcher: "severity=~\"critical|page\"".to_owned(),
                label: "severity".to_owned(),
                value: None,
            },
            Found::Unmatched {
                matcher: "alertname=\"NginxDegraded\"".to_owned(),
                label: "alertname".to_owned(),
                value: Some("NginxDown".to_owned()),
            },
        ]
    );
}

#[test]
fn a_report_counts_what_a_shadow_would_have_done() {
    let was = rehearse(&web("mode: shadow"), &mut Stubborn(Assumed::default(), 1));
    let events = || was.incidents.values().map(Vec::as_slice);
    let other = |second, target: &str| OtherEffect {
        at: at(second),
        incident: sentinel_core::id::IncidentId(77),
        policy: "other".to_owned(),
        target: target.parse().unwrap(),
        effect: "docker.stop".to_owned(),
    };
    let others = [
        // On `a` while the shadow watched it, after that, and elsewhere.
        other(30, "docker://local/a"),
        other(90, "docker://local/a"),
        other(30, "docker://local/x"),
    ];
    let report = report("web".parse().unwrap(), events(), &others);
    assert_eq!(report.acting, None);
    let shadow = report.shadow.unwrap();
    assert_eq!((shadow.incidents, shadow.open), (3, 0));
    // The dry run on `b` failed, and a person would have been asked to look.
    assert_eq!(shadow.dry_runs, 3);
    assert_eq!(shadow.failures[0].text, "retryable: stubborn");
    let planned: Vec<_> = shadow
        .planned
        .iter()
        .map(|planned| {
            (
                planned.effect.as_str(),
                planned.target.name(),
                planned.count,
            )
        })
        .collect();
    assert_eq!(
        planned,
        [
            ("docker.restart", "a", 1),
            ("docker.restart", "b", 1),
            ("docker.restart", "c", 1)
        ]
    );
    // What another policy may have helped did not clear by itself.
    assert_eq!((shadow.cleared.count, shadow.helped), (1, 1));
    assert_eq!(shadow.cleared.p50, Some(Duration::from_secs(60)));
    assert_eq!(shadow.conflicts.len(), 1);
    assert_eq!(shadow.conflicts[0].at, at(30));
    assert!(!shadow.verdict.ready);
}

#[test]
fn a_report_counts_what_a_policy_did() {
    let was = rehearse(&web("mode: auto"), &mut Stubborn(Assumed::default(), 1));
    let events = was.incidents.values().map(Vec::as_slice);
    let report = report("web".parse().unwrap(), events, &[]);
    assert_eq!(report.shadow, None);
    let acting = report.acting.unwrap();
    assert_eq!((acting.incidents, acting.runs), (3, 3));
    assert_eq!(acting.ends.get(&End::Healed), Some(&2));
    assert_eq!(acting.ends.get(&End::Escalated), Some(&1));
    assert_eq!(acting.healed.p90, Some(Duration::from_secs(2)));
    assert_eq!(acting.effects.get("docker.restart"), Some(&3));
    assert_eq!(acting.escalations[0].count, 1);
}

/// What each guard would say of the alert for `a`, and what would become of it.
fn considered(
    stage: &Stage,
    open: Vec<Incident>,
    controls: &[ControlEvent],
    now: i64,
) -> Considered {
    let engine = Engine::knowing(Settings::default(), open, controls);
    let accepted = Accepted {
        seq: 1,
        alert: down("a", 0, AlertStatus::Firing),
        received_at: at(now),
        repeat: true,
    };
    let effects = EffectWindows::default();
    let mut considered = engine.consider(&accepted, at(now), stage, &effects);
    assert_eq!(considered.len(), 1);
    considered.remove(0)
}

fn holding(considered: &Considered) -> Vec<Guard> {
    let holding = considered
        .guards
        .iter()
        .filter(|(_, verdict)| *verdict != Verdict::Pass);
    holding.map(|(guard, _)| *guard).collect()
}

#[test]
fn the_engine_can_be_asked_without_being_driven() {
    let text = web("mode: auto\nguards: { cooldown: 10m }");
    let mut stage = Stage {
        policies: policies(&text),
        past: Past::default(),
    };
    let free = considered(&stage, Vec::new(), &[], 0);
    assert_eq!(free.course, Course::Opens);
    assert_eq!(holding(&free), []);

    // Another policy's incident is acting on the target, and everything is paused: all
    // guards that hold are told, and not only the first.
    let other = rehearse(
        &web("mode: auto").replace("name: web", "name: other"),
        &mut Assumed::default(),
    );
    let running: Vec<Event> = other.incidents.values().next().unwrap()[..3].to_vec();
    let other = Incident::fold(&running).unwrap();
    assert!(other.holds_target());
    let paused = ControlEvent {
        at: at(0),
        body: ControlBody::Paused {
            scope: Scope::All,
            until: None,
            by: "ann".to_owned(),
            reason: "upgrade".to_owned(),
        },
    };
    let held = considered(&stage, vec![other], &[paused], 1);
    assert_eq!(holding(&held), [Guard::Pause, Guard::TargetLock]);

    // One that is open takes it in.
    let own = rehearse(&text, &mut Assumed::default());
    let first: Vec<Event> = own.incidents.values().next().unwrap()[..1].to_vec();
    let open = Incident::fold(&first).unwrap();
    let joins = considered(&stage, vec![open.clone()], &[], 1);
    assert_eq!(joins.course, Course::Joins { incident: open.id });

    // One that is over makes it a repetition, and its cooldown is told as well.
    let events = own.incidents.values().next().unwrap();
    let ended = Incident::fold(events).unwrap();
    stage.past.commit(&Append {
        incidents: vec![IncidentRow::from(&ended)],
        episodes: vec![(ended.alert.episode(), ended.id)],
        ..Append::default()
    });
    let repeats = considered(&stage, Vec::new(), &[], 60);
    assert_eq!(repeats.course, Course::Repeats { of: Some(ended.id) });
    assert_eq!(holding(&repeats), [Guard::Cooldown]);
    // Long after that it is for a person.
    let late = considered(&stage, Vec::new(), &[], 3600);
    assert!(matches!(late.course, Course::Escalates { .. }), "{late:?}");
}
