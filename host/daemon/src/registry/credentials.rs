//! Whose word a registry takes: what was given, or what `docker login` left.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::error::RegistryError;

/// Under which key docker keeps what is for its own registry.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// How a helper says that what it gives is no password.
const TOKEN: &str = "<token>";

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A user and a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// What a registry gave for a password at a login, to ask for tokens with.
    IdentityToken(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.user())
    }
}

impl Credentials {
    /// Who, for people.
    pub(super) fn user(&self) -> &str {
        match self {
            Self::Password { user, .. } => user,
            Self::IdentityToken(_) => "the one who logged in",
        }
    }
}

/// Where credentials are taken from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// They were given.
    Given(Credentials),
    /// Docker's own file, if there is one. It is only looked at when a registry asks.
    Docker(Option<DockerConfig>),
}

/// Docker's `config.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DockerConfig(PathBuf);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Contents {
    auths: HashMap<String, Login>,
    #[serde(rename = "credHelpers")]
    helpers: HashMap<String, String>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Login {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// The answer of a helper.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

impl Source {
    /// What there is for a registry, and where it is from.
    pub(super) fn find(&self, host: &str) -> Result<Option<(Credentials, String)>, RegistryError> {
        match self {
            Self::Given(given) => Ok(Some((given.clone(), "the command line".to_owned()))),
            Self::Docker(None) => Ok(None),
            Self::Docker(Some(config)) => config.find(host),
        }
    }

    /// Where it was looked in vain, for a message.
    pub(super) fn looked(&self) -> String {
        match self {
            Self::Docker(Some(DockerConfig(path))) => format!(" in {}", path.display()),
            Self::Docker(None) | Self::Given(_) => String::new(),
        }
    }
}

impl DockerConfig {
    /// The file that docker would use, whether it is there or not; none where there is no
    /// home either. `variable` reads the environment.
    pub(crate) fn locate(variable: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let folder = variable("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(&variable("HOME")?).join(".docker")))?;
        Some(Self(folder.join("config.json")))
    }

    fn bad(&self, why: impl Into<String>) -> RegistryError {
        RegistryError::Credentials {
            path: self.0.clone(),
            why: why.into(),
        }
    }

    fn find(&self, host: &str) -> Result<Option<(Credentials, String)>, RegistryError> {
        let text = match std::fs::read(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.bad(format!("cannot be read: {error}"))),
        };
        // Not the error of the parser: it may show what stands there.
        let contents: Contents = serde_json::from_slice(&text).map_err(|error| {
            self.bad(format!(
                "is not as docker writes it, at {}:{}",
                error.line(),
                error.column()
            ))
        })?;
        let key = if host == "docker.io" {
            DOCKER_HUB_KEY
        } else {
            host
        };
        if let Some(helper) = contents.helpers.get(key).or(contents.store.as_ref()) {
            let program = format!("docker-credential-{helper}");
            let found = self.ask(&program, key)?;
            return Ok(found.map(|credentials| (credentials, program)));
        }
        let login = contents
            .auths
            .iter()
            .find(|(name, _)| *name == key || is_of(name, host))
            .map(|(_, login)| login.clone());
        let Some(login) = login else {
            return Ok(None);
        };
        let credentials = self.read(&login, host)?;
        Ok(credentials.map(|credentials| (credentials, self.0.display().to_string())))
    }

    fn read(&self, login: &Login, host: &str) -> Result<Option<Credentials>, RegistryError> {
        if !login.identitytoken.is_empty() {
            let token = login.identitytoken.clone();
            return Ok(Some(Credentials::IdentityToken(token)));
        }
        if login.auth.is_empty() {
            // What docker keeps of a login whose password is with a helper is empty.
            let (user, password) = (login.username.clone(), login.password.clone());
            return Ok((!user.is_empty()).then_some(Credentials::Password { user, password }));
        }
        STANDARD
            .decode(login.auth.trim())
            .ok()
            .and_then(|auth| String::from_utf8(auth).ok())
            .and_then(|auth| {
                let (user, password) = auth.split_once(':')?;
                Some(Credentials::Password {
                    user: user.to_owned(),
                    // Docker's own files may end with this.
                    password: password.trim_end_matches('\0').to_owned(),
                })
            })
            .map(Some)
            .ok_or_else(|| {
                self.bad(format!(
                    "the `auth` of {host} is not `user:password` in base64: log in again"
                ))
            })
    }

    /// Asks a helper of docker's, by its protocol: the server on its stdin, JSON on its
    /// stdout.
    fn ask(&self, program: &str, server: &str) -> Result<Option<Credentials>, RegistryError> {
        let unusable = |why: String| self.bad(format!("it names {program}, which {why}"));
        let mut child = helper(program)
            .spawn()
            .map_err(|error| unusable(format!("cannot be started: {error}")))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read it says why in its own words.
            let _written = stdin.write_all(server.as_bytes());
        }
        let output = child
            .wait_with_output()
            .map_err(|error| unusable(format!("failed: {error}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if said.contains("credentials not found") {
                return Ok(None);
            }
            return Err(unusable(format!("failed ({}): {said}", output.status)));
        }
        let helped: Helped = serde_json::from_slice(&output.stdout)
            .map_err(|_| unusable("did not answer as a credential helper does".to_owned()))?;
        Ok(Some(if helped.username == TOKEN {
            Credentials::IdentityToken(helped.secret)
        } else {
            Credentials::Password {
                user: helped.username,
                password: helped.secret,
            }
        }))
    }
}

/// Older logins are kept under a URL.
fn is_of(key: &str, host: &str) -> bool {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    bare.split('/').next() == Some(host)
}

#[expect(
    clippy::disallowed_methods,
    reason = "what docker's configuration names, started by its user: no daemon runs here"
)]
fn helper(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(contents: &str, host: &str) -> Result<Option<Credentials>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, contents).unwrap();
        let found = DockerConfig(path).find(host);
        found
            .map(|found| found.map(|(credentials, _)| credentials))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_login_is_found_under_each_key_that_docker_writes() {
        let ann = Credentials::Password {
            user: "ann".to_owned(),
            password: "se:cret".to_owned(),
        };
        let login = r#"{ "auth": "YW5uOnNlOmNyZXQ=" }"#;
        for (key, host) in [
            ("ghcr.io", "ghcr.io"),
            ("https://ghcr.io/v1/", "ghcr.io"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("https://index.docker.io/v1/", "docker.io"),
        ] {
            let file = format!(r#"{{ "auths": {{ "{key}": {login} }}, "psFormat": "x" }}"#);
            assert_eq!(found(&file, host), Ok(Some(ann.clone())), "{key}");
            assert_eq!(found(&file, "ghcr.io.example.com"), Ok(None), "{key}");
        }
        let token = r#"{ "auths": { "a.io": { "identitytoken": "t" } } }"#;
        assert_eq!(
            found(token, "a.io"),
            Ok(Some(Credentials::IdentityToken("t".to_owned())))
        );
    }

    #[test]
    fn what_is_of_no_use_is_told_and_not_shown() {
        let said = found(r#"{ "auths": { "a.io": { "auth": "c2VjcmV0" } } }"#, "a.io");
        let said = said.unwrap_err();
        assert!(said.contains("user:password") && said.contains("a.io"));
        let said = found(r#"{ "auths": "secret" }"#, "a.io").unwrap_err();
        assert!(said.contains("at 1:") && !said.contains("secret"), "{said}");
        let said = found(r#"{ "credsStore": "of-nobody" }"#, "a.io").unwrap_err();
        assert!(said.contains("docker-credential-of-nobody"), "{said}");
        assert_eq!(
            DockerConfig("/nowhere/config.json".into())
                .find("a.io")
                .unwrap(),
            None
        );
    }
}
