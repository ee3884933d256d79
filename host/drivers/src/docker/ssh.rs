//! A Docker Engine on another machine, over ssh: its socket is forwarded to one of ours.
//!
//! There is one connection for each host. It is made when the first call comes, checks the
//! machine's key against the known ones, and asks nobody for a password. After a minute
//! without a call it ends by itself, also when the daemon was killed in the meantime.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use openssh::{ControlPersist, ForwardType, KnownHosts, Session, SessionBuilder};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// How long a connection that nobody uses stays, in seconds.
const IDLE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(59);

/// How often the other machine is asked whether it is there; after three of these without
/// an answer the connection is over.
const ALIVE: Duration = Duration::from_secs(5);

/// Where Docker listens on a machine of which nothing else is said.
const SOCKET: &str = "/var/run/docker.sock";

/// What identifies both sides. What is left out is for ssh itself to find: its
/// configuration, its agent, its known hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SshFiles {
    /// The private key.
    pub identity: Option<PathBuf>,
    /// The keys of the machines that may be connected to.
    pub known_hosts: Option<PathBuf>,
}

/// How one machine is reached.
#[derive(Debug)]
pub(super) struct Tunnel {
    user: Option<String>,
    machine: String,
    port: Option<u16>,
    /// The Docker Engine's socket there.
    socket: PathBuf,
    files: SshFiles,
    link: Mutex<Option<Link>>,
}

/// A connection.
#[derive(Debug)]
struct Link {
    // Ends with it: the session first, whose files are in the folder.
    _session: Session,
    _folder: TempDir,
    /// The end of the forwarded socket on this machine.
    here: PathBuf,
}

impl Tunnel {
    /// Takes what follows `ssh://`.
    pub(super) fn parse(address: &str, files: SshFiles) -> Result<Self, &'static str> {
        const FORM: &str = "needs a machine, as in ssh://user@web1, ssh://user@web1:2222 or \
                            ssh://user@web1/run/docker.sock";
        let (authority, socket) = match address.find('/') {
            Some(slash) => address.split_at(slash),
            None => (address, ""),
        };
        let socket = if matches!(socket, "" | "/") {
            SOCKET
        } else {
            socket
        };
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        let (machine, port) = match place.rsplit_once(':') {
            Some((machine, port)) => (machine, Some(port.parse::<u16>().map_err(|_| FORM)?)),
            None => (place, None),
        };
        // Either becomes an argument of ssh, in which a dash at the front is an option.
        let is_name = |name: &str| {
            name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        };
        if !is_name(machine) || !user.is_none_or(is_name) || socket.contains(char::is_whitespace) {
            return Err(FORM);
        }
        Ok(Self {
            user: user.map(str::to_owned),
            machine: machine.to_owned(),
            port,
            socket: PathBuf::from(socket),
            files,
            link: Mutex::new(None),
        })
    }

    /// The other machine, for messages.
    pub(super) fn machine(&self) -> &str {
        &self.machine
    }

    /// The socket on this machine, behind which the other one's Docker Engine is. Connects
    /// when there is no connection; why not, for people.
    pub(super) async fn open(&self, timeout: Duration) -> Result<PathBuf, String> {
        let open = async {
            // Whoever else wants this host waits here for the same connection.
            let mut link = self.link.lock().await;
            if let Some(link) = &*link
                && UnixStream::connect(&link.here).await.is_ok()
            {
                return Ok(link.here.clone());
            }
            // The old one ends before its place is taken.
            *link = None;
            let made = self.connect(timeout).await.map_err(|error| {
                let mut text = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(inner) = cause {
                    text = format!("{text}: {inner}");
                    cause = inner.source();
                }
                text.trim().to_owned()
            })?;
            Ok(link.insert(made).here.clone())
        };
        tokio::time::timeout(timeout, open)
            .await
            .unwrap_or_else(|_| Err(format!("no connection within {timeout:?}")))
    }

    async fn connect(&self, timeout: Duration) -> Result<Link, openssh::Error> {
        let folder = tempfile::Builder::new()
            .prefix("sentinel-ssh-")
            .tempdir()
            .map_err(openssh::Error::Master)?;
        let here = folder.path().join("docker.sock");
        let session = self
            .builder(folder.path(), timeout)
            .connect(&self.machine)
            .await?;
        session
            .request_port_forward(ForwardType::Local, here.as_path(), self.socket.as_path())
            .await?;
        Ok(Link {
            _session: session,
            _folder: folder,
            here,
        })
    }

    fn builder(&self, folder: &Path, timeout: Duration) -> SessionBuilder {
        let mut builder = SessionBuilder::default();
        builder
            .known_hosts_check(KnownHosts::Strict)
            .connect_timeout(timeout)
            .server_alive_interval(ALIVE)
            .control_persist(ControlPersist::IdleFor(IDLE))
            .control_directory(folder);
        if let Some(user) = &self.user {
            builder.user(user.clone());
        }
        if let Some(port) = self.port {
            builder.port(port);
        }
        if let Some(identity) = &self.files.identity {
            builder.keyfile(identity);
        }
        if let Some(known_hosts) = &self.files.known_hosts {
            builder.user_known_hosts_file(known_hosts);
        }
        builder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read_with_what_is_said_of_it() {
        let read = |address: &str| {
            let tunnel = Tunnel::parse(address, SshFiles::default())?;
            let socket = tunnel.socket.display().to_string();
            Ok::<_, &str>((tunnel.user, tunnel.machine, tunnel.port, socket))
        };
        let owned = |text: &str| text.to_owned();
        assert_eq!(
            read("web1"),
            Ok((None, owned("web1"), None, owned("/var/run/docker.sock")))
        );
        assert_eq!(
            read("ops@web1.example:2222/run/user/1000/docker.sock"),
            Ok((
                Some(owned("ops")),
                owned("web1.example"),
                Some(2222),
                owned("/run/user/1000/docker.sock")
            ))
        );
        for wrong in [
            "",
            "ops@",
            "@web1",
            "web1:ssh",
            "-oProxyCommand=x",
            "-x@web1",
            "ops@-web1",
            "a b",
            "web1/a b",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
