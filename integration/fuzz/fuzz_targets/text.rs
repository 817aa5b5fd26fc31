//! Percent-encoding, pairs, base64, addresses.
#![no_main]

use forebay_http::source::{redirect::Target, text};

libfuzzer_sys::fuzz_target!(|data: &str| {
    let _ = (text::decode_form(data), text::decode_path(data), text::decode_header(data));
    let _ = (text::pairs(data).count(), text::short(data));
    if let Ok(bytes) = text::decode_base64(data) {
        // It has one spelling but for its alphabet and padding.
        assert_eq!(data.trim_end_matches('=').len(), (bytes.len() * 4).div_ceil(3));
    }
    if let Ok(target) = Target::parse(data) {
        let location = target.location.to_str().expect("it is ASCII");
        assert!(!location.contains(['\\', '\r', '\n', ' ']));
        assert_eq!(Target::parse(location).map(|again| again.host), Ok(target.host));
    }
});
