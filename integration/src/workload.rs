//! A random workload that knows what it committed.
//!
//! Several connections write to several tables: inserts of one row and of many, `COPY`, upserts, updates, changes
//! of keys, deletes, truncations, savepoints, rollbacks, short pauses; they come back whenever the server was
//! killed. In the [`Ledger`] stands every change that was committed, for each key in commit order, and nothing
//! else: also a COMMIT whose answer was lost is known to have happened or not. At the end the ledger is held
//! against the tables themselves, so that a verdict built on it is founded.
//!
//! One seed decides what each connection writes; how the connections interleave is the machine's.

mod book;
mod connection;
mod contents;
mod draft;
mod ledger;
mod statement;
mod tables;
mod values;

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_postgres::{Config, NoTls};

pub use contents::Contents;
pub(crate) use contents::short;
pub use ledger::{Change, Ledger, Op};
pub use tables::{Column, Identity, Key, Kind, Row, SCHEMA, TABLES, Table, Value};

use book::Book;
use connection::Connection;

/// How long a run may go without committing what a test waits for, the longest outage included.
const STALL_LIMIT: Duration = Duration::from_secs(240);

/// What a run of the workload is like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Decides every statement; a failed run prints it.
    pub seed: u64,
    /// How many connections write at the same time.
    pub connections: u64,
    /// How long a connection rests between two transactions, on average; zero for all that the server takes.
    pub pause: Duration,
}

impl Settings {
    /// The seed of `FOREBAY_SEED`, or one of its own, said on stderr; four connections and a moderate pace.
    pub fn random() -> Settings {
        let seed = match std::env::var("FOREBAY_SEED") {
            Ok(seed) => seed.parse().expect("`FOREBAY_SEED` is a whole number"),
            Err(_) => rand::random(),
        };
        eprintln!("workload: FOREBAY_SEED={seed}");
        Settings { seed, connections: 4, pause: Duration::from_millis(10) }
    }
}

/// A workload at work. Dropping it stops it wherever it is; [`Workload::stop`] is how to learn what it did.
pub struct Workload {
    config: Config,
    seed: u64,
    book: Arc<Book>,
    connections: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Workload {
    /// Makes the tables of the workload in a database, so that a daemon can be started on them.
    pub async fn create_tables(url: &str) {
        let (client, connection) =
            parse(url).connect(NoTls).await.expect("the workload connects to make its tables");
        let made = async {
            tables::create(&client).await.expect("the workload makes its tables");
            drop(client);
        };
        let (connected, ()) = tokio::join!(connection, made);
        connected.expect("the connection lasts while the tables are made");
    }

    /// Begins to write into the tables that [`Workload::create_tables`] made.
    pub fn start(url: &str, settings: &Settings) -> Workload {
        let config = parse(url);
        let book = Arc::new(Book::new());
        let stop = watch::Sender::new(false);
        let mut connections = JoinSet::new();
        for number in 0..settings.connections {
            let connection = Connection {
                config: config.clone(),
                book: Arc::clone(&book),
                rng: StdRng::seed_from_u64(settings.seed.wrapping_add(number)),
                pause: settings.pause,
            };
            connections.spawn(connection.run(stop.subscribe()));
        }
        Workload { config, seed: settings.seed, book, connections, stop }
    }

    /// How many transactions were committed so far.
    pub fn committed(&self) -> u64 {
        *self.book.committed().borrow()
    }

    /// The newest version that was given out: whatever has a higher one is committed later.
    pub fn last_version(&self) -> i64 {
        self.book.last_version()
    }

    /// Waits until that many more transactions are committed.
    pub async fn commits(&mut self, more: u64) {
        let mut committed = self.book.committed();
        let wanted = *committed.borrow() + more;
        tokio::select! {
            biased;
            ended = self.connections.join_next() => self.expect_no_panic(ended),
            reached = timeout(STALL_LIMIT, committed.wait_for(|so_far| *so_far >= wanted)) => match reached {
                Ok(reached) => drop(reached.expect("the book is there as long as the workload")),
                Err(_) => panic!("the workload stalls (seed {})", self.seed),
            },
        }
    }

    fn expect_no_panic(&self, ended: Option<Result<(), JoinError>>) {
        if let Some(Err(error)) = ended {
            panic!("a connection of the workload (seed {}) failed: {error}", self.seed);
        }
    }

    /// Lets every connection finish its transaction; gives what was committed and what the tables hold.
    ///
    /// Panics when the two do not agree: then the ledger is wrong, and every verdict built on it would be.
    pub async fn stop(mut self) -> (Ledger, Contents) {
        self.stop.send_replace(true);
        while let Some(ended) = self.connections.join_next().await {
            self.expect_no_panic(Some(ended));
        }
        let ledger = self.book.ledger();
        let contents = self.read_tables().await;
        let differences = ledger.contents().differences("the ledger", &contents, "the table");
        let some = &differences[..differences.len().min(5)];
        assert!(
            some.is_empty(),
            "the ledger is wrong (seed {}) in {} rows: {some:#?}",
            self.seed,
            differences.len()
        );
        (ledger, contents)
    }

    async fn read_tables(&self) -> Contents {
        let (client, connection) =
            self.config.connect(NoTls).await.expect("the workload connects to read its tables");
        let read = async {
            let contents = Contents::read(&client).await.expect("the workload reads its tables");
            drop(client);
            contents
        };
        let (connected, contents) = tokio::join!(connection, read);
        connected.expect("the connection lasts while the tables are read");
        contents
    }
}

fn parse(url: &str) -> Config {
    url.parse().expect("the URL of a database names it as PostgreSQL's own clients do")
}
