//! Every metric and label name, and the figures behind them.
//!
//! Counters are bumped once a batch, never once a record. Names and meanings are promises to dashboards:
//! `docs/metrics.md` lists them, and a test compares the two.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Tables by what their copy is at, without the prefix.
pub const SNAPSHOT_TABLES: &str = "snapshot_tables";

/// Rows that are left to copy, without the prefix.
pub const SNAPSHOT_ROWS_LEFT: &str = "snapshot_estimated_rows_left";

/// Dead letters that are open, without the prefix.
pub const DEAD_LETTERS: &str = "dead_letters";

/// Bytes of the files of dead letters, without the prefix.
pub const DEAD_LETTER_BYTES: &str = "dead_letters_bytes";

/// Labels of what belongs to a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabels {
    /// The source's name.
    pub source: String,
}

/// Labels of what belongs to a lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LaneLabels {
    /// The source's name.
    pub source: String,
    /// The destination's name.
    pub destination: String,
}

/// Labels of what belongs to a destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DestinationLabels {
    /// The destination's name.
    pub destination: String,
}

type LaneCounter = Family<LaneLabels, Counter>;
type LaneGauge = Family<LaneLabels, Gauge<i64, AtomicI64>>;

/// All metrics of the daemon.
#[derive(Debug)]
pub struct Telemetry {
    /// What `/metrics` prints.
    pub registry: Registry,
    source_events: Family<SourceLabels, Counter>,
    source_bytes: Family<SourceLabels, Counter>,
    checkpoint_saves: Family<SourceLabels, Counter>,
    read_events: LaneCounter,
    read_bytes: LaneCounter,
    replayed: LaneCounter,
    snapshot_rows: Family<SourceLabels, Counter>,
    snapshot_bytes: Family<SourceLabels, Counter>,
    snapshot_chunks: Family<SourceLabels, Counter>,
    delivered: LaneCounter,
    filtered: LaneCounter,
    dead_lettered: LaneCounter,
    dropped: LaneCounter,
    returned: LaneCounter,
    retries: LaneCounter,
    duration: Family<LaneLabels, Histogram, fn() -> Histogram>,
    queue_bytes: LaneGauge,
    queue_records: LaneGauge,
    letters_replayed: Family<DestinationLabels, Counter>,
    letters_dropped: Family<DestinationLabels, Counter>,
    letters_forwarded: Family<DestinationLabels, Counter>,
    invalid: Family<SourceLabels, Counter>,
    /// The figures of the schema registry's cache.
    pub schemas: SchemaFigures,
}

/// What the cache of the schema registry counts.
#[derive(Clone, Debug, Default)]
pub struct SchemaFigures {
    /// Schemas that were at hand, once a chunk.
    pub hits: Counter,
    /// Schemas that were not.
    pub misses: Counter,
    /// Attempts to fetch one that failed.
    pub errors: Counter,
    /// Compiled schemas that are kept.
    pub schemas: Gauge<i64, AtomicI64>,
    /// What they take, about.
    pub bytes: Gauge<i64, AtomicI64>,
    /// How long ago the oldest of them was fetched.
    pub oldest_seconds: Gauge<i64, AtomicI64>,
}

impl SchemaFigures {
    fn register(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            ("schema_cache_hits", "Schemas that were at hand, once a chunk of events", &self.hits),
            ("schema_cache_misses", "Schemas that were not at hand", &self.misses),
            ("schema_fetch_errors", "Attempts to fetch a schema that failed", &self.errors),
        ] {
            registry.register(name, help, Counter::<u64>::clone(counter));
        }
        registry.register("schema_cache_schemas", "Compiled schemas at hand", self.schemas.clone());
        registry.register_with_unit(
            "schema_cache",
            "Memory that compiled schemas take, about",
            Unit::Bytes,
            self.bytes.clone(),
        );
        registry.register_with_unit(
            "schema_oldest",
            "Time since the oldest schema at hand was fetched",
            Unit::Seconds,
            self.oldest_seconds.clone(),
        );
    }
}

/// What became of one destination's dead letters.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterFigures {
    /// Delivered after all.
    pub replayed: Counter,
    /// Given up by an operator.
    pub dropped: Counter,
    /// Handed on to the destination for dead letters.
    pub forwarded: Counter,
}

/// The figures of one source.
#[derive(Clone, Debug, Default)]
pub struct SourceFigures {
    /// Events that entered the pipeline; those that come again after an aborted generation count again.
    pub events: Counter,
    /// Bytes of events that entered the pipeline.
    pub bytes: Counter,
    /// Checkpoints stored.
    pub saves: Counter,
}

/// What one source's snapshots count; what is read again counts again.
#[derive(Clone, Debug, Default)]
pub struct SnapshotFigures {
    /// Rows that were read and sent.
    pub rows: Counter,
    /// Their bytes of JSON.
    pub bytes: Counter,
    /// Chunks that they came in.
    pub chunks: Counter,
}

/// The figures of one lane. Of all events that entered: `events = delivered + filtered + dead_lettered + dropped +
/// returned + queue_records`, at any time when nothing is on its way between two of them.
#[derive(Clone, Debug)]
pub struct LaneFigures {
    /// Durable at the destination, those that were found there already included.
    pub delivered: Counter,
    /// Not wanted there by `accept` or `where`.
    pub filtered: Counter,
    /// Refused for their content, and stored as dead letters.
    pub dead_lettered: Counter,
    /// Lost to a best-effort destination; in the first run after a kill also what the run before had not handed over,
    /// which is beyond the sum above because its events were counted then.
    pub dropped: Counter,
    /// Given back unsettled by a generation that ended; the source reads them again.
    pub returned: Counter,
    /// Attempts after the first.
    pub retries: Counter,
    /// How long each attempt took.
    pub duration: Histogram,
    /// Bytes that wait or are on their way.
    pub queue_bytes: Gauge<i64, AtomicI64>,
    /// Records that wait or are on their way.
    pub queue_records: Gauge<i64, AtomicI64>,
    /// When the newest delivered event happened: microseconds since the Unix epoch; 0: none was delivered yet.
    pub newest_delivered_micros: Arc<AtomicI64>,
}

/// From half a millisecond to half a minute.
fn durations() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    ])
}

impl Default for Telemetry {
    fn default() -> Telemetry {
        let mut registry = Registry::with_prefix("forebay");
        let counter = |registry: &mut Registry, name: &str, help: &str| {
            let family = LaneCounter::default();
            registry.register(name, help, family.clone());
            family
        };
        let delivered = counter(&mut registry, "delivered", "Records durable at the destination");
        let filtered = counter(&mut registry, "filtered", "Events that the destination does not want");
        let dead_lettered = counter(&mut registry, "dead_lettered", "Records stored as dead letters");
        let dropped = counter(&mut registry, "dropped", "Records lost to a best-effort destination");
        let returned = counter(
            &mut registry,
            "returned",
            "Records given back unsettled by a generation that ended; they come again",
        );
        let retries = counter(&mut registry, "retries", "Delivery attempts after the first");
        let (source_events, source_bytes, checkpoint_saves) = Default::default();
        registry.register("source_events", "Events that entered the pipeline", Family::clone(&source_events));
        registry.register_with_unit(
            "source",
            "Bytes of events that entered the pipeline",
            Unit::Bytes,
            Family::clone(&source_bytes),
        );
        registry.register("checkpoint_saves", "Checkpoints stored", Family::clone(&checkpoint_saves));
        let read_events = counter(
            &mut registry,
            "journal_read_events",
            "Events that were read from the journal for the destination",
        );
        let read_bytes = LaneCounter::default();
        registry.register_with_unit(
            "journal_read",
            "Bytes of events that were read from the journal for the destination",
            Unit::Bytes,
            read_bytes.clone(),
        );
        let replayed =
            counter(&mut registry, "replayed", "Records that replays have made durable at the destination");
        let (snapshot_rows, snapshot_bytes, snapshot_chunks) = Default::default();
        registry.register("snapshot_rows", "Rows that snapshots copied", Family::clone(&snapshot_rows));
        registry.register_with_unit(
            "snapshot",
            "Bytes of rows that snapshots copied",
            Unit::Bytes,
            Family::clone(&snapshot_bytes),
        );
        registry.register(
            "snapshot_chunks",
            "Chunks of rows that snapshots copied",
            Family::clone(&snapshot_chunks),
        );
        let duration = Family::new_with_constructor(durations as fn() -> Histogram);
        registry.register_with_unit(
            "delivery_duration",
            "How long a delivery attempt took",
            Unit::Seconds,
            duration.clone(),
        );
        let (queue_bytes, queue_records) = (LaneGauge::default(), LaneGauge::default());
        registry.register_with_unit(
            "queue",
            "Bytes waiting for or on their way into the destination",
            Unit::Bytes,
            queue_bytes.clone(),
        );
        registry.register(
            "queue_records",
            "Records waiting for or on their way into the destination",
            queue_records.clone(),
        );
        let (letters_replayed, letters_dropped, letters_forwarded) = Default::default();
        for (name, help, family) in [
            ("dead_letters_replayed", "Dead letters delivered after all", &letters_replayed),
            ("dead_letters_dropped", "Dead letters given up by an operator", &letters_dropped),
            ("dead_letters_forwarded", "Dead letters handed on to `dead_letters.to`", &letters_forwarded),
        ] {
            registry.register(name, help, Family::<DestinationLabels, Counter>::clone(family));
        }
        let invalid = Family::<SourceLabels, Counter>::default();
        registry.register("invalid_events", "Events that are not what their schema says", invalid.clone());
        let schemas = SchemaFigures::default();
        schemas.register(&mut registry);
        Telemetry {
            registry,
            invalid,
            schemas,
            source_events,
            source_bytes,
            checkpoint_saves,
            read_events,
            read_bytes,
            replayed,
            snapshot_rows,
            snapshot_bytes,
            snapshot_chunks,
            delivered,
            filtered,
            dead_lettered,
            dropped,
            returned,
            retries,
            duration,
            queue_bytes,
            queue_records,
            letters_replayed,
            letters_dropped,
            letters_forwarded,
        }
    }
}

impl Telemetry {
    /// The figures of one source, made when they are first asked for.
    pub fn source(&self, source: &str) -> SourceFigures {
        let labels = SourceLabels { source: source.to_owned() };
        SourceFigures {
            events: self.source_events.get_or_create_owned(&labels),
            bytes: self.source_bytes.get_or_create_owned(&labels),
            saves: self.checkpoint_saves.get_or_create_owned(&labels),
        }
    }

    /// Counts the invalid events of one source, made when it is first asked for.
    pub fn invalid(&self, source: &str) -> Counter {
        self.invalid.get_or_create_owned(&SourceLabels { source: source.to_owned() })
    }

    /// The figures of what is read from a journal for one destination, made when they are first asked for.
    pub fn reader(&self, source: &str, destination: &str) -> SourceFigures {
        let labels = LaneLabels { source: source.to_owned(), destination: destination.to_owned() };
        SourceFigures {
            events: self.read_events.get_or_create_owned(&labels),
            bytes: self.read_bytes.get_or_create_owned(&labels),
            saves: Counter::default(),
        }
    }

    /// The figures of the replays into one destination: only what they deliver is exported, so that what is new and what
    /// comes again are not added up.
    pub fn replay(&self, source: &str, destination: &str) -> LaneFigures {
        let labels = LaneLabels { source: source.to_owned(), destination: destination.to_owned() };
        LaneFigures {
            delivered: self.replayed.get_or_create_owned(&labels),
            filtered: Counter::default(),
            dead_lettered: Counter::default(),
            dropped: Counter::default(),
            returned: Counter::default(),
            retries: Counter::default(),
            duration: durations(),
            queue_bytes: Gauge::default(),
            queue_records: Gauge::default(),
            newest_delivered_micros: Arc::default(),
        }
    }

    /// What one source's snapshots count, made when it is first asked for.
    pub fn snapshot(&self, source: &str) -> SnapshotFigures {
        let labels = SourceLabels { source: source.to_owned() };
        SnapshotFigures {
            rows: self.snapshot_rows.get_or_create_owned(&labels),
            bytes: self.snapshot_bytes.get_or_create_owned(&labels),
            chunks: self.snapshot_chunks.get_or_create_owned(&labels),
        }
    }

    /// What became of one destination's dead letters, made when it is first asked for.
    pub fn dead_letters(&self, destination: &str) -> DeadLetterFigures {
        let labels = DestinationLabels { destination: destination.to_owned() };
        DeadLetterFigures {
            replayed: self.letters_replayed.get_or_create_owned(&labels),
            dropped: self.letters_dropped.get_or_create_owned(&labels),
            forwarded: self.letters_forwarded.get_or_create_owned(&labels),
        }
    }

    /// The figures of one lane, made when they are first asked for.
    pub fn lane(&self, source: &str, destination: &str) -> LaneFigures {
        let labels = LaneLabels { source: source.to_owned(), destination: destination.to_owned() };
        LaneFigures {
            delivered: self.delivered.get_or_create_owned(&labels),
            filtered: self.filtered.get_or_create_owned(&labels),
            dead_lettered: self.dead_lettered.get_or_create_owned(&labels),
            dropped: self.dropped.get_or_create_owned(&labels),
            returned: self.returned.get_or_create_owned(&labels),
            retries: self.retries.get_or_create_owned(&labels),
            duration: self.duration.get_or_create_owned(&labels),
            queue_bytes: self.queue_bytes.get_or_create_owned(&labels),
            queue_records: self.queue_records.get_or_create_owned(&labels),
            newest_delivered_micros: Arc::default(),
        }
    }
}
