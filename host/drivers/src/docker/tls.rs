//! A Docker Engine on another machine, over TCP with TLS: both sides show a certificate of
//! an authority that the operator names, and of no other.

use std::path::PathBuf;
use std::sync::Arc;

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
