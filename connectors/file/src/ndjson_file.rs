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
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use forebay_api::{Blame, Fault, step};
use tracing::{debug, warn};

use crate::config::{FileConfig, Fsync};
use crate::fault::judge;
use crate::place;

/// Lines are gathered up to this before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// How long a process that is just ending gets to let go of the lock.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Between two attempts at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How far back from its end a file is searched for what a power cut left: more than is ever unsynced.
const TAIL_BYTES: u64 = 64 << 20;

/// In blocks of this size.
const BLOCK_BYTES: usize = 256 << 10;

/// A file of lines, open or to be opened.
pub(crate) struct NdjsonFile {
    config: FileConfig,
    open: Option<Open>,
    /// The file that failed, if one did, and how much of it is believed.
    distrusted: Option<(FileId, u64)>,
    /// Lines that were not written yet; reused.
    lines: Vec<u8>,
}

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

struct Open {
    file: File,
    id: FileId,
    /// What was written.
    len: u64,
    /// See the module.
    kept: u64,
    /// When its first record was written.
    born: SystemTime,
}

impl NdjsonFile {
    /// Nothing is touched before [`NdjsonFile::open`].
    pub(crate) fn new(config: FileConfig) -> NdjsonFile {
        NdjsonFile { config, open: None, distrusted: None, lines: Vec::new() }
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
        let durable = self.config.fsync == Fsync::Batch;
        let folder = place::folder(path);
        place::make_folder(folder, durable)
            .map_err(|error| judge(format!("making the folder `{}`", folder.display()), error))?;
        let mut open = lock(path)?;
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
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.kept == open.len {
            return Ok(());
        }
        step!("file-written");
        if self.config.fsync == Fsync::Batch {
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
        let name =
            place::rotated(&path, jiff::Timestamp::now(), place::next_number(&path).map_err(rotating)?);
        fs::rename(&path, &name).map_err(rotating)?;
        step!("file-renamed");
        debug!(path = %path.display(), rotated = %name.display(), bytes = self.len(), "file rotated");
        self.open = None;
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

impl FileId {
    fn of(metadata: &fs::Metadata) -> FileId {
        FileId { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl Open {
    /// Shortens the file to what is believed of it.
    fn cut(&mut self, to: u64, path: &Path) -> Result<(), Fault> {
        self.file.set_len(to).map_err(|error| {
            judge(
                format!("cutting `{}` back to the {to} bytes that are known to be good", path.display()),
                error,
            )
        })?;
        self.len = to;
        self.kept = to;
        Ok(())
    }

    /// Cuts off what is behind the last whole line: a process that was killed while it wrote, or a power cut, left
    /// it, and it was never accepted.
    fn repair(&mut self, path: &Path) -> Result<(), Fault> {
        let reading = |error| judge(reading_end(path), error);
        let end = whole_lines(&self.file, self.len).map_err(reading)?;
        if end == self.len {
            return Ok(());
        }
        let mut first = [0];
        self.file.read_exact_at(&mut first, end).map_err(reading)?;
        // A record begins with a brace; a NUL byte is what a power cut leaves.
        if !matches!(first, [b'{' | 0]) {
            let why = "its last line is not ended and does not begin as a record does";
            let fault = Fault::fatal(reading_end(path), Blame::Configuration, why);
            return Err(fault.with_remedy(format!(
                "`{}` was not written by forebay: choose another `path`",
                path.display()
            )));
        }
        warn!(path = %path.display(), bytes_cut = self.len - end, "torn end of file cut off");
        self.cut(end, path)
    }
}

fn syncing(path: &Path) -> String {
    format!("syncing `{}`", path.display())
}

fn reading_end(path: &Path) -> String {
    format!("reading the end of `{}`", path.display())
}

/// Opens or makes the file and takes its lock.
fn lock(path: &PathBuf) -> Result<Open, Fault> {
    let opening = || format!("opening `{}`", path.display());
    let mut waited = Duration::ZERO;
    loop {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(|error| judge(opening(), error))?;
        let metadata = file.metadata().map_err(|error| judge(opening(), error))?;
        if !metadata.is_file() {
            let fault = Fault::fatal(opening(), Blame::Configuration, "it is not a regular file");
            return Err(fault.with_remedy(
                "name a file; pipes are served by `type: stdout`, `/dev/null` by `type: blackhole`",
            ));
        }
        let locked = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => {
                return Err(judge(format!("locking `{}`", path.display()), error));
            }
        };
        // Between opening and locking, the writer that had it may have rotated it away.
        let still_there = fs::metadata(path).is_ok_and(|there| FileId::of(&there) == FileId::of(&metadata));
        if locked && still_there {
            let metadata = file.metadata().map_err(|error| judge(opening(), error))?;
            let born =
                metadata.created().or_else(|_| metadata.modified()).unwrap_or_else(|_| SystemTime::now());
            return Ok(Open {
                file,
                id: FileId::of(&metadata),
                len: metadata.len(),
                kept: metadata.len(),
                born,
            });
        }
        if waited >= LOCK_WAIT {
            let fault =
                Fault::fatal(opening(), Blame::Outside, "another process or destination writes to it");
            return Err(fault.with_remedy("stop the other one, or give each a `path` of its own"));
        }
        std::thread::sleep(LOCK_PAUSE);
        waited += LOCK_PAUSE;
    }
}

/// Where the last whole line ends. A NUL byte is in no record: it stands where a power cut kept the length but not
/// the bytes, so the lines from there on are not whole.
fn whole_lines(file: &File, len: u64) -> io::Result<u64> {
    let mut until = len;
    loop {
        let from = until.saturating_sub(TAIL_BYTES);
        if let Some(end) = last_end(file, from, until)? {
            return Ok(end);
        }
        if from == 0 {
            return Ok(0);
        }
        until = from;
    }
}

/// Where the last line of a part of the file ends, before the first NUL byte in it.
fn last_end(file: &File, from: u64, until: u64) -> io::Result<Option<u64>> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut end = None;
    let mut at = from;
    while at < until {
        let here = usize::try_from(until - at).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        let block = &mut block[..here];
        file.read_exact_at(block, at)?;
        let nul = memchr::memchr(0, block);
        if let Some(found) = memchr::memrchr(b'\n', &block[..nul.unwrap_or(here)]) {
            end = Some(at + found as u64 + 1);
        }
        if nul.is_some() {
            break;
        }
        at += here as u64;
    }
    Ok(end)
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

#[cfg(test)]
mod tests {
    use forebay_api::units::{ByteSize, Period};
    use tempfile::TempDir;

    use super::*;
    use crate::config::RotateConfig;

    struct Place(TempDir);

    impl Place {
        fn new() -> Place {
            Place(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("deep/down/out.ndjson")
        }

        /// A file with this in it already.
        fn with(content: &[u8]) -> Place {
            let place = Place::new();
            fs::create_dir_all(place.path().parent().unwrap()).unwrap();
            fs::write(place.path(), content).unwrap();
            place
        }

        fn file(&self, rotate: RotateConfig) -> NdjsonFile {
            NdjsonFile::new(FileConfig { path: self.path(), rotate, fsync: Fsync::Batch })
        }

        fn plain(&self) -> NdjsonFile {
            self.file(RotateConfig::default())
        }

        fn content(&self) -> String {
            fs::read_to_string(self.path()).unwrap()
        }

        /// Every file of the folder by name, with its content.
        fn all(&self) -> Vec<(String, String)> {
            let mut all: Vec<(String, String)> = fs::read_dir(self.path().parent().unwrap())
                .unwrap()
                .map(|entry| entry.unwrap())
                .map(|entry| {
                    (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
                })
                .collect();
            all.sort();
            all
        }
    }

    fn write(file: &mut NdjsonFile, records: &[&str]) {
        file.append(records.iter().map(|record| record.as_bytes())).unwrap();
        file.sync().unwrap();
    }

    #[test]
    fn records_are_lines_and_a_new_instance_appends() {
        let place = Place::new();
        write(&mut place.plain(), &["{}", "{\"a\":1}"]);
        write(&mut place.plain(), &["{\"b\":2}"]);
        assert_eq!(place.content(), "{}\n{\"a\":1}\n{\"b\":2}\n");
        assert_eq!(place.all().len(), 1, "no file beside it");
    }

    #[test]
    fn a_line_end_inside_a_record_becomes_a_space() {
        let place = Place::new();
        write(&mut place.plain(), &["{\"a\":\r\n [1,\n2]}"]);
        assert_eq!(place.content(), "{\"a\":   [1, 2]}\n");
    }

    #[test]
    fn a_torn_last_line_is_cut_off() {
        for (before, after) in [
            ("{}\n{\"a\":", "{}\n"),
            ("{\"a\":", ""),
            ("{}\n", "{}\n"),
            ("", ""),
            ("{}\n\0\0\0\0", "{}\n"),
            ("{}\n{\"a\":\0\0\0\"}\n{}\n{\"b\"", "{}\n"),
            ("\0\0", ""),
        ] {
            let place = Place::with(before.as_bytes());
            write(&mut place.plain(), &["{\"new\":1}"]);
            assert_eq!(place.content(), format!("{after}{{\"new\":1}}\n"), "{before:?}");
        }
    }

    #[test]
    fn a_torn_line_may_be_longer_than_any_block() {
        let whole = "{\"text\":\"".to_owned() + &"x".repeat(3 * BLOCK_BYTES) + "\"}\n";
        let torn =
            "{\"text\":\"".to_owned() + &"y".repeat(usize::try_from(TAIL_BYTES).unwrap() + BLOCK_BYTES);
        let place = Place::with((whole.clone() + &torn).as_bytes());
        place.plain().open().unwrap();
        assert_eq!(place.content(), whole);
    }

    #[test]
    fn a_file_of_another_kind_is_refused_and_left_alone() {
        let place = Place::with(b"name,price\nriver,5");
        let fault = place.plain().open().unwrap_err();
        assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{fault}");
        assert_eq!(place.content(), "name,price\nriver,5");
    }

    #[test]
    fn two_writers_on_one_path_are_refused() {
        let place = Place::new();
        let mut first = place.plain();
        first.open().unwrap();
        let fault = place.plain().open().unwrap_err();
        assert!(matches!(fault, Fault::Fatal { blame: Blame::Outside, .. }), "{fault}");
        assert!(fault.to_string().contains("another process or destination writes to it"), "{fault}");
        drop(first);
        place.plain().open().unwrap();
    }

    #[test]
    fn a_file_is_rotated_before_it_grows_past_its_size() {
        let place = Place::new();
        let mut file = place.file(RotateConfig { bytes: Some(ByteSize::bytes(20)), age: None });
        write(
            &mut file,
            &["{\"a\":1}", "{\"a\":2}", "{\"a\":3}", "{\"large\":\"larger than 20\"}", "{\"a\":4}"],
        );
        let all = place.all();
        let contents: Vec<&str> = all.iter().map(|(_, content)| content.as_str()).collect();
        assert_eq!(
            contents,
            ["{\"a\":1}\n{\"a\":2}\n", "{\"a\":3}\n", "{\"large\":\"larger than 20\"}\n", "{\"a\":4}\n"]
        );
        assert_eq!(all[3].0, "out.ndjson");
        for (index, (name, _)) in all[..3].iter().enumerate() {
            assert!(
                name.starts_with("out-2") && name.ends_with(&format!("Z-00000{}.ndjson", index + 1)),
                "{name}"
            );
        }
    }

    #[test]
    fn an_old_file_is_rotated_and_an_empty_one_never() {
        let place = Place::new();
        let mut file = place.file(RotateConfig { bytes: None, age: Some(Period::millis(1)) });
        file.open().unwrap();
        assert_eq!(file.time_left(), None);
        write(&mut file, &["{\"a\":1}"]);
        while file.time_left() != Some(Duration::ZERO) {
            std::thread::yield_now();
        }
        file.rotate_if_old().unwrap();
        assert_eq!(place.all().len(), 2);
        assert_eq!(place.content(), "");
        file.rotate_if_old().unwrap();
        assert_eq!(place.all().len(), 2);
    }

    #[test]
    fn what_was_not_synced_is_cut_away_after_a_failure() {
        let place = Place::new();
        let mut file = place.plain();
        write(&mut file, &["{\"kept\":1}"]);
        file.append([b"{\"doubtful\":1}".as_slice()].into_iter()).unwrap();
        file.distrust();
        assert!(!file.is_open());
        assert_eq!(place.content(), "{\"kept\":1}\n{\"doubtful\":1}\n");
        write(&mut file, &["{\"again\":1}"]);
        assert_eq!(place.content(), "{\"kept\":1}\n{\"again\":1}\n");
    }

    #[test]
    fn a_file_that_somebody_moved_away_is_begun_anew() {
        let place = Place::new();
        let mut file = place.plain();
        write(&mut file, &["{\"a\":1}"]);
        file.append([b"{\"a\":2}".as_slice()].into_iter()).unwrap();
        fs::rename(place.path(), place.path().with_file_name("moved")).unwrap();
        write(&mut file, &["{\"a\":3}"]);
        assert_eq!(place.content(), "{\"a\":3}\n");
        assert_eq!(place.all()[0], ("moved".to_owned(), "{\"a\":1}\n{\"a\":2}\n".to_owned()));
    }

    #[test]
    fn a_folder_or_a_device_is_a_mistake_in_the_configuration() {
        let place = Place::new();
        fs::create_dir_all(place.path()).unwrap();
        for path in [place.path(), PathBuf::from("/dev/null"), PathBuf::from("/dev/full")] {
            let config = FileConfig { path, rotate: RotateConfig::default(), fsync: Fsync::Never };
            let fault = NdjsonFile::new(config).open().unwrap_err();
            assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{fault}");
        }
    }
}
