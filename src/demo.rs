//! `forebay demo` and what it brings with it. The embedded PostgreSQL, its ports and its processes are used by the
//! integration tests too, so that what a newcomer sees is started by the same code as what we prove.

pub mod embedded;
pub mod port;
pub mod process;
