//! The limit: what the plain disk does with a commit's worth of bytes.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::load::Latencies;

/// What one alert's commit puts into the write-ahead log: some pages of 4 KiB with their
/// headers.
const COMMIT: usize = 5 * 4120;

/// What the disk does.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    /// Appends in a second, each of a commit's bytes and on the disk before the next.
    pub(crate) rate: f64,
    /// How long they take.
    pub(crate) latencies: Latencies,
    /// How long they take when the disk is idle in between, as it is for single alerts.
    pub(crate) idle: Latencies,
}

/// How many appends with a pause before each.
const PAUSED: u32 = 75;

/// Appends and syncs for a while, one at a time, in `folder`.
pub(crate) fn measure(folder: &Path, time: Duration) -> Result<Disk> {
    std::fs::create_dir_all(folder)?;
    let folder = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(folder)?;
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.path().join("log"))?;
    let bytes = vec![0x5a; COMMIT];
    let mut append = || -> Result<Duration> {
        let before = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        Ok(before.elapsed())
    };
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < time {
        times.push(append()?);
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    let mut paused = Vec::new();
    for _ in 0..PAUSED {
        std::thread::sleep(Duration::from_millis(20));
        paused.push(append()?);
    }
    Ok(Disk {
        rate,
        latencies: Latencies::new(times)?,
        idle: Latencies::new(paused)?,
    })
}
