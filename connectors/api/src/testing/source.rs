//! The suite for sources.
//!
//! The rig writes numbered changes at the server; the suite reads them as the core does and knows from the numbers
//! what is missing, repeated or out of order.
//!
//! A complete example is in `docs/connectors.md`.

mod beside;
mod checks;
#[cfg(test)]
mod doctored;
mod reader;

use std::cmp::Ordering;
use std::ops::Range;

use async_trait::async_trait;

pub use self::beside::{NothingToCopy, SchemasInMemory};
use super::{Check, Exceptions, Outcome};
use crate::chunk::Event;
use crate::mark::Position;
use crate::source::Source;

/// What a source's test brings. A rig has a place of its own at the server: a database, a topic.
#[async_trait]
pub trait SourceRig: Send + Sync {
    /// A new instance, as a daemon that starts builds one. All instances read the same place, one at a time.
    async fn build(&self) -> Box<dyn Source>;

    /// Makes one change for each number, in ascending order and spread over several transactions, and returns once
    /// they are committed.
    async fn write(&self, numbers: Range<u64>);

    /// Which change an event is of; `None` for events of another origin (schemas, heartbeats).
    fn number(&self, event: Event<'_>) -> Option<u64>;

    /// How what the server was told to be settled compares with a position that the source gave: `Less` when the
    /// server would still serve what is before it. `None`: nothing is ever confirmed to this kind of server.
    async fn confirmed(&self, position: &Position) -> Option<Ordering> {
        let _ = position;
        None
    }

    /// Whether [`SourceRig::stop_server`] and [`SourceRig::start_server`] can be called.
    fn can_restart(&self) -> bool {
        false
    }

    /// Stops the server without asking those who read from it.
    async fn stop_server(&self) {
        panic!("the rig says that it can restart its server, but it cannot stop it");
    }

    /// Starts it again, with all that was committed; returns when changes can be written.
    async fn start_server(&self) {
        panic!("the rig says that it can restart its server, but it cannot start it");
    }
}

type Rig = dyn SourceRig;

/// Every check, in the order they run.
const CHECKS: &[Check<Rig>] = &[
    Check { name: "events_come_in_the_order_of_their_commits", run: |rig| Box::pin(checks::order(rig)) },
    Check { name: "what_is_read_again_is_the_same", run: |rig| Box::pin(checks::read_again(rig)) },
    Check { name: "every_position_can_be_resumed_from", run: |rig| Box::pin(checks::every_position(rig)) },
    Check {
        name: "what_happens_between_two_runs_comes_later",
        run: |rig| Box::pin(checks::between_runs(rig)),
    },
    Check { name: "a_stop_ends_a_run_soon", run: |rig| Box::pin(checks::stop_ends_soon(rig)) },
    Check { name: "a_closed_outlet_ends_a_run", run: |rig| Box::pin(checks::closed_outlet(rig)) },
    Check { name: "what_is_held_back_is_not_lost", run: |rig| Box::pin(checks::held_back(rig)) },
    Check { name: "its_loop_turns_while_it_is_held_back", run: |rig| Box::pin(checks::loop_turns(rig)) },
    Check { name: "only_what_is_committed_is_confirmed", run: |rig| Box::pin(checks::confirmed(rig)) },
    Check { name: "an_idle_source_sends_positions", run: |rig| Box::pin(checks::idle_positions(rig)) },
    Check { name: "a_server_that_restarts_loses_nothing", run: |rig| Box::pin(checks::server_restarts(rig)) },
];

/// Puts a source to every check, each on a rig of its own; `make` is told the check's name, which is unique and good
/// for the name of a database.
///
/// # Panics
/// With every check that does not hold.
pub async fn conform<R: SourceRig + 'static>(
    exceptions: Exceptions<'_>,
    make: impl AsyncFn(&'static str) -> R,
) {
    super::conform(CHECKS, exceptions, async |name| Box::new(make(name).await) as Box<Rig>).await;
}

/// Puts a rig to one check, by its name.
///
/// # Panics
/// When there is no such check.
pub async fn check(name: &str, rig: &(dyn SourceRig + 'static)) -> Outcome {
    let check = CHECKS.iter().find(|check| check.name == name).expect("a check of that name");
    super::run(check, rig).await
}

/// The names of all checks.
pub fn checks() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|check| check.name)
}
