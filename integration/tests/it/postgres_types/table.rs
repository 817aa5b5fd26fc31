//! A table with a column of every kind of type, and the types that it needs.

use super::kind::Kind;
use super::leaves::{
    BOOL, BOX, BYTEA, CUBE, DATE, HSTORE, INT2VECTOR, INT4, INT8, JSONB, Leaf, MOOD, NUMERIC,
    NUMERIC_BY_THOUSANDS, OIDVECTOR, PLAIN, TEXT, TIMESTAMP, TIMESTAMPTZ, UUID, VARCHAR_20,
};

/// What the table's types and the second way need. `\"a/b\"` and the like are names that JSON pointers escape.
pub(super) const TYPES: &str = r#"
    CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION cube;
    CREATE TYPE mood AS ENUM ('sad', '', 'so, "so" \ é');
    CREATE DOMAIN small AS int CHECK (VALUE < 2147483648);
    CREATE DOMAIN smaller AS small;
    CREATE DOMAIN short AS varchar(20);
    CREATE DOMAIN "Shorter" AS short;
    CREATE DOMAIN tags AS text[];
    CREATE DOMAIN feeling AS mood;
    CREATE DOMAIN span AS int4range;
    CREATE TYPE pair AS (a int, "b ""c" text, gone int, "a/b" int[], t timestamptz);
    ALTER TYPE pair DROP ATTRIBUTE gone;
    CREATE TYPE nest AS (one pair, many pair[], "~" tags, f feeling, h hstore, j jsonb, raw bytea, span daterange);
    CREATE DOMAIN whole AS nest;
    CREATE TYPE single AS (lone text);
    CREATE TYPE textrange AS RANGE (subtype = text);
    CREATE TABLE row_type (id int, body text, "order" numeric);
    CREATE SCHEMA second;
    CREATE FUNCTION second.year(y int) RETURNS text LANGUAGE sql AS $$
        SELECT CASE WHEN y BETWEEN 1 AND 9999 THEN lpad(y::text, 4, '0') WHEN y = -1 THEN '0000'
            WHEN y < 0 THEN '-' || lpad((-y - 1)::text, 6, '0') ELSE '+' || lpad(y::text, 6, '0') END $$;
    CREATE FUNCTION second.iso(t timestamp) RETURNS text LANGUAGE sql AS $$
        SELECT CASE WHEN NOT isfinite(t) THEN t::text ELSE second.year(extract(year FROM t)::int)
            || to_char(t, '-MM-DD"T"HH24:MI:SS') || coalesce('.' || nullif(rtrim(to_char(t, 'US'), '0'), ''), '') END $$;
    CREATE FUNCTION second.iso(t timestamptz) RETURNS text LANGUAGE sql AS $$
        SELECT CASE WHEN NOT isfinite(t) THEN t::text ELSE second.iso(t AT TIME ZONE 'UTC') || 'Z' END $$;
    CREATE FUNCTION second.iso(d date) RETURNS text LANGUAGE sql AS $$
        SELECT CASE WHEN isfinite(d) AND d > '294276-12-31' THEN '+' || d::text ELSE split_part(second.iso(d::timestamp), 'T', 1) END $$;
    CREATE FUNCTION second.iso(i interval) RETURNS text LANGUAGE sql SET intervalstyle = iso_8601 AS $$ SELECT i::text $$;
"#;

fn leaf(leaf: &'static Leaf) -> Kind {
    Kind::Leaf(leaf)
}

fn domain(name: &'static str, base: Kind) -> Kind {
    Kind::Domain { name, base: Box::new(base) }
}

fn range(name: &'static str, of: Kind, discrete: bool) -> Kind {
    Kind::Range { name, of: Box::new(of), discrete }
}

fn multirange(name: &'static str, of: Kind) -> Kind {
    Kind::Multirange { name, of: Box::new(of) }
}

fn tags() -> Kind {
    domain("tags", Kind::array(leaf(&TEXT)))
}

fn feeling() -> Kind {
    domain("feeling", leaf(&MOOD))
}

fn pair() -> Kind {
    let attributes = vec![
        ("a", leaf(&INT4)),
        ("b \"c", leaf(&TEXT)),
        ("a/b", Kind::array(leaf(&INT4))),
        ("t", leaf(&TIMESTAMPTZ)),
    ];
    Kind::Composite { name: "pair", attributes }
}

fn nest() -> Kind {
    let attributes = vec![
        ("one", pair()),
        ("many", Kind::array(pair())),
        ("~", tags()),
        ("f", feeling()),
        ("h", leaf(&HSTORE)),
        ("j", leaf(&JSONB)),
        ("raw", leaf(&BYTEA)),
        ("span", dates()),
    ];
    Kind::Composite { name: "nest", attributes }
}

fn integers() -> Kind {
    range("int4range", leaf(&INT4), true)
}

fn dates() -> Kind {
    range("daterange", leaf(&DATE), true)
}

fn words() -> Kind {
    range("textrange", leaf(&TEXT), false)
}

/// A column of each type that a server of this major version has.
pub(super) fn columns(major: u16) -> Vec<Kind> {
    let alone = [
        &BOOL,
        &INT4,
        &INT8,
        &NUMERIC,
        &TEXT,
        &DATE,
        &TIMESTAMP,
        &TIMESTAMPTZ,
        &UUID,
        &BYTEA,
        &JSONB,
        &HSTORE,
        &VARCHAR_20,
        &BOX,
        &MOOD,
        &CUBE,
        &INT2VECTOR,
        &OIDVECTOR,
    ];
    let in_arrays = [
        &BOOL,
        &INT4,
        &INT8,
        &NUMERIC,
        &TEXT,
        &DATE,
        &TIMESTAMP,
        &TIMESTAMPTZ,
        &UUID,
        &BYTEA,
        &JSONB,
        &HSTORE,
        &VARCHAR_20,
        &BOX,
        &MOOD,
        &CUBE,
    ];
    let row_type = vec![("id", leaf(&INT4)), ("body", leaf(&TEXT)), ("order", leaf(&NUMERIC))];
    let mut columns: Vec<Kind> = PLAIN.iter().chain(alone).map(leaf).collect();
    columns.extend(in_arrays.into_iter().map(|of| Kind::array(leaf(of))));
    columns.extend([
        domain("smaller", domain("small", leaf(&INT4))),
        Kind::array(domain("smaller", domain("small", leaf(&INT4)))),
        domain("\"Shorter\"", domain("short", leaf(&VARCHAR_20))),
        tags(),
        Kind::array(tags()),
        feeling(),
        domain("span", integers()),
        pair(),
        Kind::array(pair()),
        nest(),
        Kind::array(nest()),
        domain("whole", nest()),
        Kind::Composite { name: "single", attributes: vec![("lone", leaf(&TEXT))] },
        Kind::Composite { name: "row_type", attributes: row_type },
        integers(),
        range("int8range", leaf(&INT8), true),
        range("numrange", leaf(&NUMERIC), false),
        range("tsrange", leaf(&TIMESTAMP), false),
        range("tstzrange", leaf(&TIMESTAMPTZ), false),
        dates(),
        words(),
        Kind::array(words()),
    ]);
    if major >= 14 {
        columns.extend([
            multirange("int4multirange", integers()),
            multirange("datemultirange", dates()),
            multirange("tstzmultirange", range("tstzrange", leaf(&TIMESTAMPTZ), false)),
            multirange("textmultirange", words()),
            Kind::array(multirange("textmultirange", words())),
        ]);
    }
    if major >= 15 {
        columns.push(leaf(&NUMERIC_BY_THOUSANDS));
    }
    columns
}
