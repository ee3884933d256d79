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

    /// Takes a plugin out.
    pub fn remove(&mut self, name: &PluginName) -> Option<Arc<Plugin>> {
        self.0.remove(name)
    }

    /// The plugins, sorted by name.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Plugin>> {
        self.0.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Of two with the same name the last one stays.
impl FromIterator<Arc<Plugin>> for Plugins {
    fn from_iter<I: IntoIterator<Item = Arc<Plugin>>>(plugins: I) -> Self {
        let named = plugins
            .into_iter()
            .map(|plugin| (plugin.name.clone(), plugin));
        Self(named.collect())
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
