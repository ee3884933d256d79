//! What goes on beside alerts and incidents: leases run out, and what led to nothing is
//! forgotten.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sentinel_core::record::earlier;
use sentinel_journal::{Journal, Reader, WriteError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::engine::EngineHandle;
use crate::reconfigure::Running;
use crate::telemetry::metrics::Metrics;

/// How long posts are waited for before it is looked what runs out next.
const QUIET: Duration = Duration::from_millis(20);

/// How long after an error it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How often the journal's size is looked at.
const SIZE: Duration = Duration::from_secs(15);

/// How often alerts are looked through for those that nobody needs.
const FORGET: Duration = Duration::from_hours(1);

/// What others get to write between two steps of that.
const STEP: Duration = Duration::from_millis(50);

/// Tells the engine of alerts whose leases have run out.
pub(crate) struct Leases {
    pub(crate) journal: Arc<Journal>,
    pub(crate) reader: Arc<Reader>,
    pub(crate) engine: EngineHandle,
    pub(crate) clock: Arc<Clock>,
    pub(crate) metrics: Arc<Metrics>,
    // Told when alerts were posted that live by lease.
    pub(crate) posted: Arc<Notify>,
}

impl Leases {
    /// Serves until the daemon stops.
    pub(crate) async fn serve(self, stopping: CancellationToken) {
        while !stopping.is_cancelled() {
            let wait = match self.lapse().await {
                Ok(next) => next.map(|at| self.clock.until(at)),
                Err(WriteError::Closed) => return,
                Err(error) => {
                    self.metrics.journal_failed("leases", &error);
                    Some(AGAIN)
                }
            };
            let due = async {
                match wait {
                    // Now and then the machine's clock is compared.
                    Some(wait) => tokio::time::sleep(wait.min(Duration::from_secs(5))).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.posted.notified() => tokio::time::sleep(QUIET).await,
                () = stopping.cancelled() => return,
            }
        }
    }

    /// Ends what has run out; when the next one does.
    async fn lapse(&self) -> Result<Option<Timestamp>, WriteError> {
        loop {
            let next = self
                .reader
                .next_lapse()
                .map_err(|error| WriteError::Failed(error.to_string()))?;
            let now = self.clock.now();
            if next.is_none_or(|next| next > now) {
                return Ok(next);
            }
            let ended = self.journal.lapse(now).await?;
            self.metrics.lapsed(ended.len());
            self.metrics.backlog(ended.len() as i64);
            self.engine.accepted(ended);
        }
    }
}

/// Forgets alerts that led to no incident, and knows how large the journal is.
pub(crate) struct Housekeeping {
    pub(crate) folder: PathBuf,
    pub(crate) journal: Arc<Journal>,
    pub(crate) config: Running,
    pub(crate) clock: Arc<Clock>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Housekeeping {
    /// Serves until the daemon stops.
    pub(crate) async fn serve(self, stopping: CancellationToken) {
        tokio::select! {
            () = self.forgetting() => {}
            () = self.measuring() => {}
            () = stopping.cancelled() => {}
        }
    }

    async fn forgetting(&self) {
        loop {
            if let Err(error) = self.forget().await {
                tracing::debug!(%error, "alerts that led to no incident are forgotten later");
            }
            tokio::time::sleep(FORGET).await;
        }
    }

    async fn measuring(&self) {
        loop {
            self.measure().await;
            tokio::time::sleep(SIZE).await;
        }
    }

    async fn measure(&self) {
        let mut bytes = 0;
        for file in ["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"] {
            // The log is not there at every moment.
            if let Ok(file) = tokio::fs::metadata(self.folder.join(file)).await {
                bytes += file.len();
            }
        }
        self.metrics.journal_bytes(bytes);
    }

    /// Looks through all of them, some at a time.
    async fn forget(&self) -> Result<(), WriteError> {
        let (mut from, mut forgotten) = (0, 0);
        loop {
            let before = earlier(self.clock.now(), self.config.load().retention);
            let (next, some) = self.journal.forget(before, from).await?;
            forgotten += some;
            let Some(next) = next else { break };
            from = next;
            tokio::time::sleep(STEP).await;
        }
        if forgotten > 0 {
            self.metrics.forgotten(forgotten);
        }
        Ok(())
    }
}
