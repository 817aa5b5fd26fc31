//! [`WriteHalf`]: what we tell the server while it streams.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::error::WireError;
use super::transport::Transport;
use crate::lsn::Lsn;
use crate::time;

/// The writing half of a connection. No method waits for the network, so any task may call it.
#[derive(Clone, Debug)]
pub struct WriteHalf {
    transport: Arc<Transport>,
}

/// A standby status update: how far we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Everything before it has been received.
    pub written: Lsn,
    /// Everything before it is stored for good: the server may forget it.
    pub flushed: Lsn,
    /// Asks the server to answer at once, which proves that it is there.
    pub reply: bool,
}

impl WriteHalf {
    pub(super) fn new(transport: Arc<Transport>) -> WriteHalf {
        WriteHalf { transport }
    }

    /// Tells the server how far we are.
    pub fn status(&self, status: Status) -> Result<(), WireError> {
        let mut message = [0; 5 + 34];
        message[0] = b'd';
        message[1..5].copy_from_slice(&38u32.to_be_bytes());
        message[5] = b'r';
        message[6..14].copy_from_slice(&status.written.0.to_be_bytes());
        message[14..22].copy_from_slice(&status.flushed.0.to_be_bytes());
        // nothing is applied here; a server that waits for `remote_apply` must not wait for less than durable
        message[22..30].copy_from_slice(&status.flushed.0.to_be_bytes());
        message[30..38].copy_from_slice(&time::server_clock(SystemTime::now()).to_be_bytes());
        message[38] = u8::from(status.reply);
        self.transport.send(&message)
    }

    /// Ends our side of the stream; the server answers by ending its own.
    pub fn done(&self) -> Result<(), WireError> {
        let mut message = BytesMut::new();
        frontend::copy_done(&mut message);
        self.transport.send(&message)
    }

    /// Takes leave, after the stream has ended on both sides.
    pub fn terminate(&self) -> Result<(), WireError> {
        let mut message = BytesMut::new();
        frontend::terminate(&mut message);
        self.transport.send(&message)
    }

    /// Cuts the connection; a thread that waits in [`super::ReadHalf::read`] gets an error at once.
    pub fn abort(&self) {
        self.transport.abort();
    }
}
