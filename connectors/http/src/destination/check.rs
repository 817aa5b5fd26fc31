//! `forebay check`: asks for the headers of what is at the URL, which changes nothing there.

use forebay_api::{Blame, Finding, Mistake};

use super::config::HttpDestinationConfig;
use super::fault::Said;
use super::request::{Requests, Settings};

/// Looks at everything that could keep the destination from writing.
pub(crate) async fn check(settings: &Settings, config: &HttpDestinationConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    if settings.url.scheme() == "http" && (config.auth.is_some() || !config.headers.is_empty()) {
        findings.push(Finding::warning(
            "`url` begins with `http:`, so that `auth` and `headers` are sent unencrypted",
            "use `https:` unless the way to the receiver is yours",
        ));
    }
    let looked = match Requests::new(settings) {
        Ok(requests) => requests.look().await,
        Err(fault) => Err(fault),
    };
    findings.push(match looked {
        Ok(said) => answered(&settings.shown, &said),
        Err(fault) => Finding::fault(&fault),
    });
    findings
}

/// Receivers need not take a HEAD, so that hardly an answer to it says what a POST will meet.
fn answered(shown: &str, said: &Said) -> Finding {
    let fact = format!("`{shown}` answers a HEAD with {said}");
    match said.status.as_u16() {
        401 | 403 => Finding::warning(fact, "see whether `auth` and `headers` are what the receiver wants"),
        300..=399 => {
            Finding::warning(fact, "see whether it redirects a POST too: redirects are not followed")
        }
        500..=599 => Finding::warning(fact, "see whether the receiver is well"),
        _ => Finding::good(fact),
    }
}

/// A mistake of the configuration, as a finding.
pub(crate) fn mistaken(mistake: Mistake) -> Finding {
    let help = mistake.help.unwrap_or_else(|| "correct the configuration".to_owned());
    Finding::bad(format!("{}: {}", mistake.at, mistake.message), Blame::Configuration, help)
}
