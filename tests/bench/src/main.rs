//! Measures what sentinel costs: the released binary with a real journal and a real
//! plugin, and a Docker that answers at once. One table says what was measured, what is
//! aimed at, and what limits it here. `docs/benchmarks.md` explains each row.

#![forbid(unsafe_code)]

mod daemon;
mod disk;
mod docker;
mod history;
mod http;
mod load;
mod measure;
mod payload;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::daemon::Built;
use crate::measure::{Bench, Measure};

/// Measures what sentinel costs
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Only these measures, in this order; may be repeated or separated by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    only: Vec<Measure>,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
    /// The daemon to measure [default: the `sentinel` beside this program]
    #[arg(long, env = "SENTINEL_BIN", value_name = "FILE")]
    sentinel: Option<PathBuf>,
    /// The folder with docker-restart.wasm [default: `plugins/dist` in cargo's target folder]
    #[arg(long, env = "SENTINEL_PLUGINS", value_name = "FOLDER")]
    plugins: Option<PathBuf>,
    /// Where the journals are put: a real disk, not one in memory [default: `bench` in
    /// cargo's target folder]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Connections of the loads that are as fast as the answers
    #[arg(long, default_value_t = 64, value_name = "COUNT")]
    connections: usize,
    /// Past incidents in the journal of `start`
    #[arg(long, default_value_t = 1_000_000, value_name = "COUNT")]
    incidents: u64,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let program = std::env::current_exe()?;
    let release = program.parent().context("this program is in no folder")?;
    let target = release
        .parent()
        .context("this program is in no target folder")?;
    let bench = Bench {
        built: Built {
            sentinel: arguments
                .sentinel
                .unwrap_or_else(|| release.join("sentinel")),
            plugins: arguments
                .plugins
                .unwrap_or_else(|| target.join("plugins/dist")),
            folder: arguments.folder.unwrap_or_else(|| target.join("bench")),
        },
        connections: arguments.connections,
        incidents: arguments.incidents,
    };
    let measures = if arguments.only.is_empty() {
        Measure::ALL.to_vec()
    } else {
        arguments.only
    };
    let rows = bench.run(&measures)?;
    let text = if arguments.json {
        serde_json::to_string_pretty(&rows)?
    } else {
        report::table(&rows)
    };
    report::print(text.trim_end())
}
