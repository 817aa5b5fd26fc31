//! What must be reachable before anything is read.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use forebay_api::{Destination, Fault};
use tokio::time::Instant;
use tracing::warn;

use super::parts::Built;
use crate::admin::Status;
use crate::lane::{Retry, TURN};

/// How long opening one destination may take before it counts as failed.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A required destination that is not there at the start is looked for this often.
const STARTUP_RETRY: Retry =
    Retry { initial: Duration::from_millis(200), max: Duration::from_secs(2), attempts: NonZeroU32::MAX };

/// The destinations that must be there before a source is read: those that hold its checkpoint. One that is not
/// required never keeps the daemon from starting, nor does one behind a journal: its lane opens it.
pub(super) fn required<'b>(built: impl Iterator<Item = &'b Built>) -> Vec<(Arc<str>, Arc<dyn Destination>)> {
    let mut all: Vec<(Arc<str>, Arc<dyn Destination>)> = Vec::new();
    let lanes = built.filter(|built| !built.pipeline.isolated).flat_map(|built| &built.pipeline.lanes);
    for lane in lanes.filter(|lane| lane.settings.required) {
        // one that several sources share is opened once
        if !all.iter().any(|(_, known)| Arc::ptr_eq(known, &lane.destination)) {
            all.push((lane.settings.destination.clone(), lane.destination.clone()));
        }
    }
    all
}

/// Opens them, all at once, each retried until `within` is over.
pub(super) async fn reach_all(
    destinations: &[(Arc<str>, Arc<dyn Destination>)],
    within: Duration,
    status: &Status,
) -> Result<(), Fault> {
    let each = destinations.iter().map(|(name, destination)| reach(name, &**destination, within));
    let mut reached = std::pin::pin!(futures::future::try_join_all(each));
    loop {
        match tokio::time::timeout(TURN, reached.as_mut()).await {
            Ok(result) => break result.map(drop),
            Err(_) => status.turned(),
        }
    }
}

async fn reach(name: &str, destination: &dyn Destination, within: Duration) -> Result<(), Fault> {
    let deadline = Instant::now() + within;
    let mut attempts = 0;
    loop {
        let opening = tokio::time::timeout(OPEN_TIMEOUT, destination.open()).await;
        let fault = match opening {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(fault)) => fault,
            Err(_) => {
                Fault::retryable(format!("opening `{name}`"), format!("no answer within {OPEN_TIMEOUT:?}"))
            }
        };
        let wait = STARTUP_RETRY.wait(attempts + 1, None);
        if !fault.is_retryable() || Instant::now() + wait >= deadline {
            return Err(fault);
        }
        if attempts == 0 {
            warn!(destination = name, error = %fault, remedy = fault.remedy(), wait_s = within.as_secs(), "required destination is not reachable yet; waiting for it");
        }
        attempts += 1;
        tokio::time::sleep(wait).await;
    }
}
