//! The cases of `sentinel plugin test`: an alert, what the plugin is to ask and is told, and
//! how it is to end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use sentinel_core::alert::{Alert, AlertStatus, Fingerprint, Labels};
use sentinel_core::capability::{Blob, CapabilityError, OWN_GRACE, Request, Response};
use sentinel_core::event::{CallResult, LogLevel};
use sentinel_core::id::{IncidentId, PolicyName, RunId, Target};
use sentinel_sandbox::{IncidentInput, Outcome, RunFailure, Script};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// One case, as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// What it shows; the file's name without it.
    #[serde(default)]
    name: Option<String>,
    /// The alert that opened the incident.
    #[serde(default)]
    alert: GivenAlert,
    /// What the policy acts on; by default the container that the alert's label names.
    #[serde(default)]
    target: Option<String>,
    /// The step's params.
    #[serde(default)]
    params: Map<String, Value>,
    /// The step of the policy, counted from 1.
    #[serde(default = "one")]
    step: u32,
    /// The attempt at that step, counted from 1.
    #[serde(default = "one")]
    attempt: u32,
    /// What the plugin's clock says when it begins.
    #[serde(default)]
    now: Option<Timestamp>,
    /// What it asks, in order, and what it is told.
    #[serde(default)]
    calls: Vec<BTreeMap<String, Value>>,
    /// How it ends.
    expect: BTreeMap<String, Value>,
}

fn one() -> u32 {
    1
}

/// An alert as people write it: in the words of Alertmanager, and only what matters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GivenAlert {
    #[serde(default)]
    status: Option<AlertStatus>,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    annotations: Labels,
    #[serde(default, alias = "starts_at")]
    starts_at: Option<Timestamp>,
    #[serde(default, alias = "ends_at")]
    ends_at: Option<Timestamp>,
    #[serde(default, rename = "generatorURL", alias = "generator_url")]
    generator_url: Option<String>,
    #[serde(default)]
    fingerprint: Option<String>,
}

impl GivenAlert {
    /// The alert, with what was left out. It began a minute before `now`.
    pub(super) fn alert(self, now: Timestamp) -> Alert {
        let minute = jiff::SignedDuration::from_mins(1);
        Alert {
            source: "alertmanager".to_owned(),
            fingerprint: self
                .fingerprint
                .map_or_else(|| Fingerprint::of(&self.labels), Fingerprint),
            status: self.status.unwrap_or(AlertStatus::Firing),
            starts_at: self
                .starts_at
                .unwrap_or_else(|| now.saturating_sub(minute).unwrap_or(now)),
            // What Alertmanager writes of an alert that fires is a time in the future, or
            // the first one of all.
            ends_at: self
                .ends_at
                .filter(|_| self.status == Some(AlertStatus::Resolved)),
            generator_url: self.generator_url.filter(|url| !url.is_empty()),
            labels: self.labels,
            annotations: self.annotations,
        }
    }
}

/// What the policy would act on where nobody says: the container that the alert names.
pub(super) fn target(given: Option<&str>, alert: &Alert) -> Result<Target, String> {
    let uri = if let Some(uri) = given {
        uri.to_owned()
    } else {
        let name = alert.labels.get("container").ok_or(
            "`target` is missing, and the alert has no label `container` to take it from: expected KIND://HOST/NAME, such as docker://local/nginx",
        )?;
        format!("docker://local/{name}")
    };
    uri.parse().map_err(|error| format!("target: {error}"))
}

/// The first incident's first run, of whatever policy.
pub(super) fn run_id() -> RunId {
    RunId {
        incident: IncidentId(1),
        number: 1,
    }
}

/// A case that is understood.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) name: String,
    pub(super) incident: IncidentInput,
    pub(super) now: Timestamp,
    calls: Vec<ExpectedCall>,
    end: ExpectedEnd,
    log: Vec<String>,
}

/// One call that the plugin is to make, and what it is told.
#[derive(Debug, Clone, PartialEq)]
struct ExpectedCall {
    name: String,
    /// What the call has to carry; what is not named may be anything.
    fields: Map<String, Value>,
    answer: CallResult,
}

/// How the plugin is to end.
#[derive(Debug, Clone, PartialEq)]
struct ExpectedEnd {
    kind: String,
    /// The text, in which `*` stands for anything.
    text: String,
}

/// The calls of the contract by their names, as cases write them: which fields they have.
const CALLS: [(&str, &[&str]); 17] = [
    ("docker.list", &["host", "all", "labels"]),
    ("docker.inspect", &["host", "container"]),
    ("docker.logs", &["host", "container", "lines"]),
    ("docker.start", &["host", "container"]),
    ("docker.stop", &["host", "container", "grace_ms"]),
    ("docker.restart", &["host", "container", "grace_ms"]),
    ("docker.kill", &["host", "container", "signal"]),
    ("docker.recreate", &["host", "container", "grace_ms"]),
    ("docker.duplicate", &["host", "container", "name", "labels"]),
    ("docker.remove", &["host", "container", "grace_ms"]),
    (
        "ansible.run",
        &["playbook", "extra_vars", "limit", "tags", "timeout_ms"],
    ),
    (
        "http.send",
        &[
            "method",
            "url",
            "headers",
            "body",
            "secret_fields",
            "timeout_ms",
        ],
    ),
    ("mail.send", &["to", "cc", "subject", "text"]),
    ("memory.get", &["key"]),
    ("memory.set", &["key", "value"]),
    ("memory.forget", &["key"]),
    ("memory.keys", &["prefix"]),
];

/// The ways to end that a case can expect.
const ENDS: [&str; 14] = [
    "changed",
    "unchanged",
    "retryable",
    "permanent",
    "denied",
    "trapped",
    "out-of-stack",
    "exited",
    "timed-out",
    "out-of-cpu",
    "out-of-memory",
    "too-many-calls",
    "too-much-data",
    "forbidden",
];

impl Case {
    /// Reads the case in a file, YAML or JSON.
    pub(super) fn read(file: &Path) -> Result<Ready, String> {
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        let case: Self = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
        case.ready(file)
    }

    fn ready(self, file: &Path) -> Result<Ready, String> {
        // Any time will do, as long as it is always the same.
        let now = self.now.unwrap_or(Timestamp::constant(1_767_323_100, 0));
        let alert = self.alert.alert(now);
        let target = target(self.target.as_deref(), &alert)?;
        let calls = self
            .calls
            .into_iter()
            .enumerate()
            .map(|(at, call)| {
                ExpectedCall::read(call, &target)
                    .map_err(|problem| format!("call {}: {problem}", at + 1))
            })
            .collect::<Result<_, _>>()?;
        let (end, log) = expected_end(self.expect)?;
        let name = self.name.unwrap_or_else(|| {
            file.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
                .unwrap_or_default()
        });
        Ok(Ready {
            name,
            incident: IncidentInput {
                incident: run_id().incident,
                run: run_id(),
                policy: PolicyName::new("test").map_err(|error| error.to_string())?,
                target,
                alert,
                step: self.step,
                attempt: self.attempt,
                params: self.params,
            },
            now,
            calls,
            end,
            log,
        })
    }
}

fn expected_end(mut expect: BTreeMap<String, Value>) -> Result<(ExpectedEnd, Vec<String>), String> {
    let log = match expect.remove("log") {
        None => Vec::new(),
        Some(log) => serde_json::from_value(log)
            .map_err(|error| format!("expect: log: expected a list of lines: {error}"))?,
    };
    let mut ends = expect.into_iter();
    let (Some((kind, text)), None) = (ends.next(), ends.next()) else {
        return Err(format!(
            "expect: expected one way to end: {}",
            ENDS.join(", ")
        ));
    };
    if !ENDS.contains(&kind.as_str()) {
        return Err(format!(
            "expect: `{kind}` is no way to end: expected one of {}",
            ENDS.join(", ")
        ));
    }
    let text = match text {
        Value::Null => "*".to_owned(),
        Value::String(text) => text,
        other => return Err(format!("expect: {kind}: expected a text, found {other}")),
    };
    Ok((ExpectedEnd { kind, text }, log))
}

impl ExpectedCall {
    fn read(mut given: BTreeMap<String, Value>, target: &Target) -> Result<Self, String> {
        let answer = given.remove("answer");
        let error = given.remove("error");
        let mut rest = given.into_iter();
        let (Some((name, fields)), None) = (rest.next(), rest.next()) else {
            return Err(
                "expected one call, such as `docker.inspect: { container: web }`, beside `answer` or `error`"
                    .to_owned(),
            );
        };
        let Some((_, known)) = CALLS.iter().find(|(call, _)| *call == name) else {
            let names: Vec<&str> = CALLS.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "`{name}` is no call of the contract: expected one of {}",
                names.join(", ")
            ));
        };
        let fields = match fields {
            Value::Null => Map::new(),
            Value::Object(fields) => fields,
            other => return Err(format!("{name}: expected its fields, found {other}")),
        };
        if let Some(unknown) = fields.keys().find(|field| !known.contains(&field.as_str())) {
            return Err(format!(
                "{name} has no `{unknown}`: expected {}",
                known.join(", ")
            ));
        }
        let answer = match (answer, error) {
            (Some(_), Some(_)) => {
                return Err(format!("{name}: expected `answer` or `error`, found both"));
            }
            (None, Some(error)) => Err(capability_error(&error)?),
            (answer, None) => {
                let container = fields
                    .get("container")
                    .and_then(Value::as_str)
                    .unwrap_or_else(|| target.name());
                Ok(response(&name, container, answer.unwrap_or(Value::Null))
                    .map_err(|problem| format!("{name}: answer: {problem}"))?)
            }
        };
        Ok(Self {
            name,
            fields,
            answer,
        })
    }

    /// Whether the plugin's call is this one.
    fn fits(&self, asked: &Request) -> bool {
        let carried = fields(asked);
        asked.name() == self.name
            && self
                .fields
                .iter()
                .all(|(field, value)| carried.get(field) == Some(value))
    }
}

/// `{ unavailable: 'docker is away' }`.
fn capability_error(given: &Value) -> Result<CapabilityError, String> {
    let expected = || {
        "error: expected one of denied, not-found, invalid, unavailable, timed-out, failed, with its text: `error: { unavailable: docker is away }`".to_owned()
    };
    let mut cases = given.as_object().ok_or_else(expected)?.iter();
    let (Some((case, message)), None) = (cases.next(), cases.next()) else {
        return Err(expected());
    };
    serde_json::from_value(json!({ "error": case, "message": message })).map_err(|_| expected())
}

/// What the host answers, with what the case left out.
fn response(call: &str, container: &str, given: Value) -> Result<Response, String> {
    let read = |kind: &str, value: Value| {
        serde_json::from_value::<Response>(json!({ "type": kind, "value": value }))
            .map_err(|error| error.to_string())
    };
    let details = |name: &str| {
        json!({
            "id": id(name), "name": name, "image": name, "state": "running", "health": "none",
            "failing_streak": 0, "exit_code": 0, "oom_killed": false, "restart_count": 0,
            "started_at": null, "finished_at": null, "labels": {}, "network_of": null,
        })
    };
    match call {
        "docker.inspect" => read("container", over(details(container), given)?),
        "docker.list" => {
            let rows = match given {
                Value::Null => Vec::new(),
                Value::Array(rows) => rows,
                other => return Err(format!("expected a list of containers, found {other}")),
            };
            let rows = rows
                .into_iter()
                .map(|row| {
                    let name = row.get("name").and_then(Value::as_str).unwrap_or("web");
                    let default = json!({
                        "id": id(name), "name": name, "image": name, "state": "running",
                        "labels": {}, "network_of": null,
                    });
                    over(default, row)
                })
                .collect::<Result<Vec<_>, _>>()?;
            read("containers", Value::Array(rows))
        }
        "docker.logs" => match given {
            Value::Null => Ok(Response::Text(String::new())),
            Value::String(text) => Ok(Response::Text(text)),
            other => Err(format!("expected a text, found {other}")),
        },
        "docker.recreate" | "docker.duplicate" => match given {
            Value::Null => Ok(Response::Created(id("new"))),
            Value::String(id) => Ok(Response::Created(id)),
            other => Err(format!("expected the new container's id, found {other}")),
        },
        "ansible.run" => {
            let default = json!({
                "exit_code": 0, "hosts": {}, "tasks": [], "output": "", "duration_ms": 0,
            });
            read("playbook", over(default, given)?)
        }
        "http.send" => {
            let default = json!({
                "status": 200, "headers": [], "body": { "text": "" }, "truncated": false,
            });
            read("http", over(default, given)?)
        }
        "mail.send" => {
            let default = json!({
                "message_id": "<sentinel.1.1.0@example.com>", "said": "250 OK", "refused": [],
            });
            read("mail", over(default, given)?)
        }
        "memory.get" => match given {
            Value::Null => Ok(Response::Value(None)),
            Value::String(text) => Ok(Response::Value(Some(Blob(text.into_bytes())))),
            other => Err(format!("expected a text, found {other}")),
        },
        "memory.keys" => read("keys", if given.is_null() { json!([]) } else { given }),
        _ if given.is_null() => Ok(Response::Done),
        _ => Err("it has nothing to answer: leave it out".to_owned()),
    }
}

/// `given` over `default`; a field that `default` does not have is a mistake.
fn over(default: Value, given: Value) -> Result<Value, String> {
    let (Value::Object(mut whole), given) = (default, given) else {
        return Err("it has no fields".to_owned());
    };
    let given = match given {
        Value::Null => return Ok(Value::Object(whole)),
        Value::Object(given) => given,
        other => return Err(format!("expected fields, found {other}")),
    };
    for (field, value) in given {
        if !whole.contains_key(&field) {
            let known: Vec<&str> = whole.keys().map(String::as_str).collect();
            return Err(format!(
                "there is no `{field}`: expected {}",
                known.join(", ")
            ));
        }
        whole.insert(field, value);
    }
    Ok(Value::Object(whole))
}

/// A container's id that follows from its name.
fn id(name: &str) -> String {
    sentinel_core::id::Digest::of(name.as_bytes()).hex()
}

/// What a call carries, by the names that cases use.
fn fields(asked: &Request) -> Map<String, Value> {
    let mut fields = match serde_json::to_value(asked) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    fields.remove("call");
    let own = |grace: &Value| grace.as_u64().is_some_and(|grace| grace >= OWN_GRACE);
    if let Some(grace) = fields.get_mut("grace_ms").filter(|grace| own(grace)) {
        *grace = Value::from("own");
    }
    fields
}

/// A call in one line: `docker.restart { container: "web", grace_ms: 2000 }`.
fn line(name: &str, fields: &Map<String, Value>) -> String {
    if fields.is_empty() {
        return name.to_owned();
    }
    let fields: Vec<String> = fields
        .iter()
        .map(|(field, value)| format!("{field}: {value}"))
        .collect();
    format!("{name} {{ {} }}", fields.join(", "))
}

/// What a call of a run was, in one line.
pub(super) fn shown(asked: &Request) -> String {
    line(asked.name(), &fields(asked))
}

/// Which side a line of a difference is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Side {
    /// The case has it, and the plugin did it.
    Both,
    /// The case has it, and the plugin did not.
    Expected,
    /// The plugin did it, and the case does not have it.
    Got,
}

/// One line of what was expected and what came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    pub(super) side: Side,
    pub(super) text: String,
}

/// Answers a plugin as its case says.
pub(super) struct Scripted {
    case: Ready,
    played: Mutex<Played>,
}

#[derive(Default)]
struct Played {
    asked: Vec<Request>,
    /// The call for which the case has no answer.
    off: Option<Request>,
    log: Vec<(LogLevel, String)>,
}

impl Script for Scripted {
    fn answer(&self, asked: &Request) -> Option<CallResult> {
        let mut played = self.lock();
        let expected = self.case.calls.get(played.asked.len());
        match expected {
            Some(expected) if expected.fits(asked) => {
                played.asked.push(asked.clone());
                Some(expected.answer.clone())
            }
            _ => {
                played.off = Some(asked.clone());
                None
            }
        }
    }

    fn logged(&self, level: LogLevel, message: &str) {
        self.lock().log.push((level, message.to_owned()));
    }
}

impl Scripted {
    pub(super) fn new(case: Ready) -> Self {
        Self {
            case,
            played: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Played> {
        self.played.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the plugin wrote.
    pub(super) fn log(&self) -> Vec<String> {
        let played = self.lock();
        let line = |(level, text): &(LogLevel, String)| format!("{}: {text}", level.as_str());
        played.log.iter().map(line).collect()
    }

    /// Whether the plugin did what the case has, and line by line what is the same and what
    /// is not.
    pub(super) fn compare(&self, result: &Result<Outcome, RunFailure>) -> (bool, Vec<Line>) {
        let log = self.log();
        let played = self.lock();
        let mut lines = Vec::new();
        let mut say = |side, text: String| lines.push(Line { side, text });
        for (number, asked) in played.asked.iter().enumerate() {
            say(Side::Both, format!("call {}: {}", number + 1, shown(asked)));
        }
        let mut ok = true;
        let rest = self.case.calls.iter().enumerate().skip(played.asked.len());
        for (number, expected) in rest {
            ok = false;
            let text = line(&expected.name, &expected.fields);
            say(Side::Expected, format!("call {}: {text}", number + 1));
        }
        if let Some(off) = &played.off {
            ok = false;
            let number = played.asked.len() + 1;
            say(Side::Got, format!("call {number}: {}", shown(off)));
        }
        let (kind, text) = told(result);
        let expected = &self.case.end;
        let expected_line = format!("{}: {}", expected.kind, expected.text);
        if played.off.is_some() {
            // How it would have ended is not known.
        } else if kind == expected.kind && fits(&expected.text, &text) {
            say(Side::Both, format!("{kind}: {text}"));
        } else {
            ok = false;
            say(Side::Expected, expected_line);
            say(Side::Got, format!("{kind}: {text}"));
        }
        let missing: Vec<&String> = self
            .case
            .log
            .iter()
            .filter(|wanted| !log.iter().any(|line| fits(wanted, line)))
            .collect();
        if !missing.is_empty() && played.off.is_none() {
            ok = false;
            for wanted in missing {
                say(Side::Expected, format!("log  {wanted}"));
            }
            for line in &log {
                say(Side::Got, format!("log  {line}"));
            }
        }
        (ok, lines)
    }
}

/// How a run ended, in the words that cases use.
pub(super) fn told(result: &Result<Outcome, RunFailure>) -> (String, String) {
    match result {
        Ok(Outcome::Changed(text)) => ("changed".to_owned(), text.clone()),
        Ok(Outcome::Unchanged(text)) => ("unchanged".to_owned(), text.clone()),
        Err(failure) => {
            let kind = serde_json::to_value(failure)
                .ok()
                .and_then(|value| Some(value.get("failure")?.as_str()?.to_owned()))
                .unwrap_or_else(|| "failed".to_owned());
            (kind, failure.to_string())
        }
    }
}

/// Whether `text` is as `pattern` has it, where `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(text: &str) -> Result<Ready, String> {
        let case: Case = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        case.ready(Path::new("cases/a-case.yaml"))
    }

    const CASE: &str = "
alert: { labels: { alertname: Down, container: web } }
params: { timeout: 5s }
calls:
  - docker.inspect: { container: web }
    answer: { state: exited, exit_code: 137 }
  - docker.start:
expect: { changed: 'started *' }
";

    fn ask(name: &str, container: &str) -> Request {
        serde_json::from_value(json!({ "host": "local", "call": name, "container": container }))
            .unwrap()
    }

    #[test]
    fn what_a_case_leaves_out_is_filled_in() {
        let case = case(CASE).unwrap();
        assert_eq!(case.name, "a-case");
        assert_eq!(case.incident.target.to_string(), "docker://local/web");
        assert!(case.incident.alert.starts_at < case.now);
        let Ok(Response::Container(details)) = &case.calls[0].answer else {
            panic!("{:?}", case.calls[0].answer);
        };
        assert_eq!((details.name.as_str(), details.exit_code), ("web", 137));
        assert_eq!(case.calls[1].answer, Ok(Response::Done));
    }

    #[test]
    fn a_plugin_that_does_what_the_case_has_passes() {
        let script = Scripted::new(case(CASE).unwrap());
        assert!(script.answer(&ask("docker.inspect", "web")).is_some());
        assert!(script.answer(&ask("docker.start", "web")).is_some());
        let (ok, lines) = script.compare(&Ok(Outcome::Changed("started local/web".to_owned())));
        assert!(ok, "{lines:?}");
        let (ok, lines) = script.compare(&Ok(Outcome::Unchanged("it runs".to_owned())));
        assert!(!ok, "{lines:?}");
    }

    #[test]
    fn a_mail_is_asked_for_and_answered() {
        let script = Scripted::new(
            case(
                "
target: docker://local/web
calls:
  - mail.send: { to: [oncall@example.com] }
    answer: { said: 250 queued }
  - mail.send: { to: [boss@example.com] }
expect: { changed: }
",
            )
            .unwrap(),
        );
        let mail: Request = serde_json::from_value(json!({
            "call": "mail.send", "to": ["oncall@example.com"], "subject": "down", "text": "why",
        }))
        .unwrap();
        let Some(Ok(Response::Mail(receipt))) = script.answer(&mail) else {
            panic!("no receipt");
        };
        assert_eq!(receipt.said, "250 queued");
        assert!(!receipt.message_id.is_empty());
        assert_eq!(
            script.answer(&mail),
            None,
            "the next one is for somebody else"
        );
    }

    #[test]
    fn another_call_ends_it_and_is_shown_beside_what_was_expected() {
        let script = Scripted::new(case(CASE).unwrap());
        assert!(script.answer(&ask("docker.inspect", "web")).is_some());
        assert_eq!(script.answer(&ask("docker.inspect", "db")), None);
        let failure = RunFailure::Internal {
            message: String::new(),
        };
        let (ok, lines) = script.compare(&Err(failure));
        assert!(!ok);
        let sides: Vec<Side> = lines.iter().map(|line| line.side).collect();
        assert_eq!(sides, [Side::Both, Side::Expected, Side::Got]);
        assert!(lines[2].text.contains("\"db\""), "{lines:?}");
    }

    #[test]
    fn a_call_that_was_not_made_fails_it() {
        let script = Scripted::new(case(CASE).unwrap());
        assert!(script.answer(&ask("docker.inspect", "web")).is_some());
        let (ok, _) = script.compare(&Ok(Outcome::Changed("started it".to_owned())));
        assert!(!ok);
    }

    #[test]
    fn mistakes_say_what_was_expected() {
        for (text, says) in [
            ("expect: { done: '' }", "no way to end"),
            ("expect: { changed: a, unchanged: b }", "one way to end"),
            (
                "expect: {}\ncalls: [{docker.exec: {}}]",
                "no call of the contract",
            ),
            (
                "expect: { changed: a }\ncalls: [{docker.start: {name: web}}]",
                "docker.start has no `name`: expected host, container",
            ),
            (
                "expect: { changed: a }\ncalls: [{docker.inspect: , answer: {status: up}}]",
                "there is no `status`",
            ),
            (
                "expect: { changed: a }\ncalls: [{docker.start: , answer: {state: up}}]",
                "nothing to answer",
            ),
            (
                "expect: { changed: a }\ncalls: [{docker.start: , error: away}]",
                "expected one of denied",
            ),
        ] {
            let text = format!("target: docker://local/web\n{text}");
            let problem = case(&text).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
        }
        let problem = case("expect: { changed: a }").unwrap_err();
        assert!(problem.contains("`target` is missing"), "{problem}");
    }

    #[test]
    fn every_call_of_docker_can_be_written() {
        for action in sentinel_core::capability::DockerAction::ALL {
            let name = action.call_name();
            assert!(CALLS.iter().any(|(call, _)| *call == name), "{name}");
        }
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, fit) in [
            ("*", "", true),
            ("started *", "started web", true),
            ("*web", "started web", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxcyyb", false),
            ("started", "started web", false),
            ("", "", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(fits(pattern, text), fit, "{pattern} {text}");
        }
    }
}
