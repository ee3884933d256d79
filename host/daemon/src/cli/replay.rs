//! `sentinel replay`: runs once more, on their records alone.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sentinel_core::id::{Digest, RunId};
use sentinel_core::recording::{RecordedLine, RecordedOutcome, Recording};
use sentinel_core::timeline;
use sentinel_journal::Reader;
use sentinel_sandbox::{Plugin, ReplayOutcome, ReplayReport, Sandbox};
use serde::Serialize;

use super::incidents::reader;
use super::output::{Failure, harmless, harmless_lines, print_as};
use crate::app;
use crate::config::{Config, Limits};
use crate::past_run;

/// What is played again.
#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// The run, such as `42.1`: the first run of incident 42.
    #[arg(required_unless_present = "last", conflicts_with = "last")]
    run: Option<RunId>,
    /// The last so many runs; with --plugin those of that plugin.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    last: Option<u32>,
    /// Another version of the plugin, a `.wasm` file; without it the version that ran.
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    #[command(flatten)]
    output: super::OutputArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    runs: Vec<Replayed>,
}

/// One run, played again.
#[derive(Debug, Serialize)]
struct Replayed {
    run: RunId,
    plugin: String,
    version: String,
    digest: Digest,
    /// Why it cannot be played again.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    report: Option<ReplayReport>,
}

pub(super) fn run(config: &Path, args: &ReplayArgs) -> Result<(), Failure> {
    let settings = Config::read(config, &super::variable)?;
    let reader = reader(config)?;
    let sandbox = app::sandbox(&settings, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::software(error.to_string()))?;
    let player = Player {
        reader,
        sandbox,
        limits: settings.limits,
    };
    let report = runtime.block_on(player.play(args))?;
    print_as(args.output.output, &report, || text(&report, args))?;
    if report.ok {
        Ok(())
    } else {
        // Everything has been said.
        Err(Failure::given(""))
    }
}

struct Player {
    reader: Reader,
    sandbox: Arc<Sandbox>,
    limits: Limits,
}

impl Player {
    async fn play(&self, args: &ReplayArgs) -> Result<Report, Failure> {
        let other = match &args.plugin {
            Some(file) => Some(self.load_file(file).await?),
            None => None,
        };
        let runs = match (args.run, args.last) {
            (Some(run), _) => vec![run],
            (None, last) => {
                let name = other.as_ref().map(|plugin| &plugin.name);
                let last = last.unwrap_or(1);
                self.reader.last_runs(name, last).map_err(unreadable)?
            }
        };
        if runs.is_empty() {
            return Err(Failure::given("the journal has no such runs"));
        }
        let mut replayed = Vec::with_capacity(runs.len());
        for run in runs {
            replayed.push(self.replay(run, other.as_ref()).await?);
        }
        // One that was named has to be there; of many, some may be too old.
        if let ([one], Some(_)) = (replayed.as_slice(), args.run)
            && let Some(problem) = &one.problem
        {
            return Err(Failure::given(problem.clone()));
        }
        let diverged = |one: &Replayed| {
            let report = one.report.as_ref();
            report.is_some_and(|report| report.divergence.is_some())
        };
        Ok(Report {
            ok: !replayed.iter().any(diverged),
            runs: replayed,
        })
    }

    async fn load_file(&self, file: &Path) -> Result<Arc<Plugin>, Failure> {
        let wasm = std::fs::read(file)
            .map_err(|error| Failure::given(format!("{}: {error}", file.display())))?;
        self.sandbox
            .load(wasm)
            .await
            .map_err(|error| Failure::given(format!("{}: {error}", file.display())))
    }

    async fn replay(&self, run: RunId, other: Option<&Arc<Plugin>>) -> Result<Replayed, Failure> {
        let events = self.reader.events(run.incident).map_err(unreadable)?;
        if events.is_empty() {
            return Err(Failure::given(format!(
                "there is no incident {}",
                run.incident
            )));
        }
        let recording =
            Recording::of(&events, run).map_err(|error| Failure::given(error.to_string()))?;
        let mut replayed = Replayed {
            run,
            plugin: recording.plugin.to_string(),
            version: recording.version.clone(),
            digest: recording.digest,
            problem: None,
            report: None,
        };
        if let Some(other) = other
            && other.name != recording.plugin
        {
            return Err(Failure::given(format!(
                "run {run} is one of {}, and the file is a plugin {}",
                recording.plugin, other.name
            )));
        }
        let plugin = match other {
            Some(plugin) => Ok(plugin.clone()),
            None => self.kept(recording.digest).await?,
        };
        let plugin = match plugin {
            Ok(plugin) => plugin,
            Err(problem) => {
                replayed.problem = Some(format!("run {run} cannot be played again: {problem}"));
                return Ok(replayed);
            }
        };
        let limits = self.limits.of(&recording.plugin).run();
        let (input, limits) =
            past_run::input(&events, &recording, &plugin, limits).map_err(Failure::given)?;
        let report = self.sandbox.replay(plugin, input, recording, limits).await;
        replayed.report = Some(report);
        Ok(replayed)
    }

    /// The version that ran, if it is still kept and can be loaded.
    async fn kept(&self, digest: Digest) -> Result<Result<Arc<Plugin>, String>, Failure> {
        let Some(wasm) = self.reader.plugin(&digest).map_err(unreadable)? else {
            return Ok(Err(format!(
                "plugin {digest}, which it ran, is not kept any more; name a file with --plugin"
            )));
        };
        let loaded = self.sandbox.load(wasm).await;
        Ok(loaded.map_err(|error| format!("plugin {digest} cannot be loaded any more: {error}")))
    }
}

fn unreadable(error: impl std::fmt::Display) -> Failure {
    Failure::given(error.to_string())
}

fn text(report: &Report, args: &ReplayArgs) -> String {
    let mut out = String::new();
    for replayed in &report.runs {
        // Writing to a String cannot fail.
        let _ok = match (&replayed.problem, &replayed.report) {
            (Some(problem), _) => writeln!(out, "{}", harmless(problem)),
            (None, Some(report)) if args.last.is_some() => {
                let verdict = match &report.divergence {
                    Some(divergence) => format!("DIVERGED  {}", harmless(&divergence.to_string())),
                    None => "as recorded".to_owned(),
                };
                writeln!(out, "run {:<10}  {verdict}", replayed.run.to_string())
            }
            (None, Some(report)) => {
                out.push_str(&one(replayed, report));
                Ok(())
            }
            (None, None) => Ok(()),
        };
    }
    if args.last.is_some() {
        let diverged = report
            .runs
            .iter()
            .filter_map(|run| run.report.as_ref())
            .filter(|report| report.divergence.is_some())
            .count();
        let skipped = report
            .runs
            .iter()
            .filter(|run| run.problem.is_some())
            .count();
        let _ok = writeln!(
            out,
            "{} runs played again, {diverged} diverged, {skipped} could not be played",
            report.runs.len() - skipped
        );
    }
    out
}

fn lines(out: &mut String, lines: &[RecordedLine]) {
    for line in lines {
        // Writing to a String cannot fail.
        let _ok = writeln!(
            out,
            "      {}: {}",
            line.level.as_str(),
            harmless(&line.message)
        );
    }
}

fn one(replayed: &Replayed, report: &ReplayReport) -> String {
    let mut out = format!(
        "run {} of {} {} ({}){}\n",
        replayed.run,
        replayed.plugin,
        harmless(&replayed.version),
        replayed.digest.short(),
        if report.same_plugin {
            ""
        } else {
            ", played with another version"
        }
    );
    for call in &report.calls {
        lines(&mut out, &call.lines);
        let came = match &call.outcome {
            RecordedOutcome::Observed(result) => format!("saw   {}", timeline::outcome(result)),
            RecordedOutcome::Effect {
                ended: Some(result),
                ..
            } => format!("did   {}", timeline::outcome(result)),
            RecordedOutcome::Effect { ended: None, .. } => "did   (no end on record)".to_owned(),
            RecordedOutcome::Planned { result, .. } => {
                format!("would {}", timeline::outcome(result))
            }
            RecordedOutcome::Denied(error) => format!("was refused: {error}"),
        };
        // Writing to a String cannot fail.
        let _ok = writeln!(
            out,
            "{:>4}  {} → {}",
            call.number,
            harmless(&call.request.summary()),
            harmless(&came)
        );
    }
    lines(&mut out, &report.lines);
    let ended = match &report.outcome {
        ReplayOutcome::Ended { result } => timeline::ending(result),
        ReplayOutcome::RecordEnds { asked: Some(asked) } => {
            format!("the record ends where it asks for {}", asked.summary())
        }
        ReplayOutcome::RecordEnds { asked: None } => "the record ends here".to_owned(),
        ReplayOutcome::Diverged => "it did something else than the record has".to_owned(),
    };
    let _ok = writeln!(out, "      {}", harmless_lines(&ended, 6));
    let _ok = match &report.divergence {
        Some(divergence) => writeln!(
            out,
            "first divergence: {}",
            harmless(&divergence.to_string())
        ),
        None => writeln!(out, "as recorded"),
    };
    out
}
