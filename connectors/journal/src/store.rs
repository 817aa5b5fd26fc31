//! What writer and readers of an open journal share: [`Store`].
//!
//! Invariants: only what stands before the durable end is read; a segment is deleted only when it is below every place
//! that counts, and only after those places are written down; segments are deleted from the oldest on, so what is
//! there has no holes.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use forebay_api::{Blame, Fault, JournalStatus, Position, ReaderSetting, ReaderStatus, Start, step};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::{DiskConfig, Full};
use crate::fault::judge;
use crate::folder::Folder;
use crate::identity::Identity;
use crate::position;
use crate::readers::{Place, Readers};
use crate::segment::Segment;

/// An open journal.
#[derive(Debug)]
pub(crate) struct Store {
    /// Where it is.
    pub(crate) folder: Folder,
    /// Which it is.
    pub(crate) identity: Identity,
    /// Whose it is.
    pub(crate) source: String,
    /// What the configuration says.
    pub(crate) config: DiskConfig,
    /// All before this address is durable; only the log moves it.
    pub(crate) durable: watch::Sender<u64>,
    /// Ascending; never empty.
    segments: Mutex<VecDeque<Arc<Segment>>>,
    /// Never held while the disk is at work: readers look into it on every turn.
    readers: Mutex<Readers>,
    /// Held by whoever writes places down or deletes, so that neither happens beside the other. Waits for the disk.
    janitor: Mutex<()>,
    /// The readers that run in this process.
    running: Mutex<BTreeSet<String>>,
    /// What is wrong, for a person.
    trouble: Mutex<Option<String>>,
    /// Held until the store is dropped.
    _lock: File,
}

/// The reader of this name runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    store: Arc<Store>,
    name: Arc<str>,
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.store.running).remove(&*self.name);
    }
}

impl Store {
    pub(crate) fn new(
        (folder, lock): (Folder, File),
        (identity, source): (Identity, &str),
        config: DiskConfig,
        (segments, durable): (VecDeque<Arc<Segment>>, u64),
        readers: Readers,
    ) -> Store {
        Store {
            folder,
            identity,
            source: source.to_owned(),
            config,
            durable: watch::Sender::new(durable),
            segments: Mutex::new(segments),
            readers: Mutex::new(readers),
            janitor: Mutex::default(),
            running: Mutex::default(),
            trouble: Mutex::default(),
            _lock: lock,
        }
    }

    /// The segment that an address is in, and where what can be read of it ends; `None` where it is deleted or past the
    /// end.
    pub(crate) fn find(&self, at: u64) -> Option<(Arc<Segment>, u64)> {
        let segments = lock(&self.segments);
        let index = segments.partition_point(|segment| segment.base <= at).checked_sub(1)?;
        let end = segments.get(index + 1).map_or_else(|| *self.durable.borrow(), |next| next.base);
        (at <= end).then(|| (segments[index].clone(), end))
    }

    /// The oldest address that can be read.
    pub(crate) fn oldest(&self) -> u64 {
        lock(&self.segments).front().expect("there is always a segment").base
    }

    /// Every segment, the oldest first.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        lock(&self.segments).iter().cloned().collect()
    }

    /// Adds the segment that is written to from now on; it takes the place of one that holds nothing.
    pub(crate) fn begin(&self, segment: Arc<Segment>) {
        let mut segments = lock(&self.segments);
        if segments.back().is_some_and(|last| last.base == segment.base) {
            segments.pop_back();
        }
        segments.push_back(segment);
    }

    /// Bytes on disk, with the segment that is made in advance.
    pub(crate) fn bytes(&self) -> u64 {
        lock(&self.segments).iter().map(|segment| segment.size).sum::<u64>() + self.config.segment.get()
    }

    /// Makes sure that a segment of `size` more fits: deletes what has been read, then cuts off readers where that is
    /// wanted.
    pub(crate) fn make_room(&self, size: u64) -> Result<(), Fault> {
        let max_bytes = self.config.max_bytes.get();
        self.release(false)?;
        // A large entry may go beyond, once all before it has been read.
        while self.bytes() + size > max_bytes && self.segments().len() > 1 {
            if self.release(true)? > 0 {
                continue;
            }
            if self.config.full == Full::Block || !self.park()? {
                return Err(self.full());
            }
        }
        Ok(())
    }

    fn full(&self) -> Fault {
        let readers = lock(&self.readers);
        let slowest = readers.all().filter(|(_, place)| !place.parked).min_by_key(|(_, place)| place.at);
        let why = match slowest {
            Some((name, _)) => format!("it is full of what `{name}` has not read yet"),
            None => "it is full, and nobody reads it".to_owned(),
        };
        let remedy = format!(
            "see why the destination does not take its events; or raise `max_bytes` ({}); or, if it shall never have \
             them, take it out of the configuration and run `forebay journal forget`",
            self.config.max_bytes
        );
        Fault::retryable(format!("writing to the journal of `{}`", self.source), why).with_remedy(remedy)
    }

    /// Whether [`Store::release`] has something to delete.
    pub(crate) fn can_release(&self) -> bool {
        let Some(lowest) = lock(&self.readers).lowest() else { return false };
        let retain = self.config.retain.as_duration();
        lock(&self.segments)
            .get(1)
            .is_some_and(|next| next.base <= lowest && expired(next.head.received, retain))
    }

    /// Deletes segments that everybody has read: the oldest one when it is `urgent`, else all that are older than what is
    /// retained. Gives how many.
    pub(crate) fn release(&self, urgent: bool) -> Result<usize, Fault> {
        let _janitor = lock(&self.janitor);
        let mut readers = lock(&self.readers).clone();
        let lowest = match readers.lowest() {
            Some(lowest) => lowest,
            None if urgent && readers.all_are_parked() => u64::MAX,
            None => return Ok(0),
        };
        let retain = self.config.retain.as_duration();
        let done = |next: &Segment| next.base <= lowest && (urgent || expired(next.head.received, retain));
        let mut released = 0;
        loop {
            let victim = {
                let segments = lock(&self.segments);
                segments.front().filter(|_| segments.get(1).is_some_and(|next| done(next))).cloned()
            };
            let Some(victim) = victim else { return Ok(released) };
            let doing = || format!("deleting `{}`", victim.path.display());
            readers.store(&self.folder)?;
            // It stays the first one until it is gone, because a hole in the middle would be taken for damage.
            match fs::remove_file(&victim.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(judge(doing(), error)),
                _ => {}
            }
            step!("journal-segment-deleted");
            self.folder.sync().map_err(|error| judge(doing(), error))?;
            lock(&self.segments).pop_front();
            released += 1;
            if urgent {
                return Ok(released);
            }
        }
    }

    /// Cuts off the readers that hold the oldest segment; whether there were any, and none of them is required.
    fn park(&self) -> Result<bool, Fault> {
        let segments = self.segments();
        let Some(next) = segments.get(1) else { return Ok(false) };
        let _janitor = lock(&self.janitor);
        let (parked, mut readers) = {
            let mut readers = lock(&self.readers);
            (readers.park(next.base), readers.clone())
        };
        readers.store(&self.folder)?;
        for reader in &parked {
            warn!(
                source = %self.source, reader, remedy = parked_remedy(),
                "destination cut off from the journal, which is full"
            );
        }
        Ok(!parked.is_empty())
    }

    /// Gives a reader its place: where it resumes, else the place that it has, else where it begins. Durable when this returns.
    pub(crate) fn place(
        self: &Arc<Store>,
        setting: &ReaderSetting,
        resume: Option<u64>,
    ) -> Result<(u64, Running), Fault> {
        let (name, doing) = (&setting.name, self.reading(&setting.name));
        if !lock(&self.running).insert(name.to_string()) {
            return Err(Fault::fatal(doing, Blame::Defect, "it is read under this name already"));
        }
        let running = Running { store: self.clone(), name: name.clone() };
        // So that nothing is deleted meanwhile.
        let _janitor = lock(&self.janitor);
        let known = lock(&self.readers).get(name);
        if known.is_some_and(|place| place.parked) {
            return Err(parked(&doing));
        }
        let at = match (resume, known) {
            (Some(at), _) => at,
            (None, Some(place)) => place.at,
            (None, None) => self.start(setting)?,
        };
        self.exists(at, &doing)?;
        let mut readers = {
            let mut readers = lock(&self.readers);
            readers.set(name, Place { at, required: setting.required, parked: false })?;
            readers.clone()
        };
        readers.store(&self.folder)?;
        Ok((at, running))
    }

    /// Gives readers that have no place yet the one where they will begin.
    pub(crate) fn await_readers(&self, settings: &[ReaderSetting]) -> Result<(), Fault> {
        let _janitor = lock(&self.janitor);
        for setting in settings {
            // Where the start is none of this journal, the reader says so when it runs.
            let start = self.start(setting).ok().filter(|at| self.find(*at).is_some());
            let mut readers = lock(&self.readers);
            let Some(at) = start.filter(|_| readers.get(&setting.name).is_none()) else { continue };
            readers.set(&setting.name, Place { at, required: setting.required, parked: false })?;
        }
        let mut readers = lock(&self.readers).clone();
        readers.store(&self.folder)
    }

    /// Where a reader begins that has no position yet.
    fn start(&self, setting: &ReaderSetting) -> Result<u64, Fault> {
        match &setting.start {
            Start::Oldest => Ok(self.oldest()),
            Start::Newest => Ok(*self.durable.borrow()),
            Start::At(position) => self.address(position, &self.reading(&setting.name)),
        }
    }

    /// What a reader does.
    pub(crate) fn reading(&self, name: &str) -> String {
        format!("reading the journal of `{}` for `{name}`", self.source)
    }

    /// Refuses an address that cannot be read.
    pub(crate) fn exists(&self, at: u64, doing: &str) -> Result<(), Fault> {
        if self.find(at).is_some() {
            return Ok(());
        }
        let (oldest, end) = (self.oldest(), *self.durable.borrow());
        let why = if at < oldest {
            format!("the position {at} was deleted: the oldest entry is at {oldest}")
        } else {
            format!("the position {at} is past the end, which is at {end}")
        };
        Err(Fault::fatal(doing, Blame::Outside, why).with_remedy(anew()))
    }

    /// The address of a position; refused where it is another journal's.
    pub(crate) fn address(&self, position: &Position, doing: &str) -> Result<u64, Fault> {
        position::read(self.identity, position)
            .map_err(|error| Fault::fatal(doing, Blame::Outside, error).with_remedy(anew()))
    }

    /// A reader's stored position is at `at`: what is before it may go.
    pub(crate) fn stored(&self, name: &str, at: u64) {
        lock(&self.readers).raise(name, at);
    }

    /// Why a reader may read no more, if it was cut off.
    pub(crate) fn cut_off(&self, name: &str) -> Option<Fault> {
        match lock(&self.readers).get(name) {
            Some(Place { parked: false, .. }) => None,
            Some(_) => Some(parked(&self.reading(name))),
            None => Some(
                Fault::fatal(
                    self.reading(name),
                    Blame::Outside,
                    "its place in the journal was given up while it ran",
                )
                .with_remedy("start the daemon again"),
            ),
        }
    }

    /// Gives up the place of a reader; one that has none is nothing to give up.
    pub(crate) fn forget(&self, name: &str) -> Result<(), Fault> {
        let doing = || format!("forgetting `{name}` in the journal of `{}`", self.source);
        {
            let _janitor = lock(&self.janitor);
            let mut readers = {
                let mut readers = lock(&self.readers);
                let reads = lock(&self.running).contains(name);
                if reads && readers.get(name).is_some_and(|place| !place.parked) {
                    return Err(Fault::fatal(doing(), Blame::Configuration, "it is being read")
                        .with_remedy("take the destination out of the configuration first"));
                }
                if !readers.remove(name) {
                    return Ok(());
                }
                readers.clone()
            };
            readers.store(&self.folder)?;
        }
        info!(source = %self.source, reader = name, "reader of the journal forgotten");
        self.release(false)?;
        Ok(())
    }

    /// Tells what is wrong, or that nothing is.
    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        *lock(&self.trouble) = trouble;
    }

    /// What `/status` says.
    pub(crate) fn status(&self) -> JournalStatus {
        let end = *self.durable.borrow();
        let running = lock(&self.running).clone();
        let status = |(name, place): (&str, Place)| ReaderStatus {
            name: name.to_owned(),
            behind: Some(end.saturating_sub(place.at)),
            parked: place.parked,
            running: running.contains(name),
        };
        let readers = lock(&self.readers).all().map(status).collect();
        let oldest = lock(&self.segments).front().cloned().filter(|segment| segment.base < end);
        // A figure that cannot be read is left out; readers meet what is wrong with the file.
        let oldest = oldest.and_then(|segment| segment.first().ok()?).map(|frame| frame.received);
        JournalStatus {
            bytes: Some(self.bytes()),
            max_bytes: Some(self.config.max_bytes.get()),
            oldest: oldest.filter(|at| *at != i64::MIN),
            readers,
            trouble: lock(&self.trouble).clone(),
        }
    }

    /// The lowest place that is above `end`, for a check when the journal is opened.
    pub(crate) fn highest_place(readers: &Readers) -> u64 {
        readers.all().map(|(_, place)| place.at).max().unwrap_or(0)
    }

    /// The path of what is made in advance.
    pub(crate) fn spare(&self) -> PathBuf {
        self.folder.file("spare.tmp")
    }
}

fn expired(received: i64, retain: Duration) -> bool {
    if retain.is_zero() {
        return true;
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let received = Duration::from_micros(u64::try_from(received).unwrap_or(0));
    now.checked_sub(received).is_some_and(|age| age >= retain)
}

fn parked(doing: &str) -> Fault {
    let why = "it was cut off to make room: what it had not read yet may be deleted";
    Fault::fatal(doing, Blame::Outside, why).with_remedy(parked_remedy())
}

fn parked_remedy() -> &'static str {
    "run `forebay journal forget` for this destination to start it anew, then bring it what it lacks by a replay or a \
     copy"
}

fn anew() -> &'static str {
    "if the journal was replaced, restore the one that the position is of; or run `forebay journal forget` for this \
     destination to start it anew, then bring it what it lacks by a replay or a copy"
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
