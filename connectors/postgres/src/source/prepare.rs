//! From a configuration and a stored position to a stream that is about to begin: identity, publication, slot, fence.
//!
//! Invariants: the publication exists before the slot; the intent to create a slot is stored before it is created; a
//! stored position is used only with the cluster, history, database and slot that it was made with, and only if the
//! slot still holds everything behind it.

use std::sync::Arc;
use std::time::Duration;

use forebay_api::{Blame, Chunk, Fault, SnapshotMode, SnapshotPlan, SourceContext, StreamId, step};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::{info, warn};

use super::catalog::{self, Facts, Slot};
use super::config::{Origin, Plan};
use super::position::Resume;
use super::{fault, now_micros, publication};
use crate::connect::{Server, Sql};
use crate::lsn::Lsn;
use crate::wire::{Canceller, Connection, NewSlot, ReadHalf, Start, Switch, System, WriteHalf};

/// The oldest and the newest server that the tests ran against.
const TESTED: std::ops::RangeInclusive<i32> = 13..=18;

/// Creating a slot waits for the transactions that run.
const SLOT_LIMIT: Duration = Duration::from_secs(600);

/// A slot that somebody else reads is waited for so long, for one that is just leaving.
const BUSY_LIMIT: Duration = Duration::from_secs(15);

/// The server cuts an application's name off behind so many bytes.
const MAX_APPLICATION_NAME: usize = 63;

/// How often a slot that is read by somebody is looked at.
const BUSY_LOOK: Duration = Duration::from_millis(250);

/// Everything that a stream needs.
pub(super) struct Prepared {
    pub sql: Arc<Sql>,
    pub server: Server,
    pub reader: ReadHalf,
    pub writer: WriteHalf,
    pub stream: Arc<StreamId>,
    /// Where the stream begins; later positions are made from it.
    pub resume: Resume,
    pub from: Lsn,
    pub timelines: Timelines,
    pub facts: Facts,
    /// What a dry run has to take away again.
    pub leftovers: Vec<String>,
    /// Where changes come from.
    pub publications: Vec<String>,
    /// Whether the slot was created in this run.
    pub fresh: bool,
    /// Whether a position is stored that was made before there were copies.
    pub before_copies: bool,
}

/// Which timeline owns a place in the WAL.
#[derive(Clone, Debug)]
pub(super) struct Timelines {
    current: u32,
    switches: Vec<Switch>,
}

impl Timelines {
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn for_tests(current: u32, switches: Vec<Switch>) -> Timelines {
        Timelines { current, switches }
    }

    /// What lies before the end of a timeline belongs to it; the oldest that fits.
    pub(super) fn owner(&self, lsn: Lsn) -> u32 {
        self.switches.iter().find(|switch| lsn < switch.at).map_or(self.current, |switch| switch.timeline)
    }

    /// Where a timeline ended; `None`: it is the current one, or not in this server's history.
    fn end_of(&self, timeline: u32) -> Option<Lsn> {
        self.switches.iter().find(|switch| switch.timeline == timeline).map(|switch| switch.at)
    }
}

impl Prepared {
    /// What is to be copied of this stream. The identity changes whenever changes before it were not read.
    pub(super) fn copy_plan(&self, plan: &Plan) -> SnapshotPlan {
        let Resume { system, database, slot, born, .. } = &self.resume;
        let born = born.map_or("before".to_owned(), |born| born.to_string());
        SnapshotPlan {
            mode: plan.config.snapshot,
            parallel: plan.chunks_at_once(),
            identity: format!("{system}/{database}/{slot}/{born}"),
            first_start: !self.before_copies,
            anew: false,
        }
    }
}

/// Removes slot and publications when there is nothing to do with them any more.
pub(super) async fn take_away(sql: &Sql, plan: &Plan) -> Result<(), Fault> {
    const DROP: &str = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active";
    let doing = || format!("dropping slot `{}`", plan.slot);
    let deadline = Instant::now() + BUSY_LIMIT;
    while catalog::slot(sql, &plan.slot).await.map_err(|error| fault::sql(doing(), error))?.is_some() {
        sql.query(DROP, &[&plan.slot]).await.map_err(|error| fault::sql(doing(), error))?;
        if Instant::now() > deadline {
            return Err(Fault::retryable(doing(), "it is still in use"));
        }
        tokio::time::sleep(BUSY_LOOK).await;
    }
    if plan.config.publication_mode != super::config::PublicationMode::Existing {
        let names = [plan.publication.clone(), plan.insert_publication()];
        let dropped = publication::drop_ours(sql, &names).await;
        dropped.map_err(|error| fault::sql("dropping the publications", error))?;
    }
    Ok(())
}

/// Connects and prepares. The position of an intent goes through `context`, so that it is stored like any other.
pub(super) async fn prepare(plan: &Plan, context: &SourceContext) -> Result<Prepared, Fault> {
    let before = match &context.resume {
        Some(position) => Some(read_position(position)?),
        None => None,
    };
    let owner = before.as_ref().map_or_else(new_owner, |resume| resume.owner.clone());
    let server = server(plan, &owner)?;
    let doing = || format!("connecting to the database of source `{}`", plan.source);
    let sql = Arc::new(server.sql().await.map_err(|error| fault::connect(doing(), error))?);
    let facts = catalog::facts(&sql).await.map_err(|error| fault::sql("asking what the server is", error))?;
    judge_facts(plan, &facts)?;
    let connection = server.replication().await.map_err(|error| fault::connect(doing(), error))?;
    let (connection, identified) = commanding(connection, identify).await;
    let (system, history) = identified?;
    let timelines = Timelines { current: system.timeline, switches: history };

    let plan_of_run = if plan.dry_run { dry(plan) } else { plan.clone() };
    let publications = publication::ensure(&sql, &plan_of_run).await?;
    let leftovers =
        if plan_of_run.publication == plan.publication { Vec::new() } else { publications.clone() };
    let stream = Arc::new(StreamId {
        source: plan.source.as_str().into(),
        epoch: epoch(system.identifier, &facts, &publications, plan),
    });
    let names = (plan.url.database.as_str(), plan_of_run.slot.as_str(), owner.as_str());
    let mut base = Resume::new(system.identifier, system.timeline, names, None);
    let before_copies = before.as_ref().is_some_and(|before| before.lsn.is_some() && before.born.is_none());
    let (connection, from, fresh) = if plan.dry_run {
        let created = create_slot(connection, &plan_of_run, true).await;
        if created.is_err() {
            clean_up(&sql, &leftovers).await;
        }
        let (connection, lsn) = created?;
        base.born = Some(lsn);
        (connection, lsn, true)
    } else {
        let ready = Ready {
            plan,
            context,
            sql: &sql,
            system: &system,
            timelines: &timelines,
            stream: &stream,
            standby: facts.standby,
        };
        ready.slot(before, &mut base, connection).await?
    };
    let (slot, published) = (plan_of_run.slot.clone(), publications.clone());
    let (messages, origin_none) = (facts.major() >= 14, plan.config.origin == Origin::None);
    let starting = tokio::task::spawn_blocking(move || {
        let names: Vec<&str> = publications.iter().map(String::as_str).collect();
        connection.start(Start { slot: &slot, from, publications: &names, messages, origin_none })
    });
    let (reader, writer) = unwound(starting.await).map_err(|error| {
        fault::wire(format!("starting replication from slot `{}`", plan_of_run.slot), error)
    })?;
    step!("slot-started");
    let resume = base.at(system.timeline, from);
    Ok(Prepared {
        sql,
        server,
        reader,
        writer,
        stream,
        resume,
        from,
        timelines,
        facts,
        leftovers,
        publications: published,
        fresh,
        before_copies,
    })
}

/// A server whose sessions carry a name that tells ours from others'.
pub(super) fn server(plan: &Plan, owner: &str) -> Result<Server, Fault> {
    let mut url = plan.url.clone();
    url.application_name = application_name(plan, owner);
    // What our sessions commit (publications, heartbeats, watermarks) is needed by no standby, and whoever waits for one
    // holds up the stream.
    let options = url.options.unwrap_or_default();
    url.options = Some(format!("{options} -c synchronous_commit=local"));
    Server::new(url).map_err(fault::tls)
}

/// What our sessions call themselves: the owner first, because the server keeps 63 bytes of it.
fn application_name(plan: &Plan, owner: &str) -> String {
    let mut name = format!("{owner} {} {}", plan.url.application_name, plan.source);
    let most = (0..=MAX_APPLICATION_NAME.min(name.len())).rev().find(|&at| name.is_char_boundary(at));
    name.truncate(most.unwrap_or(0));
    name
}

fn read_position(position: &forebay_api::Position) -> Result<Resume, Fault> {
    Resume::read(position).map_err(|error| {
        Fault::fatal("reading the stored position", Blame::Outside, error)
            .with_remedy("run the Forebay that stored it, or `forebay checkpoint reset` and begin at the slot's own position")
    })
}

/// Eight hexadecimal digits that nobody else has.
fn new_owner() -> String {
    let seed = format!(
        "{:?} {} {:?}",
        std::time::SystemTime::now(),
        std::process::id(),
        std::thread::current().id()
    );
    Sha256::digest(seed.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// A plan whose slot and publication are only for this run. A publication that somebody else keeps is used as it is.
fn dry(plan: &Plan) -> Plan {
    let mut dry = plan.clone();
    let suffix = format!("forebay_dry_run_{}", std::process::id());
    dry.slot.clone_from(&suffix);
    if plan.config.publication_mode != super::config::PublicationMode::Existing {
        dry.publication = suffix;
    }
    dry
}

fn judge_facts(plan: &Plan, facts: &Facts) -> Result<(), Fault> {
    if facts.major() < *TESTED.start() {
        let error = format!(
            "the server is PostgreSQL {}; the oldest supported one is {}",
            facts.major(),
            TESTED.start()
        );
        return Err(
            Fault::fatal("looking at the server", Blame::Outside, error).with_remedy("upgrade the server")
        );
    }
    if facts.major() > *TESTED.end() {
        warn!(
            source = %plan.source,
            version = facts.major(),
            newest_tested = TESTED.end(),
            "the server is newer than any that was tested"
        );
    }
    if facts.wal_level != "logical" {
        let error = format!("`wal_level` is `{}`, not `logical`", facts.wal_level);
        return Err(Fault::fatal("looking at the server", Blame::Outside, error)
            .with_remedy("ALTER SYSTEM SET wal_level = 'logical'; and restart the server"));
    }
    if facts.standby && plan.config.snapshot != SnapshotMode::Never {
        let error = "a copy needs watermarks in the log, which cannot be written on a standby";
        return Err(Fault::fatal("looking at the server", Blame::Configuration, error)
            .with_remedy("write `snapshot: never`, or connect to the primary"));
    }
    if !facts.may_replicate {
        let error = format!("role `{}` may not replicate", facts.role);
        return Err(Fault::fatal("looking at the server", Blame::Outside, error)
            .with_remedy(format!("ALTER ROLE \"{}\" REPLICATION;", facts.role)));
    }
    Ok(())
}

fn identify(connection: &mut Connection) -> Result<(System, Vec<Switch>), Fault> {
    let system = connection.identify().map_err(|error| fault::wire("asking which cluster this is", error))?;
    let history = connection
        .timeline_history(system.timeline)
        .map_err(|error| fault::wire("reading the history of the timeline", error))?;
    Ok((system, history))
}

/// Runs commands of a replication connection where they may block. When nobody waits any more, because the source was
/// told to stop, the server is asked to end the command, so that the thread ends too.
async fn commanding<T: Send + 'static>(
    mut connection: Connection,
    commands: impl FnOnce(&mut Connection) -> T + Send + 'static,
) -> (Connection, T) {
    let mut unfinished = CancelOnDrop(Some(connection.canceller()));
    let running = tokio::task::spawn_blocking(move || {
        let result = commands(&mut connection);
        (connection, result)
    });
    let finished = unwound(running.await);
    unfinished.0 = None;
    finished
}

/// Ends a command whose result nobody waits for any more.
pub(super) struct CancelOnDrop(pub(super) Option<Canceller>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(canceller) = self.0.take() {
            // The task ends by itself within `connect_timeout`; the runtime waits for it at its own end.
            tokio::task::spawn_blocking(move || canceller.cancel());
        }
    }
}

/// What a blocking task came to; its panic is ours.
fn unwound<T>(ended: Result<T, tokio::task::JoinError>) -> T {
    ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// A fingerprint of what decides which messages come: nothing of the slot or of our own state.
fn epoch(system: u64, facts: &Facts, publications: &[String], plan: &Plan) -> u64 {
    let (messages, origin, incarnation) = (facts.major() >= 14, plan.config.origin, plan.config.incarnation);
    let text = format!("{system}/{}/{publications:?}/{messages}/{origin:?}/{incarnation}", facts.database);
    let digest = Sha256::digest(text.as_bytes());
    u64::from_be_bytes(*digest.first_chunk().expect("SHA-256 has 32 bytes"))
}

async fn create_slot(
    connection: Connection,
    plan: &Plan,
    temporary: bool,
) -> Result<(Connection, Lsn), Fault> {
    // A temporary slot is gone with its connection, so there is nothing to keep on standbys.
    let (name, failover) = (plan.slot.clone(), plan.config.failover && !temporary);
    let begun = Instant::now();
    let (connection, created) = commanding(connection, move |connection| {
        connection.create_slot(NewSlot { name: &name, temporary, failover }, SLOT_LIMIT)
    })
    .await;
    let lsn = created.map_err(|error| {
        fault::wire(
            format!("creating slot `{}`, which waits for the transactions that run", plan.slot),
            error,
        )
    })?;
    step!("slot-created");
    let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    info!(source = %plan.source, slot = %plan.slot, lsn = %lsn, took_ms = took, "slot created");
    Ok((connection, lsn))
}

/// What the decision about a slot looks at.
struct Ready<'a> {
    plan: &'a Plan,
    context: &'a SourceContext,
    sql: &'a Arc<Sql>,
    system: &'a System,
    timelines: &'a Timelines,
    stream: &'a Arc<StreamId>,
    /// Whether the server follows another.
    standby: bool,
}

impl Ready<'_> {
    /// Finds or creates the slot; gives where to begin, and whether it was created.
    async fn slot(
        &self,
        before: Option<Resume>,
        base: &mut Resume,
        connection: Connection,
    ) -> Result<(Connection, Lsn, bool), Fault> {
        let found = self.idle_slot(&base.owner).await?;
        if let Some(before) = before.as_ref() {
            self.fence(before)?;
        }
        let stored = before.as_ref().and_then(|resume| resume.lsn);
        let anew = self.plan.config.snapshot == SnapshotMode::WhenNeeded;
        match (found, stored) {
            (None, Some(stored)) if !anew => Err(self.slot_is_gone(stored)),
            (None, _) => self.create(base, connection).await,
            (Some(slot), _) if anew && slot.wal_status.as_deref() == Some("lost") => {
                warn!(source = %self.plan.source, slot = %self.plan.slot, "the slot has lost changes; it is made anew, and everything is copied");
                let dropped = self.sql.query("SELECT pg_drop_replication_slot($1)", &[&self.plan.slot]).await;
                dropped.map_err(|error| fault::sql("dropping the slot that has lost changes", error))?;
                self.create(base, connection).await
            }
            (Some(slot), None) => {
                let confirmed = self.usable(&slot)?;
                if before.is_none() {
                    info!(source = %self.plan.source, slot = %self.plan.slot, lsn = %confirmed, "nothing is stored yet and the slot exists: taking it over where it stands");
                } else {
                    info!(source = %self.plan.source, slot = %self.plan.slot, lsn = %confirmed, "the slot was created and its position not stored: going on with it");
                }
                base.born = Some(confirmed);
                Ok((connection, confirmed, false))
            }
            (Some(slot), Some(stored)) => {
                let confirmed = self.usable(&slot)?;
                if confirmed <= stored {
                    base.born = before.as_ref().and_then(|before| before.born);
                    base.moved = before.map(|before| before.moved).unwrap_or_default();
                    return Ok((connection, stored, false));
                }
                if !anew {
                    return Err(self.gap(stored, confirmed));
                }
                warn!(source = %self.plan.source, slot = %self.plan.slot, stored = %stored, confirmed = %confirmed, "changes were lost; everything is copied anew");
                base.born = Some(confirmed);
                Ok((connection, confirmed, false))
            }
        }
    }

    /// The slot, when nobody reads it. A lost connection of our own is ended; somebody else's is waited for.
    async fn idle_slot(&self, owner: &str) -> Result<Option<Slot>, Fault> {
        let deadline = Instant::now() + BUSY_LIMIT;
        let name = &self.plan.slot;
        let ours = application_name(self.plan, owner);
        let mut told = false;
        loop {
            let slot = catalog::slot(self.sql, name)
                .await
                .map_err(|e| fault::sql(format!("looking at slot `{name}`"), e))?;
            let Some(reader) = slot.as_ref().and_then(|slot| slot.active.clone()) else { return Ok(slot) };
            if reader.application == ours {
                // The lock on `data_dir` is ours, so that connection has lost its daemon.
                info!(
                    source = %self.plan.source,
                    slot = %name,
                    pid = reader.pid,
                    "ending a connection that this daemon has lost"
                );
                let end = self.sql.query("SELECT pg_terminate_backend($1)", &[&reader.pid]).await;
                end.map_err(|error| fault::sql("ending a lost connection of ours", error))?;
            } else if Instant::now() >= deadline {
                return Err(self.slot_is_busy(&reader));
            } else if !told {
                told = true;
                info!(
                    source = %self.plan.source,
                    slot = %name,
                    pid = reader.pid,
                    application = %reader.application,
                    "the slot is in use; waiting for it"
                );
            }
            self.context.report.turned();
            tokio::time::sleep(BUSY_LOOK).await;
        }
    }

    fn slot_is_busy(&self, reader: &catalog::Reader) -> Fault {
        let from = if reader.address.is_empty() { "this machine" } else { &reader.address };
        let error = format!(
            "slot `{}` is in use by process {} (`{}`, from {from})",
            self.plan.slot, reader.pid, reader.application
        );
        Fault::fatal("taking the slot", Blame::Outside, error).with_remedy(format!(
            "stop what reads it, or `SELECT pg_terminate_backend({});`, or name another `slot`",
            reader.pid
        ))
    }

    /// Stores the intent, creates the slot, stores where it begins.
    async fn create(
        &self,
        base: &mut Resume,
        connection: Connection,
    ) -> Result<(Connection, Lsn, bool), Fault> {
        self.store(base.clone()).await?;
        step!("slot-intended");
        let (connection, lsn) = create_slot(connection, self.plan, false).await?;
        base.born = Some(lsn);
        self.store(base.at(self.system.timeline, lsn)).await?;
        step!("slot-position-stored");
        Ok((connection, lsn, true))
    }

    /// Sends a position without events and waits until it is stored.
    async fn store(&self, resume: Resume) -> Result<(), Fault> {
        let position = resume.position();
        let mut committed = self.context.committed.clone();
        let sent = self
            .context
            .outlet
            .send(Chunk::empty(self.stream.clone(), now_micros()), Some(position.clone()))
            .await;
        let stopped =
            |_| Fault::retryable("storing the position of the slot", "the pipeline was stopped meanwhile");
        sent.map_err(stopped)?;
        while committed.latest().as_ref() != Some(&position) {
            committed.changed().await.map_err(stopped)?;
        }
        Ok(())
    }

    /// Whether a stored position belongs to what we are connected to.
    fn fence(&self, before: &Resume) -> Result<(), Fault> {
        let refuse = |error: String, remedy: &str| {
            Err(Fault::fatal("comparing the stored position with the server", Blame::Outside, error)
                .with_remedy(remedy))
        };
        let reset = "correct `url`; or, if this is meant, `forebay checkpoint reset` and begin anew with a fresh copy at the destinations";
        if before.system != self.system.identifier {
            return refuse(
                format!(
                    "the position is of cluster {}, and this is cluster {}",
                    before.system, self.system.identifier
                ),
                reset,
            );
        }
        if before.database != self.plan.url.database {
            return refuse(
                format!(
                    "the position is of database `{}`, and this is `{}`",
                    before.database, self.plan.url.database
                ),
                reset,
            );
        }
        if before.slot != self.plan.slot {
            return refuse(
                format!(
                    "the position is of slot `{}`, and the configuration names `{}`",
                    before.slot, self.plan.slot
                ),
                "name the former `slot` again, or `forebay checkpoint reset` to begin where the new slot stands",
            );
        }
        let Some(stored) = before.lsn else { return Ok(()) };
        if before.timeline == self.system.timeline && stored > self.system.flushed {
            let error =
                format!("the position is {stored}, and the server's log ends at {}", self.system.flushed);
            if self.standby {
                // It has not received so far yet; it will.
                return Err(Fault::retryable("comparing the stored position with the server", error));
            }
            return refuse(
                format!("{error}: the server was set back to an earlier state"),
                "raise `incarnation`, `forebay checkpoint reset`, and begin anew with a fresh copy at the destinations: they \
                 hold changes that the database has lost",
            );
        }
        if before.timeline > self.system.timeline {
            return refuse(
                format!(
                    "the position is on timeline {}, and the server on {}: an older history",
                    before.timeline, self.system.timeline
                ),
                "connect to the server that was promoted; this one was left behind",
            );
        }
        let switched = self.timelines.end_of(before.timeline);
        let known = before.timeline == self.system.timeline || switched.is_some();
        if !known || switched.is_some_and(|end| end < stored) {
            return refuse(
                format!(
                    "the position {stored} on timeline {} is not in the history of this server (timeline {}): a failover lost the end of the log",
                    before.timeline, self.system.timeline
                ),
                "destinations hold changes that the database has lost; `forebay checkpoint reset` and begin anew with a fresh copy there",
            );
        }
        Ok(())
    }

    /// Whether a slot is one that we can read; gives what was confirmed.
    fn usable(&self, slot: &Slot) -> Result<Lsn, Fault> {
        let name = &self.plan.slot;
        let refuse = |error: String, remedy: String| {
            Err(Fault::fatal(format!("looking at slot `{name}`"), Blame::Outside, error).with_remedy(remedy))
        };
        if slot.plugin.as_deref() != Some("pgoutput") {
            let plugin = slot.plugin.as_deref().unwrap_or("none: it is a physical slot");
            return refuse(
                format!("its plugin is not `pgoutput` ({plugin})"),
                "name another `slot`".to_owned(),
            );
        }
        if slot.database.as_deref() != Some(&self.plan.url.database) {
            let other = slot.database.as_deref().unwrap_or_default();
            return refuse(format!("it is bound to database `{other}`"), "name another `slot`".to_owned());
        }
        match (slot.wal_status.as_deref(), slot.confirmed) {
            (Some("lost"), _) | (_, None) => refuse(
                "it has lost WAL that it would have to send: those changes are gone".to_owned(),
                format!(
                    "SELECT pg_drop_replication_slot('{name}'); then `forebay checkpoint reset`, and copy the tables anew; raise `max_slot_wal_keep_size` so that it does not happen again"
                ),
            ),
            (_, Some(confirmed)) => Ok(confirmed),
        }
    }

    fn slot_is_gone(&self, stored: Lsn) -> Fault {
        let error = format!(
            "slot `{}` does not exist any more, and changes since {stored} may be lost with it",
            self.plan.slot
        );
        Fault::fatal("looking for the slot", Blame::Outside, error).with_remedy(
            "`forebay checkpoint reset` begins anew with a new slot; what changed in between must be copied to the destinations by hand",
        )
    }

    fn gap(&self, stored: Lsn, confirmed: Lsn) -> Fault {
        let error = format!(
            "the slot was advanced to {confirmed} by something else, and our stored position is {stored}: changes in between cannot be had any more"
        );
        Fault::fatal(format!("looking at slot `{}`", self.plan.slot), Blame::Outside, error).with_remedy(
            format!(
                "copy what changed in between, then accept the gap: `forebay checkpoint set {} {confirmed}`",
                self.plan.source
            ),
        )
    }
}

/// Removes what a dry run left on the server, when it is dropped.
pub(super) async fn clean_up(sql: &Sql, leftovers: &[String]) {
    if let Err(error) = publication::drop_ours(sql, leftovers).await {
        warn!(error = %error, publications = leftovers.join(", "), "a dry run could not drop its publication; drop it by hand");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_keeps_the_timeline_that_it_was_made_on() {
        let timelines = Timelines {
            current: 3,
            switches: vec![Switch { timeline: 1, at: Lsn(100) }, Switch { timeline: 2, at: Lsn(200) }],
        };
        let owners: Vec<u32> = [0, 99, 100, 199, 200, 999].map(|lsn| timelines.owner(Lsn(lsn))).into();
        assert_eq!(owners, [1, 1, 2, 2, 3, 3]);
    }
}
