//! Generated schemas as whoever reads the events meets them: every payload obeys the schema that its event names, and
//! that schema came before it.
//!
//! Nothing here knows how versions are made. What came is judged by the `schema` events in it alone.

mod again;
mod changes;
mod kills;
mod kinds;
mod shown;

use std::collections::{BTreeMap, BTreeSet};

use forebay_integration::{Daemon, Database, PATIENCE};
use jsonschema::Validator;
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

/// The daemon's program.
const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay-under-test");

/// The servers that every promise about the catalogs is tested on.
const MAJORS: [u16; 4] = [13, 15, 17, 18];

/// How often something is asked for that only the written lines show.
const ASK_PAUSE: Duration = Duration::from_millis(20);

/// A daemon that writes a database's changes to `out.ndjson`.
struct Reading {
    daemon: Daemon,
    slot: String,
}

impl Reading {
    /// Reads `tables` of `db`; `more` are further lines of the source, each indented by four.
    fn of(db: &Database, tables: &str, more: &str) -> Reading {
        let (url, slot) = (db.url(), db.name().to_owned());
        let config = format!(
            "sources:
  db:
    type: postgres
    vendor: com.acme
    url: {url}
    tables: [{tables}]
    publication: {slot}
    slot: {slot}
    heartbeat: 200ms
{more}
destinations:
  out:
    type: file
    path: out.ndjson
"
        );
        Reading { daemon: Daemon::new(FOREBAY, &config), slot }
    }

    /// Starts and returns when it reads the stream and has copied what was there.
    async fn start(&mut self) {
        self.daemon.start().await;
        let ready = |status: &Value| {
            let source = &status["sources"][0];
            let decided = source["snapshot"]["tables"].as_array().is_some_and(|tables| !tables.is_empty());
            source["connected"] == true && decided && source["snapshot"]["state"] == "idle"
        };
        self.daemon.wait_until("the source is connected and all is copied", ready).await;
    }

    async fn restart(&mut self) {
        assert_eq!(self.daemon.stop().await, 0);
        self.start().await;
    }

    /// Every whole line that came.
    fn all(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.daemon.path("out.ndjson")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let read =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        whole.lines().map(read).collect()
    }

    /// Waits until everything that is committed by now is stored, and judges all that came so far.
    async fn judged(&self, db: &Database) -> Judged {
        self.caught_up(db).await;
        Judged::of(self.all())
    }

    async fn caught_up(&self, db: &Database) {
        let end: String = db.value("SELECT pg_current_wal_lsn()::text").await;
        db.wait_until(&format!(
            "SELECT confirmed_flush_lsn >= '{end}'::pg_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
            self.slot
        ))
        .await;
    }

    /// Waits until a row came whose key has this `id`.
    async fn row(&mut self, id: i64) {
        let deadline = Instant::now() + PATIENCE;
        while !self.all().iter().any(|event| event["op"] != "schema" && event["key"]["id"] == id) {
            assert!(
                self.daemon.is_running() && Instant::now() < deadline,
                "row {id} did not come\n{}",
                self.daemon.stderr()
            );
            sleep(ASK_PAUSE).await;
        }
    }
}

/// Events that were held against the schemas among them.
#[derive(Debug)]
struct Judged {
    /// The events of rows and messages, in the order in which they came.
    rows: Vec<Value>,
    /// What `schema` events said, by the key that they are of, in the order of the keys.
    schemas: BTreeMap<String, Value>,
    /// The keys of `schema` events as they came, with repeats.
    announced: Vec<String>,
}

impl Judged {
    fn of(events: Vec<Value>) -> Judged {
        let mut judged = Judged { rows: Vec::new(), schemas: BTreeMap::new(), announced: Vec::new() };
        let mut validators: BTreeMap<String, Validator> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for event in events {
            let key = event["schema"].as_str().expect("every event names a schema").to_owned();
            if event["op"] == "schema" {
                let schema = event["payload"].clone();
                assert!(jsonschema::meta::is_valid(&schema), "{schema:#} is no schema");
                let path = format!("/s/{key}");
                assert_eq!(decoded(schema["$id"].as_str().unwrap()), path, "{schema:#}");
                if let Some(before) = judged.schemas.insert(key.clone(), schema.clone()) {
                    assert_eq!(before, schema, "`{key}` was said to be two things");
                }
                let known = ids.insert(event["id"].as_str().unwrap().to_owned());
                assert_eq!(known, !judged.announced.contains(&key), "the id is the version's: {event}");
                judged.announced.push(key.clone());
                let validator = jsonschema::options().should_validate_formats(true).build(&schema);
                validators.insert(key, validator.unwrap_or_else(|error| panic!("{error} in {schema:#}")));
                continue;
            }
            let validator = validators.get(&key);
            let validator = validator.unwrap_or_else(|| panic!("nothing was said of `{key}` before {event}"));
            if !event["payload"].is_null() {
                let wrong: Vec<String> =
                    validator.iter_errors(&event["payload"]).map(|error| error.to_string()).collect();
                let schema = &judged.schemas[&key];
                assert!(wrong.is_empty(), "{wrong:?}: {event} does not obey {schema:#}");
            }
            judged.rows.push(event);
        }
        judged
    }

    /// The versions of rows whose key has an `id`, by that id; of several events of one row, the last.
    fn versions(&self) -> BTreeMap<i64, String> {
        let version =
            |event: &Value| Some((event["key"]["id"].as_i64()?, event["version"].as_str()?.to_owned()));
        self.rows.iter().filter_map(version).collect()
    }

    /// The versions that were announced of a table, in the order in which they came.
    fn announced_of(&self, table: &str) -> Vec<&str> {
        let prefix = format!("com.acme/{table}/");
        self.announced.iter().filter_map(|key| key.strip_prefix(&prefix)).collect()
    }

    /// The schema of a table in a version.
    fn schema(&self, table: &str, version: &str) -> &Value {
        let key = format!("com.acme/{table}/{version}");
        self.schemas.get(&key).unwrap_or_else(|| panic!("no `{key}` among {:?}", self.announced))
    }
}

/// A path without its escapes.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, more @ ..] = rest {
        match (first, more) {
            (b'%', [high, low, more @ ..]) => {
                let digits = String::from_utf8(vec![*high, *low]).unwrap();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap());
                rest = more;
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}
