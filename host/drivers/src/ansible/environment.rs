//! What a playbook's processes see of the daemon's environment: enough for Python, ssh
//! and Ansible's own settings, and none of the daemon's secrets.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::files::RunFiles;

const ALLOWED: &[&str] = &[
    "HOME",
    "LANG",
    "LANGUAGE",
    "LOGNAME",
    "PATH",
    "SHELL",
    "SSH_AUTH_SOCK",
    "TMPDIR",
    "TZ",
    "USER",
];

/// What of `all` playbooks may see: a short list, the locale, and the `ANSIBLE_…`
/// settings that the operator gave the daemon.
pub(super) fn allowed(
    all: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<(OsString, OsString)> {
    let mut kept: Vec<_> = all
        .into_iter()
        .filter(|(name, _)| {
            name.to_str().is_some_and(|name| {
                ALLOWED.contains(&name) || name.starts_with("LC_") || name.starts_with("ANSIBLE_")
            })
        })
        // Colour would end up in what is shown to people elsewhere.
        .filter(|(name, _)| name != "ANSIBLE_FORCE_COLOR")
        .collect();
    // Ansible refuses to start where text is not UTF-8, and services are often started
    // without any locale.
    if !is_utf8(&kept) {
        kept.retain(|(name, _)| name != "LC_ALL");
        kept.push(("LC_ALL".into(), "C.UTF-8".into()));
    }
    kept
}

/// What a run adds to `allowed`.
pub(super) fn of_run(
    allowed: &[(OsString, OsString)],
    files: &RunFiles,
    has_inventory: bool,
) -> Vec<(OsString, OsString)> {
    let mut added: Vec<(OsString, OsString)> = vec![
        ("ANSIBLE_NOCOLOR".into(), "1".into()),
        // Removed with the run's other files, however the run ends.
        ("ANSIBLE_LOCAL_TEMP".into(), files.temp().into()),
        (
            "ANSIBLE_CALLBACK_PLUGINS".into(),
            callback_plugins(allowed, files.plugins()),
        ),
        ("SENTINEL_EVENTS".into(), files.events().into()),
        // So that lines come when they are written.
        ("PYTHONUNBUFFERED".into(), "1".into()),
    ];
    // Playbooks for this machine alone are the common case, and no reason to warn.
    if !has_inventory {
        for name in [
            "ANSIBLE_LOCALHOST_WARNING",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING",
        ] {
            if find(allowed, name).is_none() {
                added.push((name.into(), "False".into()));
            }
        }
    }
    added
}

/// Ours first, then the operator's, or else the places that Ansible looks at itself.
fn callback_plugins(allowed: &[(OsString, OsString)], ours: &Path) -> OsString {
    let mut path = ours.as_os_str().to_owned();
    path.push(":");
    path.push(
        find(allowed, "ANSIBLE_CALLBACK_PLUGINS").unwrap_or(OsStr::new(
            "~/.ansible/plugins/callback:/usr/share/ansible/plugins/callback",
        )),
    );
    path
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

    fn kept(given: &[(&str, &str)]) -> Vec<(String, String)> {
        let given = given
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        allowed(given)
            .into_iter()
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
                ("ANSIBLE_FORCE_COLOR", "1"),
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
}
