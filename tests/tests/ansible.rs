//! Ansible as an operator grants it: what a plugin or a label would like to add to that is
//! denied, and nothing that they say is evaluated.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use sentinel_tests::containers::{Container, unique};
use sentinel_tests::daemon::{Daemon, count, said};
use sentinel_tests::payload::Alert;
use serde_json::{Value, json};

/// The newest Ansible that this machine's Python can run.
fn newest() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"),
        PathBuf::from,
    );
    let program = cache.join("infra-sentinel/toolchains/ansible/bin/ansible-playbook");
    assert!(
        program.exists(),
        "{} is not there: run stack/setup/toolchains.sh ansible",
        program.display()
    );
    program
}

fn logged(incident: &Value) -> Vec<&str> {
    incident["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "logged")
        .map(|event| event["message"].as_str().unwrap())
        .collect()
}

/// Runs a hostile plugin's script under these grants, and returns what became of each line.
async fn script(target: &str, grants: &str, lines: &[String], prepare: impl Fn(&Daemon)) -> Value {
    let policies = format!(
        "
policies:
  - name: tricks
    mode: auto
    match: ['alertname=Tricks']
    target: '{target}'
    steps: [{{ plugin: scripted, params: {{ script: {} }}, timeout: 2m }}]
    verify: {{ alert: resolved, within: 1s }}
    grants:
      docker: {{ containers: ['infra-sentinel-test-*'], actions: [list, inspect, logs, start, stop, restart, kill, recreate, duplicate, remove] }}
      http: {{ urls: ['http://allowed.example/*'], methods: [GET] }}
      {grants}
",
        serde_json::to_string(lines).unwrap()
    );
    let mut daemon = Daemon::prepare(&["scripted"], &policies);
    prepare(&daemon);
    daemon.serve().await;
    daemon.deliver(&[Alert::firing("Tricks", &[])]).await;
    daemon.wait_end(1).await;
    daemon.incident(1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_sets_no_variable_of_a_playbook_that_is_not_granted() {
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let play = |how: Value| format!("play clean-disk.yml {how}");
    let old = json!([victim]);
    let lines = [
        // What the playbook finds out, in the plugin's words.
        play(
            json!({"vars": {"clean": ["logs"], "log_dirs": ["/nowhere"], "logs": {"files": [1]}, "old": old}}),
        ),
        play(json!({"vars": {"clean_hosts": "all"}})),
        play(json!({"vars": {"docker_socket": "/tmp/x.sock"}})),
        play(json!({"vars": {"journal_keep": "900T"}})),
        play(json!({"vars": {"clean": {"a": {"{{ '{{' }} lookup('pipe', 'id') }}": 1}}}})),
        play(json!({"vars": {"ansible_connection": "ssh"}})),
        play(json!({"vars": {"container": "other"}})),
        play(json!({"vars": {"sentinel": {"target": {"name": "other"}}}})),
        play(json!({"vars": {"sentinel": {"alert": {"labels": {"alertname": "Other"}}}}})),
        play(json!({"vars": {"sentinel": {"more": 1}}})),
        play(json!({"tags": ["never"]})),
        play(json!({"limit": "!web1"})),
        "playbook other.yml".to_owned(),
    ];
    let grants = "ansible: { playbooks: ['clean-disk.yml'], vars: { clean: [logs], journal_keep: '[0-9]*M' } }";
    let incident = script("host://site/disk", grants, &lines, |_| {}).await;
    let logged = logged(&incident);
    assert_eq!(logged.len(), lines.len(), "{logged:#?}");
    for line in &logged {
        assert!(line.contains(": refused: "), "{line}");
    }
    // What would have to be granted is said.
    assert!(
        logged[0].contains("the policy grants the variables clean, journal_keep; if that is wanted, write `grants: { ansible: {"),
        "{}",
        logged[0]
    );
    assert_eq!(count(&incident, "effect-began"), 0, "{incident:#}");
    assert!(victim.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn not_even_a_grant_lets_a_plugin_into_what_a_task_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let lines = ["old", "logs"].map(|name| {
        let vars = json!({"clean": ["logs"], name: [victim]});
        format!("play clean-disk.yml {}", json!({"vars": vars}))
    });
    let grants =
        "ansible: { playbooks: ['clean-disk.yml'], vars: { clean: logs, old: '**', logs: '**' } }";
    let incident = script("host://site/disk", grants, &lines, |_| {}).await;
    for (line, name) in logged(&incident).iter().zip(["old", "logs"]) {
        assert!(
            line.contains(&format!("it sets the variable `{name}` itself")),
            "{line}"
        );
    }
    assert!(victim.exists());
}

const DEGRADED: &str = "
policies:
  - name: degraded
    match: ['alertname=Degraded']
    target: 'docker://local/{{ labels.container }}'
    mode: auto
    steps:
      - plugin: ansible-playbook
        params: { playbook: restart-container.yml }
        timeout: 60s
    verify: { docker: running, within: 10s }
    guards: { cooldown: 1s }
    grants:
      docker: { containers: ['infra-sentinel-test-granted-*'], actions: [inspect, restart] }
      ansible: { playbooks: ['restart-container.yml'] }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_playbook_acts_on_containers_that_docker_grants() {
    let granted = Container::nginx("granted");
    let victim = Container::nginx("victim");
    let before = [granted.started_at(), victim.started_at()];
    let daemon = Daemon::start(&["ansible-playbook"], DEGRADED).await;
    let id = victim.inspect("{{.Id}}");
    // Under any of its names.
    for (number, name) in [victim.name.as_str(), id.trim()].iter().enumerate() {
        let number = number as u64 + 1;
        daemon
            .deliver(&[Alert::firing("Degraded", &[("container", name)])])
            .await;
        assert_eq!(daemon.wait_end(number).await, "escalated");
        let incident = daemon.incident(number).await;
        let reason = incident["reason"].as_str().unwrap();
        assert!(
            reason.contains("a playbook acts on its target, and of docker the policy grants the containers infra-sentinel-test-granted-*; if that is wanted, write `grants: { docker: {"),
            "{reason}"
        );
        assert_eq!(count(&incident, "effect-began"), 0, "{incident:#}");
    }
    assert_eq!(victim.started_at(), before[1]);
    daemon
        .deliver(&[Alert::firing("Degraded", &[("container", &granted.name)])])
        .await;
    assert_eq!(daemon.wait_end(3).await, "healed");
    assert_ne!(granted.started_at(), before[0]);
}

#[test]
fn a_policy_that_could_never_run_its_playbook_does_not_load() {
    for (from, to, says) in [
        ("", "", "all good"),
        (
            "      docker: { containers: ['infra-sentinel-test-granted-*'], actions: [inspect, restart] }\n",
            "",
            "of docker the policy grants nothing",
        ),
        (
            "[inspect, restart]",
            "[inspect]",
            "actions: [inspect, restart]",
        ),
        (
            "{{ labels.container }}",
            "other",
            "containers: ['infra-sentinel-test-granted-*', 'other']",
        ),
        (
            "restart-container.yml }",
            "restart-container.yml, vars: { stop_timeout: '{{ labels.t }}' } }",
            "vars: { stop_timeout: 'VALUE' }",
        ),
        (
            "restart-container.yml }",
            "restart-container.yml, tags: [safe] }",
            "tags: ['safe']",
        ),
        (
            "restart-container.yml }",
            "restart-container.yml, limit: 'web*' }",
            "is not the name of one host",
        ),
    ] {
        assert!(DEGRADED.contains(from), "{from}");
        let policies = DEGRADED.replace(from, to);
        let daemon = Daemon::prepare(&["ansible-playbook"], &policies);
        let output = said(&mut daemon.command(&["check"]));
        let text = format!("{}{}", output.out, output.err);
        assert!(text.contains(says), "{to}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_a_label_runs_nothing() {
    for program in [PathBuf::from("ansible-playbook"), newest()] {
        let policies = "
policies:
  - name: tell
    match: ['alertname=Tell']
    target: host://site/tell
    mode: auto
    steps: [{ plugin: ansible-playbook, params: { playbook: tell.yml } }]
    verify: { alert: resolved, within: 1s }
    grants: { ansible: { playbooks: [tell.yml] } }
";
        let mut daemon = Daemon::prepare(&["ansible-playbook"], policies);
        let out = daemon.path("out");
        fs::write(
            daemon.path("playbooks").join("tell.yml"),
            "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - debug: {msg: '{{ item.key }} {{ item.value }}'}\n      loop: '{{ sentinel.alert.labels | dict2items + sentinel.alert.annotations | dict2items }}'\n",
        )
        .unwrap();
        daemon.set("SENTINEL_ANSIBLE_PROGRAM", program.to_str().unwrap());
        daemon.serve().await;
        let attack = format!("{{{{ lookup('pipe', 'touch {}') }}}}", out.display());
        let body = json!([{
            "labels": {"alertname": "Tell", &attack: &attack},
            "annotations": {&attack: &attack},
        }]);
        let (status, said) = daemon.post("/api/v2/alerts", body.to_string()).await;
        assert!(status.is_success(), "{said}");
        let incident = daemon
            .wait_state(1, Duration::from_secs(90), |incident| {
                (count(incident, "run-ended") > 0).then(|| incident.clone())
            })
            .await;
        assert!(!out.exists(), "{incident:#}");
        assert!(incident.to_string().contains("ok=1"), "{incident:#}");
    }
}

/// The example of the documentation that has `what`.
fn example(what: &str) -> String {
    let text = fs::read_to_string(sentinel_tests::root().join("plugins/README.md")).unwrap();
    let mut blocks = text.split("```yaml\n").skip(1);
    let block = blocks.find(|block| block.split("```").next().unwrap().contains(what));
    block.unwrap().split("```").next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_limit_takes_the_label_as_it_comes() {
    // Nothing of this machine is cleaned.
    let example: Vec<_> = example("limit: '{{ labels.instance }}'")
        .replace(
            "clean: [docker, journal, logs]",
            "clean: [logs], log_dirs: [/nowhere]",
        )
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    let example = example.concat();
    let policies = format!(
        "
policies:
  - name: disk-full
    match: ['alertname=DiskFull']
    target: 'host://site/{{{{ labels.number }}}}'
    mode: auto
    verify: {{ alert: resolved, within: 1s }}
{example}"
    );
    let mut daemon = Daemon::prepare(&["ansible-playbook"], &policies);
    fs::write(
        daemon.path("hosts"),
        "[web]\nweb1\nweb2\n2001:db8::1\n[all:vars]\nansible_connection=local\nansible_python_interpreter=/usr/bin/python3\n",
    )
    .unwrap();
    let inventory = daemon.path("hosts");
    daemon.set("SENTINEL_ANSIBLE_INVENTORY", inventory.to_str().unwrap());
    daemon.serve().await;
    for (number, (instance, host)) in [
        ("web1:9100", "web1"),
        ("[2001:db8::1]:9100", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("web2", "web2"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = number as u64 + 1;
        let number = number.to_string();
        let labels = [("instance", instance), ("number", number.as_str())];
        daemon.deliver(&[Alert::firing("DiskFull", &labels)]).await;
        let incident = daemon
            .wait_state(id, Duration::from_secs(90), |incident| {
                (count(incident, "run-ended") > 0).then(|| incident.clone())
            })
            .await;
        let text = incident.to_string();
        assert!(text.contains(&format!("bytes on {host}:")), "{incident:#}");
        for other in ["web1", "web2", "2001:db8::1"] {
            let on = format!("bytes on {other}:");
            assert!(other == host || !text.contains(&on), "{incident:#}");
        }
    }
    // What is no name of one host chooses none.
    for (number, instance) in [
        "all",
        "web",
        "!web1",
        "web1,web2",
        "web*",
        "~web",
        "{{ 1 }}",
        "",
    ]
    .into_iter()
    .enumerate()
    {
        let id = number as u64 + 5;
        let number = format!("no-{number}");
        let labels = [("instance", instance), ("number", number.as_str())];
        daemon.deliver(&[Alert::firing("DiskFull", &labels)]).await;
        assert_eq!(daemon.wait_end(id).await, "escalated");
        let incident = daemon.incident(id).await;
        assert!(!incident.to_string().contains("bytes on"), "{incident:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_plan_is_for_the_playbook_as_it_was() {
    let policies = "
policies:
  - name: play
    match: ['alertname=Play']
    target: 'host://site/{{ labels.number }}'
    mode: approve
    steps: [{ plugin: ansible-playbook, params: { playbook: play.yml } }]
    verify: { alert: resolved, within: 1s }
    guards: { cooldown: 1s }
    grants: { ansible: { playbooks: [play.yml] } }
";
    let daemon = Daemon::prepare(&["ansible-playbook"], policies);
    let mut daemon = daemon;
    let write_play = |daemon: &Daemon, name: &str| {
        let out = daemon.path(name);
        fs::write(
            daemon.path("playbooks").join("play.yml"),
            format!(
                "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - copy: {{dest: {}, content: x}}\n    - include_tasks: more.yml\n",
                out.display()
            ),
        )
        .unwrap();
        out
    };
    let more = "- debug: { msg: more }\n";
    fs::write(daemon.path("playbooks").join("more.yml"), more).unwrap();
    let first = write_play(&daemon, "first");
    daemon.serve().await;
    for (id, changed) in [(1, false), (2, true), (3, true)] {
        let number = id.to_string();
        daemon
            .deliver(&[Alert::firing("Play", &[("number", number.as_str())])])
            .await;
        let plan = daemon
            .wait_state(id, Duration::from_secs(60), |incident| {
                let plan = incident["plan"]["digest"].as_str()?;
                Some(plan.to_owned())
            })
            .await;
        let second = changed.then(|| {
            if id == 2 {
                return write_play(&daemon, "second");
            }
            // What the playbook includes is part of it.
            let more = more.replace("more", "other");
            fs::write(daemon.path("playbooks").join("more.yml"), more).unwrap();
            daemon.path("second")
        });
        let output = said(
            daemon
                .command(&["approve", &number, "--plan", &plan])
                .env("USER", "ann"),
        );
        assert_eq!(output.code, 0, "{}", output.err);
        daemon.wait_end(id).await;
        let incident = daemon.incident(id).await;
        match second {
            None => assert!(first.exists(), "{incident:#}"),
            Some(second) => {
                assert!(!second.exists(), "{incident:#}");
                let text = incident.to_string();
                assert!(text.contains("deviated from the approved plan"), "{text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_gone_is_granted_by_its_name() {
    let gone = unique("granted");
    let other = unique("other");
    let daemon = Daemon::start(&["ansible-playbook"], DEGRADED).await;
    for (id, name, said) in [
        (1, &gone, "there is no container"),
        (2, &other, "is not granted"),
    ] {
        daemon
            .deliver(&[Alert::firing("Degraded", &[("container", name)])])
            .await;
        assert_eq!(daemon.wait_end(id).await, "escalated");
        let incident = daemon.incident(id).await;
        assert!(incident.to_string().contains(said), "{incident:#}");
    }
}
