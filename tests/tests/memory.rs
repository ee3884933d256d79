//! What a plugin remembers from one run to the next, through the real daemon.

use sentinel_tests::daemon::Daemon;
use sentinel_tests::payload::Alert;
use serde_json::Value;

/// Policies that run the plugin that counts its runs.
fn policies(policies: &[(&str, &str, bool)]) -> String {
    let list: Vec<String> = policies
        .iter()
        .map(|(name, mode, fails)| {
            format!(
                r#"
  - name: {name}
    match: ['alertname="{name}"']
    target: 'docker://local/infra-sentinel-test-{{{{ labels.n }}}}'
    mode: {mode}
    steps: [{{ plugin: counting, params: {{ fails: {fails} }} }}]
    verify: {{ alert: resolved, within: 1s, steady: 0s }}
    guards: {{ cooldown: 1s, flapping: off }}
    grants: {{ memory: true }}
"#
            )
        })
        .collect();
    format!("policies:{}", list.concat())
}

/// What the run of a new incident says.
async fn run(daemon: &Daemon, policy: &str, n: u64) -> String {
    daemon
        .deliver(&[Alert::firing(policy, &[("n", &n.to_string())])])
        .await;
    let said = |incident: &Value| {
        let events = incident["events"].as_array()?;
        let ended = events.iter().find(|event| event["kind"] == "run-ended")?;
        ended["result"]["message"].as_str().map(ToOwned::to_owned)
    };
    daemon
        .wait_state(n, std::time::Duration::from_secs(10), said)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_remembers_for_each_policy_what_runs_that_ended_well_left() {
    let all = policies(&[
        ("one", "auto", false),
        ("two", "auto", false),
        ("fails", "auto", true),
        ("watches", "shadow", false),
    ]);
    let mut daemon = Daemon::start(&["counting"], &all).await;
    assert_eq!(run(&daemon, "one", 1).await, "run 1");
    assert_eq!(run(&daemon, "one", 2).await, "run 2");
    // Nothing is shared between policies.
    assert_eq!(run(&daemon, "two", 3).await, "run 1");
    // What a run that failed set is dropped, and so is what a dry run set.
    for n in [4, 5] {
        let said = run(&daemon, "fails", n).await;
        assert!(said.starts_with("run 1"), "{said}");
    }
    for n in [6, 7] {
        assert_eq!(run(&daemon, "watches", n).await, "run 1");
    }
    // It is on the disk, and the next daemon knows it.
    daemon.kill();
    daemon.serve().await;
    assert_eq!(run(&daemon, "one", 8).await, "run 3");
    let shown = sentinel_tests::daemon::said(&mut daemon.command(&["incidents", "show", "8"]));
    assert!(shown.out.contains("memory.get runs"), "{}", shown.out);
    assert!(shown.out.contains("remembers runs"), "{}", shown.out);
    // It is played again from its record, whatever is remembered by now.
    let replayed = sentinel_tests::daemon::said(&mut daemon.command(&["replay", "1.1"]));
    assert_eq!(replayed.code, 0, "{}{}", replayed.out, replayed.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_grants_no_memory_does_not_serve_with_such_a_plugin() {
    let granted = policies(&[("one", "auto", false)]);
    let daemon = Daemon::start(&["counting"], &granted).await;
    daemon.write_policies(&granted.replace("{ memory: true }", "{ memory: false }"));
    daemon
        .wait_log("calls memory, which policy one does not grant")
        .await;
    assert!(daemon.log().contains("memory: true"), "{}", daemon.log());
    assert_eq!(run(&daemon, "one", 1).await, "run 1");
}
