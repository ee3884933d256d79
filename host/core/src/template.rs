//! Templates in policies: Jinja's syntax, over the alert.
//!
//! A template sees `labels`, `annotations`, `alert` (`name`, `fingerprint`, `status`,
//! `starts_at`) and `policy` (the policy's name). What is not there is an error where
//! it is used, unless the filter `default` stands behind it; a misspelled name is an
//! error when the policy is loaded. A label whose name is no identifier is written
//! `labels["service.name"]`. Labels are only ever data: what stands in one is never
//! itself read as a template.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Object;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use serde::{Serialize, Serializer};

use crate::alert::{Alert, Labels};
use crate::id::{IdError, PolicyName, Target};

/// How much one rendering may do, in instructions of the template engine and blocks of
/// 64 bytes: enough for any honest template, and at most a few milliseconds.
const FUEL: u64 = 20_000;

/// What a template sees, and what `alert` has.
const VARIABLES: [&str; 4] = ["labels", "annotations", "alert", "policy"];
const ALERT_FIELDS: [&str; 4] = ["name", "fingerprint", "status", "starts_at"];

/// Renders values as they are.
static PLAIN: LazyLock<Environment<'static>> = LazyLock::new(environment);

/// Renders the parts of a target: a value that could reach into the next part is an
/// error.
static TARGET: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = environment();
    environment.set_formatter(|out, state, value| {
        let text = value.to_string();
        let breaks_out = |c: char| c == '/' || c.is_whitespace() || c.is_control();
        if let Some(c) = text.chars().find(|c| breaks_out(*c)) {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("the value {text:?} has the character {c:?} in it, which no part of a target may have"),
            ));
        }
        minijinja::escape_formatter(out, state, value)
    });
    environment
});

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    // So that errors know where they are.
    environment.set_debug(true);
    environment
}

/// What a template is rendered over.
#[derive(Debug, Clone)]
pub struct Context(Value);

impl Context {
    /// What the templates of `policy` see of `alert`.
    #[must_use]
    pub fn new(alert: &Alert, policy: &PolicyName) -> Self {
        let map = |labels: &Labels| Value::from_pairs(labels.clone());
        Self(minijinja::context! {
            labels => map(&alert.labels),
            annotations => map(&alert.annotations),
            alert => minijinja::context! {
                name => alert.name(),
                fingerprint => alert.fingerprint.0.as_str(),
                status => alert.status.as_str(),
                starts_at => alert.starts_at.to_string(),
            },
            policy => policy.as_str(),
        })
    }
}

/// A template whose syntax and names have been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// Checks `source`.
    pub fn parse(source: impl Into<String>) -> Result<Self, TemplateError> {
        let source = source.into();
        check(&source)?;
        Ok(Self(source))
    }

    /// The template as it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.0
    }

    /// Whether it is the same text for every alert.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        is_literal(&self.0)
    }

    /// The text for one alert.
    pub fn render(&self, context: &Context) -> Result<String, RenderError> {
        render(&PLAIN, &self.0, context)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A template for a target, such as `docker://local/{{ labels.container }}`.
///
/// Its kind is plain text, and what is filled in stays in its place: a value with a `/`,
/// white space or a control character in it is an error, so no label can turn a
/// container's name into another host. The rest of the name is taken literally: `..`
/// is a name like any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetTemplate {
    template: Template,
    kind: String,
}

impl TargetTemplate {
    /// Checks `source`.
    pub fn parse(source: impl Into<String>) -> Result<Self, TemplateError> {
        let template = Template::parse(source)?;
        let source = template.source();
        let error = |message: String| {
            TemplateError {
            message,
            span: 0..source.len(),
            help: Some(
                "expected KIND://HOST/NAME with the kind in plain text, such as 'docker://local/{{ labels.container }}'"
                    .to_owned(),
            ),
        }
        };
        let kind = source
            .split_once("://")
            .map(|(kind, _)| kind)
            .filter(|kind| is_literal(kind))
            .ok_or_else(|| error("the target does not begin with its kind".to_owned()))?;
        // With something in place of what is filled in, the rest is checked as well.
        let probe = if template.is_literal() {
            source.to_owned()
        } else {
            format!("{kind}://x")
        };
        probe
            .parse::<Target>()
            .map_err(|invalid| error(invalid.to_string()))?;
        Ok(Self {
            kind: kind.to_owned(),
            template,
        })
    }

    /// The kind of all its targets.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The host of all its targets, if it is plain text.
    #[must_use]
    pub fn literal_host(&self) -> Option<&str> {
        let (_, rest) = self.template.source().split_once("://")?;
        let host = rest.split_once('/').map_or(rest, |(host, _)| host);
        is_literal(host).then_some(host)
    }

    /// The template as it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        self.template.source()
    }

    /// The target for one alert.
    pub fn render(&self, context: &Context) -> Result<Target, RenderError> {
        let text = render(&TARGET, self.source(), context)?;
        text.parse()
            .map_err(|error: IdError| RenderError::new(self.source(), error.to_string()))
    }
}

impl Serialize for TargetTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.template.serialize(serializer)
    }
}

/// Renders every string in `value`, however deep; keys are taken as they are.
pub fn render_value(
    value: &serde_json::Value,
    context: &Context,
) -> Result<serde_json::Value, RenderError> {
    use serde_json::Value as Json;
    Ok(match value {
        Json::String(source) => Json::String(render(&PLAIN, source, context)?),
        Json::Array(items) => Json::Array(
            items
                .iter()
                .map(|item| render_value(item, context))
                .collect::<Result<_, _>>()?,
        ),
        Json::Object(map) => Json::Object(render_map(map, context)?),
        Json::Null | Json::Bool(_) | Json::Number(_) => value.clone(),
    })
}

/// [`render_value`] for a map.
pub fn render_map(
    map: &serde_json::Map<String, serde_json::Value>,
    context: &Context,
) -> Result<serde_json::Map<String, serde_json::Value>, RenderError> {
    map.iter()
        .map(|(key, value)| Ok((key.clone(), render_value(value, context)?)))
        .collect()
}

/// [`render_map`] with what fits, and what is left out because it does not: the place of
/// each, and why.
pub fn render_fitting(
    map: &serde_json::Map<String, serde_json::Value>,
    context: &Context,
) -> (serde_json::Map<String, serde_json::Value>, Vec<String>) {
    let mut left_out = Vec::new();
    let map = fitting_map(map, context, "", &mut left_out);
    (map, left_out)
}

fn fitting_map(
    map: &serde_json::Map<String, serde_json::Value>,
    context: &Context,
    at: &str,
    left_out: &mut Vec<String>,
) -> serde_json::Map<String, serde_json::Value> {
    let mut fitting = serde_json::Map::new();
    for (key, value) in map {
        let at = if at.is_empty() {
            key.clone()
        } else {
            format!("{at}.{key}")
        };
        if let Some(value) = fitting_value(value, context, &at, left_out) {
            fitting.insert(key.clone(), value);
        }
    }
    fitting
}

fn fitting_value(
    value: &serde_json::Value,
    context: &Context,
    at: &str,
    left_out: &mut Vec<String>,
) -> Option<serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => {
            let map = fitting_map(map, context, at, left_out);
            Some(serde_json::Value::Object(map))
        }
        serde_json::Value::Array(items) => {
            let items = items
                .iter()
                .filter_map(|item| fitting_value(item, context, at, left_out));
            Some(serde_json::Value::Array(items.collect()))
        }
        one => match render_value(one, context) {
            Ok(value) => Some(value),
            Err(error) => {
                left_out.push(format!("`{at}`: {error}"));
                None
            }
        },
    }
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    message: String,
    span: Range<usize>,
    help: Option<String>,
}

impl TemplateError {
    /// Where, in bytes from the beginning of the template.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

/// Why a template does not fit an alert.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the template `{template}` does not fit the alert: {message}")]
pub struct RenderError {
    template: String,
    message: String,
}

impl RenderError {
    pub(crate) fn new(template: &str, message: impl Into<String>) -> Self {
        Self {
            template: template.to_owned(),
            message: message.into(),
        }
    }
}

/// Whether nothing in `source` is filled in.
pub(crate) fn is_literal(source: &str) -> bool {
    !["{{", "{%", "{#"].iter().any(|open| source.contains(open))
}

/// Checks syntax, and that the names exist.
fn check(source: &str) -> Result<(), TemplateError> {
    if is_literal(source) {
        return Ok(());
    }
    let template = PLAIN
        .template_from_str(source)
        .map_err(|error| not_valid(&error, source))?;
    let mut used: Vec<_> = template.undeclared_variables(true).into_iter().collect();
    used.sort();
    let globals: Vec<_> = PLAIN.globals().map(|(name, _)| name).collect();
    for path in used {
        let mut parts = path.split('.');
        let (root, field) = (parts.next().unwrap_or_default(), parts.next());
        if !VARIABLES.contains(&root) && !globals.contains(&root) {
            return Err(unknown(source, root, "a template", &VARIABLES));
        }
        if let ("alert", Some(field)) = (root, field)
            && !ALERT_FIELDS.contains(&field)
        {
            return Err(unknown(source, field, "`alert`", &ALERT_FIELDS));
        }
    }
    probe(&template)
}

/// Finds names of filters, tests and functions that do not exist, which the engine
/// itself would notice only when it comes to them: renders once with every label there
/// and once with none, and looks at nothing else that may go wrong on the way.
fn probe(template: &minijinja::Template<'_, '_>) -> Result<(), TemplateError> {
    let alert: BTreeMap<_, _> = ALERT_FIELDS.iter().map(|field| (*field, "x")).collect();
    for labels in [
        Value::from_object(EveryLabel),
        Value::from_pairs([("", ""); 0]),
    ] {
        let context = minijinja::context! {
            labels => labels.clone(),
            annotations => labels,
            alert => Value::from_pairs(alert.clone()),
            policy => "x",
        };
        let Err(error) = template.render(context) else {
            continue;
        };
        if matches!(
            error.kind(),
            ErrorKind::UnknownFilter
                | ErrorKind::UnknownTest
                | ErrorKind::UnknownFunction
                | ErrorKind::UnknownMethod
                | ErrorKind::TooManyArguments
                | ErrorKind::MissingArgument
                | ErrorKind::TemplateNotFound
        ) {
            return Err(not_valid(&error, template.source()));
        }
    }
    Ok(())
}

/// Has every label there can be.
#[derive(Debug)]
struct EveryLabel;

impl Object for EveryLabel {
    fn get_value(self: &Arc<Self>, _name: &Value) -> Option<Value> {
        Some(Value::from("x"))
    }
}

fn not_valid(error: &Error, source: &str) -> TemplateError {
    TemplateError {
        message: format!("the template is not valid: {}", reason(error)),
        span: error.range().unwrap_or(0..source.len()),
        help: Some(
            "expected Jinja's syntax, such as '{{ labels.container | default(\"nginx\") }}'"
                .to_owned(),
        ),
    }
}

fn unknown(source: &str, name: &str, what: &str, known: &[&str]) -> TemplateError {
    // Behind the first opening, because the same word may stand in the text before.
    let from = source.find("{{").into_iter().chain(source.find("{%")).min();
    let from = from.unwrap_or_default();
    let at = source
        .get(from..)
        .and_then(|rest| rest.find(name))
        .map_or(0, |at| from + at);
    let nearest = crate::policy::nearest(name, known.iter().copied())
        .map(|nearest| format!("did you mean `{nearest}`? "))
        .unwrap_or_default();
    TemplateError {
        message: format!("unknown name `{name}` in the template"),
        span: at..at + name.len(),
        help: Some(format!("{nearest}{what} has {}", known.join(", "))),
    }
}

fn render(
    environment: &Environment<'static>,
    source: &str,
    context: &Context,
) -> Result<String, RenderError> {
    if is_literal(source) {
        return Ok(source.to_owned());
    }
    environment
        .template_from_str(source)
        .and_then(|template| template.render(&context.0))
        .map_err(|error| {
            let place = error.range().and_then(|range| source.get(range));
            let message = match (error.kind(), place) {
                (ErrorKind::UndefinedError, Some(expression)) => {
                    format!("`{}` is undefined and has no default", expression.trim())
                }
                (ErrorKind::OutOfFuel, _) => "it takes too long".to_owned(),
                _ => reason(&error),
            };
            RenderError::new(source, message)
        })
}

/// The engine's words for what is wrong, without the place.
fn reason(error: &Error) -> String {
    error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned)
}

/// Whether `value` has a string in it that a template fills in.
pub(crate) fn has_template(value: &serde_json::Value) -> bool {
    use serde_json::Value as Json;
    match value {
        Json::String(source) => !is_literal(source),
        Json::Array(items) => items.iter().any(has_template),
        Json::Object(map) => map.values().any(has_template),
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{AlertStatus, Fingerprint};
    use serde_json::json;

    fn context(pairs: &[(&str, &str)]) -> Context {
        let labels: Labels = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let alert = Alert {
            source: "alertmanager".to_owned(),
            fingerprint: Fingerprint::of(&labels),
            status: AlertStatus::Firing,
            labels,
            annotations: Labels::from([("summary".to_owned(), "it is down".to_owned())]),
            starts_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            ends_at: None,
            generator_url: None,
        };
        Context::new(&alert, &"nginx-down".parse().unwrap())
    }

    fn rendered(source: &str, pairs: &[(&str, &str)]) -> Result<String, String> {
        Template::parse(source)
            .map_err(|error| error.to_string())?
            .render(&context(pairs))
            .map_err(|error| error.to_string())
    }

    fn target(source: &str, pairs: &[(&str, &str)]) -> Result<String, String> {
        TargetTemplate::parse(source)
            .map_err(|error| error.to_string())?
            .render(&context(pairs))
            .map(|target| target.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn sees_the_alert_and_the_policy() {
        let source = "{{ alert.name }} {{ alert.status }} {{ alert.starts_at }} {{ policy }} \
                      {{ labels['service.name'] }} {{ annotations.summary | upper }}";
        assert_eq!(
            rendered(source, &[("alertname", "Down"), ("service.name", "api")]).unwrap(),
            "Down firing 2026-01-02T03:04:05Z nginx-down api IT IS DOWN"
        );
    }

    #[test]
    fn what_is_missing_is_an_error_unless_there_is_a_default() {
        assert_eq!(
            rendered("c: {{ labels.container }}", &[]).unwrap_err(),
            "the template `c: {{ labels.container }}` does not fit the alert: `labels.container` is undefined and has no default"
        );
        let with_default = "{{ labels.container | default(\"nginx\") }}";
        assert_eq!(rendered(with_default, &[]).unwrap(), "nginx");
        assert_eq!(
            rendered(with_default, &[("container", "web")]).unwrap(),
            "web"
        );
        let with_test = "{% if labels.a is defined %}yes{% else %}no{% endif %}";
        assert_eq!(rendered(with_test, &[]).unwrap(), "no");
    }

    #[test]
    fn labels_are_never_templates() {
        let evil = "{{ policy }}{% for x in range(9) %}";
        assert_eq!(rendered("{{ labels.a }}", &[("a", evil)]).unwrap(), evil);
        assert_eq!(
            rendered("<{{ labels.a }}>", &[("a", "<b>&\"")]).unwrap(),
            "<<b>&\">"
        );
    }

    #[test]
    fn text_without_a_template_is_left_alone() {
        for text in ["", "a } b", "line\n", "{ x }", "100%"] {
            assert_eq!(rendered(text, &[]).unwrap(), text);
        }
        assert_eq!(rendered("{{ policy }}\n", &[]).unwrap(), "nginx-down\n");
    }

    #[test]
    fn mistakes_show_when_the_policy_is_loaded() {
        for (source, message, pointed, help) in [
            (
                "a {{ label.container }}",
                "unknown name `label` in the template",
                "label",
                Some("did you mean `labels`? a template has labels, annotations, alert, policy"),
            ),
            (
                "name {{ alert.nmae }}",
                "unknown name `nmae` in the template",
                "nmae",
                Some("did you mean `name`? `alert` has name, fingerprint, status, starts_at"),
            ),
        ] {
            let error = Template::parse(source).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert_eq!(source.get(error.span()), Some(pointed));
            assert_eq!(error.help(), help);
        }
        for source in [
            "{{ labels.a",
            "{% if %}",
            "{{ }}",
            "{{ labels.a | nope }}",
            "{{ labels.a | default(labels.b | nope) }}",
            "{% if labels.a is defined %}{% else %}{{ nope() }}{% endif %}",
            "{% if labels.a is nope %}{% endif %}",
            "{{ labels.a | upper(1, 2) }}",
            "{% include 'a' %}",
        ] {
            assert!(Template::parse(source).is_err(), "{source}");
        }
        // What depends on the alert is no mistake of the policy's.
        for source in [
            "{{ labels.a | int }}",
            "{{ labels.a }}",
            "{{ labels.a[1] }}",
        ] {
            assert!(Template::parse(source).is_ok(), "{source}");
        }
    }

    #[test]
    fn a_template_that_does_not_end_is_cut_off() {
        let source =
            "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        assert!(
            rendered(source, &[])
                .unwrap_err()
                .ends_with("it takes too long")
        );
    }

    #[test]
    fn targets_are_rendered_part_by_part() {
        let source = "docker://{{ labels.host }}/{{ labels.container | default(\"nginx\") }}";
        assert_eq!(
            target(source, &[("host", "local")]).unwrap(),
            "docker://local/nginx"
        );
        // The name is taken literally.
        let literal = TargetTemplate::parse("docker://local/a/../b").unwrap();
        let found = literal.render(&context(&[])).unwrap();
        assert_eq!((found.host(), found.name()), ("local", "a/../b"));
        assert_eq!(
            target(source, &[("host", "local"), ("container", "..")]).unwrap(),
            "docker://local/.."
        );
    }

    #[test]
    fn a_label_stays_in_its_place() {
        let source = "docker://{{ labels.host }}/{{ labels.container }}";
        for (host, container) in [
            ("prod/db", "x"),
            ("local", "../prod/db"),
            ("local", "a/b"),
            ("local", "a b"),
            ("local", "a\nb"),
            ("local\u{0}", "a"),
            ("ssh://evil", "a"),
        ] {
            let error = target(source, &[("host", host), ("container", container)]).unwrap_err();
            assert!(
                error.contains("which no part of a target may have"),
                "{error}"
            );
        }
        let captured = "docker://local/{% set x %}{{ labels.a }}{% endset %}{{ x }}";
        assert!(target(captured, &[("a", "b/c")]).is_err());
    }

    #[test]
    fn a_target_begins_with_its_kind() {
        for source in [
            "nginx",
            "{{ labels.kind }}://local/nginx",
            "",
            "Docker://local/x",
            "docker:///x",
        ] {
            assert!(TargetTemplate::parse(source).is_err(), "{source}");
        }
        let parsed = TargetTemplate::parse("docker://local/{{ labels.a }}").unwrap();
        assert_eq!(
            (parsed.kind(), parsed.literal_host()),
            ("docker", Some("local"))
        );
        let parsed = TargetTemplate::parse("docker://{{ labels.h }}/a").unwrap();
        assert_eq!(parsed.literal_host(), None);
    }

    #[test]
    fn params_are_rendered_at_every_depth() {
        let params = json!({
            "a": "{{ labels.x }}", "{{ key }}": 1, "list": [true, null, {"b": "-{{ policy }}-"}],
        });
        assert_eq!(
            render_value(&params, &context(&[("x", "1")])).unwrap(),
            json!({"a": "1", "{{ key }}": 1, "list": [true, null, {"b": "-nginx-down-"}]})
        );
        assert!(render_value(&params, &context(&[])).is_err());
    }
}
