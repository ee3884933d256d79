//! What a playbook's processes see of the daemon's environment: enough for Python, ssh
//! and Ansible's own settings, and none of the daemon's secrets.

use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::unistd::AccessFlags;

use super::AnsibleConfig;
use super::files::Places;
use super::settings::Settings;
use crate::environment::allowed;

/// The locale that every C library has that can do without files.
const LOCALE: &str = "C.UTF-8";

/// What Ansible says of a locale that the machine does not have, or that is not UTF-8.
const NO_LOCALE: [&str; 2] = [
    "could not initialize the preferred locale",
    "requires the locale encoding to be UTF-8",
];

/// What playbooks see of the daemon's environment.
#[derive(Debug)]
pub(super) struct Environment {
    allowed: Vec<(OsString, OsString)>,
    /// Where programs find a home that the daemon's user does not have.
    own_home: PathBuf,
    /// Whether the machine lacks the locale that is named.
    without_locale: AtomicBool,
}

impl Environment {
    /// What of `all` playbooks may see; `work_dir` is the daemon's own.
    pub(super) fn new(
        all: impl IntoIterator<Item = (OsString, OsString)>,
        work_dir: &Path,
    ) -> Self {
        Self {
            // The settings that the operator gave the daemon for Ansible.
            allowed: allowed(all, |name| name.starts_with("ANSIBLE_")),
            own_home: work_dir.join("home"),
            without_locale: AtomicBool::new(false),
        }
    }

    /// Whether the locale that is named was given up.
    pub(super) fn is_without_locale(&self) -> bool {
        self.without_locale.load(Ordering::Relaxed)
    }

    /// Whether Ansible complains of the locale that it was given: then it is given another
    /// one from here on.
    pub(super) fn is_locale_missing(&self, complaint: &str) -> bool {
        let missing = NO_LOCALE.iter().any(|said| complaint.contains(said));
        if missing {
            self.without_locale.store(true, Ordering::Relaxed);
        }
        missing
    }

    /// The variables of every process. Looks at the home folder, so it blocks.
    pub(super) fn variables(&self) -> Vec<(OsString, OsString)> {
        let mut variables = self.allowed.clone();
        let mut set = |name: &str, value: &OsStr| set_in(&mut variables, name, value.to_owned());
        // Ansible refuses to start where text is not UTF-8, and services are often started
        // without any locale.
        if self.is_without_locale() || !is_utf8(&self.allowed) {
            set("LC_ALL", OsStr::new(LOCALE));
        }
        let home = find(&self.allowed, "HOME");
        let is_kept = |home: &OsStr| {
            let home = Path::new(home);
            // One that is there to be read alone holds an operator's files all the same.
            is_home(home) || home.is_absolute() && is_own(home)
        };
        if !home.is_some_and(is_kept) && self.make_home() {
            set("HOME", self.own_home.as_os_str());
        }
        variables
    }

    fn make_home(&self) -> bool {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.own_home);
        if let Err(error) = &made {
            tracing::warn!(path = %self.own_home.display(), %error, "playbooks have no home folder");
        }
        made.is_ok()
    }

    /// The variables of a run. Reads the operator's `ansible.cfg`, so it blocks.
    pub(super) fn of_run(
        &self,
        config: &AnsibleConfig,
        files: &Places,
    ) -> Vec<(OsString, OsString)> {
        let mut variables = self.variables();
        let settings = Settings::read(&variables, &config.playbooks_dir);
        let mut set = |name: &str, value: OsString| set_in(&mut variables, name, value);
        // Colour would end up in what is shown to people elsewhere.
        set("ANSIBLE_NOCOLOR", "1".into());
        set("ANSIBLE_FORCE_COLOR", "0".into());
        // Removed with the run's other files, however the run ends.
        set("ANSIBLE_LOCAL_TEMP", files.temp.clone().into());
        // Ours first, and then all that would be looked into without it.
        let mut plugins = files.plugins.clone().into_os_string();
        plugins.push(":");
        plugins.push(settings.callback_plugins());
        set("ANSIBLE_CALLBACK_PLUGINS", plugins);
        set("SENTINEL_EVENTS", files.events.clone().into());
        // So that lines come when they are written.
        set("PYTHONUNBUFFERED", "1".into());
        // Playbooks for this machine alone are the common case, and no reason to warn.
        let is_local = config.inventory.is_empty() && !settings.inventory;
        // Ansible asks the system, and not the environment, where the home is in which it
        // puts modules. Other machines have homes.
        let homeless = match passwd_home() {
            Some(home) => !is_home(&home),
            None => find(&variables, "HOME") == Some(self.own_home.as_os_str()),
        };
        if is_local
            && homeless
            && find(&self.allowed, "ANSIBLE_REMOTE_TMP").is_none()
            && find(&self.allowed, "ANSIBLE_REMOTE_TEMP").is_none()
            && self.make_home()
        {
            set_in(
                &mut variables,
                "ANSIBLE_REMOTE_TMP",
                self.own_home.join(".ansible/tmp").into(),
            );
        }
        let mut set = |name: &str, value: OsString| set_in(&mut variables, name, value);
        if is_local {
            for name in [
                "ANSIBLE_LOCALHOST_WARNING",
                "ANSIBLE_INVENTORY_UNPARSED_WARNING",
            ] {
                if find(&self.allowed, name).is_none() {
                    set(name, "False".into());
                }
            }
        }
        variables
    }
}

fn set_in(variables: &mut Vec<(OsString, OsString)>, name: &str, value: OsString) {
    variables.retain(|(found, _)| found != name);
    variables.push((name.into(), value));
}

/// The home of this process's user by the machine's own list of users; none where the user
/// is not in it.
fn passwd_home() -> Option<PathBuf> {
    let user = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let is_user = fields.next() == Some(user.as_str());
        let home = fields.nth(2)?;
        is_user.then(|| PathBuf::from(home))
    })
}

/// Whether `path` is a folder in which this process can write: the home of a service user
/// is often none.
fn is_home(path: &Path) -> bool {
    path.is_absolute()
        && path.is_dir()
        && nix::unistd::access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}

/// Whether `path` is a folder of this process's user.
fn is_own(path: &Path) -> bool {
    let user = std::fs::metadata("/proc/self").map(|found| found.uid());
    std::fs::metadata(path)
        .is_ok_and(|found| found.is_dir() && user.is_ok_and(|user| user == found.uid()))
}

/// Whether the locale's encoding is UTF-8, by the order in which libc asks.
fn is_utf8(environment: &[(OsString, OsString)]) -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| find(environment, name).filter(|value| !value.is_empty()))
        .is_some_and(|locale| {
            let locale = locale.to_string_lossy().to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        })
}

fn find<'a>(environment: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsStr> {
    environment
        .iter()
        .find(|(found, _)| found == name)
        .map(|(_, value)| value.as_os_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(given: &[(&str, &str)], work_dir: &Path) -> Environment {
        let given = given
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Environment::new(given, work_dir)
    }

    fn kept(given: &[(&str, &str)]) -> Vec<(String, String)> {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().to_str().unwrap();
        let mut given = given.to_vec();
        given.push(("HOME", home));
        environment(&given, Path::new("/nonexistent"))
            .variables()
            .into_iter()
            .filter(|(name, _)| name != "HOME")
            .map(|(name, value)| (name.into_string().unwrap(), value.into_string().unwrap()))
            .collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn secrets_of_the_daemon_stay_there() {
        assert_eq!(
            kept(&[
                ("PATH", "/bin"),
                ("SENTINEL_TOKEN", "s"),
                ("AWS_SECRET_ACCESS_KEY", "s"),
                ("LD_PRELOAD", "x.so"),
                ("PYTHONPATH", "/x"),
                ("ANSIBLE_FORKS", "9"),
                ("LANG", "en_GB.UTF-8"),
            ]),
            [
                pair("PATH", "/bin"),
                pair("ANSIBLE_FORKS", "9"),
                pair("LANG", "en_GB.UTF-8"),
            ]
        );
    }

    #[test]
    fn there_is_always_a_utf8_locale() {
        assert_eq!(kept(&[]), [pair("LC_ALL", "C.UTF-8")]);
        assert_eq!(
            kept(&[("LC_ALL", "POSIX"), ("LANG", "de_DE.utf8")]),
            [pair("LANG", "de_DE.utf8"), pair("LC_ALL", "C.UTF-8")]
        );
        assert_eq!(
            kept(&[("LC_ALL", ""), ("LANG", "C.UTF-8")]),
            [pair("LC_ALL", ""), pair("LANG", "C.UTF-8")]
        );
    }

    #[test]
    fn a_locale_that_the_machine_does_not_have_is_given_up() {
        let home = tempfile::tempdir().unwrap();
        let given = [
            ("HOME", home.path().to_str().unwrap()),
            ("LANG", "xx_XX.UTF-8"),
        ];
        let environment = environment(&given, Path::new("/nonexistent"));
        let locale = || find(&environment.variables(), "LC_ALL").map(OsStr::to_owned);
        let said =
            "ERROR: Ansible could not initialize the preferred locale: unsupported locale setting";
        assert_eq!(locale(), None);
        assert!(!environment.is_locale_missing("ERROR! no"));
        assert!(environment.is_locale_missing(said));
        assert_eq!(locale(), Some("C.UTF-8".into()));
        assert!(environment.is_without_locale());
    }

    #[test]
    fn a_user_without_a_home_is_given_one() {
        let work_dir = tempfile::tempdir().unwrap();
        let own = work_dir.path().join("home");
        let missing = work_dir.path().join("missing");
        let missing = missing.to_str().unwrap();
        for given in [&[][..], &[("HOME", missing)], &[("HOME", "")]] {
            let environment = environment(given, work_dir.path());
            let variables = environment.variables();
            assert_eq!(find(&variables, "HOME"), Some(own.as_os_str()));
            assert!(own.is_dir());
        }
        assert!(!Path::new(missing).exists());
    }
}
