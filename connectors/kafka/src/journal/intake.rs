//! A message of the journal is one chunk, whose events keep the ids that they came with.

use std::sync::Arc;

use bytes::Bytes;
use forebay_api::{Blame, Chunk, Fault, Mark, StreamId};

use crate::source::entry::{Entry, Intake};
use crate::source::transcribe::mark;

/// Reads chunks out of messages.
#[derive(Default)]
pub(crate) struct Decoder {
    chunks: Vec<Chunk>,
    rows: usize,
    bytes: usize,
}

impl Intake for Decoder {
    fn take(&mut self, stream: &Arc<StreamId>, entry: &Entry<'_>) -> Result<(), Fault> {
        let place = || {
            format!("reading offset {} of partition {} of `{}`", entry.offset, entry.partition, entry.topic)
        };
        let Some(value) = entry.value else {
            return Err(foreign(place(), "the message has no value"));
        };
        let decoded = Chunk::decode(Bytes::copy_from_slice(value));
        let chunk = decoded.map_err(|error| foreign(place(), error))?;
        if chunk.rows.is_empty() {
            return Err(foreign(place(), "the message has no events"));
        }
        // So that no event of the message has a mark that cannot be said.
        mark(entry.offset, chunk.rows.len())?;
        let at = |index: usize, _: Mark| {
            mark(entry.offset, index).expect("the last one of the message has a mark, so this one has")
        };
        let mut chunk = chunk.restream(stream.clone(), at);
        // A transaction is spread over the partitions, so none of them knows where it ends.
        chunk.inside_transaction = false;
        self.rows += chunk.rows.len();
        self.bytes += chunk.weight();
        self.chunks.push(chunk);
        Ok(())
    }

    fn gathered(&self) -> (usize, usize) {
        (self.rows, self.bytes)
    }

    fn chunks(&mut self) -> Vec<Chunk> {
        (self.rows, self.bytes) = (0, 0);
        std::mem::take(&mut self.chunks)
    }
}

/// What is not ours must not be skipped: nobody knows what it stands in place of.
fn foreign(doing: String, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::fatal(doing, Blame::Outside, error).with_remedy(
        "make sure that only Forebay writes to this topic, and that no older one reads it; then move the group past the \
         message by `kafka-consumer-groups.sh --reset-offsets`",
    )
}
