//! The thread that owns the log: it alone writes and syncs, in the order of its jobs.
//!
//! It writes what is queued, then syncs once for all of it; what comes meanwhile shares the next sync. So a lone
//! delivery waits for one sync, and many share one, without any timer.
//!
//! Invariant: when a delivery fails, or is given up by its lane, every later one of its stream is refused until the
//! lane asks again what is held, which it does when it begins anew. So nothing lands before what it follows, and what
//! is held is told only after all that was queued before.

use std::collections::HashSet;
use std::sync::Arc;

use forebay_api::{Blame, Delivery, Fault, Mark, StreamId, step};
use tokio::sync::{mpsc, oneshot};

use crate::frame::Entry;
use crate::log::Log;

/// Jobs that may wait; a lane has few under way, and what does not fit waits in line.
const JOBS: usize = 64;

/// Bytes of a group that share a sync: enough to be written at the disk's speed, few enough that the first does not
/// wait long.
const GROUP_BYTES: u64 = 8 << 20;

/// Where the answer to a job goes.
type Reply<T> = oneshot::Sender<Result<T, Fault>>;

/// What the thread is asked to do.
enum Job {
    /// A lane begins with this stream, anew or for the first time: what is held of it?
    Begin(StreamId, Reply<Option<Mark>>),
    /// Make these entries of the delivery durable.
    Append(Vec<Entry>, Delivery, Reply<()>),
    /// Close the log and end.
    Close(Reply<()>),
}

/// A handle on the thread; when it is dropped, the thread ends after the job it is at.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(log: Log) -> Result<Writer, Fault> {
        let (jobs, queue) = mpsc::channel(JOBS);
        std::thread::Builder::new()
            .name("journal-writer".to_owned())
            .spawn(move || Work { log, failed: HashSet::new() }.run(queue))
            .map_err(|error| Fault::fatal("starting a thread for a journal", Blame::Outside, error))?;
        Ok(Writer { jobs })
    }

    /// Takes deliveries of a stream again after a failed one; what is held of it.
    pub(crate) async fn begin(&self, stream: &StreamId) -> Result<Option<Mark>, Fault> {
        self.ask(|reply| Job::Begin(stream.clone(), reply)).await
    }

    /// Makes a delivery durable; calls are queued in the order of their first poll.
    pub(crate) async fn append(&self, entries: Vec<Entry>, delivery: Delivery) -> Result<(), Fault> {
        self.ask(|reply| Job::Append(entries, delivery, reply)).await
    }

    /// Closes the log and ends the thread.
    pub(crate) async fn close(&self) -> Result<(), Fault> {
        self.ask(Job::Close).await
    }

    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, Fault> {
        let gone = || Fault::fatal("asking the writer of a journal", Blame::Defect, "its thread has ended");
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// What the thread owns.
struct Work {
    log: Log,
    /// Streams with a failed delivery; see the module.
    failed: HashSet<Arc<StreamId>>,
}

impl Work {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut next = queue.blocking_recv();
        while let Some(job) = next {
            let mut behind = None;
            match job {
                Job::Begin(stream, reply) => {
                    self.failed.remove(&stream);
                    answer(reply, Ok(self.log.held(&stream)));
                }
                Job::Append(entries, delivery, reply) => {
                    behind = self.append((entries, delivery, reply), &mut queue);
                }
                Job::Close(reply) => return answer(reply, self.log.close()),
            }
            next = behind.or_else(|| queue.blocking_recv());
        }
        // Nobody is left to be told; what was acknowledged is durable all the same.
        self.log.close().ok();
    }

    /// Writes a delivery and those queued behind it, syncs once, and answers all. A job of another kind that was behind
    /// them is given back.
    fn append(
        &mut self,
        first: (Vec<Entry>, Delivery, Reply<()>),
        queue: &mut mpsc::Receiver<Job>,
    ) -> Option<Job> {
        let mut written: Vec<(Delivery, Reply<()>)> = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        let mut behind = None;
        while let Some((mut entries, delivery, reply)) = next.take() {
            bytes += entries.iter().map(Entry::len).sum::<u64>();
            match self.write(&mut entries, &delivery, &reply) {
                Ok(()) => written.push((delivery, reply)),
                Err(fault) => {
                    self.refuse(delivery, reply, fault);
                    if self.log.is_broken() {
                        written
                            .drain(..)
                            .for_each(|(delivery, reply)| self.refuse(delivery, reply, taken_back()));
                    }
                }
            }
            if bytes < GROUP_BYTES {
                match queue.try_recv() {
                    Ok(Job::Append(entries, delivery, reply)) => next = Some((entries, delivery, reply)),
                    Ok(other) => behind = Some(other),
                    // Nobody may be there any more, which the next wait will see.
                    Err(_) => {}
                }
            }
        }
        let mut committed = self.log.commit();
        for (mut delivery, reply) in written {
            match std::mem::replace(&mut committed, Ok(())) {
                Ok(()) => {
                    delivery.accept_all();
                    drop(delivery);
                    answer(reply, Ok(()));
                }
                Err(fault) => {
                    self.refuse(delivery, reply, fault);
                    committed = Err(taken_back());
                }
            }
        }
        step!("journal-acknowledged");
        behind
    }

    fn write(&mut self, entries: &mut [Entry], delivery: &Delivery, reply: &Reply<()>) -> Result<(), Fault> {
        if reply.is_closed() || self.failed.contains(delivery.stream()) {
            return Err(Fault::retryable(
                "writing to a journal",
                "an earlier delivery failed or was given up",
            ));
        }
        self.log.append(entries)
    }

    /// Answers a delivery that failed, none of which was accepted.
    fn refuse(&mut self, delivery: Delivery, reply: Reply<()>, fault: Fault) {
        self.failed.insert(delivery.stream().clone());
        drop(delivery);
        answer(reply, Err(fault));
    }
}

fn taken_back() -> Fault {
    Fault::retryable("writing to a journal", "what was written with it could not be made durable")
}

fn answer<T>(reply: Reply<T>, result: Result<T, Fault>) {
    // Whoever asked may have been aborted; what was accepted went back with the delivery.
    reply.send(result).ok();
}

#[cfg(test)]
mod tests {
    use forebay_api::{Op, Part, Progress, Settled};
    use tokio::sync::oneshot::Receiver;

    use super::*;
    use crate::model::{config, entry, setting};
    use crate::rig::{batch, stream};

    /// A job for one entry, where its answer comes, and what was settled.
    fn job(number: u64, size: usize) -> (Job, Receiver<Result<(), Fault>>, Receiver<Progress>) {
        let part = Part { batch: batch(&stream(1), [number], 1, Op::Insert), rows: [0].into(), range: 0..1 };
        let (delivery, back) = Delivery::new([part].into(), 0, Progress::new(1));
        let (reply, answer) = oneshot::channel();
        (Job::Append(vec![entry(1, number, &vec![7; size])], delivery, reply), answer, back)
    }

    #[tokio::test]
    async fn a_write_that_fails_takes_its_group_back_and_what_follows_waits_for_the_lane() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(config(), &setting(folder.path())).unwrap();
        log.forbid_writes();
        let (jobs, queue) = mpsc::channel(JOBS);
        // The first is gathered, the second large enough to be handed to the kernel, and the third is behind both.
        let mut answers = Vec::new();
        for (number, size) in [(1, 100), (2, 2 << 20), (3, 100)] {
            let (job, answer, back) = job(number, size);
            jobs.try_send(job).unwrap_or_else(|_| panic!("there is room"));
            answers.push((answer, back));
        }
        let thread = std::thread::spawn(move || Work { log, failed: HashSet::new() }.run(queue));
        for (answer, back) in answers {
            answer.await.unwrap().unwrap_err();
            assert_eq!(back.await.unwrap().of(0), Settled::Open);
        }
        let writer = Writer { jobs };
        let (again, answer, _) = job(1, 100);
        writer.jobs.send(again).await.unwrap_or_else(|_| panic!("it runs"));
        assert!(answer.await.unwrap().unwrap_err().is_retryable());
        assert_eq!(writer.begin(&stream(1)).await.unwrap(), None);
        let (again, answer, back) = job(1, 100);
        writer.jobs.send(again).await.unwrap_or_else(|_| panic!("it runs"));
        answer.await.unwrap().unwrap();
        assert_eq!(back.await.unwrap().of(0), Settled::Accepted);
        writer.close().await.unwrap();
        thread.join().unwrap();
    }
}
