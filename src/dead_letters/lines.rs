//! The lines in the files of dead letters, and reading them. See [`super::files`] for what they mean together.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::key::{Digest, digest};
use super::letter::Letter;

/// What a line that is no letter says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Said {
    /// The letter is no letter any more.
    Settled {
        /// The event's id.
        settled: String,
        /// Why.
        how: How,
        /// When.
        time: String,
    },
    /// It was delivered again and refused again.
    Retried {
        /// The event's id.
        retried: String,
        /// Attempts in all.
        attempts: u32,
        /// The word of the last refusal.
        reason: String,
        /// What the destination said.
        chain: Vec<String>,
        /// When.
        time: String,
    },
}

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Its destination has taken it.
    Replayed,
    /// An operator gave it up.
    Dropped,
    /// The destination of `dead_letters.to` has it.
    Forwarded,
}

/// One line.
#[derive(Debug)]
pub(super) enum Line {
    Letter(Box<Letter>),
    Said(Said),
}

/// A line in the middle of a file that says nothing.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of `{}` is damaged", file.display())]
pub(super) struct Damaged {
    file: PathBuf,
    line: usize,
    source: serde_json::Error,
}

/// Reads every line in the order in which they were written, and gives each letter that is open to `each`, with its
/// attempts, until that has seen enough. Needs no lock: what is appended or removed meanwhile is seen or not.
pub(super) fn look(folder: &Path, mut each: impl FnMut(Letter) -> bool) -> io::Result<()> {
    let mut open: HashMap<Digest, (u64, u64, u32)> = HashMap::new();
    let files = list(folder)?;
    for (number, path) in &files {
        read_lines(path, |at, _, line| {
            match line {
                Line::Letter(letter) => {
                    open.entry(id_digest(&letter.id)).or_insert((*number, at, letter.attempts));
                }
                Line::Said(Said::Settled { settled, .. }) => drop(open.remove(&id_digest(&settled))),
                Line::Said(Said::Retried { retried, attempts, .. }) => {
                    open.entry(id_digest(&retried)).and_modify(|entry| entry.2 = attempts);
                }
            }
            Ok(())
        })?;
    }
    let mut enough = false;
    for (number, path) in &files {
        if enough {
            break;
        }
        read_lines(path, |at, _, line| {
            let Line::Letter(mut letter) = line else { return Ok(()) };
            let found =
                open.get(&id_digest(&letter.id)).filter(|(file, place, _)| (file, place) == (number, &at));
            if let (Some((_, _, attempts)), false) = (found, enough) {
                letter.attempts = *attempts;
                enough = !each(*letter);
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Calls `each` with every whole line: where it begins, how long it is, what it says.
pub(super) fn read_lines(
    path: &Path,
    mut each: impl FnMut(u64, usize, Line) -> io::Result<()>,
) -> io::Result<()> {
    let file = match File::open(path) {
        // whoever has the lock removed it
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let mut reader = BufReader::new(file);
    let (mut line, mut at, mut number) = (Vec::new(), 0, 0);
    while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        number += 1;
        let parsed = parse(&line).map_err(|source| {
            let damaged = Damaged { file: path.to_owned(), line: number, source };
            io::Error::new(io::ErrorKind::InvalidData, damaged)
        })?;
        each(at, line.len(), parsed)?;
        at += line.len() as u64;
        line.clear();
    }
    Ok(())
}

fn parse(line: &[u8]) -> Result<Line, serde_json::Error> {
    if line.starts_with(b"{\"settled\":") || line.starts_with(b"{\"retried\":") {
        return Ok(Line::Said(serde_json::from_slice(line)?));
    }
    Ok(Line::Letter(Box::new(serde_json::from_slice(line)?)))
}

/// The files by their numbers; none where there is no folder.
pub(super) fn list(folder: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut files = BTreeMap::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if let Some(number) = file_number(&path) {
            files.insert(number, path);
        }
    }
    Ok(files)
}

/// A last line without an end was never acknowledged.
pub(super) fn cut_torn_line(path: &Path) -> io::Result<()> {
    let bytes = fs::metadata(path)?.len();
    let mut reader = BufReader::new(File::open(path)?);
    let (mut line, mut whole) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        whole += line.len() as u64;
        line.clear();
    }
    if whole < bytes {
        warn!(file = %path.display(), bytes = bytes - whole, "a torn line in the dead letters is cut off; it was never acknowledged");
        OpenOptions::new().write(true).open(path)?.set_len(whole)?;
    }
    Ok(())
}

pub(super) fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:06}.ndjson"))
}

fn file_number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".ndjson")?.parse().ok()
}

/// What stands for an id in memory.
pub(super) fn id_digest(id: &str) -> Digest {
    digest(&[id.as_bytes()])
}
