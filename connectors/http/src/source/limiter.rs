//! [`Limiter`]: how many requests each client may make.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use tokio::time::{Duration, Instant};

use super::config::RateLimit;
use super::networks::masked;

/// How many clients are known at once. Where more come, those whose buckets are full again are forgotten; if there are
/// none, newcomers share one bucket.
const MAX_CLIENTS: usize = 65_536;
/// Going through all of them takes about a millisecond, which nobody shall cause with every request.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// A token bucket for each client.
#[derive(Debug)]
pub(super) struct Limiter {
    per_second: f64,
    burst: f64,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    of: HashMap<Option<IpAddr>, Bucket>,
    /// When those that are full again were last forgotten.
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Bucket {
    /// What was in it then.
    held: f64,
    then: Instant,
}

impl Limiter {
    /// As configured.
    pub(super) fn new(config: &RateLimit) -> Limiter {
        let burst = config.burst.unwrap_or(config.per_second);
        let (per_second, burst) = (f64::from(config.per_second.get()), f64::from(burst.get()));
        Limiter { per_second, burst, buckets: Mutex::default() }
    }

    /// Takes one request of a client; else how long it is until it has one.
    pub(super) fn take(&self, client: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let mut key = client.map(|client| masked(client, if client.is_ipv4() { 32 } else { 64 }));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.of.len() >= MAX_CLIENTS && !buckets.of.contains_key(&key) {
            if buckets.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_PAUSE) {
                buckets.of.retain(|_, bucket| self.held(bucket, now) < self.burst);
                buckets.swept = Some(now);
            }
            if buckets.of.len() >= MAX_CLIENTS {
                key = None;
            }
        }
        let bucket = buckets.of.entry(key).or_insert(Bucket { held: self.burst, then: now });
        let held = self.held(bucket, now);
        let left = held - 1.0;
        if left < 0.0 {
            return Err(Duration::from_secs_f64(-left / self.per_second));
        }
        *bucket = Bucket { held: left, then: now };
        Ok(())
    }

    fn held(&self, bucket: &Bucket, now: Instant) -> f64 {
        let flown = now.saturating_duration_since(bucket.then).as_secs_f64() * self.per_second;
        (bucket.held + flown).min(self.burst)
    }
}

/// Whole seconds, at least one: what `Retry-After` is written in.
pub(super) fn seconds(wait: Duration) -> NonZeroU32 {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    u32::try_from(whole).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_too_fast_waits_and_others_do_not() {
        let two = NonZeroU32::new(2).unwrap();
        let limiter = Limiter::new(&RateLimit { per_second: two, burst: NonZeroU32::new(3) });
        let (a, b) = (Some("1.2.3.4".parse().unwrap()), Some("1.2.3.5".parse().unwrap()));
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(limiter.take(a, start), Ok(()));
        }
        assert_eq!(limiter.take(a, start), Err(Duration::from_millis(500)));
        assert_eq!(limiter.take(b, start), Ok(()));
        assert_eq!(limiter.take(a, start + Duration::from_millis(500)), Ok(()));
        assert!(limiter.take(a, start + Duration::from_millis(500)).is_err());
        assert_eq!(seconds(Duration::from_millis(1)).get(), 1);
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let one = NonZeroU32::MIN;
        let limiter = Limiter::new(&RateLimit { per_second: one, burst: None });
        let now = Instant::now();
        assert_eq!(limiter.take(Some("2001:db8::1".parse().unwrap()), now), Ok(()));
        assert!(limiter.take(Some("2001:db8::2".parse().unwrap()), now).is_err());
    }

    #[test]
    fn however_many_clients_come_memory_is_bounded() {
        let limiter = Limiter::new(&RateLimit { per_second: NonZeroU32::MIN, burst: NonZeroU32::new(2) });
        let now = Instant::now();
        for n in 0..70_000u32 {
            let _ = limiter.take(Some(std::net::Ipv4Addr::from_bits(n).into()), now);
        }
        assert!(limiter.buckets.lock().unwrap().of.len() <= MAX_CLIENTS + 1);
        let later = now + Duration::from_secs(5);
        assert_eq!(limiter.take(Some("200.0.0.1".parse().unwrap()), later), Ok(()));
        assert_eq!(limiter.buckets.lock().unwrap().of.len(), 1);
    }
}
