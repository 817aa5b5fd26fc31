//! Each connector put to the conformance suite of the contract, against its real server.

mod file;
mod http;
mod journal;
mod kafka;
mod kafka_journal;
mod kafka_source;
mod kinesis;
mod postgres;
mod postgres_source;
