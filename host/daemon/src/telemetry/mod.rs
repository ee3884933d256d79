//! What the daemon says of itself: logs on stderr, and metrics.
//!
//! Levels are a contract: ERROR means that an operator must act, WARN that something
//! went wrong and was survived, INFO is the way of an incident from alert to end,
//! DEBUG is for who writes policies and plugins, TRACE for who writes sentinel.

pub(crate) mod events;
pub(crate) mod metrics;

use tracing_subscriber::EnvFilter;

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

/// Sends the log to stderr.
pub(crate) fn init(config: &LogConfig) -> Result<(), FilterError> {
    let filter = EnvFilter::builder().parse(&config.level)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    let set = match config.format {
        LogFormat::Text => tracing::subscriber::set_global_default(
            builder
                .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
                .finish(),
        ),
        LogFormat::Json => {
            tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish())
        }
    };
    if set.is_err() {
        tracing::debug!("a log was set up before");
    }
    Ok(())
}
