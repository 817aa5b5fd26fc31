//! Whether the slot can be made or read, and how much WAL the server keeps for it.

use forebay_api::{Blame, Finding, SnapshotMode};

use super::Seen;
use super::figures::size;
use super::statement::{literal, names, plain, remedy};
use crate::source::catalog::Slot;

/// A slot that has less than one part in so many of its limit left is close to being lost.
const CLOSE: i64 = 10;

/// The limit that a remedy sets where there is none.
const LIMIT: &str = "50GB";

pub(super) fn findings(seen: &Seen<'_>) -> Vec<Finding> {
    let mut findings = match &seen.slot {
        None => vec![absent(seen)],
        Some(slot) => state(seen, slot),
    };
    findings.extend(limits(seen));
    findings
}

fn absent(seen: &Seen<'_>) -> Finding {
    let (name, seats) = (&seen.plan.slot, &seen.room.slots);
    if seats.left() > 0 {
        return Finding::good(format!(
            "slot `{name}` will be created; {} are left of {}",
            seats.left(),
            seats.all
        ));
    }
    let comment = match &seen.room.idle_slots[..] {
        [] => String::new(),
        idle => {
            let idle: Vec<String> = idle.iter().map(|name| format!("`{}`", plain(name))).collect();
            format!("or drop those that nobody needs any more; nobody reads {}", names(&idle))
        }
    };
    let fact = format!("slot `{name}` does not exist, and all {} are taken", seats.all);
    Finding::bad(fact, Blame::Outside, remedy(&seats.more(1), &comment))
}

fn state(seen: &Seen<'_>, slot: &Slot) -> Vec<Finding> {
    let name = &seen.plan.slot;
    if slot.plugin.as_deref() != Some("pgoutput") {
        let plugin = slot.plugin.as_deref().map_or("none, it is a physical slot".to_owned(), plain);
        let fact = format!("the plugin of slot `{name}` is not `pgoutput` ({plugin})");
        return vec![Finding::bad(fact, Blame::Outside, "-- name another `slot`")];
    }
    if slot.database.as_deref() != Some(&seen.plan.url.database) {
        let other = plain(slot.database.as_deref().unwrap_or_default());
        let fact = format!("slot `{name}` is bound to database `{other}`");
        return vec![Finding::bad(fact, Blame::Outside, "-- name another `slot`")];
    }
    if slot.wal_status.as_deref() == Some("lost") || slot.confirmed.is_none() {
        return vec![lost(seen)];
    }
    let mut findings = vec![headroom(slot, name, seen.room.keep_bytes)];
    if let Some(reader) = &slot.active {
        let fact =
            format!("slot `{name}` is read by process {} (`{}`)", reader.pid, plain(&reader.application));
        findings.push(Finding::warning(
            fact,
            "-- that is well if it is this daemon; otherwise stop it, or name another `slot`",
        ));
    }
    findings
}

fn lost(seen: &Seen<'_>) -> Finding {
    let (name, source) = (&seen.plan.slot, &seen.plan.source);
    let fact = format!("slot `{name}` has lost WAL that it would have to send: those changes are gone");
    if seen.plan.config.snapshot == SnapshotMode::WhenNeeded {
        return Finding::warning(fact, "-- the next start makes it anew and copies everything");
    }
    let drop = format!("SELECT pg_drop_replication_slot({});", literal(name));
    let comment = format!(
        "then `forebay checkpoint reset {source}`, which copies the tables anew unless it says `snapshot: never`"
    );
    Finding::bad(fact, Blame::Outside, remedy(&[drop], &comment))
}

fn headroom(slot: &Slot, name: &str, keep_bytes: Option<i64>) -> Finding {
    let bytes = |bytes: i64| size(u64::try_from(bytes).unwrap_or(0));
    let kept = slot.retained_bytes.map_or("an unknown amount".to_owned(), bytes);
    let fact = format!("slot `{name}` exists and keeps {kept} of WAL");
    let status = slot.wal_status.as_deref().unwrap_or_default();
    let (Some(safe), Some(keep)) = (slot.safe_wal_bytes, keep_bytes) else { return Finding::good(fact) };
    if status != "unreserved" && safe > keep / CLOSE {
        return Finding::good(format!("{fact}; it is lost after {} more", bytes(safe)));
    }
    let fact = match status {
        "unreserved" => {
            format!("{fact}, more than the server promises to keep: it may be lost at any moment")
        }
        _ => format!("{fact}, and is lost after {} more", bytes(safe)),
    };
    // Units of megabytes: so the setting is given, whatever its own unit is.
    let wanted = (slot.retained_bytes.unwrap_or(0).max(keep) >> 20).saturating_mul(2).max(1024);
    let statements = [
        format!("ALTER SYSTEM SET max_slot_wal_keep_size = '{wanted}MB';"),
        "SELECT pg_reload_conf();".to_owned(),
    ];
    Finding::warning(fact, remedy(&statements, "and start the daemon, which lets the server have it back"))
}

/// How long the server keeps what is not read.
fn limits(seen: &Seen<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if seen.room.keep_bytes.is_none() {
        let statements = [
            format!("ALTER SYSTEM SET max_slot_wal_keep_size = '{LIMIT}';"),
            "SELECT pg_reload_conf();".to_owned(),
        ];
        findings.push(Finding::warning(
            "`max_slot_wal_keep_size` is -1: WAL that is not read can fill the server's disk",
            remedy(&statements, "more than is written in the longest outage that must be survived"),
        ));
    }
    if let Some(timeout) = &seen.room.idle_timeout {
        let statements = [
            "ALTER SYSTEM SET idle_replication_slot_timeout = 0;".to_owned(),
            "SELECT pg_reload_conf();".to_owned(),
        ];
        findings.push(Finding::warning(
            format!(
                "`idle_replication_slot_timeout` is {timeout}: a slot that is not read for so long is lost"
            ),
            remedy(&statements, ""),
        ));
    }
    findings
}
