//! Holds what is stored against what was delivered and what the destination said of it.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::lane::Tally;
use super::workload::{Known, Workload};
use super::{Failure, Outcome, broken};

/// What was read back: each event's id and the table-and-key order of all.
pub(crate) struct Found<'w> {
    /// How often each id is there.
    pub(crate) times: HashMap<&'w str, usize>,
    /// The ranks of each key in the order they are stored.
    order: HashMap<&'w str, Vec<usize>>,
}

/// Reads what is stored; it breaks where something is there that was never delivered, or not as it was delivered.
pub(crate) fn find<'w>(workloads: &[&'w Workload], stored: &[Vec<u8>]) -> Result<Found<'w>, Failure> {
    let mut found = Found { times: HashMap::new(), order: HashMap::new() };
    for body in stored {
        let (id, known) = identify(workloads, body)?;
        *found.times.entry(id).or_default() += 1;
        found.order.entry(&known.key).or_default().push(known.rank);
    }
    Ok(found)
}

/// The event of a stored record.
fn identify<'w>(workloads: &[&'w Workload], body: &[u8]) -> Result<(&'w str, &'w Known), Failure> {
    let look_up = |id: &str| workloads.iter().find_map(|workload| workload.known.get_key_value(id));
    // Most stores keep the bytes, which then need not be parsed.
    if let Some((id, known)) = written_id(body).and_then(look_up)
        && known.body == body
    {
        return Ok((id, known));
    }
    let shown = String::from_utf8_lossy(&body[..body.len().min(300)]);
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Failure::Broken(format!("a stored record is no JSON ({error}): {shown}")))?;
    let id = value["id"].as_str().unwrap_or_default();
    let Some((id, known)) = look_up(id) else {
        return Err(Failure::Broken(format!("a stored record was never delivered: {shown}")));
    };
    // A store that parses JSON may order its members and spaces anew.
    if !serde_json::from_slice(&known.body).is_ok_and(|made| says_the_same(&made, &value)) {
        return Err(Failure::Broken(format!("a record is not stored as it was delivered: {shown}")));
    }
    Ok((id, known))
}

/// The id at the beginning of a record, where the workload writes it.
fn written_id(body: &[u8]) -> Option<&str> {
    let id = body.strip_prefix(b"{\"id\":\"")?.split(|&byte| byte == b'"').next()?;
    std::str::from_utf8(id).ok()
}

/// Whether two values are equal, but for the notation of whole numbers: `1e10` may come back as `10000000000`. Not the
/// other way round where digits are lost.
fn says_the_same(made: &Value, stored: &Value) -> bool {
    match (made, stored) {
        (Value::Number(made), Value::Number(stored)) if made.is_f64() != stored.is_f64() => {
            let digits = |number: &serde_json::Number| match number.as_f64() {
                Some(float) if number.is_f64() && float.fract() == 0.0 => format!("{float:.0}"),
                _ => number.to_string(),
            };
            digits(made) == digits(stored)
        }
        (Value::Array(made), Value::Array(stored)) => {
            made.len() == stored.len()
                && made.iter().zip(stored).all(|(made, stored)| says_the_same(made, stored))
        }
        (Value::Object(made), Value::Object(stored)) => {
            made.len() == stored.len()
                && made
                    .iter()
                    .all(|(name, made)| stored.get(name).is_some_and(|stored| says_the_same(made, stored)))
        }
        _ => made == stored,
    }
}

/// What must hold once everything that was made is settled. `once`: each event must be there once, not only at
/// least once.
pub(crate) fn judge(workloads: &[&Workload], tally: &Tally, stored: &[Vec<u8>], once: bool) -> Outcome {
    let found = find(workloads, stored)?;
    let made = || workloads.iter().flat_map(|workload| workload.known.keys());
    let settled = |id: &str| {
        tally.accepted.contains(id) || tally.rejected.contains_key(id) || tally.struck.contains(id)
    };
    none("were delivered but never settled", made().filter(|id| !settled(id)))?;
    accepted_is_there(tally, &found)?;
    none(
        "were rejected, yet they are stored",
        tally.rejected.keys().filter(|id| found.times.contains_key(id.as_str())),
    )?;
    if once {
        none(
            "are stored more than once",
            found.times.iter().filter(|(_, times)| **times > 1).map(|(id, _)| id),
        )?;
    }
    in_order(workloads, tally, &found)
}

/// Everything that was accepted, or struck off because it was said to be held, is stored.
pub(crate) fn accepted_is_there(tally: &Tally, found: &Found<'_>) -> Outcome {
    let lost = |ids: &HashSet<String>| -> Vec<String> {
        ids.iter().filter(|id| !found.times.contains_key(id.as_str())).cloned().collect()
    };
    none("were accepted but are not stored", lost(&tally.accepted))?;
    none("were struck off as held but are not stored", lost(&tally.struck))
}

/// First deliveries of a key are stored in order, and a repeat is followed again by all its successors: every
/// step goes back or one forward, and the last one ends at the key's last event.
fn in_order(workloads: &[&Workload], tally: &Tally, found: &Found<'_>) -> Outcome {
    let mut wanted: HashMap<&str, Vec<usize>> = HashMap::new();
    for (id, known) in workloads.iter().flat_map(|workload| &workload.known) {
        if !tally.rejected.contains_key(id) {
            wanted.entry(&known.key).or_default().push(known.rank);
        }
    }
    for (key, mut ranks) in wanted {
        ranks.sort_unstable();
        let places: HashMap<usize, usize> =
            ranks.iter().enumerate().map(|(place, rank)| (*rank, place)).collect();
        let stored: Vec<usize> =
            found.order.get(key).into_iter().flatten().filter_map(|rank| places.get(rank).copied()).collect();
        let mut next = 0;
        for (at, place) in stored.iter().enumerate() {
            if *place > next {
                let around = &stored[at.saturating_sub(5)..(at + 5).min(stored.len())];
                return broken(format!(
                    "key {key}: event {place} is stored before event {next}: … {around:?} …"
                ));
            }
            next = place + 1;
        }
        if next != ranks.len() {
            return broken(format!(
                "key {key}: the last stored is event {} of {}: a repeat was not followed by its successors",
                next,
                ranks.len()
            ));
        }
    }
    Ok(())
}

/// Breaks when there is any id, and shows the first few.
pub(crate) fn none(what: &str, ids: impl IntoIterator<Item = impl AsRef<str>>) -> Outcome {
    let mut ids: Vec<String> = ids.into_iter().map(|id| id.as_ref().to_owned()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    ids.sort_unstable();
    let first = ids.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    broken(format!("{} events {what}: {first}{}", ids.len(), if ids.len() > 3 { ", …" } else { "" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_may_change_its_notation_but_not_its_digits() {
        let same = |made: &str, stored: &str| {
            says_the_same(&serde_json::from_str(made).unwrap(), &serde_json::from_str(stored).unwrap())
        };
        assert!(same(r#"{"a":[1e10,-0.5],"b":1}"#, r#"{"b":1,"a":[10000000000,-0.5]}"#));
        assert!(!same("12345678901234567", "1.2345678901234568e16"));
        assert!(!same("[1]", "[1,2]"));
        assert!(!same(r#"{"a":1}"#, r#"{"b":1}"#));
        assert!(!same("0.5", "1"));
    }
}
