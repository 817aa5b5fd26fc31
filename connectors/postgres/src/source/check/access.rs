//! The statements that give our role what it lacks for reading and publishing tables.

use std::collections::BTreeSet;

use super::role::Role;
use super::statement::{identifier, table};
use super::survey::{Leaf, Survey};
use crate::source::catalog::Table;

/// Lets it use the schemas of tables that hold rows.
pub(in crate::source) fn use_schemas<'l>(role: &Role, leaves: impl Iterator<Item = &'l Leaf>) -> Vec<String> {
    let closed: BTreeSet<&str> =
        leaves.filter(|leaf| !leaf.reachable).map(|leaf| leaf.schema.as_str()).collect();
    let grant = |schema: &str| format!("GRANT USAGE ON SCHEMA {} TO {};", identifier(schema), role.id());
    closed.into_iter().map(grant).collect()
}

/// Lets it read tables that hold rows.
pub(in crate::source) fn read<'l>(role: &Role, leaves: impl Iterator<Item = &'l Leaf>) -> Vec<String> {
    let grant =
        |leaf: &Leaf| format!("GRANT SELECT ON {} TO {};", table(&leaf.schema, &leaf.name), role.id());
    leaves.filter(|leaf| !leaf.readable).map(grant).collect()
}

/// Lets it see the rows that policies hide.
pub(in crate::source) fn see_all(role: &Role) -> String {
    format!("ALTER ROLE {} BYPASSRLS;", role.id())
}

/// Lets it publish tables, which only owners may: by membership in the owning roles; where that is a superuser, by the
/// tables themselves, which a superuser loses nothing by.
pub(in crate::source) fn own<'t>(
    role: &Role,
    major: i32,
    tables: impl Iterator<Item = (&'t Table, Option<&'t Survey>)>,
) -> Vec<String> {
    let id = role.id();
    let mut owners = BTreeSet::new();
    let mut given = Vec::new();
    for (of, survey) in tables {
        match survey {
            Some(survey) if !survey.owner_is_superuser => drop(owners.insert(survey.owner.as_str())),
            _ => given.push(format!("ALTER TABLE {} OWNER TO {id};", table(&of.schema, &of.name))),
        }
    }
    let with = if major >= 16 { " WITH INHERIT TRUE" } else { "" };
    let grants = owners.iter().map(|owner| format!("GRANT {} TO {id}{with};", identifier(owner)));
    let mut statements: Vec<String> = grants.chain(given).collect();
    if !owners.is_empty() && with.is_empty() && !role.inherits {
        statements.push(format!("ALTER ROLE {id} INHERIT;"));
    }
    statements
}
