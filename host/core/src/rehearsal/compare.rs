//! What would be different from what happened.

use jiff::Timestamp;
use serde::Serialize;

use crate::alert::Episode;
use crate::event::{Event, EventBody, Guard, RunMode};
use crate::id::{IncidentId, PluginRef, PolicyName, Target};
use crate::incident::{End, Incident, Phase};
use crate::policy::Mode;

/// An incident, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Its number; a rehearsal counts anew.
    pub incident: IncidentId,
    /// The alert that opened it.
    pub alert: String,
    /// The alert's episode.
    #[serde(skip)]
    pub episode: Episode,
    /// When it opened.
    pub opened_at: Timestamp,
    /// The policy.
    pub policy: PolicyName,
    /// What it is about.
    pub target: Target,
    /// The policy's mode.
    pub mode: Mode,
    /// Its runs, in order; those that only tell a person are not among them.
    pub runs: Vec<Ran>,
    /// The guards that held it or dropped it, each once, in the order in which they did.
    pub guards: Vec<Guard>,
    /// How it ended; none when it is open.
    pub end: Option<End>,
}

/// A run, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ran {
    /// The step.
    pub step: u32,
    /// The attempt at it.
    pub attempt: u32,
    /// The plugin.
    pub plugin: PluginRef,
    /// What the gate did with its effects.
    pub mode: RunMode,
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mode = match self.mode {
            RunMode::Live => "",
            RunMode::Dry => " dry",
            RunMode::Apply => " approved",
        };
        write!(f, "{}.{} {}{mode}", self.step, self.attempt, self.plugin)
    }
}

/// Whether two rows of runs are the same decisions. A pin decides nothing: what a version
/// would do is not asked here.
fn same(a: &[Ran], b: &[Ran]) -> bool {
    let decided = |ran: &Ran| (ran.step, ran.attempt, ran.plugin.name.clone(), ran.mode);
    a.iter().map(decided).eq(b.iter().map(decided))
}

/// What is compared of an incident, from its events; none when they are not those of one.
#[must_use]
pub fn summary(events: &[Event]) -> Option<Summary> {
    let incident = Incident::fold(events).ok()?;
    let mut runs = Vec::new();
    let mut guards = Vec::new();
    for event in events {
        match &event.body {
            EventBody::RunStarted {
                step,
                attempt,
                plugin,
                digest,
                pinned,
                mode,
                ..
            } if *step > 0 => runs.push(Ran {
                step: *step,
                attempt: *attempt,
                plugin: PluginRef {
                    name: plugin.clone(),
                    pin: pinned.then_some(*digest),
                },
                mode: *mode,
            }),
            EventBody::GuardHeld { guard, .. } | EventBody::Suppressed { guard, .. }
                if !guards.contains(guard) =>
            {
                guards.push(*guard);
            }
            _ => {}
        }
    }
    let end = match &incident.phase {
        Phase::Ended { end, .. } => Some(*end),
        _ => None,
    };
    Some(Summary {
        incident: incident.id,
        alert: incident.alert.name().to_owned(),
        episode: incident.alert.episode(),
        opened_at: incident.opened_at,
        policy: incident.plan.policy.clone(),
        target: incident.target.clone(),
        mode: incident.plan.mode,
        runs,
        guards,
        end,
    })
}

/// A difference between what happened and what would have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What kind.
    pub kind: Kind,
    /// What happened; none when nothing did.
    pub was: Option<Summary>,
    /// What would have; none when nothing would.
    pub would_be: Option<Summary>,
    /// What is not the same, where there are both: `policy`, `target`, `mode`, `steps`,
    /// `guards`, `end`.
    pub in_what: Vec<&'static str>,
}

/// What kind of difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An incident that there was not.
    New,
    /// An incident that there would not be.
    Gone,
    /// An incident that would go otherwise.
    Changed,
}

/// Holds what would be against what was. Incidents that the same episode led to are
/// held against each other: those of one policy on one target first, then those on one
/// target, then those of one policy. What is the same is not in the answer.
#[must_use]
pub fn compare(was: &[Summary], would_be: &[Summary]) -> Vec<Difference> {
    let mut old: Vec<Option<&Summary>> = was.iter().map(Some).collect();
    let mut new: Vec<Option<&Summary>> = would_be.iter().map(Some).collect();
    let alike: [fn(&Summary, &Summary) -> bool; 3] = [
        |a, b| a.policy == b.policy && a.target == b.target,
        |a, b| a.target == b.target,
        |a, b| a.policy == b.policy,
    ];
    let mut differences = Vec::new();
    for alike in alike {
        for place in &mut old {
            let Some(before) = *place else { continue };
            let pair = new.iter_mut().find(|after| {
                after.is_some_and(|after| after.episode == before.episode && alike(before, after))
            });
            if let Some(after) = pair.and_then(Option::take) {
                *place = None;
                differences.extend(changed(before, after));
            }
        }
    }
    let gone = old.into_iter().flatten().map(|before| Difference {
        kind: Kind::Gone,
        was: Some(before.clone()),
        would_be: None,
        in_what: Vec::new(),
    });
    let new = new.into_iter().flatten().map(|after| Difference {
        kind: Kind::New,
        was: None,
        would_be: Some(after.clone()),
        in_what: Vec::new(),
    });
    differences.extend(gone.chain(new));
    differences.sort_by_key(|difference| {
        let one = difference.was.as_ref().or(difference.would_be.as_ref());
        one.map(|summary| (summary.opened_at, summary.incident))
    });
    differences
}

fn changed(was: &Summary, would_be: &Summary) -> Option<Difference> {
    let in_what: Vec<_> = [
        ("policy", was.policy != would_be.policy),
        ("target", was.target != would_be.target),
        ("mode", was.mode != would_be.mode),
        ("steps", !same(&was.runs, &would_be.runs)),
        ("guards", was.guards != would_be.guards),
        ("end", was.end != would_be.end),
    ]
    .into_iter()
    .filter_map(|(what, differs)| differs.then_some(what))
    .collect();
    (!in_what.is_empty()).then(|| Difference {
        kind: Kind::Changed,
        was: Some(was.clone()),
        would_be: Some(would_be.clone()),
        in_what,
    })
}
