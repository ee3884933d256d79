//! Which Alertmanager is asked what still fires, as the configuration has it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sentinel_core::duration::HumanDuration;
use sentinel_drivers::alertmanager::{Authority, Login};
use serde::Deserialize;
use url::Url;

use super::ConfigError;

/// How long Alertmanager may take to tell of an alert: its own defaults for a group's wait
/// and interval, and something for the way.
const MISSED_AFTER: Duration = Duration::from_mins(6);

/// Which Alertmanager is asked what still fires.
#[derive(Debug, Clone)]
pub(crate) struct AlertmanagerConfig {
    /// Where it is; ends in a slash, so that a path can be joined to it.
    pub(crate) url: Url,
    /// The time between two looks.
    pub(crate) every: Duration,
    /// Only the alerts of this receiver; of all of them where none is named.
    pub(crate) receiver: Option<String>,
    /// How old an alert is before its notification counts as lost.
    pub(crate) missed_after: Duration,
    /// Whether alerts count as missed of an Alertmanager that cannot tell which of them it
    /// mutes.
    pub(crate) unmuted: bool,
    /// Who asks.
    login: LoginConfig,
    /// How TLS is made, where not as the machine has it.
    pub(crate) tls: Option<Authority>,
}

/// Who asks, by the names of secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LoginConfig {
    Nobody,
    Basic { username: String, secret: String },
    Bearer { secret: String },
}

impl AlertmanagerConfig {
    /// The name of the secret that the daemon shows; it is for Alertmanager alone.
    pub(crate) fn secret(&self) -> Option<&str> {
        match &self.login {
            LoginConfig::Nobody => None,
            LoginConfig::Basic { secret, .. } | LoginConfig::Bearer { secret } => Some(secret),
        }
    }

    /// Who asks, with what the secret holds.
    pub(crate) fn login(&self, secret: Option<String>) -> Option<Login> {
        let secret = secret?;
        match &self.login {
            LoginConfig::Nobody => None,
            LoginConfig::Basic { username, .. } => Some(Login::Basic {
                username: username.clone(),
                password: secret,
            }),
            LoginConfig::Bearer { .. } => Some(Login::Bearer(secret)),
        }
    }

    /// Every key with its value, as a person reads it; without what is not set.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let Self {
            url,
            every,
            receiver,
            missed_after,
            unmuted,
            login,
            tls,
        } = self;
        let mut settings = vec![
            ("url", url.to_string()),
            ("every", HumanDuration(*every).to_string()),
            ("missed_after", HumanDuration(*missed_after).to_string()),
            ("unmuted", unmuted.to_string()),
        ];
        settings.extend(receiver.iter().map(|name| ("receiver", name.clone())));
        match login {
            LoginConfig::Nobody => {}
            LoginConfig::Basic { username, secret } => {
                settings.push(("basic_auth.username", username.clone()));
                settings.push(("basic_auth.password", format!("secret {secret}")));
            }
            LoginConfig::Bearer { secret } => {
                settings.push(("bearer", format!("secret {secret}")));
            }
        }
        if let Some(Authority { ca, client }) = tls {
            settings.extend(ca.iter().map(|path| ("tls.ca", path.display().to_string())));
            if let Some((cert, key)) = client {
                settings.push(("tls.cert", cert.display().to_string()));
                settings.push(("tls.key", key.display().to_string()));
            }
        }
        settings
    }
}

/// See [`AlertmanagerConfig`] and `docs/configuration.md`.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AlertmanagerSection {
    pub(super) url: Option<String>,
    pub(super) every: Option<HumanDuration>,
    pub(super) receiver: Option<String>,
    pub(super) missed_after: Option<HumanDuration>,
    pub(super) unmuted: Option<bool>,
    pub(super) basic_auth: BasicSection,
    pub(super) bearer: Option<String>,
    pub(super) tls: TlsSection,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BasicSection {
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsSection {
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

impl AlertmanagerSection {
    pub(super) fn resolve(
        self,
        folder: &Path,
        is_secret: impl Fn(&str) -> bool,
    ) -> Result<Option<AlertmanagerConfig>, ConfigError> {
        let wrong = |what: String| Err(ConfigError::Value(format!("alertmanager.{what}")));
        let Some(url) = &self.url else {
            return if self == Self::default() {
                Ok(None)
            } else {
                wrong("url is missing, and the others need it".to_owned())
            };
        };
        // What is refused is not shown: it may hold a secret.
        let expected = "expected one such as http://localhost:9093";
        let mut url = match Url::parse(url) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => url,
            _ => return wrong(format!("url is no http or https URL: {expected}")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return wrong(
                "url holds a user or a password, where logs would show it: use `alertmanager.basic_auth`"
                    .to_owned(),
            );
        }
        if url.query().is_some() || url.fragment().is_some() {
            return wrong(format!("url has more than a path: {expected}"));
        }
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        let every = self.every.map_or(Duration::from_secs(60), Duration::from);
        if !(Duration::from_secs(1)..=Duration::from_hours(24)).contains(&every) {
            return wrong("every must be from 1s to 1d".to_owned());
        }
        let missed_after = self.missed_after.map_or(MISSED_AFTER, Duration::from);
        if missed_after > Duration::from_hours(24) {
            return wrong("missed_after must be from 0s to 1d".to_owned());
        }
        if self.receiver.as_ref().is_some_and(String::is_empty) {
            return wrong("receiver is empty: leave it out for all receivers".to_owned());
        }
        let login = match login(self.basic_auth, self.bearer, is_secret) {
            Ok(login) => login,
            Err(what) => return wrong(what),
        };
        let tls = match tls(self.tls, folder) {
            Ok(tls) => tls,
            Err(what) => return wrong(what),
        };
        if tls.is_some() && url.scheme() == "http" {
            return wrong("tls is for an https URL, and alertmanager.url is http".to_owned());
        }
        Ok(Some(AlertmanagerConfig {
            url,
            every,
            receiver: self.receiver,
            missed_after,
            unmuted: self.unmuted.unwrap_or(false),
            login,
            tls,
        }))
    }
}

fn login(
    basic: BasicSection,
    bearer: Option<String>,
    is_secret: impl Fn(&str) -> bool,
) -> Result<LoginConfig, String> {
    // What was written is not shown: it may be the secret itself.
    let named = |key: &str, secret: String| {
        if is_secret(&secret) {
            Ok(secret)
        } else {
            Err(format!(
                "{key} names no secret: expected the name of one under `http.secrets`, and not the secret itself"
            ))
        }
    };
    match (basic.username, basic.password, bearer) {
        (None, None, None) => Ok(LoginConfig::Nobody),
        (None, None, Some(secret)) => Ok(LoginConfig::Bearer {
            secret: named("bearer", secret)?,
        }),
        (Some(username), Some(secret), None) => {
            if username.is_empty() || username.contains(|c: char| c.is_control() || c == ':') {
                return Err(
                    "basic_auth.username is empty, or holds a colon or a control character"
                        .to_owned(),
                );
            }
            Ok(LoginConfig::Basic {
                username,
                secret: named("basic_auth.password", secret)?,
            })
        }
        (Some(_), None, None) => Err("basic_auth.password is missing: expected the name of the secret under `http.secrets` that holds it".to_owned()),
        (None, Some(_), None) => {
            Err("basic_auth.username is missing, and basic_auth.password is for it".to_owned())
        }
        (_, _, Some(_)) => {
            Err("basic_auth and bearer are both set: a request has one of them".to_owned())
        }
    }
}

fn tls(section: TlsSection, folder: &Path) -> Result<Option<Authority>, String> {
    let client = match (section.cert, section.key) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((folder.join(cert), folder.join(key))),
        (Some(_), None) => return Err("tls.key is missing, and tls.cert needs it".to_owned()),
        (None, Some(_)) => return Err("tls.cert is missing, and tls.key needs it".to_owned()),
    };
    let ca = section.ca.map(|ca| folder.join(ca));
    Ok((ca.is_some() || client.is_some()).then_some(Authority { ca, client }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<AlertmanagerConfig>, String> {
        let section: AlertmanagerSection = serde_saphyr::from_str(text).unwrap();
        section
            .resolve(Path::new("/etc/sentinel"), |name| name == "am")
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_is_read() {
        let config = read("{ url: 'https://am/x', every: 30s, receiver: r, missed_after: 2m, unmuted: true, basic_auth: { username: u, password: am }, tls: { ca: ca.pem, cert: c.pem, key: k.pem } }").unwrap().unwrap();
        assert_eq!(config.url.as_str(), "https://am/x/");
        assert_eq!(config.missed_after, Duration::from_mins(2));
        assert!(config.unmuted);
        assert_eq!(config.secret(), Some("am"));
        let settings = config.settings();
        assert!(settings.contains(&("tls.key", "/etc/sentinel/k.pem".to_owned())));
        assert!(settings.contains(&("basic_auth.password", "secret am".to_owned())));
        let login = config.login(Some("s3cret".to_owned())).unwrap();
        assert!(!format!("{login:?}").contains("s3cret"));
        let bearer = read("{ url: 'http://am', bearer: am }").unwrap().unwrap();
        assert_eq!(bearer.secret(), Some("am"));
        assert_eq!(bearer.missed_after, MISSED_AFTER);
        assert!(!bearer.unmuted);
        assert!(read("{}").unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        for (text, says) in [
            ("{ bearer: am }", "alertmanager.url is missing"),
            ("{ missed_after: 1m }", "alertmanager.url is missing"),
            (
                "{ url: 'http://u:s3cret@am' }",
                "use `alertmanager.basic_auth`",
            ),
            (
                "{ url: 'http://am', missed_after: 2d }",
                "alertmanager.missed_after must be",
            ),
            (
                "{ url: 'http://am', bearer: s3cret }",
                "alertmanager.bearer names no secret",
            ),
            (
                "{ url: 'http://am', basic_auth: { username: u } }",
                "basic_auth.password is missing",
            ),
            (
                "{ url: 'http://am', basic_auth: { password: am } }",
                "basic_auth.username is missing",
            ),
            (
                "{ url: 'http://am', basic_auth: { username: u, password: s3cret } }",
                "basic_auth.password names no secret",
            ),
            (
                "{ url: 'http://am', basic_auth: { username: 'a:b', password: am } }",
                "holds a colon",
            ),
            (
                "{ url: 'http://am', bearer: am, basic_auth: { username: u, password: am } }",
                "both set",
            ),
            (
                "{ url: 'http://am', tls: { ca: x } }",
                "tls is for an https URL",
            ),
            (
                "{ url: 'https://am', tls: { cert: x } }",
                "tls.key is missing",
            ),
            (
                "{ url: 'https://am', tls: { key: x } }",
                "tls.cert is missing",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
