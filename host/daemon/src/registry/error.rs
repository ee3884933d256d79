//! What can go wrong between here and a registry, and what to do about it.

use std::error::Error as StdError;
use std::path::PathBuf;

use sentinel_core::id::Digest;

/// Why something was not pushed or pulled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// Nobody answers, or not to the end.
    #[error("{host} does not answer: {why}")]
    Unreachable {
        /// The registry's host.
        host: String,
        /// In the words of whoever tried.
        why: String,
    },
    /// There is no trusted connection to it.
    #[error("there is no trusted connection to {host}: {why}")]
    Tls {
        /// The registry's host.
        host: String,
        /// In the words of whoever tried.
        why: String,
    },
    /// It wants to know who asks.
    #[error("{host} wants to know who asks, and there is no password for it{looked}")]
    Anonymous {
        /// The registry's host.
        host: String,
        /// Where one was looked for.
        looked: String,
    },
    /// It does not know who asks.
    #[error("{host} does not take the password of {user}, which is from {source_of_it}")]
    Unauthorized {
        /// The registry's host.
        host: String,
        /// Who was said to ask.
        user: String,
        /// Where the password is from.
        source_of_it: String,
    },
    /// Who asks may not do this.
    #[error("{host} does not allow you to do that with {repository}")]
    Denied {
        /// The registry's host.
        host: String,
        /// The repository.
        repository: String,
    },
    /// There is nothing of this name.
    #[error("there is no {0}")]
    Unknown(String),
    /// What answers is not one, or does not do what registries do.
    #[error("{host} does not answer as a registry does: {why}")]
    NoRegistry {
        /// The host.
        host: String,
        /// What it did.
        why: String,
    },
    /// It said no in its own words.
    #[error("{host} refused it with {status}: {said}")]
    Refused {
        /// The registry's host.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        said: String,
    },
    /// What is there is something else than a plugin.
    #[error("{reference} is no plugin: {why}")]
    NoPlugin {
        /// What was asked for.
        reference: String,
        /// What it is.
        why: String,
    },
    /// It is larger than a plugin may be.
    #[error("{what} has {size} bytes, and may have {limit}")]
    TooLarge {
        /// What.
        what: String,
        /// Its size in bytes, as the registry tells it.
        size: u64,
        /// The largest that is taken.
        limit: u64,
    },
    /// What came is not what was asked for.
    #[error("what {host} sent as {expected} is something else: {found}")]
    Changed {
        /// The registry's host.
        host: String,
        /// Which bytes were asked for.
        expected: Digest,
        /// What came.
        found: String,
    },
    /// The file with passwords is of no use.
    #[error("{}: {why}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl RegistryError {
    /// What to do about it, where that is known.
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreachable { .. } => {
                "is the host right, and the network up? a registry that speaks plain HTTP needs --plain-http".to_owned()
            }
            Self::Tls { .. } => {
                "where the registry has a CA of its own, name the CA's certificate with SSL_CERT_FILE; one without TLS needs --plain-http".to_owned()
            }
            Self::Anonymous { host, .. } | Self::Unauthorized { host, .. } => format!(
                "log in with `docker login {host}`, or pass --username NAME --password-stdin"
            ),
            Self::Denied { .. } => {
                "to push, one has to be allowed to write there; to pull, to read: ask whoever keeps the registry".to_owned()
            }
            Self::Unknown(_) => {
                "look at the spelling; some registries say this as well of what they do not let one see: log in with `docker login`".to_owned()
            }
            Self::NoRegistry { .. } => {
                "is the host right? expected a registry that speaks OCI's distribution protocol".to_owned()
            }
            Self::NoPlugin { .. } => {
                "a plugin is put there with `sentinel plugin push FILE REFERENCE`".to_owned()
            }
            Self::Changed { .. } => {
                "the registry's storage is damaged, or somebody changed it: push the plugin again"
                    .to_owned()
            }
            Self::Refused { status: 429, .. } => {
                "it was asked too often: log in with `docker login`, or come again later".to_owned()
            }
            Self::Refused { .. } | Self::TooLarge { .. } | Self::Credentials { .. } => return None,
        })
    }

    /// Whether it may be another time, with nothing changed in what was given.
    pub(crate) fn is_unavailable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Tls { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }

    /// What a request that had no answer says about its registry.
    pub(super) fn of_request(host: &str, error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut why = error.to_string();
        let mut tls = false;
        let causes = std::iter::successors(error.source(), |&error| error.source());
        for cause in causes {
            tls |= cause_is_tls(cause);
            why = format!("{why}: {cause}");
        }
        let host = host.to_owned();
        if tls {
            Self::Tls { host, why }
        } else {
            Self::Unreachable { host, why }
        }
    }
}

/// An error of TLS is wrapped into one or two of input and output, which show it only to
/// those who ask.
fn cause_is_tls(cause: &(dyn StdError + 'static)) -> bool {
    cause.is::<rustls::Error>()
        || cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .is_some_and(|inner| cause_is_tls(inner))
}
