//! [`Route`]: which input takes which path. An input is a line in [`routes`].

use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};

use super::config::Inputs;
use super::hosts::Hosts;
use super::secret::Secret;
use super::{Answer, Gathered, Request, cloudevents, pixel, self_describing, snowplow, webhook};
use forebay_api::Mistake;

/// Which paths an input takes.
type Takes = Box<dyn Fn(&str) -> bool + Send + Sync>;
/// What it makes of a request.
type Read = Box<dyn Fn(&Request<'_>, &mut Gathered) -> Answer + Send + Sync>;

/// One input that is on.
pub(super) struct Route {
    /// Its name, as in the configuration and in every event.
    pub input: &'static str,
    takes: Takes,
    read: Read,
    tokens: Tokens,
    /// Whether it answers OPTIONS itself, where that is no preflight of a browser.
    pub answers_options: bool,
}

impl Route {
    /// An input that takes some paths.
    pub(super) fn new(
        input: &'static str,
        tokens: &[Secret],
        takes: impl Fn(&str) -> bool + Send + Sync + 'static,
        read: impl Fn(&Request<'_>, &mut Gathered) -> Answer + Send + Sync + 'static,
    ) -> Route {
        let (takes, read) = (Box::new(takes), Box::new(read));
        Route { input, takes, read, tokens: Tokens::new(tokens), answers_options: false }
    }

    /// Whether a request may be made; else what it is answered.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), Answer> {
        if self.tokens.admit(headers) {
            return Ok(());
        }
        let mut answer =
            Answer::refused(StatusCode::UNAUTHORIZED, "a token is needed: `Authorization: Bearer …`");
        answer.headers.push((header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer")));
        Err(answer)
    }

    /// Makes events of a request.
    pub(super) fn read(&self, request: &Request<'_>, gathered: &mut Gathered) -> Answer {
        (self.read)(request, gathered)
    }
}

/// The routes of all inputs that are on, in the order in which they are asked; Snowplow's paths can be anything with
/// two parts, so it is the last. Every mistake in their configuration.
pub(super) fn routes(inputs: Inputs, shared: &Shared) -> Result<Vec<Route>, Vec<Mistake>> {
    let mut routes = Vec::new();
    let mut mistakes = Vec::new();
    if let Some(settings) = inputs.cloudevents {
        let (settings, tokens) = (Arc::new(settings.clone()), settings.tokens);
        let paths = settings.clone();
        let read = move |request: &Request<'_>, gathered: &mut Gathered| {
            cloudevents::read(request, &settings, gathered)
        };
        let mut route = Route::new("cloudevents", &tokens, move |path| paths.takes(path), read);
        route.answers_options = true;
        routes.push(route);
    }
    if let Some(settings) = inputs.self_describing {
        let (settings, tokens) = (Arc::new(settings.clone()), settings.tokens);
        let paths = settings.clone();
        let read = move |request: &Request<'_>, gathered: &mut Gathered| {
            self_describing::read(request, &settings, gathered)
        };
        routes.push(Route::new("self_describing", &tokens, move |path| paths.takes(path), read));
    }
    if let Some(settings) = inputs.webhook {
        let (settings, tokens) = (Arc::new(settings.clone()), settings.tokens);
        let paths = settings.clone();
        let read =
            move |request: &Request<'_>, gathered: &mut Gathered| webhook::read(request, &settings, gathered);
        routes.push(Route::new("webhook", &tokens, move |path| paths.takes(path), read));
    }
    if let Some(settings) = inputs.pixel {
        let (paths, redirects) = (settings.clone(), shared.redirects.clone());
        let read = move |request: &Request<'_>, gathered: &mut Gathered| {
            pixel::read(request, &settings, &|host| redirects.has(host), gathered)
        };
        routes.push(Route::new("pixel", &[], move |path| paths.takes(path), read));
    }
    if let Some(config) = inputs.snowplow {
        match snowplow::Settings::new(&config, shared) {
            Ok(settings) => {
                let settings = Arc::new(settings);
                let paths = settings.clone();
                let takes = move |path: &str| paths.takes(path);
                let read = move |request: &Request<'_>, gathered: &mut Gathered| {
                    snowplow::read(request, &settings, gathered)
                };
                routes.push(Route::new("snowplow", &config.tokens, takes, read));
            }
            Err(more) => mistakes.extend(more),
        }
    }
    if mistakes.is_empty() { Ok(routes) } else { Err(mistakes) }
}

/// The route of a path.
pub(super) fn route<'r>(routes: &'r [Route], path: &str) -> Option<&'r Route> {
    routes.iter().find(|route| (route.takes)(path))
}

/// What all inputs are told of the rest of the configuration.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Where redirects may lead.
    pub redirects: Hosts,
    /// What is kept of addresses that a sender names.
    pub client_address: super::config::ClientAddress,
}

/// Tokens, by their digests: what is compared has one length and says nothing of the token.
struct Tokens(Vec<[u8; 32]>);

impl Tokens {
    fn new(tokens: &[Secret]) -> Tokens {
        Tokens(tokens.iter().map(|token| Sha256::digest(token.expose()).into()).collect())
    }

    /// Compares with all tokens, whichever matches, in the same time.
    fn admit(&self, headers: &HeaderMap) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let given = headers.get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
        let is_bearer = given.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
        let digest: [u8; 32] = Sha256::digest(given.get(7..).unwrap_or_default().trim_ascii()).into();
        let differs = |token: &[u8; 32]| token.iter().zip(&digest).fold(0, |all, (a, b)| all | (a ^ b));
        let found = self.0.iter().fold(false, |found, token| found | (differs(token) == 0));
        is_bearer & found
    }
}
