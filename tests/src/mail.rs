//! A real mail server on loopback (aiosmtpd), which keeps what it takes.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::remote::{Authority, Server, free_address, private_folder};
use crate::root;

/// Who may log in to a server that asks.
pub const USER: &str = "sentinel";
/// Their password.
pub const PASSWORD: &str = "s3cr3t-Pässword";

/// Debian's own Python, which has Debian's aiosmtpd.
const PYTHON: &str = "/usr/bin/python3";

/// The server.
#[derive(Debug)]
pub struct MailServer {
    _server: Server,
    folder: TempDir,
    /// Where it listens.
    pub address: SocketAddr,
    /// Who signed its certificate.
    pub authority: Authority,
}

impl MailServer {
    /// One that is reached with `security`, the word of the configuration, and asks
    /// [`USER`] for [`PASSWORD`] if it is to ask anybody.
    #[must_use]
    pub fn start(security: &str, asks: bool) -> Self {
        Self::at(free_address(), security, asks)
    }

    /// The same at an address.
    #[must_use]
    pub fn at(address: SocketAddr, security: &str, asks: bool) -> Self {
        let folder = private_folder("sentinel-test-mail-");
        let authority = Authority::new();
        authority.sign("server", "serverAuth");
        let mut command = Command::new(PYTHON);
        command
            .arg(root().join("tests/mail/server.py"))
            .arg(address.port().to_string())
            .arg(folder.path().join("mails"))
            .args(["--security", security])
            .args(["--cert", &authority.path("server.pem")])
            .args(["--key", &authority.path("server.key")]);
        if asks {
            command.args(["--user", USER, "--password", PASSWORD]);
        }
        let mut server = Server::start(&mut command, folder.path().join("log"));
        server.wait_for(
            "the mail server (which needs python3-aiosmtpd: run `stack/setup/packages.sh tests`)",
            || TcpStream::connect(address).is_ok(),
        );
        Self {
            _server: server,
            folder,
            address,
            authority,
        }
    }

    /// The mails that it took, as `tests/mail/server.py` keeps them.
    #[must_use]
    pub fn mails(&self) -> Vec<Value> {
        let kept = fs::read_to_string(self.folder.path().join("mails")).unwrap_or_default();
        kept.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// The file with the authority that signed its certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.authority.path("ca.pem").into()
    }
}
