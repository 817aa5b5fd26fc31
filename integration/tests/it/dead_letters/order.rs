//! Refused values at a PostgreSQL table: what flows, what waits, and how it arrives in the end.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_of_a_refused_value_flow_and_it_arrives_by_a_replay_as_if_it_never_had_been_refused() {
    let mut copying = Copying::start("").await;
    for (id, note) in [(1, "a"), (2, "poison"), (3, "c"), (2, "d"), (4, "poison")] {
        copying.write(id, note).await;
    }
    copying.letters(2.0).await;
    settled(&copying.shop, &mut copying.daemon).await;
    assert_eq!(copying.notes("forebay_events", 1).await, ["a"]);
    assert_eq!(copying.notes("forebay_events", 2).await, ["d"], "later events of the key flow too");
    assert_adds_up(&copying.daemon, &["copy", "twin"]).await;

    copying.mend().await;
    let (said, _) = dlq(&copying.daemon, &["replay", "copy", "--all"], 0).await;
    assert_eq!(said, "2 letters of `copy`: 2 replayed, 0 refused again, 0 left\n");
    copying.letters(0.0).await;
    let columns = "id, source, schema, name, op, time, received, valid, key, body, digest";
    let differ = format!(
        "select count(*) from (select {columns} from forebay_events except select {columns} from twin) d"
    );
    assert_eq!(copying.copy.value::<i64>(&differ).await, 0);
    let counts = "select (select count(*) from forebay_events) = (select count(*) from twin)";
    assert!(copying.copy.value::<bool>(counts).await);

    // What is written afterwards is neither struck off nor out of order, over a restart too.
    copying.write(5, "e").await;
    settled(&copying.shop, &mut copying.daemon).await;
    assert_adds_up(&copying.daemon, &["copy", "twin"]).await;
    let replayed = copying.daemon.metric("forebay_dead_letters_replayed_total", &[("destination", "copy")]);
    assert_eq!(replayed.await, Some(2.0));
    assert_eq!(copying.daemon.stop().await, 0);
    copying.begin().await;
    copying.write(5, "f").await;
    settled(&copying.shop, &mut copying.daemon).await;
    assert_eq!(copying.notes("forebay_events", 5).await, ["e", "f"]);
    assert_adds_up(&copying.daemon, &["copy", "twin"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_key_keeps_its_order_over_a_replay_while_live_events_come() {
    let mut copying = Copying::start(", on_poison: block_key").await;
    for (id, note) in [(1, "a"), (2, "a"), (1, "poison"), (1, "b"), (2, "b"), (1, "c")] {
        copying.write(id, note).await;
    }
    copying.letters(3.0).await;
    settled(&copying.shop, &mut copying.daemon).await;
    assert_eq!(copying.notes("forebay_events", 1).await, ["a"]);
    assert_eq!(copying.notes("forebay_events", 2).await, ["a", "b"], "another key flows");
    assert_adds_up(&copying.daemon, &["copy", "twin"]).await;

    let (said, _) = dlq(&copying.daemon, &["list", "--json"], 0).await;
    let listed: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(listed["copy"]["reasons"], serde_json::json!({"blocked": 2, "refused": 1}));
    assert_eq!(listed["copy"]["keys"], serde_json::json!([[r#"public.orders {"id":1}"#, 3]]));

    // Refused again: nothing overtakes it.
    let (said, why) = dlq(&copying.daemon, &["replay", "copy", "--reason", "refused"], 69).await;
    assert_eq!(said, "3 letters of `copy`: 0 replayed, 1 refused again, 2 left\n");
    assert!(why.contains("an older letter of their key comes first"), "{why}");
    assert_eq!(copying.notes("forebay_events", 1).await, ["a"]);

    // A restart knows what is blocked before it delivers anything.
    copying.daemon.kill().await;
    copying.write(1, "d").await;
    copying.begin().await;
    copying.letters(4.0).await;

    copying.mend().await;
    let live = async {
        for n in 0..50 {
            copying.write(1, &format!("live {n}")).await;
        }
    };
    let (_, (said, _)) = tokio::join!(live, dlq(&copying.daemon, &["replay", "copy", "--all"], 0));
    assert!(said.contains(" 0 refused again, 0 left"), "{said}");
    copying.letters(0.0).await;
    settled(&copying.shop, &mut copying.daemon).await;
    let mut wanted = ["a", "poison", "b", "c", "d"].map(str::to_owned).to_vec();
    wanted.extend((0..50).map(|n| format!("live {n}")));
    assert_eq!(copying.notes("forebay_events", 1).await, wanted);
    assert_eq!(copying.notes("twin", 1).await, wanted);
    assert_adds_up(&copying.daemon, &["copy", "twin"]).await;
    assert_eq!(copying.daemon.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_truncation_blocks_its_table_until_it_is_replayed() {
    let mut copying = Copying::new(", on_poison: block_key").await;
    copying.begin().await;
    copying
        .copy
        .execute("alter table forebay_events add constraint no_poison check (op <> 'truncate')")
        .await;
    copying.write(1, "a").await;
    copying.shop.execute("truncate orders").await;
    copying.write(1, "b").await;
    copying.write(2, "c").await;
    copying.letters(3.0).await;
    settled(&copying.shop, &mut copying.daemon).await;
    assert_eq!(copying.notes("forebay_events", 1).await, ["a"]);
    copying.mend().await;
    dlq(&copying.daemon, &["replay", "copy", "--all"], 0).await;
    let ops = "select string_agg(op, ' ' order by seq) from forebay_events where op <> 'schema'";
    assert_eq!(copying.copy.value::<String>(ops).await, "insert truncate insert insert");
    assert_adds_up(&copying.daemon, &["copy", "twin"]).await;
}
