//! Lays before the proof what is there: the lines of the files, the rows of the table.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use forebay_api::{Blame, Fault};
use futures::TryStreamExt;

use super::child::EVENTS;
use super::database::{Database, SCHEMA};
use super::ledger::Ledger;
use super::proof::{Testimony, Witness};

/// What the NDJSON files in `folder` say.
pub(super) fn of_files(folder: &Path, ledger: &Ledger) -> Result<Testimony, Fault> {
    let mut witness = Witness::new(ledger);
    let mut read = || {
        for path in in_order(folder)? {
            for line in BufReader::new(File::open(path)?).split(b'\n') {
                witness.hear(&line?);
            }
        }
        io::Result::Ok(())
    };
    read().map_err(|error| {
        Fault::fatal(format!("reading the event files in `{}`", folder.display()), Blame::Outside, error)
    })?;
    Ok(witness.conclude())
}

/// What the table says, in the order in which its rows arrived.
pub(super) async fn of_table(database: &Database, ledger: &Ledger) -> Result<Testimony, Fault> {
    let mut witness = Witness::new(ledger);
    let sql = database.connect().await?;
    let query = format!("SELECT body::text FROM {EVENTS} ORDER BY seq");
    let rows = sql.query_raw(&query, std::iter::empty::<i32>()).await.map_err(unreadable)?;
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = rows.try_next().await.map_err(unreadable)? {
        witness.hear(row.get::<_, &str>(0).as_bytes());
    }
    Ok(witness.conclude())
}

/// How many changes of rows are in the table.
pub(super) async fn changes_in_table(database: &Database) -> Result<u64, Fault> {
    let query = format!("SELECT count(*) FROM {EVENTS} WHERE op IN ('insert', 'update', 'delete')");
    let row = database.connect().await?.query_one(&query, &[]).await.map_err(unreadable)?;
    Ok(u64::try_from(row.get::<_, i64>(0)).expect("a count is not negative"))
}

/// The demo's promise, or what is wrong with it.
pub(super) fn judge(files: &Testimony, table: &Testimony) -> Result<(), Fault> {
    let mut wrong = Vec::new();
    for (place, said) in [("files", files), ("table", table)] {
        if !said.holds() {
            wrong.push(format!(
                "in the {place} {} changes are missing, {} are wrong",
                said.missing, said.broken
            ));
            wrong.extend(said.problems.iter().map(|problem| format!("  {problem}")));
        }
    }
    if table.repeats > 0 {
        wrong.push(format!("in the table {} events are twice", table.repeats));
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

    #[test]
    fn a_repeat_is_harmless_in_files_and_not_in_the_table() {
        let (once, twice) = (Testimony::default(), Testimony { repeats: 1, ..Testimony::default() });
        assert!(judge(&twice, &once).is_ok());
        assert!(judge(&once, &twice).unwrap_err().to_string().contains("events are twice"));
    }

    #[test]
    fn what_is_missing_is_said_with_its_place() {
        let (whole, lacking) = (Testimony::default(), Testimony { missing: 3, ..Testimony::default() });
        let fault = judge(&lacking, &whole).unwrap_err();
        assert!(fault.to_string().contains("in the files 3 changes are missing"));
    }
}
