//! One HTTP client for all registries on the web: bounded in time and size, without redirects.

use std::time::Duration;

use bytes::Bytes;
use forebay_api::{Blame, Fault, MAX_SCHEMA_BYTES, Mistake};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, Url};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: Duration = Duration::from_secs(8);

/// A server and what it is told with each request.
#[derive(Clone, Debug)]
pub(crate) struct Web {
    client: Client,
    base: Url,
}

impl Web {
    /// `base` is what paths are added to.
    pub(crate) fn new(base: &str, headers: HeaderMap) -> Result<Web, Vec<Mistake>> {
        let mut url =
            Url::parse(base).map_err(|error| wrong("/url", format!("`{base}` is not a URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            return Err(wrong("/url", "a registry on the web has an `http` or `https` URL".to_owned()));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        // One provider for the whole process; whoever was first has set the same.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .timeout(ANSWER_LIMIT)
            .default_headers(headers)
            .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
            // A registry that sends us elsewhere could send us anywhere, with our key.
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let client = client.map_err(|error| wrong("/url", format!("no client can be made: {error}")))?;
        Ok(Web { client, base: url })
    }

    /// The body under a path; `None` where the server says 404 or 410. Whatever else is not 200 is a fault.
    pub(crate) async fn get(&self, path: &str) -> Result<Option<Bytes>, Fault> {
        let doing = || format!("asking `{}` for `{path}`", self.shown());
        let url = self.base.join(path).map_err(|error| Fault::fatal(doing(), Blame::Defect, error))?;
        let unreachable = |error: reqwest::Error| {
            Fault::retryable(doing(), error.without_url())
                .with_remedy("start the registry, or correct its `url`")
        };
        let mut response = self.client.get(url).send().await.map_err(unreachable)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                let error = format!("it answers {status}");
                return Err(Fault::fatal(doing(), Blame::Configuration, error)
                    .with_remedy("correct the credentials of the registry"));
            }
            status => {
                let error = format!("it answers {status}");
                return Err(Fault::retryable(doing(), error).with_remedy("look at the registry's log"));
            }
        }
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(unreachable)? {
            if body.len() + part.len() > MAX_SCHEMA_BYTES {
                let error = format!("it is longer than {MAX_SCHEMA_BYTES} bytes");
                return Err(Fault::fatal(doing(), Blame::Outside, error));
            }
            body.extend_from_slice(&part);
        }
        // A login page or an error page of a proxy is no answer of a registry.
        if !is_object(&body) {
            let error = "it answers 200 with something that is not a JSON object";
            return Err(Fault::retryable(doing(), error)
                .with_remedy("look at what the registry, or a proxy before it, answers there"));
        }
        Ok(Some(Bytes::from(body)))
    }

    /// Without what may be secret.
    fn shown(&self) -> String {
        let mut shown = self.base.clone();
        shown.set_query(None);
        // They fail only for URLs that cannot have them.
        shown.set_username("").ok();
        shown.set_password(None).ok();
        shown.to_string()
    }
}

fn is_object(body: &[u8]) -> bool {
    let raw = serde_json::from_slice::<&serde_json::value::RawValue>(body);
    raw.is_ok_and(|raw| raw.get().trim_start().starts_with('{'))
}

/// A header whose value is not shown.
pub(crate) fn secret_header(
    at: &str,
    name: &str,
    value: &str,
    headers: &mut HeaderMap,
) -> Result<(), Vec<Mistake>> {
    let name: HeaderName =
        name.parse().map_err(|_| wrong(at, format!("`{name}` is not the name of a header")))?;
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| wrong(at, format!("the value of `{name}` cannot stand in a header")))?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

pub(crate) fn wrong(at: &str, message: String) -> Vec<Mistake> {
    vec![Mistake { at: at.to_owned(), message, help: None }]
}
