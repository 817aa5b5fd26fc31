//! Runs a pipeline generation after generation: again after a retryable fault, with bounded backoff; not again after
//! a fatal one, a stop, or when the source has nothing left.

use std::time::Duration;

use forebay_api::Fault;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::lane::{Retry, STOPPED, TURN};
use crate::pipeline::{Ended, Pipeline};
use crate::shutdown::Shutdown;

/// A generation that lasted this long was healthy: the next wait begins small again.
const HEALTHY: Duration = Duration::from_secs(30);

/// Between generations: quick at first, because most faults are a server that restarts.
const RETRY: Retry = Retry {
    initial: Duration::from_millis(200),
    max: Duration::from_secs(15),
    attempts: std::num::NonZeroU32::MAX,
};

/// A pipeline behind a journal that failed for good is tried again this often: somebody may have acted.
const STOPPED_FOR: Duration = Duration::from_secs(60);

/// Runs `pipeline` until it is stopped, done or beyond repair; whether everything it read is settled.
///
/// A source that was never reachable within `startup` is given up: its last fault is returned. Without that it is tried
/// for ever: one that was begun beside others that run must not end them.
pub async fn run(pipeline: Pipeline, startup: Option<Duration>, shutdown: Shutdown) -> Result<bool, Fault> {
    let began = Instant::now();
    let mut attempts = 0;
    loop {
        let generation = Instant::now();
        let Ended { result, drained } = pipeline.generation(&shutdown).await;
        pipeline.reports.source.set_connected(false);
        let Err(fault) = result else { return Ok(drained) };
        if shutdown.stop.is_cancelled() && fault.is_retryable() {
            warn!(source = %pipeline.name, error = %fault, "source failed while stopping");
            return Ok(drained);
        }
        if !fault.is_retryable() && !pipeline.isolated {
            return Err(fault);
        }
        if matches!(fault, Fault::Retryable { after: Some(Duration::ZERO), .. }) {
            info!(source = %pipeline.name, why = %fault, "source begins anew");
            attempts = 0;
            continue;
        }
        if generation.elapsed() >= HEALTHY {
            attempts = 0;
        }
        attempts += 1;
        let startup = startup.filter(|_| !pipeline.isolated && !pipeline.reports.source.ever_connected());
        if startup.is_some_and(|startup| began.elapsed() >= startup) {
            return Err(fault);
        }
        let after = match &fault {
            Fault::Retryable { after, .. } => *after,
            Fault::Fatal { .. } => None,
        };
        let mut wait = RETRY.wait(attempts, after);
        if let Some(startup) = startup {
            wait = wait.min(startup.saturating_sub(began.elapsed()));
        }
        if !fault.is_retryable() {
            wait = STOPPED_FOR;
            error!(source = %pipeline.name, error = %fault, remedy = fault.remedy(), wait_s = wait.as_secs(), "destination stopped until somebody acts; what it must get is kept in the journal");
            pipeline.lanes.iter().for_each(|lane| {
                lane.report.set_connected(false);
                lane.report.detail(STOPPED, fault.to_string());
            });
        } else if attempts == 1 {
            warn!(source = %pipeline.name, error = %fault, remedy = fault.remedy(), "source failed; trying again");
        } else {
            info!(source = %pipeline.name, error = %fault, attempts, wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "source failed again");
        }
        let until = Instant::now() + wait;
        while Instant::now() < until {
            for report in [&pipeline.reports.source, &pipeline.reports.stage, &pipeline.reports.checkpoint] {
                report.turned();
            }
            pipeline.lanes.iter().for_each(|lane| lane.report.turned());
            tokio::select! {
                () = tokio::time::sleep_until(until.min(Instant::now() + TURN)) => {}
                () = shutdown.stop.cancelled() => return Ok(drained),
            }
        }
    }
}
