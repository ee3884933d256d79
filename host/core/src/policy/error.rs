//! What is wrong with a file of policies, or of their tests, and where.

use std::ops::Range;
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, NamedSource, SourceSpan};
use serde::Serialize;

/// One mistake in a file of policies or of their tests.
///
/// Its `Display` is the message alone; [`PolicyError::one_line`] is for logs and
/// editors, [`PolicyError::report`] for people.
#[derive(Debug, Clone, Serialize, thiserror::Error, miette::Diagnostic)]
#[error("{message}")]
pub struct PolicyError {
    file: String,
    line: usize,
    column: usize,
    message: String,
    #[help]
    help: Option<String>,
    #[source_code]
    #[serde(skip)]
    source_text: NamedSource<Arc<str>>,
    #[label("{label}")]
    #[serde(skip)]
    span: SourceSpan,
    #[serde(skip)]
    label: String,
}

impl PolicyError {
    /// The file, by the name under which it was read.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column, counted from 1 in characters.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }

    /// What is wrong: a lower-case fragment without a full stop.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What was expected, or what to do about it.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// `file:line:column: message`.
    #[must_use]
    pub fn one_line(&self) -> String {
        let Self {
            file,
            line,
            column,
            message,
            ..
        } = self;
        format!("{file}:{line}:{column}: {message}")
    }

    /// Several lines: the message, the place in the file, and the help; in colour if
    /// asked.
    #[must_use]
    pub fn report(&self, colour: bool) -> String {
        let theme = if colour {
            GraphicalTheme::unicode()
        } else {
            GraphicalTheme::unicode_nocolor()
        };
        let mut report = String::new();
        let rendered = GraphicalReportHandler::new_themed(theme)
            .with_links(false)
            .render_report(&mut report, self);
        if rendered.is_err() {
            report = self.one_line();
        }
        report
    }
}

/// A file that is read.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    name: String,
    text: Arc<str>,
}

/// A place in a file, in bytes.
pub(crate) type Span = Range<usize>;

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        Self {
            name: name.to_owned(),
            text: text.into(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Line and column of a place, both counted from 1.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        (line, column)
    }

    /// The byte at a line and a column, both counted from 1.
    pub(crate) fn offset(&self, line: usize, column: usize) -> usize {
        let before = self.text.split_inclusive('\n').take(line.saturating_sub(1));
        let start: usize = before.map(str::len).sum();
        let rest = self.text.get(start..).unwrap_or_default();
        let text = rest.split('\n').next().unwrap_or_default();
        let width = text
            .chars()
            .take(column.saturating_sub(1))
            .map(char::len_utf8);
        start + width.sum::<usize>()
    }

    pub(crate) fn error(&self, at: &Span, problem: Problem) -> PolicyError {
        let (line, column) = self.position(at.start);
        PolicyError {
            file: self.name.clone(),
            line,
            column,
            message: problem.message,
            help: problem.help,
            source_text: NamedSource::new(&self.name, Arc::clone(&self.text)),
            span: at.clone().into(),
            label: problem.label,
        }
    }
}

/// What is wrong, without the place.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    message: String,
    label: String,
    help: Option<String>,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            label: "here".to_owned(),
            help: None,
        }
    }

    /// Two or three words beside the place.
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// The one of `known` that `word` was probably meant to be; none when it resembles none.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    // Few letters differ, or the beginning is the same, or one is a part of the other.
    let near = |distance: usize, known: &str| {
        let shared = known
            .bytes()
            .zip(word.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        distance <= (known.len().max(word.len()) / 3).clamp(1, 4)
            || shared >= 5
            || is_part(known, &word)
            || is_part(&word, known)
    };
    known
        .into_iter()
        .map(|known| {
            let distance = strsim::damerau_levenshtein(&word, &known.to_lowercase());
            (distance, known)
        })
        .filter(|(distance, known)| near(*distance, known))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Whether `part` is one of the words that `whole` is made of: `breaker` in
/// `circuit_breaker`.
fn is_part(part: &str, whole: &str) -> bool {
    part.len() >= 4 && whole.split(['_', '-', '.', '/']).any(|word| word == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters() {
        let source = Source::new("a.yaml", "ä: b\n🙂🙂x\n");
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position("ä:".len()), (1, 3));
        assert_eq!(source.position("ä: b\n🙂🙂".len()), (2, 3));
        assert_eq!(source.position(1000), (3, 1));
        for offset in [0, "ä:".len(), "ä: b\n🙂🙂".len(), source.text().len()] {
            let (line, column) = source.position(offset);
            assert_eq!(source.offset(line, column), offset);
        }
        assert_eq!(source.offset(1, 99), "ä: b".len());
    }

    #[test]
    fn the_nearest_word_is_near() {
        let known = ["attempts", "timeout", "plugin"];
        assert_eq!(nearest("atempts", known), Some("attempts"));
        assert_eq!(nearest("Timeout", known), Some("timeout"));
        assert_eq!(nearest("attempt-count", known), Some("attempts"));
        assert_eq!(nearest("retries", known), None);
        assert_eq!(nearest("x", known), None);
        let known = ["blast_radius", "breaker", "concurrency", "cooldown"];
        assert_eq!(nearest("circuit_breaker", known), Some("breaker"));
        assert_eq!(nearest("radius", known), Some("blast_radius"));
        assert_eq!(nearest("fuse", known), None);
    }
}
