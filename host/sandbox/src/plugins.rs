//! Plugins by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use sentinel_core::id::PluginName;
use sentinel_core::policy::{ParamError, PluginCatalog, PluginFacts};
use serde_json::Value;

use crate::plugin::Plugin;

/// A set of plugins, by the names that they give themselves. Policies are checked
/// against a set before it serves.
#[derive(Debug, Clone, Default)]
pub struct Plugins(BTreeMap<PluginName, Arc<Plugin>>);

impl Plugins {
    /// The plugin of this name.
    #[must_use]
    pub fn get(&self, name: &PluginName) -> Option<&Arc<Plugin>> {
        self.0.get(name)
    }

    /// Adds a plugin. Returns the one that had its name until now.
    pub fn insert(&mut self, plugin: Arc<Plugin>) -> Option<Arc<Plugin>> {
        self.0.insert(plugin.name.clone(), plugin)
    }

    /// The plugins, sorted by name.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Plugin>> {
        self.0.values()
    }
}

impl PluginCatalog for Plugins {
    fn plugin(&self, name: &PluginName) -> Option<PluginFacts> {
        self.get(name).map(|plugin| PluginFacts {
            imports: plugin.imports.clone(),
        })
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().map(PluginName::to_string).collect()
    }

    fn validate_params(&self, name: &PluginName, params: &Value) -> Vec<ParamError> {
        self.get(name)
            .map(|plugin| plugin.validate_params(params))
            .unwrap_or_default()
    }
}
