//! [`Kind`]: a type of any making, how its values are made in SQL, and the second way to their JSON.
//!
//! The second way is SQL of the server: it takes a value apart by `unnest`, `lower` and `.attribute`, where the first
//! one reads the text of the whole.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::StdRng;

use super::exact::Exact;
use super::leaves::Leaf;

/// A type.
pub(super) enum Kind {
    Leaf(&'static Leaf),
    Array(Box<Kind>),
    Composite {
        name: &'static str,
        attributes: Vec<(&'static str, Kind)>,
    },
    Range {
        name: &'static str,
        of: Box<Kind>,
        /// Each value has a next one, so that every range is written with the bounds `[)`.
        discrete: bool,
    },
    Multirange {
        name: &'static str,
        of: Box<Kind>,
    },
    Domain {
        name: &'static str,
        base: Box<Kind>,
    },
}

/// What makes values.
pub(super) struct Maker {
    /// The server's major version.
    pub major: u16,
    pub rng: StdRng,
}

impl Kind {
    pub(super) fn array(element: Kind) -> Kind {
        Kind::Array(Box::new(element))
    }

    /// What SQL calls it.
    pub(super) fn sql(&self) -> String {
        match self {
            Kind::Leaf(leaf) => leaf.sql.to_owned(),
            Kind::Array(element) => format!("{}[]", element.sql()),
            Kind::Composite { name, .. }
            | Kind::Range { name, .. }
            | Kind::Multirange { name, .. }
            | Kind::Domain { name, .. } => (*name).to_owned(),
        }
    }

    /// SQL of a value: the telling ones in turn, or any.
    pub(super) fn value(&self, turn: Option<usize>, maker: &mut Maker) -> String {
        let sql = self.sql();
        if turn.is_none() && maker.rng.random_ratio(1, 8) {
            return format!("NULL::{sql}");
        }
        match self {
            Kind::Leaf(leaf) => {
                let literal = leaf.literal(maker.major, turn, &mut maker.rng);
                format!("{}::{sql}", quoted(&literal))
            }
            Kind::Array(element) => array(element, turn, maker),
            Kind::Composite { attributes, .. } => {
                let values = (0..).zip(attributes).map(|(at, (_, kind))| {
                    // in some turn each attribute is missing
                    let missing = turn.is_some_and(|turn| turn % (attributes.len() + 2) == at);
                    if missing { "NULL".to_owned() } else { kind.value(turn, maker) }
                });
                format!("ROW({})::{sql}", values.collect::<Vec<_>>().join(", "))
            }
            Kind::Range { of, discrete, .. } => range(&sql, of, *discrete, turn, maker),
            Kind::Multirange { of, .. } => {
                let count = turn.map_or_else(|| maker.rng.random_range(0..4), |turn| turn % 3);
                let ranges: Vec<String> = (0..count)
                    .map(|at| {
                        of.value(Some(turn.unwrap_or_else(|| maker.rng.random_range(0..100)) + at), maker)
                    })
                    .collect();
                format!("{sql}({})", ranges.join(", "))
            }
            Kind::Domain { base, .. } => format!("({})::{sql}", base.value(turn, maker)),
        }
    }

    /// SQL of the JSON of a value, NULL for no value. `depth` keeps names apart.
    pub(super) fn second(&self, value: &str, depth: usize) -> String {
        let unless_null =
            |json: String| format!("CASE WHEN ({value}) IS NOT DISTINCT FROM NULL THEN NULL ELSE {json} END");
        match self {
            Kind::Leaf(leaf) => unless_null(leaf.second.replace('$', value)),
            Kind::Array(element) => {
                let each = element.second(&format!("q{depth}.v"), depth + 1);
                unless_null(format!(
                    "(SELECT json_build_object('dims', array_dims({value}), 'flat', coalesce(json_agg({each} ORDER BY q{depth}.n), '[]')) \
                     FROM (SELECT unnest({value}) AS v, generate_series(1, cardinality({value})) AS n) AS q{depth})"
                ))
            }
            Kind::Composite { attributes, .. } => {
                let members = attributes.iter().map(|(name, kind)| {
                    let part = format!("({value}).\"{}\"", name.replace('"', "\"\""));
                    format!("{}, {}", quoted(name), kind.second(&part, depth))
                });
                unless_null(format!("json_build_object({})", members.collect::<Vec<_>>().join(", ")))
            }
            Kind::Range { of, .. } => {
                let (lower, upper) = (format!("lower({value})"), format!("upper({value})"));
                unless_null(format!(
                    "json_build_object('lower', {}, 'upper', {}, 'bounds', \
                     CASE WHEN lower_inc({value}) THEN '[' ELSE '(' END || CASE WHEN upper_inc({value}) THEN ']' ELSE ')' END, \
                     'empty', isempty({value}))",
                    of.second(&lower, depth),
                    of.second(&upper, depth)
                ))
            }
            Kind::Multirange { of, .. } => {
                let each = of.second(&format!("q{depth}.v"), depth + 1);
                unless_null(format!(
                    "(SELECT coalesce(json_agg({each} ORDER BY q{depth}.n), '[]') \
                     FROM unnest({value}) WITH ORDINALITY AS q{depth} (v, n))"
                ))
            }
            Kind::Domain { base, .. } => base.second(&format!("(({value})::{})", base.sql()), depth),
        }
    }

    /// Gives arrays their dimensions back, and tells those whose lower bounds are not 1 by the pointer to them.
    pub(super) fn shaped(
        &self,
        second: Exact,
        pointer: &str,
        bounds: &mut BTreeMap<String, Vec<i64>>,
    ) -> Exact {
        if second == Exact::Null {
            return second;
        }
        match self {
            Kind::Leaf(_) => second,
            Kind::Domain { base, .. } => base.shaped(second, pointer, bounds),
            Kind::Composite { attributes, .. } => Exact::Object(
                attributes
                    .iter()
                    .map(|(name, kind)| {
                        let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                        ((*name).to_owned(), kind.shaped(second.member(name).clone(), &pointer, bounds))
                    })
                    .collect(),
            ),
            Kind::Range { of, .. } => {
                let Exact::Object(mut members) = second else { panic!("{second:?} is no range") };
                for end in ["lower", "upper"] {
                    let value = members.remove(end).unwrap();
                    members.insert(end.to_owned(), of.shaped(value, &format!("{pointer}/{end}"), bounds));
                }
                Exact::Object(members)
            }
            Kind::Multirange { of, .. } => {
                let Exact::Array(ranges) = second else { panic!("{second:?} is no multirange") };
                let shaped = ranges.into_iter().enumerate();
                Exact::Array(
                    shaped.map(|(at, range)| of.shaped(range, &format!("{pointer}/{at}"), bounds)).collect(),
                )
            }
            Kind::Array(element) => {
                let Exact::Array(flat) = second.member("flat") else { panic!("{second:?} is no array") };
                let dims = match second.member("dims") {
                    Exact::Text(dims) => dimensions(dims),
                    _ => return Exact::Array(Vec::new()),
                };
                if dims.iter().any(|(lower, _)| *lower != 1) {
                    bounds.insert(pointer.to_owned(), dims.iter().map(|(lower, _)| *lower).collect());
                }
                let lengths: Vec<usize> = dims.iter().map(|(_, length)| *length).collect();
                nest(element, &mut flat.iter(), &lengths, pointer, bounds)
            }
        }
    }
}

/// A text literal.
fn quoted(literal: &str) -> String {
    format!("'{}'", literal.replace('\'', "''"))
}

/// An array of up to three dimensions. Through its text, because there are element types for which `ARRAY[…]` means
/// something else.
fn array(element: &Kind, turn: Option<usize>, maker: &mut Maker) -> String {
    let sql = format!("{}[]", element.sql());
    let lengths: Vec<usize> = match turn {
        Some(turn) => {
            let shapes: [&[usize]; 5] = [&[1], &[], &[3], &[2, 2], &[1, 2, 1]];
            shapes[turn % shapes.len()].to_vec()
        }
        None => (0..maker.rng.random_range(0..4)).map(|_| maker.rng.random_range(1..4)).collect(),
    };
    if lengths.is_empty() {
        return format!("'{{}}'::{sql}");
    }
    let mut count = 0;
    let mut each = |maker: &mut Maker| {
        count += 1;
        // each array of more than two has one that is missing
        let missing = turn.is_some() && count == 3;
        let turn = turn.map(|turn| turn + count);
        if missing { format!("NULL::{}", element.sql()) } else { element.value(turn, maker) }
    };
    if matches!(element, Kind::Leaf(leaf) if leaf.sql == "box") {
        // its arrays are separated by semicolons, which no array of texts is
        return format!("ARRAY{}::{sql}", constructor(&lengths, &mut |maker| each(maker), maker));
    }
    let texts = constructor(&lengths, &mut |maker| format!("({})::text", each(maker)), maker);
    let told = turn.map_or_else(|| maker.rng.random(), |turn| turn % 2 == 0);
    let bounds: String = lengths
        .iter()
        .map(|length| {
            let lower = if told { maker.rng.random_range(-2..3) } else { 1 };
            format!("[{lower}:{}]", lower + i32::try_from(*length).unwrap() - 1)
        })
        .collect();
    format!("('{bounds}=' || (ARRAY{texts}::text[])::text)::{sql}")
}

/// `[[a, b], [c, d]]`
fn constructor(lengths: &[usize], each: &mut dyn FnMut(&mut Maker) -> String, maker: &mut Maker) -> String {
    let parts: Vec<String> = match lengths {
        [length] => (0..*length).map(|_| each(maker)).collect(),
        [length, inner @ ..] => (0..*length).map(|_| constructor(inner, each, maker)).collect(),
        [] => panic!("an array of no dimension is written as `{{}}`"),
    };
    format!("[{}]", parts.join(", "))
}

fn range(sql: &str, of: &Kind, discrete: bool, turn: Option<usize>, maker: &mut Maker) -> String {
    let shape = turn.unwrap_or_else(|| maker.rng.random_range(0..20));
    // a value in its turn, so that it is one; never the same on both sides in each turn
    let (first, second) = (maker.rng.random_range(0..100), maker.rng.random_range(0..100));
    let (a, b) = match turn {
        Some(turn) => (of.value(Some(turn), maker), of.value(Some(turn + 1), maker)),
        None => (of.value(Some(first), maker), of.value(Some(second), maker)),
    };
    let bounds = if discrete { "[)" } else { ["[)", "[]", "(]", "()"][shape % 4] };
    match shape % 7 {
        0 => format!("'empty'::{sql}"),
        1 => format!("{sql}(NULL, {a}, '{bounds}')"),
        2 => format!("{sql}({a}, NULL, '{bounds}')"),
        3 => format!("{sql}(NULL, NULL)"),
        _ => format!("{sql}(least({a}, {b}), greatest({a}, {b}), '{bounds}')"),
    }
}

/// `[0:1][1:3]` as lower bounds and lengths.
fn dimensions(dims: &str) -> Vec<(i64, usize)> {
    let dimension = |dimension: &str| {
        let (lower, upper) = dimension.split_once(':').unwrap();
        let (lower, upper): (i64, i64) = (lower.parse().unwrap(), upper.parse().unwrap());
        (lower, usize::try_from(upper - lower + 1).unwrap())
    };
    dims.trim_matches(['[', ']']).split("][").map(dimension).collect()
}

fn nest(
    element: &Kind,
    flat: &mut std::slice::Iter<'_, Exact>,
    lengths: &[usize],
    pointer: &str,
    bounds: &mut BTreeMap<String, Vec<i64>>,
) -> Exact {
    let [length, inner @ ..] = lengths else {
        return element.shaped(flat.next().unwrap().clone(), pointer, bounds);
    };
    let parts = (0..*length).map(|at| nest(element, flat, inner, &format!("{pointer}/{at}"), bounds));
    Exact::Array(parts.collect())
}
