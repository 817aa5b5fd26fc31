//! Ways into the decoders for bytes that no server sent: fuzz targets and a test that replays their corpus. Whatever the
//! bytes are, nothing panics, and what is written is JSON.

use std::sync::Arc;

use forebay_api::{Chunk, StreamId, Subject};
use globset::{Glob, GlobSetBuilder};
use serde_json::value::RawValue;

use super::prepare::Timelines;
use super::relation::Shape;
use super::snapshot::line::Line;
use super::snapshot::window::Window;
use super::transcribe::{Taken, Transcriber};
use crate::decode::options::{Digits, ValueOptions};
use crate::decode::row::{Columns, Notes, RowError};
use crate::decode::types::{CatalogAttribute, CatalogType, TypeCatalog, TypeKind};
use crate::lsn::Lsn;
use crate::protocol::{self, Frame, Message, Relation, Tuple};

/// Values of these types are given out as they come, because the server has made sure that they are JSON.
const JSON: [u32; 4] = [114, 199, 3802, 3807];

/// Reads `data` as pieces of a replication stream, each behind its length (two bytes, little-endian), as far as they make
/// sense, and transcribes them.
pub fn pgoutput(mut data: &[u8]) {
    let types = catalog();
    let stream = StreamId { source: "s".into(), epoch: 1 };
    let globs = GlobSetBuilder::new().add(Glob::new("*").expect("it is a glob")).build();
    let messages = (globs.expect("it is a set of globs"), shape(&[], Columns::default()));
    let mut transcriber =
        Transcriber::new(&stream, Timelines::for_tests(1, Vec::new()), messages, Window::default());
    transcriber.window.begin();
    let (mut is_json, mut newest) = (true, Lsn(0));
    while let Some((length, rest)) = data.split_first_chunk() {
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*length))));
        data = rest;
        let Ok(Frame::Data { at, message }) = protocol::frame(piece) else { continue };
        let Ok(message) = protocol::message(message) else { continue };
        if let Message::Relation(relation) = &message {
            is_json &= relation.columns().all(|column| !JSON.contains(&column.type_oid));
            let columns = Columns::new(relation, &types);
            transcriber.learn(relation.id, shape(relation.name.as_bytes(), columns));
            continue;
        }
        if let Message::Begin(begin) = &message {
            // Transactions come in the order of their commits.
            if begin.commit_lsn <= newest {
                break;
            }
            newest = begin.commit_lsn;
        }
        let before = (transcriber.draft.len(), transcriber.draft.buf.len());
        match transcriber.take(at, &message) {
            Ok(Taken::Whole) => {}
            Ok(Taken::Unfit(_)) => {
                assert_eq!(
                    before,
                    (transcriber.draft.len(), transcriber.draft.buf.len()),
                    "it left something behind"
                );
            }
            Err(_) => return,
        }
    }
    if is_json {
        check(&transcriber.draft.finish(&Arc::new(stream), 0, false));
    }
}

/// Writes `data` as the value of a column whose type the first byte chooses, and as its key.
pub fn tuple(data: &[u8]) {
    let Some((&choice, text)) = data.split_first() else { return };
    let types = catalog();
    let oid = TYPES[usize::from(choice) % TYPES.len()];
    let relation = relation(oid);
    let Ok(Message::Relation(relation)) = protocol::message(&relation) else {
        unreachable!("it was written here")
    };
    let mut bytes = vec![b't'];
    bytes.extend(u32::try_from(text.len()).expect("inputs are small").to_be_bytes());
    bytes.extend(text);
    let tuple = Tuple::of_values(1, &bytes);
    written(&relation, &types, &tuple);
}

/// Reads `data` as a line of COPY with as many columns as the first byte says, and writes the row.
pub fn line(data: &[u8]) {
    let Some((&columns, line)) = data.split_first() else { return };
    let mut room = Line::default();
    if let Ok(tuple) = room.read(line, u16::from(columns % 4)) {
        assert_eq!(tuple.len(), usize::from(columns % 4), "a value came or went");
        if tuple.len() == 1 {
            let relation = relation(25);
            let Ok(Message::Relation(relation)) = protocol::message(&relation) else {
                unreachable!("it was written here")
            };
            written(&relation, &catalog(), &tuple);
        }
    }
}

fn written(relation: &Relation<'_>, types: &TypeCatalog, tuple: &Tuple<'_>) {
    let columns = Columns::new(relation, types);
    for write in [Columns::write_row, Columns::write_key] as [Write; 2] {
        let (mut out, mut notes) = (b"before".to_vec(), Notes::default());
        if write(&columns, tuple, None, &mut out, &mut notes).is_ok() {
            let row = out.strip_prefix(b"before").expect("what was there stays");
            let parsed: Result<&RawValue, _> = serde_json::from_slice(row);
            assert!(parsed.is_ok(), "{} is no JSON", String::from_utf8_lossy(row));
        }
    }
}

type Write = fn(&Columns, &Tuple<'_>, Option<&Tuple<'_>>, &mut Vec<u8>, &mut Notes) -> Result<(), RowError>;

/// Every part of every event is JSON, and events of a transaction ascend. (That messages outside of them do is the
/// server's word.)
fn check(chunk: &Chunk) {
    let inside: Vec<_> =
        chunk.rows.iter().map(|row| row.mark).filter(|mark| mark.minor < u32::MAX - 1).collect();
    assert!(inside.is_sorted_by(|a, b| a < b || a.major != b.major), "marks fall");
    for event in chunk.events() {
        let extra = [b"{", event.extra(), b"}"].concat();
        for part in [event.key(), event.before(), event.payload(), event.unchanged(), extra.as_slice()] {
            let parsed: Result<&RawValue, _> = serde_json::from_slice(part);
            assert!(part.is_empty() || parsed.is_ok(), "{} is no JSON", String::from_utf8_lossy(part));
        }
    }
}

fn shape(name: &[u8], columns: Columns) -> Shape {
    let name = String::from_utf8_lossy(name);
    let subject = Subject::new(("v", &name, "1-0-0"), (None, Some("public"), Some(&name)), String::new());
    Shape::for_tests(Arc::new(subject), columns, true)
}

/// A table of one column, which is its key.
fn relation(oid: u32) -> Vec<u8> {
    let mut bytes = vec![b'R', 0, 0, 0, 7];
    bytes.extend(b"public\0t\0d\0\x01\x01value\0");
    bytes.extend(oid.to_be_bytes());
    bytes.extend([0xff; 4]);
    bytes
}

/// The types that [`tuple`] chooses from: each encoder, and types made of types. Of `json` only arrays, whose quoting is
/// ours, would be of interest, and their elements are given out as they come.
const TYPES: [u32; 48] = [
    16, 17, 18, 19, 20, 21, 22, 23, 25, 26, 30, 600, 603, 700, 701, 718, 790, 829, 869, 1000, 1001, 1007,
    1009, 1020, 1042, 1043, 1082, 1083, 1114, 1115, 1184, 1186, 1231, 1266, 1700, 2950, 3614, 3904, 3908,
    4451, 20_000, 20_002, 20_003, 20_004, 20_005, 20_006, 20_007, 20_008,
];

fn catalog() -> TypeCatalog {
    let mut types = TypeCatalog::new(ValueOptions { int8: Digits::Number, numeric: Digits::Number });
    let base = |extension: &str| TypeKind::Base { extension: extension.to_owned() };
    let attribute = |name: &str, type_oid| CatalogAttribute { name: name.to_owned(), type_oid, modifier: -1 };
    let all = [
        ("mood", TypeKind::Enum(vec!["sad".to_owned(), "so, \"so\"".to_owned()])),
        ("_mood", TypeKind::Array { element: 20_000, delimiter: b',' }),
        (
            "pair",
            TypeKind::Composite(vec![attribute("a", 23), attribute("b/c", 20_001), attribute("d", 1184)]),
        ),
        ("_pair", TypeKind::Array { element: 20_002, delimiter: b',' }),
        (
            "nest",
            TypeKind::Composite(vec![
                attribute("pairs", 20_003),
                attribute("h", 20_006),
                attribute("r", 3904),
            ]),
        ),
        ("domain", TypeKind::Domain { base: 20_004, modifier: -1 }),
        ("hstore", base("hstore")),
        ("vector", base("vector")),
        ("sparsevec", base("vector")),
    ];
    for (oid, (name, kind)) in (20_000..).zip(all) {
        types.insert(oid, CatalogType { namespace: "public".to_owned(), name: name.to_owned(), kind });
    }
    types
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What fuzzing has found worth keeping; `integration/fuzz` says how it is made.
    #[test]
    fn the_corpus_of_the_fuzz_targets_is_read_without_a_panic() {
        for (name, target) in [("pgoutput", pgoutput as fn(&[u8])), ("tuple", tuple), ("line", line)] {
            let corpus =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integration/fuzz/corpus").join(name);
            let mut inputs = 0;
            for input in
                std::fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
            {
                target(&std::fs::read(input.unwrap().path()).unwrap());
                inputs += 1;
            }
            assert!(inputs > 0, "no corpus of `{name}`");
        }
    }
}
