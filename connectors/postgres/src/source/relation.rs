//! [`Shape`]: a relation as the reader uses it, prepared once from its message and the catalogs.

use std::sync::Arc;

use forebay_api::{Blame, Fault, Subject, json};
use tokio_postgres::Client;

use super::config::Plan;
use super::{catalog, fault};
use crate::decode::row::{Columns, Treatment};
use crate::decode::types::TypeCatalog;
use crate::protocol::{Relation, ReplicaIdentity};

/// The version of generated schemas, until shapes are compared.
const VERSION: &str = "1-0-0";

/// A relation whose rows are written, or passed over.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// What its events are about.
    pub subject: Arc<Subject>,
    /// How its rows are written.
    pub columns: Columns,
    /// Whether its rows are wanted at all: a publication may hold more than the configuration does.
    pub wanted: bool,
}

impl Shape {
    /// Prepares a relation. Asks the server for types that are not built in, and for the primary key where the
    /// replica identity says nothing of it.
    pub(super) async fn of(
        relation: &Relation<'_>,
        plan: &Plan,
        types: &mut TypeCatalog,
        client: &Client,
    ) -> Result<Shape, Fault> {
        let schema = if relation.namespace.is_empty() { "pg_catalog" } else { relation.namespace };
        let doing = || format!("preparing table `{schema}.{}`", relation.name);
        let missing = types.missing(relation.columns().map(|column| column.type_oid));
        types.load(client, &missing).await.map_err(|error| fault::sql(doing(), error))?;
        let mut columns = Columns::new(relation, types);
        if relation.identity == ReplicaIdentity::Full {
            // Then every column is marked as identifying; the key of events is the primary key, if there is one.
            let key = catalog::primary_key(client, relation.id)
                .await
                .map_err(|error| fault::sql(doing(), error))?;
            columns.0.iter_mut().for_each(|column| column.key = key.contains(&column.name));
        }
        // A partition is what the partitioned table is that it belongs to, whatever its own name.
        let root = catalog::root(client, relation.id).await.map_err(|error| fault::sql(doing(), error))?;
        let root = root.as_ref().map(|(schema, table)| (schema.as_str(), table.as_str()));
        let names: Vec<(&str, &str)> = [Some((schema, relation.name)), root].into_iter().flatten().collect();
        treat(&mut columns, plan, &names)?;
        let wanted = plan.wants_any(&names);
        Ok(Shape { subject: subject(plan, schema, relation.name), columns, wanted })
    }
}

/// Excludes and hashes what the configuration says of a table under any of its names.
fn treat(columns: &mut Columns, plan: &Plan, names: &[(&str, &str)]) -> Result<(), Fault> {
    let rules = &plan.config.columns;
    for column in &mut columns.0 {
        let names: Vec<String> =
            names.iter().map(|(schema, table)| format!("{schema}.{table}.{}", column.name)).collect();
        if let Some(name) = names.iter().find(|name| rules.exclude.contains(name)) {
            if column.key {
                let error =
                    format!("column `{name}` belongs to the key, without which changes cannot be told apart");
                return Err(Fault::fatal("applying `columns.exclude`", Blame::Configuration, error)
                    .with_remedy("write it under `columns.hash` instead"));
            }
            column.treatment = Treatment::Exclude;
        } else if names.iter().any(|name| rules.hash.contains(name)) {
            column.treatment = Treatment::hash(rules.salt.as_deref().unwrap_or_default());
        }
    }
    Ok(())
}

fn subject(plan: &Plan, schema: &str, table: &str) -> Arc<Subject> {
    let mut source = source_members(plan);
    source.extend_from_slice(b",\"schema\":");
    json::write_string(schema, &mut source);
    source.extend_from_slice(b",\"table\":");
    json::write_string(table, &mut source);
    let source = String::from_utf8(source).expect("JSON of strings is a string");
    let key = (plan.vendor.as_str(), &*format!("{schema}.{table}"), VERSION);
    Arc::new(Subject::new(key, (Some(&plan.url.database), Some(schema), Some(table)), source))
}

/// What logical messages are about: no table.
pub(super) fn message_subject(plan: &Plan) -> Arc<Subject> {
    let source = String::from_utf8(source_members(plan)).expect("JSON of strings is a string");
    let key = (plan.vendor.as_str(), "pg_logical_message", VERSION);
    Arc::new(Subject::new(key, (Some(&plan.url.database), None, None), source))
}

fn source_members(plan: &Plan) -> Vec<u8> {
    let mut source = b"\"type\":\"postgres\",\"name\":".to_vec();
    json::write_string(&plan.source, &mut source);
    source.extend_from_slice(b",\"database\":");
    json::write_string(&plan.url.database, &mut source);
    source
}
