//! Who has a place in the journal, and where: `readers.json`.
//!
//! Invariant: what is written there is never above what the core has stored of a reader, so nothing is deleted that a
//! reader may still ask for.

use std::collections::BTreeMap;
use std::fs;

use forebay_api::{Blame, Fault};
use serde::{Deserialize, Serialize};

use crate::fault::judge;
use crate::folder::{Folder, newer, not_understood};

/// The file.
const FILE: &str = "readers.json";

/// Its format.
const VERSION: u32 = 1;

/// The most readers: each is a destination, or a replay that was not forgotten.
const MOST: usize = 1000;

/// The place of one reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    /// It needs nothing before this address.
    pub(crate) at: u64,
    /// Whether it may not be cut off.
    pub(crate) required: bool,
    /// Whether it was cut off.
    pub(crate) parked: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    readers: BTreeMap<String, Place>,
}

/// Every reader that has a place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readers {
    places: BTreeMap<String, Place>,
    /// Whether the file says less.
    changed: bool,
}

impl Readers {
    /// Reads the file, which is made with the journal.
    pub(crate) fn load(folder: &Folder) -> Result<Readers, Fault> {
        let path = folder.file(FILE);
        let doing = || format!("reading `{}`", path.display());
        let bytes = fs::read(&path).map_err(|error| judge(doing(), error))?;
        let written: Written = serde_json::from_slice(&bytes)
            .map_err(|error| not_understood(doing(), &bytes, VERSION, error))?;
        if written.version != VERSION {
            return Err(newer(doing(), written.version, VERSION));
        }
        Ok(Readers { places: written.readers, changed: false })
    }

    /// Writes the file, where it says less.
    pub(crate) fn store(&mut self, folder: &Folder) -> Result<(), Fault> {
        if self.changed {
            self.write(folder)?;
        }
        Ok(())
    }

    /// Writes the file.
    pub(crate) fn write(&mut self, folder: &Folder) -> Result<(), Fault> {
        let written = Written { version: VERSION, readers: self.places.clone() };
        folder
            .replace(FILE, &serde_json::to_vec_pretty(&written).expect("numbers and text can be written"))?;
        self.changed = false;
        Ok(())
    }

    /// The place of one.
    pub(crate) fn get(&self, name: &str) -> Option<Place> {
        self.places.get(name).copied()
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, Place)> {
        self.places.iter().map(|(name, place)| (name.as_str(), *place))
    }

    /// Gives a reader a place, or another one.
    pub(crate) fn set(&mut self, name: &str, place: Place) -> Result<(), Fault> {
        if self.places.get(name) == Some(&place) {
            return Ok(());
        }
        if self.places.len() >= MOST && !self.places.contains_key(name) {
            let error = format!("{MOST} readers have a place in it");
            return Err(Fault::fatal(
                format!("giving `{name}` a place in the journal"),
                Blame::Outside,
                error,
            )
            .with_remedy("forget those that are not needed any more: `forebay journal forget`"));
        }
        self.places.insert(name.to_owned(), place);
        self.changed = true;
        Ok(())
    }

    /// Moves the place of a reader on; never back.
    pub(crate) fn raise(&mut self, name: &str, at: u64) {
        if let Some(place) = self.places.get_mut(name).filter(|place| place.at < at && !place.parked) {
            place.at = at;
            self.changed = true;
        }
    }

    /// Takes the place of a reader away; whether it had one.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let known = self.places.remove(name).is_some();
        self.changed |= known;
        known
    }

    /// The lowest address that a reader still needs; `None` when nobody has a place that counts.
    pub(crate) fn lowest(&self) -> Option<u64> {
        self.places.values().filter(|place| !place.parked).map(|place| place.at).min()
    }

    /// Whether there are readers, and every one was cut off.
    pub(crate) fn all_are_parked(&self) -> bool {
        !self.places.is_empty() && self.places.values().all(|place| place.parked)
    }

    /// Cuts off every reader that needs something before `below`, if none of them is required; their names.
    pub(crate) fn park(&mut self, below: u64) -> Vec<String> {
        let holds = |place: &Place| !place.parked && place.at < below;
        if self.places.values().any(|place| holds(place) && place.required) {
            return Vec::new();
        }
        let mut parked = Vec::new();
        for (name, place) in self.places.iter_mut().filter(|(_, place)| holds(place)) {
            place.parked = true;
            parked.push(name.clone());
        }
        self.changed |= !parked.is_empty();
        parked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(at: u64, required: bool) -> Place {
        Place { at, required, parked: false }
    }

    #[test]
    fn the_slowest_reader_decides_and_a_required_one_is_never_cut_off() {
        let mut readers = Readers::default();
        assert_eq!(readers.lowest(), None);
        readers.set("lake", place(10, true)).unwrap();
        readers.set("search", place(5, false)).unwrap();
        readers.raise("search", 3);
        assert_eq!(readers.lowest(), Some(5));
        assert!(readers.park(11).is_empty());
        assert_eq!(readers.park(10), ["search"]);
        assert_eq!(readers.lowest(), Some(10));
        assert!(!readers.all_are_parked());
        readers.raise("search", 99);
        assert_eq!(readers.get("search"), Some(Place { at: 5, required: false, parked: true }));
        assert!(readers.remove("search") && !readers.remove("search"));
    }

    #[test]
    fn they_are_read_as_they_were_written_and_what_is_not_understood_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let setting = forebay_api::JournalSetting {
            source: "shop".to_owned(),
            instance: "test".to_owned(),
            data_dir: temporary.path().to_owned(),
        };
        let folder = Folder::of(&setting);
        folder.make().unwrap();
        assert!(
            !Readers::load(&folder).unwrap_err().is_retryable(),
            "a file that is gone is not an empty one"
        );
        let mut readers = Readers::default();
        readers.set("lake", place(10, true)).unwrap();
        readers.store(&folder).unwrap();
        assert_eq!(Readers::load(&folder).unwrap().get("lake"), Some(place(10, true)));
        fs::write(folder.file(FILE), r#"{"version": 2, "shards": []}"#).unwrap();
        assert!(Readers::load(&folder).unwrap_err().to_string().contains("version 2"));
        fs::write(folder.file(FILE), "{").unwrap();
        assert!(Readers::load(&folder).unwrap_err().remedy().unwrap().contains("backup"));
    }
}
