//! What the daemon says of itself: logs on stderr, and metrics.
//!
//! Levels are a contract: ERROR means that an operator must act, WARN that something
//! went wrong and was survived, INFO is the way of an incident from alert to end,
//! DEBUG is for who writes policies and plugins, TRACE for who writes sentinel.

pub(crate) mod budgets;
pub(crate) mod events;
pub(crate) mod exposition;
mod lines;
pub(crate) mod metrics;
mod series;
mod throttle;

use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

use crate::config::{LogConfig, LogFormat};

/// The filter in the configuration is not one.
#[derive(Debug, thiserror::Error)]
#[error("`log.level` is no filter: {0}")]
pub(crate) struct FilterError(#[from] tracing_subscriber::filter::ParseError);

/// Whether `level` is a filter. A bare word that is no level would count as the name of
/// a module, and silence everything else.
pub(crate) fn check(level: &str) -> Result<(), String> {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    for part in level.split(',').map(str::trim) {
        let known = levels.contains(&part.to_lowercase().as_str());
        if !known && !part.contains('=') {
            return Err(format!(
                "log.level: `{part}` is no level: expected one of {}, or a filter such as info,sentinel=debug",
                levels.join(", ")
            ));
        }
    }
    EnvFilter::builder()
        .parse(level)
        .map(|_| ())
        .map_err(|error| format!("log.level: `{level}` is no filter: {error}"))
}

/// Puts another filter in the place of the one that is there.
type Refilter =
    Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync>;

/// Set with the log.
static FILTER: OnceLock<Refilter> = OnceLock::new();

/// Writes what this filter lets through from now on.
pub(crate) fn set_level(level: &str) -> Result<(), String> {
    let filter = EnvFilter::builder()
        .parse(level)
        .map_err(|error| error.to_string())?;
    match FILTER.get() {
        Some(refilter) => refilter(filter).map_err(|error| error.to_string()),
        None => Ok(()),
    }
}

fn refilter<S: 'static>(handle: Handle<EnvFilter, S>) -> Refilter {
    Box::new(move |filter| handle.reload(filter))
}

/// Sends the log to stderr.
pub(crate) fn init(config: &LogConfig) -> Result<(), FilterError> {
    let filter = EnvFilter::builder().parse(&config.level)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    let (set, filter) = match config.format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let builder = builder.with_ansi(ansi).fmt_fields(lines::OneLine);
            let builder = builder.with_filter_reloading();
            let filter = refilter(builder.reload_handle());
            (
                tracing::subscriber::set_global_default(builder.finish()),
                filter,
            )
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let filter = refilter(builder.reload_handle());
            (
                tracing::subscriber::set_global_default(builder.finish()),
                filter,
            )
        }
    };
    if set.is_err() || FILTER.set(filter).is_err() {
        tracing::debug!("a log was set up before");
    }
    Ok(())
}
