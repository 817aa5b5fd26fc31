//! TLS as libpq's `sslmode` words mean it, one configuration for replication and SQL connections alike.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::db::rfc5912;

use crate::url::{SslMode, Url};

/// The protocol name that PostgreSQL 17 and later expect, and that older ones ignore.
const ALPN: &[u8] = b"postgresql";

/// Why TLS cannot be set up, before anything was connected.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, unreadable or not PEM.
    #[error("could not read `{key}` from `{path}`")]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A file that should hold certificates holds none.
    #[error("`{key}` names `{path}`, which holds no certificate in PEM form")]
    Empty {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Nothing to verify against.
    #[error("the system has no trusted certificates; name a file with `sslrootcert`")]
    NoRoots,
    /// rustls refuses what the files hold.
    #[error("could not use the certificates of `sslrootcert`, `sslcert` or `sslkey`")]
    Refused(#[from] rustls::Error),
}

/// Builds the configuration; `None` where `sslmode` is `disable`.
pub(crate) fn client_config(url: &Url) -> Result<Option<ClientConfig>, TlsError> {
    // the provider is named, so that no process-wide default is needed
    let provider = Arc::new(ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let check = match (url.ssl_mode, &url.ssl_root_cert) {
        (SslMode::Disable, _) => return Ok(None),
        (SslMode::Prefer, _) | (SslMode::Require, None) => Check::Nothing,
        // as in libpq: whoever names certificates wants them used
        (SslMode::Require, Some(_)) | (SslMode::VerifyCa, _) => Check::Chain(roots(url)?),
        (SslMode::VerifyFull, _) => Check::ChainAndName(roots(url)?),
    };
    let builder = match check {
        Check::ChainAndName(roots) => builder.with_root_certificates(roots),
        Check::Chain(roots) => nameless(builder, &provider, Some(roots)),
        Check::Nothing => nameless(builder, &provider, None),
    };
    let mut config = match &url.ssl_identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates("sslcert", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
                key: "sslkey",
                path: key.clone(),
                source,
            })?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Some(config))
}

/// How much of the server's certificate is verified.
enum Check {
    Nothing,
    Chain(RootCertStore),
    ChainAndName(RootCertStore),
}

fn roots(url: &Url) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match &url.ssl_root_cert {
        Some(path) => {
            for certificate in certificates("sslrootcert", path)? {
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

type Unverified = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;
type Verified = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn nameless(builder: Unverified, provider: &CryptoProvider, roots: Option<RootCertStore>) -> Verified {
    let algorithms = provider.signature_verification_algorithms;
    builder.dangerous().with_custom_certificate_verifier(Arc::new(Nameless { roots, algorithms }))
}

/// Verifies what `require` and `verify-ca` promise: never the name, and the chain only where there are roots.
/// That the server owns the certificate's key is always verified; channel binding rests on it.
#[derive(Debug)]
struct Nameless {
    roots: Option<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Nameless {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The hash of the server's certificate that binds SCRAM to this channel (RFC 5929, `tls-server-end-point`):
/// by the certificate's own signature hash, SHA-256 in place of weaker ones. `None` where the signature has no
/// hash of its own (Ed25519), and then there is no binding. The SQL connections' library decides the same way.
pub(crate) fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    match parsed.signature_algorithm.oid {
        rfc5912::ID_SHA_1
        | rfc5912::ID_SHA_256
        | rfc5912::SHA_1_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
        | rfc5912::ECDSA_WITH_SHA_256 => Some(Sha256::digest(certificate).to_vec()),
        rfc5912::ID_SHA_384 | rfc5912::SHA_384_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_384 => {
            Some(Sha384::digest(certificate).to_vec())
        }
        rfc5912::ID_SHA_512 | rfc5912::SHA_512_WITH_RSA_ENCRYPTION => {
            Some(Sha512::digest(certificate).to_vec())
        }
        _ => None,
    }
}

/// What to do about a handshake that failed, where rustls's own words do not say it.
pub(crate) fn remedy(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as Certificate;
    match error {
        rustls::Error::InvalidCertificate(problem) => match problem {
            Certificate::UnknownIssuer => "; name the issuer's certificate with `sslrootcert`",
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                "; the host must be among the certificate's subject alternative names, or use `sslmode=verify-ca`"
            }
            Certificate::Expired | Certificate::ExpiredContext { .. } => "; renew the server's certificate",
            Certificate::Other(_) => {
                "; a certificate that is its own authority cannot be used as a server's: \
                 issue it with `basicConstraints=CA:FALSE`"
            }
            _ => "",
        },
        rustls::Error::AlertReceived(_) => {
            "; the server may demand a client certificate (`sslcert`, `sslkey`)"
        }
        _ => "",
    }
}
