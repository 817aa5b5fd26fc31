//! The suite against PostgreSQL as a source, oldest, middle and newest.

use std::cmp::Ordering;
use std::fmt::Write;
use std::ops::Range;

use forebay_api::testing::source::{SourceRig, conform};
use forebay_api::{Event, Position, Source, SourceConnector, SourceSetting};
use forebay_integration::{Database, Postgres, Stop, unique};
use forebay_postgres::PostgresSource;
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// How many changes share a transaction.
const TRANSACTION: usize = 7;

/// Each check has a database and a slot of its own.
struct Rig {
    database: Database,
    slot: String,
    /// The check that restarts the server has a server of its own.
    own: Option<Mutex<Postgres>>,
}

impl Rig {
    async fn new(check: &str, major: u16) -> Rig {
        let own = if check == "a_server_that_restarts_loses_nothing" {
            Some(Postgres::start(major, &[]).await)
        } else {
            None
        };
        let server = match &own {
            Some(server) => server,
            None => Postgres::shared(major).await,
        };
        let database = server.database("conformance").await;
        database.execute("create table numbered (number bigint primary key, text text)").await;
        Rig { database, slot: unique("conformance"), own: own.map(Mutex::new) }
    }
}

#[async_trait::async_trait]
impl SourceRig for Rig {
    async fn build(&self) -> Box<dyn Source> {
        let config = json!({
            "url": self.database.url(), "tables": ["public.numbered"], "snapshot": "never", "heartbeat": "500ms",
            "publication": self.slot, "slot": self.slot,
        });
        let setting =
            SourceSetting { name: "db".to_owned(), vendor: "com.example".to_owned(), dry_run: false };
        let config = serde_json::from_value(config).expect("it has all it needs");
        PostgresSource::build(config, &setting).expect("its configuration is right")
    }

    async fn write(&self, numbers: Range<u64>) {
        let mut statements = String::new();
        let numbers: Vec<u64> = numbers.collect();
        for transaction in numbers.chunks(TRANSACTION) {
            statements.push_str("begin;");
            for number in transaction {
                write!(statements, "insert into numbered values ({number}, 'the {number}th of many');")
                    .unwrap();
            }
            statements.push_str("commit;");
        }
        self.database.execute(&statements).await;
    }

    fn number(&self, event: Event<'_>) -> Option<u64> {
        if event.subject().table.as_deref() != Some("numbered") {
            return None;
        }
        let row: Value = serde_json::from_slice(event.payload()).expect("a payload is JSON");
        row["number"].as_u64()
    }

    async fn confirmed(&self, position: &Position) -> Option<Ordering> {
        let position: Value = serde_json::from_slice(&position.0).expect("a position is JSON");
        let lsn = position["lsn"].as_str().expect("the slot exists");
        let difference = format!(
            "select sign(pg_wal_lsn_diff(confirmed_flush_lsn, '{lsn}'))::int from pg_replication_slots \
             where slot_name = '{}'",
            self.slot
        );
        Some(self.database.value::<i32>(&difference).await.cmp(&0))
    }

    fn can_restart(&self) -> bool {
        self.own.is_some()
    }

    async fn stop_server(&self) {
        self.own.as_ref().unwrap().lock().await.stop(Stop::Immediate).await;
    }

    async fn start_server(&self) {
        self.own.as_ref().unwrap().lock().await.start_again().await;
    }
}

async fn conforms(major: u16) {
    conform(&[], async |check| Rig::new(check, major).await).await;
}

/// Side by side, because some checks wait long for something that must not happen.
#[tokio::test(flavor = "multi_thread")]
async fn the_source_conforms_on_postgresql_13_15_and_18() {
    tokio::join!(conforms(13), conforms(15), conforms(18));
}
