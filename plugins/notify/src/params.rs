//! What a policy says of whom to tell, and how.

use std::collections::BTreeMap;

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

fn ten_seconds() -> Span {
    Span::from_secs(10)
}

/// How people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Slack,
    Pagerduty,
    Alertmanager,
    Webhook,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Slack => "slack",
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

/// How bad it is, in the words of `PagerDuty`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    Critical,
    Error,
    Warning,
    Info,
}

impl Severity {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }

    /// What the word of an alert's label means; an alert that a person has to look at and
    /// that says nothing of itself is an error.
    pub(crate) fn of(label: Option<&str>) -> Self {
        match label.map(str::to_ascii_lowercase).as_deref() {
            Some("critical" | "crit" | "page" | "emergency" | "fatal" | "disaster") => {
                Self::Critical
            }
            Some("warning" | "warn" | "minor" | "moderate") => Self::Warning,
            Some("info" | "information" | "informational" | "notice" | "none" | "low") => {
                Self::Info
            }
            _ => Self::Error,
        }
    }
}
