//! Lays before the proof what is there: the lines of the files, the rows of the table. And replays both, which the
//! database itself then compares with its tables: by their own types, column by column.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Cursor};
use std::path::{Path, PathBuf};

use forebay_api::{Blame, Fault};
use futures::{SinkExt, TryStreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_postgres::Client;

use super::child::EVENTS;
use super::database::{Database, SCHEMA};
use super::ledger::Ledger;
use super::proof::{Testimony, Witness};
use super::shop::TABLES;

/// Where the events of the files are replayed.
const FROM_FILES: &str = "forebay_demo_from_files";
/// So much of the files is sent at a time.
const COPY_BYTES: usize = 1 << 20;
/// What is sorted or hashed in memory while events are replayed.
const WORK_MEMORY: &str = "64MB";

/// What one destination holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Whether all events are there, each row's in order.
    pub(super) testimony: Testimony,
    /// What becomes of its events when they are replayed.
    pub(super) replay: Replay,
    /// Bytes of JSON, or of the table with its indexes.
    pub(super) bytes: u64,
}

/// The last event of each row against the tables.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Replay {
    /// Rows that are in the tables and, but for those below, as the events say.
    pub(super) rows: u64,
    /// By table: rows that are not the same, are only in the table, or only in the events.
    pub(super) different: Vec<(&'static str, u64)>,
}

/// The parts of an event that a replay needs.
#[derive(Deserialize)]
struct Replayed<'a> {
    op: &'a str,
    name: &'a str,
    #[serde(borrow)]
    key: &'a RawValue,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// What the NDJSON files in `folder` say. They are read once, and line by line.
pub(super) async fn of_files(database: &Database, folder: &Path, ledger: &Ledger) -> Result<Evidence, Fault> {
    let sql = database.connect().await?;
    // of this session, so that nothing of it stays
    let create = format!(
        "CREATE TEMPORARY TABLE {FROM_FILES} (seq bigint NOT NULL, op text NOT NULL, name text NOT NULL, key jsonb, payload jsonb)"
    );
    sql.batch_execute(&create).await.map_err(replaying)?;
    let copy = format!("COPY {FROM_FILES} FROM STDIN");
    let mut sink = std::pin::pin!(sql.copy_in::<_, Cursor<String>>(&copy).await.map_err(replaying)?);
    let unread = |error: io::Error| {
        let doing = format!("reading the event files in `{}`", folder.display());
        Fault::fatal(doing, Blame::Outside, error)
    };
    let mut witness = Witness::new(ledger);
    let (mut seq, mut bytes, mut rows) = (0_u64, 0, String::new());
    for path in in_order(folder).map_err(unread)? {
        for line in BufReader::new(File::open(path).map_err(unread)?).split(b'\n') {
            let line = line.map_err(unread)?;
            bytes += line.len() as u64 + 1;
            seq += 1;
            witness.hear(&line);
            if let Ok(event) = serde_json::from_slice::<Replayed<'_>>(&line) {
                write_row(&mut rows, seq, &event);
            }
            if rows.len() >= COPY_BYTES {
                sink.send(Cursor::new(std::mem::take(&mut rows))).await.map_err(replaying)?;
            }
        }
    }
    sink.send(Cursor::new(rows)).await.map_err(replaying)?;
    sink.finish().await.map_err(replaying)?;
    let testimony = witness.conclude();
    let replay = replay(&sql, FROM_FILES, "payload").await?;
    Ok(Evidence { testimony, replay, bytes })
}

/// What the table says, in the order in which its rows arrived.
pub(super) async fn of_table(database: &Database, ledger: &Ledger) -> Result<Evidence, Fault> {
    let mut witness = Witness::new(ledger);
    let sql = database.connect().await?;
    let query = format!("SELECT body::text FROM {EVENTS} ORDER BY seq");
    let rows = sql.query_raw(&query, std::iter::empty::<i32>()).await.map_err(unreadable)?;
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = rows.try_next().await.map_err(unreadable)? {
        witness.hear(row.get::<_, &str>(0).as_bytes());
    }
    let testimony = witness.conclude();
    let replay = replay(&sql, EVENTS, "body -> 'payload'").await?;
    let size = format!("SELECT pg_total_relation_size('{EVENTS}')");
    let size = sql.query_one(&size, &[]).await.map_err(unreadable)?.get::<_, i64>(0);
    Ok(Evidence { testimony, replay, bytes: u64::try_from(size).unwrap_or(0) })
}

/// Compares the last event of each row with the row. The database reads the JSON as values of its own types.
async fn replay(sql: &Client, events: &str, payload: &str) -> Result<Replay, Fault> {
    sql.batch_execute(&format!("SET work_mem = '{WORK_MEMORY}'; ANALYZE {events}"))
        .await
        .map_err(replaying)?;
    let mut found = Replay::default();
    for table in TABLES {
        let key = if table == "order_items" { &["order_id", "line"][..] } else { &["id"] };
        let on: Vec<String> =
            key.iter().map(|column| format!("(arrived).{column} = there.{column}")).collect();
        let query = format!(
            "WITH newest AS (
                SELECT max(seq) AS seq FROM {events}
                WHERE name = '{SCHEMA}.{table}' AND op IN ('snapshot', 'insert', 'update', 'delete') GROUP BY key),
             replayed AS (
                SELECT arrived FROM newest JOIN {events} USING (seq),
                       jsonb_populate_record(NULL::{table}, {payload}) AS arrived WHERE op <> 'delete')
             SELECT count(there), count(*) FILTER (WHERE there IS DISTINCT FROM arrived)
             FROM {table} AS there FULL JOIN replayed ON {}",
            on.join(" AND ")
        );
        let row = sql.query_one(&query, &[]).await.map_err(replaying)?;
        let count = |column| u64::try_from(row.get::<_, i64>(column)).expect("a count is not negative");
        found.rows += count(0);
        if count(1) > 0 {
            found.different.push((table, count(1)));
        }
    }
    Ok(found)
}

/// A row as COPY takes it. JSON has no tab and no line break outside of an escape.
fn write_row(rows: &mut String, seq: u64, event: &Replayed<'_>) {
    let escaped = |json: &RawValue| json.get().replace('\\', "\\\\");
    let Replayed { op, name, key, payload } = event;
    *rows += &format!("{seq}\t{op}\t{name}\t{}\t{}\n", escaped(key), escaped(payload));
}

/// Counts changes of rows in the table as they arrive, each once.
#[derive(Default)]
pub(super) struct Arrivals {
    /// So many have arrived.
    pub(super) changes: u64,
    /// Up to here they are counted.
    seq: i64,
}

impl Arrivals {
    /// Counts those that are new.
    pub(super) async fn count(&mut self, database: &Database) -> Result<(), Fault> {
        let query = format!(
            "SELECT count(*) FILTER (WHERE op IN ('insert', 'update', 'delete')), coalesce(max(seq), $1) FROM {EVENTS} WHERE seq > $1"
        );
        let row = database.connect().await?.query_one(&query, &[&self.seq]).await.map_err(unreadable)?;
        self.changes += u64::try_from(row.get::<_, i64>(0)).expect("a count is not negative");
        self.seq = row.get(1);
        Ok(())
    }
}

/// The demo's promise, or what is wrong with it.
pub(super) fn judge(files: &Evidence, table: &Evidence) -> Result<(), Fault> {
    let mut wrong = Vec::new();
    for (place, Evidence { testimony: said, replay, .. }) in [("files", files), ("table", table)] {
        if !said.holds() {
            wrong.push(format!(
                "in the {place} {} rows and {} changes are missing, {} events are wrong",
                said.missing_rows, said.missing, said.broken
            ));
            wrong.extend(said.problems.iter().map(|problem| format!("  {problem}")));
        }
        for (name, rows) in &replay.different {
            wrong.push(format!("replaying the {place} gives {rows} rows that are not as in `{name}`"));
        }
    }
    if table.testimony.again() > 0 {
        wrong.push(format!("in the table {} events are twice", table.testimony.again()));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Fault::fatal("proving that nothing was lost", Blame::Defect, wrong.join("\n"))
        .with_remedy("report this; with `--keep` the files and the log stay"))
}

fn unreadable(error: tokio_postgres::Error) -> Fault {
    Fault::fatal(format!("reading table `{SCHEMA}.{EVENTS}`"), Blame::Outside, error)
}

fn replaying(error: tokio_postgres::Error) -> Fault {
    Fault::fatal("replaying the events in the database", Blame::Outside, error)
}

/// The files as they were written: those that were rotated away by their number, then the current one.
fn in_order(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let number = stem.rsplit_once('-').and_then(|(_, number)| number.parse::<u64>().ok());
        files.push((number.is_none(), number, path));
    }
    files.sort_unstable();
    Ok(files.into_iter().map(|(_, _, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_in_the_order_in_which_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "shop-20261123T050001Z-000009.ndjson",
            "shop-20261123T050000Z-000010.ndjson",
            "shop-20261123T050002Z-000011.ndjson",
            "shop.ndjson",
        ];
        for name in ["shop.ndjson", names[1], names[0], names[2]] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = in_order(folder.path()).unwrap();
        let found: Vec<&str> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(found, names);
    }

    fn evidence(testimony: Testimony) -> Evidence {
        Evidence { testimony, ..Evidence::default() }
    }

    #[test]
    fn a_repeat_is_harmless_in_files_and_not_in_the_table() {
        let twice = || evidence(Testimony { repeats: 1, copied_again: 2, ..Testimony::default() });
        assert!(judge(&twice(), &Evidence::default()).is_ok());
        let fault = judge(&Evidence::default(), &twice()).unwrap_err();
        assert!(fault.to_string().contains("3 events are twice"));
    }

    #[test]
    fn what_is_missing_is_said_with_its_place() {
        let lacking = evidence(Testimony { missing: 3, missing_rows: 2, ..Testimony::default() });
        let fault = judge(&lacking, &Evidence::default()).unwrap_err();
        assert!(fault.to_string().contains("in the files 2 rows and 3 changes are missing"));
    }

    #[test]
    fn a_replay_that_gives_other_rows_is_no_proof() {
        let replay = Replay { rows: 9, different: vec![("orders", 1)] };
        let other = Evidence { replay, ..Evidence::default() };
        let fault = judge(&Evidence::default(), &other).unwrap_err();
        assert!(fault.to_string().contains("replaying the table gives 1 rows that are not as in `orders`"));
    }

    #[test]
    fn a_line_becomes_a_row_that_copy_takes() {
        let line = r#"{"id":"1","op":"insert","name":"a.b","key":{"id":1},"payload":{"t":"a\\b\"\n"}}"#;
        let mut rows = String::new();
        write_row(&mut rows, 7, &serde_json::from_str(line).unwrap());
        let row = r#"7 insert a.b {"id":1} {"t":"a\\\\b\\"\\n"}"#.replace(' ', "\t") + "\n";
        assert_eq!(rows, row);
    }
}
