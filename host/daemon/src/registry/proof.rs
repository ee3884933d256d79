//! What a registry wants to hear before it does something: a password, or a token that is
//! bought with one.

use http_auth::ChallengeRef;
use reqwest::header::{CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use url::Url;

use super::client::{MAX_ANSWER, Registry};
use super::credentials::Credentials;
use super::error::RegistryError;

/// What is done there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
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
pub(super) enum Proof {
    Basic { user: String, password: String },
    Bearer(String),
}

/// Some registries give it under both names.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    pub(super) fn credentials(&self) -> Result<Option<(Credentials, String)>, RegistryError> {
        self.source.find(self.reference.host())
    }

    /// What answers a challenge: the password itself, or a token that it buys.
    pub(super) async fn prove(
        &self,
        access: Access,
        headers: &HeaderMap,
    ) -> Result<Proof, RegistryError> {
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
        let credentials = self.credentials()?;
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
        // In the clear at most to the registry itself, which was chosen to be spoken to so:
        // whoever is between could name any other place. On this machine nobody is between.
        let within = is_here(&realm) && is_here(&self.base);
        if realm.scheme() != "https" && realm.origin() != self.base.origin() && !within {
            return Err(self.no_registry(format!(
                "it wants the password to be sent in clear to {realm}, which is another place than its own: expected https, or its own address"
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
                self.tokens
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
                allowed(self.tokens.get(url), proof)
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

    /// The registry does not take what it was told.
    pub(super) fn not_taken(&self) -> Result<RegistryError, RegistryError> {
        let host = self.reference.host();
        Ok(match self.credentials()? {
            Some((credentials, source_of_it)) => RegistryError::Unauthorized {
                host: host.to_owned(),
                user: credentials.user().to_owned(),
                source_of_it,
            },
            None => self.anonymous(),
        })
    }
}

/// The request, with what allows it.
pub(super) fn allowed(request: RequestBuilder, proof: Option<Proof>) -> RequestBuilder {
    match proof {
        Some(Proof::Basic { user, password }) => request.basic_auth(user, Some(password)),
        Some(Proof::Bearer(token)) => request.bearer_auth(token),
        None => request,
    }
}

/// Whether it is this machine's own, and never leaves it.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(_)) | None => false,
    }
}
