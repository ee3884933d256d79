//! `sentinel`: takes alerts, decides by policies, acts through sandboxed plugins.

#![forbid(unsafe_code)]

mod api;
mod app;
mod cli;
mod clock;
mod config;
mod engine;
mod intake;
mod past_run;
mod reconcile;
mod reconfigure;
mod registry;
mod secrets;
mod serving;
mod telemetry;
mod upkeep;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
