//! Takes values out of the tree, and notes down whatever is wrong on the way.
//!
//! Each function answers `None` where it has noted a mistake, so that its caller can go
//! on with what comes next and give up only at the end.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{PolicyError, Problem, Source, Span, nearest, note};
use super::yaml::{Content, Node, bad_key};
use crate::duration::HumanDuration;

/// The keys that a map can have.
pub(crate) struct Keys {
    /// Those that this version knows.
    pub(crate) known: &'static [&'static str],
}

/// A map whose keys have been checked.
pub(crate) struct Section<'n> {
    /// What it is, for a message: `policy nginx-down`, `the step`.
    what: String,
    /// A place that stands for the whole.
    at: Span,
    entries: Vec<(&'n str, &'n Node, &'n Node)>,
    /// Keys that something else was probably meant to be: they are not missed again.
    meant: Vec<&'n str>,
}

impl<'n> Section<'n> {
    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries
            .iter()
            .find(|(name, _, _)| *name == key)
            .map(|(_, _, value)| *value)
    }

    /// The place of a key, or of the whole where the key is missing.
    pub(crate) fn key_at(&self, key: &str) -> &Span {
        self.entries
            .iter()
            .find(|(name, _, _)| *name == key)
            .map_or(&self.at, |(_, at, _)| &at.at)
    }
}

/// Reads one file.
pub(crate) struct Reader<'a> {
    pub(crate) source: &'a Source,
    pub(crate) errors: Vec<PolicyError>,
}

impl Reader<'_> {
    /// Notes down a mistake.
    pub(crate) fn fail<T>(&mut self, at: &Span, problem: Problem) -> Option<T> {
        note(&mut self.errors, self.source, at, problem);
        None
    }

    /// Notes down that something else was expected.
    pub(crate) fn wrong_type<T>(&mut self, node: &Node, expected: &str, help: &str) -> Option<T> {
        if let Content::Map(entries) = &node.content
            && let [(key, _)] = entries.as_slice()
            && matches!(key.content, Content::Map(_))
        {
            return self.fail(&node.at, bad_key(key, help));
        }
        let found = node.content.describe();
        self.fail(
            &node.at,
            Problem::new(format!("expected {expected}, found {found}"))
                .label(format!("expected {expected}"))
                .help(help),
        )
    }

    /// A map with these keys and no others.
    pub(crate) fn section<'n>(
        &mut self,
        node: &'n Node,
        what: impl Into<String>,
        keys: &Keys,
    ) -> Option<Section<'n>> {
        let what = what.into();
        let valid = keys.known.join(", ");
        let Content::Map(map) = &node.content else {
            let help = format!("expected the keys of {what}: {valid}");
            return self.wrong_type(node, "a map", &help);
        };
        let mut entries: Vec<(&str, &Node, &Node)> = Vec::new();
        let mut meant = Vec::new();
        for (key, value) in map {
            let Content::Text(name) = &key.content else {
                self.fail::<()>(&key.at, bad_key(key, &format!("valid keys: {valid}")));
                continue;
            };
            if let Some((_, first, _)) = entries.iter().find(|(seen, _, _)| seen == name) {
                let (line, column) = self.source.position(first.at.start);
                self.fail::<()>(
                    &key.at,
                    Problem::new(format!("duplicate key `{name}` in {what}"))
                        .label("given again")
                        .help(format!(
                            "it stands at {line}:{column} already; keep one of the two"
                        )),
                );
                continue;
            }
            if !keys.known.contains(&name.as_str()) {
                let near = nearest(name, keys.known.iter().copied());
                meant.extend(near);
                let hint = near
                    .map(|near| format!("did you mean `{near}`? "))
                    .unwrap_or_default();
                self.fail::<()>(
                    &key.at,
                    Problem::new(format!("unknown key `{name}` in {what}"))
                        .label("unknown key")
                        .help(format!("{hint}valid keys: {valid}")),
                );
                continue;
            }
            entries.push((name, key, value));
        }
        let at = map.first().map_or(&node.at, |(first, _)| &first.at).clone();
        Some(Section {
            what,
            at,
            entries,
            meant,
        })
    }

    /// The value of a key that has to be there.
    pub(crate) fn required<'n>(
        &mut self,
        section: &Section<'n>,
        key: &str,
        help: &str,
    ) -> Option<&'n Node> {
        let found = section.get(key);
        if found.is_none() && !section.meant.contains(&key) {
            let what = &section.what;
            self.fail::<()>(
                &section.at,
                Problem::new(format!("missing key `{key}` in {what}"))
                    .label(format!("`{key}` is missing"))
                    .help(help),
            );
        }
        found
    }

    /// A text that is not empty.
    pub(crate) fn text<'n>(
        &mut self,
        node: &'n Node,
        expected: &str,
        help: &str,
    ) -> Option<&'n str> {
        match &node.content {
            Content::Text(text) if !text.is_empty() => Some(text),
            Content::Text(_) => self.fail(
                &node.at,
                Problem::new(format!("expected {expected}, found an empty text")).help(help),
            ),
            _ => self.wrong_type(node, expected, help),
        }
    }

    /// A text that something can be made of.
    pub(crate) fn parsed<T, E: Display>(
        &mut self,
        node: &Node,
        expected: &str,
        help: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        if matches!(node.content, Content::Number(_) | Content::Bool(_)) {
            let raw = self.source.text().get(node.at.clone()).unwrap_or_default();
            if parse(raw).is_ok() {
                return self.wrong_type(node, expected, &format!("quote it: '{raw}'"));
            }
        }
        let text = self.text(node, expected, help)?;
        parse(text)
            .map_err(|error| {
                self.fail::<()>(
                    &node.at,
                    Problem::new(error.to_string())
                        .label(format!("expected {expected}"))
                        .help(help),
                );
            })
            .ok()
    }

    /// A list that is not empty, of things that can be made of a text.
    pub(crate) fn list<T, E: Display>(
        &mut self,
        node: &Node,
        expected: &str,
        help: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let items = self.items(node, &format!("a list of {expected}s"), help)?;
        let items: Vec<_> = items
            .iter()
            .map(|item| self.parsed(item, &format!("a {expected}"), help, &parse))
            .collect();
        items.into_iter().collect()
    }

    /// A list that is not empty.
    pub(crate) fn items<'n>(
        &mut self,
        node: &'n Node,
        expected: &str,
        help: &str,
    ) -> Option<&'n [Node]> {
        match &node.content {
            Content::List(items) if items.is_empty() => self.fail(
                &node.at,
                Problem::new(format!("expected {expected}, found an empty list"))
                    .label("empty")
                    .help(help),
            ),
            Content::List(items) => Some(items),
            _ => self.wrong_type(node, expected, help),
        }
    }

    /// One of several words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        node: &Node,
        what: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let help = format!("expected one of {}", names.join(", "));
        let word = self.text(node, &format!("a {what}"), &help)?;
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word) {
            return Some(*choice);
        }
        let meant = nearest(word, names.iter().copied())
            .map(|meant| format!("did you mean `{meant}`? "))
            .unwrap_or_default();
        self.fail(
            &node.at,
            Problem::new(format!("unknown {what} `{word}`"))
                .label(format!("unknown {what}"))
                .help(format!("{meant}{help}")),
        )
    }

    /// The duration of a key, or `default` where the key is missing.
    pub(crate) fn duration(
        &mut self,
        section: &Section<'_>,
        key: &str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let Some(node) = section.get(key) else {
            return Some(default);
        };
        let (least, most) = (HumanDuration(*range.start()), HumanDuration(*range.end()));
        let help = format!(
            "a duration is a number with a unit (ms, s, m, h, d), from {least} to {most}, such as `{key}: {}`",
            HumanDuration(default)
        );
        let duration = match &node.content {
            // The parser knows best what is missing.
            Content::Number(number) => match number.to_string().parse::<HumanDuration>() {
                Ok(duration) => duration,
                Err(error) => {
                    let problem = Problem::new(error.to_string()).label("no unit").help(help);
                    return self.fail(&node.at, problem);
                }
            },
            _ => self.parsed(node, "a duration", &help, str::parse::<HumanDuration>)?,
        };
        if range.contains(&duration.0) {
            return Some(duration.0);
        }
        let side = if duration < least { "short" } else { "long" };
        let bound = if duration < least {
            format!("at least {least}")
        } else {
            format!("at most {most}")
        };
        self.fail(
            &node.at,
            Problem::new(format!(
                "`{key}: {duration}` is too {side}: expected {bound}"
            ))
            .label(format!("expected {bound}"))
            .help(help),
        )
    }

    /// The whole number of a key, or `default` where the key is missing.
    pub(crate) fn count(
        &mut self,
        section: &Section<'_>,
        key: &str,
        default: u32,
        range: RangeInclusive<u32>,
    ) -> Option<u32> {
        let Some(node) = section.get(key) else {
            return Some(default);
        };
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let help = format!("such as `{key}: {default}`");
        let found = match &node.content {
            Content::Number(number) => number.as_u64().and_then(|n| u32::try_from(n).ok()),
            _ => None,
        };
        match found.filter(|count| range.contains(count)) {
            Some(count) => Some(count),
            None => self.wrong_type(node, &expected, &help),
        }
    }
}
