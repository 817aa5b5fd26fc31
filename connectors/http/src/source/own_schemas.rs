//! The schemas of our own that events and their entities name. Their texts are in `config/schemas`.

use std::sync::LazyLock;

use forebay_api::SchemaKey;

/// Of an event whose sender named no schema: anything.
pub static ARBITRARY: LazyLock<SchemaKey> = LazyLock::new(|| key("io.forebay/arbitrary/1-0-0"));

/// Of what no input could read: the original, as text.
pub static UNREADABLE: LazyLock<SchemaKey> = LazyLock::new(|| key("io.forebay/unreadable/1-0-0"));

/// Of the entity with a CloudEvent's attributes.
pub const CLOUDEVENT: &str = "io.forebay/cloudevent/1-0-0";

/// Of the entity with what stood around a payload and is no part of it.
pub const SURROUNDINGS: &str = "io.forebay/surroundings/1-0-0";

/// Of the entity with chosen headers of a request.
pub const HEADERS: &str = "io.forebay/headers/1-0-0";

fn key(text: &str) -> SchemaKey {
    text.parse().expect("our own keys are keys")
}

/// The text of one of our schemas; `None` where it is not ours.
#[cfg(test)]
pub(super) fn text(key: &str) -> Option<String> {
    let path = key.parse::<SchemaKey>().ok()?.iglu_path()?;
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/schemas/");
    key.starts_with("io.forebay/").then(|| std::fs::read_to_string(format!("{root}{path}")).unwrap())
}
