//! `forebay check` for the source: everything that could keep it from running, with what mends it. Changes nothing.
//!
//! A remedy is SQL that can be pasted as it is, one statement a line; what is for people stands behind `-- `. What
//! `prepare` would refuse is bad here, for whom it blames there.

pub(super) mod access;
pub(super) mod figures;
mod pooler;
mod publishing;
mod reading;
pub(super) mod role;
mod room;
mod server;
mod slot;
pub(super) mod statement;
pub(super) mod survey;

use std::collections::HashMap;

use forebay_api::{Finding, SnapshotMode};

use super::catalog::{self, Facts, Publication, Slot, Table};
use super::config::{Keyless, Plan, PublicationMode};
use super::publication::{Selection, uncovered, wanted};
use super::{fault, prepare};
use crate::connect::Sql;
use role::Role;
use room::Room;
use survey::Survey;

/// A size can only be asked for under a lock that somebody may hold; nothing is worth waiting longer for.
pub(super) const PATIENCE: &str = "SET lock_timeout = '2s'";

/// What the server says of itself and of what is wanted of it; everything is judged by it.
struct Seen<'a> {
    plan: &'a Plan,
    facts: Facts,
    role: Role,
    room: Room,
    slot: Option<Slot>,
    tables: Vec<Table>,
    selection: Selection,
    publication: Option<Publication>,
    /// That of tables of which only inserts are read.
    inserts: Option<Publication>,
    /// Of the tables that will be read.
    surveys: HashMap<u32, Survey>,
}

/// Looks at the server of a source.
pub(super) async fn check(plan: &Plan) -> Vec<Finding> {
    let server = match prepare::server(plan, "check") {
        Ok(server) => server,
        Err(fault) => return vec![Finding::fault(&fault)],
    };
    let sql = match server.sql().await {
        Ok(sql) => sql,
        Err(error) => return vec![Finding::fault(&fault::connect("connecting", error))],
    };
    let seen = match Seen::of(plan, &sql).await {
        Ok(seen) => seen,
        Err(error) => return vec![Finding::fault(&fault::sql("asking what the server is", error))],
    };
    let mut findings = server::findings(&seen);
    if seen.facts.wal_level == "logical" && seen.facts.may_replicate {
        findings.extend(pooler::findings(&server).await);
    }
    findings.extend(reading::findings(&seen));
    if let Err(fault) = super::publication::refuse_missing_columns(&sql, plan).await {
        findings.push(Finding::fault(&fault));
    }
    findings.extend(publishing::findings(&seen));
    findings.extend(slot::findings(&seen));
    findings
}

impl<'a> Seen<'a> {
    async fn of(plan: &'a Plan, sql: &Sql) -> Result<Seen<'a>, tokio_postgres::Error> {
        sql.batch_execute(PATIENCE).await?;
        let tables = catalog::tables(sql).await?;
        let publication = catalog::publication(sql, &plan.publication).await?;
        let selection = Selection::of(plan, &tables);
        let mut seen = Seen {
            plan,
            facts: catalog::facts(sql).await?,
            role: role::role(sql).await?,
            room: room::room(sql).await?,
            slot: catalog::slot(sql, &plan.slot).await?,
            tables,
            selection,
            publication,
            inserts: catalog::publication(sql, &plan.insert_publication()).await?,
            surveys: HashMap::new(),
        };
        let read: Vec<u32> = seen.read().iter().map(|table| table.oid).collect();
        seen.surveys = survey::survey(sql, &read).await?;
        Ok(seen)
    }

    /// The tables that will be read, once those that keep it from starting have an identity.
    fn read(&self) -> Vec<Table> {
        if self.plan.config.publication_mode != PublicationMode::Existing {
            let selection = self.selection.full.iter().chain(&self.selection.inserts);
            return selection.chain(self.refused()).cloned().collect();
        }
        let Some(publication) = &self.publication else { return Vec::new() };
        let without = uncovered(self.plan, publication, &self.tables);
        let wanted = wanted(self.plan, &self.tables).into_iter();
        let covered = wanted.filter(|table| !without.iter().any(|other| other.oid == table.oid));
        let all = self.plan.config.tables.is_empty();
        covered.filter(|table| !all || publication.covers.contains(&table.oid)).cloned().collect()
    }

    /// The tables without an identity that keep it from starting.
    fn refused(&self) -> &[Table] {
        match self.plan.config.keyless {
            Keyless::Refuse => &self.selection.keyless,
            Keyless::Skip | Keyless::InsertOnly => &[],
        }
    }

    /// Whether what is in the tables already is copied.
    fn copies(&self) -> bool {
        self.plan.config.snapshot != SnapshotMode::Never
    }

    /// Whether a daemon seems to run, which has then what this check looks for.
    fn is_read(&self) -> bool {
        self.slot.as_ref().is_some_and(|slot| slot.active.is_some())
    }
}
