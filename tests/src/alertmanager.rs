//! A real Alertmanager, as Debian has it, in a folder of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::{eventually, unpacked};

/// One that listens on loopback, and ends with its test.
#[derive(Debug)]
pub struct Alertmanager {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Alertmanager {
    /// Starts one with this configuration, and with this file for `--web.config.file` if there is one. What its
    /// files name is by paths that are whole.
    pub async fn start(config: &str, web: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // A port that nobody listens on a moment ago.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .expect("a free port");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("alertmanager.yml"), config).expect("a configuration");
        let named = |flag: &str, name: &str| format!("--{flag}={}", path(name).display());
        let mut args = vec![
            named("config.file", "alertmanager.yml"),
            named("storage.path", "data"),
            format!("--web.listen-address={address}"),
            "--cluster.listen-address=".to_owned(),
        ];
        if let Some(web) = web {
            fs::write(path("web.yml"), web).expect("a configuration");
            args.push(named("web.config.file", "web.yml"));
        }
        let child = Command::new(unpacked(
            "prometheus-alertmanager",
            "prometheus-alertmanager",
        ))
        .args(args)
        .stdout(Stdio::null())
        .stderr(fs::File::create(path("log")).expect("a log"))
        .spawn()
        .expect("prometheus-alertmanager: `stack/setup/packages.sh tests` gets it");
        let mut started = Self {
            child,
            address,
            folder,
        };
        eventually("alertmanager listens", Duration::from_secs(60), || {
            let ended = started.child.try_wait().expect("a process");
            assert!(ended.is_none(), "it ended: {ended:?}: {}", started.log());
            let listens = TcpStream::connect(address).is_ok();
            async move { listens.then_some(()) }
        })
        .await;
        started
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of one of its pages, without TLS.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        assert!(ended.is_ok(), "alertmanager could not be ended");
    }
}
