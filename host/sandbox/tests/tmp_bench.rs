#[path = "sandbox/support.rs"]
mod support;
use crate::support::{World, gate, guest, incident};
use sentinel_sandbox::{RunLimits, Sandbox, SandboxConfig};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bench() {
    let t = Instant::now();
    let sandbox = Sandbox::new(SandboxConfig::default()).unwrap();
    println!("new {:?}", t.elapsed());
    for g in ["hostile", "docker-restart"] {
        let t = Instant::now();
        let _ = sandbox.load(guest(g)).await.unwrap();
        println!("load {g} {:?}", t.elapsed());
    }
    let plugin = sandbox.load(guest("hostile")).await.unwrap();
    let world = Arc::new(World::default());
    let mut times = vec![];
    for _ in 0..5000 {
        let (i, g) = (
            incident(json!({"behaviour":"changed","text":"x"})),
            gate(&world),
        );
        let t = Instant::now();
        let r = sandbox
            .run(Arc::clone(&plugin), i, g, RunLimits::default())
            .await;
        times.push(t.elapsed());
        assert!(r.result.is_ok());
    }
    times.sort();
    println!("run p50 {:?} p95 {:?}", times[2500], times[4750]);
    for line in std::fs::read_dir("/proc/self/task").unwrap() {
        let p = line.unwrap().path();
        let stat = std::fs::read_to_string(p.join("stat")).unwrap();
        let rest = stat.rsplit_once(") ").unwrap().1;
        println!(
            "{} nice {}",
            std::fs::read_to_string(p.join("comm")).unwrap().trim(),
            rest.split(' ').nth(16).unwrap()
        );
    }
    let c0 = std::fs::read_to_string("/proc/self/status").unwrap();
    println!(
        "{}",
        c0.lines()
            .filter(|l| l.starts_with("VmRSS") || l.starts_with("VmSize"))
            .collect::<Vec<_>>()
            .join(" ")
    );
}
