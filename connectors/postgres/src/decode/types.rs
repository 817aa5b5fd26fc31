//! [`TypeCatalog`]: what is known of the types that columns have.
//!
//! Built-in types have fixed oids and need no server. Of the others the catalog is asked once for each oid, so that
//! afterwards every lookup is pure. What is not known at all is still delivered: as text, and marked as such.

use std::collections::HashMap;

use tokio_postgres::Client;
use tokio_postgres::types::{Kind, Type};

use super::{ArrayEncoder, Encoder};

/// Types that are not built in.
#[derive(Clone, Debug, Default)]
pub struct TypeCatalog {
    known: HashMap<u32, CatalogType>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogType {
    /// Its schema.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub kind: TypeKind,
}

/// What a type is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeKind {
    /// An enumeration, with its labels in order.
    Enum(Vec<String>),
    /// A domain over another type.
    Domain(u32),
    /// An array.
    Array {
        /// Of what.
        element: u32,
        /// What stands between two elements.
        delimiter: u8,
    },
    /// A composite, a range, or a type of an extension.
    Other,
    /// The catalog has no such type any more: it was dropped after the rows were written.
    Gone,
}

/// How a column is written, and what its schema must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// How its values are written.
    pub encoder: Encoder,
    /// Its name, with the schema if it is not built in.
    pub name: String,
    /// Whether JSON says all of it. If not, its values are the text that PostgreSQL prints, and the schema must say
    /// `x-pg-type`.
    pub mapped: bool,
}

/// Domains over domains, and arrays of them, are followed this far.
const MAX_DEPTH: usize = 32;

/// A type that is dropped leaves nothing behind, hence the outer join.
const QUERY: &str = "
    WITH RECURSIVE wanted (oid) AS (
        SELECT unnest($1::oid[])
        UNION
        SELECT next FROM wanted JOIN pg_catalog.pg_type USING (oid),
            LATERAL (VALUES (typelem), (typbasetype)) AS parts (next)
        WHERE next <> 0
    )
    SELECT wanted.oid, nspname::text, typname::text, typtype::text, typbasetype,
        (SELECT element.oid FROM pg_catalog.pg_type element WHERE element.typarray = type.oid) AS element,
        (SELECT element.typdelim::text FROM pg_catalog.pg_type element WHERE element.typarray = type.oid) AS delimiter,
        ARRAY(SELECT enumlabel::text FROM pg_catalog.pg_enum WHERE enumtypid = type.oid ORDER BY enumsortorder) AS labels
    FROM wanted
        LEFT JOIN pg_catalog.pg_type type USING (oid)
        LEFT JOIN pg_catalog.pg_namespace namespace ON namespace.oid = typnamespace";

impl TypeCatalog {
    /// Those of the given oids that [`TypeCatalog::load`] should be asked for.
    pub fn missing(&self, oids: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let mut missing: Vec<u32> = oids
            .into_iter()
            .filter(|oid| Type::from_oid(*oid).is_none() && !self.known.contains_key(oid))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Asks the server for these types and what they are made of. Types that it does not have any more are
    /// remembered, too.
    pub async fn load(&mut self, client: &Client, oids: &[u32]) -> Result<(), tokio_postgres::Error> {
        if oids.is_empty() {
            return Ok(());
        }
        for row in client.query(QUERY, &[&oids]).await? {
            let oid: u32 = row.try_get("oid")?;
            let (namespace, name): (Option<String>, Option<String>) =
                (row.try_get("nspname")?, row.try_get("typname")?);
            let element: Option<u32> = row.try_get("element")?;
            let kind = match row.try_get::<_, Option<&str>>("typtype")? {
                None => TypeKind::Gone,
                Some("e") => TypeKind::Enum(row.try_get("labels")?),
                Some("d") => TypeKind::Domain(row.try_get("typbasetype")?),
                Some(_) => match (element, row.try_get::<_, Option<&str>>("delimiter")?) {
                    (Some(element), Some(delimiter)) => {
                        TypeKind::Array { element, delimiter: delimiter.bytes().next().unwrap_or(b',') }
                    }
                    _ => TypeKind::Other,
                },
            };
            let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
            self.known.insert(oid, CatalogType { namespace, name, kind });
        }
        Ok(())
    }

    /// Remembers a type, as [`TypeCatalog::load`] does.
    pub fn insert(&mut self, oid: u32, known: CatalogType) {
        self.known.insert(oid, known);
    }

    /// What is known of a type that is not built in.
    pub fn get(&self, oid: u32) -> Option<&CatalogType> {
        self.known.get(&oid)
    }

    /// How a column of this type is written.
    pub fn column_type(&self, oid: u32) -> ColumnType {
        self.resolve(oid, MAX_DEPTH)
    }

    fn resolve(&self, oid: u32, depth: usize) -> ColumnType {
        if let Some(built_in) = Type::from_oid(oid) {
            return self.built_in(&built_in);
        }
        let Some(known) = self.known.get(&oid).filter(|_| depth > 0) else {
            return ColumnType { encoder: Encoder::Text, name: format!("oid {oid}"), mapped: false };
        };
        let name = format!("{}.{}", known.namespace, known.name);
        match &known.kind {
            TypeKind::Enum(_) => ColumnType { encoder: Encoder::Text, name, mapped: true },
            TypeKind::Domain(base) => ColumnType { name, ..self.resolve(*base, depth - 1) },
            TypeKind::Array { element, delimiter } => {
                ColumnType { name, ..array_of(self.resolve(*element, depth - 1), *delimiter) }
            }
            // of extensions, by name: their oids differ from database to database
            TypeKind::Other if matches!(known.name.as_str(), "citext" | "ltree") => {
                ColumnType { encoder: Encoder::Text, name, mapped: true }
            }
            TypeKind::Other => ColumnType { encoder: Encoder::Text, name, mapped: false },
            TypeKind::Gone => {
                ColumnType { encoder: Encoder::Text, name: format!("oid {oid}"), mapped: false }
            }
        }
    }

    fn built_in(&self, built_in: &Type) -> ColumnType {
        if let (Kind::Array(element), false) = (built_in.kind(), is_vector(built_in)) {
            let delimiter = if *element == Type::BOX { b';' } else { b',' };
            let element = self.built_in(element);
            let name = format!("{}[]", element.name);
            return ColumnType { name, ..array_of(element, delimiter) };
        }
        let encoder = built_in_encoder(built_in);
        let mapped = encoder.is_some();
        ColumnType { encoder: encoder.unwrap_or(Encoder::Text), name: built_in.name().to_owned(), mapped }
    }
}

fn array_of(element: ColumnType, delimiter: u8) -> ColumnType {
    let encoder = Encoder::Array(Box::new(ArrayEncoder { element: element.encoder, delimiter }));
    ColumnType { encoder, ..element }
}

/// The two that are arrays in the catalog and print like no other.
fn is_vector(built_in: &Type) -> bool {
    [Type::INT2_VECTOR, Type::OID_VECTOR].contains(built_in)
}

/// `None` for what is text only for want of something better.
fn built_in_encoder(built_in: &Type) -> Option<Encoder> {
    Some(match *built_in {
        Type::BOOL => Encoder::Bool,
        Type::INT2 | Type::INT4 | Type::INT8 => Encoder::Integer,
        Type::NUMERIC | Type::FLOAT4 | Type::FLOAT8 => Encoder::Number,
        Type::JSON | Type::JSONB => Encoder::Json,
        Type::BYTEA => Encoder::Bytea,
        Type::DATE => Encoder::Date,
        Type::TIMESTAMP => Encoder::Timestamp,
        Type::TIMESTAMPTZ => Encoder::TimestampTz,
        Type::INT2_VECTOR => Encoder::Vector(Box::new(Encoder::Integer)),
        Type::OID_VECTOR => Encoder::Vector(Box::new(Encoder::Text)),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::CHAR | Type::UNKNOWN => Encoder::Text,
        Type::UUID | Type::XML | Type::TS_VECTOR | Type::TIME | Type::TIMETZ | Type::INTERVAL => {
            Encoder::Text
        }
        Type::MONEY | Type::BIT | Type::VARBIT => Encoder::Text,
        Type::INET | Type::CIDR | Type::MACADDR | Type::MACADDR8 => Encoder::Text,
        Type::OID | Type::XID | Type::XID8 | Type::CID | Type::TID | Type::PG_LSN => Encoder::Text,
        Type::REGPROC | Type::REGPROCEDURE | Type::REGOPER | Type::REGOPERATOR => Encoder::Text,
        Type::REGCLASS | Type::REGTYPE | Type::REGROLE | Type::REGNAMESPACE => Encoder::Text,
        Type::REGCONFIG | Type::REGDICTIONARY | Type::REGCOLLATION => Encoder::Text,
        _ => return None,
    })
}
