//! Reads the folders, checks everything beside what serves, and decides what of it can
//! serve. Nothing here changes what serves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt as _, stream};
use sentinel_core::grant::Import;
use sentinel_core::id::{Digest, PluginName, PluginRef};
use sentinel_core::policy::{Environment, Policy, PolicyError, PolicySet, Step};
use sentinel_core::recording::Recording;
use sentinel_core::version::Versions;
use sentinel_journal::{ReadError, Reader, StoredServing};
use sentinel_sandbox::{LoadError, Plugin, Plugins, Sandbox};

use super::older::{Older, pins};
use super::{Files, Problem, Serving, signature};
use crate::past_run;
use crate::reconfigure::Running;

/// Where plugins and policies are found.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    pub(crate) plugins: PathBuf,
    pub(crate) policies: PathBuf,
    pub(crate) playbooks: PathBuf,
}

/// How many plugins are looked at at the same time. They are compiled one by one; what
/// machine code there is for is not.
const AT_ONCE: usize = 4;

/// Of how many digests is remembered that they cannot serve.
const REMEMBERED: usize = 1024;

/// Turns folders into something that can serve.
#[derive(Clone)]
pub(crate) struct Loader {
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) folders: Folders,
    pub(crate) environment: Environment,
    pub(crate) config: Running,
    /// What a new version has to repeat before it serves, and where the versions are that
    /// policies are pinned to; none where nothing is asked of the past.
    pub(crate) past: Option<Arc<Reader>>,
    /// What is wrong with bytes that were looked at before: they are not looked at again.
    pub(crate) refused: Arc<Mutex<BTreeMap<Digest, String>>>,
    /// The policies that were parsed last, by the texts that they are of.
    pub(crate) parsed: Arc<Mutex<Option<Parsed>>>,
}

/// The texts of policies, and what they say.
pub(crate) type Parsed = (BTreeMap<String, String>, PolicySet);

/// A plugin file that cannot serve, found for the first time.
#[derive(Debug, Clone)]
pub(super) struct NewlyRefused {
    pub(super) file: String,
    pub(super) digest: Digest,
    pub(super) reason: String,
}

/// One thing that differs from what serves.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Plugin(String, Arc<Plugin>),
    PluginGone(String),
    Policy(String, String),
    PolicyGone(String),
}

/// What a file of the plugins folder is.
enum Candidate {
    /// What serves already.
    Same,
    /// A plugin that can serve, as far as it is about itself.
    New(Arc<Plugin>, Vec<u8>),
    /// It cannot, as was known.
    Known(String),
    /// It cannot.
    Refused(Digest, String),
}

/// What a look at the folders came to.
pub(crate) struct Looked {
    /// What can serve now; none when that is what serves already.
    pub(crate) serving: Option<Serving>,
    /// The bytes of the plugins that were not there before.
    pub(crate) fresh: BTreeMap<Digest, Vec<u8>>,
    /// What cannot.
    pub(crate) problems: Vec<Problem>,
    /// Those plugins of which that was not known.
    pub(super) refused: Vec<NewlyRefused>,
}

impl Loader {
    /// Reads the folders and takes over whatever fits together with the rest; what
    /// does not is left as it was, and told.
    pub(crate) async fn look(&self, current: &Serving, versions: &Versions) -> Looked {
        let mut looked = Looked {
            serving: None,
            fresh: BTreeMap::new(),
            problems: Vec::new(),
            refused: Vec::new(),
        };
        let mut changes = self.plugin_changes(current, versions, &mut looked).await;
        self.policy_changes(current, &mut changes, &mut looked.problems);
        if !changes.is_empty() {
            let older = self.older(current, &changes, versions).await;
            looked.serving = self.take_over(current, &older, changes, &mut looked.problems);
        }
        looked
    }

    fn refused(&self) -> MutexGuard<'_, BTreeMap<Digest, String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at a version anew, whatever was found wrong with it.
    pub(super) fn forgive(&self, digest: &Digest) {
        self.refused().remove(digest);
    }

    /// Everything that is asked of a plugin by itself before it may serve, but for its
    /// signature.
    pub(super) async fn admit(
        &self,
        digest: Digest,
        wasm: Vec<u8>,
        current: &Serving,
        accepted: bool,
    ) -> Result<Arc<Plugin>, String> {
        let loaded = self.sandbox.load_as(digest, wasm).await;
        let plugin = loaded.map_err(|error| error.to_string())?;
        let before = current.plugins.get(&plugin.name);
        if let Some(before) = before.filter(|before| before.version > plugin.version) {
            // A signature says who made a version, and not that there is none after it.
            tracing::warn!(
                plugin = %plugin.name, older = %plugin.version, newer = %before.version,
                "an older version of a plugin takes the place of a newer one: if nobody meant that, `sentinel plugin rollback` brings the newer one back"
            );
        }
        let new_version = before.is_some_and(|before| before.digest != plugin.digest);
        if new_version && !accepted {
            self.rehearse(&plugin).await?;
        }
        Ok(plugin)
    }

    /// Plays the last recorded runs of the plugin to its new version, if that is asked for.
    async fn rehearse(&self, plugin: &Arc<Plugin>) -> Result<(), String> {
        let Some(past) = &self.past else {
            return Ok(());
        };
        let config = self.config.load_full();
        let replay = config.plugins.replay;
        if replay == 0 {
            return Ok(());
        }
        let unreadable = |error: ReadError| format!("its recorded runs cannot be read: {error}");
        let runs = past
            .last_runs(Some(&plugin.name), replay)
            .map_err(unreadable)?;
        let limits = config.limits.of(&plugin.name).run();
        let mut differences = Vec::new();
        let mut played = 0;
        for run in runs {
            let events = past.events(run.incident).map_err(unreadable)?;
            let Ok(recording) = Recording::of(&events, run) else {
                continue;
            };
            // One whose record lacks something says nothing about the version.
            let Ok((input, limits)) = past_run::input(&events, &recording, plugin, limits) else {
                continue;
            };
            played += 1;
            let report = self
                .sandbox
                .replay(plugin.clone(), input, recording, limits)
                .await;
            differences.extend(report.divergence.map(|how| format!("run {run}: {how}")));
        }
        tracing::info!(%plugin, played, different = differences.len(), "a new version was played the last runs");
        match differences.first() {
            None => Ok(()),
            Some(first) => Err(format!(
                "{plugin} does something else than was recorded in {} of the last {played} runs, first in {first}; see `sentinel replay --last {} --plugin FILE`, and let it serve with `sentinel plugin accept {}`",
                differences.len(),
                replay,
                plugin.digest
            )),
        }
    }

    /// As many of the changes as fit together with what serves.
    pub(super) fn take_over(
        &self,
        current: &Serving,
        older: &Older,
        mut changes: Vec<Change>,
        problems: &mut Vec<Problem>,
    ) -> Option<Serving> {
        // All at once, as they were most likely meant; without those that are found at fault
        // as long as there are any.
        let mut files = current.files.clone();
        let mut serving = None;
        let mut held = Vec::new();
        while !changes.is_empty() {
            let mut attempt = current.files.clone();
            for change in &changes {
                apply(&mut attempt, change.clone());
            }
            match self.assemble_new(&attempt, older, &current.files) {
                Ok(assembled) => {
                    files = attempt;
                    serving = Some(assembled);
                    changes.clear();
                }
                Err(refused) => {
                    let at_fault = |change: &Change| self.is_blamed(change, &refused);
                    let (blamed, rest): (Vec<_>, Vec<_>) = changes.into_iter().partition(at_fault);
                    if blamed.is_empty() {
                        held.extend(rest);
                        break;
                    }
                    held.extend(blamed);
                    changes = rest;
                }
            }
        }
        // One by one, as long as one more fits: what is wrong with one file must not
        // hold the others up.
        while !held.is_empty() {
            let before = held.len();
            let mut refused = Vec::new();
            held.retain(|change| {
                let mut attempt = files.clone();
                apply(&mut attempt, change.clone());
                match self.assemble_new(&attempt, older, &current.files) {
                    Ok(assembled) => {
                        files = attempt;
                        serving = Some(assembled);
                        false
                    }
                    Err(why) => {
                        refused.extend(why);
                        true
                    }
                }
            });
            if held.len() == before {
                problems.extend(refused);
                break;
            }
        }
        serving
    }

    /// Whether a problem is one of the file that changed.
    fn is_blamed(&self, change: &Change, problems: &[Problem]) -> bool {
        let path = match change {
            Change::Plugin(file, _) => self.folders.plugins.join(file),
            Change::Policy(file, _) => self.folders.policies.join(file),
            Change::PluginGone(_) | Change::PolicyGone(_) => return false,
        };
        let path = path.display().to_string();
        problems.iter().any(|problem| problem.file == path)
    }

    /// The set that served last, from the journal, whatever the folders hold now.
    pub(crate) async fn restore(
        &self,
        reader: &Reader,
        stored: &StoredServing,
        versions: &Versions,
    ) -> Result<Serving, Vec<Problem>> {
        let mut files = Files {
            policies: stored.policies.clone(),
            ..Files::default()
        };
        let mut problems = Vec::new();
        for (file, digest) in &stored.plugins {
            let problem = |message: String| plugin_problem(Path::new(file), message);
            match reader.plugin(digest) {
                Ok(Some(wasm)) => match self.sandbox.load(wasm).await {
                    Ok(plugin) => {
                        files.plugins.insert(file.clone(), plugin);
                    }
                    Err(error) => problems.push(problem(error.to_string())),
                },
                Ok(None) => problems.push(problem(format!("{digest} is not in the journal"))),
                Err(error) => problems.push(problem(error.to_string())),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let pinned = self.pinned(&files.policies);
        let older = Older::default();
        let older = older.find(&self.sandbox, Some(reader), &files, versions, pinned);
        self.assemble(&files, &older.await)
    }

    /// The versions beside those of the files that policies are or were pinned to. What may
    /// be pinned by an incident that is open is kept: its policy may be another by now.
    pub(super) async fn older(
        &self,
        current: &Serving,
        changes: &[Change],
        versions: &Versions,
    ) -> Older {
        let mut pinned = pins(&current.policies);
        let texts = changes.iter().filter_map(|change| match change {
            Change::Policy(file, text) => Some((file.clone(), text.clone())),
            _ => None,
        });
        pinned.extend(self.pinned(&texts.collect()));
        let reader = self.past.as_deref();
        Older::known(current.plugins.older(), versions)
            .find(&self.sandbox, reader, &current.files, versions, pinned)
            .await
    }

    /// What the policies of these texts are pinned to, as far as they can be read.
    fn pinned(&self, texts: &BTreeMap<String, String>) -> BTreeSet<PluginRef> {
        if let Ok(set) = self.parse(texts) {
            return pins(&set);
        }
        let alone = |(file, text): (&String, &String)| {
            let text = BTreeMap::from([(file.clone(), text.clone())]);
            parse(&self.folders.policies, &text, &self.environment).ok()
        };
        texts
            .iter()
            .filter_map(alone)
            .flat_map(|set| pins(&set))
            .collect()
    }

    async fn plugin_changes(
        &self,
        current: &Serving,
        versions: &Versions,
        looked: &mut Looked,
    ) -> Vec<Change> {
        let serving = &current.files.plugins;
        let paths = match files_in(&self.folders.plugins, &["wasm"]) {
            Ok(paths) => paths,
            Err(error) => {
                looked
                    .problems
                    .push(plugin_problem(&self.folders.plugins, error));
                return Vec::new();
            }
        };
        let present: BTreeSet<String> = paths.keys().cloned().collect();
        let candidates = paths.into_iter().map(|(file, path)| async move {
            let found = self.candidate(&file, &path, current, versions).await;
            (file, path, found)
        });
        let candidates: Vec<_> = stream::iter(candidates).buffered(AT_ONCE).collect().await;
        let mut changes = Vec::new();
        for (file, path, found) in candidates {
            match found {
                Candidate::Same => {}
                Candidate::New(plugin, wasm) => {
                    looked.fresh.insert(plugin.digest, wasm);
                    changes.push(Change::Plugin(file, plugin));
                }
                Candidate::Known(reason) => {
                    looked.problems.push(plugin_problem(&path, reason));
                }
                Candidate::Refused(digest, reason) => {
                    {
                        let mut refused = self.refused();
                        if refused.len() >= REMEMBERED {
                            refused.clear();
                        }
                        refused.insert(digest, reason.clone());
                    }
                    looked.problems.push(plugin_problem(&path, reason.clone()));
                    looked.refused.push(NewlyRefused {
                        file,
                        digest,
                        reason,
                    });
                }
            }
        }
        changes.extend(
            serving
                .keys()
                .filter(|file| !present.contains(*file))
                .cloned()
                .map(Change::PluginGone),
        );
        changes
    }

    /// What a file of the plugins folder is.
    async fn candidate(
        &self,
        file: &str,
        path: &Path,
        current: &Serving,
        versions: &Versions,
    ) -> Candidate {
        let wasm = match read(path, self.sandbox.config().max_plugin_size).await {
            Ok(wasm) => wasm,
            Err(error) => return Candidate::Known(error),
        };
        let digest = Digest::of(&wasm);
        let before = current.files.plugins.get(file);
        if before.is_some_and(|plugin| plugin.digest == digest) {
            return Candidate::Same;
        }
        if let Some(reason) = versions.rolled_back(&digest) {
            return Candidate::Known(format!(
                "{} was rolled back: {reason}; put another version there, or let it serve again with `sentinel plugin accept {digest}`",
                digest.short()
            ));
        }
        // A signature can come after its plugin, so that is asked anew each time.
        let signature = tokio::fs::read_to_string(signature::beside(path))
            .await
            .ok();
        if let Err(problem) = signature::check(
            &self.config.load().plugins,
            file,
            &wasm,
            signature.as_deref(),
        ) {
            return Candidate::Known(problem);
        }
        if let Some(reason) = self.refused().get(&digest) {
            return Candidate::Known(reason.clone());
        }
        let accepted = versions.accepted(&digest);
        match self.admit(digest, wasm.clone(), current, accepted).await {
            Ok(plugin) => Candidate::New(plugin, wasm),
            Err(reason) => Candidate::Refused(digest, reason),
        }
    }

    /// One change for each file, so that what is wrong with one is wrong with no other.
    fn policy_changes(
        &self,
        current: &Serving,
        changes: &mut Vec<Change>,
        problems: &mut Vec<Problem>,
    ) {
        let serving = &current.files.policies;
        let folder = match PolicyFolder::read(&self.folders.policies) {
            Ok(folder) => folder,
            Err(problem) => return problems.push(*problem),
        };
        problems.extend(folder.unreadable.into_values());
        let mut found = Vec::new();
        for (file, text) in &folder.texts {
            if serving.get(file) == Some(text) {
                continue;
            }
            let alone = BTreeMap::from([(file.clone(), text.clone())]);
            match parse(&self.folders.policies, &alone, &self.environment) {
                Ok(_) => found.push(Change::Policy(file.clone(), text.clone())),
                Err(refused) => problems.extend(refused),
            }
        }
        let gone = serving.keys().filter(|file| !folder.names.contains(*file));
        found.extend(gone.cloned().map(Change::PolicyGone));
        // Before plugins go: a policy that gives a plugin up comes first.
        let at = changes
            .iter()
            .position(|change| matches!(change, Change::PluginGone(_)))
            .unwrap_or(changes.len());
        changes.splice(at..at, found);
    }

    /// The policies of these texts. One look asks for the same ones several times.
    fn parse(&self, texts: &BTreeMap<String, String>) -> Result<PolicySet, Vec<Problem>> {
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, set)) = &*parsed
            && of == texts
        {
            return Ok(set.clone());
        }
        let set = parse(&self.folders.policies, texts, &self.environment)?;
        *parsed = Some((texts.clone(), set.clone()));
        Ok(set)
    }

    /// Puts files together, if they fit, and if what they name is there. A policy that serves
    /// goes on serving when a playbook of it is gone, so `before` is not asked that.
    fn assemble_new(
        &self,
        files: &Files,
        older: &Older,
        before: &Files,
    ) -> Result<Serving, Vec<Problem>> {
        let serving = self.assemble(files, older)?;
        let changed: BTreeSet<String> = files
            .policies
            .iter()
            .filter(|(file, text)| before.policies.get(*file) != Some(text))
            .map(|(file, _)| self.folders.policies.join(file).display().to_string())
            .collect();
        let problems: Vec<Problem> = serving
            .policies
            .policies()
            .iter()
            .filter(|policy| changed.contains(&policy.location.file))
            .flat_map(|policy| self.playbook_problems(policy, &serving.plugins))
            .collect();
        if problems.is_empty() {
            Ok(serving)
        } else {
            Err(problems)
        }
    }

    /// What is wrong with the playbooks that a policy names outright: found now, and not
    /// by the first incident.
    fn playbook_problems(&self, policy: &Policy, plugins: &Plugins) -> Vec<Problem> {
        let runs_playbooks = |step: &&Step| {
            plugins
                .find(&step.plugin)
                .is_some_and(|plugin| plugin.imports.contains(&Import::Ansible))
        };
        policy
            .steps
            .iter()
            .filter(runs_playbooks)
            .filter_map(|step| step.params.get("playbook")?.as_str())
            .filter(|name| !name.contains("{{") && !name.contains("{%"))
            .filter_map(|name| {
                let (message, help) = if let Err(denied) = policy.grants.allows_ansible(name) {
                    (denied.to_string(), None)
                } else if self.folders.playbooks.join(name).is_file() {
                    return None;
                } else {
                    let folder = self.folders.playbooks.display();
                    (
                        format!("there is no playbook `{name}`"),
                        Some(format!("playbooks are taken from {folder}")),
                    )
                };
                let at = &policy.location;
                let message = format!("policy {}: {message}", policy.name);
                let rendered = format!("{at}: {message}");
                Some(Problem {
                    what: "policy",
                    file: at.file.clone(),
                    line: Some(at.line),
                    column: Some(at.column),
                    message,
                    help,
                    rendered,
                })
            })
            .collect()
    }

    /// Puts files together, if they fit.
    fn assemble(&self, files: &Files, older: &Older) -> Result<Serving, Vec<Problem>> {
        let policies = self.parse(&files.policies)?;
        let mut plugins = Plugins::default();
        let mut owners: BTreeMap<PluginName, String> = BTreeMap::new();
        let mut problems = Vec::new();
        for (file, plugin) in &files.plugins {
            let name = plugin.name.clone();
            if let Some(other) = owners.get(&name) {
                problems.push(plugin_problem(
                    &self.folders.plugins.join(file),
                    format!("it is named {name}, and so is {other}: remove one of them"),
                ));
                continue;
            }
            owners.insert(name, file.clone());
            plugins.insert(plugin.clone());
        }
        older.add_to(&mut plugins);
        problems.extend(policies.check_plugins(&plugins).iter().map(policy_problem));
        if problems.is_empty() {
            Ok(Serving {
                plugins,
                policies,
                files: files.clone(),
            })
        } else {
            Err(problems)
        }
    }
}

/// The policies of a folder, or of one file, held against nothing but themselves: what
/// their plugins are does not matter.
///
/// Of a file of a folder that cannot be used, the text counts that `served` of it before, as
/// it does in a daemon; what is wrong with it is told beside the policies. One file is used or
/// not.
pub(crate) fn policies_in(
    path: &Path,
    environment: &Environment,
    served: &BTreeMap<String, String>,
) -> Result<(PolicySet, Vec<Problem>), Vec<Problem>> {
    if !path.is_dir() {
        let text = read_text(path).map_err(|problem| vec![*problem])?;
        let set = PolicySet::parse(&[(path.display().to_string(), text)], environment);
        return set
            .map(|set| (set, Vec::new()))
            .map_err(|errors| errors.iter().map(policy_problem).collect());
    }
    let folder = PolicyFolder::read(path).map_err(|problem| vec![*problem])?;
    let mut problems: Vec<Problem> = folder.unreadable.into_values().collect();
    if problems.is_empty()
        && let Ok(set) = parse(path, &folder.texts, environment)
    {
        return Ok((set, problems));
    }
    let mut used = BTreeMap::new();
    // Files that served fit together; each other one is used if it fits too.
    let mut candidates = Vec::new();
    for file in &folder.names {
        match (folder.texts.get(file), served.get(file)) {
            (Some(text), Some(before)) if text == before => {
                used.insert(file.clone(), text.clone());
            }
            (Some(text), before) => candidates.push((file, text, before)),
            (None, Some(before)) => {
                used.insert(file.clone(), before.clone());
            }
            (None, None) => {}
        }
    }
    for (file, text, before) in candidates {
        used.insert(file.clone(), text.clone());
        let Err(wrong) = parse(path, &used, environment) else {
            continue;
        };
        problems.extend(wrong);
        match before {
            Some(before) => used.insert(file.clone(), before.clone()),
            None => used.remove(file),
        };
    }
    match parse(path, &used, environment) {
        Ok(set) => Ok((set, problems)),
        Err(wrong) => Err(wrong),
    }
}

fn parse(
    folder: &Path,
    texts: &BTreeMap<String, String>,
    environment: &Environment,
) -> Result<PolicySet, Vec<Problem>> {
    let files: Vec<(String, &String)> = texts
        .iter()
        .map(|(file, text)| (folder.join(file).display().to_string(), text))
        .collect();
    PolicySet::parse(&files, environment)
        .map_err(|errors| errors.iter().map(policy_problem).collect())
}

fn apply(files: &mut Files, change: Change) {
    match change {
        Change::Plugin(file, plugin) => {
            files.plugins.insert(file, plugin);
        }
        Change::PluginGone(file) => {
            files.plugins.remove(&file);
        }
        Change::Policy(file, text) => {
            files.policies.insert(file, text);
        }
        Change::PolicyGone(file) => {
            files.policies.remove(&file);
        }
    }
}

/// The visible files of a folder that have one of these endings, by name.
fn files_in(folder: &Path, endings: &[&str]) -> Result<BTreeMap<String, PathBuf>, String> {
    let entries =
        std::fs::read_dir(folder).map_err(|error| format!("cannot be listed: {error}"))?;
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry
            .map_err(|error| format!("cannot be listed: {error}"))?
            .path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let ending = path.extension().and_then(|ending| ending.to_str());
        let wanted = ending.is_some_and(|ending| endings.contains(&ending));
        // Editors and `cp` write hidden files first and rename them.
        if wanted && !name.starts_with('.') && !path.is_dir() {
            files.insert(name.to_owned(), path);
        }
    }
    Ok(files)
}

async fn read(path: &Path, limit: usize) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let size = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
    if size > limit as u64 {
        let error = LoadError::TooLarge {
            size: usize::try_from(size).unwrap_or(usize::MAX),
            limit,
        };
        return Err(error.to_string());
    }
    tokio::fs::read(path).await.map_err(unreadable)
}

/// What the policies folder holds.
struct PolicyFolder {
    /// All its files.
    names: BTreeSet<String>,
    /// What they say.
    texts: BTreeMap<String, String>,
    /// What is wrong with those that cannot be read.
    unreadable: BTreeMap<String, Problem>,
}

/// The largest policy file, in bytes: far more than people write.
const POLICY_FILE: u64 = 4 << 20;

impl PolicyFolder {
    fn read(folder: &Path) -> Result<Self, Box<Problem>> {
        let files = files_in(folder, &["yaml", "yml"])
            .map_err(|error| Box::new(problem("policy", folder, error)))?;
        let mut read = Self {
            names: files.keys().cloned().collect(),
            texts: BTreeMap::new(),
            unreadable: BTreeMap::new(),
        };
        for (name, path) in files {
            match read_text(&path) {
                Ok(text) => {
                    read.texts.insert(name, text);
                }
                Err(problem) => {
                    read.unreadable.insert(name, *problem);
                }
            }
        }
        Ok(read)
    }
}

/// What a policy file says.
fn read_text(path: &Path) -> Result<String, Box<Problem>> {
    let unreadable = |error: std::io::Error| {
        Box::new(problem("policy", path, format!("cannot be read: {error}")))
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    // A pipe would be waited for.
    if !metadata.is_file() {
        return Err(Box::new(problem("policy", path, "is no file".to_owned())));
    }
    if metadata.len() > POLICY_FILE {
        return Err(Box::new(problem(
            "policy",
            path,
            format!("is larger than {} MiB", POLICY_FILE >> 20),
        )));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn problem(what: &'static str, path: &Path, message: String) -> Problem {
    let file = path.display().to_string();
    let rendered = format!("{file}: {message}");
    Problem {
        what,
        file,
        line: None,
        column: None,
        message,
        help: None,
        rendered,
    }
}

fn plugin_problem(path: &Path, message: String) -> Problem {
    problem("plugin", path, message)
}

fn policy_problem(error: &PolicyError) -> Problem {
    Problem {
        what: "policy",
        file: error.file().to_owned(),
        line: Some(error.line()),
        column: Some(error.column()),
        message: error.message().to_owned(),
        help: error.help().map(ToOwned::to_owned),
        rendered: error.report(false),
    }
}
