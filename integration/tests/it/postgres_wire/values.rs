//! Values as the server prints them in the stream, as JSON.

use forebay_postgres::decode::row::{Columns, Notes};
use forebay_postgres::decode::types::TypeCatalog;
use serde_json::Value;

use super::*;

/// Type, literal, and the JSON that comes of it.
const VALUES: &[(&str, &str, &str)] = &[
    ("bool", "'t'", "true"),
    ("int2", "-32768", "-32768"),
    ("int4", "2147483647", "2147483647"),
    ("int8", "-9223372036854775808", "-9223372036854775808"),
    ("oid", "4294967295", "\"4294967295\""),
    ("float4", "'1.1'", "1.1"),
    ("float4", "'-Infinity'", "\"-Infinity\""),
    ("float8", "'0.1'::float8 + 0.2", "0.30000000000000004"),
    ("float8", "1e300", "1e+300"),
    ("float8", "'NaN'", "\"NaN\""),
    (
        "numeric",
        "'123456789012345678901234567890.12345678901234567890'",
        "123456789012345678901234567890.12345678901234567890",
    ),
    ("numeric(10,2)", "1", "1.00"),
    ("numeric", "'NaN'", "\"NaN\""),
    ("numeric", "'-1e-20'", "-0.00000000000000000001"),
    ("text", r#"E'a"\\\t\x01é😀'"#, r#""a\"\\\t\u0001é😀""#),
    ("varchar(5)", "'abc'", "\"abc\""),
    ("char(5)", "'abc'", "\"abc  \""),
    ("name", "'n'", "\"n\""),
    ("\"char\"", "'c'", "\"c\""),
    ("xml", "'<a>1</a>'", "\"<a>1</a>\""),
    ("json", r#"E'{"b" :\n 1.10, "a": 1e400}'"#, r#"{"b" :  1.10, "a": 1e400}"#),
    ("jsonb", r#"'{"b": 1.10, "a": [null, "x\n"]}'"#, r#"{"a": [null, "x\n"], "b": 1.10}"#),
    ("bytea", r"'\x00ff10'", "\"AP8Q\""),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\""),
    ("date", "'2026-11-22'", "\"2026-11-22\""),
    ("date", "'0044-03-15 BC'", "\"-000043-03-15\""),
    ("date", "'5874897-12-31'", "\"+5874897-12-31\""),
    ("date", "'infinity'", "\"infinity\""),
    ("timestamp", "'2026-11-22 18:34:00.123456'", "\"2026-11-22T18:34:00.123456\""),
    ("timestamp", "'-infinity'", "\"-infinity\""),
    ("timestamptz", "'2026-11-22 18:34:00.5+02'", "\"2026-11-22T16:34:00.5Z\""),
    ("timestamptz", "'4713-01-01 00:00:00+00 BC'", "\"-004712-01-01T00:00:00Z\""),
    ("timestamptz", "'294276-12-31 23:59:59.999999+00'", "\"+294276-12-31T23:59:59.999999Z\""),
    ("time", "'24:00:00'", "\"24:00:00\""),
    ("timetz", "'12:34:56.7+05:30'", "\"12:34:56.7+05:30\""),
    ("interval", "'1 year -2 mons 3 days 04:05:06.789'", "\"P10M3DT4H5M6.789S\""),
    ("money", "'-1234.5'", "\"-$1,234.50\""),
    ("inet", "'192.168.0.1/24'", "\"192.168.0.1/24\""),
    ("cidr", "'10.0.0.0/8'", "\"10.0.0.0/8\""),
    ("macaddr", "'08:00:2b:01:02:03'", "\"08:00:2b:01:02:03\""),
    ("bit(3)", "B'101'", "\"101\""),
    ("varbit", "B'10'", "\"10\""),
    ("pg_lsn", "'16/B374D848'", "\"16/B374D848\""),
    ("xid8", "'42'::xid8", "\"42\""),
    ("regclass", "'pg_class'", "\"pg_class\""),
    ("tsvector", "'a:1 b'", r#""'a':1 'b'""#),
    ("int2vector", "'1 2'", "[1,2]"),
    ("oidvector", "'1 2'", "[\"1\",\"2\"]"),
    ("int4[]", "'{1,NULL,3}'", "[1,null,3]"),
    ("int4[]", "'{{1,2},{3,4}}'", "[[1,2],[3,4]]"),
    ("int4[]", "'[0:1]={5,6}'", "[5,6]"),
    ("int4[]", "'{}'", "[]"),
    (
        "text[]",
        r#"array['a"b\', 'NULL', null, '', 'c,d', '{e}']"#,
        r#"["a\"b\\","NULL",null,"","c,d","{e}"]"#,
    ),
    ("bytea[]", r"array['\x00ff'::bytea]", "[\"AP8=\"]"),
    ("json[]", r#"array['{"a": "b\"c"}'::json]"#, r#"[{"a": "b\"c"}]"#),
    (
        "timestamptz[]",
        "array['2026-11-22 18:34:00+00'::timestamptz, 'infinity']",
        "[\"2026-11-22T18:34:00Z\",\"infinity\"]",
    ),
    ("bool[]", "'{t,f}'", "[true,false]"),
    ("float8[]", "'{1.5,NaN}'", "[1.5,\"NaN\"]"),
    ("box[]", "array[box '(1,1),(0,0)', box '(2,2),(1,1)']", "[\"(1,1),(0,0)\",\"(2,2),(1,1)\"]"),
    ("mood", "'so so'", "\"so so\""),
    ("mood[]", "array['sad', 'so so']::mood[]", "[\"sad\",\"so so\"]"),
    ("positive", "7", "7"),
    ("small", "3", "3"),
    ("small[]", "array[1, 2]::small[]", "[1,2]"),
    ("citext", "'CaSe'", "\"CaSe\""),
    ("point", "'(1,2)'", "\"(1,2)\""),
    ("int4range", "'[1,5)'", r#"{"lower":1,"upper":5,"bounds":"[)","empty":false}"#),
    ("address", "row('a b', 7)", r#"{"street":"a b","number":7}"#),
    ("address[]", "array[row('a', 7)]::address[]", r#"[{"street":"a","number":7}]"#),
    ("hstore", "'a=>1'", r#"{"a":"1"}"#),
];

#[tokio::test]
async fn each_type_is_written_as_documented_by_every_version() {
    for major in [13, 15, 18] {
        let database = Postgres::shared(major).await.database("types").await;
        let columns: Vec<String> =
            VALUES.iter().enumerate().map(|(at, (kind, ..))| format!("c{at} {kind}")).collect();
        let literals: Vec<&str> = VALUES.iter().map(|(_, literal, _)| *literal).collect();
        database
            .execute(&format!(
                "create extension citext; create extension hstore;
                 create type mood as enum ('sad', 'so so');
                 create domain positive as int4 check (value > 0);
                 create domain small as positive check (value < 10);
                 create type address as (street text, number int);
                 create table everything ({})",
                columns.join(", ")
            ))
            .await;
        let (reader, writer) = stream(&database, database.url()).await;
        database.execute(&format!("insert into everything values ({})", literals.join(", "))).await;
        database.execute("insert into everything default values").await;

        let (rows, notes) = read_rows(&database, reader, 2).await;
        for (at, (kind, literal, expected)) in VALUES.iter().enumerate() {
            let written = format!("\"c{at}\":{expected}");
            assert!(rows[0].contains(&written), "{major}: {kind} {literal} is not {written} in {}", rows[0]);
        }
        let nulls: Value = serde_json::from_str(&rows[1]).unwrap();
        assert!(nulls.as_object().unwrap().values().all(Value::is_null), "{nulls}");
        let bounds = VALUES.iter().position(|(_, literal, _)| literal.starts_with("'[0:1]")).unwrap();
        assert_eq!(notes, format!("\"c{bounds}\":[0]"));
        writer.abort();
    }
}

/// Reads that many single-row transactions of one table; returns the rows as JSON and the first one's lower bounds.
async fn read_rows(database: &Database, mut reader: ReadHalf, count: usize) -> (Vec<String>, String) {
    let mut types = TypeCatalog::default();
    let oids = database.query("select distinct atttypid from pg_attribute where attnum > 0", &[]).await;
    let oids: Vec<u32> = types.missing(oids.iter().map(|row| row.get::<_, u32>(0)));
    types.load(&database.connect().await, &oids).await.unwrap();
    assert_eq!(types.missing(oids), [0u32; 0]);
    spawn_blocking(move || {
        let (mut columns, mut rows, mut bounds) = (Columns::default(), Vec::new(), String::new());
        for _ in 0..count {
            one_transaction(&mut reader, |message| match message {
                Message::Relation(relation) => columns = Columns::new(&relation, &types),
                Message::Insert(insert) => {
                    let (mut out, mut notes) = (Vec::new(), Notes::default());
                    columns.write_row(&insert.new, None, &mut out, &mut notes).unwrap();
                    serde_json::from_slice::<&serde_json::value::RawValue>(&out).unwrap();
                    rows.push(String::from_utf8(out).unwrap());
                    if rows.len() == 1 {
                        bounds = String::from_utf8(notes.lower_bounds).unwrap();
                    }
                }
                _ => {}
            });
        }
        (rows, bounds)
    })
    .await
    .unwrap()
}
