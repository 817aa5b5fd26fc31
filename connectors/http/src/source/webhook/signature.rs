//! [`Signature`]: how a sender proves that a request is its own. All comparisons take the same time whatever came.

use forebay_api::units::Period;
use hmac::{Hmac, KeyInit, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use crate::source::Request;
use crate::source::header_text::HeaderText;
use crate::source::secret::Secret;
use crate::source::text::{decode_base64, hex};

/// How many signatures of one request are tried.
const MAX_SIGNATURES: usize = 8;

/// How old a signed request may be, unless the settings say otherwise.
const TOLERANCE: Period = Period::seconds(300);

/// How requests are signed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Signature {
    /// As GitHub does: `X-Hub-Signature-256`.
    Github {
        /// What the sender signs with.
        #[serde(deserialize_with = "filled")]
        secret: Secret,
        /// What it signed with before: accepted too, until all signatures are made anew.
        #[serde(default, deserialize_with = "filled_if_any")]
        old_secret: Option<Secret>,
    },
    /// As Stripe does: `Stripe-Signature`, with the time in it.
    Stripe {
        /// What the sender signs with, `whsec_…`.
        #[serde(deserialize_with = "filled")]
        secret: Secret,
        /// What it signed with before: accepted too, until all signatures are made anew.
        #[serde(default, deserialize_with = "filled_if_any")]
        old_secret: Option<Secret>,
        /// How far the time in the signature may be from ours.
        #[serde(default = "tolerance")]
        #[schemars(extend("default" = "5m"))]
        tolerance: Period,
    },
    /// As Slack does: `X-Slack-Signature` of version 0, and `X-Slack-Request-Timestamp`.
    Slack {
        /// What the sender signs with.
        #[serde(deserialize_with = "filled")]
        secret: Secret,
        /// What it signed with before: accepted too, until all signatures are made anew.
        #[serde(default, deserialize_with = "filled_if_any")]
        old_secret: Option<Secret>,
        /// How far the time in the signature may be from ours.
        #[serde(default = "tolerance")]
        #[schemars(extend("default" = "5m"))]
        tolerance: Period,
    },
    /// An HMAC of the body in a header.
    Hmac {
        /// The header.
        header: HeaderText,
        /// What the sender signs with.
        #[serde(deserialize_with = "filled")]
        secret: Secret,
        /// What it signed with before: accepted too, until all signatures are made anew.
        #[serde(default, deserialize_with = "filled_if_any")]
        old_secret: Option<Secret>,
        /// The hash that it is made with.
        #[serde(default)]
        algorithm: Algorithm,
        /// How it is written.
        #[serde(default)]
        encoding: Encoding,
        /// What stands before it, such as `sha256=`.
        #[serde(default)]
        prefix: String,
    },
}

/// A hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// SHA-1, for senders that know nothing else.
    Sha1,
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How bytes are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Hexadecimal digits of either case.
    #[default]
    Hex,
    /// Base64 of either alphabet, padded or not.
    Base64,
}

fn tolerance() -> Period {
    TOLERANCE
}

/// A secret that is empty, because a variable was, would be no secret.
fn filled<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    let secret = Secret::deserialize(deserializer)?;
    if secret.expose().is_empty() { Err(de::Error::custom("the secret is empty")) } else { Ok(secret) }
}

fn filled_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    filled(deserializer).map(Some)
}

/// Why a request is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is not signed.
    Missing,
    /// It is signed in another way.
    Malformed,
    /// It was signed too long ago, or will be.
    Stale,
    /// Somebody else signed it, or it was changed.
    Mismatch,
}

impl Wrong {
    /// What the sender is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Wrong::Missing => "the signature is missing",
            Wrong::Malformed => "the signature cannot be read",
            Wrong::Stale => "the time of the signature is too far from ours",
            Wrong::Mismatch => "the signature is wrong",
        }
    }
}

impl Signature {
    /// Whether a request is signed with one of the secrets.
    pub fn check(&self, request: &Request<'_>) -> Result<(), Wrong> {
        match self {
            Signature::Github { secret, old_secret } => {
                let given = header(request, "x-hub-signature-256")?;
                let given = given.strip_prefix("sha256=").and_then(decode_hex).ok_or(Wrong::Malformed)?;
                verify(Algorithm::Sha256, secret, old_secret, &[request.body], &[given])
            }
            Signature::Stripe { secret, old_secret, tolerance } => {
                let given = header(request, "stripe-signature")?;
                let parts = || given.split(',').filter_map(|part| part.trim().split_once('='));
                let (_, time) = parts().find(|(name, _)| *name == "t").ok_or(Wrong::Malformed)?;
                fresh(time, request.received, *tolerance)?;
                let signatures = parts().filter(|(name, _)| *name == "v1").take(MAX_SIGNATURES);
                let given: Vec<Vec<u8>> = signatures.filter_map(|(_, text)| decode_hex(text)).collect();
                if given.is_empty() {
                    return Err(Wrong::Malformed);
                }
                let signed = [time.as_bytes(), b".", request.body];
                verify(Algorithm::Sha256, secret, old_secret, &signed, &given)
            }
            Signature::Slack { secret, old_secret, tolerance } => {
                let given = header(request, "x-slack-signature")?;
                let time = header(request, "x-slack-request-timestamp")?;
                fresh(time, request.received, *tolerance)?;
                let given = given.strip_prefix("v0=").and_then(decode_hex).ok_or(Wrong::Malformed)?;
                let signed = [b"v0:", time.as_bytes(), b":", request.body];
                verify(Algorithm::Sha256, secret, old_secret, &signed, &[given])
            }
            Signature::Hmac { header: name, secret, old_secret, algorithm, encoding, prefix } => {
                let given = header(request, name.as_name().as_str())?;
                let given = given.strip_prefix(&**prefix).ok_or(Wrong::Malformed)?;
                let given = match encoding {
                    Encoding::Hex => decode_hex(given),
                    Encoding::Base64 => decode_base64(given).ok(),
                };
                let given = given.ok_or(Wrong::Malformed)?;
                verify(*algorithm, secret, old_secret, &[request.body], &[given])
            }
        }
    }
}

/// The one value of a header. Of two, nobody could say which one is meant.
fn header<'r>(request: &Request<'r>, name: &str) -> Result<&'r str, Wrong> {
    let mut values = request.headers.get_all(name).iter();
    let value = values.next().ok_or(Wrong::Missing)?;
    match values.next() {
        None => value.to_str().map_err(|_| Wrong::Malformed),
        Some(_) => Err(Wrong::Malformed),
    }
}

/// Whether `time`, in whole seconds, is near `received`, in microseconds.
fn fresh(time: &str, received: i64, tolerance: Period) -> Result<(), Wrong> {
    if time.is_empty() || !time.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::Malformed);
    }
    let seconds: i64 = time.parse().map_err(|_| Wrong::Malformed)?;
    let away = u128::from((received / 1_000_000).abs_diff(seconds)) * 1000;
    if away <= tolerance.as_duration().as_millis() { Ok(()) } else { Err(Wrong::Stale) }
}

fn verify(
    algorithm: Algorithm,
    secret: &Secret,
    old_secret: &Option<Secret>,
    signed: &[&[u8]],
    given: &[Vec<u8>],
) -> Result<(), Wrong> {
    let mut found = false;
    for secret in std::iter::once(secret).chain(old_secret) {
        let secret = secret.expose().as_bytes();
        for given in given {
            found |= match algorithm {
                Algorithm::Sha1 => is_mac::<Hmac<Sha1>>(secret, signed, given),
                Algorithm::Sha256 => is_mac::<Hmac<Sha256>>(secret, signed, given),
                Algorithm::Sha512 => is_mac::<Hmac<Sha512>>(secret, signed, given),
            };
        }
    }
    if found { Ok(()) } else { Err(Wrong::Mismatch) }
}

/// Whether `given` is the whole code of `signed`. In constant time, by the library.
fn is_mac<M: Mac + KeyInit>(secret: &[u8], signed: &[&[u8]], given: &[u8]) -> bool {
    let mut mac = <M as KeyInit>::new_from_slice(secret).expect("HMAC takes keys of any length");
    signed.iter().for_each(|part| mac.update(part));
    mac.verify_slice(given).is_ok()
}

/// Whether two secrets are the same, in a time that says nothing of where they differ.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    is_mac::<Hmac<Sha256>>(b"same", &[a], &code(b))
}

fn code(secret: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"same").expect("HMAC takes keys of any length");
    mac.update(secret);
    mac.finalize().into_bytes().to_vec()
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks(2).map(|pair| Some(16 * hex(pair[0])? + hex(pair[1])?)).collect()
}

#[cfg(test)]
mod tests;
