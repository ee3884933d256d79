//! The secrets of the configuration: read once, at the start, and handed to the driver
//! that fills them in. Nothing here logs, prints or keeps a value.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sentinel_core::http::is_secret_name;

use crate::config::SecretSource;

/// How large a file with a secret may be, in bytes.
const LIMIT: u64 = 16 << 10;

/// Whom a file's mode lets write it but its owner.
const OTHERS_WRITE: u32 = 0o022;

/// Whom a file's mode lets read it but its owner and group.
const OTHERS_READ: u32 = 0o004;

/// A secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// It is not on this machine.
    #[error("http.secrets.{name}: {place} is not there")]
    Missing {
        /// The secret.
        name: String,
        /// The file or the variable.
        place: String,
    },
    /// It is there and no good.
    #[error("http.secrets.{name}: {reason}")]
    Bad {
        /// The secret.
        name: String,
        /// Why, without what is in it.
        reason: String,
    },
}

/// The secrets, and what there is to say of where they are kept.
#[derive(Default)]
pub(crate) struct Secrets {
    /// By name.
    pub(crate) values: BTreeMap<String, String>,
    /// What an operator should mend.
    pub(crate) warnings: Vec<String>,
}

/// Reads every secret, or says of each why it cannot be used.
pub(crate) fn read(
    sources: &BTreeMap<String, SecretSource>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> (Secrets, Vec<SecretError>) {
    let mut secrets = Secrets::default();
    let mut errors = Vec::new();
    for (name, source) in sources {
        match one(name, source, variable, &mut secrets.warnings) {
            Ok(value) => {
                secrets.values.insert(name.clone(), value);
            }
            Err(error) => errors.push(error),
        }
    }
    (secrets, errors)
}

fn one(
    name: &str,
    source: &SecretSource,
    variable: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Result<String, SecretError> {
    let bad = |reason: String| SecretError::Bad {
        name: name.to_owned(),
        reason,
    };
    if !is_secret_name(name) {
        let expected = "expected 1 to 128 letters, digits, `_`, `.` and `-`";
        return Err(bad(format!("the name is none: {expected}")));
    }
    let value = match source {
        SecretSource::Env(place) => variable(place).ok_or_else(|| SecretError::Missing {
            name: name.to_owned(),
            place: format!("the variable {place} of the environment"),
        })?,
        SecretSource::File(path) => {
            let (value, mode) = file(path).map_err(|error| {
                if error.kind() == std::io::ErrorKind::NotFound {
                    SecretError::Missing {
                        name: name.to_owned(),
                        place: path.display().to_string(),
                    }
                } else {
                    bad(format!("{} cannot be read: {error}", path.display()))
                }
            })?;
            if mode & OTHERS_WRITE != 0 {
                return Err(bad(format!(
                    "{} can be written by others than its owner (mode {:03o}): chmod it to 600",
                    path.display(),
                    mode & 0o777
                )));
            }
            if mode & OTHERS_READ != 0 {
                warnings.push(format!(
                    "http.secrets.{name}: everybody on this machine can read {} (mode {:03o}): chmod it to 600",
                    path.display(),
                    mode & 0o777
                ));
            }
            value
        }
    };
    // Editors end a file with a line break.
    let value = value.trim_end_matches(['\r', '\n']);
    if value.is_empty() {
        return Err(bad("it is empty".to_owned()));
    }
    if value.chars().any(char::is_control) {
        return Err(bad(
            "it holds a line break or another control character, and is to stand in a header or a URL"
                .to_owned(),
        ));
    }
    Ok(value.to_owned())
}

/// The text of a file and its mode: of the file that was opened, whatever its name leads
/// to afterwards.
fn file(path: &Path) -> std::io::Result<(String, u32)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    let mut text = String::new();
    file.take(LIMIT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LIMIT {
        return Err(std::io::Error::other("it is larger than 16 KiB"));
    }
    Ok((text, metadata.mode()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::NamedTempFile, SecretSource) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let source = SecretSource::File(file.path().to_owned());
        (file, source)
    }

    fn look(name: &str, source: SecretSource) -> Result<(String, Vec<String>), String> {
        let variable = |name: &str| (name == "PAGER_KEY").then(|| "from the shell".to_owned());
        let sources = BTreeMap::from([(name.to_owned(), source)]);
        let (mut secrets, errors) = read(&sources, &variable);
        match errors.first() {
            Some(error) => Err(error.to_string()),
            None => Ok((secrets.values.remove(name).unwrap(), secrets.warnings)),
        }
    }

    #[test]
    fn a_secret_comes_from_a_file_or_from_the_environment() {
        let (_file, source) = file("s3cret\r\n", 0o600);
        assert_eq!(look("key", source), Ok(("s3cret".to_owned(), vec![])));
        let (_file, source) = file("s3cret", 0o440);
        assert_eq!(look("key", source), Ok(("s3cret".to_owned(), vec![])));
        let env = SecretSource::Env("PAGER_KEY".to_owned());
        let (value, _) = look("key", env).unwrap();
        assert_eq!(value, "from the shell");
    }

    #[test]
    fn who_else_can_touch_it_is_said() {
        let (_file, source) = file("s3cret", 0o644);
        let (_, warnings) = look("key", source).unwrap();
        assert!(
            warnings[0].contains("everybody") && warnings[0].contains("mode 644"),
            "{warnings:?}"
        );
        for mode in [0o660, 0o602, 0o666] {
            let (_file, source) = file("s3cret", mode);
            let error = look("key", source).unwrap_err();
            assert!(error.contains("can be written by others"), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_secret_is_said_without_it() {
        let folder = tempfile::tempdir().unwrap();
        for (name, source, reason) in [
            (
                "key",
                SecretSource::File("/nowhere/key".into()),
                "is not there",
            ),
            (
                "key",
                SecretSource::Env("UNSET".into()),
                "UNSET of the environment is not there",
            ),
            (
                "key",
                SecretSource::File(folder.path().to_owned()),
                "it is no file",
            ),
            (
                "a/b",
                SecretSource::Env("PAGER_KEY".into()),
                "the name is none",
            ),
        ] {
            let error = look(name, source).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        for (text, reason) in [
            ("", "empty"),
            ("\n", "empty"),
            ("s3cret\nmore", "a line break"),
            ("s3cret\u{7}", "a line break"),
            (&"s3cret".repeat(4000), "16 KiB"),
        ] {
            let (_file, source) = file(text, 0o600);
            let error = look("key", source).unwrap_err();
            assert!(
                error.contains(reason) && !error.contains("s3cret"),
                "{error}"
            );
        }
    }
}
