//! The thread that owns a file: it alone writes, syncs and rotates, in the order of its jobs.
//!
//! It writes what is queued, then syncs once for all of it: what came while the last sync ran shares the next one,
//! so the disk sets the pace and no timer does.
//!
//! Invariant: when a delivery fails, or is given up by its lane, every later one of its stream is refused until the
//! lane asks again what is held, which it does when it begins anew. So nothing lands before what it follows.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use forebay_api::{Blame, Delivery, Fault, StreamId};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::ndjson_file::NdjsonFile;

/// Jobs that may wait; every lane has few under way, and what does not fit waits in line.
const JOBS: usize = 64;

/// How many deliveries share a sync at most, so that the first does not wait for ever.
const GROUP: usize = 64;

/// How long a rotation that failed waits when nothing else is to be done.
const ROTATE_AGAIN: Duration = Duration::from_secs(5);

/// Where the answer to a job goes.
type Reply = oneshot::Sender<Result<(), Fault>>;

/// What the thread is asked to do.
enum Job {
    /// Open the file if it is not.
    Open(Reply),
    /// A lane begins with this stream, anew or for the first time.
    Begin(Arc<StreamId>, Reply),
    /// Write the records still open.
    Write(Delivery, Reply),
    /// Close the file and end.
    Close(Reply),
}

/// A handle on the thread; when it is dropped, the thread ends after the job it is at.
#[derive(Debug)]
pub(crate) struct Writer(mpsc::Sender<Job>);

impl Writer {
    /// Starts the thread. Needs a tokio runtime, whose clock it uses.
    pub(crate) fn start(file: NdjsonFile) -> Result<Writer, Fault> {
        let (jobs, queue) = mpsc::channel(JOBS);
        let runtime = Handle::current();
        std::thread::Builder::new()
            .name("file-writer".to_owned())
            .spawn(move || Work { file, failed: HashSet::new() }.run(queue, &runtime))
            .map_err(|error| Fault::fatal("starting a thread for a file", Blame::Outside, error))?;
        Ok(Writer(jobs))
    }

    /// Opens the file if it is not.
    pub(crate) async fn open(&self) -> Result<(), Fault> {
        self.ask(Job::Open).await
    }

    /// Takes deliveries of a stream again after a failed one.
    pub(crate) async fn begin(&self, stream: &StreamId) -> Result<(), Fault> {
        let stream = Arc::new(stream.clone());
        self.ask(|reply| Job::Begin(stream, reply)).await
    }

    /// Writes a delivery; calls are queued in the order of their first poll.
    pub(crate) async fn write(&self, delivery: Delivery) -> Result<(), Fault> {
        self.ask(|reply| Job::Write(delivery, reply)).await
    }

    /// Closes the file and ends the thread.
    pub(crate) async fn close(&self) -> Result<(), Fault> {
        self.ask(Job::Close).await
    }

    async fn ask(&self, job: impl FnOnce(Reply) -> Job) -> Result<(), Fault> {
        let gone = || Fault::fatal("asking the writer of a file", Blame::Defect, "its thread has ended");
        let (reply, answer) = oneshot::channel();
        self.0.send(job(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// What the thread owns.
struct Work {
    file: NdjsonFile,
    /// Streams with a failed delivery; see the module.
    failed: HashSet<Arc<StreamId>>,
}

impl Work {
    fn run(mut self, mut queue: mpsc::Receiver<Job>, runtime: &Handle) {
        let mut next = self.wait(&mut queue, runtime);
        while let Some(job) = next {
            let mut behind = None;
            match job {
                Job::Open(reply) => answer(reply, self.file.open()),
                Job::Begin(stream, reply) => {
                    self.failed.remove(&stream);
                    answer(reply, Ok(()));
                }
                Job::Write(delivery, reply) => behind = self.write(delivery, reply, &mut queue),
                Job::Close(reply) => {
                    drop(self.file);
                    return answer(reply, Ok(()));
                }
            }
            next = behind.or_else(|| self.wait(&mut queue, runtime));
        }
    }

    /// The next job; while there is none, the file is rotated when it comes of age.
    fn wait(&mut self, queue: &mut mpsc::Receiver<Job>, runtime: &Handle) -> Option<Job> {
        loop {
            let Some(left) = self.file.time_left() else { return queue.blocking_recv() };
            match runtime.block_on(async { tokio::time::timeout(left, queue.recv()).await }) {
                Ok(job) => return job,
                Err(_) => {
                    if let Err(fault) = self.file.rotate_if_old() {
                        // The next delivery meets it again and tells its lane.
                        warn!(error = %fault, remedy = fault.remedy(), "file could not be rotated");
                        let again = runtime
                            .block_on(async { tokio::time::timeout(ROTATE_AGAIN, queue.recv()).await });
                        if let Ok(job) = again {
                            return job;
                        }
                    }
                }
            }
        }
    }

    /// Writes a delivery and those queued behind it, syncs once, and answers all. A job of another kind that was
    /// behind them is given back.
    fn write(&mut self, delivery: Delivery, reply: Reply, queue: &mut mpsc::Receiver<Job>) -> Option<Job> {
        let mut written = Vec::new();
        let mut next = Some((delivery, reply));
        let mut behind = None;
        while let Some((delivery, reply)) = next.take() {
            match self.append(&delivery, &reply) {
                Ok(()) => written.push((delivery, reply)),
                Err(fault) => {
                    self.refuse(delivery, reply, fault);
                    // Closed after a failure: what was written before in this group is cut away with it.
                    if !self.file.is_open() {
                        written
                            .drain(..)
                            .for_each(|(delivery, reply)| self.refuse(delivery, reply, cut_away()));
                    }
                    break;
                }
            }
            if written.len() < GROUP {
                match queue.try_recv() {
                    Ok(Job::Write(delivery, reply)) => next = Some((delivery, reply)),
                    Ok(other) => behind = Some(other),
                    // Nothing there, or nobody any more, which `wait` will see.
                    Err(_) => {}
                }
            }
        }
        assert!(written.is_empty() || self.file.is_open(), "only what is in an open file can be synced");
        let mut synced = self.file.sync();
        for (mut delivery, reply) in written {
            match std::mem::replace(&mut synced, Ok(())) {
                Ok(()) => {
                    delivery.accept_all();
                    drop(delivery);
                    answer(reply, Ok(()));
                }
                Err(fault) => {
                    self.refuse(delivery, reply, fault);
                    synced = Err(cut_away());
                }
            }
        }
        behind
    }

    fn append(&mut self, delivery: &Delivery, reply: &Reply) -> Result<(), Fault> {
        if reply.is_closed() || self.failed.contains(delivery.stream()) {
            return Err(Fault::retryable("writing to a file", "an earlier delivery failed or was given up"));
        }
        self.file.append(delivery.open().map(|(_, record)| record.body()))
    }

    /// Answers a delivery that failed, none of which was accepted.
    fn refuse(&mut self, delivery: Delivery, reply: Reply, fault: Fault) {
        self.failed.insert(delivery.stream().clone());
        drop(delivery);
        answer(reply, Err(fault));
    }
}

fn cut_away() -> Fault {
    Fault::retryable("writing to a file", "what was written with it failed, and it was cut away with that")
}

fn answer(reply: Reply, result: Result<(), Fault>) {
    // Whoever asked may have been aborted; what was accepted went back with the delivery.
    reply.send(result).ok();
}
