//! The collector on real sockets: what it answers, when, and whom it does not let tire it.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::source::rig::{PATIENCE, Pipeline, Rig, rest, wait};

const EVENT: &str = "/i?e=pv&eid=5641e14e-0e90-412b-8649-ec1229ede7e4";
const ID: &str = "5641e14e-0e90-412b-8649-ec1229ede7e4";

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap();
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(given, _)| *given == name)
        .map(|(_, value)| value)
}

fn post(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /com.snowplowanalytics.snowplow/tp2 HTTP/1.1\r\nHost: c\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn batch(ids: &[&str]) -> Vec<u8> {
    let items: Vec<_> = ids.iter().map(|id| json!({ "e": "pv", "eid": id })).collect();
    let schema = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4";
    json!({ "schema": schema, "data": items }).to_string().into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn an_answer_of_success_leaves_only_when_the_events_are_durable() {
    let rig = Rig::start(json!({})).await;
    rig.pipeline.send_replace(Pipeline::Holding);
    let mut stream = TcpStream::connect(&rig.address).await.unwrap();
    stream
        .write_all(format!("GET {EVENT} HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    wait(|| (!rig.ids().is_empty()).then_some(())).await;
    // The event is in the pipeline, and nothing was answered.
    let mut byte = [0];
    assert_eq!(stream.try_read(&mut byte).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    rig.pipeline.send_replace(Pipeline::Durable);
    let answer = rest(&mut stream).await;
    assert_eq!((status(&answer), header(&answer, "content-type")), ("200", Some("image/gif")));
    assert_eq!(header(&answer, "cache-control"), Some("no-cache, no-store, must-revalidate"));
    assert_eq!(rig.ids(), [ID]);
}

#[tokio::test]
async fn what_could_not_be_made_durable_is_to_be_sent_again() {
    let rig = Rig::start(json!({ "timeouts": { "answer": "50ms" } })).await;
    assert_eq!(status(&rig.get("/sink-health").await), "200");
    for pipeline in [Pipeline::Failing, Pipeline::Holding] {
        rig.pipeline.send_replace(pipeline);
        let answer = rig.get(EVENT).await;
        assert_eq!((status(&answer), header(&answer, "retry-after")), ("503", Some("5")), "{pipeline:?}");
        assert_eq!(status(&rig.get("/sink-health").await), "503");
        assert_eq!(status(&rig.get("/health").await), "200");
    }
    rig.pipeline.send_replace(Pipeline::Durable);
    assert_eq!(status(&rig.get(EVENT).await), "200");
    assert_eq!(status(&rig.get("/sink-health").await), "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_are_joined_and_each_is_told() {
    let rig = Arc::new(Rig::start(json!({})).await);
    rig.pipeline.send_replace(Pipeline::Holding);
    let ids: Vec<String> = (0..200).map(|n| format!("00000000-0000-4000-8000-{n:012}")).collect();
    let mut requests = tokio::task::JoinSet::new();
    for id in ids.clone() {
        let rig = rig.clone();
        requests.spawn(async move { rig.exchange(post("", &batch(&[&id]))).await });
    }
    // Four sends are open; all the others wait for one of them.
    wait(|| (rig.chunks.lock().unwrap().len() == 4).then_some(())).await;
    rig.pipeline.send_replace(Pipeline::Durable);
    while let Some(answer) = requests.join_next().await {
        assert_eq!(status(&answer.unwrap()), "200");
    }
    let mut got = rig.ids();
    got.sort();
    assert_eq!(got, ids);
    assert!(rig.chunks.lock().unwrap().len() < 150, "they were joined");
}

#[tokio::test]
async fn at_the_stop_what_is_in_flight_is_answered_and_idle_connections_end() {
    let rig = Rig::start(json!({})).await;
    rig.pipeline.send_replace(Pipeline::Holding);
    let mut idle = TcpStream::connect(&rig.address).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: c\r\n\r\n").await.unwrap();
    let mut bytes = [0; 512];
    assert!(idle.read(&mut bytes).await.unwrap() > 0);
    let mut fresh = TcpStream::connect(&rig.address).await.unwrap();
    let mut waiting = TcpStream::connect(&rig.address).await.unwrap();
    waiting.write_all(format!("GET {EVENT} HTTP/1.1\r\nHost: c\r\n\r\n").as_bytes()).await.unwrap();
    wait(|| (!rig.ids().is_empty()).then_some(())).await;
    rig.stop.cancel();
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut fresh).await, "");
    assert!(TcpStream::connect(&rig.address).await.is_err(), "nobody listens any more");
    rig.pipeline.send_replace(Pipeline::Durable);
    assert_eq!(status(&rest(&mut waiting).await), "200");
    rig.ended().await;
}

#[tokio::test]
async fn requests_in_a_row_and_half_closed_connections_are_answered() {
    let rig = Rig::start(json!({})).await;
    let one = |id: &str| format!("GET /i?e=pv&eid={id} HTTP/1.1\r\nHost: c\r\n\r\n");
    let ids: Vec<String> = (0..10).map(|n| format!("00000000-0000-4000-8000-{n:012}")).collect();
    // all at once, and nothing more
    let answer = rig.exchange(ids.iter().map(|id| one(id)).collect::<String>()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 10);
    assert_eq!(rig.ids(), ids);
}

#[tokio::test]
async fn bodies_are_inflated_within_their_limits_and_broken_ones_are_kept() {
    let rig = Rig::start(json!({ "limits": { "body": "64KiB", "inflated": "128KiB" } })).await;
    let encoded = "Content-Encoding: gzip\r\n";
    let good = gzip(&batch(&[ID]));
    assert_eq!(status(&rig.exchange(post(encoded, &good)).await), "200");
    assert_eq!(rig.ids(), [ID]);
    // a bomb: 64 MiB of nothing in 64 KB
    assert_eq!(status(&rig.exchange(post(encoded, &gzip(&vec![b' '; 64 << 20])[..])).await), "413");
    assert_eq!(status(&rig.exchange(post(encoded, &gzip(&vec![b' '; 8 << 20])[..])).await), "413");
    assert_eq!(status(&rig.exchange(post("", &vec![b' '; 65 << 10])).await), "413");
    let chunked = format!(
        "POST /com.acme/t HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n11000\r\n{}\r\n0\r\n\r\n",
        " ".repeat(0x11000)
    );
    assert_eq!(status(&rig.exchange(chunked).await), "413");
    assert_eq!(rig.ids().len(), 1);
    for (encoding, body) in
        [("gzip", &good[..good.len() - 9]), ("gzip", b"hello"), ("br", b"hello"), ("gzip", b"")]
    {
        let encoding = format!("Content-Encoding: {encoding}\r\n");
        assert_eq!(status(&rig.exchange(post(&encoding, body)).await), "200");
        let chunks = rig.chunks.lock().unwrap();
        let why = &chunks.last().unwrap().refused[0].1;
        assert!(["unreadable_body", "empty_body"].contains(&&*why.kind), "{why:?}");
    }
    assert_eq!(rig.ids().len(), 5);
}

#[tokio::test]
async fn who_sends_slowly_or_nothing_is_not_waited_for() {
    let keys = json!({ "timeouts": { "headers": "300ms", "body": "300ms", "idle": "1s" } });
    let rig = Rig::start(keys).await;
    let mut slow = TcpStream::connect(&rig.address).await.unwrap();
    slow.write_all(b"GET /i?e=pv HTTP/1.1\r\nX-A: ").await.unwrap();
    let mut idle = TcpStream::connect(&rig.address).await.unwrap();
    let mut half = TcpStream::connect(&rig.address).await.unwrap();
    half.write_all(b"POST /com.acme/t HTTP/1.1\r\nHost: c\r\nContent-Length: 10\r\n\r\n{").await.unwrap();
    assert_eq!(rest(&mut slow).await, "");
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(status(&rest(&mut half).await), "408");
    // one that goes on being used is kept for longer than any of these
    let mut used = TcpStream::connect(&rig.address).await.unwrap();
    let began = tokio::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_millis(1500) {
        used.write_all(b"GET /health HTTP/1.1\r\nHost: c\r\n\r\n").await.unwrap();
        let mut bytes = [0; 512];
        assert!(used.read(&mut bytes).await.unwrap() > 0);
    }
    assert_eq!(rig.ids(), Vec::<String>::new());
}

#[tokio::test]
async fn floods_and_nonsense_get_an_answer_that_says_so_or_none() {
    let rig = Rig::start(json!({ "limits": { "headers": "8KiB" } })).await;
    let big = format!("GET {EVENT} HTTP/1.1\r\nHost: c\r\nX-Big: {}\r\n\r\n", "a".repeat(64 << 10));
    assert_eq!(status(&rig.exchange(big).await), "431");
    let many = format!("GET {EVENT} HTTP/1.1\r\nHost: c\r\n{}\r\n", "X-A: b\r\n".repeat(200));
    assert_eq!(status(&rig.exchange(many).await), "431");
    for (request, expected) in [
        ("\0\0\0\0\r\n\r\n".to_owned(), "400"),
        ("GET /i HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".into(), "400"),
        ("DELETE /i?e=pv HTTP/1.1\r\nHost: c\r\n\r\n".into(), "405"),
        ("GET /nothing HTTP/1.1\r\nHost: c\r\n\r\n".into(), "404"),
        ("GET /../../etc/passwd HTTP/1.1\r\nHost: c\r\n\r\n".into(), "404"),
        ("GET / HTTP/1.1\r\nHost: c\r\n\r\n".into(), "404"),
        ("GET /robots.txt HTTP/1.1\r\nHost: c\r\n\r\n".into(), "200"),
        ("GET /crossdomain.xml HTTP/1.1\r\nHost: c\r\n\r\n".into(), "404"),
    ] {
        assert_eq!(status(&rig.exchange(&request).await), expected, "{request:?}");
    }
    // the head is whole and the body never is
    let gone = "POST /com.acme/t HTTP/1.1\r\nHost: c\r\nContent-Length: 10\r\n\r\n{";
    let answer = rig.exchange(gone).await;
    assert!(["400", "none"].contains(&status(&answer)), "{answer}");
    assert_eq!(rig.ids(), Vec::<String>::new());
}

#[tokio::test]
async fn pages_of_other_origins_may_send_and_read_where_that_is_allowed() {
    let rig = Rig::start(json!({ "cors": { "origins": ["*.acme.com"], "max_age": "10m" } })).await;
    let ask = |origin: &str| {
        format!(
            "OPTIONS /com.snowplowanalytics.snowplow/tp2 HTTP/1.1\r\nHost: c\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\r\n"
        )
    };
    let answer = rig.exchange(ask("https://www.acme.com")).await;
    for (name, value) in [
        ("access-control-allow-origin", "https://www.acme.com"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-headers", "Content-Type, SP-Anonymous, Authorization"),
        ("access-control-max-age", "600"),
        ("vary", "Origin"),
    ] {
        assert_eq!((status(&answer), header(&answer, name)), ("200", Some(value)), "{answer}");
    }
    let answer = rig.exchange(ask("https://evilacme.com")).await;
    assert_eq!(
        (header(&answer, "access-control-allow-origin"), header(&answer, "vary")),
        (None, Some("Origin"))
    );
    let request = format!("GET {EVENT} HTTP/1.1\r\nHost: c\r\nOrigin: https://www.acme.com\r\n\r\n");
    assert_eq!(
        header(&rig.exchange(request).await, "access-control-allow-origin"),
        Some("https://www.acme.com")
    );
}

#[tokio::test]
async fn a_sender_without_a_token_is_not_let_in() {
    let rig = Rig::start(json!({ "inputs": { "snowplow": { "tokens": ["first", "second"] } } })).await;
    let with = |authorization: &str| format!("GET {EVENT} HTTP/1.1\r\nHost: c\r\n{authorization}\r\n\r\n");
    for (authorization, expected) in [
        ("Authorization: Bearer first", "200"),
        ("authorization: bearer second", "200"),
        ("Authorization: Bearer third", "401"),
        ("Authorization: Bearer ", "401"),
        ("Authorization: Basic first", "401"),
        ("X-A: b", "401"),
    ] {
        assert_eq!(status(&rig.exchange(with(authorization)).await), expected, "{authorization}");
    }
    assert_eq!(rig.ids().len(), 2);
}

#[tokio::test]
async fn a_client_that_is_too_fast_is_told_when_to_come_again_and_cannot_pass_for_others() {
    let rig = Rig::start(json!({ "rate_limit": { "per_second": 1, "burst": 3 } })).await;
    let with = |n: u8| format!("GET {EVENT} HTTP/1.1\r\nHost: c\r\nX-Forwarded-For: 9.9.9.{n}\r\n\r\n");
    let mut last = String::new();
    for n in 0..20 {
        last = rig.exchange(with(n)).await;
    }
    assert_eq!(status(&last), "429", "{last}");
    assert!(header(&last, "retry-after").is_some());
    let trusting =
        Rig::start(json!({ "rate_limit": { "per_second": 1 }, "trusted_proxies": ["127.0.0.0/8"] })).await;
    for n in 0..20 {
        assert_eq!(status(&trusting.exchange(with(n)).await), "200");
    }
    let chunks = trusting.chunks.lock().unwrap();
    let contexts = String::from_utf8(chunks[19].event(0).contexts().to_vec()).unwrap();
    assert!(contexts.contains(r#""user_ipaddress":"9.9.9.19""#), "{contexts}");
}

#[tokio::test]
async fn bodies_have_a_memory_of_their_own() {
    let limits = json!({ "body": "64KiB", "inflated": "64KiB", "in_flight": "64KiB" });
    let rig = Rig::start(json!({ "limits": limits })).await;
    let mut first = TcpStream::connect(&rig.address).await.unwrap();
    first.write_all(b"POST /com.acme/t HTTP/1.1\r\nHost: c\r\nContent-Length: 50001\r\n\r\n").await.unwrap();
    first.write_all(&[b' '; 50_000]).await.unwrap();
    let more = post("", &[b' '; 30_000]);
    let mut answer = rig.exchange(&more).await;
    let until = tokio::time::Instant::now() + PATIENCE;
    while status(&answer) != "503" {
        assert!(tokio::time::Instant::now() < until, "there is always memory");
        answer = rig.exchange(&more).await;
    }
    assert_eq!(header(&answer, "retry-after"), Some("5"));
    drop(first);
    while status(&answer) != "200" {
        assert!(tokio::time::Instant::now() < until, "memory is not given back");
        answer = rig.exchange(&more).await;
    }
}

#[tokio::test]
async fn a_unix_socket_is_listened_on_and_one_that_a_dead_process_left_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let rig = Rig::with(json!({ "unix": path, "trusted_proxies": ["unix"] })).await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let request =
        format!("GET {EVENT} HTTP/1.1\r\nHost: c\r\nX-Forwarded-For: 9.9.9.9\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(status(&rest(&mut stream).await), "200");
    let contexts = String::from_utf8(rig.chunks.lock().unwrap()[0].event(0).contexts().to_vec()).unwrap();
    assert!(contexts.contains("9.9.9.9"), "{contexts}");
    rig.stop.cancel();
    rig.ended().await;
    assert!(!path.exists());
}

/// Writes a new certificate for `localhost`, and gives what trusts it alone.
fn certificate(folder: &std::path::Path) -> Arc<rustls::ClientConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

async fn over_tls(address: &str, config: Arc<rustls::ClientConfig>) -> std::io::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
    let request = format!("GET {EVENT} HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    Ok(rest(&mut stream).await)
}

#[tokio::test]
async fn connections_are_encrypted_and_a_certificate_that_changes_is_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let first = certificate(folder.path());
    let files =
        json!({ "cert": folder.path().join("cert.pem"), "key": folder.path().join("key.pem"), "hsts": "1d" });
    let rig = Rig::start(json!({ "tls": files })).await;
    let answer = over_tls(&rig.address, first).await.unwrap();
    assert_eq!(
        (status(&answer), header(&answer, "strict-transport-security")),
        ("200", Some("max-age=86400"))
    );
    assert!(!rig.get(EVENT).await.contains("200 OK"), "plain text is not answered");
    // A file that is not whole leaves the certificate as it is.
    std::fs::write(folder.path().join("cert.pem"), "-----BEGIN").unwrap();
    let second = certificate(folder.path());
    let until = tokio::time::Instant::now() + PATIENCE;
    while over_tls(&rig.address, second.clone()).await.is_err() {
        assert!(tokio::time::Instant::now() < until, "the new certificate is not shown");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn every_mistake_in_the_configuration_is_named() {
    let config = json!({
        "listen": "8080", "trusted_proxies": ["10.0.0.0/99"], "redirects": ["a b"], "cors": { "origins": ["/"] },
        "limits": { "headers": "1KiB", "body": "1GiB" }, "timeouts": { "idle": "0s" },
        "root": { "status": 100 }, "inputs": { "snowplow": { "paths": { "x": "y" } } },
    });
    let setting = forebay_api::SourceSetting { name: "web".into(), vendor: "v".into(), dry_run: false };
    let plan = crate::source::plan::Plan::new(serde_json::from_value(config).unwrap(), &setting);
    let at: Vec<String> = plan.err().unwrap().into_iter().map(|mistake| mistake.at).collect();
    assert_eq!(
        at,
        [
            "/listen",
            "/limits/headers",
            "/limits/body",
            "/timeouts/idle",
            "/cors/origins/0",
            "/redirects/0",
            "/trusted_proxies/0",
            "/root/status",
            "/inputs/snowplow/paths/x",
        ]
    );
}

/// A request of any kind.
fn request(first: &str, headers: &str, body: &str) -> String {
    format!(
        "{first} HTTP/1.1\r\nHost: c\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn every_input_is_reached_under_its_path_and_each_event_names_its_input() {
    let rig = Rig::start(json!({})).await;
    let cloudevent = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":1}}"#;
    for (first, headers, body, expected) in [
        ("GET /i?e=pv", "", "", "200"),
        ("POST /cloudevents", "Content-Type: application/cloudevents+json\r\n", cloudevent, "200"),
        ("POST /self-describing", "", r#"{"payload":{"schema":"com.acme/a/1-0-0","data":{}}}"#, "200"),
        ("POST /webhook/com.acme/b/1-0-0", "Content-Type: application/json\r\n", "{}", "200"),
        ("GET /pixel?a=1", "", "", "200"),
        ("GET /webhook", "", "", "405"),
        ("GET /nothing", "", "", "404"),
    ] {
        let answer = rig.exchange(request(first, headers, body)).await;
        assert_eq!(status(&answer), expected, "{first}: {answer}");
    }
    let chunks = rig.chunks.lock().unwrap();
    let all = chunks.iter().flat_map(|chunk| chunk.events()).map(|event| {
        let source = &event.subject().source;
        let input = source.split("\"input\":\"").nth(1).and_then(|rest| rest.split('"').next());
        (input.unwrap().to_owned(), event.subject().schema_key())
    });
    let expected = [
        ("snowplow", "io.forebay/page_view/1-0-0"),
        ("cloudevents", "io.forebay/arbitrary/1-0-0"),
        ("self_describing", "com.acme/a/1-0-0"),
        ("webhook", "com.acme/b/1-0-0"),
        ("pixel", "io.forebay/arbitrary/1-0-0"),
    ];
    assert_eq!(all.collect::<Vec<_>>(), expected.map(|(input, key)| (input.to_owned(), key.to_owned())));
    assert!(chunks.iter().all(|chunk| chunk.refused.is_empty()), "{chunks:?}");
}

#[tokio::test]
async fn only_inputs_that_are_named_are_there_and_each_has_tokens_of_its_own() {
    let inputs = json!({ "cloudevents": { "tokens": ["a"] }, "self_describing": { "tokens": ["b"] }, "webhook": { "tokens": ["c"] } });
    let rig = Rig::start(json!({ "inputs": inputs })).await;
    assert_eq!(status(&rig.get("/i?e=pv").await), "404");
    assert_eq!(status(&rig.get("/pixel").await), "404");
    let body = r#"{"payload":{"schema":"com.acme/a/1-0-0","data":{}}}"#;
    for (path, token) in [("/cloudevents", "a"), ("/self-describing", "b"), ("/webhook", "c")] {
        for (given, expected) in [(token, "200"), ("x", "401"), ("", "401")] {
            let headers = format!("Content-Type: application/json\r\nAuthorization: Bearer {given}\r\n");
            let answer = rig.exchange(request(&format!("POST {path}"), &headers, body)).await;
            assert_eq!(status(&answer), expected, "{path} with `{given}`: {answer}");
        }
    }
    // The handshake is answered by the input, which is not a preflight of a browser.
    let asked = "WebHook-Request-Origin: events.acme.com\r\nAuthorization: Bearer a\r\n";
    let answer = rig.exchange(request("OPTIONS /cloudevents", asked, "")).await;
    assert_eq!(status(&answer), "200");
    assert_eq!(header(&answer, "webhook-allowed-origin"), Some("events.acme.com"), "{answer}");
}

#[tokio::test]
async fn a_pixel_leads_only_where_redirects_may_lead() {
    let rig = Rig::start(json!({ "redirects": ["*.acme.com"] })).await;
    let answer = rig.get("/pixel?a=1&rto=https%3A%2F%2Fwww.acme.com%2Fx").await;
    assert_eq!((status(&answer), header(&answer, "location")), ("302", Some("https://www.acme.com/x")));
    assert_eq!(status(&rig.get("/pixel?a=1&rto=https%3A%2F%2Fevil.example%2Fx").await), "403");
}
