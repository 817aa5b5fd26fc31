//! What a source finds beside its stream while it is tested: nothing to copy, and schemas kept in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::fault::Fault;
use crate::schema::{KeptSchema, Schemas};
use crate::snapshot::{SnapshotPlan, SnapshotReader, Snapshots, Table};

/// A core that copies nothing.
#[derive(Debug)]
pub struct NothingToCopy;

#[async_trait]
impl Snapshots for NothingToCopy {
    async fn run(
        &self,
        _: SnapshotPlan,
        _: watch::Receiver<Vec<Table>>,
        _: Arc<dyn SnapshotReader>,
    ) -> Result<(), Fault> {
        std::future::pending().await
    }
}

/// Schemas that live as long as the rig.
#[derive(Debug, Default)]
pub struct SchemasInMemory(Mutex<BTreeMap<String, Vec<KeptSchema>>>);

#[async_trait]
impl Schemas for SchemasInMemory {
    async fn versions(&self, vendor: &str, name: &str) -> Result<Vec<KeptSchema>, Fault> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(kept.get(&format!("{vendor}/{name}")).cloned().unwrap_or_default())
    }

    async fn keep(&self, vendor: &str, name: &str, versions: &[KeptSchema]) -> Result<(), Fault> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(format!("{vendor}/{name}"), versions.to_vec());
        Ok(())
    }
}
