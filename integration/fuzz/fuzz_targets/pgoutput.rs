//! Pieces of a replication stream.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| forebay_postgres::source::fuzzing::pgoutput(data));
