//! `type: http`: schemas below an address of a web server.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_api::{Fault, Mistake, SchemaKey, SchemaStore, SchemaStoreConnector, SchemaStoreSetting};
use reqwest::header::HeaderMap;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::client::{Web, secret_header};
use crate::paths::Layout;

/// The connector, for the registry.
#[derive(Debug)]
pub struct HttpStore;

/// Schemas below an address of a web server.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// What paths are added to: `https://schemas.example.com/s`.
    pub url: String,
    /// Under which path a schema is: `com.acme/order/1-0-0` below `url`.
    #[serde(default)]
    pub layout: WebLayout,
    /// Headers of each request, for instance for authorization.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// Under which path a schema is: `com.acme/order/1-0-0` is …
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum WebLayout {
    /// `com.acme/order/1-0-0`: as Forebay serves its own below `/s`.
    #[default]
    Key,
    /// `com.acme/order/1-0-0.json`.
    Nested,
    /// `com.acme.order.1-0-0.json`.
    Flat,
    /// `com.acme/order/jsonschema/1-0-0`.
    Iglu,
}

/// Headers may be secret.
impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConfig").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl SchemaStoreConnector for HttpStore {
    const TYPE: &'static str = "http";
    const ABOUT: &'static str = "Schemas below an address of a web server";
    type Config = HttpConfig;

    fn build(config: HttpConfig, _: &SchemaStoreSetting) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>> {
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            secret_header("/headers", name, value, &mut headers)?;
        }
        Ok(Arc::new(Server { web: Web::new(&config.url, headers)?, layout: config.layout }))
    }
}

struct Server {
    web: Web,
    layout: WebLayout,
}

#[async_trait]
impl SchemaStore for Server {
    async fn fetch(&self, key: &SchemaKey) -> Result<Option<Bytes>, Fault> {
        let path = match self.layout {
            WebLayout::Key => Some(key.as_str().to_owned()),
            WebLayout::Nested => Layout::Nested.path(key),
            WebLayout::Flat => Layout::Flat.path(key),
            WebLayout::Iglu => Layout::Iglu.path(key),
        };
        match path {
            Some(path) => self.web.get(&path).await,
            None => Ok(None),
        }
    }
}
