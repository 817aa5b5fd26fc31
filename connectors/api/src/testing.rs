//! The conformance suite: what every connector proves against its real server.
//!
//! A connector's test brings a *rig*: how to make the connector, how to read back what is there, how to kill or
//! slow its server. The suite brings the events, drives the connector as the core does, disturbs it and judges
//! what it finds. See [`destination::conform`] and [`source::conform`].
//!
//! Invariant: a check holds, or fails with what it saw, or cannot be made because the rig lacks something that it
//! needs. The last is a failure too unless the rig's test excepts the check by name and says why; an exception
//! never hides a check that failed, and one that is not needed is a failure of its own.

pub mod destination;
mod judge;
mod lane;
pub mod source;
mod workload;

/// The examples of the guide, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/connectors.md")]
mod guide {}

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

/// A check that takes longer than this hangs. A server that waits out its session timeouts after a kill needs the
/// better part of a minute, and a check kills it several times.
const CHECK_WITHIN: Duration = Duration::from_secs(300);

/// Checks that a connector cannot be put to, each with the reason: `("name of the check", "why")`.
pub type Exceptions<'a> = &'a [(&'a str, &'a str)];

/// Why a check did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connector broke the promise that the check is named after; this is what was seen.
    Broken(String),
    /// The rig does not bring what the check needs.
    Missing(&'static str),
}

/// What a check says.
pub type Outcome = Result<(), Failure>;

/// One promise of the contract and the code that tries to see it broken.
pub(crate) struct Check<R: ?Sized> {
    /// The promise.
    pub(crate) name: &'static str,
    /// Tries it on a rig of its own.
    pub(crate) run: for<'a> fn(&'a R) -> BoxFuture<'a, Outcome>,
}

/// Runs every check, each on a new rig, and tells on stderr what became of it.
///
/// # Panics
/// With the name and finding of every check that failed.
async fn conform<R: ?Sized>(
    checks: &[Check<R>],
    exceptions: Exceptions<'_>,
    make: impl AsyncFn(&'static str) -> Box<R>,
) {
    let mut failures: Vec<String> = exceptions
        .iter()
        .filter(|(name, _)| checks.iter().all(|check| check.name != *name))
        .map(|(name, _)| format!("{name}: excepted, but there is no such check"))
        .collect();
    for check in checks {
        let started = Instant::now();
        let rig = make(check.name).await;
        let outcome = run(check, &*rig).await;
        let excepted = exceptions.iter().find(|(name, _)| *name == check.name).map(|(_, why)| *why);
        let (word, failure) = match (&outcome, excepted) {
            (Ok(()), None) => ("holds".to_owned(), None),
            (Ok(()), Some(_)) => ("holds".to_owned(), Some("holds, so it must not be excepted".to_owned())),
            (Err(Failure::Missing(_)), Some(why)) => (format!("does not apply: {why}"), None),
            (Err(Failure::Missing(what)), None) => (
                "not made".to_owned(),
                Some(format!("the rig brings no {what}; bring it or except the check")),
            ),
            (Err(Failure::Broken(seen)), _) => ("BROKEN".to_owned(), Some(seen.clone())),
        };
        eprintln!("{}: {word} ({:.1?})", check.name, started.elapsed());
        failures.extend(failure.map(|seen| format!("{}: {seen}", check.name)));
    }
    assert!(failures.is_empty(), "the connector does not conform:\n  {}", failures.join("\n  "));
}

/// Runs one check within [`CHECK_WITHIN`].
async fn run<R: ?Sized>(check: &Check<R>, rig: &R) -> Outcome {
    match tokio::time::timeout(CHECK_WITHIN, (check.run)(rig)).await {
        Ok(outcome) => outcome,
        Err(_) => {
            broken(format!("did not end within {CHECK_WITHIN:?}: something was never settled or hangs"))
        }
    }
}

fn broken(seen: impl Into<String>) -> Outcome {
    Err(Failure::Broken(seen.into()))
}

/// The seed of a check's random choices: `FOREBAY_SEED`, else a new one; printed, so that a failure can be run again.
fn seed(check: &str) -> u64 {
    let seed = match std::env::var("FOREBAY_SEED") {
        Ok(text) => text.parse().expect("FOREBAY_SEED is a number"),
        Err(_) => rand::random(),
    };
    eprintln!("{check}: FOREBAY_SEED={seed}");
    seed
}
