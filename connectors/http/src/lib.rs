//! HTTP in and out: the collector, a source that trackers and SDKs are pointed at, and a destination that posts events.
//!
//! Reading order: [`source::request`] (what came), the inputs (what they make of it), [`source::gathered`] (the events
//! of one request); [`destination`].

pub mod destination;
pub mod source;

pub use destination::HttpDestination;
pub use source::HttpSource;
