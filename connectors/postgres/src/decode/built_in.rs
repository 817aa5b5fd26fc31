//! Types with fixed oids: how they are written, and what SQL calls them.

use tokio_postgres::types::Type;

use super::Encoder;
use super::options::{Digits, ValueOptions};

/// How a built-in type that is made of nothing else is written. What is not named here is a string that says all of
/// it: times, addresses, geometric types, text search, log positions, references to objects.
pub(super) fn encoder(built_in: &Type, options: ValueOptions) -> Encoder {
    match *built_in {
        Type::BOOL => Encoder::Bool,
        Type::INT2 | Type::INT4 => Encoder::Integer,
        Type::INT8 => match options.int8 {
            Digits::Number => Encoder::Integer,
            Digits::String => Encoder::IntegerText,
        },
        Type::NUMERIC => match options.numeric {
            Digits::Number => Encoder::Number,
            Digits::String => Encoder::NumberText,
        },
        Type::FLOAT4 | Type::FLOAT8 => Encoder::Number,
        Type::JSON | Type::JSONB => Encoder::Json,
        Type::BYTEA => Encoder::Bytea,
        Type::DATE => Encoder::Date,
        Type::TIMESTAMP => Encoder::Timestamp,
        Type::TIMESTAMPTZ => Encoder::TimestampTz,
        Type::CHAR => Encoder::Char,
        _ => Encoder::Text,
    }
}

/// What SQL calls a built-in type with this modifier, in PostgreSQL's own words (`format_type`).
pub(super) fn name(built_in: &Type, modifier: i32) -> String {
    let (before, after) = match *built_in {
        Type::BOOL => ("boolean", ""),
        Type::INT2 => ("smallint", ""),
        Type::INT4 => ("integer", ""),
        Type::INT8 => ("bigint", ""),
        Type::FLOAT4 => ("real", ""),
        Type::FLOAT8 => ("double precision", ""),
        Type::VARCHAR => ("character varying", ""),
        // without a length it is no `character`, which would mean one character
        Type::BPCHAR if modifier >= 0 => ("character", ""),
        Type::CHAR => ("\"char\"", ""),
        // as above: `bit` alone means one bit
        Type::BIT if modifier < 0 => ("\"bit\"", ""),
        Type::VARBIT => ("bit varying", ""),
        Type::TIME => ("time", " without time zone"),
        Type::TIMETZ => ("time", " with time zone"),
        Type::TIMESTAMP => ("timestamp", " without time zone"),
        Type::TIMESTAMPTZ => ("timestamp", " with time zone"),
        _ => (built_in.name(), ""),
    };
    format!("{before}{}{after}", modifiers(built_in, modifier))
}

/// How many characters or bits a value of the type may have.
pub(super) fn length(built_in: &Type, modifier: i32) -> Option<i32> {
    match *built_in {
        // these count four bytes of a header that no value has had for decades
        Type::VARCHAR | Type::BPCHAR => (modifier >= HEADER).then(|| modifier - HEADER),
        Type::BIT | Type::VARBIT => (modifier >= 0).then_some(modifier),
        _ => None,
    }
}

const HEADER: i32 = 4;

fn modifiers(built_in: &Type, modifier: i32) -> String {
    if modifier < 0 {
        return String::new();
    }
    match *built_in {
        Type::TIME | Type::TIMETZ | Type::TIMESTAMP | Type::TIMESTAMPTZ => format!("({modifier})"),
        Type::NUMERIC => numeric(modifier),
        Type::INTERVAL => interval(modifier),
        _ => length(built_in, modifier).map(|length| format!("({length})")).unwrap_or_default(),
    }
}

/// Precision, and a scale of 11 bits with a sign.
fn numeric(modifier: i32) -> String {
    let Some(packed) = modifier.checked_sub(HEADER).filter(|packed| *packed >= 0) else {
        return String::new();
    };
    format!("({},{})", packed >> 16, ((packed & 0x7ff) ^ 0x400) - 0x400)
}

/// Which fields it has, and how many digits of its seconds.
fn interval(modifier: i32) -> String {
    const NO_PRECISION: i32 = 0xffff;
    const FIELDS: [(i32, &str); 6] =
        [(2, "year"), (1, "month"), (3, "day"), (10, "hour"), (11, "minute"), (12, "second")];
    const ALL: i32 = 0x7fff;
    let (fields, precision) = (modifier >> 16 & ALL, modifier & NO_PRECISION);
    let mut text = String::new();
    if fields != ALL {
        let mut named = FIELDS.iter().filter(|(bit, _)| fields & 1 << bit != 0).map(|(_, name)| *name);
        let (first, last) = (named.next(), named.next_back());
        for (between, name) in [(" ", first), (" to ", last)] {
            if let Some(name) = name {
                text = text + between + name;
            }
        }
    }
    if precision != NO_PRECISION {
        text += &format!("({precision})");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_called_what_the_server_calls_it() {
        for (built_in, modifier, expected) in [
            (Type::INT8, -1, "bigint"),
            (Type::NUMERIC, -1, "numeric"),
            (Type::NUMERIC, 655_366, "numeric(10,2)"),
            // numeric(2,-3)
            (Type::NUMERIC, (2 << 16 | 0x7fd) + 4, "numeric(2,-3)"),
            (Type::VARCHAR, 24, "character varying(20)"),
            (Type::VARCHAR, -1, "character varying"),
            (Type::BPCHAR, 7, "character(3)"),
            (Type::BPCHAR, -1, "bpchar"),
            (Type::BIT, 3, "bit(3)"),
            (Type::BIT, -1, "\"bit\""),
            (Type::VARBIT, 5, "bit varying(5)"),
            (Type::CHAR, -1, "\"char\""),
            (Type::TIMESTAMPTZ, 3, "timestamp(3) with time zone"),
            (Type::TIME, -1, "time without time zone"),
            (Type::INTERVAL, -1, "interval"),
            (Type::INTERVAL, 0x7fff_0003, "interval(3)"),
            (Type::INTERVAL, 1 << 18 | 0xffff, "interval year"),
            (Type::INTERVAL, 0x1c08 << 16 | 2, "interval day to second(2)"),
            (Type::PG_LSN, -1, "pg_lsn"),
        ] {
            assert_eq!(name(&built_in, modifier), expected);
        }
    }
}
