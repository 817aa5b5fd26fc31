//! Sessions that write into `items` as fast as the server takes it, while it is copied.
//!
//! Each has keys of its own, so that the versions of a key grow in the order of its commits.

use forebay_integration::Database;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};
use tokio_postgres::Client;

/// What a changed key is moved by, far away from every other key.
const MOVED: i64 = 10_000_000;

/// The sessions at work.
pub(super) struct Writers {
    sessions: JoinSet<u64>,
    stop: watch::Sender<bool>,
}

/// One session.
struct Writer {
    client: Client,
    rng: StdRng,
    /// Its number and how many there are: the keys whose remainder this is are its own.
    part: (i64, i64),
    /// The keys of the table when it was filled.
    rows: i64,
    version: i64,
    truncates: bool,
}

impl Writers {
    /// Lets `count` sessions write into a table that has the keys 1 to `rows`.
    pub(super) async fn start(db: &Database, rows: u32, count: u32) -> Writers {
        Writers::begin(db, rows, count, false).await
    }

    /// The same, and now and then one of them takes all rows away.
    pub(super) async fn start_truncating(db: &Database, rows: u32, count: u32) -> Writers {
        Writers::begin(db, rows, count, true).await
    }

    async fn begin(db: &Database, rows: u32, count: u32, truncates: bool) -> Writers {
        let stop = watch::Sender::new(false);
        let mut sessions = JoinSet::new();
        let seed: u64 = rand::random();
        eprintln!("writers: seed {seed}");
        for number in 0..count {
            let writer = Writer {
                client: db.connect().await,
                rng: StdRng::seed_from_u64(seed.wrapping_add(number.into())),
                part: (number.into(), count.into()),
                rows: rows.into(),
                version: 0,
                truncates: truncates && number == 0,
            };
            sessions.spawn(writer.run(stop.subscribe()));
        }
        Writers { sessions, stop }
    }

    /// Lets each finish its transaction; gives how many were committed.
    pub(super) async fn stop(mut self) -> u64 {
        self.stop.send_replace(true);
        let mut committed = 0;
        while let Some(session) = self.sessions.join_next().await {
            committed += session.unwrap();
        }
        committed
    }
}

impl Writer {
    async fn run(mut self, stop: watch::Receiver<bool>) -> u64 {
        let mut committed = 0;
        while !*stop.borrow() {
            if self.transaction().await {
                committed += 1;
            }
        }
        committed
    }

    /// One transaction; whether it was committed.
    async fn transaction(&mut self) -> bool {
        self.execute("BEGIN".to_owned()).await;
        if self.truncates && self.rng.random_ratio(1, 200) {
            self.execute("TRUNCATE items".to_owned()).await;
        }
        for _ in 0..self.rng.random_range(1..=4) {
            let statement = self.statement();
            self.execute(statement).await;
        }
        if self.rng.random_ratio(1, 20) {
            // Others commit and chunks are read while this one is open.
            sleep(Duration::from_millis(self.rng.random_range(1..60))).await;
        }
        let commits = !self.rng.random_ratio(1, 10);
        self.execute(if commits { "COMMIT" } else { "ROLLBACK" }.to_owned()).await;
        commits
    }

    async fn execute(&self, statement: String) {
        let done = self.client.batch_execute(&statement).await;
        done.unwrap_or_else(|error| panic!("{error:?} in: {statement}"));
    }

    /// A change of one of its own keys. Changes of rows that are not there change nothing.
    fn statement(&mut self) -> String {
        let (number, count) = self.part;
        let id = self.rng.random_range(0..self.rows / count) * count + number + 1;
        self.version += 1;
        let version = self.version;
        match self.rng.random_range(0..10) {
            0..4 => format!("UPDATE items SET version = {version}, label = 'w{version}' WHERE id = {id}"),
            4 => format!(
                "UPDATE items SET version = {version}, body = repeat('u', 2500 + {id} % 100) WHERE id = {id}"
            ),
            5..7 => format!("DELETE FROM items WHERE id = {id}"),
            7 => format!(
                "INSERT INTO items VALUES ({id}, {version}, 'again', repeat('i', {id} % 2 * 3000)) \
                 ON CONFLICT (id) DO UPDATE SET version = excluded.version, label = 'upserted'"
            ),
            8 => format!(
                "UPDATE items SET id = {id} + {MOVED}, version = {version} WHERE id = {id} \
                 AND NOT EXISTS (SELECT FROM items WHERE id = {id} + {MOVED})"
            ),
            _ => format!(
                "UPDATE items SET id = {id}, version = {version} WHERE id = {id} + {MOVED} \
                 AND NOT EXISTS (SELECT FROM items WHERE id = {id})"
            ),
        }
    }
}
