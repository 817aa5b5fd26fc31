//! Which errors of a journal's files another attempt may mend, and who must act on the others.

use std::io;
use std::io::ErrorKind;

use forebay_api::{Blame, Fault};

/// Judges an error of the file system. What is not listed is not understood, so it is fatal.
pub(crate) fn judge(doing: impl Into<String>, error: io::Error) -> Fault {
    let is = |errno: rustix::io::Errno| error.raw_os_error() == Some(errno.raw_os_error());
    let (blame, remedy) = match error.kind() {
        ErrorKind::StorageFull => {
            (None, "free space on the disk, or set `max_bytes` of the journal below it")
        }
        ErrorKind::QuotaExceeded => (None, "raise the quota of the user that runs forebay"),
        ErrorKind::Interrupted | ErrorKind::TimedOut | ErrorKind::StaleNetworkFileHandle => {
            (None, "see whether the network file system is reachable")
        }
        _ if is(rustix::io::Errno::IO) => (None, "see the kernel's log for errors of the disk"),
        ErrorKind::PermissionDenied => {
            (Some(Blame::Outside), "let the user that runs forebay write to `data_dir` and all below it")
        }
        ErrorKind::ReadOnlyFilesystem => {
            (Some(Blame::Outside), "mount the file system for writing, or choose another `data_dir`")
        }
        ErrorKind::FileTooLarge => {
            (Some(Blame::Outside), "set `segment` of the journal below the limit of the file system")
        }
        ErrorKind::NotFound => {
            (Some(Blame::Outside), "see who removes files of the journal; restore them from where they went")
        }
        ErrorKind::IsADirectory | ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            (Some(Blame::Outside), "see who made something else in the journal's folder, and move it away")
        }
        _ if is(rustix::io::Errno::MFILE) || is(rustix::io::Errno::NFILE) => {
            (Some(Blame::Outside), "raise the number of files that forebay may open (`ulimit -n`)")
        }
        _ => return Fault::fatal(doing, Blame::Defect, error),
    };
    match blame {
        None => Fault::retryable(doing, error),
        Some(blame) => Fault::fatal(doing, blame, error),
    }
    .with_remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_or_failing_disk_is_tried_again_and_the_unknown_is_not() {
        use rustix::io::Errno;
        let of = |errno: Errno| judge("writing", io::Error::from_raw_os_error(errno.raw_os_error()));
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::IO] {
            assert!(of(errno).is_retryable() && of(errno).remedy().is_some(), "{errno}");
        }
        for errno in [Errno::ROFS, Errno::ACCESS, Errno::NOENT, Errno::MFILE] {
            assert!(!of(errno).is_retryable() && of(errno).remedy().is_some(), "{errno}");
        }
        assert!(matches!(of(Errno::XDEV), Fault::Fatal { blame: Blame::Defect, .. }));
    }
}
