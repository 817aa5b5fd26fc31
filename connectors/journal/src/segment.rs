//! One file of the log: a header, then frames one behind the other, then zeros.
//!
//! Addresses count only what is behind headers: the first frame of a segment stands at its base, which is the end of
//! the segment before. Invariant: the header of a segment is durable before its file has its name, and a segment begins
//! only where all before it is durable; so a damaged frame in a segment that another one follows was durable once.

use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::fields::{Fields, put};
use crate::frame::{Frame, HEADER};
use crate::head::Head;
use crate::identity::Identity;

/// What every segment begins with.
const MAGIC: [u8; 8] = *b"FBJOURNL";

/// The format of segments and frames.
const VERSION: u32 = 1;

/// The header is filled up to a multiple of this, so that frames begin at a page.
const ALIGN: usize = 4096;

/// The longest header: far more than [`crate::head::MAX_STREAMS`] take.
const MAX_HEADER: usize = 512 << 10;

/// Zeros are written in pieces of this size.
const PIECE: usize = 1 << 20;

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The address of its first frame.
    pub(crate) base: u64,
    /// What was known at its start.
    pub(crate) head: Head,
    /// Opened for reading and writing.
    pub(crate) file: File,
    /// Where frames begin in the file.
    header: u64,
    /// Bytes of the file.
    pub(crate) size: u64,
}

/// Why a file is no segment of this journal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// It could not be read.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// Its header is not whole.
    #[error("its header is damaged")]
    Damaged,
    /// A newer version wrote it.
    #[error("it has version {0}, and this version of forebay knows {VERSION}")]
    Newer(u32),
    /// It was copied from elsewhere.
    #[error("it belongs to the journal `{0}`")]
    Other(Identity),
    /// It was renamed.
    #[error("it begins at {0:016x}")]
    Misnamed(u64),
}

impl Segment {
    /// The name of the segment that begins at `base`.
    pub(crate) fn name(base: u64) -> String {
        format!("{base:016x}.log")
    }

    /// The inverse of [`Segment::name`].
    pub(crate) fn base_of(name: &str) -> Option<u64> {
        let digits = name.strip_suffix(".log")?;
        u64::from_str_radix(digits, 16).ok().filter(|base| Segment::name(*base) == name)
    }

    /// Makes a file of `size` zeros that are on the disk: writing over them costs a sync less than making a file grow.
    /// Where that fails, nothing is left behind.
    pub(crate) fn zeros(path: &Path, size: u64) -> io::Result<File> {
        Segment::fill(path, size).inspect_err(|_| {
            // If it cannot be deleted either, it is written over by the next attempt.
            fs::remove_file(path).ok();
        })
    }

    fn fill(path: &Path, size: u64) -> io::Result<File> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        let zeros = vec![0; PIECE];
        let mut at = 0;
        while at < size {
            let most = usize::try_from(size - at).map_or(PIECE, |left| left.min(PIECE));
            file.write_all_at(&zeros[..most], at)?;
            at += most as u64;
            // In between too, so that syncs of the log do not wait for all of it.
            file.sync_data()?;
        }
        file.sync_all()?;
        Ok(file)
    }

    /// The header of a segment, filled up.
    pub(crate) fn header(identity: Identity, base: u64, head: &Head) -> Vec<u8> {
        let mut out = Vec::with_capacity(ALIGN);
        put(&mut out, &MAGIC);
        put(&mut out, &VERSION.to_le_bytes());
        put(&mut out, &[0; 8]);
        put(&mut out, &identity.0.to_le_bytes());
        put(&mut out, &base.to_le_bytes());
        head.write(&mut out);
        let end = out.len();
        let length = (end + 4).next_multiple_of(ALIGN);
        assert!(length <= MAX_HEADER, "names and the number of streams are bounded");
        out[12..16].copy_from_slice(&u32::try_from(length).expect("bounded").to_le_bytes());
        out[16..20].copy_from_slice(&u32::try_from(end).expect("bounded").to_le_bytes());
        let crc = crc32fast::hash(&out);
        put(&mut out, &crc.to_le_bytes());
        out.resize(length, 0);
        out
    }

    /// A segment whose header is written.
    pub(crate) fn new(path: PathBuf, base: u64, head: Head, file: File, header: u64, size: u64) -> Segment {
        Segment { path, base, head, file, header, size }
    }

    /// Opens a segment and checks its header.
    pub(crate) fn open(path: PathBuf, base: u64, identity: Identity) -> Result<Segment, Refused> {
        let file = File::options().read(true).write(true).open(&path)?;
        let size = file.metadata()?.len();
        let most = usize::try_from(size).map_or(MAX_HEADER, |size| size.min(MAX_HEADER));
        let mut bytes = vec![0; most];
        file.read_exact_at(&mut bytes, 0)?;
        let mut fields = Fields::new(&bytes);
        let (magic, version) = (fields.array(), fields.u32());
        if magic != Some(MAGIC) {
            return Err(Refused::Damaged);
        }
        // Before the checksum: a newer version may put it elsewhere.
        match version {
            Some(VERSION) => {}
            Some(other) => return Err(Refused::Newer(other)),
            None => return Err(Refused::Damaged),
        }
        let parsed = Segment::parse(&mut fields, &bytes).ok_or(Refused::Damaged)?;
        let (header, found_identity, found_base, head) = parsed;
        if found_identity != identity {
            return Err(Refused::Other(found_identity));
        }
        if found_base != base {
            return Err(Refused::Misnamed(found_base));
        }
        Ok(Segment { path, base, head, file, header, size })
    }

    fn parse(fields: &mut Fields<'_>, bytes: &[u8]) -> Option<(u64, Identity, u64, Head)> {
        let (header, end) = (fields.u32()? as usize, fields.u32()? as usize);
        let crc = Fields::new(bytes.get(end..)?).u32()?;
        if crc != crc32fast::hash(&bytes[..end]) || header > bytes.len() {
            return None;
        }
        let identity = Identity(u128::from_le_bytes(fields.array()?));
        let base = fields.u64()?;
        let head = Head::read(fields)?;
        Some((header as u64, identity, base, head))
    }

    /// The address behind the last byte that it has room for.
    pub(crate) fn limit(&self) -> u64 {
        self.base + (self.size - self.header)
    }

    /// Where an address is in the file.
    pub(crate) fn offset(&self, at: u64) -> u64 {
        assert!(at >= self.base && at <= self.limit(), "the address is in this segment");
        self.header + (at - self.base)
    }

    /// Its first frame, if it has one.
    pub(crate) fn first(&self) -> io::Result<Option<Frame>> {
        let mut header = [0; HEADER];
        if self.limit() - self.base < HEADER as u64 {
            return Ok(None);
        }
        self.read(self.base, &mut header)?;
        Ok(Frame::read(&header, self.base))
    }

    /// Reads the bytes from one address on.
    pub(crate) fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, self.offset(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_addresses_do() {
        assert_eq!(Segment::name(0x1f), "000000000000001f.log");
        assert_eq!(Segment::base_of("000000000000001f.log"), Some(0x1f));
        for other in ["1f.log", "000000000000001F.log", "spare.tmp", "000000000000001f.log.bak"] {
            assert_eq!(Segment::base_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_header_is_checked_before_it_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let (identity, head) = (Identity::new(), Head::default());
        let path = folder.path().join(Segment::name(7));
        let written = Segment::header(identity, 7, &head);
        let open = |bytes: &[u8], identity, base| {
            fs::write(&path, bytes).unwrap();
            Segment::open(path.clone(), base, identity)
        };
        let segment = open(&[&written[..], &[0; 99]].concat(), identity, 7).unwrap();
        assert_eq!((segment.base, segment.limit(), segment.head), (7, 106, head));
        assert!(matches!(open(&written, Identity::new(), 7), Err(Refused::Other(_))));
        assert!(matches!(open(&written, identity, 8), Err(Refused::Misnamed(7))));
        let mut newer = written.clone();
        newer[8] = 2;
        assert!(matches!(open(&newer, identity, 7), Err(Refused::Newer(2))));
        for change in [0, 12, 17, 25, 40, 50, 60, 70] {
            let mut damaged = written.clone();
            damaged[change] ^= 1;
            assert!(matches!(open(&damaged, identity, 7), Err(Refused::Damaged)), "{change}");
        }
        assert!(matches!(open(b"", identity, 7), Err(Refused::Damaged)));
    }
}
