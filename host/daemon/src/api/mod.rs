//! The HTTP side: the doors, the incidents, and what says how the daemon is.

mod alertmanager;
mod health;
mod incidents;
mod operate;
mod plugins;
mod server;
mod status;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, get, on, post, put};
use jiff::Timestamp;
use sentinel_core::version::Versions;
use sentinel_drivers::docker::Docker;
use sentinel_journal::{Journal, Reader};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) use self::incidents::{IncidentList, IncidentView, PlanView};
pub(crate) use self::operate::{
    PauseBody, Pauses, PlanBody, ReasonBody, ResumeBody, Said, ScopeBody,
};
pub(crate) use self::plugins::{AcceptBody, InstallQuery, PluginList, RollBackBody};
pub(crate) use self::server::serve;
use crate::clock::Clock;
use crate::engine::{EngineHandle, Switch};
use crate::intake::{self, Intake};
use crate::reconfigure::Standings;
use crate::serving::{Probation, Problems, Request, Serving};
use crate::telemetry::metrics::Metrics;

/// How long a request's headers may take to arrive.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the handlers look at.
pub(crate) struct Api {
    pub(crate) reader: Arc<Reader>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) serving: Arc<arc_swap::ArcSwap<Serving>>,
    pub(crate) problems: Arc<Problems>,
    pub(crate) configuration: Arc<Standings>,
    pub(crate) versions: Arc<Mutex<Versions>>,
    pub(crate) probation: Arc<Probation>,
    pub(crate) requests: mpsc::UnboundedSender<Request>,
    pub(crate) max_plugin_size: usize,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) docker: Arc<Docker>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) engine: EngineHandle,
    pub(crate) switch: Arc<Switch>,
    pub(crate) started_at: Timestamp,
    pub(crate) stopping: CancellationToken,
    /// Cancelled when the engine's task is gone, however it went.
    pub(crate) engine_gone: CancellationToken,
}

/// Every route. A door answers with and without a slash at its end: a redirect would
/// turn a sender's POST into a GET, and the alert would be lost.
pub(crate) fn router(api: Arc<Api>, intake: Arc<Intake>) -> Router {
    let deliver = on(
        MethodFilter::POST.or(MethodFilter::PUT),
        intake::alertmanager,
    );
    let doors = Router::new()
        .route("/api/v1/alerts/alertmanager", deliver.clone())
        .route("/api/v1/alerts/alertmanager/", deliver)
        .route("/api/v2/alerts", post(intake::prometheus))
        .route("/api/v2/alerts/", post(intake::prometheus))
        .with_state(intake);
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/api/v1/incidents", get(incidents::list))
        .route("/api/v1/incidents/", get(incidents::list))
        .route("/api/v1/incidents/{id}", get(incidents::show))
        .route("/api/v1/incidents/{id}/approve", post(operate::approve))
        .route("/api/v1/incidents/{id}/deny", post(operate::deny))
        .route("/api/v1/incidents/{id}/cancel", post(operate::cancel))
        .route("/api/v1/pauses", get(operate::pauses).post(operate::pause))
        .route("/api/v1/resume", post(operate::resume))
        .route("/api/v1/plugins", get(plugins::list))
        .route(
            "/api/v1/plugins/{name}",
            put(plugins::install).delete(plugins::remove),
        )
        .route("/api/v1/plugins/{name}/rollback", post(plugins::roll_back))
        .route("/api/v1/versions/{digest}/accept", post(plugins::accept))
        .route("/api/v1/status", get(status::status))
        .route("/api/v2/status", get(alertmanager::status))
        .route("/api/v2/status/", get(alertmanager::status))
        .with_state(api)
        .merge(doors)
        .fallback(not_found)
        // Intake bounds its bodies itself, and says what it wants said.
        .layer(axum::extract::DefaultBodyLimit::disable())
}

async fn not_found(uri: axum::http::Uri) -> impl IntoResponse {
    let error = format!(
        "there is nothing at {}; alerts go to /api/v1/alerts/alertmanager (webhook) or /api/v2/alerts",
        uri.path()
    );
    (StatusCode::NOT_FOUND, Json(json!({ "error": error })))
}
