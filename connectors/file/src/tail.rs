//! Where the last whole line of a file ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How far back from its end a file is searched for what a power cut left: more than is ever unsynced.
pub(crate) const TAIL_BYTES: u64 = 64 << 20;

/// In blocks of this size.
pub(crate) const BLOCK_BYTES: usize = 256 << 10;

/// Where the last whole line ends. A NUL byte is in no record: it stands where a power cut kept the length but not
/// the bytes, so the lines from there on are not whole.
pub(crate) fn whole_lines(file: &File, len: u64) -> io::Result<u64> {
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
