//! The log against a model: whatever is appended, synced, failed and cut off by a crash at any byte, what was
//! acknowledged is there, in order, and what was not is there as a prefix of what was written, or not at all.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use forebay_api::units::ByteSize;
use forebay_api::{Fault, JournalSetting, Mark, StreamId};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::config::DiskConfig;
use crate::frame::{Entry, Kind, Summary};
use crate::frames::{Frames, Unread};
use crate::log::Log;
use crate::segment::Segment;
use crate::store::Store;

const PAGE: u64 = 4096;

/// An entry as the model knows it: its stream, its mark, and its bytes.
pub(crate) type Known = (u64, u64, Vec<u8>);

#[derive(Clone, Debug)]
enum Step {
    Append {
        stream: u64,
        sizes: Vec<usize>,
    },
    Commit,
    /// A write or a sync fails; some of what was written may be on the disk all the same.
    Fail(Survivors),
    /// The machine dies.
    Crash(Survivors),
    /// The daemon is stopped and started.
    Restart,
}

/// What a disk has of the pages that were not synced: those of a pattern, up to a byte.
#[derive(Clone, Debug)]
struct Survivors {
    pages: Vec<bool>,
    cut: prop::sample::Index,
}

pub(crate) fn setting(folder: &Path) -> JournalSetting {
    JournalSetting { source: "shop".to_owned(), instance: "test".to_owned(), data_dir: folder.to_owned() }
}

pub(crate) fn config() -> DiskConfig {
    DiskConfig { segment: ByteSize::kib(24), max_bytes: ByteSize::mib(64), ..DiskConfig::default() }
}

pub(crate) fn entry(stream: u64, mark: u64, payload: &[u8]) -> Entry {
    let stream = Arc::new(StreamId { source: "shop".into(), epoch: stream });
    let mark = Mark { major: (0, mark), minor: 0, part: 0 };
    let time = i64::try_from(mark.major.1).unwrap() * 10;
    let summary = Summary { marks: Some((mark, mark)), received: time, time, major: mark.major.1 };
    Entry::new(&stream, summary, |out| out.extend_from_slice(payload)).unwrap()
}

/// All that can be read from an address on, each with the address behind it; or the fault of the last segment.
pub(crate) fn read(store: &Store, mut at: u64) -> Result<Vec<(u64, Known)>, u64> {
    let mut found = Vec::new();
    while let Some((segment, end)) = store.find(at).filter(|(_, end)| at < *end) {
        let mut frames = Frames::new(segment, at, end);
        loop {
            match frames.next() {
                Ok(None) => break,
                Ok(Some((frame, body))) if frame.kind == Kind::Chunk => {
                    let body = frame.open(&body).expect("its checksum holds");
                    let mark = body.mark.expect("each has one").major.1;
                    found.push((frame.end(), (body.stream.epoch, mark, body.chunk.to_vec())));
                }
                Ok(Some(_)) => {}
                Err(Unread::NoFrame(at)) => return Err(at),
                Err(Unread::Io(error)) => panic!("{error}"),
            }
        }
        at = frames.at();
    }
    Ok(found)
}

struct Model {
    folder: TempDir,
    log: Option<Log>,
    /// Acknowledged, in order.
    durable: Vec<Known>,
    /// Written since.
    pending: Vec<Known>,
    /// Written before a failure, with nothing written since: whoever opens the journal then may find them.
    failed: Vec<Known>,
    marks: u64,
}

impl Model {
    fn new() -> Model {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(config(), &setting(folder.path())).unwrap();
        Model {
            folder,
            log: Some(log),
            durable: Vec::new(),
            pending: Vec::new(),
            failed: Vec::new(),
            marks: 0,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append { stream, sizes } => {
                let known: Vec<Known> = sizes
                    .iter()
                    .map(|size| {
                        self.marks += 1;
                        let byte = u8::try_from(self.marks % 251).unwrap();
                        (stream, self.marks, vec![byte; *size])
                    })
                    .collect();
                let mut entries: Vec<Entry> =
                    known.iter().map(|(stream, mark, bytes)| entry(*stream, *mark, bytes)).collect();
                let durable_before = self.log().durable();
                self.log().append(&mut entries).unwrap();
                self.pending.extend(known);
                self.failed.clear();
                // A segment begins only where all before it is durable.
                if self.log().durable() > durable_before {
                    let left = self.log().pending();
                    let synced = self.pending.len() - left;
                    self.durable.extend(self.pending.drain(..synced));
                }
            }
            Step::Commit => {
                self.log().commit().unwrap();
                self.durable.append(&mut self.pending);
            }
            Step::Fail(survivors) => {
                self.lose(&survivors);
                let error = std::io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
                assert!(self.log().give_up("syncing".to_owned(), error).is_retryable());
                self.failed.append(&mut self.pending);
            }
            Step::Crash(survivors) => {
                self.lose(&survivors);
                self.log = None;
                self.reopen();
            }
            Step::Restart => {
                self.log.take().unwrap().close().unwrap();
                self.durable.append(&mut self.pending);
                self.reopen();
            }
        }
        self.check();
    }

    /// Has the disk lose what was not synced, but for the survivors.
    fn lose(&mut self, survivors: &Survivors) {
        if self.log().is_broken() {
            return;
        }
        self.log().flush().unwrap();
        let (segment, from, to) = self.log().unsynced();
        let cut = from + survivors.cut.index(usize::try_from(to - from).unwrap() + 1) as u64;
        let file = File::options().write(true).open(&segment.path).unwrap();
        for at in segment.offset(from)..segment.offset(to) {
            let page = usize::try_from(at / PAGE).unwrap();
            let survives = survivors.pages[page % survivors.pages.len()] && at < segment.offset(cut);
            if !survives {
                file.write_all_at(&[0], at).unwrap();
            }
        }
    }

    fn reopen(&mut self) {
        self.log = Some(Log::open(config(), &setting(self.folder.path())).unwrap());
        let found: Vec<Known> =
            read(self.log().store(), 0).unwrap().into_iter().map(|(_, known)| known).collect();
        assert!(found.len() >= self.durable.len(), "what was acknowledged is lost");
        let mut written = std::mem::take(&mut self.durable);
        written.append(&mut self.failed);
        written.append(&mut self.pending);
        assert_eq!(found, written[..found.len()], "what is there is a prefix of what was written");
        self.durable = found;
    }

    /// What is durable can be read from every position in it, and is held.
    fn check(&mut self) {
        let durable = self.durable.clone();
        let store = self.log().store().clone();
        let all = read(&store, 0).unwrap();
        let known: Vec<&Known> = all.iter().map(|(_, known)| known).collect();
        assert_eq!(known, durable.iter().collect::<Vec<_>>());
        if let Some(middle) = all.get(all.len() / 2) {
            assert_eq!(read(&store, middle.0).unwrap(), all[all.len() / 2 + 1..]);
        }
        for stream in 0..2 {
            let highest = durable.iter().rev().find(|(of, _, _)| *of == stream).map(|(_, mark, _)| *mark);
            let id = StreamId { source: "shop".into(), epoch: stream };
            assert_eq!(self.log().held(&id).map(|mark| mark.major.1), highest);
        }
    }
}

fn survivors() -> impl Strategy<Value = Survivors> {
    (prop::collection::vec(any::<bool>(), 1..6), any::<prop::sample::Index>(), any::<bool>())
        .prop_map(|(pages, cut, whole)| Survivors { pages: if whole { vec![true] } else { pages }, cut })
}

fn steps() -> impl Strategy<Value = Step> {
    let size = prop_oneof![4 => 0..300usize, 2 => 3000..9000usize, 1 => 20_000..40_000usize];
    prop_oneof![
        8 => (0..2u64, prop::collection::vec(size, 1..6))
            .prop_map(|(stream, sizes)| Step::Append { stream, sizes }),
        5 => Just(Step::Commit),
        1 => survivors().prop_map(Step::Fail),
        3 => survivors().prop_map(Step::Crash),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_survives_every_crash_and_failure(
        steps in prop::collection::vec(steps(), 1..25)
    ) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
    }

    #[test]
    fn damage_to_what_a_later_entry_saw_durable_is_never_passed_over(
        sizes in prop::collection::vec(0..6000usize, 2..12), victim in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(), by in 1..=255u8
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(config(), &setting(folder.path())).unwrap();
        let mut ends = vec![0];
        for (mark, size) in (1..).zip(&sizes) {
            log.append(&mut [entry(0, mark, &vec![7; *size])]).unwrap();
            log.commit().unwrap();
            ends.push(*log.store().durable.borrow());
        }
        let victim = victim.index(sizes.len() - 1);
        let (from, to) = (ends[victim], ends[victim + 1]);
        let (segment, _) = log.store().find(from).unwrap();
        drop(log);
        let at = segment.offset(from) + byte.index(usize::try_from(to - from).unwrap()) as u64;
        let mut old = [0];
        segment.file.read_exact_at(&mut old, at).unwrap();
        segment.file.write_all_at(&[old[0] ^ by], at).unwrap();
        match Log::open(config(), &setting(folder.path())) {
            Ok(log) => prop_assert_eq!(read(log.store(), 0), Err(from)),
            Err(fault) => {
                prop_assert!(!fault.is_retryable());
                prop_assert!(fault.to_string().contains(&format!("from address {from} to {to} is damaged")), "{}", fault);
                prop_assert!(fault.remedy().unwrap().contains("journal salvage shop"));
            }
        }
    }
}

fn opened(folder: &Path) -> Result<Log, Fault> {
    Log::open(config(), &setting(folder))
}

#[test]
fn damage_to_the_last_entry_is_seen_after_a_clean_stop() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = opened(folder.path()).unwrap();
    log.append(&mut [entry(0, 1, b"the only one")]).unwrap();
    let (segment, _) = log.store().find(0).unwrap();
    log.close().unwrap();
    segment.file.write_all_at(b"X", segment.offset(100)).unwrap();
    let fault = opened(folder.path()).unwrap_err();
    assert!(fault.to_string().contains("from address 0 to"), "{fault}");
}

#[test]
fn opening_and_closing_an_idle_journal_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut ends = Vec::new();
    for _ in 0..3 {
        let log = opened(folder.path()).unwrap();
        ends.push(*log.store().durable.borrow());
        log.close().unwrap();
    }
    assert_eq!(ends, [0, 0, 0]);
}

#[test]
fn a_second_log_in_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = opened(folder.path()).unwrap();
    let fault = opened(folder.path()).unwrap_err();
    assert!(!fault.is_retryable() && fault.to_string().contains("another process"), "{fault}");
    drop(log);
    opened(folder.path()).unwrap();
}

#[test]
fn files_that_are_missing_or_of_another_journal_are_refused() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&ours, &theirs] {
        let mut log = opened(folder.path()).unwrap();
        for mark in 1..8 {
            log.append(&mut [entry(0, mark, &[1; 9000])]).unwrap();
        }
        log.close().unwrap();
    }
    let inside = ours.path().join("journal/shop");
    let other = JournalSetting { source: "crm".to_owned(), ..setting(ours.path()) };
    std::fs::rename(&inside, ours.path().join("journal/crm")).unwrap();
    let fault = Log::open(config(), &other).unwrap_err();
    assert!(fault.to_string().contains("it is the journal of the source `shop`, not of `crm`"), "{fault}");
    std::fs::rename(ours.path().join("journal/crm"), &inside).unwrap();

    let bases = crate::folder::Folder::of(&setting(ours.path())).bases().unwrap();
    assert!(bases.len() > 2);
    let middle = inside.join(Segment::name(bases[1]));
    let aside = ours.path().join("aside");
    std::fs::rename(&middle, &aside).unwrap();
    let fault = opened(ours.path()).unwrap_err();
    assert!(fault.to_string().contains("no segment begins at"), "{fault}");
    std::fs::copy(theirs.path().join("journal/shop").join(Segment::name(bases[1])), &middle).unwrap();
    let fault = opened(ours.path()).unwrap_err();
    assert!(fault.to_string().contains("it belongs to the journal"), "{fault}");
    std::fs::rename(&aside, &middle).unwrap();

    let about = inside.join("journal.json");
    let text = std::fs::read_to_string(&about).unwrap();
    std::fs::write(&about, text.replace("\"version\":1", "\"version\":2")).unwrap();
    let fault = opened(ours.path()).unwrap_err();
    assert!(fault.to_string().contains("it has version 2"), "{fault}");
    std::fs::remove_file(&about).unwrap();
    assert!(opened(ours.path()).unwrap_err().to_string().contains("no `journal.json`"));
    std::fs::write(&about, text).unwrap();
    opened(ours.path()).unwrap();
}

#[test]
fn marks_that_do_not_ascend_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = opened(folder.path()).unwrap();
    log.append(&mut [entry(0, 2, b"")]).unwrap();
    for again in [1, 2] {
        assert!(!log.append(&mut [entry(0, again, b"")]).unwrap_err().is_retryable());
    }
    log.append(&mut [entry(1, 1, b""), entry(1, 2, b"")]).unwrap();
    log.commit().unwrap();
    assert!(!log.append(&mut [entry(0, 2, b"")]).unwrap_err().is_retryable());
}

/// The disk has it all, but nobody was told: what comes next takes its addresses.
#[test]
fn what_failed_never_follows_what_was_written_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = opened(folder.path()).unwrap();
    log.append(&mut [entry(0, 1, b"same"), entry(0, 2, b"size")]).unwrap();
    log.flush().unwrap();
    let error = std::io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
    log.give_up("syncing".to_owned(), error);
    log.append(&mut [entry(0, 1, b"next")]).unwrap();
    log.commit().unwrap();
    drop(log);
    let log = opened(folder.path()).unwrap();
    let found: Vec<Known> = read(log.store(), 0).unwrap().into_iter().map(|(_, known)| known).collect();
    assert_eq!(found, [(0, 1, b"next".to_vec())]);
}

#[test]
fn damage_to_what_a_reader_has_stored_is_not_taken_for_a_torn_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = opened(folder.path()).unwrap();
    log.append(&mut [entry(0, 1, b"read and stored")]).unwrap();
    log.commit().unwrap();
    let setting = crate::rig::setting_of("lake", true, forebay_api::Start::Newest);
    let (end, _running) = log.store().place(&setting, None).unwrap();
    let (segment, _) = log.store().find(0).unwrap();
    segment.file.write_all_at(b"X", segment.offset(100)).unwrap();
    drop((_running, log));
    let fault = opened(folder.path()).unwrap_err();
    assert!(fault.to_string().contains(&format!("from address 0 to {end} is damaged")), "{fault}");
}

#[test]
fn a_torn_end_is_zeros_after_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = opened(folder.path()).unwrap();
    log.append(&mut [entry(0, 1, &[1; 9000])]).unwrap();
    log.flush().unwrap();
    let (segment, from, to) = log.unsynced();
    segment.file.write_all_at(b"?", segment.offset(from + 70)).unwrap();
    drop(log);
    let log = opened(folder.path()).unwrap();
    let mut bytes = vec![1; usize::try_from(to - from).unwrap()];
    segment.read(from, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    assert_eq!(log.durable(), from);
}
