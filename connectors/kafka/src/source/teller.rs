//! Tells the group what is delivered, one commit at a time, on a thread of its own: librdkafka waits for the answer for as
//! long as it takes, and the session must turn meanwhile.
//!
//! There is no commit without waiting, because its outcome would not be told: the binding sets no callback for it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use forebay_api::{Blame, Fault};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::cursors::Cursors;
use super::membership::Membership;
use crate::fault::code;

/// See the module. Dropped, it takes no more; what is under way is not waited for.
pub(crate) struct Teller {
    tell: Sender<TopicPartitionList>,
    answers: Receiver<Result<(), Code>>,
    /// What is under way. There is one at a time, so neither channel holds more.
    telling: Option<Cursors>,
    thread: JoinHandle<()>,
}

/// What became of what the group was told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing new.
    Nothing,
    /// The group knows.
    Known(Cursors),
    /// It does not.
    Failed(Code),
}

impl Teller {
    /// Starts the thread.
    pub(crate) fn start(consumer: Arc<BaseConsumer<Membership>>) -> Result<Teller, Fault> {
        let (tell, told) = channel::<TopicPartitionList>();
        let (answer, answers) = channel();
        let work = move || {
            while let Ok(offsets) = told.recv() {
                let result = consumer.commit(&offsets, CommitMode::Sync).map_err(|error| code(&error));
                if answer.send(result).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("kafka-commits".to_owned()).spawn(work);
        let thread = thread.map_err(|error| Fault::fatal("starting a thread", Blame::Outside, error))?;
        Ok(Teller { tell, answers, telling: None, thread })
    }

    /// Tells the group these, unless it is still being told others.
    pub(crate) fn tell(&mut self, cursors: Cursors) {
        if self.telling.is_none() && self.tell.send(cursors.list()).is_ok() {
            self.telling = Some(cursors);
        }
    }

    /// Whether it is being told something.
    pub(crate) fn is_busy(&self) -> bool {
        self.telling.is_some()
    }

    /// What became of it, once.
    pub(crate) fn hear(&mut self) -> Told {
        if self.telling.is_none() {
            return Told::Nothing;
        }
        match self.answers.try_recv() {
            Err(TryRecvError::Empty) => Told::Nothing,
            Err(TryRecvError::Disconnected) => Told::Failed(Code::Fail),
            Ok(Ok(())) => Told::Known(self.telling.take().unwrap_or_default()),
            Ok(Err(code)) => {
                self.telling = None;
                Told::Failed(code)
            }
        }
    }

    /// Ends the thread, unless it still waits for an answer: then it ends, and drops its consumer, by itself.
    pub(crate) fn end(self) {
        let Teller { tell, telling, thread, .. } = self;
        drop(tell);
        if telling.is_none() && thread.join().is_err() {
            tracing::error!("the thread that commits offsets died");
        }
    }
}
