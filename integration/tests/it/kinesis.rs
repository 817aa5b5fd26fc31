//! Kinesis beyond the suite.
