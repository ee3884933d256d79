//! `sentinel replay`: runs of a real daemon, played again on their records.

use std::process::Output;

use sentinel_tests::containers::{Container, docker_ok};
use sentinel_tests::daemon::Daemon;
use sentinel_tests::payload::Alert;
use serde_json::Value;

const POLICY: &str = r#"
policies:
  - name: web-down
    match: ['alertname="WebDown"']
    target: 'docker://local/{{ labels.container }}'
    mode: auto
    steps: [{ plugin: docker-restart }]
    verify: { docker: running, within: 10s, steady: 0s }
    guards: { cooldown: 1s, flapping: off }
    grants:
      docker: { containers: ['infra-sentinel-test-*'], actions: [inspect, restart, start] }
"#;

fn replay(daemon: &Daemon, args: &[&str]) -> Output {
    let mut all = vec!["replay"];
    all.extend(args);
    daemon.command(&all).output().expect("sentinel runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A daemon that has healed a container once.
async fn healed(base: &str) -> (Daemon, Container) {
    let container = Container::nginx(base);
    docker_ok(&["kill", &container.name]);
    let daemon = Daemon::start(&["docker-restart"], POLICY).await;
    let down = Alert::firing("WebDown", &[("container", &container.name)]);
    daemon.deliver(&[down]).await;
    assert_eq!(daemon.wait_end(1).await, "healed");
    (daemon, container)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_played_again_without_touching_anything() {
    let (daemon, container) = healed("replay").await;
    let started_at = container.started_at();
    let played = replay(&daemon, &["1.1"]);
    let said = text(&played.stdout);
    assert!(played.status.success(), "{said}{}", text(&played.stderr));
    for part in ["saw", "did", "as recorded", "changed something"] {
        assert!(said.contains(part), "{part}:\n{said}");
    }
    assert_eq!(container.started_at(), started_at);
    let last = replay(&daemon, &["--last", "5"]);
    let said = text(&last.stdout);
    assert!(said.contains("1 runs played again, 0 diverged"), "{said}");
    let json = replay(&daemon, &["1.1", "--output", "json"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["ok"], true, "{json:#}");
    assert_eq!(json["runs"][0]["run"], "1.1", "{json:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_played_is_said() {
    let (mut daemon, _container) = healed("replaybad").await;
    let hostile = sentinel_tests::built("SENTINEL_HOSTILE", "target/plugins/hostile");
    let other = hostile.join("hostile.wasm").display().to_string();
    let wrong: [(&[&str], i32, &str); 6] = [
        (&[], 2, "<RUN>"),
        (&["1.1", "--last", "3"], 2, "cannot be used"),
        (&["nonsense"], 2, "run id"),
        (&["9.1"], 1, "no incident 9"),
        (&["1.7"], 1, "no run 1.7"),
        (&["1.1", "--plugin", &other], 1, "is one of docker-restart"),
    ];
    for (args, code, part) in wrong {
        let said = replay(&daemon, args);
        let err = text(&said.stderr);
        assert_eq!(said.status.code(), Some(code), "{args:?}: {err}");
        assert!(err.contains(part), "{args:?}: {err}");
    }
    // The plugin is gone.
    daemon.terminate();
    daemon.wait();
    let journal = daemon.path("data").join("journal.sqlite");
    let deleted = std::process::Command::new("python3")
        .args(["-c", "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute('DELETE FROM plugins'); c.commit()"])
        .arg(journal)
        .status()
        .expect("python3, which Ansible needs anyway");
    assert!(deleted.success());
    let said = replay(&daemon, &["1.1"]);
    let err = text(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{err}");
    assert!(
        err.contains("is not kept any more") && err.contains("--plugin"),
        "{err}"
    );
}
