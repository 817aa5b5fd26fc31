//! The campaign that led to a page, by the parameters of the page's address.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::source::object::Object;
use crate::source::text;

/// Parameters that an advertising network adds to each click, and the network.
const CLICKS: [(&str, &str); 8] = [
    ("gclid", "Google"),
    ("dclid", "DoubleClick"),
    ("msclkid", "Microsoft"),
    ("fbclid", "Facebook"),
    ("ttclid", "TikTok"),
    ("twclid", "X"),
    ("li_fat_id", "LinkedIn"),
    ("yclid", "Yandex"),
];

/// Which parameters say what. Of several, the first that is there counts.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "CampaignSettings")]
pub struct Settings {
    /// The way it came: `email`, `cpc`.
    pub medium: Vec<String>,
    /// Who sent the visitor: `newsletter`, `google`.
    pub source: Vec<String>,
    /// The campaign's name.
    pub campaign: Vec<String>,
    /// The keywords that were paid for.
    pub term: Vec<String>,
    /// Which of several links it was.
    pub content: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        let utm = |name: &str| vec![format!("utm_{name}")];
        Settings {
            medium: utm("medium"),
            source: utm("source"),
            campaign: utm("campaign"),
            term: utm("term"),
            content: utm("content"),
        }
    }
}

/// What the address says of a campaign; `None` where it says nothing.
pub fn of(page: &str, settings: &Settings) -> Option<Object> {
    let query = page.split('#').next()?.split_once('?')?.1;
    // A pair that cannot be decoded is of no campaign; the address itself is in the event.
    let pairs: Vec<_> = text::pairs(query).filter_map(Result::ok).collect();
    let value = |name: &str| {
        let found = pairs.iter().find(|(known, value)| known == name && !value.is_empty());
        found.map(|(_, value)| &**value)
    };
    let mut object = Object::default();
    for (member, names) in [
        ("medium", &settings.medium),
        ("source", &settings.source),
        ("campaign", &settings.campaign),
        ("term", &settings.term),
        ("content", &settings.content),
    ] {
        if let Some(value) = names.iter().find_map(|name| value(name)) {
            object.push_string(member, value);
        }
    }
    if let Some((id, network)) = CLICKS.iter().find_map(|(name, network)| Some((value(name)?, network))) {
        object.push_string("click_id", id);
        object.push_string("network", network);
    }
    (!object.is_empty()).then_some(object)
}
