//! Dead letters for people.

use indicatif::{HumanBytes, HumanCount};

use crate::cli::table::aligned;
use crate::dead_letters::{Letter, Report};

/// How much of a record is shown to a person.
const SHOWN_BYTES: usize = 400;

/// One destination for people.
pub(super) fn picture(name: &str, report: &Report) -> String {
    let mut text = format!(
        "{name}: {}, {}, stored from {} to {}\n",
        letters(report.letters),
        HumanBytes(report.bytes),
        report.oldest.as_deref().unwrap_or("?"),
        report.newest.as_deref().unwrap_or("?")
    );
    let count = |(word, count): (&String, &u64)| vec![word.clone(), HumanCount(*count).to_string()];
    let mut rows = vec![vec!["reason".to_owned(), "letters".to_owned()]];
    rows.extend(report.reasons.iter().map(count));
    text += &aligned("  ", &rows);
    let mut rows = vec![vec!["key".to_owned(), "letters".to_owned()]];
    rows.extend(report.keys.iter().map(|(key, letters)| count((key, letters))));
    text += &aligned("  ", &rows);
    let more = report.keys_in_all - report.keys.len() as u64;
    if more > 0 {
        text += &format!("  and {} more keys\n", HumanCount(more));
    }
    if report.not_replayable > 0 {
        text += &format!(
            "  {} written by a first version, which cannot be replayed\n",
            letters(report.not_replayable)
        );
    }
    text
}

/// One letter for people.
pub(super) fn in_lines(letter: &Letter) -> String {
    let record = letter.record.get();
    let mut end = SHOWN_BYTES.min(record.len());
    while !record.is_char_boundary(end) {
        end -= 1;
    }
    let cut = if end < record.len() {
        format!("… ({}; `--json` shows all)", HumanBytes(record.len() as u64))
    } else {
        String::new()
    };
    let attempts = if letter.attempts == 1 { "attempt" } else { "attempts" };
    let mut rows = vec![
        ["id", &letter.id].map(str::to_owned).to_vec(),
        ["stored", &letter.time].map(str::to_owned).to_vec(),
        vec!["reason".to_owned(), format!("{}, {} {attempts}", letter.reason, letter.attempts)],
        vec!["key".to_owned(), letter.place().unwrap_or_else(|| "not known".to_owned())],
    ];
    rows.extend(letter.chain.iter().map(|said| vec!["said".to_owned(), said.clone()]));
    rows.push(vec!["record".to_owned(), format!("{}{cut}", &record[..end])]);
    aligned("", &rows)
}

/// `1 letter`, `1,234 letters`.
pub(super) fn letters(count: u64) -> String {
    format!("{} {}", HumanCount(count), if count == 1 { "letter" } else { "letters" })
}
