//! One daemon for each data folder, and nobody else in it.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

use crate::OpenError;

/// Holds the data folder until it is dropped, or the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
    /// The folder itself: a lock file that is removed would let a second daemon in.
    _folder: File,
}

impl FolderLock {
    /// Takes the folder, or says who has it.
    pub(crate) fn take(folder: &Path) -> Result<Self, OpenError> {
        let unwritable = |source| OpenError::Folder {
            path: folder.to_owned(),
            source,
        };
        let itself = File::open(folder).map_err(unwritable)?;
        own_and_closed(folder, &itself.metadata().map_err(unwritable)?)?;
        let path = folder.join("lock");
        let mut file = open_own(&path, OpenOptions::new().read(true).write(true))?;
        let in_use = |file: &mut File| {
            let mut holder = String::new();
            // The name is a help; the lock is what counts.
            if file.read_to_string(&mut holder).is_err() || holder.is_empty() {
                "another process".clone_into(&mut holder);
            }
            OpenError::InUse {
                path: folder.to_owned(),
                holder,
            }
        };
        match itself.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(&mut file)),
            // File systems over a network lock files alone.
            Err(TryLockError::Error(error)) => {
                tracing::debug!(%error, "the data folder cannot be locked itself");
            }
        }
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0).map_err(unwritable)?;
                file.rewind().map_err(unwritable)?;
                write!(file, "process {}", std::process::id()).map_err(unwritable)?;
                Ok(Self {
                    _file: file,
                    _folder: itself,
                })
            }
            Err(TryLockError::WouldBlock) => Err(in_use(&mut file)),
            Err(TryLockError::Error(source)) => Err(unwritable(source)),
        }
    }
}

/// Opens a file of the data folder, made if it is missing; one that somebody else put there is refused, wherever it
/// leads.
pub(crate) fn open_own(path: &Path, options: &mut OpenOptions) -> Result<File, OpenError> {
    let file = options
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path);
    if let Ok(found) = path.symlink_metadata()
        && (!found.is_file() || found.nlink() != 1 || found.uid() != own())
    {
        return Err(OpenError::Exposed {
            path: path.to_owned(),
            why: "is a link, or not a file of sentinel's own: look who put it there, and remove it"
                .to_owned(),
        });
    }
    file.map_err(|source| OpenError::Folder {
        path: path.to_owned(),
        source,
    })
}

/// Refuses a folder in which others can put or replace files: the past, and what serves, would be theirs to change.
fn own_and_closed(folder: &Path, metadata: &Metadata) -> Result<(), OpenError> {
    let exposed = |why: String| {
        Err(OpenError::Exposed {
            path: folder.to_owned(),
            why,
        })
    };
    if metadata.uid() != own() {
        return exposed(format!(
            "belongs to user {}, and sentinel runs as user {}: give it to that user (chown), or set `data_dir` to another folder",
            metadata.uid(),
            own()
        ));
    }
    if metadata.mode() & 0o022 != 0 {
        return exposed(format!(
            "can be written by others (mode {:04o}): chmod go-w",
            metadata.mode() & 0o7777
        ));
    }
    Ok(())
}

fn own() -> u32 {
    rustix::process::geteuid().as_raw()
}
