//! The last words of a demo that went well: what was proven, where the files are, and how to go on.

use std::path::Path;

use indicatif::HumanCount;

use super::child::{CONFIG, FILES};
use super::proof::Testimony;
use super::run::Outcome;
use super::screen::Screen;
use super::shop::TABLES;

/// A minimal configuration for the reader's own database.
const MINIMAL: &str = "\
sources:
  shop:
    type: postgres
    url: ${DATABASE_URL}
    tables: [\"public.*\"]
    snapshot: never
destinations:
  files: {type: file, path: ./events/shop.ndjson}
";

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
    screen.say(&format!("\n{}", go_on()));
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
    fn lines_that_came_twice_are_counted_and_explained() {
        let said = Testimony { changes: 1200, repeats: 7, ..Testimony::default() };
        let text = found(&said, 1200);
        assert!(text.starts_with("1,200 of 1,200 changes"), "{text}");
        assert!(text.contains("7 lines came a second time after the kill, under the same ids"), "{text}");
        let once = Testimony { changes: 1200, ..Testimony::default() };
        assert!(found(&once, 1200).ends_with("each once"));
    }
}
