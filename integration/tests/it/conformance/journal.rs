//! The suites against the journal on disk: as a destination, and as a source.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use forebay_api::testing::destination::{DestinationRig, SOURCE, body, check, checks};
use forebay_api::testing::source::{SourceRig, conform};
use forebay_api::{Destination, Event, Journal, Position, ReaderSetting, Source, Start};
use tempfile::TempDir;

use crate::journal::rig::{batch, deliver, held, journal, read_all};

/// How many changes share a chunk.
const CHUNK: usize = 7;

/// The reader that the suite for sources drives.
const READER: &str = "conformance";

/// A journal in a folder of its own.
struct Rig {
    folder: TempDir,
    journal: Mutex<Arc<dyn Journal>>,
    /// Whether the writer was opened.
    opened: tokio::sync::Mutex<bool>,
}

impl Rig {
    fn new() -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let journal = Mutex::new(journal(folder.path(), "1GiB"));
        Rig { folder, journal, opened: tokio::sync::Mutex::new(false) }
    }

    fn journal(&self) -> Arc<dyn Journal> {
        self.journal.lock().unwrap().clone()
    }
}

#[async_trait::async_trait]
impl DestinationRig for Rig {
    async fn build(&self) -> Arc<dyn Destination> {
        let new = journal(self.folder.path(), "1GiB");
        *self.journal.lock().unwrap() = new.clone();
        new.writer()
    }

    async fn stored(&self) -> Option<Vec<Vec<u8>>> {
        let chunks = read_all(&self.journal(), "stored").await;
        Some(chunks.iter().flat_map(|chunk| chunk.events().map(body)).collect())
    }

    fn keeps_marks(&self) -> bool {
        true
    }
}

/// Checks that cannot be made, with the reason.
const NOT_MADE: [(&str, &str); 6] = [
    ("a_record_that_is_too_large_is_rejected", "no size is too large"),
    ("a_refused_record_is_rejected", "no content is refused"),
    ("a_server_that_is_killed_loses_nothing", "there is no server"),
    ("a_connection_that_is_cut_loses_nothing", "there is no connection"),
    ("a_server_that_refuses_for_a_while_loses_nothing", "`journal::faults` has a full disk"),
    ("a_slow_server_loses_nothing", "there is no server"),
];

#[tokio::test]
async fn a_journal_conforms_as_a_destination() {
    assert_eq!(SOURCE, "conformance");
    for name in checks().filter(|name| NOT_MADE.iter().all(|(not_made, _)| not_made != name)) {
        assert_eq!(check(name, &Rig::new()).await, Ok(()), "{name}");
    }
    for (name, _) in NOT_MADE {
        assert!(checks().any(|check| check == name), "{name} is no check any more");
    }
}

#[async_trait::async_trait]
impl SourceRig for Rig {
    async fn build(&self) -> Box<dyn Source> {
        let setting =
            ReaderSetting { name: READER.into(), required: true, start: Start::Oldest, until: None };
        self.journal().reader(setting)
    }

    async fn write(&self, numbers: Range<u64>) {
        let writer = self.journal().writer();
        let mut opened = self.opened.lock().await;
        if !std::mem::replace(&mut *opened, true) {
            held(&writer).await.unwrap();
        }
        let numbers: Vec<u64> = numbers.collect();
        for chunk in numbers.chunks(CHUNK) {
            deliver(&writer, &batch(chunk.iter().copied(), 20)).await.unwrap();
        }
    }

    fn number(&self, event: Event<'_>) -> Option<u64> {
        let row: serde_json::Value = serde_json::from_slice(event.payload()).unwrap();
        row["number"].as_u64()
    }

    /// What the journal was told is the reader's place in it.
    async fn confirmed(&self, position: &Position) -> Option<Ordering> {
        let at = |position: &Position| {
            let position: serde_json::Value = serde_json::from_slice(&position.0).unwrap();
            position["at"].as_u64().unwrap()
        };
        let journal = self.journal();
        let place = journal.status().readers.into_iter().find(|reader| reader.name == READER)?;
        let told = at(&journal.end().await.unwrap()) - place.behind?;
        Some(told.cmp(&at(position)))
    }
}

#[tokio::test]
async fn a_journal_conforms_as_a_source() {
    let exceptions =
        [("a_server_that_restarts_loses_nothing", "it is in this process; `journal::kill` ends that")];
    conform(&exceptions, async |_| Rig::new()).await;
}
