//! How requests reach a Docker Engine: one connection each, and with the version of its API
//! in the path, as lists of what a socket proxy allows expect them.
//!
//! The library knows every value that Docker has today, and refuses an answer with any other:
//! one container in a state of Podman's and the whole list is an error. So what is looked at
//! is read here, by [`super::read`].

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use arc_swap::ArcSwapOption;
use bollard::BollardRequest;
use bollard::errors::Error;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use serde_json::Value;
use tokio::net::UnixStream;
use tower_service::Service;

/// The newest version that is asked for; Docker keeps to the version in the path.
const NEWEST: Version = Version(1, 53);

/// A version of the Docker Engine's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

type Answer = BoxFuture<'static, Result<Response<Incoming>, Error>>;
type Send = dyn Fn(BollardRequest) -> Answer + std::marker::Send + Sync;

/// What carries requests to one Docker Engine.
pub(super) struct Wire {
    send: Arc<Send>,
    /// Scheme and authority.
    base: String,
    /// Which version is asked for; none where the engine did not say which it speaks.
    version: Arc<ArcSwapOption<Version>>,
    /// Whether it is Podman who answers.
    podman: AtomicBool,
}

impl Wire {
    pub(super) fn unix(path: PathBuf) -> Self {
        Self::over(UnixConnector(path), "http://docker".to_owned())
    }

    pub(super) fn tcp(address: &str) -> Self {
        Self::over(HttpConnector::new(), format!("http://{address}"))
    }

    pub(super) fn tls(address: &str, config: &ClientConfig) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        let connector = HttpsConnector::from((http, config.clone()));
        Self::over(connector, format!("https://{address}"))
    }

    fn over<C>(connector: C, base: String) -> Self
    where
        C: Connect + Clone + std::marker::Send + Sync + 'static,
    {
        let version: Arc<ArcSwapOption<Version>> = Arc::default();
        let asked = Arc::clone(&version);
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        let send = move |mut request: BollardRequest| -> Answer {
            if let Some(version) = asked.load().as_deref()
                && let Some(uri) = with_version(request.uri(), *version)
            {
                *request.uri_mut() = uri;
            }
            let answer = client.request(request);
            Box::pin(async move { answer.await.map_err(Error::from) })
        };
        Self {
            send: Arc::new(send),
            base,
            version,
            podman: AtomicBool::new(false),
        }
    }

    /// The library's client, over the same way.
    pub(super) fn library(&self, timeout: u64) -> Result<bollard::Docker, Error> {
        let send = Arc::clone(&self.send);
        bollard::Docker::connect_with_custom_transport(
            move |request: BollardRequest| send(request),
            Some(self.base.clone()),
            timeout,
            bollard::API_DEFAULT_VERSION,
        )
    }

    /// The version that requests carry.
    pub(super) fn version(&self) -> Option<Version> {
        self.version.load().as_deref().copied()
    }

    /// Whether it is Podman who answers, which keeps other events than Docker.
    pub(super) fn is_podman(&self) -> bool {
        self.podman.load(Ordering::Relaxed)
    }

    /// Asks which version the engine speaks. One that does not say, or a proxy that does not
    /// let it be asked, is sent requests without a version from then on.
    pub(super) async fn negotiate(&self) -> Result<(), Error> {
        let answer = (self.send)(self.request("GET", "/_ping", Vec::new())?).await?;
        let told = answer
            .headers()
            .get("api-version")
            .and_then(|version| version.to_str().ok())
            .and_then(Version::parse);
        self.version
            .store(told.map(|version| Arc::new(version.min(NEWEST))));
        let podman = answer.headers().contains_key("libpod-api-version");
        self.podman.store(podman, Ordering::Relaxed);
        Ok(())
    }

    /// The JSON that `path`, which begins with a slash, is answered with.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Error> {
        self.exchange(self.request("GET", path, Vec::new())?).await
    }

    /// The JSON that a body is answered with.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        let body = serde_json::to_vec(body).map_err(Error::from)?;
        self.exchange(self.request("POST", path, body)?).await
    }

    fn request(&self, method: &str, path: &str, body: Vec<u8>) -> Result<BollardRequest, Error> {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .body(bollard::body_full(Bytes::from(body)))
            .map_err(|error| std::io::Error::other(error).into())
    }

    async fn exchange(&self, request: BollardRequest) -> Result<Value, Error> {
        let answer = (self.send)(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(Error::from);
        }
        let told = serde_json::from_slice::<Value>(&body).ok();
        let told = told.as_ref().and_then(|told| told.get("message")?.as_str());
        let message = match told {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&body).into_owned(),
        };
        Err(Error::DockerResponseServerError {
            status_code: status.as_u16(),
            message,
        })
    }
}

/// `uri` with the version before its path.
fn with_version(uri: &Uri, version: Version) -> Option<Uri> {
    let Version(major, minor) = version;
    let mut parts = uri.clone().into_parts();
    let path = parts.path_and_query.as_ref()?;
    // It is what tells the version.
    if path.path() == "/_ping" {
        return None;
    }
    parts.path_and_query = Some(format!("/v{major}.{minor}{path}").parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// Connects to one socket, whatever the URI says.
#[derive(Debug, Clone)]
struct UnixConnector(PathBuf);

impl Service<Uri> for UnixConnector {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future =
        Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + std::marker::Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(path).await?)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_before_the_path() {
        let with = |uri: &str| {
            let uri = with_version(&uri.parse().unwrap(), Version(1, 41))?;
            Some(uri.to_string())
        };
        assert_eq!(
            with("http://docker/containers/json?all=1").unwrap(),
            "http://docker/v1.41/containers/json?all=1"
        );
        assert_eq!(with("http://docker/_ping"), None);
        assert_eq!(Version::parse("1.24"), Some(Version(1, 24)));
        assert!(Version(1, 9) < Version(1, 44));
        for odd in ["", "1", "x.y", "1.x"] {
            assert_eq!(Version::parse(odd), None, "{odd}");
        }
    }
}
