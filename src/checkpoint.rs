//! Where positions are stored: one redb database in `data_dir`, which is also the lock against a second daemon on
//! that folder.
//!
//! Invariants: [`CheckpointStore::save`] returns only after the position is on disk; a file that cannot be read, or
//! that a newer Forebay wrote, is an error for the operator and never a fresh start. After a failure the database is
//! closed and opened anew, because redb refuses everything once its disk has failed, and a full disk gets better.

use std::collections::BTreeMap;
use std::error::Error;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use forebay_api::{Blame, Fault, Position, step};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

/// The name of the database in `data_dir`.
pub const FILE: &str = "checkpoints.redb";

/// What is written now. A file of another format is refused.
const FORMAT: u64 = 1;

/// By key: what [`Stored`] says, as JSON.
const POSITIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("positions");
/// `format` and `lease`.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// What is stored for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where the source resumes.
    pub position: Position,
    /// For each best-effort destination, the records that it had not settled when the position was stored: lost if
    /// the process died then, and counted as dropped at the next start.
    pub owed: BTreeMap<String, u64>,
}

/// The form of a [`Checkpoint`] on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// The position's bytes; positions are text wherever a connector can make them so.
    position: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    owed: BTreeMap<String, u64>,
    /// Microseconds since the Unix epoch.
    saved: i64,
}

/// Why a checkpoint could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Another daemon has the lease: whatever this one read, the other will read too.
    #[error("another daemon has taken over these checkpoints (lease {theirs}, ours is {ours})")]
    Fenced {
        /// The lease that was found.
        theirs: u64,
        /// The lease that this store was opened with.
        ours: u64,
    },
    /// The source made a position that is not text, which this store does not keep.
    #[error("the source's position is not text")]
    NotText,
    /// It may work another time.
    #[error("the checkpoint could not be written")]
    Io(#[source] Box<dyn Error + Send + Sync>),
}

/// Where positions live. The key is the source's name, or `source/destination` behind a journal.
#[async_trait]
pub trait CheckpointStore: Send + Sync + 'static {
    /// What was stored last; `None` when nothing ever was.
    async fn load(&self, key: &str) -> Result<Option<Checkpoint>, Fault>;

    /// Stores; durable when it returns.
    async fn save(&self, key: &str, checkpoint: &Checkpoint) -> Result<(), SaveError>;

    /// Everything that is stored, by key.
    fn all(&self) -> Result<BTreeMap<String, Checkpoint>, Fault>;

    /// Removes what is stored for a key whose pipeline is no more; durable when it returns.
    async fn forget(&self, key: &str) -> Result<(), Fault>;

    /// The same before anything runs; blocks on the disk.
    fn forget_now(&self, key: &str) -> Result<(), Fault>;
}

/// The store in `data_dir`.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    database: Arc<Handle>,
    lease: u64,
}

/// The database between two uses: `None` after a failure, until it was opened anew. Another daemon that comes in
/// between takes the next lease, so nothing is stored here any more.
#[derive(Debug)]
struct Handle(Mutex<Option<Database>>);

impl Handle {
    /// Does `work`; blocks on the disk.
    fn with<T>(
        &self,
        path: &Path,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let mut handle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match handle.take() {
            Some(database) => database,
            None => Database::open(path)?,
        };
        let done = work(&database)?;
        *handle = Some(database);
        Ok(done)
    }
}

impl FileStore {
    /// Opens or creates the database below `data_dir` and takes the next lease. Blocks on the disk.
    pub fn open(data_dir: &Path) -> Result<FileStore, Fault> {
        let path = data_dir.join(FILE);
        let doing = || format!("opening the checkpoints in `{}`", path.display());
        std::fs::create_dir_all(data_dir).map_err(|error| {
            Fault::fatal(format!("creating `data_dir` `{}`", data_dir.display()), Blame::Outside, error)
                .with_remedy(
                    "create the folder and make it writable for this user, or set `data_dir` to another",
                )
        })?;
        let is_new = !path.exists();
        let database = opened(&path).map_err(|error| {
            if is_new && !matches!(error, DatabaseError::DatabaseAlreadyOpen) {
                // What a full disk left of a new file would be taken for damage at the next start; where it cannot be
                // removed, that start says so.
                let _ = std::fs::remove_file(&path);
            }
            refused(doing(), data_dir, error)
        })?;
        let lease = take_lease(&database).map_err(|fault| match fault {
            LeaseError::Newer(format) => Fault::fatal(
                doing(),
                Blame::Outside,
                format!("it has format {format}; this Forebay reads format {FORMAT}"),
            )
            .with_remedy("run the Forebay that wrote it, or a newer one"),
            LeaseError::Database(error) => damaged(doing(), data_dir, error),
        })?;
        Ok(FileStore { path, database: Arc::new(Handle(Mutex::new(Some(database)))), lease })
    }

    /// Opens the database for an operator's command, which creates none and may find it held by a running daemon.
    pub fn find(data_dir: &Path) -> Result<Found, Fault> {
        if !data_dir.join(FILE).exists() {
            return Ok(Found::Nothing);
        }
        match FileStore::open(data_dir) {
            Ok(store) => Ok(Found::Store(store)),
            Err(fault) if fault.source().is_some_and(|cause| cause.is::<HeldElsewhere>()) => {
                Ok(Found::Held(fault))
            }
            Err(fault) => Err(fault),
        }
    }

    /// Everything that is stored, by key.
    pub fn all(&self) -> Result<BTreeMap<String, Checkpoint>, Fault> {
        let doing = || format!("reading the checkpoints in `{}`", self.path.display());
        let read = |database: &Database| -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
            let transaction = database.begin_read()?;
            let table = transaction.open_table(POSITIONS)?;
            let entries = table.iter()?;
            entries
                .map(|entry| {
                    entry.map(|(k, v)| (k.value().to_owned(), v.value().to_vec())).map_err(Into::into)
                })
                .collect()
        };
        let entries =
            self.database.with(&self.path, read).map_err(|error| Fault::retryable(doing(), error))?;
        entries
            .into_iter()
            .map(|(key, value)| Ok((key, decode(&value).map_err(|e| self.unreadable(e))?)))
            .collect()
    }

    /// Removes what is stored for a key; whether there was something.
    pub fn remove(&self, key: &str) -> Result<bool, Fault> {
        let remove = |database: &Database| -> Result<bool, redb::Error> {
            let transaction = database.begin_write()?;
            let was_there = transaction.open_table(POSITIONS)?.remove(key)?.is_some();
            transaction.commit()?;
            Ok(was_there)
        };
        self.database
            .with(&self.path, remove)
            .map_err(|error| Fault::retryable(format!("removing the checkpoint of `{key}`"), error))
    }

    /// Reads what is kept besides positions.
    pub(crate) fn reading<T>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        self.database.with(&self.path, read)
    }

    /// Writes in one transaction, if the lease is still ours; durable when it returns.
    pub(crate) async fn writing(
        &self,
        write: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    ) -> Result<(), SaveError> {
        let (handle, path, lease) = (self.database.clone(), self.path.clone(), self.lease);
        let work = move |database: &Database| -> Result<Option<u64>, redb::Error> {
            let transaction = database.begin_write()?;
            {
                let meta = transaction.open_table(META)?;
                let theirs = meta.get("lease")?.map_or(0, |value| value.value());
                if theirs != lease {
                    return Ok(Some(theirs));
                }
            }
            write(&transaction)?;
            step!("before-save");
            transaction.commit()?;
            step!("saved");
            Ok(None)
        };
        let save = move || match handle.with(&path, work) {
            Ok(None) => Ok(()),
            Ok(Some(theirs)) => Err(SaveError::Fenced { theirs, ours: lease }),
            Err(error) => Err(SaveError::Io(error.into())),
        };
        tokio::task::spawn_blocking(save).await.map_err(|panic| SaveError::Io(panic.into()))?
    }

    fn unreadable(&self, error: serde_json::Error) -> Fault {
        let doing = format!("reading the checkpoints in `{}`", self.path.display());
        damaged(doing, self.path.parent().unwrap_or(&self.path), error)
    }
}

#[async_trait]
impl CheckpointStore for FileStore {
    async fn load(&self, key: &str) -> Result<Option<Checkpoint>, Fault> {
        let read = |database: &Database| -> Result<Option<Vec<u8>>, redb::Error> {
            let table = database.begin_read()?.open_table(POSITIONS)?;
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        };
        let doing = || format!("reading the checkpoint of `{key}` in `{}`", self.path.display());
        let value = self.database.with(&self.path, read).map_err(|error| Fault::retryable(doing(), error))?;
        value.map(|value| decode(&value)).transpose().map_err(|error| self.unreadable(error))
    }

    async fn save(&self, key: &str, checkpoint: &Checkpoint) -> Result<(), SaveError> {
        let stored = Stored {
            position: String::from_utf8(checkpoint.position.0.to_vec()).map_err(|_| SaveError::NotText)?,
            owed: checkpoint.owed.clone(),
            saved: crate::dead_letters::now_micros(),
        };
        let value = serde_json::to_vec(&stored).map_err(|error| SaveError::Io(error.into()))?;
        let key = key.to_owned();
        self.writing(move |transaction| {
            transaction.open_table(POSITIONS)?.insert(key.as_str(), value.as_slice())?;
            Ok(())
        })
        .await
    }

    fn all(&self) -> Result<BTreeMap<String, Checkpoint>, Fault> {
        FileStore::all(self)
    }

    fn forget_now(&self, key: &str) -> Result<(), Fault> {
        self.remove(key).map(drop)
    }

    async fn forget(&self, key: &str) -> Result<(), Fault> {
        let doing = format!("removing the checkpoint of `{key}`");
        let key = key.to_owned();
        let removed = self.writing(move |transaction| {
            transaction.open_table(POSITIONS)?.remove(key.as_str())?;
            Ok(())
        });
        removed.await.map_err(|error| match error {
            error @ SaveError::Fenced { .. } => Fault::fatal(doing, Blame::Outside, error),
            error => Fault::retryable(doing, error),
        })
    }
}

/// The lock on the database is another process's.
#[derive(Debug, thiserror::Error)]
#[error("another daemon has it open")]
struct HeldElsewhere;

/// What there is in a `data_dir`.
#[derive(Debug)]
pub enum Found {
    /// No checkpoints yet.
    Nothing,
    /// Another process has them open: the fault that it would be to insist.
    Held(Fault),
    /// They are ours now, until this is dropped.
    Store(FileStore),
}

/// The store of a dry run: every source begins where it would without a checkpoint, and nothing is left behind.
#[derive(Debug)]
pub struct NothingStored;

#[async_trait]
impl CheckpointStore for NothingStored {
    async fn load(&self, _: &str) -> Result<Option<Checkpoint>, Fault> {
        Ok(None)
    }

    async fn save(&self, _: &str, _: &Checkpoint) -> Result<(), SaveError> {
        Ok(())
    }

    fn all(&self) -> Result<BTreeMap<String, Checkpoint>, Fault> {
        Ok(BTreeMap::new())
    }

    fn forget_now(&self, _: &str) -> Result<(), Fault> {
        Ok(())
    }

    async fn forget(&self, _: &str) -> Result<(), Fault> {
        Ok(())
    }
}

/// Opens or creates the database and looks at all of it. redb panics over some kinds of damage.
fn opened(path: &Path) -> Result<Database, DatabaseError> {
    let open = || {
        let mut database = Database::create(path)?;
        if !database.check_integrity()? {
            tracing::warn!(file = %path.display(), "the checkpoints were not closed in order and have been repaired");
        }
        Ok(database)
    };
    catch_unwind(open).unwrap_or_else(|_| {
        let what = "what is in it makes no sense".to_owned();
        Err(DatabaseError::Storage(redb::StorageError::Corrupted(what)))
    })
}

fn decode(value: &[u8]) -> Result<Checkpoint, serde_json::Error> {
    let stored: Stored = serde_json::from_slice(value)?;
    Ok(Checkpoint { position: Position(Bytes::from(stored.position)), owed: stored.owed })
}

enum LeaseError {
    Newer(u64),
    Database(redb::Error),
}

/// Writes the format into a new file, checks it in an old one, and counts the lease up.
fn take_lease(database: &Database) -> Result<u64, LeaseError> {
    let next = || -> Result<Result<u64, u64>, redb::Error> {
        let transaction = database.begin_write()?;
        let lease = {
            let mut meta = transaction.open_table(META)?;
            let format = meta.get("format")?.map(|value| value.value());
            match format {
                None => drop(meta.insert("format", FORMAT)?),
                Some(FORMAT) => {}
                Some(other) => return Ok(Err(other)),
            }
            let lease = meta.get("lease")?.map_or(0, |value| value.value()) + 1;
            meta.insert("lease", lease)?;
            lease
        };
        transaction.open_table(POSITIONS)?;
        transaction.commit()?;
        Ok(Ok(lease))
    };
    next().map_err(LeaseError::Database)?.map_err(LeaseError::Newer)
}

/// Judges why a database cannot be opened.
fn refused(doing: String, data_dir: &Path, error: DatabaseError) -> Fault {
    match error {
        DatabaseError::DatabaseAlreadyOpen => Fault::fatal(doing, Blame::Outside, HeldElsewhere)
            .with_remedy("stop the other daemon, or give this one a `data_dir` of its own"),
        DatabaseError::Storage(redb::StorageError::Io(error))
            if error.kind() == std::io::ErrorKind::StorageFull
                || error.kind() == std::io::ErrorKind::QuotaExceeded =>
        {
            Fault::fatal(doing, Blame::Outside, error).with_remedy("free space on the disk of `data_dir`")
        }
        DatabaseError::Storage(redb::StorageError::Io(error))
            if matches!(
                error.kind(),
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Fault::fatal(doing, Blame::Outside, error).with_remedy("make `data_dir` writable for this user")
        }
        other => damaged(doing, data_dir, other),
    }
}

fn damaged(doing: String, data_dir: &Path, error: impl Into<Box<dyn Error + Send + Sync>>) -> Fault {
    Fault::fatal(doing, Blame::Outside, error).with_remedy(format!(
        "move `{FILE}` out of `{}` and start again: each source then begins where its server still keeps what was \
         not confirmed, and destinations get some events a second time",
        data_dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use redb::{StorageBackend, backends::FileBackend};

    use super::*;

    fn checkpoint(text: &str, owed: u64) -> Checkpoint {
        let owed = (owed > 0).then(|| ("lake".to_owned(), owed)).into_iter().collect();
        Checkpoint { position: Position(Bytes::copy_from_slice(text.as_bytes())), owed }
    }

    #[tokio::test]
    async fn what_was_saved_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..3u64 {
            let store = FileStore::open(folder.path()).unwrap();
            let before = store.load("shop").await.unwrap();
            assert_eq!(before, (round > 0).then(|| checkpoint(&format!("p{}", round - 1), round - 1)));
            store.save("shop", &checkpoint(&format!("p{round}"), round)).await.unwrap();
        }
        let store = FileStore::open(folder.path()).unwrap();
        assert_eq!(store.all().unwrap().len(), 1);
        assert!(store.remove("shop").unwrap());
        assert_eq!(store.load("shop").await.unwrap(), None);
    }

    #[test]
    fn a_second_daemon_on_the_folder_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let _first = FileStore::open(folder.path()).unwrap();
        let fault = FileStore::open(folder.path()).unwrap_err();
        assert!(fault.to_string().contains("another daemon"), "{fault}");
        assert!(fault.remedy().unwrap().contains("data_dir"));
        assert!(matches!(FileStore::find(folder.path()), Ok(Found::Held(_))));
    }

    #[test]
    fn a_damaged_file_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), vec![7; 8192]).unwrap();
        let fault = FileStore::open(folder.path()).unwrap_err();
        assert!(!fault.is_retryable());
        assert!(fault.remedy().unwrap().contains("move `checkpoints.redb` out"), "{fault}");
        assert_eq!(std::fs::read(folder.path().join(FILE)).unwrap(), vec![7; 8192], "it is left as it was");
    }

    #[tokio::test]
    async fn damage_that_the_database_panics_over_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::open(folder.path()).unwrap();
        store.save("shop", &checkpoint("p", 0)).await.unwrap();
        drop(store);
        let path = folder.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[4096..].fill(0xA5);
        std::fs::write(&path, bytes).unwrap();
        let fault = FileStore::open(folder.path()).unwrap_err();
        assert!(fault.remedy().unwrap().contains("move `checkpoints.redb` out"), "{fault}");
        assert!(path.exists(), "it is the operator's to move");
    }

    #[tokio::test]
    async fn a_disk_that_was_full_is_used_again_once_it_has_space() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = FileStore::open(folder.path()).unwrap();
        store.save("shop", &checkpoint("p1", 0)).await.unwrap();
        drop(store.database);
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&store.path).unwrap();
        let full = Arc::new(AtomicBool::new(false));
        let disk = Disk { file: FileBackend::new(file).unwrap(), full: full.clone() };
        let database = Database::builder().create_with_backend(disk).unwrap();
        store.database = Arc::new(Handle(Mutex::new(Some(database))));
        full.store(true, Relaxed);
        assert!(matches!(store.save("shop", &checkpoint("p2", 0)).await, Err(SaveError::Io(_))));
        full.store(false, Relaxed);
        store.save("shop", &checkpoint("p3", 0)).await.unwrap();
        assert_eq!(store.load("shop").await.unwrap(), Some(checkpoint("p3", 0)));
    }

    /// The file on a disk that can be full.
    #[derive(Debug)]
    struct Disk {
        file: FileBackend,
        full: Arc<AtomicBool>,
    }

    impl Disk {
        fn space(&self) -> io::Result<()> {
            if self.full.load(Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.file.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.space()?;
            self.file.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.file.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.space()?;
            self.file.write(offset, data)
        }

        fn close(&self) -> io::Result<()> {
            self.file.close()
        }
    }

    #[tokio::test]
    async fn a_file_of_a_newer_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::open(folder.path()).unwrap();
        let newer = |database: &Database| {
            let transaction = database.begin_write()?;
            transaction.open_table(META)?.insert("format", FORMAT + 1)?;
            transaction.commit().map_err(Into::into)
        };
        store.database.with(&store.path, newer).unwrap();
        drop(store);
        let fault = FileStore::open(folder.path()).unwrap_err();
        assert!(fault.to_string().contains("format 2"), "{fault}");
    }

    #[tokio::test]
    async fn a_daemon_that_lost_its_lease_stores_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = FileStore::open(folder.path()).unwrap();
        store.lease -= 1;
        let saved = store.save("shop", &checkpoint("p", 0)).await;
        assert!(matches!(saved, Err(SaveError::Fenced { .. })));
        assert_eq!(store.load("shop").await.unwrap(), None);
    }
}
