//! What the benches share: the programs that are measured, the rows that they read, and the figures.

mod program;
mod rows;
mod usage;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

pub use program::{client, forebay};
pub use rows::{MAJOR, ROW, SETTINGS, TABLE};
pub use usage::{Usage, load, machine, peak_memory, written};

use crate::Database;

/// CPU-seconds are told per so many rows.
pub const MILLION: f64 = 1e6;

/// Before the rows of a table there is an event of their schema.
pub const SCHEMAS: u32 = 1;

/// As `forebay` does: something outside must change.
pub const UNAVAILABLE: u8 = 69;

/// The middle one; of an even number the mean of the two in the middle.
pub fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let half = figures.len() / 2;
    match figures.len() % 2 {
        1 => figures[half],
        _ => (figures[half - 1] + figures[half]) / 2.0,
    }
}

/// Drops a slot, once its walsender has noticed that the reader is gone.
pub async fn drop_slot(database: &Database, slot: &str) {
    let left = format!("select active_pid is null from pg_replication_slots where slot_name = '{slot}'");
    database.wait_until(&left).await;
    database.execute(&format!("select pg_drop_replication_slot('{slot}')")).await;
}

/// How long a line is on average, in a file that must have so many.
pub fn average_line(file: &Path, lines: u64) -> u64 {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(file).expect("the daemon has written it"));
    let (mut found, mut bytes) = (0, 0);
    loop {
        let piece = reader.fill_buf().expect("the file can be read");
        if piece.is_empty() {
            break;
        }
        found += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
        let length = piece.len();
        bytes += length as u64;
        reader.consume(length);
    }
    assert_eq!(found, lines, "a line for each event");
    bytes / lines
}
