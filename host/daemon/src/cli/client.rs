//! Asks a running daemon.

use std::error::Error as _;
use std::net::IpAddr;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::output::{Failure, harmless};
use crate::config::Config;

/// The address of a daemon, as it is typed.
pub(super) fn address(typed: &str) -> Result<Url, String> {
    const EXPECTED: &str = "expected an address such as http://127.0.0.1:9095";
    let url = Url::parse(typed).ok().filter(Url::has_host);
    let url = url.ok_or_else(|| EXPECTED.to_owned())?;
    if matches!(url.scheme(), "http" | "https") {
        Ok(url)
    } else {
        Err(format!("`{}` is not spoken here: {EXPECTED}", url.scheme()))
    }
}

/// Where the daemon of this configuration listens.
pub(super) fn base(config: &Path, url: Option<Url>) -> Result<Url, Failure> {
    if let Some(url) = url {
        return Ok(url);
    }
    let config = Config::read(config, &super::variable)?;
    let mut listen = config.listen;
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen.ip() {
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        });
    }
    Url::parse(&format!("http://{listen}"))
        .map_err(|error| Failure::software(format!("http://{listen}: {error}")))
}

/// Gets something.
pub(super) fn get<T: DeserializeOwned>(
    base: &Url,
    path: &str,
    query: &[(&str, String)],
) -> Result<T, Failure> {
    let mut url = join(base, path)?;
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    ask(base, &url, |client| client.get(url.clone()))
}

/// Asks for something to be done.
pub(super) fn post<T: DeserializeOwned>(
    base: &Url,
    path: &str,
    body: &impl Serialize,
) -> Result<T, Failure> {
    let url = join(base, path)?;
    ask(base, &url, |client| client.post(url.clone()).json(body))
}

/// Puts something there.
pub(super) fn put<T: DeserializeOwned>(
    base: &Url,
    path: &str,
    query: &impl Serialize,
    body: Vec<u8>,
) -> Result<T, Failure> {
    let mut url = join(base, path)?;
    let query = serde_json::to_value(query).unwrap_or_default();
    for (name, value) in query.as_object().into_iter().flatten() {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), ToOwned::to_owned);
        url.query_pairs_mut().append_pair(name, &value);
    }
    ask(base, &url, |client| client.put(url.clone()).body(body))
}

/// Takes something away.
pub(super) fn delete<T: DeserializeOwned>(
    base: &Url,
    path: &str,
    query: &[(&str, String)],
) -> Result<T, Failure> {
    let mut url = join(base, path)?;
    url.query_pairs_mut().extend_pairs(query);
    ask(base, &url, |client| client.delete(url.clone()))
}

fn join(base: &Url, path: &str) -> Result<Url, Failure> {
    base.join(path)
        .map_err(|error| Failure::given(format!("{base} is no base address: {error}")))
}

fn ask<T: DeserializeOwned>(
    base: &Url,
    url: &Url,
    request: impl FnOnce(&reqwest::Client) -> reqwest::RequestBuilder,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::software(error.to_string()))?;
    let unreachable = |error: reqwest::Error| {
        let error = error.without_url();
        let mut why = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            why = format!("{why}: {cause}");
            source = cause.source();
        }
        Failure::unavailable(format!("{base} does not answer: {why}"))
            .hint("is the daemon running there? name it with --url or SENTINEL_URL")
    };
    runtime.block_on(async {
        if rustls::crypto::ring::default_provider()
            .install_default()
            .is_err()
        {
            tracing::trace!("a TLS provider is installed already");
        }
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(std::time::Duration::from_secs(30))
            .build()
            .map_err(|error| Failure::software(error.to_string()))?;
        let response = request(&client).send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        if !status.is_success() {
            let said = serde_json::from_slice::<Value>(&body)
                .ok()
                .and_then(|body| body.get("error")?.as_str().map(ToOwned::to_owned))
                .unwrap_or_else(|| format!("{url} answered {status}"));
            return Err(Failure::given(harmless(&said)));
        }
        serde_json::from_slice(&body)
            .map_err(|error| Failure::unavailable(format!("{url} is no sentinel: {error}")))
    })
}
