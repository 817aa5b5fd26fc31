//! A file of lines that ends with a whole one, whatever happened before.
//!
//! Invariants:
//! - `kept` is a length up to which the file is believed: synced (or, without fsync, written in full). It only moves
//!   in [`NdjsonFile::sync`]; nothing beyond it was accepted.
//! - After any failed write or sync the file is closed and not believed beyond `kept`: after a failed fdatasync
//!   nobody knows what of the page cache reached the disk, and the kernel reports it only once. It is opened anew,
//!   cut back to `kept`, and what was cut comes again from the lane.
//! - Whoever writes holds the lock of the file, so there is one writer on a path.
//! - The folder holds the file and those it was rotated into, nothing else.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use forebay_api::{Fault, step};
use tracing::debug;

use crate::config::{FileConfig, Fsync};
use crate::fault::judge;
use crate::locked_file::{FileId, LockedFile};
use crate::place;

/// Lines are gathered up to this before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// A file of lines, open or to be opened.
pub(crate) struct NdjsonFile {
    config: FileConfig,
    open: Option<LockedFile>,
    /// The file that failed, if one did, and how much of it is believed.
    distrusted: Option<(FileId, u64)>,
    /// The number of the next rotated file, once the folder was searched for it.
    next_number: Option<u64>,
    /// Lines that were not written yet; reused.
    lines: Vec<u8>,
}

impl NdjsonFile {
    /// Nothing is touched before [`NdjsonFile::open`].
    pub(crate) fn new(config: FileConfig) -> NdjsonFile {
        NdjsonFile { config, open: None, distrusted: None, next_number: None, lines: Vec::new() }
    }

    /// Opens the file unless it is open and still the one at its path: makes folders, takes the lock, repairs the end.
    pub(crate) fn open(&mut self) -> Result<(), Fault> {
        if self.is_at_its_path() {
            return Ok(());
        }
        // Somebody may have moved it away; what was appended to it is synced where it is now.
        self.sync()?;
        self.open = None;
        let path = &self.config.path;
        let durable = self.is_synced_by_us();
        let folder = place::folder(path);
        place::make_folder(folder, durable)
            .map_err(|error| judge(format!("making the folder `{}`", folder.display()), error))?;
        let mut open = LockedFile::lock(path)?;
        let trusted = self.distrusted.filter(|(id, _)| *id == open.id).map(|(_, kept)| kept);
        match trusted {
            Some(kept) => open.cut(kept, path)?,
            None => open.repair(path)?,
        }
        if durable {
            open.file.sync_all().map_err(|error| judge(syncing(path), error))?;
            place::sync_folder(folder).map_err(|error| judge(syncing(folder), error))?;
        }
        self.distrusted = None;
        self.open = Some(open);
        Ok(())
    }

    /// Writes records, one a line. Nothing of it is durable before [`NdjsonFile::sync`].
    pub(crate) fn append<'r>(&mut self, records: impl Iterator<Item = &'r [u8]>) -> Result<(), Fault> {
        self.open()?;
        let result = self.try_append(records);
        self.lines.clear();
        // One huge record does not keep its memory for ever.
        self.lines.shrink_to(2 * WRITE_BYTES);
        result.inspect_err(|_| self.distrust())
    }

    /// Whether [`NdjsonFile::sync`] goes to the disk, or leaves that to the kernel.
    pub(crate) fn is_synced_by_us(&self) -> bool {
        self.config.fsync == Fsync::Batch
    }

    /// Makes durable what was appended. After a fault nothing since the last sync may be accepted.
    pub(crate) fn sync(&mut self) -> Result<(), Fault> {
        let result = self.try_sync();
        result.inspect_err(|_| self.distrust())
    }

    /// How long until the file is too old to be written to; `None` when it never is, or is empty.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let age = self.config.rotate.age?.as_duration();
        let open = self.open.as_ref().filter(|open| open.len > 0)?;
        // A clock that was set back makes the file younger than its birth: it then lives its whole age again.
        let elapsed = open.born.elapsed().unwrap_or_default();
        Some(age.saturating_sub(elapsed))
    }

    /// Begins a new file if this one is too old.
    pub(crate) fn rotate_if_old(&mut self) -> Result<(), Fault> {
        if self.time_left() != Some(Duration::ZERO) {
            return Ok(());
        }
        self.rotate().inspect_err(|_| self.distrust())
    }

    fn try_append<'r>(&mut self, records: impl Iterator<Item = &'r [u8]>) -> Result<(), Fault> {
        if self.time_left() == Some(Duration::ZERO) {
            self.rotate()?;
        }
        let most = self.config.rotate.bytes.map(|bytes| bytes.get());
        for record in records {
            let line = record.len() as u64 + 1;
            let before = self.len() + self.lines.len() as u64;
            if before > 0 && most.is_some_and(|most| before + line > most) {
                self.write()?;
                self.rotate()?;
            }
            push_line(record, &mut self.lines);
            if self.lines.len() >= WRITE_BYTES {
                self.write()?;
            }
        }
        self.write()
    }

    fn len(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.len)
    }

    /// Writes the lines that were gathered.
    fn write(&mut self) -> Result<(), Fault> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let open = self.open.as_mut().expect("`append` opens before it writes");
        open.file
            .write_all(&self.lines)
            .map_err(|error| judge(format!("writing to `{}`", self.config.path.display()), error))?;
        if open.len == 0 {
            open.born = SystemTime::now();
        }
        open.len += self.lines.len() as u64;
        self.lines.clear();
        Ok(())
    }

    fn try_sync(&mut self) -> Result<(), Fault> {
        let durable = self.is_synced_by_us();
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.kept == open.len {
            return Ok(());
        }
        step!("file-written");
        if durable {
            open.file.sync_data().map_err(|error| judge(syncing(&self.config.path), error))?;
        }
        step!("file-synced");
        open.kept = open.len;
        Ok(())
    }

    /// Renames the file and begins a new one.
    fn rotate(&mut self) -> Result<(), Fault> {
        self.try_sync()?;
        let path = self.config.path.clone();
        let rotating = |error| judge(format!("rotating `{}`", path.display()), error);
        let now = jiff::Timestamp::now();
        let mut number = match self.next_number {
            Some(number) => number,
            None => place::next_number(&path).map_err(rotating)?,
        };
        // Renaming would replace a file that somebody put there.
        while place::rotated(&path, now, number).exists() {
            number += 1;
        }
        let name = place::rotated(&path, now, number);
        fs::rename(&path, &name).map_err(rotating)?;
        step!("file-renamed");
        debug!(path = %path.display(), rotated = %name.display(), bytes = self.len(), "file rotated");
        self.open = None;
        self.next_number = Some(number + 1);
        // Opening syncs the folder, and with it both names.
        self.open()
    }

    /// Closes the file after a failure, keeping in mind how much of it is believed.
    fn distrust(&mut self) {
        if let Some(open) = self.open.take() {
            self.distrusted = Some((open.id, open.kept));
        }
    }

    /// Whether what was appended since the last sync is still there to be synced.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the file is open and has not been moved or removed by somebody since.
    fn is_at_its_path(&self) -> bool {
        let Some(open) = &self.open else { return false };
        fs::metadata(&self.config.path).is_ok_and(|there| FileId::of(&there) == open.id)
    }
}

/// Appends a record and a line end. JSON may hold line ends between its tokens, where a space says the same; inside
/// strings they are always escaped.
pub(crate) fn push_line(body: &[u8], lines: &mut Vec<u8>) {
    let start = lines.len();
    lines.extend_from_slice(body);
    let mut at = start;
    while let Some(found) = memchr::memchr2(b'\n', b'\r', &lines[at..]) {
        lines[at + found] = b' ';
        at += found + 1;
    }
    lines.push(b'\n');
}

fn syncing(path: &Path) -> String {
    format!("syncing `{}`", path.display())
}

#[cfg(test)]
mod tests;
