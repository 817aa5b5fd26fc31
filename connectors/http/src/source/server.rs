//! [`Server`]: what one request is answered.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::SystemTime;

use http::header::{ALLOW, CONNECTION, RETRY_AFTER, STRICT_TRANSPORT_SECURITY};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::Full;
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::body::{Unread, Whole};
use super::commit::Intake;
use super::plan::Plan;
use super::router::{Route, route};
use super::{Answer, Gathered, Request, limiter};

/// When a sender that gets 503 shall come again, in seconds.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// All that a request needs, in one run of the source.
pub(super) struct Server {
    /// What is configured.
    pub plan: std::sync::Arc<Plan>,
    /// Where events go.
    pub intake: Intake,
    /// Fired: nothing more is taken in.
    pub stop: CancellationToken,
}

impl Server {
    /// Answers one request.
    pub(super) async fn serve(
        &self,
        request: hyper::Request<Incoming>,
        peer: Option<IpAddr>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let began = Instant::now();
        let (head, body) = request.into_parts();
        let client = self.plan.proxies.client(peer, &head.headers);
        let mut answer = self.answer(&head, body, client).await;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers.push((RETRY_AFTER, RETRY_SECONDS));
        }
        self.plan.cors.allow(&head.headers, &mut answer);
        if let Some(hsts) = &self.plan.hsts {
            answer.headers.push((STRICT_TRANSPORT_SECURITY, hsts.clone()));
        }
        if self.plan.log_requests {
            let (method, path, status) = (&head.method, head.uri.path(), answer.status.as_u16());
            info!(source = %self.plan.source, %method, path, status, ms = began.elapsed().as_millis(), "request");
        }
        let mut response = Response::new(Full::new(answer.body));
        *response.status_mut() = answer.status;
        for (name, value) in answer.headers {
            response.headers_mut().append(name, value);
        }
        Ok(response)
    }

    async fn answer(&self, head: &http::request::Parts, body: Incoming, client: Option<IpAddr>) -> Answer {
        if self.stop.is_cancelled() {
            return unavailable("shutting down");
        }
        if let Some(answer) = self.plain(head) {
            return answer;
        }
        if let Some(limiter) = &self.plan.limiter
            && let Err(wait) = limiter.take(client, Instant::now())
        {
            let mut answer = Answer::refused(StatusCode::TOO_MANY_REQUESTS, "too many requests");
            answer.headers.push((RETRY_AFTER, HeaderValue::from(limiter::seconds(wait).get())));
            return answer;
        }
        let Some(route) = route(&self.plan.routes, head.uri.path()) else {
            return Answer::refused(StatusCode::NOT_FOUND, "there is nothing here");
        };
        let is_preflight = head.headers.contains_key("access-control-request-method");
        match head.method {
            Method::OPTIONS if is_preflight || !route.answers_options => self.plan.cors.preflight(),
            Method::GET | Method::HEAD | Method::POST | Method::OPTIONS => {
                self.input(route, head, body, client).await
            }
            _ => {
                let mut answer =
                    Answer::refused(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD, POST or OPTIONS");
                answer.headers.push((ALLOW, HeaderValue::from_static("GET, HEAD, POST, OPTIONS")));
                answer
            }
        }
    }

    /// What belongs to no input.
    fn plain(&self, head: &http::request::Parts) -> Option<Answer> {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return None;
        }
        match head.uri.path() {
            "/" => Some(self.plan.root.clone()),
            "/health" => Some(Answer::ok()),
            "/sink-health" if self.intake.is_healthy() => Some(Answer::ok()),
            "/sink-health" => Some(unavailable("the last events could not be stored")),
            "/robots.txt" => Some(Answer::text(StatusCode::OK, "User-agent: *\nDisallow: /\n")),
            "/crossdomain.xml" => self.plan.crossdomain.clone(),
            _ => None,
        }
    }

    async fn input(
        &self,
        route: &Route,
        head: &http::request::Parts,
        body: Incoming,
        client: Option<IpAddr>,
    ) -> Answer {
        if let Err(answer) = route.admit(&head.headers) {
            return answer;
        }
        let whole = match self.plan.bodies.read(&head.headers, body).await {
            Ok(whole) => whole,
            Err(why) => return unread(why),
        };
        let received = now();
        let mut gathered = Gathered::of(self.plan.subjects.clone(), route.input);
        let answer = self.read(route, head, &whole, (received, client), &mut gathered);
        if gathered.is_empty() {
            return answer;
        }
        match self.intake.commit(gathered, received).await {
            Ok(()) => answer,
            Err(_) if self.stop.is_cancelled() => unavailable("shutting down"),
            Err(_) => unavailable("the events could not be stored in time"),
        }
    }

    fn read(
        &self,
        route: &Route,
        head: &http::request::Parts,
        whole: &Whole,
        (received, client): (i64, Option<IpAddr>),
        gathered: &mut Gathered,
    ) -> Answer {
        let request = Request {
            method: &head.method,
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            headers: &head.headers,
            body: &whole.bytes,
            received,
            client: client.and_then(|client| self.plan.client_address.keep(client)),
        };
        let Some(why) = &whole.wrong else { return route.read(&request, gathered) };
        super::unreadable::refuse_whole(&request, "unreadable_body", why, gathered);
        Answer::ok()
    }
}

fn unread(why: Unread) -> Answer {
    let mut answer = match why {
        Unread::TooLarge => Answer::refused(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
        Unread::NoMemory => unavailable("too much is being read"),
        Unread::TooSlow => Answer::refused(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
        Unread::Gone => Answer::refused(StatusCode::BAD_REQUEST, "the body broke off"),
    };
    // What is left of the body is not read any more.
    answer.headers.push((CONNECTION, HeaderValue::from_static("close")));
    answer
}

/// Durability cannot be promised now; the sender shall come again.
fn unavailable(why: &'static str) -> Answer {
    Answer::refused(StatusCode::SERVICE_UNAVAILABLE, why)
}

/// Microseconds since the Unix epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
