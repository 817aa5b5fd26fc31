//! Records that a destination refused for their content, kept on disk: `dead_letters/<destination>/<n>.ndjson`.
//!
//! ```text
//!  lane ─bury▶ files ─select▶ desk ─part▶ lane ─replay▶ destination ─▶ settled in the files
//!                │                                  operator ─drop──▶
//!                └─▶ blocked keys ─▶ lane         forwarder ─▶ `to` ─▶
//! ```
//! Invariant: a letter counts as stored only after it is fsynced, and as settled only after that is. There is one open
//! letter for each (destination, id), however often the record comes. All files together are capped.

mod courier;
mod files;
mod forward;
mod key;
mod letter;
mod lines;
mod replay;
mod report;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use forebay_api::{Blame, Fault};

pub use self::courier::Courier;
use self::files::Files;
pub use self::forward::Forwarder;
pub use self::key::{Apart, EventKey, Waiting};
pub use self::letter::{Letter, NotJson, Unusable};
pub use self::lines::How;
use self::lines::Said;
use self::replay::Desk;
pub use self::replay::{Part, Replay, ReplayProgress};
pub use self::report::{Report, Selection, Shown, destinations};
use crate::lane::BLOCKED;
use crate::telemetry::DeadLetterFigures;

/// What came of storing letters.
#[derive(Debug)]
pub enum Buried {
    /// They are on disk.
    Stored,
    /// They would pass the cap; nothing was written.
    Full {
        /// What a required lane stops with.
        fault: Fault,
    },
}

/// The dead letters of one destination. Read when they are first needed, by whoever has the lock of `data_dir`.
#[derive(Debug)]
pub struct DeadLetters {
    destination: Arc<str>,
    folder: PathBuf,
    max_bytes: u64,
    /// What it counts.
    pub figures: DeadLetterFigures,
    files: Mutex<Option<Files>>,
    open: AtomicU64,
    bytes: AtomicU64,
    desk: Desk,
    /// Told when letters were stored.
    stored: tokio::sync::Notify,
}

/// A letter that an operator means.
#[derive(Debug)]
struct Selected {
    id: String,
    /// The source that its event came from; `None`: it was written by the first version, and does not say.
    source: Option<String>,
}

/// A letter that was delivered again and refused again.
#[derive(Debug)]
pub struct RefusedAgain {
    /// The letter.
    pub letter: Letter,
    /// Why, this time.
    pub why: forebay_api::Rejection,
}

impl DeadLetters {
    /// The letters of `destination` below `data_dir`, of which all files together stay below `max_bytes`.
    pub fn new(
        data_dir: &Path,
        destination: &str,
        max_bytes: u64,
        figures: DeadLetterFigures,
    ) -> DeadLetters {
        DeadLetters {
            destination: destination.into(),
            folder: folder(data_dir, destination),
            max_bytes,
            figures,
            files: Mutex::new(None),
            open: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            desk: Desk::default(),
            stored: tokio::sync::Notify::new(),
        }
    }

    /// The destination's name.
    pub fn destination(&self) -> &Arc<str> {
        &self.destination
    }

    /// Letters that are open, and the bytes of their files; as far as they were read.
    pub fn size(&self) -> (u64, u64) {
        (self.open.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// What `/status` shows.
    pub fn to_json(&self) -> serde_json::Value {
        let (letters, bytes) = self.size();
        serde_json::json!({"destination": *self.destination, "letters": letters, "bytes": bytes})
    }

    /// Reads what is there, so that damage is met before anything is delivered.
    pub async fn load(self: &Arc<Self>) -> Result<(), Fault> {
        self.with_files("reading dead letters", |_| Ok(())).await
    }

    /// Appends those letters that are not there yet and syncs them. On a fault nothing counts as stored.
    pub async fn store(self: &Arc<Self>, letters: Vec<Letter>) -> Result<Buried, Fault> {
        let max_bytes = self.max_bytes;
        let stored = self.with_files("storing dead letters", move |files| {
            let mut new: Vec<Letter> = Vec::new();
            for letter in letters {
                if !files.has(&letter.id) && !new.iter().any(|other| other.id == letter.id) {
                    new.push(letter);
                }
            }
            if new.is_empty() {
                return Ok(true);
            }
            let mut lines = Vec::new();
            new.iter().for_each(|letter| letter.write(&mut lines));
            if files.size().1 + lines.len() as u64 > max_bytes {
                return Ok(false);
            }
            files.bury(new)?;
            Ok(true)
        });
        if !stored.await? {
            return Ok(Buried::Full { fault: self.full() });
        }
        self.stored.notify_waiters();
        Ok(Buried::Stored)
    }

    /// Which of these events have to wait behind a letter.
    pub async fn blocked(self: &Arc<Self>, events: Vec<Waiting>) -> Result<Vec<bool>, Fault> {
        self.with_files("looking for dead letters of a key", move |files| {
            Ok(events.iter().map(|event| files.blocked.blocks(event)).collect())
        })
        .await
    }

    /// Settles letters; gives how many of them were open. Synced when it returns.
    pub async fn settle(self: &Arc<Self>, ids: Vec<String>, how: How) -> Result<u64, Fault> {
        let time = letter::time_text(now_micros());
        let settled = self.with_files("settling dead letters", move |files| {
            let open: Vec<String> = ids.into_iter().filter(|id| files.has(id)).collect();
            if open.is_empty() {
                return Ok(0);
            }
            let said = |settled: &String| Said::Settled { settled: settled.clone(), how, time: time.clone() };
            files.say(&open.iter().map(said).collect::<Vec<_>>())?;
            Ok(open.len() as u64)
        });
        let settled = settled.await?;
        let counter = match how {
            How::Replayed => &self.figures.replayed,
            How::Dropped => &self.figures.dropped,
            How::Forwarded => &self.figures.forwarded,
        };
        counter.inc_by(settled);
        Ok(settled)
    }

    /// Writes down that letters were refused again. They stay.
    pub async fn refused_again(self: &Arc<Self>, refused: Vec<RefusedAgain>) -> Result<(), Fault> {
        if refused.is_empty() {
            return Ok(());
        }
        let time = letter::time_text(now_micros());
        let said = refused.into_iter().map(|RefusedAgain { letter, why }| Said::Retried {
            retried: letter.id,
            attempts: letter.attempts.saturating_add(1),
            reason: why.reason,
            chain: why.chain,
            time: time.clone(),
        });
        let said: Vec<Said> = said.collect();
        self.with_files("counting attempts at dead letters", move |files| files.say(&said)).await
    }

    /// Settles the letters of a selection as dropped; gives how many.
    pub async fn drop_selected(self: &Arc<Self>, selection: Selection) -> Result<u64, Fault> {
        let selected = self.select(selection, false).await?;
        self.settle(selected.into_iter().map(|selected| selected.id).collect(), How::Dropped).await
    }

    /// The open letters of a selection, oldest first; `with_blocked`, those too that only wait behind one of them.
    async fn select(
        self: &Arc<Self>,
        selection: Selection,
        with_blocked: bool,
    ) -> Result<Vec<Selected>, Fault> {
        self.load().await?;
        let folder = self.folder.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let (mut selected, mut keys) = (Vec::new(), Apart::default());
            lines::look(&folder, |letter| {
                let waits = |key| with_blocked && letter.reason == BLOCKED && keys.has_dependent_on(key);
                if selection.takes(&letter) || letter.key().is_some_and(waits) {
                    letter.key().map(|key| keys.take(key));
                    selected.push(Selected { source: letter.event.map(|event| event.source), id: letter.id });
                }
                true
            })?;
            Ok(selected)
        });
        let looked = looked.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        looked.map_err(|error| fault("selecting dead letters", &self.folder, error))
    }

    /// Runs `work` on the files where blocking is allowed. After an error they are read anew the next time.
    async fn with_files<T: Send + 'static>(
        self: &Arc<Self>,
        doing: &str,
        work: impl FnOnce(&mut Files) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut slot = this.files.lock().unwrap_or_else(PoisonError::into_inner);
            let files = match &mut *slot {
                Some(files) => files,
                None => slot.insert(Files::open(&this.folder)?),
            };
            let done = work(files);
            let (open, bytes) = files.size();
            this.open.store(open as u64, Ordering::Relaxed);
            this.bytes.store(bytes, Ordering::Relaxed);
            if done.is_err() {
                *slot = None;
            }
            done
        });
        let done = done.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        done.map_err(|error| fault(doing, &self.folder, error))
    }

    fn full(&self) -> Fault {
        let doing = format!("storing dead letters of `{}`", self.destination);
        let error = format!("there are {} bytes of them, which is the cap", self.max_bytes);
        Fault::fatal(doing, Blame::Outside, error).with_remedy(format!(
            "look with `forebay dlq list` at what is refused and why; mend it, then `forebay dlq replay {0}` or `forebay \
             dlq drop {0}`; or raise `dead_letters.max_bytes`",
            self.destination
        ))
    }
}

/// Where the letters of a destination are.
pub(crate) fn folder(data_dir: &Path, destination: &str) -> PathBuf {
    data_dir.join("dead_letters").join(destination)
}

fn fault(doing: &str, folder: &Path, error: io::Error) -> Fault {
    let doing = format!("{doing} in `{}`", folder.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Fault::fatal(doing, Blame::Outside, error).with_remedy("make `data_dir` writable for this user")
        }
        io::ErrorKind::InvalidData => Fault::fatal(doing, Blame::Outside, error).with_remedy(
            "correct or remove that line while no daemon runs; what it says of an event is lost if you remove it",
        ),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            Fault::fatal(doing, Blame::Outside, error).with_remedy("move away what is in the way of the folder")
        }
        _ => Fault::retryable(doing, error).with_remedy("free space on the disk of `data_dir`"),
    }
}

/// Microseconds since the Unix epoch.
pub(crate) fn now_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
