//! `format: debezium`: the value that Debezium's JSON converter writes without schemas, for consumers that read it.
//!
//! Field names and their order follow Debezium's PostgreSQL connector ("Data change events" in its documentation).
//! What has no counterpart there is said plainly: a `schema` event has op `schema`, a tracker's event op `c`.
//! Columns that the database did not send are absent and named in `source.unchanged`; Debezium's placeholder string
//! is never written, because no value can be told from it.

use forebay_api::{Event, Op, json};

use super::{member, write_or_null};

pub(super) fn write(event: Event<'_>, out: &mut Vec<u8>) {
    let row = event.row();
    out.extend_from_slice(b"{\"before\":");
    // Debezium gives at least the key of a row that is gone.
    let before = if event.before().is_empty() && row.op == Op::Delete { event.key() } else { event.before() };
    write_or_null(before, out);
    out.extend_from_slice(b",\"after\":");
    write_or_null(if row.op == Op::Message { &[] } else { event.payload() }, out);
    if row.op == Op::Message {
        out.extend_from_slice(b",\"message\":");
        write_or_null(event.payload(), out);
    }
    out.extend_from_slice(b",\"source\":");
    write_source(event, out);
    out.extend_from_slice(b",\"op\":\"");
    out.extend_from_slice(match row.op {
        Op::Snapshot => b"r",
        Op::Insert | Op::Track => b"c",
        Op::Update => b"u",
        Op::Delete => b"d",
        Op::Truncate => b"t",
        Op::Message => b"m",
        other => other.as_str().as_bytes(),
    });
    out.extend_from_slice(b"\",\"ts_ms\":");
    write_times(event.received(), out);
    out.extend_from_slice(b",\"transaction\":null}");
}

fn write_source(event: Event<'_>, out: &mut Vec<u8>) {
    let (row, subject) = (event.row(), event.subject());
    let mut number = itoa::Buffer::new();
    out.extend_from_slice(b"{\"version\":\"");
    out.extend_from_slice(concat!("forebay-", env!("CARGO_PKG_VERSION")).as_bytes());
    out.extend_from_slice(b"\",\"connector\":");
    let kind = member(subject.source.as_bytes(), b"type").unwrap_or(b"\"unknown\"");
    out.extend_from_slice(if kind == b"\"postgres\"" { b"\"postgresql\"" } else { kind });
    out.extend_from_slice(b",\"name\":");
    json::write_string(&event.stream().source, out);
    out.extend_from_slice(b",\"ts_ms\":");
    write_times(row.time, out);
    out.extend_from_slice(if row.op == Op::Snapshot {
        b",\"snapshot\":\"true\""
    } else {
        b",\"snapshot\":\"false\""
    });
    for (name, value) in
        [(",\"db\":", &subject.database), (",\"schema\":", &subject.schema), (",\"table\":", &subject.table)]
    {
        out.extend_from_slice(name.as_bytes());
        match value {
            Some(value) => json::write_string(value, out),
            None => out.extend_from_slice(b"null"),
        }
    }
    if let Some(lsn) = member(event.extra(), b"lsn").and_then(lsn) {
        out.extend_from_slice(b",\"sequence\":\"[\\\"");
        out.extend_from_slice(number.format(row.mark.major.1).as_bytes());
        out.extend_from_slice(b"\\\",\\\"");
        out.extend_from_slice(number.format(lsn).as_bytes());
        out.extend_from_slice(b"\\\"]\",\"txId\":");
        out.extend_from_slice(number.format(row.xid).as_bytes());
        out.extend_from_slice(b",\"lsn\":");
        out.extend_from_slice(number.format(lsn).as_bytes());
        out.extend_from_slice(b",\"xmin\":null");
    }
    if !event.unchanged().is_empty() {
        out.extend_from_slice(b",\"unchanged\":");
        out.extend_from_slice(event.unchanged());
    }
    out.push(b'}');
}

/// `ts_ms`'s value, then `ts_us` and `ts_ns` with theirs.
fn write_times(micros: i64, out: &mut Vec<u8>) {
    let mut number = itoa::Buffer::new();
    out.extend_from_slice(number.format(micros.div_euclid(1000)).as_bytes());
    for (name, value) in [(",\"ts_us\":", i128::from(micros)), (",\"ts_ns\":", i128::from(micros) * 1000)] {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(number.format(value).as_bytes());
    }
}

/// `"0/16B3748"`, quotes included, as a number.
fn lsn(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.trim_matches('"');
    let (high, low) = text.split_once('/')?;
    Some((u64::from_str_radix(high, 16).ok()? << 32) | u64::from_str_radix(low, 16).ok()?)
}
