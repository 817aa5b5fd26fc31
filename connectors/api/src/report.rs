//! How a connector tells its health: [`Report`] is written by the connector and read by the admin server.
//!
//! Invariant: whoever owns a loop calls [`Report::turned`] at least every [`Report::MUST_TURN_WITHIN`], however
//! idle it is; liveness is red when it does not. Nothing here blocks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A gauge that a connector may report besides what the core counts. The name is the metric's, without the
/// `forebay_` prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Measure {
    /// How old the newest event that was read is while the source is behind; 0 when it has read all there is.
    SourceLagSeconds,
    /// Bytes of WAL that the server keeps for our slot.
    PostgresSlotRetainedBytes,
    /// Bytes of WAL that may still be written before the slot is lost; absent where the server sets no limit.
    PostgresSlotSafeWalBytes,
    /// Connections that an HTTP source has open.
    HttpConnections,
}

impl Measure {
    /// All of them, for the metrics page.
    pub const ALL: [Measure; 4] = [
        Measure::SourceLagSeconds,
        Measure::PostgresSlotRetainedBytes,
        Measure::PostgresSlotSafeWalBytes,
        Measure::HttpConnections,
    ];

    /// The metric's name without prefix.
    pub fn name(self) -> &'static str {
        match self {
            Measure::SourceLagSeconds => "source_lag_seconds",
            Measure::PostgresSlotRetainedBytes => "postgres_slot_retained_bytes",
            Measure::PostgresSlotSafeWalBytes => "postgres_slot_safe_wal_bytes",
            Measure::HttpConnections => "http_connections",
        }
    }

    /// The metric's help text.
    pub fn help(self) -> &'static str {
        match self {
            Measure::SourceLagSeconds => "Age of the newest event read while the source is behind",
            Measure::PostgresSlotRetainedBytes => "Bytes of WAL that the server keeps for the slot",
            Measure::PostgresSlotSafeWalBytes => "Bytes of WAL that may be written before the slot is lost",
            Measure::HttpConnections => "Connections that are open",
        }
    }
}

/// The health and figures of one source or destination. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Report(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What `turned_ms` counts from.
    born: Instant,
    turned_ms: AtomicU64,
    connected: AtomicBool,
    ever_connected: AtomicBool,
    measures: Mutex<BTreeMap<Measure, f64>>,
    details: Mutex<BTreeMap<&'static str, String>>,
}

impl Default for Report {
    fn default() -> Report {
        Report(Arc::new(Inner {
            born: Instant::now(),
            turned_ms: AtomicU64::new(0),
            connected: AtomicBool::new(false),
            ever_connected: AtomicBool::new(false),
            measures: Mutex::default(),
            details: Mutex::default(),
        }))
    }
}

impl Report {
    /// A loop that has not turned for so long is stuck. Well below the 30 s in which liveness must be red.
    pub const MUST_TURN_WITHIN: Duration = Duration::from_secs(20);

    /// The loop turned. Call it on every turn, and by a timer while there is nothing to do.
    pub fn turned(&self) {
        let ms = u64::try_from(self.0.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.turned_ms.fetch_max(ms, Ordering::Relaxed);
    }

    /// How long ago the loop last turned.
    pub fn idle(&self) -> Duration {
        let turned = Duration::from_millis(self.0.turned_ms.load(Ordering::Relaxed));
        self.0.born.elapsed().saturating_sub(turned)
    }

    /// Whether the other side is reachable as far as the connector knows.
    pub fn set_connected(&self, connected: bool) {
        self.0.connected.store(connected, Ordering::Relaxed);
        self.0.ever_connected.fetch_or(connected, Ordering::Relaxed);
    }

    /// Whether the other side was reachable at any time since the start.
    pub fn ever_connected(&self) -> bool {
        self.0.ever_connected.load(Ordering::Relaxed)
    }

    /// See [`Report::set_connected`].
    pub fn connected(&self) -> bool {
        self.0.connected.load(Ordering::Relaxed)
    }

    /// Sets a gauge; `None` removes it, when the figure is not known.
    pub fn set(&self, measure: Measure, value: Option<f64>) {
        let mut measures = self.0.measures.lock().unwrap_or_else(PoisonError::into_inner);
        match value {
            Some(value) => measures.insert(measure, value),
            None => measures.remove(&measure),
        };
    }

    /// The gauges set.
    pub fn measures(&self) -> BTreeMap<Measure, f64> {
        self.0.measures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets a line of `/status`: what it reads, where it stands (`slot`, `read_lsn`). Never secrets or row values.
    pub fn detail(&self, name: &'static str, value: impl Into<String>) {
        self.0.details.lock().unwrap_or_else(PoisonError::into_inner).insert(name, value.into());
    }

    /// Removes a line of `/status` that does not hold any more.
    pub fn forget(&self, name: &str) {
        self.0.details.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The lines set.
    pub fn details(&self) -> BTreeMap<&'static str, String> {
        self.0.details.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
