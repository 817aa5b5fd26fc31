//! [`Outline`]: what a version of a table's schema was made of, as it is kept.
//!
//! It is enough to write the rows of an old part of the log as that version says: with the types as they were then, and
//! with what the catalogs said then of columns that may be others now. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::facts::{ColumnFacts, Facts};
use crate::decode::Misfit;
use crate::decode::row::{Columns, RowError};
use crate::decode::types::{CatalogAttribute, CatalogType, TypeCatalog, TypeKind};
use crate::protocol::{Relation, ReplicaIdentity};

/// The form that is written now.
const FORM: u32 = 1;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outline {
    v: u32,
    /// The table's comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<String>,
    /// The partitioned table that it belonged to, as schema and name: by it the configuration knows a partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<(String, String)>,
    /// The columns, in the order of the stream.
    pub(super) columns: Vec<Part>,
    /// The types that are not built in, and what they are made of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    types: BTreeMap<u32, KeptType>,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// Its name.
    pub(super) name: String,
    /// Its type.
    #[serde(rename = "type")]
    type_oid: u32,
    /// Its type's modifier.
    #[serde(default = "none", skip_serializing_if = "is_none")]
    modifier: i32,
    /// Whether the stream marks it as a part of the replica identity.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    identifying: bool,
    /// Whether it belongs to the key of events.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) key: bool,
    /// Whether every row has a value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) not_null: bool,
    /// Whether its value is in every row that the server sends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) inline: bool,
    /// Its comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<String>,
}

/// A type, in a form that stays what it is while the decoder's own changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptType {
    schema: String,
    name: String,
    kind: KeptKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeptKind {
    Enum(Vec<String>),
    Domain(u32, i32),
    Array(u32, u8),
    Composite(Vec<(String, u32, i32)>),
    Range(u32),
    Multirange(u32),
    Base(String),
    Gone,
}

fn none() -> i32 {
    -1
}

fn is_none(modifier: &i32) -> bool {
    *modifier == none()
}

/// A text that is no outline.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutlineError {
    /// It is damaged, or nothing of ours.
    #[error("a kept shape cannot be read")]
    Unreadable(#[from] serde_json::Error),
    /// A newer Forebay wrote it.
    #[error("a kept shape is of form {0}, which is newer than this Forebay")]
    Newer(u32),
}

impl Outline {
    /// A relation with what is known of it now. `facts` may be of a later time than the relation: what they say of a
    /// column is taken while it has the name and the type that it had. `types` knows the types of all columns.
    pub(super) fn new(relation: &Relation<'_>, facts: Option<&Facts>, types: &TypeCatalog) -> Outline {
        let full = relation.identity == ReplicaIdentity::Full;
        let part = |column: crate::protocol::Column<'_>| {
            let known = facts.and_then(|facts| facts.column(column.name, column.type_oid));
            let is = |what: fn(&ColumnFacts) -> bool| known.is_some_and(what);
            Part {
                name: column.name.to_owned(),
                type_oid: column.type_oid,
                modifier: column.type_modifier,
                identifying: column.key,
                // With the identity `full` the stream marks every column, and the key is the primary key, if there is one.
                key: if full { is(|known| known.primary) } else { column.key },
                not_null: is(|known| known.not_null),
                inline: is(|known| known.inline),
                comment: known.and_then(|known| known.comment.clone()),
            }
        };
        let mut outline = Outline {
            v: FORM,
            comment: facts.and_then(|facts| facts.comment.clone()),
            root: facts.and_then(|facts| facts.root.clone()),
            columns: relation.columns().map(part).collect(),
            types: BTreeMap::new(),
        };
        for at in 0..outline.columns.len() {
            outline.keep_type(outline.columns[at].type_oid, types);
        }
        outline
    }

    /// Reads what [`Outline::text`] wrote.
    pub(super) fn read(text: &str) -> Result<Outline, OutlineError> {
        #[derive(Deserialize)]
        struct Form {
            v: u32,
        }
        let Form { v } = serde_json::from_str(text)?;
        if v > FORM {
            return Err(OutlineError::Newer(v));
        }
        Ok(serde_json::from_str(text)?)
    }

    /// The form in which it is kept.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are JSON")
    }

    /// Whether a relation of the stream could be what this was made of: it has the same columns, in any order.
    pub(super) fn is_of(&self, relation: &Relation<'_>) -> bool {
        let mut count = 0;
        let all = relation.columns().all(|column| {
            count += 1;
            self.part(column.name).is_some_and(|part| {
                (part.type_oid, part.modifier, part.identifying)
                    == (column.type_oid, column.type_modifier, column.key)
            })
        });
        all && count == self.columns.len()
    }

    /// What is said of a column.
    pub(super) fn part(&self, name: &str) -> Option<&Part> {
        self.columns.iter().find(|part| part.name == name)
    }

    /// How rows of a relation are written that this [is of](Outline::is_of); `types` knows what is built in.
    pub(super) fn columns(&self, relation: &Relation<'_>, types: &TypeCatalog) -> Columns {
        let mut types = types.clone();
        for (oid, kept) in &self.types {
            types.insert(*oid, kept.restored());
        }
        let mut columns = Columns::new(relation, &types);
        for column in &mut columns.0 {
            let part = self.part(&column.name).expect("the relation has the outline's columns");
            (column.key, column.not_null) = (part.key, part.not_null);
        }
        columns
    }

    /// Changes it so that a row fits that did not; whether there was anything to change.
    pub(super) fn widen(&mut self, error: &RowError) -> bool {
        let RowError::Unfitting { column, source } = error else { return false };
        let kind = match source {
            Misfit::Null => {
                let part = self.columns.iter_mut().find(|part| part.name == *column);
                return part.is_some_and(|part| std::mem::take(&mut part.not_null));
            }
            Misfit::Label { oid, .. } | Misfit::Attributes { oid } => {
                self.types.get_mut(oid).map(|kept| &mut kept.kind)
            }
        };
        match (kind, source) {
            (Some(KeptKind::Enum(labels)), Misfit::Label { label, .. }) if !labels.contains(label) => {
                labels.push(label.clone());
                true
            }
            // Text as PostgreSQL prints it, since nobody knows what it was made of.
            (Some(kind @ KeptKind::Composite(_)), Misfit::Attributes { .. }) => {
                *kind = KeptKind::Base(String::new());
                true
            }
            _ => false,
        }
    }

    /// Keeps a type and what it is made of. Nothing limits how deep that is, so the stack is not used for it.
    fn keep_type(&mut self, oid: u32, types: &TypeCatalog) {
        let mut wanted = vec![oid];
        while let Some(oid) = wanted.pop() {
            let Some(known) = types.get(oid).filter(|_| !self.types.contains_key(&oid)) else { continue };
            self.types.insert(oid, KeptType::of(known));
            match &known.kind {
                TypeKind::Domain { base: part, .. }
                | TypeKind::Array { element: part, .. }
                | TypeKind::Range { subtype: part }
                | TypeKind::Multirange { range: part } => wanted.push(*part),
                TypeKind::Composite(attributes) => {
                    wanted.extend(attributes.iter().map(|attribute| attribute.type_oid));
                }
                TypeKind::Enum(_) | TypeKind::Base { .. } | TypeKind::Gone => {}
            }
        }
    }
}

impl KeptType {
    fn of(known: &CatalogType) -> KeptType {
        let kind = match &known.kind {
            TypeKind::Enum(labels) => KeptKind::Enum(labels.clone()),
            TypeKind::Domain { base, modifier } => KeptKind::Domain(*base, *modifier),
            TypeKind::Array { element, delimiter } => KeptKind::Array(*element, *delimiter),
            TypeKind::Composite(attributes) => {
                let attribute = |a: &CatalogAttribute| (a.name.clone(), a.type_oid, a.modifier);
                KeptKind::Composite(attributes.iter().map(attribute).collect())
            }
            TypeKind::Range { subtype } => KeptKind::Range(*subtype),
            TypeKind::Multirange { range } => KeptKind::Multirange(*range),
            TypeKind::Base { extension } => KeptKind::Base(extension.clone()),
            TypeKind::Gone => KeptKind::Gone,
        };
        KeptType { schema: known.namespace.clone(), name: known.name.clone(), kind }
    }

    fn restored(&self) -> CatalogType {
        let kind = match &self.kind {
            KeptKind::Enum(labels) => TypeKind::Enum(labels.clone()),
            KeptKind::Domain(base, modifier) => TypeKind::Domain { base: *base, modifier: *modifier },
            KeptKind::Array(element, delimiter) => {
                TypeKind::Array { element: *element, delimiter: *delimiter }
            }
            KeptKind::Composite(attributes) => {
                let attribute = |(name, type_oid, modifier): &(String, u32, i32)| CatalogAttribute {
                    name: name.clone(),
                    type_oid: *type_oid,
                    modifier: *modifier,
                };
                TypeKind::Composite(attributes.iter().map(attribute).collect())
            }
            KeptKind::Range(subtype) => TypeKind::Range { subtype: *subtype },
            KeptKind::Multirange(range) => TypeKind::Multirange { range: *range },
            KeptKind::Base(extension) => TypeKind::Base { extension: extension.clone() },
            KeptKind::Gone => TypeKind::Gone,
        };
        CatalogType { namespace: self.schema.clone(), name: self.name.clone(), kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::options::ValueOptions;

    #[test]
    fn types_of_types_are_kept_however_deep_they_are() {
        const FIRST: u32 = 20_000;
        const DEPTH: u32 = 200_000;
        let mut types = TypeCatalog::new(ValueOptions::default());
        for oid in FIRST..FIRST + DEPTH {
            let kind = TypeKind::Domain { base: oid + 1, modifier: -1 };
            types.insert(oid, CatalogType { namespace: "public".to_owned(), name: "d".to_owned(), kind });
        }
        let mut outline =
            Outline { v: FORM, comment: None, root: None, columns: Vec::new(), types: BTreeMap::new() };
        outline.keep_type(FIRST, &types);
        assert_eq!(outline.types.len(), DEPTH as usize);
    }
}
