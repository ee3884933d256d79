//! Brings a container back: starts it when it is stopped, restarts it when it runs and does
//! not work, and leaves it alone when nothing is wrong with it. It looks before it acts, for
//! Docker's own restart policy, or a person, may have been faster.

#![forbid(unsafe_code)]

mod decision;

use std::time::Duration;

use sentinel_plugin::docker::{self, Container};
use sentinel_plugin::params::Span;
use sentinel_plugin::{Failure, Incident, Outcome, Remediation, Target, clock, info};
use serde::Deserialize;

use crate::decision::{Decision, Patience, decide, ended_by_stop};

/// How long to wait for a container that is starting, or that Docker's restart policy is
/// about to start.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(250);

struct DockerRestart;

/// The step's params; `params.schema.json` explains each.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    container: Option<String>,
    host: Option<String>,
    timeout: Option<Span>,
    #[serde(default)]
    stopped: Stopped,
}

/// What to do about a container that somebody seems to have stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stopped {
    #[default]
    Start,
    Leave,
}

impl Params {
    /// The container to act on: what the params name, and where they are silent what the
    /// target is.
    fn container(&self, target: &Target) -> Result<Container, Failure> {
        target.container_or(self.host.as_deref(), self.container.as_deref())
    }
}

impl Remediation for DockerRestart {
    type Params = Params;

    const SUMMARY: &'static str =
        "Starts a container that is stopped, and restarts one that runs and is not healthy.";

    const PARAMS_SCHEMA: &'static str = include_str!("../params.schema.json");

    fn remediate(incident: &Incident, params: Params) -> Result<Outcome, Failure> {
        let container = params.container(&incident.target)?;
        let first = container.inspect()?;
        let mut state = first.describe();
        let mut details = first.clone();
        info!("{container} is {state}");

        // Half of the time that is left belongs to what comes after the wait.
        let left = clock::remaining();
        let until = left.saturating_sub(PATIENCE.min(left / 2));
        loop {
            let patience = if clock::remaining() > until {
                Patience::Left
            } else {
                Patience::Spent
            };
            match decide(&details, &first, incident, patience) {
                Decision::Leave(why) => {
                    return Ok(Outcome::unchanged(format!("{container} {why}")));
                }
                Decision::Start if params.stopped == Stopped::Leave && ended_by_stop(&details) => {
                    return Err(Failure::permanent(format!(
                        "{container} is {state}, as if somebody had stopped it, and is left so"
                    )));
                }
                Decision::Start => {
                    container.start()?;
                    return Ok(Outcome::changed(format!(
                        "started {container}, which was {state}"
                    )));
                }
                Decision::Restart => {
                    container.restart(docker::grace(params.timeout))?;
                    return Ok(Outcome::changed(format!(
                        "restarted {container}, which was {state}"
                    )));
                }
                Decision::GiveUp(failure) => return Err(failure.of(&container)),
                Decision::Wait => {
                    clock::sleep(PAUSE);
                    details = container.inspect()?;
                    let now = details.describe();
                    if now != state {
                        info!("{container} is now {now}");
                        state = now;
                    }
                }
            }
        }
    }
}

sentinel_plugin::plugin!(DockerRestart);

#[cfg(test)]
mod tests {
    use super::*;
    use sentinel_plugin::serde_json::{self, json};

    fn target(uri: &str) -> Target {
        let (kind, rest) = uri.split_once("://").unwrap();
        let (host, name) = rest.split_once('/').unwrap_or((rest, ""));
        Target {
            uri: uri.to_owned(),
            kind: kind.to_owned(),
            host: host.to_owned(),
            name: name.to_owned(),
        }
    }

    fn container(params: serde_json::Value, uri: &str) -> Result<String, String> {
        serde_json::from_value::<Params>(params)
            .unwrap()
            .container(&target(uri))
            .map(|container| container.to_string())
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_target_is_the_default() {
        assert_eq!(
            container(json!({}), "docker://local/nginx").unwrap(),
            "local/nginx"
        );
        assert_eq!(
            container(json!({ "container": "web" }), "docker://local/nginx").unwrap(),
            "local/web"
        );
        assert_eq!(
            container(json!({ "host": "edge" }), "docker://local/nginx").unwrap(),
            "edge/nginx"
        );
    }

    #[test]
    fn another_target_needs_params() {
        let params = json!({ "container": "web", "host": "edge" });
        assert_eq!(container(params, "http://shop/").unwrap(), "edge/web");
        assert_eq!(
            container(json!({ "container": "web" }), "http://shop/").unwrap_err(),
            "the target http://shop/ is no container: params need `host`"
        );
        assert_eq!(
            container(json!({ "host": "edge" }), "http://shop/").unwrap_err(),
            "the target http://shop/ is no container: params need `container`"
        );
    }

    #[test]
    fn the_schema_and_the_params_agree() {
        let schema = serde_json::from_str(DockerRestart::PARAMS_SCHEMA).unwrap();
        let schema = jsonschema::draft202012::new(&schema).unwrap();
        for (params, good) in [
            (json!({}), true),
            (json!({ "container": "web", "host": "edge" }), true),
            (json!({ "timeout": "1m30s" }), true),
            (json!({ "timeout": 2.5 }), true),
            (json!({ "timeout": "" }), false),
            (json!({ "timeout": "5 s" }), false),
            (json!({ "timeout": -1 }), false),
            (json!({ "timeout": true }), false),
            (json!({ "stopped": "leave" }), true),
            (json!({ "stopped": "start" }), true),
            (json!({ "stopped": "ignore" }), false),
            (json!({ "grace": "5s" }), false),
            (json!({ "container": 5 }), false),
        ] {
            assert_eq!(schema.is_valid(&params), good, "{params}");
            let parsed = serde_json::from_value::<Params>(params.clone());
            assert_eq!(parsed.is_ok(), good, "{params}");
        }
    }

    #[test]
    fn without_a_timeout_the_container_says() {
        let params: Params = serde_json::from_value(json!({})).unwrap();
        assert_eq!(docker::grace(params.timeout), docker::OWN_GRACE);
        let params: Params = serde_json::from_value(json!({ "timeout": "5s" })).unwrap();
        assert_eq!(docker::grace(params.timeout), Duration::from_secs(5));
    }
}
