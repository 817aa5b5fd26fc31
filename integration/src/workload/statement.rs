//! The statements of a random transaction: each writes to the server and notes in the draft what it did.
//!
//! The model knows every row, so the number of rows that the server reports must be the expected one; anything
//! else, and every error but a lost connection, is a fault of the workload and panics.

use bytes::Bytes;
use futures::SinkExt;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::book::Slot;
use super::connection::Lost;
use super::draft::Draft;
use super::ledger::Op;
use super::tables::{Column, Row, SCHEMA, TABLES, Table, Value};
use super::values;

/// The most rows that one statement writes.
const ROWS: usize = 8;

fn any_table(rng: &mut StdRng) -> usize {
    rng.random_range(0..TABLES.len())
}

/// One row in half of all statements, else several.
fn any_count(rng: &mut StdRng) -> usize {
    if rng.random() { 1 } else { rng.random_range(2..=ROWS) }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn literal(column: &Column, value: &Value) -> String {
    match value {
        None => format!("NULL::{}", column.sql),
        Some(text) => format!("{}::{}", quoted(text), column.sql),
    }
}

fn tuple(columns: &[&Column], values: &[Value]) -> String {
    let literals: Vec<String> =
        columns.iter().zip(values).map(|(column, value)| literal(column, value)).collect();
    format!("({})", literals.join(", "))
}

fn name(table: &Table) -> String {
    format!("{SCHEMA}.{}", table.name)
}

fn names(columns: &[&Column]) -> String {
    columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
}

fn all_columns(table: &'static Table) -> Vec<&'static Column> {
    table.columns.iter().collect()
}

/// `id = '5'::int8 AND …`
fn is_key(table: &'static Table, row: &[Value]) -> String {
    let parts: Vec<String> = (table.key_columns().iter().zip(row))
        .map(|(column, value)| format!("{} = {}", column.name, literal(column, value)))
        .collect();
    parts.join(" AND ")
}

async fn execute(client: &Client, sql: &str, rows: usize) -> Result<(), Lost> {
    let messages = client.simple_query(sql).await.map_err(|error| Lost::or_panic(error, sql))?;
    let done = messages.iter().rev().find_map(|message| match message {
        SimpleQueryMessage::CommandComplete(rows) => usize::try_from(*rows).ok(),
        _ => None,
    });
    assert_eq!(done, Some(rows), "the model of the workload is wrong: {sql}");
    Ok(())
}

/// Makes new rows for free keys and notes them.
fn new_rows(draft: &mut Draft<'_>, rng: &mut StdRng, table: usize, count: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for ((_, number), _) in draft.pick(rng, table, false, count) {
        let version = draft.next_version();
        let row = values::row(rng, &TABLES[table], &TABLES[table].key(number), version);
        draft.change(Op::Insert, version, None, Some(((table, number), row.clone())));
        rows.push(row);
    }
    rows
}

pub(super) async fn insert(client: &Client, draft: &mut Draft<'_>, rng: &mut StdRng) -> Result<(), Lost> {
    let (at, count) = (any_table(rng), any_count(rng));
    let rows = new_rows(draft, rng, at, count);
    if rows.is_empty() {
        return Ok(());
    }
    let columns = all_columns(&TABLES[at]);
    let tuples: Vec<String> = rows.iter().map(|row| tuple(&columns, row)).collect();
    let sql = format!("INSERT INTO {} VALUES {}", name(&TABLES[at]), tuples.join(", "));
    execute(client, &sql, rows.len()).await
}

/// `COPY`, whose rows share one place in the log.
pub(super) async fn copy(client: &Client, draft: &mut Draft<'_>, rng: &mut StdRng) -> Result<(), Lost> {
    let (at, count) = (any_table(rng), rng.random_range(2..=ROWS));
    let rows = new_rows(draft, rng, at, count);
    if rows.is_empty() {
        return Ok(());
    }
    let field = |value: &Value| match value {
        None => "\\N".to_owned(),
        Some(text) => text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n"),
    };
    let mut data = String::new();
    for row in &rows {
        data += &row.iter().map(field).collect::<Vec<_>>().join("\t");
        data.push('\n');
    }
    let sql = format!("COPY {} FROM STDIN", name(&TABLES[at]));
    let lost = |error| Lost::or_panic(error, &sql);
    let mut sink = std::pin::pin!(client.copy_in::<str, Bytes>(&sql).await.map_err(lost)?);
    sink.send(Bytes::from(data)).await.map_err(lost)?;
    let copied = sink.as_mut().finish().await.map_err(lost)?;
    assert_eq!(usize::try_from(copied).ok(), Some(rows.len()), "the model of the workload is wrong: {sql}");
    Ok(())
}

/// `INSERT … ON CONFLICT DO UPDATE`, on a key whose row may be there.
pub(super) async fn upsert(client: &Client, draft: &mut Draft<'_>, rng: &mut StdRng) -> Result<(), Lost> {
    let (at, present) = (any_table(rng), rng.random());
    let table = &TABLES[at];
    let Some((slot, old)) = draft.pick(rng, at, present, 1).pop() else { return Ok(()) };
    let version = draft.next_version();
    let row = values::row(rng, table, &table.key(slot.1), version);
    let columns = all_columns(table);
    let set: Vec<String> =
        (columns[table.keys..].iter()).map(|column| format!("{0} = excluded.{0}", column.name)).collect();
    let sql = format!(
        "INSERT INTO {} VALUES {} ON CONFLICT ({}) DO UPDATE SET {}",
        name(table),
        tuple(&columns, &row),
        names(&columns[..table.keys]),
        set.join(", ")
    );
    let op = if present { Op::Update } else { Op::Insert };
    draft.change(op, version, old.map(|old| (slot, old)), Some((slot, row)));
    execute(client, &sql, 1).await
}

/// Some columns other than the key, `version` always among them.
fn any_columns(rng: &mut StdRng, table: &Table) -> Vec<usize> {
    let mut set = vec![table.keys];
    for at in table.keys + 1..table.columns.len() {
        if rng.random_ratio(if table.columns[at].toast { 3 } else { 5 }, 10) {
            set.push(at);
        }
    }
    set
}

/// The row with a new version and new values in those columns.
fn changed(rng: &mut StdRng, table: &Table, row: &Row, version: i64, set: &[usize]) -> Row {
    let mut row: Vec<Value> = row.to_vec();
    for at in set {
        row[*at] = values::value(rng, &table.columns[*at]);
    }
    row[table.keys] = Some(version.to_string().into());
    row.into()
}

/// One `UPDATE` of one row or of several, each to values of its own.
pub(super) async fn update(client: &Client, draft: &mut Draft<'_>, rng: &mut StdRng) -> Result<(), Lost> {
    let (at, count) = (any_table(rng), any_count(rng));
    let table = &TABLES[at];
    let set = any_columns(rng, table);
    let written: Vec<usize> = (0..table.keys).chain(set.iter().copied()).collect();
    let columns: Vec<&Column> = written.iter().map(|at| &table.columns[*at]).collect();
    let mut tuples = Vec::new();
    for (slot, old) in draft.pick(rng, at, true, count) {
        let old = old.expect("a row that is there was asked for");
        let version = draft.next_version();
        let row = changed(rng, table, &old, version, &set);
        let values: Vec<Value> = written.iter().map(|at| row[*at].clone()).collect();
        tuples.push(tuple(&columns, &values));
        draft.change(Op::Update, version, Some((slot, old)), Some((slot, row)));
    }
    if tuples.is_empty() {
        return Ok(());
    }
    let equal = |column: &&Column| format!("{0} = v.{0}", column.name);
    let sets: Vec<String> = columns[table.keys..].iter().map(equal).collect();
    let keys: Vec<String> =
        columns[..table.keys].iter().map(|column| format!("t.{0} = v.{0}", column.name)).collect();
    let sql = format!(
        "UPDATE {} AS t SET {} FROM (VALUES {}) AS v ({}) WHERE {}",
        name(table),
        sets.join(", "),
        tuples.join(", "),
        names(&columns),
        keys.join(" AND ")
    );
    execute(client, &sql, tuples.len()).await
}

/// An `UPDATE` that gives a row another key, with or without other changes.
pub(super) async fn change_key(client: &Client, draft: &mut Draft<'_>, rng: &mut StdRng) -> Result<(), Lost> {
    let at = any_table(rng);
    let table = &TABLES[at];
    let Some((from, Some(old))) = draft.pick(rng, at, true, 1).pop() else { return Ok(()) };
    let Some((to, None)) = draft.pick(rng, at, false, 1).pop() else { return Ok(()) };
    let version = draft.next_version();
    let set = any_columns(rng, table);
    let mut row = changed(rng, table, &old, version, &set).to_vec();
    for (value, part) in row.iter_mut().zip(table.key(to.1).iter()) {
        *value = Some(part.clone());
    }
    let sets: Vec<String> = ((0..table.keys).chain(set))
        .map(|at| format!("{} = {}", table.columns[at].name, literal(&table.columns[at], &row[at])))
        .collect();
    let sql = format!("UPDATE {} SET {} WHERE {}", name(table), sets.join(", "), is_key(table, &old));
    draft.change(Op::Update, version, Some((from, old)), Some((to, row.into())));
    execute(client, &sql, 1).await
}

pub(super) async fn delete(client: &Client, draft: &mut Draft<'_>, rng: &mut StdRng) -> Result<(), Lost> {
    let (at, count) = (any_table(rng), any_count(rng));
    let table = &TABLES[at];
    let mut picked: Vec<(Slot, Option<Row>)> = draft.pick(rng, at, true, count);
    picked.retain(|(slot, _)| !draft.has_deleted(*slot));
    let mut keys = Vec::new();
    for (slot, old) in picked {
        let old = old.expect("a row that is there was asked for");
        keys.push(format!("({})", is_key(table, &old)));
        let version = draft.next_version();
        draft.change(Op::Delete, version, Some((slot, old)), None);
    }
    if keys.is_empty() {
        return Ok(());
    }
    let sql = format!("DELETE FROM {} WHERE {}", name(table), keys.join(" OR "));
    execute(client, &sql, keys.len()).await
}

/// Empties one table or two in one statement; nothing when another truncation is at work.
pub(super) async fn truncate(client: &Client, draft: &mut Draft<'_>, rng: &mut StdRng) -> Result<(), Lost> {
    let first = any_table(rng);
    let mut tables = vec![first];
    if rng.random() {
        tables.push((first + 1) % TABLES.len());
    }
    if !draft.close(&tables).await {
        return Ok(());
    }
    for table in &tables {
        draft.truncate(*table);
    }
    let names: Vec<String> = tables.iter().map(|at| name(&TABLES[*at])).collect();
    execute(client, &format!("TRUNCATE {}", names.join(", ")), 0).await
}

/// A savepoint, a way back to one, or the end of one.
pub(super) async fn savepoint(client: &Client, draft: &mut Draft<'_>, rng: &mut StdRng) -> Result<(), Lost> {
    let open = draft.savepoints();
    let sql = if open == 0 || rng.random() {
        format!("SAVEPOINT s{}", draft.save())
    } else {
        let to = rng.random_range(0..open);
        if rng.random_ratio(2, 3) {
            draft.roll_back_to(to);
            format!("ROLLBACK TO SAVEPOINT s{to}")
        } else {
            draft.release(to);
            format!("RELEASE SAVEPOINT s{to}")
        }
    };
    execute(client, &sql, 0).await
}
