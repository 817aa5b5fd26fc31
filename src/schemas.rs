//! The schemas of events: that of the envelope, and where those are kept that sources generate.

use std::sync::Arc;

use async_trait::async_trait;
use forebay_api::{Blame, Fault, KeptSchema, Schemas};

use crate::state::{Kind, StateStore};

/// The schema of `format: forebay`, written by hand beside the text that describes it.
pub const ENVELOPE: &str = include_str!("../config/envelope.schema.json");

/// Vendor, name and version of it.
pub const ENVELOPE_KEY: (&str, &str, &str) = ("forebay", "envelope", "1-0-0");

/// The schema of the payload of a dead letter that is handed on, written by hand.
pub const DEAD_LETTER: &str = include_str!("../config/dead_letter.schema.json");

/// Vendor, name and version of it.
pub const DEAD_LETTER_KEY: (&str, &str, &str) = ("forebay", "dead_letter", "1-0-0");

/// The schemas that one source has generated.
#[derive(Debug)]
pub struct SourceSchemas {
    source: String,
    store: Arc<dyn StateStore>,
}

impl SourceSchemas {
    /// Those of the source of this name.
    pub fn new(source: &str, store: Arc<dyn StateStore>) -> SourceSchemas {
        SourceSchemas { source: source.to_owned(), store }
    }

    /// All of them, with vendor and name.
    pub async fn all(&self) -> Result<Vec<(String, String, Vec<KeptSchema>)>, Fault> {
        let prefix = format!("{}/", self.source);
        let mut all = Vec::new();
        for (key, value) in self.store.all(Kind::Schemas, &prefix).await? {
            // a vendor has no slash
            let (vendor, name) = key[prefix.len()..].split_once('/').unwrap_or_default();
            all.push((vendor.to_owned(), name.to_owned(), decode(vendor, name, &value)?));
        }
        Ok(all)
    }

    fn key(&self, vendor: &str, name: &str) -> String {
        format!("{}/{vendor}/{name}", self.source)
    }
}

#[async_trait]
impl Schemas for SourceSchemas {
    async fn versions(&self, vendor: &str, name: &str) -> Result<Vec<KeptSchema>, Fault> {
        let key = self.key(vendor, name);
        let found = self.store.all(Kind::Schemas, &key).await?;
        let Some(value) = found.get(&key) else { return Ok(Vec::new()) };
        decode(vendor, name, value)
    }

    async fn keep(&self, vendor: &str, name: &str, versions: &[KeptSchema]) -> Result<(), Fault> {
        let doing = || format!("storing the schemas of `{vendor}/{name}`");
        let value =
            serde_json::to_vec(versions).map_err(|error| Fault::fatal(doing(), Blame::Defect, error))?;
        let stored = self.store.put(Kind::Schemas, vec![(self.key(vendor, name), Some(value))]).await;
        stored.map_err(|error| Fault::retryable(doing(), error))
    }
}

fn decode(vendor: &str, name: &str, value: &[u8]) -> Result<Vec<KeptSchema>, Fault> {
    serde_json::from_slice(value).map_err(|error| {
        Fault::fatal(format!("reading the schemas of `{vendor}/{name}`"), Blame::Outside, error)
            .with_remedy("run the Forebay that stored them, or a newer one")
    })
}
