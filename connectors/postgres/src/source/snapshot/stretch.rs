//! [`Stretch`]: what is left of a table, as it is stored, and the statement that reads the next chunk of it. Pure.

use forebay_api::Range;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use serde::{Deserialize, Serialize};

use super::target::Target;

/// A stretch of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Stretch {
    /// Rows in the order of the key, behind one and up to another.
    Key {
        /// The table that was divided.
        oid: u32,
        /// The key's columns.
        key: Vec<String>,
        /// The key that was read last; `None`: from the beginning.
        after: Option<Vec<String>>,
        /// The last key; `None`: to the end.
        to: Option<Vec<String>>,
    },
    /// Blocks of the table's file, where there is no key to go by.
    Blocks {
        /// The table that was divided.
        oid: u32,
        /// Its file; another one has its rows elsewhere.
        node: u32,
        /// The first block,
        from: u32,
        /// and the one behind the last.
        to: u32,
    },
    /// Rows that were written since the table was divided: they may have moved from a block or a key that was not read
    /// yet to one that was.
    Moved {
        /// The table that was divided.
        oid: u32,
        /// The oldest transaction that ran then.
        since: u32,
    },
}

/// What ids of copied rows are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// The key.
    Key,
    /// The place in the table's file and the transaction that wrote it, which COPY puts before the columns.
    Place,
}

/// A stored stretch that this version cannot use.
#[derive(Debug, thiserror::Error)]
#[error("the stored progress of a copy is not one of a PostgreSQL source")]
pub(super) struct Unreadable(#[source] serde_json::Error);

impl Stretch {
    /// Reads what [`Stretch::range`] wrote.
    pub(super) fn read(range: &Range) -> Result<Stretch, Unreadable> {
        serde_json::from_str(&range.0).map_err(Unreadable)
    }

    /// As the core stores it.
    pub(super) fn range(&self) -> Range {
        Range(serde_json::to_string(self).expect("strings and numbers are JSON"))
    }

    /// Whether it still means what it meant when the table was divided.
    pub(super) fn fits(&self, target: &Target) -> bool {
        match self {
            Stretch::Key { oid, key, .. } => {
                target.is_ordered
                    && *oid == target.oid
                    && key.iter().eq(target.key.iter().map(|column| &column.name))
            }
            Stretch::Blocks { oid, node, .. } => {
                !target.is_ordered && *oid == target.oid && *node == target.node
            }
            Stretch::Moved { oid, .. } => *oid == target.oid,
        }
    }

    /// How the rows of it are called.
    pub(super) fn naming(&self) -> Naming {
        match self {
            Stretch::Key { .. } => Naming::Key,
            Stretch::Blocks { .. } | Stretch::Moved { .. } => Naming::Place,
        }
    }

    /// The rows of the next chunk.
    pub(super) fn statement(&self, target: &Target, filter: Option<&str>, rows: u64, major: i32) -> String {
        let mut conditions = conditions(target, filter);
        let end = match self {
            Stretch::Key { after, to, .. } => {
                conditions.extend(after.as_ref().map(|key| bound(target, ">", key)));
                conditions.extend(to.as_ref().map(|key| bound(target, "<=", key)));
                format!(" ORDER BY {} LIMIT {rows}", key_list(target))
            }
            Stretch::Blocks { from, to, .. } => {
                conditions.push(blocks(*from, *to, major));
                String::new()
            }
            Stretch::Moved { since, .. } => {
                conditions.push(format!("age(xmin) <= age('{since}'::xid)"));
                String::new()
            }
        };
        copy(target, self.naming(), &conditions, &end)
    }
}

/// The rows of single keys.
pub(super) fn keys_statement(
    target: &Target,
    naming: Naming,
    filter: Option<&str>,
    keys: &[Vec<String>],
) -> String {
    let mut conditions = conditions(target, filter);
    let keys: Vec<String> = keys.iter().map(|key| literals(target, key)).collect();
    conditions.push(format!("({}) IN ({})", key_list(target), keys.join(", ")));
    copy(target, naming, &conditions, "")
}

/// Keys that divide the table into so many stretches of about the same size, from a sample of its blocks.
pub(super) fn sample_statement(target: &Target, stretches: u32, percent: f64) -> String {
    let keys = key_list(target);
    format!(
        "COPY (SELECT {keys} FROM (SELECT *, row_number() OVER (PARTITION BY tile ORDER BY {keys} DESC) AS last \
         FROM (SELECT {keys}, ntile({stretches}) OVER (ORDER BY {keys}) AS tile \
         FROM {} TABLESAMPLE SYSTEM ({percent}) REPEATABLE (1)) AS sampled) AS tiled \
         WHERE last = 1 AND tile < {stretches} ORDER BY {keys}) TO STDOUT",
        target.quoted
    )
}

fn copy(target: &Target, naming: Naming, conditions: &[String], end: &str) -> String {
    let mut columns =
        target.columns.iter().map(|name| escape_identifier(name)).collect::<Vec<_>>().join(", ");
    if naming == Naming::Place {
        let comma = if columns.is_empty() { "" } else { ", " };
        columns = format!("ctid, xmin{comma}{columns}");
    }
    let wanted =
        if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    format!("COPY (SELECT {columns} FROM ONLY {}{wanted}{end}) TO STDOUT", target.quoted)
}

/// What the server must find to be one statement before a condition of the operator's is put into any other. Two kinds of
/// brackets around it, so that what closes one of them too early does not pass.
pub(super) fn probe_statement(target: &Target, filter: &str) -> String {
    let conditions = conditions(target, Some(filter)).join(" AND ");
    format!("SELECT FROM ONLY {} WHERE {conditions} AND (ARRAY[{filter}\n])[1]", target.quoted)
}

/// The publication's row filter and the operator's, which may end with a comment.
fn conditions(target: &Target, filter: Option<&str>) -> Vec<String> {
    let published = target.row_filter.as_deref().map(|filter| format!("({filter})"));
    published.into_iter().chain(filter.map(|filter| format!("({filter}\n)"))).collect()
}

fn key_list(target: &Target) -> String {
    target.key.iter().map(|column| escape_identifier(&column.name)).collect::<Vec<_>>().join(", ")
}

fn bound(target: &Target, comparison: &str, key: &[String]) -> String {
    format!("({}) {comparison} {}", key_list(target), literals(target, key))
}

fn literals(target: &Target, key: &[String]) -> String {
    let values: Vec<String> = target
        .key
        .iter()
        .zip(key)
        .map(|(column, value)| format!("{}::{}", escape_literal(value).trim_start(), column.type_name))
        .collect();
    format!("({})", values.join(", "))
}

/// Before PostgreSQL 14 a comparison of `ctid` reads the whole table, a list of them does not.
fn blocks(from: u32, to: u32, major: i32) -> String {
    /// No block holds more rows, not even one of 32 KiB (`MaxHeapTuplesPerPage`).
    const ROWS: u32 = 1_164;
    if major >= 14 {
        return format!("ctid >= '({from},0)'::tid AND ctid < '({to},0)'::tid");
    }
    let last = to.saturating_sub(1);
    format!(
        "ctid = ANY (ARRAY(SELECT format('(%s,%s)', block, item)::tid FROM generate_series({from}::int8, {last}::int8) AS block, \
         generate_series(1, {ROWS}) AS item))"
    )
}

#[cfg(test)]
mod tests {
    use super::super::target::tests::target;
    use super::*;

    #[test]
    fn what_is_stored_comes_back() {
        let key = Some(vec!["1".to_owned(), "a\"b".to_owned()]);
        for stretch in [
            Stretch::Key { oid: 1, key: vec!["a".into()], after: None, to: key },
            Stretch::Blocks { oid: 1, node: 2, from: 3, to: 4 },
            Stretch::Moved { oid: 1, since: 5 },
        ] {
            assert_eq!(Stretch::read(&stretch.range()).unwrap(), stretch);
        }
        assert!(Stretch::read(&Range("{}".into())).is_err());
    }

    #[test]
    fn a_chunk_begins_behind_the_last_key() {
        let target = target(&["id"], Some("id > 0"));
        let stretch = Stretch::Key {
            oid: 1,
            key: vec!["id".into()],
            after: Some(vec!["O'Neil".into()]),
            to: Some(vec!["z".into()]),
        };
        assert_eq!(
            stretch.statement(&target, Some("x"), 10, 15),
            "COPY (SELECT \"id\", \"body\" FROM ONLY \"public\".\"t\" WHERE (id > 0) AND (x\n) AND (\"id\") > ('O''Neil'::text) \
             AND (\"id\") <= ('z'::text) ORDER BY \"id\" LIMIT 10) TO STDOUT"
        );
    }

    #[test]
    fn a_table_without_a_key_is_read_by_its_blocks() {
        let target = target(&[], None);
        let stretch = Stretch::Blocks { oid: 1, node: 2, from: 3, to: 5 };
        let newer = stretch.statement(&target, None, 10, 14);
        assert!(newer.contains("SELECT ctid, xmin, \"id\""), "{newer}");
        assert!(newer.contains("ctid >= '(3,0)'::tid AND ctid < '(5,0)'::tid"), "{newer}");
        assert!(stretch.statement(&target, None, 10, 13).contains("generate_series(3::int8, 4::int8)"));
    }
}
