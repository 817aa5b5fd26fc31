//! Which errors of a file another attempt may mend, and who must act on the others.

use std::io;
use std::io::ErrorKind;

use forebay_api::{Blame, Fault};

/// Judges an error of the file system. What is not listed is not understood, so it is fatal.
pub(crate) fn judge(doing: impl Into<String>, error: io::Error) -> Fault {
    let (blame, remedy) = match error.kind() {
        // The operator makes room, or the other side of a network file system comes back: no restart needed.
        ErrorKind::StorageFull => (None, "free space on the disk, or mount a larger one at this path"),
        ErrorKind::QuotaExceeded => {
            (None, "raise the quota of the user that runs forebay, or delete files of it")
        }
        ErrorKind::Interrupted | ErrorKind::TimedOut | ErrorKind::StaleNetworkFileHandle => {
            (None, "see whether the network file system is reachable")
        }
        // The folder was taken away after it had been made; the next attempt makes it again.
        ErrorKind::NotFound => (None, "see who removes this file or its folder"),
        // A failing disk (EIO). What was not synced is written again, to a file that was opened anew.
        _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
            (None, "see the kernel's log for errors of the disk")
        }
        ErrorKind::PermissionDenied => {
            (Some(Blame::Outside), "let the user that runs forebay write to the file and its folder")
        }
        ErrorKind::ReadOnlyFilesystem => {
            (Some(Blame::Outside), "mount the file system for writing, or choose another path")
        }
        ErrorKind::FileTooLarge => (
            Some(Blame::Outside),
            "set `rotate: {bytes: …}` below the limit of the file system or the `ulimit -f`",
        ),
        ErrorKind::IsADirectory
        | ErrorKind::NotADirectory
        | ErrorKind::AlreadyExists
        | ErrorKind::InvalidFilename => (Some(Blame::Configuration), "correct `path`"),
        ErrorKind::BrokenPipe => (
            Some(Blame::Outside),
            "whoever read forebay's standard output has gone; start it and forebay again",
        ),
        ErrorKind::WouldBlock => (
            Some(Blame::Outside),
            "whoever shares forebay's standard output made it non-blocking; put `| cat` behind forebay",
        ),
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
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

    fn of(errno: rustix::io::Errno) -> Fault {
        judge("writing to `out`", io::Error::from_raw_os_error(errno.raw_os_error()))
    }

    #[test]
    fn a_full_or_failing_disk_is_tried_again() {
        use rustix::io::Errno;
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::STALE] {
            assert!(of(errno).is_retryable(), "{errno}");
            assert!(of(errno).remedy().is_some());
        }
    }

    #[test]
    fn what_somebody_must_change_is_fatal_and_says_what() {
        use rustix::io::Errno;
        for (errno, wanted) in [
            (Errno::ROFS, Blame::Outside),
            (Errno::ACCESS, Blame::Outside),
            (Errno::PIPE, Blame::Outside),
            (Errno::MFILE, Blame::Outside),
            (Errno::ISDIR, Blame::Configuration),
        ] {
            let Fault::Fatal { blame, remedy, .. } = of(errno) else { panic!("{errno} was retryable") };
            assert_eq!(blame, wanted);
            assert!(remedy.is_some());
        }
    }

    #[test]
    fn what_is_not_understood_is_fatal() {
        let Fault::Fatal { blame, .. } = of(rustix::io::Errno::XDEV) else { panic!("retryable") };
        assert_eq!(blame, Blame::Defect);
    }
}
