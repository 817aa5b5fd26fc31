//! What is stored of a source's snapshots: a [`Record`] for each table and one [`Whole`] for all of them.
//!
//! Invariant: what cannot be read is a fault for the operator and never a fresh start, because a copy that is taken
//! for not begun, or for done, loses rows.

use std::collections::BTreeMap;

use forebay_api::{Blame, Fault, Range};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::state::{Kind, StateStore};

/// What is written now.
const VERSION: u32 = 1;

/// Why a table is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It was there when the source was started first.
    Initial,
    /// It was added later.
    Added,
    /// An operator asked for it.
    Asked,
    /// Changes were lost.
    Anew,
}

impl Reason {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Initial => "initial",
            Reason::Added => "added",
            Reason::Asked => "asked",
            Reason::Anew => "anew",
        }
    }
}

/// How far a table's copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Its turn has not come.
    Waiting,
    /// It is divided, and what is left of it is known.
    Copying,
    /// Every row is durable in every required destination.
    Done,
    /// Nobody wants it copied.
    NotCopied,
    /// Given up: by an operator, or because the source refused what an operator had asked for.
    Stopped,
}

impl State {
    /// Whether something is left to do.
    pub(super) fn is_open(self) -> bool {
        matches!(self, State::Waiting | State::Copying)
    }
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Which copy; 0 where it never was copied.
    pub(super) number: u32,
    /// Which round it belongs to: copies that were under way together are counted together.
    pub(super) round: u32,
    pub(super) reason: Reason,
    /// Only the rows for which this holds.
    pub(super) filter: Option<String>,
    /// What its marks and ids belong to.
    pub(super) identity: String,
    /// Which table of this name it is about.
    pub(super) incarnation: String,
    pub(super) state: State,
    /// Held by an operator.
    pub(super) paused: bool,
    /// What is left, of a table that is being copied.
    pub(super) ranges: Vec<Range>,
    /// What is read when all of `ranges` are durable.
    pub(super) last: Option<Range>,
    /// Rows that are durable.
    pub(super) rows: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// In so many chunks.
    pub(super) chunks: u64,
    pub(super) estimated_rows: Option<u64>,
    /// When it was divided first, in microseconds since the Unix epoch.
    pub(super) started: Option<i64>,
    /// When the last row became durable.
    pub(super) finished: Option<i64>,
    /// Why the source refused to copy it.
    pub(super) problem: Option<String>,
}

impl Record {
    /// A copy whose turn has not come.
    pub(super) fn waiting(number: u32, round: u32, reason: Reason, identity: &str) -> Record {
        Record {
            number,
            round,
            reason,
            filter: None,
            identity: identity.to_owned(),
            incarnation: String::new(),
            state: State::Waiting,
            paused: false,
            ranges: Vec::new(),
            last: None,
            rows: 0,
            bytes: 0,
            chunks: 0,
            estimated_rows: None,
            started: None,
            finished: None,
            problem: None,
        }
    }

    /// What speaks against its having been written by us.
    fn nonsense(&self) -> Option<&'static str> {
        let is_left = !self.ranges.is_empty() || self.last.is_some();
        match self.state {
            State::Copying if !is_left => Some("it is being copied, and nothing of it is left"),
            State::Copying => None,
            _ if is_left => Some("it is not being copied, and something of it is left"),
            State::Waiting | State::Done if self.number == 0 => Some("its copy has no number"),
            _ => None,
        }
    }
}

/// What holds for all tables of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Whole {
    /// Whether it was decided what is copied of the tables that were there at first. Not so after a first start that
    /// was cut off early.
    pub(super) decided: bool,
    /// Held by an operator.
    pub(super) paused: bool,
    /// The highest number of a copy whose record was removed: a table that comes back must not give its rows the ids
    /// that they had.
    pub(super) vanished: u32,
    /// The latest round.
    pub(super) round: u32,
}

/// All that is stored of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// `None`: the source's tables were never looked at.
    pub(super) whole: Option<Whole>,
    pub(super) tables: BTreeMap<String, Record>,
}

/// What is to be stored: a table's record, `None` to remove it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Values {
    pub(super) whole: Option<Whole>,
    pub(super) tables: BTreeMap<String, Option<Record>>,
}

/// Everything begins with a number that says how to read the rest.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Versioned<T> {
    version: u32,
    value: T,
}

/// The part that every version can read.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The key of a table; that of no table is the whole's.
fn key(source: &str, table: &str) -> String {
    format!("{source}/{table}")
}

/// Reads what is stored of a source.
pub(super) async fn load(store: &dyn StateStore, source: &str) -> Result<Kept, Fault> {
    let prefix = key(source, "");
    let mut kept = Kept::default();
    for (key, value) in store.all(Kind::Snapshots, &prefix).await? {
        let table = key.strip_prefix(&prefix).expect("the store gives what begins so");
        if table.is_empty() {
            kept.whole = Some(decode(&key, &value)?);
            continue;
        }
        let record: Record = decode(&key, &value)?;
        if let Some(why) = record.nonsense() {
            return Err(unreadable(&key, why));
        }
        kept.tables.insert(table.to_owned(), record);
    }
    Ok(kept)
}

/// The form in which values are stored.
pub(super) fn encoded(source: &str, values: &Values) -> Vec<(String, Option<Vec<u8>>)> {
    let whole = values.whole.iter().map(|whole| (key(source, ""), Some(encode(whole))));
    let tables =
        values.tables.iter().map(|(table, record)| (key(source, table), record.as_ref().map(encode)));
    whole.chain(tables).collect()
}

fn encode<T: Serialize>(value: T) -> Vec<u8> {
    serde_json::to_vec(&Versioned { version: VERSION, value }).expect("records are plain JSON")
}

fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, Fault> {
    let known: Version = serde_json::from_slice(value).map_err(|error| unreadable(key, error))?;
    if known.version != VERSION {
        let error = format!("it has version {}; this Forebay reads version {VERSION}", known.version);
        return Err(Fault::fatal(reading(key), Blame::Outside, error)
            .with_remedy("run the Forebay that stored it, or a newer one"));
    }
    let read: Versioned<T> = serde_json::from_slice(value).map_err(|error| unreadable(key, error))?;
    Ok(read.value)
}

fn reading(key: &str) -> String {
    format!("reading how far the copy of `{key}` is")
}

fn unreadable(key: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::fatal(reading(key), Blame::Outside, error).with_remedy(
        "run the Forebay that stored it, or a newer one; if it is damaged, `forebay checkpoint reset` of the source \
         lets it begin anew, with everything copied again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::MemoryState;

    fn record() -> Record {
        let mut record = Record::waiting(3, 2, Reason::Asked, "abc");
        record.state = State::Copying;
        record.filter = Some("x > 5".to_owned());
        record.ranges = vec![Range("a".to_owned()), Range("b".to_owned())];
        record
    }

    async fn stored(value: &[u8]) -> Result<Kept, Fault> {
        let store = MemoryState::default();
        let key = key("shop", "public.t");
        store.put(Kind::Snapshots, vec![(key, Some(value.to_vec()))]).await.unwrap();
        load(&store, "shop").await
    }

    #[tokio::test]
    async fn what_is_stored_is_read_back() {
        let store = MemoryState::default();
        let whole = Whole { decided: true, vanished: 7, ..Whole::default() };
        // names of tables may hold anything
        let names = ["public.t", "a/b", "/"];
        let tables: BTreeMap<_, _> = names.map(|name| (name.to_owned(), record())).into();
        let values = Values {
            whole: Some(whole.clone()),
            tables: tables.iter().map(|(name, record)| (name.clone(), Some(record.clone()))).collect(),
        };
        store.put(Kind::Snapshots, encoded("shop", &values)).await.unwrap();
        store.put(Kind::Snapshots, encoded("shop2", &Values::default())).await.unwrap();
        assert_eq!(load(&store, "shop").await.unwrap(), Kept { whole: Some(whole), tables });
        assert_eq!(load(&store, "sho").await.unwrap(), Kept::default());
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_refused_with_what_to_do() {
        let good = String::from_utf8(encode(record())).unwrap();
        let damaged = [
            String::new(),
            good[..good.len() - 2].to_owned(),
            good.replacen("\"number\"", "\"numbers\"", 1),
            good.replacen("\"copying\"", "\"gone\"", 1),
            good.replacen("[\"a\",\"b\"]", "[]", 1),
            good.replacen("\"copying\"", "\"done\"", 1),
            good.replacen("\"version\":1", "\"version\":2", 1),
        ];
        for value in damaged {
            assert_ne!(value, good);
            let fault = stored(value.as_bytes()).await.unwrap_err();
            assert!(!fault.is_retryable(), "{value}");
            assert!(fault.to_string().contains("`shop/public.t`"), "{fault}");
            assert!(fault.remedy().is_some(), "{fault}");
        }
        stored(good.as_bytes()).await.unwrap();
    }
}
