//! Plugins that attack, all at once, while a good one goes on with its work: through the real
//! daemon, with real components. The Docker Engine is a fake that counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use sentinel_tests::daemon::Daemon;
use sentinel_tests::eventually;
use sentinel_tests::fake_docker::{Container, FakeDocker};
use sentinel_tests::payload::Alert;
use sentinel_tests::steady::{self, POLICY, p90, p99};
use sentinel_tests::wat::{CORE, Core};
use serde_json::Value;
use tokio::net::TcpListener;

/// What a plugin does to break out, and what its run comes to.
const ATTACKS: [(&str, &str); 17] = [
    ("spin", "it used up its CPU time of 300ms"),
    ("spin-after-call", "it used up its CPU time of 300ms"),
    ("panic", "this plugin panics on purpose"),
    ("exit", "it called the exit function"),
    ("memory-bomb", "more than the 16 MiB of memory"),
    ("deep-recursion", "it used up its stack"),
    ("log-flood", "more than 200 host calls"),
    ("huge-log", "more than 1024 KiB to the host"),
    ("call-flood", "more than 200 host calls"),
    ("refused-flood", "more than 200 host calls"),
    ("sleep-forever", "it was not done within 2s"),
    ("wasi-sleep", "it was not done within 2s"),
    ("huge-result", "more than 1024 KiB to the host"),
    ("terminal-escapes", "forged line"),
    ("stdio", "wrote to stdout and stderr"),
    ("stdio-flood", ""),
    ("slow-changed", "words"),
];

/// Plugins that no toolchain makes, what their `remediate` does, and what its run comes to.
static ODD: LazyLock<[(&str, Core<'_>, &str); 5]> = LazyLock::new(|| {
    [
        (
            // Ends when it gets no more.
            "table-bomb",
            Core {
                name: "table-bomb",
                fields: r#"(table $all 1 funcref)
                (data (i32.const 700) "\00\00\00\00\00\00\00\00\d0\02\00\00\05\00\00\00")
                (data (i32.const 720) "grown")"#,
                remediate: "(loop $more (br_if $more (i32.ne (i32.const -1)
                (table.grow $all (ref.null func) (i32.const 1000)))))
                i32.const 700",
                ..CORE
            },
            "grown",
        ),
        (
            "no-text",
            Core {
                name: "no-text",
                fields: r#"(data (i32.const 700) "\00\00\00\00\00\00\00\00\d0\02\00\00\02\00\00\00")
                (data (i32.const 720) "\ff\fe")"#,
                remediate: "i32.const 700",
                ..CORE
            },
            "it broke the rules of the component model: invalid utf-8",
        ),
        (
            // Has the host write the incident to where it has no memory.
            "no-memory",
            Core {
                name: "no-memory",
                realloc: "i32.const 0x7ffffff8",
                ..CORE
            },
            "it broke the rules of the component model: realloc return",
        ),
        (
            "hoard",
            Core {
                name: "hoard",
                fields: r#"(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration"
                (func $timer (param i64) (result i32)))"#,
                remediate: "(loop $more (drop (call $timer (i64.const -1))) (br $more)) unreachable",
                ..CORE
            },
            "it held more than 300 resources",
        ),
        (
            // One host call after another: no loop turns and no function begins, which is where
            // wasmtime looks at its clock. Together they take seconds.
            "unrolled",
            Core {
                name: "unrolled",
                fields: r#"(import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
                (import "wasi:io/streams@0.2.0" "[method]output-stream.write"
                    (func $write (param i32 i32 i32 i32)))
                (global $out (mut i32) (i32.const 0))"#,
                remediate: &UNROLLED,
                ..CORE
            },
            "it used up its CPU time of 300ms",
        ),
    ]
});

static UNROLLED: LazyLock<String> = LazyLock::new(|| {
    let write = "(call $write (global.get $out) (i32.const 0) (i32.const 65536) (i32.const 800))";
    format!(
        "(global.set $out (call $stdout)) {} unreachable",
        write.repeat(50_000)
    )
});

/// The component of one of these.
fn component(core: &Core<'_>) -> Vec<u8> {
    if core.fields.contains("import") {
        core.with_wasi()
    } else {
        core.quiet()
    }
}

/// Every attack with what its run comes to.
fn attacks() -> impl Iterator<Item = (&'static str, &'static str)> {
    let odd = ODD.iter().map(|(name, _, expected)| (*name, *expected));
    ATTACKS.into_iter().chain(odd)
}

/// How many runs of one plugin there may be, and how much memory each may have.
const RUNS: u64 = 4;
const MEMORY_MIB: u64 = 16;

/// What the attacks may cost a good plugin, from the delivery of an alert to the restart. Its run
/// computes for less than a millisecond, on the two threads that the attackers compute on, which
/// have a tick of a millisecond each in turn. The worst of a hundred is also the machine's.
const GOOD_P90: Duration = Duration::from_millis(300);
const GOOD_P99: Duration = Duration::from_secs(2);

/// What the daemon may take beyond what it took before, and beyond what it lets attackers have.
const MORE_MIB: u64 = 64;

fn policies() -> String {
    let mut text = POLICY.to_owned();
    for (attack, _) in ATTACKS {
        // Two MiB fit into its memory, and are more than may cross the boundary.
        let policy = format!(
            r"  - name: {attack}
    mode: auto
    match: ['alertname={attack}']
    target: 'docker://local/{attack}-{{{{ labels.n }}}}'
    steps: [{{ plugin: hostile, timeout: 2s, params: {{ behaviour: {attack}, text: words, ms: 200, mib: 2 }} }}]
    verify: {{ alert: resolved, within: 1s, steady: 0s }}
    guards: {{ cooldown: 1s, concurrency: 64, flapping: off }}
    grants:
      docker: {{ containers: ['{attack}-*'], actions: [inspect] }}
"
        );
        text.push_str(&policy);
    }
    for (plugin, _, _) in &*ODD {
        let policy = format!(
            r"  - name: {plugin}
    mode: auto
    match: ['alertname={plugin}']
    target: 'docker://local/{plugin}-{{{{ labels.n }}}}'
    steps: [{{ plugin: {plugin}, timeout: 2s }}]
    verify: {{ alert: resolved, within: 1s, steady: 0s }}
    guards: {{ cooldown: 1s, concurrency: 64, flapping: off }}
"
        );
        text.push_str(&policy);
    }
    text
}

/// The most memory that a process had, in MiB.
fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() / 1024
}

/// A schema in which each of so many definitions names the one below it twice.
fn schema_fan(levels: u32) -> String {
    let defs: Vec<String> = (1..=levels)
        .map(|level| {
            let below = format!(r##"{{"$ref":"#/$defs/d{}"}}"##, level - 1);
            format!(r#""d{level}":{{"allOf":[{below},{below}]}}"#)
        })
        .collect();
    format!(
        r##"{{"type":"object","$defs":{{"d0":{{"type":["object","string"]}},{}}},"allOf":[{{"$ref":"#/$defs/d{levels}"}}]}}"##,
        defs.join(",")
    )
}

/// Files that no plugins folder should have, with what is said about each.
fn bad_files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let spins = "(func $spin (loop br 0)) (start $spin)";
    let core = CORE;
    vec![
        (
            "spins-in-start.wasm",
            Core {
                fields: spins,
                ..core
            }
            .quiet(),
            "it used up its CPU time",
        ),
        (
            "spins-in-describe.wasm",
            Core {
                describe: "(loop br 0)",
                ..core
            }
            .quiet(),
            "it used up its CPU time",
        ),
        (
            "recursion-in-describe.wasm",
            Core {
                fields: "(func $deep (call $deep))",
                describe: "call $deep",
                ..core
            }
            .quiet(),
            "it used up its stack",
        ),
        (
            "four-gigabytes.wasm",
            Core {
                fields: "(memory $more 65536)",
                ..core
            }
            .quiet(),
            "memory",
        ),
        (
            "table.wasm",
            Core {
                fields: "(table 100000000 funcref)",
                ..core
            }
            .quiet(),
            "table",
        ),
        (
            "many-tables.wasm",
            Core {
                fields: &"(table 1 funcref)".repeat(90),
                ..core
            }
            .quiet(),
            "table",
        ),
        (
            "name.wasm",
            Core {
                name: "\u{1b}[2Jgood",
                ..core
            }
            .quiet(),
            "is no plugin name",
        ),
        (
            "schema.wasm",
            Core {
                schema: r#"{"$ref": "http://127.0.0.1:1/schema.json"}"#,
                ..core
            }
            .quiet(),
            "leads out of it",
        ),
        (
            // 2 to the power of 20 parts in a few KiB.
            "schema-fan.wasm",
            Core {
                schema: &schema_fan(20),
                ..core
            }
            .quiet(),
            "parts once its `$ref`s are followed",
        ),
        ("large.wasm", vec![0; 65 << 20], "that a plugin may have"),
        ("text.wasm", b"#!/bin/sh\nreboot\n".to_vec(), "WebAssembly"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_plugin_goes_on_while_others_attack() {
    let fake = FakeDocker::start();
    let mut daemon = Daemon::prepare(&["docker-restart", "hostile"], &policies());
    for (name, core, _) in &*ODD {
        daemon.install_bytes(&format!("{name}.wasm"), &component(core));
    }
    daemon.set("SENTINEL_DOCKER_HOSTS", &fake.hosts());
    daemon.write_config(&format!(
        "limits: {{ plugin: {{ cpu: 300ms, calls: 200, memory: {MEMORY_MIB}MiB, stack: 256KiB, runs_per_plugin: {RUNS} }},
  plugins: {{ hoard: {{ calls: 10000, resources: 300 }} }},
  guards: {{ target_rate: 10000/1h, total_rate: 10000/1h }} }}"
    ));
    daemon.serve().await;
    let daemon = Arc::new(daemon);

    let before = steady::work(&daemon, &fake, "before", 50).await;
    let quiet_mib = peak_mib(daemon.pid());

    // Every attack again and again, more of each at once than there are places.
    let enough = Arc::new(AtomicBool::new(false));
    let attackers = tokio::spawn({
        let (daemon, enough) = (daemon.clone(), enough.clone());
        async move {
            let mut round = 0_u32;
            while !enough.load(Ordering::Relaxed) {
                let alerts: Vec<_> = attacks()
                    .map(|(attack, _)| Alert::firing(attack, &[("n", &round.to_string())]))
                    .collect();
                daemon.deliver(&alerts).await;
                round += 1;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    });
    let files = tokio::spawn({
        let daemon = daemon.clone();
        async move {
            for (name, bytes, _) in bad_files() {
                daemon.install_bytes(name, &bytes);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    });
    let during = steady::work(&daemon, &fake, "during", 100).await;
    enough.store(true, Ordering::Relaxed);
    attackers.await.unwrap();
    files.await.unwrap();
    let peak = peak_mib(daemon.pid());
    println!(
        "delivery to restart: p50 {:?} and p99 {:?} before, {:?} and {:?} while attacked; memory {quiet_mib} MiB, {peak} MiB at its peak",
        before[before.len() / 2],
        p99(&before),
        during[during.len() / 2],
        p99(&during),
    );
    assert!(p90(&during) < GOOD_P90, "{during:?}");
    assert!(p99(&during) < GOOD_P99, "{during:?}");
    let bound = quiet_mib + RUNS * MEMORY_MIB + MORE_MIB;
    assert!(peak < bound, "{peak} MiB of {bound}");

    every_attack_failed(&daemon).await;
    every_file_is_refused(&daemon).await;
    assert!(
        fake.effects()
            .iter()
            .all(|effect| effect.container.starts_with("good-")),
        "an attacker reached Docker"
    );
    let (status, body) = daemon.get("/healthz").await.unwrap();
    assert_eq!(status, 200, "{body}");
    let unclean = |c: char| c.is_control() && c != '\n';
    assert!(!daemon.log().contains(unclean), "an escape is in the log");
}

/// Each attack's first run came to what it has to come to.
async fn every_attack_failed(daemon: &Daemon) {
    let results = eventually("every attack is over", Duration::from_secs(60), || async {
        let mut results = BTreeMap::new();
        let mut before = String::new();
        loop {
            let list = daemon
                .json(&format!("/api/v1/incidents?limit=500{before}"))
                .await;
            let page = list["incidents"].as_array().unwrap();
            let Some(oldest) = page.last() else { break };
            before = format!("&before={}", oldest["id"]);
            for incident in page {
                let policy = incident["policy"].as_str().unwrap().to_owned();
                results.insert(policy, incident["id"].as_u64().unwrap());
            }
        }
        let mut said = BTreeMap::new();
        for (attack, _) in attacks() {
            let incident = daemon.incident(*results.get(attack)?).await;
            let events = incident["events"].as_array().unwrap();
            let end = events.iter().find(|event| event["kind"] == "run-ended")?;
            said.insert(attack, (end["result"].clone(), incident));
        }
        Some(said)
    })
    .await;
    let mut wrong = String::new();
    for (attack, expected) in attacks() {
        let (result, incident) = &results[attack];
        let message = result["message"].as_str().unwrap_or_default();
        if !message.contains(expected) {
            writeln!(wrong, "{attack}: {result}").unwrap();
        }
        let logged: usize = incident["events"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|event| event["kind"] == "logged")
            .map(|event| event["message"].as_str().unwrap().len())
            .sum();
        // 200 calls, each with its place, its request and what it was told.
        let size = incident.to_string().len();
        assert!(size < 200 * 8192, "{attack} left {size} bytes on record");
        // And the mark of a cut.
        assert!(logged <= (64 << 10) + 3, "{attack} logged {logged} bytes");
        let text = incident.to_string();
        assert!(
            !text.contains("\\u001b") && !text.contains('\u{1b}') && !text.contains('\u{9b}'),
            "{attack}: an escape is on record"
        );
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Each file is told of with the reason, and none of them serves.
async fn every_file_is_refused(daemon: &Daemon) {
    for (name, _, why) in bad_files() {
        eventually(name, Duration::from_secs(20), || async {
            let status = daemon.json("/api/v1/status").await;
            let problems = status["problems"].as_array().unwrap().clone();
            let problem = problems.iter().find(|problem| {
                let file = problem["file"].as_str().unwrap();
                file.ends_with(name)
            })?;
            let message = problem["message"].as_str().unwrap();
            assert!(message.contains(why), "{name}: {message}");
            Some(())
        })
        .await;
    }
    let status = daemon.json("/api/v1/status").await;
    let names = |plugin: &Value| plugin["name"].as_str().unwrap().to_owned();
    let serving: Vec<_> = status["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(names)
        .collect();
    assert_eq!(
        serving,
        [
            "docker-restart",
            "hoard",
            "hostile",
            "no-memory",
            "no-text",
            "table-bomb",
            "unrolled"
        ]
    );
}

/// Counts connections, and answers nothing.
async fn forbidden_server() -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let touched = Arc::new(AtomicBool::new(false));
    let seen = touched.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            seen.store(true, Ordering::Relaxed);
        }
    });
    (port, touched)
}

/// Whatever way a name is written, what is not granted is not reached.
#[tokio::test(flavor = "multi_thread")]
async fn grants_hold_against_names_that_are_tricks() {
    let fake = FakeDocker::start();
    for name in ["web-1", "db-1"] {
        fake.add(Container::running(name));
    }
    let (port, touched) = forbidden_server().await;
    let tricks: Vec<String> = [
        // Globs, paths, ids of others, and what a URL would make of a name.
        "restart db-1",
        "restart *",
        "restart web-*",
        "restart ../db-1",
        "restart web-1/../db-1",
        "restart web-1/../../containers/db-1/kill?signal=KILL",
        "restart web-1?signal=KILL",
        "restart %2e%2e/db-1",
        "restart ",
        "restart WEB-1",
        "restart /web-1 ",
        "inspect db-1",
        "logs db-1",
        // Paths and arguments of a program.
        "playbook ../secret.yml",
        "playbook /etc/passwd",
        "playbook sub/../../secret.yml",
        "playbook -e@/etc/passwd",
        "playbook --extra-vars=@/etc/passwd",
        "playbook -i,localhost",
        "playbook link.yml",
        "playbook allowed.yml\n-e@/etc/passwd",
        // Names of this machine that are not written as such.
        "get http://127.0.0.1:PORT/",
        "get http://allowed.example@127.0.0.1:PORT/",
        "get http://allowed.example:80@127.0.0.1:PORT/",
        "get http://127.0.0.1:PORT\\@allowed.example/",
        "get http://127.0.0.1:PORT#@allowed.example/",
        "get http://2130706433:PORT/",
        "get http://0x7f000001:PORT/",
        "get http://0177.0.0.1:PORT/",
        "get http://127.1:PORT/",
        "get http://[::ffff:127.0.0.1]:PORT/",
        "get http://[::1]:PORT/",
        "get http://0:PORT/",
        "get http://localhost:PORT/",
        "get http://localhost.:PORT/",
        "get http://allowed.example.:PORT/",
        "get http://allowed.example%2f@127.0.0.1:PORT/",
        "get http://allowed.example\u{3002}evil:PORT/",
        "get file:///etc/passwd",
        "get unix:///var/run/docker.sock",
        "get secret://key",
        "post http://allowed.example/",
    ]
    .iter()
    .map(|trick| trick.replace("PORT", &port.to_string()))
    .collect();
    let script = serde_json::to_string(&tricks).unwrap();
    let policies = format!(
        r"
policies:
  - name: tricks
    mode: auto
    match: ['alertname=Tricks']
    target: 'docker://local/web-1'
    steps: [{{ plugin: scripted, params: {{ script: {script} }}, timeout: 60s }}]
    verify: {{ alert: resolved, within: 1s, steady: 0s }}
    grants:
      docker: {{ containers: ['web-1'], actions: [list, inspect, logs, start, stop, restart, kill, recreate, duplicate, remove] }}
      ansible: {{ playbooks: ['allowed.yml'] }}
      http: {{ urls: ['http://allowed.example/*'], methods: [GET] }}
"
    );
    let mut daemon = Daemon::prepare(&["scripted"], &policies);
    daemon.set("SENTINEL_DOCKER_HOSTS", &fake.hosts());
    std::fs::write(daemon.path("secret.yml"), "- hosts: all\n").unwrap();
    std::os::unix::fs::symlink(daemon.path("secret.yml"), daemon.path("playbooks/link.yml"))
        .unwrap();
    daemon.serve().await;
    daemon.deliver(&[Alert::firing("Tricks", &[])]).await;
    daemon.wait_end(1).await;
    let incident = daemon.incident(1).await;
    let events = incident["events"].as_array().unwrap();
    let logged: Vec<&str> = events
        .iter()
        .filter(|event| event["kind"] == "logged")
        .map(|event| event["message"].as_str().unwrap())
        .collect();
    assert_eq!(logged.len(), tricks.len(), "{logged:#?}");
    let reached: Vec<_> = logged
        .iter()
        .filter(|line| !line.contains(": refused: "))
        .collect();
    assert!(reached.is_empty(), "{reached:#?}");
    assert_eq!(fake.effects(), [], "Docker was asked");
    assert!(!touched.load(Ordering::Relaxed), "the server was reached");
    let begun: Vec<_> = events
        .iter()
        .filter(|event| event["kind"] == "effect-began")
        .collect();
    assert!(begun.is_empty(), "{begun:#?}");
}
