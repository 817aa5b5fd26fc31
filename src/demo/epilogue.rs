//! The last words of a demo that went well: what was proven, where the files are, and how to go on.

use std::path::Path;

use indicatif::HumanCount;

use super::child::{CONFIG, FILES};
use super::proof::Testimony;
use super::run::Outcome;
use super::screen::Screen;
use super::shop::TABLES;

/// The lines of a minimal configuration for the reader's own database.
const GO_ON: &str = "\
To go on with your own database, which needs `wal_level = logical`, write forebay.yaml:

  sources:
    shop:
      type: postgres
      url: ${DATABASE_URL}
      tables: [\"public.*\"]
      snapshot: never
  destinations:
    files: {type: file, path: ./events/shop.ndjson}

and then:

  export DATABASE_URL=postgres://user:password@host/database
  forebay check     # says what is missing, and the SQL that mends it
  forebay run";

/// Tells it. `place` is the demo's folder, of which the event files are there, and all when it was to be kept.
pub(super) fn tell(screen: &Screen, outcome: &Outcome, place: &Path, keep: bool) {
    let Outcome { ledger, meanwhile, files, table } = outcome;
    screen.say(&format!(
        "\nThe shop committed {} changes of {} rows in {} tables by {} transactions, and took {} transactions back.",
        HumanCount(ledger.total),
        HumanCount(ledger.keys()),
        TABLES.len(),
        HumanCount(ledger.transactions),
        HumanCount(ledger.rolled_back),
    ));
    screen.say(&format!(
        "Forebay was killed in the middle; {} of the changes were committed while it was dead.",
        HumanCount(*meanwhile)
    ));
    for (name, said) in [("files", files), ("table", table)] {
        screen.say(&format!("  {name}: {}", found(said, ledger.total)));
    }
    screen.say("Nothing was lost, nothing is out of order for any row, and nothing is twice in the table.\n");
    screen.say(&format!("The events are in {}", place.join(FILES).display()));
    if keep {
        screen.say(&format!(
            "The configuration is {}; log and checkpoints are beside it.",
            place.join(CONFIG).display()
        ));
    }
    screen.say(&format!("\n{GO_ON}"));
}

fn found(said: &Testimony, total: u64) -> String {
    let mut text =
        format!("{} of {} changes, each row's in order", HumanCount(said.changes), HumanCount(total));
    text += &match said.repeats {
        0 => ", each once".to_owned(),
        repeats => format!(
            "; {} lines came a second time after the kill, under the same ids, so that a reader can skip them",
            HumanCount(repeats)
        ),
    };
    if said.others > 0 {
        text += &format!("; and {} events that are no changes of rows", HumanCount(said.others));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_came_twice_are_counted_and_explained() {
        let said = Testimony { changes: 1200, repeats: 7, ..Testimony::default() };
        let text = found(&said, 1200);
        assert!(text.starts_with("1,200 of 1,200 changes"), "{text}");
        assert!(text.contains("7 lines came a second time after the kill, under the same ids"), "{text}");
        let once = Testimony { changes: 1200, ..Testimony::default() };
        assert!(found(&once, 1200).ends_with("each once"));
    }
}
