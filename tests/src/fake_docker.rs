//! A fake of the Docker Engine's API, for counting and for faults.
//!
//! No container is behind it. It exists for the two things that a real engine cannot do: say exactly how often
//! each effect was asked for and carried out, and go wrong on demand (be slow, hang, fail, carry an effect out
//! and hang up before the answer, hang up without doing anything). Whatever can be tested on a real engine is.
//!
//! It lives in the test and so survives the daemon's restarts. As a real engine does, it goes on with an effect
//! whose client has gone away, and carries out one effect on a container at a time.
//!
//! Served are the endpoints that the docker driver calls for observations and for start, stop, restart and kill;
//! those behind `recreate` and the event stream are not there, and are answered as an unknown page.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use reqwest::Url;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A call of the API that can be made to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// `GET /containers/{id}/json`
    Inspect,
    /// `GET /containers/{id}/logs`
    Logs,
    /// `POST /containers/{id}/start`
    Start,
    /// `POST /containers/{id}/stop`
    Stop,
    /// `POST /containers/{id}/restart`
    Restart,
    /// `POST /containers/{id}/kill`
    Kill,
}

impl Call {
    /// The name of the same call in the journal.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inspect => "docker.inspect",
            Self::Logs => "docker.logs",
            Self::Start => "docker.start",
            Self::Stop => "docker.stop",
            Self::Restart => "docker.restart",
            Self::Kill => "docker.kill",
        }
    }

    fn of(method: &Method, verb: &str) -> Option<Self> {
        match (method, verb) {
            (&Method::GET, "json") => Some(Self::Inspect),
            (&Method::GET, "logs") => Some(Self::Logs),
            (&Method::POST, "start") => Some(Self::Start),
            (&Method::POST, "stop") => Some(Self::Stop),
            (&Method::POST, "restart") => Some(Self::Restart),
            (&Method::POST, "kill") => Some(Self::Kill),
            _ => None,
        }
    }
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done and nothing is ever answered.
    Hang,
    /// Nothing is done; the answer is 500.
    ServerError,
    /// It is done, and the connection is closed before the answer.
    DoneAndDropped,
    /// Nothing is done, and the connection is closed.
    Dropped,
}

/// How a call on a container is dealt with; by default at once and well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manner {
    /// How long it takes.
    pub takes: Duration,
    /// How it goes wrong.
    pub fault: Option<Fault>,
}

impl Manner {
    /// It takes this long and goes well.
    #[must_use]
    pub fn slow(takes: Duration) -> Self {
        Self { takes, fault: None }
    }

    /// It goes wrong at once.
    #[must_use]
    pub fn faulty(fault: Fault) -> Self {
        Self {
            takes: Duration::ZERO,
            fault: Some(fault),
        }
    }
}

/// What the main process of a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It runs.
    Running,
    /// It has ended.
    Exited,
}

/// A container of the fake.
#[derive(Debug, Clone)]
pub struct Container {
    name: String,
    labels: BTreeMap<String, String>,
    health: Option<&'static str>,
    status: Status,
    created_at: Timestamp,
    started_at: Timestamp,
    finished_at: Option<Timestamp>,
    exit_code: i64,
    restart_count: i64,
    log: String,
    manners: BTreeMap<Call, Manner>,
}

impl Container {
    /// One that has been running for an hour, without a health check.
    #[must_use]
    pub fn running(name: &str) -> Self {
        let an_hour_ago = Timestamp::now() - Duration::from_secs(3600);
        Self {
            name: name.to_owned(),
            labels: BTreeMap::new(),
            health: None,
            status: Status::Running,
            created_at: an_hour_ago,
            started_at: an_hour_ago,
            finished_at: None,
            exit_code: 0,
            restart_count: 0,
            log: format!("{name} says hello\n"),
            manners: BTreeMap::new(),
        }
    }

    /// One that crashed a moment ago, after Docker's own policy had restarted it twice.
    #[must_use]
    pub fn exited(name: &str) -> Self {
        Self {
            status: Status::Exited,
            finished_at: Some(Timestamp::now()),
            exit_code: 137,
            restart_count: 2,
            ..Self::running(name)
        }
    }

    /// Gives it a health check that says this, whatever is done about it: `healthy`, `unhealthy`, `starting`.
    #[must_use]
    pub fn health(mut self, health: &'static str) -> Self {
        self.health = Some(health);
        self
    }

    /// Gives it a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Says how a call on it is dealt with.
    #[must_use]
    pub fn manner(mut self, call: Call, manner: Manner) -> Self {
        self.manners.insert(call, manner);
        self
    }

    fn id(&self) -> String {
        // The form of an id, and the same each time.
        let sum = self
            .name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        format!("{sum:016x}").repeat(4)
    }

    fn word(&self) -> &'static str {
        match self.status {
            Status::Running => "running",
            Status::Exited => "exited",
        }
    }

    fn end(&mut self, exit_code: i64) {
        if self.status == Status::Running {
            self.status = Status::Exited;
            self.finished_at = Some(Timestamp::now());
            self.exit_code = exit_code;
        }
    }

    fn begin(&mut self) {
        self.status = Status::Running;
        self.started_at = Timestamp::now();
        self.exit_code = 0;
        // Docker counts what its own policy restarted since someone started it.
        self.restart_count = 0;
    }

    fn inspected(&self) -> Value {
        let running = self.status == Status::Running;
        let mut state = json!({
            "Status": self.word(),
            "Running": running,
            "Paused": false,
            "Restarting": false,
            "OOMKilled": false,
            "Dead": false,
            "Pid": if running { 4242 } else { 0 },
            "ExitCode": self.exit_code,
            "Error": "",
            "StartedAt": moment(Some(self.started_at)),
            "FinishedAt": moment(self.finished_at),
        });
        if let Some(health) = self.health {
            let streak = if health == "unhealthy" { 3 } else { 0 };
            state["Health"] = json!({"Status": health, "FailingStreak": streak, "Log": []});
        }
        json!({
            "Id": self.id(),
            "Created": moment(Some(self.created_at)),
            "Path": "/fake",
            "Args": [],
            "State": state,
            "Image": format!("sha256:{}", "f".repeat(64)),
            "Name": format!("/{}", self.name),
            "RestartCount": self.restart_count,
            "Driver": "fake",
            "Platform": "linux",
            "Mounts": [],
            "Config": {
                "Hostname": &self.id()[..12],
                "Image": "fake:latest",
                "Labels": self.labels,
                "Tty": false,
            },
            "HostConfig": {"NetworkMode": "default", "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}},
            "NetworkSettings": {"Networks": {}},
        })
    }

    fn listed(&self) -> Value {
        json!({
            "Id": self.id(),
            "Names": [format!("/{}", self.name)],
            "Image": "fake:latest",
            "ImageID": format!("sha256:{}", "f".repeat(64)),
            "Command": "/fake",
            "Created": self.created_at.as_second(),
            "Ports": [],
            "Labels": self.labels,
            "State": self.word(),
            "Status": self.word(),
            "HostConfig": {"NetworkMode": "default"},
            "NetworkSettings": {"Networks": {}},
            "Mounts": [],
        })
    }
}

/// An effect that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// The container's name.
    pub container: String,
    /// What was asked.
    pub call: Call,
    /// When the request was there.
    pub asked_at: Timestamp,
    /// When it had been carried out; none when it was not, or changed nothing.
    pub done_at: Option<Timestamp>,
}

/// How many effects there have been so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Asked for.
    pub asked: usize,
    /// Carried out.
    pub done: usize,
    /// Asked for and neither carried out nor given up.
    pub under_way: usize,
}

struct Entry {
    container: Container,
    // One effect at a time, first come, first served, as in a real engine.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    // The engine's own id.
    id: String,
    containers: BTreeMap<String, Entry>,
    effects: Vec<Effect>,
}

struct Shared {
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fake, serving on a socket of its own until it is dropped.
pub struct FakeDocker {
    shared: Arc<Shared>,
    socket: PathBuf,
    server: JoinHandle<()>,
    _folder: Option<TempDir>,
}

impl FakeDocker {
    /// Begins to serve. Needs a runtime of tokio.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("sentinel-fake-docker-")
            .tempdir()
            .expect("a temporary folder");
        let socket = folder.path().join("docker.sock");
        Self::serve_at(socket, Some(folder))
    }

    /// Begins to serve at a place that a daemon may have been told before. Needs a runtime
    /// of tokio.
    #[must_use]
    pub fn start_at(socket: &Path) -> Self {
        Self::serve_at(socket.to_owned(), None)
    }

    fn serve_at(socket: PathBuf, folder: Option<TempDir>) -> Self {
        let listener = UnixListener::bind(&socket).expect("a socket");
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                id: socket.display().to_string(),
                ..State::default()
            }),
            progress: watch::Sender::default(),
        });
        let server = tokio::spawn(serve(listener, shared.clone()));
        Self {
            shared,
            socket,
            server,
            _folder: folder,
        }
    }

    /// What `SENTINEL_DOCKER_HOSTS` has to be for the host `local` to be this one.
    #[must_use]
    pub fn hosts(&self) -> String {
        format!("local=unix://{}", self.socket.display())
    }

    /// The id of a container of this name.
    #[must_use]
    pub fn id(name: &str) -> String {
        Container::running(name).id()
    }

    /// Adds a container, or replaces the one of the same name.
    pub fn add(&self, container: Container) {
        let name = container.name.clone();
        let entry = Entry {
            container,
            turn: Arc::default(),
        };
        self.shared.state().containers.insert(name, entry);
    }

    /// Says how a call on a container is dealt with from now on.
    pub fn set(&self, container: &str, call: Call, manner: Manner) {
        let mut state = self.shared.state();
        let entry = state.containers.get_mut(container).expect("the container");
        entry.container.manners.insert(call, manner);
    }

    /// What a container's main process is doing.
    #[must_use]
    pub fn status(&self, container: &str) -> Status {
        self.shared.state().containers[container].container.status
    }

    /// Every effect that was asked for, in order.
    #[must_use]
    pub fn effects(&self) -> Vec<Effect> {
        self.shared.state().effects.clone()
    }

    /// How often an effect on a container was carried out.
    #[must_use]
    pub fn done(&self, container: &str, call: Call) -> usize {
        let state = self.shared.state();
        let done = |effect: &&Effect| {
            effect.container == container && effect.call == call && effect.done_at.is_some()
        };
        state.effects.iter().filter(done).count()
    }

    /// Changes whenever an effect is asked for, carried out or given up.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// Waits until this many effects have been asked for.
    pub async fn wait_asked(&self, count: usize) {
        let mut progress = self.progress();
        let reached = progress.wait_for(|progress| progress.asked >= count);
        tokio::time::timeout(Duration::from_secs(20), reached)
            .await
            .expect("an effect is asked for")
            .expect("the fake serves");
    }
}

impl Drop for FakeDocker {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        tokio::spawn(connection(stream, shared.clone()));
    }
}

async fn connection(stream: UnixStream, shared: Arc<Shared>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = shared.clone();
        // A task of its own: a client that goes away stops nothing.
        async move {
            tokio::spawn(async move { answer(&shared, &request).await })
                .await
                .unwrap_or(Err(Dropped))
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // A daemon that was killed, or a connection that was to be dropped.
    drop(served);
}

/// The connection is closed instead of an answer.
#[derive(Debug)]
struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("dropped")
    }
}

impl std::error::Error for Dropped {}

type Answer = Result<Response<Full<Bytes>>, Dropped>;

async fn answer(shared: &Arc<Shared>, request: &Request<Incoming>) -> Answer {
    let url = Url::parse(&format!("http://docker{}", request.uri())).expect("a URL");
    let path: Vec<&str> = url
        .path_segments()
        .into_iter()
        .flatten()
        // `/v1.41` before the path is optional.
        .skip_while(|part| part.starts_with("v1."))
        .collect();
    let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    match (request.method(), path.as_slice()) {
        (&Method::GET | &Method::HEAD, ["_ping"]) => Ok(text("OK")),
        (&Method::GET, ["version"]) => Ok(ok(&json!({
            "Version": "20.10.24",
            "ApiVersion": "1.41",
            "MinAPIVersion": "1.12",
            "Os": "linux",
            "Arch": "amd64",
        }))),
        (&Method::GET, ["info"]) => Ok(ok(&info(&shared.state()))),
        (&Method::GET, ["containers", "json"]) => Ok(ok(&list(&shared.state(), &query))),
        (method, ["containers", id, verb]) => match Call::of(method, verb) {
            Some(call) => on_container(shared, call, id, &query).await,
            None => Ok(unknown_page()),
        },
        _ => Ok(unknown_page()),
    }
}

async fn on_container(
    shared: &Arc<Shared>,
    call: Call,
    id: &str,
    query: &BTreeMap<String, String>,
) -> Answer {
    let (name, manner, turn) = {
        let state = shared.state();
        let Some(entry) = find(&state, id) else {
            return Ok(error(
                StatusCode::NOT_FOUND,
                &format!("No such container: {id}"),
            ));
        };
        let manner = entry
            .container
            .manners
            .get(&call)
            .copied()
            .unwrap_or_default();
        (entry.container.name.clone(), manner, entry.turn.clone())
    };
    if matches!(call, Call::Inspect | Call::Logs) {
        tokio::time::sleep(manner.takes).await;
        if let Some(answer) = instead(manner.fault).await {
            return answer;
        }
        let state = shared.state();
        let container = &state.containers[&name].container;
        return Ok(if call == Call::Inspect {
            ok(&container.inspected())
        } else {
            logs(&container.log, query)
        });
    }

    let number = {
        let mut state = shared.state();
        state.effects.push(Effect {
            container: name.clone(),
            call,
            asked_at: Timestamp::now(),
            done_at: None,
        });
        state.effects.len() - 1
    };
    shared.progress.send_modify(|progress| {
        progress.asked += 1;
        progress.under_way += 1;
    });
    let response = if matches!(manner.fault, None | Some(Fault::DoneAndDropped)) {
        let _turn = turn.lock().await;
        Some(effect(shared, &name, call, manner.takes, number, query).await)
    } else {
        tokio::time::sleep(manner.takes).await;
        None
    };
    let done = shared.state().effects[number].done_at.is_some();
    shared.progress.send_modify(|progress| {
        progress.under_way -= 1;
        progress.done += usize::from(done);
    });
    match instead(manner.fault).await {
        Some(answer) => answer,
        None => response.ok_or(Dropped),
    }
}

/// What comes in the place of the answer.
async fn instead(fault: Option<Fault>) -> Option<Answer> {
    match fault? {
        Fault::Hang => std::future::pending().await,
        Fault::ServerError => Some(Ok(error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "cannot do it: the fake was told to fail",
        ))),
        Fault::Dropped | Fault::DoneAndDropped => Some(Err(Dropped)),
    }
}

/// Carries an effect out.
async fn effect(
    shared: &Shared,
    name: &str,
    call: Call,
    takes: Duration,
    number: usize,
    query: &BTreeMap<String, String>,
) -> Response<Full<Bytes>> {
    let change = |change: &dyn Fn(&mut Container)| {
        let mut state = shared.state();
        if let Some(entry) = state.containers.get_mut(name) {
            change(&mut entry.container);
        }
    };
    let running = shared.state().containers[name].container.status == Status::Running;
    match (call, running) {
        (Call::Start, true) | (Call::Stop, false) => return empty(StatusCode::NOT_MODIFIED),
        (Call::Kill, false) => {
            return error(
                StatusCode::CONFLICT,
                &format!("Cannot kill container: {name}: Container {name} is not running"),
            );
        }
        (Call::Restart, _) => {
            // It is down for the second half of the time.
            tokio::time::sleep(takes / 2).await;
            change(&|container| container.end(0));
            tokio::time::sleep(takes / 2).await;
            change(&Container::begin);
        }
        (Call::Start, false) => {
            tokio::time::sleep(takes).await;
            change(&Container::begin);
        }
        (Call::Stop, true) => {
            tokio::time::sleep(takes).await;
            change(&|container| container.end(0));
        }
        (Call::Kill, true) => {
            tokio::time::sleep(takes).await;
            let signal = query.get("signal").map_or("KILL", String::as_str);
            if matches!(signal.trim_start_matches("SIG"), "KILL" | "9") {
                change(&|container| container.end(137));
            }
        }
        (Call::Inspect | Call::Logs, _) => {}
    }
    shared.state().effects[number].done_at = Some(Timestamp::now());
    empty(StatusCode::NO_CONTENT)
}

/// By name, by id, or by the beginning of an id.
fn find<'a>(state: &'a State, id: &str) -> Option<&'a Entry> {
    state.containers.get(id).or_else(|| {
        state
            .containers
            .values()
            .find(|entry| id.len() >= 12 && entry.container.id().starts_with(id))
    })
}

fn list(state: &State, query: &BTreeMap<String, String>) -> Value {
    let all = query
        .get("all")
        .is_some_and(|all| matches!(all.as_str(), "1" | "true"));
    let filters: Value = query
        .get("filters")
        .and_then(|filters| serde_json::from_str(filters).ok())
        .unwrap_or_default();
    // `{"label": ["a=b"]}` and, as the docker client writes it, `{"label": {"a=b": true}}`.
    let wanted: Vec<&str> = match &filters["label"] {
        Value::Array(labels) => labels.iter().filter_map(Value::as_str).collect(),
        Value::Object(labels) => labels.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    state
        .containers
        .values()
        .map(|entry| &entry.container)
        .filter(|container| all || container.status == Status::Running)
        .filter(|container| {
            wanted.iter().all(|label| match label.split_once('=') {
                Some((name, value)) => container.labels.get(name).is_some_and(|is| is == value),
                None => container.labels.contains_key(*label),
            })
        })
        .map(Container::listed)
        .collect()
}

fn info(state: &State) -> Value {
    let running = state
        .containers
        .values()
        .filter(|entry| entry.container.status == Status::Running)
        .count();
    json!({
        // Each is an engine of its own.
        "ID": state.id,
        "Name": "fake",
        "ServerVersion": "20.10.24",
        "SystemTime": Timestamp::now(),
        "OperatingSystem": "a fake for tests",
        "Containers": state.containers.len(),
        "ContainersRunning": running,
        "ContainersStopped": state.containers.len() - running,
    })
}

/// The last lines in frames, as an engine sends the output of a container without a terminal.
fn logs(log: &str, query: &BTreeMap<String, String>) -> Response<Full<Bytes>> {
    let lines: Vec<&str> = log.split_inclusive('\n').collect();
    let tail = query
        .get("tail")
        .and_then(|tail| tail.parse().ok())
        .unwrap_or(lines.len());
    let mut body = Vec::new();
    for line in lines.iter().skip(lines.len().saturating_sub(tail)) {
        // Stream 1 is stdout; the length is in the last four bytes of the header.
        body.extend([1, 0, 0, 0]);
        body.extend(u32::try_from(line.len()).unwrap_or_default().to_be_bytes());
        body.extend(line.as_bytes());
    }
    respond(
        StatusCode::OK,
        "application/vnd.docker.raw-stream",
        body.into(),
    )
}

fn moment(at: Option<Timestamp>) -> String {
    at.map_or_else(
        || "0001-01-01T00:00:00Z".to_owned(),
        |at| format!("{at:.9}"),
    )
}

fn ok(body: &Value) -> Response<Full<Bytes>> {
    respond(StatusCode::OK, "application/json", body.to_string().into())
}

fn text(body: &'static str) -> Response<Full<Bytes>> {
    respond(
        StatusCode::OK,
        "text/plain; charset=utf-8",
        Bytes::from_static(body.as_bytes()),
    )
}

fn error(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let body = json!({"message": message}).to_string();
    respond(status, "application/json", body.into())
}

fn unknown_page() -> Response<Full<Bytes>> {
    error(StatusCode::NOT_FOUND, "page not found")
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    respond(status, "text/plain", Bytes::new())
}

fn respond(status: StatusCode, kind: &str, body: Bytes) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("Api-Version", "1.41")
        .header("Server", "Docker/20.10.24 (fake)")
        .header("Content-Type", kind)
        .body(Full::new(body))
        .expect("a response")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the docker client against the fake: its exit code and what it printed.
    async fn docker(fake: &FakeDocker, args: &str) -> (bool, String) {
        let output = tokio::process::Command::new("docker")
            .env("DOCKER_HOST", format!("unix://{}", fake.socket.display()))
            .env_remove("DOCKER_CONTEXT")
            .args(args.split(' '))
            .output()
            .await
            .expect("the docker client");
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).trim().to_owned();
        (output.status.success(), printed)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_docker_client_takes_it_for_an_engine() {
        let fake = FakeDocker::start();
        fake.add(
            Container::running("web")
                .label("tier", "web")
                .health("healthy"),
        );
        fake.add(Container::exited("job"));
        let done = |text: &str| (true, text.to_owned());
        for (args, answer) in [
            ("ps --format {{.Names}}", "web"),
            ("ps -a --format {{.Names}}", "job\nweb"),
            ("ps -a --filter label=tier=web --format {{.Names}}", "web"),
            (
                "inspect -f {{.State.Status}},{{.State.Health.Status}} web",
                "running,healthy",
            ),
            (
                "inspect -f {{.State.Status}},{{.State.ExitCode}},{{.RestartCount}} job",
                "exited,137,2",
            ),
            ("logs --tail 1 web", "web says hello"),
            (
                "info --format {{.Containers}},{{.ContainersRunning}}",
                "2,1",
            ),
            ("version --format {{.Server.APIVersion}}", "1.41"),
        ] {
            assert_eq!(docker(&fake, args).await, done(answer), "{args}");
        }
        assert!(fake.effects().is_empty(), "looking is no effect");

        let (_, before) = docker(&fake, "inspect -f {{.State.StartedAt}} web").await;
        assert_eq!(docker(&fake, "restart web").await, done("web"));
        let (_, after) = docker(&fake, "inspect -f {{.State.StartedAt}} web").await;
        assert!(before < after, "{before} {after}");
        assert_eq!(docker(&fake, "start job").await, done("job"));
        assert_eq!(
            docker(&fake, "inspect -f {{.RestartCount}} job").await,
            done("0")
        );
        assert_eq!(docker(&fake, "kill job").await, done("job"));
        assert_eq!(docker(&fake, "stop job").await, done("job"));
        let (ok, said) = docker(&fake, "kill job").await;
        assert!(!ok && said.contains("is not running"), "{said}");
        let (ok, said) = docker(&fake, "restart none").await;
        assert!(!ok && said.contains("No such container: none"), "{said}");

        let asked: Vec<(&str, Call, bool)> = fake
            .shared
            .state()
            .effects
            .iter()
            .map(|effect| match effect.container.as_str() {
                "web" => ("web", effect.call, effect.done_at.is_some()),
                _ => ("job", effect.call, effect.done_at.is_some()),
            })
            .collect();
        assert_eq!(
            asked,
            [
                ("web", Call::Restart, true),
                ("job", Call::Start, true),
                ("job", Call::Kill, true),
                // It had ended already.
                ("job", Call::Stop, false),
                ("job", Call::Kill, false),
            ]
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn faults_do_what_they_say() {
        for (fault, times) in [
            (Fault::ServerError, 0),
            (Fault::Dropped, 0),
            (Fault::DoneAndDropped, 1),
        ] {
            let fake = FakeDocker::start();
            fake.add(Container::running("web").manner(Call::Restart, Manner::faulty(fault)));
            let (ok, said) = docker(&fake, "restart web").await;
            assert!(!ok, "{fault:?}: {said}");
            assert_eq!(fake.done("web", Call::Restart), times, "{fault:?}");
            assert_eq!(fake.effects().len(), 1, "{fault:?}");
        }
        let fake = FakeDocker::start();
        fake.add(Container::running("web").manner(Call::Restart, Manner::faulty(Fault::Hang)));
        let asked = docker(&fake, "restart web");
        let answer = tokio::time::timeout(Duration::from_millis(500), asked).await;
        assert!(answer.is_err(), "{answer:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_effect_goes_on_without_its_client_and_the_next_one_waits_for_it() {
        let fake = FakeDocker::start();
        let slow = Manner::slow(Duration::from_millis(300));
        fake.add(Container::running("web").manner(Call::Restart, slow));
        let request = b"POST /v1.41/containers/web/restart?t=2 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
        for count in 1..=2 {
            let mut client = UnixStream::connect(&fake.socket).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut client, request)
                .await
                .unwrap();
            fake.wait_asked(count).await;
            drop(client);
        }
        tokio::time::timeout(
            Duration::from_secs(5),
            fake.progress().wait_for(|progress| progress.done == 2),
        )
        .await
        .expect("both are done")
        .expect("the fake serves");
        let effects = fake.effects();
        // Nobody promises which of two waiting requests is next.
        let apart = (effects[1].done_at.unwrap() - effects[0].done_at.unwrap()).abs();
        assert!(apart.total(jiff::Unit::Second).unwrap() >= 0.3, "{apart}");
    }
}
