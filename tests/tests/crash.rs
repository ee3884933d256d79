//! The daemon is killed at random moments under load, again and again; afterwards the accounts of the senders,
//! of the journal and of the Docker Engine must agree: everything accepted came to an end, nothing was done twice.
//!
//! Real are the daemon, its journal, the plugin and the policies. The Docker Engine is a fake that counts.
//!
//! `SENTINEL_CRASH_ROUNDS` says how often the daemon is killed (60; `make crash` does 500), `SENTINEL_CRASH_SEED`
//! repeats what one run sent and when it killed. What the machine makes of it differs each time.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use sentinel_tests::daemon::{Daemon, count};
use sentinel_tests::fake_docker::{Call, Container, Effect, FakeDocker, Fault, Manner, Progress};
use sentinel_tests::ledger::{Accepted, Episode, Ledger, Violation, identifying};
use sentinel_tests::payload::{Alert, webhook};
use serde_json::Value;
use tokio::sync::watch;

/// How many senders there are, each with one notification on its way.
const SENDERS: u64 = 3;

/// How long everything may take to come to an end after the last start.
const DRAIN: Duration = Duration::from_secs(120);

/// How many containers there are whose alerts fire again and again.
const SHARED: u64 = 6;

/// What kinds of trouble there are, each with the policies that deal with it. All have one step with one attempt.
const KINDS: [Kind; 8] = [
    Kind {
        alert: "Plain",
        policies: &["plain"],
        container: |random, name| restarts(Container::running(name), random.below(30)),
    },
    // Long enough that the next daemon is up before the effect of the last one has ended.
    Kind {
        alert: "Slow",
        policies: &["slow"],
        container: |random, name| restarts(Container::running(name), 100 + random.below(700)),
    },
    // Whoever looks at it again finds it as bad as before.
    Kind {
        alert: "Sick",
        policies: &["sick"],
        container: |random, name| {
            restarts(
                Container::running(name).health("unhealthy"),
                random.below(60),
            )
        },
    },
    Kind {
        alert: "Down",
        policies: &["down"],
        container: |random, name| {
            let takes = Duration::from_millis(random.below(200));
            Container::exited(name).manner(Call::Start, Manner::slow(takes))
        },
    },
    Kind {
        alert: "Careful",
        policies: &["careful"],
        container: |random, name| restarts(Container::running(name), random.below(100)),
    },
    Kind {
        alert: "Told",
        policies: &["told"],
        container: |random, name| restarts(Container::running(name), random.below(30)),
    },
    Kind {
        alert: "Faulty",
        policies: &["faulty"],
        container: |random, name| {
            let faults = [
                Fault::Hang,
                Fault::ServerError,
                Fault::DoneAndDropped,
                Fault::Dropped,
            ];
            let manner = Manner {
                takes: Duration::from_millis(random.below(100)),
                fault: Some(*random.pick(&faults)),
            };
            Container::running(name).manner(Call::Restart, manner)
        },
    },
    // Two policies want the same few containers.
    Kind {
        alert: "Shared",
        policies: &["shared-a", "shared-b"],
        container: |random, name| restarts(Container::running(name), 20 + random.below(150)),
    },
];

struct Kind {
    alert: &'static str,
    policies: &'static [&'static str],
    container: fn(&mut Random, &str) -> Container,
}

fn restarts(container: Container, milliseconds: u64) -> Container {
    let takes = Duration::from_millis(milliseconds);
    container.manner(Call::Restart, Manner::slow(takes))
}

fn policies() -> String {
    let each = KINDS.iter().flat_map(|kind| {
        let policy = |policy: &&str| policy_of(policy, kind.alert);
        kind.policies.iter().map(policy)
    });
    format!("policies:\n{}", each.collect::<String>())
}

fn policy_of(policy: &str, alert: &str) -> String {
    let on_interrupt = if policy == "careful" {
        "escalate"
    } else {
        "rerun"
    };
    let verify = if policy == "told" {
        "alert: resolved, within: 2s, steady: 0s"
    } else {
        "docker: running, within: 5s, steady: 0s, every: 100ms"
    };
    format!(
        r#"
  - name: {policy}
    match: ['alertname="{alert}"']
    target: 'docker://local/{{{{ labels.container }}}}'
    mode: auto
    on_interrupt: {on_interrupt}
    steps:
      - plugin: docker-restart
        timeout: 3s
        attempts: 1
    verify: {{ {verify} }}
    guards: {{ cooldown: 1s, concurrency: 64, flapping: off }}
    grants:
      docker: {{ containers: ['crash-*'], actions: [inspect, restart, start] }}
"#
    )
}

/// Numbers that follow from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = self.below(from.len() as u64);
        &from[usize::try_from(index).unwrap()]
    }

    fn sleep(&mut self, from: u64, below: u64) -> tokio::time::Sleep {
        tokio::time::sleep(Duration::from_millis(from + self.below(below - from)))
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// What the senders share.
struct Load {
    fake: FakeDocker,
    door: String,
    client: reqwest::Client,
    next: AtomicU64,
    enough: AtomicBool,
    accepted: Mutex<Vec<Accepted>>,
    // Answers that were lost or were no 2xx.
    retries: AtomicU64,
}

impl Load {
    /// Sends until it is enough. What it has begun to send it sends until it is accepted, as Alertmanager does.
    async fn send(self: Arc<Self>, mut random: Random) {
        while !self.enough.load(Ordering::Relaxed) {
            let alerts: Vec<(Alert, &Kind)> = (0..=random.below(3))
                .map(|_| self.trouble(&mut random))
                .collect();
            let body: Vec<Alert> = alerts.iter().map(|(alert, _)| alert.clone()).collect();
            self.deliver(&mut random, &body).await;
            self.accepted
                .lock()
                .unwrap()
                .extend(alerts.iter().map(|(alert, kind)| Accepted {
                    alert: alert.clone(),
                    policies: kind.policies.to_vec(),
                    target: format!("docker://local/{}", container(alert)),
                    resolved: false,
                }));
            random.sleep(20, 120).await;
            match random.below(8) {
                // Another replica of Alertmanager.
                0 => self.deliver(&mut random, &body).await,
                1 => {
                    let resolved: Vec<Alert> = body.iter().map(Alert::resolved).collect();
                    // Before it is sent: it may be accepted without an answer.
                    self.resolving(&body);
                    self.deliver(&mut random, &resolved).await;
                }
                _ => {}
            }
        }
    }

    /// An alert and its container.
    fn trouble(&self, random: &mut Random) -> (Alert, &'static Kind) {
        let kind = random.pick(&KINDS);
        let shared = kind.alert == "Shared";
        let name = if shared {
            format!("crash-shared-{}", random.below(SHARED))
        } else {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            format!("crash-{}-{number}", kind.alert.to_lowercase())
        };
        if !shared {
            self.fake.add((kind.container)(random, &name));
        }
        (Alert::firing(kind.alert, &[("container", &name)]), kind)
    }

    /// Notes that the end of these alerts is on its way.
    fn resolving(&self, alerts: &[Alert]) {
        let is_one = |of: &Accepted| {
            let mut fingerprints = alerts.iter().map(|alert| &alert.fingerprint);
            fingerprints.any(|fingerprint| *fingerprint == of.alert.fingerprint)
        };
        let mut accepted = self.accepted.lock().unwrap();
        for of in accepted.iter_mut().filter(|of| is_one(of)) {
            of.resolved = true;
        }
    }

    async fn deliver(&self, random: &mut Random, alerts: &[Alert]) {
        let body = webhook(alerts).to_string();
        let begun = Instant::now();
        loop {
            let answer = self.client.post(&self.door).body(body.clone()).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            self.retries.fetch_add(1, Ordering::Relaxed);
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "nobody takes it: {body}"
            );
            random.sleep(10, 60).await;
        }
    }
}

fn container(alert: &Alert) -> &str {
    let label = alert.labels.iter().find(|(name, _)| name == "container");
    &label.expect("a container").1
}

/// Waits for a moment at which to kill the daemon that was just started.
async fn moment(
    random: &mut Random,
    daemon: &Daemon,
    progress: &mut watch::Receiver<Progress>,
) -> &'static str {
    let wait = Duration::from_secs(2);
    match random.below(4) {
        0 => {
            random.sleep(0, 250).await;
            "while it starts"
        }
        1 => {
            ready(daemon).await;
            random.sleep(0, 1000).await;
            "while it works"
        }
        2 => {
            ready(daemon).await;
            let asked = progress.borrow_and_update().asked + 1 + usize::from(random.below(2) == 0);
            let reached = progress.wait_for(|progress| progress.asked >= asked);
            let reached = tokio::time::timeout(wait, reached).await.is_ok();
            assert!(reached, "no effect is asked for in {wait:?}");
            random.sleep(0, 5).await;
            "after an effect was asked for"
        }
        _ => {
            ready(daemon).await;
            let done = progress.borrow_and_update().done + 1 + usize::from(random.below(2) == 0);
            let reached = progress.wait_for(|progress| progress.done >= done);
            let reached = tokio::time::timeout(wait, reached).await.is_ok();
            assert!(reached, "no effect is done in {wait:?}");
            random.sleep(0, 3).await;
            "after an effect was done"
        }
    }
}

async fn ready(daemon: &Daemon) {
    sentinel_tests::eventually("the daemon is ready", Duration::from_secs(30), || async {
        let answer = daemon.get("/readyz").await;
        answer
            .is_ok_and(|(status, _)| status.is_success())
            .then_some(())
    })
    .await;
}

/// Every firing alert in the journal.
fn journaled(daemon: &Daemon) -> BTreeSet<Episode> {
    let path = daemon.path("data/journal.sqlite");
    let journal = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut rows = journal
        .prepare("SELECT fingerprint, starts_at FROM alerts WHERE status = 'firing'")
        .unwrap();
    rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(|row| {
            let (fingerprint, starts_at): (String, String) = row.unwrap();
            (fingerprint, identifying(starts_at.parse().unwrap()))
        })
        .collect()
}

/// Every incident with its events.
async fn incidents(daemon: &Daemon) -> Vec<Value> {
    let mut found = Vec::new();
    let mut before = String::new();
    loop {
        let page = daemon
            .json(&format!("/api/v1/incidents?limit=1000{before}"))
            .await;
        let page = page["incidents"].as_array().unwrap();
        let Some(last) = page.last() else {
            return found;
        };
        before = format!("&before={}", last["id"]);
        for incident in page {
            found.push(daemon.incident(incident["id"].as_u64().unwrap()).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_it_loses_nothing_and_does_nothing_twice() {
    let rounds = number("SENTINEL_CRASH_ROUNDS").unwrap_or(60);
    let seed = number("SENTINEL_CRASH_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("SENTINEL_CRASH_SEED={seed} SENTINEL_CRASH_ROUNDS={rounds}");
    let mut random = Random(seed);

    let fake = FakeDocker::start();
    for number in 0..SHARED {
        let kind = KINDS.last().expect("the shared kind");
        fake.add((kind.container)(
            &mut random,
            &format!("crash-shared-{number}"),
        ));
    }
    let mut progress = fake.progress();
    let mut daemon = Daemon::prepare(&["docker-restart"], &policies());
    // More than an hour has in earnest.
    daemon.write_config(
        "limits: { guards: { target_rate: 1000/1h, total_rate: 10000/1h }, plugin: { runs_per_plugin: 64 } }\n",
    );
    daemon.set("SENTINEL_DOCKER_HOSTS", &fake.hosts());
    daemon.set("SENTINEL_LOG_LEVEL", "info");
    daemon.serve().await;
    let load = Arc::new(Load {
        fake,
        door: daemon.url("/api/v1/alerts/alertmanager"),
        client: reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .build()
            .unwrap(),
        next: AtomicU64::new(0),
        enough: AtomicBool::new(false),
        accepted: Mutex::default(),
        retries: AtomicU64::new(0),
    });
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| tokio::spawn(load.clone().send(Random(random.next()))))
        .collect();

    let begun = Instant::now();
    for round in 1..=rounds {
        let killed = moment(&mut random, &daemon, &mut progress).await;
        let ended = daemon.ended();
        assert!(ended.is_none(), "it ended by itself: {ended:?}");
        daemon.kill();
        if round % 10 == 0 {
            let accepted = load.accepted.lock().unwrap().len();
            println!(
                "killed {round} times, {killed}; {accepted} alerts accepted, {:?}",
                *progress.borrow()
            );
        }
        random.sleep(0, 30).await;
        daemon.spawn();
    }
    let under_fire = begun.elapsed();

    ready(&daemon).await;
    load.enough.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.unwrap();
    }
    let drain = Instant::now();
    let ledger = loop {
        let open = daemon.json("/api/v1/incidents?open=true&limit=1").await;
        let under_way = progress.borrow().under_way;
        let over = drain.elapsed() > DRAIN;
        if over || open["incidents"].as_array().unwrap().is_empty() && under_way == 0 {
            let incidents = incidents(&daemon).await;
            let ledger = Ledger {
                accepted: load.accepted.lock().unwrap().clone(),
                journaled: journaled(&daemon),
                incidents,
                effects: load.fake.effects(),
            };
            // An alert may still wait in the inbox.
            let lost = |violation: &Violation| matches!(violation, Violation::Lost { .. });
            if over || !ledger.violations().iter().any(lost) {
                break ledger;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };

    let interrupted: usize = ledger
        .incidents
        .iter()
        .map(|incident| count(incident, "run-interrupted"))
        .sum();
    let done = ledger
        .effects
        .iter()
        .filter(|e| e.done_at.is_some())
        .count();
    println!(
        "killed {rounds} times in {under_fire:.1?}, drained in {:.1?}: {} alerts accepted ({} deliveries tried again), \
         {} incidents, {interrupted} runs interrupted, {} effects asked for and {done} done",
        drain.elapsed(),
        ledger.accepted.len(),
        load.retries.load(Ordering::Relaxed),
        ledger.incidents.len(),
        ledger.effects.len(),
    );
    // Else it has tested nothing.
    assert!(done as u64 > rounds, "{done} effects");
    let violations = ledger.violations();
    assert!(
        violations.is_empty(),
        "{} violations with SENTINEL_CRASH_SEED={seed} SENTINEL_CRASH_ROUNDS={rounds}:\n{}",
        violations.len(),
        told(&ledger, &violations)
    );
}

/// The violations, and the whole story of the first ones.
fn told(ledger: &Ledger, violations: &[Violation]) -> String {
    let mut lines: Vec<String> = violations
        .iter()
        .map(|violation| format!("{violation:?}"))
        .collect();
    let concerned = violations.iter().filter_map(|violation| match violation {
        Violation::Double { incident, .. }
        | Violation::Unended { incident, .. }
        | Violation::NeverDone { incident } => Some(*incident),
        _ => None,
    });
    for id in concerned.take(3) {
        let incident = ledger.incidents.iter().find(|found| found["id"] == id);
        let Some(incident) = incident else { continue };
        lines.push(format!("--- incident {id} on {}", incident["target"]));
        let events = incident["events"].as_array().into_iter().flatten();
        lines.extend(events.map(|event| format!("{} {}", event["at"], event["text"])));
        let target = incident["target"].as_str().unwrap_or_default();
        let on_it = |effect: &&Effect| target.ends_with(&format!("/{}", effect.container));
        let effects = ledger.effects.iter().filter(on_it);
        lines.extend(effects.map(|effect| format!("{effect:?}")));
    }
    lines.join("\n")
}
