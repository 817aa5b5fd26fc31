//! The tables as a reader builds them from the events alone, each id applied once.
//!
//! Where the output is one sequence, in its order; else in the order of the source's positions, since a row that
//! changes its key leaves one partition for another and a truncation has a partition of its own.
//!
//! Where rows are copied too, a row may be changed before it is copied, and then the event lacks what only the copy
//! can tell. It is [`UNTOLD`] until the copy does.

use crate::workload::{Contents, Row, Table, Value};

use super::event::{Event, key_in, value_in};
use super::order::Order;
use super::report::{Defect, Report};

/// In the place of a value that no event told: no text of PostgreSQL has this character.
const UNTOLD: &str = "\u{0}never told";

/// What has been replayed, and what waits until all is there.
pub(super) struct Replay {
    pub(super) order: Order,
    /// Whether rows are copied too.
    pub(super) copies: bool,
    waiting: Vec<Event>,
    contents: Contents,
}

impl Replay {
    pub(super) fn new(order: Order) -> Replay {
        Replay { order, copies: false, waiting: Vec::new(), contents: Contents::default() }
    }

    /// Takes an event that came for the first time.
    pub(super) fn take(&mut self, event: Event, report: &mut Report) {
        match self.order {
            Order::Total => self.apply(&event, report),
            Order::PerKey | Order::None => self.waiting.push(event),
        }
    }

    /// The tables, now that nothing more will come.
    pub(super) fn finish(&mut self, report: &mut Report) -> &Contents {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_by_key(|event| event.place);
        for event in &waiting {
            self.apply(event, report);
        }
        &self.contents
    }

    fn apply(&mut self, event: &Event, report: &mut Report) {
        if let Err(why) = self.try_apply(event) {
            report.note(Defect::Replay, || format!("{event} cannot be applied: {why}"));
        }
    }

    fn try_apply(&mut self, event: &Event) -> Result<(), String> {
        let table = event.table().ok_or("the table is none of the workload's")?;
        if event.op == "truncate" {
            self.contents.clear(table);
            return Ok(());
        }
        let before = event.before.as_ref().and_then(|before| key_in(table, before));
        let key = before.or_else(|| event.key_values()).ok_or("it has no key")?;
        let old = self.contents.remove(table, &key);
        match event.op.as_str() {
            "delete" => Ok(()),
            "insert" | "update" | "snapshot" => {
                let row = new_row(event, table, old, self.copies)?;
                self.contents.put(table, row);
                Ok(())
            }
            other => Err(format!("`{other}` is no operation on a row")),
        }
    }
}

/// The payload, completed with the columns that the database did not send.
fn new_row(event: &Event, table: &'static Table, old: Option<Row>, copies: bool) -> Result<Row, String> {
    let payload = event.payload.as_ref().ok_or("it has no payload")?;
    let value = |(at, column): (usize, &'static crate::workload::Column)| -> Result<Value, String> {
        match payload.get(column.name) {
            Some(raw) => value_in(column, raw),
            None if event.unchanged.iter().any(|name| name == column.name) => match &old {
                Some(old) => Ok(old[at].clone()),
                None if copies => Ok(Some(UNTOLD.into())),
                None => Err(format!("`{}` is unchanged but unknown", column.name)),
            },
            None => Err(format!("`{}` is missing", column.name)),
        }
    };
    let row: Result<Vec<Value>, String> = table.columns.iter().enumerate().map(value).collect();
    let row = row?;
    if row[..table.keys].contains(&None) {
        return Err("a key column is null".to_owned());
    }
    Ok(row.into())
}
