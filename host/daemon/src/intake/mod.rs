//! The doors that alerts come in through: read, normalise, commit, answer.
//!
//! A delivery is answered 202 only after its alerts are committed, and nothing is ever
//! done in the request: an Alertmanager that waits too long sends again.

mod body;
mod rejection;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::Timestamp;
use sentinel_intake::{Endpoint, One, Reading, Refused};
use sentinel_journal::{DEAD_LETTER_BYTES, DeadLetter, Journal, WriteError};
use serde::Serialize;
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::rejection::Rejection;
use crate::clock::Clock;
use crate::engine::EngineHandle;
use crate::reconfigure::Running;
use crate::telemetry::metrics::Metrics;

/// How many accepted alerts may wait for the engine before the answers to others slow
/// down. What waits is on the disk, but it is in memory too, and stands before whatever
/// comes after it.
const BUSY: u64 = 4_000;

/// How many times the backlog may wait because their policies may have no more incidents open.
const WAITING: u64 = 2;

/// How long an answer is held back for that at the most: far less than a sender waits.
const HOLD: Duration = Duration::from_secs(2);

/// The largest body that is read where it arrives. A larger one is read elsewhere, and in
/// slices, so that it keeps nobody waiting.
const AT_ONCE: usize = 64 << 10;

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
    // Who reads a slice of a large body: one at a time, in turns.
    slices: Semaphore,
    // Deliveries that are held back go on in the order in which they came.
    turn: Mutex<()>,
    // Commits go on when their client has hung up.
    commits: TaskTracker,
    stopping: CancellationToken,
    // Without an engine nothing that is taken in would be dealt with.
    engine_gone: CancellationToken,
    // Told when alerts come that live by lease.
    posted: Arc<Notify>,
}

/// The answer to a delivery that was committed.
#[derive(Debug, Serialize)]
struct Receipt {
    /// How many alerts were.
    accepted: usize,
    /// How many were not, because something is wrong with them.
    #[serde(skip_serializing_if = "is_none")]
    refused: usize,
    /// What is wrong with the first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_none(count: &usize) -> bool {
    *count == 0
}

impl Intake {
    pub(crate) fn new(
        journal: Arc<Journal>,
        clock: Arc<Clock>,
        engine: EngineHandle,
        metrics: Arc<Metrics>,
        config: Running,
        (stopping, engine_gone): (CancellationToken, CancellationToken),
        posted: Arc<Notify>,
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
            slices: Semaphore::new(1),
            turn: Mutex::new(()),
            commits: TaskTracker::new(),
            stopping,
            engine_gone,
            posted,
        }
    }

    /// Waits for the commits that have begun.
    pub(crate) async fn drain(&self) {
        self.commits.close();
        self.commits.wait().await;
    }

    async fn deliver(self: Arc<Self>, endpoint: Endpoint, request: Request<Body>) -> Response {
        match self.clone().take(endpoint, request).await {
            Ok(receipt) => (StatusCode::ACCEPTED, Json(receipt)).into_response(),
            Err(rejection) => {
                let (reason, urgent) = (rejection.reason(), rejection.is_urgent());
                self.metrics.delivery_rejected(
                    endpoint.source(),
                    reason,
                    &rejection.to_string(),
                    urgent,
                );
                rejection.into_response()
            }
        }
    }

    async fn take(
        self: Arc<Self>,
        endpoint: Endpoint,
        request: Request<Body>,
    ) -> Result<Receipt, Rejection> {
        if self.is_stopping() {
            return Err(Rejection::Stopping);
        }
        let limits = self.config.load().limits.intake;
        // What waits for one policy must not keep the others' alerts out, as long as it can be
        // kept in mind.
        let waiting = self.metrics.waiting_len() >= limits.backlog.saturating_mul(WAITING);
        if self.metrics.backlog_len() >= limits.backlog || waiting {
            return Err(Rejection::Overloaded);
        }
        let (body, permit) = body::read(request, &limits, &self.memory).await?;
        // From here on the client may hang up: what it sent is committed all the same.
        let task = self.commits.clone().spawn(async move {
            let accepted = self.commit(endpoint, body).await;
            drop(permit);
            accepted
        });
        task.await.unwrap_or(Err(Rejection::Stopping))
    }

    fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled() || self.engine_gone.is_cancelled()
    }

    /// Keeps what could not be understood, for a person to look at.
    async fn keep(&self, endpoint: Endpoint, at: Timestamp, error: String, head: Vec<u8>) {
        let letter = DeadLetter {
            at,
            source: endpoint.source().to_owned(),
            error,
            body: head,
        };
        if let Err(error) = self.journal.dead_letter(letter).await {
            self.metrics.journal_failed("dead letter", &error);
        }
    }

    async fn commit(&self, endpoint: Endpoint, body: Bytes) -> Result<Receipt, Rejection> {
        let at = self.clock.now();
        let resolve_timeout = self.config.load().resolve_timeout;
        let large = body.len() > AT_ONCE;
        let head = body.get(..DEAD_LETTER_BYTES).unwrap_or(&body).to_vec();
        let memory = self.memory.clone();
        let opened = self
            .in_turn(large, move || {
                // What is no UTF-8 is longer once it is replaced.
                let growth = body::take(&memory, sentinel_intake::growth(&body))?;
                let text = sentinel_intake::text(body);
                let reading = Reading::open(endpoint, text, at, resolve_timeout);
                Ok::<_, Rejection>(reading.map(|reading| (reading, growth)))
            })
            .await??;
        let (mut reading, _growth) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.keep(endpoint, at, error.to_string(), head).await;
                return Err(Rejection::Malformed(error, false));
            }
        };
        if let Some(truncated) = reading.truncated() {
            self.metrics
                .delivery_truncated(&truncated.receiver, &truncated.group, truncated.count);
        }
        let mut accepted = 0;
        loop {
            let slice;
            (reading, slice) = self
                .in_turn(large, move || {
                    let slice = reading.slice();
                    (reading, slice)
                })
                .await?;
            if !slice.is_empty() {
                accepted += self.accept(endpoint, slice, at).await?;
            }
            if reading.is_done() {
                break;
            }
            // Its sender comes again with all of it, and what was accepted is known then.
            if large && self.is_stopping() {
                return Err(Rejection::Stopping);
            }
        }
        if reading.cut() > 0 {
            self.metrics
                .annotations_cut(endpoint.source(), reading.cut());
        }
        let refused = reading.refused();
        if refused.count() > 0 {
            self.refuse(endpoint, at, accepted, refused, head).await?;
        }
        Ok(Receipt {
            accepted,
            refused: refused.count(),
            reasons: refused.reasons(),
        })
    }

    /// Does a part of the reading: of a large body elsewhere, one after another.
    async fn in_turn<T: Send + 'static>(
        &self,
        large: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Rejection> {
        if !large {
            return Ok(work());
        }
        let _turn = self.slices.acquire().await;
        let done = self.commits.spawn_blocking(work).await;
        done.map_err(|_| Rejection::Stopping)
    }

    /// Tells of alerts that are not taken, and keeps the delivery; an error where none was.
    async fn refuse(
        &self,
        endpoint: Endpoint,
        at: Timestamp,
        accepted: usize,
        refused: &Refused,
        head: Vec<u8>,
    ) -> Result<(), Rejection> {
        let summary = refused.summary();
        self.keep(endpoint, at, summary.clone(), head).await;
        if accepted == 0
            && let Some(first) = refused.first()
        {
            return Err(Rejection::Malformed(first.clone(), refused.is_urgent()));
        }
        // The others are as good as alone.
        self.metrics.delivery_rejected(
            endpoint.source(),
            "bad-alert",
            &summary,
            refused.is_urgent(),
        );
        Ok(())
    }

    /// Commits alerts, and hands them to the engine.
    async fn accept(
        &self,
        endpoint: Endpoint,
        slice: Vec<One>,
        at: Timestamp,
    ) -> Result<usize, Rejection> {
        let count = slice.len();
        if !slice.iter().any(|one| one.alert.is_urgent()) {
            self.hold_back().await;
        }
        self.metrics.backlog(count as i64);
        let (alerts, spans): (Vec<_>, Vec<_>) =
            slice.into_iter().map(|one| (one.alert, one.span)).unzip();
        match self.journal.accept_leased(alerts, spans, at).await {
            Ok(accepted) => {
                // With those that lapsed just before they were told of again.
                self.metrics.backlog(accepted.len() as i64 - count as i64);
                let statuses = accepted.iter().map(|accepted| accepted.alert.status);
                self.metrics.delivery_accepted(endpoint.source(), statuses);
                self.engine.accepted(accepted);
                if endpoint == Endpoint::Prometheus {
                    self.posted.notify_one();
                }
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

/// `POST|PUT /api/v1/alerts/alertmanager`: Alertmanager's webhook, and Grafana's.
pub(crate) async fn alertmanager(
    State(intake): State<Arc<Intake>>,
    request: Request<Body>,
) -> Response {
    intake.deliver(Endpoint::Alertmanager, request).await
}

/// `POST /api/v2/alerts`: the array that Prometheus sends to an Alertmanager.
pub(crate) async fn prometheus(
    State(intake): State<Arc<Intake>>,
    request: Request<Body>,
) -> Response {
    intake.deliver(Endpoint::Prometheus, request).await
}
