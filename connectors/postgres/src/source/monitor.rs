//! What runs beside the reader: status updates, signs of life, and an eye on the slot and the server.
//!
//! Invariants: what is confirmed upstream is what [`Committed`] has shown, never more and never less than before; no
//! back-pressure of the pipeline delays a status update; a server that shuts down is let go.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forebay_api::{Committed, Fault, Measure, Report, step};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use super::catalog::{self, Facts, Slot};
use super::config::Plan;
use super::position::Resume;
use super::reader::Shared;
use super::transcribe::HEARTBEAT;
use super::{fault, now_micros};
use crate::connect::{Server, Sql};
use crate::lsn::Lsn;
use crate::wire::{Status, WriteHalf};

/// Status updates are this far apart at most, whatever the server's own limit.
const STATUS_AT_MOST: Duration = Duration::from_secs(10);

/// And this far apart at least: replying to each request makes the server ask again at once.
const STATUS_AT_LEAST: Duration = Duration::from_millis(100);

/// How often the SQL session is looked at: its end is the first sign of a server that shuts down.
const SESSION_LOOK: Duration = Duration::from_millis(250);

/// How often the slot is looked at.
const SLOT_LOOK: Duration = Duration::from_secs(10);

/// On a standby it is looked at more often, to see a promotion soon.
const STANDBY_LOOK: Duration = Duration::from_secs(1);

/// How long a statement beside the stream may take.
const STATEMENT_LIMIT: Duration = Duration::from_secs(5);

/// A place in the log that was not reached within this time after the server had written it means that we are behind,
/// whether or not the server sends anything: heartbeats and keepalives come more often.
const BEHIND: Duration = Duration::from_secs(25);

/// A slot that would be lost sooner than this is worth a warning.
const SOON: Duration = Duration::from_secs(3600);

/// Tells the server how far we are, until the task is dropped or the connection fails.
pub(super) async fn feedback(
    writer: WriteHalf,
    mut committed: Committed,
    shared: Arc<Shared>,
    begun: Lsn,
    timeout_ms: i64,
) -> Fault {
    let mut confirmed = begun;
    let quarter = Duration::from_millis(u64::try_from(timeout_ms / 4).unwrap_or(0));
    let every = if quarter.is_zero() { STATUS_AT_MOST } else { quarter.min(STATUS_AT_MOST) };
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ended = false;
    loop {
        let asks_for_answer = tokio::select! {
            _ = tick.tick() => true,
            () = shared.asked.notified() => false,
            changed = committed.changed(), if !ended => { ended = changed.is_err(); false }
        };
        confirmed = confirmed.max(latest(&committed).unwrap_or(confirmed));
        if let Err(error) = send_status(&writer, &shared, confirmed, asks_for_answer) {
            return fault::wire("sending a status update", error);
        }
        sleep(STATUS_AT_LEAST).await;
    }
}

/// Tells the server once what is stored.
pub(super) fn send_status(
    writer: &WriteHalf,
    shared: &Shared,
    confirmed: Lsn,
    reply: bool,
) -> Result<(), crate::wire::WireError> {
    let received = Lsn(shared.received.load(Ordering::Relaxed)).max(confirmed);
    writer.status(Status { written: received, flushed: confirmed, reply })?;
    step!("confirmed");
    Ok(())
}

/// The stored position as an LSN; `None` before anything was stored.
pub(super) fn latest(committed: &Committed) -> Option<Lsn> {
    Resume::read(&committed.latest()?).ok()?.lsn
}

/// Watches server and slot, and writes signs of life.
pub(super) struct Monitor {
    pub plan: Arc<Plan>,
    pub server: Server,
    pub sql: Arc<Sql>,
    pub facts: Facts,
    pub slot: String,
    pub shared: Arc<Shared>,
    pub report: Report,
}

impl Monitor {
    /// Runs until the task is dropped; returns only when the stream must end.
    pub(super) async fn run(mut self) -> Fault {
        let mut look = interval(SESSION_LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut beat_at, mut slot_at) = (Instant::now(), Instant::now());
        let mut unreached: Option<(Lsn, Instant)> = None;
        let mut before: Option<(Instant, Slot)> = None;
        loop {
            look.tick().await;
            unreached = unreached.filter(|(end, _)| end.0 > self.shared.received.load(Ordering::Relaxed));
            self.report_lag(unreached.map(|(_, since)| since.elapsed()));
            if self.sql.is_closed() {
                match self.server.sql().await {
                    Ok(sql) => {
                        info!(
                            source = %self.plan.source,
                            "the session beside the stream was ended; a new one is open"
                        );
                        self.sql = Arc::new(sql);
                    }
                    Err(error) if fault::is_going_down(&error) => return fault::going_down(),
                    Err(error) => return fault::connect("opening a session beside the stream", error),
                }
            }
            let now = Instant::now();
            let heartbeat = self.plan.config.heartbeat.as_duration();
            if now >= beat_at && !heartbeat.is_zero() && !self.facts.standby && !self.plan.dry_run {
                beat_at = now + heartbeat;
                match self.within(self.beat()).await {
                    Some(Ok(())) => {}
                    Some(Err(error)) => self.say_failed("writing a heartbeat", &error),
                    // It waits for a synchronous standby, for instance.
                    None => warn!(source = %self.plan.source, "a heartbeat takes long; trying again later"),
                }
            }
            if now >= slot_at {
                slot_at = now + if self.facts.standby { STANDBY_LOOK } else { SLOT_LOOK };
                match self.within(catalog::slot(&self.sql, &self.slot)).await {
                    // Positions and marks carry the timeline that the stream began on.
                    Some(Ok(Some(slot))) if self.facts.standby && !slot.standby => {
                        let error = "the standby was promoted, so its log goes on in another timeline";
                        return Fault::retryable("reading the stream", error);
                    }
                    Some(Ok(Some(slot))) => {
                        unreached = unreached.or(Some((slot.server_end, now)));
                        self.report_slot(&slot, before.as_ref(), now);
                        before = Some((now, slot));
                    }
                    Some(Ok(None)) => {}
                    Some(Err(error)) => self.say_failed("looking at the slot", &error),
                    None => {
                        warn!(source = %self.plan.source, "looking at the slot takes long; trying again later")
                    }
                }
            }
        }
    }

    /// No statement beside the stream may hold up the loop; one that takes too long is left to end by itself.
    async fn within<T>(&self, statement: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(STATEMENT_LIMIT, statement).await.ok()
    }

    /// A heartbeat moves the slot on while only other databases of the cluster change. Before PostgreSQL 17 it is
    /// transactional: one that is not may sit unflushed on an idle server.
    async fn beat(&self) -> Result<(), tokio_postgres::Error> {
        let statement = if self.facts.major() >= 17 {
            "SELECT pg_logical_emit_message(false, $1, '', true)"
        } else {
            "SELECT pg_logical_emit_message(true, $1, '')"
        };
        self.sql.query(statement, &[&HEARTBEAT]).await.map(drop)
    }

    /// A session that ends is opened anew by the loop, so this is worth knowing only.
    fn say_failed(&self, doing: &str, error: &tokio_postgres::Error) {
        if self.sql.is_closed() {
            debug!(source = %self.plan.source, doing, error = %error, "the session beside the stream ended");
        } else {
            warn!(source = %self.plan.source, doing, error = %error, "a statement beside the stream failed");
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
    fn report_lag(&self, unreached: Option<Duration>) {
        let behind =
            !self.shared.caught_up.load(Ordering::Relaxed) || self.shared.sending.load(Ordering::Relaxed);
        let newest = self.shared.newest.load(Ordering::Relaxed);
        let lag = if behind && newest > 0 { (now_micros() - newest).max(0) as f64 / 1e6 } else { 0.0 };
        let unreached = unreached.filter(|since| *since > BEHIND).map_or(0.0, |since| since.as_secs_f64());
        self.report.set(Measure::SourceLagSeconds, Some(lag.max(unreached)));
        self.report.detail("received_lsn", Lsn(self.shared.received.load(Ordering::Relaxed)).to_string());
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
    fn report_slot(&self, slot: &Slot, before: Option<&(Instant, Slot)>, now: Instant) {
        self.report.set(Measure::PostgresSlotRetainedBytes, slot.retained_bytes.map(|bytes| bytes as f64));
        self.report.set(Measure::PostgresSlotSafeWalBytes, slot.safe_wal_bytes.map(|bytes| bytes as f64));
        self.report.detail("server_lsn", slot.server_end.to_string());
        let status = slot.wal_status.clone().unwrap_or_default();
        let was = before.and_then(|(_, slot)| slot.wal_status.clone()).unwrap_or_default();
        self.report.detail("slot_wal_status", status.clone());
        if status != was && matches!(&*status, "unreserved" | "lost") {
            warn!(
                source = %self.plan.source,
                slot = %self.slot,
                wal_status = %status,
                "the server is about to drop WAL that the slot needs; let the destinations catch up, or raise `max_slot_wal_keep_size`"
            );
        }
        let (Some((then, earlier)), Some(safe)) = (before, slot.safe_wal_bytes) else { return };
        let written = slot.server_end.0.saturating_sub(earlier.server_end.0) as f64;
        let rate = written / (now - *then).as_secs_f64().max(0.001);
        if rate < 1.0 {
            return;
        }
        let left = Duration::from_secs_f64((safe.max(0) as f64 / rate).min(1e9));
        self.report.detail("slot_lost_in", format!("{} s at the present rate", left.as_secs()));
        let was_low =
            earlier.safe_wal_bytes.is_some_and(|bytes| (bytes.max(0) as f64) / rate < SOON.as_secs_f64());
        if left < SOON && !was_low {
            warn!(
                source = %self.plan.source,
                slot = %self.slot,
                minutes = left.as_secs() / 60,
                "at the present rate the slot will be lost; let the destinations catch up, or raise `max_slot_wal_keep_size`"
            );
        }
    }
}
