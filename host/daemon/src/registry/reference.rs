//! What a reference names: `ghcr.io/team/docker-restart:1.2.0`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use sentinel_core::id::Digest;

/// How references are written where a file could stand as well.
pub(crate) const SCHEME: &str = "oci://";

/// The host that people say for Docker Hub, and the one that answers for it.
const DOCKER_HUB: [&str; 2] = ["docker.io", "registry-1.docker.io"];

/// A version of something in a registry, or the name under which one is to be put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Which version of a repository is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version<'a> {
    /// Whatever has this name now.
    Tag(&'a str),
    /// That very manifest.
    Digest(Digest),
}

impl fmt::Display for Version<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl Reference {
    /// The registry's host, with its port where that is not the usual one: as it was written.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The host that is asked.
    pub(crate) fn api_host(&self) -> &str {
        match DOCKER_HUB {
            [said, answers] if said == self.host => answers,
            _ => &self.host,
        }
    }

    /// The path of the repository at its registry.
    pub(crate) fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one is named.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Which version; a digest goes before a tag. A reference without either is none.
    pub(crate) fn version(&self) -> Version<'_> {
        match (self.digest, &self.tag) {
            (Some(digest), _) => Version::Digest(digest),
            (None, tag) => Version::Tag(tag.as_deref().unwrap_or_default()),
        }
    }

    /// The same repository, and this very manifest of it.
    pub(crate) fn at(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// Whether the registry is on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let name = match self.host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.host.split(':').next().unwrap_or_default(),
        };
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// What was given is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` names nothing in a registry: {problem}")]
pub(crate) struct ReferenceError {
    found: String,
    problem: String,
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        parse(s.strip_prefix(SCHEME).unwrap_or(s)).map_err(|problem| ReferenceError {
            found: s.to_owned(),
            problem,
        })
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    const SUCH_AS: &str = "such as ghcr.io/team/docker-restart:1.2.0";
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest
                .parse()
                .map_err(|_| format!("after the @ a digest is expected, `sha256:` and 64 hexadecimal digits, and not `{digest}`"))?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    let (host, path) = rest
        .split_once('/')
        .ok_or_else(|| format!("expected a registry's host, a repository and a tag, {SUCH_AS}"))?;
    if !is_host(host) {
        return Err(format!(
            "`{host}` is no registry's host: name it first, with a dot or a port, {SUCH_AS}"
        ));
    }
    let (repository, tag) = match path.rsplit_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (path, None),
    };
    if !repository.split('/').all(is_component) || repository.len() > 255 {
        return Err(format!(
            "`{repository}` is no repository: expected lower-case letters, digits, `.`, `_`, `-` and slashes, {SUCH_AS}"
        ));
    }
    if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
        return Err(format!(
            "`{tag}` is no tag: expected 1 to 128 letters, digits, `.`, `_` and `-`, {SUCH_AS}"
        ));
    }
    if tag.is_none() && digest.is_none() {
        return Err(format!(
            "say which version, by a tag or by its digest, {SUCH_AS}"
        ));
    }
    Ok(Reference {
        host: host.to_owned(),
        repository: repository.to_owned(),
        tag: tag.map(ToOwned::to_owned),
        digest,
    })
}

/// A name with a dot, with a port, in brackets, or `localhost`; else it is taken for a part
/// of the repository whose host was left out.
fn is_host(host: &str) -> bool {
    let told_apart = host == "localhost" || host.contains(['.', ':', '[']);
    // Whatever else could stand in a URL's authority has no place here: no user, no path.
    let plain = host
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']'));
    told_apart && plain && url::Url::parse(&format!("https://{host}/")).is_ok()
}

/// Words of lower-case letters and digits, with one dot, one or two underscores or any
/// number of dashes between them.
fn is_component(component: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut between = component.split(good).filter(|part| !part.is_empty());
    component.starts_with(good)
        && component.ends_with(good)
        && between.all(|part| matches!(part, "." | "_" | "__") || part.chars().all(|c| c == '-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128
        && tag.starts_with(word)
        && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn references_are_read_as_they_are_written() {
        let digest = Digest::of(b"x");
        let pinned = format!("ghcr.io/team/sub/docker-restart:1.2.0@{digest}");
        for text in [
            "ghcr.io/team/docker-restart:1.2.0",
            "127.0.0.1:5000/x:latest",
            "localhost/x:1",
            "[::1]:5000/a__b/c-d.e:V_1",
            &pinned,
            pinned.as_str(),
        ] {
            assert_eq!(reference(text).to_string(), text);
            assert_eq!(reference(&format!("{SCHEME}{text}")), reference(text));
        }
        assert_eq!(reference(&pinned).version(), Version::Digest(digest));
        assert_eq!(reference(&pinned).repository(), "team/sub/docker-restart");
        let hub = reference("docker.io/team/x:1");
        assert_eq!(
            (hub.host(), hub.api_host()),
            ("docker.io", "registry-1.docker.io")
        );
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (text, loopback) in [
            ("localhost:5000/x:1", true),
            ("127.3.2.1:5000/x:1", true),
            ("[::1]:5000/x:1", true),
            ("localhost.example.com/x:1", false),
            ("10.0.0.1:5000/x:1", false),
            ("127.0.0.1.example.com/x:1", false),
        ] {
            assert_eq!(reference(text).is_loopback(), loopback, "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_told_why() {
        for (text, part) in [
            ("docker-restart", "a registry's host"),
            ("team/docker-restart:1", "is no registry's host"),
            ("user@ghcr.io/x:1", "after the @"),
            ("gh_cr.io/x:1", "is no registry's host"),
            ("ghcr.io/Team/x:1", "is no repository"),
            ("ghcr.io/team//x:1", "is no repository"),
            ("ghcr.io/../x:1", "is no repository"),
            ("ghcr.io/team/x", "which version"),
            ("ghcr.io/team/x:-1", "is no tag"),
            ("ghcr.io/team/x:a/b", "is no tag"),
            ("ghcr.io/team/x@sha256:12", "after the @"),
        ] {
            let said = text.parse::<Reference>().unwrap_err().to_string();
            assert!(said.contains(part), "{text}: {said}");
        }
    }
}
