//! The daemon dies between writing and committing, and between committing and saying so.

use forebay_integration::{Daemon, Database, Postgres};

/// A daemon that copies one table of `shop` into a table of `copy`.
fn daemon(shop: &Database, copy: &Database, slot: &str) -> Daemon {
    let config = format!(
        "sources:
  shop:
    type: postgres
    url: {}
    tables: [public.orders]
    publication: {}
    slot: {slot}
    snapshot: never
destinations:
  copy:
    type: postgres
    url: {}
    batch: {{records: 10}}
",
        shop.url(),
        shop.name(),
        copy.url(),
    );
    Daemon::new(env!("CARGO_BIN_EXE_forebay-under-test"), &config)
}

/// Until what is inserted from now on is read.
async fn until_reading(shop: &Database, slot: &str) {
    let ready = format!(
        "select count(*) = 1 from pg_replication_slots
         where slot_name = '{slot}' and active and confirmed_flush_lsn is not null"
    );
    shop.wait_until(&ready).await;
}

async fn until_stored(copy: &Database, id: i32) {
    copy.wait_until("select to_regclass('forebay_events') is not null").await;
    let body = format!(r#"{{"payload": {{"id": {id}}}}}"#);
    copy.wait_until(&format!("select exists (select from forebay_events where body @> '{body}')")).await;
}

/// The insertion of each of the rows 1 to `last` is stored once, in order.
async fn assert_each_is_stored_once(copy: &Database, last: i32) {
    let ids = "select (body->'payload'->>'id')::int from forebay_events where op = 'insert' order by seq";
    let ids: Vec<i32> = copy.query(ids, &[]).await.iter().map(|row| row.get(0)).collect();
    let wrong = (1..=last).zip(ids.iter().copied()).find(|(wanted, there)| wanted != there);
    assert_eq!((ids.len(), wrong), (usize::try_from(last).unwrap(), None), "(wanted, there)");
}

/// The daemon dies when it reaches `step` for the third time; after a new start every row is there once, in order.
async fn dies_at(step: &str) {
    let server = Postgres::shared(15).await;
    let (shop, copy) = (server.database("shop").await, server.database("copy").await);
    shop.execute("create table orders (id int primary key)").await;
    let mut daemon = daemon(&shop, &copy, shop.name());
    daemon.set_env("FOREBAY_STEP", &format!("{step}:3"));
    daemon.start().await;
    until_reading(&shop, shop.name()).await;
    let mut made = 0;
    while daemon.is_running() {
        made += 1;
        shop.execute(&format!("insert into orders values ({made})")).await;
    }
    daemon.ended().await;
    assert!(daemon.stderr().contains(&format!("step `{step}` reached")), "{}", daemon.stderr());
    daemon.unset_env("FOREBAY_STEP");
    daemon.start().await;
    until_reading(&shop, shop.name()).await;
    made += 1;
    shop.execute(&format!("insert into orders values ({made})")).await;
    until_stored(&copy, made).await;
    assert_eq!(daemon.stop().await, 0, "{}", daemon.stderr());
    assert_each_is_stored_once(&copy, made).await;
    assert_eq!(copy.value::<i64>("select max(lease) from forebay_positions").await, 2);
}

#[tokio::test]
async fn a_daemon_killed_before_its_commit_leaves_each_event_once() {
    dies_at("postgres-destination-before-commit").await;
}

#[tokio::test]
async fn a_daemon_killed_after_its_commit_leaves_each_event_once() {
    dies_at("postgres-destination-after-commit").await;
}

#[tokio::test]
async fn a_daemon_whose_stream_another_one_writes_stops_and_says_so() {
    let server = Postgres::shared(15).await;
    let (shop, copy) = (server.database("shop").await, server.database("copy").await);
    shop.execute("create table orders (id int primary key)").await;
    let slots = [format!("{}_a", shop.name()), format!("{}_b", shop.name())];
    let [mut first, mut second] = slots.each_ref().map(|slot| daemon(&shop, &copy, slot));
    let mut made = 0;
    let mut one_more = async || {
        made += 1;
        shop.execute(&format!("insert into orders values ({made})")).await;
        made
    };
    first.start().await;
    until_reading(&shop, &slots[0]).await;
    until_stored(&copy, one_more().await).await;
    second.start().await;
    until_reading(&shop, &slots[1]).await;
    while first.is_running() {
        one_more().await;
    }
    assert_eq!(first.exit_code().await, 69, "{}", first.stderr());
    assert!(first.stderr().contains("another daemon has taken it over"), "{}", first.stderr());
    let last = one_more().await;
    until_stored(&copy, last).await;
    assert_eq!(second.stop().await, 0, "{}", second.stderr());
    assert_each_is_stored_once(&copy, last).await;
}
