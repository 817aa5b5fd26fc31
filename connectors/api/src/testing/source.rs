//! The suite for sources.
