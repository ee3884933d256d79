//! The daemon's configuration: one YAML file, and `SENTINEL_…` in the environment on
//! top of it. Read once, into types that hold only what is valid.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sentinel_core::duration::HumanDuration;
use serde::Deserialize;

use crate::telemetry;

/// What the daemon runs with. Paths are absolute, or relative to the working folder.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Where the journal is.
    pub(crate) data_dir: PathBuf,
    /// Where plugins are found.
    pub(crate) plugins_dir: PathBuf,
    /// Where policies are found.
    pub(crate) policies_dir: PathBuf,
    /// Docker hosts by name.
    pub(crate) docker_hosts: BTreeMap<String, String>,
    /// How playbooks are run.
    pub(crate) ansible: AnsibleConfig,
    /// What is bounded.
    pub(crate) limits: Limits,
    /// What goes to stderr.
    pub(crate) log: LogConfig,
    /// How long a stop waits for runs that have begun.
    pub(crate) grace: Duration,
}

/// How playbooks are run.
#[derive(Debug, Clone)]
pub(crate) struct AnsibleConfig {
    /// The folder that `playbook` params are relative to.
    pub(crate) playbooks_dir: PathBuf,
    /// Ansible's inventory; none means Ansible's own default.
    pub(crate) inventory: Option<PathBuf>,
    /// The program.
    pub(crate) program: PathBuf,
}

/// What is bounded.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Intake.
    pub(crate) intake: IntakeLimits,
    /// Each run of a plugin.
    pub(crate) plugin: PluginLimits,
}

/// What one delivery and all deliveries together may take.
#[derive(Debug, Clone)]
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

/// What one run of a plugin may take.
#[derive(Debug, Clone)]
pub(crate) struct PluginLimits {
    /// Memory of the guest.
    pub(crate) memory: Bytes,
    /// Time on the processor.
    pub(crate) cpu: Duration,
    /// Runs at the same time.
    pub(crate) runs: u32,
    /// Calls to the host.
    pub(crate) calls: u32,
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

/// The file as it is written; see [`Config`].
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: Option<Address>,
    data_dir: Option<PathBuf>,
    plugins_dir: Option<PathBuf>,
    policies_dir: Option<PathBuf>,
    docker: DockerSection,
    ansible: AnsibleSection,
    limits: LimitsSection,
    log: LogSection,
    shutdown_grace: Option<HumanDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DockerSection {
    hosts: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AnsibleSection {
    playbooks_dir: Option<PathBuf>,
    inventory: Option<PathBuf>,
    program: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsSection {
    intake: IntakeSection,
    plugin: PluginSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct IntakeSection {
    body: Option<Bytes>,
    body_timeout: Option<HumanDuration>,
    memory: Option<Bytes>,
    backlog: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PluginSection {
    memory: Option<Bytes>,
    cpu: Option<HumanDuration>,
    runs: Option<u32>,
    calls: Option<u32>,
}

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
}

impl Config {
    /// Reads `path`, then the environment through `variable`.
    pub(crate) fn read(
        path: &Path,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut file = parse(&path.display().to_string(), &text)?;
        overlay(&mut file, variable)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        file.resolve(folder)
    }
}

/// Reads the file; one without any key is one with all defaults.
fn parse(name: &str, text: &str) -> Result<File, ConfigError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let file: Option<File> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let location = error.location();
            ConfigError::Source {
                file: name.to_owned(),
                line: location.map_or(0, |at| at.line()),
                column: location.map_or(0, |at| at.column()),
                message: error.to_string(),
            }
        })?;
    Ok(file.unwrap_or_default())
}

/// A variable's value, if it is set, as what it should be.
fn parsed<T: FromStr>(
    name: &'static str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<T>, ConfigError>
where
    T::Err: fmt::Display,
{
    variable(name)
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
        "SENTINEL_DATA_DIR" => data_dir,
        "SENTINEL_PLUGINS_DIR" => plugins_dir,
        "SENTINEL_POLICIES_DIR" => policies_dir,
        "SENTINEL_ANSIBLE_PLAYBOOKS_DIR" => ansible.playbooks_dir,
        "SENTINEL_ANSIBLE_INVENTORY" => ansible.inventory,
        "SENTINEL_ANSIBLE_PROGRAM" => ansible.program,
        "SENTINEL_LIMITS_INTAKE_BODY" => limits.intake.body,
        "SENTINEL_LIMITS_INTAKE_BODY_TIMEOUT" => limits.intake.body_timeout,
        "SENTINEL_LIMITS_INTAKE_MEMORY" => limits.intake.memory,
        "SENTINEL_LIMITS_INTAKE_BACKLOG" => limits.intake.backlog,
        "SENTINEL_LIMITS_PLUGIN_MEMORY" => limits.plugin.memory,
        "SENTINEL_LIMITS_PLUGIN_CPU" => limits.plugin.cpu,
        "SENTINEL_LIMITS_PLUGIN_RUNS" => limits.plugin.runs,
        "SENTINEL_LIMITS_PLUGIN_CALLS" => limits.plugin.calls,
        "SENTINEL_LOG_LEVEL" => log.level,
        "SENTINEL_LOG_FORMAT" => log.format,
        "SENTINEL_SHUTDOWN_GRACE" => shutdown_grace,
    );
    if let Some(hosts) = variable("SENTINEL_DOCKER_HOSTS") {
        let hosts = hosts
            .split(',')
            .map(|host| {
                host.split_once('=')
                    .map(|(name, url)| (name.trim().to_owned(), url.trim().to_owned()))
                    .ok_or_else(|| ConfigError::Environment {
                        name: "SENTINEL_DOCKER_HOSTS",
                        error: format!("`{host}` is not NAME=URL"),
                    })
            })
            .collect::<Result<_, _>>()?;
        file.docker.hosts = Some(hosts);
    }
    Ok(())
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
        let config = Config {
            listen: self.listen.map_or_else(
                || SocketAddr::from(([127, 0, 0, 1], 9095)),
                |address| address.0,
            ),
            data_dir: path(self.data_dir, "data"),
            plugins_dir: path(self.plugins_dir, "plugins"),
            policies_dir: path(self.policies_dir, "policies"),
            docker_hosts: self.docker.hosts.unwrap_or_else(|| {
                BTreeMap::from([("local".to_owned(), "unix:///var/run/docker.sock".to_owned())])
            }),
            ansible: AnsibleConfig {
                playbooks_dir: path(self.ansible.playbooks_dir, "playbooks"),
                inventory: self
                    .ansible
                    .inventory
                    .map(|inventory| folder.join(inventory)),
                program: program(folder, self.ansible.program),
            },
            limits: Limits {
                intake: IntakeLimits {
                    body: intake.body.unwrap_or(Bytes(32 << 20)),
                    body_timeout: time(intake.body_timeout, 30),
                    memory: intake.memory.unwrap_or(Bytes(256 << 20)),
                    backlog: intake.backlog.unwrap_or(200_000),
                },
                plugin: PluginLimits {
                    memory: plugin.memory.unwrap_or(Bytes(64 << 20)),
                    cpu: time(plugin.cpu, 5),
                    runs: plugin.runs.unwrap_or(64),
                    calls: plugin.calls.unwrap_or(10_000),
                },
            },
            log: LogConfig {
                level: self.log.level.unwrap_or_else(|| "info".to_owned()),
                format: self.log.format.unwrap_or(LogFormat::Text),
            },
            grace: time(self.shutdown_grace, 10),
        };
        config.in_range()
    }
}

impl Config {
    fn in_range(self) -> Result<Self, ConfigError> {
        let limits = &self.limits;
        let wrong = if limits.intake.body > limits.intake.memory {
            Some("limits.intake.body is more than limits.intake.memory")
        } else if limits.intake.body.0 == 0 || limits.intake.backlog == 0 {
            Some("limits.intake.body and limits.intake.backlog must not be zero")
        } else if limits.intake.body_timeout.is_zero()
            || limits.plugin.cpu.is_zero()
            || limits.plugin.calls == 0
        {
            Some(
                "limits.intake.body_timeout, limits.plugin.cpu and limits.plugin.calls must not be zero",
            )
        } else if limits.plugin.runs == 0 || limits.plugin.runs > 1000 {
            Some("limits.plugin.runs must be from 1 to 1000")
        } else if limits.plugin.memory.0 < 1 << 20 || limits.plugin.memory.0 > 1 << 30 {
            Some("limits.plugin.memory must be from 1MiB to 1GiB")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err(ConfigError::Value(wrong.to_owned()));
        }
        telemetry::check(&self.log.level).map_err(ConfigError::Value)?;
        Ok(self)
    }
}
