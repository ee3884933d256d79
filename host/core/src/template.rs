//! Templates in policies: Jinja's syntax, over the alert.
//!
//! A template sees `labels`, `annotations`, `alert` (`name`, `fingerprint`, `status`,
//! `starts_at`) and `policy` (the policy's name). What is not there is an error where
//! it is used, unless the filter `default` stands behind it; a misspelled name is an
//! error when the policy is loaded. A label whose name is no identifier is written
//! `labels["service.name"]`; `labels.service.name` is an error, too. Labels are only ever data: what stands in one is never
//! itself read as a template.

mod names;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Object;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use serde::{Serialize, Serializer};

use self::names::{Apart, Reach, apart};
use crate::alert::{Alert, Labels};
use crate::bounds;
use crate::http::HttpUrl;
use crate::id::{IdError, PolicyName, Target};

/// How much one rendering may do, in instructions of the template engine and blocks of
/// 64 bytes: enough for any honest template, and at most a few milliseconds.
const FUEL: u64 = 20_000;

/// How long a template may be, in bytes. The engine counts lines and columns in 16 bits, and
/// panics where there are more.
const LENGTH: usize = 32 << 10;

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

/// Renders URLs: what is filled in stands between two marks, so that it can be told from
/// what the policy says.
static URL: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = environment();
    environment.set_formatter(|out, state, value| {
        let mut text = value.to_string();
        // Of what was captured before; in a label they may not be.
        text.retain(|c| c != FILLED && c != PLAIN_AGAIN);
        let marked = format!("{FILLED}{text}{PLAIN_AGAIN}");
        // An undefined value is the engine's to complain about.
        let value = if value.is_undefined() {
            value.clone()
        } else {
            Value::from(marked)
        };
        minijinja::escape_formatter(out, state, &value)
    });
    environment
});

/// Before and after what is filled into a URL. No URL has such characters.
const FILLED: char = '\u{1}';
const PLAIN_AGAIN: char = '\u{2}';

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
        if text.len() > bounds::TARGET {
            let message = format!(
                "the target has {} bytes, and may have {}: {}",
                text.len(),
                bounds::TARGET,
                bounds::quoted(&text)
            );
            return Err(RenderError::new(self.source(), message));
        }
        text.parse()
            .map_err(|error: IdError| RenderError::new(self.source(), error.to_string()))
    }
}

impl Serialize for TargetTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.template.serialize(serializer)
    }
}

/// A template for a URL that is looked at, such as `http://web:8080/{{ labels.job }}/health`.
///
/// Its scheme is plain text, and what is filled in stays in its part: in the host it is a
/// name or an address, with a port only where it is the whole of host and port; in the path
/// it is a segment or a piece of one; in the query it is encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlTemplate(Template);

impl UrlTemplate {
    /// Checks `source`.
    pub fn parse(source: impl Into<String>) -> Result<Self, TemplateError> {
        const HELP: &str =
            "expected an http or https URL without a user, such as 'http://127.0.0.1:8080/healthz'";
        let template = Template::parse(source)?;
        let source = template.source();
        let error = |message: String| TemplateError {
            message,
            span: 0..source.len(),
            help: Some(HELP.to_owned()),
        };
        if template.is_literal() {
            check_url(source).map_err(error)?;
            return Ok(Self(template));
        }
        let behind = ["http://", "https://"]
            .iter()
            .find_map(|scheme| source.strip_prefix(scheme))
            .ok_or_else(|| {
                error("the URL does not begin with its scheme in plain text".to_owned())
            })?;
        if behind.starts_with(['/', '\\', '?', '#']) {
            return Err(error(
                "no host stands behind the `//` of the URL".to_owned(),
            ));
        }
        Ok(Self(template))
    }

    /// The template as it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        self.0.source()
    }

    /// The host of all its URLs, if it is plain text.
    #[must_use]
    pub fn literal_host(&self) -> Option<String> {
        let (scheme, rest) = self.source().split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        // A template in it may itself hold such a character.
        if !is_literal(authority) {
            return None;
        }
        let url = url::Url::parse(&format!("{scheme}://{authority}/")).ok()?;
        url.host_str().map(str::to_owned)
    }

    /// The URL for one alert, and whether the alert has a part in its host.
    pub fn render(&self, context: &Context) -> Result<(String, bool), RenderError> {
        if self.0.is_literal() {
            return Ok((self.source().to_owned(), false));
        }
        let marked = render(&URL, self.source(), context)?;
        let wrong = |message: String| RenderError::new(self.source(), message);
        let (url, foreign) = in_parts(&marked).map_err(wrong)?;
        check_url(&url).map_err(wrong)?;
        url.parse::<HttpUrl>()
            .map_err(|error| wrong(error.to_string()))?;
        Ok((url, foreign))
    }
}

impl Serialize for UrlTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Whether a verification may GET `url`; the error is a fragment.
fn check_url(url: &str) -> Result<(), String> {
    let parsed = url::Url::parse(url).map_err(|error| format!("`{url}` is no URL: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(format!("`{url}` is neither http nor https"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("a user or a password stands in the URL, where logs would show it".to_owned());
    }
    // The URL standard passes over slashes, tabs and line breaks before a host: of `http:///a/b` it is `a`, which is no
    // part of the host to whoever reads it.
    let named = url.split_once("://").and_then(|(scheme, rest)| {
        let authority = rest.split(['/', '\\', '?', '#']).next()?;
        url::Url::parse(&format!("{scheme}://{authority}/")).ok()
    });
    if named.is_none_or(|named| named.host() != parsed.host()) {
        return Err(format!("no host stands behind the `//` of `{url}`"));
    }
    Ok(())
}

/// A part of a URL behind its scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UrlPart {
    Host,
    Path,
    Query,
}

/// Puts a URL together whose filled-in pieces are marked, and says whether one of them
/// stands in its host. Only what the policy says itself ends a part.
fn in_parts(marked: &str) -> Result<(String, bool), String> {
    let (scheme, rest) = marked.split_once("://").ok_or("it is no URL")?;
    let mut url = format!("{scheme}://");
    let mut part = UrlPart::Host;
    let mut foreign = false;
    // One that stands in what is filled in is refused below.
    let host_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    for (index, piece) in rest.split(FILLED).enumerate() {
        let plain = match piece.split_once(PLAIN_AGAIN) {
            Some((value, plain)) if index > 0 => {
                if part == UrlPart::Host {
                    foreign = true;
                    let whole = rest
                        .get(..host_end)
                        .and_then(|host| host.strip_prefix(FILLED)?.strip_suffix(PLAIN_AGAIN))
                        .is_some_and(|host| host == value);
                    check_host(value, whole)?;
                    url.push_str(value);
                } else {
                    if part == UrlPart::Path {
                        check_segment(value)?;
                    }
                    encode(value, &mut url);
                }
                plain
            }
            _ => piece,
        };
        for c in plain.chars() {
            part = match (part, c) {
                (_, '?' | '#') => UrlPart::Query,
                (UrlPart::Host, '/') => UrlPart::Path,
                (part, _) => part,
            };
            url.push(c);
        }
    }
    let path = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split(['?', '#']).next())
        .unwrap_or_default();
    // They would be resolved, and lead to another path than the policy says.
    let dots = |segment: &str| {
        let name = segment.split("%3B").next().unwrap_or_default();
        matches!(name.split(';').next(), Some("." | ".."))
    };
    if path.split('/').skip(1).any(dots) {
        return Err("the path has a segment of `.` or `..`".to_owned());
    }
    Ok((url, foreign))
}

/// Refuses what is more than a host's name or address; `whole` also takes a port.
fn check_host(value: &str, whole: bool) -> Result<(), String> {
    let named = |host: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        !host.is_empty() && host.chars().all(plain)
    };
    let addressed = |host: &str| {
        host.strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<core::net::Ipv6Addr>().is_ok())
    };
    let with_port = || {
        let (host, port) = value.rsplit_once(':')?;
        let port = port.parse::<u16>().is_ok();
        (port && (named(host) || addressed(host))).then_some(())
    };
    if named(value) || whole && (addressed(value) || with_port().is_some()) {
        return Ok(());
    }
    let port = if whole { ", perhaps with a port" } else { "" };
    Err(format!(
        "the value {value:?} is no name or address of a host{port}"
    ))
}

/// Refuses what is more than a piece of a path's segment.
fn check_segment(value: &str) -> Result<(), String> {
    let breaks_out = |c: char| {
        c.is_whitespace() || c.is_control() || matches!(c, '/' | '\\' | '?' | '#' | '@' | '%')
    };
    match value.chars().find(|c| breaks_out(*c)) {
        Some(c) => Err(format!(
            "the value {value:?} has the character {c:?} in it, which no segment of a path may have"
        )),
        None => Ok(()),
    }
}

/// Appends `value` with everything encoded that could mean something in a URL.
fn encode(value: &str, url: &mut String) {
    let digit = |half: u8| {
        char::from_digit(half.into(), 16)
            .unwrap_or('0')
            .to_ascii_uppercase()
    };
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            url.push(char::from(byte));
        } else {
            url.extend(['%', digit(byte >> 4), digit(byte & 0xf)]);
        }
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
#[must_use]
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

/// What is wrong with a template that is too long.
fn too_long(source: &str) -> Option<String> {
    (source.len() > LENGTH).then(|| {
        format!(
            "the template has {} bytes, and may have {LENGTH}",
            source.len()
        )
    })
}

/// Checks syntax, and that the names exist.
fn check(source: &str) -> Result<(), TemplateError> {
    if is_literal(source) {
        return Ok(());
    }
    if let Some(message) = too_long(source) {
        return Err(TemplateError {
            message,
            span: 0..source.len(),
            help: Some("only a text in which nothing is filled in may be longer".to_owned()),
        });
    }
    let template =
        PLAIN
            .template_from_str(source)
            .map_err(|error| match apart(source, Reach::Likely) {
                Some(name) => not_one(&name),
                None => not_valid(&error, source),
            })?;
    // Before names are looked for: `bar` of `labels.foo-bar` is one that nobody meant.
    if let Some(name) = apart(source, Reach::Sure) {
        return Err(not_one(&name));
    }
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
            if VARIABLES.contains(&field) {
                return Err(beside(source, field));
            }
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
    // The engine's own range goes past the end where a quote is not closed.
    let inside = |at: usize| source.floor_char_boundary(at);
    TemplateError {
        message: format!("the template is not valid: {}", reason(error)),
        span: error.range().map_or(0..source.len(), |range| {
            inside(range.start)..inside(range.end)
        }),
        help: Some(
            "expected Jinja's syntax, such as '{{ labels.container | default(\"nginx\") }}'"
                .to_owned(),
        ),
    }
}

/// A name that the template takes apart.
fn not_one(name: &Apart) -> TemplateError {
    let Apart { at, root, name } = name;
    let (message, help) = match *root {
        "labels" | "annotations" => (
            format!("`{root}.{name}` is not read as one name"),
            format!("write `{root}[{name:?}]`: behind a dot, a name is letters, digits and `_`"),
        ),
        "alert" => (
            format!("`alert.{name}` is part of a text, and texts have no parts"),
            format!("`alert` has {}", ALERT_FIELDS.join(", ")),
        ),
        _ => (
            format!("`{root}.{name}` is part of a text, and texts have no parts"),
            format!("`{root}` is the policy's name"),
        ),
    };
    TemplateError {
        message,
        span: at.clone(),
        help: Some(help),
    }
}

/// What stands beside the alert, as other tools have it inside.
fn beside(source: &str, name: &str) -> TemplateError {
    let mut error = unknown(source, name, "`alert`", &ALERT_FIELDS);
    error.help = Some(format!("write `{name}`, without `alert.` before it"));
    error
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
    if let Some(message) = too_long(source) {
        return Err(RenderError::new(&bounds::quoted(source), message));
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
    fn a_template_is_bounded_and_a_text_is_not() {
        let long = |length: usize| "x".repeat(length) + "{{ labels.a }}";
        let whole = rendered(&long(30_000), &[("a", "y")]).unwrap();
        assert_eq!(whole.len(), 30_001);
        for source in [long(33_000), long(100_000), "\n".repeat(70_000) + "{{"] {
            let error = Template::parse(source.as_str()).unwrap_err();
            assert!(error.to_string().ends_with("may have 32768"), "{error}");
            // From a journal, say, that knows no such bound.
            let error = render_value(&json!(source), &context(&[])).unwrap_err();
            assert!(error.to_string().ends_with("may have 32768"), "{error}");
            assert!(error.to_string().len() < 1000);
        }
        let text = "x".repeat(100_000);
        assert_eq!(rendered(&text, &[]).unwrap(), text);
    }

    #[test]
    fn the_place_of_a_mistake_is_inside_the_template() {
        for source in [
            "{{ labels.a | default(\"nginx}",
            "{{ \"ä",
            "{% if 'x",
            "a {{",
        ] {
            let span = Template::parse(source).unwrap_err().span();
            assert!(source.get(span.clone()).is_some(), "{span:?} of {source}");
        }
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
    fn a_target_is_bounded_and_so_is_what_is_said_of_it() {
        let source = "docker://local/{{ labels.container }}";
        let long = "x".repeat(256 - "docker://local/".len());
        assert!(target(source, &[("container", &long)]).is_ok());
        for length in [257, 70_000] {
            let error = target(source, &[("container", &"x".repeat(length))]).unwrap_err();
            assert!(error.contains("may have 256"), "{error}");
            assert!(error.len() < 500, "{} bytes", error.len());
        }
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

    fn url(source: &str, pairs: &[(&str, &str)]) -> Result<(String, bool), String> {
        UrlTemplate::parse(source)
            .map_err(|error| error.to_string())?
            .render(&context(pairs))
            .map_err(|error| error.to_string())
    }

    /// As the URL standard reads these, the label is the host.
    #[test]
    fn a_label_is_no_host_because_there_is_none() {
        for source in [
            "http:///{{ labels.a }}/admin",
            "http:////{{ labels.a }}",
            r"http:/\{{ labels.a }}",
            r"http://\{{ labels.a }}",
            "http://\t/{{ labels.a }}",
            "https://{{ '' }}/{{ labels.a }}",
            "http://?{{ labels.a }}",
            "http:///literal",
            "http:literal",
        ] {
            let found = url(source, &[("a", "12")]);
            assert!(found.is_err(), "{source}: {found:?}");
        }
    }

    #[test]
    fn what_is_filled_into_a_url_stays_in_its_part() {
        let instance = "http://{{ labels.i }}/healthz";
        for good in [
            "web1:9100",
            "web-1.example",
            "[2001:db8::1]:9100",
            "[2001:db8::1]",
            "10.0.0.7",
        ] {
            let (found, foreign) = url(instance, &[("i", good)]).unwrap();
            assert_eq!((found, foreign), (format!("http://{good}/healthz"), true));
        }
        for evil in [
            "127.0.0.1:23998/admin/delete?all=1&x=",
            "a@b",
            "a?x",
            "a#x",
            "a\\b",
            "a b",
            "a/../b",
            "a:80:90",
            "a:http",
            ":80",
            "",
            "a%2fb",
            "a\n",
            "\u{2}/x\u{1}",
            "b\u{fc}cher",
            "a\u{ff0f}b",
        ] {
            assert!(url(instance, &[("i", evil)]).is_err(), "{evil:?}");
        }
        // The port is the policy's.
        let fixed = "http://{{ labels.h }}:8080/{{ labels.p }}/health?of={{ labels.q }}";
        let all = |h, p, q| url(fixed, &[("h", h), ("p", p), ("q", q)]);
        assert_eq!(
            all("web", "api v", "").unwrap_err(),
            format!(
                "the template `{fixed}` does not fit the alert: the value \"api v\" has the character ' ' in it, which no segment of a path may have"
            )
        );
        assert_eq!(
            all("web", "api;v=1", "a&b=c d#e/\u{e4}%").unwrap().0,
            "http://web:8080/api%3Bv%3D1/health?of=a%26b%3Dc%20d%23e%2F%C3%A4%25"
        );
        for (host, path) in [
            ("web:80", "a"),
            ("web@evil", "a"),
            ("[::1]", "a"),
            ("web", ".."),
            ("web", "."),
            ("web", "..;x"),
            ("web", "a/b"),
            ("web", "a?b"),
            ("web", "a#b"),
            ("web", "%2e%2e"),
            ("web", "a\\b"),
        ] {
            assert!(all(host, path, "q").is_err(), "{host} {path}");
        }
        let joined = url("http://web/.{{ labels.d }}/x", &[("d", ".")]);
        assert!(joined.is_err(), "{joined:?}");
        let captured = "http://web/{% set x %}{{ labels.a }}{% endset %}{{ x }}";
        assert!(url(captured, &[("a", "b/c")]).is_err());
        assert_eq!(url(captured, &[("a", "b")]).unwrap().0, "http://web/b");
        let missing = url(instance, &[]).unwrap_err();
        assert!(missing.contains("`labels.i` is undefined"), "{missing}");
    }

    #[test]
    fn a_url_says_itself_where_it_leads() {
        assert_eq!(
            url("http://127.0.0.1:8080//x?a=b", &[]).unwrap(),
            ("http://127.0.0.1:8080//x?a=b".to_owned(), false)
        );
        assert!(!url("http://web/{{ labels.a }}", &[("a", "x")]).unwrap().1);
        assert!(
            url("http://{{ labels.a }}.example/", &[("a", "x")])
                .unwrap()
                .1
        );
        for source in [
            "{{ annotations.url }}",
            "{{ labels.scheme }}://web/",
            "ftp://web/{{ labels.a }}",
            "web/status",
            "http://admin:secret@web/",
        ] {
            assert!(UrlTemplate::parse(source).is_err(), "{source}");
        }
        for (source, host) in [
            ("http://web:8080/{{ labels.a }}", Some("web")),
            ("http://[::1]/", Some("[::1]")),
            ("http://{{ labels.a }}/", None),
            ("http://a.{{ labels.a | replace('/', '') }}/", None),
        ] {
            let template = UrlTemplate::parse(source).unwrap();
            assert_eq!(template.literal_host().as_deref(), host, "{source}");
        }
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
