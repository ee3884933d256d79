//! The versions beside those that serve, for the policies that are pinned to them: what
//! served before is kept in the journal, by its digest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sentinel_core::id::{Digest, PluginRef};
use sentinel_core::policy::PolicySet;
use sentinel_core::version::Versions;
use sentinel_journal::Reader;
use sentinel_sandbox::{Plugin, Plugins, Sandbox};

use super::Files;

/// What is known of versions that policies are pinned to.
#[derive(Debug, Default)]
pub(super) struct Older(BTreeMap<Digest, Result<Arc<Plugin>, String>>);

/// What policies are pinned to.
pub(super) fn pins(policies: &PolicySet) -> BTreeSet<PluginRef> {
    let policies = policies.policies().iter();
    let plugins = policies.flat_map(|policy| policy.plugins());
    plugins
        .filter(|plugin| plugin.pin.is_some())
        .cloned()
        .collect()
}

impl Older {
    /// Those that are known already, as far as they may serve.
    pub(super) fn known<'a>(
        plugins: impl Iterator<Item = &'a Arc<Plugin>>,
        versions: &Versions,
    ) -> Self {
        let good = plugins.filter(|plugin| versions.rolled_back(&plugin.digest).is_none());
        Self(
            good.map(|plugin| (plugin.digest, Ok(plugin.clone())))
                .collect(),
        )
    }

    /// The same and these: from among `files`, which may give way to others, else from the
    /// journal. What never served is not found, and not missed here either.
    pub(super) async fn find(
        mut self,
        sandbox: &Sandbox,
        reader: Option<&Reader>,
        files: &Files,
        versions: &Versions,
        pinned: BTreeSet<PluginRef>,
    ) -> Self {
        for digest in pinned.iter().filter_map(|plugin| plugin.pin) {
            if self.0.contains_key(&digest) {
                continue;
            }
            if let Some(why) = versions.rolled_back(&digest) {
                self.refuse(digest, &format!(
                    "was rolled back: {why} (`sentinel plugin accept {digest}` lets it serve again)"
                ));
                continue;
            }
            let mut serving = files.plugins.values();
            if let Some(plugin) = serving.find(|plugin| plugin.digest == digest) {
                self.0.insert(digest, Ok(plugin.clone()));
                continue;
            }
            let kept = match reader.map(|reader| reader.plugin(&digest)) {
                Some(Ok(Some(wasm))) => sandbox
                    .load(wasm)
                    .await
                    .map_err(|error| format!("cannot be loaded any more: {error}")),
                Some(Err(error)) => Err(format!("cannot be read from the journal: {error}")),
                Some(Ok(None)) | None => continue,
            };
            self.0.insert(digest, kept);
        }
        self
    }

    /// Says that a version must not serve, and why: a fragment.
    pub(super) fn refuse(&mut self, digest: Digest, why: &str) {
        self.0.insert(digest, Err(why.to_owned()));
    }

    /// Adds them to those that serve.
    pub(super) fn add_to(&self, plugins: &mut Plugins) {
        for (digest, found) in &self.0 {
            match found {
                Ok(plugin) => plugins.insert_older(plugin.clone()),
                Err(why) => plugins.note_missing(*digest, why.clone()),
            }
        }
    }
}
