//! `dead_letters.to`: letters as events of another destination.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_handed_on_once_the_other_destination_takes_them() {
    let mut copying = Copying::new("").await;
    let elsewhere = Postgres::shared(15).await.database("refused").await;
    let config = copying.config(", dead_letters: {to: refused}");
    let refused = format!("  refused: {{type: postgres, url: \"{}\"}}\n", elsewhere.url());
    copying.daemon.configure(&(config + &refused));
    copying.begin().await;
    copying.refuse().await;
    elsewhere.wait_until("select to_regclass('forebay_events') is not null").await;
    elsewhere.execute("alter table forebay_events add constraint closed check (false)").await;
    copying.write(1, "poison").await;
    copying.write(2, "b").await;
    copying.letters(1.0).await;
    settled(&copying.shop, &mut copying.daemon).await;
    // Refused there too: it stays where it was.
    until_said(&mut copying.daemon, "dead letters are refused there too").await;
    assert_eq!(copying.daemon.stop().await, 0);
    assert_eq!(elsewhere.value::<i64>("select count(*) from forebay_events").await, 0);
    elsewhere.execute("alter table forebay_events drop constraint closed").await;

    copying.begin().await;
    copying.letters(0.0).await;
    let forwarded = copying.daemon.metric("forebay_dead_letters_forwarded_total", &[("destination", "copy")]);
    assert_eq!(forwarded.await, Some(1.0));
    let body: String = elsewhere.value("select body::text from forebay_events").await;
    let event: Value = serde_json::from_str(&body).unwrap();
    let schema = |text: &str| jsonschema::validator_for(&serde_json::from_str(text).unwrap()).unwrap();
    let found = schema(forebay::schemas::ENVELOPE).validate(&event).map_err(|error| error.to_string());
    found.unwrap_or_else(|error| panic!("{error}: {event:#}"));
    let found = schema(forebay::schemas::DEAD_LETTER).validate(&event["payload"]).map_err(|e| e.to_string());
    found.unwrap_or_else(|error| panic!("{error}: {event:#}"));
    assert_eq!(event["schema"], "forebay/dead_letter/1-0-0");
    assert_eq!((&event["op"], &event["key"]["id"]), (&Value::from("message"), &Value::from(1)));
    assert_eq!(event["payload"]["record"]["payload"]["note"], "poison");
    assert_eq!(event["payload"]["record"]["id"], event["payload"]["event_id"]);
    assert!(event["payload"]["chain"].to_string().contains("no_poison"), "{event:#}");
    assert_eq!(copying.daemon.get("/s/forebay/dead_letter/1-0-0").await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_while_letters_are_handed_on_loses_none_and_repeats_none_where_ids_are_unique() {
    let mut copying = Copying::new("").await;
    let elsewhere = Postgres::shared(15).await.database("refused").await;
    let refused = format!("  refused: {{type: postgres, url: \"{}\"}}\n", elsewhere.url());
    copying.daemon.configure(&(copying.config(", dead_letters: {to: refused}") + &refused));
    copying.begin().await;
    copying.refuse().await;
    for (id, step) in (1..).zip(REPLAY) {
        assert_eq!(copying.daemon.stop().await, 0);
        copying.daemon.set_env("FOREBAY_STEP", &format!("{step}:1"));
        copying.begin().await;
        copying.daemon.unset_env("FOREBAY_STEP");
        copying.write(id, "poison").await;
        copying.daemon.ended().await;
        let reached = format!("step `{step}` reached: aborting");
        assert!(copying.daemon.stderr().contains(&reached), "{}", copying.daemon.stderr());
        copying.begin().await;
        copying.write(100 + id, "a").await;
        elsewhere.wait_until(&format!("select count(*) = {id} from forebay_events")).await;
        settled(&copying.shop, &mut copying.daemon).await;
        copying.letters(0.0).await;
        assert_eq!(elsewhere.value::<i64>("select count(*) from forebay_events").await, i64::from(id));
        assert_adds_up(&copying.daemon, &["copy", "twin"]).await;
    }
}
