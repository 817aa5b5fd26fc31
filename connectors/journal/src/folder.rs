//! The folder of a journal, and the small files in it that say whose it is.
//!
//! ```text
//! data_dir/journal/<source>/
//!   journal.json            format, identity, source: written last when a journal is made
//!   lock                    locked while the journal is open
//!   readers.json            who has a place in it
//!   <base>.log              the segments
//!   *.tmp                   what was being made: never read
//!   damaged/                what `salvage` put aside
//! ```

use std::fs;
use std::fs::{File, TryLockError};
use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay_api::{Blame, Fault, JournalSetting, step};
use serde::{Deserialize, Serialize};

use crate::fault::judge;
use crate::identity::Identity;
use crate::segment::Segment;

/// The format of the folder.
const VERSION: u32 = 1;

/// The file that says whose journal it is.
pub(crate) const ABOUT: &str = "journal.json";

/// How long a process that is just ending gets to let go of the lock.
const LOCK_WAIT: Duration = Duration::from_secs(3);

/// Between two attempts at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// What [`ABOUT`] says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    version: u32,
    identity: Identity,
    source: String,
    /// Which daemon made it; only told.
    instance: String,
}

/// The folder of a journal.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Where the journal of a source is.
    pub(crate) fn of(setting: &JournalSetting) -> Folder {
        Folder { path: setting.data_dir.join("journal").join(&setting.source) }
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether a journal is in it; what was being made when a daemon was killed is none.
    pub(crate) fn has_journal(&self) -> Result<bool, Fault> {
        let path = self.file(ABOUT);
        path.try_exists().map_err(|error| judge(format!("looking for `{}`", path.display()), error))
    }

    /// Makes the folder, and those above it.
    pub(crate) fn make(&self) -> Result<(), Fault> {
        let doing = || format!("making the folder `{}`", self.path.display());
        let mut missing = Vec::new();
        let mut next = Some(self.path.as_path());
        while let Some(path) = next.filter(|path| !path.as_os_str().is_empty() && !path.exists()) {
            missing.push(path);
            next = path.parent();
        }
        fs::create_dir_all(&self.path).map_err(|error| judge(doing(), error))?;
        // A new folder is there after a power cut only when the one above it was synced.
        for path in missing {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            sync_folder(parent.unwrap_or(Path::new("."))).map_err(|error| judge(doing(), error))?;
        }
        Ok(())
    }

    /// Takes the lock; it is held as long as the file is open.
    pub(crate) fn lock(&self) -> Result<File, Fault> {
        let path = self.file("lock");
        let doing = || format!("locking `{}`", path.display());
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| judge(doing(), error))?;
        let mut waited = Duration::ZERO;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(judge(doing(), error)),
                Err(TryLockError::WouldBlock) if waited >= LOCK_WAIT => {
                    let fault = Fault::fatal(doing(), Blame::Outside, "another process uses this journal");
                    return Err(
                        fault.with_remedy("stop the other daemon, or give each a `data_dir` of its own")
                    );
                }
                Err(TryLockError::WouldBlock) => {
                    std::thread::sleep(LOCK_PAUSE);
                    waited += LOCK_PAUSE;
                }
            }
        }
    }

    /// Says that the journal is made.
    pub(crate) fn write_about(&self, identity: Identity, setting: &JournalSetting) -> Result<(), Fault> {
        let (source, instance) = (setting.source.clone(), setting.instance.clone());
        let about = About { version: VERSION, identity, source, instance };
        self.replace(ABOUT, &serde_json::to_vec(&about).expect("numbers and text can be written"))
    }

    /// Whose journal it is: refused when it is not that of this source.
    pub(crate) fn identity(&self, source: &str) -> Result<Identity, Fault> {
        let path = self.file(ABOUT);
        let doing = || format!("reading `{}`", path.display());
        let bytes = fs::read(&path).map_err(|error| judge(doing(), error))?;
        let about: About = match serde_json::from_slice(&bytes) {
            Ok(about) => about,
            Err(error) => return Err(not_understood(doing(), &bytes, VERSION, error)),
        };
        if about.version != VERSION {
            return Err(newer(doing(), about.version, VERSION));
        }
        if about.source != source {
            let error = format!("it is the journal of the source `{}`, not of `{source}`", about.source);
            return Err(Fault::fatal(doing(), Blame::Configuration, error).with_remedy(format!(
                "call the source `{}` again, or move this folder away to begin with an empty journal",
                about.source
            )));
        }
        Ok(about.identity)
    }

    /// Writes a small file so that after a crash it is there as it was or as it is to be.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Fault> {
        let path = self.file(name);
        let write = || -> io::Result<()> {
            let temporary = self.file(&format!("{name}.tmp"));
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            step!("journal-file-written");
            fs::rename(&temporary, &path)?;
            step!("journal-file-renamed");
            sync_folder(&self.path)
        };
        write().map_err(|error| judge(format!("writing `{}`", path.display()), error))
    }

    /// Makes what was renamed or deleted in it durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        sync_folder(&self.path)
    }

    /// The bases of its segments, ascending.
    pub(crate) fn bases(&self) -> Result<Vec<u64>, Fault> {
        let mut bases: Vec<u64> = self.names()?.iter().filter_map(|name| Segment::base_of(name)).collect();
        bases.sort_unstable();
        Ok(bases)
    }

    /// Deletes what was being made when a daemon ended.
    pub(crate) fn clean(&self) -> Result<(), Fault> {
        for name in self.names()?.iter().filter(|name| name.ends_with(".tmp")) {
            fs::remove_file(self.file(name)).map_err(|error| judge(format!("deleting `{name}`"), error))?;
        }
        Ok(())
    }

    /// What is in it; names that are no text are not ours.
    fn names(&self) -> Result<Vec<String>, Fault> {
        let read = || -> io::Result<Vec<String>> {
            let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
            Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
        };
        read().map_err(|error| judge(format!("reading the folder `{}`", self.path.display()), error))
    }
}

/// What is wrong with a small file that cannot be decoded.
pub(crate) fn not_understood(doing: String, bytes: &[u8], known: u32, error: serde_json::Error) -> Fault {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    match serde_json::from_slice::<Versioned>(bytes) {
        Ok(Versioned { version }) if version > known => newer(doing, version, known),
        _ => Fault::fatal(doing, Blame::Outside, error).with_remedy(
            "restore the file from a backup; or move the journal's folder away to begin with an empty one, which \
             loses what destinations have not read",
        ),
    }
}

/// What is wrong with a file of another format.
pub(crate) fn newer(doing: String, version: u32, known: u32) -> Fault {
    let error = format!("it has version {version}, and this version of forebay knows {known}");
    Fault::fatal(doing, Blame::Outside, error)
        .with_remedy("run the version of forebay that wrote it, or a newer one")
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
