//! Policies and the plugins that they use.

mod ansible;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::error::{PolicyError, Problem, nearest};
use super::model::Policy;
use super::read::PluginPlaces;
use super::set::Places;
use crate::capability::DockerAction;
use crate::grant::{Grants, HttpGrant, Import};
use crate::id::{Digest, PluginName, PluginRef};
use crate::template::has_template;

/// What stands in the place of a text that a template fills in.
const PLACEHOLDER: &str = "template";

/// Rules of JSON Schema that can be judged although a text inside is not known yet.
const SURE: [&str; 11] = [
    "type",
    "required",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "minItems",
    "maxItems",
    "dependentRequired",
    "false",
];

/// The plugins that are loaded.
pub trait PluginCatalog {
    /// Which version serves whoever does not care; none where the plugin is not loaded.
    fn serves(&self, name: &PluginName) -> Option<Digest>;

    /// What is known of the version that is named; none where it is not loaded.
    fn plugin(&self, plugin: &PluginRef) -> Option<PluginFacts>;

    /// Why a version is not loaded that a policy is pinned to, where more is known than that:
    /// a fragment that fits behind "which".
    fn why_not(&self, pin: &Digest) -> Option<String>;

    /// The names of all plugins.
    fn names(&self) -> Vec<String>;

    /// What is wrong with `params` by the plugin's own schema.
    fn validate_params(&self, plugin: &PluginRef, params: &Value) -> Vec<ParamError>;
}

/// What a policy has to know of a plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginFacts {
    /// What it asks the host for.
    pub imports: BTreeSet<Import>,
}

/// A value that a plugin's schema does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamError {
    /// Which, as a JSON pointer; empty for the params as a whole.
    pub path: String,
    /// The rule of JSON Schema that it breaks, such as `type` or `required`.
    pub keyword: String,
    /// What is wrong: a fragment.
    pub message: String,
}

/// Checks every plugin that a policy names: its steps', and the one that tells a person.
/// The mode makes no difference: what is fit for shadow is fit for auto.
pub(super) fn check(
    policy: &Policy,
    places: &Places,
    catalog: &dyn PluginCatalog,
) -> Vec<PolicyError> {
    let steps = policy.steps.iter().zip(&places.steps);
    let steps = steps.map(|(step, at)| (&step.plugin, &step.params, at));
    let escalate = policy.escalate.iter().zip(&places.escalate);
    let escalate = escalate.map(|(escalate, at)| (&escalate.plugin, &escalate.params, at));
    steps
        .chain(escalate)
        .flat_map(|(plugin, params, at)| check_plugin(policy, plugin, params, at, places, catalog))
        .collect()
}

fn check_plugin(
    policy: &Policy,
    plugin: &PluginRef,
    params: &Map<String, Value>,
    at: &PluginPlaces,
    places: &Places,
    catalog: &dyn PluginCatalog,
) -> Vec<PolicyError> {
    let Some(serves) = catalog.serves(&plugin.name) else {
        let problem = unknown_plugin(&plugin.name, &catalog.names());
        return vec![places.source.error(&at.plugin, problem)];
    };
    let Some(facts) = catalog.plugin(plugin) else {
        let problem = not_that_version(policy, plugin, serves, catalog);
        return vec![places.source.error(&at.plugin, problem)];
    };
    let plugin_name = &plugin.name;
    let missing = policy.grants.imports_missing(&facts.imports);
    let ungranted: Vec<_> = missing.into_iter().collect();
    let mut errors = Vec::new();
    if !ungranted.is_empty() {
        let problem = not_granted(policy, plugin_name, &ungranted);
        errors.push(places.source.error(&at.plugin, problem));
    }
    let mut told = BTreeSet::new();
    if facts.imports.contains(&Import::Ansible) {
        for (path, error) in ansible::check(policy, plugin_name, params, at, places) {
            told.insert(path);
            errors.push(error);
        }
    }
    let params = Value::Object(params.clone());
    let probe = placeholders(&params);
    for error in catalog.validate_params(plugin, &probe) {
        if told.contains(&error.path) {
            continue;
        }
        let culprit = params.pointer(&error.path).unwrap_or(&params);
        if has_template(culprit) && !SURE.contains(&error.keyword.as_str()) {
            continue;
        }
        let span = match &at.params {
            Some(node) if !error.path.is_empty() => node.locate(&error.path),
            _ => &at.params_key,
        };
        let name = error.path.trim_start_matches('/').replace('/', ".");
        let what = if name.is_empty() {
            format!("the params of plugin {plugin_name} are not valid")
        } else {
            format!("the param `{name}` of plugin {plugin_name} is not valid")
        };
        let problem = Problem::new(format!("{what}: {}", error.message)).help(format!(
            "`sentinel plugin inspect` shows which params {plugin_name} takes"
        ));
        errors.push(places.source.error(span, problem));
    }
    errors
}

fn unknown_plugin(name: &PluginName, known: &[String]) -> Problem {
    let meant = nearest(name.as_str(), known.iter().map(String::as_str))
        .map(|meant| format!("did you mean `{meant}`? "))
        .unwrap_or_default();
    let loaded = if known.is_empty() {
        "no plugin is loaded".to_owned()
    } else {
        format!("the plugins that are loaded are {}", known.join(", "))
    };
    Problem::new(format!("there is no plugin `{name}`"))
        .label("not loaded")
        .help(format!("{meant}{loaded}"))
}

fn not_that_version(
    policy: &Policy,
    plugin: &PluginRef,
    serves: Digest,
    catalog: &dyn PluginCatalog,
) -> Problem {
    let name = &plugin.name;
    let pin = plugin.pin.unwrap_or(serves);
    let (why, first) = match catalog.why_not(&pin) {
        Some(why) => (why, ""),
        None => (
            "never served here".to_owned(),
            "let that version serve once (`sentinel plugin install FILE`), ",
        ),
    };
    Problem::new(format!(
        "policy {} is pinned to {name} {}, which {why}; {} serves",
        policy.name,
        pin.short(),
        serves.short(),
    ))
    .label("not this version")
    .help(format!(
        "{first}pin the one that serves, `plugin: {name}@{serves}`, or remove the pin"
    ))
}

fn not_granted(policy: &Policy, plugin: &PluginName, missing: &[Import]) -> Problem {
    let calls: Vec<_> = missing.iter().map(ToString::to_string).collect();
    let calls = match calls.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    };
    let name = &policy.name;
    Problem::new(format!(
        "plugin {plugin} calls {calls}, which policy {name} does not grant"
    ))
    .label("not granted")
    .help(format!(
        "if that is wanted, write `grants: {{ {} }}`",
        grants_to_write(&policy.grants, missing)
    ))
}

/// The grants as they would have to be, in YAML.
fn grants_to_write(grants: &Grants, missing: &[Import]) -> String {
    let mut actions: BTreeSet<DockerAction> = missing
        .iter()
        .filter_map(|import| match import {
            Import::Docker(action) => Some(*action),
            _ => None,
        })
        .collect();
    let mut parts = Vec::new();
    if let Some(grant) = &grants.docker {
        actions.extend(&grant.actions);
    }
    if !actions.is_empty() {
        let mut keys = Vec::new();
        match &grants.docker {
            Some(grant) => {
                if grant.hosts.iter().any(|host| host.as_str() != "local") {
                    keys.push(format!("hosts: {}", quoted(&grant.hosts)));
                }
                if !grant.containers.is_empty() {
                    keys.push(format!("containers: {}", quoted(&grant.containers)));
                }
                if !grant.labels.is_empty() {
                    keys.push(format!("labels: {}", quoted(&grant.labels)));
                }
            }
            None => keys.push("containers: ['NAME']".to_owned()),
        }
        let actions: Vec<_> = actions.iter().map(|action| action.as_str()).collect();
        keys.push(format!("actions: [{}]", actions.join(", ")));
        parts.push(format!("docker: {{ {} }}", keys.join(", ")));
    }
    match &grants.ansible {
        Some(grant) => parts.push(grant.to_write()),
        None if missing.contains(&Import::Ansible) => {
            parts.push("ansible: { playbooks: ['NAME.yml'] }".to_owned());
        }
        None => {}
    }
    if missing.contains(&Import::Http) {
        parts.push("http: { urls: ['https://HOST/PATH'], methods: [POST] }".to_owned());
    } else if !grants.http.is_empty() {
        let http: Vec<_> = grants.http.iter().map(http_to_write).collect();
        parts.push(match http.as_slice() {
            [one] => format!("http: {one}"),
            several => format!("http: [{}]", several.join(", ")),
        });
    }
    if !grants.mail.is_empty() {
        parts.push(format!("mail: {}", quoted(&grants.mail)));
    } else if missing.contains(&Import::Mail) {
        parts.push("mail: ['NAME@HOST']".to_owned());
    }
    if grants.memory || missing.contains(&Import::Memory) {
        parts.push("memory: true".to_owned());
    }
    parts.join(", ")
}

fn http_to_write(grant: &HttpGrant) -> String {
    let methods: Vec<_> = grant.methods.iter().map(|method| method.as_str()).collect();
    let mut keys = vec![
        format!("urls: {}", quoted(&grant.urls)),
        format!("methods: [{}]", methods.join(", ")),
    ];
    if !grant.secrets.is_empty() {
        keys.push(format!("secrets: {}", quoted(&grant.secrets)));
    }
    if grant.answers {
        keys.push("answers: true".to_owned());
    }
    format!("{{ {} }}", keys.join(", "))
}

/// A list of texts in YAML.
fn quoted(items: &[impl ToString]) -> String {
    let items: Vec<_> = items
        .iter()
        .map(|item| format!("'{}'", item.to_string().replace('\'', "''")))
        .collect();
    format!("[{}]", items.join(", "))
}

/// `value` with something in place of each text that a template fills in.
fn placeholders(value: &Value) -> Value {
    match value {
        Value::String(_) if has_template(value) => Value::String(PLACEHOLDER.to_owned()),
        Value::Array(items) => items.iter().map(placeholders).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), placeholders(value)))
            .collect(),
        _ => value.clone(),
    }
}
