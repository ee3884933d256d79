//! `sentinel policy report`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use sentinel_core::control::{Controls, Pause, Scope};
use sentinel_core::duration::HumanDuration;
use sentinel_core::event::Guard;
use sentinel_core::id::{IncidentId, PolicyName};
use sentinel_core::report::{Acting, Counted, OtherEffect, PolicyReport, Shadow, Spans, report};
use sentinel_journal::{ReadError, Reader};
use serde::Serialize;

use super::Output;
use super::incidents::{reader, second};
use super::output::{Failure, harmless, print_as};
use super::past::{Moment, counted, policies};
use crate::config::Config;

/// How many lines of one kind are shown.
const SHOWN: usize = 10;

#[derive(Debug, Serialize)]
struct Reports {
    since: Timestamp,
    until: Timestamp,
    policies: Vec<One>,
}

#[derive(Debug, Serialize)]
struct One {
    /// Its mode in the policies folder now; none when it is not there.
    mode: Option<&'static str>,
    /// A pause that holds it back now.
    paused: Option<Pause>,
    #[serde(flatten)]
    report: PolicyReport,
}

pub(super) fn run(
    config_file: &Path,
    policy: Option<&PolicyName>,
    since: Moment,
    output: Output,
) -> Result<(), Failure> {
    let config = Config::read(config_file, &super::variable)?;
    let now = Timestamp::now();
    let since = since.resolve(now);
    if since >= now {
        return Err(Failure::given(format!(
            "--since {since} is not in the past"
        )));
    }
    let reader = reader(config_file)?;
    let failed = |error: ReadError| Failure::software(error.to_string());
    // A folder with a mistake in it is no reason to say nothing of what was.
    let current = policies(&config, &config.policies_dir, Some(&reader)).unwrap_or_default();
    let modes: BTreeMap<&PolicyName, &'static str> = current
        .policies()
        .iter()
        .map(|policy| (&policy.name, policy.mode.as_str()))
        .collect();
    let rows = reader
        .opened_between(None, since, Timestamp::MAX)
        .map_err(failed)?;
    let mut names: BTreeSet<PolicyName> = modes.keys().copied().cloned().collect();
    names.extend(rows.iter().filter_map(|row| row.policy.parse().ok()));
    if let Some(policy) = policy {
        if !names.contains(policy) {
            let known: Vec<_> = names.iter().map(ToString::to_string).collect();
            return Err(Failure::given(format!(
                "there is no policy `{policy}`, neither in {} nor in the journal since {}",
                config.policies_dir.display(),
                second(since)
            ))
            .hint(if known.is_empty() {
                "there are none at all".to_owned()
            } else {
                format!("there are {}", known.join(", "))
            }));
        }
        names.retain(|name| name == policy);
    }
    let others = others(&reader, since, &rows).map_err(failed)?;
    let controls = Controls::fold(&reader.controls().map_err(failed)?);
    let mut reports = Vec::new();
    for name in names {
        let own = rows.iter().filter(|row| row.policy == name.as_str());
        let events = own
            .map(|row| reader.events(row.id))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        let paused = controls
            .pauses(now)
            .find(|pause| match &pause.scope {
                Scope::All => true,
                Scope::Policy(policy) => *policy == name,
                Scope::Target(_) => false,
            })
            .cloned();
        reports.push(One {
            mode: modes.get(&name).copied(),
            paused,
            report: report(name, events.iter().map(Vec::as_slice), &others),
        });
    }
    let reports = Reports {
        since,
        until: now,
        policies: reports,
    };
    print_as(output, &reports, || text(&reports))
}

/// What was done, by whichever policy.
fn others(
    reader: &Reader,
    since: Timestamp,
    rows: &[sentinel_journal::IncidentRow],
) -> Result<Vec<OtherEffect>, ReadError> {
    let mut policies: HashMap<IncidentId, String> = rows
        .iter()
        .map(|row| (row.id, row.policy.clone()))
        .collect();
    let mut others = Vec::new();
    for acted in reader.acted_since(since)? {
        // An incident that opened before has acted since.
        if !policies.contains_key(&acted.incident)
            && let Some(row) = reader.incident(acted.incident)?
        {
            policies.insert(acted.incident, row.policy);
        }
        let policy = policies.get(&acted.incident).cloned().unwrap_or_default();
        if let Ok(target) = acted.target.parse() {
            others.push(OtherEffect {
                at: acted.at,
                incident: acted.incident,
                policy,
                target,
                effect: acted.action,
            });
        }
    }
    Ok(others)
}

fn text(reports: &Reports) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ok = writeln!(
        out,
        "from {} to {}",
        second(reports.since),
        second(reports.until)
    );
    if reports.policies.is_empty() {
        out.push_str("\nthere are no policies\n");
    }
    for one in &reports.policies {
        let mode = one.mode.map_or_else(
            || "no longer in the folder".to_owned(),
            |mode| format!("mode {mode}"),
        );
        let _ok = writeln!(out, "\n{}  ({mode})", one.report.policy);
        if let Some(pause) = &one.paused {
            let _ok = writeln!(out, "  paused        {}", harmless(&pause.to_string()));
        }
        if one.report.shadow.is_none() && one.report.acting.is_none() {
            out.push_str("  no incident\n");
        }
        if let Some(shadow) = &one.report.shadow {
            shadow_text(&mut out, shadow);
        }
        if let Some(acting) = &one.report.acting {
            acting_text(&mut out, acting);
        }
    }
    out
}

/// A line of a report, the name of which is left out when it is that of the line above.
fn line(out: &mut String, name: &str, text: &str) {
    // Writing to a String cannot fail.
    let _ok = writeln!(out, "  {name:<13} {}", harmless(text));
}

/// Several lines under one name.
fn lines(out: &mut String, name: &str, texts: &[String]) {
    for (index, text) in texts.iter().take(SHOWN).enumerate() {
        line(out, if index == 0 { name } else { "" }, text);
    }
    if texts.len() > SHOWN {
        line(out, "", &format!("and {} more", texts.len() - SHOWN));
    }
}

fn shadow_text(out: &mut String, shadow: &Shadow) {
    let open = if shadow.open > 0 {
        format!(", {} open", shadow.open)
    } else {
        String::new()
    };
    line(
        out,
        "as a shadow",
        &format!("{}{open}", number(shadow.incidents, "incident")),
    );
    let planned: Vec<_> = shadow
        .planned
        .iter()
        .map(|planned| {
            format!(
                "{:>4} x {} on {}",
                planned.count, planned.effect, planned.target
            )
        })
        .collect();
    lines(out, "would do", &planned);
    if shadow.nothing_to_do > 0 {
        line(
            out,
            "",
            &format!("nothing in {}", number(shadow.nothing_to_do, "incident")),
        );
    }
    line(
        out,
        "cleared",
        &format!(
            "{} of {} by themselves{}{}",
            shadow.cleared.count,
            shadow.incidents,
            spans(&shadow.cleared),
            if shadow.before_plan > 0 {
                format!(", {} before there was a plan", shadow.before_plan)
            } else {
                String::new()
            },
        ),
    );
    if shadow.helped > 0 {
        let helped = format!("{} after another policy had acted", shadow.helped);
        line(out, "", &helped);
    }
    guards(out, &shadow.held);
    let failed: u32 = shadow.failures.iter().map(|one| one.count).sum();
    line(
        out,
        "dry runs",
        &format!("{}, {failed} failed", shadow.dry_runs),
    );
    lines(out, "", &texts(&shadow.failures));
    let conflicts: Vec<_> = shadow
        .conflicts
        .iter()
        .map(|one| {
            format!(
                "{} {} did {} on {} (incident {}), beside incident {}",
                second(one.at),
                one.policy,
                one.effect,
                one.target,
                one.other,
                one.incident
            )
        })
        .collect();
    lines(out, "conflicts", &conflicts);
    if shadow.cancelled > 0 {
        line(
            out,
            "cancelled",
            &format!("{} by operators", number(shadow.cancelled, "incident")),
        );
    }
    let head = if shadow.verdict.ready {
        "ready to act: "
    } else {
        "not yet: "
    };
    let because: Vec<_> = shadow
        .verdict
        .because
        .iter()
        .enumerate()
        .map(|(index, why)| format!("{}{why}", if index == 0 { head } else { "" }))
        .collect();
    lines(out, "verdict", &because);
}

fn acting_text(out: &mut String, acting: &Acting) {
    let mut ends: Vec<_> = acting
        .ends
        .iter()
        .map(|(end, count)| format!("{count} {}", end.as_str()))
        .collect();
    if acting.open > 0 {
        ends.push(format!("{} open", acting.open));
    }
    line(
        out,
        "acting",
        &format!(
            "{}: {}",
            number(acting.incidents, "incident"),
            ends.join(", ")
        ),
    );
    if acting.healed.count > 0 {
        line(
            out,
            "healed",
            &format!(
                "{}{}",
                number(acting.healed.count, "time"),
                spans(&acting.healed)
            ),
        );
    }
    let effects: Vec<_> = acting
        .effects
        .iter()
        .map(|(effect, count)| format!("{count} x {effect}"))
        .collect();
    let did = if effects.is_empty() {
        "nothing changed".to_owned()
    } else {
        effects.join(", ")
    };
    line(
        out,
        "did",
        &format!("{}: {did}", number(acting.runs, "run")),
    );
    guards(out, &acting.held);
    let approvals = &acting.approvals;
    if (approvals.approved, approvals.denied, approvals.expired) != (0, 0, 0) {
        line(
            out,
            "plans",
            &format!(
                "{} approved, {} denied, {} expired",
                number(approvals.approved, "time"),
                approvals.denied,
                approvals.expired
            ),
        );
    }
    lines(out, "failures", &texts(&acting.failures));
    lines(out, "escalated", &texts(&acting.escalations));
}

fn guards(out: &mut String, held: &BTreeMap<Guard, u32>) {
    if held.is_empty() {
        line(out, "held", "never");
        return;
    }
    let held: Vec<_> = held
        .iter()
        .map(|(guard, count)| format!("{} in {}", guard.as_str(), number(*count, "incident")))
        .collect();
    line(out, "held", &held.join(", "));
}

fn texts(counted: &[Counted]) -> Vec<String> {
    counted
        .iter()
        .map(|one| format!("{:>4} x {}", one.count, one.text))
        .collect()
}

fn spans(spans: &Spans) -> String {
    match (spans.count, spans.p50, spans.p90) {
        (1, Some(only), _) => format!(", after {}", short(only)),
        (_, Some(half), Some(most)) => format!(
            ", half within {}, nine of ten within {}",
            short(half),
            short(most)
        ),
        _ => String::new(),
    }
}

/// What is long needs no milliseconds.
fn short(span: Duration) -> HumanDuration {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let grain = match millis {
        0..1_000 => 1,
        1_000..10_000 => 100,
        _ => 1_000,
    };
    HumanDuration(Duration::from_millis(millis / grain * grain))
}

fn number(count: u32, one: &str) -> String {
    counted(count as usize, one, &format!("{one}s"))
}
