//! The limit: what the plain disk does with a commit's worth of bytes.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::load::Latencies;

/// What one alert's commit puts into the write-ahead log: some pages of 4 KiB with their
/// headers.
const COMMIT: usize = 5 * 4120;

/// How many commits fit into the file before it begins anew, as the log of the journal
/// does once it has its size.
const ROUND: u64 = 800;

/// What the disk does.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    /// Writes in a second, each of a commit's bytes and on the disk before the next.
    pub(crate) rate: f64,
    /// How long they take.
    pub(crate) latencies: Latencies,
    /// How long they take when the disk is idle in between, as it is for single alerts.
    pub(crate) idle: Latencies,
}

/// How many writes with a pause before each.
const PAUSED: u32 = 75;

/// Writes and syncs for a while, one at a time, in `folder`.
pub(crate) fn measure(folder: &Path, time: Duration) -> Result<Disk> {
    std::fs::create_dir_all(folder)?;
    let folder = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(folder)?;
    let file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(folder.path().join("log"))?;
    let bytes = vec![0x5a; COMMIT];
    for place in 0..ROUND {
        file.write_all_at(&bytes, place * COMMIT as u64)?;
    }
    file.sync_all()?;
    let mut places = (0..ROUND).cycle();
    let mut write = || -> Result<Duration> {
        let place = places.next().unwrap_or_default();
        let before = Instant::now();
        file.write_all_at(&bytes, place * COMMIT as u64)?;
        file.sync_data()?;
        Ok(before.elapsed())
    };
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < time {
        times.push(write()?);
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    let mut paused = Vec::new();
    for _ in 0..PAUSED {
        std::thread::sleep(Duration::from_millis(20));
        paused.push(write()?);
    }
    Ok(Disk {
        rate,
        latencies: Latencies::new(times)?,
        idle: Latencies::new(paused)?,
    })
}
