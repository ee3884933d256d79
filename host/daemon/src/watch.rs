//! Waits until something in folders has changed and come to rest.

use std::path::Path;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a folder must be quiet before it is looked at: writing a file is several
/// events.
const QUIET: Duration = Duration::from_millis(100);

/// The same after a file that is whole: it was renamed, or closed by its writer. Others may
/// be meant to come with it.
const WHOLE: Duration = Duration::from_millis(20);

/// How long a look is put off at the most.
const AT_MOST: Duration = Duration::from_secs(2);

/// How often folders are looked at without an event: some file systems (network shares,
/// some bind mounts) send none.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Watches folders.
pub(crate) struct Watch {
    watcher: Option<RecommendedWatcher>,
    changed: mpsc::Receiver<bool>,
    // Whether the last change left a file whole.
    whole: bool,
}

impl Watch {
    pub(crate) fn new() -> Self {
        let (events, changed) = mpsc::channel(64);
        Self {
            watcher: watcher(events),
            changed,
            whole: false,
        }
    }

    /// Watches `folder` too. To be said again before each look: a folder that was replaced
    /// is another one.
    pub(crate) fn over(&mut self, folder: &Path) {
        if let Some(watcher) = &mut self.watcher
            && let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive)
        {
            tracing::debug!(%error, folder = %folder.display(), "folder is not watched");
        }
    }

    /// Waits for a change, or until it is time to look all the same. Nothing is missed when
    /// this is given up.
    pub(crate) async fn changed(&mut self) {
        if let Ok(Some(whole)) = timeout(LOOK_AGAIN, self.changed.recv()).await {
            self.whole = whole;
        } else if self.watcher.is_none() {
            // Nobody sends any more, so the time has to pass by itself.
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until nothing has come for a while, but not for ever: somebody may write there
    /// all the time.
    pub(crate) async fn quiet(&mut self) {
        let quiet = async {
            let window = |whole| if whole { WHOLE } else { QUIET };
            while let Ok(Some(whole)) = timeout(window(self.whole), self.changed.recv()).await {
                self.whole = whole;
            }
            self.whole = false;
        };
        if timeout(AT_MOST, quiet).await.is_err() {
            tracing::debug!("the folders do not come to rest; looking all the same");
        }
    }
}

/// Tells of each change whether it left a file whole.
fn watcher(events: mpsc::Sender<bool>) -> Option<RecommendedWatcher> {
    let handler = move |event: notify::Result<notify::Event>| {
        let kind = event.map_or(EventKind::Any, |event| event.kind);
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let whole = kind == closed || matches!(kind, EventKind::Modify(ModifyKind::Name(_)));
        let reading = kind.is_access() && !whole;
        // A full channel already says that something changed.
        if !reading && events.try_send(whole).is_err() {
            tracing::trace!("a change is already waiting to be looked at");
        }
    };
    match notify::recommended_watcher(handler) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, every = ?LOOK_AGAIN, "folders cannot be watched; they are looked at now and then");
            None
        }
    }
}
