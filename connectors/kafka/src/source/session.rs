//! A [`Session`] is one consumer and what it has read. It outlives the runs of its source, so that a fault elsewhere does
//! not make the group hand partitions around.
//!
//! ```text
//!  joined ──Assigned──▶ take over (offsets) ──▶ read and send ──Revoked──▶ drain, tell the group, give back
//!                                                   │ too late, or Lost ──▶ abort the generation, then give back
//! ```
//! Invariants: one generation for each assignment; partitions are given back only when all that was sent of them is
//! settled and the group knows it, or when the generation that sent it is gone: the next [`Session::run`] is the proof.
//! The group is told only what the core has stored, only of partitions that are ours.

mod connect;
mod plan;
mod progress;
mod resume;

pub(crate) use self::plan::{Begin, Plan, Sharing};
pub(crate) use self::resume::ASK_WAIT;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_api::{Blame, Chunk, Committed, Fault, Measure, Outlet, Report, StreamId};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as LibraryError;
use rdkafka::message::OwnedMessage;
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::cursors::{Cursors, Resumed};
use super::entry::{Entry, Intake, now_micros};
use super::membership::{Membership, Rebalance};
use super::teller::Teller;
use super::wrong;

/// How long one look for messages waits, and so how often the loop turns while there are none.
const LOOK: Duration = Duration::from_millis(100);
/// How long a send may wait before the loop turns meanwhile.
const HOLD: Duration = Duration::from_millis(200);
/// What goes to the pipeline at once at most.
const MAX_ROWS: usize = 1024;
const MAX_BYTES: usize = 256 << 10;
/// A quiet source tells where it stands so often.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// While brokers are away they are looked for so often.
const PROBE: Duration = Duration::from_secs(1);
const PROBE_WAIT: Duration = Duration::from_millis(200);
/// How many messages may be read in passing while a send waits, before polling stops to return them.
const MAX_AHEAD: usize = 1024;

/// What one run works with.
pub(crate) struct Generation {
    /// `None` when everything was sent.
    pub(crate) outlet: Option<Outlet>,
    /// What the core has stored.
    pub(crate) committed: Committed,
    /// See [`forebay_api::SourceContext`].
    pub(crate) stop: CancellationToken,
    /// See [`forebay_api::SourceContext`].
    pub(crate) abort: CancellationToken,
    /// Health and figures.
    pub(crate) report: Report,
    /// Where the core says to resume.
    pub(crate) resume: Resumed,
    /// For waiting on the pipeline.
    pub(crate) runtime: Handle,
    /// Whether the source's run was dropped.
    pub(crate) gone: Arc<AtomicBool>,
    /// Whether the core has said that nothing more will be stored.
    pub(crate) closed: bool,
}

/// How a run ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All is settled and told, and the consumer can be closed.
    Done,
    /// Something may still be under way; the next run goes on from here.
    Open,
}

/// What became of a send.
enum Pushed {
    Sent,
    /// The pipeline takes nothing more.
    Closed,
    /// Something else comes first; the chunk was not sent.
    Interrupted,
}

/// See the module.
pub(crate) struct Session {
    plan: Arc<Plan>,
    consumer: Arc<BaseConsumer<Membership>>,
    /// `None` while the session is being dropped, or where nothing is told.
    teller: Option<Teller>,
    intake: Box<dyn Intake>,
    /// The cluster's name, part of what makes a stream.
    cluster: String,
    streams: BTreeMap<String, BTreeMap<i32, Arc<StreamId>>>,
    /// Partitions that were assigned and could not be taken over yet.
    waiting: Option<Vec<(String, i32)>>,
    /// The partitions that are ours, with the offsets at which they were taken over.
    owned: Cursors,
    /// Whether ours are to be given back as soon as the generation before is gone.
    revoked: bool,
    /// What was sent in this generation, as the next offset of each partition.
    sent: Cursors,
    /// What the core has stored in this generation.
    stored: Cursors,
    /// What the group knows.
    told: Cursors,
    /// Messages that came while a send waited.
    ahead: VecDeque<OwnedMessage>,
    /// Partitions whose end was seen.
    ended: BTreeSet<i32>,
    probed: Instant,
    beat: Instant,
}

impl Session {
    /// Reads until the run must end. Blocks; not for the runtime's own threads.
    pub(crate) fn run(&mut self, generation: &mut Generation) -> Result<End, Fault> {
        self.begin(generation)?;
        loop {
            generation.report.turned();
            if generation.is_gone() {
                return Ok(End::Open);
            }
            if generation.stop.is_cancelled() {
                return self.finish(generation);
            }
            while let Some(rebalance) = self.consumer.context().next_rebalance() {
                match rebalance {
                    Rebalance::Assigned(partitions) => self.take_over(partitions, generation)?,
                    Rebalance::Revoked => return Err(self.hand_over(generation)),
                    Rebalance::Lost => return Err(self.lose(generation)),
                    Rebalance::Failed(code) => return Err(wrong::judged("joining the group", code, None)),
                }
            }
            self.tell(generation)?;
            if generation.closed && !generation.stop.is_cancelled() {
                // The pipeline has ended for a reason of its own.
                return Ok(End::Open);
            }
            self.look_after(generation)?;
            match self.read(generation)? {
                Pushed::Sent => {}
                Pushed::Closed if generation.stop.is_cancelled() => {}
                Pushed::Closed => return Ok(End::Open),
                Pushed::Interrupted => {
                    // What was read and not sent comes again after a rebalance, or not at all in this run.
                    let other = generation.stop.is_cancelled() || generation.is_gone();
                    if !other && !self.consumer.context().has_rebalance() {
                        return Err(Fault::retryable("reading from Kafka", "a send was given up").at_once());
                    }
                }
            }
            if self.is_complete() {
                return self.finish(generation);
            }
        }
    }

    /// Goes on after the generation before, which is gone by now.
    fn begin(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        self.ahead.clear();
        self.intake.chunks();
        generation.report.detail("group", self.plan.group.clone());
        if self.consumer.context().context.trouble().error.is_none() {
            generation.report.set_connected(true);
        }
        if self.plan.sharing != Sharing::Group {
            let partitions = self.all_partitions()?;
            return self.take_over(partitions, generation);
        }
        if let Some(partitions) = self.waiting.take() {
            return self.take_over(partitions, generation);
        }
        if self.owned.is_empty() {
            generation.report.detail("partitions", "0");
            return Ok(());
        }
        // What the generation before had stored, when it drained, is known by now; more of it will never be.
        for (topic, partition, next) in generation.resume.cursors.iter() {
            let is_ours = self.sent.get(topic, partition).is_some_and(|sent| next <= sent);
            if is_ours && self.stored.get(topic, partition).is_none_or(|at| at < next) {
                self.stored.set(topic, partition, next);
            }
        }
        self.tell_the_rest();
        (self.sent, self.stored) = (Cursors::default(), Cursors::default());
        if std::mem::take(&mut self.revoked) {
            generation.report.detail("partitions", "0");
            self.give_back();
            return Ok(());
        }
        if self.consumer.context().has_rebalance() {
            return Ok(());
        }
        let owned = self.owned.iter().map(|(topic, partition, _)| (topic.to_owned(), partition)).collect();
        self.take_over(owned, generation)
    }

    /// Takes what has come, or waits a moment for something, and sends it.
    fn read(&mut self, generation: &mut Generation) -> Result<Pushed, Fault> {
        let mut wait = LOOK;
        let mut newest = None;
        loop {
            let (rows, bytes) = self.intake.gathered();
            if rows >= MAX_ROWS || bytes >= MAX_BYTES {
                break;
            }
            if let Some(message) = self.ahead.pop_front() {
                self.take(&Entry::of(&message))?;
                continue;
            }
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let entry = Entry::of(&message);
                    newest = entry.timestamp_ms.or(newest);
                    let Some(stream) = stream_of(&self.streams, &entry) else { continue };
                    if self.plan.sharing.ends_before(&entry) {
                        self.ended.insert(entry.partition);
                        continue;
                    }
                    self.intake.take(stream, &entry)?;
                }
                Some(Err(error)) => {
                    let code = self.look_at(&error);
                    self.judge(code)?;
                }
            }
            wait = Duration::ZERO;
        }
        let lag = newest.map_or(0, |ms| (now_micros() - ms.saturating_mul(1000)).max(0));
        generation
            .report
            .set(Measure::SourceLagSeconds, Some(Duration::from_micros(lag.unsigned_abs()).as_secs_f64()));
        self.flush(generation)
    }

    fn take(&mut self, entry: &Entry<'_>) -> Result<(), Fault> {
        let Some(stream) = stream_of(&self.streams, entry) else { return Ok(()) };
        if self.plan.sharing.ends_before(entry) {
            self.ended.insert(entry.partition);
            return Ok(());
        }
        self.intake.take(stream, entry)
    }

    /// Sends what was gathered, each chunk with the position behind it; when there is nothing, now and then where we
    /// stand.
    fn flush(&mut self, generation: &mut Generation) -> Result<Pushed, Fault> {
        let chunks = self.intake.chunks();
        if chunks.is_empty() && self.beat.elapsed() >= HEARTBEAT {
            return self.send_heartbeat(generation);
        }
        for chunk in chunks {
            let Some((topic, partition)) = self.place_of(&chunk) else { continue };
            let Some(last) = chunk.rows.last() else { continue };
            let next = i64::try_from(last.mark.major.1).unwrap_or(i64::MAX).saturating_add(1);
            let mut after = self.sent.clone();
            after.set(&topic, partition, next);
            match self.push(chunk, &after, generation)? {
                Pushed::Sent => self.sent = after,
                other => return Ok(other),
            }
            self.beat = Instant::now();
        }
        Ok(Pushed::Sent)
    }

    /// Sends where we stand, which keeps its place behind everything sent before.
    fn send_heartbeat(&mut self, generation: &mut Generation) -> Result<Pushed, Fault> {
        self.beat = Instant::now();
        let Some(stream) = self.streams.values().flat_map(BTreeMap::values).next() else {
            return Ok(Pushed::Sent);
        };
        let (chunk, at) = (Chunk::empty(stream.clone(), now_micros()), self.sent.clone());
        self.push(chunk, &at, generation)
    }

    /// Sends one chunk. While it waits the loop turns: the group sees that we live, and rebalances are seen.
    fn push(&mut self, chunk: Chunk, after: &Cursors, generation: &mut Generation) -> Result<Pushed, Fault> {
        let Some(outlet) = generation.outlet.clone() else { return Ok(Pushed::Closed) };
        let mut send = pin!(outlet.send(chunk, Some(after.position())));
        let mut paused = false;
        let pushed = loop {
            let runtime = generation.runtime.clone();
            match runtime.block_on(async { timeout(HOLD, send.as_mut()).await }) {
                Ok(Ok(())) => break Pushed::Sent,
                Ok(Err(_closed)) => break Pushed::Closed,
                Err(_elapsed) => {}
            }
            generation.report.turned();
            if generation.is_gone() || generation.stop.is_cancelled() {
                break Pushed::Interrupted;
            }
            if !paused {
                paused = true;
                self.consumer.pause(&self.owned.list()).map_err(|error| wrong::of("pausing", &error))?;
            }
            self.turn(Duration::ZERO)?;
            self.tell(generation)?;
            self.look_after(generation)?;
            if self.consumer.context().has_rebalance() {
                break Pushed::Interrupted;
            }
        };
        if paused && matches!(pushed, Pushed::Sent) {
            self.consumer.resume(&self.owned.list()).map_err(|error| wrong::of("reading on", &error))?;
        }
        Ok(pushed)
    }

    /// Serves what librdkafka calls back; a message that comes in passing is kept.
    fn turn(&mut self, wait: Duration) -> Result<(), Fault> {
        if self.ahead.len() >= MAX_AHEAD {
            let error = format!("{MAX_AHEAD} messages came of partitions that are paused");
            return Err(Fault::fatal("waiting for the pipeline", Blame::Defect, error));
        }
        match self.consumer.poll(wait) {
            None => Ok(()),
            Some(Ok(message)) => {
                self.ahead.push_back(message.detach());
                Ok(())
            }
            Some(Err(error)) => {
                let code = self.look_at(&error);
                self.judge(code)
            }
        }
    }

    /// What an error of the consumer is, beside the end of a partition, which is none.
    fn look_at(&mut self, error: &LibraryError) -> Option<Code> {
        match error {
            LibraryError::PartitionEOF(partition) => {
                self.ended.insert(*partition);
                None
            }
            other => Some(crate::fault::code(other)),
        }
    }

    /// Trouble with brokers passes by itself; everything else ends the run.
    fn judge(&self, code: Option<Code>) -> Result<(), Fault> {
        match code {
            None => Ok(()),
            Some(Code::AutoOffsetReset) => Err(self.out_of_range()),
            Some(code) if wrong::passes(code) => Ok(()),
            Some(code) => Err(wrong::judged("reading from Kafka", code, None)),
        }
    }

    /// Whether brokers answer, as far as it is known; looks for them while there is trouble.
    fn look_after(&mut self, generation: &Generation) -> Result<(), Fault> {
        let context = &self.consumer.context().context;
        if let Some(end) = context.ended() {
            return Err(wrong::judged("reading from Kafka", end.code, end.said));
        }
        if context.trouble().error.is_none() {
            return Ok(());
        }
        generation.report.set_connected(false);
        if self.probed.elapsed() >= PROBE {
            self.probed = Instant::now();
            if self.consumer.fetch_metadata(self.plan.named_topics().next(), PROBE_WAIT).is_ok() {
                context.clear_trouble();
                generation.report.set_connected(true);
            }
        }
        Ok(())
    }

    /// Whether everything that was asked for was sent.
    fn is_complete(&self) -> bool {
        let Sharing::Alone(Some(until)) = &self.plan.sharing else { return false };
        self.ahead.is_empty()
            && until.iter().all(|(topic, partition, end)| {
                self.ended.contains(&partition) || self.sent.get(topic, partition).is_some_and(|at| at >= end)
            })
    }

    /// Which partition a chunk is of.
    fn place_of(&self, chunk: &Chunk) -> Option<(String, i32)> {
        let all = self.streams.iter().flat_map(|(topic, all)| all.iter().map(move |(at, s)| (topic, at, s)));
        let mut found = all.filter(|(_, _, stream)| Arc::ptr_eq(stream, &chunk.stream));
        found.next().map(|(topic, partition, _)| (topic.clone(), *partition))
    }
}

impl Generation {
    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

/// The stream of a message's partition; a partition that is not ours any more has none.
fn stream_of<'a>(
    streams: &'a BTreeMap<String, BTreeMap<i32, Arc<StreamId>>>,
    entry: &Entry<'_>,
) -> Option<&'a Arc<StreamId>> {
    streams.get(entry.topic)?.get(&entry.partition)
}
