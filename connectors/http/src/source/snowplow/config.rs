//! What the configuration says of this input. Its documentation comments are the manual's.

use std::collections::BTreeMap;

use forebay_api::units::Period;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::source::secret::Secret;

/// The keys of `inputs.snowplow`; `{}` suffices.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SnowplowConfig {
    /// Paths of your own that stand for one of this input: `/com.acme/track: /com.snowplowanalytics.snowplow/tp2`.
    pub paths: BTreeMap<String, String>,
    /// Gives each visitor a random identifier in a cookie, the `network_userid` of its events. `{}` suffices; absent:
    /// there is no cookie.
    pub cookie: Option<Cookie>,
    /// A cookie by which a visitor says that nothing shall be stored.
    pub do_not_track: Option<DoNotTrackCookie>,
    /// Tokens of which a sender needs one, as `Authorization: Bearer …`. None by default, and then anybody may send.
    pub tokens: Vec<Secret>,
}

/// The cookie.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// How long a browser keeps it after the last event.
    pub expires: Period,
    /// Domains that it may be set for; the first that the page's host is, or is below.
    pub domains: Vec<String>,
    /// The domain where none of these fits. Absent: the host of the collector.
    pub fallback_domain: Option<String>,
    /// Sent over TLS alone.
    pub secure: bool,
    /// Not shown to scripts.
    pub http_only: bool,
    /// From which pages it is sent.
    pub same_site: SameSite,
    /// Asks a browser without the cookie to come again at once (302), to learn whether it takes cookies. One that does
    /// not has the `network_userid` `00000000-0000-4000-a000-000000000000` then.
    pub bounce: bool,
}

impl Default for Cookie {
    fn default() -> Cookie {
        Cookie {
            name: "sp".to_owned(),
            expires: Period::seconds(365 * 86_400),
            domains: Vec::new(),
            fallback_domain: None,
            secure: true,
            http_only: true,
            same_site: SameSite::None,
            bounce: false,
        }
    }
}

/// From which pages a cookie is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum SameSite {
    /// All; needs `secure`.
    None,
    /// Those of the same site, and when a link is followed.
    Lax,
    /// Those of the same site.
    Strict,
}

/// A cookie by which a visitor says that nothing shall be stored.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct DoNotTrackCookie {
    /// Its name.
    pub name: String,
    /// Its value, in which `*` and `?` stand for anything. By default any value.
    #[serde(default = "any")]
    #[schemars(extend("default" = "*"))]
    pub value: String,
}

fn any() -> String {
    "*".to_owned()
}
