//! What a policy allows its plugins to touch. Nothing is allowed that is not granted.
//!
//! Names are granted by glob: `?` is any one character, `*` any number of them, `**`
//! the same across `/`, `[a-z]` a class, `{a,b}` a choice, and a backslash takes the
//! next character literally. Neither `?` nor `*` stands for a `/`, only a class that
//! has it does (`[!x]` has everything but `x`). Case matters, and the whole name has to
//! fit.

mod ansible;
mod http;
mod mail;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};
use serde_with::{DeserializeFromStr, SerializeDisplay};

use crate::alert::Labels;
use crate::capability::{CapabilityError, DockerAction};
use crate::http::{HttpMethod, HttpRequest, HttpUrl};
use crate::mail::MailRequest;

pub use self::ansible::{
    AnsibleGrant, CONTAINER_VARIABLE, INCIDENT_VARIABLE, Refusal, host_name, limit_names,
    tag_problem, variable_problem,
};
pub use self::http::{HttpGrant, UrlPattern, UrlPatternError};
pub use self::mail::{AddressPattern, AddressPatternError};

/// A capability that a plugin imports, and that a policy therefore has to grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Import {
    /// A function of `sentinel:plugin/docker`.
    Docker(DockerAction),
    /// `sentinel:plugin/ansible`.
    Ansible,
    /// `sentinel:plugin/http`.
    Http,
    /// `sentinel:plugin/mail`.
    Mail,
    /// `sentinel:plugin/memory`.
    Memory,
}

impl Import {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        DockerAction::ALL.into_iter().map(Self::Docker).chain([
            Self::Ansible,
            Self::Http,
            Self::Mail,
            Self::Memory,
        ])
    }

    /// The import that is displayed as `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|import| import.to_string() == name)
    }
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker(action) => action.call_name(),
            Self::Ansible => "ansible.run",
            Self::Http => "http.send",
            Self::Mail => "mail.send",
            Self::Memory => "memory",
        })
    }
}

/// A pattern for names.
#[derive(Debug, Clone, SerializeDisplay, DeserializeFromStr)]
pub struct Glob {
    pattern: String,
    matcher: GlobMatcher,
}

impl Glob {
    /// Whether `name` as a whole fits.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.matcher.is_match(name)
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// The pattern as a regular expression, for those who cannot read globs.
    #[must_use]
    pub fn to_regex(&self) -> &str {
        self.matcher.glob().regex()
    }
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(pattern: &str) -> Result<Self, Self::Err> {
        if pattern.is_empty() {
            return Err(GlobError {
                reason: "it is empty".to_owned(),
            });
        }
        // Spelled out where the defaults differ between operating systems.
        let glob = GlobBuilder::new(pattern)
            .literal_separator(true)
            .backslash_escape(true)
            .case_insensitive(false)
            .build()
            .map_err(|error| GlobError {
                reason: error.kind().to_string(),
            })?;
        Ok(Self {
            pattern: pattern.to_owned(),
            matcher: glob.compile_matcher(),
        })
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)
    }
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for Glob {}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern is not valid: {reason}")]
pub struct GlobError {
    reason: String,
}

/// A label that a container has to carry: `key=value`, or `key` for any value.
#[derive(Debug, Clone, PartialEq, Eq, SerializeDisplay, DeserializeFromStr)]
pub struct LabelGrant {
    name: String,
    value: Option<String>,
}

impl LabelGrant {
    fn holds(&self, labels: &Labels) -> bool {
        labels
            .get(&self.name)
            .is_some_and(|found| self.value.as_ref().is_none_or(|value| value == found))
    }
}

impl FromStr for LabelGrant {
    type Err = LabelGrantError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (name, value) = match s.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (s, None),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(LabelGrantError);
        }
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }
}

impl fmt::Display for LabelGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.value
            .as_ref()
            .map_or(Ok(()), |value| write!(f, "={value}"))
    }
}

/// Why a text is no label of a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a label has no name: expected `key=value`, or `key` for any value")]
pub struct LabelGrantError;

/// What the plugins of a policy may touch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Containers; none are granted without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<DockerGrant>,
    /// Playbooks; none are granted without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ansible: Option<AnsibleGrant>,
    /// URLs, each grant with the methods and secrets that go with them; none are granted
    /// where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpGrant>,
    /// Who may be sent mail; nobody where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mail: Vec<AddressPattern>,
    /// Whether plugins may remember something under this policy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memory: bool,
}

/// Which containers, and what may be done with them. Of `containers` and `labels` at
/// least one says something, and each that does has to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerGrant {
    /// The hosts, by their names in the configuration: one of the patterns has to fit.
    pub hosts: Vec<Glob>,
    /// The containers' names: one of the patterns has to fit; none stand for any name.
    pub containers: Vec<Glob>,
    /// The containers' labels: all of them have to be there.
    pub labels: Vec<LabelGrant>,
    /// What may be done.
    pub actions: BTreeSet<DockerAction>,
    /// The labels that a new container may be given beside those of its model, by their
    /// names. Proxies, schedulers and updaters do what a label says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new_labels: Vec<Glob>,
}

/// The label by which Compose numbers the containers of a service: what tells a new one from
/// its model.
const COMPOSE_NUMBER: &str = "com.docker.compose.container-number";

/// A call that the policy does not grant: what was asked, and what is granted instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(String);

impl From<Denied> for CapabilityError {
    fn from(Denied(reason): Denied) -> Self {
        Self::Denied(reason)
    }
}

impl Grants {
    /// Whether `action` is granted on any container of `host`. All that can be asked of
    /// `docker.list`, whose rows [`Grants::sees_container`] then decides, and of any
    /// call before its container is known.
    pub fn allows_docker_host(&self, host: &str, action: DockerAction) -> Result<(), Denied> {
        let Some(grant) = &self.docker else {
            return Err(Denied(format!(
                "{} is not granted: the policy grants nothing of docker",
                action.call_name()
            )));
        };
        if !grant.actions.contains(&action) {
            return Err(Denied(format!(
                "{} is not granted: of docker, the policy grants the actions {}",
                action.call_name(),
                list(grant.actions.iter().map(|action| action.as_str()))
            )));
        }
        if !grant.hosts.iter().any(|glob| glob.matches(host)) {
            return Err(Denied(format!(
                "{} on host {} is not granted: the policy grants the hosts {}",
                action.call_name(),
                shown(host),
                list(&grant.hosts)
            )));
        }
        Ok(())
    }

    /// Whether `action` is granted on the container with this name and these labels.
    /// They must be those of the container that was found, never what a plugin called
    /// it.
    pub fn allows_docker(
        &self,
        host: &str,
        action: DockerAction,
        name: &str,
        labels: &Labels,
    ) -> Result<(), Denied> {
        self.allows_docker_host(host, action)?;
        match &self.docker {
            Some(grant) if !grant.covers(name, labels) => Err(Denied(format!(
                "{} on container {} is not granted: the policy grants containers {}",
                action.call_name(),
                shown(name),
                grant.containers_text()
            ))),
            _ => Ok(()),
        }
    }

    /// Whether a new container may be given the labels in `set`, which is made like one that
    /// has the labels in `like`: without a grant of its own none but what its model has, and
    /// its number in a service of Compose.
    pub fn allows_new_labels(&self, set: &Labels, like: &Labels) -> Result<(), Denied> {
        let granted = self.docker.iter().flat_map(|grant| &grant.new_labels);
        let granted: Vec<_> = granted.collect();
        let foreign = set.iter().find(|(name, value)| {
            like.get(*name) != Some(value)
                && *name != COMPOSE_NUMBER
                && !granted.iter().any(|glob| glob.matches(name))
        });
        let Some((name, _)) = foreign else {
            return Ok(());
        };
        let granted = if granted.is_empty() {
            "none (`new_labels`)".to_owned()
        } else {
            list(granted)
        };
        Err(Denied(format!(
            "docker.duplicate with the label {} is not granted: beside those of its model the policy grants a new container the labels {granted}",
            shown(name)
        )))
    }

    /// Whether the rows of a `docker.list` may show this container: whatever is not
    /// granted for anything is not seen either.
    #[must_use]
    pub fn sees_container(&self, host: &str, name: &str, labels: &Labels) -> bool {
        self.docker.as_ref().is_some_and(|grant| {
            grant.hosts.iter().any(|glob| glob.matches(host)) && grant.covers(name, labels)
        })
    }

    /// Whether the URL of a request may be taken from this secret. Asked first: what the
    /// secret holds decides the rest.
    pub fn allows_http_secret(&self, name: &str) -> Result<(), Denied> {
        http::allows_secret(&self.http, name)
    }

    /// Whether `request` is granted, which goes to `url`: its own, or what the secret that
    /// it names holds.
    pub fn allows_http(&self, request: &HttpRequest, url: &HttpUrl) -> Result<(), Denied> {
        http::allows(&self.http, request, url)
    }

    /// Whether a plugin is told what is answered to `request`, which goes to `url`. One that
    /// carried a secret is told only where its grant says so.
    #[must_use]
    pub fn shows_http_answer(&self, request: &HttpRequest, url: &HttpUrl) -> bool {
        http::shows_answer(&self.http, request, url)
    }

    /// Whether a redirect of `request` may be followed.
    #[must_use]
    pub fn allows_http_redirect(
        &self,
        request: &HttpRequest,
        method: HttpMethod,
        url: &HttpUrl,
    ) -> bool {
        http::allows_redirect(&self.http, request, method, url)
    }

    /// Whether every recipient of `request` is granted.
    pub fn allows_mail(&self, request: &MailRequest) -> Result<(), Denied> {
        mail::allows(&self.mail, request)
    }

    /// Those of `imports` that nothing here can satisfy, whatever a plugin asks.
    #[must_use]
    pub fn imports_missing(&self, imports: &BTreeSet<Import>) -> BTreeSet<Import> {
        let granted = |import: &Import| match import {
            Import::Docker(action) => self
                .docker
                .as_ref()
                .is_some_and(|grant| grant.actions.contains(action)),
            Import::Ansible => self.ansible.is_some(),
            Import::Http => !self.http.is_empty(),
            Import::Mail => !self.mail.is_empty(),
            Import::Memory => self.memory,
        };
        imports
            .iter()
            .filter(|import| !granted(import))
            .copied()
            .collect()
    }
}

impl DockerGrant {
    fn covers(&self, name: &str, labels: &Labels) -> bool {
        // Neither is a grant of nothing; policies with neither are refused when they
        // are read, but a journaled grant is read without that check.
        let says_something = !(self.containers.is_empty() && self.labels.is_empty());
        let named =
            self.containers.is_empty() || self.containers.iter().any(|glob| glob.matches(name));
        says_something && named && self.labels.iter().all(|label| label.holds(labels))
    }

    fn containers_text(&self) -> String {
        let mut parts = Vec::new();
        if !self.containers.is_empty() {
            parts.push(list(&self.containers));
        }
        if !self.labels.is_empty() {
            parts.push(format!("with the labels {}", list(&self.labels)));
        }
        parts.join(" ")
    }
}

/// Whether a relative path stays inside of where it starts.
fn is_inside(path: &str) -> bool {
    !path.contains('\\')
        && !path.contains(char::is_control)
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// A name that a plugin gave, fit for a message: one line, and not a long one.
fn shown(name: &str) -> String {
    let mut shown: String = name
        .chars()
        .take(128)
        .flat_map(char::escape_debug)
        .collect();
    if name.chars().nth(128).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

fn list(items: impl IntoIterator<Item = impl fmt::Display>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(patterns: &[&str]) -> Vec<Glob> {
        patterns
            .iter()
            .map(|pattern| pattern.parse().unwrap())
            .collect()
    }

    fn docker(containers: &[&str], labels: &[&str], actions: &[DockerAction]) -> Grants {
        Grants {
            docker: Some(DockerGrant {
                hosts: globs(&["local"]),
                containers: globs(containers),
                labels: labels.iter().map(|label| label.parse().unwrap()).collect(),
                actions: actions.iter().copied().collect(),
                new_labels: Vec::new(),
            }),
            ..Grants::default()
        }
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn patterns_stay_inside_a_path_component() {
        for (pattern, yes, no) in [
            ("nginx*", "nginx-1", "my-nginx"),
            ("web-?", "web-1", "web-10"),
            ("*.yml", "a.yml", "sub/a.yml"),
            ("**/*.yml", "sub/deep/a.yml", "sub/a.yaml"),
            ("sub/*", "sub/a", "sub/a/b"),
            ("a?b", "a-b", "a/b"),
            ("a[!/]b", "a-b", "a/b"),
            ("{web,db}-[0-9]", "db-1", "db-a"),
            ("Web", "Web", "web"),
            ("a\\*", "a*", "ab"),
            ("*", "..", "a/b"),
        ] {
            let glob: Glob = pattern.parse().unwrap();
            assert!(glob.matches(yes), "{pattern} on {yes}");
            assert!(!glob.matches(no), "{pattern} on {no}");
        }
        for pattern in ["", "[", "{a", "a\\"] {
            assert!(pattern.parse::<Glob>().is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_new_container_has_the_labels_of_its_model_and_those_that_are_granted() {
        let model = labels(&[("app", "web"), ("traefik.enable", "true")]);
        let grants = |new_labels: &[&str]| {
            let mut grants = docker(&["web*"], &[], &[DockerAction::Duplicate]);
            if let Some(grant) = &mut grants.docker {
                grant.new_labels = globs(new_labels);
            }
            grants
        };
        let allows = |granted: &[&str], set: (&str, &str)| {
            let granted = grants(granted);
            granted.allows_new_labels(&labels(&[set]), &model)
        };
        for set in [
            ("app", "web"),
            ("traefik.enable", "true"),
            ("com.docker.compose.container-number", "2"),
        ] {
            assert_eq!(allows(&[], set), Ok(()), "{set:?}");
        }
        // Neither another label nor another value of one that is there.
        for set in [
            ("traefik.http.routers.x.rule", "Host(`bank`)"),
            ("ofelia.job-exec.x.command", "sh"),
            ("app", "bank"),
            ("traefik.enable", "false"),
        ] {
            let denied = allows(&["com.example.*"], set).unwrap_err().to_string();
            assert!(
                denied.contains(set.0) && denied.contains("com.example.*"),
                "{denied}"
            );
            assert_eq!(
                allows(&["traefik.*", "{app,ofelia.*}"], set),
                Ok(()),
                "{set:?}"
            );
        }
        let denied = allows(&[], ("app", "bank")).unwrap_err().to_string();
        assert!(denied.contains("none (`new_labels`)"), "{denied}");
    }

    #[test]
    fn without_grants_nothing_is_allowed() {
        let none = Grants::default();
        for action in DockerAction::ALL {
            let denied = none.allows_docker("local", action, "nginx", &Labels::new());
            assert_eq!(
                denied.unwrap_err().to_string(),
                format!(
                    "{} is not granted: the policy grants nothing of docker",
                    action.call_name()
                )
            );
        }
        assert!(!none.sees_container("local", "nginx", &Labels::new()));
        assert_eq!(
            none.allows_ansible("a.yml").unwrap_err().to_string(),
            "ansible.run is not granted: the policy grants nothing of ansible"
        );
    }

    #[test]
    fn a_denial_says_what_is_granted() {
        let grants = docker(
            &["nginx*", "web-?"],
            &["sentinel=yes", "team"],
            &[DockerAction::Inspect, DockerAction::Restart],
        );
        let both = labels(&[("sentinel", "yes"), ("team", "x")]);
        let ask = |host, action, name, labels: &Labels| {
            grants
                .allows_docker(host, action, name, labels)
                .map_err(|denied| denied.to_string())
        };
        assert_eq!(ask("local", DockerAction::Restart, "nginx", &both), Ok(()));
        assert_eq!(
            ask("local", DockerAction::Kill, "nginx", &both).unwrap_err(),
            "docker.kill is not granted: of docker, the policy grants the actions inspect, restart"
        );
        assert_eq!(
            ask("prod", DockerAction::Restart, "nginx", &both).unwrap_err(),
            "docker.restart on host `prod` is not granted: the policy grants the hosts local"
        );
        assert_eq!(
            ask("local", DockerAction::Restart, "db\n", &both).unwrap_err(),
            "docker.restart on container `db\\n` is not granted: the policy grants containers nginx*, web-? with the labels sentinel=yes, team"
        );
    }

    #[test]
    fn names_and_all_labels_have_to_hold() {
        let both = docker(&["web"], &["a=1", "b"], &[]);
        let by_label = docker(&[], &["a=1"], &[]);
        let neither = docker(&[], &[], &[]);
        for (name, pairs, with_both, with_label) in [
            ("web", &[("a", "1"), ("b", "")][..], true, true),
            ("db", &[("a", "1"), ("b", "")][..], false, true),
            ("web", &[("a", "1")][..], false, true),
            ("web", &[("a", "2"), ("b", "")][..], false, false),
            ("web", &[][..], false, false),
        ] {
            let labels = labels(pairs);
            assert_eq!(
                both.sees_container("local", name, &labels),
                with_both,
                "{name} {pairs:?}"
            );
            assert_eq!(
                by_label.sees_container("local", name, &labels),
                with_label,
                "{name} {pairs:?}"
            );
            assert!(!neither.sees_container("local", name, &labels));
        }
    }

    #[test]
    fn missing_imports_are_those_that_no_call_could_use() {
        let grants = docker(&["web"], &[], &[DockerAction::Inspect]);
        let imports = BTreeSet::from([
            Import::Docker(DockerAction::Inspect),
            Import::Docker(DockerAction::Restart),
            Import::Ansible,
            Import::Http,
            Import::Mail,
            Import::Memory,
        ]);
        let missing: Vec<_> = grants
            .imports_missing(&imports)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            missing,
            [
                "docker.restart",
                "ansible.run",
                "http.send",
                "mail.send",
                "memory"
            ]
        );
    }

    #[test]
    fn grants_come_back_from_the_journal() {
        let grants = docker(&["web-*"], &["a=1", "b"], &[DockerAction::List]);
        let json = serde_json::to_string(&grants).unwrap();
        assert_eq!(
            json,
            r#"{"docker":{"hosts":["local"],"containers":["web-*"],"labels":["a=1","b"],"actions":["list"]}}"#
        );
        assert_eq!(serde_json::from_str::<Grants>(&json).unwrap(), grants);
    }
}
