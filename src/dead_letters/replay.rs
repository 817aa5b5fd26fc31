//! Delivering letters again, to the destination that refused them.
//!
//! The desk takes one command of an operator at a time and divides it into a part for each source. With a daemon the
//! lane of that source takes its part when nothing else of it is under way, so that live events neither overtake what is
//! replayed nor are overtaken by it. Records go under a stream of their own: their marks are old, and must neither be
//! struck off as held nor move back what a destination keeps.
//!
//! Invariant: a letter is settled only after the destination has accepted its record. A part that is dropped half-way
//! leaves the rest of its letters open, and says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use forebay_api::{Blame, Fault, Progress, Settled, StreamId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{info, warn};

use super::courier::Courier;
use super::key::Apart;
use super::letter::Letter;
use super::lines::id_digest;
use super::report::Selection;
use super::{DeadLetters, How, RefusedAgain};
use crate::snapshot::Refusal;

/// What a replay adds to the epoch of a stream, so that its marks are compared with no others.
const REPLAY: u64 = 0x7265_706c_6179_6564;

/// An operator waits for a replay, so it does not try for ever.
const ATTEMPTS: u32 = 3;

/// Where order matters, few letters are looked at for one delivery: mostly they are of few keys.
const ORDERED: usize = 128;

/// How far a replay is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayProgress {
    /// Tells it from the one before.
    pub number: u64,
    /// Letters that were selected.
    pub selected: u64,
    /// Of these, delivered and settled.
    pub replayed: u64,
    /// Of these, refused again.
    pub refused: u64,
    /// Of these, not attempted or not answered. They stay.
    pub left: u64,
    /// Why some were left.
    pub why: BTreeSet<String>,
    /// The sources whose lanes have not begun with it: they are busy, or their servers are away.
    pub waiting: Vec<String>,
    /// Whether it is over.
    pub ended: bool,
}

/// Where commands are left and taken up.
#[derive(Debug, Default)]
pub(super) struct Desk {
    job: Mutex<Option<Job>>,
    /// The number of the newest command.
    news: watch::Sender<u64>,
}

#[derive(Debug)]
struct Job {
    progress: ReplayProgress,
    selection: Selection,
    /// By source; taken out when somebody takes it up.
    waiting: BTreeMap<String, VecDeque<String>>,
    /// Parts that are not over yet.
    unfinished: usize,
}

impl Desk {
    fn job<T>(&self, act: impl FnOnce(&mut Option<Job>) -> T) -> T {
        act(&mut self.job.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One source's letters of a command, for its lane.
#[derive(Debug)]
pub struct Part {
    letters: Arc<DeadLetters>,
    source: String,
    number: u64,
    selection: Selection,
    ids: VecDeque<String>,
    /// Letters of it of which nothing was told yet.
    untold: u64,
    /// Why it cannot go on.
    fault: Option<String>,
}

impl DeadLetters {
    /// Begins to replay a selection, by whoever calls [`DeadLetters::take_part`] for its sources; `sources` are those for
    /// which somebody does; `None`: any.
    pub async fn begin_replay(
        self: &Arc<Self>,
        selection: Selection,
        sources: Option<&[String]>,
    ) -> Result<ReplayProgress, Refusal> {
        let busy = || {
            Refusal::not_now(
                format!("a replay of `{}` is under way", self.destination),
                "wait until it has ended",
            )
        };
        if self.desk.job(|job| job.as_ref().is_some_and(|job| !job.progress.ended)) {
            return Err(busy());
        }
        let selected = self.select(selection.clone(), false).await;
        let selected = selected.map_err(|fault| {
            let remedy = fault.remedy().unwrap_or("say it again").to_owned();
            Refusal::not_now(fault.to_string(), remedy)
        })?;
        let mut progress = ReplayProgress { selected: selected.len() as u64, ..ReplayProgress::default() };
        let mut waiting: BTreeMap<String, VecDeque<String>> = BTreeMap::new();
        for letter in selected {
            match letter.source {
                Some(source) if sources.is_none_or(|sources| sources.contains(&source)) => {
                    waiting.entry(source).or_default().push_back(letter.id);
                    continue;
                }
                Some(source) => progress.why.insert(format!(
                    "nothing delivers from source `{source}` to `{}`: configure both, or drop the letters",
                    self.destination
                )),
                None => progress.why.insert(
                    "letters that a first version wrote do not say how to deliver them again: look at them with \
                     `forebay dlq show`, then drop them"
                        .to_owned(),
                ),
            };
            progress.left += 1;
        }
        progress.ended = waiting.is_empty();
        self.desk.job(|job| {
            if job.as_ref().is_some_and(|job| !job.progress.ended) {
                return Err(busy());
            }
            progress.number = job.as_ref().map_or(0, |job| job.progress.number) + 1;
            let (progress, unfinished) = (progress.clone(), waiting.len());
            *job = Some(Job { progress, selection, waiting, unfinished });
            Ok(())
        })?;
        self.desk.news.send_replace(progress.number);
        Ok(progress)
    }

    /// How far the last replay is; `None`: there was none in this process.
    pub fn replay_progress(&self) -> Option<ReplayProgress> {
        self.desk.job(|job| {
            let job = job.as_ref()?;
            Some(ReplayProgress { waiting: job.waiting.keys().cloned().collect(), ..job.progress.clone() })
        })
    }

    /// Changes when there may be a part to take.
    pub fn replay_news(&self) -> watch::Receiver<u64> {
        self.desk.news.subscribe()
    }

    /// The part of a source, if there is one that nobody has taken.
    pub fn take_part(self: &Arc<Self>, source: &str) -> Option<Part> {
        self.desk.job(|job| {
            let job = job.as_mut()?;
            let ids = job.waiting.remove(source)?;
            Some(Part {
                letters: self.clone(),
                source: source.to_owned(),
                number: job.progress.number,
                selection: job.selection.clone(),
                untold: ids.len() as u64,
                ids,
                fault: None,
            })
        })
    }

    /// The parts of all sources, where there are no lanes.
    pub fn take_all_parts(self: &Arc<Self>) -> Vec<Part> {
        let waiting =
            |job: &mut Option<Job>| job.iter().flat_map(|job| job.waiting.keys().cloned()).collect();
        let sources: Vec<String> = self.desk.job(waiting);
        sources.iter().filter_map(|source| self.take_part(source)).collect()
    }
}

impl Part {
    /// Ends it: nobody will deliver it.
    pub fn refuse(mut self, why: impl Into<String>) {
        self.fault = Some(why.into());
    }

    /// Selects anew: letters were stored since the command was given, and none of this source is from here on. Where
    /// order matters, those that only wait behind a selected one go with it.
    async fn renew(&mut self, in_order: bool) -> Result<(), Fault> {
        let selected = self.letters.select(self.selection.clone(), in_order).await?;
        let own = selected.into_iter().filter(|letter| letter.source.as_ref() == Some(&self.source));
        self.ids = own.map(|letter| letter.id).collect();
        let (before, now) = (self.untold, self.ids.len() as u64);
        self.untold = now;
        self.tell(0, |progress| progress.selected = progress.selected + now - before);
        Ok(())
    }

    /// Tells what became of `letters` letters.
    fn tell(&mut self, letters: u64, act: impl FnOnce(&mut ReplayProgress)) {
        self.untold -= letters;
        self.letters.desk.job(|job| {
            if let Some(job) = job.as_mut().filter(|job| job.progress.number == self.number) {
                act(&mut job.progress);
            }
        });
    }
}

/// Whatever ends a part, its command learns that it has ended, and of what nothing was told.
impl Drop for Part {
    fn drop(&mut self) {
        let untold = self.untold;
        let why = self.fault.take();
        self.tell(untold, |progress| {
            progress.left += untold;
            if untold > 0 {
                let interrupted = || "the replay was interrupted: say it again".to_owned();
                progress.why.insert(why.unwrap_or_else(interrupted));
            }
        });
        self.letters.desk.job(|job| {
            let Some(job) = job.as_mut().filter(|job| job.progress.number == self.number) else { return };
            job.unfinished -= 1;
            job.progress.ended = job.unfinished == 0;
        });
    }
}

/// How letters are delivered again.
#[derive(Clone)]
pub struct Replay {
    /// Who brings them.
    pub courier: Courier,
    /// Whether a letter waits for the older ones of its key.
    pub in_order: bool,
}

impl Replay {
    /// Replays a part until it is done, the destination fails for good, or `stop` says so.
    pub async fn run(&self, mut part: Part, stop: impl Fn() -> bool) {
        let name = part.letters.destination.clone();
        info!(destination = %name, letters = part.ids.len(), "dead letters are replayed");
        let result = async {
            part.renew(self.in_order).await?;
            while !part.ids.is_empty() && !stop() {
                self.step(&mut part).await?;
            }
            Ok(())
        };
        let result: Result<(), Fault> = result.await;
        if let Err(fault) = result {
            warn!(destination = %name, error = %fault, remedy = fault.remedy(), "replay of dead letters ended by a fault");
            part.fault = Some(fault.to_string());
        }
    }

    /// Delivers the next letters.
    async fn step(&self, part: &mut Part) -> Result<(), Fault> {
        let letters = self.gather(part).await?;
        let Some(first) = letters.first() else { return Ok(()) };
        let origin = first.stream().map_err(|error| unusable(first, error))?;
        let stream = Arc::new(StreamId { source: origin.source, epoch: origin.epoch ^ REPLAY });
        let mut letters = letters;
        for attempt in 1.. {
            let make = |index: usize, mark| {
                letters[index].batch(&stream, mark).map_err(|error| unusable(&letters[index], error))
            };
            let (result, progress) = self.courier.attempt(&stream, letters.len(), make).await?;
            letters = self.conclude(part, letters, progress).await?;
            if letters.is_empty() {
                break;
            }
            let left =
                || Fault::retryable("replaying dead letters", "records were neither accepted nor refused");
            let fault = result.err().unwrap_or_else(left);
            if !fault.is_retryable() || attempt == ATTEMPTS {
                return Err(fault);
            }
            tokio::time::sleep(self.courier.retry.wait(attempt, None)).await;
        }
        Ok(())
    }

    /// The next letters that may go together: of one stream, and where order matters none that depends on another.
    async fn gather(&self, part: &mut Part) -> Result<Vec<Letter>, Fault> {
        let limits = self.courier.batch;
        let most = if self.in_order { limits.records.min(ORDERED) } else { limits.records };
        let ids: Vec<String> = part.ids.iter().take(most).cloned().collect();
        let in_order = self.in_order;
        let gathered = part.letters.with_files("reading dead letters", move |files| {
            let (mut apart, mut letters, mut bytes) = (Apart::default(), Vec::<Letter>::new(), 0);
            let (mut seen, mut gone, mut behind) = (0, 0, 0u64);
            for id in ids {
                let digest = id_digest(&id);
                let Some(letter) = files.read(&digest)? else {
                    // settled meanwhile, by whomever
                    (seen, gone) = (seen + 1, gone + 1);
                    continue;
                };
                let size = letter.record.get().len();
                let same_stream = letters.last().is_none_or(|last| same_stream(last, &letter));
                if !letters.is_empty() && (!same_stream || bytes + size > limits.bytes) {
                    break;
                }
                // What depends on one of these goes once that is settled …
                if in_order && letter.key().is_some_and(|key| apart.has_dependent_on(key)) {
                    break;
                }
                seen += 1;
                // … and what depends on any other stays.
                if in_order && files.is_behind_another(&digest) {
                    behind += 1;
                    continue;
                }
                letter.key().map(|key| apart.take(key));
                bytes += size;
                letters.push(letter);
            }
            Ok((letters, seen, gone, behind))
        });
        let (letters, seen, gone, behind) = gathered.await?;
        part.ids.drain(..seen);
        part.tell(gone, |progress| progress.selected -= gone);
        part.tell(behind, |progress| {
            progress.left += behind;
            if behind > 0 {
                let why =
                    "an older letter of their key comes first, and was not selected or was refused again";
                progress.why.insert(why.to_owned());
            }
        });
        Ok(letters)
    }

    /// Settles what was accepted and counts what was refused again; gives back what is open.
    async fn conclude(
        &self,
        part: &mut Part,
        letters: Vec<Letter>,
        mut progress: Progress,
    ) -> Result<Vec<Letter>, Fault> {
        let mut why: BTreeMap<usize, _> = std::mem::take(&mut progress.rejected).into_iter().collect();
        let (mut accepted, mut refused, mut open) = (Vec::new(), Vec::new(), Vec::new());
        for (index, letter) in letters.into_iter().enumerate() {
            match (progress.of(index), why.remove(&index)) {
                (Settled::Accepted, _) => accepted.push(letter.id),
                (Settled::Rejected, Some(why)) => refused.push(RefusedAgain { letter, why }),
                (Settled::Open | Settled::Rejected, _) => open.push(letter),
            }
        }
        let (taken, again) = (accepted.len() as u64, refused.len() as u64);
        part.letters.settle(accepted, How::Replayed).await?;
        part.letters.refused_again(refused).await?;
        part.tell(taken + again, |progress| {
            progress.replayed += taken;
            progress.refused += again;
        });
        Ok(open)
    }
}

fn same_stream(one: &Letter, other: &Letter) -> bool {
    let stream =
        |letter: &Letter| letter.event.as_ref().map(|event| (event.source.clone(), event.epoch.clone()));
    stream(one) == stream(other)
}

fn unusable(letter: &Letter, error: super::Unusable) -> Fault {
    let doing = format!("reading the dead letter `{}`", letter.id);
    Fault::fatal(doing, Blame::Outside, error)
        .with_remedy("let a `forebay` of the version that wrote it replay it, or drop it")
}
