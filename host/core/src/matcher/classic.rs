//! The classic syntax: Alertmanager's `pkg/labels`.

use super::{MatchOp, Matcher};

/// Reads any number of matchers; none where the text does not fit, because errors are
/// told in the terms of the other syntax.
pub(super) fn parse(input: &str) -> Option<Vec<Matcher>> {
    let input = input.strip_prefix('{').unwrap_or(input);
    let input = input.strip_suffix('}').unwrap_or(input);
    let mut parts = split(input);
    // A comma may stand at the end.
    if parts.last().is_some_and(|last| last.trim().is_empty()) {
        parts.pop();
    }
    parts.into_iter().map(matcher).collect()
}

/// Splits at the commas that stand outside of double quotes.
fn split(input: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut quoted = false;
    let mut escaped = false;
    for (offset, c) in input.char_indices() {
        match c {
            ',' if !quoted => {
                parts.push(input.get(start..offset).unwrap_or_default());
                start = offset + 1;
            }
            // A comma inside quotes leaves `escaped` as it is, there as here.
            ',' => {}
            '"' if escaped => escaped = false,
            '"' => quoted = !quoted,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    parts.push(input.get(start..).unwrap_or_default());
    parts
}

fn matcher(part: &str) -> Option<Matcher> {
    let part = trim(part);
    let end = part
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(part.len());
    let (name, rest) = part.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let rest = trim(rest);
    let (op, raw) = [
        MatchOp::Matches,
        MatchOp::Equal,
        MatchOp::NotEqual,
        MatchOp::NotMatches,
    ]
    .into_iter()
    .find_map(|op| Some((op, rest.strip_prefix(op.as_str())?)))?;
    Matcher::new(name, op, value(trim(raw))?).ok()
}

/// Without the white space that Go's `\s` stands for.
fn trim(text: &str) -> &str {
    text.trim_matches(['\t', '\n', '\u{c}', '\r', ' '])
}

/// A value with the escapes of the exposition format; a backslash that escapes nothing is a backslash.
fn value(raw: &str) -> Option<String> {
    let (inner, mut open) = match raw.strip_prefix('"') {
        Some(inner) => (inner, true),
        None => (raw, false),
    };
    let mut value = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => value.push('\n'),
                Some(c @ ('"' | '\\')) => value.push(c),
                Some(other) => value.extend(['\\', other]),
                None => value.push('\\'),
            },
            '"' if open && chars.as_str().is_empty() => open = false,
            '"' => return None,
            c => value.push(c),
        }
    }
    (!open).then_some(value)
}
