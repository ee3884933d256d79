//! What a plugin gives to a playbook: variables that come from alerts.

use sentinel_drivers::ansible::variables;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{bounded, said, text};

/// How much deeper than they are given variables may be written.
const DEEPEST: usize = 64;

/// Variables, as JSON.
pub fn ansible(bytes: &[u8]) {
    let Ok(given) = serde_json::from_str::<Map<String, Value>>(&text(bytes)) else {
        return;
    };
    let incident = Value::Object(given.clone());
    for told in [None, Some(&incident)] {
        let yaml = match bounded(bytes.len(), || variables(&given, told)) {
            Ok(yaml) => yaml,
            Err(error) => {
                said(&error, bytes.len());
                continue;
            }
        };
        nobody_evaluates(&yaml);
        let mut expected = given.clone();
        if let Some(told) = told {
            expected.insert("sentinel".to_owned(), told.clone());
        }
        assert!(expected.values().all(|value| depth(value) <= DEEPEST + 1));
        assert_eq!(found(&yaml), Value::Object(expected), "{yaml}");
    }
}

/// What any reader of YAML finds: the marks are no part of a value.
fn found(yaml: &str) -> Value {
    let options = serde_saphyr::options! {
        budget: None,
        strict_booleans: true,
    };
    let read = serde_saphyr::from_str_with_options::<Plain>(yaml, options);
    read.unwrap_or_else(|error| panic!("{yaml}: {error}")).0
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or_default(),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self)
    }
}

/// All of it is printable and on one line, and whatever could begin a template is marked.
fn nobody_evaluates(yaml: &str) {
    let rest = yaml
        .strip_prefix("---\n")
        .and_then(|yaml| yaml.strip_suffix('\n'));
    let line = rest.expect("a document of one line");
    assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    let mut rest = line;
    while let Some((before, text)) = rest.split_once('"') {
        let end = end_of(text);
        let (text, after) = text.split_at(end);
        let marked = before.ends_with("!unsafe ");
        assert!(
            marked || !text.contains(['{', '%', '#', '[', '(', '\'']),
            "{text}"
        );
        rest = after.strip_prefix('"').expect("every text ends");
    }
    assert!(!rest.contains('!'), "{rest}");
}

/// How long a text is, up to the quote that ends it.
fn end_of(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.expect("every text ends")
}
