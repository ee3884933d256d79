//! Reads the folders, checks everything beside what serves, and decides what of it can
//! serve. Nothing here changes what serves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt as _, stream};
use sentinel_core::grant::Import;
use sentinel_core::id::{Digest, PluginName, PluginRef};
use sentinel_core::policy::{Policy, Step};
use sentinel_core::recording::Recording;
use sentinel_core::version::Versions;
use sentinel_journal::{ReadError, Reader, StoredServing};
use sentinel_sandbox::{LoadError, Plugin, Plugins, Sandbox};

use super::older::{Older, pins};
use super::policies::{PolicyFolder, PolicyReader, Texts, policy_problem};
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
    pub(crate) policies: Arc<PolicyReader>,
    pub(crate) config: Running,
    /// What a new version has to repeat before it serves, and where the versions are that
    /// policies are pinned to; none where nothing is asked of the past.
    pub(crate) past: Option<Arc<Reader>>,
    /// What is wrong with bytes that were looked at before: they are not looked at again.
    pub(crate) refused: Arc<Mutex<BTreeMap<Digest, String>>>,
}

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
        let serving = current.files.policies.clone();
        let (found, problems) = self.aside(move |it| it.policy_changes(&serving)).await;
        looked.problems.extend(problems);
        // Before plugins go: a policy that gives a plugin up comes first.
        let at = changes
            .iter()
            .position(|change| matches!(change, Change::PluginGone(_)))
            .unwrap_or(changes.len());
        changes.splice(at..at, found);
        if !changes.is_empty() {
            let older = self.older(current, &changes, versions).await;
            let (serving, problems) = self.take_over(current, older, changes).await;
            looked.serving = serving;
            looked.problems.extend(problems);
        }
        looked
    }

    /// Does what may take a while, with what others wrote, where nothing else waits for it:
    /// the tasks that answer requests go on.
    async fn aside<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> T {
        let it = self.clone();
        match tokio::task::spawn_blocking(move || work(&it)).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and so does whoever waits here.
                Err(_) => std::future::pending().await,
            },
        }
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
            let (past, version) = (past.clone(), plugin.clone());
            let prepared = self.aside(move |_| {
                let events = past.events(run.incident).map_err(unreadable)?;
                let Ok(recording) = Recording::of(&events, run) else {
                    return Ok::<_, String>(None);
                };
                let input = past_run::input(&events, &recording, &version, limits);
                // One whose record lacks something says nothing about the version.
                Ok(input.ok().map(|(input, limits)| (recording, input, limits)))
            });
            let Some((recording, input, limits)) = prepared.await? else {
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

    /// As many of the changes as fit together with what serves; and what is wrong with the
    /// others.
    pub(super) async fn take_over(
        &self,
        current: &Serving,
        older: Older,
        changes: Vec<Change>,
    ) -> (Option<Serving>, Vec<Problem>) {
        let before = current.files.clone();
        self.aside(move |it| it.fitting(&before, &older, changes))
            .await
    }

    fn fitting(
        &self,
        current: &Files,
        older: &Older,
        mut changes: Vec<Change>,
    ) -> (Option<Serving>, Vec<Problem>) {
        let mut problems = Vec::new();
        // All at once, as they were most likely meant; without those that are found at fault
        // as long as there are any.
        let mut files = current.clone();
        let mut serving = None;
        let mut held = Vec::new();
        while !changes.is_empty() {
            let mut attempt = current.clone();
            for change in &changes {
                apply(&mut attempt, change.clone());
            }
            match self.assemble_new(&attempt, older, current) {
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
                match self.assemble_new(&attempt, older, current) {
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
        (serving, problems)
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
        let pinned = self.pinned(files.policies.clone()).await;
        let older = Older::default();
        let older = older.find(&self.sandbox, Some(reader), &files, versions, pinned);
        let older = older.await;
        self.aside(move |it| it.assemble(&files, &older)).await
    }

    /// The versions beside those of the files that policies are or were pinned to. What may
    /// be pinned by an incident that is open is kept: its policy may be another by now.
    pub(super) async fn older(
        &self,
        current: &Serving,
        changes: &[Change],
        versions: &Versions,
    ) -> Older {
        let mut texts = current.files.policies.clone();
        for change in changes {
            match change {
                Change::Policy(file, text) => {
                    texts.insert(file.clone(), text.clone());
                }
                Change::PolicyGone(file) => {
                    texts.remove(file);
                }
                Change::Plugin(..) | Change::PluginGone(_) => {}
            }
        }
        let mut pinned = pins(&current.policies);
        pinned.extend(self.pinned(texts).await);
        let reader = self.past.as_deref();
        Older::known(current.plugins.older(), versions)
            .find(&self.sandbox, reader, &current.files, versions, pinned)
            .await
    }

    /// What the policies of these texts are pinned to, as far as they can be read.
    async fn pinned(&self, texts: Texts) -> BTreeSet<PluginRef> {
        self.aside(move |it| match it.policies.together(&texts) {
            Ok(set) => pins(&set),
            Err(_) => it.policies.each(&texts).0.values().flat_map(pins).collect(),
        })
        .await
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

    /// One change for each file, so that what is wrong with one is wrong with no other; and
    /// what is wrong with those that are none.
    fn policy_changes(&self, serving: &Texts) -> (Vec<Change>, Vec<Problem>) {
        let folder = match PolicyFolder::read(&self.folders.policies) {
            Ok(folder) => folder,
            Err(problem) => return (Vec::new(), vec![*problem]),
        };
        let mut problems: Vec<Problem> = folder.unreadable.into_values().collect();
        let mut changed = folder.texts;
        changed.retain(|file, text| serving.get(file) != Some(text));
        if !changed.is_empty() {
            let mut all = serving.clone();
            all.retain(|file, _| folder.names.contains(file));
            all.extend(changed.clone());
            if self.policies.together(&all).is_err() {
                let (good, wrong) = self.policies.each(&changed);
                problems.extend(wrong);
                changed.retain(|file, _| good.contains_key(file));
            }
        }
        let gone = serving.keys().filter(|file| !folder.names.contains(*file));
        let gone = gone.cloned().map(Change::PolicyGone);
        let changed = changed.into_iter();
        let changed = changed.map(|(file, text)| Change::Policy(file, text));
        (changed.chain(gone).collect(), problems)
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
        let policies = self.policies.together(&files.policies)?;
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
pub(super) fn files_in(
    folder: &Path,
    endings: &[&str],
) -> Result<BTreeMap<String, PathBuf>, String> {
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

pub(super) fn problem(what: &'static str, path: &Path, message: String) -> Problem {
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

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;
    use sentinel_sandbox::SandboxConfig;

    use super::*;
    use crate::app;
    use crate::config::Config;

    fn policy(name: &str) -> String {
        format!(
            "policies:
  - name: {name}
    match: ['alertname={name}']
    target: 'docker://local/{{{{ labels.container }}}}'
    steps: [{{ plugin: docker-restart }}]
    verify: {{ docker: running, within: 10s }}
    grants: {{ docker: {{ containers: ['*'], actions: [restart] }} }}
"
        )
    }

    /// A loader of these policy files.
    fn loader(files: &[(&str, &str)]) -> (tempfile::TempDir, Loader) {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for made in ["plugins", "policies", "playbooks"] {
            std::fs::create_dir(at(made)).unwrap();
        }
        for (file, text) in files {
            std::fs::write(at("policies").join(file), text).unwrap();
        }
        let text = "docker: { hosts: { local: 'unix:///var/run/docker.sock' } }\n";
        std::fs::write(at("sentinel.yaml"), text).unwrap();
        let config = Config::read(&at("sentinel.yaml"), &|_| None).unwrap();
        let sandbox = Sandbox::new(SandboxConfig::default()).unwrap();
        let running = Arc::new(ArcSwap::from_pointee(config));
        (folder, app::loader(&running, Arc::new(sandbox)))
    }

    fn names(changes: &[Change]) -> Vec<&str> {
        changes
            .iter()
            .filter_map(|change| match change {
                Change::Policy(file, _) => Some(file.as_str()),
                _ => None,
            })
            .collect()
    }

    #[tokio::test]
    async fn a_start_reads_each_policy_once() {
        let files: Vec<_> = (0..50)
            .map(|number| (format!("{number}.yaml"), policy(&format!("p{number}"))))
            .collect();
        let files: Vec<_> = files
            .iter()
            .map(|(file, text)| (&**file, &**text))
            .collect();
        let (_folder, loader) = loader(&files);
        let (changes, problems) = loader.policy_changes(&Texts::new());
        assert_eq!((changes.len(), problems.len()), (50, 0));
        let (nothing, versions) = (Serving::default(), Versions::default());
        loader.older(&nothing, &changes, &versions).await;
        let mut read = Files::default();
        for change in changes {
            apply(&mut read, change);
        }
        assert_eq!(
            loader
                .policies
                .together(&read.policies)
                .unwrap()
                .policies()
                .len(),
            50
        );
        assert_eq!(loader.policies.times_read(), 50);
    }

    #[tokio::test]
    async fn a_bad_file_refuses_itself_and_not_its_neighbours() {
        let (one, two) = (policy("one"), policy("two"));
        let (_folder, loader) = loader(&[
            ("bad.yaml", "policies: [{ name: }]\n"),
            ("one.yaml", &one),
            ("two.yaml", &two),
        ]);
        let served = Texts::from([
            ("bad.yaml".to_owned(), policy("was-good")),
            ("gone.yaml".to_owned(), policy("gone")),
            ("two.yaml".to_owned(), two),
        ]);
        let (changes, problems) = loader.policy_changes(&served);
        assert_eq!(names(&changes), ["one.yaml"]);
        assert!(matches!(changes.last(), Some(Change::PolicyGone(file)) if file == "gone.yaml"));
        assert!(!problems.is_empty());
        assert!(
            problems
                .iter()
                .all(|problem| problem.file.ends_with("bad.yaml"))
        );
        // Texts that fit each by itself are a matter of what they are put together with.
        let (_folder, loader) = self::loader(&[("a.yaml", &one), ("b.yaml", &one)]);
        let (changes, problems) = loader.policy_changes(&Texts::new());
        assert_eq!((names(&changes).len(), problems.len()), (2, 0));
    }
}
