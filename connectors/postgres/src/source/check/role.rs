//! [`Role`]: what decides which statement gives our role what it lacks.

use tokio_postgres::{Client, Error};

use super::statement::{identifier, plain};

/// The role that we log in as.
pub(in crate::source) struct Role {
    /// Its name.
    pub name: String,
    /// Whether it is a superuser, who owns everything and sees everything.
    pub superuser: bool,
    /// Whether it has by itself what the roles have that it is a member of.
    pub inherits: bool,
    /// Whether the server is Amazon's, where nobody can be given `REPLICATION`.
    pub rds: bool,
}

impl Role {
    /// Its name as SQL writes it.
    pub(in crate::source) fn id(&self) -> String {
        identifier(&self.name)
    }

    /// Its name for people.
    pub(in crate::source) fn shown(&self) -> String {
        plain(&self.name)
    }
}

/// Asks for [`Role`].
pub(in crate::source) async fn role(client: &Client) -> Result<Role, Error> {
    let query = "SELECT rolname::text AS name, rolsuper, rolinherit, EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication') AS rds \
                 FROM pg_roles WHERE rolname = current_user";
    let row = client.query_one(query, &[]).await?;
    Ok(Role {
        name: row.try_get("name")?,
        superuser: row.try_get("rolsuper")?,
        inherits: row.try_get("rolinherit")?,
        rds: row.try_get("rds")?,
    })
}
