//! [`Target`]: a table as the copy reads it, from the catalogs.
//!
//! Its shape is made of the same relation message that the stream would send, so that a row is written in the same way
//! by both.

use std::sync::Arc;

use forebay_api::Fault;
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;

use crate::decode::row::Treatment;
use crate::protocol::{self, Message};
use crate::source::config::Plan;
use crate::source::fault;
use crate::source::relation::{Shape, Shapes};

/// A table that changes come from, or one partition of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// What the copy calls it: `schema.table`; and behind a `/` the partition that is read.
    pub(crate) name: String,
    /// The table whose events they are.
    pub(crate) table: u32,
    /// The table that holds the rows: itself, or a partition of it.
    pub(crate) oid: u32,
    /// The columns that are published, where not all are.
    pub(crate) columns: Option<Vec<String>>,
    /// The rows that are published, where not all are.
    pub(crate) row_filter: Option<String>,
    /// How many rows it has, as far as the server knows.
    pub(crate) estimated_rows: Option<u64>,
}

/// Everything that a chunk's statement needs.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The table that holds the rows.
    pub(crate) oid: u32,
    /// The table whose events they are.
    pub(crate) table: u32,
    /// Its file.
    pub(crate) node: u32,
    /// Schema and name, quoted.
    pub(crate) quoted: String,
    /// The name that ids carry.
    pub(crate) shown: String,
    /// The columns that are read, in the order of the shape's.
    pub(crate) columns: Vec<String>,
    /// The key that rows are read by, in the order of its index; empty: by blocks.
    pub(crate) key: Vec<KeyColumn>,
    /// The publication's.
    pub(crate) row_filter: Option<String>,
    /// How rows are written.
    pub(crate) shape: Arc<Shape>,
    /// What the catalogs said; another text means that all of this must be looked up again.
    pub(crate) signature: String,
    /// Blocks of its file,
    pub(crate) blocks: u32,
    /// bytes with what is stored out of line,
    pub(crate) bytes: u64,
    /// and rows, as far as the server knows.
    pub(crate) rows: Option<u64>,
}

/// A column of the key.
#[derive(Clone, Debug)]
pub(crate) struct KeyColumn {
    /// Its name.
    pub(crate) name: String,
    /// Where it stands among the columns that are read.
    pub(crate) at: usize,
    /// Its type, as SQL writes it where no length is meant: `character` would be one letter.
    pub(crate) type_name: String,
}

/// The tables of publications and their partitions. Before PostgreSQL 15 there are neither column lists nor row filters.
pub(crate) async fn published(
    client: &Client,
    plan: &Plan,
    publications: &[String],
    major: i32,
) -> Result<Vec<Published>, Fault> {
    let (columns, filter) =
        if major >= 15 { ("t.attnames::text[]", "t.rowfilter") } else { ("NULL::text[]", "NULL::text") };
    let query = format!(
        "SELECT DISTINCT ON (leaf.oid) c.oid AS table_oid, n.nspname::text AS schema, c.relname::text AS name, {columns} AS columns, \
         {filter} AS filter, leaf.oid AS leaf_oid, ln.nspname || '.' || leaf.relname AS leaf, leaf.reltuples::float8 AS rows, \
         rn.nspname::text AS root_schema, r.relname::text AS root \
         FROM pg_publication_tables t JOIN pg_namespace n ON n.nspname = t.schemaname \
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename \
         JOIN LATERAL (SELECT relid AS oid FROM pg_partition_tree(c.oid) WHERE isleaf AND c.relkind = 'p' \
             UNION ALL SELECT c.oid WHERE c.relkind <> 'p') parts ON true \
         JOIN pg_class leaf ON leaf.oid = parts.oid JOIN pg_namespace ln ON ln.oid = leaf.relnamespace \
         LEFT JOIN pg_class r ON c.relispartition AND r.oid = pg_partition_root(c.oid) \
         LEFT JOIN pg_namespace rn ON rn.oid = r.relnamespace \
         WHERE t.pubname = ANY ($1) AND leaf.relkind = 'r' ORDER BY leaf.oid"
    );
    let failed = |error| fault::sql("looking for the tables to copy", error);
    let rows = client.query(&query, &[&publications]).await.map_err(failed)?;
    let mut tables = Vec::new();
    for row in rows {
        let (schema, name): (String, String) =
            (row.try_get("schema").map_err(failed)?, row.try_get("name").map_err(failed)?);
        let root: Option<(String, String)> = match row.try_get::<_, Option<String>>("root").map_err(failed)? {
            Some(root) => Some((row.try_get("root_schema").map_err(failed)?, root)),
            None => None,
        };
        let names: Vec<(&str, &str)> = std::iter::once((schema.as_str(), name.as_str()))
            .chain(root.as_ref().map(|(schema, name)| (schema.as_str(), name.as_str())))
            .collect();
        if !plan.wants_any(&names) {
            continue;
        }
        let (table, oid): (u32, u32) =
            (row.try_get("table_oid").map_err(failed)?, row.try_get("leaf_oid").map_err(failed)?);
        let leaf: String = row.try_get("leaf").map_err(failed)?;
        let name = if table == oid { format!("{schema}.{name}") } else { format!("{schema}.{name}/{leaf}") };
        let rows: f64 = row.try_get("rows").map_err(failed)?;
        tables.push(Published {
            name,
            table,
            oid,
            columns: row.try_get("columns").map_err(failed)?,
            row_filter: row.try_get("filter").map_err(failed)?,
            estimated_rows: estimate(rows),
        });
    }
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tables)
}

/// A table that was never analysed says -1 (and before PostgreSQL 14, 0).
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate of a count")]
fn estimate(rows: f64) -> Option<u64> {
    (rows > 0.0).then_some(rows as u64)
}

/// What the signature is made of; it is read again in each chunk's transaction.
pub(super) fn signature_query(table: u32, oid: u32) -> String {
    format!(
        "(SELECT string_agg(c.oid::text || c.relreplident::text || coalesce(pg_relation_filenode(c.oid), 0)::text || ns.nspname || '.' || c.relname || \
         (SELECT coalesce(string_agg(a.attname || ' ' || a.atttypid || ' ' || a.atttypmod || ' ' || a.attisdropped || a.attgenerated::text, ',' ORDER BY a.attnum), '') \
          FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0) || \
         (SELECT coalesce(string_agg(i.indexrelid || ' ' || i.indkey::text || i.indisprimary || i.indisreplident || i.indimmediate || i.indisvalid, ',' ORDER BY i.indexrelid), '') \
          FROM pg_index i WHERE i.indrelid = c.oid), ';' ORDER BY c.oid) FROM pg_class c JOIN pg_namespace ns ON ns.oid = c.relnamespace \
         WHERE c.oid IN ({table}, {oid}))"
    )
}

/// Looks a table up; `None`: it is gone.
pub(super) async fn target(
    client: &Client,
    shapes: &Shapes,
    published: &Published,
) -> Result<Option<Target>, Fault> {
    let failed = |error| fault::sql(format!("looking at table `{}`", published.name), error);
    let (table, oid) = (published.table, published.oid);
    let query = format!(
        "SELECT {} AS signature, ns.nspname::text AS schema, c.relname::text AS name, s.relname::text AS shown, sn.nspname::text AS shown_schema, \
         s.relreplident::text AS identity, coalesce(pg_relation_filenode(c.oid), 0)::oid AS node, \
         pg_relation_size(c.oid) / current_setting('block_size')::int8 AS blocks, pg_table_size(c.oid) AS bytes, c.reltuples::float8 AS rows \
         FROM pg_class c JOIN pg_namespace ns ON ns.oid = c.relnamespace, pg_class s JOIN pg_namespace sn ON sn.oid = s.relnamespace \
         WHERE c.oid = $1 AND s.oid = $2",
        signature_query(table, oid)
    );
    let Some(row) = client.query_opt(&query, &[&oid, &table]).await.map_err(failed)? else { return Ok(None) };
    let (schema, name): (String, String) =
        (row.try_get("schema").map_err(failed)?, row.try_get("name").map_err(failed)?);
    let (shown_schema, shown): (String, String) =
        (row.try_get("shown_schema").map_err(failed)?, row.try_get("shown").map_err(failed)?);
    let identity: String = row.try_get("identity").map_err(failed)?;
    // Before PostgreSQL 18 the catalog lists generated columns with the others, and the stream never has them.
    let columns = client
        .query(
            "SELECT a.attname::text AS name, a.atttypid, a.atttypmod, format_type(a.atttypid, -1) AS type, coalesce(i.at, 0)::int8 AS key \
             FROM pg_attribute a LEFT JOIN LATERAL (SELECT array_position(x.indkey::int2[], a.attnum) + 1 AS at FROM pg_index x \
                 WHERE x.indrelid = a.attrelid AND x.indisvalid AND x.indimmediate \
                 AND array_position(x.indkey::int2[], a.attnum) < x.indnkeyatts \
                 AND CASE $2::text WHEN 'i' THEN x.indisreplident WHEN 'n' THEN false ELSE x.indisprimary END) i ON true \
             WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped \
             AND CASE a.attgenerated WHEN '' THEN a.attname = ANY ($3) OR $3::text[] IS NULL \
                 ELSE a.attname = ANY ($3) AND current_setting('server_version_num')::int >= 180000 END ORDER BY a.attnum",
            &[&table, &identity, &published.columns],
        )
        .await
        .map_err(failed)?;
    let mut relation = vec![b'R'];
    relation.extend_from_slice(&table.to_be_bytes());
    relation.extend_from_slice(shown_schema.as_bytes());
    relation.push(0);
    relation.extend_from_slice(shown.as_bytes());
    relation.push(0);
    relation.extend_from_slice(identity.as_bytes());
    relation.extend_from_slice(
        &u16::try_from(columns.len()).expect("a table has at most 1600 columns").to_be_bytes(),
    );
    let (mut names, mut key) = (Vec::new(), Vec::new());
    for (at, column) in columns.iter().enumerate() {
        let name: String = column.try_get("name").map_err(failed)?;
        let place: i64 = column.try_get("key").map_err(failed)?;
        let type_oid: u32 = column.try_get("atttypid").map_err(failed)?;
        let modifier: i32 = column.try_get("atttypmod").map_err(failed)?;
        relation.push(u8::from(identity == "f" || place > 0));
        relation.extend_from_slice(name.as_bytes());
        relation.push(0);
        relation.extend_from_slice(&type_oid.to_be_bytes());
        relation.extend_from_slice(&modifier.to_be_bytes());
        if place > 0 {
            let type_name = column.try_get("type").map_err(failed)?;
            key.push((place, KeyColumn { name: name.clone(), at, type_name }));
        }
        names.push(name);
    }
    key.sort_by_key(|(place, _)| *place);
    let mut key: Vec<KeyColumn> = key.into_iter().map(|(_, column)| column).collect();
    let relation = match protocol::message(&relation) {
        Ok(Message::Relation(relation)) => relation,
        other => unreachable!("a relation was written and {other:?} read"),
    };
    let shape = shapes.of(&relation).await?;
    // The progress holds keys as they are, and what is hashed is stored nowhere.
    if key.iter().any(|column| matches!(shape.columns.0[column.at].treatment, Treatment::Hash(_))) {
        key.clear();
    }
    let blocks: i64 = row.try_get("blocks").map_err(failed)?;
    let bytes: i64 = row.try_get("bytes").map_err(failed)?;
    Ok(Some(Target {
        oid,
        table,
        node: row.try_get("node").map_err(failed)?,
        quoted: format!("{}.{}", escape_identifier(&schema), escape_identifier(&name)),
        shown: format!("{shown_schema}.{shown}"),
        columns: names,
        key,
        row_filter: published.row_filter.clone(),
        shape: Arc::new(shape),
        signature: row.try_get("signature").map_err(failed)?,
        blocks: u32::try_from(blocks).unwrap_or(u32::MAX),
        bytes: u64::try_from(bytes).unwrap_or(0),
        rows: estimate(row.try_get("rows").map_err(failed)?),
    }))
}

#[cfg(test)]
pub(super) mod tests {
    use forebay_api::Subject;

    use super::*;
    use crate::decode::row::Columns;

    /// `public.t` with `id` and `body`.
    pub(in super::super) fn target(key: &[&str], row_filter: Option<&str>) -> Target {
        let subject =
            Subject::new(("v", "public.t", "1-0-0"), (None, Some("public"), Some("t")), String::new());
        let column = |(at, name): (usize, &&str)| KeyColumn {
            name: (*name).to_owned(),
            at,
            type_name: "text".to_owned(),
        };
        Target {
            oid: 1,
            table: 1,
            node: 2,
            quoted: "\"public\".\"t\"".to_owned(),
            shown: "public.t".to_owned(),
            columns: vec!["id".to_owned(), "body".to_owned()],
            key: key.iter().enumerate().map(column).collect(),
            row_filter: row_filter.map(str::to_owned),
            shape: Arc::new(Shape::for_tests(Arc::new(subject), Columns::default(), true)),
            signature: String::new(),
            blocks: 10,
            bytes: 81_920,
            rows: Some(100),
        }
    }
}
