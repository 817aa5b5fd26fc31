//! What the daemon keeps besides positions: small values by kind and key, in the same file and under the same lease.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use forebay_api::Fault;
use redb::{Database, ReadableDatabase, TableDefinition, TableError};

use crate::checkpoint::{FileStore, SaveError};

/// What a value is about; each kind has keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// How far a table's copy is, by `source/table`.
    Snapshots,
    /// The versions of a generated schema, by `source/vendor/name`.
    Schemas,
    /// The replays that are not done, by `source/destination/replay-<number>`.
    Replays,
}

impl Kind {
    fn table(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(match self {
            Kind::Snapshots => "snapshots",
            Kind::Schemas => "schemas",
            Kind::Replays => "replays",
        })
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Snapshots => "the progress of snapshots",
            Kind::Schemas => "generated schemas",
            Kind::Replays => "replays",
        }
    }
}

/// Keeps values.
#[async_trait]
pub trait StateStore: Send + Sync + std::fmt::Debug + 'static {
    /// Every value of a kind whose key begins with `prefix`.
    async fn all(&self, kind: Kind, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>, Fault>;

    /// Stores values, all or none, durable when it returns; `None` removes one.
    async fn put(&self, kind: Kind, values: Vec<(String, Option<Vec<u8>>)>) -> Result<(), SaveError>;
}

#[async_trait]
impl StateStore for FileStore {
    async fn all(&self, kind: Kind, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>, Fault> {
        let prefix = prefix.to_owned();
        let read = move |database: &Database| -> Result<BTreeMap<String, Vec<u8>>, redb::Error> {
            let table = match database.begin_read()?.open_table(kind.table()) {
                Ok(table) => table,
                // nothing of the kind was ever stored
                Err(TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
                Err(error) => return Err(error.into()),
            };
            let mut values = BTreeMap::new();
            for entry in table.range(prefix.as_str()..)? {
                let (key, value) = entry?;
                if !key.value().starts_with(&prefix) {
                    break;
                }
                values.insert(key.value().to_owned(), value.value().to_vec());
            }
            Ok(values)
        };
        self.reading(read).map_err(|error| Fault::retryable(format!("reading {}", kind.name()), error))
    }

    async fn put(&self, kind: Kind, values: Vec<(String, Option<Vec<u8>>)>) -> Result<(), SaveError> {
        self.writing(move |transaction| {
            let mut table = transaction.open_table(kind.table())?;
            for (key, value) in &values {
                match value {
                    Some(value) => drop(table.insert(key.as_str(), value.as_slice())?),
                    None => drop(table.remove(key.as_str())?),
                }
            }
            Ok(())
        })
        .await
    }
}

/// Keeps values for one run, for a dry run and for tests.
#[derive(Debug, Default)]
pub struct MemoryState(Mutex<BTreeMap<(Kind, String), Vec<u8>>>);

#[async_trait]
impl StateStore for MemoryState {
    async fn all(&self, kind: Kind, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>, Fault> {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_kind = values.iter().filter(|((of, key), _)| *of == kind && key.starts_with(prefix));
        Ok(of_kind.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    async fn put(&self, kind: Kind, values: Vec<(String, Option<Vec<u8>>)>) -> Result<(), SaveError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in values {
            match value {
                Some(value) => drop(kept.insert((kind, key), value)),
                None => drop(kept.remove(&(kind, key))),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn keys(store: &dyn StateStore, kind: Kind, prefix: &str) -> Vec<String> {
        store.all(kind, prefix).await.unwrap().into_keys().collect()
    }

    #[tokio::test]
    async fn values_are_kept_by_kind_and_found_by_prefix() {
        let folder = tempfile::tempdir().unwrap();
        let file = FileStore::open(folder.path()).unwrap();
        for store in [&file as &dyn StateStore, &MemoryState::default()] {
            assert!(keys(store, Kind::Snapshots, "").await.is_empty());
            let values = ["a/1", "a/2", "b/1"].map(|key| (key.to_owned(), Some(key.as_bytes().to_vec())));
            store.put(Kind::Snapshots, values.to_vec()).await.unwrap();
            store.put(Kind::Schemas, vec![("a/1".to_owned(), Some(vec![1]))]).await.unwrap();
            assert_eq!(keys(store, Kind::Snapshots, "a/").await, ["a/1", "a/2"]);
            store.put(Kind::Snapshots, vec![("a/1".to_owned(), None)]).await.unwrap();
            assert_eq!(keys(store, Kind::Snapshots, "a/").await, ["a/2"]);
            assert_eq!(keys(store, Kind::Schemas, "").await, ["a/1"]);
        }
        drop(file);
        let file = FileStore::open(folder.path()).unwrap();
        assert_eq!(keys(&file, Kind::Snapshots, "").await, ["a/2", "b/1"]);
    }
}
