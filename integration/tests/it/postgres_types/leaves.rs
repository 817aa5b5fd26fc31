//! Types that are made of nothing else: values that are telling, random values, and the second way to their JSON.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

/// A type that is made of nothing else.
pub(super) struct Leaf {
    /// What SQL calls it.
    pub sql: &'static str,
    /// Its JSON by the server's own functions: SQL of type `json`, with `$` for the value.
    pub second: &'static str,
    /// Values to be tried each.
    pub literals: &'static [&'static str],
    /// Values that servers from this major version on have.
    pub later: &'static [(u16, &'static str)],
    /// Any value.
    pub random: Option<fn(&mut StdRng) -> String>,
}

impl Leaf {
    /// A literal of the type, without quotes: a telling one in its turn, or any.
    pub(super) fn literal(&self, major: u16, turn: Option<usize>, rng: &mut StdRng) -> String {
        let later = self.later.iter().filter(|(since, _)| major >= *since).map(|(_, literal)| *literal);
        let literals: Vec<&str> = self.literals.iter().copied().chain(later).collect();
        match (turn, self.random) {
            (Some(turn), _) => literals[turn % literals.len()].to_owned(),
            (None, Some(random)) => random(rng),
            (None, None) => (*literals.choose(rng).unwrap()).to_owned(),
        }
    }
}

/// What `to_json` writes: a number, a boolean, or what the type prints in a string.
const AS_JSON: &str = "to_json($)";
const AS_TEXT: &str = "to_json(($)::text)";
/// Functions that a database of these tests has.
const ISO: &str = "to_json(second.iso($))";

/// A leaf whose telling values are all that it needs.
const fn told(sql: &'static str, second: &'static str, literals: &'static [&'static str]) -> Leaf {
    Leaf { sql, second, literals, later: &[], random: None }
}

pub(super) static BOOL: Leaf = told("boolean", AS_JSON, &["t", "f"]);
pub(super) static INT4: Leaf = Leaf {
    random: Some(|rng| rng.random::<i32>().to_string()),
    ..told("integer", AS_JSON, &["0", "-1", "2147483647", "-2147483648"])
};
pub(super) static INT8: Leaf = Leaf {
    random: Some(|rng| rng.random::<i64>().to_string()),
    ..told("bigint", AS_JSON, &["9223372036854775807", "-9223372036854775808", "9007199254740993"])
};
pub(super) static NUMERIC: Leaf = Leaf {
    later: &[(14, "Infinity"), (14, "-Infinity")],
    random: Some(numeric),
    ..told(
        "numeric",
        AS_JSON,
        &["NaN", "0", "-0.00", "1.10", "1e131071", "-1e-16383", "12345678901234567890.12345678901234567890"],
    )
};
pub(super) static TEXT: Leaf = Leaf {
    random: Some(text),
    ..told(
        "text",
        AS_JSON,
        &[
            "",
            "NULL",
            "null",
            " ",
            "\"",
            "\\",
            "a\"b\\c",
            "{a,b}",
            "(1,2)",
            "é€𝄞",
            "a\nb\tc\u{1}",
            "'",
            "[x]",
        ],
    )
};
pub(super) static DATE: Leaf = told(
    "date",
    ISO,
    &[
        "2026-11-22",
        "infinity",
        "-infinity",
        "0001-01-01",
        "0001-12-31 BC",
        "4714-11-24 BC",
        "9999-12-31",
        "10000-01-01",
        "294276-12-31",
        "5874897-12-31",
        "2024-02-29",
    ],
);
pub(super) static TIMESTAMP: Leaf = told(
    "timestamp",
    ISO,
    &[
        "2026-11-22 18:34:00.123456",
        "infinity",
        "-infinity",
        "4714-11-24 00:00:00 BC",
        "0001-12-31 23:59:59.9 BC",
        "294276-12-31 23:59:59.999999",
        "10000-01-01 00:00:00",
        "2026-11-22 00:00:00",
    ],
);
pub(super) static TIMESTAMPTZ: Leaf = told(
    "timestamptz",
    ISO,
    &[
        "2026-11-22 18:34:00.12+05:30",
        "infinity",
        "-infinity",
        "4714-11-24 00:00:00+00 BC",
        "0044-03-15 12:00:00+00 BC",
        "294276-12-31 23:59:59.999999+00",
        "9999-12-31 23:59:59-12",
    ],
);
pub(super) static UUID: Leaf = Leaf {
    random: Some(|rng| format!("{:032x}", rng.random::<u128>())),
    ..told("uuid", AS_JSON, &["00000000-0000-0000-0000-000000000000", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"])
};
pub(super) static BYTEA: Leaf = Leaf {
    random: Some(|rng| {
        let length = rng.random_range(0..40);
        let hex: String = (0..length).map(|_| format!("{:02x}", rng.random::<u8>())).collect();
        format!("\\x{hex}")
    }),
    ..told(
        "bytea",
        "to_json(translate(encode($, 'base64'), E'\\n', ''))",
        &["", "\\x00", "\\x00ff", "\\xdeadbe"],
    )
};
pub(super) static JSONB: Leaf = told(
    "jsonb",
    "($)::json",
    &[
        "null",
        "1.0000000000000000001",
        "\"\"",
        "[]",
        "{\"n\": 1.10, \"s\": \"a\\\"\\\\b\", \"l\": [1, null, {}]}",
        "123456789012345678901234567890",
        "\"é𝄞\"",
    ],
);
pub(super) static HSTORE: Leaf = Leaf {
    random: Some(hstore),
    ..told(
        "hstore",
        "hstore_to_json($)",
        &["", "a=>1", "\"\"=>\"\", b=>NULL", "\"q\\\"\\\\,=>\"=>\"'x'=>\\\\\", \"n\"=>\"NULL\""],
    )
};
pub(super) static VARCHAR_20: Leaf = Leaf {
    random: Some(|rng| text(rng).chars().take(20).collect()),
    ..told("varchar(20)", AS_JSON, &["", "ééééééééééééééééééé€"])
};
pub(super) static BOX: Leaf = told("box", AS_JSON, &["(1,1),(0,0)", "(2.5,-1),(1e-300,3)"]);
pub(super) static MOOD: Leaf = told("mood", AS_JSON, &["sad", "", "so, \"so\" \\ é"]);

/// Types that need no further test than in a column of their own.
pub(super) static PLAIN: [Leaf; 47] = [
    told("smallint", AS_JSON, &["0", "32767", "-32768"]),
    Leaf {
        random: Some(|rng| format!("{}.5", rng.random_range(-9_999_999..9_999_999))),
        ..told("numeric(10,2)", AS_JSON, &["NaN", "99999999.99", "0"])
    },
    Leaf {
        random: Some(|rng| f32::from_bits(rng.random()).to_string()),
        ..told("real", AS_JSON, &["NaN", "Infinity", "-Infinity", "-0", "3.4028235e38", "1e-45", "0.1"])
    },
    Leaf {
        random: Some(|rng| f64::from_bits(rng.random()).to_string()),
        ..told(
            "double precision",
            AS_JSON,
            &[
                "NaN",
                "Infinity",
                "-Infinity",
                "-0",
                "1.7976931348623157e308",
                "5e-324",
                "0.1",
                "1e20",
                "0.30000000000000004",
            ],
        )
    },
    told("char(5)", AS_JSON, &["", "a", "é  €𝄞", "12345"]),
    told("name", AS_JSON, &["", "a\"b"]),
    told("\"char\"", AS_JSON, &["", "x", "\"", "\\"]),
    told("citext", AS_JSON, &["", "MiXed"]),
    told("ltree", AS_JSON, &["", "Top.Science.Astronomy"]),
    told("lquery", AS_JSON, &["Top.*{1,2}.Sc@"]),
    told("ltxtquery", AS_JSON, &["Europe & Russia*@ & !Transport"]),
    told("xml", AS_JSON, &["<a b=\"1\">é\n</a>", "text"]),
    told(
        "json",
        "$",
        &["null", " {\"b\" : 1.10,\n\t\"a\":[ 1e400 ,-0 ], \"b\":2 }", "\"\\u00e9\\\\\"", "[]"],
    ),
    told("time", AS_JSON, &["24:00:00", "00:00:00", "23:59:59.999999", "12:30"]),
    told("time(2)", AS_JSON, &["12:30:00.987"]),
    told("timetz", AS_JSON, &["24:00:00-15:59:59", "00:00:00+15:59", "12:00:00.5+05:30"]),
    told("timetz(0)", AS_JSON, &["12:00:00.5+00"]),
    told("timestamp(3)", ISO, &["2026-11-22 18:34:00.1239"]),
    told("timestamptz(0)", ISO, &["2026-11-22 18:34:00.6+02"]),
    Leaf {
        later: &[(17, "infinity"), (17, "-infinity")],
        random: Some(interval),
        ..told(
            "interval",
            ISO,
            &[
                "0",
                "1 year 2 mons 3 days 04:05:06.789",
                "-1 day +02:00",
                "-00:00:00.5",
                "178000000 years",
                "1 mon -1 sec",
                "-178000000 years",
            ],
        )
    },
    told("interval day to second(2)", ISO, &["3 days 04:05:06.789"]),
    told("interval year to month", ISO, &["14 mons"]),
    told("inet", AS_JSON, &["127.0.0.1", "10.0.0.0/8", "::1", "fe80::1/64"]),
    told("cidr", AS_JSON, &["10.0.0.0/8", "2001:db8::/32"]),
    told("macaddr", AS_JSON, &["08:00:2b:01:02:03"]),
    told("macaddr8", AS_JSON, &["08:00:2b:01:02:03:04:05"]),
    told("money", AS_JSON, &["0", "-1234567.89", "92233720368547758.07"]),
    told("bit(3)", AS_JSON, &["101", "000"]),
    told("bit varying(8)", AS_JSON, &["", "10110"]),
    told("bit varying", AS_JSON, &["1"]),
    told("oid", AS_JSON, &["0", "4294967295"]),
    told("xid", AS_JSON, &["4294967295"]),
    told("xid8", AS_JSON, &["18446744073709551615"]),
    told("tid", AS_JSON, &["(4294967295,65535)"]),
    told("pg_lsn", AS_JSON, &["0/0", "FFFFFFFF/FFFFFFFF"]),
    told("regclass", AS_JSON, &["pg_class", "information_schema.tables", "0"]),
    told("regtype", AS_JSON, &["integer", "timestamp with time zone[]"]),
    told("regprocedure", AS_JSON, &["sum(integer)"]),
    told("regrole", AS_JSON, &["postgres"]),
    told("point", AS_JSON, &["(1,2)", "(NaN,-Infinity)", "(1e-300,0.1)"]),
    told("line", AS_JSON, &["{1,-1,0}"]),
    told("path", AS_JSON, &["((0,0),(1,1),(2,0))", "[(0,0),(1,1)]"]),
    told("polygon", AS_JSON, &["((0,0),(1,1),(2,0))"]),
    told("circle", AS_JSON, &["<(1,2),3>"]),
    told("tsvector", AS_JSON, &["", "'a':1A 'fat''s':2,4C"]),
    told("tsquery", AS_JSON, &["fat & (rat | !cat:AB*)", "'a b' <-> c"]),
    told("jsonpath", AS_JSON, &["$.a[*] ? (@.b > 1 && @.c == \"x\")"]),
];

/// A type that JSON does not say all of: the only one here without code for it.
pub(super) static CUBE: Leaf = told("cube", AS_TEXT, &["(1,2),(3,4)", "(0)"]);
/// Arrays of the catalogs, which print like no others and have no null.
pub(super) static INT2VECTOR: Leaf =
    told("int2vector", "coalesce((SELECT json_agg(e) FROM unnest(($)::int2[]) AS e), '[]')", &["1 2 -3", ""]);
pub(super) static OIDVECTOR: Leaf =
    told("oidvector", "(SELECT json_agg(e::text) FROM unnest(($)::oid[]) AS e)", &["1 4294967295"]);
/// Only from PostgreSQL 15 on.
pub(super) static NUMERIC_BY_THOUSANDS: Leaf = told("numeric(2,-3)", AS_JSON, &["12345", "-99000", "0"]);

fn numeric(rng: &mut StdRng) -> String {
    let digits = |rng: &mut StdRng, most: usize| -> String {
        let count = rng.random_range(1..most);
        (0..count).map(|_| char::from(b'0' + rng.random_range(0..10u8))).collect()
    };
    let sign = if rng.random() { "-" } else { "" };
    format!("{sign}{}.{}", digits(rng, 60), digits(rng, 60))
}

fn text(rng: &mut StdRng) -> String {
    const PIECES: [&str; 18] =
        ["a", "Z", " ", "\"", "\\", "'", ",", "{", "}", "(", ")", "[", "]", "\n", "é", "𝄞", "NULL", "=>"];
    let count = rng.random_range(0..12);
    (0..count).map(|_| *PIECES.choose(rng).unwrap()).collect()
}

fn hstore(rng: &mut StdRng) -> String {
    let quoted = |text: String| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let count = rng.random_range(0..5);
    let pairs = (0..count).map(|at| {
        let value = if rng.random_ratio(1, 4) { "NULL".to_owned() } else { quoted(text(rng)) };
        format!("{}=>{value}", quoted(format!("{at}{}", text(rng))))
    });
    pairs.collect::<Vec<_>>().join(", ")
}

fn interval(rng: &mut StdRng) -> String {
    let part = |rng: &mut dyn Rng, most: i32| rng.random_range(-most..=most);
    format!(
        "{} mons {} days {} hours {}.{:06} secs",
        part(rng, 9999),
        part(rng, 9999),
        part(rng, 99),
        part(rng, 99),
        rng.random_range(0..1_000_000)
    )
}
