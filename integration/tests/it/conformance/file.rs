//! The suite against `file`, `stdout` and `blackhole`.
//!
//! A full, a failing and a read-only disk need a mount or a tracer of their own, and a closed standard output a
//! process of its own: such a test starts itself again inside what it needs.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use forebay_api::testing::Failure;
use forebay_api::testing::destination::{DestinationRig, Disturbance, SOURCE, check, checks, conform};
use forebay_api::{Blame, Destination, DestinationConnector, DestinationSetting, Fault};
use forebay_file::{BlackholeDestination, FileDestination, StdoutDestination};
use serde_json::json;
use tempfile::TempDir;

/// Tells a test that started itself again where it shall work.
const INSIDE: &str = "FOREBAY_TEST_INSIDE";

fn build<C: DestinationConnector>(config: serde_json::Value) -> Arc<dyn Destination> {
    let setting = DestinationSetting {
        name: "under_test".to_owned(),
        format: "forebay".to_owned(),
        data_dir: std::env::temp_dir(),
        sources: vec![SOURCE.to_owned()],
    };
    let config = serde_json::from_value(config).expect("it has all it needs");
    C::build(config, &setting).expect("its configuration is right")
}

/// A folder with one file that is written to, and those it was rotated into.
struct Folder {
    temporary: TempDir,
    rotate: serde_json::Value,
}

impl Folder {
    fn new() -> Folder {
        Folder { temporary: tempfile::tempdir().unwrap(), rotate: json!({}) }
    }

    fn rotating(rotate: serde_json::Value) -> Folder {
        Folder { rotate, ..Folder::new() }
    }

    /// In a folder that is on a disk of its own.
    fn within(parent: &str) -> Folder {
        Folder { temporary: tempfile::tempdir_in(parent).unwrap(), rotate: json!({}) }
    }

    /// In the order they were made: `out-<utc>-<n>` sorts so, and before `out.ndjson`.
    fn files(&self) -> Vec<PathBuf> {
        let folder = fs::read_dir(self.temporary.path()).unwrap();
        let mut paths: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    /// Takes all the room that is left on the disk.
    fn ballast(&self) -> PathBuf {
        self.temporary.path().parent().unwrap().join("ballast")
    }
}

#[async_trait::async_trait]
impl DestinationRig for Folder {
    async fn build(&self) -> Arc<dyn Destination> {
        let path = self.temporary.path().join("out.ndjson");
        build::<FileDestination>(json!({"path": path, "rotate": self.rotate}))
    }

    async fn stored(&self) -> Option<Vec<Vec<u8>>> {
        loop {
            let paths = self.files();
            let contents: Vec<_> = paths.iter().map(fs::read).collect();
            // A file may be rotated for its age while this reads; then what was read is not all.
            if self.files() == paths {
                return Some(contents.into_iter().flat_map(|content| lines(&content.unwrap())).collect());
            }
        }
    }

    fn fits(&self) -> usize {
        16 << 20
    }

    fn disturbances(&self) -> &[Disturbance] {
        if std::env::var_os(INSIDE).is_some() { &[Disturbance::Refuse] } else { &[] }
    }

    async fn disturb(&self, _: Disturbance) {
        let mut ballast = fs::File::create(self.ballast()).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
    }

    async fn restore(&self, _: Disturbance) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

/// Whole lines only; a line that is not ended would be the daemon's fault, unless it is being written.
fn lines(content: &[u8]) -> Vec<Vec<u8>> {
    let end = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    content[..end]
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| line[..line.len() - 1].to_vec())
        .collect()
}

const NO_SERVER: [(&str, &str); 6] = [
    ("a_record_that_is_too_large_is_rejected", "no size is too large for a file"),
    ("a_refused_record_is_rejected", "no content is refused"),
    ("what_is_held_is_struck_off", "no marks are kept"),
    ("a_server_that_is_killed_loses_nothing", "there is no server"),
    ("a_connection_that_is_cut_loses_nothing", "there is no connection"),
    ("a_slow_server_loses_nothing", "there is no server"),
];

const FULL_DISK: (&str, &str) =
    ("a_server_that_refuses_for_a_while_loses_nothing", "`a_full_disk_loses_nothing` makes this check");

fn file_exceptions() -> Vec<(&'static str, &'static str)> {
    NO_SERVER.into_iter().chain([FULL_DISK]).collect()
}

#[tokio::test]
async fn a_file_conforms() {
    conform(&file_exceptions(), async |_| Folder::new()).await;
}

#[tokio::test]
async fn a_file_that_is_rotated_all_the_time_conforms() {
    conform(&file_exceptions(), async |_| Folder::rotating(json!({"bytes": "50KB", "age": "5ms"}))).await;
}

/// Runs a test of this module again, below `wrapper`, and gives what it said on stderr.
fn again(test: &str, wrapper: &[&str], place: &str) -> (bool, String) {
    let own = std::env::current_exe().unwrap();
    let name = format!("{}::{test}", module());
    let output = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg(own)
        .args(["--exact", &name, "--nocapture"])
        .env(INSIDE, place)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("`{}` cannot be started ({error}): apt-get install util-linux strace", wrapper[0])
        });
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    (output.status.success() && ran, said)
}

/// Runs a test again with a disk of 32 MiB of its own.
fn on_a_small_disk(test: &str) {
    let disk = tempfile::tempdir().unwrap();
    let place = disk.path().to_str().unwrap().to_owned();
    let script = format!("mount -t tmpfs -o size=32m none {place} && exec \"$@\"");
    let (passed, said) =
        again(test, &["unshare", "--mount", "--map-root-user", "sh", "-c", &script, "sh"], &place);
    assert!(
        passed,
        "{said}\n(this test mounts a disk in a namespace of its own; `unshare -rm true` must work)"
    );
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let Ok(place) = std::env::var(INSIDE) else { return on_a_small_disk("a_full_disk_loses_nothing") };
    let outcome = check(FULL_DISK.0, &Folder::within(&place)).await;
    assert_eq!(outcome, Ok(()));
}

#[tokio::test]
async fn a_read_only_disk_is_fatal_and_says_what_to_do() {
    let Ok(place) = std::env::var(INSIDE) else {
        return on_a_small_disk("a_read_only_disk_is_fatal_and_says_what_to_do");
    };
    let remounted = Command::new("mount").args(["-o", "remount,bind,ro", &place]).status().unwrap();
    assert!(remounted.success());
    let path = format!("{place}/data/out.ndjson");
    let fault = build::<FileDestination>(json!({"path": path})).open().await.unwrap_err();
    let Fault::Fatal { blame: Blame::Outside, remedy: Some(remedy), .. } = &fault else {
        panic!("{fault:?}")
    };
    assert_eq!(remedy, "mount the file system for writing, or choose another path");
    assert!(fault.to_string().starts_with(&format!("making the folder `{place}/data`: ")), "{fault}");
    let setting = DestinationSetting {
        name: "out".to_owned(),
        format: "forebay".to_owned(),
        data_dir: std::env::temp_dir(),
        sources: Vec::new(),
    };
    let config = serde_json::from_value(json!({"path": path})).unwrap();
    let findings = FileDestination::check(config, &setting).await;
    let trouble = findings[0].trouble.as_ref().expect("a read-only disk is no good finding");
    assert_eq!((trouble.blame, &trouble.remedy), (Some(Blame::Outside), remedy));
}

/// Every second `fdatasync` fails as on a dying disk; the tracer's log proves that it did. What was written since
/// the last good one is cut away, so that it does not stand there twice when it comes again.
#[tokio::test]
async fn a_disk_that_fails_to_sync_loses_nothing() {
    if std::env::var_os(INSIDE).is_some() {
        for name in [
            "every_record_is_stored_as_it_came",
            "what_is_accepted_is_there_at_once",
            "two_streams_do_not_mix",
        ] {
            let folder = Folder::new();
            assert_eq!(check(name, &folder).await, Ok(()), "{name}");
            let records = folder.stored().await.unwrap();
            let once: HashSet<&Vec<u8>> = records.iter().collect();
            assert_eq!(records.len(), once.len(), "{name}: records whose sync failed were not cut away");
        }
        return;
    }
    let calls = with_failing_syncs("a_disk_that_fails_to_sync_loses_nothing", "2+2");
    let injected = calls.matches("(INJECTED)").count();
    assert!(injected >= 5, "only {injected} syncs failed: the check has shown nothing");
}

#[tokio::test]
async fn nothing_is_accepted_while_no_sync_succeeds() {
    if std::env::var_os(INSIDE).is_some() {
        // The suite's lane tries again and again; it would end if anything were accepted.
        let folder = Folder::new();
        let trying = check("what_is_accepted_is_there_at_once", &folder);
        let outcome = tokio::time::timeout(Duration::from_secs(2), trying).await;
        assert!(outcome.is_err(), "{outcome:?}");
        return;
    }
    let calls = with_failing_syncs("nothing_is_accepted_while_no_sync_succeeds", "1+1");
    let injected = calls.matches("(INJECTED)").count();
    assert!(injected >= 5, "only {injected} syncs failed: the check has shown nothing");
}

/// Runs a test again while some calls of `fdatasync` fail with EIO; gives the calls that were traced.
fn with_failing_syncs(test: &str, when: &str) -> String {
    let log = tempfile::NamedTempFile::new().unwrap();
    let log_path = log.path().to_str().unwrap();
    let inject = format!("inject=fdatasync:error=EIO:when={when}");
    let wrapper = ["strace", "-f", "-e", "trace=fdatasync", "-e", &inject, "-o", log_path];
    let (passed, said) = again(test, &wrapper, "");
    assert!(passed, "{said}");
    fs::read_to_string(log.path()).unwrap()
}

/// What this process has written to its standard output, which is a file, since the rig was made.
struct Output {
    file: PathBuf,
    start: usize,
}

impl Output {
    fn new(file: &str) -> Output {
        let start = usize::try_from(fs::metadata(file).unwrap().len()).unwrap();
        Output { file: file.into(), start }
    }
}

#[async_trait::async_trait]
impl DestinationRig for Output {
    async fn build(&self) -> Arc<dyn Destination> {
        build::<StdoutDestination>(json!({}))
    }

    async fn stored(&self) -> Option<Vec<Vec<u8>>> {
        Some(lines(&fs::read(&self.file).unwrap()[self.start..]))
    }
}

#[tokio::test]
async fn stdout_conforms() {
    if let Ok(file) = std::env::var(INSIDE) {
        let refuses =
            [("a_server_that_refuses_for_a_while_loses_nothing", "a pipe that is full is waited for")];
        let exceptions: Vec<_> = NO_SERVER.into_iter().chain(refuses).collect();
        return conform(&exceptions, async |_| Output::new(&file)).await;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    // The test runner's own lines come before and after.
    let script = format!("exec \"$@\" --test-threads=2 >> {path}");
    let (_, said) = again("stdout_conforms", &["sh", "-c", &script, "sh"], path);
    let content = fs::read_to_string(file.path()).unwrap();
    assert!(content.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn a_standard_output_that_nobody_reads_is_fatal_and_says_so() {
    if let Ok(place) = std::env::var(INSIDE) {
        // Until the other side has closed the pipe.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        let rig = Output { file: place.into(), start: 0 };
        let outcome = check("every_record_is_stored_as_it_came", &rig).await;
        let Err(Failure::Broken(seen)) = outcome else { panic!("{outcome:?}") };
        eprintln!("seen: {seen}");
        return;
    }
    let name = format!("{}::a_standard_output_that_nobody_reads_is_fatal_and_says_so", module());
    let mut inner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture", "--test-threads=2"])
        .env(INSIDE, "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(inner.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("running 1 test") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the test runner ended early");
    }
    drop(out);
    drop(inner.stdin.take());
    let said = String::from_utf8_lossy(&inner.wait_with_output().unwrap().stderr).into_owned();
    assert!(
        said.contains("seen: fatal where another attempt helps: writing to standard output: Broken pipe"),
        "{said}"
    );
}

/// What a blackhole takes cannot be read back; that it takes everything can be seen all the same.
struct Nothing;

#[async_trait::async_trait]
impl DestinationRig for Nothing {
    async fn build(&self) -> Arc<dyn Destination> {
        build::<BlackholeDestination>(json!({}))
    }

    async fn stored(&self) -> Option<Vec<Vec<u8>>> {
        None
    }
}

#[tokio::test]
async fn a_blackhole_accepts_everything_and_nothing_can_be_read_back() {
    // Every check delivers all it has before it looks at what is stored.
    let exceptions: Vec<_> = checks().map(|name| (name, "nothing is kept")).collect();
    conform(&exceptions, async |_| Nothing).await;
}

/// This module's path as the test runner writes it.
fn module() -> &'static str {
    module_path!().split_once("::").unwrap().1
}
