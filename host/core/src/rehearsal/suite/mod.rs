//! Unit tests of policies: alerts in, decisions expected.
//!
//! A test says which notifications come when, what runs and verifications come to, and
//! what people do; and it lists every decision that is to come of it, in order. The
//! format is explained in `docs/policy-tests.md`.

mod check;
mod read;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use self::check::{Line, Outcome, Side};
use super::assumed::{Answer, Assumed, Outcomes, ScriptedLook, ScriptedRun, Verdict};
use super::play::{Rehearsal, Which};
use super::trace::Trace;
use crate::alert::{Alert, AlertStatus, Fingerprint, Labels};
use crate::control::Scope;
use crate::engine::{Member, Operator, Order, Settings, VerifyOrder};
use crate::event::{FailureClass, Guard, RunMode, RunResult};
use crate::guard::settings::Fleet;
use crate::id::{PluginName, PluginRef, PolicyName, Target};
use crate::incident::{End, Incident, later};
use crate::policy::error::{Problem, Source, Span};
use crate::policy::{Environment, PolicyError, PolicySet};

/// A file of tests.
#[derive(Debug, Clone)]
pub struct Suite {
    source: Source,
    policies: Vec<(String, Span)>,
    environment: Environment,
    start: Timestamp,
    tests: Vec<Test>,
}

/// One test.
#[derive(Debug, Clone)]
pub struct Test {
    /// What it shows.
    pub name: String,
    /// The line of its name, counted from 1.
    pub line: usize,
    alerts: Vec<TestAlert>,
    outcomes: Vec<TestOutcome>,
    controls: Vec<Control>,
    fleets: Vec<TestFleet>,
    expect: Vec<Expected>,
    until: Option<Duration>,
}

/// An alert, and when it is told of.
#[derive(Debug, Clone)]
struct TestAlert {
    labels: Labels,
    annotations: Labels,
    source: String,
    firing: Vec<Duration>,
    resolved: Vec<Duration>,
    repeat: Option<Duration>,
}

/// How the runs go that it fits.
#[derive(Debug, Clone)]
struct TestOutcome {
    policy: Option<PolicyName>,
    target: Option<Target>,
    plugin: Option<PluginName>,
    step: Option<u32>,
    attempt: Option<u32>,
    mode: Option<RunMode>,
    result: TestResult,
    takes: Duration,
    heals: bool,
    looks: Duration,
}

#[derive(Debug, Clone, Copy)]
enum TestResult {
    Changed,
    Unchanged,
    Failed(FailureClass),
}

/// What people do.
#[derive(Debug, Clone)]
struct Control {
    at: Duration,
    by: String,
    what: ControlWhat,
}

#[derive(Debug, Clone)]
enum ControlWhat {
    Pause {
        scope: Scope,
        lasts: Option<Duration>,
        reason: String,
    },
    Resume(Scope),
    Says(Which, Verdict),
}

/// What a fleet looks like from a moment on.
#[derive(Debug, Clone)]
struct TestFleet {
    at: Duration,
    fleet: Fleet,
    members: Vec<Member>,
}

/// A decision that is to come.
#[derive(Debug, Clone)]
struct Expected {
    line: usize,
    at: Option<Duration>,
    policy: Option<PolicyName>,
    target: Option<Target>,
    what: ExpectedWhat,
}

#[derive(Debug, Clone)]
enum ExpectedWhat {
    Run {
        plugin: PluginRef,
        step: Option<u32>,
        attempt: Option<u32>,
        mode: Option<RunMode>,
    },
    Held {
        guard: Guard,
        until: Option<Duration>,
    },
    Approval {
        until: Option<Duration>,
    },
    End {
        end: End,
        reason: Option<String>,
    },
    NoMatch(String),
    Refused(String),
}

impl Suite {
    /// Reads a file of tests, given its name (for messages) and its text. Every mistake
    /// that can be found is in the error.
    pub fn parse(name: &str, text: &str) -> Result<Self, Vec<PolicyError>> {
        read::read(name, text)
    }

    /// The policy files that it is about, as it names them: relative to itself.
    pub fn policies(&self) -> impl Iterator<Item = &str> {
        self.policies.iter().map(|(path, _)| path.as_str())
    }

    /// A mistake about one of its policy files, at the place where it names it.
    #[must_use]
    pub fn policy_problem(&self, path: &str, message: &str) -> PolicyError {
        let place = self.policies.iter().find(|(name, _)| name == path);
        let span = place.map_or(0..0, |(_, span)| span.clone());
        let problem = Problem::new(message).help("policy files are named relative to this file");
        self.source.error(&span, problem)
    }

    /// What its policies are read against.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// When its tests begin.
    #[must_use]
    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// Its tests.
    #[must_use]
    pub fn tests(&self) -> &[Test] {
        &self.tests
    }

    /// Carries a test out.
    #[must_use]
    pub fn run(&self, test: &Test, policies: &Arc<PolicySet>) -> Outcome {
        let trace = self.rehearse(test, policies);
        check::check(test, self.start, trace)
    }

    fn rehearse(&self, test: &Test, policies: &Arc<PolicySet>) -> Trace {
        let start = self.start;
        let mut script = Script {
            start,
            test,
            assumed: Assumed::default(),
            looks: std::collections::HashMap::new(),
        };
        let settings = Settings::default();
        let mut rehearsal = Rehearsal::new(Arc::clone(policies), settings, &mut script, start);
        let last = test.last();
        let until = test.until.unwrap_or(last + Duration::from_secs(3600));
        for alert in &test.alerts {
            for (at, told) in alert.notifications(start, until) {
                rehearsal.alert(later(start, at), Arc::new(told));
            }
        }
        for control in &test.controls {
            let at = later(start, control.at);
            let by = control.by.clone();
            match &control.what {
                ControlWhat::Pause {
                    scope,
                    lasts,
                    reason,
                } => rehearsal.operator(
                    at,
                    Operator::Pause {
                        scope: scope.clone(),
                        until: lasts.map(|lasts| later(at, lasts)),
                        by,
                        reason: reason.clone(),
                    },
                ),
                ControlWhat::Resume(scope) => {
                    let scope = scope.clone();
                    rehearsal.operator(at, Operator::Resume { scope, by });
                }
                ControlWhat::Says(which, verdict) => {
                    rehearsal.person(at, which.clone(), by, verdict.clone());
                }
            }
        }
        rehearsal.run(later(start, until))
    }
}

impl Test {
    /// When the last thing happens that it says itself.
    fn last(&self) -> Duration {
        let alerts = self
            .alerts
            .iter()
            .flat_map(|alert| alert.firing.iter().chain(&alert.resolved));
        let controls = self.controls.iter().map(|control| &control.at);
        let fleets = self.fleets.iter().map(|fleet| &fleet.at);
        let last = alerts.chain(controls).chain(fleets).max();
        last.copied().unwrap_or_default()
    }
}

impl TestAlert {
    /// Every notification of it up to `until`, in order. It fires anew after it
    /// resolved, and until then it repeats itself.
    fn notifications(&self, start: Timestamp, until: Duration) -> Vec<(Duration, Alert)> {
        let firing = self.firing.iter().map(|at| (*at, AlertStatus::Firing));
        let resolved = self.resolved.iter().map(|at| (*at, AlertStatus::Resolved));
        let mut told: Vec<_> = firing.chain(resolved).collect();
        // At the same moment the end comes first: it is that of what was before.
        told.sort_by_key(|(at, status)| (*at, *status == AlertStatus::Firing));
        let mut notifications = Vec::new();
        let mut began: Option<Duration> = None;
        for (index, (at, status)) in told.iter().enumerate() {
            let starts = match status {
                AlertStatus::Firing => *began.get_or_insert(*at),
                // Told to have ended although nobody heard it begin.
                AlertStatus::Resolved => began.take().unwrap_or(*at),
            };
            let starts_at = later(start, starts);
            notifications.push((*at, self.told(start, *at, starts_at, *status)));
            if *status == AlertStatus::Resolved {
                continue;
            }
            let next = told.get(index + 1).map(|(next, _)| *next);
            let end = next.unwrap_or(until + Duration::from_millis(1));
            let mut again = *at;
            while let Some(every) = self.repeat {
                again += every;
                if again >= end {
                    break;
                }
                notifications.push((again, self.told(start, again, starts_at, *status)));
            }
        }
        notifications
    }

    fn told(
        &self,
        start: Timestamp,
        at: Duration,
        starts_at: Timestamp,
        status: AlertStatus,
    ) -> Alert {
        Alert {
            source: self.source.clone(),
            fingerprint: Fingerprint::of(&self.labels),
            status,
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            starts_at,
            ends_at: (status == AlertStatus::Resolved).then(|| later(start, at)),
            generator_url: None,
        }
    }
}

/// What a test says of the world.
struct Script<'t> {
    start: Timestamp,
    test: &'t Test,
    assumed: Assumed,
    looks: std::collections::HashMap<crate::id::IncidentId, ScriptedLook>,
}

impl TestOutcome {
    fn fits(&self, order: &Order) -> bool {
        fn same<T: PartialEq>(wanted: Option<&T>, found: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == found)
        }
        let mode = match self.mode {
            Some(mode) => mode == order.mode,
            // What is said of a step is said of doing it, and not of planning it.
            None => order.mode != RunMode::Dry,
        };
        mode && same(self.policy.as_ref(), &order.policy)
            && same(self.target.as_ref(), &order.target)
            && same(self.plugin.as_ref(), &order.plugin)
            && same(self.step.as_ref(), &order.rung.step)
            && same(self.attempt.as_ref(), &order.rung.attempt)
    }
}

impl Outcomes for Script<'_> {
    fn run(&mut self, order: &Order) -> ScriptedRun {
        let mut run = self.assumed.success(order);
        self.looks.remove(&order.run.incident);
        let Some(outcome) = self
            .test
            .outcomes
            .iter()
            .find(|outcome| outcome.fits(order))
        else {
            return run;
        };
        run.takes = outcome.takes;
        match outcome.result {
            TestResult::Changed => {}
            TestResult::Unchanged => {
                run.effects.clear();
                run.result = RunResult::Unchanged {
                    message: "the test says so".to_owned(),
                };
            }
            TestResult::Failed(class) => {
                // A call that was denied did nothing.
                if class == FailureClass::Denied {
                    run.effects.clear();
                }
                run.result = RunResult::Failed {
                    class,
                    message: "the test says so".to_owned(),
                };
            }
        }
        let look = if outcome.heals {
            ScriptedLook {
                after: outcome.looks,
                result: Ok("the test says so".to_owned()),
            }
        } else {
            ScriptedLook {
                after: Duration::MAX,
                result: Err("the test says so".to_owned()),
            }
        };
        self.looks.insert(order.run.incident, look);
        run
    }

    fn verify(&mut self, order: &VerifyOrder) -> ScriptedLook {
        let look = self.looks.get(&order.incident).cloned();
        look.unwrap_or_else(|| self.assumed.verify(order))
    }

    fn answers(&mut self, _incident: &Incident) -> Vec<Answer> {
        Vec::new()
    }

    fn cancelled(&mut self, _incident: &Incident) -> Option<(Timestamp, String, String)> {
        None
    }

    fn fleet(&mut self, fleet: &Fleet, now: Timestamp) -> Result<Vec<Member>, String> {
        let looks = self.test.fleets.iter().filter(|look| look.fleet == *fleet);
        looks
            .filter(|look| later(self.start, look.at) <= now)
            .max_by_key(|look| look.at)
            .map(|look| look.members.clone())
            .ok_or_else(|| "the test says nothing of this fleet".to_owned())
    }
}
