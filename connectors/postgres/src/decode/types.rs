//! [`TypeCatalog`]: what is known of the types that columns have.
//!
//! Built-in types have fixed oids and need no server. Of the others the catalog is asked once for each oid, so that
//! afterwards every lookup is pure. What is not known at all is still delivered: as text, and marked as such.

use std::collections::HashMap;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::column_type::ColumnType;
use super::options::ValueOptions;

/// Types that are not built in, and how values are to be written.
#[derive(Clone, Debug, Default)]
pub struct TypeCatalog {
    options: ValueOptions,
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
    /// A domain.
    Domain {
        /// Over which type, maybe a domain too.
        base: u32,
        /// What it says of that type: a length, a precision; -1 for nothing.
        modifier: i32,
    },
    /// An array.
    Array {
        /// Of what.
        element: u32,
        /// What stands between two elements.
        delimiter: u8,
    },
    /// A composite type, or the row type of a table, with what it has.
    Composite(Vec<CatalogAttribute>),
    /// A range.
    Range {
        /// Of what.
        subtype: u32,
    },
    /// A multirange.
    Multirange {
        /// Of which ranges.
        range: u32,
    },
    /// A type with code of its own.
    Base {
        /// The extension that brought it; empty where none did.
        extension: String,
    },
    /// The catalog has no such type any more: it was dropped after the rows were written.
    Gone,
}

/// An attribute of a composite type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogAttribute {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_oid: u32,
    /// What is said of its type; -1 for nothing.
    pub modifier: i32,
}

/// A type that is dropped leaves nothing behind, hence the outer join. PostgreSQL 13 knows no multiranges, and would
/// not parse the name of their column: so it is read out of the row's JSON.
const QUERY: &str = "
    WITH RECURSIVE wanted (oid) AS (
        SELECT unnest($1::oid[])
        UNION
        SELECT next FROM wanted JOIN pg_catalog.pg_type type USING (oid), LATERAL (
            VALUES (typelem), (typbasetype)
            UNION ALL SELECT atttypid FROM pg_catalog.pg_attribute
                WHERE attrelid = typrelid AND attnum > 0 AND NOT attisdropped
            UNION ALL SELECT rngsubtype FROM pg_catalog.pg_range WHERE rngtypid = type.oid
            UNION ALL SELECT rngtypid FROM pg_catalog.pg_range range
                WHERE (pg_catalog.to_jsonb(range) ->> 'rngmultitypid')::oid = type.oid
        ) AS parts (next)
        WHERE next <> 0
    )
    SELECT wanted.oid, nspname::text, typname::text, typtype::text, typbasetype, typtypmod,
        (SELECT element.oid FROM pg_catalog.pg_type element WHERE element.typarray = type.oid) AS element,
        (SELECT element.typdelim::text FROM pg_catalog.pg_type element WHERE element.typarray = type.oid) AS delimiter,
        ARRAY(SELECT enumlabel::text FROM pg_catalog.pg_enum WHERE enumtypid = type.oid ORDER BY enumsortorder) AS labels,
        attributes.names, attributes.types, attributes.modifiers,
        (SELECT rngsubtype FROM pg_catalog.pg_range WHERE rngtypid = type.oid) AS subtype,
        (SELECT rngtypid FROM pg_catalog.pg_range range
            WHERE (pg_catalog.to_jsonb(range) ->> 'rngmultitypid')::oid = type.oid) AS range,
        (SELECT extname::text FROM pg_catalog.pg_depend JOIN pg_catalog.pg_extension extension ON extension.oid = refobjid
            WHERE classid = 'pg_catalog.pg_type'::regclass AND objid = type.oid
                AND refclassid = 'pg_catalog.pg_extension'::regclass AND deptype = 'e') AS extension
    FROM wanted
        LEFT JOIN pg_catalog.pg_type type USING (oid)
        LEFT JOIN pg_catalog.pg_namespace namespace ON namespace.oid = typnamespace
        LEFT JOIN LATERAL (
            SELECT array_agg(attname::text ORDER BY attnum) AS names, array_agg(atttypid ORDER BY attnum) AS types,
                array_agg(atttypmod ORDER BY attnum) AS modifiers
            FROM pg_catalog.pg_attribute WHERE attrelid = typrelid AND attnum > 0 AND NOT attisdropped
        ) AS attributes ON true";

impl TypeCatalog {
    /// A catalog that knows the built-in types.
    pub fn new(options: ValueOptions) -> TypeCatalog {
        TypeCatalog { options, known: HashMap::new() }
    }

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

    /// Asks the server for these types and what they are made of, whether they are known or not. A type that it does
    /// not have any more stays what it was, or is remembered as gone.
    pub async fn load(&mut self, client: &Client, oids: &[u32]) -> Result<(), tokio_postgres::Error> {
        let wanted: Vec<u32> = oids.iter().copied().filter(|oid| Type::from_oid(*oid).is_none()).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        for row in client.query(QUERY, &[&wanted]).await? {
            let oid: u32 = row.try_get("oid")?;
            if Type::from_oid(oid).is_some() {
                continue;
            }
            match kind(&row)? {
                TypeKind::Gone if self.known.contains_key(&oid) => {}
                kind => {
                    let namespace: Option<String> = row.try_get("nspname")?;
                    let name: Option<String> = row.try_get("typname")?;
                    let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
                    self.known.insert(oid, CatalogType { namespace, name, kind });
                }
            }
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
        ColumnType::of(oid, self, self.options)
    }
}

/// What a row of the query says.
fn kind(row: &Row) -> Result<TypeKind, tokio_postgres::Error> {
    Ok(match row.try_get::<_, Option<&str>>("typtype")? {
        None => TypeKind::Gone,
        Some("e") => TypeKind::Enum(row.try_get("labels")?),
        Some("d") => {
            TypeKind::Domain { base: row.try_get("typbasetype")?, modifier: row.try_get("typtypmod")? }
        }
        Some("c") => TypeKind::Composite(attributes(row)?),
        Some("r") => TypeKind::Range { subtype: row.try_get("subtype")? },
        Some("m") => TypeKind::Multirange { range: row.try_get("range")? },
        Some(_) => match row.try_get("element")? {
            Some(element) => {
                let delimiter: &str = row.try_get("delimiter")?;
                TypeKind::Array { element, delimiter: delimiter.bytes().next().unwrap_or(b',') }
            }
            None => {
                let extension: Option<String> = row.try_get("extension")?;
                TypeKind::Base { extension: extension.unwrap_or_default() }
            }
        },
    })
}

/// A type without any attribute has no arrays of them.
fn attributes(row: &Row) -> Result<Vec<CatalogAttribute>, tokio_postgres::Error> {
    let names: Vec<String> = row.try_get::<_, Option<_>>("names")?.unwrap_or_default();
    let types: Vec<u32> = row.try_get::<_, Option<_>>("types")?.unwrap_or_default();
    let modifiers: Vec<i32> = row.try_get::<_, Option<_>>("modifiers")?.unwrap_or_default();
    let attributes = names.into_iter().zip(types).zip(modifiers);
    Ok(attributes.map(|((name, type_oid), modifier)| CatalogAttribute { name, type_oid, modifier }).collect())
}
