//! The names around a file: its folder, which is made durable, and those of the files it is rotated into.

use std::fs;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Digits of the number in a rotated name, so that names sort as they were made.
const NUMBER_DIGITS: usize = 6;

/// The folder that a file is in.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a folder and those above it that are missing, each durable in the one above.
pub(crate) fn make_folder(folder: &Path, durable: bool) -> io::Result<()> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.is_dir()).collect();
    for new in missing.into_iter().rev() {
        match fs::create_dir(new) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && new.is_dir() => {}
            made => made?,
        }
        if durable {
            sync_folder(self::folder(new))?;
        }
    }
    Ok(())
}

/// Makes the names in a folder durable: without this a new or renamed file may be gone after a power cut, with all
/// that was synced in it.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The next number for a rotated file: one more than the highest there is, so that numbers count up even when the
/// clock goes back.
pub(crate) fn next_number(path: &Path) -> io::Result<u64> {
    let stem = stem(path);
    let mut highest = 0;
    for entry in fs::read_dir(folder(path))? {
        let name = entry?.file_name();
        highest = highest.max(number(&name.to_string_lossy(), &stem).unwrap_or(0));
    }
    Ok(highest + 1)
}

/// The name that a file is given when it is full.
pub(crate) fn rotated(path: &Path, utc: jiff::Timestamp, number: u64) -> PathBuf {
    let utc = utc.strftime("%Y%m%dT%H%M%SZ");
    folder(path).join(format!("{}-{utc}-{number:0NUMBER_DIGITS$}.ndjson", stem(path)))
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The number in `<stem>-<utc>-<n>.ndjson`; `None` for other names.
fn number(name: &str, stem: &str) -> Option<u64> {
    let rest = name.strip_prefix(stem)?.strip_prefix('-')?.strip_suffix(".ndjson")?;
    let (utc, number) = rest.split_once('-')?;
    let is_utc = utc.len() == 16 && utc.ends_with('Z') && utc.as_bytes()[8] == b'T';
    is_utc.then(|| number.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_up_from_the_highest_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.ndjson");
        assert_eq!(next_number(&path).unwrap(), 1);
        for name in [
            "events-20261122T183400Z-000009.ndjson",
            "events-20261122T183400Z-000010.ndjson",
            "events-20261122T183400Z-000099.txt",
            "events-other-20261122T183400Z-000500.ndjson",
            "eventsandmore-20261122T183400Z-000501.ndjson",
        ] {
            File::create(folder.path().join(name)).unwrap();
        }
        assert_eq!(next_number(&path).unwrap(), 11);
    }

    #[test]
    fn a_rotated_name_says_when_and_which() {
        let utc = "2026-11-22T18:34:00.9Z".parse().unwrap();
        let name = rotated(Path::new("data/events.ndjson"), utc, 7);
        assert_eq!(name, Path::new("data/events-20261122T183400Z-000007.ndjson"));
        assert_eq!(number("events-20261122T183400Z-000007.ndjson", "events"), Some(7));
    }

    #[test]
    fn missing_folders_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        make_folder(&deep, true).unwrap();
        make_folder(&deep, true).unwrap();
        assert!(deep.is_dir());
        File::create(folder.path().join("file")).unwrap();
        assert!(make_folder(&folder.path().join("file/below"), true).is_err());
    }
}
