//! [`Room`]: how much of what a server has little of is left for us, and the settings that decide how long it keeps what
//! we have not read.

use tokio_postgres::{Client, Error};

use super::statement;

/// So many connections more than what is needed a remedy asks for, so that the next one does not need it again.
const SPARE: i64 = 10;

/// Something of which a server has so many.
pub(super) struct Seats {
    /// What people call it.
    pub what: &'static str,
    /// The statement that sets their number, without that number.
    pub statement: String,
    /// Whether only a restart makes that count.
    pub restart: bool,
    /// How many there are.
    pub all: i64,
    /// How many of these are used by others.
    pub taken: i64,
}

impl Seats {
    /// How many are left.
    pub(super) fn left(&self) -> i64 {
        (self.all - self.taken).max(0)
    }

    /// What makes room for `needed` more.
    pub(super) fn more(&self, needed: i64) -> Vec<String> {
        let enough = (self.taken + needed).max(self.all) + SPARE;
        let mut lines = vec![format!("{} {enough};", self.statement)];
        if self.restart {
            lines.push("-- and restart the server".to_owned());
        }
        lines
    }
}

/// What a server has left, and how long it keeps WAL.
pub(super) struct Room {
    /// Replication slots.
    pub slots: Seats,
    /// Replication connections.
    pub walsenders: Seats,
    /// Ordinary connections: of the server, and where there is a limit of the role and of the database.
    pub connections: Vec<Seats>,
    /// Slots that nobody reads.
    pub idle_slots: Vec<String>,
    /// `max_slot_wal_keep_size` in bytes; `None`: no limit.
    pub keep_bytes: Option<i64>,
    /// `idle_replication_slot_timeout`, where there is one.
    pub idle_timeout: Option<String>,
    /// `hot_standby_feedback`.
    pub feedback: bool,
}

/// Of other people's sessions an ordinary role sees that they are there, and not what they are.
const QUERY: &str = "
    WITH sessions AS (
        SELECT a.datname, a.usename FROM pg_stat_activity a
        WHERE a.datid IS NOT NULL AND a.usesysid IS NOT NULL AND a.pid <> pg_backend_pid()
            AND coalesce(a.backend_type, 'client backend') = 'client backend'
            AND NOT EXISTS (SELECT FROM pg_stat_replication r WHERE r.pid = a.pid)
    )
    SELECT current_setting('max_replication_slots')::int8 AS slots,
        (SELECT count(*) FROM pg_replication_slots) AS slots_taken,
        ARRAY(SELECT slot_name::text FROM pg_replication_slots WHERE NOT active ORDER BY slot_name) AS idle_slots,
        current_setting('max_wal_senders')::int8 AS walsenders,
        (SELECT count(*) FROM pg_stat_replication) AS walsenders_taken,
        current_setting('max_connections')::int8 AS connections,
        (SELECT count(*) FROM sessions) + CASE WHEN r.rolsuper THEN 0
            ELSE current_setting('superuser_reserved_connections')::int8
                + coalesce(current_setting('reserved_connections', true)::int8, 0) END AS connections_taken,
        r.rolname::text AS role, r.rolsuper AS superuser, r.rolconnlimit::int8 AS of_role,
        (SELECT count(*) FROM sessions WHERE usename = r.rolname) AS of_role_taken,
        d.datname::text AS database, d.datconnlimit::int8 AS of_database,
        (SELECT count(*) FROM sessions WHERE datname = d.datname) AS of_database_taken,
        (SELECT setting::int8 * 1048576 FROM pg_settings WHERE name = 'max_slot_wal_keep_size' AND setting <> '-1') AS keep_bytes,
        (SELECT current_setting(name) FROM pg_settings WHERE name = 'idle_replication_slot_timeout' AND setting <> '0') AS idle_timeout,
        current_setting('hot_standby_feedback')::bool AS feedback
    FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()";

/// Asks for [`Room`].
pub(super) async fn room(client: &Client) -> Result<Room, Error> {
    let row = client.query_one(QUERY, &[]).await?;
    let setting = |what, name: &str, count: &str, taken: &str| {
        let statement = format!("ALTER SYSTEM SET {name} =");
        Ok::<_, Error>(Seats {
            what,
            statement,
            restart: true,
            all: row.try_get(count)?,
            taken: row.try_get(taken)?,
        })
    };
    let mut connections =
        vec![setting("connections", "max_connections", "connections", "connections_taken")?];
    let limits = [
        ("connections of the role", "ROLE", "role", "of_role", "of_role_taken"),
        ("connections to the database", "DATABASE", "database", "of_database", "of_database_taken"),
    ];
    let superuser: bool = row.try_get("superuser")?;
    for (what, kind, name, count, taken) in limits {
        let all: i64 = row.try_get(count)?;
        if all >= 0 && !superuser {
            let name: String = row.try_get(name)?;
            let statement = format!("ALTER {kind} {} CONNECTION LIMIT", statement::identifier(&name));
            connections.push(Seats { what, statement, restart: false, all, taken: row.try_get(taken)? });
        }
    }
    Ok(Room {
        slots: setting("replication slots", "max_replication_slots", "slots", "slots_taken")?,
        walsenders: setting("replication connections", "max_wal_senders", "walsenders", "walsenders_taken")?,
        connections,
        idle_slots: row.try_get("idle_slots")?,
        keep_bytes: row.try_get("keep_bytes")?,
        idle_timeout: row.try_get("idle_timeout")?,
        feedback: row.try_get("feedback")?,
    })
}
