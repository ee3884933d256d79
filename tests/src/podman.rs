//! A real Podman with its Docker-compatible API, whose images, containers and settings are its own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What containers are made of: the machine's static busybox.
pub const IMAGE: &str = "localhost/infra-sentinel-test/busybox:1";

/// A service that ends with its test, and all that it made with it.
#[derive(Debug)]
pub struct Podman {
    folder: TempDir,
    service: Option<Child>,
}

impl Default for Podman {
    fn default() -> Self {
        Self::start()
    }
}

impl Podman {
    /// Starts it.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("infra-sentinel-test-podman-")
            .tempdir()
            .expect("a temporary folder");
        // Without a network nothing is changed on the machine. The limits of open files and processes that it
        // sets by itself are more than a container may raise where the tests run in one.
        let settings = "[containers]\nnetns = \"none\"\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\nlog_driver = \"k8s-file\"\n\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
        fs::write(folder.path().join("containers.conf"), settings).expect("settings");
        let mut podman = Self {
            folder,
            service: None,
        };
        let archive = podman.path("image.tar");
        let packed = Command::new("tar")
            .args(["--create", "--directory=/", "--file"])
            .arg(&archive)
            .arg("bin/busybox")
            .status()
            .expect("tar runs");
        assert!(
            packed.success(),
            "/bin/busybox: `stack/setup/packages.sh tests` installs it"
        );
        podman.done(&["import", &archive.display().to_string(), IMAGE]);
        let service = podman
            .command(&["system", "service", "--time=0", &podman.url()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(podman.path("log")).expect("a log"))
            .spawn()
            .expect("podman runs");
        podman.service = Some(service);
        let begun = Instant::now();
        while UnixStream::connect(podman.path("socket")).is_err() {
            let log = fs::read_to_string(podman.path("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(30), "{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        podman
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where its API is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("unix://{}", self.path("socket").display())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        for (flag, place) in [
            ("--root", "root"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
        ] {
            command.arg(flag).arg(self.path(place));
        }
        command
            .args(["--storage-driver", "vfs"])
            .args(args)
            .env("CONTAINERS_CONF", self.path("containers.conf"));
        command
    }

    /// Runs its own command line, which has to succeed.
    pub fn done(&self, args: &[&str]) -> String {
        let output = self
            .command(args)
            .output()
            .expect("podman: `stack/setup/packages.sh tests` installs it");
        assert!(
            output.status.success(),
            "podman {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Starts a container that runs this script; its id.
    pub fn run(&self, name: &str, script: &str, more: &[&str]) -> String {
        let mut args = vec!["run", "--detach", "--name", name];
        args.extend(more);
        args.extend([IMAGE, "/bin/busybox", "sh", "-c", script]);
        self.done(&args)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Its mounts are in the way of its folder.
        let removed = self
            .command(&["rm", "--all", "--force", "--time=0"])
            .output();
        if let Some(mut service) = self.service.take() {
            let ended = service.kill().and_then(|()| service.wait());
            assert!(ended.is_ok(), "podman could not be ended");
        }
        // What it leaves behind for each container that ended writes there for a moment longer.
        let begun = Instant::now();
        while fs::remove_dir_all(self.folder.path()).is_err()
            && self.folder.path().exists()
            && begun.elapsed() < Duration::from_secs(10)
        {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(
            std::thread::panicking() || removed.is_ok_and(|removed| removed.status.success()),
            "podman's containers could not be removed"
        );
    }
}
