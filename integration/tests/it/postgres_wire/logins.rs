//! Every way to log in, over both kinds of connection, which must agree.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use forebay_integration::{Database, Postgres, with_causes};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
};

use super::*;

/// A server with TLS and one role for each way to log in.
struct Secured {
    postgres: Postgres,
    database: Database,
    /// `ca.pem`, `other-ca.pem`, `client.pem`, `client.key`, `password`.
    folder: tempfile::TempDir,
}

const PG_HBA: &str = "
host    all postgres  127.0.0.1/32 trust
host    all scram     127.0.0.1/32 scram-sha-256
host    all md5       127.0.0.1/32 md5
host    all plain     127.0.0.1/32 password
hostssl all certified 127.0.0.1/32 cert
";

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn certificate(
    authority: &CertifiedIssuer<'static, KeyPair>,
    common_name: &str,
    names: &[&str],
    algorithm: &'static SignatureAlgorithm,
) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let key = KeyPair::generate_for(algorithm).unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

impl Secured {
    /// The certificate is for `localhost` and not for the address.
    async fn start(major: u16, issuer_algorithm: &'static SignatureAlgorithm) -> Secured {
        let mut postgres = Postgres::start(major, &[]).await;
        let database = postgres.database("logins").await;
        database
            .execute(
                "set password_encryption = 'scram-sha-256';
                 create role scram login replication superuser password 'sécret ''1';
                 create role plain login replication superuser password 'sécret ''1';
                 create role certified login replication superuser;
                 set password_encryption = 'md5';
                 create role md5 login replication superuser password 'sécret ''1'",
            )
            .await;
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "issuer");
        let issuer =
            CertifiedIssuer::self_signed(params, KeyPair::generate_for(issuer_algorithm).unwrap()).unwrap();
        let (server, key) = certificate(&issuer, "server", &["localhost"], &PKCS_ECDSA_P256_SHA256);
        let (client, client_key) = certificate(&issuer, "certified", &[], &PKCS_ECDSA_P256_SHA256);
        let data = postgres.server.data_dir();
        for (name, contents) in [
            ("server.crt", server.as_str()),
            ("server.key", &key),
            ("ca.crt", &issuer.pem()),
            ("pg_hba.conf", PG_HBA),
        ] {
            place(&data, name, contents);
        }
        for (name, contents) in [
            ("ca.pem", issuer.pem().as_str()),
            ("other-ca.pem", &authority("other").pem()),
            ("client.pem", &client),
            ("client.key", &client_key),
            ("password", "sécret '1\n"),
        ] {
            std::fs::write(folder.path().join(name), contents).unwrap();
        }
        for (name, value) in [("ssl", "on"), ("ssl_cert_file", "server.crt"), ("ssl_ca_file", "ca.crt")] {
            postgres.server.set(name, value);
        }
        postgres.restart(Stop::Fast).await;
        Secured { postgres, database, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `None` if both kinds of connection get in, else what both say.
    async fn refusal(&self, who: &str, host: &str, parameters: &str) -> Option<String> {
        let (port, name) = (self.postgres.server.port(), self.database.name());
        let folder = self.folder.path().display();
        let parameters = parameters.replace("{}", &folder.to_string());
        let server = server(&format!("postgres://{who}@{host}:{port}/{name}?{parameters}"));
        let said = |error: &dyn std::error::Error| with_causes(error);
        let replication = server.replication().await.err().map(|error| said(&error));
        let sql = server.sql().await.err().map(|error| said(&error));
        assert_eq!(replication.is_some(), sql.is_some(), "{replication:?}\n{sql:?}");
        replication
    }

    async fn gets_in(&self, who: &str, host: &str, parameters: &str) {
        if let Some(refusal) = self.refusal(who, host, parameters).await {
            panic!("{who} at {host} with {parameters}: {refusal}");
        }
    }

    async fn is_refused(&self, who: &str, host: &str, parameters: &str, why: &str) {
        let refusal = self.refusal(who, host, parameters).await;
        let refusal = refusal.unwrap_or_else(|| panic!("{who} at {host} with {parameters} got in"));
        assert!(refusal.contains(why), "{refusal}");
    }
}

/// A file that the server's own user can read, and nobody else.
fn place(folder: &Path, name: &str, contents: &str) {
    let (path, owner) = (folder.join(name), std::fs::metadata(folder).unwrap());
    std::fs::write(&path, contents).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
}

const SECRET: &str = "s%C3%A9cret%20'1";

#[tokio::test]
async fn every_login_works_on_both_kinds_of_connection_and_every_version() {
    for major in [13, 15, 18] {
        let secured = Secured::start(major, &PKCS_ECDSA_P256_SHA256).await;
        for role in ["scram", "md5", "plain"] {
            let who = format!("{role}:{SECRET}");
            for mode in ["disable", "prefer", "require", "verify-ca", "verify-full"] {
                let parameters = format!("sslmode={mode}&sslrootcert={{}}/ca.pem");
                secured.gets_in(&who, "localhost", &parameters).await;
            }
            secured.is_refused(&format!("{role}:wrong"), "localhost", "", "28P01").await;
            secured.is_refused(role, "localhost", "", "asks for a password").await;
        }
        let bound = "channel_binding=require&sslmode=require";
        secured.gets_in(&format!("scram:{SECRET}"), "localhost", bound).await;
        secured.gets_in("scram", "localhost", &format!("{bound}&password_file={{}}/password")).await;
        secured.gets_in("scram", "localhost", "password_command=cat%20{}/password").await;
        secured
            .gets_in("certified", "localhost", "sslcert={}/client.pem&sslkey={}/client.key&sslmode=require")
            .await;
        if major >= 17 {
            secured
                .gets_in(&format!("scram:{SECRET}"), "localhost", &format!("{bound}&sslnegotiation=direct"))
                .await;
        }
    }
}

#[tokio::test]
async fn what_the_url_insists_on_is_not_given_up() {
    let secured = Secured::start(15, &PKCS_ECDSA_P256_SHA256).await;
    let scram = &format!("scram:{SECRET}");
    let (ca, other) = ("sslrootcert={}/ca.pem", "sslrootcert={}/other-ca.pem");
    for (who, host, parameters, why) in [
        (scram.as_str(), "127.0.0.1", format!("sslmode=verify-full&{ca}"), "subject alternative names"),
        (scram, "localhost", format!("sslmode=verify-full&{other}"), "`sslrootcert`"),
        (scram, "localhost", format!("sslmode=verify-ca&{other}"), "`sslrootcert`"),
        (scram, "localhost", format!("sslmode=require&{other}"), "`sslrootcert`"),
        (scram, "localhost", "sslmode=disable&channel_binding=require".to_owned(), "not bound"),
        (&format!("md5:{SECRET}"), "localhost", "channel_binding=require".to_owned(), "not bound"),
        (&format!("plain:{SECRET}"), "localhost", "channel_binding=require".to_owned(), "not bound"),
        ("postgres", "localhost", "channel_binding=require".to_owned(), "not bound"),
        ("certified", "localhost", "sslmode=require".to_owned(), "certificate"),
        (scram, "localhost", "target_session_attrs=standby".to_owned(), "is a primary"),
        ("scram", "localhost", "password_command=echo%20no%20token%20>%262;exit%203".to_owned(), "no token"),
        ("scram", "localhost", "password_file={}/absent".to_owned(), "could not read the password"),
    ] {
        secured.is_refused(who, host, &parameters, why).await;
    }
    secured.gets_in(scram, "127.0.0.1", &format!("sslmode=verify-ca&{ca}")).await;
    let without_tls = Postgres::shared(15).await;
    let refused = server(&format!("{}?sslmode=require", without_tls.url("postgres"))).replication().await;
    assert!(with_causes(&refused.unwrap_err()).contains("does not offer TLS"));
}

#[tokio::test]
async fn channels_are_bound_by_the_hash_of_the_certificates_own_signature() {
    let parameters = "sslmode=verify-full&sslrootcert={}/ca.pem&channel_binding=";
    let with_sha_384 = Secured::start(15, &PKCS_ECDSA_P384_SHA384).await;
    with_sha_384.gets_in(&format!("scram:{SECRET}"), "localhost", &format!("{parameters}require")).await;
    let without_a_hash = Secured::start(15, &PKCS_ED25519).await;
    without_a_hash.gets_in(&format!("scram:{SECRET}"), "localhost", &format!("{parameters}prefer")).await;
    let required = format!("{parameters}require");
    without_a_hash.is_refused(&format!("scram:{SECRET}"), "localhost", &required, "not bound").await;
}

#[tokio::test]
async fn the_first_host_that_will_do_is_taken() {
    let database = Postgres::shared(15).await.database("hosts").await;
    let (dead, alive) = (forebay_integration::free_ports(1), Postgres::shared(15).await.server.port());
    let hosts = format!("127.0.0.1:{dead},127.0.0.1:{alive}");
    for attributes in ["any", "read-write", "primary", "prefer-standby"] {
        let url =
            format!("postgres://postgres@{hosts}/{}?target_session_attrs={attributes}", database.name());
        let server = server(&url);
        server.replication().await.unwrap();
        server.sql().await.unwrap();
    }
    let url = format!("postgres://postgres@{hosts}/{}?target_session_attrs=read-only", database.name());
    let refused = server(&url).replication().await.unwrap_err();
    let said = with_causes(&refused);
    assert!(said.contains("refused") && said.contains("is read-write"), "{said}");
}

#[tokio::test]
async fn a_stream_under_tls_is_read_and_written_from_two_threads_at_once() {
    let secured = Secured::start(15, &PKCS_ECDSA_P256_SHA256).await;
    let database = &secured.database;
    database.execute("create table orders (id int primary key, note text)").await;
    let (port, ca) = (secured.postgres.server.port(), secured.file("ca.pem"));
    let url = format!(
        "postgres://scram:{SECRET}@localhost:{port}/{}?sslmode=verify-full&sslrootcert={}",
        database.name(),
        ca.display()
    );
    let (mut reader, writer) = stream(database, &url).await;
    let encrypted = "select ssl from pg_stat_ssl join pg_stat_replication using (pid)";
    assert!(database.value::<bool>(encrypted).await);
    let reading = spawn_blocking(move || {
        let mut rows = 0;
        for _ in 0..3 {
            one_transaction(&mut reader, |message| rows += u32::from(matches!(message, Message::Insert(_))));
        }
        rows
    });
    let writing = spawn_blocking(move || {
        for _ in 0..20_000 {
            writer.status(Status { written: Lsn(1), flushed: Lsn(1), reply: true }).unwrap();
            std::thread::yield_now();
        }
    });
    database.execute("insert into orders select i, repeat('x', 200) from generate_series(1, 100000) i").await;
    database.execute("insert into orders select 0, repeat('x', 3000000)").await;
    database.execute("insert into orders values (-1, 'last')").await;
    assert_eq!(reading.await.unwrap(), 100_002);
    writing.await.unwrap();
}
