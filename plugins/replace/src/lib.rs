//! Replaces a container by a new one of the same name, image, settings, networks and
//! volumes, and says whether the new one works: for what a restart does not mend, because it
//! is in the container's own file system, or in what Docker keeps of it.

#![forbid(unsafe_code)]

use sentinel_plugin::docker::{self, Details, Health, State};
use sentinel_plugin::params::Span;
use sentinel_plugin::{Failure, Incident, Outcome, Remediation, info};
use serde::Deserialize;

struct Replace;

/// The step's params; `params.schema.json` explains each.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    container: Option<String>,
    host: Option<String>,
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

/// Why the container is left as it is; none when it is to be replaced.
fn leave(details: &Details, incident: &Incident) -> Option<String> {
    match (details.state, details.health) {
        (State::Running, Health::Healthy) => Some("is running and healthy".to_owned()),
        // The alert may speak of its life before; what is verified after this run decides.
        (State::Running, Health::None | Health::Starting) => details
            .started_at
            .filter(|started| incident.is_first_run() && *started > incident.alert.starts_at)
            .map(|started| {
                format!(
                    "was started at {started}, after the alert began at {}",
                    incident.alert.starts_at
                )
            }),
        _ => None,
    }
}

impl Remediation for Replace {
    type Params = Params;

    const SUMMARY: &'static str = "Replaces a container that does not work by a new one of the same name, image, settings, \
         networks and volumes.";

    const PARAMS_SCHEMA: &'static str = include_str!("../params.schema.json");

    fn remediate(incident: &Incident, params: Params) -> Result<Outcome, Failure> {
        let container = incident
            .target
            .container_or(params.host.as_deref(), params.container.as_deref())?;
        let before = container.inspect()?;
        let was = before.describe();
        info!("{container} is {was}");
        if let Some(why) = leave(&before, incident) {
            return Ok(Outcome::unchanged(format!("{container} {why}")));
        }
        if before.state == State::Removing {
            return Err(Failure::retryable(format!("{container} is being removed")));
        }
        let id = container.recreate(docker::grace(params.timeout))?;
        let short = id.get(..12).unwrap_or(&id);
        info!("replaced {container} by {short}, and waiting until it works");
        let after = container
            .wait_until_up(params.wait, params.steady)
            .map_err(|failure| {
                failure.map_reason(|why| {
                    format!("{container}, which was {was}, was replaced, and {why}")
                })
            })?;
        Ok(Outcome::changed(format!(
            "replaced {container}, which was {was}; its new id is {short}, and it is {}",
            after.describe()
        )))
    }
}

sentinel_plugin::plugin!(Replace);

#[cfg(test)]
mod tests {
    use super::*;
    use sentinel_plugin::serde_json::{self, json};

    #[test]
    fn the_schema_and_the_params_agree() {
        let schema = serde_json::from_str(Replace::PARAMS_SCHEMA).unwrap();
        let schema = jsonschema::draft202012::new(&schema).unwrap();
        for (params, good) in [
            (json!({}), true),
            (json!({ "container": "web", "host": "edge" }), true),
            (json!({ "timeout": "5s", "wait": "2m", "steady": 0 }), true),
            (json!({ "wait": "soon" }), false),
            (json!({ "image": "nginx:2" }), false),
        ] {
            assert_eq!(schema.is_valid(&params), good, "{params}");
            let parsed = serde_json::from_value::<Params>(params.clone());
            assert_eq!(parsed.is_ok(), good, "{params}");
        }
    }

    #[test]
    fn the_defaults_of_the_schema_are_the_defaults() {
        let schema: serde_json::Value = serde_json::from_str(Replace::PARAMS_SCHEMA).unwrap();
        let params: Params = serde_json::from_value(json!({})).unwrap();
        assert_eq!(params.timeout, None, "the container says");
        for (name, default) in [("wait", params.wait), ("steady", params.steady)] {
            let written = &schema["properties"][name]["default"];
            assert_eq!(written, &default.to_string(), "{name}");
        }
    }
}
