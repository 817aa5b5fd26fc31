//! A receiver of events over HTTP: a server of the tests' own (hyper and axum, so real HTTP) that keeps what came and
//! answers as a test wants.
//!
//! What it answers 2xx it has kept before, and it keeps it when it is killed: it stands for a receiver with a disk.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

use crate::{PATIENCE, free_ports};

/// How often a test that waits for requests looks.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// What a receiver answers.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

impl Reply {
    /// A status with the words of a body.
    pub fn new(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.to_owned() }
    }

    /// The same with a header.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// A request that came, and what became of it.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as it was sent.
    pub body: Vec<u8>,
    /// The events in it, decompressed and taken apart as its `Content-Type` says.
    pub events: Vec<String>,
    /// What it was answered.
    pub status: u16,
}

impl Arrived {
    /// The value of a header, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("our headers are text"))
    }
}

/// How requests are answered that no reply was set for.
#[derive(Debug, Default)]
struct Manners {
    /// For the next requests, one each.
    next: VecDeque<Reply>,
    /// For all.
    always: Option<Reply>,
    /// A body with more in it, decompressed, is answered 413.
    most_bytes: Option<usize>,
    /// A body with these words in it is answered 422.
    dislikes: Option<String>,
}

/// What is left when the server is killed.
#[derive(Debug, Default)]
struct Kept {
    manners: Manners,
    arrived: Vec<Arrived>,
}

/// The server.
#[derive(Debug)]
pub struct Receiver {
    port: u16,
    kept: Arc<Mutex<Kept>>,
    runtime: Option<Runtime>,
}

impl Receiver {
    /// Starts one that takes everything.
    pub async fn start() -> Self {
        let mut receiver = Self { port: free_ports(1), kept: Arc::default(), runtime: None };
        receiver.start_again().await;
        receiver
    }

    /// Starts it again after [`Receiver::kill`], on the same port and with what it had kept.
    pub async fn start_again(&mut self) {
        let router =
            Router::new().fallback(arrive).layer(DefaultBodyLimit::disable()).with_state(self.kept.clone());
        self.runtime = Some(serve(self.port, router).await);
    }

    /// Ends it in the middle of whatever it is doing.
    pub fn kill(&mut self) {
        // Its connections are reset with their tasks.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Answers the next request that has no reply yet so; may be said several times.
    pub fn answer_next(&self, reply: Reply) {
        self.kept().manners.next.push_back(reply);
    }

    /// Answers all requests so that have no reply of their own; `None`: as before.
    pub fn answer_always(&self, reply: Option<Reply>) {
        self.kept().manners.always = reply;
    }

    /// Answers 413 to a body with more bytes of events in it, decompressed.
    pub fn take_at_most(&self, bytes: usize) {
        self.kept().manners.most_bytes = Some(bytes);
    }

    /// Answers 422 to a body that has these words in it.
    pub fn dislike(&self, words: &str) {
        self.kept().manners.dislikes = Some(words.to_owned());
    }

    /// Every request that came, in order.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.kept().arrived.clone()
    }

    /// The events of the requests that were answered 2xx, in the order they came, repeats included.
    pub fn taken(&self) -> Vec<String> {
        let kept = self.kept();
        let taken = kept.arrived.iter().filter(|arrived| (200..300).contains(&arrived.status));
        taken.flat_map(|arrived| arrived.events.iter().cloned()).collect()
    }

    /// Waits until so many events are taken, and gives them.
    pub async fn expect(&self, count: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let taken = self.taken();
            if taken.len() >= count {
                return taken;
            }
            assert!(
                Instant::now() < deadline,
                "the receiver has {} events after {PATIENCE:?}, not {count}",
                taken.len()
            );
            sleep(LOOK_PAUSE).await;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server on a port of 127.0.0.1 that ends, with all its connections, when the runtime that is given does; returns when
/// it listens.
pub(crate) async fn serve(port: u16, router: Router) -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().expect("threads can be started");
    let bound = runtime.spawn(async move {
        let listener = TcpListener::bind(("127.0.0.1", port)).await;
        let listener = listener.unwrap_or_else(|error| panic!("cannot listen on port {port}: {error}"));
        tokio::spawn(axum::serve(listener, router).into_future());
    });
    bound.await.expect("the port is free");
    runtime
}

/// Keeps a request and answers it, at once: nobody sees it kept and not answered but who is cut off.
async fn arrive(
    State(kept): State<Arc<Mutex<Kept>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let events = if method == Method::HEAD { Vec::new() } else { events(&headers, &body) };
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let reply = kept.manners.answer(&events);
    let status = reply.status;
    kept.arrived.push(Arrived { method, uri, headers, body: body.into(), events, status });
    let mut response = (StatusCode::from_u16(status).expect("a test's status"), reply.body).into_response();
    for (name, value) in reply.headers {
        response.headers_mut().insert(name, value.parse().expect("a test's header"));
    }
    response
}

impl Manners {
    fn answer(&mut self, events: &[String]) -> Reply {
        if let Some(reply) = self.next.pop_front().or_else(|| self.always.clone()) {
            return reply;
        }
        if self.most_bytes.is_some_and(|most| events.iter().map(String::len).sum::<usize>() > most) {
            return Reply::new(413, "too much at once");
        }
        let disliked = |words: &String| events.iter().any(|event| event.contains(words.as_str()));
        if self.dislikes.as_ref().is_some_and(disliked) {
            return Reply::new(422, "an event is not as it should be");
        }
        Reply::new(200, "")
    }
}

/// Takes a body apart.
fn events(headers: &HeaderMap, body: &[u8]) -> Vec<String> {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().expect("our headers are text"));
    let mut text = String::new();
    match header("content-encoding") {
        None => text.push_str(std::str::from_utf8(body).expect("JSON is UTF-8")),
        Some("gzip") => {
            flate2::read::GzDecoder::new(body).read_to_string(&mut text).expect("it is gzip");
        }
        Some("zstd") => {
            text = String::from_utf8(zstd::decode_all(body).expect("it is zstd")).expect("JSON is UTF-8");
        }
        Some(other) => panic!("nobody knows the encoding `{other}`"),
    }
    if header("content-type") == Some("application/x-ndjson") {
        return text.lines().map(str::to_owned).collect();
    }
    if text.starts_with('[') {
        let events: Vec<Box<RawValue>> = serde_json::from_str(&text).expect("it is a JSON array");
        return events.iter().map(|event| event.get().to_owned()).collect();
    }
    vec![text]
}
