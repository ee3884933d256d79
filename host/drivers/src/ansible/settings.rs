//! What of an operator's `ansible.cfg` has to be known so that nothing of it is replaced.
//!
//! A callback plugin can only be added by naming every folder of them, so the folders that
//! the file names are read and named again. The file is the one that Ansible itself would
//! take. Everything here blocks.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The file of the machine.
const MACHINE: &str = "/etc/ansible/ansible.cfg";

/// What follows Ansible's own folder, where nothing is set.
const DEFAULT_CALLBACKS: &str = "/plugins/callback:/usr/share/ansible/plugins/callback";

/// A configuration file is small; a device or a dump is none.
const SIZE: u64 = 1 << 20;

/// What is set, and where.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// `callback_plugins`, with absolute paths.
    callback_plugins: Option<OsString>,
    /// `home`, likewise.
    home: Option<OsString>,
    /// Whether it names an inventory.
    pub(super) inventory: bool,
}

impl Settings {
    /// What Ansible would read when it is started in `folder`.
    pub(super) fn read(environment: &[(OsString, OsString)], folder: &Path) -> Self {
        let find = |name: &str| {
            let found = environment.iter().find(|(found, _)| found == name);
            found.map(|(_, value)| value.as_os_str())
        };
        let mut settings = file(find("ANSIBLE_CONFIG"), find("HOME"), folder)
            .map(|(path, text)| Self::parse(&path, &text))
            .unwrap_or_default();
        // The environment is above the file.
        if let Some(given) = find("ANSIBLE_CALLBACK_PLUGINS") {
            settings.callback_plugins = Some(given.to_owned());
        }
        if let Some(given) = find("ANSIBLE_HOME") {
            settings.home = Some(given.to_owned());
        }
        settings.inventory |= find("ANSIBLE_INVENTORY").is_some();
        settings
    }

    /// The folders of callback plugins that Ansible would look into.
    pub(super) fn callback_plugins(&self) -> OsString {
        if let Some(given) = &self.callback_plugins {
            return given.clone();
        }
        let mut folders = self.home.clone().unwrap_or_else(|| "~/.ansible".into());
        folders.push(DEFAULT_CALLBACKS);
        folders
    }

    fn parse(path: &Path, text: &str) -> Self {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let mut settings = Self::default();
        let mut section = "";
        for line in text.lines() {
            let line = line.trim_end();
            if line.is_empty()
                || line.starts_with(['#', ';'])
                || line.starts_with(char::is_whitespace)
            {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                section = name.0;
                continue;
            }
            if section != "defaults" {
                continue;
            }
            let Some((key, value)) = line.split_once(['=', ':']) else {
                continue;
            };
            let value = without_comment(value).trim();
            match key.trim().to_ascii_lowercase().as_str() {
                "callback_plugins" => settings.callback_plugins = Some(paths(value, folder)),
                "home" => settings.home = Some(paths(value, folder)),
                "inventory" => settings.inventory = !value.is_empty(),
                _ => {}
            }
        }
        settings
    }
}

/// The file that Ansible takes, and what is in it.
fn file(
    configured: Option<&OsStr>,
    home: Option<&OsStr>,
    folder: &Path,
) -> Option<(PathBuf, String)> {
    let at_home =
        |path: &OsStr| match (path.to_str().and_then(|path| path.strip_prefix("~/")), home) {
            (Some(below), Some(home)) => Path::new(home).join(below),
            _ => folder.join(path),
        };
    let configured = configured.map(|path| {
        let path = at_home(path);
        if path.is_dir() {
            path.join("ansible.cfg")
        } else {
            path
        }
    });
    // As Ansible has it: a folder in which anybody can write configures nothing.
    let is_open = fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o002 != 0);
    let beside = (!is_open).then(|| folder.join("ansible.cfg"));
    let own = home.map(|home| Path::new(home).join(".ansible.cfg"));
    [configured, beside, own, Some(PathBuf::from(MACHINE))]
        .into_iter()
        .flatten()
        .find_map(|path| {
            let found = fs::metadata(&path).ok()?;
            if !found.is_file() || found.len() > SIZE {
                return None;
            }
            let bytes = fs::read(&path).ok()?;
            Some((path, String::from_utf8_lossy(&bytes).into_owned()))
        })
}

/// What a comment behind a value leaves of it.
fn without_comment(value: &str) -> &str {
    let comment = value
        .char_indices()
        .zip(value.chars().skip(1))
        .find(|((_, before), after)| before.is_whitespace() && *after == ';');
    match comment {
        Some(((at, _), _)) => value.get(..at).unwrap_or(value),
        None => value,
    }
}

/// Paths that are relative to the file, as paths that are not. `~`, variables and what is
/// in braces are left to Ansible.
fn paths(value: &str, folder: &Path) -> OsString {
    let mut paths = OsString::new();
    for (index, path) in value.split(':').map(str::trim).enumerate() {
        if index > 0 {
            paths.push(":");
        }
        if path.is_empty() || path.starts_with(['/', '~', '$', '{']) {
            paths.push(path);
        } else {
            paths.push(folder.join(path));
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(given: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        given
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    #[test]
    fn the_file_that_ansible_takes_is_read() {
        let home = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let at = home.path().to_str().unwrap().to_owned();
        let environment = pairs(&[("HOME", &at)]);
        let read = || Settings::read(&environment, folder.path()).callback_plugins();
        fs::write(
            home.path().join(".ansible.cfg"),
            "[defaults]\ncallback_plugins = /of/home\n",
        )
        .unwrap();
        assert_eq!(read(), "/of/home");
        fs::write(
            folder.path().join("ansible.cfg"),
            "# x\n[other]\ncallback_plugins = /no\n[defaults]\n  indented = 1\nCallback_Plugins: ./here:~/there:/abs ; and a comment\nhome = h\n",
        )
        .unwrap();
        let here = folder.path().join("./here");
        assert_eq!(read(), format!("{}:~/there:/abs", here.display()).as_str());
        fs::write(other.path().join("ansible.cfg"), "[defaults]\nhome = h\n").unwrap();
        let configured = pairs(&[
            ("HOME", &at),
            ("ANSIBLE_CONFIG", other.path().to_str().unwrap()),
        ]);
        let settings = Settings::read(&configured, folder.path());
        let expected = format!("{}{DEFAULT_CALLBACKS}", other.path().join("h").display());
        assert_eq!(settings.callback_plugins(), expected.as_str());
        assert!(!settings.inventory);
        let mut mode = fs::metadata(folder.path()).unwrap().permissions();
        mode.set_mode(0o777);
        fs::set_permissions(folder.path(), mode).unwrap();
        assert_eq!(read(), "/of/home");
    }

    #[test]
    fn the_environment_is_above_the_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("ansible.cfg"),
            "[defaults]\ncallback_plugins = here\ninventory = hosts\n",
        )
        .unwrap();
        let set = pairs(&[("ANSIBLE_CALLBACK_PLUGINS", "/mine")]);
        let settings = Settings::read(&set, folder.path());
        assert_eq!(settings.callback_plugins(), "/mine");
        assert!(settings.inventory);
    }

    #[test]
    fn without_a_file_it_is_what_ansible_has() {
        let settings = Settings::default();
        assert_eq!(
            settings.callback_plugins(),
            "~/.ansible/plugins/callback:/usr/share/ansible/plugins/callback"
        );
    }
}
