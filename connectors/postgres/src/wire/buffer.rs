//! [`Buffer`]: bytes from the socket, cut into the protocol's messages where they lie. Pure: no I/O.

use std::ops::Range;

use postgres_protocol::message::backend::Header;

use super::error::WireError;

/// Its size at rest: what a busy stream brings in some milliseconds.
const SIZE: usize = 256 * 1024;

/// With less than this left at its end, what is unread moves to the front.
const LITTLE: usize = 64 * 1024;

/// The tag and the length that precede each message.
const HEADER: usize = 5;

/// No message of a server is longer (its own buffers end at 1 GiB), so a longer one is not the protocol.
const LONGEST: usize = 1 << 30;

/// One buffer for all reads; it grows for a message that does not fit and shrinks back after it.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// Where the first unread byte is.
    start: usize,
    /// Where the next read goes.
    end: usize,
}

/// A whole message that lies in the buffer until the next [`Buffer::space`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Says what kind it is.
    pub(super) tag: u8,
    /// Where its contents lie.
    pub(super) body: Range<usize>,
}

impl Buffer {
    pub(super) fn new() -> Buffer {
        Buffer { bytes: vec![0; SIZE], start: 0, end: 0 }
    }

    /// Takes the next message, if all of it is here.
    pub(super) fn message(&mut self) -> Result<Option<Message>, WireError> {
        let Some((tag, length)) = self.header()? else { return Ok(None) };
        if self.end - self.start < length {
            return Ok(None);
        }
        let body = self.start + HEADER..self.start + length;
        self.start = body.end;
        Ok(Some(Message { tag, body }))
    }

    /// The contents of a message that was just taken.
    pub(super) fn body(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// Room for the next read, never empty. What was taken before may be overwritten.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.bytes.len() > SIZE && self.end - self.start < SIZE - LITTLE {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            self.bytes.truncate(SIZE);
            self.bytes.shrink_to_fit();
        }
        if self.bytes.len() - self.end < LITTLE {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        // doubling, so that a length that lies costs no more than twice what was really sent
        if self.bytes.len() - self.end < LITTLE {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// That many bytes were read into [`Buffer::space`].
    pub(super) fn filled(&mut self, count: usize) {
        self.end += count;
        assert!(self.end <= self.bytes.len(), "no more can be read than there was space for");
    }

    fn header(&self) -> Result<Option<(u8, usize)>, WireError> {
        let unread = &self.bytes[self.start..self.end];
        let Some(header) = Header::parse(unread).map_err(WireError::malformed)? else { return Ok(None) };
        match usize::try_from(header.len()) {
            Ok(length) if length <= LONGEST => Ok(Some((header.tag(), length + 1))),
            _ => Err(WireError::malformed("a message of more than 1 GiB is announced")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(messages: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (tag, body) in messages {
            bytes.push(*tag);
            bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
            bytes.extend(body);
        }
        bytes
    }

    fn put(buffer: &mut Buffer, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = buffer.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            buffer.filled(count);
            bytes = &bytes[count..];
        }
    }

    fn taken(buffer: &mut Buffer) -> Vec<(u8, Vec<u8>)> {
        let mut messages = Vec::new();
        while let Some(message) = buffer.message().unwrap() {
            messages.push((message.tag, buffer.body(message.body).to_vec()));
        }
        messages
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_messages_are_the_same(
            messages in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..20),
            cut in 1usize..60,
        ) {
            let mut buffer = Buffer::new();
            let mut seen = Vec::new();
            for piece in encoded(&messages).chunks(cut) {
                put(&mut buffer, piece);
                seen.extend(taken(&mut buffer));
            }
            prop_assert_eq!(seen, messages);
        }
    }

    #[test]
    fn a_message_larger_than_the_buffer_passes_and_the_buffer_shrinks_back() {
        let large = vec![(b'd', vec![7; 5 * SIZE]), (b'd', vec![8; 3])];
        let mut buffer = Buffer::new();
        let mut seen = Vec::new();
        for piece in encoded(&large).chunks(SIZE / 3) {
            put(&mut buffer, piece);
            seen.extend(taken(&mut buffer));
        }
        assert_eq!(seen, large);
        assert!(buffer.space().len() <= SIZE);
        assert!(buffer.bytes.capacity() <= 2 * SIZE);
    }

    #[test]
    fn lengths_that_no_server_sends_are_refused() {
        for length in [3i32, 0, -1, i32::MAX] {
            let mut buffer = Buffer::new();
            put(&mut buffer, b"d");
            put(&mut buffer, &length.to_be_bytes());
            assert!(buffer.message().is_err(), "{length}");
        }
    }
}
