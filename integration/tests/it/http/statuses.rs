//! What follows from what a receiver answers.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn every_2xx_accepts_all_of_a_request_but_the_one_that_says_it_took_some() {
    let receiver = Receiver::start().await;
    let to = destination(&receiver.url("/"), json!({}));
    for status in [200, 201, 202, 204] {
        receiver.answer_next(Reply::new(status, ""));
        let (progress, result) = first_attempt(&*to, &events(0, 3)).await;
        result.unwrap();
        assert_eq!(those(&progress, 3, Settled::Accepted), [0, 1, 2], "{status}");
    }
    receiver.answer_next(Reply::new(207, "{\"failed\":1}"));
    let (progress, result) = first_attempt(&*to, &events(0, 3)).await;
    let fault = result.unwrap_err();
    assert!(!fault.is_retryable() && progress.open() == 3, "{fault:?}");
    assert!(fault.to_string().contains("failed"), "{fault}");
}

#[tokio::test]
async fn a_receiver_that_is_not_well_is_asked_again_when_it_says() {
    let receiver = Receiver::start().await;
    let to = destination(&receiver.url("/"), json!({}));
    for status in [408, 409, 425, 429, 500, 502, 503, 504] {
        receiver.answer_next(Reply::new(status, "come again").with("retry-after", "7"));
        let (progress, result) = first_attempt(&*to, &events(0, 2)).await;
        let fault = result.unwrap_err();
        assert_eq!(progress.open(), 2);
        assert!(
            matches!(fault, Fault::Retryable { after: Some(wait), .. } if wait == Duration::from_secs(7)),
            "{fault:?}"
        );
        assert!(fault.to_string().contains(&status.to_string()) && fault.to_string().contains("come again"));
    }
    receiver.answer_next(Reply::new(503, "").with("retry-after", "Fri, 31 Dec 2100 23:59:59 GMT"));
    let fault = first_attempt(&*to, &events(0, 2)).await.1.unwrap_err();
    assert!(
        matches!(fault, Fault::Retryable { after: Some(wait), .. } if wait == Duration::from_secs(300)),
        "{fault:?}"
    );
    receiver.answer_next(Reply::new(503, ""));
    let fault = first_attempt(&*to, &events(0, 2)).await.1.unwrap_err();
    assert!(matches!(fault, Fault::Retryable { after: None, .. }), "{fault:?}");
}

#[tokio::test]
async fn what_an_operator_must_mend_is_fatal_with_the_remedy() {
    let receiver = Receiver::start().await;
    let to = destination(&receiver.url("/"), json!({}));
    let cases = [
        (401, "auth"),
        (403, "allow"),
        (404, "url"),
        (405, "method"),
        (410, "url"),
        (415, "compression"),
        (418, "see what the receiver says"),
    ];
    for (status, words) in cases {
        receiver.answer_next(Reply::new(status, "no"));
        let (progress, result) = first_attempt(&*to, &events(0, 2)).await;
        let fault = result.unwrap_err();
        assert_eq!(progress.open(), 2);
        assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{status}: {fault:?}");
        assert!(fault.remedy().unwrap().contains(words), "{status}: {fault:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_says_where_it_leads() {
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    let to = destination(&receiver.url("/"), json!({"auth": {"bearer": "t"}}));
    for status in [301, 302, 307, 308] {
        receiver.answer_next(Reply::new(status, "").with("location", &elsewhere.url("/there")));
        let fault = first_attempt(&*to, &events(0, 1)).await.1.unwrap_err();
        assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{fault:?}");
        assert!(fault.to_string().contains(&elsewhere.url("/there")), "{fault}");
    }
    assert!(elsewhere.arrived().is_empty());
}

#[tokio::test]
async fn what_a_receiver_says_is_quoted_in_one_line_up_to_a_limit() {
    let receiver = Receiver::start().await;
    let to = destination(&receiver.url("/"), json!({}));
    let long = format!("first line\n\u{1b}[31mred\u{7}\n{}", "x".repeat(10 << 20));
    receiver.answer_next(Reply::new(500, &long));
    let text = first_attempt(&*to, &events(0, 1)).await.1.unwrap_err().to_string();
    assert!(text.contains("first line [31mred xxx") && text.len() < 500, "{} bytes: {text:.200}", text.len());
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[tokio::test]
async fn a_request_that_is_too_large_is_halved_and_later_ones_begin_smaller() {
    let receiver = Receiver::start().await;
    // Of 1,000 records of some 9 bytes, 100 fit.
    receiver.take_at_most(900);
    let to = destination(&receiver.url("/"), json!({}));
    let (progress, result) = first_attempt(&*to, &events(0, 1000)).await;
    result.unwrap();
    assert_eq!(progress.open(), 0);
    assert_eq!(receiver.taken(), records(0..1000));
    let refused = receiver.arrived().iter().filter(|arrived| arrived.status == 413).count();
    assert!((1..=10).contains(&refused), "{refused} requests were too large");
    first_attempt(&*to, &events(1000, 1000)).await.1.unwrap();
    assert_eq!(receiver.taken(), records(0..2000));
    let again = receiver.arrived().iter().filter(|arrived| arrived.status == 413).count();
    assert_eq!(again, refused, "what was learned is kept");
}

#[tokio::test]
async fn a_record_that_is_too_large_alone_is_a_dead_letter_and_its_neighbours_are_taken() {
    let receiver = Receiver::start().await;
    receiver.take_at_most(8);
    let to = destination(&receiver.url("/"), json!({}));
    // 98 and 99 have 8 bytes, 100 and 101 have 9.
    let (progress, result) = first_attempt(&*to, &events(98, 4)).await;
    result.unwrap();
    assert_eq!(receiver.taken(), records([98, 99]));
    let rejected: Vec<_> =
        progress.rejected.iter().map(|(number, why)| (*number, why.reason.as_str())).collect();
    assert_eq!(rejected, [(2, "too_large"), (3, "too_large")]);
    assert!(progress.rejected[0].1.chain[0].contains("413"), "{:?}", progress.rejected[0].1);
}

#[tokio::test]
async fn of_a_batch_that_is_refused_only_the_poisonous_records_become_dead_letters() {
    let receiver = Receiver::start().await;
    receiver.dislike("\"n\":37}");
    for body in ["ndjson", "array", "single"] {
        let before = receiver.arrived().len();
        let to = destination(&receiver.url("/"), json!({"body": body}));
        let (progress, result) = first_attempt(&*to, &events(0, 64)).await;
        result.unwrap();
        assert_eq!(those(&progress, 64, Settled::Rejected), [37]);
        assert_eq!(those(&progress, 64, Settled::Accepted).len(), 63);
        let why = &progress.rejected[0].1;
        assert!(why.reason == "refused" && why.chain[0].contains("422"), "{why:?}");
        assert!(why.chain[0].contains("an event is not as it should be"), "{why:?}");
        // Halves, not one by one.
        let requests = receiver.arrived().len() - before;
        assert!(body == "single" || requests <= 2 * 6 + 1, "{requests} requests");
    }
    let expected = records((0..64).filter(|&number| number != 37));
    assert_eq!(receiver.taken(), [&expected[..]; 3].concat());
}

#[tokio::test]
async fn a_receiver_that_refuses_everything_stops_the_daemon_instead_of_burying_all() {
    let receiver = Receiver::start().await;
    receiver.answer_always(Some(Reply::new(400, "unknown api version")));
    let to = destination(&receiver.url("/"), json!({}));
    let (progress, result) = first_attempt(&*to, &events(0, 1000)).await;
    let fault = result.unwrap_err();
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Outside, .. }), "{fault:?}");
    assert!(fault.to_string().contains("unknown api version"), "{fault}");
    assert_eq!(those(&progress, 1000, Settled::Rejected), (0..100).collect::<Vec<_>>());
    assert_eq!(progress.open(), 900);
}

#[tokio::test]
async fn what_was_taken_before_a_failure_is_not_sent_again() {
    let receiver = Receiver::start().await;
    receiver.take_at_most(100);
    let to = destination(&receiver.url("/"), json!({}));
    // It learns how much is taken.
    first_attempt(&*to, &events(0, 20)).await.1.unwrap();
    let learned = receiver.taken().len();
    receiver.answer_next(Reply::new(200, ""));
    receiver.answer_next(Reply::new(503, ""));
    let batch = events(20, 40);
    let (progress, result) = first_attempt(&*to, &batch).await;
    assert!(result.unwrap_err().is_retryable());
    let taken = those(&progress, 40, Settled::Accepted);
    assert!(!taken.is_empty() && taken == (0..taken.len()).collect::<Vec<_>>(), "{taken:?}");
    attempt(&*to, &batch, progress).await.1.unwrap();
    assert_eq!(receiver.taken()[learned..], records(20..60));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_retryable() {
    let receiver = Receiver::start().await;
    let proxy = forebay_integration::Proxy::to(receiver.port()).await;
    let url = format!("http://{}/", proxy.address());
    let to = destination(&url, json!({"request_timeout": "200ms"}));
    proxy.pause();
    let (progress, result) = first_attempt(&*to, &events(0, 1)).await;
    let fault = result.unwrap_err();
    assert!(fault.is_retryable() && progress.open() == 1, "{fault:?}");
    proxy.resume();
    first_attempt(&*to, &events(0, 1)).await.1.unwrap();
}
