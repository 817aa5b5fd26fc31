//! [`ReadHalf`]: what the server sends, read by one thread.

use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::message::backend;
use tokio::time::Instant;
use tracing::debug;

use super::buffer::Buffer;
use super::error::{ServerError, WireError};
use super::pace::Pace;
use super::transport::{Transport, Wait};

/// How long one blocking read of the stream waits before its caller hears that there is nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// TLS records are read this many bytes at a time.
const RECORDS: usize = 256 * 1024;

/// The reading half of a connection.
#[derive(Debug)]
pub struct ReadHalf {
    pub(super) transport: Arc<Transport>,
    buffer: Buffer,
    /// TLS records that are not decrypted yet; unused without TLS.
    records: Records,
    pace: Pace,
    phase: Phase,
}

#[derive(Debug, Default)]
struct Records {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// How far the stream is read, which decides whether the next read may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Everything that came has been reported as empty; waiting harms nobody.
    Drained,
    /// Something was given to the caller, who must hear of an empty socket before we wait.
    Flowing,
    /// The server has ended the stream.
    Over,
}

/// What [`ReadHalf::read`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// The contents of one CopyData message, valid until the next call.
    Frame(&'a [u8]),
    /// Nothing more is there now: send off what has gathered. The next call waits for more, a second at most.
    Empty,
    /// The server has ended the stream.
    Done,
}

impl ReadHalf {
    pub(super) fn new(transport: Transport) -> ReadHalf {
        let mut records = Records::default();
        if transport.is_encrypted() {
            records.bytes = vec![0; RECORDS];
        }
        ReadHalf {
            transport: Arc::new(transport),
            buffer: Buffer::new(),
            records,
            pace: Pace::new(),
            phase: Phase::Drained,
        }
    }

    /// From here on reads are those of a stream.
    pub(super) fn begin(&mut self) -> Result<(), WireError> {
        self.transport.set_patience(PATIENCE).map_err(WireError::io("setting a time limit"))
    }

    /// The next piece of the stream. Where everything at hand was taken, takes without waiting what has gathered in
    /// the socket meanwhile; when that is nothing, says [`Read::Empty`] once and only then waits.
    pub fn read(&mut self) -> Result<Read<'_>, WireError> {
        if self.phase == Phase::Over {
            return Ok(Read::Done);
        }
        loop {
            while let Some(message) = self.buffer.message()? {
                match message.tag {
                    backend::COPY_DATA_TAG => {
                        self.phase = Phase::Flowing;
                        return Ok(Read::Frame(self.buffer.body(message.body)));
                    }
                    backend::COPY_DONE_TAG | backend::COMMAND_COMPLETE_TAG | backend::READY_FOR_QUERY_TAG => {
                        self.phase = Phase::Over;
                        return Ok(Read::Done);
                    }
                    tag => self.aside(tag, message.body, "the stream")?,
                }
            }
            if self.phase == Phase::Flowing {
                self.pace.gather();
                if self.fill(Wait::Not)? {
                    continue;
                }
                self.phase = Phase::Drained;
                return Ok(Read::Empty);
            }
            if !self.fill(Wait::Patiently)? {
                return Ok(Read::Empty);
            }
        }
    }

    /// How long the server has said nothing. It answers a status update that asks for a reply at once, so silence
    /// after one means that nobody is there.
    pub fn quiet(&self) -> Duration {
        self.pace.quiet()
    }

    /// The length of the next message if it is longer than this: before room is made for the rest of it.
    pub(super) fn long_one(
        &mut self,
        longer_than: usize,
        doing: &'static str,
        deadline: Instant,
    ) -> Result<Option<usize>, WireError> {
        while self.buffer.is_bare() {
            self.wait(doing, deadline)?;
        }
        Ok(self.buffer.announced()?.filter(|&length| length > longer_than))
    }

    /// The next message outside a stream; an error of the server is ours.
    pub(super) fn receive(
        &mut self,
        doing: &'static str,
        deadline: Instant,
    ) -> Result<(u8, &[u8]), WireError> {
        loop {
            match self.buffer.message()? {
                Some(message) if matters(message.tag) => {
                    return Ok((message.tag, self.buffer.body(message.body)));
                }
                Some(message) => self.aside(message.tag, message.body, doing)?,
                None => self.wait(doing, deadline)?,
            }
        }
    }

    /// Reads what comes next, within the deadline.
    fn wait(&mut self, doing: &'static str, deadline: Instant) -> Result<(), WireError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(WireError::Timeout { doing });
        }
        self.transport.set_patience(left).map_err(WireError::io(doing))?;
        self.fill(Wait::Patiently).map(drop).map_err(|error| error.during(doing))
    }

    /// Messages that the server may send at any time.
    fn aside(&self, tag: u8, body: std::ops::Range<usize>, doing: &'static str) -> Result<(), WireError> {
        let body = self.buffer.body(body);
        match tag {
            backend::ERROR_RESPONSE_TAG => Err(WireError::Server(Box::new(ServerError::read(body)))),
            backend::NOTICE_RESPONSE_TAG => {
                let notice = ServerError::read(body);
                debug!(severity = notice.severity, notice = notice.message, "the server sent a notice");
                Ok(())
            }
            backend::PARAMETER_STATUS_TAG | backend::NOTIFICATION_RESPONSE_TAG => Ok(()),
            tag => Err(WireError::unexpected(tag, doing)),
        }
    }

    /// Reads into the buffer; `false` means that nothing came.
    fn fill(&mut self, wait: Wait) -> Result<bool, WireError> {
        if !self.transport.is_encrypted() {
            let received = self.transport.receive(self.buffer.space(), wait);
            let count = received.map_err(WireError::io("a read"))?;
            if let Some(count) = count {
                self.came(count)?;
                self.buffer.filled(count);
            }
            return Ok(count.is_some());
        }
        loop {
            let records = &mut self.records;
            let (used, filled) =
                self.transport.decrypt(&records.bytes[records.start..records.end], self.buffer.space())?;
            records.start += used;
            if filled > 0 {
                self.buffer.filled(filled);
                return Ok(true);
            }
            // without plaintext everything was used, so what follows may go to the front
            (records.start, records.end) = (0, 0);
            match self.transport.receive(&mut records.bytes, wait).map_err(WireError::io("a read"))? {
                None => return Ok(false),
                Some(count) => {
                    records.end = count;
                    self.came(count)?;
                }
            }
        }
    }

    fn came(&mut self, count: usize) -> Result<(), WireError> {
        if count == 0 {
            return Err(WireError::Closed { doing: "a read" });
        }
        self.pace.came(count);
        Ok(())
    }
}

/// Whether a message outside a stream is for the caller: the others may come at any time.
fn matters(tag: u8) -> bool {
    !matches!(
        tag,
        backend::ERROR_RESPONSE_TAG | backend::NOTICE_RESPONSE_TAG | backend::NOTIFICATION_RESPONSE_TAG
    )
}
