//! The suite for destinations.
//!
//! A complete example is in `docs/connectors.md`.

#[cfg(test)]
mod doctored;
mod faults;
mod plain;

use std::sync::Arc;

use async_trait::async_trait;

use super::lane::{Lane, Unit};
pub use super::workload::body;

use super::workload::{Workload, whole};
use super::{Check, Exceptions, Failure, Outcome, judge};
use crate::destination::Destination;

/// The source that all events of the suite name.
pub const SOURCE: &str = "conformance";

/// The tables, in the database schema `public`, that all events of the suite are about.
pub const TABLES: [&str; 2] = ["orders", "lines"];

/// What happens to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// It dies as by `kill -9`; restored, it runs again with what it had made durable.
    Kill,
    /// Its connections are cut and new ones refused.
    Cut,
    /// It can be reached but writes nothing: a full disk, a queue over its quota.
    Refuse,
    /// It answers late.
    Slow,
}

/// What a destination's test brings. A rig has a place of its own (a table, a topic, a folder) that is empty.
#[async_trait]
pub trait DestinationRig: Send + Sync {
    /// A new instance, as a daemon that starts builds one, not opened yet. All instances write to the same place.
    async fn build(&self) -> Arc<dyn Destination>;

    /// All records stored in the place, as a consumer sees them (what is not committed is not there), repeats
    /// included, in an order that keeps the order of each partition key. `None`: what is stored cannot be read back.
    async fn stored(&self) -> Option<Vec<Vec<u8>>>;

    /// Whether `held` tells what is stored, so that redelivery leaves each event once.
    fn keeps_marks(&self) -> bool {
        false
    }

    /// Bytes of a large record that must be stored.
    fn fits(&self) -> usize {
        900_000
    }

    /// Bytes of a record that must be rejected for its size; `None`: no size is too large.
    fn too_large(&self) -> Option<usize> {
        None
    }

    /// A JSON value that makes a record be refused when it stands in its payload; `None`: nothing is refused.
    fn refused(&self) -> Option<&'static str> {
        None
    }

    /// What [`DestinationRig::disturb`] can do.
    fn disturbances(&self) -> &[Disturbance] {
        &[]
    }

    /// Begins a disturbance; it lasts until `restore`. Called only with what `disturbances` lists.
    async fn disturb(&self, how: Disturbance) {
        panic!("the rig lists {how:?} but cannot do it");
    }

    /// Ends a disturbance. The server may still need a while; `build` and `stored` wait for it, `open` says so.
    async fn restore(&self, how: Disturbance) {
        panic!("the rig lists {how:?} but cannot end it");
    }
}

type Rig = dyn DestinationRig;

/// Every check, in the order they run.
const CHECKS: &[Check<Rig>] = &[
    Check {
        name: "every_record_is_stored_as_it_came",
        run: |rig| Box::pin(plain::every_record_is_stored(rig)),
    },
    Check {
        name: "what_is_accepted_is_there_at_once",
        run: |rig| Box::pin(plain::accepted_is_there_at_once(rig)),
    },
    Check { name: "unicode_is_kept", run: |rig| Box::pin(plain::unicode_is_kept(rig)) },
    Check { name: "keys_may_be_absent_empty_or_huge", run: |rig| Box::pin(plain::keys_may_be_anything(rig)) },
    Check {
        name: "only_what_is_open_is_written",
        run: |rig| Box::pin(plain::only_what_is_open_is_written(rig)),
    },
    Check {
        name: "a_hundred_thousand_records_keep_their_order",
        run: |rig| Box::pin(plain::many_records(rig)),
    },
    Check { name: "two_streams_do_not_mix", run: |rig| Box::pin(plain::two_streams_do_not_mix(rig)) },
    Check { name: "a_large_record_is_stored", run: |rig| Box::pin(plain::a_large_record_is_stored(rig)) },
    Check {
        name: "a_record_that_is_too_large_is_rejected",
        run: |rig| Box::pin(plain::a_record_that_is_too_large_is_rejected(rig)),
    },
    Check {
        name: "a_refused_record_is_rejected",
        run: |rig| Box::pin(plain::a_refused_record_is_rejected(rig)),
    },
    Check { name: "a_new_instance_goes_on", run: |rig| Box::pin(plain::a_new_instance_goes_on(rig)) },
    Check { name: "what_is_held_is_struck_off", run: |rig| Box::pin(plain::what_is_held_is_struck_off(rig)) },
    Check {
        name: "what_comes_again_is_followed_by_its_successors",
        run: |rig| Box::pin(plain::what_comes_again_is_followed(rig)),
    },
    Check { name: "a_dropped_delivery_loses_nothing", run: |rig| Box::pin(faults::a_dropped_delivery(rig)) },
    Check { name: "a_killed_daemon_loses_nothing", run: |rig| Box::pin(faults::a_killed_daemon(rig)) },
    Check {
        name: "a_server_that_is_killed_loses_nothing",
        run: |rig| Box::pin(faults::disturbed(rig, Disturbance::Kill, "server that can be killed")),
    },
    Check {
        name: "a_connection_that_is_cut_loses_nothing",
        run: |rig| Box::pin(faults::disturbed(rig, Disturbance::Cut, "connection that can be cut")),
    },
    Check {
        name: "a_server_that_refuses_for_a_while_loses_nothing",
        run: |rig| Box::pin(faults::disturbed(rig, Disturbance::Refuse, "server that can refuse to write")),
    },
    Check { name: "a_slow_server_loses_nothing", run: |rig| Box::pin(faults::a_slow_server(rig)) },
];

/// Puts a destination to every check, each on a rig of its own; `make` is told the check's name, which is unique
/// and good for the name of a topic or a table.
///
/// # Panics
/// With every check that does not hold.
pub async fn conform<R: DestinationRig + 'static>(
    exceptions: Exceptions<'_>,
    make: impl AsyncFn(&'static str) -> R,
) {
    super::conform(CHECKS, exceptions, async |name| Box::new(make(name).await) as Box<Rig>).await;
}

/// Puts a rig to one check, by its name.
///
/// # Panics
/// When there is no such check.
pub async fn check(name: &str, rig: &(dyn DestinationRig + 'static)) -> Outcome {
    let check = CHECKS.iter().find(|check| check.name == name).expect("a check of that name");
    super::run(check, rig).await
}

/// The names of all checks.
pub fn checks() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|check| check.name)
}

/// A lane of `workload` into a new instance.
async fn lane(rig: &Rig, workload: &Workload) -> Lane {
    Lane::new(rig.build().await, workload.stream.clone())
}

/// A delivery of the next `batches` × `records` plain events.
fn unit(workload: &mut Workload, batches: usize, records: u64) -> Unit {
    let batches: Vec<_> = (0..batches).map(|_| workload.plain(records)).collect();
    Unit::new(whole(&batches))
}

/// All that is stored.
async fn stored(rig: &Rig) -> Result<Vec<Vec<u8>>, Failure> {
    rig.stored().await.ok_or(Failure::Missing("way to read back what is stored"))
}

/// Judges what is stored after everything was settled. What was never delivered twice is never stored twice.
async fn judged(rig: &Rig, workloads: &[&Workload], lane: &Lane) -> Outcome {
    let once = rig.keeps_marks() || !lane.tally.repeated;
    judge::judge(workloads, &lane.tally, &stored(rig).await?, once)
}

/// Closes an instance; a fault breaks the check.
async fn close(destination: &Arc<dyn Destination>) -> Outcome {
    destination.close().await.map_err(|fault| Failure::Broken(format!("`close` failed: {fault}")))
}
