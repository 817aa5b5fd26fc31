use proptest::prelude::*;

use super::*;
use crate::batch::Batch;
use crate::chunk::Draft;

fn text() -> impl Strategy<Value = String> {
    "[a-zä€\"]{0,6}"
}

fn verdict() -> impl Strategy<Value = Verdict> {
    let invalid =
        (text(), text(), prop::option::of(text()), prop::collection::vec([text(), text(), text()], 0..3));
    prop::option::weighted(0.2, invalid).prop_map(|invalid| match invalid {
        None => Verdict::Valid,
        Some((kind, message, resolution, details)) => {
            let details =
                details.into_iter().map(|[path, keyword, message]| InvalidDetail { path, keyword, message });
            Verdict::Invalid(Box::new(Invalid { kind, message, resolution, details: details.collect() }))
        }
    })
}

type AnyRow = ((u32, u64, u32, u16), i64, u32, usize, usize, Vec<Vec<u8>>, Verdict);

fn row() -> impl Strategy<Value = AnyRow> {
    let parts = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 7);
    (any::<(u32, u64, u32, u16)>(), any::<i64>(), any::<u32>(), 0..3usize, 0..Op::ALL.len(), parts, verdict())
}

prop_compose! {
    fn batch()(
        source in text(), epoch: u64, received: i64, inside: bool, shared: bool,
        rows in prop::collection::vec(row(), 1..12),
        names in prop::collection::vec([text(), text()], 3),
    ) -> Batch {
        let subject = |[a, b]: &[String; 2]| {
            Arc::new(Subject::new((a, b, "1-0-0"), (Some(a), None, Some(b)), format!("\"name\":\"{a}\"")))
        };
        let subjects: Vec<Arc<Subject>> = names.iter().map(subject).collect();
        let mut draft = Draft::default();
        let mut verdicts = Vec::new();
        let mut common = None;
        for ((timeline, lsn, minor, part), time, xid, subject, op, parts, verdict) in rows {
            let subject = draft.subject(&subjects[subject]);
            let mut spans = parts.iter().map(|bytes| {
                let start = draft.buf.len();
                draft.buf.extend_from_slice(bytes);
                if bytes.is_empty() { Span::default() } else { draft.since(start) }
            }).collect::<Vec<_>>();
            // Rows of a transaction may share a part.
            if shared {
                spans[6] = *common.get_or_insert(spans[6]);
            }
            let mark = Mark { major: (timeline, lsn), minor, part };
            draft.push(Row {
                mark, time, xid, subject, op: Op::ALL[op], id: spans[0], key: spans[1], before: spans[2],
                payload: spans[3], unchanged: spans[4], contexts: spans[5], extra: spans[6],
            });
            verdicts.push(verdict);
        }
        let stream = Arc::new(StreamId { source: source.into(), epoch });
        Batch { chunk: draft.finish(&stream, received, inside), verdicts, encoded: Vec::new() }
    }
}

fn encoded(batch: &Batch, rows: Vec<usize>) -> Bytes {
    let mut out = Vec::new();
    Piece { batch, numbers: rows.clone(), rows }.encode(&mut out);
    Bytes::from(out)
}

/// Everything that can be said of an event.
fn told(chunk: &Chunk, row: usize) -> impl PartialEq + std::fmt::Debug {
    let event = chunk.event(row);
    let parts = spans(event.row()).map(|span| event.part(span).to_vec());
    let row = *event.row();
    (row.mark, row.time, row.xid, row.op, event.subject().clone(), parts, event.id(), event.received())
}

proptest! {
    #[test]
    fn what_is_decoded_is_what_was_encoded(batch in batch(), mask: u16) {
        for rows in [
            (0..batch.chunk.rows.len()).collect::<Vec<_>>(),
            (0..batch.chunk.rows.len()).filter(|row| mask & (1 << row) != 0).collect(),
        ] {
            let chunk = Chunk::decode(encoded(&batch, rows.clone())).unwrap();
            prop_assert_eq!(&chunk.stream, &batch.chunk.stream);
            prop_assert_eq!(chunk.rows.len(), rows.len());
            let judged = chunk.judged.as_ref().unwrap();
            for (at, &row) in rows.iter().enumerate() {
                prop_assert_eq!(told(&chunk, at), told(&batch.chunk, row));
                prop_assert_eq!(judged.get(at).unwrap_or(&Verdict::Valid), batch.verdict(row));
            }
            let inside = rows.last().is_some_and(|&row| batch.chunk.goes_on_after(row));
            prop_assert_eq!(chunk.inside_transaction, inside);
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_another_chunk_but_never_a_panic(
        batch in batch(), cut: prop::sample::Index, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)
    ) {
        let rows: Vec<usize> = (0..batch.chunk.rows.len()).collect();
        let mut bytes = encoded(&batch, rows).to_vec();
        for (at, with) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= with;
        }
        for bytes in [bytes[..cut.index(bytes.len())].to_vec(), bytes] {
            if let Ok(chunk) = Chunk::decode(Bytes::from(bytes)) {
                (0..chunk.rows.len()).for_each(|row| drop(told(&chunk, row)));
            }
        }
    }

    #[test]
    fn another_stream_leaves_every_id_as_it_was(batch in batch()) {
        let ids: Vec<String> = batch.chunk.events().map(|event| event.id()).collect();
        let other = Arc::new(StreamId { source: "other".into(), epoch: 7 });
        let chunk = batch.chunk.clone().restream(other.clone(), |index, _| Mark { minor: u32::try_from(index).unwrap(), ..Mark::MIN });
        prop_assert_eq!(&chunk.stream, &other);
        prop_assert_eq!(chunk.events().map(|event| event.id()).collect::<Vec<_>>(), ids);
        prop_assert!(chunk.rows.iter().enumerate().all(|(index, row)| row.mark.minor as usize == index));
        let payloads = |chunk: &Chunk| chunk.events().map(|event| event.payload().to_vec()).collect::<Vec<_>>();
        prop_assert_eq!(payloads(&chunk), payloads(&batch.chunk));
    }
}

#[test]
fn a_newer_format_is_named_as_that() {
    assert_eq!(Chunk::decode(Bytes::from_static(&[9, 0])).unwrap_err(), Damaged::Newer(9));
}
