//! Which policies an alert was held against, and what each said.

use serde::Serialize;

use crate::alert::Alert;
use crate::id::{PolicyName, Target};
use crate::policy::{Mode, PolicySet};

/// A policy that an alert was held against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Look {
    /// The policy.
    pub policy: PolicyName,
    /// Where it stands: `file:line:column`.
    pub place: String,
    /// What came of it.
    #[serde(flatten)]
    pub found: Found,
}

/// What came of holding an alert against a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "found", rename_all = "kebab-case")]
pub enum Found {
    /// A matcher does not hold; the first that does not.
    Unmatched {
        /// The matcher.
        matcher: String,
        /// The label that it looks at.
        label: String,
        /// What the alert has there; none when it has no such label.
        value: Option<String>,
    },
    /// Every matcher holds, and the policy is off.
    Off,
    /// Every matcher holds, and the policy's templates do not fit the alert.
    Misfit {
        /// Why.
        reason: String,
    },
    /// The policy is for the alert.
    Matched {
        /// What it would act on.
        target: Target,
        /// Whether it acts.
        mode: Mode,
    },
}

/// Holds `alert` against every policy, in the order in which they stand in their files.
#[must_use]
pub fn look(policies: &PolicySet, alert: &Alert) -> Vec<Look> {
    let looks = policies.policies().iter().map(|policy| {
        let failed = policy
            .matchers
            .iter()
            .find(|matcher| !matcher.matches(&alert.labels));
        let found = match failed {
            Some(matcher) => Found::Unmatched {
                matcher: matcher.to_string(),
                label: matcher.name().to_owned(),
                value: alert.labels.get(matcher.name()).cloned(),
            },
            None if policy.mode == Mode::Off => Found::Off,
            None => match policy.target(alert).and_then(|target| {
                policy.plan(alert)?;
                Ok(target)
            }) {
                Ok(target) => Found::Matched {
                    target,
                    mode: policy.mode,
                },
                Err(error) => Found::Misfit {
                    reason: error.to_string(),
                },
            },
        };
        Look {
            policy: policy.name.clone(),
            place: policy.location.to_string(),
            found,
        }
    });
    looks.collect()
}

impl Found {
    /// Whether the policy is for the alert, be it that its templates fit or not.
    #[must_use]
    pub fn is_match(&self) -> bool {
        matches!(self, Self::Matched { .. } | Self::Misfit { .. })
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unmatched {
                matcher,
                label,
                value: Some(value),
            } => write!(f, "no: {matcher} does not hold, {label} is {value:?}"),
            Self::Unmatched {
                matcher,
                label,
                value: None,
            } => write!(f, "no: {matcher} does not hold, there is no label {label}"),
            Self::Off => f.write_str("no: every matcher holds, but the policy is off"),
            Self::Misfit { reason } => write!(f, "yes, but it does not fit: {reason}"),
            Self::Matched { target, mode } => write!(f, "yes: {target}, mode {}", mode.as_str()),
        }
    }
}
