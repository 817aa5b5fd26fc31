//! HTTP in and out: the collector, a source that trackers and SDKs are pointed at.
//!
//! Reading order: [`source::request`] (what came), the inputs (what they make of it), [`source::gathered`] (the events
//! of one request).

pub mod source;

pub use source::HttpSource;
