//! `forebay dlq` beside a running daemon and without one.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_shown_and_dropped_beside_a_daemon_and_without_one() {
    let mut copying = Copying::start("").await;
    assert_eq!(dlq(&copying.daemon, &["list"], 0).await.0, "there are no dead letters\n");
    for id in 1..=3 {
        copying.write(id, "poison").await;
    }
    copying.letters(3.0).await;
    let (listed, _) = dlq(&copying.daemon, &["list", "--destination", "copy"], 0).await;
    assert!(listed.starts_with("copy: 3 letters, ") && listed.contains("refused  3"), "{listed}");
    let (shown, _) =
        dlq(&copying.daemon, &["show", "copy", "--limit", "1", "--key", r#"{"id":2}"#, "--json"], 0).await;
    let letter: Value = serde_json::from_str(shown.trim()).unwrap();
    assert_eq!(
        (&letter["record"]["payload"]["id"], &letter["event"]["op"]),
        (&Value::from(2), &Value::from("insert"))
    );
    let (_, why) = dlq(&copying.daemon, &["show", "cpoy"], 78).await;
    assert!(why.contains("did you mean `copy`?"), "{why}");
    dlq(&copying.daemon, &["replay", "copy"], 78).await;

    let id = letter["id"].as_str().unwrap();
    let (_, why) = dlq(&copying.daemon, &["drop", "copy", "--id", id], 78).await;
    assert!(why.contains("1 letter of `copy` are given up") && why.contains("--yes"), "{why}");
    let (said, _) = dlq(&copying.daemon, &["drop", "copy", "--id", id, "--yes"], 0).await;
    assert_eq!(said, "1 letter of `copy` dropped\n");
    copying.letters(2.0).await;
    let dropped = copying.daemon.metric("forebay_dead_letters_dropped_total", &[("destination", "copy")]);
    assert_eq!(dropped.await, Some(1.0));
    assert_eq!(copying.daemon.stop().await, 0);

    dlq(&copying.daemon, &["drop", "copy", "--key", r#"{"id":1}"#, "--yes"], 0).await;
    let (said, _) = dlq(&copying.daemon, &["replay", "copy", "--all"], 69).await;
    assert_eq!(said, "1 letter of `copy`: 0 replayed, 1 refused again, 0 left\n");
    copying.mend().await;
    dlq(&copying.daemon, &["replay", "copy", "--all"], 0).await;
    assert_eq!(copying.notes("forebay_events", 3).await, ["poison"]);
    assert!(copying.notes("forebay_events", 1).await.is_empty());
    copying.begin().await;
    copying.letters(0.0).await;
}
