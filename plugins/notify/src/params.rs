//! What a policy says of whom to tell, and how.

use std::collections::BTreeMap;

use notice::{Notice, Severity};
use sentinel_plugin::Incident;
use sentinel_plugin::params::Span;
use serde::Deserialize;

/// The step's params; `params.schema.json` explains each.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    pub(crate) kind: Kind,
    pub(crate) url: Option<String>,
    pub(crate) key: Option<String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) message: Option<String>,
    #[serde(default)]
    pub(crate) event: Event,
    pub(crate) severity: Option<Severity>,
    pub(crate) dedup_key: Option<String>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) keep: Option<Span>,
    #[serde(default = "ten_seconds")]
    pub(crate) timeout: Span,
}

impl Params {
    /// What there is to tell of an incident.
    pub(crate) fn notice<'a>(&'a self, incident: &'a Incident) -> Notice<'a> {
        Notice::of(incident, self.severity, self.message.as_deref())
    }
}

fn ten_seconds() -> Span {
    Span::from_secs(10)
}

/// How people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Slack,
    Mattermost,
    RocketChat,
    Discord,
    Pagerduty,
    Alertmanager,
    Webhook,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Mattermost => "mattermost",
            Self::RocketChat => "rocketchat",
            Self::Discord => "discord",
            Self::Pagerduty => "pagerduty",
            Self::Alertmanager => "alertmanager",
            Self::Webhook => "webhook",
        }
    }
}

/// Whether it begins or is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Event {
    #[default]
    Trigger,
    Acknowledge,
    Resolve,
}

impl Event {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Acknowledge => "acknowledge",
            Self::Resolve => "resolve",
        }
    }
}
