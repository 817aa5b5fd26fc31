//! Deaths in the middle of a copy: it goes on where it was, and nothing is missing.

use forebay_integration::{Database, Postgres, Replica};

use super::writers::Writers;
use super::{Copying, is_copied, is_over, items};

/// The steps of a copy, in the order in which one chunk comes by.
pub(super) const STEPS: [&str; 4] =
    ["snapshot-read", "snapshot-watermark", "snapshot-sent", "snapshot-stored"];

/// Many chunks.
const ROWS: u32 = 20_000;

/// Starts the daemon, which dies when it reaches `step` for the `nth` time. Whether it did: it may have finished first.
async fn dies_at(copying: &mut Copying, step: &str, nth: u32) -> bool {
    copying.daemon.set_env("FOREBAY_STEP", &format!("{step}:{nth}"));
    copying.start_or_die().await;
    copying.daemon.unset_env("FOREBAY_STEP");
    loop {
        if !copying.daemon.is_running() {
            copying.daemon.ended().await;
            let reached = format!("step `{step}` reached: aborting");
            assert!(copying.daemon.stderr().contains(&reached), "{}", copying.daemon.stderr());
            return true;
        }
        if let Some((200, status)) = copying.daemon.get("/status").await
            && is_over(&serde_json::from_str(&status).unwrap())
        {
            // What ends a copy may be the step itself, a moment after it is seen to be over: a life without it follows.
            copying.daemon.kill().await;
            copying.start().await;
            return false;
        }
        tokio::time::sleep(super::ASK_PAUSE).await;
    }
}

async fn expect_all(copying: &mut Copying, db: &Database) -> Replica {
    let replica = copying.finished(db).await;
    replica.expect_table(db, "public.items").await;
    replica
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_at_any_step_of_the_copy_loses_nothing_while_everybody_writes() {
    for (major, step, nth) in [15, 18]
        .into_iter()
        .flat_map(|major| STEPS.map(|step| (major, step)))
        .zip([1, 3].into_iter().cycle())
        .map(|((major, step), nth)| (major, step, nth))
    {
        eprintln!("PostgreSQL {major}, {step}:{nth}");
        let db = Postgres::shared(major).await.database("steps").await;
        items(&db, ROWS).await;
        let mut copying = Copying::of(&db, "public.items", "");
        let writers = Writers::start(&db, ROWS, 2).await;
        assert!(dies_at(&mut copying, step, nth).await, "the copy was over before `{step}` came {nth} times");
        copying.start().await;
        copying.copied().await;
        writers.stop().await;
        expect_all(&mut copying, &db).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_killed_in_every_chunk_goes_on_and_ends() {
    let db = Postgres::shared(15).await.database("chunks").await;
    items(&db, ROWS).await;
    let mut copying = Copying::of(&db, "public.items", "");
    let mut deaths = 0;
    while dies_at(&mut copying, "snapshot-stored", 1).await {
        deaths += 1;
        db.execute(&format!("UPDATE items SET version = {deaths} WHERE id % 100 = {deaths}")).await;
    }
    let replica = expect_all(&mut copying, &db).await;
    let twice = replica.copied_events() - replica.copied_ids();
    eprintln!("{deaths} deaths, {} rows, {twice} repeats", replica.copied_ids());
    assert!(deaths >= 3, "{deaths} deaths prove little");
    // Of each life the chunks that were in flight may come again, and no others.
    let chunk = u64::from(ROWS) / deaths;
    assert!(twice <= 2 * 2 * chunk * deaths, "{twice} of {ROWS} rows came again after {deaths} deaths");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_copied_before_a_kill_is_not_copied_from_the_beginning() {
    let db = Postgres::shared(15).await.database("progress").await;
    items(&db, ROWS).await;
    let mut copying = Copying::of(&db, "public.items", "    snapshot_parallel: 1");
    let half = ROWS as usize / 2;
    copying.start().await;
    copying.wait_for(half, "half of the table", is_copied).await;
    copying.daemon.kill().await;
    copying.start().await;
    let replica = expect_all(&mut copying, &db).await;
    let twice = replica.copied_events() - replica.copied_ids();
    assert_eq!(replica.copied_ids(), u64::from(ROWS), "each row has one id");
    assert!(twice < u64::from(ROWS) / 4, "{twice} of {ROWS} rows came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_over_stays_over() {
    let db = Postgres::shared(15).await.database("over").await;
    items(&db, 1000).await;
    let mut copying = Copying::of(&db, "public.items", "");
    copying.start().await;
    expect_all(&mut copying, &db).await;
    copying.daemon.kill().await;
    copying.start().await;
    db.execute("UPDATE items SET version = 1").await;
    assert_eq!(expect_all(&mut copying, &db).await.copied_events(), 1000);
    assert_eq!(copying.daemon.stop().await, 0);
    copying.start().await;
    assert_eq!(expect_all(&mut copying, &db).await.copied_events(), 1000);
}
