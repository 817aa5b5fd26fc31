//! The files of one destination's dead letters: `<n>.ndjson`, lines that are only ever appended.
//!
//! ```text
//! {"id": …, "reason": …, "event": …, "record": …}      a letter: open from here on
//! {"retried": id, "attempts": 3, "reason": …, …}       refused again; it stays
//! {"settled": id, "how": "replayed", "time": …}        no letter any more
//! ```
//! Invariants: a line counts only once it is synced. The state is what the lines say, read in their order, and nothing
//! besides; so it is the same after any crash. A file is removed when nothing in it is open and every file is gone whose
//! letters it settles. A line that cannot be read is an error, but for the last one of a file where it has no end: that
//! was never acknowledged, and is cut off.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use forebay_api::step;
use tracing::warn;

use super::key::{Blocked, Digest, EventKey};
use super::letter::Letter;
use super::lines::{Line, Said, cut_torn_line, id_digest, list, path_of, read_lines};

/// A new file is begun at this size; its space comes back when all in it is settled.
const FILE_BYTES: u64 = 8 << 20;

/// An open letter: what is kept in memory of it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    seq: u64,
    file: u64,
    at: u64,
    len: usize,
    attempts: u32,
    key: Option<EventKey>,
}

/// One file.
#[derive(Debug, Default)]
struct Kept {
    bytes: u64,
    /// Letters in it that are open.
    open: usize,
    /// Other files, of which it settles letters.
    settles: BTreeSet<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    files: BTreeMap<u64, Kept>,
    letters: HashMap<Digest, Entry>,
    pub(super) blocked: Blocked,
    next_seq: u64,
    writer: Option<Writer>,
}

/// The file that is written, begun by this process.
#[derive(Debug)]
struct Writer {
    number: u64,
    file: File,
}

impl Files {
    /// Reads what is there. Only for whoever has the lock of `data_dir`: what a crash has torn is cut off.
    pub(super) fn open(folder: &Path) -> io::Result<Files> {
        let mut files = Files {
            folder: folder.to_owned(),
            files: BTreeMap::new(),
            letters: HashMap::new(),
            blocked: Blocked::default(),
            next_seq: 0,
            writer: None,
        };
        for (number, path) in list(folder)? {
            cut_torn_line(&path)?;
            // What is read may be in the page cache alone: a daemon that was killed before its sync wrote it.
            File::open(&path)?.sync_all()?;
            files.files.insert(number, Kept::default());
            read_lines(&path, |at, len, line| {
                files.files.get_mut(&number).expect("it was just added").bytes += len as u64;
                files.take(number, at, len, &line)
            })?;
        }
        files.prune()?;
        Ok(files)
    }

    /// Letters that are open, and bytes of all files.
    pub(super) fn size(&self) -> (usize, u64) {
        (self.letters.len(), self.files.values().map(|kept| kept.bytes).sum())
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.letters.contains_key(&id_digest(id))
    }

    /// A letter with its attempts; `None` when it is settled.
    pub(super) fn read(&self, id: &Digest) -> io::Result<Option<Letter>> {
        let Some(entry) = self.letters.get(id) else { return Ok(None) };
        let mut file = File::open(path_of(&self.folder, entry.file))?;
        file.seek(SeekFrom::Start(entry.at))?;
        let mut line = vec![0; entry.len];
        file.read_exact(&mut line)?;
        let mut letter: Letter = serde_json::from_slice(&line).map_err(io::Error::from)?;
        letter.attempts = letter.attempts.max(entry.attempts);
        Ok(Some(letter))
    }

    /// Whether an older letter has to be delivered before this one.
    pub(super) fn is_behind_another(&self, id: &Digest) -> bool {
        let entry = self.letters.get(id);
        entry.is_some_and(|entry| entry.key.is_some_and(|key| self.blocked.is_behind_another(key, entry.seq)))
    }

    /// Appends letters, syncs them, and counts them.
    pub(super) fn bury(&mut self, letters: Vec<Letter>) -> io::Result<()> {
        let mut lines = Vec::new();
        let mut places = Vec::new();
        for letter in &letters {
            let at = lines.len();
            letter.write(&mut lines);
            places.push((at as u64, lines.len() - at));
        }
        let (number, start) = self.append(&lines)?;
        for (letter, (at, len)) in letters.into_iter().zip(places) {
            self.take(number, start + at, len, &Line::Letter(Box::new(letter)))?;
        }
        Ok(())
    }

    /// Appends what became of letters, syncs it, and removes files that are not needed any more.
    pub(super) fn say(&mut self, said: &[Said]) -> io::Result<()> {
        let mut lines = Vec::new();
        for said in said {
            serde_json::to_writer(&mut lines, said).map_err(io::Error::from)?;
            lines.push(b'\n');
        }
        let (number, start) = self.append(&lines)?;
        step!("dead-letter-settled");
        for said in said {
            self.take(number, start, 0, &Line::Said(said.clone()))?;
        }
        self.prune()
    }

    /// What a line means for all that is kept in memory.
    fn take(&mut self, number: u64, at: u64, len: usize, line: &Line) -> io::Result<()> {
        match line {
            Line::Letter(letter) => {
                let (id, seq) = (id_digest(&letter.id), self.next_seq);
                if self.letters.contains_key(&id) {
                    return Ok(());
                }
                self.next_seq += 1;
                if let (Some(key), Some(event)) = (letter.key(), &letter.event) {
                    let stream = letter.stream().map_err(io::Error::other)?;
                    self.blocked.add(key, seq, stream.epoch, event.mark());
                }
                let entry =
                    Entry { seq, file: number, at, len, attempts: letter.attempts, key: letter.key() };
                self.letters.insert(id, entry);
                self.files.entry(number).or_default().open += 1;
            }
            Line::Said(Said::Retried { retried, attempts, .. }) => {
                if let Some(entry) = self.letters.get_mut(&id_digest(retried)) {
                    entry.attempts = *attempts;
                    let of = entry.file;
                    self.files.entry(number).or_default().settles.insert(of);
                }
            }
            Line::Said(Said::Settled { settled, .. }) => {
                // Twice settled is settled: a crash came between the two.
                let Some(entry) = self.letters.remove(&id_digest(settled)) else { return Ok(()) };
                if let Some(key) = entry.key {
                    self.blocked.remove(key, entry.seq);
                }
                self.files.entry(number).or_default().settles.insert(entry.file);
                if let Some(kept) = self.files.get_mut(&entry.file) {
                    kept.open -= 1;
                }
            }
        }
        Ok(())
    }

    /// Writes lines and syncs them; gives the file and where in it they begin. After an error nobody knows what is there:
    /// the caller reads all of it again.
    fn append(&mut self, lines: &[u8]) -> io::Result<(u64, u64)> {
        if self.writer.as_ref().is_some_and(|writer| self.files[&writer.number].bytes >= FILE_BYTES) {
            self.writer = None;
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let number = self.files.last_key_value().map_or(0, |(last, _)| *last) + 1;
                let file = create(&self.folder, number)?;
                self.files.insert(number, Kept::default());
                self.writer.insert(Writer { number, file })
            }
        };
        let kept = self.files.get_mut(&writer.number).expect("the file that is written is among them");
        let start = kept.bytes;
        let written = writer.file.write_all(lines).and_then(|()| {
            step!("dead-letter-written");
            writer.file.sync_data()
        });
        if let Err(error) = written {
            // Best effort: what cannot be cut off is a line that is there although nobody was told so.
            if let Err(cut) = writer.file.set_len(start) {
                warn!(error = %cut, "a dead letter file may end in a line that was not acknowledged");
            }
            return Err(error);
        }
        step!("dead-letter-synced");
        kept.bytes += lines.len() as u64;
        Ok((writer.number, start))
    }

    /// Removes the files in which nothing is open and that settle nothing which is still there.
    fn prune(&mut self) -> io::Result<()> {
        let mut gone = Vec::new();
        for (number, kept) in &self.files {
            let settles =
                |file: &u64| file != number && self.files.contains_key(file) && !gone.contains(file);
            if kept.open == 0 && !kept.settles.iter().any(settles) {
                gone.push(*number);
            }
        }
        for number in gone {
            if self.writer.as_ref().is_some_and(|writer| writer.number == number) {
                self.writer = None;
            }
            // In this order, each durable before the next: what settles a letter goes after the letter.
            fs::remove_file(path_of(&self.folder, number))?;
            File::open(&self.folder)?.sync_all()?;
            self.files.remove(&number);
            step!("dead-letters-removed");
        }
        Ok(())
    }
}

/// A new file that is durable in its folder, which is made where it is missing.
fn create(folder: &Path, number: u64) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    for parent in folder.ancestors().skip(1).take(2) {
        File::open(parent)?.sync_all()?;
    }
    let file = OpenOptions::new().create_new(true).append(true).open(path_of(folder, number))?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}
