//! What the HTTP clients of this crate have in common.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Client, ClientBuilder};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use crate::certificates::certificates;

/// How many redirects within one origin are followed.
const REDIRECTS: usize = 5;

/// A client with our name, and without the proxies of the environment: what is asked is what
/// was configured. Where the machine has no CA certificates it is made all the same, and
/// `https` URLs fail.
pub(crate) fn build(adapt: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client, String> {
    build_with(TLS.clone()?, adapt)
}

/// The same with a TLS of its own.
pub(crate) fn build_with(
    tls: ClientConfig,
    adapt: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<Client, String> {
    let builder = Client::builder()
        .user_agent(concat!("infra-sentinel/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .tls_backend_preconfigured(tls);
    adapt(builder).build().map_err(|error| chain(&error))
}

/// TLS with the machine's CA certificates, which all clients share: reading them takes longer
/// than making anything else of a client.
static TLS: LazyLock<Result<ClientConfig, String>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| chain(&error))?;
    Ok(match Verifier::new(provider) {
        Ok(verifier) => config
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth(),
        Err(error) => {
            tracing::warn!(
                error = chain(&error),
                "no CA certificates found: https URLs will fail; install ca-certificates"
            );
            config
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth()
        }
    })
});

/// TLS that trusts this authority, or those of the machine where none is named, and shows this
/// certificate. What is wrong with which file, for people.
pub(crate) fn tls(
    ca: Option<&Path>,
    client: Option<&(PathBuf, PathBuf)>,
) -> Result<ClientConfig, (PathBuf, String)> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let broken = |error: &dyn StdError| (PathBuf::from("TLS"), error.to_string());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| broken(&error))?;
    let builder = if let Some(path) = ca {
        let mut trusted = RootCertStore::empty();
        for certificate in certificates(path)? {
            trusted
                .add(certificate)
                .map_err(|error| (path.to_owned(), error.to_string()))?;
        }
        builder.with_root_certificates(trusted)
    } else {
        let verifier = Verifier::new(provider).map_err(|error| broken(&error))?;
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
    };
    let Some((cert, key)) = client else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| (key.clone(), format!("holds no private key: {error}")))?;
    builder
        .with_client_auth_cert(chain, private)
        .map_err(|error| (cert.clone(), format!("and its key do not fit: {error}")))
}

/// Follows redirects within the same scheme, host and port. One that leads elsewhere is
/// the answer.
pub(crate) fn within_origin() -> Policy {
    Policy::custom(|attempt: Attempt<'_>| -> Action {
        let stays = attempt
            .previous()
            .last()
            .is_some_and(|last| last.origin() == attempt.url().origin());
        if stays && attempt.previous().len() <= REDIRECTS {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

/// Whether `cause` itself is an error of TLS. Such a one is wrapped into one or two of input
/// and output, which show it only to those who ask.
pub(crate) fn is_tls(cause: &(dyn StdError + 'static)) -> bool {
    cause.is::<rustls::Error>()
        || cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .is_some_and(|inner| is_tls(inner))
}

/// `error` and its causes in one line.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |&error| error.source()) {
        text.push_str(": ");
        text.push_str(&cause.to_string());
    }
    text
}
