//! A Docker Engine on another machine, over ssh: its socket is forwarded to one of ours.
//!
//! There is one connection for each host. It is made when the first call comes, checks the
//! machine's key against the known ones, and asks nobody for a password. After a minute
//! without a call it ends by itself, also when the daemon was killed in the meantime.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use crate::environment::allowed;

/// How long a connection that nobody uses stays, in seconds.
const IDLE: u64 = 60;

/// How often the other machine is asked whether it is there; after three of these without
/// an answer the connection is over.
const ALIVE: Duration = Duration::from_secs(5);

/// What ssh, and what its configuration has it start, may need beside the short list: a
/// terminal's kind, tickets of Kerberos, and where agents listen.
const NEEDED: [&str; 3] = ["KRB5CCNAME", "TERM", "XDG_RUNTIME_DIR"];

/// How much is told of what ssh said, in bytes, from the end: there it says why.
const SAID: usize = 2 << 10;

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

/// A connection. It ends with this, and before its folder does.
#[derive(Debug)]
struct Link {
    /// Where its process is spoken to.
    control: PathBuf,
    /// The end of the forwarded socket on this machine.
    here: PathBuf,
    _folder: TempDir,
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.control.exists() {
            return;
        }
        // Where that fails it has ended already, or will when nobody has used it for a while.
        let _ended = asks(&self.control, ["-O", "exit"])
            .stderr(Stdio::null())
            .status();
    }
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
            let made = self.connect(timeout).await?;
            Ok(link.insert(made).here.clone())
        };
        tokio::time::timeout(timeout, open)
            .await
            .unwrap_or_else(|_| Err(format!("no connection within {timeout:?}")))
    }

    async fn connect(&self, timeout: Duration) -> Result<Link, String> {
        let folder = tempfile::Builder::new()
            .prefix("sentinel-ssh-")
            .tempdir()
            .map_err(|error| format!("no folder for the connection: {error}"))?;
        let log = folder.path().join("log");
        // What begins ends with this, whatever comes of it.
        let link = Link {
            control: folder.path().join("master"),
            here: folder.path().join("docker.sock"),
            _folder: folder,
        };
        // It is waited for until it is connected, and goes to the background then.
        let connected = waited_for(self.connects(&link.control, &log, timeout))
            .status()
            .await
            .map_err(not_started)?;
        if !connected.success() {
            let said = said(&tokio::fs::read(&log).await.unwrap_or_default());
            return Err(format!("failed to connect to the remote host: {said}"));
        }
        let mut forward = OsString::from(&link.here);
        forward.push(":");
        forward.push(&self.socket);
        let asked = asks(
            &link.control,
            [
                "-O".as_ref(),
                "forward".as_ref(),
                "-L".as_ref(),
                forward.as_os_str(),
            ],
        );
        let forwarded = waited_for(asked).output().await.map_err(not_started)?;
        if forwarded.status.success() {
            Ok(link)
        } else {
            let said = said(&forwarded.stderr);
            Err(format!("the socket cannot be forwarded: {said}"))
        }
    }

    /// What connects.
    fn connects(&self, control: &Path, log: &Path, timeout: Duration) -> Command {
        let mut command = ssh(control);
        command.arg("-E").arg(log).args(["-M", "-f", "-N"]);
        let mut option = |name: &str, value: &dyn std::fmt::Display| {
            command.arg("-o").arg(format!("{name}={value}"));
        };
        option("ControlPersist", &IDLE);
        option("StrictHostKeyChecking", &"yes");
        option("ConnectTimeout", &timeout.as_secs().max(1));
        option("ServerAliveInterval", &ALIVE.as_secs());
        if self.files.identity.is_some() {
            option("IdentitiesOnly", &"yes");
        }
        if let Some(port) = self.port {
            command.arg("-p").arg(port.to_string());
        }
        if let Some(user) = &self.user {
            command.arg("-l").arg(user);
        }
        if let Some(identity) = &self.files.identity {
            command.arg("-i").arg(identity);
        }
        if let Some(known_hosts) = &self.files.known_hosts {
            let mut option = OsString::from("UserKnownHostsFile=");
            option.push(known_hosts);
            command.arg("-o").arg(option);
        }
        command.arg(&self.machine).stderr(Stdio::null());
        command
    }
}

/// `ssh`, by the connection that is or will be at `control`, with what it needs of the
/// daemon's environment and nothing else.
#[expect(
    clippy::disallowed_methods,
    reason = "it carries calls of this driver, touches nothing, and ends when nobody uses it"
)]
fn ssh(control: &Path) -> Command {
    let mut command = Command::new("ssh");
    command
        .env_clear()
        .envs(allowed(std::env::vars_os(), |name| NEEDED.contains(&name)))
        .arg("-S")
        .arg(control)
        // It asks nobody for anything.
        .args(["-o", "BatchMode=yes"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Asks the connection at `control` for something.
fn asks(control: &Path, what: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = ssh(control);
    // Whom it is connected to the connection knows; ssh wants a name all the same.
    command.args(what).arg("none");
    command
}

/// The same, ended when nobody waits for it any more.
fn waited_for(command: Command) -> tokio::process::Command {
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    command
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what an error is mapped with"
)]
fn not_started(error: std::io::Error) -> String {
    format!("ssh cannot be started: {error}")
}

/// What ssh said, for people.
fn said(bytes: &[u8]) -> String {
    let end = bytes.get(bytes.len().saturating_sub(SAID)..);
    let text = String::from_utf8_lossy(end.unwrap_or_default());
    let text = text.trim();
    text.strip_prefix("ssh: ").unwrap_or(text).to_owned()
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
