//! [`Data`]: the data of a CloudEvent as a payload.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use forebay_api::{Invalid, json::write_string};

use crate::source::json;
use crate::source::media_type::MediaType;
use crate::source::text::decode_base64;
use crate::source::unreadable::because;

/// A payload, and what is wrong with it.
#[derive(Debug)]
pub(super) struct Data<'d> {
    /// JSON; empty where the event has no data.
    pub(super) payload: Cow<'d, [u8]>,
    /// Whether the payload is a string of base64, because the data is neither JSON nor text.
    pub(super) is_base64: bool,
    /// Why it is not what the event says it is; the payload is what came, as a string.
    pub(super) why: Option<Invalid>,
}

impl<'d> Data<'d> {
    /// Data that came as JSON.
    pub(super) fn json(text: &'d str) -> Data<'d> {
        Data { payload: Cow::Borrowed(text.as_bytes()), is_base64: false, why: None }
    }

    /// Data that came as bytes. They are JSON where the media type says so or says nothing.
    pub(super) fn of_bytes(bytes: &'d [u8], media: Option<&MediaType>) -> Data<'d> {
        if bytes.is_empty() {
            return Data::json("");
        }
        if media.is_some_and(|media| !media.is_json()) {
            return Data::opaque(bytes, media.is_some_and(MediaType::is_text), None);
        }
        let read =
            json::text(bytes).and_then(json::value).and_then(|value| json::check(value).map(|()| value));
        match read {
            Ok(value) => Data::json(value.get()),
            Err(why) => {
                let message = format!("the data should be JSON: {}", why.message);
                Data::opaque(bytes, true, Some(Invalid { message, ..why }))
            }
        }
    }

    /// Data that came as base64 because it is bytes.
    pub(super) fn of_base64(text: &str, media: Option<&MediaType>) -> Data<'static> {
        match decode_base64(text) {
            Ok(bytes) => {
                let data = Data::of_bytes(&bytes, media);
                Data { payload: Cow::Owned(data.payload.into_owned()), ..data }
            }
            Err(error) => {
                let why = because("invalid_encoding", format!("`data_base64` cannot be decoded: {error}"));
                Data { why: Some(why), ..Data::opaque(text.as_bytes(), true, None) }
            }
        }
    }

    /// Bytes as a JSON string: as they are where they are text, else as base64.
    fn opaque(bytes: &[u8], is_text: bool, why: Option<Invalid>) -> Data<'static> {
        let mut payload = Vec::with_capacity(bytes.len() + 2);
        let text = is_text.then(|| str::from_utf8(bytes).ok()).flatten();
        match text {
            Some(text) => write_string(text, &mut payload),
            None => write_string(&STANDARD.encode(bytes), &mut payload),
        }
        Data { payload: Cow::Owned(payload), is_base64: text.is_none(), why }
    }
}
