//! Reads policies: from the folder, and from what is kept of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sentinel_core::policy::{Environment, PolicyError, PolicySet};

use super::Problem;
use super::load::{files_in, problem};

/// The texts of policy files, by their names.
pub(super) type Texts = BTreeMap<String, String>;

/// Reads the texts of a folder's policies, and knows the set that it read last: one look
/// asks for the same one several times.
pub(crate) struct PolicyReader {
    folder: PathBuf,
    environment: Environment,
    last: Mutex<Option<(Texts, PolicySet)>>,
    /// How many times a text was read.
    #[cfg(test)]
    read: std::sync::atomic::AtomicUsize,
}

impl PolicyReader {
    pub(crate) fn new(folder: PathBuf, environment: Environment) -> Self {
        Self {
            folder,
            environment,
            last: Mutex::default(),
            #[cfg(test)]
            read: std::sync::atomic::AtomicUsize::default(),
        }
    }

    /// The policies of these texts.
    pub(super) fn together(&self, texts: &Texts) -> Result<PolicySet, Vec<Problem>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, set)) = &*last
            && of == texts
        {
            return Ok(set.clone());
        }
        let set = self.parse(texts.iter())?;
        *last = Some((texts.clone(), set.clone()));
        Ok(set)
    }

    /// The policies of each text by itself, and what is wrong with those that have none: for
    /// texts that cannot be read together, because what is wrong with one is wrong with no
    /// other.
    pub(super) fn each(&self, texts: &Texts) -> (BTreeMap<String, PolicySet>, Vec<Problem>) {
        let (mut good, mut problems) = (BTreeMap::new(), Vec::new());
        for (file, text) in texts {
            match self.parse(std::iter::once((file, text))) {
                Ok(set) => {
                    good.insert(file.clone(), set);
                }
                Err(wrong) => problems.extend(wrong),
            }
        }
        (good, problems)
    }

    #[cfg(test)]
    pub(super) fn times_read(&self) -> usize {
        self.read.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn parse<'a>(
        &self,
        texts: impl Iterator<Item = (&'a String, &'a String)>,
    ) -> Result<PolicySet, Vec<Problem>> {
        let files: Vec<(String, &String)> = texts
            .map(|(file, text)| (self.folder.join(file).display().to_string(), text))
            .collect();
        #[cfg(test)]
        self.read
            .fetch_add(files.len(), std::sync::atomic::Ordering::Relaxed);
        PolicySet::parse(&files, &self.environment)
            .map_err(|errors| errors.iter().map(policy_problem).collect())
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
    served: &Texts,
) -> Result<(PolicySet, Vec<Problem>), Vec<Problem>> {
    if !path.is_dir() {
        let text = read_text(path).map_err(|problem| vec![*problem])?;
        let set = PolicySet::parse(&[(path.display().to_string(), text)], environment);
        return set
            .map(|set| (set, Vec::new()))
            .map_err(|errors| errors.iter().map(policy_problem).collect());
    }
    let folder = PolicyFolder::read(path).map_err(|problem| vec![*problem])?;
    let reader = PolicyReader::new(path.to_owned(), environment.clone());
    let mut problems: Vec<Problem> = folder.unreadable.into_values().collect();
    let mut used = served.clone();
    used.retain(|file, _| folder.names.contains(file));
    let mut changed = folder.texts;
    changed.retain(|file, text| used.get(file) != Some(text));
    let with = |changed: &Texts| {
        let mut all = used.clone();
        all.extend(changed.clone());
        reader.together(&all)
    };
    if let Ok(set) = with(&changed) {
        return Ok((set, problems));
    }
    let (good, wrong) = reader.each(&changed);
    problems.extend(wrong);
    changed.retain(|file, _| good.contains_key(file));
    if let Ok(set) = with(&changed) {
        return Ok((set, problems));
    }
    // Files that served fit together; each other one is used if it fits too.
    for (file, text) in changed {
        let before = used.insert(file.clone(), text);
        let Err(wrong) = reader.together(&used) else {
            continue;
        };
        problems.extend(wrong);
        match before {
            Some(before) => used.insert(file, before),
            None => used.remove(&file),
        };
    }
    reader.together(&used).map(|set| (set, problems))
}

/// What the policies folder holds.
pub(super) struct PolicyFolder {
    /// All its files.
    pub(super) names: BTreeSet<String>,
    /// What they say.
    pub(super) texts: Texts,
    /// What is wrong with those that cannot be read.
    pub(super) unreadable: BTreeMap<String, Problem>,
}

/// The largest policy file, in bytes: far more than people write.
const POLICY_FILE: u64 = 4 << 20;

impl PolicyFolder {
    pub(super) fn read(folder: &Path) -> Result<Self, Box<Problem>> {
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

pub(super) fn policy_problem(error: &PolicyError) -> Problem {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str) -> String {
        format!(
            "policies: [{{ name: {name}, match: ['alertname=x'], target: 'host://a/b', steps: [{{ plugin: p }}], verify: {{ alert: resolved, within: 1m }} }}]\n"
        )
    }

    #[test]
    fn of_a_file_that_cannot_be_used_what_served_before_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            std::fs::write(folder.path().join(file), text).unwrap();
        };
        let served = Texts::from([
            ("bad.yaml".to_owned(), policy("was-good")),
            ("gone.yaml".to_owned(), policy("gone")),
            ("kept.yaml".to_owned(), policy("kept")),
        ]);
        let read = || {
            let (set, problems) =
                policies_in(folder.path(), &Environment::default(), &served).unwrap();
            let policies = set.policies().iter();
            let names: Vec<_> = policies.map(|policy| policy.name.to_string()).collect();
            let files: BTreeSet<_> = problems
                .iter()
                .filter_map(|problem| Path::new(&problem.file).file_name())
                .map(|file| file.to_str().unwrap().to_owned())
                .collect();
            (names, files.into_iter().collect::<Vec<_>>())
        };
        write("bad.yaml", "policies: [{ name: }]\n");
        write("kept.yaml", &policy("kept"));
        write("new.yaml", &policy("new"));
        let names = ["was-good", "kept", "new"].map(str::to_owned).to_vec();
        assert_eq!(read(), (names.clone(), vec!["bad.yaml".to_owned()]));
        // A name that another file has: the file that served it keeps it.
        write("also.yaml", &policy("kept"));
        let (found, problems) = read();
        assert_eq!(found, names);
        assert!(problems.contains(&"bad.yaml".to_owned()) && problems.len() > 1);
    }
}
