//! A fake in front of the stand-in for Kinesis: it does what AWS does under load and moto never does. It hands calls on to
//! moto, but fails chosen records of them as a shard over its limits does, or answers a call with an error of its own.
//! It can also take calls alone, for tests with more records than moto takes in good time: what a record costs it grows
//! with those that are there.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{Kinesis, free_ports, receiver};

/// Says of the data of a record with which code it fails.
type Failing = Box<dyn FnMut(&str) -> Option<&'static str> + Send>;

/// One PutRecords that came: each record's partition key and data, and the code that it failed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The stream.
    pub stream: String,
    /// In the order of the call.
    pub records: Vec<(String, String, Option<&'static str>)>,
}

/// What the test wishes.
#[derive(Default)]
struct Plan {
    failing: Option<Failing>,
    /// Answers to the next calls, one each.
    errors: VecDeque<(u16, &'static str)>,
    /// The answer to all calls.
    always: Option<(u16, &'static str)>,
    calls: Vec<Call>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("calls", &self.calls).finish_non_exhaustive()
    }
}

/// What the handler works with.
#[derive(Clone)]
struct Behind {
    plan: Arc<Mutex<Plan>>,
    client: reqwest::Client,
    /// Where moto is; `None`: records are taken here.
    url: Option<String>,
}

/// The fake.
#[derive(Debug)]
pub struct KinesisFaults {
    port: u16,
    plan: Arc<Mutex<Plan>>,
    runtime: Option<Runtime>,
}

impl KinesisFaults {
    /// One that hands on everything, in front of this server.
    pub async fn before(kinesis: &Kinesis) -> Self {
        Self::start(Some(format!("http://127.0.0.1:{}/", kinesis.port()))).await
    }

    /// One that takes records itself, into any stream; [`KinesisFaults::calls`] has them.
    pub async fn alone() -> Self {
        // An error says that another test was first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self::start(None).await
    }

    async fn start(url: Option<String>) -> Self {
        let port = free_ports(1);
        let plan = Arc::new(Mutex::new(Plan::default()));
        let behind = Behind { plan: plan.clone(), client: reqwest::Client::new(), url };
        let router = Router::new().fallback(call).layer(DefaultBodyLimit::disable()).with_state(behind);
        Self { port, plan, runtime: Some(receiver::serve(port, router).await) }
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Asks for each record whether it fails, and with which code; the others of its call are put all the same.
    pub fn fail_records(&self, failing: impl FnMut(&str) -> Option<&'static str> + Send + 'static) {
        self.plan().failing = Some(Box::new(failing));
    }

    /// Fails no more records.
    pub fn fail_no_records(&self) {
        self.plan().failing = None;
    }

    /// Answers the next call that has no answer yet with a status and a code; may be said several times.
    pub fn answer_next(&self, status: u16, code: &'static str) {
        self.plan().errors.push_back((status, code));
    }

    /// Answers all calls so; `None`: as before.
    pub fn answer_always(&self, answer: Option<(u16, &'static str)>) {
        self.plan().always = answer;
    }

    /// Every PutRecords that was handed on, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.plan().calls.clone()
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for KinesisFaults {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

async fn call(State(behind): State<Behind>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").map(|target| target.as_bytes().to_vec()).unwrap_or_default();
    if target != b"Kinesis_20131202.PutRecords" {
        return hand_on(&behind, &headers, body.to_vec()).await;
    }
    let mut request: Value = serde_json::from_slice(&body).expect("a call is JSON");
    let codes = match behind.plan.lock().unwrap_or_else(PoisonError::into_inner).judge(&mut request) {
        Ok(codes) => codes,
        Err((status, code)) => {
            let said = json!({"__type": code, "message": "as the test wishes"}).to_string();
            let status = StatusCode::from_u16(status).expect("a test's status");
            return (status, [("content-type", "application/x-amz-json-1.1")], said).into_response();
        }
    };
    if behind.url.is_none() || request["Records"].as_array().is_some_and(Vec::is_empty) {
        let taken = codes.iter().filter(|code| code.is_none());
        let taken: Vec<Value> = taken.map(|_| json!({"SequenceNumber": "1", "ShardId": "none"})).collect();
        return answered(&mut json!({"Records": taken}), &codes);
    }
    let response = hand_on(&behind, &headers, request.to_string().into_bytes()).await;
    if response.status() != StatusCode::OK || codes.iter().all(Option::is_none) {
        return response;
    }
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("it is all there");
    answered(&mut serde_json::from_slice(&body).expect("moto answers JSON"), &codes)
}

impl Plan {
    /// Takes the records that shall fail out of the call; the code of each, or the error of the whole.
    fn judge(&mut self, request: &mut Value) -> Result<Vec<Option<&'static str>>, (u16, &'static str)> {
        if let Some(error) = self.errors.pop_front().or(self.always) {
            return Err(error);
        }
        let stream = request["StreamName"].as_str().expect("a call names its stream").to_owned();
        let records = request["Records"].take();
        let Value::Array(records) = records else { panic!("a call has records") };
        let mut call = Call { stream, records: Vec::new() };
        let mut left = Vec::new();
        for record in records {
            let text = |name: &str| record[name].as_str().expect("a record has text").to_owned();
            let data = STANDARD.decode(text("Data")).expect("data is base64");
            let data = String::from_utf8(data).expect("events are JSON");
            let code = self.failing.as_mut().and_then(|failing| failing(&data));
            call.records.push((text("PartitionKey"), data, code));
            if code.is_none() {
                left.push(record);
            }
        }
        request["Records"] = Value::Array(left);
        let codes = call.records.iter().map(|(_, _, code)| *code).collect();
        self.calls.push(call);
        Ok(codes)
    }
}

/// The answer to a call some of whose records were never handed on.
fn answered(put: &mut Value, codes: &[Option<&'static str>]) -> Response {
    let Value::Array(put) = put["Records"].take() else { panic!("moto answers for records") };
    let mut put = put.into_iter();
    let records: Vec<Value> = codes
        .iter()
        .map(|code| match code {
            Some(code) => json!({"ErrorCode": code, "ErrorMessage": "as the test wishes"}),
            None => put.next().expect("moto answers for every record"),
        })
        .collect();
    let failed = codes.iter().flatten().count();
    let said = json!({"FailedRecordCount": failed, "Records": records}).to_string();
    (StatusCode::OK, [("content-type", "application/x-amz-json-1.1")], said).into_response()
}

async fn hand_on(behind: &Behind, headers: &HeaderMap, body: Vec<u8>) -> Response {
    let url = behind.url.as_ref().expect("a test that looks at streams has a server behind it");
    let mut request = behind.client.post(url).body(body);
    for name in ["x-amz-target", "content-type", "authorization"] {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value.as_bytes());
        }
    }
    let Ok(answer) = request.send().await else {
        return (StatusCode::BAD_GATEWAY, "moto is gone").into_response();
    };
    let status = StatusCode::from_u16(answer.status().as_u16()).expect("a status is a status");
    match answer.bytes().await {
        Ok(body) => (status, [("content-type", "application/x-amz-json-1.1")], body).into_response(),
        Err(_) => (StatusCode::BAD_GATEWAY, "moto is gone").into_response(),
    }
}
