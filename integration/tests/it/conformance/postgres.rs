//! The suite against PostgreSQL as a destination, oldest, middle and newest.

use std::sync::Arc;
use std::time::Duration;

use forebay_api::testing::destination::{DestinationRig, Disturbance, SOURCE, conform};
use forebay_api::{Destination, DestinationConnector, DestinationSetting};
use forebay_integration::{Database, Postgres, Proxy, Stop};
use forebay_postgres::PostgresDestination;
use serde_json::json;
use tokio::sync::Mutex;

/// Each check has a database of its own, behind a proxy.
struct Rig {
    database: Database,
    proxy: Mutex<Proxy>,
    /// The check that kills the server has a server of its own.
    own: Option<Mutex<Postgres>>,
}

impl Rig {
    async fn new(check: &str, major: u16) -> Rig {
        let own = if check == "a_server_that_is_killed_loses_nothing" {
            Some(Postgres::start(major, &[]).await)
        } else {
            None
        };
        let server = match &own {
            Some(server) => server,
            None => Postgres::shared(major).await,
        };
        let proxy = Mutex::new(Proxy::to(server.server.port()).await);
        Rig { database: server.database("conformance").await, proxy, own: own.map(Mutex::new) }
    }
}

#[async_trait::async_trait]
impl DestinationRig for Rig {
    async fn build(&self) -> Arc<dyn Destination> {
        let url =
            format!("postgres://postgres@{}/{}", self.proxy.lock().await.address(), self.database.name());
        let config = serde_json::from_value(json!({"url": url})).expect("it has all it needs");
        let setting = DestinationSetting {
            name: "copy".to_owned(),
            format: "forebay".to_owned(),
            data_dir: std::env::temp_dir(),
            sources: vec![SOURCE.to_owned()],
        };
        PostgresDestination::build(config, &setting).expect("its configuration is right")
    }

    async fn stored(&self) -> Option<Vec<Vec<u8>>> {
        let exists = self.database.value::<bool>("select to_regclass('forebay_events') is not null").await;
        if !exists {
            return Some(Vec::new());
        }
        let rows = self.database.query("select body::text from forebay_events order by seq", &[]).await;
        Some(rows.iter().map(|row| row.get::<_, String>(0).into_bytes()).collect())
    }

    fn keeps_marks(&self) -> bool {
        true
    }

    fn refused(&self) -> Option<&'static str> {
        Some(r#""jsonb holds no \u0000""#)
    }

    fn disturbances(&self) -> &[Disturbance] {
        match self.own {
            Some(_) => &[Disturbance::Kill],
            None => &[Disturbance::Cut, Disturbance::Refuse, Disturbance::Slow],
        }
    }

    async fn disturb(&self, how: Disturbance) {
        match how {
            Disturbance::Kill => self.own.as_ref().unwrap().lock().await.stop(Stop::Kill).await,
            Disturbance::Cut => self.proxy.lock().await.shut().await,
            Disturbance::Slow => self.proxy.lock().await.delay(Duration::from_millis(150)),
            Disturbance::Refuse => {
                // for sessions to come, so those that are there are ended
                let database = self.database.name();
                self.database
                    .execute(&format!("alter database {database} set default_transaction_read_only = on"))
                    .await;
                self.database
                    .query(
                        "select pg_terminate_backend(pid) from pg_stat_activity
                         where datname = current_database() and application_name = 'forebay'",
                        &[],
                    )
                    .await;
            }
        }
    }

    async fn restore(&self, how: Disturbance) {
        match how {
            Disturbance::Kill => self.own.as_ref().unwrap().lock().await.start_again().await,
            Disturbance::Cut => self.proxy.lock().await.open().await,
            Disturbance::Slow => self.proxy.lock().await.delay(Duration::ZERO),
            Disturbance::Refuse => {
                let database = self.database.name();
                self.database
                    .execute(&format!("alter database {database} reset default_transaction_read_only"))
                    .await;
            }
        }
    }
}

async fn conforms(major: u16) {
    let too_large = "the server takes records of up to 255 MiB, more than a suite should make";
    conform(&[("a_record_that_is_too_large_is_rejected", too_large)], async |check| {
        Rig::new(check, major).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_destination_conforms_on_postgresql_13() {
    conforms(13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_destination_conforms_on_postgresql_15() {
    conforms(15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_destination_conforms_on_postgresql_18() {
    conforms(18).await;
}
