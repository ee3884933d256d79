//! What of a step's params no run could be granted, as far as it is known when the policy
//! loads: the playbook, variables, limit and tags that stand there without a template, and
//! the target.

use serde_json::{Map, Value};

use crate::alert::Labels;
use crate::grant::{
    AnsibleGrant, CONTAINER_VARIABLE, Refusal, host_name, tag_problem, variable_problem,
};
use crate::id::PluginName;
use crate::policy::error::{PolicyError, Problem};
use crate::policy::model::Policy;
use crate::policy::read::PluginPlaces;
use crate::policy::set::Places;
use crate::template::has_template;

/// Checks a step of a plugin that runs playbooks. With each mistake is the param that it is
/// about, as a JSON pointer; a star where it is about the target.
pub(super) fn check(
    policy: &Policy,
    plugin: &PluginName,
    params: &Map<String, Value>,
    at: &PluginPlaces,
    places: &Places,
) -> Vec<(String, PolicyError)> {
    let Some(grant) = &policy.grants.ansible else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if let Some(refusal) = target(policy) {
        found.push((
            "*".to_owned(),
            places.source.error(&at.plugin, problem(refusal)),
        ));
    }
    for (path, wrong) in params_refused(policy, grant, params) {
        let span = at
            .params
            .as_ref()
            .map_or(&at.params_key, |node| node.locate(&path));
        let wrong = match wrong {
            Wrong::NotGranted(refusal) => problem(refusal),
            Wrong::Malformed(reason) => Problem::new(reason).help(format!(
                "`sentinel plugin inspect` shows which params {plugin} takes"
            )),
        };
        let error = places.source.error(span, wrong);
        found.push((path, error));
    }
    found
}

fn problem(refusal: Refusal) -> Problem {
    Problem::new(refusal.reason)
        .label("not granted")
        .help(format!(
            "if that is wanted, write `grants: {{ {} }}`",
            refusal.write
        ))
}

/// Why no playbook can be run for what the policy acts on.
fn target(policy: &Policy) -> Option<Refusal> {
    if policy.target.kind() != "docker" {
        return None;
    }
    let host = match policy.target.literal_host() {
        Some(host) => host.to_owned(),
        // Whichever it will be: what is looked for is a host that is granted.
        None => policy
            .grants
            .docker
            .as_ref()
            .and_then(|grant| grant.hosts.first())
            .map_or_else(|| "local".to_owned(), ToString::to_string),
    };
    let name = literal_name(policy);
    let refused = policy
        .grants
        .check_ansible_host(&host, name.unwrap_or("NAME"))
        .err();
    match (refused, name) {
        // The name is not known yet.
        (Some(refused), None) => Some(Refusal {
            reason: refused
                .reason
                .replace("the container `NAME`", "a container"),
            ..refused
        }),
        (Some(refused), Some(_)) => Some(refused),
        // What looks like an id is one of a container that is known at run time alone, and
        // so are labels.
        (None, Some(name)) if !is_id(name) && !policy.grants.docker_by_label() => policy
            .grants
            .check_ansible_container(&host, name, &Labels::new())
            .err(),
        (None, _) => None,
    }
}

/// The target's name, where it is the same for every alert.
fn literal_name(policy: &Policy) -> Option<&str> {
    let source = policy.target.source();
    let (_, name) = source.split_once("://")?.1.split_once('/')?;
    (!has_template(&Value::from(source))).then_some(name)
}

fn is_id(name: &str) -> bool {
    name.len() >= 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

enum Wrong {
    NotGranted(Refusal),
    Malformed(String),
}

/// What is refused, and which param it is, as a JSON pointer.
fn params_refused(
    policy: &Policy,
    grant: &AnsibleGrant,
    params: &Map<String, Value>,
) -> Vec<(String, Wrong)> {
    let mut found = Vec::new();
    if let Some(playbook) = known(params.get("playbook"))
        && let Err(refusal) = grant.check_playbook(playbook)
    {
        found.push(("/playbook".to_owned(), Wrong::NotGranted(refusal)));
    }
    if let Some(Value::Object(vars)) = params.get("vars") {
        for (name, value) in vars {
            let path = format!("/vars/{}", name.replace('~', "~0").replace('/', "~1"));
            let may_be_target = name == CONTAINER_VARIABLE
                && policy.target.kind() == "docker"
                && match (literal_name(policy), known(Some(value))) {
                    (Some(target), Some(value)) => target == value,
                    _ => true,
                };
            let wrong = if let Some(problem) = variable_problem(name) {
                Some(Wrong::Malformed(problem))
            } else if may_be_target {
                None
            } else if has_template(value) {
                grant.check_variable(name).err().map(Wrong::NotGranted)
            } else {
                grant.check_value(name, value).err().map(Wrong::NotGranted)
            };
            found.extend(wrong.map(|wrong| (path, wrong)));
        }
    }
    let limit = match params.get("limit") {
        Some(Value::Array(names)) => names
            .iter()
            .enumerate()
            .map(|(index, name)| (format!("/limit/{index}"), name))
            .collect(),
        Some(name) => vec![("/limit".to_owned(), name)],
        None => Vec::new(),
    };
    for (path, name) in limit {
        let Some(name) = known(Some(name)) else {
            continue;
        };
        let wrong = match host_name(name) {
            Ok(host) => grant.check_host(host).err().map(Wrong::NotGranted),
            Err(problem) => Some(Wrong::Malformed(format!("the limit {problem}"))),
        };
        found.extend(wrong.map(|wrong| (path, wrong)));
    }
    if let Some(Value::Array(tags)) = params.get("tags") {
        for (index, tag) in tags.iter().enumerate() {
            let Some(tag) = known(Some(tag)) else {
                continue;
            };
            let wrong = match tag_problem(tag) {
                Some(problem) => Some(Wrong::Malformed(problem)),
                None => grant.check_tag(tag).err().map(Wrong::NotGranted),
            };
            found.extend(wrong.map(|wrong| (format!("/tags/{index}"), wrong)));
        }
    }
    found
}

/// A text that no template fills in.
fn known(value: Option<&Value>) -> Option<&str> {
    value
        .filter(|value| !has_template(value))
        .and_then(Value::as_str)
}
