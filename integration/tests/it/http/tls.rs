//! Receivers behind TLS, also such that ask who we are.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::*;

/// What speaks TLS in front of a receiver: `ca.pem`, `client.pem` and `client.key` are in its folder.
struct Front {
    port: u16,
    folder: TempDir,
    _tasks: JoinSet<()>,
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key as files of this name.
fn issue(authority: &Authority, name: &str, folder: &Path) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, authority).unwrap();
    let files = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    std::fs::write(&files.0, certificate.pem()).unwrap();
    std::fs::write(&files.1, key.serialize_pem()).unwrap();
    files
}

impl Front {
    async fn of(receiver: &Receiver, asks_who: bool) -> Front {
        // An error says that another test was first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let authority = authority();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let (certificate, key) = issue(&authority, "server", folder.path());
        issue(&authority, "client", folder.path());
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let builder = ServerConfig::builder();
        let builder = if asks_who {
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder(roots.into()).build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
        let mut config = builder.with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, behind) = (listener.local_addr().unwrap().port(), receiver.port());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    // A client that does not like us, or whom we do not like, has no connection.
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let mut server = TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
                    copy_bidirectional(&mut client, &mut server).await.ok();
                });
            }
        });
        Front { port, folder, _tasks: tasks }
    }

    fn url(&self, host: &str) -> String {
        format!("https://{host}:{}/in", self.port)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

async fn refused(url: &str, config: Value) -> (String, String) {
    let fault = first_attempt(&*destination(url, config), &events(0, 1)).await.1.unwrap_err();
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{fault:?}");
    (fault.to_string(), fault.remedy().unwrap().to_owned())
}

#[tokio::test]
async fn a_receiver_is_trusted_for_its_authority_and_name_alone() {
    let receiver = Receiver::start().await;
    let front = Front::of(&receiver, false).await;
    let trusted = json!({"tls": {"ca": front.file("ca.pem")}});
    first_attempt(&*destination(&front.url("localhost"), trusted.clone()), &events(0, 1)).await.1.unwrap();
    assert_eq!(receiver.taken(), records([0]));
    let (said, remedy) = refused(&front.url("localhost"), json!({})).await;
    assert!(said.contains("UnknownIssuer") && remedy.contains("tls.ca"), "{said}; {remedy}");
    let (said, remedy) = refused(&front.url("127.0.0.1"), trusted).await;
    assert!(said.contains("not valid for name") && remedy.contains("url"), "{said}; {remedy}");
    assert_eq!(receiver.taken().len(), 1);
}

#[tokio::test]
async fn a_receiver_that_asks_who_we_are_is_told() {
    let receiver = Receiver::start().await;
    let front = Front::of(&receiver, true).await;
    let (ca, cert, key) = (front.file("ca.pem"), front.file("client.pem"), front.file("client.key"));
    let config = json!({"tls": {"ca": ca, "cert": cert, "key": key}});
    first_attempt(&*destination(&front.url("localhost"), config), &events(0, 1)).await.1.unwrap();
    assert_eq!(receiver.taken(), records([0]));
    let (said, remedy) = refused(&front.url("localhost"), json!({"tls": {"ca": ca}})).await;
    assert!(remedy.contains("tls.cert"), "{said}; {remedy}");
}

#[tokio::test]
async fn files_that_cannot_be_read_are_named() {
    let config = json!({"tls": {"ca": "/nowhere/ca.pem"}});
    let fault = destination("https://localhost:1/", config).open().await.unwrap_err();
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{fault:?}");
    assert!(fault.to_string().contains("`tls.ca` from `/nowhere/ca.pem`"), "{fault}");
}
