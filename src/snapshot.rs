//! Which tables are copied, when, and how far they are: the core's side of every source's snapshots.
//!
//! ```text
//!  operator ─command▶ ┌──────────────┐ ─divide, read▶ SnapshotReader ─chunks▶ the source's stream
//!  tables ──settle──▶ │   progress   │ ◀──rest of the range, tickets──┘
//!   state store ◀──── └──────────────┘ ◀──a ticket: the chunk is durable everywhere
//! ```
//! `progress` decides and counts, and knows no I/O and no clock; `run` does what it says. What is left of a stretch is
//! stored when everything before it is durable, so that a crash repeats what was on its way and nothing else.

mod bar;
mod command;
mod progress;
mod record;
mod report;
mod run;
mod settle;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use forebay_api::{Blame, Fault, SnapshotPlan, SnapshotReader, Snapshots, Table};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

pub use bar::bar;
pub use command::{Command, Refusal};
pub use record::Reason;
pub use report::{SnapshotReport, SnapshotState, TableReport, TableState, Totals};

use record::{Values, Whole};
use report::Watched;
use run::Run;

use crate::checkpoint::SaveError;
use crate::state::{Kind, StateStore};
use crate::telemetry::SnapshotFigures;

/// So many commands of operators may wait for an answer.
const COMMANDS: usize = 16;

/// A source that was connected a moment ago takes commands within this. Whoever asked waits no longer than 5 s.
const BEGINS: Duration = Duration::from_secs(2);

/// One source's snapshots, over all its generations.
#[derive(Debug)]
pub struct SnapshotDesk {
    source: String,
    store: Arc<dyn StateStore>,
    figures: SnapshotFigures,
    present: Mutex<Present>,
    /// Told when a run begins.
    begins: Notify,
}

/// What can be seen from outside of a run.
#[derive(Debug, Default)]
struct Present {
    /// As the latest run knows it; `None` before the first one.
    watched: Option<Arc<Mutex<Watched>>>,
    /// The run that goes on, if one does.
    commands: Option<mpsc::Sender<Asked>>,
}

/// A command and who waits for what becomes of it.
#[derive(Debug)]
struct Asked {
    command: Command,
    answer: oneshot::Sender<Result<String, Refusal>>,
}

impl SnapshotDesk {
    /// Those of the source of this name.
    pub fn new(source: &str, store: Arc<dyn StateStore>, figures: SnapshotFigures) -> SnapshotDesk {
        SnapshotDesk {
            source: source.to_owned(),
            store,
            figures,
            present: Mutex::default(),
            begins: Notify::new(),
        }
    }

    /// Called before the source is started for as long as no position of it is stored: remembers that what is there
    /// now was there before everything that will be read. Else a position that is stored before it is decided what is
    /// copied would, after a crash in between, make the tables look like those of a source that ran before.
    pub async fn first_start(&self) -> Result<(), Fault> {
        let kept = record::load(&*self.store, &self.source).await?;
        if kept.whole.is_some() || !kept.tables.is_empty() {
            return Ok(());
        }
        let values = Values { whole: Some(Whole::default()), ..Values::default() };
        let stored = self.store.put(Kind::Snapshots, record::encoded(&self.source, &values)).await;
        stored.map_err(|error| not_stored(&self.source, error))
    }

    /// Has an operator's command done. What it says is on disk when it is answered.
    pub async fn command(&self, command: Command) -> Result<String, Refusal> {
        let down = || {
            let error = format!("`{}` is not being read at the moment", self.source);
            Refusal::not_now(error, "look at `forebay status`, and try it again when the source is connected")
        };
        let commands = tokio::time::timeout(BEGINS, self.attended()).await.map_err(|_| down())?;
        let (answer, answered) = oneshot::channel();
        commands.try_send(Asked { command, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Refusal::not_now("too many commands wait for an answer", "try it again in a moment")
            }
            mpsc::error::TrySendError::Closed(_) => down(),
        })?;
        answered.await.unwrap_or_else(|_| {
            Err(Refusal::not_now(
                format!(
                    "the connection of `{}` ended meanwhile, so nobody knows whether it was done",
                    self.source
                ),
                "look at `forebay snapshot status`",
            ))
        })
    }

    /// How far everything is; `None` before the source was read first.
    pub fn report(&self) -> Option<SnapshotReport> {
        let (watched, runs) = {
            let present = self.present();
            (present.watched.clone()?, present.commands.is_some())
        };
        let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
        Some(watched.report(runs))
    }

    /// The same without the tables, for whoever looks often.
    pub fn totals(&self) -> Option<(SnapshotState, Totals)> {
        let (watched, runs) = {
            let present = self.present();
            (present.watched.clone()?, present.commands.is_some())
        };
        let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
        Some((watched.state(runs), watched.totals(Instant::now())))
    }

    /// Waits for a run that takes commands.
    async fn attended(&self) -> mpsc::Sender<Asked> {
        loop {
            let begins = self.begins.notified();
            if let Some(commands) = self.present().commands.clone() {
                return commands;
            }
            begins.await;
        }
    }

    fn present(&self) -> std::sync::MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Snapshots for SnapshotDesk {
    async fn run(
        &self,
        plan: SnapshotPlan,
        tables: watch::Receiver<Vec<Table>>,
        reader: Arc<dyn SnapshotReader>,
    ) -> Result<(), Fault> {
        let kept = record::load(&*self.store, &self.source).await?;
        let (sender, commands) = mpsc::channel(COMMANDS);
        let mut run = Run::new(self, plan, tables, reader, kept, commands);
        *self.present() = Present { watched: Some(run.watched()), commands: Some(sender) };
        self.begins.notify_waiters();
        let _attended = Attended(self);
        run.go().await
    }
}

/// While it lives, commands are taken.
struct Attended<'d>(&'d SnapshotDesk);

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        self.0.present().commands = None;
    }
}

/// Judges why progress could not be stored.
fn not_stored(source: &str, error: SaveError) -> Fault {
    let doing = format!("storing how far the snapshot of `{source}` is");
    match error {
        SaveError::Io(_) => Fault::retryable(doing, error),
        SaveError::Fenced { .. } => Fault::fatal(doing, Blame::Outside, error)
            .with_remedy("make sure that only one daemon uses this `data_dir`"),
        SaveError::NotText => Fault::fatal(doing, Blame::Defect, error),
    }
}
