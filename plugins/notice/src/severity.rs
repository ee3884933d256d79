//! How bad it is.

use serde::Deserialize;

/// How bad it is, in the words of `PagerDuty`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody has to be woken.
    Critical,
    /// It is broken.
    Error,
    /// It may break.
    Warning,
    /// Nobody has to do anything.
    Info,
}

impl Severity {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }

    /// What the word of an alert's label means; an alert that a person has to look at and
    /// that says nothing of itself is an error.
    #[must_use]
    pub fn of(label: Option<&str>) -> Self {
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
