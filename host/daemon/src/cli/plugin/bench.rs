//! `sentinel plugin bench`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sentinel_core::capability::Request;
use sentinel_core::event::{CallResult, LogLevel};
use sentinel_sandbox::{IncidentInput, RunLimits, Script};
use serde::Serialize;

use super::cases::{Case, GivenAlert, Scripted, run_id, target, told};
use super::{load, runtime, sandbox, size};
use crate::cli::output::{Failure, harmless, print_as};

/// Runs that are made before any is counted.
const WARM_UP: u32 = 20;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct BenchArgs {
    /// The plugin, a `.wasm` file.
    file: PathBuf,
    /// A case of `sentinel plugin test`: what the plugin is told.
    #[arg(long, value_name = "FILE")]
    case: Option<PathBuf>,
    /// How many runs are measured, one after another.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,
    #[command(flatten)]
    output: crate::cli::OutputArgs,
}

#[derive(Debug, Serialize)]
struct Measured {
    plugin: String,
    size: usize,
    /// What the measured runs did.
    of: String,
    runs: u32,
    load_millis: u64,
    p50_micros: u64,
    p90_micros: u64,
    p99_micros: u64,
    max_micros: u64,
    runs_per_second: f64,
    peak_memory: u64,
}

/// Answers nothing.
struct Silence;

impl Script for Silence {
    fn answer(&self, _: &Request) -> Option<CallResult> {
        None
    }

    fn logged(&self, _: LogLevel, _: &str) {}
}

pub(super) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let case = match &args.case {
        Some(file) => Some(
            Case::read(file)
                .map_err(|problem| Failure::given(format!("{}: {problem}", file.display())))?,
        ),
        None => None,
    };
    let sandbox = sandbox()?;
    let runtime = runtime()?;
    let began = Instant::now();
    let plugin = runtime.block_on(load(&sandbox, &args.file))?;
    let load_millis = super::build::millis(began.elapsed());
    let (incident, now) = match &case {
        Some(case) => (case.incident.clone(), case.now),
        None => anything()?,
    };
    let mut spans = Vec::new();
    let mut peak = 0;
    let mut of = "up to the first call to the host".to_owned();
    let mut whole = Duration::ZERO;
    for run in 0..args.runs.saturating_add(WARM_UP) {
        let script = case.clone().map(|case| Arc::new(Scripted::new(case)));
        let world: Arc<dyn Script> = match &script {
            Some(script) => script.clone(),
            None => Arc::new(Silence),
        };
        let asked = Instant::now();
        let report = runtime.block_on(sandbox.rehearse(
            Arc::clone(&plugin),
            incident.clone(),
            world,
            now,
            RunLimits::default(),
        ));
        let took = asked.elapsed();
        if let Some(script) = script {
            let (ok, _) = script.compare(&report.result);
            if !ok {
                return Err(Failure::given("the plugin does not do what the case has")
                    .hint("`sentinel plugin test` shows where it differs"));
            }
            let (kind, text) = told(&report.result);
            of = format!("{kind}: {text}");
        }
        peak = peak.max(report.peak_memory);
        if run >= WARM_UP {
            spans.push(report.wall);
            whole += took;
        }
    }
    spans.sort();
    let at = |share: f64| {
        let last = spans.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        spans.get(index).map_or(0, |span| {
            u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
        })
    };
    let measured = Measured {
        plugin: plugin.to_string(),
        size: super::read(&args.file)?.len(),
        of,
        runs: args.runs,
        load_millis,
        p50_micros: at(0.5),
        p90_micros: at(0.9),
        p99_micros: at(0.99),
        max_micros: at(1.0),
        runs_per_second: f64::from(args.runs) / whole.as_secs_f64().max(f64::EPSILON),
        peak_memory: peak,
    };
    print_as(args.output.output, &measured, || text(&measured))
}

/// An incident that says as little as one can.
fn anything() -> Result<(IncidentInput, jiff::Timestamp), Failure> {
    let now = jiff::Timestamp::now();
    let alert = GivenAlert::default().alert(now);
    let incident = IncidentInput {
        incident: run_id().incident,
        run: run_id(),
        policy: sentinel_core::id::PolicyName::new("bench")
            .map_err(|error| Failure::software(error.to_string()))?,
        target: target(Some("docker://local/web"), &alert).map_err(Failure::software)?,
        alert,
        step: 1,
        attempt: 1,
        params: serde_json::Map::new(),
    };
    Ok((incident, now))
}

fn text(measured: &Measured) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ok = writeln!(
        out,
        "{} ({}), loaded in {} ms\n{} runs in a fresh instance each, {}\n\
         p50 {} µs   p90 {} µs   p99 {} µs   max {} µs   {:.0} runs a second   {} of memory",
        harmless(&measured.plugin),
        size(measured.size),
        measured.load_millis,
        measured.runs,
        harmless(&measured.of),
        measured.p50_micros,
        measured.p90_micros,
        measured.p99_micros,
        measured.max_micros,
        measured.runs_per_second,
        size(usize::try_from(measured.peak_memory).unwrap_or(usize::MAX)),
    );
    out
}
