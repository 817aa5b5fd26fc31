//! The journal as a destination.

use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use forebay_api::{Blame, Delivery, Destination, Fault, Mark, Op, Piece, StreamId};

use crate::frame::{Entry, Summary, TooLarge};
use crate::journal::Opener;

/// Deliveries that may be under way: what gathers while a sync runs is the next commit.
const IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not 0");

/// What the pipeline of a source delivers to.
#[derive(Debug)]
pub(crate) struct JournalDestination {
    pub(crate) opener: Arc<Opener>,
}

#[async_trait]
impl Destination for JournalDestination {
    async fn open(&self) -> Result<(), Fault> {
        self.opener.opened().await.map(drop)
    }

    async fn held(&self, stream: &StreamId) -> Result<Option<Mark>, Fault> {
        self.opener.opened().await?.writer.begin(stream).await
    }

    async fn deliver(&self, delivery: Delivery) -> Result<(), Fault> {
        let opened = self.opener.opened().await?;
        // Made and checksummed here, so that the writer only writes.
        let entries: Result<Vec<Entry>, TooLarge> =
            delivery.pieces().map(|piece| entry(delivery.stream(), &piece)).collect();
        let entries = entries.map_err(|error| {
            Fault::fatal("writing to a journal", Blame::Configuration, error)
                .with_remedy("choose a shorter name for the source, or leave so large a value out")
        })?;
        opened.writer.append(entries, delivery).await
    }

    async fn close(&self) -> Result<(), Fault> {
        self.opener.close().await
    }

    fn max_in_flight(&self) -> NonZeroUsize {
        IN_FLIGHT
    }

    /// What was handed to the writer is written, whether its delivery is dropped or not.
    fn interruptible(&self) -> bool {
        false
    }
}

fn entry(stream: &Arc<StreamId>, piece: &Piece<'_>) -> Result<Entry, TooLarge> {
    let chunk = &piece.batch.chunk;
    let mut summary = Summary { marks: None, received: chunk.received, time: i64::MIN, major: 0 };
    for &row in &piece.rows {
        let row = chunk.event(row).row();
        summary.time = summary.time.max(row.time);
        summary.major = summary.major.max(row.mark.major.1);
        // A schema that is announced anew stands before the row whose mark it takes: it moves none.
        if row.op != Op::Schema {
            let (low, high) = summary.marks.unwrap_or((row.mark, row.mark));
            summary.marks = Some((low.min(row.mark), high.max(row.mark)));
        }
    }
    Entry::new(stream, summary, |out| piece.encode(out))
}
