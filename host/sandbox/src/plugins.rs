//! Plugins by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use sentinel_core::id::{Digest, PluginName, PluginRef};
use sentinel_core::policy::{ParamError, PluginCatalog, PluginFacts};
use serde_json::Value;

use crate::plugin::Plugin;

/// A set of plugins, by the names that they give themselves. Policies are checked
/// against a set before it serves.
#[derive(Debug, Clone, Default)]
pub struct Plugins {
    serving: BTreeMap<PluginName, Arc<Plugin>>,
    /// Versions beside those, for the policies that are pinned to them.
    older: BTreeMap<Digest, Arc<Plugin>>,
    /// Why others that policies are pinned to are not among them.
    missing: BTreeMap<Digest, String>,
}

impl Plugins {
    /// The plugin of this name.
    #[must_use]
    pub fn get(&self, name: &PluginName) -> Option<&Arc<Plugin>> {
        self.serving.get(name)
    }

    /// The version that is meant: the pinned one, or the one that serves. A pin does not keep
    /// a plugin here that is gone.
    #[must_use]
    pub fn find(&self, plugin: &PluginRef) -> Option<&Arc<Plugin>> {
        let serves = self.get(&plugin.name)?;
        match plugin.pin {
            Some(pin) if pin != serves.digest => self.version(&plugin.name, &pin),
            _ => Some(serves),
        }
    }

    /// A version of a plugin, whether it serves or is one that policies are pinned to.
    #[must_use]
    pub fn version(&self, name: &PluginName, digest: &Digest) -> Option<&Arc<Plugin>> {
        let serves = self.get(name).filter(|plugin| plugin.digest == *digest);
        let older = || self.older.get(digest);
        serves.or_else(older).filter(|plugin| plugin.name == *name)
    }

    /// Adds a plugin. Returns the one that had its name until now.
    pub fn insert(&mut self, plugin: Arc<Plugin>) -> Option<Arc<Plugin>> {
        self.serving.insert(plugin.name.clone(), plugin)
    }

    /// Adds a version beside the one that serves, for those who are pinned to it.
    pub fn insert_older(&mut self, plugin: Arc<Plugin>) {
        self.older.insert(plugin.digest, plugin);
    }

    /// Says why a version that a policy is pinned to is not here: a fragment.
    pub fn note_missing(&mut self, digest: Digest, why: String) {
        self.missing.insert(digest, why);
    }

    /// The plugins that serve, sorted by name.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Plugin>> {
        self.serving.values()
    }

    /// The versions beside those.
    pub fn older(&self) -> impl Iterator<Item = &Arc<Plugin>> {
        self.older.values()
    }
}

impl PluginCatalog for Plugins {
    fn serves(&self, name: &PluginName) -> Option<Digest> {
        self.get(name).map(|plugin| plugin.digest)
    }

    fn plugin(&self, plugin: &PluginRef) -> Option<PluginFacts> {
        self.find(plugin).map(|plugin| PluginFacts {
            imports: plugin.imports.clone(),
        })
    }

    fn why_not(&self, pin: &Digest) -> Option<String> {
        self.missing.get(pin).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.serving.keys().map(PluginName::to_string).collect()
    }

    fn validate_params(&self, plugin: &PluginRef, params: &Value) -> Vec<ParamError> {
        self.find(plugin)
            .map(|plugin| plugin.validate_params(params))
            .unwrap_or_default()
    }
}
