use std::fmt;

use crate::Outcome;
use crate::bindings::sentinel::plugin::types::CapabilityError as WireError;

/// Why a call did not do what it was asked. The cases differ in what a caller would do
/// about it.
///
/// `?` turns it into the [`Failure`] that fits: `Denied` stays denied, `NotFound` and
/// `Invalid` are permanent, the others are worth another attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CapabilityError {
    /// The policy does not grant this, or a limit forbids it. Asking again is pointless.
    Denied(String),
    /// The thing that was named does not exist.
    NotFound(String),
    /// The request is malformed. Asking again is pointless.
    Invalid(String),
    /// The other side cannot be reached or refuses for now; worth another attempt.
    Unavailable(String),
    /// No answer came in time. The effect may or may not have happened.
    TimedOut(String),
    /// The other side tried and failed.
    Failed(String),
}

impl fmt::Display for CapabilityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, message) = match self {
            Self::Denied(message) => ("denied", message),
            Self::NotFound(message) => ("not found", message),
            Self::Invalid(message) => ("invalid", message),
            Self::Unavailable(message) => ("unavailable", message),
            Self::TimedOut(message) => ("timed out", message),
            Self::Failed(message) => ("failed", message),
        };
        write!(f, "{what}: {message}")
    }
}

impl std::error::Error for CapabilityError {}

impl From<WireError> for CapabilityError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Denied(message) => Self::Denied(message),
            WireError::NotFound(message) => Self::NotFound(message),
            WireError::Invalid(message) => Self::Invalid(message),
            WireError::Unavailable(message) => Self::Unavailable(message),
            WireError::TimedOut(message) => Self::TimedOut(message),
            WireError::Failed(message) => Self::Failed(message),
        }
    }
}

/// How a run ended when something went wrong. The cases differ in what the engine does
/// next; the text is for the incident's timeline.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Another attempt may succeed: the engine makes one after the step's backoff, while
    /// attempts are left.
    Retryable(String),
    /// No attempt at this step can succeed: the engine goes on to the next step.
    Permanent(String),
    /// Something needed was refused: the policy or the plugin is wrong, and the incident is
    /// escalated to a person.
    Denied(String),
}

impl Failure {
    /// Another attempt may succeed.
    pub fn retryable(reason: impl Into<String>) -> Self {
        Self::Retryable(reason.into())
    }

    /// No attempt at this step can succeed.
    pub fn permanent(reason: impl Into<String>) -> Self {
        Self::Permanent(reason.into())
    }

    /// Something needed was refused.
    pub fn denied(reason: impl Into<String>) -> Self {
        Self::Denied(reason.into())
    }

    /// The same kind of failure, told in other words: what had been done before it belongs
    /// into the timeline as well.
    #[must_use]
    pub fn map_reason(self, tell: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Retryable(reason) => Self::Retryable(tell(reason)),
            Self::Permanent(reason) => Self::Permanent(tell(reason)),
            Self::Denied(reason) => Self::Denied(tell(reason)),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retryable(reason) | Self::Permanent(reason) => f.write_str(reason),
            Self::Denied(reason) => write!(f, "denied: {reason}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<CapabilityError> for Failure {
    fn from(error: CapabilityError) -> Self {
        let text = error.to_string();
        match error {
            CapabilityError::Denied(message) => Self::Denied(message),
            CapabilityError::NotFound(_) | CapabilityError::Invalid(_) => Self::Permanent(text),
            CapabilityError::Unavailable(_)
            | CapabilityError::TimedOut(_)
            | CapabilityError::Failed(_) => Self::Retryable(text),
        }
    }
}

impl Outcome {
    /// Something was changed; `what` is for the incident's timeline.
    pub fn changed(what: impl Into<String>) -> Self {
        Self::Changed(what.into())
    }

    /// Nothing had to be changed; `why` is for the incident's timeline.
    pub fn unchanged(why: impl Into<String>) -> Self {
        Self::Unchanged(why.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_the_failure_that_fits() {
        let text = || "x".to_owned();
        for (error, failure) in [
            (CapabilityError::Denied(text()), Failure::denied("x")),
            (
                CapabilityError::NotFound(text()),
                Failure::permanent("not found: x"),
            ),
            (
                CapabilityError::Invalid(text()),
                Failure::permanent("invalid: x"),
            ),
            (
                CapabilityError::Unavailable(text()),
                Failure::retryable("unavailable: x"),
            ),
            (
                CapabilityError::TimedOut(text()),
                Failure::retryable("timed out: x"),
            ),
            (
                CapabilityError::Failed(text()),
                Failure::retryable("failed: x"),
            ),
        ] {
            assert_eq!(Failure::from(error), failure);
        }
    }
}
