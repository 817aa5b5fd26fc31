//! [`Challenge`]: how a sender makes sure of an address before it sends events there. A challenge is no event.

use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::signature::same;
use crate::source::json::{self, Members};
use crate::source::secret::Secret;
use crate::source::{Answer, Request, text};

/// The longest challenge that is answered, in bytes: nobody shall make us send what they like.
const MAX_CHALLENGE: usize = 1024;

/// How a sender asks whether it has the right address.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Challenge {
    /// As Slack does: an object of type `url_verification`, answered by its `challenge`.
    Slack {},
    /// By a parameter of the query, answered by its value: `hub.challenge` (Meta, WebSub), `validationToken`
    /// (Microsoft Graph), `challenge` (Dropbox).
    Echo {
        /// The parameter.
        parameter: String,
        /// What the sender must know. Absent: whoever asks is answered.
        token: Option<Token>,
    },
}

/// A token that only the sender knows.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The parameter with it, such as `hub.verify_token`.
    parameter: String,
    /// What it must be.
    value: Secret,
}

impl Challenge {
    /// The answer to a challenge that is made without a signature.
    pub(super) fn before(&self, request: &Request<'_>) -> Option<Answer> {
        let Challenge::Echo { parameter, token } = self else { return None };
        // A request with a body brings events.
        if !request.body.is_empty() || !matches!(*request.method, Method::GET | Method::POST) {
            return None;
        }
        let value = |wanted: &str| {
            let mut decoded = text::pairs(request.query).filter_map(Result::ok);
            decoded.find(|(name, _)| name == wanted).map(|(_, value)| value)
        };
        let challenge = value(parameter)?;
        if let Some(token) = token
            && !value(&token.parameter)
                .is_some_and(|given| same(given.as_bytes(), token.value.expose().as_bytes()))
        {
            return Some(Answer::refused(StatusCode::FORBIDDEN, "the token is wrong"));
        }
        Some(echo(&challenge))
    }

    /// The answer to a challenge that is made as an event would be sent.
    pub(super) fn inside(&self, request: &Request<'_>) -> Option<Answer> {
        let Challenge::Slack {} = self else { return None };
        let value = json::value(json::text(request.body).ok()?).ok()?;
        json::check(value).ok()?;
        let Members(members) = Members::of("it", value).ok()?;
        let member = |wanted: &str| {
            members.iter().find(|(name, _)| name == wanted).and_then(|(_, value)| json::string(value))
        };
        (member("type")? == "url_verification").then(|| member("challenge")).flatten().map(|text| echo(&text))
    }
}

fn echo(challenge: &str) -> Answer {
    if challenge.len() > MAX_CHALLENGE {
        return Answer::refused(StatusCode::BAD_REQUEST, "the challenge is too long");
    }
    let mut answer = Answer::text(StatusCode::OK, challenge.to_owned());
    let sandbox = HeaderValue::from_static("sandbox");
    answer.headers.push((HeaderName::from_static("content-security-policy"), sandbox));
    answer
}
