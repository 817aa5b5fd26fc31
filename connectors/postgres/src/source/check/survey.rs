//! [`Survey`]: what a table is besides its name: how large it is, what identifies its rows, whose it is, and what of it
//! our role cannot see. Only reads.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Row};

/// So many bytes of a table a copy reads in a second, on two cores, into a file: the lower end of what was measured.
const BYTES_A_SECOND: u64 = 40 << 20;

/// And so many rows.
const ROWS_A_SECOND: u64 = 100_000;

/// A table, or a partitioned table with all that is below it.
#[derive(Clone, Debug)]
pub(in crate::source) struct Survey {
    /// The columns of its primary key, in their order.
    pub key: Vec<String>,
    /// `relreplident`: `d`, `f`, `i`, `n`. That of the table itself, not of its partitions.
    pub identity: String,
    /// The role that it belongs to.
    pub owner: String,
    /// Whether that one is a superuser, whose membership is nothing to give away.
    pub owner_is_superuser: bool,
    /// Whether we count as its owner.
    pub owned: bool,
    /// Whether an extension made it.
    pub of_extension: bool,
    /// The tables that hold the rows: itself, or its partitions.
    pub leaves: Vec<Leaf>,
}

/// A table that holds rows.
#[derive(Clone, Debug)]
pub(in crate::source) struct Leaf {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// How many rows it has, as far as the server knows.
    pub rows: Option<u64>,
    /// How large it is, with what is stored out of line.
    pub bytes: u64,
    /// Whether we may use its schema.
    pub reachable: bool,
    /// Whether we may read it.
    pub readable: bool,
    /// Whether policies may hide rows of it from us.
    pub hidden: bool,
}

impl Survey {
    /// How many rows there are, as far as the server knows; `None`: it does not know of all.
    pub(in crate::source) fn rows(&self) -> Option<u64> {
        self.leaves.iter().map(|leaf| leaf.rows).sum()
    }

    /// How large it is.
    pub(in crate::source) fn bytes(&self) -> u64 {
        self.leaves.iter().map(|leaf| leaf.bytes).sum()
    }
}

/// How long a copy may take: a rough figure, and longer where a destination is slow.
pub(in crate::source) fn copy_time(rows: Option<u64>, bytes: u64) -> Duration {
    let by_rows = rows.unwrap_or(0) / ROWS_A_SECOND;
    Duration::from_secs(by_rows.max(bytes / BYTES_A_SECOND).max(1))
}

/// The size of a file can only be asked for under a lock, which somebody may hold; the catalogs say what it was when the
/// table was last vacuumed.
const EXACT: (&str, &str) = ("pg_table_size(l.oid)", "pg_relation_size(l.oid) = 0");
const FROM_CATALOGS: (&str, &str) = ("l.relpages::int8 * current_setting('block_size')::int8", "false");

fn query((size, empty): (&str, &str)) -> String {
    format!(
        "SELECT c.oid AS table, c.relreplident::text AS identity, o.rolname::text AS owner, o.rolsuper AS owner_is_superuser,
            pg_has_role(c.relowner, 'USAGE') AS owned,
            EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') AS of_extension,
            ARRAY(SELECT a.attname::text FROM pg_index i
                CROSS JOIN LATERAL unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k (number, place)
                JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
                WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY k.place) AS key,
            leaf.*
        FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner
            LEFT JOIN LATERAL (
                SELECT ln.nspname::text AS schema, l.relname::text AS name, {size} AS bytes, {empty} AS empty,
                    CASE WHEN l.reltuples > 0 THEN l.reltuples::float8 ELSE pg_stat_get_live_tuples(l.oid)::float8 END AS rows,
                    has_schema_privilege(l.relnamespace, 'USAGE') AS reachable,
                    has_table_privilege(l.oid, 'SELECT') OR NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = l.oid
                        AND a.attnum > 0 AND NOT a.attisdropped AND NOT has_column_privilege(l.oid, a.attnum, 'SELECT')) AS readable,
                    row_security_active(l.oid) AS hidden
                FROM (SELECT relid::oid AS oid FROM pg_partition_tree(c.oid) WHERE isleaf AND c.relkind = 'p'
                        UNION ALL SELECT c.oid WHERE c.relkind = 'r') part
                    JOIN pg_class l ON l.oid = part.oid JOIN pg_namespace ln ON ln.oid = l.relnamespace
                WHERE l.relkind = 'r') leaf ON true
        WHERE c.oid = ANY ($1) ORDER BY leaf.schema, leaf.name"
    )
}

/// Looks at tables, by oid. One that is gone meanwhile is not in the answer.
pub(in crate::source) async fn survey(
    client: &Client,
    tables: &[u32],
) -> Result<HashMap<u32, Survey>, Error> {
    let rows = match client.query(&query(EXACT), &[&tables]).await {
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            client.query(&query(FROM_CATALOGS), &[&tables]).await?
        }
        answer => answer?,
    };
    let mut surveys: HashMap<u32, Survey> = HashMap::new();
    for row in &rows {
        let table = row.try_get("table")?;
        let leaf = leaf(row)?;
        let survey = match surveys.remove(&table) {
            Some(survey) => survey,
            None => of_table(row)?,
        };
        let leaves = survey.leaves.into_iter().chain(leaf).collect();
        surveys.insert(table, Survey { leaves, ..survey });
    }
    Ok(surveys)
}

fn of_table(row: &Row) -> Result<Survey, Error> {
    Ok(Survey {
        key: row.try_get("key")?,
        identity: row.try_get("identity")?,
        owner: row.try_get("owner")?,
        owner_is_superuser: row.try_get("owner_is_superuser")?,
        owned: row.try_get("owned")?,
        of_extension: row.try_get("of_extension")?,
        leaves: Vec::new(),
    })
}

/// `None`: a partitioned table without partitions.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate of a count")]
fn leaf(row: &Row) -> Result<Option<Leaf>, Error> {
    let Some(schema) = row.try_get("schema")? else { return Ok(None) };
    let rows: f64 = row.try_get("rows")?;
    let rows = match row.try_get("empty")? {
        true => Some(0),
        false => (rows > 0.0).then_some(rows as u64),
    };
    // A table that was dropped a moment ago has no size.
    let bytes = row.try_get::<_, Option<i64>>("bytes")?.unwrap_or(0);
    Ok(Some(Leaf {
        schema,
        name: row.try_get("name")?,
        rows,
        bytes: u64::try_from(bytes).unwrap_or(0),
        reachable: row.try_get("reachable")?,
        readable: row.try_get("readable")?,
        hidden: row.try_get("hidden")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_copy_goes_by_whichever_takes_longer() {
        assert_eq!(copy_time(Some(10), 8192).as_secs(), 1);
        assert_eq!(copy_time(Some(3_000_000), 1 << 20).as_secs(), 30);
        assert_eq!(copy_time(None, 4 << 30).as_secs(), 102);
    }
}
