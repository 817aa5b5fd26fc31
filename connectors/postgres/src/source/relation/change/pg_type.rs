//! Which types of PostgreSQL hold all that another one does, by what `x-pg-type` calls them. Pure.

use serde_json::{Map, Value};

/// Whether a keyword says nothing of which values are allowed.
pub(super) fn is_annotation(keyword: &str) -> bool {
    ["description", "x-pg-type", "x-pg-domain"].contains(&keyword)
}

/// Whether the type that the schema `is` names holds all that the one that `was` names does, and means the same.
/// `None`: nothing is named, as where values are hashed.
pub(super) fn widens(was: Option<&Map<String, Value>>, is: Option<&Map<String, Value>>) -> bool {
    let (was, is) = match (was, is) {
        (None, None) => return true,
        (Some(was), Some(is)) => (was, is),
        _ => return false,
    };
    // A domain may be taken away from a column, and narrows it when it comes.
    let domain = is.get("x-pg-domain").is_none_or(|is| was.get("x-pg-domain") == Some(is));
    let name =
        |schema: &Map<String, Value>| schema.get("x-pg-type").and_then(Value::as_str).map(str::to_owned);
    domain && name(was).zip(name(is)).is_some_and(|(was, is)| was == is || holds(&was, &is))
}

fn holds(was: &str, is: &str) -> bool {
    // The elements say it of themselves.
    if was.ends_with("[]") && is.ends_with("[]") {
        return true;
    }
    let ((was, was_args), (is, is_args)) = (parts(was), parts(is));
    match (was.as_str(), is.as_str()) {
        ("numeric", "numeric") => digits_fit(&was_args, &is_args),
        ("smallint", "numeric") => digits_fit(&[5, 0], &is_args),
        ("integer", "numeric") => digits_fit(&[10, 0], &is_args),
        ("bigint", "numeric") => digits_fit(&[19, 0], &is_args),
        ("smallint", "integer" | "bigint" | "real" | "double precision")
        | ("integer", "bigint" | "double precision")
        | ("real", "double precision") => true,
        // how long they may be is said by `maxLength`
        ("character varying" | "character" | "bpchar" | "text", "text" | "character varying")
        | ("character", "character" | "bpchar")
        | ("bit" | "bit varying", "bit varying") => true,
        (was, is) if was == is && is_moment(was) => precision(&was_args) <= precision(&is_args),
        // How many dimensions is said by `minItems`.
        (was, is) if was == is && was_args.len() == 1 => is_args.is_empty() && !is_fixed(was),
        (was, is) => was == is && was_args == is_args,
    }
}

/// `numeric(10,2)` as its name and numbers. A name in quotes may hold anything and is left whole.
fn parts(name: &str) -> (String, Vec<i32>) {
    let whole = || (name.to_owned(), Vec::new());
    if name.contains('"') {
        return whole();
    }
    let Some((before, rest)) = name.split_once('(') else { return whole() };
    let Some((args, after)) = rest.split_once(')') else { return whole() };
    let args: Result<Vec<i32>, _> = args.split(',').map(str::parse).collect();
    args.map_or_else(|_| whole(), |args| (format!("{before}{after}"), args))
}

/// Whether numbers of the one precision and scale fit into the other.
fn digits_fit(was: &[i32], is: &[i32]) -> bool {
    match (was, is) {
        (_, []) => true,
        ([was_precision, was_scale], [precision, scale]) => {
            scale >= was_scale && precision - scale >= was_precision - was_scale
        }
        _ => false,
    }
}

fn is_moment(name: &str) -> bool {
    name.starts_with("time ") || name.starts_with("timestamp ") || name.starts_with("interval")
}

/// Digits of seconds; six where nothing is said.
fn precision(args: &[i32]) -> i32 {
    args.first().copied().unwrap_or(6)
}

/// Types that mean one character or bit where they say no length.
fn is_fixed(name: &str) -> bool {
    ["character", "bit"].contains(&name)
}
