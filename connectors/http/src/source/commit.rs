//! [`Committer`]: the one owner of marks. It joins the events of all requests that wait into one chunk, sends it, and
//! tells each request when the chunk is durable.
//!
//! Invariants: marks ascend in the order of sends; a request is told only after its ticket came true; one that nobody
//! waits for any more because its time was over is not sent, for it was answered that it is not stored.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay_api::{Chunk, Closed, Outlet, Row, Span, StreamId, Subject, Ticket};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, timeout_at};

use super::Gathered;

/// Requests that wait to be joined; more wait before that. Their bytes are bounded elsewhere.
const WAITING: usize = 4096;
/// Sends whose tickets are open. While they are, requests gather, so that few sends carry many; more than one, because
/// a journal is at work on one while it takes the next.
const OPEN_SENDS: usize = 4;
/// What one send holds at most, unless a single request holds more.
const MAX_BYTES: usize = 4 << 20;
/// The same in rows.
const MAX_ROWS: usize = 50_000;
/// The same in subjects, which are looked for one by one.
const MAX_SUBJECTS: usize = 8192;

/// Events were not made durable, or nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the events could not be stored in time")]
pub(super) struct NotDurable;

/// A request's way to the committer.
#[derive(Clone, Debug)]
pub(super) struct Intake {
    sender: mpsc::Sender<Waiting>,
    /// How long a request waits.
    patience: Duration,
    /// Whether the last that was heard of a send is that it is durable.
    healthy: Arc<AtomicBool>,
}

/// A request that waits.
#[derive(Debug)]
struct Waiting {
    gathered: Gathered,
    received: i64,
    /// Until when it waits.
    until: Instant,
    done: oneshot::Sender<()>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Committer {
    receiver: mpsc::Receiver<Waiting>,
    outlet: Outlet,
    stream: Arc<StreamId>,
    /// The next mark.
    next: u64,
    healthy: Arc<AtomicBool>,
}

impl Intake {
    /// Hands events over and waits until they are durable.
    pub(super) async fn commit(&self, gathered: Gathered, received: i64) -> Result<(), NotDurable> {
        let until = Instant::now() + self.patience;
        let (done, heard) = oneshot::channel();
        let waiting = Waiting { gathered, received, until, done };
        let told = async {
            self.sender.send(waiting).await.map_err(|_| NotDurable)?;
            heard.await.map_err(|_| NotDurable)
        };
        let result = timeout_at(until, told).await.unwrap_or(Err(NotDurable));
        self.healthy.store(result.is_ok(), Ordering::Relaxed);
        result
    }

    /// Whether the last that was heard of a send is that it is durable.
    pub(super) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }
}

impl Committer {
    /// A committer for one run of the source, and the way to it.
    pub(super) fn new(outlet: Outlet, stream: StreamId, patience: Duration) -> (Committer, Intake) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let healthy = Arc::new(AtomicBool::new(true));
        let committer =
            Committer { receiver, outlet, stream: Arc::new(stream), next: 1, healthy: healthy.clone() };
        (committer, Intake { sender, patience, healthy })
    }

    /// Works until every [`Intake`] is gone and every ticket is told of, or the pipeline is closed.
    pub(super) async fn run(mut self) {
        let mut open = FuturesUnordered::new();
        let mut left_over = None;
        loop {
            let first = match left_over.take() {
                Some(waiting) if open.len() < OPEN_SENDS => Some(waiting),
                kept => {
                    left_over = kept;
                    tokio::select! {
                        Some(()) = open.next() => continue,
                        received = self.receiver.recv(), if left_over.is_none() && open.len() < OPEN_SENDS => received,
                    }
                }
            };
            let Some(first) = first else { break };
            let (chunk, waiting, rest) = self.join(first);
            left_over = rest;
            if waiting.is_empty() {
                continue;
            }
            match self.outlet.send_ticketed(chunk, None).await {
                Ok(ticket) => open.push(tell(ticket, waiting)),
                // Whoever waits hears of it by what is dropped.
                Err(Closed) => break,
            }
        }
        while open.next().await.is_some() {}
    }

    /// Joins what waits to one chunk, and gives what did not fit any more.
    fn join(&mut self, first: Waiting) -> (Chunk, Vec<oneshot::Sender<()>>, Option<Waiting>) {
        let mut joined =
            Joined { chunk: Chunk::empty(self.stream.clone(), 0), buf: Vec::new(), index: HashMap::new() };
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(request) = next.take() {
            if request.until <= Instant::now() {
                next = self.receiver.try_recv().ok();
                continue;
            }
            if !waiting.is_empty() && !joined.has_room(&request.gathered) {
                next = Some(request);
                break;
            }
            let rows = request.gathered.len();
            joined.add(request.gathered.finish(&self.stream, request.received, self.next));
            self.next += u64::try_from(rows).expect("a request has fewer events than bytes");
            waiting.push(request.done);
            next = self.receiver.try_recv().ok();
        }
        joined.chunk.buf = joined.buf.into();
        (joined.chunk, waiting, next)
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.healthy.store(false, Ordering::Relaxed);
    }
}

/// Tells who waits once the ticket came true; a ticket that does not is told by what is dropped.
async fn tell(ticket: Ticket, waiting: Vec<oneshot::Sender<()>>) {
    if ticket.await.is_ok() {
        // A client may have hung up: what it waited for is true all the same.
        waiting.into_iter().for_each(|done| done.send(()).unwrap_or_default());
    }
}

/// Chunks that become one.
struct Joined {
    chunk: Chunk,
    buf: Vec<u8>,
    /// Where each subject is; by address, for a schema's subject is made once.
    index: HashMap<*const Subject, u16>,
}

impl Joined {
    fn has_room(&self, more: &Gathered) -> bool {
        self.buf.len() + more.bytes() <= MAX_BYTES
            && self.chunk.rows.len() + more.len() <= MAX_ROWS
            && self.chunk.subjects.len() + more.schemas() <= MAX_SUBJECTS
    }

    fn add(&mut self, chunk: Chunk) {
        let at = u32::try_from(self.buf.len()).expect("a chunk is below 4 GiB");
        let first = u32::try_from(self.chunk.rows.len()).expect("a chunk is below 4 GiB");
        let subjects: Vec<u16> = chunk.subjects.into_iter().map(|subject| self.subject(subject)).collect();
        self.buf.extend_from_slice(&chunk.buf);
        let moved =
            |span: Span| if span.is_empty() { span } else { Span { at: span.at + at, len: span.len } };
        self.chunk.rows.extend(chunk.rows.into_iter().map(|row| Row {
            subject: subjects[usize::from(row.subject)],
            id: moved(row.id),
            payload: moved(row.payload),
            contexts: moved(row.contexts),
            ..row
        }));
        self.chunk.refused.extend(chunk.refused.into_iter().map(|(row, why)| (first + row, why)));
        self.chunk.received = self.chunk.received.max(chunk.received);
    }

    fn subject(&mut self, subject: Arc<Subject>) -> u16 {
        let subjects = &mut self.chunk.subjects;
        *self.index.entry(Arc::as_ptr(&subject)).or_insert_with(|| {
            subjects.push(subject);
            u16::try_from(subjects.len() - 1)
                .expect("a chunk has at most `MAX_SUBJECTS` and one request's subjects")
        })
    }
}
