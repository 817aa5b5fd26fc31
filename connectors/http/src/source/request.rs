//! [`Request`]: what an input sees of a request.

use std::net::IpAddr;

use http::{HeaderMap, Method};

/// A request that was read whole within its limits. Inputs are functions of it alone: no I/O, no clock.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// Its method.
    pub method: &'r Method,
    /// The path, still percent-encoded, without the query.
    pub path: &'r str,
    /// The query without its `?`; empty where there is none.
    pub query: &'r str,
    /// The headers. `Authorization` and `Cookie` never go into an event.
    pub headers: &'r HeaderMap,
    /// The body, inflated.
    pub body: &'r [u8],
    /// When it came: microseconds since the Unix epoch.
    pub received: i64,
    /// Who sent it, as far as proxies are trusted to say; `None` where it shall not be known.
    pub client: Option<IpAddr>,
}
