//! The JSON Schema of a plugin's params: a program that the plugin's author wrote and that the
//! daemon runs, so what it can cost is bounded before it runs at all.
//!
//! A schema is a tree once its `$ref`s are followed, and a small text can stand for a huge
//! tree. The parts of that tree are counted, which takes no longer than the text is long, and
//! a schema of too many is refused. What is left can look at each value of the params at most
//! once for each part, so parts times values bounds each validation, and that is looked at
//! before it begins.

use std::borrow::Cow;
use std::collections::HashMap;

use jsonschema::{Draft, PatternOptions, Validator};
use regex::RegexBuilder;
use sentinel_core::policy::ParamError;
use serde_json::Value;

use crate::log::clean;

/// How long a schema may be, in bytes.
const TEXT: usize = 64 * 1024;
/// How many parts it may have once its `$ref`s are followed.
const PARTS: u64 = 10_000;
/// How deep they may lie in one another.
const DEPTH: u32 = 64;
/// How much compiling a pattern may take, in bytes. Matching may take that long for each
/// character.
const PATTERN: usize = 1024 * 1024;
/// How much all of its patterns may take together.
const PATTERNS: usize = 16 * 1024 * 1024;
/// What one validation may cost: steps of some ten to a hundred nanoseconds.
const COST: u64 = 8_000_000;
/// Up to which cost a validation is done where it is asked for, and every mistake is told.
const CHEAP: u64 = 50_000;
/// How much dearer a part is that asks which values others have looked at: they look again.
const UNEVALUATED: u64 = 4;
/// How many mistakes are told.
const MISTAKES: usize = 20;
/// How many bytes of each.
const MESSAGE: usize = 500;

/// Why a schema is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaError {
    /// It is none.
    NotOne(String),
    /// It would cost too much, or cannot be told what it costs.
    Costly(String),
}

/// The schema of a plugin's params, looked at and compiled.
pub struct ParamsSchema {
    value: Value,
    validator: Validator,
    weight: Weight,
}

impl ParamsSchema {
    /// Reads the schema that a plugin gave. Takes time that its bounds bound, so it belongs on a
    /// thread for such work.
    pub fn new(text: &str) -> Result<Self, SchemaError> {
        if text.len() > TEXT {
            return Err(SchemaError::Costly(format!(
                "it has {} KiB, and may have {} KiB",
                text.len().div_ceil(1024),
                TEXT / 1024
            )));
        }
        let not_one = SchemaError::NotOne;
        let value: Value = serde_json::from_str(text)
            .map_err(|error| not_one(format!("it is no JSON: {error}")))?;
        if !value.is_object() {
            return Err(not_one("it is no JSON object".to_owned()));
        }
        let weight = weigh(&value).map_err(SchemaError::Costly)?;
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            // This engine takes linear time.
            .with_pattern_options(
                PatternOptions::regex()
                    .size_limit(PATTERN)
                    .dfa_size_limit(PATTERN),
            )
            .build(&value)
            .map_err(|error| {
                let path = error.instance_path().to_string();
                let at = if path.is_empty() { "/" } else { &path };
                not_one(clean(&format!("at {at}: {error}"), MESSAGE))
            })?;
        Ok(Self {
            value,
            validator,
            weight,
        })
    }

    /// The schema as it was given.
    pub(crate) fn value(&self) -> &Value {
        &self.value
    }

    /// Whether holding `params` against it takes no longer than a moment.
    pub(crate) fn is_cheap(&self, params: &Value) -> bool {
        self.cost(params) <= CHEAP
    }

    /// What is wrong with `params`; nothing, if it takes them.
    #[must_use]
    pub fn mistakes(&self, params: &Value) -> Vec<ParamError> {
        let whole = |keyword: &str, message: String| {
            vec![ParamError {
                path: String::new(),
                keyword: keyword.to_owned(),
                message,
            }]
        };
        let cost = self.cost(params);
        if cost > COST {
            return whole(
                "params-schema",
                format!(
                    "they are too large to be held against the plugin's schema: that would take {cost} steps, and may take {COST}; give it less, or a simpler schema"
                ),
            );
        }
        if self.validator.is_valid(params) {
            return Vec::new();
        }
        // Each mistake takes memory.
        if cost > CHEAP {
            return whole(
                "params-schema",
                "they do not fit the plugin's schema, and are too large for it to say where"
                    .to_owned(),
            );
        }
        self.validator
            .iter_errors(params)
            .take(MISTAKES)
            .map(|error| ParamError {
                path: error.instance_path().to_string(),
                keyword: error.kind().keyword().to_owned(),
                message: clean(&error.to_string(), MESSAGE),
            })
            .collect()
    }

    /// What holding `params` against it costs at most.
    fn cost(&self, params: &Value) -> u64 {
        let size = Size::of(params);
        let looks = self.weight.parts.saturating_mul(size.values);
        // Texts are counted through and compared as well.
        let texts = self.weight.parts.saturating_mul(size.bytes) / 64;
        let patterns = self.weight.patterns.saturating_mul(size.bytes);
        looks.saturating_add(texts).saturating_add(patterns)
    }
}

/// How much a value holds.
#[derive(Debug, Default)]
struct Size {
    /// Values, and keys of objects.
    values: u64,
    /// Bytes of its texts and keys.
    bytes: u64,
}

impl Size {
    fn of(value: &Value) -> Self {
        let mut size = Self::default();
        size.add(value);
        size
    }

    fn add(&mut self, value: &Value) {
        self.values += 1;
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::String(text) => self.bytes += text.len() as u64,
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(members) => {
                for (key, value) in members {
                    self.values += 1;
                    self.bytes += key.len() as u64;
                    self.add(value);
                }
            }
        }
    }
}

/// What a schema is, with its `$ref`s followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Weight {
    /// How many parts it has.
    parts: u64,
    /// What its patterns cost for each byte of a text.
    patterns: u64,
    /// How deep it is.
    depth: u32,
}

impl Weight {
    fn add(&mut self, part: Self) {
        self.parts = self.parts.saturating_add(part.parts);
        self.patterns = self.patterns.saturating_add(part.patterns);
        self.depth = self.depth.max(part.depth.saturating_add(1));
    }
}

fn weigh(schema: &Value) -> Result<Weight, String> {
    if let Some(keyword) = foreign_base(schema, true) {
        return Err(format!(
            "a subschema has `{keyword}`: a schema of params is one document"
        ));
    }
    let mut scale = Scale {
        root: schema,
        weighed: HashMap::new(),
        patterns: HashMap::new(),
    };
    let weight = scale.schema(schema, 0)?;
    let patterns: usize = scale.patterns.values().sum();
    if patterns > PATTERNS {
        return Err(format!(
            "its patterns take {} MiB once compiled, and may take {} MiB",
            patterns >> 20,
            PATTERNS >> 20
        ));
    }
    Ok(weight)
}

/// A keyword in a part of `value` by which what is below it would be another document.
fn foreign_base(value: &Value, is_root: bool) -> Option<&'static str> {
    match value {
        Value::Object(members) => ["$id", "$schema"]
            .into_iter()
            .find(|key| !is_root && members.get(*key).is_some_and(Value::is_string))
            .or_else(|| {
                let mut inner = members.values();
                inner.find_map(|inner| foreign_base(inner, false))
            }),
        Value::Array(items) => items.iter().find_map(|item| foreign_base(item, false)),
        _ => None,
    }
}

struct Scale<'a> {
    root: &'a Value,
    /// What parts weigh, by their place in memory; none while that is being found out.
    weighed: HashMap<usize, Option<Weight>>,
    /// What patterns take once compiled.
    patterns: HashMap<Cow<'a, str>, usize>,
}

impl<'a> Scale<'a> {
    /// What `schema` weighs, which is `depth` parts below the root.
    fn schema(&mut self, schema: &'a Value, depth: u32) -> Result<Weight, String> {
        let place = std::ptr::from_ref(schema).addr();
        let weight = match self.weighed.get(&place) {
            Some(Some(weight)) => *weight,
            Some(None) => {
                return Err(
                    "a `$ref` leads back to where it is: write out as many levels as are needed"
                        .to_owned(),
                );
            }
            None => {
                too_deep(depth)?;
                self.weighed.insert(place, None);
                let weight = self.keywords(schema, depth)?;
                self.weighed.insert(place, Some(weight));
                weight
            }
        };
        too_deep(depth.saturating_add(weight.depth))?;
        if weight.parts > PARTS {
            return Err(format!(
                "it has more than {PARTS} parts once its `$ref`s are followed"
            ));
        }
        Ok(weight)
    }

    fn keywords(&mut self, schema: &'a Value, depth: u32) -> Result<Weight, String> {
        let mut weight = Weight {
            parts: 1,
            ..Weight::default()
        };
        let Value::Object(keywords) = schema else {
            return Ok(weight);
        };
        let below = depth.saturating_add(1);
        for (keyword, value) in keywords {
            match (keyword.as_str(), value) {
                ("$ref", Value::String(reference)) => {
                    let target = self.target(reference)?;
                    weight.add(self.schema(target, below)?);
                }
                ("$dynamicRef" | "$recursiveRef", Value::String(_)) => {
                    return Err(format!("it has a `{keyword}`: write a `$ref`"));
                }
                (
                    "properties" | "dependentSchemas" | "dependencies" | "patternProperties",
                    Value::Object(schemas),
                ) => {
                    for (name, schema) in schemas {
                        if keyword == "patternProperties" {
                            weight.patterns = weight.patterns.saturating_add(self.pattern(name));
                        }
                        weight.add(self.schema(schema, below)?);
                    }
                }
                ("pattern", Value::String(pattern)) => {
                    weight.patterns = weight.patterns.saturating_add(self.pattern(pattern));
                }
                // Their parts weigh where they are referred to.
                ("$defs" | "definitions" | "default" | "examples", _) => {}
                ("enum" | "const" | "required" | "dependentRequired" | "type", value) => {
                    let size = Size::of(value);
                    weight.parts = weight.parts.saturating_add(size.values);
                }
                (_, Value::Object(_)) => weight.add(self.schema(value, below)?),
                (_, Value::Array(schemas)) => {
                    for schema in schemas {
                        weight.add(self.schema(schema, below)?);
                    }
                }
                _ => {}
            }
        }
        let asks_of_others = |key: &str| keywords.contains_key(key);
        if asks_of_others("unevaluatedProperties") || asks_of_others("unevaluatedItems") {
            weight.parts = weight.parts.saturating_mul(UNEVALUATED);
            weight.patterns = weight.patterns.saturating_mul(UNEVALUATED);
        }
        Ok(weight)
    }

    /// What a `$ref` leads to.
    fn target(&self, reference: &str) -> Result<&'a Value, String> {
        let shown = || clean(reference, 128);
        let Some(fragment) = reference.strip_prefix('#') else {
            return Err(format!(
                "the `$ref` {:?} leads out of it: expected `#/…`",
                shown()
            ));
        };
        if !fragment.is_empty() && !fragment.starts_with('/') {
            return Err(format!(
                "the `$ref` {:?} names an anchor: expected the place, as in `#/$defs/name`",
                shown()
            ));
        }
        // Two ways to write a place are one too many for who looks.
        if fragment.contains('%') {
            return Err(format!(
                "the `$ref` {:?} is percent-encoded: give what it leads to a plain name",
                shown()
            ));
        }
        self.root
            .pointer(fragment)
            .ok_or_else(|| format!("the `$ref` {:?} leads to nothing", shown()))
    }

    /// What matching `pattern` costs for each byte.
    fn pattern(&mut self, pattern: &'a str) -> u64 {
        let pattern = jsonschema_regex::to_rust_regex(pattern).unwrap_or(Cow::Borrowed(pattern));
        let size = *self
            .patterns
            .entry(pattern)
            .or_insert_with_key(|pattern| compiled_size(pattern));
        (size / 4096).max(1) as u64
    }
}

/// In which of a few sizes `pattern` can be compiled; the largest where in none. Whether it is
/// a pattern at all is not looked at here.
fn compiled_size(pattern: &str) -> usize {
    [PATTERN / 64, PATTERN / 16, PATTERN / 4]
        .into_iter()
        .find(|size| RegexBuilder::new(pattern).size_limit(*size).build().is_ok())
        .unwrap_or(PATTERN)
}

fn too_deep(depth: u32) -> Result<(), String> {
    if depth > DEPTH {
        return Err(format!(
            "its parts lie more than {DEPTH} deep in one another"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(value: &Value) -> Result<ParamsSchema, SchemaError> {
        ParamsSchema::new(&value.to_string())
    }

    fn costly(value: &Value) -> String {
        match schema(value) {
            Err(SchemaError::Costly(why)) => why,
            Err(SchemaError::NotOne(why)) => panic!("no schema: {why}"),
            Ok(schema) => panic!("taken: {:?}", schema.weight),
        }
    }

    /// `levels` definitions, each of which names the one below twice under `by`.
    fn fan(levels: usize, by: impl Fn(Value) -> Value) -> Value {
        let mut defs = serde_json::Map::new();
        defs.insert("d0".to_owned(), json!({"type": ["object", "string"]}));
        for level in 1..=levels {
            let below = json!({"$ref": format!("#/$defs/d{}", level - 1)});
            defs.insert(format!("d{level}"), by(below));
        }
        json!({"type": "object", "$defs": defs, "allOf": [{"$ref": format!("#/$defs/d{levels}")}]})
    }

    /// A schema that applies another.
    type Way = fn(Value) -> Value;

    /// Every way in which a keyword applies schemas, and so every way to fan out.
    fn ways() -> Vec<(&'static str, Way)> {
        vec![
            ("allOf", |s| json!({"allOf": [s, s]})),
            ("anyOf", |s| json!({"anyOf": [s, s]})),
            ("oneOf", |s| json!({"oneOf": [s, s]})),
            ("not", |s| json!({"not": {"not": s}, "allOf": [s]})),
            ("if", |s| json!({"if": s, "then": s, "else": s})),
            ("properties", |s| json!({"properties": {"a": s, "b": s}})),
            (
                "patternProperties",
                |s| json!({"patternProperties": {"a": s, "b": s}}),
            ),
            (
                "additionalProperties",
                |s| json!({"additionalProperties": s, "propertyNames": s}),
            ),
            (
                "dependentSchemas",
                |s| json!({"dependentSchemas": {"a": s, "b": s}}),
            ),
            (
                "dependencies",
                |s| json!({"dependencies": {"a": s, "b": s}}),
            ),
            ("items", |s| json!({"items": s, "prefixItems": [s]})),
            ("contains", |s| json!({"contains": s, "items": s})),
            (
                "unevaluated",
                |s| json!({"unevaluatedProperties": false, "anyOf": [s]}),
            ),
            (
                "unevaluated items",
                |s| json!({"unevaluatedItems": false, "allOf": [s]}),
            ),
            (
                "unevaluated itself",
                |s| json!({"unevaluatedProperties": s, "unevaluatedItems": s}),
            ),
            ("contentSchema", |s| json!({"contentSchema": s, "not": s})),
            ("unknown", |s| json!({"future": s, "other": [s]})),
        ]
    }

    #[test]
    fn what_fans_out_is_refused_before_it_is_compiled_and_a_little_is_not() {
        for (name, by) in ways() {
            for levels in [20, 40, 60] {
                let why = costly(&fan(levels, by));
                assert!(
                    why.contains("parts once its `$ref`s are followed")
                        || why.contains("deep in one another"),
                    "{name}: {why}"
                );
            }
            assert!(
                schema(&fan(3, by)).is_ok(),
                "{name}: {:?}",
                costly(&fan(3, by))
            );
        }
    }

    /// The same without any `$ref`: what asks what others have looked at looks at it again.
    #[test]
    fn questions_for_what_was_not_looked_at_do_not_pile_up() {
        for (keyword, applicator) in [
            ("unevaluatedProperties", "anyOf"),
            ("unevaluatedProperties", "allOf"),
            ("unevaluatedItems", "anyOf"),
            ("unevaluatedItems", "oneOf"),
        ] {
            let mut nested = json!({"type": "object"});
            for _ in 0..30 {
                nested = json!({keyword: false, applicator: [nested]});
            }
            assert!(costly(&nested).contains("parts"), "{keyword} {applicator}");
        }
    }

    #[test]
    fn what_leads_in_circles_or_out_of_the_document_is_refused() {
        for (given, says) in [
            (json!({"allOf": [{"$ref": "#"}]}), "leads back"),
            (
                json!({"properties": {"child": {"$ref": "#"}}}),
                "leads back",
            ),
            (
                json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}},
                       "$ref": "#/$defs/a"}),
                "leads back",
            ),
            (json!({"$ref": "http://example.com/s.json"}), "leads out"),
            (
                json!({"$ref": "https://json-schema.org/draft/2020-12/schema"}),
                "leads out",
            ),
            (json!({"$ref": "file:///etc/passwd"}), "leads out"),
            (json!({"$ref": "other.json#/a"}), "leads out"),
            (json!({"$ref": "#/$defs/none"}), "leads to nothing"),
            (json!({"$ref": "#name"}), "anchor"),
            (
                json!({"$ref": "#/%24defs/a", "$defs": {"a": true}}),
                "percent",
            ),
            (json!({"$dynamicRef": "#x"}), "`$dynamicRef`"),
            (
                json!({"$defs": {"a": {"$id": "http://x/", "type": "object"}}, "not": {"$ref": "#/$defs/a"}}),
                "`$id`",
            ),
            (
                json!({"not": {"$schema": "http://json-schema.org/draft-04/schema#"}}),
                "`$schema`",
            ),
        ] {
            let why = costly(&given);
            assert!(why.contains(says), "{given}: {why}");
        }
    }

    #[test]
    fn size_depth_and_patterns_are_bounded() {
        let long = json!({"description": "x".repeat(TEXT)});
        assert!(costly(&long).contains("KiB"));
        let many: Vec<Value> = (0..=PARTS).map(Value::from).collect();
        assert!(costly(&json!({"enum": many})).contains("parts"));
        let mut deep = json!({"type": "string"});
        for _ in 0..60 {
            deep = json!({"items": deep});
        }
        // serde_json reads 128 levels, two of them for each of these.
        assert!(schema(&deep).is_ok());
        let chain: serde_json::Map<String, Value> = (0..200)
            .map(|at| {
                (
                    format!("d{at}"),
                    json!({"$ref": format!("#/$defs/d{}", at + 1)}),
                )
            })
            .chain([("d200".to_owned(), json!(true))])
            .collect();
        assert!(costly(&json!({"$defs": chain, "$ref": "#/$defs/d0"})).contains("deep"));
        let patterns: serde_json::Map<String, Value> = (0..100)
            .map(|at| {
                (
                    format!("p{at}"),
                    json!({"pattern": format!("(a{{1,60}}){{1,60}}{at}")}),
                )
            })
            .collect();
        assert!(costly(&json!({"properties": patterns})).contains("patterns"));
        assert!(matches!(
            schema(&json!({"pattern": "^((ab?){1,100}c){1,100}((ab?){1,100}d){1,100}$"})),
            Err(SchemaError::NotOne(_))
        ));
    }

    #[test]
    fn schemas_that_authors_write_are_taken_and_say_what_is_wrong() {
        let schema = schema(&json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": "https://example.com/params",
            "type": "object",
            "$defs": {
                "host": {"type": "string", "pattern": r"^[\w.-]{1,253}(:\d+)?$"},
                "list": {"type": "array", "items": {"$ref": "#/$defs/host"}, "uniqueItems": true},
            },
            "properties": {
                "hosts": {"$ref": "#/$defs/list"},
                "except": {"$ref": "#/$defs/list"},
                "timeout": {"anyOf": [
                    {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
                    {"type": "integer", "minimum": 1},
                ]},
                "vars": {"type": "object", "patternProperties": {"^[a-z_]+$": true}},
            },
            "required": ["hosts"],
            "if": {"properties": {"mode": {"const": "all"}}, "required": ["mode"]},
            "then": {"maxProperties": 3},
            "unevaluatedProperties": false,
        }))
        .map_err(|_| "refused");
        let schema = schema.unwrap();
        let hosts: Vec<String> = (0..2_000)
            .map(|at| format!("web{at}.example.com"))
            .collect();
        let params = json!({"hosts": hosts, "timeout": "5s", "vars": {"x": 1}});
        assert_eq!(schema.mistakes(&params), []);
        let wrong = schema.mistakes(&json!({"hosts": ["a", "a b"], "timeout": []}));
        let places: Vec<&str> = wrong.iter().map(|wrong| wrong.path.as_str()).collect();
        assert_eq!(places, ["/hosts/1", "/timeout"]);
    }

    /// Doubling the schema or the params at most doubles what is counted, and nothing that is
    /// counted as fit takes longer than the bound lets it.
    #[test]
    fn what_params_may_cost_is_looked_at_first() {
        let items: Vec<u32> = (0..30_000).collect();
        let numbers: Vec<Value> = (30_000..39_000).map(Value::from).collect();
        let schema = schema(&json!({"properties": {"l": {
            "items": {"enum": numbers}, "uniqueItems": true, "contains": {"multipleOf": 1e-308}
        }}}))
        .unwrap_or_else(|_| panic!("refused"));
        let wrong = schema.mistakes(&json!({"l": items}));
        assert!(wrong[0].message.contains("too large"), "{wrong:?}");
        let small = schema.cost(&json!({"l": [1, 2, 3]}));
        let twice = schema.cost(&json!({"l": [1, 2, 3, 1, 2, 3]}));
        assert!(twice <= 2 * small);
        // As much as may be: it is done, and says so shortly.
        let as_much: Vec<f64> = (0..100).map(|at| f64::from(at) * 1e300).collect();
        let wrong = schema.mistakes(&json!({"l": as_much}));
        assert!(
            wrong.len() == 1 && wrong[0].message.len() < 600,
            "{wrong:?}"
        );
    }

    /// One pattern can be slow for each character.
    #[test]
    fn large_patterns_are_held_against_short_texts_alone() {
        let schema = schema(&json!({"properties": {"t": {"pattern": "[01]*1[01]{2000}$"}}}))
            .unwrap_or_else(|_| panic!("refused"));
        assert!(schema.is_cheap(&json!({"t": "0101"})));
        let long = schema.mistakes(&json!({"t": "01".repeat(150_000)}));
        assert!(long[0].message.contains("too large"), "{long:?}");
        let fits = schema.mistakes(&json!({"t": "01".repeat(2_000)}));
        assert_eq!(fits, [], "{fits:?}");
    }

    #[test]
    fn mistakes_are_few_and_short() {
        let all: Vec<Value> = (0..200).map(|_| json!({"type": "string"})).collect();
        let schema = schema(&json!({"properties": {"a": {"allOf": all}}}))
            .unwrap_or_else(|_| panic!("refused"));
        let wrong = schema.mistakes(&json!({"a": ["x".repeat(5_000)]}));
        assert_eq!(wrong.len(), MISTAKES);
        assert!(wrong.iter().all(|wrong| wrong.message.len() <= MESSAGE + 3));
    }
}
