//! The harness: real servers, a daemon to be killed, and a network that misbehaves, in verbs that let a test read as
//! English.
//!
//! | noun | is |
//! |---|---|
//! | [`Postgres`] | a real server, shared by a test binary or a test's own to be stopped and killed |
//! | [`Standby`] | a server that another one's commits wait for, on a line that can be held |
//! | [`Database`] | a database of its own for each test |
//! | [`Kafka`], [`Topic`] | a real broker, and a topic of its own for each test |
//! | [`Receiver`] | an HTTP server of our own that keeps what came and answers as a test wants |
//! | [`Kinesis`], [`Stream`] | moto's stand-in for Kinesis, and a stream of its own for each test |
//! | [`KinesisFaults`] | a fake of ours in front of it, which throttles and fails chosen records |
//! | [`Daemon`] | Forebay as a process, with its configuration, folder and port |
//! | [`Proxy`] | a TCP proxy that delays, cuts, holds, swallows and resets |
//! | [`workload::Workload`] | random writers who know what they committed |
//! | [`checker::Checker`] | the judge of what a destination received |
//! | [`pipelines::pipeline`] | a pipeline inside of the test's own process |
//! | [`Replica`] | tables as a reader builds them from events, whatever tables they are |
//!
//! Invariants: what is missing on a machine makes a test fail with the command that brings it, and never skips it.
//! Nothing that is started here outlives the test binary, however that ends. No two tests share a database, a topic or
//! a port. A wait is for something that becomes true, with a limit after which the test fails and says what it saw.

pub mod bench;
pub mod checker;
mod daemon;
mod database;
mod kafka;
mod kinesis;
mod kinesis_faults;
pub mod pipelines;
mod postgres;
mod proxy;
mod receiver;
mod replica;
mod s3;
mod standby;
mod topic;
pub mod workload;

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use daemon::Daemon;
pub use database::Database;
pub use forebay::demo::embedded::Stop;
pub use forebay::demo::process::Signal;
pub use kafka::{Broker, Kafka};
pub use kinesis::{Kinesis, Put, Stream};
pub use kinesis_faults::{Call, KinesisFaults};
pub use postgres::Postgres;
pub use proxy::{Direction, Proxy};
pub use receiver::{Arrived, Receiver, Reply};
pub use replica::Replica;
pub use s3::S3;
pub use standby::Standby;
pub use topic::{Draft, Message, Topic};

/// How long something may take that takes a second on a quiet machine. Tests share two cores with each other.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The first of `count` adjacent ports on 127.0.0.1 on which nobody listens, given once.
pub fn free_ports(count: u16) -> u16 {
    forebay::demo::port::free(count).unwrap_or_else(|error| panic!("{error}"))
}

/// `name` with a suffix that no other test of this run has.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// An error with all its causes, because the first line alone rarely says what is wrong.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
