//! Where it begins and goes on, and what it refuses.

use rdkafka::admin::AdminOptions;
use rdkafka::{Offset, TopicPartitionList};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_tells_the_group_all_that_was_delivered_and_a_start_repeats_nothing() {
    let reading = Reading::new("restart", 2).await;
    reading.write(0, 0..500).await;
    reading.write(1, 0..300).await;
    let mut daemon = reading.daemon("");
    daemon.start().await;
    written(&mut daemon, 800).await;
    assert_eq!(daemon.stop().await, 0);
    assert_eq!(reading.topic.committed(&reading.group).await, BTreeMap::from([(0, 500), (1, 300)]));
    reading.write(0, 500..600).await;
    daemon.start().await;
    let all = written(&mut daemon, 900).await;
    let numbers = numbers(&all);
    assert_eq!(numbers[&0], (0..600).collect::<Vec<u64>>());
    assert_eq!(numbers[&1], (0..300).collect::<Vec<u64>>());
    assert_eq!(daemon.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_loses_nothing_and_repeats_in_order() {
    let reading = Reading::new("killed", 2).await;
    let mut daemon = reading.daemon("");
    for round in 0..4 {
        reading.write(0, round * 500..(round + 1) * 500).await;
        reading.write(1, round * 500..(round + 1) * 500).await;
        daemon.start().await;
        let already = events(&daemon).len();
        written(&mut daemon, already + 100).await;
        daemon.kill().await;
    }
    daemon.start().await;
    let path = daemon.path("out.ndjson");
    let ends = |numbers: &BTreeMap<i64, Vec<u64>>| {
        numbers.len() == 2 && numbers.values().all(|all| all.last() == Some(&1999))
    };
    daemon.wait_until("all is written", |_| ends(&numbers(&lines(&path)))).await;
    for (partition, numbers) in numbers(&events(&daemon)) {
        assert_in_order(partition, &numbers, 2000);
    }
    assert_eq!(daemon.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_group_is_not_told_of_what_no_destination_has() {
    let reading = Reading::new("undelivered", 1).await;
    let (_copy, line, destination) = table_behind_a_proxy().await;
    let mut daemon = Daemon::new(FOREBAY, &reading.config("", &destination));
    daemon.start().await;
    daemon.wait_until("it has its partition", |status| owned(status) == 1).await;
    line.pause();
    reading.write(0, 0..200).await;
    daemon.wait_until("all is read", |status| status["sources"][0]["events"] == 200).await;
    daemon.kill().await;
    let told = reading.topic.committed(&reading.group).await.get(&0).copied();
    assert!(told.is_none_or(|told| told == 0), "the group was told {told:?}, and nothing is delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_begins_with_what_comes_and_is_remembered() {
    let reading = Reading::new("latest", 1).await;
    reading.write(0, 0..100).await;
    let mut daemon = reading.daemon("    start: latest");
    daemon.start().await;
    daemon
        .wait_until("it stands at the end", |status| {
            status["sources"][0]["checkpoint"].to_string().contains(":100")
        })
        .await;
    daemon.kill().await;
    reading.write(0, 100..150).await;
    daemon.start().await;
    let events = written(&mut daemon, 50).await;
    assert_eq!(numbers(&events)[&0], (100..150).collect::<Vec<u64>>());
    assert_eq!(daemon.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_were_deleted_unread_stop_the_daemon() {
    let reading = Reading::new("retention", 1).await;
    reading.write(0, 0..100).await;
    let mut daemon = reading.daemon("");
    daemon.start().await;
    written(&mut daemon, 100).await;
    assert_eq!(daemon.stop().await, 0);
    reading.write(0, 100..200).await;
    let mut until = TopicPartitionList::new();
    until.add_partition_offset(reading.topic.name(), 0, Offset::Offset(150)).unwrap();
    let admin = Kafka::shared().await.admin();
    admin.delete_records(&until, &AdminOptions::new()).await.unwrap();
    daemon.spawn();
    assert_eq!(daemon.exit_code().await, 69);
    let said = daemon.stderr();
    assert!(said.contains("begins at 150, and 100 is next"), "{said}");
    assert!(said.contains("--reset-offsets"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_an_operator_sets_is_where_the_group_goes_on() {
    let reading = Reading::new("set", 1).await;
    reading.write(0, 0..100).await;
    let mut daemon = reading.daemon("");
    daemon.start().await;
    written(&mut daemon, 100).await;
    assert_eq!(daemon.stop().await, 0);
    let position = format!("{{\"version\":1,\"topics\":{{\"{}\":{{\"0\":60}}}}}}", reading.topic.name());
    let set =
        daemon.command(&["checkpoint", "set", "log", &position, "--yes", "--config", "forebay.yaml"]).await;
    assert!(set.status.success(), "{set:?}");
    daemon.start().await;
    let events = written(&mut daemon, 140).await;
    assert_eq!(numbers(&events)[&0], (0..100).chain(60..100).collect::<Vec<u64>>());
    assert_eq!(daemon.stop().await, 0);
    assert_eq!(reading.topic.committed(&reading.group).await[&0], 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_missing_stops_the_daemon_and_check_tells_it() {
    let reading = Reading::new("present", 1).await;
    let mut daemon = reading.daemon("");
    let config = std::fs::read_to_string(daemon.path("forebay.yaml")).unwrap();
    let good = daemon.command(&["check", "--config", "forebay.yaml"]).await;
    let told = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(good.status.success() && told.contains("has 1 partition(s)"), "{good:?}");
    assert!(told.contains("can be read and has no offsets yet"), "{told}");
    daemon.configure(&config.replace(reading.topic.name(), "nowhere_to_be_found"));
    let bad = daemon.command(&["check", "--config", "forebay.yaml"]).await;
    assert_eq!(bad.status.code(), Some(78), "{bad:?}");
    daemon.spawn();
    assert_eq!(daemon.exit_code().await, 78);
    assert!(daemon.stderr().contains("`nowhere_to_be_found`"), "{}", daemon.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_leaves_the_group_alone() {
    let reading = Reading::new("dry", 2).await;
    reading.write(1, 0..20).await;
    let mut daemon = reading.daemon("");
    daemon.start().await;
    written(&mut daemon, 20).await;
    assert_eq!(daemon.stop().await, 0);
    reading.write(1, 20..30).await;
    let arguments = ["run", "--dry-run", "--config", "forebay.yaml"];
    let mut dry = tokio::process::Command::new(FOREBAY);
    dry.args(arguments).current_dir(daemon.path("")).kill_on_drop(true).stdout(std::process::Stdio::piped());
    let mut child = dry.spawn().unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
    for number in 20..30 {
        let line = tokio::time::timeout(forebay_integration::PATIENCE, lines.next_line()).await.unwrap();
        let event: Value = serde_json::from_str(&line.unwrap().expect("an event")).unwrap();
        assert_eq!(event["payload"]["number"], number);
    }
    child.kill().await.unwrap();
    assert_eq!(reading.topic.committed(&reading.group).await[&1], 20);
}
