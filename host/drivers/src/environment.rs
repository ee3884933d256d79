//! What programs that the daemon starts see of its environment: a short list, and none of
//! its secrets.

use std::ffi::OsString;

/// What any program needs to find itself, its user's files and its agent.
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

/// What of `all` a program may see: the short list, the locale, and what else it `needs`.
pub(crate) fn allowed(
    all: impl IntoIterator<Item = (OsString, OsString)>,
    needs: impl Fn(&str) -> bool,
) -> Vec<(OsString, OsString)> {
    all.into_iter()
        .filter(|(name, _)| {
            name.to_str().is_some_and(|name| {
                ALLOWED.contains(&name) || name.starts_with("LC_") || needs(name)
            })
        })
        .collect()
}
