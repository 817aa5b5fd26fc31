//! [`SchemaStore`]: where the schemas of events are kept, one link of the registry's chain.
//!
//! The core asks the stores of a chain in order; the first that has a key wins. So a store must tell three answers apart:
//! *here it is*, *it is not here*, and *I could not look*. One that takes the last for the second turns good events bad
//! whenever its server is down.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::fault::{Blame, Fault};
use crate::registry::Mistake;
use crate::schema_key::SchemaKey;

/// The longest schema that is taken from a store, in bytes. A store reads no more than this of an answer.
pub const MAX_SCHEMA_BYTES: usize = 1 << 20;

/// Keeps JSON Schemas by their keys.
#[async_trait]
pub trait SchemaStore: Send + Sync + 'static {
    /// The bytes of a schema as they are kept, `None` where the store knows that it has no such schema. A fault: it could
    /// not look. Nothing is cached here; the core does.
    async fn fetch(&self, key: &SchemaKey) -> Result<Option<Bytes>, Fault>;

    /// The keys that it has, at most `most` of them; `None` where it cannot list them.
    async fn list(&self, most: usize) -> Result<Option<Vec<SchemaKey>>, Fault> {
        let _ = most;
        Ok(None)
    }

    /// Keeps a schema under a key, in place of what was there.
    async fn put(&self, key: &SchemaKey, schema: Bytes) -> Result<(), Fault> {
        let _ = schema;
        let error = "a registry of this kind is only read";
        Err(Fault::fatal(format!("storing the schema `{key}`"), Blame::Configuration, error)
            .with_remedy("take `write: true` away from it"))
    }

    /// Whether [`SchemaStore::put`] works.
    fn is_writable(&self) -> bool {
        false
    }
}

/// What the core tells a store about its place in the configuration.
#[derive(Clone, Debug)]
pub struct SchemaStoreSetting {
    /// What it is called in messages and figures: its type and its place in the list, `iglu-2`.
    pub name: String,
    /// Where the daemon keeps its state.
    pub data_dir: PathBuf,
}

/// A kind of schema store.
pub trait SchemaStoreConnector: 'static {
    /// The word in `type:`.
    const TYPE: &'static str;
    /// One line for `forebay list`.
    const ABOUT: &'static str;
    /// Its own keys. Refuses unknown fields.
    type Config: DeserializeOwned + JsonSchema + Send;

    /// Validates what the type system cannot. No I/O.
    fn build(
        config: Self::Config,
        setting: &SchemaStoreSetting,
    ) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>>;
}

/// A schema store connector with its types erased.
pub struct SchemaStoreEntry {
    /// One line for `forebay list`.
    pub about: &'static str,
    /// The schema of its own keys.
    pub schema: Schema,
    /// See [`SchemaStoreConnector::build`].
    pub build: fn(Value, &SchemaStoreSetting) -> BuiltStore,
}

/// A store, or all that is wrong with its configuration.
type BuiltStore = Result<Arc<dyn SchemaStore>, Vec<Mistake>>;
