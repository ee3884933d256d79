//! A run's record, and how far it has been played.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sentinel_core::recording::{RecordedCall, RecordedLine, Recording};

/// A record that is being played. It is taken from front to back, by the calls, the looks
/// at the clock and the lines of the log, each in its own order.
pub(crate) struct Playback {
    recording: Recording,
    cursor: Mutex<Cursor>,
}

#[derive(Default)]
struct Cursor {
    calls: usize,
    looks: usize,
    lines: usize,
}

impl Playback {
    pub(crate) fn new(recording: Recording) -> Self {
        Self {
            recording,
            cursor: Mutex::default(),
        }
    }

    pub(crate) fn recording(&self) -> &Recording {
        &self.recording
    }

    /// The next call; none when the record has no more.
    pub(crate) fn next_call(&self) -> Option<&RecordedCall> {
        let mut cursor = self.lock();
        let call = self.recording.calls.get(cursor.calls)?;
        cursor.calls += 1;
        Some(call)
    }

    /// The call that [`next_call`](Self::next_call) would give.
    pub(crate) fn awaited_call(&self) -> Option<&RecordedCall> {
        self.recording.calls.get(self.lock().calls)
    }

    /// What the clock said at the next look; none when the record has no more.
    pub(crate) fn next_reading(&self) -> Option<u64> {
        let mut cursor = self.lock();
        let reading = self.recording.readings.get(cursor.looks).copied()?;
        cursor.looks += 1;
        Some(reading)
    }

    /// The next line; none when the record has no more.
    pub(crate) fn next_line(&self) -> Option<&RecordedLine> {
        let mut cursor = self.lock();
        let line = self.recording.lines.get(cursor.lines)?;
        cursor.lines += 1;
        Some(line)
    }

    /// Whether everything on record has been played.
    pub(crate) fn is_over(&self) -> bool {
        let cursor = self.lock();
        cursor.calls >= self.recording.calls.len()
            && cursor.looks >= self.recording.readings.len()
            && cursor.lines >= self.recording.lines.len()
    }

    fn lock(&self) -> MutexGuard<'_, Cursor> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
