//! `type: postgres` of the schema registry: a table with a row for each schema.
//!
//! The table is created when it does not exist. Invariant: a connection that is kept has answered its last question; one
//! that has not is dropped.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_api::{Fault, Mistake, SchemaKey, SchemaStore, SchemaStoreConnector, SchemaStoreSetting};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio_postgres::error::SqlState;

use super::fault;
use super::name::TableName;
use super::session;
use crate::connect::Sql;
use crate::url::{Url, UrlSetting};

/// The connector, for the registry.
#[derive(Debug)]
pub struct PostgresSchemas;

/// A table with a row for each schema.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresSchemasConfig {
    /// Where the table is: a libpq URI, `key=value` pairs, or a mapping of host, port, user, password and database.
    pub url: UrlSetting,
    /// The table, `table` or `schema.table`, with the columns `key` (text) and `schema` (json, jsonb or text). It is created
    /// when it does not exist.
    #[serde(default = "default_table")]
    pub table: String,
}

fn default_table() -> String {
    "forebay_schemas".to_owned()
}

impl PostgresSchemasConfig {
    /// The table of the default name in a database.
    pub(super) fn beside(url: UrlSetting) -> PostgresSchemasConfig {
        PostgresSchemasConfig { url, table: default_table() }
    }
}

impl SchemaStoreConnector for PostgresSchemas {
    const TYPE: &'static str = "postgres";
    const ABOUT: &'static str = "Schemas in a table of PostgreSQL";
    type Config = PostgresSchemasConfig;

    fn build(
        config: PostgresSchemasConfig,
        _: &SchemaStoreSetting,
    ) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>> {
        let mistake = |at: &str, message: String, help: &str| {
            vec![Mistake { at: at.to_owned(), message, help: Some(help.to_owned()) }]
        };
        let url = config.url.parse().map_err(|error| {
            mistake("/url", error.to_string(), "write it as `postgres://user:password@host:5432/database`")
        })?;
        let table: TableName = config.table.parse().map_err(|error: super::name::NameError| {
            mistake("/table", error.to_string(), "write `table` or `schema.table`")
        })?;
        Ok(Arc::new(SchemaTable { url, table: table.quoted(), session: Mutex::default() }))
    }
}

struct SchemaTable {
    url: Url,
    table: String,
    session: Mutex<Option<Sql>>,
}

const DOING: &str = "reading the schemas";

impl SchemaTable {
    /// Runs a question on the connection that is kept, or on a new one. `None`: there is no table, and none was made.
    async fn ask(
        &self,
        statement: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
        create: bool,
    ) -> Result<Option<Vec<tokio_postgres::Row>>, Fault> {
        let mut kept = self.session.lock().await;
        let sql = match kept.take().filter(|sql| !sql.is_closed()) {
            Some(sql) => sql,
            None => session::connect(&self.url).await?,
        };
        let asking = async {
            let failed = |error| fault::judge(DOING, error);
            match sql.query(statement, parameters).await {
                Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                    if !create {
                        return Ok(None);
                    }
                    sql.batch_execute(&self.creation()).await.map_err(failed)?;
                    sql.query(statement, parameters).await.map(Some).map_err(failed)
                }
                asked => asked.map(Some).map_err(failed),
            }
        };
        let rows = session::within(DOING, asking).await?;
        *kept = Some(sql);
        Ok(rows)
    }

    fn creation(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {} (key text PRIMARY KEY, schema json NOT NULL, \
             stored timestamptz NOT NULL DEFAULT now())",
            self.table
        )
    }
}

#[async_trait]
impl SchemaStore for SchemaTable {
    async fn fetch(&self, key: &SchemaKey) -> Result<Option<Bytes>, Fault> {
        let statement = format!("SELECT schema::text FROM {} WHERE key = $1", self.table);
        let rows = self.ask(&statement, &[&key.as_str()], true).await?.unwrap_or_default();
        let text = rows.first().map(|row| row.try_get::<_, String>(0)).transpose();
        Ok(text.map_err(|error| fault::judge(DOING, error))?.map(Bytes::from))
    }

    async fn list(&self, most: usize) -> Result<Option<Vec<SchemaKey>>, Fault> {
        let statement = format!("SELECT key FROM {} ORDER BY key LIMIT {most}", self.table);
        // Who only looks changes nothing.
        let rows = self.ask(&statement, &[], false).await?.unwrap_or_default();
        // What is no key is nobody's.
        let key = |row: &tokio_postgres::Row| row.try_get::<_, String>(0).ok()?.parse().ok();
        Ok(Some(rows.iter().filter_map(key).collect()))
    }

    async fn put(&self, key: &SchemaKey, schema: Bytes) -> Result<(), Fault> {
        let statement = format!(
            "INSERT INTO {} (key, schema) VALUES ($1, $2::text::json) \
             ON CONFLICT (key) DO UPDATE SET schema = excluded.schema",
            self.table
        );
        let text = String::from_utf8_lossy(&schema);
        self.ask(&statement, &[&key.as_str(), &text.as_ref()], true).await.map(drop)
    }

    fn is_writable(&self) -> bool {
        true
    }
}
