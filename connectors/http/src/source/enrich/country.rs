//! The country of an address, by a MaxMind file (GeoLite2 Country, GeoIP2 City and others of the format) that the
//! operator has.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use maxminddb::{MaxMindDbError, Reader};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::source::object::Object;

/// The keys of `country`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CountrySettings")]
pub struct Settings {
    /// The file, `.mmdb`. It is read into memory when the source starts.
    pub database: PathBuf,
}

/// A file that countries cannot be read from.
#[derive(Debug, thiserror::Error)]
#[error("reading the countries of addresses from `{}`", path.display())]
pub struct Unusable {
    path: PathBuf,
    source: MaxMindDbError,
}

/// The countries of all addresses.
pub struct Countries {
    path: PathBuf,
    reader: Reader<Vec<u8>>,
}

/// What is read of an entry.
#[derive(Deserialize)]
struct Entry<'e> {
    #[serde(borrow)]
    country: Option<Place<'e>>,
    #[serde(borrow)]
    continent: Option<Continent<'e>>,
}

#[derive(Deserialize)]
struct Place<'p> {
    iso_code: Option<&'p str>,
}

#[derive(Deserialize)]
struct Continent<'c> {
    code: Option<&'c str>,
}

impl Countries {
    /// Reads the file.
    pub fn open(settings: &Settings) -> Result<Countries, Unusable> {
        let path = settings.database.clone();
        let opened = Reader::open_readfile(&path);
        opened
            .map(|reader| Countries { path: path.clone(), reader })
            .map_err(|source| Unusable { path, source })
    }

    /// `country` (ISO 3166-1) and `continent`; `None` where the file does not know the address. The address itself is
    /// not told.
    pub fn of(&self, client: IpAddr) -> Result<Option<Object>, Unusable> {
        let found = self.reader.lookup(client.to_canonical()).and_then(|found| found.decode::<Entry<'_>>());
        let entry = found.map_err(|source| Unusable { path: self.path.clone(), source })?;
        let mut object = Object::default();
        if let Some(code) = entry.as_ref().and_then(|entry| entry.country.as_ref()?.iso_code) {
            object.push_string("country", code);
        }
        if let Some(code) = entry.as_ref().and_then(|entry| entry.continent.as_ref()?.code) {
            object.push_string("continent", code);
        }
        Ok((!object.is_empty()).then_some(object))
    }
}

impl fmt::Debug for Countries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Countries").field("path", &self.path).finish_non_exhaustive()
    }
}
