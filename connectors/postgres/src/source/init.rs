//! `forebay init` for a PostgreSQL database: its tables with what there is to know of each, as a configuration that
//! `forebay check` accepts. Only reads.
//!
//! Invariants: nothing of the URL is written, since it may hold a password; a table is selected unless something keeps it
//! from being read, which then stands beside it with the statement that mends it.

mod draw;

use forebay_api::{Blame, Fault, Finding, Initial, SourceSetting};

use super::catalog::{self, Facts, Table};
use super::check::access;
use super::check::role::{self, Role};
use super::check::survey::{self, Survey};
use super::config::{Plan, PostgresSourceConfig, exactly};
use super::publication::{identity_statements, qualified, signature};
use super::{check, fault};
use crate::connect::{Server, Sql};
use crate::url::{Url, UrlSetting};
use draw::{Drawn, Trouble, draw};

/// The variable that the configuration names in place of the URL.
const VARIABLE: &str = "DATABASE_URL";

/// A template's source.
const NAME: &str = "shop";

/// Of a name so many letters are taken from the database's, which leaves room for what slot and publication put around it.
const MAX_NAME: usize = 40;

/// So many names are tried before one is taken that somebody has.
const MAX_TRIES: u32 = 100;

/// Writes a configuration for the database at a URL; a template without one.
pub(super) async fn init(url: Option<&str>) -> Result<Option<Initial>, Fault> {
    let Some(text) = url else { return Ok(Some(template())) };
    let pairs = !text.contains("://") && text.contains('=');
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") && !pairs {
        return Ok(None);
    }
    let setting = UrlSetting::Text(text.to_owned());
    let url = setting.parse().map_err(|error| {
        Fault::fatal("reading the URL of the source", Blame::Configuration, error)
            .with_remedy("write it as `postgres://user:password@host:5432/database`")
    })?;
    let found = look(&url).await?;
    let drawn = found.drawn();
    let mut notes = vec![format!(
        "set `{VARIABLE}` to the URL of the database: it is not in the file, since it may hold a password"
    )];
    notes.extend(found.before_it_runs(setting, &drawn).await);
    Ok(Some(Initial { name: found.name.clone(), yaml: draw(&drawn), notes }))
}

fn template() -> Initial {
    let yaml = format!(
        "type: postgres                  # needs `wal_level = logical`\n\
         url: ${{{VARIABLE}}}            # postgres://user:password@host:5432/database\n\
         tables: [\"public.*\"]            # `schema.table`; `*`, `?` and `[…]` as in file names\n\
         snapshot: initial               # what is in the tables already is copied first; never: only changes from now on\n"
    );
    let notes = vec![
        format!("set `{VARIABLE}` to the URL of your database"),
        "with `--source` the tables of a database are listed, with what there is to know of each".to_owned(),
    ];
    Initial { name: NAME.to_owned(), yaml, notes }
}

/// What is in the database.
struct Found {
    /// The source's.
    name: String,
    database: String,
    facts: Facts,
    role: Role,
    /// Without partitions, which come with the table that they belong to.
    tables: Vec<(Table, Survey)>,
}

async fn look(url: &Url) -> Result<Found, Fault> {
    let doing = "connecting to the database";
    let server = Server::new(url.clone()).map_err(fault::tls)?;
    let sql = server.sql().await.map_err(|error| fault::connect(doing, error))?;
    let failed = |error| fault::sql("looking at the database", error);
    sql.batch_execute(check::PATIENCE).await.map_err(failed)?;
    let tables = catalog::tables(&sql).await.map_err(failed)?;
    let whole: Vec<Table> = tables.into_iter().filter(|table| table.root.is_none()).collect();
    let oids: Vec<u32> = whole.iter().map(|table| table.oid).collect();
    let mut surveys = survey::survey(&sql, &oids).await.map_err(failed)?;
    let tables = whole.into_iter().filter_map(|table| Some((surveys.remove(&table.oid)?, table)));
    Ok(Found {
        name: free_name(&sql, &url.database).await.map_err(failed)?,
        database: url.database.clone(),
        facts: catalog::facts(&sql).await.map_err(failed)?,
        role: role::role(&sql).await.map_err(failed)?,
        tables: tables.map(|(survey, table)| (table, survey)).collect(),
    })
}

/// A name of which nobody else has the slot or the publication: slots are of the whole cluster.
async fn free_name(sql: &Sql, database: &str) -> Result<String, tokio_postgres::Error> {
    let query = "SELECT slot_name::text AS name, '' AS comment FROM pg_replication_slots \
                 WHERE database IS DISTINCT FROM current_database() OR plugin IS DISTINCT FROM 'pgoutput' \
                 UNION ALL SELECT pubname::text, coalesce(obj_description(oid, 'pg_publication'), '') FROM pg_publication";
    let rows = sql.query(query, &[]).await?;
    let held = rows
        .iter()
        .map(|row| Ok((row.try_get("name")?, row.try_get("comment")?)))
        .collect::<Result<Vec<(String, String)>, tokio_postgres::Error>>()?;
    let base = source_name(database);
    let free = |name: &String| {
        let object = format!("forebay_{}", name.replace('-', "_"));
        held.iter().all(|(other, comment)| *other != object || *comment == signature(name))
    };
    let mut names =
        std::iter::once(base.clone()).chain((2..MAX_TRIES).map(|number| format!("{base}-{number}")));
    Ok(names.find(free).unwrap_or(base))
}

/// A database's name as the name of a source: lower-case letters, digits, `-`, and no two `_` together.
fn source_name(database: &str) -> String {
    let mut name = String::new();
    for letter in database.chars().map(|letter| letter.to_ascii_lowercase()) {
        match letter {
            'a'..='z' => name.push(letter),
            '0'..='9' | '-' if !name.is_empty() => name.push(letter),
            _ if !name.is_empty() && !name.ends_with(['_', '-']) => name.push('_'),
            _ => {}
        }
        if name.len() == MAX_NAME {
            break;
        }
    }
    let name = name.trim_end_matches(['_', '-']);
    if name.is_empty() { NAME.to_owned() } else { name.to_owned() }
}

impl Found {
    fn drawn(&self) -> Drawn<'_> {
        let mut tables: Vec<_> =
            self.tables.iter().map(|(table, survey)| (table, survey, self.trouble(table, survey))).collect();
        let mendable = |trouble: &Option<Trouble>| trouble.as_ref().is_none_or(Trouble::is_mendable);
        let hopeless = tables.iter().all(|(_, _, trouble)| trouble.is_some());
        if hopeless {
            // Then all are selected, and `forebay check` says what mends all of them at once.
            tables
                .iter_mut()
                .filter(|(_, _, trouble)| mendable(trouble))
                .for_each(|(_, _, trouble)| *trouble = None);
        }
        Drawn {
            variable: VARIABLE,
            name: &self.name,
            database: &self.database,
            copies: !self.facts.standby,
            tables,
        }
    }

    /// What keeps a table from being read.
    fn trouble(&self, table: &Table, survey: &Survey) -> Option<Trouble> {
        if survey.of_extension {
            return Some(Trouble {
                reasons: vec!["an extension keeps it for itself".to_owned()],
                statements: Vec::new(),
            });
        }
        let mut trouble = Trouble::default();
        let mut needs = |reason: &str, statements: Vec<String>| {
            if !statements.is_empty() {
                trouble.reasons.push(reason.to_owned());
                trouble.statements.extend(statements);
            }
        };
        let role = self.role.shown();
        let copies = !self.facts.standby;
        if copies {
            let mut grants = access::use_schemas(&self.role, survey.leaves.iter());
            grants.extend(access::read(&self.role, survey.leaves.iter()));
            needs(&format!("role `{role}` may not read it"), grants);
        }
        if copies && survey.leaves.iter().any(|leaf| leaf.hidden) {
            let reason = format!("row-level security may hide rows of it from role `{role}`");
            needs(&reason, vec![access::see_all(&self.role)]);
        }
        if !self.role.superuser && !survey.owned {
            let own = access::own(&self.role, self.facts.major(), std::iter::once((table, Some(survey))));
            needs(&format!("role `{role}` does not own it, and only owners can publish a table"), own);
        }
        needs(
            "it has neither a primary key nor another replica identity, so that UPDATE and DELETE on it would fail",
            identity_statements(std::slice::from_ref(table)),
        );
        (!trouble.reasons.is_empty()).then_some(trouble)
    }

    /// What `forebay check` will say against it.
    async fn before_it_runs(&self, setting: UrlSetting, drawn: &Drawn<'_>) -> Vec<String> {
        let mut config = PostgresSourceConfig::of(setting, drawn.patterns());
        config.snapshot = drawn.snapshot();
        let setting = SourceSetting { name: self.name.clone(), vendor: String::new(), dry_run: false };
        let findings = match Plan::new(config, &setting) {
            Ok(plan) => check::check(&plan).await,
            Err(mistakes) => return mistakes.into_iter().map(|mistake| mistake.message).collect(),
        };
        let against = |finding: Finding| {
            let trouble = finding.trouble.filter(|trouble| trouble.blame.is_some())?;
            Some(format!("before it can run: {}\n{}", finding.fact, trouble.remedy))
        };
        findings.into_iter().filter_map(against).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_names_its_source() {
        let names = ["shop", "My Shop!", "2nd__db", "a--b", "données", "§", "x_", &"q".repeat(63)];
        let expected = ["shop", "my_shop", "nd_db", "a--b", "donn_es", "shop", "x", &"q".repeat(40)];
        assert_eq!(names.map(source_name), expected);
    }

    #[tokio::test]
    async fn only_urls_of_postgresql_are_ours() {
        assert!(init(Some("mongodb://h/d")).await.unwrap().is_none());
        assert!(init(Some("h")).await.unwrap().is_none());
        let template = init(None).await.unwrap().unwrap();
        assert!(template.yaml.contains("url: ${DATABASE_URL}"), "{}", template.yaml);
        let wrong = init(Some("postgres://u:secret@h/d?sslmode=maybe")).await.unwrap_err();
        assert!(!format!("{wrong:?}").contains("secret"), "{wrong:?}");
    }
}
