//! Kinesis beyond the suite: which records are sent again, in which order, what the limits do, and what an operator is
//! told. Against moto's stand-in; what AWS does under load is a fake's doing.

mod daemon;
mod order;

use std::sync::Arc;

use forebay_api::testing::destination::SOURCE;
use forebay_api::{
    Batch, Blame, Delivery, Destination, DestinationConnector, DestinationSetting, Draft, Encoded, Fault,
    Finding, Mark, Op, Part, Progress, Row, Settled, Span, StreamId, Subject,
};
use forebay_integration::{Direction, Kinesis, KinesisFaults, Proxy, Put, Stream};
use forebay_kinesis::KinesisDestination;
use serde_json::{Value, json};

const THROTTLED: &str = "ProvisionedThroughputExceededException";

fn setting() -> DestinationSetting {
    DestinationSetting {
        name: "stream".to_owned(),
        format: "forebay".to_owned(),
        data_dir: std::env::temp_dir(),
        sources: vec![SOURCE.to_owned()],
    }
}

/// A configuration for what listens on a port; `more` goes over it.
fn config(port: u16, stream: &str, more: Value) -> Value {
    let mut config = json!({
        "stream": stream, "region": "us-east-1", "endpoint": format!("http://127.0.0.1:{port}"),
        "credentials": {"access_key_id": "test", "secret_access_key": "test"},
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn destination(config: Value) -> Arc<dyn Destination> {
    KinesisDestination::build(serde_json::from_value(config).unwrap(), &setting()).unwrap()
}

async fn check(config: Value) -> Vec<Finding> {
    KinesisDestination::check(serde_json::from_value(config).unwrap(), &setting()).await
}

/// Events of one table: each a key and what its record says.
fn batch(table: &str, events: &[(&str, String)]) -> Arc<Batch> {
    let mut draft = Draft::default();
    let place = (Some("db"), Some("public"), Some(table));
    let subject = draft.subject(&Arc::new(Subject::new(("v", table, "1-0-0"), place, String::new())));
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for (number, (key, body)) in events.iter().enumerate() {
        let at = draft.buf.len();
        draft.buf.extend_from_slice(key.as_bytes());
        let (key, none) = (draft.since(at), Span::default());
        draft.push(Row {
            mark: Mark { major: (1, 16), minor: u32::try_from(number).unwrap(), part: 0 },
            time: 0,
            xid: 0,
            subject,
            op: Op::Insert,
            id: none,
            key,
            before: none,
            payload: none,
            unchanged: none,
            contexts: none,
            extra: none,
        });
        bytes.extend_from_slice(body.as_bytes());
        ends.push(u32::try_from(bytes.len()).unwrap());
    }
    let stream = Arc::new(StreamId { source: SOURCE.into(), epoch: 1 });
    let chunk = draft.finish(&stream, 0, false);
    Arc::new(Batch { chunk, verdicts: Vec::new(), encoded: vec![Encoded::new(bytes, ends)] })
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

/// The numbers of the records that are in a state.
fn those(progress: &Progress, count: usize, state: Settled) -> Vec<usize> {
    (0..count).filter(|&number| progress.of(number) == state).collect()
}

fn data(put: &[Put]) -> Vec<String> {
    put.iter().map(|put| String::from_utf8(put.data.clone()).unwrap()).collect()
}

/// moto, the fake in front of it, and a stream of the test's own.
async fn stream(name: &str) -> (KinesisFaults, Stream) {
    let kinesis = Kinesis::shared().await;
    (KinesisFaults::before(kinesis).await, kinesis.stream(name, 1).await)
}

#[tokio::test]
async fn the_partition_key_is_the_events_key_and_the_data_its_record() {
    let (faults, stream) = stream("keys").await;
    let to = destination(config(faults.port(), stream.name(), json!({})));
    let long = format!("{{\"id\":\"{}\"}}", "x".repeat(300));
    let events = batch(
        "orders",
        &[
            (r#"{"id":1}"#, "{\"n\":1}".to_owned()),
            ("", "{\"n\":2}".to_owned()),
            (&long, "{\"n\":3}".to_owned()),
        ],
    );
    let (progress, result) = attempt(&*to, &events, Progress::new(3)).await;
    result.unwrap();
    assert_eq!(progress.open(), 0);
    let mut put = stream.all().await;
    put.sort_by(|a, b| a.data.cmp(&b.data));
    assert_eq!(data(&put), ["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"]);
    assert_eq!((put[0].key.as_str(), put[1].key.as_str()), (r#"{"id":1}"#, "public.orders"));
    // SHA-256 as hex, for Kinesis takes 256 characters.
    assert!(
        put[2].key.len() == 64 && put[2].key.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{}",
        put[2].key
    );
}

#[tokio::test]
async fn a_record_at_the_limit_is_put_and_one_byte_more_is_a_dead_letter() {
    let (faults, stream) = stream("limit").await;
    let to = destination(config(faults.port(), stream.name(), json!({})));
    let key = r#"{"id":1}"#;
    let largest = (1 << 20) - key.len();
    let events =
        batch("orders", &[(key, "a".repeat(largest)), (key, "b".repeat(largest + 1)), (key, "c".to_owned())]);
    let (progress, result) = attempt(&*to, &events, Progress::new(3)).await;
    result.unwrap();
    assert_eq!(those(&progress, 3, Settled::Accepted), [0, 2]);
    let (number, why) = &progress.rejected[0];
    assert_eq!((*number, why.reason.as_str()), (1, "too_large"));
    assert!(
        why.chain[0].contains("1048577 bytes") && why.chain[0].contains("`max_record`"),
        "{:?}",
        why.chain
    );
    assert_eq!(stream.all().await.len(), 2);
}

#[tokio::test]
async fn events_of_each_table_go_to_their_stream() {
    let kinesis = Kinesis::shared().await;
    let faults = KinesisFaults::before(kinesis).await;
    let streams =
        [kinesis.stream_named("routed-orders", 1).await, kinesis.stream_named("routed-order_lines", 1).await];
    let to = destination(config(faults.port(), "routed-{table}", json!({})));
    for (table, stream) in ["orders", "order lines"].into_iter().zip(&streams) {
        let events = batch(table, &[("1", format!("{{\"table\":\"{table}\"}}"))]);
        attempt(&*to, &events, Progress::new(1)).await.1.unwrap();
        assert_eq!(data(&stream.all().await), [format!("{{\"table\":\"{table}\"}}")]);
    }
    // What would mix two tables is refused and not written.
    let events = batch("order_lines", &[("1", "{}".to_owned())]);
    let fault = attempt(&*to, &events, Progress::new(1)).await.1.unwrap_err();
    assert!(!fault.is_retryable() && fault.to_string().contains("would be named"), "{fault}");
}

#[tokio::test]
async fn what_an_operator_must_mend_is_fatal_with_the_remedy() {
    let (faults, stream) = stream("errors").await;
    let to = destination(config(faults.port(), stream.name(), json!({})));
    let one = batch("orders", &[("1", "{}".to_owned())]);
    let cases: [(u16, &'static str, Blame, &str); 5] = [
        (400, "AccessDeniedException", Blame::Outside, "kinesis:PutRecords"),
        (400, "UnrecognizedClientException", Blame::Configuration, "credentials"),
        (400, "InvalidSignatureException", Blame::Configuration, "credentials"),
        (400, "KMSDisabledException", Blame::Outside, "key"),
        (400, "SomethingNobodyKnows", Blame::Defect, "report"),
    ];
    for (status, code, blame, words) in cases {
        faults.answer_next(status, code);
        let (progress, result) = attempt(&*to, &one, Progress::new(1)).await;
        let fault = result.unwrap_err();
        assert_eq!(progress.open(), 1, "{code}");
        assert!(matches!(fault, Fault::Fatal { blame: found, .. } if found == blame), "{code}: {fault:?}");
        assert!(fault.to_string().contains(code) && fault.remedy().unwrap().contains(words), "{fault:?}");
    }
    let missing = destination(config(faults.port(), "nowhere", json!({})));
    let fault = attempt(&*missing, &one, Progress::new(1)).await.1.unwrap_err();
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{fault:?}");
    assert!(fault.to_string().contains("stream `nowhere`"), "{fault}");
    assert!(fault.remedy().unwrap().contains("create the stream"), "{fault:?}");
    assert!(stream.all().await.is_empty());
}

#[tokio::test]
async fn what_passes_is_retryable() {
    let (faults, stream) = stream("passing").await;
    let mut proxy = Proxy::to(faults.port()).await;
    let to = destination(config(proxy.port(), stream.name(), json!({})));
    let one = batch("orders", &[("1", "{}".to_owned())]);
    let retryable = async || {
        let (progress, result) = attempt(&*to, &one, Progress::new(1)).await;
        let fault = result.unwrap_err();
        assert!(fault.is_retryable() && progress.open() == 1, "{fault:?}");
        fault.to_string()
    };
    for (status, code) in [(400, THROTTLED), (500, "InternalFailure"), (400, "ExpiredTokenException")] {
        faults.answer_next(status, code);
        assert!(retryable().await.contains(code));
    }
    // The answer is cut off: what it said is not known, and nothing is accepted.
    proxy.cut_after(Direction::ToClient, 20);
    retryable().await;
    proxy.shut().await;
    retryable().await;
    proxy.open().await;
    attempt(&*to, &one, Progress::new(1)).await.1.unwrap();
    // One whose answer was cut off, and the last.
    assert_eq!(stream.all().await.len(), 2);
}

/// It takes the time that a call may take.
#[tokio::test]
async fn a_service_that_hangs_is_asked_again() {
    let (faults, stream) = stream("hanging").await;
    let proxy = Proxy::to(faults.port()).await;
    let to = destination(config(proxy.port(), stream.name(), json!({})));
    let one = batch("orders", &[("1", "{}".to_owned())]);
    proxy.pause();
    let (progress, result) = attempt(&*to, &one, Progress::new(1)).await;
    let fault = result.unwrap_err();
    assert!(fault.is_retryable() && progress.open() == 1, "{fault:?}");
    proxy.resume();
    attempt(&*to, &one, Progress::new(1)).await.1.unwrap();
}

#[tokio::test]
async fn check_says_whether_the_stream_is_there() {
    let (faults, stream) = stream("checked").await;
    let findings = check(config(faults.port(), stream.name(), json!({}))).await;
    assert!(findings.iter().all(|finding| finding.trouble.is_none()), "{findings:?}");
    assert!(findings[0].fact.contains("has 1 shard(s)"), "{findings:?}");
    let findings = check(config(faults.port(), "nowhere", json!({}))).await;
    let trouble = findings[0].trouble.as_ref().unwrap();
    assert_eq!(trouble.blame, Some(Blame::Configuration));
    assert!(trouble.remedy.contains("create the stream"), "{findings:?}");
    let findings = check(config(faults.port(), "{source}-{table}", json!({}))).await;
    assert!(findings[0].fact.contains("`conformance-*`"), "{findings:?}");
    let nobody = Proxy::to(1).await;
    let findings = check(config(nobody.port(), stream.name(), json!({}))).await;
    assert_eq!(findings[0].trouble.as_ref().unwrap().blame, Some(Blame::Outside), "{findings:?}");
    assert!(stream.all().await.is_empty());
}
