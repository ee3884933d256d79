//! The whole loop, as it ships: nginx, its exporter, Prometheus, Alertmanager and sentinel
//! under Docker Compose. Nothing is posted by hand: what breaks is seen by Prometheus,
//! told by Alertmanager and healed by a plugin, or by the playbook.
//!
//! One test, because the stack is brought up once; each part says what it shows.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use sentinel_tests::containers::{docker, docker_ok, unique};
use sentinel_tests::{built, eventually, root};
use serde_json::Value;

/// A stack of its own beside whatever else runs here.
struct Stack {
    project: String,
    nginx: String,
    folder: tempfile::TempDir,
    ports: [u16; 4],
    client: reqwest::Client,
}

impl Stack {
    fn up() -> Self {
        let installed = rustls::crypto::ring::default_provider().install_default();
        drop(installed);
        let project = unique("stack");
        let stack = Self {
            nginx: format!("nginx-{project}"),
            project,
            folder: tempfile::tempdir().unwrap(),
            ports: [(); 4].map(|()| free_port()),
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(5))
                .build()
                .unwrap(),
        };
        for (from, to) in [
            ("stack/prometheus", "prometheus"),
            ("stack/sentinel/policies", "policies"),
            ("target/plugins/dist", "plugins"),
        ] {
            copy(&root().join(from), &stack.folder.path().join(to));
        }
        // The same rules and policies, for the container of this stack's name.
        stack.edit("prometheus/rules", |text| {
            text.replace("container: nginx", &format!("container: {}", stack.nginx))
        });
        stack.edit("policies", |text| {
            text.replace("cooldown: 10s", "cooldown: 2s")
        });
        stack.compose_ok(&["up", "--detach", "--wait", "--no-build"]);
        stack
    }

    /// Rewrites every file of a folder.
    fn edit(&self, folder: &str, change: impl Fn(String) -> String) {
        for file in std::fs::read_dir(self.folder.path().join(folder)).unwrap() {
            let file = file.unwrap().path();
            let text = std::fs::read_to_string(&file).unwrap();
            let beside = file.with_extension("new");
            std::fs::write(&beside, change(text)).unwrap();
            std::fs::rename(&beside, &file).unwrap();
        }
    }
    fn compose(&self, args: &[&str]) -> Output {
        let path = |name: &str| self.folder.path().join(name);
        Command::new(built("SENTINEL_COMPOSE", "stack/setup/compose"))
            .args(args)
            .env("COMPOSE_PROJECT_NAME", &self.project)
            .env("NGINX_NAME", &self.nginx)
            .env("NGINX_PORT", self.ports[0].to_string())
            .env("PROMETHEUS_PORT", self.ports[1].to_string())
            .env("ALERTMANAGER_PORT", self.ports[2].to_string())
            .env("SENTINEL_PORT", self.ports[3].to_string())
            .env("PROMETHEUS_DIR", path("prometheus"))
            .env("POLICIES_DIR", path("policies"))
            .env("PLUGINS_DIR", path("plugins"))
            .output()
            .unwrap()
    }

    fn compose_ok(&self, args: &[&str]) -> String {
        let output = self.compose(args);
        assert!(
            output.status.success(),
            "compose {args:?}: {}{}",
            String::from_utf8_lossy(&output.stderr),
            self.logs()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn logs(&self) -> String {
        let output = self.compose(&["logs", "--no-log-prefix", "--tail", "60", "sentinel"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    async fn get(&self, service: usize, path: &str) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}{path}", self.ports[service]);
        let answer = self.client.get(url).send().await.ok()?;
        answer.json().await.ok()
    }

    async fn answers(&self) -> bool {
        let url = format!("http://127.0.0.1:{}/nginx_status", self.ports[0]);
        self.client
            .get(url)
            .timeout(Duration::from_secs(1))
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
    }

    /// The incidents, newest first.
    async fn incidents(&self) -> Vec<Value> {
        self.get(3, "/api/v1/incidents")
            .await
            .and_then(|list| Some(list["incidents"].as_array()?.clone()))
            .unwrap_or_default()
    }

    /// Waits until incident `id` is healed and nginx answers, then returns it.
    async fn wait_healed(&self, id: usize) -> Value {
        let what = format!("incident {id} is healed");
        let incident = eventually(&what, Duration::from_secs(90), || async {
            let incident = self.get(3, &format!("/api/v1/incidents/{id}")).await?;
            incident["end"].is_string().then_some(incident)
        })
        .await;
        assert_eq!(incident["end"], "healed", "{incident:#}\n{}", self.logs());
        assert!(self.answers().await, "nginx answers");
        incident
    }

    /// Waits until Prometheus has no alert, so that the next break is a new episode.
    async fn wait_quiet(&self) {
        eventually(
            "Prometheus has no alert",
            Duration::from_secs(60),
            || async {
                let alerts = self.get(1, "/api/v1/alerts").await?;
                alerts["data"]["alerts"]
                    .as_array()?
                    .is_empty()
                    .then_some(())
            },
        )
        .await;
        // And Alertmanager has told sentinel, whose cooldown is over.
        tokio::time::sleep(Duration::from_secs(3)).await;
    }

    fn started_at(&self) -> String {
        docker_ok(&["inspect", "-f", "{{.State.StartedAt}}", &self.nginx])
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("--- the log of sentinel ---\n{}\n", self.logs()).as_bytes(),
            );
            drop(said);
        }
        // A paused container cannot be removed by Compose.
        docker(&["unpause", &self.nginx]);
        self.compose(&["down", "--volumes", "--remove-orphans", "--timeout", "2"]);
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry: PathBuf = entry.unwrap().path();
        let target = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            copy(&entry, &target);
        } else {
            std::fs::copy(&entry, &target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_is_seen_told_healed_and_resolved() {
    let stack = Stack::up();
    eventually("nginx answers", Duration::from_secs(30), || async {
        stack.answers().await.then_some(())
    })
    .await;
    stack.wait_quiet().await;

    // Killed, as the demo does it, with the demo's own eyes on it.
    drill(&stack);
    let mut healed = stack.incidents().await.len();
    assert_eq!(healed, 1, "one break, one incident");
    stack.wait_healed(1).await;

    // Stopped by somebody, and hung: a paused container answers nothing and still runs.
    for command in [&["stop", "-t", "1"][..], &["pause"][..]] {
        stack.wait_quiet().await;
        let mut args = command.to_vec();
        args.push(&stack.nginx);
        docker_ok(&args);
        healed += 1;
        let incident = stack.wait_healed(healed).await;
        let effects = effects(&incident);
        assert_eq!(
            effects, 1,
            "{command:?}: one restart, not several: {incident:#}"
        );
    }

    // Resolved notifications came meanwhile, and nginx was left alone when they did.
    stack.wait_quiet().await;
    let before = stack.started_at();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(stack.started_at(), before);
    assert_eq!(stack.incidents().await.len(), healed);

    // The first step cannot help: its container is another one. The playbook heals.
    stack.edit("policies", |text| {
        text.replacen(
            "- plugin: docker-restart\n",
            "- plugin: docker-restart\n        params: { container: nginx-nobody }\n",
            1,
        )
        .replacen("attempts: 2", "attempts: 1", 1)
        .replacen(
            "on: [retryable, unverified]",
            "on: [retryable, permanent, unverified]",
            1,
        )
    });
    eventually("the new policy serves", Duration::from_secs(40), || async {
        stack.logs().contains(r#"what="policies""#).then_some(())
    })
    .await;
    docker_ok(&["kill", &stack.nginx]);
    healed += 1;
    let incident = stack.wait_healed(healed).await;
    let text = incident.to_string();
    assert!(text.contains("ansible.run"), "{incident:#}");

    // Sentinel itself is killed while nginx is down; it heals when it is back.
    stack.wait_quiet().await;
    let sentinel = stack.compose_ok(&["ps", "-q", "sentinel"]);
    docker_ok(&["kill", sentinel.trim()]);
    docker_ok(&["kill", &stack.nginx]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    docker_ok(&["start", sentinel.trim()]);
    healed += 1;
    stack.wait_healed(healed).await;

    // Prometheus scrapes what sentinel says of itself, and the command line inside the
    // container finds its incidents.
    eventually(
        "Prometheus knows that sentinel healed",
        Duration::from_secs(20),
        || async {
            let query =
                "/api/v1/query?query=sum%28sentinel_incidents_ended_total%7Bend%3D%22healed%22%7D%29";
            let answer = stack.get(1, query).await?;
            let healed = answer["data"]["result"][0]["value"][1].as_str()?;
            (healed != "0").then_some(())
        },
    )
    .await;
    let list = stack.compose_ok(&["exec", "-T", "sentinel", "sentinel", "incidents", "list"]);
    assert_eq!(list.matches("healed").count(), healed, "{list}");
}

fn effects(incident: &Value) -> usize {
    incident["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "effect-began")
        .count()
}

/// Breaks nginx and watches, with the program that `make demo` runs.
fn drill(stack: &Stack) {
    let [nginx, prometheus, alertmanager, sentinel] =
        stack.ports.map(|port| format!("http://127.0.0.1:{port}"));
    let output = Command::new(root().join("target/release/drill"))
        .args(["--failure", "kill", "--container", &stack.nginx])
        .args(["--nginx", &nginx, "--prometheus", &prometheus])
        .args(["--alertmanager", &alertmanager, "--sentinel", &sentinel])
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{said}\n{}", stack.logs());
    for word in ["down", "firing", "incident", "answering", "resolved"] {
        assert!(said.to_lowercase().contains(word), "{word} in {said}");
    }
}
