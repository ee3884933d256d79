//! The journal against real files: what is answered is kept, and what is kept is found.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test, which may assume as tests may"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sentinel_core::alert::{Alert, AlertStatus, Fingerprint, Labels};
use sentinel_core::control::{ControlBody, ControlEvent};
use sentinel_core::event::{Event, EventBody};
use sentinel_core::grant::Grants;
use sentinel_core::guard::settings::Guards;
use sentinel_core::id::{Digest, IncidentId};
use sentinel_core::incident::{Approval, Incident, Plan, PlannedVerify, VerifyCheck};
use sentinel_core::lease::Span;
use sentinel_core::policy::Mode;
use sentinel_core::record::History as _;
use sentinel_journal::{
    Append, DeadLetter, IncidentFilter, IncidentRow, Journal, OpenError, PluginRecord, Reader,
    Recovered, StoredServing, WriteError,
};

fn open(folder: &Path) -> (Journal, Recovered) {
    Journal::open(folder, |_, _| {}).unwrap()
}

fn alert(name: &str) -> Alert {
    let labels = Labels::from([("alertname".to_owned(), name.to_owned())]);
    Alert {
        source: "alertmanager".to_owned(),
        fingerprint: Fingerprint::of(&labels),
        status: AlertStatus::Firing,
        labels,
        annotations: Labels::new(),
        // Outside of what fits into 64 bits of nanoseconds.
        starts_at: "0001-01-01T00:00:00.000000001Z".parse().unwrap(),
        ends_at: None,
        generator_url: None,
    }
}

fn opened(id: u64) -> Event {
    Event {
        at: Timestamp::now(),
        incident: IncidentId(id),
        body: EventBody::Opened {
            plan: Arc::new(Plan {
                policy: "web-down".parse().unwrap(),
                digest: Digest::of(b"policy"),
                steps: Vec::new(),
                verify: PlannedVerify {
                    check: VerifyCheck::AlertResolved,
                    steady: None,
                    within: Duration::from_secs(1),
                    every: Duration::from_secs(1),
                },
                guards: Guards {
                    cooldown: Duration::from_secs(1),
                    ..Guards::default()
                },
                mode: Mode::Auto,
                approval: Approval::default(),
                ttl: Duration::from_hours(24),
                evidence: 0,
                escalate: None,
                grants: Grants::default(),
            }),
            target: "docker://local/web".parse().unwrap(),
            thing: None,
            alert: Arc::new(alert("WebDown")),
            accepted_at: Timestamp::now(),
        },
    }
}

fn row(events: &[Event]) -> IncidentRow {
    IncidentRow::from(&Incident::fold(events).unwrap())
}

#[tokio::test]
async fn accepted_alerts_wait_in_the_inbox_until_they_are_dealt_with() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, recovered) = open(folder.path());
    assert!(recovered.inbox.is_empty());
    let accepted = journal
        .accept(vec![alert("A"), alert("B"), alert("A")], Timestamp::now())
        .await
        .unwrap();
    let repeats: Vec<bool> = accepted.iter().map(|accepted| accepted.repeat).collect();
    assert_eq!(repeats, [false, false, true]);
    let done = Append {
        done: vec![accepted[0].seq],
        ..Append::default()
    };
    journal.append(Arc::new(done)).await.unwrap();
    journal.close();
    drop(journal);

    let (_journal, recovered) = open(folder.path());
    let waiting: Vec<&str> = recovered
        .inbox
        .iter()
        .map(|accepted| accepted.alert.name())
        .collect();
    assert_eq!(waiting, ["B", "A"]);
    assert_eq!(*recovered.inbox[0].alert, alert("B"));
}

#[tokio::test]
async fn open_incidents_come_back_with_their_events_and_ended_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    let ended = [
        opened(1),
        Event {
            body: EventBody::Refused {
                reason: "no".to_owned(),
            },
            ..opened(1)
        },
    ];
    let going_on = [opened(2)];
    let append = Append {
        events: ended.iter().chain(&going_on).cloned().collect(),
        incidents: vec![row(&ended), row(&going_on)],
        episodes: vec![(alert("WebDown").episode(), IncidentId(2))],
        ..Append::default()
    };
    journal.append(Arc::new(append)).await.unwrap();
    drop(journal);

    let (_journal, recovered) = open(folder.path());
    assert_eq!(recovered.open, [going_on.to_vec()]);
    assert_eq!(recovered.last_incident, 2);
    let reader = Reader::open(folder.path()).unwrap();
    assert_eq!(reader.events(IncidentId(1)).unwrap(), ended);
    let policy = "web-down".parse().unwrap();
    let target = "docker://local/web".parse().unwrap();
    let episode = alert("WebDown").episode();
    let known = reader.incident_of(&episode, &policy, &target).unwrap();
    assert_eq!(known.map(|row| row.id), Some(IncidentId(2)));
    assert_eq!(reader.resolved_at(&episode).unwrap(), None);
    let list = |open| {
        let filter = IncidentFilter {
            open,
            limit: 10,
            ..IncidentFilter::default()
        };
        let rows = reader.incidents(&filter).unwrap();
        rows.into_iter().map(|row| row.id.0).collect::<Vec<_>>()
    };
    assert_eq!(list(false), [2, 1]);
    assert_eq!(list(true), [2]);
}

#[tokio::test]
async fn concurrent_deliveries_share_commits_and_each_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (commits, seen) = std::sync::mpsc::channel();
    let (journal, _) = Journal::open(folder.path(), move |_, operations| {
        commits.send(operations).unwrap();
    })
    .unwrap();
    let journal = Arc::new(journal);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..500 {
        let journal = journal.clone();
        tasks.spawn(async move {
            journal
                .accept(vec![alert(&format!("A{n}"))], Timestamp::now())
                .await
        });
    }
    let mut seqs: Vec<u64> = tasks
        .join_all()
        .await
        .into_iter()
        .map(|accepted| accepted.unwrap()[0].seq)
        .collect();
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs.len(), 500);
    journal.close();
    let operations: Vec<usize> = seen.try_iter().collect();
    assert_eq!(operations.iter().sum::<usize>(), 500);
    assert!(
        operations.len() < 500,
        "{} commits for 500 deliveries",
        operations.len()
    );
}

#[tokio::test]
async fn a_critical_alert_overtakes_a_burst_of_others() {
    let folder = tempfile::tempdir().unwrap();
    // After each commit the writer waits, for as long as the sender is there.
    let (burst_is_there, wait) = std::sync::mpsc::channel::<()>();
    let (committed, commits) = std::sync::mpsc::channel();
    let (journal, _) = Journal::open(folder.path(), move |_, operations| {
        committed.send(operations).unwrap();
        wait.recv().unwrap_err();
    })
    .unwrap();
    let mut critical = alert("Critical");
    critical
        .labels
        .insert("severity".to_owned(), "critical".to_owned());
    let deliver = |alerts| journal.accept(alerts, Timestamp::now());
    let first = deliver(vec![alert("First")]);
    let busy = async {
        while commits.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
    };
    let rest = async {
        busy.await;
        let burst = (0..20).map(|n| {
            let alerts = (0..100).map(|m| alert(&format!("A{n}-{m}"))).collect();
            deliver(alerts)
        });
        let burst = futures_util::future::join_all(burst);
        let release = async { drop(burst_is_there) };
        tokio::join!(burst, deliver(vec![critical]), release)
    };
    let (first, (burst, critical, ())) = tokio::join!(first, rest);
    let (first, critical) = (first.unwrap()[0].seq, critical.unwrap()[0].seq);
    assert_eq!(critical, first + 1, "nothing stood before it");
    for accepted in burst {
        let accepted = accepted.unwrap();
        assert_eq!(accepted.len(), 100);
        assert!(accepted.iter().all(|accepted| accepted.seq > critical));
    }
    // It closed the group that it came into: the burst took more than one other commit.
    journal.close();
    let rest: Vec<usize> = commits.try_iter().collect();
    assert!(rest.len() > 1, "{rest:?}");
    assert_eq!(rest.iter().sum::<usize>(), 21);
}

#[tokio::test]
async fn what_is_dealt_with_leaves_the_inbox_and_what_stands_between_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    let alerts = (0..6).map(|n| alert(&format!("A{n}"))).collect();
    let accepted = journal.accept(alerts, Timestamp::now()).await.unwrap();
    let done = [0, 1, 3, 5]
        .map(|index: usize| accepted[index].seq)
        .to_vec();
    let append = Append {
        done,
        ..Append::default()
    };
    journal.append(Arc::new(append)).await.unwrap();
    drop(journal);
    let (_journal, recovered) = open(folder.path());
    let left: Vec<u64> = recovered.inbox.iter().map(|left| left.seq).collect();
    assert_eq!(left, [accepted[2].seq, accepted[4].seq]);
}

#[tokio::test]
async fn one_daemon_for_each_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (_journal, _) = open(folder.path());
    match Journal::open(folder.path(), |_, _| {}) {
        Err(OpenError::InUse { holder, .. }) => {
            assert_eq!(holder, format!("process {}", std::process::id()));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_journal_of_a_later_version_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.close();
    drop(journal);
    let file = folder.path().join("journal.sqlite");
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let before = std::fs::read(&file).unwrap();
    for error in [
        Journal::open(folder.path(), |_, _| {}).err(),
        Reader::open(folder.path()).err(),
    ] {
        assert!(
            matches!(error, Some(OpenError::Newer { found: 99, .. })),
            "{error:?}"
        );
    }
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[tokio::test]
async fn a_closed_journal_takes_nothing_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    journal.close();
    let refused = journal.accept(vec![alert("A")], Timestamp::now()).await;
    assert!(matches!(refused, Err(WriteError::Closed)), "{refused:?}");
}

#[tokio::test]
async fn what_serves_and_what_was_not_understood_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    let at = Timestamp::now();
    let digest = Digest::of(b"wasm");
    journal
        .keep_plugin(PluginRecord {
            digest,
            name: "docker-restart".parse().unwrap(),
            version: "1.0.0".to_owned(),
            at,
            wasm: b"wasm".to_vec(),
        })
        .await
        .unwrap();
    let serving = StoredServing {
        plugins: [("a.wasm".to_owned(), digest)].into(),
        policies: [("a.yaml".to_owned(), "policies: []".to_owned())].into(),
    };
    let event = ControlEvent {
        at,
        body: ControlBody::PluginAccepted {
            digest,
            by: "ann".to_owned(),
        },
    };
    journal
        .keep_serving(at, serving.clone(), vec![event.clone()])
        .await
        .unwrap();
    journal
        .dead_letter(DeadLetter {
            at,
            source: "alertmanager".to_owned(),
            error: "expected `{`".to_owned(),
            body: vec![b'x'; 1 << 20],
        })
        .await
        .unwrap();
    let reader = Reader::open(folder.path()).unwrap();
    assert_eq!(reader.controls().unwrap(), [event]);
    assert_eq!(reader.serving().unwrap(), Some(serving));
    assert_eq!(
        reader.plugin(&digest).unwrap().as_deref(),
        Some(&b"wasm"[..])
    );
    assert_eq!(reader.plugin(&Digest::of(b"other")).unwrap(), None);
    drop(reader);
    let file = folder.path().join("journal.sqlite");
    let kept: i64 = rusqlite::Connection::open(file)
        .unwrap()
        .query_row("SELECT length(body) FROM dead_letters", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(kept, 64 << 10);
}

#[tokio::test]
async fn nobody_else_can_read_the_journal() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (journal, _) = open(&data);
    journal
        .accept(vec![alert("A")], Timestamp::now())
        .await
        .unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for file in ["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Journal::open(&file.join("data"), |_, _| {}).unwrap_err();
    assert!(matches!(error, OpenError::Folder { .. }), "{error:?}");
    assert!(matches!(
        Reader::open(folder.path()),
        Err(OpenError::Missing { .. })
    ));
    // Where it cannot be seen whether there is one, nobody says that there is none.
    assert!(matches!(
        Reader::open(&file.join("data")),
        Err(OpenError::Hidden { .. })
    ));
}

/// A journal that has been killed: what was committed is in its log.
async fn killed(folder: &Path) -> std::path::PathBuf {
    let live = tempfile::tempdir().unwrap();
    let (journal, _) = open(live.path());
    for name in ["A", "B", "C", "D"] {
        let accepted = journal.accept(vec![alert(name)], Timestamp::now()).await;
        accepted.unwrap();
    }
    for entry in std::fs::read_dir(live.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    folder.join("journal.sqlite-wal")
}

#[tokio::test]
async fn a_commit_that_a_loss_of_power_cut_off_is_dropped_and_the_rest_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let log = killed(folder.path()).await;
    let whole = std::fs::metadata(&log).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(&log).unwrap();
    file.set_len(whole - 1).unwrap();
    let (_journal, recovered) = open(folder.path());
    let names: Vec<&str> = recovered.inbox.iter().map(|a| a.alert.name()).collect();
    assert_eq!(names, ["A", "B", "C"]);
}

#[tokio::test]
async fn a_log_that_has_lost_what_was_committed_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let log = killed(folder.path()).await;
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(&log, &bytes).unwrap();
    for _ in 0..2 {
        let error = Journal::open(folder.path(), |_, _| {}).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("journal.sqlite-wal"), "{error}");
        assert_eq!(std::fs::read(&log).unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_damaged_page_is_found_at_the_start_or_soon_after() {
    for large in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.sqlite");
        let (journal, _) = open(folder.path());
        // Events of incidents that have ended: nothing that a start has to read.
        for id in 1..=if large { 120 } else { 1 } {
            let line = Event {
                body: EventBody::Refused {
                    reason: "x".repeat(3000),
                },
                ..opened(id)
            };
            let mut events = vec![opened(id)];
            events.resize(100, line);
            let append = Append {
                incidents: vec![row(&events)],
                events,
                ..Append::default()
            };
            journal.append(Arc::new(append)).await.unwrap();
        }
        drop(journal);
        let mut bytes = std::fs::read(&file).unwrap();
        let pages = bytes.len() / 4096;
        let page = if large { pages / 2 } else { pages - 1 };
        bytes[page * 4096..][..4096].fill(0xff);
        std::fs::write(&file, &bytes).unwrap();
        match Journal::open(folder.path(), |_, _| {}) {
            Err(error) => {
                assert!(
                    !large && matches!(error, OpenError::Damaged { .. }),
                    "{error}"
                );
                assert_eq!(std::fs::read(&file).unwrap(), bytes, "left as it is");
            }
            Ok((journal, _)) => {
                assert!(large, "a small file is looked through before it serves");
                for _ in 0..200 {
                    if journal.damage().is_some() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                assert!(journal.damage().is_some());
            }
        }
    }
}

#[test]
fn a_folder_that_others_can_write_is_refused_and_left_as_it_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for mode in [0o777, 0o1777, 0o770, 0o702, 0o720] {
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = Journal::open(&data, |_, _| {}).unwrap_err();
        assert!(
            matches!(error, OpenError::Exposed { .. }),
            "{mode:o}: {error:?}"
        );
        assert!(error.to_string().contains("chmod go-w"), "{error}");
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
    }
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    drop(open(&data));
}

#[test]
fn a_link_in_the_folder_leads_nowhere() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    for name in [
        "lock",
        "journal.sqlite",
        "journal.sqlite-wal",
        "journal.sqlite-shm",
    ] {
        for hard in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let precious = folder.path().join("precious");
            std::fs::write(&precious, "precious").unwrap();
            std::fs::set_permissions(&precious, std::fs::Permissions::from_mode(0o644)).unwrap();
            let data = folder.path().join("data");
            std::fs::create_dir(&data).unwrap();
            let link = data.join(name);
            if hard {
                std::fs::hard_link(&precious, &link).unwrap();
            } else {
                symlink("../precious", &link).unwrap();
            }
            let error = Journal::open(&data, |_, _| {}).unwrap_err();
            assert!(
                matches!(error, OpenError::Exposed { .. }),
                "{name}: {error:?}"
            );
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
            let mode = std::fs::metadata(&precious).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o644);
        }
    }
}

#[test]
fn a_lock_file_that_is_removed_lets_nobody_in() {
    let folder = tempfile::tempdir().unwrap();
    let (first, _) = open(folder.path());
    for _ in 0..2 {
        std::fs::remove_file(folder.path().join("lock")).unwrap();
        let error = Journal::open(folder.path(), |_, _| {}).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    }
    drop(first);
    drop(open(folder.path()));
}

/// A moment, in seconds since some other.
fn second(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A post of an alert as to an Alertmanager, at a second, without any time in it.
async fn post(journal: &Journal, name: &str, at: i64) -> Vec<(AlertStatus, i64, bool)> {
    post_until(journal, name, at, None).await
}

async fn post_until(
    journal: &Journal,
    name: &str,
    at: i64,
    ends: Option<i64>,
) -> Vec<(AlertStatus, i64, bool)> {
    let now = second(at);
    let span = Span::posted(None, ends.map(second), now, Duration::from_mins(5)).unwrap();
    let resolved = span.resolved(now);
    let alert = Alert {
        source: "prometheus".to_owned(),
        starts_at: span.starts_at,
        ends_at: resolved.then_some(span.ends_at),
        status: if resolved {
            AlertStatus::Resolved
        } else {
            AlertStatus::Firing
        },
        ..alert(name)
    };
    let accepted = journal
        .accept_leased(vec![alert], vec![Some(span)], now)
        .await
        .unwrap();
    told(&accepted)
}

/// The status, the start in seconds, and whether it repeats.
fn told(accepted: &[sentinel_journal::Accepted]) -> Vec<(AlertStatus, i64, bool)> {
    accepted
        .iter()
        .map(|accepted| {
            let start = accepted.alert.starts_at.as_second() - 1_800_000_000;
            (accepted.alert.status, start, accepted.repeat)
        })
        .collect()
}

#[tokio::test]
async fn what_is_posted_again_and_again_is_one_alert_until_its_lease_is_over() {
    use AlertStatus::{Firing, Resolved};
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    let reader = Reader::open(folder.path()).unwrap();
    assert_eq!(reader.next_lapse().unwrap(), None);
    assert_eq!(post(&journal, "A", 0).await, [(Firing, 0, false)]);
    assert_eq!(post(&journal, "A", 2).await, [(Firing, 0, true)]);
    assert_eq!(reader.next_lapse().unwrap(), Some(second(302)));
    assert_eq!(told(&journal.lapse(second(301)).await.unwrap()), []);
    // It resolves by itself, once.
    let lapsed = journal.lapse(second(302)).await.unwrap();
    assert_eq!(told(&lapsed), [(Resolved, 0, false)]);
    assert_eq!(lapsed[0].alert.ends_at, Some(second(302)));
    assert_eq!(told(&journal.lapse(second(400)).await.unwrap()), []);
    assert_eq!(reader.next_lapse().unwrap(), None);
    // What comes after that is another episode.
    assert_eq!(post(&journal, "A", 410).await, [(Firing, 410, false)]);
    // Told of again before anybody saw that it had run out.
    assert_eq!(
        post(&journal, "A", 800).await,
        [(Resolved, 410, false), (Firing, 800, false)]
    );
    // Somebody says that it has resolved, and says it again.
    assert_eq!(
        post_until(&journal, "A", 810, Some(809)).await,
        [(Resolved, 800, false)]
    );
    assert_eq!(
        post_until(&journal, "A", 840, Some(809)).await,
        [(Resolved, 800, true)]
    );
    assert_eq!(reader.next_lapse().unwrap(), None);
    let ended = reader.resolved_at(&lapsed[0].alert.episode()).unwrap();
    assert_eq!(ended, Some(second(302)));
}

#[tokio::test]
async fn leases_survive_a_restart_and_wait_for_who_could_not_renew_them() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    post(&journal, "Old", 0).await;
    post(&journal, "New", 1000).await;
    drop(journal);

    let (journal, recovered) = open(folder.path());
    assert_eq!(recovered.inbox.len(), 2);
    journal.found_leases(second(1010)).await.unwrap();
    let lapse = async |at| {
        let lapsed = journal.lapse(second(at)).await.unwrap();
        let names: Vec<_> = lapsed.iter().map(|it| it.alert.name().to_owned()).collect();
        names
    };
    // Two minutes for what had run out while nobody listened, and no more than it had for
    // what had not.
    assert_eq!(lapse(1129).await, [""; 0]);
    assert_eq!(lapse(1130).await, ["Old"]);
    assert_eq!(lapse(1299).await, [""; 0]);
    assert_eq!(lapse(1300).await, ["New"]);
}

#[tokio::test]
async fn many_leases_run_out_some_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    let span = Span::posted(None, None, second(0), Duration::from_secs(1)).unwrap();
    let alerts: Vec<_> = (0..1200).map(|n| alert(&n.to_string())).collect();
    let spans = vec![Some(span); alerts.len()];
    journal
        .accept_leased(alerts, spans, second(0))
        .await
        .unwrap();
    let mut lapsed = Vec::new();
    loop {
        let some = journal.lapse(second(1)).await.unwrap();
        if some.is_empty() {
            break;
        }
        assert!(some.len() <= 500);
        lapsed.extend(some.into_iter().map(|it| it.alert.fingerprint.clone()));
    }
    lapsed.sort();
    lapsed.dedup();
    assert_eq!(lapsed.len(), 1200);
}

/// Forgets what was last told of before a second; how many that were.
async fn forget(journal: &Journal, before: i64) -> usize {
    let (mut from, mut forgotten) = (0, 0);
    loop {
        let (next, some) = journal.forget(second(before), from).await.unwrap();
        forgotten += some;
        match next {
            Some(next) => from = next,
            None => return forgotten,
        }
    }
}

#[tokio::test]
async fn what_led_to_no_incident_is_forgotten_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    let reader = Reader::open(folder.path()).unwrap();
    let names = ["Nothing", "Incident", "Waiting", "Young"];
    let of = |name: &str| Alert {
        starts_at: second(0),
        ..alert(name)
    };
    for (name, at) in names.iter().zip([0, 0, 0, 900]) {
        let accepted = journal.accept(vec![of(name)], second(at)).await.unwrap();
        let append = Append {
            done: (*name != "Waiting")
                .then_some(accepted[0].seq)
                .into_iter()
                .collect(),
            episodes: (*name == "Incident")
                .then(|| (of(name).episode(), IncidentId(1)))
                .into_iter()
                .collect(),
            ..Append::default()
        };
        journal.append(Arc::new(append)).await.unwrap();
    }
    // One that holds by lease, though nobody has told of it for long.
    let span = Span::posted(None, Some(second(5000)), second(0), Duration::from_mins(5)).unwrap();
    let held = of("Held");
    let accepted = journal
        .accept_leased(vec![held.clone()], vec![Some(span)], second(0))
        .await
        .unwrap();
    let done = Append {
        done: vec![accepted[0].seq],
        ..Append::default()
    };
    journal.append(Arc::new(done)).await.unwrap();

    assert_eq!(forget(&journal, 500).await, 1);
    let known = |alert: &Alert| reader.alert(&alert.episode()).unwrap().is_some();
    assert!(!known(&of("Nothing")));
    for name in ["Incident", "Waiting", "Young"] {
        assert!(known(&of(name)), "{name}");
    }
    assert!(known(&accepted[0].alert));
    // More than one operation looks at.
    let many: Vec<_> = (0..2500).map(|n| of(&n.to_string())).collect();
    let accepted = journal.accept(many, second(10)).await.unwrap();
    let done = Append {
        done: accepted.iter().map(|it| it.seq).collect(),
        ..Append::default()
    };
    journal.append(Arc::new(done)).await.unwrap();
    assert_eq!(forget(&journal, 500).await, 2500);
}

#[tokio::test]
async fn of_what_is_wrong_with_a_delivery_little_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path());
    let letter = DeadLetter {
        at: second(0),
        source: "prometheus".to_owned(),
        error: "x".repeat(1 << 20),
        body: vec![b'x'; 1 << 20],
    };
    journal.dead_letter(letter).await.unwrap();
    drop(journal);
    let file = rusqlite::Connection::open(folder.path().join("journal.sqlite")).unwrap();
    let (error, body): (i64, i64) = file
        .query_row(
            "SELECT length(error), length(body) FROM dead_letters",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert!(error <= 4096 && body == 64 << 10, "{error} {body}");
}
