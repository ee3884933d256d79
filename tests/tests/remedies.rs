//! The built-in remedies beyond a restart, each on real containers through the real
//! daemon.

use std::time::Duration;

use sentinel_tests::containers::{Container, docker, docker_ok, unique};
use sentinel_tests::daemon::{Daemon, count, said};
use sentinel_tests::payload::Alert;
use serde_json::Value;

/// A policy of one step on the container that the alert names.
fn policy(plugin: &str, params: &str, verify: &str, actions: &str) -> String {
    format!(
        r"
policies:
  - name: remedy
    match: ['alertname=Down']
    target: 'docker://local/{{{{ labels.container }}}}'
    mode: auto
    steps:
      - plugin: {plugin}
        params: {params}
        timeout: 60s
    verify: {{ {verify}, within: 20s, steady: 0s }}
    guards: {{ cooldown: 1s, flapping: off }}
    grants:
      docker: {{ containers: ['infra-sentinel-test-*'], actions: [{actions}] }}
"
    )
}

fn down(container: &str) -> Alert {
    Alert::firing("Down", &[("container", container)])
}

async fn healed(daemon: &Daemon, id: u64) -> Value {
    let end = daemon.wait_end(id).await;
    let incident = daemon.incident(id).await;
    assert_eq!(end, "healed", "{incident:#}\n{}", daemon.log());
    incident
}

/// The names of the effects that were begun, in order, each with what it was done on.
fn effects(incident: &Value) -> Vec<String> {
    incident["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "effect-began")
        .map(|event| event["text"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Waits for the plan of incident 1; its digest.
async fn planned(daemon: &Daemon) -> String {
    daemon
        .wait_state(1, Duration::from_secs(20), |incident| {
            let digest = incident["plan"]["digest"].as_str()?;
            (incident["state"] == "awaiting-approval").then(|| digest.to_owned())
        })
        .await
}

fn approve(daemon: &Daemon, plan: &str) {
    let mut command = daemon.command(&["approve", "1", "--plan", plan]);
    let approved = said(command.env("USER", "ann"));
    assert_eq!(approved.code, 0, "{}", approved.err);
}

/// What the run said in the end.
fn last_word(incident: &Value) -> String {
    incident["events"]
        .as_array()
        .unwrap()
        .iter()
        .rfind(|event| event["kind"] == "run-ended")
        .map(|event| event["text"].as_str().unwrap_or_default().to_owned())
        .unwrap_or_default()
}

mod rolling {
    use super::*;

    const ACTIONS: &str = "list, inspect, restart";

    fn fleet(label: &str, count: usize, more: &[&str]) -> Vec<Container> {
        let label = format!("{label}=1");
        (0..count)
            .map(|_| {
                let mut options = vec!["--label", label.as_str()];
                options.extend(more);
                Container::with("rolling", &options)
            })
            .collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_fleet_is_restarted_one_after_the_other() {
        let label = unique("fleet");
        let fleet = fleet(&label, 3, &[]);
        let before: Vec<String> = fleet.iter().map(Container::started_at).collect();
        let params = format!("{{ labels: {{ '{label}': '1' }}, steady: 500ms, timeout: 1s }}");
        let policies = policy("rolling-restart", &params, "docker: running", ACTIONS);
        let daemon = Daemon::start(&["rolling-restart"], &policies).await;
        daemon.deliver(&[down(&fleet[0].name)]).await;
        let incident = healed(&daemon, 1).await;
        assert_eq!(count(&incident, "effect-began"), 3, "{incident:#}");
        let mut starts: Vec<(String, String)> = fleet
            .iter()
            .map(|container| (container.name.clone(), container.started_at()))
            .collect();
        for ((_, after), before) in starts.iter().zip(&before) {
            assert_ne!(after, before);
        }
        starts.sort();
        assert!(
            starts.windows(2).all(|pair| pair[0].1 < pair[1].1),
            "in order, each after the one before: {starts:?}"
        );
        assert!(
            last_word(&incident).contains("in 3 batches"),
            "{incident:#}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_stops_at_the_first_that_does_not_come_back_and_goes_on_from_there() {
        let label = unique("fleet");
        // Its health check passes as long as the file is there, which a restart keeps.
        let mut fleet = fleet(
            &label,
            3,
            &[
                "--health-cmd",
                "test -e /healthy",
                "--health-interval",
                "300ms",
                "--health-retries",
                "1",
            ],
        );
        fleet.sort_by(|a, b| a.name.cmp(&b.name));
        for container in &fleet {
            container.exec(&["touch", "/healthy"]);
            container.wait_health("healthy").await;
        }
        // The second one is to be found ill as soon as it is looked at again.
        fleet[1].exec(&["sh", "-c", "rm /healthy"]);
        fleet[1].wait_health("unhealthy").await;
        let third = fleet[2].started_at();
        let params =
            format!("{{ labels: {{ '{label}': '1' }}, wait: 3s, timeout: 1s, steady: 500ms }}");
        let policies = policy("rolling-restart", &params, "alert: resolved", ACTIONS);
        let daemon = Daemon::start(&["rolling-restart"], &policies).await;
        let alert = down(&fleet[0].name);
        daemon.deliver(std::slice::from_ref(&alert)).await;
        assert_eq!(daemon.wait_end(1).await, "escalated");
        let incident = daemon.incident(1).await;
        // What does not work comes first, and nothing else is touched when it stays so.
        assert_eq!(count(&incident, "effect-began"), 1, "{incident:#}");
        assert_eq!(fleet[2].started_at(), third);
        let why = last_word(&incident);
        assert!(
            why.contains("done: none")
                && why.contains(&format!("not seen to work: {}", fleet[1].name))
                && why.contains(&format!("not done: {}, {}", fleet[0].name, fleet[2].name)),
            "{why}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_in_the_middle_it_goes_on_and_restarts_none_twice() {
        let label = unique("fleet");
        let fleet = fleet(&label, 3, &[]);
        let params = format!("{{ labels: {{ '{label}': '1' }}, steady: 2s, timeout: 1s }}");
        let policies = policy("rolling-restart", &params, "docker: running", ACTIONS);
        let mut daemon = Daemon::start(&["rolling-restart"], &policies).await;
        daemon.deliver(&[down(&fleet[0].name)]).await;
        daemon
            .wait_state(1, Duration::from_secs(20), |incident| {
                (count(incident, "effect-ended") == 1).then_some(())
            })
            .await;
        daemon.kill();
        daemon.serve().await;
        let incident = healed(&daemon, 1).await;
        assert_eq!(count(&incident, "run-resumed"), 1, "{incident:#}");
        assert_eq!(count(&incident, "effect-ended"), 3, "{incident:#}");
        for container in &fleet {
            let restarts = effects(&incident)
                .iter()
                .filter(|effect| effect.contains(&container.name))
                .count();
            assert_eq!(restarts, 1, "{}: {incident:#}", container.name);
        }
    }
}

mod replacing {
    use super::*;

    const ACTIONS: &str = "inspect, recreate";

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_broken_inside_a_container_is_healed_by_a_new_one() {
        let volume = unique("volume");
        let mount = format!("{volume}:/data");
        // Broken once, it stays so over restarts, and only a new file system helps.
        let container = Container::with(
            "replace",
            &[
                "-v",
                &mount,
                "-p",
                "127.0.0.1::80",
                "--health-cmd",
                "test ! -e /broken",
                "--health-interval",
                "300ms",
                "--health-retries",
                "1",
            ],
        );
        container.exec(&["sh", "-c", "echo kept > /data/kept; touch /broken"]);
        container.wait_health("unhealthy").await;
        let before = container.inspect("{{.Id}}");
        let policies = policy(
            "replace",
            "{ timeout: 1s, wait: 20s }",
            "docker: healthy",
            ACTIONS,
        );
        let daemon = Daemon::start(&["replace"], &policies).await;
        daemon.deliver(&[down(&container.name)]).await;
        let incident = healed(&daemon, 1).await;
        let after = container.inspect("{{.Id}}");
        assert_ne!(after, before);
        let said = last_word(&incident);
        assert!(
            said.contains(&after[..12]) && said.contains("healthy"),
            "{said}"
        );
        assert_eq!(count(&incident, "effect-began"), 1, "{incident:#}");
        container.exec(&["grep", "-q", "kept", "/data/kept"]);
        let page = reqwest_get(&container.url()).await;
        assert_eq!(page, 200);
        drop(container);
        docker(&["volume", "rm", "-f", &volume]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_new_one_that_does_not_work_either_is_told() {
        let container = Container::with(
            "replace",
            &[
                "--health-cmd",
                "false",
                "--health-interval",
                "300ms",
                "--health-retries",
                "1",
            ],
        );
        container.wait_health("unhealthy").await;
        let policies = policy(
            "replace",
            "{ timeout: 1s, wait: 2s }",
            "docker: healthy",
            ACTIONS,
        );
        let daemon = Daemon::start(&["replace"], &policies).await;
        daemon.deliver(&[down(&container.name)]).await;
        assert_eq!(daemon.wait_end(1).await, "escalated");
        let incident = daemon.incident(1).await;
        let said = last_word(&incident);
        assert!(said.contains("was replaced, and"), "{said}\n{incident:#}");
        assert!(said.contains("unhealthy"), "{said}");
    }

    async fn reqwest_get(url: &str) -> u16 {
        sentinel_tests::daemon::client()
            .get(url)
            .send()
            .await
            .expect("an answer")
            .status()
            .as_u16()
    }
}

mod dependents {
    use super::*;

    const ACTIONS: &str = "list, inspect, start, restart, recreate";

    /// Labels of a Compose service.
    fn service(project: &str, name: &str, depends_on: &str) -> Vec<String> {
        [
            ("project", project),
            ("service", name),
            ("depends_on", depends_on),
            ("oneoff", "False"),
        ]
        .into_iter()
        .flat_map(|(label, value)| {
            [
                "--label".to_owned(),
                format!("com.docker.compose.{label}={value}"),
            ]
        })
        .collect()
    }

    fn run(base: &str, labels: &[String], more: &[&str]) -> Container {
        let mut options: Vec<&str> = labels.iter().map(String::as_str).collect();
        options.extend(more);
        Container::with(base, &options)
    }

    /// Whether the container sees the page of the one whose network it shares.
    fn has_network(container: &Container) -> bool {
        let interfaces = docker_ok(&["exec", &container.name, "cat", "/proc/net/dev"]);
        interfaces.contains("eth0")
    }

    fn daemon_policies() -> String {
        policy(
            "restart-dependents",
            "{ timeout: 1s, steady: 500ms }",
            "docker: running",
            ACTIONS,
        )
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_shares_the_network_gets_it_back_and_who_depends_follows_in_order() {
        let project = unique("project");
        let vpn = run("vpn", &service(&project, "vpn", ""), &[]);
        let network = format!("container:{}", vpn.name);
        let web = run(
            "web",
            &service(&project, "web", "vpn:service_started:true"),
            &["--network", &network, "--entrypoint", "sleep"],
        );
        let app = run(
            "app",
            &service(&project, "app", "web:service_started:true"),
            &[],
        );
        assert!(has_network(&web));
        docker_ok(&["stop", "-t", "0", &vpn.name]);
        let daemon = Daemon::start(&["restart-dependents"], &daemon_policies()).await;
        daemon.deliver(&[down(&vpn.name)]).await;
        let incident = healed(&daemon, 1).await;
        assert_eq!(count(&incident, "effect-began"), 3, "{incident:#}");
        assert!(has_network(&web), "{incident:#}");
        let (first, second, third) = (vpn.started_at(), web.started_at(), app.started_at());
        assert!(first < second && second < third, "{first} {second} {third}");

        // The same alert again: nothing is behind, and the container itself is young.
        daemon.deliver(&[down(&vpn.name)]).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_was_left_behind_by_somebody_elses_restart_is_restarted_alone() {
        let vpn = Container::with("vpn", &[]);
        let network = format!("container:{}", vpn.name);
        let web = Container::with("web", &["--network", &network, "--entrypoint", "sleep"]);
        docker_ok(&["restart", "-t", "0", &vpn.name]);
        assert!(!has_network(&web), "Docker leaves it without a network");
        let before = vpn.started_at();
        let daemon = Daemon::start(&["restart-dependents"], &daemon_policies()).await;
        daemon.deliver(&[down(&vpn.name)]).await;
        let incident = healed(&daemon, 1).await;
        assert_eq!(count(&incident, "effect-began"), 1, "{incident:#}");
        assert_eq!(vpn.started_at(), before);
        assert!(has_network(&web));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_shares_the_network_of_a_replaced_container_is_recreated() {
        let project = unique("project");
        let labels = service(&project, "vpn", "");
        let vpn = run("vpn", &labels, &[]);
        let network = format!("container:{}", vpn.name);
        let web = run(
            "web",
            &service(&project, "web", "vpn:service_started:true"),
            &["--network", &network, "--entrypoint", "sleep"],
        );
        let before = web.inspect("{{.Id}}");
        // As `docker compose up --force-recreate vpn` leaves it.
        drop(vpn);
        let vpn = run("vpn", &labels, &[]);
        let daemon = Daemon::start(&["restart-dependents"], &daemon_policies()).await;
        daemon.deliver(&[down(&vpn.name)]).await;
        let incident = healed(&daemon, 1).await;
        assert_ne!(web.inspect("{{.Id}}"), before, "{incident:#}");
        assert!(has_network(&web), "{incident:#}");
        assert_eq!(
            web.inspect("{{.HostConfig.NetworkMode}}"),
            format!("container:{}", vpn.inspect("{{.Id}}"))
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_plan_has_the_whole_family() {
        let vpn = Container::with("vpn", &[]);
        let network = format!("container:{}", vpn.name);
        let web = Container::with("web", &["--network", &network, "--entrypoint", "sleep"]);
        docker_ok(&["stop", "-t", "0", &vpn.name]);
        let policies = daemon_policies().replace("mode: auto", "mode: approve");
        let daemon = Daemon::start(&["restart-dependents"], &policies).await;
        daemon.deliver(&[down(&vpn.name)]).await;
        let plan = planned(&daemon).await;
        let before = web.started_at();
        approve(&daemon, &plan);
        let incident = healed(&daemon, 1).await;
        assert_eq!(count(&incident, "effect-began"), 2, "{incident:#}");
        assert_ne!(web.started_at(), before);
        assert!(has_network(&web));
    }
}

mod scaling {
    use super::*;

    const ACTIONS: &str = "list, inspect, start, duplicate, remove";

    /// A service of one container; its name without the number.
    fn service(more: &[&str]) -> (String, Container) {
        let project = unique("scale");
        let name = format!("{project}-web-1");
        let label = format!("com.docker.compose.project={project}");
        let mut options = vec![
            "--label",
            &label,
            "--label",
            "com.docker.compose.service=web",
            "--label",
            "com.docker.compose.container-number=1",
            "--label",
            "com.docker.compose.oneoff=False",
        ];
        options.extend(more);
        let container = Container::named(&name, &options);
        (format!("{project}-web"), container)
    }

    fn policies(change: &str) -> String {
        policy(
            "scale",
            &format!(
                "{{ change: {change}, min: 1, max: 2, timeout: 1s, steady: 500ms, wait: 3s }}"
            ),
            "alert: resolved",
            ACTIONS,
        )
    }

    /// The containers of the service, by name.
    fn replicas(stem: &str) -> Vec<String> {
        let filter = format!("name={stem}");
        let names = docker_ok(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]);
        let mut names: Vec<String> = names.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Delivers the alert, waits for the run, and says that the alert is over.
    async fn scale(daemon: &Daemon, id: u64, alert: &Alert) -> Value {
        daemon.deliver(std::slice::from_ref(alert)).await;
        daemon
            .wait_state(id, Duration::from_secs(30), |incident| {
                (count(incident, "run-ended") > 0).then_some(())
            })
            .await;
        daemon.deliver(&[alert.resolved()]).await;
        daemon.wait_end(id).await;
        daemon.incident(id).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_service_grows_to_its_bound_and_shrinks_to_the_other() {
        let (stem, first) = service(&["-p", "127.0.0.1::80"]);
        let second = Container {
            name: format!("{stem}-2"),
        };
        let daemon = Daemon::start(&["scale"], &policies("1")).await;
        let alert = down(&first.name);
        let incident = scale(&daemon, 1, &alert).await;
        assert_eq!(incident["end"], "healed", "{incident:#}");
        assert_eq!(replicas(&stem), [first.name.clone(), second.name.clone()]);
        assert_eq!(second.state(), "running");
        assert_ne!(second.url(), first.url(), "with a port of its own");
        let number = r#"{{index .Config.Labels "com.docker.compose.container-number"}}"#;
        assert_eq!(second.inspect(number), "2");

        // At the upper bound there is nothing left that it may do.
        tokio::time::sleep(Duration::from_secs(1)).await;
        daemon.deliver(&[alert.again()]).await;
        assert_eq!(daemon.wait_end(2).await, "escalated");
        let incident = daemon.incident(2).await;
        assert_eq!(count(&incident, "effect-began"), 0, "{incident:#}");
        assert!(last_word(&incident).contains("`max` is 2"), "{incident:#}");
        assert_eq!(replicas(&stem).len(), 2);
        drop(daemon);

        let daemon = Daemon::start(&["scale"], &policies("-1")).await;
        let incident = scale(&daemon, 1, &down(&first.name)).await;
        assert_eq!(incident["end"], "healed", "{incident:#}");
        assert_eq!(replicas(&stem), [first.name.as_str()]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_new_one_that_does_not_work_is_removed_again() {
        let (stem, first) = service(&[
            "--health-cmd",
            "test -e /healthy",
            "--health-interval",
            "300ms",
            "--health-retries",
            "1",
        ]);
        first.exec(&["touch", "/healthy"]);
        first.wait_health("healthy").await;
        let daemon = Daemon::start(&["scale"], &policies("1")).await;
        daemon.deliver(&[down(&first.name)]).await;
        assert_eq!(daemon.wait_end(1).await, "escalated");
        let incident = daemon.incident(1).await;
        assert!(
            last_word(&incident).contains("removed again"),
            "{incident:#}"
        );
        assert_eq!(replicas(&stem), [first.name.as_str()]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_name_that_is_not_granted_is_not_made() {
        let (stem, first) = service(&[]);
        let policies = policies("1").replace(
            "containers: ['infra-sentinel-test-*']",
            &format!("containers: ['{}']", first.name),
        );
        let daemon = Daemon::start(&["scale"], &policies).await;
        daemon.deliver(&[down(&first.name)]).await;
        assert_eq!(daemon.wait_end(1).await, "escalated");
        let incident = daemon.incident(1).await;
        assert!(last_word(&incident).contains("not granted"), "{incident:#}");
        assert_eq!(replicas(&stem), [first.name.as_str()]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_approved_plan_of_a_new_container_is_carried_out() {
        let (stem, first) = service(&[]);
        let _second = Container {
            name: format!("{stem}-2"),
        };
        let policies = policies("1").replace("mode: auto", "mode: approve");
        let daemon = Daemon::start(&["scale"], &policies).await;
        let alert = down(&first.name);
        daemon.deliver(std::slice::from_ref(&alert)).await;
        let plan = planned(&daemon).await;
        assert_eq!(replicas(&stem).len(), 1, "nothing is done before");
        approve(&daemon, &plan);
        sentinel_tests::eventually("a second one", Duration::from_secs(20), || async {
            (replicas(&stem).len() == 2).then_some(())
        })
        .await;
        daemon.deliver(&[alert.resolved()]).await;
        assert_eq!(daemon.wait_end(1).await, "healed");
    }
}

mod disk {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use sentinel_tests::remote::{Engine, run};

    use super::*;

    fn file(path: &Path, bytes: usize, days: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![1; bytes]).unwrap();
        let age = format!("{days} days ago");
        run("touch", &["-d", &age, &path.display().to_string()]);
    }

    /// An archived file of the journal, by the name that says when it began.
    fn journal(folder: &Path, number: u32, days: u64) -> String {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let began = now.as_micros() - u128::from(days) * 86_400_000_000;
        let name = format!("system@{:032x}-{number:016x}-{began:016x}.journal", 7);
        file(
            &folder.join("00000000000000000000000000000007").join(&name),
            9_000_000,
            0,
        );
        name
    }

    /// Everything that is left in the folder.
    fn left(folder: &Path) -> Vec<String> {
        let found = run(
            "find",
            &[
                &folder.display().to_string(),
                "-type",
                "f",
                "-printf",
                "%f\n",
            ],
        );
        let mut names: Vec<String> = found
            .lines()
            .filter(|name| *name != "lock")
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_is_cleaned_within_bounds_and_says_how_much_that_was() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        file(&at("logs/app.log"), 100, 90);
        file(&at("logs/app.log.1"), 5_000, 10);
        file(&at("logs/sub/old.gz"), 3_000, 20);
        file(&at("logs/young.gz"), 700, 1);
        file(&at("apt/x_1.0_amd64.deb"), 4_000, 0);
        fs::create_dir_all(at("apt/partial")).unwrap();
        let old = journal(&at("journal"), 1, 60);
        let young = journal(&at("journal"), 2, 1);
        let vars = format!(
            "{{ clean: [journal, apt, logs], log_dirs: ['{0}/logs'], apt_cache: '{0}/apt', \
             journal_dir: '{0}/journal', journal_keep: 1G }}",
            scratch.path().display()
        );

        // First what it would do.
        let playbook = sentinel_tests::root().join("playbooks/clean-disk.yml");
        let json = format!(
            r#"{{"clean": ["journal", "apt", "logs"], "log_dirs": ["{0}/logs"], "apt_cache": "{0}/apt", "journal_dir": "{0}/journal"}}"#,
            scratch.path().display()
        );
        let before = left(scratch.path());
        let checked = Command::new("ansible-playbook")
            .args(["--check", "-e", &json])
            .arg(&playbook)
            .output()
            .expect("ansible-playbook");
        let said = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{said}");
        assert!(said.contains("would free up to 12000 bytes"), "{said}");
        assert!(said.contains("changed=0"), "{said}");
        assert_eq!(left(scratch.path()), before);

        let policies = format!(
            r"
policies:
  - name: disk-full
    match: ['alertname=DiskFull']
    target: 'host://local/disk'
    mode: auto
    steps:
      - plugin: ansible-playbook
        params: {{ playbook: clean-disk.yml, vars: {vars} }}
        timeout: 60s
    verify: {{ alert: resolved, within: 30s, steady: 0s }}
    guards: {{ cooldown: 1s, flapping: off }}
    grants:
      ansible:
        playbooks: ['clean-disk.yml']
        vars: {{ clean: [journal, apt, logs], log_dirs: '/tmp/**', apt_cache: '/tmp/**', journal_dir: '/tmp/**', journal_keep: 1G }}
"
        );
        let daemon = Daemon::start(&["ansible-playbook"], &policies).await;
        let alert = Alert::firing("DiskFull", &[]);
        daemon.deliver(std::slice::from_ref(&alert)).await;
        let incident = daemon
            .wait_state(1, Duration::from_secs(60), |incident| {
                (count(incident, "run-ended") > 0).then(|| incident.clone())
            })
            .await;
        let report = incident.to_string();
        assert!(
            report.contains("freed 9012000 bytes on localhost: images 0, journal 9000000, packages 4000, logs 8000"),
            "{incident:#}"
        );
        let mut expected = vec!["app.log".to_owned(), young, "young.gz".to_owned()];
        expected.sort();
        assert_eq!(left(scratch.path()), expected);
        assert!(!left(scratch.path()).contains(&old));
        daemon.deliver(&[alert.resolved()]).await;
        healed(&daemon, 1).await;
    }

    #[test]
    fn dangling_images_are_pruned_once_they_are_old_enough() {
        // An engine of its own, for whoever uses the machine's wants to keep theirs.
        let engine = Engine::start("nginx:1.26.3");
        let name = unique("image");
        let script = "head -c 2000000 /dev/zero > /big";
        engine.docker(&[
            "run",
            "--name",
            &name,
            "--network",
            "none",
            "--entrypoint",
            "sh",
            "nginx:1.26.3",
            "-c",
            script,
        ]);
        let image = engine.docker(&["commit", &name]);
        engine.docker(&["rm", &name]);
        let clean = |hours: u32, more: &[&str]| {
            let vars = format!(
                r#"{{"clean": ["docker"], "docker_hours": {hours}, "docker_socket": "{}"}}"#,
                engine.socket().display()
            );
            let output = Command::new("ansible-playbook")
                .args(["-e", &vars])
                .args(more)
                .arg(sentinel_tests::root().join("playbooks/clean-disk.yml"))
                .output()
                .expect("ansible-playbook");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{said}");
            said
        };
        let images = || engine.docker(&["images", "-aq", "--no-trunc"]);
        let said = clean(24, &[]);
        assert!(
            said.contains("images 0,") && images().contains(&image),
            "{said}"
        );
        let said = clean(0, &["--check"]);
        assert!(
            said.contains("would free up to") && images().contains(&image),
            "{said}"
        );
        assert!(!said.contains("images 0,"), "{said}");
        let said = clean(0, &[]);
        assert!(said.contains("images 2000"), "{said}");
        assert!(!images().contains(&image), "{said}");
        assert_eq!(images().lines().count(), 1, "the image with a name stays");
    }
}
