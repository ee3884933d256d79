//! Restarts a set of containers batch by batch, so that the rest of them goes on serving:
//! those that do not work first, and none before the batch before it works again. It stops
//! at the first one that does not come back, and says which are done and which are not.
//!
//! A container that works and was started after the alert began counts as done. So another
//! attempt goes on where the one before it stopped.

#![forbid(unsafe_code)]

mod batch;
mod progress;

use std::collections::BTreeMap;
use std::time::Duration;

use sentinel_plugin::docker::{self, Container, Details, Filter};
use sentinel_plugin::params::Span;
use sentinel_plugin::{Failure, Incident, Outcome, Remediation, Timestamp, clock, info};
use serde::Deserialize;

use crate::batch::Batch;
use crate::progress::Progress;

/// Compose's containers of one command have this label with the value `True`; they are not
/// of the service that they are made from.
const ONE_OFF: &str = "com.docker.compose.oneoff";

/// What a container that says nothing of it is given to stop.
const STOP: Duration = Duration::from_secs(10);

struct RollingRestart;

/// The step's params; `params.schema.json` explains each.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    labels: BTreeMap<String, String>,
    host: Option<String>,
    #[serde(default)]
    batch: Batch,
    #[serde(default)]
    stopped: bool,
    timeout: Option<Span>,
    #[serde(default = "one_minute")]
    wait: Span,
    #[serde(default = "two_seconds")]
    steady: Span,
    #[serde(default)]
    pause: Span,
}

fn one_minute() -> Span {
    Span::from_secs(60)
}

fn two_seconds() -> Span {
    Span::from_secs(2)
}

/// What is to become of the containers, each by name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// To be restarted, in this order.
    todo: Vec<String>,
    /// Started since the alert began.
    fresh: Vec<String>,
    /// Not running, and not to be started.
    stopped: Vec<String>,
}

impl Plan {
    fn of(containers: Vec<Details>, began: Timestamp, stopped_too: bool) -> Self {
        let mut plan = Self::default();
        let mut broken = Vec::new();
        for details in containers {
            let works = details.works();
            if works && details.started_at.is_some_and(|started| started > began) {
                plan.fresh.push(details.name);
            } else if works {
                plan.todo.push(details.name);
            } else if details.state.is_up() || stopped_too {
                broken.push(details.name);
            } else {
                plan.stopped.push(details.name);
            }
        }
        // What does not work anyway is missed by nobody while it is restarted.
        broken.append(&mut plan.todo);
        plan.todo = broken;
        plan
    }
}

impl Params {
    /// The containers, sorted by name.
    fn containers(&self, host: &str) -> Result<Vec<Details>, Failure> {
        let mut filter = Filter::all();
        for (name, value) in &self.labels {
            filter = filter.label(name, value);
        }
        let mut found = Vec::new();
        for row in docker::list(host, &filter)? {
            if row.label(ONE_OFF) != Some("True") {
                found.push(Container::new(host, row.id).inspect()?);
            }
        }
        if found.is_empty() {
            let labels: Vec<String> = self
                .labels
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            return Err(Failure::permanent(format!(
                "no container on {host} that the policy grants carries {}",
                labels.join(", ")
            )));
        }
        Ok(found)
    }

    /// What restarting a batch takes at the least: without it, none is begun.
    fn least(&self) -> Duration {
        let stop = self.timeout.map_or(STOP, Span::duration);
        stop + self.steady.duration()
    }

    fn restart(
        &self,
        host: &str,
        batch: &[String],
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        if clock::remaining() < self.least() {
            return Err(Failure::retryable(
                "the step's time is too short for another batch",
            ));
        }
        for name in batch {
            Container::new(host, name).restart(docker::grace(self.timeout))?;
            progress.restarted(name);
        }
        for name in batch {
            let details = Container::new(host, name).wait_until_up(self.wait, self.steady)?;
            info!("{name} is {}", details.describe());
            progress.works(name);
        }
        Ok(())
    }
}

impl Remediation for RollingRestart {
    type Params = Params;

    const SUMMARY: &'static str =
        "Restarts the containers that carry some labels batch by batch, as long as they come back.";

    const PARAMS_SCHEMA: &'static str = include_str!("../params.schema.json");

    fn remediate(incident: &Incident, params: Params) -> Result<Outcome, Failure> {
        let host = incident.target.docker_host_or(params.host.as_deref())?;
        let found = params.containers(&host)?;
        let size = params.batch.of(found.len());
        let plan = Plan::of(found, incident.alert.starts_at, params.stopped);
        if plan.todo.is_empty() {
            let mut why = format!(
                "nothing to restart: started after the alert began: {}",
                progress::names(&plan.fresh)
            );
            if !plan.stopped.is_empty() {
                why = format!("{why}; not running: {}", progress::names(&plan.stopped));
            }
            return Ok(Outcome::unchanged(why));
        }
        let batches = plan.todo.len().div_ceil(size);
        info!(
            "restarting {} in {batches} batches: {}",
            plan.todo.len(),
            plan.todo.join(", ")
        );
        let mut progress = Progress::new(&plan.todo);
        for (index, batch) in plan.todo.chunks(size).enumerate() {
            if index > 0 && !params.pause.duration().is_zero() {
                clock::sleep(params.pause.duration());
            }
            params
                .restart(&host, batch, &mut progress)
                .map_err(|failure| {
                    failure.map_reason(|why| format!("stopped: {why}; {}", progress.tell()))
                })?;
        }
        let stopped = match plan.stopped.as_slice() {
            [] => String::new(),
            stopped => format!("; not running and left alone: {}", progress::names(stopped)),
        };
        Ok(Outcome::changed(format!(
            "restarted {} in {batches} {}{stopped}",
            progress::names(&plan.todo),
            if batches == 1 { "batch" } else { "batches" },
        )))
    }
}

sentinel_plugin::plugin!(RollingRestart);

#[cfg(test)]
mod tests {
    use super::*;
    use sentinel_plugin::docker::{Health, State};
    use sentinel_plugin::serde_json::{self, json};

    fn at(seconds: i64) -> Timestamp {
        Timestamp {
            seconds,
            nanoseconds: 0,
        }
    }

    fn container(name: &str, state: State, health: Health, started: i64) -> Details {
        Details {
            id: name.to_owned(),
            name: name.to_owned(),
            image: "web".to_owned(),
            state,
            health,
            failing_streak: 0,
            exit_code: 0,
            oom_killed: false,
            restart_count: 0,
            started_at: Some(at(started)),
            finished_at: None,
            labels: Vec::new(),
            network_of: None,
        }
    }

    #[test]
    fn what_is_broken_comes_first_and_what_is_done_not_again() {
        let found = || {
            vec![
                container("a", State::Running, Health::None, 10),
                container("b", State::Running, Health::Healthy, 101),
                container("c", State::Running, Health::Unhealthy, 101),
                container("d", State::Exited, Health::None, 10),
                container("e", State::Paused, Health::Healthy, 10),
            ]
        };
        let plan = Plan::of(found(), at(100), false);
        assert_eq!(plan.todo, ["c", "e", "a"]);
        assert_eq!((plan.fresh.len(), plan.stopped.len()), (1, 1));
        assert_eq!(Plan::of(found(), at(100), true).todo, ["c", "d", "e", "a"]);
    }

    #[test]
    fn the_schema_and_the_params_agree() {
        let schema = serde_json::from_str(RollingRestart::PARAMS_SCHEMA).unwrap();
        let schema = jsonschema::draft202012::new(&schema).unwrap();
        let labels = json!({ "app": "web", "tier": "" });
        for (params, good) in [
            (json!({ "labels": labels }), true),
            (
                json!({ "labels": labels, "batch": 3, "stopped": true }),
                true,
            ),
            (
                json!({ "labels": labels, "batch": "25%", "pause": "5s" }),
                true,
            ),
            (json!({ "labels": labels, "batch": 0 }), false),
            (json!({ "labels": labels, "batch": "0%" }), false),
            (json!({ "labels": labels, "batch": "101%" }), false),
            (json!({ "labels": labels, "batch": "3" }), false),
            (json!({ "labels": "app=web" }), false),
            (json!({}), false),
        ] {
            assert_eq!(schema.is_valid(&params), good, "{params}");
            let parsed = serde_json::from_value::<Params>(params.clone());
            assert_eq!(parsed.is_ok(), good, "{params}");
        }
        assert!(
            !schema.is_valid(&json!({ "labels": {} })),
            "all containers of a host are no set that anybody meant"
        );
    }

    #[test]
    fn the_defaults_of_the_schema_are_the_defaults() {
        let schema: serde_json::Value =
            serde_json::from_str(RollingRestart::PARAMS_SCHEMA).unwrap();
        let params: Params = serde_json::from_value(json!({ "labels": { "a": "b" } })).unwrap();
        assert_eq!(params.timeout, None, "the container says");
        for (name, default) in [
            ("wait", params.wait),
            ("steady", params.steady),
            ("pause", params.pause),
        ] {
            let written = &schema["properties"][name]["default"];
            assert_eq!(written, &default.to_string(), "{name}");
        }
        assert_eq!(params.batch, Batch::Count(1));
    }
}
