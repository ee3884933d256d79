//! The private files of one run. Everything here blocks.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::process;

const PREFIX: &str = "run-";

/// The callback plugin that reports what a playbook does.
const PLUGIN: &str = include_str!("../../ansible/sentinel_events.py");

/// A folder for one run that nobody else can read, removed when this is dropped.
#[derive(Debug)]
pub(super) struct RunFiles {
    folder: TempDir,
    variables: PathBuf,
    events: PathBuf,
    plugins: PathBuf,
    temp: PathBuf,
    leader: PathBuf,
}

/// Files and folders of a run that its environment names.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) events: PathBuf,
    pub(super) plugins: PathBuf,
    pub(super) temp: PathBuf,
}

impl RunFiles {
    /// Makes the folder inside `work_dir` and writes `variables` (YAML) and `scope` (JSON)
    /// into it.
    pub(super) fn create(work_dir: &Path, variables: &str, scope: &str) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(work_dir)?;
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(work_dir)?;
        let inside = |name: &str| folder.path().join(name);
        let files = Self {
            variables: inside("variables.yml"),
            events: inside("events.jsonl"),
            plugins: inside("plugins"),
            temp: inside("tmp"),
            leader: inside("leader"),
            folder,
        };
        for folder in [&files.plugins, &files.temp] {
            DirBuilder::new().mode(0o700).create(folder)?;
        }
        private(&files.variables, variables)?;
        // Beside the events, where the plugin looks for it.
        private(&files.folder.path().join("scope.json"), scope)?;
        private(&files.plugins.join("sentinel_events.py"), PLUGIN)?;
        Ok(files)
    }

    pub(super) fn variables(&self) -> &Path {
        &self.variables
    }

    pub(super) fn events(&self) -> &Path {
        &self.events
    }

    /// What the environment of a run names.
    pub(super) fn places(&self) -> Places {
        Places {
            events: self.events.clone(),
            plugins: self.plugins.clone(),
            temp: self.temp.clone(),
        }
    }

    /// Where the process is noted, for a daemon that comes after a crash.
    pub(super) fn leader(&self) -> &Path {
        &self.leader
    }

    /// Removes the folder; what a task still writes into it is no reason to fail.
    pub(super) fn remove(self) {
        let path = self.folder.path().to_path_buf();
        if let Err(error) = self.folder.close() {
            tracing::warn!(path = %path.display(), %error, "a playbook's private files stay behind");
        }
    }
}

/// Notes which process leads a run, over what was noted of an attempt before.
pub(super) fn note(path: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => private(path, text),
    }
}

/// Writes a file that only its owner can read.
fn private(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(text.as_bytes())
}

/// Ends what still runs of the runs in `work_dir`, and removes their files.
pub(super) fn clear_leftovers(work_dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(work_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let folder = entry.path();
        if let Ok(note) = fs::read_to_string(folder.join("leader"))
            && process::kill_noted(&note)
        {
            tracing::warn!(
                files = %folder.display(),
                "ended a playbook that an earlier daemon left running"
            );
        }
        fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn nobody_else_can_read_them_and_they_are_removed() {
        let outer = tempfile::tempdir().unwrap();
        let work_dir = outer.path().join("a/b");
        let files = RunFiles::create(&work_dir, "---\n{}\n", "{}").unwrap();
        let folder = files.variables().parent().unwrap().to_path_buf();
        assert_eq!(mode(&work_dir), 0o700);
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(files.variables()), 0o600);
        files.remove();
        assert!(!folder.exists());
    }

    #[test]
    fn leftovers_are_removed_and_other_things_stay() {
        let work_dir = tempfile::tempdir().unwrap();
        let left = work_dir.path().join("run-x");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("variables.yml"), "secret").unwrap();
        fs::write(left.join("leader"), "not a note").unwrap();
        fs::write(work_dir.path().join("other"), "").unwrap();
        clear_leftovers(work_dir.path()).unwrap();
        assert!(!left.exists());
        assert!(work_dir.path().join("other").exists());
        clear_leftovers(&work_dir.path().join("none")).unwrap();
    }
}
