//! What the server is, what our role may do on it, and whether there is room for us.

use forebay_api::{Blame, Finding};

use super::Seen;
use super::room::Seats;
use super::statement::remedy;
use crate::source::config::{Origin, PublicationMode};

/// Statements that only a restart makes count.
const RESTART: &str = "and restart the server";

pub(super) fn findings(seen: &Seen<'_>) -> Vec<Finding> {
    let mut findings = vec![version(seen), wal_level(seen), may_replicate(seen)];
    findings.extend(standby(seen));
    findings.extend(too_new(seen));
    findings.push(replication_connections(seen));
    findings.extend(connections(seen));
    findings
}

fn version(seen: &Seen<'_>) -> Finding {
    let fact = format!("the server is PostgreSQL {}", seen.facts.major());
    match seen.facts.major() {
        ..13 => Finding::bad(fact, Blame::Outside, "-- upgrade it: 13 is the oldest supported"),
        13..=18 => Finding::good(fact),
        _ => Finding::warning(fact, "-- nothing newer than 18 was tested"),
    }
}

fn wal_level(seen: &Seen<'_>) -> Finding {
    let fact = format!("`wal_level` is `{}`", seen.facts.wal_level);
    if seen.facts.wal_level == "logical" {
        return Finding::good(fact);
    }
    let comment = match (seen.facts.standby, seen.role.rds) {
        (true, _) => "on the primary as well, and restart both",
        (false, true) => {
            "and restart the server; on Amazon RDS set `rds.logical_replication` to 1 in its parameter group instead"
        }
        (false, false) => RESTART,
    };
    Finding::bad(
        fact,
        Blame::Outside,
        remedy(&["ALTER SYSTEM SET wal_level = 'logical';".to_owned()], comment),
    )
}

fn may_replicate(seen: &Seen<'_>) -> Finding {
    let role = seen.role.shown();
    if seen.facts.may_replicate {
        return Finding::good(format!("role `{role}` may replicate"));
    }
    let id = seen.role.id();
    let statement = match seen.role.rds {
        true => format!("GRANT rds_replication TO {id};"),
        false => format!("ALTER ROLE {id} REPLICATION;"),
    };
    Finding::bad(format!("role `{role}` may not replicate"), Blame::Outside, statement)
}

fn standby(seen: &Seen<'_>) -> Vec<Finding> {
    if !seen.facts.standby {
        return Vec::new();
    }
    let fact = "the server is a standby";
    if seen.facts.major() < 16 {
        let remedy = "-- connect to the primary; standbys can be read from PostgreSQL 16 on";
        return vec![Finding::bad(fact, Blame::Outside, remedy)];
    }
    if seen.copies() {
        let fact = "the server is a standby, where a copy cannot leave its marks in the log";
        let remedy = "-- write `snapshot: never`, or connect to the primary";
        return vec![Finding::bad(fact, Blame::Configuration, remedy)];
    }
    let slow = "-- no heartbeat can be written there: the slot moves only with the primary's own changes";
    let mut findings = vec![Finding::warning(fact, slow)];
    if !seen.room.feedback {
        let statements = [
            "ALTER SYSTEM SET hot_standby_feedback = 'on';".to_owned(),
            "SELECT pg_reload_conf();".to_owned(),
        ];
        findings.push(Finding::warning(
            "`hot_standby_feedback` is off, so that the primary may remove what the slot needs, and the slot is lost",
            remedy(&statements, ""),
        ));
    }
    findings
}

/// Settings of the source that need a newer server.
fn too_new(seen: &Seen<'_>) -> Vec<Finding> {
    let config = &seen.plan.config;
    let needs = [
        (config.publication_mode == PublicationMode::Schemas, "publication_mode: schemas", 15),
        (config.origin == Origin::None, "origin: none", 16),
        (config.failover, "failover: true", 17),
    ];
    let major = seen.facts.major();
    let unmet = needs.into_iter().filter(|(wanted, _, since)| *wanted && major < *since);
    let mut findings: Vec<Finding> = unmet
        .map(|(_, what, since)| {
            let fact = format!("`{what}` needs PostgreSQL {since}");
            Finding::bad(fact, Blame::Configuration, "-- take it out")
        })
        .collect();
    if major < 14 && !matches!(config.messages[..], [] | [_]) {
        findings.push(Finding::warning(
            "PostgreSQL 13 sends no logical messages",
            "-- `messages` works from PostgreSQL 14 on",
        ));
    }
    findings
}

fn replication_connections(seen: &Seen<'_>) -> Finding {
    let seats = &seen.room.walsenders;
    let fact = format!("{} {} are left of {}", seats.left(), seats.what, seats.all);
    match seats.left() {
        0 if !seen.is_read() => Finding::bad(fact, Blame::Outside, remedy(&seats.more(1), "")),
        _ => Finding::good(fact),
    }
}

/// A session for what is asked, one for a look whether the server goes down; for a copy one for its marks, and those
/// that read.
fn connections(seen: &Seen<'_>) -> Vec<Finding> {
    let copying = if seen.copies() { 1 + seen.plan.config.snapshot_parallel.get() } else { 0 };
    let needed = i64::try_from(2 + copying).unwrap_or(i64::MAX);
    if seen.is_read() {
        return Vec::new(); // the daemon that runs has them
    }
    let short: Vec<&Seats> = seen.room.connections.iter().filter(|seats| seats.left() < needed).collect();
    if short.is_empty() {
        let left = seen.room.connections.iter().map(Seats::left).min().unwrap_or(0);
        return vec![Finding::good(format!("{left} connections are left; the source takes up to {needed}"))];
    }
    let comment = match seen.copies() {
        true => "or end other sessions, or lower `snapshot_parallel`",
        false => "or end other sessions",
    };
    short
        .into_iter()
        .map(|seats| {
            let left = seats.left();
            let fact =
                format!("{left} {} are left of {}; the source takes up to {needed}", seats.what, seats.all);
            Finding::bad(fact, Blame::Outside, remedy(&seats.more(needed), comment))
        })
        .collect()
}
