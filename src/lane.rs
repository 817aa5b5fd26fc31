//! One source's records on their way into one destination: queue, attempts, backoff, dead letters.
//!
//! ```text
//!  queue ─▶ Joiner ─▶ group ─▶ attempt ─▶ all settled ─▶ ledger
//!                                 │ ▲
//!                        fault ▼  │ │ open again, strike off what is held
//!                              backoff
//! ```
//! Invariants: a send is settled in the ledger only when every record of it that this lane writes is accepted,
//! stored as a dead letter, or (best effort only) counted as dropped; groups are settled in the order they were
//! queued; when a delivery fails, every later one that was under way is delivered again after it.

mod join;
mod poison;

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay_api::{Delivery, Destination, Fault, Mark, Op, Report, Settled, StreamId, step};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::sync::Notify;
use tokio::task::unconstrained;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

pub use self::join::{BatchLimits, Group, Joiner, Queued};
pub use self::poison::BLOCKED;
use crate::config::OnPoison;
use crate::dead_letters::DeadLetters;
use crate::ledger::Ledger;
use crate::telemetry::LaneFigures;

/// The detail of `/status` that says why a best-effort lane was given up.
pub(crate) const STOPPED: &str = "stopped";

/// How often a loop that waits says that it turns.
pub(crate) const TURN: Duration = Duration::from_secs(2);

/// Looking whether an idle destination is reachable takes no longer, because records may come meanwhile.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// When and how often to try again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The first wait.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
    /// How many attempts a best-effort lane makes; a required one never gives up.
    pub attempts: NonZeroU32,
}

impl Retry {
    /// How long to wait after so many attempts: exponential, with jitter over its upper half so that many lanes do
    /// not come back at once; or what the other side asked for.
    pub fn wait(&self, attempts: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.initial.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        let base = doubled.min(self.max);
        let wait = base.mul_f64(rand::random_range(0.5..=1.0));
        asked.map_or(wait, |asked| asked.max(wait))
    }
}

/// What a lane is told by the configuration.
#[derive(Clone, Debug)]
pub struct LaneSettings {
    /// The source's name.
    pub source: Arc<str>,
    /// The destination's name.
    pub destination: Arc<str>,
    /// Its index among the pipeline's lanes, which is its name in the ledger.
    pub index: usize,
    /// Whether the checkpoint waits for it.
    pub required: bool,
    /// Its format among the pipeline's encodings.
    pub format: usize,
    /// How much goes into one delivery.
    pub batch: BatchLimits,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// When to try again.
    pub retry: Retry,
    /// What becomes of a record that the destination refuses.
    pub on_poison: OnPoison,
    /// Whether it replays dead letters when an operator asks for it.
    pub replays_letters: bool,
}

/// A lane of one generation. See the module.
pub struct Lane {
    /// What the configuration says.
    pub settings: LaneSettings,
    /// Where the records go; shared with the lanes of other sources.
    pub destination: Arc<dyn Destination>,
    /// What waits.
    pub joiner: Joiner,
    /// Where sends are settled.
    pub ledger: Arc<Mutex<Ledger>>,
    /// Told whenever the ledger may advance.
    pub settled: Arc<Notify>,
    /// Where refused records go.
    pub dead_letters: Arc<DeadLetters>,
    /// What it counts.
    pub figures: LaneFigures,
    /// Where it tells that it turns and whether the destination is reachable.
    pub report: Report,
    /// Fires when the source ends: what is queued is all there will be.
    pub draining: CancellationToken,
    /// The sends and the number of records of each group that has left the queue and is not settled, in order.
    pub under_way: VecDeque<(Vec<u64>, usize)>,
    /// Whether its streams move between daemons.
    pub shared: bool,
    /// Those that this generation has taken over.
    pub taken_over: HashSet<Arc<StreamId>>,
    /// Whether it was told that the destination is not reachable, and not yet that it is again.
    pub told_unreachable: bool,
    /// Of the records under way, those whose dead letter is stored.
    pub buried: usize,
}

/// What came of one attempt.
struct Outcome {
    group: Group,
    fault: Option<Fault>,
}

type Attempt = Pin<Box<dyn Future<Output = Outcome> + Send>>;

impl Lane {
    /// Delivers until the queue is closed and empty. A fault is returned when it is fatal and the lane is required;
    /// a best-effort lane that fails for good goes on counting what it drops.
    pub async fn run(mut self) -> Result<(), Fault> {
        self.report.forget(STOPPED);
        let overdue = overdue(self.settings.required, self.draining.clone());
        let result = tokio::select! {
            result = self.deliver_all() => result,
            fault = overdue => Err(fault),
        };
        let Err(fault) = result else { return Ok(()) };
        self.report.set_connected(false);
        if self.settings.required {
            return Err(fault);
        }
        error!(
            source = %self.settings.source, destination = %self.settings.destination, error = %fault,
            remedy = fault.remedy(), "best-effort destination given up; its records are dropped and counted from here on"
        );
        self.report.detail(STOPPED, fault.to_string());
        for (settles, records) in std::mem::take(&mut self.under_way) {
            // Some of them may have arrived; nobody said so.
            let buried = self.buried.min(records);
            self.buried -= buried;
            self.figures.dropped.inc_by((records - buried) as u64);
            self.figures.queue_records.dec_by(i64::try_from(records).unwrap_or(i64::MAX));
            self.settle(&settles);
        }
        loop {
            if let Some(part) = self.dead_letters.take_part(&self.settings.source) {
                part.refuse("the destination was given up until the source is connected anew");
            }
            match tokio::time::timeout(TURN, self.joiner.next()).await {
                Ok(Some(group)) => {
                    self.under_way.push_back((group.settles.clone(), group.records_len()));
                    self.drop_group(group);
                }
                Ok(None) => return Ok(()),
                Err(_) => {}
            }
            self.report.turned();
        }
    }

    async fn deliver_all(&mut self) -> Result<(), Fault> {
        // What the dead letters say is known before the first record is delivered.
        self.load_letters().await?;
        let in_order = self.settings.on_poison == OnPoison::BlockKey;
        let most = if in_order { 1 } else { self.destination.max_in_flight().get() };
        let mut replays = self.dead_letters.replay_news();
        replays.mark_changed();
        let mut running: FuturesOrdered<Attempt> = FuturesOrdered::new();
        let mut held: HashMap<Arc<StreamId>, Option<Mark>> = HashMap::new();
        let mut ended = false;
        let mut tick = tokio::time::interval(TURN);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(ended && running.is_empty()) {
            tokio::select! {
                biased;
                // Outcomes come in the order of the deliveries, whatever order they end in.
                Some(outcome) = running.next(), if !running.is_empty() => {
                    if let Some(failed) = self.conclude(outcome).await? {
                        held.clear();
                        self.recover(failed, &mut running).await?;
                    }
                }
                // Between two groups, so that what is replayed neither overtakes nor is overtaken.
                Ok(()) = replays.changed(), if self.settings.replays_letters => {
                    if let Some(part) = self.dead_letters.take_part(&self.settings.source) {
                        self.settle_running(&mut running).await?;
                        self.replay(part).await;
                        held.clear();
                    }
                }
                group = self.joiner.next(), if !ended && running.len() < most => match group {
                    None => ended = true,
                    Some(mut group) => {
                        self.under_way.push_back((group.settles.clone(), group.records_len()));
                        let stream = stream_of(&group);
                        let mark = match held.get(&stream) {
                            Some(mark) => *mark,
                            None => {
                                // Nothing is under way while the destination is asked, which may take long.
                                self.settle_running(&mut running).await?;
                                let mark = self.prepare(&stream).await?;
                                held.insert(stream, mark);
                                mark
                            }
                        };
                        strike_off(&mut group, mark);
                        if in_order {
                            self.hold_back(&mut group).await?;
                        }
                        running.push_back(self.attempt(group));
                    }
                },
                _ = tick.tick() => {
                    if running.is_empty() && !self.report.connected() {
                        self.look().await;
                    }
                }
            }
            self.report.turned();
        }
        Ok(())
    }

    /// Looks whether the destination is reachable although no record wants it, so that readiness is honest while a
    /// source is quiet.
    async fn look(&mut self) {
        let destination = self.destination.clone();
        let looked = self.turning(tokio::time::timeout(LOOK_LIMIT, destination.open())).await;
        match looked.unwrap_or_else(|_| Err(timed_out("opening the destination", LOOK_LIMIT))) {
            Ok(()) => self.reached(),
            Err(fault) => self.not_reached(&fault),
        }
    }

    fn reached(&mut self) {
        self.report.set_connected(true);
        if std::mem::take(&mut self.told_unreachable) {
            info!(source = %self.settings.source, destination = %self.settings.destination, "destination is reachable");
        }
    }

    fn not_reached(&mut self, fault: &Fault) {
        self.report.set_connected(false);
        if !std::mem::replace(&mut self.told_unreachable, true) {
            warn!(
                source = %self.settings.source, destination = %self.settings.destination, error = %fault,
                remedy = fault.remedy(), "destination is not reachable; trying again"
            );
        }
    }

    /// Waits for everything that is under way.
    async fn settle_running(&mut self, running: &mut FuturesOrdered<Attempt>) -> Result<(), Fault> {
        while let Some(outcome) = self.turning(running.next()).await {
            if let Some(failed) = self.conclude(outcome).await? {
                self.recover(failed, running).await?;
            }
        }
        Ok(())
    }

    /// Settles a group that is done; gives back one that is not, with the reason.
    async fn conclude(&mut self, outcome: Outcome) -> Result<Option<(Group, Fault)>, Fault> {
        let Outcome { mut group, fault } = outcome;
        self.bury(&mut group).await?;
        match fault {
            None if group.progress.open() == 0 => {
                self.finish(group);
                Ok(None)
            }
            None => {
                let left = format!(
                    "{} of {} records were neither accepted nor rejected",
                    group.progress.open(),
                    group.records_len()
                );
                Ok(Some((group, Fault::retryable("delivering", left))))
            }
            // What was settled counts, even all of it: the fault is then the next delivery's to meet.
            Some(fault) if group.progress.open() == 0 && fault.is_retryable() => {
                debug!(destination = %self.settings.destination, error = %fault, "fault after the last record was settled");
                self.finish(group);
                Ok(None)
            }
            Some(fault) => Ok(Some((group, fault))),
        }
    }

    /// Delivers a failed group again until it is done, then all that was under way behind it.
    async fn recover(
        &mut self,
        failed: (Group, Fault),
        running: &mut FuturesOrdered<Attempt>,
    ) -> Result<(), Fault> {
        let (group, fault) = failed;
        if !fault.is_retryable() {
            return Err(fault);
        }
        let mut later = Vec::new();
        while let Some(mut outcome) = self.turning(running.next()).await {
            self.bury(&mut outcome.group).await?;
            if let Some(fault) = outcome.fault.take_if(|fault| !fault.is_retryable()) {
                return Err(fault);
            }
            outcome.group.reopen_all();
            later.push(outcome.group);
        }
        let began = Instant::now();
        warn!(
            source = %self.settings.source, destination = %self.settings.destination, error = %fault,
            remedy = fault.remedy(), records = group.progress.open(), "delivery failed; trying again"
        );
        self.report.set_connected(false);
        let mut works = self.persist(group, fault).await?;
        for group in later {
            let stream = stream_of(&group);
            let outcome = self.attempt_from_held(group, &stream).await?;
            works = match self.conclude(outcome).await? {
                Some((group, fault)) => self.persist(group, fault).await?,
                None => true,
            };
        }
        if works {
            info!(
                source = %self.settings.source, destination = %self.settings.destination,
                after_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), "delivery works again"
            );
        }
        Ok(())
    }

    /// Tries one group until it is done, or, best effort, until its attempts are used up; whether it is done.
    async fn persist(&mut self, group: Group, fault: Fault) -> Result<bool, Fault> {
        let stream = stream_of(&group);
        let (mut group, mut fault) = (group, fault);
        loop {
            if !fault.is_retryable() {
                return Err(fault);
            }
            if !self.settings.required && group.attempts >= self.settings.retry.attempts.get() {
                warn!(
                    source = %self.settings.source, destination = %self.settings.destination, error = %fault,
                    attempts = group.attempts, records = group.progress.open(), "records dropped by a best-effort destination"
                );
                self.drop_group(group);
                return Ok(false);
            }
            group.reopen_successors();
            self.pause(group.attempts, &fault).await;
            self.figures.retries.inc();
            let outcome = match self.reopen(&stream).await {
                Ok(mark) => {
                    strike_off(&mut group, mark);
                    let attempt = self.attempt(group);
                    self.turning(attempt).await
                }
                Err(fault) => {
                    group.attempts += 1;
                    Outcome { group, fault: Some(fault) }
                }
            };
            match self.conclude(outcome).await? {
                None => return Ok(true),
                Some(again) => (group, fault) = again,
            }
        }
    }

    /// One attempt at a group, striking off first what the destination holds by now.
    async fn attempt_from_held(
        &mut self,
        mut group: Group,
        stream: &Arc<StreamId>,
    ) -> Result<Outcome, Fault> {
        match self.reopen(stream).await {
            Ok(mark) => strike_off(&mut group, mark),
            Err(fault) => return Ok(Outcome { group, fault: Some(fault) }),
        }
        let attempt = self.attempt(group);
        Ok(self.turning(attempt).await)
    }

    /// Opens the destination and asks what it holds of a stream, until both work.
    async fn prepare(&mut self, stream: &Arc<StreamId>) -> Result<Option<Mark>, Fault> {
        let mut attempts = 0;
        loop {
            let fault = match self.reopen(stream).await {
                Ok(mark) => {
                    self.reached();
                    return Ok(mark);
                }
                Err(fault) if fault.is_retryable() => fault,
                Err(fault) => return Err(fault),
            };
            self.not_reached(&fault);
            attempts += 1;
            self.pause(attempts, &fault).await;
        }
    }

    async fn reopen(&mut self, stream: &Arc<StreamId>) -> Result<Option<Mark>, Fault> {
        let destination = self.destination.clone();
        let timeout = self.settings.timeout;
        let takes_over = self.shared && !self.taken_over.contains(stream);
        let open = async {
            destination.open().await?;
            match takes_over {
                true => destination.take_over(stream).await,
                false => destination.held(stream).await,
            }
        };
        let result = self.turning(tokio::time::timeout(timeout, open)).await;
        let mark = result.unwrap_or_else(|_| Err(timed_out("opening the destination", timeout)))?;
        if takes_over {
            self.taken_over.insert(stream.clone());
        }
        Ok(mark)
    }

    /// One attempt, as a future that owns all it needs. What is settled when it ends, even by the timeout, is kept.
    fn attempt(&self, mut group: Group) -> Attempt {
        let destination = self.destination.clone();
        let (format, timeout, duration) =
            (self.settings.format, self.settings.timeout, self.figures.duration.clone());
        let (name, report) = (self.settings.destination.clone(), self.report.clone());
        // Tokio makes a task that has done much wait at whatever it awaits next, and the attempts of a task then go on in
        // another order than they began in: a client's queue would have them in that order.
        Box::pin(unconstrained(async move {
            group.attempts += 1;
            if group.progress.open() == 0 {
                return Outcome { group, fault: None };
            }
            let began = Instant::now();
            let (delivery, back) =
                Delivery::new(group.parts.clone(), format, std::mem::take(&mut group.progress));
            let result = if destination.interruptible() {
                let attempt = tokio::time::timeout(timeout, destination.deliver(delivery)).await;
                attempt.unwrap_or_else(|_| Err(timed_out("delivering", timeout)))
            } else {
                warn_when_slow(destination.deliver(delivery), &name, timeout, &report).await
            };
            // A delivery gives back when it is dropped, so this waits only while the destination keeps it.
            group.progress = back.await.expect("a delivery gives back what it settled when it is dropped");
            duration.observe(began.elapsed().as_secs_f64());
            step!("delivered");
            Outcome { group, fault: result.err() }
        }))
    }

    /// Everything in the group is accepted or buried.
    fn finish(&mut self, group: Group) {
        assert_eq!(group.progress.open(), 0, "only a group that is done is finished");
        self.figures.delivered.inc_by((group.records_len() - group.buried) as u64);
        self.report.set_connected(true);
        self.leave(&group);
    }

    /// What is still open in the group is lost to this destination, and counted.
    fn drop_group(&mut self, group: Group) {
        assert!(!self.settings.required, "a required lane drops nothing");
        let open = group.progress.open();
        self.figures.dropped.inc_by(open as u64);
        self.figures.delivered.inc_by((group.records_len() - group.buried - open) as u64);
        self.leave(&group);
    }

    fn leave(&mut self, group: &Group) {
        step!("accepted");
        if let Some((_, event)) = group.events().last() {
            self.figures.newest_delivered_micros.fetch_max(event.row().time, Ordering::Relaxed);
        }
        self.figures.queue_records.dec_by(i64::try_from(group.records_len()).unwrap_or(i64::MAX));
        let bytes: usize = group.records(self.settings.format).map(|(_, record)| record.size()).sum();
        self.figures.queue_bytes.dec_by(i64::try_from(bytes).unwrap_or(i64::MAX));
        let (settles, records) =
            self.under_way.pop_front().expect("a group leaves after it has left the queue");
        assert!(
            settles == group.settles && records == group.records_len(),
            "groups are settled in their order"
        );
        self.buried -= group.buried;
        self.settle(&settles);
    }

    fn settle(&self, sends: &[u64]) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        sends.iter().for_each(|&seq| ledger.settle(seq, self.settings.index));
        drop(ledger);
        self.settled.notify_one();
    }

    async fn pause(&self, attempts: u32, fault: &Fault) {
        let asked = match fault {
            Fault::Retryable { after, .. } => *after,
            Fault::Fatal { .. } => None,
        };
        self.turning(tokio::time::sleep(self.settings.retry.wait(attempts, asked))).await;
    }

    /// Waits for a future and says meanwhile and at its end that the lane turns: waiting is not being stuck, and
    /// neither is a loop of many short waits.
    async fn turning<F: Future>(&self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        loop {
            let waited = tokio::time::timeout(TURN, future.as_mut()).await;
            self.report.turned();
            if let Ok(output) = waited {
                return output;
            }
        }
    }
}

/// A best-effort destination does not hold up the end of a generation for longer than this.
const BEST_EFFORT_DRAIN: Duration = Duration::from_secs(5);

/// When a lane has drained for too long: never, for a required one; its generation bounds it.
async fn overdue(required: bool, draining: CancellationToken) -> Fault {
    draining.cancelled().await;
    if required {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(BEST_EFFORT_DRAIN).await;
    Fault::retryable(
        "draining",
        format!("what was queued was not taken within {BEST_EFFORT_DRAIN:?} of the end"),
    )
}

fn stream_of(group: &Group) -> Arc<StreamId> {
    group.parts[0].batch.chunk.stream.clone()
}

/// Accepts what the destination holds already. A schema that is announced anew takes the mark of the row that it stands
/// before, which may be held while the schema is not: it is delivered, and its id tells whether it was there.
fn strike_off(group: &mut Group, held: Option<Mark>) {
    let Some(held) = held else { return };
    let found: Vec<usize> = group
        .events()
        .take_while(|(_, event)| event.mark() <= held)
        .filter(|(_, event)| event.op() != Op::Schema)
        .map(|(index, _)| index)
        .collect();
    for index in found {
        if group.progress.of(index) == Settled::Open {
            group.progress.accept(index);
        }
    }
}

fn timed_out(doing: &str, after: Duration) -> Fault {
    Fault::retryable(doing, format!("no answer within {after:?}"))
        .with_remedy("if the destination is only slow, raise its `timeout`")
}

/// For a destination whose client keeps what it was given: a second attempt would overtake, so this only warns.
async fn warn_when_slow<F>(
    deliver: F,
    destination: &str,
    after: Duration,
    report: &Report,
) -> Result<(), Fault>
where
    F: Future<Output = Result<(), Fault>>,
{
    let mut deliver = std::pin::pin!(deliver);
    loop {
        match tokio::time::timeout(after, deliver.as_mut()).await {
            Ok(result) => return result,
            Err(_) => {
                report.set_connected(false);
                warn!(destination, waited_s = after.as_secs(), "no acknowledgement yet; still waiting");
            }
        }
    }
}
