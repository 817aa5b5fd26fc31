//! What customers do with their accounts.

use forebay_api::Op;
use rand::RngExt;
use tokio_postgres::Error;

use super::{Then, Work, Writer};

pub(super) const FIRST_NAMES: [&str; 12] =
    ["Ada", "Björn", "Chloé", "Dmitri", "Émile", "Fatima", "Grace", "Håkon", "İpek", "José", "Łucja", "美咲"];
pub(super) const LAST_NAMES: [&str; 10] =
    ["Abbott", "Çelik", "Dvořák", "García", "Ito", "Müller", "Nowak", "O'Brien", "Øster", "Silva"];
const INTERESTS: [&str; 8] =
    ["garden", "kitchen", "books", "\"quoted\"", "music, loud", "chess", "running", "木工"];

impl Writer {
    /// A new account.
    pub(super) async fn sign_up(&mut self, work: &mut Work<'_>) -> Result<Then, Error> {
        let name = format!("{} {}", self.one(&FIRST_NAMES), self.one(&LAST_NAMES));
        let email = format!("{:016x}@example.com", self.random.random::<u64>());
        let interests = [self.one(&INTERESTS), self.one(&INTERESTS)];
        let preferences = format!(r#"{{"newsletter": {}, "language": "en"}}"#, self.random.random::<bool>());
        let rows = work
            .sql
            .query(
                "INSERT INTO customers (email, name, interests, preferences, credit)
                 VALUES ($1, $2, $3, $4::text::jsonb, $5::text::numeric) RETURNING id, revision",
                &[&email, &name, &&interests[..], &preferences, &self.money(0, 200)],
            )
            .await?;
        work.note("customers", Op::Insert, &rows);
        Ok(Then::Customer(rows[0].get(0)))
    }

    /// An account that is changed; one in three loses its credit.
    pub(super) async fn edit_profile(&mut self, work: &mut Work<'_>) -> Result<Then, Error> {
        let customer = self.customers[self.random.random_range(0..self.customers.len())];
        let interests: Vec<&str> =
            (0..self.random.random_range(0..4)).map(|_| self.one(&INTERESTS)).collect();
        let rows = work
            .sql
            .query(
                "UPDATE customers SET interests = $2, credit = CASE WHEN $3 THEN NULL ELSE credit END,
                        preferences = preferences || '{\"edited\": true}', revision = revision + 1
                 WHERE id = $1 RETURNING id, revision",
                &[&customer, &interests, &self.random.random_ratio(1, 3)],
            )
            .await?;
        work.note("customers", Op::Update, &rows);
        Ok(Then::Nothing)
    }

    /// An account that is deleted, where one has no orders.
    pub(super) async fn leave(&mut self, work: &mut Work<'_>) -> Result<Then, Error> {
        let idle = |id: &i64| self.orders.iter().all(|order| order.customer != *id);
        let Some(index) = self.customers.iter().position(idle) else { return self.edit_profile(work).await };
        let id = self.customers[index];
        let rows = work.sql.query("DELETE FROM customers WHERE id = $1 RETURNING id", &[&id]).await?;
        work.note("customers", Op::Delete, &rows);
        Ok(Then::NoCustomer(index))
    }

    /// An amount with cents, as text: `numeric` is never a float here.
    pub(super) fn money(&mut self, least: u32, most: u32) -> String {
        format!("{}.{:02}", self.random.random_range(least..most), self.random.random_range(0..100))
    }
}
