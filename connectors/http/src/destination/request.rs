//! One request and its answer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use forebay_api::{Blame, DestinationSetting, Event, Fault, InTurn, Mistake, Record};
use jiff::Timestamp;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, Url, redirect};
use sha2::{Digest, Sha256};

use super::body::{Form, body};
use super::config::{Compression, HttpDestinationConfig, Secret, Tls};
use super::fault::{self, Judgement, Refusal, Said};
use super::{config, form, retry_after, signature, tls};

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// An idle connection is closed before the receivers and balancers that give them a minute do it.
const IDLE: Duration = Duration::from_secs(50);
/// How much of an answer's body is read. What is longer costs its connection.
const MOST_READ: usize = 64 * 1024;
/// How much of it is quoted.
const MOST_QUOTED: usize = 300;
/// A key that is an event's id is sent as it is up to this length.
const LONGEST_KEY: usize = 255;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const USER_AGENT: &str = concat!("forebay/", env!("CARGO_PKG_VERSION"));

/// Headers that say how a request is built, or that other keys set.
const OURS: [&str; 9] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "host",
    "idempotency-key",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// What the configuration says, validated.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) url: Url,
    /// The URL without what may be secret in it, for logs.
    pub(crate) shown: String,
    pub(crate) form: Form,
    method: Method,
    headers: HeaderMap,
    compression: Compression,
    signature: Option<(HeaderName, Secret)>,
    tls: Tls,
    timeout: Duration,
}

impl Settings {
    /// Validates what the types cannot; names every mistake at once.
    pub(crate) fn new(
        config: &HttpDestinationConfig,
        setting: &DestinationSetting,
    ) -> Result<Settings, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let form = form(config.body, &setting.format);
        let url = read_url(&config.url, &mut mistakes);
        let headers = headers(config, form, &mut mistakes);
        let signature = config.signature.as_ref().map(|signature| {
            if signature.secret.expose().is_empty() {
                let help = "write what the receiver knows too, such as `${SIGNING_SECRET}`";
                mistakes.push(mistake("/signature/secret", "`secret` is empty", help));
            }
            let name = read_name("/signature/header", &signature.header, &mut mistakes);
            (name.unwrap_or(IDEMPOTENCY_KEY), signature.secret.clone())
        });
        let tls = config.tls.clone().unwrap_or_default();
        if tls.cert.is_some() != tls.key.is_some() {
            mistakes.push(mistake("/tls", "`cert` and `key` belong together", "write both, or neither"));
        }
        if config.request_timeout.as_duration().is_zero() {
            let help = "write a duration such as `30s`";
            mistakes.push(mistake("/request_timeout", "no receiver answers in no time", help));
        }
        let Some(url) = url.filter(|_| mistakes.is_empty()) else { return Err(mistakes) };
        let mut shown = url.clone();
        shown.set_query(None);
        shown.set_fragment(None);
        Ok(Settings {
            shown: shown.to_string(),
            url,
            form,
            method: match config.method {
                config::Method::Post => Method::POST,
                config::Method::Put => Method::PUT,
            },
            headers,
            compression: config.compression,
            signature,
            tls,
            timeout: config.request_timeout.as_duration(),
        })
    }
}

fn read_url(text: &str, mistakes: &mut Vec<Mistake>) -> Option<Url> {
    let help = "write `https://host/path`";
    let url = match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => url,
        // It is not shown, for it may hold a token.
        _ => {
            mistakes.push(mistake("/url", "`url` is no URL of http or https", help));
            return None;
        }
    };
    if !url.username().is_empty() || url.password().is_some() {
        let help = "write them as `auth: {username: …, password: …}`, which no log line shows";
        mistakes.push(mistake("/url", "`url` holds a name or a password", help));
    }
    if text.contains(['{', '}']) {
        let help = "use one destination with a `where:` for each URL";
        mistakes.push(mistake("/url", "`url` takes no placeholders", help));
    }
    Some(url)
}

/// The headers that all requests have.
fn headers(config: &HttpDestinationConfig, form: Form, mistakes: &mut Vec<Mistake>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    if let Some(encoding) = config.compression.encoding() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    for (name, value) in &config.headers {
        let at = format!("/headers/{name}");
        let read = read_name(&at, name, mistakes);
        match HeaderValue::from_str(value.expose()) {
            Ok(mut value) => {
                value.set_sensitive(true);
                read.map(|name| headers.insert(name, value));
            }
            Err(_) => mistakes.push(mistake(
                &at,
                "a header's value has visible characters only",
                "see whether a line end is at its end",
            )),
        }
    }
    if let Some(authorization) = authorization(config, mistakes) {
        headers.insert(header::AUTHORIZATION, authorization);
    }
    headers
}

fn read_name(at: &str, name: &str, mistakes: &mut Vec<Mistake>) -> Option<HeaderName> {
    let wrong = match HeaderName::try_from(name) {
        Ok(read) if !OURS.contains(&read.as_str()) => return Some(read),
        Ok(read) if read == header::AUTHORIZATION => {
            mistake(at, "this header is set by `auth`", "write `auth: {bearer: …}`")
        }
        Ok(_) => mistake(at, "this header is set by Forebay", "leave it out"),
        Err(_) => mistake(at, "this is not a name that a header can have", "use letters, digits and `-`"),
    };
    mistakes.push(wrong);
    None
}

fn authorization(config: &HttpDestinationConfig, mistakes: &mut Vec<Mistake>) -> Option<HeaderValue> {
    let auth = config.auth.as_ref()?;
    let text = match (&auth.bearer, &auth.username, &auth.password) {
        (Some(token), None, None) => format!("Bearer {}", token.expose()),
        (None, Some(user), password) => {
            let password = password.as_ref().map(Secret::expose).unwrap_or_default();
            format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
        }
        _ => {
            let help = "write `{bearer: …}`, or `{username: …, password: …}`";
            mistakes.push(mistake("/auth", "`auth` is neither a token nor a name with a password", help));
            return None;
        }
    };
    match HeaderValue::from_str(&text) {
        Ok(mut value) => {
            value.set_sensitive(true);
            Some(value)
        }
        Err(_) => {
            let help = "see whether a line end is at its end";
            mistakes.push(mistake("/auth", "a token has visible characters only", help));
            None
        }
    }
}

fn mistake(at: &str, message: &str, help: &str) -> Mistake {
    Mistake { at: at.to_owned(), message: message.to_owned(), help: Some(help.to_owned()) }
}

/// Sends requests over connections that it keeps.
#[derive(Debug)]
pub(crate) struct Requests {
    client: Client,
    /// A receiver works on a request also when the delivery that it came from is dropped.
    in_turn: InTurn,
    url: Url,
    method: Method,
    headers: HeaderMap,
    form: Form,
    compression: Compression,
    signature: Option<(HeaderName, Secret)>,
}

impl Requests {
    /// Reads the certificates and connects to nothing.
    pub(crate) fn new(settings: &Settings) -> Result<Requests, Fault> {
        let doing = "setting up the way to the receiver";
        let tls = tls::client_config(&settings.tls, settings.url.scheme() == "https")
            .map_err(|error| Fault::fatal(doing, Blame::Configuration, error).with_remedy("correct `tls`"))?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .timeout(settings.timeout)
            .pool_idle_timeout(IDLE)
            .user_agent(USER_AGENT)
            .build()
            .map_err(|error| Fault::fatal(doing, Blame::Defect, error))?;
        Ok(Requests {
            client,
            in_turn: InTurn::default(),
            url: settings.url.clone(),
            method: settings.method.clone(),
            headers: settings.headers.clone(),
            form: settings.form,
            compression: settings.compression,
            signature: settings.signature.clone(),
        })
    }

    /// Sends records, at least one, and says whether the receiver has taken them all.
    pub(crate) async fn send(&self, records: &[(usize, Record<'_>)]) -> Result<Result<(), Refusal>, Fault> {
        let body = self.body(records)?;
        let mut headers = self.headers.clone();
        headers.insert(IDEMPOTENCY_KEY, idempotency_key(records));
        if let Some((name, secret)) = &self.signature {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.map_err(|error| Fault::fatal("signing a request", Blame::Outside, error))?;
            let signed = signature::sign(secret.expose().as_bytes(), now.as_secs(), &body);
            headers.insert(name, HeaderValue::from_str(&signed).expect("it is digits and hex"));
        }
        let request = self.client.request(self.method.clone(), self.url.clone()).headers(headers).body(body);
        let stream = records[0].1.event().stream();
        self.in_turn.run(stream, answer(request)).await
    }

    /// What stands in a request: copied once, or not at all where it is one record as it is.
    fn body(&self, records: &[(usize, Record<'_>)]) -> Result<Bytes, Fault> {
        if let ([(_, record)], true, Compression::None) = (records, self.form.is_single(), self.compression) {
            return Ok(record.shared_body());
        }
        let bodies = records.iter().map(|(_, record)| record.body());
        let body = body(self.form, self.compression, bodies);
        body.map(Bytes::from).map_err(|error| Fault::fatal("compressing a body", Blame::Defect, error))
    }

    /// Asks for the headers of what is at the URL, which changes nothing there.
    pub(crate) async fn look(&self) -> Result<Said, Fault> {
        let mut headers = self.headers.clone();
        headers.remove(header::CONTENT_TYPE);
        headers.remove(header::CONTENT_ENCODING);
        let request = self.client.head(self.url.clone()).headers(headers).timeout(CONNECT_WITHIN);
        let response = request.send().await.map_err(fault::of_transport)?;
        Ok(Said { status: response.status(), text: String::new() })
    }
}

/// Sends a request and judges its answer.
async fn answer(request: RequestBuilder) -> Result<Result<(), Refusal>, Fault> {
    let response = request.send().await.map_err(fault::of_transport)?;
    let judgement = fault::judge(response.status());
    let after = asked(&response);
    let said = read(response).await;
    match judgement {
        Judgement::Accepted => Ok(Ok(())),
        Judgement::TooLarge => Ok(Err(Refusal::TooLarge(said))),
        Judgement::Content => Ok(Err(Refusal::Content(said))),
        Judgement::Retry | Judgement::Act(_) => Err(fault::of_status(said, judgement, after)),
    }
}

/// How long the receiver asks us to wait.
fn asked(response: &Response) -> Option<Duration> {
    let text = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    retry_after::read(text, Timestamp::now())
}

/// Reads what the receiver says, up to a limit, so that the connection can be used again. The status is the answer: a
/// body that breaks off changes nothing of it.
async fn read(mut response: Response) -> Said {
    let status = response.status();
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let mut text: Vec<u8> = location.map(|to| format!("to {to} ").into_bytes()).unwrap_or_default();
    let mut bytes = 0;
    while let Ok(Some(piece)) = response.chunk().await {
        bytes += piece.len();
        // Some more than is quoted, for it may be spaces.
        let room = (4 * MOST_QUOTED).saturating_sub(text.len());
        text.extend_from_slice(&piece[..piece.len().min(room)]);
        if bytes > MOST_READ {
            break;
        }
    }
    let line = String::from_utf8_lossy(&text);
    let line =
        line.split(|char: char| char.is_whitespace() || char.is_control()).filter(|word| !word.is_empty());
    let line = line.collect::<Vec<_>>().join(" ");
    Said { status, text: line.chars().take(MOST_QUOTED).collect() }
}

/// The same for the same records, whenever they are sent: the id of one event, or a hash of how many they are and of the
/// first and the last id.
fn idempotency_key(records: &[(usize, Record<'_>)]) -> HeaderValue {
    let ([(_, first)] | [(_, first), ..]) = records else { unreachable!("a request has records") };
    let (_, last) = records[records.len() - 1];
    if records.len() == 1 {
        let id = id(first.event());
        let plain = id.len() <= LONGEST_KEY && id.iter().all(u8::is_ascii_graphic);
        if let Some(value) = Some(&id).filter(|_| plain).and_then(|id| HeaderValue::from_bytes(id).ok()) {
            return value;
        }
    }
    let mut hash = Sha256::new();
    hash.update(records.len().to_string());
    for event in [first.event(), last.event()] {
        hash.update(b"\n");
        hash.update(id(event));
    }
    let mut key = String::with_capacity(64);
    signature::hex(&hash.finalize(), &mut key);
    HeaderValue::from_str(&key).expect("it is hex")
}

fn id(event: Event<'_>) -> Vec<u8> {
    let mut id = Vec::with_capacity(64);
    event.write_id(&mut id);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting() -> DestinationSetting {
        DestinationSetting {
            name: "hook".to_owned(),
            format: "forebay".to_owned(),
            data_dir: "data".into(),
            sources: Vec::new(),
        }
    }

    fn settings(json: serde_json::Value) -> Result<Settings, Vec<String>> {
        let config = serde_json::from_value(json).unwrap();
        Settings::new(&config, &setting())
            .map_err(|mistakes| mistakes.into_iter().map(|mistake| mistake.at).collect())
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let json = serde_json::json!({
            "url": "https://me:pw@host/{table}", "headers": {"a b": "x", "Host": "x", "authorization": "x", "X-Ok": "line\n"},
            "auth": {"bearer": "t", "username": "u"}, "tls": {"cert": "a.pem"},
            "signature": {"secret": "", "header": "Content-Length"},
        });
        assert_eq!(
            settings(json).unwrap_err(),
            [
                "/url",
                "/url",
                "/headers/Host",
                "/headers/X-Ok",
                "/headers/a b",
                "/headers/authorization",
                "/auth",
                "/signature/secret",
                "/signature/header",
                "/tls",
            ]
        );
        for url in ["ftp://a/b", "host/path", "https://", "file:///etc/passwd"] {
            assert_eq!(settings(serde_json::json!({"url": url})).unwrap_err(), ["/url"], "{url}");
        }
    }

    #[test]
    fn what_logs_show_of_a_url_is_not_its_query() {
        let settings = settings(serde_json::json!({"url": "https://host/in?token=secret#x"})).unwrap();
        assert_eq!(settings.shown, "https://host/in");
        assert!(settings.url.as_str().contains("token=secret"));
    }

    /// In this binary nobody installs a provider for the process.
    #[test]
    fn no_provider_for_the_process_is_needed() {
        let settings = settings(serde_json::json!({"url": "http://host/in"})).unwrap();
        Requests::new(&settings).unwrap();
    }
}
