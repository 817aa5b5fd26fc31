//! What can be told of an event from what came with it: where a visit came from, with what, from which country.
//!
//! Each enrichment is a function of what the event says; it adds a context entity with a schema of ours and changes
//! nothing else. All are off unless the settings name them. No I/O but [`Enrichments::open`], which reads a file.

pub mod campaign;
pub mod country;
pub mod referrer;
pub mod user_agent;

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use self::country::{Countries, Unusable};
use super::entities::Entities;
use super::object::Object;

/// The enrichments that are on.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "EnrichSettings")]
pub struct Settings {
    /// The campaign that led to a page, by parameters of the page's address. `{}` suffices.
    pub campaign: Option<campaign::Settings>,
    /// What kind of page led to a page. `{}` suffices.
    pub referrer: Option<referrer::Settings>,
    /// The browser and the system, by the user agent. `{}` suffices.
    pub user_agent: Option<user_agent::Settings>,
    /// The country, by the client's address.
    pub country: Option<country::Settings>,
}

/// What an event says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'f> {
    /// The page's address.
    pub page: Option<&'f str>,
    /// The address of the page that led there.
    pub referrer: Option<&'f str>,
    /// What the client says it is.
    pub user_agent: Option<&'f str>,
    /// Its address, where that may be known.
    pub client: Option<IpAddr>,
}

/// The enrichments that are on, with what they need.
#[derive(Debug, Default)]
pub struct Enrichments {
    settings: Settings,
    countries: Option<Countries>,
}

impl Enrichments {
    /// Reads the file of countries, where one is named.
    pub fn open(settings: Settings) -> Result<Enrichments, Unusable> {
        let countries = settings.country.as_ref().map(Countries::open).transpose()?;
        Ok(Enrichments { settings, countries })
    }

    /// Adds an entity for each enrichment that finds something.
    pub fn add(&self, facts: &Facts<'_>, entities: &mut Entities) -> Result<(), Unusable> {
        let settings = &self.settings;
        let mut push = |schema: &str, object: Option<Object>| {
            if let Some(object) = object.filter(|object| !object.is_empty()) {
                entities.push(schema, &object.finish());
            }
        };
        if let (Some(settings), Some(page)) = (&settings.campaign, facts.page) {
            push("io.forebay/campaign/1-0-0", campaign::of(page, settings));
        }
        if let (Some(settings), Some(address)) = (&settings.referrer, facts.referrer) {
            push("io.forebay/referrer/1-0-0", referrer::of(address, facts.page, settings));
        }
        if let (Some(_), Some(text)) = (&settings.user_agent, facts.user_agent) {
            push("io.forebay/user_agent/1-0-0", user_agent::of(text));
        }
        if let (Some(countries), Some(client)) = (&self.countries, facts.client) {
            push("io.forebay/country/1-0-0", countries.of(client)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
