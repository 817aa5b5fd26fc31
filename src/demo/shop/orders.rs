//! What is ordered, shipped and cancelled.

use forebay_api::Op;
use rand::RngExt;
use tokio_postgres::Error;

use super::{Order, Then, Work, Writer};

/// An order has no more lines than this.
const MAX_LINES: usize = 4;

pub(super) const CITIES: [&str; 6] = ["Lisbon", "Kraków", "Montréal", "São Paulo", "Zürich", "東京"];
pub(super) const NOTES: [&str; 4] =
    ["leave it at the door", "It's a gift!", "ring twice\nthen wait", "\\o/ \"thanks\""];

impl Writer {
    /// An order with its lines, and each product's stock: several tables in one transaction.
    pub(super) async fn order(&mut self, work: &mut Work<'_>) -> Result<Then, Error> {
        let customer = self.customers[self.random.random_range(0..self.customers.len())];
        let address = format!(
            r#"{{"city": "{}", "postcode": "{:05}"}}"#,
            self.one(&CITIES),
            self.random.random_range(0..100_000)
        );
        let note = self.random.random_ratio(1, 4).then(|| self.one(&NOTES));
        let rows = work
            .sql
            .query(
                "INSERT INTO orders (customer_id, address, note) VALUES ($1, $2::text::jsonb, $3)
                 RETURNING id, revision",
                &[&customer, &address, &note],
            )
            .await?;
        work.note("orders", Op::Insert, &rows);
        let id: i64 = rows[0].get(0);
        let products = self.basket();
        // one statement for all lines: their rows share an LSN
        let rows = work
            .sql
            .query(
                "INSERT INTO order_items (order_id, line, product_id, quantity, unit_price)
                 SELECT $1::bigint, item.line, p.id, $3::integer, p.price
                 FROM unnest($2::bigint[]) WITH ORDINALITY AS item(product, line) JOIN products p ON p.id = item.product
                 RETURNING order_id, line, revision",
                &[&id, &products, &self.random.random_range(1..4)],
            )
            .await?;
        work.note("order_items", Op::Insert, &rows);
        let rows = work
            .sql
            .query(
                "UPDATE products SET stock = stock - 1, revision = revision + 1, updated_at = clock_timestamp()
                 WHERE id = ANY($1) RETURNING id, revision",
                &[&products],
            )
            .await?;
        work.note("products", Op::Update, &rows);
        let rows = work
            .sql
            .query(
                "UPDATE orders SET revision = revision + 1,
                        total = (SELECT sum(quantity * unit_price) FROM order_items WHERE order_id = $1)
                 WHERE id = $1 RETURNING id, revision",
                &[&id],
            )
            .await?;
        work.note("orders", Op::Update, &rows);
        Ok(Then::Order(Order { id, customer }))
    }

    /// Several of the writer's products, each once.
    fn basket(&mut self) -> Vec<i64> {
        let count = self.random.random_range(1..=MAX_LINES);
        let first = self.random.random_range(0..self.products.len());
        (0..count).map(|step| self.products[(first + step) % self.products.len()]).collect()
    }

    /// An order on its way; its first line may become more.
    pub(super) async fn ship(&mut self, work: &mut Work<'_>) -> Result<Then, Error> {
        let Some(order) = self.some_order() else { return self.sign_up(work).await };
        let order = self.orders[order];
        let rows = work
            .sql
            .query(
                "UPDATE orders SET status = 'shipped', shipped_at = clock_timestamp(), revision = revision + 1
                 WHERE id = $1 RETURNING id, revision",
                &[&order.id],
            )
            .await?;
        work.note("orders", Op::Update, &rows);
        if self.random.random_ratio(1, 3) {
            let rows = work
                .sql
                .query(
                    "UPDATE order_items SET quantity = quantity + 1, revision = revision + 1
                     WHERE order_id = $1 AND line = 1 RETURNING order_id, line, revision",
                    &[&order.id],
                )
                .await?;
            work.note("order_items", Op::Update, &rows);
        }
        Ok(Then::Nothing)
    }

    /// An order that is deleted with all its lines.
    pub(super) async fn cancel(&mut self, work: &mut Work<'_>) -> Result<Then, Error> {
        let Some(index) = self.some_order() else { return self.sign_up(work).await };
        let id = self.orders[index].id;
        let delete_lines = "DELETE FROM order_items WHERE order_id = $1 RETURNING order_id, line";
        let rows = work.sql.query(delete_lines, &[&id]).await?;
        work.note("order_items", Op::Delete, &rows);
        let rows = work.sql.query("DELETE FROM orders WHERE id = $1 RETURNING id", &[&id]).await?;
        work.note("orders", Op::Delete, &rows);
        Ok(Then::NoOrder(index))
    }

    fn some_order(&mut self) -> Option<usize> {
        (!self.orders.is_empty()).then(|| self.random.random_range(0..self.orders.len()))
    }
}
