//! A real `sentinel serve` in a folder of its own.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use crate::payload::{Alert, webhook};
use crate::{eventually, plugin, root};

/// A folder with a configuration, and the daemon that serves it.
#[derive(Debug)]
pub struct Daemon {
    folder: TempDir,
    address: SocketAddr,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    client: reqwest::Client,
}

impl Daemon {
    /// A folder with these plugins and policies, and no daemon yet.
    #[must_use]
    pub fn prepare(plugins: &[&str], policies: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("sentinel-test-")
            .tempdir()
            .expect("a temporary folder");
        // A port that nobody listens on a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port");
        let daemon = Self {
            folder,
            address,
            environment: Vec::new(),
            child: None,
            client: client(),
        };
        for name in ["plugins", "policies", "playbooks"] {
            fs::create_dir(daemon.path(name)).expect("a folder");
        }
        daemon.write_config("");
        for name in plugins {
            daemon.install(name, &format!("{name}.wasm"));
        }
        for playbook in fs::read_dir(root().join("playbooks")).expect("playbooks") {
            let playbook = playbook.expect("a playbook").path();
            if playbook.is_file() {
                let name = playbook.file_name().expect("a name");
                fs::copy(&playbook, daemon.path("playbooks").join(name)).expect("a copy");
            }
        }
        if !policies.is_empty() {
            daemon.write_policies(policies);
        }
        daemon
    }

    /// A daemon that serves these plugins and policies.
    pub async fn start(plugins: &[&str], policies: &str) -> Self {
        let mut daemon = Self::prepare(plugins, policies);
        daemon.serve().await;
        daemon
    }

    /// A path in its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of one of its pages.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Writes the configuration, with `more` at its end.
    pub fn write_config(&self, more: &str) {
        let config = format!(
            "listen: {}\ndata_dir: data\nplugins_dir: plugins\npolicies_dir: policies\nansible: {{playbooks_dir: playbooks}}\nlog: {{level: 'info,sentinel=debug'}}\n{more}",
            self.address
        );
        fs::write(self.path("sentinel.yaml"), config).expect("the configuration");
    }

    /// Sets a variable of the daemon's environment.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Writes the policies, as an editor does: beside, then renamed.
    pub fn write_policies(&self, policies: &str) {
        replace(
            &self.path("policies").join("test.yaml"),
            policies.as_bytes(),
        );
    }

    /// Installs a plugin that `make plugins` built.
    pub fn install(&self, name: &str, file: &str) {
        let wasm = fs::read(plugin(name)).expect("a plugin");
        replace(&self.path("plugins").join(file), &wasm);
    }

    /// Writes any file into the plugins folder.
    pub fn install_bytes(&self, file: &str, bytes: &[u8]) {
        replace(&self.path("plugins").join(file), bytes);
    }

    /// The `sentinel` command with this folder's configuration.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(crate::built("SENTINEL_BIN", "target/release/sentinel"));
        command
            .args(args)
            .arg("--config")
            .arg(self.path("sentinel.yaml"))
            .env_remove("SENTINEL_CONFIG")
            .stdin(Stdio::null());
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    /// Starts the daemon and waits until it is ready.
    pub async fn serve(&mut self) {
        self.spawn();
        let begun = std::time::Instant::now();
        loop {
            let ready = self.get("/readyz").await;
            if ready.is_ok_and(|(status, _)| status == StatusCode::OK) {
                return;
            }
            let ended = self.ended();
            assert!(ended.is_none(), "the daemon ended: {ended:?}");
            assert!(begun.elapsed() < Duration::from_secs(60), "it is not ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts the daemon.
    pub fn spawn(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .expect("a log");
        let child = self
            .command(&["serve"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the daemon starts");
        self.child = Some(child);
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits for a line in its log.
    pub async fn wait_log(&self, text: &str) {
        let what = format!("`{text}` in the log:\n{}", self.log());
        eventually(&what, Duration::from_secs(15), || async {
            self.log().contains(text).then_some(())
        })
        .await;
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the daemon runs");
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("a signal");
    }

    /// Ends it as a loss of power would.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// How it ended, if it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut().expect("the daemon was started");
        child.try_wait().expect("a process")
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        self.child
            .take()
            .expect("the daemon runs")
            .wait()
            .expect("an end")
    }

    /// GET, with the status and the body.
    pub async fn get(&self, path: &str) -> reqwest::Result<(StatusCode, String)> {
        let response = self.client.get(self.url(path)).send().await?;
        let status = response.status();
        Ok((status, response.text().await?))
    }

    /// GET of something that must be there, as JSON.
    pub async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await.expect("an answer");
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// POST of any body.
    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (StatusCode, String) {
        let response = self
            .client
            .post(self.url(path))
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .expect("an answer");
        let status = response.status();
        (status, response.text().await.unwrap_or_default())
    }

    /// Delivers alerts as Alertmanager does; they must be accepted.
    pub async fn deliver(&self, alerts: &[Alert]) {
        let (status, body) = self
            .post("/api/v1/alerts/alertmanager", webhook(alerts).to_string())
            .await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    }

    /// Its incidents, newest first.
    pub async fn incidents(&self) -> Vec<Value> {
        let list = self.json("/api/v1/incidents").await;
        list["incidents"].as_array().expect("a list").clone()
    }

    /// One incident with all its events.
    pub async fn incident(&self, id: u64) -> Value {
        let path = format!("/api/v1/incidents/{id}");
        let mut incident = self.json(&path).await;
        while let Some(after) = incident["next"].as_u64() {
            let mut page = self.json(&format!("{path}?after={after}")).await;
            let more = page["events"].as_array_mut().expect("events").split_off(0);
            incident["events"]
                .as_array_mut()
                .expect("events")
                .extend(more);
            incident["next"] = page["next"].take();
        }
        incident
    }

    /// Waits until incident `id` has ended, and says how.
    pub async fn wait_end(&self, id: u64) -> String {
        self.wait_state(id, Duration::from_secs(60), |incident| {
            incident["end"].as_str().map(ToOwned::to_owned)
        })
        .await
    }

    /// Waits until incident `id` is as `look` wants it.
    pub async fn wait_state<T>(
        &self,
        id: u64,
        within: Duration,
        look: impl Fn(&Value) -> Option<T>,
    ) -> T {
        let begun = std::time::Instant::now();
        loop {
            let (status, body) = self
                .get(&format!("/api/v1/incidents/{id}"))
                .await
                .expect("an answer");
            if status == StatusCode::OK {
                let incident: Value = serde_json::from_str(&body).expect("JSON");
                if let Some(found) = look(&incident) {
                    return found;
                }
            }
            assert!(
                begun.elapsed() < within,
                "incident {id} after {within:?}: {body}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The value of a metric, by the whole name with labels; 0 when it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, metrics) = self.get("/metrics").await.expect("metrics");
        metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let killed = child.kill().and_then(|()| child.wait());
            assert!(killed.is_ok(), "the daemon could not be ended");
        }
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(8000);
            let tail = log.get(from..).unwrap_or(&log);
            let said = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("--- the daemon's log ---\n{tail}\n").as_bytes(),
            );
            drop(said);
        }
    }
}

/// Kinds of events of an incident, in order.
#[must_use]
pub fn kinds(incident: &Value) -> Vec<String> {
    incident["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| event["kind"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// How many events of a kind an incident has.
#[must_use]
pub fn count(incident: &Value, kind: &str) -> usize {
    kinds(incident).iter().filter(|k| *k == kind).count()
}

fn replace(path: &Path, bytes: &[u8]) {
    let name = path.file_name().expect("a name").to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.new"));
    fs::write(&beside, bytes).expect("a file");
    fs::rename(&beside, path).expect("a rename");
}

/// A client that follows nothing and asks no proxy.
#[must_use]
pub fn client() -> reqwest::Client {
    // Every client needs a provider of cryptography, also for plain HTTP.
    let installed = rustls::crypto::ring::default_provider().install_default();
    drop(installed);
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(60))
        .build()
        .expect("a client")
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Its data.
    pub out: String,
    /// Everything else that it said.
    pub err: String,
}

impl Said {
    /// Its data, which is JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }
}

/// Runs a command to its end.
pub fn said(command: &mut Command) -> Said {
    let output = command.output().expect("the command runs");
    Said {
        code: output.status.code().expect("an exit code"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}
