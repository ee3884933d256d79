//! The journal: the append-only record that everything else is a view of, in one
//! SQLite file.
//!
//! One thread writes. It takes whatever has been handed in since the last commit and
//! commits it as one transaction (group commit), so that a burst of deliveries costs
//! few `fsync`s; each caller gets its answer after the commit that holds its part. What
//! the engine, a run or a critical alert hands in goes before a burst of other alerts.
//! Another thread folds the log into the file meanwhile.
//! Readers have connections of their own and never wait for the writer (WAL).

#![forbid(unsafe_code)]

mod checkpoint;
mod heard;
mod history;
mod integrity;
mod lease;
mod lock;
mod query;
mod queue;
mod retention;
mod schema;
mod writer;

pub use heard::Acted;
pub use integrity::{Log, read_log};
pub use query::{IncidentFilter, Reader, StoredServing};
pub use sentinel_core::record::{Accepted, Append, IncidentRow, Recovered};
pub use writer::{DEAD_LETTER_BYTES, DeadLetter, Journal, PluginRecord};

/// The journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made or written.
    #[error("the data folder {path} cannot be written: {source}")]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others than the daemon could change what is in it.
    #[error("the data folder cannot be trusted: {path} {why}")]
    Exposed {
        /// The folder, or the file in it.
        path: std::path::PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// Another daemon has it.
    #[error("the data folder {path} is in use by {holder}")]
    InUse {
        /// The folder.
        path: std::path::PathBuf,
        /// Who holds it.
        holder: String,
    },
    /// There is no journal in the folder.
    #[error("there is no journal in {path}")]
    Missing {
        /// The folder.
        path: std::path::PathBuf,
    },
    /// Whether there is one cannot be seen.
    #[error("whether there is a journal in {path} cannot be seen: {source}")]
    Hidden {
        /// The folder.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A later version of sentinel wrote it.
    #[error(
        "the journal has schema {found}, and this sentinel knows up to {known}: it was written by a later version"
    )]
    Newer {
        /// The file's schema.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// Something that was committed cannot be read any more.
    #[error("the journal's file {path} is damaged: {detail}")]
    Damaged {
        /// The file.
        path: std::path::PathBuf,
        /// What was found.
        detail: String,
    },
    /// SQLite refuses.
    #[error("the journal cannot be opened: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// Something could not be written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// More has been handed in than the journal will queue.
    #[error("the journal's queue is full")]
    Full,
    /// The journal is closing.
    #[error("the journal is closing")]
    Closed,
    /// The disk or SQLite refuses; nothing of this was kept.
    #[error("the journal cannot be written: {0}")]
    Failed(String),
}

/// Something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// SQLite refuses.
    #[error("the journal cannot be read: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A row does not hold what this version expects.
    #[error("the journal holds something that cannot be read ({what}): {source}")]
    Decode {
        /// Which row.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
}
