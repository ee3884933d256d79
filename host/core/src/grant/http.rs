//! Which URLs a plugin may ask for.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_with::{DeserializeFromStr, SerializeDisplay};
use url::{Host, Url};

use super::{Denied, Glob, list, shown};
use crate::http::{HttpMethod, HttpPlace, HttpRequest, HttpUrl, check_path, plain};

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
    /// Whether a plugin is told what is answered to a request that carried a secret. Without
    /// it, it is told the status alone: an answer may repeat the secret in a spelling that
    /// nobody looks for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answers: bool,
}

impl HttpGrant {
    /// Whether `request` is granted, which goes to `url`: its method, where it goes and
    /// its secrets.
    fn allows(&self, request: &HttpRequest, url: &HttpUrl) -> Result<(), Denied> {
        if !self.methods.contains(&request.method) {
            return Err(Denied(format!(
                "http.send by {} is not granted: the policy grants the methods {}",
                request.method,
                list(&self.methods)
            )));
        }
        if !self.covers(url) {
            return Err(elsewhere(&request.url, &self.urls));
        }
        for name in request.secrets() {
            if !self.has_secret(name) {
                return Err(unknown_secret(name, &self.secrets));
            }
        }
        Ok(())
    }

    fn covers(&self, url: &HttpUrl) -> bool {
        self.urls.iter().any(|pattern| pattern.matches(url))
    }

    fn has_secret(&self, name: &str) -> bool {
        self.secrets.iter().any(|glob| glob.matches(name))
    }
}

/// Whether one of `grants` allows `request`, which goes to `url`: the same one its
/// method, where it goes and all of its secrets.
pub(super) fn allows(
    grants: &[HttpGrant],
    request: &HttpRequest,
    url: &HttpUrl,
) -> Result<(), Denied> {
    // What is said is said of the grant that comes closest.
    let mut closest = None;
    for grant in grants {
        match grant.allows(request, url) {
            Ok(()) => return Ok(()),
            Err(denied) if grant.covers(url) => {
                closest.get_or_insert(denied);
            }
            Err(_) => {}
        }
    }
    match (closest, grants) {
        (Some(denied), _) => Err(denied),
        (None, []) => Err(nothing()),
        (None, [grant]) => grant.allows(request, url),
        (None, grants) => Err(elsewhere(
            &request.url,
            grants.iter().flat_map(|grant| &grant.urls),
        )),
    }
}

/// Whether a plugin is told what is answered to `request`, which goes to `url`.
pub(super) fn shows_answer(grants: &[HttpGrant], request: &HttpRequest, url: &HttpUrl) -> bool {
    request.secrets().next().is_none()
        || grants
            .iter()
            .any(|grant| grant.answers && grant.allows(request, url).is_ok())
}

/// Whether any of `grants` has the secret that holds the URL of a request: asked before
/// the secret is looked at.
pub(super) fn allows_secret(grants: &[HttpGrant], name: &str) -> Result<(), Denied> {
    if grants.is_empty() {
        return Err(nothing());
    }
    if grants.iter().any(|grant| grant.has_secret(name)) {
        return Ok(());
    }
    let secrets: Vec<_> = grants.iter().flat_map(|grant| &grant.secrets).collect();
    Err(unknown_secret(name, &secrets))
}

/// Whether a redirect of `request` to `url` may be followed: by a grant that has all of
/// its secrets too.
pub(super) fn allows_redirect(
    grants: &[HttpGrant],
    request: &HttpRequest,
    method: HttpMethod,
    url: &HttpUrl,
) -> bool {
    grants.iter().any(|grant| {
        grant.methods.contains(&method)
            && grant.covers(url)
            && request.secrets().all(|name| grant.has_secret(name))
    })
}

fn nothing() -> Denied {
    Denied("http.send is not granted: the policy grants nothing of http".to_owned())
}

fn elsewhere<T: fmt::Display>(place: &HttpPlace, urls: impl IntoIterator<Item = T>) -> Denied {
    let place = match place {
        HttpPlace::Url(_) => shown(&place.summary()),
        HttpPlace::Secret(name) => format!("the URL that the secret {} holds", shown(name)),
    };
    Denied(format!(
        "http.send to {place} is not granted: the policy grants the URLs {}",
        list(urls)
    ))
}

fn unknown_secret(name: &str, secrets: &[impl fmt::Display]) -> Denied {
    let granted = if secrets.is_empty() {
        "no secrets".to_owned()
    } else {
        format!("the secrets {}", list(secrets))
    };
    Denied(format!(
        "http.send with the secret {} is not granted: the policy grants {granted}",
        shown(name)
    ))
}

/// A pattern for URLs: `https://api.example.com/v2/**`.
///
/// Scheme, host and port have to be the same; `*.` at the beginning of the host stands
/// for one more label, as in certificates. The path is a [`Glob`]. A query is no part of
/// it: any is granted.
#[derive(Debug, Clone, SerializeDisplay, DeserializeFromStr)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::Grants;
    use crate::http::{Blob, HttpHeader};

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
            answers: false,
        }
    }

    #[test]
    fn answers_to_secrets_are_told_where_the_same_grant_says_so() {
        let telling = HttpGrant {
            answers: true,
            ..grant(&["api-*"])
        };
        let elsewhere = HttpGrant {
            urls: vec!["https://other/**".parse().unwrap()],
            answers: true,
            ..grant(&["page-key"])
        };
        let grants = [grant(&["page-key"]), telling, elsewhere];
        let shows = |url: &str, value: &str| {
            let request = request(HttpMethod::Get, url, value);
            shows_answer(&grants, &request, &url.parse().unwrap())
        };
        assert!(shows("https://h/a/b", "nothing secret"));
        assert!(shows("https://h/a/b", "secret://api-key"));
        assert!(!shows("https://h/a/b", "secret://page-key"));
        assert!(shows("https://other/b", "secret://page-key"));
        assert!(!shows("https://other/b", "secret://api-key"));
    }

    fn request(method: HttpMethod, url: &str, value: &str) -> HttpRequest {
        HttpRequest {
            method,
            url: url.parse().unwrap(),
            headers: vec![HttpHeader {
                name: "Authorization".to_owned(),
                value: value.to_owned(),
            }],
            body: Blob::default(),
            secret_fields: Vec::new(),
            timeout_ms: None,
        }
    }

    /// Asked as the gate asks; `held` is what the secret `chat-url` holds.
    fn ask(grants: &[HttpGrant], request: &HttpRequest, held: &str) -> Result<(), String> {
        let grants = Grants {
            http: grants.to_vec(),
            ..Grants::default()
        };
        let url = match &request.url {
            HttpPlace::Url(url) => url.clone(),
            HttpPlace::Secret(name) => {
                let allowed = grants.allows_http_secret(name);
                allowed.map_err(|denied| denied.to_string())?;
                held.parse().unwrap()
            }
        };
        let allowed = grants.allows_http(request, &url);
        allowed.map_err(|denied| denied.to_string())
    }

    #[test]
    fn a_denial_says_what_is_granted_and_no_query() {
        let (get, delete) = (HttpMethod::Get, HttpMethod::Delete);
        let ask = |grant: HttpGrant, request: HttpRequest| ask(&[grant], &request, "");
        assert_eq!(ask(grant(&[]), request(get, "https://h/a/b", "x")), Ok(()));
        assert_eq!(
            ask(grant(&[]), request(delete, "https://h/a/b", "x")).unwrap_err(),
            "http.send by DELETE is not granted: the policy grants the methods GET, POST"
        );
        assert_eq!(
            ask(grant(&[]), request(get, "https://h/b?token=s3cret", "x")).unwrap_err(),
            "http.send to `https://h/b` is not granted: the policy grants the URLs https://h/a/**"
        );
        let with_secret = || request(get, "https://h/a/b", "secret://page-key");
        assert_eq!(
            ask(grant(&[]), with_secret()).unwrap_err(),
            "http.send with the secret `page-key` is not granted: the policy grants no secrets"
        );
        assert_eq!(
            ask(grant(&["chat-*"]), with_secret()).unwrap_err(),
            "http.send with the secret `page-key` is not granted: the policy grants the secrets chat-*"
        );
        assert_eq!(ask(grant(&["page-*"]), with_secret()), Ok(()));
        let nothing = super::super::Grants::default();
        let url = "https://h/".parse().unwrap();
        assert_eq!(
            nothing
                .allows_http(&with_secret(), &url)
                .unwrap_err()
                .to_string(),
            "http.send is not granted: the policy grants nothing of http"
        );
    }

    #[test]
    fn a_secret_url_is_granted_like_any_other_and_never_told() {
        let post = || request(HttpMethod::Post, "secret://chat-url", "x");
        let granted = &[grant(&["chat-*"])];
        assert_eq!(ask(granted, &post(), "https://h/a/T0/s3cret"), Ok(()));
        assert_eq!(
            ask(granted, &post(), "https://h/b/s3cret").unwrap_err(),
            "http.send to the URL that the secret `chat-url` holds is not granted: the policy grants the URLs https://h/a/**"
        );
        // Whether there is such a secret is nobody's business who may not use it.
        assert_eq!(
            ask(&[grant(&["page-key"])], &post(), "no URL").unwrap_err(),
            "http.send with the secret `chat-url` is not granted: the policy grants the secrets page-key"
        );
    }

    #[test]
    fn a_secret_goes_only_where_its_own_grant_lets_it() {
        let elsewhere = HttpGrant {
            urls: vec!["https://other/**".parse().unwrap()],
            ..grant(&[])
        };
        let grants = [grant(&["page-*"]), elsewhere];
        let with_secret = |url: &str| request(HttpMethod::Get, url, "secret://page-key");
        assert_eq!(ask(&grants, &with_secret("https://h/a/b"), ""), Ok(()));
        let plain = request(HttpMethod::Get, "https://other/b", "x");
        assert_eq!(ask(&grants, &plain, ""), Ok(()));
        assert_eq!(
            ask(&grants, &with_secret("https://other/b"), "").unwrap_err(),
            "http.send with the secret `page-key` is not granted: the policy grants no secrets"
        );
        assert_eq!(
            ask(&grants, &with_secret("https://third/b"), "").unwrap_err(),
            "http.send to `https://third/b` is not granted: the policy grants the URLs https://h/a/**, https://other/**"
        );
        // Nor does a redirect take it there.
        let grants = Grants {
            http: grants.to_vec(),
            ..Grants::default()
        };
        let follows = |request: &HttpRequest, url: &str| {
            grants.allows_http_redirect(request, HttpMethod::Get, &url.parse().unwrap())
        };
        assert!(follows(&with_secret("https://h/a/b"), "https://h/a/c"));
        assert!(!follows(&with_secret("https://h/a/b"), "https://other/c"));
        assert!(follows(&plain, "https://other/c"));
        assert!(!follows(&plain, "https://third/c"));
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
