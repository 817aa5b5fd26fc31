//! The demo's working folder, and what stays of it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use forebay_api::{Blame, Fault};
use tempfile::TempDir;

use super::child::FILES;

/// The server's part of the folder.
pub(super) const SERVER: &str = "postgres";

/// Exists as long as this, and goes with it unless [`Folder::leave`] says otherwise.
pub(super) struct Folder(TempDir);

/// What a demo leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stays {
    /// Nothing: it failed, or was interrupted.
    Nothing,
    /// The events, which it has just told about.
    Events,
    /// All that is of use without the server that has ended.
    AllButTheServer,
}

impl Folder {
    /// A new one, which the user that the server runs as can enter.
    pub(super) fn create() -> Result<Folder, Fault> {
        let failed = |error| {
            Fault::fatal("creating a temporary folder", Blame::Outside, error)
                .with_remedy("let `TMPDIR` name a folder that this user can write to")
        };
        let open = Permissions::from_mode(0o755);
        let made = tempfile::Builder::new().prefix("forebay-demo-").permissions(open).tempdir();
        made.map(Folder).map_err(failed)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Removes what shall not stay, and says where it is.
    pub(super) fn leave(self, stays: Stays) -> Result<PathBuf, Fault> {
        let path = self.path().to_owned();
        let removed = match stays {
            Stays::Nothing => self.0.close(),
            Stays::Events => remove_all_but(&self.0.keep(), |name| name == FILES),
            Stays::AllButTheServer => remove_all_but(&self.0.keep(), |name| name != SERVER),
        };
        removed.map_err(|error| {
            Fault::fatal(format!("removing what is left in `{}`", path.display()), Blame::Outside, error)
        })?;
        Ok(path)
    }
}

fn remove_all_but(folder: &Path, stays: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&stays) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(stays: Stays) -> Vec<String> {
        let folder = Folder::create().unwrap();
        for name in [FILES, SERVER, "data"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("file"), "").unwrap();
        }
        fs::write(folder.path().join("forebay.yaml"), "").unwrap();
        let path = folder.leave(stays).unwrap();
        let Ok(entries) = fs::read_dir(&path) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        fs::remove_dir_all(path).unwrap();
        names
    }

    #[test]
    fn what_stays_is_what_was_said() {
        assert!(left(Stays::Nothing).is_empty());
        assert_eq!(left(Stays::Events), [FILES]);
        assert_eq!(left(Stays::AllButTheServer), ["data", FILES, "forebay.yaml"]);
    }
}
