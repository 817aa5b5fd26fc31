//! Which events a destination wants: `accept` by verdict, `where` by op, schema and table.
//!
//! What a filter keeps back is counted as filtered, never forgotten.

use std::sync::Arc;

use forebay_api::{Batch, Op, Subject};
use globset::{Glob, GlobMatcher};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which verdicts a destination accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Accept {
    /// Only events whose payload obeys its schema.
    Valid,
    /// Only those that do not.
    Invalid,
    /// Both.
    #[default]
    All,
}

/// What a lane keeps. Every list that is empty lets all pass.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// By verdict.
    pub accept: Accept,
    /// By what happened.
    pub ops: Vec<Op>,
    /// By the database's schema (namespace).
    pub schemas: Vec<GlobMatcher>,
    /// By table or collection: `orders`, or `public.orders` where the pattern has a dot.
    pub tables: Vec<(bool, GlobMatcher)>,
}

impl Filter {
    /// Adds a pattern for schemas.
    pub fn schema(&mut self, pattern: &str) -> Result<(), globset::Error> {
        self.schemas.push(Glob::new(pattern)?.compile_matcher());
        Ok(())
    }

    /// Adds a pattern for tables; one with a dot is matched against `schema.table`.
    pub fn table(&mut self, pattern: &str) -> Result<(), globset::Error> {
        self.tables.push((pattern.contains('.'), Glob::new(pattern)?.compile_matcher()));
        Ok(())
    }

    /// Whether everything passes, so that nothing need be looked at.
    pub fn passes_all(&self) -> bool {
        self.accept == Accept::All && self.ops.is_empty() && self.schemas.is_empty() && self.tables.is_empty()
    }

    /// The rows of a batch that pass.
    pub fn rows(&self, batch: &Batch) -> Arc<[u32]> {
        let subjects: Vec<bool> =
            batch.chunk.subjects.iter().map(|subject| self.wants_subject(subject)).collect();
        let wanted = |&index: &u32| {
            let row = &batch.chunk.rows[index as usize];
            subjects[usize::from(row.subject)]
                && (self.ops.is_empty() || self.ops.contains(&row.op))
                && self.wants_verdict(batch.verdict(index as usize).is_valid())
        };
        let rows = u32::try_from(batch.chunk.rows.len()).expect("a chunk has fewer rows than bytes");
        (0..rows).filter(wanted).collect()
    }

    fn wants_verdict(&self, valid: bool) -> bool {
        match self.accept {
            Accept::All => true,
            Accept::Valid => valid,
            Accept::Invalid => !valid,
        }
    }

    /// A subject without a schema or table (a tracker's event) passes no pattern for them.
    fn wants_subject(&self, subject: &Subject) -> bool {
        let schema = subject.schema.as_deref();
        let table = subject.table.as_deref();
        let schema_passes = self.schemas.is_empty()
            || schema.is_some_and(|s| self.schemas.iter().any(|glob| glob.is_match(s)));
        let full = format!("{}.{}", schema.unwrap_or_default(), table.unwrap_or_default());
        let table_passes = self.tables.is_empty()
            || table.is_some_and(|t| {
                self.tables
                    .iter()
                    .any(|(qualified, glob)| glob.is_match(if *qualified { full.as_str() } else { t }))
            });
        schema_passes && table_passes
    }
}
