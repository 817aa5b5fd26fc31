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

    /// How long the next message is, as soon as that is known and while it is not all here.
    pub(super) fn announced(&self) -> Result<Option<usize>, WireError> {
        Ok(self.header()?.map(|(_, length)| length).filter(|&length| self.end - self.start < length))
    }

    /// Whether not even the next message's header is here.
    pub(super) fn is_bare(&self) -> bool {
        self.end - self.start < HEADER
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
        // doubling, so that a length that lies costs no more than twice what was really sent, and no further than the
        // message needs
        if self.bytes.len() - self.end < LITTLE {
            let double = self.bytes.len() * 2;
            let needed = self.header().ok().flatten().map_or(double, |(_, length)| length + LITTLE);
            self.bytes.resize(double.min(needed).max(self.end + LITTLE), 0);
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
    fn a_long_message_is_announced_before_room_is_made_for_it_and_takes_no_more_than_it_needs() {
        let length = 5 * SIZE + 3;
        let bytes = encoded(&[(b'd', vec![7; length])]);
        let mut buffer = Buffer::new();
        assert!(buffer.is_bare());
        put(&mut buffer, &bytes[..HEADER]);
        assert_eq!(buffer.announced().unwrap(), Some(length + HEADER));
        assert_eq!(buffer.bytes.len(), SIZE);
        put(&mut buffer, &bytes[HEADER..]);
        assert_eq!(buffer.announced().unwrap(), None);
        assert!(buffer.bytes.len() <= length + HEADER + LITTLE, "{}", buffer.bytes.len());
        assert_eq!(taken(&mut buffer), [(b'd', vec![7; length])]);
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
