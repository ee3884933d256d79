//! Docker hosts, over the Docker Engine's API.
//!
//! The client library puts container names into URLs as they are, so a name such as
//! `x/kill?signal=KILL` would reach another endpoint. Two things stand against that:
//! [`Docker::resolve`] refuses whatever does not have the form of a Docker name, and
//! hands out the full id; and every call checks the form again.
//!
//! A connection is made per call. So a Docker Engine that is down when the daemon
//! starts, or that is restarted later, is an answer of the kind `unavailable` and
//! nothing worse.

mod details;
mod duplicate;
mod host;
mod logs;
mod make;
mod read;
mod recreate;
mod settle;
mod ssh;
mod tls;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{KillContainerOptionsBuilder, RestartContainerOptionsBuilder};
use jiff::Timestamp;
use sentinel_core::alert::Labels;
use sentinel_core::capability::{
    CapabilityError, ContainerDetails, ContainerState, DockerCall, OWN_GRACE, Response,
};
use sentinel_sandbox::driver::{ContainerIdentity, DockerDriver, Settled, Vitals};
use tokio_util::task::TaskTracker;

use self::host::{Ask, Host};
use self::make::Maker;
pub use self::ssh::SshFiles;
pub use self::tls::TlsFiles;

/// How long finding a container, and a ping, may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Docker's own limit on what makes sense as a name or an id.
const NAME_LENGTH: usize = 128;

/// What is wrong with a Docker host in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerConfigError {
    /// The name cannot stand in a target such as `docker://local/nginx`.
    #[error(
        "docker host name {0:?} is not letters, digits, '_', '.' and '-' with a letter or digit first"
    )]
    Name(String),
    /// The URL is none that the driver can connect to.
    #[error("docker host {host}: {url:?} {reason}")]
    Url {
        /// The host's name.
        host: String,
        /// What was configured.
        url: String,
        /// What is wrong with it, and what would be right.
        reason: &'static str,
    },
    /// A file of its TLS cannot be used.
    #[error("docker host {host}: {} {reason}", file.display())]
    Tls {
        /// The host's name.
        host: String,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Where a Docker host is, and how it is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerHost {
    /// `unix:///path/to/docker.sock`, `tcp://host:port`, or
    /// `ssh://[user@]host[:port][/path/to/docker.sock]`; `http` and `https` are other
    /// words for `tcp`.
    pub url: String,
    /// For `tcp`: what both sides identify themselves with. Without it nothing is
    /// encrypted.
    pub tls: Option<TlsFiles>,
    /// For `ssh`: what ssh does not find by itself.
    pub ssh: Option<SshFiles>,
    /// Lets `tcp` without TLS go to other machines than this one.
    pub insecure: bool,
}

impl From<String> for DockerHost {
    fn from(url: String) -> Self {
        Self {
            url,
            ..Self::default()
        }
    }
}

/// What tells one Docker Engine from another, however it is reached. The id alone does not:
/// a machine that is a copy of another may have its id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EngineId {
    /// The engine's own id; never empty.
    pub id: String,
    /// The machine's name, as the engine has it.
    pub machine: String,
}

/// The Docker hosts that the daemon knows by name.
#[derive(Debug)]
pub struct Docker {
    hosts: BTreeMap<String, Arc<Host>>,
    // A recreate that is dropped half-way would leave a renamed container behind, so
    // it runs here, whatever becomes of its caller.
    tasks: TaskTracker,
}

impl Docker {
    /// Takes the hosts by name. Reads the files of their TLS, and connects to none of
    /// them.
    pub fn new<H: Into<DockerHost>>(hosts: BTreeMap<String, H>) -> Result<Self, DockerConfigError> {
        let hosts = hosts
            .into_iter()
            .map(|(name, host)| {
                if !is_name(&name) {
                    return Err(DockerConfigError::Name(name));
                }
                let host = Host::new(&name, host.into())?;
                Ok((name, Arc::new(host)))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            hosts,
            tasks: TaskTracker::new(),
        })
    }

    /// The hosts' names, sorted.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(String::as_str)
    }

    /// Asks a host whether it is there. `unavailable` with the remedy when it is not.
    pub async fn ping(&self, host: &str) -> Result<(), CapabilityError> {
        let host = self.host(host)?;
        let client = host.client(LOOKUP_TIMEOUT).await?;
        host.answer(Ask::observation("ping"), LOOKUP_TIMEOUT, client.ping())
            .await?;
        Ok(())
    }

    /// Asks a host which engine it is.
    pub async fn engine(&self, host: &str) -> Result<EngineId, CapabilityError> {
        let name = host;
        let host = self.host(host)?;
        let client = host.client(LOOKUP_TIMEOUT).await?;
        let info = host
            .answer(Ask::observation("info"), LOOKUP_TIMEOUT, client.info())
            .await?;
        let id = info.id.unwrap_or_default();
        Ok(EngineId {
            // One that does not say is itself.
            id: if id.is_empty() { name.to_owned() } else { id },
            machine: info.name.unwrap_or_default(),
        })
    }

    /// Waits until no container is half-way through a `recreate`. For the daemon's
    /// shutdown, once nothing new is asked of it.
    pub async fn shutdown(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Does what makes a container to its end, whatever becomes of who asked for it.
    async fn make(
        &self,
        what: &str,
        work: impl Future<Output = Result<String, CapabilityError>> + Send + 'static,
    ) -> Result<Response, CapabilityError> {
        let ended = self.tasks.spawn(work).await;
        let id = ended
            .map_err(|error| CapabilityError::Failed(format!("{what} ended early: {error}")))??;
        Ok(Response::Created(id))
    }

    fn host(&self, name: &str) -> Result<&Arc<Host>, CapabilityError> {
        self.hosts.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.hosts().collect();
            CapabilityError::Invalid(if known.is_empty() {
                format!("no docker host {name:?}: none is configured")
            } else {
                format!("no docker host {name:?}; known: {}", known.join(", "))
            })
        })
    }
}

#[async_trait]
impl DockerDriver for Docker {
    async fn resolve(
        &self,
        host: &str,
        container: &str,
    ) -> Result<ContainerIdentity, CapabilityError> {
        let host = self.host(host)?;
        check_name(container)?;
        let found = look_up(host, container, LOOKUP_TIMEOUT).await?;
        details::identity(&found).ok_or_else(|| host.nonsense("inspect"))
    }

    async fn find(
        &self,
        host: &str,
        container: &str,
    ) -> Result<(ContainerIdentity, Option<Box<ContainerDetails>>), CapabilityError> {
        let host = self.host(host)?;
        check_name(container)?;
        let found = look_up(host, container, LOOKUP_TIMEOUT).await?;
        let identity = details::identity(&found).ok_or_else(|| host.nonsense("inspect"))?;
        Ok((identity, details::details(found).map(Box::new)))
    }

    async fn vitals(
        &self,
        host: &str,
        container: &str,
        timeout: Duration,
    ) -> Result<Vitals, CapabilityError> {
        let host = self.host(host)?;
        check_name(container)?;
        // The connection and the engine's version are asked for before.
        let found = tokio::time::timeout(timeout, look_up(host, container, timeout));
        let found = found.await.map_err(|_| {
            let text = format!("no answer to inspect within {timeout:?}");
            CapabilityError::TimedOut(host.says(&text))
        })??;
        let decides_within = details::health_decides_within(&found);
        let details = details::details(found).ok_or_else(|| host.nonsense("inspect"))?;
        Ok(Vitals {
            details,
            decides_within,
        })
    }

    async fn call(
        &self,
        host: &str,
        call: &DockerCall,
        timeout: Duration,
    ) -> Result<Response, CapabilityError> {
        let host = self.host(host)?;
        if let Some(container) = call.container() {
            check_name(container)?;
        }
        match call {
            DockerCall::List { all, labels } => list(host, *all, labels, timeout).await,
            DockerCall::Inspect { container } => inspect(host, container, timeout).await,
            DockerCall::Logs { container, lines } => {
                let text = logs::tail(host, container, *lines, timeout).await?;
                Ok(Response::Text(text))
            }
            DockerCall::Start { container } => {
                let client = host.client(timeout).await?;
                host.answer(
                    Ask::effect("start"),
                    timeout,
                    client.start_container(container, None),
                )
                .await?;
                Ok(Response::Done)
            }
            DockerCall::Stop {
                container,
                grace_ms,
            } => {
                let client = host.client(timeout).await?;
                let grace = grace(host, container, *grace_ms, timeout).await?;
                let maker = Maker {
                    host,
                    client: &client,
                    timeout,
                };
                maker.stop(container, grace).await?;
                Ok(Response::Done)
            }
            DockerCall::Restart {
                container,
                grace_ms,
            } => {
                let client = host.client(timeout).await?;
                let grace = grace(host, container, *grace_ms, timeout).await?;
                restart(host, &client, container, grace, timeout).await?;
                Ok(Response::Done)
            }
            DockerCall::Kill { container, signal } => {
                check_signal(signal)?;
                let client = host.client(timeout).await?;
                let options = KillContainerOptionsBuilder::new().signal(signal).build();
                host.answer(
                    Ask::effect("kill"),
                    timeout,
                    client.kill_container(container, Some(options)),
                )
                .await?;
                Ok(Response::Done)
            }
            DockerCall::Recreate {
                container,
                grace_ms,
            } => {
                let grace = grace(host, container, *grace_ms, timeout).await?;
                let work = recreate::recreate(Arc::clone(host), container.clone(), grace, timeout);
                self.make("recreate", Box::pin(work)).await
            }
            DockerCall::Duplicate {
                container,
                name,
                labels,
            } => {
                check_name(name)?;
                let work = duplicate::duplicate(
                    Arc::clone(host),
                    container.clone(),
                    name.clone(),
                    labels.clone(),
                    timeout,
                );
                self.make("duplicate", Box::pin(work)).await
            }
            DockerCall::Remove {
                container,
                grace_ms,
            } => {
                let grace = grace(host, container, *grace_ms, timeout).await?;
                remove(host, container, grace, timeout).await
            }
        }
    }

    async fn settle(
        &self,
        host: &str,
        call: &DockerCall,
        began_at: Timestamp,
        timeout: Duration,
    ) -> Result<Settled, CapabilityError> {
        let host = self.host(host)?;
        if let Some(container) = call.container() {
            check_name(container)?;
        }
        if let DockerCall::Duplicate { name, .. } = call {
            check_name(name)?;
        }
        settle::settle(host, call, began_at, timeout).await
    }
}

async fn list(
    host: &Host,
    all: bool,
    labels: &Labels,
    timeout: Duration,
) -> Result<Response, CapabilityError> {
    let wanted: Vec<String> = labels
        .iter()
        .map(|(name, value)| {
            if value.is_empty() {
                name.clone()
            } else {
                format!("{name}={value}")
            }
        })
        .collect();
    let rows = host.list(all, &wanted, timeout).await?;
    let mut containers: Vec<_> = rows.into_iter().filter_map(details::summary).collect();
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Response::Containers(containers))
}

/// Docker's own account of a container.
async fn look_up(
    host: &Host,
    container: &str,
    timeout: Duration,
) -> Result<ContainerInspectResponse, CapabilityError> {
    host.inspect(container, timeout).await
}

async fn inspect(
    host: &Host,
    container: &str,
    timeout: Duration,
) -> Result<Response, CapabilityError> {
    let found = look_up(host, container, timeout).await?;
    details::details(found)
        .map(|details| Response::Container(Box::new(details)))
        .ok_or_else(|| host.nonsense("inspect"))
}

async fn remove(
    host: &Host,
    container: &str,
    grace: Grace,
    timeout: Duration,
) -> Result<Response, CapabilityError> {
    let client = host.client(timeout).await?;
    let maker = Maker {
        host,
        client: &client,
        timeout,
    };
    maker.stop(container, grace).await?;
    // By force, because Docker takes a container that it failed to stop whole no other way.
    maker.remove(container, true).await?;
    Ok(Response::Done)
}

async fn restart(
    host: &Host,
    client: &bollard::Docker,
    container: &str,
    grace: Grace,
    timeout: Duration,
) -> Result<(), CapabilityError> {
    let ask = || {
        let mut options = RestartContainerOptionsBuilder::new();
        if let Some(seconds) = grace.seconds {
            options = options.t(seconds);
        }
        host.answer(
            Ask::effect("restart"),
            timeout + grace.duration(),
            client.restart_container(container, Some(options.build())),
        )
    };
    match ask().await {
        Err(error) if thawed(host, client, container, &error, timeout).await? => ask().await,
        answered => answered,
    }
}

/// Thaws a container where `error` is an engine's refusal to stop a frozen one, as Podman's;
/// whether it did.
async fn thawed(
    host: &Host,
    client: &bollard::Docker,
    container: &str,
    error: &CapabilityError,
    timeout: Duration,
) -> Result<bool, CapabilityError> {
    let refused = match error {
        CapabilityError::Failed(text) | CapabilityError::Invalid(text) => text.contains("paused"),
        _ => false,
    };
    if !refused {
        return Ok(false);
    }
    let found = host.inspect(container, timeout).await?;
    let state = found.state.as_ref().and_then(details::main_process);
    if state != Some(ContainerState::Paused) {
        return Ok(false);
    }
    host.answer(
        Ask::effect("unpause"),
        timeout,
        client.unpause_container(container),
    )
    .await?;
    Ok(true)
}

/// How long a container gets to stop: what was asked for, or, where it was asked to go by
/// the container, what that says itself, as far as there is time.
async fn grace(
    host: &Host,
    container: &str,
    grace_ms: u64,
    timeout: Duration,
) -> Result<Grace, CapabilityError> {
    let Some(most) = grace_ms.checked_sub(OWN_GRACE) else {
        return Ok(Grace::of(grace_ms));
    };
    let found = look_up(host, container, timeout).await?;
    let own = details::own_grace(&found);
    // Rounded down, for it is the end of the run's time.
    let most = Duration::from_secs(most / 1_000);
    if own <= most {
        return Ok(Grace {
            // The engine knows best: Podman tells of none, and has one.
            seconds: None,
            wait: own.max(details::STOP_TIMEOUT).min(most),
        });
    }
    tracing::warn!(
        host = host.name(),
        container,
        asks_for_s = own.as_secs(),
        gets_s = most.as_secs(),
        "a container gets less time to stop than it asks for: its step has no more; give the \
         step a longer `timeout`"
    );
    Ok(Grace::of(most.as_millis().try_into().unwrap_or(OWN_GRACE)))
}

/// The time between SIGTERM and SIGKILL, in the whole seconds that Docker counts in.
#[derive(Debug, Clone, Copy)]
struct Grace {
    /// None where the engine goes by the container.
    seconds: Option<i32>,
    /// How long it may take.
    wait: Duration,
}

impl Grace {
    /// Rounded up, so that a container never gets less than was asked for.
    fn of(milliseconds: u64) -> Self {
        let seconds = i32::try_from(milliseconds.div_ceil(1_000)).unwrap_or(i32::MAX);
        Self {
            seconds: Some(seconds),
            wait: Duration::from_secs(seconds.unsigned_abs().into()),
        }
    }

    fn duration(self) -> Duration {
        self.wait
    }
}

/// Whether a text has the form of a container's name or id, and so is one segment of a URL's path.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() <= NAME_LENGTH
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn check_name(container: &str) -> Result<(), CapabilityError> {
    if is_name(container) {
        return Ok(());
    }
    Err(CapabilityError::Invalid(format!(
        "{:?} is no container name or id: 1 to {NAME_LENGTH} letters, digits, '_', '.' and '-', \
         a letter or digit first",
        shortened(container)
    )))
}

fn check_signal(signal: &str) -> Result<(), CapabilityError> {
    let name = signal.strip_prefix("SIG").unwrap_or(signal);
    let formed = name.len() <= 16
        && name.starts_with(|first: char| first.is_ascii_uppercase())
        && name
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, '+' | '-'));
    if formed {
        return Ok(());
    }
    Err(CapabilityError::Invalid(format!(
        "{:?} is no signal name such as SIGHUP",
        shortened(signal)
    )))
}

/// What a plugin gave, short enough for a message about it.
fn shortened(text: &str) -> String {
    text.chars().take(NAME_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Result<Docker, DockerConfigError> {
        Docker::new(BTreeMap::from([("local".to_owned(), url.to_owned())]))
    }

    #[test]
    fn urls_that_can_be_connected_to() {
        for url in [
            "unix:///var/run/docker.sock",
            "tcp://127.0.0.1:2375",
            "http://localhost:2375",
            "http://localhost:2375/",
            "tcp://[::1]:2375",
            "ssh://ops@web1:2222",
        ] {
            config(url).unwrap();
        }
    }

    #[test]
    fn urls_that_cannot_be_connected_to_say_why() {
        for (url, reason) in [
            ("unix://docker.sock", "absolute path"),
            ("unix://", "absolute path"),
            ("tcp://10.0.0.5", "port"),
            ("tcp://10.0.0.5:99999", "port"),
            ("tcp://:2375", "host and a port"),
            ("tcp://user@host:2375", "host and a port"),
            ("http://host:2375/docker", "port"),
            ("https://host:2376", "TLS"),
            ("tcp://10.0.0.5:2375", "insecure: true"),
            ("http://docker.internal:2375", "insecure: true"),
            ("tcp://[fe80::1]:2375", "insecure: true"),
            ("ssh://-oProxyCommand=x", "a machine"),
            ("/var/run/docker.sock", "unix://"),
        ] {
            let error = config(url).unwrap_err().to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }

    #[test]
    fn what_does_not_go_with_a_url_is_refused() {
        let made = |host: DockerHost| {
            let hosts = BTreeMap::from([("web1".to_owned(), host)]);
            Docker::new(hosts).map_err(|error| error.to_string())
        };
        made(DockerHost {
            insecure: true,
            ..DockerHost::from("tcp://10.0.0.5:2375".to_owned())
        })
        .unwrap();
        for (url, tls, ssh, reason) in [
            ("unix:///run/docker.sock", true, false, "no `tls`"),
            ("ssh://web1", true, false, "no `tls`"),
            ("http://10.0.0.5:2376", true, false, "plain HTTP"),
            ("tcp://127.0.0.1:2376", false, true, "no `ssh`"),
            ("tcp://10.0.0.5:2376", true, false, "/nowhere/ca.pem"),
        ] {
            let host = DockerHost {
                tls: tls.then(|| TlsFiles {
                    ca: "/nowhere/ca.pem".into(),
                    cert: "/nowhere/cert.pem".into(),
                    key: "/nowhere/key.pem".into(),
                }),
                ssh: ssh.then(SshFiles::default),
                ..DockerHost::from(url.to_owned())
            };
            let error = made(host).unwrap_err();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }

    #[test]
    fn a_host_name_must_fit_a_target() {
        let hosts = BTreeMap::from([("a/b".to_owned(), "tcp://h:1".to_owned())]);
        assert_eq!(
            Docker::new(hosts).unwrap_err(),
            DockerConfigError::Name("a/b".to_owned())
        );
    }

    #[test]
    fn names() {
        for name in ["nginx", "a", "web-1_x.y", &"f".repeat(64), &"a".repeat(128)] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "-a",
            "a/b",
            "a?b",
            "a b",
            "a%2fb",
            "ä",
            "a\n",
            "x/kill?signal=KILL&y=",
            &"a".repeat(129),
        ] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn signals() {
        for signal in ["SIGHUP", "TERM", "SIGRTMIN+3", "SIGUSR1"] {
            check_signal(signal).unwrap();
        }
        for signal in ["", "SIG", "9", "sighup", "SIGHUP&x=1", "-TERM"] {
            check_signal(signal).unwrap_err();
        }
    }

    #[test]
    fn grace_is_rounded_up() {
        assert_eq!(Grace::of(0).seconds, Some(0));
        assert_eq!(Grace::of(1).seconds, Some(1));
        assert_eq!(Grace::of(2_000).seconds, Some(2));
        assert_eq!(Grace::of(u64::MAX).seconds, Some(i32::MAX));
    }
}
