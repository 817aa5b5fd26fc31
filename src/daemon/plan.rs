//! Which pipelines a configuration means.
//!
//! ```text
//!  journal: none      source ─▶ destinations
//!  journal: disk      source ─▶ journal        (key `shop`)
//!                     journal ─▶ destination   (key `shop/lake`), one for each
//! ```
//! Nothing else knows how a journal comes between a source and its destinations: what runs are pipelines.

use crate::config::{DestinationSettings, JournalSettings, Role, Settings, SourceSettings};
use crate::daemon::replay::Replay;

/// The journal's name among the destinations of a source.
pub const JOURNAL: &str = "journal";

/// One pipeline, and all of the configuration that it depends on: where that is the same, it need not be restarted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PipelinePlan {
    /// The source's name, or `source/destination` behind a journal: the key of its checkpoint too.
    pub(super) key: String,
    /// The source whose events it carries.
    pub(super) source: SourceSettings,
    /// What it reads.
    pub(super) reads: Reads,
    /// What it writes.
    pub(super) writes: Writes,
    /// `name` and `environment` of the configuration, which are in every event.
    pub(super) instance: (String, String),
}

/// What a pipeline reads.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reads {
    /// The source itself.
    Source,
    /// The journal of the source.
    Journal(JournalSettings),
    /// A part of the journal, once more.
    Replay(JournalSettings, Box<Replay>),
}

/// What a pipeline writes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Writes {
    /// The journal of the source.
    Journal(JournalSettings),
    /// These destinations.
    Destinations(Vec<DestinationSettings>),
}

impl PipelinePlan {
    /// The journal at either end.
    pub(super) fn journal(&self) -> Option<&JournalSettings> {
        match (&self.reads, &self.writes) {
            (Reads::Journal(journal) | Reads::Replay(journal, _), _) | (_, Writes::Journal(journal)) => {
                Some(journal)
            }
            (Reads::Source, Writes::Destinations(_)) => None,
        }
    }

    /// The destinations that it writes.
    pub(super) fn destinations(&self) -> &[DestinationSettings] {
        match &self.writes {
            Writes::Journal(_) => &[],
            Writes::Destinations(destinations) => destinations,
        }
    }

    /// Whether it reads the source itself.
    pub(super) fn is_intake(&self) -> bool {
        matches!(self.reads, Reads::Source)
    }

    /// A replay from the journal of a source into one of its destinations.
    pub(super) fn of_replay(settings: &Settings, replay: &Replay) -> Option<PipelinePlan> {
        let source = settings.sources.iter().find(|source| source.name == replay.source)?;
        let mut destinations = settings.destinations.iter().filter(|destination| wants(destination, source));
        let destination = destinations.find(|destination| destination.name == replay.destination)?.clone();
        let journal = settings.journal_of(source)?.clone();
        Some(PipelinePlan {
            key: replay.key(),
            source: source.clone(),
            reads: Reads::Replay(journal, Box::new(replay.clone())),
            writes: Writes::Destinations(vec![destination]),
            instance: (settings.name.clone(), settings.environment.clone()),
        })
    }
}

/// Every pipeline that the configuration means, in its order.
pub(super) fn pipelines(settings: &Settings) -> Vec<PipelinePlan> {
    settings.sources.iter().flat_map(|source| of_source(settings, source)).collect()
}

fn of_source(settings: &Settings, source: &SourceSettings) -> Vec<PipelinePlan> {
    let wanted = settings.destinations.iter().filter(|destination| wants(destination, source));
    let plan = |key: String, reads: Reads, writes: Writes| PipelinePlan {
        key,
        source: source.clone(),
        reads,
        writes,
        instance: (settings.name.clone(), settings.environment.clone()),
    };
    let Some(journal) = settings.journal_of(source) else {
        let destinations = wanted.cloned().collect();
        return vec![plan(source.name.clone(), Reads::Source, Writes::Destinations(destinations))];
    };
    let mut plans = Vec::new();
    if journal.role != Role::Delivery {
        plans.push(plan(source.name.clone(), Reads::Source, Writes::Journal(journal.clone())));
    }
    if journal.role != Role::Intake {
        plans.extend(wanted.map(|destination| {
            let key = format!("{}/{}", source.name, destination.name);
            plan(key, Reads::Journal(journal.clone()), Writes::Destinations(vec![destination.clone()]))
        }));
    }
    plans
}

fn wants(destination: &DestinationSettings, source: &SourceSettings) -> bool {
    destination.takes(&source.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{JournalChoice, Where};

    fn settings(journal: Option<(&str, Role)>) -> Settings {
        let destination = |name: &str, source: Option<&str>| DestinationSettings {
            name: name.to_owned(),
            filter: Where { source: source.map(|name| vec![name.to_owned()]), ..Where::default() },
            ..DestinationSettings::default()
        };
        let journal = journal.map(|(kind, role)| JournalSettings {
            kind: kind.to_owned(),
            role,
            ..JournalSettings::default()
        });
        Settings {
            sources: ["shop", "web"]
                .map(|name| SourceSettings { name: name.to_owned(), ..SourceSettings::default() })
                .into(),
            journal: JournalChoice(journal),
            destinations: vec![destination("lake", None), destination("search", Some("shop"))],
            ..Settings::default()
        }
    }

    fn keys(settings: &Settings) -> Vec<String> {
        pipelines(settings).into_iter().map(|plan| plan.key).collect()
    }

    #[test]
    fn without_a_journal_a_source_has_one_pipeline_with_all_its_destinations() {
        let plans = pipelines(&settings(None));
        assert_eq!(keys(&settings(None)), ["shop", "web"]);
        assert_eq!(plans[0].destinations().len(), 2);
        assert_eq!(plans[1].destinations().len(), 1);
    }

    #[test]
    fn with_a_journal_every_destination_has_a_pipeline_of_its_own_behind_it() {
        let plans = pipelines(&settings(Some(("disk", Role::Both))));
        let keys: Vec<&str> = plans.iter().map(|plan| plan.key.as_str()).collect();
        assert_eq!(keys, ["shop", "shop/lake", "shop/search", "web", "web/lake"]);
        assert!(plans[0].is_intake() && matches!(plans[0].writes, Writes::Journal(_)));
        assert!(matches!(plans[1].reads, Reads::Journal(_)));
    }

    #[test]
    fn daemons_that_share_a_journal_can_share_the_work() {
        assert_eq!(keys(&settings(Some(("kafka", Role::Intake)))), ["shop", "web"]);
        assert_eq!(
            keys(&settings(Some(("kafka", Role::Delivery)))),
            ["shop/lake", "shop/search", "web/lake"]
        );
    }

    #[test]
    fn a_source_may_have_a_journal_of_its_own_or_none() {
        let mut settings = settings(Some(("disk", Role::Both)));
        settings.sources[1].journal = Some(JournalChoice(None));
        assert_eq!(keys(&settings), ["shop", "shop/lake", "shop/search", "web"]);
    }

    #[test]
    fn a_change_concerns_the_pipelines_that_depend_on_it() {
        let before = pipelines(&settings(Some(("disk", Role::Both))));
        let mut changed = settings(Some(("disk", Role::Both)));
        changed.destinations[1].required = false;
        let after = pipelines(&changed);
        let differ: Vec<&str> =
            before.iter().zip(&after).filter(|(a, b)| a != b).map(|(a, _)| a.key.as_str()).collect();
        assert_eq!(differ, ["shop/search"]);
    }
}
