//! The log as its one writer has it: [`Log`]. Blocking.
//!
//! ```text
//!  … │ segment │ segment: header · frame · frame ┊ frame · frame │ zeros │     spare.tmp (zeros, made in advance)
//!                                       durable ┘         written ┘
//! ```
//! Invariants: what is written is no part of the log before [`Log::commit`] has returned; after a write or a sync that
//! failed, the segment is given up at its durable end, and a new one begins there. What was written behind it stays in
//! the old file but has no address any more, so it is never taken for valid, whether the disk has it or not.

use std::collections::VecDeque;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use forebay_api::{Blame, Fault, JournalSetting, Mark, StreamId, step};
use tracing::{error, info, warn};

use crate::config::DiskConfig;
use crate::fault::judge;
use crate::folder::Folder;
use crate::frame::{Entry, Frame, HEADER, Kind};
use crate::frames::AHEAD;
use crate::head::Head;
use crate::identity::Identity;
use crate::readers::Readers;
use crate::recovery::{End, recover};
use crate::segment::{Refused, Segment};
use crate::store::Store;

/// Small entries are gathered up to this size before they are handed to the kernel.
const GATHER: usize = 1 << 20;

/// A log that is open for writing.
#[derive(Debug)]
pub(crate) struct Log {
    store: Arc<Store>,
    current: Arc<Segment>,
    /// What is known at the durable end.
    head: Head,
    durable: u64,
    /// Behind what was written since.
    written: u64,
    /// What was written since, in order.
    pending: Vec<(Frame, Arc<StreamId>, Option<Mark>)>,
    /// The bytes before `written` that the kernel does not have yet.
    gathered: Vec<u8>,
    /// A write or a sync failed: what is behind the durable end is not known.
    broken: bool,
    /// Whether the last frame says that all before it was durable.
    sealed: bool,
    /// Makes the next segment.
    spare: Option<JoinHandle<io::Result<File>>>,
}

impl Log {
    /// Opens the journal, or makes it: takes its lock, finds its end, and cuts off what was torn.
    pub(crate) fn open(config: DiskConfig, setting: &JournalSetting) -> Result<Log, Fault> {
        let folder = Folder::of(setting);
        folder.make()?;
        let lock = folder.lock()?;
        folder.clean()?;
        if !folder.has_journal()? {
            create(&folder, config, setting)?;
        }
        let identity = folder.identity(&setting.source)?;
        let readers = Readers::load(&folder)?;
        let segments = open_segments(&folder, identity, &setting.source)?;
        let current = segments.back().expect("it is refused without one").clone();
        let proven = Store::highest_place(&readers);
        if proven > current.limit() {
            let why = format!("a reader is at address {proven}, but the last segment ends before");
            return Err(gone(&folder, why));
        }
        let end = recover(&current, &setting.source, proven)?;
        settle(&current, &end)?;
        let store =
            Store::new((folder, lock), (identity, &setting.source), config, (segments, end.at), readers);
        let mut log = Log {
            store: Arc::new(store),
            current,
            head: end.head,
            durable: end.at,
            written: end.at,
            pending: Vec::new(),
            gathered: Vec::new(),
            broken: false,
            sealed: end.sealed,
            spare: None,
        };
        log.prepare();
        Ok(log)
    }

    /// What it shares with readers.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The highest mark of a stream that is durable.
    pub(crate) fn held(&self, stream: &StreamId) -> Option<Mark> {
        self.head.mark(stream)
    }

    /// The durable end.
    #[cfg(test)]
    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    /// Has every write to the current segment fail.
    #[cfg(test)]
    pub(crate) fn forbid_writes(&mut self) {
        let segment = &self.current;
        let file = File::open(&segment.path).expect("it is there");
        let header = segment.offset(segment.base);
        let (path, head) = (segment.path.clone(), segment.head.clone());
        self.current = Arc::new(Segment::new(path, segment.base, head, file, header, segment.size));
    }

    /// How many entries wait for a commit.
    #[cfg(test)]
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Where what is not synced stands.
    #[cfg(test)]
    pub(crate) fn unsynced(&self) -> (Arc<Segment>, u64, u64) {
        (self.current.clone(), self.durable, self.written)
    }

    /// Whether a failure has taken back all that was written since the last commit.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Writes entries of one stream. After a fault some of them may be written; [`Log::held`] tells after the next
    /// commit.
    pub(crate) fn append(&mut self, entries: &mut [Entry]) -> Result<(), Fault> {
        self.check_marks(entries)?;
        for entry in entries {
            self.make_fit(entry.len())?;
            let frame = entry.place(self.written, self.durable);
            self.write(entry.bytes())?;
            self.pending.push((frame, entry.stream.clone(), entry.marks.map(|(_, last)| last)));
            step!("journal-frame-written");
        }
        Ok(())
    }

    /// Makes everything written durable. After a fault nothing of it is.
    pub(crate) fn commit(&mut self) -> Result<(), Fault> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.flush()?;
        step!("journal-before-sync");
        if let Err(error) = self.current.file.sync_data() {
            return Err(self.give_up(format!("syncing `{}`", self.current.path.display()), error));
        }
        step!("journal-synced");
        for (frame, stream, mark) in self.pending.drain(..) {
            self.head.pass(&frame, &stream, mark);
            self.sealed = frame.kind == Kind::Seal;
        }
        self.durable = self.written;
        self.store.set_trouble(None);
        self.store.durable.send_replace(self.durable);
        Ok(())
    }

    /// Says on the disk that all is durable, so that damage to the last entries is not taken for a torn end.
    pub(crate) fn close(mut self) -> Result<(), Fault> {
        self.commit()?;
        let room = self.current.limit() - self.written;
        if self.sealed || self.broken || room < HEADER as u64 {
            return Ok(());
        }
        let frame = Frame::bare(Kind::Seal, self.written, self.durable, b"");
        let mut header = [0; HEADER];
        frame.write(&mut header);
        self.write(&header)?;
        let nothing = Arc::new(StreamId { source: "".into(), epoch: 0 });
        self.pending.push((frame, nothing, None));
        self.commit()
    }

    /// Marks ascend in each stream of a journal, or its readers could not tell what they have.
    fn check_marks(&self, entries: &[Entry]) -> Result<(), Fault> {
        let Some(first) = entries.first() else { return Ok(()) };
        let pending = self.pending.iter().filter(|(_, stream, _)| *stream == first.stream);
        let written = pending.filter_map(|(_, _, mark)| *mark).max();
        let mut highest = written.max(self.held(&first.stream));
        for (lowest, last) in entries.iter().filter_map(|entry| entry.marks) {
            if highest.is_some_and(|highest| lowest <= highest) {
                let highest = highest.map(|mark| mark.to_string()).unwrap_or_default();
                let why =
                    format!("mark {lowest} came although {highest} is in it, in stream `{}`", first.stream);
                let doing = format!("writing to the journal of `{}`", self.store.source);
                return Err(Fault::fatal(doing, Blame::Defect, why).with_remedy("report this"));
            }
            highest = Some(last);
        }
        Ok(())
    }

    /// Makes sure that `length` bytes fit behind what was written.
    fn make_fit(&mut self, length: u64) -> Result<(), Fault> {
        if self.broken {
            self.begin(length)?;
            self.broken = false;
        }
        if self.written + length > self.current.limit() {
            self.commit()?;
            self.begin(length)?;
        }
        Ok(())
    }

    /// Writes behind what was written; small pieces are gathered.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.gathered.len() + bytes.len() > GATHER {
            self.flush()?;
        }
        if bytes.len() > GATHER {
            self.hand_over(bytes)?;
        } else {
            self.gathered.extend_from_slice(bytes);
        }
        self.written += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<(), Fault> {
        let gathered = std::mem::take(&mut self.gathered);
        self.written -= gathered.len() as u64;
        let handed_over = self.hand_over(&gathered);
        if handed_over.is_ok() {
            self.written += gathered.len() as u64;
        }
        self.gathered = gathered;
        self.gathered.clear();
        handed_over
    }

    /// Gives the kernel what stands at `written`.
    fn hand_over(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let offset = self.current.offset(self.written);
        self.current
            .file
            .write_all_at(bytes, offset)
            .map_err(|error| self.give_up(format!("writing `{}`", self.current.path.display()), error))
    }

    /// What is behind the durable end is not known any more: nobody may sync or read it again.
    pub(crate) fn give_up(&mut self, doing: String, error: io::Error) -> Fault {
        self.broken = true;
        self.pending.clear();
        self.gathered.clear();
        self.written = self.durable;
        let fault = judge(doing, error);
        error!(
            source = %self.store.source, error = %fault, remedy = fault.remedy(), durable = self.durable,
            "journal could not be written; nothing behind the durable end was acknowledged"
        );
        self.store.set_trouble(Some(fault.to_string()));
        fault
    }

    /// Begins a segment at the durable end, with room for an entry of `length`.
    fn begin(&mut self, length: u64) -> Result<(), Fault> {
        let header = Segment::header(self.store.identity, self.durable, &self.head);
        let size = self.store.config.segment.get().max(header.len() as u64 + length);
        let path = self.store.folder.file(&Segment::name(self.durable));
        let begun = self.store.make_room(size).and_then(|()| {
            self.make_segment(&path, &header, size)
                .map_err(|error| judge(format!("beginning `{}`", path.display()), error))
        });
        match begun {
            Ok(file) => {
                step!("journal-segment-begun");
                let (head, header) = (self.head.clone(), header.len() as u64);
                self.current = Arc::new(Segment::new(path, self.durable, head, file, header, size));
                self.store.begin(self.current.clone());
                self.prepare();
                Ok(())
            }
            Err(fault) => {
                // The new file may be there under its name all the same: nothing is written before one was begun here.
                self.broken = true;
                self.store.set_trouble(Some(fault.to_string()));
                Err(fault)
            }
        }
    }

    /// Gives an empty file a header, and then the name of a segment.
    fn make_segment(&mut self, path: &Path, header: &[u8], size: u64) -> io::Result<File> {
        let usual = size == self.store.config.segment.get();
        let (made, file) =
            match self.spare.take_if(|spare| usual && spare.is_finished()).map(JoinHandle::join) {
                Some(Ok(Ok(file))) => (self.store.spare(), file),
                // Why it could not be made in advance is found by making it here.
                Some(_) => (self.store.spare(), Segment::zeros(&self.store.spare(), size)?),
                // Nobody waits for zeros: who writes faster than they are made is better off without.
                None => {
                    let made = self.store.folder.file("holes.tmp");
                    (made.clone(), Segment::holes(&made, size)?)
                }
            };
        file.write_all_at(header, 0)?;
        file.sync_all()?;
        step!("journal-segment-prepared");
        fs::rename(&made, path)?;
        self.store.folder.sync()?;
        Ok(file)
    }

    /// Begins to make the next segment, unless that is under way.
    fn prepare(&mut self) {
        if self.spare.is_some() {
            return;
        }
        let (path, size) = (self.store.spare(), self.store.config.segment.get());
        let thread = std::thread::Builder::new().name("journal-spare".to_owned());
        match thread.spawn(move || Segment::zeros(&path, size)) {
            Ok(spare) => self.spare = Some(spare),
            Err(error) => {
                warn!(%error, "no thread to make the next segment in advance; it is made when it is needed")
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // The lock is let go only when nobody writes any more; what was made is deleted when the journal is opened.
        if let Some(spare) = self.spare.take() {
            spare.join().ok();
        }
    }
}

/// Makes an empty journal; what says that there is one comes last.
fn create(folder: &Folder, config: DiskConfig, setting: &JournalSetting) -> Result<(), Fault> {
    // Made when an earlier attempt ended in the middle, so it holds nothing.
    for base in folder.bases()? {
        if base != 0 {
            let why = format!("it has segments, but no `journal.json`: `{}` is one", Segment::name(base));
            return Err(gone(folder, why));
        }
    }
    let identity = Identity::new();
    Readers::default().write(folder)?;
    let path = folder.file(&Segment::name(0));
    let make = || -> io::Result<()> {
        let made = folder.file("first.tmp");
        let file = Segment::zeros(&made, config.segment.get())?;
        file.write_all_at(&Segment::header(identity, 0, &Head::default()), 0)?;
        file.sync_all()?;
        fs::rename(&made, &path)?;
        folder.sync()
    };
    make().map_err(|error| judge(format!("making `{}`", path.display()), error))?;
    folder.write_about(identity, setting)?;
    info!(source = %setting.source, folder = %folder.path().display(), journal = %identity, "journal made");
    Ok(())
}

/// Opens every segment; refused where one does not belong here or one is missing.
fn open_segments(folder: &Folder, identity: Identity, source: &str) -> Result<VecDeque<Arc<Segment>>, Fault> {
    let mut segments: VecDeque<Arc<Segment>> = VecDeque::new();
    for base in folder.bases()? {
        let path = folder.file(&Segment::name(base));
        let segment = Segment::open(path.clone(), base, identity)
            .map_err(|refused| not_ours(&path, source, refused))?;
        if let Some(before) = segments.back().filter(|before| before.limit() < base) {
            return Err(gone(folder, format!("no segment begins at {:016x}", before.limit())));
        }
        segments.push_back(Arc::new(segment));
    }
    if segments.is_empty() {
        return Err(gone(folder, "it has no segments".to_owned()));
    }
    Ok(segments)
}

pub(crate) fn not_ours(path: &Path, source: &str, refused: Refused) -> Fault {
    let doing = format!("opening `{}`", path.display());
    match refused {
        Refused::Io(error) => judge(doing, error),
        Refused::Damaged => Fault::fatal(doing, Blame::Outside, refused).with_remedy(format!(
            "restore this file from a copy; or move it away with all that are older, start readers anew that have not \
             read them (`forebay journal forget`), and see the kernel's log for errors of the disk (source `{source}`)"
        )),
        Refused::Newer(_) => Fault::fatal(doing, Blame::Configuration, refused)
            .with_remedy("run the version of forebay that wrote it, or a newer one"),
        Refused::Other(_) | Refused::Misnamed(_) => Fault::fatal(doing, Blame::Outside, refused)
            .with_remedy("see who copied or renamed files of the journal, and put them back"),
    }
}

/// Files are missing.
fn gone(folder: &Folder, why: String) -> Fault {
    Fault::fatal(format!("opening the journal in `{}`", folder.path().display()), Blame::Outside, why)
        .with_remedy(
            "restore the files that are missing; or move the folder away to begin with an empty journal, which loses \
             what destinations have not read",
        )
}

/// Makes the end that was found durable: writes again what the kernel may have forgotten to write, as after a sync that
/// failed, and zeros over what was torn.
fn settle(segment: &Segment, end: &End) -> Result<(), Fault> {
    let write = || -> io::Result<()> {
        let mut at = end.proven;
        while at < end.dirty {
            let to = if at < end.at { end.at } else { end.dirty };
            let length = usize::try_from(to - at).map_or(AHEAD, |left| left.min(AHEAD));
            let mut bytes = vec![0; length];
            if at < end.at {
                segment.read(at, &mut bytes)?;
            }
            segment.file.write_all_at(&bytes, segment.offset(at))?;
            at += length as u64;
        }
        segment.file.sync_data()
    };
    if end.dirty > end.at {
        warn!(
            file = %segment.path.display(), at = end.at, bytes = end.dirty - end.at,
            "torn end of the journal cut off; it was never acknowledged"
        );
    }
    write().map_err(|error| judge(format!("settling the end of `{}`", segment.path.display()), error))?;
    step!("journal-tail-settled");
    Ok(())
}
