//! What can go wrong around the daemon: its disk, its files, its clock. Nothing is lost, nothing is done without
//! being on record, and who has to act is told what is wrong.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use sentinel_tests::daemon::{Daemon, count};
use sentinel_tests::eventually;
use sentinel_tests::fake_docker::{Call, Container, FakeDocker, Fault, Manner};
use sentinel_tests::machine::{Clock, Disk};
use sentinel_tests::payload::{Alert, webhook};

const DOOR: &str = "/api/v1/alerts/alertmanager";

/// An hour, by which clocks are wrong.
const HOUR: i64 = 3600;

/// Restarts the container that the alert names. `more` is what a test asks for beside that.
fn restart(verify: &str, cooldown: &str, more: &str) -> String {
    format!(
        r#"
policies:
  - name: restart
    match: ['alertname="Down"']
    target: 'docker://local/{{{{ labels.container }}}}'
    mode: auto
    on_interrupt: rerun
    steps:
      - plugin: docker-restart
        timeout: 10s
        {more}
    verify: {{ {verify} }}
    guards: {{ cooldown: {cooldown} }}
    grants:
      docker: {{ containers: ['*'], actions: [inspect, restart, start] }}
"#
    )
}

const RUNNING: &str = "docker: running, within: 20s, steady: 0s";

fn down(container: &str) -> Alert {
    Alert::firing("Down", &[("container", container)])
}

/// A daemon that is not started yet, and its Docker Engine with the containers `a` and `b`.
fn prepare(policies: &str) -> (Daemon, FakeDocker) {
    let fake = FakeDocker::start();
    for name in ["a", "b"] {
        fake.add(Container::running(name));
    }
    let mut daemon = Daemon::prepare(&["docker-restart"], policies);
    daemon.set("SENTINEL_DOCKER_HOSTS", &fake.hosts());
    (daemon, fake)
}

/// The data folder on a disk of its own.
fn on_small_disk(daemon: &mut Daemon) -> Disk {
    let folder = daemon.path("disk");
    fs::create_dir(&folder).unwrap();
    let disk = Disk::small(&folder, "4m");
    daemon.set("SENTINEL_DATA_DIR", folder.to_str().unwrap());
    disk
}

/// Runs `serve`, which must end by itself: its exit code, and what it said.
fn refused(daemon: &Daemon) -> (Option<i32>, String) {
    let mut child = daemon
        .command(&["serve"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

async fn wait_phase(daemon: &Daemon, id: u64, phase: &str) {
    daemon
        .wait_state(id, Duration::from_secs(10), |incident| {
            (incident["state"] == phase).then_some(())
        })
        .await;
}

/// Posts an alert that is too large for what may be left in a page.
async fn post(daemon: &Daemon, container: &str) -> StatusCode {
    let mut alert = down(container);
    let padding = |n| (format!("padding{n}"), "x".repeat(15_000));
    alert.labels.extend((0..4).map(padding));
    daemon.post(DOOR, webhook(&[alert]).to_string()).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_no_effect_is_begun() {
    let (mut daemon, fake) = prepare(&restart(RUNNING, "2s", ""));
    let disk = on_small_disk(&mut daemon);
    daemon.serve().await;
    daemon.deliver(&[down("a")]).await;
    assert_eq!(daemon.wait_end(1).await, "healed");
    // The next one is accepted, and held until its cooldown is over, which is when the disk is full.
    daemon.deliver(&[down("a")]).await;
    wait_phase(&daemon, 2, "held").await;
    disk.fill();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fake.effects().len(), 1, "nothing is done off the record");
    assert_eq!(post(&daemon, "b").await, StatusCode::SERVICE_UNAVAILABLE);
    disk.free();
    assert_eq!(daemon.wait_end(2).await, "healed");
    assert_eq!(fake.done("a", Call::Restart), 2);
    assert_eq!(fake.effects().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_that_ends_on_a_full_disk_is_on_record_once_there_is_room() {
    let (mut daemon, fake) = prepare(&restart(RUNNING, "1s", ""));
    let disk = on_small_disk(&mut daemon);
    fake.set("a", Call::Restart, Manner::slow(Duration::from_millis(800)));
    daemon.serve().await;
    daemon.deliver(&[down("a")]).await;
    fake.wait_asked(1).await;
    disk.fill();
    let mut progress = fake.progress();
    progress
        .wait_for(|progress| progress.done == 1)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let incident = daemon.incident(1).await;
    assert_eq!(count(&incident, "effect-ended"), 0, "{incident:#}");
    disk.free();
    assert_eq!(daemon.wait_end(1).await, "healed");
    let incident = daemon.incident(1).await;
    assert_eq!(count(&incident, "effect-began"), 1);
    assert_eq!(count(&incident, "effect-ended"), 1);
    assert_eq!(fake.effects().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_at_the_start_is_told_and_costs_nothing() {
    let (mut daemon, fake) = prepare(&restart(RUNNING, "3s", ""));
    let disk = on_small_disk(&mut daemon);
    // Nothing is there yet.
    disk.fill();
    let (code, said) = refused(&daemon);
    assert_eq!(code, Some(73), "{said}");
    assert!(said.contains("No space left"), "{said}");
    disk.free();
    daemon.serve().await;
    daemon.deliver(&[down("a")]).await;
    assert_eq!(daemon.wait_end(1).await, "healed");
    daemon.deliver(&[down("a")]).await;
    wait_phase(&daemon, 2, "held").await;
    daemon.kill();
    // An incident is open. The daemon starts, begins nothing, and is not ready once a write has failed.
    disk.fill();
    daemon.spawn();
    let answers = || async { daemon.get("/readyz").await.ok().map(drop) };
    eventually("it answers", Duration::from_secs(20), answers).await;
    assert_eq!(post(&daemon, "b").await, StatusCode::SERVICE_UNAVAILABLE);
    let (status, said) = daemon.get("/readyz").await.unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{said}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(daemon.log().contains("the journal cannot be written"));
    assert_eq!(fake.effects().len(), 1, "nothing is done off the record");
    disk.free();
    assert_eq!(daemon.wait_end(2).await, "healed");
    assert_eq!(fake.done("a", Call::Restart), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_disk_at_the_start_is_told() {
    let (mut daemon, _fake) = prepare(&restart(RUNNING, "1s", ""));
    let disk = on_small_disk(&mut daemon);
    daemon.serve().await;
    daemon.deliver(&[down("a")]).await;
    daemon.wait_end(1).await;
    daemon.terminate();
    assert!(daemon.wait().success());
    disk.read_only();
    let (code, said) = refused(&daemon);
    assert_eq!(code, Some(73), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    disk.writable();
    daemon.serve().await;
    assert_eq!(daemon.incidents().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_goes_read_only_stops_acceptance_and_effects_and_loses_nothing() {
    let (mut daemon, fake) = prepare(&restart(RUNNING, "2s", ""));
    let (image, folder) = (daemon.path("image"), daemon.path("disk"));
    fs::create_dir(&folder).unwrap();
    let disk = Disk::in_file(&image, &folder);
    let data = folder.join("data");
    daemon.set("SENTINEL_DATA_DIR", data.to_str().unwrap());
    daemon.serve().await;
    daemon.deliver(&[down("a")]).await;
    assert_eq!(daemon.wait_end(1).await, "healed");
    daemon.deliver(&[down("a")]).await;
    wait_phase(&daemon, 2, "held").await;
    disk.fail();
    assert_eq!(post(&daemon, "b").await, StatusCode::SERVICE_UNAVAILABLE);
    let (status, said) = daemon.get("/readyz").await.unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{said}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fake.effects().len(), 1, "nothing is done off the record");
    assert!(daemon.ended().is_none(), "it stays, and says so");
    daemon.kill();
    drop(disk);
    let _mended = Disk::in_file(&image, &folder);
    daemon.serve().await;
    assert_eq!(daemon.wait_end(2).await, "healed");
    assert_eq!(daemon.incidents().await.len(), 2);
    assert_eq!(fake.done("a", Call::Restart), 2);
    daemon.kill();
}

/// Forty alerts that come to an end at once: their containers are not there.
async fn forty(daemon: &Daemon) {
    let alerts: Vec<Alert> = (0..40).map(|n| down(&format!("none-{n}"))).collect();
    daemon.deliver(&alerts).await;
    for id in 1..=40 {
        daemon.wait_end(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_whose_last_page_is_damaged_is_refused_and_left_as_it_is() {
    let (mut daemon, _fake) = prepare(&restart(RUNNING, "1s", ""));
    daemon.serve().await;
    forty(&daemon).await;
    daemon.terminate();
    assert!(daemon.wait().success());
    let file = daemon.path("data").join("journal.sqlite");
    let whole = fs::read(&file).unwrap();
    let last = whole.len() - 4096;
    let mut damaged = whole.clone();
    damaged[last..].fill(0xff);
    for broken in [damaged, whole[..last].to_vec()] {
        fs::write(&file, &broken).unwrap();
        let (code, said) = refused(&daemon);
        assert_eq!(code, Some(65), "{said}");
        assert!(said.contains("journal.sqlite is damaged"), "{said}");
        assert!(said.contains("hint: keep a copy"), "{said}");
        assert_eq!(fs::read(&file).unwrap(), broken, "left as it is");
    }
    fs::write(&file, &whole).unwrap();
    daemon.serve().await;
    assert_eq!(daemon.incidents().await.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_log_is_told_apart_from_a_write_that_was_cut_off() {
    let (mut daemon, _fake) = prepare(&restart(RUNNING, "1s", ""));
    daemon.serve().await;
    forty(&daemon).await;
    daemon.kill();
    let log = daemon.path("data").join("journal.sqlite-wal");
    let whole = fs::read(&log).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 0x55;
    fs::write(&log, &damaged).unwrap();
    let (code, said) = refused(&daemon);
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("journal.sqlite-wal is damaged"), "{said}");
    assert_eq!(fs::read(&log).unwrap(), damaged, "left as it is");
    // The beginning of a frame of the same log, which nobody was told of.
    let cut_off = [&whole[..], &whole[32..2000]].concat();
    fs::write(&log, &cut_off).unwrap();
    daemon.serve().await;
    let list = daemon.json("/api/v1/incidents?limit=1000").await;
    let ended = list["incidents"].as_array().unwrap();
    assert_eq!(ended.len(), 40);
    assert!(ended.iter().all(|incident| !incident["end"].is_null()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_a_later_version_is_refused_and_left_as_it_is() {
    let (mut daemon, _fake) = prepare(&restart(RUNNING, "1s", ""));
    daemon.serve().await;
    daemon.terminate();
    assert!(daemon.wait().success());
    let file = daemon.path("data").join("journal.sqlite");
    let mut bytes = fs::read(&file).unwrap();
    // SQLite keeps `user_version` there.
    bytes[60..64].copy_from_slice(&9999_u32.to_be_bytes());
    fs::write(&file, &bytes).unwrap();
    let (code, said) = refused(&daemon);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("schema 9999"), "{said}");
    assert!(
        said.contains("hint: start the version that wrote it"),
        "{said}"
    );
    assert_eq!(fs::read(&file).unwrap(), bytes, "left as it is");
    let list = daemon.command(&["incidents", "list"]).output().unwrap();
    assert_eq!(list.status.code(), Some(1));
    let said = String::from_utf8_lossy(&list.stderr);
    assert!(said.contains("schema 9999"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), bytes, "left as it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_is_told_who_has_the_folder_and_a_killed_one_has_it_no_more() {
    let (mut daemon, _fake) = prepare(&restart(RUNNING, "1s", ""));
    daemon.set("SENTINEL_LISTEN", &daemon.address().to_string());
    for _ in 0..2 {
        daemon.serve().await;
        let second = daemon
            .command(&["serve"])
            .env("SENTINEL_LISTEN", "127.0.0.1:0")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&second.stderr);
        assert_eq!(second.status.code(), Some(73), "{said}");
        let holder = format!("is in use by process {}\n", daemon.pid());
        assert!(said.contains(&holder), "{said}");
        // The first one has not noticed.
        daemon.deliver(&[down("none")]).await;
        daemon.kill();
    }
}

/// A daemon with a clock of its own that has healed `a` and has a new episode of the same alert.
async fn healed_once(policies: &str) -> (Daemon, FakeDocker, Clock) {
    let (mut daemon, fake) = prepare(policies);
    let clock = Clock::of(&mut daemon);
    daemon.serve().await;
    daemon.deliver(&[down("a")]).await;
    assert_eq!(daemon.wait_end(1).await, "healed");
    (daemon, fake, clock)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cooldown_is_as_long_as_ever_when_the_clock_is_set_back() {
    for restarted in [false, true] {
        let (mut daemon, fake, clock) = healed_once(&restart(RUNNING, "4s", "")).await;
        let begun = Instant::now();
        clock.set(-HOUR);
        if restarted {
            daemon.kill();
            daemon.serve().await;
        }
        daemon.deliver(&[down("a")]).await;
        wait_phase(&daemon, 2, "held").await;
        let healed = |incident: &serde_json::Value| (incident["end"] == "healed").then_some(());
        daemon.wait_state(2, Duration::from_secs(15), healed).await;
        let held = begun.elapsed();
        assert!(held >= Duration::from_secs(3), "{held:?}");
        assert_eq!(fake.done("a", Call::Restart), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cooldown_is_as_long_as_ever_when_the_clock_is_set_forward() {
    let (daemon, fake, clock) = healed_once(&restart(RUNNING, "8s", "")).await;
    let begun = Instant::now();
    daemon.deliver(&[down("a")]).await;
    wait_phase(&daemon, 2, "held").await;
    clock.set(HOUR);
    daemon.wait_end(2).await;
    assert!(begun.elapsed() >= Duration::from_secs(7), "{begun:?}");
    assert_eq!(fake.done("a", Call::Restart), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_between_attempts_is_as_long_as_ever_when_the_clock_is_set_back() {
    let policies = restart(RUNNING, "1s", "attempts: 2\n        backoff: 3s");
    let (mut daemon, fake) = prepare(&policies);
    let clock = Clock::of(&mut daemon);
    fake.set("a", Call::Restart, Manner::faulty(Fault::ServerError));
    daemon.serve().await;
    daemon.deliver(&[down("a")]).await;
    wait_phase(&daemon, 1, "backing-off").await;
    let begun = Instant::now();
    clock.set(-HOUR);
    fake.set("a", Call::Restart, Manner::default());
    let healed = |incident: &serde_json::Value| (incident["end"] == "healed").then_some(());
    daemon.wait_state(1, Duration::from_secs(15), healed).await;
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
    assert_eq!(fake.effects().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_gives_up_in_time_when_the_clock_is_set_back() {
    for verify in [
        "alert: resolved, within: 4s, steady: 0s",
        "http: 'http://127.0.0.1:9/', within: 4s, steady: 0s",
    ] {
        let (mut daemon, _fake) = prepare(&restart(verify, "1s", ""));
        let clock = Clock::of(&mut daemon);
        daemon.serve().await;
        daemon.deliver(&[down("a")]).await;
        wait_phase(&daemon, 1, "verifying").await;
        let begun = Instant::now();
        clock.set(-HOUR);
        let escalated =
            |incident: &serde_json::Value| (incident["end"] == "escalated").then_some(());
        daemon
            .wait_state(1, Duration::from_secs(15), escalated)
            .await;
        let looked = begun.elapsed();
        assert!(looked >= Duration::from_secs(3), "{verify}: {looked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_has_its_whole_time_when_the_clock_is_set_forward() {
    let (mut daemon, _fake) = prepare(&restart(
        "alert: resolved, within: 60s, steady: 0s",
        "1s",
        "",
    ));
    let clock = Clock::of(&mut daemon);
    daemon.serve().await;
    let alert = down("a");
    daemon.deliver(std::slice::from_ref(&alert)).await;
    wait_phase(&daemon, 1, "verifying").await;
    clock.set(HOUR);
    tokio::time::sleep(Duration::from_secs(7)).await;
    let incident = daemon.incident(1).await;
    assert_eq!(incident["state"], "verifying", "{incident:#}");
    daemon.deliver(&[alert.resolved()]).await;
    assert_eq!(daemon.wait_end(1).await, "healed");
}
