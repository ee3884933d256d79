//! From the tree to policies: what each key means.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::Duration;

use serde_json::{Map, Value};

use super::error::{PolicyError, Problem, Source, Span};
use super::model::{
    Check, DEFAULT_EVIDENCE, DEFAULT_TTL, Mode, Policy, SourceLocation, Step, Verify, check_url,
};
use super::section::{Keys, Reader, Section};
use super::set::Environment;
use super::yaml::{self, Content, Node, within};
use crate::capability::DockerAction;
use crate::grant::{AnsibleGrant, DockerGrant, Glob, Grants, LabelGrant};
use crate::guard::settings::{DEFAULT_COOLDOWN, Guards};
use crate::id::{Digest, PluginName, PolicyName};
use crate::incident::{Approval, OnInterrupt, When};
use crate::matcher::{Matcher, Matchers};
use crate::template::{TargetTemplate, Template, TemplateError};

const FILE: Keys = Keys {
    known: &["policies"],
    later: &[],
};
const POLICY: Keys = Keys {
    known: &[
        "name",
        "description",
        "match",
        "target",
        "mode",
        "steps",
        "verify",
        "guards",
        "grants",
        "on_interrupt",
    ],
    later: &["escalate"],
};
const STEP: Keys = Keys {
    known: &[
        "plugin",
        "params",
        "timeout",
        "attempts",
        "backoff",
        "on_interrupt",
    ],
    later: &[],
};
const VERIFY: Keys = Keys {
    known: &["http", "docker", "alert", "within", "every"],
    later: &[],
};
const GUARDS: Keys = Keys {
    known: &["cooldown"],
    later: &[
        "rate",
        "flapping",
        "concurrency",
        "blast_radius",
        "circuit_breaker",
        "maintenance",
    ],
};
const GRANTS: Keys = Keys {
    known: &["docker", "ansible"],
    later: &["http", "memory"],
};
const DOCKER: Keys = Keys {
    known: &["hosts", "containers", "labels", "actions"],
    later: &[],
};
const ANSIBLE: Keys = Keys {
    known: &["playbooks"],
    later: &[],
};

const MAX_STEPS: usize = 16;
const MAX_ATTEMPTS: u32 = 20;
const DAY: Duration = Duration::from_hours(24);

const INTERRUPTS: [(&str, OnInterrupt); 2] = [
    ("rerun", OnInterrupt::Rerun),
    ("escalate", OnInterrupt::Escalate),
];

/// A policy with the places that later checks point at.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) policy: Policy,
    pub(super) steps: Vec<StepPlaces>,
}

/// Where a step says what.
#[derive(Debug, Clone)]
pub(super) struct StepPlaces {
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
    }
}

/// A mistake that has been noted down.
struct Noted;

struct PolicyReader<'a> {
    reader: Reader<'a>,
    environment: &'a Environment,
    names: Vec<(PolicyName, Span)>,
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
        let mode = self.mode(&section);
        let on_interrupt = self.on_interrupt(&section, OnInterrupt::Escalate);
        let steps = self.steps(&section, on_interrupt.unwrap_or(OnInterrupt::Escalate));
        let verify = match section.get("verify") {
            Some(node) => self.verify(node, target.as_ref()),
            None => Some(Verify {
                check: Check::AlertResolved,
                within: Duration::from_mins(5),
                every: Duration::from_millis(500),
            }),
        };
        let guards = match section.get("guards") {
            Some(node) => self.guards(node),
            None => Some(Guards::default()),
        };
        let grants = match section.get("grants") {
            Some(node) => self.grants(node),
            None => Some(Grants::default()),
        };
        on_interrupt?;
        let (steps, places) = steps?.into_iter().unzip();
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
            approval: Approval::default(),
            ttl: DEFAULT_TTL,
            evidence: DEFAULT_EVIDENCE,
            escalate: None,
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
            steps: places,
        })
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
                Ok(Matchers(list)) => matchers.extend(list),
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
            let known = self.known_hosts();
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

    fn known_hosts(&self) -> String {
        let hosts = &self.environment.docker_hosts;
        if hosts.is_empty() {
            return "the configuration names no Docker host under `docker: { hosts: … }`"
                .to_owned();
        }
        let hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
        format!("the configuration knows {}", hosts.join(", "))
    }

    fn mode(&mut self, section: &Section<'_>) -> Option<Mode> {
        let help = "write `mode: auto` to let the policy act, or `mode: off` to switch it off";
        let node = self.reader.required(section, "mode", help)?;
        // YAML 1.1 has `off` for false, and some editors write it so.
        if matches!(node.content, Content::Bool(false)) {
            return Some(Mode::Off);
        }
        let choices = [Mode::Auto, Mode::Off].map(|mode| (mode.as_str(), mode));
        self.reader
            .choice(node, "mode", &choices, &["shadow", "approve"])
    }

    fn on_interrupt(
        &mut self,
        section: &Section<'_>,
        inherited: OnInterrupt,
    ) -> Option<OnInterrupt> {
        match section.get("on_interrupt") {
            Some(node) => self.reader.choice(node, "reaction", &INTERRUPTS, &[]),
            None => Some(inherited),
        }
    }

    fn steps(
        &mut self,
        section: &Section<'_>,
        on_interrupt: OnInterrupt,
    ) -> Option<Vec<(Step, StepPlaces)>> {
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
            .map(|item| self.step(item, on_interrupt))
            .collect();
        let steps: Option<Vec<_>> = steps.into_iter().collect();
        steps.filter(|steps| steps.len() <= MAX_STEPS)
    }

    fn step(&mut self, node: &Node, on_interrupt: OnInterrupt) -> Option<(Step, StepPlaces)> {
        let section = self.reader.section(node, "the step", &STEP)?;
        let help = "name a plugin, such as `plugin: docker-restart`";
        let plugin = self.reader.required(&section, "plugin", help);
        let plugin_at = plugin.map(|node| node.at.clone());
        let plugin = plugin.and_then(|node| {
            self.reader
                .parsed(node, "a plugin name", help, str::parse::<PluginName>)
        });
        let params = match section.get("params") {
            Some(node) => self.params(node),
            None => Some(Map::new()),
        };
        let seconds = Duration::from_secs;
        let timeout = self
            .reader
            .duration(&section, "timeout", seconds(120), seconds(1)..=DAY);
        let attempts = self.reader.count(&section, "attempts", 1, 1..=MAX_ATTEMPTS);
        let backoff = self.reader.duration(
            &section,
            "backoff",
            seconds(5),
            Duration::ZERO..=seconds(3600),
        );
        let on_interrupt = self.on_interrupt(&section, on_interrupt);
        let plugin_at = plugin_at?;
        Some((
            Step {
                plugin: plugin?,
                params: params?,
                timeout: timeout?,
                attempts: attempts?,
                backoff: backoff?,
                on_interrupt: on_interrupt?,
                when: When::default(),
            },
            StepPlaces {
                params_key: match section.get("params") {
                    Some(_) => section.key_at("params").clone(),
                    None => plugin_at.clone(),
                },
                plugin: plugin_at,
                params: section.get("params").cloned(),
            },
        ))
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
        let second = Duration::from_secs(1);
        let within_help = "say how long it may take, such as `within: 30s`";
        let within = self
            .reader
            .required(&section, "within", within_help)
            .and_then(|_| {
                self.reader
                    .duration(&section, "within", 30 * second, second..=DAY)
            });
        let hundred_ms = Duration::from_millis(100);
        let most = within.unwrap_or(DAY);
        let every = match section.get("every") {
            Some(_) => self
                .reader
                .duration(&section, "every", 5 * hundred_ms, hundred_ms..=most),
            None => Some(5 * hundred_ms),
        };
        Some(Verify {
            check: check?,
            within: within?,
            every: every?,
        })
    }

    fn verify_http(&mut self, section: &Section<'_>, help: &str) -> Option<Check> {
        let node = section.get("http")?;
        let text = self.reader.text(node, "a URL in quotes", help)?;
        let template = match Template::parse(text) {
            Ok(template) => template,
            Err(error) => return self.template_error(node, &error),
        };
        if template.is_literal()
            && let Err(problem) = check_url(text)
        {
            let problem = Problem::new(problem).help(
                "expected an http or https URL without a user, such as 'http://nginx/status'",
            );
            return self.reader.fail(&node.at, problem);
        }
        Some(Check::Http(template))
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
        let index = self.reader.choice(node, what, &indices, &[])?;
        choices.get(index).map(|(_, check)| check.clone())
    }

    fn guards(&mut self, node: &Node) -> Option<Guards> {
        let section = self.reader.section(node, "guards", &GUARDS)?;
        let second = Duration::from_secs(1);
        let cooldown =
            self.reader
                .duration(&section, "cooldown", DEFAULT_COOLDOWN, second..=30 * DAY);
        Some(Guards {
            cooldown: cooldown?,
            ..Guards::default()
        })
    }

    fn grants(&mut self, node: &Node) -> Option<Grants> {
        let section = self.reader.section(node, "grants", &GRANTS)?;
        let docker = self.optional(&section, "docker", Self::docker_grant);
        let ansible = self.optional(&section, "ansible", |this, node| {
            let help = "name the playbooks, such as `ansible: { playbooks: ['restart-*.yml'] }`";
            let section = this
                .reader
                .section(node, "the grant of ansible", &ANSIBLE)?;
            let playbooks = this.reader.required(&section, "playbooks", help)?;
            let playbooks = this.globs(playbooks, help)?;
            Some(AnsibleGrant { playbooks })
        });
        Some(Grants {
            docker: docker.ok()?,
            ansible: ansible.ok()?,
        })
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
        let (containers, labels) = (containers.ok()?, labels.ok()?);
        if containers.is_none() && labels.is_none() {
            return None;
        }
        Some(DockerGrant {
            hosts: hosts?,
            containers: containers.unwrap_or_default(),
            labels: labels.unwrap_or_default(),
            actions: actions?,
        })
    }

    fn actions(&mut self, node: &Node, help: &str) -> Option<BTreeSet<DockerAction>> {
        let items = self.reader.items(node, "a list of actions", help)?;
        let choices = DockerAction::ALL.map(|action| (action.as_str(), action));
        let actions: Vec<_> = items
            .iter()
            .map(|item| self.reader.choice(item, "action", &choices, &[]))
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
        let known = self.known_hosts();
        let help = format!("{known}; a grant without `hosts` is for the host `local`");
        self.reader.fail(at, Problem::new(message).help(help))
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
