//! The shop: four tables, filled at first, and a load on them that does what shops do. It knows nothing of Forebay.
//!
//! Several writers work at the same time, each with a connection and a random sequence of its own. A row is changed
//! by the writer that made it, or was given it, and by no other, so that each writer knows the order of all changes of
//! its rows.

mod customers;
mod fill;
mod orders;
mod stock;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_api::{Blame, Fault, Op};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::{Client, Row, Transaction};
use tokio_util::sync::CancellationToken;

use super::database::{Database, SCHEMA};
use super::ledger::{Change, Key, Ledger};

pub(super) use fill::{Filled, fill};

/// As many connections work on the shop.
const WRITERS: u64 = 3;
/// Each writer begins a transaction so often: all together some hundreds of changes a second.
const PACE: Duration = Duration::from_millis(25);
/// What a writer has at least before the doors open.
const FIRST_PRODUCTS: usize = 20;

/// The tables, as the configuration names them.
pub(super) const TABLES: [&str; 4] = ["customers", "products", "orders", "order_items"];

/// `revision` counts the changes of a row, as optimistic locking does; the proof reads it. What refers to what is said
/// when the shop is filled, which is faster.
const SCHEMA_SQL: &str = "
    CREATE TABLE customers (
        id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        email       text NOT NULL UNIQUE,
        name        text NOT NULL,
        interests   text[] NOT NULL DEFAULT '{}',
        preferences jsonb NOT NULL DEFAULT '{}',
        credit      numeric(12,2),
        revision    integer NOT NULL DEFAULT 1,
        created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE TABLE products (
        id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        sku        text NOT NULL UNIQUE,
        title      text NOT NULL,
        price      numeric(10,2) NOT NULL,
        stock      integer NOT NULL,
        tags       text[] NOT NULL DEFAULT '{}',
        attributes jsonb,
        revision   integer NOT NULL DEFAULT 1,
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE TABLE orders (
        id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        customer_id bigint NOT NULL,
        status      text NOT NULL DEFAULT 'placed',
        total       numeric(12,2) NOT NULL DEFAULT 0,
        address     jsonb,
        note        text,
        revision    integer NOT NULL DEFAULT 1,
        placed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
        shipped_at  timestamptz
    );
    CREATE TABLE order_items (
        order_id   bigint NOT NULL,
        line       smallint NOT NULL,
        product_id bigint NOT NULL,
        quantity   integer NOT NULL,
        unit_price numeric(10,2) NOT NULL,
        revision   integer NOT NULL DEFAULT 1,
        PRIMARY KEY (order_id, line)
    )";

/// Makes the empty tables in the demo's schema, which is there and on the `search_path`.
pub(super) async fn build(sql: &Client) -> Result<(), Fault> {
    sql.batch_execute(SCHEMA_SQL).await.map_err(failed)
}

/// The load while it runs.
pub(super) struct Load {
    changes: Arc<AtomicU64>,
    writers: JoinSet<Result<Ledger, Fault>>,
    stop: CancellationToken,
}

impl Load {
    /// Opens the doors of a shop that was filled. The same `seed` gives each writer the same decisions.
    pub(super) async fn start(database: &Database, seed: u64) -> Result<Load, Fault> {
        let (changes, stop) = (Arc::<AtomicU64>::default(), CancellationToken::new());
        let mut ready = Vec::new();
        for number in 0..WRITERS {
            let sql = database.connect().await?;
            let share = fill::share(&sql, number).await?;
            ready.push((number, sql, share));
        }
        let mut writers = JoinSet::new();
        // only now that all have their share, so that nobody is given what another one has just made
        for (number, mut sql, share) in ready {
            let writer = Writer {
                random: StdRng::seed_from_u64(seed ^ number.rotate_right(8)),
                customers: share.customers,
                products: share.products,
                orders: share.orders,
                ledger: Ledger::default(),
                committed: Arc::clone(&changes),
            };
            let stop = stop.clone();
            writers.spawn(async move { writer.work(&mut sql, stop).await });
        }
        Ok(Load { changes, writers, stop })
    }

    /// How many changes are committed.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Waits for a writer that gives up; they do so only when the database fails them.
    pub(super) async fn fails(&mut self) -> Fault {
        match self.writers.join_next().await {
            Some(Ok(Err(fault))) => fault,
            Some(Err(panic)) => Fault::fatal("working on the shop", Blame::Defect, panic),
            Some(Ok(Ok(_))) | None => {
                Fault::fatal("working on the shop", Blame::Defect, "a writer went home early")
            }
        }
    }

    /// Closes the doors and gives what was committed.
    pub(super) async fn finish(mut self) -> Result<Ledger, Fault> {
        self.stop.cancel();
        let mut all = Ledger::default();
        while let Some(ended) = self.writers.join_next().await {
            all.merge(ended.map_err(|panic| Fault::fatal("working on the shop", Blame::Defect, panic))??);
        }
        Ok(all)
    }
}

/// One who works on the shop, with the rows that are its own.
struct Writer {
    random: StdRng,
    customers: Vec<i64>,
    products: Vec<i64>,
    orders: Vec<Order>,
    ledger: Ledger,
    /// Counts the committed changes of all writers, for whoever watches.
    committed: Arc<AtomicU64>,
}

/// An order that is open or was shipped.
#[derive(Clone, Copy)]
struct Order {
    id: i64,
    customer: i64,
}

/// A transaction and what it did so far.
struct Work<'a> {
    sql: Transaction<'a>,
    changes: Vec<(Key, Change)>,
}

/// What becomes of the writer's own rows when a transaction is committed.
enum Then {
    Nothing,
    Customer(i64),
    Products(Vec<i64>),
    Order(Order),
    /// This place in the list of orders is free.
    NoOrder(usize),
    /// This place in the list of customers is free.
    NoCustomer(usize),
}

impl Writer {
    async fn work(mut self, sql: &mut Client, stop: CancellationToken) -> Result<Ledger, Fault> {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            pace.tick().await;
            let transaction = sql.transaction().await.map_err(failed)?;
            let mut work = Work { sql: transaction, changes: Vec::new() };
            let (then, declined) = self.something(&mut work).await.map_err(failed)?;
            if declined {
                work.sql.rollback().await.map_err(failed)?;
                self.ledger.rolled_back += 1;
                continue;
            }
            work.sql.commit().await.map_err(failed)?;
            self.committed.fetch_add(work.changes.len() as u64, Ordering::Relaxed);
            self.ledger.enter(work.changes);
            self.remember(then);
        }
        Ok(self.ledger)
    }

    /// What the next visitor does, and whether it is taken back: a payment that is declined.
    async fn something(&mut self, work: &mut Work<'_>) -> Result<(Then, bool), tokio_postgres::Error> {
        if self.products.len() < FIRST_PRODUCTS {
            return Ok((self.stock_up(work).await?, false));
        }
        if self.customers.is_empty() {
            return Ok((self.sign_up(work).await?, false));
        }
        let then = match self.random.random_range(0..100) {
            0..14 => self.sign_up(work).await?,
            14..54 => return Ok((self.order(work).await?, self.random.random_ratio(1, 20))),
            54..76 => self.ship(work).await?,
            76..84 => self.change_prices(work).await?,
            84..92 => self.edit_profile(work).await?,
            92..97 => self.cancel(work).await?,
            _ => self.leave(work).await?,
        };
        Ok((then, false))
    }

    fn remember(&mut self, then: Then) {
        match then {
            Then::Nothing => {}
            Then::Customer(id) => self.customers.push(id),
            Then::Products(ids) => self.products.extend(ids),
            Then::Order(order) => self.orders.push(order),
            Then::NoOrder(index) => {
                self.orders.swap_remove(index);
            }
            Then::NoCustomer(index) => {
                self.customers.swap_remove(index);
            }
        }
    }

    /// One of `from`.
    fn one<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.random_range(0..from.len())]
    }
}

impl Work<'_> {
    /// Notes what a statement did with each row that it returned: its key, then its revision, which a row that is
    /// gone does not have.
    fn note(&mut self, table: &str, op: Op, rows: &[Row]) {
        for row in rows {
            let key = match table {
                "order_items" => format!("{table} {}/{}", row.get::<_, i64>(0), row.get::<_, i16>(1)),
                _ => format!("{table} {}", row.get::<_, i64>(0)),
            };
            let revision = (op != Op::Delete).then(|| row.get::<_, i32>("revision"));
            self.changes.push((key, Change { op, revision }));
        }
    }
}

/// The shop's own faults: its database went away, or refuses what every PostgreSQL takes.
fn failed(error: tokio_postgres::Error) -> Fault {
    Fault::fatal(format!("working on the shop in schema `{SCHEMA}`"), Blame::Outside, error)
}
