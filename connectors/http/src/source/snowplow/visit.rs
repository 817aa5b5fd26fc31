//! [`Visit`]: what one request says of all its events.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;

use http::header::{COOKIE, USER_AGENT};

use crate::source::Request;
use crate::source::config::ClientAddress;
use crate::source::text::{Misencoded, pairs};

/// A tracker that sends this header wants its visitor to stay unknown.
const ANONYMOUS: &str = "sp-anonymous";

/// The parameters of a query, in their order.
type Query<'r> = Vec<(Cow<'r, str>, Cow<'r, str>)>;

/// See the module.
#[derive(Debug)]
pub(super) struct Visit<'r> {
    /// The request.
    pub request: &'r Request<'r>,
    /// The parameters of the query; or why there are none.
    pub query: Result<Query<'r>, Misencoded>,
    /// Parameters that the query has more than once.
    pub repeated: Vec<String>,
    /// Whether the visitor stays unknown: no cookie, no address.
    pub anonymous: bool,
    /// What is kept of addresses.
    pub client_address: ClientAddress,
    /// What the visitor's cookie says.
    pub network_id: Option<String>,
    /// `User-Agent`.
    pub agent: Option<Cow<'r, str>>,
    /// Where the visitor is redirected to.
    pub redirect: Option<String>,
}

impl<'r> Visit<'r> {
    /// Looks at a request.
    pub(super) fn new(request: &'r Request<'r>, client_address: ClientAddress) -> Visit<'r> {
        let query: Result<Query<'r>, Misencoded> = pairs(request.query).collect();
        let mut seen = HashSet::new();
        let given = query.iter().flatten();
        let repeated =
            given.filter(|(name, _)| !seen.insert(&**name)).map(|(name, _)| name.to_string()).collect();
        Visit {
            request,
            repeated,
            query,
            anonymous: request.headers.contains_key(ANONYMOUS),
            client_address,
            network_id: None,
            agent: request.headers.get(USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes())),
            redirect: None,
        }
    }

    /// Whether the query cannot be read.
    pub(crate) fn is_wrong(&self) -> bool {
        self.query.is_err() || !self.repeated.is_empty()
    }

    /// A parameter of the query; an empty one says nothing.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let query = self.query.as_ref().ok()?;
        query.iter().find(|(given, text)| given == name && !text.is_empty()).map(|(_, text)| &**text)
    }

    /// The address of the visitor, where it may be known: the tracker's word for it, else the connection's.
    pub(super) fn address(&self, told: Option<IpAddr>) -> Option<IpAddr> {
        if self.anonymous {
            return None;
        }
        told.and_then(|told| self.client_address.keep(told)).or(self.request.client)
    }
}

/// The values of the cookies of a name.
pub(super) fn cookies<'h>(headers: &'h http::HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let each = lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    each.filter(move |(given, _)| *given == name).map(|(_, value)| value)
}
