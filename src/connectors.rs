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
    }
    #[cfg(feature = "kafka")]
    {
        registry.source::<forebay_kafka::KafkaSource>();
        registry.destination::<forebay_kafka::KafkaDestination>();
        registry.journal::<forebay_kafka::KafkaJournal>();
    }
    #[cfg(feature = "http")]
    registry.source::<forebay_http::HttpSource>();
    #[cfg(feature = "file")]
    {
        registry.destination::<forebay_file::FileDestination>();
        registry.destination::<forebay_file::StdoutDestination>();
        registry.destination::<forebay_file::BlackholeDestination>();
    }
    #[cfg(feature = "journal")]
    registry.journal::<forebay_journal::DiskJournal>();
    registry
}
