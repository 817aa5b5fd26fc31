//! Checks that disturb: dropped deliveries, killed daemons, dead, cut, refusing and slow servers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::{Disturbance, Rig, close, judged, lane, unit};
use crate::testing::lane::Unit;
use crate::testing::workload::Workload;
use crate::testing::{Failure, Outcome, seed};

/// How often a delivery is dropped; each time somewhere else.
const DROPS: u32 = 24;

/// So many of these come after the first poll, the second, and so on.
const EARLY: u32 = 8;

/// How often a server is disturbed while it is written to.
const ROUNDS: u32 = 4;

/// How long a slow server stays slow.
const SLOW_FOR: Duration = Duration::from_secs(3);

/// A shutdown or an aborted generation drops a running `deliver` at any await; the same instance is then given
/// what is still open.
pub(super) async fn a_dropped_delivery(rig: &Rig) -> Outcome {
    dropped(rig, false).await
}

/// The same, but the instance is dropped with it, unclosed, and a new one goes on.
pub(super) async fn a_killed_daemon(rig: &Rig) -> Outcome {
    dropped(rig, true).await
}

async fn dropped(rig: &Rig, and_killed: bool) -> Outcome {
    let mut random = StdRng::seed_from_u64(seed("a dropped delivery"));
    let mut workload = Workload::new(1);
    let mut lane = lane(rig, &workload).await;
    for round in 0..DROPS {
        let mut unit = unit(&mut workload, 3, 100);
        // First after each of its first polls, then anywhere: after so many polls or so much time.
        let turns = if round < EARLY { round } else { random.random_range(0..1000) };
        let by_the_clock = round >= EARLY && round % 2 == 0;
        let wait = Duration::from_micros(if by_the_clock { random.random_range(0..20_000) } else { 0 });
        let interruption = async {
            for _ in 0..turns {
                yield_now().await;
            }
            if !wait.is_zero() {
                sleep(wait).await;
            }
        };
        lane.interrupt(&mut unit, interruption).await?;
        if and_killed {
            lane.restart(rig.build().await);
        }
        lane.run_all([unit]).await?;
    }
    judged(rig, &[&workload], &lane).await
}

/// A disturbance begins and ends several times while deliveries run; afterwards everything is stored, and what was
/// accepted at any time before is there.
pub(super) async fn disturbed(rig: &Rig, how: Disturbance, what: &'static str) -> Outcome {
    if !rig.disturbances().contains(&how) {
        return Err(Failure::Missing(what));
    }
    let mut random = StdRng::seed_from_u64(seed("a disturbance"));
    let mut workload = Workload::new(1);
    let destination = rig.build().await;
    let mut lane = lane(rig, &workload).await;
    lane.restart(destination.clone());
    lane.pace = Duration::from_millis(2);
    let mut settled = lane.settled();
    let done = AtomicBool::new(false);
    let feeding = lane.run(|| (!done.load(Ordering::Relaxed)).then(|| unit(&mut workload, 2, 100)));
    let disturbing = async {
        for _ in 0..ROUNDS {
            settled.changed().await.expect("the lane lives as long");
            sleep(Duration::from_millis(random.random_range(0..30))).await;
            rig.disturb(how).await;
            sleep(Duration::from_millis(random.random_range(50..500))).await;
            rig.restore(how).await;
            settled.mark_unchanged();
            settled.changed().await.expect("the lane lives as long");
        }
        done.store(true, Ordering::Relaxed);
        Ok(())
    };
    tokio::try_join!(feeding, disturbing)?;
    close(&destination).await?;
    judged(rig, &[&workload], &lane).await
}

/// A server that answers late: attempts run out of time and are dropped, where that is allowed; nothing is lost.
pub(super) async fn a_slow_server(rig: &Rig) -> Outcome {
    if !rig.disturbances().contains(&Disturbance::Slow) {
        return Err(Failure::Missing("server that can be slowed"));
    }
    let mut workload = Workload::new(1);
    let mut lane = lane(rig, &workload).await;
    lane.attempt = Duration::from_millis(700);
    lane.run_all([unit(&mut workload, 1, 100)]).await?;
    rig.disturb(Disturbance::Slow).await;
    let units: Vec<Unit> = (0..10).map(|_| unit(&mut workload, 1, 100)).collect();
    let end = async {
        sleep(SLOW_FOR).await;
        rig.restore(Disturbance::Slow).await;
        Ok(())
    };
    tokio::try_join!(lane.run_all(units), end)?;
    judged(rig, &[&workload], &lane).await
}
