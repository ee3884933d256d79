//! Ansible playbooks of the daemon's playbooks folder.
//!
//! A policy grants playbooks by name (`playbooks: ['restart-*.yml']`), and each variable
//! (`vars: { path: '/var/cache/**' }`) and tag besides. Where the target is a container, it
//! has to grant that container of docker as well.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use sentinel_plugin::Failure;
//! use sentinel_plugin::ansible::Playbook;
//!
//! fn clear_cache(host: &str) -> Result<(), Failure> {
//!     let recap = Playbook::new("clear-cache.yml")
//!         .var("path", "/var/cache/app")
//!         .limit(host)
//!         .timeout(Duration::from_secs(60))
//!         .run()?;
//!     if recap.succeeded() {
//!         Ok(())
//!     } else {
//!         Err(Failure::retryable(format!("clear-cache.yml: exit code {}", recap.exit_code)))
//!     }
//! }
//! ```

use std::time::Duration;

use serde_json::{Map, Value};

pub use crate::bindings::sentinel::plugin::ansible::{HostRecap, Recap, TaskFailure};

use crate::CapabilityError;
use crate::bindings::sentinel::plugin::ansible as host;
use crate::clock::milliseconds;

/// A playbook, and how to run it.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "nothing happens until `run`"]
pub struct Playbook {
    path: String,
    vars: Map<String, Value>,
    limit: Option<String>,
    tags: Vec<String>,
    timeout: Option<Duration>,
}

impl Playbook {
    /// The playbook at `path` inside the playbooks folder, for example
    /// `restart-container.yml`.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            vars: Map::new(),
            limit: None,
            tags: Vec::new(),
            timeout: None,
        }
    }

    /// Sets a variable that the policy grants. Variables reach Ansible in a private file,
    /// never on the command line, and are above those of the playbook and the inventory; one
    /// that a task of the playbook sets is refused. The daemon sets `sentinel`, which tells
    /// of the incident.
    pub fn var(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.vars.insert(name.into(), value.into());
        self
    }

    /// Sets each of `vars`.
    pub fn vars(mut self, vars: impl IntoIterator<Item = (String, Value)>) -> Self {
        self.vars.extend(vars);
        self
    }

    /// Runs only on these hosts, separated by commas: Ansible's `--limit`, without its
    /// patterns. Ports are cut off. A group has to be granted by its name.
    pub fn limit(mut self, pattern: impl Into<String>) -> Self {
        self.limit = Some(pattern.into());
        self
    }

    /// Runs only what carries this tag, or another one that is given: Ansible's `--tags`.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// How long the playbook may take; as long as the run may when this is not called. Past
    /// it the whole process group is ended.
    pub fn timeout(mut self, timeout: impl Into<Duration>) -> Self {
        self.timeout = Some(timeout.into());
        self
    }

    /// Effect: runs the playbook. A playbook that ran and failed is a [`Recap`] with a
    /// non-zero exit code and no error.
    pub fn run(self) -> Result<Recap, CapabilityError> {
        Ok(host::run(&host::Request {
            playbook: self.path,
            extra_vars: Value::Object(self.vars).to_string(),
            limit: self.limit,
            tags: self.tags,
            timeout: self.timeout.map(milliseconds),
        })?)
    }
}

impl Recap {
    /// Whether Ansible says that all went well.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.exit_code == 0
    }

    /// How many tasks changed something, over all hosts.
    #[must_use]
    pub fn changed(&self) -> u64 {
        self.hosts.iter().map(|host| u64::from(host.changed)).sum()
    }

    /// The hosts that could not be reached.
    pub fn unreachable(&self) -> impl Iterator<Item = &str> {
        self.hosts
            .iter()
            .filter(|host| host.unreachable > 0)
            .map(|host| host.host.as_str())
    }
}
