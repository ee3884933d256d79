//! All policies at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::error::{PolicyError, Problem, Source, TOLD, note};
use super::model::{Mode, Policy};
use super::plugins::{self, PluginCatalog};
use super::read::{self, PluginPlaces};
use crate::alert::Labels;
use crate::id::{Digest, PolicyName};

/// What policies are read against: the parts of the configuration that they name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// The Docker hosts, by name.
    pub docker_hosts: BTreeSet<String>,
    /// The secrets, by name; none where it is not known which there are.
    pub secrets: Option<BTreeSet<String>>,
    /// Whether there is a server to send mail by; none where it is not known.
    pub mail: Option<bool>,
}

/// All policies of all files, in the order in which they stand there.
#[derive(Debug, Clone, Default)]
pub struct PolicySet {
    policies: Vec<Arc<Policy>>,
    places: Vec<Places>,
    notes: Vec<PolicyError>,
}

impl Environment {
    /// The Docker hosts, for a message.
    pub(super) fn known_hosts(&self) -> String {
        if self.docker_hosts.is_empty() {
            return "the configuration names no Docker host under `docker: { hosts: … }`"
                .to_owned();
        }
        let hosts: Vec<_> = self.docker_hosts.iter().map(String::as_str).collect();
        format!("the configuration knows {}", hosts.join(", "))
    }
}

/// Where a policy names its plugins.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) source: Source,
    pub(super) steps: Vec<PluginPlaces>,
    pub(super) escalate: Option<PluginPlaces>,
}

impl PolicySet {
    /// Reads `files`, each a name (for messages) and a text.
    ///
    /// Either there is no mistake in any of them, or every mistake that can be found is
    /// in the error, sorted by file and place: of each file the first hundred, and that
    /// there are more. A file that is not YAML has one.
    pub fn parse<N: AsRef<str>, T: AsRef<str>>(
        files: &[(N, T)],
        environment: &Environment,
    ) -> Result<Self, Vec<PolicyError>> {
        let mut set = Self::default();
        let mut errors = Vec::new();
        let mut names = BTreeMap::new();
        for (name, text) in files {
            let source = Source::new(name.as_ref(), text.as_ref());
            let contents = read::read(&source, environment);
            let mut mistakes = contents.errors;
            set.notes.extend(contents.notes);
            for (policy, at) in contents.names {
                let (line, column) = source.position(at.start);
                let place = format!("{}:{line}:{column}", source.name());
                if let Some(first) = names.get(&policy) {
                    let problem = Problem::new(format!("there are two policies `{policy}`"))
                        .label("the second")
                        .help(format!(
                            "the first is at {first}; give one of them another name, names are unique over all files"
                        ));
                    note(&mut mistakes, &source, &at, problem);
                } else {
                    names.insert(policy, place);
                }
            }
            errors.extend(mistakes);
            for entry in contents.entries {
                set.policies.push(Arc::new(entry.policy));
                set.places.push(Places {
                    source: source.clone(),
                    steps: entry.steps,
                    escalate: entry.escalate,
                });
            }
        }
        if errors.is_empty() {
            Ok(set)
        } else {
            Err(errors)
        }
    }

    /// Holds the policies against the plugins that are loaded: that each plugin exists,
    /// that the policy grants what it imports, and that its params are what it takes.
    ///
    /// Params that a template fills in are checked as far as that can be done before
    /// there is an alert: a text in their place counts as a text, and what it says is
    /// not looked at. The whole is checked again when an incident opens.
    #[must_use]
    pub fn check_plugins(&self, catalog: &dyn PluginCatalog) -> Vec<PolicyError> {
        let mut told: BTreeMap<String, usize> = BTreeMap::new();
        self.policies
            .iter()
            .zip(&self.places)
            .flat_map(|(policy, places)| plugins::check(policy, places, catalog))
            .filter(|error| {
                let told = told.entry(error.file().to_owned()).or_default();
                *told += 1;
                *told <= TOLD
            })
            .collect()
    }

    /// What is no mistake, and probably not what was meant, with its place.
    #[must_use]
    pub fn notes(&self) -> &[PolicyError] {
        &self.notes
    }

    /// All of them.
    #[must_use]
    pub fn policies(&self) -> &[Arc<Policy>] {
        &self.policies
    }

    /// The policy of this name.
    #[must_use]
    pub fn get(&self, name: &PolicyName) -> Option<&Arc<Policy>> {
        self.policies.iter().find(|policy| policy.name == *name)
    }

    /// The policies that act: those that are off or watch do not.
    pub fn acting(&self) -> impl Iterator<Item = &Arc<Policy>> {
        let acts = |policy: &&Arc<Policy>| matches!(policy.mode, Mode::Auto | Mode::Approve);
        self.policies.iter().filter(acts)
    }

    /// The policies that want to act on an alert with these labels; those that are off
    /// are not among them.
    pub fn matching<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = &'a Arc<Policy>> {
        self.policies
            .iter()
            .filter(move |policy| policy.mode != Mode::Off && policy.matches(labels))
    }

    /// Changes whenever any policy does, or their order.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let all: Vec<_> = self
            .policies
            .iter()
            .map(|policy| policy.digest.to_string())
            .collect();
        Digest::of(all.join("\n").as_bytes())
    }
}
