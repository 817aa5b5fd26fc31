//! Our own replication client: what `tokio-postgres` cannot do, because it has no CopyBoth.
//!
//! It is **synchronous**, on plain sockets, because whoever reads a busy stream must own an OS thread to let
//! messages gather in the kernel (see [`ReadHalf::read`]). A [`Connection`] runs commands; [`Connection::start`]
//! turns it into a [`ReadHalf`], which one thread owns, and a [`WriteHalf`], which anyone may use at any time and
//! which never blocks.
//!
//! Invariants: every wait has a limit; nothing that the server sends makes us panic or allocate more than it sent;
//! bytes leave in the order in which they were handed over, also under TLS. Which host to try, and what to do about
//! an error, is decided elsewhere ([`crate::connect`]).

mod buffer;
mod commands;
mod dial;
mod error;
mod pace;
mod read;
mod startup;
mod transport;
mod write;

pub use commands::{Canceller, Connection, Copied, CopyEnd, NewSlot, Row, Start, Switch, System};
pub use dial::Dial;
pub use error::{ServerError, WireError};
pub use read::{Read, ReadHalf};
pub use write::{Status, WriteHalf};
