//! TLS: a certificate that is read again when its files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use forebay_api::{Blame, Fault};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use super::config::Tls;

/// The protocols that are offered, the preferred first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The certificate as it is now.
#[derive(Debug)]
pub(super) struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
    /// When the files were changed that were read last, readable or not.
    changed: RwLock<[Option<SystemTime>; 2]>,
}

impl Certificate {
    /// Reads the files.
    pub(super) fn load(tls: &Tls) -> Result<Certificate, Fault> {
        let changed = [modified(&tls.cert), modified(&tls.key)];
        let current = read(&tls.cert, &tls.key).map_err(|why| {
            Fault::fatal("reading the certificate of the collector", Blame::Configuration, why)
                .with_remedy("let `tls.cert` and `tls.key` name PEM files that belong together")
        })?;
        Ok(Certificate {
            cert: tls.cert.clone(),
            key: tls.key.clone(),
            current: RwLock::new(Arc::new(current)),
            changed: RwLock::new(changed),
        })
    }

    /// What handshakes are made with.
    pub(super) fn server_config(self: &Arc<Self>) -> Result<ServerConfig, Fault> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| {
            Fault::fatal("setting up TLS", Blame::Defect, error).with_remedy("report this")
        })?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = ALPN.map(Vec::from).into();
        Ok(config)
    }

    /// Reads the files again where they changed; what cannot be read leaves the certificate as it is.
    pub(super) fn renew(&self) {
        let changed = [modified(&self.cert), modified(&self.key)];
        if changed == *self.changed.read().unwrap_or_else(PoisonError::into_inner) {
            return;
        }
        *self.changed.write().unwrap_or_else(PoisonError::into_inner) = changed;
        match read(&self.cert, &self.key) {
            Ok(new) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                info!(cert = %self.cert.display(), "the certificate was renewed");
            }
            Err(error) => {
                warn!(cert = %self.cert.display(), %error, "the certificate changed and cannot be used; the one before stays");
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn read(cert: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let named = |path: &Path, why: &dyn std::fmt::Display| format!("`{}`: {why}", path.display());
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| named(cert, &error))?;
    if chain.is_empty() {
        return Err(named(cert, &"it holds no certificate in PEM form"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| named(key, &error))?;
    CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| named(key, &error))
}
