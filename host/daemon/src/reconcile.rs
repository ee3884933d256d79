//! Asks Alertmanager what fires, at the start and then now and then: a notification may
//! have been missed while the daemon was down, and a resolved one may never come.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sentinel_core::alert::{Alert, AlertStatus, Episode};
use sentinel_core::bounds;
use sentinel_core::incident::later;
use sentinel_drivers::alertmanager::{AlertmanagerClient, GroupedAlert};
use sentinel_journal::{Journal, Reader};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::engine::EngineHandle;
use crate::telemetry::metrics::Metrics;

/// For how long an alert has to be missing before it counts as resolved: an Alertmanager
/// that was started anew knows nothing until Prometheus has told it again, which takes
/// it a minute.
const MISSING: Duration = Duration::from_mins(2);

/// What the door of Alertmanager's webhook calls itself: what is found here is the same
/// alert.
const SOURCE: &str = "alertmanager";

/// Compares what fires with what is open.
pub(crate) struct Reconciler {
    pub(crate) client: AlertmanagerClient,
    pub(crate) every: Duration,
    pub(crate) receiver: Option<String>,
    // How old an alert is before its notification counts as lost.
    pub(crate) missed_after: Duration,
    // Whether it does where Alertmanager cannot tell what it mutes.
    pub(crate) unmuted: bool,
    pub(crate) journal: Arc<Journal>,
    pub(crate) reader: Arc<Reader>,
    pub(crate) engine: EngineHandle,
    pub(crate) clock: Arc<Clock>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Reconciler {
    /// Looks until the daemon stops.
    pub(crate) async fn serve(self, stopping: CancellationToken) {
        let mut missing = HashMap::new();
        let mut reachable = true;
        let mut told = false;
        loop {
            match self.look(&mut missing, &mut told).await {
                Ok(()) => reachable = true,
                // Once, and not every minute.
                Err(error) if reachable => {
                    reachable = false;
                    self.metrics.reconcile_failed(&error);
                }
                Err(error) => tracing::debug!(error, "alertmanager still does not say what fires"),
            }
            tokio::select! {
                () = tokio::time::sleep(self.every) => {}
                () = stopping.cancelled() => return,
            }
        }
    }

    /// One look. `missing` is since when alerts of open incidents have not been among
    /// those that fire; `told` whether it was told that some may be muted.
    async fn look(
        &self,
        missing: &mut HashMap<Episode, Timestamp>,
        told: &mut bool,
    ) -> Result<(), String> {
        let asked_at = self.clock.now();
        let groups = self.client.groups().await;
        let groups = groups.map_err(|error| error.to_string())?;
        let active = self.client.alerts().await;
        let active = active.map_err(|error| error.to_string())?;
        // One that was started anew owes again what it had not told before.
        let owes_from = self.client.started_at().await;
        let of_groups = groups.iter().map(|grouped| &grouped.found);
        let firing: HashSet<Episode> = active
            .iter()
            .chain(of_groups)
            .map(|found| found.alert.episode())
            .collect();
        let open = self.engine.firing().await;
        missing.retain(|episode, _| !firing.contains(episode));
        let mut gone = Vec::new();
        for (episode, last_word) in open {
            if episode.source != SOURCE || firing.contains(&episode) || last_word >= asked_at {
                continue;
            }
            let since = *missing.entry(episode.clone()).or_insert(asked_at);
            if later(since, MISSING) <= asked_at {
                missing.remove(&episode);
                gone.push(episode);
            }
        }
        let mut missed = HashMap::new();
        for grouped in groups {
            let since = owes_from.map_or(grouped.found.alert.starts_at, |started| {
                started.max(grouped.found.alert.starts_at)
            });
            if later(since, self.missed_after) <= asked_at && self.is_news(&grouped, told)? {
                missed.insert(grouped.found.alert.episode(), grouped.found.alert);
            }
        }
        let mut alerts: Vec<_> = missed.into_values().collect();
        let missed = alerts.len();
        for episode in gone {
            alerts.extend(self.end_of(&episode, asked_at)?);
        }
        let ended = alerts.len() - missed;
        if alerts.is_empty() {
            return Ok(());
        }
        self.metrics.reconciled(missed, ended);
        self.metrics.backlog(alerts.len() as i64);
        let count = alerts.len() as i64;
        match self.journal.accept(alerts, self.clock.now()).await {
            Ok(accepted) => self.engine.accepted(accepted),
            Err(error) => {
                self.metrics.backlog(-count);
                return Err(error.to_string());
            }
        }
        Ok(())
    }

    /// Whether a notification of it should have come, and never did: what Alertmanager holds
    /// back on purpose, or may, is not lost.
    fn is_news(&self, grouped: &GroupedAlert, told: &mut bool) -> Result<bool, String> {
        let found = &grouped.found;
        let routed = self.receiver.as_ref().is_none_or(|ours| {
            // The group's own, where it is a group's.
            grouped.receiver.as_ref().map_or_else(
                || found.receivers.contains(ours),
                |receiver| receiver == ours,
            )
        });
        if found.suppressed || grouped.muted == Some(true) || !routed {
            return Ok(false);
        }
        // Intake has refused it.
        if bounds::check_labels(&found.alert.labels).is_err() {
            return Ok(false);
        }
        let known = self
            .reader
            .alert(&found.alert.episode())
            .map_err(|error| error.to_string())?;
        if known.is_some() {
            return Ok(false);
        }
        if grouped.muted.is_none() && !self.unmuted {
            if !*told {
                *told = true;
                Metrics::cannot_tell_muted(found.alert.name());
            }
            return Ok(false);
        }
        Ok(true)
    }

    /// The resolved notification that never came.
    fn end_of(&self, episode: &Episode, at: Timestamp) -> Result<Option<Alert>, String> {
        let firing = self
            .reader
            .alert(episode)
            .map_err(|error| error.to_string())?;
        Ok(firing.map(|alert| Alert {
            status: AlertStatus::Resolved,
            ends_at: Some(at),
            ..alert
        }))
    }
}
