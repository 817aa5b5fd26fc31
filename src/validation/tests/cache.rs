use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::telemetry::SchemaFigures;

const A: &str = "com.acme/a/1-0-0";
const SECOND: Duration = Duration::from_secs(1);

fn limits() -> CacheLimits {
    CacheLimits { ttl: 60 * SECOND, negative_ttl: 5 * SECOND, max_bytes: 1 << 20 }
}

fn cache(store: &Arc<Scripted>) -> Arc<SchemaCache> {
    Arc::new(SchemaCache::new(store.chain(), limits(), SchemaFigures::default()))
}

fn with_a() -> Arc<Scripted> {
    Scripted::with(&[(A, json!({"type": "integer"}))])
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_at_once_fetch_once() {
    let store = with_a();
    let cache = cache(&store);
    let name = key(A);
    let all = join_all((0..100).map(|_| cache.get(&name))).await;
    assert!(all.into_iter().all(|entry| entry.unwrap().schema().is_some()));
    assert_eq!(store.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_schema_is_fetched_again_when_it_is_too_old() {
    let store = with_a();
    let cache = cache(&store);
    cache.get(&key(A)).await.unwrap();
    tokio::time::advance(59 * SECOND).await;
    assert!(cache.at_hand(A).is_some());
    tokio::time::advance(2 * SECOND).await;
    assert!(cache.at_hand(A).is_none());
    store.keep(A, r#"{"type": "string"}"#);
    let again = cache.get(&key(A)).await.unwrap();
    assert!(again.schema().unwrap().text.starts_with(br#"{"type": "string"}"#));
    assert_eq!(store.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_schema_that_was_seen_is_used_on_while_its_store_is_down() {
    let store = with_a();
    let cache = cache(&store);
    cache.get(&key(A)).await.unwrap();
    store.set_down(true);
    for _ in 0..100 {
        tokio::time::advance(600 * SECOND).await;
        assert!(cache.get(&key(A)).await.unwrap().schema().is_some());
    }
    store.set_down(false);
    store.remove(A);
    tokio::time::advance(600 * SECOND).await;
    assert!(
        matches!(cache.get(&key(A)).await.unwrap().loaded, Loaded::NotThere),
        "it is gone, and that is known"
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_holds_up_a_schema_that_was_seen_for_a_moment_only() {
    struct Hanging(Arc<Scripted>, Mutex<bool>);
    #[async_trait]
    impl SchemaStore for Hanging {
        async fn fetch(&self, key: &SchemaKey) -> Result<Option<Bytes>, Fault> {
            let hangs = *self.1.lock().unwrap();
            if hangs {
                std::future::pending::<()>().await;
            }
            self.0.fetch(key).await
        }
    }
    let store = Arc::new(Hanging(with_a(), Mutex::new(false)));
    let chain = Chain::new(vec![Link { name: "hanging".into(), store: store.clone() }]);
    let cache = SchemaCache::new(chain, limits(), SchemaFigures::default());
    cache.get(&key(A)).await.unwrap();
    *store.1.lock().unwrap() = true;
    tokio::time::advance(600 * SECOND).await;
    let began = tokio::time::Instant::now();
    assert!(cache.get(&key(A)).await.unwrap().schema().is_some());
    assert_eq!(began.elapsed(), SECOND);
    assert!(cache.at_hand(A).is_some(), "the next one does not wait");
    let fault = cache.get(&key("com.acme/b/1-0-0")).await.unwrap_err();
    assert!(fault.is_retryable() && fault.to_string().contains("no answer within"), "{fault}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_not_one_without_the_schema() {
    let store = with_a();
    store.set_down(true);
    let cache = cache(&store);
    assert!(cache.get(&key(A)).await.is_err());
    assert!(cache.at_hand(A).is_none(), "nothing is concluded from it");
    store.set_down(false);
    assert!(cache.get(&key(A)).await.unwrap().schema().is_some());
}

#[tokio::test(start_paused = true)]
async fn that_a_schema_is_not_there_is_known_for_a_while_and_never_from_a_store_that_is_down() {
    let store = Scripted::with(&[]);
    let cache = cache(&store);
    for _ in 0..10 {
        assert!(matches!(cache.get(&key(A)).await.unwrap().loaded, Loaded::NotThere));
    }
    assert_eq!(store.fetches(), 1);
    tokio::time::advance(6 * SECOND).await;
    store.set_down(true);
    assert!(cache.get(&key(A)).await.is_err(), "it may have been put there meanwhile");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_schema_any_more_does_not_take_the_place_of_one() {
    let store = with_a();
    let cache = cache(&store);
    cache.get(&key(A)).await.unwrap();
    store.keep(A, r#"{"status": 500, "message": "Internal Server Error"}"#);
    tokio::time::advance(600 * SECOND).await;
    assert!(cache.get(&key(A)).await.unwrap().schema().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_schema_in_use_is_fetched_ahead_and_never_waited_for() {
    let store = with_a();
    let cache = cache(&store);
    let stop = CancellationToken::new();
    let maintaining = {
        let (cache, stop) = (cache.clone(), stop.clone());
        tokio::spawn(async move { cache.maintain(vec![key(A)], false, stop).await })
    };
    while store.fetches() == 0 {
        tokio::time::sleep(SECOND / 10).await;
    }
    tokio::time::sleep(SECOND).await;
    for _ in 0..600 {
        tokio::time::sleep(SECOND).await;
        assert!(cache.at_hand(A).is_some());
    }
    assert!((10..=14).contains(&store.fetches()), "{}", store.fetches());
    let before = store.fetches();
    tokio::time::sleep(600 * SECOND).await;
    assert!(store.fetches() <= before + 1, "one that nobody uses is not");
    stop.cancel();
    maintaining.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_keys_that_do_not_exist_displaces_no_schema() {
    let store = with_a();
    let limits = CacheLimits { max_bytes: 32 << 10, ..limits() };
    let cache = SchemaCache::new(store.chain(), limits, SchemaFigures::default());
    cache.get(&key(A)).await.unwrap();
    for n in 0..1000 {
        cache.get(&key(&format!("com.evil/x/1-0-{n}"))).await.unwrap();
    }
    assert!(cache.at_hand(A).is_some());
    assert!(cache.purge(None) <= 64);
}

#[tokio::test(start_paused = true)]
async fn what_is_purged_is_fetched_anew() {
    let store = with_a();
    let cache = cache(&store);
    cache.get(&key(A)).await.unwrap();
    assert_eq!(cache.purge(Some("com.acme/b/1-0-0")), 0);
    assert_eq!(cache.purge(Some(A)), 1);
    assert!(cache.at_hand(A).is_none());
}

#[tokio::test]
async fn the_first_store_that_has_a_schema_wins_and_one_that_is_down_stops_the_search() {
    let first = Scripted::with(&[]);
    let second = with_a();
    let link = |store: &Arc<Scripted>| Link { name: "x".into(), store: store.clone() };
    let chain = Chain::new(vec![link(&first), link(&second)]);
    assert!(chain.fetch(&key(A)).await.unwrap().is_some());
    first.set_down(true);
    assert!(chain.fetch(&key(A)).await.is_err(), "the first might have had another one");
    first.set_down(false);
    first.keep(A, r#"{"type": "null"}"#);
    assert_eq!(chain.fetch(&key(A)).await.unwrap().unwrap(), r#"{"type": "null"}"#);
    first.set_down(true);
    assert!(
        chain.fetch(&key("io.forebay/arbitrary/1-0-0")).await.unwrap().is_some(),
        "ours are always there"
    );
}
