//! Saves what can be saved of a journal with damaged entries: [`salvage`].
//!
//! Damaged bytes are put aside, and a gap takes their place, so that readers pass over it and say so. Only an operator
//! asks for this: what the entries held is lost to the journal.

use std::fmt;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use forebay_api::{Blame, Fault, JournalSetting};

use crate::fault::judge;
use crate::folder::Folder;
use crate::frame::{Frame, HEADER};
use crate::frames::{AHEAD, Frames, Unread};
use crate::log::not_ours;
use crate::readers::Readers;
use crate::recovery::{last_byte, next_frame};
use crate::segment::Segment;
use crate::store::Store;

/// Damaged entries that were put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The file that they were in.
    pub file: PathBuf,
    /// The address of the first.
    pub from: u64,
    /// The address behind the last.
    pub until: u64,
    /// Where their bytes are now.
    pub aside: PathBuf,
    /// Of these, bytes that could not be read; zeros stand for them.
    pub unreadable: u64,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes of entries in `{}`, from {:016x} to {:016x}, were damaged; they are kept in `{}`",
            self.until - self.from,
            self.file.display(),
            self.from,
            self.until,
            self.aside.display()
        )?;
        match self.unreadable {
            0 => Ok(()),
            bytes => write!(f, " ({bytes} bytes could not be read)"),
        }
    }
}

/// Puts the damaged entries of a journal aside. No daemon may have it open. Whatever ends this early, it can be run
/// again.
pub fn salvage(setting: &JournalSetting) -> Result<Vec<Gap>, Fault> {
    let folder = Folder::of(setting);
    if !folder.has_journal()? {
        let doing = format!("salvaging the journal in `{}`", folder.path().display());
        return Err(Fault::fatal(doing, Blame::Configuration, "there is none")
            .with_remedy("correct the name of the source, or `data_dir`"));
    }
    let _lock = folder.lock()?;
    let identity = folder.identity(&setting.source)?;
    let proven = Store::highest_place(&Readers::load(&folder)?);
    let bases = folder.bases()?;
    let mut gaps = Vec::new();
    for (index, &base) in bases.iter().enumerate() {
        let path = folder.file(&Segment::name(base));
        let segment = Segment::open(path.clone(), base, identity)
            .map_err(|refused| not_ours(&path, &setting.source, refused))?;
        let segment = Arc::new(segment);
        let failed = |error| judge(format!("salvaging `{}`", path.display()), error);
        gaps.extend(
            match bases.get(index + 1) {
                Some(&next) => mend(&folder, &segment, next.min(segment.limit()), u64::MAX),
                None => {
                    let end = last_byte(&segment, base).map_err(failed)?.max(proven.min(segment.limit()));
                    mend(&folder, &segment, end.max(base), proven)
                }
            }
            .map_err(failed)?,
        );
    }
    Ok(gaps)
}

/// Puts aside what is damaged before `end` and was durable: `proven` is an address up to which everything was.
fn mend(folder: &Folder, segment: &Arc<Segment>, end: u64, proven: u64) -> io::Result<Vec<Gap>> {
    let mut gaps = Vec::new();
    let mut at = segment.base;
    while at < end {
        let Some(from) = first_damage(segment, at, end)? else { break };
        let next = next_frame(segment, from, end)?;
        // A torn end is cut off when the journal is opened: it was never acknowledged.
        if proven <= from && !is_proven(segment, from, end)? {
            break;
        }
        let until = next.map_or(end.min(proven), |frame| frame.at);
        if until < from + HEADER as u64 {
            return Err(io::Error::other(format!("too little is damaged from address {from} to {until}")));
        }
        gaps.push(put_aside(folder, segment, from, until)?);
        at = until;
    }
    Ok(gaps)
}

/// The address of the first frame from `at` on that is damaged, or that cannot be read.
fn first_damage(segment: &Arc<Segment>, at: u64, end: u64) -> io::Result<Option<u64>> {
    let mut frames = Frames::new(segment.clone(), at, end);
    loop {
        let at = frames.at();
        match frames.next() {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(Unread::NoFrame(at)) => return Ok(Some(at)),
            Err(Unread::Io(error)) if is_unreadable(&error) => return Ok(Some(at)),
            Err(Unread::Io(error)) => return Err(error),
        }
    }
}

/// Whether a frame behind `at` says that all before was durable.
fn is_proven(segment: &Arc<Segment>, at: u64, end: u64) -> io::Result<bool> {
    let mut from = at;
    while let Some(frame) = next_frame(segment, from, end)? {
        if frame.durable > at {
            return Ok(true);
        }
        from = frame.end();
    }
    Ok(false)
}

/// Copies the bytes between two addresses, then writes a gap over them.
fn put_aside(folder: &Folder, segment: &Segment, from: u64, until: u64) -> io::Result<Gap> {
    let aside_in = folder.file("damaged");
    fs::create_dir_all(&aside_in)?;
    let aside = aside_in.join(format!("{from:016x}-{until:016x}.bin"));
    // From a run that was interrupted: what it copied is better than what stands there now.
    let unreadable = if aside.exists() { 0 } else { copy(segment, (from, until), &aside)? };
    File::open(&aside_in)?.sync_all()?;
    folder.sync()?;
    let mut header = [0; HEADER];
    Frame::gap(from, until - from).write(&mut header);
    segment.file.write_all_at(&header, segment.offset(from))?;
    let zeros = vec![0; AHEAD];
    let mut at = from + HEADER as u64;
    while at < until {
        let length = usize::try_from(until - at).map_or(AHEAD, |left| left.min(AHEAD));
        segment.file.write_all_at(&zeros[..length], segment.offset(at))?;
        at += length as u64;
    }
    segment.file.sync_all()?;
    Ok(Gap { file: segment.path.clone(), from, until, aside, unreadable })
}

/// Copies what can be read; gives how many bytes could not.
fn copy(segment: &Segment, (from, until): (u64, u64), to: &std::path::Path) -> io::Result<u64> {
    /// What a disk that fails gives or refuses as one.
    const PIECE: usize = 4096;
    let temporary = to.with_extension("tmp");
    let file = File::create(&temporary)?;
    let mut unreadable = 0;
    let mut at = from;
    while at < until {
        let length = usize::try_from(until - at).map_or(PIECE, |left| left.min(PIECE));
        let mut bytes = vec![0; length];
        if let Err(error) = segment.read(at, &mut bytes) {
            if !is_unreadable(&error) {
                return Err(error);
            }
            unreadable += length as u64;
        }
        file.write_all_at(&bytes, at - from)?;
        at += length as u64;
    }
    file.sync_all()?;
    fs::rename(&temporary, to)?;
    Ok(unreadable)
}

/// Whether the disk has lost what should be read.
fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;
    use crate::model::{config, entry, read, setting};

    /// Twelve entries, some of them damaged; the log is closed. Gives where each begins, and the end.
    fn damaged(folder: &std::path::Path, victims: &[usize]) -> Vec<u64> {
        let mut log = Log::open(config(), &setting(folder)).unwrap();
        let mut at = vec![0];
        for mark in 1..=12 {
            log.append(&mut [entry(0, mark, &[7; 5000])]).unwrap();
            log.commit().unwrap();
            at.push(log.durable());
        }
        for &victim in victims {
            let (segment, _) = log.store().find(at[victim]).unwrap();
            segment.file.write_all_at(b"?", segment.offset(at[victim] + 99)).unwrap();
            segment.file.write_all_at(b"?", segment.offset(at[victim] + 5)).unwrap();
        }
        log.close().unwrap();
        at
    }

    #[test]
    fn what_is_damaged_is_put_aside_and_the_rest_is_read() {
        for victims in [&[0][..], &[3], &[4, 5], &[1, 2, 7], &[11], &[10, 11]] {
            let folder = tempfile::tempdir().unwrap();
            let at = damaged(folder.path(), victims);
            let gaps = salvage(&setting(folder.path())).unwrap();
            let lost: u64 = gaps.iter().map(|gap| gap.until - gap.from).sum();
            assert_eq!(lost, victims.iter().map(|&victim| at[victim + 1] - at[victim]).sum::<u64>());
            let aside = fs::read(&gaps[0].aside).unwrap();
            assert_eq!((aside.len() as u64, aside[99]), (gaps[0].until - gaps[0].from, b'?'));
            assert!(salvage(&setting(folder.path())).unwrap().is_empty(), "it is whole now");
            let log = Log::open(config(), &setting(folder.path())).unwrap();
            let marks: Vec<u64> =
                read(log.store(), 0).unwrap().iter().map(|(_, (_, mark, _))| *mark - 1).collect();
            let kept: Vec<u64> =
                (0..12).filter(|index| !victims.contains(&usize::try_from(*index).unwrap())).collect();
            assert_eq!(marks, kept);
        }
    }

    #[test]
    fn a_salvage_that_was_interrupted_is_run_again_and_keeps_the_first_copy() {
        let folder = tempfile::tempdir().unwrap();
        let at = damaged(folder.path(), &[5]);
        let copies = Folder::of(&setting(folder.path())).file("damaged");
        fs::create_dir(&copies).unwrap();
        let copy = copies.join(format!("{:016x}-{:016x}.bin", at[5], at[6]));
        fs::write(&copy, "the first copy").unwrap();
        let gaps = salvage(&setting(folder.path())).unwrap();
        assert_eq!(gaps[0].aside, copy);
        assert_eq!(fs::read(&copy).unwrap(), b"the first copy");
    }

    #[test]
    fn a_whole_journal_and_a_torn_end_are_left_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        damaged(folder.path(), &[]);
        assert!(salvage(&setting(folder.path())).unwrap().is_empty());
        let mut log = Log::open(config(), &setting(folder.path())).unwrap();
        log.append(&mut [entry(0, 13, b"torn")]).unwrap();
        log.flush().unwrap();
        let (segment, from, _) = log.unsynced();
        segment.file.write_all_at(b"?", segment.offset(from + 70)).unwrap();
        drop(log);
        assert!(salvage(&setting(folder.path())).unwrap().is_empty());
        assert_eq!(Log::open(config(), &setting(folder.path())).unwrap().durable(), from);
    }

    #[test]
    fn a_journal_that_is_not_there_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        assert!(salvage(&setting(folder.path())).unwrap_err().to_string().contains("there is none"));
        assert!(!folder.path().join("journal").exists());
    }
}
