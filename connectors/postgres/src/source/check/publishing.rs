//! Whether the publication is there and holds what is wanted, or can be made so by our role.

use forebay_api::{Blame, Finding};

use super::statement::{identifier, plain, remedy, table, table_names};
use super::{Seen, access};
use crate::source::catalog::{Publication, Table};
use crate::source::config::PublicationMode;
use crate::source::publication::{NOT_OURS, creation, uncovered, wanted, whose, wide_target};

/// One publication as it is wanted.
struct Wanted<'s> {
    name: String,
    tables: &'s [Table],
    /// Those that will be in it once they have an identity.
    later: &'s [Table],
    /// Which changes; empty: all.
    publish: &'static str,
    existing: Option<&'s Publication>,
}

pub(super) fn findings(seen: &Seen<'_>) -> Vec<Finding> {
    match seen.plan.config.publication_mode {
        PublicationMode::Existing => existing(seen),
        PublicationMode::Tables => kept(seen),
        PublicationMode::Schemas | PublicationMode::All => wide(seen),
    }
}

/// Somebody else's, which is used as it is.
fn existing(seen: &Seen<'_>) -> Vec<Finding> {
    let (plan, id) = (seen.plan, identifier(&seen.plan.publication));
    let name = plain(&plan.publication);
    let Some(publication) = &seen.publication else {
        let all = plan.config.tables.is_empty();
        let (selected, keyless): (Vec<Table>, Vec<Table>) =
            wanted(plan, &seen.tables).into_iter().cloned().partition(Table::identified);
        let target = match all || selected.is_empty() {
            true => "ALL TABLES".to_owned(),
            false => format!("TABLE {}", list(&selected)),
        };
        let statement = format!("CREATE PUBLICATION {id} FOR {target};");
        let comment = match !all && !keyless.is_empty() {
            true => format!(
                "or write another `publication_mode`; without a replica identity, and so not in it: {}",
                table_names(&keyless)
            ),
            false => "or write another `publication_mode`".to_owned(),
        };
        let fact = format!("there is no publication `{name}`");
        return vec![Finding::bad(fact, Blame::Outside, remedy(&[statement], &comment))];
    };
    let held =
        Finding::good(format!("publication `{name}` exists and holds {} tables", publication.covers.len()));
    let without = uncovered(plan, publication, &seen.tables);
    if without.is_empty() {
        return vec![held];
    }
    let fact =
        format!("publication `{name}` lacks tables, and nothing of them is read: {}", table_names(&without));
    let (identified, keyless): (Vec<Table>, Vec<Table>) = without.into_iter().partition(Table::identified);
    let statements: Vec<String> = identified.iter().map(|table| add(&id, table)).collect();
    let mut comment = "or take them out of `tables`".to_owned();
    if !keyless.is_empty() {
        comment += &format!("; these need a replica identity first: {}", table_names(&keyless));
    }
    vec![held, Finding::warning(fact, remedy(&statements, &comment))]
}

/// Ours, for single tables.
fn kept(seen: &Seen<'_>) -> Vec<Finding> {
    let sides = [
        Wanted {
            name: seen.plan.publication.clone(),
            tables: &seen.selection.full,
            later: seen.refused(),
            publish: "",
            existing: seen.publication.as_ref(),
        },
        Wanted {
            name: seen.plan.insert_publication(),
            tables: &seen.selection.inserts,
            later: &[],
            publish: "insert",
            existing: seen.inserts.as_ref(),
        },
    ];
    sides
        .iter()
        .filter(|side| !side.tables.is_empty() || !side.later.is_empty())
        .map(|side| side.finding(seen))
        .collect()
}

/// Ours, which takes tables in by itself.
fn wide(seen: &Seen<'_>) -> Vec<Finding> {
    let name = plain(&seen.plan.publication);
    let finding = match &seen.publication {
        Some(publication) => foreign(seen, &name, publication)
            .unwrap_or_else(|| Finding::good(format!("publication `{name}` exists and is ours"))),
        None if seen.role.superuser && !seen.facts.standby => {
            Finding::good(format!("publication `{name}` will be created"))
        }
        None => {
            let fact = format!("there is no publication `{name}`, which only a superuser can create");
            let statements = creation(seen.plan, &seen.plan.publication, &wide_target(seen.plan), "");
            Finding::bad(fact, Blame::Outside, remedy(&statements, whom(seen)))
        }
    };
    vec![finding]
}

impl Wanted<'_> {
    fn finding(&self, seen: &Seen<'_>) -> Finding {
        let name = plain(&self.name);
        let Some(existing) = self.existing else { return self.absent(seen) };
        if let Some(foreign) = foreign(seen, &name, existing) {
            return foreign;
        }
        let missing: Vec<Table> =
            self.tables.iter().filter(|table| !existing.tables.contains(&table.oid)).cloned().collect();
        let surplus: Vec<&u32> = existing
            .tables
            .iter()
            .filter(|oid| !self.tables.iter().any(|table| table.oid == **oid))
            .collect();
        if missing.is_empty() && surplus.is_empty() {
            return Finding::good(format!("publication `{name}` exists and holds what is selected"));
        }
        let may = existing.owned && self.not_owned(seen, &missing).is_empty() && !seen.facts.standby;
        let change = match (missing.is_empty(), surplus.is_empty()) {
            (true, _) => format!("{} tables will be taken out of publication `{name}`", surplus.len()),
            (false, true) => format!("publication `{name}` lacks {}", table_names(&missing)),
            (false, false) => {
                format!(
                    "publication `{name}` lacks {}, and has {} too many",
                    table_names(&missing),
                    surplus.len()
                )
            }
        };
        if may {
            return Finding::good(format!("{change}: the next start puts that right"));
        }
        let id = identifier(&self.name);
        let surplus =
            surplus.into_iter().filter_map(|oid| seen.tables.iter().find(|table| table.oid == *oid));
        let statements: Vec<String> = missing
            .iter()
            .map(|table| add(&id, table))
            .chain(
                surplus.map(|t| format!("ALTER PUBLICATION {id} DROP TABLE {};", table(&t.schema, &t.name))),
            )
            .collect();
        let fact = format!("{change}, and role `{}` may not change that", seen.role.shown());
        Finding::bad(fact, Blame::Outside, remedy(&statements, whom(seen)))
    }

    fn absent(&self, seen: &Seen<'_>) -> Finding {
        let (name, role) = (plain(&self.name), seen.role.shown());
        let all: Vec<Table> = self.tables.iter().chain(self.later).cloned().collect();
        let not_owned = self.not_owned(seen, &all);
        let may_create = seen.facts.may_create && !seen.facts.standby;
        if may_create && not_owned.is_empty() {
            return Finding::good(format!("publication `{name}` will be created"));
        }
        let made = creation(seen.plan, &self.name, &format!("TABLE {}", list(self.tables)), self.publish);
        if seen.facts.standby {
            let fact = format!("there is no publication `{name}`, and a standby can create none");
            return Finding::bad(fact, Blame::Outside, remedy(&made, whom(seen)));
        }
        let mut statements = Vec::new();
        if !may_create {
            let database = identifier(&seen.plan.url.database);
            statements.push(format!("GRANT CREATE ON DATABASE {database} TO {};", seen.role.id()));
        }
        statements.extend(access::own(
            &seen.role,
            seen.facts.major(),
            not_owned.iter().map(|table| (table, seen.surveys.get(&table.oid))),
        ));
        let why = match (may_create, not_owned.is_empty()) {
            (false, true) => "may not create it".to_owned(),
            (true, _) => format!("does not own {}", table_names(&not_owned)),
            (false, false) => format!("may not create it, nor owns {}", table_names(&not_owned)),
        };
        let fact = format!("there is no publication `{name}`, and role `{role}` {why}");
        if self.tables.is_empty() {
            return Finding::bad(fact, Blame::Outside, remedy(&statements, ""));
        }
        let mut text = remedy(&statements, "or, as somebody who owns the tables:");
        for statement in made {
            text += &format!("\n-- {statement}");
        }
        Finding::bad(fact, Blame::Outside, text)
    }

    /// Only owners may publish a table.
    fn not_owned(&self, seen: &Seen<'_>, tables: &[Table]) -> Vec<Table> {
        let owned = |table: &&Table| seen.surveys.get(&table.oid).is_some_and(|survey| survey.owned);
        tables.iter().filter(|table| !seen.role.superuser && !owned(table)).cloned().collect()
    }
}

/// One that somebody else made and that would have to be changed.
fn foreign(seen: &Seen<'_>, name: &str, publication: &Publication) -> Option<Finding> {
    let whose = whose(seen.plan, publication)?;
    let fact = format!("publication `{name}` exists and {whose}");
    Some(Finding::bad(fact, Blame::Outside, format!("-- {NOT_OURS}")))
}

/// Who has to run what our role may not.
fn whom(seen: &Seen<'_>) -> &'static str {
    match (seen.facts.standby, seen.plan.config.publication_mode) {
        (true, _) => "on the primary",
        (false, PublicationMode::Schemas | PublicationMode::All) => {
            "as a superuser; or write `publication_mode: tables`"
        }
        (false, _) => "as somebody who owns the tables and the publication",
    }
}

fn add(publication: &str, added: &Table) -> String {
    format!("ALTER PUBLICATION {publication} ADD TABLE {};", table(&added.schema, &added.name))
}

fn list(tables: &[Table]) -> String {
    tables.iter().map(|of| table(&of.schema, &of.name)).collect::<Vec<_>>().join(", ")
}
