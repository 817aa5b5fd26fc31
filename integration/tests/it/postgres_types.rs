//! Every type of PostgreSQL, from a real server through the real daemon, against what the server itself says of the same
//! values in another way; and each row against the schema of its table.

mod catalog;
mod exact;
mod kind;
mod leaves;
mod pgvector;
mod table;

use std::collections::BTreeMap;

use forebay_integration::{Daemon, Database, PATIENCE, Postgres};
use forebay_postgres::decode::row::Treatment;
use forebay_postgres::decode::schema::value_schema;
use forebay_postgres::decode::types::TypeCatalog;
use jsonschema::Validator;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::{Duration, Instant, sleep};

use exact::Exact;
use kind::{Kind, Maker};

/// The daemon's program.
const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay-under-test");

/// The oldest, the newest, and those between in which something about types has changed.
const MAJORS: [u16; 4] = [13, 15, 17, 18];

/// So many rows have the telling values in turn; no type has more of them.
const IN_TURN: usize = 15;
/// So many rows have any values.
const RANDOM: usize = 25;

/// When rows come into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Before the daemon starts: it copies them.
    Before,
    /// While it runs: it reads them from the stream.
    After,
}

/// A daemon that writes a table of a database to `out.ndjson`.
struct Reading {
    daemon: Daemon,
}

/// What these tests look at in an event.
#[derive(Deserialize)]
struct Event {
    op: String,
    payload: Box<RawValue>,
    source: Source,
}

#[derive(Deserialize)]
struct Source {
    #[serde(default)]
    lower_bounds: BTreeMap<String, Vec<i64>>,
}

impl Reading {
    fn of(db: &Database, table: &str, more: &str) -> Reading {
        let (url, name) = (db.url(), db.name());
        let config = format!(
            "sources:
  db:
    type: postgres
    url: {url}
    tables: [{table}]
    publication: {name}
    slot: {name}
{more}
destinations:
  out:
    type: file
    path: out.ndjson
"
        );
        Reading { daemon: Daemon::new(FOREBAY, &config) }
    }

    /// Starts and returns when it streams.
    async fn start(&mut self) {
        self.daemon.start().await;
        self.daemon
            .wait_until("the source is connected", |status| status["sources"][0]["connected"] == true)
            .await;
    }

    /// Waits for exactly `count` events of rows, and gives them.
    async fn rows(&mut self, count: usize) -> Vec<Event> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(self.daemon.path("out.ndjson")).unwrap_or_default();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
            let mut events: Vec<Event> = whole.lines().map(read).collect();
            events.retain(|event| event.op == "insert" || event.op == "snapshot");
            if events.len() >= count {
                assert_eq!(events.len(), count, "each row comes once");
                return events;
            }
            assert!(
                self.daemon.is_running() && Instant::now() < deadline,
                "{} of {count} rows came\n{}",
                events.len(),
                self.daemon.stderr()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A table `typed` with a column `c0`, `c1`, … of each kind.
struct Typed {
    db: Database,
    columns: Vec<Kind>,
    major: u16,
    /// What random values came from, for whoever wants to see the same ones again.
    seed: u64,
}

impl Typed {
    async fn create(db: Database, columns: Vec<Kind>, major: u16) -> Typed {
        let definitions =
            (0..).zip(&columns).map(|(at, kind): (usize, &Kind)| format!("c{at} {}", kind.sql()));
        let definitions = definitions.collect::<Vec<_>>().join(", ");
        db.execute(&format!("CREATE TABLE typed (id int PRIMARY KEY, {definitions})")).await;
        Typed { db, columns, major, seed: rand::random() }
    }

    /// Inserts the telling values in turn, random ones, and a row of nothing; returns how many rows these are.
    async fn fill(&self) -> usize {
        let mut maker = Maker { major: self.major, rng: StdRng::seed_from_u64(self.seed) };
        for id in 0..IN_TURN + RANDOM {
            let turn = (id < IN_TURN).then_some(id);
            let values: Vec<String> = self.columns.iter().map(|kind| kind.value(turn, &mut maker)).collect();
            self.db.execute(&format!("INSERT INTO typed VALUES ({id}, {})", values.join(", "))).await;
        }
        self.db.execute(&format!("INSERT INTO typed (id) VALUES ({})", IN_TURN + RANDOM)).await;
        IN_TURN + RANDOM + 1
    }

    /// What must have come of each row, by another way.
    async fn expected(&self, id: i32) -> (BTreeMap<String, Exact>, BTreeMap<String, Vec<i64>>) {
        let ways = (0..).zip(&self.columns).map(|(at, kind): (usize, &Kind)| {
            format!("coalesce({}, 'null')::text", kind.second(&format!("c{at}"), 0))
        });
        let query = format!("SELECT {} FROM typed WHERE id = {id}", ways.collect::<Vec<_>>().join(", "));
        let rows = self.db.query(&query, &[]).await;
        let mut bounds = BTreeMap::new();
        let values = (0..).zip(&self.columns).map(|(at, kind): (usize, &Kind)| {
            let name = format!("c{at}");
            let mut inside = BTreeMap::new();
            let value = kind.shaped(Exact::read(rows[0].get(at)), &format!("/{name}"), &mut inside);
            // an array that is the column's whole value is called by the column's name
            bounds.extend(inside.into_iter().map(|(pointer, lower)| {
                (if pointer == format!("/{name}") { name.clone() } else { pointer }, lower)
            }));
            (name, value)
        });
        let values = values.collect();
        (values, bounds)
    }

    /// The schema of its rows, as the catalog gives it, with the exact type of each column by the server's words.
    async fn schema(&self) -> Value {
        let columns = "SELECT attname::text, atttypid, atttypmod, format_type(atttypid, atttypmod) FROM pg_attribute \
                       WHERE attrelid = 'typed'::regclass AND attnum > 0 ORDER BY attnum";
        let rows = self.db.query(columns, &[]).await;
        let mut types = TypeCatalog::default();
        let oids: Vec<u32> = rows.iter().map(|row| row.get(1)).collect();
        types.load(&self.db.connect().await, &types.missing(oids)).await.unwrap();
        let mut properties = Map::new();
        for row in &rows {
            let (name, oid, modifier): (String, u32, i32) = (row.get(0), row.get(1), row.get(2));
            let schema = value_schema(&types.column_type(oid), modifier, name != "id", &Treatment::Keep);
            let called = schema.get("x-pg-domain").unwrap_or(&schema["x-pg-type"]).as_str().unwrap();
            // the server leaves out the schema that is in the search path
            assert_eq!(called.trim_start_matches("public."), row.get::<_, &str>(3), "column {name}");
            properties.insert(name, schema);
        }
        let required: Vec<String> = properties.keys().cloned().collect();
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    }

    /// Holds each event against the row that it is of, and against the schema.
    async fn expect(&self, events: &[Event], when: When) {
        let validator = asserting(&self.schema().await);
        for event in events {
            assert_eq!(event.op, if when == When::Before { "snapshot" } else { "insert" });
            let came = Exact::read(event.payload.get());
            let Exact::Number(id) = came.member("id") else { panic!("{came:?} has no id") };
            let (values, bounds) = self.expected(id.parse().unwrap()).await;
            let context = format!("PostgreSQL {}, seed {}, {when:?}", self.major, self.seed);
            for (name, expected) in values {
                let kind = &self.columns[name[1..].parse::<usize>().unwrap()];
                assert_eq!(*came.member(&name), expected, "{} in row {id}, {context}", kind.sql());
            }
            assert_eq!(event.source.lower_bounds, bounds, "row {id}, {context}");
            if let Err(error) = validator.validate(&came.to_value()) {
                panic!("row {id} does not obey its schema: {error} at {}, {context}", error.instance_path());
            }
        }
    }
}

/// A validator that asserts formats, as the strictest consumer does.
fn asserting(schema: &Value) -> Validator {
    jsonschema::draft202012::options().should_validate_formats(true).build(schema).unwrap()
}

async fn every_value_arrives(when: When) {
    for major in MAJORS {
        let db = Postgres::shared(major).await.database("types").await;
        db.execute(table::TYPES).await;
        let typed = Typed::create(db, table::columns(major), major).await;
        let snapshot = if when == When::Before { "    snapshot: initial" } else { "    snapshot: never" };
        let mut reading = Reading::of(&typed.db, "public.typed", snapshot);
        let count = if when == When::Before {
            let count = typed.fill().await;
            reading.start().await;
            count
        } else {
            reading.start().await;
            typed.fill().await
        };
        let events = reading.rows(count).await;
        typed.expect(&events, when).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_value_that_is_streamed_is_what_the_server_says_by_another_way_and_obeys_its_schema() {
    every_value_arrives(When::After).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_value_that_is_copied_is_what_the_server_says_by_another_way_and_obeys_its_schema() {
    every_value_arrives(When::Before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_char_that_is_no_ascii_is_written_in_one_way_by_every_server() {
    for major in MAJORS {
        let db = Postgres::shared(major).await.database("chars").await;
        db.execute("CREATE TABLE t (id int PRIMARY KEY, c \"char\", cs \"char\"[])").await;
        let mut reading = Reading::of(&db, "public.t", "    snapshot: never");
        reading.start().await;
        db.execute("INSERT INTO t VALUES (1, (-56)::\"char\", ARRAY[(-1)::\"char\", 'x'])").await;
        let events = reading.rows(1).await;
        let expected = r#"{"id":1,"c":"\\310","cs":["\\377","x"]}"#;
        assert_eq!(events[0].payload.get(), expected, "PostgreSQL {major}");
    }
}
