//! Tables as a reader builds them from the events alone, whatever tables they are, and whether they are the source's.
//!
//! The rules are those of the envelope: `snapshot`, `insert` and `update` put the row of their key, an update takes the
//! row of the key in `before` away first, columns in `unchanged` keep what they were, `delete` and `truncate` take
//! away. Events without a key only add rows.
//!
//! Every output is read in two ways, and both must give the tables: each event as it comes, so that the last one of a
//! key is the truth; and each id once, as by a reader who remembers what it has seen.
//!
//! On the way each copied row is held against the stream: one that is older than the last change of its key, or that
//! brings back what was deleted, is a defect even when a later event hides it. A `version` column that grows with each
//! change of a key is what tells the age.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_postgres::SimpleQueryMessage;

use crate::Database;

/// How many offenders a message shows.
const SHOWN: usize = 8;
/// How much of a value a message shows.
const SHOWN_CHARS: usize = 60;

/// Columns by name, each value as PostgreSQL prints it.
type Row = BTreeMap<String, Option<String>>;
/// Columns by name, each value as it stands in the output.
type Columns = BTreeMap<String, Box<RawValue>>;

#[derive(Debug, Deserialize)]
struct Source {
    schema: String,
    table: String,
    lsn: Option<String>,
    commit_lsn: Option<String>,
    xid: Option<u64>,
    ordinal: Option<u64>,
    snapshot: bool,
}

#[derive(Debug, Deserialize)]
struct Event {
    id: String,
    op: String,
    source: Source,
    key: Option<Columns>,
    before: Option<Columns>,
    payload: Option<Columns>,
    #[serde(default)]
    unchanged: Vec<String>,
}

/// What the stream said last of a key.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    version: Option<i64>,
    gone: bool,
}

/// One table, built in one of the two ways.
#[derive(Debug, Default)]
struct Built {
    rows: HashMap<String, Row>,
    /// Rows of a table without a key.
    keyless: Vec<Row>,
}

/// The tables, and what was wrong on the way.
#[derive(Debug, Default)]
pub struct Replica {
    /// Each event as it came.
    last: BTreeMap<String, Built>,
    /// Each id once.
    once: BTreeMap<String, Built>,
    ids: HashSet<String>,
    /// Which row each id of a copied row stands for.
    copied: HashMap<String, (String, String)>,
    copied_events: u64,
    told: HashMap<(String, String), Told>,
    /// Tables that were truncated: what the stream has not put back is gone.
    emptied: HashSet<String>,
    defects: Vec<String>,
}

impl Replica {
    /// Reads every whole line of a file of events.
    pub fn read(path: &Path) -> Replica {
        let text = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut replica = Replica::default();
        whole.lines().for_each(|line| replica.take(line));
        replica
    }

    /// Takes the next event, given as JSON.
    pub fn take(&mut self, json: &str) {
        #[derive(Deserialize)]
        struct Kind {
            op: String,
        }
        let kind: Kind = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {json}"));
        if matches!(&*kind.op, "schema" | "message") {
            return;
        }
        let event: Event = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {json}"));
        self.judge(&event);
        apply(&mut self.last, &event);
        if self.ids.insert(event.id.clone()) {
            apply(&mut self.once, &event);
        }
    }

    /// How many events of the copy came, repeats included.
    pub fn copied_events(&self) -> u64 {
        self.copied_events
    }

    /// How many ids events of the copy had.
    pub fn copied_ids(&self) -> u64 {
        self.copied.len() as u64
    }

    /// How many rows of this table (`schema.table`) were copied at least once.
    pub fn copied_of(&self, table: &str) -> u64 {
        self.copied.values().filter(|(of, _)| of == table).count() as u64
    }

    /// Panics unless nothing was wrong on the way.
    #[track_caller]
    pub fn expect_sound(&self) {
        let first = &self.defects[..self.defects.len().min(SHOWN)];
        assert!(first.is_empty(), "{} events of the copy are wrong: {first:#?}", self.defects.len());
    }

    /// Panics unless the events are sound and give just what `query` gives: a `SELECT` of the table whose columns have
    /// the names that they have in the events. `table` is `schema.table` without quotes.
    pub async fn expect(&self, db: &Database, table: &str, query: &str) {
        self.expect_sound();
        let wanted = rows_of(db, query).await;
        for (way, tables) in [("each event as it comes", &self.last), ("each id once", &self.once)] {
            let none = Built::default();
            let built = tables.get(table).unwrap_or(&none);
            let differences = built.differences(&wanted);
            let first = &differences[..differences.len().min(SHOWN)];
            assert!(
                first.is_empty(),
                "read by {way}, `{table}` differs in {} of {} rows: {first:#?}",
                differences.len(),
                wanted.len()
            );
        }
    }

    /// The same for all columns that the stream has of a table whose name needs no quotes.
    pub async fn expect_table(&self, db: &Database, table: &str) {
        self.expect(db, table, &format!("SELECT {} FROM {table}", columns_of(db, table).await)).await;
    }

    /// What can be said of an event by what came before it.
    fn judge(&mut self, event: &Event) {
        let table = event.table();
        let copied = event.op == "snapshot";
        if copied != event.source.snapshot {
            self.defects.push(format!("{}: `source.snapshot` is {}", event.id, event.source.snapshot));
        }
        let version = event.version();
        if copied {
            self.copied_events += 1;
            self.judge_copied(event, &table, version);
            return;
        }
        let Some(key) = event.key() else {
            if event.op == "truncate" {
                self.told.retain(|(of, _), _| *of != table);
                self.emptied.insert(table);
            }
            return;
        };
        if let Some(left) = event.left().filter(|left| *left != key) {
            self.told.insert((table.clone(), left), Told { version: None, gone: true });
        }
        let at = (table, key);
        let before = self.told.get(&at).and_then(|told| told.version);
        self.told.insert(at, Told { version: version.or(before), gone: event.op == "delete" });
    }

    fn judge_copied(&mut self, event: &Event, table: &str, version: Option<i64>) {
        let Source { lsn, commit_lsn, xid, ordinal, .. } = &event.source;
        if lsn.is_none() || commit_lsn.is_some() || xid.is_some() || ordinal.is_some() {
            let what = "has another source than `lsn` alone";
            self.defects.push(format!("{} {what}: {:?}", event.id, event.source));
        }
        if event.before.is_some() || !event.unchanged.is_empty() || event.payload.is_none() {
            self.defects.push(format!("{} is not a whole row", event.id));
        }
        if !event.id.contains(":snapshot:") {
            self.defects.push(format!("{} is not the id of a copied row", event.id));
        }
        let key = event.key().unwrap_or_default();
        let row = (table.to_owned(), key.clone());
        let first = self.copied.entry(event.id.clone()).or_insert_with(|| row.clone());
        if *first != row {
            self.defects.push(format!("{} stands for {first:?} and for {row:?}", event.id));
        }
        if event.key.is_none() {
            return;
        }
        match self.told.get(&row) {
            Some(told) if told.gone => {
                self.defects.push(format!("{} brings back {table} {key}, which was deleted", event.id));
            }
            Some(told) if version < told.version => self.defects.push(format!(
                "{} brings version {version:?} of {table} {key} after {:?}",
                event.id, told.version
            )),
            None if self.emptied.contains(table) => {
                self.defects.push(format!("{} brings back {table} {key}, which was truncated", event.id));
            }
            _ => {}
        }
    }
}

impl Event {
    fn table(&self) -> String {
        format!("{}.{}", self.source.schema, self.source.table)
    }

    /// Its key as one text.
    fn key(&self) -> Option<String> {
        self.key.as_ref().map(text_of)
    }

    /// The key that its row had before, as far as the database said.
    fn left(&self) -> Option<String> {
        let (key, before) = (self.key.as_ref()?, self.before.as_ref()?);
        let old = |name: &String| Some((name.clone(), before.get(name)?.clone()));
        key.keys().map(old).collect::<Option<Columns>>().as_ref().map(text_of)
    }

    fn version(&self) -> Option<i64> {
        self.payload.as_ref()?.get("version")?.get().parse().ok()
    }
}

fn text_of(columns: &Columns) -> String {
    let parts: Vec<String> = columns.iter().map(|(name, value)| format!("{name}={}", value.get())).collect();
    parts.join(",")
}

fn apply(tables: &mut BTreeMap<String, Built>, event: &Event) {
    let table = tables.entry(event.table()).or_default();
    if event.op == "truncate" {
        *table = Built::default();
        return;
    }
    let payload = event.payload.as_ref().map(row_of);
    let Some(key) = event.key() else {
        table.keyless.extend(payload);
        return;
    };
    let old = table.rows.remove(&event.left().unwrap_or_else(|| key.clone()));
    if let Some(mut row) = payload {
        let known = |name: &String| Some((name.clone(), old.as_ref()?.get(name)?.clone()));
        row.extend(event.unchanged.iter().filter_map(known));
        table.rows.insert(key, row);
    }
}

/// Values as PostgreSQL prints them.
fn row_of(columns: &Columns) -> Row {
    let value = |raw: &RawValue| match raw.get() {
        "null" => None,
        text if text.starts_with('"') => {
            Some(serde_json::from_str(text).expect("what was read as JSON is JSON"))
        }
        other => Some(other.to_owned()),
    };
    columns.iter().map(|(name, raw)| (name.clone(), value(raw))).collect()
}

impl Built {
    /// A sentence for each row that is not the same here and in the database. Rows without a key may be here twice.
    fn differences(&self, wanted: &[Row]) -> Vec<String> {
        let mut here: BTreeMap<&Row, u64> = BTreeMap::new();
        self.rows.values().chain(&self.keyless).for_each(|row| *here.entry(row).or_default() += 1);
        let twice_is_well = !self.keyless.is_empty();
        let mut there: BTreeMap<&Row, u64> = BTreeMap::new();
        wanted.iter().for_each(|row| *there.entry(row).or_default() += 1);
        let mut found = Vec::new();
        for (row, count) in &there {
            let events = here.get(row).copied().unwrap_or_default();
            if events < *count || (events > *count && !twice_is_well) {
                found.push(format!("{count} times in the table, {events} in the events: {}", short(row)));
            }
        }
        let surplus = here.keys().filter(|row| !there.contains_key(*row));
        found.extend(surplus.map(|row| format!("only in the events: {}", short(row))));
        found
    }
}

/// A row cut to what a message can carry.
fn short(row: &Row) -> String {
    let part = |(name, value): (&String, &Option<String>)| match value {
        None => format!("{name}=null"),
        Some(text) if text.chars().count() > SHOWN_CHARS => {
            let start: String = text.chars().take(SHOWN_CHARS).collect();
            format!("{name}={start:?}… ({} bytes)", text.len())
        }
        Some(text) => format!("{name}={text:?}"),
    };
    row.iter().map(part).collect::<Vec<_>>().join(" ")
}

async fn rows_of(db: &Database, query: &str) -> Vec<Row> {
    let client = db.connect().await;
    let messages = client.simple_query(query).await;
    let messages = messages.unwrap_or_else(|error| panic!("{error:?}\nwhile asking: {query}"));
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some(
            (row.columns().iter().enumerate())
                .map(|(at, column)| (column.name().to_owned(), row.get(at).map(str::to_owned)))
                .collect(),
        ),
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

/// Every column that the stream has, printed as events have it.
async fn columns_of(db: &Database, table: &str) -> String {
    db.value(&format!(
        "SELECT string_agg(CASE atttypid WHEN 'bool'::regtype THEN format('%1$I::text AS %1$I', attname)
             WHEN 'bytea'::regtype THEN format($$translate(encode(%1$I, 'base64'), e'\n', '') AS %1$I$$, attname)
             ELSE format('%I', attname) END, ', ') FROM pg_attribute
         WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
    ))
    .await
}

#[cfg(test)]
mod tests;
