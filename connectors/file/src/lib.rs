//! The destinations that need no server: [`FileDestination`], [`StdoutDestination`] and [`BlackholeDestination`].
//!
//! ```text
//!  deliver ──Job──▶ Writer (a thread) ──▶ NdjsonFile: append · sync · rotate · cut back
//! ```
//! Durable means: for `file` with `fsync: batch` that `fdatasync` has returned, with `fsync: never` that the
//! kernel has it (it survives the death of the daemon, not of the machine); for `stdout` that the other end of the
//! pipe or terminal has taken it; for `blackhole` nothing at all. None of them keeps marks: what is delivered again
//! stands there twice, in order, with the same `id`.

mod blackhole;
mod check;
mod config;
mod destination;
mod fault;
mod locked_file;
mod ndjson_file;
mod place;
mod stdout;
mod tail;
mod writer;

pub use blackhole::BlackholeDestination;
pub use config::{BlackholeConfig, FileConfig, Fsync, RotateConfig, StdoutConfig};
pub use destination::FileDestination;
pub use stdout::StdoutDestination;
