//! One Docker host: where it is, and what its answers mean.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bollard::API_DEFAULT_VERSION;
use bollard::errors::Error;
use rustls::ClientConfig;
use sentinel_core::capability::CapabilityError;
use tokio::net::TcpStream;

use super::ssh::Tunnel;
use super::{DockerConfigError, DockerHost, tls};

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
}

/// A client, and where it connects to.
struct Client {
    docker: bollard::Docker,
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
        {
            return Ok(client.docker.clone());
        }
        // Requests carry no API version, which Docker takes as its own newest; the
        // version given here is what the library starts from and goes unused.
        let unix = |path: &Path| {
            bollard::Docker::connect_with_unix(
                &path.to_string_lossy(),
                LIBRARY_TIMEOUT,
                API_DEFAULT_VERSION,
            )
        };
        let docker = match (&self.endpoint, &tunnel) {
            (Endpoint::Unix(path), _) | (Endpoint::Ssh(_), Some(path)) => unix(path),
            (Endpoint::Tls(address, config), _) => tls::client(address, config, LIBRARY_TIMEOUT),
            (Endpoint::Tcp(address), _) => {
                bollard::Docker::connect_with_http(address, LIBRARY_TIMEOUT, API_DEFAULT_VERSION)
            }
            (Endpoint::Ssh(_), None) => return Err(self.nonsense("ssh")),
        }
        .map_err(|error| self.explain(Ask::observation("connect"), &error))?;
        self.client.store(Some(Arc::new(Client {
            docker: docker.clone(),
            socket: tunnel,
        })));
        Ok(docker)
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
        let text: String = text.chars().take(MESSAGE_LENGTH).collect();
        format!("docker host {}: {text}", self.name)
    }

    pub(super) fn explain(&self, ask: Ask, error: &Error) -> CapabilityError {
        match error {
            Error::DockerResponseServerError {
                status_code,
                message,
            } => {
                let text = self.says(if message.is_empty() {
                    "no reason given"
                } else {
                    message
                });
                match status_code {
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
