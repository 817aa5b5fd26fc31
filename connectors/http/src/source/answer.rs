//! [`Answer`]: what an input answers; the server sends it once the events are durable.

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};

/// The smallest picture there is: one transparent pixel, GIF89a.
const PIXEL: &[u8; 43] =
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff\x21\xf9\x04\x01\x00\x00\x00\x00\x2c\
\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";

/// A response, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, without those that the server adds to all.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// 200 with the text `ok`.
    pub fn ok() -> Answer {
        Answer::text(StatusCode::OK, "ok")
    }

    /// 200 with a picture of one pixel, which no cache keeps.
    pub fn gif() -> Answer {
        let headers = vec![
            (header::CONTENT_TYPE, HeaderValue::from_static("image/gif")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate")),
        ];
        Answer { status: StatusCode::OK, headers, body: Bytes::from_static(PIXEL) }
    }

    /// A refusal, and why. `status` decides whether the sender tries again.
    pub fn refused(status: StatusCode, why: &'static str) -> Answer {
        Answer::text(status, why)
    }

    /// Plain text, which no browser takes for something else.
    pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
        let headers = vec![
            (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        ];
        Answer { status, headers, body: text.into() }
    }
}
