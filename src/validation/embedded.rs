//! The schemas that come with Forebay: those of the folder `config/schemas`, as they were when it was built.

use bytes::Bytes;
use forebay_api::SchemaKey;
use rust_embed::RustEmbed;

/// The vendor of the schemas that are ours; nobody else defines them.
pub(super) const VENDOR: &str = "io.forebay";

/// Events of this schema are enveloped unvalidated: whoever sent them named none.
pub(super) const ARBITRARY: &str = "io.forebay/arbitrary/1-0-0";

#[derive(RustEmbed)]
#[folder = "config/schemas"]
struct Folder;

/// One of them: `vendor/name/jsonschema/1-0-0`, as in an Iglu registry, or `vendor/name/1-0-0.json`.
pub(super) fn find(key: &SchemaKey) -> Option<Bytes> {
    let iglu = key.iglu_path().and_then(|path| Folder::get(&path));
    let file = iglu.or_else(|| Folder::get(&format!("{key}.json")))?;
    Some(Bytes::from(file.data.into_owned()))
}

/// The keys of all of them.
pub(super) fn keys() -> Vec<SchemaKey> {
    let key = |path: &str| match path.strip_suffix(".json") {
        Some(key) => key.parse().ok(),
        None => format!("iglu:{path}").parse().ok(),
    };
    Folder::iter().filter_map(|path| key(&path)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::chain::Chain;
    use super::super::schema::{Loaded, load};
    use super::*;

    #[tokio::test]
    async fn every_schema_that_comes_with_forebay_is_one() {
        assert_eq!(keys().len(), Folder::iter().count(), "every file is named by a key: {:?}", keys());
        for key in keys() {
            match load(&Chain::default(), &key).await.unwrap() {
                Loaded::Schema(_) => {}
                other => panic!("{key}: {other:?}"),
            }
        }
        assert!(find(&ARBITRARY.parse().unwrap()).is_some());
    }
}
