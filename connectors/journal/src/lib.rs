//! Forebay's journal on disk: a log of chunks in files, durable before it counts, read by any number of readers.
//!
//! ```text
//!  deliver ──Entry──▶ Writer (a thread) ──▶ Log: append · commit ══ segments ══▶ Cursor ──▶ outlet of each reader
//!                                            │                      ▲
//!                                            └─ durable end ────────┴─ Store: who reads what, what may be deleted
//! ```
//! Durable means that `fdatasync` has returned. What waits while one runs shares the next.
//!
//! # Words
//!
//! **Address**: bytes written since the journal was made, without the headers of files; it never falls. **Frame**: a
//! checksummed entry at its address (`frame`). **Segment**: one file of frames (`segment`); deleted whole. **Head**:
//! what is known of all before a segment (`head`). **Durable end**: all before it is on the disk, and nothing behind
//! it is read or was acknowledged. **Place**: what a reader still needs (`readers`). **Park**: cut a reader off.
//! **Gap**: a frame in the place of damaged ones.
//!
//! # Reading order
//!
//! `frame`, `head`, `position` (pure) · `segment`, `frames`, `folder`, `readers` (files) · `recovery`
//! · `store` · `log` · `writer`, `destination` · `cursor`, `reader` · `locate` · [`salvage`] ·
//! `journal`.

mod config;
mod cursor;
mod destination;
mod fault;
mod fields;
mod folder;
mod frame;
mod frames;
mod head;
mod identity;
mod journal;
mod locate;
mod log;
#[cfg(test)]
mod model;
mod position;
mod reader;
mod readers;
mod recovery;
#[cfg(test)]
mod rig;
mod salvage;
mod segment;
mod store;
mod writer;

pub use config::{DiskConfig, Full};
pub use journal::DiskJournal;
pub use salvage::{Gap, salvage};
