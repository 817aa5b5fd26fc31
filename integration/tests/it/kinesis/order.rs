//! Order per key, where the service writes some records of a call and refuses others.

use std::collections::HashMap;

use super::*;

/// `count` events, over so many keys in turn; the record says key and number.
fn events(count: usize, keys: usize) -> Arc<Batch> {
    let keys: Vec<String> = (0..keys).map(|key| format!("{{\"id\":{key}}}")).collect();
    let events: Vec<(&str, String)> = (0..count)
        .map(|number| (keys[number % keys.len()].as_str(), format!("{{\"n\":{number}}}")))
        .collect();
    batch("orders", &events)
}

fn number(data: &str) -> usize {
    serde_json::from_str::<Value>(data).unwrap()["n"].as_u64().unwrap().try_into().unwrap()
}

/// The numbers of the records of each key, in the order they stand in the stream.
async fn stored(stream: &Stream) -> HashMap<String, Vec<usize>> {
    let mut stored: HashMap<String, Vec<usize>> = HashMap::new();
    for put in stream.all().await {
        let number = number(std::str::from_utf8(&put.data).unwrap());
        stored.entry(put.key).or_default().push(number);
    }
    stored
}

/// What the lane does after a fault: what is accepted behind an open record of its key comes again.
fn reopen_successors(progress: &mut Progress, count: usize, keys: usize) {
    for number in 0..count {
        let behind_open =
            (0..number).any(|before| before % keys == number % keys && progress.of(before) == Settled::Open);
        if behind_open {
            progress.reopen(number);
        }
    }
}

/// Delivers until all is accepted, as a lane does; how many attempts it took.
async fn deliver(to: &dyn Destination, batch: &Arc<Batch>, count: usize, keys: usize) -> usize {
    let mut progress = Progress::new(count);
    for attempts in 1.. {
        let (after, result) = attempt(to, batch, progress).await;
        progress = after;
        match result {
            Ok(()) => {
                assert_eq!(progress.open(), 0);
                return attempts;
            }
            Err(fault) => assert!(fault.is_retryable(), "{fault:?}"),
        }
        reopen_successors(&mut progress, count, keys);
    }
    unreachable!("it is delivered in the end")
}

/// Fails some records at their first attempt.
fn fail_at_first(faults: &KinesisFaults, which: impl Fn(usize) -> bool + Send + 'static) {
    let mut failed = std::collections::HashSet::new();
    faults.fail_records(move |data| {
        let number = number(data);
        (which(number) && failed.insert(number)).then_some(THROTTLED)
    });
}

#[tokio::test]
async fn no_record_is_written_before_an_earlier_one_of_its_key_that_was_refused() {
    let (faults, stream) = stream("strict").await;
    let to = destination(config(faults.port(), stream.name(), json!({})));
    fail_at_first(&faults, |number| number % 7 == 3 || number == 0);
    let attempts = deliver(&*to, &events(60, 5), 60, 5).await;
    assert!(attempts > 5, "{attempts}");
    for (key, numbers) in stored(&stream).await {
        // Each once, since nothing that was written had to come again.
        assert!(numbers.is_sorted_by(|a, b| a < b) && numbers.len() == 12, "{key}: {numbers:?}");
    }
    for call in faults.calls() {
        let mut keys: Vec<&String> = call.records.iter().map(|(key, ..)| key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), call.records.len(), "two records of one key in a call: {call:?}");
    }
}

#[tokio::test]
async fn only_what_was_refused_is_sent_again() {
    let (faults, stream) = stream("only_failed").await;
    let to = destination(config(faults.port(), stream.name(), json!({})));
    fail_at_first(&faults, |number| number % 10 == 0);
    // Each has a key of its own, so that none is behind another.
    assert_eq!(deliver(&*to, &events(100, 100), 100, 100).await, 2);
    let sent: Vec<usize> = faults.calls().iter().map(|call| call.records.len()).collect();
    assert_eq!(sent, [100, 10]);
    assert_eq!(stream.all().await.len(), 100);
}

#[tokio::test]
async fn with_eventual_order_a_repeat_is_followed_again_by_all_its_successors() {
    let (faults, stream) = stream("eventual").await;
    let to = destination(config(faults.port(), stream.name(), json!({"order": "eventual"})));
    fail_at_first(&faults, |number| number == 1);
    assert_eq!(deliver(&*to, &events(6, 1), 6, 1).await, 2);
    let numbers = stored(&stream).await.remove("{\"id\":0}").unwrap();
    assert_eq!(numbers, [0, 2, 3, 4, 5, 1, 2, 3, 4, 5]);
    assert_eq!(faults.calls().len(), 2);
}

#[tokio::test]
async fn more_records_than_a_call_takes_are_cut_and_keep_their_order() {
    let (faults, stream) = stream("cut").await;
    let to = destination(config(faults.port(), stream.name(), json!({})));
    deliver(&*to, &events(1400, 700), 1400, 700).await;
    assert_eq!(faults.calls().iter().map(|call| call.records.len()).max(), Some(500));
    for (key, numbers) in stored(&stream).await {
        assert!(numbers.len() == 2 && numbers[0] < numbers[1], "{key}: {numbers:?}");
    }
}
