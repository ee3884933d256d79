//! Restarts the container that the policy acts on, when it is stopped or unhealthy.

use std::time::Duration;

use sentinel_plugin::docker::{Health, OWN_GRACE, State};
use sentinel_plugin::{Failure, Incident, Outcome, Remediation, info};
use serde::Deserialize;

struct Plugin;

/// The step's params; `params.schema.json` says the same to those who write policies.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    grace: Option<u64>,
}

impl Remediation for Plugin {
    type Params = Params;

    const SUMMARY: &'static str = "Restarts a container that is stopped or unhealthy.";

    const PARAMS_SCHEMA: &'static str = include_str!("../params.schema.json");

    fn remediate(incident: &Incident, params: Params) -> Result<Outcome, Failure> {
        let container = incident
            .target
            .container()
            .ok_or_else(|| Failure::permanent("the target is no container"))?;
        // Look before you act: somebody else, or an earlier attempt, may have been faster.
        let details = container.inspect()?;
        if details.state == State::Running && details.health != Health::Unhealthy {
            return Ok(Outcome::unchanged(format!("{container} runs")));
        }
        info!("{container} is {}, {}", details.state, details.health);
        container.restart(params.grace.map_or(OWN_GRACE, Duration::from_secs))?;
        Ok(Outcome::changed(format!("restarted {container}")))
    }
}

sentinel_plugin::plugin!(Plugin);
