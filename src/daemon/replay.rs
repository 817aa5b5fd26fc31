//! Replays: a part of a journal, delivered once more to one destination.
//!
//! A replay is a pipeline of its own beside the one that delivers what is new, with a position of its own, so that it
//! goes on after a restart. It runs as another stream, so that a destination which keeps the marks of what it has does
//! not strike it off; the ids are those that the events had.

use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_api::{Blame, Fault, Position};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{error, info, warn};

use super::crew::Ended;
use super::order::ReplayOrder;
use super::plan::PipelinePlan;
use super::{Running, refused};
use crate::filter::{Filter, Window};
use crate::snapshot::Refusal;
use crate::state::{Kind, StateStore};

/// How a replay has ended that brought all it should.
pub(crate) const REPLAYED: &str = "done";

/// One replay, as it is kept until it is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Replay {
    /// Its number, which no other replay of this `data_dir` has had.
    pub(super) number: u64,
    /// Whose events.
    pub(super) source: String,
    /// Where they go.
    pub(super) destination: String,
    /// Where reading begins.
    pub(super) from: String,
    /// Where it ends: the end of the journal when it was asked for.
    pub(super) until: String,
    /// Which of the events in between.
    pub(super) wanted: Wanted,
}

/// Which events a replay delivers; what is not given lets all pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Events between these.
    pub window: Window,
    /// In a table that one of these globs matches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    /// With one of these keys: the JSON object of the key, or its value where the key has one column.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<serde_json::Value>,
}

impl Replay {
    /// The key of its checkpoint and its pipeline.
    pub(super) fn key(&self) -> String {
        format!("{}/{}/{}", self.source, self.destination, self.reader())
    }

    /// Its name among the readers of the journal.
    pub(super) fn reader(&self) -> String {
        format!("replay-{}", self.number)
    }

    /// Where it begins and where it ends.
    pub(super) fn bounds(&self) -> (Position, Position) {
        let position = |text: &str| Position(Bytes::copy_from_slice(text.as_bytes()));
        (position(&self.from), position(&self.until))
    }

    /// Narrows the filter of its destination.
    pub(super) fn narrow(&self, filter: &mut Filter) -> Result<(), globset::Error> {
        filter.window = self.wanted.window;
        filter.keys.clone_from(&self.wanted.keys);
        self.wanted.tables.iter().try_for_each(|pattern| filter.also_table(pattern))
    }
}

impl Running {
    /// Takes up what was not done when the daemon last ended.
    pub(super) async fn resume_replays(&mut self) -> Result<(), Fault> {
        if self.dry_run {
            return Ok(());
        }
        let unfinished = unfinished(&*self.parts.state).await?;
        // A crash may have left the position of one that is done.
        for key in self.parts.store.all()?.into_keys() {
            let of_replay = key.split('/').nth(2).is_some();
            if of_replay && !unfinished.iter().any(|replay| replay.key() == key) {
                self.parts.store.forget(&key).await?;
            }
        }
        for replay in unfinished {
            let Some(plan) = PipelinePlan::of_replay(&self.settings, &replay) else {
                warn!(
                    replay = replay.key(),
                    "a replay is not done, and the configuration has no more what it needs; end it by `forebay replay stop`"
                );
                self.replays.push(replay);
                continue;
            };
            self.begin(plan, replay)?;
        }
        Ok(())
    }

    /// Begins a replay; it is on disk when this is answered.
    pub(super) async fn replay(&mut self, order: ReplayOrder) -> Result<serde_json::Value, Refusal> {
        let source = self.source_of(&order)?;
        let journal = self.parts.journal(&source).ok_or_else(|| {
            Refusal::wrong(
                format!("`{source}` has no journal that this daemon delivers from"),
                "configure `journal: disk`; what happened before that cannot be replayed, but `forebay snapshot` copies tables anew",
            )
        })?;
        let window = order.wanted.window;
        if !journal.is_local() && (window.from_major.is_some() || window.to_major.is_some()) {
            return Err(Refusal::wrong(
                "events of this journal stand under its own offsets, and no LSN of theirs is known",
                "name a time instead",
            ));
        }
        let from = match order.begin() {
            Some(position) => position,
            None => journal.locate(&order.since()).await.map_err(refused)?,
        };
        let until = journal.end().await.map_err(refused)?;
        let replay = Replay {
            number: 0,
            source,
            destination: order.destination,
            from: from.to_string(),
            until: until.to_string(),
            wanted: order.wanted,
        };
        let Some(plan) = PipelinePlan::of_replay(&self.settings, &replay) else {
            return Err(Refusal::wrong(
                format!("no destination `{}` takes events of `{}`", replay.destination, replay.source),
                "name one of the configuration's destinations",
            ));
        };
        // A glob that is none is found before anything is kept.
        replay.narrow(&mut Filter::default()).map_err(|error| {
            Refusal::wrong(format!("a table is no glob: {error}"), "`*` stands for any characters")
        })?;
        let replay = keep(&*self.parts.state, replay).await.map_err(refused)?;
        let plan = PipelinePlan::of_replay(&self.settings, &replay).unwrap_or(plan);
        let (number, key) = (replay.number, replay.key());
        info!(replay = key, from = replay.from, until = replay.until, "replay begins");
        self.begin(plan, replay).map_err(refused)?;
        self.show();
        Ok(
            json!({"number": number, "key": key, "done": format!("replay {number} has begun; `forebay status` shows it as `{key}`")}),
        )
    }

    fn begin(&mut self, plan: PipelinePlan, replay: Replay) -> Result<(), Fault> {
        let built = self.parts.build(&plan, &self.settings)?;
        self.crew.start(plan, built, None, &self.shutdown);
        self.replays.push(replay);
        self.show();
        Ok(())
    }

    /// The source that is meant: the one that is named, else the only one that has a journal.
    fn source_of(&self, order: &ReplayOrder) -> Result<String, Refusal> {
        if let Some(name) = &order.source {
            return Ok(name.clone());
        }
        let sources = &self.settings.sources;
        let mut with = sources.iter().filter(|source| self.settings.journal_of(source).is_some());
        match (with.next(), with.next()) {
            (Some(only), None) => Ok(only.name.clone()),
            (None, _) => Err(Refusal::wrong("no source has a journal", "configure `journal: disk`")),
            (Some(_), Some(_)) => {
                Err(Refusal::wrong("several sources have a journal", "name one with `--source`"))
            }
        }
    }

    /// Ends one that is not done.
    pub(super) async fn stop_replay(&mut self, number: u64) -> Result<serde_json::Value, Refusal> {
        let replay = self.replays.iter().find(|replay| replay.number == number).cloned();
        let replay = replay.ok_or_else(|| {
            Refusal::wrong(
                format!("there is no replay {number} that is not done"),
                "look at `forebay status`",
            )
        })?;
        self.crew.stop(|plan| plan.key == replay.key()).await;
        self.give_up(&replay).await.map_err(refused)?;
        self.status.replay_ended(number, "given up");
        info!(replay = replay.key(), "replay given up");
        Ok(json!({"done": format!("replay {number} was given up; what it delivered stays")}))
    }

    /// One has read what it should, or cannot go on.
    pub(super) async fn replay_ended(&mut self, replay: Replay, ended: Ended) {
        match ended {
            Ok(_) => match self.give_up(&replay).await {
                Ok(()) => {
                    self.status.replay_ended(replay.number, REPLAYED);
                    info!(replay = replay.key(), "replay is done");
                }
                Err(fault) => {
                    error!(replay = replay.key(), error = %fault, remedy = fault.remedy(), "replay is done, but it cannot be noted; it comes again at the next start");
                }
            },
            Err(fault) => {
                self.status.replay_ended(replay.number, &fault.to_string());
                error!(replay = replay.key(), error = %fault, remedy = fault.remedy(), "replay cannot go on; it is tried again at the next start, or given up by `forebay replay stop`");
            }
        }
        self.show();
    }

    /// Nothing is kept for it any more.
    async fn give_up(&mut self, replay: &Replay) -> Result<(), Fault> {
        if let Some(journal) = self.parts.journal(&replay.source) {
            journal.forget(&replay.reader()).await?;
        }
        forget(&*self.parts.state, replay).await?;
        self.parts.store.forget(&replay.key()).await?;
        self.replays.retain(|known| known.number != replay.number);
        self.show();
        Ok(())
    }
}

/// The replays that are not done.
pub(super) async fn unfinished(state: &dyn StateStore) -> Result<Vec<Replay>, Fault> {
    let kept = state.all(Kind::Replays, "").await?;
    let decoded = kept.into_iter().filter(|(key, _)| key != NUMBER).map(|(key, value)| {
        serde_json::from_slice(&value).map_err(|error| {
            Fault::fatal(format!("reading the replay `{key}`"), Blame::Outside, error)
                .with_remedy("run the Forebay that wrote it, or a newer one")
        })
    });
    decoded.collect()
}

/// Gives a replay its number and keeps it; durable when it returns.
pub(super) async fn keep(state: &dyn StateStore, mut replay: Replay) -> Result<Replay, Fault> {
    let kept: BTreeMap<String, Vec<u8>> = state.all(Kind::Replays, NUMBER).await?;
    let last = kept.get(NUMBER).and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok());
    if last.is_none() && !kept.is_empty() {
        let error = "the number of the last replay cannot be read";
        return Err(Fault::fatal("numbering a replay", Blame::Outside, error)
            .with_remedy("run the Forebay that wrote it, or a newer one"));
    }
    replay.number = last.unwrap_or(0) + 1;
    let value = serde_json::to_vec(&replay)
        .map_err(|error| Fault::fatal("keeping a replay", Blame::Defect, error))?;
    let number = (NUMBER.to_owned(), Some(replay.number.to_string().into_bytes()));
    let stored = state.put(Kind::Replays, vec![number, (replay.key(), Some(value))]).await;
    stored.map_err(|error| Fault::retryable("keeping a replay", error))?;
    Ok(replay)
}

/// Forgets one that is done or given up.
pub(super) async fn forget(state: &dyn StateStore, replay: &Replay) -> Result<(), Fault> {
    let stored = state.put(Kind::Replays, vec![(replay.key(), None)]).await;
    stored.map_err(|error| Fault::retryable("forgetting a replay", error))
}

/// Where the number of the last replay is kept; keys of replays begin with the name of a source.
const NUMBER: &str = "#number";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::MemoryState;

    #[tokio::test]
    async fn replays_are_kept_until_they_are_forgotten_and_numbers_never_come_again() {
        let state = MemoryState::default();
        let replay = Replay {
            number: 0,
            source: "shop".to_owned(),
            destination: "lake".to_owned(),
            from: "a".to_owned(),
            until: "b".to_owned(),
            wanted: Wanted::default(),
        };
        let first = keep(&state, replay.clone()).await.unwrap();
        assert_eq!((first.number, first.key().as_str()), (1, "shop/lake/replay-1"));
        assert_eq!(unfinished(&state).await.unwrap(), std::slice::from_ref(&first));
        forget(&state, &first).await.unwrap();
        assert!(unfinished(&state).await.unwrap().is_empty());
        assert_eq!(keep(&state, replay).await.unwrap().number, 2);
    }
}
