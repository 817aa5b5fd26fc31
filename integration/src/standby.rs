//! A standby that a primary waits for, on a line that a test can hold: then what is committed on the primary is in its
//! log, and streamed to whoever reads that, while nobody sees it yet.

use std::path::Path;
use std::process::Command;

use crate::{Database, Postgres, Proxy, Stop};

/// What the primary knows the standby by.
const NAME: &str = "forebay_standby";

/// A real standby, made from a copy of the primary's data.
#[derive(Debug)]
pub struct Standby {
    server: Postgres,
    line: Proxy,
    /// Sessions on the primary look from here.
    primary: Database,
}

impl Standby {
    /// Makes a standby of `primary`, which is restarted for it, and lets every commit on `primary` wait until the
    /// standby has it.
    pub async fn synchronous(primary: &mut Postgres) -> Standby {
        let major = primary.server.version().major;
        let mut server = Postgres::start(u16::try_from(major).expect("a major version is small"), &[]).await;
        server.stop(Stop::Fast).await;
        // A line that is held shall not count as one that is cut.
        primary.server.set("wal_sender_timeout", "1h");
        primary.stop(Stop::Fast).await;
        copy_data(&primary.server.data_dir(), &server.server.data_dir());
        primary.start_again().await;
        let line = Proxy::to(primary.server.port()).await;
        let conninfo = format!("host=127.0.0.1 port={} user=postgres application_name={NAME}", line.port());
        server.server.set("primary_conninfo", &conninfo);
        server.server.set("wal_receiver_timeout", "0");
        server.start_again().await;
        let primary = primary.database("watch").await;
        primary.execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '{NAME}'")).await;
        primary.query("SELECT pg_reload_conf()", &[]).await;
        let standby = Standby { server, line, primary };
        standby.wait_until_followed().await;
        standby
    }

    /// Where a client finds a database of it.
    pub fn url(&self, database: &str) -> String {
        self.server.url(database)
    }

    /// Waits until what is committed on the primary is seen on the standby, too.
    pub async fn wait_until_it_has_all(&self) {
        let end = self.primary.value::<String>("SELECT pg_current_wal_flush_lsn()::text").await;
        let replayed = format!(
            "SELECT replay_lsn >= '{end}' FROM pg_stat_replication WHERE application_name = '{NAME}'"
        );
        self.primary.wait_until(&replayed).await;
    }

    /// Holds the line: commits on the primary wait from now on.
    pub fn pause(&self) {
        self.line.pause();
    }

    /// Lets the line go: what waited becomes visible.
    pub fn resume(&self) {
        self.line.resume();
    }

    /// Waits until so many commits on the primary wait for the standby.
    pub async fn wait_for_hanging(&self, count: usize) {
        let hanging = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        self.primary.wait_until(&format!("SELECT ({hanging}) >= {count}")).await;
    }

    async fn wait_until_followed(&self) {
        let followed = format!(
            "SELECT count(*) = 1 FROM pg_stat_replication \
             WHERE application_name = '{NAME}' AND state = 'streaming' AND sync_state = 'sync'"
        );
        self.primary.wait_until(&followed).await;
    }
}

/// Puts a copy of one cluster, which is stopped, in the place of another, with owners and permissions.
fn copy_data(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to).expect("the data of a server that was stopped can be removed");
    let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("there is a `cp`");
    assert!(copied.success(), "`cp -a {} {}` failed ({copied})", from.display(), to.display());
    std::fs::write(to.join("standby.signal"), "").expect("the copy is writable");
}
