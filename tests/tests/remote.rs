//! Other machines: Docker Engines behind TLS and behind ssh, and Ansible over ssh.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use sentinel_tests::containers::{Container, docker, docker_ok, unique};
use sentinel_tests::daemon::{Daemon, count, said};
use sentinel_tests::payload::Alert;
use sentinel_tests::remote::{Authority, Engine, SshServer, run, ssh_key};
use serde_json::Value;

const IMAGE: &str = "nginx:1.26.3";

/// Restarts the container that the alert names on the host that it names.
const RESTART: &str = r"
policies:
  - name: down
    match: ['alertname=Down']
    target: 'docker://{{ labels.host }}/{{ labels.container }}'
    mode: auto
    steps:
      - { plugin: docker-restart, params: { timeout: 1s }, timeout: 30s, attempts: 2, backoff: 1s }
    verify: { docker: running, within: 10s, steady: 0s }
    guards: { cooldown: 1s, flapping: off }
    grants:
      docker: { hosts: ['*'], containers: ['*'], actions: [inspect, restart, start] }
";

fn down(host: &str, container: &str) -> Alert {
    Alert::firing("Down", &[("host", host), ("container", container)])
}

/// A daemon that knows these Docker hosts.
fn prepare(hosts: &[(&str, &str)]) -> Daemon {
    let daemon = Daemon::prepare(&["docker-restart"], RESTART);
    daemon.write_config(&config(hosts));
    daemon
}

fn config(hosts: &[(&str, &str)]) -> String {
    let hosts: Vec<String> = hosts
        .iter()
        .map(|(name, host)| format!("{name}: {host}"))
        .collect();
    format!("docker: {{ hosts: {{ {} }} }}\n", hosts.join(", "))
}

async fn healed(daemon: &Daemon, id: u64) -> Value {
    let end = daemon.wait_end(id).await;
    let incident = daemon.incident(id).await;
    assert_eq!(end, "healed", "{incident:#}\n{}", daemon.log());
    incident
}

/// The incident on a target, in whatever order they open.
async fn opened_on(daemon: &Daemon, target: &str) -> u64 {
    sentinel_tests::eventually(target, Duration::from_secs(30), || async {
        let incidents = daemon.incidents().await;
        let found = incidents.iter().find(|one| one["target"] == target)?;
        found["id"].as_u64()
    })
    .await
}

fn text_of(incident: &Value, kind: &str) -> String {
    let events = incident["events"].as_array().unwrap();
    let of_kind = events.iter().rfind(|event| event["kind"] == kind);
    of_kind
        .and_then(|event| event["text"].as_str())
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_an_engine_behind_tls_are_healed() {
    let engine = Engine::start(IMAGE);
    let name = unique("tls");
    engine.docker(&["run", "-d", "--name", &name, "--network", "none", IMAGE]);
    engine.docker(&["kill", &name]);

    let stranger = Authority::new();
    stranger.sign("client", "clientAuth");
    // Ours, whose certificate the engine does not know, and theirs, whom we do not know.
    let mut unknown = engine.config(&engine.authority);
    for file in ["client.pem", "client.key"] {
        unknown = unknown.replace(&engine.authority.path(file), &stranger.path(file));
    }
    let hosts = [
        ("web1", engine.config(&engine.authority)),
        ("forged", engine.config(&stranger)),
        ("unknown", unknown),
    ];
    let hosts: Vec<(&str, &str)> = hosts.iter().map(|(name, host)| (*name, &**host)).collect();
    let mut daemon = prepare(&hosts);
    let checked = said(&mut daemon.command(&["check"]));
    assert_eq!(checked.code, 0, "{}", checked.err);
    daemon.serve().await;
    daemon.deliver(&[down("web1", &name)]).await;
    let incident = healed(&daemon, 1).await;
    assert_eq!(count(&incident, "effect-began"), 1, "{incident:#}");
    assert_eq!(
        engine.docker(&["inspect", "-f", "{{.State.Status}}", &name]),
        "running"
    );

    let before = engine.docker(&["inspect", "-f", "{{.State.StartedAt}}", &name]);
    for (id, host, reason) in [
        (2, "forged", "invalid peer certificate"),
        (3, "unknown", "ertificate"),
    ] {
        daemon.deliver(&[down(host, &name)]).await;
        assert_eq!(daemon.wait_end(id).await, "escalated");
        let incident = daemon.incident(id).await;
        let why = text_of(&incident, "run-ended");
        assert!(why.contains(reason), "{host}: {why}");
        assert_eq!(count(&incident, "effect-began"), 0, "{incident:#}");
        assert_eq!(count(&incident, "run-started"), 2, "worth another attempt");
    }
    assert_eq!(
        engine.docker(&["inspect", "-f", "{{.State.StartedAt}}", &name]),
        before
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_behind_ssh_are_healed_and_unknown_machines_are_not_asked() {
    let server = SshServer::start();
    let container = Container::nginx("ssh");
    docker_ok(&["kill", &container.name]);
    let socket = std::path::Path::new("/var/run/docker.sock");
    let nobody = tempfile::NamedTempFile::new().unwrap();
    let web2 = server.config(socket, &server.path("known_hosts"));
    let stranger = server.config(socket, &nobody.path().display().to_string());
    let elsewhere = server.config(
        std::path::Path::new("/nowhere/docker.sock"),
        &server.path("known_hosts"),
    );
    let mut daemon = prepare(&[
        ("web2", &web2),
        ("stranger", &stranger),
        ("elsewhere", &elsewhere),
    ]);
    let folder = tempfile::tempdir().unwrap();
    daemon.set("TMPDIR", &folder.path().display().to_string());
    daemon.serve().await;
    daemon.deliver(&[down("web2", &container.name)]).await;
    healed(&daemon, 1).await;
    assert_eq!(container.state(), "running");

    for (id, host, reason) in [(2, "stranger", "ost key"), (3, "elsewhere", "elsewhere")] {
        daemon.deliver(&[down(host, &container.name)]).await;
        assert_eq!(daemon.wait_end(id).await, "escalated");
        let incident = daemon.incident(id).await;
        let why = text_of(&incident, "run-ended");
        assert!(
            why.contains(reason) && why.contains("unavailable"),
            "{host}: {why}"
        );
        assert_eq!(count(&incident, "run-started"), 2, "worth another attempt");
    }

    // The connections are lost, and the next call makes another one.
    docker_ok(&["kill", &container.name]);
    let place = folder.path().display().to_string();
    let connections = run("find", &[&place, "-type", "s", "-name", "master*"]);
    assert!(!connections.is_empty());
    for connection in connections.lines() {
        run("ssh", &["-S", connection, "-O", "exit", "anybody"]);
    }
    daemon
        .deliver(&[down("web2", &container.name).again()])
        .await;
    healed(&daemon, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_cannot_be_reached_holds_up_nobody_else() {
    let container = Container::nginx("reachable");
    docker_ok(&["kill", &container.name]);
    // One that refuses, and one that takes connections and never says anything.
    let refuses = sentinel_tests::remote::free_address();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = Authority::new();
    authority.sign("client", "clientAuth");
    let files = format!(
        "tls: {{ ca: '{}', cert: '{}', key: '{}' }}",
        authority.path("ca.pem"),
        authority.path("client.pem"),
        authority.path("client.key")
    );
    let gone = format!("{{ url: 'tcp://{refuses}', {files} }}");
    let mute = format!(
        "{{ url: 'tcp://{}', {files} }}",
        silent.local_addr().unwrap()
    );
    let mut daemon = prepare(&[
        ("local", "unix:///var/run/docker.sock"),
        ("gone", &gone),
        ("mute", &mute),
    ]);
    daemon.serve().await;
    daemon
        .deliver(&[down("mute", "web"), down("gone", "web")])
        .await;
    let begun = Instant::now();
    daemon.deliver(&[down("local", &container.name)]).await;
    let local = opened_on(&daemon, &format!("docker://local/{}", container.name)).await;
    healed(&daemon, local).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    let gone = opened_on(&daemon, "docker://gone/web").await;
    assert_eq!(daemon.wait_end(gone).await, "escalated");
    let incident = daemon.incident(gone).await;
    assert_eq!(count(&incident, "run-started"), 2, "worth another attempt");
    let why = text_of(&incident, "run-ended");
    assert!(why.contains("nothing listens on"), "{why}");
}

#[test]
fn what_is_wrong_with_a_host_is_said_before_anything_runs() {
    for (host, says) in [
        ("tcp://10.0.0.5:2375", "insecure: true"),
        ("{ url: 'https://10.0.0.5:2376' }", "tls: {ca, cert, key}"),
        (
            "{ url: 'tcp://10.0.0.5:2376', tls: { ca: ca.pem, cert: cert.pem, key: key.pem } }",
            "ca.pem",
        ),
        ("{ url: 'ssh://web1', tsl: {} }", "tsl"),
        ("{ tls: {} }", "sentinel.yaml"),
        ("[tcp://127.0.0.1:1]", "a URL"),
    ] {
        let daemon = prepare(&[("local", host)]);
        let checked = said(&mut daemon.command(&["check"]));
        assert_ne!(checked.code, 0, "{host}");
        assert!(checked.err.contains(says), "{host}: {}", checked.err);
    }
}

/// A machine that Ansible reaches over ssh: a container with an ssh server.
struct Machine {
    container: Container,
    folder: tempfile::TempDir,
}

impl Machine {
    async fn start() -> Self {
        const IMAGE: &str = "infra-sentinel-test/sshd:1";
        if !docker(&["image", "inspect", IMAGE]).status.success() {
            let context = sentinel_tests::root().join("tests/images/sshd");
            docker_ok(&["build", "-t", IMAGE, &context.display().to_string()]);
        }
        let folder = tempfile::tempdir().unwrap();
        let key = ssh_key(folder.path(), "key");
        let container = Container::of(
            IMAGE,
            "machine",
            &["-p", "127.0.0.1::22", "-p", "127.0.0.1::8080"],
        );
        let public = key.with_extension("pub").display().to_string();
        let place = format!("{}:/root/.ssh/authorized_keys", container.name);
        docker_ok(&["cp", &public, &place]);
        container.exec(&["chown", "root:root", "/root/.ssh/authorized_keys"]);
        let machine = Self { container, folder };
        // Its own key, taken from the machine and not from the network.
        let known = sentinel_tests::eventually("its key", Duration::from_secs(20), || async {
            let cat = [
                "exec",
                &machine.container.name,
                "cat",
                "/etc/ssh/ssh_host_ed25519_key.pub",
            ];
            let read = docker(&cat);
            read.status
                .success()
                .then(|| String::from_utf8_lossy(&read.stdout).into_owned())
        })
        .await;
        let known = format!("[127.0.0.1]:{} {known}", machine.port("22"));
        fs::write(machine.folder.path().join("known_hosts"), known).unwrap();
        let inventory = format!(
            "[web]\nweb1 ansible_host=127.0.0.1 ansible_port={} ansible_user=root \
             ansible_ssh_private_key_file={} ansible_python_interpreter=/usr/bin/python3 \
             ansible_ssh_common_args='-o UserKnownHostsFile={}'\n",
            machine.port("22"),
            key.display(),
            machine.folder.path().join("known_hosts").display(),
        );
        fs::write(machine.folder.path().join("inventory"), inventory).unwrap();
        machine
    }

    fn port(&self, inside: &str) -> String {
        let port = docker_ok(&["port", &self.container.name, &format!("{inside}/tcp")]);
        let first = port.lines().next().unwrap_or_default();
        first.rsplit(':').next().unwrap_or_default().to_owned()
    }

    fn config(&self) -> String {
        self.folder.path().join("inventory").display().to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_another_machine_is_healed_by_a_playbook_over_ssh() {
    let machine = Machine::start().await;
    let policies = format!(
        r"
policies:
  - name: service-down
    match: ['alertname=ServiceDown']
    target: 'host://{{{{ labels.machine }}}}/web'
    mode: auto
    steps:
      - plugin: ansible-playbook
        params: {{ playbook: start-web.yml, limit: '{{{{ labels.instance }}}}' }}
        timeout: 60s
    verify: {{ http: 'http://127.0.0.1:{}/', within: 10s, steady: 0s }}
    guards: {{ cooldown: 1s, flapping: off }}
    grants:
      ansible: {{ playbooks: ['start-web.yml', 'clean-disk.yml'], hosts: [web1] }}
  - name: disk-full
    match: ['alertname=DiskFull']
    target: 'host://{{{{ labels.machine }}}}/disk'
    mode: auto
    steps:
      - plugin: ansible-playbook
        params:
          playbook: clean-disk.yml
          limit: '{{{{ labels.instance }}}}'
          vars: {{ clean: [apt, logs], log_days: 1 }}
        timeout: 60s
    verify: {{ alert: resolved, within: 30s, steady: 0s }}
    guards: {{ cooldown: 1s, flapping: off }}
    grants:
      ansible: {{ playbooks: ['clean-disk.yml'], vars: {{ clean: [apt, logs], log_days: 1 }} }}
",
        machine.port("8080")
    );
    let mut daemon = Daemon::prepare(&["ansible-playbook"], &policies);
    let config = fs::read_to_string(daemon.path("sentinel.yaml")).unwrap();
    let config = config.replace(
        "{playbooks_dir: playbooks}",
        &format!(
            "{{playbooks_dir: playbooks, inventory: '{}'}}",
            machine.config()
        ),
    );
    fs::write(daemon.path("sentinel.yaml"), config).unwrap();
    let playbook = "- hosts: web\n  gather_facts: false\n  tasks:\n    - name: Start the server\n      \
                    ansible.builtin.shell: nohup python3 -m http.server 8080 >/dev/null 2>&1 &\n";
    fs::write(daemon.path("playbooks").join("start-web.yml"), playbook).unwrap();
    daemon.serve().await;
    daemon
        .deliver(&[Alert::firing(
            "ServiceDown",
            &[("machine", "web1"), ("instance", "web1:9100")],
        )])
        .await;
    let incident = healed(&daemon, 1).await;
    assert!(
        text_of(&incident, "run-ended").contains("on web1"),
        "{incident:#}"
    );

    // And its disk is cleaned.
    machine.container.exec(&[
        "sh",
        "-c",
        "rm -f /var/cache/apt/archives/*.deb && head -c 5000 /dev/zero > /var/log/old.1 && touch -d '9 days ago' /var/log/old.1 && \
         head -c 7000 /dev/zero > /var/cache/apt/archives/x_1_amd64.deb",
    ]);
    let alert = Alert::firing(
        "DiskFull",
        &[("machine", "web1"), ("instance", "web1:9100")],
    );
    daemon.deliver(std::slice::from_ref(&alert)).await;
    let report = daemon
        .wait_state(2, Duration::from_secs(60), |incident| {
            (count(incident, "run-ended") > 0).then(|| incident.to_string())
        })
        .await;
    assert!(report.contains("freed 12000 bytes on web1"), "{report}");
    daemon.deliver(&[alert.resolved()]).await;
    healed(&daemon, 2).await;
    let left = docker_ok(&[
        "exec",
        &machine.container.name,
        "sh",
        "-c",
        "ls /var/log/old.1 /var/cache/apt/archives/*.deb 2>/dev/null || true",
    ]);
    assert_eq!(left, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_cannot_be_reached_is_worth_another_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let inventory = folder.path().join("inventory");
    let address = sentinel_tests::remote::free_address();
    fs::write(
        &inventory,
        format!(
            "web1 ansible_host=127.0.0.1 ansible_port={}\n",
            address.port()
        ),
    )
    .unwrap();
    let policies = r"
policies:
  - name: disk-full
    match: ['alertname=DiskFull']
    target: 'host://web1/disk'
    mode: auto
    steps:
      - plugin: ansible-playbook
        params: { playbook: clean-disk.yml, vars: { clean_hosts: 'web1:9100' } }
        timeout: 60s
        attempts: 2
        backoff: 1s
    verify: { alert: resolved, within: 5s, steady: 0s }
    guards: { cooldown: 1s, flapping: off }
    grants:
      ansible: { playbooks: ['clean-disk.yml'], vars: { clean_hosts: 'web*' } }
";
    let mut daemon = Daemon::prepare(&["ansible-playbook"], policies);
    daemon.set(
        "SENTINEL_ANSIBLE_INVENTORY",
        &inventory.display().to_string(),
    );
    daemon.serve().await;
    daemon.deliver(&[Alert::firing("DiskFull", &[])]).await;
    assert_eq!(daemon.wait_end(1).await, "escalated");
    let incident = daemon.incident(1).await;
    assert_eq!(count(&incident, "run-started"), 2, "{incident:#}");
    let why = text_of(&incident, "run-ended");
    assert!(why.contains("could not reach web1"), "{why}");
}
