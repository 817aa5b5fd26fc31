//! Full and failing disks, and a second daemon.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use forebay_api::{Destination, Fault};

use super::rig::{INSIDE, again, batch, deliver, held, journal, numbers, read_all};

/// Runs a test again with a disk of 4 MiB of its own.
fn on_a_small_disk(test: &str) {
    let disk = tempfile::tempdir().unwrap();
    let place = disk.path().to_str().unwrap().to_owned();
    let script = format!("mount -t tmpfs -o size=4m none {place} && exec \"$@\"");
    let wrapper = ["unshare", "--mount", "--map-root-user", "sh", "-c", &script, "sh"];
    let (passed, said) = again(module_path!(), test, &wrapper, &place);
    assert!(
        passed,
        "{said}\n(this test mounts a disk in a namespace of its own; `unshare -rm true` must work)"
    );
}

/// Delivers numbers from `from` on until one is refused; the first that is not accepted.
async fn until_refused(writer: &Arc<dyn Destination>, from: u64, size: usize) -> (u64, Fault) {
    for number in from..100_000 {
        if let Err(fault) = deliver(writer, &batch([number], size)).await {
            return (number, fault);
        }
    }
    panic!("nothing was refused");
}

/// All that was accepted is there once, in order; of what was refused, what is held and no more.
async fn assert_stored(folder: &Path, accepted: u64) {
    let journal = journal(folder, "1GiB");
    let held = held(&journal.writer()).await.unwrap();
    let stored = numbers(&read_all(&journal, "all").await);
    assert_eq!(stored, (0..stored.len() as u64).collect::<Vec<_>>());
    assert_eq!(stored.last().copied(), held);
    assert!(stored.len() as u64 >= accepted, "{} of {accepted} are there", stored.len());
}

#[tokio::test]
async fn a_full_disk_refuses_what_is_not_stored_and_goes_on_when_there_is_room() {
    let Ok(place) = std::env::var(INSIDE) else {
        return on_a_small_disk("a_full_disk_refuses_what_is_not_stored_and_goes_on_when_there_is_room");
    };
    let folder = Path::new(&place);
    let ballast = folder.join("ballast");
    let mut accepted = 0;
    {
        let journal = journal(folder, "1GiB");
        let writer = journal.writer();
        held(&writer).await.unwrap();
        fs::write(&ballast, vec![1; 1 << 20]).unwrap();
        for round in 0..2 {
            let (refused, fault) = until_refused(&writer, accepted, 30_000).await;
            assert!(refused > accepted || round == 1, "nothing was written");
            assert!(fault.is_retryable(), "{fault}");
            assert!(fault.to_string().contains("No space left on device"), "{fault}");
            assert!(fault.remedy().unwrap().contains("free space"), "{fault}");
            assert!(journal.status().trouble.unwrap().contains("No space left"));
            // A lane asks before it goes on; until then nothing of the stream is taken.
            assert!(deliver(&writer, &batch([refused], 10)).await.is_err());
            assert_eq!(held(&writer).await.unwrap(), Some(refused - 1));
            assert_eq!(numbers(&read_all(&journal, "all").await).len() as u64, refused);
            accepted = refused;
            if round == 0 {
                fs::remove_file(&ballast).unwrap();
                deliver(&writer, &batch([refused], 10)).await.unwrap();
                assert_eq!(journal.status().trouble, None);
                accepted += 1;
            }
        }
        writer.close().await.unwrap();
    }
    // The next segment needs room to be made, the journal none to be opened.
    assert_stored(folder, accepted).await;
}

/// Every third `fdatasync` fails as on a dying disk; the tracer's log proves that it did.
#[tokio::test]
async fn what_could_not_be_synced_is_never_acknowledged_and_is_stored_once_when_it_comes_again() {
    if std::env::var_os(INSIDE).is_some() {
        let folder = tempfile::tempdir().unwrap();
        let mut accepted = 0;
        // A journal is opened anew after some failures, as after a crash.
        for round in 1..=4 {
            let journal = journal(folder.path(), "1GiB");
            let writer = journal.writer();
            while held(&writer).await.is_err() {}
            while accepted < round * 25 {
                let next = held(&writer).await.unwrap().map_or(0, |held| held + 1);
                assert!(next >= accepted, "{accepted} were accepted, but only {next} are held");
                if deliver(&writer, &batch([next], 10_000)).await.is_ok() {
                    accepted = next + 1;
                    continue;
                }
                // Nothing that failed may be read.
                assert_eq!(numbers(&read_all(&journal, "all").await).len() as u64, next);
            }
            drop((writer, journal));
        }
        assert_stored(folder.path(), accepted).await;
        return;
    }
    let log = tempfile::NamedTempFile::new().unwrap();
    let log_path = log.path().to_str().unwrap();
    let wrapper = [
        "strace",
        "-f",
        "-e",
        "trace=fdatasync",
        "-e",
        "inject=fdatasync:error=EIO:when=5+3",
        "-o",
        log_path,
    ];
    let test = "what_could_not_be_synced_is_never_acknowledged_and_is_stored_once_when_it_comes_again";
    let (passed, said) = again(module_path!(), test, &wrapper, "inside");
    assert!(passed, "{said}");
    let injected = fs::read_to_string(log.path()).unwrap().matches("(INJECTED)").count();
    assert!(injected >= 20, "only {injected} syncs failed: the check has shown nothing");
}

#[tokio::test]
async fn a_second_daemon_on_one_folder_is_refused_while_the_first_lives() {
    if let Ok(place) = std::env::var(INSIDE) {
        let journal = journal(Path::new(&place), "1GiB");
        held(&journal.writer()).await.unwrap();
        fs::write(Path::new(&place).join("opened"), "").unwrap();
        // Until the other side closes the pipe, or kills this process.
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut Vec::new()).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "journal::faults::a_second_daemon_on_one_folder_is_refused_while_the_first_lives";
    let mut first = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !folder.path().join("opened").exists() {
        assert!(first.try_wait().unwrap().is_none(), "it ended early");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let fault = held(&journal(folder.path(), "1GiB").writer()).await.unwrap_err();
    assert!(
        !fault.is_retryable() && fault.to_string().contains("another process uses this journal"),
        "{fault}"
    );
    assert!(fault.remedy().unwrap().contains("stop the other daemon"));
    first.stdin.take().unwrap().flush().unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    held(&journal(folder.path(), "1GiB").writer()).await.unwrap();
}
