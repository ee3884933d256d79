//! One run of a playbook, from its files to its report.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sentinel_core::capability::{CapabilityError, PlaybookReport};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::environment::Environment;
use super::events::{self, Events};
use super::files::{self, RunFiles};
use super::output::{Output, Stream};
use super::process::Group;
use super::{AnsibleConfig, blocking};

/// How long the pipes may stay open after the program has ended: a process that a task
/// left in the background can hold them for good.
const PIPES: Duration = Duration::from_millis(500);

/// The exit code of a shell, or of a version manager's stand-in, that did not find the
/// program.
const NO_PROGRAM: i32 = 127;

/// A run that is ready to start.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) config: AnsibleConfig,
    pub(super) environment: Arc<Environment>,
    /// The playbook as the plugin called it.
    pub(super) name: String,
    pub(super) playbook: PathBuf,
    pub(super) options: Vec<String>,
    pub(super) files: RunFiles,
    pub(super) timeout: Duration,
}

/// How a run came to its end.
enum End {
    Exited(ExitStatus),
    TimedOut,
    Cancelled,
}

impl Run {
    /// Runs the playbook until it ends, its time is over or `cancel` says so. In every
    /// case nothing of it runs afterwards, and its files are gone.
    pub(super) async fn carry_out(
        self,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Result<PlaybookReport, CapabilityError> {
        let begun = Instant::now();
        let mut output = Arc::new(Output::default());
        let without_locale = self.environment.is_without_locale();
        let mut end = self.execute(tasks, cancel, &output, self.timeout).await;
        // It ends before it has read anything, so it can be begun again.
        if !without_locale
            && matches!(&end, Ok(End::Exited(status)) if !status.success())
            && self.environment.is_locale_missing(&output.complaint())
        {
            output = Arc::new(Output::default());
            let left = self.timeout.saturating_sub(begun.elapsed());
            end = self.execute(tasks, cancel, &output, left).await;
        }
        let files = self.files;
        let events = blocking(move || {
            let events = events::read(files.events());
            files.remove();
            events
        })
        .await?
        .unwrap_or_else(|error| {
            tracing::warn!(%error, "a playbook's events cannot be read");
            Events::default()
        });
        let task = events
            .last_begun
            .as_ref()
            .map_or_else(String::new, |task| format!(" in task {task:?}"));
        let status = match end? {
            End::Exited(status) => status,
            End::TimedOut => {
                return Err(CapabilityError::TimedOut(format!(
                    "playbook {} took longer than {:?} and was ended{task}",
                    self.name, self.timeout
                )));
            }
            End::Cancelled => {
                return Err(CapabilityError::Failed(format!(
                    "playbook {} was ended{task} because the daemon stops",
                    self.name
                )));
            }
        };
        if let Some(reason) = events.refused {
            return Err(CapabilityError::Denied(format!(
                "playbook {} was not run{task}: {reason}",
                self.name
            )));
        }
        let Some(exit_code) = status.code() else {
            return Err(CapabilityError::Failed(format!(
                "playbook {} was ended{task} from outside ({status})",
                self.name
            )));
        };
        let hosts = match events.hosts {
            Some(hosts) if !hosts.is_empty() => hosts,
            recap => {
                let complaint = output.complaint();
                return Err(match (recap, exit_code) {
                    // Ansible calls it a success when no host matches, and a remedy that
                    // did nothing is none.
                    (Some(_), _) => CapabilityError::Failed(format!(
                        "playbook {} ran no task on any host (exit code {exit_code}): {complaint}",
                        self.name
                    )),
                    (None, NO_PROGRAM) => {
                        CapabilityError::Unavailable(missing(&self.config, &complaint))
                    }
                    (None, _) => CapabilityError::Failed(format!(
                        "playbook {} came to no recap (exit code {exit_code}): {complaint}",
                        self.name
                    )),
                });
            }
        };
        Ok(PlaybookReport {
            exit_code,
            hosts,
            tasks: events.tasks,
            output: output.text(),
            duration_ms: begun.elapsed().as_millis() as u64,
        })
    }

    async fn execute(
        &self,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
        output: &Arc<Output>,
        timeout: Duration,
    ) -> Result<End, CapabilityError> {
        let environment = {
            let (environment, config) = (Arc::clone(&self.environment), self.config.clone());
            let files = self.files.places();
            blocking(move || environment.of_run(&config, &files)).await?
        };
        let mut group = Group::start(
            &self.config.program,
            &self.arguments(),
            environment,
            &self.config.playbooks_dir,
        )
        .map_err(|error| CapabilityError::Unavailable(not_started(&self.config, &error)))?;
        if let Some(note) = group.note() {
            let path = self.files.leader().to_path_buf();
            if let Err(error) = blocking(move || files::note(&path, &note)).await? {
                tracing::warn!(%error, "a playbook's process cannot be noted");
            }
        }
        let reading = read(&mut group, tasks, output);
        let end = tokio::select! {
            biased;
            status = group.wait() => match status {
                Ok(status) => End::Exited(status),
                Err(error) => return Err(CapabilityError::Failed(format!(
                    "playbook {} cannot be waited for: {error}",
                    self.name
                ))),
            },
            () = cancel.cancelled() => End::Cancelled,
            () = tokio::time::sleep(timeout) => End::TimedOut,
        };
        if !matches!(end, End::Exited(_)) {
            group.end().await;
        }
        reading.finish().await;
        Ok(end)
    }

    fn arguments(&self) -> Vec<OsString> {
        let mut variables = OsString::from("@");
        variables.push(self.files.variables());
        let mut arguments = vec!["--extra-vars".into(), variables];
        for source in &self.config.inventory {
            arguments.push("--inventory".into());
            arguments.push(source.argument());
        }
        arguments.extend(self.options.iter().map(OsString::from));
        // Absolute, so it cannot be taken for an option.
        arguments.push(self.playbook.clone().into());
        arguments
    }
}

/// The first line of what the program says to `--version`, or why it says nothing.
pub(super) async fn version(
    config: &AnsibleConfig,
    environment: &Arc<Environment>,
    tasks: &TaskTracker,
    timeout: Duration,
) -> Result<String, String> {
    let without_locale = environment.is_without_locale();
    match try_version(config, environment, tasks, timeout).await {
        Err(said) if !without_locale && environment.is_locale_missing(&said) => {
            try_version(config, environment, tasks, timeout).await
        }
        answer => answer,
    }
}

async fn try_version(
    config: &AnsibleConfig,
    environment: &Arc<Environment>,
    tasks: &TaskTracker,
    timeout: Duration,
) -> Result<String, String> {
    let variables = {
        let environment = Arc::clone(environment);
        blocking(move || environment.variables())
            .await
            .map_err(|error| error.to_string())?
    };
    let mut group = Group::start(
        &config.program,
        &["--version".into()],
        variables,
        &config.playbooks_dir,
    )
    .map_err(|error| not_started(config, &error))?;
    let output = Arc::new(Output::default());
    let reading = read(&mut group, tasks, &output);
    let ended = tokio::time::timeout(timeout, group.wait()).await;
    if ended.is_err() {
        group.end().await;
    }
    reading.finish().await;
    let program = config.program.display();
    match ended {
        Ok(Ok(status)) if status.success() => output
            .text()
            .lines()
            .find(|line| !line.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| format!("{program} --version says nothing")),
        Ok(Ok(status)) if status.code() == Some(NO_PROGRAM) => {
            Err(missing(config, &output.complaint()))
        }
        Ok(Ok(status)) => Err(format!(
            "{program} --version fails ({status}): {}",
            output.complaint()
        )),
        Ok(Err(error)) => Err(format!("{program} --version: {error}")),
        Err(_) => Err(format!("{program} --version took longer than {timeout:?}")),
    }
}

fn not_started(config: &AnsibleConfig, error: &io::Error) -> String {
    match error.kind() {
        // The folder is looked at first because a missing one is the same error.
        io::ErrorKind::NotFound if config.playbooks_dir.is_dir() => missing(config, ""),
        _ => format!("{} cannot be started: {error}", config.program.display()),
    }
}

fn missing(config: &AnsibleConfig, said: &str) -> String {
    let said = if said.is_empty() {
        String::new()
    } else {
        format!(" ({said})")
    };
    format!(
        "{} is not there{said}; install ansible-core (apt-get install ansible-core) or set \
         ansible.program",
        config.program.display()
    )
}

/// The readers of a process's pipes.
struct Reading {
    readers: Vec<tokio::task::JoinHandle<()>>,
}

fn read(group: &mut Group, tasks: &TaskTracker, output: &Arc<Output>) -> Reading {
    let (stdout, stderr) = group.pipes();
    let mut readers = Vec::new();
    if let Some(pipe) = stdout {
        let output = Arc::clone(output);
        readers.push(tasks.spawn(async move { output.read(Stream::Stdout, pipe).await }));
    }
    if let Some(pipe) = stderr {
        let output = Arc::clone(output);
        readers.push(tasks.spawn(async move { output.read(Stream::Stderr, pipe).await }));
    }
    Reading { readers }
}

impl Reading {
    /// Waits for what is still in the pipes, not for who still holds them.
    async fn finish(self) {
        let deadline = tokio::time::Instant::now() + PIPES;
        for mut reader in self.readers {
            if tokio::time::timeout_at(deadline, &mut reader)
                .await
                .is_err()
            {
                reader.abort();
            }
        }
    }
}
