//! [`Plan`]: the configuration, validated and ready to be used by every request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use forebay_api::{Mistake, SourceSetting};
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::sync::Semaphore;

use super::Answer;
use super::body::Bodies;
use super::config::{ClientAddress, Config, Crossdomain, Root, Tls};
use super::cors::CorsRule;
use super::hosts::Hosts;
use super::limiter::Limiter;
use super::networks::{Networks, masked};
use super::router::{Route, Shared, routes};
use super::subjects::Subjects;

/// The least that hyper takes for a head.
const LEAST_HEADERS: usize = 8192;

/// See the module.
pub(super) struct Plan {
    /// The source's name.
    pub source: Arc<str>,
    /// See [`Config::listen`].
    pub listen: Option<String>,
    /// See [`Config::unix`].
    pub unix: Option<std::path::PathBuf>,
    /// See [`Config::tls`].
    pub tls: Option<Tls>,
    /// `Strict-Transport-Security`.
    pub hsts: Option<HeaderValue>,
    /// The inputs that are on.
    pub routes: Vec<Route>,
    /// What events are about.
    pub subjects: Arc<Subjects>,
    /// How bodies are read.
    pub bodies: Bodies,
    /// The most bytes of a head.
    pub head_bytes: usize,
    /// The most connections.
    pub connections: u32,
    /// See [`super::config::Timeouts::headers`].
    pub head_limit: Duration,
    /// See [`super::config::Timeouts::idle`].
    pub idle_limit: Duration,
    /// See [`super::config::Timeouts::answer`].
    pub answer_limit: Duration,
    /// Who may read answers.
    pub cors: CorsRule,
    /// Who is believed.
    pub proxies: Networks,
    /// What is kept of addresses.
    pub client_address: ClientAddress,
    /// How many requests a client may make.
    pub limiter: Option<Limiter>,
    /// What `/` answers.
    pub root: Answer,
    /// What `/crossdomain.xml` answers.
    pub crossdomain: Option<Answer>,
    /// Whether requests are logged.
    pub log_requests: bool,
}

impl Plan {
    /// Validates; all mistakes at once.
    pub(super) fn new(config: Config, setting: &SourceSetting) -> Result<Plan, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let bytes = |size: forebay_api::units::ByteSize| size.as_usize();
        if config.listen.is_none() && config.unix.is_none() {
            let help = "write `listen: 0.0.0.0:8080`, or `unix` and a path";
            mistakes.push(mistake("", "it listens nowhere".to_owned(), Some(help)));
        }
        if let Some(listen) = &config.listen
            && !listen
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        {
            let help = "write `host:port`, such as `0.0.0.0:8080`";
            mistakes.push(mistake("/listen", format!("`{listen}` is no host with a port"), Some(help)));
        }
        if config.tls.is_some() && config.listen.is_none() {
            let help = "set `listen`, or remove `tls`";
            mistakes.push(mistake(
                "/tls",
                "there is no `listen` that `tls` could encrypt".to_owned(),
                Some(help),
            ));
        }
        if bytes(config.limits.headers) < LEAST_HEADERS {
            mistakes.push(mistake("/limits/headers", "a head has at least 8KiB".to_owned(), None));
        }
        let most_memory = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        for (key, size) in [("body", config.limits.body), ("inflated", config.limits.inflated)] {
            if bytes(size) == 0 || bytes(size) > bytes(config.limits.in_flight) {
                let message = format!("`{key}` is 0, or more than `in_flight` allows");
                mistakes.push(mistake(&format!("/limits/{key}"), message, None));
            }
        }
        if bytes(config.limits.in_flight) > most_memory {
            mistakes.push(mistake("/limits/in_flight", "at most 4GB".to_owned(), None));
        }
        for (key, period) in [
            ("headers", config.timeouts.headers),
            ("body", config.timeouts.body),
            ("idle", config.timeouts.idle),
            ("answer", config.timeouts.answer),
        ] {
            if period.as_duration().is_zero() {
                mistakes.push(mistake(
                    &format!("/timeouts/{key}"),
                    "nothing is done in no time".to_owned(),
                    None,
                ));
            }
        }
        let mut hosts = |at: &str, list: &[String]| match Hosts::parse(list) {
            Ok(hosts) => hosts,
            Err((index, message)) => {
                mistakes.push(mistake(&format!("{at}/{index}"), message, None));
                Hosts::default()
            }
        };
        let origins = hosts("/cors/origins", &config.cors.origins);
        let redirects = hosts("/redirects", &config.redirects);
        let proxies = Networks::parse(&config.trusted_proxies).unwrap_or_else(|(index, message)| {
            mistakes.push(mistake(&format!("/trusted_proxies/{index}"), message, None));
            Networks::default()
        });
        let root = root(&config.root).unwrap_or_else(|wrong| {
            mistakes.push(wrong);
            Answer::ok()
        });
        let shared = Shared { redirects, client_address: config.client_address };
        let routes = routes(config.inputs, &shared).unwrap_or_else(|more| {
            mistakes.extend(
                more.into_iter().map(|wrong| Mistake { at: format!("/inputs{}", wrong.at), ..wrong }),
            );
            Vec::new()
        });
        if routes.is_empty() && mistakes.is_empty() {
            mistakes.push(mistake(
                "/inputs",
                "no input is on".to_owned(),
                Some("name one, such as `snowplow: {}`"),
            ));
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let source: Arc<str> = setting.name.as_str().into();
        Ok(Plan {
            listen: config.listen,
            unix: config.unix,
            hsts: config.tls.as_ref().and_then(|tls| tls.hsts).and_then(|hsts| {
                HeaderValue::try_from(format!("max-age={}", hsts.as_duration().as_secs())).ok()
            }),
            tls: config.tls,
            routes,
            subjects: Arc::new(Subjects::new(source.clone())),
            source,
            bodies: Bodies {
                most: bytes(config.limits.body),
                most_inflated: bytes(config.limits.inflated),
                patience: config.timeouts.body.as_duration(),
                memory: Arc::new(Semaphore::new(bytes(config.limits.in_flight))),
            },
            head_bytes: bytes(config.limits.headers),
            connections: config.limits.connections.get(),
            head_limit: config.timeouts.headers.as_duration(),
            idle_limit: config.timeouts.idle.as_duration(),
            answer_limit: config.timeouts.answer.as_duration(),
            cors: CorsRule { origins, max_age: config.cors.max_age.as_duration().as_secs() },
            proxies,
            client_address: config.client_address,
            limiter: config.rate_limit.as_ref().map(Limiter::new),
            root,
            crossdomain: config.crossdomain.as_ref().map(crossdomain),
            log_requests: config.log_requests,
        })
    }
}

impl ClientAddress {
    /// What is kept of an address.
    pub fn keep(self, address: IpAddr) -> Option<IpAddr> {
        match self {
            ClientAddress::Keep => Some(address),
            ClientAddress::Truncate => Some(masked(address, if address.is_ipv4() { 24 } else { 48 })),
            ClientAddress::Drop => None,
        }
    }
}

/// A mistake at a place.
pub(super) fn mistake(at: &str, message: String, help: Option<&str>) -> Mistake {
    Mistake { at: at.to_owned(), message, help: help.map(str::to_owned) }
}

fn root(config: &Root) -> Result<Answer, Mistake> {
    let status = StatusCode::from_u16(config.status).ok().filter(|status| status.as_u16() >= 200);
    let status = status
        .ok_or_else(|| mistake("/root/status", format!("`{}` is no final status", config.status), None))?;
    let mut headers = Vec::new();
    for (name, value) in &config.headers {
        let refused = || mistake(&format!("/root/headers/{name}"), "it is no header".to_owned(), None);
        let parsed = (HeaderName::try_from(name), HeaderValue::try_from(value));
        let (Ok(name), Ok(value)) = parsed else { return Err(refused()) };
        headers.push((name, value));
    }
    Ok(Answer { status, headers, body: config.body.clone().into() })
}

fn crossdomain(config: &Crossdomain) -> Answer {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let allowed = |domain: &String| {
        format!("  <allow-access-from domain=\"{}\" secure=\"{}\" />\n", escaped(domain), config.secure)
    };
    let domains: String = config.domains.iter().map(allowed).collect();
    let body = format!("<?xml version=\"1.0\"?>\n<cross-domain-policy>\n{domains}</cross-domain-policy>\n");
    let headers = vec![(http::header::CONTENT_TYPE, HeaderValue::from_static("text/xml"))];
    Answer { status: StatusCode::OK, headers, body: body.into() }
}
