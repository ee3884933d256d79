//! The HTTP side: the doors, the incidents, and what says how the daemon is.

mod alertmanager;
mod edge;
mod given;
mod health;
mod held;
mod incidents;
mod looks;
mod operate;
mod plugins;
mod server;
mod status;

use std::sync::{Arc, Mutex};

use axum::extract::{self, DefaultBodyLimit};
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Json, Router};
use jiff::Timestamp;
use sentinel_core::version::Versions;
use sentinel_drivers::docker::Docker;
use sentinel_journal::{Journal, Reader};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::edge::{Bounds, Edge, Takes, bounded, not_allowed, not_found};
pub(crate) use self::incidents::{IncidentList, IncidentView, PlanView};
use self::looks::Looks;
pub(crate) use self::operate::{PauseBody, Pauses, PlanBody, ReasonBody, ResumeBody, Said};
pub(crate) use self::plugins::{AcceptBody, InstallQuery, PluginList, RollBackBody};
pub(crate) use self::server::Server;
use crate::clock::Clock;
use crate::engine::{EngineHandle, Identities, Switch};
use crate::intake::{self, Intake};
use crate::reconfigure::{Running, Standings};
use crate::serving::{Probation, Problems, Request, Serving};
use crate::telemetry::metrics::Metrics;

/// How many pages of the journal are read and sent at once.
const VIEWS: usize = 16;

/// How many plugins are taken in at once: each is held in memory until it serves.
const UPLOADS: usize = 2;

/// How many changes of plugins wait at once.
const CHANGES: usize = 8;

/// Where Alertmanager's webhook goes.
const WEBHOOK: &str = "/api/v1/alerts/alertmanager";

/// Where what is sent to an Alertmanager goes.
const ALERTS: &str = "/api/v2/alerts";

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
    /// What targets are.
    pub(crate) identities: Arc<Identities>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) engine: EngineHandle,
    pub(crate) switch: Arc<Switch>,
    pub(crate) started_at: Timestamp,
    pub(crate) stopping: CancellationToken,
    /// Cancelled when the engine's task is gone, however it went.
    pub(crate) engine_gone: CancellationToken,
    pub(crate) places: Places,
}

/// What is done at once, at the most.
pub(crate) struct Places {
    views: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    changes: Arc<Semaphore>,
    /// At Docker hosts, and at a journal that could not be written to.
    hosts: Looks,
    journal: Looks,
    /// Changes go on when who asked for them has gone, and so do looks.
    tasks: TaskTracker,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            views: Arc::new(Semaphore::new(VIEWS)),
            uploads: Arc::new(Semaphore::new(UPLOADS)),
            changes: Arc::new(Semaphore::new(CHANGES)),
            hosts: Looks::default(),
            journal: Looks::default(),
            tasks: TaskTracker::new(),
        }
    }
}

/// One way to ask for something.
struct Route {
    method: Method,
    path: &'static str,
    takes: Takes,
    handler: MethodRouter<Arc<Api>>,
}

/// What `GET /api/v1` says of a route.
#[derive(Debug, Serialize)]
struct Listed {
    method: String,
    path: &'static str,
}

/// A route that looks at the daemon.
fn route<H, T>(method: Method, path: &'static str, takes: Takes, handler: H) -> Route
where
    H: Handler<T, Arc<Api>>,
    T: 'static,
{
    Route {
        handler: on(filter(&method), handler),
        method,
        path,
        takes,
    }
}

/// A route that takes alerts.
fn door<H, T>(
    method: Method,
    path: &'static str,
    source: &'static str,
    intake: &Arc<Intake>,
    handler: H,
) -> Route
where
    H: Handler<T, Arc<Intake>>,
    T: 'static,
{
    Route {
        handler: on(filter(&method), handler).with_state(intake.clone()),
        method,
        path,
        takes: Takes::Alerts(source),
    }
}

fn filter(method: &Method) -> MethodFilter {
    match *method {
        Method::PUT => MethodFilter::PUT,
        Method::POST => MethodFilter::POST,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    }
}

/// Whether alerts are delivered there.
fn is_door(path: &str) -> bool {
    let segments = || path.split('/').filter(|segment| !segment.is_empty());
    [WEBHOOK, ALERTS]
        .iter()
        .any(|door| segments().eq(door.split('/').skip(1)))
}

/// Every route there is: the router is made of this list and of nothing else, and `GET /api/v1` tells it.
fn table(intake: &Arc<Intake>) -> Vec<Route> {
    let (get, post) = (Method::GET, Method::POST);
    let (put, delete) = (Method::PUT, Method::DELETE);
    let nothing = Takes::Nothing;
    let json = Takes::Json;
    vec![
        door(
            post.clone(),
            WEBHOOK,
            "alertmanager",
            intake,
            intake::alertmanager,
        ),
        door(
            put.clone(),
            WEBHOOK,
            "alertmanager",
            intake,
            intake::alertmanager,
        ),
        door(
            post.clone(),
            ALERTS,
            "prometheus",
            intake,
            intake::prometheus,
        ),
        route(get.clone(), "/api/v2/status", nothing, alertmanager::status),
        route(get.clone(), "/healthz", Takes::Probe, health::healthz),
        route(get.clone(), "/readyz", Takes::Probe, health::readyz),
        route(get.clone(), "/metrics", nothing, health::metrics),
        route(get.clone(), "/api/v1/status", nothing, status::status),
        route(get.clone(), "/api/v1/incidents", nothing, incidents::list),
        route(
            get.clone(),
            "/api/v1/incidents/{id}",
            nothing,
            incidents::show,
        ),
        route(
            post.clone(),
            "/api/v1/incidents/{id}/approve",
            json,
            operate::approve,
        ),
        route(
            post.clone(),
            "/api/v1/incidents/{id}/deny",
            json,
            operate::deny,
        ),
        route(
            post.clone(),
            "/api/v1/incidents/{id}/cancel",
            json,
            operate::cancel,
        ),
        route(get.clone(), "/api/v1/pauses", nothing, operate::pauses),
        route(post.clone(), "/api/v1/pauses", json, operate::pause),
        route(post.clone(), "/api/v1/resume", json, operate::resume),
        route(get, "/api/v1/plugins", nothing, plugins::list),
        route(
            put,
            "/api/v1/plugins/{name}",
            Takes::Plugin,
            plugins::install,
        ),
        route(delete, "/api/v1/plugins/{name}", nothing, plugins::remove),
        route(
            post.clone(),
            "/api/v1/plugins/{name}/rollback",
            json,
            plugins::roll_back,
        ),
        route(
            post,
            "/api/v1/versions/{digest}/accept",
            json,
            plugins::accept,
        ),
    ]
}

/// The server of these routes, for so many connections as are wanted and possible. A path is the same with and without
/// a slash at its end: a redirect would turn a sender's POST into a GET, and the alert would be lost.
pub(crate) fn server(api: Arc<Api>, intake: &Arc<Intake>, config: &Running) -> Server {
    let metrics = api.metrics.clone();
    let most = server::connections(config.load().limits.connections);
    let edge = Arc::new(Edge::new(config, most, metrics.clone()));
    let mut all = table(intake);
    let mut listed: Vec<_> = all.iter().map(Listed::of).collect();
    let index = Route {
        method: Method::GET,
        path: "/api/v1",
        takes: Takes::Nothing,
        handler: MethodRouter::new(),
    };
    listed.push(Listed::of(&index));
    let said = json!({ "routes": listed });
    all.push(Route {
        handler: on(MethodFilter::GET, move || async move { Json(said) }),
        ..index
    });
    let router = all.into_iter().fold(Router::new(), |router, route| {
        let bounds = Bounds {
            takes: route.takes,
            edge: edge.clone(),
        };
        let handler = route
            .handler
            .route_layer(from_fn_with_state(bounds, bounded));
        router.route(route.path, handler)
    });
    let router = router
        .fallback({
            let edge = edge.clone();
            move |request: extract::Request| not_found(edge, request)
        })
        .method_not_allowed_fallback({
            let edge = edge.clone();
            move |request: extract::Request| not_allowed(edge, request)
        })
        .layer(DefaultBodyLimit::max(given::BODY))
        .with_state(api);
    Server {
        router,
        edge,
        metrics,
        most,
    }
}

impl Listed {
    fn of(route: &Route) -> Self {
        Self {
            method: route.method.to_string(),
            path: route.path,
        }
    }
}
