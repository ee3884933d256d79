//! Restarts a container that does not work, and then what depends on it, in order, each
//! after what it depends on works.
//!
//! A container that uses another one's network (`network_mode: service:vpn`) has no network
//! any more when that one was restarted, and cannot even be started when that one was
//! replaced; nothing in Docker mends this. So the dependents are looked at even when the
//! container itself is well by now: whoever restarted it left them behind.

#![forbid(unsafe_code)]

mod family;

use sentinel_plugin::docker::{self, Container, Details, Filter, Health, State};
use sentinel_plugin::params::Span;
use sentinel_plugin::{CapabilityError, Failure, Incident, Outcome, Remediation, Timestamp, info};
use serde::Deserialize;

use crate::family::{DependsOn, Family, Member, Tie};

struct RestartDependents;

/// The step's params; `params.schema.json` explains each.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    container: Option<String>,
    host: Option<String>,
    #[serde(default)]
    depends_on: DependsOn,
    #[serde(default)]
    stopped: bool,
    timeout: Option<Span>,
    #[serde(default = "one_minute")]
    wait: Span,
    #[serde(default = "two_seconds")]
    steady: Span,
}

fn one_minute() -> Span {
    Span::from_secs(60)
}

fn two_seconds() -> Span {
    Span::from_secs(2)
}

/// What to do with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    Leave,
    Start,
    Restart,
    /// Its network is that of a container that is gone.
    Recreate,
}

impl Remedy {
    fn past(self) -> &'static str {
        match self {
            Self::Leave => "left",
            Self::Start => "started",
            Self::Restart => "restarted",
            Self::Recreate => "recreated",
        }
    }
}

/// What the container itself needs. `behind` says whether some dependent has been left
/// behind by an earlier start: then that is what the alert speaks of.
fn for_root(root: &Details, incident: &Incident, behind: bool) -> Result<Remedy, Failure> {
    Ok(match (root.state, root.health) {
        (State::Created | State::Exited, _) => Remedy::Start,
        (State::Paused | State::Restarting, _) | (State::Running, Health::Unhealthy) => {
            Remedy::Restart
        }
        (State::Running, Health::Healthy | Health::Starting) => Remedy::Leave,
        (State::Running, Health::None) => {
            let is_young = incident.is_first_run()
                && root
                    .started_at
                    .is_some_and(|started| started > incident.alert.starts_at);
            if behind || is_young {
                Remedy::Leave
            } else {
                Remedy::Restart
            }
        }
        (State::Removing, _) => {
            return Err(Failure::retryable(format!(
                "{} is being removed",
                root.name
            )));
        }
        (State::Dead, _) => {
            return Err(Failure::permanent(format!(
                "{} is dead: Docker failed to remove it and starts it no more",
                root.name
            )));
        }
    })
}

/// What a dependent needs, once what it depends on works. `since` is when the youngest of
/// those was started.
fn for_dependent(
    details: &Details,
    member: &Member,
    since: Option<Timestamp>,
    stopped_too: bool,
) -> Remedy {
    if !details.state.is_up() && !stopped_too {
        return Remedy::Leave;
    }
    if member.tie == Tie::Orphan {
        return Remedy::Recreate;
    }
    if !details.state.is_up() {
        return Remedy::Start;
    }
    // An engine that tells no start is none that anything can be concluded from.
    if details.started_at < since {
        Remedy::Restart
    } else {
        Remedy::Leave
    }
}

/// The work on one host.
struct Work<'a> {
    params: &'a Params,
    host: String,
    /// What has been done, as `restarted web`.
    done: Vec<String>,
}

impl Work<'_> {
    /// Does it, and waits until the container works; its details then.
    fn apply(&mut self, details: Details, remedy: Remedy) -> Result<Details, Failure> {
        let container = Container::new(&self.host, &details.name);
        match remedy {
            Remedy::Leave => return Ok(details),
            Remedy::Start => container.start()?,
            Remedy::Restart => container.restart(docker::grace(self.params.timeout))?,
            Remedy::Recreate => drop(container.recreate(docker::grace(self.params.timeout))?),
        }
        let what = format!("{} {}", remedy.past(), details.name);
        info!("{what}, which was {}", details.describe());
        let after = container
            .wait_until_up(self.params.wait, self.params.steady)
            .map_err(|failure| failure.map_reason(|why| format!("{what}, but {why}")))?;
        self.done.push(what);
        Ok(after)
    }

    /// The dependents by what is known now, in the order in which they are to be looked at.
    fn family(&self, root: &Details) -> Result<Family, Failure> {
        let rows = docker::list(&self.host, &Filter::all())?;
        let host = self.host.as_str();
        // A row that is missing may only be hidden from this policy.
        let is_gone = |id: &str| match Container::new(host, id).inspect() {
            Err(CapabilityError::NotFound(_)) => Ok(true),
            Ok(_) | Err(CapabilityError::Denied(_)) => Ok(false),
            Err(error) => Err(error),
        };
        Ok(Family::of(root, &rows, self.params.depends_on, is_gone)?)
    }
}

impl Remediation for RestartDependents {
    type Params = Params;

    const SUMMARY: &'static str =
        "Restarts a container that does not work, and then what uses its network or depends on it.";

    const PARAMS_SCHEMA: &'static str = include_str!("../params.schema.json");

    fn remediate(incident: &Incident, params: Params) -> Result<Outcome, Failure> {
        let container = incident
            .target
            .container_or(params.host.as_deref(), params.container.as_deref())?;
        let mut work = Work {
            params: &params,
            host: container.host.clone(),
            done: Vec::new(),
        };
        let root = container.inspect()?;
        info!("{container} is {}", root.describe());
        let family = work.family(&root)?;
        let mut seen = Vec::new();
        for member in family.members() {
            seen.push(Container::new(&work.host, &member.id).inspect()?);
        }
        let behind = family.members().iter().zip(&seen).any(|(member, details)| {
            let remedy = for_dependent(details, member, root.started_at, params.stopped);
            member.on.contains(&root.id) && remedy != Remedy::Leave
        });

        let remedy = for_root(&root, incident, behind)?;
        let mut left: Vec<String> = seen.iter().map(|details| details.name.clone()).collect();
        let told = |failure: Failure, done: &[String], left: &[String]| {
            failure.map_reason(|why| {
                format!(
                    "stopped: {why}; done: {}; not done: {}",
                    names(done),
                    names(left)
                )
            })
        };
        let root_id = root.id.clone();
        let root = match work.apply(root, remedy) {
            Ok(root) => root,
            Err(failure) => return Err(told(failure, &work.done, &left)),
        };
        // When each was started last, by the id that it had before.
        let mut started = vec![(root_id, root.started_at)];
        for (member, details) in family.members().iter().zip(seen) {
            let since = started
                .iter()
                .filter(|(id, _)| member.on.contains(id))
                .map(|(_, started)| *started)
                .max()
                .flatten();
            let remedy = for_dependent(&details, member, since, params.stopped);
            match work.apply(details, remedy) {
                Ok(details) => started.push((member.id.clone(), details.started_at)),
                Err(failure) => return Err(told(failure, &work.done, &left)),
            }
            left.remove(0);
        }
        if work.done.is_empty() {
            let count = family.members().len();
            return Ok(Outcome::unchanged(format!(
                "{container} is {}, and none of the {count} that depend on it was left behind",
                root.describe()
            )));
        }
        Ok(Outcome::changed(work.done.join(", ")))
    }
}

fn names(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

sentinel_plugin::plugin!(RestartDependents);

#[cfg(test)]
mod tests {
    use super::*;
    use sentinel_plugin::serde_json::{self, json};

    fn details(state: State, started: i64) -> Details {
        Details {
            id: "a".to_owned(),
            name: "a".to_owned(),
            image: "web".to_owned(),
            state,
            health: Health::None,
            failing_streak: 0,
            exit_code: 0,
            oom_killed: false,
            restart_count: 0,
            started_at: Some(Timestamp {
                seconds: started,
                nanoseconds: 0,
            }),
            finished_at: None,
            labels: Vec::new(),
            network_of: None,
        }
    }

    #[test]
    fn a_dependent_is_restarted_when_it_is_older_than_what_it_depends_on() {
        let member = |tie| Member {
            id: "a".to_owned(),
            on: vec!["vpn".to_owned()],
            tie,
        };
        let vpn = details(State::Running, 100).started_at;
        for (state, started, tie, stopped_too, remedy) in [
            (State::Running, 50, Tie::Network, false, Remedy::Restart),
            (State::Running, 150, Tie::Network, false, Remedy::Leave),
            (State::Running, 50, Tie::DependsOn, false, Remedy::Restart),
            (State::Running, 150, Tie::Orphan, false, Remedy::Recreate),
            (State::Exited, 50, Tie::Network, false, Remedy::Leave),
            (State::Exited, 50, Tie::Network, true, Remedy::Start),
            (State::Exited, 50, Tie::Orphan, true, Remedy::Recreate),
        ] {
            let found = for_dependent(&details(state, started), &member(tie), vpn, stopped_too);
            assert_eq!(found, remedy, "{state} {started} {tie:?} {stopped_too}");
        }
    }

    #[test]
    fn the_schema_and_the_params_agree() {
        let schema = serde_json::from_str(RestartDependents::PARAMS_SCHEMA).unwrap();
        let schema = jsonschema::draft202012::new(&schema).unwrap();
        for (params, good) in [
            (json!({}), true),
            (json!({ "depends_on": "all", "stopped": true }), true),
            (json!({ "depends_on": "none", "wait": "2m" }), true),
            (json!({ "depends_on": "some" }), false),
            (json!({ "dependents": true }), false),
        ] {
            assert_eq!(schema.is_valid(&params), good, "{params}");
            let parsed = serde_json::from_value::<Params>(params.clone());
            assert_eq!(parsed.is_ok(), good, "{params}");
        }
    }

    #[test]
    fn the_defaults_of_the_schema_are_the_defaults() {
        let schema: serde_json::Value =
            serde_json::from_str(RestartDependents::PARAMS_SCHEMA).unwrap();
        let params: Params = serde_json::from_value(json!({})).unwrap();
        assert_eq!(params.timeout, None, "the container says");
        for (name, default) in [("wait", params.wait), ("steady", params.steady)] {
            let written = &schema["properties"][name]["default"];
            assert_eq!(written, &default.to_string(), "{name}");
        }
        assert_eq!(params.depends_on, DependsOn::Restart);
    }
}
