//! Several daemons, one group.

use std::time::Duration;

use forebay_integration::Signal;
use tokio::time::{Instant, sleep};

use super::*;

/// How long what is left of a killed daemon may keep its partitions, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Whether each number of each partition is in some file.
fn is_complete(daemons: &[&Daemon], partitions: i64, count: u64) -> bool {
    let mut found: BTreeMap<i64, std::collections::BTreeSet<u64>> = BTreeMap::new();
    for daemon in daemons {
        for (partition, all) in numbers(&events(daemon)) {
            found.entry(partition).or_default().extend(all);
        }
    }
    (0..partitions)
        .all(|partition| found.get(&partition).is_some_and(|all| u64::try_from(all.len()).unwrap() == count))
}

async fn until_complete(daemons: &[&Daemon], partitions: i64, count: u64) {
    let deadline = Instant::now() + LIMIT;
    while !is_complete(daemons, partitions, count) {
        if Instant::now() >= deadline {
            let said: Vec<String> = daemons.iter().map(|daemon| daemon.stderr()).collect();
            panic!("not complete after {LIMIT:?}\n{}", said.join("\n--\n"));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_takes_a_share_and_nothing_is_repeated_or_lost() {
    let reading = Reading::new("share", 4).await;
    for partition in 0..4 {
        reading.write(partition, 0..200).await;
    }
    let (mut first, mut second) = (reading.daemon(""), reading.daemon(""));
    first.start().await;
    written(&mut first, 800).await;
    second.start().await;
    let owns_two = |status: &Value| owned(status) == 2;
    second.wait_until("the second has a share", owns_two).await;
    first.wait_until("the first has given it", owns_two).await;
    for partition in 0..4 {
        reading.write(partition, 200..400).await;
    }
    until_complete(&[&first, &second], 4, 400).await;
    assert_eq!(first.stop().await, 0);
    assert_eq!(second.stop().await, 0);
    let all: Vec<Value> = events(&first).into_iter().chain(events(&second)).collect();
    assert_eq!(all.len(), 1600, "partitions that are handed over in good order repeat nothing");
    for (partition, numbers) in numbers(&all) {
        assert_in_order(partition, &numbers, 400);
    }
    assert!(numbers(&events(&second)).len() == 2, "the second has delivered of two partitions");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_daemon_is_killed_another_goes_on_where_it_was() {
    let reading = Reading::new("heir", 4).await;
    let (mut first, mut second) = (reading.daemon(""), reading.daemon(""));
    first.start().await;
    second.start().await;
    for round in 0..3 {
        for partition in 0..4 {
            reading.write(partition, round * 250..round * 250 + 200).await;
        }
        first.kill().await;
        for partition in 0..4 {
            reading.write(partition, round * 250 + 200..(round + 1) * 250).await;
        }
        first.start().await;
    }
    until_complete(&[&first, &second], 4, 750).await;
    assert_eq!(first.stop().await, 0);
    assert_eq!(second.stop().await, 0);
}

/// It may hold up the group for half of what the group waits, and not longer; then nothing of what it holds is delivered
/// by it any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_destination_hangs_gives_its_partitions_up_in_time() {
    let reading = Reading::new("stuck", 2).await;
    let (copy, line, destination) = table_behind_a_proxy().await;
    let mut first = Daemon::new(FOREBAY, &reading.config("", &destination));
    let mut second = Daemon::new(FOREBAY, &reading.config("", &table(copy.url())));
    first.start().await;
    first.wait_until("it has all partitions", |status| owned(status) == 2).await;
    line.pause();
    for partition in 0..2 {
        reading.write(partition, 0..200).await;
    }
    first.wait_until("all is read", |status| status["sources"][0]["events"] == 400).await;
    second.start().await;
    second.wait_until("it has its share", |status| owned(status) == 1).await;
    assert!(
        first.stderr().contains("did not drain before the group wants its partitions"),
        "{}",
        first.stderr()
    );
    line.resume();
    copy.wait_until("select count(*) = 400 from forebay_events").await;
    assert_eq!(first.stop().await, 0);
    assert_eq!(second.stop().await, 0);
    let rows = copy
        .query(
            "select (body->'source'->>'partition')::bigint, (body->'payload'->>'number')::bigint \
             from forebay_events order by seq",
            &[],
        )
        .await;
    let mut numbers: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    rows.iter().for_each(|row| numbers.entry(row.get(0)).or_default().push(row.get(1)));
    for partition in 0..2 {
        assert_eq!(numbers[&partition], (0..200).collect::<Vec<i64>>(), "of partition {partition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_loses_its_partitions_and_comes_back() {
    let reading = Reading::new("hangs", 2).await;
    let (mut first, mut second) = (reading.daemon(""), reading.daemon(""));
    first.start().await;
    for partition in 0..2 {
        reading.write(partition, 0..100).await;
    }
    written(&mut first, 200).await;
    first.signal(Signal::STOP);
    second.start().await;
    for partition in 0..2 {
        reading.write(partition, 100..200).await;
    }
    until_complete(&[&first, &second], 2, 200).await;
    first.signal(Signal::CONT);
    let shares = |status: &Value| owned(status) == 1;
    first.wait_until("the first is a member again", shares).await;
    for partition in 0..2 {
        reading.write(partition, 200..300).await;
    }
    until_complete(&[&first, &second], 2, 300).await;
    assert!(first.stderr().contains("has given our partitions to others"), "{}", first.stderr());
    assert_eq!(first.stop().await, 0);
    assert_eq!(second.stop().await, 0);
}
