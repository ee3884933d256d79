//! Folds the write-ahead log into the file, on a thread of its own: a checkpoint copies
//! megabytes and syncs twice, and a commit that had to do it would keep every sender
//! waiting.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use crate::{OpenError, schema};

/// How many pages the log gains before it is looked at: 4 MiB. Many, and the syncs of
/// those that commit meanwhile stand behind them.
const STEP: u32 = 1_000;

/// How long it is left alone after that: in a burst the same pages are written again and
/// again, and need to be copied only once.
const PAUSE: Duration = Duration::from_millis(200);

/// How long the log may be before the writer itself folds in what is left of it, because
/// it can only begin anew when nothing is added meanwhile: 64 MiB.
const LONGEST: u32 = 16_000;

#[derive(Debug, Default)]
struct State {
    // Pages in the log.
    pages: u32,
    // Pages in the log when it was folded in last.
    folded: u32,
    closed: bool,
}

impl State {
    fn due(&self) -> bool {
        // A log that is shorter than it was has begun anew.
        let gained = self.pages.checked_sub(self.folded).unwrap_or(self.pages);
        gained >= STEP && self.pages < LONGEST
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After each commit, on the writer's thread.
    fn committed(&self, wal: &mut Wal, pages: u32) {
        {
            let mut state = self.state();
            state.pages = pages;
            if state.due() {
                self.changed.notify_one();
            }
        }
        if pages >= LONGEST
            && let Err(error) = wal.checkpoint()
        {
            // Most likely the thread is still at it; the next commit tries again.
            tracing::debug!(%error, pages, "the journal's log is not folded in yet");
        }
    }

    fn serve(&self, connection: &Connection) {
        loop {
            {
                let mut state = self.state();
                while !state.due() && !state.closed {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                if state.closed {
                    return;
                }
                state.folded = state.pages;
            }
            let folded = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                row.get::<_, i64>(2)
            });
            match folded {
                Ok(pages) => tracing::trace!(pages, "the journal's log is folded in"),
                // The writer meets the same trouble, and says so.
                Err(error) => tracing::debug!(%error, "the journal's log is not folded in"),
            }
            let (_state, _) = self
                .changed
                .wait_timeout_while(self.state(), PAUSE, |state| !state.closed)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts the thread, and lets `writer` tell it of its commits.
    pub(crate) fn start(file: &Path, writer: &mut Connection) -> Result<Self, OpenError> {
        let mut connection = Connection::open(file)?;
        schema::durable(&mut connection)?;
        let shared = Arc::new(Shared::default());
        let told = shared.clone();
        // In the place of SQLite's own, which would fold in on the writer's thread.
        writer.wal_hook(Some(move |wal: &mut Wal, pages| {
            told.committed(wal, u32::try_from(pages).unwrap_or_default());
            Ok(())
        }))?;
        let serving = shared.clone();
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || serving.serve(&connection))
            .map_err(|source| OpenError::Folder {
                path: file.to_owned(),
                source,
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.changed.notify_one();
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!("the thread that folds the journal's log in ended in a panic");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(pages: u32, folded: u32) -> State {
        State {
            pages,
            folded,
            closed: false,
        }
    }

    #[test]
    fn it_is_due_after_so_many_pages_and_again_after_the_log_began_anew() {
        assert!(!state(STEP - 1, 0).due());
        assert!(state(STEP, 0).due());
        assert!(!state(STEP + 1, STEP).due());
        assert!(state(2 * STEP, STEP).due());
        assert!(!state(3, STEP).due());
        assert!(state(STEP, 2 * STEP).due());
        // The writer's turn.
        assert!(!state(LONGEST, 0).due());
    }

    #[test]
    fn a_log_that_grows_is_folded_in_and_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.sqlite");
        let mut writer = Connection::open(&file).unwrap();
        schema::durable(&mut writer).unwrap();
        writer
            .execute("CREATE TABLE t (x BLOB NOT NULL) STRICT", [])
            .unwrap();
        let checkpointer = Checkpointer::start(&file, &mut writer).unwrap();
        let log = folder.path().join("x.sqlite-wal");
        for _ in 0..200 {
            writer
                .execute("INSERT INTO t VALUES (zeroblob(1000000))", [])
                .unwrap();
        }
        drop(checkpointer);
        // 200 MB were written; the log kept to what the writer lets it grow to, and a step.
        let length = std::fs::metadata(log).unwrap().len();
        assert!(length < 120 << 20, "{length}");
        assert!(std::fs::metadata(file).unwrap().len() > 100 << 20);
    }
}
