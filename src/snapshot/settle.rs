//! Which tables are copied: what the mode, the tables that are there, and what is stored of them come to.
//!
//! | a table                                  | `initial` `only` `when_needed`      | `never`    |
//! |------------------------------------------|-------------------------------------|------------|
//! | that is new, at the source's first start | copied                              | not copied |
//! | that is new, and no table is known       | not copied: the source ran before   | not copied |
//! | that is new, and others are known        | copied: it was added                | not copied |
//! | that was copied under another identity   | copied anew: changes were lost      | left       |
//! | whose copy began under another identity  | its copy begins again               | ended      |
//! | whose copy is not done                   | goes on                             | ended      |
//! | that was given up, or never to be copied | left                                | left       |
//! | that has gone                            | forgotten                           | forgotten  |
//! | whose name another one has now           | forgotten; the other one is new     | the same   |
//!
//! What an operator asked for goes on under every mode. And a source may say that everything is to be copied anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use forebay_api::{SnapshotMode, SnapshotPlan, Table};

use super::progress::Progress;
use super::record::{Reason, State, Whole};

impl Progress {
    /// Decides about the tables that are there now. `beginning`: for the first time in this run of the source.
    pub(super) fn settle(&mut self, plan: &SnapshotPlan, listed: &[Table], beginning: bool) {
        let whole = self.whole.clone().unwrap_or_default();
        let anew = beginning && plan.mode != SnapshotMode::Never && plan.anew;
        let first_start = plan.first_start || (self.whole.is_some() && !whole.decided);
        let reason = if whole.decided { Reason::Added } else { Reason::Initial };
        let copies_new =
            plan.mode != SnapshotMode::Never && (whole.decided || first_start || !self.tables.is_empty());
        self.forget_all_but(listed);
        self.forget_namesakes(listed);
        for table in listed {
            let name: Arc<str> = table.name.as_str().into();
            if anew {
                self.begin(&name, Reason::Anew, &plan.identity);
            } else if !self.tables.contains_key(&name) {
                if copies_new {
                    self.begin(&name, reason, &plan.identity);
                } else {
                    self.leave(&name, &plan.identity);
                }
            } else if beginning {
                self.take_up(&name, plan);
            }
            self.know(&name, table);
        }
        let whole = self.whole.clone().unwrap_or_default();
        self.set_whole(Whole { decided: true, ..whole });
    }

    fn forget_all_but(&mut self, listed: &[Table]) {
        let listed: BTreeSet<&str> = listed.iter().map(|table| table.name.as_str()).collect();
        let gone: Vec<_> =
            self.tables.keys().filter(|name| !listed.contains(name.as_ref())).cloned().collect();
        for name in gone {
            self.forget(&name);
        }
    }

    fn forget_namesakes(&mut self, listed: &[Table]) {
        for table in listed {
            let name: Arc<str> = table.name.as_str().into();
            let is_another = self.tables.get(&name).is_some_and(|known| {
                !known.record.incarnation.is_empty() && known.record.incarnation != table.incarnation
            });
            if is_another {
                self.forget(&name);
            }
        }
    }

    /// Decides about a table that is known from an earlier run.
    fn take_up(&mut self, name: &Arc<str>, plan: &SnapshotPlan) {
        let before = self.tables[name].record.clone();
        let is_other = before.identity != plan.identity;
        let is_wanted = plan.mode != SnapshotMode::Never || before.reason == Reason::Asked;
        match before.state {
            State::Waiting | State::Copying if !is_wanted => self.give_up(name, State::NotCopied),
            State::Waiting | State::Copying if is_other => {
                let record = self.begin(name, before.reason, &plan.identity);
                (record.filter, record.paused) = (before.filter, before.paused);
            }
            State::Done if is_other && plan.mode != SnapshotMode::Never => {
                self.begin(name, Reason::Anew, &plan.identity);
            }
            _ => {}
        }
    }

    /// Takes over which table of this name it is, and what the server believes now of one that is not divided yet, which
    /// is not worth storing.
    fn know(&mut self, name: &Arc<str>, listed: &Table) {
        let table = self.tables.get_mut(name).expect("it was just looked at");
        if table.record.state == State::Waiting && listed.estimated_rows.is_some() {
            table.record.estimated_rows = listed.estimated_rows;
        }
        if table.record.incarnation != listed.incarnation {
            table.record.incarnation.clone_from(&listed.incarnation);
            self.touch(name);
        }
    }
}
