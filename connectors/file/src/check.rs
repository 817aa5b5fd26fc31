//! Looks, without changing anything, whether a file could be written to.

use std::fs;
use std::io;
use std::io::ErrorKind;
use std::path::Path;

use forebay_api::{Blame, Finding};
use rustix::fs::{Access, access};

use crate::fault::judge;
use crate::locked_file::NOT_REGULAR;
use crate::place;

/// Whether the file, or the nearest folder above it that is there, can be written to.
pub(crate) fn writable(path: &Path) -> Finding {
    let shown = path.display();
    let failed = |doing: String, error: io::Error| Finding::fault(&judge(doing, error));
    match fs::metadata(path) {
        Ok(there) if there.is_file() => match access(path, Access::READ_OK | Access::WRITE_OK) {
            Ok(()) => Finding::good(format!("`{shown}` can be written to")),
            Err(error) => failed(format!("writing to `{shown}`"), error.into()),
        },
        Ok(_) => Finding::bad(format!("`{shown}` is not a regular file"), Blame::Configuration, NOT_REGULAR),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder =
                place::folder(path).ancestors().find(|above| above.exists()).unwrap_or(Path::new("."));
            if !folder.is_dir() {
                let error = io::Error::from(ErrorKind::NotADirectory);
                return failed(format!("making `{shown}` below `{}`", folder.display()), error);
            }
            match access(folder, Access::WRITE_OK | Access::EXEC_OK) {
                Ok(()) => Finding::good(format!("`{shown}` can be made")),
                Err(error) => failed(format!("making `{shown}` in `{}`", folder.display()), error.into()),
            }
        }
        Err(error) => failed(format!("looking at `{shown}`"), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_written_is_said_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/out.ndjson");
        let finding = writable(&path);
        assert!(finding.trouble.is_none() && finding.fact.ends_with("can be made"), "{finding:?}");
        assert!(!folder.path().join("a").exists());
        let file = folder.path().join("out.ndjson");
        fs::write(&file, "").unwrap();
        assert!(writable(&file).fact.ends_with("can be written to"));
    }

    #[test]
    fn what_is_in_the_way_is_a_mistake_in_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [folder.path(), &file.join("below/out.ndjson"), Path::new("/dev/null")] {
            let trouble = writable(path).trouble.expect("it cannot be written to");
            assert_eq!(trouble.blame, Some(Blame::Configuration), "{}", path.display());
        }
    }
}
