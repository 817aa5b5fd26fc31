//! Where the demo's shop is: a server of our own, or the one that `--url` names.
//!
//! Invariant: everything that the demo makes there is in one schema, one publication and one slot, and is gone when
//! [`Database::clean_up`] returns. One demo at a time works in a database. What a demo that was killed has left is
//! known by the schema's comment and removed by the next one; without that comment nothing is touched.

use std::path::Path;
use std::time::Duration;

use forebay_api::{Blame, Fault};
use tokio::time::{Instant, sleep};
use tokio_postgres::error::SqlState;

use super::embedded::{self, Binaries, Progress};
use super::folder::SERVER;
use super::shop;
use crate::connectors::{ConnectError, Server, Sql, UrlSetting};

/// The schema of the shop and of the table that its events are written to.
pub(super) const SCHEMA: &str = "forebay_demo";
/// The slot and the publication of the demo's daemon.
pub(super) const SLOT: &str = "forebay_demo_shop";
/// Which PostgreSQL the demo brings.
const MAJOR: u16 = 18;
/// A copy writes much, and what the log of a throw-away server keeps is of no use.
const SETTINGS: [(&str, &str); 1] = [("max_wal_size", "256MB")];
/// What the schema is known by.
const COMMENT: &str = "made by `forebay demo`, which removes it";
/// The advisory lock that a demo holds while it runs; any number that nobody else uses ("fbdemo").
const LOCK: i64 = 0x6662_6465_6d6f;
/// How long a slot may stay active after its client has gone.
const SLOT_LIMIT: Duration = Duration::from_secs(10);
/// How often such a slot is looked at.
const SLOT_PAUSE: Duration = Duration::from_millis(50);

/// Where the shop shall be.
pub(super) enum Place {
    /// In the database that this URL names.
    Theirs(String),
    /// On a server that was brought for it.
    Ours(embedded::Server),
}

/// A database with an empty shop in it, which is filled by whoever plays the demo.
pub(super) struct Database {
    /// How everyone reaches it, the daemon too.
    pub(super) url: String,
    server: Server,
    /// Holds the lock.
    sql: Sql,
    /// The server, where it is ours. It ends with this, and needs no cleaning.
    own: Option<embedded::Server>,
}

impl Database {
    /// Makes the shop in `place`.
    pub(super) async fn open(place: Place, tell: impl Fn(String)) -> Result<Database, Fault> {
        let (url, own) = match place {
            Place::Theirs(url) => (url, None),
            Place::Ours(server) => (server.url("postgres"), Some(server)),
        };
        let server = reader_of(&url)?;
        let sql = server.sql().await.map_err(unreachable)?;
        let database = Database { url, server, sql, own };
        database.claim(&tell).await?;
        if let Err(fault) = database.build().await {
            database.clean_up().await?;
            return Err(fault);
        }
        Ok(database)
    }

    /// Another connection, in the demo's schema.
    pub(super) async fn connect(&self) -> Result<Sql, Fault> {
        let sql = self.server.sql().await.map_err(unreachable)?;
        sql.batch_execute(&format!("SET search_path TO {SCHEMA}")).await.map_err(preparing)?;
        Ok(sql)
    }

    /// What the server calls itself, for the screen.
    pub(super) async fn version(&self) -> Result<String, Fault> {
        let row = self.sql.query_one("SELECT current_setting('server_version')", &[]).await;
        Ok(row.map_err(preparing)?.get(0))
    }

    /// Makes sure that the schema's name is free and that nobody else takes it.
    async fn claim(&self, tell: impl Fn(String)) -> Result<(), Fault> {
        let refused = |text: String, remedy: String| {
            let doing = format!("preparing schema `{SCHEMA}`");
            Err(Fault::fatal(doing, Blame::Outside, text).with_remedy(remedy))
        };
        let locked = self.sql.query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK]).await;
        if !locked.map_err(preparing)?.get::<_, bool>(0) {
            let remedy = "wait until it has ended, or name another database with `--url`";
            return refused("another `forebay demo` works in this database".to_owned(), remedy.to_owned());
        }
        const THERE: &str = "
            SELECT (SELECT coalesce(obj_description(oid, 'pg_namespace'), '') FROM pg_namespace WHERE nspname = $1),
                   (SELECT coalesce(database::text, '') FROM pg_replication_slots WHERE slot_name = $2),
                   current_database()::text";
        let row = self.sql.query_one(THERE, &[&SCHEMA, &SLOT]).await.map_err(preparing)?;
        let (comment, slot_of, database): (Option<String>, Option<String>, String) =
            (row.get(0), row.get(1), row.get(2));
        if comment.as_deref().is_some_and(|comment| comment != COMMENT) {
            let remedy = "name another database with `--url`, or rename that schema";
            return refused(format!("schema `{SCHEMA}` exists and is not ours"), remedy.to_owned());
        }
        if slot_of.is_some_and(|slot_of| slot_of != database || comment.is_none()) {
            let remedy = format!(
                "if nobody needs it, remove it in its database: SELECT pg_drop_replication_slot('{SLOT}')"
            );
            return refused(format!("replication slot `{SLOT}` exists and is not ours"), remedy);
        }
        if comment.is_some() {
            tell(format!("removing what a demo that was killed has left in schema {SCHEMA}"));
            self.remove().await?;
        }
        Ok(())
    }

    async fn build(&self) -> Result<(), Fault> {
        let statements = format!(
            "CREATE SCHEMA {SCHEMA}; COMMENT ON SCHEMA {SCHEMA} IS '{COMMENT}'; SET search_path TO {SCHEMA}"
        );
        self.sql.batch_execute(&statements).await.map_err(preparing)?;
        shop::build(&self.sql).await
    }

    /// Removes whatever the demo has made. Whoever used it must have gone, or loses the connection.
    pub(super) async fn clean_up(self) -> Result<(), Fault> {
        if self.own.is_some() { Ok(()) } else { self.remove().await }
    }

    async fn remove(&self) -> Result<(), Fault> {
        let removing = |error| {
            Fault::fatal(format!("removing schema `{SCHEMA}` and slot `{SLOT}`"), Blame::Outside, error)
                .with_remedy(format!(
                    "SELECT pg_drop_replication_slot('{SLOT}'); DROP PUBLICATION IF EXISTS {SLOT}; DROP SCHEMA {SCHEMA} CASCADE"
                ))
        };
        const END_WALSENDER: &str = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                                     WHERE slot_name = $1 AND active_pid IS NOT NULL";
        const DROP_SLOT: &str =
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1";
        self.sql.execute(END_WALSENDER, &[&SLOT]).await.map_err(removing)?;
        let deadline = Instant::now() + SLOT_LIMIT;
        while let Err(error) = self.sql.execute(DROP_SLOT, &[&SLOT]).await {
            if error.code() != Some(&SqlState::OBJECT_IN_USE) || Instant::now() > deadline {
                return Err(removing(error));
            }
            sleep(SLOT_PAUSE).await;
        }
        let drop = format!("DROP PUBLICATION IF EXISTS {SLOT}; DROP SCHEMA IF EXISTS {SCHEMA} CASCADE");
        self.sql.batch_execute(&drop).await.map_err(removing)
    }
}

/// Brings a server whose files go below `folder`.
pub(super) async fn bring(folder: &Path, tell: impl Fn(String)) -> Result<Place, Fault> {
    let failed = |error| {
        Fault::fatal("bringing a PostgreSQL for the demo", Blame::Outside, error)
            .with_remedy("or use a server that is there: `forebay demo --url postgres://user@host/database`")
    };
    let binaries = Binaries::fetch(MAJOR, |progress| {
        tell(match progress {
            Progress::Asking(major) => {
                format!("asking for the newest PostgreSQL {major} (once; it is kept for the next time)")
            }
            Progress::Downloading(version) => format!("fetching PostgreSQL {version} (15 MB)"),
            Progress::Unpacking(version) => format!("unpacking PostgreSQL {version}"),
        });
    });
    let binaries = binaries.await.map_err(failed)?;
    tell(format!("starting PostgreSQL {} of our own", binaries.version()));
    let dir = folder.join(SERVER);
    std::fs::create_dir(&dir).map_err(|error| {
        Fault::fatal(format!("creating folder `{}`", dir.display()), Blame::Outside, error)
    })?;
    embedded::Server::create(binaries, &dir, &SETTINGS).await.map(Place::Ours).map_err(failed)
}

/// Reads a URL as the daemon will.
fn reader_of(url: &str) -> Result<Server, Fault> {
    let wrong = |error: Box<dyn std::error::Error + Send + Sync>| {
        Fault::fatal("reading `--url`", Blame::Configuration, error)
            .with_remedy("write it as `postgres://user:password@host:5432/database`")
    };
    let url = UrlSetting::Text(url.to_owned()).parse().map_err(|error| wrong(error.into()))?;
    Server::new(url).map_err(|error| wrong(error.into()))
}

fn unreachable(error: ConnectError) -> Fault {
    let refused = [
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        SqlState::INVALID_CATALOG_NAME,
    ];
    let blame = match error.sql_state() {
        Some(state) if refused.contains(state) => Blame::Configuration,
        _ => Blame::Outside,
    };
    Fault::fatal("connecting to the demo's database", blame, error)
        .with_remedy("start the server, or correct `--url`")
}

fn preparing(error: tokio_postgres::Error) -> Fault {
    Fault::fatal(format!("preparing schema `{SCHEMA}`"), Blame::Outside, error)
        .with_remedy("the role of `--url` needs CREATE on the database, and REPLICATION")
}
