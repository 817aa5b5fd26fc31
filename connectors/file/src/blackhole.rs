//! The `blackhole` destination.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use forebay_api::{Delivery, Destination, DestinationConnector, DestinationSetting, Fault, Finding, Mistake};
use tracing::info;

use crate::config::BlackholeConfig;

/// Accepts everything and keeps nothing but its count, which it tells when it is closed.
#[derive(Debug, Default)]
pub struct BlackholeDestination {
    records: AtomicU64,
    bytes: AtomicU64,
}

#[async_trait]
impl Destination for BlackholeDestination {
    async fn deliver(&self, mut delivery: Delivery) -> Result<(), Fault> {
        let bytes: usize = delivery.open().map(|(_, record)| record.body().len()).sum();
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.records.fetch_add(delivery.len() as u64, Ordering::Relaxed);
        delivery.accept_all();
        Ok(())
    }

    async fn close(&self) -> Result<(), Fault> {
        let (records, bytes) = (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        info!(records, bytes, "blackhole closed");
        Ok(())
    }
}

#[async_trait]
impl DestinationConnector for BlackholeDestination {
    const TYPE: &'static str = "blackhole";
    const ABOUT: &'static str = "takes everything and keeps nothing, for measuring";
    type Config = BlackholeConfig;

    fn build(_: BlackholeConfig, _: &DestinationSetting) -> Result<Arc<dyn Destination>, Vec<Mistake>> {
        Ok(Arc::new(BlackholeDestination::default()))
    }

    async fn check(_: BlackholeConfig, _: &DestinationSetting) -> Vec<Finding> {
        vec![Finding::good("a blackhole needs nothing")]
    }
}
