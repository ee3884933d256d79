//! Plugins of every language, from their sources to a healed container: built by
//! `sentinel plugin build` with the language's own toolchain, tested by their own cases, and
//! run by a real daemon on real containers.
//!
//! `stack/setup/toolchains.sh` installs the toolchains.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use sentinel_tests::containers::{Container, docker_ok};
use sentinel_tests::daemon::{Daemon, said};
use sentinel_tests::payload::Alert;
use sentinel_tests::{built, eventually, root};
use serde_json::Value;

/// The examples: their folders, and what the plugins call themselves.
const EXAMPLES: [(&str, &str, &[&str]); 4] = [
    (
        "rust-crash-loop",
        "crash-loop",
        &[
            "docker.inspect",
            "docker.logs",
            "docker.start",
            "docker.stop",
        ],
    ),
    (
        "python-log-doctor",
        "log-doctor",
        &["docker.logs", "docker.restart", "docker.recreate"],
    ),
    (
        "js-reconnect",
        "reconnect",
        &["docker.list", "docker.inspect", "docker.restart"],
    ),
    ("c-reload", "reload", &["docker.inspect", "docker.kill"]),
];

/// `sentinel`, with what a build in Rust needs in its environment.
fn sentinel(args: &[&str]) -> Command {
    let mut command = Command::new("bash");
    command
        .args(["-euc", r#"answer="$("$0" env)"; eval "$answer"; exec "$@""#])
        .arg(root().join("stack/setup/toolchains.sh"))
        .arg(built("SENTINEL_BIN", "target/release/sentinel"))
        .args(args)
        // Where a build puts things is for the project to say, and what it is built with for
        // its toolchain.
        .env("CARGO_TARGET_DIR", root().join("target/plugins/examples"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// The examples' sources, copied to where nothing else writes.
fn copied(example: &str, to: &Path) -> PathBuf {
    let from = root().join("plugins/examples").join(example);
    let to = to.join(example);
    copy(&from, &to);
    to
}

fn copy(from: &Path, to: &Path) {
    const MADE: [&str; 7] = [
        "bindings",
        "wit",
        "target",
        ".build",
        "node_modules",
        ".venv",
        "__pycache__",
    ];
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !MADE.contains(&name) {
            copy(&path, &to.join(name));
        } else if path.is_file() && path.extension().is_none_or(|ending| ending != "wasm") {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// Builds a project, and says what `sentinel plugin build` says of it.
fn build(project: &Path) -> Value {
    let said = said(&mut sentinel(&[
        "plugin",
        "build",
        text(project),
        "--output",
        "json",
    ]));
    assert_eq!(
        said.code, 0,
        "{}\ndid `stack/setup/toolchains.sh` run?",
        said.err
    );
    said.json()
}

fn list(value: &Value) -> Vec<&str> {
    let items = value.as_array().expect("a list").iter();
    items.map(|item| item.as_str().expect("a text")).collect()
}

fn sorted(mut items: Vec<&str>) -> Vec<&str> {
    items.sort_unstable();
    items
}

/// What each example is asked to heal, and with which params.
const POLICIES: &str = r#"
policies:
  - name: down
    match: ['alertname="Down"']
    target: 'docker://local/{{ labels.container }}'
    mode: auto
    steps: [{ plugin: crash-loop }]
    verify: { docker: running, within: 20s, steady: 0s }
    grants:
      docker: { containers: ['infra-sentinel-test-*'], actions: [inspect, logs, start, stop] }
  - name: errors
    match: ['alertname="Errors"']
    target: 'docker://local/{{ labels.container }}'
    mode: auto
    steps:
      - plugin: log-doctor
        params:
          rules: [{ when: 'connection to \S+ lost', do: restart, because: it stays away }]
    verify: { docker: running, within: 20s, steady: 0s }
    grants:
      docker: { containers: ['infra-sentinel-test-*'], actions: [logs, restart, recreate] }
  - name: replaced
    match: ['alertname="Replaced"']
    target: 'docker://local/{{ labels.container }}'
    mode: auto
    steps: [{ plugin: reconnect }]
    verify: { docker: running, within: 20s, steady: 0s }
    grants:
      docker: { containers: ['infra-sentinel-test-*'], actions: [list, inspect, restart] }
  - name: old
    match: ['alertname="Old"']
    target: 'docker://local/{{ labels.container }}'
    mode: auto
    steps: [{ plugin: reload, params: { wait: 200 } }]
    verify: { docker: running, within: 20s, steady: 0s }
    grants:
      docker: { containers: ['infra-sentinel-test-*'], actions: [inspect, kill] }
"#;

async fn heals(daemon: &Daemon, alert: &str, container: &Container, changed: &str) {
    let before = daemon.incidents().await.len() as u64;
    daemon
        .deliver(&[Alert::firing(alert, &[("container", &container.name)])])
        .await;
    let id = before + 1;
    let end = daemon.wait_end(id).await;
    let incident = daemon.incident(id).await;
    assert_eq!(end, "healed", "{incident:#}\n{}", daemon.log());
    let told = incident.to_string();
    assert!(told.contains(changed), "no `{changed}` in {incident:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_are_built_pass_their_cases_and_heal() {
    let work = tempfile::tempdir().unwrap();
    // No policies yet: they would be refused without their plugins.
    let daemon = Daemon::start(&[], "").await;
    for (example, name, asks_for) in EXAMPLES {
        let project = copied(example, work.path());
        let made = build(&project);
        assert_eq!(
            sorted(list(&made["asks_for"])),
            sorted(asks_for.to_vec()),
            "{example}"
        );
        let wasm = project.join(format!("{name}.wasm"));
        let tested = said(&mut sentinel(&[
            "plugin",
            "test",
            text(&project),
            "--no-build",
            "--output",
            "json",
        ]));
        assert_eq!(tested.code, 0, "{example}: {}{}", tested.out, tested.err);
        assert!(tested.json()["passed"].as_u64().unwrap() >= 3);
        // As it is: what clang makes is a core module.
        daemon.install_bytes(&format!("{name}.wasm"), &fs::read(&wasm).unwrap());
    }
    for (_, name, _) in EXAMPLES {
        // What is large takes its time to compile.
        let within = Duration::from_secs(240);
        eventually(&format!("{name} serves"), within, || async {
            let status = daemon.json("/api/v1/status").await;
            status
                .to_string()
                .contains(&format!("\"{name}\""))
                .then_some(())
        })
        .await;
    }
    daemon.write_policies(POLICIES);
    eventually("the policies serve", Duration::from_secs(20), || async {
        let status = daemon.json("/api/v1/status").await;
        status.to_string().contains("\"replaced\"").then_some(())
    })
    .await;

    let down = Container::nginx("tc-down");
    docker_ok(&["kill", &down.name]);
    let changed = format!("started local/{}", down.name);
    heals(&daemon, "Down", &down, &changed).await;
    assert_eq!(down.state(), "running");

    let errors = Container::nginx("tc-errors");
    errors.exec(&[
        "sh",
        "-c",
        "echo 'connection to db:5432 lost' > /proc/1/fd/1",
    ]);
    let began = errors.started_at();
    heals(&daemon, "Errors", &errors, "it stays away").await;
    assert_ne!(errors.started_at(), began);

    let database = Container::nginx("tc-db");
    let label = format!("depends-on={}", database.name);
    let shop = Container::labelled("tc-shop", &label);
    let (before, untouched) = (shop.started_at(), database.started_at());
    let changed = format!("restarted {}", shop.name);
    heals(&daemon, "Replaced", &database, &changed).await;
    assert_ne!(shop.started_at(), before);
    assert_eq!(database.started_at(), untouched);

    let proxy = Container::nginx("tc-proxy");
    heals(&daemon, "Old", &proxy, "sent SIGHUP to").await;
    let logs = docker_ok(&["logs", &proxy.name]);
    assert_eq!(proxy.state(), "running", "{logs}");
}

/// What a newcomer does first has to work, in every language.
#[test]
fn a_new_project_builds_and_passes_its_cases() {
    let work = tempfile::tempdir().unwrap();
    for lang in ["c", "js", "python", "rust"] {
        let project = work.path().join(lang);
        let made = said(&mut sentinel(&[
            "plugin",
            "new",
            "first-try",
            "--lang",
            lang,
            "--to",
            text(&project),
        ]));
        assert_eq!(made.code, 0, "{}", made.err);
        let tested = said(&mut sentinel(&["plugin", "test", text(&project)]));
        assert_eq!(tested.code, 0, "{lang}: {}{}", tested.out, tested.err);
        assert!(tested.out.contains("4 cases passed"), "{}", tested.out);
    }
}

/// A project in C, whose build takes no time.
fn project(work: &Path) -> PathBuf {
    let project = work.join("mine");
    let made = said(&mut sentinel(&[
        "plugin",
        "new",
        "mine",
        "--lang",
        "c",
        "--to",
        text(&project),
    ]));
    assert_eq!(made.code, 0, "{}", made.err);
    project
}

#[test]
fn a_case_that_fails_shows_where_and_exits_with_1() {
    let work = tempfile::tempdir().unwrap();
    let project = project(work.path());
    let source = fs::read_to_string(project.join("plugin.c")).unwrap();
    let other = source.replace("* 1000;", "* 3000;");
    assert_ne!(source, other);
    fs::write(project.join("plugin.c"), other).unwrap();
    let tested = said(&mut sentinel(&["plugin", "test", text(&project)]));
    assert_eq!(tested.code, 1, "{}", tested.out);
    for line in [
        "FAIL",
        r#"  -  call 2: docker.restart { container: "web", grace_ms: 5000 }"#,
        r#"  +  call 2: docker.restart { container: "web", grace_ms: 15000, host: "local" }"#,
        "3 cases passed, 1 failed",
    ] {
        assert!(tested.out.contains(line), "no `{line}` in {}", tested.out);
    }
}

/// A command that ends with the test, however that ends.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _gone = self.0.kill().and_then(|()| self.0.wait().map(drop));
    }
}

#[tokio::test]
async fn watching_builds_and_tests_again_when_a_file_changes() {
    let work = tempfile::tempdir().unwrap();
    let project = project(work.path());
    let told = work.path().join("told");
    let _watching = Ends(
        sentinel(&["plugin", "test", text(&project), "--watch"])
            .stdout(fs::File::create(&told).unwrap())
            .spawn()
            .unwrap(),
    );
    let tells = |what: &'static str| {
        let told = told.clone();
        async move {
            eventually(what, Duration::from_secs(60), || async {
                let told = fs::read_to_string(&told).unwrap();
                told.contains(what).then_some(())
            })
            .await;
        }
    };
    tells("4 cases passed\nwatching").await;
    let source = fs::read_to_string(project.join("plugin.c")).unwrap();
    let other = source.replace("* 1000;", "* 3000;");
    fs::write(project.join("plugin.c"), other).unwrap();
    tells("3 cases passed, 1 failed\nwatching").await;
    // A build that fails is told, and the next change may mend it.
    fs::write(project.join("plugin.c"), "no C").unwrap();
    fs::remove_file(project.join("cases/docker-is-away.yaml")).unwrap();
    fs::write(project.join("plugin.c"), source).unwrap();
    tells("3 cases passed\nwatching").await;
}

#[test]
fn what_a_plugin_does_not_name_it_cannot_call() {
    let work = tempfile::tempdir().unwrap();
    let project = project(work.path());
    let manifest = fs::read_to_string(project.join("plugin.yaml")).unwrap();
    let less = manifest.replace("docker.inspect, docker.restart", "docker.inspect");
    fs::write(project.join("plugin.yaml"), less).unwrap();
    let made = said(&mut sentinel(&["plugin", "build", text(&project)]));
    assert_eq!(made.code, 1);
    assert!(
        made.err.contains("sentinel_plugin_docker_restart"),
        "{}",
        made.err
    );
    let wrong = manifest.replace("docker.restart", "docker.exec");
    fs::write(project.join("plugin.yaml"), wrong).unwrap();
    let made = said(&mut sentinel(&["plugin", "build", text(&project)]));
    assert_eq!(made.code, 1);
    assert!(
        made.err.contains("of docker there are docker.list"),
        "{}",
        made.err
    );
}

#[test]
fn a_run_by_hand_is_dry_unless_it_is_told_otherwise() {
    let work = tempfile::tempdir().unwrap();
    let project = project(work.path());
    build(&project);
    let wasm = project.join("mine.wasm");
    let container = Container::nginx("tc-by-hand");
    docker_ok(&["stop", "-t", "0", &container.name]);
    let target = format!("docker://local/{}", container.name);
    let run = |more: &[&str]| {
        let mut args = vec![
            "plugin",
            "run",
            text(&wasm),
            "--target",
            &target,
            "--output",
            "json",
        ];
        args.extend(more);
        said(&mut sentinel(&args))
    };

    let dry = run(&[]);
    assert_eq!(dry.code, 0, "{}", dry.err);
    let dry = dry.json();
    assert_eq!(dry["calls"][1]["what"], "would-do", "{dry:#}");
    assert_eq!(dry["calls"][1]["on"], container.name.as_str());
    assert_eq!(dry["outcome"], "changed");
    assert!(dry["peak_memory"].as_u64().unwrap() >= 64 * 1024);
    assert_eq!(container.state(), "exited");

    // Nothing is done that is not granted, and nothing is granted that is not said.
    let unsaid = run(&["--live"]);
    assert_eq!(unsaid.code, 2);
    assert!(unsaid.err.contains("--grants"), "{}", unsaid.err);
    let refused = run(&[
        "--live",
        "--grants",
        "docker: { containers: ['other-*'], actions: [inspect, restart] }",
    ]);
    assert_eq!(refused.code, 1);
    assert_eq!(refused.json()["outcome"], "denied");
    assert_eq!(container.state(), "exited");

    let live = run(&[
        "--live",
        "--grants",
        "docker: { containers: ['infra-sentinel-test-*'], actions: [inspect, restart] }",
    ]);
    assert_eq!(live.code, 0, "{}{}", live.out, live.err);
    assert_eq!(live.json()["calls"][1]["what"], "done");
    assert_eq!(container.state(), "running");
}

#[test]
fn what_is_no_plugin_is_told_what_to_do() {
    let work = tempfile::tempdir().unwrap();
    let project = project(work.path());
    build(&project);
    let wasm = project.join("mine.wasm");
    let good = said(&mut sentinel(&[
        "plugin",
        "check",
        text(&wasm),
        "--output",
        "json",
    ]));
    assert_eq!(good.code, 0, "{}", good.err);
    let good = good.json();
    assert_eq!(good["form"], "core-module");
    assert_eq!(good["name"], "mine");
    assert_eq!(
        list(&good["asks_for"]),
        ["docker.inspect", "docker.restart"]
    );
    let measured = said(&mut sentinel(&[
        "plugin",
        "bench",
        text(&wasm),
        "--runs",
        "50",
        "--case",
        text(&project.join("cases/restarts-a-stopped-one.yaml")),
        "--output",
        "json",
    ]));
    assert_eq!(measured.code, 0, "{}", measured.err);
    let measured = measured.json();
    let micros = |which: &str| measured[which].as_u64().unwrap();
    assert!(0 < micros("p50_micros") && micros("p50_micros") <= micros("p99_micros"));

    let module = work.path().join("module.wasm");
    fs::write(&module, b"\0asm\x01\0\0\0").unwrap();
    let bad = said(&mut sentinel(&["plugin", "check", text(&module)]));
    assert_eq!(bad.code, 1);
    assert!(bad.out.contains("component-type"), "{}", bad.out);
}
