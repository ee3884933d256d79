//! `sentinel backtest`: candidate policies over a journal that a daemon has written.

use std::fs;

use sentinel_tests::containers::{Container, docker_ok};
use sentinel_tests::daemon::{Daemon, Said, said};
use sentinel_tests::payload::Alert;
use serde_json::Value;

const POLICY: &str = r#"
policies:
  - name: web-down
    match: ['alertname="WebDown"']
    target: 'docker://local/{{ labels.container }}'
    mode: auto
    steps: [{ plugin: docker-restart, attempts: 2, backoff: 1s }]
    verify: { docker: running, within: 10s, steady: 0s }
    guards: { cooldown: 2s }
    grants:
      docker: { containers: ['infra-sentinel-test-*'], actions: [inspect, restart, start] }
"#;

fn backtest(daemon: &Daemon, policies: &str, args: &[&str]) -> Said {
    let folder = daemon.path("candidates");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("web.yaml"), policies).expect("policies");
    let folder = folder.display().to_string();
    said(&mut daemon.command(&[&["backtest", "--policies", &folder], args].concat()))
}

/// Heals a container twice, the second time after a hold by the cooldown; sees an alert
/// on a container that is not there, and one that no policy is for.
async fn history(container: &Container) -> Daemon {
    let daemon = Daemon::start(&["docker-restart"], POLICY).await;
    let down = Alert::firing("WebDown", &[("container", &container.name)]);
    for number in [1, 2] {
        let alert = down.again();
        docker_ok(&["kill", &container.name]);
        daemon.deliver(std::slice::from_ref(&alert)).await;
        assert_eq!(daemon.wait_end(number).await, "healed");
        daemon.deliver(&[alert.resolved()]).await;
    }
    let gone = Alert::firing("WebDown", &[("container", "infra-sentinel-test-gone")]);
    daemon.deliver(&[gone]).await;
    assert_eq!(daemon.wait_end(3).await, "escalated");
    daemon.deliver(&[Alert::firing("DiskFull", &[])]).await;
    daemon
}

fn kinds(report: &Value) -> Vec<(String, Vec<String>)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    report["differences"]
        .as_array()
        .expect("differences")
        .iter()
        .map(|one| {
            let in_what = one["in_what"].as_array().expect("a list");
            (text(&one["kind"]), in_what.iter().map(text).collect())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_are_held_against_what_happened() {
    let container = Container::nginx("backtest");
    let mut daemon = history(&container).await;

    // The same policies, beside the daemon: nothing would be different.
    let same = backtest(&daemon, POLICY, &["--exit-code"]);
    assert_eq!(same.code, 0, "{}{}", same.out, same.err);
    assert!(
        same.out.contains("nothing would be different"),
        "{}",
        same.out
    );
    let json = backtest(&daemon, POLICY, &["--output", "json"]).json();
    assert_eq!(json["notifications"], 6, "{json:#}");
    assert_eq!(json["was"], json["would_be"], "{json:#}");
    assert_eq!(json["was"]["incidents"], 3);
    assert_eq!(json["was"]["held"], 1);
    assert_eq!(json["trace"], Value::Null);

    // And when it has stopped.
    daemon.terminate();
    assert!(daemon.wait().success());

    let shadow = POLICY.replace("mode: auto", "mode: shadow");
    let said = backtest(&daemon, &shadow, &["--exit-code", "--output", "json"]);
    assert_eq!(said.code, 1, "{}", said.err);
    let report = said.json();
    assert_eq!(report["would_be"]["effects"], 0);
    for (kind, in_what) in kinds(&report) {
        assert_eq!(kind, "changed");
        assert!(in_what.contains(&"mode".to_owned()), "{in_what:?}");
    }

    // A policy for what nobody handled, and none for the rest.
    let other = POLICY
        .replace("WebDown", "DiskFull")
        .replace("{{ labels.container }}", "infra-sentinel-test-disk");
    let said = backtest(&daemon, &other, &[]);
    assert_eq!(said.code, 0, "{}", said.err);
    for text in [
        "4 differences: 1 new, 3 gone, 0 changed",
        "(incident 3)",
        "1.1 docker-restart",
    ] {
        assert!(said.out.contains(text), "{text}:\n{}", said.out);
    }

    // What is assumed makes the difference where nothing is known.
    let failing = backtest(
        &daemon,
        &other,
        &["--assume", "fails", "--to", "now", "--output", "json"],
    );
    let ends = failing.json()["would_be"]["ends"].clone();
    assert_eq!(ends["healed"], Value::Null, "{ends}");

    // A longer cooldown holds the second longer.
    let patient = POLICY.replace("cooldown: 2s", "cooldown: 1h");
    let said = backtest(&daemon, &patient, &["--trace"]);
    for text in [
        "held by cooldown until",
        "web-down: no: alertname=\"WebDown\" does not hold, alertname is \"DiskFull\"",
        "end     healed  ->  cleared",
    ] {
        assert!(said.out.contains(text), "{text}:\n{}", said.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_are_refused() {
    let daemon = Daemon::start(&["docker-restart"], POLICY).await;
    let empty = backtest(&daemon, POLICY, &[]);
    assert_eq!(empty.code, 1);
    assert!(empty.err.contains("holds no alerts yet"), "{}", empty.err);
    daemon.deliver(&[Alert::firing("DiskFull", &[])]).await;

    for (args, code, says) in [
        (vec!["--from", "2h", "--to", "3h"], 1, "is not before --to"),
        (vec!["--from", "2999-01-01"], 1, "is not before --to"),
        (
            vec!["--to", "2020-01-01", "--from", "2019-01-01"],
            1,
            "holds no alerts from",
        ),
        (vec!["--from", "yesterday"], 2, "is no moment"),
        (vec!["--assume", "luck"], 2, "possible values"),
        (vec!["--warm-up", "long"], 2, "no duration"),
    ] {
        let said = backtest(&daemon, POLICY, &args);
        assert_eq!(said.code, code, "{args:?}: {}", said.err);
        assert!(said.err.contains(says), "{args:?}: {}", said.err);
    }
    let mistake = backtest(&daemon, &POLICY.replace("mode: auto", "mode: on"), &[]);
    assert_eq!(mistake.code, 1);
    assert!(mistake.err.contains("web.yaml:6:"), "{}", mistake.err);
    let missing = said(&mut daemon.command(&["backtest", "--policies", "/nowhere"]));
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("/nowhere"), "{}", missing.err);
    assert_eq!(said(&mut daemon.command(&["backtest"])).code, 2);

    let nothing = Daemon::prepare(&[], POLICY);
    let no_journal = backtest(&nothing, POLICY, &[]);
    assert_eq!(no_journal.code, 1);
    assert!(
        no_journal.err.contains("there is no journal"),
        "{}",
        no_journal.err
    );
}
