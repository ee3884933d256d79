//! Versions of plugins that another has taken the place of: their runs may go on for a
//! while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sentinel_core::id::Digest;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Which versions' runs have to end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drains {
    versions: Arc<Mutex<HashMap<Digest, CancellationToken>>>,
    tasks: TaskTracker,
}

impl Drains {
    fn versions(&self) -> MutexGuard<'_, HashMap<Digest, CancellationToken>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancelled when runs of this version that began before now have to end.
    pub(crate) fn of(&self, digest: Digest) -> CancellationToken {
        self.versions().entry(digest).or_default().clone()
    }

    /// Another version serves: what runs of this one has so long to end.
    pub(super) fn begin(&self, digest: Digest, within: Duration) {
        // Those that begin from now on, such as one that goes on after a restart of its
        // incident, are another matter.
        let Some(token) = self.versions().remove(&digest) else {
            return;
        };
        self.tasks.spawn(async move {
            tokio::time::sleep(within).await;
            token.cancel();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_began_before_has_to_end_and_what_begins_later_has_not() {
        let drains = Drains::default();
        let digest = Digest::of(b"old");
        let before = drains.of(digest);
        drains.begin(digest, Duration::from_millis(20));
        let after = drains.of(digest);
        assert!(!before.is_cancelled());
        before.cancelled().await;
        assert!(!after.is_cancelled());
    }
}
