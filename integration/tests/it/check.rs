//! `forebay check` for PostgreSQL: what it names is real, and what it prints mends it.

mod pooler;
mod server;
mod slots;
mod tables;

use std::collections::BTreeSet;

use forebay_api::{Blame, Finding, SourceConnector, SourceSetting};
use forebay_integration::{Database, Postgres, Stop, with_causes};
use forebay_postgres::PostgresSource;
use serde_json::{Value, json};
use tokio_postgres::Client;

/// The servers that the statements are run on.
const MAJORS: [u16; 4] = [13, 15, 17, 18];

/// A source under check: where it is, and what its configuration says besides.
struct Source {
    name: String,
    config: Value,
}

impl Source {
    /// A source of `db`, whose slot and publication are named after it.
    fn of(db: &Database, more: Value) -> Source {
        let mut config =
            json!({"url": db.url(), "tables": ["public.*"], "slot": db.name(), "publication": db.name()});
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        Source { name: "shop".to_owned(), config }
    }

    /// The same as a role of its own, which may only log in, and has not even what it is given by membership.
    async fn with_role(mut self, db: &Database) -> (Source, String) {
        let role = format!("{}_Reader \"x\"", db.name());
        let id = role.replace('"', "\"\"");
        db.execute(&format!("create role \"{id}\" login noinherit")).await;
        let user = role.replace(' ', "%20").replace('"', "%22");
        self.config["url"] = db.url().replace("postgres@", &format!("{user}@")).into();
        (self, id)
    }

    async fn check(&self) -> Vec<Finding> {
        let setting = SourceSetting { name: self.name.clone(), vendor: "v".to_owned(), dry_run: false };
        PostgresSource::check(serde_json::from_value(self.config.clone()).unwrap(), &setting).await
    }

    /// The finding whose fact has these words.
    async fn finding(&self, words: &str) -> Finding {
        let findings = self.check().await;
        let found = findings.iter().find(|finding| finding.fact.contains(words));
        found.unwrap_or_else(|| panic!("nothing says `{words}`: {findings:#?}")).clone()
    }

    /// Runs what the finding with these words prints, and sees that it is gone.
    async fn mended(&self, words: &str, blame: Option<Blame>, db: &Database) {
        let finding = self.finding(words).await;
        let trouble = finding.trouble.unwrap_or_else(|| panic!("`{words}` is no trouble"));
        assert_eq!(trouble.blame, blame, "{}", finding.fact);
        paste(&db.connect().await, &trouble.remedy).await;
        let after = self.check().await;
        let left = after.iter().find(|finding| finding.fact.contains(words) && finding.trouble.is_some());
        assert!(left.is_none(), "after running\n{}\nthere is still {left:#?}", trouble.remedy);
    }

    /// Nothing keeps it from running.
    async fn is_ready(&self) {
        let findings = self.check().await;
        let bad = findings.iter().find(|finding| finding.trouble.as_ref().is_some_and(|t| t.blame.is_some()));
        assert!(bad.is_none(), "{bad:#?}");
    }

    /// The facts of everything that keeps it from running.
    async fn bad(&self) -> Vec<String> {
        let findings = self.check().await.into_iter();
        let bad = findings.filter(|finding| finding.trouble.as_ref().is_some_and(|t| t.blame.is_some()));
        bad.map(|finding| finding.fact).collect()
    }
}

/// Runs a remedy as it stands: one statement a line, and comments.
async fn paste(client: &Client, remedy: &str) {
    let statements: Vec<&str> = remedy.lines().filter(|line| !line.starts_with("-- ")).collect();
    assert!(!statements.is_empty(), "there is no statement in: {remedy}");
    for statement in statements {
        assert!(statement.ends_with(';'), "a line that is no statement: {statement}");
        let done = client.batch_execute(statement).await;
        done.unwrap_or_else(|error| panic!("{}\nwhile running: {statement}", with_causes(&error)));
    }
}
