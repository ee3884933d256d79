//! `sentinel plugin test`: a folder of cases, on the sandbox that the daemon has.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use sentinel_sandbox::{Plugin, RunLimits, Sandbox};
use serde::Serialize;

use super::cases::{Case, Line, Scripted, Side};
use super::project::{CASES, MANIFEST, Project};
use super::{build, sandbox};
use crate::cli::output::{Failure, harmless, print, print_as};
use crate::cli::past::counted;

/// How long nothing may change before what changed is built: an editor writes more than once.
const QUIET: Duration = Duration::from_millis(200);

/// What is tested.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TestArgs {
    /// A plugin's project, which is built first, or a folder of cases (with --plugin).
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The plugin to test; by default that of the project.
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// Only the cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Test what is there, without building it first.
    #[arg(long)]
    no_build: bool,
    /// Stay, and build and test again whenever a file changes.
    #[arg(long, conflicts_with = "output")]
    watch: bool,
    /// Show what each case's plugin wrote to its log.
    #[arg(long)]
    log: bool,
    #[command(flatten)]
    output: crate::cli::OutputArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    plugin: String,
    passed: usize,
    failed: usize,
    cases: Vec<CaseReport>,
}

#[derive(Debug, Serialize)]
struct CaseReport {
    name: String,
    file: String,
    ok: bool,
    /// Why it could not be carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    lines: Vec<Line>,
    log: Vec<String>,
}

pub(super) fn run(args: &TestArgs) -> Result<(), Failure> {
    if args.watch {
        return watch(args);
    }
    let report = test(args, &sandbox()?)?;
    print_as(args.output.output, &report, || text(&report, args.log))?;
    if report.ok {
        Ok(())
    } else {
        // Everything has been said.
        Err(Failure::given(""))
    }
}

/// Builds and tests, again and again.
fn watch(args: &TestArgs) -> Result<(), Failure> {
    let sandbox = sandbox()?;
    let (tell, changes) = std::sync::mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // The receiver is gone only when this ends.
        let _gone = tell.send(event);
    })
    .map_err(|error| Failure::software(format!("nothing can be watched: {error}")))?;
    let folder = args
        .folder
        .canonicalize()
        .map_err(|error| Failure::given(format!("{}: {error}", args.folder.display())))?;
    watcher
        .watch(&folder, RecursiveMode::Recursive)
        .map_err(|error| Failure::given(format!("{}: {error}", folder.display())))?;
    loop {
        match test(args, &sandbox) {
            Ok(report) => print(&text(&report, args.log))?,
            Err(failure) => {
                // Told, and the next change may mend it.
                let _code = failure.report();
            }
        }
        print("watching, until Ctrl-C\n\n")?;
        // What was saved while it was building counts as well.
        loop {
            let event = changes
                .recv()
                .map_err(|_| Failure::software("the folder is not watched any more"))?;
            if event.is_ok_and(|event| is_change(&event, &folder)) {
                break;
            }
        }
        while changes.recv_timeout(QUIET).is_ok() {}
    }
}

/// Whether somebody has changed what the plugin is made of, and not a build what it makes.
fn is_change(event: &notify::Event, folder: &Path) -> bool {
    const MADE: [&str; 8] = [
        ".build",
        "bindings",
        "wit",
        "target",
        "node_modules",
        ".venv",
        "__pycache__",
        ".git",
    ];
    if event.kind.is_access() {
        return false;
    }
    event.paths.iter().any(|path| {
        let inside = path.strip_prefix(folder).unwrap_or(path);
        let made = inside
            .components()
            .any(|part| MADE.iter().any(|made| part.as_os_str() == *made));
        let name = inside.to_string_lossy();
        let written = [".wasm", ".wasm.new", "Cargo.lock"];
        !made && !name.is_empty() && !written.iter().any(|ending| name.ends_with(ending))
    })
}

fn test(args: &TestArgs, sandbox: &Arc<Sandbox>) -> Result<Report, Failure> {
    let (plugin, cases) = subject(args)?;
    let files = case_files(&cases)?;
    let runtime = super::runtime()?;
    let plugin = runtime.block_on(super::load(sandbox, &plugin))?;
    let mut reports = Vec::new();
    for file in files {
        if let Some(report) = runtime.block_on(one(args, sandbox, &plugin, &file)) {
            reports.push(report);
        }
    }
    if reports.is_empty() {
        return Err(match &args.only {
            Some(only) => Failure::given(format!("no case has `{only}` in its name")),
            None => Failure::given(format!("{}: there are no cases in it", cases.display()))
                .hint("a case is a .yaml, .yml or .json file; see docs/plugins.md"),
        });
    }
    let passed = reports.iter().filter(|case| case.ok).count();
    Ok(Report {
        ok: passed == reports.len(),
        plugin: plugin.to_string(),
        passed,
        failed: reports.len() - passed,
        cases: reports,
    })
}

/// The plugin, and the folder of its cases.
fn subject(args: &TestArgs) -> Result<(PathBuf, PathBuf), Failure> {
    if let Some(plugin) = &args.plugin {
        let cases = args.folder.join(CASES);
        let cases = if cases.is_dir() {
            cases
        } else {
            args.folder.clone()
        };
        return Ok((plugin.clone(), cases));
    }
    if !args.folder.join(MANIFEST).is_file() {
        return Err(Failure::given(format!(
            "{}: there is no {MANIFEST} in it",
            args.folder.display()
        ))
        .hint("name a plugin's project, or the plugin of these cases with --plugin FILE"));
    }
    let project = Project::read(&args.folder)?;
    if !args.no_build {
        build::build(&project, None)?;
    }
    Ok((project.wasm(), project.folder.join(CASES)))
}

/// The cases in a folder, sorted by name.
pub(super) fn case_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder)
        .map_err(|error| Failure::given(format!("{}: {error}", folder.display())))?;
    let is_case = |path: &PathBuf| {
        path.extension()
            .and_then(|ending| ending.to_str())
            .is_some_and(|ending| ["yaml", "yml", "json"].contains(&ending))
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(is_case)
        .collect();
    files.sort();
    Ok(files)
}

async fn one(
    args: &TestArgs,
    sandbox: &Sandbox,
    plugin: &Arc<Plugin>,
    file: &Path,
) -> Option<CaseReport> {
    let refused = |name: String, problem: String| CaseReport {
        name,
        file: file.display().to_string(),
        ok: false,
        problem: Some(problem),
        lines: Vec::new(),
        log: Vec::new(),
    };
    let case = match Case::read(file) {
        Ok(case) => case,
        Err(problem) => return Some(refused(String::new(), problem)),
    };
    if !args
        .only
        .as_ref()
        .is_none_or(|only| case.name.contains(only))
    {
        return None;
    }
    if let Some(problem) = bad_params(plugin, &case.incident.params) {
        return Some(refused(case.name, problem));
    }
    let (name, incident, now) = (case.name.clone(), case.incident.clone(), case.now);
    let script = Arc::new(Scripted::new(case));
    let report = sandbox
        .rehearse(
            Arc::clone(plugin),
            incident,
            script.clone(),
            now,
            RunLimits::default(),
        )
        .await;
    let (ok, lines) = script.compare(&report.result);
    Some(CaseReport {
        name,
        file: file.display().to_string(),
        ok,
        problem: None,
        lines,
        log: script.log(),
    })
}

/// What is wrong with a case's params: a policy with them would be refused.
pub(super) fn bad_params(
    plugin: &Plugin,
    params: &serde_json::Map<String, serde_json::Value>,
) -> Option<String> {
    let errors = plugin.validate_params(&serde_json::Value::Object(params.clone()));
    let first = errors.first()?;
    let at = if first.path.is_empty() {
        "/"
    } else {
        &first.path
    };
    Some(format!(
        "params: at {at}: {}: no policy could have them",
        first.message
    ))
}

fn text(report: &Report, log: bool) -> String {
    let mut out = format!("{}\n", harmless(&report.plugin));
    // Writing to a String cannot fail.
    for case in &report.cases {
        let word = if case.ok { "ok  " } else { "FAIL" };
        let name = harmless(&case.name);
        let _ok = writeln!(out, "{word} {}  {name}", case.file);
        if let Some(problem) = &case.problem {
            let _ok = writeln!(out, "     {}", harmless(problem));
        }
        if !case.ok {
            for line in &case.lines {
                let mark = match line.side {
                    Side::Both => ' ',
                    Side::Expected => '-',
                    Side::Got => '+',
                };
                let _ok = writeln!(out, "  {mark}  {}", harmless(&line.text));
            }
        }
        if log || !case.ok {
            for line in &case.log {
                let _ok = writeln!(out, "     | {}", harmless(line));
            }
        }
    }
    let mut said = counted(report.passed, "case passed", "cases passed");
    if report.failed > 0 {
        let _ok = write!(said, ", {} failed", report.failed);
    }
    let _ok = writeln!(out, "{said}");
    out
}
