//! What the tests of this crate share: a driver, a guard and a recorder that write what
//! happens into one list, in the order in which it happens, and the guests.
//!
//! The docker driver is a fake, for faults and for moments that a real Docker does not
//! give on demand: an answer that waits, a panic, an effect that cannot be settled. The
//! drivers crate tests the real one.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use sentinel_core::alert::{Alert, AlertStatus, Fingerprint, Labels};
use sentinel_core::capability::{
    AnsibleRequest, CapabilityError, ContainerDetails, ContainerHealth, ContainerState,
    ContainerSummary, DockerCall, PlaybookReport, Request, Response,
};
use sentinel_core::event::{
    CallResult, Event, EventBody, LogLevel, PlannedEffect, Resource, RunResult,
};
use sentinel_core::grant::Grants;
use sentinel_core::http::{Blob, HttpMethod, HttpRequest, HttpResponse, HttpUrl};
use sentinel_core::id::{Digest, IncidentId, RunId};
use sentinel_core::incident::OnInterrupt;
use sentinel_core::mail::{MailReceipt, MailRefusal, MailRequest};
use sentinel_core::recording::Recording;
use sentinel_sandbox::driver::{
    AnsibleDriver, ContainerIdentity, DockerDriver, HttpDriver, MailDriver, MayFollow, NoPast,
    PlaybookScope, Settled,
};
use sentinel_sandbox::gate::{
    EffectGuard, Evidence, GateContext, GateLimits, GateMode, Halt, Halted, RecordError, Recorder,
};
use sentinel_sandbox::{
    Gate, IncidentInput, Plugin, ReplayReport, RunLimits, RunReport, Sandbox, SandboxConfig,
};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

pub(crate) const NGINX: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const DB: &str = "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd";
/// What `nginx` is called once it is recreated.
pub(crate) const MADE: &str = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";

fn began() -> Timestamp {
    "2026-01-02T03:00:00Z".parse().unwrap()
}

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
    /// What is on record.
    pub(crate) events: Mutex<Vec<Event>>,
    /// The effects that were carried out. What the containers are like follows from them.
    pub(crate) done: Mutex<Vec<String>>,
    /// Restarts wait until this is notified.
    pub(crate) hold_restarts: Option<Notify>,
    /// Looks wait until this is notified.
    pub(crate) hold_looks: Option<Notify>,
    /// Restarts panic.
    pub(crate) break_down: bool,
    /// Looks panic.
    pub(crate) break_looks: bool,
    /// Nothing can be recorded.
    pub(crate) journal_broken: bool,
    /// The guard refuses every effect once so many were carried out.
    pub(crate) refuse_after: Mutex<Option<(usize, Halted)>>,
    /// What the driver says of an effect in doubt.
    pub(crate) settled: Option<Settled>,
    /// What containers have written.
    pub(crate) logs: Option<String>,
}

impl World {
    /// The containers in which these effects have left the world.
    fn details(&self, id: &str) -> ContainerDetails {
        let name = if id == DB { "db" } else { "nginx" };
        let mut details = ContainerDetails {
            id: id.to_owned(),
            name: name.to_owned(),
            image: name.to_owned(),
            state: ContainerState::Running,
            health: ContainerHealth::Unhealthy,
            failing_streak: 3,
            exit_code: 0,
            oom_killed: false,
            restart_count: 2,
            started_at: Some(began()),
            finished_at: None,
            labels: Labels::from([("app".to_owned(), name.to_owned())]),
            network_of: None,
        };
        for (number, done) in self.done.lock().unwrap().iter().enumerate() {
            let Some((action, on)) = done.split_once(' ') else {
                continue;
            };
            match action {
                _ if on != name => {}
                "duplicate" | "remove" => {}
                "stop" | "kill" => details.state = ContainerState::Exited,
                _ => {
                    details.state = ContainerState::Running;
                    details.health = ContainerHealth::Healthy;
                    details.failing_streak = 0;
                    details.restart_count = 0;
                    let later = SignedDuration::from_secs(i64::try_from(number).unwrap() + 1);
                    details.started_at = Some(began() + later);
                }
            }
        }
        details
    }

    /// The id of `nginx`.
    fn nginx(&self) -> &'static str {
        let recreated = |done: &String| done == "recreate nginx";
        if self.done.lock().unwrap().iter().any(recreated) {
            MADE
        } else {
            NGINX
        }
    }

    pub(crate) fn done(&self) -> Vec<String> {
        self.done.lock().unwrap().clone()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    pub(crate) fn recording(&self) -> Recording {
        Recording::of(&self.events(), run_id()).unwrap()
    }

    /// Puts on record what the daemon does.
    pub(crate) fn note(&self, body: EventBody) {
        self.events.lock().unwrap().push(Event {
            at: Timestamp::now(),
            incident: run_id().incident,
            body,
        });
    }
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
        let nginx = self.nginx();
        match container {
            "nginx" => Ok(found(nginx, "nginx")),
            "aaaaaaaaaaaa" | NGINX if nginx == NGINX => Ok(found(NGINX, "nginx")),
            MADE if nginx == MADE => Ok(found(MADE, "nginx")),
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
        let action = call.action();
        self.story
            .tell(format!("driver {} {host}/{container}", action.as_str()));
        if action.is_effect() {
            if let (Some(hold), DockerCall::Restart { .. }) = (&self.hold_restarts, call) {
                hold.notified().await;
            }
            assert!(!self.break_down, "the driver breaks down on purpose");
            let name = if container == DB { "db" } else { "nginx" };
            let mut done = self.done.lock().unwrap();
            done.push(format!("{} {name}", action.as_str()));
            self.story.tell(format!("driver {} done", action.as_str()));
            return Ok(match call {
                DockerCall::Recreate { .. } | DockerCall::Duplicate { .. } => {
                    Response::Created(MADE.to_owned())
                }
                _ => Response::Done,
            });
        }
        if let Some(hold) = &self.hold_looks {
            hold.notified().await;
        }
        assert!(!self.break_looks, "the driver breaks down on purpose");
        Ok(match call {
            DockerCall::List { all, .. } => {
                let mut rows = vec![row(&self.details(DB)), row(&self.details(self.nginx()))];
                rows.retain(|row| *all || row.state == ContainerState::Running);
                Response::Containers(rows)
            }
            DockerCall::Logs { lines, .. } => Response::Text(
                self.logs
                    .clone()
                    .unwrap_or_else(|| format!("the last {lines} lines of {container}\n")),
            ),
            _ => Response::Container(Box::new(self.details(container))),
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
        self.settled
            .clone()
            .ok_or_else(|| CapabilityError::Unavailable("docker is away".to_owned()))
    }
}

fn row(details: &ContainerDetails) -> ContainerSummary {
    ContainerSummary {
        id: details.id.clone(),
        name: details.name.clone(),
        image: details.image.clone(),
        state: details.state,
        labels: details.labels.clone(),
        network_of: details.network_of.clone(),
    }
}

#[async_trait]
impl AnsibleDriver for World {
    async fn run(
        &self,
        request: &AnsibleRequest,
        _scope: &PlaybookScope,
        timeout: Duration,
    ) -> Result<PlaybookReport, CapabilityError> {
        self.story.tell(format!(
            "driver ansible {} within {}s",
            request.playbook,
            timeout.as_secs_f64().round()
        ));
        let mut done = self.done.lock().unwrap();
        done.push(format!("playbook {}", request.playbook));
        Ok(PlaybookReport {
            exit_code: 0,
            hosts: [].into(),
            tasks: Vec::new(),
            output: String::new(),
            duration_ms: 1,
        })
    }
}

/// Takes every mail, but for whom it does not know (`nobody@…`).
#[async_trait]
impl MailDriver for World {
    async fn send(
        &self,
        request: &MailRequest,
        id: &str,
        timeout: Duration,
    ) -> Result<MailReceipt, CapabilityError> {
        self.story.tell(format!(
            "driver mail to {} within {}s",
            request.recipients_text(),
            timeout.as_secs_f64().round()
        ));
        self.done.lock().unwrap().push(format!("mail {id}"));
        let unknown = request
            .recipients()
            .filter(|address| address.local() == "nobody");
        Ok(MailReceipt {
            message_id: format!("<{id}@here>"),
            said: "250 OK".to_owned(),
            refused: unknown
                .map(|address| MailRefusal {
                    address: address.clone(),
                    reason: "550 unknown".to_owned(),
                })
                .collect(),
        })
    }
}

/// Answers with what it was asked. A path that ends in `moved` leads to `/elsewhere`, and
/// to `/granted` when that may not be followed; `SECRET` stands for what no one must see.
#[async_trait]
impl HttpDriver for World {
    fn url_of(&self, secret: &str) -> Result<HttpUrl, CapabilityError> {
        match secret {
            "chat-url" => Ok("https://chat/hooks/T0/SECRET".parse().unwrap()),
            "other-url" => Ok("https://other/SECRET".parse().unwrap()),
            _ => Err(CapabilityError::Invalid(format!(
                "no secret {secret} is configured"
            ))),
        }
    }

    async fn send(
        &self,
        request: &HttpRequest,
        may_follow: &MayFollow,
        timeout: Duration,
    ) -> Result<HttpResponse, CapabilityError> {
        let asked = format!("{} {}", request.method, request.url);
        self.story.tell(format!(
            "driver http {asked} within {}s",
            timeout.as_secs_f64().round()
        ));
        if request.method.is_effect() {
            self.done.lock().unwrap().push(asked.clone());
        }
        if request.url.to_string().ends_with("away") {
            return Err(CapabilityError::Unavailable("nobody there".to_owned()));
        }
        let mut body = asked;
        if request.url.to_string().ends_with("moved") {
            for path in ["elsewhere", "a/granted"] {
                let url = format!("https://api/{path}").parse().unwrap();
                if may_follow(HttpMethod::Get, &url) {
                    body = format!("followed to {url}");
                }
            }
        }
        if request.url.to_string().ends_with("large") {
            body = "y".repeat(512 << 10);
        }
        Ok(HttpResponse {
            status: 200,
            headers: Vec::new(),
            body: Blob(body.into_bytes()),
            truncated: false,
        })
    }
}

impl World {
    fn record(&self, line: String, body: EventBody) -> Result<(), RecordError> {
        if self.journal_broken {
            return Err(RecordError("the disk is full".to_owned()));
        }
        self.story.tell(line);
        self.note(body);
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

fn name(on: Option<&Resource>) -> &str {
    on.map_or("-", |on| on.name.as_str())
}

impl EffectGuard for World {
    fn admit(&self, _: RunId, request: &Request, on: Option<&Resource>) -> Result<(), Halted> {
        let on = name(on);
        self.story
            .tell(format!("guard {} on {on}", request.summary()));
        match &*self.refuse_after.lock().unwrap() {
            Some((effects, halted)) if self.done().len() >= *effects => Err(halted.clone()),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Recorder for World {
    fn seeded(&self, run: RunId, seed: &str, clock: Timestamp) {
        let seed = seed.to_owned();
        self.note(EventBody::RunSeeded { run, seed, clock });
    }

    fn clock_read(&self, run: RunId, readings: &[u64]) {
        let readings = readings.to_vec();
        self.note(EventBody::ClockRead { run, readings });
    }

    fn evidence(&self, run: RunId, evidence: &Evidence) {
        self.story.tell(format!(
            "evidence {:?}",
            evidence.problem.as_deref().unwrap_or("whole")
        ));
        self.note(EventBody::EvidenceCaptured {
            run,
            container: evidence.container.clone(),
            log: evidence.log.clone(),
            problem: evidence.problem.clone(),
        });
    }

    async fn effect_began(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        on: Option<&Resource>,
    ) -> Result<(), RecordError> {
        self.record(
            format!("began {call} {} on {}", request.summary(), name(on)),
            EventBody::EffectBegan {
                run,
                call,
                request: request.clone(),
                on: on.cloned(),
            },
        )
    }

    async fn effect_ended(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        result: &CallResult,
        settled: bool,
    ) -> Result<(), RecordError> {
        let mark = if settled { " settled" } else { "" };
        self.record(
            format!("ended {call} {}{mark}", told(result)),
            EventBody::EffectEnded {
                run,
                call,
                name: request.name().to_owned(),
                result: result.clone(),
                settled,
            },
        )
    }

    async fn observed(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        result: &CallResult,
    ) -> Result<(), RecordError> {
        self.record(
            format!("observed {call} {}: {}", request.summary(), told(result)),
            EventBody::Observed {
                run,
                call,
                request: request.clone(),
                result: result.clone(),
            },
        )
    }

    async fn planned(
        &self,
        run: RunId,
        call: u32,
        effect: &PlannedEffect,
        result: &CallResult,
    ) -> Result<(), RecordError> {
        self.record(
            format!(
                "planned {call} {} on {}",
                effect.request.summary(),
                name(effect.on.as_ref())
            ),
            EventBody::Planned {
                run,
                call,
                effect: effect.clone(),
                result: result.clone(),
            },
        )
    }

    async fn denied(
        &self,
        run: RunId,
        call: u32,
        request: &Request,
        digest: Option<Digest>,
        error: &CapabilityError,
    ) -> Result<(), RecordError> {
        self.record(
            format!("denied {call} {}: {error}", request.summary()),
            EventBody::Denied {
                digest,
                run,
                call,
                request: request.clone(),
                error: error.clone(),
            },
        )
    }

    fn logged(&self, run: RunId, level: LogLevel, message: &str) {
        self.story
            .tell(format!("log {}: {message}", level.as_str()));
        self.note(EventBody::Logged {
            run,
            level,
            message: message.to_owned(),
        });
    }
}

/// A stage for runs of a plugin.
pub(crate) struct Stage {
    pub(crate) sandbox: Sandbox,
    pub(crate) plugin: Arc<Plugin>,
}

impl Stage {
    /// What the plugin is told. For `notify-email` the script is whom to tell.
    fn input(&self, script: &[&str]) -> IncidentInput {
        match self.plugin.name.as_str() {
            "notify-email" => incident(json!({ "to": script })),
            _ => scripted(script),
        }
    }

    pub(crate) async fn new(plugin: &str) -> Self {
        let sandbox = Sandbox::new(SandboxConfig::default()).unwrap();
        let plugin = sandbox.load(guest(plugin)).await.unwrap();
        Self { sandbox, plugin }
    }

    /// Runs the script from its beginning, in a world that records it. `change` has the
    /// last word on the gate.
    pub(crate) async fn run(
        &self,
        world: &Arc<World>,
        script: &[&str],
        change: impl FnOnce(&mut GateContext),
    ) -> RunReport {
        let mut context = GateContext {
            grants: Arc::new(all_grants()),
            ..context(world)
        };
        change(&mut context);
        world.note(EventBody::RunStarted {
            run: run_id(),
            step: 1,
            attempt: 1,
            plugin: self.plugin.name.clone(),
            version: self.plugin.version.to_string(),
            digest: self.plugin.digest,
            pinned: false,
            mode: context.mode.run_mode(),
        });
        self.carry_on(world, script, context).await
    }

    /// Goes on with a run from what `world` has on record.
    pub(crate) async fn resume(
        &self,
        world: &Arc<World>,
        script: &[&str],
        change: impl FnOnce(&mut GateContext),
    ) -> RunReport {
        world.note(EventBody::RunResumed { run: run_id() });
        let mut context = GateContext {
            grants: Arc::new(all_grants()),
            record: Some(world.recording()),
            ..context(world)
        };
        change(&mut context);
        self.carry_on(world, script, context).await
    }

    async fn carry_on(
        &self,
        world: &Arc<World>,
        script: &[&str],
        context: GateContext,
    ) -> RunReport {
        let gate = Gate::new(context);
        let report = self
            .sandbox
            .run(
                Arc::clone(&self.plugin),
                self.input(script),
                gate.clone(),
                limits(),
            )
            .await;
        world.story.tell("the run is over");
        gate.settled().await;
        world.note(EventBody::RunEnded {
            run: run_id(),
            result: RunResult::from(&report),
        });
        report
    }

    pub(crate) async fn replay(&self, recording: Recording, script: &[&str]) -> ReplayReport {
        self.sandbox
            .replay(
                Arc::clone(&self.plugin),
                self.input(script),
                recording,
                limits(),
            )
            .await
    }
}

pub(crate) fn limits() -> RunLimits {
    RunLimits {
        timeout: Duration::from_secs(20),
        ..RunLimits::default()
    }
}

fn scripted(script: &[&str]) -> IncidentInput {
    incident(json!({ "script": script }))
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
        "ansible": { "playbooks": ["restart.yml"], "vars": { "third": ["*"] } },
    }))
    .unwrap()
}

/// Grants everything on the container of this name alone.
pub(crate) fn only(container: &str) -> Grants {
    let mut grants = serde_json::to_value(all_grants()).unwrap();
    grants["docker"]["containers"] = json!([container]);
    serde_json::from_value(grants).unwrap()
}

/// Grants everything on every container, and every playbook.
pub(crate) fn all_grants() -> Grants {
    serde_json::from_value(json!({
        "docker": {
            "hosts": ["local"],
            "containers": ["*"],
            "labels": [],
            "actions": [
                "list", "inspect", "logs", "start", "stop", "restart", "kill", "recreate",
                "duplicate", "remove"
            ],
            "new_labels": ["number"],
        },
        "ansible": { "playbooks": ["*.yml"], "vars": { "third": ["*"] } },
        "http": [
            { "urls": ["https://api/a/**"], "methods": ["GET", "POST"], "secrets": ["key"], "answers": true },
            { "urls": ["https://chat/hooks/**"], "methods": ["POST"], "secrets": ["*-url"], "answers": true },
        ],
        "mail": ["oncall@example.com", "*@ops.example.com"],
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
        memory: Arc::new(NoPast),
        http: Arc::clone(world) as Arc<dyn HttpDriver>,
        mail: Arc::clone(world) as Arc<dyn MailDriver>,
        io: Handle::current(),
        effects: TaskTracker::new(),
        limits: GateLimits::default(),
        mode: GateMode::Live,
        guard: Arc::clone(world) as Arc<dyn EffectGuard>,
        halt: Halt::new(),
        evidence: None,
        record: None,
        on_interrupt: OnInterrupt::Escalate,
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

/// A guest that `make plugins` has built: a shipped plugin, or one for tests.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    let (variable, folder) = if name.starts_with("hostile") || name.starts_with("scripted") {
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
