//! Templates that policies have, and what alerts fill into them.

use std::borrow::Cow;

use sentinel_core::alert::{Alert, AlertStatus, Fingerprint, Labels};
use sentinel_core::bounds;
use sentinel_core::http::HttpUrl;
use sentinel_core::template::{
    Context, TargetTemplate, Template, TemplateError, UrlTemplate, render_fitting, render_map,
};
use serde_json::{Map, Value};
use url::Url;

use crate::texts::one_thing;
use crate::{bounded, parts, said};

/// What one rendering can write at the most, in bytes: all of its fuel.
const WRITTEN: usize = 20_000 * 64;

/// What stands in a skeleton for the labels `a`, `b` and `c`.
const PLACES: [(&str, &str); 3] = [
    ("$a", "{{ labels.a }}"),
    ("$b", "{{ labels.b }}"),
    ("$c", "{{ labels.c }}"),
];

/// The alert whose labels `a`, `b` and `c` have these values.
fn context(values: [&str; 3]) -> Context {
    let labels: Labels = ["a", "b", "c"]
        .into_iter()
        .zip(values)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let alert = Alert {
        source: "alertmanager".to_owned(),
        fingerprint: Fingerprint::of(&labels),
        status: AlertStatus::Firing,
        annotations: labels.clone(),
        labels,
        starts_at: "2026-01-02T03:04:05Z".parse().expect("a time"),
        ends_at: None,
        generator_url: None,
    };
    Context::new(&alert, &"fuzzed".parse().expect("a name"))
}

/// A text whose `$a`, `$b` and `$c` are filled in, and nothing else: what it becomes can be told
/// without the template engine.
struct Skeleton(String);

impl Skeleton {
    fn of(text: &str) -> Option<Self> {
        let engine = ["{{", "{%", "{#", "}}", "%}", "#}"];
        // A brace beside a place would be read together with the place's own.
        let braces = text.contains("{$") || text.contains("}$");
        (!braces && !engine.iter().any(|mark| text.contains(mark))).then(|| Self(text.to_owned()))
    }

    fn template(&self) -> String {
        PLACES
            .iter()
            .fold(self.0.clone(), |text, (place, template)| {
                text.replace(place, template)
            })
    }

    fn with(&self, values: [&str; 3]) -> String {
        let mut filled = String::new();
        let mut rest = self.0.as_str();
        while let Some(at) = rest.find('$') {
            let (before, place) = rest.split_at(at);
            filled.push_str(before);
            let found = PLACES
                .iter()
                .zip(values)
                .find(|((name, _), _)| place.starts_with(name));
            let (written, length) = found.map_or(("$", 1), |(_, value)| (value, 2));
            filled.push_str(written);
            rest = place.get(length..).unwrap_or_default();
        }
        filled + rest
    }

    fn has_places(&self) -> bool {
        PLACES.iter().any(|(place, _)| self.0.contains(place))
    }
}

fn refused(error: &TemplateError, source: &str) {
    let span = error.span();
    assert!(
        span.start <= span.end && span.end <= source.len(),
        "{span:?} of {source:?}"
    );
    said(error, source.len());
    if let Some(help) = error.help() {
        said(&help, source.len());
    }
}

/// A template, and the values of three labels.
pub fn template(bytes: &[u8]) {
    let [source, a, b, c] = parts(bytes);
    let (values, size) = ([&*a, &*b, &*c], bytes.len());
    let template = match bounded(size, || Template::parse(&source)) {
        Ok(template) => template,
        Err(error) => return refused(&error, &source),
    };
    assert_eq!(template.source(), source);
    let context = context(values);
    let rendered = bounded(size, || template.render(&context));
    assert_eq!(rendered, template.render(&context), "the same each time");
    match &rendered {
        Ok(text) => {
            assert!(
                text.len() <= WRITTEN.max(source.len()),
                "{} bytes",
                text.len()
            );
            if template.is_literal() {
                assert_eq!(*text, source);
            }
        }
        Err(error) => said(error, WRITTEN),
    }
    // Inside of params it is the same, or is left out.
    let params = Map::from_iter([("key".to_owned(), Value::from([source.as_str()].as_slice()))]);
    let whole = render_map(&params, &context);
    let (fitting, left_out) = render_fitting(&params, &context);
    match rendered {
        Ok(text) => {
            let filled = Map::from_iter([("key".to_owned(), Value::from([text].as_slice()))]);
            assert_eq!((whole, left_out), (Ok(filled.clone()), Vec::new()));
            assert_eq!(fitting, filled);
        }
        Err(error) => {
            assert_eq!(whole, Err(error));
            assert_eq!(
                (left_out.len(), &fitting["key"]),
                (1, &Value::Array(Vec::new()))
            );
        }
    }
    // What stands in a label is never read as a template.
    if let Some(skeleton) = Skeleton::of(&source) {
        let template = Template::parse(skeleton.template()).expect("a template");
        assert_eq!(template.render(&context), Ok(skeleton.with(values)));
    }
}

/// A template of a target, and what is filled in.
pub fn target(bytes: &[u8]) {
    let [source, a, b, c] = parts(bytes);
    let values = [&*a, &*b, &*c];
    // As it is, and with its places.
    let skeleton = Skeleton::of(&source);
    let written: Cow<'_, str> = skeleton
        .as_ref()
        .map_or(Cow::Borrowed(&*source), |skeleton| {
            skeleton.template().into()
        });
    let template = match bounded(bytes.len(), || TargetTemplate::parse(written.as_ref())) {
        Ok(template) => template,
        Err(error) => return refused(&error, &written),
    };
    let target = match bounded(bytes.len(), || template.render(&context(values))) {
        Ok(target) => target,
        Err(error) => return said(&error, WRITTEN),
    };
    let text = target.to_string();
    assert!(text.len() <= bounds::TARGET, "{} bytes", text.len());
    assert_eq!(target.kind(), template.kind());
    if let Some(host) = template.literal_host() {
        assert_eq!(target.host(), host);
    }
    one_thing(&target);
    if let Some(skeleton) = skeleton {
        // Nothing that is filled in reaches into another part.
        let (filled, slashes) = (skeleton.with(values), |text: &str| {
            text.matches('/').count()
        });
        assert_eq!(slashes(&filled), slashes(&skeleton.0), "{filled}");
        assert_eq!(filled.trim_end_matches('/'), text.trim_end_matches('/'));
    }
}

/// A template of a URL, and what is filled in.
pub fn url_template(bytes: &[u8]) {
    let [source, a, b, c] = parts(bytes);
    let values = [&*a, &*b, &*c];
    let skeleton = Skeleton::of(&source);
    let written: Cow<'_, str> = skeleton
        .as_ref()
        .map_or(Cow::Borrowed(&*source), |skeleton| {
            skeleton.template().into()
        });
    let template = match bounded(bytes.len(), || UrlTemplate::parse(written.as_ref())) {
        Ok(template) => template,
        Err(error) => return refused(&error, &written),
    };
    let (url, foreign) = match bounded(bytes.len(), || template.render(&context(values))) {
        Ok(rendered) => rendered,
        Err(error) => return said(&error, WRITTEN),
    };
    let found = Url::parse(&url).expect("a URL");
    assert!(matches!(found.scheme(), "http" | "https"));
    assert!(found.username().is_empty() && found.password().is_none());
    if let Some(host) = template.literal_host() {
        assert!(!foreign, "{url}");
        assert_eq!(found.host_str(), Some(&*host));
    }
    let Some(skeleton) = skeleton.filter(Skeleton::has_places) else {
        return;
    };
    assert!(url.parse::<HttpUrl>().is_ok(), "{url}");
    // What the policy says is there, with something harmless in each place. What its own places
    // make of a host (a number with three dots is an address) is not looked at.
    let Ok(said) = Url::parse(&skeleton.with(["x", "x", "x"])) else {
        return;
    };
    assert_eq!(found.scheme(), said.scheme());
    assert_eq!(
        found.fragment().is_some(),
        said.fragment().is_some(),
        "{url}"
    );
    assert_eq!(found.query().is_some(), said.query().is_some(), "{url}");
    let authority = skeleton.0.split("://").nth(1).unwrap_or_default();
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let in_host = PLACES.iter().any(|(place, _)| authority.contains(place));
    assert_eq!(foreign, in_host, "{url}");
    if !in_host {
        assert_eq!(found.host(), said.host(), "{url}");
    }
    // A port only where the alert names host and port as one.
    if !PLACES.iter().any(|(place, _)| authority == *place) {
        assert_eq!(found.port(), said.port(), "{url}");
    }
    let segments = |url: &Url| url.path().split('/').count();
    assert_eq!(segments(&found), segments(&said), "{url} and {said}");
    let pairs = |url: &Url| {
        url.query()
            .unwrap_or_default()
            .matches(['&', '=', ';'])
            .count()
    };
    assert_eq!(pairs(&found), pairs(&said), "{url} and {said}");
}
