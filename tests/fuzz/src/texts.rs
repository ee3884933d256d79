//! Texts with a syntax of their own: matchers, URLs, names, durations.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use sentinel_core::alert::Labels;
use sentinel_core::duration::HumanDuration;
use sentinel_core::grant::{
    AddressPattern, Glob, LabelGrant, UrlPattern, host_name, limit_names, tag_problem,
    variable_problem,
};
use sentinel_core::guard::settings::{Moment, Share, Window};
use sentinel_core::http::{HttpMethod, HttpPlace, HttpUrl};
use sentinel_core::id::{Digest, IncidentId, PluginName, PluginRef, PolicyName, RunId, Target};
use sentinel_core::mail::MailAddress;
use sentinel_core::matcher::{MatchOp, Matcher, Matchers};
use sentinel_drivers::docker;
use url::Url;

use crate::{bounded, parts, said, text};

/// Reads a text, and sees to it that what is read is written as what is read again.
fn read<T>(text: &str) -> Option<T>
where
    T: FromStr + Display + PartialEq + Debug,
    T::Err: Display,
{
    match text.parse::<T>() {
        Ok(value) => {
            let written = value.to_string();
            match written.parse::<T>() {
                Ok(again) => assert_eq!(again, value, "{text:?}, written as {written:?}"),
                Err(error) => panic!("{text:?} is written as {written:?}, and {error}"),
            }
            Some(value)
        }
        Err(error) => {
            said(&error, text.len());
            None
        }
    }
}

/// Matchers, in either syntax.
pub fn matcher(bytes: &[u8]) {
    let text = text(bytes);
    // Each may be compiled to as much as an expression may take, and both syntaxes are tried.
    let matchers = match Matchers::parse_list(&text) {
        Ok(Matchers(matchers)) => matchers,
        Err(error) => {
            let span = error.span();
            assert!(text.get(span.clone()).is_some(), "{span:?} of {text:?}");
            said(&error, text.len());
            return;
        }
    };
    let all = Matchers(matchers);
    let written = all.to_string();
    assert_eq!(
        Matchers::parse_list(&written).as_ref(),
        Ok(&all),
        "{written}"
    );
    let labels: Labels = all
        .0
        .iter()
        .map(|matcher| (matcher.name().to_owned(), matcher.value().to_owned()))
        .collect();
    let each = all.0.iter().map(|matcher| {
        let alone = read::<Matcher>(&matcher.to_string()).expect("a matcher");
        assert_eq!(alone, *matcher);
        let (here, nowhere) = (matcher.matches(&labels), matcher.matches(&Labels::new()));
        let opposite = match matcher.op() {
            MatchOp::Equal => MatchOp::NotEqual,
            MatchOp::NotEqual => MatchOp::Equal,
            MatchOp::Matches => MatchOp::NotMatches,
            MatchOp::NotMatches => MatchOp::Matches,
        };
        let opposite = Matcher::new(matcher.name(), opposite, matcher.value()).expect("it is one");
        assert_ne!(opposite.matches(&labels), here);
        assert_ne!(opposite.matches(&Labels::new()), nowhere);
        let value = labels.get(matcher.name()).map_or("", String::as_str);
        match matcher.op() {
            MatchOp::Equal => assert_eq!(here, value == matcher.value()),
            MatchOp::NotEqual => assert_eq!(here, value != matcher.value()),
            MatchOp::Matches | MatchOp::NotMatches => {}
        }
        here
    });
    // Each of them is asked, also behind one that does not hold.
    let held: Vec<bool> = each.collect();
    assert_eq!(held.iter().all(|held| *held), all.matches(&labels));
}

/// URLs, where they lead from there, and patterns for them: a URL, a location, a pattern.
pub fn url(bytes: &[u8]) {
    let [url, location, pattern] = parts(bytes);
    bounded(bytes.len(), || {
        let pattern = read::<UrlPattern>(&pattern);
        let place = read::<HttpPlace>(&url);
        if let Some(place) = &place {
            assert!(!place.summary().contains('?'), "{}", place.summary());
        }
        let Some(from) = read::<HttpUrl>(&url) else {
            return;
        };
        plain(&from);
        granted(&from, pattern.as_ref());
        match from.join(&location) {
            Ok(to) => {
                plain(&to);
                granted(&to, pattern.as_ref());
                assert_eq!(read::<HttpUrl>(&to.to_string()), Some(to));
            }
            Err(error) => said(&error, location.len()),
        }
    });
}

/// What a URL is that everybody reads alike.
fn plain(url: &HttpUrl) {
    let (sent, text) = (url.as_url(), url.to_string());
    assert!(matches!(sent.scheme(), "http" | "https"));
    assert!(sent.username().is_empty() && sent.password().is_none() && sent.fragment().is_none());
    assert!(sent.host_str().is_some_and(|host| !host.is_empty()));
    assert!(text.is_ascii() && !text.contains(['\\', ' ']) && text.len() <= 8 << 10);
    let path = url.path();
    let dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    assert!(!path.split('/').any(dots), "{path}");
    assert!(!path.contains("//"), "{path}");
    let origin = url.origin();
    assert!(text.starts_with(&origin.to_string()), "{origin} of {text}");
    assert_eq!(origin.origin(), origin);
}

/// What fits a pattern is where the pattern says, and what a URL itself says fits it.
fn granted(url: &HttpUrl, pattern: Option<&UrlPattern>) {
    let host = url.as_url().host_str().unwrap_or_default();
    // A name with such a character cannot be granted, because it would be a pattern.
    if !host.contains(['*', '{', '}', '!']) {
        let whole: UrlPattern = format!("{}**", url.origin()).parse().expect("a pattern");
        assert!(whole.matches(url), "{whole} on {url}");
    }
    let Some(pattern) = pattern.filter(|pattern| pattern.matches(url)) else {
        return;
    };
    let written = pattern.to_string();
    let (_, granted) = written.split_once("://").expect("a scheme");
    let granted = granted.split('/').next().unwrap_or_default();
    let granted = granted.strip_prefix("*.").unwrap_or(granted);
    let granted = Url::parse(&format!("{}://{granted}/", url.as_url().scheme())).expect("a host");
    assert!(written.starts_with(&format!("{}://", url.as_url().scheme())));
    assert!(
        host.ends_with(granted.host_str().unwrap_or_default()),
        "{written} on {url}"
    );
    assert_eq!(
        url.as_url().port_or_known_default(),
        granted.port_or_known_default(),
        "{written} on {url}"
    );
}

/// Everything else that is one name, number or pattern.
pub fn names(bytes: &[u8]) {
    let [text, other] = parts(bytes);
    bounded(bytes.len(), || {
        read::<IncidentId>(&text);
        read::<RunId>(&text);
        read::<Digest>(&text);
        read::<PolicyName>(&text);
        read::<PluginName>(&text);
        read::<PluginRef>(&text);
        read::<HumanDuration>(&text);
        read::<Window>(&text);
        read::<Share>(&text);
        read::<Moment>(&text);
        read::<HttpMethod>(&text);
        read::<LabelGrant>(&text);
        read::<AddressPattern>(&text);
        if let Some(glob) = read::<Glob>(&text) {
            // Only what has a slash reaches into what is below.
            let below = format!("{other}/{other}");
            assert!(
                !glob.matches(&below) || text.contains(['/', '*']),
                "{text} on {below}"
            );
        }
        if let Some(address) = read::<MailAddress>(&text) {
            let text = address.as_str();
            assert!(text.len() <= 254 && text.bytes().all(|byte| byte.is_ascii_graphic()));
            assert_eq!(text, format!("{}@{}", address.local(), address.domain()));
            assert!(!text.contains(['<', '>', '"', ',', ';', '%', '!', '(', ')', '[', ']', ':']));
        }
        if let Some(target) = read::<Target>(&text) {
            one_thing(&target);
        }
        for_ansible(&text);
        if docker::is_name(&text) {
            let path = format!("/containers/{text}/json");
            let url = Url::parse(&format!("http://localhost{path}")).expect("a URL");
            assert_eq!(
                (url.path(), url.query(), url.fragment()),
                (&*path, None, None)
            );
            one_thing(&read::<Target>(&format!("docker://local/{text}")).expect("a target"));
        }
    });
}

/// A thing is itself, and whatever else it is called.
pub(crate) fn one_thing(target: &Target) {
    let thing = target.thing();
    assert_eq!(thing.thing(), thing, "{target}");
    assert_eq!(thing.kind(), target.kind());
    assert_eq!(thing.name(), target.name());
    if target.is_container() {
        assert_eq!(thing, *target);
        let hex = |byte: u8| byte.is_ascii_hexdigit();
        assert!(!target.may_be_an_id() || target.name().bytes().all(hex));
    } else {
        // Another spelling of the host is no other thing.
        let shouted = format!("{}://{}", target.kind(), target.host().to_ascii_uppercase());
        if let Ok(shouted) = shouted.parse::<Target>() {
            assert_eq!(shouted.thing().host(), thing.host(), "{target}");
        }
        assert!(!target.may_be_an_id());
    }
    read::<Target>(&thing.to_string());
}

/// What is told to Ansible is a name, whatever it began as.
fn for_ansible(text: &str) {
    match host_name(text) {
        Ok(name) => {
            assert_eq!(host_name(name), Ok(name));
            let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
            assert!(name.chars().all(plain) && !name.is_empty(), "{name}");
        }
        Err(problem) => said(&problem, 0),
    }
    match limit_names(text) {
        Ok(names) => {
            assert_eq!(names.len(), text.split(',').count());
            for name in names {
                assert_eq!(host_name(name), Ok(name));
            }
        }
        Err(error) => said(&error, 0),
    }
    if let Some(problem) = variable_problem(text) {
        said(&problem, 0);
    } else {
        assert!(!text.starts_with("ansible_") && text.is_ascii() && text.len() <= 255);
        assert!(text.chars().all(|c| c.is_alphanumeric() || c == '_'));
    }
    match tag_problem(text) {
        Some(problem) => said(&problem, 0),
        None => assert!(!text.contains([',', '{', '}', '%', '#', '\n', '\'', '"'])),
    }
}
