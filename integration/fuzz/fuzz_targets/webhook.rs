//! The input `webhook`.
#![no_main]

mod request;

use forebay_http::source::webhook::{Settings, read};
use http::Method;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let settings = Settings::default();
    let (answer, events) =
        request::run(data, Method::POST, "/webhook", |request, gathered| read(request, &settings, gathered));
    assert!(answer.status.is_success() && events > 0);
});
