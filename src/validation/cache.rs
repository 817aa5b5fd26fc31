//! [`SchemaCache`]: compiled schemas by key. What is in it is found without a lock and without waiting.
//!
//! ```text
//!  age:     0 ──────── refresh ahead ──── ttl ─────────▶
//!  schema   used        used, and fetched    fetched first, for a moment; used as it is while its store is down
//!                       in the background
//!  not there, broken:   used up to `negative_ttl`, then fetched first: while the store is down nobody says
//! ```
//! Invariant: a store that cannot be asked never makes a verdict. A schema that was seen is used on; one that was never
//! seen is a fault, with which whoever asks has to wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay_api::{Fault, SchemaKey};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::chain::Chain;
use super::schema::{Loaded, Schema, load};
use crate::telemetry::SchemaFigures;

/// How long an event waits for a newer version of a schema that is at hand.
const STALE_WAIT: Duration = Duration::from_secs(1);

/// After a failed attempt a schema that is at hand is used for so long before the next one.
const RETRY_STALE: Duration = Duration::from_secs(10);

/// What one that is not there takes in memory, about.
const EMPTY_WEIGHT: usize = 512;

/// Keys that a warm-up brings in at most.
const MAX_WARM: usize = 1000;

/// How long what was fetched is used, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct CacheLimits {
    /// A schema is fetched again after so long.
    pub ttl: Duration,
    /// The answer that there is none, too.
    pub negative_ttl: Duration,
    /// What all of it may take in memory, about.
    pub max_bytes: usize,
}

impl Default for CacheLimits {
    fn default() -> CacheLimits {
        let second = Duration::from_secs(1);
        CacheLimits { ttl: 300 * second, negative_ttl: 10 * second, max_bytes: 64 << 20 }
    }
}

/// What was found under one key.
#[derive(Debug)]
pub struct Entry {
    /// What it is.
    pub loaded: Loaded,
    /// When it was fetched: milliseconds since the cache began, as all times here.
    fetched: u64,
    /// When it was last used.
    used: AtomicU64,
    /// Not before this is it fetched again, whatever its age: the last attempt failed.
    retry: AtomicU64,
}

impl Entry {
    fn weight(&self) -> usize {
        match &self.loaded {
            Loaded::Schema(schema) => schema.weight,
            Loaded::NotThere | Loaded::Broken(_) => EMPTY_WEIGHT,
        }
    }

    fn is_schema(&self) -> bool {
        matches!(self.loaded, Loaded::Schema(_))
    }
}

/// All that was fetched.
type Entries = HashMap<Arc<str>, Arc<Entry>>;

/// See the module.
#[derive(Debug)]
pub struct SchemaCache {
    chain: Chain,
    limits: CacheLimits,
    figures: SchemaFigures,
    began: Instant,
    entries: ArcSwap<Entries>,
    /// One at a time fetches a key.
    flights: Mutex<HashMap<SchemaKey, Arc<tokio::sync::Mutex<()>>>>,
}

impl SchemaCache {
    /// With the schemas that come with Forebay, and no others.
    pub fn embedded() -> SchemaCache {
        SchemaCache::new(Chain::default(), CacheLimits::default(), SchemaFigures::default())
    }

    /// Empty, in front of a chain.
    pub fn new(chain: Chain, limits: CacheLimits, figures: SchemaFigures) -> SchemaCache {
        SchemaCache {
            chain,
            limits,
            figures,
            began: Instant::now(),
            entries: ArcSwap::default(),
            flights: Mutex::default(),
        }
    }

    /// The stores behind it.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// What is at hand under `vendor/name/version` and need not be fetched.
    pub fn at_hand(&self, key: &str) -> Option<Arc<Entry>> {
        let found = self.entries.load().get(key).filter(|entry| self.holds(entry)).cloned();
        match &found {
            Some(entry) => {
                entry.used.store(self.now(), Ordering::Relaxed);
                self.figures.hits.inc();
            }
            None => {
                self.figures.misses.inc();
            }
        }
        found
    }

    /// What is under a key, fetched where it is not at hand. A fault: it was never seen, and a store is down.
    pub async fn get(&self, key: &SchemaKey) -> Result<Arc<Entry>, Fault> {
        let stale = self.entries.load().get(key.as_str()).filter(|entry| entry.is_schema()).cloned();
        let Some(stale) = stale else { return self.fetch(key, false).await };
        if self.holds(&stale) {
            return Ok(stale);
        }
        match timeout(STALE_WAIT, self.fetch(key, false)).await {
            Ok(fetched) => fetched,
            Err(_) => {
                self.keep_on(&stale);
                Ok(stale)
            }
        }
    }

    /// Forgets one key, or all. What is forgotten is fetched when it is next asked for; how many there were.
    pub fn purge(&self, key: Option<&str>) -> usize {
        let before = self.entries.load().len();
        match key {
            None => self.change(HashMap::clear),
            Some(key) => self.change(|entries| drop(entries.remove(key))),
        }
        before - self.entries.load().len()
    }

    /// Fetches schemas that are about to be needed, then those in use before they are too old, until `stop`.
    pub async fn maintain(&self, warm_up: Vec<SchemaKey>, all: bool, stop: CancellationToken) {
        let work = async {
            self.warm_up(warm_up, all).await;
            let every = (self.limits.ttl / 10).clamp(Duration::from_millis(100), Duration::from_secs(30));
            loop {
                tokio::time::sleep(every).await;
                for key in self.soon_too_old() {
                    // What failed is in the log, and the schema is used on.
                    self.fetch(&key, true).await.ok();
                }
                self.measure();
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    async fn warm_up(&self, mut keys: Vec<SchemaKey>, all: bool) {
        if all {
            match self.chain.list(MAX_WARM).await {
                Ok(listed) => keys.extend(listed),
                Err(fault) => {
                    warn!(error = %fault, remedy = fault.remedy(), "the registry could not be listed; schemas are fetched as they are needed");
                }
            }
        }
        let wanted = keys.len();
        let mut brought = 0;
        for key in keys {
            match self.fetch(&key, false).await {
                Ok(entry) if entry.is_schema() => brought += 1,
                Ok(_) => warn!(schema = %key, "the registry has no such schema to warm up with"),
                Err(fault) => {
                    warn!(schema = %key, error = %fault, remedy = fault.remedy(), "a schema could not be fetched ahead; it is fetched when it is needed");
                }
            }
        }
        if wanted > 0 {
            info!(schemas = brought, "schemas fetched ahead");
        }
    }

    /// The schemas that are in use and past the point where they are fetched again.
    fn soon_too_old(&self) -> Vec<SchemaKey> {
        let now = self.now();
        let ahead = millis(self.limits.ttl) / 5 * 4;
        let due = |entry: &Arc<Entry>| {
            entry.is_schema()
                && now.saturating_sub(entry.fetched) >= ahead
                && entry.used.load(Ordering::Relaxed) > entry.fetched
                && now >= entry.retry.load(Ordering::Relaxed)
        };
        let entries = self.entries.load();
        entries.iter().filter(|(_, entry)| due(entry)).filter_map(|(key, _)| key.parse().ok()).collect()
    }

    /// One fetches, others wait for it and find what it brought. `anew`: also where it is at hand.
    async fn fetch(&self, key: &SchemaKey, anew: bool) -> Result<Arc<Entry>, Fault> {
        let flight = self.flights().entry(key.clone()).or_default().clone();
        let turn = flight.lock().await;
        let known = self.entries.load().get(key.as_str()).cloned();
        if let Some(known) = known.as_ref().filter(|known| !anew && self.holds(known)) {
            return Ok(known.clone());
        }
        let loaded = load(&self.chain, key).await;
        drop(turn);
        drop(flight);
        self.flights().retain(|_, flight| Arc::strong_count(flight) > 1);
        let known = known.filter(|known| known.is_schema());
        match (loaded, known) {
            (Ok(Loaded::Broken(why)), Some(known)) => {
                warn!(schema = %key, error = %why, "what the registry has now is no schema; the one before is used on");
                self.keep_on(&known);
                Ok(known)
            }
            (Ok(loaded), _) => Ok(self.insert(key, loaded)),
            (Err(fault), known) => {
                self.figures.errors.inc();
                let Some(known) = known else { return Err(fault) };
                warn!(schema = %key, error = %fault, remedy = fault.remedy(), "a schema could not be fetched again; the one at hand is used on");
                self.keep_on(&known);
                Ok(known)
            }
        }
    }

    fn insert(&self, key: &SchemaKey, loaded: Loaded) -> Arc<Entry> {
        let now = self.now();
        let entry = Entry { loaded, fetched: now, used: now.into(), retry: 0.into() };
        let entry = Arc::new(entry);
        self.change(|entries| {
            entries.insert(key.as_str().into(), entry.clone());
            make_room(entries, self.limits.max_bytes, key.as_str());
        });
        self.measure();
        entry
    }

    /// Changes a copy and puts it in place of what was there.
    fn change(&self, with: impl Fn(&mut Entries)) {
        self.entries.rcu(|entries| {
            let mut entries = Entries::clone(entries);
            with(&mut entries);
            entries
        });
    }

    fn keep_on(&self, entry: &Entry) {
        entry.retry.store(self.now() + millis(RETRY_STALE), Ordering::Relaxed);
    }

    fn holds(&self, entry: &Entry) -> bool {
        let now = self.now();
        let lifetime = if entry.is_schema() { self.limits.ttl } else { self.limits.negative_ttl };
        now.saturating_sub(entry.fetched) < millis(lifetime) || now < entry.retry.load(Ordering::Relaxed)
    }

    /// Sets the gauges.
    fn measure(&self) {
        let entries = self.entries.load();
        let schemas = entries.values().filter(|entry| entry.is_schema());
        let oldest = schemas.clone().map(|entry| self.now().saturating_sub(entry.fetched)).max();
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.figures.schemas.set(count(schemas.count()));
        self.figures.bytes.set(count(entries.values().map(|entry| entry.weight()).sum()));
        self.figures.oldest_seconds.set(i64::try_from(oldest.unwrap_or(0) / 1000).unwrap_or(i64::MAX));
    }

    fn now(&self) -> u64 {
        millis(self.began.elapsed())
    }

    fn flights(&self) -> std::sync::MutexGuard<'_, HashMap<SchemaKey, Arc<tokio::sync::Mutex<()>>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The schema, where there is one.
    pub fn schema(&self) -> Option<&Arc<Schema>> {
        match &self.loaded {
            Loaded::Schema(schema) => Some(schema),
            Loaded::NotThere | Loaded::Broken(_) => None,
        }
    }
}

/// Lets go what was used longest ago, first of what is no schema: keys that do not exist must not displace those that do.
fn make_room(entries: &mut Entries, max_bytes: usize, newest: &str) {
    let mut weight: usize = entries.values().map(|entry| entry.weight()).sum();
    if weight <= max_bytes {
        return;
    }
    let mut order: Vec<(bool, u64, Arc<str>)> = entries
        .iter()
        .map(|(key, entry)| (entry.is_schema(), entry.used.load(Ordering::Relaxed), key.clone()))
        .collect();
    order.sort_unstable();
    for (_, _, key) in order {
        if weight <= max_bytes {
            return;
        }
        if *key != *newest {
            weight -= entries.remove(&key).map_or(0, |entry| entry.weight());
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
