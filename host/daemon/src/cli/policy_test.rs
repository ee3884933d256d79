//! `sentinel policy test`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sentinel_core::duration::HumanDuration;
use sentinel_core::policy::{PolicyError, PolicySet};
use sentinel_core::rehearsal::suite::{Line, Side, Suite};
use sentinel_core::rehearsal::{Decision, What};
use serde::Serialize;

use super::Output;
use super::output::{Failure, harmless, print_as};
use super::past::counted;

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    passed: usize,
    failed: usize,
    files: Vec<FileReport>,
}

#[derive(Debug, Serialize)]
struct FileReport {
    file: String,
    #[serde(skip)]
    start: Timestamp,
    /// Mistakes in the file or in its policies; none of its tests was carried out then.
    problems: Vec<PolicyError>,
    tests: Vec<TestReport>,
}

#[derive(Debug, Serialize)]
struct TestReport {
    name: String,
    line: usize,
    ok: bool,
    lines: Vec<Line>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Vec<Decision>>,
}

pub(super) fn run(
    files: &[PathBuf],
    only: Option<&str>,
    trace: bool,
    output: Output,
) -> Result<(), Failure> {
    let files = files
        .iter()
        .map(|file| test_file(file, only, trace))
        .collect::<Result<Vec<_>, _>>()?;
    let tests = || files.iter().flat_map(|file| &file.tests);
    let report = Report {
        ok: files.iter().all(|file| file.problems.is_empty()) && tests().all(|test| test.ok),
        passed: tests().filter(|test| test.ok).count(),
        failed: tests().filter(|test| !test.ok).count(),
        files,
    };
    if let (Some(only), true) = (only, report.passed + report.failed == 0 && report.ok) {
        return Err(Failure::given(format!("no test has `{only}` in its name")));
    }
    print_as(output, &report, || text(&report))?;
    if report.ok {
        Ok(())
    } else {
        // Everything has been said.
        Err(Failure::given(""))
    }
}

fn test_file(path: &Path, only: Option<&str>, trace: bool) -> Result<FileReport, Failure> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::given(format!("{name}: cannot be read: {error}")))?;
    let refused = |problems| FileReport {
        file: name.clone(),
        start: Timestamp::UNIX_EPOCH,
        problems,
        tests: Vec::new(),
    };
    let suite = match Suite::parse(&name, &text) {
        Ok(suite) => suite,
        Err(problems) => return Ok(refused(problems)),
    };
    let policies = match policies(path, &suite) {
        Ok(policies) => Arc::new(policies),
        Err(problems) => return Ok(refused(problems)),
    };
    let wanted = suite
        .tests()
        .iter()
        .filter(|test| only.is_none_or(|only| test.name.contains(only)));
    let tests = wanted.map(|test| {
        let outcome = suite.run(test, &policies);
        TestReport {
            name: test.name.clone(),
            line: test.line,
            ok: outcome.ok(),
            lines: outcome.lines,
            trace: trace.then_some(outcome.trace.decisions),
        }
    });
    let tests = tests.collect();
    Ok(FileReport {
        file: name,
        start: suite.start(),
        problems: Vec::new(),
        tests,
    })
}

/// The policies that a file of tests names.
fn policies(path: &Path, suite: &Suite) -> Result<PolicySet, Vec<PolicyError>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for name in suite.policies() {
        let file = folder.join(name);
        match std::fs::read_to_string(&file) {
            Ok(text) => files.push((file.display().to_string(), text)),
            Err(error) => {
                let message = format!("{} cannot be read: {error}", file.display());
                problems.push(suite.policy_problem(name, &message));
            }
        }
    }
    if problems.is_empty() {
        PolicySet::parse(&files, suite.environment())
    } else {
        Err(problems)
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    for file in &report.files {
        for problem in &file.problems {
            let _ok = writeln!(out, "{}", problem.report(false).trim_end());
        }
        for test in &file.tests {
            let word = if test.ok { "ok  " } else { "FAIL" };
            let name = harmless(&test.name);
            let _ok = writeln!(out, "{word} {}:{} {name}", file.file, test.line);
            if !test.ok {
                differences(&mut out, &file.file, &test.lines);
            }
            for decision in test.trace.iter().flatten() {
                let after = decision.at.duration_since(file.start);
                let after =
                    HumanDuration(Duration::try_from(after).unwrap_or_default()).to_string();
                let _ok = writeln!(
                    out,
                    "     {}",
                    decision_line(decision, &format!("{after:<8}"))
                );
            }
        }
    }
    let mut said = counted(report.passed, "test passed", "tests passed");
    if report.failed > 0 {
        let _ok = write!(said, ", {} failed", report.failed);
    }
    let problems: usize = report.files.iter().map(|file| file.problems.len()).sum();
    if problems > 0 {
        let _ok = write!(
            said,
            ", {}",
            counted(problems, "mistake in a file", "mistakes in files")
        );
    }
    let _ok = writeln!(out, "{said}");
    out
}

/// What was expected and what came, in order; what is the same on both sides for the
/// context.
fn differences(out: &mut String, file: &str, lines: &[Line]) {
    for line in lines {
        let text = harmless(&line.text);
        let _ok = match (line.side, line.line) {
            (Side::Expected, Some(number)) => {
                writeln!(out, "  -  {text}  <- {file}:{number}")
            }
            (Side::Expected, None) => writeln!(out, "  -  {text}"),
            (Side::Got, _) => writeln!(out, "  +  {text}"),
            (Side::Both, _) => writeln!(out, "     {text}"),
        };
    }
}

/// A decision of a trace in one line, and below it the policies that an alert was held
/// against.
pub(super) fn decision_line(decision: &Decision, at: &str) -> String {
    let who = match (&decision.incident, &decision.policy, &decision.target) {
        (Some(incident), Some(policy), Some(target)) => format!("#{incident} {policy} {target}: "),
        (_, Some(policy), _) => format!("{policy}: "),
        _ => String::new(),
    };
    let mut line = harmless(&format!("{at} {who}{}", decision.what));
    if let What::Heard { looks, .. } = &decision.what {
        for look in looks {
            let said = harmless(&format!("{}: {}", look.policy, look.found));
            // Writing to a String cannot fail.
            let _ok = write!(line, "\n{:25}{said}", "");
        }
    }
    line
}
