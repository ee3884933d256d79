//! Real containers on the machine's Docker engine.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Runs the docker client.
pub fn docker(args: &[&str]) -> Output {
    Command::new("docker")
        .args(args)
        .output()
        .expect("the docker client is missing: run the tests with `make test`")
}

/// Runs the docker client, and fails the test when it fails.
pub fn docker_ok(args: &[&str]) -> String {
    let output = docker(args);
    assert!(
        output.status.success(),
        "docker {args:?}: {}\nis the Docker engine running? `make test` starts it",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A name that no other test uses.
#[must_use]
pub fn unique(base: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("infra-sentinel-test-{base}-{}-{number}", std::process::id())
}

/// A container that is removed when the test is over.
#[derive(Debug)]
pub struct Container {
    /// Its name.
    pub name: String,
}

impl Container {
    /// Starts nginx, with a page at `/` on a port of loopback that Docker chose.
    #[must_use]
    pub fn nginx(base: &str) -> Self {
        Self::run(base, &["-p", "127.0.0.1::80"])
    }

    /// Starts nginx with a health check that passes while the file `/healthy` exists.
    #[must_use]
    pub fn with_health(base: &str) -> Self {
        let container = Self::run(
            base,
            &[
                "--health-cmd",
                "test -e /healthy",
                "--health-interval",
                "500ms",
                "--health-retries",
                "1",
                "--health-timeout",
                "2s",
            ],
        );
        container.exec(&["touch", "/healthy"]);
        container
    }

    /// Starts something that does not end when it is asked to.
    #[must_use]
    pub fn stubborn(base: &str) -> Self {
        Self::run_command(
            base,
            &["--entrypoint", "sh"],
            &["-c", "trap '' TERM QUIT; while :; do sleep 1; done"],
        )
    }

    /// Starts nginx with a label of Docker's.
    #[must_use]
    pub fn labelled(base: &str, label: &str) -> Self {
        Self::run(base, &["--label", label])
    }

    /// Starts a shell with this script.
    #[must_use]
    pub fn sh(base: &str, script: &str, options: &[&str]) -> Self {
        let options = [&["--entrypoint", "sh"], options].concat();
        Self::run_command(base, &options, &["-c", script])
    }

    /// Starts nginx with these options of `docker run`, or with `--entrypoint sleep`
    /// something that only runs.
    #[must_use]
    pub fn with(base: &str, options: &[&str]) -> Self {
        Self::named(&unique(base), options)
    }

    /// The same under a name that is unique already.
    #[must_use]
    pub fn named(name: &str, options: &[&str]) -> Self {
        let command: &[&str] = if options.contains(&"sleep") {
            &["1d"]
        } else {
            &[]
        };
        Self::run_named(name, options, command)
    }

    fn run(base: &str, options: &[&str]) -> Self {
        Self::run_command(base, options, &[])
    }

    fn run_command(base: &str, options: &[&str], command: &[&str]) -> Self {
        Self::run_named(&unique(base), options, command)
    }

    /// Starts what this image runs.
    #[must_use]
    pub fn of(image: &str, base: &str, options: &[&str]) -> Self {
        Self::run_image(image, &unique(base), options, &[])
    }

    fn run_named(name: &str, options: &[&str], command: &[&str]) -> Self {
        let image = std::env::var("SENTINEL_TEST_IMAGE").unwrap_or_else(|_| image());
        Self::run_image(&image, name, options, command)
    }

    fn run_image(image: &str, name: &str, options: &[&str], command: &[&str]) -> Self {
        let mut args = vec![
            "run",
            "-d",
            "--name",
            name,
            "--label",
            "infra-sentinel.test=1",
            "--stop-timeout",
            "1",
        ];
        args.extend(options);
        args.push(image);
        args.extend(command);
        docker_ok(&args);
        Self {
            name: name.to_owned(),
        }
    }

    /// Runs a command in it.
    pub fn exec(&self, command: &[&str]) {
        let mut args = vec!["exec", self.name.as_str()];
        args.extend(command);
        docker_ok(&args);
    }

    /// One field of `docker inspect`, by Go template.
    #[must_use]
    pub fn inspect(&self, template: &str) -> String {
        docker_ok(&["inspect", "-f", template, &self.name])
    }

    /// `running`, `exited`, `paused`, …
    #[must_use]
    pub fn state(&self) -> String {
        self.inspect("{{.State.Status}}")
    }

    /// When it was started last: what a restart changes.
    #[must_use]
    pub fn started_at(&self) -> String {
        self.inspect("{{.State.StartedAt}}")
    }

    /// Where its page is.
    #[must_use]
    pub fn url(&self) -> String {
        let port = docker_ok(&["port", &self.name, "80/tcp"]);
        format!("http://{}/", port.lines().next().unwrap_or_default())
    }

    /// Waits until its health check says so.
    pub async fn wait_health(&self, health: &str) {
        let what = format!("{} becomes {health}", self.name);
        crate::eventually(&what, Duration::from_secs(20), || async {
            (self.inspect("{{.State.Health.Status}}") == health).then_some(())
        })
        .await;
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        docker(&["rm", "-f", "-v", &self.name]);
    }
}

/// The image of the stack's nginx: what the compose file names.
fn image() -> String {
    let compose = std::fs::read_to_string(crate::root().join("stack/compose.yaml"))
        .expect("stack/compose.yaml");
    compose
        .lines()
        .filter_map(|line| line.trim().strip_prefix("image:"))
        .map(|image| image.trim().trim_matches(['"', '\'']))
        .find(|image| image.starts_with("nginx:") || image.contains("nginx:-"))
        .expect("an nginx image in stack/compose.yaml")
        .to_owned()
}
