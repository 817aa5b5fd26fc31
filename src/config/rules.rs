//! What must hold between options, beyond what each says by itself.

use globset::Glob;
use serde_json::Value;

use super::document::{Document, Focus, child, dotted};
use super::explain::suggest;
use super::problem::Problem;
use super::settings::{DestinationSettings, Limits, OnPoison, Role, Settings};
use crate::daemon::JOURNAL;

/// Every rule that is broken. `complete` says whether all sources and destinations could be read: rules about all
/// of them would otherwise speak of those that are only misspelt.
pub(super) fn broken(document: &Document, settings: &Settings, complete: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    for destination in &settings.destinations {
        let at = child("/destinations", &destination.name);
        problems.extend(known_sources(document, &at, destination));
        problems.extend(readable_globs(document, &at, destination));
        problems.extend(sensible_retries(document, &at, destination));
        problems.extend(required_for_its_poison(document, &at, destination));
        problems.extend(batch_within_memory(document, &at, destination, &settings.limits));
    }
    problems.extend(journals_are_told_apart(document, settings));
    problems.extend(readable_privacy(document, settings));
    if complete {
        problems.extend(contracts_concern_something(document, settings));
        problems.extend(every_source_is_awaited(document, settings));
        for destination in &settings.destinations {
            problems.extend(letters_go_elsewhere(document, destination, settings));
        }
    }
    problems
}

/// `where.source` names sources that there are.
fn known_sources(document: &Document, at: &str, destination: &DestinationSettings) -> Vec<Problem> {
    let sources = document.tree.get("sources").and_then(Value::as_object);
    let known: Vec<&str> =
        sources.into_iter().flat_map(|sources| sources.keys()).map(String::as_str).collect();
    let named = destination.filter.source.iter().flatten().enumerate();
    named
        .filter(|(_, name)| !known.contains(&name.as_str()))
        .map(|(index, name)| {
            let place = format!("{at}/where/source/{index}");
            let shown = document.shown(&place).unwrap_or_default();
            let help = suggest(name, &known, "known");
            document.problem(&place, Focus::Value, format!("there is no source `{shown}`"), Some(help))
        })
        .collect()
}

/// In figures and in `/status` the journal of a source stands among its destinations. And a journal on a disk is one
/// daemon's alone.
fn journals_are_told_apart(document: &Document, settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    let any = settings.sources.iter().any(|source| settings.journal_of(source).is_some());
    if any && settings.destinations.iter().any(|destination| destination.name == JOURNAL) {
        problems.push(document.problem(
            &child("/destinations", JOURNAL),
            Focus::Key,
            format!("`{JOURNAL}` is how the journal of a source is called, so no destination may be"),
            Some("give the destination another name".to_owned()),
        ));
    }
    for source in &settings.sources {
        let own = source.journal.is_some();
        let at =
            if own { format!("{}/journal", child("/sources", &source.name)) } else { "/journal".to_owned() };
        let Some(journal) = settings.journal_of(source) else { continue };
        if journal.role != Role::Both
            && journal.kind == "disk"
            && !problems.iter().any(|known: &Problem| known.path.starts_with(&at))
        {
            problems.push(document.problem(
                &format!("{at}/role"),
                Focus::Key,
                "a journal on disk is one daemon's alone, so it does both".to_owned(),
                Some("remove `role`, or take a journal of type `kafka`".to_owned()),
            ));
        }
    }
    problems
}

/// Globs are globs.
fn readable_globs(document: &Document, at: &str, destination: &DestinationSettings) -> Vec<Problem> {
    let filter = &destination.filter;
    let mut problems = Vec::new();
    let lists = [("schema", &filter.schema), ("table", &filter.table), ("schema_key", &filter.schema_key)];
    for (key, globs) in lists {
        for (index, glob) in globs.iter().flatten().enumerate() {
            problems.extend(readable_glob(document, format!("{at}/where/{key}/{index}"), glob));
        }
    }
    problems
}

fn readable_glob(document: &Document, place: String, glob: &str) -> Option<Problem> {
    let error = Glob::new(glob).err()?;
    let message = format!("`{}` is not a glob: {}", dotted(&place), error.kind());
    let help = "`*` stands for any characters, `?` for one, `[ab]` for one of these".to_owned();
    Some(document.problem(&place, Focus::Value, message, Some(help)))
}

/// Each rule of `privacy` names one field in one way.
fn readable_privacy(document: &Document, settings: &Settings) -> Vec<Problem> {
    let wrong = settings.privacy.iter().enumerate().filter_map(|(at, rule)| Some((at, rule.rule().err()?)));
    wrong
        .map(|(at, (key, why))| {
            let place = format!("/privacy/{at}");
            let place = if key.is_empty() { place } else { child(&place, key) };
            document.problem(&place, Focus::Value, format!("`{}`: {why}", dotted(&place)), None)
        })
        .collect()
}

/// Contracts name sources that there are, and tables by globs.
fn contracts_concern_something(document: &Document, settings: &Settings) -> Vec<Problem> {
    let known: Vec<&str> = settings.sources.iter().map(|source| source.name.as_str()).collect();
    let mut problems = Vec::new();
    for (at, contract) in settings.validation.contracts.iter().enumerate() {
        let place = format!("/validation/contracts/{at}");
        for (index, glob) in contract.table.iter().flatten().enumerate() {
            problems.extend(readable_glob(document, format!("{place}/table/{index}"), glob));
        }
        for (index, name) in contract.source.iter().flatten().enumerate() {
            if !known.contains(&name.as_str()) {
                let place = format!("{place}/source/{index}");
                let help = suggest(name, &known, "known");
                let shown = document.shown(&place).unwrap_or_default();
                let message = format!("there is no source `{shown}`");
                problems.push(document.problem(&place, Focus::Value, message, Some(help)));
            }
        }
    }
    problems
}

/// Attempts end only where a record may be lost, and waits do not shrink.
fn sensible_retries(document: &Document, at: &str, destination: &DestinationSettings) -> Vec<Problem> {
    let retry = &destination.retry;
    let mut problems = Vec::new();
    if destination.required && retry.attempts.is_some() {
        problems.push(document.problem(
            &format!("{at}/retry/attempts"),
            Focus::Key,
            format!("`{}` is required, so its attempts cannot end", dotted(at)),
            Some("remove `attempts`, or say `required: false` if its records may be lost".to_owned()),
        ));
    }
    if retry.initial > retry.max {
        problems.push(document.problem(
            &format!("{at}/retry/initial"),
            Focus::Key,
            format!("the first wait ({}) is longer than the longest one ({})", retry.initial, retry.max),
            Some("make `retry.initial` shorter or `retry.max` longer".to_owned()),
        ));
    }
    problems
}

/// Order and a halt are promises, and a destination that may lose events gives none.
fn required_for_its_poison(
    document: &Document,
    at: &str,
    destination: &DestinationSettings,
) -> Option<Problem> {
    let promises = destination.on_poison != OnPoison::DeadLetter && !destination.required;
    promises.then(|| {
        document.problem(
            &format!("{at}/on_poison"),
            Focus::Value,
            format!("`{}` may lose events, so it can neither keep the order of a key nor halt", dotted(at)),
            Some("say `on_poison: dead_letter`, or remove `required: false`".to_owned()),
        )
    })
}

/// Dead letters go to a destination that does not wait for the same source: the two would wait for each other.
fn letters_go_elsewhere(
    document: &Document,
    destination: &DestinationSettings,
    settings: &Settings,
) -> Option<Problem> {
    let to = destination.dead_letters.to.as_ref()?;
    let place = format!("{}/dead_letters/to", child("/destinations", &destination.name));
    let problem = |message, help| Some(document.problem(&place, Focus::Value, message, Some(help)));
    if destination.on_poison != OnPoison::DeadLetter {
        return problem(
            "letters are handed on only with `on_poison: dead_letter`; what blocks a key must stay"
                .to_owned(),
            "remove `to`, or say `on_poison: dead_letter`".to_owned(),
        );
    }
    let names: Vec<&str> = settings.destinations.iter().map(|one| one.name.as_str()).collect();
    let Some(store) = settings.destinations.iter().find(|one| one.name == *to) else {
        let shown = document.shown(&place).unwrap_or_default();
        return problem(format!("there is no destination `{shown}`"), suggest(to, &names, "known"));
    };
    if store.name == destination.name {
        return problem(
            "a destination cannot take its own dead letters".to_owned(),
            "name another destination".to_owned(),
        );
    }
    let both =
        settings.sources.iter().find(|source| destination.takes(&source.name) && store.takes(&source.name));
    let both = both?;
    problem(
        format!("`{to}` takes events of `{}` too, so the two could wait for each other", both.name),
        format!(
            "take `{}` out of `where.source` of `{to}`; without that key it takes dead letters only",
            both.name
        ),
    )
}

/// A batch can be gathered only within the budget for everything.
fn batch_within_memory(
    document: &Document,
    at: &str,
    destination: &DestinationSettings,
    limits: &Limits,
) -> Option<Problem> {
    let (bytes, budget) = (destination.batch.bytes, limits.events_budget());
    (bytes > budget).then(|| {
        document.problem(
            &format!("{at}/batch/bytes"),
            Focus::Value,
            format!("a batch of {bytes} is larger than the memory for events on their way, {budget}"),
            Some("make `batch.bytes` smaller or `limits.memory` larger".to_owned()),
        )
    })
}

/// Every source has a destination that its checkpoint waits for; without one it would move on with nothing delivered.
fn every_source_is_awaited(document: &Document, settings: &Settings) -> Vec<Problem> {
    if settings.destinations.is_empty() {
        // the schema has already asked for one
        return Vec::new();
    }
    if !settings.destinations.iter().any(|destination| destination.required) {
        let message = "no destination is required, so nothing would be sure to arrive".to_owned();
        let help = "remove `required: false` from one of them".to_owned();
        return vec![document.problem("/destinations", Focus::Key, message, Some(help))];
    }
    let takes =
        |destination: &DestinationSettings, source: &str| destination.required && destination.takes(source);
    settings
        .sources
        .iter()
        .filter(|source| !settings.destinations.iter().any(|destination| takes(destination, &source.name)))
        .map(|source| {
            document.problem(
                &child("/sources", &source.name),
                Focus::Key,
                format!("no required destination takes what comes from `{}`", source.name),
                Some("add it to the `where.source` of a required destination".to_owned()),
            )
        })
        .collect()
}
