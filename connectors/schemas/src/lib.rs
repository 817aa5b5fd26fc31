//! Where schemas are kept: a folder, a web server, an Iglu registry, objects in S3, GCS and Azure.
//!
//! Each store answers one question: the bytes under a key, that there are none, or that it could not look. Keys are
//! checked before they come here, so they are safe in paths; what a server answers is taken for what its status says,
//! never for what its body looks like.

mod client;
mod file;
mod http;
mod iglu;
#[cfg(feature = "object-store")]
mod object;
mod paths;

pub use file::FileStore;
pub use http::HttpStore;
pub use iglu::IgluStore;
#[cfg(feature = "object-store")]
pub use object::{AzureStore, GcsStore, S3Store};
