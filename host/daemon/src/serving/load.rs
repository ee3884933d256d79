//! Reads the folders, checks everything beside what serves, and decides what of it can
//! serve. Nothing here changes what serves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sentinel_core::grant::Import;
use sentinel_core::id::{Digest, PluginName};
use sentinel_core::policy::{Environment, Policy, PolicyError, PolicySet, Step};
use sentinel_journal::{Reader, StoredServing};
use sentinel_sandbox::{Plugin, Plugins, Sandbox};

use super::{Files, Problem, Serving};

/// Where plugins and policies are found.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    pub(crate) plugins: PathBuf,
    pub(crate) policies: PathBuf,
    pub(crate) playbooks: PathBuf,
}

/// Turns folders into something that can serve.
#[derive(Clone)]
pub(crate) struct Loader {
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) folders: Folders,
    pub(crate) environment: Environment,
}

/// One thing that differs from what serves.
#[derive(Debug, Clone)]
enum Change {
    Plugin(String, Arc<Plugin>),
    PluginGone(String),
    Policies(BTreeMap<String, String>),
}

/// What a look at the folders came to.
pub(crate) struct Looked {
    /// What can serve now; none when that is what serves already.
    pub(crate) serving: Option<Serving>,
    /// The bytes of the plugins that were not there before.
    pub(crate) fresh: BTreeMap<Digest, Vec<u8>>,
    /// What cannot.
    pub(crate) problems: Vec<Problem>,
}

impl Loader {
    /// Reads the folders and takes over whatever fits together with the rest; what
    /// does not is left as it was, and told.
    pub(crate) async fn look(&self, current: &Serving) -> Looked {
        let mut problems = Vec::new();
        let mut fresh = BTreeMap::new();
        let mut changes = self
            .plugin_changes(current, &mut fresh, &mut problems)
            .await;
        self.policy_changes(current, &mut changes, &mut problems);
        let serving = self.take_over(current, changes, &mut problems);
        Looked {
            serving,
            fresh,
            problems,
        }
    }

    /// As many of the changes as fit together with what serves.
    fn take_over(
        &self,
        current: &Serving,
        mut changes: Vec<Change>,
        problems: &mut Vec<Problem>,
    ) -> Option<Serving> {
        if changes.is_empty() {
            return None;
        }
        // All at once, as they were most likely meant.
        let mut files = current.files.clone();
        for change in &changes {
            apply(&mut files, change.clone());
        }
        let refused = match self.assemble_new(&files) {
            Ok(serving) => return Some(serving),
            Err(refused) => refused,
        };
        // One by one, as long as one more fits: what is wrong with one file must not
        // hold the others up.
        let mut files = current.files.clone();
        let mut serving = None;
        loop {
            let before = changes.len();
            changes.retain(|change| {
                let mut attempt = files.clone();
                apply(&mut attempt, change.clone());
                match self.assemble_new(&attempt) {
                    Ok(assembled) => {
                        files = attempt;
                        serving = Some(assembled);
                        false
                    }
                    Err(_) => true,
                }
            });
            if changes.is_empty() || changes.len() == before {
                break;
            }
        }
        if !changes.is_empty() {
            problems.extend(refused);
        }
        serving
    }

    /// The set that served last, from the journal, whatever the folders hold now.
    pub(crate) async fn restore(
        &self,
        reader: &Reader,
        stored: &StoredServing,
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
        if problems.is_empty() {
            self.assemble(&files)
        } else {
            Err(problems)
        }
    }

    async fn plugin_changes(
        &self,
        current: &Serving,
        fresh: &mut BTreeMap<Digest, Vec<u8>>,
        problems: &mut Vec<Problem>,
    ) -> Vec<Change> {
        let serving = &current.files.plugins;
        let paths = match files_in(&self.folders.plugins, &["wasm"]) {
            Ok(paths) => paths,
            Err(error) => {
                problems.push(plugin_problem(&self.folders.plugins, error));
                return Vec::new();
            }
        };
        let mut changes = Vec::new();
        let mut present = BTreeSet::new();
        for (file, path) in paths {
            present.insert(file.clone());
            let wasm = match read(&path).await {
                Ok(wasm) => wasm,
                Err(error) => {
                    problems.push(plugin_problem(&path, error));
                    continue;
                }
            };
            let digest = Digest::of(&wasm);
            if serving
                .get(&file)
                .is_some_and(|plugin| plugin.digest == digest)
            {
                continue;
            }
            match self.sandbox.load(wasm.clone()).await {
                Ok(plugin) => {
                    fresh.insert(digest, wasm);
                    changes.push(Change::Plugin(file, plugin));
                }
                Err(error) => problems.push(plugin_problem(&path, error.to_string())),
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

    fn policy_changes(
        &self,
        current: &Serving,
        changes: &mut Vec<Change>,
        problems: &mut Vec<Problem>,
    ) {
        match policy_texts(&self.folders.policies) {
            Ok(texts) if texts == current.files.policies => {}
            Ok(texts) => match self.parse(&texts) {
                Ok(_) => {
                    // Before plugins go: a policy that gives a plugin up comes first.
                    let gone = changes
                        .iter()
                        .position(|change| matches!(change, Change::PluginGone(_)))
                        .unwrap_or(changes.len());
                    changes.insert(gone, Change::Policies(texts));
                }
                Err(refused) => problems.extend(refused),
            },
            Err(problem) => problems.push(*problem),
        }
    }

    fn parse(&self, texts: &BTreeMap<String, String>) -> Result<PolicySet, Vec<Problem>> {
        parse(&self.folders.policies, texts, &self.environment)
    }

    /// Puts files together, if they fit, and if what they name is there. A set that served
    /// once goes on serving when a playbook of it is gone, so it is not asked that.
    fn assemble_new(&self, files: &Files) -> Result<Serving, Vec<Problem>> {
        let serving = self.assemble(files)?;
        let problems: Vec<Problem> = serving
            .policies
            .policies()
            .iter()
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
                .get(&step.plugin)
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
    fn assemble(&self, files: &Files) -> Result<Serving, Vec<Problem>> {
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
pub(crate) fn policies_in(
    path: &Path,
    environment: &Environment,
) -> Result<PolicySet, Vec<Problem>> {
    if path.is_dir() {
        let texts = policy_texts(path).map_err(|problem| vec![*problem])?;
        return parse(path, &texts, environment);
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| vec![problem("policy", path, format!("cannot be read: {error}"))])?;
    PolicySet::parse(&[(path.display().to_string(), text)], environment)
        .map_err(|errors| errors.iter().map(policy_problem).collect())
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
        Change::Policies(texts) => files.policies = texts,
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

async fn read(path: &Path) -> Result<Vec<u8>, String> {
    tokio::fs::read(path)
        .await
        .map_err(|error| format!("cannot be read: {error}"))
}

fn policy_texts(folder: &Path) -> Result<BTreeMap<String, String>, Box<Problem>> {
    let files = files_in(folder, &["yaml", "yml"])
        .map_err(|error| Box::new(problem("policy", folder, error)))?;
    files
        .into_iter()
        .map(|(name, path)| {
            std::fs::read_to_string(&path)
                .map(|text| (name, text))
                .map_err(|error| {
                    Box::new(problem("policy", &path, format!("cannot be read: {error}")))
                })
        })
        .collect()
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
