//! The server that mail is sent by, as the configuration has it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sentinel_drivers::mail::{Login, MailServer, Security, Sender};
use serde::Deserialize;
use url::Host;

use super::ConfigError;

/// The server that mail is sent by, but for the password.
#[derive(Debug, Clone)]
pub(crate) struct MailConfig {
    /// Without its login.
    server: MailServer,
    /// Who logs in.
    login: Option<LoginConfig>,
}

#[derive(Debug, Clone)]
struct LoginConfig {
    username: String,
    /// The secret that is the password.
    secret: String,
}

impl MailConfig {
    /// Reads one that stands alone; `is_secret` knows the names of the secrets.
    pub(crate) fn read(text: &str, is_secret: impl Fn(&str) -> bool) -> Result<Self, ConfigError> {
        let section: MailSection =
            serde_saphyr::from_str(text).map_err(|error| ConfigError::Value(error.to_string()))?;
        let config = section.resolve(Path::new(""), is_secret)?;
        config.ok_or_else(|| ConfigError::Value("mail.server is missing".to_owned()))
    }

    /// The name of the secret that is the password. It is the server's alone: no request of
    /// a plugin is filled with it.
    pub(crate) fn secret(&self) -> Option<&str> {
        self.login.as_ref().map(|login| login.secret.as_str())
    }

    /// Every key with its value, as a person reads it; without what is not set.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let MailServer {
            host,
            port,
            security,
            login: _,
            from,
            ca,
            hello,
        } = &self.server;
        let mut settings = vec![
            ("server", host.clone()),
            ("port", port.to_string()),
            ("security", format!("{security:?}").to_lowercase()),
            ("from", from.to_string()),
            ("hello", hello.clone()),
        ];
        settings.extend(ca.iter().map(|path| ("ca", path.display().to_string())));
        if let Some(LoginConfig { username, secret }) = &self.login {
            settings.push(("username", username.clone()));
            settings.push(("password", format!("secret {secret}")));
        }
        settings
    }

    /// The server, with the password that the secret holds.
    pub(crate) fn with_password(&self, password: Option<String>) -> MailServer {
        let login = self.login.as_ref().zip(password);
        MailServer {
            login: login.map(|(login, password)| Login {
                username: login.username.clone(),
                password,
            }),
            ..self.server.clone()
        }
    }
}

/// See [`MailConfig`] and `docs/configuration.md`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MailSection {
    pub(super) server: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) security: Option<SecurityWord>,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) from: Option<String>,
    pub(super) ca: Option<PathBuf>,
    pub(super) hello: Option<String>,
}

/// [`Security`], as it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SecurityWord {
    #[default]
    StartTls,
    Tls,
    None,
}

impl FromStr for SecurityWord {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "starttls" => Ok(Self::StartTls),
            "tls" => Ok(Self::Tls),
            "none" => Ok(Self::None),
            _ => Err("expected starttls, tls or none".to_owned()),
        }
    }
}

impl SecurityWord {
    fn security(self) -> Security {
        match self {
            Self::StartTls => Security::StartTls,
            Self::Tls => Security::Tls,
            Self::None => Security::None,
        }
    }

    /// Where servers listen for this.
    fn port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Tls => 465,
            Self::None => 25,
        }
    }
}

impl MailSection {
    pub(super) fn resolve(
        self,
        folder: &Path,
        is_secret: impl Fn(&str) -> bool,
    ) -> Result<Option<MailConfig>, ConfigError> {
        let wrong = |what: String| ConfigError::Value(format!("mail.{what}"));
        let Some(host) = self.server else {
            let rest = [&self.username, &self.password, &self.from, &self.hello];
            let nothing = rest.iter().all(|given| given.is_none())
                && self.port.is_none()
                && self.security.is_none()
                && self.ca.is_none();
            return if nothing {
                Ok(None)
            } else {
                Err(wrong(
                    "server is missing, and the others need it".to_owned(),
                ))
            };
        };
        if host.parse::<IpAddr>().is_err() && Host::parse(&host).is_err() {
            return Err(wrong(
                "server is no host's name or address: expected one such as smtp.example.com, with the port in `port`"
                    .to_owned(),
            ));
        }
        let from = self.from.ok_or_else(|| {
            wrong("from is missing: expected who mails are from, such as 'Sentinel <sentinel@example.com>'".to_owned())
        })?;
        let from: Sender = from
            .parse()
            .map_err(|error| wrong(format!("from: {error}")))?;
        let security = self.security.unwrap_or_default();
        let login = login(self.username, self.password, is_secret).map_err(wrong)?;
        if login.is_some() && security == SecurityWord::None && !is_this_machine(&host) {
            return Err(wrong(format!(
                "security is none, which would show the password to everybody between here and {host}: set it to starttls or tls"
            )));
        }
        if self.ca.is_some() && security == SecurityWord::None {
            return Err(wrong(
                "ca is for a connection with TLS, and mail.security is none".to_owned(),
            ));
        }
        let hello = self.hello.unwrap_or_else(machine);
        if !is_host(&hello) {
            return Err(wrong(
                "hello is no host's name: expected that of this machine".to_owned(),
            ));
        }
        Ok(Some(MailConfig {
            server: MailServer {
                host,
                port: self.port.unwrap_or(security.port()),
                security: security.security(),
                login: None,
                from,
                ca: self.ca.map(|path| folder.join(path)),
                hello,
            },
            login,
        }))
    }
}

fn login(
    username: Option<String>,
    password: Option<String>,
    is_secret: impl Fn(&str) -> bool,
) -> Result<Option<LoginConfig>, String> {
    match (username, password) {
        (None, None) => Ok(None),
        (Some(_), None) => Err("password is missing: expected the name of the secret under `http.secrets` that holds it".to_owned()),
        (None, Some(_)) => Err("username is missing, and mail.password is for it".to_owned()),
        (Some(username), Some(_)) if username.is_empty() || username.contains(char::is_control) => {
            Err("username is empty or holds a control character".to_owned())
        }
        // What was written is not shown: it may be the password itself.
        (Some(_), Some(secret)) if !is_secret(&secret) => Err(
            "password names no secret: expected the name of one under `http.secrets`, and not the password itself".to_owned(),
        ),
        (Some(username), Some(secret)) => Ok(Some(LoginConfig { username, secret })),
    }
}

/// Whether what is sent there stays on this machine.
fn is_this_machine(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

fn is_host(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    !name.is_empty() && name.len() <= 253 && name.chars().all(plain)
}

/// What this machine calls itself, if that is a name to call oneself by.
fn machine() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| is_host(name))
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<MailConfig>, String> {
        let section: MailSection = serde_saphyr::from_str(text).unwrap();
        section
            .resolve(Path::new("/etc/sentinel"), |name| name == "smtp")
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_server_and_a_sender_are_enough() {
        let config = read("{ server: smtp.example.com, from: 'Sentinel <s@example.com>' }")
            .unwrap()
            .unwrap();
        assert_eq!(config.secret(), None);
        let server = config.with_password(None);
        assert_eq!(
            (server.host.as_str(), server.port),
            ("smtp.example.com", 587)
        );
        assert_eq!(server.security, Security::StartTls);
        assert_eq!(server.from.to_string(), "Sentinel <s@example.com>");
        assert!(server.login.is_none() && server.ca.is_none() && !server.hello.is_empty());
        assert!(read("{}").unwrap().is_none());
    }

    #[test]
    fn every_key_is_read() {
        let text = "{ server: '::1', port: 2525, security: tls, username: s, password: smtp, from: s@example.com, ca: ca.pem, hello: here.example.com }";
        let config = read(text).unwrap().unwrap();
        assert_eq!(config.secret(), Some("smtp"));
        let server = config.with_password(Some("s3cret".to_owned()));
        assert_eq!((server.host.as_str(), server.port), ("::1", 2525));
        assert_eq!(server.security, Security::Tls);
        assert_eq!(server.ca, Some(PathBuf::from("/etc/sentinel/ca.pem")));
        assert_eq!(server.hello, "here.example.com");
        assert!(!format!("{server:?}").contains("s3cret"));
        assert_eq!(server.login.unwrap().password, "s3cret");
        for (security, port) in [("tls", 465), ("none", 25), ("starttls", 587)] {
            let text = format!("{{ server: a, from: s@example.com, security: {security} }}");
            let server = read(&text).unwrap().unwrap().with_password(None);
            assert_eq!(server.port, port);
        }
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        for (text, says) in [
            ("{ port: 25 }", "mail.server is missing"),
            ("{ from: s@example.com }", "mail.server is missing"),
            ("{ server: a }", "mail.from is missing"),
            (
                "{ server: 'a:25', from: s@example.com }",
                "mail.server is no host",
            ),
            (
                "{ server: 'smtp://a', from: s@example.com }",
                "mail.server is no host",
            ),
            (
                "{ server: a, from: Sentinel }",
                "mail.from: \"Sentinel\" is no address",
            ),
            (
                "{ server: a, from: s@example.com, username: s }",
                "mail.password is missing",
            ),
            (
                "{ server: a, from: s@example.com, password: smtp }",
                "mail.username is missing",
            ),
            (
                "{ server: a, from: s@example.com, username: s, password: s3cret }",
                "mail.password names no secret",
            ),
            (
                "{ server: smtp.example.com, security: none, from: s@example.com, username: s, password: smtp }",
                "mail.security is none, which would show the password",
            ),
            (
                "{ server: 10.0.0.1, security: none, from: s@example.com, username: s, password: smtp }",
                "mail.security is none",
            ),
            (
                "{ server: a, security: none, from: s@example.com, ca: a.pem }",
                "mail.ca is for a connection with TLS",
            ),
            (
                "{ server: a, from: s@example.com, hello: 'a b' }",
                "mail.hello",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        for server in ["localhost", "127.0.0.1", "'::1'"] {
            let text = format!(
                "{{ server: {server}, security: none, from: s@example.com, username: s, password: smtp }}"
            );
            assert!(read(&text).is_ok(), "{server}");
        }
    }
}
