//! The client of the service, from the configuration and from wherever AWS keeps its own.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_sdk_kinesis::Client;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use forebay_api::{Blame, Fault};

use crate::config::KinesisConfig;

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a call may take, credentials included.
const CALL_WITHIN: Duration = Duration::from_secs(30);

/// Reads the configuration of AWS. It connects only where that is kept by a service of its own.
pub(crate) async fn connect(config: &KinesisConfig) -> Result<Client, Fault> {
    let http =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        // The lane tries again.
        .retry_config(RetryConfig::disabled())
        // A call that hangs ends by its timeout.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder().connect_timeout(CONNECT_WITHIN).operation_timeout(CALL_WITHIN).build(),
        );
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &config.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(keys) = &config.credentials {
        let token = keys.session_token.as_ref().map(|token| token.expose().to_owned());
        let secret = keys.secret_access_key.expose();
        loader = loader.credentials_provider(Credentials::new(
            &keys.access_key_id,
            secret,
            token,
            None,
            "the configuration",
        ));
    }
    if let Some(endpoint) = &config.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let loaded = loader.load().await;
    if loaded.region().is_none() {
        let error = "no region is set";
        return Err(Fault::fatal("reading the configuration of AWS", Blame::Configuration, error)
            .with_remedy("set `region`, or `AWS_REGION`"));
    }
    Ok(Client::new(&loaded))
}
