//! CloudEvents in all modes.
#![no_main]

mod request;

use forebay_http::source::cloudevents::{Settings, read};
use http::Method;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let settings = Settings::default();
    let (answer, events) =
        request::run(data, Method::POST, "/cloudevents", |request, gathered| read(request, &settings, gathered));
    assert!(answer.status.is_success());
    assert!(events > 0 || data.contains(&b'['), "only an empty batch has no events");
});
