//! Names of labels that a template does not read as one: `labels.foo-bar` is a subtraction
//! to it, and `labels.a.b` a part of a text, which has none.

use std::ops::Range;

use super::{ALERT_FIELDS, VARIABLES};

/// A name that is not read as one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Apart {
    /// Where it stands, from the variable to its end.
    pub(super) at: Range<usize>,
    /// The variable.
    pub(super) root: &'static str,
    /// The whole name, as a label or an annotation would have it.
    pub(super) name: String,
}

/// What may stand between two letters of a name that is not quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// What the engine takes for an operation that no text knows: such a template can be
    /// compiled, and never fits.
    Sure,
    /// Whatever names have that people use, for a template that is refused anyway.
    Likely,
}

impl Reach {
    fn joins(self, c: char) -> bool {
        matches!(c, '.' | '-' | '/') || self == Self::Likely && matches!(c, ':' | '@' | '#' | '$')
    }

    fn names(self, c: char) -> bool {
        is_plain(c) || self == Self::Likely && c.is_alphanumeric()
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The first name that the template does not read as one.
pub(super) fn apart(source: &str, reach: Reach) -> Option<Apart> {
    let mut at = 0;
    while let Some(open) = find(source, at, "{") {
        at = match source.get(open..open + 2) {
            Some("{#") => find(source, open, "#}")?,
            Some("{%") if tag(source, open) == "raw" => after_raw(source, open)?,
            Some("{{" | "{%") => {
                let (found, end) = block(source, open + 2, reach);
                if found.is_some() {
                    return found;
                }
                end
            }
            _ => open + 1,
        };
    }
    None
}

fn find(source: &str, from: usize, what: &str) -> Option<usize> {
    Some(from + source.get(from..)?.find(what)?)
}

/// The first word of a `{%`.
fn tag(source: &str, open: usize) -> &str {
    let rest = source.get(open + 2..).unwrap_or_default();
    let rest = rest.trim_start_matches(['-', '+']).trim_start();
    rest.split(|c| !is_plain(c)).next().unwrap_or_default()
}

/// Behind the `{%` that ends what is no template.
fn after_raw(source: &str, open: usize) -> Option<usize> {
    let mut at = open + 2;
    loop {
        at = find(source, at, "{%")?;
        if tag(source, at) == "endraw" {
            return Some(at + 2);
        }
        at += 2;
    }
}

/// Looks through one `{{ … }}` or `{% … %}`, and says where it ends.
fn block(source: &str, from: usize, reach: Reach) -> (Option<Apart>, usize) {
    let mut at = from;
    let mut before = ' ';
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("}}") || rest.starts_with("%}") {
            return (None, at + 2);
        }
        let c = rest.chars().next().unwrap_or(' ');
        if let Some((_, length)) = quoted(rest) {
            at += length;
        } else if is_plain(c) {
            let length = rest.find(|c| !is_plain(c)).unwrap_or(rest.len());
            let word = rest.get(..length).unwrap_or_default();
            let root = VARIABLES.into_iter().find(|root| *root == word);
            let chain = root
                .filter(|_| before != '.')
                .and_then(|root| chain(source, at, root, reach));
            if chain.is_some() {
                return (chain, at);
            }
            at += length;
        } else {
            at += c.len_utf8();
        }
        before = c;
    }
    (None, source.len())
}

/// A text in quotes at the beginning of `rest`, and how long it is with them.
fn quoted(rest: &str) -> Option<(&str, usize)> {
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some((rest.get(1..at)?, at + 1)),
            _ => {}
        }
    }
    Some((rest.get(1..)?, rest.len()))
}

/// What stands behind a variable, where it asks for more than that one has.
fn chain(source: &str, start: usize, root: &'static str, reach: Reach) -> Option<Apart> {
    let depth = match root {
        "policy" => 0,
        _ => 1,
    };
    let mut at = start + root.len();
    let mut parts = Vec::new();
    let mut one = true;
    loop {
        let rest = source.get(at..)?;
        if let Some(behind) = rest.strip_prefix('.') {
            let run = run(behind, reach);
            if run.is_empty() {
                break;
            }
            // The last part of what is called is a method.
            let called = behind.get(run.len()..)?.starts_with('(');
            let run = match run.rsplit_once('.') {
                Some((before, _)) if called => before,
                None if called => break,
                _ => run,
            };
            one &= run.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && run.chars().all(is_plain);
            parts.push(run.to_owned());
            at += 1 + run.len();
            if called {
                break;
            }
        } else if let Some((name, length)) = item(rest) {
            parts.push(name.to_owned());
            at += length;
        } else {
            break;
        }
    }
    let name = parts.join(".");
    // What the alert does not have at all is told as such.
    let first = name.split(|c| !is_plain(c)).next().unwrap_or_default();
    let known = root != "alert" || ALERT_FIELDS.contains(&first);
    let apart = parts.len() > depth || !one;
    (known && apart && !parts.is_empty()).then_some(Apart {
        at: start..at,
        root,
        name,
    })
}

/// `["name"]` at the beginning of `rest`.
fn item(rest: &str) -> Option<(&str, usize)> {
    let inside = rest.strip_prefix('[')?;
    let begin = inside.len() - inside.trim_start().len();
    let (name, length) = quoted(inside.trim_start())?;
    let behind = inside.get(begin + length..)?;
    let end = behind.len() - behind.trim_start().len();
    behind.trim_start().strip_prefix(']')?;
    Some((name, 1 + begin + length + end + 1))
}

/// A name and whatever is written to it without a space.
fn run(rest: &str, reach: Reach) -> &str {
    let mut end = 0;
    for (at, c) in rest.char_indices() {
        if reach.names(c) {
            end = at + c.len_utf8();
        } else if !reach.joins(c) || at == 0 {
            break;
        }
    }
    rest.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str, reach: Reach) -> Option<(String, String)> {
        let apart = apart(source, reach)?;
        let text = source.get(apart.at).unwrap().to_owned();
        Some((text, format!("{} {}", apart.root, apart.name)))
    }

    #[test]
    fn names_that_are_not_read_as_one_are_found() {
        for (source, text, name) in [
            ("a {{ labels.foo-bar }}", "labels.foo-bar", "labels foo-bar"),
            ("{{labels.a.b}}", "labels.a.b", "labels a.b"),
            ("{{ labels.foo-1 }}", "labels.foo-1", "labels foo-1"),
            (
                "{{ labels.app.kubernetes.io/name | default('x') }}",
                "labels.app.kubernetes.io/name",
                "labels app.kubernetes.io/name",
            ),
            (
                "{{ labels.a }} {{ annotations.b-c }}",
                "annotations.b-c",
                "annotations b-c",
            ),
            (
                "{% if labels.a.b is defined %}{% endif %}",
                "labels.a.b",
                "labels a.b",
            ),
            (
                "{{ labels.x if labels.a--b else 1 }}",
                "labels.a--b",
                "labels a--b",
            ),
            ("{{ labels['a'].b }}", "labels['a'].b", "labels a.b"),
            ("{{ labels.a[ \"b\" ] }}", "labels.a[ \"b\" ]", "labels a.b"),
            ("{{ labels.a.b.split(':') }}", "labels.a.b", "labels a.b"),
            (
                "{{ \"labels\" ~ labels.k8s.pod }}",
                "labels.k8s.pod",
                "labels k8s.pod",
            ),
            ("{{ alert.name.x }}", "alert.name.x", "alert name.x"),
            ("{{ policy.name }}", "policy.name", "policy name"),
            ("{{- labels.a.b -}}", "labels.a.b", "labels a.b"),
            ("{ {{ labels.a.b }}", "labels.a.b", "labels a.b"),
        ] {
            let expected = Some((text.to_owned(), name.to_owned()));
            assert_eq!(found(source, Reach::Sure), expected, "{source}");
        }
        for (source, name) in [
            ("{{ labels.a:b }}", "labels a:b"),
            ("{{ labels.größe }}", "labels größe"),
            ("{{ labels.a@b }}", "labels a@b"),
            ("{{ labels.2xx }}", "labels 2xx"),
        ] {
            let found = found(source, Reach::Likely).unwrap();
            assert_eq!(found.1, name, "{source}");
        }
    }

    #[test]
    fn names_that_are_read_as_one_are_left_alone() {
        for source in [
            "labels.a.b",
            "{{ labels.a }}-{{ labels.b }}",
            "{{ labels.a - labels.b }}",
            "{{ labels.a-}}",
            "{{ labels['a.b-c/d'] }}",
            "{{ labels[\"a.b\"] | default(\"labels.a.b\") }}",
            "{{ labels.a | int-1 }}",
            "{{ labels.a.split('.') }}",
            "{{ labels.get('a.b') }}",
            "{{ labels.a[0] }}",
            "{{ labels.a[1:] }}",
            "{{ labels.a ~ '-' ~ labels.b }}",
            "{# labels.a.b #}",
            "{% raw %}{{ labels.a.b }}{% endraw %}",
            "{{ {'x': labels.a}.x }}",
            "{{ alert.name }} {{ policy }} {{ mylabels.a.b }} {{ x.labels.a.b }}",
            "{{ alert.labels.a }}",
            "{{ labels",
            "{{ labels.",
            "{{ 'labels.a.b",
            "{%",
            "{% raw %}",
            "ü{{ü",
        ] {
            assert_eq!(found(source, Reach::Sure), None, "{source}");
        }
    }
}
