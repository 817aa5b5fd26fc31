//! What all tables of the workload hold at one moment, each value as PostgreSQL prints it.

use std::collections::BTreeMap;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::tables::{Key, Row, SCHEMA, TABLES, Table, Value};

/// The rows of all tables by table and key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents(BTreeMap<&'static str, BTreeMap<Key, Row>>);

impl Contents {
    /// Reads them from the server.
    pub async fn read(client: &Client) -> Result<Contents, tokio_postgres::Error> {
        let mut contents = Contents::default();
        for table in &TABLES {
            let names: Vec<String> =
                table.columns.iter().map(|column| format!("{}::text", column.name)).collect();
            let sql = format!("SELECT {} FROM {SCHEMA}.{}", names.join(", "), table.name);
            for message in client.simple_query(&sql).await? {
                let SimpleQueryMessage::Row(row) = message else { continue };
                let row: Row = (0..names.len()).map(|at| row.get(at).map(Into::into)).collect();
                contents.put(table, row);
            }
        }
        Ok(contents)
    }

    /// The row with that key.
    pub fn get(&self, table: &Table, key: &Key) -> Option<&Row> {
        self.0.get(table.name)?.get(key)
    }

    /// Puts a row in the place of the one that has its key, or adds it.
    pub fn put(&mut self, table: &'static Table, row: Row) {
        self.0.entry(table.name).or_default().insert(table.key_of(&row), row);
    }

    /// Takes the row with that key away.
    pub fn remove(&mut self, table: &'static Table, key: &Key) -> Option<Row> {
        self.0.get_mut(table.name)?.remove(key)
    }

    /// Takes all rows of a table away.
    pub fn clear(&mut self, table: &'static Table) {
        self.0.remove(table.name);
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// One sentence for each row that is not the same in both; `self` is called `ours`, `other` is called `theirs`.
    pub fn differences(&self, ours: &str, other: &Contents, theirs: &str) -> Vec<String> {
        let mut found = Vec::new();
        let none = BTreeMap::new();
        for table in &TABLES {
            let mine = self.0.get(table.name).unwrap_or(&none);
            let others = other.0.get(table.name).unwrap_or(&none);
            for (key, row) in mine {
                match others.get(key) {
                    None => found.push(format!("{} is only in {ours}", table.name_key(key))),
                    Some(other) if other != row => found.push(format!(
                        "{}: {}",
                        table.name_key(key),
                        unlike(table, row, ours, other, theirs)
                    )),
                    Some(_) => {}
                }
            }
            for key in others.keys().filter(|key| !mine.contains_key(*key)) {
                found.push(format!("{} is only in {theirs}", table.name_key(key)));
            }
        }
        found
    }
}

/// The columns in which two rows differ, with both values.
fn unlike(table: &Table, row: &Row, ours: &str, other: &Row, theirs: &str) -> String {
    let columns: Vec<String> = (table.columns.iter().zip(row.iter().zip(other.iter())))
        .filter(|(_, (mine, other))| mine != other)
        .map(|(column, (mine, other))| {
            format!("`{}` is {} in {ours}, {} in {theirs}", column.name, short(mine), short(other))
        })
        .collect();
    columns.join("; ")
}

/// A value cut to what a message can carry.
pub(crate) fn short(value: &Value) -> String {
    const SHOWN: usize = 40;
    match value {
        None => "null".to_owned(),
        Some(text) if text.chars().count() > SHOWN => {
            let start: String = text.chars().take(SHOWN).collect();
            format!("{start:?}… ({} bytes)", text.len())
        }
        Some(text) => format!("{text:?}"),
    }
}
