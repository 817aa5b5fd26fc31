//! A value of any type.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_postgres::source::fuzzing::tuple(data));
