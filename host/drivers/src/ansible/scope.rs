//! What the callback plugin holds a playbook to, when Ansible has read it and knows the
//! hosts.

use sentinel_core::capability::AnsibleRequest;
use sentinel_core::grant::{CONTAINER_VARIABLE, Glob, INCIDENT_VARIABLE, limit_names};
use sentinel_sandbox::driver::PlaybookScope;
use serde::Serialize;
use serde_json::Value;

/// The file beside the events.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(super) struct Scope<'a> {
    /// Variables that the playbook itself must not set: they are above what it would set.
    variables: Vec<&'a str>,
    /// Regular expressions of Python's for the hosts that it may run on; empty stands for
    /// all that it names.
    hosts: Vec<String>,
    /// What is granted by its very name, and may be a group.
    names: Vec<&'a str>,
    /// What it is limited to.
    limit: Vec<&'a str>,
}

impl<'a> Scope<'a> {
    pub(super) fn of(request: &'a AnsibleRequest, scope: &'a PlaybookScope) -> Self {
        let target = scope
            .incident
            .as_ref()
            .and_then(|incident| incident.pointer("/target/name"));
        let variables = request
            .extra_vars
            .iter()
            .filter(|(name, value)| {
                // The target's own name is nothing that a plugin chose.
                let is_target = name.as_str() == CONTAINER_VARIABLE && target == Some(*value);
                name.as_str() != INCIDENT_VARIABLE && !is_target
            })
            .map(|(name, _)| name.as_str())
            .collect();
        Self {
            variables,
            hosts: scope.hosts.iter().map(python).collect(),
            names: scope.hosts.iter().map(Glob::as_str).collect(),
            limit: request
                .limit
                .as_deref()
                .and_then(|limit| limit_names(limit).ok())
                .unwrap_or_default(),
        }
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_value(self)
            .map_or_else(|_| "null".to_owned(), |scope: Value| scope.to_string())
    }
}

/// A pattern as a regular expression that Python reads alike.
fn python(glob: &Glob) -> String {
    let regex = glob.to_regex();
    let plain = regex.strip_prefix("(?-u)").unwrap_or(regex);
    let body = plain.strip_prefix('^').unwrap_or(plain);
    format!("(?:{})\\Z", body.strip_suffix('$').unwrap_or(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_by_python() {
        let python = |pattern: &str| python(&pattern.parse().unwrap());
        assert_eq!(python("web*"), "(?:web[^/]*)\\Z");
        assert_eq!(python("all"), "(?:all)\\Z");
        assert_eq!(python("web[0-9].{a,b}"), "(?:web[0-9]\\.(?:a|b))\\Z");
    }
}
