//! Containers of the Docker hosts that the daemon knows by name.
//!
//! A policy grants containers by glob (`containers: ['web-*']`) or by label, and actions by
//! the name that each function has here. A container is looked up before the grant is
//! decided, so a name, a short id and a long id are treated alike.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use sentinel_plugin::docker::{Container, State};
//! use sentinel_plugin::{Failure, warn};
//!
//! fn unfreeze() -> Result<(), Failure> {
//!     let cache = Container::new("local", "cache");
//!     if cache.inspect()?.state == State::Paused {
//!         warn!("{cache} is frozen; it said last: {}", cache.logs(5)?);
//!         cache.restart(Duration::from_secs(5))?;
//!     }
//!     Ok(())
//! }
//! ```

use std::fmt;
use std::time::Duration;

pub use crate::bindings::sentinel::plugin::docker::{
    Container, Details, Filter, Health, State, Summary,
};

use crate::bindings::sentinel::plugin::docker as host;
use crate::clock::milliseconds;
use crate::incident::find;
use crate::{CapabilityError, Label};

/// Observation: the containers of a host, sorted by name. Those that the policy does not
/// grant are never among them.
pub fn list(host: &str, filter: &Filter) -> Result<Vec<Summary>, CapabilityError> {
    Ok(host::list(host, filter)?)
}

impl Container {
    /// A container by name or id, on a host by the name that the daemon's configuration
    /// gives it. Asks nobody: whether it exists shows with the first call.
    pub fn new(host: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            name: name.into(),
        }
    }

    /// Observation: the container's state.
    pub fn inspect(&self) -> Result<Details, CapabilityError> {
        Ok(host::inspect(self)?)
    }

    /// Observation: the last `lines` lines of the container's output (at most 1,000 lines
    /// and 256 KiB), stdout and stderr in the order in which they were written.
    pub fn logs(&self, lines: u32) -> Result<String, CapabilityError> {
        Ok(host::logs(self, lines)?)
    }

    /// Effect: starts a container that does not run. No error when it runs already.
    pub fn start(&self) -> Result<(), CapabilityError> {
        Ok(host::start(self)?)
    }

    /// Effect: stops a container: SIGTERM, and SIGKILL after `grace`. No error when it is
    /// stopped already.
    pub fn stop(&self, grace: impl Into<Duration>) -> Result<(), CapabilityError> {
        Ok(host::stop(self, milliseconds(grace.into()))?)
    }

    /// Effect: stops (SIGTERM, and SIGKILL after `grace`) and starts a container, whatever
    /// state it is in.
    pub fn restart(&self, grace: impl Into<Duration>) -> Result<(), CapabilityError> {
        Ok(host::restart(self, milliseconds(grace.into()))?)
    }

    /// Effect: sends a signal by name, for example `SIGHUP`.
    pub fn kill(&self, signal: &str) -> Result<(), CapabilityError> {
        Ok(host::kill(self, signal)?)
    }

    /// Effect: replaces a container by a new one of the same name, image, settings, networks
    /// and volumes, and starts it. What was written inside the old one is lost. When the new
    /// one cannot be made or started, the old one is put back. Returns the new container's
    /// id.
    pub fn recreate(&self, grace: impl Into<Duration>) -> Result<String, CapabilityError> {
        Ok(host::recreate(self, milliseconds(grace.into()))?)
    }
}

/// `host/name`.
impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.name)
    }
}

impl Details {
    /// The value of one of the container's labels.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        find(&self.labels, name)
    }
}

impl Summary {
    /// The value of one of the container's labels.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        find(&self.labels, name)
    }
}

impl Filter {
    /// The containers that run.
    #[must_use]
    pub fn running() -> Self {
        Self {
            all: false,
            labels: Vec::new(),
        }
    }

    /// All containers, whatever their state.
    #[must_use]
    pub fn all() -> Self {
        Self {
            all: true,
            labels: Vec::new(),
        }
    }

    /// Only those that carry this label, too; an empty value asks for the label's presence
    /// alone.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push(Label {
            name: name.into(),
            value: value.into(),
        });
        self
    }
}

/// The word that Docker uses.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        })
    }
}

/// The words that `docker ps` uses, and `no health check`.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no health check",
            Self::Starting => "health: starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        })
    }
}
