//! Containers of the Docker hosts that the daemon knows by name.
//!
//! A policy grants containers by glob (`containers: ['web-*']`) or by label, and actions by
//! the name that each function has here. A container is looked up before the grant is
//! decided, so a name, a short id and a long id are treated alike.
//!
//! ```no_run
//! use sentinel_plugin::docker::{Container, OWN_GRACE, State};
//! use sentinel_plugin::{Failure, warn};
//!
//! fn unfreeze() -> Result<(), Failure> {
//!     let cache = Container::new("local", "cache");
//!     if cache.inspect()?.state == State::Paused {
//!         warn!("{cache} is frozen; it said last: {}", cache.logs(5)?);
//!         cache.restart(OWN_GRACE)?;
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
use crate::clock::{self, milliseconds};
use crate::incident::find;
use crate::params::Span;
use crate::{CapabilityError, Failure, Label};

/// How long to wait between two looks at a container that is waited for: the first time,
/// and at the most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// What a run keeps of its time, to say what it has seen before it is cut off.
const RESERVE: Duration = Duration::from_millis(500);

/// A grace that is the container's own: its stop timeout, or Docker's ten seconds where it
/// has none, as far as the run's time goes.
///
/// Before the contract has a word for it, it is the longest time that can be written.
pub const OWN_GRACE: Duration = Duration::MAX;

/// The grace that a param asks for, or the container's own where it is left out.
#[must_use]
pub fn grace(asked: Option<Span>) -> Duration {
    asked.map_or(OWN_GRACE, Span::duration)
}

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

    /// Effect: stops a container: SIGTERM, and SIGKILL after `grace`, for which
    /// [`OWN_GRACE`] asks the container. No error when it is stopped already.
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

    /// Effect: makes another container like this one, and starts it: the same image,
    /// settings, networks and named volumes, under another name, with `labels` over those
    /// that it takes from this one. Not taken over is what only one container can have:
    /// fixed addresses, and nameless volumes, of which it gets new ones. One that publishes
    /// a fixed port of the host is [`CapabilityError::Invalid`]. The policy has to grant the
    /// new container as well. When it cannot be started it is removed again. Returns its id.
    pub fn duplicate<'a>(
        &self,
        name: &str,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<String, CapabilityError> {
        let label = |(name, value): (&str, &str)| Label {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let labels: Vec<_> = labels.into_iter().map(label).collect();
        Ok(host::duplicate(self, name, &labels)?)
    }

    /// Effect: stops a container (SIGTERM, and SIGKILL after `grace`) and removes it. What
    /// was written inside it is lost; its volumes stay.
    pub fn remove(&self, grace: impl Into<Duration>) -> Result<(), CapabilityError> {
        Ok(host::remove(self, milliseconds(grace.into()))?)
    }

    /// Waits until the container works, and tells its details then: until its health check
    /// passes, or, where it has none, until it has been running for `steady` without a new
    /// start. Gives up after `within`, or a moment before the run's time is over, and at
    /// once when it has ended: a retryable failure that says how the container is. Needs
    /// the grant of `inspect`.
    pub fn wait_until_up(
        &self,
        within: impl Into<Duration>,
        steady: impl Into<Duration>,
    ) -> Result<Details, Failure> {
        let (within, steady) = (within.into(), steady.into());
        let began = clock::elapsed();
        let patience = within.min(clock::remaining().saturating_sub(RESERVE));
        let mut pause = PAUSE.0;
        let mut steady_since = None;
        loop {
            let details = self.inspect()?;
            let now = clock::elapsed();
            let waited = now.saturating_sub(began);
            match details.up() {
                Up::Yes => return Ok(details),
                Up::SoFar => {
                    let (started, since) = steady_since.get_or_insert((details.started_at, now));
                    if *started != details.started_at {
                        steady_since = Some((details.started_at, now));
                    } else if now.saturating_sub(*since) >= steady {
                        return Ok(details);
                    }
                }
                Up::NotYet if waited < patience => steady_since = None,
                Up::NotYet | Up::No => {
                    return Err(Failure::retryable(format!(
                        "{self} is {} {} after it was started",
                        details.describe(),
                        Span::from(Duration::from_secs(waited.as_secs()))
                    )));
                }
            }
            if waited >= patience {
                return Err(Failure::retryable(format!(
                    "{self} could not be seen to run for {}: the time was over before",
                    Span::from(steady)
                )));
            }
            clock::sleep(pause);
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}

/// Whether a container works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Up {
    /// Its health check says so.
    Yes,
    /// It runs, and has no health check.
    SoFar,
    /// It may be a moment later.
    NotYet,
    /// It has ended.
    No,
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

    /// Whether nothing that Docker sees is wrong with it: it runs, and its health check,
    /// where it has one, passes.
    #[must_use]
    pub fn works(&self) -> bool {
        matches!(self.up(), Up::Yes | Up::SoFar)
    }

    /// The state in words: `running, unhealthy (3 probes failed in a row)`.
    #[must_use]
    pub fn describe(&self) -> String {
        let last_end = || {
            let memory = if self.oom_killed {
                ", out of memory"
            } else {
                ""
            };
            format!("exit code {}{memory}", self.exit_code)
        };
        match (self.state, self.health) {
            (State::Created, _) => "created and never started".to_owned(),
            (State::Removing, _) => "being removed".to_owned(),
            (State::Exited, _) => format!("stopped ({})", last_end()),
            (State::Restarting, _) => format!("restarting ({})", last_end()),
            (State::Running, Health::Unhealthy) => {
                let count = self.failing_streak;
                let probes = if count == 1 { "probe" } else { "probes" };
                format!("running, unhealthy ({count} {probes} failed in a row)")
            }
            (State::Running, health) => format!("running, {health}"),
            (state, _) => state.to_string(),
        }
    }

    fn up(&self) -> Up {
        match (self.state, self.health) {
            (State::Running, Health::Healthy) => Up::Yes,
            (State::Running, Health::None) => Up::SoFar,
            (State::Running | State::Paused | State::Restarting, _) => Up::NotYet,
            (State::Created | State::Removing | State::Exited | State::Dead, _) => Up::No,
        }
    }
}

impl State {
    /// Whether there is a main process: running, paused, or between two restarts.
    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn details(state: State, health: Health) -> Details {
        Details {
            id: "0".repeat(64),
            name: "web".to_owned(),
            image: "nginx".to_owned(),
            state,
            health,
            failing_streak: 3,
            exit_code: 137,
            oom_killed: false,
            restart_count: 0,
            started_at: None,
            finished_at: None,
            labels: Vec::new(),
            network_of: None,
        }
    }

    #[test]
    fn states_are_told_in_words() {
        let mut stopped = details(State::Exited, Health::None);
        assert_eq!(stopped.describe(), "stopped (exit code 137)");
        stopped.oom_killed = true;
        assert_eq!(stopped.describe(), "stopped (exit code 137, out of memory)");
        let mut sick = details(State::Running, Health::Unhealthy);
        assert_eq!(
            sick.describe(),
            "running, unhealthy (3 probes failed in a row)"
        );
        sick.failing_streak = 1;
        assert_eq!(
            sick.describe(),
            "running, unhealthy (1 probe failed in a row)"
        );
        let plain = details(State::Running, Health::None);
        assert_eq!(plain.describe(), "running, no health check");
        assert_eq!(details(State::Paused, Health::None).describe(), "paused");
    }

    #[test]
    fn only_what_runs_and_is_not_found_ill_works() {
        for (state, health, works) in [
            (State::Running, Health::None, true),
            (State::Running, Health::Healthy, true),
            (State::Running, Health::Starting, false),
            (State::Running, Health::Unhealthy, false),
            (State::Paused, Health::Healthy, false),
            (State::Restarting, Health::None, false),
            (State::Exited, Health::None, false),
        ] {
            assert_eq!(details(state, health).works(), works, "{state} {health}");
        }
    }
}
