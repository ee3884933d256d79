//! What serves: the plugins and the policies, as one snapshot that is swapped as a
//! whole. A run in flight keeps the plugin that it began with, an incident keeps the
//! policy that opened it.

mod change;
mod drain;
mod load;
mod older;
mod policies;
mod probation;
pub(crate) mod signature;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use sentinel_core::policy::PolicySet;
use sentinel_journal::StoredServing;
use sentinel_sandbox::{Plugin, Plugins};
use serde::Serialize;

pub(crate) use self::change::{Changed, Refusal, Request, Word};
pub(crate) use self::drain::Drains;
pub(crate) use self::load::{Folders, Loader};
pub(crate) use self::policies::{PolicyReader, policies_in};
pub(crate) use self::probation::Probation;
pub(crate) use self::watch::{NothingServes, Reloader};

/// The plugins and policies that serve. Every policy has been checked against these
/// very plugins.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    /// By the name that policies use.
    pub(crate) plugins: Plugins,
    /// All of them, whatever file they are in.
    pub(crate) policies: PolicySet,
    /// The files that this came from.
    pub(crate) files: Files,
}

impl Serving {
    /// Whether any policy may run playbooks.
    pub(crate) fn runs_playbooks(&self) -> bool {
        self.policies
            .policies()
            .iter()
            .any(|policy| policy.grants.ansible.is_some())
    }
}

/// The files behind a [`Serving`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    /// The plugins by file name.
    pub(crate) plugins: BTreeMap<String, Arc<Plugin>>,
    /// The policy files' texts by file name.
    pub(crate) policies: BTreeMap<String, String>,
}

impl Files {
    /// What the journal keeps of it.
    pub(crate) fn stored(&self) -> StoredServing {
        StoredServing {
            plugins: self
                .plugins
                .iter()
                .map(|(file, plugin)| (file.clone(), plugin.digest))
                .collect(),
            policies: self.policies.clone(),
        }
    }
}

/// Something in a folder that does not serve, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Problem {
    /// `plugin` or `policy`.
    pub(crate) what: &'static str,
    /// The file, as a person finds it.
    pub(crate) file: String,
    /// Where in it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<usize>,
    /// Where in it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) column: Option<usize>,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) help: Option<String>,
    /// The same with the lines in question, for a terminal.
    #[serde(skip)]
    pub(crate) rendered: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// What a file is, and where it is.
type Mended = (&'static str, String);

/// What was found wrong at the last look, for the API.
#[derive(Debug, Default)]
pub(crate) struct Problems(Mutex<Vec<Problem>>);

impl Problems {
    pub(crate) fn get(&self) -> Vec<Problem> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces them, and returns those that were not there before, and the files with
    /// which nothing is wrong any more.
    fn set(&self, mut problems: Vec<Problem>) -> (Vec<Problem>, Vec<Mended>) {
        problems.sort();
        problems.dedup();
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = problems
            .iter()
            .filter(|problem| !current.contains(problem))
            .cloned()
            .collect();
        let bad: BTreeSet<_> = problems.iter().map(|problem| &problem.file).collect();
        let mended: BTreeSet<Mended> = current
            .iter()
            .filter(|before| !bad.contains(&before.file))
            .map(|before| (before.what, before.file.clone()))
            .collect();
        *current = problems;
        (fresh, mended.into_iter().collect())
    }
}
