//! The daemon that is measured: the released binary, as a process of its own, with a
//! folder of its own, a real plugin and a real journal.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::docker::FakeDocker;
use crate::http::Connection;

/// How long the daemon may take to start, to stop, and to deal with what it accepted.
const PATIENCE: Duration = Duration::from_secs(120);

/// What Linux counts processor time in, as `/proc` shows it: parts of a second.
const TICKS: f64 = 100.0;

/// The policies: three that act, and fifty that every alert is compared with in vain, as
/// in a real set.
fn policies() -> String {
    let acting = [
        ("effect", "BenchEffect"),
        ("storm", "BenchStorm"),
        ("critical", "BenchCritical"),
    ];
    let acting = acting.map(|(name, alert)| {
        format!(
            r#"
  - name: {name}
    match: ['alertname="{alert}"']
    target: 'docker://local/{{{{ labels.container }}}}'
    mode: auto
    steps: [{{ plugin: docker-restart, timeout: 30s }}]
    verify: {{ alert: resolved, within: 1h, steady: 0s }}
    grants: {{ docker: {{ containers: ['svc-*'], actions: [inspect, restart, start] }} }}"#
        )
    });
    let others = (0..50).map(|number| {
        format!(
            r#"
  - name: other-{number}
    match: ['alertname="Other{number}"', 'severity=~"critical|page"', 'namespace!="test"']
    target: 'docker://local/{{{{ labels.container }}}}'
    mode: auto
    steps: [{{ plugin: docker-restart }}]
    grants: {{ docker: {{ containers: ['other-*'], actions: [inspect, restart, start] }} }}"#
        )
    });
    let list: String = acting.into_iter().chain(others).collect();
    format!("policies:{list}\n")
}

/// Where the things are that a daemon is made of.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    /// The `sentinel` binary.
    pub(crate) sentinel: PathBuf,
    /// The folder with `docker-restart.wasm`.
    pub(crate) plugins: PathBuf,
    /// Where the daemons' folders are made: a real disk.
    pub(crate) folder: PathBuf,
}

/// A folder with a configuration, and the daemon that serves it.
#[derive(Debug)]
pub(crate) struct Daemon {
    folder: TempDir,
    sentinel: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
    docker: FakeDocker,
}

/// Processor time and commits, up to a moment.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    at: Instant,
    daemon: f64,
    threads: Vec<(String, f64)>,
    load: f64,
    commits: f64,
}

/// What a phase took of the machine.
#[derive(Debug, Clone)]
pub(crate) struct Spent {
    /// Processors that the daemon kept busy, 1 for a whole one.
    pub(crate) daemon: f64,
    /// Processors that the load and the fake Docker kept busy.
    pub(crate) load: f64,
    /// The daemon's busiest thread, and the share of a processor that it took.
    pub(crate) busiest: (String, f64),
    /// Commits in a second.
    pub(crate) commits: f64,
}

impl Daemon {
    /// Makes the folder; no daemon runs yet.
    pub(crate) fn prepare(built: &Built) -> Result<Self> {
        fs::create_dir_all(&built.folder)?;
        let folder = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&built.folder)?;
        let path = folder.path();
        for name in ["plugins", "policies", "playbooks"] {
            fs::create_dir(path.join(name))?;
        }
        let plugin = built.plugins.join("docker-restart.wasm");
        fs::copy(&plugin, path.join("plugins/docker-restart.wasm"))
            .with_context(|| format!("{} is missing: run `make plugins`", plugin.display()))?;
        fs::write(path.join("policies/bench.yaml"), policies())?;
        let socket = path.join("docker.sock");
        let docker = FakeDocker::start(&socket)?;
        // A port that nobody listened on a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        fs::write(
            path.join("sentinel.yaml"),
            format!(
                "listen: {address}\ndata_dir: data\nplugins_dir: plugins\npolicies_dir: policies\n\
                 # The defaults would hold back all but 600 of the restarts, and the last of the incidents.\n\
                 limits: {{incidents: 20000, guards: {{total_rate: 10000/10s}}}}\n\
                 ansible: {{playbooks_dir: playbooks}}\ndocker: {{hosts: {{local: 'unix://{}'}}}}\n",
                socket.display()
            ),
        )?;
        Ok(Self {
            sentinel: built.sentinel.clone(),
            folder,
            address,
            child: None,
            docker,
        })
    }

    /// Makes the folder and starts the daemon.
    pub(crate) fn start(built: &Built) -> Result<Self> {
        let mut daemon = Self::prepare(built)?;
        daemon.serve()?;
        Ok(daemon)
    }

    /// Starts the daemon, and says how long it took until `/readyz` answered 200.
    pub(crate) fn serve(&mut self) -> Result<Duration> {
        let log = fs::File::create(self.path("log"))?;
        let begun = Instant::now();
        let child = Command::new(&self.sentinel)
            .args(["serve", "--config"])
            .arg(self.path("sentinel.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| {
                format!(
                    "{} does not start: run `make build`",
                    self.sentinel.display()
                )
            })?;
        self.child = Some(child);
        loop {
            let ready = Connection::open(self.address)
                .and_then(|mut connection| connection.get(self.address, "/readyz"));
            if ready.is_ok_and(|(status, _)| status == 200) {
                return Ok(begun.elapsed());
            }
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                let log = fs::read_to_string(self.path("log"))?;
                bail!("the daemon ended with {status}:\n{log}");
            }
            if begun.elapsed() > PATIENCE {
                bail!("the daemon is not ready after {PATIENCE:?}");
            }
            // To ask more often would take time from the start.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends the daemon as an operator does, and waits until it has.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
            let status = child.wait()?;
            if !status.success() {
                bail!("the daemon ended with {status}");
            }
        }
        Ok(())
    }

    /// A path in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The journal's file.
    pub(crate) fn journal(&self) -> PathBuf {
        self.path("data/journal.sqlite")
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The Docker that it talks to.
    pub(crate) fn docker(&self) -> &FakeDocker {
        &self.docker
    }

    /// The sum of a metric over its labels.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let (_, text) = Connection::open(self.address)?.get(self.address, "/metrics")?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            if !rest.starts_with([' ', '{']) {
                return None;
            }
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        Ok(values.sum())
    }

    /// Waits until a metric is at `value` or below, and says how long that took.
    pub(crate) fn settle(&self, metric: &str, value: f64) -> Result<Duration> {
        let begun = Instant::now();
        while self.metric(metric)? > value {
            if begun.elapsed() > PATIENCE {
                bail!("{metric} is still above {value} after {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(begun.elapsed())
    }

    fn proc(&self) -> Result<PathBuf> {
        let child = self.child.as_ref().context("the daemon does not run")?;
        Ok(PathBuf::from(format!("/proc/{}", child.id())))
    }

    /// Resident and proportional memory, in MiB.
    pub(crate) fn memory(&self) -> Result<(f64, f64)> {
        let text = fs::read_to_string(self.proc()?.join("smaps_rollup"))?;
        Ok((kib(&text, "Rss:")? / 1024.0, kib(&text, "Pss:")? / 1024.0))
    }

    /// The most memory that was ever resident, in MiB.
    pub(crate) fn peak(&self) -> Result<f64> {
        let text = fs::read_to_string(self.proc()?.join("status"))?;
        Ok(kib(&text, "VmHWM:")? / 1024.0)
    }

    /// What has been used so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let proc = self.proc()?;
        let mut threads = Vec::new();
        for entry in fs::read_dir(proc.join("task"))? {
            let task = entry?.path();
            match (fs::read_to_string(task.join("comm")), cpu(&task)) {
                (Ok(name), Ok(seconds)) => {
                    let id = task.file_name().unwrap_or_default().to_string_lossy();
                    threads.push((format!("{}:{id}", name.trim()), seconds));
                }
                // A thread that has just ended.
                (Err(error), _) if error.kind() == ErrorKind::NotFound => {}
                (Err(error), _) => return Err(error.into()),
                (_, Err(error)) => return Err(error),
            }
        }
        Ok(Usage {
            at: Instant::now(),
            daemon: cpu(&proc)?,
            threads,
            load: cpu(Path::new("/proc/self"))?,
            commits: self.metric("sentinel_journal_commit_seconds_count")?,
        })
    }

    /// What has been used since `before`.
    pub(crate) fn spent(&self, before: &Usage) -> Result<Spent> {
        let now = self.usage()?;
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        let busiest = now
            .threads
            .iter()
            .map(|(name, total)| {
                let earlier = before.threads.iter().find(|(other, _)| other == name);
                let used = total - earlier.map_or(0.0, |(_, seconds)| *seconds);
                let name = name.split(':').next().unwrap_or_default().to_owned();
                (name, used / seconds)
            })
            .max_by(|(_, a), (_, b)| a.total_cmp(b))
            .unwrap_or_default();
        Ok(Spent {
            daemon: (now.daemon - before.daemon) / seconds,
            load: (now.load - before.load) / seconds,
            busiest,
            commits: (now.commits - before.commits) / seconds,
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Something failed and says so; nothing may stay behind.
            let _ended = child.kill().and_then(|()| child.wait());
        }
    }
}

/// A line `name: 1234 kB` of a file of `/proc`.
fn kib(text: &str, name: &str) -> Result<f64> {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .find_map(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok())
        .with_context(|| format!("/proc has no {name}"))
}

/// Processor seconds of a process or a thread.
fn cpu(task: &Path) -> Result<f64> {
    let text = fs::read_to_string(task.join("stat"))?;
    // The name in parentheses may hold anything.
    let (_, rest) = text.rsplit_once(')').context("/proc has no stat")?;
    let ticks: f64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Ok(ticks / TICKS)
}
