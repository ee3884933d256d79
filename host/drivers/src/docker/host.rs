//! One Docker host: where it is, and what its answers mean.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, ContainerSummary};
use rustls::ClientConfig;
use sentinel_core::capability::CapabilityError;
use tokio::net::TcpStream;

use super::make::MacAddresses;
use super::read::{self, Found};
use super::ssh::Tunnel;
use super::wire::{Version, Wire};
use super::{DockerConfigError, DockerHost};

/// How long making a connection may take; a host on a network either answers at
/// once or is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The library has a timeout of its own, for all calls alike. Ours are per call, so
/// its is out of the way: a day, in seconds.
const LIBRARY_TIMEOUT: u64 = 24 * 60 * 60;

/// Docker's messages can hold a container's whole configuration.
const MESSAGE_LENGTH: usize = 2_000;

/// What was asked, for messages, and for what a missing answer means.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    what: &'static str,
    effect: bool,
}

impl Ask {
    /// A question; asking it again does no harm.
    pub(super) fn observation(what: &'static str) -> Self {
        Self {
            what,
            effect: false,
        }
    }

    /// Something that may have been done although no answer came.
    pub(super) fn effect(what: &'static str) -> Self {
        Self { what, effect: true }
    }

    /// The request, as those who let it through or not have it.
    fn request(self) -> &'static str {
        match self.what {
            "ping" => "GET /_ping",
            "info" => "GET /info",
            "events" => "GET /events",
            "list" => "GET /containers/json",
            "inspect" => "GET /containers/ID/json",
            "inspect image" => "GET /images/NAME/json",
            "logs" => "GET /containers/ID/logs",
            "start" => "POST /containers/ID/start",
            "stop" => "POST /containers/ID/stop",
            "restart" => "POST /containers/ID/restart",
            "kill" => "POST /containers/ID/kill",
            "unpause" => "POST /containers/ID/unpause",
            "rename" => "POST /containers/ID/rename",
            "create" => "POST /containers/create",
            "connect network" => "POST /networks/ID/connect",
            "remove" => "DELETE /containers/ID",
            other => other,
        }
    }
}

enum Endpoint {
    Unix(PathBuf),
    Tcp(String),
    Tls(String, Arc<ClientConfig>),
    Ssh(Box<Tunnel>),
}

impl Endpoint {
    fn of(name: &str, host: DockerHost) -> Result<Self, DockerConfigError> {
        let DockerHost {
            url,
            tls,
            ssh,
            insecure,
        } = host;
        let wrong = |reason| DockerConfigError::Url {
            host: name.to_owned(),
            url: url.clone(),
            reason,
        };
        if tls.is_some() && (url.starts_with("unix://") || url.starts_with("ssh://")) {
            return Err(wrong("takes no `tls`, which is for tcp:// alone"));
        }
        if let Some(path) = url.strip_prefix("unix://") {
            if path.starts_with('/') {
                return Ok(Self::Unix(PathBuf::from(path)));
            }
            return Err(wrong(
                "needs an absolute path, as in unix:///var/run/docker.sock",
            ));
        }
        if let Some(address) = url.strip_prefix("ssh://") {
            let tunnel = Tunnel::parse(address, ssh.unwrap_or_default()).map_err(wrong)?;
            return Ok(Self::Ssh(Box::new(tunnel)));
        }
        if ssh.is_some() {
            return Err(wrong("takes no `ssh`, which is for ssh:// alone"));
        }
        let address = ["tcp://", "https://", "http://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme))
            .ok_or_else(|| wrong("must begin with unix://, tcp:// or ssh://"))?;
        let address = address.strip_suffix('/').unwrap_or(address);
        let machine = machine(address).map_err(wrong)?;
        if let Some(files) = tls {
            if url.starts_with("http://") {
                return Err(wrong("says plain HTTP and has `tls`; write tcp://"));
            }
            let config = files
                .read()
                .map_err(|(file, reason)| DockerConfigError::Tls {
                    host: name.to_owned(),
                    file,
                    reason,
                })?;
            return Ok(Self::Tls(address.to_owned(), config));
        }
        if url.starts_with("https://") {
            return Err(wrong("wants TLS and has no `tls: {ca, cert, key}`"));
        }
        if !insecure && !is_loopback(machine) {
            return Err(wrong(
                "would let everybody on the way read along and take over the machine; give it \
                 `tls: {ca, cert, key}`, use ssh://, or say `insecure: true` where the network \
                 is safe",
            ));
        }
        Ok(Self::Tcp(address.to_owned()))
    }
}

/// The machine in `address`, which is that and a port and nothing else.
fn machine(address: &str) -> Result<&str, &'static str> {
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err("needs a port, as in tcp://10.0.0.5:2376");
    };
    if port.parse::<u16>().is_err() {
        return Err("needs a port at its end, up to 65535, as in tcp://10.0.0.5:2376");
    }
    let named = !host.is_empty()
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .filter(|host| host.parse::<Ipv6Addr>().is_ok());
    match v6 {
        Some(v6) => Ok(v6),
        None if named => Ok(host),
        None => Err("needs a host and a port and nothing else, as in tcp://10.0.0.5:2376"),
    }
}

/// Whether nothing that is sent there leaves this machine.
fn is_loopback(machine: &str) -> bool {
    machine == "localhost"
        || machine
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// One Docker host.
pub(super) struct Host {
    name: String,
    endpoint: Endpoint,
    // Made at the first call and not at the start, because the library refuses to
    // make one for a socket that is not there yet.
    client: ArcSwapOption<Client>,
    // Whether the next call makes another: the version of the API is to be asked for again.
    forget: AtomicBool,
}

/// A client, and where it connects to.
struct Client {
    docker: bollard::Docker,
    wire: Arc<Wire>,
    /// The end of a tunnel on this machine; each new tunnel has another.
    socket: Option<PathBuf>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Host {
    pub(super) fn new(name: &str, host: DockerHost) -> Result<Self, DockerConfigError> {
        Ok(Self {
            name: name.to_owned(),
            endpoint: Endpoint::of(name, host)?,
            client: ArcSwapOption::empty(),
            forget: AtomicBool::new(false),
        })
    }

    /// The client, once it is known that somebody listens. A host on a network is tried
    /// with a connection of its own first: so a host that is down is told apart from a host
    /// that took a request and never answered, and in bounded time.
    pub(super) async fn client(
        &self,
        timeout: Duration,
    ) -> Result<bollard::Docker, CapabilityError> {
        let bound = timeout.min(CONNECT_TIMEOUT);
        let tunnel = match &self.endpoint {
            Endpoint::Tcp(address) | Endpoint::Tls(address, _) => {
                self.knock(address, bound).await?;
                None
            }
            Endpoint::Ssh(tunnel) => Some(tunnel.open(bound).await.map_err(|why| {
                CapabilityError::Unavailable(
                    self.says(&format!("no ssh to {}: {why}", tunnel.machine())),
                )
            })?),
            Endpoint::Unix(_) => None,
        };
        if let Some(client) = &*self.client.load()
            && client.socket == tunnel
            && !self.forget.swap(false, Ordering::Relaxed)
        {
            return Ok(client.docker.clone());
        }
        let wire = match (&self.endpoint, &tunnel) {
            (Endpoint::Unix(path), _) | (Endpoint::Ssh(_), Some(path)) => Wire::unix(path.clone()),
            (Endpoint::Tls(address, config), _) => Wire::tls(address, config),
            (Endpoint::Tcp(address), _) => Wire::tcp(address),
            (Endpoint::Ssh(_), None) => return Err(self.nonsense("ssh")),
        };
        let asked = tokio::time::timeout(bound, wire.negotiate()).await;
        if let Ok(Err(error @ Error::HyperLegacyError { err })) = &asked
            && err.is_connect()
        {
            return Err(self.explain(Ask::observation("ping"), error));
        }
        let docker = wire
            .library(LIBRARY_TIMEOUT)
            .map_err(|error| self.explain(Ask::observation("ping"), &error))?;
        let client = Arc::new(Client {
            docker: docker.clone(),
            wire: Arc::new(wire),
            socket: tunnel,
        });
        // Where it could not be asked, the next call asks again.
        let known = matches!(asked, Ok(Ok(())));
        if !known {
            tracing::debug!(host = self.name, "the version of the API is not known");
        }
        self.client.store(Some(client));
        if !known {
            self.forget.store(true, Ordering::Relaxed);
        }
        Ok(docker)
    }

    /// What the library's client goes over.
    pub(super) async fn wire(&self, timeout: Duration) -> Result<Arc<Wire>, CapabilityError> {
        self.client(timeout).await?;
        let client = self.client.load();
        client
            .as_ref()
            .map(|client| Arc::clone(&client.wire))
            .ok_or_else(|| CapabilityError::Unavailable(self.says("no connection")))
    }

    /// How the engine tells which MAC addresses somebody asked for.
    pub(super) async fn mac_addresses(
        &self,
        timeout: Duration,
    ) -> Result<MacAddresses, CapabilityError> {
        let version = self.wire(timeout).await?.version();
        Ok(match version {
            Some(version) if version >= Version(1, 52) => MacAddresses::Mixed,
            Some(version) if version >= Version(1, 44) => MacAddresses::ByNetwork,
            _ => MacAddresses::ByContainer,
        })
    }

    /// A container by name or id, as far as what it says can be read.
    pub(super) async fn inspect(
        &self,
        container: &str,
        timeout: Duration,
    ) -> Result<ContainerInspectResponse, CapabilityError> {
        let answer = self.inspected(container, timeout).await?;
        read::looked_at(answer).map_err(|error| self.unreadable("inspect", &error))
    }

    /// A container, whole; an error where a part of it cannot be read.
    pub(super) async fn inspect_whole(
        &self,
        container: &str,
        timeout: Duration,
    ) -> Result<Found, CapabilityError> {
        let answer = self.inspected(container, timeout).await?;
        read::whole(answer).map_err(|error| self.unreadable("inspect", &error))
    }

    async fn inspected(
        &self,
        container: &str,
        timeout: Duration,
    ) -> Result<serde_json::Value, CapabilityError> {
        let wire = self.wire(timeout).await?;
        let path = format!("/containers/{container}/json");
        let ask = Ask::observation("inspect");
        self.answer(ask, timeout, wire.get(&path)).await
    }

    /// The containers that `query` asks for.
    pub(super) async fn list(
        &self,
        all: bool,
        labels: &[String],
        timeout: Duration,
    ) -> Result<Vec<ContainerSummary>, CapabilityError> {
        let wire = self.wire(timeout).await?;
        let mut query = vec![("all", all.to_string())];
        if !labels.is_empty() {
            let filters = serde_json::json!({ "label": labels });
            query.push(("filters", filters.to_string()));
        }
        let url = reqwest::Url::parse_with_params("http://docker/containers/json", query)
            .map_err(|error| CapabilityError::Invalid(self.says(&error.to_string())))?;
        let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let ask = Ask::observation("list");
        let answer = self.answer(ask, timeout, wire.get(&path)).await?;
        Ok(read::rows(answer))
    }

    /// Makes a container; its id and Docker's warnings. `mac_address` is for an API that has
    /// one for the whole container.
    pub(super) async fn create(
        &self,
        name: &str,
        body: &ContainerCreateBody,
        mac_address: Option<&str>,
        timeout: Duration,
    ) -> Result<(String, Vec<String>), CapabilityError> {
        let wire = self.wire(timeout).await?;
        let ask = Ask::effect("create");
        let mut body =
            serde_json::to_value(body).map_err(|error| self.unreadable("create", &error))?;
        if let (Some(address), Some(body)) = (mac_address, body.as_object_mut()) {
            body.insert("MacAddress".to_owned(), address.into());
        }
        let path = format!("/containers/create?name={name}");
        let made = self.answer(ask, timeout, wire.post(&path, &body)).await?;
        let id = made.get("Id").and_then(serde_json::Value::as_str);
        let id = id.ok_or_else(|| self.nonsense("create"))?.to_owned();
        let warnings = made.get("Warnings").and_then(serde_json::Value::as_array);
        let warnings = warnings.into_iter().flatten();
        let warnings = warnings.filter_map(|warning| warning.as_str().map(str::to_owned));
        Ok((id, warnings.collect()))
    }

    fn unreadable(&self, what: &str, error: &serde_json::Error) -> CapabilityError {
        CapabilityError::Failed(self.says(&format!(
            "the answer to {what} cannot be read: {error}; is this engine known to work like \
             Docker's?"
        )))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Makes a connection, and ends it again.
    async fn knock(&self, address: &str, bound: Duration) -> Result<(), CapabilityError> {
        match tokio::time::timeout(bound, TcpStream::connect(address)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.unreachable(Some(&error))),
            Err(_) => Err(CapabilityError::Unavailable(self.says(&format!(
                "no connection to {address} within {bound:?}; is the host up, and is a \
                 firewall in between?"
            )))),
        }
    }

    /// Waits for an answer, no longer than `timeout`, and says what an error means.
    pub(super) async fn answer<T>(
        &self,
        ask: Ask,
        timeout: Duration,
        answer: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, CapabilityError> {
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.explain(ask, &error)),
            Err(_) => Err(CapabilityError::TimedOut(self.says(&format!(
                "no answer to {} within {timeout:?}{}",
                ask.what,
                if ask.effect {
                    "; it may have been done all the same"
                } else {
                    ""
                }
            )))),
        }
    }

    /// Docker answered, and the answer lacks what it always has.
    pub(super) fn nonsense(&self, what: &str) -> CapabilityError {
        CapabilityError::Failed(self.says(&format!(
            "the answer to {what} lacks the container's id or state; is this a Docker Engine?"
        )))
    }

    /// `text` with the host's name before it.
    pub(super) fn says(&self, text: &str) -> String {
        let text = text.chars().take(MESSAGE_LENGTH);
        // Several lines, or worse, are one.
        let text: String = text.map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!("docker host {}: {text}", self.name)
    }

    pub(super) fn explain(&self, ask: Ask, error: &Error) -> CapabilityError {
        match error {
            Error::DockerResponseServerError {
                status_code,
                message,
            } => {
                let message = message.trim();
                // A page for browsers, by something in between.
                let page = message.starts_with('<');
                let told = if message.is_empty() || page {
                    let between = if page { " with a web page" } else { "" };
                    format!("{} was answered with {status_code}{between}", ask.request())
                } else {
                    message.to_owned()
                };
                // The engine was exchanged for another one since it was asked.
                if *status_code == 400 && message.contains("client version") {
                    self.forget.store(true, Ordering::Relaxed);
                    return CapabilityError::Unavailable(self.says(&told));
                }
                // Docker itself has it for networks alone.
                let refused = matches!(*status_code, 401 | 403 | 407)
                    && (page || !message.contains("network"));
                let told = if refused {
                    let more = if message.is_empty() || page {
                        String::new()
                    } else {
                        format!(" ({message})")
                    };
                    format!(
                        "{} was refused with {status_code}{more}; is there a proxy before the \
                         engine that allows too little?",
                        ask.request()
                    )
                } else {
                    told
                };
                let text = self.says(&told);
                match status_code {
                    _ if refused => CapabilityError::Denied(text),
                    404 if page => CapabilityError::Failed(text),
                    404 => CapabilityError::NotFound(text),
                    400 => CapabilityError::Invalid(text),
                    429 | 503 => CapabilityError::Unavailable(text),
                    _ => CapabilityError::Failed(text),
                }
            }
            Error::SocketNotFoundError(_) => {
                self.unreachable(Some(&std::io::Error::from(ErrorKind::NotFound)))
            }
            Error::HyperLegacyError { err } if err.is_connect() => self.unreachable(cause(err)),
            // The request was sent and the connection ended before the answer.
            Error::HyperLegacyError { .. }
            | Error::HyperResponseError { .. }
            | Error::IOError { .. } => {
                let text = format!("the connection broke during {}: {}", ask.what, chain(error));
                if ask.effect {
                    CapabilityError::TimedOut(
                        self.says(&format!("{text}; it may have been done all the same")),
                    )
                } else {
                    CapabilityError::Unavailable(self.says(&text))
                }
            }
            other => CapabilityError::Failed(self.says(&format!("{}: {}", ask.what, chain(other)))),
        }
    }

    fn unreachable(&self, error: Option<&std::io::Error>) -> CapabilityError {
        let kind = error.map(std::io::Error::kind);
        let text = match (&self.endpoint, kind) {
            (Endpoint::Unix(path), Some(ErrorKind::NotFound)) => format!(
                "no socket at {}; is the Docker Engine running, and is docker.hosts.{} the right \
                 path?",
                path.display(),
                self.name
            ),
            (Endpoint::Unix(path), Some(ErrorKind::PermissionDenied)) => format!(
                "no permission to use {}; add the user that sentinel runs as to the group that \
                 owns the socket (usually `docker`)",
                path.display()
            ),
            (Endpoint::Unix(path), Some(ErrorKind::ConnectionRefused)) => format!(
                "nothing listens on {}; is the Docker Engine running?",
                path.display()
            ),
            (
                Endpoint::Tcp(address) | Endpoint::Tls(address, _),
                Some(ErrorKind::ConnectionRefused),
            ) => format!(
                "nothing listens on {address}; is the Docker Engine running there, and does it \
                 listen on TCP?"
            ),
            (Endpoint::Unix(path), _) => {
                format!("cannot connect to {}{}", path.display(), reason(error))
            }
            (Endpoint::Tcp(address) | Endpoint::Tls(address, _), _) => {
                format!("cannot connect to {address}{}", reason(error))
            }
            (Endpoint::Ssh(tunnel), _) => format!(
                "ssh to {} works, and its Docker Engine's socket does not{}",
                tunnel.machine(),
                reason(error)
            ),
        };
        CapabilityError::Unavailable(self.says(&text))
    }
}

fn reason(error: Option<&std::io::Error>) -> String {
    error.map_or_else(String::new, |error| format!(": {error}"))
}

/// The I/O error at the bottom of `error`.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a std::io::Error> {
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref())
}

/// `error` and its causes in one line, none of them twice.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |&error| error.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}
