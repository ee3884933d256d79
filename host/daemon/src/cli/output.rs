//! What a person or a script reads.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use serde::Serialize;

use super::Output;
use crate::config::ConfigError;

/// What ends a command early, with its exit code.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A problem in what the user gave.
    pub(super) fn given(message: impl Into<String>) -> Self {
        Self::new(1, message)
    }

    /// What was kept cannot be read any more (`EX_DATAERR`).
    pub(super) fn damaged(message: impl Into<String>) -> Self {
        Self::new(65, message)
    }

    /// Something needed cannot be reached (`EX_UNAVAILABLE`).
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(69, message)
    }

    /// Our own fault (`EX_SOFTWARE`).
    pub(super) fn software(message: impl Into<String>) -> Self {
        Self::new(70, message)
    }

    /// Something cannot be written (`EX_CANTCREAT`).
    pub(super) fn cannot_create(message: impl Into<String>) -> Self {
        Self::new(73, message)
    }

    /// The daemon's configuration (`EX_CONFIG`).
    pub(super) fn config(message: impl Into<String>) -> Self {
        Self::new(78, message)
    }

    fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// Says what to do about it.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With another exit code.
    #[must_use]
    pub(super) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Tells it, and gives the exit code.
    pub(super) fn report(self) -> ExitCode {
        let mut text = String::new();
        if !self.message.is_empty() {
            // Writing to a String cannot fail.
            let _ok = writeln!(text, "error: {}", self.message.trim_end());
        }
        if let Some(hint) = self.hint {
            let _ok = writeln!(text, "hint: {hint}");
        }
        // Nobody is left to tell when stderr is closed.
        let _told = io::stderr().write_all(text.as_bytes());
        ExitCode::from(self.code)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match &error {
            ConfigError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Self::given(error.to_string())
                    .hint("name the file with --config FILE or SENTINEL_CONFIG")
            }
            ConfigError::Open(_) => Self::config(error.to_string()).hint(
                "listen on 127.0.0.1 alone, or write `access: open` (SENTINEL_ACCESS=open) where a network or a proxy keeps strangers out",
            ),
            ConfigError::Read { .. }
            | ConfigError::Source { .. }
            | ConfigError::Environment { .. }
            | ConfigError::Value(_) => Self::given(error.to_string()),
        }
    }
}

/// Prints data. A reader that has gone away (`| head`) is no error.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::cannot_create(format!("stdout: {error}")).code(74))
        }
        _ => Ok(()),
    }
}

/// Prints `value` as JSON, or `text` for people.
pub(super) fn print_as<T: Serialize>(
    output: Output,
    value: &T,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    match output {
        Output::Text => print(&text()),
        Output::Json => match serde_json::to_string_pretty(value) {
            Ok(json) => print(&(json + "\n")),
            Err(error) => Err(Failure::software(error.to_string())),
        },
    }
}

/// Columns of text, each as wide as its widest cell.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    let mut out = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// Text of somebody else's, without what could move the cursor or colour the screen.
pub(super) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if moves(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Whether a character does something else than stand there: control characters, and
/// those that reverse the order of others or are not seen.
fn moves(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
        )
}
