//! Twice the body is at most twice the memory, at both endpoints, whatever is in it.

use std::fmt::Write as _;
use std::fs;

use sentinel_tests::daemon::Daemon;

const MIB: u64 = 1 << 20;

/// What the allocator keeps, and what does not hang on the body: the pages of the journal and what lies between two
/// folds of its log.
const SLACK: u64 = 24 * MIB;

/// The most memory that a process had since it was last asked to begin anew.
fn peak(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() << 10
}

/// A body of so many alerts.
fn body(path: &str, count: usize, alert: impl Fn(usize) -> String) -> Vec<u8> {
    let mut body = if path.contains("v2") {
        "["
    } else {
        r#"{"version":"4","alerts":["#
    }
    .to_owned();
    for n in 0..count {
        if n > 0 {
            body.push(',');
        }
        body.push_str(&alert(n));
    }
    body.push_str(if path.contains("v2") { "]" } else { "]}" });
    body.into_bytes()
}

fn good(n: usize) -> String {
    let mut labels = format!(r#""alertname":"Doubled","n":"{n}""#);
    for label in 0..10 {
        write!(labels, r#","label_{label}":"value {label} of some length""#).unwrap();
    }
    format!(
        r#"{{"status":"firing","labels":{{{labels}}},"annotations":{{"summary":"something is wrong with {n}","runbook_url":"https://runbooks.example/doubled"}},"startsAt":"2026-01-01T00:00:00Z"}}"#
    )
}

/// Each is refused with a reason.
fn bad(n: usize) -> String {
    good(n)
        .replace(r#""n":""#, r#""n":["#)
        .replacen(r#"","label_0"#, r#"],"label_0"#, 1)
}

/// Much that is skipped.
fn deep(n: usize) -> String {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    good(n).replacen(
        r#""status""#,
        &format!(r#""x":{deep},"y":{deep},"status""#),
        1,
    )
}

/// How much more than before a fresh daemon had for this body.
async fn taken(path: &str, body: Vec<u8>, status: u16) -> u64 {
    let daemon = Daemon::start(&[], "").await;
    // The first delivery pays for what is made once.
    drop(
        daemon
            .post(
                path,
                if path.contains("v2") {
                    "[]"
                } else {
                    r#"{"alerts":[]}"#
                },
            )
            .await,
    );
    let before = peak(&daemon);
    let (answered, said) = daemon.post(path, body).await;
    assert_eq!(answered.as_u16(), status, "{said}");
    peak(&daemon) - before
}

/// How it is called, how an alert of it is written, how many there are, and what is answered.
type Shape = (&'static str, fn(usize) -> String, usize, u16);

#[tokio::test(flavor = "multi_thread")]
async fn twice_the_alerts_are_at_most_twice_the_memory() {
    // Twice as many are some 17 MiB; a body may have 32.
    const COUNT: usize = 16_000;
    let shapes: [Shape; 3] = [
        ("good", good, COUNT, 202),
        ("refused", bad, COUNT, 400),
        ("deep", deep, COUNT / 2, 202),
    ];
    let mut wrong = String::new();
    for path in ["/api/v1/alerts/alertmanager", "/api/v2/alerts"] {
        for (shape, alert, count, status) in shapes {
            let (half, whole) = (body(path, count, alert), body(path, 2 * count, alert));
            let size = half.len() as u64;
            let (once, twice) = (
                taken(path, half, status).await,
                taken(path, whole, status).await,
            );
            let line = format!(
                "{path}, {shape}: {} MiB take {} MiB, twice as much takes {} MiB",
                size / MIB,
                once / MIB,
                twice / MIB
            );
            println!("{line}");
            if twice > 2 * once + SLACK || once > 3 * size + 2 * SLACK {
                writeln!(wrong, "{line}").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
