//! What is for sale, and at what price.

use forebay_api::Op;
use rand::RngExt;
use tokio_postgres::Error;

use super::{Then, Work, Writer};

/// So many products arrive together.
const DELIVERY: usize = 5;

pub(super) const THINGS: [&str; 8] =
    ["kettle", "lamp", "notebook", "chair", "clock", "bicycle bell", "teapot", "ladder"];
pub(super) const COLOURS: [&str; 5] = ["red", "sea green", "bleu clair", "weiß", "黒"];

impl Writer {
    /// New products: one statement, several rows.
    pub(super) async fn stock_up(&mut self, work: &mut Work<'_>) -> Result<Then, Error> {
        let mut skus = Vec::new();
        let mut titles = Vec::new();
        let mut prices = Vec::new();
        let mut attributes = Vec::new();
        for _ in 0..DELIVERY {
            let (colour, thing) = (self.one(&COLOURS), self.one(&THINGS));
            skus.push(format!("{:012X}", self.random.random::<u64>() >> 16));
            titles.push(format!("{thing}, {colour}"));
            prices.push(self.money(1, 500));
            attributes.push(format!(
                r#"{{"colour": "{colour}", "weight_kg": {}.{}}}"#,
                self.random.random_range(0..20),
                self.random.random_range(0..1000)
            ));
        }
        let rows = work
            .sql
            .query(
                "INSERT INTO products (sku, title, price, stock, tags, attributes)
                 SELECT sku, title, price::numeric, 1000, ARRAY['new', NULL, split_part(title, ',', 1)], attributes::jsonb
                 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS new(sku, title, price, attributes)
                 RETURNING id, revision",
                &[&skus, &titles, &prices, &attributes],
            )
            .await?;
        work.note("products", Op::Insert, &rows);
        Ok(Then::Products(rows.iter().map(|row| row.get(0)).collect()))
    }

    /// A sale: one statement that changes several rows.
    pub(super) async fn change_prices(&mut self, work: &mut Work<'_>) -> Result<Then, Error> {
        let first = self.random.random_range(0..self.products.len());
        let some: Vec<i64> = self.products.iter().skip(first).take(3).copied().collect();
        let rows = work
            .sql
            .query(
                "UPDATE products SET price = round(price * 1.01 + 0.01, 2), stock = stock + 10,
                        revision = revision + 1, updated_at = clock_timestamp()
                 WHERE id = ANY($1) RETURNING id, revision",
                &[&some],
            )
            .await?;
        work.note("products", Op::Update, &rows);
        Ok(Then::Nothing)
    }
}
