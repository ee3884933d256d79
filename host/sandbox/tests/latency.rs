//! Guests that compute do not hold up anyone else.

#![cfg(test)]

#[expect(
    dead_code,
    reason = "shared with the other tests, which use more of it"
)]
#[path = "sandbox/support.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sentinel_sandbox::{RunFailure, RunLimits, Sandbox, SandboxConfig};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{World, gate, guest, incident};

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spinning_guests_delay_neither_the_daemon_nor_good_guests() {
    let sandbox = Arc::new(Sandbox::new(SandboxConfig::default()).unwrap());
    let plugin = sandbox.load(guest("hostile")).await.unwrap();
    let world = Arc::new(World::default());
    let run = |params, timeout| {
        let (sandbox, plugin) = (Arc::clone(&sandbox), Arc::clone(&plugin));
        let (incident, gate) = (incident(params), gate(&world));
        let limits = RunLimits {
            timeout,
            cpu: Duration::from_mins(1),
            ..RunLimits::default()
        };
        async move { sandbox.run(plugin, incident, gate, limits).await }
    };

    // It begins where its caller is by now.
    for _ in 0..5 {
        let params = json!({"behaviour": "changed", "text": "done"});
        run(params, Duration::from_secs(10)).await;
    }
    let mut spinning = JoinSet::new();
    for _ in 0..8 {
        spinning.spawn(run(json!({"behaviour": "spin"}), Duration::from_secs(3)));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;

    let (mut tasks, mut runs) = (Vec::new(), Vec::new());
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        let asked = Instant::now();
        let mut task = JoinSet::new();
        task.spawn(async move { asked.elapsed() });
        tasks.push(task.join_next().await.unwrap().unwrap());

        let asked = Instant::now();
        let report = run(
            json!({"behaviour": "changed", "text": "done"}),
            Duration::from_secs(10),
        )
        .await;
        assert!(report.result.is_ok(), "{report:?}");
        runs.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let samples = tasks.len();
    let (tasks, runs) = (median(tasks), median(runs));
    println!("{samples} samples: a task of the daemon {tasks:?}, a good guest {runs:?}");

    while let Some(report) = spinning.join_next().await {
        let report = report.unwrap();
        assert_eq!(report.result, Err(RunFailure::TimedOut { limit_ms: 3_000 }));
        assert!(report.wall < Duration::from_secs(6), "{:?}", report.wall);
    }
    assert!(tasks < Duration::from_millis(20), "{tasks:?}");
    assert!(runs < Duration::from_millis(100), "{runs:?}");
}
