//! Hands letters on to another destination, `dead_letters.to`, each as an event of its own.
//!
//! Invariant: a letter is in its file first, and is settled there only when the other destination has accepted it. What
//! that one refuses stays in the file. A destination that is away holds up nobody: letters gather in the files, up to
//! their cap.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use forebay_api::{Batch, Draft, Fault, Mark, Op, Progress, Row, Settled, Span, StreamId, Subject, json};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::courier::Courier;
use super::key::digest;
use super::letter::Letter;
use super::lines::id_digest;
use super::report::Selection;
use super::{DeadLetters, How, now_micros};
use crate::format::{Encoder, Format};
use crate::lane::TURN;
use crate::schemas::DEAD_LETTER_KEY;

/// Hands on the letters of one destination.
pub struct Forwarder {
    /// Whose.
    pub letters: Arc<DeadLetters>,
    /// The other destination's name.
    pub to: Arc<str>,
    /// Who brings them there.
    pub courier: Courier,
    /// What its records look like.
    pub format: Format,
    /// `name` and `environment` of the configuration.
    pub instance: (String, String),
}

impl Forwarder {
    /// Hands letters on as they are stored, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut failures = 0;
        let mut refused = HashSet::new();
        loop {
            let stored = self.letters.stored.notified();
            let ended = tokio::select! {
                ended = self.all(&mut refused) => ended,
                () = stop.cancelled() => return,
            };
            let wait = match ended {
                Ok(()) => {
                    if failures > 0 {
                        info!(destination = %self.letters.destination, to = %self.to, "dead letters are handed on again");
                    }
                    failures = 0;
                    None
                }
                Err(fault) => {
                    failures += 1;
                    if failures == 1 && fault.is_retryable() {
                        warn!(destination = %self.letters.destination, to = %self.to, error = %fault, remedy = fault.remedy(), "dead letters cannot be handed on; they stay in `data_dir` until they can");
                    } else if failures == 1 {
                        error!(destination = %self.letters.destination, to = %self.to, error = %fault, remedy = fault.remedy(), "dead letters cannot be handed on; they stay in `data_dir` until this is mended");
                    }
                    Some(self.courier.retry.wait(failures, None).max(TURN))
                }
            };
            tokio::select! {
                () = stored, if wait.is_none() => {}
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Hands on every letter that is there and was not refused.
    async fn all(&self, refused: &mut HashSet<String>) -> Result<(), Fault> {
        let selected = self.letters.select(Selection::default(), false).await?;
        let mut ids: Vec<String> =
            selected.into_iter().map(|one| one.id).filter(|id| !refused.contains(id)).collect();
        ids.reverse();
        while !ids.is_empty() {
            let letters = self.gather(&mut ids).await?;
            let Some(first) = letters.first() else { continue };
            let stream = Arc::new(self.stream(first));
            let make = |index: usize, mark| Ok(self.event(&letters[index], &stream, mark));
            let (result, progress) = self.courier.attempt(&stream, letters.len(), make).await?;
            self.conclude(letters, progress, refused).await?;
            result?;
        }
        Ok(())
    }

    /// The next letters of one source; takes them from the end of `ids`.
    async fn gather(&self, ids: &mut Vec<String>) -> Result<Vec<Letter>, Fault> {
        let limits = self.courier.batch;
        let next: Vec<String> = ids.iter().rev().take(limits.records).cloned().collect();
        let gathered = self.letters.with_files("reading dead letters", move |files| {
            let (mut letters, mut bytes, mut seen) = (Vec::<Letter>::new(), 0, 0);
            for id in next {
                if let Some(letter) = files.read(&id_digest(&id))? {
                    let size = letter.record.get().len();
                    let fits = letters.last().is_none_or(|last| {
                        source_of(last) == source_of(&letter) && bytes + size <= limits.bytes
                    });
                    if !fits {
                        break;
                    }
                    bytes += size;
                    letters.push(letter);
                }
                seen += 1;
            }
            Ok((letters, seen))
        });
        let (letters, seen) = gathered.await?;
        ids.truncate(ids.len() - seen);
        Ok(letters)
    }

    async fn conclude(
        &self,
        letters: Vec<Letter>,
        mut progress: Progress,
        refused: &mut HashSet<String>,
    ) -> Result<(), Fault> {
        let why: BTreeMap<usize, _> = std::mem::take(&mut progress.rejected).into_iter().collect();
        let count = why.len();
        if let Some(why) = why.values().next() {
            error!(
                letters = count, destination = %self.letters.destination, to = %self.to, reason = %why.reason,
                error = %why.chain.join(": "), "dead letters are refused there too; they stay in `data_dir`"
            );
        }
        let mut accepted = Vec::new();
        for (index, letter) in letters.into_iter().enumerate() {
            match progress.of(index) {
                Settled::Accepted => accepted.push(letter.id),
                Settled::Rejected => drop(refused.insert(letter.id)),
                Settled::Open => {}
            }
        }
        self.letters.settle(accepted, How::Forwarded).await?;
        Ok(())
    }

    /// What is handed on is a stream for each source and destination.
    fn stream(&self, letter: &Letter) -> StreamId {
        let epoch = digest(&[b"dead letters of", self.letters.destination.as_bytes()]);
        let epoch = u64::from_be_bytes(*epoch.first_chunk().expect("a digest has 16 bytes"));
        StreamId { source: source_of(letter).into(), epoch }
    }

    /// The event that a letter becomes.
    fn event(&self, letter: &Letter, stream: &Arc<StreamId>, mark: Mark) -> Batch {
        let mut draft = Draft::default();
        let mut source = b"\"type\":\"forebay\",\"name\":".to_vec();
        json::write_string(&stream.source, &mut source);
        source.extend_from_slice(b",\"destination\":");
        json::write_string(&self.letters.destination, &mut source);
        let source = String::from_utf8(source).expect("JSON of strings is a string");
        let subject = Subject::new(DEAD_LETTER_KEY, (None, None, None), source);
        let subject = draft.subject(&Arc::new(subject));
        let mut part = |bytes: &[u8]| {
            let start = draft.buf.len();
            draft.buf.extend_from_slice(bytes);
            draft.since(start)
        };
        let row = Row {
            mark,
            time: letter
                .time
                .parse::<jiff::Timestamp>()
                .map_or_else(|_| now_micros(), |time| time.as_microsecond()),
            xid: 0,
            subject,
            op: Op::Message,
            id: part(format!("dead_letter:{}:{}", self.letters.destination, letter.id).as_bytes()),
            key: part(letter.key_json().unwrap_or_default().as_bytes()),
            before: Span::default(),
            payload: part(&payload(letter)),
            unchanged: Span::default(),
            contexts: Span::default(),
            extra: Span::default(),
        };
        draft.push(row);
        let chunk = draft.finish(stream, now_micros(), false);
        let encoded = Encoder::new(&self.instance.0, &self.instance.1).encode(self.format, &chunk, &[]);
        Batch { chunk, verdicts: Vec::new(), encoded: vec![encoded] }
    }
}

/// The source that a letter's event came from; one of the first version does not say.
fn source_of(letter: &Letter) -> &str {
    letter.event.as_ref().map_or(&letter.destination, |event| &event.source)
}

/// What the schema `forebay/dead_letter/1-0-0` describes.
fn payload(letter: &Letter) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Payload<'l> {
        event_id: &'l str,
        destination: &'l str,
        reason: &'l str,
        chain: &'l [String],
        attempts: u32,
        stored: &'l str,
        record: &'l serde_json::value::RawValue,
    }
    let Letter { id, destination, reason, chain, attempts, time, record, .. } = letter;
    let payload =
        Payload { event_id: id, destination, reason, chain, attempts: *attempts, stored: time, record };
    serde_json::to_vec(&payload).expect("a letter is plain JSON")
}
