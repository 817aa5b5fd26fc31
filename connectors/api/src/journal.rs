//! The contract of a journal: a durable log that is a destination to what is upstream and a source to what is
//! downstream.
//!
//! ```text
//!  source ─▶ lane ─▶ writer() ══ log ══▶ reader("lake")   ─▶ lane ─▶ lake
//!                                 └════▶ reader("search") ─▶ lane ─▶ search
//! ```
//! One journal belongs to one source. It stores chunks as they are (origin stream, marks, verdicts, times), not a
//! format, so what comes out of a reader has the ids that it would have had without a journal. What is below
//! [`Destination::held`] of the writer is in it already.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::destination::Destination;
use crate::fault::{Blame, Fault};
use crate::mark::Position;
use crate::registry::{Finding, Mistake};
use crate::source::Source;
use crate::units::ByteSize;

/// The log of one source.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// What the source's pipeline delivers to. It accepts what is durable.
    fn writer(&self) -> Arc<dyn Destination>;

    /// A reader. Its position is stored by the core and given back to it as `resume`; without one it begins where
    /// [`ReaderSetting::start`] says. It keeps its place durably from its first run on: what it has not read is not
    /// deleted until it is read, forgotten, or parked.
    fn reader(&self, setting: ReaderSetting) -> Box<dyn Source>;

    /// A position from which a reader gets everything that [`Since`] asks for. Earlier entries may come too: the
    /// caller sorts them out.
    async fn locate(&self, since: &Since) -> Result<Position, Fault>;

    /// Where the next entry will stand.
    async fn end(&self) -> Result<Position, Fault>;

    /// Whether it is this daemon's alone: its readers give events the marks that their source gave them, and its end is
    /// known at once.
    fn is_local(&self) -> bool;

    /// Gives up the place of a reader, whether it was parked or taken out of the configuration; one that has none is
    /// nothing to give up.
    async fn forget(&self, reader: &str) -> Result<(), Fault>;

    /// What `/status` and the metrics say of it.
    fn status(&self) -> JournalStatus;
}

/// Who reads, and from where.
#[derive(Clone, Debug)]
pub struct ReaderSetting {
    /// Its name in the journal: the destination's, or that of a replay.
    pub name: Arc<str>,
    /// Whether the journal may never cut it off.
    pub required: bool,
    /// Where it begins when no position is stored for it.
    pub start: Start,
    /// Where it ends, with success; `None`: never.
    pub until: Option<Position>,
}

/// Where a reader begins that has no position yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest entry that the journal has.
    Oldest,
    /// With what is written from now on.
    Newest,
    /// At a position of [`Journal::locate`].
    At(Position),
}

/// From when on events are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// From the oldest entry.
    Oldest,
    /// Events that happened at or after this time, in microseconds since the Unix epoch.
    Time(i64),
    /// Events whose mark's second half of `major` is at least this: for PostgreSQL the commit LSN.
    Major(u64),
}

/// A journal at one moment. Figures that a kind of journal cannot know are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalStatus {
    /// Bytes on disk.
    pub bytes: Option<u64>,
    /// Bytes that may be on disk.
    pub max_bytes: Option<u64>,
    /// When the oldest entry was received: microseconds since the Unix epoch.
    pub oldest: Option<i64>,
    /// Everything that has a place in it, in the order of their names.
    pub readers: Vec<ReaderStatus>,
    /// What is wrong with it, for a person.
    pub trouble: Option<String>,
}

/// One reader of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderStatus {
    /// Its name.
    pub name: String,
    /// Bytes between its stored position and the end.
    pub behind: Option<u64>,
    /// Whether it was cut off to make room.
    pub parked: bool,
    /// Whether it runs in this process.
    pub running: bool,
}

/// What the core tells a journal about its place in the configuration.
#[derive(Clone, Debug)]
pub struct JournalSetting {
    /// The source whose events it keeps.
    pub source: String,
    /// The daemon's `name`.
    pub instance: String,
    /// Where a journal on disk lives: `journal/<source>` in here.
    pub data_dir: PathBuf,
}

/// A kind of journal.
#[async_trait]
pub trait JournalConnector: 'static {
    /// The word in `journal:`.
    const TYPE: &'static str;
    /// One line for `forebay list`.
    const ABOUT: &'static str;
    /// Memory that its client takes for itself; see [`crate::SourceConnector::CLIENT_MEMORY`].
    const CLIENT_MEMORY: ByteSize = ByteSize::mib(0);
    /// Its own keys. Refuses unknown fields; every key has a default where `journal: <type>` alone shall do.
    type Config: DeserializeOwned + JsonSchema + Send;

    /// Validates what the type system cannot. No I/O: the journal opens itself when it is first used.
    fn build(config: Self::Config, setting: &JournalSetting) -> Result<Arc<dyn Journal>, Vec<Mistake>>;

    /// Connects and looks at everything that could keep it from running. Changes nothing.
    async fn check(config: Self::Config, setting: &JournalSetting) -> Vec<Finding>;

    /// What a journal of this kind would leave behind if the source ran without it from now on: one sentence for the
    /// operator, when readers have not read all. Where nothing is left, or nobody can know, `None`. `stored` are the
    /// positions of readers that the core has, by their names.
    fn left_behind(
        setting: &JournalSetting,
        stored: &BTreeMap<String, Position>,
    ) -> Result<Option<String>, Fault> {
        let _ = (setting, stored);
        Ok(None)
    }

    /// Removes what a journal of this kind has left in files, because its source runs without it and everything in it is
    /// read: should it come between again, what it kept is older than what came meanwhile. Whether there was anything.
    fn discard(setting: &JournalSetting) -> Result<bool, Fault> {
        let _ = setting;
        Ok(false)
    }

    /// Puts damaged entries aside, so that what is left can be read; a sentence for each place that was damaged. Nobody
    /// may have the journal open. Only an operator asks for this: what the entries held is lost to the journal.
    fn salvage(setting: &JournalSetting) -> Result<Vec<String>, Fault> {
        let doing = format!("salvaging the journal of `{}`", setting.source);
        let error = format!("a journal of type `{}` is in no files of this daemon", Self::TYPE);
        Err(Fault::fatal(doing, Blame::Configuration, error))
    }
}
