//! `forebay schema table`: the JSON Schema that a table has now, without a version, since nothing is stored.

use forebay_api::{Blame, Fault};
use serde_json::Value;

use super::facts::Facts;
use super::making::Candidate;
use super::outline::Outline;
use super::relation_in;
use crate::decode::types::TypeCatalog;
use crate::source::config::Plan;
use crate::source::{fault, prepare};

const FIND: &str = "
    SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname || '.' || c.relname = $1 AND c.relkind IN ('r', 'p')";

/// The JSON Schema of a table's rows, `schema.table`, with what the configuration does to its columns.
pub(in crate::source) async fn of_table(plan: &Plan, table: &str) -> Result<Value, Fault> {
    let doing = || format!("looking at table `{table}`");
    let server = prepare::server(plan, "schema")?;
    let sql = server.sql().await.map_err(|error| fault::connect("connecting to the database", error))?;
    let failed = |error| fault::sql(doing(), error);
    let found = sql.query_opt(FIND, &[&table]).await.map_err(failed)?;
    let publications = [plan.publication.clone(), plan.insert_publication()];
    let facts = match found {
        Some(row) => {
            Facts::of(&sql, row.try_get("oid").map_err(failed)?, &publications).await.map_err(failed)?
        }
        None => None,
    };
    let Some(facts) = facts else {
        let error = format!("there is no such table in database `{}`", plan.url.database);
        return Err(Fault::fatal(doing(), Blame::Configuration, error)
            .with_remedy("write it as `schema.table`, in the case that the catalog has"));
    };
    let message = facts.message();
    let relation = relation_in(&message);
    let mut types = TypeCatalog::new(plan.config.values);
    let oids: Vec<u32> = relation.columns().map(|column| column.type_oid).collect();
    types.load(&sql, &oids).await.map_err(failed)?;
    let root = facts.root.iter().map(|(schema, table)| (schema.as_str(), table.as_str()));
    let names: Vec<(&str, &str)> =
        std::iter::once((facts.namespace.as_str(), facts.name.as_str())).chain(root).collect();
    let outline = Outline::new(&relation, Some(&facts), &types);
    Ok(Candidate::new(outline, &relation, &types, (plan, &names))?.schema)
}
