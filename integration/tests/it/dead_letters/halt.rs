//! `on_poison: halt`, and letters that do not fit any more.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_halts_the_daemon_which_names_it_and_settles_nothing() {
    let mut copying = Copying::start(", on_poison: halt").await;
    copying.write(1, "a").await;
    copying.write(2, "poison").await;
    assert_eq!(copying.daemon.exit_code().await, 69);
    let said = copying.daemon.stderr();
    for part in [
        "delivering event `shop:",
        "with key `{\"id\":2}` to `copy`",
        "(refused)",
        "no_poison",
        "on_poison: halt",
    ] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    // It is met again at the next start: no position has moved past it.
    copying.daemon.spawn();
    assert_eq!(copying.daemon.exit_code().await, 69);
    assert!(!copying.daemon.path("data/dead_letters/copy").exists());
    copying.daemon.configure(&copying.config(", on_poison: dead_letter"));
    copying.begin().await;
    copying.letters(1.0).await;
    settled(&copying.shop, &mut copying.daemon).await;
    assert_eq!(copying.notes("twin", 2).await, ["poison"]);
    assert_adds_up(&copying.daemon, &["copy", "twin"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_destination_whose_letters_are_full_stops_and_goes_on_when_some_are_dropped() {
    let mut copying = Copying::start(", dead_letters: {max_bytes: 3KiB}, on_poison: block_key").await;
    copying.write(1, "poison").await;
    copying.letters(1.0).await;
    for n in 0..10 {
        copying.write(1, &format!("n{n}")).await;
    }
    assert_eq!(copying.daemon.exit_code().await, 69);
    let said = copying.daemon.stderr();
    assert!(said.contains("which is the cap") && said.contains("forebay dlq replay copy"), "{said}");
    copying.mend().await;
    // without a daemon, on the files
    let (said, _) = dlq(&copying.daemon, &["replay", "copy", "--all"], 0).await;
    assert!(said.contains(" 0 refused again, 0 left"), "{said}");
    copying.begin().await;
    settled(&copying.shop, &mut copying.daemon).await;
    let mut wanted = vec!["poison".to_owned()];
    wanted.extend((0..10).map(|n| format!("n{n}")));
    assert_eq!(copying.notes("forebay_events", 1).await, wanted);
    assert_adds_up(&copying.daemon, &["copy", "twin"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_best_effort_destination_whose_letters_are_full_counts_what_it_drops_and_holds_up_nobody() {
    let mut copying =
        Copying::start(", dead_letters: {max_bytes: 3KiB}, required: false, batch: {records: 1}").await;
    for id in 0..20 {
        copying.write(id, if id % 2 == 0 { "poison" } else { "a" }).await;
    }
    settled(&copying.shop, &mut copying.daemon).await;
    assert_adds_up(&copying.daemon, &["copy", "twin"]).await;
    let copy = [("destination", "copy")];
    let letters = copying.daemon.metric("forebay_dead_lettered_total", &copy).await.unwrap();
    let dropped = copying.daemon.metric("forebay_dropped_total", &copy).await.unwrap();
    assert!(letters > 0.0 && dropped > 0.0, "{letters} letters, {dropped} dropped");
    assert_eq!(letters + dropped, 10.0);
    copying.letters(letters).await;
    assert_eq!(copying.copy.value::<i64>("select count(*) from twin where op = 'insert'").await, 20);
}
