//! Drives a destination as the core's lane does, and keeps account of what it said of each event.
//!
//! Before the first delivery, and again after a failed one: open until it succeeds, ask what is held, strike it
//! off, deliver what is still open. A failed delivery re-opens all later ones that were in flight with it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::delivery::{Delivery, Part, Progress, Rejection, Settled};
use crate::destination::Destination;
use crate::fault::Fault;
use crate::mark::{Mark, StreamId};

use super::{Failure, Outcome, broken};

/// An attempt is given up after this, where the destination may be interrupted.
const ATTEMPT: Duration = Duration::from_secs(10);

/// `open` says within this that it cannot: a lane that waits in it longer can neither tell nor stop.
const OPEN_WITHIN: Duration = Duration::from_secs(30);

/// A delivery that nobody runs any more comes back within this.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// Between a fault and the next attempt.
const BACKOFF: Duration = Duration::from_millis(50);

/// One delivery of a lane, across its attempts.
#[derive(Clone)]
pub(crate) struct Unit {
    parts: Arc<[Part]>,
    progress: Progress,
    events: Arc<[Listed]>,
}

/// What a lane knows of one record.
struct Listed {
    id: String,
    mark: Mark,
    /// Events that share it keep their order.
    key: Vec<u8>,
}

impl Unit {
    /// All records of `parts`, open.
    pub(crate) fn new(parts: Arc<[Part]>) -> Unit {
        let events: Arc<[Listed]> = parts
            .iter()
            .flat_map(|part| part.rows[part.range.clone()].iter().map(move |&row| (part, row)))
            .map(|(part, row)| part.batch.chunk.event(row as usize))
            .map(|event| {
                let mut key = event.subject().name.clone().into_bytes();
                event.write_partition_key(&mut key);
                Listed { id: event.id(), mark: event.mark(), key }
            })
            .collect();
        Unit { parts, progress: Progress::new(events.len()), events }
    }

    /// Settles every record that `choose` says of, so that it is not open when it is delivered; their ids.
    pub(crate) fn settle_where(&mut self, choose: impl Fn(usize) -> bool) -> HashSet<String> {
        let chosen: Vec<usize> = (0..self.events.len()).filter(|&index| choose(index)).collect();
        for &index in &chosen {
            self.progress.accept(index);
        }
        chosen.into_iter().map(|index| self.events[index].id.clone()).collect()
    }

    /// After a failed attempt: what was accepted behind an open record of the same key is delivered again with it.
    fn reopen_successors(&mut self) {
        let mut open: HashSet<&[u8]> = HashSet::new();
        for (index, event) in self.events.iter().enumerate() {
            if open.contains(event.key.as_slice()) {
                self.progress.reopen(index);
            }
            if self.progress.of(index) == Settled::Open {
                open.insert(&event.key);
            }
        }
    }
}

/// What was said of the events.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Said to be durable.
    pub(crate) accepted: HashSet<String>,
    /// Refused for their content.
    pub(crate) rejected: HashMap<String, Rejection>,
    /// Not delivered because `held` covered them.
    pub(crate) struck: HashSet<String>,
    /// Every fault that was retried, as text.
    pub(crate) faults: Vec<String>,
    /// Whether any event may have been delivered twice.
    pub(crate) repeated: bool,
}

/// One source's records on their way into one destination.
pub(crate) struct Lane {
    destination: Arc<dyn Destination>,
    stream: Arc<StreamId>,
    /// The latest answer of `held`.
    held: Option<Mark>,
    /// How long an attempt may take.
    pub(crate) attempt: Duration,
    /// How long to rest after each delivery, so that a check with disturbances does not deliver millions.
    pub(crate) pace: Duration,
    /// What was said so far.
    pub(crate) tally: Tally,
    /// Counts the deliveries that were settled.
    settled: watch::Sender<usize>,
}

/// What one attempt came to.
struct Attempted {
    progress: Progress,
    fault: Option<Fault>,
}

impl Lane {
    /// A lane of one stream into `destination`.
    pub(crate) fn new(destination: Arc<dyn Destination>, stream: Arc<StreamId>) -> Lane {
        Lane {
            destination,
            stream,
            held: None,
            attempt: ATTEMPT,
            pace: Duration::ZERO,
            tally: Tally::default(),
            settled: watch::Sender::new(0),
        }
    }

    /// Goes on with another instance, as a daemon does that was started again.
    pub(crate) fn restart(&mut self, destination: Arc<dyn Destination>) {
        self.destination = destination;
        self.held = None;
    }

    /// Sees how many deliveries were settled.
    pub(crate) fn settled(&self) -> watch::Receiver<usize> {
        self.settled.subscribe()
    }

    /// Delivers what `next` gives, until it gives nothing more and all is settled.
    pub(crate) async fn run(&mut self, mut next: impl FnMut() -> Option<Unit>) -> Outcome {
        let in_flight = self.destination.max_in_flight().get();
        let mut window: VecDeque<Unit> = VecDeque::new();
        loop {
            self.open().await?;
            for unit in &mut window {
                self.strike_off(unit);
            }
            let mut running = FuturesOrdered::new();
            loop {
                while running.len() < in_flight {
                    if running.len() == window.len() {
                        let Some(mut unit) = next() else { break };
                        self.strike_off(&mut unit);
                        window.push_back(unit);
                    }
                    let unit = window[running.len()].clone();
                    running.push_back(attempt(self.destination.clone(), unit, self.attempt));
                }
                let Some(attempted) = running.next().await else { return Ok(()) };
                let done = self.take_back(&mut window[0], attempted?)?;
                if !done {
                    break;
                }
                window.pop_front();
                self.settled.send_modify(|count| *count += 1);
                sleep(self.pace).await;
            }
            let mut later = 1;
            while let Some(attempted) = running.next().await {
                self.take_back(&mut window[later], attempted?)?;
                window[later].progress = Progress::new(window[later].events.len());
                later += 1;
            }
            self.tally.repeated = true;
            sleep(BACKOFF).await;
        }
    }

    /// Delivers the units one after the other.
    pub(crate) async fn run_all(&mut self, units: impl IntoIterator<Item = Unit>) -> Outcome {
        let mut units = units.into_iter();
        self.run(|| units.next()).await
    }

    /// Starts to deliver `unit` and drops the attempt as soon as `interruption` is over, as an abort does. The
    /// unit keeps what was settled.
    pub(crate) async fn interrupt(
        &mut self,
        unit: &mut Unit,
        interruption: impl Future<Output = ()>,
    ) -> Outcome {
        self.open().await?;
        self.strike_off(unit);
        if unit.progress.open() == 0 {
            return Ok(());
        }
        let (delivery, back) = Delivery::new(unit.parts.clone(), 0, unit.progress.clone());
        let result = {
            let deliver = self.destination.deliver(delivery);
            tokio::select! {
                biased;
                result = deliver => Some(result),
                () = interruption => None,
            }
        };
        let progress = come_back(back).await?;
        let fault = result.and_then(Result::err);
        self.take_back(unit, Attempted { progress, fault })?;
        self.tally.repeated = true;
        Ok(())
    }

    /// Opens until it succeeds and asks what is held.
    async fn open(&mut self) -> Outcome {
        loop {
            match self.try_open().await? {
                Ok(held) => {
                    self.held = held;
                    return Ok(());
                }
                Err(fault) => self.note(fault)?,
            }
            sleep(BACKOFF).await;
        }
    }

    async fn try_open(&self) -> Result<Result<Option<Mark>, Fault>, Failure> {
        let opening = async {
            self.destination.open().await?;
            self.destination.held(&self.stream).await
        };
        timeout(OPEN_WITHIN, opening).await.map_err(|_| {
            Failure::Broken(format!(
                "`open` and `held` did not return within {OPEN_WITHIN:?}: bound the wait"
            ))
        })
    }

    /// Settles what the destination already holds.
    fn strike_off(&mut self, unit: &mut Unit) {
        let Some(held) = self.held else { return };
        for (index, event) in unit.events.iter().enumerate() {
            if event.mark <= held && unit.progress.of(index) == Settled::Open {
                unit.progress.accept(index);
                self.tally.struck.insert(event.id.clone());
            }
        }
    }

    /// Counts what an attempt settled; whether nothing is open any more.
    fn take_back(&mut self, unit: &mut Unit, attempted: Attempted) -> Result<bool, Failure> {
        let Attempted { progress, fault } = attempted;
        for (index, event) in unit.events.iter().enumerate() {
            if unit.progress.of(index) == Settled::Open && progress.of(index) == Settled::Accepted {
                self.tally.accepted.insert(event.id.clone());
            }
        }
        for (index, why) in &progress.rejected {
            self.tally.rejected.insert(unit.events[*index].id.clone(), why.clone());
        }
        unit.progress = progress;
        let failed = fault.is_some();
        if let Some(fault) = fault {
            self.note(fault)?;
        }
        let done = !failed && unit.progress.open() == 0;
        if !done {
            unit.reopen_successors();
        }
        Ok(done)
    }

    /// Keeps a retryable fault; a fatal one breaks every check.
    fn note(&mut self, fault: Fault) -> Outcome {
        if !fault.is_retryable() {
            return broken(format!("fatal where another attempt helps: {fault}"));
        }
        self.tally.faults.push(fault.to_string());
        Ok(())
    }
}

async fn attempt(
    destination: Arc<dyn Destination>,
    unit: Unit,
    within: Duration,
) -> Result<Attempted, Failure> {
    if unit.progress.open() == 0 {
        return Ok(Attempted { progress: unit.progress, fault: None });
    }
    let (delivery, back) = Delivery::new(unit.parts, 0, unit.progress);
    let deliver = destination.deliver(delivery);
    let result = if destination.interruptible() {
        timeout(within, deliver)
            .await
            .unwrap_or_else(|late| Err(Fault::retryable("delivering within the attempt's time", late)))
    } else {
        deliver.await
    };
    let progress = come_back(back).await?;
    Ok(Attempted { progress, fault: result.err() })
}

async fn come_back(back: tokio::sync::oneshot::Receiver<Progress>) -> Result<Progress, Failure> {
    match timeout(BACK_WITHIN, back).await {
        Ok(Ok(progress)) => Ok(progress),
        Ok(Err(_)) => Err(Failure::Broken("the delivery was forgotten instead of dropped".to_owned())),
        Err(_) => Err(Failure::Broken(format!(
            "the delivery did not come back within {BACK_WITHIN:?} after `deliver` had ended"
        ))),
    }
}
