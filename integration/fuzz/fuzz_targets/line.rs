//! A line of COPY.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_postgres::source::fuzzing::line(data));
