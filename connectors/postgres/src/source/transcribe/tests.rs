//! Marks and parts of events, from messages as the server sends them.

use forebay_api::{Chunk, StreamId};
use globset::{Glob, GlobSetBuilder};
use serde_json::{Value, json};

use super::*;
use crate::decode::row::Columns;
use crate::decode::types::TypeCatalog;
use crate::protocol::message;
use crate::source::snapshot::window::Window;
use crate::wire::Switch;

const TABLE: u32 = 7;
const OTHER: u32 = 8;

fn relation(oid: u32, name: &str) -> Vec<u8> {
    let mut bytes = vec![b'R'];
    bytes.extend(oid.to_be_bytes());
    bytes.extend(format!("public\0{name}\0d\0\x02").bytes());
    for (key, column, oid) in [(1, "id", 23u32), (0, "body", 25)] {
        bytes.push(key);
        bytes.extend(format!("{column}\0").bytes());
        bytes.extend(oid.to_be_bytes());
        bytes.extend([0xff; 4]);
    }
    bytes
}

fn tuple(tag: u8, values: &[Option<&str>]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
    for value in values {
        match value {
            Some("UNCHANGED") => bytes.push(b'u'),
            Some(text) => {
                bytes.push(b't');
                bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                bytes.extend(text.bytes());
            }
            None => bytes.push(b'n'),
        }
    }
    bytes
}

fn dml(tag: u8, oid: u32, tuples: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(oid.to_be_bytes());
    tuples.iter().for_each(|tuple| bytes.extend(tuple));
    bytes
}

fn insert(id: &str) -> Vec<u8> {
    dml(b'I', TABLE, &[tuple(b'N', &[Some(id), Some("text")])])
}

fn begin(lsn: u64, xid: u32) -> Vec<u8> {
    let mut bytes = vec![b'B'];
    bytes.extend(lsn.to_be_bytes());
    bytes.extend(0i64.to_be_bytes());
    bytes.extend(xid.to_be_bytes());
    bytes
}

fn commit(lsn: u64, end: u64) -> Vec<u8> {
    let mut bytes = vec![b'C', 0];
    bytes.extend(lsn.to_be_bytes());
    bytes.extend(end.to_be_bytes());
    bytes.extend(0i64.to_be_bytes());
    bytes
}

fn logical(transactional: bool, lsn: u64, prefix: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![b'M', u8::from(transactional)];
    bytes.extend(lsn.to_be_bytes());
    bytes.extend(format!("{prefix}\0").bytes());
    bytes.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
    bytes.extend(content);
    bytes
}

struct Script(Transcriber);

impl Script {
    /// Knows the tables `t` (wanted) and `other` (not); any message but those of `secret`.
    fn new() -> Script {
        let mut globs = GlobSetBuilder::new();
        globs.add(Glob::new("outbox*").unwrap());
        let subject = |name: &str| {
            Arc::new(Subject::new(("v", name, "1-0-0"), (None, Some("public"), Some("t")), String::new()))
        };
        let timelines = Timelines::for_tests(2, vec![Switch { timeline: 1, at: Lsn(0x100) }]);
        let stream = StreamId { source: "s".into(), epoch: 1 };
        let messages = Shape::for_tests(subject("message"), Columns::default(), true);
        let mut transcriber =
            Transcriber::new(&stream, timelines, (globs.build().unwrap(), messages), Window::default());
        for (oid, name, wanted) in [(TABLE, "t", true), (OTHER, "other", false)] {
            let bytes = relation(oid, name);
            let Message::Relation(relation) = message(&bytes).unwrap() else { unreachable!() };
            let columns = Columns::new(&relation, &TypeCatalog::default());
            transcriber.learn(oid, Shape::for_tests(subject(name), columns, wanted));
        }
        Script(transcriber)
    }

    fn take(&mut self, at: u64, bytes: &[u8]) -> Result<Taken, Fault> {
        self.0.take(Lsn(at), &message(bytes).unwrap())
    }

    fn all(&mut self, messages: &[Vec<u8>]) -> Chunk {
        messages.iter().for_each(|bytes| assert_eq!(self.take(0x16B_3748, bytes).unwrap(), Taken::Whole));
        let stream = Arc::new(StreamId { source: "s".into(), epoch: 1 });
        self.0.draft.finish(&stream, 0, self.0.transaction.is_some())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn ordinals_count_what_filters_leave_out() {
    let other = dml(b'I', OTHER, &[tuple(b'N', &[Some("1"), None])]);
    let chunk = Script::new().all(&[
        begin(0x200, 9),
        insert("1"),
        other,
        insert("2"),
        logical(true, 0x1ff, HEARTBEAT, b""),
        logical(true, 0x1ff, "secret", b"x"),
        insert("3"),
        commit(0x200, 0x230),
    ]);
    let marks: Vec<(u64, u32)> = chunk.rows.iter().map(|row| (row.mark.major.1, row.mark.minor)).collect();
    assert_eq!(marks, [(0x200, 0), (0x200, 2), (0x200, 5)]);
}

#[test]
fn a_commit_keeps_its_timeline_in_the_mark() {
    let mut script = Script::new();
    let old = script.all(&[begin(0xff, 1), insert("1"), commit(0xff, 0x100)]);
    let new = script.all(&[begin(0x100, 2), insert("2"), commit(0x100, 0x130)]);
    assert_eq!((old.rows[0].mark.major.0, new.rows[0].mark.major.0), (1, 2));
}

#[test]
fn an_insert_has_a_key_a_payload_and_its_place() {
    let chunk = Script::new().all(&[begin(0x200, 754), insert("42"), commit(0x200, 0x230)]);
    let event = chunk.event(0);
    assert_eq!(text(event.key()), r#"{"id":42}"#);
    assert_eq!(text(event.payload()), r#"{"id":42,"body":"text"}"#);
    assert!(event.before().is_empty() && event.unchanged().is_empty());
    let extra: Value = serde_json::from_str(&format!("{{{}}}", text(event.extra()))).unwrap();
    let place = json!({"lsn": "0/16B3748", "commit_lsn": "0/200", "xid": 754, "ordinal": 0, "origin": null, "snapshot": false});
    assert_eq!(extra, place);
    assert_eq!(event.id(), "s:0000000000000001:2:0000000000000200:0");
}

#[test]
fn an_update_says_what_was_not_sent_and_what_the_key_was() {
    let unchanged = dml(b'U', TABLE, &[tuple(b'N', &[Some("1"), Some("UNCHANGED")])]);
    let key_change =
        dml(b'U', TABLE, &[tuple(b'K', &[Some("1"), None]), tuple(b'N', &[Some("2"), Some("b")])]);
    let full = dml(
        b'U',
        TABLE,
        &[tuple(b'O', &[Some("2"), Some("b")]), tuple(b'N', &[Some("2"), Some("UNCHANGED")])],
    );
    let chunk = Script::new().all(&[begin(0x200, 1), unchanged, key_change, full, commit(0x200, 0x230)]);
    let parts: Vec<[String; 4]> = chunk
        .events()
        .map(|event| [event.key(), event.before(), event.payload(), event.unchanged()].map(text))
        .collect();
    assert_eq!(parts[0], [r#"{"id":1}"#, "", r#"{"id":1}"#, r#"["body"]"#]);
    assert_eq!(parts[1], [r#"{"id":2}"#, r#"{"id":1}"#, r#"{"id":2,"body":"b"}"#, ""]);
    assert_eq!(parts[2], [r#"{"id":2}"#, r#"{"id":2,"body":"b"}"#, r#"{"id":2,"body":"b"}"#, ""]);
}

#[test]
fn a_delete_has_what_the_identity_gives() {
    let key = dml(b'D', TABLE, &[tuple(b'K', &[Some("1"), None])]);
    let full = dml(b'D', TABLE, &[tuple(b'O', &[Some("2"), Some("b")])]);
    let chunk = Script::new().all(&[begin(0x200, 1), key, full, commit(0x200, 0x230)]);
    let parts: Vec<[String; 3]> =
        chunk.events().map(|event| [event.key(), event.before(), event.payload()].map(text)).collect();
    assert_eq!(parts[0], [r#"{"id":1}"#, r#"{"id":1}"#, ""]);
    assert_eq!(parts[1], [r#"{"id":2}"#, r#"{"id":2,"body":"b"}"#, ""]);
}

#[test]
fn a_truncate_is_an_event_for_each_table_and_one_ordinal() {
    let mut truncate = vec![b'T'];
    truncate.extend(3u32.to_be_bytes());
    truncate.push(1);
    [TABLE, OTHER, TABLE].iter().for_each(|oid| truncate.extend(oid.to_be_bytes()));
    let chunk = Script::new().all(&[begin(0x200, 1), truncate, insert("1"), commit(0x200, 0x230)]);
    let marks: Vec<(u32, u16)> = chunk.rows.iter().map(|row| (row.mark.minor, row.mark.part)).collect();
    assert_eq!(marks, [(0, 0), (0, 2), (1, 0)]);
    assert!(text(chunk.event(0).extra()).ends_with(r#","cascade":true,"restart_identity":false"#));
}

#[test]
fn a_message_outside_a_transaction_stands_just_before_its_own_place() {
    let mut script = Script::new();
    let chunk = script.all(&[
        logical(false, 0x200, "outbox.a", b"plain"),
        begin(0x200, 1),
        logical(true, 0x1f0, "outbox.b", b"\xff"),
        commit(0x200, 0x230),
    ]);
    let marks: Vec<(u64, u32)> = chunk.rows.iter().map(|row| (row.mark.major.1, row.mark.minor)).collect();
    assert_eq!(marks, [(0x1ff, u32::MAX), (0x200, 0)]);
    assert_eq!(
        text(chunk.event(0).payload()),
        r#"{"prefix":"outbox.a","encoding":"utf-8","content":"plain"}"#
    );
    assert_eq!(
        text(chunk.event(1).payload()),
        r#"{"prefix":"outbox.b","encoding":"base64","content":"/w=="}"#
    );
}

/// A script whose table `t` has a schema that was never said.
fn unannounced(fingerprint: &str, columns: Columns) -> Script {
    let mut script = Script::new();
    let mut shape = Shape::clone(script.0.shape(TABLE).unwrap());
    (shape.announce, shape.columns) = (true, columns);
    (shape.fingerprint, shape.schema) = (fingerprint.to_owned(), r#"{"title":"t"}"#.into());
    script.0.learn(TABLE, shape);
    script
}

fn columns_of_t() -> Columns {
    Script::new().0.shape(TABLE).unwrap().columns.clone()
}

#[test]
fn a_schema_stands_before_its_first_row_and_comes_once() {
    let mut script = unannounced("f00d", columns_of_t());
    let chunk = script.all(&[
        logical(false, 0x200, "outbox.a", b"at the commit's own place"),
        begin(0x200, 1),
        insert("1"),
        insert("2"),
        commit(0x200, 0x230),
        begin(0x300, 2),
        insert("3"),
        commit(0x300, 0x330),
    ]);
    let ops: Vec<&str> = chunk.events().map(|event| event.op().as_str()).collect();
    assert_eq!(ops, ["message", "schema", "insert", "insert", "insert"]);
    assert!(chunk.rows.is_sorted_by(|a, b| a.mark < b.mark), "{:?}", chunk.rows);
    let schema = chunk.event(1);
    assert_eq!(schema.id(), "s:0000000000000001:schema:f00d");
    assert_eq!((text(schema.payload()), text(schema.key())), (r#"{"title":"t"}"#.to_owned(), String::new()));
    let extra: Value = serde_json::from_str(&format!("{{{}}}", text(schema.extra()))).unwrap();
    let place = json!({"lsn": "0/16B3748", "commit_lsn": "0/200", "xid": 1, "ordinal": null, "origin": null, "snapshot": false});
    assert_eq!(extra, place);
    assert_eq!(script.0.take_fresh().len(), 1);
    assert!(script.0.take_fresh().is_empty());
    let again = script.0.shape(TABLE).unwrap().clone();
    script.0.learn(TABLE, Shape::clone(&again));
    let chunk = script.all(&[begin(0x400, 3), insert("4"), commit(0x400, 0x430)]);
    assert_eq!(chunk.rows.len(), 1, "a relation that is introduced again is not announced again");
}

#[test]
fn a_schema_in_mid_transaction_takes_no_ordinal_and_stands_behind_what_was_before() {
    let mut truncate = vec![b'T'];
    truncate.extend(2u32.to_be_bytes());
    truncate.push(0);
    [OTHER, TABLE].iter().for_each(|oid| truncate.extend(oid.to_be_bytes()));
    for message in [insert("1"), truncate] {
        let mut script = unannounced("f00d", columns_of_t());
        let chunk = script.all(&[
            begin(0x200, 1),
            logical(true, 0x1f0, "outbox.b", b"x"),
            message,
            commit(0x200, 0x230),
        ]);
        let places: Vec<(u32, Op)> = chunk.rows.iter().map(|row| (row.mark.minor, row.op)).collect();
        assert_eq!(places[..2], [(0, Op::Message), (0, Op::Schema)]);
        assert_eq!(places[2].0, 1);
        assert!(chunk.rows.is_sorted_by(|a, b| a.mark < b.mark), "{:?}", chunk.rows);
    }
}

#[test]
fn a_row_that_does_not_fit_leaves_nothing_behind_and_is_taken_again() {
    let mut strict = columns_of_t();
    strict.0[1].not_null = true;
    let mut script = unannounced("f00d", strict);
    script.all(&[begin(0x200, 1)]);
    let row = dml(b'I', TABLE, &[tuple(b'N', &[Some("1"), None])]);
    assert_eq!(script.take(1, &row).unwrap(), Taken::Unfit(TABLE));
    assert!(script.0.draft.is_empty() && script.0.draft.buf.is_empty());
    assert!(fits(&columns_of_t(), &message(&row).unwrap()).is_ok());
    let mut wider = Shape::clone(script.0.shape(TABLE).unwrap());
    wider.columns = columns_of_t();
    script.0.learn(TABLE, wider);
    let chunk = script.all(&[row, insert("2"), commit(0x200, 0x230)]);
    let places: Vec<(u32, Op)> = chunk.rows.iter().map(|row| (row.mark.minor, row.op)).collect();
    assert_eq!(places, [(u32::MAX, Op::Schema), (0, Op::Insert), (1, Op::Insert)]);
}

#[test]
fn a_place_inside_a_transaction_is_no_boundary() {
    let mut script = Script::new();
    script.0.reached(Lsn(0x150));
    script.all(&[begin(0x200, 1), insert("1")]);
    script.0.reached(Lsn(0x300));
    assert_eq!(script.0.boundary, Some(Lsn(0x150)));
    script.all(&[commit(0x200, 0x230)]);
    assert_eq!(script.0.boundary, Some(Lsn(0x230)));
    script.0.reached(Lsn(0x100));
    assert_eq!(script.0.boundary, Some(Lsn(0x230)), "an older place is ignored");
}

#[test]
fn what_is_out_of_place_is_an_error() {
    for messages in [
        vec![insert("1")],
        vec![commit(0x200, 0x230)],
        vec![begin(0x200, 1), begin(0x300, 2)],
        vec![begin(0x200, 1), commit(0x300, 0x330)],
        vec![begin(0x200, 1), dml(b'I', 99, &[tuple(b'N', &[None])])],
        vec![begin(0x200, 1), relation(TABLE, "t")],
    ] {
        let mut script = Script::new();
        let failed = messages.iter().any(|bytes| script.take(1, bytes).is_err());
        assert!(failed, "{messages:?}");
    }
}

#[test]
fn an_lsn_is_written_as_the_server_does() {
    for lsn in [0, 1, 0xf, 0x10, 0x16B_3748, 0x16_B374_D848, u64::MAX, 0x1_0000_0000] {
        let mut out = Vec::new();
        write_lsn(Lsn(lsn), &mut out);
        assert_eq!(text(&out), Lsn(lsn).to_string());
    }
}
