//! One connection of the workload: transaction after transaction, across every loss of the server.
//!
//! A COMMIT whose answer never came is resolved before anything else happens to its keys. Each transaction writes
//! a row with its tag first; afterwards that very row is inserted again as `not committed`. The unique index makes
//! this wait for the transaction if it is still under way, and the insert succeeds only if it was rolled back. (A
//! transaction id would not do: after a crash one that never reached the disk is used again.)

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::book::Book;
use super::draft::Draft;
use super::statement;

/// How long a server may be away before the workload gives up: more than the longest outage of any run.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long one transaction may take: far more than any does, so that a hang ends the test and says where.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(120);

/// Between two attempts to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// How long one attempt to connect may take: a proxy may accept and say nothing.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The connection or the server is gone; what was not committed never will be.
#[derive(Debug)]
pub(super) struct Lost;

impl Lost {
    /// Judges an error: of a server that goes, or of ours, which panics.
    pub(super) fn or_panic(error: tokio_postgres::Error, doing: &str) -> Lost {
        let going = error.code().is_some_and(|code| code.code().starts_with("57P"));
        let io = error.source().is_some_and(|source| source.is::<std::io::Error>());
        assert!(
            going || io || error.is_closed(),
            "the workload's own statement failed: {error:?}, in: {doing}"
        );
        Lost
    }
}

/// What a transaction does in the end.
enum End {
    Commit,
    RollBack,
}

/// One connection of the workload.
pub(super) struct Connection {
    pub(super) config: Config,
    pub(super) book: Arc<Book>,
    pub(super) rng: StdRng,
    /// Between two transactions, on average.
    pub(super) pause: Duration,
}

impl Connection {
    /// Writes until told to stop; every outcome is known when this returns.
    pub(super) async fn run(mut self, stop: watch::Receiver<bool>) {
        let book = Arc::clone(&self.book);
        let mut client = self.connect().await;
        while !*stop.borrow() {
            let mut draft = Draft::new(&book);
            let end = match timeout(TRANSACTION_LIMIT, self.write(&client, &mut draft)).await {
                Ok(end) => end,
                Err(_) => panic!("transaction {} of the workload hangs", draft.tag),
            };
            let committed = match end {
                Ok(End::Commit) => match self.commit(&client, draft.tag).await {
                    Ok(()) => true,
                    Err(Lost) => self.was_committed(&mut client, draft.tag).await,
                },
                Ok(End::RollBack) | Err(Lost) => false,
            };
            draft.settle(committed);
            if client.is_closed() || end.is_err() {
                client = self.connect().await;
            }
            self.rest().await;
        }
    }

    /// Commits; now and then it hangs up before the answer, as a crash of the server seldom manages to.
    async fn commit(&mut self, client: &Client, tag: i64) -> Result<(), Lost> {
        let hang_up = self.rng.random_ratio(1, 100);
        let patience = if hang_up { Duration::ZERO } else { TRANSACTION_LIMIT };
        match timeout(patience, client.batch_execute("COMMIT")).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Lost::or_panic(error, "COMMIT")),
            Err(_) if hang_up => Err(Lost),
            Err(_) => panic!("the COMMIT of transaction {tag} of the workload hangs"),
        }
    }

    async fn rest(&mut self) {
        let pause = self.pause.mul_f64(self.rng.random_range(0.0..2.0));
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }

    async fn connect(&self) -> Client {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let error = match timeout(CONNECT_LIMIT, self.config.connect(NoTls)).await {
                Ok(Ok((client, connection))) => {
                    // Ends by itself when the client is dropped; what went wrong with it, the client is told.
                    tokio::spawn(connection);
                    return client;
                }
                Ok(Err(error)) => format!("{error:?}"),
                Err(_) => format!("no answer within {CONNECT_LIMIT:?}"),
            };
            assert!(Instant::now() < give_up, "the workload could not connect for {PATIENCE:?}: {error}");
            sleep(RECONNECT_PAUSE).await;
        }
    }

    /// Whether a transaction was committed whose COMMIT had no answer.
    async fn was_committed(&self, client: &mut Client, tag: i64) -> bool {
        self.book.note_unanswered();
        loop {
            *client = self.connect().await;
            let fence =
                format!("INSERT INTO ledger.outcomes VALUES ({tag}, false) ON CONFLICT (tag) DO NOTHING");
            let fenced = match timeout(TRANSACTION_LIMIT, client.batch_execute(&fence)).await {
                Ok(fenced) => fenced,
                Err(_) => panic!("the transaction {tag} of a connection that is gone does not end"),
            };
            if let Err(error) = fenced {
                Lost::or_panic(error, &fence);
                continue;
            }
            let sql = format!("SELECT committed FROM ledger.outcomes WHERE tag = {tag}");
            match client.query_one_scalar(&sql, &[]).await {
                Ok(committed) => return committed,
                Err(error) => Lost::or_panic(error, &sql),
            };
        }
    }

    /// Everything of a transaction but its end.
    async fn write(&mut self, client: &Client, draft: &mut Draft<'_>) -> Result<End, Lost> {
        draft.xid = begin(client, draft.tag).await?;
        let rng = &mut self.rng;
        if rng.random_ratio(1, 100) {
            statement::truncate(client, draft, rng).await?;
        }
        let steps = if rng.random_ratio(1, 50) { rng.random_range(30..60) } else { rng.random_range(1..=6) };
        for _ in 0..steps {
            match rng.random_range(0..100) {
                0..22 => statement::insert(client, draft, rng).await?,
                22..29 => statement::copy(client, draft, rng).await?,
                29..37 => statement::upsert(client, draft, rng).await?,
                37..63 => statement::update(client, draft, rng).await?,
                63..72 => statement::change_key(client, draft, rng).await?,
                72..84 => statement::delete(client, draft, rng).await?,
                84..95 => statement::savepoint(client, draft, rng).await?,
                // Time for others to commit in between, so that transactions end in another order than they began.
                _ => sleep(Duration::from_millis(rng.random_range(1..20))).await,
            }
        }
        if rng.random_ratio(1, 8) {
            let sql = "ROLLBACK";
            client.batch_execute(sql).await.map_err(|error| Lost::or_panic(error, sql))?;
            return Ok(End::RollBack);
        }
        Ok(End::Commit)
    }
}

/// Opens a transaction and leaves its tag; gives the number that PostgreSQL has for it.
async fn begin(client: &Client, tag: i64) -> Result<u64, Lost> {
    let sql = format!(
        "BEGIN; INSERT INTO ledger.outcomes VALUES ({tag}, true) RETURNING pg_current_xact_id()::text"
    );
    let messages = client.simple_query(&sql).await.map_err(|error| Lost::or_panic(error, &sql))?;
    let xid = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    });
    Ok(xid.expect("an INSERT with RETURNING gives its row"))
}
