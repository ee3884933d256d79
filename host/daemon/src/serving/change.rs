//! What operators change about plugins, one after the other, on the task that changes what
//! serves: so it can never be half of two changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sentinel_core::control::ControlBody;
use sentinel_core::id::{Digest, PluginName, PluginRef};
use sentinel_sandbox::Plugin;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;

use super::load::{Change, NewlyRefused};
use super::probation::Failed;
use super::watch::{Reloader, Why};
use super::{Problem, Serving, signature};

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Request {
    /// Look at the folders now.
    Look,
    /// Put a plugin into the folder, if it can serve.
    Install {
        /// What it is expected to call itself.
        name: PluginName,
        /// The plugin.
        wasm: Vec<u8>,
        /// Its signature.
        signature: Option<String>,
        /// Let it serve whatever its recorded runs say, and even if it was rolled back.
        accept: bool,
        /// Who.
        by: String,
        /// Who waits.
        reply: Reply,
    },
    /// Take a plugin out of the folder, if no policy needs it.
    Remove {
        /// Which.
        name: PluginName,
        /// Who.
        by: String,
        /// Who waits.
        reply: Reply,
    },
    /// Let an older version serve again.
    RollBack {
        /// Whose.
        name: PluginName,
        /// Which; the one before what serves, if none is named.
        to: Option<Digest>,
        /// Why.
        reason: String,
        /// Who.
        by: String,
        /// Who waits.
        reply: Reply,
    },
    /// Let a version serve although its recorded runs differ, or although it was rolled
    /// back.
    Accept {
        /// Which.
        digest: Digest,
        /// Who.
        by: String,
        /// Who waits.
        reply: Reply,
    },
    /// A version broke down too often: the one before it is to serve again.
    Failed(Failed),
}

/// Who waits for an answer.
pub(crate) type Reply = oneshot::Sender<Result<Changed, Refusal>>;

/// What was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Changed {
    /// In words.
    pub(crate) message: String,
}

/// Why it was not.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    /// In words.
    pub(crate) message: String,
    /// A word of a person would do.
    pub(crate) wants: Word,
}

/// Whose turn it is after a [`Refusal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// What was given has to change.
    Given,
    /// There is no such thing.
    Unknown,
    /// sentinel's own: the disk, most likely.
    Ours,
}

impl Refusal {
    fn given(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            wants: Word::Given,
        }
    }

    fn unknown(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            wants: Word::Unknown,
        }
    }

    fn ours(message: impl std::fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            wants: Word::Ours,
        }
    }

    fn problems(problems: &[Problem]) -> Self {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        Self::given(problems.join("; "))
    }
}

impl Reloader {
    pub(super) async fn handle(&self, request: Request) {
        let (reply, result) = match request {
            Request::Look => return self.reload().await,
            Request::Install {
                name,
                wasm,
                signature,
                accept,
                by,
                reply,
            } => {
                let installed = self.install(&name, wasm, signature, accept, &by).await;
                (reply, installed)
            }
            Request::Remove { name, by, reply } => (reply, self.remove(&name, &by).await),
            Request::RollBack {
                name,
                to,
                reason,
                by,
                reply,
            } => (reply, self.roll_back(&name, to, &reason, &by).await),
            Request::Accept { digest, by, reply } => (reply, self.accept(digest, &by).await),
            Request::Failed(failed) => return self.give_up(failed).await,
        };
        if reply.send(result).is_err() {
            tracing::debug!("whoever asked for a change of plugins has gone away");
        }
    }

    async fn install(
        &self,
        name: &PluginName,
        wasm: Vec<u8>,
        signature: Option<String>,
        accept: bool,
        by: &str,
    ) -> Result<Changed, Refusal> {
        let current = self.serving.load_full();
        let digest = Digest::of(&wasm);
        let file = current
            .file_of(name)
            .unwrap_or_else(|| format!("{name}.wasm"));
        signature::check(
            &self.loader.config.load().plugins,
            &file,
            &wasm,
            signature.as_deref(),
        )
        .map_err(Refusal::given)?;
        if let Some(reason) = self.versions().rolled_back(&digest)
            && !accept
        {
            return Err(Refusal::given(format!(
                "{} was rolled back: {reason}; `--accept` lets it serve again",
                digest.short()
            )));
        }
        let accepted = accept || self.versions().accepted(&digest);
        let plugin = self
            .loader
            .admit(digest, wasm.clone(), &current, accepted)
            .await
            .map_err(Refusal::given)?;
        if plugin.name != *name {
            return Err(Refusal::given(format!(
                "the plugin calls itself {}, and it was sent as {name}",
                plugin.name
            )));
        }
        let before = current.plugins.get(name);
        let same = before.is_some_and(|before| before.digest == digest);
        let wants = before.map(|before| {
            plugin
                .imports
                .difference(&before.imports)
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        });
        let change = Change::Plugin(file.clone(), plugin.clone());
        let serving = self.fit(&current, change, None).await?;
        put(
            &self.loader.folders.plugins,
            &file,
            &wasm,
            signature.as_deref(),
        )
        .await
        .map_err(|error| Refusal::ours(format!("{file} cannot be written: {error}")))?;
        if accept {
            self.note(vec![ControlBody::PluginAccepted {
                digest,
                by: by.to_owned(),
            }])
            .await
            .map_err(Refusal::ours)?;
        }
        let pinned = serving.pinned_elsewhere(&plugin);
        let fresh = BTreeMap::from([(digest, wasm)]);
        self.swap(&current, serving, &fresh, Why::Asked(by))
            .await
            .map_err(Refusal::ours)?;
        let mut message = match before {
            _ if same => format!("{plugin} serves already"),
            Some(before) => format!("{plugin} serves instead of {before}"),
            None => format!("{plugin} serves"),
        };
        if let Some(wants) = wants.filter(|wants| !wants.is_empty()) {
            message.push_str("; it now also asks for ");
            message.push_str(&wants.join(", "));
        }
        if !pinned.is_empty() {
            message.push_str("; another version serves on for those who are pinned to it: ");
            message.push_str(&pinned.join(", "));
        }
        Ok(Changed { message })
    }

    async fn remove(&self, name: &PluginName, by: &str) -> Result<Changed, Refusal> {
        let current = self.serving.load_full();
        let (Some(plugin), Some(file)) = (current.plugins.get(name), current.file_of(name)) else {
            return Err(Refusal::unknown(format!("no plugin named {name} serves")));
        };
        let gone = Change::PluginGone(file.clone());
        let serving = self.fit(&current, gone, None).await?;
        let path = self.loader.folders.plugins.join(&file);
        for path in [signature::beside(&path), path] {
            match tokio::fs::remove_file(&path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let path = path.display();
                    return Err(Refusal::ours(format!("{path} cannot be removed: {error}")));
                }
                _ => {}
            }
        }
        self.swap(&current, serving, &BTreeMap::new(), Why::Asked(by))
            .await
            .map_err(Refusal::ours)?;
        Ok(Changed {
            message: format!("{plugin} does not serve any more; its versions are kept"),
        })
    }

    async fn roll_back(
        &self,
        name: &PluginName,
        to: Option<Digest>,
        reason: &str,
        by: &str,
    ) -> Result<Changed, Refusal> {
        let current = self.serving.load_full();
        let (Some(plugin), Some(file)) = (current.plugins.get(name), current.file_of(name)) else {
            return Err(Refusal::unknown(format!("no plugin named {name} serves")));
        };
        let served: BTreeSet<Digest> = self
            .versions()
            .served(name)
            .iter()
            .map(|served| served.digest)
            .collect();
        let to = match to {
            Some(to) if to == plugin.digest => {
                return Err(Refusal::given(format!("{plugin} serves already")));
            }
            Some(to) if !served.contains(&to) => {
                return Err(Refusal::unknown(format!("{to} never served as {name}")));
            }
            Some(to) => to,
            None => self
                .versions()
                .before(name, &plugin.digest)
                .ok_or_else(|| {
                    Refusal::unknown(format!("there is no version of {name} before {plugin}"))
                })?,
        };
        let wasm = self
            .kept
            .plugin(&to)
            .map_err(Refusal::ours)?
            .ok_or_else(|| Refusal::unknown(format!("{to} is not kept any more")))?;
        let older =
            self.loader.sandbox.load(wasm).await.map_err(|error| {
                Refusal::given(format!("{to} cannot be loaded any more: {error}"))
            })?;
        let change = Change::Plugin(file, older.clone());
        let serving = self.fit(&current, change, Some(plugin.digest)).await?;
        let why = Why::RolledBack { name, by, reason };
        self.swap(&current, serving, &BTreeMap::new(), why)
            .await
            .map_err(Refusal::ours)?;
        Ok(Changed {
            message: format!(
                "{older} serves again; {plugin} does not before `sentinel plugin accept {}`",
                plugin.digest
            ),
        })
    }

    async fn accept(&self, digest: Digest, by: &str) -> Result<Changed, Refusal> {
        self.note(vec![ControlBody::PluginAccepted {
            digest,
            by: by.to_owned(),
        }])
        .await
        .map_err(Refusal::ours)?;
        self.loader.forgive(&digest);
        self.reload().await;
        let serving = self.serving.load();
        let serves = serving
            .plugins
            .iter()
            .find(|plugin| plugin.digest == digest);
        Ok(Changed {
            message: match serves {
                Some(plugin) => format!("{plugin} serves"),
                None => format!(
                    "{} may serve; it is not in the folder, or something else is wrong with it (`sentinel plugin list`)",
                    digest.short()
                ),
            },
        })
    }

    async fn give_up(&self, failed: Failed) {
        let current = self.serving.load_full();
        let serves = current.plugins.get(&failed.name);
        if serves.is_none_or(|plugin| plugin.digest != failed.digest) {
            return;
        }
        let rolled = self
            .roll_back(&failed.name, None, &failed.reason, "sentinel")
            .await;
        match rolled {
            Ok(changed) => {
                self.metrics
                    .plugin_rolled_back(&failed.name, &failed.reason, &changed.message);
            }
            Err(refused) => tracing::error!(
                plugin = %failed.name,
                reason = failed.reason,
                problem = refused.message,
                "a new version breaks down, and the one before it cannot serve again: look at it"
            ),
        }
    }

    /// What serves after a change, if it fits; also for those who are pinned, of whom none
    /// may need a version that is `given_up`.
    async fn fit(
        &self,
        current: &Serving,
        change: Change,
        given_up: Option<Digest>,
    ) -> Result<Serving, Refusal> {
        let changes = vec![change];
        let versions = self.versions().clone();
        let mut older = self.loader.older(current, &changes, &versions).await;
        if let Some(digest) = given_up {
            older.refuse(digest, "is the one to be rolled back");
        }
        let (serving, problems) = self.loader.take_over(current, older, changes).await;
        serving.ok_or_else(|| Refusal::problems(&problems))
    }

    /// Tells of plugin files that were found to be bad, for the record.
    pub(super) async fn note_refused(&self, refused: Vec<NewlyRefused>) {
        if refused.is_empty() {
            return;
        }
        let serving = self.serving.load_full();
        let events = refused
            .into_iter()
            .map(|refused| ControlBody::PluginRefused {
                serving: serving
                    .files
                    .plugins
                    .get(&refused.file)
                    .map(|plugin| plugin.digest),
                file: refused.file,
                digest: refused.digest,
                reason: refused.reason,
            })
            .collect();
        if let Err(error) = self.note(events).await {
            self.metrics.journal_failed("a refused plugin", &error);
        }
    }
}

impl Serving {
    /// The file that a plugin came from.
    pub(crate) fn file_of(&self, name: &PluginName) -> Option<String> {
        let files = self.files.plugins.iter();
        files
            .into_iter()
            .find(|(_, plugin)| plugin.name == *name)
            .map(|(file, _)| file.clone())
    }

    /// The policies that are pinned to another version of a plugin.
    fn pinned_elsewhere(&self, plugin: &Plugin) -> Vec<String> {
        let elsewhere =
            |named: &PluginRef| named.name == plugin.name && !named.takes(&plugin.digest);
        let policies = self.policies.policies().iter();
        policies
            .filter(|policy| policy.plugins().any(elsewhere))
            .map(|policy| policy.name.to_string())
            .collect()
    }
}

/// Puts a plugin into the folder: whole or not at all, its signature first.
async fn put(
    folder: &Path,
    file: &str,
    wasm: &[u8],
    signature: Option<&str>,
) -> std::io::Result<()> {
    let path = folder.join(file);
    if let Some(signature) = signature {
        place(folder, &signature::beside(&path), signature.as_bytes()).await?;
    }
    place(folder, &path, wasm).await
}

async fn place(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // Hidden, so that nobody takes it for a plugin before it is one.
    let temporary: PathBuf = folder.join(".installing");
    let mut file = tokio::fs::File::create(&temporary).await?;
    file.write_all(bytes).await?;
    file.sync_all().await?;
    drop(file);
    tokio::fs::rename(&temporary, path).await
}
