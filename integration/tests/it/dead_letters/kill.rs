//! The daemon dies at every step of storing, replaying and settling letters.

use super::*;

/// The steps of what an operator asks for.
pub(crate) const REPLAY: [&str; 3] = ["dead-letter-delivered", "dead-letter-settled", "dead-letters-removed"];

/// The steps of storing a letter.
const STORE: [&str; 3] = ["dead-letter-written", "dead-letter-synced", "buried"];

fn died_at(copying: &Copying, step: &str) {
    let reached = format!("step `{step}` reached: aborting");
    assert!(copying.daemon.stderr().contains(&reached), "{}", copying.daemon.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_at_any_step_of_a_replay_loses_nothing_and_keeps_the_order_of_a_key() {
    let mut copying = Copying::start(", on_poison: block_key").await;
    let mut wanted = Vec::new();
    for (round, step) in REPLAY.into_iter().enumerate() {
        for note in ["poison".to_owned(), format!("{round} b"), format!("{round} c")] {
            copying.write(1, &note).await;
            wanted.push(note);
        }
        copying.letters(3.0).await;
        settled(&copying.shop, &mut copying.daemon).await;
        assert_adds_up(&copying.daemon, &["copy", "twin"]).await;
        assert_eq!(copying.daemon.stop().await, 0);
        copying.mend().await;
        copying.daemon.set_env("FOREBAY_STEP", &format!("{step}:1"));
        copying.begin().await;
        copying.daemon.unset_env("FOREBAY_STEP");
        dlq(&copying.daemon, &["replay", "copy", "--all"], 69).await;
        copying.daemon.ended().await;
        died_at(&copying, step);
        copying.begin().await;
        dlq(&copying.daemon, &["replay", "copy", "--all"], 0).await;
        copying.letters(0.0).await;
        assert_eq!(copying.notes("forebay_events", 1).await, wanted, "{step}");
        copying.copy.execute("delete from forebay_events; delete from twin").await;
        wanted.clear();
        copying.refuse().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_at_any_step_of_storing_a_letter_lets_nothing_of_its_key_overtake_it() {
    for (step, nth) in STORE.iter().flat_map(|step| [(step, 1), (step, 2)]) {
        let mut copying = Copying::new(", on_poison: block_key").await;
        copying.daemon.set_env("FOREBAY_STEP", &format!("{step}:{nth}"));
        copying.begin().await;
        copying.refuse().await;
        copying.daemon.unset_env("FOREBAY_STEP");
        for (id, note) in [(1, "poison"), (1, "b"), (2, "x"), (1, "c")] {
            copying.write(id, note).await;
        }
        copying.daemon.ended().await;
        died_at(&copying, step);
        copying.begin().await;
        copying.letters(3.0).await;
        settled(&copying.shop, &mut copying.daemon).await;
        assert!(copying.notes("forebay_events", 1).await.is_empty(), "{step}");
        assert_adds_up(&copying.daemon, &["copy", "twin"]).await;
        copying.mend().await;
        dlq(&copying.daemon, &["replay", "copy", "--all"], 0).await;
        assert_eq!(copying.notes("forebay_events", 1).await, ["poison", "b", "c"], "{step}");
        assert_eq!(copying.notes("forebay_events", 2).await, ["x"], "{step}");
    }
}
