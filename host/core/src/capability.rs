//! What a plugin can ask of the host, as data: every request and answer that passes
//! the gate is one of these, and is journaled in this form.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alert::Labels;
pub use crate::http::Blob;
use crate::http::{HttpPlace, HttpRequest, HttpResponse};
use crate::id::Digest;
use crate::mail::{MailReceipt, MailRequest};

/// Why a capability did not do what it was asked; `sentinel:plugin/types`
/// `capability-error`, where each case is explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "error", content = "message", rename_all = "kebab-case")]
pub enum CapabilityError {
    /// Not granted, or a limit forbids it.
    #[error("denied: {0}")]
    Denied(String),
    /// The thing that was named does not exist.
    #[error("not found: {0}")]
    NotFound(String),
    /// The request is malformed.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The other side cannot be reached or refuses for now.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// No answer came in time; the effect may have happened.
    #[error("timed out: {0}")]
    TimedOut(String),
    /// The other side tried and failed.
    #[error("failed: {0}")]
    Failed(String),
}

/// How many bytes of what a capability says went wrong are kept.
pub const ERROR_LIMIT: usize = 4 << 10;

impl CapabilityError {
    /// The same with no more than [`ERROR_LIMIT`] bytes of message: what a plugin passed, or
    /// what a server said, may be in it.
    #[must_use]
    pub fn cut(self) -> Self {
        let cut = |text: String| {
            if text.len() <= ERROR_LIMIT {
                text
            } else {
                format!("{}…", beginning(&text, ERROR_LIMIT))
            }
        };
        match self {
            Self::Denied(text) => Self::Denied(cut(text)),
            Self::NotFound(text) => Self::NotFound(cut(text)),
            Self::Invalid(text) => Self::Invalid(cut(text)),
            Self::Unavailable(text) => Self::Unavailable(cut(text)),
            Self::TimedOut(text) => Self::TimedOut(cut(text)),
            Self::Failed(text) => Self::Failed(cut(text)),
        }
    }
}

/// As much of `text` as fits into `bytes`, in whole characters.
fn beginning(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// What the gate lets through or refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Request {
    /// A call of `sentinel:plugin/docker`.
    Docker(DockerRequest),
    /// A call of `sentinel:plugin/ansible`.
    Ansible(AnsibleRequest),
    /// A call of `sentinel:plugin/http`.
    Http(Box<HttpRequest>),
    /// A call of `sentinel:plugin/mail`.
    Mail(Box<MailRequest>),
    /// A call of `sentinel:plugin/memory`.
    Memory(MemoryCall),
}

impl Request {
    /// Whether the call changes something outside.
    #[must_use]
    pub fn is_effect(&self) -> bool {
        match self {
            Self::Docker(request) => request.call.action().is_effect(),
            Self::Ansible(_) | Self::Mail(_) => true,
            Self::Http(request) => request.method.is_effect(),
            // What is set is the plugin's own, and takes effect when the run has ended well.
            Self::Memory(_) => false,
        }
    }

    /// The call's name, for example `docker.restart`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Docker(request) => request.call.action().call_name(),
            Self::Ansible(_) => "ansible.run",
            Self::Http(_) => "http.send",
            Self::Mail(_) => "mail.send",
            Self::Memory(call) => call.name(),
        }
    }

    /// What the call is about, for people: `docker.restart local/nginx`. No longer than
    /// [`SUMMARY_LIMIT`] characters, whatever a plugin asks for.
    #[must_use]
    pub fn summary(&self) -> String {
        let summary = self.whole_summary();
        match summary.char_indices().nth(SUMMARY_LIMIT - 1) {
            Some((end, _)) if summary.chars().nth(SUMMARY_LIMIT).is_some() => {
                format!("{}…", summary.get(..end).unwrap_or_default())
            }
            _ => summary,
        }
    }

    fn whole_summary(&self) -> String {
        match self {
            Self::Docker(request) => {
                let container = request.call.container().unwrap_or("");
                let made = match &request.call {
                    DockerCall::Duplicate { name, .. } => format!(" as {name}"),
                    _ => String::new(),
                };
                format!("{} {}/{container}{made}", self.name(), request.host)
            }
            Self::Ansible(request) => format!("{} {}", self.name(), request.playbook),
            Self::Http(request) => {
                let place = request.url.summary();
                format!("{} {} {place}", self.name(), request.method)
            }
            Self::Mail(request) => format!("{} {}", self.name(), request.recipients_text()),
            Self::Memory(call) => format!("{} {}", self.name(), call.about()),
        }
    }

    /// What the record has of a request that was refused: all of it when it is short, else
    /// its beginning, with the digest of the whole. So a plugin that is refused again and
    /// again leaves little behind, and a replay can still tell whether it asks for the same.
    #[must_use]
    pub fn refused(&self) -> (Self, Option<Digest>) {
        // Every map in it has text for keys, so this cannot fail.
        let whole = serde_json::to_vec(self).unwrap_or_default();
        if whole.len() <= REFUSED_LIMIT {
            return (self.clone(), None);
        }
        let mut short = self.clone();
        short.shorten(&mut Room(REFUSED_LIMIT));
        (short, Some(Digest::of(&whole)))
    }

    fn shorten(&mut self, room: &mut Room) {
        match self {
            Self::Docker(asked) => {
                room.cut(&mut asked.host);
                match &mut asked.call {
                    DockerCall::List { labels, .. } => room.keep_labels(labels),
                    DockerCall::Inspect { container }
                    | DockerCall::Logs { container, .. }
                    | DockerCall::Start { container }
                    | DockerCall::Stop { container, .. }
                    | DockerCall::Restart { container, .. }
                    | DockerCall::Recreate { container, .. }
                    | DockerCall::Remove { container, .. } => room.cut(container),
                    DockerCall::Kill { container, signal } => {
                        room.cut(container);
                        room.cut(signal);
                    }
                    DockerCall::Duplicate {
                        container,
                        name,
                        labels,
                    } => {
                        room.cut(container);
                        room.cut(name);
                        room.keep_labels(labels);
                    }
                }
            }
            Self::Ansible(asked) => {
                room.cut(&mut asked.playbook);
                if let Some(limit) = &mut asked.limit {
                    room.cut(limit);
                }
                asked.tags.retain(|tag| room.fits(tag.len()));
                asked
                    .extra_vars
                    .retain(|name, value| room.fits(name.len() + value.to_string().len()));
            }
            Self::Http(asked) => {
                if let HttpPlace::Url(url) = &asked.url
                    && !room.fits(url.as_url().as_str().len())
                {
                    asked.url = HttpPlace::Url(url.origin());
                }
                asked
                    .headers
                    .retain(|header| room.fits(header.name.len() + header.value.len()));
                asked
                    .secret_fields
                    .retain(|field| room.fits(field.pointer.len() + field.secret.len()));
                room.cut_bytes(&mut asked.body.0);
            }
            Self::Mail(asked) => {
                asked.to.retain(|to| room.fits(to.as_str().len()));
                asked.cc.retain(|cc| room.fits(cc.as_str().len()));
                room.cut(&mut asked.subject);
                room.cut(&mut asked.text);
            }
            Self::Memory(asked) => match asked {
                MemoryCall::Get { key } | MemoryCall::Forget { key } => room.cut(key),
                MemoryCall::Keys { prefix } => room.cut(prefix),
                MemoryCall::Set { key, value } => {
                    room.cut(key);
                    room.cut_bytes(&mut value.0);
                }
            },
        }
    }
}

/// How many characters a call's summary may have.
pub const SUMMARY_LIMIT: usize = 200;

/// How many bytes of a request that was refused are kept, as JSON.
const REFUSED_LIMIT: usize = 1024;

/// What is left of the bytes that are kept.
struct Room(usize);

impl Room {
    /// Takes `bytes`, if they fit.
    fn fits(&mut self, bytes: usize) -> bool {
        match self.0.checked_sub(bytes) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }

    fn cut(&mut self, text: &mut String) {
        if !self.fits(text.len()) {
            text.truncate(beginning(text, self.0).len());
            self.0 -= text.len();
            text.push('…');
        }
    }

    fn cut_bytes(&mut self, bytes: &mut Vec<u8>) {
        if !self.fits(bytes.len()) {
            // Text stays text, which takes half the room of other bytes.
            let text = std::str::from_utf8(bytes).map(|text| beginning(text, self.0).len());
            bytes.truncate(text.unwrap_or(self.0 / 2));
            self.0 = 0;
        }
    }

    fn keep_labels(&mut self, labels: &mut Labels) {
        labels.retain(|name, value| self.fits(name.len() + value.len()));
    }
}

/// A grace of this or more milliseconds is the container's own stop timeout. What is above
/// it is the most that it may be, which is for the gate to say. Every language that plugins
/// are written in can write this number exactly.
pub const OWN_GRACE: u64 = 1 << 62;

/// How long a key of a plugin's memory may be, in bytes.
pub const MEMORY_KEY: usize = 128;
/// How long a value may be, in bytes.
pub const MEMORY_VALUE: usize = 16 * 1024;
/// How much one plugin may have under one policy, keys included, in bytes.
pub const MEMORY_TOTAL: usize = 256 * 1024;

/// The functions of `sentinel:plugin/memory`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call")]
pub enum MemoryCall {
    /// The value of a key.
    #[serde(rename = "memory.get")]
    Get {
        /// Which.
        key: String,
    },
    /// Sets it.
    #[serde(rename = "memory.set")]
    Set {
        /// Which.
        key: String,
        /// To what.
        value: Blob,
    },
    /// Forgets it.
    #[serde(rename = "memory.forget")]
    Forget {
        /// Which.
        key: String,
    },
    /// The keys with a prefix.
    #[serde(rename = "memory.keys")]
    Keys {
        /// Which prefix.
        prefix: String,
    },
}

impl MemoryCall {
    /// The call's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Get { .. } => "memory.get",
            Self::Set { .. } => "memory.set",
            Self::Forget { .. } => "memory.forget",
            Self::Keys { .. } => "memory.keys",
        }
    }

    /// The key or the prefix.
    #[must_use]
    pub fn about(&self) -> &str {
        match self {
            Self::Get { key } | Self::Set { key, .. } | Self::Forget { key } => key,
            Self::Keys { prefix } => prefix,
        }
    }
}

/// A call to one Docker host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerRequest {
    /// The host's name in the configuration.
    pub host: String,
    /// What to do there.
    #[serde(flatten)]
    pub call: DockerCall,
}

/// The functions of `sentinel:plugin/docker`. Spans of time are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call")]
pub enum DockerCall {
    /// The containers of the host.
    #[serde(rename = "docker.list")]
    List {
        /// Also those that do not run.
        all: bool,
        /// Only those that carry all of these.
        labels: Labels,
    },
    /// The state of one container.
    #[serde(rename = "docker.inspect")]
    Inspect {
        /// Name or id.
        container: String,
    },
    /// The end of its output.
    #[serde(rename = "docker.logs")]
    Logs {
        /// Name or id.
        container: String,
        /// How many lines.
        lines: u32,
    },
    /// Starts it.
    #[serde(rename = "docker.start")]
    Start {
        /// Name or id.
        container: String,
    },
    /// Stops it.
    #[serde(rename = "docker.stop")]
    Stop {
        /// Name or id.
        container: String,
        /// Time between SIGTERM and SIGKILL.
        grace_ms: u64,
    },
    /// Stops and starts it.
    #[serde(rename = "docker.restart")]
    Restart {
        /// Name or id.
        container: String,
        /// Time between SIGTERM and SIGKILL.
        grace_ms: u64,
    },
    /// Sends it a signal.
    #[serde(rename = "docker.kill")]
    Kill {
        /// Name or id.
        container: String,
        /// The signal's name.
        signal: String,
    },
    /// Replaces it by a new one with the same settings.
    #[serde(rename = "docker.recreate")]
    Recreate {
        /// Name or id.
        container: String,
        /// Time between SIGTERM and SIGKILL.
        grace_ms: u64,
    },
    /// Makes another one like it.
    #[serde(rename = "docker.duplicate")]
    Duplicate {
        /// Name or id.
        container: String,
        /// What the other one is called.
        name: String,
        /// What it is labelled with over the labels of the first.
        labels: Labels,
    },
    /// Stops and removes it.
    #[serde(rename = "docker.remove")]
    Remove {
        /// Name or id.
        container: String,
        /// Time between SIGTERM and SIGKILL.
        grace_ms: u64,
    },
}

impl DockerCall {
    /// What a grant has to allow.
    #[must_use]
    pub fn action(&self) -> DockerAction {
        match self {
            Self::List { .. } => DockerAction::List,
            Self::Inspect { .. } => DockerAction::Inspect,
            Self::Logs { .. } => DockerAction::Logs,
            Self::Start { .. } => DockerAction::Start,
            Self::Stop { .. } => DockerAction::Stop,
            Self::Restart { .. } => DockerAction::Restart,
            Self::Kill { .. } => DockerAction::Kill,
            Self::Recreate { .. } => DockerAction::Recreate,
            Self::Duplicate { .. } => DockerAction::Duplicate,
            Self::Remove { .. } => DockerAction::Remove,
        }
    }

    /// The container that it names, if it names one.
    #[must_use]
    pub fn container(&self) -> Option<&str> {
        match self {
            Self::List { .. } => None,
            Self::Inspect { container }
            | Self::Logs { container, .. }
            | Self::Start { container }
            | Self::Stop { container, .. }
            | Self::Restart { container, .. }
            | Self::Kill { container, .. }
            | Self::Recreate { container, .. }
            | Self::Duplicate { container, .. }
            | Self::Remove { container, .. } => Some(container),
        }
    }

    /// The same call on the container with this name or id; one that names none stays as
    /// it is.
    #[must_use]
    pub fn on(mut self, other: String) -> Self {
        match &mut self {
            Self::List { .. } => {}
            Self::Inspect { container }
            | Self::Logs { container, .. }
            | Self::Start { container }
            | Self::Stop { container, .. }
            | Self::Restart { container, .. }
            | Self::Kill { container, .. }
            | Self::Recreate { container, .. }
            | Self::Duplicate { container, .. }
            | Self::Remove { container, .. } => *container = other,
        }
        self
    }

    /// How long the container may take to stop, in milliseconds; none for a call that
    /// stops nothing, or that gives no time for it.
    #[must_use]
    pub fn grace_ms(&self) -> Option<u64> {
        match self {
            Self::Stop { grace_ms, .. }
            | Self::Restart { grace_ms, .. }
            | Self::Recreate { grace_ms, .. }
            | Self::Remove { grace_ms, .. } => Some(*grace_ms),
            _ => None,
        }
    }

    /// Whether the container itself says how long it may take to stop.
    #[must_use]
    pub fn has_own_grace(&self) -> bool {
        self.grace_ms()
            .is_some_and(|grace_ms| grace_ms >= OWN_GRACE)
    }

    /// The same call, where the container says itself how long it may take to stop, with a
    /// bound on that.
    #[must_use]
    pub fn with_own_grace_within(mut self, most: std::time::Duration) -> Self {
        let own = self.has_own_grace();
        if let Self::Stop { grace_ms, .. }
        | Self::Restart { grace_ms, .. }
        | Self::Recreate { grace_ms, .. }
        | Self::Remove { grace_ms, .. } = &mut self
            && own
        {
            let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
            *grace_ms = OWN_GRACE.saturating_add(most);
        }
        self
    }
}

/// What can be done with a container; the names are those of the WIT functions, and
/// those that policies write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DockerAction {
    /// See which containers there are.
    List,
    /// See the state of one.
    Inspect,
    /// Read its output.
    Logs,
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Stop and start it.
    Restart,
    /// Send it a signal.
    Kill,
    /// Replace it.
    Recreate,
    /// Make another one like it.
    Duplicate,
    /// Stop and remove it.
    Remove,
}

impl DockerAction {
    /// All of them, in the order of the WIT file.
    pub const ALL: [Self; 10] = [
        Self::List,
        Self::Inspect,
        Self::Logs,
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Kill,
        Self::Recreate,
        Self::Duplicate,
        Self::Remove,
    ];

    /// Whether it changes something outside.
    #[must_use]
    pub fn is_effect(self) -> bool {
        !matches!(self, Self::List | Self::Inspect | Self::Logs)
    }

    /// The name in policies and in WIT.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.call_name().trim_start_matches("docker.")
    }

    /// The name in the journal.
    #[must_use]
    pub fn call_name(self) -> &'static str {
        match self {
            Self::List => "docker.list",
            Self::Inspect => "docker.inspect",
            Self::Logs => "docker.logs",
            Self::Start => "docker.start",
            Self::Stop => "docker.stop",
            Self::Restart => "docker.restart",
            Self::Kill => "docker.kill",
            Self::Recreate => "docker.recreate",
            Self::Duplicate => "docker.duplicate",
            Self::Remove => "docker.remove",
        }
    }
}

/// `sentinel:plugin/ansible` `request`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnsibleRequest {
    /// Path inside the playbooks folder.
    pub playbook: String,
    /// Variables; they reach Ansible in a private file.
    pub extra_vars: serde_json::Map<String, serde_json::Value>,
    /// Ansible's `--limit`.
    pub limit: Option<String>,
    /// Ansible's `--tags`.
    pub tags: Vec<String>,
    /// How long it may take, in milliseconds; none means as long as the run may.
    pub timeout_ms: Option<u64>,
}

/// What the gate answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "kebab-case")]
pub enum Response {
    /// It is done and there is nothing to tell.
    Done,
    /// `docker.list`.
    Containers(Vec<ContainerSummary>),
    /// `docker.inspect`.
    Container(Box<ContainerDetails>),
    /// `docker.logs`.
    Text(String),
    /// `docker.recreate`, `docker.duplicate`: the new container's id.
    Created(String),
    /// `ansible.run`.
    Playbook(Box<PlaybookReport>),
    /// `http.send`.
    Http(Box<HttpResponse>),
    /// `mail.send`.
    Mail(Box<MailReceipt>),
    /// `memory.get`.
    Value(Option<Blob>),
    /// `memory.keys`.
    Keys(Vec<String>),
}

/// What Docker says of a container's main process; `sentinel:plugin/docker` `state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the WIT file explains each case")]
pub enum ContainerState {
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

/// What the container's own health check says; `sentinel:plugin/docker` `health`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the WIT file explains each case")]
pub enum ContainerHealth {
    None,
    Starting,
    Healthy,
    Unhealthy,
}

/// `sentinel:plugin/docker` `summary`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the WIT file explains each field")]
pub struct ContainerSummary {
    pub id: String,
    pub name: String,
    pub image: String,
    pub state: ContainerState,
    pub labels: Labels,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_of: Option<String>,
}

/// `sentinel:plugin/docker` `details`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the WIT file explains each field")]
pub struct ContainerDetails {
    pub id: String,
    pub name: String,
    pub image: String,
    pub state: ContainerState,
    pub health: ContainerHealth,
    pub failing_streak: u32,
    pub exit_code: i64,
    pub oom_killed: bool,
    pub restart_count: u32,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub labels: Labels,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_of: Option<String>,
}

/// What a playbook did: the recap that the plugin sees, and what goes into the
/// incident's timeline beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaybookReport {
    /// The exit code of `ansible-playbook`.
    pub exit_code: i32,
    /// The hosts' recaps, by name.
    pub hosts: BTreeMap<String, HostRecap>,
    /// Every task's result, in order; bounded.
    pub tasks: Vec<TaskResult>,
    /// The end of what `ansible-playbook` printed; bounded.
    pub output: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// `sentinel:plugin/ansible` `host-recap`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the WIT file explains each field")]
pub struct HostRecap {
    pub ok: u32,
    pub changed: u32,
    pub failed: u32,
    pub skipped: u32,
    pub unreachable: u32,
    pub rescued: u32,
    pub ignored: u32,
}

/// One task on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The host's name in the inventory.
    pub host: String,
    /// The task's name.
    pub task: String,
    /// How it ended.
    pub status: TaskStatus,
    /// What the module said; empty when it said nothing.
    pub message: String,
}

/// How a task ended on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    /// Nothing had to be changed.
    Ok,
    /// It changed something.
    Changed,
    /// It failed.
    Failed,
    /// A condition left it out.
    Skipped,
    /// The host could not be reached.
    Unreachable,
    /// It failed, and the playbook ignores that.
    Ignored,
}
