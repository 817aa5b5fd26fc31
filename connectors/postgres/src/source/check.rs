//! `forebay check` for the source: everything that could keep it from running, with what mends it. Changes nothing.

use forebay_api::{Blame, Finding};

use super::catalog::{self, Facts};
use super::config::{Plan, PublicationMode};
use super::publication::{Selection, identity_remedy, qualified};
use super::{fault, prepare};
use crate::connect::Sql;

/// Looks at the server of a source.
pub(super) async fn check(plan: &Plan) -> Vec<Finding> {
    let server = match prepare::server(plan, "check") {
        Ok(server) => server,
        Err(fault) => return vec![Finding::fault(&fault)],
    };
    let sql = match server.sql().await {
        Ok(sql) => sql,
        Err(error) => return vec![Finding::fault(&fault::connect("connecting", error))],
    };
    let mut findings = Vec::new();
    match catalog::facts(&sql).await {
        Ok(facts) => {
            findings.extend(of_server(plan, &facts));
            if facts.wal_level == "logical" && facts.may_replicate {
                findings.push(match server.replication().await {
                    Ok(_) => Finding::good("a replication connection can be opened"),
                    Err(error) => Finding::fault(&fault::connect("opening a replication connection", error)),
                });
            }
            findings.extend(of_tables(plan, &facts, &sql).await);
            findings.extend(of_slot(plan, &facts, &sql).await);
        }
        Err(error) => findings.push(Finding::fault(&fault::sql("asking what the server is", error))),
    }
    findings
}

fn of_server(plan: &Plan, facts: &Facts) -> Vec<Finding> {
    let (major, role) = (facts.major(), &facts.role);
    let mut findings = vec![
        match major {
            ..13 => Finding::bad(
                format!("the server is PostgreSQL {major}"),
                Blame::Outside,
                "upgrade it: 13 is the oldest supported",
            ),
            13..=18 => Finding::good(format!("the server is PostgreSQL {major}")),
            _ => Finding::warning(
                format!("the server is PostgreSQL {major}"),
                "nothing newer than 18 was tested",
            ),
        },
        if facts.wal_level == "logical" {
            Finding::good("`wal_level` is `logical`")
        } else {
            let fact = format!("`wal_level` is `{}`", facts.wal_level);
            Finding::bad(
                fact,
                Blame::Outside,
                "ALTER SYSTEM SET wal_level = 'logical'; and restart the server",
            )
        },
        if facts.may_replicate {
            Finding::good(format!("role `{role}` may replicate"))
        } else {
            Finding::bad(
                format!("role `{role}` may not replicate"),
                Blame::Outside,
                format!("ALTER ROLE \"{role}\" REPLICATION;"),
            )
        },
        if facts.walsenders_left > 0 {
            Finding::good(format!("{} replication connections are left", facts.walsenders_left))
        } else {
            Finding::bad(
                "no replication connection is left",
                Blame::Outside,
                "ALTER SYSTEM SET max_wal_senders = …; and restart the server",
            )
        },
    ];
    if facts.standby {
        findings.push(if major >= 16 {
            Finding::warning(
                "the server is a standby",
                "heartbeats cannot be written there; the slot moves only with the primary's own changes",
            )
        } else {
            Finding::bad(
                "the server is a standby",
                Blame::Outside,
                "connect to the primary; standbys can be read from PostgreSQL 16 on",
            )
        });
    }
    if plan.config.origin == super::config::Origin::None && major < 16 {
        findings.push(Finding::bad(
            "`origin: none` needs PostgreSQL 16",
            Blame::Configuration,
            "take it out",
        ));
    }
    if plan.config.failover && major < 17 {
        findings.push(Finding::bad(
            "`failover: true` needs PostgreSQL 17",
            Blame::Configuration,
            "take it out",
        ));
    }
    findings
}

async fn of_tables(plan: &Plan, facts: &Facts, sql: &Sql) -> Vec<Finding> {
    let mut findings = Vec::new();
    let looked = async {
        Ok::<_, tokio_postgres::Error>((
            catalog::tables(sql).await?,
            catalog::publication(sql, &plan.publication).await?,
        ))
    };
    let (tables, publication) = match looked.await {
        Ok(looked) => looked,
        Err(error) => return vec![Finding::fault(&fault::sql("looking at tables and publications", error))],
    };
    let selection = Selection::of(plan, &tables);
    if !selection.keyless.is_empty() {
        let names: Vec<String> = selection.keyless.iter().map(qualified).collect();
        let fact = format!("without a replica identity: {}", names.join(", "));
        let refused = plan.config.keyless == super::config::Keyless::Refuse
            && plan.config.publication_mode != PublicationMode::Existing;
        findings.push(if refused {
            Finding::bad(fact, Blame::Outside, identity_remedy(&selection.keyless))
        } else {
            Finding::warning(fact, "nothing of them is read")
        });
    }
    if let Some(fault) = selection.refused(plan).filter(|_| selection.keyless.is_empty()) {
        findings.push(Finding::fault(&fault));
    } else {
        let read = selection.full.len() + selection.inserts.len();
        findings.push(Finding::good(format!("{read} of {} tables are selected", tables.len())));
    }
    let name = &plan.publication;
    findings.push(match (&publication, plan.config.publication_mode) {
        (Some(publication), PublicationMode::Existing) => Finding::good(format!(
            "publication `{name}` exists and holds {} tables",
            publication.covers.len()
        )),
        (None, PublicationMode::Existing) => Finding::bad(
            format!("there is no publication `{name}`"),
            Blame::Outside,
            "create it, or write another `publication_mode`",
        ),
        (Some(publication), _)
            if publication.comment.as_deref().is_some_and(|c| c.ends_with(&format!(" {}", plan.source))) =>
        {
            Finding::good(format!("publication `{name}` exists and is ours"))
        }
        (Some(_), _) => Finding::bad(
            format!("publication `{name}` exists and is not ours"),
            Blame::Outside,
            "write `publication_mode: existing` to use it as it is, or name another `publication`",
        ),
        (None, _) if facts.may_create => Finding::good(format!("publication `{name}` will be created")),
        (None, _) => Finding::bad(
            format!("publication `{name}` does not exist and role `{}` may not create it", facts.role),
            Blame::Outside,
            format!(
                "GRANT CREATE ON DATABASE \"{}\" TO \"{}\"; it must own the tables, too",
                plan.url.database, facts.role
            ),
        ),
    });
    findings
}

async fn of_slot(plan: &Plan, facts: &Facts, sql: &Sql) -> Vec<Finding> {
    let name = &plan.slot;
    let slot = match catalog::slot(sql, name).await {
        Ok(slot) => slot,
        Err(error) => return vec![Finding::fault(&fault::sql("looking at the slot", error))],
    };
    let Some(slot) = slot else {
        return vec![if facts.slots_left > 0 {
            Finding::good(format!("slot `{name}` will be created; {} are left", facts.slots_left))
        } else {
            Finding::bad(
                format!("slot `{name}` does not exist and no more can be made"),
                Blame::Outside,
                "drop one that nobody needs (SELECT slot_name, active FROM pg_replication_slots), or ALTER SYSTEM SET max_replication_slots = …; and restart",
            )
        }];
    };
    let mut findings = Vec::new();
    if slot.plugin.as_deref() != Some("pgoutput") || slot.database.as_deref() != Some(&plan.url.database) {
        let fact = format!("slot `{name}` is of another plugin or database");
        findings.push(Finding::bad(fact, Blame::Outside, "name another `slot`"));
    }
    if slot.wal_status.as_deref() == Some("lost") {
        let remedy = format!(
            "SELECT pg_drop_replication_slot('{name}'); then `forebay checkpoint reset`, and copy the tables anew"
        );
        findings.push(Finding::bad(
            format!("slot `{name}` has lost WAL that it needs"),
            Blame::Outside,
            remedy,
        ));
    }
    if let Some(reader) = &slot.active {
        let fact = format!("slot `{name}` is read by process {} (`{}`)", reader.pid, reader.application);
        findings.push(Finding::warning(
            fact,
            "that is well if it is this daemon; otherwise stop it or name another `slot`",
        ));
    }
    if findings.is_empty() {
        let retained = slot
            .retained_bytes
            .map_or("an unknown amount".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        findings.push(Finding::good(format!("slot `{name}` exists and keeps {retained} of WAL")));
    }
    findings
}
