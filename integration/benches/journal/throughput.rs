//! Bytes in bulk: plain, into a journal, and out of it again.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay_api::testing::source::{NothingToCopy, SchemasInMemory};
use forebay_api::{
    Batch, Budget, Committed, Delivery, Outlet, Part, Progress, ReaderSetting, Report, SourceContext, Start,
};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::task::unconstrained;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::events::{Events, journal};

/// Events that a delivery has: a full batch of a lane.
const DELIVERY: usize = 256;

/// Deliveries under way, as the journal says.
const IN_FLIGHT: usize = 16;

/// Measures and prints.
pub(crate) async fn measure(folder: &Path, bytes: u64) {
    let mut events = Events::new();
    let weight: u64 = events.chunk(DELIVERY).weight().try_into().expect("it is small");
    let deliveries = bytes / weight;
    let total = deliveries * DELIVERY as u64;
    let plain = plain(&folder.join("plain"), deliveries, weight);
    print("plain writes", bytes, total, plain);

    let journal = journal(folder);
    let writer = journal.writer();
    writer.open().await.expect("it opens");
    writer.held(&events.stream()).await.expect("it tells what it holds");
    let mut acks = Vec::new();
    let began = Instant::now();
    let mut running = futures::stream::iter(0..deliveries)
        .map(|_| {
            let rows = 0..u32::try_from(DELIVERY).expect("it is small");
            let chunk = events.chunk(DELIVERY);
            let batch = Arc::new(Batch { chunk, verdicts: Vec::new(), encoded: Vec::new() });
            let part = Part { batch, rows: rows.collect(), range: 0..DELIVERY };
            let (delivery, _) = Delivery::new([part].into(), 0, Progress::new(DELIVERY));
            let writer = writer.clone();
            // As a lane does, so that none overtakes another.
            unconstrained(async move {
                let began = Instant::now();
                writer.deliver(delivery).await.expect("the disk works and has room");
                began.elapsed()
            })
        })
        .buffered(IN_FLIGHT);
    while let Some(ack) = running.next().await {
        acks.push(ack);
    }
    let written = began.elapsed();
    drop(running);
    print("into the journal", bytes, total, written);
    acks.sort_unstable();
    println!(
        "    {:.2} × plain; a delivery waits {:?} (p50), {:?} (p99)",
        plain.as_secs_f64() / written.as_secs_f64(),
        acks[acks.len() / 2],
        acks[acks.len() * 99 / 100]
    );
    let cold = File::options()
        .write(true)
        .open("/proc/sys/vm/drop_caches")
        .and_then(|mut file| file.write_all(b"1"))
        .is_ok();
    let name = if cold { "out of it (from disk)" } else { "out of it (page cache)" };
    print(name, bytes, total, read(&journal, total).await);
    writer.close().await.expect("it closes");
}

/// What the disk gives: the same bytes over zeros, in the same groups.
fn plain(path: &Path, deliveries: u64, weight: u64) -> Duration {
    let piece = vec![b'x'; usize::try_from(weight).expect("it is small")];
    let mut file = File::create(path).expect("the folder can be written to");
    let zeros = vec![0; 1 << 20];
    for _ in 0..(deliveries * weight).div_ceil(1 << 20) {
        file.write_all(&zeros).expect("the disk has room");
    }
    file.sync_all().expect("the disk works");
    file.rewind().expect("it is a file");
    let began = Instant::now();
    for delivery in 1..=deliveries {
        file.write_all(&piece).expect("the disk has room");
        if delivery % IN_FLIGHT as u64 == 0 || delivery == deliveries {
            file.sync_data().expect("the disk works");
        }
    }
    let took = began.elapsed();
    std::fs::remove_file(path).expect("it was just made");
    took
}

/// How long one reader takes for so many events.
async fn read(journal: &Arc<dyn forebay_api::Journal>, events: u64) -> Duration {
    let stop = CancellationToken::new();
    let (outlet, mut inlet) = Outlet::new(Budget::new(64 << 20), stop.clone());
    let (_committed, receiver) = watch::channel(None);
    let context = SourceContext {
        resume: None,
        outlet,
        committed: Committed::new(receiver),
        stop: stop.clone(),
        abort: CancellationToken::new(),
        report: Report::default(),
        snapshots: Arc::new(NothingToCopy),
        schemas: Arc::new(SchemasInMemory::default()),
    };
    let setting = ReaderSetting { name: "bench".into(), required: true, start: Start::Oldest, until: None };
    let mut source = journal.reader(setting);
    let began = Instant::now();
    let reader = tokio::spawn(async move { source.run(context).await });
    let mut seen = 0;
    while seen < events {
        let (chunk, _) = inlet.receive().await.expect("it goes on");
        seen += chunk.rows.len() as u64;
    }
    let took = began.elapsed();
    stop.cancel();
    drop(inlet);
    reader.await.expect("it does not panic").expect("it reads");
    took
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn print(name: &str, bytes: u64, events: u64, took: Duration) {
    let seconds = took.as_secs_f64();
    println!(
        "  {name:<24} {:>8.0} MB/s {:>10.0} events/s",
        bytes as f64 / seconds / 1e6,
        events as f64 / seconds
    );
}
