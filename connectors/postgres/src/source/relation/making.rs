//! [`Making`]: one relation on its way to a shape. Pure.

use forebay_api::{Blame, Fault};
use serde_json::Value;

use super::change::canonical;
use super::facts::{Facts, message_of};
use super::history::History;
use super::outline::Outline;
use super::{schema, schema_of, unreadable};
use crate::decode::row::{Columns, RowError, Treatment};
use crate::decode::types::TypeCatalog;
use crate::protocol::Relation;
use crate::source::config::Plan;

/// A round takes in one value that a row has and its shape has not. A row needs several only where it has several labels
/// that the catalogs do not have any more.
const MAX_ROUNDS: usize = 1_000;

/// See the module.
pub(super) struct Making<'a> {
    pub(super) plan: &'a Plan,
    /// `schema.table`.
    pub(super) name: &'a str,
    pub(super) relation: &'a Relation<'a>,
    /// What the catalogs say of the table now, if it is there.
    pub(super) facts: Option<&'a Facts>,
    pub(super) types: &'a TypeCatalog,
    /// The versions that there are.
    pub(super) history: &'a History,
}

/// A shape that has no place among the versions yet.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) outline: Outline,
    pub(super) columns: Columns,
    /// Its JSON Schema.
    pub(super) schema: Value,
}

impl Making<'_> {
    /// The shape for as long as the rows do not say otherwise; `None`: nothing of the table is wanted.
    pub(super) fn shape(&self) -> Result<Option<Candidate>, Fault> {
        let root = self.root()?;
        if !self.plan.wants_any(&self.names(root.as_ref())) {
            return Ok(None);
        }
        if !self.is_present()
            && let Some(kept) = self.kept(|_| true)?
        {
            return Ok(Some(kept));
        }
        self.fresh().map(Some)
    }

    /// The shape that a row fits into. What the catalogs say goes before what they said, and both before what must be
    /// concluded from the row alone.
    pub(super) fn fitting(
        &self,
        mut fits: impl FnMut(&Columns) -> Result<(), RowError>,
    ) -> Result<Candidate, Fault> {
        let mut candidate = self.fresh()?;
        if self.is_present() && fits(&candidate.columns).is_ok() {
            return Ok(candidate);
        }
        if let Some(kept) = self.kept(|columns| fits(columns).is_ok())? {
            return Ok(kept);
        }
        for _ in 0..MAX_ROUNDS {
            let Err(error) = fits(&candidate.columns) else { return Ok(candidate) };
            let Candidate { mut outline, .. } = candidate;
            if !outline.widen(&error) {
                return Err(self.misfit(error));
            }
            candidate = self.candidate(outline)?;
        }
        Err(self.misfit(format!("it did not fit after {MAX_ROUNDS} attempts to learn its shape")))
    }

    /// Whether the relation is the table as it is now.
    fn is_present(&self) -> bool {
        self.facts.is_some_and(|facts| facts.message() == message_of(self.relation))
    }

    /// The newest version that could be of this relation, by which its rows can still be written, and that will do.
    fn kept(&self, mut will_do: impl FnMut(&Columns) -> bool) -> Result<Option<Candidate>, Fault> {
        let outlines = self.history.outlines_of(self.relation);
        for (outline, kept) in outlines.map_err(|error| unreadable(self.name, error))? {
            let candidate = self.candidate(outline)?;
            // What is done to columns may be another now, or how types are written.
            if canonical(&candidate.schema) == *kept && will_do(&candidate.columns) {
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }

    /// What the relation and the catalogs say together.
    fn fresh(&self) -> Result<Candidate, Fault> {
        let mut outline = Outline::new(self.relation, self.facts, self.types);
        outline.root = self.root()?;
        self.candidate(outline)
    }

    fn candidate(&self, outline: Outline) -> Result<Candidate, Fault> {
        let root = self.root()?;
        Candidate::new(outline, self.relation, self.types, (self.plan, &self.names(root.as_ref())))
    }

    /// The partitioned table that it belongs to. A partition that is gone is known by what it was.
    fn root(&self) -> Result<Option<(String, String)>, Fault> {
        if let Some(facts) = self.facts {
            return Ok(facts.root.clone());
        }
        let newest = self.history.newest().map_err(|error| unreadable(self.name, error))?;
        Ok(newest.and_then(|newest| newest.root))
    }

    /// The names by which the configuration may know it.
    fn names<'b>(&'b self, root: Option<&'b (String, String)>) -> Vec<(&'b str, &'b str)> {
        let root = root.map(|(schema, table)| (schema.as_str(), table.as_str()));
        std::iter::once((schema_of(self.relation), self.relation.name)).chain(root).collect()
    }

    fn misfit(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
        Fault::fatal(format!("writing a row of `{}`", self.name), Blame::Defect, error)
            .with_remedy("report this; until it is mended, `exclude` the table")
    }
}

impl Candidate {
    /// An outline, treated as the configuration says of a table of these names.
    pub(super) fn new(
        outline: Outline,
        relation: &Relation<'_>,
        types: &TypeCatalog,
        (plan, names): (&Plan, &[(&str, &str)]),
    ) -> Result<Candidate, Fault> {
        let mut columns = outline.columns(relation, types);
        treat(&mut columns, plan, names)?;
        let title = format!("{}.{}", schema_of(relation), relation.name);
        let schema = schema::of_table(&title, &outline, &columns);
        Ok(Candidate { outline, columns, schema })
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

#[cfg(test)]
mod tests;
