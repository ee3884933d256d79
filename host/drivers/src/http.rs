//! HTTP on behalf of plugins.
//!
//! What a plugin may ask for is the gate's to decide, by the URL. That says nothing of
//! where the host's name leads, which others decide, so the addresses are looked at
//! here, by the resolver that the connection itself uses: what was looked at is what is
//! connected to, and a name that changes in between changes nothing. A name must not
//! lead to this machine or to the link that it is on, where the metadata of clouds is
//! served. An address that is granted as such is meant.
//!
//! Secrets are filled into headers and texts of JSON, or are the whole URL, and are taken
//! out again wherever an answer repeats them. They are sent to the origin that was asked
//! for, and to no other that it redirects to.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, LOCATION, PROXY_AUTHORIZATION,
};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, StatusCode};
use sentinel_core::capability::CapabilityError;
use sentinel_core::http::{
    BODY_LIMIT, Blob, HEADER_LIMIT, HttpHeader, HttpMethod, HttpPlace, HttpRequest, HttpResponse,
    HttpUrl, header_size, is_secret_name,
};
use sentinel_sandbox::driver::{HttpDriver, MayFollow};
use serde_json::Value;

use crate::client::{self, chain};
use crate::redact::{Redactor, TAKEN_OUT};

/// How long a request may take that does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long making the connection may take of that.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many redirects are followed.
const REDIRECTS: usize = 5;

/// How much more of a body is read than is told, so that what is taken out of it leaves the
/// rest whole.
const BEYOND: usize = 4 << 10;

/// How long a part of a secret URL has to be to count as a secret of its own.
const TELLING: usize = 12;

/// Headers that say how a message is carried or to whom: they are the client's.
const OURS: [&str; 10] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
];

/// What is wrong with a secret in the configuration, or with the machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpConfigError {
    /// The name cannot stand behind `secret://`.
    #[error("secret name {0:?} is not letters, digits, '_', '.' and '-'")]
    Name(String),
    /// The value cannot stand in a header.
    #[error("secret {0} is empty, or holds a line break or another control character")]
    Value(String),
    /// The client could not be made.
    #[error("no HTTP client: {0}")]
    Client(String),
}

/// What is never shown.
#[derive(Clone)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TAKEN_OUT)
    }
}

/// Sends requests for plugins.
#[derive(Debug)]
pub struct Http {
    client: Client,
    secrets: BTreeMap<String, Secret>,
}

impl Http {
    /// Takes the secrets by name.
    pub fn new(secrets: BTreeMap<String, String>) -> Result<Self, HttpConfigError> {
        Self::with_lookup(secrets, &(Arc::new(SystemLookup) as Arc<dyn Lookup>))
    }

    fn with_lookup(
        secrets: BTreeMap<String, String>,
        lookup: &Arc<dyn Lookup>,
    ) -> Result<Self, HttpConfigError> {
        let secrets = secrets
            .into_iter()
            .map(|(name, value)| {
                if !is_secret_name(&name) {
                    return Err(HttpConfigError::Name(name));
                }
                if value.is_empty() || HeaderValue::from_str(&value).is_err() {
                    return Err(HttpConfigError::Value(name));
                }
                Ok((name, Secret(value)))
            })
            .collect::<Result<_, _>>()?;
        let client = client::build(|builder| {
            builder
                .connect_timeout(CONNECT_TIMEOUT)
                // Each request looks up and connects anew, so that none goes out on a
                // connection that is about to break.
                .pool_max_idle_per_host(0)
                .redirect(Policy::none())
                .referer(false)
                .dns_resolver(Checked::new(Arc::clone(lookup), true))
        })
        .map_err(HttpConfigError::Client)?;
        Ok(Self { client, secrets })
    }

    fn secret(&self, name: &str) -> Result<&str, CapabilityError> {
        self.secrets
            .get(name)
            .map(|secret| secret.0.as_str())
            .ok_or_else(|| {
                CapabilityError::Invalid(format!("no secret {} is configured", shown(name)))
            })
    }

    async fn exchange(
        &self,
        request: &HttpRequest,
        may_follow: &MayFollow,
    ) -> Result<HttpResponse, CapabilityError> {
        let mut hop = self.first_hop(request)?;
        for followed in 0.. {
            let sent = self
                .client
                .request(method(hop.method), hop.url.as_url().clone())
                .headers(hop.headers.clone())
                .body(hop.body.clone())
                .send();
            let answer = sent.await.map_err(|error| explain(error, request.method))?;
            match hop.redirected(&answer) {
                Some(next) if followed < REDIRECTS && may_follow(next.method, &next.url) => {
                    hop = next;
                }
                _ => return hop.take(answer, request.method).await,
            }
        }
        Err(CapabilityError::Failed("redirects without end".to_owned()))
    }

    fn first_hop(&self, request: &HttpRequest) -> Result<Hop, CapabilityError> {
        let invalid = |text: String| CapabilityError::Invalid(text);
        if request.body.0.len() > BODY_LIMIT {
            return Err(invalid(format!(
                "the body is larger than {} KiB",
                BODY_LIMIT >> 10
            )));
        }
        if header_size(&request.headers) > HEADER_LIMIT {
            return Err(invalid(format!(
                "the headers are larger than {} KiB",
                HEADER_LIMIT >> 10
            )));
        }
        let mut headers = HeaderMap::new();
        let mut secrets = Vec::new();
        let url = match &request.url {
            HttpPlace::Url(url) => url.clone(),
            HttpPlace::Secret(name) => {
                let url = self.url_of(name)?;
                secrets.extend(telling(self.secret(name)?, &url));
                url
            }
        };
        for header in &request.headers {
            let name = HeaderName::from_bytes(header.name.as_bytes())
                .map_err(|_| invalid(format!("{} is no header name", shown(&header.name))))?;
            if OURS.contains(&name.as_str()) {
                return Err(invalid(format!("the header {name} is the host's to set")));
            }
            if header.misplaces_secret() {
                return Err(invalid(format!(
                    "the header {name} names a secret among other text; a secret is the whole value"
                )));
            }
            let value = match header.secret() {
                Some(secret) => {
                    let secret = self.secret(secret)?;
                    secrets.push(secret.to_owned());
                    secret
                }
                None => header.value.as_str(),
            };
            let mut value = HeaderValue::from_str(value).map_err(|_| {
                invalid(format!(
                    "the header {name} holds a line break or another control character"
                ))
            })?;
            value.set_sensitive(header.secret().is_some());
            headers.append(name, value);
        }
        let body = self.filled_in(request, &mut secrets)?;
        Ok(Hop {
            method: request.method,
            url,
            headers,
            body,
            private_body: !request.secret_fields.is_empty(),
            secrets,
        })
    }

    /// The body with its secrets, which are noted down in `secrets`.
    fn filled_in(
        &self,
        request: &HttpRequest,
        secrets: &mut Vec<String>,
    ) -> Result<Vec<u8>, CapabilityError> {
        if request.secret_fields.is_empty() {
            return Ok(request.body.0.clone());
        }
        let invalid = |text: String| CapabilityError::Invalid(text);
        let mut body: Value = serde_json::from_slice(&request.body.0)
            .map_err(|error| invalid(format!("the body is no JSON to fill in: {error}")))?;
        for field in &request.secret_fields {
            let Some(Value::String(text)) = body.pointer_mut(&field.pointer) else {
                return Err(invalid(format!(
                    "the body has no text at {} to fill in",
                    shown(&field.pointer)
                )));
            };
            let secret = self.secret(&field.secret)?;
            secret.clone_into(text);
            secrets.push(secret.to_owned());
        }
        serde_json::to_vec(&body).map_err(|error| invalid(error.to_string()))
    }
}

#[async_trait]
impl HttpDriver for Http {
    fn url_of(&self, secret: &str) -> Result<HttpUrl, CapabilityError> {
        // Why it is none could tell of it.
        self.secret(secret)?.parse().map_err(|_| {
            CapabilityError::Invalid(format!(
                "the secret {} is no http or https URL to send to",
                shown(secret)
            ))
        })
    }

    async fn send(
        &self,
        request: &HttpRequest,
        may_follow: &MayFollow,
        timeout: Duration,
    ) -> Result<HttpResponse, CapabilityError> {
        let asked = request
            .timeout_ms
            .map_or(DEFAULT_TIMEOUT, Duration::from_millis);
        let bound = asked.min(timeout);
        match tokio::time::timeout(bound, self.exchange(request, may_follow)).await {
            Ok(answer) => answer,
            Err(_) => Err(CapabilityError::TimedOut(format!(
                "no whole answer within {bound:?}{}",
                doubt(request.method)
            ))),
        }
    }
}

/// One request as it goes out.
#[derive(Debug)]
struct Hop {
    method: HttpMethod,
    url: HttpUrl,
    headers: HeaderMap,
    body: Vec<u8>,
    /// Whether the body holds a secret.
    private_body: bool,
    /// The secrets that any hop so far has sent.
    secrets: Vec<String>,
}

impl Hop {
    /// The next request, if the answer is a redirect to where one can be sent.
    fn redirected(&self, answer: &reqwest::Response) -> Option<Self> {
        let keeps_method = match answer.status() {
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method != HttpMethod::Post,
            StatusCode::SEE_OTHER => self.method == HttpMethod::Head,
            _ => return None,
        };
        let location = answer.headers().get(LOCATION)?.to_str().ok()?;
        let url = self.url.join(location).ok()?;
        let mut headers = self.headers.clone();
        if url.as_url().origin() != self.url.as_url().origin() {
            if self.private_body && keeps_method {
                return None;
            }
            let private: Vec<HeaderName> = headers
                .iter()
                .filter(|(name, value)| {
                    value.is_sensitive()
                        || [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(name)
                })
                .map(|(name, _)| name.clone())
                .collect();
            for name in private {
                headers.remove(name);
            }
        }
        let (method, body) = if keeps_method {
            (self.method, self.body.clone())
        } else {
            headers.remove(reqwest::header::CONTENT_TYPE);
            (HttpMethod::Get, Vec::new())
        };
        Some(Self {
            method,
            url,
            headers,
            body,
            private_body: self.private_body && keeps_method,
            secrets: self.secrets.clone(),
        })
    }

    /// The answer as the plugin sees it.
    async fn take(
        &self,
        mut answer: reqwest::Response,
        asked: HttpMethod,
    ) -> Result<HttpResponse, CapabilityError> {
        let status = answer.status().as_u16();
        let redactor = Redactor::new(self.secrets.iter().map(String::as_str));
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| HttpHeader {
                name: redactor.text(name.as_str()),
                value: redactor.text(&String::from_utf8_lossy(value.as_bytes())),
            })
            .collect();
        let mut body = Vec::new();
        let mut truncated = false;
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| explain(error, asked))?
        {
            body.extend_from_slice(&chunk);
            if body.len() > BODY_LIMIT + BEYOND {
                truncated = true;
                break;
            }
        }
        // A large one takes a while.
        let mut body = tokio::task::spawn_blocking(move || redactor.bytes(&body, truncated))
            .await
            .map_err(|error| CapabilityError::Failed(error.to_string()))?;
        truncated |= body.len() > BODY_LIMIT;
        body.truncate(BODY_LIMIT);
        Ok(HttpResponse {
            status,
            headers,
            body: Blob(body),
            truncated,
        })
    }
}

/// What an answer must not repeat of the URL that `secret` is: the whole, however it is
/// written, what follows its host, and each part of that which is long enough to be one
/// that somebody made up.
fn telling(secret: &str, url: &HttpUrl) -> Vec<String> {
    let url = url.as_url();
    let query = url.query().unwrap_or_default();
    let behind = match query {
        "" => url.path().to_owned(),
        query => format!("{}?{query}", url.path()),
    };
    let parts = url.path().split('/').chain(query.split(['&', '=']));
    let mut telling = vec![secret.to_owned(), url.as_str().to_owned()];
    telling.extend(
        std::iter::once(behind.as_str())
            .chain(parts)
            .filter(|part| part.len() >= TELLING)
            .map(str::to_owned),
    );
    telling
}

fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Head => Method::HEAD,
        HttpMethod::Options => Method::OPTIONS,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
    }
}

/// What a missing answer means.
fn doubt(method: HttpMethod) -> &'static str {
    if method.is_effect() {
        "; it may have been done all the same"
    } else {
        ""
    }
}

fn explain(error: reqwest::Error, asked: HttpMethod) -> CapabilityError {
    let error = error.without_url();
    let refused = std::iter::successors(error.source(), |&error| error.source())
        .find_map(|error| error.downcast_ref::<Forbidden>());
    if let Some(refused) = refused {
        return CapabilityError::Denied(refused.to_string());
    }
    let text = chain(&error);
    if error.is_builder() {
        CapabilityError::Invalid(text)
    } else if asked.is_effect() && !error.is_connect() {
        CapabilityError::TimedOut(format!("the connection broke: {text}{}", doubt(asked)))
    } else {
        CapabilityError::Unavailable(text)
    }
}

/// What a plugin gave, fit for a message about it.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(128).collect();
    format!("{short:?}")
}

/// A name leads only to where no name may lead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{host} leads to {address}, which a name must not lead to: this machine, its link, or no one \
     host; if it is meant, grant the address itself"
)]
pub(crate) struct Forbidden {
    host: String,
    address: IpAddr,
}

/// A name has no address here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} has no address here: {reason}")]
pub(crate) struct NoAddress {
    host: String,
    reason: String,
}

/// Finds the addresses of a name.
pub(crate) trait Lookup: Send + Sync {
    fn lookup(&self, host: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>>;
}

/// As the machine is set up.
pub(crate) struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Gives a connection only addresses that it may be made to.
pub(crate) struct Checked {
    lookup: Arc<dyn Lookup>,
    /// Whether it looks at them; else any will do.
    checks: bool,
}

impl Checked {
    pub(crate) fn new(lookup: Arc<dyn Lookup>, checks: bool) -> Self {
        Self { lookup, checks }
    }
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let found = self.lookup.lookup(host.clone());
        let checks = self.checks;
        Box::pin(async move {
            let none = |reason: String| NoAddress {
                host: host.clone(),
                reason,
            };
            let found = found.await.map_err(|error| none(error.to_string()))?;
            if found.is_empty() {
                return Err(none("the answer is empty".to_owned()).into());
            }
            let (allowed, refused): (Vec<IpAddr>, Vec<IpAddr>) = found
                .into_iter()
                .partition(|address| !checks || may_lead_to(&host, *address));
            match refused.first() {
                Some(address) if allowed.is_empty() => Err(Box::new(Forbidden {
                    host,
                    address: *address,
                })
                    as Box<dyn StdError + Send + Sync>),
                _ => {
                    let addresses = allowed.into_iter().map(|ip| SocketAddr::new(ip, 0));
                    Ok(Box::new(addresses) as Addrs)
                }
            }
        })
    }
}

/// Whether a name may lead to an address.
pub(crate) fn may_lead_to(host: &str, address: IpAddr) -> bool {
    let host = host.trim_end_matches('.');
    let is_local = host == "localhost" || host.ends_with(".localhost");
    match address.to_canonical() {
        address if address.is_loopback() => is_local,
        address if is_own(address) => is_local,
        IpAddr::V4(v4) => {
            let octets = v4.octets();
            // This network, what no protocol uses, and what is reserved.
            let unusable = matches!(octets, [0 | 240..=255, ..] | [192, 0, 0, _]);
            // Where clouds keep metadata beside the link's 169.254.169.254.
            let metadata = matches!(octets, [100, 100, 100, 200] | [168, 63, 129, 16]);
            !(unusable || metadata || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            // AWS, and Google.
            let metadata = matches!(
                segments,
                [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
            );
            // A translator of the site's own turns it into any IPv4 address.
            let translated = matches!(segments, [0x64, 0xff9b, 1, ..]);
            let mut within = embedded(v6);
            !(metadata
                || translated
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || within.any(|v4| !may_lead_to(host, v4)))
        }
    }
}

/// The IPv4 addresses that such an address leads to: by a translator (NAT64,
/// `64:ff9b::/96`), by 6to4, by Teredo (its server, and its client), or in the old way of
/// writing one in the other.
fn embedded(v6: Ipv6Addr) -> impl Iterator<Item = IpAddr> {
    let (first, second) = match v6.octets() {
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        | [0x20, 0x02, a, b, c, d, ..] => (Some([a, b, c, d]), None),
        [0x20, 0x01, 0, 0, a, b, c, d, _, _, _, _, client @ ..] => {
            (Some([a, b, c, d]), Some(client.map(|byte| !byte)))
        }
        _ => (None, None),
    };
    first.into_iter().chain(second).map(IpAddr::from)
}

/// Whether an address is one of this machine's own: only to those can a socket be bound.
/// Where the system lets sockets be bound to any address, it cannot be told in this way, and
/// none is taken for its own.
fn is_own(address: IpAddr) -> bool {
    /// Is for documentation, and nobody's own.
    const NOBODYS: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ];
    let binds = |address: IpAddr| std::net::UdpSocket::bind((address, 0)).is_ok();
    let nobodys = NOBODYS
        .into_iter()
        .find(|nobodys| nobodys.is_ipv4() == address.is_ipv4());
    !address.is_unspecified()
        && !address.is_multicast()
        && binds(address)
        && !nobodys.is_some_and(binds)
}

#[cfg(test)]
mod tests;
