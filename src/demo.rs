//! `forebay demo` and what it brings with it. The embedded PostgreSQL, its ports and its processes are used by the
//! integration tests too, so that what a newcomer sees is started by the same code as what we prove.
//!
//! The demo itself: [`run`] tells the story, `shop` makes the changes and writes them down in the `ledger`, `child` is
//! the daemon, `screen` shows it all, and `proof` compares what arrived with the ledger.

mod child;
mod database;
pub mod embedded;
mod epilogue;
mod evidence;
mod folder;
mod ledger;
pub mod port;
pub mod process;
mod proof;
mod run;
mod screen;
mod shop;

pub use run::{Options, run};
