//! Finds damage that SQLite passes over in silence: a log that it reads only as far as it
//! checks, and pages that nobody happens to look at.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::OpenError;

/// Files up to this size are looked through before they serve, which takes some tens of
/// milliseconds; larger ones beside the work.
pub(crate) const SMALL: u64 = 32 << 20;

/// The log's own header, and the one before each page in it.
const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Looks through the write-ahead log that an earlier daemon left, before SQLite does.
///
/// SQLite takes a log up to the first frame that does not check, and drops the rest
/// without a word. That is right for a transaction that a loss of power cut off: nobody
/// was told that it holds. It is wrong when the disk has damaged what was committed.
/// The two can be told apart, because a transaction is on the disk before the next one
/// is written: what is broken and has a whole frame of a later transaction after it was
/// committed, and is lost.
pub(crate) fn check_log(journal: &Path) -> Result<(), OpenError> {
    let mut path = journal.as_os_str().to_owned();
    path.push("-wal");
    let path = PathBuf::from(path);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(OpenError::Folder { path, source }),
    };
    let damaged = |detail: String| OpenError::Damaged {
        path: path.clone(),
        detail,
    };
    match read_log(BufReader::new(file)) {
        Ok(Log::Whole) => Ok(()),
        Ok(Log::CutOff { frame }) => {
            tracing::warn!(
                log = %path.display(),
                frame,
                "the last transaction of the journal's log is not whole and is dropped: a loss of power cut it off"
            );
            Ok(())
        }
        Ok(Log::NoHeader) => Err(damaged(
            "its header does not check, and there is something after it".to_owned(),
        )),
        Ok(Log::Lost { frame }) => Err(damaged(format!(
            "frame {frame} does not check, and it was committed"
        ))),
        Err(source) => Err(OpenError::Folder { path, source }),
    }
}

/// Looks through the whole file; what is wrong with it, if anything is.
pub(crate) fn check_pages(connection: &Connection) -> Option<String> {
    let said: rusqlite::Result<String> =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    match said {
        Ok(said) if said == "ok" => None,
        Ok(said) => Some(said.lines().collect::<Vec<_>>().join("; ")),
        Err(rusqlite::Error::SqliteFailure(error, _))
            if error.code == rusqlite::ErrorCode::OperationInterrupted =>
        {
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

/// Whether SQLite means that the file is no sound database.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
    )
}

/// What a log is like. Frames are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// Everything in it checks, or it is empty.
    Whole,
    /// Its last transaction does not check.
    CutOff {
        /// The first frame that does not.
        frame: u64,
    },
    /// A transaction before its last does not check.
    Lost {
        /// The first frame that does not.
        frame: u64,
    },
    /// It is not known what the frames belong to.
    NoHeader,
}

/// How the words that are summed up are written.
#[derive(Debug, Clone, Copy)]
enum Order {
    Big,
    Little,
}

/// SQLite's running checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums(u32, u32);

impl Sums {
    fn add(mut self, order: Order, bytes: &[u8]) -> Self {
        let (words, _) = bytes.as_chunks::<4>();
        let (pairs, _) = words.as_chunks::<2>();
        for [first, second] in pairs {
            self.0 = self.0.wrapping_add(order.word(*first)).wrapping_add(self.1);
            self.1 = self
                .1
                .wrapping_add(order.word(*second))
                .wrapping_add(self.0);
        }
        self
    }
}

impl Order {
    fn word(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Big => u32::from_be_bytes(bytes),
            Self::Little => u32::from_le_bytes(bytes),
        }
    }
}

/// The big-endian number that is the `index`th word of a header.
fn number(header: &[u8], index: usize) -> u32 {
    let (words, _) = header.as_chunks::<4>();
    words.get(index).copied().map_or(0, u32::from_be_bytes)
}

/// Looks through a write-ahead log: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.
pub fn read_log(mut log: impl Read) -> std::io::Result<Log> {
    let mut header = [0; HEADER];
    if !fill(&mut log, &mut header)? {
        return Ok(Log::Whole);
    }
    let order = if number(&header, 0) & 1 == 1 {
        Order::Big
    } else {
        Order::Little
    };
    let mut sums = Sums::default().add(order, header.get(..24).unwrap_or_default());
    let salts = (number(&header, 4), number(&header, 5));
    let page = number(&header, 2) as usize;
    let known = matches!(number(&header, 0), 0x377f_0682 | 0x377f_0683)
        && (512..=65536).contains(&page)
        && sums == Sums(number(&header, 6), number(&header, 7));
    if !known {
        let mut after = Vec::new();
        log.take(FRAME_HEADER as u64 + 512)
            .read_to_end(&mut after)?;
        let written = after.iter().any(|byte| *byte != 0);
        return Ok(if written { Log::NoHeader } else { Log::Whole });
    }

    let mut frame = vec![0; FRAME_HEADER + page];
    let mut broken = None;
    // The frame before this one ends a transaction, at or after what is broken.
    let mut sealed = false;
    let mut count = 0;
    while fill(&mut log, &mut frame)? {
        count += 1;
        let (head, content) = frame.split_at(FRAME_HEADER);
        // What an earlier generation of the log left behind has other salts.
        let ours = salts == (number(head, 2), number(head, 3));
        let stored = Sums(number(head, 4), number(head, 5));
        let summed = sums
            .add(order, head.get(..8).unwrap_or_default())
            .add(order, content);
        // Also after a break: the sums go on from what the frame before has stored.
        let follows = ours && summed == stored;
        match broken {
            None if !follows => broken = Some((count, ours)),
            Some((frame, _)) if follows && sealed => return Ok(Log::Lost { frame }),
            _ => {}
        }
        sealed = broken.is_some() && ours && number(head, 1) != 0;
        sums = stored;
    }
    Ok(match broken {
        Some((frame, true)) => Log::CutOff { frame },
        _ => Log::Whole,
    })
}

/// Reads until `buffer` is full; false when the end comes first.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;
    const FRAME: usize = FRAME_HEADER + PAGE;

    /// A log that SQLite wrote: a table, then `rows` transactions of one row each.
    fn log(rows: u32) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.sqlite");
        let connection = Connection::open(&file).unwrap();
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .unwrap();
        connection.execute_batch("CREATE TABLE t (x BLOB)").unwrap();
        for _ in 0..rows {
            connection
                .execute("INSERT INTO t VALUES (randomblob(3000))", [])
                .unwrap();
        }
        std::fs::read(folder.path().join("journal.sqlite-wal")).unwrap()
    }

    fn frames(log: &[u8]) -> u64 {
        ((log.len() - HEADER) / FRAME) as u64
    }

    /// The log with one byte changed, that many bytes into the content of a frame.
    fn flipped(log: &[u8], frame: u64, byte: usize) -> Vec<u8> {
        let mut log = log.to_vec();
        log[HEADER + (frame as usize - 1) * FRAME + byte] ^= 1;
        log
    }

    #[test]
    fn a_log_that_sqlite_wrote_is_whole() {
        for rows in [0, 1, 20] {
            assert_eq!(read_log(&log(rows)[..]).unwrap(), Log::Whole);
        }
        assert_eq!(read_log(&[][..]).unwrap(), Log::Whole);
    }

    #[test]
    fn what_a_loss_of_power_cut_off_is_dropped() {
        let log = log(20);
        let last = frames(&log);
        for byte in [40, FRAME_HEADER + 17, FRAME - 1] {
            let broken = flipped(&log, last, byte);
            let expected = Log::CutOff { frame: last };
            assert_eq!(read_log(&broken[..]).unwrap(), expected);
        }
        // A frame that was written in part, and one that was only made room for.
        assert_eq!(read_log(&log[..log.len() - 1]).unwrap(), Log::Whole);
        let room = [&log[..], &[0; FRAME]].concat();
        assert_eq!(read_log(&room[..]).unwrap(), Log::Whole);
    }

    #[test]
    fn damage_to_what_was_committed_is_found_wherever_it_is() {
        let log = log(20);
        // The last transactions are up to three frames: whatever lies before them.
        for frame in 1..frames(&log) - 6 {
            for byte in [0, 5, 9, 17, FRAME_HEADER, FRAME - 1] {
                let broken = flipped(&log, frame, byte);
                let expected = Log::Lost { frame };
                let found = read_log(&broken[..]).unwrap();
                assert_eq!(found, expected, "byte {byte}");
            }
        }
    }

    #[test]
    fn a_header_that_does_not_check_hides_nothing() {
        let log = log(2);
        for byte in [0, 9, 17, 31] {
            let mut broken = log.clone();
            broken[byte] ^= 1;
            assert_eq!(read_log(&broken[..]).unwrap(), Log::NoHeader, "{byte}");
        }
        // Made room for, and never written.
        let room = [0; HEADER + FRAME];
        assert_eq!(read_log(&room[..]).unwrap(), Log::Whole);
    }

    #[test]
    fn what_an_earlier_generation_of_the_log_left_is_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.sqlite");
        let connection = Connection::open(&file).unwrap();
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .unwrap();
        connection.execute_batch("CREATE TABLE t (x BLOB)").unwrap();
        for _ in 0..20 {
            connection
                .execute("INSERT INTO t VALUES (randomblob(3000))", [])
                .unwrap();
        }
        // The next transaction begins the log anew, over the beginning of the old one.
        let _done: rusqlite::Result<i64> =
            connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0));
        connection
            .execute("DELETE FROM t WHERE rowid = 1", [])
            .unwrap();
        let log = std::fs::read(folder.path().join("journal.sqlite-wal")).unwrap();
        assert!(frames(&log) > 20, "the old frames are still there");
        assert_eq!(read_log(&log[..]).unwrap(), Log::Whole);
    }
}
