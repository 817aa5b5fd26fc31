//! The checker and the workload against a reader that cannot be wrong: PostgreSQL's own, asked in SQL.
//!
//! What the server's log says after crashes and lost COMMITs must be exactly what the workload's ledger says. Were
//! one of the two mistaken about an outcome, an order or a value, this fails without any daemon.

use std::collections::HashMap;
use std::time::Duration;

use forebay_integration::checker::{Checker, Order};
use forebay_integration::workload::{Identity, Kind, Ledger, Settings, Table, Workload};
use forebay_integration::{Database, Postgres, Stop};

/// The bytes of one message of the `pgoutput` plugin, taken from the front.
struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn number(&mut self, bytes: usize) -> u64 {
        self.bytes(bytes).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn tag(&mut self) -> char {
        char::from(self.bytes(1)[0])
    }

    fn name(&mut self) -> &'a str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap();
        let name = std::str::from_utf8(self.bytes(end)).unwrap();
        self.bytes(1);
        name
    }

    /// The values of a row; what the server left out is `Err`.
    fn row(&mut self) -> Vec<Result<Option<&'a str>, ()>> {
        let count = self.number(2);
        let mut value = |_| match self.tag() {
            'n' => Ok(None),
            'u' => Err(()),
            't' => {
                let length = usize::try_from(self.number(4)).unwrap();
                Ok(Some(std::str::from_utf8(self.bytes(length)).unwrap()))
            }
            other => panic!("`{other}` is no kind of value"),
        };
        (0..count).map(&mut value).collect()
    }
}

type Row<'a> = Vec<Result<Option<&'a str>, ()>>;

/// An object of the first `count` columns that the server sent.
fn object(table: &Table, row: &Row<'_>, count: usize) -> String {
    let json = |kind: Kind, value: &Option<&str>| match value {
        None => "null".to_owned(),
        Some("t") if kind == Kind::Bool => "true".to_owned(),
        Some("f") if kind == Kind::Bool => "false".to_owned(),
        Some(text) if kind == Kind::Text => serde_json::to_string(text).unwrap(),
        Some(text) => (*text).to_owned(),
    };
    let fields: Vec<String> = (table.columns.iter().zip(row).take(count))
        .filter_map(|(column, value)| {
            Some(format!("\"{}\":{}", column.name, json(column.kind, value.as_ref().ok()?)))
        })
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// Turns messages into envelopes, in the plainest way there is.
#[derive(Default)]
struct Reader {
    tables: HashMap<u64, &'static Table>,
    commit: u64,
    xid: u64,
    ordinal: u64,
    envelopes: Vec<String>,
}

impl Reader {
    fn read(&mut self, message: &[u8]) {
        let mut message = Message(message);
        match message.tag() {
            'B' => {
                self.commit = message.number(8);
                message.number(8);
                self.xid = message.number(4);
                self.ordinal = 0;
            }
            'R' => {
                let (oid, schema, name) = (message.number(4), message.name(), message.name());
                self.tables.insert(oid, Table::find(schema, name).unwrap());
            }
            'T' => {
                let count = message.number(4);
                message.number(1);
                for part in 0..count {
                    let table = self.tables[&message.number(4)];
                    self.write("truncate", table, part, "null", None, None);
                }
                self.ordinal += 1;
            }
            op @ ('I' | 'U' | 'D') => {
                let table = self.tables[&message.number(4)];
                let (mut old, mut new) = (None, None);
                while !message.0.is_empty() {
                    match message.tag() {
                        'N' => new = Some(message.row()),
                        'K' => old = Some((message.row(), table.keys)),
                        'O' => old = Some((message.row(), table.columns.len())),
                        other => panic!("`{other}` is no kind of row"),
                    }
                }
                self.row(op, table, old, new);
                self.ordinal += 1;
            }
            'C' | 'O' | 'Y' => {}
            other => panic!("`{other}` is no message that was asked for"),
        }
    }

    fn row<'a>(&mut self, op: char, table: &Table, old: Option<(Row<'a>, usize)>, mut new: Option<Row<'a>>) {
        if let (Some(new), Some((old, _)), Identity::Full) = (&mut new, &old, table.identity) {
            for (new, old) in new.iter_mut().zip(old).filter(|(new, _)| new.is_err()) {
                *new = *old;
            }
        }
        let op = match op {
            'I' => "insert",
            'U' => "update",
            _ => "delete",
        };
        let named = new.as_ref().or(old.as_ref().map(|(old, _)| old)).unwrap();
        let key = object(table, named, table.keys);
        let before = old.as_ref().map(|(old, count)| object(table, old, *count));
        self.write(op, table, 0, &key, before, new.as_ref());
    }

    fn write(
        &mut self,
        op: &str,
        table: &Table,
        part: u64,
        key: &str,
        before: Option<String>,
        new: Option<&Row<'_>>,
    ) {
        let (commit, xid, ordinal) = (self.commit, self.xid, self.ordinal);
        let lsn = format!("{:X}/{:X}", commit >> 32, commit & 0xffff_ffff);
        let payload = new.map_or("null".to_owned(), |row| object(table, row, table.columns.len()));
        let unchanged: Vec<&str> = (table.columns.iter().zip(new.into_iter().flatten()))
            .filter(|(_, value)| value.is_err())
            .map(|(column, _)| column.name)
            .collect();
        self.envelopes.push(format!(
            "{{\"id\":\"{lsn}:{ordinal}.{part}\",\"op\":\"{op}\",\"source\":{{\"schema\":\"load\",\"table\":\"{}\",\
             \"commit_lsn\":\"{lsn}\",\"xid\":{xid},\"ordinal\":{ordinal}}},\"key\":{key},\"before\":{},\
             \"payload\":{payload},\"unchanged\":{unchanged:?}}}",
            table.name,
            before.as_deref().unwrap_or("null")
        ));
    }
}

/// Everything that a slot of the server's own reader gives.
async fn read_slot(database: &Database) -> Vec<String> {
    let sql = format!(
        "select data from pg_logical_slot_get_binary_changes('{0}', null, null, 'proto_version', '1', \
         'publication_names', '{0}')",
        database.name()
    );
    let mut reader = Reader::default();
    for row in database.query(&sql, &[]).await {
        reader.read(row.get(0));
    }
    reader.envelopes
}

async fn publish(database: &Database) {
    let name = database.name();
    let tables = "load.orders, load.lines, load.people, load.pages, load.documents, load.badges";
    database.execute(&format!("create publication {name} for table {tables}")).await;
    database.query("select pg_create_logical_replication_slot($1, 'pgoutput')", &[&name]).await;
}

/// That a run did what its name says, so that a pass proves something.
fn is_rich(ledger: &Ledger, envelopes: &[String]) {
    let count = |what: &str| envelopes.iter().filter(|event| event.contains(what)).count();
    for what in ["\"insert\"", "\"update\"", "\"delete\"", "\"unchanged\":[\"body\"]"] {
        assert!(count(what) > 20, "only {} events with {what}", count(what));
    }
    assert!(ledger.changes.iter().filter(|change| change.left().is_some()).count() > 20);
    assert!(count("\"truncate\"") > 0, "nothing was truncated");
    assert!(ledger.unanswered > 0, "no COMMIT was cut off");
    assert!(ledger.rolled_back.len() > 50, "only {} changes were rolled back", ledger.rolled_back.len());
}

/// How often all sessions are ended after each restart: often enough to catch many of them in their COMMIT.
const KILLED_SESSIONS: usize = 15;

async fn the_log_is_what_the_ledger_says(major: u16) {
    let mut postgres = Postgres::start(major, &[]).await;
    let database = postgres.database("checked").await;
    Workload::create_tables(database.url()).await;
    publish(&database).await;
    let settings = Settings { pause: Duration::ZERO, ..Settings::random() };
    let mut workload = Workload::start(database.url(), &settings);
    for how in [Stop::Immediate, Stop::Kill, Stop::Fast] {
        workload.commits(200).await;
        postgres.restart(how).await;
        for _ in 0..KILLED_SESSIONS {
            workload.commits(10).await;
            let others = "pid <> pg_backend_pid() and datname = current_database()";
            let sql = format!("select pg_terminate_backend(pid) from pg_stat_activity where {others}");
            database.query(&sql, &[]).await;
        }
    }
    workload.commits(300).await;
    let (ledger, contents) = workload.stop().await;
    let envelopes = read_slot(&database).await;
    let mut checker = Checker::new(&ledger, Order::Total);
    envelopes.iter().for_each(|event| checker.take(0, event.as_bytes()));
    let report = checker.finish(&contents);
    eprintln!("PostgreSQL {major}, {} COMMITs without an answer: {report}", ledger.unanswered);
    report.expect_exactly_once();
    is_rich(&ledger, &envelopes);
}

#[tokio::test]
async fn the_log_of_postgres_13_is_what_the_ledger_says_across_crashes() {
    the_log_is_what_the_ledger_says(13).await;
}

#[tokio::test]
async fn the_log_of_postgres_18_is_what_the_ledger_says_across_crashes() {
    the_log_is_what_the_ledger_says(18).await;
}
