//! Gives a Compose service more containers, or fewer, between two bounds.
//!
//! A container is added by starting one of the service that is stopped, or else by making
//! one like those that run, with the next number, as `docker compose up --scale` does. One
//! that does not come to work is removed again. Those that do not work are taken away
//! first, then the one with the highest number.

#![forbid(unsafe_code)]

mod service;

use sentinel_plugin::docker::{self, Container, Filter};
use sentinel_plugin::params::Span;
use sentinel_plugin::{Failure, Incident, Outcome, Remediation, info};
use serde::Deserialize;

use crate::service::{NUMBER, ONE_OFF, PROJECT, Replica, SERVICE, goal, next_name};

struct Scale;

/// The step's params; `params.schema.json` explains each.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    project: Option<String>,
    service: Option<String>,
    host: Option<String>,
    change: Option<i32>,
    replicas: Option<u32>,
    min: u32,
    max: u32,
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

/// A service of a project on a host.
struct Service<'a> {
    params: &'a Params,
    host: String,
    project: String,
    name: String,
}

impl<'a> Service<'a> {
    /// The one that the params name, and where they are silent that of the target.
    fn of(params: &'a Params, incident: &Incident) -> Result<Self, Failure> {
        let host = incident.target.docker_host_or(params.host.as_deref())?;
        let (project, name) = match (&params.project, &params.service) {
            (Some(project), Some(service)) => (project.clone(), service.clone()),
            (project, service) => {
                let container = incident.target.container_or(Some(&host), None)?;
                let details = container.inspect()?;
                let pick = |given: &Option<String>, label| {
                    let of_target = || details.label(label).map(str::to_owned);
                    given.clone().or_else(of_target).ok_or_else(|| {
                        Failure::permanent(format!(
                            "{container} is of no Compose service: params need `project` and \
                             `service`"
                        ))
                    })
                };
                (pick(project, PROJECT)?, pick(service, SERVICE)?)
            }
        };
        Ok(Self {
            params,
            host,
            project,
            name,
        })
    }

    /// Its containers, sorted by number.
    fn replicas(&self) -> Result<Vec<Replica>, Failure> {
        let filter = Filter::all()
            .label(PROJECT, &self.project)
            .label(SERVICE, &self.name);
        let mut replicas = Vec::new();
        for row in docker::list(&self.host, &filter)? {
            if row.label(ONE_OFF) != Some("True") {
                let details = Container::new(&self.host, &row.id).inspect()?;
                replicas.push(Replica::of(&details));
            }
        }
        replicas.sort_by_key(|replica| replica.number);
        Ok(replicas)
    }

    fn container(&self, name: &str) -> Container {
        Container::new(&self.host, name)
    }

    /// Starts one that is stopped, or makes one; its name.
    fn add(&self, replicas: &[Replica]) -> Result<String, Failure> {
        let (wait, steady) = (self.params.wait, self.params.steady);
        if let Some(stopped) = replicas.iter().find(|replica| !replica.is_up) {
            let container = self.container(&stopped.name);
            container.start()?;
            container.wait_until_up(wait, steady)?;
            return Ok(stopped.name.clone());
        }
        let like = replicas
            .iter()
            .find(|replica| replica.works)
            .or(replicas.first())
            .ok_or_else(|| {
                Failure::permanent(format!(
                    "{self} has no container that the policy grants, so there is none to make \
                     another one like"
                ))
            })?;
        let number = replicas
            .iter()
            .map(|replica| replica.number)
            .max()
            .unwrap_or_default()
            + 1;
        let name = next_name(like, number)?;
        self.container(&like.name)
            .duplicate(&name, [(NUMBER, number.to_string().as_str())])?;
        info!("made {name} like {}, and waiting until it works", like.name);
        let made = self.container(&name);
        if let Err(failure) = made.wait_until_up(wait, steady) {
            let end = match made.remove(docker::grace(self.params.timeout)) {
                Ok(()) => "it was removed again".to_owned(),
                Err(error) => format!("removing it failed, too: {error}"),
            };
            return Err(failure.map_reason(|why| format!("{name} was made, but {why}; {end}")));
        }
        Ok(name)
    }

    /// Removes one; its name.
    fn take(&self, replicas: &[Replica]) -> Result<String, Failure> {
        let up = replicas.iter().filter(|replica| replica.is_up);
        // What does not work is missed least, and what came last goes first.
        let last = up.max_by_key(|replica| (!replica.works, replica.number));
        let Some(last) = last else {
            return Err(Failure::permanent(format!("{self} has no container left")));
        };
        self.container(&last.name)
            .remove(docker::grace(self.params.timeout))?;
        Ok(last.name.clone())
    }
}

/// `project/service`.
impl std::fmt::Display for Service<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.project, self.name)
    }
}

impl Remediation for Scale {
    type Params = Params;

    const SUMMARY: &'static str =
        "Gives a Compose service more containers, or fewer, between two bounds.";

    const PARAMS_SCHEMA: &'static str = include_str!("../params.schema.json");

    fn remediate(incident: &Incident, params: Params) -> Result<Outcome, Failure> {
        let service = Service::of(&params, incident)?;
        let mut replicas = service.replicas()?;
        let count = |replicas: &[Replica]| {
            u32::try_from(replicas.iter().filter(|replica| replica.is_up).count())
                .unwrap_or(u32::MAX)
        };
        let before = count(&replicas);
        let goal = goal(
            before,
            params.change,
            params.replicas,
            params.min,
            params.max,
        )
        .map_err(|why| Failure::permanent(format!("{service}: {why}")))?;
        info!("{service} runs {before} containers, and is to run {goal}");
        let (mut added, mut taken) = (Vec::new(), Vec::new());
        loop {
            let now = count(&replicas);
            let step = match now.cmp(&goal) {
                std::cmp::Ordering::Less => service.add(&replicas).map(|name| added.push(name)),
                std::cmp::Ordering::Greater => service.take(&replicas).map(|name| taken.push(name)),
                std::cmp::Ordering::Equal => break,
            };
            step.map_err(|failure| {
                failure.map_reason(|why| {
                    format!("{service} runs {now} containers and not yet {goal}: {why}")
                })
            })?;
            replicas = service.replicas()?;
        }
        let what = match (added.as_slice(), taken.as_slice()) {
            ([], []) => {
                return Ok(Outcome::unchanged(format!(
                    "{service} runs {before} containers already"
                )));
            }
            (added, []) => format!("added {}", added.join(", ")),
            ([], taken) => format!("removed {}", taken.join(", ")),
            (added, taken) => format!("added {}, removed {}", added.join(", "), taken.join(", ")),
        };
        Ok(Outcome::changed(format!(
            "{service} runs {goal} containers, {before} before: {what}"
        )))
    }
}

sentinel_plugin::plugin!(Scale);

#[cfg(test)]
mod tests {
    use super::*;
    use sentinel_plugin::serde_json::{self, json};

    #[test]
    fn the_schema_and_the_params_agree() {
        let schema = serde_json::from_str(Scale::PARAMS_SCHEMA).unwrap();
        let schema = jsonschema::draft202012::new(&schema).unwrap();
        for (params, good) in [
            (json!({ "change": 1, "min": 1, "max": 5 }), true),
            (json!({ "change": -2, "min": 0, "max": 5 }), true),
            (
                json!({ "replicas": 3, "min": 1, "max": 5, "project": "shop", "service": "web" }),
                true,
            ),
            (json!({ "change": 1, "min": 1, "max": "5" }), false),
            (json!({ "change": 1, "max": 5 }), false),
            (json!({ "change": 1, "min": 1, "max": 5, "by": 2 }), false),
        ] {
            assert_eq!(schema.is_valid(&params), good, "{params}");
            let parsed = serde_json::from_value::<Params>(params.clone());
            assert_eq!(parsed.is_ok(), good, "{params}");
        }
        for params in [
            json!({ "min": 1, "max": 5 }),
            json!({ "change": 1, "replicas": 2, "min": 1, "max": 5 }),
            json!({ "change": 0, "min": 1, "max": 5 }),
        ] {
            assert!(!schema.is_valid(&params), "{params}");
        }
    }

    #[test]
    fn the_defaults_of_the_schema_are_the_defaults() {
        let schema: serde_json::Value = serde_json::from_str(Scale::PARAMS_SCHEMA).unwrap();
        let params: Params =
            serde_json::from_value(json!({ "change": 1, "min": 1, "max": 2 })).unwrap();
        assert_eq!(params.timeout, None, "the container says");
        for (name, default) in [("wait", params.wait), ("steady", params.steady)] {
            let written = &schema["properties"][name]["default"];
            assert_eq!(written, &default.to_string(), "{name}");
        }
    }
}
