//! Which tables are selected, whether each of their changes can be told, and whether our role can read them for a copy.

use std::collections::BTreeSet;

use forebay_api::{Blame, Finding};

use super::statement::{names, plain, remedy, shown, table_names};
use super::survey::Leaf;
use super::{Seen, access};
use crate::source::catalog::Table;
use crate::source::config::{Keyless, PublicationMode, is_pattern};
use crate::source::publication::{
    identity_remedy, identity_statements, qualified, taken_in_without_identity, wide_identity_remedy,
};

pub(super) fn findings(seen: &Seen<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(missing(seen));
    findings.extend(idle_patterns(seen));
    findings.extend(selected(seen));
    findings.extend(without_identity(seen));
    if seen.copies() {
        findings.extend(unreadable(seen));
    }
    findings
}

/// Names that no table has.
fn missing(seen: &Seen<'_>) -> Option<Finding> {
    let missing = &seen.selection.missing;
    if missing.is_empty() {
        return None;
    }
    let wrong: Vec<String> = missing.iter().map(|name| plain(name)).collect();
    let there = |name: &String| {
        let mut same =
            seen.tables.iter().map(qualified).filter(|table| table.to_lowercase() == name.to_lowercase());
        same.next()
    };
    let meant: Vec<String> =
        missing.iter().filter_map(there).map(|name| format!("`{}`", plain(&name))).collect();
    let mut comment = "create it, or write `schema.table` in the case that the catalog has".to_owned();
    if !meant.is_empty() {
        comment += &format!(": there is {}", names(&meant));
    }
    let fact = format!("there is no table `{}`", wrong.join("`, `"));
    Some(Finding::bad(fact, Blame::Configuration, remedy(&[], &comment)))
}

/// Patterns that match nothing, where others do.
fn idle_patterns(seen: &Seen<'_>) -> Option<Finding> {
    let used: BTreeSet<usize> =
        seen.tables.iter().flat_map(|table| seen.plan.tables.matches(qualified(table))).collect();
    let patterns = seen.plan.config.tables.iter().enumerate();
    let idle = patterns.filter(|(at, pattern)| is_pattern(pattern) && !used.contains(at));
    let idle: Vec<String> = idle.map(|(_, pattern)| format!("`{}`", plain(pattern))).collect();
    if idle.is_empty() || used.is_empty() {
        return None; // that there is nothing at all is said below
    }
    Some(Finding::warning(
        format!("no table matches {}", names(&idle)),
        "-- correct `tables`, unless such tables come later",
    ))
}

fn selected(seen: &Seen<'_>) -> Option<Finding> {
    let all = seen.tables.iter().filter(|table| table.root.is_none()).count();
    if seen.plan.config.publication_mode == PublicationMode::Existing {
        let read = seen.read().len();
        return (read > 0).then(|| Finding::good(format!("{read} of {all} tables are read")));
    }
    let read = seen.selection.full.len() + seen.selection.inserts.len();
    if read > 0 {
        return Some(Finding::good(format!("{read} of {all} tables are selected")));
    }
    if !seen.selection.missing.is_empty() || !seen.selection.keyless.is_empty() {
        return None; // which says it
    }
    let refused = seen.selection.refused(seen.plan)?;
    if seen.selection.empty {
        return Some(Finding::fault(&refused));
    }
    let there: Vec<Table> = seen.tables.iter().filter(|table| table.root.is_none()).cloned().collect();
    let comment = format!("correct the patterns; there are {}", table_names(&there));
    Some(Finding::bad("no table matches `tables`", Blame::Configuration, remedy(&[], &comment)))
}

/// Tables of which an UPDATE or DELETE could not be published, so that it would fail.
fn without_identity(seen: &Seen<'_>) -> Vec<Finding> {
    let mode = seen.plan.config.publication_mode;
    let fact = |tables: &[Table]| format!("without a replica identity: {}", table_names(tables));
    let fails = "the application's UPDATE and DELETE on them fail while they are in the publication";
    let mut findings = Vec::new();
    if mode == PublicationMode::Existing {
        let read = seen.read().into_iter().filter(|table| !table.identified());
        let keyless: Vec<Table> = read.collect();
        if !keyless.is_empty() {
            let remedy = remedy(&identity_statements(&keyless), fails);
            findings.push(Finding::warning(fact(&keyless), remedy));
        }
        return findings;
    }
    let wide = taken_in_without_identity(seen.plan, &seen.tables);
    if !wide.is_empty() {
        findings.push(match &seen.publication {
            None => Finding::bad(fact(&wide), Blame::Outside, wide_identity_remedy(&wide)),
            Some(_) => Finding::warning(fact(&wide), remedy(&identity_statements(&wide), fails)),
        });
        return findings;
    }
    let keyless = &seen.selection.keyless;
    if !keyless.is_empty() {
        findings.push(match seen.plan.config.keyless {
            Keyless::Refuse => Finding::bad(fact(keyless), Blame::Outside, identity_remedy(keyless)),
            Keyless::Skip | Keyless::InsertOnly => Finding::warning(
                fact(keyless),
                remedy(&identity_statements(keyless), "until then nothing of them is read"),
            ),
        });
    }
    findings
}

/// What a copy would have to read and cannot.
fn unreadable(seen: &Seen<'_>) -> Vec<Finding> {
    let read = seen.read();
    let leaves: Vec<&Leaf> = read
        .iter()
        .filter_map(|table| seen.surveys.get(&table.oid))
        .flat_map(|survey| &survey.leaves)
        .collect();
    let role = seen.role.shown();
    let never = "or write `snapshot: never`: changes need no such privilege";
    let listed = |wrong: fn(&Leaf) -> bool| {
        let wrong = leaves.iter().filter(|leaf| wrong(leaf));
        names(&wrong.map(|leaf| shown(&leaf.schema, &leaf.name)).collect::<Vec<_>>())
    };
    let mut findings = Vec::new();
    let mut needs = |statements: &[String], fact: String| {
        if !statements.is_empty() {
            findings.push(Finding::bad(fact, Blame::Outside, remedy(statements, never)));
        }
    };
    let schemas = access::use_schemas(&seen.role, leaves.iter().copied());
    let closed = listed(|leaf| !leaf.reachable);
    needs(&schemas, format!("role `{role}` may not use the schemas of tables to copy: {closed}"));
    let grants = access::read(&seen.role, leaves.iter().copied());
    let unreadable = listed(|leaf| !leaf.readable);
    needs(&grants, format!("role `{role}` may not read tables to copy: {unreadable}"));
    let hidden = listed(|leaf| leaf.hidden);
    let bypass = if hidden.is_empty() { Vec::new() } else { vec![access::see_all(&seen.role)] };
    needs(
        &bypass,
        format!("row-level security may hide rows from role `{role}`, and a copy leaves none out: {hidden}"),
    );
    if findings.is_empty() && !read.is_empty() {
        findings.push(Finding::good("every selected table can be copied"));
    }
    findings
}
