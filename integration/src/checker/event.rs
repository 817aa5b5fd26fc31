//! An envelope as the checker reads it, and whether it says of a change what happened.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::workload::{Change, Column, Identity, Key, Kind, Op, Row, Table, Value, short};

/// Columns by name, each value as it stands in the output: no digit passes through a float.
pub(super) type Columns = BTreeMap<String, Box<RawValue>>;

/// Where an event comes from. A copied row is in no transaction.
#[derive(Debug, Deserialize)]
pub(super) struct Source {
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) xid: Option<u64>,
    commit_lsn: Option<String>,
    ordinal: Option<u64>,
}

/// One envelope; what the checker does not judge is not read.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    pub(super) id: Arc<str>,
    pub(super) op: String,
    pub(super) source: Source,
    pub(super) key: Option<Columns>,
    #[serde(default)]
    pub(super) before: Option<Columns>,
    pub(super) payload: Option<Columns>,
    #[serde(default)]
    pub(super) unchanged: Vec<String>,
    /// Of everything but `received`, the only field that may be another when an event comes again.
    #[serde(skip)]
    pub(super) digest: u64,
    /// Where the source has it: commit LSN and ordinal.
    #[serde(skip)]
    pub(super) place: (u64, u64),
}

impl Event {
    /// Reads an envelope; none where it tells of no row. The error says what is wrong with it.
    pub(super) fn parse(json: &[u8]) -> Result<Option<Event>, String> {
        let fields: BTreeMap<String, &RawValue> =
            serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if fields.get("op").is_some_and(|op| matches!(op.get(), "\"schema\"" | "\"message\"")) {
            return Ok(None);
        }
        let mut event: Event = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let mut hasher = DefaultHasher::new();
        for (name, value) in fields.iter().filter(|(name, _)| *name != "received") {
            (name, value.get()).hash(&mut hasher);
        }
        event.digest = hasher.finish();
        event.place = event.find_place()?;
        Ok(Some(event))
    }

    /// Where the source has it; a copied row has no place of its own.
    fn find_place(&self) -> Result<(u64, u64), String> {
        let Source { xid, commit_lsn, ordinal, .. } = &self.source;
        match (commit_lsn, ordinal, xid) {
            (None, None, None) if self.is_copied() => Ok((0, 0)),
            (Some(lsn), Some(ordinal), Some(_)) if !self.is_copied() => {
                let lsn = parse_lsn(lsn).ok_or_else(|| format!("`commit_lsn` {lsn:?} is no LSN"))?;
                Ok((lsn, *ordinal))
            }
            _ => Err("`xid`, `commit_lsn` and `ordinal` are of changes, and of all of them".to_owned()),
        }
    }

    /// Whether it is a row that was there, not a change.
    pub(super) fn is_copied(&self) -> bool {
        self.op == "snapshot"
    }

    /// Its table, if it is one of the workload's.
    pub(super) fn table(&self) -> Option<&'static Table> {
        Table::find(&self.source.schema, &self.source.table)
    }

    /// The values of its key columns.
    pub(super) fn key_values(&self) -> Option<Key> {
        key_in(self.table()?, self.key.as_ref()?)
    }

    /// The version in its payload.
    pub(super) fn version(&self) -> Option<i64> {
        self.payload.as_ref()?.get("version")?.get().parse().ok()
    }

    /// Whether it says what happened: the error names the first thing that is otherwise.
    pub(super) fn tells_of(&self, change: &Change) -> Result<(), String> {
        let table = change.table;
        if self.op != change.op.name() || self.table().map(|table| table.name) != Some(table.name) {
            return Err("another operation or table".to_owned());
        }
        if self.source.xid != Some(change.short_xid()) {
            return Err("another transaction".to_owned());
        }
        if self.key.is_some() != change.key().is_some() || self.key_values() != change.key() {
            return Err("another key".to_owned());
        }
        if self.key.as_ref().is_some_and(|key| key.len() != table.keys) {
            return Err("a key of other columns".to_owned());
        }
        self.check_before(change)?;
        let (Some(new), Some(payload)) = (&change.new, &self.payload) else {
            let both_none = change.new.is_none() && self.payload.is_none();
            return if both_none { Ok(()) } else { Err("a payload where there is no new row".to_owned()) };
        };
        let sent = |column: &&Column| !self.unchanged.iter().any(|name| name == column.name);
        expect_columns("payload", payload, table.columns.iter().filter(sent), new, table)?;
        for name in &self.unchanged {
            let at = table.columns.iter().position(|column| column.name == name && column.toast);
            let at = at.ok_or_else(|| format!("`{name}` in `unchanged` is never stored out of line"))?;
            if table.identity == Identity::Full {
                return Err(format!("`{name}` in `unchanged` though the log has the old row"));
            }
            if change.old.as_ref().is_none_or(|old| old[at] != new[at]) {
                return Err(format!("`{name}` in `unchanged` though it changed"));
            }
        }
        Ok(())
    }

    /// Whether it shows the row that a change left, all of it: the error names the first thing that is otherwise.
    pub(super) fn shows(&self, change: &Change) -> Result<(), String> {
        let table = change.table;
        if self.table().map(|table| table.name) != Some(table.name) || self.key_values() != change.key() {
            return Err("another table or key".to_owned());
        }
        if self.key.as_ref().is_none_or(|key| key.len() != table.keys) {
            return Err("a key of other columns".to_owned());
        }
        if self.before.is_some() || !self.unchanged.is_empty() {
            return Err("a copied row is whole and has no former one".to_owned());
        }
        let (Some(new), Some(payload)) = (&change.new, &self.payload) else {
            return Err("no row".to_owned());
        };
        expect_columns("payload", payload, table.columns.iter(), new, table)
    }

    /// Of the old row there is what the replica identity puts into the log, no less and no more.
    fn check_before(&self, change: &Change) -> Result<(), String> {
        let table = change.table;
        let columns = match (&change.old, table.identity) {
            (None, _) => None,
            (Some(_), Identity::Full) => Some(table.columns),
            (Some(_), _) if change.op == Op::Delete || change.left().is_some() => Some(table.key_columns()),
            (Some(_), _) => None,
        };
        match (columns, &change.old, &self.before) {
            (Some(columns), Some(old), Some(before)) => {
                expect_columns("before", before, columns.iter(), old, table)
            }
            (None, _, None) => Ok(()),
            (None, _, Some(_)) => Err("`before` where the log has no old row".to_owned()),
            _ => Err("no `before` where the log has the old row".to_owned()),
        }
    }
}

/// Whether an object has just those columns, with the values that the row has.
fn expect_columns<'c>(
    field: &str,
    object: &Columns,
    columns: impl Iterator<Item = &'c Column>,
    row: &Row,
    table: &Table,
) -> Result<(), String> {
    let mut expected = 0;
    for column in columns {
        expected += 1;
        let raw = object.get(column.name).ok_or_else(|| format!("no `{}` in `{field}`", column.name))?;
        let value = value_in(column, raw)?;
        let at = table.columns.iter().position(|other| other.name == column.name);
        let should = &row[at.expect("the column is one of the table's")];
        if value != *should {
            let (is, should) = (short(&value), short(should));
            return Err(format!("`{}` in `{field}` is {is}, not {should}", column.name));
        }
    }
    if object.len() == expected {
        Ok(())
    } else {
        Err(format!("columns in `{field}` that do not belong there"))
    }
}

/// The values of a table's key columns in an object.
pub(super) fn key_in(table: &Table, object: &Columns) -> Option<Key> {
    table.key_columns().iter().map(|column| value_in(column, object.get(column.name)?).ok()?).collect()
}

/// A JSON value of a column as PostgreSQL prints it.
pub(super) fn value_in(column: &Column, raw: &RawValue) -> Result<Value, String> {
    let raw = raw.get();
    let unfit =
        || format!("`{}` holds {} where {:?} belongs", column.name, short(&Some(raw.into())), column.kind);
    if raw == "null" {
        return Ok(None);
    }
    let fits = match column.kind {
        Kind::Number => raw.starts_with(|first: char| first == '-' || first.is_ascii_digit()),
        Kind::Bool => matches!(raw, "true" | "false"),
        Kind::Json => true,
        Kind::Text => {
            let text: String = serde_json::from_str(raw).map_err(|_| unfit())?;
            return Ok(Some(text.into()));
        }
    };
    if fits { Ok(Some(raw.into())) } else { Err(unfit()) }
}

fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let (high, low) = (u32::from_str_radix(high, 16).ok()?, u32::from_str_radix(low, 16).ok()?);
    Some(u64::from(high) << 32 | u64::from(low))
}

impl fmt::Display for Event {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Source { schema, table, xid, commit_lsn, ordinal } = &self.source;
        write!(to, "{} {} of {schema}.{table}", self.id, self.op)?;
        for (name, value) in self.key.iter().flatten() {
            write!(to, " {name}={}", value.get())?;
        }
        if let Some(version) = self.version() {
            write!(to, " version {version}")?;
        }
        match (xid, commit_lsn, ordinal) {
            (Some(xid), Some(lsn), Some(ordinal)) => {
                write!(to, " (xid {xid}, commit {lsn}, ordinal {ordinal})")
            }
            _ => Ok(()),
        }
    }
}
