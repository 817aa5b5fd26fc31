//! Values with a unit, as the configuration writes them: `5ms`, `64KiB`.
//!
//! Both types read exactly what their JSON Schema accepts and print what they read, so that a schema, an example
//! and a message never disagree. A number without a unit is refused: nobody can tell what it meant. Messages do
//! not repeat the text they refuse, for it may have come from a secret.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Milliseconds in each unit of time, the longest first.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Bytes in each unit of size; the first that divides a size evenly is the one it is printed in.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Digits that a number may have: more cannot be meant, and fewer than nineteen cannot overflow while reading.
const MAX_DIGITS: usize = 12;

/// A text that is no number with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// It should have been a [`Period`].
    #[error("not a duration: write a whole number and one of `ms`, `s`, `m`, `h`, `d`, such as `10s`")]
    Period,
    /// It should have been a [`ByteSize`].
    #[error(
        "not a size: write a whole number and one of `B`, `KB`, `MB`, `GB`, `KiB`, `MiB`, `GiB`, such as `64KiB`"
    )]
    ByteSize,
}

/// A length of time in whole milliseconds: `5ms`, `10s`, `5m`, `1h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    /// The length.
    millis: u64,
}

impl Period {
    /// So many milliseconds.
    pub const fn millis(millis: u64) -> Period {
        Period { millis }
    }

    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Period {
        Period { millis: seconds * 1_000 }
    }

    /// What timers take.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.millis)
    }
}

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Period, UnitError> {
        measure(text, &TIME_UNITS).map(Period::millis).ok_or(UnitError::Period)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_measure(f, self.millis, &TIME_UNITS, "ms")
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Period, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Period {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "duration",
            "type": "string",
            "pattern": pattern(&TIME_UNITS),
            "examples": ["5ms", "10s", "5m"],
        })
    }
}

/// A number of bytes: `512B`, `64KiB`, `1MiB`, `1MB`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize {
    /// How many.
    bytes: u64,
}

impl ByteSize {
    /// So many bytes.
    pub const fn bytes(bytes: u64) -> ByteSize {
        ByteSize { bytes }
    }

    /// So many times 1,024 bytes.
    pub const fn kib(kib: u64) -> ByteSize {
        ByteSize { bytes: kib << 10 }
    }

    /// So many times 1,048,576 bytes.
    pub const fn mib(mib: u64) -> ByteSize {
        ByteSize { bytes: mib << 20 }
    }

    /// What files and counters take.
    pub const fn get(self) -> u64 {
        self.bytes
    }

    /// What memory takes; more than there are addresses is all of them.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<ByteSize, UnitError> {
        measure(text, &SIZE_UNITS).map(ByteSize::bytes).ok_or(UnitError::ByteSize)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_measure(f, self.bytes, &SIZE_UNITS, "B")
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "size",
            "type": "string",
            "pattern": pattern(&SIZE_UNITS),
            "examples": ["64KiB", "1MiB", "1MB"],
        })
    }
}

/// Reads digits and one of the units; `None` for anything else.
fn measure(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if !(1..=MAX_DIGITS).contains(&digits) {
        return None;
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Writes in the first unit that leaves no rest; zero in the smallest.
fn write_measure(
    f: &mut fmt::Formatter<'_>,
    value: u64,
    units: &[(&str, u64)],
    smallest: &str,
) -> fmt::Result {
    match units.iter().find(|(_, factor)| value > 0 && value.is_multiple_of(*factor)) {
        Some((name, factor)) => write!(f, "{}{name}", value / factor),
        None => write!(f, "{value}{smallest}"),
    }
}

/// The regular expression of what [`measure`] reads, for the schema.
fn pattern(units: &[(&str, u64)]) -> String {
    let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    format!("^[0-9]{{1,{MAX_DIGITS}}}({})$", names.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_and_printed_alike() {
        for text in ["0ms", "5ms", "10s", "5m", "1h", "7d", "1500ms"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        for text in ["0B", "1B", "64KiB", "1MiB", "1MB", "1GiB", "3GB", "1500B"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        assert_eq!("90s".parse::<Period>().unwrap().as_duration(), Duration::from_secs(90));
        assert_eq!("2MiB".parse::<ByteSize>().unwrap(), ByteSize::mib(2));
    }

    #[test]
    fn what_has_no_unit_or_no_number_is_refused() {
        for text in ["", "5", "ms", "-5ms", "5 ms", "1.5s", "5S", "5min", "9999999999999ms", "\u{665}s"] {
            assert_eq!(text.parse::<Period>(), Err(UnitError::Period), "{text}");
        }
        for text in ["", "5", "KiB", "5kb", "5K", "1e3B", "999999999999GiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(UnitError::ByteSize), "{text}");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_the_text() {
        let error = serde_json::from_str::<Period>("\"hunter2\"").unwrap_err().to_string();
        assert!(error.starts_with("not a duration") && !error.contains("hunter2"), "{error}");
    }
}
