//! Speaks OCI's distribution protocol, as far as a push and a pull need it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_auth::ChallengeRef;
use reqwest::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, WWW_AUTHENTICATE,
};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use sentinel_core::id::Digest;
use serde::Deserialize;
use url::Url;

use super::artifact::{Artifact, Descriptor, INDEX, MANIFEST, Manifest};
use super::credentials::{Credentials, Source};
use super::error::RegistryError;
use super::reference::{Reference, Version};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long nothing may come.
const SILENCE: Duration = Duration::from_secs(60);
/// The largest manifest or answer that is read, in bytes; what registries take as well.
const MAX_ANSWER: u64 = 4 * 1024 * 1024;
/// How many redirects are followed: registries keep blobs elsewhere.
const REDIRECTS: usize = 5;

/// A repository at a registry.
pub(crate) struct Registry {
    client: Client,
    reference: Reference,
    /// Ends in `/v2/REPOSITORY/`.
    base: Url,
    source: Source,
    /// What the registry wanted to hear the last time, by what it was asked for.
    proven: Mutex<BTreeMap<Access, Proof>>,
}

/// What is done there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Access {
    Pull,
    Push,
}

impl Access {
    fn actions(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        }
    }
}

/// What a request is allowed by.
#[derive(Clone)]
enum Proof {
    Basic { user: String, password: String },
    Bearer(String),
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

/// Some registries give it under both names.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
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
        let mut builder = Client::builder()
            .user_agent(concat!("infra-sentinel/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            // Passwords and tokens are left out by reqwest where another host follows.
            .redirect(Policy::custom(|attempt| {
                let from = attempt.previous().last().map(Url::scheme);
                let weaker = from == Some("https") && attempt.url().scheme() != "https";
                if weaker || attempt.previous().len() > REDIRECTS {
                    attempt.stop()
                } else {
                    attempt.follow()
                }
            }));
        if reference.is_loopback() {
            builder = builder.no_proxy();
        }
        Ok(Self {
            client: builder
                .build()
                .map_err(|error| RegistryError::of_request(host, error))?,
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
        self.proven
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(access, proof.clone());
        let response = self
            .send(allowed(request(&self.client), Some(proof)))
            .await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(self.not_taken()?);
        }
        Ok(response)
    }

    fn proof(&self, access: Access) -> Option<Proof> {
        self.proven
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&access)
            .cloned()
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, RegistryError> {
        request
            .send()
            .await
            .map_err(|error| RegistryError::of_request(self.reference.host(), error))
    }

    /// What answers a challenge: the password itself, or a token that it buys.
    async fn prove(&self, access: Access, headers: &HeaderMap) -> Result<Proof, RegistryError> {
        let texts: Vec<&str> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|header| header.to_str().ok())
            .collect();
        let challenges: Vec<ChallengeRef<'_>> = texts
            .iter()
            .filter_map(|text| http_auth::parse_challenges(text).ok())
            .flatten()
            .collect();
        let of = |scheme: &str| {
            let mut found = challenges.iter();
            found.find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme))
        };
        let credentials = self.source.find(self.reference.host())?;
        if let Some(bearer) = of("bearer") {
            let credentials = credentials.map(|(credentials, _)| credentials);
            return self.token(access, bearer, credentials).await;
        }
        match (of("basic"), credentials) {
            (Some(_), Some((Credentials::Password { user, password }, _))) => {
                Ok(Proof::Basic { user, password })
            }
            (Some(_), _) => Err(self.anonymous()),
            (None, _) => Err(self.no_registry(format!(
                "it asks for a login that is not known here: {}",
                texts.join(", ")
            ))),
        }
    }

    /// Gets a token from where the challenge says. Without credentials that is one for
    /// everybody, which is enough to pull what is public.
    async fn token(
        &self,
        access: Access,
        challenge: &ChallengeRef<'_>,
        credentials: Option<Credentials>,
    ) -> Result<Proof, RegistryError> {
        let param = |name: &str| {
            let mut params = challenge.params.iter();
            let found = params.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = param("realm").and_then(|realm| Url::parse(&realm).ok());
        let realm =
            realm.ok_or_else(|| self.no_registry("it does not say where it gives tokens"))?;
        if self.base.scheme() == "https" && realm.scheme() != "https" {
            return Err(self.no_registry(format!(
                "it wants the password to be sent in clear to {realm}"
            )));
        }
        let scope = param("scope").unwrap_or_else(|| {
            let repository = self.reference.repository();
            format!("repository:{repository}:{}", access.actions())
        });
        let mut fields = vec![("scope", scope)];
        fields.extend(param("service").map(|service| ("service", service)));
        let request = match credentials {
            Some(Credentials::IdentityToken(token)) => {
                fields.push(("grant_type", "refresh_token".to_owned()));
                fields.push(("client_id", "infra-sentinel".to_owned()));
                fields.push(("refresh_token", token));
                let form = url::form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(&fields)
                    .finish();
                self.client
                    .post(realm)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form)
            }
            credentials => {
                let mut url = realm;
                url.query_pairs_mut().extend_pairs(&fields);
                let proof = credentials.and_then(|credentials| match credentials {
                    Credentials::Password { user, password } => {
                        Some(Proof::Basic { user, password })
                    }
                    Credentials::IdentityToken(_) => None,
                });
                allowed(self.client.get(url), proof)
            }
        };
        let response = self.send(request).await?;
        if matches!(
            response.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST
        ) {
            return Err(self.not_taken()?);
        }
        let response = self.good(response).await?;
        let body = self.read(response, "the token", MAX_ANSWER).await?;
        serde_json::from_slice::<Token>(&body)
            .ok()
            .and_then(|token| token.token.or(token.access_token))
            .map(Proof::Bearer)
            .ok_or_else(|| self.no_registry("it gives tokens that are none"))
    }

    /// Reads an answer to its end, and no more than `limit` bytes of it.
    async fn read(
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
    async fn good(&self, response: Response) -> Result<Response, RegistryError> {
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
            StatusCode::FORBIDDEN => RegistryError::Denied {
                host: host.to_owned(),
                repository: repository.to_owned(),
            },
            StatusCode::NOT_FOUND if about("NAME_UNKNOWN") => {
                RegistryError::Unknown(format!("repository {repository} at {host}"))
            }
            StatusCode::NOT_FOUND if about("MANIFEST_UNKNOWN") => RegistryError::Unknown(format!(
                "{} in {host}/{repository}",
                self.reference.version()
            )),
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

    fn no_registry(&self, why: impl Into<String>) -> RegistryError {
        RegistryError::NoRegistry {
            host: self.reference.host().to_owned(),
            why: why.into(),
        }
    }

    fn anonymous(&self) -> RegistryError {
        RegistryError::Anonymous {
            host: self.reference.host().to_owned(),
            looked: self.source.looked(),
        }
    }

    /// The registry does not take what it was told.
    fn not_taken(&self) -> Result<RegistryError, RegistryError> {
        let host = self.reference.host();
        Ok(match self.source.find(host)? {
            Some((credentials, source_of_it)) => RegistryError::Unauthorized {
                host: host.to_owned(),
                user: credentials.user().to_owned(),
                source_of_it,
            },
            None => self.anonymous(),
        })
    }
}

fn allowed(request: RequestBuilder, proof: Option<Proof>) -> RequestBuilder {
    match proof {
        Some(Proof::Basic { user, password }) => request.basic_auth(user, Some(password)),
        Some(Proof::Bearer(token)) => request.bearer_auth(token),
        None => request,
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
