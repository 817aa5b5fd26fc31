//! A real PgBouncer between us and the server.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

use forebay::demo::process::Process;
use forebay_integration::{PATIENCE, Signal, free_ports};
use tempfile::TempDir;

use super::*;

/// Where Debian puts it, which is on no ordinary user's path.
const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// A PgBouncer in front of one server.
struct Pooler {
    port: u16,
    _process: Process,
    _dir: TempDir,
}

impl Pooler {
    /// Starts it. As root it runs as `nobody`, since it refuses root.
    fn before(server: &Postgres, more: &str) -> Pooler {
        let dir = tempfile::Builder::new().prefix("forebay-pgbouncer-").tempdir().unwrap();
        let port = free_ports(1);
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\n{more}\n",
            server.server.port()
        )
        .replace("* = host=127.0.0.1", "* = user=postgres host=127.0.0.1");
        std::fs::write(dir.path().join("pgbouncer.ini"), config).unwrap();
        open(dir.path());
        let mut command = Command::new(PROGRAM);
        if std::fs::metadata("/proc/self").is_ok_and(|of| std::os::unix::fs::MetadataExt::uid(&of) == 0) {
            command.args(["-u", "nobody"]);
        }
        command.arg(dir.path().join("pgbouncer.ini"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::spawn(&mut command, Signal::KILL, None).unwrap_or_else(|error| {
            panic!("cannot run `{PROGRAM}`: {error}; `integration/run --bring` installs it")
        });
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "PgBouncer does not listen within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Pooler { port, _process: process, _dir: dir }
    }

    /// The way to a database through it.
    fn url(&self, db: &Database) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}?sslmode=disable", self.port, db.name())
    }
}

/// Lets every user in.
fn open(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    for path in [folder.to_owned(), folder.join("pgbouncer.ini")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[tokio::test]
async fn a_pooler_is_named_whether_it_refuses_what_we_bring_or_swallows_it() {
    let server = Postgres::shared(15).await;
    let db = server.database("pooled").await;
    db.execute("create table orders (id int primary key)").await;

    let strict = Pooler::before(server, "");
    let source = Source::of(&db, json!({"url": strict.url(&db)}));
    let [refused] = &source.check().await[..] else {
        panic!("one finding is all: {:#?}", source.check().await)
    };
    let trouble = refused.trouble.clone().unwrap();
    assert_eq!(trouble.blame, Some(Blame::Configuration), "{refused:#?}");
    assert!(trouble.remedy.contains("pooler"), "{refused:#?}");

    let lenient = Pooler::before(server, "ignore_startup_parameters = options");
    let source = Source::of(&db, json!({"url": lenient.url(&db)}));
    let finding = source.finding("leads to a pooler such as PgBouncer").await;
    let trouble = finding.trouble.unwrap();
    assert_eq!(trouble.blame, Some(Blame::Configuration));
    let itself =
        format!("-- connect to the server itself; it answers at 127.0.0.1, port {}", server.server.port());
    assert_eq!(trouble.remedy, itself);
    Source::of(&db, json!({})).is_ready().await;
}
