//! `GET /api/v1/status`: what serves, and what in the files does not.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use sentinel_core::id::{Digest, PluginName, PolicyName};
use serde::Serialize;

use super::Api;
use crate::reconfigure::Standing;
use crate::serving::Problem;
use crate::telemetry::budgets::UsedUp;

#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    started_at: Timestamp,
    plugins: Vec<ServedPlugin>,
    policies: Vec<PolicyName>,
    problems: Vec<Problem>,
    configuration: Standing,
    used_up: Vec<UsedUp>,
}

#[derive(Debug, Serialize)]
struct ServedPlugin {
    name: PluginName,
    version: String,
    digest: Digest,
}

pub(super) async fn status(State(api): State<Arc<Api>>) -> Json<Status> {
    let serving = api.serving.load();
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        started_at: api.started_at,
        plugins: serving
            .plugins
            .iter()
            .map(|plugin| ServedPlugin {
                name: plugin.name.clone(),
                version: plugin.version.to_string(),
                digest: plugin.digest,
            })
            .collect(),
        policies: serving
            .policies
            .policies()
            .iter()
            .map(|policy| policy.name.clone())
            .collect(),
        problems: api.problems.get(),
        configuration: api.configuration.get(),
        used_up: api.metrics.budgets.used_up(api.clock.now()),
    })
}
