//! What is wrong with a file of policies, or of their tests, and where.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, NamedSource, SourceSpan};
use serde::Serialize;

/// One mistake in a file of policies, of their tests, or of the configuration.
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
        if !self.can_be_drawn() {
            let help = self.help.iter().map(|help| format!("\n  help: {help}"));
            return self.one_line() + &help.collect::<String>();
        }
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

impl PolicyError {
    /// Whether the lines around the place are of a length that people read. Of longer ones a
    /// terminal shows nothing that helps, and drawing them panics from 65,536 columns on.
    fn can_be_drawn(&self) -> bool {
        let text: &str = self.source_text.inner();
        let (from, to) = (self.span.offset(), self.span.offset() + self.span.len());
        let before = text.get(..from).unwrap_or(text).rsplitn(3, '\n').take(2);
        let after = text.get(to..).unwrap_or_default().splitn(3, '\n').take(2);
        let inside = text.get(from..to).unwrap_or_default().split('\n');
        // What the place is in the midst of is told piece by piece, which is near enough.
        before
            .chain(inside)
            .chain(after)
            .all(|line| line.len() <= WIDE)
    }
}

/// How long a line may be that is shown, in bytes.
const WIDE: usize = 1 << 10;

/// A file that is read.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    name: String,
    text: Arc<str>,
    /// Where each line begins.
    lines: Arc<[usize]>,
}

/// A place in a file, in bytes.
pub(crate) type Span = Range<usize>;

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            name: name.to_owned(),
            text: text.into(),
            lines: std::iter::once(0).chain(ends).collect(),
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
        let line = self.lines.partition_point(|start| *start <= before.len());
        let line_start = line.checked_sub(1).and_then(|index| self.lines.get(index));
        let line_before = line_start.and_then(|start| before.get(*start..));
        let line_before = line_before.unwrap_or_default();
        let column = without_mark(line_before).chars().count() + 1;
        (line, column)
    }

    /// The byte at a line and a column, both counted from 1.
    pub(crate) fn offset(&self, line: usize, column: usize) -> usize {
        let before = self.text.split_inclusive('\n').take(line.saturating_sub(1));
        let start: usize = before.map(str::len).sum();
        let rest = self.text.get(start..).unwrap_or_default();
        let start = start + rest.len() - without_mark(rest).len();
        let rest = without_mark(rest);
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

/// How many mistakes of one file are told. Of one that is no policy file at all they would be more
/// than anybody reads, and drawing all of them would keep what draws them busy for minutes.
pub(crate) const TOLD: usize = 100;

/// Notes down a mistake, or that there are more of them.
pub(crate) fn note(errors: &mut Vec<PolicyError>, source: &Source, at: &Span, problem: Problem) {
    match errors.len().cmp(&TOLD) {
        Ordering::Less => errors.push(source.error(at, problem)),
        Ordering::Equal => {
            let more = Problem::new(format!("there are more mistakes than these {TOLD}"))
                .label("the next")
                .help("mend these first");
            errors.push(source.error(at, more));
        }
        Ordering::Greater => {}
    }
}

/// Without the mark of the byte order that some editors write: nobody sees it in a line.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
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
        // One line, whatever it quotes of the file.
        Self {
            message: message.into().replace(char::is_control, " "),
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
    use crate::policy::{Environment, PolicySet};

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
        let marked = Source::new("a.yaml", "\u{feff}ab\nc");
        assert_eq!(marked.position("\u{feff}a".len()), (1, 2));
        assert_eq!(marked.position("\u{feff}ab\n".len()), (2, 1));
        assert_eq!(marked.offset(1, 2), "\u{feff}a".len());
        assert_eq!(marked.offset(2, 1), "\u{feff}ab\n".len());
    }

    #[test]
    fn a_message_is_one_line_whatever_it_quotes() {
        let source = Source::new("a.yaml", "ttl: ...");
        let problem = Problem::new("`a\n\tb\u{1b}` is no duration");
        let error = source.error(&(5..8), problem);
        assert_eq!(error.one_line(), "a.yaml:1:6: `a  b ` is no duration");
    }

    #[test]
    fn what_is_wrong_in_a_long_line_is_told_without_the_line() {
        let problem = || Problem::new("it is wrong").help("mend it");
        for long in ["x", "\t", "ä"].map(|text| text.repeat(70_000)) {
            let texts = [
                (format!("{long}a"), long.len(), 1),
                (format!("a{long}"), 0, 1),
                (format!("{long}\na"), long.len() + 1, 2),
                (format!("a\n{long}"), 0, 1),
            ];
            for (text, at, line) in texts {
                let source = Source::new("a.yaml", &text);
                let report = source.error(&(at..at + 1), problem()).report(false);
                assert!(report.starts_with(&format!("a.yaml:{line}:")), "{report}");
                assert!(
                    report.ends_with(": it is wrong\n  help: mend it"),
                    "{report}"
                );
            }
        }
        let drawn = Source::new("a.yaml", "a\nb\n").error(&(2..3), problem());
        assert!(drawn.report(false).contains("─"), "{}", drawn.report(false));
    }

    #[test]
    fn of_a_file_that_is_no_policy_file_the_first_mistakes_are_told() {
        let twice = "  - { name: a, match: [a=b], target: 'host://a', steps: [{ plugin: b }] }\n";
        for (item, count) in [("  - x\n", 40_000), (twice, 2_000)] {
            let bad = format!("policies:\n{}", item.repeat(count));
            let files = [("a.yaml", bad.as_str()), ("b.yaml", "policies: [y]")];
            let errors = PolicySet::parse(&files, &Environment::default()).unwrap_err();
            assert_eq!(errors.len(), TOLD + 2);
            for (index, error) in errors.iter().enumerate() {
                let more = error.message() == "there are more mistakes than these 100";
                assert_eq!(more, index == TOLD, "{}", error.one_line());
                assert_eq!(error.file() == "b.yaml", index > TOLD);
                assert!(!error.report(false).is_empty());
            }
        }
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
