//! `sentinel policy test` and `sentinel policy report`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sentinel_tests::containers::{Container, docker_ok};
use sentinel_tests::daemon::{Daemon, Said, said};
use sentinel_tests::payload::Alert;
use serde_json::Value;

fn sentinel(args: &[&str]) -> Said {
    said(
        Command::new(sentinel_tests::built(
            "SENTINEL_BIN",
            "target/release/sentinel",
        ))
        .args(args)
        .env_remove("SENTINEL_CONFIG"),
    )
}

fn test(args: &[&str], file: &Path) -> Said {
    let file = file.to_str().expect("a path");
    sentinel(&[&["policy", "test"], args, &[file]].concat())
}

const POLICY: &str = r#"
policies:
  - name: web
    match: ['alertname="Down"']
    target: docker://local/web
    mode: auto
    steps: [{ plugin: docker-restart }]
    verify: { docker: running, within: 10s, steady: 0s }
    grants: { docker: { containers: [web], actions: [restart] } }
"#;

const TEST: &str = r"policies: [web.yaml]
tests:
  - name: a restart helps
    alerts: [{ labels: { alertname: Down }, firing: 0s }]
    expect:
      - { at: 0s, policy: web, run: docker-restart, step: 1 }
      - { at: 2s, end: healed }
";

/// A folder with the policy and a file of tests.
fn folder(tests: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("web.yaml"), POLICY).expect("a policy");
    fs::write(folder.path().join("test.yaml"), tests).expect("a test");
    folder
}

#[test]
fn the_policies_of_the_stack_pass_their_tests() {
    let tests = sentinel_tests::root().join("stack/sentinel/policies-tests");
    let mut files = 0;
    for file in fs::read_dir(tests).expect("tests of the stack's policies") {
        let said = test(&[], &file.expect("a file").path());
        assert_eq!(said.code, 0, "{}{}", said.out, said.err);
        files += 1;
    }
    assert!(files > 0);
}

#[test]
fn a_test_that_passes_is_one_line() {
    let folder = folder(TEST);
    let file = folder.path().join("test.yaml");
    let said = test(&[], &file);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(
        said.out,
        format!("ok   {}:3 a restart helps\n1 test passed\n", file.display())
    );
    // The same every time, and so is all that led to it.
    let trace = test(&["--trace"], &file);
    assert_eq!(trace.out, test(&["--trace"], &file).out);
    for line in [
        "web: yes: docker://local/web, mode auto",
        "does docker.restart local/web",
        "2s       #1 web docker://local/web: healed",
    ] {
        assert!(trace.out.contains(line), "{line}:\n{}", trace.out);
    }
}

#[test]
fn a_test_that_fails_shows_what_differs_and_where() {
    let folder = folder(&TEST.replace("at: 2s, end: healed", "at: 5s, end: cleared"));
    let file = folder.path().join("test.yaml");
    let said = test(&[], &file);
    assert_eq!(said.code, 1);
    let place = format!("{}:7", file.display());
    assert!(said.out.contains("FAIL"), "{}", said.out);
    let differing: Vec<_> = said
        .out
        .lines()
        .filter(|line| line.starts_with("  -") || line.starts_with("  +"))
        .collect();
    assert_eq!(differing.len(), 2, "{}", said.out);
    assert!(differing[0].contains("5s") && differing[0].ends_with(&place));
    assert!(
        differing[1].contains("2s       end: healed"),
        "{}",
        said.out
    );

    let json = test(&["--output", "json"], &file);
    assert_eq!(json.code, 1);
    let report = json.json();
    assert_eq!(report["ok"], false);
    assert_eq!(report["failed"], 1);
    let sides: Vec<_> = report["files"][0]["tests"][0]["lines"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| (line["side"].clone(), line["line"].clone()))
        .collect();
    assert_eq!(
        sides,
        [
            (Value::from("both"), Value::from(6)),
            (Value::from("expected"), Value::from(7)),
            (Value::from("got"), Value::Null),
        ]
    );
}

#[test]
fn mistakes_are_told_with_their_places() {
    for (tests, says) in [
        (
            TEST.replace("end: healed", "end: fixed"),
            ["test.yaml:7:", "healed"],
        ),
        (
            TEST.replace("web.yaml", "gone.yaml"),
            ["test.yaml:1:", "gone.yaml"],
        ),
        (
            TEST.replace("expect", "expected"),
            ["test.yaml:5:", "did you mean `expect`"],
        ),
        ("tests: [".to_owned(), ["test.yaml:1:", "not valid YAML"]),
    ] {
        let folder = folder(&tests);
        let said = test(&[], &folder.path().join("test.yaml"));
        assert_eq!(said.code, 1, "{tests}");
        for text in says {
            assert!(said.out.contains(text), "{text}:\n{}", said.out);
        }
    }
    // A mistake in the policy is one of the policy's file.
    let folder = folder(TEST);
    let policy = folder.path().join("web.yaml");
    fs::write(&policy, POLICY.replace("mode: auto", "mode: automatic")).expect("a policy");
    let said = test(&[], &folder.path().join("test.yaml"));
    assert_eq!(said.code, 1);
    assert!(said.out.contains("web.yaml:6:"), "{}", said.out);
}

#[test]
fn wrong_arguments_are_refused() {
    assert_eq!(sentinel(&["policy", "test"]).code, 2);
    let folder = folder(TEST);
    let missing = test(&[], &folder.path().join("missing.yaml"));
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("missing.yaml"), "{}", missing.err);
    let none = test(&["--only", "nothing"], &folder.path().join("test.yaml"));
    assert_eq!(none.code, 1);
    assert!(none.err.contains("no test has `nothing`"), "{}", none.err);
}

/// A shadow of the containers that alerts name, and a policy that acts on one of them.
const SHADOW: &str = r#"
policies:
  - name: web-shadow
    match: ['alertname="WebDown"']
    target: 'docker://local/{{ labels.container }}'
    mode: shadow
    steps: [{ plugin: docker-restart }]
    verify: { docker: running, within: 1s, steady: 0s }
    grants:
      docker: { containers: ['infra-sentinel-test-*'], actions: [inspect, restart, start] }
  - name: web-acts
    match: ['alertname="WebDown"', 'act="yes"']
    target: 'docker://local/{{ labels.container }}'
    mode: auto
    steps: [{ plugin: docker-restart }]
    verify: { docker: running, within: 10s, steady: 0s }
    grants:
      docker: { containers: ['infra-sentinel-test-*'], actions: [inspect, restart, start] }
"#;

fn report(daemon: &Daemon, args: &[&str]) -> Said {
    said(&mut daemon.command(&[&["policy", "report"], args].concat()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_is_judged_by_what_it_would_have_done() {
    let container = Container::nginx("report");
    docker_ok(&["stop", "-t", "0", &container.name]);
    let daemon = Daemon::start(&["docker-restart"], SHADOW).await;
    let alert = Alert::firing("WebDown", &[("container", &container.name), ("act", "yes")]);
    daemon.deliver(std::slice::from_ref(&alert)).await;
    let watching = |incident: &Value| (incident["state"] == "watching").then_some(());
    daemon
        .wait_state(1, Duration::from_secs(30), watching)
        .await;
    assert_eq!(daemon.wait_end(2).await, "healed");
    daemon.deliver(&[alert.resolved()]).await;
    assert_eq!(daemon.wait_end(1).await, "cleared");

    // Beside the daemon, which goes on.
    let said = report(&daemon, &["web-shadow"]);
    assert_eq!(said.code, 0, "{}", said.err);
    for text in [
        "web-shadow  (mode shadow)",
        &format!("1 x docker.start on docker://local/{}", container.name),
        "0 of 1 by themselves",
        "1 after another policy had acted",
        "not yet: 1 incident is too little evidence",
        "web-acts did docker.start",
    ] {
        assert!(said.out.contains(text), "{text}:\n{}", said.out);
    }
    assert!(!said.out.contains("web-acts  ("), "{}", said.out);
    let json = report(&daemon, &["--output", "json"]).json();
    let policies = json["policies"].as_array().expect("policies");
    let of = |name: &str| {
        let found = policies.iter().find(|one| one["policy"] == name);
        found.expect("the policy").clone()
    };
    let shadow = of("web-shadow");
    assert_eq!(shadow["shadow"]["incidents"], 1);
    assert_eq!(shadow["shadow"]["conflicts"][0]["other"], 2);
    assert_eq!(shadow["shadow"]["verdict"]["ready"], false);
    assert_eq!(shadow["acting"], Value::Null);
    let acts = of("web-acts");
    assert_eq!(acts["acting"]["ends"]["healed"], 1);
    assert_eq!(acts["acting"]["effects"]["docker.start"], 1);
    assert_eq!(acts["acting"]["runs"], 1);
}

#[test]
fn a_report_of_what_is_not_there_is_refused() {
    let daemon = Daemon::prepare(&[], SHADOW);
    let said = report(&daemon, &[]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("there is no journal"), "{}", said.err);
    assert_eq!(report(&daemon, &["--since", "yesterday"]).code, 2);
    assert_eq!(report(&daemon, &["No Policy"]).code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_knows_which_policies_there_are() {
    let daemon = Daemon::start(&["docker-restart"], SHADOW).await;
    let said = report(&daemon, &["web-shadwo"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("web-shadow"), "{}", said.err);
    let future = report(&daemon, &["--since", "2999-01-01"]);
    assert_eq!(future.code, 1);
    assert!(future.err.contains("not in the past"), "{}", future.err);
    let quiet = report(&daemon, &["web-shadow"]);
    assert_eq!(quiet.code, 0);
    assert!(quiet.out.contains("no incident"), "{}", quiet.out);
}
