//! Which URLs a plugin may ask for.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::{Host, Url};

use super::{Denied, Glob, list, shown};
use crate::http::{HttpMethod, HttpRequest, HttpUrl, check_path, plain};

/// Where requests may go, by which methods, and with which secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpGrant {
    /// One of the patterns has to fit.
    pub urls: Vec<UrlPattern>,
    /// What may be sent there.
    pub methods: BTreeSet<HttpMethod>,
    /// The names of the secrets that headers may be filled with; none are granted
    /// without it. A secret reaches every URL that is granted here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Glob>,
}

impl HttpGrant {
    /// Whether `request` is granted: its method, its URL and its secrets.
    pub fn allows(&self, request: &HttpRequest) -> Result<(), Denied> {
        self.allows_url(request.method, &request.url)?;
        let names = request.headers.iter().filter_map(|header| header.secret());
        for name in names {
            if !self.secrets.iter().any(|glob| glob.matches(name)) {
                return Err(Denied(format!(
                    "http.send with the secret {} is not granted: the policy grants {}",
                    shown(name),
                    if self.secrets.is_empty() {
                        "no secrets".to_owned()
                    } else {
                        format!("the secrets {}", list(&self.secrets))
                    }
                )));
            }
        }
        Ok(())
    }

    /// Whether a request by `method` to `url` is granted; what a redirect has to pass.
    pub fn allows_url(&self, method: HttpMethod, url: &HttpUrl) -> Result<(), Denied> {
        if !self.methods.contains(&method) {
            return Err(Denied(format!(
                "http.send by {method} is not granted: the policy grants the methods {}",
                list(&self.methods)
            )));
        }
        if !self.urls.iter().any(|pattern| pattern.matches(url)) {
            // A query can hold what is nobody else's business.
            let mut place = url.as_url().clone();
            place.set_query(None);
            return Err(Denied(format!(
                "http.send to {} is not granted: the policy grants the URLs {}",
                shown(place.as_str()),
                list(&self.urls)
            )));
        }
        Ok(())
    }
}

/// A pattern for URLs: `https://api.example.com/v2/**`.
///
/// Scheme, host and port have to be the same; `*.` at the beginning of the host stands
/// for one more label, as in certificates. The path is a [`Glob`]. A query is no part of
/// it: any is granted.
#[derive(Debug, Clone)]
pub struct UrlPattern {
    pattern: String,
    scheme: String,
    /// With `subdomain`, what follows its first label.
    host: Host<String>,
    subdomain: bool,
    port: Option<u16>,
    path: Glob,
}

/// Why a text is no pattern for URLs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the URL pattern {0}")]
pub struct UrlPatternError(String);

impl UrlPattern {
    /// Whether `url` fits.
    #[must_use]
    pub fn matches(&self, url: &HttpUrl) -> bool {
        let path = url.path();
        let url = url.as_url();
        let host = url.host().is_some_and(|host| match (&host, &self.host) {
            (Host::Domain(found), Host::Domain(parent)) if self.subdomain => found
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            _ => !self.subdomain && host.to_owned() == self.host,
        });
        host && url.scheme() == self.scheme
            && url.port_or_known_default() == self.port
            && self.path.matches(&path)
    }
}

impl FromStr for UrlPattern {
    type Err = UrlPatternError;

    fn from_str(pattern: &str) -> Result<Self, Self::Err> {
        let wrong = |reason: &str| UrlPatternError(reason.to_owned());
        if !pattern.is_ascii() || pattern.contains(|c: char| c.is_ascii_control() || c == ' ') {
            return Err(wrong(
                "holds a space or what is not ASCII; write it percent-encoded, and the host in punycode",
            ));
        }
        if pattern.contains(['?', '#', '\\']) {
            return Err(wrong(
                "holds `?`, `#` or a backslash; it ends with the path, and any query is granted",
            ));
        }
        let (scheme, rest) = pattern
            .split_once("://")
            .filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
            .ok_or_else(|| wrong("does not begin with `http://` or `https://`"))?;
        let (authority, path) = rest
            .find('/')
            .and_then(|slash| rest.split_at_checked(slash))
            .ok_or_else(|| wrong("has no path; end it with `/**` to grant every path"))?;
        if authority.contains('@') {
            return Err(wrong("holds a user or a password"));
        }
        let (subdomain, place) = authority
            .strip_prefix("*.")
            .map_or((false, authority), |place| (true, place));
        if place.contains(['*', '{', '}', '!']) {
            return Err(wrong(
                "has a wildcard in its host that is no `*.` at its beginning",
            ));
        }
        let url = Url::parse(&format!("{scheme}://{place}/"))
            .map_err(|error| UrlPatternError(format!("has no valid host: {error}")))?;
        let host = url.host().ok_or_else(|| wrong("has no host"))?.to_owned();
        if subdomain && !matches!(host, Host::Domain(_)) {
            return Err(wrong("has a wildcard before an address"));
        }
        check_path(path).map_err(|reason| UrlPatternError(format!("has a path that {reason}")))?;
        let path = plain(path)
            .parse()
            .map_err(|error| UrlPatternError(format!("has a path that is no pattern: {error}")))?;
        Ok(Self {
            pattern: pattern.to_owned(),
            scheme: scheme.to_owned(),
            host,
            subdomain,
            port: url.port_or_known_default(),
            path,
        })
    }
}

impl fmt::Display for UrlPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)
    }
}

impl PartialEq for UrlPattern {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for UrlPattern {}

impl Serialize for UrlPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.pattern)
    }
}

impl<'de> Deserialize<'de> for UrlPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HttpBody, HttpHeader};

    fn fits(pattern: &str, url: &str) -> bool {
        let pattern: UrlPattern = pattern.parse().unwrap();
        // One that is refused reaches no pattern.
        url.parse().is_ok_and(|url| pattern.matches(&url))
    }

    #[test]
    fn urls_fit_by_scheme_host_port_and_path() {
        for (pattern, yes, no) in [
            (
                "https://api.example.com/v2/**",
                &[
                    "https://api.example.com/v2/",
                    "https://api.example.com/v2/a/b?c=d#e",
                    "https://API.Example.com:443/v2/a",
                    "https://api.example.com/v1/../v2/a",
                    "https://api.example.com/%762/a",
                ][..],
                &[
                    "http://api.example.com/v2/a",
                    "https://api.example.com:8443/v2/a",
                    "https://api.example.com./v2/a",
                    "https://example.com/v2/a",
                    "https://x.api.example.com/v2/a",
                    "https://api.example.com.evil.example/v2/a",
                    "https://api.example.com@evil.example/v2/a",
                    "https://evil.example/https://api.example.com/v2/a",
                    "https://evil.example/?https://api.example.com/v2/a",
                    "https://evil.example#api.example.com/v2/a",
                    "https://api.example.com/v2",
                    "https://api.example.com/v20/a",
                    "https://api.example.com/V2/a",
                    "https://api.example.com/v2/../admin",
                    "https://api.example.com/v2/%2e%2e/admin",
                    "https://api.example.com/v2/..%2fadmin",
                    "https://api.example.com/v2/..;/admin",
                    "https://api.example.com/v2\\..\\admin",
                    "https://api.example.com//v2/a",
                ][..],
            ),
            (
                "http://*.example.com:8080/hook",
                &[
                    "http://a.example.com:8080/hook",
                    "http://B.EXAMPLE.COM:8080/hook?x",
                ][..],
                &[
                    "http://example.com:8080/hook",
                    "http://a.b.example.com:8080/hook",
                    "http://.example.com:8080/hook",
                    "http://aexample.com:8080/hook",
                    "http://a.example.com/hook",
                    "http://a.example.com:8080/hook/",
                    "http://a.example.com:8080/hooks",
                ][..],
            ),
            (
                "http://127.0.0.1/*",
                &[
                    "http://127.0.0.1/a",
                    "http://2130706433/a",
                    "http://0x7f000001:80/",
                ][..],
                &[
                    "http://127.0.0.1/a/b",
                    "http://127.0.0.2/a",
                    "http://[::ffff:127.0.0.1]/a",
                    "http://localhost/a",
                    "http://127.0.0.1.evil.example/a",
                ][..],
            ),
            (
                "http://[::1]:9093/api/v2/silences",
                &["http://[0:0:0:0:0:0:0:1]:9093/api/v2/silences"][..],
                &[
                    "http://[::1]/api/v2/silences",
                    "http://[::2]:9093/api/v2/silences",
                ][..],
            ),
            (
                "https://h/[!a]dmin",
                &["https://h/bdmin"][..],
                &["https://h/admin", "https://h/%61dmin"][..],
            ),
        ] {
            for url in yes {
                assert!(fits(pattern, url), "{pattern} on {url}");
            }
            for url in no {
                assert!(!fits(pattern, url), "{pattern} on {url}");
            }
        }
    }

    #[test]
    fn patterns_that_would_not_mean_what_they_say_are_refused() {
        for (pattern, reason) in [
            ("api.example.com/**", "begin with"),
            ("ftp://h/**", "begin with"),
            ("HTTP://h/**", "begin with"),
            ("*://h/**", "begin with"),
            ("https://h", "no path"),
            ("https://user@h/**", "a user"),
            ("https://*/**", "wildcard"),
            ("https://*.*.example.com/**", "wildcard"),
            ("https://api*.example.com/**", "wildcard"),
            ("https://{a,b}.example.com/**", "wildcard"),
            ("https://*.10.0.0.1/**", "before an address"),
            ("https://*.[::1]/**", "before an address"),
            ("https:///**", "no valid host"),
            ("https://h:x/**", "no valid host"),
            ("https://h/a?b=c", "any query"),
            ("https://h/#a", "any query"),
            ("https://h/../a", "`..`"),
            ("https://h/a//b", "two slashes"),
            ("https://h/a%2fb", "encoded slash"),
            ("https://h/[a", "no pattern"),
            ("https://bücher.example/**", "ASCII"),
            ("https://h/ä", "ASCII"),
        ] {
            let error = pattern.parse::<UrlPattern>().unwrap_err().to_string();
            assert!(error.contains(reason), "{pattern}: {error}");
        }
    }

    fn grant(secrets: &[&str]) -> HttpGrant {
        HttpGrant {
            urls: vec!["https://h/a/**".parse().unwrap()],
            methods: BTreeSet::from([HttpMethod::Get, HttpMethod::Post]),
            secrets: secrets.iter().map(|name| name.parse().unwrap()).collect(),
        }
    }

    fn request(method: HttpMethod, url: &str, value: &str) -> HttpRequest {
        HttpRequest {
            method,
            url: url.parse().unwrap(),
            headers: vec![HttpHeader {
                name: "Authorization".to_owned(),
                value: value.to_owned(),
            }],
            body: HttpBody::default(),
            timeout_ms: None,
        }
    }

    #[test]
    fn a_denial_says_what_is_granted_and_no_query() {
        let ask = |grant: &HttpGrant, request: &HttpRequest| {
            grant.allows(request).map_err(|denied| denied.to_string())
        };
        let (get, delete) = (HttpMethod::Get, HttpMethod::Delete);
        let none = grant(&[]);
        assert_eq!(ask(&none, &request(get, "https://h/a/b", "x")), Ok(()));
        assert_eq!(
            ask(&none, &request(delete, "https://h/a/b", "x")).unwrap_err(),
            "http.send by DELETE is not granted: the policy grants the methods GET, POST"
        );
        assert_eq!(
            ask(&none, &request(get, "https://h/b?token=s3cret", "x")).unwrap_err(),
            "http.send to `https://h/b` is not granted: the policy grants the URLs https://h/a/**"
        );
        let with_secret = request(get, "https://h/a/b", "secret://page-key");
        assert_eq!(
            ask(&none, &with_secret).unwrap_err(),
            "http.send with the secret `page-key` is not granted: the policy grants no secrets"
        );
        assert_eq!(
            ask(&grant(&["chat-*"]), &with_secret).unwrap_err(),
            "http.send with the secret `page-key` is not granted: the policy grants the secrets chat-*"
        );
        assert_eq!(ask(&grant(&["page-*"]), &with_secret), Ok(()));
    }

    #[test]
    fn grants_come_back_from_the_journal() {
        let json = serde_json::to_string(&grant(&[])).unwrap();
        assert_eq!(
            json,
            r#"{"urls":["https://h/a/**"],"methods":["GET","POST"]}"#
        );
        assert_eq!(
            serde_json::from_str::<HttpGrant>(&json).unwrap(),
            grant(&[])
        );
    }
}
