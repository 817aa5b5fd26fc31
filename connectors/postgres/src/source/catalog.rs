//! What the server's catalogs say of tables, publications and slots. Only reads.

use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

use crate::lsn::Lsn;

/// A table that could be read.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Its oid.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The partitioned table at the top, where it is a partition.
    pub root: Option<u32>,
    /// Whether rows are in partitions of it.
    pub partitioned: bool,
    /// The tables, `(schema, name)`, of which the server does not give enough of old rows that UPDATE and DELETE could be
    /// published: itself, or partitions of it.
    pub unidentified: Vec<(String, String)>,
}

impl Table {
    /// Whether UPDATE and DELETE of every row can be published.
    pub(super) fn identified(&self) -> bool {
        self.unidentified.is_empty()
    }
}

/// Leaves decide, and a deferrable key is none (as in the server's own `GetRelationIdentityOrPK`): PostgreSQL asks the partition that a row is in for its identity.
const TABLES: &str = "
    WITH unidentified AS NOT MATERIALIZED (
        SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND CASE c.relreplident
            WHEN 'f' THEN false
            WHEN 'd' THEN NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid)
            WHEN 'i' THEN NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indimmediate AND i.indisvalid)
            ELSE true END
    )
    SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind = 'p' AS partitioned,
        CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid END AS root, u.schemas, u.names
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        CROSS JOIN LATERAL (
            SELECT coalesce(array_agg(u.schema ORDER BY u.schema, u.name), '{}') AS schemas,
                coalesce(array_agg(u.name ORDER BY u.schema, u.name), '{}') AS names
            FROM (SELECT * FROM unidentified own WHERE own.oid = c.oid
                UNION ALL SELECT part.* FROM pg_partition_tree(c.oid) t JOIN unidentified part ON part.oid = t.relid::oid
                    WHERE c.relkind = 'p') u) u
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
        AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
    ORDER BY n.nspname, c.relname";

/// All tables of the database, but the server's own.
pub(super) async fn tables(client: &Client) -> Result<Vec<Table>, tokio_postgres::Error> {
    let rows = client.query(TABLES, &[]).await?;
    rows.iter()
        .map(|row| {
            let (schemas, names): (Vec<String>, Vec<String>) =
                (row.try_get("schemas")?, row.try_get("names")?);
            Ok(Table {
                oid: row.try_get("oid")?,
                schema: row.try_get("schema")?,
                name: row.try_get("name")?,
                root: row.try_get("root")?,
                partitioned: row.try_get("partitioned")?,
                unidentified: schemas.into_iter().zip(names).collect(),
            })
        })
        .collect()
}

/// Those of `columns` (`schema.table.column`) that no table has.
pub(super) async fn missing_columns(
    client: &Client,
    columns: &[String],
) -> Result<Vec<String>, tokio_postgres::Error> {
    let query = "SELECT wanted FROM unnest($1::text[]) AS wanted WHERE NOT EXISTS (SELECT FROM pg_attribute a \
                 JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE a.attnum > 0 AND NOT a.attisdropped AND n.nspname || '.' || c.relname || '.' || a.attname = wanted)";
    client.query(query, &[&columns]).await?.iter().map(|row| row.try_get(0)).collect()
}

/// A publication that exists.
#[derive(Clone, Debug)]
pub(super) struct Publication {
    /// Its comment, by which we know our own.
    pub comment: Option<String>,
    /// The tables that were put into it by name: their oids.
    pub tables: Vec<u32>,
    /// Every table whose changes come through it: its oid.
    pub covers: Vec<u32>,
    /// Whether we may change it.
    pub owned: bool,
}

/// What is known of a publication; `None`: there is none.
pub(super) async fn publication(
    client: &Client,
    name: &str,
) -> Result<Option<Publication>, tokio_postgres::Error> {
    let query = "SELECT obj_description(p.oid, 'pg_publication') AS comment, \
                 ARRAY(SELECT prrelid FROM pg_publication_rel WHERE prpubid = p.oid) AS tables, \
                 ARRAY(SELECT c.oid FROM pg_publication_tables t JOIN pg_namespace n ON n.nspname = t.schemaname \
                     JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename WHERE t.pubname = p.pubname) AS covers, \
                 pg_has_role(p.pubowner, 'USAGE') AS owned \
                 FROM pg_publication p WHERE pubname = $1";
    let Some(row) = client.query_opt(query, &[&name]).await? else { return Ok(None) };
    Ok(Some(Publication {
        comment: row.try_get("comment")?,
        tables: row.try_get("tables")?,
        covers: row.try_get("covers")?,
        owned: row.try_get("owned")?,
    }))
}

/// A replication slot that exists.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// The output plugin; `None` for a physical slot.
    pub plugin: Option<String>,
    /// The database that it is bound to.
    pub database: Option<String>,
    /// The process that reads it, and what that calls itself.
    pub active: Option<Reader>,
    /// Everything before it was confirmed; the server sends nothing older.
    pub confirmed: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// WAL that the server keeps for it, in bytes.
    pub retained_bytes: Option<i64>,
    /// WAL that may still be written before it is lost; `None` where the server sets no limit.
    pub safe_wal_bytes: Option<i64>,
    /// Where the server's WAL ends now.
    pub server_end: Lsn,
    /// Whether the server follows another.
    pub standby: bool,
}

/// Who reads a slot.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    /// The process on the server.
    pub pid: i32,
    /// Its `application_name`.
    pub application: String,
    /// Where it comes from; empty for a unix socket.
    pub address: String,
}

/// What is known of a slot; `None`: there is none.
pub(super) async fn slot(client: &Client, name: &str) -> Result<Option<Slot>, tokio_postgres::Error> {
    let query = "WITH here AS (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                     ELSE pg_current_wal_lsn() END AS lsn) \
                 SELECT s.plugin::text, s.database::text, s.active_pid, s.confirmed_flush_lsn, s.wal_status, s.safe_wal_size, \
                 pg_wal_lsn_diff(here.lsn, s.restart_lsn)::int8 AS retained, here.lsn, pg_is_in_recovery() AS standby, \
                 coalesce(a.application_name, '') AS application, coalesce(host(a.client_addr), '') AS address \
                 FROM here, pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = $1";
    let Some(row) = client.query_opt(query, &[&name]).await? else { return Ok(None) };
    let lsn = |lsn: PgLsn| Lsn(u64::from(lsn));
    let active: Option<i32> = row.try_get("active_pid")?;
    let (application, address) = (row.try_get("application")?, row.try_get("address")?);
    Ok(Some(Slot {
        plugin: row.try_get("plugin")?,
        database: row.try_get("database")?,
        active: active.map(|pid| Reader { pid, application, address }),
        confirmed: row.try_get::<_, Option<PgLsn>>("confirmed_flush_lsn")?.map(lsn),
        wal_status: row.try_get("wal_status")?,
        retained_bytes: row.try_get("retained")?,
        safe_wal_bytes: row.try_get("safe_wal_size")?,
        server_end: lsn(row.try_get("lsn")?),
        standby: row.try_get("standby")?,
    }))
}

/// What the server is, and what it lets us do.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// `server_version_num`: 150019 is 15.19.
    pub version: i32,
    /// `wal_level`.
    pub wal_level: String,
    /// Whether it follows another server.
    pub standby: bool,
    /// The role that we are.
    pub role: String,
    /// Whether that may replicate: by its attribute, or on Amazon RDS by membership in a role.
    pub may_replicate: bool,
    /// Whether that may create a publication in this database.
    pub may_create: bool,
    /// The database's oid.
    pub database: u32,
    /// After how long of silence the server gives up on us, in milliseconds; 0: never.
    pub walsender_timeout_ms: i64,
}

/// Asks for [`Facts`].
pub(super) async fn facts(client: &Client) -> Result<Facts, tokio_postgres::Error> {
    let query = "SELECT current_setting('server_version_num')::int4 AS version, current_setting('wal_level') AS wal_level, \
                 pg_is_in_recovery() AS standby, current_user::text AS role, \
                 (SELECT rolreplication OR rolsuper OR EXISTS (SELECT FROM pg_roles rds WHERE rds.rolname = 'rds_replication' \
                     AND pg_has_role(rds.oid, 'MEMBER')) FROM pg_roles WHERE rolname = current_user) AS may_replicate, \
                 has_database_privilege(current_database(), 'CREATE') AS may_create, \
                 (SELECT oid FROM pg_database WHERE datname = current_database()) AS database, \
                 (SELECT setting::int8 FROM pg_settings WHERE name = 'wal_sender_timeout') AS timeout";
    let row = client.query_one(query, &[]).await?;
    Ok(Facts {
        version: row.try_get("version")?,
        wal_level: row.try_get("wal_level")?,
        standby: row.try_get("standby")?,
        role: row.try_get("role")?,
        may_replicate: row.try_get("may_replicate")?,
        may_create: row.try_get("may_create")?,
        database: row.try_get("database")?,
        walsender_timeout_ms: row.try_get("timeout")?,
    })
}

impl Facts {
    /// The major version: 15.
    pub(super) fn major(&self) -> i32 {
        self.version / 10_000
    }
}
