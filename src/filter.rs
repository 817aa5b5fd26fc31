//! Which events a destination wants: `accept` by verdict, `where` by op, schema, table and the schema's key.
//!
//! What a filter keeps back is counted as filtered, never forgotten.

use std::sync::Arc;

use forebay_api::{Batch, Event, Op, Row, Subject};
use globset::{Glob, GlobMatcher};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// A second list of the same, of which one must match too.
    pub narrower: Vec<(bool, GlobMatcher)>,
    /// By the schema's key in the registry: `vendor/name/1-0-0`.
    pub schema_keys: Vec<GlobMatcher>,
    /// By when it happened, or by its place in the source's log.
    pub window: Window,
    /// By key: the JSON object of it, or its value where it has one member.
    pub keys: Vec<Value>,
}

/// Bounds on events; what is not given bounds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Window {
    /// Happened at or after: microseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_time: Option<i64>,
    /// Happened before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_time: Option<i64>,
    /// The second half of the mark's `major` is at least this: for PostgreSQL the commit LSN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_major: Option<u64>,
    /// The second half of the mark's `major` is at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_major: Option<u64>,
}

impl Window {
    fn holds(&self, row: &Row) -> bool {
        self.from_time.is_none_or(|from| row.time >= from)
            && self.to_time.is_none_or(|to| row.time < to)
            && self.from_major.is_none_or(|from| row.mark.major.1 >= from)
            && self.to_major.is_none_or(|to| row.mark.major.1 <= to)
    }
}

impl Filter {
    /// Adds a pattern for schemas.
    pub fn schema(&mut self, pattern: &str) -> Result<(), globset::Error> {
        self.schemas.push(Glob::new(pattern)?.compile_matcher());
        Ok(())
    }

    /// Adds a pattern for tables; one with a dot is matched against `schema.table`.
    pub fn table(&mut self, pattern: &str) -> Result<(), globset::Error> {
        self.tables.push(matcher(pattern)?);
        Ok(())
    }

    /// Adds a pattern for keys of schemas.
    pub fn schema_key(&mut self, pattern: &str) -> Result<(), globset::Error> {
        self.schema_keys.push(Glob::new(pattern)?.compile_matcher());
        Ok(())
    }

    /// Adds a pattern to a second list for tables, of which one must match besides one of the first.
    pub fn also_table(&mut self, pattern: &str) -> Result<(), globset::Error> {
        self.narrower.push(matcher(pattern)?);
        Ok(())
    }

    /// Whether everything passes, so that nothing need be looked at.
    pub fn passes_all(&self) -> bool {
        self.accept == Accept::All
            && self.ops.is_empty()
            && self.schemas.is_empty()
            && self.tables.is_empty()
            && self.narrower.is_empty()
            && self.schema_keys.is_empty()
            && self.window == Window::default()
            && self.keys.is_empty()
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
                && self.window.holds(row)
                && self.wants_key(batch.chunk.event(index as usize))
        };
        let rows = u32::try_from(batch.chunk.rows.len()).expect("a chunk has fewer rows than bytes");
        (0..rows).filter(wanted).collect()
    }

    fn wants_key(&self, event: Event<'_>) -> bool {
        if self.keys.is_empty() {
            return true;
        }
        let Ok(key) = serde_json::from_slice::<Value>(event.key()) else { return false };
        let only =
            key.as_object().filter(|members| members.len() == 1).and_then(|members| members.values().next());
        self.keys.iter().any(|wanted| *wanted == key || Some(wanted) == only)
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
        let matches = |(qualified, glob): &(bool, GlobMatcher)| {
            table.is_some_and(|table| glob.is_match(if *qualified { full.as_str() } else { table }))
        };
        let table_passes = [&self.tables, &self.narrower]
            .into_iter()
            .all(|list| list.is_empty() || list.iter().any(matches));
        let key_passes = self.schema_keys.is_empty() || {
            let key = subject.schema_key();
            self.schema_keys.iter().any(|glob| glob.is_match(&key))
        };
        schema_passes && table_passes && key_passes
    }
}

fn matcher(pattern: &str) -> Result<(bool, GlobMatcher), globset::Error> {
    Ok((pattern.contains('.'), Glob::new(pattern)?.compile_matcher()))
}
