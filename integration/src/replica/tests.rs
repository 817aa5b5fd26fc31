//! A comparer that cannot fail is worth nothing: everything that can be wrong with a copy is put into one and found.

use serde_json::{Value, json};

use super::{Replica, Row};

const TABLE: &str = "public.t";

fn source(snapshot: bool) -> Value {
    if snapshot {
        json!({"schema": "public", "table": "t", "lsn": "0/9", "commit_lsn": null, "xid": null, "ordinal": null, "snapshot": true})
    } else {
        json!({"schema": "public", "table": "t", "lsn": "0/1", "commit_lsn": "0/2", "xid": 7, "ordinal": 0, "snapshot": false})
    }
}

/// A copied row of that key and version.
fn copied(id: i64, version: i64) -> Value {
    json!({"id": format!("db:ab:snapshot:1:{TABLE}:{id}"), "op": "snapshot", "source": source(true), "key": {"id": id},
        "payload": {"id": id, "version": version, "body": "b"}})
}

/// A change that the stream brings, under an id of its own.
fn change(op: &str, at: i64, id: i64, version: i64) -> Value {
    let payload =
        if op == "delete" { Value::Null } else { json!({"id": id, "version": version, "body": "b"}) };
    json!({"id": format!("db:ab:1:{at}"), "op": op, "source": source(false), "key": {"id": id}, "payload": payload})
}

fn truncate(at: i64) -> Value {
    json!({"id": format!("db:ab:1:{at}"), "op": "truncate", "source": source(false), "key": null, "payload": null})
}

fn with(mut event: Value, field: &str, value: Value) -> Value {
    event[field] = value;
    event
}

fn row(id: i64, version: i64) -> Row {
    [("id", id.to_string()), ("version", version.to_string()), ("body", "b".to_owned())]
        .map(|(name, value)| (name.to_owned(), Some(value)))
        .into()
}

fn read(events: &[Value]) -> Replica {
    let mut replica = Replica::default();
    events.iter().for_each(|event| replica.take(&event.to_string()));
    replica
}

/// What is wrong on the way, and with the rows of either way of reading.
fn wrong(events: &[Value], wanted: &[Row]) -> [usize; 3] {
    let replica = read(events);
    let differing = |tables: &std::collections::BTreeMap<String, super::Built>| {
        tables.get(TABLE).map_or(wanted.len(), |built| built.differences(wanted).len())
    };
    [replica.defects.len(), differing(&replica.last), differing(&replica.once)]
}

#[test]
fn a_faithful_copy_with_changes_is_accepted() {
    let events = [
        copied(1, 0),
        copied(2, 0),
        change("update", 1, 3, 4),
        copied(3, 4),
        change("delete", 2, 2, 0),
        with(change("update", 3, 9, 5), "before", json!({"id": 1})),
        change("insert", 4, 5, 6),
        // read again after a crash
        change("insert", 4, 5, 6),
        copied(5, 6),
    ];
    assert_eq!(wrong(&events, &[row(3, 4), row(9, 5), row(5, 6)]), [0, 0, 0]);
    let replica = read(&events);
    assert_eq!((replica.copied_events(), replica.copied_ids(), replica.copied_of(TABLE)), (4, 4, 4));
    replica.expect_sound();
}

#[test]
fn a_row_that_is_missing_surplus_or_another_is_found() {
    let events = [copied(1, 0), copied(2, 0)];
    assert_eq!(wrong(&events, &[row(1, 0), row(2, 0), row(3, 0)]), [0, 1, 1]);
    assert_eq!(wrong(&events, &[row(1, 0)]), [0, 1, 1]);
    assert_eq!(wrong(&events, &[row(1, 0), row(2, 1)]), [0, 2, 2]);
    assert_eq!(wrong(&[], &[row(1, 0)]), [0, 1, 1]);
}

#[test]
fn a_copied_row_that_is_older_than_the_stream_is_found_even_when_it_is_hidden_later() {
    let hidden = [change("update", 1, 1, 1), copied(1, 0), change("update", 2, 1, 2)];
    assert_eq!(wrong(&hidden, &[row(1, 2)]), [1, 0, 0]);
    let deleted = [change("delete", 1, 1, 0), copied(1, 0), change("insert", 2, 1, 2)];
    assert_eq!(wrong(&deleted, &[row(1, 2)]), [1, 0, 0]);
    let truncated = [truncate(1), copied(1, 0), change("insert", 2, 1, 2)];
    assert_eq!(wrong(&truncated, &[row(1, 2)]), [1, 0, 0]);
    let moved = with(change("update", 1, 2, 1), "before", json!({"id": 1}));
    assert_eq!(wrong(&[moved, copied(1, 0)], &[row(2, 1)]), [1, 1, 1]);
}

#[test]
fn what_was_put_back_after_a_truncation_may_be_copied() {
    let events = [copied(1, 0), truncate(1), change("insert", 2, 1, 3), copied(1, 3)];
    assert_eq!(wrong(&events, &[row(1, 3)]), [0, 0, 0]);
}

#[test]
fn a_column_that_was_never_told_is_found_and_one_that_was_copied_later_is_not() {
    let mut partial = with(change("update", 1, 1, 1), "unchanged", json!(["body"]));
    partial["payload"].as_object_mut().unwrap().remove("body");
    assert_eq!(wrong(std::slice::from_ref(&partial), &[row(1, 1)]), [0, 2, 2]);
    assert_eq!(wrong(&[partial.clone(), copied(1, 1)], &[row(1, 1)]), [0, 0, 0]);
    assert_eq!(wrong(&[copied(1, 0), partial], &[row(1, 1)]), [0, 0, 0]);
}

#[test]
fn a_second_copy_under_the_ids_of_the_first_is_found_by_who_reads_each_id_once() {
    // The change from 0 to 1 was lost, and the copy that makes up for it looks like a repeat.
    assert_eq!(wrong(&[copied(1, 0), copied(1, 1)], &[row(1, 1)]), [0, 0, 2]);
    let second = with(copied(1, 1), "id", json!(format!("db:ab:snapshot:2:{TABLE}:1")));
    assert_eq!(wrong(&[copied(1, 0), second], &[row(1, 1)]), [0, 0, 0]);
}

#[test]
fn an_id_that_stands_for_two_rows_or_a_source_of_a_change_is_found() {
    let other = with(copied(2, 0), "id", copied(1, 0)["id"].clone());
    assert_eq!(wrong(&[copied(1, 0), other], &[row(1, 0), row(2, 0)])[0], 1);
    for member in ["commit_lsn", "xid", "ordinal"] {
        let mut event = copied(1, 0);
        event["source"][member] = if member == "commit_lsn" { json!("0/1") } else { json!(1) };
        assert_eq!(wrong(&[event], &[row(1, 0)]), [1, 0, 0], "{member}");
    }
    let partial = with(copied(1, 0), "unchanged", json!(["more"]));
    assert_eq!(wrong(&[partial], &[row(1, 0)]), [1, 0, 0]);
    let nameless = with(copied(1, 0), "id", json!("db:ab:1:5"));
    assert_eq!(wrong(&[nameless], &[row(1, 0)]), [1, 0, 0]);
    let mut unmarked = copied(1, 0);
    unmarked["source"]["snapshot"] = json!(false);
    assert_eq!(wrong(&[unmarked], &[row(1, 0)]), [1, 0, 0]);
}

#[test]
fn rows_without_a_key_may_come_twice_and_must_not_be_missing() {
    let keyless = |event: Value| with(event, "key", Value::Null);
    let events = [keyless(copied(1, 0)), keyless(copied(1, 0)), keyless(change("insert", 1, 2, 1))];
    let replica = read(&events);
    assert!(replica.last[TABLE].differences(&[row(1, 0), row(2, 1)]).is_empty());
    assert_eq!(replica.last[TABLE].differences(&[row(1, 0), row(2, 1), row(3, 1)]).len(), 1);
    assert_eq!(replica.last[TABLE].differences(&[row(1, 0)]).len(), 1);
    let both = [row(1, 0), row(1, 0), row(1, 0), row(2, 1)];
    assert_eq!(replica.last[TABLE].differences(&both).len(), 1, "the same row three times is three rows");
}
