//! YAML with the place of every node, before anything is made of it.
//!
//! Files are read into a tree first and into policies after that, because a reader that
//! stops at the first wrong type could not report the others.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Location, MessageFormatter as _, Options, Spanned, UserMessageFormatter};

use super::error::{PolicyError, Problem, Source, Span};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) at: Span,
    pub(crate) content: Content,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Content {
    /// What it is, for a message that goes on from "found".
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("the boolean {value}"),
            Self::Number(value) => format!("the number {value}"),
            Self::Text(value) => format!("the text `{}`", value.escape_debug()),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

/// Reads a file of one document.
pub(crate) fn parse(source: &Source) -> Result<Node, (Span, Problem)> {
    tree(source).map_err(|error| syntax_error(source, &error, &POLICIES))
}

fn tree(source: &Source) -> Result<Node, serde_saphyr::Error> {
    let options = options();
    let tree = serde_saphyr::from_str_with_options::<Spanned<Tree>>(source.text(), options)?;
    Ok(Node::new(tree, source))
}

/// What is wrong with a file as YAML, whatever it is about: its syntax, more than one
/// document, aliases that unfold to too much, keys that stand twice or are no texts. For files
/// that something else reads, which says none of that to an operator.
pub fn check_yaml(file: &str, text: &str) -> Result<(), Box<PolicyError>> {
    let source = Source::new(file, text);
    let found = match tree(&source) {
        Ok(root) => bad_keys(&source, &root),
        Err(error) => Some(syntax_error(&source, &error, &CONFIGURATION)),
    };
    match found {
        Some((at, problem)) => Err(Box::new(source.error(&at, problem))),
        None => Ok(()),
    }
}

/// The first key, in any depth, that stands twice in its map or can be no name.
fn bad_keys(source: &Source, node: &Node) -> Option<(Span, Problem)> {
    let entries = match &node.content {
        Content::Map(entries) => entries,
        Content::List(items) => return items.iter().find_map(|item| bad_keys(source, item)),
        _ => return None,
    };
    let mut seen: Vec<(&str, &Span)> = Vec::new();
    for (key, value) in entries {
        match &key.content {
            Content::Text(name) => {
                if let Some((_, first)) = seen.iter().find(|(known, _)| known == name) {
                    return Some((key.at.clone(), twice(source, name, first)));
                }
                seen.push((name, &key.at));
            }
            Content::List(_) | Content::Map(_) | Content::Null => {
                let problem = bad_key(key, "a key is a text, such as `log:`");
                return Some((key.at.clone(), problem));
            }
            Content::Bool(_) | Content::Number(_) => {}
        }
        if let Some(found) = bad_keys(source, value) {
            return Some(found);
        }
    }
    None
}

fn twice(source: &Source, name: &str, first: &Span) -> Problem {
    let (line, column) = source.position(first.start);
    Problem::new(format!("duplicate key `{}`", name.escape_debug()))
        .label("given again")
        .help(format!(
            "it stands at {line}:{column} already; keep one of the two"
        ))
}

/// What to do about a file that is too much of something.
struct Advice {
    documents: &'static str,
    size: &'static str,
}

const POLICIES: Advice = Advice {
    documents: "expected one document; put all policies under one `policies:`, or into several files",
    size: "split it into several files, and use fewer aliases inside of aliases",
};

const CONFIGURATION: Advice = Advice {
    documents: "expected one document: remove the line `---`, and what is not meant to count",
    size: "use fewer aliases inside of aliases",
};

/// YAML 1.2 where the versions differ: `no` is a text and `0755` is no decimal number.
/// The limits are far above what people write and far below what hurts.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 200_000,
            max_nodes: 100_000,
            max_anchors: 1_000,
            max_aliases: 1_000,
            max_merge_keys: 1_000,
            max_documents: 2,
            max_depth: 32,
            max_total_scalar_bytes: 4 << 20,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
            max_alias_expansions_per_anchor: 1_000,
        },
        // Told with both places, together with every other mistake.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        emit_comments: false,
        with_snippet: false,
    }
}

fn syntax_error(source: &Source, error: &serde_saphyr::Error, advice: &Advice) -> (Span, Problem) {
    use serde_saphyr::Error;
    let at = error
        .location()
        .and_then(|location| bytes(location, source).or_else(|| by_line(location, source)))
        .unwrap_or(0..0);
    let mut cause = error;
    while let Error::AliasError { error, .. } | Error::WithSnippet { error, .. } = cause {
        cause = error;
    }
    let problem = match cause {
        Error::MultipleDocuments { .. } => {
            Problem::new("there is more than one document in the file")
                .label("the second begins here")
                .help(advice.documents)
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            Problem::new("the file is too large, too deep, or its aliases unfold to too much")
                .label("this is where it went too far")
                .help(advice.size)
        }
        Error::UnknownAnchor { .. } => Problem::new("there is no `&` mark of this name before it")
            .label("taken for an alias")
            .help("`*name` stands for what `&name` marks; a text that begins with `*` has to be quoted"),
        other => {
            let message = UserMessageFormatter.format_message(other);
            let message = message.replace(char::is_control, " ");
            Problem::new(format!("the file is not valid YAML: {message}")).help(
                "if the place looks right, look at the indentation, the brackets and the quotes of the lines above; a text with `: `, ` #`, `{` or `[` in it, or one that begins with `*`, `&`, `!`, `%` or `@`, has to be quoted",
            )
        }
    };
    (at, problem)
}

/// The place by line and column: syntax errors have no other.
fn by_line(location: Location, source: &Source) -> Option<Span> {
    let line = usize::try_from(location.line()).ok()?;
    let column = usize::try_from(location.column()).ok()?;
    let at = source.offset(line, column);
    Some(at..at)
}

/// The place in bytes, if the parser knows it.
fn bytes(location: Location, source: &Source) -> Option<Span> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let length = usize::try_from(location.span().byte_len().unwrap_or(0)).ok()?;
    let end = start.saturating_add(length).min(source.text().len());
    (start <= end).then_some(start..end)
}

impl Node {
    fn new(tree: Spanned<Tree>, source: &Source) -> Self {
        // Where an alias stands, rather than what it stands for.
        let at = bytes(tree.referenced, source).unwrap_or(0..0);
        let content = match tree.value {
            Tree::Null => Content::Null,
            Tree::Bool(value) => Content::Bool(value),
            Tree::Number(value) => Content::Number(value),
            Tree::Text(value) => Content::Text(value),
            Tree::List(items) => Content::List(
                items
                    .into_iter()
                    .map(|item| Self::new(item, source))
                    .collect(),
            ),
            Tree::Map(entries) => Content::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| (Self::new(key, source), Self::new(value, source)))
                    .collect(),
            ),
        };
        Self { at, content }
    }

    /// The value without its places. Keys that are no texts have been refused before.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.content {
            Content::Null => Json::Null,
            Content::Bool(value) => Json::Bool(*value),
            Content::Number(value) => Json::Number(value.clone()),
            Content::Text(value) => Json::String(value.clone()),
            Content::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Content::Map(entries) => {
                // Sorted, so that equal policies have equal digests.
                let mut entries: Vec<_> = entries
                    .iter()
                    .filter_map(|(key, value)| match &key.content {
                        Content::Text(name) => Some((name.clone(), value.to_json())),
                        _ => None,
                    })
                    .collect();
                entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                Json::Object(entries.into_iter().collect())
            }
        }
    }

    /// The place of what a JSON pointer names, or of the nearest thing above it.
    pub(crate) fn locate(&self, pointer: &str) -> &Span {
        let mut node = self;
        let mut at = &self.at;
        for part in pointer.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            let below = match &node.content {
                Content::Map(entries) => entries.iter().find_map(|(key, value)| {
                    matches!(&key.content, Content::Text(name) if *name == part)
                        .then_some((key, value))
                }),
                Content::List(items) => part
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.get(index))
                    .map(|item| (item, item)),
                _ => None,
            };
            let Some((key, value)) = below else { break };
            node = value;
            // A map or a list has no good place of its own: its key has.
            at = match value.content {
                Content::Map(_) | Content::List(_) => &key.at,
                _ => &value.at,
            };
        }
        at
    }
}

/// What to say of a key that is no text.
pub(crate) fn bad_key(key: &Node, valid: &str) -> Problem {
    match key.content {
        // `{{ x }}` is a map with a map for its key.
        Content::Map(_) => Problem::new("a template without quotes is read as a map")
            .label("needs quotes")
            .help("quote it, such as '{{ labels.container }}'"),
        _ => Problem::new(format!(
            "expected a text as key, found {}",
            key.content.describe()
        ))
        .label("expected a text")
        .help(valid),
    }
}

/// The place of a part of a text: `range` counts in the text, the answer in the file.
/// Where quotes and escapes make that hard, the answer is the whole node.
pub(crate) fn within(source: &Source, node: &Node, range: &Span) -> Span {
    let Content::Text(text) = &node.content else {
        return node.at.clone();
    };
    let raw = source.text().get(node.at.clone()).unwrap_or_default();
    let (quote, inner) = match raw.strip_prefix(['\'', '"']) {
        Some(rest) => (1, rest.strip_suffix(['\'', '"']).unwrap_or(rest)),
        None => (0, raw),
    };
    let start = node.at.start + quote;
    if inner == text {
        return start + range.start..start + range.end;
    }
    // In single quotes a quote is written twice, and nothing else is special.
    if raw.starts_with('\'') && inner.replace("''", "'") == *text {
        let doubled = |end: usize| text.get(..end).unwrap_or_default().matches('\'').count();
        return start + range.start + doubled(range.start)..start + range.end + doubled(range.end);
    }
    node.at.clone()
}

/// What serde sees; the places come with [`Spanned`].
enum Tree {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<Tree>, Spanned<Tree>)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tree, E> {
        Number::from_f64(value)
            .map(Tree::Number)
            .ok_or_else(|| E::custom("the number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}
