//! Newtypes for the names and numbers that are easily mixed up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_with::{DeserializeFromStr, SerializeDisplay};
use sha2::{Digest as _, Sha256};

/// The number of an incident; counted from 1 in the order in which they opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncidentId(pub u64);

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for IncidentId {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self).map_err(|_| IdError {
            what: "incident",
            expected: "a number, as `sentinel incidents list` prints it",
            found: s.to_owned(),
        })
    }
}

/// One run of an incident, written `42.1`: the first run of incident 42.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, SerializeDisplay, DeserializeFromStr,
)]
pub struct RunId {
    /// The incident that the run serves.
    pub incident: IncidentId,
    /// The run's number inside its incident, counted from 1.
    pub number: u32,
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incident, self.number)
    }
}

impl FromStr for RunId {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.split_once('.')
            .and_then(|(incident, number)| {
                Some(Self {
                    incident: IncidentId(incident.parse().ok()?),
                    number: number.parse().ok()?,
                })
            })
            .ok_or_else(|| IdError {
                what: "run",
                expected: "an incident's number, a dot and the run's number, such as 42.1",
                found: s.to_owned(),
            })
    }
}

/// What was typed is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no {what} id: expected {expected}")]
pub struct IdError {
    what: &'static str,
    expected: &'static str,
    found: String,
}

/// A name that policies and plugins go by: 1 to 64 lower-case letters, digits and
/// dashes, the first one a letter.
fn is_name(s: &str) -> bool {
    s.len() <= 64
        && s.starts_with(|c: char| c.is_ascii_lowercase())
        && s.chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $type(String);

        impl $type {
            /// Takes the name if it is one.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                if is_name(&name) {
                    Ok(Self(name))
                } else {
                    Err(NameError { what: $what, found: name })
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Self::new(s)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// A policy's name; unique over all policy files.
    PolicyName,
    "policy"
);
name!(
    /// The name that a plugin says it has, and that policies call it by.
    PluginName,
    "plugin"
);

/// What was given is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{found}` is no {what} name: expected 1 to 64 lower-case letters, digits and dashes, beginning with a letter"
)]
pub struct NameError {
    what: &'static str,
    found: String,
}

/// A plugin as policies name it: `docker-restart`, which is whatever version serves, or
/// `docker-restart@sha256:…`, which is that very version.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, SerializeDisplay, DeserializeFromStr,
)]
pub struct PluginRef {
    /// Which plugin.
    pub name: PluginName,
    /// Which version of it, where it is not to be another.
    pub pin: Option<Digest>,
}

impl PluginRef {
    /// Whether a version of the plugin is one that is meant.
    #[must_use]
    pub fn takes(&self, digest: &Digest) -> bool {
        self.pin.is_none_or(|pin| pin == *digest)
    }
}

impl From<PluginName> for PluginRef {
    fn from(name: PluginName) -> Self {
        Self { name, pin: None }
    }
}

impl fmt::Display for PluginRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)?;
        match &self.pin {
            Some(pin) => write!(f, "@{pin}"),
            None => Ok(()),
        }
    }
}

/// What was given names no plugin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginRefError {
    /// What stands before the `@` is no name.
    #[error(transparent)]
    Name(NameError),
    /// What stands after it is no digest.
    #[error("`{0}` pins no version: expected a whole digest, `sha256:` and 64 hexadecimal digits")]
    Pin(String),
}

impl FromStr for PluginRef {
    type Err = PluginRefError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (name, pin) = match s.split_once('@') {
            Some((name, pin)) => (name, Some(pin)),
            None => (s, None),
        };
        let name = name.parse().map_err(PluginRefError::Name)?;
        let pin = pin
            .map(|pin| pin.parse().map_err(|_| PluginRefError::Pin(pin.to_owned())))
            .transpose()?;
        Ok(Self { name, pin })
    }
}

/// The SHA-256 of a plugin's bytes; which version acted is told by this alone.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, SerializeDisplay, DeserializeFromStr,
)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first 12 hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()
            .chars()
            .skip("sha256:".len())
            .take(12)
            .collect()
    }

    /// All 64 hexadecimal digits, for file names.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0
            .iter()
            .fold(String::with_capacity(64), |mut hex, byte| {
                // Writing to a String cannot fail.
                let _ok = write!(hex, "{byte:02x}");
                hex
            })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl FromStr for Digest {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let error = || IdError {
            what: "digest",
            expected: "`sha256:` and 64 hexadecimal digits",
            found: s.to_owned(),
        };
        let hex = s.strip_prefix("sha256:").ok_or_else(error)?;
        // Else `+f` would be a number too.
        if hex.len() != 64 || !hex.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(error());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            *byte = std::str::from_utf8(pair)
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or_else(error)?;
        }
        Ok(Self(bytes))
    }
}

/// What a policy acts on, for example `docker://local/nginx`: the thing that guards
/// count and lock.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, SerializeDisplay, DeserializeFromStr,
)]
pub struct Target {
    kind: String,
    host: String,
    name: String,
}

impl Target {
    /// What is before `://`: the kind of the target.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The host's name in the configuration.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The thing on that host; may be empty.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A container.
    #[must_use]
    pub fn container(host: &str, name: &str) -> Self {
        Self {
            kind: DOCKER.to_owned(),
            host: host.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Whether it is a container.
    #[must_use]
    pub fn is_container(&self) -> bool {
        self.kind == DOCKER
    }

    /// Whether the name of a container may be another spelling of another container's name:
    /// its id, or any prefix of that, is nothing but hexadecimal digits, and a Docker Engine
    /// takes it where no container has that name. Any other text is a container's name, or
    /// nothing at all.
    #[must_use]
    pub fn may_be_an_id(&self) -> bool {
        self.is_container()
            && (1..=64).contains(&self.name.len())
            && self.name.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// What guards count and lock where the target is no container: the host without what
    /// makes no other machine of it, which is the case of letters and a dot at the end; of a
    /// machine (`host://`) a port is not part either. What a container is, its host has to
    /// say.
    #[must_use]
    pub fn thing(&self) -> Self {
        if self.is_container() {
            return self.clone();
        }
        let mut host = self.host.as_str();
        if self.kind == MACHINE
            && let Some((machine, port)) = host.rsplit_once(':')
            && (1..=5).contains(&port.len())
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && (!machine.contains(':') || machine.ends_with(']'))
        {
            host = machine;
        }
        let plain = host.trim_end_matches('.');
        let host = if plain.is_empty() { host } else { plain };
        Self {
            host: host.to_lowercase(),
            ..self.clone()
        }
    }
}

/// The kind of targets that are containers.
const DOCKER: &str = "docker";
/// The kind of targets that are machines.
const MACHINE: &str = "host";

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.kind, self.host)?;
        if !self.name.is_empty() {
            write!(f, "/{}", self.name)?;
        }
        Ok(())
    }
}

impl FromStr for Target {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let error = || IdError {
            what: "target",
            expected: "KIND://HOST/NAME, such as docker://local/nginx",
            found: s.to_owned(),
        };
        let (kind, rest) = s.split_once("://").ok_or_else(error)?;
        let (host, name) = rest.split_once('/').unwrap_or((rest, ""));
        let printable = |part: &str| !part.chars().any(|c| c.is_control() || c.is_whitespace());
        if is_name(kind) && !host.is_empty() && printable(host) && printable(name) {
            Ok(Self {
                kind: kind.to_owned(),
                host: host.to_owned(),
                name: name.to_owned(),
            })
        } else {
            Err(error())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_named_with_or_without_its_version() {
        let digest = Digest::of(b"x");
        let pinned = format!("docker-restart@{digest}");
        let read: PluginRef = pinned.parse().unwrap();
        assert_eq!(read.pin, Some(digest));
        assert_eq!(read.to_string(), pinned);
        assert!(read.takes(&digest) && !read.takes(&Digest::of(b"y")));
        let read: PluginRef = "docker-restart".parse().unwrap();
        assert_eq!(read.to_string(), "docker-restart");
        assert!(read.takes(&digest));
    }

    #[test]
    fn a_machine_is_one_however_it_is_written() {
        let thing = |text: &str| text.parse::<Target>().unwrap().thing().to_string();
        for text in [
            "host://web1.example.com",
            "host://WEB1.Example.com",
            "host://web1.example.com.",
            "host://web1.example.com:9100",
            "host://Web1.example.com.:22",
        ] {
            assert_eq!(thing(text), "host://web1.example.com", "{text}");
        }
        assert_eq!(thing("host://[FE80::1]:9100"), "host://[fe80::1]");
        // Not a port: the last part of the address.
        assert_eq!(thing("host://fe80::1:9100"), "host://fe80::1:9100");
        // Two services of one machine are two things, and so are two names.
        assert_eq!(thing("service://Web1:8080/A"), "service://web1:8080/A");
        assert_eq!(thing("service://Web1.:8081"), "service://web1.:8081");
        // A container's host is a name of the configuration, and a container's name is
        // what it is.
        assert_eq!(thing("docker://Local/Web"), "docker://Local/Web");
        assert_eq!(thing("host://."), "host://.");
    }

    #[test]
    fn only_what_is_all_hexadecimal_can_be_an_id() {
        let may = |name: &str| Target::container("local", name).may_be_an_id();
        for name in ["db", "cafe", "1", "0123456789ab", &"f".repeat(64), "ABC"] {
            assert!(may(name), "{name}");
        }
        for name in ["", "web", "db-1", "/db", "0x12", &"f".repeat(65)] {
            assert!(!may(name), "{name}");
        }
        assert!(!"host://local/db".parse::<Target>().unwrap().may_be_an_id());
    }

    #[test]
    fn a_pin_is_a_whole_digest() {
        let hex = "0".repeat(64);
        for bad in [
            "1.2.0".to_owned(),
            "sha256:12".to_owned(),
            hex.clone(),
            format!("sha512:{hex}"),
            format!("sha256:{}", "+0".repeat(32)),
            String::new(),
        ] {
            let read = format!("x@{bad}").parse::<PluginRef>();
            assert_eq!(read, Err(PluginRefError::Pin(bad)));
        }
        let name = "X@sha256".parse::<PluginRef>();
        assert!(matches!(name, Err(PluginRefError::Name(_))));
    }
}
