//! The input `self_describing`.
#![no_main]

mod request;

use forebay_http::source::self_describing::{Settings, read};
use http::Method;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let settings = Settings::default();
    let (answer, events) =
        request::run(data, Method::POST, "/self-describing", |request, gathered| read(request, &settings, gathered));
    assert!(answer.status.is_success() && events > 0);
});
