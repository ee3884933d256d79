//! Who the daemon lets in: where it may listen, and by which names it may be called.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use url::Host;

use super::ConfigError;

/// Who may use the API, where others than this machine can reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Whoever reaches it.
    Open,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
        }
    }
}

impl FromStr for Access {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "open" => Ok(Self::Open),
            _ => Err(format!(
                "`{s}` is no kind of access: expected `open` (whoever reaches the port may do everything), or leave it out"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Access {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Whether an address is of this machine alone, in whatever form it is written.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Refuses to be open to others where nobody said that it should be.
pub(super) fn check(listen: SocketAddr, access: Option<Access>) -> Result<(), ConfigError> {
    match access {
        None if !is_loopback(listen.ip()) => Err(ConfigError::Open(listen)),
        Some(Access::Open) | None => Ok(()),
    }
}

/// A name, or an address, that requests may call the daemon by, as `Host` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    /// The name in small letters, or the address.
    pub(crate) host: Host,
    /// The port, where one is written.
    pub(crate) port: Option<u16>,
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => write!(f, "{}", self.host),
        }
    }
}

impl FromStr for Authority {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "`{s}` is no host: expected a name or an address as in a URL, such as sentinel, sentinel:9095 or [2001:db8::1]"
            )
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if s.is_empty() || !s.chars().all(plain) {
            return Err(wrong());
        }
        let (host, port) = match s.rfind(':') {
            // A colon inside the brackets is one of the address.
            Some(at) if !s.ends_with(']') => {
                let (host, port) = s.split_at(at);
                let digits = port.get(1..).unwrap_or_default();
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(wrong());
                }
                (host, Some(digits.parse().map_err(|_| wrong())?))
            }
            _ => (s, None),
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        match Host::parse(host).map_err(|_| wrong())? {
            Host::Domain(name) => Ok(Self {
                host: Host::Domain(name.to_ascii_lowercase()),
                port,
            }),
            host => Ok(Self { host, port }),
        }
    }
}

impl Authority {
    /// Its address, if it is one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match &self.host {
            Host::Ipv4(address) => Some(IpAddr::V4(*address)),
            Host::Ipv6(address) => Some(IpAddr::V6(*address)),
            Host::Domain(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Authority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// [`Authority`]s in a variable of the environment, with commas between them.
pub(super) struct Authorities(pub(super) Vec<Authority>);

impl FromStr for Authorities {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.split(',')
            .map(|host| host.trim().parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use super::*;

    #[test]
    fn others_are_let_in_only_where_the_configuration_says_so() {
        for own in [
            "127.0.0.1:9095",
            "127.8.8.8:1",
            "'[::1]:9095'",
            "'[::ffff:127.0.0.1]:9095'",
        ] {
            read(&format!("listen: {own}"), &[]).unwrap();
            read(&format!("listen: {own}\naccess: open"), &[]).unwrap();
        }
        for others in [
            "0.0.0.0:9095",
            "'[::]:9095'",
            "10.0.0.5:9095",
            "'[::ffff:10.0.0.5]:9095'",
            "'[fe80::1]:9095'",
            "'[::ffff:0.0.0.0]:9095'",
        ] {
            let error = read(&format!("listen: {others}"), &[]).unwrap_err();
            assert!(error.contains("access: open"), "{others}: {error}");
            let config = read(&format!("listen: {others}\naccess: open"), &[]).unwrap();
            assert_eq!(config.access, Some(Access::Open));
            let open = [("SENTINEL_ACCESS", "open")];
            read(&format!("listen: {others}"), &open).unwrap();
        }
        let error = read("", &[("SENTINEL_LISTEN", "0.0.0.0:9095")]).unwrap_err();
        assert!(error.contains("access: open"), "{error}");
        for wrong in [
            "access: yes",
            "access: closed",
            "access: Open",
            "access: true",
            "access: ''",
        ] {
            let error = read(wrong, &[]).unwrap_err();
            assert!(error.contains("open"), "{wrong}: {error}");
        }
    }

    #[test]
    fn hosts_are_names_and_addresses_with_and_without_a_port() {
        let config = read("allowed_hosts: [Sentinel, 'sentinel.example.com.:9095', '10.0.0.5', '[2001:DB8::1]:80']", &[]).unwrap();
        let hosts: Vec<_> = config
            .allowed_hosts
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            hosts,
            [
                "sentinel",
                "sentinel.example.com:9095",
                "10.0.0.5",
                "[2001:db8::1]:80"
            ]
        );
        let config = read("", &[("SENTINEL_ALLOWED_HOSTS", "a, b:1")]).unwrap();
        assert_eq!(config.allowed_hosts.len(), 2);
        for wrong in [
            "http://sentinel",
            "sentinel/",
            "a b",
            "",
            "*",
            "sentinel:",
            "sentinel:x",
            "a:99999",
            "u@h",
            "2001:db8::1",
        ] {
            let error = read(&format!("allowed_hosts: ['{wrong}']"), &[]).unwrap_err();
            assert!(error.contains("is no host"), "{wrong}: {error}");
        }
    }
}
