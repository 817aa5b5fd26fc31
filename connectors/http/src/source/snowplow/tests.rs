//! What real trackers sent, and what nobody should send.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use forebay_api::{Chunk, StreamId};
use http::{HeaderMap, HeaderName, StatusCode};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

/// When every request of these tests comes: 2026-11-22, in microseconds.
const RECEIVED: i64 = 1_795_373_600_000_000;
const POST_PATH: &str = "/com.snowplowanalytics.snowplow/tp2";

/// A request in parts, and what is configured.
struct Sent {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Vec<u8>,
    client: Option<IpAddr>,
    config: Value,
    redirects: Vec<String>,
    client_address: ClientAddress,
}

/// What became of it.
struct Got {
    answer: Answer,
    chunk: Chunk,
}

fn get(target: &str) -> Sent {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Sent {
        method: Method::GET,
        path: path.into(),
        query: query.into(),
        headers: HeaderMap::new(),
        body: Vec::new(),
        client: Some("9.9.9.9".parse().unwrap()),
        config: json!({}),
        redirects: Vec::new(),
        client_address: ClientAddress::Keep,
    }
}

fn post(target: &str, body: impl Into<Vec<u8>>) -> Sent {
    Sent { method: Method::POST, body: body.into(), ..get(target) }
}

/// A batch of these items.
fn batch_of(items: Value) -> Sent {
    let schema = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4";
    post(POST_PATH, json!({ "schema": schema, "data": items }).to_string())
}

impl Sent {
    fn header(mut self, name: &str, value: &str) -> Sent {
        self.headers.append(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        self
    }

    fn with(mut self, config: Value) -> Sent {
        self.config = config;
        self
    }

    fn read(self) -> Got {
        let config = serde_json::from_value(self.config).unwrap();
        let shared =
            Shared { redirects: Hosts::parse(&self.redirects).unwrap(), client_address: self.client_address };
        let settings = Settings::new(&config, &shared).unwrap();
        assert!(settings.takes(&self.path), "{}", self.path);
        let request = Request {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
            body: &self.body,
            received: RECEIVED,
            client: self.client.and_then(|client| self.client_address.keep(client)),
        };
        let mut gathered = Gathered::new("web".into(), "snowplow");
        let answer = read(&request, &settings, &mut gathered);
        let stream = Arc::new(StreamId { source: "web".into(), epoch: 1 });
        Got { answer, chunk: gathered.finish(&stream, RECEIVED, 1) }
    }
}

impl Got {
    fn payload(&self, at: usize) -> Value {
        serde_json::from_slice(self.chunk.event(at).payload()).unwrap()
    }

    fn contexts(&self, at: usize) -> Value {
        serde_json::from_slice(self.chunk.event(at).contexts()).unwrap()
    }

    /// The entity of what goes with every event.
    fn common(&self, at: usize) -> Value {
        self.contexts(at)[0]["data"].clone()
    }

    fn schema(&self, at: usize) -> String {
        self.chunk.event(at).subject().schema_key()
    }

    /// Asserts that all events are readable.
    fn valid(self) -> Got {
        assert_eq!(self.chunk.refused, [], "{:?}", self.chunk.refused);
        self
    }

    /// The reasons of the one event.
    fn reasons(&self) -> Vec<String> {
        assert_eq!((self.chunk.rows.len(), self.chunk.refused.len()), (1, 1));
        let why = &self.chunk.refused[0].1;
        let details: Vec<_> = why.details.iter().map(|detail| detail.message.clone()).collect();
        if details.is_empty() { vec![why.message.clone()] } else { details }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.answer.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.to_str().unwrap())
    }
}

/// The captured requests of a client library.
fn recorded(lines: &str) -> Vec<Sent> {
    #[derive(Deserialize)]
    struct Line {
        method: String,
        target: String,
        headers: BTreeMap<String, String>,
        body: String,
    }
    let sent = |line: &str| {
        let line: Line = serde_json::from_str(line).unwrap();
        let mut sent = get(&line.target);
        (sent.method, sent.body) = (line.method.parse().unwrap(), line.body.into_bytes());
        line.headers.iter().fold(sent, |sent, (name, value)| sent.header(name, value))
    };
    lines.lines().map(sent).collect()
}

#[test]
fn every_request_of_the_python_tracker_is_read_whole() {
    let requests = recorded(include_str!("../../../tests/snowplow-python-1.1.0.jsonl"));
    assert_eq!(requests.len(), 20);
    let got: Vec<Got> = requests.into_iter().map(|request| request.read().valid()).collect();
    for (at, got) in got.iter().enumerate() {
        let (body, kind) = (&got.answer.body, got.header("content-type").unwrap());
        if at < 10 {
            assert_eq!((&body[..], kind), (&b"ok"[..], "text/plain; charset=utf-8"));
        } else {
            assert_eq!((body.len(), kind), (43, "image/gif"));
        }
        let common = got.common(0);
        assert_eq!(common["user_ipaddress"], "1.2.3.4");
        assert_eq!(common["useragent"], "UA/1");
        assert_eq!(common["network_userid"], "ecdff4d0-9175-40ac-a8bb-325c49733607");
        assert_eq!((&common["dvce_screenwidth"], &common["br_viewheight"]), (&json!(100), &json!(20)));
        assert_eq!((&common["domain_sessionidx"], &common["br_colordepth"]), (&json!(3), &json!("24")));
    }
    assert_eq!(got[0].schema(0), "io.forebay/page_view/1-0-0");
    assert_eq!(got[0].chunk.event(0).id(), "e47fbb82-328d-4b19-b0d6-23cc16338b32");
    let page = json!({
        "page_url": "http://a.com/x?q=1", "page_urlscheme": "http", "page_urlhost": "a.com", "page_urlport": 80,
        "page_urlpath": "/x", "page_urlquery": "q=1", "page_title": "T", "page_referrer": "http://r.com",
        "refr_urlscheme": "http", "refr_urlhost": "r.com", "refr_urlport": 80,
    });
    let entity = json!({ "schema": "com.acme/ctx/1-0-0", "data": { "k": ">>>???" } });
    // base64 and plain, POST and GET
    for at in [0, 5, 10, 15] {
        assert_eq!(got[at].payload(0), page);
        assert_eq!(got[at].contexts(0)[1], entity, "{at}");
    }
    for at in [1, 6, 11, 16] {
        assert_eq!(
            (got[at].schema(0), got[at].payload(0)),
            ("com.acme/ev/1-0-0".into(), json!({ "k": ">>>???~~~" }))
        );
    }
    for at in [2, 7, 12, 17] {
        assert_eq!(got[at].payload(0)["se_value"].to_string(), "1.5");
        // `ttm` is when it happened
        assert_eq!(got[at].chunk.rows[0].time, 1_000_000_000_000_000);
        assert_eq!(got[at].common(0)["true_tstamp"], "2001-09-09T01:46:40.000000Z");
    }
    for at in [3, 8, 13, 18] {
        assert_eq!(got[at].payload(0)["pp_yoffset_max"], 4);
    }
    for at in [4, 9, 14, 19] {
        assert_eq!(got[at].schema(0), "com.snowplowanalytics.mobile/screen_view/1-0-0");
    }
    // `stm` is cut to seconds, so it is before `dtm`: the time of receipt counts
    assert_eq!(got[0].chunk.rows[0].time, RECEIVED);
}

#[test]
fn every_request_of_the_node_tracker_is_read_whole() {
    let got: Vec<Got> = recorded(include_str!("../../../tests/snowplow-node-4.8.0.jsonl"))
        .into_iter()
        .map(|sent| sent.read().valid())
        .collect();
    assert_eq!(got.iter().map(|got| got.chunk.rows.len()).sum::<usize>(), 28);
    let kinds: Vec<String> = (0..7).map(|at| got[0].schema(at)).collect();
    assert_eq!(
        kinds,
        [
            "io.forebay/page_view/1-0-0",
            "com.acme/ev/1-0-0",
            "io.forebay/structured_event/1-0-0",
            "io.forebay/page_ping/1-0-0",
            "io.forebay/transaction/1-0-0",
            "io.forebay/transaction_item/1-0-0",
            "com.snowplowanalytics.snowplow/ad_impression/1-0-0",
        ]
    );
    assert_eq!(got[0].payload(1), json!({ "k": ">>>???~~~ü" }));
    assert_eq!(got[0].payload(4)["tr_total"], 10);
    assert_eq!(got[0].payload(5)["ti_price"].to_string(), "1.5");
    assert_eq!(got[0].chunk.event(0).id(), "5641e14e-0e90-412b-8649-ec1229ede7e4");
    // it was made 3 ms before it was sent
    assert_eq!(got[0].chunk.rows[0].time, RECEIVED - 3_000);
    assert_eq!(got[0].common(0)["useragent"], "node");
    assert_eq!(got[0].common(0)["user_ipaddress"], "9.9.9.9");
}

#[test]
fn what_is_made_obeys_the_schemas_that_are_printed() {
    let schemas: BTreeMap<String, Value> = schemas().into_iter().collect();
    assert_eq!(schemas.len(), 8);
    let requests = recorded(include_str!("../../../tests/snowplow-python-1.1.0.jsonl"))
        .into_iter()
        .chain(recorded(include_str!("../../../tests/snowplow-node-4.8.0.jsonl")))
        .chain([get("/i?e=ad&ad_ba=b&ad_uid=u&x=y&cookie=1&refr=https://u@h:1/p?q%23f"), {
            let mut sent = get("/r/tp2?u=https%3A%2F%2Fa.org");
            sent.redirects = vec!["a.org".into()];
            sent
        }]);
    let mut checked = 0;
    for got in requests.map(|sent| sent.read().valid()) {
        for at in 0..got.chunk.rows.len() {
            let payload = [json!({ "schema": got.schema(at), "data": got.payload(at) })];
            for described in payload.iter().chain(got.contexts(at).as_array().unwrap()) {
                let Some(schema) = schemas.get(described["schema"].as_str().unwrap()) else { continue };
                if let Err(error) = jsonschema::validate(schema, &described["data"]) {
                    panic!("{error}: {described}");
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 80, "{checked}");
}

#[test]
fn a_bad_value_is_named_and_its_neighbours_go_on() {
    let got = batch_of(json!([
        { "e": "pv", "aid": "a" },
        { "e": "pv", "dtm": "yesterday", "vid": "1.5", "cookie": "maybe", "res": "big" },
        { "e": "se", "se_va": "0.10" },
    ]))
    .read();
    assert_eq!((got.answer.status, got.chunk.rows.len(), got.chunk.refused.len()), (StatusCode::OK, 3, 1));
    let (row, why) = &got.chunk.refused[0];
    assert_eq!((*row, why.kind.as_str(), why.details.len()), (1, "invalid_event", 4));
    assert_eq!((why.details[0].path.as_str(), why.details[0].keyword.as_str()), ("/dtm", "/time"));
    assert_eq!(why.details[0].message, "`dtm`: `yesterday` is not a time in milliseconds");
    assert!(why.message.ends_with("; and 3 more"), "{}", why.message);
    // what came is kept, untouched
    assert_eq!(
        got.payload(1),
        json!({ "e": "pv", "dtm": "yesterday", "vid": "1.5", "cookie": "maybe", "res": "big" })
    );
    assert_eq!(got.chunk.event(2).payload(), br#"{"se_value":0.10}"#);
}

#[test]
fn every_kind_of_wrong_event_says_what_is_wrong() {
    let ue = |json: &str| format!("/i?e=ue&ue_px={}", URL_SAFE_NO_PAD.encode(json));
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let outer = "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0";
    let own = |schema: &str, data: &str| {
        ue(&format!(r#"{{"schema":"{outer}","data":{{"schema":"{schema}","data":{data}}}}}"#))
    };
    for (target, reason) in [
        ("/i".into(), "`e`: it is missing"),
        ("/i?e=".into(), "`e`: it is missing"),
        ("/i?e=zz".into(), "`e`: `zz` is not one of pv, pp, se, tr, ti, ad, ue"),
        ("/i?e=pv&e=pv".into(), "`e`: it is given twice"),
        ("/i?e=pv&x=1&x=2".into(), "`x`: it is given twice"),
        ("/i?e=pv&page=%zz".into(), "`query`: the `%` at byte 0 is not followed"),
        ("/i?e=pv&page=%ff".into(), "`query`: it is not UTF-8"),
        ("/i?e=pv&eid=abc".into(), "`eid`: `abc` is not a UUID"),
        ("/i?e=pv&p=fridge".into(), "`p`: `fridge` is not one of web, iot"),
        ("/i?e=pv&url=http://a:b/".into(), "`url`: `http://a:b/` is not a URL: `b` is not a port"),
        ("/i?e=pv&ip=localhost".into(), "`ip`: `localhost` is not an IP address"),
        ("/i?e=pv&ttm=1e9".into(), "`ttm`: `1e9` is not a time"),
        ("/i?e=se&se_va=1e999".into(), "`se_va`: `1e999` is beyond what a double can hold"),
        ("/i?e=pv&ue_pr=%7B%7D".into(), "`ue_pr`: only an event with `e=ue` has it"),
        ("/i?e=ue".into(), "`ue_px`: it is missing, and so is `ue_pr`"),
        ("/i?e=ue&ue_px=!!".into(), "`ue_px`: the byte at 0"),
        ("/i?e=ue&ue_px=AAAAA".into(), "`ue_px`: base64 cannot be 5 characters"),
        ("/i?e=ue&ue_px=e30&ue_pr=%7B%7D".into(), "`ue_px`: `ue_px` and `ue_pr` are both given"),
        (ue("{}"), "`ue_px`: missing field `schema`"),
        (ue("nope"), "`ue_px`: expected ident"),
        (ue(r#"{"schema":"iglu:com.acme/x/jsonschema/1-0-0","data":{}}"#), "`ue_px`: it is of schema `com.acme/x/1-0-0`"),
        (ue(&format!(r#"{{"schema":"{outer}","schema":"{outer}","data":{{}}}}"#)), "`ue_px`: duplicate field `schema`"),
        (own("iglu:com.acme/../jsonschema/1-0-0", "{}"), "is not a schema key"),
        (own("https://evil.example/s/1-0-0", "{}"), "is not a schema key"),
        (own("file:///etc/passwd", "{}"), "is not a schema key"),
        (own("iglu:com.acme/x/jsonschema/1-0-0", &deep), "nested deeper than 64 levels"),
        ("/i?e=pv&co=%7B%22schema%22%3A%22iglu%3Acom.snowplowanalytics.snowplow%2Fcontexts%2Fjsonschema%2F1-0-0%22%2C%22data%22%3A%5Bnull%5D%7D".into(),
            "`co`: entity 0: invalid type: null"),
        ("/com.snowplowanalytics.iglu/v1".into(), "`schema` is missing"),
        ("/com.snowplowanalytics.iglu/v1?schema=..".into(), "is not a schema key"),
    ] {
        let got = get(&target).read();
        assert_eq!(got.answer.status, StatusCode::OK);
        let reasons = got.reasons();
        assert!(reasons[0].contains(reason), "{target}: {reasons:?}");
        let payload = got.payload(0);
        let query = target.split_once('?').map_or("", |(_, query)| query);
        assert_eq!(payload["query"].as_str().unwrap_or_default(), query, "what came is kept");
    }
}

#[test]
fn items_that_are_no_events_are_refused_one_by_one() {
    let schema = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4";
    let deep = format!("{{\"e\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for (item, reason) in [
        ("null", "it is not an object of parameters"),
        ("7", "it is not an object of parameters"),
        ("[]", "it is not an object of parameters"),
        ("{}", "`e`: it is missing"),
        (r#"{"e":null}"#, "`e`: `null` is not a string"),
        (r#"{"e":{"a":1}}"#, "is not a string"),
        (r#"{"e":"pv","e":"pv"}"#, "`e`: it is given twice"),
        (r#"{"e":"pv","page":"\ud800"}"#, "`page`: it is not text"),
        (r#"{"e":"se","se_va":1e999}"#, "beyond what a double can hold"),
        (&deep, "`e`: `["),
    ] {
        let body = format!(r#"{{"schema":"{schema}","data":[{{"e":"pv"}},{item},{{"e":"pv"}}]}}"#);
        let got = post(POST_PATH, body).read();
        assert_eq!(
            (got.answer.status, got.chunk.rows.len(), got.chunk.refused.len()),
            (StatusCode::OK, 3, 1),
            "{item}"
        );
        let why = &got.chunk.refused[0].1;
        assert!(
            why.details.iter().any(|d| d.message.contains(reason)) || why.message.contains(reason),
            "{item}: {why:?}"
        );
        let kept = got.chunk.event(1).payload();
        assert!(kept == item.as_bytes() || got.payload(1) == json!(deep), "{item}");
    }
    // a number is what its digits say, and nothing less
    let body = format!(r#"{{"schema":"{schema}","data":[{{"e":"se","se_va":12345678901234567890.10}}]}}"#);
    assert_eq!(
        post(POST_PATH, body).read().valid().chunk.event(0).payload(),
        br#"{"se_value":12345678901234567890.10}"#
    );
}

#[test]
fn a_body_that_is_no_batch_is_one_invalid_event_with_all_that_came() {
    let schema = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4";
    for (body, reason) in [
        (&b""[..], "the body is empty"),
        (b"hello", "the body is not a batch of events"),
        (b"{}", "missing field `schema`"),
        (b"[]", "the body is not a batch of events"),
        (b"\xff\xfe", "the body is not UTF-8"),
        (format!(r#"{{"schema":"{schema}","data":{{}}}}"#).as_bytes(), "is not an array"),
        (format!(r#"{{"schema":"{schema}","data":[]}}"#).as_bytes(), "`data` of the batch is empty"),
        (format!(r#"{{"schema":"{schema}","data":[],"data":[]}}"#).as_bytes(), "duplicate field `data`"),
        (br#"{"schema":"iglu:com.acme/x/jsonschema/1-0-0","data":[]}"#, "is of schema `com.acme/x/1-0-0`"),
        ("[".repeat(10_000).as_bytes(), "the body is not a batch of events"),
    ] {
        let got = post(POST_PATH, body).read();
        assert_eq!(got.answer.status, StatusCode::OK);
        let reasons = got.reasons();
        assert!(reasons[0].contains(reason), "{reasons:?}");
        let payload = got.payload(0);
        let kept = match &payload["body_base64"] {
            Value::String(text) => STANDARD.decode(text).unwrap(),
            _ => payload["body"].as_str().unwrap().into(),
        };
        assert_eq!(kept, body);
    }
}

#[test]
fn a_request_that_would_become_far_more_than_it_is_becomes_one_event() {
    let empty = |count: usize| Value::from(vec![json!({}); count]);
    let got = batch_of(empty(10_001)).read();
    assert!(got.reasons()[0].contains("10001 events are more than one request may have"));
    assert_eq!(batch_of(empty(10_000)).read().chunk.refused.len(), 10_000);
    let mut sent = batch_of(empty(5_000));
    sent.query = format!("aid={}", "a".repeat(8_000));
    assert_eq!(sent.read().chunk.rows.len(), 1);
    let got = batch_of(empty(5_000)).header("user-agent", &"a".repeat(8_000)).read();
    assert_eq!(got.chunk.rows.len(), 1);
    let mut sent = batch_of(empty(2));
    sent.query = "aid=1&aid=2".into();
    assert_eq!(sent.read().chunk.refused[0].1.kind, "invalid_query");
}

#[test]
fn the_query_is_merged_into_each_event_of_a_batch_and_wins() {
    let mut sent = batch_of(json!([{ "e": "pv", "aid": "own" }, { "e": "pv", "dtm": "x" }]));
    sent.query = "aid=query&tv=v".into();
    let got = sent.read();
    assert_eq!((&got.common(0)["app_id"], &got.common(0)["v_tracker"]), (&json!("query"), &json!("v")));
    assert_eq!(got.chunk.refused[0].1.details[0].path, "/event/dtm");
    assert_eq!(got.payload(1), json!({ "query": "aid=query&tv=v", "event": { "e": "pv", "dtm": "x" } }));
}

#[test]
fn base64_is_read_in_every_alphabet_padded_or_not() {
    let json = r#"{"schema":"iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-0","data":[{"schema":"iglu:com.acme/c/jsonschema/1-0-0","data":">>>???~~~ü"}]}"#;
    for encoded in [
        STANDARD.encode(json),
        STANDARD_NO_PAD.encode(json),
        URL_SAFE.encode(json),
        URL_SAFE_NO_PAD.encode(json),
    ] {
        for got in [get(&format!("/i?e=pv&cx={encoded}")), batch_of(json!([{ "e": "pv", "cx": encoded }]))] {
            assert_eq!(got.read().valid().contexts(0)[1]["data"], ">>>???~~~ü");
        }
    }
    for nothing in ["/i?e=pv&cx=", "/i?e=pv&co="] {
        assert_eq!(get(nothing).read().valid().contexts(0).as_array().unwrap().len(), 1);
    }
}

#[test]
fn what_is_unknown_is_kept_and_what_is_missing_is_not_made_up() {
    let got = get("/i?e=pv&future=1&zz=%22").read().valid();
    assert_eq!(got.common(0), json!({ "user_ipaddress": "9.9.9.9", "other": { "future": "1", "zz": "\"" } }));
    assert_eq!(got.payload(0), json!({}));
    assert_eq!(got.chunk.rows[0].time, RECEIVED);
    let id = got.chunk.event(0).id();
    assert_eq!(fresh_id(&id), Some(id.clone()));
}

fn fresh_id(text: &str) -> Option<String> {
    crate::source::fresh::canonical_uuid(text)
}

#[test]
fn the_time_is_never_made_of_a_clock_that_is_wrong() {
    for (query, expected) in [
        ("ttm=5000&dtm=1000&stm=3000", 5_000_000),
        ("dtm=1000&stm=3000", RECEIVED - 2_000_000),
        ("dtm=3000&stm=1000", RECEIVED),
        ("dtm=3000&stm=3000", RECEIVED),
        ("dtm=3000", RECEIVED),
        ("stm=3000", RECEIVED),
    ] {
        assert_eq!(get(&format!("/i?e=pv&{query}")).read().valid().chunk.rows[0].time, expected, "{query}");
    }
}

#[test]
fn who_the_visitor_is_is_told_by_the_tracker_first_then_by_the_cookie() {
    let cookie = "11111111-1111-4111-8111-111111111111";
    let with = |target: &str| {
        get(target).header("cookie", &format!("a=b; sp={cookie}; c=d")).with(json!({ "cookie": {} }))
    };
    let nuid = "22222222-2222-4222-8222-222222222222";
    for (target, expected, set) in [
        (format!("/i?e=pv&tnuid=t&nuid={nuid}"), "t", nuid),
        (format!("/i?e=pv&nuid={nuid}"), nuid, nuid),
        ("/i?e=pv".to_owned(), cookie, cookie),
    ] {
        let got = with(&target).read().valid();
        assert_eq!(got.common(0)["network_userid"], expected);
        assert!(
            got.header("set-cookie")
                .unwrap()
                .starts_with(&format!("sp={set}; Path=/; Max-Age=31536000; SameSite=None; Secure; HttpOnly"))
        );
    }
    let got = get("/i?e=pv").header("cookie", "sp=evil\"value").with(json!({ "cookie": {} })).read().valid();
    let id = got.common(0)["network_userid"].as_str().unwrap().to_owned();
    assert!(fresh_id(&id).is_some() && got.header("set-cookie").unwrap().contains(&id));
    assert_eq!(get("/i?e=pv").read().valid().header("set-cookie"), None);
}

#[test]
fn an_anonymous_visitor_leaves_neither_cookie_nor_address() {
    let config = json!({ "cookie": { "fallback_domain": "acme.com" } });
    let got = get("/i?e=pv&ip=1.2.3.4")
        .header("sp-anonymous", "*")
        .header("cookie", "sp=x")
        .with(config.clone())
        .read()
        .valid();
    assert_eq!(
        got.header("set-cookie"),
        Some("sp=; Domain=acme.com; Path=/; Max-Age=0; SameSite=None; Secure; HttpOnly")
    );
    assert_eq!(got.common(0), json!({}));
    let got = get("/i?e=pv").header("sp-anonymous", "*").with(config).read().valid();
    assert_eq!(got.header("set-cookie"), None);
}

#[test]
fn addresses_are_kept_as_far_as_is_configured() {
    for (keep, query, expected) in [
        (ClientAddress::Keep, "", json!("9.9.9.9")),
        (ClientAddress::Truncate, "", json!("9.9.9.0")),
        (ClientAddress::Truncate, "&ip=2001:db8:1:2::3", json!("2001:db8:1::")),
        (ClientAddress::Drop, "&ip=1.2.3.4", Value::Null),
    ] {
        let mut sent = get(&format!("/i?e=pv{query}"));
        sent.client_address = keep;
        assert_eq!(sent.read().valid().common(0)["user_ipaddress"], expected, "{keep:?}");
    }
}

#[test]
fn a_cookie_is_set_for_the_domain_of_the_page() {
    let config = json!({ "cookie": { "domains": ["acme.com", "b.org"], "fallback_domain": "c.net", "same_site": "lax", "http_only": false } });
    for (origin, domain) in [
        ("https://www.acme.com", "acme.com"),
        ("https://b.org:8443", "b.org"),
        ("https://evilacme.com", "c.net"),
        ("null", "c.net"),
    ] {
        let got = get("/i?e=pv").header("origin", origin).with(config.clone()).read().valid();
        let cookie = got.header("set-cookie").unwrap();
        assert!(
            cookie.ends_with(&format!("; Domain={domain}; Path=/; Max-Age=31536000; SameSite=Lax; Secure")),
            "{cookie}"
        );
    }
}

#[test]
fn a_browser_is_asked_once_whether_it_takes_cookies() {
    let config = json!({ "cookie": { "bounce": true } });
    let got = get("/i?e=pv&aid=a").with(config.clone()).read();
    assert_eq!((got.answer.status, got.chunk.rows.len()), (StatusCode::FOUND, 0));
    assert_eq!(got.header("location"), Some("/i?e=pv&aid=a&n3pc=true"));
    let cookie = got.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let got = get("/i?e=pv&aid=a&n3pc=true").with(config.clone()).read().valid();
    assert_eq!(got.common(0)["network_userid"], "00000000-0000-4000-a000-000000000000");
    let got = get("/i?e=pv&aid=a&n3pc=true").header("cookie", &cookie).with(config.clone()).read().valid();
    assert_eq!(format!("sp={}", got.common(0)["network_userid"].as_str().unwrap()), cookie);
    let mut sent = batch_of(json!([{ "e": "pv" }]));
    sent.config = config;
    assert_eq!(sent.read().valid().answer.status, StatusCode::OK);
}

#[test]
fn who_asks_not_to_be_tracked_is_answered_and_not_stored() {
    let config = json!({ "do_not_track": { "name": "dnt", "value": "yes-*" }, "cookie": {} });
    let got = get("/i?e=pv").header("cookie", "dnt=yes-please").with(config.clone()).read();
    assert_eq!((got.answer.status, got.answer.body.len(), got.chunk.rows.len()), (StatusCode::OK, 43, 0));
    assert_eq!(got.header("set-cookie"), None);
    assert_eq!(get("/i?e=pv").header("cookie", "dnt=no").with(config).read().valid().chunk.rows.len(), 1);
}

#[test]
fn a_redirect_is_an_event_or_an_entity_of_one_and_leads_only_where_it_may() {
    let sent = |target: &str| Sent { redirects: vec!["*.acme.com".into()], ..get(target) };
    let got = sent("/r/tp2?u=https%3A%2F%2Fwww.acme.com%2Fx%3Fa%3Db&aid=app").read().valid();
    assert_eq!(
        (got.answer.status, got.header("location")),
        (StatusCode::FOUND, Some("https://www.acme.com/x?a=b"))
    );
    assert_eq!(got.schema(0), "com.snowplowanalytics.snowplow/uri_redirect/1-0-0");
    assert_eq!(got.payload(0), json!({ "uri": "https://www.acme.com/x?a=b" }));
    assert_eq!(got.common(0)["app_id"], "app");
    let got = sent("/r/tp2?u=https%3A%2F%2Fwww.acme.com&e=se&se_ca=c").read().valid();
    assert_eq!(got.schema(0), "io.forebay/structured_event/1-0-0");
    assert_eq!(got.contexts(0)[1]["data"], json!({ "uri": "https://www.acme.com" }));
    for (target, status) in
        [("/r/tp2", 400), ("/r/tp2?u=https%3A%2F%2Fevil.com", 403), ("/r/tp2?u=javascript:x", 403)]
    {
        let got = sent(target).read();
        assert_eq!((got.answer.status.as_u16(), got.chunk.rows.len()), (status, 0));
    }
}

#[test]
fn paths_are_those_of_the_protocol_and_those_that_stand_for_them() {
    let settings = |config: Value| {
        let shared = Shared { redirects: Hosts::default(), client_address: ClientAddress::Keep };
        Settings::new(&serde_json::from_value(config).unwrap(), &shared)
    };
    let plain = settings(json!({ "paths": { "/t": POST_PATH, "/p.gif": "/i" } })).unwrap();
    for path in
        ["/i", "/ice.png", POST_PATH, "/com.acme/track", "/t", "/p.gif", "/com.snowplowanalytics.iglu/v1"]
    {
        assert!(plain.takes(path), "{path}");
    }
    for path in [
        "/",
        "/x",
        "/i/",
        "/wp-admin/setup.php",
        "/com.acme",
        "/com.acme/",
        "/com.acme/a/b",
        "/com..acme/x",
        "//i",
        "/r/tp2",
        "/../x",
        "/%63om.acme/x",
    ] {
        assert!(!plain.takes(path), "{path}");
    }
    assert_eq!(settings(json!({ "paths": { "t": "/nowhere" } })).unwrap_err()[0].at, "/snowplow/paths/t");
    let wrong = json!({ "cookie": { "secure": false }, "do_not_track": { "name": "a", "value": "[" } });
    assert_eq!(settings(wrong).unwrap_err().len(), 2);
}

#[test]
fn the_iglu_webhook_takes_data_whose_schema_is_named() {
    const PATH: &str = "/com.snowplowanalytics.iglu/v1";
    let key = "iglu:com.acme/hook/jsonschema/1-0-0";
    let with_schema = format!("{PATH}?schema={key}");
    let described = json!({ "schema": key, "data": { "a": 1 } });
    for (sent, payloads) in [
        (get(&format!("{with_schema}&a=1&b=x%20y")), vec![json!({ "a": "1", "b": "x y" })]),
        (post(&with_schema, r#"{"a":1}"#), vec![json!({ "a": 1 })]),
        (post(&with_schema, r#"[{"a":1},{"a":2}]"#), vec![json!({ "a": 1 }), json!({ "a": 2 })]),
        (
            post(&with_schema, "a=1&b=2").header("content-type", "application/x-www-form-urlencoded"),
            vec![json!({ "a": "1", "b": "2" })],
        ),
        (post(PATH, described.to_string()), vec![json!({ "a": 1 })]),
        (post(PATH, json!([described, described]).to_string()), vec![json!({ "a": 1 }); 2]),
    ] {
        let got = sent.read().valid();
        assert_eq!((0..got.chunk.rows.len()).map(|at| got.payload(at)).collect::<Vec<_>>(), payloads);
        assert_eq!(got.schema(0), "com.acme/hook/1-0-0");
    }
    for body in ["", "x", "[]", "{}", r#"[{"schema":"x","data":1}]"#] {
        assert_eq!(post(PATH, body).read().reasons().len(), 1, "{body}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
        prop_oneof![Just("pv"), Just("ue"), Just("se"), Just("zz"), Just("1"), Just("")]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let name = prop_oneof![
            Just("e".to_owned()),
            Just("eid".into()),
            Just("dtm".into()),
            Just("cx".into()),
            Just("ue_pr".into()),
            ".*"
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_item_of_a_batch_is_accounted_for_exactly_once(items in prop::collection::vec(any_json(), 1..8), query in "(&?(e|aid|eid|%|=|x|\\+){0,4}){0,3}") {
        let mut sent = batch_of(Value::from(items.clone()));
        let body = String::from_utf8(sent.body.clone()).unwrap();
        sent.query = query;
        let got = sent.read();
        if got.chunk.refused.first().is_some_and(|(_, why)| why.kind == "invalid_query") {
            // Nothing is known of any of them, and all of it is kept once.
            prop_assert_eq!((got.chunk.rows.len(), &got.payload(0)["body"]), (1, &json!(body)));
            return Ok(());
        }
        prop_assert_eq!((got.answer.status, got.chunk.rows.len()), (StatusCode::OK, items.len()));
        for at in 0..items.len() {
            got.payload(at);
            let refused = got.chunk.refused.iter().filter(|(row, _)| *row as usize == at).count();
            prop_assert!(refused == 1 || refused == 0 && got.contexts(at).is_array());
        }
    }

    #[test]
    fn any_bytes_are_one_event(body: Vec<u8>, path in prop_oneof![Just(POST_PATH), Just("/com.snowplowanalytics.iglu/v1")]) {
        let got = post(path, body).read();
        prop_assert_eq!((got.answer.status, got.chunk.rows.len(), got.chunk.refused.len()), (StatusCode::OK, 1, 1));
        got.payload(0);
    }

    #[test]
    fn any_query_is_one_event(query in "[ -~]{0,64}") {
        for path in ["/i", "/com.acme/track"] {
            let got = Sent { query: query.clone(), ..get(path) }.read();
            prop_assert_eq!((got.answer.status, got.chunk.rows.len()), (StatusCode::OK, 1));
            got.payload(0);
        }
    }
}

#[test]
fn the_schemas_that_are_shipped_are_those_of_the_table() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/schemas");
    for (key, schema) in schemas() {
        let key: forebay_api::SchemaKey = key.parse().unwrap();
        let path = root.join(key.iglu_path().unwrap());
        let fresh = format!("{schema:#}\n");
        if std::env::var_os("FOREBAY_RENEW").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &fresh).unwrap();
        }
        let shipped = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            shipped == fresh,
            "`{}` is not what the table says; set FOREBAY_RENEW=1 to renew it",
            path.display()
        );
    }
}
