//! The docker driver against a real Docker Engine.
//!
//! Needs a Docker Engine at `/var/run/docker.sock` (or `DOCKER_HOST`, a `unix://` URL)
//! and a static busybox at `/bin/busybox` (package `busybox-static`). Images come from
//! no registry: the one that is used is made of that busybox.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what helps tests may assume what tests may"
)]

mod beside;
mod engines;
mod podman;
mod settle;
mod ssh;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, EndpointIpamConfig, EndpointSettings,
    HealthConfig, HostConfig, Ipam, IpamConfig, Mount, MountType, NetworkConnectRequest,
    NetworkCreateRequest, NetworkingConfig, PortBinding,
};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptionsBuilder, CreateImageOptionsBuilder,
    InspectContainerOptions, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
    RemoveVolumeOptions,
};
use futures_util::TryStreamExt;
use sentinel_core::alert::Labels;
use sentinel_core::capability::{
    CapabilityError, ContainerDetails, ContainerHealth, ContainerState, ContainerSummary,
    DockerCall, Response,
};
use sentinel_drivers::docker::Docker;
use sentinel_sandbox::driver::DockerDriver;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio_util::task::TaskTracker;

const IMAGE: &str = "infra-sentinel-test/busybox";
const TAG: &str = "1";
const LABEL: &str = "infra-sentinel.test";
const TIMEOUT: Duration = Duration::from_secs(30);

/// Ends at once on SIGTERM, which a process that is PID 1 otherwise ignores.
const LOOP: &str = "trap 'exit 0' TERM; while :; do sleep 0.05; done";

fn socket() -> String {
    std::env::var("DOCKER_HOST")
        .ok()
        .filter(|url| url.starts_with("unix://"))
        .unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned())
}

fn engine() -> bollard::Docker {
    let path = socket().trim_start_matches("unix://").to_owned();
    bollard::Docker::connect_with_unix(&path, 120, bollard::API_DEFAULT_VERSION)
        .unwrap_or_else(|error| panic!("these tests need a Docker Engine at {path}: {error}"))
}

fn driver() -> Docker {
    connected_to(&socket())
}

fn connected_to(url: &str) -> Docker {
    Docker::new(BTreeMap::from([("local".to_owned(), url.to_owned())])).unwrap()
}

fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "infra-sentinel-test-{what}-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A tar archive of one folder with busybox, and links by the names that are used.
fn busybox_tar() -> Vec<u8> {
    fn entry(archive: &mut Vec<u8>, name: &str, kind: u8, link: &str, content: &[u8]) {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000755\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[148..156].copy_from_slice(b"        ");
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    let busybox = std::fs::read("/bin/busybox").unwrap_or_else(|error| {
        panic!("/bin/busybox: {error}; install busybox-static (apt-get install busybox-static)")
    });
    let mut archive = Vec::new();
    entry(&mut archive, "bin/", b'5', "", b"");
    entry(&mut archive, "tmp/", b'5', "", b"");
    entry(&mut archive, "bin/busybox", b'0', "", &busybox);
    for name in [
        "sh", "sleep", "cat", "tail", "false", "hostname", "seq", "head", "yes",
    ] {
        entry(&mut archive, &format!("bin/{name}"), b'2', "busybox", b"");
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

async fn image() -> String {
    static MADE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    let name = format!("{IMAGE}:{TAG}");
    MADE.get_or_init(|| async {
        let engine = engine();
        if engine
            .inspect_image(&format!("{IMAGE}:{TAG}"))
            .await
            .is_ok()
        {
            return;
        }
        let options = CreateImageOptionsBuilder::new()
            .from_src("-")
            .repo(IMAGE)
            .tag(TAG)
            .build();
        let body = bollard::body_full(busybox_tar().into());
        engine
            .create_image(Some(options), Some(body), None)
            .try_collect::<Vec<_>>()
            .await
            .unwrap();
    })
    .await;
    name
}

/// What is removed when a test ends, however it ends.
#[derive(Default)]
struct Cleanup {
    containers: Vec<String>,
    networks: Vec<String>,
    volumes: Vec<String>,
    images: Vec<String>,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let (containers, networks) = (self.containers.clone(), self.networks.clone());
        let (volumes, images) = (self.volumes.clone(), self.images.clone());
        // The test's own runtime may be about to end.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let engine = engine();
                for container in containers {
                    let options = RemoveContainerOptionsBuilder::new().v(true).force(true);
                    drop(
                        engine
                            .remove_container(&container, Some(options.build()))
                            .await,
                    );
                }
                for network in networks {
                    drop(engine.remove_network(&network).await);
                }
                for volume in volumes {
                    drop(
                        engine
                            .remove_volume(&volume, None::<RemoveVolumeOptions>)
                            .await,
                    );
                }
                for image in images {
                    let options = RemoveImageOptionsBuilder::new().force(true).build();
                    drop(engine.remove_image(&image, Some(options), None).await);
                }
            });
        });
        removing.join().unwrap();
    }
}

/// A container of one test.
struct Container {
    name: String,
    id: String,
    cleanup: Cleanup,
}

impl Container {
    /// Makes one that runs `script`, changed as the test likes; not started.
    async fn create(script: &str, change: impl FnOnce(&mut ContainerCreateBody)) -> Self {
        let name = unique("c");
        let mut body = ContainerCreateBody {
            image: Some(image().await),
            cmd: Some(vec!["/bin/sh".into(), "-c".into(), script.into()]),
            labels: Some(HashMap::from([(LABEL.to_owned(), "1".to_owned())])),
            ..ContainerCreateBody::default()
        };
        change(&mut body);
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let mut cleanup = Cleanup::default();
        cleanup.containers.push(name.clone());
        let created = engine()
            .create_container(Some(options), body)
            .await
            .unwrap();
        let mut container = Self {
            name,
            id: created.id,
            cleanup,
        };
        let short = container.id[..12].to_owned();
        for kind in ["old", "new"] {
            let name = format!("{}-sentinel-{kind}-{short}", container.name);
            container.cleanup.containers.push(name);
        }
        container
    }

    async fn run(script: &str, change: impl FnOnce(&mut ContainerCreateBody)) -> Self {
        let container = Self::create(script, change).await;
        engine()
            .start_container(&container.name, None)
            .await
            .unwrap();
        container
    }

    /// One that runs `script` with this MAC address, on an API that has it for the whole
    /// container.
    async fn run_with_mac_address(script: &str, mac_address: &str) -> Self {
        let mut container = Self::create(script, |_| {}).await;
        // The library knows newer APIs alone.
        let body = serde_json::json!({
            "Image": image().await,
            "Cmd": ["/bin/sh", "-c", script],
            "Labels": { (LABEL): "1" },
            "MacAddress": mac_address,
        })
        .to_string();
        let name = format!("{}-mac", container.name);
        container.cleanup.containers.push(name.clone());
        let mut engine = UnixStream::connect(socket().trim_start_matches("unix://"))
            .await
            .unwrap();
        let request = format!(
            "POST /v1.41/containers/create?name={name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        engine.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        engine.read_to_string(&mut answer).await.unwrap();
        let (_, rest) = answer
            .split_once(r#""Id":""#)
            .unwrap_or_else(|| panic!("{answer}"));
        container.id = rest[..64].to_owned();
        let short = container.id[..12].to_owned();
        for kind in ["old", "new"] {
            let name = format!("{name}-sentinel-{kind}-{short}");
            container.cleanup.containers.push(name);
        }
        container.name = name;
        engine_start(&container.name).await;
        container
    }

    async fn raw(&self) -> ContainerInspectResponse {
        engine()
            .inspect_container(&self.name, None::<InspectContainerOptions>)
            .await
            .unwrap()
    }

    async fn details(&self) -> ContainerDetails {
        inspect(&driver(), &self.name).await
    }

    /// What is called by this container's name, or by one that a recreate gives.
    async fn namesakes(&self) -> Vec<String> {
        let mut names: Vec<String> = list(&driver(), true, &[(LABEL, "1")])
            .await
            .into_iter()
            .map(|row| row.name)
            .filter(|name| *name == self.name || name.starts_with(&format!("{}-", self.name)))
            .collect();
        names.sort();
        names
    }

    async fn wait_for(
        &self,
        what: &str,
        done: impl Fn(&ContainerDetails) -> bool,
    ) -> ContainerDetails {
        let begun = Instant::now();
        loop {
            let details = self.details().await;
            if done(&details) {
                return details;
            }
            assert!(begun.elapsed() < TIMEOUT, "not {what}: {details:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn engine_start(container: &str) {
    engine().start_container(container, None).await.unwrap();
}

async fn call(driver: &Docker, call: DockerCall) -> Result<Response, CapabilityError> {
    driver.call("local", &call, TIMEOUT).await
}

async fn inspect(driver: &Docker, container: &str) -> ContainerDetails {
    let container = container.to_owned();
    match call(driver, DockerCall::Inspect { container }).await {
        Ok(Response::Container(details)) => *details,
        other => panic!("{other:?}"),
    }
}

async fn list(driver: &Docker, all: bool, labels: &[(&str, &str)]) -> Vec<ContainerSummary> {
    let labels: Labels = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    match call(driver, DockerCall::List { all, labels }).await {
        Ok(Response::Containers(rows)) => rows,
        other => panic!("{other:?}"),
    }
}

async fn logs(container: &str, lines: u32) -> String {
    let container = container.to_owned();
    match call(&driver(), DockerCall::Logs { container, lines }).await {
        Ok(Response::Text(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn start(container: &str) -> DockerCall {
    DockerCall::Start {
        container: container.to_owned(),
    }
}

fn stop(container: &str) -> DockerCall {
    DockerCall::Stop {
        container: container.to_owned(),
        grace_ms: 5_000,
    }
}

fn restart(container: &str) -> DockerCall {
    DockerCall::Restart {
        container: container.to_owned(),
        grace_ms: 1_000,
    }
}

fn recreate(container: &str) -> DockerCall {
    DockerCall::Recreate {
        container: container.to_owned(),
        grace_ms: 5_000,
    }
}

fn created(answer: Result<Response, CapabilityError>) -> String {
    match answer {
        Ok(Response::Created(id)) => id,
        other => panic!("{other:?}"),
    }
}

fn failed(answer: Result<Response, CapabilityError>) -> String {
    match answer {
        Err(CapabilityError::Failed(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn unavailable<T: std::fmt::Debug>(answer: Result<T, CapabilityError>) -> String {
    match answer {
        Err(CapabilityError::Unavailable(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn invalid<T: std::fmt::Debug>(answer: Result<T, CapabilityError>) -> String {
    match answer {
        Err(CapabilityError::Invalid(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// What a proxy does with a request whose first line this is.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Pass,
    /// Answered with 500 and this message, and not passed on.
    Refuse(&'static str),
    /// Passed on; the answer is kept back for good.
    Swallow,
    /// The connection is closed before anything is answered.
    Break,
    /// Passed on and carried out; the connection is closed instead of the answer.
    Lose,
}

/// Docker over TCP, with faults; the URL.
async fn proxy(fate: impl Fn(&str) -> Fate + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let path = socket().trim_start_matches("unix://").to_owned();
    let (fate, tasks) = (Arc::new(fate), TaskTracker::new());
    tasks.clone().spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (fate, path) = (Arc::clone(&fate), path.clone());
            tasks.spawn(async move {
                let mut head = vec![0; 64 * 1024];
                // A connection that only looks whether somebody listens sends nothing.
                let Ok(count @ 1..) = client.read(&mut head).await else {
                    return;
                };
                head.truncate(count);
                let first = String::from_utf8_lossy(&head);
                let first = first.lines().next().unwrap_or_default().to_owned();
                let mut engine = UnixStream::connect(&path).await.unwrap();
                match fate(&first) {
                    Fate::Pass => {
                        engine.write_all(&head).await.unwrap();
                        drop(tokio::io::copy_bidirectional(&mut client, &mut engine).await);
                    }
                    Fate::Refuse(message) => {
                        let body = format!(r#"{{"message":"{message}"}}"#);
                        let answer = format!(
                            "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n\
                             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                            body.len()
                        );
                        client.write_all(answer.as_bytes()).await.unwrap();
                    }
                    Fate::Swallow => {
                        engine.write_all(&head).await.unwrap();
                        tokio::time::sleep(TIMEOUT).await;
                    }
                    Fate::Break => {}
                    Fate::Lose => {
                        engine.write_all(&head).await.unwrap();
                        assert!(engine.read(&mut [0; 1024]).await.unwrap() > 0);
                    }
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_container_is_the_same_by_every_name() {
    let container = Container::run(LOOP, |_| {}).await;
    let driver = driver();
    for name in [&container.name, &container.id, &container.id[..12]] {
        let found = driver.resolve("local", name).await.unwrap();
        assert_eq!(found.id, container.id);
        assert_eq!(found.name, container.name);
        assert_eq!(found.labels.get(LABEL).map(String::as_str), Some("1"));
    }
    assert!(matches!(
        driver.resolve("local", "infra-sentinel-test-nobody").await,
        Err(CapabilityError::NotFound(_))
    ));
}

#[tokio::test]
async fn a_name_reaches_no_other_endpoint() {
    let container = Container::run(LOOP, |_| {}).await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let url = proxy({
        let asked = Arc::clone(&asked);
        move |first| {
            asked.lock().unwrap().push(first.to_owned());
            Fate::Pass
        }
    })
    .await;
    let driver = connected_to(&url);
    for name in [
        format!("{}/kill?signal=KILL&y=", container.name),
        format!("{}%2fkill", container.name),
        format!("../containers/{}", container.name),
        "..".to_owned(),
        ".".to_owned(),
        String::new(),
        "a b".to_owned(),
        "x\r\nX-Y: z".to_owned(),
        "a".repeat(200),
    ] {
        invalid(driver.resolve("local", &name).await);
        for request in [start(&name), stop(&name), restart(&name), recreate(&name)] {
            invalid(call(&driver, request).await);
        }
        let container = name.clone();
        invalid(
            call(
                &driver,
                DockerCall::Logs {
                    container,
                    lines: 1,
                },
            )
            .await,
        );
    }
    assert_eq!(
        *asked.lock().unwrap(),
        [""; 0],
        "nothing was asked of Docker"
    );
    assert_eq!(container.details().await.state, ContainerState::Running);
}

#[tokio::test]
async fn an_unknown_host_is_answered_with_the_known_ones() {
    let hosts = BTreeMap::from([
        ("local".to_owned(), socket()),
        ("edge".to_owned(), "tcp://127.0.0.1:1".to_owned()),
    ]);
    let driver = Docker::new(hosts).unwrap();
    assert_eq!(driver.hosts().collect::<Vec<_>>(), ["edge", "local"]);
    let text = invalid(driver.resolve("other", "nginx").await);
    assert!(text.ends_with("known: edge, local"), "{text}");
}

#[tokio::test]
async fn a_missing_engine_is_unavailable_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("docker.sock");
    let driver = connected_to(&format!("unix://{}", missing.display()));
    let text = unavailable(driver.resolve("local", "nginx").await);
    assert!(
        text.contains("no socket at") && text.contains("docker.hosts.local"),
        "{text}"
    );
    unavailable(driver.ping("local").await);

    // A socket that an engine left behind when it died.
    drop(StdUnixListener::bind(&missing).unwrap());
    let text = unavailable(driver.resolve("local", "nginx").await);
    assert!(text.contains("is the Docker Engine running?"), "{text}");

    // It comes back: nothing has to be started anew.
    std::fs::remove_file(&missing).unwrap();
    std::os::unix::fs::symlink(socket().trim_start_matches("unix://"), &missing).unwrap();
    driver.ping("local").await.unwrap();

    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("tcp://{}", free.local_addr().unwrap());
    drop(free);
    let text = unavailable(connected_to(&url).ping("local").await);
    assert!(text.contains("nothing listens on 127.0.0.1"), "{text}");
}

#[tokio::test]
async fn docker_is_reached_over_tcp() {
    let container = Container::run(LOOP, |_| {}).await;
    let url = proxy(|_| Fate::Pass).await;
    for url in [url.clone(), url.replace("tcp://", "http://")] {
        let driver = connected_to(&url);
        driver.ping("local").await.unwrap();
        let found = driver.resolve("local", &container.name).await.unwrap();
        assert_eq!(found.id, container.id);
        call(&driver, restart(&found.id)).await.unwrap();
    }
}

#[tokio::test]
async fn an_effect_without_an_answer_may_have_happened() {
    let container = Container::create(LOOP, |_| {}).await;
    for (fate, bound) in [
        (Fate::Swallow, Duration::from_secs(1)),
        (Fate::Break, TIMEOUT),
    ] {
        // Before an effect the engine is asked for its version, which may fare as badly.
        for all in [false, true] {
            let url = proxy(move |first| {
                if all || first.starts_with("POST") {
                    fate
                } else {
                    Fate::Pass
                }
            })
            .await;
            let driver = connected_to(&url);
            let begun = Instant::now();
            let answer = driver.call("local", &start(&container.id), bound).await;
            let Err(CapabilityError::TimedOut(text)) = answer else {
                panic!("{answer:?}");
            };
            assert!(
                text.ends_with("it may have been done all the same"),
                "{text}"
            );
            // The proxy swallows for as long as `TIMEOUT`, and what broke is not waited for.
            assert!(begun.elapsed() < TIMEOUT / 2, "{:?}", begun.elapsed());
        }
    }
    // The swallowed one was.
    assert_eq!(container.details().await.state, ContainerState::Running);
    // To ask in vain is no more than that.
    let url = proxy(|_| Fate::Break).await;
    unavailable(connected_to(&url).ping("local").await);
}

#[tokio::test]
async fn listing_filters_and_sorts() {
    let mark = unique("mark");
    let marked = |value: &str| {
        let label = (mark.clone(), value.to_owned());
        move |body: &mut ContainerCreateBody| {
            body.labels.get_or_insert_default().insert(label.0, label.1);
        }
    };
    let first = Container::run(LOOP, marked("a")).await;
    let second = Container::create(LOOP, marked("b")).await;
    let driver = driver();
    let names = |rows: Vec<ContainerSummary>| -> Vec<String> {
        rows.into_iter().map(|row| row.name).collect()
    };
    assert_eq!(
        names(list(&driver, true, &[(&mark, "")]).await),
        [first.name.as_str(), second.name.as_str()]
    );
    assert_eq!(
        names(list(&driver, false, &[(&mark, "")]).await),
        [first.name.as_str()]
    );
    assert_eq!(
        names(list(&driver, true, &[(&mark, "b")]).await),
        [second.name.as_str()]
    );
    let rows = list(&driver, true, &[(&mark, "a"), (LABEL, "1")]).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].id, first.id);
    assert_eq!(rows[0].image, image().await);
    assert_eq!(rows[0].state, ContainerState::Running);
    assert_eq!(rows[0].labels.get(&mark).map(String::as_str), Some("a"));
}

#[tokio::test]
async fn a_life_is_told() {
    let container = Container::create("sleep 0.3; exit 3", |_| {}).await;
    let details = container.details().await;
    assert_eq!(details.state, ContainerState::Created);
    assert_eq!(details.health, ContainerHealth::None);
    assert_eq!((details.started_at, details.finished_at), (None, None));

    call(&driver(), start(&container.id)).await.unwrap();
    let details = container
        .wait_for("exited", |details| details.state == ContainerState::Exited)
        .await;
    assert_eq!(details.exit_code, 3);
    assert!(!details.oom_killed);
    assert!(details.started_at.unwrap() < details.finished_at.unwrap());
    assert_eq!(details.image, image().await);
}

#[tokio::test]
async fn an_end_for_lack_of_memory_is_told() {
    // The first process outlives the one that is killed: Docker hears of the lack of memory beside
    // the container's end, and a container that is gone by then is not told of.
    let script = "sleep 0.5; tail /dev/zero; code=$?; sleep 1; exit $code";
    let container = Container::run(script, |body| {
        body.host_config = Some(HostConfig {
            memory: Some(16 << 20),
            memory_swap: Some(16 << 20),
            ..HostConfig::default()
        });
    })
    .await;
    let details = container
        .wait_for("exited", |details| details.state == ContainerState::Exited)
        .await;
    assert!(details.oom_killed, "{details:?}");
    assert_eq!(details.exit_code, 137);
}

#[tokio::test]
async fn a_stopped_container_is_started_and_a_running_one_stays() {
    let container = Container::run(LOOP, |_| {}).await;
    let driver = driver();
    call(&driver, stop(&container.id)).await.unwrap();
    assert_eq!(container.details().await.state, ContainerState::Exited);
    call(&driver, stop(&container.id)).await.unwrap();

    call(&driver, start(&container.id)).await.unwrap();
    let started = container.details().await;
    assert_eq!(started.state, ContainerState::Running);
    call(&driver, start(&container.id)).await.unwrap();
    assert_eq!(container.details().await.started_at, started.started_at);
}

#[tokio::test]
async fn a_paused_container_takes_a_restart() {
    let container = Container::run(LOOP, |_| {}).await;
    let driver = driver();
    engine().pause_container(&container.id).await.unwrap();
    assert_eq!(container.details().await.state, ContainerState::Paused);
    let text = failed(call(&driver, start(&container.id)).await);
    assert!(text.contains("paused"), "{text}");
    call(&driver, restart(&container.id)).await.unwrap();
    assert_eq!(container.details().await.state, ContainerState::Running);
}

#[tokio::test]
async fn grace_is_waited_for_and_not_counted_against_the_timeout() {
    // Deaf to SIGTERM.
    let container = Container::run("trap '' TERM; while :; do sleep 0.05; done", |_| {}).await;
    let begun = Instant::now();
    let request = DockerCall::Stop {
        container: container.id.clone(),
        grace_ms: 3_000,
    };
    driver()
        .call("local", &request, Duration::from_secs(2))
        .await
        .unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(3));
    assert_eq!(container.details().await.exit_code, 137);
}

#[tokio::test]
async fn signals_are_sent_by_name() {
    let container = Container::run(
        "trap 'echo hup' HUP; trap 'exit 0' TERM; while :; do sleep 0.05; done",
        |_| {},
    )
    .await;
    let kill = |signal: &str| DockerCall::Kill {
        container: container.id.clone(),
        signal: signal.to_owned(),
    };
    let driver = driver();
    // The trap may not be set yet, and SIGHUP is ignored until it is.
    let begun = Instant::now();
    while !logs(&container.id, 10).await.contains("hup") {
        call(&driver, kill("SIGHUP")).await.unwrap();
        assert!(begun.elapsed() < TIMEOUT);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    invalid(call(&driver, kill("9")).await);
    invalid(call(&driver, kill("")).await);
    call(&driver, kill("KILL")).await.unwrap();
    container
        .wait_for("exited", |details| details.state == ContainerState::Exited)
        .await;
    let text = failed(call(&driver, kill("SIGTERM")).await);
    assert!(text.contains("is not running"), "{text}");
}

#[tokio::test]
async fn a_failing_health_check_is_told() {
    let container = Container::run(LOOP, |body| {
        body.healthcheck = Some(HealthConfig {
            test: Some(vec!["CMD".into(), "/bin/false".into()]),
            interval: Some(200_000_000),
            timeout: Some(5_000_000_000),
            retries: Some(2),
            ..HealthConfig::default()
        });
    })
    .await;
    let details = container
        .wait_for("unhealthy", |details| {
            details.health == ContainerHealth::Unhealthy
        })
        .await;
    assert_eq!(details.state, ContainerState::Running);
    assert!(details.failing_streak >= 2);
}

#[tokio::test]
async fn logs_are_the_last_lines_of_both_streams() {
    let script = "for i in $(seq 1 1500); do echo line $i; done; sleep 0.3; echo oops >&2; \
                  sleep 0.3; echo 'a\u{ff}'";
    let container = Container::run(script, |_| {}).await;
    container
        .wait_for("exited", |details| details.state == ContainerState::Exited)
        .await;
    assert_eq!(logs(&container.id, 0).await, "");
    assert_eq!(logs(&container.id, 3).await, "line 1500\noops\naÿ\n");
    assert_eq!(logs(&container.id, u32::MAX).await.lines().count(), 1_000);
}

#[tokio::test]
async fn logs_of_a_terminal_and_of_noise_are_bounded() {
    let script = "yes 0123456789012345678901234567890123456789 | head -c 30000; \
                  head -c 3000000 /dev/urandom; echo; echo end";
    for tty in [false, true] {
        let container = Container::run(script, |body| body.tty = Some(tty)).await;
        container
            .wait_for("exited", |details| details.state == ContainerState::Exited)
            .await;
        let text = logs(&container.id, 1_000).await;
        assert!(text.len() <= 256 * 1024, "{}", text.len());
        assert!(text.trim_end().ends_with("end"));
    }
}

async fn network(cleanup: &mut Cleanup, subnet: Option<&str>) -> String {
    let name = unique("net");
    let ipam = subnet.map(|subnet| Ipam {
        config: Some(vec![IpamConfig {
            subnet: Some(subnet.to_owned()),
            ..IpamConfig::default()
        }]),
        ..Ipam::default()
    });
    let request = NetworkCreateRequest {
        name: name.clone(),
        ipam,
        ..NetworkCreateRequest::default()
    };
    engine().create_network(request).await.unwrap();
    cleanup.networks.push(name.clone());
    name
}

#[tokio::test]
async fn a_recreated_container_is_the_same_but_new() {
    let mut outer = Cleanup::default();
    let front = network(&mut outer, Some("10.213.77.0/24")).await;
    let back = network(&mut outer, None).await;
    let volume = unique("vol");
    outer.volumes.push(volume.clone());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "from the host").unwrap();

    // Each start leaves a line in each place.
    let script =
        format!("for f in /named/f /data/f /mounted/f /tmp/f; do echo x >> $f; done; {LOOP}");
    let container = Container::run(&script, |body| {
        body.env = Some(vec!["GREETING=hello".to_owned()]);
        body.volumes = Some(vec!["/data".to_owned()]);
        body.networking_config = Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(
                front.clone(),
                EndpointSettings {
                    aliases: Some(vec!["web".to_owned()]),
                    ipam_config: Some(EndpointIpamConfig {
                        ipv4_address: Some("10.213.77.9".to_owned()),
                        ..EndpointIpamConfig::default()
                    }),
                    ..EndpointSettings::default()
                },
            )])),
        });
        body.host_config = Some(HostConfig {
            network_mode: Some(front.clone()),
            binds: Some(vec![
                format!("{volume}:/named"),
                format!("{}:/host:ro", folder.path().display()),
            ]),
            mounts: Some(vec![Mount {
                typ: Some(MountType::VOLUME),
                target: Some("/mounted".to_owned()),
                ..Mount::default()
            }]),
            memory: Some(64 << 20),
            ..HostConfig::default()
        });
    })
    .await;
    let request = NetworkConnectRequest {
        container: container.id.clone(),
        endpoint_config: Some(EndpointSettings {
            aliases: Some(vec!["behind".to_owned()]),
            ..EndpointSettings::default()
        }),
    };
    engine().connect_network(&back, request).await.unwrap();
    let before = container.raw().await;

    let new_id = created(call(&driver(), recreate(&container.id)).await);

    let after = container.raw().await;
    assert_ne!(new_id, container.id);
    assert_eq!(after.id.as_ref(), Some(&new_id));
    assert_eq!(after.name, before.name);
    assert_eq!(after.image, before.image);
    assert_eq!(container.namesakes().await, [container.name.as_str()]);
    assert_eq!(container.details().await.state, ContainerState::Running);
    let (config, was) = (
        after.config.clone().unwrap(),
        before.config.clone().unwrap(),
    );
    assert_eq!(config.env, was.env);
    let mut labels = was.labels.unwrap();
    labels.insert("infra-sentinel.replaces".to_owned(), container.id.clone());
    assert_eq!(config.labels, Some(labels));
    assert_eq!(config.cmd, was.cmd);
    assert_eq!(config.image, was.image);
    // Docker's own choice, made anew.
    assert_eq!(config.hostname.as_deref(), Some(&new_id[..12]));
    assert_eq!(after.host_config.clone().unwrap().memory, Some(64 << 20));

    let mounts = |container: &ContainerInspectResponse| -> BTreeMap<String, String> {
        container
            .mounts
            .iter()
            .flatten()
            .map(|mount| {
                let place = mount.name.clone().or(mount.source.clone());
                (mount.destination.clone().unwrap(), place.unwrap())
            })
            .collect()
    };
    assert_eq!(mounts(&after), mounts(&before));
    assert_eq!(mounts(&after).len(), 4);
    let networks = after.network_settings.clone().unwrap().networks.unwrap();
    assert_eq!(networks.len(), 2);
    assert_eq!(networks[&front].ip_address.as_deref(), Some("10.213.77.9"));
    for (network, alias) in [(&front, "web"), (&back, "behind")] {
        let aliases = networks[network].aliases.clone().unwrap_or_default();
        assert!(aliases.iter().any(|found| found == alias), "{aliases:?}");
        assert!(
            !aliases.contains(&container.id[..12].to_owned()),
            "{aliases:?}"
        );
    }
    // What is in volumes is kept; what was inside the container is not.
    let place = mounts(&after)["/data"].clone();
    outer.volumes.push(place);
    outer.volumes.push(mounts(&after)["/mounted"].clone());
    let lines = files(&new_id).await;
    assert_eq!(lines, "x\nx\n|x\nx\n|x\nx\n|x\n|from the host");
}

/// What the script of the test before left, read inside the container.
async fn files(container: &str) -> String {
    use bollard::exec::{CreateExecOptions, StartExecResults};
    let script = "sleep 0.3; cat /named/f; echo -n '|'; cat /data/f; echo -n '|'; \
                  cat /mounted/f; echo -n '|'; cat /tmp/f; echo -n '|'; cat /host/file";
    let engine = engine();
    let options = CreateExecOptions {
        cmd: Some(vec!["/bin/sh", "-c", script]),
        attach_stdout: Some(true),
        ..CreateExecOptions::default()
    };
    let exec = engine.create_exec(container, options).await.unwrap();
    let StartExecResults::Attached { output, .. } =
        engine.start_exec(&exec.id, None).await.unwrap()
    else {
        panic!("not attached");
    };
    let chunks: Vec<_> = output.try_collect().await.unwrap();
    chunks.into_iter().map(|chunk| chunk.to_string()).collect()
}

#[tokio::test]
async fn recreate_leaves_a_container_whose_image_is_gone() {
    // An image of its own, because it is removed.
    let base = Container::create(LOOP, |_| {}).await;
    let own = unique("image");
    let options = CommitContainerOptionsBuilder::new()
        .container(&base.id)
        .repo(&own)
        .tag("1")
        .comment(&own)
        .build();
    engine()
        .commit_container(options, bollard::models::ContainerConfig::default())
        .await
        .unwrap();
    let own = format!("{own}:1");
    let mut container = Container::run(LOOP, |body| body.image = Some(own.clone())).await;
    container.cleanup.images.push(own.clone());
    // Docker keeps the image of a container that runs.
    call(&driver(), stop(&container.id)).await.unwrap();
    let options = RemoveImageOptionsBuilder::new().force(true).build();
    engine()
        .remove_image(&own, Some(options), None)
        .await
        .unwrap();

    let text = failed(call(&driver(), recreate(&container.id)).await);
    assert!(text.contains("No such image"), "{text}");
    assert!(
        text.ends_with("the old container was left as it was"),
        "{text}"
    );
    assert_eq!(container.namesakes().await, [container.name.as_str()]);
    let details = container.details().await;
    assert_eq!(details.id, container.id);
    assert_eq!(details.state, ContainerState::Exited);
}

#[tokio::test]
async fn recreate_keeps_the_image_when_its_name_has_moved_on() {
    let base = Container::create("echo other", |_| {}).await;
    let name = unique("image");
    let tag = async |comment: &str| {
        let options = CommitContainerOptionsBuilder::new()
            .container(&base.id)
            .repo(&name)
            .tag("1")
            .comment(comment)
            .build();
        engine()
            .commit_container(options, bollard::models::ContainerConfig::default())
            .await
            .unwrap();
    };
    tag("first").await;
    let reference = format!("{name}:1");
    let mut container = Container::run(LOOP, |body| body.image = Some(reference.clone())).await;
    container.cleanup.images.push(reference.clone());
    tag("second").await;

    let before = container.raw().await.image.unwrap();
    container.cleanup.images.push(before.clone());
    created(call(&driver(), recreate(&container.id)).await);
    assert_eq!(container.raw().await.image, Some(before));
}

#[tokio::test]
async fn recreate_puts_the_old_one_back_when_its_port_is_taken() {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let container = Container::run(LOOP, |body| {
        let binding = PortBinding {
            host_ip: Some("127.0.0.1".to_owned()),
            host_port: Some(port.to_string()),
        };
        body.exposed_ports = Some(vec!["80/tcp".to_owned()]);
        body.host_config = Some(HostConfig {
            port_bindings: Some(HashMap::from([("80/tcp".to_owned(), Some(vec![binding]))])),
            ..HostConfig::default()
        });
    })
    .await;
    call(&driver(), stop(&container.id)).await.unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();

    let text = failed(call(&driver(), recreate(&container.id)).await);
    assert!(text.contains("address already in use"), "{text}");
    assert!(text.ends_with("the old container was put back"), "{text}");
    assert_eq!(container.namesakes().await, [container.name.as_str()]);
    assert_eq!(container.details().await.id, container.id);
    // It was stopped, and it stays so.
    assert_eq!(container.details().await.state, ContainerState::Exited);

    drop(taken);
    let new_id = created(call(&driver(), recreate(&container.id)).await);
    assert_eq!(container.details().await.id, new_id);
    assert_eq!(container.details().await.state, ContainerState::Running);
}

#[tokio::test]
async fn recreate_starts_the_old_one_again_when_the_new_one_does_not() {
    let container = Container::run(LOOP, |_| {}).await;
    let old = container.id.clone();
    let url = proxy(move |first| {
        let starts_another =
            first.starts_with("POST") && first.contains("/start") && !first.contains(&old);
        if starts_another {
            Fate::Refuse("port is already allocated")
        } else {
            Fate::Pass
        }
    })
    .await;
    let text = failed(call(&connected_to(&url), recreate(&container.id)).await);
    assert!(text.contains("port is already allocated"), "{text}");
    assert!(
        text.ends_with("the old container was put back and started"),
        "{text}"
    );
    assert_eq!(container.namesakes().await, [container.name.as_str()]);
    let details = container.details().await;
    assert_eq!(details.id, container.id);
    assert_eq!(details.state, ContainerState::Running);
}

#[tokio::test]
async fn recreate_says_so_when_the_old_one_cannot_be_put_back() {
    let container = Container::run(LOOP, |_| {}).await;
    let url = proxy(|first| {
        if first.starts_with("POST") && first.contains("/start") {
            Fate::Refuse("no space left on device")
        } else {
            Fate::Pass
        }
    })
    .await;
    let text = failed(call(&connected_to(&url), recreate(&container.id)).await);
    assert!(
        text.contains("putting the old container back failed, too"),
        "{text}"
    );
    // All that could be done was done: it has its name, and only does not run.
    assert_eq!(container.namesakes().await, [container.name.as_str()]);
    assert_eq!(container.details().await.id, container.id);
}

#[tokio::test]
async fn recreate_leaves_the_old_one_running_when_a_mount_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let container = Container::run(LOOP, |body| {
        body.host_config = Some(HostConfig {
            mounts: Some(vec![Mount {
                typ: Some(MountType::BIND),
                source: Some(folder.path().display().to_string()),
                target: Some("/host".to_owned()),
                ..Mount::default()
            }]),
            ..HostConfig::default()
        });
    })
    .await;
    let started = container.details().await.started_at;
    drop(folder);
    let text = failed(call(&driver(), recreate(&container.id)).await);
    assert!(
        text.ends_with("the old container was left as it was"),
        "{text}"
    );
    let details = container.details().await;
    assert_eq!(details.state, ContainerState::Running);
    assert_eq!(details.started_at, started);
}

#[tokio::test]
async fn recreate_refuses_a_container_that_removes_itself() {
    let container = Container::run(LOOP, |body| {
        body.host_config = Some(HostConfig {
            auto_remove: Some(true),
            ..HostConfig::default()
        });
    })
    .await;
    let text = invalid(call(&driver(), recreate(&container.id)).await);
    assert!(text.contains("--rm"), "{text}");
    assert_eq!(container.details().await.state, ContainerState::Running);
}

#[tokio::test]
async fn recreate_survives_what_an_interrupted_one_left() {
    let container = Container::run(LOOP, |_| {}).await;
    let fresh = format!("{}-sentinel-new-{}", container.name, &container.id[..12]);
    let options = CreateContainerOptionsBuilder::new().name(&fresh).build();
    let body = ContainerCreateBody {
        image: Some(image().await),
        labels: Some(HashMap::from([(LABEL.to_owned(), "1".to_owned())])),
        cmd: Some(vec!["/bin/sh".to_owned()]),
        ..ContainerCreateBody::default()
    };
    engine()
        .create_container(Some(options), body)
        .await
        .unwrap();
    created(call(&driver(), recreate(&container.id)).await);
    assert_eq!(container.namesakes().await, [container.name.as_str()]);
}

#[tokio::test]
async fn recreate_comes_to_its_end_when_its_caller_is_gone() {
    // Takes its second to stop.
    let script = "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.05; done";
    let container = Container::run(script, |_| {}).await;
    let driver = driver();
    gone_after(
        Duration::from_millis(700),
        call(&driver, recreate(&container.id)),
    )
    .await;
    driver.shutdown().await;
    assert_eq!(container.namesakes().await, [container.name.as_str()]);
    let details = container.details().await;
    assert_ne!(details.id, container.id);
    assert_eq!(details.state, ContainerState::Running);
}

async fn gone_after<T: std::fmt::Debug>(time: Duration, work: impl Future<Output = T>) {
    let ended = tokio::time::timeout(time, work).await;
    assert!(
        ended.is_err(),
        "ended before its caller was gone: {ended:?}"
    );
}
