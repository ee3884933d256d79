//! Certificates that operators name.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// The certificates of a file in PEM, at least one. What is wrong with which file, for
/// people.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, (PathBuf, String)> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err((path.to_owned(), "holds no certificate".to_owned())),
        Err(error) => Err((path.to_owned(), format!("holds no certificate: {error}"))),
    }
}
