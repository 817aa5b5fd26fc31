//! `type: iglu`: a static Iglu registry, or an Iglu Server.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_api::{Fault, Mistake, SchemaKey, SchemaStore, SchemaStoreConnector, SchemaStoreSetting};
use reqwest::header::HeaderMap;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::client::{Web, secret_header};

/// The connector, for the registry.
#[derive(Debug)]
pub struct IgluStore;

/// A static Iglu registry, or an Iglu Server.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IgluConfig {
    /// Of a static registry what is above `/schemas` (`http://iglucentral.com`), of a server what is above `/schemas` too
    /// (`https://iglu.example.com/api`).
    pub url: String,
    /// The key of an Iglu Server, a UUID; it needs to read only.
    pub apikey: Option<String>,
}

/// The key is secret.
impl fmt::Debug for IgluConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IgluConfig").finish_non_exhaustive()
    }
}

impl SchemaStoreConnector for IgluStore {
    const TYPE: &'static str = "iglu";
    const ABOUT: &'static str = "A static Iglu registry, or an Iglu Server";
    type Config = IgluConfig;

    fn build(config: IgluConfig, _: &SchemaStoreSetting) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>> {
        let mut headers = HeaderMap::new();
        if let Some(key) = &config.apikey {
            secret_header("/apikey", "apikey", key, &mut headers)?;
        }
        Ok(Arc::new(Iglu { web: Web::new(&config.url, headers)? }))
    }
}

struct Iglu {
    web: Web,
}

#[async_trait]
impl SchemaStore for Iglu {
    async fn fetch(&self, key: &SchemaKey) -> Result<Option<Bytes>, Fault> {
        match key.iglu_path() {
            Some(path) => self.web.get(&format!("schemas/{path}")).await,
            None => Ok(None),
        }
    }
}
