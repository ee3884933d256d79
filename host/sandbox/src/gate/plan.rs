//! Holds a run to the plan that was approved.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sentinel_core::alert::Labels;
use sentinel_core::capability::{DockerCall, Request, Response};
use sentinel_core::event::{CallResult, PlannedEffect, Resource, StopCause};
use sentinel_core::grant::INCIDENT_VARIABLE;
use sentinel_core::mail::MailAddress;
use sentinel_core::recording::is_same;
use serde_json::Value;

use super::Halted;
use crate::log::clean;

/// What begins the part of a run's last word that tells what of the plan it left out.
pub(crate) const LEFT_OUT: &str = " (of the approved plan it left out: ";

/// How many digits of an id are told.
const SHORT: usize = 12;

/// How many characters of a body are told.
const BODY: usize = 500;

/// An approved plan, and how far it has been carried out.
pub(crate) struct ApprovedPlan {
    effects: Vec<PlannedEffect>,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    next: usize,
    /// What the plan calls the containers that it makes, and what they are called now
    /// that they are made.
    made: Vec<(String, String)>,
}

impl ApprovedPlan {
    pub(crate) fn new(effects: Vec<PlannedEffect>) -> Self {
        Self {
            effects,
            progress: Mutex::default(),
        }
    }

    /// Lets the effect through if it is the next one of the plan.
    pub(crate) fn admit(&self, request: &Request, on: Option<&Resource>) -> Result<(), Halted> {
        let mut progress = self.lock();
        let asked = told(request, on);
        let Some(planned) = self.effects.get(progress.next) else {
            return Err(deviated(&format!(
                "it asked for {asked}, and the plan has nothing {}",
                if self.effects.is_empty() {
                    "in it"
                } else {
                    "more"
                }
            )));
        };
        let planned = progress.now(planned);
        // Plans of older versions do not say which file a playbook was.
        let unknown = matches!(request, Request::Ansible(_)) && planned.on.is_none();
        if !is_same(&anonymous(&planned.request), &anonymous(request))
            || (planned.on.as_ref() != on && !unknown)
        {
            let has = told(&planned.request, planned.on.as_ref());
            return Err(deviated(&format!(
                "it asked for {asked}, and the plan has {has}"
            )));
        }
        progress.next += 1;
        Ok(())
    }

    /// Counts an effect of the plan that is on record as begun.
    pub(crate) fn skip(&self) {
        self.lock().next += 1;
    }

    /// Takes note of how the effect that was let through last went.
    pub(crate) fn ended(&self, result: &CallResult) {
        let mut progress = self.lock();
        let number = progress.next;
        let planned = number
            .checked_sub(1)
            .and_then(|index| self.effects.get(index));
        if let (Some(planned), Ok(Response::Created(id))) = (planned, result) {
            progress
                .made
                .push((stand_in(number, planned.on.as_ref()), id.clone()));
        }
    }

    /// What the plan has and the run did not ask for, for its last word; nothing when it
    /// asked for all of it.
    pub(crate) fn left_out(&self) -> Option<String> {
        let next = self.lock().next;
        let left: Vec<String> = self
            .effects
            .iter()
            .skip(next)
            .map(|effect| effect.request.summary())
            .collect();
        (!left.is_empty()).then(|| format!("{LEFT_OUT}{})", left.join(", ")))
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    /// What was planned, by the ids that the containers have now.
    fn now(&self, planned: &PlannedEffect) -> PlannedEffect {
        let mut planned = planned.clone();
        for (stand_in, made) in &self.made {
            if let Some(on) = planned.on.as_mut().filter(|on| on.id == *stand_in) {
                on.id.clone_from(made);
            }
            if let Request::Docker(asked) = &mut planned.request
                && asked.call.container() == Some(stand_in)
            {
                asked.call = asked.call.clone().on(made.clone());
            }
        }
        planned
    }
}

/// What stands for the container that the `number`th effect of a plan would make, in the
/// place of its id. It is a name, so that a plugin can use it like one.
pub(crate) fn stand_in(number: usize, on: Option<&Resource>) -> String {
    let replaced: String = on
        .map(|on| on.id.chars().take(SHORT).collect())
        .unwrap_or_default();
    format!("dry-run-{number}-{replaced}")
}

/// The request without the numbers of the run that makes it: the dry run that planned it and
/// the run that carries it out are two. What else the variable says, the daemon has checked.
fn anonymous(request: &Request) -> Request {
    let mut request = request.clone();
    if let Request::Ansible(asked) = &mut request
        && let Some(Value::Object(said)) = asked.extra_vars.get_mut(INCIDENT_VARIABLE)
    {
        said.remove("run");
        said.remove("attempt");
    }
    request
}

fn deviated(how: &str) -> Halted {
    Halted::new(
        StopCause::Deviated,
        format!("deviated from the approved plan: {how}"),
    )
}

/// An effect in words that tell any two apart.
fn told(request: &Request, on: Option<&Resource>) -> String {
    let on = on
        .map(|on| {
            let id: String = on.id.chars().take(SHORT).collect();
            format!(" on {} ({id})", on.name)
        })
        .unwrap_or_default();
    format!("{}{on}", in_full(request))
}

/// How many characters of what a request asks for are told.
const DETAILS: usize = 2_000;

/// A request in words, with everything that it asks for, as far as that is short.
pub(crate) fn in_full(request: &Request) -> String {
    let details = match request {
        Request::Docker(asked) => match &asked.call {
            DockerCall::Stop { grace_ms, .. }
            | DockerCall::Restart { grace_ms, .. }
            | DockerCall::Recreate { grace_ms, .. }
            | DockerCall::Remove { grace_ms, .. } => {
                if asked.call.has_own_grace() {
                    "its own grace".to_owned()
                } else {
                    format!("grace {grace_ms} ms")
                }
            }
            DockerCall::Kill { signal, .. } => signal.clone(),
            DockerCall::Logs { lines, .. } => format!("{lines} lines"),
            DockerCall::List { all, labels } => {
                let all = if *all { "all" } else { "running" };
                format!("{all} {}", listed(labels))
            }
            DockerCall::Duplicate { labels, .. } => listed(labels),
            DockerCall::Inspect { .. } | DockerCall::Start { .. } => String::new(),
        },
        Request::Ansible(asked) => {
            let mut details = vec![serde_json::Value::Object(asked.extra_vars.clone()).to_string()];
            details.extend(asked.limit.as_ref().map(|limit| format!("limit {limit}")));
            if !asked.tags.is_empty() {
                details.push(format!("tags {}", asked.tags.join(",")));
            }
            details.extend(
                asked
                    .timeout_ms
                    .map(|timeout| format!("timeout {timeout} ms")),
            );
            details.join(", ")
        }
        Request::Memory(asked) => asked.about().to_owned(),
        Request::Mail(asked) => {
            let mut details = vec![format!("to {}", addresses(&asked.to))];
            if !asked.cc.is_empty() {
                details.push(format!("cc {}", addresses(&asked.cc)));
            }
            details.push(format!("subject {}", asked.subject));
            details.push(format!("text {}", beginning(&asked.text)));
            details.join(", ")
        }
        Request::Http(asked) => {
            let mut details: Vec<String> = asked
                .headers
                .iter()
                .map(|header| format!("{}: {}", header.name, header.value))
                .collect();
            if !asked.body.0.is_empty() {
                let text = String::from_utf8_lossy(&asked.body.0);
                details.push(format!("body {}", beginning(&text)));
            }
            details.extend(
                asked
                    .secret_fields
                    .iter()
                    .map(|field| format!("{} from secret://{}", field.pointer, field.secret)),
            );
            details.extend(
                asked
                    .timeout_ms
                    .map(|timeout| format!("timeout {timeout} ms")),
            );
            details.join(", ")
        }
    };
    let details = clean(details.trim(), DETAILS);
    if details.is_empty() {
        request.summary()
    } else {
        format!("{} [{details}]", request.summary())
    }
}

/// The beginning of a long text, in one line.
fn beginning(text: &str) -> String {
    let shown: String = text
        .chars()
        .take(BODY)
        .flat_map(char::escape_debug)
        .collect();
    let more = if text.chars().nth(BODY).is_some() {
        "…"
    } else {
        ""
    };
    format!("{shown}{more}")
}

fn addresses(addresses: &[MailAddress]) -> String {
    let addresses: Vec<&str> = addresses.iter().map(MailAddress::as_str).collect();
    addresses.join(" ")
}

fn listed(labels: &Labels) -> String {
    let labels: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    labels.join(",")
}
