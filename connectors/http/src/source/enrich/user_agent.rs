//! The family of a browser and of the system that it runs on, by what it says of itself.
//!
//! A few rules that are looked for in order, because nearly every browser claims to be others too. What is not
//! recognised is `other`: no guess is better than a wrong one.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::source::object::Object;

/// The keys of `user_agent`: there are none.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "UserAgentSettings")]
pub struct Settings {}

/// What marks a program that nobody looks at.
const BOTS: [&str; 12] = [
    "bot",
    "crawl",
    "spider",
    "slurp",
    "facebookexternalhit",
    "headless",
    "lighthouse",
    "monitor",
    "preview",
    "feedfetcher",
    "pingdom",
    "ia_archiver",
];

/// What stands before a version, and the browser's family.
const BROWSERS: [(&str, &str); 22] = [
    ("edg/", "Edge"),
    ("edga/", "Edge"),
    ("edgios/", "Edge"),
    ("edge/", "Edge"),
    ("opr/", "Opera"),
    ("opera/", "Opera"),
    ("samsungbrowser/", "Samsung Internet"),
    ("vivaldi/", "Vivaldi"),
    ("yabrowser/", "Yandex Browser"),
    ("ucbrowser/", "UC Browser"),
    ("fxios/", "Firefox"),
    ("firefox/", "Firefox"),
    ("crios/", "Chrome"),
    ("chrome/", "Chrome"),
    ("chromium/", "Chrome"),
    ("version/", "Safari"),
    ("msie ", "Internet Explorer"),
    ("trident/", "Internet Explorer"),
    ("curl/", "curl"),
    ("python-requests/", "Python Requests"),
    ("okhttp/", "OkHttp"),
    ("go-http-client/", "Go"),
];

/// What marks a system, and its family.
const SYSTEMS: [(&str, &str); 10] = [
    ("windows phone", "Windows Phone"),
    ("windows", "Windows"),
    ("iphone", "iOS"),
    ("ipad", "iOS"),
    ("ipod", "iOS"),
    ("android", "Android"),
    ("cros ", "ChromeOS"),
    ("macintosh", "macOS"),
    ("mac os x", "macOS"),
    ("linux", "Linux"),
];

/// `browser`, `browser_version` (its first number), `system` and `device` (`desktop`, `mobile`, `tablet`, `bot`,
/// `other`); `None` where nothing was said.
pub fn of(text: &str) -> Option<Object> {
    let lower = text.trim().to_ascii_lowercase();
    if lower.is_empty() {
        return None;
    }
    let browser = BROWSERS.iter().find_map(|&(mark, family)| {
        let at = lower.find(mark)?;
        // `Version/` is what Safari says of itself, and Android's old browser too.
        if family == "Safari" && (!lower.contains("safari/") || lower.contains("android")) {
            return None;
        }
        Some((family, &lower[at + mark.len()..]))
    });
    let system = SYSTEMS.iter().find(|(mark, _)| lower.contains(mark)).map(|(_, family)| *family);
    let is_bot = BOTS.iter().any(|mark| lower.contains(mark));
    let device = match system {
        _ if is_bot => "bot",
        Some("iOS") if lower.contains("ipad") => "tablet",
        Some("iOS" | "Windows Phone") => "mobile",
        Some("Android") if lower.contains("mobile") => "mobile",
        Some("Android") => "tablet",
        Some(_) => "desktop",
        None => "other",
    };
    let mut object = Object::default();
    object.push_string("browser", browser.map_or("other", |(family, _)| family));
    if let Some((_, rest)) = browser {
        let end = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
        // `Trident/7.0` is the version of an engine.
        if (1..=9).contains(&end) && !lower.contains("trident/") {
            object.push_string("browser_version", &rest[..end]);
        }
    }
    object.push_string("system", system.unwrap_or("other"));
    object.push_string("device", device);
    Some(object)
}
