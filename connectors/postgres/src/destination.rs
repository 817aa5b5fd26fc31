//! The destination `postgres`: every event becomes a row of a table, once.
//!
//! ```text
//!  deliver ─▶ BEGIN ─▶ COPY into a staging table ─▶ INSERT … ON CONFLICT DO NOTHING ─▶ position ─▶ COMMIT ─▶ accept
//!  held ────▶ the position's mark ◀───────────────────────────────────────────────────────┘
//! ```
//! Durable means committed: with the server's `synchronous_commit`, which is never `off` here. Events and the mark that
//! covers them are stored in one transaction, so what is delivered again is struck off by the mark, and what the mark
//! does not cover is found by its id. Two daemons never both write a stream: the position bears a lease.
//!
//! Deliberately absent: retries, which are the lane's, and any state that a killed process would miss.

mod append;
mod config;
mod conflicts;
mod fault;
mod name;
mod position;
mod rows;
mod schemas;
mod session;
mod tables;

use std::sync::Arc;

use async_trait::async_trait;
use forebay_api::{
    Blame, Delivery, Destination, DestinationConnector, DestinationSetting, Fault, Finding, Mark, Mistake,
    SchemaStore, SchemaStoreConnector, SchemaStoreSetting, StreamId,
};

pub use self::config::{Mode, PostgresDestinationConfig};
pub use self::schemas::{PostgresSchemas, PostgresSchemasConfig};

use self::append::{Append, Told};
use self::conflicts::Conflicts;
use self::position::{Lease, Leases, Place};
use self::session::Sessions;

/// The connector, for the registry.
#[derive(Debug)]
pub struct PostgresDestination;

#[async_trait]
impl DestinationConnector for PostgresDestination {
    const TYPE: &'static str = "postgres";
    const ABOUT: &'static str = "a PostgreSQL table that every event is appended to, once";
    const EXAMPLE: &'static str = "\
type: postgres                   # a table that every event is in once
url: ${COPY_URL}                 # another database than that of the source
table: forebay.events            # created when it does not exist
";
    type Config = PostgresDestinationConfig;

    fn build(
        config: PostgresDestinationConfig,
        setting: &DestinationSetting,
    ) -> Result<Arc<dyn Destination>, Vec<Mistake>> {
        let (url, table) = config.read()?;
        Ok(Arc::new(Table {
            name: setting.name.clone(),
            sessions: Sessions::new(url, table),
            leases: Leases::default(),
            conflicts: Conflicts::default(),
        }))
    }

    /// The table `forebay_schemas` of the same database.
    fn schema_store(
        config: PostgresDestinationConfig,
        setting: &SchemaStoreSetting,
    ) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>> {
        PostgresSchemas::build(PostgresSchemasConfig::beside(config.url), setting)
    }

    async fn check(config: PostgresDestinationConfig, _setting: &DestinationSetting) -> Vec<Finding> {
        let (url, table) = match config.read() {
            Ok(read) => read,
            Err(mistakes) => return mistakes.into_iter().map(mistaken).collect(),
        };
        let looked = async {
            let sql = session::connect(&url).await?;
            let connected = Finding::good(format!("database `{}` can be reached", url.database));
            let found = session::within("looking at the tables", async {
                let found = tables::check(&sql, &table).await;
                found.map_err(|error| fault::judge("looking at the tables", error))
            });
            Ok(std::iter::once(connected).chain(found.await?).collect())
        };
        looked.await.unwrap_or_else(|fault: Fault| vec![Finding::fault(&fault)])
    }
}

/// One table, as the configuration names it.
#[derive(Debug)]
struct Table {
    /// The destination's name, which is part of its positions' key.
    name: String,
    sessions: Sessions,
    leases: Leases,
    conflicts: Conflicts,
}

impl Table {
    fn place(&self, stream: &StreamId) -> Place {
        Place {
            stream: stream.to_string(),
            destination: self.name.clone(),
            table: self.sessions.table().table.clone(),
        }
    }
}

#[async_trait]
impl Destination for Table {
    /// A session that was made ready has found both tables, or made them.
    async fn open(&self) -> Result<(), Fault> {
        let session = self.sessions.take().await?;
        session::within("looking whether the server answers", session.answers()).await?;
        self.sessions.give_back(session);
        Ok(())
    }

    async fn held(&self, stream: &StreamId) -> Result<Option<Mark>, Fault> {
        let session = self.sessions.take().await?;
        let place = self.place(stream);
        let mark = session::within("asking for the position", async {
            if let Some(lease) = self.leases.of(stream) {
                return place.held(&session, lease).await;
            }
            let (number, mark) = place.take_over(&session).await?;
            self.leases.keep(stream, Lease { number, shared: false });
            Ok(mark)
        });
        let mark = mark.await?;
        self.sessions.give_back(session);
        Ok(mark)
    }

    async fn take_over(&self, stream: &StreamId) -> Result<Option<Mark>, Fault> {
        let session = self.sessions.take().await?;
        let taken = session::within("asking for the position", self.place(stream).take_over(&session)).await;
        let (number, mark) = taken?;
        self.leases.keep(stream, Lease { number, shared: true });
        self.sessions.give_back(session);
        Ok(mark)
    }

    async fn deliver(&self, mut delivery: Delivery) -> Result<(), Fault> {
        let stream = delivery.stream().clone();
        let lease = self.leases.of(&stream).ok_or_else(|| {
            let doing = format!("writing stream `{stream}`");
            Fault::fatal(doing, Blame::Defect, "nobody asked what is held, so there is no lease")
        })?;
        let session = self.sessions.take().await?;
        let place = self.place(&stream);
        let append = Append { session: &session, place: &place, lease, conflicts: &self.conflicts };
        let mut told = Told::default();
        let stored = append.store(&delivery, &mut told).await;
        for index in told.stored {
            delivery.accept(index);
        }
        for (index, why) in told.refused {
            delivery.reject(index, why);
        }
        stored?;
        self.sessions.give_back(session);
        Ok(())
    }

    async fn close(&self) -> Result<(), Fault> {
        self.sessions.clear();
        Ok(())
    }
}

fn mistaken(mistake: Mistake) -> Finding {
    let help = mistake.help.unwrap_or_else(|| "correct the configuration".to_owned());
    Finding::bad(mistake.message, Blame::Configuration, help)
}
