//! Ansible playbooks, run with `ansible-playbook` on the machine of the daemon.
//!
//! What a plugin may choose is a playbook inside one folder, variables, `--limit` and
//! `--tags`; each is checked so that it can be nothing else. Variables are data:
//! Ansible does not evaluate templates in them, because their values come from alerts,
//! and `{{ lookup('pipe', …) }}` in a label would run commands on this machine.
//!
//! What a playbook did is learned from a callback plugin of our own, in JSON, and never
//! from what `ansible-playbook` prints.
//!
//! A playbook runs in a process group of its own. When its time is over, or its caller
//! is gone, it is ended with all its descendants. Two things outlive it all the same,
//! and mean to: what a task puts into the background with `async` and `poll: 0`, and
//! what runs on other machines already.

mod arguments;
mod environment;
mod events;
mod files;
mod output;
mod process;
mod run;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use sentinel_core::capability::{AnsibleRequest, CapabilityError, PlaybookReport};
use sentinel_sandbox::driver::AnsibleDriver;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::files::RunFiles;
use self::run::Run;

/// What is run where the configuration names no program.
pub const DEFAULT_PROGRAM: &str = "ansible-playbook";

/// How long `ansible-playbook --version` may take; a cold start of Python is slow.
const VERSION_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the playbooks are and what runs them.
#[derive(Debug, Clone)]
pub struct AnsibleConfig {
    /// The folder that playbooks are named in. Ansible runs there, so that an
    /// `ansible.cfg` and `roles/` beside the playbooks are found.
    pub playbooks_dir: PathBuf,
    /// Ansible's `--inventory`; none means Ansible's own default.
    pub inventory: Option<PathBuf>,
    /// The program: a path, or a name that is looked for on `PATH`.
    pub program: PathBuf,
    /// A folder for the files of runs under way. It belongs to one daemon alone, is
    /// made when it is missing, and nobody else can read what is in it.
    pub work_dir: PathBuf,
}

impl AnsibleConfig {
    /// Playbooks from `playbooks_dir`, with [`DEFAULT_PROGRAM`] and Ansible's own
    /// inventory.
    #[must_use]
    pub fn new(playbooks_dir: impl Into<PathBuf>, work_dir: impl Into<PathBuf>) -> Self {
        Self {
            playbooks_dir: playbooks_dir.into(),
            inventory: None,
            program: PathBuf::from(DEFAULT_PROGRAM),
            work_dir: work_dir.into(),
        }
    }
}

/// What keeps playbooks from running, as [`Ansible::check`] finds it.
#[derive(Debug, thiserror::Error)]
pub enum AnsibleCheckError {
    /// The playbooks folder is missing or unreadable.
    #[error("playbooks folder {} cannot be read: {reason}", path.display())]
    PlaybooksDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// The inventory is missing or unreadable.
    #[error("inventory {} cannot be read: {reason}", path.display())]
    Inventory {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// The program is missing or does not work.
    #[error("{0}")]
    Program(String),
}

/// Runs playbooks.
#[derive(Debug)]
pub struct Ansible {
    config: AnsibleConfig,
    /// Read once; playbooks get these and nothing else of the daemon's environment.
    environment: Vec<(OsString, OsString)>,
    // A playbook whose caller is gone is ended here, and its files are removed.
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Ansible {
    /// Takes the configuration; nothing is looked at yet.
    #[must_use]
    pub fn new(config: AnsibleConfig) -> Self {
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let named = config.program.components().count() < 2;
        Self {
            config: AnsibleConfig {
                playbooks_dir: absolute(config.playbooks_dir),
                inventory: config.inventory.map(absolute),
                program: if named {
                    config.program
                } else {
                    absolute(config.program)
                },
                work_dir: absolute(config.work_dir),
            },
            environment: environment::allowed(std::env::vars_os()),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }
    }

    /// Looks whether playbooks could run, and returns what the program says of its
    /// version, for example `ansible-playbook [core 2.14.18]`. Changes nothing.
    pub async fn check(&self) -> Result<String, AnsibleCheckError> {
        let path = &self.config.playbooks_dir;
        tokio::fs::read_dir(path)
            .await
            .map(drop)
            .map_err(|reason| AnsibleCheckError::PlaybooksDir {
                path: path.clone(),
                reason,
            })?;
        if let Some(path) = &self.config.inventory {
            tokio::fs::metadata(path)
                .await
                .map_err(|reason| AnsibleCheckError::Inventory {
                    path: path.clone(),
                    reason,
                })?;
        }
        run::version(
            &self.config,
            &self.environment,
            &self.tasks,
            VERSION_TIMEOUT,
        )
        .await
        .map_err(AnsibleCheckError::Program)
    }

    /// The file that a request's `playbook` means. `invalid` when the name has a wrong
    /// form or leads out of the folder, `not-found` when there is no such file.
    pub async fn playbook(&self, name: &str) -> Result<PathBuf, CapabilityError> {
        let folder = self.config.playbooks_dir.clone();
        let name = name.to_owned();
        blocking(move || arguments::playbook(&folder, &name)).await?
    }

    /// Ends and clears away what a daemon left behind that was killed in mid-run, so
    /// that no playbook runs twice at once and no variables stay on disk. To be called
    /// when the daemon starts to serve, and by nobody else: it would end the
    /// playbooks of a daemon that runs.
    pub async fn clear_leftovers(&self) -> io::Result<()> {
        let folder = self.config.work_dir.clone();
        blocking(move || files::clear_leftovers(&folder))
            .await
            .map_err(io::Error::other)?
    }

    /// Ends the playbooks that run and waits until they are gone; no new ones start.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn files(&self, request: &AnsibleRequest) -> Result<RunFiles, CapabilityError> {
        let folder: &Path = &self.config.work_dir;
        let variables = arguments::variables(&request.extra_vars)?;
        let made = {
            let folder = folder.to_path_buf();
            blocking(move || RunFiles::create(&folder, &variables)).await?
        };
        made.map_err(|error| {
            CapabilityError::Unavailable(format!(
                "no files for a playbook can be made in {}: {error}",
                folder.display()
            ))
        })
    }
}

#[async_trait]
impl AnsibleDriver for Ansible {
    async fn run(
        &self,
        request: &AnsibleRequest,
        timeout: Duration,
    ) -> Result<PlaybookReport, CapabilityError> {
        if self.stopping.is_cancelled() {
            return Err(CapabilityError::Unavailable(
                "the daemon is stopping".to_owned(),
            ));
        }
        let options = arguments::options(request)?;
        let playbook = self.playbook(&request.playbook).await?;
        let files = self.files(request).await?;
        let timeout = request
            .timeout_ms
            .map_or(timeout, |asked| timeout.min(Duration::from_millis(asked)));
        let run = Run {
            config: self.config.clone(),
            environment: self.environment.clone(),
            name: request.playbook.clone(),
            playbook,
            options,
            files,
            timeout,
        };
        let cancel = self.stopping.child_token();
        let _cancelled_when_dropped = cancel.clone().drop_guard();
        let tasks = self.tasks.clone();
        self.tasks
            .spawn(async move { run.carry_out(&tasks, &cancel).await })
            .await
            .map_err(|error| CapabilityError::Failed(format!("the run ended early: {error}")))?
    }
}

/// Files and `/proc` are no work for the runtime's own threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CapabilityError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| CapabilityError::Failed(format!("file work ended early: {error}")))
}
