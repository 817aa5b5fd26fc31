//! [`History`]: the versions of one table's schema that are kept. Pure.
//!
//! Invariants: no two versions have the same schema; a version, once given, stays what it is.

use forebay_api::{KeptSchema, SchemaVersion};
use serde_json::Value;

use super::change::{canonical, change};
use super::outline::{Outline, OutlineError};
use super::schema::published;
use crate::protocol::Relation;

/// So many versions of one table are kept. They are stored together, and a table that has had more is made anew again
/// and again by somebody.
pub(super) const MAX_VERSIONS: usize = 1_000;

/// See the module. Oldest first.
#[derive(Debug)]
pub(super) struct History(Vec<Entry>);

/// A version.
#[derive(Debug)]
struct Entry {
    kept: KeptSchema,
    canonical: Value,
}

/// Where a schema has its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its version.
    pub(super) version: SchemaVersion,
    /// The schema, as that version says it.
    pub(super) schema: String,
    /// Whether that was announced.
    pub(super) announced: bool,
    /// Whether it was given now.
    pub(super) new: bool,
    /// Whether the history has changed and must be stored.
    pub(super) changed: bool,
    /// The version that had to make room.
    pub(super) forgotten: Option<SchemaVersion>,
}

impl History {
    /// Reads what is kept.
    pub(super) fn read(kept: Vec<KeptSchema>) -> Result<History, OutlineError> {
        let mut entries = Vec::with_capacity(kept.len());
        for kept in kept {
            let schema: Value = serde_json::from_str(&kept.schema)?;
            entries.push(Entry { kept, canonical: canonical(&schema) });
        }
        Ok(History(entries))
    }

    /// What is to be stored.
    pub(super) fn kept(&self) -> Vec<KeptSchema> {
        self.0.iter().map(|entry| entry.kept.clone()).collect()
    }

    /// The outlines of versions that a relation could be of, newest first, with their schemas in canonical form.
    pub(super) fn outlines_of(
        &self,
        relation: &Relation<'_>,
    ) -> Result<Vec<(Outline, &Value)>, OutlineError> {
        let mut found = Vec::new();
        for entry in self.0.iter().rev() {
            let outline = Outline::read(&entry.kept.shape)?;
            if outline.is_of(relation) {
                found.push((outline, &entry.canonical));
            }
        }
        Ok(found)
    }

    /// The outline of the newest version.
    pub(super) fn newest(&self) -> Result<Option<Outline>, OutlineError> {
        self.0.last().map(|entry| Outline::read(&entry.kept.shape)).transpose()
    }

    /// Gives a schema the version that it had before, or the next one.
    pub(super) fn place(&mut self, vendor: &str, name: &str, schema: &Value, shape: String) -> Place {
        let canonical = canonical(schema);
        if let Some(entry) = self.0.iter_mut().rev().find(|entry| entry.canonical == canonical) {
            // Types that were made anew have other oids, by which an old part of the log is known again.
            let changed = entry.kept.shape != shape;
            entry.kept.shape = shape;
            let KeptSchema { version, schema, announced, .. } = entry.kept.clone();
            return Place { version, schema, announced, new: false, changed, forgotten: None };
        }
        let version = match self.0.last() {
            None => SchemaVersion::FIRST,
            Some(Entry { kept, canonical: before }) => {
                let change = change(before, &canonical).expect("it is none of those that are kept");
                kept.version.after(change)
            }
        };
        let schema = published(schema, vendor, name, &version.to_string());
        let kept = KeptSchema { version, shape, schema: schema.clone(), announced: false };
        self.0.push(Entry { kept, canonical });
        let forgotten = (self.0.len() > MAX_VERSIONS).then(|| self.0.remove(0).kept.version);
        Place { version, schema, announced: false, new: true, changed: true, forgotten }
    }

    /// Marks a version as announced; whether it was not.
    pub(super) fn announce(&mut self, version: SchemaVersion) -> bool {
        let entry = self.0.iter_mut().find(|entry| entry.kept.version == version);
        entry.is_some_and(|entry| !std::mem::replace(&mut entry.kept.announced, true))
    }
}
