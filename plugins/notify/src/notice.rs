//! What there is to tell of an incident, whoever is told.

use sentinel_plugin::serde_json::{Map, Value};
use sentinel_plugin::{Incident, Label};

use crate::params::{Params, Severity};

/// The annotations that sentinel gives to what tells a person.
const REASON: &str = "sentinel_reason";
const TIMELINE: &str = "sentinel_timeline";

/// Everything that a responder has to know.
pub(crate) struct Notice<'a> {
    pub(crate) incident: &'a Incident,
    pub(crate) severity: Severity,
    /// A text of the policy's own.
    pub(crate) message: Option<&'a str>,
    /// Why a person has to look; none while the ladder is still climbed.
    pub(crate) reason: Option<&'a str>,
    /// What happened so far, the oldest first; empty while the ladder is still climbed.
    pub(crate) timeline: Vec<&'a str>,
}

impl<'a> Notice<'a> {
    pub(crate) fn of(incident: &'a Incident, params: &'a Params) -> Self {
        Self {
            incident,
            severity: params
                .severity
                .unwrap_or_else(|| Severity::of(incident.label("severity"))),
            message: params.message.as_deref(),
            reason: incident.annotation(REASON),
            timeline: incident
                .annotation(TIMELINE)
                .map(|timeline| timeline.lines().collect())
                .unwrap_or_default(),
        }
    }

    /// Whether a person has to look, and is not only told that something is done.
    pub(crate) fn is_escalation(&self) -> bool {
        self.incident.step == 0
    }

    /// The alert's name.
    pub(crate) fn name(&self) -> &str {
        self.incident.label("alertname").unwrap_or("an alert")
    }

    /// One line that says what it is about.
    pub(crate) fn title(&self) -> String {
        let (name, target) = (self.name(), &self.incident.target);
        if self.is_escalation() {
            format!("{name} on {target} needs a person")
        } else {
            format!("{name} on {target}: sentinel is at work")
        }
    }

    /// Why it is told.
    pub(crate) fn why(&self) -> String {
        match self.reason {
            Some(reason) => reason.to_owned(),
            None => format!(
                "step {}, attempt {} of policy {}",
                self.incident.step, self.incident.attempt, self.incident.policy
            ),
        }
    }

    /// What the alert says of itself.
    pub(crate) fn summary(&self) -> Option<&'a str> {
        ["summary", "description", "message"]
            .into_iter()
            .find_map(|name| self.incident.annotation(name))
            .filter(|text| !text.is_empty())
    }

    /// Where to read on: every annotation that is a URL, and where the alert comes from.
    pub(crate) fn links(&self) -> Vec<(&'a str, &'a str)> {
        let alert = &self.incident.alert;
        let annotations = alert
            .annotations
            .iter()
            .map(|label| (label.name.as_str(), label.value.as_str()));
        let source = alert.generator_url.as_deref().map(|url| ("source", url));
        annotations
            .chain(source)
            .filter(|(_, url)| is_url(url))
            .collect()
    }

    /// The alert's annotations, without those that sentinel added.
    pub(crate) fn annotations(&self) -> impl Iterator<Item = &'a Label> {
        let annotations = self.incident.alert.annotations.iter();
        annotations.filter(|label| label.name != REASON && label.name != TIMELINE)
    }

    /// What to type to see everything.
    pub(crate) fn show_command(&self) -> String {
        format!("sentinel incidents show {}", self.incident.id)
    }

    /// The end of the timeline, in whole lines of at most `bytes` together, and how many
    /// lines are left out.
    pub(crate) fn timeline_end(&self, bytes: usize) -> (String, usize) {
        let mut kept = Vec::new();
        let mut size = 0;
        for line in self.timeline.iter().rev() {
            let line = cut(line, 400);
            size += line.len() + 1;
            if size > bytes {
                break;
            }
            kept.push(line);
        }
        let left_out = self.timeline.len() - kept.len();
        kept.reverse();
        (kept.join("\n"), left_out)
    }
}

/// Labels as a JSON object.
pub(crate) fn object<'a>(labels: impl IntoIterator<Item = &'a Label>) -> Value {
    labels
        .into_iter()
        .map(|label| (label.name.clone(), Value::from(label.value.clone())))
        .collect::<Map<_, _>>()
        .into()
}

/// `text` on at most `bytes` bytes.
pub(crate) fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let mut end = bytes.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text.get(..end).unwrap_or_default())
}

fn is_url(text: &str) -> bool {
    (text.starts_with("https://") || text.starts_with("http://"))
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}
