//! One binary for all tests against real servers, so that they share the servers; one module per topic.

#![expect(clippy::unwrap_used, reason = "each function of this crate is a test or part of one")]

mod chaos;
mod check;
mod checker;
mod cli;
mod collector;
mod conformance;
mod dead_letters;
mod demo;
mod http;
mod init;
mod journal;
mod kafka;
mod kafka_source;
mod kinesis;
mod postgres_destination;
mod postgres_source;
mod postgres_types;
mod postgres_wire;
mod proxy;
mod schemas;
mod servers;
mod snapshot;
mod validation;
