//! From the tree to policies: what each key means.

mod guards;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use serde_json::{Map, Value};

use super::error::{PolicyError, Problem, Source, Span};
use super::model::{
    Check, DEFAULT_EVIDENCE, DEFAULT_TTL, Escalation, Mode, Policy, SourceLocation, Step, Verify,
};
use super::section::{Keys, Reader, Section};
use super::set::Environment;
use super::yaml::{self, Content, Node, within};
use crate::capability::DockerAction;
use crate::grant::{
    AddressPattern, AnsibleGrant, DockerGrant, Glob, Grants, HttpGrant, INCIDENT_VARIABLE,
    LabelGrant, UrlPattern, variable_problem,
};
use crate::guard::settings::Guards;
use crate::http::HttpMethod;
use crate::id::{Digest, PluginRef, PluginRefError, PolicyName};
use crate::incident::{Approval, DEFAULT_HELD_AFTER, OnInterrupt, StepFailure, When};
use crate::matcher::{MatchOp, Matcher, Matchers};
use crate::template::{TargetTemplate, Template, TemplateError, UrlTemplate};

const FILE: Keys = Keys {
    known: &["policies"],
};
const POLICY: Keys = Keys {
    known: &[
        "name",
        "description",
        "match",
        "target",
        "mode",
        "approval",
        "ttl",
        "evidence",
        "steps",
        "verify",
        "guards",
        "grants",
        "on_interrupt",
        "escalate",
    ],
};
const STEP: Keys = Keys {
    known: &[
        "plugin",
        "params",
        "timeout",
        "attempts",
        "backoff",
        "on_interrupt",
        "when",
    ],
};
const WHEN: Keys = Keys {
    known: &["after", "on"],
};
const APPROVAL: Keys = Keys {
    known: &["expires", "people", "tell"],
};
const EVIDENCE: Keys = Keys { known: &["logs"] };
const ESCALATE: Keys = Keys {
    known: &["plugin", "params", "timeout", "attempts", "held_after"],
};
const VERIFY: Keys = Keys {
    known: &["http", "docker", "alert", "within", "every", "steady"],
};
const GRANTS: Keys = Keys {
    known: &["docker", "ansible", "http", "mail", "memory"],
};
const DOCKER: Keys = Keys {
    known: &["hosts", "containers", "labels", "actions", "new_labels"],
};
const ANSIBLE: Keys = Keys {
    known: &["playbooks", "vars", "hosts", "tags"],
};

const HTTP: Keys = Keys {
    known: &["urls", "methods", "secrets", "answers"],
};

const MAX_STEPS: usize = 16;
const MAX_ATTEMPTS: u32 = 20;
const MAX_EVIDENCE: u32 = 2000;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

const HTTP_HELP: &str = "name the URLs, the methods and perhaps the secrets, such as `http: { urls: ['https://api.example.com/v2/**'], methods: [GET, POST] }`";

const INTERRUPTS: [(&str, OnInterrupt); 2] = [
    ("rerun", OnInterrupt::Rerun),
    ("escalate", OnInterrupt::Escalate),
];

const FAILURES: [StepFailure; 3] = [
    StepFailure::Retryable,
    StepFailure::Permanent,
    StepFailure::Unverified,
];

/// A policy with the places that later checks point at.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) policy: Policy,
    pub(super) steps: Vec<PluginPlaces>,
    pub(super) escalate: Option<PluginPlaces>,
}

/// Where a step or an escalation says which plugin is given what.
#[derive(Debug, Clone)]
pub(super) struct PluginPlaces {
    pub(super) plugin: Span,
    /// The key `params`; the plugin's name where there is none.
    pub(super) params_key: Span,
    pub(super) params: Option<Node>,
}

/// What a file holds.
pub(super) struct FileContents {
    /// The policies without a mistake.
    pub(super) entries: Vec<Entry>,
    /// Every policy's name, with or without mistakes, and where it stands.
    pub(super) names: Vec<(PolicyName, Span)>,
    pub(super) errors: Vec<PolicyError>,
    /// What is no mistake, and probably not meant.
    pub(super) notes: Vec<PolicyError>,
}

/// Reads a file.
pub(super) fn read(source: &Source, environment: &Environment) -> FileContents {
    let mut reader = PolicyReader {
        reader: Reader {
            source,
            errors: Vec::new(),
        },
        environment,
        names: Vec::new(),
        notes: Vec::new(),
    };
    let entries = match yaml::parse(source) {
        Ok(root) => reader.file(&root).unwrap_or_default(),
        Err((at, problem)) => reader.reader.fail(&at, problem).unwrap_or_default(),
    };
    let mut errors = reader.reader.errors;
    errors.sort_by_key(|error| (error.line(), error.column()));
    FileContents {
        entries,
        names: reader.names,
        errors,
        notes: reader.notes,
    }
}

/// A mistake that has been noted down.
struct Noted;

struct PolicyReader<'a> {
    reader: Reader<'a>,
    environment: &'a Environment,
    names: Vec<(PolicyName, Span)>,
    notes: Vec<PolicyError>,
}

impl PolicyReader<'_> {
    fn file(&mut self, root: &Node) -> Option<Vec<Entry>> {
        let help =
            "a policy file begins with `policies:` and a list; to have none, write `policies: []`";
        // A file that an editor has just cut to nothing must not switch everything off.
        if matches!(root.content, Content::Null) {
            return self
                .reader
                .fail(&(0..0), Problem::new("the file is empty").help(help));
        }
        let file = self.reader.section(root, "the file", &FILE)?;
        let policies = self.reader.required(&file, "policies", help)?;
        // Unlike every other list, this one may be empty.
        let items = match &policies.content {
            Content::List(items) => items,
            _ => self.reader.items(policies, "a list of policies", help)?,
        };
        Some(items.iter().filter_map(|item| self.policy(item)).collect())
    }

    fn policy(&mut self, node: &Node) -> Option<Entry> {
        let what = match name_of(node) {
            Some(name) => format!("policy {name}"),
            None => "the policy".to_owned(),
        };
        let section = self.reader.section(node, what, &POLICY)?;
        let name = self.name(&section);
        let description = self.optional(&section, "description", |this, node| {
            let help = "say what the policy is for, in a sentence";
            this.reader.text(node, "a text", help).map(str::to_owned)
        });
        let matchers = self.matchers(&section);
        let target = self.target(&section);
        let mode = match section.get("mode") {
            Some(node) => self.mode(node),
            None => Some(Mode::default()),
        };
        let approval = self.approval(&section, mode);
        let ttl = self
            .reader
            .duration(&section, "ttl", DEFAULT_TTL, MINUTE..=30 * DAY);
        let evidence = match section.get("evidence") {
            Some(node) => self.evidence(node),
            None => Some(DEFAULT_EVIDENCE),
        };
        let on_interrupt = self.on_interrupt(&section, OnInterrupt::Escalate);
        let steps = self.steps(&section, on_interrupt.unwrap_or(OnInterrupt::Escalate));
        let verify = if let Some(node) = section.get("verify") {
            self.verify(node, target.as_ref())
        } else {
            let within = Duration::from_mins(5);
            Some(Verify {
                check: Check::AlertResolved,
                within,
                every: Duration::from_millis(500),
                steady: Verify::default_steady(within),
            })
        };
        let guards = match section.get("guards") {
            Some(node) => self.guards(node),
            None => Some(Guards::default()),
        };
        let grants = match section.get("grants") {
            Some(node) => self.grants(node),
            None => Some(Grants::default()),
        };
        let escalate = self.optional(&section, "escalate", Self::escalation);
        on_interrupt?;
        let (steps, step_places) = steps?.into_iter().unzip();
        let (escalate, escalate_places) = escalate.ok()?.unzip();
        let (line, column) = self.reader.source.position(section.key_at("name").start);
        let mut policy = Policy {
            name: name?,
            description: description.ok()?,
            matchers: matchers?,
            target: target?,
            mode: mode?,
            steps,
            verify: verify?,
            guards: guards?,
            grants: grants?,
            approval: approval?,
            ttl: ttl?,
            evidence: evidence?,
            escalate,
            location: SourceLocation {
                file: self.reader.source.name().to_owned(),
                line,
                column,
            },
            digest: Digest::of(b""),
        };
        // Serialising texts, numbers and maps with text keys cannot fail.
        policy.digest = Digest::of(&serde_json::to_vec(&policy).unwrap_or_default());
        Some(Entry {
            policy,
            steps: step_places,
            escalate: escalate_places,
        })
    }

    /// A key that may be missing.
    fn optional<'n, T>(
        &mut self,
        section: &Section<'n>,
        key: &str,
        read: impl FnOnce(&mut Self, &'n Node) -> Option<T>,
    ) -> Result<Option<T>, Noted> {
        match section.get(key) {
            Some(node) => read(self, node).map(Some).ok_or(Noted),
            None => Ok(None),
        }
    }

    fn name(&mut self, section: &Section<'_>) -> Option<PolicyName> {
        let help = "give the policy a name, such as `name: nginx-down`";
        let node = self.reader.required(section, "name", help)?;
        let name = self
            .reader
            .parsed(node, "a policy name", help, str::parse::<PolicyName>)?;
        self.names.push((name.clone(), node.at.clone()));
        Some(name)
    }

    fn matchers(&mut self, section: &Section<'_>) -> Option<Vec<Matcher>> {
        let help = "write a list of matchers as Alertmanager has them, all of which have to hold, such as `match: ['alertname=\"NginxDown\"', 'severity=~\"critical|page\"']`";
        let node = self.reader.required(section, "match", help)?;
        let items = self.reader.items(node, "a list of matchers", help)?;
        let mut matchers = Vec::new();
        let mut good = true;
        for item in items {
            let Some(text) = self.reader.text(item, "a matcher in quotes", help) else {
                good = false;
                continue;
            };
            let at = |range: &Span| within(self.reader.source, item, range);
            match Matchers::parse_list(text) {
                Ok(Matchers(list)) if list.is_empty() => {
                    let problem = Problem::new("there is no matcher in this text").help(help);
                    self.reader.fail::<()>(&item.at, problem);
                    good = false;
                }
                Ok(Matchers(list)) => {
                    for matcher in &list {
                        self.quotes(&item.at, matcher);
                    }
                    matchers.extend(list);
                }
                Err(error) => {
                    let at = at(&error.span());
                    let problem = Problem::new(format!("the matcher is not valid: {error}"))
                        .help("matchers are written as in Alertmanager, such as 'severity=~\"critical|page\"'");
                    self.reader.fail::<()>(&at, problem);
                    good = false;
                }
            }
        }
        good.then_some(matchers)
    }

    /// Notes down quotes that are taken for a part of the value, as Alertmanager takes them.
    fn quotes(&mut self, at: &Span, matcher: &Matcher) {
        let Some(meant) = matcher.without_quotes() else {
            return;
        };
        let (name, value) = (matcher.name(), matcher.value());
        let then = match matcher.op() {
            MatchOp::Equal | MatchOp::Matches => "an alert without them does not match",
            MatchOp::NotEqual | MatchOp::NotMatches => "every alert without them matches",
        };
        let problem = Problem::new(format!(
            "the quotes are part of what this matcher compares, label {name} with {value}: {then}"
        ))
        .label("quotes")
        .help(format!(
            "Alertmanager reads it so, too; if they are only to quote, write '{meant}'"
        ));
        self.notes.push(self.reader.source.error(at, problem));
    }

    fn template_error<T>(&mut self, node: &Node, error: &TemplateError) -> Option<T> {
        let at = within(self.reader.source, node, &error.span());
        let mut problem = Problem::new(error.to_string());
        if let Some(help) = error.help() {
            problem = problem.help(help);
        }
        self.reader.fail(&at, problem)
    }

    fn target(&mut self, section: &Section<'_>) -> Option<TargetTemplate> {
        let help = "say what the policy acts on, such as `target: 'docker://local/{{ labels.container }}'`";
        let node = self.reader.required(section, "target", help)?;
        let text = self.reader.text(node, "a target in quotes", help)?;
        let target = match TargetTemplate::parse(text) {
            Ok(target) => target,
            Err(error) => return self.template_error(node, &error),
        };
        if let ("docker", Some(host)) = (target.kind(), target.literal_host())
            && !self.environment.docker_hosts.contains(host)
        {
            let known = self.environment.known_hosts();
            return self.reader.fail(
                &node.at,
                Problem::new(format!(
                    "there is no Docker host `{host}` in the configuration"
                ))
                .help(known),
            );
        }
        Some(target)
    }

    fn mode(&mut self, node: &Node) -> Option<Mode> {
        // YAML 1.1 has `off` for false, and some editors write it so.
        if matches!(node.content, Content::Bool(false)) {
            return Some(Mode::Off);
        }
        let choices = Mode::ALL.map(|mode| (mode.as_str(), mode));
        self.reader.choice(node, "mode", &choices)
    }

    /// `mode` is none where it was not understood: then nothing is said of it again.
    fn approval(&mut self, section: &Section<'_>, mode: Option<Mode>) -> Option<Approval> {
        let default = Approval::default();
        let Some(node) = section.get("approval") else {
            return Some(default);
        };
        if let Some(mode) = mode.filter(|mode| *mode != Mode::Approve) {
            let mode = mode.as_str();
            self.reader.fail::<()>(
                section.key_at("approval"),
                Problem::new(format!(
                    "there is an `approval`, and nothing to approve in mode `{mode}`"
                ))
                .label(format!("the mode is `{mode}`"))
                .help("write `mode: approve`, or remove `approval`"),
            );
        }
        let approval = self.reader.section(node, "approval", &APPROVAL)?;
        let expires = self
            .reader
            .duration(&approval, "expires", default.expires, MINUTE..=7 * DAY);
        let people = self
            .reader
            .count(&approval, "people", default.people, 1..=2);
        let tell = match approval.get("tell") {
            None => Some(default.tell),
            Some(node) => {
                if let Content::Bool(tell) = node.content {
                    Some(tell)
                } else {
                    let help = "whom `escalate` names is told that a plan waits; to tell nobody write `tell: false`";
                    self.reader.wrong_type(node, "true or false", help)
                }
            }
        };
        Some(Approval {
            expires: expires?,
            people: people?,
            tell: tell?,
        })
    }

    /// How many lines; none is off.
    fn evidence(&mut self, node: &Node) -> Option<u32> {
        match &node.content {
            // As with `mode: off`.
            Content::Bool(false) => Some(0),
            Content::Text(word) if word == "off" => Some(0),
            Content::Map(_) => {
                let section = self.reader.section(node, "evidence", &EVIDENCE)?;
                self.reader
                    .count(&section, "logs", DEFAULT_EVIDENCE, 0..=MAX_EVIDENCE)
            }
            _ => {
                let help = "say how many of the container's last log lines to keep, such as `evidence: { logs: 100 }`, or `evidence: off`";
                self.reader.wrong_type(node, "a map or `off`", help)
            }
        }
    }

    fn on_interrupt(
        &mut self,
        section: &Section<'_>,
        inherited: OnInterrupt,
    ) -> Option<OnInterrupt> {
        match section.get("on_interrupt") {
            Some(node) => self.reader.choice(node, "reaction", &INTERRUPTS),
            None => Some(inherited),
        }
    }

    fn steps(
        &mut self,
        section: &Section<'_>,
        on_interrupt: OnInterrupt,
    ) -> Option<Vec<(Step, PluginPlaces)>> {
        let help = "write a list of steps, such as `steps: [{ plugin: docker-restart }]`";
        let node = self.reader.required(section, "steps", help)?;
        let items = self.reader.items(node, "a list of steps", help)?;
        if items.len() > MAX_STEPS {
            let count = items.len();
            self.reader.fail::<()>(
                section.key_at("steps"),
                Problem::new(format!(
                    "there are {count} steps: expected at most {MAX_STEPS}"
                ))
                .help("a ladder that long is better written as one plugin or one playbook"),
            );
        }
        let steps: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(index, item)| self.step(item, index == 0, on_interrupt))
            .collect();
        let steps: Option<Vec<_>> = steps.into_iter().collect();
        steps.filter(|steps| steps.len() <= MAX_STEPS)
    }

    fn step(
        &mut self,
        node: &Node,
        first: bool,
        on_interrupt: OnInterrupt,
    ) -> Option<(Step, PluginPlaces)> {
        let section = self.reader.section(node, "the step", &STEP)?;
        let call = self.plugin(&section, "docker-restart");
        let timeout = self
            .reader
            .duration(&section, "timeout", 2 * MINUTE, SECOND..=DAY);
        let attempts = self.reader.count(&section, "attempts", 1, 1..=MAX_ATTEMPTS);
        let backoff = self.reader.duration(
            &section,
            "backoff",
            5 * SECOND,
            Duration::ZERO..=60 * MINUTE,
        );
        let on_interrupt = self.on_interrupt(&section, on_interrupt);
        let when = match section.get("when") {
            Some(node) => self.when(node, first),
            None => Some(When::default()),
        };
        let (plugin, params, places) = call?;
        Some((
            Step {
                plugin,
                params,
                timeout: timeout?,
                attempts: attempts?,
                backoff: backoff?,
                on_interrupt: on_interrupt?,
                when: when?,
            },
            places,
        ))
    }

    fn when(&mut self, node: &Node, first: bool) -> Option<When> {
        let section = self.reader.section(node, "when", &WHEN)?;
        let after = match section.get("after") {
            Some(_) => self
                .reader
                .duration(&section, "after", 2 * MINUTE, SECOND..=30 * DAY),
            None => Some(Duration::ZERO),
        };
        let on = self.optional(&section, "on", |this, node| {
            let help =
                "name the failures of the step before, such as `on: [retryable, unverified]`";
            let items = this.reader.items(node, "a list of failures", help)?;
            let choices = FAILURES.map(|failure| (failure.as_str(), failure));
            let given: Vec<_> = items
                .iter()
                .map(|item| this.reader.choice(item, "failure", &choices))
                .collect();
            let given: Vec<_> = given.into_iter().collect::<Option<_>>()?;
            // In one order, and each once: what means the same has the same digest.
            let sorted = FAILURES.into_iter().filter(|one| given.contains(one));
            Some(sorted.collect())
        });
        if first && section.get("on").is_some() {
            return self.reader.fail(
                section.key_at("on"),
                Problem::new("the first step has no step before it that could fail")
                    .label("not here")
                    .help("remove `on`, or move the step down the ladder"),
            );
        }
        Some(When {
            after: after?,
            on: on.ok()?.unwrap_or_default(),
        })
    }

    fn escalation(&mut self, node: &Node) -> Option<(Escalation, PluginPlaces)> {
        let section = self.reader.section(node, "escalate", &ESCALATE)?;
        let call = self.plugin(&section, "notify");
        let timeout = self
            .reader
            .duration(&section, "timeout", MINUTE, SECOND..=DAY);
        let attempts = self.reader.count(&section, "attempts", 3, 1..=MAX_ATTEMPTS);
        let held_after = match section.get("held_after") {
            Some(node) if is_off(node) => Some(None),
            _ => self
                .reader
                .duration(
                    &section,
                    "held_after",
                    DEFAULT_HELD_AFTER,
                    SECOND..=30 * DAY,
                )
                .map(Some),
        };
        let (plugin, params, places) = call?;
        Some((
            Escalation {
                plugin,
                params,
                timeout: timeout?,
                attempts: attempts?,
                held_after: held_after?,
            },
            places,
        ))
    }

    /// The keys `plugin` and `params`; `example` is a plugin for the help.
    fn plugin(
        &mut self,
        section: &Section<'_>,
        example: &str,
    ) -> Option<(PluginRef, Map<String, Value>, PluginPlaces)> {
        let help = format!("name a plugin, such as `plugin: {example}`");
        let node = self.reader.required(section, "plugin", &help);
        let name = node.and_then(|node| match &node.content {
            Content::Text(text) => self.plugin_ref(node, text, &help),
            _ => self
                .reader
                .parsed(node, "a plugin name", &help, str::parse::<PluginRef>),
        });
        let params = match section.get("params") {
            Some(node) => self.params(node),
            None => Some(Map::new()),
        };
        let plugin = node?.at.clone();
        let places = PluginPlaces {
            params_key: match section.get("params") {
                Some(_) => section.key_at("params").clone(),
                None => plugin.clone(),
            },
            plugin,
            params: section.get("params").cloned(),
        };
        Some((name?, params?, places))
    }

    /// A plugin's name, and perhaps the version that is meant.
    fn plugin_ref(&mut self, node: &Node, text: &str, help: &str) -> Option<PluginRef> {
        if let Err(PluginRefError::Pin(pin)) = text.parse::<PluginRef>() {
            let at = within(
                self.reader.source,
                node,
                &(text.len() - pin.len()..text.len()),
            );
            return self.reader.fail(
                &at,
                Problem::new(PluginRefError::Pin(pin).to_string())
                    .label("expected a digest")
                    .help("`sentinel plugin list` shows the digests of what serves and served, `sentinel plugin check FILE` that of a file; without a pin, whatever serves is used"),
            );
        }
        self.reader.parsed(node, "a plugin name", help, str::parse)
    }

    fn params(&mut self, node: &Node) -> Option<Map<String, Value>> {
        let before = self.reader.errors.len();
        if !matches!(node.content, Content::Map(_)) {
            let found = node.content.describe();
            return self.reader.fail(
                &node.at,
                Problem::new(format!("expected a map of params, found {found}"))
                    .help("write what the plugin is given, such as `params: { timeout: 5s }`"),
            );
        }
        self.check_params(node);
        match node.to_json() {
            Value::Object(map) if self.reader.errors.len() == before => Some(map),
            _ => None,
        }
    }

    /// Params may be anything that JSON can say, with templates in the texts.
    fn check_params(&mut self, node: &Node) {
        match &node.content {
            Content::Text(text) => {
                if let Err(error) = Template::parse(text) {
                    self.template_error::<()>(node, &error);
                }
            }
            Content::List(items) => items.iter().for_each(|item| self.check_params(item)),
            Content::Map(entries) => {
                let mut seen = BTreeSet::new();
                for (key, value) in entries {
                    match &key.content {
                        Content::Text(name) if seen.insert(name) => self.check_params(value),
                        Content::Text(name) => {
                            let problem =
                                Problem::new(format!("duplicate key `{name}` in the params"))
                                    .label("given again")
                                    .help("keep one of the two");
                            self.reader.fail::<()>(&key.at, problem);
                        }
                        _ => {
                            let problem = yaml::bad_key(key, "quote keys that are not plain words");
                            self.reader.fail::<()>(&key.at, problem);
                        }
                    }
                }
            }
            Content::Null | Content::Bool(_) | Content::Number(_) => {}
        }
    }

    fn verify(&mut self, node: &Node, target: Option<&TargetTemplate>) -> Option<Verify> {
        let help = "a verification is one of `{ http: 'http://nginx/status', within: 30s }`, `{ docker: healthy, within: 30s }`, `{ alert: resolved, within: 2m }`";
        let section = self.reader.section(node, "verify", &VERIFY)?;
        let given: Vec<_> = ["http", "docker", "alert"]
            .into_iter()
            .filter(|key| section.get(key).is_some())
            .collect();
        let check = match given.as_slice() {
            ["http"] => self.verify_http(&section, help),
            ["docker"] => self.verify_docker(&section, target),
            [_] => section.get("alert").and_then(|node| {
                let choices = [("resolved", Check::AlertResolved)];
                self.word(node, "state of the alert", &choices)
            }),
            [] => self.reader.fail(
                section.key_at(""),
                Problem::new("missing what to verify").help(help),
            ),
            [_, second, ..] => self.reader.fail(
                section.key_at(second),
                Problem::new(format!("verify has more than one of {}", given.join(", ")))
                    .label("one too many")
                    .help(help),
            ),
        };
        let within_help = "say how long it may take, such as `within: 30s`";
        let within = self
            .reader
            .required(&section, "within", within_help)
            .and_then(|_| {
                self.reader
                    .duration(&section, "within", 30 * SECOND, SECOND..=DAY)
            });
        let hundred_ms = Duration::from_millis(100);
        let most = within.unwrap_or(DAY);
        let every = match section.get("every") {
            Some(_) => self
                .reader
                .duration(&section, "every", 5 * hundred_ms, hundred_ms..=most),
            None => Some(5 * hundred_ms),
        };
        let default = Verify::default_steady(most);
        let steady = self
            .reader
            .duration(&section, "steady", default, Duration::ZERO..=most);
        Some(Verify {
            check: check?,
            within: within?,
            every: every?,
            steady: steady?,
        })
    }

    fn verify_http(&mut self, section: &Section<'_>, help: &str) -> Option<Check> {
        let node = section.get("http")?;
        let text = self.reader.text(node, "a URL in quotes", help)?;
        match UrlTemplate::parse(text) {
            Ok(template) => Some(Check::Http(template)),
            // About the whole of it.
            Err(error) if error.span() == (0..text.len()) => {
                let problem = Problem::new(error.to_string());
                let problem = problem.help(error.help().unwrap_or(help));
                self.reader.fail(&node.at, problem)
            }
            Err(error) => self.template_error(node, &error),
        }
    }

    fn verify_docker(
        &mut self,
        section: &Section<'_>,
        target: Option<&TargetTemplate>,
    ) -> Option<Check> {
        let node = section.get("docker")?;
        let choices = [
            ("healthy", Check::DockerHealthy),
            ("running", Check::DockerRunning),
        ];
        let check = self.word(node, "state of the container", &choices);
        if let Some(kind) = target
            .map(TargetTemplate::kind)
            .filter(|kind| *kind != "docker")
        {
            return self.reader.fail(
                section.key_at("docker"),
                Problem::new(format!(
                    "verify looks at a container, and the target is of the kind `{kind}`"
                ))
                .help("verify by http or alert, or give the policy a docker:// target"),
            );
        }
        check
    }

    /// [`Reader::choice`] for what cannot be copied.
    fn word(&mut self, node: &Node, what: &str, choices: &[(&str, Check)]) -> Option<Check> {
        let indices: Vec<_> = choices
            .iter()
            .enumerate()
            .map(|(index, (name, _))| (*name, index))
            .collect();
        let index = self.reader.choice(node, what, &indices)?;
        choices.get(index).map(|(_, check)| check.clone())
    }

    fn grants(&mut self, node: &Node) -> Option<Grants> {
        let section = self.reader.section(node, "grants", &GRANTS)?;
        let docker = self.optional(&section, "docker", Self::docker_grant);
        let ansible = self.optional(&section, "ansible", Self::ansible_grant);
        let http = self.optional(&section, "http", Self::http_grants);
        let mail = self.optional(&section, "mail", |this, node| {
            this.mail_grant(node, section.key_at("mail"))
        });
        let memory = self.optional(&section, "memory", |this, node| {
            let Content::Bool(granted) = node.content else {
                let help = "plugins may remember something under this policy with `memory: true`";
                return this.reader.wrong_type(node, "true or false", help);
            };
            Some(granted)
        });
        Some(Grants {
            docker: docker.ok()?,
            ansible: ansible.ok()?,
            http: http.ok()?.unwrap_or_default(),
            mail: mail.ok()?.unwrap_or_default(),
            memory: memory.ok()?.unwrap_or_default(),
        })
    }

    fn ansible_grant(&mut self, node: &Node) -> Option<AnsibleGrant> {
        let help = "name the playbooks, such as `ansible: { playbooks: ['restart-*.yml'] }`";
        let section = self
            .reader
            .section(node, "the grant of ansible", &ANSIBLE)?;
        let playbooks = self.reader.required(&section, "playbooks", help);
        let playbooks = playbooks.and_then(|node| self.globs(node, help));
        let vars = self.optional(&section, "vars", Self::ansible_vars);
        let hosts = self.optional(&section, "hosts", |this, node| {
            let help = "name hosts, and groups by their very name, such as `hosts: ['web*', edge]`; `hosts: [all]` is every host of the inventory";
            this.globs(node, help)
        });
        let tags = self.optional(&section, "tags", |this, node| {
            this.globs(node, "name the tags, such as `tags: [restart, 'safe-*']`")
        });
        Some(AnsibleGrant {
            playbooks: playbooks?,
            vars: vars.ok()?.unwrap_or_default(),
            hosts: hosts.ok()?.unwrap_or_default(),
            tags: tags.ok()?.unwrap_or_default(),
            anything: false,
        })
    }

    /// Variables and the values that each may have.
    fn ansible_vars(&mut self, node: &Node) -> Option<BTreeMap<String, Vec<Glob>>> {
        let help = "name each variable and the values that it may have, such as `vars: { service: ['web-*', api], retries: '[1-5]' }`; '**' is any value";
        let Content::Map(entries) = &node.content else {
            return self.reader.wrong_type(node, "a map of variables", help);
        };
        let mut vars = BTreeMap::new();
        let mut good = true;
        for (key, value) in entries {
            let Content::Text(name) = &key.content else {
                let problem = yaml::bad_key(key, help);
                self.reader.fail::<()>(&key.at, problem);
                good = false;
                continue;
            };
            let problem = if name == INCIDENT_VARIABLE {
                Some(format!(
                    "variable `{name}` is what the daemon tells of the incident, and is not granted"
                ))
            } else if vars.contains_key(name) {
                Some(format!("duplicate variable `{name}` in the grant"))
            } else {
                variable_problem(name)
            };
            if let Some(problem) = problem {
                let problem = Problem::new(problem).help(help);
                self.reader.fail::<()>(&key.at, problem);
                good = false;
                continue;
            }
            match self.values(value, help) {
                Some(values) => {
                    vars.insert(name.clone(), values);
                }
                None => good = false,
            }
        }
        good.then_some(vars)
    }

    /// One pattern for values or a list of them. A number stands for itself.
    fn values(&mut self, node: &Node, help: &str) -> Option<Vec<Glob>> {
        let items = match &node.content {
            Content::List(_) => self.reader.items(node, "a list of values", help)?,
            _ => std::slice::from_ref(node),
        };
        let values: Vec<_> = items
            .iter()
            .map(|item| match &item.content {
                Content::Number(number) => number.to_string().parse::<Glob>().ok(),
                Content::Bool(truth) => truth.to_string().parse::<Glob>().ok(),
                _ => self
                    .reader
                    .parsed(item, "a pattern for values", help, str::parse::<Glob>),
            })
            .collect();
        values.into_iter().collect()
    }

    /// Who may be sent mail, if there is a server to send it by.
    fn mail_grant(&mut self, node: &Node, at: &Span) -> Option<Vec<AddressPattern>> {
        let help =
            "name who may be sent mail, such as `mail: [oncall@example.com, '*@ops.example.com']`";
        let patterns = self
            .reader
            .list(node, "recipient", help, str::parse::<AddressPattern>)?;
        if self.environment.mail == Some(false) {
            let message = "mail is granted, and the configuration names no server to send it by";
            let help = "write `mail: { server: smtp.example.com, from: sentinel@example.com }` in the configuration, or leave the grant out";
            return self.reader.fail(at, Problem::new(message).help(help));
        }
        Some(patterns)
    }

    /// One grant, or a list of them.
    fn http_grants(&mut self, node: &Node) -> Option<Vec<HttpGrant>> {
        if matches!(node.content, Content::Map(_)) {
            return self.http_grant(node).map(|grant| vec![grant]);
        }
        let items = self
            .reader
            .items(node, "a grant of http, or a list of them", HTTP_HELP)?;
        let grants: Vec<_> = items.iter().map(|item| self.http_grant(item)).collect();
        grants.into_iter().collect()
    }

    fn http_grant(&mut self, node: &Node) -> Option<HttpGrant> {
        let section = self.reader.section(node, "the grant of http", &HTTP)?;
        let urls = self.reader.required(&section, "urls", HTTP_HELP);
        let urls = urls.and_then(|node| {
            let help = "a pattern is a URL with globs in its path, and perhaps `*.` before its host, such as 'https://api.example.com/v2/**'";
            self.reader
                .list(node, "URL pattern", help, str::parse::<UrlPattern>)
        });
        let methods = self.reader.required(&section, "methods", HTTP_HELP);
        let methods = methods.and_then(|node| {
            let items = self.reader.items(node, "a list of methods", HTTP_HELP)?;
            let choices = HttpMethod::ALL.map(|method| (method.as_str(), method));
            let methods: Vec<_> = items
                .iter()
                .map(|item| self.reader.choice(item, "method", &choices))
                .collect();
            methods.into_iter().collect::<Option<BTreeSet<_>>>()
        });
        let secrets = self.optional(&section, "secrets", |this, node| {
            let help = "name the secrets of the configuration, such as `secrets: [pager-key]`";
            let secrets = this.globs(node, help)?;
            this.known_secrets(secrets, section.key_at("secrets"))
        });
        let answers = self.optional(&section, "answers", |this, node| {
            let Content::Bool(shown) = node.content else {
                let help = "plugins are told what is answered to their requests with secrets with `answers: true`";
                return this.reader.wrong_type(node, "true or false", help);
            };
            Some(shown)
        });
        Some(HttpGrant {
            answers: answers.ok()?.unwrap_or_default(),
            urls: urls?,
            methods: methods?,
            secrets: secrets.ok()?.unwrap_or_default(),
        })
    }

    /// The patterns, if each fits a secret that exists.
    fn known_secrets(&mut self, globs: Vec<Glob>, at: &Span) -> Option<Vec<Glob>> {
        let Some(secrets) = &self.environment.secrets else {
            return Some(globs);
        };
        let fits = |glob: &Glob| secrets.iter().any(|name| glob.matches(name));
        let Some(unknown) = globs.iter().find(|glob| !fits(glob)) else {
            return Some(globs);
        };
        let message = format!("no secret in the configuration fits `{unknown}`");
        let help = if secrets.is_empty() {
            "the configuration names no secret under `http: { secrets: … }`".to_owned()
        } else {
            let names: Vec<_> = secrets.iter().map(String::as_str).collect();
            format!("the configuration knows {}", names.join(", "))
        };
        self.reader.fail(at, Problem::new(message).help(help))
    }

    fn docker_grant(&mut self, node: &Node) -> Option<DockerGrant> {
        let help = "name the containers and the actions, such as `docker: { containers: ['nginx*'], actions: [inspect, restart] }`";
        let section = self.reader.section(node, "the grant of docker", &DOCKER)?;
        let hosts = match section.get("hosts") {
            Some(node) => self.globs(node, "name the hosts, such as `hosts: ['local']`"),
            None => "local".parse().ok().map(|glob| vec![glob]),
        };
        let hosts = hosts.and_then(|hosts| self.known(hosts, section.key_at("hosts")));
        let containers = self.optional(&section, "containers", |this, node| this.globs(node, help));
        let labels = self.optional(&section, "labels", |this, node| {
            let help = "a label is `key=value`, or `key` for any value, such as `labels: ['com.example.heal=yes']`";
            this.reader.list(node, "label", help, str::parse::<LabelGrant>)
        });
        if section.get("containers").is_none() && section.get("labels").is_none() {
            self.reader.fail::<()>(
                section.key_at(""),
                Problem::new("missing key `containers` or `labels` in the grant of docker")
                    .label("which containers?")
                    .help(help),
            );
        }
        let actions = self.reader.required(&section, "actions", help);
        let actions = actions.and_then(|node| self.actions(node, help));
        let new_labels = self.optional(&section, "new_labels", |this, node| {
            let help = "name the labels that a new container may be given, such as `new_labels: ['com.example.*']`";
            this.globs(node, help)
        });
        let (containers, labels) = (containers.ok()?, labels.ok()?);
        if containers.is_none() && labels.is_none() {
            return None;
        }
        Some(DockerGrant {
            hosts: hosts?,
            containers: containers.unwrap_or_default(),
            labels: labels.unwrap_or_default(),
            actions: actions?,
            new_labels: new_labels.ok()?.unwrap_or_default(),
        })
    }

    fn actions(&mut self, node: &Node, help: &str) -> Option<BTreeSet<DockerAction>> {
        let items = self.reader.items(node, "a list of actions", help)?;
        let choices = DockerAction::ALL.map(|action| (action.as_str(), action));
        let actions: Vec<_> = items
            .iter()
            .map(|item| self.reader.choice(item, "action", &choices))
            .collect();
        actions.into_iter().collect()
    }

    fn globs(&mut self, node: &Node, help: &str) -> Option<Vec<Glob>> {
        self.reader.list(node, "pattern", help, str::parse::<Glob>)
    }

    /// The patterns, if each fits a host that exists: one that fits none is a slip.
    fn known(&mut self, hosts: Vec<Glob>, at: &Span) -> Option<Vec<Glob>> {
        let unknown = hosts.iter().find(|glob| {
            let exists = |host: &String| glob.matches(host);
            !self.environment.docker_hosts.iter().any(exists)
        });
        let Some(unknown) = unknown else {
            return Some(hosts);
        };
        let message = format!("no Docker host in the configuration fits `{unknown}`");
        let known = self.environment.known_hosts();
        let help = format!("{known}; a grant without `hosts` is for the host `local`");
        self.reader.fail(at, Problem::new(message).help(help))
    }
}

/// Whether it says `off`, which YAML 1.1 has for false.
fn is_off(node: &Node) -> bool {
    match &node.content {
        Content::Bool(on) => !on,
        Content::Text(word) => word == "off",
        _ => false,
    }
}

/// The policy's name, before anything has been checked.
fn name_of(node: &Node) -> Option<impl Display> {
    let Content::Map(entries) = &node.content else {
        return None;
    };
    entries
        .iter()
        .find_map(|(key, value)| match (&key.content, &value.content) {
            (Content::Text(key), Content::Text(name)) if key == "name" => {
                PolicyName::new(name.as_str()).ok()
            }
            _ => None,
        })
}
