//! Pixels.
#![no_main]

mod request;

use forebay_http::source::pixel::{Settings, read};
use http::Method;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let settings = Settings::default();
    let allowed = |host: &str| host == "a.example" || host.ends_with(".b.example");
    let (answer, events) = request::run(data, Method::GET, "/pixel", |request, gathered| {
        read(request, &settings, &allowed, gathered)
    });
    assert_eq!(events, 1);
    let location = answer.headers.iter().find(|(name, _)| name == http::header::LOCATION);
    assert_eq!(answer.status == 302, location.is_some());
});
