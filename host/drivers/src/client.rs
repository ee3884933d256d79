//! What the HTTP clients of this crate have in common.

use std::error::Error as StdError;

use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Client, ClientBuilder};

/// How many redirects within one origin are followed.
const REDIRECTS: usize = 5;

/// Makes a client. Where the machine has no CA certificates it is made all the same,
/// and `https` URLs fail.
pub(crate) fn build(builder: impl Fn() -> ClientBuilder) -> reqwest::Result<Client> {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::trace!("a TLS provider is installed already");
    }
    builder().build().or_else(|error| {
        tracing::warn!(
            error = chain(&error),
            "no CA certificates found: https URLs will fail; install ca-certificates"
        );
        builder().tls_certs_only([]).build()
    })
}

/// With our name, and without the proxies of the environment: what is asked is what was
/// configured.
pub(crate) fn builder() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("infra-sentinel/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
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

/// `error` and its causes in one line.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |&error| error.source()) {
        text.push_str(": ");
        text.push_str(&cause.to_string());
    }
    text
}
