//! The thread that owns a file: it alone writes, syncs and rotates, in the order of its jobs.
//!
//! It writes what is queued, then syncs once for all of it. While records come without a pause, syncs keep a little
//! distance, and what comes meanwhile shares the next one; after a pause the first delivery is synced at once.
//!
//! Invariant: when a delivery fails, or is given up by its lane, every later one of its stream is refused until the
//! lane asks again what is held, which it does when it begins anew. So nothing lands before what it follows.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::Thread;
use std::time::Duration;

use forebay_api::{Blame, Delivery, Fault, StreamId};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::warn;

use crate::ndjson_file::NdjsonFile;

/// Jobs that may wait; every lane has few under way, and what does not fit waits in line.
const JOBS: usize = 64;

/// How many deliveries share a sync at most, so that the first does not wait for ever.
const GROUP: usize = 64;

/// How far apart syncs are at least. One costs the disk and the processor nearly as much for a kilobyte as for a
/// megabyte, and no delivery waits long for so little.
const SYNC_EVERY: Duration = Duration::from_millis(10);

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
pub(crate) struct Writer {
    // Dropped before the thread is woken for the last time, so that it sees that nobody will ask any more.
    jobs: mpsc::Sender<Job>,
    wake: Wake,
}

/// Wakes the thread where it waits for a file to come of age.
#[derive(Debug)]
struct Wake(Thread);

impl Drop for Wake {
    fn drop(&mut self) {
        self.0.unpark();
    }
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(file: NdjsonFile) -> Result<Writer, Fault> {
        let (jobs, queue) = mpsc::channel(JOBS);
        let thread = std::thread::Builder::new()
            .name("file-writer".to_owned())
            .spawn(move || Work::new(file).run(queue))
            .map_err(|error| Fault::fatal("starting a thread for a file", Blame::Outside, error))?;
        Ok(Writer { jobs, wake: Wake(thread.thread().clone()) })
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
        self.jobs.send(job(reply)).await.map_err(|_| gone())?;
        self.wake.0.unpark();
        answer.await.map_err(|_| gone())?
    }
}

/// What the thread owns.
struct Work {
    file: NdjsonFile,
    /// Streams with a failed delivery; see the module.
    failed: HashSet<Arc<StreamId>>,
    /// When the last sync ended.
    synced: Option<Instant>,
}

impl Work {
    fn new(file: NdjsonFile) -> Work {
        Work { file, failed: HashSet::new(), synced: None }
    }

    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut next = self.wait(&mut queue);
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
            next = behind.or_else(|| self.wait(&mut queue));
        }
    }

    /// The next job; while there is none, the file is rotated when it comes of age.
    fn wait(&mut self, queue: &mut mpsc::Receiver<Job>) -> Option<Job> {
        while let Some(left) = self.file.time_left() {
            match queue.try_recv() {
                Ok(job) => return Some(job),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if left.is_zero() => {
                    if let Err(fault) = self.file.rotate_if_old() {
                        // The file is closed now; the next delivery opens it and meets what is wrong, if it lasts.
                        warn!(error = %fault, remedy = fault.remedy(), "file could not be rotated");
                    }
                }
                // Whoever asks wakes the thread, also between the look into the queue and this.
                Err(TryRecvError::Empty) => std::thread::park_timeout(left),
            }
        }
        queue.blocking_recv()
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
                match self.before_sync(queue) {
                    Some(Job::Write(delivery, reply)) => next = Some((delivery, reply)),
                    other => behind = other,
                }
            }
        }
        assert!(written.is_empty() || self.file.is_open(), "only what is in an open file can be synced");
        let mut synced = self.file.sync();
        self.synced = Some(Instant::now());
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

    /// What is queued; where that is nothing, what has gathered by the time that the next sync is due. Nothing may mean
    /// that nobody is there any more, which `wait` will see.
    fn before_sync(&self, queue: &mut mpsc::Receiver<Job>) -> Option<Job> {
        queue.try_recv().ok().or_else(|| {
            let due = self.synced.filter(|_| self.file.is_synced_by_us())? + SYNC_EVERY;
            std::thread::sleep(due.checked_duration_since(Instant::now())?);
            queue.try_recv().ok()
        })
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use forebay_api::{Batch, Chunk, Draft, Encoded, Op, Part, Progress, Row, Settled, Span, Subject};

    use super::*;
    use crate::config::{FileConfig, Fsync, RotateConfig};

    fn writer(path: &Path) -> Writer {
        let config =
            FileConfig { path: path.to_owned(), rotate: RotateConfig::default(), fsync: Fsync::Batch };
        Writer::start(NdjsonFile::new(config)).unwrap()
    }

    fn stream(name: &str) -> Arc<StreamId> {
        Arc::new(StreamId { source: name.into(), epoch: 1 })
    }

    /// A delivery of one record.
    fn delivery(stream: &Arc<StreamId>, body: &str) -> (Delivery, oneshot::Receiver<Progress>) {
        let mut draft = Draft::default();
        let subject =
            draft.subject(&Arc::new(Subject::new(("v", "n", "1-0-0"), (None, None, None), String::new())));
        let none = Span::default();
        draft.push(Row {
            mark: forebay_api::Mark::MIN,
            time: 0,
            xid: 0,
            subject,
            op: Op::Insert,
            id: none,
            key: none,
            before: none,
            payload: none,
            unchanged: none,
            contexts: none,
            extra: none,
        });
        let chunk: Chunk = draft.finish(stream, 0, false);
        let ends = vec![u32::try_from(body.len()).unwrap()];
        let encoded = vec![Encoded::new(body.as_bytes().to_vec(), ends)];
        let batch = Arc::new(Batch { chunk, verdicts: Vec::new(), encoded });
        let part = Part { batch, rows: [0].into(), range: 0..1 };
        Delivery::new([part].into(), 0, Progress::new(1))
    }

    #[tokio::test]
    async fn after_a_failed_delivery_later_ones_wait_until_the_lane_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.ndjson");
        let (writer, failing, other) = (writer(&path), stream("failing"), stream("other"));
        fs::create_dir(&path).unwrap();
        let (first, _) = delivery(&failing, "{\"n\":1}");
        assert!(!writer.write(first).await.unwrap_err().is_retryable());
        fs::remove_dir(&path).unwrap();

        let (second, back) = delivery(&failing, "{\"n\":2}");
        assert!(writer.write(second).await.unwrap_err().is_retryable());
        assert_eq!(back.await.unwrap().of(0), Settled::Open);
        let (elsewhere, back) = delivery(&other, "{\"other\":1}");
        writer.write(elsewhere).await.unwrap();
        assert_eq!(back.await.unwrap().of(0), Settled::Accepted);

        writer.begin(&failing).await.unwrap();
        for body in ["{\"n\":1}", "{\"n\":2}"] {
            writer.write(delivery(&failing, body).0).await.unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"other\":1}\n{\"n\":1}\n{\"n\":2}\n");
    }

    #[tokio::test]
    async fn a_delivery_that_was_given_up_is_not_written_and_nothing_behind_it_either() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.ndjson");
        let (jobs, queue) = mpsc::channel(JOBS);
        let stream = stream("aborted");
        let (given_up, _) = oneshot::channel();
        let (reply, answer) = oneshot::channel();
        jobs.try_send(Job::Write(delivery(&stream, "{\"n\":1}").0, given_up)).unwrap();
        jobs.try_send(Job::Write(delivery(&stream, "{\"n\":2}").0, reply)).unwrap();
        let config = FileConfig { path: path.clone(), rotate: RotateConfig::default(), fsync: Fsync::Batch };
        let work = Work::new(NdjsonFile::new(config));
        let thread = std::thread::spawn(move || work.run(queue));
        assert!(answer.await.unwrap().unwrap_err().is_retryable());
        let (reply, answer) = oneshot::channel();
        jobs.send(Job::Close(reply)).await.unwrap();
        answer.await.unwrap().unwrap();
        thread.join().unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_failure_takes_back_what_was_written_before_it_for_the_same_sync() {
        let folder = tempfile::tempdir().unwrap();
        // The name fits into the folder, but not with the time and number of a rotated file.
        let path = folder.path().join("x".repeat(245) + ".ndjson");
        let bytes = Some(forebay_api::units::ByteSize::bytes(10));
        let config =
            FileConfig { path: path.clone(), rotate: RotateConfig { bytes, age: None }, fsync: Fsync::Batch };
        let (jobs, queue) = mpsc::channel(JOBS);
        let mut answers = Vec::new();
        for (name, body) in [("one", "{\"n\":1}"), ("two", "{\"n\":2}")] {
            let (reply, answer) = oneshot::channel();
            let (delivery, back) = delivery(&stream(name), body);
            jobs.try_send(Job::Write(delivery, reply)).unwrap();
            answers.push((answer, back));
        }
        let work = Work::new(NdjsonFile::new(config));
        let thread = std::thread::spawn(move || work.run(queue));
        for (answer, back) in answers {
            answer.await.unwrap().unwrap_err();
            assert_eq!(back.await.unwrap().of(0), Settled::Open);
        }
        drop(jobs);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_file_is_rotated_for_its_age_while_nothing_comes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.ndjson");
        let age = Some(forebay_api::units::Period::millis(30));
        let config = FileConfig { path, rotate: RotateConfig { bytes: None, age }, fsync: Fsync::Batch };
        let writer = Writer::start(NdjsonFile::new(config)).unwrap();
        writer.write(delivery(&stream("quiet"), "{}").0).await.unwrap();
        let two_files = async {
            while fs::read_dir(folder.path()).unwrap().count() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), two_files).await.expect("it is rotated");
    }

    #[tokio::test]
    async fn a_writer_that_is_dropped_lets_go_of_a_file_that_is_not_old_yet() {
        let folder = tempfile::tempdir().unwrap();
        let age = Some(forebay_api::units::Period::seconds(3600));
        let path = folder.path().join("out.ndjson");
        let config = FileConfig { path, rotate: RotateConfig { bytes: None, age }, fsync: Fsync::Batch };
        for _ in 0..3 {
            let writer = Writer::start(NdjsonFile::new(config.clone())).unwrap();
            writer.write(delivery(&stream("short"), "{}").0).await.unwrap();
            writer.write(delivery(&stream("short"), "{}").0).await.unwrap();
        }
    }
}
