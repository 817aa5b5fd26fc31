//! The collector. One request is read whole, one input makes events of it, and the answer leaves when they are durable.

pub mod gathered;
pub mod request;

pub use gathered::{Gathered, Tracked};
pub use request::Request;
