//! What the tests of this crate share: a driver and a recorder that write what happens
//! into one list, in the order in which it happens, and the guests.
//!
//! The docker driver is a fake, for faults and for moments that a real Docker does not
//! give on demand: an answer that waits, a panic. The drivers crate tests the real one.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sentinel_core::alert::{Alert, AlertStatus, Fingerprint, Labels};
use sentinel_core::capability::{
    AnsibleRequest, CapabilityError, ContainerDetails, ContainerHealth, ContainerState,
    ContainerSummary, DockerCall, PlaybookReport, Request, Response,
};
use sentinel_core::event::{CallResult, LogLevel};
use sentinel_core::grant::Grants;
use sentinel_core::id::{IncidentId, RunId};
use sentinel_sandbox::driver::{AnsibleDriver, ContainerIdentity, DockerDriver, Settled};
use sentinel_sandbox::gate::{GateContext, GateLimits, RecordError, Recorder};
use sentinel_sandbox::{Gate, IncidentInput};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

pub(crate) const NGINX: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const DB: &str = "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd";

/// What happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Story(Arc<Mutex<Vec<String>>>);

impl Story {
    pub(crate) fn tell(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn has(&self, part: &str) -> bool {
        self.lines().iter().any(|line| line.contains(part))
    }

    /// Waits until a line with `part` is there.
    pub(crate) async fn wait_for(&self, part: &str) {
        let there = async {
            while !self.has(part) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let came = tokio::time::timeout(Duration::from_secs(20), there).await;
        assert!(came.is_ok(), "no `{part}` in {:#?}", self.lines());
    }
}

/// What the world does when it is asked.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) story: Story,
    /// Restarts wait until this is notified.
    pub(crate) hold_restarts: Option<Notify>,
    /// Restarts panic.
    pub(crate) break_down: bool,
    /// Nothing can be recorded.
    pub(crate) journal_broken: bool,
}

#[async_trait]
impl DockerDriver for World {
    async fn resolve(
        &self,
        host: &str,
        container: &str,
    ) -> Result<ContainerIdentity, CapabilityError> {
        self.story
            .tell(format!("driver resolve {host}/{container}"));
        let found = |id: &str, name: &str| ContainerIdentity {
            id: id.to_owned(),
            name: name.to_owned(),
            labels: Labels::from([("app".to_owned(), name.to_owned())]),
        };
        match container {
            "nginx" | "aaaaaaaaaaaa" | NGINX => Ok(found(NGINX, "nginx")),
            "db" | "dddddddddddd" | DB => Ok(found(DB, "db")),
            _ => Err(CapabilityError::NotFound(format!(
                "no container {container}"
            ))),
        }
    }

    async fn call(
        &self,
        host: &str,
        call: &DockerCall,
        _timeout: Duration,
    ) -> Result<Response, CapabilityError> {
        let container = call.container().unwrap_or("-");
        self.story.tell(format!(
            "driver {} {host}/{container}",
            call.action().as_str()
        ));
        Ok(match call {
            DockerCall::List { .. } => {
                Response::Containers(vec![row(NGINX, "nginx"), row(DB, "db")])
            }
            DockerCall::Inspect { .. } => Response::Container(Box::new(ContainerDetails {
                id: NGINX.to_owned(),
                name: "nginx".to_owned(),
                image: "nginx".to_owned(),
                state: ContainerState::Running,
                health: ContainerHealth::Unhealthy,
                failing_streak: 3,
                exit_code: 0,
                oom_killed: false,
                restart_count: 0,
                started_at: None,
                finished_at: None,
                labels: Labels::new(),
            })),
            DockerCall::Restart { .. } => {
                if let Some(hold) = &self.hold_restarts {
                    hold.notified().await;
                }
                assert!(!self.break_down, "the driver breaks down on purpose");
                self.story.tell("driver restart done");
                Response::Done
            }
            _ => Response::Done,
        })
    }

    async fn settle(
        &self,
        host: &str,
        call: &DockerCall,
        _began_at: Timestamp,
        _timeout: Duration,
    ) -> Result<Settled, CapabilityError> {
        let container = call.container().unwrap_or("-");
        self.story.tell(format!(
            "driver settle {} {host}/{container}",
            call.action().as_str()
        ));
        Ok(Settled::NotDone)
    }
}

fn row(id: &str, name: &str) -> ContainerSummary {
    ContainerSummary {
        id: id.to_owned(),
        name: name.to_owned(),
        image: name.to_owned(),
        state: ContainerState::Running,
        labels: Labels::new(),
    }
}

#[async_trait]
impl AnsibleDriver for World {
    async fn run(
        &self,
        request: &AnsibleRequest,
        timeout: Duration,
    ) -> Result<PlaybookReport, CapabilityError> {
        self.story.tell(format!(
            "driver ansible {} within {}s",
            request.playbook,
            timeout.as_secs_f64().round()
        ));
        Ok(PlaybookReport {
            exit_code: 0,
            hosts: [].into(),
            tasks: Vec::new(),
            output: String::new(),
            duration_ms: 1,
        })
    }
}

impl World {
    fn record(&self, line: String) -> Result<(), RecordError> {
        if self.journal_broken {
            return Err(RecordError("the disk is full".to_owned()));
        }
        self.story.tell(line);
        Ok(())
    }
}

fn told(result: &CallResult) -> String {
    match result {
        Ok(Response::Containers(rows)) => {
            let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
            format!("ok {}", names.join(" "))
        }
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[async_trait]
impl Recorder for World {
    async fn effect_began(
        &self,
        _run: RunId,
        call: u32,
        request: &Request,
        on: Option<&ContainerIdentity>,
    ) -> Result<(), RecordError> {
        let on = on.map_or("-", |on| on.name.as_str());
        self.record(format!("began {call} {} on {on}", request.summary()))
    }

    async fn effect_ended(
        &self,
        _run: RunId,
        call: u32,
        _request: &Request,
        result: &CallResult,
    ) -> Result<(), RecordError> {
        self.record(format!("ended {call} {}", told(result)))
    }

    async fn observed(
        &self,
        _run: RunId,
        call: u32,
        request: &Request,
        result: &CallResult,
    ) -> Result<(), RecordError> {
        self.record(format!(
            "observed {call} {}: {}",
            request.summary(),
            told(result)
        ))
    }

    async fn denied(
        &self,
        _run: RunId,
        call: u32,
        request: &Request,
        error: &CapabilityError,
    ) -> Result<(), RecordError> {
        self.record(format!("denied {call} {}: {error}", request.summary()))
    }

    fn logged(&self, _run: RunId, level: LogLevel, message: &str) {
        self.story
            .tell(format!("log {}: {message}", level.as_str()));
    }
}

pub(crate) fn run_id() -> RunId {
    RunId {
        incident: IncidentId(42),
        number: 1,
    }
}

/// Grants everything on `nginx`, and the playbook `restart.yml`.
pub(crate) fn grants() -> Grants {
    serde_json::from_value(json!({
        "docker": {
            "hosts": ["local"],
            "containers": ["nginx*"],
            "labels": [],
            "actions": ["list", "inspect", "logs", "start", "stop", "restart", "kill"],
        },
        "ansible": { "playbooks": ["restart.yml"] },
    }))
    .unwrap()
}

/// A gate to `world`, with its drivers on the runtime of the test.
pub(crate) fn context(world: &Arc<World>) -> GateContext {
    GateContext {
        run: run_id(),
        grants: Arc::new(grants()),
        recorder: Arc::clone(world) as Arc<dyn Recorder>,
        docker: Arc::clone(world) as Arc<dyn DockerDriver>,
        ansible: Arc::clone(world) as Arc<dyn AnsibleDriver>,
        io: Handle::current(),
        effects: TaskTracker::new(),
        limits: GateLimits::default(),
    }
}

pub(crate) fn gate(world: &Arc<World>) -> Gate {
    Gate::new(context(world))
}

pub(crate) fn incident(params: serde_json::Value) -> IncidentInput {
    let labels = Labels::from([("alertname".to_owned(), "NginxDown".to_owned())]);
    let serde_json::Value::Object(params) = params else {
        panic!("params are an object");
    };
    IncidentInput {
        incident: run_id().incident,
        run: run_id(),
        policy: "nginx-down".parse().unwrap(),
        target: "docker://local/nginx".parse().unwrap(),
        alert: Alert {
            source: "alertmanager".to_owned(),
            fingerprint: Fingerprint::of(&labels),
            status: AlertStatus::Firing,
            labels,
            annotations: Labels::new(),
            starts_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            ends_at: None,
            generator_url: None,
        },
        step: 1,
        attempt: 1,
        params,
    }
}

/// A guest that `make plugins` has built: a shipped plugin, or the hostile one.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    let (variable, folder) = if name == "hostile" {
        ("SENTINEL_HOSTILE", "hostile")
    } else {
        ("SENTINEL_PLUGINS", "dist")
    };
    let folder = std::env::var_os(variable).map_or_else(
        || {
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("../../target/plugins")
                .join(folder)
        },
        PathBuf::from,
    );
    let path = folder.join(name).with_extension("wasm");
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run `make plugins`", path.display()))
}
