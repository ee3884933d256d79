//! Steady work for a good plugin, timed: what anything else that goes on may not disturb.

use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::fake_docker::{Call, Container, FakeDocker};
use crate::payload::Alert;

/// The policies file with the policy that does the work; others can be put behind it.
pub const POLICY: &str = r"
policies:
  - name: good
    mode: auto
    match: ['alertname=Good']
    target: 'docker://local/{{ labels.container }}'
    steps: [{ plugin: docker-restart, timeout: 30s }]
    verify: { docker: running, within: 10s, steady: 0s, every: 100ms }
    guards: { concurrency: 64 }
    grants:
      docker: { containers: ['good-*'], actions: [inspect, restart, start] }
";

/// Delivers one good alert after the other, ten in a second, and says how long each took from its
/// delivery to the restart, in order of length.
pub async fn work(daemon: &Daemon, fake: &FakeDocker, round: &str, count: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for number in 0..count {
        let name = format!("good-{round}-{number}");
        fake.add(Container::exited(&name));
        let begun = Instant::now();
        daemon
            .deliver(&[Alert::firing("Good", &[("container", &name)])])
            .await;
        while fake.done(&name, Call::Start) == 0 {
            let waits = begun.elapsed();
            assert!(waits < Duration::from_secs(20), "{name} was not restarted");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(100).saturating_sub(begun.elapsed())).await;
    }
    times.sort();
    times
}

/// The time that one in a hundred goes beyond; `times` is in order.
#[must_use]
pub fn p99(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

/// The time that one in ten goes beyond; `times` is in order.
#[must_use]
pub fn p90(times: &[Duration]) -> Duration {
    times[times.len() * 9 / 10]
}
