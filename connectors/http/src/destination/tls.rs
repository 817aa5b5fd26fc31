//! TLS with a provider that is named, so that no process-wide one is needed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::config::Tls;

/// Why TLS cannot be set up, before anything was connected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file is missing, unreadable or not PEM.
    #[error("could not read `tls.{key}` from `{path}`")]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A file that should hold certificates holds none.
    #[error("`tls.{key}` names `{path}`, which holds no certificate in PEM form")]
    Empty {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Nothing to verify against.
    #[error("the system has no trusted certificates; name a file with `tls.ca`")]
    NoRoots,
    /// rustls refuses what the files hold.
    #[error("could not use the certificates of `tls`")]
    Refused(#[from] rustls::Error),
}

/// The configuration of a client; `authorities` are not wanted where nothing is encrypted.
pub(crate) fn client_config(tls: &Tls, authorities: bool) -> Result<ClientConfig, TlsError> {
    let roots = if authorities { roots(tls)? } else { RootCertStore::empty() };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates("cert", cert)?;
            let unreadable = |source| TlsError::File { key: "key", path: key.clone(), source };
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).map_err(unreadable)?)?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(tls: &Tls) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match &tls.ca {
        Some(path) => {
            for certificate in certificates("ca", path)? {
                store.add(certificate)?;
            }
        }
        None => {
            // a system's store commonly holds a few that cannot be parsed
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(TlsError::NoRoots);
            }
        }
    }
    Ok(store)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|source| TlsError::File { key, path: path.to_owned(), source })?;
    if found.is_empty() { Err(TlsError::Empty { key, path: path.to_owned() }) } else { Ok(found) }
}
