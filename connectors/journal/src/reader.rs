//! The journal as a source.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use forebay_api::{Blame, Chunk, Fault, Measure, ReaderSetting, Source, SourceContext, StreamId, step};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::warn;

use crate::cursor::{Cursor, Item};
use crate::journal::{Opener, blocking};
use crate::position;
use crate::store::Store;

/// How often a loop that waits says that it turns, and looks what is stored.
const TURN: Duration = Duration::from_secs(1);

/// How often a position is sent while there is nothing to read.
const IDLE: Duration = Duration::from_secs(10);

/// What a destination behind a journal reads from.
#[derive(Debug)]
pub(crate) struct JournalReader {
    opener: Arc<Opener>,
    setting: ReaderSetting,
}

impl JournalReader {
    pub(crate) fn new(opener: Arc<Opener>, setting: ReaderSetting) -> JournalReader {
        JournalReader { opener, setting }
    }
}

#[async_trait]
impl Source for JournalReader {
    async fn run(&mut self, context: SourceContext) -> Result<(), Fault> {
        let store = self.opener.opened().await?.store.clone();
        let run = Run { name: self.setting.name.clone(), store: store.clone(), context };
        let doing = run.doing();
        let until = self.setting.until.as_ref().map(|until| store.address(until, &doing)).transpose()?;
        let resume = run.context.resume.as_ref().map(|resume| store.address(resume, &doing)).transpose()?;
        let (setting, place_in) = (self.setting.clone(), store.clone());
        let (at, _running) = blocking(&doing, move || place_in.place(&setting, resume)).await?;
        run.context.report.set_connected(true);
        let ended = run.read(Cursor::new(store, self.setting.name.clone(), at, until)).await;
        run.context.report.set_connected(ended.is_ok());
        ended
    }
}

/// One run of a reader.
struct Run {
    name: Arc<str>,
    store: Arc<Store>,
    context: SourceContext,
}

impl Run {
    fn doing(&self) -> String {
        self.store.reading(&self.name)
    }

    /// Sends what there is, then waits for more. While some chunks are sent, the next are read.
    async fn read(&self, cursor: Cursor) -> Result<(), Fault> {
        let mut durable = self.store.durable.subscribe();
        // So that its place is stored before there is anything to read.
        if !self.send(self.nothing(), cursor.at).await? {
            return Ok(());
        }
        let mut reading = ahead(cursor);
        loop {
            let read = self.turning(&mut reading).await?;
            let (cursor, items) = read.map_err(|died| Fault::fatal(self.doing(), Blame::Defect, died))??;
            let (at, done) = (cursor.at, cursor.is_done());
            let newest = items.last().and_then(|(chunk, _)| chunk.rows.last()).map(|row| row.time);
            self.report_lag(newest.filter(|_| at < *durable.borrow()));
            if !done {
                if items.is_empty() && !self.more(at, &mut durable).await? {
                    return Ok(());
                }
                reading = ahead(cursor);
            }
            for (chunk, after) in items {
                step!("journal-reader-sends");
                if !self.send(chunk, after).await? {
                    return Ok(());
                }
            }
            if done || self.context.stop.is_cancelled() {
                return Ok(());
            }
            self.turn().await?;
        }
    }

    /// Waits until there is something behind `at`; `false` when the run ends before.
    async fn more(&self, at: u64, durable: &mut watch::Receiver<u64>) -> Result<bool, Fault> {
        let mut idle = Instant::now();
        let (mut committed, mut closed) = (self.context.committed.clone(), false);
        while *durable.borrow_and_update() <= at {
            tokio::select! {
                // The store has the sender.
                _ = durable.changed() => {}
                () = self.context.stop.cancelled() => return Ok(false),
                changed = committed.changed(), if !closed => closed = changed.is_err(),
                () = tokio::time::sleep(TURN) => {}
            }
            self.turn().await?;
            if idle.elapsed() >= IDLE {
                idle = Instant::now();
                if !self.send(self.nothing(), at).await? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Pushes a chunk; `false` when the run ends instead.
    async fn send(&self, chunk: Chunk, after: u64) -> Result<bool, Fault> {
        let position = position::write(self.store.identity, after);
        Ok(self.turning(self.context.outlet.send(chunk, Some(position))).await?.is_ok())
    }

    /// Waits for a future and turns meanwhile: to be held back is not to be stuck.
    async fn turning<F: Future>(&self, future: F) -> Result<F::Output, Fault> {
        let mut future = std::pin::pin!(future);
        loop {
            match tokio::time::timeout(TURN, future.as_mut()).await {
                Ok(output) => return Ok(output),
                Err(_) => self.turn().await?,
            }
        }
    }

    /// Says that it turns, and lets go of what is stored.
    async fn turn(&self) -> Result<(), Fault> {
        self.context.report.turned();
        if let Some(fault) = self.store.cut_off(&self.name) {
            return Err(fault);
        }
        if let Some(stored) = self.context.committed.latest() {
            self.store.stored(&self.name, self.store.address(&stored, &self.doing())?);
        }
        if self.store.can_release() {
            let store = self.store.clone();
            if let Err(fault) = blocking(&self.doing(), move || store.release(false)).await {
                // Reading goes on; when the room is needed, the writer meets what is wrong.
                warn!(source = %self.store.source, error = %fault, remedy = fault.remedy(), "journal keeps files that it needs no more");
            }
        }
        Ok(())
    }

    fn report_lag(&self, newest: Option<i64>) {
        // A figure for people: what an f64 cannot hold of microseconds is nothing.
        let lag = newest.map_or(0, |time| now().saturating_sub(time).max(0));
        let lag = Duration::from_micros(u64::try_from(lag).unwrap_or(0)).as_secs_f64();
        self.context.report.set(Measure::SourceLagSeconds, Some(lag));
    }

    /// A chunk that only carries a position.
    fn nothing(&self) -> Chunk {
        let source = self.store.source.as_str().into();
        Chunk::empty(Arc::new(StreamId { source, epoch: self.store.identity.upper() }), now())
    }
}

/// Reads the next chunks where that blocks nobody.
fn ahead(mut cursor: Cursor) -> JoinHandle<Result<(Cursor, Vec<Item>), Fault>> {
    tokio::task::spawn_blocking(move || {
        let items = cursor.read()?;
        Ok((cursor, items))
    })
}

/// Microseconds since the Unix epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
