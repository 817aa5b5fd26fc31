//! Records that a destination refused for their content, kept on disk: `dead_letters/<destination>/<n>.ndjson`.
//!
//! Invariant: a letter counts as stored only after it is fsynced. One letter for each (destination, id), however
//! often the record comes again. Files only grow; the sum of their bytes is capped.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use forebay_api::{Blame, Fault, Record, Rejection, json, step};
use sha2::{Digest, Sha256};
use tracing::warn;

/// A new file is begun at this size, so that one can be looked at or moved away.
const FILE_BYTES: u64 = 64 << 20;

/// One refused record, as its line says it.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The event's id.
    pub id: String,
    /// A stable word: why it was refused.
    pub reason: String,
    chain: Vec<String>,
    attempts: u32,
    record: Vec<u8>,
}

impl Letter {
    /// The letter of `record`, with its original bytes.
    pub fn new(record: Record<'_>, why: Rejection, attempts: u32) -> Letter {
        Letter {
            id: record.event().id(),
            reason: why.reason,
            chain: why.chain,
            attempts,
            record: record.body().to_vec(),
        }
    }

    /// `{"id", "time", "destination", "reason", "chain", "attempts", "record"}`; the record is JSON as it was.
    fn write(&self, destination: &str, time: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        json::write_string(&self.id, out);
        out.extend_from_slice(b",\"time\":");
        json::write_time(time, out);
        out.extend_from_slice(b",\"destination\":");
        json::write_string(destination, out);
        out.extend_from_slice(b",\"reason\":");
        json::write_string(&self.reason, out);
        out.extend_from_slice(b",\"chain\":[");
        for (index, link) in self.chain.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json::write_string(link, out);
        }
        out.extend_from_slice(format!("],\"attempts\":{},\"record\":", self.attempts).as_bytes());
        out.extend_from_slice(&self.record);
        out.extend_from_slice(b"}\n");
    }
}

/// What came of storing letters.
#[derive(Debug)]
pub enum Buried {
    /// They are on disk.
    Stored,
    /// They would pass the cap; nothing was written.
    Full {
        /// What a required lane stops with.
        fault: Fault,
    },
}

/// The dead letters of one destination. Opened when the first letter comes.
#[derive(Debug)]
pub struct DeadLetters {
    destination: String,
    folder: PathBuf,
    max_bytes: u64,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    /// Half a SHA-256 of each id there is a letter for: a cap of 256 MiB is some 300,000 of them.
    known: HashSet<[u8; 16]>,
    bytes: u64,
    number: u64,
    file: File,
    /// Bytes of `file` that are synced; what is behind them after an error is cut off again.
    synced: u64,
}

impl DeadLetters {
    /// The letters of `destination` below `data_dir`, of which all files together stay below `max_bytes`.
    pub fn new(data_dir: &Path, destination: &str, max_bytes: u64) -> DeadLetters {
        DeadLetters {
            destination: destination.to_owned(),
            folder: data_dir.join("dead_letters").join(destination),
            max_bytes,
            open: Mutex::new(None),
        }
    }

    /// Appends those letters that are not there yet and syncs them. On a fault nothing counts as stored.
    pub async fn store(self: Arc<Self>, letters: Vec<Letter>) -> Result<Buried, Fault> {
        let folder = self.folder.clone();
        let stored = tokio::task::spawn_blocking(move || self.store_now(&letters)).await;
        let stored = stored.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        stored.map_err(|error| {
            let doing = format!("storing dead letters in `{}`", folder.display());
            match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Fault::fatal(doing, Blame::Outside, error)
                        .with_remedy("make `data_dir` writable for this user")
                }
                _ => Fault::retryable(doing, error).with_remedy("free space on the disk of `data_dir`"),
            }
        })
    }

    fn store_now(&self, letters: &[Letter]) -> io::Result<Buried> {
        let mut slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = Some(Open::new(&self.folder)?);
        }
        let open = slot.as_mut().expect("it was just opened");
        let time = now_micros();
        let mut lines = Vec::new();
        let mut new = Vec::new();
        for letter in letters {
            let digest = digest(&letter.id);
            if !open.known.contains(&digest) && !new.contains(&digest) {
                letter.write(&self.destination, time, &mut lines);
                new.push(digest);
            }
        }
        if open.bytes + lines.len() as u64 > self.max_bytes {
            return Ok(Buried::Full { fault: self.full() });
        }
        if let Err(error) = open.append(&lines) {
            // Nobody knows what a failed write or sync left behind: begin a new file and read all of them again.
            *slot = None;
            return Err(error);
        }
        open.known.extend(new);
        if open.synced >= FILE_BYTES
            && let Err(error) = open.begin_file(&self.folder)
        {
            // The letters are stored; the file only grows further until the next time.
            warn!(destination = self.destination, error = %error, "no new dead letter file could be begun");
        }
        Ok(Buried::Stored)
    }

    fn full(&self) -> Fault {
        let doing = format!("storing dead letters of `{}`", self.destination);
        let error = format!("there are {} bytes of them, which is the cap", self.max_bytes);
        Fault::fatal(doing, Blame::Outside, error).with_remedy(format!(
            "look at `{}` for what is refused and why; mend it, then move the files away",
            self.folder.display()
        ))
    }
}

impl Open {
    fn new(folder: &Path) -> io::Result<Open> {
        fs::create_dir_all(folder)?;
        for parent in folder.ancestors().skip(1).take(2) {
            File::open(parent)?.sync_all()?;
        }
        let (mut known, mut bytes, mut number) = (HashSet::new(), 0, 0);
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(n) = file_number(&path) else { continue };
            number = number.max(n);
            // What is read may be in the page cache alone: a daemon that was killed before its sync wrote it.
            File::open(&path)?.sync_all()?;
            bytes += read_ids(&path, &mut known)?;
        }
        let file = create(folder, number + 1)?;
        Ok(Open { known, bytes, number: number + 1, file, synced: 0 })
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(lines).and_then(|()| {
            step!("dead-letter-written");
            self.file.sync_data()
        });
        if let Err(error) = written {
            // Best effort: what cannot be cut off is a letter that is there although its record comes again.
            if let Err(cut) = self.file.set_len(self.synced) {
                warn!(error = %cut, "a dead letter file may end in a line that was not acknowledged");
            }
            return Err(error);
        }
        step!("dead-letter-synced");
        self.synced += lines.len() as u64;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    fn begin_file(&mut self, folder: &Path) -> io::Result<()> {
        self.file = create(folder, self.number + 1)?;
        self.number += 1;
        self.synced = 0;
        Ok(())
    }
}

/// A new file that is durable in its folder.
fn create(folder: &Path, number: u64) -> io::Result<File> {
    let path = folder.join(format!("{number:06}.ndjson"));
    let file = OpenOptions::new().create_new(true).append(true).open(path)?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

fn file_number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".ndjson")?.parse().ok()
}

/// Adds the ids in a file; gives its bytes. A last line that is cut off was never acknowledged.
fn read_ids(path: &Path, known: &mut HashSet<[u8; 16]>) -> io::Result<u64> {
    #[derive(serde::Deserialize)]
    struct Line {
        id: String,
    }
    let mut reader = BufReader::new(File::open(path)?);
    let (mut line, mut bytes) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut line)? > 0 {
        bytes += line.len() as u64;
        match serde_json::from_slice::<Line>(&line) {
            Ok(Line { id }) => drop(known.insert(digest(&id))),
            Err(error) => {
                warn!(file = %path.display(), error = %error, "a line in the dead letters is damaged")
            }
        }
        line.clear();
    }
    Ok(bytes)
}

fn digest(id: &str) -> [u8; 16] {
    let digest = Sha256::digest(id.as_bytes());
    *digest.first_chunk().expect("SHA-256 has 32 bytes")
}

/// Microseconds since the Unix epoch.
pub(crate) fn now_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(id: &str) -> Letter {
        Letter {
            id: id.into(),
            reason: "too_large".into(),
            chain: vec!["9 bytes".into(), "limit \"8\"".into()],
            attempts: 1,
            record: br#"{"n":1.10}"#.to_vec(),
        }
    }

    fn lines(folder: &Path) -> Vec<serde_json::Value> {
        let mut paths: Vec<_> =
            fs::read_dir(folder.join("dead_letters/x")).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        let text: String = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_record_refused_again_after_a_restart_has_one_letter() {
        let folder = tempfile::tempdir().unwrap();
        for ids in [["a", "b"], ["b", "c"]] {
            let letters = Arc::new(DeadLetters::new(folder.path(), "x", 10_000));
            let stored = letters.clone().store(ids.map(letter).to_vec()).await.unwrap();
            assert!(matches!(stored, Buried::Stored));
        }
        let lines = lines(folder.path());
        assert_eq!(lines.iter().map(|l| l["id"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(lines[0]["record"], serde_json::json!({"n": 1.10}));
        assert_eq!(lines[0]["chain"][1], "limit \"8\"");
    }

    #[tokio::test]
    async fn letters_beyond_the_cap_are_refused_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let letters = Arc::new(DeadLetters::new(folder.path(), "x", 300));
        assert!(matches!(letters.clone().store(vec![letter("a")]).await.unwrap(), Buried::Stored));
        let full = letters.clone().store(vec![letter("b"), letter("c"), letter("d")]).await.unwrap();
        assert!(matches!(full, Buried::Full { .. }));
        assert_eq!(lines(folder.path()).len(), 1);
    }

    #[tokio::test]
    async fn an_unwritable_folder_is_a_fault_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("dead_letters"), "a file").unwrap();
        let letters = Arc::new(DeadLetters::new(folder.path(), "x", 300));
        assert!(letters.store(vec![letter("a")]).await.unwrap_err().remedy().is_some());
    }
}
