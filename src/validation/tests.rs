//! Validation as a whole: from a scripted store to verdicts.

mod cache;
mod judge;
mod schema;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use forebay_api::{Fault, SchemaKey, SchemaStore};
use serde_json::Value;

use super::*;

/// A store that a test fills and takes down.
#[derive(Default)]
struct Scripted {
    schemas: Mutex<HashMap<String, Bytes>>,
    down: Mutex<bool>,
    fetches: AtomicUsize,
}

impl Scripted {
    fn with(schemas: &[(&str, Value)]) -> Arc<Scripted> {
        let store = Arc::new(Scripted::default());
        schemas.iter().for_each(|(key, schema)| store.keep(key, &schema.to_string()));
        store
    }

    fn keep(&self, key: &str, text: &str) {
        self.schemas.lock().unwrap().insert(key.to_owned(), Bytes::from(text.to_owned()));
    }

    fn remove(&self, key: &str) {
        self.schemas.lock().unwrap().remove(key);
    }

    fn set_down(&self, down: bool) {
        *self.down.lock().unwrap() = down;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    fn chain(self: &Arc<Scripted>) -> Chain {
        Chain::new(vec![Link { name: "scripted".into(), store: self.clone() }])
    }
}

#[async_trait]
impl SchemaStore for Scripted {
    async fn fetch(&self, key: &SchemaKey) -> Result<Option<Bytes>, Fault> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        if *self.down.lock().unwrap() {
            return Err(Fault::retryable("asking the store", "connection refused"));
        }
        Ok(self.schemas.lock().unwrap().get(key.as_str()).cloned())
    }

    async fn list(&self, most: usize) -> Result<Option<Vec<SchemaKey>>, Fault> {
        let keys = self.schemas.lock().unwrap();
        Ok(Some(keys.keys().take(most).map(|key| key.parse().unwrap()).collect()))
    }
}

fn key(text: &str) -> SchemaKey {
    text.parse().unwrap()
}
