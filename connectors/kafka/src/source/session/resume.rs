//! Where partitions are taken over: at the group's offsets, else where this daemon was, else where it is told to begin.

use std::sync::Arc;
use std::time::Duration;

use forebay_api::{Blame, Fault, StreamId};
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Begin, Generation, Session, Sharing};
use crate::fault::code;
use crate::source::cursors::Cursors;
use crate::source::teller::Told;
use crate::source::wrong;

/// How long the brokers may take to answer one question.
pub(crate) const ASK_WAIT: Duration = Duration::from_secs(5);
/// How long the group may take to be moved to where an operator wants it.
const SET_WAIT: Duration = Duration::from_secs(15);

impl Session {
    /// Begins to read partitions that were assigned. After a fault they wait for the next run.
    pub(super) fn take_over(
        &mut self,
        partitions: Vec<(String, i32)>,
        generation: &mut Generation,
    ) -> Result<(), Fault> {
        self.waiting = Some(partitions.clone());
        let known = self.known_to_group(&partitions)?;
        let mut owned = Cursors::default();
        for (topic, partition) in &partitions {
            generation.report.turned();
            let at = match self.known_offset(&known, topic, *partition, generation) {
                Some(at) => at,
                None => self.first_offset(topic, *partition, &known)?,
            };
            owned.set(topic, *partition, at);
        }
        self.consumer.assign(&owned.list()).map_err(|error| wrong::of("beginning to read", &error))?;
        // What was paused when the last generation ended stays so otherwise.
        self.consumer.resume(&owned.list()).map_err(|error| wrong::of("beginning to read", &error))?;
        self.waiting = None;
        self.ahead.clear();
        self.ended.clear();
        self.told = known;
        self.sent = owned.clone();
        self.stored = Cursors::default();
        self.owned = owned;
        self.name_streams();
        generation.report.detail("partitions", partitions.len().to_string());
        tracing::info!(
            source = %self.plan.source, group = self.plan.group, partitions = partitions.len(),
            "partitions taken over"
        );
        // What is stored from now on is of this assignment, also when nothing comes.
        self.send_heartbeat(generation).map(drop)
    }

    /// Where one partition goes on, if anybody knows.
    fn known_offset(
        &self,
        known: &Cursors,
        topic: &str,
        partition: i32,
        generation: &Generation,
    ) -> Option<i64> {
        let resumed = generation.resume.cursors.get(topic, partition);
        match self.plan.sharing {
            Sharing::Group => known.get(topic, partition).or(resumed),
            Sharing::Alone(_) => resumed.or(match &self.plan.start {
                Begin::At(cursors) => cursors.get(topic, partition),
                Begin::Earliest | Begin::Latest => known.get(topic, partition),
            }),
        }
    }

    /// Where a partition begins that nobody knows.
    fn first_offset(&self, topic: &str, partition: i32, known: &Cursors) -> Result<i64, Fault> {
        if let Begin::At(cursors) = &self.plan.start
            && let Some(at) = cursors.get(topic, partition)
        {
            return Ok(at);
        }
        let watermarks = self.consumer.fetch_watermarks(topic, partition, ASK_WAIT);
        let (low, high) = watermarks.map_err(|error| wrong::of("looking for the first message", &error))?;
        // A partition that was added to a topic which the group reads has nothing that the group did not want.
        let is_new = self.plan.start == Begin::Latest && self.group_reads(topic, known)?;
        Ok(if self.plan.start == Begin::Latest && !is_new { high } else { low })
    }

    /// Whether the group has an offset for any partition of a topic.
    fn group_reads(&self, topic: &str, known: &Cursors) -> Result<bool, Fault> {
        if known.iter().any(|(read, _, _)| read == topic) {
            return Ok(true);
        }
        let all: Vec<(String, i32)> =
            self.partitions_of(topic)?.into_iter().map(|partition| (topic.to_owned(), partition)).collect();
        Ok(!self.known_to_group(&all)?.is_empty())
    }

    /// The group's offsets for these partitions.
    pub(crate) fn known_to_group(&self, partitions: &[(String, i32)]) -> Result<Cursors, Fault> {
        let doing = "asking the group for its offsets";
        let mut asked = TopicPartitionList::new();
        for (topic, partition) in partitions {
            asked.add_partition(topic, *partition);
        }
        let answer = self.consumer.committed_offsets(asked, ASK_WAIT);
        let answer = answer.map_err(|error| wrong::of(doing, &error))?;
        let mut known = Cursors::default();
        for element in answer.elements() {
            element.error().map_err(|error| wrong::of(doing, &error))?;
            if let Offset::Offset(at) = element.offset() {
                known.set(element.topic(), element.partition(), at);
            }
        }
        Ok(known)
    }

    /// Every partition of the topics, for whoever reads alone.
    pub(super) fn all_partitions(&self) -> Result<Vec<(String, i32)>, Fault> {
        let mut all = Vec::new();
        for topic in self.plan.named_topics() {
            all.extend(self.partitions_of(topic)?.into_iter().map(|partition| (topic.to_owned(), partition)));
        }
        Ok(all)
    }

    pub(crate) fn partitions_of(&self, topic: &str) -> Result<Vec<i32>, Fault> {
        let doing = format!("looking up topic `{topic}`");
        let metadata = self.consumer.fetch_metadata(Some(topic), ASK_WAIT);
        let metadata = metadata.map_err(|error| wrong::of(doing, &error))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        Ok(found.map_or_else(Vec::new, |found| found.partitions().iter().map(|part| part.id()).collect()))
    }

    /// Each partition is a stream of its own; who replays reads other streams than who follows.
    fn name_streams(&mut self) {
        self.streams.clear();
        let replay = if self.plan.sharing == Sharing::Group { "" } else { &self.plan.group };
        for (topic, partition, _) in self.owned.iter() {
            let text = format!("{}/{topic}/{partition}/{replay}", self.cluster);
            let digest = Sha256::digest(text.as_bytes());
            let epoch = u64::from_be_bytes(*digest.first_chunk().expect("SHA-256 has 32 bytes"));
            let stream = Arc::new(StreamId { source: self.plan.source.clone(), epoch });
            self.streams.entry(topic.to_owned()).or_default().insert(partition, stream);
        }
    }

    /// Moves the group's offsets to where an operator has set them; only while nobody is a member.
    pub(super) fn set_group(&mut self, cursors: &Cursors) -> Result<(), Fault> {
        let doing = format!("setting the offsets of group `{}`", self.plan.group);
        let deadline = Instant::now() + SET_WAIT;
        let Some(teller) = &mut self.teller else { return Ok(()) };
        teller.tell(cursors.clone());
        loop {
            match teller.hear() {
                Told::Known(_) => break,
                Told::Failed(code) if wrong::passes(code) => return Err(wrong::judged(&doing, code, None)),
                Told::Failed(code) => {
                    return Err(Fault::fatal(doing, Blame::Outside, code)
                        .with_remedy("stop every other member of the group, then start this daemon again"));
                }
                Told::Nothing if Instant::now() >= deadline => {
                    return Err(Fault::retryable(doing, "the brokers did not answer"));
                }
                Told::Nothing => drop(self.consumer.poll(super::LOOK)),
            }
        }
        tracing::info!(source = %self.plan.source, group = self.plan.group, "the group's offsets were set");
        Ok(())
    }

    /// An offset that the group has is not in the log any more, or not yet: names it.
    pub(super) fn out_of_range(&self) -> Fault {
        let mut found = String::new();
        for (topic, partition, _) in self.owned.iter() {
            let at = self.sent.get(topic, partition).unwrap_or_default();
            match self.consumer.fetch_watermarks(topic, partition, ASK_WAIT) {
                Ok((low, _)) if at < low => {
                    found = format!(
                        "partition {partition} of `{topic}` begins at {low}, and {at} is next: what is between was deleted before it was read"
                    );
                }
                Ok((_, high)) if at > high => {
                    found = format!(
                        "partition {partition} of `{topic}` ends at {high}, and {at} is next: it is another log than the one that was read"
                    );
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(code = ?code(&error), "asking for a partition's bounds failed"),
            }
        }
        if found.is_empty() {
            found = "an offset is not in its partition".to_owned();
        }
        let remedy = format!(
            "decide what to do about what is missing, then stop all daemons of the group and move it: `kafka-consumer-groups.sh \
             --bootstrap-server … --group {} --topic … --reset-offsets --to-earliest --execute`; keep messages longer \
             (`retention.ms`) than the daemon may be away",
            self.plan.group
        );
        Fault::fatal("reading from Kafka", Blame::Outside, found).with_remedy(remedy)
    }
}
