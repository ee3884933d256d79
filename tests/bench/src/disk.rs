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
}

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
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < time {
        let before = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        times.push(before.elapsed());
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(Disk {
        rate,
        latencies: Latencies::new(times)?,
    })
}
