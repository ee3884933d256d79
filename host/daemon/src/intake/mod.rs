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
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use sentinel_core::alert::Alert;
use sentinel_journal::{DEAD_LETTER_BYTES, DeadLetter, Journal, WriteError};
use serde::Serialize;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::malformed::{Malformed, Sifted};
use self::rejection::Rejection;
use crate::clock::Clock;
use crate::engine::EngineHandle;
use crate::reconfigure::Running;
use crate::telemetry::metrics::Metrics;

/// How many alerts of a delivery are committed as one. A group of Alertmanager's can hold
/// twenty thousand: then others are served in between.
const CHUNK: usize = 500;

/// How many accepted alerts may wait for the engine before the answers to others slow
/// down. What waits is on the disk, but it is in memory too, and stands before whatever
/// comes after it.
const BUSY: u64 = 4_000;

/// How long an answer is held back for that at the most: far less than a sender waits.
const HOLD: Duration = Duration::from_secs(2);

/// How a door reads a body.
type Parse = fn(&[u8], Timestamp) -> Result<Delivery<'_>, Malformed>;

/// What every door needs.
#[derive(Debug)]
pub(crate) struct Intake {
    journal: Arc<Journal>,
    clock: Arc<Clock>,
    engine: EngineHandle,
    metrics: Arc<Metrics>,
    config: Running,
    // Bodies that are being read or parsed, in KiB: 1,500 connections with a large
    // body each must not take all memory.
    memory: Arc<Semaphore>,
    // Deliveries that are held back go on in the order in which they came.
    turn: Mutex<()>,
    // Commits go on when their client has hung up.
    commits: TaskTracker,
    stopping: CancellationToken,
    // Without an engine nothing that is taken in would be dealt with.
    engine_gone: CancellationToken,
}

/// What a delivery turned out to hold.
struct Delivery<'a> {
    /// Its alerts, or what is wrong with them.
    alerts: Sifted<'a>,
    /// Set when Alertmanager says that it left alerts out.
    truncated: Option<Truncated>,
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
        clock: Arc<Clock>,
        engine: EngineHandle,
        metrics: Arc<Metrics>,
        config: Running,
        stopping: CancellationToken,
        engine_gone: CancellationToken,
    ) -> Self {
        let memory = config.load().limits.intake.memory;
        let kib = usize::try_from(memory.0 >> 10).unwrap_or(usize::MAX);
        Self {
            journal,
            clock,
            engine,
            metrics,
            config,
            memory: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
            turn: Mutex::new(()),
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
        parse: Parse,
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
        parse: Parse,
    ) -> Result<usize, Rejection> {
        if self.stopping.is_cancelled() || self.engine_gone.is_cancelled() {
            return Err(Rejection::Stopping);
        }
        let limits = self.config.load().limits.intake;
        if self.metrics.backlog_len() >= limits.backlog {
            return Err(Rejection::Overloaded);
        }
        let (body, permit) = body::read(request, &limits, &self.memory).await?;
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
        parse: Parse,
    ) -> Result<usize, Rejection> {
        let at = self.clock.now();
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
        let mut alerts = delivery.alerts;
        let mut bad = Vec::new();
        let mut accepted = 0;
        loop {
            let chunk = next_chunk(&mut alerts, &mut bad);
            if chunk.is_empty() {
                break;
            }
            accepted += self.accept(source, chunk, at).await?;
        }
        drop(alerts);
        if let Some(first) = bad.first() {
            let error = bad
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ");
            if accepted == 0 {
                let first = first.clone();
                self.keep(source, at, first.to_string(), body).await;
                return Err(Rejection::Malformed(first));
            }
            // The others are as good as alone.
            self.metrics.delivery_rejected(source, "bad-alert", &error);
            self.keep(source, at, error, body).await;
        }
        Ok(accepted)
    }

    /// Commits alerts, and hands them to the engine.
    async fn accept(
        &self,
        source: &'static str,
        alerts: Vec<Alert>,
        at: Timestamp,
    ) -> Result<usize, Rejection> {
        let count = alerts.len();
        if !alerts.iter().any(Alert::is_urgent) {
            self.hold_back().await;
        }
        self.metrics.backlog(count as i64);
        match self.journal.accept(alerts, at).await {
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

    /// Waits while the engine has more than enough to do, but not for long: an engine that
    /// does not come on is no reason to refuse what the disk can take.
    async fn hold_back(&self) {
        let busy = || self.metrics.backlog_len() >= BUSY;
        if !busy() {
            return;
        }
        let wait = async {
            let _turn = self.turn.lock().await;
            while busy() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(HOLD, wait).await.is_err() {
            tracing::debug!("the engine is busy; alerts are accepted all the same");
        }
    }
}

/// The next alerts to commit as one; what is wrong with others goes to `bad`.
fn next_chunk(alerts: &mut Sifted<'_>, bad: &mut Vec<Malformed>) -> Vec<Alert> {
    let mut chunk = Vec::new();
    for alert in alerts {
        match alert {
            Ok(alert) => chunk.push(alert),
            Err(error) => bad.push(error),
        }
        if chunk.len() == CHUNK {
            break;
        }
    }
    chunk
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
