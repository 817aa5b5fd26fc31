//! What is known of a stream: how far it is written, and which of its records were refused on the way. Pure.
//!
//! A record that was refused is settled by its dead letter, which is stored after the transaction that wrote its
//! neighbours. Until then the mark that the lane strikes off by stays in front of it, and what stands behind it is
//! recognised here. Invariants: every record up to `held` is settled; every record up to `written` stands in its topic
//! or was refused; each of `refused` lies between the two.

use std::collections::BTreeMap;

use forebay_api::{Mark, Rejection};
use serde::{Deserialize, Serialize};

/// The version of what is written.
const VERSION: u32 = 1;

/// How much of what was said about a refused record is kept, in characters.
const MAX_SAID: usize = 200;

/// How far a stream is.
#[derive(Clone, Debug, Default)]
pub(super) struct Position {
    /// Up to here the lane need not come again.
    pub(super) held: Option<Mark>,
    /// Up to here nothing is written again.
    written: Option<Mark>,
    /// What was refused in between, and why.
    refused: BTreeMap<Mark, Rejection>,
}

/// What a position says of a record.
#[derive(Debug)]
pub(super) enum Seen<'a> {
    /// It has never been written.
    New,
    /// It stands in its topic.
    Written,
    /// It was refused, and what follows it is written: it stays refused.
    Refused(&'a Rejection),
}

impl Position {
    /// What is known of the record at a mark. What is held is the lane's to strike off: whatever it hands over all the
    /// same is written, for twice is better than never.
    pub(super) fn seen(&self, mark: Mark) -> Seen<'_> {
        match self.refused.get(&mark) {
            Some(why) => Seen::Refused(why),
            None if Some(mark) > self.held && Some(mark) <= self.written => Seen::Written,
            None => Seen::New,
        }
    }

    /// The position once all of these records, which the lane handed over as still open, are written or were refused.
    /// What the lane did not hand over any more is settled.
    pub(super) fn after<'a>(&self, records: impl Iterator<Item = (Mark, Option<&'a Rejection>)>) -> Position {
        let mut next = self.clone();
        let mut first = None;
        let mut settled = true;
        for (mark, refused) in records {
            first = first.or(Some(mark));
            settled &= refused.is_none();
            if settled {
                next.held = next.held.max(Some(mark));
            }
            match refused {
                Some(why) => drop(next.refused.insert(mark, shortened(why))),
                None => next.written = next.written.max(Some(mark)),
            }
        }
        let (held, written) = (next.held, next.written);
        next.refused.retain(|mark, _| Some(*mark) > held && Some(*mark) < written && Some(*mark) >= first);
        next
    }

    /// As it stands in the positions, with who holds the stream.
    pub(super) fn to_json(&self, holder: &str) -> Vec<u8> {
        let refused = self.refused.iter();
        let text = Text {
            version: VERSION,
            holder: holder.to_owned(),
            held: self.held.map(numbers),
            written: self.written.map(numbers),
            refused: refused
                .map(|(mark, why)| (numbers(*mark), why.reason.clone(), why.chain.clone()))
                .collect(),
        };
        serde_json::to_vec(&text).expect("numbers and texts can be written as JSON")
    }

    /// The inverse of [`Position::to_json`]; the holder comes second. The error says what is wrong.
    pub(super) fn from_json(json: &[u8]) -> Result<(Position, String), String> {
        let text: Text = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if text.version != VERSION {
            return Err(format!("it has version {}, and this Forebay knows {VERSION}", text.version));
        }
        let refused = text.refused.into_iter();
        let position = Position {
            held: text.held.map(mark),
            written: text.written.map(mark),
            refused: refused.map(|(at, reason, chain)| (mark(at), Rejection { reason, chain })).collect(),
        };
        Ok((position, text.holder))
    }
}

/// Timeline, log position, ordinal, part.
type Numbers = (u32, u64, u32, u16);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    holder: String,
    held: Option<Numbers>,
    written: Option<Numbers>,
    refused: Vec<(Numbers, String, Vec<String>)>,
}

fn numbers(mark: Mark) -> Numbers {
    (mark.major.0, mark.major.1, mark.minor, mark.part)
}

fn mark((timeline, at, minor, part): Numbers) -> Mark {
    Mark { major: (timeline, at), minor, part }
}

fn shortened(why: &Rejection) -> Rejection {
    let short = |said: &String| said.chars().take(MAX_SAID).collect();
    Rejection { reason: why.reason.clone(), chain: why.chain.iter().map(short).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u64) -> Mark {
        Mark { major: (1, n), minor: 0, part: 0 }
    }

    fn refusal() -> Rejection {
        Rejection { reason: "too_large".to_owned(), chain: vec!["too much".to_owned()] }
    }

    /// The position after records of these numbers, of which those in `refused` were refused.
    fn after(position: &Position, records: &[u64], refused: &[u64]) -> Position {
        let why = refusal();
        position.after(records.iter().map(|n| (at(*n), refused.contains(n).then_some(&why))))
    }

    fn refused(position: &Position) -> Vec<u64> {
        position.refused.keys().map(|mark| mark.major.1).collect()
    }

    #[test]
    fn without_refusals_everything_that_was_written_is_held() {
        let position = after(&after(&Position::default(), &[1, 2], &[]), &[3], &[]);
        assert_eq!((position.held, position.written), (Some(at(3)), Some(at(3))));
        assert!(matches!(position.seen(at(3)), Seen::New), "what is held is not ours to strike off");
        assert!(matches!(position.seen(at(4)), Seen::New));
    }

    #[test]
    fn what_stands_behind_a_refused_record_is_written_but_not_held() {
        let position = after(&Position::default(), &[1, 2, 3], &[2]);
        assert_eq!((position.held, position.written), (Some(at(1)), Some(at(3))));
        assert!(matches!(position.seen(at(2)), Seen::Refused(_)));
        assert!(matches!(position.seen(at(3)), Seen::Written));
    }

    #[test]
    fn a_refused_record_that_the_lane_does_not_bring_again_is_settled() {
        let position = after(&Position::default(), &[1, 2, 3], &[2]);
        let next = after(&position, &[4], &[]);
        assert_eq!((next.held, refused(&next)), (Some(at(4)), vec![]));
        // Behind a refusal of its own it cannot be seen that the earlier one is settled, so it stays as it was.
        let next = after(&position, &[5, 6], &[5]);
        assert_eq!((next.held, next.written, refused(&next)), (Some(at(1)), Some(at(6)), vec![5]));
        assert!(matches!(next.seen(at(3)), Seen::Written));
    }

    #[test]
    fn what_comes_again_after_a_crash_changes_nothing_but_what_is_new() {
        let position = after(&Position::default(), &[1, 2, 3], &[2]);
        let again = after(&position, &[2, 3, 4], &[2]);
        assert_eq!((again.held, again.written, refused(&again)), (Some(at(1)), Some(at(4)), vec![2]));
    }

    #[test]
    fn a_refused_record_behind_which_nothing_is_written_may_be_tried_again() {
        let position = after(&Position::default(), &[1, 2], &[2]);
        assert_eq!((position.held, position.written, refused(&position)), (Some(at(1)), Some(at(1)), vec![]));
        assert!(matches!(position.seen(at(2)), Seen::New));
    }

    #[test]
    fn a_position_is_read_as_it_was_written_and_damage_is_an_error() {
        let position = after(&Position::default(), &[1, 2, 3], &[2]);
        let json = position.to_json("me");
        let (read, holder) = Position::from_json(&json).unwrap();
        assert_eq!((read.to_json("me"), holder.as_str()), (json.clone(), "me"));
        let newer = String::from_utf8(json).unwrap().replace("\"version\":1", "\"version\":2");
        assert!(Position::from_json(newer.as_bytes()).unwrap_err().contains("version 2"));
        assert!(Position::from_json(b"{}").is_err() && Position::from_json(b"").is_err());
    }
}
