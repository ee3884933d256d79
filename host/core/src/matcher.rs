//! Label matchers, as Alertmanager reads them.
//!
//! Two syntaxes exist, and Alertmanager 0.27 and later read both, as this module does:
//! the UTF-8 syntax first (names and values quoted or bare, Go's escapes in quotes),
//! and where it does not fit, or where the classic syntax reads the same text
//! otherwise, the classic one (names of `[a-zA-Z0-9_:]`, the escapes of the exposition
//! format, an empty value). A text that neither reads is an error, told in the terms of
//! the former.
//!
//! Regular expressions are Go's and are anchored at both ends. What Go and Rust write
//! differently is translated: `\d`, `\w`, `\s` and `\b` are ASCII, `\Q…\E` is a
//! literal, and `[` and `&&` inside a class are characters. Rust's own extensions (`(?x)`,
//! `\<`, set operations) are refused, because Alertmanager refuses them. The one thing
//! that is refused here and not there is an empty label name, which no alert carries.

mod classic;
mod re2;
mod utf8;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::str::FromStr;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::alert::Labels;

/// How large a compiled regular expression may be, in bytes.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Matches,
    /// `!~`
    NotMatches,
}

impl MatchOp {
    /// The operator as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Matches => "=~",
            Self::NotMatches => "!~",
        }
    }
}

impl fmt::Display for MatchOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Compares one label of an alert. A label that is missing is the empty string.
#[derive(Debug, Clone)]
pub struct Matcher {
    name: String,
    op: MatchOp,
    value: String,
    /// Present for the two operators that need it.
    pattern: Option<Pattern>,
}

/// A regular expression, compiled.
#[derive(Debug, Clone)]
enum Pattern {
    /// Nothing but literals with bars between them, as most are that people write:
    /// `critical|page`. An automaton would be a hundred times larger, and slower.
    OneOf(Vec<String>),
    /// Any other.
    Regex(Regex),
}

impl Pattern {
    fn compile(go: &str) -> Result<Self, RegexError> {
        // Whatever has a meaning of its own to Go is left to the automaton.
        let literal = !go.contains(|c: char| r"\.+*?()[]{}^$".contains(c));
        if literal {
            return Ok(Self::OneOf(go.split('|').map(ToOwned::to_owned).collect()));
        }
        compile(go).map(Self::Regex)
    }

    fn is_match(&self, label: &str) -> bool {
        match self {
            Self::OneOf(literals) => literals.iter().any(|literal| literal == label),
            Self::Regex(regex) => regex.is_match(label),
        }
    }
}

impl Matcher {
    /// Makes a matcher; `value` is a regular expression for `=~` and `!~`. The error is
    /// the regular expression's.
    pub fn new(
        name: impl Into<String>,
        op: MatchOp,
        value: impl Into<String>,
    ) -> Result<Self, RegexError> {
        let value = value.into();
        let pattern = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Matches | MatchOp::NotMatches => Some(Pattern::compile(&value)?),
        };
        Ok(Self {
            name: name.into(),
            op,
            value,
            pattern,
        })
    }

    /// Reads exactly one matcher, such as `severity=~"critical|page"`.
    pub fn parse(input: &str) -> Result<Self, MatcherError> {
        let Matchers(list) = Matchers::parse_list(input)?;
        let count = list.len();
        let mut list = list.into_iter();
        match (list.next(), count) {
            (Some(matcher), 1) => Ok(matcher),
            _ => Err(MatcherError {
                span: 0..input.len(),
                problem: MatcherProblem::Unexpected {
                    found: format!("{count} matchers"),
                    expected: "one matcher",
                },
            }),
        }
    }

    /// The label's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it compares.
    #[must_use]
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// What it compares with: a text or a regular expression.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What was probably meant by one whose name or value begins and ends with quotes that
    /// are a part of it, as in `alertname='A'`; none for any other. Only double quotes are
    /// quotes to Alertmanager, and its alerts have none around their names.
    #[must_use]
    pub fn without_quotes(&self) -> Option<Self> {
        let (name, value) = (bare(&self.name), bare(&self.value));
        if name.is_none() && value.is_none() {
            return None;
        }
        let name = name.unwrap_or_else(|| self.name.clone());
        let value = value.unwrap_or_else(|| self.value.clone());
        Self::new(name, self.op, value).ok()
    }

    /// Whether it holds for `labels`.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let label = labels.get(&self.name).map_or("", String::as_str);
        let holds = self
            .pattern
            .as_ref()
            .map_or_else(|| label == self.value, |pattern| pattern.is_match(label));
        holds == matches!(self.op, MatchOp::Equal | MatchOp::Matches)
    }
}

/// What stands between quotes, where `text` begins and ends with them. Those of `'a'|'b'`
/// go as well.
fn bare(text: &str) -> Option<String> {
    let mut chars = text.chars();
    let (first, last) = (chars.next()?, chars.next_back()?);
    let quotes = is_quote(first) && is_quote(last);
    let inside = chars.as_str().replace([first, last], "");
    (quotes && !inside.is_empty()).then_some(inside)
}

/// Quotes, also those that word processors and chats make of them.
fn is_quote(c: char) -> bool {
    "\"'`´“”„‟‘’‚‛«»‹›".contains(c)
}

fn compile(go: &str) -> Result<Regex, RegexError> {
    let rust = re2::translate(go).map_err(RegexError)?;
    RegexBuilder::new(&format!("^(?:{rust})$"))
        .size_limit(REGEX_SIZE_LIMIT)
        .build()
        .map_err(|error| match error {
            // Several lines: the pattern, a caret, and the reason in the last.
            regex::Error::Syntax(report) => {
                let reason = report.lines().last().unwrap_or_default();
                RegexError(reason.trim_start_matches("error: ").to_owned())
            }
            regex::Error::CompiledTooBig(_) => RegexError("it is too large".to_owned()),
            other => RegexError(other.to_string()),
        })
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl Eq for Matcher {}

impl Hash for Matcher {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, self.op, &self.value).hash(state);
    }
}

impl fmt::Display for Matcher {
    /// The value is always quoted; the name where it has to be. What is written is read
    /// again as the same matcher by either syntax.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(is_reserved) {
            write_quoted(f, &self.name)?;
        } else {
            f.write_str(&self.name)?;
        }
        f.write_str(self.op.as_str())?;
        write_quoted(f, &self.value)
    }
}

/// Writes `text` in quotes with the three escapes that both syntaxes know.
fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    use fmt::Write as _;
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '\\' => f.write_str("\\\\")?,
            '"' => f.write_str("\\\"")?,
            '\n' => f.write_str("\\n")?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// Whether a bare name or value ends at `c` in the UTF-8 syntax.
fn is_reserved(c: char) -> bool {
    c.is_whitespace() || "{}!=~,\\\"'`".contains(c)
}

impl FromStr for Matcher {
    type Err = MatcherError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::parse(s)
    }
}

impl Serialize for Matcher {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Matchers that all have to hold; none at all hold for every alert.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Matchers(pub Vec<Matcher>);

impl Matchers {
    /// Reads any number of matchers, in braces or not: `{a="b", c=~"d"}`, `a=b,c=d`.
    pub fn parse_list(input: &str) -> Result<Self, MatcherError> {
        // Both, because where they disagree the classic one is right: texts written for
        // it keep their meaning.
        let classic = classic::parse(input);
        match utf8::parse(input) {
            Ok(matchers) => Ok(Self(classic.unwrap_or(matchers))),
            Err(error) => classic.map(Self).ok_or(error),
        }
    }

    /// Whether all of them hold for `labels`.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|matcher| matcher.matches(labels))
    }
}

impl fmt::Display for Matchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, matcher) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            matcher.fmt(f)?;
        }
        f.write_str("}")
    }
}

/// Why a text is no matcher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct MatcherError {
    span: Range<usize>,
    problem: MatcherProblem,
}

/// What is wrong with a text that is no matcher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatcherProblem {
    /// Something stands where something else has to.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What stands there.
        found: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// The value of `=~` or `!~` is no regular expression.
    #[error(transparent)]
    Regex(#[from] RegexError),
}

impl MatcherError {
    /// Where, in bytes from the beginning of the text; empty at its end.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// What is wrong there.
    #[must_use]
    pub fn problem(&self) -> &MatcherProblem {
        &self.problem
    }
}

/// Why a text is no regular expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the regular expression is not valid in Go's syntax: {0}")]
pub struct RegexError(String);

#[cfg(test)]
mod tests;
