//! Modes, approvals, the stop switch, ladders, storms and isolation, through the real
//! daemon and its command line.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use sentinel_tests::containers::{Container, docker_ok};
use sentinel_tests::daemon::{Daemon, count, kinds};
use sentinel_tests::fake_docker::{self, Call, FakeDocker, Fault, Manner, Status};
use sentinel_tests::payload::Alert;
use serde_json::Value;

/// Restarts the container that the alert names; `more` says in which mode.
fn restart(more: &str) -> String {
    format!(
        r#"
policies:
  - name: web-down
    match: ['alertname="WebDown"']
    target: 'docker://local/{{{{ labels.container }}}}'
    steps: [{{ plugin: docker-restart, timeout: 30s }}]
    verify: {{ docker: running, within: 10s, steady: 0s, every: 100ms }}
    grants:
      docker: {{ containers: ['infra-sentinel-test-*'], actions: [inspect, restart, start] }}
{more}
"#
    )
}

fn down(container: &str) -> Alert {
    Alert::firing("WebDown", &[("container", container)])
}

fn stopped(base: &str) -> Container {
    let container = Container::nginx(base);
    docker_ok(&["stop", "-t", "0", &container.name]);
    container
}

/// Runs `sentinel` against the daemon, as `by`.
fn sentinel(daemon: &Daemon, by: &str, args: &[&str]) -> Output {
    let mut command: Command = daemon.command(args);
    command.env("USER", by).output().expect("sentinel runs")
}

fn done(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}{err}");
    out
}

/// The message of a command that was refused with this exit code.
fn refused(output: &Output, code: i32) -> String {
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{err}");
    err
}

async fn state(daemon: &Daemon, id: u64, state: &str) -> Value {
    daemon
        .wait_state(id, Duration::from_secs(20), |incident| {
            (incident["state"] == state).then(|| incident.clone())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_without_a_mode_is_a_shadow_that_plans_and_never_acts() {
    let container = stopped("shadow");
    let daemon = Daemon::start(&["docker-restart"], &restart("")).await;
    let alert = down(&container.name);
    daemon.deliver(std::slice::from_ref(&alert)).await;
    let incident = state(&daemon, 1, "watching").await;
    assert_eq!(count(&incident, "planned"), 1, "{incident:#}");
    assert_eq!(count(&incident, "effect-began"), 0, "{incident:#}");
    assert_eq!(container.state(), "exited");
    daemon.deliver(&[alert.resolved()]).await;
    assert_eq!(daemon.wait_end(1).await, "cleared");
    let incident = daemon.incident(1).await;
    let reason = incident["reason"].as_str().unwrap();
    assert!(
        reason.contains("would have done: docker.restart") || reason.contains("docker.start"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_plan_is_carried_out_as_it_was_shown() {
    let container = stopped("approve");
    let daemon = Daemon::start(&["docker-restart"], &restart("    mode: approve")).await;
    daemon.deliver(&[down(&container.name)]).await;
    let incident = state(&daemon, 1, "awaiting-approval").await;
    assert_eq!(container.state(), "exited");
    let plan = incident["plan"]["digest"].as_str().unwrap().to_owned();
    assert_eq!(incident["plan"]["effects"].as_array().unwrap().len(), 1);
    let shown = done(&sentinel(
        &daemon,
        "ann",
        &["incidents", "show", "1", "--url", &daemon.url("/")],
    ));
    assert!(
        shown.contains("waits for approval") && shown.contains("sentinel approve 1"),
        "{shown}"
    );

    // Nobody is there to confirm, and another plan is not this one.
    let said = refused(&sentinel(&daemon, "ann", &["approve", "1"]), 1);
    assert!(said.contains("--plan"), "{said}");
    let said = refused(
        &sentinel(&daemon, "ann", &["approve", "1", "--plan", "0123456789ab"]),
        1,
    );
    assert!(said.contains("is not the plan's digest"), "{said}");
    let said = refused(
        &sentinel(&daemon, "ann", &["approve", "1", "--plan", "xyz"]),
        1,
    );
    assert!(said.contains("names no plan"), "{said}");

    done(&sentinel(
        &daemon,
        "ann",
        &["approve", "1", "--plan", &plan],
    ));
    assert_eq!(daemon.wait_end(1).await, "healed", "{}", daemon.log());
    assert_eq!(container.state(), "running");
    let incident = daemon.incident(1).await;
    assert_eq!(count(&incident, "approved"), 1);
    assert_eq!(count(&incident, "effect-began"), 1, "{incident:#}");

    let said = refused(
        &sentinel(&daemon, "bob", &["approve", "1", "--plan", &plan]),
        1,
    );
    assert!(
        said.contains("waits for no approval") && said.contains("approved already"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_approve_and_neither_of_them_asked_for_it() {
    let container = stopped("two");
    let policies = restart("    mode: approve\n    approval: { people: 2 }");
    let mut daemon = Daemon::start(&["docker-restart"], &policies).await;
    let body = serde_json::json!([{
        "labels": { "alertname": "WebDown", "container": container.name },
        "annotations": { "requested_by": "eve" },
        "startsAt": "2026-01-01T00:00:00Z",
    }]);
    let (status, said) = daemon.post("/api/v2/alerts", body.to_string()).await;
    assert!(status.is_success(), "{said}");
    let incident = state(&daemon, 1, "awaiting-approval").await;
    let plan = incident["plan"]["digest"].as_str().unwrap().to_owned();
    let approve = ["approve", "1", "--plan", &plan];
    let said = refused(&sentinel(&daemon, "eve", &approve), 1);
    assert!(said.contains("eve asked for this"), "{said}");
    assert!(done(&sentinel(&daemon, "ann", &approve)).contains("another person"));
    let said = refused(&sentinel(&daemon, "ann", &approve), 1);
    assert!(said.contains("approved this already"), "{said}");
    // What one of them said is not forgotten.
    daemon.kill();
    daemon.serve().await;
    assert_eq!(container.state(), "exited");
    done(&sentinel(&daemon, "bob", &approve));
    assert_eq!(daemon.wait_end(1).await, "healed", "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_plan_ends_the_incident() {
    let container = stopped("deny");
    let daemon = Daemon::start(&["docker-restart"], &restart("    mode: approve")).await;
    daemon.deliver(&[down(&container.name)]).await;
    state(&daemon, 1, "awaiting-approval").await;
    done(&sentinel(
        &daemon,
        "ann",
        &["deny", "1", "--reason", "it is being moved"],
    ));
    assert_eq!(daemon.wait_end(1).await, "cancelled");
    assert_eq!(container.state(), "exited");
    let said = refused(
        &sentinel(&daemon, "ann", &["deny", "1", "--reason", "again"]),
        1,
    );
    assert!(said.contains("waits for no approval"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_switch_holds_over_a_restart_until_it_is_released() {
    let container = stopped("pause");
    let policies = restart("    mode: auto\n    guards: { cooldown: 1s }");
    let mut daemon = Daemon::start(&["docker-restart"], &policies).await;
    let target = format!("docker://local/{}", container.name);
    done(&sentinel(
        &daemon,
        "ann",
        &[
            "pause", "--target", &target, "--for", "2h", "--reason", "upgrade",
        ],
    ));
    daemon.kill();
    daemon.serve().await;
    let list = done(&sentinel(&daemon, "bob", &["pauses"]));
    assert!(list.contains("upgrade") && list.contains("ann"), "{list}");
    daemon.deliver(&[down(&container.name)]).await;
    let incident = state(&daemon, 1, "held").await;
    let held = incident["events"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(held["guard"], "pause", "{incident:#}");
    assert!(held["until"].is_string(), "{held:#}");
    assert_eq!(container.state(), "exited");
    done(&sentinel(&daemon, "bob", &["resume", "--target", &target]));
    assert_eq!(daemon.wait_end(1).await, "healed", "{}", daemon.log());
    let said = refused(
        &sentinel(&daemon, "bob", &["resume", "--target", &target]),
        1,
    );
    assert!(said.contains("is not paused"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_get_wrong_is_said() {
    let daemon = Daemon::start(&["docker-restart"], &restart("    mode: auto")).await;
    let wrong: [(&[&str], i32, &str); 9] = [
        (&["pause", "--reason", "x"], 2, "--all"),
        (
            &["pause", "--all", "--policy", "web-down", "--reason", "x"],
            2,
            "cannot be used",
        ),
        (&["pause", "--all"], 2, "--reason"),
        (
            &["pause", "--all", "--reason", "x", "--for", "soon"],
            2,
            "duration",
        ),
        (
            &["pause", "--all", "--reason", "x", "--for", "0s"],
            1,
            "no time",
        ),
        (&["pause", "--all", "--reason", " "], 1, "`reason` is empty"),
        (
            &["pause", "--policy", "nobody", "--reason", "x"],
            1,
            "no policy nobody",
        ),
        (
            &["approve", "7", "--plan", "0123456789"],
            1,
            "no incident 7",
        ),
        (
            &["cancel", "7", "--reason", "x"],
            1,
            "incident 7 is not open",
        ),
    ];
    for (args, code, text) in wrong {
        let said = refused(&sentinel(&daemon, "ann", args), code);
        assert!(said.contains(text), "{args:?}: {said}");
    }
    let said = refused(
        &sentinel(&daemon, "ann", &["pauses", "--url", "http://127.0.0.1:1"]),
        69,
    );
    assert!(said.contains("does not answer"), "{said}");
    let (status, said) = daemon
        .post("/api/v1/pauses", r#"{"all":true,"by":"ann"}"#)
        .await;
    assert!(status.is_client_error() && said.contains("error"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_traces_are_kept_before_they_are_destroyed() {
    let container = stopped("evidence");
    let daemon = Daemon::start(&["docker-restart"], &restart("    mode: auto")).await;
    daemon.deliver(&[down(&container.name)]).await;
    assert_eq!(daemon.wait_end(1).await, "healed", "{}", daemon.log());
    let incident = daemon.incident(1).await;
    let kinds = kinds(&incident);
    let at = |kind: &str| kinds.iter().position(|found| found == kind).unwrap();
    assert!(at("evidence-captured") < at("effect-began"), "{kinds:?}");
    let evidence = &incident["events"][at("evidence-captured")];
    assert_eq!(evidence["container"]["state"], "exited", "{evidence:#}");
    assert!(evidence["container"]["exit_code"].is_i64(), "{evidence:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ladder_waits_skips_and_tells_a_person() {
    let policies = r#"
policies:
  - name: ladder
    match: ['alertname="Ladder"']
    target: 'docker://local/nothing'
    mode: auto
    steps:
      - plugin: hostile
        params: { behaviour: permanent }
      - plugin: hostile
        params: { behaviour: changed }
        when: { on: [unverified] }
      - plugin: hostile
        params: { behaviour: permanent }
        when: { after: 2s }
    verify: { alert: resolved, within: 1s, steady: 0s }
    guards: { cooldown: 1s }
    escalate: { plugin: hostile, params: { behaviour: changed }, timeout: 5s }
    grants: &all
      docker: { containers: ['*'], actions: [list, inspect, logs, start, stop, restart, kill, recreate, duplicate, remove] }
      ansible: { playbooks: ['*'] }
"#;
    let policies = policies.replace("&all", "");
    let daemon = Daemon::start(&["hostile"], &policies).await;
    let begun = Instant::now();
    daemon.deliver(&[Alert::firing("Ladder", &[])]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    assert!(begun.elapsed() >= Duration::from_secs(2));
    let incident = daemon.incident(1).await;
    let steps: Vec<i64> = incident["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "run-started")
        .map(|event| event["step"].as_i64().unwrap())
        .collect();
    // The second is for another failure; 0 tells a person.
    assert_eq!(steps, [1, 3, 0], "{incident:#}");
}

/// A daemon whose Docker is a fake, so that containers do what the test says.
async fn with_fake(fake: &FakeDocker, policies: &str, config: &str) -> Daemon {
    let mut daemon = Daemon::prepare(&["docker-restart"], policies);
    daemon.write_config(config);
    daemon.set("SENTINEL_DOCKER_HOSTS", &fake.hosts());
    daemon.serve().await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_stops_a_policy_until_it_is_calm() {
    let fake = FakeDocker::start();
    for number in 0..4 {
        let name = format!("infra-sentinel-test-fleet-{number}");
        let container = if number < 2 {
            fake_docker::Container::exited(&name)
        } else {
            fake_docker::Container::running(&name)
        };
        fake.add(container.label("app", "web"));
    }
    let policies = restart(
        "    mode: auto\n    guards: { cooldown: 1s, blast_radius: { max: 25%, of: { labels: { app: web } }, calm: 3s } }",
    );
    let mut daemon = with_fake(&fake, &policies, "").await;
    daemon.deliver(&[down("infra-sentinel-test-fleet-0")]).await;
    let incident = state(&daemon, 1, "held").await;
    let held = incident["events"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(held["guard"], "blast-radius", "{incident:#}");
    // A storm outlives a restart.
    daemon.kill();
    daemon.serve().await;
    let storms = daemon.json("/api/v1/pauses").await;
    assert_eq!(storms["storms"][0]["policy"], "web-down", "{storms:#}");
    assert_eq!(fake.effects().len(), 0);
    // One of the two comes back by itself; the other is within the bound.
    fake.add(fake_docker::Container::running("infra-sentinel-test-fleet-1").label("app", "web"));
    assert_eq!(daemon.wait_end(1).await, "healed", "{}", daemon.log());
    assert_eq!(fake.effects().len(), 1);
    assert_eq!(fake.status("infra-sentinel-test-fleet-0"), Status::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_stops_a_run_between_two_effects() {
    let fake = FakeDocker::start();
    let slow = Manner::slow(Duration::from_secs(2));
    let name = "infra-sentinel-test-inflight";
    fake.add(
        fake_docker::Container::running(name)
            .health("unhealthy")
            .manner(Call::Restart, slow),
    );
    let policies = restart("    mode: auto\n    guards: { cooldown: 1s }");
    let daemon = with_fake(&fake, &policies, "").await;
    daemon.deliver(&[down(name)]).await;
    fake.wait_asked(1).await;
    done(&sentinel(
        &daemon,
        "ann",
        &["pause", "--all", "--reason", "stop"],
    ));
    // The effect that was under way has its end; the run that waits for the container's
    // health has not.
    let incident = state(&daemon, 1, "held").await;
    assert_eq!(count(&incident, "effect-ended"), 1, "{incident:#}");
    let run = incident["events"]
        .as_array()
        .unwrap()
        .iter()
        .find(|event| event["kind"] == "run-ended")
        .cloned();
    assert_eq!(run.unwrap()["result"]["cause"], "paused", "{incident:#}");
    assert_eq!(fake.effects().len(), 1);
    done(&sentinel(&daemon, "ann", &["resume", "--all"]));
    fake.add(fake_docker::Container::running(name).health("healthy"));
    daemon.wait_end(1).await;
    let incident = daemon.incident(1).await;
    // It went on from its record: the restart is not done again.
    assert_eq!(count(&incident, "run-resumed"), 1, "{incident:#}");
    assert_eq!(fake.effects().len(), 1, "{incident:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_keeps_nobody_else_waiting() {
    let fake = FakeDocker::start();
    for number in 0..40 {
        let name = format!("infra-sentinel-test-stuck-{number}");
        let hangs = Manner::faulty(Fault::Hang);
        fake.add(
            fake_docker::Container::exited(&name)
                .manner(Call::Restart, hangs)
                .manner(Call::Start, hangs),
        );
    }
    for number in 0..10 {
        fake.add(fake_docker::Container::exited(&format!(
            "infra-sentinel-test-fine-{number}"
        )));
    }
    let one = restart("    mode: auto\n    guards: { cooldown: 1s }");
    let other = one
        .replace("web-down", "api-down")
        .replace("WebDown", "ApiDown")
        .replace("policies:\n", "");
    let daemon = with_fake(&fake, &format!("{one}{other}"), "").await;
    let stuck: Vec<Alert> = (0..40)
        .map(|number| down(&format!("infra-sentinel-test-stuck-{number}")))
        .collect();
    daemon.deliver(&stuck).await;
    fake.wait_asked(8).await;
    // Those that hang hold all that their policy may have; the other policy does not
    // notice, although the plugin is the same.
    let mut slowest = Duration::ZERO;
    for number in 0..10 {
        let begun = Instant::now();
        let name = format!("infra-sentinel-test-fine-{number}");
        daemon
            .deliver(&[Alert::firing("ApiDown", &[("container", &name)])])
            .await;
        while fake.status(&name) != Status::Running {
            assert!(begun.elapsed() < Duration::from_secs(5), "{}", daemon.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let held = daemon.json("/api/v1/incidents?state=held&limit=100").await;
    assert_eq!(held["incidents"].as_array().unwrap().len(), 32, "{held:#}");
}
