use proptest::prelude::*;

use super::*;

/// Writes messages as the server's documentation lays them out, apart from the code that reads them.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn tag(tag: u8) -> Writer {
        Writer(vec![tag])
    }

    fn raw(mut self, bytes: &[u8]) -> Writer {
        self.0.extend_from_slice(bytes);
        self
    }

    fn byte(self, byte: u8) -> Writer {
        self.raw(&[byte])
    }

    fn short(self, value: usize) -> Writer {
        self.raw(&u16::try_from(value).unwrap().to_be_bytes())
    }

    fn word(self, value: u32) -> Writer {
        self.raw(&value.to_be_bytes())
    }

    fn long(self, value: u64) -> Writer {
        self.raw(&value.to_be_bytes())
    }

    fn text(self, text: &str) -> Writer {
        self.raw(text.as_bytes()).byte(0)
    }

    fn tuple(self, values: &[Value<'_>]) -> Writer {
        let put = |writer: Writer, tag, bytes: &[u8]| {
            writer.byte(tag).word(u32::try_from(bytes.len()).unwrap()).raw(bytes)
        };
        values.iter().fold(self.short(values.len()), |writer, value| match value {
            Value::Null => writer.byte(b'n'),
            Value::Unchanged => writer.byte(b'u'),
            Value::Text(bytes) => put(writer, b't', bytes),
            Value::Binary(bytes) => put(writer, b'b', bytes),
        })
    }
}

const VALUES: [Value<'static>; 5] =
    [Value::Text(b"42"), Value::Null, Value::Unchanged, Value::Text(b""), Value::Binary(b"\x00\xff")];

/// One of each kind.
fn samples() -> Vec<Vec<u8>> {
    let column = |writer: Writer, flags, name| writer.byte(flags).text(name).word(23).word(u32::MAX);
    let relation = Writer::tag(b'R').word(7).text("public").text("orders").byte(b'd').short(2);
    [
        Writer::tag(b'B').long(0x16B_37A0).long(1).word(754),
        Writer::tag(b'C').byte(0).long(0x16B_37A0).long(0x16B_37D0).long(1),
        Writer::tag(b'O').long(9).text("elsewhere"),
        column(column(relation, 1, "id"), 0, "naïve"),
        Writer::tag(b'Y').word(16_385).text("public").text("mood"),
        Writer::tag(b'I').word(7).byte(b'N').tuple(&VALUES),
        Writer::tag(b'U').word(7).byte(b'N').tuple(&VALUES),
        Writer::tag(b'U').word(7).byte(b'K').tuple(&VALUES[..2]).byte(b'N').tuple(&VALUES),
        Writer::tag(b'U').word(7).byte(b'O').tuple(&VALUES).byte(b'N').tuple(&VALUES),
        Writer::tag(b'D').word(7).byte(b'K').tuple(&VALUES),
        Writer::tag(b'D').word(7).byte(b'O').tuple(&[]),
        Writer::tag(b'T').word(2).byte(3).word(7).word(8),
        Writer::tag(b'M').byte(1).long(5).text("forebay").word(3).raw(b"a\0b"),
    ]
    .map(|writer| writer.0)
    .into()
}

#[test]
fn each_kind_of_message_is_understood() {
    let samples = samples();
    let read: Vec<Message<'_>> = samples.iter().map(|bytes| message(bytes).unwrap()).collect();
    let (commit_lsn, end_lsn) = (Lsn(0x16B_37A0), Lsn(0x16B_37D0));
    assert_eq!(read[0], Message::Begin(Begin { commit_lsn, time: 1, xid: 754 }));
    assert_eq!(read[1], Message::Commit(Commit { commit_lsn, end_lsn, time: 1 }));
    assert_eq!(read[2], Message::Origin(Origin { commit_lsn: Lsn(9), name: "elsewhere" }));
    let Message::Relation(relation) = read[3] else { panic!("{:?}", read[3]) };
    assert_eq!((relation.id, relation.namespace, relation.name), (7, "public", "orders"));
    assert_eq!(relation.identity, ReplicaIdentity::Default);
    let columns: Vec<(bool, &str)> = relation.columns().map(|column| (column.key, column.name)).collect();
    assert_eq!(columns, [(true, "id"), (false, "naïve")]);
    assert_eq!(read[4], Message::Type(TypeName { oid: 16_385, namespace: "public", name: "mood" }));
    let Message::Insert(insert) = read[5] else { panic!("{:?}", read[5]) };
    assert_eq!(insert.new.values().collect::<Vec<_>>(), VALUES);
    let Message::Update(update) = read[7] else { panic!("{:?}", read[7]) };
    let Some(Old::Key(key)) = update.old else { panic!("{update:?}") };
    assert_eq!((key.len(), update.new.len()), (2, 5));
    assert!(matches!(read[8], Message::Update(Update { old: Some(Old::Full(_)), .. })));
    assert!(matches!(read[10], Message::Delete(Delete { old: Old::Full(old), .. }) if old.is_empty()));
    let Message::Truncate(truncate) = read[11] else { panic!("{:?}", read[11]) };
    assert_eq!(truncate.relations().collect::<Vec<_>>(), [7, 8]);
    assert!(truncate.cascade && truncate.restart_identity);
    let logical = Logical { transactional: true, lsn: Lsn(5), prefix: "forebay", content: b"a\0b" };
    assert_eq!(read[12], Message::Logical(logical));
}

#[test]
fn a_message_that_is_cut_or_longer_is_refused() {
    for sample in samples() {
        for length in 0..sample.len() {
            assert!(message(&sample[..length]).is_err(), "{length} of {sample:?}");
        }
        let longer = [sample.as_slice(), &[0]].concat();
        assert!(message(&longer).is_err(), "{sample:?} and a byte");
    }
}

#[test]
fn unknown_tags_are_errors() {
    let known = b"BCORYIUDTM";
    for tag in (0..=u8::MAX).filter(|tag| !known.contains(tag)) {
        assert!(message(&[tag; 64]).unwrap_err().to_string().contains("unknown tag"));
    }
    assert!(frame(b"x").is_err());
}

#[test]
fn frames_carry_data_or_a_sign_of_life() {
    let data = Writer::tag(b'w').long(7).long(9).long(0).raw(b"B...").0;
    assert_eq!(frame(&data).unwrap(), Frame::Data { at: Lsn(7), message: b"B..." });
    let keepalive = Writer::tag(b'k').long(9).long(0).byte(1).0;
    assert_eq!(frame(&keepalive).unwrap(), Frame::Keepalive { wal_end: Lsn(9), reply: true });
    for length in 0..keepalive.len() {
        assert!(frame(&keepalive[..length]).is_err());
    }
}

/// Walks all that a message borrows, as the source does.
fn walk(message: Message<'_>) {
    match message {
        Message::Relation(relation) => assert!(relation.columns().count() <= usize::from(u16::MAX)),
        Message::Insert(insert) => assert_eq!(insert.new.values().count(), insert.new.len()),
        Message::Update(update) => assert_eq!(update.new.values().count(), update.new.len()),
        Message::Truncate(truncate) => assert_eq!(truncate.relations().count(), truncate.relations().len()),
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
        if let Ok(read) = message(&bytes) {
            walk(read);
        }
        let _ = frame(&bytes);
    }

    #[test]
    fn no_damage_to_a_message_makes_the_parser_panic(
        which in 0usize..13, at in any::<prop::sample::Index>(), byte: u8,
    ) {
        let mut sample = samples().swap_remove(which);
        let at = at.index(sample.len());
        sample[at] = byte;
        if let Ok(read) = message(&sample) {
            walk(read);
        }
    }

    #[test]
    fn any_row_comes_back_as_it_was(values in prop::collection::vec(
        prop_oneof![
            Just(None), Just(Some(None)), prop::collection::vec(any::<u8>(), 0..50).prop_map(|v| Some(Some(v))),
        ], 0..20,
    )) {
        let values: Vec<Value<'_>> = values.iter().map(|value| match value {
            None => Value::Null,
            Some(None) => Value::Unchanged,
            Some(Some(bytes)) => Value::Text(bytes),
        }).collect();
        let bytes = Writer::tag(b'I').word(1).byte(b'N').tuple(&values).0;
        let Message::Insert(insert) = message(&bytes).unwrap() else { unreachable!() };
        prop_assert_eq!(insert.new.values().collect::<Vec<_>>(), values);
    }
}
