//! Holds what was decided against what was expected.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::{Expected, ExpectedWhat, Test};
use crate::duration::HumanDuration;
use crate::event::RunMode;
use crate::id::PluginRef;
use crate::rehearsal::trace::{Decision, Trace, What, since};

/// What became of a test.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Every line of expectations and decisions held against each other, in order.
    pub lines: Vec<Line>,
    /// What was decided, with all that led to it.
    pub trace: Trace,
}

impl Outcome {
    /// Whether everything that was expected was decided, and nothing else.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.lines.iter().all(|line| line.side == Side::Both)
    }
}

/// A decision, or the expectation of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Whether it was expected, was decided, or both.
    pub side: Side,
    /// The line in the file where it is expected; none when it is not.
    pub line: Option<usize>,
    /// In words.
    pub text: String,
}

/// Who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// It was expected, and decided.
    Both,
    /// It was expected, and not decided.
    Expected,
    /// It was decided, and not expected.
    Got,
}

pub(super) fn check(test: &Test, start: Timestamp, trace: Trace) -> Outcome {
    let got: Vec<&Decision> = trace
        .decisions
        .iter()
        .filter(|decision| counts(decision))
        .collect();
    let lines = align(&test.expect, &got, start);
    Outcome { lines, trace }
}

/// Whether a test has to expect it.
fn counts(decision: &Decision) -> bool {
    match &decision.what {
        What::Run { .. }
        | What::Held { .. }
        | What::Asked { .. }
        | What::Ended { .. }
        | What::Operator { refused: true, .. } => true,
        What::Heard { looks, repeat, .. } => {
            !repeat && is_firing(&decision.what) && !looks.iter().any(|look| look.found.is_match())
        }
        _ => false,
    }
}

fn is_firing(what: &What) -> bool {
    matches!(
        what,
        What::Heard {
            status: crate::alert::AlertStatus::Firing,
            ..
        }
    )
}

/// The longest alignment of the two lists in which what stands beside each other fits.
fn align(expected: &[Expected], got: &[&Decision], start: Timestamp) -> Vec<Line> {
    let fits = |e: usize, g: usize| {
        expected
            .get(e)
            .zip(got.get(g))
            .is_some_and(|(expected, got)| expected.fits(got, start))
    };
    // How many fit from here on.
    let width = got.len() + 1;
    let mut most = vec![0_usize; (expected.len() + 1) * width];
    let at = |most: &[usize], e: usize, g: usize| most.get(e * width + g).copied().unwrap_or(0);
    for e in (0..expected.len()).rev() {
        for g in (0..got.len()).rev() {
            let best = if fits(e, g) {
                at(&most, e + 1, g + 1) + 1
            } else {
                at(&most, e + 1, g).max(at(&most, e, g + 1))
            };
            if let Some(cell) = most.get_mut(e * width + g) {
                *cell = best;
            }
        }
    }
    let mut lines = Vec::new();
    let (mut e, mut g) = (0, 0);
    loop {
        let wanted = expected.get(e);
        let found = got.get(g);
        let line = match (wanted, found) {
            (Some(wanted), Some(found)) if fits(e, g) => {
                e += 1;
                g += 1;
                Line {
                    side: Side::Both,
                    line: Some(wanted.line),
                    text: text(found, start),
                }
            }
            (Some(wanted), found)
                if found.is_none() || at(&most, e + 1, g) >= at(&most, e, g + 1) =>
            {
                e += 1;
                Line {
                    side: Side::Expected,
                    line: Some(wanted.line),
                    text: wanted.text(),
                }
            }
            (_, Some(found)) => {
                g += 1;
                Line {
                    side: Side::Got,
                    line: None,
                    text: text(found, start),
                }
            }
            (_, None) => break,
        };
        lines.push(line);
    }
    lines
}

impl Expected {
    fn fits(&self, got: &Decision, start: Timestamp) -> bool {
        let after = |at| since(start, at).0;
        let here = self.at.is_none_or(|at| at == after(got.at))
            && self
                .policy
                .as_ref()
                .is_none_or(|p| got.policy.as_ref() == Some(p))
            && self
                .target
                .as_ref()
                .is_none_or(|t| got.target.as_ref() == Some(t));
        let what = match (&self.what, &got.what) {
            (
                ExpectedWhat::Run {
                    plugin,
                    step,
                    attempt,
                    mode,
                },
                What::Run {
                    plugin: p,
                    step: s,
                    attempt: a,
                    mode: m,
                    ..
                },
            ) => {
                plugin.name == p.name
                    && (plugin.pin.is_none() || plugin.pin == p.pin)
                    && step.is_none_or(|step| step == *s)
                    && attempt.is_none_or(|attempt| attempt == *a)
                    && mode.is_none_or(|mode| mode == *m)
            }
            (
                ExpectedWhat::Held { guard, until },
                What::Held {
                    guard: g, until: u, ..
                },
            ) => {
                guard == g
                    && until.is_none_or(|until| *u == Some(crate::incident::later(start, until)))
            }
            (ExpectedWhat::Approval { until }, What::Asked { until: u, .. }) => {
                until.is_none_or(|until| until == after(*u))
            }
            (ExpectedWhat::End { end, reason }, What::Ended { end: e, reason: r }) => {
                end == e && reason.as_ref().is_none_or(|reason| r.contains(reason))
            }
            (ExpectedWhat::NoMatch(alert), What::Heard { alert: a, .. }) => alert == a,
            (ExpectedWhat::Refused(text), What::Operator { said, .. }) => said.contains(text),
            _ => false,
        };
        here && what
    }

    fn text(&self) -> String {
        let what = match &self.what {
            ExpectedWhat::Run {
                plugin,
                step,
                attempt,
                mode,
            } => run(plugin, *step, *attempt, *mode),
            ExpectedWhat::Held { guard, until } => held(guard.as_str(), *until, None),
            ExpectedWhat::Approval { until } => approval(*until),
            ExpectedWhat::End { end, reason } => ended(end.as_str(), reason.as_deref()),
            ExpectedWhat::NoMatch(alert) => no_match(alert),
            ExpectedWhat::Refused(text) => refused(text),
        };
        sentence(
            self.at,
            self.policy.as_ref().map(ToString::to_string),
            self.target.as_ref().map(ToString::to_string),
            &what,
        )
    }
}

/// A decision as expectations are written.
fn text(decision: &Decision, start: Timestamp) -> String {
    let after = |at| since(start, at).0;
    let what = match &decision.what {
        What::Run {
            plugin,
            step,
            attempt,
            mode,
            ..
        } => run(plugin, Some(*step), Some(*attempt), Some(*mode)),
        What::Held {
            guard,
            until,
            reason,
        } => held(guard.as_str(), until.map(after), Some(reason)),
        What::Asked { until, .. } => approval(Some(after(*until))),
        What::Ended { end, reason } => ended(end.as_str(), Some(reason)),
        What::Heard { alert, .. } => no_match(alert),
        What::Operator { said, .. } => refused(said),
        other => other.to_string(),
    };
    sentence(
        Some(after(decision.at)),
        decision.policy.as_ref().map(ToString::to_string),
        decision.target.as_ref().map(ToString::to_string),
        &what,
    )
}

fn sentence(
    at: Option<Duration>,
    policy: Option<String>,
    target: Option<String>,
    what: &str,
) -> String {
    let at = at.map_or_else(|| "any time".to_owned(), |at| HumanDuration(at).to_string());
    let mut out = format!("{at:<8} {what}");
    for (key, value) in [("policy", policy), ("target", target)] {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ok = write!(out, ", {key}: {value}");
        }
    }
    out
}

fn run(
    plugin: &PluginRef,
    step: Option<u32>,
    attempt: Option<u32>,
    mode: Option<RunMode>,
) -> String {
    let mut out = format!("run: {plugin}");
    if let Some(step) = step {
        let _ok = write!(out, ", step: {step}");
    }
    if let Some(attempt) = attempt {
        let _ok = write!(out, ", attempt: {attempt}");
    }
    // Most runs are.
    if let Some(mode) = mode.filter(|mode| *mode != RunMode::Live) {
        let _ok = write!(out, ", mode: {}", mode.as_str());
    }
    out
}

fn held(guard: &str, until: Option<Duration>, reason: Option<&String>) -> String {
    let mut out = format!("held: {guard}");
    if let Some(until) = until {
        let _ok = write!(out, ", until: {}", HumanDuration(until));
    }
    if let Some(reason) = reason {
        let _ok = write!(out, " ({reason})");
    }
    out
}

fn approval(until: Option<Duration>) -> String {
    match until {
        Some(until) => format!("approval: requested, until: {}", HumanDuration(until)),
        None => "approval: requested".to_owned(),
    }
}

fn ended(end: &str, reason: Option<&str>) -> String {
    match reason {
        Some(reason) => format!("end: {end} ({reason})"),
        None => format!("end: {end}"),
    }
}

fn no_match(alert: &str) -> String {
    format!("no_match: {alert}")
}

fn refused(text: &str) -> String {
    format!("refused: {text}")
}
