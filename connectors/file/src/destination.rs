//! The `file` destination.

use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use forebay_api::{
    Delivery, Destination, DestinationConnector, DestinationSetting, Fault, Finding, Mark, Mistake, StreamId,
};
use tokio::sync::OnceCell;

use crate::check;
use crate::config::FileConfig;
use crate::ndjson_file::NdjsonFile;
use crate::writer::Writer;

/// Deliveries that may be under way: those that come until a sync is due are written and synced together. So many of
/// a megabyte each are more than a disk takes in that time.
const IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not 0");

/// Appends records to a file, one a line.
#[derive(Debug)]
pub struct FileDestination {
    config: FileConfig,
    /// Started when it is first needed, for building touches nothing.
    writer: OnceCell<Writer>,
}

impl FileDestination {
    async fn writer(&self) -> Result<&Writer, Fault> {
        let start = async || Writer::start(NdjsonFile::new(self.config.clone()));
        self.writer.get_or_try_init(start).await
    }
}

#[async_trait]
impl Destination for FileDestination {
    async fn open(&self) -> Result<(), Fault> {
        self.writer().await?.open().await
    }

    /// Keeps no marks; but a lane that asks begins anew, so what was refused after a failed delivery is taken again.
    async fn held(&self, stream: &StreamId) -> Result<Option<Mark>, Fault> {
        self.writer().await?.begin(stream).await?;
        Ok(None)
    }

    async fn deliver(&self, delivery: Delivery) -> Result<(), Fault> {
        self.writer().await?.write(delivery).await
    }

    async fn close(&self) -> Result<(), Fault> {
        match self.writer.get() {
            Some(writer) => writer.close().await,
            None => Ok(()),
        }
    }

    fn max_in_flight(&self) -> NonZeroUsize {
        IN_FLIGHT
    }

    /// A write that hangs in the kernel goes on, whether its delivery is dropped or not.
    fn interruptible(&self) -> bool {
        false
    }
}

#[async_trait]
impl DestinationConnector for FileDestination {
    const TYPE: &'static str = "file";
    const ABOUT: &'static str = "lines of JSON appended to a file, synced and rotated";
    const EXAMPLE: &'static str = "\
type: file                       # NDJSON: one event a line
path: ./data/events.ndjson
# rotate: {bytes: 256MiB, age: 1h}   # default: one file for ever
";
    type Config = FileConfig;

    fn build(config: FileConfig, _: &DestinationSetting) -> Result<Arc<dyn Destination>, Vec<Mistake>> {
        let mistakes = config.mistakes();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Arc::new(FileDestination { config, writer: OnceCell::new() }))
    }

    async fn check(config: FileConfig, _: &DestinationSetting) -> Vec<Finding> {
        // Only looks at names; a network file system that hangs would hang the daemon just as well.
        vec![check::writable(&config.path)]
    }
}
