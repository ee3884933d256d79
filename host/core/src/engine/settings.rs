//! What stands above all policies.

use crate::guard::limits::EffectLimits;
use crate::guard::settings::Maintenance;

/// What stands above all policies, from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How many runs there may be at once.
    pub places: u32,
    /// How many of these one plugin may take.
    pub plugin_places: u32,
    /// How many incidents may be open; what comes on top waits.
    pub incidents: usize,
    /// How many effects there may be in which windows.
    pub effects: EffectLimits,
    /// When nothing is done, whatever the policy.
    pub maintenance: Vec<Maintenance>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            places: 64,
            plugin_places: 16,
            incidents: 10_000,
            effects: EffectLimits::default(),
            maintenance: Vec::new(),
        }
    }
}
