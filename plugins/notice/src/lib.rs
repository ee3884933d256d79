//! What there is to tell of an incident, whoever is told, and how it is insisted on. The
//! plugins that tell people are made of it; each imports only what it tells them by.

#![forbid(unsafe_code)]

#[cfg(any(test, feature = "examples"))]
pub mod examples;
mod insist;
mod markup;
mod severity;

use sentinel_plugin::serde_json::{Map, Value};
use sentinel_plugin::{Incident, Label};

pub use crate::insist::{Unheard, insist};
pub use crate::markup::{Markup, one_line};
pub use crate::severity::Severity;

/// The annotations that sentinel gives to what tells a person.
const REASON: &str = "sentinel_reason";
const TIMELINE: &str = "sentinel_timeline";
const OCCASION: &str = "sentinel_notice";
const COMMAND: &str = "sentinel_command";

/// What somebody is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A step of the ladder tells of something.
    Step,
    /// A person has to look.
    Escalation,
    /// A plan waits for approval.
    Approval,
    /// An incident is held back for long.
    Held,
    /// What they were told of is over.
    End,
}

impl Occasion {
    /// The word for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Step => "notice",
            Self::Escalation => "escalation",
            Self::Approval => "approval",
            Self::Held => "held",
            Self::End => "end",
        }
    }
}

/// Everything that a responder has to know.
pub struct Notice<'a> {
    /// The incident.
    pub incident: &'a Incident,
    /// How bad it is.
    pub severity: Severity,
    /// A text of the policy's own.
    pub message: Option<&'a str>,
    /// Why a person has to look; none while the ladder is still climbed.
    pub reason: Option<&'a str>,
    /// What happened so far, the oldest first; empty while the ladder is still climbed.
    pub timeline: Vec<&'a str>,
}

impl<'a> Notice<'a> {
    /// What there is to tell of `incident`: as bad as its alert says where the policy does
    /// not, and with a text of the policy's own.
    #[must_use]
    pub fn of(
        incident: &'a Incident,
        severity: Option<Severity>,
        message: Option<&'a str>,
    ) -> Self {
        // An alert can bring annotations of these names; only those of an escalation are
        // sentinel's.
        let ours = |name: &str| {
            let annotation = incident.annotation(name);
            annotation.filter(|_| incident.step == 0)
        };
        Self {
            incident,
            severity: severity.unwrap_or_else(|| Severity::of(incident.label("severity"))),
            message,
            reason: ours(REASON),
            timeline: ours(TIMELINE)
                .map(|timeline| timeline.lines().collect())
                .unwrap_or_default(),
        }
    }

    /// What it is told of.
    #[must_use]
    pub fn occasion(&self) -> Occasion {
        // What an alert says of itself is believed of no step.
        if self.incident.step > 0 {
            return Occasion::Step;
        }
        match self.incident.annotation(OCCASION) {
            Some("approval") => Occasion::Approval,
            Some("held") => Occasion::Held,
            Some("end") => Occasion::End,
            _ => Occasion::Escalation,
        }
    }

    /// Whether it is told by what a policy's `escalate` names, and not by a step: nobody
    /// else will tell the person.
    #[must_use]
    pub fn is_escalation(&self) -> bool {
        self.incident.step == 0
    }

    /// Whether what was told before is over.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.occasion() == Occasion::End
    }

    /// The alert's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.incident.label("alertname").unwrap_or("an alert")
    }

    /// One line that says what it is about.
    #[must_use]
    pub fn title(&self) -> String {
        let (name, target) = (self.name(), &self.incident.target);
        match self.occasion() {
            Occasion::Escalation => format!("{name} on {target} needs a person"),
            Occasion::Approval => format!("{name} on {target}: a plan waits for approval"),
            Occasion::Held => format!("{name} on {target}: nothing is done, it is held back"),
            Occasion::End => format!("{name} on {target} is over"),
            Occasion::Step => format!("{name} on {target}: sentinel is at work"),
        }
    }

    /// Why it is told.
    #[must_use]
    pub fn why(&self) -> String {
        match self.reason {
            Some(reason) => reason.to_owned(),
            None => format!(
                "step {}, attempt {} of policy {}",
                self.incident.step, self.incident.attempt, self.incident.policy
            ),
        }
    }

    /// What the alert says of itself.
    #[must_use]
    pub fn summary(&self) -> Option<&'a str> {
        ["summary", "description", "message"]
            .into_iter()
            .find_map(|name| self.incident.annotation(name))
            .filter(|text| !text.is_empty())
    }

    /// Where to read on: every annotation that is a URL, and where the alert comes from.
    #[must_use]
    pub fn links(&self) -> Vec<(&'a str, &'a str)> {
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
    pub fn annotations(&self) -> impl Iterator<Item = &'a Label> {
        let annotations = self.incident.alert.annotations.iter();
        annotations
            .filter(|label| ![REASON, TIMELINE, OCCASION, COMMAND].contains(&label.name.as_str()))
    }

    /// What to type to decide what is to be decided.
    #[must_use]
    pub fn decide_command(&self) -> Option<&'a str> {
        let said = self.incident.step == 0;
        self.incident.annotation(COMMAND).filter(|_| said)
    }

    /// What to type to see everything.
    #[must_use]
    pub fn show_command(&self) -> String {
        format!("sentinel incidents show {}", self.incident.id)
    }

    /// The end of the timeline, in whole lines of at most `bytes` together, and how many
    /// lines are left out.
    #[must_use]
    pub fn timeline_end(&self, bytes: usize) -> (String, usize) {
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
#[must_use]
pub fn object<'a>(labels: impl IntoIterator<Item = &'a Label>) -> Value {
    labels
        .into_iter()
        .map(|label| (label.name.clone(), Value::from(label.value.clone())))
        .collect::<Map<_, _>>()
        .into()
}

/// `text` on at most `bytes` bytes.
#[must_use]
pub fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let mut end = bytes.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// Whether a text is a URL as a whole, and one that shows where it leads: what is before an
/// `@` looks like a host and is none.
fn is_url(text: &str) -> bool {
    let behind = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    behind.is_some_and(|behind| {
        let host = behind
            .split(['/', '?', '#', '\\'])
            .next()
            .unwrap_or_default();
        !host.is_empty()
            && !host.contains('@')
            && !text.contains(|c: char| c.is_whitespace() || c.is_control())
    })
}
