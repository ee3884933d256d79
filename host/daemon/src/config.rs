//! The daemon's configuration: one YAML file, and `SENTINEL_…` in the environment on
//! top of it. Read once, into types that hold only what is valid.

mod alertmanager;
mod edge;
mod live;
mod mail;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use minisign_verify::PublicKey;
use sentinel_core::capability::DockerAction;
use sentinel_core::duration::HumanDuration;
use sentinel_core::guard::settings::{Day, Maintenance, Moment, Window, WindowError};
use sentinel_core::id::PluginName;
use sentinel_core::lease::RESOLVE_TIMEOUT;
use sentinel_core::policy::{check_yaml, nearest};
use sentinel_drivers::ansible::InventorySource;
use sentinel_drivers::docker::{DockerHost, SshFiles, TlsFiles};
use sentinel_sandbox::gate::GateLimits;
use sentinel_sandbox::{Room, RunLimits};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::{MessageFormatter as _, UserMessageFormatter};

pub(crate) use self::alertmanager::AlertmanagerConfig;
use self::alertmanager::AlertmanagerSection;
use self::edge::Authorities;
pub(crate) use self::edge::{Access, Authority, is_loopback};
pub(crate) use self::live::{Pool, difference};
pub(crate) use self::mail::MailConfig;
use self::mail::MailSection;
use crate::telemetry;

/// What the daemon runs with. Paths are absolute, or relative to the working folder.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Who may use the API, where others than this machine can reach it.
    pub(crate) access: Option<Access>,
    /// What requests may call it by, beside the machine's own names and `listen`.
    pub(crate) allowed_hosts: Vec<Authority>,
    /// Where the journal is.
    pub(crate) data_dir: PathBuf,
    /// Where plugins are found.
    pub(crate) plugins_dir: PathBuf,
    /// Where policies are found.
    pub(crate) policies_dir: PathBuf,
    /// Docker hosts by name.
    pub(crate) docker_hosts: BTreeMap<String, DockerHost>,
    /// How playbooks are run.
    pub(crate) ansible: AnsibleConfig,
    /// Where the secrets are, by name: those that requests of plugins are filled with, and
    /// the mail server's password.
    pub(crate) secrets: BTreeMap<String, SecretSource>,
    /// The server that mail is sent by; none is sent where it is not set.
    pub(crate) mail: Option<MailConfig>,
    /// When another version of a plugin may serve.
    pub(crate) plugins: PluginsConfig,
    /// What is bounded.
    pub(crate) limits: Limits,
    /// When no policy does anything.
    pub(crate) maintenance: Vec<Maintenance>,
    /// Which Alertmanager is asked what still fires; none is asked where it is not set.
    pub(crate) alertmanager: Option<AlertmanagerConfig>,
    /// How long an alert holds that was posted as to an Alertmanager, without an end.
    pub(crate) resolve_timeout: Duration,
    /// How long alerts are kept that led to no incident.
    pub(crate) retention: Duration,
    /// What goes to stderr.
    pub(crate) log: LogConfig,
    /// How long a stop waits for runs that have begun.
    pub(crate) grace: Duration,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// In this file, which holds nothing else.
    File(PathBuf),
    /// In this variable of the environment.
    Env(String),
}

/// How playbooks are run.
#[derive(Debug, Clone)]
pub(crate) struct AnsibleConfig {
    /// The folder that `playbook` params are relative to.
    pub(crate) playbooks_dir: PathBuf,
    /// Ansible's inventories; none means Ansible's own default.
    pub(crate) inventory: Vec<InventorySource>,
    /// The program.
    pub(crate) program: PathBuf,
}

/// When another version of a plugin may serve, and what becomes of the one before it.
#[derive(Debug, Clone)]
pub(crate) struct PluginsConfig {
    /// What a plugin without a good signature may do.
    pub(crate) signatures: Signatures,
    /// Whose signatures are good: minisign's public keys.
    pub(crate) keys: Vec<PublicKey>,
    /// How many recorded runs a new version has to repeat before it serves.
    pub(crate) replay: u32,
    /// How a new version is watched.
    pub(crate) probation: ProbationConfig,
    /// How long runs of a version may go on after another has taken its place.
    pub(crate) drain: Duration,
}

/// What a plugin without a good signature may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Signatures {
    /// Serve: signatures are not looked at.
    #[default]
    Off,
    /// Serve, with a warning.
    Warn,
    /// Nothing.
    Enforce,
}

impl FromStr for Signatures {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "off" => Ok(Self::Off),
            "warn" => Ok(Self::Warn),
            "enforce" => Ok(Self::Enforce),
            _ => Err("expected off, warn or enforce".to_owned()),
        }
    }
}

/// How a new version of a plugin is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProbationConfig {
    /// For so many runs.
    pub(crate) runs: u32,
    /// And for no longer than that.
    pub(crate) within: Duration,
    /// After so many in which it broke down, the version before it serves again; never, if 0.
    pub(crate) faults: u32,
}

/// What is bounded.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Intake.
    pub(crate) intake: IntakeLimits,
    /// Each run of a plugin.
    pub(crate) plugin: PluginLimits,
    /// Each run of single plugins, where that is something else.
    pub(crate) plugins: BTreeMap<PluginName, RunBounds>,
    /// Effects, whatever policies say.
    pub(crate) guards: GuardLimits,
    /// How many incidents may be open.
    pub(crate) incidents: u32,
    /// How many connections may be open.
    pub(crate) connections: u32,
}

/// How many effects there may be, whatever policies and plugins say.
#[derive(Debug, Clone)]
pub(crate) struct GuardLimits {
    /// On one target.
    pub(crate) target_rate: Window,
    /// On all targets.
    pub(crate) total_rate: Window,
    /// What tells a person, which none of the others bounds.
    pub(crate) telling_rate: Window,
    /// On all targets, by the name of the effect, such as `docker.restart`; one that is
    /// not in here has no bound of its own.
    pub(crate) actions: BTreeMap<String, Window>,
}

/// What one delivery and all deliveries together may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IntakeLimits {
    /// The largest body.
    pub(crate) body: Bytes,
    /// How long a body may take to arrive.
    pub(crate) body_timeout: Duration,
    /// What all bodies together may hold in memory.
    pub(crate) memory: Bytes,
    /// How many accepted alerts may wait for the engine.
    pub(crate) backlog: u64,
}

/// What runs of plugins may take.
#[derive(Debug, Clone)]
pub(crate) struct PluginLimits {
    /// Each of them.
    pub(crate) run: RunBounds,
    /// Runs at the same time.
    pub(crate) runs: u32,
    /// Runs of one plugin at the same time; at most `runs`.
    pub(crate) runs_per_plugin: u32,
    /// Stack of each guest; wasmtime has one for all.
    pub(crate) stack: Bytes,
}

/// What one run of a plugin may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunBounds {
    /// Memory of the guest.
    pub(crate) memory: Bytes,
    /// Core modules that are instantiated in it.
    pub(crate) instances: u32,
    /// Its tables.
    pub(crate) tables: u32,
    /// Entries of each.
    pub(crate) table_entries: u32,
    /// Time on the processor.
    pub(crate) cpu: Duration,
    /// Resources of WASI that it holds at once.
    pub(crate) resources: u32,
    /// Calls to the host.
    pub(crate) calls: u32,
    /// How many of them that leave the sandbox are let through in a second.
    pub(crate) calls_per_second: u32,
    /// What one of them may pass.
    pub(crate) call_size: Bytes,
    /// Its params, as JSON.
    pub(crate) params: Bytes,
    /// Effects, whatever is granted.
    pub(crate) effects: u32,
    /// What it may log.
    pub(crate) log: Bytes,
    /// How many lines of it.
    pub(crate) log_lines: u32,
    /// What it may send and be sent by `http`.
    pub(crate) http: Bytes,
    /// What it may put on record.
    pub(crate) record: Bytes,
}

impl Default for RunBounds {
    fn default() -> Self {
        let (run, gate) = (RunLimits::default(), GateLimits::default());
        let bytes = |bytes: usize| Bytes(bytes as u64);
        Self {
            memory: bytes(run.room.memory),
            instances: run.room.instances,
            tables: run.room.tables,
            table_entries: run.room.table_entries,
            cpu: run.cpu,
            resources: run.resources,
            calls: run.calls,
            calls_per_second: run.call_rate,
            call_size: bytes(run.call_bytes),
            params: bytes(run.params_bytes),
            effects: gate.effects,
            log: bytes(run.log_bytes),
            log_lines: run.log_lines,
            http: bytes(gate.http_bytes),
            record: bytes(gate.record_bytes),
        }
    }
}

impl RunBounds {
    /// What the sandbox holds a run to; its time is the step's.
    pub(crate) fn run(&self) -> RunLimits {
        RunLimits {
            room: self.room(),
            cpu: self.cpu,
            resources: self.resources,
            calls: self.calls,
            call_rate: self.calls_per_second,
            call_bytes: self.call_size.size(),
            params_bytes: self.params.size(),
            log_bytes: self.log.size(),
            log_lines: self.log_lines,
            ..RunLimits::default()
        }
    }

    /// What it takes up.
    pub(crate) fn room(&self) -> Room {
        Room {
            memory: self.memory.size(),
            instances: self.instances,
            tables: self.tables,
            table_entries: self.table_entries,
        }
    }

    /// What the gate holds a run to.
    pub(crate) fn gate(&self) -> GateLimits {
        GateLimits {
            effects: self.effects,
            http_bytes: self.http.size(),
            answer_bytes: self.call_size.size(),
            record_bytes: self.record.size(),
            ..GateLimits::default()
        }
    }
}

impl Limits {
    /// What a run of this plugin may take.
    pub(crate) fn of(&self, plugin: &PluginName) -> &RunBounds {
        self.plugins.get(plugin).unwrap_or(&self.plugin.run)
    }

    /// What a run of any plugin may take up.
    pub(crate) fn room(&self) -> Room {
        let own = self.plugins.values().map(RunBounds::room);
        own.fold(self.plugin.run.room(), Room::around)
    }
}

/// What goes to stderr.
#[derive(Debug, Clone)]
pub(crate) struct LogConfig {
    /// A filter such as `info` or `info,sentinel=debug`.
    pub(crate) level: String,
    /// How lines look.
    pub(crate) format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is no log format: expected text or json")),
        }
    }
}

/// A number of bytes, written `32MiB`, `512KiB`, `1GiB` or plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl Bytes {
    /// The same as what memory is counted in.
    pub(crate) fn size(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let digits = s.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = s.get(digits.len()..).unwrap_or_default();
        let shift = match unit {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => 64,
        };
        digits
            .trim()
            .parse::<u64>()
            .ok()
            .filter(|_| shift < 64)
            .and_then(|number| number.checked_mul(1 << (shift % 64)))
            .map(Self)
            .ok_or_else(|| {
                format!("`{s}` is no size: expected a number and KiB, MiB or GiB, such as 32MiB")
            })
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Where to listen.
#[derive(Debug, Clone, Copy)]
struct Address(SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self).map_err(|_| {
            format!("`{s}` is no address: expected IP:PORT, such as 127.0.0.1:9095 or 0.0.0.0:9095")
        })
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// So many in so long, written `6/1h`.
#[derive(Debug, Clone, Copy)]
struct Rate(Window);

impl FromStr for Rate {
    type Err = WindowError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A time in which nothing is done, written as policies write it.
#[derive(Debug, Deserialize)]
#[serde(try_from = "MaintenanceSection")]
struct MaintenanceTime(Maintenance);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MaintenanceSection {
    days: Option<Vec<Day>>,
    from: Moment,
    to: Moment,
    zone: Option<String>,
}

impl TryFrom<MaintenanceSection> for MaintenanceTime {
    type Error = String;

    fn try_from(section: MaintenanceSection) -> Result<Self, Self::Error> {
        if section.days.as_ref().is_some_and(Vec::is_empty) {
            return Err("the list of days is empty: leave it out for every day".to_owned());
        }
        let days = section.days.unwrap_or_default();
        Maintenance::new(&days, section.from, section.to, section.zone.as_deref())
            .map(Self)
            .map_err(|error| error.to_string())
    }
}

/// [`MaintenanceTime`]s in a variable of the environment: the same YAML.
struct MaintenanceTimes(Vec<MaintenanceTime>);

impl FromStr for MaintenanceTimes {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let options = serde_saphyr::options! { with_snippet: false };
        serde_saphyr::from_str_with_options(s, options)
            .map(Self)
            .map_err(|error| said(&error))
    }
}

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretSourceVisitor)
    }
}

/// Takes care that no mistake shows a secret that stands in the file itself.
struct SecretSourceVisitor;

const SECRET_SOURCE: &str =
    "expected where the secret is, `{ file: PATH }` or `{ env: NAME }`, and not the secret itself";

impl<'de> Visitor<'de> for SecretSourceVisitor {
    type Value = SecretSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SECRET_SOURCE)
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<SecretSource, E> {
        Err(E::custom(SECRET_SOURCE))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretSource, A::Error> {
        let wrong = || serde::de::Error::custom(SECRET_SOURCE);
        let source = match map.next_key::<String>()?.as_deref() {
            Some("file") => SecretSource::File(map.next_value()?),
            Some("env") => SecretSource::Env(map.next_value()?),
            _ => return Err(wrong()),
        };
        match map.next_key::<IgnoredAny>()? {
            Some(_) => Err(wrong()),
            None => Ok(source),
        }
    }
}

/// The file as it is written; see [`Config`].
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: Option<Address>,
    access: Option<Access>,
    allowed_hosts: Vec<Authority>,
    data_dir: Option<PathBuf>,
    plugins_dir: Option<PathBuf>,
    policies_dir: Option<PathBuf>,
    docker: DockerSection,
    ansible: AnsibleSection,
    http: HttpSection,
    mail: MailSection,
    plugins: PluginsSection,
    limits: LimitsSection,
    maintenance: Vec<MaintenanceTime>,
    alertmanager: AlertmanagerSection,
    resolve_timeout: Option<HumanDuration>,
    retention: RetentionSection,
    log: LogSection,
    shutdown_grace: Option<HumanDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DockerSection {
    hosts: Option<BTreeMap<String, HostEntry>>,
}

/// A Docker host: a URL, or a URL with what is needed to reach it.
#[derive(Debug)]
struct HostEntry(HostSection);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostSection {
    url: String,
    tls: Option<TlsSection>,
    ssh: Option<SshSection>,
    #[serde(default)]
    insecure: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SshSection {
    identity: Option<PathBuf>,
    known_hosts: Option<PathBuf>,
}

impl FromStr for HostEntry {
    type Err = Infallible;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        Ok(Self(HostSection {
            url: url.to_owned(),
            tls: None,
            ssh: None,
            insecure: false,
        }))
    }
}

impl<'de> Deserialize<'de> for HostEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By hand, for an untagged enum would say of no mistake what it is.
        struct EntryVisitor;

        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = HostEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL such as unix:///var/run/docker.sock, or `url` with `tls`, `ssh` or `insecure`")
            }

            fn visit_str<E: de::Error>(self, url: &str) -> Result<HostEntry, E> {
                let Ok(entry) = url.parse();
                Ok(entry)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HostEntry, A::Error> {
                HostSection::deserialize(MapAccessDeserializer::new(map)).map(HostEntry)
            }
        }

        deserializer.deserialize_any(EntryVisitor)
    }
}

impl HostEntry {
    fn resolve(self, folder: &Path) -> DockerHost {
        let Self(section) = self;
        let tls = section.tls.map(|tls| TlsFiles {
            ca: folder.join(tls.ca),
            cert: folder.join(tls.cert),
            key: folder.join(tls.key),
        });
        let ssh = section.ssh.map(|ssh| SshFiles {
            identity: ssh.identity.map(|file| folder.join(file)),
            known_hosts: ssh.known_hosts.map(|file| folder.join(file)),
        });
        DockerHost {
            url: section.url,
            tls,
            ssh,
            insecure: section.insecure,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AnsibleSection {
    playbooks_dir: Option<PathBuf>,
    inventory: Option<Inventories>,
    program: Option<PathBuf>,
}

/// One inventory or a list of them, as they were written.
#[derive(Debug)]
struct Inventories(Vec<String>);

impl FromStr for Inventories {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Err("an inventory is a path, or a list of hosts with a comma in it".to_owned());
        }
        Ok(Self(vec![text.to_owned()]))
    }
}

impl<'de> Deserialize<'de> for Inventories {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sources;

        impl<'de> Visitor<'de> for Sources {
            type Value = Inventories;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, hosts such as 'web1,web2', or a list of such")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Inventories, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(
                self,
                mut items: A,
            ) -> Result<Inventories, A::Error> {
                let mut sources = Vec::new();
                while let Some(text) = items.next_element::<String>()? {
                    let Inventories(one) = text.parse().map_err(de::Error::custom)?;
                    sources.extend(one);
                }
                Ok(Inventories(sources))
            }
        }

        deserializer.deserialize_any(Sources)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpSection {
    secrets: BTreeMap<String, SecretSource>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PluginsSection {
    signatures: Option<Signatures>,
    keys: Vec<String>,
    replay: Option<u32>,
    probation: ProbationSection,
    drain: Option<HumanDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ProbationSection {
    runs: Option<u32>,
    within: Option<HumanDuration>,
    faults: Option<u32>,
}

impl PluginsSection {
    fn resolve(self) -> Result<PluginsConfig, ConfigError> {
        let keys = self
            .keys
            .iter()
            .map(|key| {
                PublicKey::from_base64(key.trim()).map_err(|error| {
                    ConfigError::Value(format!(
                        "plugins.keys has `{key}`, which is no public key of minisign ({error}): expected its last line, such as RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
                    ))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let signatures = self.signatures.unwrap_or_default();
        if signatures != Signatures::Off && keys.is_empty() {
            return Err(ConfigError::Value(
                "plugins.signatures is on, and plugins.keys names no key: no plugin could serve"
                    .to_owned(),
            ));
        }
        let probation = self.probation;
        Ok(PluginsConfig {
            signatures,
            keys,
            replay: self.replay.unwrap_or(0),
            probation: ProbationConfig {
                runs: probation.runs.unwrap_or(20),
                within: probation
                    .within
                    .map_or(Duration::from_hours(1), Duration::from),
                faults: probation.faults.unwrap_or(3),
            },
            drain: self.drain.map_or(Duration::from_mins(5), Duration::from),
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsSection {
    intake: IntakeSection,
    plugin: PluginSection,
    plugins: BTreeMap<String, RunSection>,
    guards: GuardsSection,
    incidents: Option<u32>,
    connections: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GuardsSection {
    target_rate: Option<Rate>,
    total_rate: Option<Rate>,
    telling_rate: Option<Rate>,
    actions: BTreeMap<String, Rate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RetentionSection {
    alerts: Option<HumanDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct IntakeSection {
    body: Option<Bytes>,
    body_timeout: Option<HumanDuration>,
    memory: Option<Bytes>,
    backlog: Option<u64>,
}

/// The sections that say what a run may take: `limits.plugin`, and those of single plugins.
macro_rules! run_sections {
    ($($field:ident: $type:ty),+ $(,)?) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct PluginSection {
            runs: Option<u32>,
            runs_per_plugin: Option<u32>,
            stack: Option<Bytes>,
            $($field: Option<$type>,)+
        }

        #[derive(Debug, Default, Clone, Copy, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct RunSection {
            $($field: Option<$type>,)+
        }

        impl RunSection {
            /// What is not written is as in `base`.
            fn resolve(self, base: &RunBounds) -> RunBounds {
                RunBounds {
                    $($field: self.$field.map_or(base.$field, Into::into),)+
                }
            }
        }

        impl From<&PluginSection> for RunSection {
            fn from(section: &PluginSection) -> Self {
                Self {
                    $($field: section.$field,)+
                }
            }
        }
    };
}

run_sections!(
    memory: Bytes,
    instances: u32,
    tables: u32,
    table_entries: u32,
    cpu: HumanDuration,
    resources: u32,
    calls: u32,
    calls_per_second: u32,
    call_size: Bytes,
    params: Bytes,
    effects: u32,
    log: Bytes,
    log_lines: u32,
    http: Bytes,
    record: Bytes,
);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LogSection {
    level: Option<String>,
    format: Option<LogFormat>,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not understood.
    #[error("{file}:{line}:{column}: {message}")]
    Source {
        /// The file.
        file: String,
        /// The line, counted from 1; 0 when it is not known.
        line: u64,
        /// The column, counted from 1; 0 when it is not known.
        column: u64,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// A variable of the environment is not understood.
    #[error("{name} in the environment: {error}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        error: String,
    },
    /// A value is out of its range.
    #[error("{0}")]
    Value(String),
    /// It would be open to others, and nothing says that it should be.
    #[error(
        "`listen: {0}` lets others than this machine in, and the API asks nobody who they are: whoever reaches it may pause, approve and install plugins; \
         that takes a line `access: open`"
    )]
    Open(SocketAddr),
}

impl Config {
    /// Reads `path`, then the environment through `variable`.
    pub(crate) fn read(
        path: &Path,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let bytes = std::fs::read(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let name = path.display().to_string();
        let mut file = parse(&name, &utf8(&name, bytes)?)?;
        overlay(&mut file, variable)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        file.resolve(folder)
    }
}

/// What the file says, if it is a text.
fn utf8(name: &str, bytes: Vec<u8>) -> Result<String, ConfigError> {
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..good).unwrap_or_default();
        let before = String::from_utf8_lossy(before);
        let line = before.split('\n').next_back().unwrap_or_default();
        let message = match error.as_bytes() {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "the file is in UTF-16: save it as UTF-8",
            _ => "what stands here is not UTF-8: save the file as UTF-8",
        };
        ConfigError::Source {
            file: name.to_owned(),
            line: before.matches('\n').count() as u64 + 1,
            column: line.chars().count() as u64 + 1,
            message: message.to_owned(),
        }
    })
}

/// Reads the file; one without any key is one with all defaults.
fn parse(name: &str, text: &str) -> Result<File, ConfigError> {
    // What is wrong with it as YAML is said in words of its own.
    check_yaml(name, text).map_err(|error| ConfigError::Source {
        file: name.to_owned(),
        line: error.line() as u64,
        column: error.column() as u64,
        message: match error.help() {
            Some(help) => format!("{}: {help}", error.message()),
            None => error.message().to_owned(),
        },
    })?;
    let options = serde_saphyr::options! { with_snippet: false };
    let file: Option<File> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let location = error.location();
            ConfigError::Source {
                file: name.to_owned(),
                line: location.map_or(0, |at| at.line()),
                column: location.map_or(0, |at| at.column()),
                message: said(&error),
            }
        })?;
    Ok(file.unwrap_or_default())
}

/// What the YAML library has against a value, for an operator: without the place, which is
/// said before it, and without what stands there, which may be a secret.
fn said(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error {
        Error::AliasError { error, .. } | Error::WithSnippet { error, .. } => said(error),
        Error::SerdeUnknownField {
            field, expected, ..
        } if field == "policies" => format!(
            "unknown key `policies`: policies stand in files of their own, in the folder `policies_dir`; valid keys: {}",
            expected.join(", ")
        ),
        Error::SerdeUnknownField {
            field, expected, ..
        } => unknown("key", field, "valid keys:", expected),
        Error::SerdeUnknownVariant {
            variant, expected, ..
        } => unknown("word", variant, "expected one of", expected),
        Error::SerdeMissingField { field, .. } => format!("missing key `{field}`"),
        Error::SerdeInvalidType {
            unexpected,
            expected,
            ..
        }
        | Error::SerdeInvalidValue {
            unexpected,
            expected,
            ..
        } => {
            // Texts come with what they say.
            let found = match unexpected.split_once(' ') {
                Some(("string", _)) => "a text",
                _ => unexpected,
            };
            format!("expected {expected}, found {found}")
        }
        Error::Unexpected { expected, .. } => match *expected {
            "mapping start" => {
                "expected a map of keys, such as `key: value`; one without keys is left out"
                    .to_owned()
            }
            "sequence start" => "expected a list, such as `[a, b]`".to_owned(),
            "string scalar" => "expected a text".to_owned(),
            "scalar" => "expected one value, and no list and no map".to_owned(),
            other => format!("expected {other}"),
        },
        Error::InvalidScalar { ty, .. } => match *ty {
            "u8" | "u16" | "u32" | "u64" => {
                let bits: u32 = ty.trim_start_matches('u').parse().unwrap_or(64);
                format!(
                    "expected a whole number from 0 to {}",
                    u64::MAX >> (64 - bits)
                )
            }
            "boolean" => "expected true or false".to_owned(),
            other => format!("expected {other}"),
        },
        Error::InvalidBooleanStrict { .. } => "expected true or false".to_owned(),
        Error::NullIntoString { .. } => "expected a text, found nothing".to_owned(),
        other => UserMessageFormatter.format_message(other).into_owned(),
    }
}

fn unknown(what: &str, word: &str, then: &str, known: &[&str]) -> String {
    let meant = nearest(word, known.iter().copied())
        .map(|meant| format!("did you mean `{meant}`? "))
        .unwrap_or_default();
    format!(
        "unknown {what} `{word}`: {meant}{then} {}",
        known.join(", ")
    )
}

/// A variable's value, if it is set, as what it should be.
fn parsed<T: FromStr>(
    name: &'static str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<T>, ConfigError>
where
    T::Err: fmt::Display,
{
    given(name, variable)?
        .map(|value| {
            value
                .parse()
                .map_err(|error: T::Err| ConfigError::Environment {
                    name,
                    error: format!("`{value}`: {error}"),
                })
        })
        .transpose()
}

/// A variable's value, if it is set. One in quotes is refused: `docker --env-file` and
/// systemd's kin do not take them away, and a path with quotes in it would be made.
fn given(
    name: &'static str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, ConfigError> {
    let value = variable(name);
    let quoted = |value: &&String| {
        let mut chars = value.chars();
        let ends = (chars.next(), chars.next_back());
        matches!(ends, (Some('"'), Some('"')) | (Some('\''), Some('\'')))
    };
    if let Some(value) = value.as_ref().filter(quoted) {
        return Err(ConfigError::Environment {
            name,
            error: format!("`{value}`: the quotes are part of the value: write it without them"),
        });
    }
    Ok(value)
}

fn overlay(file: &mut File, variable: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
    macro_rules! set {
        ($($name:literal => $($field:ident).+),+ $(,)?) => {
            $(if let Some(value) = parsed($name, variable)? {
                file.$($field).+ = Some(value);
            })+
        };
    }
    set!(
        "SENTINEL_LISTEN" => listen,
        "SENTINEL_ACCESS" => access,
        "SENTINEL_DATA_DIR" => data_dir,
        "SENTINEL_PLUGINS_DIR" => plugins_dir,
        "SENTINEL_POLICIES_DIR" => policies_dir,
        "SENTINEL_PLUGINS_SIGNATURES" => plugins.signatures,
        "SENTINEL_PLUGINS_REPLAY" => plugins.replay,
        "SENTINEL_PLUGINS_DRAIN" => plugins.drain,
        "SENTINEL_ANSIBLE_PLAYBOOKS_DIR" => ansible.playbooks_dir,
        "SENTINEL_ANSIBLE_INVENTORY" => ansible.inventory,
        "SENTINEL_ANSIBLE_PROGRAM" => ansible.program,
        "SENTINEL_MAIL_SERVER" => mail.server,
        "SENTINEL_MAIL_PORT" => mail.port,
        "SENTINEL_MAIL_SECURITY" => mail.security,
        "SENTINEL_MAIL_USERNAME" => mail.username,
        "SENTINEL_MAIL_PASSWORD" => mail.password,
        "SENTINEL_MAIL_FROM" => mail.from,
        "SENTINEL_MAIL_CA" => mail.ca,
        "SENTINEL_MAIL_HELLO" => mail.hello,
        "SENTINEL_LIMITS_INTAKE_BODY" => limits.intake.body,
        "SENTINEL_LIMITS_INTAKE_BODY_TIMEOUT" => limits.intake.body_timeout,
        "SENTINEL_LIMITS_INTAKE_MEMORY" => limits.intake.memory,
        "SENTINEL_LIMITS_INTAKE_BACKLOG" => limits.intake.backlog,
        "SENTINEL_LIMITS_PLUGIN_MEMORY" => limits.plugin.memory,
        "SENTINEL_LIMITS_PLUGIN_STACK" => limits.plugin.stack,
        "SENTINEL_LIMITS_PLUGIN_INSTANCES" => limits.plugin.instances,
        "SENTINEL_LIMITS_PLUGIN_TABLES" => limits.plugin.tables,
        "SENTINEL_LIMITS_PLUGIN_TABLE_ENTRIES" => limits.plugin.table_entries,
        "SENTINEL_LIMITS_PLUGIN_CPU" => limits.plugin.cpu,
        "SENTINEL_LIMITS_PLUGIN_RUNS" => limits.plugin.runs,
        "SENTINEL_LIMITS_PLUGIN_RUNS_PER_PLUGIN" => limits.plugin.runs_per_plugin,
        "SENTINEL_LIMITS_PLUGIN_CALLS" => limits.plugin.calls,
        "SENTINEL_LIMITS_PLUGIN_CALLS_PER_SECOND" => limits.plugin.calls_per_second,
        "SENTINEL_LIMITS_PLUGIN_CALL_SIZE" => limits.plugin.call_size,
        "SENTINEL_LIMITS_PLUGIN_RESOURCES" => limits.plugin.resources,
        "SENTINEL_LIMITS_PLUGIN_PARAMS" => limits.plugin.params,
        "SENTINEL_LIMITS_PLUGIN_EFFECTS" => limits.plugin.effects,
        "SENTINEL_LIMITS_PLUGIN_LOG" => limits.plugin.log,
        "SENTINEL_LIMITS_PLUGIN_LOG_LINES" => limits.plugin.log_lines,
        "SENTINEL_LIMITS_PLUGIN_HTTP" => limits.plugin.http,
        "SENTINEL_LIMITS_PLUGIN_RECORD" => limits.plugin.record,
        "SENTINEL_LIMITS_GUARDS_TARGET_RATE" => limits.guards.target_rate,
        "SENTINEL_LIMITS_GUARDS_TOTAL_RATE" => limits.guards.total_rate,
        "SENTINEL_LIMITS_GUARDS_TELLING_RATE" => limits.guards.telling_rate,
        "SENTINEL_LIMITS_INCIDENTS" => limits.incidents,
        "SENTINEL_LIMITS_CONNECTIONS" => limits.connections,
        "SENTINEL_ALERTMANAGER_URL" => alertmanager.url,
        "SENTINEL_ALERTMANAGER_EVERY" => alertmanager.every,
        "SENTINEL_ALERTMANAGER_RECEIVER" => alertmanager.receiver,
        "SENTINEL_ALERTMANAGER_MISSED_AFTER" => alertmanager.missed_after,
        "SENTINEL_ALERTMANAGER_UNMUTED" => alertmanager.unmuted,
        "SENTINEL_ALERTMANAGER_BASIC_AUTH_USERNAME" => alertmanager.basic_auth.username,
        "SENTINEL_ALERTMANAGER_BASIC_AUTH_PASSWORD" => alertmanager.basic_auth.password,
        "SENTINEL_ALERTMANAGER_BEARER" => alertmanager.bearer,
        "SENTINEL_ALERTMANAGER_TLS_CA" => alertmanager.tls.ca,
        "SENTINEL_ALERTMANAGER_TLS_CERT" => alertmanager.tls.cert,
        "SENTINEL_ALERTMANAGER_TLS_KEY" => alertmanager.tls.key,
        "SENTINEL_RESOLVE_TIMEOUT" => resolve_timeout,
        "SENTINEL_RETENTION_ALERTS" => retention.alerts,
        "SENTINEL_LOG_LEVEL" => log.level,
        "SENTINEL_LOG_FORMAT" => log.format,
        "SENTINEL_SHUTDOWN_GRACE" => shutdown_grace,
    );
    if let Some(Authorities(hosts)) = parsed("SENTINEL_ALLOWED_HOSTS", variable)? {
        file.allowed_hosts = hosts;
    }
    if let Some(hosts) = pairs("SENTINEL_DOCKER_HOSTS", "NAME=URL", variable)? {
        file.docker.hosts = Some(hosts);
    }
    if let Some(files) = pairs::<PathBuf>("SENTINEL_HTTP_SECRETS", "NAME=FILE", variable)? {
        file.http.secrets = files
            .into_iter()
            .map(|(name, path)| (name, SecretSource::File(path)))
            .collect();
    }
    if let Some(actions) = pairs("SENTINEL_LIMITS_GUARDS_ACTIONS", "NAME=RATE", variable)? {
        file.limits.guards.actions = actions;
    }
    if let Some(MaintenanceTimes(times)) = parsed("SENTINEL_MAINTENANCE", variable)? {
        file.maintenance = times;
    }
    Ok(())
}

/// A variable's value, if it is set, as pairs of a name and what it stands for.
fn pairs<T: FromStr>(
    name: &'static str,
    form: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<BTreeMap<String, T>>, ConfigError>
where
    T::Err: fmt::Display,
{
    let wrong = |error| ConfigError::Environment { name, error };
    let pair = |pair: &str| {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| wrong(format!("`{pair}` is not {form}")))?;
        let value = value
            .trim()
            .parse()
            .map_err(|error: T::Err| wrong(error.to_string()))?;
        Ok((key.trim().to_owned(), value))
    };
    given(name, variable)?
        .map(|value| value.split(',').map(pair).collect())
        .transpose()
}

/// A bare name is looked up in `PATH`; anything else is a path like any other.
fn program(folder: &Path, given: Option<PathBuf>) -> PathBuf {
    match given {
        Some(path) if path.components().count() > 1 => folder.join(path),
        Some(name) => name,
        None => PathBuf::from("ansible-playbook"),
    }
}

impl File {
    fn resolve(self, folder: &Path) -> Result<Config, ConfigError> {
        let path = |given: Option<PathBuf>, default: &str| {
            folder.join(given.unwrap_or_else(|| PathBuf::from(default)))
        };
        let time = |given: Option<HumanDuration>, default: u64| {
            given.map_or(Duration::from_secs(default), Duration::from)
        };
        let intake = self.limits.intake;
        let plugin = self.limits.plugin;
        let run = RunSection::from(&plugin).resolve(&RunBounds::default());
        let own = self.limits.plugins.into_iter().map(|(name, section)| {
            let plugin = PluginName::new(&*name).map_err(|error| {
                ConfigError::Value(format!("limits.plugins has `{name}`: {error}"))
            })?;
            Ok((plugin, section.resolve(&run)))
        });
        let own = own.collect::<Result<_, ConfigError>>()?;
        let runs = plugin.runs.unwrap_or(64);
        let secrets = &self.http.secrets;
        let is_secret = |name: &str| secrets.contains_key(name);
        let mail = self.mail.resolve(folder, is_secret)?;
        let listen = self.listen.map_or_else(
            || SocketAddr::from(([127, 0, 0, 1], 9095)),
            |address| address.0,
        );
        edge::check(listen, self.access)?;
        let alertmanager = self.alertmanager.resolve(folder, is_secret)?;
        let config = Config {
            listen,
            access: self.access,
            allowed_hosts: self.allowed_hosts,
            data_dir: path(self.data_dir, "data"),
            plugins_dir: path(self.plugins_dir, "plugins"),
            policies_dir: path(self.policies_dir, "policies"),
            docker_hosts: match self.docker.hosts {
                Some(hosts) => hosts
                    .into_iter()
                    .map(|(name, entry)| (name, entry.resolve(folder)))
                    .collect(),
                None => BTreeMap::from([(
                    "local".to_owned(),
                    "unix:///var/run/docker.sock".to_owned().into(),
                )]),
            },
            ansible: AnsibleConfig {
                playbooks_dir: path(self.ansible.playbooks_dir, "playbooks"),
                inventory: self
                    .ansible
                    .inventory
                    .map(|Inventories(sources)| sources)
                    .unwrap_or_default()
                    .iter()
                    .map(|source| InventorySource::new(source, folder))
                    .collect(),
                program: program(folder, self.ansible.program),
            },
            secrets: self
                .http
                .secrets
                .into_iter()
                .map(|(name, source)| match source {
                    SecretSource::File(path) => (name, SecretSource::File(folder.join(path))),
                    SecretSource::Env(_) => (name, source),
                })
                .collect(),
            mail,
            plugins: self.plugins.resolve()?,
            limits: Limits {
                intake: IntakeLimits {
                    body: intake.body.unwrap_or(Bytes(32 << 20)),
                    body_timeout: time(intake.body_timeout, 30),
                    memory: intake.memory.unwrap_or(Bytes(256 << 20)),
                    backlog: intake.backlog.unwrap_or(200_000),
                },
                plugin: PluginLimits {
                    run,
                    runs,
                    runs_per_plugin: plugin.runs_per_plugin.unwrap_or(runs.min(16)),
                    stack: plugin.stack.unwrap_or(Bytes(512 << 10)),
                },
                plugins: own,
                guards: self.limits.guards.resolve()?,
                incidents: self.limits.incidents.unwrap_or(10_000),
                connections: self.limits.connections.unwrap_or(1024),
            },
            maintenance: self
                .maintenance
                .into_iter()
                .map(|MaintenanceTime(maintenance)| maintenance)
                .collect(),
            alertmanager,
            resolve_timeout: self.resolve_timeout.map_or(RESOLVE_TIMEOUT, Duration::from),
            retention: time(self.retention.alerts, 30 * 24 * 60 * 60),
            log: LogConfig {
                level: self.log.level.unwrap_or_else(|| "info".to_owned()),
                format: self.log.format.unwrap_or(LogFormat::Text),
            },
            grace: time(self.shutdown_grace, 10),
        };
        config.in_range()
    }
}

/// A window of so many in an hour.
fn an_hour(max: u32) -> Window {
    Window {
        max,
        per: Duration::from_hours(1),
    }
}

impl GuardsSection {
    fn resolve(self) -> Result<GuardLimits, ConfigError> {
        let docker = DockerAction::ALL
            .into_iter()
            .filter(|action| action.is_effect())
            .map(DockerAction::call_name);
        let effects: Vec<_> = docker
            .chain(["ansible.run", "http.send", "mail.send"])
            .collect();
        if let Some(unknown) = self
            .actions
            .keys()
            .find(|name| !effects.contains(&name.as_str()))
        {
            return Err(ConfigError::Value(format!(
                "limits.guards.actions has `{unknown}`, which is no effect: expected one of {}",
                effects.join(", ")
            )));
        }
        let actions = self.actions.into_iter();
        Ok(GuardLimits {
            target_rate: self.target_rate.map_or(an_hour(20), |Rate(window)| window),
            total_rate: self.total_rate.map_or(an_hour(600), |Rate(window)| window),
            telling_rate: self
                .telling_rate
                .map_or(an_hour(600), |Rate(window)| window),
            actions: actions.map(|(name, Rate(window))| (name, window)).collect(),
        })
    }
}

impl Config {
    fn in_range(self) -> Result<Self, ConfigError> {
        let limits = &self.limits;
        let wrong = if limits.intake.body > limits.intake.memory {
            Some("limits.intake.body is more than limits.intake.memory")
        } else if limits.intake.body.0 == 0 || limits.intake.backlog == 0 {
            Some("limits.intake.body and limits.intake.backlog must not be zero")
        } else if limits.intake.body_timeout.is_zero() {
            Some("limits.intake.body_timeout must not be zero")
        } else if limits.plugin.runs == 0 || limits.plugin.runs > 1000 {
            Some("limits.plugin.runs must be from 1 to 1000")
        } else if !(1..=limits.plugin.runs).contains(&limits.plugin.runs_per_plugin) {
            Some("limits.plugin.runs_per_plugin must be from 1 to limits.plugin.runs")
        } else if !(64 << 10..=8 << 20).contains(&limits.plugin.stack.0) {
            Some("limits.plugin.stack must be from 64KiB to 8MiB")
        } else if limits.incidents == 0 {
            Some("limits.incidents must not be zero")
        } else if !(16..=65_536).contains(&limits.connections) {
            Some("limits.connections must be from 16 to 65536")
        } else if !(Duration::from_secs(1)..=Duration::from_hours(7 * 24))
            .contains(&self.resolve_timeout)
        {
            Some("resolve_timeout must be from 1s to 7d")
        } else if self.retention < Duration::from_hours(1) {
            Some("retention.alerts must be at least 1h")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err(ConfigError::Value(wrong.to_owned()));
        }
        let own = limits.plugins.iter();
        let own = own.map(|(name, bounds)| (format!("limits.plugins.{name}"), bounds));
        for (key, bounds) in own.chain([("limits.plugin".to_owned(), &limits.plugin.run)]) {
            let wrong = if bounds.memory.0 < 1 << 20 || bounds.memory.0 > 1 << 30 {
                "memory must be from 1MiB to 1GiB"
            } else if bounds.cpu.is_zero() {
                "cpu must not be zero"
            } else if bounds.calls == 0 || bounds.calls_per_second == 0 {
                "calls and calls_per_second must not be zero"
            } else if !(1..=1_000).contains(&bounds.instances) {
                "instances must be from 1 to 1000"
            } else if bounds.tables > 100 || bounds.table_entries > 1_000_000 {
                "tables may be 100, and table_entries 1000000"
            } else if !(16..=100_000).contains(&bounds.resources) {
                "resources must be from 16 to 100000"
            } else if !(64 << 10..=64 << 20).contains(&bounds.call_size.0) {
                "call_size must be from 64KiB to 64MiB"
            } else if bounds.params.0 < 1 << 10 || bounds.params > bounds.call_size {
                "params must be from 1KiB to call_size"
            } else if bounds.log.0 > 16 << 20 || bounds.http.0 > 64 << 20 {
                "log may be 16MiB and http 64MiB: all of it is on record"
            } else if !(1 << 20..=1 << 30).contains(&bounds.record.0) {
                "record must be from 1MiB to 1GiB"
            } else {
                continue;
            };
            return Err(ConfigError::Value(format!("{key}.{wrong}")));
        }
        telemetry::check(&self.log.level).map_err(ConfigError::Value)?;
        Ok(self)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// The configuration of a file with this text and of these variables, or what is
    /// said against it.
    pub(super) fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sentinel.yaml");
        std::fs::write(&path, text).unwrap();
        let variable = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Config::read(&path, &variable).map_err(|error| error.to_string())
    }

    fn window(text: &str) -> Window {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_left_out_is_bounded_all_the_same() {
        let config = read("", &[]).unwrap();
        let guards = &config.limits.guards;
        assert_eq!(guards.target_rate, window("20/1h"));
        assert_eq!(guards.total_rate, window("600/1h"));
        assert_eq!(guards.telling_rate, window("600/1h"));
        assert!(guards.actions.is_empty());
        assert_eq!(config.limits.plugin.runs_per_plugin, 16);
        assert_eq!(config.limits.incidents, 10_000);
        assert!(config.maintenance.is_empty());
        assert!(config.alertmanager.is_none());
        assert_eq!(config.resolve_timeout, Duration::from_mins(5));
        assert_eq!(config.retention, Duration::from_hours(30 * 24));
        // What follows from another limit follows it down.
        let few = read("limits: { plugin: { runs: 4 } }", &[]).unwrap();
        assert_eq!(few.limits.plugin.runs_per_plugin, 4);
    }

    #[test]
    fn each_limit_can_be_set_in_the_file_and_in_the_environment() {
        let file = "
limits:
  guards: { target_rate: 5/30m, total_rate: 100/1d, actions: { docker.restart: 60/1h, ansible.run: 1/1m } }
  plugin: { runs_per_plugin: 2 }
  incidents: 7
maintenance:
  - { days: [sun, sat], from: '22:00', to: '06:00', zone: Europe/Berlin }
  - { from: 2026-12-24T00:00:00Z, to: 2026-12-27T00:00:00Z }
alertmanager: { url: 'http://alertmanager:9093/prefix', every: 30s, receiver: sentinel, missed_after: 1m, unmuted: true, bearer: am }
http: { secrets: { am: { env: AM } } }
resolve_timeout: 2m
retention: { alerts: 7d }
";
        let variables = [
            ("SENTINEL_LIMITS_GUARDS_TARGET_RATE", "5/30m"),
            ("SENTINEL_LIMITS_GUARDS_TOTAL_RATE", "100/1d"),
            (
                "SENTINEL_LIMITS_GUARDS_ACTIONS",
                "docker.restart=60/1h, ansible.run=1/1m",
            ),
            ("SENTINEL_LIMITS_PLUGIN_RUNS_PER_PLUGIN", "2"),
            ("SENTINEL_LIMITS_INCIDENTS", "7"),
            (
                "SENTINEL_MAINTENANCE",
                "[{ days: [sun, sat], from: '22:00', to: '06:00', zone: Europe/Berlin }, { from: 2026-12-24T00:00:00Z, to: 2026-12-27T00:00:00Z }]",
            ),
            (
                "SENTINEL_ALERTMANAGER_URL",
                "http://alertmanager:9093/prefix",
            ),
            ("SENTINEL_ALERTMANAGER_EVERY", "30s"),
            ("SENTINEL_ALERTMANAGER_RECEIVER", "sentinel"),
            ("SENTINEL_ALERTMANAGER_MISSED_AFTER", "1m"),
            ("SENTINEL_ALERTMANAGER_UNMUTED", "true"),
            ("SENTINEL_ALERTMANAGER_BEARER", "am"),
            ("SENTINEL_HTTP_SECRETS", "am=am"),
            ("SENTINEL_RESOLVE_TIMEOUT", "2m"),
            ("SENTINEL_RETENTION_ALERTS", "7d"),
        ];
        // The second file says otherwise: the environment has the last word.
        let other = "
limits: { guards: { target_rate: 1/1h, actions: { docker.stop: 1/1h } }, incidents: 1 }
maintenance: [{ from: '00:00', to: '00:00' }]
alertmanager: { url: 'http://elsewhere', every: 5s }
";
        for (text, variables) in [(file, &[][..]), ("", &variables), (other, &variables)] {
            let config = read(text, variables).unwrap();
            let guards = &config.limits.guards;
            assert_eq!(guards.target_rate, window("5/30m"));
            assert_eq!(guards.total_rate, window("100/1d"));
            assert_eq!(
                guards.actions,
                BTreeMap::from([
                    ("ansible.run".to_owned(), window("1/1m")),
                    ("docker.restart".to_owned(), window("60/1h")),
                ])
            );
            assert_eq!(config.limits.plugin.runs_per_plugin, 2);
            assert_eq!(config.limits.incidents, 7);
            let maintenance: Vec<_> = config.maintenance.iter().map(ToString::to_string).collect();
            assert_eq!(
                maintenance,
                [
                    "sat, sun from 22:00 to 06:00 (Europe/Berlin)",
                    "from 2026-12-24T00:00:00Z to 2026-12-27T00:00:00Z",
                ]
            );
            let alertmanager = config.alertmanager.unwrap();
            assert_eq!(
                alertmanager.url.join("api/v2/alerts").unwrap().as_str(),
                "http://alertmanager:9093/prefix/api/v2/alerts"
            );
            assert_eq!(alertmanager.every, Duration::from_secs(30));
            assert_eq!(alertmanager.receiver.as_deref(), Some("sentinel"));
            assert_eq!(alertmanager.missed_after, Duration::from_mins(1));
            assert!(alertmanager.unmuted);
            assert_eq!(alertmanager.secret(), Some("am"));
            assert_eq!(config.resolve_timeout, Duration::from_mins(2));
            assert_eq!(config.retention, Duration::from_hours(7 * 24));
        }
    }

    #[test]
    fn a_limit_that_makes_no_sense_is_refused() {
        for (text, says) in [
            (
                "limits: { guards: { target_rate: 0/1h } }",
                "from 1 to 10000",
            ),
            ("limits: { guards: { total_rate: 600 } }", "6/1h"),
            ("limits: { guards: { telling_rate: 0/1h } }", "0/1h"),
            ("limits: { guards: { total_rate: 6/0s } }", "from 1s to 30d"),
            ("limits: { guards: { rate: 6/1h } }", "rate"),
            (
                "limits: { guards: { actions: { docker.restrat: 6/1h } } }",
                "`docker.restrat`, which is no effect: expected one of docker.start,",
            ),
            (
                "limits: { guards: { actions: { docker.inspect: 6/1h } } }",
                "no effect",
            ),
            (
                "limits: { plugin: { runs_per_plugin: 0 } }",
                "limits.plugin.runs_per_plugin",
            ),
            (
                "limits: { plugin: { runs: 4, runs_per_plugin: 5 } }",
                "limits.plugin.runs_per_plugin",
            ),
            ("limits: { incidents: 0 }", "limits.incidents"),
            ("maintenance: [{ from: '22:00' }]", "to"),
            ("maintenance: [{ from: '24:00', to: '06:00' }]", "24:00"),
            (
                "maintenance: [{ from: '22:00', to: '06:00', zone: Mars/Base }]",
                "Mars/Base",
            ),
            (
                "maintenance: [{ days: [sta], from: '22:00', to: '06:00' }]",
                "sta",
            ),
            (
                "maintenance: [{ days: [], from: '22:00', to: '06:00' }]",
                "every day",
            ),
            (
                "maintenance: [{ from: '22:00', to: '06:00', until: x }]",
                "until",
            ),
            ("resolve_timeout: 0s", "resolve_timeout must be"),
            ("retention: { alerts: 1m }", "retention.alerts must be"),
            ("alertmanager: { every: 1m }", "alertmanager.url"),
            (
                "alertmanager: { url: localhost:9093 }",
                "no http or https URL",
            ),
            ("alertmanager: { url: 'http://u:secret@am' }", "a password"),
            (
                "alertmanager: { url: 'http://am/?x=1' }",
                "more than a path",
            ),
            (
                "alertmanager: { url: 'http://am', every: 0s }",
                "alertmanager.every",
            ),
            (
                "alertmanager: { url: 'http://am', receiver: '' }",
                "alertmanager.receiver",
            ),
        ] {
            let error = read(text, &[]).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains("secret"), "{text}: {error}");
        }
        for (name, value, says) in [
            ("SENTINEL_LIMITS_GUARDS_TARGET_RATE", "often", "often"),
            (
                "SENTINEL_LIMITS_GUARDS_ACTIONS",
                "docker.restart",
                "NAME=RATE",
            ),
            (
                "SENTINEL_LIMITS_GUARDS_ACTIONS",
                "docker.restart=0/1h",
                "0/1h",
            ),
            (
                "SENTINEL_MAINTENANCE",
                "[{ from: noon, to: '13:00' }]",
                "noon",
            ),
        ] {
            let error = read("", &[(name, value)]).unwrap_err();
            assert!(error.contains(name) && error.contains(says), "{error}");
        }
    }

    #[test]
    fn secrets_are_named_with_the_place_where_they_are() {
        let file = "
http:
  secrets:
    chat-url: { file: secrets/chat-url }
    pager-key: { env: PAGER_KEY }
";
        let config = read(file, &[]).unwrap();
        let SecretSource::File(path) = &config.secrets["chat-url"] else {
            panic!("{config:?}");
        };
        assert!(path.is_absolute() && path.ends_with("secrets/chat-url"));
        let env = SecretSource::Env("PAGER_KEY".to_owned());
        assert_eq!(config.secrets["pager-key"], env);
        let variables = [("SENTINEL_HTTP_SECRETS", "chat-url=/run/secrets/chat, b=c")];
        let config = read(file, &variables).unwrap();
        assert_eq!(config.secrets.len(), 2);
        let path = SecretSource::File("/run/secrets/chat".into());
        assert_eq!(config.secrets["chat-url"], path);

        for text in [
            "http: { secrets: { chat-url: 'https://hooks.example.com/s3cret' } }",
            "http: { secrets: { chat-url: { value: s3cret } } }",
            "http: { secrets: { chat-url: { file: a, env: s3cret } } }",
            "http: { secrets: { chat-url: 5 } }",
            "http: { secret: { chat-url: { file: a } } }",
        ] {
            let error = read(text, &[]).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
            assert!(error.contains("sentinel.yaml:1:"), "{error}");
        }
    }

    /// Files, the place of what is wrong, and a part of what is said.
    const WRONG: &[(&str, &str, &str)] = &[
        (
            "listen: 127.0.0.1:1\nlisten: 127.0.0.1:2\n",
            "2:1: ",
            "duplicate key `listen`: it stands at 1:1 already; keep one of the two",
        ),
        (
            "limits:\n  incidents: 5\n  incidents: 6\n",
            "3:3: ",
            "duplicate key `incidents`: it stands at 2:3",
        ),
        (
            "docker:\n  hosts: { a: unix:///a, b: unix:///b, a: unix:///c }\n",
            "2:40: ",
            "duplicate key `a`",
        ),
        (
            "log: { level: info }\n---\nlisten: 127.0.0.1:2\n",
            "3:1: ",
            "more than one document in the file: expected one document",
        ),
        ("limits:\n\tincidents: 5\n", "2:", "tab"),
        ("log: { level: info\n", "1:6: ", "unclosed bracket"),
        ("listen: '127.0.0.1:1\n", "1:9: ", "unclosed quote"),
        (
            "log:\n   level: info\n  format: text\n",
            "3:3: ",
            "indentation",
        ),
        ("allowed_hosts: [*a]\n", "1:", "no `&` mark of this name"),
        ("? [a]\n: b\n", "1:", "expected a text as key, found a list"),
        (
            "lissten: 127.0.0.1:1\n",
            "1:1: ",
            "unknown key `lissten`: did you mean `listen`? valid keys: listen, access,",
        ),
        (
            "limits:\n  plugin:\n    memmory: 5MiB\n",
            "3:5: ",
            "unknown key `memmory`: did you mean `memory`? valid keys:",
        ),
        ("policies: []\n", "1:1: ", "in the folder `policies_dir`"),
        (
            "limits: 5\n",
            "1:9: ",
            "expected a map of keys, such as `key: value`",
        ),
        ("hello\n", "1:1: ", "expected a map of keys"),
        ("- listen: 127.0.0.1:1\n", "1:1: ", "expected a map of keys"),
        ("log: level\n", "1:6: ", "expected a map of keys"),
        (
            "log:\n  # level: info\nlisten:\n",
            "1:",
            "one without keys is left out",
        ),
        (
            "docker: { hosts: [a] }\n",
            "1:18: ",
            "expected a map of keys",
        ),
        (
            "maintenance: { from: '22:00' }\n",
            "1:14: ",
            "expected a list",
        ),
        ("data_dir: [a]\n", "1:11: ", "expected a text"),
        (
            "limits:\n  incidents: many\n",
            "2:14: ",
            "expected a whole number from 0 to 4294967295",
        ),
        (
            "limits: { incidents: -5 }\n",
            "1:22: ",
            "expected a whole number",
        ),
        (
            "limits: { incidents: 1.5 }\n",
            "1:22: ",
            "expected a whole number",
        ),
        (
            "log: { format: jsn }\n",
            "1:16: ",
            "unknown word `jsn`: did you mean `json`? expected one of text, json",
        ),
        (
            "maintenance: [{ days: [sta], from: '22:00', to: '06:00' }]\n",
            "1:24: ",
            "did you mean `sat`?",
        ),
        (
            "maintenance: [{ from: '22:00' }]\n",
            "1:",
            "missing key `to`",
        ),
        (
            "alertmanager: { url: 'http://am', unmuted: perhaps }\n",
            "1:44: ",
            "true or false",
        ),
        ("listen: 9095\n", "1:9: ", "expected IP:PORT"),
        ("shutdown_grace: 5\n", "1:17: ", "`5` has no unit"),
        // A mark at the beginning and Windows' ends of lines move nothing.
        (
            "\u{feff}log:\r\n  level: info\r\n  levl: debug\r\n",
            "3:3: ",
            "unknown key `levl`",
        ),
        (
            "\u{feff}log:\r\n  level: info\r\n  level: debug\r\n",
            "3:3: ",
            "duplicate key `level`",
        ),
        (
            "\u{feff}lissten: 127.0.0.1:1\n",
            "1:",
            "unknown key `lissten`",
        ),
    ];

    #[test]
    fn what_is_wrong_with_the_file_is_said_to_an_operator() {
        let mut bomb = "a: &a [x, x, x]\n".to_owned();
        for (before, c) in ('a'..='g').zip('b'..='h') {
            let aliases = format!("*{before}, ").repeat(9);
            writeln!(bomb, "{c}: &{c} [{aliases}]").unwrap();
        }
        let too_much = (
            bomb.as_str(),
            ":",
            "aliases unfold to too much: use fewer aliases",
        );
        for (text, place, says) in WRONG.iter().copied().chain([too_much]) {
            let error = read(text, &[]).unwrap_err();
            let place = format!("sentinel.yaml:{place}").replace("::", ":");
            assert!(
                error.contains(&place) && error.contains(says),
                "{text}: {error}"
            );
            assert!(!error.contains("at line"), "{text}: {error}");
        }
        for text in [
            "",
            "\n",
            "# nothing\n",
            "\u{feff}",
            "---\n",
            "---\nlog: { level: info }\n...\n",
            "\u{feff}log:\r\n  level: info\r\n",
            "log: &log { level: info }\n",
            "listen:\ndata_dir:\n",
        ] {
            let config = read(text, &[]);
            assert_eq!(config.unwrap().log.level, "info", "{text:?}");
        }
    }

    #[test]
    fn a_file_in_another_encoding_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sentinel.yaml");
        let utf16: Vec<u8> = "\u{feff}log: { level: info }"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        for (bytes, says) in [
            (&utf16[..], "1:1: the file is in UTF-16"),
            (
                &b"# a\n# caf\xe9\n"[..],
                "2:6: what stands here is not UTF-8",
            ),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = Config::read(&path, &|_| None).unwrap_err().to_string();
            assert!(error.contains(&format!("sentinel.yaml:{says}")), "{error}");
        }
    }

    #[test]
    fn quotes_around_a_variable_are_not_made_part_of_a_path() {
        for (name, value) in [
            ("SENTINEL_DATA_DIR", "\"/var/lib/sentinel\""),
            ("SENTINEL_LISTEN", "'127.0.0.1:9095'"),
            (
                "SENTINEL_DOCKER_HOSTS",
                "\"local=unix:///var/run/docker.sock\"",
            ),
        ] {
            let error = read("", &[(name, value)]).unwrap_err();
            assert!(
                error.contains(name) && error.contains("without them"),
                "{error}"
            );
        }
        // As a header of mail has it.
        let from = read("", &[("SENTINEL_MAIL_FROM", "\"A\" <a@example.com>")]);
        assert!(!from.unwrap_err().contains("quotes"));
    }

    #[test]
    fn a_mistake_has_a_place() {
        let error = read("limits:\n  guards:\n    target_rate: lots\n", &[]).unwrap_err();
        assert!(error.contains("sentinel.yaml:3:"), "{error}");
        let error = read("maintenance:\n  - { from: '22:00', to: 6am }\n", &[]).unwrap_err();
        assert!(error.contains("sentinel.yaml:2:"), "{error}");
    }
}
