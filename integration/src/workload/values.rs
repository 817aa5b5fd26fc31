//! Random values, made in the very form in which PostgreSQL prints them, so that text can be compared with text.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use super::tables::{Column, Kind, Row, Table, Value};

/// Longer than what PostgreSQL keeps in line, so that it is stored out of line as it is.
const BODY_BYTES: std::ops::Range<usize> = 2_100..3_000;

const LETTERS: [char; 16] =
    ['a', 'b', 'Z', '0', ' ', '\'', '"', '\\', '\n', '\t', '\u{1}', '/', 'é', '☃', '🜲', '鍵'];

/// A row of that table with that key and version and anything in the other columns.
pub(super) fn row(rng: &mut StdRng, table: &Table, key: &[std::sync::Arc<str>], version: i64) -> Row {
    let mut row: Vec<Value> = key.iter().cloned().map(Some).collect();
    row.push(Some(version.to_string().into()));
    row.extend(table.columns[row.len()..].iter().map(|column| value(rng, column)));
    row.into()
}

/// Any value of that column.
pub(super) fn value(rng: &mut StdRng, column: &Column) -> Value {
    if rng.random_ratio(1, 10) {
        return None;
    }
    let text = match (column.kind, column.sql) {
        (Kind::Number, "numeric") => numeric(rng),
        (Kind::Number, _) => rng.random::<i32>().to_string(),
        (Kind::Bool, _) => rng.random::<bool>().to_string(),
        (Kind::Json, _) => json(rng),
        (Kind::Text, _) if column.toast && rng.random_ratio(4, 5) => body(rng),
        (Kind::Text, _) => text(rng),
    };
    Some(text.into())
}

/// Digits beyond what a float keeps, and trailing zeros.
fn numeric(rng: &mut StdRng) -> String {
    let sign = if rng.random() { "-" } else { "" };
    let whole: u128 =
        if rng.random_ratio(1, 4) { rng.random::<u64>().into() } else { rng.random_range(1..1000) };
    format!("{sign}{}.{:04}0", whole + 1, rng.random_range(0..10_000))
}

fn text(rng: &mut StdRng) -> String {
    let length = rng.random_range(0..24);
    (0..length).map(|_| *LETTERS.choose(rng).expect("there are letters")).collect()
}

fn body(rng: &mut StdRng) -> String {
    let length = rng.random_range(BODY_BYTES);
    let mut bytes = vec![0; length];
    rng.fill_bytes(&mut bytes);
    bytes.iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}

/// An object as `jsonb` prints it: short keys first, a blank behind each colon and comma.
fn json(rng: &mut StdRng) -> String {
    let text = serde_json::to_string(&text(rng)).expect("a string is always JSON");
    format!(
        "{{\"n\": {}, \"t\": {text}, \"list\": [1.50, null, {}]}}",
        rng.random::<u64>(),
        rng.random::<bool>()
    )
}
