//! A plugin that is made to exhaust the compiler, in the plugins folder of a real daemon: it is refused with a reason,
//! and nobody else notices.

use std::fs;
use std::time::{Duration, Instant};

use sentinel_tests::daemon::Daemon;
use sentinel_tests::payload::Alert;
use sentinel_tests::wat::{CORE, Core, greedy};

/// How long an alert may take meanwhile, on a machine whose processors the compiler has.
const PATIENCE: Duration = Duration::from_secs(10);

const POLICY: &str = r#"
policies:
  - name: good
    match: ['alertname="Good"']
    target: 'docker://local/infra-sentinel-none-{{ labels.n }}'
    mode: auto
    steps: [{ plugin: hostile, timeout: 10s, params: { behaviour: changed, text: done } }]
    verify: { alert: resolved, within: 1s, steady: 0s }
    guards: { cooldown: 1s, flapping: off }
    grants:
      docker: { containers: ['infra-sentinel-none-*'], actions: [inspect] }
"#;

fn read(process: &str, file: &str) -> String {
    fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default()
}

/// The daemon's process that compiles, if one does.
fn compiler(daemon: &Daemon) -> Option<String> {
    let daemon = daemon.pid().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut numbers = processes.filter_map(|process| process.file_name().into_string().ok());
    numbers.find(|process| {
        let status = read(process, "status");
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        parent.is_some_and(|parent| parent.trim() == daemon)
            && read(process, "cmdline").contains("compile-plugin")
    })
}

fn resident(daemon: &Daemon) -> u64 {
    let status = read(&daemon.pid().to_string(), "status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() << 10
}

/// The limits of a process: the soft and the hard one of this name.
fn limit(limits: &str, name: &str) -> Vec<String> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    let words = line
        .unwrap_or_else(|| panic!("{name}: {limits}"))
        .split_whitespace();
    words.take(2).map(ToOwned::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exhausts_the_compiler_is_refused_while_the_others_are_served() {
    let daemon = Daemon::start(&["hostile"], POLICY).await;
    let bomb = greedy("bomb", 150_000);
    let size = bomb.len() as u64;
    let before = resident(&daemon);
    daemon.install_bytes("bomb.wasm", &bomb);
    drop(bomb);

    // While it computes, alerts are dealt with; and it is bounded by the system, not by its good will.
    let begun = Instant::now();
    let (mut healed, mut limits) = (0_u64, String::new());
    let refused = || daemon.log().contains("the compiler ended with");
    while !refused() {
        assert!(
            begun.elapsed() < Duration::from_secs(150),
            "{}",
            daemon.log()
        );
        if let Some(process) = compiler(&daemon) {
            let found = read(&process, "limits");
            // It may have ended while it was looked at, or not begun yet to bound itself.
            if found.contains("Max cpu time")
                && !limit(&found, "Max address space").contains(&"unlimited".to_owned())
            {
                limits = found;
            }
            healed += 1;
            daemon
                .deliver(&[Alert::firing("Good", &[("n", &healed.to_string())])])
                .await;
            daemon
                .wait_state(healed, PATIENCE, |incident| {
                    let events = incident["events"].as_array()?;
                    events
                        .iter()
                        .any(|event| event["kind"] == "run-ended")
                        .then_some(())
                })
                .await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(healed >= 3, "{healed} alerts came while it compiled");
    assert_eq!(
        limit(&limits, "Max address space"),
        [(2_u64 << 30).to_string(), (2_u64 << 30).to_string()]
    );
    assert!(
        !limit(&limits, "Max cpu time").contains(&"unlimited".to_owned()),
        "{limits}"
    );
    assert_eq!(limit(&limits, "Max file size"), ["0", "0"]);
    assert_eq!(limit(&limits, "Max core file size"), ["0", "0"]);

    let log = daemon.log();
    let line = log
        .lines()
        .find(|line| line.contains("the compiler ended with"))
        .unwrap();
    assert!(
        line.contains("bomb.wasm") && line.contains("2048 MiB of memory"),
        "{line}"
    );
    assert!(line.len() < 2000, "{line}");
    assert!(
        daemon
            .get("/api/v1/status")
            .await
            .unwrap()
            .1
            .contains("bomb.wasm")
    );
    // What it took is gone with its process.
    assert_eq!(compiler(&daemon), None);
    let more = resident(&daemon).saturating_sub(before);
    assert!(
        more < 8 * size + (64 << 20),
        "{more} bytes more for a file of {size}"
    );

    // The next plugin is compiled as ever, and the bad one is not tried again.
    let fine = Core {
        name: "fine",
        ..CORE
    };
    daemon.install_bytes("fine.wasm", &fine.quiet());
    sentinel_tests::eventually("the next one serves", Duration::from_secs(30), || async {
        let plugins = daemon.json("/api/v1/plugins").await;
        plugins
            .to_string()
            .contains(r#""name":"fine""#)
            .then_some(())
    })
    .await;
    assert_eq!(
        daemon.log().matches("the compiler ended with").count(),
        1,
        "{}",
        daemon.log()
    );
}
