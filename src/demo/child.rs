//! The demo's daemon: a process of its own, which can be killed as the kernel would.
//!
//! It is this very program with a configuration that anybody could have written; the demo sees of it what an operator
//! sees: `/ready`, `/status`, its log and its exit code.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use forebay_api::{Blame, Fault};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::database::{SCHEMA, SLOT};
use super::port;
use super::process::{Process, Signal};
use super::shop::TABLES;
use crate::admin::ask;

/// The configuration's name in the folder.
pub(super) const CONFIG: &str = "forebay.yaml";
/// The table that the events go to, in the demo's schema.
pub(super) const EVENTS: &str = "events";
/// The folder of the NDJSON files.
pub(super) const FILES: &str = "events";
/// Where the daemon's log is.
pub(super) const LOG: &str = "daemon.log";
/// How much may be on its way. The less, the less comes again after a kill.
const MEMORY: &str = "32MiB";
/// The variable through which the configuration gets the URL, so that no password is written to a file.
const URL_VARIABLE: &str = "DATABASE_URL";
/// A daemon that is not ready after this says why in its log.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// A daemon that drains has half a minute by default, and some time to end.
const STOP_LIMIT: Duration = Duration::from_secs(40);
/// A process that was killed is gone at once, but for the kernel's own work.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How often `/ready` is asked.
const ASK_PAUSE: Duration = Duration::from_millis(50);
/// How much of its log a message shows.
const LOG_LINES: usize = 15;

/// A daemon that runs, or did.
pub(super) struct Daemon {
    process: Process,
    folder: PathBuf,
    admin_port: u16,
}

/// What every start needs, the same for each.
pub(super) struct Launch {
    folder: PathBuf,
    url: String,
    admin_port: u16,
}

impl Launch {
    /// Writes the configuration into `folder`, which becomes the daemon's working directory.
    pub(super) fn prepare(folder: &Path, url: &str) -> Result<Launch, Fault> {
        let failed = |error| {
            Fault::fatal(format!("preparing the daemon in `{}`", folder.display()), Blame::Outside, error)
        };
        let admin_port = port::free(1).map_err(failed)?;
        std::fs::write(folder.join(CONFIG), configuration(admin_port)).map_err(failed)?;
        Ok(Launch { folder: folder.to_owned(), url: url.to_owned(), admin_port })
    }

    /// Starts the daemon and returns when it is ready: its slot is there, and all destinations are reachable.
    pub(super) async fn start(&self) -> Result<Daemon, Fault> {
        let failed = |error| Fault::fatal("starting the daemon", Blame::Outside, error);
        let log = File::options().create(true).append(true).open(self.folder.join(LOG)).map_err(failed)?;
        let mut command = Command::new(this_program().map_err(failed)?);
        command
            .arg0("forebay")
            .args(["run", "--config", CONFIG])
            .current_dir(&self.folder)
            .env(URL_VARIABLE, &self.url);
        // what overrides the user's own configuration is not meant for this one
        let overrides =
            std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"FOREBAY__"));
        for (name, _) in overrides {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        // when the demo itself is killed, nothing of it is worth keeping
        let process = Process::spawn(&mut command, Signal::KILL, Some(&self.folder)).map_err(failed)?;
        let (folder, admin_port) = (self.folder.clone(), self.admin_port);
        let mut daemon = Daemon { process, folder, admin_port };
        daemon.ready().await?;
        Ok(daemon)
    }
}

impl Daemon {
    async fn ready(&mut self) -> Result<(), Fault> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let answer = self.ask("/ready").await;
            if answer.as_ref().is_some_and(|(status, _)| *status == 200) {
                return Ok(());
            }
            self.must_run()?;
            if Instant::now() > deadline {
                let why =
                    answer.map_or("it does not answer".to_owned(), |(_, why)| why.trim_end().to_owned());
                let text = format!("after {READY_LIMIT:?}: {why}; its log ends with\n{}", self.log());
                return Err(Fault::fatal("waiting until the daemon is ready", Blame::Outside, text));
            }
            sleep(ASK_PAUSE).await;
        }
    }

    /// An error if it has ended by itself, with what it said last; its exit code tells who must act.
    pub(super) fn must_run(&mut self) -> Result<(), Fault> {
        let failed = |error| Fault::fatal("waiting for the daemon", Blame::Defect, error);
        let Some(status) = self.process.ended().map_err(failed)? else { return Ok(()) };
        let blame = match status.code() {
            Some(78) => Blame::Configuration,
            Some(69) => Blame::Outside,
            _ => Blame::Defect,
        };
        let text = format!("it ended ({status}); its log ends with\n{}", self.log());
        Err(Fault::fatal("running the daemon", blame, text))
    }

    /// What `/status` says, if it answers.
    pub(super) async fn status(&self) -> Option<Value> {
        let (status, body) = self.ask("/status").await?;
        if status == 200 { serde_json::from_str(&body).ok() } else { None }
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL: nothing of it runs any more, not even a destructor.
    pub(super) async fn kill(mut self) -> Result<(), Fault> {
        self.end(Signal::KILL, KILL_LIMIT).await.map(drop)
    }

    /// SIGTERM, and waits until it has drained.
    pub(super) async fn stop(mut self) -> Result<(), Fault> {
        let status = self.end(Signal::TERM, STOP_LIMIT).await?;
        if status.success() {
            return Ok(());
        }
        let text = format!("it did not drain but ended with {status}; its log ends with\n{}", self.log());
        Err(Fault::fatal("stopping the daemon", Blame::Defect, text))
    }

    async fn end(&mut self, signal: Signal, limit: Duration) -> Result<std::process::ExitStatus, Fault> {
        let failed = |error| Fault::fatal("stopping the daemon", Blame::Defect, error);
        self.process.signal(signal).map_err(failed)?;
        let status = self.process.wait(limit).await.map_err(failed)?;
        status.ok_or_else(|| {
            let text = format!("it does not end within {limit:?}; its log ends with\n{}", self.log());
            Fault::fatal("stopping the daemon", Blame::Defect, text)
        })
    }

    /// The end of its log. A log that cannot be read is said in its place.
    fn log(&self) -> String {
        let text = std::fs::read(self.folder.join(LOG))
            .unwrap_or_else(|error| format!("(the log cannot be read: {error})").into_bytes());
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Status code and body of a GET on the admin port; nothing while nobody answers.
    async fn ask(&self, path: &str) -> Option<(u16, String)> {
        ask::get(&format!("127.0.0.1:{}", self.admin_port), path).await.ok()
    }
}

/// The program that runs, also when its file was replaced meanwhile.
fn this_program() -> std::io::Result<PathBuf> {
    let ours = PathBuf::from("/proc/self/exe");
    if ours.exists() { Ok(ours) } else { std::env::current_exe() }
}

/// What the daemon is told, as a user would write it.
fn configuration(admin_port: u16) -> String {
    let tables = TABLES.map(|table| format!("{SCHEMA}.{table}")).join(", ");
    format!(
        "# What `forebay demo` ran, with {URL_VARIABLE} in its environment.
name: demo
environment: demo
data_dir: ./data                      # how far everything was delivered

sources:
  shop:
    type: postgres
    url: ${{{URL_VARIABLE}}}
    tables: [{tables}]
    publication: {SLOT}
    slot: {SLOT}
    snapshot: initial                 # the default: first what is in the tables, then the changes

destinations:
  files:
    type: file
    path: ./{FILES}/shop.ndjson
    rotate: {{bytes: 4MiB}}
  table:
    type: postgres
    url: ${{{URL_VARIABLE}}}
    table: {SCHEMA}.{EVENTS}
    mode: append

limits: {{memory: {MEMORY}}}               # what is on its way; after a crash no more comes again
admin: {{listen: \"127.0.0.1:{admin_port}\"}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use crate::connectors;

    #[test]
    fn the_configuration_names_what_the_demo_made_and_holds_no_secret() {
        let text = configuration(9080);
        let variable = (URL_VARIABLE, "postgres://user:secret@host/database");
        let environment: Environment = std::iter::once(variable).collect();
        let settings = config::read(CONFIG, &text, &connectors::registry(), &environment);
        let settings = settings.unwrap_or_else(|error| panic!("{}", error.render(false)));
        assert_eq!((settings.sources.len(), settings.destinations.len()), (1, 2));
        assert!(TABLES.iter().all(|table| text.contains(&format!("{SCHEMA}.{table}"))));
        assert!(!text.contains("secret"));
    }
}
