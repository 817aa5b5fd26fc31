//! [`Chain`]: the registry, as stores that are asked in order.
//!
//! The first that has a key wins. A store that cannot be asked ends the search with its fault: what it might have must
//! not be taken from a store behind it, and "down" is never "not there". The schemas that come with Forebay are behind
//! all others, but for those of its own vendor, which need no store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_api::{Blame, Fault, MAX_SCHEMA_BYTES, SchemaKey, SchemaStore};

use super::embedded;
use super::schema::{Loaded, compiled};

/// How long a store may take for one schema.
const FETCH_LIMIT: Duration = Duration::from_secs(10);

/// One store of the chain.
#[derive(Clone)]
pub struct Link {
    /// What it is called in messages.
    pub name: Arc<str>,
    /// The store.
    pub store: Arc<dyn SchemaStore>,
}

/// The stores, in the order in which they are asked.
#[derive(Clone, Default)]
pub struct Chain {
    links: Vec<Link>,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.links.iter().map(|link| &link.name)).finish()
    }
}

impl Chain {
    /// Of these stores.
    pub fn new(links: Vec<Link>) -> Chain {
        Chain { links }
    }

    /// The stores.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// A schema as the first store keeps it that has it.
    pub async fn fetch(&self, key: &SchemaKey) -> Result<Option<Bytes>, Fault> {
        let embedded = embedded::find(key);
        if embedded.is_some() && key.vendor() == embedded::VENDOR {
            return Ok(embedded);
        }
        for link in &self.links {
            let doing = || format!("fetching the schema `{key}` from `{}`", link.name);
            let found = tokio::time::timeout(FETCH_LIMIT, link.store.fetch(key)).await;
            let found = found
                .map_err(|_| Fault::retryable(doing(), format!("no answer within {FETCH_LIMIT:?}")))??;
            let Some(found) = found else { continue };
            if found.len() > MAX_SCHEMA_BYTES {
                let error = format!("it is larger than {MAX_SCHEMA_BYTES} bytes");
                return Err(Fault::fatal(doing(), Blame::Outside, error)
                    .with_remedy("divide the schema into several that refer to each other"));
            }
            return Ok(Some(found));
        }
        Ok(embedded)
    }

    /// What a text would be under a key, with all that it refers to from here.
    pub async fn judge(&self, key: &SchemaKey, text: &Bytes) -> Result<Loaded, Fault> {
        compiled(self, key, text.clone()).await
    }

    /// The keys that stores list, at most `most` of them. A store that cannot list adds none.
    pub async fn list(&self, most: usize) -> Result<Vec<SchemaKey>, Fault> {
        let mut keys = embedded::keys();
        for link in &self.links {
            let doing = format!("listing the schemas of `{}`", link.name);
            let listed = tokio::time::timeout(FETCH_LIMIT, link.store.list(most)).await;
            let listed = listed
                .map_err(|_| Fault::retryable(doing, format!("no answer within {FETCH_LIMIT:?}")))??;
            keys.extend(listed.into_iter().flatten());
        }
        keys.sort_unstable();
        keys.dedup();
        keys.truncate(most);
        Ok(keys)
    }
}
