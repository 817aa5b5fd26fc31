//! A request made of fuzzed bytes, and what must be true of the events of any request.

use std::sync::Arc;

use forebay_api::StreamId;
use forebay_http::source::{Answer, Gathered, Request};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// Cuts `data` at lines: the path and query, headers up to an empty line, the body.
pub fn run(
    data: &[u8],
    method: Method,
    mount: &str,
    read: impl FnOnce(&Request<'_>, &mut Gathered) -> Answer,
) -> (Answer, usize) {
    let mut lines = data.splitn(2, |&byte| byte == b'\n');
    let target = lines.next().and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    let target = format!("{mount}{target}");
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut rest = lines.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let (line, more) = (&rest[..end], &rest[end + 1..]);
        rest = more;
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { break };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            let _ = headers.try_append(name, value);
        }
    }
    let request =
        Request { method: &method, path, query, headers: &headers, body: rest, received: 1_795_372_440_123_456, client: None };
    let mut gathered = Gathered::new("web".into(), "fuzz");
    let answer = read(&request, &mut gathered);
    let chunk = gathered.finish(&Arc::new(StreamId { source: "web".into(), epoch: 1 }), request.received, 0);
    for event in chunk.events() {
        for json in [event.payload(), event.contexts()] {
            let read: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(json);
            assert!(json.is_empty() || read.is_ok(), "{}", String::from_utf8_lossy(json));
        }
        assert!(event.id().parse::<u8>().is_err() && event.id().len() == 36);
    }
    (answer, chunk.rows.len())
}
