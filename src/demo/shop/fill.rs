//! What is in the shop before its doors open, and whose it is then.
//!
//! The server makes the rows itself, some hundred thousand in seconds. Each has revision 1. A writer gets only some of
//! them, but always all orders of a customer that it gets, so that it knows which of its customers can be deleted.

use forebay_api::Fault;
use tokio_postgres::{Client, Error};

use super::customers::{FIRST_NAMES, LAST_NAMES};
use super::orders::{CITIES, NOTES};
use super::stock::{COLOURS, THINGS};
use super::{Order, WRITERS, failed};

/// So many orders come on one customer, on average.
const ORDERS_OF_A_CUSTOMER: u64 = 5;
/// So many orders come on one product.
const ORDERS_OF_A_PRODUCT: u64 = 100;
/// The lines of one in so many orders are still there, the newest; those of the others are not kept.
const ORDERS_OF_A_LINE: u64 = 4;
/// A writer gets no more customers than this, with all their orders,
const CUSTOMERS_OF_A_WRITER: i64 = 1_000;
/// and no more products.
const PRODUCTS_OF_A_WRITER: i64 = 300;

/// How many rows a shop was filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::demo) struct Filled {
    /// One customer in five has no orders.
    pub(in crate::demo) customers: u64,
    /// What they buy.
    pub(in crate::demo) products: u64,
    /// What they have bought.
    pub(in crate::demo) orders: u64,
    /// One of each of the newest orders.
    pub(in crate::demo) lines: u64,
}

impl Filled {
    /// In all tables.
    pub(in crate::demo) fn rows(self) -> u64 {
        self.customers + self.products + self.orders + self.lines
    }
}

/// Puts `orders` orders and what belongs to them into the empty tables. The server is told how many rows there are, as
/// it would find out by itself after a while.
pub(in crate::demo) async fn fill(sql: &Client, orders: u64) -> Result<Filled, Fault> {
    let customers = orders.div_ceil(ORDERS_OF_A_CUSTOMER).max(2);
    let products = orders.div_ceil(ORDERS_OF_A_PRODUCT);
    let lines = orders / ORDERS_OF_A_LINE;
    let filled = Filled { customers, products, orders, lines };
    filled.make(sql).await.map_err(failed)?;
    Ok(filled)
}

impl Filled {
    async fn make(self, sql: &Client) -> Result<(), Error> {
        let count = |rows: u64| i64::try_from(rows).expect("a demo has fewer rows");
        let (customers, products) = (count(self.customers), count(self.products));
        const CUSTOMERS: &str = "
            INSERT INTO customers (email, name, interests, preferences, credit, created_at)
            SELECT 'customer-' || n || '@example.com',
                   ($2::text[])[1 + n % cardinality($2)] || ' ' || ($3::text[])[1 + n / 7 % cardinality($3)],
                   CASE WHEN n % 3 > 0 THEN ARRAY['chess', '\"quoted\"'] ELSE '{}' END,
                   jsonb_build_object('newsletter', n % 3 = 0, 'language', 'en'),
                   CASE WHEN n % 4 > 0 THEN (n % 20000) / 100.0 END,
                   now() - n * interval '1 minute'
            FROM generate_series(1, $1::bigint) AS n";
        sql.execute(CUSTOMERS, &[&customers, &&FIRST_NAMES[..], &&LAST_NAMES[..]]).await?;
        const PRODUCTS: &str = "
            INSERT INTO products (sku, title, price, stock, tags, attributes)
            SELECT 'SKU-' || n, ($3::text[])[1 + n % cardinality($3)] || ', ' || ($2::text[])[1 + n % cardinality($2)],
                   (100 + n * 37 % 50000) / 100.0, 1000, ARRAY['old', NULL],
                   jsonb_build_object('colour', ($2::text[])[1 + n % cardinality($2)], 'weight_kg', n % 200 / 10.0)
            FROM generate_series(1, $1::bigint) AS n";
        sql.execute(PRODUCTS, &[&products, &&COLOURS[..], &&THINGS[..]]).await?;
        const ORDERS: &str = "
            INSERT INTO orders (customer_id, status, total, address, note, placed_at, shipped_at)
            SELECT 1 + n % $2::bigint, CASE WHEN n % 10 > 0 THEN 'shipped' ELSE 'placed' END,
                   (1 + n % 3) * (100 + (1 + n % $3::bigint) * 37 % 50000) / 100.0,
                   jsonb_build_object('city', ($4::text[])[1 + n % cardinality($4)], 'postcode', lpad(n::text, 5, '0')),
                   CASE WHEN n % 4 = 0 THEN ($5::text[])[1 + n / 4 % cardinality($5)] END,
                   now() - n * interval '1 minute',
                   CASE WHEN n % 10 > 0 THEN now() - n * interval '30 seconds' END
            FROM generate_series(1, $1::bigint) AS n";
        let orders = count(self.orders);
        let with_orders = count((self.customers * 4 / 5).max(1));
        sql.execute(ORDERS, &[&orders, &with_orders, &products, &&CITIES[..], &&NOTES[..]]).await?;
        const LINES: &str = "
            INSERT INTO order_items (order_id, line, product_id, quantity, unit_price)
            SELECT n, 1, 1 + n % $2::bigint, 1 + n % 3, (100 + (1 + n % $2::bigint) * 37 % 50000) / 100.0
            FROM generate_series($1::bigint, $3::bigint) AS n";
        let first = count(self.orders - self.lines + 1);
        sql.execute(LINES, &[&first, &products, &orders]).await?;
        const AFTERWARDS: &str = "
            ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers;
            ALTER TABLE order_items ADD FOREIGN KEY (order_id) REFERENCES orders,
                                    ADD FOREIGN KEY (product_id) REFERENCES products;
            CREATE INDEX ON orders (customer_id);
            ANALYZE customers, products, orders, order_items";
        sql.batch_execute(AFTERWARDS).await
    }
}

/// The rows that a writer is given.
pub(super) struct Share {
    pub(super) customers: Vec<i64>,
    pub(super) products: Vec<i64>,
    pub(super) orders: Vec<Order>,
}

/// Rows from all over the tables that no other writer is given.
pub(super) async fn share(sql: &Client, writer: u64) -> Result<Share, Fault> {
    let some = async |table: &str, most: i64| {
        let query = format!(
            "SELECT id FROM {table} WHERE id % {WRITERS} = {writer} ORDER BY hashint8(id) LIMIT {most}"
        );
        let rows = sql.query(&query, &[]).await.map_err(failed)?;
        Ok::<Vec<i64>, Fault>(rows.iter().map(|row| row.get(0)).collect())
    };
    let customers = some("customers", CUSTOMERS_OF_A_WRITER).await?;
    let products = some("products", PRODUCTS_OF_A_WRITER).await?;
    let query = "SELECT id, customer_id FROM orders WHERE customer_id = ANY ($1) ORDER BY id";
    let rows = sql.query(query, &[&customers]).await.map_err(failed)?;
    let orders = rows.iter().map(|row| Order { id: row.get(0), customer: row.get(1) }).collect();
    Ok(Share { customers, products, orders })
}
