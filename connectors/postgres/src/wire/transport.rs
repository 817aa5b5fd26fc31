//! [`Transport`]: one socket, with or without TLS, used by a reading thread and by writers at once.
//!
//! The socket stays blocking, and a read that must not block says so itself (`MSG_DONTWAIT`), so neither side can
//! change what the other meets. Locks are held for the work on records and for writes that do not block, never while
//! waiting for the network; `outgoing` is always taken before `tls`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use rustls::ClientConnection;
use socket2::Socket;
use tokio::time::Instant;

use super::error::WireError;

/// What the socket may leave unsent before we call the server dead: hours of status updates.
const OUTGOING_LIMIT: usize = 64 * 1024;

/// A connected socket.
#[derive(Debug)]
pub(super) struct Transport {
    socket: Socket,
    tls: Option<Mutex<ClientConnection>>,
    /// Bytes as they go onto the wire. Its lock is also what keeps TLS records in order.
    outgoing: Mutex<Vec<u8>>,
}

/// Whether a read waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Takes what is there.
    Not,
    /// Waits as long as [`Transport::set_patience`] said.
    Patiently,
}

impl Transport {
    pub(super) fn new(socket: Socket, tls: Option<ClientConnection>) -> Transport {
        Transport { socket, tls: tls.map(Mutex::new), outgoing: Mutex::new(Vec::new()) }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// The server's certificate hash for channel binding.
    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        let tls = lock(self.tls.as_ref()?);
        crate::tls::end_point(tls.peer_certificates()?.first()?)
    }

    /// How long [`Wait::Patiently`] waits.
    pub(super) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(patience))
    }

    /// Bytes as they come from the wire: `None` when there are none, `Some(0)` at the end of the stream.
    pub(super) fn receive(&self, into: &mut [u8], wait: Wait) -> io::Result<Option<usize>> {
        loop {
            let read = match wait {
                Wait::Not => rustix::net::recv(&self.socket, &mut *into, RecvFlags::DONTWAIT)
                    .map(|(count, _)| count)
                    .map_err(io::Error::from),
                Wait::Patiently => (&self.socket).read(into),
            };
            match read {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Turns bytes of the wire into plaintext: returns how much of `wire` was used and how much of `plain` filled.
    /// What rustls itself wants to say (a key update) goes out with the next write.
    pub(super) fn decrypt(&self, wire: &[u8], plain: &mut [u8]) -> Result<(usize, usize), WireError> {
        let mut tls = lock(self.tls.as_ref().expect("only an encrypted transport is asked to decrypt"));
        let (mut used, mut filled) = (0, 0);
        loop {
            match tls.reader().read(&mut plain[filled..]) {
                Ok(0) if filled < plain.len() => return Err(WireError::Closed { doing: "a read" }),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(WireError::io("a read")(error)),
            }
            let mut rest = &wire[used..];
            if filled == plain.len() || rest.is_empty() {
                return Ok((used, filled));
            }
            used += tls.read_tls(&mut rest).map_err(WireError::io("a read"))?;
            tls.process_new_packets()?;
        }
    }

    /// Hands over bytes to be sent, after all that were handed over before, and sends what the socket takes now.
    pub(super) fn send(&self, plain: &[u8]) -> Result<(), WireError> {
        let mut outgoing = self.enqueue(plain)?;
        while !outgoing.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, &outgoing, flags).map_err(io::Error::from) {
                Ok(count) => drop(outgoing.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() != ErrorKind::WouldBlock => {
                    return Err(WireError::io("a write")(error));
                }
                Err(_) if outgoing.len() <= OUTGOING_LIMIT => return Ok(()),
                Err(_) => return Err(WireError::Closed { doing: "a write: it reads nothing any more" }),
            }
        }
        Ok(())
    }

    /// The same, and waits until all of it is in the kernel's hands.
    pub(super) fn send_all(&self, plain: &[u8], deadline: Instant) -> Result<(), WireError> {
        let mut outgoing = self.enqueue(plain)?;
        let mut timed = Timed { socket: &self.socket, deadline };
        timed.write_all(&outgoing).map_err(WireError::io("a write"))?;
        outgoing.clear();
        Ok(())
    }

    /// Ends both directions at once; a thread that is blocked in a read wakes.
    pub(super) fn abort(&self) {
        // the only error is that the connection is down already
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn enqueue(&self, plain: &[u8]) -> Result<MutexGuard<'_, Vec<u8>>, WireError> {
        let mut outgoing = lock(&self.outgoing);
        match &self.tls {
            None => outgoing.extend_from_slice(plain),
            Some(tls) => {
                let mut tls = lock(tls);
                tls.writer().write_all(plain).map_err(WireError::io("a write"))?;
                while tls.wants_write() {
                    tls.write_tls(&mut *outgoing).map_err(WireError::io("a write"))?;
                }
            }
        }
        Ok(outgoing)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this lock")
}

/// A socket whose every read and write ends by one deadline, for the conversation before the stream.
pub(super) struct Timed<'a> {
    pub(super) socket: &'a Socket,
    pub(super) deadline: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// The kernel reports its time limit as "would block", which others take for an invitation to try again.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

impl Read for Timed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        self.socket.read(into).map_err(timed_out)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
