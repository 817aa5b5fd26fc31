//! The position of a stream: up to which mark its events are in the table, and who may write them.
//!
//! Invariant: marks move only in the transaction that stores what they cover, only forward, and only under the lease
//! that is in the row. A lease is taken once for a stream by each process; whoever takes it fences all before it,
//! because their next transaction finds another lease and nothing of it is kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use forebay_api::{Blame, Fault, Mark, StreamId};
use tokio_postgres::types::ToSql;

use super::fault;
use super::session::Session;

/// The leases that this process has taken.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<HashMap<StreamId, Lease>>);

/// A right to write a stream, until somebody else takes the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// The number that stands in the row.
    pub(super) number: i64,
    /// Whether the stream moves between daemons: to lose it is nothing that an operator must mend.
    pub(super) shared: bool,
}

/// Which row of the positions is a stream's.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// `<source>:<epoch>`.
    pub(super) stream: String,
    /// The destination's name: two of them with different filters have different positions in one table.
    pub(super) destination: String,
    /// The table alone: the positions stand in the same schema.
    pub(super) table: String,
}

/// What the row says.
struct Position {
    lease: i64,
    mark: Option<Mark>,
    /// Since when and from where the lease is held.
    holder: String,
}

impl Leases {
    /// The lease that was taken for a stream.
    pub(super) fn of(&self, stream: &StreamId) -> Option<Lease> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(stream).copied()
    }

    /// Keeps one.
    pub(super) fn keep(&self, stream: &StreamId, lease: Lease) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(stream.clone(), lease);
    }
}

impl Place {
    /// Takes the stream over: from now on nobody else's transaction is kept. Waits for one that is about to commit, so
    /// that what it stores is covered by the mark. Gives our lease and the mark.
    pub(super) async fn take_over(&self, session: &Session) -> Result<(i64, Option<Mark>), Fault> {
        let statement = format!(
            "INSERT INTO {} AS p (stream, destination, table_name, lease, taken, holder)
             VALUES ($1, $2, $3, 1, now(), coalesce(host(inet_client_addr()), 'a local socket'))
             ON CONFLICT (stream, destination, table_name)
             DO UPDATE SET lease = p.lease + 1, taken = excluded.taken, holder = excluded.holder
             RETURNING lease, mark, taken::text || ' from ' || holder",
            session.tables.positions
        );
        let position = self.read(session, "taking over", &statement).await?;
        let position = position.ok_or_else(|| self.gone("taking over"))?;
        Ok((position.lease, position.mark))
    }

    /// The mark that is stored, under our lease or not at all. Waits for a transaction of ours that was cut off at its
    /// commit: until the server has ended it, nobody knows what is stored.
    pub(super) async fn held(&self, session: &Session, lease: Lease) -> Result<Option<Mark>, Fault> {
        let statement = format!(
            "SELECT lease, mark, taken::text || ' from ' || holder FROM {}
             WHERE stream = $1 AND destination = $2 AND table_name = $3 FOR UPDATE",
            session.tables.positions
        );
        let position = self.read(session, "asking for the position of", &statement).await?;
        let position = position.ok_or_else(|| self.gone("asking for the position of"))?;
        if position.lease == lease.number { Ok(position.mark) } else { Err(self.fenced(lease, &position)) }
    }

    /// Moves the mark inside the session's transaction, which stores what it covers. `None`: what is stored is behind a
    /// record that is not settled yet, so only the lease is made sure of.
    pub(super) async fn advance(
        &self,
        session: &Session,
        lease: Lease,
        mark: Option<Mark>,
    ) -> Result<(), Fault> {
        if let Some(mark) = mark {
            let (bytes, text) = (&mark.to_bytes()[..], mark.to_string());
            let parameters: [&(dyn ToSql + Sync); 6] =
                [&self.stream, &self.destination, &self.table, &lease.number, &bytes, &text];
            let moved = session.sql.execute(&session.advance, &parameters).await;
            let doing = || format!("moving the position of stream `{}`", self.stream);
            if moved.map_err(|error| fault::judge(doing(), error))? == 1 {
                return Ok(());
            }
        }
        let held = self.held(session, lease).await?;
        match mark {
            None => Ok(()),
            // an attempt that we gave up had reached the server after all
            Some(_) => Err(Fault::retryable(
                format!("moving the position of stream `{}`", self.stream),
                format!("it stands at `{}` already", held.map(|mark| mark.to_string()).unwrap_or_default()),
            )),
        }
    }

    async fn read(&self, session: &Session, doing: &str, statement: &str) -> Result<Option<Position>, Fault> {
        let doing = format!("{doing} stream `{}`", self.stream);
        let failed = |error| fault::judge(&*doing, error);
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.stream, &self.destination, &self.table];
        let row = session.sql.query_opt(statement, &parameters).await.map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let bytes: Option<&[u8]> = row.try_get(1).map_err(failed)?;
        let mark = match bytes.map(|bytes| Mark::from_bytes(bytes).ok_or(bytes.len())).transpose() {
            Ok(mark) => mark,
            Err(len) => {
                return Err(Fault::fatal(
                    doing,
                    Blame::Outside,
                    format!("its mark has {len} bytes, not {}", Mark::BYTES),
                )
                .with_remedy(format!(
                    "somebody changed it; set `mark` to null in {}, and what comes again is found by its id",
                    session.tables.positions
                )));
            }
        };
        Ok(Some(Position {
            lease: row.try_get(0).map_err(failed)?,
            mark,
            holder: row.try_get(2).map_err(failed)?,
        }))
    }

    fn fenced(&self, lease: Lease, now: &Position) -> Fault {
        let Position { lease: other, holder, .. } = now;
        let doing = format!("writing stream `{}` to table `{}`", self.stream, self.table);
        let why = format!(
            "another daemon has taken it over (lease {other} since {holder}; ours was {})",
            lease.number
        );
        if lease.shared {
            return Fault::retryable(doing, why);
        }
        Fault::fatal(doing, Blame::Outside, why).with_remedy(
            "let one daemon alone write what this source sends to this destination, and stop the other",
        )
    }

    fn gone(&self, doing: &str) -> Fault {
        let doing = format!("{doing} stream `{}`", self.stream);
        Fault::fatal(doing, Blame::Outside, "its row in the positions is gone")
            .with_remedy("somebody deleted it; start again, and what comes again is found by its id")
    }
}
