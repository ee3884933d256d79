//! What ends a run between two effects.

use sentinel_core::capability::Request;
use sentinel_core::event::{Resource, StopCause};
use sentinel_core::id::RunId;
use tokio::sync::watch;

/// A run was ended by the host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Halted {
    /// Why.
    pub cause: StopCause,
    /// In words, for people.
    pub message: String,
}

impl Halted {
    pub(crate) fn new(cause: StopCause, message: impl Into<String>) -> Self {
        Self {
            cause,
            message: message.into(),
        }
    }
}

/// Ends a run from outside. No effect of it begins any more; one that is under way goes on
/// to its end and is recorded first; a guest that sleeps, computes or waits for an
/// observation is cut off at once. Clones end the same run.
#[derive(Debug, Clone)]
pub struct Halt(watch::Sender<Option<Halted>>);

impl Halt {
    /// Lets its run go on.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Ends the run. The first cause is the one that counts.
    pub fn stop(&self, cause: StopCause, message: impl Into<String>) {
        self.halt(Halted::new(cause, message));
    }

    /// Why the run has to end; none while it may go on.
    #[must_use]
    pub fn halted(&self) -> Option<Halted> {
        self.0.borrow().clone()
    }

    /// Waits until the run has to end.
    pub async fn stopped(&self) -> Halted {
        let mut halted = self.0.subscribe();
        loop {
            if let Some(halted) = halted.borrow_and_update().clone() {
                return halted;
            }
            // Fails when no sender is left, and this one holds one.
            if halted.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Ends the run; what counts is what is returned.
    pub(crate) fn halt(&self, halted: Halted) -> Halted {
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert_with(|| halted.clone());
            is_first
        });
        self.halted().unwrap_or(halted)
    }
}

impl Default for Halt {
    fn default() -> Self {
        Self::new()
    }
}

/// Has the last word on each effect that is to be carried out: the stop switch, and the
/// limits that hold over all runs.
pub trait EffectGuard: Send + Sync {
    /// Lets the effect begin, or ends its run. `on` is what the name in the request turned
    /// out to be. Asked right before the effect is recorded as begun, after everything
    /// else has let it through; not asked for what a dry run plans. It answers at once, by
    /// the newest state: whoever sets the stop switch relies on the very next effect.
    fn admit(&self, run: RunId, request: &Request, on: Option<&Resource>) -> Result<(), Halted>;
}
