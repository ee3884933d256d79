//! What a Prometheus or `amtool` asks of the Alertmanager that sentinel stands in for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Api;

/// `GET /api/v2/status`, with every field that Alertmanager's OpenAPI description
/// requires.
pub(super) async fn status(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(json!({
        "cluster": { "status": "disabled", "peers": [] },
        "config": { "original": "# Infra Sentinel takes alerts here and sends no notifications.\n" },
        "uptime": api.started_at,
        "versionInfo": {
            "branch": "",
            "buildDate": "",
            "buildUser": "",
            "goVersion": "",
            "revision": "",
            "version": concat!("infra-sentinel/", env!("CARGO_PKG_VERSION")),
        },
    }))
}
