//! [`Entry`] is a message as it stands in its partition; an [`Intake`] makes events of entries.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use forebay_api::{Chunk, Fault, StreamId};
use rdkafka::message::{Headers, Message};

/// One message, borrowed.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'a> {
    /// Its topic.
    pub(crate) topic: &'a str,
    /// Its partition.
    pub(crate) partition: i32,
    /// Where it stands there.
    pub(crate) offset: i64,
    /// When it was written, as the producer or the broker says: milliseconds since the Unix epoch.
    pub(crate) timestamp_ms: Option<i64>,
    /// What decides about its partition.
    pub(crate) key: Option<&'a [u8]>,
    /// `None`: a tombstone.
    pub(crate) value: Option<&'a [u8]>,
    /// In the order of the message; a header may have no value.
    pub(crate) headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

impl<'a> Entry<'a> {
    /// Of a message.
    pub(crate) fn of(message: &'a impl Message<Headers: 'a>) -> Entry<'a> {
        Entry {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key(),
            value: message.payload(),
            headers: message.headers().map_or_else(Vec::new, |headers| {
                headers.iter().map(|header| (header.key, header.value)).collect()
            }),
        }
    }
}

/// Makes events of messages and gathers them until they are taken.
pub(crate) trait Intake: Send {
    /// Takes the next message of a partition, which is `stream`.
    fn take(&mut self, stream: &Arc<StreamId>, entry: &Entry<'_>) -> Result<(), Fault>;

    /// What has been gathered: rows and bytes.
    fn gathered(&self) -> (usize, usize);

    /// Gives what has been gathered, one stream a chunk, in the order of each stream.
    fn chunks(&mut self) -> Vec<Chunk>;
}

/// Microseconds since the Unix epoch.
pub(crate) fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
