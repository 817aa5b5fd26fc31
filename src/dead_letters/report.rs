//! What an operator sees of dead letters: how many there are and why, and the letters themselves. Only reads, so it
//! works beside a daemon and without one.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use forebay_api::Fault;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::letter::Letter;
use super::lines::look;
use super::{fault, folder};

/// Keys that a report names; there may be a million.
const KEYS: usize = 20;

/// Which letters are meant. All conditions must hold; none means all letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// One of these ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub id: Vec<String>,
    /// The key: its JSON, or as a report names it; `schema.table` for events without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The reason's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Selection {
    /// Whether it means every letter.
    pub fn is_all(&self) -> bool {
        *self == Selection::default()
    }

    /// Whether it means this one.
    pub fn takes(&self, letter: &Letter) -> bool {
        (self.id.is_empty() || self.id.contains(&letter.id))
            && self.reason.as_ref().is_none_or(|reason| *reason == letter.reason)
            && self.key.as_ref().is_none_or(|key| {
                letter.key_text().is_some_and(|text| same_json(key, &text))
                    || letter.place() == Some(key.clone())
            })
    }
}

/// Whether two texts are the same, or the same JSON.
fn same_json(one: &str, other: &str) -> bool {
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    one == other || value(one).is_some_and(|one| value(other) == Some(one))
}

/// The dead letters of one destination in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Open letters.
    pub letters: u64,
    /// Bytes of their lines.
    pub bytes: u64,
    /// How many were refused for which reason.
    pub reasons: BTreeMap<String, u64>,
    /// How many there are of a key; the twenty keys with most.
    pub keys: Vec<(String, u64)>,
    /// How many keys there are.
    pub keys_in_all: u64,
    /// Of how many it is not known how to deliver them again: they were written by the first version.
    pub not_replayable: u64,
    /// When the oldest was stored.
    pub oldest: Option<String>,
    /// When the newest was stored.
    pub newest: Option<String>,
}

/// Letters to look at.
#[derive(Debug, Default)]
pub struct Shown {
    /// The first of them, oldest first.
    pub letters: Vec<Letter>,
    /// How many more there are.
    pub more: u64,
}

impl Report {
    /// Of one destination.
    pub fn of(data_dir: &Path, destination: &str) -> Result<Report, Fault> {
        let mut report = Report::default();
        let mut keys: BTreeMap<String, u64> = BTreeMap::new();
        look_at(data_dir, destination, |letter| {
            let mut line = Vec::new();
            letter.write(&mut line);
            report.letters += 1;
            report.bytes += line.len() as u64;
            match letter.place() {
                Some(key) => *keys.entry(key).or_default() += 1,
                None => report.not_replayable += 1,
            }
            *report.reasons.entry(letter.reason).or_default() += 1;
            report.oldest.get_or_insert_with(|| letter.time.clone());
            report.newest = Some(letter.time);
            true
        })?;
        report.keys_in_all = keys.len() as u64;
        report.keys = keys.into_iter().collect();
        report.keys.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        report.keys.truncate(KEYS);
        Ok(report)
    }
}

impl Shown {
    /// The first `limit` letters of a selection.
    pub fn of(
        data_dir: &Path,
        destination: &str,
        selection: &Selection,
        limit: usize,
    ) -> Result<Shown, Fault> {
        let mut shown = Shown::default();
        look_at(data_dir, destination, |letter| {
            if selection.takes(&letter) {
                if shown.letters.len() < limit {
                    shown.letters.push(letter);
                } else {
                    shown.more += 1;
                }
            }
            true
        })?;
        Ok(shown)
    }
}

/// The destinations that have a folder for their letters, those that the configuration has no more included.
pub fn destinations(data_dir: &Path) -> Result<Vec<String>, Fault> {
    let all = data_dir.join("dead_letters");
    let read = || -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(&all) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort();
        Ok(names)
    };
    read().map_err(|error| fault("looking for dead letters", &all, error))
}

fn look_at(data_dir: &Path, destination: &str, each: impl FnMut(Letter) -> bool) -> Result<(), Fault> {
    let folder = folder(data_dir, destination);
    look(&folder, each).map_err(|error| fault("reading dead letters", &folder, error))
}
