//! [`MediaType`]: what a `Content-Type` says of a body.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// A media type without its parameters, in lowercase: `application/json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType {
    essence: String,
    /// Whether it names a character set, which only text has.
    charset: bool,
}

impl MediaType {
    /// Reads `application/json; charset=utf-8`.
    pub fn parse(text: &str) -> MediaType {
        let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
        MediaType {
            essence: essence.trim().to_ascii_lowercase(),
            charset: parameters.to_ascii_lowercase().contains("charset="),
        }
    }

    /// That of a body; `None` where the sender said nothing that is text.
    pub fn of(headers: &HeaderMap) -> Option<MediaType> {
        let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        (!text.trim().is_empty()).then(|| MediaType::parse(text))
    }

    /// `application/json`.
    pub fn as_str(&self) -> &str {
        &self.essence
    }

    /// `*/json` or `*/*+json`.
    pub fn is_json(&self) -> bool {
        self.essence.split_once('/').is_some_and(|(_, sub)| sub == "json" || sub.ends_with("+json"))
    }

    /// The pairs of an HTML form.
    pub fn is_form(&self) -> bool {
        self.essence == "application/x-www-form-urlencoded"
    }

    /// What is written in characters: `text/*`, XML, forms, JSON, and whatever names its character set.
    pub fn is_text(&self) -> bool {
        let xml = self.essence.ends_with("/xml") || self.essence.ends_with("+xml");
        self.charset || xml || self.essence.starts_with("text/") || self.is_form() || self.is_json()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_tell_json_from_text_from_bytes() {
        for (text, json, readable) in [
            ("application/json", true, true),
            ("Application/JSON; charset=UTF-8", true, true),
            ("application/vnd.acme+json;v=1", true, true),
            ("text/json", true, true),
            ("text/plain", false, true),
            ("application/atom+xml", false, true),
            ("application/yaml; charset=utf-8", false, true),
            ("application/octet-stream", false, false),
            ("application/jsonx", false, false),
            ("json", false, false),
            ("", false, false),
        ] {
            let media = MediaType::parse(text);
            assert_eq!((media.is_json(), media.is_text()), (json, readable), "{text}");
        }
    }
}
