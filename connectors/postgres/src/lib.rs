//! Forebay's PostgreSQL source and destination.
//!
//! Bytes of the source take this way: [`wire`] reads them from the server, [`protocol`] understands them, and
//! [`decode`] writes each value as JSON. [`connect`] opens connections of both kinds from what [`url`] understood.

pub mod connect;
mod cursor;
pub mod decode;
pub mod destination;
pub mod lsn;
pub mod protocol;
pub mod source;
pub mod time;
mod tls;
pub mod url;
pub mod wire;

pub use cursor::Malformed;
pub use destination::{PostgresDestination, PostgresDestinationConfig, PostgresSchemas};
pub use source::{PostgresSource, PostgresSourceConfig};
pub use tls::TlsError;
