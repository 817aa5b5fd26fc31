//! A database that no other test sees.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{Client, NoTls, Row};

use crate::{PATIENCE, unique};

/// How often a condition is asked for: it depends on what other processes do, and SQL has no event for it.
const ASK_PAUSE: Duration = Duration::from_millis(20);

/// One database, and a session on it that comes back after a restart of the server.
#[derive(Debug)]
pub struct Database {
    url: String,
    name: String,
    session: Mutex<Option<Arc<Client>>>,
}

impl Database {
    /// Creates a database whose name begins with `name` on the server of `url`.
    pub(crate) async fn create(url: &str, name: &str) -> Self {
        let name = unique(name);
        connect(url).await.batch_execute(&format!("create database {name}")).await.expect("its name is new");
        let server = url.rsplit_once('/').expect("a URL ends with the database's name").0;
        Self { url: format!("{server}/{name}"), name, session: Mutex::new(None) }
    }

    /// Where a client finds it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name, which is also good for a slot and a publication of this test.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A session of the test's own, for transactions that overlap.
    pub async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// Runs one or several statements; several are one transaction.
    pub async fn execute(&self, statements: &str) {
        let done = self.session().await.batch_execute(statements).await;
        done.unwrap_or_else(|error| panic!("{}\nwhile running: {statements}", said(&error)));
    }

    /// The rows that a query gives.
    pub async fn query(&self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        let rows = self.session().await.query(query, parameters).await;
        rows.unwrap_or_else(|error| panic!("{}\nwhile asking: {query}", said(&error)))
    }

    /// The first column of a query's only row.
    pub async fn value<T: FromSqlOwned>(&self, query: &str) -> T {
        let rows = self.query(query, &[]).await;
        assert_eq!(rows.len(), 1, "one row was expected from: {query}");
        rows[0].try_get(0).unwrap_or_else(|error| panic!("{error}, the first column of: {query}"))
    }

    /// Inserts one row, given as a JSON object; columns it does not name get their defaults.
    pub async fn insert(&self, table: &str, row: Value) {
        let columns = row.as_object().expect("a row is a JSON object").keys();
        let columns =
            columns.map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect::<Vec<_>>().join(", ");
        let statement = format!(
            "insert into {table} ({columns}) select {columns} from json_populate_record(null::{table}, $1::text::json)"
        );
        self.query(&statement, &[&row.to_string()]).await;
    }

    /// Waits until a query of one boolean says true.
    pub async fn wait_until(&self, condition: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.value::<Option<bool>>(condition).await.unwrap_or(false) {
            assert!(Instant::now() < deadline, "after {PATIENCE:?} this is still not true: {condition}");
            sleep(ASK_PAUSE).await;
        }
    }

    async fn session(&self) -> Arc<Client> {
        let held = self.session.lock().expect("nothing panics while it is locked").clone();
        if let Some(client) = held.filter(|client| !client.is_closed()) {
            return client;
        }
        let client = Arc::new(self.connect().await);
        *self.session.lock().expect("nothing panics while it is locked") = Some(client.clone());
        client
    }
}

/// The connection's task ends with its client, or with the test's runtime.
async fn connect(url: &str) -> Client {
    let connected = tokio_postgres::connect(url, NoTls).await;
    let (client, connection) =
        connected.unwrap_or_else(|error| panic!("cannot connect to {url}: {}", said(&error)));
    tokio::spawn(async move {
        // The statement that was running gets the error too, and it is there that a test sees it.
        let _ = connection.await;
    });
    client
}

fn said(error: &tokio_postgres::Error) -> String {
    crate::with_causes(error)
}
