//! `forebay demo`: the main job on a throw-away database, in a minute, with two crashes in it and a proof at the end.
//!
//! A shop with many rows works in a database; a daemon of ours, a process of its own, copies the rows and carries the
//! changes into NDJSON files and into a table. In the middle of the copy, and again later, the daemon is killed with
//! SIGKILL and started again. In the end what is in the files and in the table is compared with what the shop wrote
//! down itself, and replayed and compared with the shop's tables. However this ends, also by Ctrl-C, nothing of it
//! stays but the event files of a demo that succeeded, and what `--keep` keeps.

use std::path::Path;
use std::time::Duration;

use forebay_api::{Blame, Fault};
use indicatif::HumanCount;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::child::{Daemon, EVENTS, FILES, Launch};
use super::database::{self, Database, Place, SCHEMA};
use super::evidence::{Arrivals, Evidence};
use super::folder::{Folder, Stays};
use super::ledger::Ledger;
use super::screen::{Frame, Screen, copy_of, is_copied};
use super::shop::{self, Filled, Load, TABLES};
use super::{epilogue, evidence};
use crate::daemon::Finished;
use crate::snapshot::SnapshotReport;

/// How long the shop goes on without a daemon.
const OUTAGE: Duration = Duration::from_secs(2);
/// How often the screen is refreshed.
const REFRESH: Duration = Duration::from_millis(200);
/// How often one looks whether the copy is so far that the daemon is to be killed.
const COPY_REFRESH: Duration = Duration::from_millis(50);
/// So many of a hundred rows are copied then.
const KILL_AT_PERCENT: u64 = 40;
/// A copy of which nothing becomes durable for so long does not go on.
const COPY_LIMIT: Duration = Duration::from_secs(60);
/// Everything that was committed arrives in this time after the shop has closed, or will not.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(30);
/// Some statements on an idle database.
const PREPARE_LIMIT: Duration = Duration::from_secs(30);

/// Show the main job on a throw-away database, in a minute: a copy, changes, two crashes, and nothing is lost
///
/// A shop with some hundred thousand rows works in a PostgreSQL database; Forebay copies the rows and carries the changes
/// into NDJSON files and into a table. In the middle of the copy and once more it is killed with SIGKILL and started
/// again. In the end what arrived is compared with what the shop has committed, and with its tables.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Use this PostgreSQL instead of one that the demo brings (15 MB, fetched once). It needs `wal_level = logical` and
    /// a role with REPLICATION and CREATE. The demo works in schema `forebay_demo` and removes it afterwards
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Keep the configuration, the log and the checkpoints, too, and everything when the demo fails
    #[arg(long)]
    pub keep: bool,
    /// How many orders are in the shop at first; with customers and order lines there are half as many rows again. A
    /// thousand orders take some 6 MB of disk while the demo runs, and 1.3 MB afterwards, the event files
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(100..=5_000_000))]
    pub orders: u64,
    /// For how long the shop is open after the copy; half-way the daemon is killed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(4..=3600))]
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
    /// What was there before.
    pub(super) filled: Filled,
    /// What the shop did.
    pub(super) ledger: Ledger,
    /// How the copy went.
    pub(super) copy: Copy,
    /// What was committed while the daemon was dead, the second time.
    pub(super) meanwhile: u64,
    /// What is in the files.
    pub(super) files: Evidence,
    /// What is in the table.
    pub(super) table: Evidence,
}

/// How the copy went, and the kill in its middle.
pub(super) struct Copy {
    /// Rows that were durable when the daemon was killed; `None`: the copy was over before it could be.
    pub(super) killed_at: Option<u64>,
    /// Rows that the next daemon had not to copy any more.
    pub(super) resumed_at: u64,
    /// Rows that were copied in the end.
    pub(super) rows: u64,
    /// What was committed while the daemon was dead.
    pub(super) meanwhile: u64,
    /// From the first daemon's start on, with the kill.
    pub(super) took: Duration,
}

async fn play(
    options: &Options,
    database: &Database,
    folder: &Path,
    screen: &mut Screen,
) -> Result<Outcome, Fault> {
    let seed = options.seed.unwrap_or_else(rand::random);
    let begun = Instant::now();
    let sql = database.connect().await?;
    let filled = shop::fill(&sql, options.orders).await?;
    screen.say(&format!(
        "A shop in schema {SCHEMA} of PostgreSQL {}: {} rows in {} tables, made in {:.1} s",
        database.version().await?,
        HumanCount(filled.rows()),
        TABLES.len(),
        begun.elapsed().as_secs_f64(),
    ));
    let launch = Launch::prepare(folder, &database.url)?;
    let mut daemon = launch.start().await?;
    screen.say(&format!(
        "Forebay runs as process {}: it copies into NDJSON files and table {SCHEMA}.{EVENTS}",
        daemon.pid()
    ));
    screen.say(&format!("Its folder is {}", folder.display()));
    let mut load = Load::start(database, seed).await?;
    screen.say(&format!("The shop opens and changes what is being copied (--seed {seed})"));
    let copy;
    (daemon, copy) = copied(screen, &mut load, &launch, daemon).await?;
    screen.say(&format!(
        "All {} rows are copied, after {:.1} s with the crash in it; now the changes alone, for {} s",
        HumanCount(copy.rows),
        copy.took.as_secs_f64(),
        options.seconds
    ));
    let half = Duration::from_secs(options.seconds) / 2;
    watch(screen, &mut load, Some(&mut daemon), half).await?;
    let meanwhile;
    (daemon, meanwhile) = crash(screen, &mut load, &launch, daemon).await?;
    screen.say(&format!(
        "Forebay is back as process {}; {} changes were committed without it",
        daemon.pid(),
        HumanCount(meanwhile)
    ));
    watch(screen, &mut load, Some(&mut daemon), half).await?;

    let ledger = Ledger { filled: filled.rows(), ..load.finish().await? };
    arrive(screen, database, &mut daemon, &ledger).await?;
    daemon.stop().await?; // it drains: what is in the table is in the files, too
    screen.clear();
    screen.say("Forebay has stopped; reading every event, and comparing their replay with the tables");
    let files = evidence::of_files(database, &folder.join(FILES), &ledger).await?;
    let table = evidence::of_table(database, &ledger).await?;
    evidence::judge(&files, &table)?;
    Ok(Outcome { filled, ledger, copy, meanwhile, files, table })
}

/// Sees the copy through, with a kill in its middle.
async fn copied(
    screen: &mut Screen,
    load: &mut Load,
    launch: &Launch,
    mut daemon: Daemon,
) -> Result<(Daemon, Copy), Fault> {
    let begun = Instant::now();
    let is_far = |report: &SnapshotReport| {
        let totals = &report.totals;
        totals.rows * 100 >= totals.estimated_rows * KILL_AT_PERCENT
    };
    let before = watch_copy(screen, load, &mut daemon, is_far).await?;
    let killed_at = (!is_copied(&before)).then_some(before.totals.rows);
    let told = match killed_at {
        Some(rows) => format!(
            "{} of about {} rows are copied",
            HumanCount(rows),
            HumanCount(before.totals.estimated_rows)
        ),
        None => "the copy is over already".to_owned(),
    };
    screen.say(&format!("Now {told}"));
    let meanwhile;
    (daemon, meanwhile) = crash(screen, load, launch, daemon).await?;
    let resumed = watch_copy(screen, load, &mut daemon, |_| true).await?;
    let pid = daemon.pid();
    screen.say(&format!(
        "Forebay is back as process {pid}, goes on at row {}; {} changes were committed without it",
        HumanCount(resumed.totals.rows),
        HumanCount(meanwhile)
    ));
    let all = watch_copy(screen, load, &mut daemon, is_copied).await?;
    let (resumed_at, rows) = (resumed.totals.rows, all.totals.rows);
    Ok((daemon, Copy { killed_at, resumed_at, rows, meanwhile, took: begun.elapsed() }))
}

/// Kills the daemon and starts another one after a while; also how many changes were committed meanwhile.
async fn crash(
    screen: &mut Screen,
    load: &mut Load,
    launch: &Launch,
    daemon: Daemon,
) -> Result<(Daemon, u64), Fault> {
    let pid = daemon.pid();
    daemon.kill().await?;
    let before = load.changes();
    screen.say(&format!("kill -9 {pid}: Forebay is dead, the shop goes on"));
    watch(screen, load, None, OUTAGE).await?;
    let daemon = launch.start().await?;
    Ok((daemon, load.changes() - before))
}

/// Shows the copy until it is `far` enough, or has ended.
async fn watch_copy(
    screen: &mut Screen,
    load: &mut Load,
    daemon: &mut Daemon,
    far: impl Fn(&SnapshotReport) -> bool,
) -> Result<SnapshotReport, Fault> {
    let (mut rows, mut moved) = (0, Instant::now());
    loop {
        let (pid, status) = look(daemon).await?;
        // a daemon that has just started does not know its tables yet
        let report = status.as_ref().and_then(copy_of).filter(|report| report.totals.tables == TABLES.len());
        screen.show(&Frame { changes: load.changes(), daemon: Some((pid, status)) });
        if let Some(report) = report {
            if far(&report) || is_copied(&report) {
                return Ok(report);
            }
            if report.totals.rows > rows {
                (rows, moved) = (report.totals.rows, Instant::now());
            }
        }
        if moved.elapsed() > COPY_LIMIT {
            let text = format!("nothing more than {rows} rows became durable within {COPY_LIMIT:?}");
            return Err(Fault::fatal("copying the shop", Blame::Defect, text));
        }
        tokio::select! {
            fault = load.fails() => return Err(fault),
            () = sleep(COPY_REFRESH) => {}
        }
    }
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
    let mut arrivals = Arrivals::default();
    loop {
        arrivals.count(database).await?;
        if arrivals.changes >= ledger.total || Instant::now() >= deadline {
            return Ok(());
        }
        screen.show(&Frame { changes: ledger.total, daemon: Some(look(daemon).await?) });
        sleep(REFRESH).await;
    }
}
