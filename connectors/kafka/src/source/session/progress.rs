//! How what is settled reaches the group, and how partitions are given back.

use std::time::Duration;

use forebay_api::{Committed, Fault};
use futures::FutureExt;
use rdkafka::consumer::Consumer;
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::time::Instant;

use super::{End, Generation, Session, Sharing};
use crate::source::cursors::{Cursors, Resumed};
use crate::source::membership::Rebalance;
use crate::source::teller::{Teller, Told};
use crate::source::wrong;

/// How long the loop waits for something while it drains.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// How long the group may take to answer what it is told when the generation is over.
const LAST_WORD: Duration = Duration::from_secs(5);

/// How a wait for what is under way ended.
enum Drained {
    /// All is settled, and the group knows.
    Yes,
    /// The generation is over and not all is settled.
    Closed,
    /// It took longer than the group waits.
    Late,
    /// The partitions are somebody else's already.
    Lost,
}

impl Session {
    /// Takes what the core has stored since, and tells the group of it: one commit at a time.
    pub(super) fn tell(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        self.hear(&mut generation.committed, &mut generation.closed)?;
        if let Err(fault) = self.heard_back() {
            // Whatever keeps the group from hearing us, it may give our partitions to others.
            generation.abort.cancel();
            return Err(fault);
        }
        let new = self.untold();
        if let Some(teller) = &mut self.teller
            && !new.is_empty()
        {
            teller.tell(new);
        }
        Ok(())
    }

    /// What the core has stored and the group does not know.
    fn untold(&self) -> Cursors {
        match self.plan.sharing {
            Sharing::Group => self.stored.beyond(&self.told, &self.owned),
            Sharing::Alone(_) => Cursors::default(),
        }
    }

    /// What the core has stored.
    fn hear(&mut self, committed: &mut Committed, closed: &mut bool) -> Result<(), Fault> {
        if *closed {
            return Ok(());
        }
        match committed.changed().now_or_never() {
            None => {}
            Some(Err(_closed)) => *closed = true,
            Some(Ok(None)) => {}
            Some(Ok(Some(position))) => {
                self.stored = Resumed::read(&position).map_err(wrong::position)?.cursors;
            }
        }
        Ok(())
    }

    /// What became of a commit.
    fn heard_back(&mut self) -> Result<(), Fault> {
        match self.teller.as_mut().map_or(Told::Nothing, Teller::hear) {
            Told::Nothing => Ok(()),
            Told::Known(told) => {
                self.told.merge(&told);
                Ok(())
            }
            // Told again with what is stored by then.
            Told::Failed(code) if wrong::passes(code) || code == Code::RebalanceInProgress => Ok(()),
            Told::Failed(code) => Err(wrong::judged("telling the group what is delivered", code, None)),
        }
    }

    /// Tells the group what was stored by a generation that is gone; what fails is read and delivered again.
    pub(super) fn tell_the_rest(&mut self) {
        let deadline = Instant::now() + LAST_WORD;
        while Instant::now() < deadline {
            if let Err(error) = self.heard_back() {
                tracing::info!(%error, "the group could not be told what is delivered");
                return;
            }
            let new = self.untold();
            let Some(teller) = &mut self.teller else { return };
            if new.is_empty() && !teller.is_busy() {
                return;
            }
            if !new.is_empty() {
                teller.tell(new);
            }
            drop(self.consumer.poll(DRAIN_LOOK));
        }
    }

    /// The source was told to stop, or has read all that was asked for: waits until what it sent is settled.
    pub(super) fn finish(&mut self, generation: &mut Generation) -> Result<End, Fault> {
        match self.drain(generation, None)? {
            Drained::Yes => Ok(End::Done),
            Drained::Closed | Drained::Late => Ok(End::Open),
            Drained::Lost => Err(self.lose(generation)),
        }
    }

    /// The group wants our partitions: gives them back when what was sent of them is settled. What the run ends with.
    pub(super) fn hand_over(&mut self, generation: &mut Generation) -> Fault {
        let doing = "giving partitions back to the group";
        self.revoked = true;
        let deadline = Instant::now() + self.plan.settings.max_poll / 2;
        match self.drain(generation, Some(deadline)) {
            Ok(Drained::Yes) => {
                self.give_back();
                Fault::retryable(doing, "what was read of them is delivered").at_once()
            }
            Ok(Drained::Late) => {
                tracing::warn!(
                    source = %self.plan.source, group = self.plan.group,
                    "what was read did not drain before the group wants its partitions back; it is read again by whom they go to"
                );
                generation.abort.cancel();
                Fault::retryable(doing, "not all of what was read of them is delivered").at_once()
            }
            // The generation ended for a reason of its own; the next one finds the partitions to be given back.
            Ok(Drained::Closed) => Fault::retryable(doing, "the pipeline ended").at_once(),
            Ok(Drained::Lost) => self.lose(generation),
            Err(fault) => {
                generation.abort.cancel();
                fault
            }
        }
    }

    /// Our partitions are somebody else's: what is under way must not be delivered any more.
    pub(super) fn lose(&mut self, generation: &Generation) -> Fault {
        generation.abort.cancel();
        self.give_back();
        Fault::retryable(
            format!("reading as a member of group `{}`", self.plan.group),
            "the group has given our partitions to others, because it heard nothing of us for too long",
        )
        .with_remedy(
            "give the daemon more processor time, or let `options` set a longer `session.timeout.ms`",
        )
    }

    /// Gives back all partitions, which ends the assignment for us.
    pub(super) fn give_back(&mut self) {
        // Before we can be a member anew: the brokers know by its generation that an offset comes too late.
        let deadline = Instant::now() + LAST_WORD;
        while self.teller.as_ref().is_some_and(Teller::is_busy) && Instant::now() < deadline {
            drop(self.consumer.poll(DRAIN_LOOK));
            if let Err(error) = self.heard_back() {
                tracing::info!(%error, "the group could not be told what is delivered");
            }
        }
        if let Err(error) = self.consumer.unassign() {
            tracing::warn!(%error, "giving partitions back failed; the group takes them when it hears nothing of us");
        }
        self.revoked = false;
        self.waiting = None;
        self.streams.clear();
        self.ahead.clear();
        self.ended.clear();
        self.intake.chunks();
        for cursors in [&mut self.owned, &mut self.sent, &mut self.stored, &mut self.told] {
            *cursors = Cursors::default();
        }
    }

    /// Sends nothing more and waits until all that was sent is settled and told.
    fn drain(&mut self, generation: &mut Generation, deadline: Option<Instant>) -> Result<Drained, Fault> {
        generation.outlet = None;
        let mut last_word: Option<Instant> = None;
        loop {
            generation.report.turned();
            if generation.is_gone() {
                return Ok(Drained::Closed);
            }
            self.tell(generation)?;
            while let Some(rebalance) = self.consumer.context().next_rebalance() {
                match rebalance {
                    Rebalance::Lost => return Ok(Drained::Lost),
                    Rebalance::Revoked => self.revoked = true,
                    Rebalance::Assigned(partitions) => self.waiting = Some(partitions),
                    Rebalance::Failed(code) => return Err(wrong::judged("leaving the group", code, None)),
                }
            }
            let settled = self.stored.cover(&self.sent);
            let told =
                self.untold().is_empty() && self.teller.as_ref().is_none_or(|teller| !teller.is_busy());
            if settled && told {
                return Ok(Drained::Yes);
            }
            if generation.closed {
                let last = *last_word.get_or_insert_with(|| Instant::now() + LAST_WORD);
                if !settled || Instant::now() >= last {
                    return Ok(Drained::Closed);
                }
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(Drained::Late);
            }
            // What comes now is not sent any more: whoever reads on gets it.
            drop(self.consumer.poll(DRAIN_LOOK));
        }
    }
}
