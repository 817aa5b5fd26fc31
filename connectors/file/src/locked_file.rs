//! The file at a path, opened and locked by its one writer, ending with a whole line.

use std::fs;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use forebay_api::{Blame, Fault};
use tracing::warn;

use crate::fault::judge;
use crate::tail::whole_lines;

/// How long a process that is just ending gets to let go of the lock.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Between two attempts at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// What to do about a path that leads to something else than a file.
pub(crate) const NOT_REGULAR: &str =
    "name a file; pipes are served by `type: stdout`, `/dev/null` by `type: blackhole`";

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file that this describes.
    pub(crate) fn of(metadata: &fs::Metadata) -> FileId {
        FileId { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// A file that this process alone writes to, until it is dropped.
pub(crate) struct LockedFile {
    /// Opened for appending.
    pub(crate) file: File,
    /// Which it is, to see when another stands at its path.
    pub(crate) id: FileId,
    /// What was written.
    pub(crate) len: u64,
    /// Up to where it is believed.
    pub(crate) kept: u64,
    /// When its first record was written.
    pub(crate) born: SystemTime,
}

impl LockedFile {
    /// Opens the file at `path`, or makes it, and takes its lock.
    pub(crate) fn lock(path: &Path) -> Result<LockedFile, Fault> {
        let mut waited = Duration::ZERO;
        loop {
            if let Some(file) = LockedFile::try_lock(path)? {
                return Ok(file);
            }
            if waited >= LOCK_WAIT {
                let why = "another process or destination writes to it";
                let fault = Fault::fatal(opening(path), Blame::Outside, why);
                return Err(fault.with_remedy("stop the other one, or give each a `path` of its own"));
            }
            std::thread::sleep(LOCK_PAUSE);
            waited += LOCK_PAUSE;
        }
    }

    /// `None` while somebody else has the lock.
    fn try_lock(path: &Path) -> Result<Option<LockedFile>, Fault> {
        let failed = |error| judge(opening(path), error);
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            let fault = Fault::fatal(opening(path), Blame::Configuration, "it is not a regular file");
            return Err(fault.with_remedy(NOT_REGULAR));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                return Err(judge(format!("locking `{}`", path.display()), error));
            }
        }
        let metadata = file.metadata().map_err(failed)?;
        let id = FileId::of(&metadata);
        // Between opening and locking, the writer that had it may have rotated it away.
        if fs::metadata(path).map(|there| FileId::of(&there)).ok() != Some(id) {
            return Ok(None);
        }
        let born = metadata.created().or_else(|_| metadata.modified()).unwrap_or_else(|_| SystemTime::now());
        Ok(Some(LockedFile { file, id, len: metadata.len(), kept: metadata.len(), born }))
    }

    /// Shortens the file to what is believed of it.
    pub(crate) fn cut(&mut self, to: u64, path: &Path) -> Result<(), Fault> {
        let doing =
            || format!("cutting `{}` back to the {to} bytes that are known to be good", path.display());
        self.file.set_len(to).map_err(|error| judge(doing(), error))?;
        self.len = to;
        self.kept = to;
        Ok(())
    }

    /// Cuts off what is behind the last whole line: a process that was killed while it wrote, or a power cut, left
    /// it, and it was never accepted.
    pub(crate) fn repair(&mut self, path: &Path) -> Result<(), Fault> {
        let doing = || format!("reading the end of `{}`", path.display());
        let end = whole_lines(&self.file, self.len).map_err(|error| judge(doing(), error))?;
        if end == self.len {
            return Ok(());
        }
        let mut first = [0];
        self.file.read_exact_at(&mut first, end).map_err(|error| judge(doing(), error))?;
        // A record begins with a brace; a NUL byte is what a power cut leaves.
        if !matches!(first, [b'{' | 0]) {
            let why = "its last line is not ended and does not begin as a record does";
            let fault = Fault::fatal(doing(), Blame::Configuration, why);
            let remedy = format!("`{}` was not written by forebay: choose another `path`", path.display());
            return Err(fault.with_remedy(remedy));
        }
        warn!(path = %path.display(), bytes_cut = self.len - end, "torn end of file cut off");
        self.cut(end, path)
    }
}

fn opening(path: &Path) -> String {
    format!("opening `{}`", path.display())
}
