//! How long a sender waits until its event is durable, through a whole pipeline.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use forebay::checkpoint::NothingStored;
use forebay::shutdown::Shutdown;
use forebay_api::{Fault, Source, SourceContext};
use forebay_integration::pipelines::pipeline;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::events::{Events, SOURCE, journal};

/// What so many senders saw.
pub(crate) struct Seen {
    senders: usize,
    seconds: u64,
    waits: Vec<Duration>,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |share: usize| self.waits[(self.waits.len() * share / 1000).min(self.waits.len() - 1)];
        let rate = self.waits.len() as u64 / self.seconds;
        write!(
            f,
            "  {:>5} senders {rate:>8} events/s, p50 {:>8.0?} p99 {:>8.0?} p99.9 {:>8.0?}",
            self.senders,
            of(500),
            of(990),
            of(999)
        )
    }
}

/// Has so many senders send one event after the other, each when the one before is durable.
pub(crate) async fn measure(folder: &Path, senders: usize, seconds: u64) -> Seen {
    let journal = journal(folder);
    let waits = Arc::new(Mutex::new(Vec::new()));
    let source = Senders { senders, seconds, waits: waits.clone() };
    let writer = (forebay::daemon::JOURNAL, journal.writer());
    let pipeline = pipeline(SOURCE, folder, Box::new(source), writer, Arc::new(NothingStored));
    let ended = pipeline.generation(&Shutdown::default()).await;
    ended.result.expect("nothing fails");
    journal.writer().close().await.expect("it closes");
    let mut waits = std::mem::take(&mut *waits.lock().expect("nobody panicked"));
    waits.sort_unstable();
    Seen { senders, seconds, waits }
}

/// A source whose senders wait for their tickets.
struct Senders {
    senders: usize,
    seconds: u64,
    waits: Arc<Mutex<Vec<Duration>>>,
}

#[async_trait]
impl Source for Senders {
    async fn run(&mut self, context: SourceContext) -> Result<(), Fault> {
        // Marks ascend from send to send.
        let events = Arc::new(tokio::sync::Mutex::new(Events::new()));
        let until = Instant::now() + Duration::from_secs(self.seconds);
        let mut senders = JoinSet::new();
        for _ in 0..self.senders {
            let (outlet, events) = (context.outlet.clone(), events.clone());
            senders.spawn(async move {
                let mut waits = Vec::new();
                while Instant::now() < until {
                    let began = Instant::now();
                    let mut turn = events.lock().await;
                    let chunk = turn.chunk(1);
                    let Ok(ticket) = outlet.send_ticketed(chunk, None).await else { break };
                    drop(turn);
                    if ticket.await.is_err() {
                        break;
                    }
                    waits.push(began.elapsed());
                }
                waits
            });
        }
        while let Some(waits) = senders.join_next().await {
            self.waits.lock().expect("nobody panicked").extend(waits.expect("no sender panics"));
        }
        Ok(())
    }
}
