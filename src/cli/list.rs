//! `forebay list` and what `--version` says: the connectors and formats of this build.

use super::table::aligned;
use crate::connectors;
use crate::format::Format;

/// Every connector and format with a line about it.
pub(super) fn connectors() -> String {
    let registry = connectors::registry();
    let row = |name: &str, about: &str| vec![name.to_owned(), about.to_owned()];
    let sources: Vec<_> = registry.sources().iter().map(|(name, entry)| row(name, entry.about)).collect();
    let destinations: Vec<_> =
        registry.destinations().iter().map(|(name, entry)| row(name, entry.about)).collect();
    let journals: Vec<_> = registry.journals().iter().map(|(name, entry)| row(name, entry.about)).collect();
    let stores: Vec<_> =
        registry.schema_stores().iter().map(|(name, entry)| row(name, entry.about)).collect();
    let formats: Vec<_> = Format::ALL.iter().map(|format| row(format.as_str(), format.about())).collect();
    let sections = [
        ("sources", sources),
        ("destinations", destinations),
        ("journals", journals),
        ("schema registries", stores),
        ("formats", formats),
    ];
    sections.map(|(title, rows)| format!("{title}\n{}", aligned("  ", &rows))).join("\n")
}

/// The version with all that a build may have or lack.
pub(super) fn version() -> String {
    let registry = connectors::registry();
    let names = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let mut features = Vec::new();
    if cfg!(feature = "demo") {
        features.push("demo");
    }
    if cfg!(feature = "failpoints") {
        features.push("failpoints (for tests only)");
    }
    format!(
        "{}\nsources: {}\ndestinations: {}\njournals: {}\nschema registries: {}\nformats: {}\nfeatures: {}",
        env!("CARGO_PKG_VERSION"),
        names(registry.sources().keys().copied().collect()),
        names(registry.destinations().keys().copied().collect()),
        names(registry.journals().keys().copied().collect()),
        names(registry.schema_stores().keys().copied().collect()),
        names(Format::ALL.map(Format::as_str).to_vec()),
        names(features),
    )
}
