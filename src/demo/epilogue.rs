//! The last words of a demo that went well: what was proven, where the files are, and how to go on.

use std::path::Path;

use indicatif::{HumanBytes, HumanCount};

use super::child::{CONFIG, FILES};
use super::evidence::Evidence;
use super::ledger::Ledger;
use super::run::{Copy, Outcome};
use super::screen::Screen;
use super::shop::TABLES;

/// A minimal configuration for the reader's own database.
const MINIMAL: &str = "\
sources:
  shop:
    type: postgres
    url: ${DATABASE_URL}
    tables: [\"public.*\"]
destinations:
  files: {type: file, path: ./events/shop.ndjson}
";

/// Tells it. `place` is the demo's folder, of which the event files are there, and all when it was to be kept.
pub(super) fn tell(screen: &Screen, outcome: &Outcome, place: &Path, keep: bool) {
    let Outcome { filled, ledger, copy, meanwhile, files, table } = outcome;
    screen.say(&format!(
        "\nThe shop had {} rows in {} tables. It committed {} changes of {} rows\nby {} transactions, and took {} transactions back.",
        HumanCount(filled.rows()),
        TABLES.len(),
        HumanCount(ledger.total),
        HumanCount(ledger.keys()),
        HumanCount(ledger.transactions),
        HumanCount(ledger.rolled_back),
    ));
    screen.say(&killed(copy, *meanwhile));
    for (name, evidence) in [("files", files), ("table", table)] {
        screen.say(&found(name, evidence, ledger));
    }
    screen.say("Nothing was lost, nothing is out of order for any row, and nothing is twice in the table.\n");
    screen.say(&format!("The events are in {} ({})", place.join(FILES).display(), HumanBytes(files.bytes)));
    if keep {
        screen.say(&format!(
            "The configuration is {}; log and checkpoints are beside it.",
            place.join(CONFIG).display()
        ));
    }
    screen.say(&format!("\n{}", go_on()));
}

/// What was done to the daemon, as it was.
fn killed(copy: &Copy, meanwhile: u64) -> String {
    let first = match copy.killed_at {
        Some(rows) => format!(
            "when {} of {} rows were copied (it went on at row {})",
            HumanCount(rows),
            HumanCount(copy.rows),
            HumanCount(copy.resumed_at)
        ),
        None => "just after the copy, which was over too soon".to_owned(),
    };
    format!(
        "Forebay was killed twice: {first},\nand in the stream; {} and {} of the changes were committed while it was dead.",
        HumanCount(copy.meanwhile),
        HumanCount(meanwhile)
    )
}

/// How to go on, with commands that can be typed as they stand here.
fn go_on() -> String {
    let program = std::env::current_exe().map_or("forebay".to_owned(), |path| path.display().to_string());
    let minimal: String = MINIMAL.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "To go on with your own database, which needs `wal_level = logical`, write forebay.yaml:

{minimal}
and then:

  export DATABASE_URL=postgres://user:password@host/database
  {program} check     # says what is missing, and the SQL that mends it
  {program} run"
    )
}

/// What is in one of the destinations.
fn found(name: &str, evidence: &Evidence, ledger: &Ledger) -> String {
    let said = &evidence.testimony;
    let mut text = format!(
        "  {name}: {} of {} rows: {} copied",
        HumanCount(said.copied + said.overtaken),
        HumanCount(ledger.filled),
        HumanCount(said.copied),
    );
    if said.overtaken > 0 {
        text += &format!(", {} changed or deleted before their turn", HumanCount(said.overtaken));
    }
    text += &format!(
        "\n         {} of {} changes, each row's in order",
        HumanCount(said.changes),
        HumanCount(ledger.total)
    );
    if said.copied_too > 0 {
        text += &format!(
            "\n         {} rows that were made during the copy were copied, too, behind their inserts",
            HumanCount(said.copied_too)
        );
    }
    text += &match said.again() {
        0 => "\n         no event is there twice".to_owned(),
        again => format!(
            "\n         {} events came again after a kill ({} copied rows, {} changes), under the same ids",
            HumanCount(again),
            HumanCount(said.copied_again),
            HumanCount(said.repeats)
        ),
    };
    if said.schemas > 0 {
        text += &format!("\n         {} events that say what rows look like", HumanCount(said.schemas));
    }
    if said.others > 0 {
        text += &format!("\n         {} events that are no changes of rows", HumanCount(said.others));
    }
    text + &format!(
        "\n         replayed, they give the {} rows that are in the tables now, value by value",
        HumanCount(evidence.replay.rows)
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::proof::Testimony;
    use super::*;
    use crate::config::{self, Environment};
    use crate::connectors;

    #[test]
    fn the_minimal_configuration_is_one() {
        let variable = ("DATABASE_URL", "postgres://user:password@host/database");
        let environment: Environment = std::iter::once(variable).collect();
        if let Err(error) = config::read("forebay.yaml", MINIMAL, &connectors::registry(), &environment) {
            panic!("{}", error.render(false));
        }
    }

    #[test]
    fn events_that_came_twice_are_counted_and_explained() {
        let ledger = Ledger { filled: 500, total: 1200, ..Ledger::default() };
        let testimony = Testimony { changes: 1200, copied: 498, overtaken: 2, ..Testimony::default() };
        let once = Evidence { testimony, ..Evidence::default() };
        let text = found("files", &once, &ledger);
        assert!(
            text.contains("500 of 500 rows: 498 copied, 2 changed or deleted before their turn"),
            "{text}"
        );
        assert!(text.contains("1,200 of 1,200 changes, each row's in order"), "{text}");
        assert!(text.contains("no event is there twice"), "{text}");
        let testimony = Testimony { repeats: 7, copied_again: 3000, schemas: 4, ..Testimony::default() };
        let twice = Evidence { testimony, ..Evidence::default() };
        let text = found("files", &twice, &ledger);
        assert!(
            text.contains("3,007 events came again after a kill (3,000 copied rows, 7 changes)"),
            "{text}"
        );
        assert!(text.contains("4 events that say what rows look like"), "{text}");
    }

    #[test]
    fn a_kill_that_came_too_late_for_the_copy_is_not_called_one_in_its_middle() {
        let took = Duration::from_secs(1);
        let copy = Copy { killed_at: Some(180), resumed_at: 200, rows: 440, meanwhile: 9, took };
        assert!(killed(&copy, 8).contains("when 180 of 440 rows were copied (it went on at row 200)"));
        let late = Copy { killed_at: None, ..copy };
        assert!(killed(&late, 8).contains("just after the copy"));
    }
}
