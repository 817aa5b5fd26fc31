//! The two tables: what is there, whether it will do, and how it is made.
//!
//! Invariant: a position speaks of the rows of the table that is there now. When the table is made anew, the
//! positions kept for it are wiped in the same transaction, so that nothing is struck off that nobody has.

use forebay_api::{Blame, Fault, Finding};
use tokio_postgres::{Client, Error, Transaction};

use super::fault;
use super::name::{TableName, literal, quote};
use super::rows;

/// The table beside the events in which marks and leases are kept.
pub(super) const POSITIONS: &str = "forebay_positions";

/// The oldest server that is supported, as in `server_version_num`.
const OLDEST: i32 = 130_000;

/// The key of the advisory lock under which tables are made; any number that nobody else uses ("forebay").
const LOCK: i64 = 0x66_6f72_6562_6179;

/// What cannot be written to.
const STANDBY: &str = "the server is a standby";

/// What to do about it.
const PRIMARY: &str = "write to the primary; with several hosts set `target_session_attrs=primary`";

/// Columns of the positions, with their types and what else is said of them.
const POSITION_COLUMNS: [(&str, &str, &str); 9] = [
    ("stream", "text", "COLLATE \"C\" NOT NULL"),
    ("destination", "text", "COLLATE \"C\" NOT NULL"),
    ("table_name", "text", "COLLATE \"C\" NOT NULL"),
    // who may write: a number that grows whenever a daemon takes the stream over, since when, and from where
    ("lease", "bigint", "NOT NULL"),
    ("taken", "timestamp with time zone", "NOT NULL"),
    ("holder", "text", "NOT NULL"),
    // up to where the events are there: as bytes that order as marks do, as text for people, and since when
    ("mark", "bytea", ""),
    ("position", "text", ""),
    ("stored", "timestamp with time zone", ""),
];

/// The tables as statements name them.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    /// The events: quoted and qualified.
    pub(super) events: String,
    /// The positions: quoted and qualified.
    pub(super) positions: String,
    /// The sequence of the column `seq`, as a literal.
    pub(super) sequence: String,
}

/// Where the tables are, or would be.
struct Place {
    database: String,
    user: String,
    version: i32,
    standby: bool,
    /// `None`: the `search_path` leads nowhere.
    schema: Option<String>,
    schema_exists: bool,
    may_create: bool,
    may_stage: bool,
}

/// A table that is there.
struct Found {
    /// `schema.table` for messages.
    shown: String,
    /// The same for statements.
    quoted: String,
    /// An ordinary table, or a partitioned one.
    is_table: bool,
    /// Neither temporary nor unlogged.
    is_durable: bool,
    /// `name type` of each column.
    columns: Vec<String>,
    /// Columns that must be given a value.
    demanding: Vec<String>,
    /// The columns of each unique index that `ON CONFLICT` can use, comma-separated.
    unique: Vec<String>,
    /// Privileges that we lack, of those we need.
    lacking: Vec<String>,
}

/// What a table must be like.
struct Wanted {
    columns: Vec<(&'static str, &'static str)>,
    unique: &'static str,
    privileges: &'static [&'static str],
}

fn wanted_events() -> Wanted {
    let columns = std::iter::once(("seq", "bigint")).chain(rows::COLUMNS.into_iter().skip(1)).collect();
    Wanted { columns, unique: "id", privileges: &["SELECT", "INSERT"] }
}

fn wanted_positions() -> Wanted {
    Wanted {
        columns: POSITION_COLUMNS.map(|(name, ty, _)| (name, ty)).to_vec(),
        unique: "stream,destination,table_name",
        privileges: &["SELECT", "INSERT", "UPDATE"],
    }
}

/// Makes sure of both tables, making those that are missing.
pub(super) async fn prepare(client: &mut Client, name: &TableName) -> Result<Tables, Fault> {
    let doing = || format!("preparing table `{name}`");
    let failed = |error| fault::judge(doing(), error);
    let (mut place, mut events, mut positions) = look(client, name).await.map_err(failed)?;
    if place.standby {
        // while a failover is under way, the next attempt may find the primary
        return Err(Fault::retryable(doing(), STANDBY).with_remedy(PRIMARY));
    }
    refuse(&doing(), findings(&place, name, events.as_ref(), positions.as_ref()))?;
    if events.is_none() || positions.is_none() {
        create(client, &place, name).await.map_err(failed)?;
        (place, events, positions) = look(client, name).await.map_err(failed)?;
        refuse(&doing(), findings(&place, name, events.as_ref(), positions.as_ref()))?;
    }
    let schema = place.schema.as_deref().expect("a place without a schema is refused");
    let sequence = sequence(client, schema, name).await.map_err(failed)?;
    refuse(&doing(), vec![sequence_finding(&place, name, sequence.as_ref())])?;
    Ok(Tables {
        events: format!("{}.{}", quote(schema), quote(&name.table)),
        positions: format!("{}.{}", quote(schema), quote(POSITIONS)),
        sequence: literal(&sequence.expect("a column without a sequence is refused").name),
    })
}

/// What `forebay check` says of the place; changes nothing.
pub(super) async fn check(client: &Client, name: &TableName) -> Result<Vec<Finding>, Error> {
    let (place, events, positions) = look(client, name).await?;
    let mut findings = findings(&place, name, events.as_ref(), positions.as_ref());
    if let (Some(schema), Some(_)) = (&place.schema, events)
        && findings.iter().all(|finding| finding.trouble.is_none())
    {
        findings.push(sequence_finding(&place, name, sequence(client, schema, name).await?.as_ref()));
    }
    Ok(findings)
}

/// The first bad finding as a fault.
fn refuse(doing: &str, findings: Vec<Finding>) -> Result<(), Fault> {
    for finding in findings {
        if let Some(trouble) = finding.trouble
            && let Some(blame) = trouble.blame
        {
            return Err(Fault::fatal(doing, blame, finding.fact).with_remedy(trouble.remedy));
        }
    }
    Ok(())
}

async fn look(client: &Client, name: &TableName) -> Result<(Place, Option<Found>, Option<Found>), Error> {
    // an unqualified name is looked up as the server would, and made where the server would make it
    const PLACE: &str = "
        SELECT current_database()::text, current_user::text, current_setting('server_version_num')::int4,
               pg_is_in_recovery(), place.name, n.oid IS NOT NULL,
               coalesce(has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(n.oid, 'CREATE'), false),
               has_database_privilege(current_database(), 'TEMPORARY')
        FROM (SELECT coalesce($1::text,
                              (SELECT o.nspname::text FROM pg_class c JOIN pg_namespace o ON o.oid = c.relnamespace
                               WHERE c.oid = to_regclass(quote_ident($2::text))),
                              current_schema()::text) AS name) AS place
             LEFT JOIN pg_namespace n ON n.nspname = place.name";
    let row = client.query_one(PLACE, &[&name.schema, &name.table]).await?;
    let place = Place {
        database: row.try_get(0)?,
        user: row.try_get(1)?,
        version: row.try_get(2)?,
        standby: row.try_get(3)?,
        schema: row.try_get(4)?,
        schema_exists: row.try_get(5)?,
        may_create: row.try_get(6)?,
        may_stage: row.try_get(7)?,
    };
    let Some(schema) = place.schema.as_deref() else { return Ok((place, None, None)) };
    let events = find(client, schema, &name.table, &wanted_events()).await?;
    let positions = find(client, schema, POSITIONS, &wanted_positions()).await?;
    Ok((place, events, positions))
}

async fn find(client: &Client, schema: &str, table: &str, wanted: &Wanted) -> Result<Option<Found>, Error> {
    const FIND: &str = "
        SELECT c.relkind IN ('r', 'p'), c.relpersistence = 'p',
            ARRAY(SELECT a.attname || ' ' || format_type(a.atttypid, NULL) FROM pg_attribute a
                  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
            ARRAY(SELECT a.attname::text FROM pg_attribute a
                  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                    AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' ORDER BY a.attnum),
            ARRAY(SELECT (SELECT string_agg(pg_get_indexdef(i.indexrelid, k, true), ',' ORDER BY k)
                          FROM generate_series(1, i.indnkeyatts) AS k)
                  FROM pg_index i
                  WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
                    AND i.indpred IS NULL),
            ARRAY(SELECT p FROM unnest($3::text[]) AS p WHERE NOT has_table_privilege(c.oid, p))
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = $2";
    let Some(row) = client.query_opt(FIND, &[&schema, &table, &wanted.privileges]).await? else {
        return Ok(None);
    };
    Ok(Some(Found {
        shown: format!("{schema}.{table}"),
        quoted: format!("{}.{}", quote(schema), quote(table)),
        is_table: row.try_get(0)?,
        is_durable: row.try_get(1)?,
        columns: row.try_get(2)?,
        demanding: row.try_get(3)?,
        unique: row.try_get(4)?,
        lacking: row.try_get(5)?,
    }))
}

/// Where `seq` gets its numbers.
struct Sequence {
    name: String,
    may_use: bool,
}

async fn sequence(client: &Client, schema: &str, name: &TableName) -> Result<Option<Sequence>, Error> {
    const SEQUENCE: &str = "
        SELECT s.name, has_sequence_privilege(s.name, 'USAGE')
        FROM pg_get_serial_sequence(quote_ident($1::text) || '.' || quote_ident($2::text), 'seq') AS s(name)
        WHERE s.name IS NOT NULL";
    let row = client.query_opt(SEQUENCE, &[&schema, &name.table]).await?;
    row.map(|row| Ok(Sequence { name: row.try_get(0)?, may_use: row.try_get(1)? })).transpose()
}

async fn create(client: &mut Client, place: &Place, name: &TableName) -> Result<(), Error> {
    let schema = quote(place.schema.as_deref().expect("a place without a schema is refused"));
    let (events, positions) = (format!("{schema}.{}", quote(&name.table)), format!("{schema}.{POSITIONS}"));
    let transaction = client.transaction().await?;
    // two daemons, or two lanes of one, that start together
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    if !exists(&transaction, &positions).await? {
        create_positions(&transaction, &positions).await?;
    }
    if !exists(&transaction, &events).await? {
        create_events(&transaction, &events).await?;
        // whoever held a lease on what was there before is fenced, too
        let wipe = format!(
            "UPDATE {positions} SET mark = NULL, position = NULL, lease = lease + 1 WHERE table_name = $1"
        );
        transaction.execute(&wipe, &[&name.table]).await?;
    }
    transaction.commit().await
}

async fn exists(transaction: &Transaction<'_>, table: &str) -> Result<bool, Error> {
    Ok(transaction.query_opt("SELECT WHERE to_regclass($1) IS NOT NULL", &[&table]).await?.is_some())
}

/// Few rows, each rewritten with every delivery: there is room for the new version on the same page.
async fn create_positions(transaction: &Transaction<'_>, positions: &str) -> Result<(), Error> {
    let columns = POSITION_COLUMNS.map(|(name, ty, rest)| format!("{name} {ty} {rest}")).join(", ");
    transaction
        .batch_execute(&format!(
            "CREATE TABLE {positions} ({columns}, PRIMARY KEY (stream, destination, table_name))
                 WITH (fillfactor = 20);
             COMMENT ON TABLE {positions} IS {}",
            literal(
                "Forebay: up to which mark the events of a stream are in a table, and who may write them. \
                 Written in the same transaction as the events; do not change."
            )
        ))
        .await
}

/// `id` is unique because redelivery is made harmless by it; its collation "C" is the fastest and never changes under
/// an index. `seq` is indexed so that a reader can follow what arrives (`WHERE seq > $1 ORDER BY seq`). Every further
/// index costs each insert, so those are left to whoever knows the queries.
async fn create_events(transaction: &Transaction<'_>, events: &str) -> Result<(), Error> {
    let mut columns = String::new();
    for (column, ty) in rows::COLUMNS.into_iter().skip(1) {
        let rest = match column {
            "id" => " COLLATE \"C\" PRIMARY KEY",
            "key" | "digest" => "",
            _ => " NOT NULL",
        };
        columns += &format!(", {column} {ty}{rest}");
    }
    transaction
        .batch_execute(&format!(
            "CREATE TABLE {events} (seq bigint GENERATED BY DEFAULT AS IDENTITY UNIQUE{columns});
             COMMENT ON TABLE {events} IS {};
             COMMENT ON COLUMN {events}.seq IS {};
             COMMENT ON COLUMN {events}.digest IS {}",
            literal("Forebay: one row for each event, each once. `body` is the event as delivered."),
            literal("Order of arrival: in each source's stream its own order. With gaps."),
            literal("Hash of what the sender said, where the sender chose the id; else null."),
        ))
        .await
}

/// Everything that could keep us from writing, in the order in which it would.
fn findings(
    place: &Place,
    name: &TableName,
    events: Option<&Found>,
    positions: Option<&Found>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if place.version < OLDEST {
        let fact = format!("the server's version is {}", place.version / 10_000);
        findings.push(Finding::bad(fact, Blame::Outside, "use PostgreSQL 13 or later"));
    }
    if place.standby {
        findings.push(Finding::bad(STANDBY, Blame::Outside, PRIMARY));
    }
    let Some(schema) = place.schema.as_deref().filter(|_| place.schema_exists) else {
        let fact = match &place.schema {
            Some(schema) => format!("schema `{schema}` does not exist in database `{}`", place.database),
            None => "no schema of the `search_path` exists".to_owned(),
        };
        let wanted = place.schema.as_deref().unwrap_or("public");
        let remedy = format!("CREATE SCHEMA {} AUTHORIZATION {}", quote(wanted), quote(&place.user));
        findings.push(Finding::bad(fact, Blame::Configuration, remedy));
        return findings;
    };
    if !place.may_stage {
        findings.push(Finding::bad(
            format!("role `{}` may not make temporary tables", place.user),
            Blame::Outside,
            format!("GRANT TEMPORARY ON DATABASE {} TO {}", quote(&place.database), quote(&place.user)),
        ));
    }
    let tables = [(&*name.table, events, wanted_events()), (POSITIONS, positions, wanted_positions())];
    for (table, found, wanted) in tables {
        findings.push(match found {
            Some(found) => shape_finding(found, &wanted, &place.user),
            None if place.may_create => Finding::good(format!("table `{schema}.{table}` will be created")),
            None => Finding::bad(
                format!(
                    "table `{schema}.{table}` does not exist, and role `{}` may not create it",
                    place.user
                ),
                Blame::Outside,
                format!("GRANT USAGE, CREATE ON SCHEMA {} TO {}", quote(schema), quote(&place.user)),
            ),
        });
    }
    findings
}

fn shape_finding(found: &Found, wanted: &Wanted, user: &str) -> Finding {
    let Found { shown, quoted, .. } = found;
    let other = "name another table with `table:`, or drop this one";
    if !found.is_table {
        return Finding::bad(format!("`{shown}` is not a table"), Blame::Configuration, other);
    }
    if !found.is_durable {
        let remedy = format!("ALTER TABLE {quoted} SET LOGGED");
        return Finding::bad(format!("table `{shown}` is emptied by a crash"), Blame::Configuration, remedy);
    }
    for (column, ty) in &wanted.columns {
        let whole = format!("{column} {ty}");
        if !found.columns.contains(&whole) {
            return Finding::bad(
                format!("table `{shown}` has no column `{whole}`"),
                Blame::Configuration,
                other,
            );
        }
    }
    if let Some(column) =
        found.demanding.iter().find(|name| wanted.columns.iter().all(|(known, _)| known != name))
    {
        return Finding::bad(
            format!("column `{column}` of table `{shown}` demands a value that we do not have"),
            Blame::Configuration,
            format!("ALTER TABLE {quoted} ALTER COLUMN {} DROP NOT NULL", quote(column)),
        );
    }
    if !found.unique.iter().any(|columns| columns == wanted.unique) {
        return Finding::bad(
            format!("table `{shown}` has no unique index on ({})", wanted.unique),
            Blame::Configuration,
            format!("CREATE UNIQUE INDEX ON {quoted} ({})", wanted.unique),
        );
    }
    if !found.lacking.is_empty() {
        let lacking = found.lacking.join(", ");
        return Finding::bad(
            format!("role `{user}` lacks {lacking} on table `{shown}`"),
            Blame::Outside,
            format!("GRANT {lacking} ON {quoted} TO {}", quote(user)),
        );
    }
    Finding::good(format!("table `{shown}` can be written"))
}

fn sequence_finding(place: &Place, name: &TableName, sequence: Option<&Sequence>) -> Finding {
    match sequence {
        None => Finding::bad(
            format!("column `seq` of table `{name}` has no sequence"),
            Blame::Configuration,
            "make it an identity column, or name another table with `table:`",
        ),
        Some(sequence) if !sequence.may_use => Finding::bad(
            format!("role `{}` may not use sequence `{}`", place.user, sequence.name),
            Blame::Outside,
            format!("GRANT USAGE ON SEQUENCE {} TO {}", sequence.name, quote(&place.user)),
        ),
        Some(sequence) => Finding::good(format!("sequence `{}` can be used", sequence.name)),
    }
}
