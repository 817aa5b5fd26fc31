//! Stores records: one transaction for all of them and the mark that covers them.
//!
//! Where the content of a record is refused, what was to be stored together is halved until that record stands alone.
//! Invariant: no mark covers a record that is not stored. One that was refused is settled only by its dead letter, so
//! those behind it are stored without moving the mark, and found by their ids should they come again.

use std::ops::Range;

use forebay_api::{Delivery, Fault, Mark, Op, Record, Rejection, step};
use futures::SinkExt;
use tokio_postgres::{CopyInSink, Error};

use super::conflicts::Conflicts;
use super::fault;
use super::position::{Lease, Place};
use super::rows::{MAX_JSON_BYTES, Rows, has_chosen_id};
use super::session::Session;

/// Where and under which lease a delivery is stored.
pub(super) struct Append<'a> {
    /// A session outside any transaction. What state it is in after a fault is not known.
    pub(super) session: &'a Session,
    /// The stream's row in the positions.
    pub(super) place: &'a Place,
    /// Ours.
    pub(super) lease: Lease,
    /// Where events that came again with another body are counted.
    pub(super) conflicts: &'a Conflicts,
}

/// What became of records, each by the number that settles it.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Committed.
    pub(super) stored: Vec<usize>,
    /// Refused for their content.
    pub(super) refused: Vec<(usize, Rejection)>,
}

/// Why nothing of a group was stored.
enum Failed {
    /// The content of one of its records at least.
    Refused(Rejection),
    /// Anything else.
    Fault(Fault),
}

/// A record that is not even sent.
#[derive(Debug, thiserror::Error)]
#[error("the record has {bytes} bytes, and `jsonb` holds {MAX_JSON_BYTES}")]
struct TooLarge {
    bytes: usize,
}

impl Append<'_> {
    /// Stores what is open. What is in `told` at the end is true, whether there is a fault or not.
    pub(super) async fn store(&self, delivery: &Delivery, told: &mut Told) -> Result<(), Fault> {
        let records: Vec<(usize, Record<'_>)> = delivery.open().collect();
        // from the first records on: the last range is the next
        let mut groups: Vec<Range<usize>> = std::iter::once(0..records.len()).collect();
        while let Some(range) = groups.pop() {
            let group = &records[range.clone()];
            // A schema may stand at a mark that is held already, and is found by its id.
            let moving =
                group.iter().rev().map(|(_, record)| record.event()).find(|event| event.op() != Op::Schema);
            let mark = moving.filter(|_| told.refused.is_empty()).map(|event| event.mark());
            match self.transaction(group, mark).await {
                Ok(()) => told.stored.extend(group.iter().map(|(index, _)| *index)),
                Err(Failed::Fault(fault)) => return Err(fault),
                Err(Failed::Refused(why)) if group.len() == 1 => told.refused.push((group[0].0, why)),
                Err(Failed::Refused(_)) => {
                    let middle = range.start + range.len() / 2;
                    groups.extend([middle..range.end, range.start..middle]);
                }
            }
        }
        Ok(())
    }

    /// Stores all of a group, or nothing.
    async fn transaction(&self, group: &[(usize, Record<'_>)], mark: Option<Mark>) -> Result<(), Failed> {
        for (_, record) in group {
            let bytes = record.body().len().max(record.event().key().len());
            if bytes > MAX_JSON_BYTES {
                return Err(Failed::Refused(Rejection::new("too_large", &TooLarge { bytes })));
            }
        }
        let begun = self.session.begin().await;
        begun.map_err(|error| Failed::Fault(fault::judge("beginning a transaction", error)))?;
        let inserted = match self.insert(group).await {
            Ok(inserted) => inserted,
            Err(error) => return Err(self.failed("inserting events", error).await),
        };
        let conflicts =
            if inserted < group.len() as u64 && group.iter().any(|(_, r)| has_chosen_id(r.event())) {
                Some(self.conflicts().await.map_err(Failed::Fault)?)
            } else {
                None
            };
        self.place.advance(self.session, self.lease, mark).await.map_err(Failed::Fault)?;
        step!("postgres-destination-before-commit");
        if let Err(error) = self.session.commit().await {
            return Err(self.failed("committing", error).await);
        }
        step!("postgres-destination-after-commit");
        if let Some((count, first)) = conflicts {
            self.conflicts.count(&self.place.table, count, &first);
        }
        Ok(())
    }

    /// How many were not there before.
    async fn insert(&self, group: &[(usize, Record<'_>)]) -> Result<u64, Error> {
        let Session { sql, copy, insert, .. } = self.session;
        let sink: CopyInSink<bytes::Bytes> = sql.copy_in(copy).await?;
        let mut sink = std::pin::pin!(sink);
        let mut rows = Rows::new();
        for (_, record) in group {
            if let Some(chunk) = rows.push(*record) {
                sink.feed(chunk).await?;
            }
        }
        sink.feed(rows.finish()).await?;
        sink.finish().await?;
        sql.execute(insert, &[]).await
    }

    /// How many of the group are there with another body, and the first one's id.
    async fn conflicts(&self) -> Result<(i64, String), Fault> {
        let Session { sql, conflicts, .. } = self.session;
        let failed = |error| fault::judge("comparing events that came again", error);
        let row = sql.query_one(conflicts, &[]).await.map_err(failed)?;
        let first: Option<String> = row.try_get(1).map_err(failed)?;
        Ok((row.try_get(0).map_err(failed)?, first.unwrap_or_default()))
    }

    /// Judges why a transaction failed, and ends it where the session can go on.
    async fn failed(&self, doing: &str, error: Error) -> Failed {
        if !fault::refuses_content(&error) {
            return Failed::Fault(fault::judge(doing, error));
        }
        match self.session.rollback().await {
            Ok(()) => Failed::Refused(Rejection::new("refused", &*fault::said(error))),
            Err(error) => Failed::Fault(fault::judge("rolling back", error)),
        }
    }
}
