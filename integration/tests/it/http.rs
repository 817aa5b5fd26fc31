//! The HTTP destination beyond the suite: statuses, signatures, headers, TLS, and what is sent again.

mod daemon;
mod statuses;
mod tls;

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use forebay_api::testing::destination::SOURCE;
use forebay_api::{
    Batch, Blame, Delivery, Destination, DestinationConnector, DestinationSetting, Draft, Encoded, Fault,
    Finding, Mark, Op, Part, Progress, Row, Settled, Span, StreamId, Subject,
};
use forebay_http::HttpDestination;
use forebay_integration::{Receiver, Reply};
use serde_json::{Value, json};

fn setting(format: &str) -> DestinationSetting {
    DestinationSetting {
        name: "hook".to_owned(),
        format: format.to_owned(),
        data_dir: std::env::temp_dir(),
        sources: vec![SOURCE.to_owned()],
    }
}

fn destination(url: &str, mut config: Value) -> Arc<dyn Destination> {
    config["url"] = json!(url);
    HttpDestination::build(serde_json::from_value(config).unwrap(), &setting("forebay")).unwrap()
}

async fn check(url: &str, mut config: Value) -> Vec<Finding> {
    config["url"] = json!(url);
    HttpDestination::check(serde_json::from_value(config).unwrap(), &setting("forebay")).await
}

/// `count` events; the first has the number `first`, which its record says.
fn events(first: usize, count: usize) -> Arc<Batch> {
    let mut draft = Draft::default();
    let place = (Some("db"), Some("public"), Some("orders"));
    let subject = draft.subject(&Arc::new(Subject::new(("v", "orders", "1-0-0"), place, String::new())));
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for number in first..first + count {
        let none = Span::default();
        draft.push(Row {
            mark: Mark { major: (1, 16), minor: u32::try_from(number).unwrap(), part: 0 },
            time: 0,
            xid: 0,
            subject,
            op: Op::Insert,
            id: none,
            key: none,
            before: none,
            payload: none,
            unchanged: none,
            contexts: none,
            extra: none,
        });
        bytes.extend_from_slice(record(number).as_bytes());
        ends.push(u32::try_from(bytes.len()).unwrap());
    }
    let stream = Arc::new(StreamId { source: SOURCE.into(), epoch: 1 });
    let chunk = draft.finish(&stream, 0, false);
    Arc::new(Batch { chunk, verdicts: Vec::new(), encoded: vec![Encoded::new(bytes, ends)] })
}

fn record(number: usize) -> String {
    format!("{{\"n\":{number}}}")
}

fn records(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(record).collect()
}

/// One attempt at the records that are still open.
async fn attempt(
    destination: &dyn Destination,
    batch: &Arc<Batch>,
    progress: Progress,
) -> (Progress, Result<(), Fault>) {
    let count = batch.chunk.rows.len();
    let rows = (0..u32::try_from(count).unwrap()).collect();
    let part = Part { batch: batch.clone(), rows, range: 0..count };
    let (delivery, back) = Delivery::new([part].into(), 0, progress);
    let result = destination.deliver(delivery).await;
    (back.await.unwrap(), result)
}

/// A first attempt at all of them.
async fn first_attempt(destination: &dyn Destination, batch: &Arc<Batch>) -> (Progress, Result<(), Fault>) {
    attempt(destination, batch, Progress::new(batch.chunk.rows.len())).await
}

/// The numbers of the records that are in a state.
fn those(progress: &Progress, count: usize, state: Settled) -> Vec<usize> {
    (0..count).filter(|&number| progress.of(number) == state).collect()
}

#[tokio::test]
async fn a_request_says_what_it_holds_and_who_sends_it() {
    let receiver = Receiver::start().await;
    let cases = [
        (json!({}), "POST", "application/x-ndjson", "{\"n\":0}\n{\"n\":1}\n"),
        (json!({"body": "array", "method": "PUT"}), "PUT", "application/json", "[{\"n\":0},{\"n\":1}]"),
    ];
    for (config, method, content_type, body) in cases {
        let to = destination(&receiver.url("/in?x=1"), config);
        first_attempt(&*to, &events(0, 2)).await.1.unwrap();
        let arrived = receiver.arrived().pop().unwrap();
        assert_eq!((arrived.method.as_str(), arrived.uri.to_string().as_str()), (method, "/in?x=1"));
        assert_eq!(arrived.header("content-type"), Some(content_type));
        assert_eq!(String::from_utf8(arrived.body.clone()).unwrap(), body);
        assert!(arrived.header("user-agent").unwrap().starts_with("forebay/"));
        assert_eq!(arrived.header("authorization"), None);
    }
    let config = json!({
        "headers": {"X-Api-Key": "k", "Content-Type": "application/json; charset=utf-8"},
        "auth": {"username": "me", "password": "pw"},
    });
    first_attempt(&*destination(&receiver.url("/"), config), &events(0, 1)).await.1.unwrap();
    let arrived = receiver.arrived().pop().unwrap();
    assert_eq!(arrived.header("x-api-key"), Some("k"));
    assert_eq!(arrived.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(arrived.header("authorization"), Some("Basic bWU6cHc="));
    let config = json!({"auth": {"bearer": "t"}, "body": "single"});
    first_attempt(&*destination(&receiver.url("/"), config), &events(0, 1)).await.1.unwrap();
    assert_eq!(receiver.arrived().pop().unwrap().header("authorization"), Some("Bearer t"));
}

#[tokio::test]
async fn cloudevents_have_their_media_types() {
    let receiver = Receiver::start().await;
    for (body, expected) in
        [("array", "application/cloudevents-batch+json"), ("single", "application/cloudevents+json")]
    {
        let config = serde_json::from_value(json!({"url": receiver.url("/"), "body": body})).unwrap();
        let to = HttpDestination::build(config, &setting("cloudevents")).unwrap();
        first_attempt(&*to, &events(0, 1)).await.1.unwrap();
        assert_eq!(receiver.arrived().pop().unwrap().header("content-type"), Some(expected));
    }
}

#[tokio::test]
async fn bodies_are_compressed_and_say_so() {
    let receiver = Receiver::start().await;
    for compression in ["gzip", "zstd"] {
        let to = destination(&receiver.url("/"), json!({"compression": compression}));
        first_attempt(&*to, &events(0, 500)).await.1.unwrap();
        let arrived = receiver.arrived().pop().unwrap();
        assert_eq!(arrived.header("content-encoding"), Some(compression));
        assert_eq!(arrived.events, records(0..500));
        assert!(arrived.body.len() < 4000, "{}", arrived.body.len());
    }
}

/// Verifies a signature as a receiver would that knows nothing of ours: by Python's standard library.
const VERIFY: &str = r#"
import hashlib, hmac, sys, time
secret, header = sys.argv[1], sys.argv[2]
parts = dict(part.split("=", 1) for part in header.split(","))
body = sys.stdin.buffer.read()
expected = hmac.new(secret.encode(), parts["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
fresh = abs(time.time() - int(parts["t"])) < 300
sys.exit(0 if fresh and hmac.compare_digest(expected, parts["v1"]) else 1)
"#;

fn verifies(secret: &str, header: &str, body: &[u8]) -> bool {
    let mut python = Command::new("python3")
        .args(["-c", VERIFY, secret, header])
        .stdin(Stdio::piped())
        .spawn()
        .expect("python3 is there (`integration/run` brings it)");
    python.stdin.take().unwrap().write_all(body).unwrap();
    python.wait().unwrap().success()
}

#[tokio::test]
async fn another_implementation_verifies_the_signature_of_what_was_sent() {
    let receiver = Receiver::start().await;
    let cases = [
        (json!({"signature": {"secret": "s3cret"}}), "x-forebay-signature"),
        (json!({"signature": {"secret": "s3cret", "header": "X-Other"}, "compression": "gzip"}), "x-other"),
        (json!({"signature": {"secret": "s3cret"}, "body": "single"}), "x-forebay-signature"),
    ];
    for (config, header) in cases {
        first_attempt(&*destination(&receiver.url("/"), config), &events(0, 1)).await.1.unwrap();
        let arrived = receiver.arrived().pop().unwrap();
        let signature = arrived.header(header).unwrap();
        assert!(verifies("s3cret", signature, &arrived.body), "{signature}");
        assert!(!verifies("another", signature, &arrived.body));
        let mut forged = arrived.body.clone();
        forged.push(b' ');
        assert!(!verifies("s3cret", signature, &forged));
    }
}

#[tokio::test]
async fn the_idempotency_key_is_the_same_for_the_same_records_and_no_others() {
    let receiver = Receiver::start().await;
    let keys = || -> Vec<String> {
        receiver
            .arrived()
            .iter()
            .map(|arrived| arrived.header("idempotency-key").unwrap().to_owned())
            .collect()
    };
    let to = destination(&receiver.url("/"), json!({}));
    receiver.answer_next(Reply::new(503, ""));
    assert!(first_attempt(&*to, &events(0, 3)).await.1.is_err());
    for batch in [events(0, 3), events(0, 2), events(1, 3)] {
        first_attempt(&*to, &batch).await.1.unwrap();
    }
    // Another daemon, which knows nothing of this one.
    first_attempt(&*destination(&receiver.url("/"), json!({})), &events(0, 3)).await.1.unwrap();
    let found = keys();
    assert!(found[0] == found[1] && found[1] == found[4], "{found:?}");
    assert!(found[1] != found[2] && found[2] != found[3] && found[1] != found[3], "{found:?}");

    let to = destination(&receiver.url("/"), json!({"body": "single"}));
    let batch = events(0, 2);
    first_attempt(&*to, &batch).await.1.unwrap();
    assert_eq!(keys()[5..], [batch.chunk.event(0).id(), batch.chunk.event(1).id()]);
}

#[tokio::test]
async fn check_says_whether_somebody_answers_and_sends_no_event() {
    let receiver = Receiver::start().await;
    let findings = check(&receiver.url("/in?token=secret"), json!({})).await;
    assert!(findings.len() == 1 && findings[0].trouble.is_none(), "{findings:?}");
    assert!(findings[0].fact.contains("answers a HEAD with status 200"), "{findings:?}");
    assert!(!format!("{findings:?}").contains("secret"));
    receiver.answer_next(Reply::new(401, ""));
    let findings = check(&receiver.url("/"), json!({"auth": {"bearer": "t"}})).await;
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(findings.iter().all(|finding| finding.trouble.as_ref().unwrap().blame.is_none()), "{findings:?}");
    let port = receiver.port();
    drop(receiver);
    let findings = check(&format!("http://127.0.0.1:{port}/?token=secret"), json!({})).await;
    assert_eq!(findings[0].trouble.as_ref().unwrap().blame, Some(Blame::Outside), "{findings:?}");
    assert!(!format!("{findings:?}").contains("secret"), "{findings:?}");
}
