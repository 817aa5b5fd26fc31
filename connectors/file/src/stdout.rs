//! The `stdout` destination.

use std::io;
use std::io::Write;
use std::sync::Arc;

use async_trait::async_trait;
use forebay_api::{
    Blame, Delivery, Destination, DestinationConnector, DestinationSetting, Fault, Finding, Mistake,
};

use crate::config::StdoutConfig;
use crate::fault::judge;
use crate::ndjson_file::push_line;

/// Lines are gathered up to this before they are written.
const WRITE_BYTES: usize = 64 << 10;

/// Writes records to standard output, one a line, flushed with every delivery.
#[derive(Debug)]
pub struct StdoutDestination {}

#[async_trait]
impl Destination for StdoutDestination {
    async fn deliver(&self, delivery: Delivery) -> Result<(), Fault> {
        // A reader that is slow holds this back, and with it only this destination.
        let writing = tokio::task::spawn_blocking(|| write(delivery, &mut io::stdout().lock()));
        writing.await.map_err(|died| Fault::fatal("writing to standard output", Blame::Defect, died))?
    }

    /// What was handed to the thread is written whether or not its delivery is dropped.
    fn interruptible(&self) -> bool {
        false
    }
}

#[async_trait]
impl DestinationConnector for StdoutDestination {
    const TYPE: &'static str = "stdout";
    const ABOUT: &'static str = "lines of JSON on standard output";
    const EXAMPLE: &'static str = "\
type: stdout                     # one line each
";
    type Config = StdoutConfig;

    fn build(_: StdoutConfig, _: &DestinationSetting) -> Result<Arc<dyn Destination>, Vec<Mistake>> {
        Ok(Arc::new(StdoutDestination {}))
    }

    async fn check(_: StdoutConfig, _: &DestinationSetting) -> Vec<Finding> {
        vec![Finding::good("standard output is there")]
    }
}

fn write(mut delivery: Delivery, out: &mut impl Write) -> Result<(), Fault> {
    let failed = |error| judge("writing to standard output", error);
    let mut lines = Vec::with_capacity(2 * WRITE_BYTES);
    for (_, record) in delivery.open() {
        push_line(record.body(), &mut lines);
        if lines.len() >= WRITE_BYTES {
            out.write_all(&lines).map_err(failed)?;
            lines.clear();
        }
    }
    out.write_all(&lines).map_err(failed)?;
    out.flush().map_err(failed)?;
    delivery.accept_all();
    Ok(())
}
