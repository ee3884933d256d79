//! The load: many connections that each wait for their answers (closed loop), or
//! requests at fixed moments, whatever the answers do (open loop).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::http::{Connection, answer};
use crate::payload::{self, Template};

/// When a closed loop ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// After a while.
    Elapsed(Duration),
    /// When so many requests have been answered.
    Requests(u64),
}

/// How a load is going, for others to look at.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Deliveries that were accepted.
    pub(crate) accepted: AtomicU64,
    /// Deliveries that were not: 503, most likely.
    pub(crate) refused: AtomicU64,
    begun: AtomicU64,
    stop: AtomicBool,
}

/// What a closed loop came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// Deliveries that were accepted.
    pub(crate) accepted: u64,
    /// Deliveries that were refused.
    pub(crate) refused: u64,
    /// From the first request to the last answer.
    pub(crate) took: Duration,
}

impl Sent {
    /// Accepted deliveries in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.accepted as f64 / self.took.as_secs_f64()
    }
}

/// Sends deliveries over `connections` connections, each as fast as its answers come.
/// Everything runs on one thread, so that the load takes no more than one processor.
pub(crate) fn saturate(
    address: SocketAddr,
    template: &Template,
    connections: usize,
    until: Until,
    progress: &Arc<Progress>,
) -> Result<Sent> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let limit = match until {
            Until::Elapsed(_) => u64::MAX,
            Until::Requests(count) => count,
        };
        let mut streams = Vec::with_capacity(connections);
        for _ in 0..connections {
            let stream = TcpStream::connect(address)
                .await
                .context("the daemon takes no connection")?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let begun = Instant::now();
        let mut senders = JoinSet::new();
        for stream in streams {
            senders.spawn(send(stream, template.clone(), limit, progress.clone()));
        }
        if let Until::Elapsed(time) = until {
            tokio::time::sleep(time).await;
            progress.stop.store(true, Ordering::Relaxed);
        }
        while let Some(ended) = senders.join_next().await {
            ended??;
        }
        Ok(Sent {
            accepted: progress.accepted.load(Ordering::Relaxed),
            refused: progress.refused.load(Ordering::Relaxed),
            took: begun.elapsed(),
        })
    })
}

async fn send(
    mut stream: TcpStream,
    template: Template,
    limit: u64,
    progress: Arc<Progress>,
) -> Result<()> {
    let mut request = template.request();
    let mut buffer = Vec::with_capacity(1024);
    while !progress.stop.load(Ordering::Relaxed)
        && progress.begun.fetch_add(1, Ordering::Relaxed) < limit
    {
        let first = payload::numbers(template.alerts());
        stream.write_all(request.patch(first)).await?;
        buffer.clear();
        let status = loop {
            if stream.read_buf(&mut buffer).await? == 0 {
                bail!("the daemon closed a connection before its answer");
            }
            if let Some((status, _)) = answer(&buffer) {
                break status;
            }
        };
        match status {
            202 => progress.accepted.fetch_add(1, Ordering::Relaxed),
            503 => progress.refused.fetch_add(1, Ordering::Relaxed),
            other => bail!(
                "a delivery was answered {other}: {}",
                String::from_utf8_lossy(&buffer)
            ),
        };
    }
    Ok(())
}

/// When a delivery was due, and when its answer was there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timed {
    /// The number of its first alert.
    pub(crate) number: u64,
    /// When it was due to be sent. What is late because the one before it was answered
    /// late counts from here too.
    pub(crate) due: Instant,
    /// When its answer had arrived.
    pub(crate) answered: Instant,
}

/// Sends `count` deliveries at `rate` a second over `senders` connections, each on a
/// thread of its own. Every delivery has its moment, whatever became of those before it.
pub(crate) fn pace(
    address: SocketAddr,
    template: &Template,
    rate: f64,
    count: u64,
    senders: u64,
) -> Result<Vec<Timed>> {
    let interval = Duration::from_secs_f64(1.0 / rate);
    let begin = Instant::now() + Duration::from_millis(50);
    let threads: Vec<_> = (0..senders)
        .map(|sender| {
            let template = template.clone();
            std::thread::Builder::new().name("load".to_owned()).spawn(
                move || -> Result<Vec<Timed>> {
                    let mut connection = Connection::open(address)?;
                    let mut request = template.request();
                    let mut sent = Vec::new();
                    let mut turn = sender;
                    while turn < count {
                        let number = payload::numbers(template.alerts());
                        let bytes = request.patch(number);
                        let due = begin + interval.mul_f64(turn as f64);
                        wait_until(due);
                        let (status, body) = connection.send(bytes)?;
                        if status != 202 {
                            bail!(
                                "a delivery was answered {status}: {}",
                                String::from_utf8_lossy(&body)
                            );
                        }
                        sent.push(Timed {
                            number,
                            due,
                            answered: Instant::now(),
                        });
                        turn += senders;
                    }
                    Ok(sent)
                },
            )
        })
        .collect::<std::io::Result<_>>()?;
    let mut all = Vec::new();
    for thread in threads {
        all.extend(
            thread
                .join()
                .map_err(|_| anyhow!("a sender ended in a panic"))??,
        );
    }
    Ok(all)
}

/// Sleeps, and looks at the clock for the last tenth of a millisecond: timers of the
/// kernel come that much too late.
fn wait_until(moment: Instant) {
    const SPIN: Duration = Duration::from_micros(100);
    let left = moment.saturating_duration_since(Instant::now());
    std::thread::sleep(left.saturating_sub(SPIN));
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
}

/// Percentiles of times, in milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    /// Of these times.
    pub(crate) fn new(mut times: Vec<Duration>) -> Result<Self> {
        if times.is_empty() {
            bail!("nothing was timed");
        }
        times.sort_unstable();
        Ok(Self(times))
    }

    /// The time that the share `q` of all stays at or below, in milliseconds.
    pub(crate) fn at(&self, q: f64) -> f64 {
        let rank = (q * self.0.len() as f64).ceil() as usize;
        let index = rank.saturating_sub(1).min(self.0.len() - 1);
        self.0
            .get(index)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_seen() {
        let times = (1..=100).rev().map(Duration::from_millis).collect();
        let latencies = Latencies::new(times).unwrap();
        assert!((latencies.at(0.5) - 50.0).abs() < 1e-9);
        assert!((latencies.at(0.99) - 99.0).abs() < 1e-9);
        assert!((latencies.at(1.0) - 100.0).abs() < 1e-9);
        assert!(Latencies::new(Vec::new()).is_err());
    }
}
