//! `forebay demo`: the main job on a throw-away database, in a minute, with a crash in the middle and a proof at the end.
//!
//! A shop works in a database; a daemon of ours, a process of its own, carries its changes into NDJSON files and into
//! a table. Half-way the daemon is killed with SIGKILL, and started again. In the end what is in the files and in the
//! table is compared with what the shop wrote down itself. However this ends, also by Ctrl-C, nothing of it stays but
//! the event files of a demo that succeeded, and what `--keep` keeps.

use std::path::Path;
use std::time::Duration;

use forebay_api::{Blame, Fault};
use indicatif::HumanCount;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::child::{Daemon, EVENTS, FILES, Launch};
use super::database::{self, Database, Place, SCHEMA};
use super::folder::{Folder, Stays};
use super::ledger::Ledger;
use super::proof::Testimony;
use super::screen::{Frame, Screen};
use super::shop::{Load, TABLES};
use super::{epilogue, evidence};
use crate::daemon::Finished;

/// How long the shop goes on without a daemon.
const OUTAGE: Duration = Duration::from_secs(2);
/// How often the screen is refreshed.
const REFRESH: Duration = Duration::from_millis(200);
/// Everything that was committed arrives in this time after the shop has closed, or will not.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(30);
/// Some statements on an idle database.
const PREPARE_LIMIT: Duration = Duration::from_secs(30);

/// Show the main job on a throw-away database, in a minute: changes flow, the daemon is killed, nothing is lost
///
/// A shop works in a PostgreSQL database; Forebay carries its changes into NDJSON files and into a table. Half-way it is
/// killed with SIGKILL and started again. In the end what arrived is compared with what the shop has committed.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Use this PostgreSQL instead of one that the demo brings (15 MB, fetched once). It needs `wal_level = logical` and
    /// a role with REPLICATION and CREATE. The demo works in schema `forebay_demo` and removes it afterwards
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Keep the configuration, the log and the checkpoints, too, and everything when the demo fails
    #[arg(long)]
    pub keep: bool,
    /// For how long the shop is open; half-way the daemon is killed
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(4..=3600))]
    pub seconds: u64,
    /// Repeat the decisions of an earlier demo, which said its seed
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Plays the demo to its end. An error when anything was lost, out of order or twice where it must not be.
pub async fn run(options: Options) -> Result<Finished, Fault> {
    let mut interrupts =
        Interrupts::listen().map_err(|error| Fault::fatal("listening for signals", Blame::Defect, error))?;
    let folder = Folder::create()?;
    let mut screen = Screen::new();
    let place = match &options.url {
        Some(url) => Place::Theirs(url.clone()),
        None => tokio::select! {
            place = database::bring(folder.path(), |text| screen.say(&text)) => place?,
            () = interrupts.next() => return Ok(Finished::WorkLeft),
        },
    };
    // not interrupted: what is half made could not be removed
    let opening = Database::open(place, |text| screen.say(&text));
    let database = within("preparing the demo's database", opening).await?;
    let played = tokio::select! {
        played = play(&options, &database, folder.path(), &mut screen) => played.map(Some),
        () = interrupts.next() => Ok(None),
    };
    screen.clear();
    let stays = match &played {
        Ok(Some(_)) if !options.keep => Stays::Events,
        Ok(None) | Err(_) if !options.keep => Stays::Nothing,
        _ => Stays::AllButTheServer,
    };
    let cleaned = within("cleaning up", database.clean_up()).await;
    let place = folder.leave(stays);
    let Some(outcome) = played.inspect_err(|_| warn_of(&cleaned))? else {
        screen.say("Interrupted: the demo has cleaned up after itself.");
        return cleaned.map(|()| Finished::WorkLeft);
    };
    epilogue::tell(&screen, &outcome, &place?, options.keep);
    cleaned.map(|()| Finished::Drained)
}

/// The demo has another fault to report; this one is told beside it.
fn warn_of(cleaned: &Result<(), Fault>) {
    if let Err(fault) = cleaned {
        warn!(error = %fault, remedy = fault.remedy(), "the demo could not clean up");
    }
}

async fn within<T>(doing: &str, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let late = |_| Fault::fatal(doing, Blame::Outside, format!("no end of it within {PREPARE_LIMIT:?}"));
    timeout(PREPARE_LIMIT, work).await.map_err(late)?
}

/// What Ctrl-C, a service manager, or a terminal that is closed sends.
struct Interrupts([Signal; 3]);

impl Interrupts {
    fn listen() -> std::io::Result<Interrupts> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Interrupts([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hangup.recv() => {} }
    }
}

/// What a demo that went well has to tell.
pub(super) struct Outcome {
    /// What the shop did.
    pub(super) ledger: Ledger,
    /// What was committed while the daemon was dead.
    pub(super) meanwhile: u64,
    /// What is in the files.
    pub(super) files: Testimony,
    /// What is in the table.
    pub(super) table: Testimony,
}

async fn play(
    options: &Options,
    database: &Database,
    folder: &Path,
    screen: &mut Screen,
) -> Result<Outcome, Fault> {
    let launch = Launch::prepare(folder, &database.url)?;
    let mut daemon = launch.start().await?;
    let seed = options.seed.unwrap_or_else(rand::random);
    screen.say(&format!(
        "Forebay runs as process {}: schema {SCHEMA} of PostgreSQL {} → NDJSON files and table {SCHEMA}.{EVENTS}",
        daemon.pid(),
        database.version().await?,
    ));
    screen.say(&format!("Its folder is {}", folder.display()));
    screen.say(&format!(
        "A shop with {} tables opens for {} s (--seed {seed})",
        TABLES.len(),
        options.seconds
    ));
    let mut load = Load::start(database, seed).await?;
    let half = Duration::from_secs(options.seconds) / 2;
    watch(screen, &mut load, Some(&mut daemon), half).await?;

    let pid = daemon.pid();
    daemon.kill().await?;
    let before = load.changes();
    screen.say(&format!("kill -9 {pid}: Forebay is dead, the shop goes on"));
    watch(screen, &mut load, None, OUTAGE).await?;
    daemon = launch.start().await?;
    let meanwhile = load.changes() - before;
    screen.say(&format!(
        "Forebay is back as process {}; {} changes were committed without it",
        daemon.pid(),
        HumanCount(meanwhile)
    ));
    watch(screen, &mut load, Some(&mut daemon), half).await?;

    let ledger = load.finish().await?;
    arrive(screen, database, &mut daemon, &ledger).await?;
    daemon.stop().await?; // it drains: what is in the table is in the files, too
    screen.clear();
    let files = evidence::of_files(&folder.join(FILES), &ledger)?;
    let table = evidence::of_table(database, &ledger).await?;
    evidence::judge(&files, &table)?;
    Ok(Outcome { ledger, meanwhile, files, table })
}

/// Shows what flows for so long, unless the shop or the daemon fails.
async fn watch(
    screen: &mut Screen,
    load: &mut Load,
    mut daemon: Option<&mut Daemon>,
    lasts: Duration,
) -> Result<(), Fault> {
    let end = Instant::now() + lasts;
    while Instant::now() < end {
        let view = match &mut daemon {
            Some(daemon) => Some(look(daemon).await?),
            None => None,
        };
        screen.show(&Frame { changes: load.changes(), daemon: view });
        tokio::select! {
            fault = load.fails() => return Err(fault),
            () = sleep(REFRESH) => {}
        }
    }
    Ok(())
}

async fn look(daemon: &mut Daemon) -> Result<(u32, Option<serde_json::Value>), Fault> {
    daemon.must_run()?;
    Ok((daemon.pid(), daemon.status().await))
}

/// Waits until the table has as many changes as were committed. When it never has, the proof says what is missing.
async fn arrive(
    screen: &mut Screen,
    database: &Database,
    daemon: &mut Daemon,
    ledger: &Ledger,
) -> Result<(), Fault> {
    screen.say(&format!(
        "The shop closes after {} changes; waiting for the last of them",
        HumanCount(ledger.total)
    ));
    let deadline = Instant::now() + ARRIVAL_LIMIT;
    while evidence::changes_in_table(database).await? < ledger.total && Instant::now() < deadline {
        screen.show(&Frame { changes: ledger.total, daemon: Some(look(daemon).await?) });
        sleep(REFRESH).await;
    }
    Ok(())
}
