//! What the tests of a whole journal share: events to deliver, and a reader that is driven as the core drives it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay_api::testing::source::{NothingToCopy, SchemasInMemory};
use forebay_api::{
    Batch, Budget, Chunk, Claim, Committed, Delivery, Destination, Draft, Fault, Inlet, Journal,
    JournalConnector, Mark, Op, Outlet, Part, Position, Progress, ReaderSetting, Report, Row, Settled,
    Source, SourceContext, Span, Start, StreamId, Subject,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::DiskConfig;
use crate::journal::DiskJournal;
use crate::model::setting;

/// Something happens within this, or the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn journal(folder: &Path, config: DiskConfig) -> Arc<dyn Journal> {
    // Smaller segments than a user may have.
    if config.mistakes().is_empty() {
        return DiskJournal::build(config, &setting(folder)).unwrap();
    }
    Arc::new(DiskJournal::new(config, setting(folder)))
}

pub(crate) fn stream(epoch: u64) -> Arc<StreamId> {
    Arc::new(StreamId { source: "shop".into(), epoch })
}

/// An event for each number, which is its mark, its second and the start of its payload, of `size` bytes.
pub(crate) fn batch(
    stream: &Arc<StreamId>,
    numbers: impl IntoIterator<Item = u64>,
    size: usize,
    op: Op,
) -> Arc<Batch> {
    let mut draft = Draft::default();
    let place = (Some("db"), Some("public"), Some("orders"));
    let subject =
        draft.subject(&Arc::new(Subject::new(("v", "public.orders", "1-0-0"), place, String::new())));
    for number in numbers {
        let at = draft.buf.len();
        draft.buf.extend_from_slice(format!("{{\"number\":{number},\"text\":\"").as_bytes());
        draft.buf.resize(draft.buf.len() + size, b'x');
        draft.buf.extend_from_slice(b"\"}");
        let payload = draft.since(at);
        let none = Span::default();
        draft.push(Row {
            mark: Mark { major: (0, number), minor: 0, part: 0 },
            time: i64::try_from(number).unwrap() * 1_000_000,
            xid: 0,
            subject,
            op,
            id: none,
            key: none,
            before: none,
            payload,
            unchanged: none,
            contexts: none,
            extra: none,
        });
    }
    let chunk = draft.finish(stream, 1, false);
    Arc::new(Batch { chunk, verdicts: Vec::new(), encoded: Vec::new() })
}

/// Delivers a batch; what was accepted is what the answer says.
pub(crate) async fn deliver(writer: &Arc<dyn Destination>, batch: &Arc<Batch>) -> Result<(), Fault> {
    let rows = batch.chunk.rows.len();
    let part =
        Part { batch: batch.clone(), rows: (0..u32::try_from(rows).unwrap()).collect(), range: 0..rows };
    let (delivery, back) = Delivery::new([part].into(), 0, Progress::new(rows));
    let answer = writer.deliver(delivery).await;
    let progress = back.await.unwrap();
    let wanted = if answer.is_ok() { Settled::Accepted } else { Settled::Open };
    assert!((0..rows).all(|row| progress.of(row) == wanted), "{answer:?} {progress:?}");
    answer
}

/// Opens the writer as a lane does, and delivers inserts one chunk a number.
pub(crate) async fn write(
    journal: &Arc<dyn Journal>,
    numbers: std::ops::Range<u64>,
    size: usize,
) -> Result<(), Fault> {
    let writer = journal.writer();
    let stream = stream(1);
    writer.open().await?;
    writer.held(&stream).await?;
    for number in numbers {
        deliver(&writer, &batch(&stream, [number], size, Op::Insert)).await?;
    }
    Ok(())
}

pub(crate) fn setting_of(name: &str, required: bool, start: Start) -> ReaderSetting {
    ReaderSetting { name: name.into(), required, start, until: None }
}

/// One run of a reader.
pub(crate) struct Reading {
    pub(crate) task: JoinHandle<Result<(), Fault>>,
    inlet: Inlet,
    committed: watch::Sender<Option<Position>>,
    pub(crate) stop: CancellationToken,
    /// The latest position that came.
    pub(crate) position: Option<Position>,
    /// Not given back, where the pipeline shall be full.
    held: Option<Vec<Claim>>,
}

impl Reading {
    pub(crate) fn start(
        journal: &Arc<dyn Journal>,
        setting: ReaderSetting,
        resume: Option<Position>,
    ) -> Reading {
        let stop = CancellationToken::new();
        let (outlet, inlet) = Outlet::new(Budget::new(1 << 20), stop.clone());
        let (committed, receiver) = watch::channel(resume.clone());
        let context = SourceContext {
            resume,
            outlet,
            committed: Committed::new(receiver),
            stop: stop.clone(),
            abort: CancellationToken::new(),
            report: Report::default(),
            snapshots: Arc::new(NothingToCopy),
            schemas: Arc::new(SchemasInMemory::default()),
        };
        let mut source: Box<dyn Source> = journal.reader(setting);
        let task = tokio::spawn(async move { source.run(context).await });
        Reading { task, inlet, committed, stop, position: None, held: None }
    }

    /// The next chunk with events; `None` when the run has ended.
    pub(crate) async fn next(&mut self) -> Option<Chunk> {
        let late = tokio::time::Instant::now() + PATIENCE;
        loop {
            // Positions alone come for ever.
            let received = tokio::time::timeout_at(late, self.inlet.receive()).await;
            let (chunk, claim) = received.expect("events come")?;
            self.position = claim.position.clone().or(self.position.take());
            if let Some(held) = &mut self.held {
                held.push(claim);
            }
            if !chunk.rows.is_empty() {
                return Some(chunk);
            }
        }
    }

    /// The numbers of the next so many events.
    pub(crate) async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            let Some(chunk) = self.next().await else { break };
            numbers.extend(chunk.events().map(|event| event.mark().major.1));
        }
        numbers
    }

    /// Waits for the first position, which comes when the reader has its place.
    pub(crate) async fn placed(&mut self) {
        let (_, claim) =
            tokio::time::timeout(PATIENCE, self.inlet.receive()).await.unwrap().expect("it has a place");
        self.position = claim.position.clone();
    }

    /// Stores all that came, as the checkpoint does.
    pub(crate) fn commit(&self) {
        self.committed.send_replace(self.position.clone());
    }

    /// Takes what comes until the run ends by itself.
    pub(crate) async fn ended(&mut self) -> Result<(), Fault> {
        while self.next().await.is_some() {}
        tokio::time::timeout(PATIENCE, &mut self.task).await.expect("it ends").unwrap()
    }

    /// Stops the run.
    pub(crate) async fn stop(mut self) -> Result<(), Fault> {
        self.stop.cancel();
        self.ended().await
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}
