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

    /// With a hint, where the message has one of these texts in it.
    #[must_use]
    pub(super) fn hint_where(self, said: &[&str], hint: &str) -> Self {
        if said.iter().any(|text| self.message.contains(text)) {
            self.hint(hint)
        } else {
            self
        }
    }

    /// With another way out beside the one that is named.
    #[must_use]
    pub(super) fn or(mut self, way: &str) -> Self {
        if let Some(hint) = &mut self.hint {
            hint.push_str(", or ");
            hint.push_str(way);
        }
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

/// Says something beside the data, on stderr.
pub(super) fn remark(text: &str) {
    // Nobody is left to tell when stderr is closed.
    let _told = io::stderr().write_all(text.as_bytes());
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

/// The widest cell of a table, in characters: what others wrote can be of any length.
const CELL: usize = 60;

/// Columns of text, each as wide as its widest cell. Of a longer cell than [`CELL`] the
/// beginning is shown.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header = header.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(header)
        .chain(
            rows.iter()
                .map(|row| row.iter().map(|cell| cut(cell, CELL)).collect()),
        )
        .collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| pad(cell, *width))
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// The text, filled up with spaces to `width` characters. (The formatter takes no width
/// above 65,535.)
pub(super) fn pad(text: &str, width: usize) -> String {
    let mut padded = text.to_owned();
    padded.extend(std::iter::repeat_n(
        ' ',
        width.saturating_sub(text.chars().count()),
    ));
    padded
}

/// The first `most` characters; that there were more is seen.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().nth(most).is_none() {
        return text.to_owned();
    }
    let kept = text.chars().take(most.saturating_sub(1));
    kept.chain(std::iter::once('…')).collect()
}

/// Text of somebody else's of several lines, harmless, with each line after the first moved
/// in by `indent`. Of a line that overwrites itself, what a terminal would have left is shown.
pub(super) fn harmless_lines(text: &str, indent: usize) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let line = line.trim_end_matches('\r');
            let left = line.rsplit('\r').next().unwrap_or(line);
            harmless(&left.replace('\t', "    "))
        })
        .collect();
    lines.join(&format!("\n{}", pad("", indent)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_the_beginning_of_what_is_long() {
        let long = "a".repeat(70_000);
        let shown = table(&["ID", "TARGET"], &[vec!["1".to_owned(), long]]);
        let widest = shown.lines().map(|line| line.chars().count()).max();
        assert_eq!(widest, Some(2 + 2 + CELL), "{shown}");
        assert!(shown.ends_with("a…\n"), "{shown}");
        assert_eq!(pad("é", 70_000).chars().count(), 70_000);
    }

    #[test]
    fn lines_stay_lines_and_do_nothing_else() {
        let said = "fatal: \u{1b}[31mno\u{202e}\r\nPLAY RECAP\n 10%\r 50%\r100%\tdone\n";
        assert_eq!(
            harmless_lines(said, 4),
            "fatal: \u{fffd}[31mno\u{fffd}\n    PLAY RECAP\n    100%    done"
        );
    }
}
