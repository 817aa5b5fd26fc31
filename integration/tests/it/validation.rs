//! Schema registries against the real servers they are kept in, and the daemon that judges by them.

mod contracts;
mod registries;
mod web;
