//! A Docker Engine on another machine, over TCP with TLS: both sides show a certificate of
//! an authority that the operator names, and of no other.

use std::path::PathBuf;
use std::sync::Arc;

use bollard::BollardRequest;
use bollard::errors::Error;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::certificates::certificates;

/// The files, in PEM, as `docker --tlsverify` has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority that the Docker Engine's certificate is of. No other one is trusted,
    /// not those of the machine either.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Our private key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Reads the files. What is wrong with which, for people.
    pub(super) fn read(&self) -> Result<Arc<ClientConfig>, (PathBuf, String)> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.ca)? {
            roots
                .add(authority)
                .map_err(|error| (self.ca.clone(), format!("is no authority: {error}")))?;
        }
        let own = certificates(&self.cert)?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| (self.key.clone(), format!("holds no private key: {error}")))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| (self.ca.clone(), error.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(own, key)
            .map(Arc::new)
            .map_err(|error| (self.cert.clone(), format!("does not fit the key: {error}")))
    }
}

/// A client that asks at `address`, a host and a port; connects to nobody yet.
pub(super) fn client(
    address: &str,
    config: &ClientConfig,
    timeout: u64,
) -> Result<bollard::Docker, Error> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    let connector = HttpsConnector::from((http, config.clone()));
    // One connection for each request, as with the sockets.
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector);
    let transport = move |request: BollardRequest| {
        let answer = client.request(request);
        async move { answer.await.map_err(Error::from) }
    };
    bollard::Docker::connect_with_custom_transport(
        transport,
        Some(format!("https://{address}")),
        timeout,
        bollard::API_DEFAULT_VERSION,
    )
}
