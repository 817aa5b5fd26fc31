//! What a lane does with records that its destination refuses, by `on_poison`, and with their letters.
//!
//! Invariants: a refused record is settled by its stored letter, not before. With `block_key` what depends on a letter
//! becomes one before anything behind it is delivered, and letters are replayed only while nothing is under way.

use std::collections::BTreeMap;
use std::future::Future;

use forebay_api::{Blame, Event, Fault, Rejection, Settled, step};
use tracing::{debug, warn};

use super::{Group, Lane};
use crate::config::OnPoison;
use crate::daemon::JOURNAL;
use crate::dead_letters::{Buried, Courier, Letter, Part, Replay, Waiting, now_micros};

/// The reason of a letter whose event only stood behind another letter of its key.
pub const BLOCKED: &str = "blocked";

impl Lane {
    /// Buries what depends on a letter, before anything of the group is delivered: a mark that the destination stores
    /// must not cover what is not settled.
    pub(super) async fn hold_back(&mut self, group: &mut Group) -> Result<(), Fault> {
        let open: Vec<(usize, Waiting)> = group
            .events()
            .filter(|(index, _)| group.progress.of(*index) == Settled::Open)
            .map(|(index, event)| (index, Waiting::of(event)))
            .collect();
        if self.dead_letters.size().0 == 0 || open.is_empty() {
            return Ok(());
        }
        let waiting: Vec<Waiting> = open.iter().map(|(_, waiting)| *waiting).collect();
        let asked = || self.dead_letters.blocked(waiting.clone());
        let blocked = self.until_stored("dead letters cannot be read; trying again", asked).await?;
        for ((index, _), _) in open.into_iter().zip(blocked).filter(|(_, blocked)| *blocked) {
            group.progress.reject(index, Rejection { reason: BLOCKED.to_owned(), chain: Vec::new() });
        }
        self.bury(group).await
    }

    /// Stores the dead letters of what was rejected since the last time. A record is settled by that, not before.
    pub(super) async fn bury(&mut self, group: &mut Group) -> Result<(), Fault> {
        let rejected = std::mem::take(&mut group.progress.rejected);
        if rejected.is_empty() {
            return Ok(());
        }
        let mut letters = Vec::with_capacity(rejected.len());
        let mut next = rejected.into_iter().collect::<BTreeMap<_, _>>();
        for (index, record) in group.records(self.settings.format) {
            let Some(why) = next.remove(&index) else { continue };
            if self.settings.on_poison == OnPoison::Halt {
                return Err(self.halted(record.event(), &why));
            }
            let attempts = group.attempts;
            let letter = Letter::new(&self.settings.destination, record, why, attempts, now_micros());
            letters.push(letter.map_err(|error| {
                Fault::fatal("writing a dead letter", Blame::Defect, error).with_remedy("report this")
            })?);
        }
        let count = letters.len();
        if letters.iter().any(|letter| letter.reason != BLOCKED) {
            warn!(
                source = %self.settings.source, destination = %self.settings.destination, records = count,
                reason = %letters[0].reason, first = %letters[0].id, "records refused for their content; stored as dead letters"
            );
        } else {
            debug!(source = %self.settings.source, destination = %self.settings.destination, records = count, "records stored behind dead letters of their keys");
        }
        let stored = || self.dead_letters.store(letters.clone());
        match self.until_stored("dead letters cannot be stored; trying again", stored).await? {
            Buried::Stored => {
                step!("buried");
                self.figures.dead_lettered.inc_by(count as u64);
            }
            Buried::Full { fault } if self.settings.required => return Err(fault),
            Buried::Full { fault } => {
                warn!(destination = %self.settings.destination, error = %fault, records = count, "dead letters dropped");
                self.figures.dropped.inc_by(count as u64);
            }
        }
        group.buried += count;
        self.buried += count;
        Ok(())
    }

    /// Does something with the dead letters until their disk lets it.
    async fn until_stored<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        failed: &'static str,
        act: impl Fn() -> F,
    ) -> Result<T, Fault> {
        let mut attempts = 0;
        loop {
            let fault = match self.turning(act()).await {
                Err(fault) if fault.is_retryable() => fault,
                done => return done,
            };
            attempts += 1;
            if attempts == 1 {
                warn!(destination = %self.settings.destination, error = %fault, remedy = fault.remedy(), "{failed}");
            }
            self.pause(attempts, &fault).await;
        }
    }

    pub(super) async fn load_letters(&self) -> Result<(), Fault> {
        let load = || self.dead_letters.load();
        self.until_stored("dead letters cannot be read; trying again", load).await
    }

    /// What `on_poison: halt` ends with.
    fn halted(&self, event: Event<'_>, why: &Rejection) -> Fault {
        let mut key = Vec::new();
        event.write_partition_key(&mut key);
        let doing = format!(
            "delivering event `{}` with key `{}` to `{}`",
            event.id(),
            String::from_utf8_lossy(&key),
            self.settings.destination
        );
        if &*self.settings.destination == JOURNAL {
            let refused = format!("the journal refuses it ({}): {}", why.reason, why.chain.join(": "));
            return Fault::fatal(doing, Blame::Outside, refused).with_remedy(
                "let the journal take it (in Kafka, raise `message.max.bytes` of the topic and of the journal's `options`) \
                 and start again; the source keeps what comes meanwhile",
            );
        }
        let refused = format!("it is refused for what it holds ({}): {}", why.reason, why.chain.join(": "));
        Fault::fatal(doing, Blame::Outside, refused).with_remedy(
            "`on_poison: halt` stops here. Mend what refuses it at the destination and start again; or set `on_poison: \
             dead_letter` (or `block_key`), to keep it aside",
        )
    }

    /// Replays this source's part of what an operator asked for; live records wait meanwhile.
    pub(super) async fn replay(&self, part: Part) {
        let courier = Courier {
            destination: self.destination.clone(),
            batch: self.settings.batch,
            timeout: self.settings.timeout,
            retry: self.settings.retry,
        };
        let replay = Replay { courier, in_order: self.settings.on_poison == OnPoison::BlockKey };
        self.turning(replay.run(part, || self.draining.is_cancelled())).await;
    }
}
