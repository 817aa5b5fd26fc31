//! Shutdown in two steps: `stop` ends reading and lets what was read drain; `abort` ends everything and leaves the
//! checkpoint behind. Both are parameters of whatever they end; nothing else is global.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The two steps.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Sources stop reading; what they sent is drained.
    pub stop: CancellationToken,
    /// Everything ends at once; what is not settled comes again at the next start.
    pub abort: CancellationToken,
}

impl Shutdown {
    /// Two steps below these: they follow their parents, and can be taken alone.
    pub fn child(&self) -> Shutdown {
        Shutdown { stop: self.stop.child_token(), abort: self.abort.child_token() }
    }

    /// Listens for SIGTERM and SIGINT until the process ends: the first one stops, a second one, or `grace` after the
    /// stop, aborts. Installing the handlers fails only where the runtime has no signal driver.
    pub async fn listen(self, grace: Duration) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut next =
            async || tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
        tokio::select! {
            name = next() => info!(signal = name, grace_s = grace.as_secs(), "stopping: draining what was read"),
            // Something else stopped it (a fatal fault); the same grace holds.
            () = self.stop.cancelled() => {}
        }
        self.stop.cancel();
        tokio::select! {
            name = next() => warn!(signal = name, "aborting: what is not settled comes again at the next start"),
            () = tokio::time::sleep(grace) => {
                warn!(grace_s = grace.as_secs(), "aborting: grace is over; what is not settled comes again");
            }
        }
        self.abort.cancel();
        Ok(())
    }
}
