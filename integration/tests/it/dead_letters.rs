//! What becomes of events that a destination refuses for what they hold, with the daemon as users run it: they are kept,
//! their neighbours flow, and `forebay dlq` shows, replays and drops them.

mod commands;
mod halt;
mod handed_on;
mod kafka;
mod kill;
mod order;

use std::process::Output;

use forebay_integration::{Daemon, Database, PATIENCE, Postgres};
use serde_json::Value;
use tokio::time::{Instant, sleep};

pub(crate) use self::kill::REPLAY;

const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay-under-test");

/// How often a figure is asked for, while a test waits for it.
const ASK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// The table `orders` of one database, copied into a table of another that refuses the note `poison`, and into a twin of
/// it that refuses nothing.
struct Copying {
    shop: Database,
    copy: Database,
    daemon: Daemon,
}

impl Copying {
    /// Not started.
    async fn new(keys: &str) -> Copying {
        let server = Postgres::shared(15).await;
        let (shop, copy) = (server.database("shop").await, server.database("copy").await);
        shop.execute("create table orders (id int primary key, note text)").await;
        let copying = Copying { daemon: Daemon::new(FOREBAY, "sources: {}\n"), shop, copy };
        copying.daemon.configure(&copying.config(keys));
        copying
    }

    /// What `copy` has besides, in YAML of one line.
    fn config(&self, keys: &str) -> String {
        format!(
            "{}destinations:
  copy: {{type: postgres, url: \"{copy}\"{keys}}}
  twin: {{type: postgres, url: \"{copy}\", table: twin}}
",
            reading(&self.shop),
            copy = self.copy.url(),
        )
    }

    /// Started, reading, and refusing.
    async fn start(keys: &str) -> Copying {
        let mut copying = Copying::new(keys).await;
        copying.begin().await;
        copying.refuse().await;
        copying
    }

    async fn begin(&mut self) {
        self.daemon.start().await;
        until_reading(&self.shop, &mut self.daemon).await;
        let there = "select to_regclass('forebay_events') is not null and to_regclass('twin') is not null";
        self.copy.wait_until(there).await;
    }

    async fn refuse(&self) {
        let check = "alter table forebay_events
                     add constraint no_poison check (body->'payload'->>'note' is distinct from 'poison')";
        self.copy.execute(check).await;
    }

    async fn mend(&self) {
        self.copy.execute("alter table forebay_events drop constraint no_poison").await;
    }

    /// Writes a row's note, as an insertion or an update.
    async fn write(&self, id: i32, note: &str) {
        let upsert = format!(
            "insert into orders values ({id}, '{note}') on conflict (id) do update set note = excluded.note"
        );
        self.shop.execute(&upsert).await;
    }

    /// The notes of a row in the order in which they arrived.
    async fn notes(&self, table: &str, id: i32) -> Vec<String> {
        let query = format!(
            "select body->'payload'->>'note' from {table} where body->'payload'->>'id' = '{id}' order by seq"
        );
        self.copy.query(&query, &[]).await.iter().map(|row| row.get(0)).collect()
    }

    async fn letters(&mut self, count: f64) {
        until_metric(&mut self.daemon, "forebay_dead_letters", &[("destination", "copy")], count).await;
    }
}

/// The part of a configuration that reads `orders`.
fn reading(shop: &Database) -> String {
    format!(
        "sources:
  shop: {{type: postgres, url: \"{}\", tables: [public.orders], publication: {name}, slot: {name}, snapshot: never, heartbeat: 200ms}}
",
        shop.url(),
        name = shop.name(),
    )
}

/// Until what is written from now on is read.
async fn until_reading(shop: &Database, daemon: &mut Daemon) {
    daemon.wait_until("the source is connected", |status| status["sources"][0]["connected"] == true).await;
    let ready = format!(
        "select count(*) = 1 from pg_replication_slots
         where slot_name = '{}' and active and confirmed_flush_lsn is not null",
        shop.name()
    );
    shop.wait_until(&ready).await;
}

async fn until_metric(daemon: &mut Daemon, name: &str, labels: &[(&str, &str)], wanted: f64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = daemon.metric(name, labels).await;
        if found == Some(wanted) {
            return;
        }
        assert!(daemon.is_running(), "the daemon ended: {}", daemon.stderr());
        assert!(Instant::now() < deadline, "{name} is {found:?}, not {wanted}\n{}", daemon.stderr());
        sleep(ASK_PAUSE).await;
    }
}

async fn until_said(daemon: &mut Daemon, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !daemon.stderr().contains(text) {
        assert!(
            daemon.is_running() && Instant::now() < deadline,
            "`{text}` was not said: {}",
            daemon.stderr()
        );
        sleep(ASK_PAUSE).await;
    }
}

/// Waits until all that is committed is settled and the server knows it.
async fn settled(shop: &Database, daemon: &mut Daemon) {
    let end: String = shop.value("select pg_current_wal_lsn()::text").await;
    let confirmed = format!(
        "select confirmed_flush_lsn >= '{end}'::pg_lsn from pg_replication_slots where slot_name = '{}'",
        shop.name()
    );
    shop.wait_until(&confirmed).await;
    let idle = |status: &Value| {
        let lanes = status["sources"][0]["destinations"].as_array().unwrap();
        lanes.iter().all(|lane| lane["queue_records"] == 0)
    };
    daemon.wait_until("nothing is on its way", idle).await;
}

/// `in = delivered + dead-lettered + filtered + dropped (+ returned)` at each destination, by what `/metrics` says.
async fn assert_adds_up(daemon: &Daemon, destinations: &[&str]) {
    let events = daemon.metric("forebay_source_events_total", &[("source", "shop")]).await.unwrap();
    assert!(events > 0.0);
    for destination in destinations {
        let mut sum = 0.0;
        for end in ["delivered", "dead_lettered", "filtered", "dropped", "returned"] {
            let labels = [("source", "shop"), ("destination", *destination)];
            sum += daemon.metric(&format!("forebay_{end}_total"), &labels).await.unwrap();
        }
        assert_eq!(events, sum, "{destination}");
    }
}

/// `forebay dlq` with these words; asserts its exit code and gives what it printed to stdout and stderr.
async fn dlq(daemon: &Daemon, words: &[&str], code: i32) -> (String, String) {
    let words: Vec<&str> =
        ["dlq"].iter().chain(words).chain(&["--config", "forebay.yaml"]).copied().collect();
    let Output { status, stdout, stderr } = daemon.command(&words).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert_eq!(status.code(), Some(code), "{words:?}\n{stdout}\n{stderr}");
    (stdout, stderr)
}
