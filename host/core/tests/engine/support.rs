//! What the tests of the engine share: a day, alerts, policies, and a stage to play on.

use jiff::Timestamp;
use sentinel_core::alert::{Alert, AlertStatus, Fingerprint, Labels};
use sentinel_core::engine::{PluginVersion, World};
use sentinel_core::id::{Digest, PluginRef};
use sentinel_core::policy::{Environment, PolicyError, PolicySet};
use sentinel_core::record::History;
use sentinel_core::rehearsal::Past;

/// So many seconds after the tests' time begins.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// An alert that began then.
pub(crate) fn alert(labels: &[(&str, &str)], began: Timestamp, status: AlertStatus) -> Alert {
    let labels: Labels = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Alert {
        source: "alertmanager".to_owned(),
        fingerprint: Fingerprint::of(&labels),
        status,
        labels,
        annotations: Labels::new(),
        starts_at: began,
        ends_at: None,
        generator_url: None,
    }
}

/// The policies of a text, which are good.
pub(crate) fn policies(text: &str) -> PolicySet {
    let environment = Environment {
        docker_hosts: ["local".to_owned()].into(),
        ..Environment::default()
    };
    let parsed = PolicySet::parse(&[("policies.yaml", text)], &environment);
    parsed.unwrap_or_else(|errors| panic!("{}", reports(&errors)))
}

pub(crate) fn reports(errors: &[PolicyError]) -> String {
    errors.iter().map(|error| error.report(false)).collect()
}

/// A policy for the alert `Down` on the container that the template names, with more keys:
/// whole lines, indented as they are there.
pub(crate) fn web(container: &str, more: &str) -> String {
    format!(
        "policies:
  - name: web
    match: ['alertname=\"Down\"']
    target: 'docker://local/{{{{ {container} }}}}'
    steps: [{{ plugin: docker-restart }}]
    verify: {{ docker: running, within: 10s, steady: 0s }}
    grants: {{ docker: {{ containers: ['*'], actions: [restart] }} }}
{more}"
    )
}

/// Policies, a past in memory, and every plugin in one version.
pub(crate) struct Stage {
    pub(crate) policies: PolicySet,
    pub(crate) past: Past,
}

impl World for Stage {
    fn policies(&self) -> &PolicySet {
        &self.policies
    }

    fn plugin(&self, plugin: &PluginRef) -> Option<PluginVersion> {
        Some(PluginVersion {
            version: "1.0.0".to_owned(),
            digest: Digest::of(plugin.name.as_str().as_bytes()),
        })
    }

    fn history(&self) -> &dyn History {
        &self.past
    }
}
