//! Speaks OCI's distribution protocol, as far as a push and a pull need it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use sentinel_core::id::Digest;
use serde::Deserialize;
use url::Url;

use super::artifact::{Artifact, Descriptor, INDEX, MANIFEST, Manifest};
use super::credentials::Source;
use super::error::RegistryError;
use super::proof::{Access, Proof, allowed};
use super::reference::{Reference, Version};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long nothing may come.
const SILENCE: Duration = Duration::from_secs(60);
/// The largest manifest or answer that is read, in bytes; what registries take as well.
pub(super) const MAX_ANSWER: u64 = 4 * 1024 * 1024;
/// How many redirects are followed: registries keep blobs elsewhere.
const REDIRECTS: usize = 5;

/// A repository at a registry.
pub(crate) struct Registry {
    pub(super) client: Client,
    /// For what buys tokens: follows nobody to another place.
    pub(super) tokens: Client,
    pub(super) reference: Reference,
    /// Ends in `/v2/REPOSITORY/`.
    pub(super) base: Url,
    pub(super) source: Source,
    /// What the registry wanted to hear the last time, by what it was asked for.
    proven: Mutex<BTreeMap<Access, Proof>>,
}

/// What was pulled.
pub(crate) struct Pulled {
    /// The manifest, which has the same bytes wherever it is.
    pub(crate) reference: Reference,
    /// The plugin.
    pub(crate) wasm: Vec<u8>,
    /// The signature that came along: minisign's text.
    pub(crate) signature: Option<String>,
}

/// The errors of a registry, as the protocol has them.
#[derive(Debug, Default, Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<Said>,
}

#[derive(Debug, Deserialize)]
struct Said {
    code: String,
    #[serde(default)]
    message: String,
}

impl Registry {
    /// A client for the registry that `reference` names. It speaks HTTPS, and plain HTTP to
    /// this very machine, or as `plain_http` says.
    pub(crate) fn new(
        reference: &Reference,
        source: Source,
        plain_http: Option<bool>,
    ) -> Result<Self, RegistryError> {
        let host = reference.host();
        let scheme = if plain_http.unwrap_or(reference.is_loopback()) {
            "http"
        } else {
            "https"
        };
        let no_registry = |why: String| RegistryError::NoRegistry {
            host: host.to_owned(),
            why,
        };
        let (api, repository) = (reference.api_host(), reference.repository());
        let base = Url::parse(&format!("{scheme}://{api}/v2/{repository}/"))
            .map_err(|error| no_registry(error.to_string()))?;
        if rustls::crypto::ring::default_provider()
            .install_default()
            .is_err()
        {
            tracing::trace!("a TLS provider is installed already");
        }
        let client = |redirects: Policy| {
            let mut builder = Client::builder()
                .user_agent(concat!("infra-sentinel/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT)
                .read_timeout(SILENCE)
                .redirect(redirects);
            if reference.is_loopback() {
                builder = builder.no_proxy();
            }
            builder
                .build()
                .map_err(|error| RegistryError::of_request(host, error))
        };
        Ok(Self {
            // Passwords and tokens are left out by reqwest where another host follows.
            client: client(Policy::custom(|attempt| {
                let from = attempt.previous().last().map(Url::scheme);
                let weaker = from == Some("https") && attempt.url().scheme() != "https";
                if weaker || attempt.previous().len() > REDIRECTS {
                    attempt.stop()
                } else {
                    attempt.follow()
                }
            }))?,
            // What is in a body goes with every redirect.
            tokens: client(Policy::custom(|attempt| {
                let from = attempt.previous().last().map(Url::origin);
                let elsewhere = from != Some(attempt.url().origin());
                if elsewhere || attempt.previous().len() > REDIRECTS {
                    attempt.stop()
                } else {
                    attempt.follow()
                }
            }))?,
            reference: reference.clone(),
            base,
            source,
            proven: Mutex::default(),
        })
    }

    /// Puts a plugin there, under the tag of the reference, and gives the digest of its
    /// manifest. What is there already is not sent again.
    pub(crate) async fn push(&self, artifact: &Artifact) -> Result<Digest, RegistryError> {
        for blob in [&artifact.wasm, &artifact.config] {
            self.push_blob(blob).await?;
        }
        let digest = Digest::of(&artifact.manifest);
        let name = self.reference.tag().map(ToOwned::to_owned);
        let url = self.at(&format!(
            "manifests/{}",
            name.unwrap_or_else(|| digest.to_string())
        ))?;
        let response = self
            .ask(Access::Push, &url, |client| {
                client
                    .put(url.clone())
                    .header(CONTENT_TYPE, MANIFEST)
                    .body(artifact.manifest.clone())
            })
            .await?;
        let response = self.good(response).await?;
        self.same(response.headers(), digest)?;
        Ok(digest)
    }

    /// Takes a plugin of at most `limit` bytes from there. Each byte that comes is checked
    /// against the digests that name it.
    pub(crate) async fn pull(&self, limit: u64) -> Result<Pulled, RegistryError> {
        let (digest, bytes) = self.manifest().await?;
        let manifest = Manifest::read(&self.reference, &bytes)?;
        let layer = manifest.layer(&self.reference)?;
        let wasm = self.blob(layer, limit).await?;
        Ok(Pulled {
            reference: self.reference.at(digest),
            wasm,
            signature: manifest.signature().map(ToOwned::to_owned),
        })
    }

    async fn manifest(&self) -> Result<(Digest, Vec<u8>), RegistryError> {
        let version = self.reference.version();
        let url = self.at(&format!("manifests/{version}"))?;
        let accept = format!("{MANIFEST}, {INDEX}");
        let response = self
            .ask(Access::Pull, &url, |client| {
                client.get(url.clone()).header(ACCEPT, &accept)
            })
            .await?;
        let response = self.good(response).await?;
        let headers = response.headers().clone();
        let bytes = self.read(response, "the manifest", MAX_ANSWER).await?;
        let digest = Digest::of(&bytes);
        match version {
            Version::Digest(expected) if expected != digest => {
                Err(self.changed(expected, digest.to_string()))
            }
            Version::Digest(_) => Ok((digest, bytes)),
            Version::Tag(_) => {
                self.same(&headers, digest)?;
                Ok((digest, bytes))
            }
        }
    }

    async fn blob(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let expected: Digest = blob.digest.parse().map_err(|_| RegistryError::NoPlugin {
            reference: self.reference.to_string(),
            why: format!("its layer is named by `{}`, and not by sha256", blob.digest),
        })?;
        if blob.size > limit {
            return Err(RegistryError::TooLarge {
                what: format!("the plugin {}", self.reference),
                size: blob.size,
                limit,
            });
        }
        let url = self.at(&format!("blobs/{expected}"))?;
        let response = self
            .ask(Access::Pull, &url, |client| client.get(url.clone()))
            .await?;
        let response = self.good(response).await?;
        let bytes = self.read(response, "the plugin", blob.size).await;
        let bytes = bytes.map_err(|error| match error {
            // Not what the manifest says, so not that very blob.
            RegistryError::TooLarge { .. } => {
                self.changed(expected, format!("it has more than {} bytes", blob.size))
            }
            other => other,
        })?;
        let found = Digest::of(&bytes);
        if found == expected {
            Ok(bytes)
        } else {
            Err(self.changed(expected, format!("{found}, {} bytes", bytes.len())))
        }
    }

    async fn push_blob(&self, bytes: &[u8]) -> Result<(), RegistryError> {
        let digest = Digest::of(bytes);
        let url = self.at(&format!("blobs/{digest}"))?;
        let response = self
            .ask(Access::Push, &url, |client| client.head(url.clone()))
            .await?;
        if response.status().is_success() {
            return Ok(());
        }
        if response.status() != StatusCode::NOT_FOUND {
            self.good(response).await?;
        }
        let url = self.at("blobs/uploads/")?;
        let response = self
            .ask(Access::Push, &url, |client| {
                client.post(url.clone()).header(CONTENT_LENGTH, 0)
            })
            .await?;
        let response = self.good(response).await?;
        let mut place = response
            .headers()
            .get(LOCATION)
            .and_then(|place| place.to_str().ok())
            .and_then(|place| response.url().join(place).ok())
            .ok_or_else(|| self.no_registry("it does not say where an upload goes to"))?;
        place
            .query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let body = bytes::Bytes::copy_from_slice(bytes);
        let response = self
            .ask(Access::Push, &place, |client| {
                client
                    .put(place.clone())
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .body(body.clone())
            })
            .await?;
        self.good(response).await?;
        Ok(())
    }

    fn at(&self, path: &str) -> Result<Url, RegistryError> {
        self.base
            .join(path)
            .map_err(|error| self.no_registry(error.to_string()))
    }

    /// Sends a request, and once more with what the registry wants to hear.
    async fn ask(
        &self,
        access: Access,
        url: &Url,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        // What proves something to the registry is for the registry alone.
        let ours = url.origin() == self.base.origin();
        let known = self.proof(access).filter(|_| ours);
        let response = self.send(allowed(request(&self.client), known)).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !ours {
            return Ok(response);
        }
        let proof = self.prove(access, response.headers()).await?;
        let bearer = matches!(proof, Proof::Bearer(_));
        self.proven
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(access, proof.clone());
        let response = self
            .send(allowed(request(&self.client), Some(proof)))
            .await?;
        match response.status() {
            // A token that is given and does not do is one for less than this.
            StatusCode::UNAUTHORIZED if bearer && self.credentials()?.is_some() => {
                Err(self.denied())
            }
            StatusCode::UNAUTHORIZED => Err(self.not_taken()?),
            _ => Ok(response),
        }
    }

    fn proof(&self, access: Access) -> Option<Proof> {
        self.proven
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&access)
            .cloned()
    }

    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, RegistryError> {
        request
            .send()
            .await
            .map_err(|error| RegistryError::of_request(self.reference.host(), error))
    }

    /// Reads an answer to its end, and no more than `limit` bytes of it.
    pub(super) async fn read(
        &self,
        mut response: Response,
        what: &str,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        loop {
            let chunk = response.chunk().await;
            let chunk =
                chunk.map_err(|error| RegistryError::of_request(self.reference.host(), error))?;
            let Some(chunk) = chunk else {
                return Ok(bytes);
            };
            let size = bytes.len() as u64 + chunk.len() as u64;
            if size > limit {
                return Err(RegistryError::TooLarge {
                    what: what.to_owned(),
                    size,
                    limit,
                });
            }
            bytes.extend_from_slice(&chunk);
        }
    }

    /// The response, if it says that all is well; else what is wrong.
    pub(super) async fn good(&self, response: Response) -> Result<Response, RegistryError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let url = response.url().clone();
        if status.is_redirection() {
            return Err(self.no_registry(format!("it sends elsewhere than is good, from {url}")));
        }
        let body = self.read(response, "its answer", MAX_ANSWER).await;
        let body = body.unwrap_or_default();
        let errors: Option<Errors> = serde_json::from_slice(&body).ok();
        let said = errors.unwrap_or_default().errors;
        let (host, repository) = (self.reference.host(), self.reference.repository());
        let about = |code: &str| said.iter().any(|said| said.code == code);
        Err(match status {
            StatusCode::UNAUTHORIZED => self.anonymous(),
            StatusCode::FORBIDDEN => self.denied(),
            StatusCode::NOT_FOUND if about("NAME_UNKNOWN") => {
                RegistryError::Unknown(format!("repository {repository} at {host}"))
            }
            StatusCode::NOT_FOUND if about("MANIFEST_UNKNOWN") => {
                RegistryError::Unknown(match self.reference.version() {
                    Version::Tag(tag) => format!("tag {tag} in {host}/{repository}"),
                    Version::Digest(digest) => format!("{digest} in {host}/{repository}"),
                })
            }
            StatusCode::NOT_FOUND if about("BLOB_UNKNOWN") => {
                RegistryError::Unknown(format!("blob any more that {} is made of", self.reference))
            }
            StatusCode::NOT_FOUND if said.is_empty() => {
                self.no_registry(format!("{url} is not there"))
            }
            _ => RegistryError::Refused {
                host: host.to_owned(),
                status: status.as_u16(),
                said: in_words(&said, status),
            },
        })
    }

    /// Checks the digest that the registry gives, where it gives one.
    fn same(&self, headers: &HeaderMap, digest: Digest) -> Result<(), RegistryError> {
        let given = headers
            .get("docker-content-digest")
            .and_then(|given| given.to_str().ok());
        match given {
            Some(given) if given.starts_with("sha256:") && given != digest.to_string() => {
                Err(RegistryError::Changed {
                    host: self.reference.host().to_owned(),
                    expected: given.parse().unwrap_or(digest),
                    found: digest.to_string(),
                })
            }
            _ => Ok(()),
        }
    }

    fn changed(&self, expected: Digest, found: String) -> RegistryError {
        RegistryError::Changed {
            host: self.reference.host().to_owned(),
            expected,
            found,
        }
    }

    pub(super) fn no_registry(&self, why: impl Into<String>) -> RegistryError {
        RegistryError::NoRegistry {
            host: self.reference.host().to_owned(),
            why: why.into(),
        }
    }

    pub(super) fn anonymous(&self) -> RegistryError {
        RegistryError::Anonymous {
            host: self.reference.host().to_owned(),
            looked: self.source.looked(),
        }
    }

    fn denied(&self) -> RegistryError {
        RegistryError::Denied {
            host: self.reference.host().to_owned(),
            repository: self.reference.repository().to_owned(),
        }
    }
}

/// What a registry said, in a line.
fn in_words(said: &[Said], status: StatusCode) -> String {
    let said: Vec<_> = said
        .iter()
        .map(|said| match said.message.as_str() {
            "" => said.code.clone(),
            message => format!("{message} ({})", said.code),
        })
        .collect();
    if said.is_empty() {
        return status.canonical_reason().unwrap_or("no reason").to_owned();
    }
    said.join("; ")
}
