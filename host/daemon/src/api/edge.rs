//! What stands before every route: who is called by which name, what a page in a browser may send, how much one request
//! may take, and what every answer says of itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::sync::Semaphore;
use url::Host;

use super::given::{is_json, no_json, pour, shown};
use super::held::held;
use super::operate::Refused;
use crate::config::{Authority, Config, is_loopback};
use crate::reconfigure::Running;
use crate::telemetry::metrics::Metrics;

/// How long a request may take. Deliveries and plugins have times of their own.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long the checks of a plugin may take, beside its way here.
const INSTALL_DEADLINE: Duration = Duration::from_mins(15);

/// How long a path with its query may be.
const TARGET: usize = 8 << 10;

/// What a route takes, and so what holds for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing; answered whatever else is under way, for it is asked whether the daemon lives.
    Probe,
    /// Nothing but a path and a query.
    Nothing,
    /// A JSON object of at most 64 KiB.
    Json,
    /// A plugin.
    Plugin,
    /// Alerts, in this source's form: intake bounds them itself.
    Alerts(&'static str),
}

/// The bounds of all requests together, and what the middleware needs to know.
#[derive(Debug)]
pub(super) struct Edge {
    hosts: Hosts,
    metrics: Arc<Metrics>,
    config: Running,
    /// Requests that are no deliveries: they leave connections for those.
    others: Arc<Semaphore>,
}

impl Edge {
    pub(super) fn new(config: &Running, connections: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            hosts: Hosts::of(&config.load()),
            metrics,
            config: config.clone(),
            others: Arc::new(Semaphore::new((connections / 2).max(1))),
        }
    }

    /// Answers a request that came over a connection.
    pub(super) async fn answer(&self, router: Router, mut request: Request) -> Response {
        if let Some(path) = one_slash(request.uri()) {
            *request.uri_mut() = path;
        }
        let answer = match self.admit(&request) {
            Ok(()) => match TowerToHyperService::new(router).call(request).await {
                Ok(answer) => answer,
                Err(never) => match never {},
            },
            Err((reason, refused)) => {
                self.missed(&request, "none", reason, &refused.1);
                self.pour(request.into_body()).await;
                refused.into_response()
            }
        };
        let mut answer = in_json(answer).await;
        let headers = answer.headers_mut();
        for (name, value) in SAID {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        answer
    }

    /// Reads what is not wanted for a while, unless others need the place.
    async fn pour(&self, body: Body) {
        if let Ok(_place) = self.others.try_acquire() {
            pour(body).await;
        }
    }

    /// Whether a request gets as far as a route; if not, why, as one word for the metric and as an answer.
    fn admit(&self, request: &Request) -> Result<(), (&'static str, Refused)> {
        let target = request.uri().path_and_query();
        if target.is_some_and(|target| target.as_str().len() > TARGET) {
            let refused = Refused(
                StatusCode::URI_TOO_LONG,
                format!("a path and its query are at most {TARGET} bytes"),
            );
            return Err(("too-large", refused));
        }
        let called = self.called(request).map_err(|refused| ("host", refused))?;
        if !request.method().is_safe() {
            self.same_site(request.headers(), called.as_ref())
                .map_err(|refused| ("cross-site", refused))?;
        }
        Ok(())
    }

    /// What the request calls the daemon, which it has to know. No browser leaves that out.
    fn called(&self, request: &Request) -> Result<Option<Authority>, Refused> {
        let mut named = request.headers().get_all(header::HOST).iter();
        let host = match (named.next(), named.next()) {
            (Some(host), None) => Some(String::from_utf8_lossy(host.as_bytes()).into_owned()),
            (None, _) if request.version() < Version::HTTP_11 => None,
            (None, _) => return Err(Refused::bad("the request names no Host")),
            (Some(_), Some(_)) => return Err(Refused::bad("the request names two Hosts")),
        };
        let authority = request.uri().authority();
        let authority = authority.map(|authority| authority.as_str().to_owned());
        let mut called = None;
        for name in host.into_iter().chain(authority) {
            match name.parse::<Authority>() {
                Ok(name) if self.hosts.know(&name) => called = Some(name),
                _ => {
                    return Err(Refused(
                        StatusCode::MISDIRECTED_REQUEST,
                        format!(
                            "sentinel is not called `{}` here; if it should be, add that to `allowed_hosts` in its configuration (SENTINEL_ALLOWED_HOSTS)",
                            shown(&name)
                        ),
                    ));
                }
            }
        }
        Ok(called)
    }

    /// Refuses what a browser sends for a page of another site. What is no browser sends neither header.
    fn same_site(&self, headers: &HeaderMap, called: Option<&Authority>) -> Result<(), Refused> {
        let refused = |what: &str| {
            Refused(
                StatusCode::FORBIDDEN,
                format!(
                    "this came from a page of another site ({what}), which may change nothing here"
                ),
            )
        };
        for site in headers.get_all("sec-fetch-site") {
            if !matches!(site.as_bytes(), b"same-origin" | b"none") {
                return Err(refused("Sec-Fetch-Site"));
            }
        }
        for origin in headers.get_all(header::ORIGIN) {
            let own = origin
                .to_str()
                .ok()
                .and_then(|origin| origin.split_once("://"))
                .and_then(|(scheme, authority)| {
                    let usual = match scheme {
                        "http" => 80,
                        "https" => 443,
                        _ => return None,
                    };
                    let with_port = |authority: &Authority| {
                        (authority.host.clone(), authority.port.unwrap_or(usual))
                    };
                    let origin: Authority = authority.parse().ok()?;
                    let same = called.is_some_and(|called| with_port(called) == with_port(&origin));
                    // A proxy may have called it by a name of its own.
                    Some(same || self.hosts.names(&origin))
                });
            if own != Some(true) {
                return Err(refused("Origin"));
            }
        }
        Ok(())
    }

    /// Tells the operator of a request that did not get to a route: a sender that goes wrong is not seen otherwise.
    pub(super) fn missed(&self, request: &Request, source: &str, reason: &str, why: &str) {
        let method = request.method();
        let delivers = matches!(*method, Method::POST | Method::PUT);
        self.metrics.request_refused(
            delivers.then_some(source),
            reason,
            method.as_str(),
            &shown(request.uri().path()),
            why,
        );
    }
}

/// What every answer says of itself: it is no page, for no other page, and nothing in it is to be kept or run.
const SAID: [(&str, &str); 5] = [
    ("x-content-type-options", "nosniff"),
    (
        "content-security-policy",
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
];

/// The same with single slashes only and none at the end, if it is something else then: nobody who writes a URL means
/// two, and a redirect would turn a sender's POST into a GET.
fn one_slash(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains("//") && (path.len() <= 1 || !path.ends_with('/')) {
        return None;
    }
    let mut clean = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        clean.push('/');
        clean.push_str(segment);
    }
    if clean.is_empty() {
        clean.push('/');
    }
    if let Some(query) = uri.query() {
        clean.push('?');
        clean.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(clean.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// An error as JSON, whoever made it.
async fn in_json(answer: Response) -> Response {
    let status = answer.status();
    let is_text = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_none_or(|said| said.as_bytes().starts_with(b"text/plain"));
    if !(status.is_client_error() || status.is_server_error()) || !is_text {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let said = axum::body::to_bytes(body, TARGET).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let said = if said.is_empty() {
        status
            .canonical_reason()
            .unwrap_or("refused")
            .to_lowercase()
    } else {
        said.into_owned()
    };
    let body = Json(json!({ "error": said })).into_response();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(body.headers().clone());
    Response::from_parts(parts, body.into_body())
}

/// By which names the daemon answers. A page that leads its own name to this machine, to be of one site with the
/// daemon, calls it by that name.
#[derive(Debug)]
struct Hosts {
    /// The address that it listens on; none when it listens on all of them.
    listen: Option<IpAddr>,
    names: Vec<Authority>,
}

impl Hosts {
    fn of(config: &Config) -> Self {
        let listen = config.listen.ip().to_canonical();
        Self {
            listen: (!listen.is_unspecified()).then_some(listen),
            names: config.allowed_hosts.clone(),
        }
    }

    fn know(&self, called: &Authority) -> bool {
        let own = match &called.host {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(_) | Host::Ipv6(_) => called.address().is_some_and(|address| {
                // Which addresses lead here is not known where it listens on all, and no name can stand for one.
                is_loopback(address) || self.listen.is_none_or(|own| own == address.to_canonical())
            }),
        };
        own || self.names(called)
    }

    /// Whether it is one of those that the configuration names.
    fn names(&self, called: &Authority) -> bool {
        self.names.iter().any(|name| {
            name.host == called.host && (name.port.is_none() || name.port == called.port)
        })
    }
}

/// A route with its bounds.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub(super) takes: Takes,
    pub(super) edge: Arc<Edge>,
}

impl Bounds {
    /// How long it may take to be answered.
    fn deadline(&self) -> Duration {
        match self.takes {
            Takes::Probe | Takes::Nothing | Takes::Json => DEADLINE,
            Takes::Plugin => INSTALL_DEADLINE,
            // A body that is too large is read on as long again.
            Takes::Alerts(_) => self.edge.config.load().limits.intake.body_timeout * 2 + DEADLINE,
        }
    }
}

/// Holds a request to the bounds of its route.
pub(super) async fn bounded(
    State(bounds): State<Bounds>,
    request: Request,
    next: Next,
) -> Response {
    let edge = &bounds.edge;
    let said = is_json(request.headers());
    let is_json = match bounds.takes {
        // What has no type cannot have come from a form; scripts that leave it out have always been understood.
        Takes::Alerts("alertmanager") => said != Some(false),
        Takes::Json | Takes::Alerts(_) => said == Some(true),
        Takes::Probe | Takes::Nothing | Takes::Plugin => true,
    };
    if !is_json {
        let refused = no_json(request.headers());
        if let Takes::Alerts(source) = bounds.takes {
            edge.missed(&request, source, "no-json", &refused.1);
        }
        edge.pour(request.into_body()).await;
        return refused.into_response();
    }
    let place = match bounds.takes {
        Takes::Probe | Takes::Alerts(_) => None,
        Takes::Nothing | Takes::Json | Takes::Plugin => {
            match edge.others.clone().try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => {
                    return Refused(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "too many requests at once, come again".to_owned(),
                    )
                    .into_response();
                }
            }
        }
    };
    let deadline = bounds.deadline();
    match tokio::time::timeout(deadline, next.run(request)).await {
        Ok(answer) => held(answer, place),
        Err(_) => Refused(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not answered within {deadline:?}; what was asked for may still be done"),
        )
        .into_response(),
    }
}

/// Answers where nothing is.
pub(super) async fn not_found(edge: Arc<Edge>, request: Request) -> Response {
    let path = request.uri().path();
    let hint = hint(path);
    let error = format!("there is nothing at {}; {hint}", shown(path));
    if !request.method().is_safe() {
        edge.missed(&request, "none", "no-such-path", &hint);
    }
    edge.pour(request.into_body()).await;
    Refused(StatusCode::NOT_FOUND, error).into_response()
}

/// Answers where something else can be done.
pub(super) async fn not_allowed(edge: Arc<Edge>, request: Request) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let path = path.map_or_else(|| request.uri().path(), MatchedPath::as_str);
    let error = format!(
        "{} is not for {}",
        shown(path),
        shown(request.method().as_str())
    );
    if !request.method().is_safe() {
        edge.missed(&request, "none", "no-such-path", &error);
    }
    edge.pour(request.into_body()).await;
    Refused(StatusCode::METHOD_NOT_ALLOWED, error).into_response()
}

/// Where alerts go, said to who has sent them, or something else, elsewhere.
fn hint(path: &str) -> String {
    const WEBHOOK: &str = "/api/v1/alerts/alertmanager";
    const ALERTS: &str = "/api/v2/alerts";
    for door in [WEBHOOK, ALERTS] {
        if let Some(prefix) = path.strip_suffix(door)
            && !prefix.is_empty()
        {
            return format!(
                "alerts of this form go to {door}: take the prefix {} out of the sender's address (Prometheus has it in `path_prefix`)",
                shown(prefix)
            );
        }
    }
    if path.ends_with("/api/v1/alerts") {
        return format!(
            "that was the path of Alertmanager's API v1: its API v2 is at {ALERTS} (Prometheus: `api_version: v2`), and its webhook goes to {WEBHOOK}"
        );
    }
    format!("alerts go to {WEBHOOK} (webhook) or {ALERTS}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listen: &str, names: &[&str]) -> Hosts {
        let listen: IpAddr = listen.parse().unwrap();
        Hosts {
            listen: (!listen.is_unspecified()).then_some(listen),
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_name_that_is_not_its_own_is_not_known() {
        let know =
            |hosts: &Hosts, name: &str| name.parse().is_ok_and(|name: Authority| hosts.know(&name));
        let own = hosts("127.0.0.1", &[]);
        for name in [
            "localhost:9095",
            "LOCALHOST",
            "localhost.",
            "127.0.0.1",
            "127.0.0.2:1",
            "[::1]:9095",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(know(&own, name), "{name}");
        }
        for name in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "10.0.0.5",
            "0.0.0.0:9095",
            "[2001:db8::1]",
            "",
            "a@localhost",
            "localhost:x",
            "localhost/",
            "ⅼocalhost",
        ] {
            assert!(!know(&own, name), "{name}");
        }
        let lan = hosts("10.0.0.5", &["sentinel:9095", "sentinel.example.com"]);
        for name in [
            "10.0.0.5:9095",
            "sentinel:9095",
            "Sentinel.Example.com:443",
            "sentinel.example.com",
        ] {
            assert!(know(&lan, name), "{name}");
        }
        for name in [
            "10.0.0.6",
            "sentinel",
            "sentinel:80",
            "x.sentinel.example.com",
        ] {
            assert!(!know(&lan, name), "{name}");
        }
        let all = hosts("0.0.0.0", &[]);
        assert!(know(&all, "10.0.0.5:9095") && know(&all, "[2001:db8::1]"));
        assert!(!know(&all, "sentinel"));
    }

    #[test]
    fn slashes_too_many_are_one_and_nothing_else_is_changed() {
        for (from, to) in [
            ("//api/v2/alerts", Some("/api/v2/alerts")),
            ("/api///v2/alerts//", Some("/api/v2/alerts")),
            ("/api/v2/alerts/?a=//", Some("/api/v2/alerts?a=//")),
            ("//", Some("/")),
            ("/", None),
            ("/api/v2/alerts", None),
            ("/a/%2F/b", None),
            ("/a?b=//", None),
        ] {
            let uri = Uri::builder().path_and_query(from).build().unwrap();
            let clean = one_slash(&uri);
            assert_eq!(clean.map(|uri| uri.to_string()).as_deref(), to, "{from}");
        }
    }

    #[test]
    fn who_sends_elsewhere_is_told_where() {
        assert!(hint("/alertmanager/api/v2/alerts").contains("prefix /alertmanager"));
        assert!(hint("/x/api/v1/alerts/alertmanager").contains("prefix /x"));
        assert!(hint("/api/v1/alerts").contains("api_version: v2"));
        assert!(hint("/am/api/v1/alerts").contains("api_version: v2"));
        assert!(hint("/").contains("/api/v1/alerts/alertmanager"));
    }
}
