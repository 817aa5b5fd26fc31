//! From the configuration to the chain of stores.

use std::sync::Arc;

use forebay_api::{Blame, Fault, Mistake, Registry, SchemaStore, SchemaStoreSetting};

use super::chain::{Chain, Link};
use crate::config::{DESTINATION_STORE, DestinationStore, Settings, StoreSettings};

/// Builds the registry that is configured. Reaches nothing.
pub fn build_chain(settings: &Settings, registry: &Registry) -> Result<Chain, Fault> {
    let mut links = Vec::new();
    for (index, store) in settings.validation.registry.iter().enumerate() {
        let built = build_store(index, store, settings, registry).map_err(|mistakes| {
            let all: Vec<String> =
                mistakes.into_iter().map(|mistake| format!("{}: {}", mistake.at, mistake.message)).collect();
            let doing = format!("building the schema registry `{}`", name_of(index, store));
            Fault::fatal(doing, Blame::Configuration, all.join("; "))
        })?;
        links.push(Link { name: name_of(index, store).into(), store: built });
    }
    Ok(Chain::new(links))
}

/// Builds one store of it.
pub fn build_store(
    index: usize,
    store: &StoreSettings,
    settings: &Settings,
    registry: &Registry,
) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>> {
    let setting = SchemaStoreSetting { name: name_of(index, store), data_dir: settings.data_dir.clone() };
    if store.kind == DESTINATION_STORE {
        return of_destination(store, &setting, settings, registry);
    }
    let Some(entry) = registry.schema_stores().get(store.kind.as_str()) else {
        return Err(vec![mistake("/type", format!("there is no registry of type `{}`", store.kind), None)]);
    };
    (entry.build)(store.own.0.clone(), &setting)
}

/// The schemas that a destination keeps.
fn of_destination(
    store: &StoreSettings,
    setting: &SchemaStoreSetting,
    settings: &Settings,
    registry: &Registry,
) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>> {
    let named: DestinationStore = serde_json::from_value(store.own.0.clone())
        .map_err(|error| vec![mistake("", error.to_string(), None)])?;
    let Some(destination) = settings.destinations.iter().find(|one| one.name == named.name) else {
        let known: Vec<String> = settings.destinations.iter().map(|one| format!("`{}`", one.name)).collect();
        let help = format!("name one of {}", known.join(", "));
        let message = format!("there is no destination `{}`", named.name);
        return Err(vec![mistake("/name", message, Some(help))]);
    };
    let Some(entry) = registry.destinations().get(destination.kind.as_str()) else {
        let message = format!("there is no destination of type `{}`", destination.kind);
        return Err(vec![mistake("/name", message, None)]);
    };
    // What is wrong with the destination's own keys is said where they stand.
    (entry.schema_store)(destination.own.0.clone(), setting).map_err(|mistakes| {
        mistakes.into_iter().map(|found| Mistake { at: "/name".to_owned(), ..found }).collect()
    })
}

fn name_of(index: usize, store: &StoreSettings) -> String {
    format!("{}-{}", store.kind, index + 1)
}

fn mistake(at: &str, message: String, help: Option<String>) -> Mistake {
    Mistake { at: at.to_owned(), message, help }
}
