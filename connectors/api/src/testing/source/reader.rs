//! Reads from a source as the core does, and holds what comes against the numbers that were written.
//!
//! What must hold in every run: all events are of one stream, their marks rise, their numbers follow each other
//! without a gap, and the first is not behind what the position resumed from covers. A number that comes again in
//! another run comes as the same event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Rig;
use super::beside::{NothingToCopy, SchemasInMemory};
use crate::budget::Budget;
use crate::chunk::{Chunk, Event};
use crate::claim::Claim;
use crate::fault::Fault;
use crate::mark::{Mark, Position, StreamId};
use crate::outlet::{Committed, Inlet, Outlet};
use crate::report::Report;
use crate::source::{Source, SourceContext};
use crate::testing::{Failure, Outcome, broken};

/// Whatever was committed is read within this, also from a server that was just started.
const WITHIN: Duration = Duration::from_secs(60);

/// A run ends within this after it was told to, or after its outlet was closed.
pub(super) const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How long a change is waited for before another one is made, until the first is seen.
const PRIMER: Duration = Duration::from_millis(300);

/// Between a fault and the next run.
const BACKOFF: Duration = Duration::from_millis(200);

/// The memory of a pipeline in these checks, unless one makes it smaller.
const BUDGET: usize = 16 << 20;

/// A position, and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Given {
    /// What the source gave.
    pub(super) position: Position,
    /// The highest number sent by then; `None` before the first.
    pub(super) covers: Option<u64>,
    /// Whether it came without events.
    pub(super) idle: bool,
}

/// What is read by one instance after the other.
pub(super) struct Reader<'r> {
    rig: &'r Rig,
    run: Option<Run>,
    /// After a fault: the instance, and when it runs again.
    resting: Option<(Box<dyn Source>, Instant)>,
    /// The next number to write.
    next: u64,
    /// What each number came as.
    seen: BTreeMap<u64, String>,
    /// Every position given in this run, in order.
    pub(super) given: Vec<Given>,
    /// What a daemon that starts now resumes from.
    stored: Option<Given>,
    /// Whether positions are stored, and so committed, as they come.
    pub(super) stores: bool,
    /// Whether a retryable fault ends a run and begins another one, instead of breaking the check.
    pub(super) goes_on: bool,
    /// How much memory the next run gets.
    pub(super) budget: usize,
    /// What the source has generated.
    schemas: Arc<SchemasInMemory>,
}

/// One generation.
struct Run {
    /// The source's task; dropped with it.
    task: JoinSet<(Box<dyn Source>, Result<(), Fault>)>,
    inlet: Inlet,
    /// Dropped when the generation has ended, which a source that stops may wait for.
    committed: Option<watch::Sender<Option<Position>>>,
    stop: CancellationToken,
    report: Report,
    /// Sends that the pipeline has not settled yet; `None`: each is settled as it comes.
    unsettled: Option<Vec<Claim>>,
    stream: Option<StreamId>,
    mark: Option<Mark>,
    number: Option<u64>,
    /// The highest number covered by the position resumed from; `None` before the first event of all.
    covered: Option<u64>,
}

impl<'r> Reader<'r> {
    /// Starts a first run and makes changes until the first of them comes: from then on nothing may be missing.
    pub(super) async fn begin(rig: &'r Rig) -> Result<Reader<'r>, Failure> {
        let mut reader = Reader {
            rig,
            run: None,
            resting: None,
            next: 0,
            seen: BTreeMap::new(),
            given: Vec::new(),
            stored: None,
            stores: true,
            goes_on: false,
            budget: BUDGET,
            schemas: Arc::default(),
        };
        reader.start(rig.build().await);
        let began = Instant::now();
        while reader.seen.is_empty() {
            if began.elapsed() > WITHIN {
                broken(format!("no change came within {WITHIN:?} of the first run's start"))?;
            }
            reader.write(1).await;
            if let Ok(received) = timeout(PRIMER, reader.receive()).await {
                received?;
            }
        }
        reader.catch_up().await?;
        Ok(reader)
    }

    /// Makes changes at the server.
    pub(super) async fn write(&mut self, count: u64) {
        self.rig.write(self.next..self.next + count).await;
        self.next += count;
    }

    /// The number of the latest change.
    pub(super) fn last(&self) -> u64 {
        self.next - 1
    }

    /// Reads until the latest change has come in this run.
    pub(super) async fn catch_up(&mut self) -> Outcome {
        self.until(self.last()).await
    }

    /// Reads until a number has come in this run, or is covered by the position that it began at.
    pub(super) async fn until(&mut self, number: u64) -> Outcome {
        let began = Instant::now();
        while self.reached().is_none_or(|reached| reached < number) {
            match timeout(WITHIN.saturating_sub(began.elapsed()), self.receive()).await {
                Ok(received) => received?,
                Err(_) => broken(format!(
                    "change {number} did not come within {WITHIN:?}; the latest is {:?}",
                    self.reached()
                ))?,
            }
        }
        Ok(())
    }

    /// How far this run is.
    fn reached(&self) -> Option<u64> {
        self.run.as_ref().and_then(|run| run.number.or(run.covered))
    }

    /// Reads until another position comes.
    pub(super) async fn until_position(&mut self) -> Outcome {
        let before = self.given.len();
        let waiting = async {
            while self.given.len() == before {
                self.receive().await?;
            }
            Ok(())
        };
        match timeout(WITHIN, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => broken(format!("no position came within {WITHIN:?}")),
        }
    }

    /// Takes the next send, or, where the check allows it, goes on with another run after a fault. Cancel-safe.
    pub(super) async fn receive(&mut self) -> Outcome {
        if let Some((_, until)) = &self.resting {
            sleep_until(*until).await;
        }
        if let Some((source, _)) = self.resting.take() {
            self.start(source);
        }
        if let Some((chunk, claim)) = self.running().inlet.receive().await {
            return self.take(&chunk, claim);
        }
        let (source, result) = self.ended().await?;
        let Err(fault) = result else { return broken("a run ended without being told to") };
        if !fault.is_retryable() || !self.goes_on {
            return broken(format!("a run failed: {fault}"));
        }
        self.resting = Some((source, Instant::now() + BACKOFF));
        Ok(())
    }

    /// Starts a run where the stored position is.
    pub(super) fn start(&mut self, mut source: Box<dyn Source>) {
        let (stop, report) = (CancellationToken::new(), Report::default());
        let (outlet, inlet) = Outlet::new(Budget::new(self.budget), stop.clone());
        let (committed, receiver) = watch::channel(None);
        let context = SourceContext {
            resume: self.stored.as_ref().map(|given| given.position.clone()),
            outlet,
            committed: Committed::new(receiver),
            stop: stop.clone(),
            abort: CancellationToken::new(),
            report: report.clone(),
            snapshots: Arc::new(NothingToCopy),
            schemas: self.schemas.clone(),
        };
        let mut task = JoinSet::new();
        task.spawn(async move {
            let result = source.run(context).await;
            (source, result)
        });
        self.given.clear();
        let covered = self.stored.as_ref().and_then(|given| given.covers);
        let committed = Some(committed);
        let (stream, mark, number, unsettled) = (None, None, None, None);
        self.run =
            Some(Run { task, inlet, committed, stop, report, unsettled, stream, mark, number, covered });
    }

    /// Tells the run to stop, takes what it still sends, and gives the instance back.
    pub(super) async fn stop(&mut self) -> Result<Box<dyn Source>, Failure> {
        self.tell_to_stop();
        let draining = async {
            while let Some((chunk, claim)) = self.running().inlet.receive().await {
                self.take(&chunk, claim)?;
            }
            self.ended().await
        };
        match timeout(STOP_WITHIN, draining).await {
            Ok(ended) => match ended? {
                (source, Ok(())) => Ok(source),
                (_, Err(fault)) => {
                    Err(Failure::Broken(format!("a run that was told to stop failed: {fault}")))
                }
            },
            Err(_) => {
                Err(Failure::Broken(format!("a run did not end within {STOP_WITHIN:?} after it was told to")))
            }
        }
    }

    /// Fires the run's stop.
    pub(super) fn tell_to_stop(&self) {
        self.run.as_ref().expect("a run was started").stop.cancel();
    }

    /// Ends the run with a new instance reading from a position.
    pub(super) async fn resume_from(&mut self, given: Option<Given>) -> Outcome {
        self.stop().await?;
        self.stored = given;
        self.start(self.rig.build().await);
        Ok(())
    }

    /// Stores a position and tells the source so.
    pub(super) fn commit(&mut self, given: &Given) {
        self.stored = Some(given.clone());
        if let Some(committed) = &self.running().committed {
            committed.send_replace(Some(given.position.clone()));
        }
    }

    /// Gives back no memory until [`Reader::settle`]: destinations are slow.
    pub(super) fn hold(&mut self) {
        self.running().unsettled = Some(Vec::new());
    }

    /// Gives back all memory, and from now on at once.
    pub(super) fn settle(&mut self) {
        self.running().unsettled = None;
    }

    /// How long ago the source's loop last turned.
    pub(super) fn idle(&mut self) -> Duration {
        self.running().report.idle()
    }

    /// Takes the pipeline's end of the outlet away; whether the run ends within [`STOP_WITHIN`].
    pub(super) async fn close_outlet(mut self) -> bool {
        let mut run = self.run.take().expect("a run was started");
        drop((run.inlet, run.committed));
        timeout(STOP_WITHIN, run.task.join_next()).await.is_ok()
    }

    fn running(&mut self) -> &mut Run {
        self.run.as_mut().expect("a run was started")
    }

    /// What became of a run whose outlet is gone. Cancel-safe.
    async fn ended(&mut self) -> Result<(Box<dyn Source>, Result<(), Fault>), Failure> {
        // All that was sent is settled, so the generation is at its end.
        self.running().committed = None;
        let ended = self.running().task.join_next().await.expect("one task was spawned");
        self.run = None;
        ended.map_err(|died| Failure::Broken(format!("a run died: {died}")))
    }

    fn take(&mut self, chunk: &Chunk, mut claim: Claim) -> Outcome {
        for event in chunk.events() {
            self.look_at(event)?;
        }
        let position = claim.position.take();
        if let Some(unsettled) = &mut self.running().unsettled {
            unsettled.push(claim);
        }
        if let Some(position) = position {
            let covers = self.reached();
            let given = Given { position, covers, idle: chunk.rows.is_empty() };
            if self.stores {
                self.commit(&given);
            }
            self.given.push(given);
        }
        Ok(())
    }

    fn look_at(&mut self, event: Event<'_>) -> Outcome {
        let number = self.rig.number(event);
        let run = self.running();
        let stream = run.stream.get_or_insert_with(|| StreamId::clone(event.stream()));
        if stream != &**event.stream() {
            return broken(format!("a run sent events of two streams: {stream} and {}", event.stream()));
        }
        if run.mark.is_some_and(|before| before >= event.mark()) {
            return broken(format!(
                "mark {} came after mark {:?}",
                event.mark(),
                run.mark.map(|m| m.to_string())
            ));
        }
        run.mark = Some(event.mark());
        let Some(number) = number else { return Ok(()) };
        match (run.number, run.covered) {
            (Some(before), _) if number != before + 1 => {
                return broken(format!("change {number} came after change {before}"));
            }
            (None, Some(covered)) if number > covered + 1 => {
                return broken(format!(
                    "changes {} to {} were lost: the position that was resumed from covers {covered}, and the \
                     first that came is {number}",
                    covered + 1,
                    number - 1
                ));
            }
            _ => {}
        }
        run.number = Some(number);
        let as_it_came = fingerprint(event);
        let before = self.seen.entry(number).or_insert_with(|| as_it_came.clone());
        if *before != as_it_came {
            return broken(format!("change {number} came again as another event: {before} and {as_it_came}"));
        }
        Ok(())
    }
}

/// All of an event that must be the same when it is read again.
fn fingerprint(event: Event<'_>) -> String {
    let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
    let parts =
        [event.key(), event.before(), event.payload(), event.unchanged(), event.contexts(), event.extra()];
    format!(
        "{} {} {} {} {} {}",
        event.id(),
        event.mark(),
        event.op().as_str(),
        event.row().time,
        event.subject().schema_key(),
        parts.map(text).join(" ")
    )
}
