//! `sentinel explain`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use sentinel_core::alert::{Alert, AlertStatus, Fingerprint, Labels};
use sentinel_core::control::ControlEvent;
use sentinel_core::engine::{Considered, Course, Engine};
use sentinel_core::event::{Event, EventBody, Guard};
use sentinel_core::guard::Verdict;
use sentinel_core::guard::limits::EffectWindows;
use sentinel_core::id::IncidentId;
use sentinel_core::incident::Incident;
use sentinel_core::matcher::{Matcher, Matchers};
use sentinel_core::policy::PolicySet;
use sentinel_core::record::{Accepted, History, IncidentRow, earlier};
use sentinel_core::rehearsal::{Found, Heard, Look, Past, look};
use sentinel_core::timeline::{Entry, timeline};
use sentinel_journal::{IncidentFilter, OpenError, ReadError, Reader};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Output;
use super::incidents::{reader, second, seconds};
use super::output::{Failure, harmless, harmless_lines, pad, print_as};
use super::past::{Asked, counted, distance, policies};
use crate::app;
use crate::config::Config;

/// How many alerts of the journal are looked at for others that were meant as well.
const OTHERS: usize = 20;

/// What a person asks about.
#[derive(Debug)]
enum Asks {
    Incident(IncidentId),
    /// A fingerprint or a name.
    Named(String),
    Matching(Matchers),
    File(FileAlerts),
}

#[derive(Debug, Serialize)]
struct Explanation {
    at: Timestamp,
    /// The incident that was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<Story>,
    alert: Told,
    /// The policies as they are now, in their order.
    policies: Vec<Look>,
    /// What a firing notification of the alert would lead to now, by each policy that is for it.
    now: Vec<Considered>,
    /// Guards that were not asked, and why.
    not_asked: Vec<NotAsked>,
}

#[derive(Debug, Serialize)]
struct NotAsked {
    guard: Guard,
    reason: &'static str,
}

/// What became of an incident.
#[derive(Debug, Serialize)]
struct Story {
    row: IncidentRow,
    /// The version of the policy that it is under.
    policy_digest: String,
    /// Whether the policy is still that version.
    policy_unchanged: bool,
    /// Since when the incident is under that version, and whether it opened under it.
    under_since: Timestamp,
    opened_under: bool,
    /// What a change of the policy means for the incident.
    if_changed: &'static str,
    /// What was decided, in order.
    decisions: Vec<Entry>,
}

/// An alert as the journal knows it.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    alert: Alert,
    /// When and how often this status of it was told; none for an alert from a file.
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    deliveries: u64,
    /// What its episode led to.
    incidents: Vec<IncidentRow>,
    /// When its end was told.
    resolved_at: Option<Timestamp>,
    /// Other alerts that were meant as well.
    others: Vec<String>,
}

/// What a file holds: the alert that is meant, and others beside it.
#[derive(Debug)]
struct FileAlerts {
    alert: Alert,
    others: Vec<String>,
}

/// An alert in a file, as Alertmanager's webhook, its API and that of Prometheus have them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileAlert {
    labels: FileLabels,
    #[serde(default)]
    annotations: Option<FileLabels>,
    #[serde(alias = "activeAt")]
    starts_at: Option<Timestamp>,
    fingerprint: Option<Fingerprint>,
    source: Option<String>,
    /// A word in a webhook's body, and an object in the API's answers.
    #[serde(default)]
    status: Value,
    /// Prometheus' word.
    #[serde(default)]
    state: Value,
}

/// Labels as they are taken in: numbers count as their text, null and nothing as absent.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "BTreeMap<String, Value>")]
struct FileLabels(Labels);

impl TryFrom<BTreeMap<String, Value>> for FileLabels {
    type Error = String;

    fn try_from(written: BTreeMap<String, Value>) -> Result<Self, String> {
        let mut labels = Labels::new();
        for (name, value) in written {
            let value = match value {
                Value::Null => continue,
                Value::String(text) => text,
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                Value::Array(_) | Value::Object(_) => {
                    return Err(format!("`{name}`: expected a text, found {value}"));
                }
            };
            if !value.is_empty() {
                labels.insert(name, value);
            }
        }
        Ok(Self(labels))
    }
}

impl FileAlert {
    fn fires(&self) -> bool {
        self.status != "resolved" && self.state != "pending"
    }

    fn into_alert(self, now: Timestamp) -> Alert {
        let labels = self.labels.0;
        Alert {
            source: self.source.unwrap_or_else(|| "alertmanager".to_owned()),
            fingerprint: self.fingerprint.unwrap_or_else(|| Fingerprint::of(&labels)),
            status: AlertStatus::Firing,
            labels,
            annotations: self.annotations.unwrap_or_default().0,
            starts_at: self.starts_at.unwrap_or(now),
            ends_at: None,
            generator_url: None,
        }
    }
}

/// What is remembered: a journal, or nothing.
enum Memory {
    Journal(Box<Reader>),
    Nothing(Box<Past>),
}

impl Memory {
    fn history(&self) -> &dyn History {
        match self {
            Self::Journal(reader) => reader.as_ref(),
            Self::Nothing(past) => past.as_ref(),
        }
    }

    fn reader(&self) -> Option<&Reader> {
        match self {
            Self::Journal(reader) => Some(reader),
            Self::Nothing(_) => None,
        }
    }
}

pub(super) fn run(config_file: &Path, what: &str, output: Output) -> Result<(), Failure> {
    let config = Config::read(config_file, &super::variable)?;
    let now = Timestamp::now();
    let asks = asks(what, now)?;
    let memory = match (&asks, Reader::open(&config.data_dir)) {
        (_, Ok(reader)) => Memory::Journal(Box::new(reader)),
        // An alert in a file can be held against policies before there ever was a daemon.
        (Asks::File(_), Err(OpenError::Missing { .. })) => Memory::Nothing(Box::default()),
        // Says it the way all commands do.
        (_, Err(_)) => Memory::Journal(Box::new(reader(config_file)?)),
    };
    let policies = policies(&config, &config.policies_dir, memory.reader())?;
    let failed = |error: ReadError| Failure::software(error.to_string());
    let (told, story) = match asks {
        Asks::File(alert) => (from_file(alert, &memory).map_err(failed)?, None),
        Asks::Incident(id) => match from_incident(id, &memory, &policies) {
            Ok((told, story)) => (told, Some(story)),
            // The name of an alert may be a number.
            Err(missing) => {
                let named = from_journal(what, &memory, |alert| alert.name() == what);
                (named.map_err(|_| missing)?, None)
            }
        },
        Asks::Named(name) => {
            let meant = |alert: &Alert| alert.fingerprint.0 == name || alert.name() == name;
            let named = from_journal(what, &memory, meant);
            (
                named.map_err(|unknown| no_matchers(&name).unwrap_or(unknown))?,
                None,
            )
        }
        Asks::Matching(matchers) => {
            let meant = |alert: &Alert| matchers.matches(&alert.labels) || alert.name() == what;
            let named = from_journal(what, &memory, meant).map_err(|unknown| {
                match matchers.0.iter().find_map(Matcher::without_quotes) {
                    Some(meant) => unknown.hint(format!(
                        "the quotes are part of what is compared; if they are only to quote, write '{meant}'"
                    )),
                    None => unknown,
                }
            });
            (named?, None)
        }
    };
    let engine = engine(&config, &memory)?;
    let effects = effects(&config, &policies, &memory, now)?;
    let world = Asked {
        policies: &policies,
        history: memory.history(),
    };
    let mut alert = told.alert.clone();
    alert.status = AlertStatus::Firing;
    alert.ends_at = None;
    let accepted = Accepted {
        seq: 0,
        alert: Arc::new(alert),
        received_at: now,
        repeat: told.deliveries > 0,
    };
    let considered = engine.consider(&accepted, now, &world, &effects);
    let radius = considered.iter().any(|one| {
        let policy = policies.get(&one.policy);
        policy.is_some_and(|policy| policy.guards.blast_radius.is_some())
    });
    let not_asked = radius.then_some(NotAsked {
        guard: Guard::BlastRadius,
        reason: "only the daemon counts the fleet",
    });
    let explanation = Explanation {
        at: now,
        incident: story,
        policies: look(&policies, &told.alert),
        alert: told,
        now: considered,
        not_asked: not_asked.into_iter().collect(),
    };
    print_as(output, &explanation, || text(&explanation))
}

/// What is meant by `what`.
fn asks(what: &str, now: Timestamp) -> Result<Asks, Failure> {
    // A fingerprint has 16 digits, of which all may be decimal.
    if what.len() < 16 && !what.is_empty() && what.bytes().all(|b| b.is_ascii_digit()) {
        let id = what.parse::<IncidentId>();
        return id
            .map(Asks::Incident)
            .map_err(|error| Failure::given(error.to_string()));
    }
    if Path::new(what)
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("json"))
    {
        return file(what, now).map(Asks::File);
    }
    // Alerts are named by people, and Grafana takes any text: `CPU >= 90% on web` is a name.
    if what.contains(['=', '{', '~'])
        && let Ok(matchers) = Matchers::parse_list(what)
    {
        return Ok(Asks::Matching(matchers));
    }
    Ok(Asks::Named(what.to_owned()))
}

/// Why a text that no alert has for its name, and that looks like matchers, is none.
fn no_matchers(what: &str) -> Option<Failure> {
    if !what.contains(['=', '{', '~']) {
        return None;
    }
    let error = Matchers::parse_list(what).err()?;
    let message = format!(
        "the journal knows no alert of this name, and the matchers `{}` are not valid: {error}",
        harmless(what)
    );
    Some(Failure::given(message).hint(
        "write them as Alertmanager does, such as 'alertname=\"NginxDown\", severity=~\"critical|page\"'",
    ))
}

/// The alert of a file.
fn file(path: &str, now: Timestamp) -> Result<FileAlerts, Failure> {
    let given = |error: &dyn std::fmt::Display| {
        Failure::given(format!("{path}: {error}")).hint(
            "expected an alert such as {\"labels\": {\"alertname\": \"NginxDown\"}}, a list of them, the body of a webhook, or what an API says",
        )
    };
    let text = std::fs::read_to_string(path).map_err(|error| given(&error))?;
    alerts(&text, now).map_err(|error| given(&error))
}

/// One alert by itself, the first that fires of a webhook's body, or the first of a list as
/// Alertmanager's API, `amtool --output json` and Prometheus' API give one.
fn alerts(text: &str, now: Timestamp) -> Result<FileAlerts, String> {
    let text = text.trim_start_matches('\u{feff}');
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut alerts: Vec<FileAlert> = Vec::new();
    // In their order, and those of groups as well: what waits stands in reverse.
    let mut waiting = vec![value];
    while let Some(value) = waiting.pop() {
        match value {
            Value::Array(items) => waiting.extend(items.into_iter().rev()),
            Value::Object(mut body) => {
                let mut inner = body.remove("alerts");
                if inner.is_none() && !body.contains_key("labels") {
                    inner = body.remove("data");
                }
                if let Some(inner) = inner {
                    if !matches!(inner, Value::Array(_) | Value::Object(_)) {
                        return Err("`alerts` is no list".to_owned());
                    }
                    waiting.push(inner);
                } else {
                    let alert = serde_json::from_value(Value::Object(body));
                    alerts.push(alert.map_err(|error| error.to_string())?);
                }
            }
            _ => return Err("it holds no alert".to_owned()),
        }
    }
    let first = alerts.iter().position(FileAlert::fires).unwrap_or(0);
    let others = alerts
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != first)
        .map(|(_, alert)| labels(&alert.labels.0))
        .collect();
    let alert = alerts.into_iter().nth(first).ok_or("it holds no alert")?;
    if alert.labels.0.is_empty() {
        return Err("the alert has no labels".to_owned());
    }
    Ok(FileAlerts {
        alert: alert.into_alert(now),
        others,
    })
}

fn told(
    alert: Alert,
    heard: Option<&Heard>,
    memory: &Memory,
    others: Vec<String>,
) -> Result<Told, ReadError> {
    let episode = alert.episode();
    let incidents = match memory.reader() {
        Some(reader) => reader.incidents_of(&episode)?,
        None => Vec::new(),
    };
    Ok(Told {
        first: heard.map(|heard| heard.first),
        last: heard.map(|heard| heard.last),
        deliveries: heard.map_or(0, |heard| heard.deliveries),
        incidents,
        resolved_at: memory.history().resolved_at(&episode).ok().flatten(),
        others,
        alert,
    })
}

fn from_file(file: FileAlerts, memory: &Memory) -> Result<Told, ReadError> {
    let FileAlerts { alert, others } = file;
    let episode = alert.episode();
    let mut known = None;
    if let Some(reader) = memory.reader() {
        reader.heard_backwards(|heard| {
            if heard.alert.episode() == episode {
                known = Some(heard);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
    }
    told(alert, known.as_ref(), memory, others)
}

/// The alert of the journal that is meant: the one that was told of last.
fn from_journal(
    what: &str,
    memory: &Memory,
    meant: impl Fn(&Alert) -> bool,
) -> Result<Told, Failure> {
    let failed = |error: ReadError| Failure::software(error.to_string());
    let mut found: Vec<Heard> = Vec::new();
    if let Some(reader) = memory.reader() {
        reader
            .heard_backwards(|heard| {
                let known = found
                    .iter()
                    .any(|one| one.alert.fingerprint == heard.alert.fingerprint);
                // One line for each alert: its newest episode.
                if !known && meant(&heard.alert) {
                    found.push(heard);
                }
                if found.len() > OTHERS {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .map_err(failed)?;
    }
    let mut found = found.into_iter();
    let Some(newest) = found.next() else {
        return Err(
            Failure::given(format!("the journal knows no alert `{}`", harmless(what))).hint(
                "name an incident by its number, an alert by its fingerprint, its alertname, or matchers in quotes; one that never came by a JSON file with its labels",
            ),
        );
    };
    let others = found
        .map(|heard| {
            format!(
                "{} {}",
                heard.alert.fingerprint,
                labels(&heard.alert.labels)
            )
        })
        .collect();
    told((*newest.alert).clone(), Some(&newest), memory, others).map_err(failed)
}

fn from_incident(
    id: IncidentId,
    memory: &Memory,
    policies: &PolicySet,
) -> Result<(Told, Story), Failure> {
    let failed = |error: ReadError| Failure::software(error.to_string());
    let missing = || {
        Failure::given(format!("there is no incident {id}"))
            .hint("`sentinel incidents list` shows which there are")
    };
    let reader = memory.reader().ok_or_else(missing)?;
    let row = reader.incident(id).map_err(failed)?.ok_or_else(missing)?;
    let events = reader.events(id).map_err(failed)?;
    let (incident, entries) =
        timeline(&events).map_err(|error| Failure::software(error.to_string()))?;
    let current = policies.get(&incident.plan.policy);
    let under = events.iter().rev().find_map(|event| {
        matches!(event.body, EventBody::PolicyChanged { .. }).then_some(event.at)
    });
    let story = Story {
        row,
        policy_digest: incident.plan.digest.to_string(),
        policy_unchanged: current.is_some_and(|policy| policy.digest == incident.plan.digest),
        under_since: under.unwrap_or(incident.opened_at),
        opened_under: under.is_none(),
        if_changed: if_changed(&incident),
        decisions: entries.into_iter().filter(is_decision).collect(),
    };
    let heard = last_heard(&events, reader, &incident).map_err(failed)?;
    let alert = (*incident.alert).clone();
    let told = told(alert, heard.as_ref(), memory, Vec::new()).map_err(failed)?;
    Ok((told, story))
}

/// What a change of its policy means for an incident.
fn if_changed(incident: &Incident) -> &'static str {
    if incident.waits_to_begin() {
        "the daemon takes the incident over to it, because nothing has been done yet"
    } else if !incident.ended() {
        "what acts goes on as it was; `sentinel cancel` ends it"
    } else if IncidentRow::from(incident).again.is_some() {
        "nothing was done in this incident, so its alert opens a new one when it is next told to fire"
    } else {
        "a repetition of the same alert opens nothing; when it has resolved and fires again, the policy as it is then counts"
    }
}

/// What the journal knows of the alert that opened an incident.
fn last_heard(
    events: &[Event],
    reader: &Reader,
    incident: &Incident,
) -> Result<Option<Heard>, ReadError> {
    let Some(first) = events.first() else {
        return Ok(None);
    };
    let EventBody::Opened { accepted_at, .. } = &first.body else {
        return Ok(None);
    };
    let episode = incident.alert.episode();
    let mut found = None;
    // It was accepted before the incident opened, and may have been told of since.
    reader.heard(*accepted_at, first.at, |heard| {
        let same = heard.alert.episode() == episode;
        if same && heard.alert.status == AlertStatus::Firing {
            found = Some(heard);
        }
    })?;
    Ok(found)
}

/// Whether a line of a timeline tells why something was done or not.
fn is_decision(entry: &Entry) -> bool {
    !matches!(
        entry.kind,
        "observed"
            | "effect-ended"
            | "logged"
            | "run-seeded"
            | "clock-read"
            | "timer-fired"
            | "evidence-captured"
    )
}

/// The engine as the journal has it, to be asked.
fn engine(config: &Config, memory: &Memory) -> Result<Engine, Failure> {
    let failed = |error: ReadError| Failure::software(error.to_string());
    let mut open = Vec::new();
    let mut controls: Vec<ControlEvent> = Vec::new();
    if let Some(reader) = memory.reader() {
        let filter = IncidentFilter {
            open: true,
            limit: u32::MAX,
            ..IncidentFilter::default()
        };
        for row in reader.incidents(&filter).map_err(failed)? {
            let events = reader.events(row.id).map_err(failed)?;
            open.extend(Incident::fold(&events).ok());
        }
        controls = reader.controls().map_err(failed)?;
    }
    // In the order in which they opened: the first has the lock.
    open.sort_by_key(|incident| incident.id);
    // It may have ended between the two looks.
    open.retain(|incident| !incident.ended());
    Ok(Engine::knowing(app::settings(config), open, &controls))
}

fn effects(
    config: &Config,
    policies: &PolicySet,
    memory: &Memory,
    now: Timestamp,
) -> Result<EffectWindows, Failure> {
    let limits = app::settings(config).effects;
    let past = match limits.horizon() {
        Some(horizon) => memory
            .history()
            .effects_since(earlier(now, horizon))
            .map_err(|error| Failure::software(error.to_string()))?,
        None => Vec::new(),
    };
    let mut effects = EffectWindows::new(limits, &past);
    effects.share_among(policies);
    Ok(effects)
}

fn text(explanation: &Explanation) -> String {
    let mut out = String::new();
    if let Some(story) = &explanation.incident {
        story_text(&mut out, story, explanation);
    }
    alert_text(&mut out, explanation);
    policies_text(&mut out, explanation);
    for considered in &explanation.now {
        considered_text(&mut out, considered, explanation);
    }
    out
}

fn story_text(out: &mut String, story: &Story, explanation: &Explanation) {
    let row = &story.row;
    // Writing to a String cannot fail.
    let _ok = writeln!(
        out,
        "incident {}: {} on {}",
        row.id,
        row.policy,
        harmless(&row.target)
    );
    let state = match (&row.reason, row.ended_at) {
        (Some(reason), Some(at)) => format!(
            "{}, {}: {}",
            row.state,
            distance(explanation.at, at),
            harmless(reason)
        ),
        _ => row.state.clone(),
    };
    let _ok = writeln!(out, "  state     {state}");
    let _ok = writeln!(
        out,
        "  opened    {}, {}",
        second(row.opened_at),
        distance(explanation.at, row.opened_at)
    );
    let version: String = story
        .policy_digest
        .chars()
        .skip_while(|c| *c != ':')
        .skip(1)
        .take(12)
        .collect();
    let _ok = writeln!(
        out,
        "  policy    {version}, since {}{}",
        second(story.under_since),
        if story.opened_under {
            ", when it opened"
        } else {
            ", when the policy was changed and nothing had been done"
        }
    );
    if !story.policy_unchanged {
        let _ok = writeln!(
            out,
            "            it has changed since, or is gone: {}",
            story.if_changed
        );
    }
    out.push_str("\nwhat was decided\n");
    for entry in &story.decisions {
        let at = seconds(row.opened_at, entry.at);
        let _ok = writeln!(
            out,
            "  {at:>12}  {:<20}  {}",
            entry.kind,
            harmless_lines(&entry.text, 38)
        );
    }
    out.push('\n');
}

fn alert_text(out: &mut String, explanation: &Explanation) {
    let told = &explanation.alert;
    let alert = &told.alert;
    let now = explanation.at;
    let _ok = writeln!(
        out,
        "alert {}  {}",
        harmless(alert.name()),
        harmless(&alert.fingerprint.0)
    );
    let _ok = writeln!(out, "  labels    {}", harmless(&labels(&alert.labels)));
    let _ok = writeln!(
        out,
        "  fires     since {}, {}",
        second(alert.starts_at),
        distance(now, alert.starts_at)
    );
    if let Some(at) = told.resolved_at {
        let _ok = writeln!(
            out,
            "  resolved  told {}, {}",
            second(at),
            distance(now, at)
        );
    }
    let _ok = match (told.first, told.last) {
        (Some(first), Some(last)) if told.deliveries > 1 => writeln!(
            out,
            "  told      {} times, first {}, last {} ({})",
            told.deliveries,
            second(first),
            second(last),
            distance(now, last)
        ),
        (Some(first), _) => writeln!(
            out,
            "  told      once, {} ({})",
            second(first),
            distance(now, first)
        ),
        _ => writeln!(out, "  told      never"),
    };
    for row in &told.incidents {
        let _ok = writeln!(
            out,
            "  led to    incident {}: {} on {}, {}",
            row.id,
            row.policy,
            harmless(&row.target),
            row.state
        );
    }
    if told.incidents.is_empty() && told.deliveries > 0 {
        out.push_str("  led to    no incident\n");
    }
    if !told.others.is_empty() {
        let _ok = writeln!(
            out,
            "  beside    {} that fit as well, such as",
            counted(told.others.len(), "older alert", "older alerts")
        );
        for other in told.others.iter().take(5) {
            let _ok = writeln!(out, "            {}", harmless(other));
        }
    }
}

fn policies_text(out: &mut String, explanation: &Explanation) {
    out.push_str("\npolicies as they are now\n");
    if explanation.policies.is_empty() {
        out.push_str("  there are none\n");
    }
    let width = explanation
        .policies
        .iter()
        .map(|look| look.policy.as_str().len())
        .max()
        .unwrap_or(0);
    for look in &explanation.policies {
        let _ok = writeln!(
            out,
            "  {}  {}",
            pad(look.policy.as_str(), width),
            harmless(&look.found.to_string())
        );
        if look.found.is_match() || matches!(look.found, Found::Off) {
            let _ok = writeln!(out, "  {}  {}", pad("", width), harmless(&look.place));
        }
    }
    if !explanation
        .policies
        .iter()
        .any(|look| look.found.is_match())
    {
        out.push_str(
            "\nno policy is for this alert: it is accepted, and nothing is done about it\n",
        );
    }
}

fn considered_text(out: &mut String, one: &Considered, explanation: &Explanation) {
    let now = explanation.at;
    let _ok = writeln!(
        out,
        "\n{} on {}, if it were told to fire now",
        one.policy,
        harmless(&one.target.to_string())
    );
    let said = match &one.course {
        Course::Opens => "it would open an incident".to_owned(),
        Course::Escalates { reason } => {
            format!("it would open an incident that goes straight to a person: {reason}")
        }
        Course::Joins { incident } => {
            format!("it would count for incident {incident}, which is open")
        }
        Course::Repeats { of: Some(incident) } => format!(
            "it would be taken for a repetition of what led to incident {incident}: nothing would be done until it has resolved and fires again"
        ),
        Course::Repeats { of: None } => {
            "it would be taken for a late repetition, because its end has just been told: nothing would be done".to_owned()
        }
    };
    let _ok = writeln!(out, "  {}", harmless(&said));
    if one.guards.is_empty() {
        return;
    }
    let mut passing = Vec::new();
    for (guard, verdict) in &one.guards {
        let not_asked = explanation
            .not_asked
            .iter()
            .find(|not| not.guard == *guard && *verdict == Verdict::Pass);
        let said = match (verdict, not_asked) {
            (_, Some(not)) => format!("not asked: {}", not.reason),
            (Verdict::Pass, None) => {
                passing.push(guard.as_str());
                continue;
            }
            (
                Verdict::Hold {
                    until: Some(until),
                    reason,
                    ..
                },
                None,
            ) => format!(
                "holds until {}, {}: {reason}",
                second(*until),
                distance(now, *until)
            ),
            (Verdict::Hold { reason, .. }, None) => format!("holds: {reason}"),
            (Verdict::Drop { reason, .. }, None) => format!("drops it: {reason}"),
        };
        let _ok = writeln!(out, "  {:<13} {}", guard.as_str(), harmless(&said));
    }
    if !passing.is_empty() {
        let _ok = writeln!(out, "  {:<13} {}", "let it pass", passing.join(", "));
    }
    let _ok = writeln!(out, "  => {}", harmless(&when(one, now)));
}

/// When the policy may act on the target again.
fn when(one: &Considered, now: Timestamp) -> String {
    let what = match one.course {
        Course::Repeats { .. } => "a new episode",
        Course::Opens | Course::Escalates { .. } | Course::Joins { .. } => "it",
    };
    let mut latest = None;
    for (guard, verdict) in &one.guards {
        match verdict {
            Verdict::Hold {
                until: Some(until), ..
            } => latest = latest.max(Some(*until)),
            Verdict::Hold { .. } => {
                let until = match guard {
                    Guard::Pause => "it is resumed",
                    Guard::TargetLock => "the other incident is over",
                    Guard::BlastRadius => "the storm is over",
                    _ => "a run has ended",
                };
                return format!("{what} may be acted on when {until}");
            }
            Verdict::Drop { .. } => return format!("{what} would be dropped"),
            Verdict::Pass => {}
        }
    }
    match latest {
        Some(until) => format!(
            "{what} may be acted on from {} on, {}",
            second(until),
            distance(now, until)
        ),
        None => format!("no guard is in the way of acting on {what}"),
    }
}

fn labels(labels: &Labels) -> String {
    let labels: Vec<_> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    labels.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_holds_alerts_is_read() {
        let alert = r#"{"labels":{"alertname":"A","port":8080,"prod":true,"none":null,"empty":""},"annotations":null}"#;
        let plain = r#"alertname="A" port="8080" prod="true""#;
        let other = r#"{"labels":{"alertname":"B"},"status":"resolved"}"#;
        let group =
            format!(r#"{{"labels":{{"team":"x"}},"alerts":[{alert}],"receiver":{{"name":"s"}}}}"#);
        for text in [
            alert.to_owned(),
            format!("\u{feff}[{alert}]"),
            format!(r#"{{"version":"4","status":"firing","alerts":[{other},{alert}]}}"#),
            format!("[{group},{other}]"),
            format!(
                r#"{{"status":"success","data":{{"alerts":[{},{}]}}}}"#,
                r#"{"labels":{"alertname":"P"},"state":"pending","activeAt":"2026-01-02T03:04:05Z","value":"1"}"#,
                alert
            ),
        ] {
            let read = alerts(&text, Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(labels(&read.alert.labels), plain, "{text}");
        }
        let since = r#"{"labels":{"alertname":"P"},"activeAt":"2026-01-02T03:04:05Z"}"#;
        let read = alerts(since, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(read.alert.starts_at.to_string(), "2026-01-02T03:04:05Z");
        for (text, says) in [
            ("[]", "no alert"),
            ("{}", "labels"),
            (r#"{"labels":{}}"#, "no labels"),
            (r#"{"labels":{"a":[1]}}"#, "expected a text"),
            (r#"{"alerts":5}"#, "no list"),
            (r#""x""#, "no alert"),
            ("[[[]]]", "no alert"),
            ("{", "line 1"),
        ] {
            let error = alerts(text, Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
