//! From the tree to tests: what each key means.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Control, ControlWhat, Expected, ExpectedWhat, Suite, Test, TestAlert, TestFleet, TestOutcome,
    TestResult,
};
use crate::alert::Labels;
use crate::control::Scope;
use crate::duration::HumanDuration;
use crate::engine::Member;
use crate::event::{FailureClass, Guard, RunMode};
use crate::guard::settings::Fleet;
use crate::id::{PolicyName, Target};
use crate::incident::End;
use crate::policy::error::{Problem, Source};
use crate::policy::section::{Keys, Reader, Section};
use crate::policy::yaml::{self, Content, Node, bad_key};
use crate::policy::{Environment, PolicyError};
use crate::rehearsal::{Verdict, Which};

const FILE: Keys = keys(&["policies", "docker_hosts", "start", "tests"]);
const TEST: Keys = keys(&[
    "name", "alerts", "outcomes", "controls", "fleets", "until", "expect",
]);
const ALERT: Keys = keys(&[
    "labels",
    "annotations",
    "source",
    "firing",
    "resolved",
    "repeat",
]);
const OUTCOME: Keys = keys(&[
    "policy",
    "target",
    "plugin",
    "step",
    "attempt",
    "mode",
    "result",
    "takes",
    "verify",
    "verify_after",
]);
const CONTROL: Keys = keys(&[
    "at", "by", "reason", "for", "pause", "resume", "approve", "deny", "cancel",
]);
const SCOPE: Keys = keys(&["policy", "target"]);
const FLEET: Keys = keys(&["at", "host", "labels", "members", "ill"]);
const EXPECTED: Keys = keys(&[
    "at", "policy", "target", "run", "step", "attempt", "mode", "held", "until", "approval", "end",
    "reason", "no_match", "refused",
]);

const fn keys(known: &'static [&'static str]) -> Keys {
    Keys { known }
}

const YEAR: Duration = Duration::from_hours(365 * 24);
const MODES: [(&str, RunMode); 3] = [
    ("live", RunMode::Live),
    ("dry", RunMode::Dry),
    ("apply", RunMode::Apply),
];
const RESULTS: [(&str, TestResult); 5] = [
    ("changed", TestResult::Changed),
    ("unchanged", TestResult::Unchanged),
    ("retryable", TestResult::Failed(FailureClass::Retryable)),
    ("permanent", TestResult::Failed(FailureClass::Permanent)),
    ("denied", TestResult::Failed(FailureClass::Denied)),
];
const GUARDS: [Guard; 8] = [
    Guard::Pause,
    Guard::Maintenance,
    Guard::Breaker,
    Guard::Cooldown,
    Guard::TargetLock,
    Guard::Concurrency,
    Guard::Rate,
    Guard::BlastRadius,
];
const ENDS: [End; 5] = [
    End::Healed,
    End::Cleared,
    End::Escalated,
    End::Suppressed,
    End::Cancelled,
];

/// Reads a file of tests.
pub(super) fn read(name: &str, text: &str) -> Result<Suite, Vec<PolicyError>> {
    let source = Source::new(name, text);
    let mut reader = SuiteReader {
        reader: Reader {
            source: &source,
            errors: Vec::new(),
        },
    };
    let suite = match yaml::parse(&source) {
        Ok(root) => reader.file(&root),
        Err((at, problem)) => reader.reader.fail(&at, problem),
    };
    let mut errors = reader.reader.errors;
    errors.sort_by_key(|error| (error.line(), error.column()));
    match suite {
        Some(suite) if errors.is_empty() => Ok(suite),
        _ => Err(errors),
    }
}

/// A mistake that has been noted down.
struct Noted;

struct SuiteReader<'a> {
    reader: Reader<'a>,
}

impl SuiteReader<'_> {
    fn file(&mut self, root: &Node) -> Option<Suite> {
        let help = "a file of tests has the keys `policies` and `tests`";
        if matches!(root.content, Content::Null) {
            let problem = Problem::new("the file is empty").help(help);
            return self.reader.fail(&(0..0), problem);
        }
        let file = self.reader.section(root, "the file", &FILE)?;
        let help = "name the policy files, relative to this one, such as `policies: [nginx.yaml]`";
        let policies = self.reader.required(&file, "policies", help);
        let policies = policies.and_then(|node| {
            let items = self.reader.items(node, "a list of policy files", help)?;
            let items: Vec<_> = items
                .iter()
                .map(|item| {
                    let path = self.reader.text(item, "the path of a policy file", help)?;
                    Some((path.to_owned(), item.at.clone()))
                })
                .collect();
            items.into_iter().collect::<Option<Vec<_>>>()
        });
        let hosts = match file.get("docker_hosts") {
            Some(node) => {
                let help =
                    "name the Docker hosts that policies name, such as `docker_hosts: [local]`";
                self.reader.list(node, "host", help, |text| {
                    Ok::<_, std::convert::Infallible>(text.to_owned())
                })
            }
            None => Some(vec!["local".to_owned()]),
        };
        let start = match file.get("start") {
            Some(node) => self.reader.parsed(
                node,
                "a moment",
                "say what `0s` is, such as `start: 2026-01-01T00:00:00Z`",
                str::parse::<Timestamp>,
            ),
            // A Thursday.
            None => "2026-01-01T00:00:00Z".parse().ok(),
        };
        let help =
            "write a list of tests, such as `tests: [{ name: …, alerts: […], expect: […] }]`";
        let tests = self.reader.required(&file, "tests", help);
        let tests = tests.and_then(|node| {
            let items = self.reader.items(node, "a list of tests", help)?;
            let tests: Vec<_> = items.iter().map(|item| self.test(item)).collect();
            tests.into_iter().collect::<Option<Vec<_>>>()
        });
        Some(Suite {
            source: self.reader.source.clone(),
            policies: policies?,
            environment: Environment {
                docker_hosts: hosts?.into_iter().collect(),
                // A test needs none of them.
                secrets: None,
                mail: None,
            },
            start: start?,
            tests: tests?,
        })
    }

    fn test(&mut self, node: &Node) -> Option<Test> {
        let section = self.reader.section(node, "the test", &TEST)?;
        let help = "say what the test shows, such as `name: a restart that helps is enough`";
        let name = self.reader.required(&section, "name", help);
        let line = name.map_or(0, |node| self.reader.source.position(node.at.start).0);
        let name = name.and_then(|node| self.reader.text(node, "a name", help));
        let alerts = self.many(&section, "alerts", "a list of alerts", Self::alert);
        let outcomes = self.many(&section, "outcomes", "a list of outcomes", Self::outcome);
        let controls = self.many(&section, "controls", "a list of controls", Self::control);
        let fleets = self.many(&section, "fleets", "a list of fleets", Self::fleet);
        let until = self.moment_if(&section, "until");
        let help = "list every decision that is to come of it, in order; to expect none, write `expect: []`";
        let expect = match self.reader.required(&section, "expect", help) {
            // Unlike every other list, this one may be empty.
            Some(Node {
                content: Content::List(items),
                ..
            }) => {
                let items: Vec<_> = items.iter().map(|item| self.expected(item)).collect();
                items.into_iter().collect::<Option<Vec<_>>>()
            }
            Some(node) => self.reader.wrong_type(node, "a list of decisions", help),
            None => None,
        };
        Some(Test {
            name: name?.to_owned(),
            line,
            alerts: alerts?,
            outcomes: outcomes?,
            controls: controls?,
            fleets: fleets?,
            expect: expect?,
            until: until.ok()?,
        })
    }

    /// A list under a key that may be missing.
    fn many<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        expected: &str,
        read: impl Fn(&mut Self, &Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Some(node) = section.get(key) else {
            return Some(Vec::new());
        };
        let help = format!("leave `{key}` out to have none");
        let items = self.reader.items(node, expected, &help)?;
        let items: Vec<_> = items.iter().map(|item| read(self, item)).collect();
        items.into_iter().collect()
    }

    /// A time after the start.
    fn moment(&mut self, section: &Section<'_>, key: &str) -> Option<Duration> {
        self.reader
            .duration(section, key, Duration::ZERO, Duration::ZERO..=YEAR)
    }

    /// One time after the start, or several.
    fn moments(&mut self, section: &Section<'_>, key: &str) -> Option<Vec<Duration>> {
        let help = format!("a time after the start, or a list of them, such as `{key}: [0s, 10m]`");
        match section.get(key) {
            None => Some(Vec::new()),
            Some(Node {
                content: Content::List(items),
                ..
            }) => {
                let items: Vec<_> = items
                    .iter()
                    .map(|item| {
                        let parse = str::parse::<HumanDuration>;
                        let parsed = self.reader.parsed(item, "a time", &help, parse)?;
                        Some(parsed.0)
                    })
                    .collect();
                items.into_iter().collect()
            }
            Some(_) => self.moment(section, key).map(|at| vec![at]),
        }
    }

    fn alert(&mut self, node: &Node) -> Option<TestAlert> {
        let section = self.reader.section(node, "the alert", &ALERT)?;
        let help = "such as `labels: { alertname: NginxDown, severity: critical }`";
        let labels = self.reader.required(&section, "labels", help);
        let labels = labels.and_then(|node| self.labels(node, help));
        let annotations = match section.get("annotations") {
            Some(node) => self.labels(node, "such as `annotations: { summary: … }`"),
            None => Some(Labels::new()),
        };
        let source = self.text_or(&section, "source", "alertmanager");
        let firing = self.moments(&section, "firing");
        let resolved = self.moments(&section, "resolved");
        let repeat = self.span_if(&section, "repeat");
        let (firing, resolved) = (firing?, resolved?);
        if firing.is_empty() && resolved.is_empty() {
            let help = "say when it is told of, such as `firing: 0s`";
            let problem = Problem::new("the alert neither fires nor resolves").help(help);
            return self.reader.fail(section.key_at("firing"), problem);
        }
        Some(TestAlert {
            labels: labels?,
            annotations: annotations?,
            source: source?,
            firing,
            resolved,
            repeat: repeat.ok()?,
        })
    }

    fn text_or(&mut self, section: &Section<'_>, key: &str, default: &str) -> Option<String> {
        match section.get(key) {
            Some(node) => {
                let help = format!("such as `{key}: {default}`");
                self.reader
                    .text(node, "a text", &help)
                    .map(ToOwned::to_owned)
            }
            None => Some(default.to_owned()),
        }
    }

    fn labels(&mut self, node: &Node, help: &str) -> Option<Labels> {
        let Content::Map(entries) = &node.content else {
            return self.reader.wrong_type(node, "a map of texts", help);
        };
        let mut labels = Labels::new();
        let before = self.reader.errors.len();
        for (key, value) in entries {
            match (&key.content, &value.content) {
                (Content::Text(name), _) if labels.contains_key(name) => {
                    let problem = Problem::new(format!("duplicate key `{name}`"))
                        .label("given again")
                        .help("keep one of the two");
                    self.reader.fail::<()>(&key.at, problem);
                }
                (Content::Text(name), Content::Text(value)) => {
                    labels.insert(name.clone(), value.clone());
                }
                (Content::Text(_), _) => {
                    let raw = self.reader.source.text().get(value.at.clone());
                    let help = format!("quote it: '{}'", raw.unwrap_or_default());
                    self.reader.wrong_type::<()>(value, "a text", &help);
                }
                _ => {
                    self.reader.fail::<()>(&key.at, bad_key(key, help));
                }
            }
        }
        (self.reader.errors.len() == before).then_some(labels)
    }

    /// A key that may be missing.
    fn optional<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        read: impl FnOnce(&mut Self, &Node) -> Option<T>,
    ) -> Result<Option<T>, Noted> {
        match section.get(key) {
            Some(node) => read(self, node).map(Some).ok_or(Noted),
            None => Ok(None),
        }
    }

    /// A key that may be missing and whose text something can be made of.
    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        expected: &str,
        help: &str,
    ) -> Result<Option<T>, Noted> {
        self.optional(section, key, |this, node| {
            this.reader.parsed(node, expected, help, str::parse::<T>)
        })
    }

    fn policy(&mut self, section: &Section<'_>) -> Result<Option<PolicyName>, Noted> {
        let help = "such as `policy: nginx-down`";
        self.parsed(section, "policy", "a policy name", help)
    }

    fn target(&mut self, section: &Section<'_>) -> Result<Option<Target>, Noted> {
        let help = "such as `target: docker://local/nginx`";
        self.parsed(section, "target", "a target", help)
    }

    fn number(&mut self, section: &Section<'_>, key: &str) -> Result<Option<u32>, Noted> {
        self.optional(section, key, |this, _| {
            this.reader.count(section, key, 1, 0..=100)
        })
    }

    fn mode(&mut self, section: &Section<'_>) -> Result<Option<RunMode>, Noted> {
        self.optional(section, "mode", |this, node| {
            this.reader.choice(node, "mode of a run", &MODES)
        })
    }

    /// A time after the start that may be missing.
    fn moment_if(&mut self, section: &Section<'_>, key: &str) -> Result<Option<Duration>, Noted> {
        self.optional(section, key, |this, _| this.moment(section, key))
    }

    /// A span of time that may be missing.
    fn span_if(&mut self, section: &Section<'_>, key: &str) -> Result<Option<Duration>, Noted> {
        let range = Duration::from_secs(1)..=YEAR;
        self.optional(section, key, |this, _| {
            this.reader.duration(section, key, YEAR, range)
        })
    }

    fn outcome(&mut self, node: &Node) -> Option<TestOutcome> {
        let section = self.reader.section(node, "the outcome", &OUTCOME)?;
        let second = Duration::from_secs(1);
        let policy = self.policy(&section);
        let target = self.target(&section);
        let help = "such as `plugin: docker-restart`";
        let plugin = self.parsed(&section, "plugin", "a plugin name", help);
        let step = self.number(&section, "step");
        let attempt = self.number(&section, "attempt");
        let mode = self.mode(&section);
        let result = match section.get("result") {
            Some(node) => self.reader.choice(node, "result", &RESULTS),
            None => Some(TestResult::Changed),
        };
        let takes = self
            .reader
            .duration(&section, "takes", second, Duration::ZERO..=YEAR);
        let heals = match section.get("verify") {
            Some(node) => {
                let choices = [("passes", true), ("fails", false)];
                self.reader.choice(node, "verification", &choices)
            }
            None => Some(true),
        };
        let looks = self
            .reader
            .duration(&section, "verify_after", second, Duration::ZERO..=YEAR);
        Some(TestOutcome {
            policy: policy.ok()?,
            target: target.ok()?,
            plugin: plugin.ok()?,
            step: step.ok()?,
            attempt: attempt.ok()?,
            mode: mode.ok()?,
            result: result?,
            takes: takes?,
            heals: heals?,
            looks: looks?,
        })
    }

    /// Which one of several keys is given. Where none is and there were fewer mistakes
    /// `before`, one of those was probably meant to be it.
    fn one_of<'k>(
        &mut self,
        section: &Section<'_>,
        what: &str,
        keys: &[&'k str],
        before: usize,
    ) -> Option<&'k str> {
        let given: Vec<_> = keys
            .iter()
            .copied()
            .filter(|key| section.get(key).is_some())
            .collect();
        let help = format!("{what} has exactly one of {}", keys.join(", "));
        match given.as_slice() {
            [one] => Some(one),
            [] if self.reader.errors.len() > before => None,
            [] => self.reader.fail(
                section.key_at(""),
                Problem::new(format!("{what} says nothing")).help(help),
            ),
            [_, second, ..] => self.reader.fail(
                section.key_at(second),
                Problem::new(format!("{what} has more than one of {}", given.join(", ")))
                    .label("one too many")
                    .help(help),
            ),
        }
    }

    fn control(&mut self, node: &Node) -> Option<Control> {
        let before = self.reader.errors.len();
        let section = self.reader.section(node, "the control", &CONTROL)?;
        let help = "say when, such as `at: 5m`";
        let at = match self.reader.required(&section, "at", help) {
            Some(_) => self.moment(&section, "at"),
            None => None,
        };
        let by = self.text_or(&section, "by", "operator");
        let reason = self.text_or(&section, "reason", "test");
        let lasts = self.span_if(&section, "for");
        let keys = ["pause", "resume", "approve", "deny", "cancel"];
        let key = self.one_of(&section, "the control", &keys, before)?;
        let (policy, target) = self.scope(section.get(key)?)?;
        let (at, by, reason, lasts) = (at?, by?, reason?, lasts.ok()?);
        if lasts.is_some() && key != "pause" {
            let problem = Problem::new(format!("`for` does not fit `{key}`"))
                .help("only a pause lasts for a time");
            return self.reader.fail(section.key_at("for"), problem);
        }
        let scope = || match (policy.clone(), target.clone()) {
            (Some(policy), _) => Scope::Policy(policy),
            (None, Some(target)) => Scope::Target(target),
            (None, None) => Scope::All,
        };
        let what = match key {
            "pause" | "resume" if policy.is_some() && target.is_some() => {
                let problem = Problem::new(format!("`{key}` has both a policy and a target"))
                    .help("the stop switch holds everything, one policy, or one target");
                return self.reader.fail(section.key_at(key), problem);
            }
            "pause" => ControlWhat::Pause {
                scope: scope(),
                lasts,
                reason,
            },
            "resume" => ControlWhat::Resume(scope()),
            _ => ControlWhat::Says(
                Which {
                    incident: None,
                    policy,
                    target,
                },
                match key {
                    "approve" => Verdict::Approve,
                    "deny" => Verdict::Deny(reason),
                    _ => Verdict::Cancel(reason),
                },
            ),
        };
        Some(Control { at, by, what })
    }

    /// `all`, or a policy and a target.
    fn scope(&mut self, node: &Node) -> Option<(Option<PolicyName>, Option<Target>)> {
        if matches!(&node.content, Content::Text(text) if text == "all") {
            return Some((None, None));
        }
        if matches!(node.content, Content::Map(_)) {
            let section = self.reader.section(node, "the scope", &SCOPE)?;
            self.one_or_both(&section)
        } else {
            let help =
                "such as `all`, `{ policy: nginx-down }` or `{ target: docker://local/nginx }`";
            self.reader.wrong_type(node, "`all` or a map", help)
        }
    }

    fn one_or_both(
        &mut self,
        section: &Section<'_>,
    ) -> Option<(Option<PolicyName>, Option<Target>)> {
        let policy = self.policy(section);
        let target = self.target(section);
        let (policy, target) = (policy.ok()?, target.ok()?);
        if policy.is_none() && target.is_none() {
            let help = "name a policy or a target, or write `all`";
            let problem = Problem::new("the scope is empty").help(help);
            return self.reader.fail(section.key_at(""), problem);
        }
        Some((policy, target))
    }

    fn fleet(&mut self, node: &Node) -> Option<TestFleet> {
        let section = self.reader.section(node, "the fleet", &FLEET)?;
        let at = self.moment(&section, "at");
        let host = self.text_or(&section, "host", "local");
        let help =
            "the labels that the policy's `blast_radius` names, such as `labels: { app: web }`";
        let labels = self.reader.required(&section, "labels", help);
        let labels = labels.and_then(|node| self.labels(node, help));
        let help = "name the containers, such as `members: [web-1, web-2]`";
        let names = |this: &mut Self, node| {
            this.reader.list(node, "name", help, |text| {
                Ok::<_, std::convert::Infallible>(text.to_owned())
            })
        };
        let members = self.reader.required(&section, "members", help);
        let members = members.and_then(|node| names(self, node));
        let ill = match section.get("ill") {
            Some(node) => names(self, node),
            None => Some(Vec::new()),
        };
        let (members, ill) = (members?, ill?);
        if let Some(stranger) = ill.iter().find(|name| !members.contains(name)) {
            let problem = Problem::new(format!("`{stranger}` is ill and no member"))
                .help("those that are ill are among the members");
            return self.reader.fail(section.key_at("ill"), problem);
        }
        Some(TestFleet {
            at: at?,
            fleet: Fleet {
                host: host?,
                labels: labels?,
            },
            members: members
                .into_iter()
                .map(|name| Member {
                    well: !ill.contains(&name),
                    name,
                })
                .collect(),
        })
    }

    fn expected(&mut self, node: &Node) -> Option<Expected> {
        let before = self.reader.errors.len();
        let section = self.reader.section(node, "the decision", &EXPECTED)?;
        let at = self.moment_if(&section, "at");
        let policy = self.policy(&section);
        let target = self.target(&section);
        let until = self.moment_if(&section, "until");
        let keys = ["run", "held", "approval", "end", "no_match", "refused"];
        let key = self.one_of(&section, "the decision", &keys, before)?;
        let value = section.get(key)?;
        let fitting: &[&str] = match key {
            "run" => &["step", "attempt", "mode"],
            "held" | "approval" => &["until"],
            "end" => &["reason"],
            _ => &[],
        };
        for extra in ["step", "attempt", "mode", "until", "reason"] {
            if section.get(extra).is_some() && !fitting.contains(&extra) {
                let problem =
                    Problem::new(format!("`{extra}` does not fit `{key}`")).help(format!(
                        "beside `at`, `policy` and `target`, `{key}` takes {}",
                        list(fitting)
                    ));
                return self.reader.fail(section.key_at(extra), problem);
            }
        }
        let what = match key {
            "run" => {
                let help = "name the plugin, such as `run: docker-restart`";
                let plugin = self.reader.parsed(value, "a plugin name", help, str::parse);
                let step = self.number(&section, "step");
                let attempt = self.number(&section, "attempt");
                let mode = self.mode(&section);
                ExpectedWhat::Run {
                    plugin: plugin?,
                    step: step.ok()?,
                    attempt: attempt.ok()?,
                    mode: mode.ok()?,
                }
            }
            "held" => {
                let choices = GUARDS.map(|guard| (guard.as_str(), guard));
                ExpectedWhat::Held {
                    guard: self.reader.choice(value, "guard", &choices)?,
                    until: until.ok()?,
                }
            }
            "approval" => {
                let choices = [("requested", ())];
                self.reader
                    .choice(value, "state of the approval", &choices)?;
                ExpectedWhat::Approval { until: until.ok()? }
            }
            "end" => {
                let choices = ENDS.map(|end| (end.as_str(), end));
                let end = self.reader.choice(value, "end", &choices);
                let reason = self.optional(&section, "reason", |this, node| {
                    let help = "a part of the reason is enough";
                    this.reader
                        .text(node, "a text", help)
                        .map(ToOwned::to_owned)
                });
                ExpectedWhat::End {
                    end: end?,
                    reason: reason.ok()?,
                }
            }
            "no_match" => {
                let help = "name the alert that no policy is for, such as `no_match: DiskFull`";
                let alert = self.reader.text(value, "the name of an alert", help)?;
                ExpectedWhat::NoMatch(alert.to_owned())
            }
            _ => {
                let help = "a part of what the operator is told is enough";
                let said = self.reader.text(value, "a text", help)?;
                ExpectedWhat::Refused(said.to_owned())
            }
        };
        Some(Expected {
            line: self.reader.source.position(node.at.start).0,
            at: at.ok()?,
            policy: policy.ok()?,
            target: target.ok()?,
            what,
        })
    }
}

fn list(keys: &[&str]) -> String {
    if keys.is_empty() {
        "nothing".to_owned()
    } else {
        keys.join(", ")
    }
}
