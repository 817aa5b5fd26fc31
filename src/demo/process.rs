//! A child process that does not outlive us, however we end: also by SIGKILL, when nothing of our own runs any more,
//! and when it stands in a static that is never dropped.
//!
//! Each child has a small shell that holds the reading end of a pipe whose writing end is ours. The kernel closes
//! ours when we die; the shell then signals the child, waits for it and removes its folder.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use tokio::time::{Instant, sleep};

pub use rustix::process::Signal;

/// How often a process that shall end is looked at.
const WAIT_PAUSE: Duration = Duration::from_millis(5);
/// How long one that is dropped may take to obey its last signal. A process that was stopped never does.
const LAST_LIMIT: Duration = Duration::from_secs(10);
/// A line on its input means that the child has ended in good order; the end of its input means that we are gone.
/// A child that does not obey within 10 s is killed.
const WATCH: &str = r#"
read -r _ && exit 0
kill "-$1" "$2"
tries=0
while kill -0 "$2" && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -KILL "$2"
[ -z "$3" ] || rm -rf -- "$3"
"#;

/// A running child, tied to us. Dropping it ends it and waits for that.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// The shell that ends the child should we die first.
    watcher: Child,
    /// What ends the child when nobody wants it any more.
    last: Signal,
}

impl Process {
    /// Starts `command` in a group of its own (Ctrl-C on the terminal is for us to handle). When it is dropped, or when
    /// we die, it gets the signal `last`; when we die, `litter`, a folder that nobody needs after it, is removed too.
    pub fn spawn(command: &mut Command, last: Signal, litter: Option<&Path>) -> io::Result<Self> {
        let mut child = command.process_group(0).spawn()?;
        let watcher = Command::new("/bin/sh")
            .args(["-c", WATCH, "watcher", &last.as_raw().to_string(), &child.id().to_string()])
            .arg(litter.unwrap_or(Path::new("")))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match watcher {
            Ok(watcher) => Ok(Self { child, watcher, last }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Sends it a signal. One that has ended and was not yet waited for takes it without harm.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let number = i32::try_from(self.child.id()).expect("process ids fit in an i32");
        let pid = Pid::from_raw(number).expect("a child is not process 0");
        kill_process(pid, signal).map_err(io::Error::from)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// How it ended, or nothing when it still runs after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.ended()?;
            if ended.is_some() || Instant::now() >= deadline {
                return Ok(ended);
            }
            sleep(WAIT_PAUSE).await;
        }
    }

    /// Its output, once, where the command said that it is a pipe.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its number, for what only the system's own tools can do to it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // None of these errors leaves anything that could be done: a child that was waited for cannot be signalled,
        // and a watcher that somebody killed cannot be told.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.signal(self.last);
            let mut patience = LAST_LIMIT;
            while let Ok(None) = self.child.try_wait()
                && !patience.is_zero()
            {
                std::thread::sleep(WAIT_PAUSE); // there is no async drop
                patience = patience.saturating_sub(WAIT_PAUSE);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if let Some(mut pipe) = self.watcher.stdin.take() {
            let _ = pipe.write_all(b"ended\n");
        }
        let _ = self.watcher.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(litter: Option<&Path>) -> Process {
        Process::spawn(Command::new("sleep").arg("60"), Signal::TERM, litter).unwrap()
    }

    #[test]
    fn our_end_ends_the_child_and_removes_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = sleeper(Some(folder.path()));
        drop(process.watcher.stdin.take()); // what the kernel does when we die
        assert!(!process.child.wait().unwrap().success());
        process.watcher.wait().unwrap();
        assert!(!folder.path().exists());
    }

    #[test]
    fn a_child_that_was_dropped_is_gone_and_its_folder_is_left_to_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let process = sleeper(Some(folder.path()));
        let proc_entry = format!("/proc/{}", process.id());
        assert!(Path::new(&proc_entry).exists());
        drop(process);
        assert!(!Path::new(&proc_entry).exists());
        assert!(folder.path().exists());
    }

    #[tokio::test]
    async fn waiting_says_whether_it_has_ended() {
        let mut process = sleeper(None);
        assert!(process.wait(Duration::from_millis(20)).await.unwrap().is_none());
        process.signal(Signal::KILL).unwrap();
        let status = process.wait(Duration::from_secs(10)).await.unwrap().unwrap();
        assert_eq!(status.code(), None, "it was killed");
    }
}
