//! A whole daemon that posts to a receiver.

use forebay_integration::{Daemon, Postgres};

use super::*;

const PROGRAM: &str = env!("CARGO_BIN_EXE_forebay-under-test");

#[tokio::test]
async fn a_daemon_posts_what_a_receiver_likes_and_keeps_what_it_does_not_as_a_dead_letter() {
    let receiver = Receiver::start().await;
    receiver.dislike("disliked");
    let database = Postgres::shared(18).await.database("http").await;
    database.execute("create table orders (id int primary key, note text)").await;
    let yaml = format!(
        "sources:\n  shop: {{type: postgres, url: \"{}\", slot: {}, tables: [public.orders]}}\n\
         destinations:\n  hook: {{type: http, url: \"{}\", headers: {{X-Key: \"${{HOOK_KEY}}\"}}, signature: {{secret: s}}}}\n",
        database.url(),
        database.name(),
        receiver.url("/in")
    );
    let mut daemon = Daemon::new(PROGRAM, &yaml);
    daemon.set_env("HOOK_KEY", "a-secret-key");
    let checked = daemon.command(&["check"]).await;
    let text =
        String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(text.contains("answers a HEAD with status 200"), "{text}");
    daemon.start().await;
    receiver.answer_next(Reply::new(503, "not yet"));
    database.execute("insert into orders values (1, 'liked'), (2, 'disliked'), (3, 'liked')").await;
    daemon
        .wait_until("two events are taken and one is a letter", |_| {
            let inserted = receiver.taken().iter().filter(|event| event.contains("\"liked\"")).count();
            inserted == 2
        })
        .await;
    let arrived = receiver.arrived();
    let posts = arrived.iter().filter(|arrived| arrived.method == "POST");
    for post in posts {
        assert_eq!(post.header("x-key"), Some("a-secret-key"));
        assert!(verifies("s", post.header("x-forebay-signature").unwrap(), &post.body));
    }
    assert_eq!(daemon.stop().await, 0);
    let letters = daemon.command(&["dlq", "list"]).await;
    let letters = String::from_utf8_lossy(&letters.stdout).into_owned();
    assert!(letters.contains("refused"), "{letters}");
    assert!(!daemon.stderr().contains("a-secret-key"), "{}", daemon.stderr());
}
