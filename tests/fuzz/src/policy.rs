//! Files of policies and of their tests, as operators write them.

use std::collections::BTreeSet;

use sentinel_core::alert::{Alert, AlertStatus, Fingerprint, Labels};
use sentinel_core::grant::Import;
use sentinel_core::id::{Digest, PluginName, PluginRef};
use sentinel_core::matcher::{MatchOp, Matcher};
use sentinel_core::policy::{
    Environment, ParamError, PluginCatalog, PluginFacts, Policy, PolicyError, PolicySet,
};
use sentinel_core::rehearsal::suite::Suite;
use serde_json::Value;

use crate::{bounded, said, text};

/// A file of policies, or of their tests.
pub fn policy(bytes: &[u8]) {
    let text = text(bytes);
    if text.contains("tests:") {
        let suite = bounded(bytes.len(), || Suite::parse("policies/fuzzed.yaml", &text));
        if let Err(errors) = suite {
            mistakes(&errors, &text);
        }
    }
    let environment = Environment {
        docker_hosts: BTreeSet::from(["local".to_owned(), "staging".to_owned()]),
        secrets: Some(BTreeSet::from([
            "chat-url".to_owned(),
            "pager-key".to_owned(),
        ])),
        mail: Some(true),
    };
    let parse = || PolicySet::parse(&[("policies/fuzzed.yaml", &text)], &environment);
    let set = match bounded(bytes.len(), parse) {
        Ok(set) => set,
        Err(errors) => return mistakes(&errors, &text),
    };
    assert_eq!(parse().expect("the same each time").digest(), set.digest());
    mistakes_if_any(&set.check_plugins(&Catalog), &text);
    for policy in set.policies() {
        assert!(!policy.matchers.is_empty() && !policy.steps.is_empty());
        assert_eq!(
            set.get(&policy.name).map(|found| found.digest),
            Some(policy.digest)
        );
        for matcher in &policy.matchers {
            assert_eq!(Matcher::parse(&matcher.to_string()).as_ref(), Ok(matcher));
        }
        opened(policy);
    }
}

/// Every mistake has a place in the file, and can be shown.
fn mistakes(errors: &[PolicyError], text: &str) {
    assert!(!errors.is_empty(), "a file is refused for nothing");
    mistakes_if_any(errors, text);
}

fn mistakes_if_any(errors: &[PolicyError], text: &str) {
    let lines = text.matches('\n').count() + 1;
    for error in errors {
        assert!((1..=lines).contains(&error.line()), "{}", error.one_line());
        let line = text.split('\n').nth(error.line() - 1).unwrap_or_default();
        let columns = 1..=line.chars().count() + 1;
        assert!(columns.contains(&error.column()), "{}", error.one_line());
        // A message may quote what other keys there are.
        said(&error, text.len());
        assert!(
            !error.message().contains(char::is_control),
            "{}",
            error.message()
        );
    }
    // Drawing a place takes as long as its line is long.
    if let Some(first) = errors.first() {
        assert!(
            first.report(false).contains("fuzzed.yaml"),
            "{}",
            first.one_line()
        );
    }
}

/// An incident of the policy has a plan, which comes back from the journal.
fn opened(policy: &Policy) {
    let labels: Labels = policy
        .matchers
        .iter()
        .filter(|matcher| matcher.op() == MatchOp::Equal)
        .map(|matcher| (matcher.name().to_owned(), matcher.value().to_owned()))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let alert = Alert {
        source: "alertmanager".to_owned(),
        fingerprint: Fingerprint::of(&labels),
        status: AlertStatus::Firing,
        annotations: Labels::new(),
        labels,
        starts_at: "2026-01-02T03:04:05Z".parse().expect("a time"),
        ends_at: None,
        generator_url: None,
    };
    if let Ok(plan) = policy.plan(&alert) {
        let kept = serde_json::to_string(&plan).expect("a plan is kept");
        let found = serde_json::from_str(&kept).expect("what is kept is found");
        assert_eq!(plan, found);
    }
    if let Ok(target) = policy.target(&alert) {
        assert_eq!(target.kind(), policy.target.kind());
    }
}

/// Every plugin there is, each of which asks for everything and takes everything.
struct Catalog;

impl PluginCatalog for Catalog {
    fn serves(&self, name: &PluginName) -> Option<Digest> {
        Some(Digest::of(name.as_str().as_bytes()))
    }

    fn plugin(&self, _plugin: &PluginRef) -> Option<PluginFacts> {
        Some(PluginFacts {
            imports: Import::all().collect(),
        })
    }

    fn why_not(&self, _pin: &Digest) -> Option<String> {
        None
    }

    fn names(&self) -> Vec<String> {
        vec!["docker-restart".to_owned()]
    }

    fn validate_params(&self, _plugin: &PluginRef, _params: &Value) -> Vec<ParamError> {
        Vec::new()
    }
}
