//! How much memory the daemon takes when nobody says: a quarter of what its container has.

use std::fs;
use std::path::{Path, PathBuf};

use forebay_api::units::ByteSize;

/// Below this, batches would be too small to be worth their round trips.
const LEAST: ByteSize = ByteSize::mib(64);
/// Above this, more memory makes nothing faster.
const MOST: ByteSize = ByteSize::mib(1024);

/// A quarter of the memory that this process may use, within bounds.
pub(super) fn default_budget() -> ByteSize {
    budget(memory_limit(Path::new("/")))
}

fn budget(limit: Option<u64>) -> ByteSize {
    limit.map_or(LEAST, |limit| ByteSize::bytes(limit / 4).clamp(LEAST, MOST))
}

/// The least of the limits of the control groups this process is in and of the machine's memory; `None` where the
/// system tells nothing.
fn memory_limit(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(limit_file).flat_map(|(base, group, file)| {
        let base = root.join(base);
        let levels: Vec<PathBuf> =
            Path::new(&group).ancestors().map(|level| base.join(level).join(file)).collect();
        levels.into_iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
    });
    limits.chain(machine_memory(root)).min()
}

/// Where a line of `/proc/self/cgroup` says that limits are: mount point, group below it, file name.
fn limit_file(line: &str) -> Option<(&'static str, String, &'static str)> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, group) = (fields.next()?, fields.next()?.trim_start_matches('/').to_owned());
    match controllers {
        "" => Some(("sys/fs/cgroup", group, "memory.max")),
        _ if controllers.split(',').any(|controller| controller == "memory") => {
            Some(("sys/fs/cgroup/memory", group, "memory.limit_in_bytes"))
        }
        _ => None,
    }
}

fn machine_memory(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_budget_is_a_quarter_of_the_limit_within_bounds() {
        assert_eq!(budget(Some(1 << 30)), ByteSize::mib(256));
        assert_eq!(budget(Some(1 << 20)), ByteSize::mib(64));
        assert_eq!(budget(Some(1 << 40)), ByteSize::mib(1024));
        assert_eq!(budget(None), ByteSize::mib(64));
    }

    #[test]
    fn the_tightest_group_counts() {
        let root = root(&[
            ("proc/self/cgroup", "0::/pod/forebay\n"),
            ("sys/fs/cgroup/pod/forebay/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/memory.max", "536870912\n"),
            ("proc/meminfo", "MemTotal:       25165824 kB\nMemFree: 1 kB\n"),
        ]);
        assert_eq!(memory_limit(root.path()), Some(512 << 20));
    }

    #[test]
    fn the_first_version_of_control_groups_counts_too() {
        let root = root(&[
            ("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/docker/x\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"),
        ]);
        assert_eq!(memory_limit(root.path()), Some(256 << 20));
    }

    #[test]
    fn without_a_limit_it_is_the_machine() {
        let root = root(&[("proc/self/cgroup", "0::/\n"), ("proc/meminfo", "MemTotal: 2097152 kB\n")]);
        assert_eq!(memory_limit(root.path()), Some(2 << 30));
    }
}
