//! [`ColumnType`]: what the values of a column, or of a part of one, are.

use std::fmt::Write;

use tokio_postgres::types::{Kind, Type};

use super::options::ValueOptions;
use super::scratch::Step;
use super::types::{TypeCatalog, TypeKind};
use super::{ArrayEncoder, Attribute, CompositeEncoder, Encoder, EnumEncoder, built_in};

/// How a column is written, and what its schema must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// How its values are written.
    pub encoder: Encoder,
    /// The type's oid; for a domain, that of what it is based on.
    pub oid: u32,
    /// What SQL calls it, with the schema if it is not built in; for a domain, what it is based on.
    pub name: String,
    /// The domain's name with its schema, if it is one; the outermost, if domains are based on domains.
    pub domain: Option<String>,
    /// The modifier that a domain gives the type it is based on; -1 where there is none.
    pub modifier: i32,
    /// Whether JSON says all of it. If not, its values are the text that PostgreSQL prints, and only `x-pg-type` in
    /// the schema says what that text means.
    pub mapped: bool,
}

/// Types made of types are followed this deep,
const MAX_DEPTH: usize = 32;
/// and to this many parts in all: a table's row type has 1,600 at the most. What is larger is text.
const MAX_PARTS: usize = 10_000;

impl ColumnType {
    /// How a column of the type with this oid is written.
    pub(super) fn of(oid: u32, types: &TypeCatalog, options: ValueOptions) -> ColumnType {
        Resolve { types, options, parts: MAX_PARTS }.any(oid, MAX_DEPTH)
    }

    fn new(encoder: Encoder, oid: u32, name: String) -> ColumnType {
        ColumnType { encoder, oid, name, domain: None, modifier: -1, mapped: true }
    }

    fn unmapped(oid: u32, name: String) -> ColumnType {
        ColumnType { mapped: false, ..ColumnType::new(Encoder::Text, oid, name) }
    }

    /// The modifier that counts: a domain has its own.
    pub(super) fn effective(&self, modifier: i32) -> i32 {
        if self.modifier >= 0 { self.modifier } else { modifier }
    }

    /// Appends the steps into a value of this type as a JSON pointer.
    pub(super) fn point(&self, path: &[Step], pointer: &mut String) {
        let (mut kind, mut path) = (self, path);
        while let [step, rest @ ..] = path {
            match (step, &kind.encoder) {
                // An array's elements may be arrays; only the step behind all indices says which one is meant.
                (Step::Index(index), _) => {
                    write!(pointer, "/{index}").expect("writing to a string succeeds");
                    path = rest;
                }
                (Step::Part(_), Encoder::Array(array)) => kind = &array.element,
                (Step::Part(part), Encoder::Composite(composite)) => {
                    let attribute = &composite.attributes[*part as usize];
                    pointer.push('/');
                    pointer.push_str(&pointer_token(&attribute.name));
                    (kind, path) = (&attribute.kind, rest);
                }
                (Step::Part(part), Encoder::Range(element) | Encoder::Multirange(element)) => {
                    pointer.push_str(if *part == 0 { "/lower" } else { "/upper" });
                    (kind, path) = (element, rest);
                }
                (Step::Part(_), _) => unreachable!("only types with parts make such steps"),
            }
        }
    }
}

/// A name as a part of a JSON pointer (RFC 6901).
pub(super) fn pointer_token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Follows a type to what it is made of.
struct Resolve<'a> {
    types: &'a TypeCatalog,
    options: ValueOptions,
    /// How many more parts may be met.
    parts: usize,
}

impl Resolve<'_> {
    fn any(&mut self, oid: u32, depth: usize) -> ColumnType {
        self.parts = self.parts.saturating_sub(1);
        if let Some(built_in) = Type::from_oid(oid) {
            return self.built_in(&built_in);
        }
        let Some(known) = self.types.get(oid).filter(|known| known.kind != TypeKind::Gone) else {
            return ColumnType::unmapped(oid, format!("oid {oid}"));
        };
        let name = format!("{}.{}", identifier(&known.namespace), identifier(&known.name));
        if depth == 0 || self.parts == 0 {
            return ColumnType::unmapped(oid, name);
        }
        match &known.kind {
            TypeKind::Enum(labels) => {
                let encoder = EnumEncoder::new(oid, labels.clone());
                ColumnType::new(Encoder::Enum(Box::new(encoder)), oid, name)
            }
            TypeKind::Domain { base, modifier } => {
                let base = self.any(*base, depth - 1);
                let modifier = base.effective(*modifier);
                ColumnType { domain: Some(name), modifier, ..base }
            }
            TypeKind::Array { element, delimiter } => {
                array_of(oid, self.any(*element, depth - 1), *delimiter)
            }
            TypeKind::Composite(attributes) => {
                let attributes = attributes.iter().map(|attribute| {
                    let kind = self.any(attribute.type_oid, depth - 1);
                    Attribute::new(&attribute.name, kind, attribute.modifier)
                });
                let encoder = CompositeEncoder { oid, attributes: attributes.collect() };
                ColumnType::new(Encoder::Composite(Box::new(encoder)), oid, name)
            }
            TypeKind::Range { subtype } => {
                ColumnType::new(Encoder::Range(Box::new(self.any(*subtype, depth - 1))), oid, name)
            }
            TypeKind::Multirange { range } => match self.any(*range, depth - 1).encoder {
                Encoder::Range(element) => ColumnType::new(Encoder::Multirange(element), oid, name),
                _ => ColumnType::unmapped(oid, name),
            },
            TypeKind::Base { extension } => match of_extension(extension, &known.name) {
                Some(encoder) => ColumnType::new(encoder, oid, name),
                None => ColumnType::unmapped(oid, name),
            },
            TypeKind::Gone => unreachable!("filtered above"),
        }
    }

    fn built_in(&self, built_in: &Type) -> ColumnType {
        let oid = built_in.oid();
        let part = |part: &Type| Box::new(self.built_in(part));
        let encoder = match built_in.kind() {
            Kind::Array(element) if *built_in == Type::INT2_VECTOR => Encoder::Vector(part(element)),
            Kind::Array(element) if *built_in == Type::OID_VECTOR => Encoder::Vector(part(element)),
            Kind::Array(element) => {
                let delimiter = if *element == Type::BOX { b';' } else { b',' };
                return array_of(oid, self.built_in(element), delimiter);
            }
            Kind::Range(subtype) => Encoder::Range(part(subtype)),
            Kind::Multirange(subtype) => Encoder::Multirange(part(subtype)),
            _ => built_in::encoder(built_in, self.options),
        };
        ColumnType::new(encoder, oid, built_in::name(built_in, -1))
    }
}

fn array_of(oid: u32, element: ColumnType, delimiter: u8) -> ColumnType {
    let name = format!("{}[]", element.domain.as_ref().unwrap_or(&element.name));
    let mapped = element.mapped;
    let encoder = Encoder::Array(Box::new(ArrayEncoder { element, delimiter }));
    ColumnType { mapped, ..ColumnType::new(encoder, oid, name) }
}

/// How the types of some extensions are written. By name, because their oids differ from database to database, and with
/// the extension's, because others may use the same names.
fn of_extension(extension: &str, name: &str) -> Option<Encoder> {
    Some(match (extension, name) {
        ("citext", "citext") | ("ltree", "ltree" | "lquery" | "ltxtquery") => Encoder::Text,
        ("hstore", "hstore") => Encoder::Hstore,
        ("vector", "vector" | "halfvec") => Encoder::Dense,
        ("vector", "sparsevec") => Encoder::Sparse,
        ("postgis", "geometry" | "geography") => Encoder::Hex,
        _ => return None,
    })
}

/// A name as SQL writes it.
fn identifier(name: &str) -> String {
    let simple = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if name.bytes().all(simple) && !name.starts_with(|first: char| first.is_ascii_digit()) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}
