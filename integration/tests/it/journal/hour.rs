//! An hour, by a clock that the test moves: one destination is away for all of it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use forebay::checkpoint::FileStore;
use forebay::daemon::JOURNAL;
use forebay::shutdown::Shutdown;
use forebay::supervise;
use forebay_api::{Delivery, Destination, Fault, Position, ReaderSetting, Source, SourceContext, Start};
use forebay_integration::pipelines::pipeline;
use tokio::time::{Instant, sleep};

use super::rig::{batch, journal};

const MINUTES: u64 = 60;
const EACH: u64 = 10;

/// Sends some events each minute, and goes on to the next one when what it sent may be confirmed upstream.
struct EveryMinute;

#[async_trait]
impl Source for EveryMinute {
    async fn run(&mut self, mut context: SourceContext) -> Result<(), Fault> {
        context.report.set_connected(true);
        for minute in 0..MINUTES {
            let batch = batch(minute * EACH..(minute + 1) * EACH, 10);
            let chunk = Arc::try_unwrap(batch).expect("nobody else has it").chunk;
            let position = Position(minute.to_string().into());
            if context.outlet.send(chunk, Some(position.clone())).await.is_err() {
                return Err(Fault::retryable("sending", "closed"));
            }
            while context.committed.latest() != Some(position.clone()) {
                context.committed.changed().await.map_err(|error| Fault::retryable("waiting", error))?;
            }
            sleep(Duration::from_secs(60)).await;
        }
        Ok(())
    }
}

/// Keeps the numbers of what it gets, while it is there.
#[derive(Default)]
struct Kept {
    away: AtomicBool,
    attempts: AtomicU32,
    numbers: Mutex<Vec<u64>>,
}

#[async_trait]
impl Destination for Kept {
    async fn deliver(&self, mut delivery: Delivery) -> Result<(), Fault> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err(Fault::retryable("writing", "it is away"));
        }
        let numbers = delivery.open().map(|(_, record)| record.event().mark().major.1 - 1);
        self.numbers.lock().unwrap().extend(numbers.collect::<Vec<_>>());
        delivery.accept_all();
        Ok(())
    }
}

impl Kept {
    async fn has_all(&self) {
        while self.numbers.lock().unwrap().len() < usize::try_from(MINUTES * EACH).unwrap() {
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(*self.numbers.lock().unwrap(), (0..MINUTES * EACH).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn while_a_destination_is_away_for_an_hour_others_flow_and_the_source_is_confirmed_every_minute() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path(), "1GiB");
    let store = Arc::new(FileStore::open(folder.path()).unwrap());
    let (well, away) = (Arc::new(Kept::default()), Arc::new(Kept::default()));
    away.away.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let shutdown = Shutdown::default();
    let mut readers = Vec::new();
    for (name, kept) in [("well", &well), ("away", &away)] {
        let setting = ReaderSetting { name: name.into(), required: true, start: Start::Oldest, until: None };
        let (source, key) = (journal.reader(setting), format!("db/{name}"));
        let reader = pipeline(&key, folder.path(), source, (name, kept.clone()), store.clone());
        readers.push(tokio::spawn(supervise::run(reader, None, shutdown.child())));
    }
    let writer = (JOURNAL, journal.writer());
    let intake = pipeline("db", folder.path(), Box::new(EveryMinute), writer, store.clone());
    assert!(supervise::run(intake, None, shutdown.child()).await.unwrap(), "it drained");
    assert!(began.elapsed() >= Duration::from_secs(60 * MINUTES));
    well.has_all().await;
    assert!(away.numbers.lock().unwrap().is_empty());
    assert!(away.attempts.load(Ordering::SeqCst) > 60, "it was tried again and again");
    away.away.store(false, Ordering::SeqCst);
    away.has_all().await;
    shutdown.stop.cancel();
    for reader in readers {
        reader.await.unwrap().unwrap();
    }
}
