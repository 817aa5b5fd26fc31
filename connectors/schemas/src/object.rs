//! `type: s3`, `gcs` and `azure`: schemas as objects of a bucket.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use forebay_api::{
    Blame, Fault, MAX_SCHEMA_BYTES, Mistake, SchemaKey, SchemaStore, SchemaStoreConnector, SchemaStoreSetting,
};
use futures::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, RetryConfig};
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

use crate::client::wrong;
use crate::paths::Layout;

/// The core tries again, and knows when to stop.
const RETRY_LIMIT: Duration = Duration::from_secs(5);

/// Schemas as objects of a bucket. Credentials come from here, from the environment, or from the machine's role.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectConfig {
    /// The bucket; of Azure, the container.
    #[schemars(length(min = 2))]
    pub bucket: String,
    /// What paths begin with: `schemas/`.
    #[serde(default)]
    pub prefix: String,
    /// Under which path a schema is.
    #[serde(default)]
    pub layout: Layout,
    /// The address of a server that is compatible, where it is not the provider's own.
    pub endpoint: Option<String>,
    /// Further settings of the client by the names that `object_store` has for them, such as `region`,
    /// `access_key_id`, `secret_access_key`, `service_account`, `account_name`, `account_key`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// Options may be secret.
impl fmt::Debug for ObjectConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectConfig").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

/// Amazon S3 and what is compatible with it.
#[derive(Debug)]
pub struct S3Store;

/// Google Cloud Storage.
#[derive(Debug)]
pub struct GcsStore;

/// Azure Blob Storage.
#[derive(Debug)]
pub struct AzureStore;

impl SchemaStoreConnector for S3Store {
    const TYPE: &'static str = "s3";
    const ABOUT: &'static str = "Schemas in Amazon S3, or in what is compatible with it";
    type Config = ObjectConfig;

    fn build(config: ObjectConfig, _: &SchemaStoreSetting) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>> {
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&config.bucket).with_retry(retries());
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        for (name, value) in &config.options {
            builder = builder.with_config(option(name)?, value);
        }
        bucket(&config, builder.build().map(|store| Arc::new(store) as Arc<_>))
    }
}

impl SchemaStoreConnector for GcsStore {
    const TYPE: &'static str = "gcs";
    const ABOUT: &'static str = "Schemas in Google Cloud Storage";
    type Config = ObjectConfig;

    fn build(config: ObjectConfig, _: &SchemaStoreSetting) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>> {
        let mut builder =
            GoogleCloudStorageBuilder::from_env().with_bucket_name(&config.bucket).with_retry(retries());
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_base_url(endpoint);
            let plain = object_store::ClientOptions::new().with_allow_http(endpoint.starts_with("http://"));
            builder = builder.with_client_options(plain);
        }
        for (name, value) in &config.options {
            builder = builder.with_config(option(name)?, value);
        }
        bucket(&config, builder.build().map(|store| Arc::new(store) as Arc<_>))
    }
}

impl SchemaStoreConnector for AzureStore {
    const TYPE: &'static str = "azure";
    const ABOUT: &'static str = "Schemas in Azure Blob Storage";
    type Config = ObjectConfig;

    fn build(config: ObjectConfig, _: &SchemaStoreSetting) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>> {
        let mut builder =
            MicrosoftAzureBuilder::from_env().with_container_name(&config.bucket).with_retry(retries());
        if let Some(endpoint) = &config.endpoint {
            builder =
                builder.with_endpoint(endpoint.clone()).with_allow_http(endpoint.starts_with("http://"));
        }
        for (name, value) in &config.options {
            builder = builder.with_config(option(name)?, value);
        }
        bucket(&config, builder.build().map(|store| Arc::new(store) as Arc<_>))
    }
}

fn option<K: std::str::FromStr>(name: &str) -> Result<K, Vec<Mistake>> {
    name.parse().map_err(|_| wrong("/options", format!("there is no option `{name}`")))
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: 2, retry_timeout: RETRY_LIMIT, ..RetryConfig::default() }
}

fn bucket(
    config: &ObjectConfig,
    built: Result<Arc<dyn ObjectStore>, Error>,
) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>> {
    let store = built.map_err(|error| wrong("", error.to_string()))?;
    let prefix = match config.prefix.trim_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    Path::parse(&prefix).map_err(|error| wrong("/prefix", error.to_string()))?;
    Ok(Arc::new(Bucket { store, name: config.bucket.clone(), prefix, layout: config.layout }))
}

struct Bucket {
    store: Arc<dyn ObjectStore>,
    name: String,
    prefix: String,
    layout: Layout,
}

impl Bucket {
    fn path(&self, key: &SchemaKey) -> Result<Option<Path>, Fault> {
        let Some(path) = self.layout.path(key) else { return Ok(None) };
        let parsed = Path::parse(format!("{}{path}", self.prefix));
        parsed.map(Some).map_err(|error| Fault::fatal(format!("naming `{path}`"), Blame::Defect, error))
    }

    fn judge(&self, path: &str, error: Error) -> Fault {
        let doing = format!("asking bucket `{}` for `{path}`", self.name);
        match error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                Fault::fatal(doing, Blame::Configuration, error).with_remedy(
                    "let our credentials read and list the bucket; without the right to list, what is missing looks \
                     forbidden",
                )
            }
            error => Fault::retryable(doing, error).with_remedy("look whether the bucket can be reached"),
        }
    }
}

#[async_trait]
impl SchemaStore for Bucket {
    async fn fetch(&self, key: &SchemaKey) -> Result<Option<Bytes>, Fault> {
        let Some(path) = self.path(key)? else { return Ok(None) };
        let found = match self.store.get(&path).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return self.is_there(&path).await,
            Err(error) => return Err(self.judge(path.as_ref(), error)),
        };
        let mut text = BytesMut::new();
        let mut parts = found.into_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| self.judge(path.as_ref(), error))?;
            text.extend_from_slice(&part);
            if text.len() > MAX_SCHEMA_BYTES {
                let error = format!("it is longer than {MAX_SCHEMA_BYTES} bytes");
                return Err(Fault::fatal(format!("reading `{path}`"), Blame::Outside, error));
            }
        }
        Ok(Some(text.freeze()))
    }

    async fn list(&self, most: usize) -> Result<Option<Vec<SchemaKey>>, Fault> {
        let prefix = Path::parse(&self.prefix).unwrap_or_default();
        let mut objects = self.store.list(Some(&prefix)).take(most);
        let mut keys = Vec::new();
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| self.judge(&self.prefix, error))?;
            let path = object.location.as_ref().strip_prefix(&self.prefix);
            keys.extend(path.and_then(|path| self.layout.key(path)));
        }
        Ok(Some(keys))
    }

    async fn put(&self, key: &SchemaKey, schema: Bytes) -> Result<(), Fault> {
        let Some(path) = self.path(key)? else {
            let error = format!("`{key}` has no path in this layout");
            return Err(Fault::fatal("storing a schema", Blame::Configuration, error));
        };
        let put = self.store.put(&path, schema.into()).await;
        put.map(drop).map_err(|error| self.judge(path.as_ref(), error))
    }

    fn is_writable(&self) -> bool {
        true
    }
}

impl Bucket {
    /// Providers answer 404 for a bucket that does not exist too, and that is not an empty one.
    async fn is_there(&self, path: &Path) -> Result<Option<Bytes>, Fault> {
        let prefix = Path::parse(&self.prefix).unwrap_or_default();
        match self.store.list(Some(&prefix)).next().await {
            None | Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Err(self.judge(path.as_ref(), error)),
        }
    }
}
