//! [`Target`]: a table as the copy reads it, from the catalogs.
//!
//! Its shape is the one that the stream would give it, so that a row is written in the same way by both.

use std::sync::Arc;

use forebay_api::Fault;
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;

use crate::decode::row::Treatment;
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
    /// The key, in the order of its index; empty: there is none.
    pub(crate) key: Vec<KeyColumn>,
    /// Whether the table is read in the order of its key; else by blocks.
    pub(crate) is_ordered: bool,
    /// Whether the stream may leave a value out of a changed row, because it is stored apart and did not change.
    pub(crate) leaves_out: bool,
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

impl Target {
    /// How many columns are read.
    pub(super) fn width(&self) -> u16 {
        u16::try_from(self.columns.len()).expect("a table has at most 1600 columns")
    }
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

/// The tables of publications and their partitions. Before PostgreSQL 15 there are no row filters.
pub(crate) async fn published(
    client: &Client,
    plan: &Plan,
    publications: &[String],
    major: i32,
) -> Result<Vec<Published>, Fault> {
    let filter = if major >= 15 { "t.rowfilter" } else { "NULL::text" };
    let query = format!(
        "SELECT DISTINCT ON (leaf.oid) c.oid AS table_oid, n.nspname::text AS schema, c.relname::text AS name, \
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
          FROM pg_index i WHERE i.indrelid = c.oid), ';' ORDER BY c.oid) || \
         (SELECT coalesce(string_agg(to_jsonb(r)::text, ',' ORDER BY r.oid), '') FROM pg_publication_rel r WHERE r.prrelid IN ({table}, {oid})) \
         FROM pg_class c JOIN pg_namespace ns ON ns.oid = c.relnamespace \
         WHERE c.oid IN ({table}, {oid}))"
    )
}

/// The columns of the replica identity, or of the primary key, in the order of the index.
const KEY: &str = "
    SELECT a.attname::text AS name, format_type(a.atttypid, -1) AS type
    FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid
        CROSS JOIN LATERAL unnest((x.indkey::int2[])[0:x.indnkeyatts - 1]) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.number
    WHERE x.indrelid = $1 AND x.indisvalid AND x.indimmediate
        AND CASE c.relreplident WHEN 'i' THEN x.indisreplident WHEN 'n' THEN false ELSE x.indisprimary END
    ORDER BY k.place";

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
         c.reltoastrelid <> 0 AND s.relreplident <> 'f' AS leaves_out, coalesce(pg_relation_filenode(c.oid), 0)::oid AS node, \
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
    let Some(shape) = shapes.at_present(table).await? else { return Ok(None) };
    let columns: Vec<String> = shape.columns.0.iter().map(|column| column.name.clone()).collect();
    let mut key = Some(Vec::new());
    for row in client.query(KEY, &[&table]).await.map_err(failed)? {
        let (name, type_name): (String, String) =
            (row.try_get("name").map_err(failed)?, row.try_get("type").map_err(failed)?);
        // A key that is not published as a whole is none.
        let at = columns.iter().position(|column| *column == name);
        key = key.zip(at).map(|(mut key, at)| {
            key.push(KeyColumn { name, at, type_name });
            key
        });
    }
    let key = key.unwrap_or_default();
    // The progress and the ids hold keys as they are, and what is hashed is stored nowhere.
    let is_hashed = |column: &KeyColumn| matches!(shape.columns.0[column.at].treatment, Treatment::Hash(_));
    let is_ordered = !key.is_empty() && !key.iter().any(is_hashed);
    let blocks: i64 = row.try_get("blocks").map_err(failed)?;
    let bytes: i64 = row.try_get("bytes").map_err(failed)?;
    Ok(Some(Target {
        oid,
        table,
        node: row.try_get("node").map_err(failed)?,
        quoted: format!("{}.{}", escape_identifier(&schema), escape_identifier(&name)),
        shown: format!("{shown_schema}.{shown}"),
        columns,
        key,
        is_ordered,
        leaves_out: row.try_get("leaves_out").map_err(failed)?,
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
            is_ordered: !key.is_empty(),
            leaves_out: true,
            row_filter: row_filter.map(str::to_owned),
            shape: Arc::new(Shape::for_tests(Arc::new(subject), Columns::default(), true)),
            signature: String::new(),
            blocks: 10,
            bytes: 81_920,
            rows: Some(100),
        }
    }
}
