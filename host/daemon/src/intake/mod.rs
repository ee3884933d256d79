//! The doors that alerts come in through: read, normalise, commit, answer.
//!
//! A delivery is answered 202 only after its alerts are committed, and nothing is ever
//! done in the request: an Alertmanager that waits too long sends again.

mod alertmanager;
mod body;
mod malformed;
mod prometheus;
mod rejection;

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use sentinel_core::alert::Alert;
use sentinel_journal::{DEAD_LETTER_BYTES, DeadLetter, Journal, WriteError};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::malformed::Malformed;
use self::rejection::Rejection;
use crate::config::IntakeLimits;
use crate::engine::EngineHandle;
use crate::telemetry::metrics::Metrics;

/// What every door needs.
#[derive(Debug)]
pub(crate) struct Intake {
    journal: Arc<Journal>,
    engine: EngineHandle,
    metrics: Arc<Metrics>,
    limits: IntakeLimits,
    // Bodies that are being read or parsed, in KiB: 1,500 connections with a large
    // body each must not take all memory.
    memory: Arc<Semaphore>,
    // Commits go on when their client has hung up.
    commits: TaskTracker,
    stopping: CancellationToken,
    // Without an engine nothing that is taken in would be dealt with.
    engine_gone: CancellationToken,
}

/// What a delivery turned out to hold.
struct Delivery {
    alerts: Vec<Alert>,
    /// Set when Alertmanager says that it left alerts out.
    truncated: Option<Truncated>,
    /// What is wrong with alerts that are not among them.
    bad: Vec<Malformed>,
}

struct Truncated {
    receiver: String,
    group: String,
    count: u64,
}

/// The answer to a delivery that was committed.
#[derive(Debug, Serialize)]
struct AcceptedBody {
    accepted: usize,
}

impl Intake {
    pub(crate) fn new(
        journal: Arc<Journal>,
        engine: EngineHandle,
        metrics: Arc<Metrics>,
        limits: IntakeLimits,
        stopping: CancellationToken,
        engine_gone: CancellationToken,
    ) -> Self {
        let kib = usize::try_from(limits.memory.0 >> 10).unwrap_or(usize::MAX);
        Self {
            journal,
            engine,
            metrics,
            limits,
            memory: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
            commits: TaskTracker::new(),
            stopping,
            engine_gone,
        }
    }

    /// Waits for the commits that have begun.
    pub(crate) async fn drain(&self) {
        self.commits.close();
        self.commits.wait().await;
    }

    async fn deliver(
        self: Arc<Self>,
        source: &'static str,
        request: Request<Body>,
        parse: fn(&[u8], Timestamp) -> Result<Delivery, Malformed>,
    ) -> Response {
        match self.clone().take(source, request, parse).await {
            Ok(accepted) => (StatusCode::ACCEPTED, Json(AcceptedBody { accepted })).into_response(),
            Err(rejection) => {
                self.metrics
                    .delivery_rejected(source, rejection.reason(), &rejection.to_string());
                rejection.into_response()
            }
        }
    }

    async fn take(
        self: Arc<Self>,
        source: &'static str,
        request: Request<Body>,
        parse: fn(&[u8], Timestamp) -> Result<Delivery, Malformed>,
    ) -> Result<usize, Rejection> {
        if self.stopping.is_cancelled() || self.engine_gone.is_cancelled() {
            return Err(Rejection::Stopping);
        }
        if self.metrics.backlog_len() >= self.limits.backlog {
            return Err(Rejection::Overloaded);
        }
        let (body, permit) = body::read(request, &self.limits, &self.memory).await?;
        // From here on the client may hang up: what it sent is committed all the same.
        let task = self.commits.clone().spawn(async move {
            let accepted = self.commit(source, &body, parse).await;
            drop(permit);
            accepted
        });
        task.await.unwrap_or(Err(Rejection::Stopping))
    }

    /// Keeps what could not be understood, for a person to look at.
    async fn keep(&self, source: &str, at: Timestamp, error: String, body: &[u8]) {
        let letter = DeadLetter {
            at,
            source: source.to_owned(),
            error,
            body: body.get(..DEAD_LETTER_BYTES).unwrap_or(body).to_vec(),
        };
        if let Err(error) = self.journal.dead_letter(letter).await {
            self.metrics.journal_failed("dead letter", &error);
        }
    }

    async fn commit(
        &self,
        source: &'static str,
        body: &[u8],
        parse: fn(&[u8], Timestamp) -> Result<Delivery, Malformed>,
    ) -> Result<usize, Rejection> {
        let at = Timestamp::now();
        let delivery = match parse(body, at) {
            Ok(delivery) => delivery,
            Err(error) => {
                self.keep(source, at, error.to_string(), body).await;
                return Err(Rejection::Malformed(error));
            }
        };
        if let Some(truncated) = delivery.truncated {
            self.metrics
                .delivery_truncated(&truncated.receiver, &truncated.group, truncated.count);
        }
        if !delivery.bad.is_empty() {
            // The others are as good as alone.
            let error = delivery
                .bad
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ");
            self.metrics.delivery_rejected(source, "bad-alert", &error);
            self.keep(source, at, error, body).await;
        }
        let count = delivery.alerts.len();
        if count == 0 {
            return Ok(0);
        }
        self.metrics.backlog(count as i64);
        match self.journal.accept(delivery.alerts, at).await {
            Ok(accepted) => {
                let statuses = accepted.iter().map(|accepted| accepted.alert.status);
                self.metrics.delivery_accepted(source, statuses);
                self.engine.accepted(accepted);
                Ok(count)
            }
            Err(error) => {
                self.metrics.backlog(-(count as i64));
                Err(match error {
                    WriteError::Full => Rejection::Overloaded,
                    WriteError::Closed => Rejection::Stopping,
                    WriteError::Failed(error) => {
                        self.metrics.journal_failed("alerts", &error);
                        Rejection::Disk(error)
                    }
                })
            }
        }
    }
}

/// `POST|PUT /api/v1/alerts/alertmanager`: Alertmanager's webhook, and Grafana's.
pub(crate) async fn alertmanager(
    State(intake): State<Arc<Intake>>,
    request: Request<Body>,
) -> Response {
    intake
        .deliver("alertmanager", request, alertmanager::parse)
        .await
}

/// `POST /api/v2/alerts`: the array that Prometheus sends to an Alertmanager.
pub(crate) async fn prometheus(
    State(intake): State<Arc<Intake>>,
    request: Request<Body>,
) -> Response {
    intake
        .deliver("prometheus", request, prometheus::parse)
        .await
}
