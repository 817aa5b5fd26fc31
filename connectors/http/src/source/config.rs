//! What the configuration says of the collector. Its documentation comments are the manual's.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;

use forebay_api::units::{ByteSize, Period};
use schemars::JsonSchema;
use serde::Deserialize;

use super::snowplow::SnowplowConfig;
use super::{cloudevents, pixel, self_describing, webhook};

/// The keys of a source of type `http`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it listens: `host:port`. May be left out where `unix` says another place.
    pub listen: Option<String>,
    /// A Unix socket to listen on, instead of or besides `listen`. One that nobody listens on any more is replaced.
    pub unix: Option<PathBuf>,
    /// What it understands. By default every input there is; where this is given, those that it names.
    #[serde(default)]
    pub inputs: Inputs,
    /// How much a sender may send.
    #[serde(default)]
    pub limits: Limits,
    /// How long a sender, and a sender's events, may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Which pages of other origins may read answers and send cookies.
    #[serde(default)]
    pub cors: Cors,
    /// Hosts that redirects may lead to: `shop.example.com`, or `*.example.com` for all below it. None by default, and
    /// then there are no redirects.
    #[serde(default)]
    pub redirects: Vec<String>,
    /// Proxies that are believed when they say in `X-Forwarded-For` whom they speak for: addresses and networks such as
    /// `10.0.0.0/8`, and `unix` for whoever connects by the Unix socket. None by default.
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    /// What is kept of a client's address.
    #[serde(default)]
    pub client_address: ClientAddress,
    /// How many requests one client may make. Absent: any number.
    pub rate_limit: Option<RateLimit>,
    /// Encrypts the connections of `listen`. Absent: plain text.
    pub tls: Option<Tls>,
    /// What `/` answers.
    #[serde(default)]
    pub root: Root,
    /// What `/crossdomain.xml` answers. Absent: there is none.
    pub crossdomain: Option<Crossdomain>,
    /// Writes a line of the log for each request: method, path, status, how long it took. Never its query or body.
    #[serde(default)]
    pub log_requests: bool,
}

/// The inputs that are on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Inputs {
    /// The Snowplow tracker protocol, for any Snowplow tracker.
    pub snowplow: Option<SnowplowConfig>,
    /// CloudEvents 1.0 over HTTP: structured, batched and binary.
    pub cloudevents: Option<cloudevents::Settings>,
    /// Self-describing JSON, one event or an array.
    pub self_describing: Option<self_describing::Settings>,
    /// Webhooks: any JSON, forms and text, with checked signatures.
    pub webhook: Option<webhook::Settings>,
    /// A picture of one pixel, for mails and pages without scripts.
    pub pixel: Option<pixel::Settings>,
}

impl Default for Inputs {
    fn default() -> Inputs {
        Inputs {
            snowplow: Some(SnowplowConfig::default()),
            cloudevents: Some(cloudevents::Settings::default()),
            self_describing: Some(self_describing::Settings::default()),
            webhook: Some(webhook::Settings::default()),
            pixel: Some(pixel::Settings::default()),
        }
    }
}

/// How much a sender may send. What is more gets 413, or 431 where it is in headers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Limits {
    /// Bytes of a body, as it comes.
    pub body: ByteSize,
    /// Bytes of a body after it was inflated.
    pub inflated: ByteSize,
    /// Bytes of the head of a request: its first line and its headers. At least `8KiB`.
    pub headers: ByteSize,
    /// Connections at once. More than these wait until one ends.
    pub connections: NonZeroU32,
    /// Bytes of bodies in memory at once, over all connections. Beyond it the answer is 503.
    pub in_flight: ByteSize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body: ByteSize::mib(1),
            inflated: ByteSize::mib(10),
            headers: ByteSize::kib(16),
            connections: NonZeroU32::new(4096).expect("it is not 0"),
            in_flight: ByteSize::mib(64),
        }
    }
}

/// How long things may take.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Timeouts {
    /// From the first byte of a request until its head is whole; a TLS handshake too.
    pub headers: Period,
    /// Until the body is whole after the head was.
    pub body: Period,
    /// How long a connection may be kept without a request.
    pub idle: Period,
    /// Until events are durable. The answer is 503 then, and they may be delivered all the same.
    pub answer: Period,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            headers: Period::seconds(10),
            body: Period::seconds(30),
            idle: Period::seconds(60),
            answer: Period::seconds(10),
        }
    }
}

/// Which pages may read answers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Cors {
    /// Origins: `https://www.example.com` exactly, `*.example.com` for every host below it, `*` for all.
    pub origins: Vec<String>,
    /// How long a browser keeps the answer to its preflight.
    pub max_age: Period,
}

impl Default for Cors {
    fn default() -> Cors {
        Cors { origins: vec!["*".to_owned()], max_age: Period::seconds(3600) }
    }
}

/// What is kept of a client's address, whoever names it: the connection, a trusted proxy or the tracker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ClientAddress {
    /// All of it.
    #[default]
    Keep,
    /// Its network: the first 24 bits of an IPv4 address, 48 of an IPv6 one.
    Truncate,
    /// Nothing.
    Drop,
}

/// A bucket of requests for each client, an IPv4 address or the first 64 bits of an IPv6 one. Whose is empty gets 429.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct RateLimit {
    /// Requests that flow into it each second.
    pub per_second: NonZeroU32,
    /// Requests that it holds; by default those of a second.
    pub burst: Option<NonZeroU32>,
}

/// The certificate that is shown.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Tls {
    /// PEM file of the certificate and those that lead to its authority. It is read again when it changes.
    pub cert: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// Tells browsers to use nothing but TLS here for so long (`Strict-Transport-Security`). Absent: it is not said.
    pub hsts: Option<Period>,
}

/// An answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Root {
    /// Its status.
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: String,
}

impl Default for Root {
    fn default() -> Root {
        Root { status: 404, headers: BTreeMap::new(), body: "there is nothing here".to_owned() }
    }
}

/// The policy file of Flash and of what reads it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Crossdomain {
    /// Domains that are allowed.
    pub domains: Vec<String>,
    /// Whether only over TLS.
    pub secure: bool,
}

impl Default for Crossdomain {
    fn default() -> Crossdomain {
        Crossdomain { domains: vec!["*".to_owned()], secure: true }
    }
}
