//! [`Seen`]: which transactions a snapshot of the server sees. Pure.

use std::collections::HashSet;

/// What `pg_current_snapshot()` says: `xmin:xmax:xip,xip,…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Everything below has ended.
    xmin: u64,
    /// Everything from here on had not begun.
    xmax: u64,
    /// Those in between that run.
    running: HashSet<u64>,
    /// Whether `running` is all of them. A standby does not tell it.
    exact: bool,
}

/// Whether a snapshot sees a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sees {
    /// What it did is seen.
    Yes,
    /// It is not.
    No,
    /// Nobody can tell.
    Unknown,
}

impl Seen {
    /// Reads the server's text; `None` when it is none. `exact`: the server is no standby.
    pub(crate) fn read(text: &str, exact: bool) -> Option<Seen> {
        let mut parts = text.split(':');
        let (xmin, xmax, running) = (parts.next()?, parts.next()?, parts.next()?);
        let running = running.split(',').filter(|xid| !xid.is_empty()).map(str::parse);
        let seen = Seen {
            xmin: xmin.parse().ok()?,
            xmax: xmax.parse().ok()?,
            running: running.collect::<Result<_, _>>().ok()?,
            exact,
        };
        parts.next().is_none().then_some(seen)
    }

    /// Whether it sees a transaction that the stream names by the lower half of its id. The two are never further
    /// apart than half of all ids, because the server would have stopped before.
    pub(crate) fn sees(&self, xid: u32) -> Sees {
        let xid = self.whole(xid);
        if xid < self.xmin {
            Sees::Yes
        } else if xid >= self.xmax || self.running.contains(&xid) {
            Sees::No
        } else if self.exact {
            Sees::Yes
        } else {
            Sees::Unknown
        }
    }

    /// Whether it sees a transaction and all with lower ids.
    pub(crate) fn sees_up_to(&self, xid: u32) -> bool {
        self.whole(xid) < self.xmin
    }

    /// Those that ran.
    pub(crate) fn running(&self) -> impl Iterator<Item = u32> + '_ {
        self.running.iter().map(|&xid| lower(xid))
    }

    /// The oldest that had not ended.
    pub(crate) fn floor(&self) -> u32 {
        lower(self.xmin)
    }

    fn whole(&self, xid: u32) -> u64 {
        let epoch = self.xmax & !u64::from(u32::MAX);
        let near = epoch | u64::from(xid);
        if near > self.xmax + (1 << 31) {
            near.saturating_sub(1 << 32)
        } else if near + (1 << 31) < self.xmax {
            near + (1 << 32)
        } else {
            near
        }
    }
}

fn lower(xid: u64) -> u32 {
    u32::try_from(xid & u64::from(u32::MAX)).expect("masked to 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_what_had_ended_and_nothing_else() {
        let seen = Seen::read("100:105:101,103", true).unwrap();
        let sees = [99, 100, 101, 102, 103, 104, 105, 106].map(|xid| seen.sees(xid) == Sees::Yes);
        assert_eq!(sees, [true, true, false, true, false, true, false, false]);
        assert_eq!(Seen::read("7:7:", true).unwrap().sees(6), Sees::Yes);
        for wrong in ["", "1:2", "a:2:", "1:2:x", "1:2:3:4"] {
            assert_eq!(Seen::read(wrong, true), None, "{wrong}");
        }
    }

    #[test]
    fn everything_up_to_an_id_is_seen_when_nothing_older_runs() {
        let seen = Seen::read("100:105:101,103", true).unwrap();
        assert_eq!([99, 100, 102].map(|xid| seen.sees_up_to(xid)), [true, false, false]);
    }

    #[test]
    fn a_standby_leaves_open_what_is_in_between() {
        let seen = Seen::read("100:105:", false).unwrap();
        assert_eq!(
            [99, 100, 104, 105].map(|xid| seen.sees(xid)),
            [Sees::Yes, Sees::Unknown, Sees::Unknown, Sees::No]
        );
    }

    #[test]
    fn ids_that_wrapped_are_compared_as_whole_ones() {
        let base = 5u64 << 32;
        let seen = Seen::read(&format!("{}:{}:{}", base - 10, base + 10, base + 1), true).unwrap();
        assert_eq!(seen.sees(u32::MAX - 20), Sees::Yes, "in the epoch before");
        assert_eq!(seen.sees(u32::MAX - 2), Sees::Yes);
        assert_eq!(seen.sees(1), Sees::No, "it runs");
        assert_eq!(seen.sees(2), Sees::Yes);
        assert_eq!(seen.sees(10), Sees::No);
    }
}
