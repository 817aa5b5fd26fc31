//! Makes the publication that the configuration asks for, and keeps it so.
//!
//! Invariants: a table without a replica identity never enters a publication with updates or deletes, because the
//! application's own statements would fail from then on; a publication that is not ours is never changed.

use forebay_api::{Blame, Fault};
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::Client;
use tracing::{info, warn};

use super::catalog::{self, Publication, Table};
use super::check::statement;
use super::config::{Keyless, Plan, PublicationMode, is_pattern};
use super::fault;

/// How the comment of a publication of ours begins.
const OURS: &str = "made by forebay for source ";

/// The tables that a configuration selects.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Those of which all changes are read.
    pub full: Vec<Table>,
    /// Those of which only inserts are read.
    pub inserts: Vec<Table>,
    /// Those without a replica identity that are left out, or that keep the source from starting.
    pub keyless: Vec<Table>,
    /// Names in `tables` that no table has.
    pub missing: Vec<String>,
    /// Whether the database has no table at all.
    pub empty: bool,
}

impl Selection {
    /// Which of `tables` are wanted, and how.
    pub(super) fn of(plan: &Plan, tables: &[Table]) -> Selection {
        let mut selection = Selection { empty: tables.is_empty(), ..Selection::default() };
        for table in wanted(plan, tables) {
            match (table.identified(), plan.config.keyless) {
                (true, _) => selection.full.push(table.clone()),
                (false, Keyless::InsertOnly) => selection.inserts.push(table.clone()),
                (false, Keyless::Refuse | Keyless::Skip) => selection.keyless.push(table.clone()),
            }
        }
        let exists = |name: &String| tables.iter().any(|table| qualified(table) == *name);
        selection.missing =
            plan.config.tables.iter().filter(|name| !is_pattern(name) && !exists(name)).cloned().collect();
        selection
    }

    /// Why the source cannot start with it, if it cannot.
    pub(super) fn refused(&self, plan: &Plan) -> Option<Fault> {
        let doing = "choosing the tables";
        if let Some(name) = self.missing.first() {
            let error = format!(
                "table `{}` does not exist in database `{}`",
                self.missing.join("`, `"),
                plan.url.database
            );
            let remedy = format!(
                "create it, or take it out of `tables`; `{name}` must be written as `schema.table`, in the case that the catalog has"
            );
            return Some(Fault::fatal(doing, Blame::Configuration, error).with_remedy(remedy));
        }
        if plan.config.keyless == Keyless::Refuse && !self.keyless.is_empty() {
            let error = format!(
                "{} without a primary key or another replica identity: {}",
                count(&self.keyless),
                names(&self.keyless)
            );
            return Some(
                Fault::fatal(doing, Blame::Outside, error).with_remedy(identity_remedy(&self.keyless)),
            );
        }
        if self.empty {
            let error = format!("there is no table in database `{}` yet", plan.url.database);
            return Some(
                Fault::fatal(doing, Blame::Outside, error).with_remedy("create tables, and start again"),
            );
        }
        if self.full.is_empty() && self.inserts.is_empty() {
            let error = "no table matches `tables`";
            return Some(
                Fault::fatal(doing, Blame::Configuration, error)
                    .with_remedy("correct the patterns; `forebay check` lists what there is"),
            );
        }
        None
    }
}

/// The tables that are wanted. A partitioned table brings its partitions with it.
pub(super) fn wanted<'t>(plan: &Plan, tables: &'t [Table]) -> Vec<&'t Table> {
    let wanted: Vec<&Table> = tables.iter().filter(|table| plan.wants(&table.schema, &table.name)).collect();
    let top = |table: &&Table| table.root.is_none_or(|root| !wanted.iter().any(|other| other.oid == root));
    wanted.iter().copied().filter(top).collect()
}

/// The statements that give tables an identity, and the other ways out.
pub(super) fn identity_remedy(tables: &[Table]) -> String {
    let comment = "or add primary keys, which cost less; or write `keyless: insert_only` or `keyless: skip`";
    statement::remedy(&identity_statements(tables), comment)
}

/// One for each table that holds rows without an identity.
pub(super) fn identity_statements(tables: &[Table]) -> Vec<String> {
    let leaves = tables.iter().flat_map(|table| &table.unidentified);
    leaves
        .map(|(schema, name)| {
            format!("ALTER TABLE {} REPLICA IDENTITY FULL;", statement::table(schema, name))
        })
        .collect()
}

/// Makes sure that the publications are there and hold what is wanted; gives their names.
pub(super) async fn ensure(client: &Client, plan: &Plan) -> Result<Vec<String>, Fault> {
    let doing = || format!("preparing publication `{}`", plan.publication);
    let existing =
        catalog::publication(client, &plan.publication).await.map_err(|e| fault::sql(doing(), e))?;
    let tables = catalog::tables(client).await.map_err(|e| fault::sql(doing(), e))?;
    let selection = Selection::of(plan, &tables);
    refuse_missing_columns(client, plan).await?;
    if plan.config.publication_mode == PublicationMode::Existing {
        return use_as_it_is(plan, existing, &tables);
    }
    if let Some(fault) = selection.refused(plan) {
        return Err(fault);
    }
    if !selection.keyless.is_empty() {
        warn!(
            source = %plan.source,
            tables = names(&selection.keyless),
            "tables without a replica identity are left out"
        );
    }
    let mut publications = Vec::new();
    match plan.config.publication_mode {
        PublicationMode::Tables => {
            let sides = [
                (plan.publication.clone(), &selection.full, ""),
                (plan.insert_publication(), &selection.inserts, "insert"),
            ];
            for (name, tables, publish) in sides {
                if tables.is_empty() {
                    continue;
                }
                keep(client, plan, &name, tables, publish).await?;
                publications.push(name);
            }
        }
        PublicationMode::Schemas | PublicationMode::All => {
            if let Some(existing) = &existing {
                ours(plan, &plan.publication, existing)?;
                if let Err(fault) = refuse_keyless(plan, &tables) {
                    // It is too late to keep them out; whoever made them must hear of it.
                    warn!(source = %plan.source, error = %fault, remedy = fault.remedy(), "the publication holds tables without a replica identity");
                }
            } else {
                refuse_keyless(plan, &tables)?;
                create(client, plan, &plan.publication, &wide_target(plan), "").await?;
            }
            publications.push(plan.publication.clone());
        }
        PublicationMode::Existing => unreachable!("returned above"),
    }
    Ok(publications)
}

/// Drops what a dry run has made.
pub(super) async fn drop_ours(client: &Client, names: &[String]) -> Result<(), tokio_postgres::Error> {
    for name in names {
        client.batch_execute(&format!("DROP PUBLICATION IF EXISTS {}", escape_identifier(name))).await?;
    }
    Ok(())
}

/// A rule for a column that is not there protects nothing, and whoever wrote it believes that it does.
pub(super) async fn refuse_missing_columns(client: &Client, plan: &Plan) -> Result<(), Fault> {
    let rules: Vec<String> =
        [&plan.config.columns.exclude, &plan.config.columns.hash].into_iter().flatten().cloned().collect();
    let missing = catalog::missing_columns(client, &rules)
        .await
        .map_err(|e| fault::sql("looking for the columns of `columns`", e))?;
    if missing.is_empty() {
        return Ok(());
    }
    let error = format!("there is no column `{}`", missing.join("`, `"));
    Err(Fault::fatal("applying `columns`", Blame::Configuration, error)
        .with_remedy("write `schema.table.column`, in the case that the catalog has; for partitions, of the partitioned table"))
}

fn use_as_it_is(plan: &Plan, existing: Option<Publication>, tables: &[Table]) -> Result<Vec<String>, Fault> {
    let Some(existing) = existing else {
        let error = format!("there is no publication `{}`", plan.publication);
        return Err(Fault::fatal("using an existing publication", Blame::Outside, error)
            .with_remedy("create it, or write another `publication_mode`"));
    };
    let uncovered = uncovered(plan, &existing, tables);
    if !uncovered.is_empty() {
        warn!(
            source = %plan.source,
            publication = %plan.publication,
            tables = names(&uncovered),
            "the publication does not hold these tables, so nothing of them is read"
        );
    }
    Ok(vec![plan.publication.clone()])
}

/// The wanted tables of which nothing comes through a publication.
pub(super) fn uncovered(plan: &Plan, publication: &Publication, tables: &[Table]) -> Vec<Table> {
    if plan.config.tables.is_empty() {
        return Vec::new();
    }
    let named = |oid: u32| publication.covers.contains(&oid) || publication.tables.contains(&oid);
    let covered = |table: &Table| {
        let mut partitions =
            tables.iter().filter(|other| other.root == Some(table.oid) && !other.partitioned).peekable();
        named(table.oid)
            || table.root.is_some_and(named)
            || partitions.peek().is_some() && partitions.all(|partition| named(partition.oid))
    };
    wanted(plan, tables).into_iter().filter(|table| !covered(table)).cloned().collect()
}

/// A publication of all tables, or of schemas, takes tables in by itself: those without an identity, too.
fn refuse_keyless(plan: &Plan, tables: &[Table]) -> Result<(), Fault> {
    let keyless = taken_in_without_identity(plan, tables);
    if keyless.is_empty() {
        return Ok(());
    }
    let error = format!(
        "such a publication would hold {} without a replica identity, and the application's UPDATE and DELETE on them would fail: {}",
        count(&keyless),
        names(&keyless)
    );
    Err(Fault::fatal(format!("creating publication `{}`", plan.publication), Blame::Outside, error)
        .with_remedy(wide_identity_remedy(&keyless)))
}

/// The tables without an identity that a publication of schemas or of all tables takes in, wanted or not.
pub(super) fn taken_in_without_identity(plan: &Plan, tables: &[Table]) -> Vec<Table> {
    let schemas = plan.schemas();
    let inside = |table: &&Table| match plan.config.publication_mode {
        PublicationMode::All => true,
        PublicationMode::Schemas => schemas.contains(table.schema.as_str()),
        PublicationMode::Tables | PublicationMode::Existing => false,
    };
    // Its partitions are tables of their own there.
    let whole = tables.iter().filter(|table| !table.partitioned);
    whole.filter(inside).filter(|table| !table.identified()).cloned().collect()
}

/// Where a publication takes in whatever is there, only an identity helps.
pub(super) fn wide_identity_remedy(tables: &[Table]) -> String {
    statement::remedy(
        &identity_statements(tables),
        "or add primary keys, which cost less; or write `publication_mode: tables`",
    )
}

/// What a publication that takes tables in by itself is made for.
pub(super) fn wide_target(plan: &Plan) -> String {
    match plan.config.publication_mode {
        PublicationMode::All => "ALL TABLES".to_owned(),
        _ => {
            let schemas: Vec<String> = plan.schemas().into_iter().map(statement::identifier).collect();
            format!("TABLES IN SCHEMA {}", schemas.join(", "))
        }
    }
}

/// Creates a publication for `tables`, or adds and drops tables of one that we made.
async fn keep(
    client: &Client,
    plan: &Plan,
    name: &str,
    tables: &[Table],
    publish: &str,
) -> Result<(), Fault> {
    let doing = || format!("preparing publication `{name}`");
    let existing = catalog::publication(client, name).await.map_err(|e| fault::sql(doing(), e))?;
    let Some(existing) = existing else {
        let list: Vec<String> = tables.iter().map(quoted).collect();
        create(client, plan, name, &format!("TABLE {}", list.join(", ")), publish).await?;
        info!(source = %plan.source, publication = %name, tables = names(tables), "publication created");
        return Ok(());
    };
    ours(plan, name, &existing)?;
    let missing: Vec<&Table> = tables.iter().filter(|table| !existing.tables.contains(&table.oid)).collect();
    let surplus: Vec<u32> =
        existing.tables.iter().copied().filter(|oid| !tables.iter().any(|table| table.oid == *oid)).collect();
    if !missing.is_empty() {
        let list: Vec<String> = missing.iter().map(|table| quoted(table)).collect();
        let statement =
            format!("ALTER PUBLICATION {} ADD TABLE {}", escape_identifier(name), list.join(", "));
        client.batch_execute(&statement).await.map_err(|e| fault::sql(doing(), e))?;
        info!(
            source = %plan.source,
            publication = %name,
            tables = list.join(", "),
            "tables added to the publication"
        );
    }
    for oid in surplus {
        let row = client
            .query_one("SELECT $1::oid::regclass::text", &[&oid])
            .await
            .map_err(|e| fault::sql(doing(), e))?;
        let table: String = row.get(0);
        let statement = format!("ALTER PUBLICATION {} DROP TABLE {table}", escape_identifier(name));
        client.batch_execute(&statement).await.map_err(|e| fault::sql(doing(), e))?;
        info!(source = %plan.source, publication = %name, table, "table taken out of the publication");
    }
    Ok(())
}

/// Creates and signs it, in one transaction.
async fn create(client: &Client, plan: &Plan, name: &str, target: &str, publish: &str) -> Result<(), Fault> {
    let statement = format!("BEGIN; {} COMMIT", creation(plan, name, target, publish).join(" "));
    let created = client.batch_execute(&statement).await;
    if created.is_err() {
        // The session is in the failed transaction; the error itself is what is reported.
        client.batch_execute("ROLLBACK").await.ok();
    }
    created.map_err(|error| fault::sql(format!("creating publication `{name}` for {target}"), error))
}

/// The statements that create a publication and sign it.
pub(super) fn creation(plan: &Plan, name: &str, target: &str, publish: &str) -> [String; 2] {
    let mut options =
        vec![format!("publish_via_partition_root = {}", plan.config.publish_via_partition_root)];
    if !publish.is_empty() {
        options.push(format!("publish = {}", statement::literal(publish)));
    }
    let id = statement::identifier(name);
    let comment = statement::literal(&signature(&plan.source));
    [
        format!("CREATE PUBLICATION {id} FOR {target} WITH ({});", options.join(", ")),
        format!("COMMENT ON PUBLICATION {id} IS {comment};"),
    ]
}

/// Whether we may change a publication: only one that we made for this source.
fn ours(plan: &Plan, name: &str, existing: &Publication) -> Result<(), Fault> {
    let Some(whose) = whose(plan, existing) else { return Ok(()) };
    let error = format!("publication `{name}` exists and {whose}");
    Err(Fault::fatal("preparing the publication", Blame::Outside, error).with_remedy(NOT_OURS))
}

/// What can be done with a publication that is not ours.
pub(super) const NOT_OURS: &str =
    "write `publication_mode: existing` to use it as it is, or name another `publication`";

/// The comment by which a source knows a publication as its own.
pub(super) fn signature(source: &str) -> String {
    format!("{OURS}{source}")
}

/// Who made a publication, where that is not this source.
pub(super) fn whose(plan: &Plan, existing: &Publication) -> Option<String> {
    match existing.comment.as_deref().map(|comment| comment.strip_prefix(OURS)) {
        Some(Some(source)) if source == plan.source => None,
        Some(Some(other)) => Some(format!("belongs to source `{other}`")),
        None | Some(None) => Some("was not made by Forebay".to_owned()),
    }
}

/// `schema.table`, as the configuration writes it.
pub(super) fn qualified(table: &Table) -> String {
    format!("{}.{}", table.schema, table.name)
}

fn quoted(table: &Table) -> String {
    format!("{}.{}", escape_identifier(&table.schema), escape_identifier(&table.name))
}

fn names(tables: &[Table]) -> String {
    tables.iter().map(qualified).collect::<Vec<_>>().join(", ")
}

fn count(tables: &[Table]) -> String {
    if tables.len() == 1 { "1 table".to_owned() } else { format!("{} tables", tables.len()) }
}
