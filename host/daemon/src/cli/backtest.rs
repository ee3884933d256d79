//! `sentinel backtest`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use sentinel_core::control::{ControlBody, ControlEvent};
use sentinel_core::duration::HumanDuration;
use sentinel_core::engine::Operator;
use sentinel_core::event::{Event, EventBody};
use sentinel_core::incident::End;
use sentinel_core::record::earlier;
use sentinel_core::rehearsal::{
    Assumed, Decision, Difference, Kind, Recorded, Rehearsal, Summary, Trace, compare, deliveries,
    summary,
};
use sentinel_journal::{ReadError, Reader};
use serde::Serialize;

use super::OutputArgs;
use super::incidents::{reader, second};
use super::output::{Failure, harmless, print_as, table};
use super::past::{Moment, counted, policies};
use super::policy_test::decision_line;
use crate::app;
use crate::config::Config;

/// What is rehearsed.
#[derive(Debug, Args)]
pub(super) struct BacktestArgs {
    /// The candidate policies: a folder as `policies_dir` is one, or a file.
    #[arg(long, value_name = "PATH")]
    policies: PathBuf,
    /// From when on: a date, a date and time with a zone, or so long ago, such as `2w`. The
    /// beginning of the journal without it.
    #[arg(long, value_name = "WHEN")]
    from: Option<Moment>,
    /// Until when.
    #[arg(long, value_name = "WHEN", default_value = "now")]
    to: Moment,
    /// How long before --from the rehearsal begins, so that what is open and what guards count at
    /// --from is what the candidates would have made of it. What it decides there is not compared.
    #[arg(long, value_name = "DURATION", default_value = "1d")]
    warm_up: HumanDuration,
    /// Whether a remedy helps where the journal does not know.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Assume::Heals)]
    assume: Assume,
    /// How long a run takes where the journal does not know.
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    run_takes: HumanDuration,
    /// After how long plans are approved where the journal does not know; never without it.
    #[arg(long, value_name = "DURATION")]
    approve_after: Option<HumanDuration>,
    /// Print every decision, and which policies each alert was held against.
    #[arg(long)]
    trace: bool,
    /// Exit with 1 when anything would be different.
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// What is assumed of a remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Assume {
    /// Its verification passes after a second.
    Heals,
    /// Its verification never passes.
    Fails,
}

#[derive(Debug, Serialize)]
struct Report {
    from: Timestamp,
    to: Timestamp,
    policies: Vec<String>,
    /// Notifications that were played, repetitions included.
    notifications: usize,
    was: Tally,
    would_be: Tally,
    differences: Vec<Difference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Vec<Decision>>,
}

/// Incidents, counted.
#[derive(Debug, Default, Serialize)]
struct Tally {
    incidents: usize,
    open: usize,
    runs: usize,
    effects: usize,
    held: usize,
    ends: BTreeMap<End, usize>,
}

impl Tally {
    fn of<'a>(incidents: impl IntoIterator<Item = &'a [Event]>, from: Timestamp) -> Self {
        let mut tally = Self::default();
        for events in incidents {
            let Some(summary) = summary(events).filter(|one| one.opened_at >= from) else {
                continue;
            };
            tally.incidents += 1;
            tally.runs += summary.runs.len();
            tally.held += usize::from(!summary.guards.is_empty());
            let effects = events
                .iter()
                .filter(|event| matches!(event.body, EventBody::EffectBegan { .. }));
            tally.effects += effects.count();
            match summary.end {
                Some(end) => *tally.ends.entry(end).or_default() += 1,
                None => tally.open += 1,
            }
        }
        tally
    }
}

pub(super) fn run(config_file: &Path, args: &BacktestArgs) -> Result<(), Failure> {
    let config = Config::read(config_file, &super::variable)?;
    let reader = reader(config_file)?;
    let candidates = policies(&config, &args.policies, Some(&reader))?;
    let now = Timestamp::now();
    let failed = |error: ReadError| Failure::software(error.to_string());
    let Some((first, last)) = reader.heard_between().map_err(failed)? else {
        return Err(Failure::given("the journal holds no alerts yet"));
    };
    let from = args.from.map_or(first, |from| from.resolve(now));
    let to = args.to.resolve(now);
    if from >= to {
        return Err(Failure::given(format!(
            "--from {from} is not before --to {to}"
        )));
    }
    if to <= first || from > last {
        return Err(
            Failure::given(format!("the journal holds no alerts from {from} to {to}"))
                .hint(format!("it holds those from {first} to {last}")),
        );
    }
    let start = earlier(from, args.warm_up.0);
    let names = candidates
        .policies()
        .iter()
        .map(|policy| policy.name.to_string())
        .collect();
    let was = incidents(&reader, start, to).map_err(failed)?;
    let assumed = Assumed {
        takes: args.run_takes.0,
        heals: args.assume == Assume::Heals,
        approves: args.approve_after.map(|after| after.0),
        ..Assumed::default()
    };
    let mut outcomes = Recorded::new(was.iter().map(Vec::as_slice), assumed);
    let mut rehearsal = Rehearsal::new(
        Arc::new(candidates),
        app::settings(&config),
        &mut outcomes,
        start,
    );
    play_controls(&mut rehearsal, reader.controls().map_err(failed)?, start);
    let mut notifications = 0;
    reader
        .heard(start, to, |heard| {
            let moments = deliveries(&heard).filter(|at| (start..to).contains(at));
            for at in moments {
                notifications += usize::from(at >= from);
                rehearsal.alert(at, Arc::clone(&heard.alert));
            }
        })
        .map_err(failed)?;
    let trace = rehearsal.run(to);
    let report = report(args, (from, to), names, notifications, &was, &trace);
    print_as(args.output.output, &report, || text(&report))?;
    if args.exit_code && !report.differences.is_empty() {
        // Everything has been said.
        return Err(Failure::given(""));
    }
    Ok(())
}

/// The events of every incident that opened in a time, up to its end.
fn incidents(
    reader: &Reader,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<Vec<Event>>, ReadError> {
    reader
        .opened_between(None, from, to)?
        .into_iter()
        .map(|row| {
            let mut events = reader.events(row.id)?;
            // What came after that the rehearsal does not see either.
            events.retain(|event| event.at <= to);
            Ok(events)
        })
        .collect()
}

/// What operators did to the stop switch.
fn play_controls(rehearsal: &mut Rehearsal<'_>, controls: Vec<ControlEvent>, start: Timestamp) {
    let mut before = Vec::new();
    for event in controls {
        let operator = match event.body.clone() {
            ControlBody::Paused {
                scope,
                until,
                by,
                reason,
            } => Operator::Pause {
                scope,
                until,
                by,
                reason,
            },
            ControlBody::Resumed { scope, by } => Operator::Resume { scope, by },
            // Storms are the engine's own, and it makes them anew. The candidates are other
            // policies, and plugins are not run.
            ControlBody::StormBegan { .. }
            | ControlBody::StormEnded { .. }
            | ControlBody::PluginServed { .. }
            | ControlBody::PluginRemoved { .. }
            | ControlBody::PluginRolledBack { .. }
            | ControlBody::PluginRefused { .. }
            | ControlBody::PluginAccepted { .. }
            | ControlBody::PoliciesServed { .. }
            | ControlBody::Configured { .. } => continue,
        };
        if event.at < start {
            before.push(event);
        } else {
            rehearsal.operator(event.at, operator);
        }
    }
    rehearsal.controls(before);
}

fn report(
    args: &BacktestArgs,
    (from, to): (Timestamp, Timestamp),
    policies: Vec<String>,
    notifications: usize,
    was: &[Vec<Event>],
    trace: &Trace,
) -> Report {
    let summaries = |incidents: &mut dyn Iterator<Item = &[Event]>| -> Vec<Summary> {
        incidents
            .filter_map(summary)
            .filter(|summary| summary.opened_at >= from)
            .collect()
    };
    let old = summaries(&mut was.iter().map(Vec::as_slice));
    let new = summaries(&mut trace.incidents.values().map(Vec::as_slice));
    let decisions = args.trace.then(|| {
        let decisions = trace.decisions.iter();
        decisions.filter(|one| one.at >= from).cloned().collect()
    });
    Report {
        from,
        to,
        policies,
        notifications,
        was: Tally::of(was.iter().map(Vec::as_slice), from),
        would_be: Tally::of(trace.incidents.values().map(Vec::as_slice), from),
        differences: compare(&old, &new),
        trace: decisions,
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    for decision in report.trace.iter().flatten() {
        let _ok = writeln!(out, "{}", decision_line(decision, &moment(decision.at)));
    }
    if report.trace.is_some() {
        out.push('\n');
    }
    let _ok = writeln!(
        out,
        "{} from {} to {} under {}\n",
        counted(report.notifications, "notification", "notifications"),
        second(report.from),
        second(report.to),
        counted(report.policies.len(), "policy", "policies"),
    );
    let (was, would_be) = (&report.was, &report.would_be);
    let mut rows: Vec<(String, usize, usize)> = [
        ("incidents", was.incidents, would_be.incidents),
        ("  open", was.open, would_be.open),
    ]
    .map(|(name, was, would_be)| (name.to_owned(), was, would_be))
    .into();
    let ends: BTreeSet<_> = was
        .ends
        .keys()
        .chain(would_be.ends.keys())
        .copied()
        .collect();
    for end in ends {
        let count = |tally: &Tally| tally.ends.get(&end).copied().unwrap_or(0);
        rows.push((format!("  {}", end.as_str()), count(was), count(would_be)));
    }
    rows.extend(
        [
            ("held by a guard", was.held, would_be.held),
            ("runs", was.runs, would_be.runs),
            ("effects", was.effects, would_be.effects),
        ]
        .map(|(name, was, would_be)| (name.to_owned(), was, would_be)),
    );
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, was, would_be)| vec![name, was.to_string(), would_be.to_string()])
        .collect();
    out.push_str(&table(&["", "HAPPENED", "WOULD BE"], &rows));
    let of = |kind| {
        report
            .differences
            .iter()
            .filter(|one| one.kind == kind)
            .count()
    };
    let _ok = match report.differences.len() {
        0 => writeln!(out, "\nnothing would be different"),
        count => writeln!(
            out,
            "\n{}: {} new, {} gone, {} changed",
            counted(count, "difference", "differences"),
            of(Kind::New),
            of(Kind::Gone),
            of(Kind::Changed)
        ),
    };
    for difference in &report.differences {
        out.push_str(&difference_text(difference));
    }
    out
}

fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string()
}

fn difference_text(difference: &Difference) -> String {
    let mut out = String::new();
    let head = |one: &Summary| {
        harmless(&format!(
            "{}  {} on {}  {}",
            second(one.opened_at),
            one.policy,
            one.target,
            one.alert
        ))
    };
    let _ok = match (&difference.was, &difference.would_be) {
        (Some(was), Some(would_be)) => {
            let _ok = writeln!(out, "\nchanged  {}  (incident {})", head(was), was.incident);
            for what in &difference.in_what {
                let (before, after) = (aspect(was, what), aspect(would_be, what));
                let _ok = writeln!(out, "         {what:<7} {before}  ->  {after}");
            }
            Ok(())
        }
        (Some(was), None) => writeln!(
            out,
            "\ngone     {}  (incident {})\n         {}",
            head(was),
            was.incident,
            course(was)
        ),
        (None, Some(would_be)) => {
            writeln!(
                out,
                "\nnew      {}\n         {}",
                head(would_be),
                course(would_be)
            )
        }
        (None, None) => Ok(()),
    };
    out
}

/// What is compared, of one side.
fn aspect(one: &Summary, what: &str) -> String {
    match what {
        "policy" => one.policy.to_string(),
        "target" => harmless(&one.target.to_string()),
        "mode" => one.mode.as_str().to_owned(),
        "steps" => steps(one),
        "guards" => guards(one),
        _ => end(one),
    }
}

/// How an incident went, in one line.
fn course(one: &Summary) -> String {
    let mut parts = Vec::new();
    if !one.guards.is_empty() {
        parts.push(format!("held by {}", guards(one)));
    }
    if !one.runs.is_empty() {
        parts.push(steps(one));
    }
    parts.push(end(one));
    parts.join(", ")
}

fn steps(one: &Summary) -> String {
    if one.runs.is_empty() {
        return "no run".to_owned();
    }
    let runs: Vec<_> = one.runs.iter().map(ToString::to_string).collect();
    runs.join(", ")
}

fn guards(one: &Summary) -> String {
    if one.guards.is_empty() {
        return "none".to_owned();
    }
    let guards: Vec<_> = one.guards.iter().map(|guard| guard.as_str()).collect();
    guards.join(", ")
}

fn end(one: &Summary) -> String {
    one.end.map_or("open", End::as_str).to_owned()
}

/// What `--help` says of what a backtest cannot know.
pub(super) const LIMITS: &str = "\
What it cannot know:
  - The alerts come as they came, whatever the candidates would have done about them: a
    remedy that would have healed sooner does not end an alert sooner.
  - A run of the same plugin on the same target about the same alert goes as it went, with its
    verification. Every other run is assumed to change one thing and to help (--assume,
    --run-takes). Run it once with each of --assume heals and --assume fails: the truth is
    between.
  - People answer plans, and cancel, as they did about the same policy, target and alert;
    other plans wait in vain (--approve-after). The stop switch is thrown and released as it
    was.
  - Of a notification that was repeated the journal keeps the first and the last time and how
    often; the others are spread evenly between.
  - Fleets are not on record, so `blast_radius` never holds. What the daemon did not do because
    it was down it is taken to have done.

Reads the journal in `data_dir` and changes nothing; a daemon may run.";
