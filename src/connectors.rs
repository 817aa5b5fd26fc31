//! The only file that names connectors.

use forebay_api::Registry;

/// The demo reaches its database as the connector does.
#[cfg(feature = "demo")]
pub(crate) use forebay_postgres::{
    connect::{ConnectError, Server, Sql},
    url::UrlSetting,
};

/// Every connector of this build.
pub fn registry() -> Registry {
    #[allow(unused_mut, reason = "a build without connectors registers none")]
    let mut registry = Registry::default();
    #[cfg(feature = "postgres")]
    {
        registry.source::<forebay_postgres::PostgresSource>();
        registry.destination::<forebay_postgres::PostgresDestination>();
        registry.schema_store::<forebay_postgres::PostgresSchemas>();
    }
    #[cfg(feature = "kafka")]
    {
        registry.source::<forebay_kafka::KafkaSource>();
        registry.destination::<forebay_kafka::KafkaDestination>();
        registry.journal::<forebay_kafka::KafkaJournal>();
        registry.schema_store::<forebay_kafka::KafkaSchemas>();
    }
    #[cfg(feature = "kinesis")]
    registry.destination::<forebay_kinesis::KinesisDestination>();
    #[cfg(feature = "http")]
    {
        registry.source::<forebay_http::HttpSource>();
        registry.destination::<forebay_http::HttpDestination>();
    }
    #[cfg(feature = "file")]
    {
        registry.destination::<forebay_file::FileDestination>();
        registry.destination::<forebay_file::StdoutDestination>();
        registry.destination::<forebay_file::BlackholeDestination>();
    }
    #[cfg(feature = "journal")]
    registry.journal::<forebay_journal::DiskJournal>();
    #[cfg(feature = "schemas")]
    {
        registry.schema_store::<forebay_schemas::FileStore>();
        registry.schema_store::<forebay_schemas::HttpStore>();
        registry.schema_store::<forebay_schemas::IgluStore>();
    }
    #[cfg(feature = "object-store")]
    {
        registry.schema_store::<forebay_schemas::S3Store>();
        registry.schema_store::<forebay_schemas::GcsStore>();
        registry.schema_store::<forebay_schemas::AzureStore>();
    }
    registry
}
