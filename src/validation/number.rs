//! [`Number`]: a JSON number as it is written, so that no digit is lost on the way to a verdict.

use std::borrow::Cow;

use jsonschema::json::JsonNumber;
use serde_json::Value;

/// The text of a JSON number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<'a>(pub &'a str);

/// What a number is mathematically: `digits · 10^scale`. No zeros at either end of the digits; zero has none.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    scale: i64,
}

impl Number<'_> {
    /// Its mathematical value, exactly; an exponent beyond 63 bits is as large as one can be.
    pub(super) fn decimal(self) -> Decimal {
        let (negative, text) = match self.0.strip_prefix('-') {
            Some(text) => (true, text),
            None => (false, self.0),
        };
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let most = if exponent.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 };
        let exponent = exponent.parse::<i64>().unwrap_or(most).clamp(i64::MIN / 2, i64::MAX / 2);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> =
            whole.bytes().chain(fraction.bytes()).skip_while(|digit| *digit == b'0').collect();
        let mut scale = exponent - i64::try_from(fraction.len()).unwrap_or(i64::MAX / 4);
        while digits.last() == Some(&b'0') {
            digits.pop();
            scale += 1;
        }
        match digits.is_empty() {
            true => Decimal { negative: false, digits, scale: 0 },
            false => Decimal { negative, digits, scale },
        }
    }

    /// Whether it is the number of a schema. The schema's own is exact within 64 bits, and a float beyond.
    pub(super) fn equals(self, expected: &serde_json::Number) -> bool {
        if expected.is_f64() {
            return self.as_f64() == expected.as_f64();
        }
        self.decimal() == Number(&expected.to_string()).decimal()
    }
}

impl JsonNumber for Number<'_> {
    fn as_u64(&self) -> Option<u64> {
        self.0.parse().ok()
    }

    fn as_i64(&self) -> Option<i64> {
        self.0.parse().ok()
    }

    /// One that is too large for a float is infinite, and so beyond every bound that a schema can have.
    fn as_f64(&self) -> Option<f64> {
        self.0.parse().ok()
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0)
    }

    fn to_number(&self) -> Cow<'_, serde_json::Number> {
        let largest = if self.0.starts_with('-') { f64::MIN } else { f64::MAX };
        let number = match serde_json::from_str::<Value>(self.0) {
            Ok(Value::Number(number)) => Some(number),
            _ => serde_json::Number::from_f64(largest),
        };
        Cow::Owned(number.expect("the largest float is a number"))
    }

    fn is_integer(&self) -> bool {
        !self.0.contains(['.', 'e', 'E']) || self.decimal().scale >= 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_equal_when_they_mean_the_same_and_no_digit_is_lost() {
        for (a, b, equal) in [
            ("1", "1.0", true),
            ("100", "1e2", true),
            ("0", "-0.00", true),
            ("0.1", "1E-1", true),
            ("12345678901234567890123", "12345678901234567890124", false),
            ("1e999999999999999999999", "1e5", false),
            ("-1", "1", false),
        ] {
            assert_eq!(Number(a).decimal() == Number(b).decimal(), equal, "{a} {b}");
        }
    }

    #[test]
    fn integers_are_told_by_what_they_mean() {
        for (text, integer) in
            [("1", true), ("1.0", true), ("1.5", false), ("1e400", true), ("1e-1", false), ("0.00", true)]
        {
            assert_eq!(Number(text).is_integer(), integer, "{text}");
        }
    }
}
