//! An incident's events as people read them.

use jiff::Timestamp;
use serde::Serialize;

use crate::alert::Alert;
use crate::capability::{CapabilityError, ContainerDetails, PlaybookReport, Response};
use crate::event::{CallResult, Event, EventBody, Notice, Resource, RunMode, RunResult};
use crate::id::RunId;
use crate::incident::{FoldError, Incident, Phase, Rung};

/// One line of a timeline: an event, or a change of phase that an event brought about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What kind of line: an event's kind, or what phase began.
    pub kind: &'static str,
    /// The line.
    pub text: String,
    /// Whether it tells of a change of phase, and not of an event.
    #[serde(skip)]
    pub of_phase: bool,
    /// What belongs under it, such as the output of a playbook.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

/// The timeline of one incident, and the state that it leads to.
pub fn timeline(events: &[Event]) -> Result<(Incident, Vec<Entry>), FoldError> {
    let mut teller = Teller::default();
    let mut entries = Vec::with_capacity(events.len());
    for event in events {
        entries.extend(teller.tell(event)?);
    }
    Ok((teller.incident.ok_or(FoldError::Empty)?, entries))
}

/// A timeline that is told one event after the other: a long one needs no more room than a short one.
#[derive(Debug, Default)]
pub struct Teller {
    incident: Option<Incident>,
}

impl Teller {
    /// The lines of the next event: its own first, then that of the phase that it began, if it did.
    pub fn tell(&mut self, event: &Event) -> Result<Vec<Entry>, FoldError> {
        let mut entries = vec![entry(event)];
        match &mut self.incident {
            None => self.incident = Some(Incident::open(event)?.0),
            Some(incident) => {
                let before = incident.phase.clone();
                incident.apply(event);
                if let (Some(text), Some(told)) = (would(&before, event), entries.first_mut()) {
                    told.text = text;
                }
                if incident.phase != before {
                    entries.extend(phase_entry(&incident.phase, event.at));
                }
            }
        }
        Ok(entries)
    }

    /// Where the events told so far have led; none before the first.
    #[must_use]
    pub fn incident(&self) -> Option<&Incident> {
        self.incident.as_ref()
    }
}

/// What a person has to know who is told of an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Briefing {
    /// What a person is told of.
    pub notice: Notice,
    /// What they can type, beside what shows everything.
    pub command: Option<String>,
    /// Why a person has to look.
    pub reason: String,
    /// What happened so far, a line each.
    pub timeline: String,
}

/// How many characters of a server's refusal are told.
const ANSWER: usize = 400;

/// How many bytes of a timeline a briefing has at the most: its end.
const BRIEFING: usize = 32 * 1024;

/// What the run that tells a person is told: what `events` say up to its start. The same
/// whenever it is asked, so that the run can be played again. None for any other run.
pub fn briefing(events: &[Event], run: RunId) -> Result<Option<Briefing>, FoldError> {
    let start = events.iter().position(|event| {
        matches!(&event.body, EventBody::RunStarted { run: started, step: 0, .. } if *started == run)
    });
    let Some(before) = start.and_then(|start| events.get(..start)) else {
        return Ok(None);
    };
    let (incident, entries) = timeline(before)?;
    let (notice, reason) = match (&incident.phase, &incident.telling) {
        (
            Phase::Escalating {
                reason, run: None, ..
            },
            _,
        ) => (Notice::Escalation, reason.clone()),
        (_, Some(telling)) if telling.run.is_none() => (telling.notice, telling.reason.clone()),
        _ => return Ok(None),
    };
    let command = match &incident.phase {
        Phase::AwaitingApproval { plan, .. } if notice == Notice::Approval => {
            Some(incident.approve_command(*plan))
        }
        _ => None,
    };
    let lines: Vec<_> = entries
        .iter()
        .flat_map(|entry| {
            // What others wrote may have lines of its own: none is to pass for an entry.
            let text = entry.text.lines().collect::<Vec<_>>().join("\n  ");
            let first = format!("{} {}: {text}", entry.at, entry.kind);
            let more = entry.lines.iter().flat_map(|line| line.lines());
            let more: Vec<_> = more.map(|line| format!("  {line}")).collect();
            std::iter::once(first).chain(more)
        })
        .collect();
    let text = lines.join("\n");
    let mut from = text.len().saturating_sub(BRIEFING);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let left_out = incident
        .plan
        .escalate
        .as_ref()
        .map(|escalate| &escalate.left_out);
    let reason = match left_out {
        Some(left_out) if !left_out.is_empty() => format!(
            "{reason} (of the policy's `escalate` was left out, because it does not fit the alert: {})",
            left_out.join("; ")
        ),
        _ => reason,
    };
    Ok(Some(Briefing {
        notice,
        command,
        reason,
        timeline: text.get(from..).unwrap_or_default().to_owned(),
    }))
}

/// The annotations by which a plugin is told a briefing.
const REASON: &str = "sentinel_reason";
const TIMELINE: &str = "sentinel_timeline";
const NOTICE: &str = "sentinel_notice";
const COMMAND: &str = "sentinel_command";

/// Writes the briefing into the alert that a plugin is given, as annotations. Those names are
/// sentinel's alone: what the alert itself brought under them is taken out, of every run's.
pub fn annotate(alert: &mut Alert, briefing: Option<Briefing>) {
    let annotations = &mut alert.annotations;
    for ours in [REASON, TIMELINE, NOTICE, COMMAND] {
        annotations.remove(ours);
    }
    if let Some(briefing) = briefing {
        // What tells of an escalation is given what it always was.
        if briefing.notice != Notice::Escalation {
            let notice = briefing.notice.as_str().to_owned();
            annotations.insert(NOTICE.to_owned(), notice);
        }
        if let Some(command) = briefing.command {
            annotations.insert(COMMAND.to_owned(), command);
        }
        annotations.insert(REASON.to_owned(), briefing.reason);
        annotations.insert(TIMELINE.to_owned(), briefing.timeline);
    }
}

/// What a dry run says that it did is what it would have done.
fn would(before: &Phase, event: &Event) -> Option<String> {
    match (&event.body, before) {
        (
            EventBody::RunEnded {
                run,
                result: RunResult::Changed { message } | RunResult::Unchanged { message },
            },
            Phase::Running {
                run: current,
                mode: RunMode::Dry,
                ..
            },
        ) if run == current => Some(format!("dry run {run} is over; it would say: {message}")),
        _ => None,
    }
}

fn phase_entry(phase: &Phase, at: Timestamp) -> Option<Entry> {
    let (kind, text) = match phase {
        Phase::Verifying { deadline, .. } => (
            "verification-started",
            format!("waiting until {deadline} for the verification"),
        ),
        Phase::BackingOff {
            rung: Rung { step, attempt },
            until,
        } => (
            "backoff-started",
            format!("step {step}, attempt {attempt} follows at {until}"),
        ),
        Phase::AwaitingApproval {
            plan,
            until,
            approved_by,
            ..
        } if approved_by.is_empty() => (
            "approval-requested",
            format!("plan {} waits for approval until {until}", plan.short()),
        ),
        Phase::Watching => (
            "watching",
            "what would be done is on record; the alert is watched".to_owned(),
        ),
        Phase::Escalating {
            reason, run: None, ..
        } => ("escalating", format!("a person has to know: {reason}")),
        Phase::Ended { end, reason, .. } => ("ended", format!("{}: {reason}", end.as_str())),
        Phase::Pending(_)
        | Phase::Held(_)
        | Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::AwaitingApproval { .. }
        | Phase::Escalating { .. } => return None,
    };
    Some(Entry {
        at,
        kind,
        text,
        of_phase: true,
        lines: Vec::new(),
    })
}

#[expect(
    clippy::too_many_lines,
    reason = "a list, with one sentence for each kind of event"
)]
fn entry(event: &Event) -> Entry {
    let mut lines = Vec::new();
    let text = match &event.body {
        EventBody::Opened {
            plan,
            target,
            thing,
            alert,
            accepted_at,
        } => {
            lines.push(format!(
                "fires since {}, delivered by {} and accepted at {accepted_at}",
                alert.starts_at, alert.source
            ));
            lines.extend(
                alert
                    .labels
                    .iter()
                    .map(|(name, value)| format!("{name}={value:?}")),
            );
            lines.extend(
                thing
                    .as_ref()
                    .map(|thing| format!("counted and locked as {thing}")),
            );
            format!(
                "{} matched policy {} on {target}",
                alert.name(),
                plan.policy
            )
        }
        EventBody::AlertSeen {
            episode,
            status,
            repeat,
        } => {
            let again = if *repeat { " again" } else { "" };
            format!("alert {} is {status}{again}", episode.fingerprint)
        }
        EventBody::GuardHeld {
            guard,
            until,
            reason,
        } => {
            let until = until.map_or_else(String::new, |until| format!(" until {until}"));
            format!("held by {}{until}: {reason}", guard.as_str())
        }
        EventBody::GuardsPassed => "every guard lets it through".to_owned(),
        EventBody::RunStarted {
            run,
            step,
            attempt,
            plugin,
            version,
            digest,
            pinned,
            mode,
        } => {
            let mode = match mode {
                RunMode::Live => "",
                RunMode::Dry => "dry ",
                RunMode::Apply => "approved ",
            };
            let pinned = if *pinned { ", pinned" } else { "" };
            format!(
                "{mode}run {run} started: step {step}, attempt {attempt}, {plugin} {version} ({}{pinned})",
                digest.short()
            )
        }
        EventBody::RunSeeded { run, clock, .. } => {
            format!("run {run} began at {clock} by its clock")
        }
        EventBody::ClockRead { run, readings } => {
            format!("run {run} looked at its clock {} times", readings.len())
        }
        EventBody::RunResumed { run } => format!("run {run} goes on from its record"),
        EventBody::EvidenceCaptured {
            container,
            log,
            problem,
            ..
        } => {
            lines.extend(log.lines().map(|line| format!("log: {line}")));
            let container = container.as_ref().map_or_else(
                || "no container".to_owned(),
                |container| format!("{} {}", container.name, state(container)),
            );
            let problem = problem
                .as_ref()
                .map_or_else(String::new, |problem| format!(" ({problem})"));
            format!("evidence: {container}{problem}")
        }
        EventBody::Planned { effect, .. } => {
            format!(
                "would do: {}{}",
                effect.request.summary(),
                resource(effect.on.as_ref())
            )
        }
        EventBody::Approved { plan, by } => format!("plan {} approved by {by}", plan.short()),
        EventBody::ApprovalDenied { plan, by, reason } => {
            format!("plan {} denied by {by}: {reason}", plan.short())
        }
        EventBody::ApprovalExpired { plan } => {
            format!("nobody approved plan {} in time", plan.short())
        }
        EventBody::Suppressed { guard, reason } => {
            format!("suppressed by {}: {reason}", guard.as_str())
        }
        EventBody::Cancelled { by, reason } => format!("cancelled by {by}: {reason}"),
        EventBody::Expired => "no word of its alerts came for too long".to_owned(),
        EventBody::PolicyChanged { plan } => format!(
            "now under the policy as it is: {} {}, mode {}",
            plan.policy,
            plan.digest.short(),
            plan.mode.as_str()
        ),
        EventBody::Refused { reason }
        | EventBody::PolicyGone { reason }
        | EventBody::Again { reason, .. }
        | EventBody::HeldLong { reason }
        | EventBody::EndForgone { reason } => reason.clone(),
        EventBody::Mended { by } => format!("incident {by} healed it"),
        EventBody::Untold { reason, .. } => format!("nobody was told: {reason}"),
        EventBody::RunEnded { run, result } => format!("run {run} {}", ending(result)),
        EventBody::RunInterrupted { run } => {
            format!("run {run} was cut off by the end of sentinel")
        }
        EventBody::VerificationPassed { detail } => format!("verified: {detail}"),
        EventBody::VerificationFailed {
            detail,
            unknown: true,
        } => format!("could not be verified: {detail}"),
        EventBody::VerificationFailed { detail, .. } => format!("not verified in time: {detail}"),
        EventBody::TimerFired => "the wait is over".to_owned(),
        EventBody::Observed {
            request, result, ..
        } => format!("looked: {} → {}", request.summary(), outcome(result)),
        EventBody::EffectBegan { request, on, .. } => {
            format!(
                "effect began: {}{}",
                request.summary(),
                resource(on.as_ref())
            )
        }
        EventBody::EffectEnded {
            name,
            result,
            settled,
            ..
        } => {
            lines = details(result);
            let settled = if *settled {
                " (found out afterwards)"
            } else {
                ""
            };
            format!("effect ended: {name} → {}{settled}", outcome(result))
        }
        EventBody::Denied { request, error, .. } => match error {
            CapabilityError::Denied(why) => format!("denied: {}: {why}", request.summary()),
            error => format!("not done: {}: {error}", request.summary()),
        },
        EventBody::Remembered { changes, .. } => {
            let keys: Vec<_> = changes.keys().map(String::as_str).collect();
            format!("remembers {}", keys.join(", "))
        }
        EventBody::Logged { level, message, .. } => format!("{}: {message}", level.as_str()),
    };
    Entry {
        at: event.at,
        kind: event.body.kind(),
        text,
        of_phase: false,
        lines,
    }
}

/// How a run ended, as the end of a sentence about it.
#[must_use]
pub fn ending(result: &RunResult) -> String {
    match result {
        RunResult::Changed { message } => format!("changed something: {message}"),
        RunResult::Unchanged { message } => format!("changed nothing: {message}"),
        RunResult::Failed { class, message } => format!("failed ({}): {message}", class.as_str()),
        RunResult::Stopped { cause, message } => {
            format!("was stopped ({}): {message}", cause.as_str())
        }
    }
}

fn resource(on: Option<&Resource>) -> String {
    on.map_or_else(String::new, |on| {
        format!(" on {} ({})", on.name, on.id.get(..12).unwrap_or(&on.id))
    })
}

fn state(details: &ContainerDetails) -> String {
    let state = format!("{:?}", details.state).to_lowercase();
    let health = format!("{:?}", details.health).to_lowercase();
    let oom = if details.oom_killed {
        ", killed for lack of memory"
    } else {
        ""
    };
    if state == "running" {
        format!("{state}, health {health}")
    } else {
        format!("{state}, exit code {}{oom}", details.exit_code)
    }
}

/// What a call came to, in a few words.
#[must_use]
pub fn outcome(result: &CallResult) -> String {
    match result {
        Ok(Response::Done) => "done".to_owned(),
        Ok(Response::Containers(containers)) => format!("{} containers", containers.len()),
        Ok(Response::Container(details)) => state(details),
        Ok(Response::Text(text)) => format!("{} lines", text.lines().count()),
        Ok(Response::Created(id)) => format!("new id {}", id.get(..12).unwrap_or(id)),
        Ok(Response::Playbook(report)) => format!(
            "exit code {} on {} hosts after {:.1} s",
            report.exit_code,
            report.hosts.len(),
            report.duration_ms as f64 / 1000.0
        ),
        Ok(Response::Value(None)) => "nothing".to_owned(),
        Ok(Response::Value(Some(value))) => format!("{} bytes", value.0.len()),
        Ok(Response::Keys(keys)) => format!("{} keys", keys.len()),
        Ok(Response::Http(response)) => format!(
            "status {}, {}{} bytes",
            response.status,
            if response.truncated { "more than " } else { "" },
            response.body.0.len()
        ),
        Ok(Response::Mail(receipt)) => match receipt.refused.len() {
            0 => format!("taken: {}", receipt.said),
            refused => format!("taken, but not for {refused} of them: {}", receipt.said),
        },
        Err(error) => error.to_string(),
    }
}

/// What belongs under the end of an effect: a playbook's tasks, what a server said that did
/// not do what it was asked, or what a mail is found by and who does not get it.
fn details(result: &CallResult) -> Vec<String> {
    match result {
        Ok(Response::Playbook(report)) => playbook_lines(report),
        Ok(Response::Http(response)) if response.status >= 400 => {
            let text = String::from_utf8_lossy(&response.body.0);
            let said: String = text
                .chars()
                .take(ANSWER)
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            let said = said.trim();
            let line = (!said.is_empty()).then(|| format!("answer: {said}"));
            line.into_iter().collect()
        }
        Ok(Response::Mail(receipt)) => {
            let refused = receipt
                .refused
                .iter()
                .map(|refusal| format!("refused: {}: {}", refusal.address, refusal.reason));
            let id = format!("message-id: {}", receipt.message_id);
            std::iter::once(id).chain(refused).collect()
        }
        _ => Vec::new(),
    }
}

fn playbook_lines(report: &PlaybookReport) -> Vec<String> {
    let tasks = report.tasks.iter().map(|task| {
        let status = format!("{:?}", task.status).to_lowercase();
        let message = if task.message.is_empty() {
            String::new()
        } else {
            format!(": {}", task.message)
        };
        format!("{status:11} {}  {}{message}", task.host, task.task)
    });
    let hosts = report.hosts.iter().map(|(host, recap)| {
        format!(
            "recap       {host}  ok={} changed={} failed={} unreachable={} skipped={} rescued={} ignored={}",
            recap.ok,
            recap.changed,
            recap.failed,
            recap.unreachable,
            recap.skipped,
            recap.rescued,
            recap.ignored
        )
    });
    tasks.chain(hosts).collect()
}
