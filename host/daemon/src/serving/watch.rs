//! Watches the folders and swaps in what can serve.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use sentinel_core::control::{ControlBody, ControlEvent};
use sentinel_core::id::{Digest, PluginName};
use sentinel_core::policy::PolicyError;
use sentinel_core::version::Versions;
use sentinel_journal::{Append, Journal, PluginRecord, Reader, StoredServing, WriteError};
use sentinel_sandbox::Plugin;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Drains, Loader, Probation, Problem, Problems, Request, Serving};
use crate::engine::EngineHandle;
use crate::telemetry::metrics::Metrics;
use crate::watch::Watch;

/// Nothing can serve, so the daemon cannot start.
#[derive(Debug)]
pub(crate) enum NothingServes {
    /// The folders hold something bad, and nothing served before.
    Bad(Vec<Problem>),
    /// What they hold cannot be kept, and nothing served before.
    Unkept(WriteError),
}

/// The one task that changes what serves.
pub(crate) struct Reloader {
    pub(crate) loader: Loader,
    pub(crate) serving: Arc<ArcSwap<Serving>>,
    pub(crate) problems: Arc<Problems>,
    /// What is known of versions; shared with those who show it.
    pub(crate) versions: Arc<Mutex<Versions>>,
    pub(crate) probation: Arc<Probation>,
    pub(crate) drains: Drains,
    pub(crate) journal: Arc<Journal>,
    /// Older versions are read with it.
    pub(crate) kept: Arc<Reader>,
    pub(crate) metrics: Arc<Metrics>,
    /// What is open is held against policies that changed.
    pub(crate) engine: EngineHandle,
}

/// Why something else serves.
#[derive(Debug, Clone, Copy)]
pub(super) enum Why<'a> {
    /// The folders say so.
    Folder,
    /// A person asked for it.
    Asked(&'a str),
    /// A version is given up.
    RolledBack {
        name: &'a PluginName,
        by: &'a str,
        reason: &'a str,
    },
}

impl Why<'_> {
    fn by(&self) -> String {
        match self {
            Self::Folder => "the folder".to_owned(),
            Self::Asked(by) | Self::RolledBack { by, .. } => (*by).to_owned(),
        }
    }
}

impl Reloader {
    /// The first look. Of a file that is bad what served last serves on, and all of the set
    /// that served last when what the folders hold cannot be kept. Where nothing served
    /// before, what is good serves; without a policy that is, the daemon cannot start.
    pub(crate) async fn start(&self, reader: &Reader) -> Result<(), NothingServes> {
        let empty = Serving::default();
        let versions = self.versions().clone();
        let looked = self.loader.look(&empty, &versions).await;
        self.note_refused(looked.refused).await;
        if looked.problems.is_empty() {
            let Some(serving) = looked.serving else {
                tracing::warn!(
                    "there are no plugins and no policies: alerts are kept, and nothing is done"
                );
                return Ok(());
            };
            let swapped = self.swap(&empty, serving, &looked.fresh, Why::Folder).await;
            let Err(error) = swapped else {
                return Ok(());
            };
            let Some(stored) = self.stored(reader) else {
                return Err(NothingServes::Unkept(error));
            };
            self.restore(reader, &stored).await?;
            tracing::error!(
                "what the folders hold cannot be kept: the plugins and policies that served last serve on"
            );
            return Ok(());
        }
        let restored = match self.stored(reader) {
            Some(stored) => self.restore(reader, &stored).await,
            None => Err(NothingServes::Bad(looked.problems)),
        };
        match (restored, looked.serving) {
            (Ok(()), _) => {
                tracing::error!("the folders hold something bad: what served last of it serves on");
            }
            (Err(_), Some(good)) if !good.policies.policies().is_empty() => {
                let swapped = self.swap(&empty, good, &looked.fresh, Why::Folder).await;
                swapped.map_err(NothingServes::Unkept)?;
                tracing::error!(
                    "the folders hold something bad: it does not serve, and what is good does"
                );
            }
            (Err(nothing), _) => return Err(nothing),
        }
        // What is good of the folders is taken over, what is bad is told.
        self.reload().await;
        Ok(())
    }

    /// The set that served last, if there is one that can be read.
    fn stored(&self, reader: &Reader) -> Option<StoredServing> {
        reader.serving().unwrap_or_else(|error| {
            self.metrics.journal_failed("what served last", &error);
            None
        })
    }

    async fn restore(&self, reader: &Reader, stored: &StoredServing) -> Result<(), NothingServes> {
        let versions = self.versions().clone();
        let restored = self.loader.restore(reader, stored, &versions).await;
        let restored = Arc::new(restored.map_err(NothingServes::Bad)?);
        self.watch_over(&self.serving.load(), &restored);
        self.begin_series(&restored);
        self.serving.store(restored);
        Ok(())
    }

    /// Looks once, now.
    pub(crate) async fn reload(&self) {
        let current = self.serving.load_full();
        let versions = self.versions().clone();
        let looked = self.loader.look(&current, &versions).await;
        self.note_refused(looked.refused).await;
        let (fresh, mended) = self.problems.set(looked.problems);
        for (what, file) in mended {
            self.metrics.reload_mended(what, &file);
        }
        for problem in fresh {
            let whole = problem.to_string();
            let said = whole
                .strip_prefix(&problem.file)
                .map_or(whole.as_str(), |rest| rest.trim_start_matches([':', ' ']));
            self.metrics
                .reload_refused(problem.what, &problem.file, said);
        }
        if let Some(serving) = looked.serving {
            let swapped = self
                .swap(&current, serving, &looked.fresh, Why::Folder)
                .await;
            if swapped.is_err() {
                tracing::debug!("the next look tries again");
            }
        }
    }

    /// Swaps a set in. Kept before it serves, so that whatever acts can be looked at
    /// later: what cannot be written does not serve.
    pub(super) async fn swap(
        &self,
        current: &Serving,
        serving: Serving,
        fresh: &BTreeMap<Digest, Vec<u8>>,
        why: Why<'_>,
    ) -> Result<(), WriteError> {
        let events = self.transitions(current, &serving, why);
        // What served once is kept already.
        let versions = self.versions().clone();
        let new = |plugin: &&Arc<Plugin>| {
            let mut served = versions.served(&plugin.name).iter();
            !served.any(|served| served.digest == plugin.digest)
        };
        let new: Vec<_> = serving.plugins.iter().filter(new).collect();
        keep(&self.journal, &serving, &new, fresh, events.clone())
            .await
            .inspect_err(|error| self.metrics.journal_failed("what serves", error))?;
        let mut versions = self.versions();
        for event in &events {
            versions.apply(event);
        }
        drop(versions);
        for plugin in serving.plugins.iter() {
            let before = current
                .plugins
                .get(&plugin.name)
                .map(|plugin| plugin.digest);
            if before != Some(plugin.digest) {
                self.metrics.reloaded("plugin", &plugin.to_string());
            }
        }
        for plugin in current.plugins.iter() {
            if serving.plugins.get(&plugin.name).is_none() {
                self.metrics
                    .reloaded("plugin", &format!("{} was removed", plugin.name));
            }
        }
        if serving.policies.policies().is_empty() {
            tracing::warn!("there are no policies: alerts are kept, and nothing is done");
        }
        if current.files.policies != serving.files.policies {
            let names: Vec<String> = serving
                .policies
                .policies()
                .iter()
                .map(|policy| format!("{} ({})", policy.name, policy.mode.as_str()))
                .collect();
            self.metrics.reloaded("policies", &names.join(", "));
            let before: Vec<_> = current
                .policies
                .notes()
                .iter()
                .map(PolicyError::one_line)
                .collect();
            for note in serving.policies.notes() {
                let said = note.one_line();
                if !before.contains(&said) {
                    tracing::warn!(hint = note.help(), "{said}");
                }
            }
        }
        let serving = Arc::new(serving);
        self.begin_series(&serving);
        self.serving.store(serving.clone());
        if current.policies.digest() != serving.policies.digest() {
            self.engine.policies_changed();
        }
        self.watch_over(current, &serving);
        Ok(())
    }

    /// Lets the metrics know of everything that may be counted.
    fn begin_series(&self, serving: &Serving) {
        let policies = serving.policies.policies().iter();
        let plugins = serving.plugins.iter();
        self.metrics.serve(
            policies.map(|policy| &policy.name),
            plugins.map(|plugin| &plugin.name),
        );
    }

    /// Puts new versions on probation, and gives the runs of old ones their time. At a start,
    /// what had not served its time goes on with it.
    fn watch_over(&self, current: &Serving, serving: &Serving) {
        let versions = self.versions();
        for plugin in serving.plugins.iter() {
            let before = current.plugins.get(&plugin.name);
            if before.is_some_and(|before| before.digest == plugin.digest) {
                continue;
            }
            let served = versions.served(&plugin.name).last();
            // What was gone back to has shown before that it works.
            if let Some(served) = served
                && served.digest == plugin.digest
                && served.from.is_some()
                && !served.again
            {
                let ago = Timestamp::now().duration_since(served.at);
                let ago = Duration::try_from(ago).unwrap_or_default();
                self.probation.begin(&plugin.name, plugin.digest, ago);
            }
        }
        drop(versions);
        for before in current.plugins.iter() {
            let after = serving.plugins.get(&before.name);
            if after.is_none_or(|after| after.digest != before.digest) {
                self.probation.forget(&before.digest);
                // Whose policy is pinned to it runs it on.
                let pinned = serving.plugins.version(&before.name, &before.digest);
                if pinned.is_none() {
                    self.drains
                        .begin(before.digest, self.loader.config.load().plugins.drain);
                }
            }
        }
    }

    pub(super) fn versions(&self) -> MutexGuard<'_, Versions> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be on record of a change. At a start it is held against what served
    /// last.
    fn transitions(&self, current: &Serving, serving: &Serving, why: Why<'_>) -> Vec<ControlEvent> {
        let versions = self.versions();
        let before = |name: &PluginName| {
            let plugin = current.plugins.get(name).map(|plugin| plugin.digest);
            plugin.or_else(|| versions.served(name).last().map(|served| served.digest))
        };
        let mut bodies = Vec::new();
        for plugin in serving.plugins.iter() {
            let from = before(&plugin.name);
            if from == Some(plugin.digest) {
                continue;
            }
            bodies.push(match (why, from) {
                (Why::RolledBack { name, by, reason }, Some(from)) if *name == plugin.name => {
                    ControlBody::PluginRolledBack {
                        name: name.clone(),
                        from,
                        to: plugin.digest,
                        by: by.to_owned(),
                        reason: reason.to_owned(),
                    }
                }
                _ => ControlBody::PluginServed {
                    name: plugin.name.clone(),
                    from,
                    to: plugin.digest,
                    version: plugin.version.to_string(),
                    by: why.by(),
                },
            });
        }
        let gone = current
            .plugins
            .iter()
            .filter(|plugin| serving.plugins.get(&plugin.name).is_none());
        bodies.extend(gone.map(|plugin| ControlBody::PluginRemoved {
            name: plugin.name.clone(),
            from: plugin.digest,
            by: why.by(),
        }));
        let (from, to) = (versions.policies(), serving.policies.digest());
        if from != Some(to) {
            bodies.push(ControlBody::PoliciesServed { from, to });
        }
        let at = Timestamp::now();
        let event = |body| ControlEvent { at, body };
        bodies.into_iter().map(event).collect()
    }

    /// Puts something about versions on record.
    pub(super) async fn note(&self, bodies: Vec<ControlBody>) -> Result<(), WriteError> {
        let at = Timestamp::now();
        let event = |body| ControlEvent { at, body };
        let append = Arc::new(Append {
            controls: bodies.into_iter().map(event).collect(),
            ..Append::default()
        });
        self.journal.append(append.clone()).await?;
        let mut versions = self.versions();
        for event in &append.controls {
            versions.apply(event);
        }
        Ok(())
    }

    /// Watches until `stopping`, and does what is asked for meanwhile.
    pub(crate) async fn serve(
        self,
        mut requests: mpsc::UnboundedReceiver<Request>,
        stopping: CancellationToken,
    ) {
        let mut watch = Watch::new();
        let folders = &self.loader.folders;
        loop {
            // Before each look, so that no change falls between the two.
            watch.over(&folders.plugins);
            watch.over(&folders.policies);
            self.reload().await;
            tokio::select! {
                () = watch.changed() => watch.quiet().await,
                // What it writes into the folder is an event of its own, which finds
                // nothing left to do.
                Some(request) = requests.recv() => self.handle(request).await,
                () = stopping.cancelled() => return,
            }
        }
    }
}

/// Writes what serves to the journal: the new plugins' bytes first, then the set.
async fn keep(
    journal: &Journal,
    serving: &Serving,
    new: &[&Arc<Plugin>],
    fresh: &BTreeMap<Digest, Vec<u8>>,
    events: Vec<ControlEvent>,
) -> Result<(), WriteError> {
    let at = Timestamp::now();
    for plugin in new {
        let digest = plugin.digest;
        let Some(wasm) = fresh.get(&digest) else {
            continue;
        };
        let record = PluginRecord {
            digest,
            name: plugin.name.clone(),
            version: plugin.version.to_string(),
            at,
            wasm: wasm.clone(),
        };
        journal.keep_plugin(record).await?;
    }
    journal
        .keep_serving(at, serving.files.stored(), events)
        .await
}
