//! Ansible playbooks, run with `ansible-playbook` on the machine of the daemon.
//!
//! What a plugin may choose is a playbook inside one folder, variables, `--limit` and
//! `--tags`; each is checked so that it can be nothing else. Variables are data:
//! Ansible does not evaluate templates in them, neither in values nor in names, because
//! they come from alerts, and `{{ lookup('pipe', …) }}` in a label or in its name would run
//! commands on this machine.
//!
//! What a playbook did is learned from a callback plugin of our own, in JSON, and never
//! from what `ansible-playbook` prints. The same plugin looks at the playbook once Ansible
//! has read it, and ends it before its first task where it would run on hosts that are not
//! granted, or where a variable that is given is one that the playbook sets itself: what is
//! given is above everything else, and would be put in the place of what a task found out.
//!
//! An operator's own files stay in force: `ansible.cfg`, its callbacks and inventories. What
//! has to be set over them is colour, the folder of temporary files, and the folders of
//! callback plugins, to which ours is added.
//!
//! A playbook runs in a process group of its own. When its time is over, or its caller
//! is gone, it is ended with all its descendants. Two things outlive it all the same,
//! and mean to: what a task puts into the background with `async` and `poll: 0`, and
//! what runs on other machines already.

mod arguments;
mod contents;
mod environment;
mod events;
mod files;
mod inventory;
mod output;
mod process;
mod run;
mod scope;
mod settings;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sentinel_core::capability::{AnsibleRequest, CapabilityError, PlaybookReport};
use sentinel_sandbox::driver::{AnsibleDriver, PlaybookScope};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::arguments::variables;
use self::contents::Contents;
use self::environment::Environment;
use self::files::RunFiles;
pub use self::inventory::InventorySource;
use self::run::Run;
use self::scope::Scope;

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
    /// Ansible's `--inventory`, each; none means Ansible's own default.
    pub inventory: Vec<InventorySource>,
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
            inventory: Vec::new(),
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
    /// Read once; playbooks get this and nothing else of the daemon's environment.
    environment: Arc<Environment>,
    /// What is known of the playbooks folder.
    contents: Arc<Contents>,
    // A playbook whose caller is gone is ended here, and its files are removed.
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Ansible {
    /// Takes the configuration; nothing is looked at yet.
    #[must_use]
    pub fn new(config: AnsibleConfig) -> Self {
        Self::with_environment(config, std::env::vars_os())
    }

    /// The same, where the daemon's environment is this one.
    #[must_use]
    pub fn with_environment(
        config: AnsibleConfig,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let named = config.program.components().count() < 2;
        let work_dir = absolute(config.work_dir);
        Self {
            config: AnsibleConfig {
                playbooks_dir: absolute(config.playbooks_dir),
                inventory: config
                    .inventory
                    .into_iter()
                    .map(InventorySource::absolute)
                    .collect(),
                program: if named {
                    config.program
                } else {
                    absolute(config.program)
                },
                work_dir: work_dir.clone(),
            },
            environment: Arc::new(Environment::new(environment, &work_dir)),
            contents: Arc::default(),
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
        for path in self
            .config
            .inventory
            .iter()
            .filter_map(InventorySource::path)
        {
            tokio::fs::metadata(path)
                .await
                .map_err(|reason| AnsibleCheckError::Inventory {
                    path: path.to_path_buf(),
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

    async fn files(
        &self,
        request: &AnsibleRequest,
        scope: &PlaybookScope,
    ) -> Result<RunFiles, CapabilityError> {
        let folder: &Path = &self.config.work_dir;
        let incident = arguments::incident(request, scope.incident.as_ref())?;
        let variables = arguments::variables(&request.extra_vars, incident.as_ref())?;
        let scope = Scope::of(request, scope).to_json();
        let made = {
            let folder = folder.to_path_buf();
            blocking(move || RunFiles::create(&folder, &variables, &scope)).await?
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
    async fn identify(&self, playbook: &str) -> Result<Option<String>, CapabilityError> {
        self.playbook(playbook).await?;
        let folder = self.config.playbooks_dir.clone();
        let contents = self.contents.clone();
        let digest = blocking(move || contents.digest(&folder)).await??;
        Ok(Some(digest.hex()))
    }

    async fn run(
        &self,
        request: &AnsibleRequest,
        scope: &PlaybookScope,
        timeout: Duration,
    ) -> Result<PlaybookReport, CapabilityError> {
        if self.stopping.is_cancelled() {
            return Err(CapabilityError::Unavailable(
                "the daemon is stopping".to_owned(),
            ));
        }
        let options = arguments::options(request)?;
        let playbook = self.playbook(&request.playbook).await?;
        if scope.digest.is_some() && self.identify(&request.playbook).await? != scope.digest {
            return Err(CapabilityError::Failed(format!(
                "playbook {}, or something else in the playbooks folder, was changed while it was about to be run",
                request.playbook
            )));
        }
        let files = self.files(request, scope).await?;
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
