//! The checks.

use std::cmp::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Rig;
use super::reader::{Given, Reader, STOP_WITHIN};
use crate::report::Report;
use crate::testing::{Failure, Outcome, broken};

/// A pipeline with little memory, so that a source is soon held back.
const SMALL: usize = 64 << 10;

/// How long a source gets to confirm too much; longer than the 10 s after which sources report at the latest.
const TOO_MUCH_WITHIN: Duration = Duration::from_secs(12);

/// How long a source gets to confirm what is committed.
const CONFIRM_WITHIN: Duration = Duration::from_secs(60);

/// How often a server is restarted.
const RESTARTS: usize = 3;

/// From how many positions of one run another is resumed.
const RESUMES: usize = 5;

/// Order, gaps and marks are the reader's rules; here there is much to read.
pub(super) async fn order(rig: &Rig) -> Outcome {
    let mut reader = Reader::begin(rig).await?;
    for _ in 0..4 {
        reader.write(1000).await;
        reader.catch_up().await?;
    }
    reader.stop().await.map(drop)
}

/// Nothing is stored, so a second run reads the same again; the reader compares the events.
pub(super) async fn read_again(rig: &Rig) -> Outcome {
    let mut reader = Reader::begin(rig).await?;
    let start = first_position(&mut reader).await?;
    reader.stores = false;
    for _ in 0..3 {
        reader.write(100).await;
        reader.catch_up().await?;
        reader.resume_from(Some(start.clone())).await?;
    }
    reader.catch_up().await
}

/// Whatever position a source gives, everything behind it comes from it.
pub(super) async fn every_position(rig: &Rig) -> Outcome {
    let mut reader = Reader::begin(rig).await?;
    first_position(&mut reader).await?;
    reader.until_position().await?;
    reader.stores = false;
    // What was given before the latest that is stored cannot be resumed from any more: the source may have confirmed it.
    let stored = reader.given.len() - 1;
    reader.given.drain(..stored);
    for _ in 0..20 {
        reader.write(37).await;
    }
    reader.catch_up().await?;
    // A source that was given no processor for a while reads all of that at once.
    for _ in 0..3 * RESUMES {
        if reader.given.len() >= RESUMES {
            break;
        }
        reader.write(37).await;
        reader.catch_up().await?;
    }
    let given = reader.given.clone();
    if given.len() < RESUMES {
        return broken(format!("many transactions were read, but they brought {} positions", given.len()));
    }
    // In ascending order, for resuming from one may tell the server that it is settled.
    for index in 0..RESUMES {
        // Of every other kind, where two kinds take turns (inside of a transaction and behind it).
        let at = (index * (given.len() - 1) / (RESUMES - 1)) ^ (index & 1);
        let chosen = given[at.min(given.len() - 1)].clone();
        reader.resume_from(Some(chosen)).await?;
        reader.write(1).await;
        reader.catch_up().await?;
    }
    Ok(())
}

/// Changes that are made while nobody reads; the same instance goes on, then a new one.
pub(super) async fn between_runs(rig: &Rig) -> Outcome {
    let mut reader = Reader::begin(rig).await?;
    first_position(&mut reader).await?;
    for _ in 0..3 {
        let same = reader.stop().await?;
        reader.write(100).await;
        reader.start(same);
        reader.catch_up().await?;
        reader.stop().await?;
        reader.write(100).await;
        reader.start(rig.build().await);
        reader.catch_up().await?;
    }
    Ok(())
}

/// Idle, and held back with much to read.
pub(super) async fn stop_ends_soon(rig: &Rig) -> Outcome {
    let mut reader = Reader::begin(rig).await?;
    first_position(&mut reader).await?;
    reader.stop().await?;
    reader.budget = SMALL;
    reader.start(rig.build().await);
    reader.hold();
    reader.write(5000).await;
    until_full(&mut reader).await?;
    reader.tell_to_stop();
    reader.stop().await?;
    // What was not sent comes to the next run.
    reader.start(rig.build().await);
    reader.catch_up().await
}

/// The generation is aborted: nobody takes anything any more.
pub(super) async fn closed_outlet(rig: &Rig) -> Outcome {
    let mut reader = Reader::begin(rig).await?;
    reader.write(200).await;
    if !reader.close_outlet().await {
        return broken(format!("a run did not end within {STOP_WITHIN:?} after its outlet was closed"));
    }
    Ok(())
}

/// The pipeline is full for a while, then opens.
pub(super) async fn held_back(rig: &Rig) -> Outcome {
    let mut reader = Reader::begin(rig).await?;
    first_position(&mut reader).await?;
    reader.stop().await?;
    reader.budget = SMALL;
    reader.start(rig.build().await);
    for _ in 0..3 {
        reader.hold();
        reader.write(2000).await;
        until_full(&mut reader).await?;
        sleep(Duration::from_secs(1)).await;
        reader.settle();
        reader.catch_up().await?;
    }
    Ok(())
}

/// A source that is held back is not stuck, and must not look so.
pub(super) async fn loop_turns(rig: &Rig) -> Outcome {
    let mut reader = Reader::begin(rig).await?;
    first_position(&mut reader).await?;
    reader.stop().await?;
    reader.budget = SMALL;
    reader.start(rig.build().await);
    reader.hold();
    reader.write(5000).await;
    until_full(&mut reader).await?;
    let began = Instant::now();
    while began.elapsed() < Report::MUST_TURN_WITHIN + Duration::from_secs(2) {
        if reader.idle() >= Report::MUST_TURN_WITHIN {
            return broken(format!("held back, its loop did not turn for {:?}", reader.idle()));
        }
        sleep(Duration::from_millis(500)).await;
    }
    reader.settle();
    reader.catch_up().await
}

/// The server is told of nothing that is not stored, and soon of what is.
pub(super) async fn confirmed(rig: &Rig) -> Outcome {
    let mut reader = Reader::begin(rig).await?;
    let probe = first_position(&mut reader).await?;
    if rig.confirmed(&probe.position).await.is_none() {
        return Err(Failure::Missing("server that is told what is settled"));
    }
    reader.stores = false;
    let mut reached = Vec::new();
    for _ in 0..2 {
        reader.write(100).await;
        reader.catch_up().await?;
        reached.push(covering(&mut reader).await?);
    }
    let [middle, last] = [&reached[0], &reached[1]];
    never_beyond(rig, &mut reader, middle, "nothing of it is stored", Ordering::Less).await?;
    reader.commit(middle);
    let began = Instant::now();
    while rig.confirmed(&middle.position).await == Some(Ordering::Less) {
        if began.elapsed() > CONFIRM_WITHIN {
            return broken(format!(
                "what is stored was not confirmed to the server within {CONFIRM_WITHIN:?}"
            ));
        }
        idle(&mut reader, Duration::from_millis(100)).await?;
    }
    never_beyond(rig, &mut reader, middle, "only the position itself is stored", Ordering::Equal).await?;
    reader.stop().await?;
    if rig.confirmed(&last.position).await != Some(Ordering::Less) {
        return broken("stopping confirmed to the server what is not stored");
    }
    Ok(())
}

/// A quiet source still moves on, so that its server can let go of what was read.
pub(super) async fn idle_positions(rig: &Rig) -> Outcome {
    let mut reader = Reader::begin(rig).await?;
    let mut idle = 0;
    while idle < 2 {
        reader.until_position().await?;
        idle += usize::from(reader.given.last().is_some_and(|given| given.idle));
    }
    let latest = reader.given.last().cloned();
    reader.resume_from(latest).await?;
    reader.write(50).await;
    reader.catch_up().await
}

/// The server stops and starts while it is read, several times, with changes before, during and after.
pub(super) async fn server_restarts(rig: &Rig) -> Outcome {
    if !rig.can_restart() {
        return Err(Failure::Missing("server that can be restarted"));
    }
    let mut reader = Reader::begin(rig).await?;
    first_position(&mut reader).await?;
    reader.goes_on = true;
    for round in 0..RESTARTS {
        reader.write(300).await;
        // Sometimes all was read when it stops, sometimes not.
        if round % 2 == 0 {
            reader.until(reader.last() - 150).await?;
        } else {
            reader.catch_up().await?;
        }
        rig.stop_server().await;
        idle(&mut reader, Duration::from_millis(500)).await?;
        rig.start_server().await;
        reader.write(100).await;
        reader.catch_up().await?;
    }
    reader.stop().await.map(drop)
}

/// A position to resume from before anything else is read.
async fn first_position(reader: &mut Reader<'_>) -> Result<Given, Failure> {
    if reader.given.is_empty() {
        reader.until_position().await?;
    }
    Ok(reader.given.last().cloned().expect("one has just come"))
}

/// A position that covers the latest change.
async fn covering(reader: &mut Reader<'_>) -> Result<Given, Failure> {
    loop {
        let last = Some(reader.last());
        if let Some(given) = reader.given.iter().rfind(|given| given.covers == last) {
            return Ok(given.clone());
        }
        reader.until_position().await?;
    }
}

/// Takes what comes for so long.
async fn idle(reader: &mut Reader<'_>, wait: Duration) -> Outcome {
    let until = Instant::now() + wait;
    while let Ok(received) = tokio::time::timeout_at(until, reader.receive()).await {
        received?;
    }
    Ok(())
}

/// Reads without giving memory back until there is none left.
async fn until_full(reader: &mut Reader<'_>) -> Outcome {
    let quiet = Duration::from_secs(2);
    // Nothing more comes although there is more: it is held back.
    while let Ok(received) = tokio::time::timeout(quiet, reader.receive()).await {
        received?;
    }
    Ok(())
}

/// Watches for a while that what the server was told does not pass `at_most` of a position.
async fn never_beyond(
    rig: &Rig,
    reader: &mut Reader<'_>,
    given: &Given,
    stored: &str,
    at_most: Ordering,
) -> Outcome {
    let began = Instant::now();
    while began.elapsed() < TOO_MUCH_WITHIN {
        if rig.confirmed(&given.position).await.is_some_and(|told| told > at_most) {
            return broken(format!("the server was told that {} is settled, but {stored}", given.position));
        }
        idle(reader, Duration::from_millis(500)).await?;
    }
    Ok(())
}
