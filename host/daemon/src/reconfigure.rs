//! Watches the configuration's file, takes over what can change while the daemon runs, and
//! says what waits for its next start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use sentinel_core::control::{ControlBody, ControlEvent, Setting};
use sentinel_core::record::Append;
use sentinel_journal::{Journal, Reader, WriteError};
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::app;
use crate::clock::Clock;
use crate::config::{Config, Pool, difference};
use crate::engine::{EngineHandle, Switch};
use crate::serving::Probation;
use crate::telemetry;
use crate::telemetry::metrics::Metrics;
use crate::watch::Watch;

/// The configuration that the daemon runs with, for whoever looks at it each time anew.
pub(crate) type Running = Arc<ArcSwap<Config>>;

/// How the file stands to what the daemon runs with, for the API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Standing {
    /// The file.
    pub(crate) file: PathBuf,
    /// Why it is not taken over; what was before goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    /// Keys whose other value holds from the next start on.
    pub(crate) restart: Vec<String>,
}

/// A [`Standing`] that several look at.
#[derive(Debug, Default)]
pub(crate) struct Standings(Mutex<Standing>);

impl Standings {
    pub(crate) fn of(file: &Path) -> Self {
        Self(Mutex::new(Standing {
            file: file.to_owned(),
            ..Standing::default()
        }))
    }

    pub(crate) fn get(&self) -> Standing {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces it, and returns what it was.
    fn set(&self, standing: Standing) -> Standing {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut current, standing)
    }
}

/// The task that changes the configuration.
pub(crate) struct Reconfigurer {
    pub(crate) pool: Pool,
    pub(crate) running: Running,
    pub(crate) standings: Arc<Standings>,
    /// Somebody wants the file looked at.
    pub(crate) asked: Arc<Notify>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) reader: Arc<Reader>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) switch: Arc<Switch>,
    pub(crate) engine: EngineHandle,
    pub(crate) probation: Arc<Probation>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Reconfigurer {
    /// Watches until `stopping`.
    pub(crate) async fn serve(self, stopping: CancellationToken) {
        let file = self.standings.get().file;
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut watch = Watch::new();
        loop {
            watch.over(folder);
            self.look(&file).await;
            tokio::select! {
                () = watch.changed() => watch.quiet().await,
                () = self.asked.notified() => {}
                () = stopping.cancelled() => return,
            }
        }
    }

    /// Looks at the file once.
    async fn look(&self, file: &Path) {
        let mut standing = self.standings.get();
        match read(file) {
            Ok(config) => {
                let running = self.running.load_full();
                let next = running.take_over(config.clone(), self.pool);
                let changed = difference(&running.settings(), &next.settings());
                if !changed.is_empty() && self.change(next, changed).await.is_err() {
                    tracing::debug!("the next look tries again");
                    return;
                }
                let waits = difference(&self.running.load().settings(), &config.settings());
                standing.problem = None;
                standing.restart = waits.into_keys().collect();
            }
            Err(problem) => standing.problem = Some(problem),
        }
        let before = self.standings.set(standing.clone());
        if let Some(problem) = &standing.problem
            && before.problem != standing.problem
        {
            let file = file.display().to_string();
            self.metrics.reload_refused("configuration", &file, problem);
        }
        if before.problem.is_some() && standing.problem.is_none() {
            let file = file.display().to_string();
            self.metrics.reload_mended("configuration", &file);
        }
        if !standing.restart.is_empty() && before.restart != standing.restart {
            let keys = standing.restart.join(", ");
            tracing::warn!(
                keys,
                "what the configuration says of these holds from the next start on"
            );
        }
    }

    /// Puts the change on record, then lets it hold.
    async fn change(
        &self,
        next: Config,
        changed: BTreeMap<String, Setting>,
    ) -> Result<(), WriteError> {
        let said: Vec<_> = changed.iter().map(said).collect();
        note(&self.journal, &self.clock, changed)
            .await
            .inspect_err(|error| self.metrics.journal_failed("the configuration", error))?;
        let settings = app::settings(&next);
        if let Err(error) = telemetry::set_level(&next.log.level) {
            tracing::warn!(error, "the log's level stays as it was");
        }
        self.probation.set(next.plugins.probation);
        let past = app::earlier_effects(&settings, &self.reader, &self.clock);
        // Without it shorter windows hold all the same; longer ones begin now.
        let past = past
            .inspect_err(|error| self.metrics.journal_failed("earlier effects", error))
            .unwrap_or_default();
        self.switch.limit(settings.effects.clone(), &past);
        self.running.store(Arc::new(next));
        self.engine.set(settings);
        self.metrics.reloaded("configuration", &said.join(", "));
        Ok(())
    }
}

/// Reads the file. One without a byte is about to be written: that everything is as by default
/// is not what it says.
fn read(file: &Path) -> Result<Config, String> {
    if std::fs::metadata(file).is_ok_and(|file| file.len() == 0) {
        return Err(format!("{}: is empty", file.display()));
    }
    Config::read(file, &crate::cli::variable).map_err(|error| error.to_string())
}

/// Puts it on record that the daemon runs with another configuration.
pub(crate) async fn note(
    journal: &Journal,
    clock: &Clock,
    changed: BTreeMap<String, Setting>,
) -> Result<(), WriteError> {
    let event = ControlEvent {
        at: clock.now(),
        body: ControlBody::Configured { changed },
    };
    let append = Append {
        controls: vec![event],
        ..Append::default()
    };
    journal.append(Arc::new(append)).await
}

fn said((key, setting): (&String, &Setting)) -> String {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
    format!(
        "{key}: {} (was {})",
        value(&setting.to),
        value(&setting.from)
    )
}
