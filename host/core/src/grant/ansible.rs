//! What a plugin may have Ansible do: which playbooks, with which variables, on which
//! hosts, for which container.

use core::net::Ipv6Addr;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Denied, DockerGrant, Glob, Grants, is_inside, list, shown};
use crate::alert::Labels;
use crate::capability::{AnsibleRequest, CapabilityError, DockerAction};
use crate::id::Target;

/// The variable in which every playbook finds the incident. The daemon fills it.
pub const INCIDENT_VARIABLE: &str = "sentinel";

/// The variable that a plugin may set to the name of the target's container without a
/// grant of its own: the grant of docker has decided on that container.
pub const CONTAINER_VARIABLE: &str = "container";

/// The group that Ansible has every host in.
const ALL: &str = "all";

/// Takes any value, also one that is neither a text nor a number.
const ANY_VALUE: &str = "**";

/// More than any sensible name has.
const LENGTH: usize = 255;

/// Names that mean something to Ansible itself; the `ansible_…` ones besides.
const TAKEN: [&str; 22] = [
    "environment",
    "group_names",
    "groups",
    "hostvars",
    "inventory_dir",
    "inventory_file",
    "inventory_hostname",
    "inventory_hostname_short",
    "item",
    "lookup",
    "now",
    "omit",
    "play_hosts",
    "playbook_dir",
    "q",
    "query",
    "role_name",
    "role_names",
    "role_path",
    "undef",
    "vars",
    "play_name",
];

/// Which playbooks may be run, and with what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnsibleGrant {
    /// Paths inside the playbooks folder: one of the patterns has to fit.
    pub playbooks: Vec<Glob>,
    /// The variables that may be set, and the values that each may have: one of the
    /// patterns has to fit. No other variable may be set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vars: BTreeMap<String, Vec<Glob>>,
    /// Names of hosts, and groups by their very name: the hosts that a playbook runs on
    /// have to be among them. Empty stands for those that the playbook itself names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Glob>,
    /// The tags that may be asked for; none where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Glob>,
    /// Whether nothing is asked: for a dry run by hand. No policy can say so.
    #[serde(skip)]
    pub anything: bool,
}

/// Why something is not granted, and what would grant it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is not granted, and what is.
    pub reason: String,
    /// The grants as they would have to be, in YAML.
    pub write: String,
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        let Refusal { reason, write } = refusal;
        Self(format!(
            "{reason}; if that is wanted, write `grants: {{ {write} }}`"
        ))
    }
}

/// The name of the one host that `text` is: a name of letters, digits, `.`, `_` and `-`,
/// or an IPv6 address, each also with a port, which is cut off (`web1:9100`,
/// `[2001:db8::1]:9100`, as Prometheus writes `instance`). Never a pattern.
pub fn host_name(text: &str) -> Result<&str, String> {
    let refuse = || {
        Err(format!(
            "{} is not the name of one host: letters, digits, `.`, `_` and `-`, or an IPv6 address, and perhaps a port, which is cut off",
            shown(text)
        ))
    };
    if text.len() > LENGTH {
        return refuse();
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok(text);
    }
    if let Some(rest) = text.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((address, port))
                if address.parse::<Ipv6Addr>().is_ok()
                    && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)) =>
            {
                Ok(address)
            }
            _ => refuse(),
        };
    }
    let name = match text.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return refuse(),
        None => text,
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || !name.chars().all(is_plain) {
        return refuse();
    }
    Ok(name)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// The hosts and groups that a request's `limit` names, without ports.
pub fn limit_names(limit: &str) -> Result<Vec<&str>, CapabilityError> {
    limit
        .split(',')
        .map(host_name)
        .collect::<Result<_, _>>()
        .map_err(|problem| {
            CapabilityError::Invalid(format!(
                "limit {}: {problem}; several names are separated by commas, and for a pattern of Ansible's make a group in the inventory",
                shown(limit)
            ))
        })
}

/// Why no playbook can be given a variable of this name; nothing for one that can.
#[must_use]
pub fn variable_problem(name: &str) -> Option<String> {
    let formed = name.len() <= LENGTH
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let name_shown = shown(name);
    if !formed {
        return Some(format!(
            "variable {name_shown} is not letters, digits and underscores with a letter or underscore first"
        ));
    }
    if name.starts_with("ansible_") {
        return Some(format!(
            "variable {name_shown} would steer how Ansible connects and what it runs; that belongs into the inventory"
        ));
    }
    TAKEN
        .contains(&name)
        .then(|| format!("variable {name_shown} is Ansible's own"))
}

/// Why a tag cannot be asked for; nothing for one that can.
#[must_use]
pub fn tag_problem(tag: &str) -> Option<String> {
    let is_plain =
        |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/' | '@' | '+' | ' ');
    let formed = !tag.trim().is_empty() && tag.len() <= LENGTH && tag.chars().all(is_plain);
    (!formed).then(|| {
        format!(
            "tag {} is empty or has other characters than letters, digits, spaces and `._-:/@+`",
            shown(tag)
        )
    })
}

impl AnsibleGrant {
    /// Any playbook in any way, for dry runs that no policy stands behind.
    #[must_use]
    pub fn anything() -> Self {
        Self {
            anything: true,
            ..Self::default()
        }
    }

    /// Whether the group of all hosts is granted.
    #[must_use]
    pub fn has_all_hosts(&self) -> bool {
        self.hosts.iter().any(|host| host.as_str() == ALL)
    }

    /// Whether this playbook may be run.
    pub fn check_playbook(&self, playbook: &str) -> Result<(), Refusal> {
        if self.anything || fits(&self.playbooks, playbook) {
            return Ok(());
        }
        let mut wanted = self.clone();
        wanted.playbooks.extend(literal(playbook));
        Err(Refusal {
            reason: format!(
                "ansible.run of {} is not granted: the policy grants the playbooks {}",
                shown(playbook),
                list(&self.playbooks)
            ),
            write: wanted.to_write(),
        })
    }

    /// Whether a variable of this name may be set to anything at all.
    pub fn check_variable(&self, name: &str) -> Result<(), Refusal> {
        if self.anything || self.vars.contains_key(name) {
            return Ok(());
        }
        Err(self.no_variable(name, "VALUE"))
    }

    fn no_variable(&self, name: &str, value: &str) -> Refusal {
        let granted = if self.vars.is_empty() {
            "no variables".to_owned()
        } else {
            format!("the variables {}", list(self.vars.keys()))
        };
        let mut wanted = self.clone();
        wanted
            .vars
            .insert(name.to_owned(), literal(value).into_iter().collect());
        Refusal {
            reason: format!(
                "ansible.run with the variable {} is not granted: the policy grants {granted}",
                shown(name)
            ),
            write: wanted.to_write(),
        }
    }

    /// Whether a variable of this name may have this value.
    pub fn check_value(&self, name: &str, value: &Value) -> Result<(), Refusal> {
        if self.anything {
            return Ok(());
        }
        let first = first_text(value);
        let Some(patterns) = self.vars.get(name) else {
            return Err(self.no_variable(name, first.as_deref().unwrap_or(ANY_VALUE)));
        };
        if takes(patterns, value) {
            return Ok(());
        }
        let missing = misfit(patterns, value).unwrap_or_else(|| ANY_VALUE.to_owned());
        let mut wanted = self.clone();
        wanted
            .vars
            .entry(name.to_owned())
            .or_default()
            .extend(literal(&missing));
        Err(Refusal {
            reason: format!(
                "ansible.run with {} for the variable {} is not granted: the policy grants the values {}",
                shown(&value_text(value)),
                shown(name),
                list(patterns)
            ),
            write: wanted.to_write(),
        })
    }

    /// Whether a run may be limited to the host or group of this name. Which hosts a
    /// playbook runs on is looked at once more when Ansible knows them.
    pub fn check_host(&self, name: &str) -> Result<(), Refusal> {
        if self.anything || self.hosts.is_empty() || self.has_all_hosts() || fits(&self.hosts, name)
        {
            return Ok(());
        }
        let mut wanted = self.clone();
        wanted.hosts.extend(literal(name));
        Err(Refusal {
            reason: format!(
                "ansible.run on {} is not granted: the policy grants the hosts {}",
                shown(name),
                list(&self.hosts)
            ),
            write: wanted.to_write(),
        })
    }

    /// Whether this tag may be asked for.
    pub fn check_tag(&self, tag: &str) -> Result<(), Refusal> {
        if self.anything || fits(&self.tags, tag) {
            return Ok(());
        }
        let granted = if self.tags.is_empty() {
            "no tags".to_owned()
        } else {
            format!("the tags {}", list(&self.tags))
        };
        let mut wanted = self.clone();
        wanted.tags.extend(literal(tag));
        Err(Refusal {
            reason: format!(
                "ansible.run with the tag {} is not granted: the policy grants {granted}",
                shown(tag)
            ),
            write: wanted.to_write(),
        })
    }

    /// The grant in YAML.
    #[must_use]
    pub fn to_write(&self) -> String {
        let mut keys = vec![format!("playbooks: {}", quoted(&self.playbooks))];
        if !self.vars.is_empty() {
            let vars: Vec<_> = self
                .vars
                .iter()
                .map(|(name, patterns)| match patterns.as_slice() {
                    [one] => format!("{name}: {}", quote(one.as_str())),
                    several => format!("{name}: {}", quoted(several)),
                })
                .collect();
            keys.push(format!("vars: {{ {} }}", vars.join(", ")));
        }
        if !self.hosts.is_empty() {
            keys.push(format!("hosts: {}", quoted(&self.hosts)));
        }
        if !self.tags.is_empty() {
            keys.push(format!("tags: {}", quoted(&self.tags)));
        }
        format!("ansible: {{ {} }}", keys.join(", "))
    }
}

impl Grants {
    /// Whether the playbook at this path inside the playbooks folder is granted. A path
    /// that leads out of the folder never is, whatever the patterns say.
    pub fn allows_ansible(&self, playbook: &str) -> Result<(), Denied> {
        let Some(grant) = &self.ansible else {
            return Err(Denied(
                "ansible.run is not granted: the policy grants nothing of ansible".to_owned(),
            ));
        };
        if !is_inside(playbook) {
            return Err(Denied(format!(
                "ansible.run of {} is not granted: a playbook is a path inside the playbooks folder, without `..`",
                shown(playbook)
            )));
        }
        Ok(grant.check_playbook(playbook)?)
    }

    /// Whether everything that `request` asks for is granted: playbook, variables, limit
    /// and tags. `target` is what the run acts on. What a plugin says of the incident in
    /// [`INCIDENT_VARIABLE`] is not looked at here.
    pub fn allows_ansible_request(
        &self,
        request: &AnsibleRequest,
        target: Option<&Target>,
    ) -> Result<(), CapabilityError> {
        self.allows_ansible(&request.playbook)?;
        let Some(grant) = &self.ansible else {
            return Ok(());
        };
        let denied = |refusal: Refusal| CapabilityError::from(Denied::from(refusal));
        let container = target.filter(|target| target.kind() == "docker");
        for (name, value) in &request.extra_vars {
            let is_target = name == CONTAINER_VARIABLE
                && container.is_some_and(|target| value.as_str() == Some(target.name()));
            if name == INCIDENT_VARIABLE || is_target {
                continue;
            }
            if let Some(problem) = variable_problem(name) {
                return Err(CapabilityError::Invalid(problem));
            }
            grant.check_value(name, value).map_err(denied)?;
        }
        if let Some(limit) = &request.limit {
            for name in limit_names(limit)? {
                grant.check_host(name).map_err(denied)?;
            }
        }
        for tag in &request.tags {
            if let Some(problem) = tag_problem(tag) {
                return Err(CapabilityError::Invalid(problem));
            }
            grant.check_tag(tag).map_err(denied)?;
        }
        Ok(())
    }

    /// Whether a playbook may be run for a target that is the container with this name and
    /// these labels: whoever acts on a container needs a grant of docker that covers it.
    pub fn allows_ansible_on(&self, host: &str, name: &str, labels: &Labels) -> Result<(), Denied> {
        if self.ansible.as_ref().is_some_and(|grant| grant.anything) {
            return Ok(());
        }
        Ok(self.check_ansible_container(host, name, labels)?)
    }

    /// The same, with what would grant it told apart.
    pub fn check_ansible_container(
        &self,
        host: &str,
        name: &str,
        labels: &Labels,
    ) -> Result<(), Refusal> {
        self.check_ansible_host(host, name)?;
        match &self.docker {
            Some(grant) if !grant.covers(name, labels) => Err(Refusal {
                reason: format!(
                    "ansible.run for the container {} is not granted: a playbook acts on its target, and of docker the policy grants the containers {}",
                    shown(name),
                    grant.containers_text()
                ),
                write: docker_to_write(Some(grant), host, name),
            }),
            _ => Ok(()),
        }
    }

    /// Whether the grant of docker asks for labels of containers.
    #[must_use]
    pub fn docker_by_label(&self) -> bool {
        self.docker
            .as_ref()
            .is_some_and(|grant| !grant.labels.is_empty())
    }

    /// The part of [`Self::allows_ansible_on`] that is known before the container is: a
    /// grant of docker for the host, with an action that changes something.
    pub fn check_ansible_host(&self, host: &str, name: &str) -> Result<(), Refusal> {
        let refuse = |why: &str, grant: Option<&DockerGrant>| {
            Err(Refusal {
                reason: format!(
                    "ansible.run for the container {} is not granted: a playbook acts on its target, and of docker the policy grants {why}",
                    shown(name)
                ),
                write: docker_to_write(grant, host, name),
            })
        };
        let Some(grant) = &self.docker else {
            return refuse("nothing", None);
        };
        if !fits(&grant.hosts, host) {
            let hosts = format!("the hosts {}", list(&grant.hosts));
            return refuse(&hosts, Some(grant));
        }
        if !grant.actions.iter().any(|action| action.is_effect()) {
            return refuse("no action that changes something", Some(grant));
        }
        Ok(())
    }
}

/// A grant of docker under which a playbook may act on the container.
fn docker_to_write(grant: Option<&DockerGrant>, host: &str, name: &str) -> String {
    let mut keys = Vec::new();
    let mut hosts: Vec<String> = grant
        .map(|grant| grant.hosts.iter().map(ToString::to_string).collect())
        .unwrap_or_default();
    if !grant.is_some_and(|grant| fits(&grant.hosts, host)) {
        hosts.push(host.to_owned());
    }
    if hosts.iter().any(|host| host != "local") {
        keys.push(format!("hosts: {}", quoted(&hosts)));
    }
    let mut containers: Vec<String> = grant
        .map(|grant| grant.containers.iter().map(ToString::to_string).collect())
        .unwrap_or_default();
    let by_label = grant.is_some_and(|grant| containers.is_empty() && !grant.labels.is_empty());
    if !by_label && !grant.is_some_and(|grant| fits(&grant.containers, name)) {
        containers.push(name.to_owned());
    }
    if !containers.is_empty() {
        keys.push(format!("containers: {}", quoted(&containers)));
    }
    if let Some(grant) = grant
        && !grant.labels.is_empty()
    {
        keys.push(format!("labels: {}", quoted(&grant.labels)));
    }
    let mut actions: Vec<_> = grant
        .map(|grant| grant.actions.iter().copied().collect())
        .unwrap_or_default();
    if !actions
        .iter()
        .any(|action: &DockerAction| action.is_effect())
    {
        actions.push(DockerAction::Restart);
    }
    keys.push(format!(
        "actions: [{}]",
        list(actions.iter().map(|action| action.as_str()))
    ));
    format!("docker: {{ {} }}", keys.join(", "))
}

fn fits(patterns: &[Glob], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

/// A text, number or truth value as the text that patterns are held against.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether one of the patterns fits `value`; of a list, each of its items.
fn takes(patterns: &[Glob], value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().all(|item| takes(patterns, item)),
        Value::Null | Value::Object(_) => {
            patterns.iter().any(|pattern| pattern.as_str() == ANY_VALUE)
        }
        scalar_value => scalar(scalar_value).is_some_and(|text| fits(patterns, &text)),
    }
}

/// The first text in `value` that no pattern fits.
fn misfit(patterns: &[Glob], value: &Value) -> Option<String> {
    match value {
        Value::Array(items) => items
            .iter()
            .find(|item| !takes(patterns, item))
            .and_then(|item| misfit(patterns, item)),
        other => scalar(other),
    }
}

fn first_text(value: &Value) -> Option<String> {
    match value {
        Value::Array(items) => items.first().and_then(first_text),
        other => scalar(other),
    }
}

fn value_text(value: &Value) -> String {
    scalar(value).unwrap_or_else(|| value.to_string())
}

/// The pattern that fits `text` alone; none where nothing such can be written.
fn literal(text: &str) -> Option<Glob> {
    if text == ANY_VALUE {
        return text.parse().ok();
    }
    // What does not fit into a line is for people to fill in.
    let text = if text.len() > LENGTH || text.contains(char::is_control) {
        "VALUE"
    } else {
        text
    };
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\' | '!') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.parse().ok()
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn quoted(items: &[impl ToString]) -> String {
    let items: Vec<_> = items.iter().map(|item| quote(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn globs(patterns: &[&str]) -> Vec<Glob> {
        patterns
            .iter()
            .map(|pattern| pattern.parse().unwrap())
            .collect()
    }

    fn grants() -> Grants {
        Grants {
            docker: Some(DockerGrant {
                hosts: globs(&["local"]),
                containers: globs(&["nginx*"]),
                labels: Vec::new(),
                actions: [DockerAction::Restart].into(),
                new_labels: Vec::new(),
            }),
            ansible: Some(AnsibleGrant {
                playbooks: globs(&["*.yml"]),
                vars: BTreeMap::from([
                    ("size".to_owned(), globs(&["[0-9]*[MG]", "5"])),
                    ("what".to_owned(), globs(&["logs", "apt"])),
                    ("any".to_owned(), globs(&["**"])),
                ]),
                hosts: globs(&["web*", "edge"]),
                tags: globs(&["safe-*"]),
                anything: false,
            }),
            ..Grants::default()
        }
    }

    fn request(vars: Value, limit: Option<&str>, tags: &[&str]) -> AnsibleRequest {
        let Value::Object(extra_vars) = vars else {
            panic!("{vars}")
        };
        AnsibleRequest {
            playbook: "a.yml".to_owned(),
            extra_vars,
            limit: limit.map(str::to_owned),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            timeout_ms: None,
        }
    }

    fn nginx() -> Target {
        "docker://local/nginx".parse().unwrap()
    }

    #[test]
    fn a_host_is_one_name_and_its_port_is_cut_off() {
        for (text, name) in [
            ("web1", "web1"),
            ("web1:9100", "web1"),
            ("web-1.example.com:65535", "web-1.example.com"),
            ("10.0.0.1:9100", "10.0.0.1"),
            ("_x", "_x"),
            ("[2001:db8::1]:9100", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::1", "::1"),
            ("[::ffff:10.0.0.1]:80", "::ffff:10.0.0.1"),
        ] {
            assert_eq!(host_name(text).as_deref(), Ok(name), "{text}");
        }
        for text in [
            "",
            ":9100",
            "web1:",
            "web1:port",
            "web1:+80",
            "web1:65536",
            "web1:9100:1",
            "web1:db",
            "!web1",
            "&web1",
            "~web.*",
            "web*",
            "web?",
            "web[0]",
            "web1,web2",
            "web1 ",
            "web\n1",
            "@hosts",
            "http://web1:9100/metrics",
            "{{ x }}",
            "wéb",
            "[web1]:9100",
            "[2001:db8::1",
            "[2001:db8::1]x",
            "[2001:db8::1]:",
            "fe80::1%eth0",
            &"a".repeat(256),
        ] {
            assert!(host_name(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn without_a_word_about_it_nothing_but_the_playbook_is_granted() {
        let grants = Grants {
            ansible: Some(AnsibleGrant {
                playbooks: globs(&["a.yml"]),
                ..AnsibleGrant::default()
            }),
            ..Grants::default()
        };
        let allows =
            |request: &AnsibleRequest| grants.allows_ansible_request(request, Some(&nginx()));
        allows(&request(json!({}), None, &[])).unwrap();
        // The incident, and the container that the grant of docker is asked for.
        allows(&request(
            json!({"sentinel": {}, "container": "nginx"}),
            None,
            &[],
        ))
        .unwrap();
        // One of the playbook's own hosts.
        allows(&request(json!({}), Some("web1:9100"), &[])).unwrap();
        for (request, said) in [
            (
                request(json!({"container": "other"}), None, &[]),
                "ansible.run with the variable `container` is not granted: the policy grants no variables; if that is wanted, write `grants: { ansible: { playbooks: ['a.yml'], vars: { container: 'other' } } }`",
            ),
            (
                request(json!({"old": ["/etc/passwd"]}), None, &[]),
                "ansible.run with the variable `old` is not granted: the policy grants no variables; if that is wanted, write `grants: { ansible: { playbooks: ['a.yml'], vars: { old: '/etc/passwd' } } }`",
            ),
            (
                request(json!({}), None, &["never"]),
                "ansible.run with the tag `never` is not granted: the policy grants no tags; if that is wanted, write `grants: { ansible: { playbooks: ['a.yml'], tags: ['never'] } }`",
            ),
        ] {
            assert_eq!(
                allows(&request),
                Err(CapabilityError::Denied(said.to_owned()))
            );
        }
        // Only a target that is a container has a name for `container`.
        let host: Target = "host://site/nginx".parse().unwrap();
        let asked = request(json!({"container": "nginx"}), None, &[]);
        grants
            .allows_ansible_request(&asked, Some(&host))
            .unwrap_err();
        grants.allows_ansible_request(&asked, None).unwrap_err();
    }

    #[test]
    fn a_variable_may_have_the_values_that_are_granted() {
        let grants = grants();
        let allows = |vars: Value| grants.allows_ansible_request(&request(vars, None, &[]), None);
        for vars in [
            json!({"size": "500M"}),
            json!({"size": 5}),
            json!({"what": ["logs", "apt"]}),
            json!({"what": []}),
            json!({"any": {"a": [null, {"b": "/c/d"}]}}),
            json!({"any": "/a/b\n{{ c }}"}),
        ] {
            allows(vars.clone()).unwrap_or_else(|error| panic!("{vars}: {error}"));
        }
        for vars in [
            json!({"size": "all"}),
            json!({"size": 6}),
            json!({"size": true}),
            json!({"size": null}),
            json!({"size": {"a": "5"}}),
            json!({"what": ["logs", "docker"]}),
            json!({"what": [["logs"], {"logs": "apt"}]}),
            json!({"other": "logs"}),
        ] {
            let error = allows(vars.clone()).unwrap_err();
            assert!(
                matches!(error, CapabilityError::Denied(_)),
                "{vars}: {error}"
            );
        }
        for name in ["ansible_connection", "hostvars", "a-b", "{{ x }}", "", "ä"] {
            let error = allows(json!({name: "5"})).unwrap_err();
            assert!(
                matches!(error, CapabilityError::Invalid(_)),
                "{name}: {error}"
            );
        }
        let error = allows(json!({"what": ["logs", "/x*"]})).unwrap_err();
        assert!(
            error.to_string().ends_with(
                "what: ['logs', 'apt', '/x\\*'] }, hosts: ['web*', 'edge'], tags: ['safe-*'] } }`"
            ),
            "{error}"
        );
    }

    #[test]
    fn a_limit_names_hosts_that_are_granted() {
        let grants = grants();
        let allows = |limit: &str| {
            grants.allows_ansible_request(&request(json!({}), Some(limit), &["safe-1"]), None)
        };
        for limit in ["web1", "web1:9100", "web1,web2:80", "edge"] {
            allows(limit).unwrap_or_else(|error| panic!("{limit}: {error}"));
        }
        for limit in ["db1", "all", "web1,db1", "edge2"] {
            let error = allows(limit).unwrap_err();
            assert!(
                matches!(error, CapabilityError::Denied(_)),
                "{limit}: {error}"
            );
        }
        for limit in [
            "",
            "web1,",
            "web1:db1",
            "!web1",
            "web*",
            "@f",
            "~w",
            "web1, web2",
        ] {
            let error = allows(limit).unwrap_err();
            assert!(
                matches!(error, CapabilityError::Invalid(_)),
                "{limit}: {error}"
            );
        }
    }

    #[test]
    fn a_playbook_for_a_container_needs_a_grant_of_docker_for_it() {
        let none = Labels::new();
        let grants = grants();
        grants.allows_ansible_on("local", "nginx-1", &none).unwrap();
        assert_eq!(
            grants
                .allows_ansible_on("local", "db", &none)
                .unwrap_err()
                .to_string(),
            "ansible.run for the container `db` is not granted: a playbook acts on its target, and of docker the policy grants the containers nginx*; if that is wanted, write `grants: { docker: { containers: ['nginx*', 'db'], actions: [restart] } }`"
        );
        assert_eq!(
            grants
                .allows_ansible_on("web2", "nginx", &none)
                .unwrap_err()
                .to_string(),
            "ansible.run for the container `nginx` is not granted: a playbook acts on its target, and of docker the policy grants the hosts local; if that is wanted, write `grants: { docker: { hosts: ['local', 'web2'], containers: ['nginx*'], actions: [restart] } }`"
        );
        let looks_only = Grants {
            docker: Some(DockerGrant {
                actions: [DockerAction::Inspect].into(),
                ..grants.docker.clone().unwrap()
            }),
            ..grants.clone()
        };
        assert_eq!(
            looks_only
                .allows_ansible_on("local", "nginx", &none)
                .unwrap_err()
                .to_string(),
            "ansible.run for the container `nginx` is not granted: a playbook acts on its target, and of docker the policy grants no action that changes something; if that is wanted, write `grants: { docker: { containers: ['nginx*'], actions: [inspect, restart] } }`"
        );
        let nothing = Grants {
            docker: None,
            ..grants
        };
        assert_eq!(
            nothing
                .allows_ansible_on("local", "db", &none)
                .unwrap_err()
                .to_string(),
            "ansible.run for the container `db` is not granted: a playbook acts on its target, and of docker the policy grants nothing; if that is wanted, write `grants: { docker: { containers: ['db'], actions: [restart] } }`"
        );
    }

    #[test]
    fn playbooks_never_lead_out_of_the_folder() {
        let grants = Grants {
            ansible: Some(AnsibleGrant {
                playbooks: globs(&["**", "*", "restart-*.yml"]),
                ..AnsibleGrant::default()
            }),
            ..Grants::default()
        };
        for path in ["restart-nginx.yml", "sub/a.yml", "..a.yml"] {
            assert_eq!(grants.allows_ansible(path), Ok(()), "{path}");
        }
        for path in [
            "../a.yml",
            "/etc/a.yml",
            "a/../../b.yml",
            "a//b.yml",
            "./a.yml",
            "..",
            "",
            "a\\..\\b",
            "a\n.yml",
        ] {
            assert!(grants.allows_ansible(path).is_err(), "{path:?}");
        }
        let narrow = Grants {
            ansible: Some(AnsibleGrant {
                playbooks: globs(&["restart-*.yml"]),
                ..AnsibleGrant::default()
            }),
            ..Grants::default()
        };
        assert_eq!(
            narrow.allows_ansible("wipe.yml").unwrap_err().to_string(),
            "ansible.run of `wipe.yml` is not granted: the policy grants the playbooks restart-*.yml; if that is wanted, write `grants: { ansible: { playbooks: ['restart-*.yml', 'wipe.yml'] } }`"
        );
    }

    #[test]
    fn a_grant_of_an_older_journal_is_one_of_playbooks_alone() {
        let old = r#"{"playbooks":["a.yml"]}"#;
        let grant: AnsibleGrant = serde_json::from_str(old).unwrap();
        assert_eq!(
            grant,
            AnsibleGrant {
                playbooks: globs(&["a.yml"]),
                ..AnsibleGrant::default()
            }
        );
        assert_eq!(serde_json::to_string(&grant).unwrap(), old);
    }
}
